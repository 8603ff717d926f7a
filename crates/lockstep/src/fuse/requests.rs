//! Counts of kernel requests by kind: what `status` shows and what tests assert on
//! ("`git status` on the other peer read no file").

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! request_kinds {
    ($($variant:ident $name:literal)*) => {
        /// A kind of kernel request, named as in `fuse(4)`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum RequestKind {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        /// The kinds' names, in the order of the enum.
        const NAMES: &[&str] = &[$($name),*];
    };
}

request_kinds! {
    Lookup "lookup"
    Forget "forget"
    Getattr "getattr"
    Setattr "setattr"
    Readlink "readlink"
    Mknod "mknod"
    Mkdir "mkdir"
    Symlink "symlink"
    Link "link"
    Unlink "unlink"
    Rmdir "rmdir"
    Rename "rename"
    Create "create"
    Open "open"
    Read "read"
    Write "write"
    Flush "flush"
    Release "release"
    Fsync "fsync"
    Opendir "opendir"
    Readdir "readdir"
    Readdirplus "readdirplus"
    Releasedir "releasedir"
    Fsyncdir "fsyncdir"
    Statfs "statfs"
    Setxattr "setxattr"
    Getxattr "getxattr"
    Listxattr "listxattr"
    Removexattr "removexattr"
    Fallocate "fallocate"
    Lseek "lseek"
    CopyFileRange "copy_file_range"
    Ioctl "ioctl"
}

const KINDS: usize = NAMES.len();

/// One mount's counters.
#[derive(Debug)]
pub struct Requests([AtomicU64; KINDS]);

impl Default for Requests {
    fn default() -> Self {
        Requests([const { AtomicU64::new(0) }; KINDS])
    }
}

impl Requests {
    /// Counts one request.
    pub fn count(&self, kind: RequestKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Every kind with its count since the mount began, in a fixed order.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        NAMES.iter().zip(&self.0).map(|(name, n)| (*name, n.load(Ordering::Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_under_its_own_name() {
        let requests = Requests::default();
        requests.count(RequestKind::Read);
        requests.count(RequestKind::Read);
        requests.count(RequestKind::Ioctl);
        let seen: Vec<_> = requests.snapshot().into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(seen, [("read", 2), ("ioctl", 1)]);
    }
}
