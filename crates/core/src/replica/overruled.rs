//! Contents that lost to others written without knowing them: their bytes become files of their own,
//! and until their author knows, they do not count as seen.

use super::{Counters, Replica};
use crate::change::{Body, Change, Op, RenameTarget};
use crate::content::ContentRef;
use crate::ids::{NodeId, Version};
use crate::planted::{self, Bug};
use crate::seen::Seen;
use crate::spans::Spans;
use crate::tree::{Effect, FileBody, Node, Place};

/// Overruled contents that are remembered. Beyond, the oldest is taken for seen as soon as its
/// author says that it is.
const OVERRULED_MAX: usize = 64;

impl Counters {
    /// The content `version` lost to `by`, which was written without knowing it.
    pub(super) fn overrule(&mut self, version: Version, by: Version) {
        self.seen.overruled(version);
        self.overruled.insert(version, by);
        if self.overruled.len() > OVERRULED_MAX {
            self.overruled.pop_first();
        }
    }

    /// What `theirs` has seen is seen, but for contents that lost to what it does not know.
    pub(super) fn merge_seen(&mut self, theirs: &Seen) {
        self.seen.merge(theirs);
        self.overruled.retain(|_, by| !theirs.has_version(*by));
        self.overruled.keys().for_each(|version| self.seen.overruled(*version));
    }
}

impl Replica {
    /// If `change` overrules bytes that this replica wrote and the author had not seen, they
    /// become a file of their own first. So does a removal that has seen newer bytes than ever came:
    /// they were written before an exchange of states told of the removal alone.
    pub(super) fn set_aside_overruled(&mut self, change: &Change) -> Vec<Effect> {
        let (node, base, content, version) = match &change.op {
            Op::Content { node, base, content, .. } => (*node, *base, *content, change.version),
            Op::Unlink { node, seen, .. }
            | Op::Rename { target: RenameTarget::Replaced { node, seen }, .. } => {
                (*node, *seen, ContentRef::default(), *seen)
            }
            _ => return Vec::new(),
        };
        let seen = |version: Version| version == base || planted::has(Bug::DropOverruled);
        self.set_aside_unseen(node, content, version, &seen)
    }

    /// The version of the bytes of `node` here if they are newer than `content`, a version that was
    /// not known here when they were written: by what is told of them as a state, its author must not
    /// take it for known.
    pub(super) fn overrules(
        &self,
        node: NodeId,
        content: ContentRef,
        version: Version,
        seen: &Seen,
    ) -> Option<Version> {
        let file = self.tree.node(node).and_then(Node::file)?;
        let newest = |file: &FileBody| file.incoming.map_or(file.content, |new| new.content);
        let newer = file.newest_version() > version && newest(file) != content;
        let is = newer && !seen.has_version(version) && !planted::has(Bug::ForgetOverruled);
        is.then(|| file.newest_version())
    }

    /// Newest version drawn here.
    pub(super) fn newest_drawn(&self) -> Version {
        let drawn = self.counters.seen.versions.get(&self.slot);
        Version { lamport: drawn.map_or(0, Spans::newest), slot: self.slot }
    }

    pub(super) fn set_aside_unseen(
        &mut self,
        node: NodeId,
        content: ContentRef,
        version: Version,
        seen: &dyn Fn(Version) -> bool,
    ) -> Vec<Effect> {
        let Some(stands) = self.tree.node(node).filter(|n| !n.is_unlinked()) else {
            return Vec::new();
        };
        let overruled = stands.file().is_some_and(|file| {
            // Who does not know bytes of its own has lost them: then they are kept here.
            let is_kept_here = [self.slot, version.slot].contains(&file.version.slot);
            is_kept_here
                && file.incoming.is_none()
                && !seen(file.version)
                && version > file.version
                && file.content != content
                && file.content.size_bytes > 0
                && file.resident
                && !file.dirty
        });
        if !overruled {
            return Vec::new();
        }
        self.keep_copy(node).into_iter().collect()
    }

    pub(super) fn keep_copy(&mut self, node: NodeId) -> Option<Effect> {
        let from = self.tree.path(node)?;
        let (parent, name) = self.tree.name_beside(node)?;
        let loser = self.tree.node(node)?;
        let content = loser.file()?.content;
        let (perm, times) = (loser.perm, loser.times);
        let copy = self.new_node();
        self.local(Op::Create {
            node: copy,
            parent,
            name: name.clone(),
            body: Body::File(Default::default()),
            perm,
            times,
            xattrs: Vec::new(),
            at: times.ctime,
        });
        let to = self.tree.path_in(parent, name.as_bytes())?;
        Some(Effect::SetAside { node, content, from, copy, place: Place { dir: parent, name }, to })
    }
}
