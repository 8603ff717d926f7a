//! The end of a process, of the power, of a state directory.

use crate::failure::Check;
use crate::side::{Made, Side};
use crate::world::{World, broken};
use lockstep_core::ContentHash;
use std::collections::BTreeSet;

impl World<'_> {
    /// A replica is killed, or loses power without losing what a peer may have already.
    pub fn crash(&mut self, who: usize) -> Check {
        let (power, at) = (self.rng.chance(50), self.at());
        let side = &mut self.sides[who];
        let result = match power && !side.has_shipped_unsynced() {
            true => {
                (self.trace)(format_args!("{who} loses power"));
                let kept = side.last_synced();
                self.made.retain(|m| m.change.version.slot != side.slot || m.change.seq <= kept);
                side.cut_power(self.now_ms)
            }
            false => {
                (self.trace)(format_args!("{who} is killed"));
                side.kill(at, self.now_ms)
            }
        };
        result.map_err(broken)?;
        self.restarted(who);
        Ok(())
    }

    /// A replica loses its state, gets an old copy of it back, or loses power at a moment when
    /// peers have what was not synced.
    pub fn disaster(&mut self, who: usize) -> Check {
        let (at, now_ms) = (self.at(), self.now_ms);
        let before = self.contents();
        let (kind, draws) = (self.rng.below(3), [self.rng.bits(), self.rng.bits()]);
        let side = &mut self.sides[who];
        let result = match kind {
            0 => {
                (self.trace)(format_args!("{who} loses its state"));
                side.lose_state(at, now_ms)
            }
            1 => {
                (self.trace)(format_args!("{who} gets an old state back"));
                let result = side.put_back(at, now_ms);
                self.remember_copied(who);
                result
            }
            _ => {
                (self.trace)(format_args!("{who} loses power and what it had shipped"));
                side.tear(draws, at, now_ms)
            }
        };
        result.map_err(broken)?;
        self.restarted(who);
        // What was in no other place went with the power, or had been written over.
        let left = self.contents();
        self.sides[who].given_up.extend(before.difference(&left));
        self.forget_unheard(who, &left);
        Ok(())
    }

    /// An old copy of the state of `who` brings back changes that nobody had any more.
    fn remember_copied(&mut self, who: usize) {
        let copied = &self.sides[who].copied;
        let is_back = |made: &Made| copied.contains(&(made.change.seq, made.change.version));
        let (back, unmade) = self.unmade.drain(..).partition(is_back);
        self.made.extend::<Vec<Made>>(back);
        self.unmade = unmade;
    }

    /// Changes that nobody has any more, nor the contents they announced, were never made.
    fn forget_unheard(&mut self, who: usize, left: &BTreeSet<ContentHash>) {
        let slot = self.sides[who].slot;
        let sides = &self.sides;
        let is_known = |made: &Made| {
            let content = made.change.op.content().filter(|content| content.size_bytes > 0);
            let is_here = made.change.version.slot != slot
                && content.is_some_and(|content| left.contains(&content.hash));
            is_here
                || sides.iter().any(|side| match made.change.version.lamport {
                    // What was found in a directory has no time of its own: it came with its node.
                    0 => side.replica.tree.node(made.change.op.node()).is_some(),
                    _ => side.replica.has_seen(made.change.version),
                })
        };
        let is_anothers = |made: &Made| {
            let version = made.change.version;
            version.lamport == 0 && version.slot != slot
        };
        let made = std::mem::take(&mut self.made).into_iter();
        let (made, gone) =
            made.partition::<Vec<Made>, _>(|made| is_anothers(made) || is_known(made));
        self.made = made;
        self.unmade.extend(gone);
    }

    fn contents(&self) -> BTreeSet<ContentHash> {
        self.sides.iter().flat_map(Side::contents).collect()
    }

    fn restarted(&mut self, who: usize) {
        // What the scan found is written down before anything else happens.
        self.commit(who);
        for other in (0..self.sides.len()).filter(|other| *other != who) {
            self.network.cut(who, other);
        }
    }
}
