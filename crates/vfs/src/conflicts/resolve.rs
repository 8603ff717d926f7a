//! Settling a conflict: one version gets the plain name, the others go to the trash; or all stay.

use super::{MARK, Open, open};
use crate::errno::{Errno, Result};
use crate::trash::TrashReason;
use crate::volume::{State, Volume};
use lockstep_core::{NodeId, Place, Slot};
use std::path::{Path, PathBuf};

/// Which version is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// This machine's.
    Mine,
    /// The peer's.
    Theirs,
    /// Both, under the names they have.
    Both,
}

/// Why a conflict was not settled.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is no conflict about this path.
    #[error("there is no conflict about {path}; `lockstep conflicts` lists those there are")]
    Unknown {
        /// The path asked for.
        path: PathBuf,
    },
    /// No version is of the side asked for.
    #[error("no version of {path} is of that side; `lockstep conflicts` says whose each one is")]
    NoVersion {
        /// The path asked for.
        path: PathBuf,
    },
    /// The disk or the tree refused.
    #[error("the conflict about {path} cannot be settled ({source}); nothing is lost, try again")]
    Refused {
        /// The path asked for.
        path: PathBuf,
        /// The reason.
        source: Errno,
    },
}

/// A settled conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The path that has the version kept; of both, the plain one.
    pub path: PathBuf,
    /// Versions that went to the trash.
    pub discarded: u64,
}

impl Volume {
    /// Settles the conflict about `path`, relative to the volume's root: the plain name (then all
    /// of its copies are meant) or one copy.
    pub fn resolve(&self, path: &Path, keep: Keep) -> std::result::Result<Resolved, ResolveError> {
        let refused = |source| ResolveError::Refused { path: path.to_owned(), source };
        let versions = self.versions_of(path);
        for node in versions {
            self.announce_if_written(node);
        }
        let mut state = self.mutate().map_err(refused)?;
        let meant = meant(&state, path);
        let Some(plain) = meant.first().map(|conflict| conflict.plain) else {
            return Err(ResolveError::Unknown { path: path.to_owned() });
        };
        let kept = match keep {
            Keep::Both => Some(plain),
            Keep::Mine => version_of(&meant, |slot| slot == state.replica.slot()),
            Keep::Theirs => version_of(&meant, |slot| slot != state.replica.slot()),
        };
        let kept = kept.ok_or_else(|| ResolveError::NoVersion { path: path.to_owned() })?;
        let outcome = match keep {
            Keep::Both => Ok(0),
            _ => self.keep_one(&mut state, &meant, kept),
        };
        if outcome.is_ok() {
            for conflict in &meant {
                self.unmark(&mut state, conflict.copy);
            }
        }
        let at = state.replica.tree.path(kept).unwrap_or_else(|| path.to_owned());
        self.mutated(state);
        self.commit().map_err(refused)?;
        Ok(Resolved { path: at, discarded: outcome.map_err(refused)? })
    }

    fn versions_of(&self, path: &Path) -> Vec<NodeId> {
        meant(&self.read_state(), path).iter().flat_map(|c| [c.plain, c.copy]).collect()
    }

    /// `kept` gets the plain name, all other versions go to the trash; how many.
    fn keep_one(&self, state: &mut State, meant: &[Open], kept: NodeId) -> Result<u64> {
        let plain = meant[0].plain;
        let place = place_of(state, plain).ok_or(Errno::NoEntry)?;
        let mut discarded = 0;
        for conflict in meant.iter().filter(|conflict| conflict.copy != kept) {
            discarded += self.give_up_version(state, conflict.copy)?;
        }
        if kept != plain {
            discarded += self.give_up_version(state, plain)?;
            let at = place_of(state, kept).ok_or(Errno::NoEntry)?;
            self.move_name(state, kept, &at, place)?;
        }
        Ok(discarded)
    }

    /// Moves `node` and what is in it to the trash, and takes its name away; how many versions.
    fn give_up_version(&self, state: &mut State, node: NodeId) -> Result<u64> {
        let entries: Vec<NodeId> = state
            .replica
            .tree
            .node(node)
            .and_then(|n| n.dir())
            .map_or(Vec::new(), |dir| dir.after(0).map(|(_, _, id)| id).collect());
        let mut discarded = 0;
        for entry in entries {
            discarded += self.give_up_version(state, entry)?;
        }
        let at = place_of(state, node).ok_or(Errno::NoEntry)?;
        let path = state.replica.tree.path_in(at.dir, at.name.as_bytes()).ok_or(Errno::NoEntry)?;
        let stands = state.replica.tree.node(node).ok_or(Errno::Stale)?;
        if stands.dir().is_some() {
            state.trash.author = state.replica.slot();
            self.remove_dir_below(state, &path)?;
        } else {
            if stands.file().is_some_and(|file| !file.resident || file.incoming.is_some()) {
                return Err(Errno::Busy);
            }
            let last = stands.links.len() == 1;
            self.keep_leaver(state, node, &path)?;
            state.trash.author = state.replica.slot();
            match last {
                true => self.discard_below(state, node, &path, TrashReason::Resolved)?,
                false => self.disk.unlink(&path)?,
            }
            discarded += u64::from(last);
        }
        self.drop_name(state, node, &at)?;
        Ok(discarded)
    }

    fn unmark(&self, state: &mut State, copy: NodeId) {
        let marked = state.replica.tree.node(copy).and_then(|node| node.xattrs.get(MARK));
        if marked.is_some_and(|(_, value)| value.is_some()) {
            self.set_mark(state, copy, None);
        }
    }
}

/// The open conflicts about `path`: by the plain name, or by the one copy.
fn meant(state: &State, path: &Path) -> Vec<Open> {
    let is_at = |id: NodeId| state.replica.tree.path(id).is_some_and(|at| at == path);
    let mut all = open(state);
    if let Some(one) = all.iter().position(|conflict| is_at(conflict.copy)) {
        return vec![all.swap_remove(one)];
    }
    all.retain(|conflict| is_at(conflict.plain));
    all.sort_by_key(|conflict| (conflict.mark.at, conflict.copy));
    all
}

/// The newest version whose author `is_wanted`: the plain name's before its copies.
fn version_of(meant: &[Open], is_wanted: impl Fn(Slot) -> bool) -> Option<NodeId> {
    let plain = meant.iter().find(|c| is_wanted(c.mark.kept_by)).map(|c| c.plain);
    plain.or_else(|| meant.iter().rev().find(|c| is_wanted(c.mark.copy_of)).map(|c| c.copy))
}

/// Where users see `node`.
fn place_of(state: &State, node: NodeId) -> Option<Place> {
    let link = state.replica.tree.node(node)?.links.first()?;
    Some(Place { dir: link.parent, name: link.shown.clone() })
}
