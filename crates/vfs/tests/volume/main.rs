//! One volume over a real directory, told of changes as a peer would send them.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod linked;
mod making;
mod outbox;
mod placeholders;
mod replaced;
mod turning;
mod written;

use lockstep_core::change::{Body, Change, Op, RenameTarget};
use lockstep_core::{
    ContentRef, EntryName, NodeId, Perm, Sequence, Slot, Times, Timespec, Version,
};
use lockstep_disk::state::StateDb;
use lockstep_disk::{PlainDisk, describe_bytes};
use lockstep_vfs::{Caller, Incoming, Origin, Volume};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const PEER: Slot = Slot(1);
const O_RDONLY: i32 = 0;
/// `O_CREAT | O_WRONLY`.
const O_CREAT_WRONLY: i32 = 0o101;

/// A replica in slot 2 whose peer is in slot 1.
struct Replica {
    volume: Arc<Volume>,
    /// Last number of the peer's log.
    sent: u64,
    dir: TempDir,
}

impl Replica {
    fn new() -> Replica {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("backing")).unwrap();
        Replica { volume: start(&dir, Origin::Joining), sent: 0, dir }
    }

    /// The backing file `name`.
    fn below(&self, name: &str) -> PathBuf {
        self.dir.path().join("backing").join(name)
    }

    /// Ends the volume, does something behind its back, and starts it again.
    fn restart(self, meanwhile: impl FnOnce(&Path)) -> Replica {
        let Replica { volume, sent, dir } = self;
        drop(volume);
        meanwhile(&dir.path().join("backing"));
        Replica { volume: start(&dir, Origin::Existing), sent, dir }
    }

    /// The peer's next change, with the bytes of its content if they travel inside.
    fn next(&mut self, op: Op, inline: Option<&[u8]>) -> Incoming {
        self.sent += 1;
        let version = Version { lamport: self.sent, slot: PEER };
        let change = Change { seq: Sequence(self.sent), version, op };
        Incoming { change, inline: inline.map(<[u8]>::to_vec) }
    }

    /// The peer made the file `node` as `name` in the root and wrote `bytes`, which travel inside
    /// if `inline`.
    fn file(
        &mut self,
        node: NodeId,
        name: &str,
        bytes: &[u8],
        inline: bool,
    ) -> (Vec<Incoming>, Version) {
        let (perm, times, at) = (perm(), Times::default(), Timespec::default());
        let body = Body::File(ContentRef::default());
        let (parent, xattrs) = (NodeId::ROOT, Vec::new());
        let name = entry(name);
        let create = Op::Create { node, parent, name, body, perm, times, xattrs, at };
        let made = self.next(create, None);
        let (base, content) = (made.change.version, describe_bytes(bytes).content);
        let content = Op::Content { node, base, content, times, perm };
        let wrote = self.next(content, inline.then_some(bytes));
        let version = wrote.change.version;
        (vec![made, wrote], version)
    }

    /// The peer moved `node` from one name in the root over another, which `old` had.
    fn moved_over(
        &mut self,
        node: NodeId,
        from: &str,
        to: &str,
        old: (NodeId, Version),
    ) -> Incoming {
        let (old, seen) = old;
        let op = Op::Rename {
            node,
            from: (NodeId::ROOT, entry(from)),
            to: (NodeId::ROOT, entry(to)),
            target: RenameTarget::Replaced { node: old, seen },
            at: Timespec::default(),
        };
        self.next(op, None)
    }

    /// All that a program reads under `name`.
    fn read(&self, name: &str) -> lockstep_vfs::Result<Vec<u8>> {
        let stat = self.volume.lookup(NodeId::ROOT, name.as_bytes())?;
        let opened = self.volume.open(stat.node, O_RDONLY)?;
        let bytes = self.volume.read(opened.fh, 0, 1 << 20);
        self.volume.release(opened.fh);
        bytes
    }
}

fn start(dir: &TempDir, origin: Origin) -> Arc<Volume> {
    let disk = Arc::new(PlainDisk::open(&dir.path().join("backing")).unwrap());
    let db = StateDb::open(&dir.path().join("state")).unwrap();
    let volume = Volume::start(disk, db, Slot(2), "here", origin).unwrap();
    volume.add_peer(PEER, "there");
    volume
}

fn caller() -> Caller {
    let Perm { uid, gid, .. } = perm();
    Caller { uid, gid, pid: std::process::id(), umask: 0 }
}

fn perm() -> Perm {
    Perm {
        mode: 0o644,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    }
}

fn entry(name: &str) -> EntryName {
    EntryName::new(name.as_bytes()).unwrap()
}

fn node(counter: u64) -> NodeId {
    NodeId::new(PEER, counter)
}
