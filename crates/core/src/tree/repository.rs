//! Git repositories in the tree: places where git would take a conflict copy for one of its own
//! refs or objects.

use super::Tree;
use crate::attr::Kind;
use crate::ids::NodeId;
use crate::name::EntryName;

/// A directory within a git directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InRepository {
    /// The git directory: `.git`, or what has a `HEAD`, `objects` and `refs`.
    pub git_dir: NodeId,
    /// The names that lead from it to the directory; none for the git directory itself.
    pub below: Vec<EntryName>,
}

impl Tree {
    /// Where `dir` is in the innermost git directory around it, if there is one.
    pub fn in_repository(&self, dir: NodeId) -> Option<InRepository> {
        let mut below = Vec::new();
        let mut up = dir;
        while up != NodeId::ROOT || self.is_git_dir(up) {
            if self.is_git_dir(up) {
                below.reverse();
                return Some(InRepository { git_dir: up, below });
            }
            let link = self.node(up)?.links.first()?;
            below.push(link.shown.clone());
            up = link.parent;
        }
        None
    }

    fn is_git_dir(&self, dir: NodeId) -> bool {
        let Some(node) = self.node(dir) else { return false };
        let named = node.links.first().is_some_and(|link| link.shown.as_bytes() == b".git");
        let has_dir = |name: &[u8]| {
            let entry = self.lookup(dir, name).and_then(|id| self.node(id));
            entry.is_some_and(|entry| entry.kind() == Kind::Dir)
        };
        let bare =
            || self.lookup(dir, b"HEAD").is_some() && has_dir(b"objects") && has_dir(b"refs");
        node.kind() == Kind::Dir && (named || bare())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::{Perm, Times, Timespec};
    use crate::change::{Body, Op};
    use crate::ids::{Slot, Version};

    fn make(tree: &mut Tree, node: u64, parent: u64, name: &str, body: Body) {
        let op = Op::Create {
            node: NodeId(node),
            parent: NodeId(parent),
            name: EntryName::new(name.as_bytes()).expect("a name"),
            body,
            perm: Perm::default(),
            times: Times::default(),
            xattrs: Vec::new(),
            at: Timespec::default(),
        };
        tree.apply_local(&op, Version { lamport: node, slot: Slot(1) });
    }

    #[test]
    fn git_directories_are_told_by_their_name_or_by_what_they_hold() {
        let mut tree = Tree::new(Perm::default(), Times::default());
        let names = |place: InRepository| {
            let below: Vec<String> = place.below.iter().map(ToString::to_string).collect();
            (place.git_dir, below.join("/"))
        };
        let file = || Body::File(Default::default());
        make(&mut tree, 10, 1, ".git", Body::Dir);
        make(&mut tree, 11, 10, "refs", Body::Dir);
        make(&mut tree, 12, 11, "heads", Body::Dir);
        make(&mut tree, 20, 1, "bare", Body::Dir);
        make(&mut tree, 21, 20, "HEAD", file());
        make(&mut tree, 22, 20, "objects", Body::Dir);
        assert_eq!(tree.in_repository(NodeId(20)), None);
        make(&mut tree, 23, 20, "refs", Body::Dir);
        make(&mut tree, 30, 1, "src", Body::Dir);
        assert_eq!(
            tree.in_repository(NodeId(12)).map(names),
            Some((NodeId(10), "refs/heads".into()))
        );
        assert_eq!(tree.in_repository(NodeId(10)).map(names), Some((NodeId(10), String::new())));
        assert_eq!(tree.in_repository(NodeId(22)).map(names), Some((NodeId(20), "objects".into())));
        assert_eq!(tree.in_repository(NodeId(30)), None);
        assert_eq!(tree.in_repository(NodeId::ROOT), None);
        make(&mut tree, 41, 1, "HEAD", file());
        make(&mut tree, 42, 1, "objects", Body::Dir);
        make(&mut tree, 43, 1, "refs", Body::Dir);
        assert_eq!(tree.in_repository(NodeId(30)).map(names), Some((NodeId::ROOT, "src".into())));
    }
}
