//! Files below that the kernel reads and writes by itself (FUSE passthrough). All handles of a file
//! have to name the same registered file.

use fuser::{BackingId, INodeNo};
use lockstep_disk::DiskFile;
use lockstep_vfs::{Fh, Opened, Volume};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};

/// What is registered with the kernel of one mount.
#[derive(Default)]
pub struct Backings(Mutex<Registered>);

#[derive(Default)]
struct Registered {
    by_handle: HashMap<u64, Arc<BackingId>>,
    by_node: HashMap<u64, Weak<BackingId>>,
}

impl Backings {
    /// What the kernel shall read and write for `opened`; `None` if its bytes go through
    /// the volume. `register` hands a descriptor to the kernel.
    pub fn of(
        &self,
        volume: &Volume,
        node: INodeNo,
        opened: &Opened,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        if !opened.passed {
            return None;
        }
        let registered = volume
            .passed_file(opened.fh)
            .map_err(|error| io::Error::from_raw_os_error(error.raw()))
            .and_then(|file| self.register(node, opened.fh, &*file, register));
        registered
            .inspect_err(|error| {
                tracing::info!(%error, "bytes go through the daemon: the kernel does not take a file");
                volume.not_passed(opened.fh);
                volume.set_passing(false);
            })
            .ok()
    }

    fn register(
        &self,
        node: INodeNo,
        fh: Fh,
        file: &dyn DiskFile,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> io::Result<Arc<BackingId>> {
        let mut registered = self.0.lock();
        let known = registered.by_node.get(&node.0).and_then(Weak::upgrade);
        let backing = match known {
            Some(backing) => backing,
            None => {
                let fd = file.as_fd().ok_or(io::ErrorKind::Unsupported)?;
                let backing = Arc::new(register(fd)?);
                registered.by_node.insert(node.0, Arc::downgrade(&backing));
                backing
            }
        };
        registered.by_handle.insert(fh.0, backing.clone());
        Ok(backing)
    }

    /// `fh` of `node` is closed.
    pub fn release(&self, node: INodeNo, fh: Fh) {
        let mut registered = self.0.lock();
        let last = registered.by_handle.remove(&fh.0).and_then(Arc::into_inner);
        if last.is_some() {
            registered.by_node.remove(&node.0);
        }
    }
}
