//! Which home a backing directory belongs to: `.lockstep/owner` says it, and `.lockstep/lock` is locked
//! while a daemon has the volume open. Two daemons on the same plain files would undo each other's work.

use super::durable;
use super::record::{VolumeRecord, volume_id};
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use lockstep_core::VolumeId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Our own directory at the root of a backing directory; not part of the volume.
pub const PRIVATE_DIR: &str = ".lockstep";
const LABEL_MAX_BYTES: u64 = 64 * 1024;

/// Keeps other daemons off a backing directory while it lives.
#[derive(Debug)]
pub struct Owner {
    _lock: File,
    notice: Option<String>,
}

/// What `.lockstep/owner` says.
#[derive(PartialEq, Serialize, Deserialize)]
pub struct Label {
    home: PathBuf,
    volume: String,
}

/// What is in the place of the label.
enum Found {
    Nothing,
    Label(Label),
    /// Something else, and why it is none.
    Damaged(String),
}

impl Owner {
    /// Makes `backing` the directory of `volume` in `home`.
    pub fn claim(backing: &Path, home: &Home, volume: VolumeId) -> Outcome<Self> {
        let failed = |e: io::Error| {
            let hint = "see that you may write there and that the filesystem is not full";
            Failure::io("make a volume of", backing, &e, hint)
        };
        make_private(backing).map_err(failed)?;
        let lock = open_lock(backing).map_err(|e| {
            let hint = "see that you may write there; what is no file, move away";
            Failure::io("use", &backing.join(PRIVATE_DIR).join(LOCK), &e, hint)
        })?;
        let found = find(backing);
        if !try_lock(&lock).map_err(failed)? {
            return Err(taken(backing, found.label().as_ref(), true));
        }
        let path = label_path(backing);
        let ours = Label { home: home.dir().to_path_buf(), volume: volume.to_string() };
        let mut notice = None;
        match found {
            Found::Label(theirs) if theirs.home != ours.home && theirs.is_current(backing) => {
                return Err(taken(backing, Some(&theirs), false));
            }
            Found::Label(label) if label == ours => return Ok(Owner { _lock: lock, notice }),
            Found::Label(_) | Found::Nothing => {}
            Found::Damaged(reason) => {
                let kept = durable::set_aside(&path)?;
                notice = Some(format!(
                    "{} was damaged ({reason}): it is kept in {} and was written anew",
                    path.display(),
                    kept.display()
                ));
                tracing::warn!(%volume, "{}", notice.as_deref().unwrap_or_default());
            }
        }
        durable::write_json(&path, &ours)?;
        Ok(Owner { _lock: lock, notice })
    }

    /// What happened to the directory's label that somebody may want to know.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Refuses a directory that does not hold `volume`, which was there before: with its disk not
    /// mounted, an empty directory must not be taken for one whose files were all removed.
    pub fn recognize(backing: &Path, volume: VolumeId) -> Outcome<()> {
        let private = backing.join(PRIVATE_DIR);
        if private.is_dir() {
            let other = find(backing).label().filter(|label| label.volume != volume.to_string());
            return other.map_or(Ok(()), |other| {
                let dir = backing.display();
                let message = format!("{dir} holds another volume ({}) now", other.volume);
                Err(Failure::failed(message, "mount the right disk there, then `lockstep start`"))
            });
        }
        if private.symlink_metadata().is_ok() {
            let message = format!("{} is not a directory of Lockstep's own", private.display());
            return Err(Failure::failed(message, "move it away and put back what was there"));
        }
        let dir = backing.display();
        Err(Failure::failed(
            format!("{dir} does not hold the volume's files: its directory {PRIVATE_DIR} is gone"),
            format!(
                "if they are on a disk that is not mounted, mount it, then `lockstep start`; if \
                 what {dir} holds now is the volume, `mkdir {}` first",
                private.display()
            ),
        ))
    }

    /// Refuses a directory that another home has, without touching it.
    pub fn check(backing: &Path, home: &Home) -> Outcome<()> {
        let label = find(backing).label();
        let lock = File::open(backing.join(PRIVATE_DIR).join(LOCK));
        let busy =
            lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err());
        let theirs = label.as_ref().is_some_and(|l| l.home != home.dir() && l.is_current(backing));
        if busy || theirs { Err(taken(backing, label.as_ref(), busy)) } else { Ok(()) }
    }
}

impl Label {
    /// Whether that home still has the volume, in this very directory.
    fn is_current(&self, backing: &Path) -> bool {
        let (Ok(home), Some(id)) = (Home::locate(Some(&self.home)), volume_id(&self.volume)) else {
            return false;
        };
        matches!(VolumeRecord::load(&home, id), Ok(Some(record)) if record.backing == backing)
    }
}

impl Found {
    fn label(self) -> Option<Label> {
        match self {
            Found::Label(label) => Some(label),
            Found::Nothing | Found::Damaged(_) => None,
        }
    }
}

const LOCK: &str = "lock";

fn label_path(backing: &Path) -> PathBuf {
    backing.join(PRIVATE_DIR).join("owner")
}

fn make_private(backing: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(backing.join(PRIVATE_DIR)) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

fn open_lock(backing: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(backing.join(PRIVATE_DIR).join(LOCK))
}

fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn find(backing: &Path) -> Found {
    match read(&label_path(backing)) {
        Ok(label) => Found::Label(label),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Found::Nothing,
        Err(e) => Found::Damaged(e.to_string()),
    }
}

fn read(path: &Path) -> io::Result<Label> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut text = Vec::new();
    file.take(LABEL_MAX_BYTES).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn taken(backing: &Path, label: Option<&Label>, running: bool) -> Failure {
    let dir = backing.display();
    let whose =
        label.map_or_else(|| "another home".into(), |l| format!("the home {}", l.home.display()));
    let now = if running { ", whose daemon has it open" } else { "" };
    let hint = "share another directory, or use that home with --home";
    Failure::failed(format!("{dir} is already shared by {whose}{now}"), hint)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use lockstep_core::Slot;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let root = std::env::temp_dir().join(format!("lockstep-owner-{}", std::process::id()));
        let home = |name: &str| {
            let home = Home::locate(Some(&root.join(name))).unwrap();
            home.create().unwrap();
            home
        };
        let (ours, theirs) = (home("a"), home("b"));
        let backing = root.join("dir");
        std::fs::create_dir(&backing).unwrap();
        let id = VolumeId([3; 16]);

        assert_eq!(Owner::check(&backing, &ours), Ok(()));
        let owner = Owner::claim(&backing, &ours, id).unwrap();
        for refusal in [
            Owner::check(&backing, &theirs).unwrap_err(),
            Owner::claim(&backing, &theirs, id).unwrap_err(),
        ] {
            assert!(refusal.message().contains("has it open"), "{refusal}");
        }
        drop(owner);
        Owner::recognize(&backing, id).expect("it was claimed");
        let refusal = Owner::recognize(&backing, VolumeId([4; 16])).unwrap_err();
        assert!(refusal.message().contains("holds another volume"), "{refusal}");
        Owner::claim(&backing, &theirs, id).expect("a home without a record has no claim");

        std::fs::create_dir_all(theirs.volume(id)).unwrap();
        VolumeRecord::new(id, "n".into(), backing.clone(), Slot(1)).save(&theirs).unwrap();
        let refusal = Owner::check(&backing, &ours).unwrap_err();
        assert!(refusal.message().contains("already shared by the home"), "{refusal}");
        assert!(Owner::claim(&backing, &theirs, id).is_ok());
        std::fs::remove_dir_all(&root).unwrap();
    }

    /// Whoever looks while it is written sees a whole label, and so does a start after a power cut.
    #[test]
    fn a_label_is_never_seen_half_written() {
        let root = std::env::temp_dir().join(format!("lockstep-label-{}", std::process::id()));
        let home = Home::locate(Some(&root.join("home"))).unwrap();
        home.create().unwrap();
        let backing = root.join("dir");
        std::fs::create_dir(&backing).unwrap();
        drop(Owner::claim(&backing, &home, VolumeId([0; 16])).unwrap());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|threads| {
            let reader = threads.spawn(|| {
                let mut torn = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    torn += usize::from(!matches!(find(&backing), Found::Label(_)));
                }
                torn
            });
            for volume in 1..100 {
                drop(Owner::claim(&backing, &home, VolumeId([volume; 16])).unwrap());
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(reader.join().unwrap(), 0);
        });
        std::fs::remove_dir_all(&root).unwrap();
    }
}
