//! Chunks that are here already: a transfer takes them from other files, from the version it
//! replaces, and from what an interrupted transfer left, before a peer is asked for the rest.
//!
//! The state database knows which chunks lie where (`lockstep_disk::state`). It only gives hints:
//! every chunk is compared with its hash before it counts.

use crate::plan::{Piece, Run};
use crate::serve::{holding_of, kept_name};
use crate::transfer::{FetchJob, InPlace, Transfer, stores_bytes};
use crate::volume::Volume;
use lockstep_core::{ContentRef, Manifest, NodeId, limits};
use lockstep_disk::{DiskFile, Holding, describe_bytes, verify_chunk, verify_manifest};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Places looked at for one chunk: files of the same content may all be on their way.
const PLACES_MAX: usize = 32;
/// Files held open while a run of chunks is looked for.
const SOURCES_MAX: usize = 32;

/// Files opened while looking for chunks; `None` for those that cannot be.
type Sources = HashMap<Holding, Option<Arc<dyn DiskFile>>>;

impl Volume {
    /// Remembers what `content` of `node` consists of. Small contents travel with their change and
    /// need no index.
    pub(crate) fn hold(&self, node: NodeId, content: &ContentRef, manifest: &Manifest) {
        if content.size_bytes <= limits::INLINE_CONTENT_MAX_BYTES {
            return;
        }
        if let Err(error) = self.db.hold(Holding::new(node, content), content, manifest) {
            tracing::debug!(%node, %error, "the chunks of a file are not indexed");
        }
    }

    /// The manifest of `content`, if it is known to lie at `holding`.
    pub(crate) fn held(&self, holding: Holding, content: &ContentRef) -> Option<Manifest> {
        let (found, manifest) = self.db.held(holding).ok().flatten()?;
        (found == *content && verify_manifest(&manifest, content)).then_some(manifest)
    }

    /// `content` is what `node` has from now on: earlier ones, and what was on its way, are
    /// forgotten.
    pub(crate) fn settle_holdings(&self, node: NodeId, content: Option<ContentRef>) {
        let current = content.map(|content| Holding::new(node, &content));
        for holding in self.db.holdings(node).unwrap_or_default() {
            if Some(holding) != current {
                self.drop_holding(holding);
            }
        }
    }

    /// Forgets a content that no file has any more, with what is left of its transfer.
    pub(crate) fn drop_holding(&self, holding: Holding) {
        if let Err(error) = self.transfers.remove_temp(&kept_name(&holding), &*self.disk) {
            tracing::debug!(%error, "the rest of a transfer stays");
        }
        if let Err(error) = self.db.release(holding) {
            tracing::debug!(%error, "the index keeps chunks that are gone");
        }
    }

    /// Removes what transfers have left that nothing continues any more.
    pub(crate) fn sweep_transfers(&self) {
        for temp in self.transfers.take_left() {
            if let Err(error) = self.transfers.remove_temp(&temp, &*self.disk) {
                tracing::debug!(%error, "the rest of a transfer stays");
            }
        }
        for node in self.transfers.take_idle_superseded() {
            let content = {
                let state = self.read_state();
                let stands = state.replica.tree.node(node).filter(|n| !n.is_unlinked());
                stands.and_then(|n| n.file()).map(|file| file.content)
            };
            self.settle_holdings(node, content);
        }
    }

    /// Whether the temporary file `name` may still serve: a content of its file is to come.
    pub(crate) fn serves_still(&self, name: &str) -> bool {
        let Some(holding) = holding_of(name) else { return false };
        let state = self.read_state();
        let file = state.replica.tree.node(holding.node).and_then(|n| n.file());
        let serves = file.is_some_and(|file| file.wanted().is_some());
        serves && self.db.held(holding).is_ok_and(|held| held.is_some())
    }

    /// A kept file is gone for good.
    pub(crate) fn kept_gone(&self, name: &str) {
        if let Some(holding) = holding_of(name) {
            self.drop_holding(holding);
        }
    }

    /// Begins a transfer without asking anybody, if a file here has the same content, it was
    /// announced from here a moment ago, or an earlier run of this transfer left its plan.
    pub fn begin_from_here(&self, job: &FetchJob) -> io::Result<bool> {
        if let Some(bytes) = self.remembered(&job.content) {
            self.begin_transfer(job, describe_bytes(&bytes).manifest)?;
            job.transfer.put_all(&bytes)?;
            return Ok(true);
        }
        let places = self.db.find_chunk(&job.content.hash.0, PLACES_MAX).unwrap_or_default();
        for place in places {
            if let Some(manifest) = self.held(place.holding, &job.content) {
                if place.holding != Holding::new(job.node, &job.content) {
                    self.hold(job.node, &job.content, &manifest);
                }
                self.begin_transfer(job, manifest)?;
                return Ok(true);
            }
        }
        let Some((file, manifest)) = self.kept(job.node, job.content) else { return Ok(false) };
        self.hold(job.node, &job.content, &manifest);
        self.begin_transfer(job, manifest)?;
        while let Some(run) = job.transfer.missing_run(0, 1) {
            let mut chunk = vec![0; run.len_bytes as usize];
            let read = file.read_at(&mut chunk, run.offset_bytes)?;
            if read < chunk.len() || !job.transfer.put_chunk(run.first, &chunk)? {
                break;
            }
        }
        Ok(true)
    }

    /// Looks for the chunks of `run` in the files that are here, and takes what it finds.
    pub fn fill_from_here(&self, job: &FetchJob, run: &Run) -> io::Result<()> {
        let (mut sources, mut buf) = (Sources::new(), Vec::new());
        let counts = &self.transfers.counts;
        let unsought = self.transfers.not_in_flight(job.transfer.unsought(run));
        for piece in unsought {
            if self.closing.load(Ordering::Relaxed) {
                return Ok(());
            }
            let len = u64::from(piece.chunk.len_bytes);
            match job.transfer.look_in_place(&piece, &mut buf)? {
                InPlace::Here => {}
                InPlace::Left => drop(counts.resumed_bytes.fetch_add(len, Ordering::Relaxed)),
                InPlace::Missing => {
                    if self.take_from_here(&job.transfer, &piece, &mut sources, &mut buf)? {
                        counts.reused_bytes.fetch_add(len, Ordering::Relaxed);
                    }
                }
            }
            self.transfers.progressed();
        }
        Ok(())
    }

    fn take_from_here(
        &self,
        transfer: &Transfer,
        piece: &Piece,
        sources: &mut Sources,
        buf: &mut Vec<u8>,
    ) -> io::Result<bool> {
        buf.resize(piece.chunk.len_bytes as usize, 0);
        for place in self.db.find_chunk(&piece.chunk.hash, PLACES_MAX).unwrap_or_default() {
            if sources.len() >= SOURCES_MAX {
                sources.clear();
            }
            let source = sources.entry(place.holding).or_insert_with(|| self.source(place.holding));
            let Some(source) = source else { continue };
            if !stores_bytes(&**source, place.offset_bytes, buf.len() as u64) {
                continue;
            }
            let whole = source.read_at(buf, place.offset_bytes).is_ok_and(|got| got == buf.len());
            if whole && verify_chunk(&piece.chunk, buf) {
                return transfer.put_chunk(piece.index, buf);
            }
        }
        Ok(false)
    }

    /// The file of a holding, wherever it stands: shown, on its way, or kept.
    fn source(&self, holding: Holding) -> Option<Arc<dyn DiskFile>> {
        let name = kept_name(&holding);
        // Kept bytes are whole; a transfer of the same content may have nothing yet.
        let whole = self.shown(holding).or_else(|| self.disk.keep_open(&name).ok());
        // What is put in place between the two looks is found by the second.
        let under_way = whole.or_else(|| self.disk.temp_open(&name).ok());
        let source = under_way.or_else(|| self.shown(holding));
        if source.is_none() && self.read_state().replica.tree.node(holding.node).is_none() {
            self.drop_holding(holding);
        }
        source
    }

    fn shown(&self, holding: Holding) -> Option<Arc<dyn DiskFile>> {
        let state = self.read_state();
        let file = state.replica.tree.node(holding.node)?.file()?;
        let shown = file.resident && Holding::new(holding.node, &file.content) == holding;
        let path = shown.then(|| state.replica.tree.path(holding.node)).flatten()?;
        self.disk.open(&path).ok()
    }
}
