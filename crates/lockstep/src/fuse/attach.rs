//! Attaching `/dev/fuse` to a directory and detaching it: `mount(2)` where that is allowed,
//! `fusermount3` otherwise.
//!
//! Not left to fuser: it mounts without a subtype, so that our mounts could not be told from
//! others, and unmounts by path once more when a session has ended, which may hit what was mounted
//! there since.

use super::mount_error::MountError;
use super::options::{MountOptions, SUBTYPE};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";
/// Where `fusermount3` finds the number of the socket to send the device's descriptor through.
const HELPER_SOCKET: &str = "_FUSE_COMMFD";
/// Options that are flags of `mount(2)` and not words for the filesystem.
const FLAG_WORDS: [&str; 2] = ["nosuid", "nodev"];
/// The root is a directory.
const ROOT_MODE: &str = "40000";

/// How a mount was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detached {
    /// Nothing used it any more.
    Now,
    /// It is out of sight and ends with its last user.
    WhenUnused,
}

/// Mounts at `path` and returns the kernel's end.
pub fn attach(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = open_device()?;
    match mount_directly(path, options, &device) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => mount_by_helper(path, options),
        Err(error) => Err(MountError::Refused { path: path.to_owned(), source: error.into() }),
    }
}

fn open_device() -> Result<OwnedFd, MountError> {
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(device) => Ok(device.into()),
        // ENODEV: the node is there, the module is not.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MountError::NoDevice),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(MountError::NoDevice),
        Err(source) => Err(MountError::DeviceDenied { source }),
    }
}

fn mount_directly(path: &Path, options: &MountOptions, device: &OwnedFd) -> Result<(), Errno> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut words = format!(
        "fd={},rootmode={ROOT_MODE},user_id={},group_id={}",
        device.as_raw_fd(),
        uid.as_raw(),
        gid.as_raw()
    );
    for word in options.options.iter().filter(|word| !FLAG_WORDS.contains(&word.as_str())) {
        words.push(',');
        words.push_str(word);
    }
    let words = CString::new(words).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let fstype = format!("fuse.{SUBTYPE}");
    rustix::mount::mount(options.fsname.as_str(), path, fstype, flags, Some(words.as_c_str()))
}

fn mount_by_helper(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let refused = |reason: String| MountError::HelperRefused { path: path.to_owned(), reason };
    let system = |error: Errno| refused(io::Error::from(error).to_string());
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(system)?;
    // The socket goes as standard input: the one descriptor number a child is sure to have.
    let child = Command::new(HELPER)
        .env(HELPER_SOCKET, "0")
        .args(["-o", &helper_options(options), "--"])
        .arg(path)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => MountError::NoHelper,
            _ => refused(error.to_string()),
        })?;
    let device = receive_descriptor(&ours).map_err(system)?;
    let output = child.wait_with_output().map_err(|error| refused(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    device.ok_or_else(|| refused(if said.is_empty() { "it gave no reason".into() } else { said }))
}

fn helper_options(options: &MountOptions) -> String {
    let mut words = vec![format!("fsname={}", options.fsname), format!("subtype={SUBTYPE}")];
    words.extend(options.options.iter().cloned());
    words.join(",")
}

/// The descriptor the helper sends, or `None` if it ended without one.
fn receive_descriptor(socket: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let mut byte = [0u8];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        let parts = &mut [IoSliceMut::new(&mut byte)];
        rustix::net::recvmsg(socket, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(descriptors.next())
}

/// Removes the mount at `path`; if something still uses it, hides it until that has ended.
pub fn detach(path: &Path) -> Result<Detached, MountError> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(Detached::Now),
        Err(Errno::BUSY) => detach_lazily(path),
        Err(Errno::PERM) => match helper_unmount(path, &["-u"]) {
            Ok(()) => Ok(Detached::Now),
            Err(_) => detach_lazily(path),
        },
        Err(error) => Err(stuck(path, io::Error::from(error).to_string())),
    }
}

/// Takes the mount at `path` out of sight at once, used or not, alive or not.
pub fn detach_lazily(path: &Path) -> Result<Detached, MountError> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
        Ok(()) => Ok(Detached::WhenUnused),
        Err(Errno::PERM) => helper_unmount(path, &["-u", "-z"]).map(|()| Detached::WhenUnused),
        Err(error) => Err(stuck(path, io::Error::from(error).to_string())),
    }
}

/// Ends the dead mount at `path`: calls still waiting in it fail now, and nothing can be left that
/// waits for its daemon.
pub fn detach_dead(path: &Path) -> Result<Detached, MountError> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::FORCE) {
        Ok(()) => Ok(Detached::Now),
        Err(_) => detach_lazily(path),
    }
}

fn helper_unmount(path: &Path, arguments: &[&str]) -> Result<(), MountError> {
    let output = Command::new(HELPER).args(arguments).arg("--").arg(path).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(stuck(path, String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MountError::NoHelper),
        Err(error) => Err(stuck(path, error.to_string())),
    }
}

fn stuck(path: &Path, reason: String) -> MountError {
    MountError::Stuck { path: path.to_owned(), reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::options::{Platform, mount_options};
    use super::*;

    #[test]
    fn the_helper_is_told_what_tells_our_mounts_from_others() {
        let platform = Platform::LinuxUser { allow_other: false };
        let words = helper_options(&mount_options(platform, "repo", 2));
        assert_eq!(words, "fsname=lockstep:repo,subtype=lockstep,nosuid,nodev,default_permissions");
    }

    #[test]
    fn a_helper_that_ends_without_a_descriptor_is_noticed() {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        drop(theirs);
        assert!(receive_descriptor(&ours).unwrap().is_none());
    }
}
