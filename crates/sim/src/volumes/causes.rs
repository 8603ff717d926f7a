//! What each change comes after. Logs are carried one by one: where a third member made what a change
//! is about, the change may come first. It is held until everything is here that its author had, as
//! `crates/sim/src/exchange.rs` does with replicas.

use super::host::slot;
use lockstep_core::{LogCursor, Op, Sequence};
use lockstep_vfs::{Incoming, Volume};
use std::collections::BTreeMap;

/// By author and number: how far the author had the logs of others.
#[derive(Default)]
pub struct Causes(BTreeMap<(usize, Sequence), Vec<(usize, LogCursor)>>);

impl Causes {
    /// `author` is about to ship what it has numbered: what was not noted before comes after all it
    /// has by now.
    pub fn note(&mut self, volume: &Volume, author: usize, hosts: usize) {
        let others = (0..hosts).filter(|host| *host != author);
        let has: Vec<_> = others.map(|host| (host, volume.cursor(slot(host)))).collect();
        let last = volume.log_last();
        // A power cut takes numbers back.
        self.0.retain(|(host, seq), _| *host != author || *seq <= last);
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
                    after.iter().any(|has| has.0 != at && !is_here(volume, *has))
                })
        };
        batch.iter().position(held).unwrap_or(batch.len())
    }
}

/// Whether `volume` has the log of `host` as far as `has`; where that log has begun anew it is told
/// the state instead.
fn is_here(volume: &Volume, (host, has): (usize, LogCursor)) -> bool {
    let here = volume.cursor(slot(host));
    here.incarnation != has.incarnation || here.seq >= has.seq
}
