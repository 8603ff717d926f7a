//! Cutting a background daemon loose from the command that starts it.
//!
//! The only unsafe code of the daemon: what happens between fork and exec.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the child of `command` the leader of its own session, without terminal, and closes every
/// descriptor above standard error that it would inherit: a script that reads `$(lockstep share …)`
/// or a `make` that counts job slots must not wait for the daemon's end.
pub fn detach(command: &mut Command) {
    let cut_loose = || {
        rustix::process::setsid()?;
        // SAFETY: a system call on numbers; marking descriptors close-on-exec closes none of those
        // that other code of this process still uses before the exec.
        let marked =
            unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        // Kernels before 5.11 lack it; the daemon then merely inherits what the command had open.
        let _ = marked;
        Ok(())
    };
    // SAFETY: the closure runs in the child after fork and makes two system calls; it neither
    // allocates nor takes a lock (signal-safety(7)).
    unsafe { command.pre_exec(cut_loose) };
}
