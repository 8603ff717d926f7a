//! Turning local writes into announced content: reading a file once, naming its bytes, queueing
//! the change.

use crate::errno::Result;
use crate::files::OpenFile;
use crate::passed::Seen;
use crate::volume::Volume;
use lockstep_core::planted::{self, Bug};
use lockstep_core::{NodeId, Op, limits};
use lockstep_disk::{Description, describe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Pause before a file that could not be described is tried again.
const RETRY_MS: u64 = 1_000;
/// Pause before a file that was written to while it was described is described again.
const MOVED_ON_MS: u64 = 250;

/// A description that is under way.
struct Begun {
    at: Duration,
    /// What the volume knew of a file that the kernel writes by itself.
    passed: Option<Seen>,
}

impl Volume {
    /// Announces every file that is due. Answers how long until the next one is.
    pub fn announce_due(&self) -> Option<Duration> {
        let ask_again = self.notice_all();
        let due = self.read_state().announce.due(self.now_ms());
        for node in due {
            self.announce_node(node);
        }
        let next = self.read_state().announce.next_due_ms();
        let next = next.map(|at| Duration::from_millis(at.saturating_sub(self.now_ms())));
        next.into_iter().chain(ask_again).min()
    }

    /// Announces everything written so far, whether it is due or not.
    pub fn announce_all(&self) {
        self.notice_all();
        self.write_state().announce.hasten_all(self.now_ms());
        self.announce_due();
    }

    /// Announces `node` now if it has writes that are not announced.
    pub(crate) fn announce_if_written(&self, node: NodeId) {
        self.notice(node);
        let written = {
            let state = self.read_state();
            state.replica.tree.node(node).and_then(|n| n.file()).is_some_and(|file| file.dirty)
        };
        if written {
            self.write_state().announce.hasten(node, self.now_ms());
            self.announce_node(node);
        }
    }

    fn announce_node(&self, node: NodeId) {
        match self.open_for_moment(node) {
            Ok(open) => {
                self.describe_open(&open);
                self.close_moment(&open);
            }
            Err(error) => {
                tracing::debug!(%node, %error, "cannot open a written file to announce it");
                let mut state = self.write_state();
                match state.replica.tree.node(node).is_none_or(|n| n.is_unlinked()) {
                    true => state.announce.forget(node),
                    false => state.announce.postpone(node, self.now_ms(), RETRY_MS),
                }
            }
        }
    }

    /// Describes an open file, with its writers waiting, and queues the change.
    pub(crate) fn describe_open(&self, open: &Arc<OpenFile>) {
        let _writers_wait = open.writing.write();
        self.describe_steady(open, true);
    }

    /// The same for who holds the file's `writing` lock, whatever somebody writes past it.
    pub(crate) fn describe_alone(&self, open: &OpenFile) {
        self.describe_steady(open, false);
    }

    /// Describes `open`; a `steady` description is put off if the file was written to meanwhile.
    fn describe_steady(&self, open: &OpenFile, steady: bool) {
        let Some(file) = open.resident() else { return };
        self.notice(open.node);
        let begun =
            Begun { at: self.clock.running(), passed: self.read_state().passed.seen(open.node) };
        if !self.is_still_due(open.node) {
            return;
        }
        let stop = || self.closing.load(Ordering::Relaxed);
        let described = file
            .stat()
            .and_then(|stat| describe(&*file, stat.size_bytes, &stop))
            .and_then(|described| self.settle_times(open.node, &*file).map(|()| described));
        match described {
            Ok(Some(_)) if steady && self.read_state().passed.moves_on(open.node) => {
                self.write_state().announce.postpone(open.node, self.now_ms(), MOVED_ON_MS);
            }
            Ok(Some(description)) => {
                if let Err(error) = self.queue_content(open.node, description, begun) {
                    tracing::debug!(node = %open.node, %error, "content not queued");
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(node = %open.node, %error, "cannot read a written file to announce it");
                self.write_state().announce.postpone(open.node, self.now_ms(), RETRY_MS);
            }
        }
    }

    /// With the writers out, whether the file is still to be announced: if it was opened and
    /// written again since it became due, what it holds now is half a version.
    fn is_still_due(&self, node: NodeId) -> bool {
        let state = self.read_state();
        let file = state.replica.tree.node(node).and_then(|n| n.file());
        file.is_some_and(|file| file.dirty) && state.announce.is_due(node, self.now_ms())
    }

    /// The backing file shows the times that the mount shows: a later scan sees it unchanged.
    fn settle_times(
        &self,
        node: NodeId,
        file: &dyn lockstep_disk::DiskFile,
    ) -> std::io::Result<()> {
        let times = {
            let state = self.read_state();
            // Such a file has its own times, and a write that comes now must show in them.
            let settled = !state.passed.is_written(node);
            state.replica.tree.node(node).filter(|_| settled).map(|n| n.times)
        };
        times.map_or(Ok(()), |times| file.set_times(times.atime, times.mtime))
    }

    fn queue_content(&self, node: NodeId, description: Description, begun: Begun) -> Result<()> {
        let content = description.content;
        self.hold(node, &content, &description.manifest);
        let mut state = self.mutate()?;
        if state.passed_on(node, begun.passed) {
            state.announce.postpone(node, self.now_ms(), 0);
            return Ok(());
        }
        state.held.remove(&node);
        let cost_ms = self.clock.running().saturating_sub(begun.at).as_millis() as u64;
        state.announce.announced(node, self.now_ms(), cost_ms);
        let Some(stands) = state.replica.tree.node_mut(node) else { return Ok(()) };
        if stands.links.is_empty() {
            return Ok(());
        }
        let (times, perm) = (stands.times, stands.perm);
        let registers = stands.file().and_then(|file| file.announced.as_deref());
        let as_before = registers.is_none_or(|registers| *registers == (perm, times));
        stands.announced();
        let Some(file) = stands.file_mut() else { return Ok(()) };
        file.live_size_bytes = content.size_bytes;
        // With newer bytes of a peer on their way too: these are none.
        let by_size =
            planted::has(Bug::AnnounceBySize) && file.content.size_bytes == content.size_bytes;
        let told = by_size || as_before && file.content == content;
        let awaited = file.incoming.is_some();
        let (base, before) = (file.version, file.content);
        state.passed.knows(node, content.size_bytes, times.mtime);
        if told {
            if awaited {
                self.transfers.queue(node, false);
            }
            return Ok(());
        }
        state.replica.local(Op::Content { node, base, content, times, perm });
        state.wanted.remove(&node);
        self.transfers.cancel(node);
        if let Some(bytes) = description.inline {
            self.inline_contents.lock().remember(content, bytes);
        }
        self.mutated(state);
        let indexed = before.size_bytes > limits::INLINE_CONTENT_MAX_BYTES;
        if self.transfers.take_superseded(node) || indexed {
            self.settle_holdings(node, Some(content));
        }
        Ok(())
    }
}
