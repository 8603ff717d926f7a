//! Two connected peers, `a` (which shared) and `b` (which joined).

use super::environment::{Turn, has_fuse};
use super::peer::{Peer, Placing};
use super::scratch::Scratch;
use super::tree::assert_identical;
use super::{SOON, eventually};
use rustix::process::Signal;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// A pair that lives longer than this hangs: its daemons are killed, so that blocked calls return.
const LIFE_MAX: Duration = Duration::from_secs(280);

/// Fills the directories of `a` and `b`.
pub type Fill = dyn Fn(&Path, &Path);

/// How a pair starts.
#[derive(Default)]
pub struct Layout<'t> {
    /// Where `a` shows the volume.
    pub a: Placing,
    /// Where `b` shows it.
    pub b: Placing,
    /// Run daemons and commands as an ordinary user.
    pub as_nobody: bool,
    /// Fills the two directories (`a`'s, `b`'s) before anything is shared.
    pub before: Option<&'t Fill>,
}

/// Two daemons, connected. Dropping it stops them, unmounts and removes everything, also when the
/// test panics.
pub struct Pair {
    /// The one that shared.
    pub a: Arc<Peer>,
    /// The one that joined.
    pub b: Arc<Peer>,
    _alive: SyncSender<()>,
    scratch: Scratch,
    _turn: Turn,
}

impl Pair {
    /// Starts both sides and waits until each sees the other; `None` (said loudly) without FUSE.
    #[track_caller]
    pub fn connected(layout: Layout) -> Option<Pair> {
        let pair = Pair::apart(layout)?;
        let invite = pair.a.share()["invite"].as_str().expect("share prints an invite").to_owned();
        pair.b.join(&invite);
        pair.reconnected();
        Some(pair)
    }

    /// The same, of which `b` fetches contents when they are read.
    #[track_caller]
    pub fn on_demand() -> Option<Pair> {
        let pair = Pair::apart(Layout::default())?;
        let invite = pair.a.share()["invite"].as_str().expect("share prints an invite").to_owned();
        pair.b.join_with(&invite, &["--policy", "on-demand"]);
        pair.reconnected();
        Some(pair)
    }

    /// The directories of both sides, nothing started.
    pub fn apart(layout: Layout) -> Option<Pair> {
        if !has_fuse() {
            return None;
        }
        let turn = Turn::take();
        let scratch = Scratch::new();
        let mut a = Peer::new("a", scratch.path(), layout.a);
        let mut b = Peer::new("b", scratch.path(), layout.b);
        if let Some(before) = layout.before {
            before(&a.backing, &b.backing);
        }
        if layout.as_nobody {
            a.become_nobody();
            b.become_nobody();
        }
        let (a, b) = (Arc::new(a), Arc::new(b));
        let alive = watch([a.clone(), b.clone()]);
        Some(Pair { a, b, _alive: alive, scratch, _turn: turn })
    }

    /// A directory of this test outside both peers.
    pub fn outside(&self, name: &str) -> std::path::PathBuf {
        self.scratch.dir(name)
    }

    /// Waits until both sides show the session.
    #[track_caller]
    pub fn reconnected(&self) {
        eventually("both sides show the other as connected", Duration::from_secs(60), || {
            self.a.is_connected() && self.b.is_connected()
        });
    }

    /// Both sides have everything.
    #[track_caller]
    pub fn wait(&self) {
        self.a.wait();
        self.b.wait();
    }

    /// Both sides have everything, and show the same bytes and the same `stat`.
    #[track_caller]
    pub fn identical(&self) {
        self.wait();
        assert_identical(self.a.mnt(), self.b.mnt());
    }

    /// Waits until `name` appears on `b`.
    #[track_caller]
    pub fn seen_on_b(&self, name: &str) {
        let path = self.b.at(name);
        eventually(&format!("{name} appears on b"), SOON, || path.symlink_metadata().is_ok());
    }
}

fn watch(peers: [Arc<Peer>; 2]) -> SyncSender<()> {
    let (alive, dropped) = sync_channel(0);
    let peers = peers.map(|peer| Arc::downgrade(&peer));
    std::thread::spawn(move || {
        if dropped.recv_timeout(LIFE_MAX) == Err(RecvTimeoutError::Timeout) {
            for peer in peers.iter().filter_map(std::sync::Weak::upgrade) {
                eprintln!("the test hangs: killing {}'s daemon", peer.name);
                peer.signal(Signal::KILL);
                super::environment::unmount_below(peer.mnt());
            }
        }
    });
    alive
}
