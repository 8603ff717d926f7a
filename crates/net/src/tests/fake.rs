//! A daemon that only remembers what it was asked, and two ways to be on the network with it.

use crate::{
    Ack, BarrierReply, BarrierRequest, Batch, Beat, Hello, Identity, InviteBook, Link, Net,
    PROTOCOL, PairGrant, PairRequest, PeerService, Refusal, Result,
};
use bytes::Bytes;
use lockstep_core::{
    ChunkRef, ContentHash, ContentRef, LogCursor, Manifest, NodeId, NodeRange, Part, PeerId,
    Sequence, Slot, VolumeId,
};
use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

pub(super) const VOLUME: VolumeId = VolumeId([0xaa; 16]);
pub(super) const NODE: NodeId = NodeId((1 << 48) | 7);
pub(super) const LOOPBACK: &str = "127.0.0.1:0";
/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);
const PATTERN_BYTES: u64 = 1 << 20;

pub(super) fn content(size_bytes: u64) -> ContentRef {
    ContentRef { size_bytes, hash: ContentHash([7; 32]) }
}

/// What every content of the fakes holds from `offset`: at most a MiB of it.
pub(super) fn pattern(offset: u64, len: u64) -> Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        (0..PATTERN_BYTES).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect()
    });
    let from = offset % PATTERN_BYTES;
    pattern.slice(from as usize..(from + len).min(PATTERN_BYTES) as usize)
}

/// What the fake was asked and told.
#[derive(Clone, Default, Debug)]
pub(super) struct Seen {
    pub(super) up: Vec<Arc<Link>>,
    pub(super) down: Vec<(u64, String)>,
    /// `up 1`, `down 1`, with the session's number.
    pub(super) order: Vec<(&'static str, u64)>,
    pub(super) batches: Vec<u64>,
    pub(super) beats: u64,
    pub(super) hellos: Vec<Hello>,
    pub(super) paired: Vec<PairRequest>,
}

#[derive(Default)]
pub(super) struct Fake {
    pub(super) host: &'static str,
    pub(super) members: Mutex<HashSet<(PeerId, VolumeId)>>,
    pub(super) seen: watch::Sender<Seen>,
    pub(super) book: Option<InviteBook>,
    pub(super) now: AtomicU64,
    /// Bytes given to the sinks of reads.
    pub(super) produced: AtomicU64,
    /// What notify answers instead of an acknowledgement.
    pub(super) refusal: Mutex<Option<Refusal>>,
}

impl Fake {
    pub(super) fn note(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }

    /// Waits until the condition holds.
    pub(super) async fn until(&self, what: &str, mut condition: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.subscribe();
        match timeout(PATIENCE, seen.wait_for(|seen| condition(seen))).await {
            Ok(seen) => seen.unwrap().clone(),
            Err(_) => panic!("waited in vain for: {what}; seen: {:?}", self.seen.borrow()),
        }
    }

    /// Waits for the `nth` session to come up, from 1.
    pub(super) async fn link(&self, nth: usize) -> Arc<Link> {
        self.until("a session", |seen| seen.up.len() >= nth).await.up[nth - 1].clone()
    }
}

impl PeerService for Fake {
    fn authorize(&self, peer: PeerId, volume: VolumeId) -> bool {
        self.members.lock().unwrap().contains(&(peer, volume))
    }

    fn pair(&self, peer: PeerId, request: PairRequest) -> Result<PairGrant> {
        let book = self.book.as_ref().ok_or(Refusal::UnknownVolume)?;
        book.redeem(request.volume, &request.secret, self.now.load(Ordering::SeqCst))?;
        self.members.lock().unwrap().insert((peer, request.volume));
        self.note(|seen| seen.paired.push(request));
        let host = self.host.into();
        Ok(PairGrant { volume_name: "work".into(), your_slot: Slot(2), my_slot: Slot(1), host })
    }

    fn my_hello(&self, _: PeerId, _: VolumeId) -> Result<Hello> {
        Ok(Hello {
            protocol: PROTOCOL,
            slot: Slot(1),
            host: self.host.into(),
            last: Sequence(11),
            applied: LogCursor { incarnation: 44, seq: Sequence(22) },
            incarnation: 33,
            wants_state: false,
        })
    }

    fn hello(&self, peer: PeerId, volume: VolumeId, theirs: Hello) -> Result<Hello> {
        self.note(|seen| seen.hellos.push(theirs));
        self.my_hello(peer, volume)
    }

    fn notify(&self, _: PeerId, _: VolumeId, batch: Batch) -> Result<Ack> {
        self.note(|seen| seen.batches.push(batch.seq));
        if let Some(refusal) = self.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        let last = batch.notifications.last().map_or(Sequence(0), |n| n.change.seq);
        Ok(Ack { applied: last, durable: last, complete: true })
    }

    fn summarize(&self, _: PeerId, _: VolumeId, ranges: &[NodeRange]) -> Result<Vec<Part>> {
        Ok(ranges.iter().map(|range| Part::Listed(vec![(range.first, 7)])).collect())
    }

    fn keeps(
        &self,
        _: PeerId,
        _: VolumeId,
        contents: &[(NodeId, ContentRef)],
    ) -> Result<Vec<bool>> {
        Ok(contents.iter().map(|(_, content)| content.size_bytes > 0).collect())
    }

    fn manifest(&self, _: PeerId, _: VolumeId, _: NodeId, content: ContentRef) -> Result<Manifest> {
        if content.size_bytes == 0 {
            return Err(Refusal::Gone { shown: None });
        }
        let chunk = ChunkRef { len_bytes: 4096, hash: [1; 32] };
        Ok(Manifest { chunks: vec![chunk; (content.size_bytes / 4096) as usize] })
    }

    fn read(
        &self,
        _: PeerId,
        _: VolumeId,
        node: NodeId,
        _: ContentRef,
        offset: u64,
        len: u64,
        sink: &mut dyn FnMut(Bytes) -> bool,
    ) -> Result<()> {
        // Any other node's content ends half-way, as if the disk were broken.
        let end = offset + if node == NODE { len } else { len / 2 };
        let mut at = offset;
        while at < end {
            let piece = pattern(at, end - at);
            at += piece.len() as u64;
            self.produced.fetch_add(piece.len() as u64, Ordering::SeqCst);
            if !sink(piece) {
                break;
            }
        }
        Ok(())
    }

    fn barrier(&self, _: PeerId, _: VolumeId, request: BarrierRequest) -> Result<BarrierReply> {
        let reached = request.upto <= Sequence(100);
        let missing = if reached { String::new() } else { "3 changes".into() };
        Ok(BarrierReply { reached, last: Sequence(5), missing })
    }

    fn my_beat(&self, _: PeerId, _: VolumeId) -> Result<Beat> {
        Ok(Beat { problem: format!("{} is full", self.host), ..Beat::default() })
    }

    fn beat(&self, peer: PeerId, volume: VolumeId, theirs: Beat) -> Result<Beat> {
        assert!(theirs.problem.ends_with("is full"));
        self.note(|seen| seen.beats += 1);
        self.my_beat(peer, volume)
    }

    fn session_up(&self, link: Arc<Link>) {
        self.note(|seen| {
            seen.order.push(("up", link.session()));
            seen.up.push(link);
        });
    }

    fn session_down(&self, _: PeerId, _: VolumeId, session: u64, reason: &str) {
        self.note(|seen| {
            seen.order.push(("down", session));
            seen.down.push((session, reason.into()));
        });
    }
}

/// One daemon on the network.
pub(super) struct Peer {
    pub(super) net: Net,
    pub(super) fake: Arc<Fake>,
}

impl Peer {
    pub(super) fn new(seed: u8) -> Peer {
        Peer::with(seed, Fake { host: "host", ..Fake::default() })
    }

    pub(super) fn with(seed: u8, fake: Fake) -> Peer {
        logs();
        let fake = Arc::new(fake);
        Peer { net: Net::start(identity(seed), fake.clone()).unwrap(), fake }
    }

    pub(super) fn id(&self) -> PeerId {
        self.net.peer_id()
    }

    pub(super) fn knows(&self, other: &Peer) {
        self.fake.members.lock().unwrap().insert((other.id(), VOLUME));
    }

    pub(super) async fn listen(&self) -> SocketAddr {
        self.net.listen(LOOPBACK.parse().unwrap()).await.unwrap()
    }
}

pub(super) fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

/// Two peers that know each other, with one session that the second dialled.
pub(super) async fn connected(seed: u8) -> (Peer, Peer, SocketAddr) {
    let (a, b) = (Peer::new(seed), Peer::new(seed + 1));
    a.knows(&b);
    b.knows(&a);
    let address = a.listen().await;
    b.net.dial(a.id(), VOLUME, vec![address]);
    a.fake.link(1).await;
    b.fake.link(1).await;
    (a, b, address)
}

/// Fails the test when `wanted` takes too long.
pub(super) async fn soon<T>(wanted: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wanted).await.expect("took too long")
}

/// A fresh directory, removed at the end.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Scratch {
        let path =
            std::env::temp_dir().join(format!("lockstep-net-{:x}", crate::entropy::number()));
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Everything logged by all tests so far.
pub(super) fn logs() -> String {
    static LOGS: OnceLock<Logs> = OnceLock::new();
    let logs = LOGS.get_or_init(|| {
        let logs = Logs::default();
        let to = logs.clone();
        tracing_subscriber::fmt()
            .with_env_filter("lockstep_net=debug")
            .with_ansi(false)
            .with_writer(move || to.clone())
            .init();
        logs
    });
    String::from_utf8_lossy(&logs.0.lock().unwrap()).into_owned()
}

#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Waits until a log line has all the words.
pub(super) async fn logged(words: &[&str]) {
    let found = || logs().lines().any(|line| words.iter().all(|word| line.contains(word)));
    let wait = async {
        while !found() {
            tokio::task::yield_now().await;
        }
    };
    if timeout(PATIENCE, wait).await.is_err() {
        panic!("not logged: {words:?}");
    }
}
