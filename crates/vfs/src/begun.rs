//! A peer's changes between being carried out below and being written down.
//!
//! A process that ends in between finds below what those changes did, and a state that knows
//! nothing of them: it would take it for edits made here. So a batch is noted before it is applied,
//! and how far it got with each change. At the next start what was begun is applied to the state,
//! before anything below is compared with it.

use crate::apply::{ApplyError, Incoming};
use crate::errno::Errno;
use crate::volume::{State, Volume};
use lockstep_core::planted::{self, Bug};
use lockstep_core::{Change, ContentRef, Effect, NodeId, Op, Sequence, Slot, Version};
use lockstep_disk::DiskFile;
use lockstep_disk::state::StateBatch;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// Names of the records in the state database begin so; the peer's slot follows.
const RECORD_PREFIX: &str = "begun/";
/// The private file that says how far the last batch got: the peer's slot and the number of the
/// change begun last, each of 8 bytes, and 8 of their hash: taken for further than it got, a batch
/// would seem to have been undone here. It is written with every change, so it is no record.
pub(crate) const PROGRESS: &str = "begun";

/// The file at [`PROGRESS`], once there is one.
pub(crate) type Progress = Mutex<Option<Arc<dyn DiskFile>>>;

const PROGRESS_BYTES: usize = 24;

/// What is written at [`PROGRESS`].
pub(crate) fn encode(peer: Slot, seq: Sequence) -> [u8; PROGRESS_BYTES] {
    let mut bytes = [0; PROGRESS_BYTES];
    bytes[..8].copy_from_slice(&u64::from(peer.0).to_le_bytes());
    bytes[8..16].copy_from_slice(&seq.0.to_le_bytes());
    let hash = blake3::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&hash.as_bytes()[..8]);
    bytes
}

/// What it says, if it says anything.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Slot, Sequence)> {
    let (words, hash) = bytes.split_at_checked(16)?;
    if hash != &blake3::hash(words).as_bytes()[..8] {
        return None;
    }
    let (slot, seq) = words.split_at(8);
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    Some((Slot(u16::try_from(word(slot)?).ok()?), Sequence(word(seq)?)))
}

/// What changes did that are made up for.
#[derive(Default)]
pub(crate) struct Redone {
    /// Contents that they named, by file.
    contents: HashMap<NodeId, Vec<(ContentRef, Version)>>,
    /// What the last of them was to make and cannot yet: a directory was moved here, which the state
    /// does not know yet either.
    pub unmade: Vec<NodeId>,
}

impl Volume {
    /// `changes` of `peer` are about to be applied.
    pub(crate) fn note_batch(&self, peer: Slot, changes: &[Incoming]) -> Result<(), ApplyError> {
        let logged = |change: &&Change| !matches!(change.op, Op::Exchange(_));
        let changes: Vec<&Change> = changes.iter().map(|i| &i.change).filter(logged).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let batch = (self.cursor(peer).incarnation, changes);
        let value = postcard::to_stdvec(&batch).expect("changes always encode");
        let records = vec![(format!("{RECORD_PREFIX}{:04x}", peer.0), Some(value))];
        let noted = self.db.commit(&StateBatch { records, ..StateBatch::default() });
        noted.map_err(|error| ApplyError::Disk(io::Error::other(error)))
    }

    /// The change `seq` of `peer` is about to be applied.
    pub(crate) fn note_begun(&self, peer: Slot, seq: Sequence) -> io::Result<()> {
        if planted::has(Bug::SkipBegun) {
            return Ok(());
        }
        let mut progress = self.progress.lock();
        let file = match &*progress {
            Some(file) => file.clone(),
            None => match self.disk.temp_create(PROGRESS) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.disk.temp_open(PROGRESS)?
                }
                created => created?,
            },
        };
        file.write_all_at(&encode(peer, seq), 0)?;
        *progress = Some(file);
        Ok(())
    }

    /// Makes up for changes that were begun and not written down. All but the last are done below;
    /// of the last, what is missing is done now.
    pub(crate) fn redo(&self) -> io::Result<Redone> {
        let mut redone = Redone::default();
        let Some((peer, last)) = self.progress_made()? else { return Ok(redone) };
        let record = format!("{RECORD_PREFIX}{:04x}", peer.0);
        let records = self.db.records(&record).map_err(io::Error::other)?;
        let batch = records.first().and_then(|(_, value)| postcard::from_bytes(value).ok());
        let Some((incarnation, changes)): Option<(u64, Vec<Change>)> = batch else {
            return Ok(redone);
        };
        let mut state = self.write_state();
        if state.replica.cursor(peer).incarnation != incarnation {
            return Ok(redone);
        }
        for change in changes.iter().filter(|change| change.seq <= last) {
            let Ok(effects) = state.replica.apply_remote(peer, change) else { continue };
            let consequences = state.replica.take_consequences();
            if let Some(content) = change.op.content() {
                redone
                    .contents
                    .entry(change.op.node())
                    .or_default()
                    .push((content, change.version));
            }
            for effect in effects.into_iter().chain(consequences) {
                match self.redo_effect(&mut state, &effect, change.seq == last) {
                    // What the state does not know yet moved the place away.
                    Err(error) if leads_elsewhere(&error) => {
                        if let Effect::Made { node, .. } = effect {
                            redone.unmade.push(node);
                        }
                    }
                    done => done?,
                }
            }
        }
        tracing::debug!(?peer, ?last, "changes that were begun are made up for");
        Ok(redone)
    }

    fn progress_made(&self) -> io::Result<Option<(Slot, Sequence)>> {
        let file = match self.disk.temp_open(PROGRESS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = [0; PROGRESS_BYTES];
        let read = file.read_at(&mut bytes, 0)?;
        let progress = decode(&bytes[..read]);
        if progress.is_none() {
            tracing::warn!(read, "how far a batch got is damaged: it is applied anew");
        }
        Ok(progress)
    }

    /// Makes below what the last change was to make, once it is known where.
    pub(crate) fn make_up(&self, state: &mut State, unmade: &[NodeId]) {
        for node in unmade {
            let Some(path) = state.replica.tree.path(*node) else { continue };
            if self.disk.stat(&path).is_err()
                && let Err(error) = self.make_below(state, *node, &path)
            {
                tracing::warn!(%node, %error, "what a peer made cannot be put on the disk");
            }
        }
    }

    fn redo_effect(&self, state: &mut State, effect: &Effect, last: bool) -> io::Result<()> {
        if let Effect::Removed { node, .. } | Effect::Moved { replaced: Some(node), .. } = effect {
            self.after_unlink(state, *node);
        }
        if let Effect::Made { node, .. } | Effect::Wanted { node } = effect {
            state.want(*node);
        }
        let stands = |path| self.disk.stat(path).is_ok();
        match effect {
            // Whether the last was done cannot be told for all kinds: the scan looks.
            Effect::Swapped { .. } | Effect::Wanted { .. } => Ok(()),
            Effect::Made { path, .. } if stands(path) => Ok(()),
            Effect::Moved { from_path, .. } if !stands(from_path) => Ok(()),
            Effect::Removed { path, .. } if !stands(path) => Ok(()),
            _ if last => self.carry_out(state, effect),
            _ => Ok(()),
        }
    }
}

/// Whether a path does not lead where it led: a directory on it is gone, or a file or a symlink
/// has its name.
fn leads_elsewhere(error: &io::Error) -> bool {
    let way = error.raw_os_error().map(Errno::from_raw);
    error.kind() == io::ErrorKind::NotFound || matches!(way, Some(Errno::NotDir | Errno::Loop))
}

impl State {
    /// Below stands, as the bytes of `node`, a content that somebody else wrote: the one that is
    /// awaited, or one that came before it. False if it is none of them.
    pub(crate) fn take_found(&mut self, node: NodeId, found: ContentRef, redone: &Redone) -> bool {
        let Some(stands) = self.replica.tree.node_mut(node) else { return false };
        let (times, perm) = (stands.times, stands.perm);
        let Some(file) = stands.file_mut() else { return false };
        let Some((wanted, awaited)) = file.wanted() else { return false };
        if wanted == found {
            self.replica.tree.content_arrived(node, awaited);
            self.wanted.remove(&node);
            return true;
        }
        let earlier = redone.contents.get(&node).into_iter().flatten().find(|(c, _)| *c == found);
        let Some((content, version)) = earlier.copied() else { return false };
        let coming =
            lockstep_core::tree::Incoming { content: wanted, version: awaited, times, perm };
        file.incoming.get_or_insert(coming);
        (file.content, file.version, file.resident) = (content, version, true);
        file.live_size_bytes = content.size_bytes;
        true
    }
}

#[cfg(test)]
mod tests;
