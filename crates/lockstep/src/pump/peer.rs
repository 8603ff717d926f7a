//! One peer of a volume: its session if there is one, and the batches of it not applied yet.

use lockstep_core::{DigestIndex, PeerId, Sequence, Slot};
use lockstep_net::Link;
use lockstep_vfs::Incoming;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Batches taken in and not yet applied; beyond this the sender waits for its answer.
const INBOX_BATCHES_MAX: usize = 16;

/// See the module's documentation.
pub(crate) struct Peer {
    pub id: PeerId,
    pub slot: Slot,
    pub host: String,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    link: Option<Arc<Link>>,
    inbox: VecDeque<Vec<Incoming>>,
    /// Batches ever taken into the inbox, and ever finished, in this session.
    taken: u64,
    finished: u64,
    /// What the peer says is wrong with it.
    problem: String,
    /// Last change that is durable here, of the peer's log.
    durable: Sequence,
    /// The same, with all content.
    complete: Sequence,
    /// Last change of the own log sent in this session.
    sent: Sequence,
    /// What this replica's nodes amounted to when the peer began to compare.
    digests: Option<Arc<DigestIndex>>,
    retired: bool,
}

/// The oldest batch of a session.
pub(crate) struct NextBatch {
    pub session: u64,
    /// The peer's run that numbered its changes.
    pub incarnation: u64,
    pub changes: Vec<Incoming>,
}

impl Peer {
    pub(crate) fn new(id: PeerId, slot: Slot, host: &str) -> Self {
        let host = host.to_owned();
        Peer { id, slot, host, inner: Mutex::default(), changed: Condvar::new() }
    }

    /// The live session.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.inner.lock().link.clone().filter(|link| link.is_alive())
    }

    pub(crate) fn session_up(&self, link: Arc<Link>) {
        let mut inner = self.inner.lock();
        inner.inbox.clear();
        (inner.taken, inner.finished) = (0, 0);
        inner.problem.clear();
        inner.digests = None;
        inner.sent = Sequence(0);
        inner.link = Some(link);
        self.changed.notify_all();
    }

    /// Whether that was the session in use.
    pub(crate) fn session_down(&self, session: u64) -> bool {
        let mut inner = self.inner.lock();
        if inner.link.as_ref().is_none_or(|link| link.session() != session) {
            return false;
        }
        inner.link = None;
        inner.inbox.clear();
        inner.finished = inner.taken;
        self.changed.notify_all();
        true
    }

    /// Ends the threads of this peer.
    pub(crate) fn retire(&self) {
        let mut inner = self.inner.lock();
        inner.retired = true;
        inner.inbox.clear();
        inner.finished = inner.taken;
        self.changed.notify_all();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.inner.lock().retired
    }

    /// Waits for a live session.
    pub(crate) fn wait_link(&self, timeout: Duration) -> Option<Arc<Link>> {
        let mut inner = self.inner.lock();
        if inner.link.is_none() && !inner.retired {
            self.changed.wait_for(&mut inner, timeout);
        }
        inner.link.clone().filter(|link| link.is_alive())
    }

    /// Takes a batch in and waits until it is applied, at most `timeout`.
    pub(crate) fn deliver(&self, batch: Vec<Incoming>, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut inner = self.inner.lock();
        while inner.inbox.len() >= INBOX_BATCHES_MAX && inner.link.is_some() && !inner.retired {
            self.changed.wait(&mut inner);
        }
        if inner.link.is_none() || inner.retired {
            return;
        }
        inner.inbox.push_back(batch);
        inner.taken += 1;
        let ticket = inner.taken;
        self.changed.notify_all();
        while inner.finished < ticket {
            if self.changed.wait_until(&mut inner, deadline).timed_out() {
                return;
            }
        }
    }

    /// The oldest batch; it stays in the inbox until [`Peer::finish`].
    pub(crate) fn next_batch(&self, timeout: Duration) -> Option<NextBatch> {
        let mut inner = self.inner.lock();
        if inner.inbox.is_empty() && !inner.retired {
            self.changed.wait_for(&mut inner, timeout);
        }
        let link = inner.link.as_ref()?;
        let (session, incarnation) = (link.session(), link.their_hello().incarnation);
        inner.inbox.front().cloned().map(|changes| NextBatch { session, incarnation, changes })
    }

    /// The digests of this session's comparison, made by `make` when it begins.
    pub(crate) fn digests(
        &self,
        begins: bool,
        make: impl FnOnce() -> DigestIndex,
    ) -> Arc<DigestIndex> {
        let known = self.inner.lock().digests.clone().filter(|_| !begins);
        known.unwrap_or_else(|| {
            let made = Arc::new(make());
            self.inner.lock().digests = Some(Arc::clone(&made));
            made
        })
    }

    /// The oldest batch of `session` is applied.
    pub(crate) fn finish(&self, session: u64) {
        let mut inner = self.inner.lock();
        if inner.link.as_ref().map_or(0, |link| link.session()) == session
            && inner.inbox.pop_front().is_some()
        {
            inner.finished += 1;
        }
        self.changed.notify_all();
    }

    /// Changes up to `seq` were sent.
    pub(crate) fn set_sent(&self, seq: Sequence) {
        let mut inner = self.inner.lock();
        inner.sent = inner.sent.max(seq);
    }

    pub(crate) fn sent(&self) -> Sequence {
        self.inner.lock().sent
    }

    pub(crate) fn set_problem(&self, problem: &str) {
        problem.clone_into(&mut self.inner.lock().problem);
    }

    pub(crate) fn problem(&self) -> Option<String> {
        Some(self.inner.lock().problem.clone()).filter(|problem| !problem.is_empty())
    }

    pub(crate) fn durable(&self) -> Sequence {
        self.inner.lock().durable
    }

    /// Changes up to `durable` are on disk for good, with all content if `complete`.
    pub(crate) fn set_durable(&self, durable: Sequence, complete: bool) {
        let mut inner = self.inner.lock();
        inner.durable = inner.durable.max(durable);
        if complete {
            inner.complete = inner.complete.max(durable);
        }
    }

    pub(crate) fn complete(&self) -> Sequence {
        self.inner.lock().complete
    }
}
