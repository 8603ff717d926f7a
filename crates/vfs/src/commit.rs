//! Writing down: local changes become numbered log entries, stale rows become fresh ones, in one
//! atomic step. Only what was written down is shipped or acknowledged.

use crate::errno::Result;
use crate::volume::{OpenError, Volume};
use lockstep_core::planted::{self, Bug};
use lockstep_core::tree::NodeRow;
use lockstep_core::{
    Change, Counters, Drained, NodeId, Perm, Replica, Sequence, Slot, Times, Timespec, Tree,
};
use lockstep_disk::Disk;
use lockstep_disk::state::{StateBatch, StateStore};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

const COUNTERS: &str = "counters";
/// Log entries read at once.
const LOG_PART: usize = 1024;
const TRIM_STEP: u64 = 1024;

impl Volume {
    /// How long the pending changes may still wait for company: a new file whose first write is
    /// under way is announced together with it. `None` if nothing is pending.
    pub fn commit_due(&self) -> Option<Duration> {
        let state = self.read_state();
        if !state.has_unwritten() {
            return None;
        }
        let now = self.now_ms();
        let since = state.pending_since_ms.unwrap_or(0);
        let ends = state.held.values().map(|h| h.until_ms.min(since + h.longest_ms));
        let due = ends.max().unwrap_or(0);
        Some(Duration::from_millis(due.saturating_sub(now)))
    }

    /// Numbers and writes down everything pending. Survives the end of this process, not
    /// necessarily that of the machine.
    pub fn commit(&self) -> Result<()> {
        let mut queue = self.committing.lock();
        let drained = {
            let mut state = self.write_state();
            let now = self.now_ms();
            state.held.retain(|_, hold| hold.until_ms > now);
            state.pending_since_ms = None;
            state.has_unwritten().then(|| {
                let (drained, records) = (state.replica.drain(), state.trash.take_records());
                let inodes = self.inodes_below(&state, &drained);
                Step { drained, inodes, at: self.now(), records }
            })
        };
        queue.extend(drained);
        while let Some(next) = queue.first() {
            if let Err(error) = self.db.commit(&encode(next)) {
                tracing::warn!(%error, "cannot write the volume's state");
                return Err(error.into());
            }
            let written = queue.remove(0);
            self.applied.lock().clone_from(&written.drained.counters.applied);
            self.write_state().replica.log.append(written.drained.changes);
            self.drained.notify_all();
            self.log_grown.raise();
        }
        Ok(())
    }

    /// Keeps at most `changes` in the log for peers that are away, instead of
    /// [`lockstep_core::limits::LOG_KEPT_MAX`].
    pub fn keep_log(&self, changes: u64) {
        self.log_kept_max.store(changes, Ordering::Relaxed);
    }

    /// Changes in the log.
    pub fn log_entries(&self) -> u64 {
        let first = self.db.first_log().ok().flatten();
        first.map_or(0, |first| self.log_last().0.saturating_sub(first.0) + 1)
    }

    /// Where nodes that are written down stand below, so that moves can be told at the next start.
    fn inodes_below(&self, state: &crate::volume::State, drained: &Drained) -> Vec<u64> {
        let inode = |id: &NodeId| {
            let path = state.replica.tree.path(*id)?;
            self.disk.stat(&path).ok().map(|stat| stat.ino)
        };
        drained.rows.iter().map(|(id, _)| inode(id).unwrap_or(0)).collect()
    }

    /// Everything written down and all content in place reaches stable storage.
    pub fn make_durable(&self) -> Result<()> {
        self.commit()?;
        let written = self.read_state().replica.log.last();
        let since = self.now();
        if !planted::has(Bug::AckUnsynced) {
            self.disk.sync_all()?;
        }
        self.note_synced(since)?;
        self.db.sync()?;
        self.durable.fetch_max(written.0, Ordering::Relaxed);
        Ok(())
    }

    /// Last change of the own log that a power cut cannot undo any more.
    pub fn durable(&self) -> Sequence {
        Sequence(self.durable.load(Ordering::Relaxed))
    }

    /// Log entries after `cursor`, oldest first, for a peer.
    pub fn log_after(&self, cursor: Sequence, max: usize) -> Result<Vec<Change>> {
        let state = self.read_state();
        if let Some(changes) = state.replica.log.after(cursor, max) {
            return Ok(changes);
        }
        drop(state);
        let entries = self.db.read_log(cursor.next(), max)?;
        Ok(entries.into_iter().map_while(|(_, bytes)| postcard::from_bytes(&bytes).ok()).collect())
    }

    /// Waits until the log grew or `timeout` passed.
    pub fn wait_log(&self, timeout: Duration) {
        self.log_grown.wait(timeout);
    }

    /// Wakes whoever waits for the log.
    pub fn wake_log(&self) {
        self.log_grown.raise();
    }

    /// Forgets log entries and kept files that every peer has no more need of.
    pub fn trim(&self) -> Result<()> {
        self.sweep_transfers();
        let (through, dropped) = {
            let mut state = self.write_state();
            self.drop_replaced(&mut state);
            let Some(through) = state.replica.log.trimmable() else { return Ok(()) };
            let dropped = self.owed_no_more(&mut state);
            if state.replica.may_forget_removed() {
                self.inline_contents.lock().clear();
                self.forget_removed(&mut state);
            }
            let last = state.replica.log.last().0;
            let kept_max = self.log_kept_max.load(Ordering::Relaxed);
            // A peer that is away for longer is told the state instead.
            (through.max(Sequence(last.saturating_sub(kept_max))), dropped)
        };
        for name in dropped {
            match self.disk.keep_remove(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => self.kept_gone(&name),
            }
        }
        let first = self.db.first_log()?;
        let step = TRIM_STEP.min(self.log_kept_max.load(Ordering::Relaxed));
        if first.is_some_and(|first| first.0 + step <= through.0) {
            let batch = StateBatch { trim_log_through: Some(through), ..StateBatch::default() };
            self.db.commit(&batch)?;
        }
        Ok(())
    }

    /// Removed nodes, and names that others have lost: nothing older can come any more.
    fn forget_removed(&self, state: &mut crate::volume::State) {
        let open = self.open_files.lock();
        let removed: Vec<_> =
            state.replica.tree.unlinked().filter(|id| !open.contains_key(id)).collect();
        for id in removed {
            self.transfers.left_behind(id);
            state.replica.tree.forget(id);
        }
        state.replica.tree.forget_lost_names();
    }
}

/// What one commit writes down.
pub(crate) struct Step {
    drained: Drained,
    /// Inode number below of each node written down; 0: unknown.
    inodes: Vec<u64>,
    /// When: after everything that the rows tell of was done below.
    at: Timespec,
    records: Vec<(String, Option<Vec<u8>>)>,
}

impl crate::volume::State {
    fn has_unwritten(&self) -> bool {
        self.replica.has_unwritten() || self.trash.is_stale()
    }
}

fn encode(Step { drained, inodes, at, records }: &Step) -> StateBatch {
    let row = |row: &NodeRow, inode: &u64| {
        let below = Below { inode: *inode, written: *at };
        postcard::to_stdvec(&(row, below)).expect("rows always encode")
    };
    let rows = drained.rows.iter().zip(inodes);
    StateBatch {
        nodes: rows.map(|((id, r), inode)| (*id, r.as_ref().map(|r| row(r, inode)))).collect(),
        log: drained
            .changes
            .iter()
            .map(|c| (c.seq, postcard::to_stdvec(c).expect("changes always encode")))
            .collect(),
        meta: vec![(
            COUNTERS.to_owned(),
            postcard::to_stdvec(&drained.counters).expect("counters always encode"),
        )],
        records: records.clone(),
        trim_log_through: None,
    }
}

/// What was written down.
pub(crate) struct Loaded {
    pub replica: Replica,
    /// Whether anything was.
    pub known: bool,
    /// What was written down with each node of the backing tree.
    pub below: HashMap<NodeId, Below>,
}

/// What a row says of the backing tree.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Below {
    /// The inode number; 0: unknown.
    pub inode: u64,
    /// When the row was written.
    pub written: Timespec,
}

/// The replica as it was written down last, or a new one.
pub(crate) fn load(
    db: &dyn StateStore,
    slot: Slot,
    disk: &dyn Disk,
) -> std::result::Result<Loaded, OpenError> {
    let damaged = |what: &str| OpenError::Damaged { what: what.to_owned() };
    let written = db.meta(COUNTERS)?;
    let known = written.is_some();
    let counters = match written {
        Some(bytes) => postcard::from_bytes(&bytes).map_err(|_| damaged("counters"))?,
        None => Counters::default(),
    };
    let (mut rows, mut below) = (Vec::new(), HashMap::new());
    for (id, bytes) in db.load_nodes()? {
        let (row, at): (NodeRow, Below) =
            postcard::from_bytes(&bytes).map_err(|_| damaged(&format!("node {id}")))?;
        if row.node != id {
            return Err(damaged(&format!("node {id}")));
        }
        rows.push(row);
        below.insert(id, at);
    }
    check_log(db)?;
    let tree = match rows.is_empty() {
        true => {
            let root = disk.stat(std::path::Path::new(""))?;
            let perm = Perm { mode: root.mode as u16, uid: root.uid, gid: root.gid };
            Tree::new(perm, Times { atime: root.atime, mtime: root.mtime, ctime: root.ctime })
        }
        false => Tree::load(rows),
    };
    tree.check().map_err(|what| damaged(&what))?;
    if !counters.can_go_on() {
        return Err(damaged("counters"));
    }
    Ok(Loaded { replica: Replica::new(slot, tree, counters), known, below })
}

/// Every entry of the log is what was written down.
fn check_log(db: &dyn StateStore) -> std::result::Result<(), OpenError> {
    walk_log(db, |_| true).map(drop)
}

/// Goes through the own log, and answers the first change at which `goes_on` says no.
pub(crate) fn walk_log(
    db: &dyn StateStore,
    mut goes_on: impl FnMut(&Change) -> bool,
) -> std::result::Result<Option<Change>, OpenError> {
    let mut from = Sequence(0);
    loop {
        let entries = db.read_log(from, LOG_PART)?;
        for (seq, bytes) in &entries {
            let change: Option<Change> = postcard::from_bytes(bytes).ok();
            let Some(change) = change.filter(|change| change.seq == *seq) else {
                return Err(OpenError::Damaged { what: format!("log entry {}", seq.0) });
            };
            if !goes_on(&change) {
                return Ok(Some(change));
            }
        }
        let Some((last, _)) = entries.last() else { return Ok(None) };
        from = last.next();
    }
}
