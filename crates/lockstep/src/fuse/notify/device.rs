//! The three notifications written to `/dev/fuse` (`fuse(4)`, `include/uapi/linux/fuse.h`).
//!
//! They are written here and not through fuser's notifier because two answers matter that it does
//! not give: whether the kernel knew the inode, and the epoch, for which it has no call.

use lockstep_core::NodeId;
use rustix::io::Errno;
use std::io::IoSlice;
use std::os::fd::OwnedFd;

/// What became of an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel had it cached and has dropped it.
    Dropped,
    /// The kernel had nothing of the kind.
    Unknown,
    /// The mount is gone, or the kernel is too old for this notification.
    Refused,
}

/// Where notifications go: the kernel, or a test's notebook.
pub trait Device: Send + Sync {
    /// Drops the attributes of `node`, and its cached pages too if `pages`. With pages it waits
    /// for reads of the node that are being answered.
    fn inval_node(&self, node: NodeId, pages: bool) -> Outcome;
    /// Drops `name` in `parent`, found or not. Waits for calls that hold the directory's lock.
    fn inval_entry(&self, parent: NodeId, name: &[u8]) -> Outcome;
    /// Has every cached name looked up again at its next use (Linux 6.16). Waits for nothing.
    fn bump_epoch(&self) -> Outcome;
}

const FUSE_NOTIFY_INVAL_INODE: i32 = 2;
const FUSE_NOTIFY_INVAL_ENTRY: i32 = 3;
const FUSE_NOTIFY_INC_EPOCH: i32 = 8;
const HEADER_BYTES: usize = 16;

/// The kernel behind a duplicate of the session's `/dev/fuse` descriptor.
pub struct FuseDevice(OwnedFd);

impl FuseDevice {
    /// Writes to `fd`, which must belong to a mounted session.
    pub fn new(fd: OwnedFd) -> Self {
        FuseDevice(fd)
    }

    fn notify(&self, code: i32, body: &[&[u8]]) -> Outcome {
        let len = HEADER_BYTES + body.iter().map(|part| part.len()).sum::<usize>();
        let header = header(code, len as u32);
        let mut parts = vec![IoSlice::new(&header)];
        parts.extend(body.iter().map(|part| IoSlice::new(part)));
        match rustix::io::retry_on_intr(|| rustix::io::writev(&self.0, &parts)) {
            Ok(_) => Outcome::Dropped,
            Err(Errno::NOENT) => Outcome::Unknown,
            Err(error) => {
                tracing::debug!(code, %error, "the kernel refused a notification");
                Outcome::Refused
            }
        }
    }
}

/// `struct fuse_out_header` of a notification: its code stands where an error would, and the
/// request it answers is none.
fn header(code: i32, len: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..8].copy_from_slice(&code.to_ne_bytes());
    bytes
}

impl Device for FuseDevice {
    fn inval_node(&self, node: NodeId, pages: bool) -> Outcome {
        // A negative offset means: attributes only; length 0 means: to the end.
        let offset: i64 = if pages { 0 } else { -1 };
        let body = [node.0.to_ne_bytes(), offset.to_ne_bytes(), 0i64.to_ne_bytes()].concat();
        self.notify(FUSE_NOTIFY_INVAL_INODE, &[&body])
    }

    fn inval_entry(&self, parent: NodeId, name: &[u8]) -> Outcome {
        let flags = 0u32;
        let lengths = [(name.len() as u32).to_ne_bytes(), flags.to_ne_bytes()].concat();
        let parent = parent.0.to_ne_bytes();
        self.notify(FUSE_NOTIFY_INVAL_ENTRY, &[&parent, &lengths, name, b"\0"])
    }

    fn bump_epoch(&self) -> Outcome {
        self.notify(FUSE_NOTIFY_INC_EPOCH, &[])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn written(call: impl FnOnce(&FuseDevice) -> Outcome) -> Vec<u8> {
        let (ours, mut kernel) = UnixStream::pair().unwrap();
        let device = FuseDevice::new(ours.into());
        assert_eq!(call(&device), Outcome::Dropped);
        drop(device);
        let mut bytes = Vec::new();
        kernel.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn notifications_have_the_kernels_layout() {
        let entry = written(|d| d.inval_entry(NodeId(7), b"ab"));
        assert_eq!(entry.len(), 16 + 16 + 3);
        assert_eq!(entry[..4], 35u32.to_ne_bytes());
        assert_eq!(entry[4..8], 3i32.to_ne_bytes());
        assert_eq!(entry[16..24], 7u64.to_ne_bytes());
        assert_eq!(entry[24..28], 2u32.to_ne_bytes());
        assert_eq!(&entry[32..], b"ab\0");

        let attributes = written(|d| d.inval_node(NodeId(7), false));
        assert_eq!(attributes.len(), 40);
        assert_eq!(attributes[24..32], (-1i64).to_ne_bytes());

        let epoch = written(FuseDevice::bump_epoch);
        assert_eq!(epoch.len(), 16);
        assert_eq!(epoch[4..8], 8i32.to_ne_bytes());
    }
}
