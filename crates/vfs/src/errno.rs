//! Why a filesystem call failed, as the caller will see it.

use lockstep_disk::StateError;
use std::io;

/// Result of a filesystem call.
pub type Result<T> = std::result::Result<T, Errno>;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $raw:literal, $kind:literal;)*) => {
        /// The errors this filesystem answers, with Linux's numbers (errno(3)).
        #[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
        pub enum Errno {
            $($(#[$doc])* #[error($kind)] $name,)*
            /// Any other error of the disk below.
            #[error("error {0} of the disk below")]
            Other(i32),
        }

        impl Errno {
            /// The positive errno number.
            pub fn raw(self) -> i32 {
                match self {
                    $(Errno::$name => $raw,)*
                    Errno::Other(raw) => raw,
                }
            }

            /// The error with this number.
            pub fn from_raw(raw: i32) -> Self {
                match raw {
                    $($raw => Errno::$name,)*
                    other => Errno::Other(other),
                }
            }
        }
    };
}

errnos! {
    /// `EPERM`.
    Perm = 1, "operation not permitted";
    /// `ENOENT`.
    NoEntry = 2, "no such file or directory";
    /// `EINTR`.
    Interrupted = 4, "interrupted";
    /// `EIO`.
    Io = 5, "input/output error";
    /// `ENXIO`.
    NoSuchOffset = 6, "no such offset";
    /// `EBADF`.
    BadHandle = 9, "bad file handle";
    /// `EAGAIN`.
    Again = 11, "try again";
    /// `ENOMEM`.
    NoMemory = 12, "out of memory";
    /// `EACCES`.
    Access = 13, "permission denied";
    /// `EBUSY`.
    Busy = 16, "busy";
    /// `EEXIST`.
    Exists = 17, "file exists";
    /// `EXDEV`.
    CrossDevice = 18, "cross-device link";
    /// `ENOTDIR`.
    NotDir = 20, "not a directory";
    /// `EISDIR`.
    IsDir = 21, "is a directory";
    /// `EINVAL`.
    Invalid = 22, "invalid argument";
    /// `ENFILE`.
    TooManyOpenInSystem = 23, "too many open files in system";
    /// `EMFILE`.
    TooManyOpen = 24, "too many open files";
    /// `ETXTBSY`.
    TextBusy = 26, "text file busy";
    /// `EFBIG`.
    TooBig = 27, "file too large";
    /// `ENOSPC`.
    NoSpace = 28, "no space left on device";
    /// `EROFS`.
    ReadOnly = 30, "read-only file system";
    /// `EMLINK`.
    TooManyLinks = 31, "too many links";
    /// `ERANGE`.
    Range = 34, "result out of range";
    /// `ENAMETOOLONG`.
    NameTooLong = 36, "file name too long";
    /// `ENOSYS`.
    NotImplemented = 38, "function not implemented";
    /// `ENOTEMPTY`.
    NotEmpty = 39, "directory not empty";
    /// `ELOOP`.
    Loop = 40, "too many levels of symbolic links";
    /// `ENODATA`.
    NoData = 61, "no data available";
    /// `EOPNOTSUPP`.
    NotSupported = 95, "operation not supported";
    /// `ETIMEDOUT`.
    TimedOut = 110, "timed out";
    /// `ESTALE`.
    Stale = 116, "stale file handle";
    /// `EDQUOT`.
    Quota = 122, "disk quota exceeded";
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(raw) => Errno::from_raw(raw),
            None => Errno::Io,
        }
    }
}

impl From<StateError> for Errno {
    fn from(error: StateError) -> Self {
        error.raw_os_error().map_or(Errno::Io, Errno::from_raw)
    }
}

impl From<lockstep_core::NameError> for Errno {
    fn from(error: lockstep_core::NameError) -> Self {
        match error {
            lockstep_core::NameError::TooLong => Errno::NameTooLong,
            lockstep_core::NameError::Empty => Errno::NoEntry,
            lockstep_core::NameError::Forbidden => Errno::Invalid,
        }
    }
}
