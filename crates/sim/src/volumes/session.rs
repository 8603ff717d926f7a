//! Sessions between daemons in virtual time, and what a pump does with them: offering the log,
//! applying batches, acknowledging.
//!
//! A session has a lane for changes in each direction, which keeps its order; contents go past it
//! (`fetch.rs`). It can be cut, or half open: one direction takes everything and delivers nothing.

use super::causes::Causes;
use super::host::{Host, slot};
use crate::rng::Rng;
use lockstep_core::{Change, Comparison, LogCursor, Met, NodeRange, Sequence, limits};
use lockstep_vfs::{ApplyError, Incoming, Told, Volume};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Batches on their way and not acknowledged.
const IN_FLIGHT_MAX: usize = 16;

/// How a session was opened.
#[derive(Clone, Copy)]
struct Hello {
    applied: LogCursor,
    incarnation: u64,
    wants_state: bool,
}

/// What a daemon knows of one peer.
#[derive(Default)]
pub struct PeerEnd {
    theirs: Option<Hello>,
    /// How far the own log was sent; `None` until it is decided how the peer is brought up to date.
    sent: Option<Sequence>,
    in_flight: usize,
    inbox: VecDeque<Vec<Incoming>>,
    durable: Sequence,
    complete: Sequence,
}

enum Message {
    Batch(Vec<Incoming>),
    /// The answer to a batch, or a heartbeat: that tells the last change of its sender too.
    Ack {
        applied: Sequence,
        durable: Sequence,
        complete: bool,
        last: Option<Sequence>,
    },
}

/// One direction of a session.
#[derive(Default)]
struct Lane {
    queue: VecDeque<(Duration, Message)>,
    is_dead: bool,
    latency_ms: usize,
}

/// All sessions that are up.
#[derive(Default)]
pub struct Sessions {
    /// By direction: from whom, to whom.
    lanes: BTreeMap<(usize, usize), Lane>,
    causes: Causes,
}

impl Sessions {
    pub fn is_up(&self, a: usize, b: usize) -> bool {
        self.lanes.contains_key(&(a, b))
    }

    /// Whether an answer comes: both directions work.
    pub fn answers(&self, a: usize, b: usize) -> bool {
        let works = |key| self.lanes.get(&key).is_some_and(|lane| !lane.is_dead);
        works((a, b)) && works((b, a))
    }

    pub fn half_open(&mut self, from: usize, to: usize) {
        if let Some(lane) = self.lanes.get_mut(&(from, to)) {
            lane.is_dead = true;
        }
    }

    /// Whether some direction between the two delivers nothing.
    pub fn is_half_open(&self, a: usize, b: usize) -> bool {
        self.is_up(a, b) && !self.answers(a, b)
    }

    pub fn is_quiet(&self) -> bool {
        self.lanes.values().all(|lane| lane.queue.is_empty())
    }

    fn send(&mut self, from: usize, to: usize, message: Message, now: Duration, rng: &mut Rng) {
        let Some(lane) = self.lanes.get_mut(&(from, to)).filter(|lane| !lane.is_dead) else {
            return;
        };
        let delay = Duration::from_millis(1 + rng.below(lane.latency_ms) as u64);
        let after = lane.queue.back().map_or(Duration::ZERO, |(at, _)| *at);
        lane.queue.push_back((after.max(now + delay), message));
    }

    fn arrived(&mut self, from: usize, to: usize, now: Duration) -> Option<Message> {
        let lane = self.lanes.get_mut(&(from, to))?;
        lane.queue.front().filter(|(at, _)| *at <= now)?;
        lane.queue.pop_front().map(|(_, message)| message)
    }
}

fn hello(volume: &Volume, peer: usize) -> Option<Hello> {
    volume.commit().ok()?;
    let peer = slot(peer);
    Some(Hello {
        applied: volume.cursor(peer),
        incarnation: volume.incarnation(),
        wants_state: volume.wants_state(peer),
    })
}

/// Opens a session between two that are up. False if it ends at once.
pub fn connect(
    hosts: &mut [Host],
    sessions: &mut Sessions,
    a: usize,
    b: usize,
    rng: &mut Rng,
) -> bool {
    cut(hosts, sessions, a, b);
    let (Some(one), Some(two)) = (hosts[a].volume.clone(), hosts[b].volume.clone()) else {
        return false;
    };
    let Some(of_a) = hello(&one, b) else { return false };
    two.meet(slot(a), of_a.applied);
    let Some(of_b) = hello(&two, a) else { return false };
    let overtaken = |met, ours: Hello| met == Met::Overtaken && !ours.wants_state;
    let met = (one.meet(slot(b), of_b.applied), two.meet(slot(a), of_a.applied));
    if overtaken(met.0, of_a) || overtaken(met.1, of_b) {
        return false;
    }
    for (from, to, theirs) in [(a, b, of_b), (b, a, of_a)] {
        let latency_ms = [2, 20, 400][rng.below(3)];
        sessions.lanes.insert((from, to), Lane { latency_ms, ..Lane::default() });
        if let Some(end) = hosts[from].peers.get_mut(&to) {
            (end.theirs, end.sent, end.in_flight) = (Some(theirs), None, 0);
            end.inbox.clear();
        }
    }
    for volume in [one, two] {
        volume.set_online(true);
        volume.queue_wanted();
    }
    true
}

/// Ends the session between two.
pub fn cut(hosts: &mut [Host], sessions: &mut Sessions, a: usize, b: usize) {
    for (from, to) in [(a, b), (b, a)] {
        sessions.lanes.remove(&(from, to));
        if let Some(end) = hosts[from].peers.get_mut(&to) {
            (end.theirs, end.sent) = (None, None);
            end.inbox.clear();
        }
    }
    for host in [a, b] {
        let online = sessions.lanes.keys().any(|(from, _)| *from == host);
        if let Some(volume) = &hosts[host].volume {
            volume.set_online(online);
        }
    }
}

/// What one host and one of its peers do with each other.
pub struct Exchange<'w> {
    pub hosts: &'w mut [Host],
    pub sessions: &'w mut Sessions,
    pub rng: &'w mut Rng,
    pub now: Duration,
}

impl Exchange<'_> {
    /// Offers some of the log of `from` to `to`. False if there was nothing to offer.
    pub fn ship(&mut self, from: usize, to: usize) -> bool {
        let Some(volume) = self.hosts[from].volume.clone() else { return false };
        self.sessions.causes.note(&volume, from, self.hosts.len());
        let Some(end) = self.hosts[from].peers.get(&to) else { return false };
        let Some(theirs) = end.theirs.filter(|_| end.in_flight < IN_FLIGHT_MAX) else {
            return false;
        };
        let cursor = match end.sent {
            Some(cursor) => cursor,
            None if !theirs.wants_state && volume.log_reaches(theirs.applied) => theirs.applied.seq,
            None => return self.tell_state(&volume, from, to, theirs),
        };
        let count = 1 + self.rng.below(limits::BATCH_NOTIFICATIONS_MAX);
        let Ok(changes) = volume.log_after(cursor, count) else { return false };
        let last = changes.last().map_or(cursor, |change| change.seq);
        self.sent(from, to, last);
        if changes.is_empty() {
            return false;
        }
        self.send(&volume, from, to, changes);
        true
    }

    fn sent(&mut self, from: usize, to: usize, through: Sequence) {
        if let Some(end) = self.hosts[from].peers.get_mut(&to) {
            end.sent = Some(through);
        }
    }

    fn send(&mut self, volume: &Volume, from: usize, to: usize, changes: Vec<Change>) {
        let carried = changes.into_iter().map(|change| {
            let content = change.op.content();
            let inline = content.and_then(|content| volume.inline(change.op.node(), content));
            Incoming { change, inline }
        });
        let batch = Message::Batch(carried.collect());
        self.sessions.send(from, to, batch, self.now, self.rng);
        if let Some(end) = self.hosts[from].peers.get_mut(&to) {
            end.in_flight += 1;
        }
    }

    /// Where the log does not reach: what differs is found out and told.
    fn tell_state(&mut self, volume: &Volume, from: usize, to: usize, theirs: Hello) -> bool {
        let first = theirs.wants_state && from < to;
        if !first && volume.listens_first(slot(to)) {
            return false;
        }
        let Some(peer) = self.hosts[to].volume.clone() else { return false };
        let (index, mut plan) = volume.begin_exchange(slot(to));
        let at_peer = peer.digests();
        let mut comparison = Comparison::new(&index);
        loop {
            let asked: Vec<NodeRange> = comparison.ask();
            if asked.is_empty() {
                break;
            }
            let parts: Vec<_> = asked.iter().map(|range| at_peer.part(*range)).collect();
            if comparison.answer(&asked, &parts).is_err() {
                return false;
            }
        }
        let (differing, only_there) = (comparison.differing, comparison.only_there);
        volume.plan_exchange(&mut plan, &differing, &only_there, theirs.wants_state);
        let mut told = Told::nothing_of(&plan, theirs.wants_state);
        told.changes.push(plan.begin);
        volume.tell_nodes(&plan.nodes, &index, &mut told);
        let mut changes = std::mem::take(&mut told.changes);
        changes.extend(volume.tell_gone(&plan.gone));
        let last = plan.end.seq;
        changes.push(plan.end);
        while !changes.is_empty() {
            let rest = changes.split_off((1 + self.rng.below(8)).min(changes.len()));
            self.send(volume, from, to, std::mem::replace(&mut changes, rest));
        }
        self.sent(from, to, last);
        true
    }

    /// Takes in what has arrived at `to` from `from`. False if nothing has.
    pub fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some(volume) = self.hosts[to].volume.clone() else { return false };
        let Some(end) = self.hosts[to].peers.get_mut(&from) else { return false };
        match self.sessions.arrived(from, to, self.now) {
            None => return false,
            Some(Message::Batch(batch)) => end.inbox.push_back(batch),
            Some(Message::Ack { applied, durable, complete, last }) => {
                let durable = durable.min(applied);
                volume.acked(slot(from), applied, durable, complete);
                match last {
                    Some(last) => volume.heard(slot(from), durable, last),
                    None => end.in_flight = end.in_flight.saturating_sub(1),
                }
            }
        }
        true
    }

    /// Applies the oldest batch that `to` has from `from`. False if there is none.
    pub fn receive(&mut self, from: usize, to: usize) -> bool {
        let Some(volume) = self.hosts[to].volume.clone() else { return false };
        let Some(end) = self.hosts[to].peers.get(&from) else { return false };
        let (Some(theirs), Some(batch)) = (end.theirs, end.inbox.front().cloned()) else {
            return false;
        };
        volume.reads_log_of(slot(from), theirs.incarnation);
        let due = self.sessions.causes.due(&volume, to, from, &batch);
        match volume.apply(slot(from), &batch[..due]) {
            Ok(()) if due < batch.len() => {}
            Ok(()) => {
                if let Some(end) = self.hosts[to].peers.get_mut(&from) {
                    end.inbox.pop_front();
                }
                self.acknowledge(&volume, from, to, true);
            }
            Err(ApplyError::Gap { .. }) => cut(self.hosts, self.sessions, from, to),
            Err(ApplyError::Waiting(_) | ApplyError::Disk(_)) => {}
        }
        true
    }

    /// `at` tells `from` how far it has its log: the answer to a batch, or a heartbeat.
    pub fn acknowledge(&mut self, volume: &Volume, from: usize, at: usize, answers: bool) {
        let Some(end) = self.hosts[at].peers.get(&from) else { return };
        let (durable, complete) = match answers {
            true => (end.durable, end.complete >= end.durable),
            false => (end.complete, true),
        };
        let applied = volume.applied(slot(from));
        let last = (!answers).then(|| volume.last());
        let ack = Message::Ack { applied, durable, complete, last };
        self.sessions.send(at, from, ack, self.now, self.rng);
    }

    /// What was applied at `at` survives a power cut from now on.
    pub fn make_applied_durable(&mut self, at: usize) {
        let Some(volume) = self.hosts[at].volume.clone() else { return };
        let peers: Vec<usize> = self.hosts[at].peers.keys().copied().collect();
        let applied: Vec<_> = peers.into_iter().map(|p| (p, volume.applied(slot(p)))).collect();
        let complete = volume.is_complete();
        if volume.make_durable().is_err() {
            return;
        }
        for (peer, applied) in applied {
            if let Some(end) = self.hosts[at].peers.get_mut(&peer) {
                end.durable = end.durable.max(applied);
                if complete {
                    end.complete = end.complete.max(applied);
                }
            }
            self.acknowledge(&volume, peer, at, false);
        }
    }
}

impl PeerEnd {
    /// Whether everything that came is applied.
    pub fn is_idle(&self) -> bool {
        self.inbox.is_empty()
    }

    pub fn describe(&self) -> String {
        let waiting: Vec<_> = self.inbox.iter().flatten().map(|i| &i.change).collect();
        format!("inbox {waiting:?}, sent {:?}, in flight {}", self.sent, self.in_flight)
    }
}
