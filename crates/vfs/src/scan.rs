//! Comparing the backing tree with the state: what was put there, changed or removed while the
//! volume was not open comes in as local changes.

mod links;
mod lost;
mod moved;

use crate::begun::Redone;
use crate::commit::Below;
use crate::doubt::Doubt;
use crate::serve::holding_of;
use crate::volume::{Origin, State, Volume};
use links::Links;
use lockstep_core::change::Body;
use lockstep_core::tree::{Node, NodeBody};
use lockstep_core::{EntryName, Kind, Manifest, NodeId, Op, Perm, Replica, Times, Version};
use lockstep_disk::{BackingStat, FileType, describe};
use moved::{Listing, Moved};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Files whose newest content is not below.
pub(crate) fn wanted(replica: &Replica) -> BTreeSet<NodeId> {
    let absent = |(id, node): (NodeId, &Node)| {
        node.file().filter(|f| f.wanted().is_some() && !node.is_unlinked()).map(|_| id)
    };
    replica.tree.iter().filter_map(absent).collect()
}

/// One pass over the backing tree.
struct Scan<'a> {
    volume: &'a Volume,
    origin: Origin,
    links: Links,
    moved: Moved,
    /// Nodes found where they stand.
    placed: HashSet<NodeId>,
    /// Nodes whose names are not below: gone, unless they turn up elsewhere.
    vanished: Vec<NodeId>,
    /// Contents that a peer's changes had just brought when the last run ended.
    redone: Redone,
    /// Which bytes a power cut may have taken.
    doubt: Doubt,
    /// What was written down of the backing tree.
    below: HashMap<NodeId, Below>,
    /// Nodes whose names a power cut took.
    lost: Vec<NodeId>,
}

impl Volume {
    /// Takes in what the backing tree holds and the state does not, and the reverse.
    /// `below`: what was written down with each node of the backing tree.
    pub(crate) fn scan(&self, origin: Origin, below: HashMap<NodeId, Below>) -> io::Result<()> {
        let doubt = self.begin_run()?;
        let redone = self.redo()?;
        self.clear_temps()?;
        let mut state = self.write_state();
        let kept = self.disk.keep_list()?;
        let for_peers = |name: &String| !name.starts_with(crate::trash::KEPT_PREFIX);
        let now = state.replica.lamport();
        state.kept.extend(kept.into_iter().filter(for_peers).map(|name| (now, name)));
        let inodes = below.iter().filter(|(_, below)| below.inode != 0);
        let inodes: HashMap<NodeId, u64> =
            inodes.map(|(node, below)| (*node, below.inode)).collect();
        // A directory that waits for its place would be given it by a move.
        let followed = match state.replica.tree.has_displaced() {
            true => HashMap::new(),
            false => inodes.clone(),
        };
        let mut moved = Moved::look(&*self.disk, followed)?;
        let mut scan = Scan {
            volume: self,
            origin,
            links: self.settle_links(&mut state, &mut moved, &inodes, &redone)?,
            moved,
            placed: HashSet::new(),
            vanished: Vec::new(),
            redone,
            doubt,
            below,
            lost: Vec::new(),
        };
        let mut dirs = vec![NodeId::ROOT];
        while let Some(dir) = dirs.pop() {
            scan.directory(&mut state, dir, &mut dirs)?;
        }
        scan.remove_vanished(&mut state);
        let unmade = std::mem::take(&mut scan.redone.unmade);
        self.follow_up(&mut state);
        self.make_up(&mut state, &unmade);
        self.make_again(&mut state, scan.lost);
        drop(state);
        // What was awaited may have been found in place.
        self.clear_temps()
    }

    /// Removes what no transfer goes on with.
    fn clear_temps(&self) -> io::Result<()> {
        for temp in self.disk.temp_list()? {
            match holding_of(&temp) {
                Some(holding) if self.serves_still(&temp) => {
                    self.transfers.left_behind(holding.node)
                }
                None if temp == crate::begun::PROGRESS => {}
                _ => self.disk.temp_remove(&temp)?,
            }
        }
        Ok(())
    }
}

impl Scan<'_> {
    fn directory(
        &mut self,
        state: &mut State,
        dir: NodeId,
        dirs: &mut Vec<NodeId>,
    ) -> io::Result<()> {
        self.has_followed(state);
        loop {
            let Some(path) = state.replica.tree.path(dir) else { return Ok(()) };
            let below = self.moved.listing(&*self.volume.disk, &path)?;
            self.missing_names(state, dir, &below);
            if self.has_followed(state) {
                continue;
            }
            if let Some(found) = self.entries_below(state, dir, &path, &below)? {
                dirs.extend(found);
                return Ok(());
            }
        }
    }

    /// Names that the state knows in `dir` and that are not below: gone, or moved.
    fn missing_names(&mut self, state: &mut State, dir: NodeId, below: &Listing) {
        for (name, node) in entries(state, dir) {
            if below.contains_key(name.as_bytes()) || self.redone.unmade.contains(&node) {
                continue;
            }
            let is_dir = state.replica.tree.node(node).is_some_and(|n| n.dir().is_some());
            match is_dir || self.moved.place(state, &*self.volume.disk, node).is_some() {
                true => self.vanished.push(node),
                false => self.missing(state, dir, &name, node),
            }
        }
    }

    /// A name that is gone may go to another file, which is moved there at once: what stands there
    /// below is moved beside. Whether anything was moved: paths may be others then.
    fn has_followed(&mut self, state: &mut State) -> bool {
        let moved = !self.volume.follow_up(state).is_empty();
        if moved {
            self.moved.forget_listings();
        }
        moved
    }

    /// Takes in what stands in `dir` below; its directories, or `None` if something was moved
    /// meanwhile.
    fn entries_below(
        &mut self,
        state: &mut State,
        dir: NodeId,
        path: &Path,
        below: &Listing,
    ) -> io::Result<Option<Vec<NodeId>>> {
        let mut names: Vec<&Vec<u8>> = below.keys().collect();
        names.sort_unstable();
        let mut dirs = Vec::new();
        for name in names {
            let at = path.join(OsStr::from_bytes(name));
            let stat = &below[name];
            let Ok(entry) = EntryName::new(name) else { continue };
            let mut node = self.settle_name(state, dir, &entry, &at, stat);
            if let Some(other) = node
                && self.links.is_of_another(other, stat)
            {
                if self.outlived(other, stat) {
                    self.volume.take_away(state, other, &at)?;
                    self.missing(state, dir, &entry, other);
                    continue;
                }
                self.gone(state, dir, &entry, other);
                node = None;
            }
            if let Some(known) = node {
                node = self.known(state, known, &at, stat)?;
            }
            if node.is_none() {
                if self.has_followed(state) {
                    return Ok(None);
                }
                node = self.found(state, dir, name, &at, stat)?;
            }
            self.placed.extend(node);
            dirs.extend(node.filter(|_| stat.file_type == FileType::Dir));
        }
        Ok(Some(dirs))
    }

    /// A name the state knows is not below any more.
    fn gone(&self, state: &mut State, parent: NodeId, shown: &EntryName, node: NodeId) {
        for (_, child) in entries(state, node) {
            // A name that is freed goes to who waited for it: one asks for each when its turn comes.
            if let Some(name) = name_in(state, node, child) {
                self.gone(state, node, &name, child);
            }
        }
        let Some((_, name)) = state.replica.own_name(parent, shown.as_bytes()) else { return };
        let seen = state.replica.seen(node);
        let at = self.volume.now();
        state.replica.local(Op::Unlink { node, parent, name, seen, at });
        state.wanted.remove(&node);
    }

    /// A name both know: its content and attributes may have changed. `None` if it is another node
    /// by now.
    fn known(
        &mut self,
        state: &mut State,
        node: NodeId,
        path: &Path,
        stat: &BackingStat,
    ) -> io::Result<Option<NodeId>> {
        let Some(stands) = state.replica.tree.node(node) else { return Ok(None) };
        if let NodeBody::File(file) = &stands.body {
            if self.volume.disk.is_placeholder(path)? {
                self.placeholder_found(state, node)?;
                return Ok(Some(node));
            }
            let settled = file.resident
                && !file.dirty
                && !self.doubt.covers(stat)
                && file.content.size_bytes == stat.size_bytes
                && stands.times.mtime == stat.mtime;
            if !settled && self.content_changed(state, node, path, stat)? == Found::Torn {
                return Ok(Some(node));
            }
        }
        let stands = state.replica.tree.node(node).map(|n| &n.body);
        if let Some(NodeBody::Symlink(target)) = stands
            && self.volume.disk.readlink(path)? != *target
        {
            tracing::debug!(%node, "a symlink was changed while the volume was closed");
            let (parent, name) = (state.replica.tree.parent(node), path.file_name());
            let name = EntryName::new(name.map_or(&b""[..], |n| n.as_bytes()));
            if let Ok(name) = name {
                self.gone(state, parent, &name, node);
                return Ok(None);
            }
        }
        if self.outlived(node, stat) {
            self.volume.dress_as_known(state, node, path, stat)?;
            return Ok(Some(node));
        }
        self.perm_changed(state, node, stat);
        self.xattrs_changed(state, node, path, stat)?;
        Ok(Some(node))
    }

    /// A placeholder is never anybody's bytes, whatever the state says stands here: a crash came
    /// between the two. The content is fetched; a file that was empty is empty again.
    fn placeholder_found(&self, state: &mut State, node: NodeId) -> io::Result<()> {
        if matches!(self.doubt, Doubt::Since(_)) {
            state.lose_bytes(node);
        }
        state.announce.forget(node);
        let Some(stands) = state.replica.tree.node_mut(node) else { return Ok(()) };
        stands.forget_writes();
        let Some(file) = stands.file_mut() else { return Ok(()) };
        file.live_size_bytes = file.content.size_bytes;
        file.resident = file.content.size_bytes == 0;
        self.volume.empty_placeholder(state, node)?;
        state.want(node);
        Ok(())
    }

    /// Whether the state is newer than what is below of `node`, whose last changes a power cut took.
    fn outlived(&self, node: NodeId, stat: &BackingStat) -> bool {
        let written = self.below.get(&node).map(|below| below.written);
        self.doubt.covers(stat) && written.is_some_and(|written| stat.ctime <= written)
    }

    /// Attributes that were set behind the volume's back, or just before a crash. One that is
    /// missing below was not removed by anybody, for new content below starts without: it is put
    /// there.
    fn xattrs_changed(
        &self,
        state: &mut State,
        node: NodeId,
        path: &Path,
        stat: &BackingStat,
    ) -> io::Result<()> {
        let found = self.xattrs(path, stat)?;
        let Some(stands) = state.replica.tree.node(node) else { return Ok(()) };
        let is_below = |name: &Vec<u8>| found.iter().any(|(below, _)| below == name);
        if matches!(stat.file_type, FileType::File | FileType::Dir) {
            for (name, (_, value)) in stands.xattrs.iter().filter(|(name, _)| !is_below(name)) {
                if value.is_some() {
                    self.volume.dress_xattr(path, stands, name)?;
                }
            }
        }
        for (name, value) in found {
            let known = state.replica.tree.node(node).and_then(|n| n.xattrs.get(&name));
            if known.and_then(|(_, known)| known.as_ref()) != Some(&value) {
                let (value, ctime) = (Some(value), stat.ctime);
                state.replica.local(Op::SetXattr { node, name, value, ctime });
            }
        }
        Ok(())
    }

    fn content_changed(
        &self,
        state: &mut State,
        node: NodeId,
        path: &Path,
        stat: &BackingStat,
    ) -> io::Result<Found> {
        let file = self.volume.disk.open(path)?;
        let Some(description) = describe(&*file, stat.size_bytes, &|| false)? else {
            return Ok(Found::Whole);
        };
        let content = description.content;
        let in_doubt = self.doubt.covers(stat);
        let sealed = if in_doubt { self.volume.sealed(path, stat)? } else { None };
        if sealed.is_some_and(|sealed| sealed != content) {
            self.volume.tear_off(state, node)?;
            return Ok(Found::Torn);
        }
        self.volume.hold(node, &content, &description.manifest);
        if state.take_found(node, content, &self.redone)
            || sealed.is_some() && state.take_brought(node, content)
            || in_doubt && state.take_lost(node, content, stat)
        {
            return Ok(Found::Whole);
        }
        // What a change set aside is announced here.
        state.announce.forget(node);
        let Some(stands) = state.replica.tree.node_mut(node) else { return Ok(Found::Whole) };
        let perm = stands.perm;
        let times = Times { atime: stands.times.atime, mtime: stat.mtime, ctime: stat.ctime };
        let same_times = !stands.announced() && stands.times.mtime == stat.mtime;
        let Some(body) = stands.file_mut() else { return Ok(Found::Whole) };
        body.live_size_bytes = content.size_bytes;
        let base = body.version;
        if body.content != content || !body.resident {
            state.replica.local(Op::Content { node, base, content, times, perm });
            state.wanted.remove(&node);
        } else if !same_times {
            state.replica.local(Op::SetTimes { node, times });
        }
        Ok(Found::Whole)
    }

    fn perm_changed(&self, state: &mut State, node: NodeId, stat: &BackingStat) {
        let Some(stands) = state.replica.tree.node(node) else { return };
        let (old, kind) = (stands.perm, stands.kind());
        if kind == Kind::Symlink {
            return;
        }
        let mut perm = old;
        if stat.mode != self.volume.backing_mode(old, kind) {
            perm.mode = stat.mode as u16;
        }
        if self.volume.privileged {
            (perm.uid, perm.gid) = (stat.uid, stat.gid);
        }
        if perm != old {
            state.replica.local(Op::SetPerm { node, perm, ctime: stat.ctime });
        }
    }

    /// A name only the backing tree knows.
    fn found(
        &mut self,
        state: &mut State,
        parent: NodeId,
        name: &[u8],
        path: &Path,
        stat: &BackingStat,
    ) -> io::Result<Option<NodeId>> {
        let Ok(name) = EntryName::new(name) else { return Ok(None) };
        if stat.file_type == FileType::File && self.volume.disk.is_placeholder(path)? {
            self.volume.disk.unlink(path)?;
            return Ok(None);
        }
        if let Some(node) = self.links.node(stat.ino) {
            self.enter(state, Op::Link { node, parent, name, at: stat.ctime });
            return Ok(Some(node));
        }
        let Some((body, manifest)) = self.body(path, stat)? else { return Ok(None) };
        if let Body::File(content) = &body
            && self.doubt.covers(stat)
            && self.volume.sealed(path, stat)?.is_some_and(|sealed| sealed != *content)
        {
            // A peer's, which comes again with its change.
            self.volume.disk.unlink(path)?;
            return Ok(None);
        }
        let node = state.replica.new_node();
        if let Body::File(content) = &body {
            self.volume.hold(node, content, &manifest);
        }
        if stat.nlink > 1 && body.kind() == Kind::File {
            self.links.found(stat.ino, node);
        }
        let perm = Perm { mode: stat.mode as u16, uid: stat.uid, gid: stat.gid };
        let times = Times { atime: stat.atime, mtime: stat.mtime, ctime: stat.ctime };
        let xattrs = self.xattrs(path, stat)?;
        let at = parent_time(state, parent);
        self.enter(state, Op::Create { node, parent, name, body, perm, times, xattrs, at });
        Ok(Some(node))
    }

    fn enter(&self, state: &mut State, op: Op) {
        match self.origin {
            // Also after a crash: what is found may be what a peer's change had just made, before
            // the change was written down. It comes again, and its name wins.
            Origin::Joining | Origin::Existing => state.replica.local_found(op),
            Origin::Created => drop::<Version>(state.replica.local(op)),
        }
    }

    fn body(&self, path: &Path, stat: &BackingStat) -> io::Result<Option<(Body, Manifest)>> {
        let body = match stat.file_type {
            FileType::File => {
                let file = self.volume.disk.open(path)?;
                match describe(&*file, stat.size_bytes, &|| false)? {
                    Some(found) => {
                        return Ok(Some((Body::File(found.content), found.manifest)));
                    }
                    None => return Ok(None),
                }
            }
            FileType::Dir => Body::Dir,
            FileType::Symlink => Body::Symlink(self.volume.disk.readlink(path)?),
            FileType::Fifo => Body::Fifo,
            FileType::Socket | FileType::CharDevice | FileType::BlockDevice => Body::Socket,
        };
        Ok(Some((body, Manifest::default())))
    }

    fn xattrs(&self, path: &Path, stat: &BackingStat) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        if !matches!(stat.file_type, FileType::File | FileType::Dir) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for name in self.volume.disk.list_xattrs(path).unwrap_or_default() {
            if name.starts_with(b"user.") && !name.starts_with(b"user.lockstep.") {
                let value = self.volume.disk.get_xattr(path, &name)?;
                found.push((name, value));
            }
        }
        Ok(found)
    }
}

/// What the bytes below a file's name are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// Some version, or an edit.
    Whole,
    /// What a power cut left of a content that a transfer had put in place: nobody's.
    Torn,
}

fn entries(state: &State, dir: NodeId) -> Vec<(EntryName, NodeId)> {
    let dir = state.replica.tree.node(dir).and_then(Node::dir);
    dir.map_or(Vec::new(), |d| d.after(0).map(|(_, name, id)| (name.clone(), id)).collect())
}

/// The name under which `child` is shown in `dir` now.
fn name_in(state: &State, dir: NodeId, child: NodeId) -> Option<EntryName> {
    let links = &state.replica.tree.node(child)?.links;
    links.iter().find(|link| link.parent == dir).map(|link| link.shown.clone())
}

/// Taking in what was already there does not move the directory's times.
fn parent_time(state: &State, parent: NodeId) -> lockstep_core::Timespec {
    state.replica.tree.node(parent).map(|n| n.times.mtime).unwrap_or_default()
}
