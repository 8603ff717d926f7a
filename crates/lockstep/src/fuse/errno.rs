//! The one table from the volume's errors to the kernel's. Without a wildcard: a new error of the
//! volume does not compile until it has its number here.

use fuser::Errno as Reply;
use lockstep_vfs::Errno;

/// What the kernel is told.
pub fn errno(error: Errno) -> Reply {
    match error {
        Errno::Perm => Reply::EPERM,
        Errno::NoEntry => Reply::ENOENT,
        Errno::Interrupted => Reply::EINTR,
        Errno::Io => Reply::EIO,
        Errno::NoSuchOffset => Reply::ENXIO,
        Errno::BadHandle => Reply::EBADF,
        Errno::Again => Reply::EAGAIN,
        Errno::NoMemory => Reply::ENOMEM,
        Errno::Access => Reply::EACCES,
        Errno::Busy => Reply::EBUSY,
        Errno::Exists => Reply::EEXIST,
        Errno::CrossDevice => Reply::EXDEV,
        Errno::NotDir => Reply::ENOTDIR,
        Errno::IsDir => Reply::EISDIR,
        Errno::Invalid => Reply::EINVAL,
        Errno::TooManyOpenInSystem => Reply::ENFILE,
        Errno::TooManyOpen => Reply::EMFILE,
        Errno::TextBusy => Reply::ETXTBSY,
        Errno::TooBig => Reply::EFBIG,
        Errno::NoSpace => Reply::ENOSPC,
        Errno::ReadOnly => Reply::EROFS,
        Errno::TooManyLinks => Reply::EMLINK,
        Errno::Range => Reply::ERANGE,
        Errno::NameTooLong => Reply::ENAMETOOLONG,
        Errno::NotImplemented => Reply::ENOSYS,
        Errno::NotEmpty => Reply::ENOTEMPTY,
        Errno::Loop => Reply::ELOOP,
        Errno::NoData => Reply::ENODATA,
        Errno::NotSupported => Reply::EOPNOTSUPP,
        Errno::TimedOut => Reply::ETIMEDOUT,
        Errno::Stale => Reply::ESTALE,
        Errno::Quota => Reply::EDQUOT,
        Errno::Other(raw) => Reply::from_i32(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Larger than any errno of Linux.
    const RAW_END: i32 = 200;

    #[test]
    fn every_error_keeps_its_number() {
        for raw in 1..RAW_END {
            assert_eq!(errno(Errno::from_raw(raw)).code(), raw);
        }
    }

    #[test]
    fn a_number_that_is_none_becomes_eio() {
        assert_eq!(errno(Errno::Other(0)), Reply::EIO);
    }
}
