//! A peer's changes between being carried out below and being written down.
//!
//! A process that ends in between finds below what those changes did, and a state that knows
//! nothing of them: it would take it for edits made here. So a batch is noted before it is applied,
//! and how far it got with each change. At the next start what was begun is applied to the state,
//! before anything below is compared with it.

use crate::apply::{ApplyError, Incoming};
use crate::doubt::stand_in;
use crate::errno::Errno;
use crate::volume::{State, Volume};
use lockstep_core::planted::{self, Bug};
use lockstep_core::{Change, ContentRef, Effect, NodeId, Op, Sequence, Slot, Version};
use lockstep_disk::state::StateBatch;
use lockstep_disk::{DiskFile, FileType};
use parking_lot::Mutex;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Names of the records in the state database begin so; the peer's slot follows.
const RECORD_PREFIX: &str = "begun/";
/// The private file that says how far the last batch got: a [`Doing`]. Taken for further than it
/// got, a batch would seem to have been undone here. It is written with every change, so it is no
/// record.
pub(crate) const PROGRESS: &str = "begun";

/// The file at [`PROGRESS`], once there is one.
pub(crate) type Progress = Mutex<Option<Arc<dyn DiskFile>>>;

const PROGRESS_BYTES: usize = 40;

/// What is done below at this moment for a change of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Doing {
    peer: Slot,
    seq: Sequence,
    /// Effects of the change that are done.
    effects: u64,
    /// Inode number of what the next one moves or removes; 0 if it does neither, or was not begun.
    inode: u64,
}

impl Doing {
    pub(crate) fn change(peer: Slot, seq: Sequence) -> Doing {
        Doing { peer, seq, effects: 0, inode: 0 }
    }

    /// The next effect is done.
    pub(crate) fn advance(&mut self) {
        (self.effects, self.inode) = (self.effects + 1, 0);
    }

    /// What is written at [`PROGRESS`]: four numbers of 8 bytes, and 8 of their hash.
    pub(crate) fn encode(self) -> [u8; PROGRESS_BYTES] {
        let words = [u64::from(self.peer.0), self.seq.0, self.effects, self.inode];
        let mut bytes = [0; PROGRESS_BYTES];
        let (numbers, hash) = bytes.split_at_mut(PROGRESS_BYTES - 8);
        numbers.copy_from_slice(&words.map(u64::to_le_bytes).concat());
        hash.copy_from_slice(&blake3::hash(numbers).as_bytes()[..8]);
        bytes
    }

    /// What it says, if it says anything.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Doing> {
        let (numbers, hash) = bytes.split_at_checked(PROGRESS_BYTES - 8)?;
        if hash != &blake3::hash(numbers).as_bytes()[..8] {
            return None;
        }
        let word = |at: usize| Some(u64::from_le_bytes(numbers.get(at..at + 8)?.try_into().ok()?));
        let peer = Slot(u16::try_from(word(0)?).ok()?);
        Some(Doing { peer, seq: Sequence(word(8)?), effects: word(16)?, inode: word(24)? })
    }
}

/// What changes did that are made up for.
#[derive(Default)]
pub(crate) struct Redone {
    /// Contents that they named, by file, each after the one before it.
    contents: HashMap<NodeId, Vec<(ContentRef, Version)>>,
    /// What the last of them was to make and cannot yet: a directory was moved here, which the state
    /// does not know yet either.
    pub unmade: Vec<NodeId>,
}

impl Redone {
    /// Contents that the changes named for `node`, in their order.
    pub(crate) fn contents_of(
        &self,
        node: NodeId,
    ) -> impl Iterator<Item = (ContentRef, Version)> + '_ {
        self.contents.get(&node).into_iter().flatten().copied()
    }
}

impl Volume {
    /// `changes` of `peer` are about to be applied.
    pub(crate) fn note_batch(&self, peer: Slot, changes: &[Incoming]) -> Result<(), ApplyError> {
        let logged = |change: &&Change| !matches!(change.op, Op::Exchange(_));
        let changes: Vec<&Change> = changes.iter().map(|i| &i.change).filter(logged).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let cursor = self.cursor(peer);
        // The state that finds the note must know which log it is about.
        if self.applied.lock().get(&peer).map(|written| written.incarnation)
            != Some(cursor.incarnation)
        {
            self.commit()
                .map_err(|errno| ApplyError::Disk(io::Error::from_raw_os_error(errno.raw())))?;
        }
        let batch = (cursor.incarnation, changes);
        let value = postcard::to_stdvec(&batch).expect("changes always encode");
        let records = vec![(format!("{RECORD_PREFIX}{:04x}", peer.0), Some(value))];
        let noted = self.db.commit(&StateBatch { records, ..StateBatch::default() });
        noted.map_err(|error| ApplyError::Disk(io::Error::other(error)))
    }

    /// What `doing` says is about to be done.
    pub(crate) fn note_begun(&self, doing: Doing) -> io::Result<()> {
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
        file.write_all_at(&doing.encode(), 0)?;
        *progress = Some(file);
        Ok(())
    }

    /// `effect` is about to be carried out, the next one of the change that `doing` tells of.
    pub(crate) fn note_effect(&self, doing: &mut Doing, effect: &Effect) -> io::Result<()> {
        doing.inode = leaving(effect).and_then(|path| self.inode_at(path)).unwrap_or(0);
        match doing.effects == 0 && doing.inode == 0 {
            true => Ok(()),
            false => self.note_begun(*doing),
        }
    }

    fn inode_at(&self, path: &Path) -> Option<u64> {
        self.disk.stat(path).ok().map(|stat| stat.ino)
    }

    /// Makes up for changes that were begun and not written down. All but the last are done below;
    /// of the last, what is missing is done now.
    pub(crate) fn redo(&self) -> io::Result<Redone> {
        let mut redone = Redone::default();
        let Some(begun) = self.progress_made()? else { return Ok(redone) };
        let (peer, last) = (begun.peer, begun.seq);
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
            let node = change.op.node();
            let before = state.content(node);
            let Ok(effects) = state.replica.apply_remote(peer, change) else { continue };
            let consequences = state.replica.take_consequences();
            let after = change.op.content().map(|content| (content, change.version));
            let stood = before.or_else(|| state.content(node));
            redone.contents.entry(node).or_default().extend(stood.into_iter().chain(after));
            let mut doing = Doing::change(peer, change.seq);
            for effect in effects.into_iter().chain(consequences) {
                let is_due = change.seq == last && self.is_undone(&effect, doing, begun);
                match self.redo_effect(&mut state, &effect, is_due.then_some(&mut doing)) {
                    // What the state does not know yet moved the place away.
                    Err(error) if leads_elsewhere(&error) => {
                        if let Effect::Made { node, .. } = effect {
                            redone.unmade.push(node);
                        }
                    }
                    done => done?,
                }
                doing.advance();
            }
        }
        tracing::debug!(?peer, ?last, "changes that were begun are made up for");
        Ok(redone)
    }

    fn progress_made(&self) -> io::Result<Option<Doing>> {
        let file = match self.disk.temp_open(PROGRESS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = [0; PROGRESS_BYTES];
        let read = file.read_at(&mut bytes, 0)?;
        let progress = Doing::decode(&bytes[..read]);
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

    /// Whether `effect`, which `doing` has come to, was not done when the process ended, as far as
    /// `begun` got. What is not clear is done again, where that changes nothing.
    fn is_undone(&self, effect: &Effect, doing: Doing, begun: Doing) -> bool {
        match (doing.effects.cmp(&begun.effects), effect) {
            // The scan looks what stands there.
            (_, Effect::Wanted { .. }) | (Ordering::Less, _) => false,
            (_, Effect::Made { path, .. }) => {
                // What was made may not be dressed yet; what is not empty was changed since.
                self.disk
                    .stat(path)
                    .map_or(true, |stat| stat.file_type != FileType::File || stat.size_bytes == 0)
            }
            (Ordering::Greater, _) => true,
            (Ordering::Equal, _) => {
                let left = leaving(effect).and_then(|path| self.inode_at(path)).unwrap_or(0);
                begun.inode == 0 || begun.inode == left
            }
        }
    }

    /// Takes in `effect`; carries it out too, as `undone`, if it was not.
    fn redo_effect(
        &self,
        state: &mut State,
        effect: &Effect,
        undone: Option<&mut Doing>,
    ) -> io::Result<()> {
        if let Effect::Removed { node, .. } | Effect::Moved { replaced: Some(node), .. } = effect {
            self.after_unlink(state, *node);
        }
        if let Effect::Made { node, .. } | Effect::Wanted { node } = effect {
            state.want(*node);
        }
        let Some(doing) = undone else { return Ok(()) };
        self.note_effect(doing, effect)?;
        match effect {
            Effect::Made { node, path, .. } if self.inode_at(path).is_some() => {
                self.dress_again(state, *node, path)
            }
            _ => self.carry_out(state, effect),
        }
    }
}

/// Where what `effect` moves or removes stands before.
fn leaving(effect: &Effect) -> Option<&Path> {
    match effect {
        Effect::Moved { from_path, .. } => Some(from_path),
        Effect::Swapped { a_path, .. } => Some(a_path),
        Effect::Removed { path, .. } => Some(path),
        _ => None,
    }
}

/// Whether a path does not lead where it led: a directory on it is gone, or a file or a symlink
/// has its name.
fn leads_elsewhere(error: &io::Error) -> bool {
    let way = error.raw_os_error().map(Errno::from_raw);
    error.kind() == io::ErrorKind::NotFound || matches!(way, Some(Errno::NotDir | Errno::Loop))
}

impl State {
    fn content(&self, node: NodeId) -> Option<(ContentRef, Version)> {
        let file = self.replica.tree.node(node)?.file()?;
        Some((file.content, file.version))
    }

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
        let earlier = redone.contents_of(node).find(|(c, _)| *c == found);
        let Some((content, version)) = earlier else { return false };
        stand_in(file, content, version, times, perm);
        true
    }
}

#[cfg(test)]
mod tests;
