//! What is mounted where, read from `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).

use super::options::{FSNAME_PREFIX, SUBTYPE};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// What a directory is the mount point of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MountKind {
    /// One of ours, alive or not.
    Lockstep {
        /// The volume's name.
        volume: String,
    },
    /// Anything else.
    Other {
        /// Filesystem type, such as `ext4`.
        fstype: String,
        /// What is mounted, such as `/dev/sda1`.
        source: String,
    },
}

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Where.
    pub mountpoint: PathBuf,
    /// What.
    pub kind: MountKind,
    /// The filesystem's device number, `major:minor`.
    pub device: String,
}

/// What is mounted at `path`, the topmost if several; `path` must be absolute and without
/// symbolic links.
pub fn mount_at(path: &Path) -> io::Result<Option<MountKind>> {
    Ok(top_mount(path)?.map(|mount| mount.kind))
}

/// The topmost mount at `path`.
pub fn top_mount(path: &Path) -> io::Result<Option<Mount>> {
    let mounts = std::fs::read(MOUNTINFO)?;
    Ok(parse(&mounts).filter(|mount| mount.mountpoint == path).last())
}

/// The mounts in the order in which they were made; lines that make no sense are skipped.
pub fn parse(mountinfo: &[u8]) -> impl Iterator<Item = Mount> {
    mountinfo.split(|b| *b == b'\n').filter_map(parse_line)
}

/// `36 35 98:0 /root /mnt rw,noatime shared:1 - fuse.lockstep lockstep:v rw`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let device = fields.nth(2)?;
    let mountpoint = fields.nth(1)?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (fstype, source) = (text(rest.next()?), text(rest.next()?));
    Some(Mount {
        mountpoint: PathBuf::from(OsString::from_vec(unescape(mountpoint))),
        kind: kind(fstype, source),
        device: text(device),
    })
}

fn kind(fstype: String, source: String) -> MountKind {
    let ours = fstype.strip_prefix("fuse.") == Some(SUBTYPE);
    match source.strip_prefix(FSNAME_PREFIX) {
        Some(volume) if ours => MountKind::Lockstep { volume: volume.to_owned() },
        _ => MountKind::Other { fstype, source },
    }
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'\\').then(|| tail.get(..3).and_then(octal)).flatten();
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |n, digit| match digit {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = b"\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
40 21 0:51 / /home/u/my\\040repo rw,nosuid shared:9 master:2 - fuse.lockstep lockstep:my\\040vol rw,user_id=0\n\
41 21 0:52 / /mnt/a\\134b rw - tmpfs none rw\n\
garbage\n\
42 40 0:53 / /home/u/my\\040repo rw - fuse.sshfs host:/x rw\n";

    #[test]
    fn mounts_are_read_with_their_escapes_undone() {
        let mounts: Vec<_> = parse(SAMPLE).collect();
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts[1].mountpoint, Path::new("/home/u/my repo"));
        assert_eq!(mounts[1].kind, MountKind::Lockstep { volume: "my vol".into() });
        assert_eq!(mounts[1].device, "0:51");
        assert_eq!(mounts[2].mountpoint, Path::new("/mnt/a\\b"));
    }

    #[test]
    fn the_topmost_of_stacked_mounts_counts() {
        let top = parse(SAMPLE).filter(|m| m.mountpoint == Path::new("/home/u/my repo")).last();
        let (fstype, source) = ("fuse.sshfs".into(), "host:/x".into());
        assert_eq!(top.map(|m| m.kind), Some(MountKind::Other { fstype, source }));
    }

    #[test]
    fn only_both_type_and_source_make_a_mount_ours() {
        for (fstype, source) in [("fuse.other", "lockstep:v"), ("fuse.lockstep", "v")] {
            assert!(matches!(kind(fstype.into(), source.into()), MountKind::Other { .. }));
        }
    }

    #[test]
    fn a_backslash_without_octal_digits_stays() {
        assert_eq!(unescape(b"a\\9zz\\04"), b"a\\9zz\\04");
        assert_eq!(unescape(b"\\777"), b"\\777");
        assert_eq!(unescape(b"\\040\\"), b" \\");
    }

    #[test]
    fn the_root_of_this_machine_is_mounted() {
        assert!(mount_at(Path::new("/proc")).unwrap().is_some());
        assert_eq!(mount_at(Path::new("/no/such/mount")).unwrap(), None);
    }
}
