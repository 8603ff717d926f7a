//! The control socket's address, however deep the home lies.
//!
//! A Unix socket's path holds 107 bytes. A longer one is reached through the home's own
//! descriptor, `/proc/self/fd/N/control.sock`: the same socket file, a short name, nothing to
//! record and nothing to clean up elsewhere.

use crate::home::Home;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Longest path in a `sockaddr_un` (108 bytes with the final NUL, unix(7)).
const PATH_MAX_BYTES: usize = 107;

/// A path short enough to bind or connect, valid while this value lives.
pub struct SocketAddress {
    path: PathBuf,
    _home: Option<OwnedFd>,
}

impl SocketAddress {
    /// The address of `home`'s control socket.
    pub fn of(home: &Home) -> io::Result<Self> {
        Self::short(&home.socket())
    }

    fn short(socket: &Path) -> io::Result<Self> {
        if socket.as_os_str().len() <= PATH_MAX_BYTES {
            return Ok(SocketAddress { path: socket.to_path_buf(), _home: None });
        }
        let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let home = rustix::fs::open(dir, flags, Mode::empty())?;
        let path = Path::new("/proc/self/fd").join(home.as_raw_fd().to_string()).join(name);
        Ok(SocketAddress { path, _home: Some(home) })
    }

    /// The path to hand to `bind` or `connect`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_home_deeper_than_a_socket_path_still_has_a_socket() {
        let root = std::env::temp_dir().join(format!("lockstep-deep-{}", std::process::id()));
        let deep = root.join("d".repeat(200));
        std::fs::create_dir_all(&deep).unwrap();
        let socket = deep.join("control.sock");

        let bound = SocketAddress::short(&socket).unwrap();
        let listener = UnixListener::bind(bound.path()).unwrap();
        let called = SocketAddress::short(&socket).unwrap();
        let caller = UnixStream::connect(called.path());
        let met = caller.is_ok() && listener.accept().is_ok();
        let there = socket.exists();
        std::fs::remove_dir_all(&root).unwrap();
        assert!(met && there);
    }
}
