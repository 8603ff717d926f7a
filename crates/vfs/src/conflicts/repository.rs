//! Conflict copies within a git repository go where git does not mistake them for its own: the
//! losing value of a ref becomes a ref `refs/lockstep/HOST/…`, so that its commits stay reachable;
//! everything else goes to `lockstep/conflicts/` in the git directory, which git ignores.

use crate::errno::{Errno, Result};
use crate::volume::{State, Volume};
use lockstep_core::tree::{InRepository, conflict_name};
use lockstep_core::{EntryName, NodeId, Place};
use std::path::Path;

/// Longest content of a ref that is looked at, in bytes.
pub(super) const REF_MAX_BYTES: u64 = 4096;
/// Hexadecimal digits of an object id: SHA-1, SHA-256.
const OBJECT_ID_DIGITS: [usize; 2] = [40, 64];

/// Where a losing version in a repository goes.
pub(crate) enum Aside {
    /// A free place.
    Place(Place),
    /// The same value is kept there already.
    Kept,
}

impl Volume {
    /// Where `loser`, which stands at `path` and wanted `name` in the directory `at`, goes. The
    /// directories on the way are made.
    pub(crate) fn aside_in_repository(
        &self,
        state: &mut State,
        loser: NodeId,
        path: &Path,
        at: &InRepository,
        name: &EntryName,
    ) -> Result<Aside> {
        let host = state.replica.tree.host(state.replica.slot()).to_owned();
        let value = self.ref_value(state, loser, path);
        match ref_dirs(at, name, &host, value.as_deref()) {
            Some(dirs) => {
                let dir = self.dirs_in(state, at.git_dir, &dirs)?;
                self.free_ref(state, dir, name, value.as_deref())
            }
            None => {
                let mut dirs = vec![entry(b"lockstep")?, entry(b"conflicts")?];
                dirs.extend(at.below.iter().cloned());
                let dir = self.dirs_in(state, at.git_dir, &dirs)?;
                let mtime = state.replica.tree.node(loser).map(|n| n.times.mtime);
                let tree = &state.replica.tree;
                let free = (0..)
                    .map(|n| conflict_name(name, &host, mtime.unwrap_or_default(), n))
                    .find(|candidate| tree.lookup(dir, candidate.as_bytes()).is_none());
                let name = free.ok_or(Errno::Exists)?;
                Ok(Aside::Place(Place { dir, name }))
            }
        }
    }

    /// What a ref of this content points at; `None` for what is no ref.
    pub(super) fn ref_value(&self, state: &State, node: NodeId, path: &Path) -> Option<String> {
        let file = state.replica.tree.node(node)?.file()?;
        if !file.resident || file.live_size_bytes > REF_MAX_BYTES {
            return None;
        }
        let mut bytes = vec![0; file.live_size_bytes as usize];
        let read = self.disk.open(path).ok()?.read_at(&mut bytes, 0).ok()?;
        value_of(&bytes[..read])
    }

    /// The first of `name`, `name-2`, … in `dir` that is free, unless one has this value already.
    pub(super) fn free_ref(
        &self,
        state: &State,
        dir: NodeId,
        name: &EntryName,
        value: Option<&str>,
    ) -> Result<Aside> {
        for name in numbered(name) {
            let Some(standing) = state.replica.tree.lookup(dir, name.as_bytes()) else {
                return Ok(Aside::Place(Place { dir, name }));
            };
            let path = state.replica.tree.path(standing).ok_or(Errno::NoEntry)?;
            if value.is_some() && self.ref_value(state, standing, &path).as_deref() == value {
                return Ok(Aside::Kept);
            }
        }
        Err(Errno::Exists)
    }

    /// The directory that `names` lead to from `dir`, made where it is missing; beside what is no
    /// directory.
    pub(super) fn dirs_in(
        &self,
        state: &mut State,
        mut dir: NodeId,
        names: &[EntryName],
    ) -> Result<NodeId> {
        for name in names {
            let is_dir = |state: &State, id| {
                state.replica.tree.node(id).is_some_and(|node| node.dir().is_some())
            };
            for candidate in numbered(name) {
                match state.replica.tree.lookup(dir, candidate.as_bytes()) {
                    Some(standing) if is_dir(state, standing) => dir = standing,
                    Some(_) => continue,
                    None => dir = self.make_dir(state, dir, candidate)?,
                }
                break;
            }
        }
        Ok(dir)
    }
}

/// What a file of a ref points at, if it is one.
pub(super) fn value_of(bytes: &[u8]) -> Option<String> {
    let value = std::str::from_utf8(bytes).ok()?.trim_end();
    let object = OBJECT_ID_DIGITS.contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    (object || value.starts_with("ref: refs/")).then(|| value.to_owned())
}

/// The directories, from the git directory, that the losing value of a ref goes to; `None` if it
/// is no ref: refs stand below `refs`, and a `HEAD` is one while it names a commit itself.
fn ref_dirs(
    at: &InRepository,
    name: &EntryName,
    host: &str,
    value: Option<&str>,
) -> Option<Vec<EntryName>> {
    value?;
    let in_refs = at.below.first().is_some_and(|first| first.as_bytes() == b"refs");
    let detached = name.as_bytes() == b"HEAD" && value.is_some_and(|v| !v.starts_with("ref: "));
    if name.as_bytes().ends_with(b".lock") || !in_refs && !detached {
        return None;
    }
    if in_refs && at.below.get(1).is_some_and(|second| second.as_bytes() == b"lockstep") {
        // Two of one name, made on both sides: the other is numbered.
        return Some(at.below.clone());
    }
    let mut dirs = vec![
        EntryName::new(b"refs").ok()?,
        EntryName::new(b"lockstep").ok()?,
        EntryName::new(ref_component(host).as_bytes()).ok()?,
    ];
    dirs.extend(at.below.iter().skip(usize::from(in_refs)).cloned());
    Some(dirs)
}

/// `host` as one component of a ref's name (git-check-ref-format(1)).
pub(super) fn ref_component(host: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = host.chars().take(64).map(plain).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "peer".to_owned() } else { name.to_owned() }
}

/// `name`, `name-2`, `name-3`, …
fn numbered(name: &EntryName) -> impl Iterator<Item = EntryName> {
    let name = name.clone();
    (1..10_000).filter_map(move |number| match number {
        1 => Some(name.clone()),
        n => EntryName::new(&[name.as_bytes(), format!("-{n}").as_bytes()].concat()).ok(),
    })
}

fn entry(name: &[u8]) -> Result<EntryName> {
    Ok(EntryName::new(name)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_host_becomes_a_component_that_git_accepts() {
        for (host, component) in
            [("ada", "ada"), ("ada's laptop", "ada-s-laptop"), ("h.example.org", "h-example-org")]
        {
            assert_eq!(ref_component(host), component);
        }
        assert_eq!(ref_component(".."), "peer");
    }

    #[test]
    fn only_refs_become_refs() {
        let names = |names: &[&str]| -> Vec<EntryName> {
            names.iter().map(|name| entry(name.as_bytes()).unwrap()).collect()
        };
        let at = |below: &[&str]| InRepository { git_dir: NodeId(9), below: names(below) };
        let object = Some("0123456789012345678901234567890123456789");
        let dirs = |below: &[&str], name: &str, value| {
            ref_dirs(&at(below), &entry(name.as_bytes()).unwrap(), "b", value)
        };
        let expected = names(&["refs", "lockstep", "b", "heads", "topic"]);
        assert_eq!(dirs(&["refs", "heads", "topic"], "one", object), Some(expected));
        let kept = ["refs", "lockstep", "b", "heads"];
        assert_eq!(dirs(&kept, "main", object), Some(names(&kept)));
        assert_eq!(dirs(&["refs", "heads"], "main", None), None);
        assert_eq!(dirs(&["refs", "heads"], "main.lock", object), None);
        assert_eq!(dirs(&[], "HEAD", object), Some(names(&["refs", "lockstep", "b"])));
        assert_eq!(dirs(&[], "HEAD", Some("ref: refs/heads/main")), None);
        assert_eq!(dirs(&[], "index", None), None);
        assert_eq!(dirs(&["objects", "12"], "34", None), None);
    }
}
