//! Which home a backing directory belongs to: `.lockstep/owner`, locked while a daemon has the
//! volume open. Two daemons on the same plain files would undo each other's work.

use super::record::{VolumeRecord, volume_id};
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use lockstep_core::VolumeId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Our own directory at the root of a backing directory; not part of the volume.
pub const PRIVATE_DIR: &str = ".lockstep";
const LABEL_MAX_BYTES: u64 = 64 * 1024;

/// Keeps other daemons off a backing directory while it lives.
#[derive(Debug)]
pub struct Owner {
    _file: File,
}

/// What `.lockstep/owner` says.
#[derive(Serialize, Deserialize)]
pub struct Label {
    home: PathBuf,
    volume: String,
}

impl Owner {
    /// Makes `backing` the directory of `volume` in `home`.
    pub fn claim(backing: &Path, home: &Home, volume: VolumeId) -> Outcome<Self> {
        let failed = |e: io::Error| {
            let hint = "see that you may write there and that the filesystem is not full";
            Failure::io("make a volume of", backing, &e, hint)
        };
        let mut file = open(backing).map_err(failed)?;
        if !lock(&file).map_err(failed)? {
            return Err(taken(backing, read(&mut file).as_ref(), true));
        }
        let label = read(&mut file);
        if label.as_ref().is_some_and(|l| l.home != home.dir() && l.is_current(backing)) {
            return Err(taken(backing, label.as_ref(), false));
        }
        let label = Label { home: home.dir().to_path_buf(), volume: volume.to_string() };
        write(&mut file, &label).map_err(failed)?;
        Ok(Owner { _file: file })
    }

    /// Refuses a directory that does not hold `volume`, which was there before: with its disk not
    /// mounted, an empty directory must not be taken for one whose files were all removed.
    pub fn recognize(backing: &Path, volume: VolumeId) -> Outcome<()> {
        let private = backing.join(PRIVATE_DIR);
        if private.is_dir() {
            let label = File::open(private.join("owner")).ok().and_then(|mut file| read(&mut file));
            let other = label.filter(|label| label.volume != volume.to_string());
            return other.map_or(Ok(()), |other| {
                let dir = backing.display();
                let message = format!("{dir} holds another volume ({}) now", other.volume);
                Err(Failure::failed(message, "mount the right disk there, then `lockstep start`"))
            });
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
        let Ok(mut file) = File::open(backing.join(PRIVATE_DIR).join("owner")) else {
            return Ok(());
        };
        let label = read(&mut file);
        let busy = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
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

fn open(backing: &Path) -> io::Result<File> {
    let dir = backing.join(PRIVATE_DIR);
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(dir.join("owner"))
}

fn lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn read(file: &mut File) -> Option<Label> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(LABEL_MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn write(file: &mut File, label: &Label) -> io::Result<()> {
    let text = serde_json::to_vec(label).map_err(io::Error::other)?;
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&text)?;
    file.sync_all()
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
}
