//! What a peer's change makes below.

use super::{PEER, Replica, caller, entry, node, perm};
use lockstep_core::change::{Body, Op};
use lockstep_core::{ContentRef, NodeId, Perm, Times, Timespec};
use lockstep_vfs::ApplyError;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const MADE_AT: Timespec = Timespec { secs: 1_000_000, nanos: 5_000 };

fn create(counter: u64, name: &str, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Op {
    Op::Create {
        node: node(counter),
        parent: NodeId::ROOT,
        name: entry(name),
        body: Body::File(ContentRef::default()),
        perm: Perm { mode: 0o640, ..perm() },
        times: Times::at(MADE_AT),
        xattrs,
        at: MADE_AT,
    }
}

fn names_below(replica: &Replica) -> Vec<String> {
    let names = std::fs::read_dir(replica.below("")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != ".lockstep").collect()
}

/// What stands below as `name` has the mode, time and attribute of the change that made it.
#[track_caller]
fn is_dressed(path: &Path) {
    let stat = path.metadata().unwrap();
    assert_eq!(stat.permissions().mode() & 0o777, 0o640, "{}", path.display());
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (1_000_000, 5_000), "{}", path.display());
    let mut value = [0; 8];
    let len = rustix::fs::getxattr(path, "user.colour", &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"red", "{}", path.display());
}

#[test]
fn what_a_change_makes_has_its_mode_times_and_attributes_where_it_is_made() {
    let mut replica = Replica::new();
    // Another file has the name, by a newer change: what the peer makes is shown beside it.
    let (_, opened) = replica.volume.create(&caller(), NodeId::ROOT, b"taken", 0o600, 0).unwrap();
    replica.volume.release(opened.fh);
    let colour = vec![(b"user.colour".to_vec(), b"red".to_vec())];
    let made = [
        replica.next(create(10, "free", colour.clone()), None),
        replica.next(create(11, "taken", colour), None),
    ];
    replica.volume.apply(PEER, &made).unwrap();
    is_dressed(&replica.below("free"));
    let beside = names_below(&replica).into_iter().find(|name| name.starts_with("taken ")).unwrap();
    is_dressed(&replica.below(&beside));
}

#[test]
fn what_could_not_be_made_whole_is_not_taken_for_a_stray() {
    let mut replica = Replica::new();
    // More than ext4 stores, and as much as a change may hold.
    let large = vec![(b"user.large".to_vec(), vec![b'x'; 60 * 1024])];
    let made = [replica.next(create(10, "new", large), None)];
    for _ in 0..3 {
        match replica.volume.apply(PEER, &made) {
            Err(ApplyError::Disk(_)) => assert_eq!(names_below(&replica), Vec::<String>::new()),
            // A disk that stores them.
            other => {
                other.unwrap();
                assert_eq!(names_below(&replica), ["new"]);
            }
        }
    }
}
