//! The life of a mount: made (over the backing directory itself, if that is wanted), served,
//! removed; and what a crashed predecessor left behind cleared away.

use super::adapter::Adapter;
use super::attach::{self, Detached};
use super::introduced::Introduced;
use super::mount_error::MountError;
use super::mountinfo::{MountKind, top_mount};
use super::notify::{FuseDevice, KernelNotifier};
use super::options::{MountOptions, Platform, mount_options};
use super::requests::Requests;
use fuser::{Config, Session, SessionACL};
use lockstep_vfs::Volume;
use parking_lot::{Condvar, Mutex};
use rustix::thread::CapabilitySet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Set in the daemon's environment: bytes of all files go through it.
const NO_PASSTHROUGH: &str = "LOCKSTEP_NO_PASSTHROUGH";
const FUSE_CONF: &str = "/etc/fuse.conf";
/// A daemon that has not answered `statfs` after this is slow, but alive.
const ALIVE_AFTER: Duration = Duration::from_secs(2);
/// How long the last requests may take after an unmount.
const LAST_REQUESTS_MAX: Duration = Duration::from_secs(5);
/// Most stale mounts on top of each other that are cleared.
const STACKED_MAX: usize = 32;

/// A served mount; dropping it unmounts.
pub struct Mounted {
    path: PathBuf,
    /// The mount's device number: tells it from whatever else may be mounted at `path` later.
    device: String,
    ended: Arc<Ended>,
    requests: Arc<Requests>,
    #[cfg_attr(not(test), expect(dead_code, reason = "tests push through it"))]
    cache: Arc<KernelNotifier>,
}

/// How an unmount went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmounted {
    /// The mount is gone.
    Clean,
    /// Programs still use it: it is out of sight and served until they end.
    InUse,
    /// It was gone already.
    Already,
}

/// Mounts `volume` at `mountpoint` and serves it from threads of its own. A stale mount there is
/// cleared first. The backing tree must have been opened before.
pub fn mount(
    volume: Arc<Volume>,
    volume_name: &str,
    mountpoint: &Path,
) -> Result<Mounted, MountError> {
    let path = settled(mountpoint)?;
    clear_stale(&path)?;
    if !path.is_dir() {
        return Err(MountError::NotADirectory { path });
    }
    let options = options_here(volume_name);
    let device = attach::attach(&path, &options)?;
    let served = serve(volume, device, &options).and_then(|(guard, requests, cache)| {
        let ended = Ended::watch(guard, path.clone())?;
        Ok((ended, requests, cache))
    });
    let (ended, requests, cache) = served.map_err(|source| {
        // The mount cannot be used by anyone: the error below is the one to report.
        let _ = attach::detach_lazily(&path);
        MountError::Handshake { path: path.clone(), source }
    })?;
    let device = mount_here(&path)?.map(|(_, device)| device).unwrap_or_default();
    tracing::info!(workers = options.workers, allow_other = options.allow_other, "mounted");
    tracing::debug!(path = %path.display(), device, "mount point");
    Ok(Mounted { path, device, ended, requests, cache })
}

fn options_here(volume_name: &str) -> MountOptions {
    let uid = rustix::process::geteuid().as_raw();
    let fuse_conf = std::fs::read_to_string(FUSE_CONF).unwrap_or_default();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut options = mount_options(Platform::here(uid, &fuse_conf), volume_name, cores);
    options.passthrough &= may_pass_files() && std::env::var_os(NO_PASSTHROUGH).is_none();
    options
}

/// Whether the kernel would take a file of ours to read and write by itself.
fn may_pass_files() -> bool {
    let ours = rustix::thread::capabilities(None);
    ours.is_ok_and(|ours| ours.effective.contains(CapabilitySet::SYS_ADMIN))
}

type Serving = (JoinHandle<io::Result<()>>, Arc<Requests>, Arc<KernelNotifier>);

fn serve(volume: Arc<Volume>, device: OwnedFd, options: &MountOptions) -> io::Result<Serving> {
    let requests = Arc::new(Requests::default());
    let introduced = Arc::new(Introduced::new());
    let notifications = Box::new(FuseDevice::new(device.try_clone()?));
    let cache = Arc::new(KernelNotifier::new(notifications, introduced.clone()));
    let adapter = Adapter::new(
        volume.clone(),
        requests.clone(),
        introduced,
        cache.clone(),
        options.cache_ttl,
        options.passthrough,
    );
    let acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    let mut config = Config::default();
    config.n_threads = Some(options.workers);
    config.clone_fd = options.clone_fd;
    let session = Session::from_fd(adapter, device, acl, config)?;
    volume.set_kernel_cache(cache.clone());
    Ok((session.spawn()?.guard, requests, cache))
}

/// Unmounts what a daemon that is gone left at `mountpoint`; whether there was something.
pub fn clear_stale(mountpoint: &Path) -> Result<bool, MountError> {
    let path = settled(mountpoint)?;
    for cleared in 0..STACKED_MAX {
        let Some((by, _)) = mount_here(&path)? else {
            return Ok(cleared > 0);
        };
        let ours = matches!(by, MountKind::Lockstep { .. });
        if !ours || is_served(&path) {
            return Err(MountError::Occupied { path, by });
        }
        attach::detach_dead(&path)?;
        tracing::info!("cleared a mount whose daemon is gone");
        tracing::debug!(path = %path.display(), "it was here");
    }
    Err(MountError::Stuck { path, reason: "stale mounts keep appearing".into() })
}

/// Ends the connection of our mount at `path`, whose daemon is known to be dead, without asking it anything:
/// calls that wait in it fail now. `path` must be as the list of mounts has it.
pub fn end_dead(path: &Path) -> Result<(), MountError> {
    let Some((MountKind::Lockstep { .. }, device)) = mount_here(path)? else { return Ok(()) };
    if let Some(connection) = device.strip_prefix("0:") {
        // Its user may write there too; only root may force an unmount.
        let _ = std::fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1");
    }
    attach::detach_dead(path).map(drop)
}

fn mount_here(path: &Path) -> Result<Option<(MountKind, String)>, MountError> {
    let mount = top_mount(path).map_err(|source| MountError::NoMountinfo { source })?;
    Ok(mount.map(|mount| (mount.kind, mount.device)))
}

/// Whether a daemon answers for the mount at `path`. Asked with `statfs`, the one question the
/// kernel never answers from its cache; a daemon too busy to answer is taken to be alive.
fn is_served(path: &Path) -> bool {
    let (answer, answered) = mpsc::sync_channel(1);
    let asked = path.to_owned();
    let asking = thread::Builder::new().name("fuse-alive".into()).spawn(move || {
        let _ = answer.send(rustix::fs::statfs(&asked));
    });
    asking.is_err()
        || !matches!(
            answered.recv_timeout(ALIVE_AFTER),
            Ok(Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED))
        )
}

/// `path` without symbolic links, as the list of mounts has it; a dead mount at its end, which
/// cannot be looked at, is no obstacle.
fn settled(path: &Path) -> Result<PathBuf, MountError> {
    let error = match path.canonicalize() {
        Ok(settled) => return Ok(settled),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => error,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::Missing { path: path.to_owned() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(MountError::NotADirectory { path: path.to_owned() });
        }
        Err(source) => return Err(MountError::Unreachable { path: path.to_owned(), source }),
    };
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    match (parent.canonicalize(), path.file_name()) {
        (Ok(parent), Some(name)) => Ok(parent.join(name)),
        _ => Err(MountError::Unreachable { path: path.to_owned(), source: error }),
    }
}

impl Mounted {
    /// Requests answered since the mount was made, by kind.
    pub fn requests(&self) -> Vec<(&'static str, u64)> {
        self.requests.snapshot()
    }

    /// The kernel's caches of this mount, to push what a peer would have changed.
    #[cfg(test)]
    pub fn cache(&self) -> &Arc<KernelNotifier> {
        &self.cache
    }

    /// Whether it is still served; false once someone else has unmounted it.
    pub fn is_served(&self) -> bool {
        !self.ended.wait(Duration::ZERO)
    }

    /// Unmounts; if programs still use the mount, hides it and serves them until they end.
    pub fn unmount(self) -> Result<Unmounted, MountError> {
        self.leave()
    }

    fn leave(&self) -> Result<Unmounted, MountError> {
        if !self.is_served() {
            return Ok(Unmounted::Already);
        }
        match mount_here(&self.path)? {
            Some((_, device)) if device == self.device => {}
            Some((by, _)) => {
                return Err(MountError::Stuck {
                    path: self.path.clone(),
                    reason: format!("something else is mounted on top of it ({by:?})"),
                });
            }
            None => return Ok(Unmounted::Already),
        }
        let detached = attach::detach(&self.path)?;
        if detached == Detached::Now && self.ended.wait(LAST_REQUESTS_MAX) {
            return Ok(Unmounted::Clean);
        }
        tracing::warn!("programs still use the mount; it is hidden and served until they end");
        Ok(Unmounted::InUse)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            tracing::warn!(%error, "the mount stays");
        }
    }
}

/// Set once the kernel has closed the session.
#[derive(Default)]
struct Ended {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    fn watch(guard: JoinHandle<io::Result<()>>, path: PathBuf) -> io::Result<Arc<Ended>> {
        let ended = Arc::new(Ended::default());
        let theirs = ended.clone();
        thread::Builder::new().name("fuse-end".into()).spawn(move || {
            match guard.join() {
                Ok(Ok(())) => tracing::info!("unmounted"),
                Ok(Err(error)) => tracing::error!(%error, "the mount is no longer served"),
                Err(_) => tracing::error!("the mount is no longer served: its threads panicked"),
            }
            tracing::debug!(path = %path.display(), "the mount ended");
            *theirs.ended.lock() = true;
            theirs.changed.notify_all();
        })?;
        Ok(ended)
    }

    fn wait(&self, timeout: Duration) -> bool {
        let mut ended = self.ended.lock();
        self.changed.wait_while_for(&mut ended, |ended| !*ended, timeout);
        *ended
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_that_is_missing_or_no_directory_is_named() {
        let missing = clear_stale(Path::new("/no/such/place")).unwrap_err();
        assert!(matches!(missing, MountError::Missing { .. }), "{missing}");
        let below_a_file = clear_stale(Path::new("/proc/self/stat/x")).unwrap_err();
        assert!(matches!(below_a_file, MountError::NotADirectory { .. }), "{below_a_file}");
    }

    #[test]
    fn a_foreign_mount_is_never_cleared() {
        let error = clear_stale(Path::new("/proc")).unwrap_err();
        let MountError::Occupied { by: MountKind::Other { fstype, .. }, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(fstype, "proc");
    }

    #[test]
    fn paths_are_settled_as_the_list_of_mounts_has_them() {
        assert_eq!(settled(Path::new("/proc/../proc/.")).unwrap(), Path::new("/proc"));
    }
}
