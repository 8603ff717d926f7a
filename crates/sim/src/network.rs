//! Connections between replicas in virtual time. Each pair has three lanes in each direction:
//! for changes, for content, and for comparing states; a lane keeps its order, the lanes do not keep theirs.

use crate::rng::Rng;
use crate::side::{After, Made};
use lockstep_core::{ContentRef, LogCursor, NodeId, NodeRange, Op, Part, Sequence, Version};
use std::collections::{BTreeMap, VecDeque};

/// What replicas tell each other.
#[derive(Clone, Debug)]
pub enum Message {
    /// A session begins: how far the sender has the receiver's log, its own run, and whether it is
    /// to be told the state.
    Hello { applied: LogCursor, incarnation: u64, wants_state: bool },
    /// Changes, in order.
    Batch(Vec<Made>),
    /// How far the sender has the receiver's log, and for good every log; with its own last change,
    /// and how many batches of this session it has taken.
    Ack { applied: Sequence, durable: After, complete: bool, taken: u64 },
    /// What is in these ranges?
    Ask(Vec<NodeRange>),
    /// The answer, with the question.
    Answer(Vec<NodeRange>, Vec<Part>),
    /// A content is asked for.
    Want { node: NodeId, content: ContentRef, version: Version },
    /// The answer: whether the sender has it.
    Have { node: NodeId, content: ContentRef, version: Version, here: bool },
}

impl Message {
    fn lane(&self) -> usize {
        match self {
            Message::Hello { .. } | Message::Batch(_) | Message::Ack { .. } => 0,
            Message::Want { .. } | Message::Have { .. } => 1,
            Message::Ask(_) | Message::Answer(..) => 2,
        }
    }

    /// A batch of the log: that one is missing is noticed by its numbers.
    fn is_of_the_log(&self) -> bool {
        let told = |made: &Made| matches!(made.change.op, Op::Exchange(_));
        matches!(self, Message::Batch(batch) if !batch.iter().any(told))
    }
}

/// One direction between two replicas.
#[derive(Debug, Default)]
struct Line {
    lanes: [VecDeque<(u64, Message)>; 3],
    /// Takes everything and delivers nothing: the far end is gone and nobody has noticed.
    is_half_open: bool,
    /// Largest delay, in milliseconds.
    latency_ms: u64,
}

/// All connections.
#[derive(Debug)]
pub struct Network {
    lines: BTreeMap<(usize, usize), Line>,
    /// Sessions by pair, smaller replica first.
    up: BTreeMap<(usize, usize), bool>,
    /// How much later than anything else contents come, in milliseconds.
    contents_take_ms: u64,
}

impl Network {
    /// Connections between `replicas`, all down, on which contents take that long.
    pub fn new(replicas: usize, contents_take_ms: u64) -> Self {
        let (lines, up) = (BTreeMap::new(), BTreeMap::new());
        let mut network = Network { lines, up, contents_take_ms };
        for a in 0..replicas {
            for b in (0..replicas).filter(|b| *b != a) {
                network.lines.insert((a, b), Line::default());
                network.up.insert(pair(a, b), false);
            }
        }
        network
    }

    pub fn is_up(&self, a: usize, b: usize) -> bool {
        self.up[&pair(a, b)]
    }

    /// Pairs of replicas, with whether they have a session.
    pub fn pairs(&self) -> Vec<((usize, usize), bool)> {
        self.up.iter().map(|(pair, up)| (*pair, *up)).collect()
    }

    /// A session begins, over fresh connections.
    pub fn connect(&mut self, a: usize, b: usize, rng: &mut Rng) {
        self.cut(a, b);
        self.up.insert(pair(a, b), true);
        for key in [(a, b), (b, a)] {
            let latency_ms = [2, 20, 400][rng.below(3)];
            self.lines.insert(key, Line { latency_ms, ..Line::default() });
        }
    }

    /// The session ends; what was on its way is lost.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.up.insert(pair(a, b), false);
        for key in [(a, b), (b, a)] {
            self.lines.insert(key, Line::default());
        }
    }

    /// From now on nothing from `a` reaches `b`, and neither knows.
    pub fn half_open(&mut self, a: usize, b: usize) {
        if let Some(line) = self.lines.get_mut(&(a, b)) {
            line.is_half_open = true;
        }
    }

    /// One batch on its way from `a` to `b` is lost in an intermediary.
    pub fn lose_one(&mut self, a: usize, b: usize) {
        if let Some(line) = self.lines.get_mut(&(a, b)) {
            let batch = line.lanes[0].iter().position(|(_, m)| m.is_of_the_log());
            batch.map(|at| line.lanes[0].remove(at));
        }
    }

    pub fn send(&mut self, a: usize, b: usize, message: Message, now_ms: u64, rng: &mut Rng) {
        if !self.is_up(a, b) {
            return;
        }
        let Some(line) = self.lines.get_mut(&(a, b)) else { return };
        let takes_ms = match message {
            Message::Have { here: true, .. } => self.contents_take_ms,
            _ => 0,
        };
        let delay_ms = takes_ms + 1 + rng.below(line.latency_ms as usize) as u64;
        if !line.is_half_open {
            let lane = &mut line.lanes[message.lane()];
            let after = lane.back().map_or(0, |(at, _)| *at);
            lane.push_back((after.max(now_ms + delay_ms), message));
        }
    }

    /// Everything on its way.
    pub fn under_way(&self) -> impl Iterator<Item = &Message> {
        let lanes = self.lines.values().flat_map(|line| &line.lanes);
        lanes.flatten().map(|(_, message)| message)
    }

    /// The next message that has arrived by `now_ms`: (from, to, message).
    pub fn arrived(&mut self, now_ms: u64) -> Option<(usize, usize, Message)> {
        let first = self
            .lines
            .iter()
            .flat_map(|(key, line)| {
                let heads = line.lanes.iter().enumerate();
                heads.filter_map(move |(lane, queue)| Some((queue.front()?.0, *key, lane)))
            })
            .min()?;
        let (at, key, lane) = first;
        if at > now_ms {
            return None;
        }
        let (_, message) = self.lines.get_mut(&key)?.lanes[lane].pop_front()?;
        Some((key.0, key.1, message))
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
