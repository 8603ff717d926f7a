//! What a file wears below: mode, owner, attributes. A placeholder and a file being written are not
//! compared, nor are times: those of a file that was written here are the disk's own, a little later.

use super::Mismatch;
use crate::volume::{State, Volume};
use crate::xattrs::is_private;
use lockstep_core::tree::Node;
use lockstep_core::{Kind, NodeId};
use lockstep_disk::BackingStat;
use std::collections::BTreeMap;
use std::path::Path;

impl Volume {
    /// Compares one entry that is of the right kind.
    pub(super) fn verify_dress(
        &self,
        state: &State,
        node: NodeId,
        path: &Path,
        stat: &BackingStat,
    ) -> Vec<Mismatch> {
        let Some(node) = state.replica.tree.node(node) else { return Vec::new() };
        let settled = node.file().is_none_or(|file| file.resident && !file.dirty);
        if !settled || node.kind() == Kind::Symlink {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mode = self.backing_mode(node.perm, node.kind());
        if stat.mode != mode {
            found.push(Mismatch::Mode { expected: mode, found: stat.mode });
        }
        let owner = (node.perm.uid, node.perm.gid);
        if self.privileged && owner != (stat.uid, stat.gid) {
            found.push(Mismatch::Owner { expected: owner, found: (stat.uid, stat.gid) });
        }
        if matches!(node.kind(), Kind::File | Kind::Dir) && !self.wears_attributes(node, path) {
            found.push(Mismatch::Attributes);
        }
        found
    }

    /// Whether exactly the attributes of `node` are below; true where none can be read.
    fn wears_attributes(&self, node: &Node, path: &Path) -> bool {
        let Ok(names) = self.disk.list_xattrs(path) else { return true };
        let users = |name: &[u8]| name.starts_with(b"user.") && !is_private(name);
        let below = names.into_iter().filter(|name| users(name));
        let below: BTreeMap<Vec<u8>, Option<Vec<u8>>> =
            below.map(|name| (name.clone(), self.disk.get_xattr(path, &name).ok())).collect();
        let known = node.xattrs.iter().filter(|(name, (_, value))| users(name) && value.is_some());
        known.map(|(name, (_, value))| (name, value)).eq(below.iter())
    }
}
