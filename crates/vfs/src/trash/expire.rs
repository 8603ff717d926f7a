//! Out of the trash: what is too old goes, then the oldest while there is too much.

use super::{Trash, TrashEntry};
use crate::errno::Result;
use crate::volume::Volume;
use lockstep_core::Timespec;
use lockstep_disk::DiskUsage;
use std::time::Duration;

/// Versions removed before the state is free again for others.
const STEP: usize = 256;

/// How much the trash keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrashLimits {
    /// Older versions go.
    pub age_max: Duration,
    /// Share of the disk's size that the trash takes at most. It also never takes more than half
    /// of what would be free without it.
    pub disk_percent_max: u64,
}

impl Default for TrashLimits {
    fn default() -> Self {
        TrashLimits { age_max: Duration::from_secs(7 * 24 * 3600), disk_percent_max: 10 }
    }
}

impl TrashLimits {
    /// What the trash may take on a disk in this state, holding `held_bytes` now.
    pub fn bytes_max(&self, disk: &DiskUsage, held_bytes: u64) -> u64 {
        let unit = disk.fragment_size_bytes;
        let share = disk.blocks.saturating_mul(unit) / 100 * self.disk_percent_max;
        let free = disk.blocks_available.saturating_mul(unit).saturating_add(held_bytes);
        share.min(free / 2)
    }
}

impl Volume {
    /// Sets how much the trash keeps.
    pub fn set_trash_limits(&self, limits: TrashLimits) {
        self.write_state().trash.limits = limits;
    }

    /// What the trash may take on the disk just now.
    pub fn trash_bytes_max(&self) -> Result<u64> {
        let usage = self.disk.statfs()?;
        let state = self.read_state();
        Ok(state.trash.limits.bytes_max(&usage, state.trash.bytes))
    }

    /// Removes what is too old or too much.
    pub fn tidy_trash(&self) -> Result<()> {
        if self.read_state().trash.entries.is_empty() {
            return Ok(());
        }
        self.expire_trash(self.now(), &self.disk.statfs()?)
    }

    /// The same at the moment `now` on a disk in the state `disk`.
    pub fn expire_trash(&self, now: Timespec, disk: &DiskUsage) -> Result<()> {
        let bytes_max = {
            let trash = &self.read_state().trash;
            trash.limits.bytes_max(disk, trash.bytes)
        };
        self.destroy_oldest(|trash| trash.has_expired(now, bytes_max)).map(|count| {
            self.write_state().trash.expired += count;
        })
    }

    /// Removes everything from the trash for good; how many versions that were.
    pub fn empty_trash(&self) -> Result<u64> {
        let last = self.read_state().trash.next;
        let removed = self.destroy_oldest(|trash| trash.first_is_before(last))?;
        self.commit()?;
        Ok(removed)
    }

    fn destroy_oldest(&self, goes: impl Fn(&Trash) -> bool) -> Result<u64> {
        let mut removed = 0;
        loop {
            let step: Vec<TrashEntry> = {
                let trash = &mut self.write_state().trash;
                let next = || goes(trash).then(|| trash.remove_oldest()).flatten();
                std::iter::from_fn(next).take(STEP).collect()
            };
            removed += step.len() as u64;
            let last = step.len() < STEP;
            step.iter().try_for_each(|entry| self.destroy(entry))?;
            if last {
                return Ok(removed);
            }
        }
    }
}

impl Trash {
    fn has_expired(&self, now: Timespec, bytes_max: u64) -> bool {
        let oldest = self.entries.values().next();
        let age = oldest.map_or(0, |entry| now.secs.saturating_sub(entry.at.secs));
        let too_old = u64::try_from(age).is_ok_and(|age| age > self.limits.age_max.as_secs());
        too_old || self.bytes > bytes_max
    }

    fn first_is_before(&self, id: u64) -> bool {
        self.entries.keys().next().is_some_and(|first| *first < id)
    }

    fn remove_oldest(&mut self) -> Option<TrashEntry> {
        let oldest = *self.entries.keys().next()?;
        self.remove(oldest)
    }
}
