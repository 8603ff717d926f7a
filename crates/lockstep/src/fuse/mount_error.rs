//! Why a mount could not be made or removed: the thing, the reason, the next step.

use super::mountinfo::MountKind;
use std::io;
use std::path::PathBuf;

/// A mount that failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Nothing at the mount point.
    #[error("mount point {} does not exist; create it with `mkdir -p {}`", path.display(), path.display())]
    Missing {
        /// The mount point.
        path: PathBuf,
    },
    /// Something, but no directory.
    #[error("mount point {} is not a directory; name a directory", path.display())]
    NotADirectory {
        /// The mount point.
        path: PathBuf,
    },
    /// The mount point cannot be looked at.
    #[error("cannot reach mount point {}: {source}; check the permissions of its directories", path.display())]
    Unreachable {
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another filesystem is there already.
    #[error("{} is already the mount point of {}; unmount it first with `{}`, or name another directory", path.display(), occupant(by), remedy(by, path))]
    Occupied {
        /// The mount point.
        path: PathBuf,
        /// What is mounted there.
        by: MountKind,
    },
    /// The kernel has no FUSE.
    #[error(
        "/dev/fuse does not exist: this kernel has no FUSE loaded; run `modprobe fuse` as root, and in a container pass the device in (`--device /dev/fuse`)"
    )]
    NoDevice,
    /// The device may not be opened.
    #[error(
        "/dev/fuse may not be opened: {source}; ask for read and write permission on it (often: join the group that owns it), and in a container pass the device in with `--cap-add SYS_ADMIN`"
    )]
    DeviceDenied {
        /// What the system said.
        source: io::Error,
    },
    /// Mounting needs a helper that is not installed.
    #[error(
        "fusermount3 is not installed, and only root can mount without it; install the package fuse3 (`apt install fuse3`)"
    )]
    NoHelper,
    /// The helper refused.
    #[error("fusermount3 refused to mount {}: {reason}; follow its advice, or mount as root", path.display())]
    HelperRefused {
        /// The mount point.
        path: PathBuf,
        /// What it wrote.
        reason: String,
    },
    /// The kernel refused.
    #[error("the kernel refused to mount {}: {source}; see `dmesg` for its reason", path.display())]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The mount was made, but the kernel's first request could not be answered.
    #[error("the kernel and Lockstep did not agree on how to serve {}: {source}; update the kernel, or report its version (`uname -r`)", path.display())]
    Handshake {
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A mount could not be removed.
    #[error("cannot unmount {}: {reason}; try `fusermount3 -u -z {}`", path.display(), path.display())]
    Stuck {
        /// The mount point.
        path: PathBuf,
        /// What the system or the helper said.
        reason: String,
    },
    /// The list of mounts cannot be read.
    #[error("cannot read /proc/self/mountinfo: {source}; mount /proc")]
    NoMountinfo {
        /// What the system said.
        source: io::Error,
    },
}

fn occupant(by: &MountKind) -> String {
    match by {
        MountKind::Lockstep { volume } => format!("the Lockstep volume '{volume}'"),
        MountKind::Other { fstype, source } => format!("{source} ({fstype})"),
    }
}

fn remedy(by: &MountKind, path: &std::path::Path) -> String {
    match by {
        MountKind::Lockstep { volume } => format!("lockstep unmount {volume}"),
        MountKind::Other { .. } => format!("umount {}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_occupied_mount_point_names_its_occupant_and_the_way_out() {
        let path = PathBuf::from("/mnt/x");
        let by = MountKind::Lockstep { volume: "repo".into() };
        let text = MountError::Occupied { path, by }.to_string();
        assert!(text.contains("/mnt/x") && text.contains("'repo'"), "{text}");
        assert!(text.contains("`lockstep unmount repo`"), "{text}");
    }
}
