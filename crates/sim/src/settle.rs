//! What a volume does with names that lost to a peer's (`crates/vfs/src/settle.rs`).

use crate::side::Side;
use lockstep_core::change::RenameTarget;
use lockstep_core::{EntryName, NodeId, Op, Place, Timespec};

impl Side {
    /// Settles every conflict about a name that this replica gave.
    pub fn settle(&mut self, at: Timespec) -> Result<(), String> {
        if self.replica.is_catching_up() {
            return Ok(());
        }
        for (loser, place, shown) in self.replica.own_shadows() {
            let own = self.replica.own_name(place.dir, shown.as_bytes());
            if own != Some((loser, place.name.clone())) {
                continue;
            }
            let winner = self.replica.tree.lookup(place.dir, place.name.as_bytes());
            let winner = winner.ok_or("a conflict without a winner")?;
            let shown = Place { dir: place.dir, name: shown };
            self.join(loser, &shown, (winner, &place), at)?;
        }
        Ok(())
    }

    fn join(
        &mut self,
        loser: NodeId,
        shown: &Place,
        (winner, place): (NodeId, &Place),
        at: Timespec,
    ) -> Result<(), String> {
        let is_dir =
            |side: &Side, id| side.replica.tree.node(id).is_some_and(|n| n.dir().is_some());
        if is_dir(self, loser) && is_dir(self, winner) {
            return self.join_dirs(loser, shown, winner, at);
        }
        let tree = &self.replica.tree;
        let file = |id: NodeId| tree.node(id).and_then(|n| n.file());
        let empty = file(loser).is_some_and(|f| f.live_size_bytes == 0 && !f.dirty);
        if empty || tree.alike(loser, winner) {
            let lends = file(loser).is_some_and(|f| f.resident) && tree.alike(loser, winner);
            let absent = file(winner).filter(|f| !f.resident).map(|f| (f.content, f.version));
            if let Some((content, version)) = absent.filter(|_| lends) {
                self.install(winner, content, version);
            }
            return self.drop_name(loser, shown, at);
        }
        let aside = tree.free_conflict_name(place.dir, &place.name, loser);
        self.move_name(loser, shown, (place.dir, aside), at)
    }

    fn join_dirs(
        &mut self,
        loser: NodeId,
        shown: &Place,
        winner: NodeId,
        at: Timespec,
    ) -> Result<(), String> {
        // Each move may change what the others are called.
        while let Some((name, child)) = self.entries(loser).into_iter().next() {
            let from = Place { dir: loser, name: name.clone() };
            match self.replica.tree.lookup(winner, name.as_bytes()) {
                None => self.move_name(child, &from, (winner, name), at)?,
                Some(standing) => {
                    let place = Place { dir: winner, name };
                    self.join(child, &from, (standing, &place), at)?;
                }
            }
            if self.replica.tree.lookup(loser, from.name.as_bytes()) == Some(child) {
                return Err(format!("{child} cannot leave {loser}"));
            }
        }
        self.drop_name(loser, shown, at)
    }

    fn drop_name(&mut self, node: NodeId, shown: &Place, at: Timespec) -> Result<(), String> {
        let own = self.replica.own_name(shown.dir, shown.name.as_bytes());
        let (_, name) = own.ok_or("a shown name without an own one")?;
        let seen = self.replica.seen(node);
        self.local(Op::Unlink { node, parent: shown.dir, name, seen, at })
    }

    fn move_name(
        &mut self,
        node: NodeId,
        shown: &Place,
        to: (NodeId, EntryName),
        at: Timespec,
    ) -> Result<(), String> {
        let own = self.replica.own_name(shown.dir, shown.name.as_bytes());
        let (_, name) = own.ok_or("a shown name without an own one")?;
        let from = (shown.dir, name);
        self.local(Op::Rename { node, from, to, target: RenameTarget::Free, at })
    }
}
