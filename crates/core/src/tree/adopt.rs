//! A node found here turns out to be a peer's: it takes that identity where it stands.

use super::effect::{Effect, Place};
use super::node::{Node, TimesVersion};
use super::{Link, Tree};
use crate::ids::{NodeId, Version};
use std::collections::BTreeMap;

impl Tree {
    /// `old` becomes `new`, its names and registers older than any of a peer's.
    pub(crate) fn adopt(&mut self, old: NodeId, new: NodeId) {
        let Some(mut node) = self.nodes.remove(&old) else { return };
        forget_versions(&mut node);
        for link in &node.links {
            if let Some(dir) = self.nodes.get_mut(&link.parent).and_then(Node::dir_mut) {
                dir.replace(&link.shown, new);
            }
            let place = Place { dir: link.parent, name: link.shown.clone() };
            self.recorded.push(Effect::Adopted { was: old, node: new, place });
        }
        let children: Vec<NodeId> =
            node.dir().map_or(Vec::new(), |dir| dir.after(0).map(|(_, _, id)| id).collect());
        if node.dir().is_some() {
            self.move_children(children, old, new);
        }
        self.nodes.insert(new, node);
        self.touched.extend([old, new]);
        self.remembering.remove(&old);
        self.rename_in_shadows(old, new);
        self.yield_names(new);
    }

    /// The names of `id` have become older: what waits for one of them may be newer now.
    fn yield_names(&mut self, id: NodeId) {
        for link in self.nodes.get(&id).map(|node| node.links.clone()).unwrap_or_default() {
            let place = Place { dir: link.parent, name: link.name };
            for other in self.shadows.get(&place).cloned().unwrap_or_default() {
                if let Some(index) = self.link_index(other, place.dir, &place.name) {
                    self.contend_again(other, index);
                }
            }
        }
    }

    fn move_children(&mut self, mut children: Vec<NodeId>, old: NodeId, new: NodeId) {
        children.extend(&self.unlinked);
        let moved = |link: &mut Link| {
            if link.parent == old {
                link.parent = new;
            }
        };
        for id in children {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            self.touched.insert(id);
            node.links.iter_mut().for_each(moved);
            for claim in node.history.iter_mut().flat_map(|claims| &mut claims.names) {
                if claim.parent == old {
                    claim.parent = new;
                }
            }
        }
    }

    fn rename_in_shadows(&mut self, old: NodeId, new: NodeId) {
        let renamed = |id: NodeId| if id == old { new } else { id };
        let place = |place: Place| Place { dir: renamed(place.dir), ..place };
        if !self.shadows.is_empty() {
            let shadows = std::mem::take(&mut self.shadows).into_iter();
            self.shadows = shadows
                .map(|(at, ids)| (place(at), ids.into_iter().map(renamed).collect()))
                .collect();
        }
        if !self.avoided.is_empty() {
            let avoided = std::mem::take(&mut self.avoided).into_iter();
            let by = |ids: std::collections::BTreeSet<(NodeId, crate::EntryName)>| {
                ids.into_iter().map(|(id, name)| (renamed(id), name)).collect()
            };
            self.avoided =
                avoided.map(|(at, ids)| (place(at), by(ids))).collect::<BTreeMap<_, _>>();
        }
    }
}

fn forget_versions(node: &mut Node) {
    node.history = None;
    node.perm_version = Version::default();
    node.times_version = TimesVersion::default();
    node.xattrs.values_mut().for_each(|(version, _)| *version = Version::default());
    if let Some(file) = node.file_mut() {
        file.version = Version::default();
    }
    node.links.iter_mut().for_each(|link| link.version = Version::default());
}
