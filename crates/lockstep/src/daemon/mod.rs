//! The daemon of one home: it keeps volumes open and mounted, talks to their peers, and carries
//! out what commands ask over the control socket.
//!
//! | file | concept |
//! |---|---|
//! | [`launch`], [`detach`] | a command starts a daemon in the background |
//! | [`lock`], [`run`], [`abandoned`] | the life of the process, and what a killed one holds on to |
//! | [`volumes`], [`hosted`], [`record`] | the volumes, one of them, what is remembered of it |
//! | [`directory`], [`owner`], [`undo`] | which directories may be shared; leaving no halves |
//! | [`share`], [`join`], [`wait`], [`residency`], [`report`], [`trash`], [`conflicts`], [`verify`] | the commands |
//! | [`router`] | what peers ask, passed to the volume it is about |
//! | [`config`], [`durable`], [`addresses`] | settings, files that survive, our own addresses |
//! | [`credentials`] | the home's key and its invites |

pub mod abandoned;
pub mod addresses;
pub mod config;
pub mod conflicts;
pub mod credentials;
pub mod detach;
pub mod directory;
pub mod durable;
pub mod hosted;
pub mod join;
pub mod launch;
pub mod lock;
pub mod owner;
pub mod record;
pub mod report;
pub mod residency;
pub mod router;
pub mod run;
pub mod share;
pub mod trash;
pub mod undo;
pub mod verify;
pub mod volumes;
pub mod wait;

use crate::control::Request;
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use crate::pump::Fresh;
use config::Config;
use hosted::{Hosted, Trouble};
use lockstep_core::PeerId;
use lockstep_net::{InviteBook, Net};
use parking_lot::{Condvar, Mutex, MutexGuard};
use record::VolumeRecord;
use router::Router;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use volumes::Volumes;

/// How long after a failure an address is tried again.
const LISTEN_RETRY: Duration = Duration::from_secs(3);
/// How long a stop waits for a command that is opening or joining a volume.
const CHANGE_DEADLINE: Duration = Duration::from_secs(20);

/// Everything a command may need.
pub struct Daemon {
    home: Home,
    /// As it was when the daemon started.
    config: Config,
    me: PeerId,
    volumes: Arc<Volumes>,
    invites: Arc<InviteBook>,
    net: Net,
    runtime: Handle,
    /// Volumes of the home that could not even be listed, and why.
    left_out: Mutex<Vec<String>>,
    /// What happened to files of the home that somebody may want to know.
    notices: Mutex<Vec<String>>,
    /// Permission bits of directories made for the user (by the umask that the daemon was started with).
    dir_mode: u32,
    /// Held by a command that changes which volumes there are, or opens, mounts or closes one.
    changing: Mutex<()>,
    opened: Mutex<bool>,
    all_opened: Condvar,
    stop: Notify,
    stopping: AtomicBool,
}

impl Daemon {
    /// Loads keys and records; opens nothing yet.
    pub fn assemble(home: &Home, runtime: &Handle, dir_mode: u32) -> Outcome<Arc<Self>> {
        let told = |e: &dyn std::error::Error| Failure::failed(e.to_string(), "");
        let config = Config::load(home)?;
        let identity = credentials::identity(home)?;
        let me = identity.peer_id();
        let mut notices = Vec::new();
        let invites = Arc::new(credentials::invites(home, &mut notices)?);
        let volumes = Arc::new(Volumes::default());
        let (shared, book) = (Arc::clone(&volumes), Arc::clone(&invites));
        let router = Router::new(home.clone(), config.host_name(), me, shared, book);
        let _inside = runtime.enter();
        let net = Net::start(identity, Arc::new(router)).map_err(|e| told(&e))?;
        Ok(Arc::new(Daemon {
            home: home.clone(),
            config,
            me,
            volumes,
            invites,
            net,
            runtime: runtime.clone(),
            left_out: Mutex::default(),
            notices: Mutex::new(notices),
            dir_mode,
            changing: Mutex::new(()),
            opened: Mutex::new(false),
            all_opened: Condvar::new(),
            stop: Notify::new(),
            stopping: AtomicBool::new(false),
        }))
    }

    /// Carries out a command. Blocks for as long as that takes.
    pub fn carry_out(&self, request: Request) -> Outcome<Value> {
        match request {
            Request::Ping => Ok(json!({ "pid": std::process::id() })),
            Request::Share { dir, name, place } => share::share(self, &dir, name, &place),
            Request::Join { code, dir, place } => join::join(self, &code, &dir, &place),
            Request::Status => Ok(report::report(self)),
            Request::Wait { timeout_ms } => wait::wait(self, Duration::from_millis(timeout_ms)),
            Request::Invite { volume } => share::invite_again(self, &volume),
            Request::Unmount { volume } => self.unmount(&volume),
            Request::Verify { volume } => verify::verify(self, volume.as_deref()),
            Request::Conflicts => conflicts::list(self),
            Request::Resolve { path, keep } => conflicts::resolve(self, &path, keep),
            Request::TrashList { volume } => trash::list(self, volume.as_deref()),
            Request::TrashRestore { path } => trash::restore(self, &path),
            Request::TrashEmpty { volume } => trash::empty(self, volume.as_deref()),
            Request::Pin { path } => residency::pin(self, &path),
            Request::Unpin { path } => residency::unpin(self, &path),
            Request::Evict { path } => residency::evict(self, &path),
            Request::Start => {
                let _changing = self.change()?;
                self.list();
                Ok(self.bring_up())
            }
            Request::Stop => Ok(self.stop()),
            Request::StopIfIdle => {
                let _changing = self.change()?;
                let idle = self.volumes.all().is_empty();
                Ok(if idle { self.stop() } else { json!({ "stopping": false }) })
            }
        }
    }

    fn stop(&self) -> Value {
        self.stopping.store(true, Ordering::SeqCst);
        self.stop.notify_one();
        json!({ "stopping": true, "pid": std::process::id() })
    }

    /// The right to change the set of volumes, once all that the home remembers were opened.
    fn change(&self) -> Outcome<MutexGuard<'_, ()>> {
        self.await_opened();
        let changing = self.changing.lock();
        if self.stopping.load(Ordering::SeqCst) {
            return Err(Failure::early("the daemon is stopping", "run the command again"));
        }
        Ok(changing)
    }

    fn await_opened(&self) {
        let mut opened = self.opened.lock();
        self.all_opened.wait_while(&mut opened, |opened| !*opened);
    }

    /// Fails if the home holds volumes that could not even be listed: an answer about all volumes
    /// would be silent about them.
    fn all_listed(&self) -> Outcome<()> {
        let left_out = self.left_out.lock();
        if left_out.is_empty() {
            return Ok(());
        }
        let message = format!("a volume of this home could not be opened: {}", left_out.join("; "));
        Err(Failure::failed(message, "mend the cause, then `lockstep start`"))
    }

    /// Opens every volume that the home remembers. One that cannot be opened does not stop the
    /// others; `status` shows why.
    pub fn open_all(self: &Arc<Self>) {
        let changing = self.changing.lock();
        self.list();
        self.bring_up();
        drop(changing);
        *self.opened.lock() = true;
        self.all_opened.notify_all();
        self.runtime.spawn(Arc::clone(self).keep_listening());
    }

    /// Learns of the volumes that the home remembers and this daemon does not serve yet.
    fn list(&self) {
        let mut left_out = Vec::new();
        let remembered = record::remembered(&self.home).unwrap_or_else(|failure| {
            left_out.push(failure.one_line());
            BTreeSet::new()
        });
        for id in remembered.into_iter().filter(|id| self.volumes.get(*id).is_none()) {
            match share::recorded(&self.home, id) {
                Ok(Some(record)) => self.volumes.insert(Hosted::new(record)),
                Ok(None) => {}
                Err(failure) => {
                    tracing::warn!(volume = %id, "a volume is left out: {}", failure.one_line());
                    left_out.push(failure.one_line());
                }
            }
        }
        *self.left_out.lock() = left_out;
    }

    /// Opens, mounts and connects whatever is not; what could not be is in the answer.
    fn bring_up(&self) -> Value {
        let all = self.volumes.all();
        std::thread::scope(|threads| {
            for volume in &all {
                threads.spawn(|| self.bring_up_one(volume));
            }
        });
        report::report(self)
    }

    fn bring_up_one(&self, volume: &Arc<Hosted>) {
        let opened = volume.open(&self.home, &self.config, &self.runtime, Fresh::Existing);
        let Ok(opened_now) = volume.note(Trouble::Open, opened) else { return };
        let _ = volume.note(Trouble::Mount, volume.mount());
        let record = volume.record();
        if let Some(address) = record.listen {
            let _ = volume.note(Trouble::Listen, self.listen(address));
        }
        if opened_now {
            self.dial(&record);
        }
    }

    fn dial(&self, record: &VolumeRecord) {
        for peer in record.peers.iter().filter(|peer| !peer.addrs.is_empty()) {
            self.net.dial(peer.id, record.id, peer.addrs.clone());
        }
    }

    fn listen(&self, address: SocketAddr) -> Outcome<SocketAddr> {
        let bound = self.runtime.block_on(self.net.listen(address));
        bound.map_err(|e| Failure::of_sentence(&e.to_string()))
    }

    /// Tries again where an address was taken by somebody else at the start.
    async fn keep_listening(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LISTEN_RETRY).await;
            for volume in self.volumes.all() {
                let address = volume.record().listen.filter(|_| volume.has(Trouble::Listen));
                if let Some(address) = address
                    && self.net.listen(address).await.is_ok()
                {
                    let _ = volume.note(Trouble::Listen, Ok(()));
                }
            }
        }
    }

    fn unmount(&self, meant: &str) -> Outcome<Value> {
        let _changing = self.change()?;
        let volume = self.volumes.find(meant)?;
        let record = volume.record();
        let unmounted = volume.unmount()?;
        Ok(json!({ "volume": record.name, "mount": record.mount, "unmounted": unmounted }))
    }

    /// Unmounts, closes sessions, flushes.
    fn shut_down(&self) {
        let _changing = self.changing.try_lock_for(CHANGE_DEADLINE);
        let all = self.volumes.all();
        std::thread::scope(|threads| {
            for volume in &all {
                threads.spawn(|| volume.note(Trouble::Mount, volume.unmount()));
            }
        });
        self.runtime.block_on(self.net.shutdown());
        std::thread::scope(|threads| {
            for volume in &all {
                threads.spawn(|| volume.close());
            }
        });
    }
}

/// Seconds since 1970 by this machine's clock, for the expiry of invites.
fn now_unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
