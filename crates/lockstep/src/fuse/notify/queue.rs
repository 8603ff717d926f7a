//! What is still to be invalidated: one piece of work per node, however often it changes.
//!
//! An invalidation that has not begun covers every change made before it begins, so changes of
//! the same node or name fold into one. The queue therefore holds at most one piece of work per
//! node, and of names at most [`NAMES_MAX`] where the kernel has epochs: past that, the names
//! waiting are traded for one epoch bump, which covers them all.
//!
//! Pure: no threads, no kernel, time passed in.

use lockstep_core::NodeId;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Most names queued before they are traded for an epoch bump.
pub const NAMES_MAX: usize = 16 * 1024;

/// When an invalidation that found no inode is tried again (see [`super::super::introduced`]).
const AGAIN_AFTER: [Duration; 4] = [
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
];

/// A callback of [`Queue::barrier`].
pub type Done = Box<dyn FnOnce() + Send>;

/// What is to be dropped of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Cached pages of a file, or the cached listing of a directory.
    pub pages: bool,
    /// Names came or went: the listing must go after lookups under way have ended.
    pub listing: bool,
    /// Names in this directory; may be empty although `listing`, when an epoch covers them.
    pub names: BTreeSet<Vec<u8>>,
    /// Which repetition this is, 0 for the first.
    pub attempt: usize,
}

/// One piece of work handed out; to be given back to [`Queue::finish`].
#[derive(Debug, PartialEq, Eq)]
pub enum Batch {
    /// Attributes of this node, and what `Work` says.
    Node(NodeId, Work),
    /// Every cached name.
    Epoch,
}

/// A handed-out [`Batch`] with the ticket barriers count by.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticketed {
    /// Order of queuing.
    pub ticket: u64,
    /// What to do.
    pub batch: Batch,
}

/// The queue.
#[derive(Default)]
pub struct Queue {
    work: HashMap<NodeId, (u64, Work)>,
    order: VecDeque<NodeId>,
    busy: HashSet<NodeId>,
    epoch: Option<u64>,
    epochs_known: bool,
    names: usize,
    next_ticket: u64,
    open: BTreeSet<u64>,
    barriers: VecDeque<(u64, Done)>,
    ready: VecDeque<Done>,
    again: Vec<(Instant, NodeId, Work)>,
}

impl Queue {
    /// An empty queue for a kernel that does or does not have epochs.
    pub fn new(epochs_known: bool) -> Self {
        Queue { epochs_known, ..Queue::default() }
    }

    /// Attributes of `node`, and its pages if `pages`.
    pub fn node(&mut self, node: NodeId, pages: bool) {
        self.entry(node).pages |= pages;
    }

    /// `name` in `parent`, and with it the directory's attributes and listing.
    pub fn name(&mut self, parent: NodeId, name: &[u8]) {
        let work = self.entry(parent);
        work.listing = true;
        if work.names.insert(name.to_vec()) {
            self.names += 1;
        }
        if self.names > NAMES_MAX && self.epochs_known {
            self.trade_names_for_epoch();
        }
    }

    /// Every cached name, by epoch; without epochs the caller must name them.
    pub fn all_names(&mut self) {
        if self.epoch.is_none() {
            self.epoch = Some(self.ticket());
        }
    }

    /// Runs `done` (through [`Queue::ready`]) once all that was queued before has been finished.
    pub fn barrier(&mut self, done: Done) {
        if self.open.is_empty() {
            self.ready.push_back(done);
        } else {
            self.barriers.push_back((self.next_ticket, done));
        }
    }

    /// The next callback whose time has come.
    pub fn ready(&mut self) -> Option<Done> {
        self.ready.pop_front()
    }

    /// The next piece of work; a node being worked on is passed over.
    pub fn take(&mut self) -> Option<Ticketed> {
        if let Some(ticket) = self.epoch.take() {
            return Some(Ticketed { ticket, batch: Batch::Epoch });
        }
        let at = self.order.iter().position(|node| !self.busy.contains(node))?;
        let node = self.order.remove(at)?;
        let (ticket, work) = self.work.remove(&node)?;
        self.names -= work.names.len();
        self.busy.insert(node);
        Some(Ticketed { ticket, batch: Batch::Node(node, work) })
    }

    /// Whether [`Queue::take`] or [`Queue::ready`] would give something now.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || self.epoch.is_some()
            || self.order.iter().any(|node| !self.busy.contains(node))
    }

    /// When [`Queue::requeue_due`] gives something to do although nothing new was queued.
    pub fn wake_at(&self) -> Option<Instant> {
        self.again.iter().map(|(due, ..)| *due).min()
    }

    /// `done` has reached the kernel; barriers that waited for it alone become ready.
    pub fn finish(&mut self, done: &Ticketed) {
        if let Batch::Node(node, _) = &done.batch {
            self.busy.remove(node);
        }
        self.open.remove(&done.ticket);
        let oldest = self.open.first().copied().unwrap_or(u64::MAX);
        while self.barriers.front().is_some_and(|(ticket, _)| *ticket <= oldest) {
            self.ready.extend(self.barriers.pop_front().map(|(_, done)| done));
        }
    }

    /// `work` found no inode, but one may be about to appear with an older answer.
    pub fn again(&mut self, now: Instant, node: NodeId, work: &Work) {
        if let Some(delay) = AGAIN_AFTER.get(work.attempt) {
            let work = Work { pages: work.pages, attempt: work.attempt + 1, ..Work::default() };
            self.again.push((now + *delay, node, work));
        }
    }

    /// What is to be tried again at `now` is work like any other from now on.
    pub fn requeue_due(&mut self, now: Instant) {
        let due: Vec<_> = self.again.extract_if(.., |(due, ..)| *due <= now).collect();
        for (_, node, work) in due {
            let queued = self.entry(node);
            queued.pages |= work.pages;
            queued.attempt = queued.attempt.max(work.attempt);
        }
    }

    fn entry(&mut self, node: NodeId) -> &mut Work {
        if !self.work.contains_key(&node) {
            let ticket = self.ticket();
            self.order.push_back(node);
            self.work.insert(node, (ticket, Work::default()));
        }
        &mut self.work.get_mut(&node).expect("inserted above").1
    }

    fn ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.open.insert(ticket);
        ticket
    }

    fn trade_names_for_epoch(&mut self) {
        for (_, work) in self.work.values_mut() {
            work.names.clear();
        }
        self.names = 0;
        self.all_names();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const A: NodeId = NodeId(2);
    const B: NodeId = NodeId(3);

    fn take(queue: &mut Queue) -> Ticketed {
        queue.take().expect("work is queued")
    }

    #[test]
    fn changes_of_one_node_fold_into_one_piece_of_work() {
        let mut queue = Queue::new(true);
        queue.node(A, false);
        queue.name(A, b"x");
        queue.name(A, b"x");
        queue.name(A, b"y");
        queue.node(A, true);
        let names = BTreeSet::from([b"x".to_vec(), b"y".to_vec()]);
        let work = Work { pages: true, listing: true, names, attempt: 0 };
        assert_eq!(take(&mut queue).batch, Batch::Node(A, work));
        assert!(!queue.has_work());
    }

    #[test]
    fn a_node_being_worked_on_waits_and_others_do_not() {
        let mut queue = Queue::new(true);
        queue.node(A, false);
        let first = take(&mut queue);
        queue.node(A, true);
        assert!(!queue.has_work(), "its second change waits for the first");
        queue.node(B, false);
        assert_eq!(take(&mut queue).batch, Batch::Node(B, Work::default()));
        queue.finish(&first);
        assert!(matches!(take(&mut queue).batch, Batch::Node(A, Work { pages: true, .. })));
    }

    #[test]
    fn a_barrier_waits_for_what_was_queued_before_and_nothing_later() {
        let mut queue = Queue::new(true);
        let reached = Arc::new(AtomicBool::new(false));
        let reach = reached.clone();
        queue.node(A, true);
        queue.node(B, true);
        queue.barrier(Box::new(move || reach.store(true, Ordering::SeqCst)));
        queue.node(NodeId(9), true);
        let (a, b) = (take(&mut queue), take(&mut queue));
        queue.finish(&b);
        assert!(queue.ready().is_none());
        queue.finish(&a);
        queue.ready().expect("both are done")();
        assert!(reached.load(Ordering::SeqCst));
    }

    #[test]
    fn a_barrier_on_an_empty_queue_is_ready_at_once() {
        let mut queue = Queue::new(false);
        queue.barrier(Box::new(|| {}));
        assert!(queue.has_work());
        assert!(queue.ready().is_some());
    }

    #[test]
    fn too_many_names_become_one_epoch_and_none_is_dropped() {
        let mut queue = Queue::new(true);
        for i in 0..=NAMES_MAX as u64 {
            queue.name(NodeId(2 + i % 7), &i.to_ne_bytes());
        }
        assert_eq!(take(&mut queue).batch, Batch::Epoch);
        let mut dirs = 0;
        while let Some(next) = queue.take() {
            assert!(
                matches!(&next.batch, Batch::Node(_, w) if w.listing && w.names.is_empty()),
                "names are covered by the epoch, listings are not"
            );
            dirs += 1;
        }
        assert_eq!(dirs, 7);
    }

    #[test]
    fn without_epochs_every_name_is_kept() {
        let mut queue = Queue::new(false);
        for i in 0..=NAMES_MAX as u64 {
            queue.name(A, &i.to_ne_bytes());
        }
        let Batch::Node(A, work) = take(&mut queue).batch else { panic!("one directory") };
        assert_eq!(work.names.len(), NAMES_MAX + 1);
    }

    #[test]
    fn an_unknown_inode_is_tried_again_later_a_few_times() {
        let mut queue = Queue::new(true);
        let mut now = Instant::now();
        queue.node(A, true);
        for attempt in 0..=AGAIN_AFTER.len() {
            queue.requeue_due(now);
            let next = queue.take().expect("due");
            let Batch::Node(A, work) = &next.batch else { panic!("a node") };
            assert_eq!((work.attempt, work.pages), (attempt, true));
            queue.again(now, A, work);
            queue.finish(&next);
            queue.requeue_due(now);
            assert!(queue.take().is_none(), "not before its time");
            now = queue.wake_at().unwrap_or(now);
        }
        assert_eq!(queue.wake_at(), None, "and not for ever");
    }
}
