//! Values of refs that are in `packed-refs` only: where that file loses, or a loose ref hides what
//! it has, they become refs of their own, so that what they point at stays reachable.

use super::repository::{Aside, REF_MAX_BYTES, ref_component};
use crate::errno::{Errno, Result};
use crate::volume::{State, Volume};
use lockstep_core::change::{Body, RenameTarget};
use lockstep_core::tree::InRepository;
use lockstep_core::{Change, EntryName, Kind, NodeId, Op, Perm, Place, Times};
use lockstep_disk::describe_bytes;
use std::collections::BTreeMap;
use std::path::Path;

/// Largest `packed-refs` that is looked into.
const PACKED_REFS_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Refs made of one losing file at most.
const REFS_MAX: usize = 1_000;
/// `packed-refs` is written anew with this mode; refs get it too.
const REF_MODE: u16 = 0o644;

/// A value packed here that a loose ref of a peer hides.
#[derive(Clone, Debug)]
pub(crate) struct Hidden {
    at: InRepository,
    dir: NodeId,
    name: EntryName,
    value: String,
}

impl Volume {
    /// What this replica moved and then packed, while a peer moved the same ref: the peer's `change`
    /// replaces, or edits, a loose ref that does not stand here any more, so its author did not know.
    pub(crate) fn hidden_by(&self, state: &State, change: &Change) -> Option<Hidden> {
        let tree = &state.replica.tree;
        let (dir, name, packed_away) = match &change.op {
            Op::Rename { to: (dir, name), target: RenameTarget::Replaced { node, .. }, .. } => {
                (*dir, name.clone(), *node)
            }
            Op::Content { node, .. } => {
                let removed = tree.node(*node).filter(|node| node.is_unlinked())?;
                let (dir, name) = removed.name_taken_last()?;
                (dir, name, *node)
            }
            _ => return None,
        };
        if tree.lookup(dir, name.as_bytes()).is_some() {
            return None;
        }
        let at = tree.in_repository(dir)?;
        let packed = tree.lookup(at.git_dir, b"packed-refs")?;
        let own = tree.node(packed)?.file()?.version.slot == state.replica.slot();
        let parts = at.below.iter().chain([&name]).map(|part| str::from_utf8(part.as_bytes()));
        let full: Vec<&str> = parts.collect::<std::result::Result<_, _>>().ok()?;
        let refs = self.packed_refs(state, packed, &tree.path(packed)?).filter(|_| own)?;
        let value = refs.get(&full.join("/"))?.clone();
        let loose = tree.node(packed_away).and_then(|n| n.file()).map(|file| file.content);
        let moved = loose != Some(describe_bytes(format!("{value}\n").as_bytes()).content);
        moved.then_some(Hidden { at, dir, name, value })
    }

    /// Makes a hidden value a ref of its own.
    pub(crate) fn uncover(&self, state: &mut State, hidden: &Hidden) -> Result<()> {
        let tree = &state.replica.tree;
        let loose = tree.lookup(hidden.dir, hidden.name.as_bytes());
        let shown = loose.and_then(|id| self.ref_value(state, id, &tree.path(id)?));
        if loose.is_none() || shown.as_ref() == Some(&hidden.value) {
            // The peer packed it too, or has the same: then it is told from what is packed.
            return Ok(());
        }
        let host = ref_component(state.replica.tree.host(state.replica.slot()));
        let mut dirs = vec![
            EntryName::new(b"refs")?,
            EntryName::new(b"lockstep")?,
            EntryName::new(host.as_bytes())?,
        ];
        dirs.extend(hidden.at.below.iter().skip(1).cloned());
        let dir = self.dirs_in(state, hidden.at.git_dir, &dirs)?;
        match self.free_ref(state, dir, &hidden.name, Some(&hidden.value))? {
            Aside::Place(place) => self.make_ref(state, place, &hidden.value),
            Aside::Kept => Ok(()),
        }
    }

    /// Makes refs of what `loser`, at `path`, has packed and `winner` has not or has otherwise.
    /// Nothing while the winner's bytes are not here: the losing file is kept whole in any case.
    pub(crate) fn unpack_losing_refs(
        &self,
        state: &mut State,
        (loser, path): (NodeId, &Path),
        winner: NodeId,
        at: &InRepository,
    ) -> Result<()> {
        let winner_path = state.replica.tree.path(winner).ok_or(Errno::NoEntry)?;
        let packed = |id, path: &Path| self.packed_refs(state, id, path);
        let (Some(lost), Some(won)) = (packed(loser, path), packed(winner, &winner_path)) else {
            return Ok(());
        };
        let host = ref_component(state.replica.tree.host(state.replica.slot()));
        let differing = lost.iter().filter(|(name, value)| won.get(*name) != Some(value));
        for (name, value) in differing.take(REFS_MAX) {
            let below = name.split('/').skip(1);
            let parts = ["refs", "lockstep", &host].into_iter().chain(below);
            let names: Vec<EntryName> =
                parts.map(|part| Ok(EntryName::new(part.as_bytes())?)).collect::<Result<_>>()?;
            let Some((last, dirs)) = names.split_last() else { continue };
            let dir = self.dirs_in(state, at.git_dir, dirs)?;
            if let Aside::Place(place) = self.free_ref(state, dir, last, Some(value))? {
                self.make_ref(state, place, value)?;
            }
        }
        Ok(())
    }

    /// Refs with their values, as gitformat of `packed-refs` has them: a value, a space, the name.
    fn packed_refs(
        &self,
        state: &State,
        node: NodeId,
        path: &Path,
    ) -> Option<BTreeMap<String, String>> {
        let file = state.replica.tree.node(node)?.file()?;
        if !file.resident || file.live_size_bytes > PACKED_REFS_MAX_BYTES {
            return None;
        }
        let mut bytes = vec![0; file.live_size_bytes as usize];
        let read = self.disk.open(path).ok()?.read_at(&mut bytes, 0).ok()?;
        Some(parse(&bytes[..read]))
    }

    fn make_ref(&self, state: &mut State, place: Place, value: &str) -> Result<()> {
        let tree = &state.replica.tree;
        let path = tree.path_in(place.dir, place.name.as_bytes()).ok_or(Errno::NoEntry)?;
        let owner = tree.node(place.dir).ok_or(Errno::Stale)?.perm;
        let perm = Perm { mode: REF_MODE, ..owner };
        let file = self.disk.create(&path, self.backing_mode(perm, Kind::File))?;
        let text = format!("{value}\n");
        file.write_all_at(text.as_bytes(), 0)?;
        if self.privileged {
            file.set_owner(perm.uid, perm.gid)?;
        }
        let (node, at) = (state.replica.new_node(), self.now());
        self.tell_moved(&place);
        let (parent, name, body) = (place.dir, place.name, Body::File(Default::default()));
        let (times, xattrs) = (Times::at(at), Vec::new());
        state.replica.local(Op::Create { node, parent, name, body, perm, times, xattrs, at });
        self.written_below(state, node, text.len() as u64);
        Ok(())
    }
}

/// Comments, and what a tag was peeled to, are left out; so is what is kept of earlier conflicts, and
/// what could not be a file below `refs`: a packed-refs file may come from anywhere.
pub(super) fn parse(bytes: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(bytes);
    let entry = |line: &str| {
        let (value, name) = line.split_once(' ')?;
        let hex = value.len() as u64 <= REF_MAX_BYTES
            && !value.is_empty()
            && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        let kept = name.starts_with("refs/")
            && !name.starts_with("refs/lockstep/")
            && name.split('/').all(|part| EntryName::new(part.as_bytes()).is_ok());
        (hex && kept).then(|| (name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_refs_are_read_without_what_is_no_ref() {
        let text = "# pack-refs with: peeled fully-peeled sorted \n\
                    0123456789012345678901234567890123456789 refs/heads/main\n\
                    1123456789012345678901234567890123456789 refs/lockstep/b/heads/main\n\
                    2123456789012345678901234567890123456789 refs/tags/v1\n\
                    ^3123456789012345678901234567890123456789\n\
                    4123456789012345678901234567890123456789 refs/../../escaped\n\
                    5123456789012345678901234567890123456789 refs/heads//two\n\
                    nonsense\n";
        let names: Vec<String> = parse(text.as_bytes()).into_keys().collect();
        assert_eq!(names, ["refs/heads/main", "refs/tags/v1"]);
        assert!(parse(&[0xff, 0, 10]).is_empty());
    }
}
