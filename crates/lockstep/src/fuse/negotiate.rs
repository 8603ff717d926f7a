//! What is asked of the kernel when a mount begins, as a pure function of what it offers.

use fuser::{InitFlags, KernelConfig};
use std::time::Duration;

/// Largest write in one request.
pub const WRITE_MAX_BYTES: u32 = 1024 * 1024;
/// Most requests (readahead, asynchronous reads) the kernel keeps in flight by itself.
pub const BACKGROUND_MAX: u16 = 64;
/// File times are kept to the nanosecond.
const TIME_GRANULARITY: Duration = Duration::from_nanos(1);

/// With files passed to the kernel, how many filesystems may lie on each other: files below are on a
/// real disk, and an overlay may be put on the mount.
const STACK_DEPTH: u32 = 1;

/// What we want, each with its reason.
///
/// - `ASYNC_READ`, `ASYNC_DIO`, `BIG_WRITES`, `MAX_PAGES`: large requests, several at a time.
/// - `ATOMIC_O_TRUNC`: an open that truncates is one call, not an open and then a truncation that
///   another peer's write can come between.
/// - `DO_READDIRPLUS` without `READDIRPLUS_AUTO`: attributes come from memory, so sending them
///   with the names costs next to nothing, and git, `find`, `ls -l` and every build tool ask for
///   them next. With cached listings the kernel asks once per directory, which gives the adaptive
///   mode nothing to learn from.
/// - `PARALLEL_DIROPS`: lookups in one directory do not queue behind each other.
/// - `HANDLE_KILLPRIV_V2`: the volume takes setuid bits off on writes. Otherwise the kernel asks
///   for `security.capability` before every single write.
/// - `CACHE_SYMLINKS`, `EXPLICIT_INVAL_DATA`: caches last until we say otherwise, and we do;
///   `AUTO_INVAL_DATA` would ask for attributes at every read to find out.
/// - `DIRECT_IO_ALLOW_MMAP`: a file whose content is still on its way is opened for direct reads,
///   and can be mapped all the same.
/// - `ABORT_ERROR` is not asked for: a vanished mount then reads as `ENODEV`, which ends the loops.
///
/// Left out on purpose: `WRITEBACK_CACHE` (takes times and size away from us), `POSIX_LOCKS` and
/// `FLOCK_LOCKS` (locks are local to the machine), `POSIX_ACL`, `DONT_MASK`, `EXPORT_SUPPORT`.
const WANTED: [InitFlags; 11] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

/// The capabilities to ask for: those wanted that the kernel offers.
pub fn capabilities(offered: InitFlags) -> InitFlags {
    WANTED.into_iter().filter(|wanted| offered.contains(*wanted)).collect()
}

/// Fills in the answer to the kernel's first request. Whether files can be passed to the kernel, if
/// `passthrough` asks for that.
pub fn configure(config: &mut KernelConfig, passthrough: bool) -> bool {
    let wanted = capabilities(config.capabilities());
    let asked = config.add_capabilities(wanted).map_err(|bits| ("capabilities", bits.bits()));
    let limits = [
        config.set_max_write(WRITE_MAX_BYTES).map(drop).map_err(|n| ("max_write", n.into())),
        config.set_max_background(BACKGROUND_MAX).map(drop).map_err(|n| ("background", n.into())),
        config
            .set_time_granularity(TIME_GRANULARITY)
            .map(drop)
            .map_err(|nearest| ("time granularity", nearest.as_nanos() as u64)),
    ];
    for (what, nearest) in limits.into_iter().chain([asked]).filter_map(Result::err) {
        tracing::warn!(what, nearest, "the kernel does not take a wanted setting");
    }
    let passes = passthrough
        && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
        && config.set_max_stack_depth(STACK_DEPTH).is_ok();
    tracing::debug!(abi = ?config.kernel_abi(), ?wanted, passes, "negotiated with the kernel");
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_offered_and_never_what_would_break_us() {
        let all = capabilities(InitFlags::all());
        assert!(!all.intersects(
            InitFlags::FUSE_WRITEBACK_CACHE
                | InitFlags::FUSE_AUTO_INVAL_DATA
                | InitFlags::FUSE_READDIRPLUS_AUTO
                | InitFlags::FUSE_POSIX_LOCKS
                | InitFlags::FUSE_FLOCK_LOCKS
                | InitFlags::FUSE_POSIX_ACL
                | InitFlags::FUSE_DONT_MASK
        ));
        assert!(all.contains(InitFlags::FUSE_EXPLICIT_INVAL_DATA | InitFlags::FUSE_DO_READDIRPLUS));
        assert_eq!(capabilities(InitFlags::empty()), InitFlags::empty());
        let old = InitFlags::FUSE_ASYNC_READ | InitFlags::FUSE_WRITEBACK_CACHE;
        assert_eq!(capabilities(old), InitFlags::FUSE_ASYNC_READ);
    }
}
