//! What replicas tell each other and do with it: what a pump does, reduced to what matters.

use crate::catch_up::Telling;
use crate::checks;
use crate::failure::Check;
use crate::network::Message;
use crate::side::{Made, Side};
use crate::world::{World, broken};
use lockstep_core::change::{Exchange, RenameTarget};
use lockstep_core::{LogCursor, Met, NodeId, Op, OutOfOrder, Sequence, Slot, limits};

impl World<'_> {
    pub fn acknowledge(&mut self, who: usize, peer: usize) {
        if peer == who {
            return;
        }
        let (side, slot) = (&self.sides[who], self.sides[peer].slot);
        let message = Message::Ack {
            applied: side.committed_of(slot),
            durable: side.durable(),
            complete: side.was_complete(),
            taken: self.sessions[who][peer].taken,
        };
        self.send(who, peer, message);
    }

    pub fn ship_all(&mut self) {
        for who in 0..self.sides.len() {
            for peer in 0..self.sides.len() {
                self.ship(who, peer);
            }
        }
    }

    fn ship(&mut self, who: usize, peer: usize) {
        let slot = self.sides[peer].slot;
        if who != peer
            && self.sessions[who][peer].ships_log()
            && self.sides[who].replica.answers(slot)
        {
            (self.trace)(format_args!("{who} tells {peer} what came of its state"));
            self.sessions[who][peer].telling = Some(Telling::new(false));
        }
        self.tell(who, peer);
        while self.sessions[who][peer].ships_log()
            && self.sessions[who][peer].in_flight.len() < limits::BATCHES_IN_FLIGHT_MAX
        {
            let max = 1 + self.rng.below(8);
            // What was sent again a little too early may be trimmed meanwhile.
            let acked = self.sides[who].replica.log.acked(self.sides[peer].slot).durable;
            let cursor = self.sessions[who][peer].cursor.max(acked);
            let Some(batch) = self.sides[who].log_after(cursor, max) else {
                return self.network.cut(who, peer);
            };
            let Some(last) = batch.last().map(|made| made.change.seq) else { return };
            self.sides[who].shipped = self.sides[who].shipped.max(last);
            let session = &mut self.sessions[who][peer];
            session.cursor = last;
            self.send_batch(who, peer, batch);
        }
    }

    pub fn send_batch(&mut self, who: usize, peer: usize, batch: Vec<Made>) {
        let session = &mut self.sessions[who][peer];
        session.sent += 1;
        session.in_flight.push_back(session.sent);
        self.send(who, peer, Message::Batch(batch));
    }

    /// Everything that has arrived by now takes effect.
    pub fn deliver(&mut self) -> Check {
        while let Some((from, to, message)) = self.network.arrived(self.now_ms) {
            self.receive(from, to, message)?;
        }
        for who in 0..self.sides.len() {
            for peer in (0..self.sides.len()).filter(|peer| *peer != who) {
                self.work_inbox(who, peer)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, from: usize, to: usize, message: Message) -> Check {
        match message {
            Message::Hello { applied, incarnation, wants_state } => {
                self.sessions[to][from].incarnation = incarnation;
                self.greeted((to, from), applied, wants_state);
            }
            Message::Ask(ranges) => self.answer((from, to), ranges),
            Message::Answer(asked, parts) => self.answered((to, from), &asked, &parts)?,
            Message::Batch(batch) => self.sessions[to][from].inbox.push_back(batch),
            Message::Ack { applied, durable, complete, taken } => {
                let slot = self.sides[from].slot;
                let replica = &mut self.sides[to].replica;
                let own = durable.get(&replica.slot()).copied().unwrap_or_default();
                replica.log.ack(slot, applied, own, complete);
                if complete {
                    replica.log.hear(slot, own, durable[&slot]);
                }
                let session = &mut self.sessions[to][from];
                session.in_flight.retain(|batch| *batch > taken);
                session.heard = Some(durable).filter(|_| complete);
            }
            Message::Want { node, content, version } => {
                let here = self.sides[to].serves(content);
                self.send(to, from, Message::Have { node, content, version, here });
            }
            Message::Have { node, content, version, here: true } => {
                self.sides[to].gone.remove(&(node, version));
                self.sides[to].install(node, content, version);
                self.commit(to);
            }
            Message::Have { node, version, here: false, .. } => {
                self.sides[to].gone.insert((node, version));
            }
        }
        Ok(())
    }

    /// The peer's session begins: it is shipped the log, or told the state.
    fn greeted(&mut self, (who, peer): (usize, usize), applied: LogCursor, wants_state: bool) {
        // Sometimes a little again: what was applied must be told apart.
        let again = if self.rng.chance(20) { 2 } else { 0 };
        let (slot, only) = (self.sides[peer].slot, self.sides.len() == 2);
        let (side, session) = (&mut self.sides[who], &mut self.sessions[who][peer]);
        let met = side.replica.meet(slot, applied, only);
        session.is_greeted = true;
        if met == Met::Overtaken && !session.asked_state {
            (self.trace)(format_args!("{who} was overtaken by what {peer} has of it"));
            return self.network.cut(who, peer);
        }
        if wants_state || !side.log_reaches(applied) {
            (self.trace)(format_args!("{who} tells {peer} its state"));
            self.has_exchanged = true;
            session.telling = Some(Telling::new(wants_state));
            return;
        }
        session.cursor = Sequence(applied.seq.0.saturating_sub(again));
        if side.log_after(session.cursor, 1).is_none() {
            session.cursor = applied.seq;
        }
    }

    /// Applies what came from `peer`, in order, as far as nothing is waited for.
    fn work_inbox(&mut self, who: usize, peer: usize) -> Check {
        let slot = self.sides[peer].slot;
        while let Some(batch) = self.sessions[who][peer].inbox.front().cloned() {
            let incarnation = self.sessions[who][peer].incarnation;
            self.sides[who].replica.reads_log_of(slot, incarnation);
            for made in &batch {
                if let Some(gap) = self.gap(who, slot, made) {
                    (self.trace)(format_args!("{who} misses changes of {peer}: {gap}"));
                    self.network.cut(who, peer);
                    self.sessions[who][peer].inbox.clear();
                    return Ok(());
                }
                let is_new = self.sides[who].replica.expects(slot, &made.change).is_ok();
                if is_new && (!self.sides[who].has_all(&made.after) || self.must_wait(who, made)) {
                    return Ok(());
                }
                if is_new {
                    self.apply(who, slot, made)?;
                }
            }
            self.sessions[who][peer].inbox.pop_front();
            self.sessions[who][peer].taken += 1;
            if self.rng.chance(80) {
                let at = self.at();
                self.sides[who].settle(at).map_err(broken)?;
            }
            self.commit(who);
            self.acknowledge(who, peer);
        }
        Ok(())
    }

    fn gap(&self, who: usize, slot: Slot, made: &Made) -> Option<OutOfOrder> {
        let expected = self.sides[who].replica.expects(slot, &made.change);
        expected.err().filter(|why| matches!(why, OutOfOrder::Gap { .. }))
    }

    fn apply(&mut self, who: usize, slot: Slot, made: &Made) -> Check {
        checks::in_order(&self.sides[who], slot, made)?;
        if let Op::Exchange(Exchange::Gone(node)) = &made.change.op {
            self.is_removed(who, slot, *node);
        }
        let effects = self.sides[who].apply(slot, &made.change).map_err(broken)?;
        (self.trace)(format_args!("{who} applies {:?}: {effects:?}", made.change));
        Ok(())
    }

    /// A peer removed `node` and knew of its content: it is given up, although a state does not tell
    /// whether it was in view.
    fn is_removed(&mut self, who: usize, peer: Slot, node: NodeId) {
        let file = self.sides[who].replica.tree.node(node).and_then(|n| n.file());
        let Some(file) = file.cloned() else { return };
        let knew = |side: &Side| side.slot == peer && side.replica.has_seen(file.newest_version());
        if self.sides.iter().any(knew) {
            let coming = file.incoming.map(|incoming| incoming.content.hash);
            self.sides[who].given_up.extend(coming.into_iter().chain([file.content.hash]));
        }
    }

    /// A file is not replaced by one whose bytes may still come (`Volume::must_wait_for`).
    fn must_wait(&self, who: usize, made: &Made) -> bool {
        let Op::Rename { node, target: RenameTarget::Replaced { node: old, .. }, .. } =
            &made.change.op
        else {
            return false;
        };
        let side = &self.sides[who];
        let file = |id| side.replica.tree.node(id).and_then(|n| n.file());
        let absent = file(*node).and_then(|f| f.wanted());
        let absent = absent.is_some_and(|(_, version)| !side.gone.contains(&(*node, version)));
        let named = side.replica.tree.node(*node).is_some_and(|n| !n.is_unlinked());
        absent && named && file(*old).is_some_and(|f| f.resident && f.content.size_bytes > 0)
    }

    /// Asks all peers for content that is wanted.
    pub fn ask(&mut self, who: usize) {
        for (node, content, version) in self.sides[who].wanted() {
            for peer in (0..self.sides.len()).filter(|peer| *peer != who) {
                self.send(who, peer, Message::Want { node, content, version });
            }
        }
    }
}
