//! Names of this replica that lost to a peer's: what both replicas already *show* apart is made so
//! by ordinary changes. Directories are joined entry by entry, equal files become one, and what
//! differs keeps its conflict name for good.

use crate::conflicts::{Aside, Unmarked};
use crate::errno::{Errno, Result};
use crate::install::names_below;
use crate::volume::{State, Volume};
use lockstep_core::change::RenameTarget;
use lockstep_core::tree::InRepository;
use lockstep_core::{EntryName, NodeId, Op, Place, Slot};
use lockstep_disk::RenameMode;

impl Volume {
    /// Settles every shadowed name that this replica gave.
    pub(crate) fn settle_own_shadows(&self) {
        {
            let state = self.read_state();
            let settled = state.unmarked.is_empty()
                && state.hidden.is_empty()
                && state.replica.own_shadows().is_empty();
            if settled || state.replica.is_catching_up() {
                return;
            }
        }
        let mut state = self.write_state();
        for hidden in std::mem::take(&mut state.hidden) {
            if let Err(error) = self.uncover(&mut state, &hidden) {
                tracing::warn!(%error, "cannot keep a packed ref's value");
            }
        }
        for unmarked in std::mem::take(&mut state.unmarked) {
            if let Err(error) = self.settle_copy(&mut state, &unmarked) {
                tracing::warn!(copy = %unmarked.copy, %error, "cannot settle a conflict copy");
            }
        }
        for (loser, place, shown) in state.replica.own_shadows() {
            if let Err(error) = self.settle(&mut state, loser, &place, &shown) {
                tracing::warn!(%loser, %error, "cannot settle a name conflict yet");
            }
        }
        self.mutated(state);
    }

    fn settle(
        &self,
        state: &mut State,
        loser: NodeId,
        place: &Place,
        shown: &EntryName,
    ) -> Result<()> {
        if state.replica.own_name(place.dir, shown.as_bytes()) != Some((loser, place.name.clone()))
        {
            // What was settled before it has freed the name.
            return Ok(());
        }
        let winner = state.child(place.dir, place.name.as_bytes())?;
        let at = Place { dir: place.dir, name: shown.clone() };
        self.join(state, loser, &at, winner, place)
    }

    /// `loser`, shown at `at`, gives way to `winner`, which stands at `place`.
    fn join(
        &self,
        state: &mut State,
        loser: NodeId,
        at: &Place,
        winner: NodeId,
        place: &Place,
    ) -> Result<()> {
        let is_dir =
            |state: &State, id| state.replica.tree.node(id).is_some_and(|n| n.dir().is_some());
        if is_dir(state, loser) && is_dir(state, winner) {
            return self.join_dirs(state, loser, at, winner);
        }
        // An open file is still somebody's to write: it is not taken for equal.
        let open = self.open_files.lock().contains_key(&loser);
        let stands = state.replica.tree.node(loser).and_then(|n| n.file());
        let empty = stands.is_some_and(|file| file.live_size_bytes == 0 && !file.dirty);
        if !open && (empty || state.replica.tree.alike(loser, winner)) {
            return self.give_up(state, loser, at, winner);
        }
        if let Some(repository) = state.replica.tree.in_repository(place.dir) {
            return self.settle_in_repository(state, loser, at, &repository, (winner, place));
        }
        let kept_by = winner_slot(state, winner);
        let aside = state.replica.tree.free_conflict_name(place.dir, &place.name, loser);
        self.move_name(state, loser, at, Place { dir: place.dir, name: aside })?;
        self.mark_copy(state, loser, (winner, kept_by), place);
        Ok(())
    }

    /// The copy of what a concurrent edit overruled is a conflict from now on.
    fn settle_copy(&self, state: &mut State, unmarked: &Unmarked) -> Result<()> {
        let Unmarked { copy, kept, place } = unmarked;
        let link = state.replica.tree.node(*copy).and_then(|n| n.links.first());
        let Some(at) = link.map(|link| Place { dir: link.parent, name: link.shown.clone() }) else {
            return Ok(());
        };
        match state.replica.tree.in_repository(place.dir) {
            Some(repository) => {
                self.settle_in_repository(state, *copy, &at, &repository, (*kept, place))
            }
            None => {
                self.mark_copy(state, *copy, (*kept, winner_slot(state, *kept)), place);
                Ok(())
            }
        }
    }

    /// In a git repository `loser` goes where git does not take it for its own.
    fn settle_in_repository(
        &self,
        state: &mut State,
        loser: NodeId,
        at: &Place,
        repository: &InRepository,
        (winner, plain): (NodeId, &Place),
    ) -> Result<()> {
        let kept_by = winner_slot(state, winner);
        let path = state.replica.tree.path_in(at.dir, at.name.as_bytes()).ok_or(Errno::NoEntry)?;
        if repository.below.is_empty() && plain.name.as_bytes() == b"packed-refs" {
            self.unpack_losing_refs(state, (loser, &path), winner, repository)?;
        }
        match self.aside_in_repository(state, loser, &path, repository, &plain.name)? {
            Aside::Place(to) => {
                self.move_name(state, loser, at, to)?;
                self.mark_copy(state, loser, (winner, kept_by), plain);
                Ok(())
            }
            Aside::Kept => {
                self.keep_leaver(state, loser, &path)?;
                self.disk.unlink(&path)?;
                self.drop_name(state, loser, at)
            }
        }
    }

    fn join_dirs(
        &self,
        state: &mut State,
        loser: NodeId,
        at: &Place,
        winner: NodeId,
    ) -> Result<()> {
        // Each move may change what the others are called.
        while let Some((name, child)) = first_entry(state, loser) {
            let from = Place { dir: loser, name: name.clone() };
            match state.replica.tree.lookup(winner, name.as_bytes()) {
                None => self.move_name(state, child, &from, Place { dir: winner, name })?,
                Some(standing) => {
                    self.join(state, child, &from, standing, &Place { dir: winner, name })?;
                }
            }
            if state.replica.tree.lookup(loser, from.name.as_bytes()) == Some(child) {
                return Err(Errno::Busy);
            }
        }
        let path = state.replica.tree.path_in(at.dir, at.name.as_bytes()).ok_or(Errno::NoEntry)?;
        self.disk.rmdir(&path)?;
        self.drop_name(state, loser, at)
    }

    /// The winner is the same file: if its bytes are not here yet, the loser's are.
    fn give_up(&self, state: &mut State, loser: NodeId, at: &Place, winner: NodeId) -> Result<()> {
        let tree = &state.replica.tree;
        let path = tree.path_in(at.dir, at.name.as_bytes()).ok_or(Errno::NoEntry)?;
        let lends = |id| tree.node(id).and_then(|n| n.file()).is_some_and(|f| f.resident);
        let lent = lends(loser)
            && tree.alike(loser, winner)
            && tree.node(winner).and_then(|n| n.file()).is_some()
            && !lends(winner);
        if lent {
            let stands = tree.node(winner).ok_or(Errno::Stale)?;
            let version = stands.content_version();
            let (perm, times) = (stands.perm, stands.times);
            let target = tree.path(winner).ok_or(Errno::Stale)?;
            self.keep_lender(state, loser, &path)?;
            self.disk.rename(&path, &target, RenameMode::Replace)?;
            let mut others = names_below(state, winner);
            others.retain(|other| *other != target);
            self.name_alike(&target, &others)?;
            let shown = self.disk.open(&target)?;
            self.dress(&*shown, perm, times)?;
            self.reopen(winner, Some(shown));
            state.replica.tree.content_arrived(winner, version);
            state.wanted.remove(&winner);
            self.transfers.cancel(winner);
        } else {
            self.keep_leaver(state, loser, &path)?;
            self.disk.unlink(&path)?;
        }
        self.drop_name(state, loser, at)
    }

    pub(crate) fn drop_name(&self, state: &mut State, node: NodeId, at: &Place) -> Result<()> {
        let (_, name) = state.replica.own_name(at.dir, at.name.as_bytes()).ok_or(Errno::NoEntry)?;
        let seen = state.replica.seen(node);
        state.replica.local(Op::Unlink { node, parent: at.dir, name, seen, at: self.now() });
        self.after_unlink(state, node);
        self.tell_moved(at);
        self.tell_kernel(self.follow_up(state));
        Ok(())
    }

    /// Moves a name on disk, if it does not stand there already, and in the tree.
    pub(crate) fn move_name(
        &self,
        state: &mut State,
        node: NodeId,
        at: &Place,
        to: Place,
    ) -> Result<()> {
        let tree = &state.replica.tree;
        let from_path = tree.path_in(at.dir, at.name.as_bytes()).ok_or(Errno::NoEntry)?;
        let to_path = tree.path_in(to.dir, to.name.as_bytes()).ok_or(Errno::NoEntry)?;
        if from_path != to_path {
            self.disk.rename(&from_path, &to_path, RenameMode::NoReplace)?;
        }
        let (_, own) = state.replica.own_name(at.dir, at.name.as_bytes()).ok_or(Errno::NoEntry)?;
        self.tell_moved(at);
        self.tell_moved(&to);
        state.replica.local(Op::Rename {
            node,
            from: (at.dir, own),
            to: (to.dir, to.name),
            target: RenameTarget::Free,
            at: self.now(),
        });
        self.tell_kernel(self.follow_up(state));
        Ok(())
    }

    pub(crate) fn tell_moved(&self, place: &Place) {
        if let Some(cache) = self.cache() {
            cache.invalidate_entry(place.dir, place.name.as_bytes());
            cache.invalidate_node(place.dir);
        }
    }
}

fn first_entry(state: &State, dir: NodeId) -> Option<(EntryName, NodeId)> {
    let entries = state.replica.tree.node(dir)?.dir()?;
    entries.after(0).next().map(|(_, name, id)| (name.clone(), id))
}

/// Whose version stands under a name: of a file the author of its newest content, else who made it.
fn winner_slot(state: &State, winner: NodeId) -> Slot {
    let version = state.replica.tree.node(winner).map(|node| node.content_version());
    version.map(|v| v.slot).filter(|slot| *slot != Slot(0)).unwrap_or(winner.slot())
}
