//! One of the two volumes, and what the network would do between them.

use lockstep_core::{ContentRef, Kind, NodeId, Perm, Slot, Times};
use lockstep_disk::state::StateDb;
use lockstep_disk::{PlainDisk, describe_bytes};
use lockstep_vfs::{ApplyError, FetchJob, Fh, Incoming, Origin, Volume};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Rounds in which everything must have settled.
const ROUNDS_MAX: usize = 500;
/// More than are ever queued to be fetched.
const QUEUED_MAX: usize = 2_000;

pub struct Side {
    pub volume: Arc<Volume>,
    slot: Slot,
    /// Fetches that the peer had nothing for, to be tried again.
    refused: RefCell<Vec<FetchJob>>,
    _dir: TempDir,
}

/// What a program sees of one name: everything but its path.
#[derive(Debug, PartialEq, Clone)]
pub struct Seen {
    node: NodeId,
    kind: Kind,
    perm: Perm,
    nlink: u32,
    times: Times,
    /// How many, and how they begin.
    bytes: (usize, String),
    hash: ContentRef,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Who receives (`who`) and who sends.
pub fn exchange(sides: &mut [Side; 2], who: usize) -> (&Side, &Side) {
    (&sides[1 - who], &sides[who])
}

impl Side {
    pub fn new(slot: u16) -> Side {
        let dir = quick_dir();
        let (backing, state) = (dir.path().join("backing"), dir.path().join("state"));
        std::fs::create_dir(&backing).unwrap();
        let disk = Arc::new(PlainDisk::open(&backing).unwrap());
        let db = StateDb::open(&state).unwrap();
        let (host, origin) = match slot {
            1 => ("one", Origin::Created),
            _ => ("two", Origin::Joining),
        };
        let volume = Volume::start(disk, db, Slot(slot), host, origin).unwrap();
        let peer = 3 - slot;
        volume.add_peer(Slot(peer), if peer == 1 { "one" } else { "two" });
        Side { volume, slot: Slot(slot), refused: RefCell::default(), _dir: dir }
    }

    /// What was written so far becomes changes in the log.
    pub fn announce(&self) {
        self.volume.announce_all();
        self.volume.commit().unwrap();
    }

    /// Takes up to `count` changes of `from`. False if there was none to take.
    pub fn receive(&self, from: &Side, count: usize) -> bool {
        let cursor = self.volume.applied(from.slot);
        let changes = from.volume.log_after(cursor, count).unwrap();
        let carried: Vec<Incoming> = changes
            .into_iter()
            .map(|change| {
                let content = change.op.content();
                let inline = content.and_then(|c| from.volume.inline(change.op.node(), c));
                Incoming { change, inline }
            })
            .collect();
        match self.volume.apply(from.slot, &carried) {
            Ok(()) | Err(ApplyError::Waiting(_)) => {}
            Err(error) => panic!("slot {}: {error}", self.slot.0),
        }
        self.volume.applied(from.slot) > cursor
    }

    /// Tells `from` how far its log is here.
    pub fn acknowledge(&self, from: &Side) {
        let applied = self.volume.applied(from.slot);
        let complete = self.volume.is_complete();
        self.volume.commit().unwrap();
        from.volume.acked(self.slot, applied, applied, complete);
        if complete {
            from.volume.heard(self.slot, applied, self.volume.last());
        }
    }

    /// Forgets what the peer needs no more.
    pub fn trim(&self) {
        self.volume.trim().unwrap();
    }

    /// Fetches one content from `from`, if one is wanted. False if none was.
    pub fn fetch_one(&self, from: &Side) -> bool {
        let Some(job) = self.volume.next_fetch(Duration::ZERO) else { return false };
        if !self.volume.is_wanted(&job) {
            return true;
        }
        if self.bring(&job, from) {
            self.volume.install(&job).unwrap();
        } else {
            self.volume.content_gone(&job, None);
            self.refused.borrow_mut().push(job.clone());
        }
        self.volume.queue_if_wanted(job.node, job.version);
        true
    }

    /// What the peer did not have is asked for again.
    pub fn retry(&self) {
        self.refused.take().iter().for_each(|job| self.volume.requeue(job));
    }

    fn bring(&self, job: &FetchJob, from: &Side) -> bool {
        if job.transfer.is_complete() {
            return true;
        }
        if !job.transfer.is_planned() {
            if self.volume.begin_from_here(job).unwrap() && job.transfer.is_complete() {
                return true;
            }
            if let Some(bytes) = from.volume.inline(job.node, job.content) {
                assert!(self.volume.begin(job, describe_bytes(&bytes).manifest).unwrap());
                return bytes.is_empty() || job.transfer.put_chunk(0, &bytes).unwrap();
            }
        }
        if !job.transfer.is_planned() {
            let Ok(manifest) = from.volume.manifest(job.node, job.content) else { return false };
            assert!(self.volume.begin(job, manifest).unwrap());
        }
        while let Some(run) = job.transfer.missing_run(0, 1) {
            self.volume.fill_from_here(job, &run).unwrap();
            let Some(part) = job.transfer.missing_run(run.offset_bytes, 1) else { break };
            let Ok(served) = from.volume.serve(job.node, job.content) else { return false };
            let mut chunk = vec![0; job.transfer.chunk_len(part.first)];
            let read = served.file.read_at(&mut chunk, part.offset_bytes).unwrap();
            if read < chunk.len() || !job.transfer.put_chunk(part.first, &chunk).unwrap() {
                return false;
            }
        }
        true
    }

    /// Everything a program sees, by path.
    pub fn shown(&self) -> BTreeMap<String, Seen> {
        let mut shown = BTreeMap::new();
        let mut dirs = vec![(NodeId::ROOT, String::new())];
        while let Some((dir, path)) = dirs.pop() {
            for (name, node) in self.entries(dir) {
                let path = format!("{path}/{name}");
                let seen = self.look(node);
                if seen.kind == Kind::Dir {
                    dirs.push((node, path.clone()));
                }
                shown.insert(path, seen);
            }
        }
        shown
    }

    fn entries(&self, dir: NodeId) -> Vec<(String, NodeId)> {
        let mut entries = Vec::new();
        let mut emit = |entry: lockstep_vfs::DirEntry<'_>| {
            let name = String::from_utf8_lossy(entry.name).into_owned();
            entries.push((name, entry.stat.node));
            false
        };
        self.volume.read_dir(Fh(0), dir, 2, &mut emit).unwrap();
        entries
    }

    fn look(&self, node: NodeId) -> Seen {
        let stat = self.volume.getattr(node).unwrap();
        let content = match stat.kind {
            Kind::File => {
                let opened = self.volume.open(node, 0).unwrap();
                let bytes = self.volume.read(opened.fh, 0, 1 << 20).unwrap();
                self.volume.release(opened.fh);
                assert_eq!(bytes.len() as u64, stat.size_bytes, "{node}");
                bytes
            }
            _ => Vec::new(),
        };
        let names = self.volume.list_xattrs(node).unwrap();
        let value = |name: Vec<u8>| {
            let value = self.volume.get_xattr(node, &name).unwrap();
            (name, value)
        };
        let xattrs = names.into_iter().map(value).collect();
        let (kind, perm, nlink, times) = (stat.kind, stat.perm, stat.nlink, stat.times);
        let hash = describe_bytes(&content).content;
        let begins = String::from_utf8_lossy(&content[..content.len().min(40)]).into_owned();
        let bytes = (content.len(), begins);
        Seen { node, kind, perm, nlink, times, bytes, hash, xattrs }
    }

    /// Below stands what is shown.
    pub fn stands_below(&self) {
        let verified = self.volume.verify(&|_| true);
        assert!(verified.complete);
        assert_eq!(verified.differences, [], "slot {}", self.slot.0);
    }

    /// Files whose content is not here.
    fn absent(&self) -> u64 {
        self.volume.status().absent
    }
}

/// Carries everything there is, until nothing is left to carry.
pub fn settle(sides: &mut [Side; 2]) {
    for _ in 0..ROUNDS_MAX {
        sides.iter().for_each(Side::announce);
        let mut busy = false;
        for who in 0..2 {
            let (from, to) = exchange(sides, who);
            while to.receive(from, 64) {
                busy = true;
            }
            to.retry();
            // What is no longer wanted is passed over, one at a time.
            let mut passed_over = 0;
            while passed_over < QUEUED_MAX {
                passed_over = if to.fetch_one(from) { 0 } else { passed_over + 1 };
            }
            busy |= to.volume.applied(from.slot) < from.volume.last() || to.absent() > 0;
        }
        if !busy && sides.iter().all(|side| side.volume.status().unannounced == 0) {
            return;
        }
    }
    let left = |side: &Side, other: &Side| {
        let applied = side.volume.applied(other.slot);
        (applied, other.volume.last(), side.volume.status(), side.volume.outstanding())
    };
    let [one, two] = sides;
    panic!("nothing settles: {:?} {:?}", left(one, two), left(two, one));
}

/// What one of two views has and the other has not.
pub fn difference(one: &Side, two: &Side) -> Vec<String> {
    let (one, two) = (one.shown(), two.shown());
    let only = |who, a: &BTreeMap<String, Seen>, b: &BTreeMap<String, Seen>| -> Vec<String> {
        let differs = a.iter().filter(|(path, seen)| b.get(*path) != Some(seen));
        differs.map(|(path, seen)| format!("{who} {path}: {seen:?}")).collect()
    };
    [only("one", &one, &two), only("two", &two, &one)].concat()
}

/// A directory in memory, where there is one that holds what a volume needs: nothing here is about
/// the disk's speed.
fn quick_dir() -> TempDir {
    let in_memory = TempDir::new_in("/dev/shm").ok().filter(|dir| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(dir.path(), "user.probe", b"", flags).is_ok()
    });
    in_memory.unwrap_or_else(|| TempDir::new().unwrap())
}
