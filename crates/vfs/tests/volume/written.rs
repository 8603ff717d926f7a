//! A peer's new content, and who opens the file to write just when it is put in place.

use super::{PEER, Replica, caller, node};
use lockstep_core::{NodeId, Op, Times};
use lockstep_disk::describe_bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ROUNDS: u64 = 50;
const O_WRONLY: i32 = 0o1;

#[test]
fn what_is_written_while_a_content_is_put_in_place_is_written_to_the_file_that_stays() {
    let mut replica = Replica::new();
    for round in 0..ROUNDS {
        let (name, file) = (format!("n{round}"), node(100 + round));
        let (changes, base) = replica.file(file, &name, b"the first", true);
        replica.volume.apply(PEER, &changes).unwrap();
        let bytes = format!("the second of round {round}").into_bytes();
        let (content, times, perm) =
            (describe_bytes(&bytes).content, Times::default(), super::perm());
        let newer = Op::Content { node: file, base, content, times, perm };
        let newer = replica.next(newer, None);
        replica.volume.apply(PEER, &[newer]).unwrap();

        let volume = &replica.volume;
        let jobs = std::iter::repeat_with(|| volume.next_fetch(Duration::ZERO)).flatten();
        let job = { jobs }.find(|job| job.node == file).unwrap();
        assert!(volume.begin(&job, describe_bytes(&bytes).manifest).unwrap());
        assert!(job.transfer.put_chunk(0, &bytes).unwrap());
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            // Others keep the volume busy: each step of the two may have to wait.
            for other in 0..2 {
                let name = format!("busy{other}").into_bytes();
                let done = &done;
                threads.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let made = volume.mknod(&caller(), NodeId::ROOT, &name, 0o644, 0);
                        made.and_then(|_| volume.unlink(NodeId::ROOT, &name)).unwrap();
                    }
                });
            }
            let writing = threads.spawn(|| {
                let opened = volume.open(file, O_WRONLY).unwrap();
                volume.write(opened.fh, 0, b"mine", false, false).unwrap();
                volume.release(opened.fh);
            });
            volume.install(&job).unwrap();
            writing.join().unwrap();
            done.store(true, Ordering::Relaxed);
        });
        let shown = volume.lookup(NodeId::ROOT, name.as_bytes()).unwrap();
        assert_eq!(shown.node, file);
        let below = std::fs::read(replica.below(&name)).unwrap();
        assert!(below.starts_with(b"mine"), "round {round}: {}", String::from_utf8_lossy(&below));
    }
}

#[test]
fn a_written_file_that_cannot_be_read_below_any_more_does_not_hold_up_its_removal() {
    let mut replica = Replica::new();
    let file = node(100);
    let (changes, _) = replica.file(file, "name", b"the peer's", true);
    replica.volume.apply(PEER, &changes).unwrap();
    let opened = replica.volume.open(file, O_WRONLY).unwrap();
    replica.volume.write(opened.fh, 0, b"mine", false, false).unwrap();
    replica.volume.release(opened.fh);
    std::fs::remove_file(replica.below("name")).unwrap();

    let volume = replica.volume.clone();
    let (told, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || told.send(volume.unlink(NodeId::ROOT, b"name")));
    let answer = answer.recv_timeout(Duration::from_secs(10)).expect("the call ends");
    assert_eq!(answer, Err(lockstep_vfs::Errno::NoEntry));
}
