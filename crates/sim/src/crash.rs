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
                side.put_back(at, now_ms)
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
        self.forget_unheard(who);
        Ok(())
    }

    /// Changes of `who` that neither it nor anybody else has any more were never made.
    fn forget_unheard(&mut self, who: usize) {
        let slot = self.sides[who].slot;
        let sides = &self.sides;
        let is_made = |made: &Made| {
            // What was found in a directory has no time of its own: it came with its node.
            let stands = |side: &Side| side.replica.tree.node(made.change.op.node()).is_some();
            let is_known = |side: &Side| match made.change.version.lamport {
                0 => stands(side),
                _ => side.replica.has_seen(made.change.version),
            };
            made.change.version.slot != slot || sides.iter().any(is_known)
        };
        let (made, unmade) = std::mem::take(&mut self.made).into_iter().partition(is_made);
        self.made = made;
        self.unmade.extend::<Vec<Made>>(unmade);
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
