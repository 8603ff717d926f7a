//! A peer's changes take effect: tree first, then disk, then the kernel's caches.

use crate::begun::Doing;
use crate::files::OpenFile;
use crate::volume::{State, Volume};
use lockstep_core::change::{Exchange, RenameTarget};
use lockstep_core::{
    Change, ContentRef, Effect, Manifest, NodeId, Op, OutOfOrder, Place, Sequence, Slot, Version,
};
use lockstep_disk::describe_bytes;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A change as it came, with the content if it travelled inside.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The change.
    pub change: Change,
    /// All bytes of its content, unverified.
    pub inline: Option<Vec<u8>>,
}

/// Why not all changes of a batch were applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Changes are missing before this batch.
    #[error("changes are missing: expected {expected:?}, got {got:?}")]
    Gap {
        /// Next change that can be applied.
        expected: Sequence,
        /// The one that came.
        got: Sequence,
    },
    /// The next change replaces a file by one whose bytes are not here yet.
    #[error("waiting for the content of {0}")]
    Waiting(NodeId),
    /// The disk refused; the change stays to be applied.
    #[error("the disk refused: {0}")]
    Disk(#[source] io::Error),
}

/// Changes of peers since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    applied: AtomicU64,
    repeated: AtomicU64,
}

/// A content that travelled with its change, verified.
struct CameAlong<'b> {
    content: ContentRef,
    version: Version,
    manifest: Manifest,
    bytes: &'b [u8],
}

/// What the kernel has to forget.
pub(crate) enum Stale {
    Node(NodeId),
    /// Other content was put in place; opens wait until the kernel knows.
    Replaced(NodeId),
    Entry(Place),
}

impl Volume {
    /// Applies changes of the peer in `peer`, in order, and writes them down. Those before an error
    /// are applied; duplicates are skipped.
    pub fn apply(&self, peer: Slot, changes: &[Incoming]) -> Result<(), ApplyError> {
        for incoming in changes {
            self.announce_before(&incoming.change.op);
        }
        self.note_batch(peer, changes)?;
        let (mut stale, mut rest) = (Vec::new(), changes);
        let result = loop {
            match self.apply_unwritten(peer, rest, &mut stale) {
                Ok(done) => rest = &rest[done..],
                Err(error) => break Err(error),
            }
            let Some((first, others)) = rest.split_first() else { break Ok(()) };
            if let Err(error) = self.apply_alone(peer, first, &mut stale) {
                break Err(error);
            }
            rest = others;
        };
        self.tell_kernel(stale);
        self.settle_own_shadows();
        self.work.raise();
        self.commit()
            .map_err(|errno| ApplyError::Disk(io::Error::from_raw_os_error(errno.raw())))?;
        result
    }

    /// Last change of `peer` applied and written down here: a crash does not take it back.
    pub fn applied(&self, peer: Slot) -> Sequence {
        self.applied.lock().get(&peer).copied().unwrap_or_default().seq
    }

    /// Changes of peers' logs that were applied since the start, and those that came again and were
    /// skipped.
    pub fn applied_and_repeated(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.tally.applied), read(&self.tally.repeated))
    }

    /// A local edit of a file that the change touches is announced first: then both are versions.
    fn announce_before(&self, op: &Op) {
        if let Some(node) = taken_by(op) {
            self.wait_for_writers(node);
            self.announce_if_written(node);
        }
    }

    /// Applies changes up to the first about a file that somebody is writing to; how many.
    pub(crate) fn apply_unwritten(
        &self,
        peer: Slot,
        changes: &[Incoming],
        stale: &mut Vec<Stale>,
    ) -> Result<usize, ApplyError> {
        let mut state = self.write_state();
        state.trash.author = peer;
        self.finish_effects(&mut state, stale)?;
        for (done, incoming) in changes.iter().enumerate() {
            let written = |node: &NodeId| {
                let file = state.replica.tree.node(*node).and_then(|n| n.file());
                file.is_some_and(|file| file.dirty) || self.is_being_written(*node)
            };
            if written_by(&incoming.change.op).iter().any(written) {
                return Ok(done);
            }
            self.apply_one(&mut state, peer, incoming, stale)?;
        }
        Ok(changes.len())
    }

    /// Applies a change about files that are being written: all that they hold is announced before,
    /// and nobody writes meanwhile.
    fn apply_alone(
        &self,
        peer: Slot,
        incoming: &Incoming,
        stale: &mut Vec<Stale>,
    ) -> Result<(), ApplyError> {
        let nodes = written_by(&incoming.change.op);
        taken_by(&incoming.change.op).into_iter().for_each(|node| self.announce_if_written(node));
        loop {
            let open: Vec<_> = nodes.iter().filter_map(|node| self.open_file(*node)).collect();
            let _writers_wait: Vec<_> = open.iter().map(|open| open.writing.write()).collect();
            for open in open.iter().filter(|o| taken_by(&incoming.change.op) == Some(o.node)) {
                self.write_state().announce.hasten(open.node, self.now_ms());
                self.describe_alone(open);
            }
            let mut state = self.write_state();
            let waits = |now: Arc<OpenFile>| open.iter().any(|waiting| Arc::ptr_eq(waiting, &now));
            if nodes.iter().filter_map(|node| self.open_file(*node)).all(waits) {
                nodes.iter().for_each(|node| state.notice(*node, self.now_ms()));
                return self.apply_one(&mut state, peer, incoming, stale);
            }
        }
    }

    fn apply_one(
        &self,
        state: &mut State,
        peer: Slot,
        incoming: &Incoming,
        stale: &mut Vec<Stale>,
    ) -> Result<(), ApplyError> {
        match state.replica.expects(peer, &incoming.change) {
            Err(OutOfOrder::Duplicate(_)) => {
                self.tally.repeated.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(OutOfOrder::Gap { expected, got }) => {
                return Err(ApplyError::Gap { expected, got });
            }
            Ok(()) => {}
        }
        if let Some(node) = self.must_wait_for(state, &incoming.change.op) {
            self.want_now(state, node);
            return Err(ApplyError::Waiting(node));
        }
        state.doing = match incoming.change.op {
            Op::Exchange(_) => None,
            _ => Some(Doing::change(peer, incoming.change.seq)),
        };
        state.doing.map_or(Ok(()), |doing| self.note_begun(doing)).map_err(ApplyError::Disk)?;
        let hidden = self.hidden_by(state, &incoming.change);
        let Ok(effects) = state.replica.apply_remote(peer, &incoming.change) else { return Ok(()) };
        if !matches!(incoming.change.op, Op::Exchange(_)) {
            self.tally.applied.fetch_add(1, Ordering::Relaxed);
        }
        state.hidden.extend(hidden);
        state.effects.extend(effects);
        state.effects.extend(state.replica.take_consequences());
        let (node, inline) = (incoming.change.op.node(), incoming.inline.as_deref());
        let Some(came) = inline.and_then(|bytes| self.came_along(state, node, bytes)) else {
            return self.finish_effects(state, stale);
        };
        // What is here already is neither stood in for nor asked for.
        let wanted = Effect::Wanted { node };
        state.effects.retain(|effect| *effect != wanted);
        self.finish_effects(state, stale)?;
        let put = self.put_inline(state, node, came, stale);
        if !matches!(put, Ok(true)) {
            state.effects.push_back(wanted);
        }
        put.map_err(ApplyError::Disk)?;
        self.finish_effects(state, stale)
    }

    /// A file may not be replaced by one whose content is absent: until it is here, the old one
    /// stays readable, whatever happens to the peer. What was removed here is not waited for:
    /// nothing brings its content.
    fn must_wait_for(&self, state: &State, op: &Op) -> Option<NodeId> {
        let Op::Rename { node, target: RenameTarget::Replaced { node: old, .. }, .. } = op else {
            return None;
        };
        let named = |id: NodeId| state.replica.tree.node(id).filter(|n| !n.is_unlinked());
        let file = |id: NodeId| named(id).and_then(|n| n.file());
        let absent = file(*node)
            .and_then(|f| f.wanted())
            .is_some_and(|(_, version)| state.gone_since(*node, version).is_none());
        let replaces_bytes = file(*old).is_some_and(|f| f.resident && f.live_size_bytes > 0);
        (absent && replaces_bytes).then_some(*node)
    }

    /// Carries out what is left of earlier changes; stops at the first that the disk refuses.
    fn finish_effects(&self, state: &mut State, stale: &mut Vec<Stale>) -> Result<(), ApplyError> {
        while let Some(effect) = state.effects.front().cloned() {
            let noted = match &mut state.doing {
                Some(doing) => self.note_effect(doing, &effect),
                None => Ok(()),
            };
            noted.and_then(|()| self.carry_out(state, &effect)).map_err(|error| {
                tracing::debug!(?effect, %error, "the disk refused");
                ApplyError::Disk(error)
            })?;
            state.effects.pop_front();
            state.doing.iter_mut().for_each(Doing::advance);
            note_stale(state, &effect, stale);
        }
        Ok(())
    }

    /// Does on disk what follows from local changes beyond what they did themselves: a name that
    /// one of them freed goes to the file that waited for it. What the disk refuses stays to be
    /// done. Answers what the kernel has to forget.
    pub(crate) fn follow_up(&self, state: &mut State) -> Vec<Stale> {
        let consequences = state.replica.take_consequences();
        let mut stale = Vec::new();
        if !consequences.is_empty() {
            state.doing = state.doing.filter(|_| !state.effects.is_empty());
            state.effects.extend(consequences);
            if let Err(error) = self.finish_effects(state, &mut stale) {
                tracing::warn!(%error, "the backing tree does not follow yet");
            }
        }
        stale
    }

    /// The bytes that travelled with a change of `node`, if they are those it names and waits for.
    fn came_along<'b>(
        &self,
        state: &State,
        node: NodeId,
        bytes: &'b [u8],
    ) -> Option<CameAlong<'b>> {
        let file = state.replica.tree.node(node).and_then(|n| n.file());
        let (content, version) = file.and_then(|f| f.wanted())?;
        let description = describe_bytes(bytes);
        (description.content == content).then_some(CameAlong {
            content,
            version,
            manifest: description.manifest,
            bytes,
        })
    }

    /// Content that travelled with its change goes in place at once. False if someone has the file
    /// open: then a fetcher does it when readers allow.
    fn put_inline(
        &self,
        state: &mut State,
        node: NodeId,
        came: CameAlong,
        stale: &mut Vec<Stale>,
    ) -> io::Result<bool> {
        let transfer = self.transfers.transfer(node, came.content);
        transfer.begin(came.manifest, &*self.disk)?;
        transfer.put_all(came.bytes)?;
        if self.open_files.lock().contains_key(&node) {
            return Ok(false);
        }
        // Who opens it before the kernel knows its new length would read it to the old one.
        self.replacing.start(node);
        stale.push(Stale::Replaced(node));
        self.put_in_place(state, node, came.content, came.version, &transfer)
    }

    pub(crate) fn tell_kernel(&self, stale: Vec<Stale>) {
        if stale.is_empty() {
            return;
        }
        let cache = self.cache();
        for stale in stale {
            match (stale, &cache) {
                (Stale::Replaced(node), _) => self.tell_replaced(node),
                (Stale::Node(node), Some(cache)) => cache.invalidate_node(node),
                (Stale::Entry(place), Some(cache)) => {
                    cache.invalidate_entry(place.dir, place.name.as_bytes());
                    cache.invalidate_node(place.dir);
                }
                (_, None) => {}
            }
        }
        self.transfers.progressed();
    }
}

/// The file whose bytes or name `op` takes away.
fn taken_by(op: &Op) -> Option<NodeId> {
    match op {
        Op::Rename { target: RenameTarget::Replaced { node, .. }, .. } => Some(*node),
        Op::Content { node, .. } | Op::Unlink { node, .. } => Some(*node),
        Op::Exchange(Exchange::Gone(node)) => Some(*node),
        Op::Exchange(Exchange::Node(state)) => Some(state.node),
        _ => None,
    }
}

/// The files that may be others below, or gone, once `op` is applied; in the order in which they
/// are locked.
fn written_by(op: &Op) -> Vec<NodeId> {
    let mut nodes = vec![op.node()];
    nodes.extend(taken_by(op));
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn note_stale(state: &State, effect: &Effect, stale: &mut Vec<Stale>) {
    match effect {
        Effect::Made { place, .. } => stale.push(Stale::Entry(place.clone())),
        Effect::Linked { node, place, .. } | Effect::Removed { node, place, .. } => {
            stale.extend([Stale::Entry(place.clone()), Stale::Node(*node)]);
        }
        Effect::Moved { node, from, to, replaced, .. } => {
            stale.extend([Stale::Entry(from.clone()), Stale::Entry(to.clone())]);
            stale.extend(replaced.iter().chain([node]).map(|id| Stale::Node(*id)));
        }
        Effect::Swapped { a, b, .. } => {
            stale.extend([Stale::Entry(a.clone()), Stale::Entry(b.clone())]);
            let shown = |p: &Place| state.replica.tree.lookup(p.dir, p.name.as_bytes());
            stale.extend([shown(a), shown(b)].into_iter().flatten().map(Stale::Node));
        }
        Effect::SetAside { node, place, .. } => {
            stale.extend([Stale::Node(*node), Stale::Entry(place.clone())]);
        }
        Effect::Adopted { was, place, .. } => {
            stale.extend([Stale::Entry(place.clone()), Stale::Node(*was)]);
        }
        Effect::Perm { node } | Effect::Times { node } | Effect::Xattr { node, .. } => {
            stale.push(Stale::Node(*node))
        }
        Effect::Wanted { node } => {
            let file = state.replica.tree.node(*node).and_then(|n| n.file());
            // What waits for its bytes is not shown.
            if file.is_none_or(|file| file.incoming.is_none()) {
                stale.push(Stale::Node(*node));
            }
        }
    }
}
