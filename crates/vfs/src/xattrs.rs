//! Extended attributes: `user.*` replicates, other namespaces go to the disk below as they are.

use crate::errno::{Errno, Result};
use crate::volume::Volume;
use lockstep_core::{Kind, NodeId, Op, limits};
use lockstep_disk::XattrFlags;

const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;
/// Attributes that are Lockstep's own: nobody sees them, and they are not on disk.
const PRIVATE_PREFIX: &[u8] = b"user.lockstep.";

/// Whether an attribute is Lockstep's own.
pub(crate) fn is_private(name: &[u8]) -> bool {
    name.starts_with(PRIVATE_PREFIX)
}

impl Volume {
    /// Sets an attribute; `flags` as of setxattr(2).
    pub fn set_xattr(&self, node: NodeId, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        if value.len() > limits::XATTR_VALUE_MAX_BYTES {
            return Err(Errno::Range);
        }
        self.change_xattr(node, name, Some(value), flags)
    }

    /// Removes an attribute.
    pub fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        self.change_xattr(node, name, None, XATTR_REPLACE)
    }

    fn change_xattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: Option<&[u8]>,
        flags: i32,
    ) -> Result<()> {
        if name.len() > limits::XATTR_NAME_MAX_BYTES {
            return Err(Errno::Range);
        }
        if is_private(name) {
            return Err(Errno::Perm);
        }
        let mut state = self.mutate()?;
        let stands = state.replica.tree.node(node).ok_or(Errno::Stale)?;
        // A removed file that is still open has its own attributes in the tree, the disk's no more.
        let path = state.replica.tree.path(node);
        let replicated = name.starts_with(b"user.");
        if replicated && !matches!(stands.kind(), Kind::File | Kind::Dir) {
            return Err(Errno::Perm);
        }
        let exists = match replicated {
            true => stands.xattrs.get(name).is_some_and(|(_, value)| value.is_some()),
            false => path.as_ref().is_some_and(|path| self.disk.get_xattr(path, name).is_ok()),
        };
        match (exists, flags) {
            (true, XATTR_CREATE) => return Err(Errno::Exists),
            (false, XATTR_REPLACE) => return Err(Errno::NoData),
            _ => {}
        }
        let held: usize =
            stands.xattrs.iter().map(|(n, (_, v))| n.len() + v.as_ref().map_or(0, Vec::len)).sum();
        let more = value.map_or(0, |value| name.len() + value.len());
        let full = stands.xattrs.len() >= limits::XATTRS_PER_NODE_MAX && !exists;
        if replicated && more > 0 && (full || held + more > limits::XATTRS_TOTAL_MAX_BYTES) {
            return Err(Errno::NoSpace);
        }
        match (&path, value) {
            (None, _) if replicated => {}
            (None, _) => return Err(Errno::NotSupported),
            (Some(path), Some(value)) => {
                self.disk.set_xattr(path, name, value, XattrFlags::Any)?;
            }
            (Some(path), None) => match self.disk.remove_xattr(path, name).map_err(Errno::from) {
                Ok(()) => {}
                Err(Errno::NoData) if replicated => {}
                Err(error) => return Err(error),
            },
        }
        if replicated {
            let (name, value) = (name.to_vec(), value.map(<[u8]>::to_vec));
            state.replica.local(Op::SetXattr { node, name, value, ctime: self.now() });
            self.mutated(state);
        }
        Ok(())
    }

    /// An attribute's value.
    pub fn get_xattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        let state = self.read_state();
        let stands = state.replica.tree.node(node).ok_or(Errno::Stale)?;
        if is_private(name) {
            return Err(Errno::NoData);
        }
        if name.starts_with(b"user.") {
            let value = stands.xattrs.get(name).and_then(|(_, value)| value.clone());
            return value.ok_or(Errno::NoData);
        }
        let path = state.replica.tree.path(node).ok_or(Errno::NoData)?;
        Ok(self.disk.get_xattr(&path, name)?)
    }

    /// The names of all attributes.
    pub fn list_xattrs(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        let state = self.read_state();
        let stands = state.replica.tree.node(node).ok_or(Errno::Stale)?;
        let mut names: Vec<Vec<u8>> = stands
            .xattrs
            .iter()
            .filter(|(name, (_, value))| value.is_some() && !is_private(name))
            .map(|(name, _)| name.clone())
            .collect();
        let below =
            state.replica.tree.path(node).and_then(|path| self.disk.list_xattrs(&path).ok());
        names.extend(below.into_iter().flatten().filter(|name| !name.starts_with(b"user.")));
        Ok(names)
    }
}
