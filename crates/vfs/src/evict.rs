//! Giving up the bytes of a file that a peer has for good: a placeholder takes its place, and the
//! bytes come back when somebody reads them.
//!
//! Two peers that evict the same file at the same moment must not both succeed. Each asks the other
//! whether it keeps the bytes, and from before it asks until it is done it answers that very
//! question with no.

use crate::carry_out::ignore;
use crate::install::names_below;
use crate::residency::Mark;
use crate::volume::{State, Volume};
use lockstep_core::tree::Node;
use lockstep_core::{ContentRef, NodeId};
use std::io;

/// Why the bytes of a file stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stays {
    /// There is no such path.
    #[error("it does not exist")]
    Missing,
    /// Somebody has it open.
    #[error("it is open: close it first")]
    Open,
    /// It holds writes that no peer knows of yet.
    #[error("it was just written and is not announced yet: run `lockstep wait` first")]
    Unannounced,
    /// A newer version of it is on its way here.
    #[error("a newer version is on its way: run `lockstep wait` first")]
    Changing,
    /// It is pinned, or below something that is.
    #[error("it is pinned: run `lockstep unpin` first")]
    Pinned,
    /// Another eviction of it has not ended.
    #[error("it is being evicted already: try again")]
    Evicting,
    /// Nobody else is known to have the bytes.
    #[error(
        "no connected peer has it on its disk: see `lockstep status`, run `lockstep wait` first"
    )]
    OnlyHere,
    /// The disk refused.
    #[error("the disk here refuses to let go of it: see the log")]
    Disk,
}

impl Volume {
    /// Begins to give up the bytes of `node`: from now until [`Volume::finish_evicting`] no peer is
    /// told that they are here. Answers the content that a peer must have; `None` if there is
    /// nothing to give up.
    pub fn start_evicting(&self, node: NodeId) -> Result<Option<ContentRef>, Stays> {
        let mut state = self.write_state();
        let content = self.may_go(&state, node)?;
        // Of two evictions of one file the end of the first would let the peer rely on it.
        if content.is_some() && !state.residency.evicting.insert(node) {
            return Err(Stays::Evicting);
        }
        Ok(content)
    }

    /// Ends what [`Volume::start_evicting`] began: gives the bytes up of each file whose content a
    /// peer `has` for good, if nothing changed meanwhile. One answer for each.
    pub fn finish_evicting(&self, files: &[(NodeId, ContentRef, bool)]) -> Vec<Result<(), Stays>> {
        let kept = files.iter().filter(|(.., has)| *has).map(|(node, ..)| *node).collect();
        // The marks come first: a crash in between must not have the bytes fetched again.
        let marked = self.mark(kept, Some(Mark::Evicted)).map_err(|error| not_evicted(&error));
        let outcomes: Vec<_> = files
            .iter()
            .map(|(node, content, has)| match has {
                true => marked.and_then(|()| self.let_go(*node, *content)),
                false => Err(Stays::OnlyHere),
            })
            .collect();
        let stay = |((node, _, has), outcome): (_, &Result<_, _>)| {
            (has && outcome.is_err()).then_some(node)
        };
        let stay = files.iter().copied().zip(&outcomes).filter_map(stay).collect();
        if self.mark(stay, None).is_err() {
            tracing::debug!("files that stay are marked as evicted");
        }
        // What is not written down yet is only that the bytes are absent, which a start sees below.
        if let Err(error) = self.commit() {
            tracing::debug!(%error, "an eviction is not written down yet");
        }
        let mut state = self.write_state();
        for (node, ..) in files {
            state.residency.evicting.remove(node);
        }
        outcomes
    }

    fn let_go(&self, node: NodeId, content: ContentRef) -> Result<(), Stays> {
        let mut state = self.write_state();
        if self.may_go(&state, node)? != Some(content) {
            return Err(Stays::Changing);
        }
        let replaced = self.put_placeholder(&state, node, content.size_bytes);
        replaced.map_err(|error| not_evicted(&error))?;
        if let Some(file) = state.replica.tree.node_mut(node).and_then(|n| n.file_mut()) {
            file.resident = false;
        }
        state.wanted.remove(&node);
        drop(state);
        if let Some(cache) = self.cache() {
            cache.invalidate_node(node);
        }
        self.settle_holdings(node, None);
        Ok(())
    }

    /// The content of `node` that may be given up; `None` if there are no bytes to give up.
    fn may_go(&self, state: &State, node: NodeId) -> Result<Option<ContentRef>, Stays> {
        let stands = state.replica.tree.node(node).filter(|n| !n.is_unlinked());
        let file = stands.and_then(Node::file).ok_or(Stays::Missing)?;
        if file.dirty {
            return Err(Stays::Unannounced);
        }
        if file.incoming.is_some() {
            return Err(Stays::Changing);
        }
        if !file.resident || file.content.size_bytes == 0 {
            return Ok(None);
        }
        if self.open_files.lock().contains_key(&node) {
            return Err(Stays::Open);
        }
        if state.residency.is_pinned(&state.replica.tree, node) {
            return Err(Stays::Pinned);
        }
        Ok(Some(file.content))
    }

    /// A placeholder takes the names of `node`, all of them.
    pub(crate) fn put_placeholder(
        &self,
        state: &State,
        node: NodeId,
        size_bytes: u64,
    ) -> io::Result<()> {
        let paths = names_below(state, node);
        let Some((first, others)) = paths.split_first() else { return Ok(()) };
        self.disk.replace_by_placeholder(first, size_bytes)?;
        self.name_alike(first, others)
    }

    /// The absent bytes of `node` are none now: what stands below is an empty file.
    pub(crate) fn empty_placeholder(&self, state: &State, node: NodeId) -> io::Result<()> {
        let paths = names_below(state, node);
        let Some((first, others)) = paths.split_first() else { return Ok(()) };
        let Some(stands) = state.replica.tree.node(node) else { return Ok(()) };
        if stands.size_bytes() > 0 || !self.disk.is_placeholder(first)? {
            return Ok(());
        }
        let temp = format!("empty-{:016x}", node.0);
        ignore(self.disk.temp_remove(&temp), &[io::ErrorKind::NotFound])?;
        let empty = self.disk.temp_create(&temp)?;
        self.dress(&*empty, stands.perm, stands.times)?;
        self.disk.temp_install(&temp, first)?;
        stands.xattrs.keys().try_for_each(|name| self.dress_xattr(first, stands, name))?;
        self.reopen(node, Some(empty));
        self.name_alike(first, others)
    }

    /// Which of these contents a peer may rely on being here: they are on the disk for good, and
    /// are not being given up. One answer for each.
    pub fn keeps(&self, contents: &[(NodeId, ContentRef)]) -> Vec<bool> {
        let here = || -> Vec<bool> {
            let state = self.read_state();
            contents.iter().map(|(node, content)| is_kept(&state, *node, *content)).collect()
        };
        let before = here();
        if !before.contains(&true) || self.make_durable().is_err() {
            return vec![false; contents.len()];
        }
        before.into_iter().zip(here()).map(|(before, after)| before && after).collect()
    }
}

fn is_kept(state: &State, node: NodeId, content: ContentRef) -> bool {
    let stands = state.replica.tree.node(node).filter(|n| !n.is_unlinked());
    let file = stands.and_then(Node::file);
    file.is_some_and(|f| f.resident && !f.dirty && f.content == content)
        && !state.residency.evicting.contains(&node)
        && !state.passed.is_written(node)
}

fn not_evicted(error: &dyn std::fmt::Display) -> Stays {
    tracing::warn!(%error, "a file is not evicted");
    Stays::Disk
}
