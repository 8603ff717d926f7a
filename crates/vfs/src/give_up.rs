//! A content that its author lost to a power cut and that nobody has: the newest version that
//! somebody does have takes its place.

use crate::apply::Stale;
use crate::commit::walk_log;
use crate::transfer::FetchJob;
use crate::volume::{State, Volume};
use lockstep_core::tree::Incoming;
use lockstep_core::{Change, NodeId, Op, Place, Shown, Version};

impl Volume {
    /// No peer has what `job` fetches; `shown` is the newest version that they show in its place. If
    /// it was written here and a power cut took it, the file becomes that version, else what is left of
    /// it here. If nobody has anything, it is gone. Answers what the kernel has to forget.
    pub(crate) fn give_up_lost(
        &self,
        state: &mut State,
        job: &FetchJob,
        shown: Option<Shown>,
    ) -> Vec<Stale> {
        let moved_on = shown.is_some_and(|shown| shown.version > job.version);
        if job.version.slot != state.replica.slot() || moved_on {
            return Vec::new();
        }
        let Some(stands) = state.replica.tree.node_mut(job.node).filter(|n| !n.is_unlinked())
        else {
            return Vec::new();
        };
        let Some(file) = stands.file_mut().filter(|file| !file.dirty) else { return Vec::new() };
        if file.wanted().is_none_or(|(_, version)| version != job.version) {
            return Vec::new();
        }
        let was_cut = file.incoming.take().is_some();
        if !was_cut && shown.is_none() {
            return Vec::new();
        }
        let left = file.resident.then_some(Shown { content: file.content, version: file.version });
        if !file.resident {
            // Who removes it has seen what is lost.
            file.version = job.version;
        }
        state.wanted.remove(&job.node);
        self.transfers.drop_transfer(job.node, &job.transfer);
        // What was written between the peers' version and the lost one may be in what is left, synced.
        let older = |shown: &Shown| self.base_in_log(job).is_some_and(|base| base != shown.version);
        let shown = shown.filter(|shown| left.is_none() || !older(shown));
        let newest = [left, shown].into_iter().flatten().max_by_key(|shown| shown.version);
        let Some(newest) = newest else { return self.remove_lost(state, job.node) };
        self.announce_left(state, job, newest, Some(newest) != left);
        self.work.raise();
        Vec::new()
    }

    /// The version that the lost one was written over, as far as the log still tells.
    fn base_in_log(&self, job: &FetchJob) -> Option<Version> {
        let is_it = |change: &Change| {
            change.version == job.version && matches!(change.op, Op::Content { .. })
        };
        match walk_log(&*self.db, |change| !is_it(change)).ok()??.op {
            Op::Content { base, .. } => Some(base),
            _ => None,
        }
    }

    /// `newest` is the content of the file from now on; `elsewhere`: its bytes are with a peer.
    fn announce_left(&self, state: &mut State, job: &FetchJob, newest: Shown, elsewhere: bool) {
        let (node, base, content) = (job.node, job.version, newest.content);
        let Some(stands) = state.replica.tree.node_mut(node) else { return };
        let (perm, times) = (stands.perm, stands.times);
        let before = stands.file().cloned();
        let version = state.replica.local(Op::Content { node, base, content, times, perm });
        let Some(file) = state.replica.tree.node_mut(node).and_then(|n| n.file_mut()) else {
            return;
        };
        if let Some(before) = before.filter(|_| elsewhere) {
            *file = before;
            file.incoming = Some(Incoming { content, version, times, perm });
            if state.want(node) {
                self.transfers.queue(node, false);
            }
        }
    }

    /// The file of which nobody has any bytes loses its names.
    fn remove_lost(&self, state: &mut State, node: NodeId) -> Vec<Stale> {
        let mut stale = Vec::new();
        let links = state.replica.tree.node(node).map(|n| n.links.clone()).unwrap_or_default();
        for link in links {
            let path = state.replica.tree.path_in(link.parent, link.shown.as_bytes());
            if let Some(Err(error)) = path.map(|path| self.disk.unlink(&path)) {
                tracing::debug!(%node, %error, "what a power cut took cannot be removed");
            }
            let (seen, at) = (state.replica.seen(node), self.now());
            let (parent, name) = (link.parent, link.name);
            state.replica.local(Op::Unlink { node, parent, name, seen, at });
            stale.push(Stale::Entry(Place { dir: link.parent, name: link.shown }));
        }
        stale.extend(self.follow_up(state));
        self.work.raise();
        stale
    }
}

#[cfg(test)]
mod tests;
