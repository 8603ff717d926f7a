//! Back from the trash: the version becomes a new file of the volume, as if it had just been
//! written here, so that peers get it too. Nothing is ever overwritten.

use super::TrashEntry;
use crate::errno::Errno;
use crate::volume::{State, Volume};
use lockstep_core::change::Body;
use lockstep_core::tree::restored_name;
use lockstep_core::{EntryName, Kind, NodeId, Op, Perm, Times};
use lockstep_disk::FileType;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no version of this path.
    #[error("the trash has no version of {path}; `lockstep trash list` shows what it has")]
    Unknown {
        /// The path asked for.
        path: PathBuf,
    },
    /// The disk or the tree refused.
    #[error("{path} cannot be restored ({source}); it is still in the trash")]
    Refused {
        /// The path asked for.
        path: PathBuf,
        /// The reason.
        source: Errno,
    },
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where it is, relative to the volume's root.
    pub path: PathBuf,
    /// How many files and symlinks that are.
    pub files: u64,
}

impl Volume {
    /// Puts the newest version of `path` (relative to the volume's root) back: under another name
    /// beside it if something stands there. If `path` was a directory: the newest version of
    /// everything that stood in it and whose name is free.
    pub fn restore(&self, path: &Path) -> std::result::Result<Restored, RestoreError> {
        let refused = |source| RestoreError::Refused { path: path.to_owned(), source };
        let (whole, versions) = self.versions_to_restore(path);
        let mut restored = Restored { path: path.to_owned(), files: 0 };
        for id in versions {
            if let Some(at) = self.restore_version(id).map_err(refused)? {
                restored.files += 1;
                restored.path = if whole { at } else { restored.path };
            }
        }
        if restored.files == 0 {
            return Err(RestoreError::Unknown { path: path.to_owned() });
        }
        self.announce_due();
        self.commit().map_err(refused)?;
        Ok(restored)
    }

    /// The newest version of `path`, and true; else that of each path below it, and false.
    fn versions_to_restore(&self, path: &Path) -> (bool, Vec<u64>) {
        let state = self.read_state();
        let newest_first = || state.trash.entries.iter().rev();
        let exact = newest_first().find(|(_, entry)| entry.path() == path);
        if let Some((id, _)) = exact {
            return (true, vec![*id]);
        }
        let mut below: BTreeMap<PathBuf, u64> = BTreeMap::new();
        for (id, entry) in newest_first().filter(|(_, entry)| entry.path().starts_with(path)) {
            below.entry(entry.path()).or_insert(*id);
        }
        let is_free = |path: &Path| self.disk.stat(path).is_err();
        (false, below.into_iter().filter(|(path, _)| is_free(path)).map(|(_, id)| id).collect())
    }

    /// Where the version is now; `None` if it has left the trash meanwhile.
    fn restore_version(&self, id: u64) -> crate::errno::Result<Option<PathBuf>> {
        let mut state = self.mutate()?;
        let Some(entry) = state.trash.entries.get(&id).cloned() else { return Ok(None) };
        let (restored, place) = self.put_back(&mut state, &entry)?;
        state.trash.remove(id);
        self.mutated(state);
        if let Some(cache) = self.cache() {
            cache.invalidate_entry(place.0, place.1.as_bytes());
            cache.invalidate_node(place.0);
        }
        Ok(Some(restored))
    }

    fn put_back(
        &self,
        state: &mut State,
        entry: &TrashEntry,
    ) -> crate::errno::Result<(PathBuf, (NodeId, EntryName))> {
        let path = entry.path();
        let dir = self.dirs_for(state, path.parent().unwrap_or(Path::new("")))?;
        let name = EntryName::new(path.file_name().unwrap_or_default().as_bytes())?;
        let name = self.restored_to(state, dir, name);
        let to = state.replica.tree.path_in(dir, name.as_bytes()).ok_or(Errno::NoEntry)?;
        self.disk.keep_restore(&entry.kept, &to)?;
        let stat = self.disk.stat(&to)?;
        let body = match stat.file_type {
            FileType::Symlink => Body::Symlink(self.disk.readlink(&to)?),
            _ => Body::File(Default::default()),
        };
        let (at, kind) = (self.now(), body.kind());
        let times = Times { ctime: at, ..entry.times };
        let perm = entry.perm;
        let xattrs = if kind == Kind::File { self.user_xattrs(&to)? } else { Vec::new() };
        let node = state.replica.new_node();
        let parent = dir;
        state.replica.local(Op::Create {
            node,
            parent,
            name: name.clone(),
            body,
            perm,
            times,
            xattrs,
            at,
        });
        if kind == Kind::File {
            self.written_below(state, node, stat.size_bytes);
        }
        Ok((to, (dir, name)))
    }

    /// A free name for what is restored into `dir`.
    fn restored_to(&self, state: &State, dir: NodeId, name: EntryName) -> EntryName {
        if state.replica.tree.lookup(dir, name.as_bytes()).is_none() {
            return name;
        }
        let at = self.now();
        (0..)
            .map(|attempt| restored_name(&name, at, attempt))
            .find(|candidate| state.replica.tree.lookup(dir, candidate.as_bytes()).is_none())
            .expect("a directory cannot hold every candidate")
    }

    /// The directory `path`, made anew where it is missing.
    pub(crate) fn dirs_for(&self, state: &mut State, path: &Path) -> crate::errno::Result<NodeId> {
        let mut dir = NodeId::ROOT;
        for part in path.components() {
            let name = EntryName::new(part.as_os_str().as_bytes())?;
            dir = match state.replica.tree.lookup(dir, name.as_bytes()) {
                Some(node) if state.replica.tree.node(node).is_some_and(|n| n.dir().is_some()) => {
                    node
                }
                Some(_) => {
                    let beside = self.restored_to(state, dir, name);
                    self.make_dir(state, dir, beside)?
                }
                None => self.make_dir(state, dir, name)?,
            };
        }
        Ok(dir)
    }

    pub(crate) fn make_dir(
        &self,
        state: &mut State,
        parent: NodeId,
        name: EntryName,
    ) -> crate::errno::Result<NodeId> {
        let path = state.replica.tree.path_in(parent, name.as_bytes()).ok_or(Errno::NoEntry)?;
        let above = state.replica.tree.node(parent).ok_or(Errno::Stale)?.perm;
        let perm = Perm { mode: above.mode & 0o777 | 0o700, ..above };
        self.disk.mkdir(&path, self.backing_mode(perm, Kind::Dir))?;
        let node = self.record_new(state, parent, name.clone(), &path, Body::Dir, perm)?;
        if let Some(cache) = self.cache() {
            cache.invalidate_entry(parent, name.as_bytes());
            cache.invalidate_node(parent);
        }
        Ok(node)
    }

    /// The file of `node` holds bytes that are not announced yet.
    pub(crate) fn written_below(&self, state: &mut State, node: NodeId, size_bytes: u64) {
        if let Some(file) = state.replica.tree.node_mut(node).and_then(|n| n.file_mut()) {
            (file.dirty, file.live_size_bytes) = (true, size_bytes);
        }
        state.announce.wrote(node, self.now_ms());
        state.announce.closed(node, self.now_ms());
    }

    fn user_xattrs(&self, path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let names = self.disk.list_xattrs(path).unwrap_or_default();
        let ours = names.into_iter().filter(|name| name.starts_with(b"user."));
        ours.map(|name| Ok((name.clone(), self.disk.get_xattr(path, &name)?))).collect()
    }
}
