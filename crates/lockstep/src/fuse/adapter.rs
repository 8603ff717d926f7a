//! What the handlers share: the volume they call, where calls that may wait are run, and the
//! replies that name nodes.

use super::answer::{self, GENERATION, Listing};
use super::backings::Backings;
use super::convert::{attributes, fh, handle, mode_without_privileges, node, reads_only};
use super::errno::errno;
use super::introduced::Introduced;
use super::notify::KernelNotifier;
use super::requests::{RequestKind, Requests};
use super::waiting::WaitingPool;
use fuser::{FileHandle, INodeNo, ReplyCreate, ReplyEntry, ReplyOpen};
use lockstep_core::NodeId;
use lockstep_vfs::{Caller, Fh, KernelCache, Opened, Result, SetAttr, Stat, Volume};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// The kernel's view of one volume.
pub struct Adapter {
    pub(super) volume: Arc<Volume>,
    waiting: WaitingPool,
    requests: Arc<Requests>,
    pub(super) introduced: Arc<Introduced>,
    cache: Arc<KernelNotifier>,
    pub(super) backings: Arc<Backings>,
    /// How long the kernel may keep names, absent names and attributes.
    pub(super) ttl: Duration,
    /// Whether the kernel is to be asked to read and write new files by itself.
    pub(super) passthrough: bool,
}

impl Adapter {
    /// Serves `volume`, counting into `requests` and noting answers in `introduced`; tells `cache`
    /// of side effects that the kernel does not expect.
    pub fn new(
        volume: Arc<Volume>,
        requests: Arc<Requests>,
        introduced: Arc<Introduced>,
        cache: Arc<KernelNotifier>,
        ttl: Duration,
        passthrough: bool,
    ) -> Self {
        let (waiting, backings) = (WaitingPool::new(), Arc::default());
        Adapter { volume, waiting, requests, introduced, cache, backings, ttl, passthrough }
    }

    /// Counts and traces one request.
    pub(super) fn count(&self, kind: RequestKind, ino: INodeNo) {
        self.requests.count(kind);
        tracing::trace!(?kind, node = %node(ino));
    }

    /// Runs `call` here, or on a waiting thread if it may wait.
    pub(super) fn run(&self, may_wait: bool, call: impl FnOnce(&Volume) + Send + 'static) {
        if may_wait {
            let volume = self.volume.clone();
            self.waiting.run(move || call(&volume));
        } else {
            call(&self.volume);
        }
    }

    /// Answers with an entry, which makes its node known to the kernel.
    pub(super) fn entry(&self, reply: ReplyEntry, result: Result<Stat>) {
        match result {
            Ok(stat) => {
                self.introduced.mark(stat.node);
                reply.entry(&self.ttl, &attributes(&stat), GENERATION);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    /// Answers with an entry and a handle on it.
    pub(super) fn created(&self, reply: ReplyCreate, flags: i32, result: Result<(Stat, Opened)>) {
        match result {
            Ok((stat, opened)) => {
                self.introduced.mark(stat.node);
                let flags = answer::file_flags(&opened, reads_only(flags));
                let (attr, fh) = (attributes(&stat), handle(opened.fh));
                let register = |fd: BorrowedFd<'_>| reply.open_backing(fd);
                match self.backings.of(&self.volume, attr.ino, &opened, register) {
                    Some(id) => {
                        reply.created_passthrough(&self.ttl, &attr, GENERATION, fh, flags, &id)
                    }
                    None => reply.created(&self.ttl, &attr, GENERATION, fh, flags),
                }
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    /// Opens on this thread or a waiting one. Truncation takes setuid bits, of which the kernel
    /// must be told: it keeps the mode it knows.
    pub(super) fn opened(&self, caller: Caller, node: NodeId, flags: i32, reply: ReplyOpen) {
        let (cache, backings) = (self.cache.clone(), self.backings.clone());
        self.run(self.volume.may_wait(node), move |volume| {
            match open_file(volume, &caller, node, flags, &*cache) {
                Ok(opened) => {
                    let kernel = answer::file_flags(&opened, reads_only(flags));
                    let register = |fd: BorrowedFd<'_>| reply.open_backing(fd);
                    match backings.of(volume, INodeNo(node.0), &opened, register) {
                        Some(id) => reply.opened_passthrough(handle(opened.fh), kernel, &id),
                        None => reply.opened(handle(opened.fh), kernel),
                    }
                }
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    /// Fills `listing` from the directory, after `cursor`.
    pub(super) fn list(
        &self,
        ino: INodeNo,
        dir: FileHandle,
        cursor: u64,
        mut listing: impl Listing,
    ) {
        let result =
            self.volume.read_dir(fh(dir), node(ino), cursor, &mut |entry| listing.add(&entry));
        listing.send(result);
    }
}

/// Applies `set`, and what it costs the file in privileges.
pub(super) fn set_attributes(
    volume: &Volume,
    caller: &Caller,
    node: NodeId,
    fh: Option<Fh>,
    mut set: SetAttr,
) -> Result<Stat> {
    if set.mode.is_none() && (set.uid.is_some() || set.gid.is_some() || set.size.is_some()) {
        set.mode = mode_without_privileges(&volume.getattr(node)?, &set, caller);
    }
    volume.setattr(caller, node, fh, &set)
}

fn open_file(
    volume: &Volume,
    caller: &Caller,
    node: NodeId,
    flags: i32,
    cache: &dyn KernelCache,
) -> Result<Opened> {
    let opened = volume.open(node, flags)?;
    if flags & libc::O_TRUNC != 0 {
        let cut = SetAttr { size: Some(0), ..SetAttr::default() };
        let mode = mode_without_privileges(&volume.getattr(node)?, &cut, caller);
        if mode.is_some() {
            volume.setattr(caller, node, None, &SetAttr { mode, ..SetAttr::default() })?;
            cache.invalidate_attr(node);
        }
    }
    Ok(opened)
}
