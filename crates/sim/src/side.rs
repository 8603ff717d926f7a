//! One replica with its disk and its database: what a `Volume` does, reduced to what matters to
//! `core`.

use crate::below::{Below, Inode};
use lockstep_core::tree::NodeRow;
use lockstep_core::{
    Change, ContentHash, ContentRef, Counters, Effect, NodeId, Op, Perm, Replica, Sequence, Slot,
    Start, Times, Timespec, Tree, Version,
};
use std::collections::{BTreeMap, BTreeSet};

/// How far the author of a change had the changes of all replicas, its own included.
pub type After = BTreeMap<Slot, Sequence>;

/// A change as it travels: with what must be applied before it.
#[derive(Clone, Debug)]
pub struct Made {
    pub change: Change,
    pub after: After,
}

/// What one replica has written down.
#[derive(Clone, Default)]
struct Image {
    rows: BTreeMap<NodeId, NodeRow>,
    log: BTreeMap<Sequence, Made>,
    counters: Counters,
    below: Below,
}

/// One replica.
pub struct Side {
    pub slot: Slot,
    pub replica: Replica,
    pub below: Below,
    /// Contents of removed files that a peer may still ask for.
    pub kept: BTreeSet<ContentHash>,
    /// Contents of files that were removed here, also when nobody else ever heard of them.
    pub given_up: BTreeSet<ContentHash>,
    /// Contents that no peer has any more.
    pub gone: BTreeSet<(NodeId, Version)>,
    /// What this replica had seen when it made each change that is not numbered yet.
    seen: BTreeMap<Version, After>,
    /// Survives the end of the process.
    committed: Image,
    /// Survives a power cut.
    synced: Image,
    /// Whether all content was here at the last sync.
    is_synced_complete: bool,
    /// Own changes below this number have left, so a power cut must not take them.
    pub shipped: Sequence,
    slots: Vec<Slot>,
    /// Starts so far.
    runs: u64,
    /// What was written down since the last sync, commit by commit: a power cut leaves a prefix.
    unsynced: Vec<Image>,
    /// A copy of the state that somebody made.
    backup: Option<Image>,
    /// The changes of this replica that are in it.
    pub copied: BTreeSet<(Sequence, Version)>,
}

impl Side {
    pub fn new(slot: Slot, slots: &[Slot]) -> Self {
        let tree = Tree::new(Perm { mode: 0o755, uid: 0, gid: 0 }, Times::default());
        let mut side = Side {
            slot,
            replica: Replica::new(slot, tree, Counters::default()),
            below: Below::default(),
            kept: BTreeSet::new(),
            given_up: BTreeSet::new(),
            gone: BTreeSet::new(),
            seen: BTreeMap::new(),
            committed: Image::default(),
            synced: Image::default(),
            is_synced_complete: true,
            shipped: Sequence(0),
            slots: slots.to_vec(),
            runs: 0,
            unsynced: Vec::new(),
            backup: None,
            copied: BTreeSet::new(),
        };
        side.begin_run(0);
        side.introduce();
        side.commit();
        side.sync();
        side
    }

    fn introduce(&mut self) {
        const HOSTS: [&str; 3] = ["one", "two", "three"];
        for (slot, host) in self.slots.iter().zip(HOSTS) {
            self.replica.tree.name_host(*slot, host);
            if *slot != self.slot {
                self.replica.log.add_peer(*slot);
            }
        }
    }

    /// A user or the volume does something: the disk first, then the change, then what follows.
    pub fn local(&mut self, op: Op) -> Result<(), String> {
        self.below.make(&op, &self.replica.tree).map_err(|why| format!("{op:?}: {why}"))?;
        self.keep_bytes(&op);
        let after = self.applied();
        let told = format!("{op:?}");
        let before = self.replica.lamport();
        self.replica.local(op);
        self.note_seen(before, &after);
        self.follow_up(&told)
    }

    /// What follows from a local change is done on disk as well.
    pub fn follow_up(&mut self, told: &str) -> Result<(), String> {
        for effect in self.replica.take_consequences() {
            self.below
                .carry_out(&effect, &self.replica.tree)
                .map_err(|why| format!("{effect:?} after {told}: {why}"))?;
        }
        self.compare_disk(told)
    }

    /// The disk holds what the tree says.
    pub fn compare_disk(&self, told: &str) -> Result<(), String> {
        self.replica.tree.check()?;
        let expected = Below::of(&self.replica.tree);
        match self.below.names() == expected.names() {
            true => Ok(()),
            false => Err(format!(
                "after {told} the disk of {:?} has\n{:?}\ninstead of\n{:?}",
                self.slot,
                self.below.names(),
                expected.names()
            )),
        }
    }

    /// Bytes that go stay for peers, and are given up.
    fn keep_bytes(&mut self, op: &Op) {
        use lockstep_core::change::RenameTarget;
        let file = |id: NodeId| self.replica.tree.node(id).and_then(|n| n.file());
        let going = match op {
            // Known by who wrote over it, also if it was found on a disk and is in no log.
            Op::Content { node, .. } => {
                return self.given_up.extend(file(*node).map(|file| file.content.hash));
            }
            Op::Unlink { node, .. } => *node,
            Op::Rename { target: RenameTarget::Replaced { node, .. }, .. } => *node,
            _ => return,
        };
        let file =
            self.replica.tree.node(going).filter(|n| n.links.len() == 1).and_then(|n| n.file());
        let Some(file) = file else { return };
        if file.resident {
            self.kept.insert(file.content.hash);
        }
        self.given_up.insert(file.wanted().map_or(file.content, |(content, _)| content).hash);
    }

    /// Changes of this replica newer than `lamport` were made by one who had `after`.
    fn note_seen(&mut self, lamport: u64, after: &After) {
        let now = self.replica.lamport();
        for lamport in (lamport + 1).max(now.saturating_sub(16))..=now {
            self.seen.insert(Version { lamport, slot: self.slot }, after.clone());
        }
    }

    fn applied(&self) -> After {
        self.slots
            .iter()
            .filter(|s| **s != self.slot)
            .map(|s| (*s, self.replica.applied(*s)))
            .collect()
    }

    /// Applies a peer's change, disk included.
    pub fn apply(&mut self, peer: Slot, change: &Change) -> Result<Vec<Effect>, String> {
        let after = self.applied();
        let lamport = self.replica.lamport();
        let effects = self.replica.apply_remote(peer, change).map_err(|why| why.to_string())?;
        let consequences = self.replica.take_consequences();
        for effect in effects.iter().chain(&consequences) {
            self.below
                .carry_out(effect, &self.replica.tree)
                .map_err(|why| format!("{effect:?} of {change:?} at {:?}: {why}", self.slot))?;
        }
        // A copy of what was overruled may have been made meanwhile.
        self.note_seen(lamport, &after);
        self.kept.extend(self.below.nameless_contents());
        for effect in &effects {
            if let Effect::SetAside { copy, content, .. } = effect {
                self.announce_copy(*copy, *content)?;
            }
        }
        self.compare_disk(&format!("{change:?}"))?;
        Ok(effects)
    }

    /// The shell copies the bytes that were overruled and announces what it copied.
    fn announce_copy(&mut self, node: NodeId, content: ContentRef) -> Result<(), String> {
        let Some(stands) = self.replica.tree.node(node) else { return Ok(()) };
        let (times, perm, base) = (stands.times, stands.perm, stands.content_version());
        self.local(Op::Content { node, base, content, times, perm })
    }

    /// Content still to be fetched, of files with a name.
    pub fn wanted(&self) -> Vec<(NodeId, ContentRef, Version)> {
        let tree = &self.replica.tree;
        let mut wanted: Vec<_> = tree
            .iter()
            .filter(|(_, node)| !node.is_unlinked())
            .filter_map(|(id, node)| node.file()?.wanted().map(|(c, v)| (id, c, v)))
            .collect();
        wanted.sort_by_key(|(id, _, _)| *id);
        wanted
    }

    /// Whether this replica has the bytes of `content`.
    pub fn serves(&self, content: ContentRef) -> bool {
        self.kept.contains(&content.hash) || self.below.holds(content)
    }

    /// Fetched bytes go in place.
    pub fn install(&mut self, node: NodeId, content: ContentRef, version: Version) {
        if self.wanted().contains(&(node, content, version)) {
            self.below.fill(node, content);
            self.replica.tree.content_arrived(node, version);
        }
    }

    /// Numbers and writes down what is pending.
    pub fn commit(&mut self) -> Vec<Made> {
        let drained = self.replica.drain();
        for (id, row) in drained.rows {
            match row {
                Some(row) => drop(self.committed.rows.insert(id, row)),
                None => drop(self.committed.rows.remove(&id)),
            }
        }
        let mut made = Vec::new();
        for change in drained.changes {
            let after = self.seen.remove(&change.version).unwrap_or_else(|| self.applied());
            made.push(Made { change, after });
        }
        self.committed.log.extend(made.iter().map(|m| (m.change.seq, m.clone())));
        self.committed.counters = drained.counters;
        self.replica.log.append(made.iter().map(|m| m.change.clone()));
        self.seen.clear();
        self.unsynced.push(Image { below: self.below.clone(), ..self.committed.clone() });
        made
    }

    /// Everything written down, and all bytes, reach stable storage.
    pub fn sync(&mut self) {
        self.committed.below = self.below.clone();
        self.synced = self.committed.clone();
        self.unsynced.clear();
        self.is_synced_complete =
            self.wanted().iter().all(|(id, _, version)| self.gone.contains(&(*id, *version)));
    }

    /// Last change of every log that survives a power cut, the own one included.
    pub fn durable(&self) -> After {
        let counters = &self.synced.counters;
        let applied = counters.applied.iter();
        let mut durable: After = applied.map(|(slot, cursor)| (*slot, cursor.seq)).collect();
        durable.insert(self.slot, counters.last);
        durable
    }

    /// Whether `peer`, which has `theirs`, has everything that is here.
    pub fn is_had_by(&self, theirs: &After) -> bool {
        self.slots.iter().all(|slot| {
            let here = match *slot == self.slot {
                true => self.replica.last(),
                false => self.replica.applied(*slot),
            };
            theirs.get(slot).copied().unwrap_or_default() >= here
        })
    }

    /// Last change of `peer` that survives the end of the process.
    pub fn committed_of(&self, peer: Slot) -> Sequence {
        self.committed.counters.applied.get(&peer).map(|cursor| cursor.seq).unwrap_or_default()
    }

    /// Into how many intervals what was seen of any replica falls.
    pub fn spans_of_seen(&self) -> usize {
        let seen = &self.committed.counters.seen;
        let spans = seen.nodes.values().chain(seen.versions.values());
        spans.map(|spans| spans.iter().count()).max().unwrap_or(0)
    }

    /// Last own change that survives a power cut.
    pub fn last_synced(&self) -> Sequence {
        self.synced.counters.last
    }

    /// Whether all content was here when everything was synced last.
    pub fn was_complete(&self) -> bool {
        self.is_synced_complete
    }

    /// Whether all that `after` says was applied here.
    pub fn has_all(&self, after: &After) -> bool {
        after.iter().all(|(slot, seq)| *slot == self.slot || self.replica.applied(*slot) >= *seq)
    }

    /// Whether no entry of the own log is kept any more.
    pub fn log_is_trimmed(&self) -> bool {
        self.committed.log.is_empty()
    }

    /// Entries of the own log after `cursor`; `None` if it no longer reaches back.
    pub fn log_after(&self, cursor: Sequence, max: usize) -> Option<Vec<Made>> {
        let first = self.committed.log.keys().next().copied();
        let last = self.committed.counters.last;
        if cursor < last && first.is_none_or(|first| first > cursor.next()) {
            return None;
        }
        Some(self.committed.log.range(cursor.next()..).take(max).map(|(_, m)| m.clone()).collect())
    }

    /// Drops what nobody needs any more.
    pub fn trim(&mut self, everything_known: bool) {
        if let Some(through) = self.replica.log.trimmable() {
            self.committed.log.retain(|seq, _| *seq > through);
        }
        if everything_known {
            self.kept.clear();
            let removed: Vec<NodeId> = self.replica.tree.unlinked().collect();
            removed.into_iter().for_each(|id| self.replica.tree.forget(id));
            self.replica.tree.forget_lost_names();
        }
    }

    /// The process dies, and starts again over what is on disk.
    pub fn kill(&mut self, at: Timespec, now_ms: u64) -> Result<(), String> {
        self.start(self.committed.clone(), now_ms)?;
        self.scan(at)
    }

    /// The power fails: names, bytes and state are as they were synced last.
    pub fn cut_power(&mut self, now_ms: u64) -> Result<(), String> {
        let image = self.synced.clone();
        self.below = image.below.clone();
        self.committed = image.clone();
        // What was written over or removed meanwhile never was.
        self.given_up.retain(|content| !self.below.contents().any(|here| here == *content));
        self.start(image, now_ms)
    }

    /// Somebody copies the state directory, after everything `made` so far was synced.
    pub fn back_up(&mut self, made: &[Made]) {
        self.backup = Some(self.synced.clone());
        let own = made.iter().map(|made| &made.change).filter(|c| c.version.slot == self.slot);
        self.copied = own.map(|change| (change.seq, change.version)).collect();
    }

    /// The state directory is gone; the backing tree is there.
    pub fn lose_state(&mut self, at: Timespec, now_ms: u64) -> Result<(), String> {
        self.replace_state(Image::default(), now_ms)?;
        self.replica.start_without_state();
        self.scan(at)
    }

    /// An old copy of the state directory is put back; the backing tree is that of now.
    pub fn put_back(&mut self, at: Timespec, now_ms: u64) -> Result<(), String> {
        self.replace_state(self.backup.clone().unwrap_or_default(), now_ms)?;
        if self.backup.is_none() {
            self.replica.start_without_state();
        }
        self.scan(at)
    }

    /// The power fails: of the commits since the last sync a prefix survives, of the backing tree at
    /// least what was there by the last of them.
    pub fn tear(&mut self, draws: [u64; 2], at: Timespec, now_ms: u64) -> Result<(), String> {
        let mut images = vec![self.synced.clone()];
        images.append(&mut self.unsynced);
        let kept = draws[0] as usize % images.len();
        let below = kept + draws[1] as usize % (images.len() - kept);
        self.below = images[below].below.clone();
        self.replace_state(images.swap_remove(kept), now_ms)?;
        self.scan(at)
    }

    fn replace_state(&mut self, image: Image, now_ms: u64) -> Result<(), String> {
        self.committed = image.clone();
        self.unsynced.clear();
        self.synced = Image { below: self.below.clone(), ..image.clone() };
        self.start(image, now_ms)
    }

    /// Every content that is here.
    pub fn contents(&self) -> Vec<ContentHash> {
        self.below.contents().chain(self.kept.iter().copied()).collect()
    }

    /// At most `kept` changes are kept for peers that are away.
    pub fn keep_log(&mut self, kept: u64) {
        let last = self.committed.counters.last.0;
        self.committed.log.retain(|seq, _| seq.0 + kept > last);
    }

    /// Whether a power cut would take back what a peer may have already.
    pub fn has_shipped_unsynced(&self) -> bool {
        self.shipped > self.synced.counters.last
    }

    fn start(&mut self, image: Image, now_ms: u64) -> Result<(), String> {
        let tree = match image.rows.is_empty() {
            true => Tree::new(Perm { mode: 0o755, uid: 0, gid: 0 }, Times::default()),
            false => Tree::load(image.rows.into_values()),
        };
        self.replica = Replica::new(self.slot, tree, image.counters);
        self.replica.tree.check()?;
        self.begin_run(now_ms);
        self.gone.clear();
        self.seen.clear();
        self.introduce();
        Ok(())
    }

    /// Numbers are drawn from above what any earlier run drew (`crates/vfs/src/catch_up.rs`).
    fn begin_run(&mut self, now_ms: u64) {
        self.runs += 1;
        let incarnation = u64::from(self.slot.0) << 32 | self.runs;
        self.replica.start(Start { incarnation, node: now_ms << 6, lamport: now_ms << 10 });
    }

    /// What the disk holds for `node`.
    pub fn inode(&self, node: NodeId) -> Option<&Inode> {
        self.below.inode(node)
    }
}
