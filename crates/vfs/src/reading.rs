//! Reading, also what is still on its way.

use crate::errno::{Errno, Result};
use crate::files::{Handle, OpenFile};
use crate::request::Fh;
use crate::transfer::Transfer;
use crate::transfers::Demand;
use crate::volume::Volume;
use lockstep_core::ContentRef;
use lockstep_disk::DiskFile;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a read of absent bytes waits while no peer is connected, before it fails with `EIO`.
const OFFLINE_WAIT: Duration = Duration::from_secs(5);
/// How long a read of absent bytes waits without any content arriving.
const ABSENT_WAIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Volume {
    /// Reads up to `len` bytes; fewer only at the end of the file. Waits for absent bytes.
    pub fn read(&self, fh: Fh, offset: u64, len: u32) -> Result<Vec<u8>> {
        let handle = self.handle(fh)?;
        self.replacing.reads(handle.open.node);
        let mut buf = vec![0; len as usize];
        let begun = handle.begun.lock().clone();
        let read = match handle.open.resident() {
            Some(file) if begun.is_none() => file.read_at(&mut buf, offset)?,
            _ => self.read_begun(&handle, begun, &mut buf, offset)?,
        };
        buf.truncate(read);
        Ok(buf)
    }

    /// The backing file with all bytes of the content, waiting for absent ones.
    pub(crate) fn make_resident(&self, open: &Arc<OpenFile>) -> Result<Arc<dyn DiskFile>> {
        self.wait_absent(open, |_| Ok(None), 0).and_then(|read| match read {
            Waited::Resident(file) => Ok(file),
            Waited::Read(_) => Err(Errno::Io),
        })
    }

    /// Fills `buf` with bytes that may still be on their way. What the handle has `begun` to read it
    /// reads to the end, whatever has come since; if those bytes cannot be had any more it is stale.
    pub(crate) fn read_begun(
        &self,
        handle: &Handle,
        begun: Option<Arc<Transfer>>,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize> {
        let node = handle.open.node;
        let is_another = |content: ContentRef| begun.as_ref().is_some_and(|b| b.content != content);
        if let Some(begun) = &begun
            && let Some(read) = begun.read_at(buf, offset)?
        {
            if offset + read as u64 >= begun.content.size_bytes {
                *handle.begun.lock() = None;
            }
            return Ok(read);
        }
        let size = self.read_state().replica.tree.node(node).map_or(0, |n| n.size_bytes());
        if begun.is_none() && offset >= size {
            return Ok(0);
        }
        let mut from = None;
        let waited = self.wait_absent(
            &handle.open,
            |transfer| {
                if is_another(transfer.content) {
                    return Err(Errno::Stale);
                }
                from = Some(transfer.clone());
                Ok(transfer.read_at(buf, offset)?)
            },
            offset,
        )?;
        match waited {
            Waited::Read(read) => {
                let unread = |t: &Arc<Transfer>| offset + (read as u64) < t.content.size_bytes;
                *handle.begun.lock() = from.filter(unread);
                Ok(read)
            }
            Waited::Resident(file) => {
                let state = self.read_state();
                let stands = state.replica.tree.node(node).and_then(|n| n.file());
                match stands.is_some_and(|file| is_another(file.content)) {
                    true => Err(Errno::Stale),
                    false => Ok(file.read_at(buf, offset)?),
                }
            }
        }
    }

    fn wait_absent(
        &self,
        open: &Arc<OpenFile>,
        mut try_read: impl FnMut(&Arc<Transfer>) -> Result<Option<usize>>,
        offset: u64,
    ) -> Result<Waited> {
        let received = || self.transfers.counts.received_bytes.load(Ordering::Relaxed);
        let refused = || self.transfers.counts.refused_chunks.load(Ordering::Relaxed);
        let refused_before = refused();
        let (mut deadline, mut before) = (self.clock.running() + ABSENT_WAIT, received());
        let mut asked = None;
        loop {
            if let Some(file) = open.resident() {
                return Ok(Waited::Resident(file));
            }
            let wanted = {
                let state = self.read_state();
                let stands = state.replica.tree.node(open.node).ok_or(Errno::Stale)?;
                let Some(wanted) = stands.file().and_then(|f| f.wanted()) else {
                    // It arrived between the two looks.
                    let file = open
                        .resident()
                        .map_or_else(|| self.open_below(&state, open.node), |f| Ok(Some(f)))?;
                    return file.map(Waited::Resident).ok_or(Errno::Stale);
                };
                if stands.is_unlinked() && state.gone_since(open.node, wanted.1).is_some() {
                    return Err(Errno::Stale);
                }
                wanted
            };
            let transfer = self.transfers.transfer(open.node, wanted.0);
            if let Some(read) = try_read(&transfer)? {
                return Ok(Waited::Read(read));
            }
            if asked != Some(wanted) {
                self.want_now(&mut self.write_state(), open.node);
                self.transfers.demand(Demand { node: open.node, offset });
                self.transfers.queue(open.node, true);
                asked = Some(wanted);
            }
            let now = self.clock.running();
            if self.transfers.offline_for(now, self.started) > OFFLINE_WAIT || now > deadline {
                return Err(Errno::Io);
            }
            // A peer that keeps sending wrong bytes is not waited for any longer than a silent one.
            if received() != before && refused() == refused_before {
                (deadline, before) = (now + ABSENT_WAIT, received());
            }
            self.clock.pause(LOOK_AGAIN, &mut |pause| self.transfers.wait_progress(pause));
        }
    }
}

enum Waited {
    Resident(Arc<dyn DiskFile>),
    Read(usize),
}
