//! Checking that what stands below is what the state says: names, kinds, sizes, symlink targets,
//! modes, owners and attributes, and the bytes of every file, read again and named again.
//!
//! A directory's names are compared while nobody can change them, a file's bytes beside its
//! writers: what changed meanwhile is not judged. Each difference is looked at twice.

mod dress;

use crate::volume::{State, Volume};
use lockstep_core::tree::{Link, Node, NodeBody};
use lockstep_core::{ContentRef, NodeId, Version};
use lockstep_disk::{BackingStat, FileType, describe};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Differences that are named; the rest is counted.
pub const DIFFERENCES_MAX: usize = 1_000;

/// How the backing tree differs from the state at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The path, relative to the volume's root.
    pub path: PathBuf,
    /// How.
    pub mismatch: Mismatch,
}

/// What is wrong at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Nothing stands there.
    Missing,
    /// Something stands there that is no part of the volume.
    Extra,
    /// It is another kind of thing.
    Kind,
    /// The file has another length.
    Size {
        /// Length by the state, in bytes.
        expected: u64,
        /// Length below, in bytes.
        found: u64,
    },
    /// The file has other bytes of the same length.
    Content,
    /// The file's bytes are not there, although the state says so.
    Absent,
    /// The symlink leads elsewhere.
    Target,
    /// It has other permission bits.
    Mode {
        /// Bits by the state.
        expected: u32,
        /// Bits below.
        found: u32,
    },
    /// It belongs to somebody else.
    Owner {
        /// User and group by the state.
        expected: (u32, u32),
        /// User and group below.
        found: (u32, u32),
    },
    /// It has other extended attributes.
    Attributes,
    /// It could not be read.
    Unreadable {
        /// What the system said.
        reason: String,
    },
}

impl Mismatch {
    /// For people: what is wrong with the file.
    pub fn text(&self) -> String {
        match self {
            Mismatch::Missing => "is not on disk".to_owned(),
            Mismatch::Extra => "is on disk and no part of the volume".to_owned(),
            Mismatch::Kind => "is another kind of file on disk".to_owned(),
            Mismatch::Size { expected, found } => {
                format!("has {found} bytes on disk, not {expected}")
            }
            Mismatch::Content => "has other bytes on disk than were written".to_owned(),
            Mismatch::Absent => "has no content on disk".to_owned(),
            Mismatch::Target => "leads elsewhere on disk".to_owned(),
            Mismatch::Mode { expected, found } => {
                format!("has mode {found:04o} on disk, not {expected:04o}")
            }
            Mismatch::Owner { expected, found } => format!(
                "belongs to {}:{} on disk, not to {}:{}",
                found.0, found.1, expected.0, expected.1
            ),
            Mismatch::Attributes => "has other attributes on disk".to_owned(),
            Mismatch::Unreadable { reason } => format!("cannot be read: {reason}"),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files whose bytes were read.
    pub files: u64,
    /// Those bytes.
    pub bytes: u64,
    /// What is wrong, by path.
    pub differences: Vec<Difference>,
    /// Further differences that are not named.
    pub left_out: u64,
    /// Whether it got to the end.
    pub complete: bool,
}

/// Called after each piece of work with the time that it took; false ends the check. A check that
/// must not be felt sleeps in it.
pub type Pace<'p> = &'p dyn Fn(Duration) -> bool;

/// One name of a file.
type Named = (NodeId, PathBuf);

/// What one directory's names told.
#[derive(Default)]
struct Listing {
    dirs: Vec<NodeId>,
    files: Vec<Named>,
    differences: Vec<Difference>,
}

impl Volume {
    /// Compares the whole backing tree with the state.
    pub fn verify(&self, pace: Pace<'_>) -> Verified {
        let mut verified = Verified { complete: true, ..Verified::default() };
        let mut dirs = vec![NodeId::ROOT];
        while let Some(dir) = dirs.pop() {
            let (listing, took) = self.timed(|| self.verify_names(dir));
            if !listing.differences.is_empty() {
                let again = self.verify_names(dir).differences;
                verified.add(listing.differences.into_iter().filter(|d| again.contains(d)));
            }
            if !pace(took) {
                verified.complete = false;
                break;
            }
            let read = listing
                .files
                .iter()
                .try_for_each(|file| self.verify_file(file, pace, &mut verified).then_some(()));
            if read.is_none() {
                verified.complete = false;
                break;
            }
            dirs.extend(listing.dirs);
        }
        verified.differences.sort_by(|a, b| a.path.cmp(&b.path));
        verified
    }

    /// Compares a directory's names, and of its entries what `stat` tells.
    fn verify_names(&self, dir: NodeId) -> Listing {
        let state = self.read_state();
        let mut listing = Listing::default();
        let tree = &state.replica.tree;
        let (Some(path), Some(entries)) = (tree.path(dir), tree.node(dir).and_then(Node::dir))
        else {
            return listing;
        };
        if !state.effects.is_empty() {
            // The disk has refused a change so far: it is known to lag behind.
            return listing;
        }
        let mut below: HashMap<Vec<u8>, BackingStat> = match self.disk.read_dir(&path) {
            Ok(below) => below.into_iter().collect(),
            Err(error) => {
                listing.differences.push(Difference { path, mismatch: unreadable(&error) });
                return listing;
            }
        };
        for (_, name, node) in entries.after(0) {
            let at = path.join(OsStr::from_bytes(name.as_bytes()));
            let found = below.remove(name.as_bytes());
            let mut differs =
                |mismatch| listing.differences.push(Difference { path: at.clone(), mismatch });
            let more = match self.verify_entry(&state, node, &at, found) {
                Ok(more) => more,
                Err(mismatch) => {
                    differs(mismatch);
                    continue;
                }
            };
            if let Some(stat) = found {
                self.verify_dress(&state, node, &at, &stat).into_iter().for_each(&mut differs);
            }
            match more {
                Some(FileType::Dir) => listing.dirs.push(node),
                Some(FileType::File) => listing.files.push((node, at)),
                _ => {}
            }
        }
        listing.differences.extend(below.into_keys().map(|name| Difference {
            path: path.join(OsStr::from_bytes(&name)),
            mismatch: Mismatch::Extra,
        }));
        listing
    }

    /// Compares one entry; what else there is to check of it.
    fn verify_entry(
        &self,
        state: &State,
        id: NodeId,
        path: &Path,
        found: Option<BackingStat>,
    ) -> Result<Option<FileType>, Mismatch> {
        let Some(node) = state.replica.tree.node(id) else { return Ok(None) };
        let stat = found.ok_or(Mismatch::Missing)?;
        if stat.file_type.kind() != node.kind() {
            return Err(Mismatch::Kind);
        }
        match &node.body {
            NodeBody::Dir(_) => return Ok(Some(FileType::Dir)),
            NodeBody::File(_) if state.passed.is_written(id) => {}
            NodeBody::File(file) if file.resident && !file.dirty => {
                let expected = file.content.size_bytes;
                if self.disk.is_placeholder(path).unwrap_or(false) {
                    return Err(Mismatch::Absent);
                }
                if stat.size_bytes != expected {
                    return Err(Mismatch::Size { expected, found: stat.size_bytes });
                }
                return Ok(Some(FileType::File));
            }
            NodeBody::File(file) if !file.resident => {
                if !self.disk.is_placeholder(path).unwrap_or(false) {
                    return Err(Mismatch::Content);
                }
            }
            NodeBody::Symlink(target) => match self.disk.readlink(path) {
                Ok(found) if found != *target => return Err(Mismatch::Target),
                Ok(_) => {}
                Err(error) => return Err(unreadable(&error)),
            },
            NodeBody::File(_) | NodeBody::Fifo | NodeBody::Socket => {}
        }
        Ok(None)
    }

    /// Reads a file again and compares its name. False if the check is to end.
    fn verify_file(&self, file: &Named, pace: Pace<'_>, verified: &mut Verified) -> bool {
        let goes_on = Cell::new(true);
        let wrong = self.verify_bytes(file, pace, &goes_on, verified);
        if let Some(first) = wrong.filter(|_| goes_on.get()) {
            let again = self.verify_bytes(file, pace, &goes_on, &mut Verified::default());
            verified.add(again.filter(|again| *again == first));
        }
        goes_on.get()
    }

    fn verify_bytes(
        &self,
        (node, path): &Named,
        pace: Pace<'_>,
        goes_on: &Cell<bool>,
        verified: &mut Verified,
    ) -> Option<Difference> {
        let expected = self.expected(*node, path)?;
        let worked_since = Cell::new(self.clock.running());
        let stop = || {
            let worked = self.clock.running().saturating_sub(worked_since.get());
            goes_on.set(goes_on.get() && pace(worked));
            worked_since.set(self.clock.running());
            !goes_on.get()
        };
        let size = expected.0.size_bytes;
        let described = self.disk.open(path).and_then(|file| {
            let larger = file.stat()?.size_bytes > size;
            Ok((describe(&*file, size, &stop)?, larger))
        });
        stop();
        let mismatch = match described {
            Ok((Some(described), false)) if described.content == expected.0 => None,
            Ok((None, _)) => return None,
            Ok(_) => Some(Mismatch::Content),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some(Mismatch::Content),
            Err(error) => Some(unreadable(&error)),
        };
        verified.files += 1;
        verified.bytes += size;
        // Whoever wrote to it or moved it meanwhile is right.
        let settled = self.expected(*node, path) == Some(expected);
        mismatch.filter(|_| settled).map(|mismatch| Difference { path: path.clone(), mismatch })
    }

    fn timed<T>(&self, work: impl FnOnce() -> T) -> (T, Duration) {
        let start = self.clock.running();
        let done = work();
        (done, self.clock.running().saturating_sub(start))
    }

    /// What `node` should hold below under its name `path`, if that is known just now.
    fn expected(&self, node: NodeId, path: &Path) -> Option<(ContentRef, Version)> {
        let state = self.read_state();
        let tree = &state.replica.tree;
        let stands = tree.node(node)?;
        let settled = !state.passed.is_written(node);
        let file = stands.file().filter(|file| settled && file.resident && !file.dirty)?;
        let is_there = |link: &Link| {
            tree.path_in(link.parent, link.shown.as_bytes()).is_some_and(|at| at == path)
        };
        stands.links.iter().any(is_there).then_some((file.content, file.version))
    }
}

impl Verified {
    fn add(&mut self, differences: impl IntoIterator<Item = Difference>) {
        for difference in differences {
            match self.differences.len() < DIFFERENCES_MAX {
                true => self.differences.push(difference),
                false => self.left_out += 1,
            }
        }
    }
}

fn unreadable(error: &io::Error) -> Mismatch {
    Mismatch::Unreadable { reason: error.to_string() }
}
