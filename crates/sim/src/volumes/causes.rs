//! What each change comes after. Logs are carried one by one: where a third member made what a change
//! is about, the change may come first. It is held until everything is here that its author had, as
//! `crates/sim/src/exchange.rs` does with replicas.

use super::host::slot;
use lockstep_core::{Op, Sequence};
use lockstep_vfs::{Incoming, Volume};
use std::collections::BTreeMap;

/// By author and number: how far the author had the logs of others.
#[derive(Default)]
pub struct Causes(BTreeMap<(usize, Sequence), Vec<(usize, Sequence)>>);

impl Causes {
    /// `author` is about to ship what it has numbered: what was not noted before comes after all it
    /// has by now.
    pub fn note(&mut self, volume: &Volume, author: usize, hosts: usize) {
        let others = (0..hosts).filter(|host| *host != author);
        let has: Vec<_> = others.map(|host| (host, volume.cursor(slot(host)).seq)).collect();
        let last = volume.log_last();
        // A power cut takes numbers back: nobody waits for them.
        self.0.retain(|(host, seq), _| *host != author || *seq <= last);
        for (_, has) in self.0.values_mut().flatten().filter(|(host, _)| *host == author) {
            *has = last.min(*has);
        }
        let noted = self.0.range((author, Sequence(0))..=(author, last)).next_back();
        let noted = noted.map_or(Sequence(0), |((_, seq), _)| *seq);
        for seq in noted.0 + 1..=last.0 {
            self.0.insert((author, Sequence(seq)), has.clone());
        }
    }

    /// How many changes of `batch`, which `author` made, the host `at` may apply.
    pub fn due(&self, volume: &Volume, at: usize, author: usize, batch: &[Incoming]) -> usize {
        let held = |incoming: &Incoming| {
            let after = self.0.get(&(author, incoming.change.seq));
            !matches!(incoming.change.op, Op::Exchange(_))
                && after.is_some_and(|after| {
                    after.iter().any(|has| has.0 != at && volume.cursor(slot(has.0)).seq < has.1)
                })
        };
        batch.iter().position(held).unwrap_or(batch.len())
    }
}
