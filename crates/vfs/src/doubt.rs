//! What a power cut leaves below: names, sizes and times may be newer than bytes, and so may the
//! state. Bytes that were not synced are old, missing or zeros, which nobody wrote. They are no edit
//! made here, and must not go to a peer in place of what it has.
//!
//! The state says under which mounting of the disk the volume runs, and until when everything was
//! synced; a clean end takes the first back. Another mounting without a clean end is a power cut.

use crate::errno::Result;
use crate::volume::{State, Volume};
use lockstep_core::planted::{self, Bug};
use lockstep_core::tree::{FileBody, Incoming};
use lockstep_core::{ContentRef, NodeId, Perm, Times, Timespec, Version};
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
        self.reaches(stat.ctime)
    }

    /// Whether what the state has told of a node since `written` may never have reached the disk
    /// below; the state did not know of it before this start if that is `None`.
    pub(crate) fn may_lack(self, written: Option<Timespec>) -> bool {
        match written {
            Some(written) => self.reaches(written),
            None => matches!(self, Doubt::Since(_)),
        }
    }

    /// Whether what was done at `at` may not be on stable storage.
    fn reaches(self, at: Timespec) -> bool {
        match self {
            Doubt::None => false,
            Doubt::Since(synced) => at.secs >= synced.secs - CLOCK_SLACK_SECS,
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
        // A cut that took this note would look like the end before it.
        self.db.sync().map_err(io::Error::other)?;
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
}

impl State {
    /// The bytes of `node` are not below: a power cut took them. They are awaited.
    pub(crate) fn lose_bytes(&mut self, node: NodeId) {
        let own = self.replica.slot();
        let Some(stands) = self.replica.tree.node_mut(node) else { return };
        stands.forget_writes();
        let (times, perm) = (stands.times, stands.perm);
        let Some(file) = stands.file_mut() else { return };
        let (content, version) = (file.content, file.version);
        if file.resident && content.size_bytes > 0 {
            file.resident = false;
            if version.slot == own {
                // Its author gives it up if nobody has it.
                file.incoming.get_or_insert(Incoming { content, version, times, perm });
                file.version = Version::default();
            }
        }
        file.live_size_bytes = content.size_bytes;
        self.want(node);
    }

    /// Below stands `found`, which a transfer had put in place as the bytes of `node`: a version
    /// that somebody else wrote. Those that the state names are awaited, or what came after.
    pub(crate) fn take_brought(&mut self, node: NodeId, found: ContentRef) -> bool {
        let Some(stands) = self.replica.tree.node_mut(node) else { return false };
        let (times, perm) = (stands.times, stands.perm);
        let Some(file) = stands.file_mut().filter(|file| !file.dirty) else { return false };
        if file.content != found || !file.resident {
            stand_in(file, found, Version::default(), times, perm);
            self.wanted.insert(node);
        }
        true
    }

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
        stand_in(file, found, Version::default(), times, perm);
        self.wanted.insert(node);
        true
    }
}

/// Until its newest content comes, which is awaited with `times` and `perm`, `file` is `found`, which
/// is below.
pub(crate) fn stand_in(
    file: &mut FileBody,
    found: ContentRef,
    version: Version,
    times: Times,
    perm: Perm,
) {
    let awaited = Incoming { content: file.content, version: file.version, times, perm };
    file.incoming.get_or_insert(awaited);
    (file.content, file.version, file.resident) = (found, version, true);
    file.live_size_bytes = found.size_bytes;
}
