//! What a power cut leaves below: names, sizes and times may be newer than bytes, and so may the
//! state. Bytes that were not synced are old, missing or zeros, which nobody wrote. They are no edit
//! made here, and must not go to a peer in place of what it has.
//!
//! The state says under which mounting of the disk the volume runs, and until when everything was
//! synced; a clean end takes the first back. Another mounting without a clean end is a power cut.

use crate::errno::Result;
use crate::transfer::FetchJob;
use crate::volume::{State, Volume};
use lockstep_core::planted::{self, Bug};
use lockstep_core::tree::Incoming;
use lockstep_core::{ContentRef, NodeId, Op, Timespec, Version};
use lockstep_disk::BackingStat;
use lockstep_disk::state::StateBatch;
use std::io;

/// The named value: the mounting (empty after a clean end), seconds and nanoseconds.
const RUNNING: &str = "running";
/// Clocks of disks are coarse, and clocks of machines are set back a little.
const CLOCK_SLACK_SECS: i64 = 60;

/// Which bytes below may not be those that were written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doubt {
    /// All are: the power was not cut.
    None,
    /// Those of what was changed since this time, when everything was synced.
    Since(Timespec),
}

impl Doubt {
    /// Whether the bytes of a file may not be those that were written.
    pub(crate) fn covers(self, stat: &BackingStat) -> bool {
        match self {
            Doubt::None => false,
            Doubt::Since(synced) => stat.ctime.secs >= synced.secs - CLOCK_SLACK_SECS,
        }
    }
}

impl Volume {
    /// Whether the power was cut since the volume was last open; from now on it runs.
    pub(crate) fn begin_run(&self) -> io::Result<Doubt> {
        let noted = self.db.meta(RUNNING).map_err(io::Error::other)?;
        let noted =
            noted.and_then(|bytes| postcard::from_bytes::<(Vec<u8>, i64, u32)>(&bytes).ok());
        let now = self.disk.mounting()?;
        let (before, synced) = match noted {
            Some((before, secs, nanos)) => (before, Timespec { secs, nanos }),
            None => (Vec::new(), Timespec::default()),
        };
        self.note_running(&now, synced)
            .map_err(|error| io::Error::from_raw_os_error(error.raw()))?;
        let cut = !before.is_empty() && before != now;
        if cut {
            tracing::warn!("the disk was not unmounted properly: what was not synced is looked at");
        }
        Ok(if cut { Doubt::Since(synced) } else { Doubt::None })
    }

    /// Everything changed before `synced` is on stable storage.
    pub(crate) fn note_synced(&self, synced: Timespec) -> Result<()> {
        let mounting = self.disk.mounting()?;
        self.note_running(&mounting, synced)
    }

    /// The volume ends, with everything on stable storage.
    pub fn note_end(&self) -> Result<()> {
        self.note_running(&[], self.now())?;
        Ok(self.db.sync()?)
    }

    fn note_running(&self, mounting: &[u8], synced: Timespec) -> Result<()> {
        let value = postcard::to_stdvec(&(mounting, synced.secs, synced.nanos));
        let meta = vec![(RUNNING.to_owned(), value.expect("it always encodes"))];
        Ok(self.db.commit(&StateBatch { meta, ..StateBatch::default() })?)
    }

    /// The bytes of what `job` fetches are with nobody. If that is a content written here whose
    /// bytes a power cut took, what is left of it is the content from now on.
    pub(crate) fn give_up_lost(&self, state: &mut State, job: &FetchJob) {
        let own = job.version.slot == state.replica.slot();
        let Some(stands) =
            state.replica.tree.node_mut(job.node).filter(|n| own && !n.is_unlinked())
        else {
            return;
        };
        let (perm, times) = (stands.perm, stands.times);
        let Some(file) = stands.file_mut().filter(|file| file.resident && !file.dirty) else {
            return;
        };
        if file.incoming.take_if(|incoming| incoming.version == job.version).is_none() {
            return;
        }
        let (node, base, content) = (job.node, job.version, file.content);
        state.replica.local(Op::Content { node, base, content, times, perm });
        state.wanted.remove(&node);
        self.transfers.drop_transfer(node, &job.transfer);
        self.work.raise();
    }
}

impl State {
    /// Below stands `found` as the bytes of `node`, with a time at which its author had written what
    /// the state names. False if that is an edit.
    pub(crate) fn take_lost(
        &mut self,
        node: NodeId,
        found: ContentRef,
        stat: &BackingStat,
    ) -> bool {
        let Some(stands) = self.replica.tree.node_mut(node) else { return false };
        let (times, perm) = (stands.times, stands.perm);
        let Some(file) = stands.file_mut() else { return false };
        if planted::has(Bug::LossIsEdit) {
            return false;
        }
        if file.dirty || !file.resident || file.content == found || stat.mtime > times.mtime {
            return false;
        }
        let (content, version) = (file.content, file.version);
        file.incoming.get_or_insert(Incoming { content, version, times, perm });
        (file.content, file.version) = (found, Version::default());
        file.live_size_bytes = found.size_bytes;
        self.wanted.insert(node);
        true
    }
}
