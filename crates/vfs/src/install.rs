//! Putting fetched content in place.

use crate::files::OpenFile;
use crate::replacing::Quiet;
use crate::transfer::{FetchJob, Transfer};
use crate::trash::TrashReason;
use crate::volume::{State, Volume};
use lockstep_core::{ContentRef, Kind, Manifest, NodeId, Perm, Shown, Times, Version, limits};
use lockstep_disk::{DiskFile, RenameMode, XattrFlags, verify_manifest};
use parking_lot::RwLockReadGuard;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long an open waits for new content that is just taking its place.
const REPLACE_WAIT: Duration = Duration::from_secs(1);
/// What ends a further name of a file until it is moved over one.
pub(crate) const BESIDE: &str = ".lockstep-link";

impl Volume {
    /// Queues everything that is wanted, as at start or after a reconnect.
    pub fn queue_wanted(&self) {
        let wanted: Vec<NodeId> = self.read_state().wanted.iter().copied().collect();
        for node in wanted {
            self.transfers.queue(node, false);
        }
    }

    /// The next content to fetch in the background; waits up to `timeout` for one.
    pub fn next_fetch(&self, timeout: Duration) -> Option<FetchJob> {
        let node = self.transfers.next_background(timeout)?;
        let due = {
            let state = self.read_state();
            let unlinked = state.replica.tree.node(node).is_some_and(|n| n.is_unlinked());
            unlinked || state.wanted.contains(&node)
        };
        due.then(|| self.job(node)).flatten()
    }

    /// The next content a reader waits for, and the offset of the bytes it waits for.
    pub fn next_demand(&self, timeout: Duration) -> Option<(FetchJob, u64)> {
        let demand = self.transfers.next_demand(timeout)?;
        Some((self.job(demand.node)?, demand.offset))
    }

    fn job(&self, node: NodeId) -> Option<FetchJob> {
        let state = self.read_state();
        let stands = state.replica.tree.node(node)?;
        if stands.is_unlinked() && !self.open_files.lock().contains_key(&node) {
            return None;
        }
        let file = stands.file()?;
        let (content, version) = file.wanted()?;
        let transfer = self.transfers.transfer(node, content);
        Some(FetchJob { node, content, version, transfer })
    }

    /// Whether `job` is still wanted.
    pub fn is_wanted(&self, job: &FetchJob) -> bool {
        let state = self.read_state();
        let file = state.replica.tree.node(job.node).and_then(|n| n.file());
        file.and_then(|f| f.wanted()) == Some((job.content, job.version))
    }

    /// Whether the fetch of `job` is to go on: it is still wanted, and its file has not been put in
    /// place or cleared away. What is wanted all the same begins anew.
    pub fn goes_on(&self, job: &FetchJob) -> bool {
        !job.transfer.is_spent() && self.is_wanted(job)
    }

    /// Queues `job` again, behind the others.
    pub fn requeue(&self, job: &FetchJob) {
        if self.is_wanted(job) {
            self.transfers.queue(job.node, false);
        }
    }

    /// After a fetch of `node` at `version` ended: a newer content that came meanwhile is next.
    pub fn queue_if_wanted(&self, node: NodeId, version: Version) {
        if self.job(node).is_some_and(|job| job.version != version) {
            self.transfers.queue(node, false);
        }
    }

    /// No peer has this content any more: a later change says what became of the file, so nothing
    /// waits for it. `shown` is the newest version of the file that one of them shows instead.
    pub fn content_gone(&self, job: &FetchJob, shown: Option<Shown>) {
        let mut state = self.write_state();
        if state.gone_since(job.node, job.version).is_none() {
            state.gone.insert(job.node, (job.version, self.now().secs.max(0) as u64));
        }
        let stale = self.give_up_lost(&mut state, job, shown);
        drop(state);
        self.tell_kernel(stale);
        self.transfers.progressed();
    }

    /// Begins a transfer with a peer's manifest. False if the manifest does not prove itself.
    pub fn begin(&self, job: &FetchJob, manifest: Manifest) -> io::Result<bool> {
        if !verify_manifest(&manifest, &job.content) {
            return Ok(false);
        }
        self.hold(job.node, &job.content, &manifest);
        self.begin_transfer(job, manifest)?;
        Ok(true)
    }

    /// Begins the transfer of `job`, which may have been given up meanwhile.
    pub(crate) fn begin_transfer(&self, job: &FetchJob, manifest: Manifest) -> io::Result<()> {
        job.transfer.begin(manifest, &*self.disk)?;
        self.transfers.begun(job.node, &job.transfer);
        Ok(())
    }

    /// Puts a complete content in place, once no reader is in the middle of the old one. False if
    /// it is no longer wanted.
    pub fn install(&self, job: &FetchJob) -> io::Result<bool> {
        self.replacing.start(job.node);
        let deadline = Instant::now() + REPLACE_WAIT;
        let (installed, quiet) = loop {
            let open = self.open_file(job.node);
            let quiet = open.as_ref().and_then(|open| {
                self.wait_for_readers(open);
                self.quiet(job.node, deadline)
            });
            let _writers_wait = open.as_ref().map(|open| open.writing.write());
            let mut state = self.write_state();
            // Who opened it meanwhile may be about to write to the file that would be replaced.
            let opened = self.open_file(job.node);
            let same =
                opened.is_none_or(|now| open.as_ref().is_some_and(|open| Arc::ptr_eq(open, &now)));
            if same && quiet.as_ref().is_none_or(Quiet::holds) {
                let (content, version) = (job.content, job.version);
                let put = self.put_in_place(&mut state, job.node, content, version, &job.transfer);
                break (put, quiet);
            }
        };
        match quiet {
            Some(quiet) => {
                drop(quiet);
                self.replacing.finish(job.node);
                self.transfers.progressed();
            }
            None => self.tell_replaced(job.node),
        }
        if installed? {
            self.settle_holdings(job.node, Some(job.content));
            self.transfers.take_superseded(job.node);
            self.transfers.counts.fetched.fetch_add(1, Ordering::Relaxed);
            return Ok(self.commit().is_ok());
        }
        Ok(false)
    }

    pub(crate) fn open_file(&self, node: NodeId) -> Option<Arc<OpenFile>> {
        self.open_files.lock().get(&node).cloned()
    }

    /// Who has just opened `node` to write is in the middle of it: what it holds now, truncated or
    /// half written, is nobody's version. Waits as long as for readers, at most.
    pub(crate) fn wait_for_writers(&self, node: NodeId) {
        let open = self.open_file(node).filter(|open| open.users.lock().writers > 0);
        if let Some(open) = open {
            self.wait_for_readers(&open);
        }
    }

    fn wait_for_readers(&self, open: &OpenFile) {
        let deadline = self.clock.running() + crate::files::READER_GRACE;
        while let Some(left) = open.readers_done_in(self.clock.running()) {
            if self.clock.running() >= deadline {
                return;
            }
            self.clock.pause(left, &mut |left| self.replacing.wait_change(left));
        }
    }

    /// The kernel is told; opens that waited go on when it knows.
    pub(crate) fn tell_replaced(&self, node: NodeId) {
        if let Some(cache) = self.cache() {
            cache.invalidate_node(node);
        }
        let told = self.told_replaced(node);
        self.after_invalidations(told);
        self.transfers.progressed();
    }

    fn told_replaced(&self, node: NodeId) -> Box<dyn FnOnce() + Send> {
        let replacement = self.replacing.clone();
        Box::new(move || replacement.finish(node))
    }

    /// Swaps `transfer`'s file in. The caller holds the state, and the writers if there are any.
    pub(crate) fn put_in_place(
        &self,
        state: &mut State,
        node: NodeId,
        content: ContentRef,
        version: Version,
        transfer: &Transfer,
    ) -> io::Result<bool> {
        if transfer.is_spent() {
            return Ok(false);
        }
        let Some(stands) = state.replica.tree.node(node) else {
            return self.discard(node, transfer);
        };
        if stands.is_unlinked() {
            return self.lend_to_readers(state, node, version, transfer);
        }
        let wanted = stands.file().and_then(|f| f.wanted());
        if wanted.is_some_and(|wanted| wanted != (content, version)) {
            // What was fetched serves the content that is wanted by now.
            self.transfers.left_behind(node);
            return Ok(false);
        }
        let Some(file) = stands.file().filter(|_| wanted.is_some()) else {
            return self.discard(node, transfer);
        };
        // The kernel goes on with the old file for as long as somebody has it open.
        if file.dirty || state.passed.contains(node) {
            return Ok(false);
        }
        let (perm, times) = match file.incoming {
            Some(incoming) => (incoming.perm, incoming.times),
            None => (stands.perm, stands.times),
        };
        let before = file.content;
        let fresh = match self.disk.temp_open(&transfer.temp) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody has cleared it away: the transfer begins anew.
                self.transfers.drop_transfer(node, transfer);
                return Err(error);
            }
            opened => opened?,
        };
        // First: who owns a file that may not be written to cannot set attributes of it.
        self.seal(&*fresh, content, times.mtime)?;
        self.dress(&*fresh, perm, times)?;
        if let Some(path) = state.replica.tree.path(node) {
            state.trash.author = version.slot;
            self.trash_replaced(state, node, &path, TrashReason::Overwritten);
        }
        self.swap_in(state, node, &transfer.temp)?;
        transfer.spend();
        state.replica.tree.content_arrived(node, version);
        if let Some(stands) = state.replica.tree.node(node)
            && (stands.perm, stands.times) != (perm, times)
        {
            self.dress(&*fresh, stands.perm, stands.times)?;
            self.seal_anew(&*fresh, content, stands.times.mtime);
        }
        if let Some(open) = self.open_files.lock().get(&node) {
            *open.file.write() = Some(fresh);
        }
        state.wanted.remove(&node);
        state.residency.came(node);
        self.transfers.finish(node);
        if before.size_bytes > limits::INLINE_CONTENT_MAX_BYTES {
            self.transfers.left_behind(node);
        }
        Ok(true)
    }

    /// The file has no name any more, but is open: its readers get the bytes, nobody else will.
    fn lend_to_readers(
        &self,
        state: &mut State,
        node: NodeId,
        version: Version,
        transfer: &Transfer,
    ) -> io::Result<bool> {
        if let Some(open) = self.open_files.lock().get(&node) {
            *open.file.write() = Some(self.disk.temp_open(&transfer.temp)?);
            state.replica.tree.content_arrived(node, version);
        }
        self.discard(node, transfer).map(|_| true)
    }

    fn discard(&self, node: NodeId, transfer: &Transfer) -> io::Result<bool> {
        self.transfers.drop_transfer(node, transfer);
        match self.disk.temp_remove(&transfer.temp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(false),
        }
    }

    /// The temporary file takes the node's names, all of them.
    pub(crate) fn swap_in(&self, state: &State, node: NodeId, temp: &str) -> io::Result<()> {
        let paths = names_below(state, node);
        let Some((first, others)) = paths.split_first() else { return Ok(()) };
        self.disk.temp_install(temp, first)?;
        let xattrs = state.replica.tree.node(node).into_iter().flat_map(|n| &n.xattrs);
        for (name, (_, value)) in xattrs.filter(|(name, _)| !crate::xattrs::is_private(name)) {
            if let Some(value) = value {
                self.disk.set_xattr(first, name, value, XattrFlags::Any)?;
            }
        }
        self.name_alike(first, others)
    }

    /// What stands at `first` now takes the place of what stands at the other names of its node.
    pub(crate) fn name_alike(&self, first: &Path, others: &[PathBuf]) -> io::Result<()> {
        for other in others {
            // Linked beside and moved over: no instant without the name, whatever happens.
            let mut beside = other.as_os_str().to_owned();
            beside.push(BESIDE);
            let beside = Path::new(&beside);
            self.disk.link(first, beside)?;
            self.disk.rename(beside, other, RenameMode::Replace)?;
        }
        Ok(())
    }

    pub(crate) fn dress(&self, file: &dyn DiskFile, perm: Perm, times: Times) -> io::Result<()> {
        if self.privileged {
            file.set_owner(perm.uid, perm.gid)?;
        }
        file.set_mode(self.backing_mode(perm, Kind::File))?;
        file.set_times(times.atime, times.mtime)
    }

    /// The state for an open of `node`: waits while new content takes its place, so that nobody
    /// reads it with the length or the pages of the old one. After a second the kernel is not
    /// waited for any more.
    pub(crate) fn state_to_open(&self, node: NodeId) -> RwLockReadGuard<'_, State> {
        let deadline = Instant::now() + REPLACE_WAIT;
        loop {
            let finished = self.replacing.wait_finished(node, deadline);
            let state = self.read_state();
            if !finished || !self.replacing.contains(node) {
                return state;
            }
        }
    }
}

/// Where a node stands below, under each of its names.
pub(crate) fn names_below(state: &State, node: NodeId) -> Vec<PathBuf> {
    let tree = &state.replica.tree;
    let links = tree.node(node).map_or(&[][..], |n| &n.links);
    links.iter().filter_map(|l| tree.path_in(l.parent, l.shown.as_bytes())).collect()
}
