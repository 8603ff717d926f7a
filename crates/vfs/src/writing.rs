//! Calls that change a file's bytes or its length.

use crate::errno::{Errno, Result};
use crate::files::OpenFile;
use crate::request::Fh;
use crate::volume::Volume;
use lockstep_core::{NodeId, Perm, limits};
use lockstep_disk::DiskFile;
use parking_lot::RwLockReadGuard;
use std::sync::Arc;

const S_ISUID: u16 = 0o4000;
const S_ISGID: u16 = 0o2000;
const S_IXGRP: u16 = 0o010;

impl Volume {
    /// Writes all of `bytes`; with `append` at the end of the file, wherever that is by now.
    pub fn write(
        &self,
        fh: Fh,
        offset: u64,
        bytes: &[u8],
        append: bool,
        kill_suidgid: bool,
    ) -> Result<u32> {
        let handle = self.handle(fh)?;
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > limits::FILE_MAX_BYTES) {
            return Err(Errno::TooBig);
        }
        let (_writing, file) = self.begin_writing(&handle.open)?;
        let at = match append {
            true => file.stat()?.size_bytes,
            false => offset,
        };
        file.write_all_at(bytes, at)?;
        self.content_changed(handle.open.node, at + bytes.len() as u64, kill_suidgid)?;
        if at != offset
            && let Some(cache) = self.cache()
        {
            cache.invalidate_node(handle.open.node);
        }
        Ok(bytes.len() as u32)
    }

    /// The file of `open`, to be written to for as long as the lock that comes with it is held.
    pub(crate) fn begin_writing<'o>(
        &self,
        open: &'o Arc<OpenFile>,
    ) -> Result<(RwLockReadGuard<'o, ()>, Arc<dyn DiskFile>)> {
        loop {
            let found = self.make_resident(open)?;
            let writing = open.writing.read();
            // A peer's change may have taken the bytes away again before the lock.
            let Some(file) = open.resident() else {
                self.adopt_found(open, found);
                continue;
            };
            if self.about_to_write(open.node) {
                self.break_seal(&*file);
            }
            return Ok((writing, file));
        }
    }

    /// What was found below becomes the open file, if the content is here.
    fn adopt_found(&self, open: &OpenFile, found: Arc<dyn DiskFile>) {
        let state = self.read_state();
        let file = state.replica.tree.node(open.node).and_then(|n| n.file());
        if file.is_none_or(|file| file.resident) {
            open.file.write().get_or_insert(found);
        }
    }

    /// The bytes of `node` are about to change, whatever its content was announced to be: from now
    /// on nobody takes one for the other. The caller holds the file's `writing` lock. Whether they
    /// were those that were announced until now.
    fn about_to_write(&self, node: NodeId) -> bool {
        let clean = {
            let state = self.read_state();
            state.replica.tree.node(node).and_then(|n| n.file()).is_some_and(|file| !file.dirty)
        };
        if clean {
            let mut state = self.write_state();
            if let Some(file) = state.replica.tree.node_mut(node).and_then(|n| n.file_mut()) {
                file.dirty = true;
            }
            state.announce.wrote(node, self.now_ms());
            drop(state);
            self.work.raise();
        }
        clean
    }

    /// Bytes up to `end` were written: size grows, times move, set-id bits go if asked.
    pub(crate) fn content_changed(&self, node: NodeId, end: u64, kill_suidgid: bool) -> Result<()> {
        self.set_size(node, |size| size.max(end), kill_suidgid)
    }

    pub(crate) fn set_size(
        &self,
        node: NodeId,
        size: impl FnOnce(u64) -> u64,
        kill_suidgid: bool,
    ) -> Result<()> {
        let now = self.now();
        let now_ms = self.now_ms();
        let mut state = self.mutate()?;
        let stands = state.replica.tree.node_mut(node).ok_or(Errno::Stale)?;
        stands.written(now);
        let mode = stands.perm.mode;
        if kill_suidgid {
            stands.perm.mode = without_set_id(mode);
        }
        let cleared = stands.perm.mode != mode;
        let named = !stands.links.is_empty();
        let file = stands.file_mut().ok_or(Errno::Invalid)?;
        file.live_size_bytes = size(file.live_size_bytes);
        let fresh = !file.resident;
        file.resident = true;
        if fresh && file.incoming.is_none() {
            state.wanted.remove(&node);
        }
        if named {
            state.announce.wrote(node, now_ms);
        }
        drop(state);
        if cleared && let Some(cache) = self.cache() {
            cache.invalidate_attr(node);
        }
        Ok(())
    }

    /// Sets the length of an open file. What that costs it in privileges, its caller sets.
    pub(crate) fn resize(&self, open: &Arc<OpenFile>, size: u64) -> Result<()> {
        if size == 0 {
            self.make_empty_resident(open)?;
        }
        let (_writing, file) = self.begin_writing(open)?;
        file.set_len(size)?;
        self.set_size(open.node, |_| size, false)?;
        self.written_without_handle(open);
        Ok(())
    }

    /// A change made through no writable handle is announced as if one had just been closed.
    pub(crate) fn written_without_handle(&self, open: &OpenFile) {
        if open.users.lock().writers == 0 {
            self.write_state().announce.closed(open.node, self.now_ms());
            self.work.raise();
        }
    }

    /// An absent file that is truncated to nothing needs no bytes from anybody.
    fn make_empty_resident(&self, open: &Arc<OpenFile>) -> Result<()> {
        let _writing = open.writing.read();
        if open.resident().is_some() {
            return Ok(());
        }
        let mut state = self.mutate()?;
        let stands = state.replica.tree.node(open.node).ok_or(Errno::Stale)?;
        let perm: Perm = stands.perm;
        if stands.is_unlinked() {
            return Err(Errno::Stale);
        }
        if open.resident().is_some() || stands.file().is_none_or(|file| file.resident) {
            return Ok(());
        }
        let name = format!("empty-{}", open.node.0);
        let file = self.disk.temp_create(&name)?;
        file.set_mode(self.backing_mode(perm, lockstep_core::Kind::File))?;
        if self.privileged {
            file.set_owner(perm.uid, perm.gid)?;
        }
        self.swap_in(&state, open.node, &name)?;
        self.transfers.cancel(open.node);
        if let Some(body) = state.replica.tree.node_mut(open.node).and_then(|n| n.file_mut()) {
            // From now on these are not the bytes that were announced.
            (body.resident, body.dirty) = (true, true);
            body.live_size_bytes = 0;
        }
        state.announce.wrote(open.node, self.now_ms());
        state.wanted.remove(&open.node);
        *open.file.write() = Some(file);
        Ok(())
    }
}

/// A write by anyone but root drops setuid, and setgid where the group may execute (write(2)).
fn without_set_id(mode: u16) -> u16 {
    match mode & S_IXGRP {
        0 => mode & !S_ISUID,
        _ => mode & !(S_ISUID | S_ISGID),
    }
}
