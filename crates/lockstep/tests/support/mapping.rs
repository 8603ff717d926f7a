//! A file mapped into memory.

use std::fs::File;
use std::os::fd::AsRawFd;

/// A writable mapping of a whole file.
pub struct Mapping {
    start: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes of `file`, shared with everyone (`MAP_SHARED`) or private.
    pub fn new(file: &File, len: usize, shared: bool) -> std::io::Result<Mapping> {
        let flags = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address the kernel picks; it aliases no Rust memory.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, flags, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Mapping { start, len })
    }

    /// Copies `bytes` into the mapping at `offset`.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        // SAFETY: in bounds by the assertion; the mapping is writable and lives as long as self.
        unsafe {
            let to = self.start.cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// A copy of the mapping's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: readable for `len` bytes as long as self lives; the copy ends the borrow.
        unsafe { std::slice::from_raw_parts(self.start.cast::<u8>(), self.len) }.to_vec()
    }

    /// Writes the mapping back and waits for it (`MS_SYNC`).
    pub fn flush(&self) -> std::io::Result<()> {
        // SAFETY: exactly the range that was mapped.
        match unsafe { libc::msync(self.start, self.len, libc::MS_SYNC) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped; nothing refers to it any more.
        unsafe { libc::munmap(self.start, self.len) };
    }
}
