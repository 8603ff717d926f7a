//! May this directory be shared, and shown there? Every refusal names the directory, the reason and
//! the next step; nothing is created before all questions are answered.

use super::owner::{Owner, PRIVATE_DIR};
use super::undo::Undo;
use super::volumes::Volumes;
use crate::control::Place;
use crate::errors::{Failure, Outcome};
use crate::fuse::{self, MountKind};
use crate::home::Home;
use rustix::fs::Access;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// `ENOTCONN`: what a mount answers whose daemon is gone.
const STALE: i32 = libc::ENOTCONN;

/// Two directories that passed: where the plain files are, and where the volume is shown.
#[derive(Debug)]
pub struct Site {
    /// The backing directory, canonical.
    pub backing: PathBuf,
    /// The mount point, canonical; `None` for no mount.
    pub mount: Option<PathBuf>,
}

/// Chooses sites for one home.
pub struct Surveyor<'d> {
    /// The home that shares.
    pub home: &'d Home,
    /// What it shares already.
    pub volumes: &'d Volumes,
    /// Permission bits of directories made for the user.
    pub dir_mode: u32,
}

impl Surveyor<'_> {
    /// The site of a directory that exists.
    pub fn share(&self, dir: &Path, place: &Place, undo: &mut Undo) -> Outcome<Site> {
        if !reach(dir)? {
            return Err(Failure::failed(
                format!("cannot share {}: there is no such directory", dir.display()),
                format!("create it first: mkdir -p {}", dir.display()),
            ));
        }
        self.site(dir, place, undo)
    }

    /// The site of a directory that is made if it is missing.
    pub fn join(&self, dir: &Path, place: &Place, undo: &mut Undo) -> Outcome<Site> {
        if !reach(dir)? {
            self.make(dir, undo)?;
        }
        self.site(dir, place, undo)
    }

    fn site(&self, dir: &Path, place: &Place, undo: &mut Undo) -> Outcome<Site> {
        let backing = fs::canonicalize(dir).map_err(|e| Failure::io("use", dir, &e, ""))?;
        check_directory(&backing)?;
        self.check_apart(&backing)?;
        check_not_foreign(&backing)?;
        Owner::check(&backing, self.home)?;
        check_writable(&backing)?;
        let mount = match (&place.mount, place.no_mount) {
            (_, true) => None,
            (None, false) => Some(backing.clone()),
            (Some(mount), false) => Some(self.mount_point(mount, &backing, undo)?),
        };
        if mount.is_some() {
            check_fuse()?;
        }
        Ok(Site { backing, mount })
    }

    fn mount_point(&self, mount: &Path, backing: &Path, undo: &mut Undo) -> Outcome<PathBuf> {
        if !reach(mount)? {
            self.make(mount, undo)?;
        }
        let point = fs::canonicalize(mount).map_err(|e| Failure::io("use", mount, &e, ""))?;
        if point == backing {
            return Ok(point);
        }
        let refuse = |why: &str| {
            let message = format!("cannot mount at {}: {why}", point.display());
            Err(Failure::failed(message, "choose an empty directory of its own with --mount MNT"))
        };
        if !point.is_dir() {
            return refuse("it is not a directory");
        }
        if point.starts_with(backing) {
            return refuse("it is inside the directory whose plain files it would show");
        }
        if backing.starts_with(&point) {
            return refuse("it would hide the directory whose plain files it shows");
        }
        if let Some(there) = mounted_at(&point)? {
            return refuse(&format!("it is already the mount point of {}", describe(&there)));
        }
        self.check_apart(&point)?;
        match fs::read_dir(&point).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(point),
            Ok(false) => refuse("it is not empty, and the mount would hide what it holds"),
            Err(e) => refuse(&e.to_string()),
        }
    }

    /// Neither inside nor around anything of this home.
    fn check_apart(&self, dir: &Path) -> Outcome<()> {
        for other in self.volumes.all() {
            let record = other.record();
            for theirs in [Some(&record.backing), record.mount.as_ref()].into_iter().flatten() {
                let how = match (dir == theirs, dir.starts_with(theirs), theirs.starts_with(dir)) {
                    (true, ..) => "is already shared",
                    (_, true, _) => "is inside a shared directory",
                    (_, _, true) => "holds a shared directory",
                    _ => continue,
                };
                let message = format!(
                    "{} {how}: volume \"{}\" is at {}",
                    dir.display(),
                    record.name,
                    theirs.display()
                );
                let hint = format!(
                    "choose another directory, or invite to that one: lockstep invite {}",
                    record.name
                );
                return Err(Failure::failed(message, hint));
            }
        }
        for ours in self.home.dirs().map(|home| fs::canonicalize(home).unwrap_or(home.into())) {
            if ours.starts_with(dir) || dir.starts_with(&ours) {
                let message = format!(
                    "{} and the home {} overlap: keys and state must not be shared",
                    dir.display(),
                    ours.display()
                );
                return Err(Failure::failed(
                    message,
                    "share another directory, or move the home with --home DIR",
                ));
            }
        }
        Ok(())
    }

    /// Makes `dir` and what is missing above it.
    fn make(&self, dir: &Path, undo: &mut Undo) -> Outcome<()> {
        let missing: Vec<PathBuf> = dir
            .ancestors()
            .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
            .map(Path::to_path_buf)
            .collect();
        for step in missing.into_iter().rev() {
            // The daemon's own umask is for its own files.
            let mode = fs::Permissions::from_mode(self.dir_mode);
            let made = DirBuilder::new().mode(self.dir_mode).create(&step);
            made.and_then(|()| fs::set_permissions(&step, mode)).map_err(|e| {
                Failure::io(
                    "create the directory",
                    &step,
                    &e,
                    "create it yourself, or choose another",
                )
            })?;
            undo.push(move || drop(fs::remove_dir(step)));
        }
        Ok(())
    }
}

/// Takes back, if the command fails, the private directory that a first opening makes in `backing`.
pub fn forget_private_dir(backing: &Path, undo: &mut Undo) {
    let private = backing.join(PRIVATE_DIR);
    if !private.exists() {
        undo.push(move || drop(fs::remove_dir_all(private)));
    }
}

/// Whether `dir` exists, once what a crashed daemon left mounted there is cleared.
fn reach(dir: &Path) -> Outcome<bool> {
    match fs::metadata(dir) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) if e.raw_os_error() == Some(STALE) => {
            fuse::clear_stale(dir).map_err(|e| Failure::of_sentence(&e.to_string()))?;
            Ok(dir.exists())
        }
        Err(e) => Err(Failure::io("use", dir, &e, "choose a directory that you may reach")),
    }
}

fn check_directory(dir: &Path) -> Outcome<()> {
    if dir.to_str().is_none() {
        let message = format!("cannot share {}: its path is not UTF-8", dir.display());
        return Err(Failure::failed(message, "rename the directory (names inside it may be any)"));
    }
    if dir.is_dir() {
        return Ok(());
    }
    let message = format!("cannot share {}: it is not a directory", dir.display());
    Err(Failure::failed(message, "give the directory that holds it"))
}

fn check_writable(dir: &Path) -> Outcome<()> {
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::access(dir, access).map_err(|e| {
        let message = format!("cannot share {}: it is not writable ({e})", dir.display());
        let hint = format!("give yourself the right to write there (ls -ld {})", dir.display());
        Failure::failed(message, hint)
    })
}

/// Plain files must be plain: not what another program shows over FUSE or a network.
fn check_not_foreign(dir: &Path) -> Outcome<()> {
    let (reason, hint) = match mounted_at(dir)? {
        None => return Ok(()),
        Some(MountKind::Other { fstype, .. }) if !is_foreign(&fstype) => return Ok(()),
        Some(there @ MountKind::Other { .. }) => (
            format!("it is the mount point of something else, {}", describe(&there)),
            "unmount that, or share a directory on a local filesystem",
        ),
        Some(there @ MountKind::Lockstep { .. }) => (
            format!("it is already shared: {} is mounted there", describe(&there)),
            "use the home that serves it (--home DIR), or choose another directory",
        ),
    };
    Err(Failure::failed(format!("cannot share {}: {reason}", dir.display()), hint))
}

fn mounted_at(dir: &Path) -> Outcome<Option<MountKind>> {
    fuse::mount_at(dir)
        .map_err(|e| Failure::failed(format!("cannot list mounts: {e}"), "mount /proc"))
}

fn is_foreign(fstype: &str) -> bool {
    let network = ["nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "autofs"];
    let kernel = ["proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "tracefs"];
    let listed = network.contains(&fstype) || kernel.contains(&fstype);
    fstype == "fuse" || fstype.starts_with("fuse.") || listed
}

fn describe(there: &MountKind) -> String {
    match there {
        MountKind::Lockstep { volume } => format!("the Lockstep volume \"{volume}\""),
        MountKind::Other { fstype, source } => format!("{source} ({fstype})"),
    }
}

/// Asked before an invite is used up or anything is made.
pub fn check_fuse() -> Outcome<()> {
    let device = Path::new("/dev/fuse");
    let opened = fs::OpenOptions::new().read(true).write(true).open(device);
    opened.map(drop).map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::NotFound => {
                "load it with `modprobe fuse` (in a container: pass the device in)"
            }
            io::ErrorKind::PermissionDenied => "ask an administrator to run `chmod 666 /dev/fuse`",
            _ => "install fuse3 and load its module with `modprobe fuse`",
        };
        Failure::failed(format!("cannot mount: /dev/fuse cannot be opened: {e}"), hint)
            .advise("or use --no-mount to replicate the plain directory without a mount")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    struct Ground {
        root: PathBuf,
        home: Home,
        volumes: Volumes,
    }

    impl Ground {
        fn new(name: &str) -> Self {
            let root =
                std::env::temp_dir().join(format!("lockstep-site-{name}-{}", std::process::id()));
            for dir in ["home", "dir/inner", "mnt"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            let root = fs::canonicalize(root).unwrap();
            let home = Home::locate(Some(&root.join("home"))).unwrap();
            Ground { root, home, volumes: Volumes::default() }
        }

        fn share(&self, dir: &str, mount: Option<&str>) -> Outcome<Site> {
            let place = Place {
                mount: mount.map(|m| self.root.join(m)),
                no_mount: mount.is_none(),
                listen: None,
                ..Place::default()
            };
            let surveyor = Surveyor { home: &self.home, volumes: &self.volumes, dir_mode: 0o755 };
            surveyor.share(&self.root.join(dir), &place, &mut Undo::default())
        }

        fn refusal(&self, dir: &str, mount: Option<&str>) -> String {
            self.share(dir, mount).expect_err("a refusal").to_string()
        }
    }

    impl Drop for Ground {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }

    #[test]
    fn what_cannot_be_shared_is_refused_with_the_reason() {
        let ground = Ground::new("dir");
        fs::write(ground.root.join("file"), "").unwrap();
        assert!(ground.share("dir", None).is_ok());
        assert!(ground.refusal("none", None).contains("mkdir -p"));
        assert!(ground.refusal("file", None).contains("not a directory"));
        assert!(ground.refusal("home", None).contains("keys and state"));
        assert!(ground.refusal("", None).contains("keys and state"));
    }

    #[test]
    fn a_mount_point_must_be_an_empty_directory_of_its_own() {
        let ground = Ground::new("mnt");
        if check_fuse().is_err() {
            return;
        }
        fs::write(ground.root.join("mnt/x"), "").unwrap();
        assert!(ground.refusal("dir", Some("mnt")).contains("not empty"));
        assert!(ground.refusal("dir", Some("dir/inner")).contains("inside the directory"));
        assert!(ground.refusal("dir/inner", Some("dir")).contains("would hide the directory"));
        assert!(ground.refusal("dir", Some("/proc")).contains("already the mount point"));
        let over_itself = ground.share("dir", Some("dir")).unwrap();
        assert_eq!(over_itself.mount, Some(over_itself.backing));
        assert!(ground.share("dir", Some("new/deep")).is_ok());
        assert!(!ground.root.join("new").exists(), "taken back with the undo");
    }

    #[test]
    fn foreign_filesystems_are_told_from_local_ones() {
        for foreign in ["fuse", "fuse.sshfs", "fuse.lockstep", "nfs4", "cifs", "devtmpfs", "proc"] {
            assert!(is_foreign(foreign), "{foreign}");
        }
        for local in ["ext4", "tmpfs", "xfs", "btrfs", "overlay", "fuseblk"] {
            assert!(!is_foreign(local), "{local}");
        }
    }
}
