//! What readers see who have a file open while a peer's version of it takes its place.

use super::{O_RDONLY, PEER, Replica, perm};
use lockstep_core::{NodeId, Op, Times, Version};
use lockstep_disk::describe_bytes;
use lockstep_vfs::{Errno, FetchJob, Fh, Incoming, KernelCache, Volume};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
const SUBJECT: NodeId = NodeId(10);

/// A kernel that reads again as soon as it has been told to forget what it knew, some times.
struct Kernel {
    volume: Arc<Volume>,
    fh: Fh,
    told: AtomicUsize,
    asks_until: usize,
    answers: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl KernelCache for Kernel {
    fn invalidate_node(&self, node: NodeId) {
        if self.told.fetch_add(1, Ordering::Relaxed) < self.asks_until {
            let size = self.volume.getattr(node).unwrap().size_bytes;
            let bytes = self.volume.read(self.fh, 0, 1 << 20).unwrap();
            self.answers.lock().unwrap().push((size, bytes));
        }
    }
    fn invalidate_attr(&self, _node: NodeId) {}
    fn invalidate_entry(&self, _parent: NodeId, _name: &[u8]) {}
    fn after(&self, done: Box<dyn FnOnce() + Send>) {
        done();
    }
}

/// The peer's next version of the subject.
fn rewritten(replica: &mut Replica, base: Version, bytes: &[u8], inline: bool) -> Incoming {
    let (content, times, perm) = (describe_bytes(bytes).content, Times::default(), perm());
    replica.next(Op::Content { node: SUBJECT, base, content, times, perm }, inline.then_some(bytes))
}

fn next_fetch(replica: &Replica) -> FetchJob {
    std::iter::repeat_with(|| replica.volume.next_fetch(SOON)).flatten().next().unwrap()
}

#[test]
fn an_open_file_turns_once_the_kernel_has_asked_for_nothing_since_it_was_told() {
    let mut replica = Replica::new();
    let (changes, first) = replica.file(SUBJECT, "f", b"the first and longer one", true);
    replica.volume.apply(PEER, &changes).unwrap();
    let fh = replica.volume.open(SUBJECT, O_RDONLY).unwrap().fh;
    let second = rewritten(&mut replica, first, b"short", true);
    replica.volume.apply(PEER, &[second]).unwrap();
    let job = next_fetch(&replica);

    let (volume, told, answers) = (replica.volume.clone(), AtomicUsize::new(0), Mutex::default());
    let kernel = Arc::new(Kernel { volume, fh, told, asks_until: 3, answers });
    replica.volume.set_kernel_cache(kernel.clone());
    assert!(replica.volume.install(&job).unwrap());
    let before = (24, b"the first and longer one".to_vec());
    assert_eq!(
        *kernel.answers.lock().unwrap(),
        vec![before; 3],
        "one version, its length and bytes"
    );
    assert_eq!(
        kernel.told.load(Ordering::Relaxed),
        4,
        "it is told nothing once the file has turned"
    );
    assert_eq!(replica.volume.read(fh, 0, 100).unwrap(), b"short");
    assert_eq!(replica.volume.getattr(SUBJECT).unwrap().size_bytes, 5);
}

/// A reader has the first bytes of an absent file, of which `chunks` have come, when the peer's next
/// version comes.
fn overtaken(chunks: usize) -> (Replica, Fh, Vec<u8>) {
    let bytes: Vec<u8> =
        (0..3u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let mut replica = Replica::new();
    let (changes, first) = replica.file(SUBJECT, "f", &bytes, false);
    replica.volume.apply(PEER, &changes).unwrap();
    let fh = replica.volume.open(SUBJECT, O_RDONLY).unwrap().fh;
    let job = next_fetch(&replica);
    let manifest = describe_bytes(&bytes).manifest;
    assert!(manifest.chunks.len() > 2, "one comes, one is missing");
    assert!(replica.volume.begin(&job, manifest.clone()).unwrap());
    let mut at = 0;
    for (index, chunk) in manifest.chunks.iter().enumerate().take(chunks) {
        let end = at + chunk.len_bytes as usize;
        assert!(job.transfer.put_chunk(index, &bytes[at..end]).unwrap());
        at = end;
    }
    assert_eq!(replica.volume.read(fh, 0, 1000).unwrap(), bytes[..1000]);
    let second = rewritten(&mut replica, first, b"short", true);
    replica.volume.apply(PEER, &[second]).unwrap();
    (replica, fh, bytes)
}

#[test]
fn who_has_begun_to_read_what_was_on_its_way_reads_that_version_to_its_end() {
    let (replica, fh, bytes) = overtaken(usize::MAX);
    assert_eq!(replica.volume.read(fh, 1000, 4 << 20).unwrap(), bytes[1000..]);
    assert_eq!(replica.volume.read(fh, 0, 1000).unwrap(), b"short", "then the newest");
}

#[test]
fn who_has_begun_to_read_what_cannot_be_had_any_more_gets_an_error_and_no_mixture() {
    let (replica, fh, bytes) = overtaken(1);
    assert_eq!(replica.volume.read(fh, 1000, 1000).unwrap(), bytes[1000..2000]);
    assert_eq!(replica.volume.read(fh, 2 << 20, 1000), Err(Errno::Stale));
    assert_eq!(replica.read("f").unwrap(), b"short", "who opens it anew reads the newest");
}
