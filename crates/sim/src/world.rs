//! One run: replicas, the connections between them, troubles, and what must hold.

use crate::actions::act;
use crate::catch_up::Telling;
use crate::checks;
use crate::failure::{Check, Failure, FailureKind};
use crate::network::{Message, Network};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::side::{After, Made, Side};
use lockstep_core::{DigestIndex, Sequence, Slot, Timespec};
use std::collections::VecDeque;

/// Steps of a run before everybody is connected for good.
const STEPS: usize = 80;
/// Changes kept for a peer that is away, where the log is short.
pub const LOG_KEPT: u64 = 4;
/// Rounds in which everything must have arrived then.
const ROUNDS_MAX: usize = 500;

/// How long a content takes on a slow line.
const CONTENTS_TAKE_MS: u64 = 700;

/// Rounds without anything to do after which nothing is on its way any more.
const QUIET_ROUNDS: usize = 12;

/// What a replica knows of a peer within a session.
#[derive(Debug, Default)]
pub struct Session {
    /// Hello came: changes after `cursor` are to be sent.
    pub is_greeted: bool,
    pub cursor: Sequence,
    /// Batches sent in this session, and those of them that are not acknowledged.
    pub sent: u64,
    pub in_flight: VecDeque<u64>,
    /// Batches taken.
    pub taken: u64,
    /// The run of the peer that numbers its changes.
    pub incarnation: u64,
    /// Whether the peer was asked for its state.
    pub asked_state: bool,
    /// The peer is told the state.
    pub telling: Option<Telling>,
    /// What this replica's nodes amounted to when the peer began to compare.
    pub digests: Option<DigestIndex>,
    /// Batches that came and are not applied.
    pub inbox: VecDeque<Vec<Made>>,
    /// What the peer has for good, with all content, as it said last.
    pub heard: Option<After>,
}

impl Session {
    pub fn ships_log(&self) -> bool {
        self.is_greeted && self.telling.is_none()
    }
}

/// Everything there is.
pub struct World<'a> {
    pub sides: Vec<Side>,
    pub rng: Rng,
    pub sessions: Vec<Vec<Session>>,
    pub network: Network,
    /// Every change that was ever written down.
    pub made: Vec<Made>,
    /// Changes that were lost with their author's state; what they had replaced is given up.
    pub unmade: Vec<Made>,
    /// Whether anybody was told a state.
    pub has_exchanged: bool,
    pub plan: Plan,
    pub now_ms: u64,
    pub trace: &'a mut dyn FnMut(std::fmt::Arguments<'_>),
}

/// Runs `seed`; the trace of what happened goes to `trace`.
pub fn run(
    seed: u64,
    plan: Plan,
    trace: &mut dyn FnMut(std::fmt::Arguments<'_>),
) -> Result<(), Failure> {
    let mut world = World::new(seed, plan, trace);
    for step in 0..STEPS {
        world.step().map_err(|(kind, what)| Failure { seed, step, kind, what })?;
    }
    world.finish().map_err(|(kind, what)| Failure { seed, step: STEPS, kind, what })
}

pub fn broken(what: String) -> (FailureKind, String) {
    (FailureKind::Broken, what)
}

impl<'a> World<'a> {
    fn new(seed: u64, plan: Plan, trace: &'a mut dyn FnMut(std::fmt::Arguments<'_>)) -> Self {
        let slots: Vec<Slot> = (1..=plan.replicas as u16).map(Slot).collect();
        let slow_ms = if plan.slow_contents { CONTENTS_TAKE_MS } else { 0 };
        let sessions = || slots.iter().map(|_| Session::default()).collect();
        let mut world = World {
            sides: slots.iter().map(|slot| Side::new(*slot, &slots)).collect(),
            rng: Rng::new(seed),
            sessions: slots.iter().map(|_| sessions()).collect(),
            network: Network::new(plan.replicas, slow_ms),
            made: Vec::new(),
            unmade: Vec::new(),
            has_exchanged: false,
            plan,
            now_ms: 0,
            trace,
        };
        if !plan.apart {
            world.connect_all();
        }
        world
    }

    pub fn at(&self) -> Timespec {
        Timespec {
            secs: (self.now_ms / 1000) as i64,
            nanos: (self.now_ms % 1000) as u32 * 1_000_000,
        }
    }

    fn step(&mut self) -> Check {
        self.now_ms += 1 + self.rng.below(40) as u64;
        let (who, at) = (self.rng.below(self.sides.len()), self.at());
        if self.rng.chance(60) {
            act(&mut self.sides[who], &mut self.rng, at).map_err(broken)?;
        }
        if self.rng.chance(70) {
            self.commit(who);
        }
        self.ship_all();
        self.deliver()?;
        if self.rng.chance(40) {
            self.ask(who);
        }
        if self.rng.chance(15) {
            self.sync(who);
        }
        if self.rng.chance(10) {
            self.trim(who);
        }
        self.trouble()?;
        checks::bounds(self)
    }

    /// Cuts, connections, crashes.
    fn trouble(&mut self) -> Check {
        for ((a, b), up) in self.network.pairs() {
            let (cut, join) = if self.plan.apart { (40, 2) } else { (3, 50) };
            let (from, to) = if self.rng.chance(50) { (a, b) } else { (b, a) };
            match up {
                true if self.rng.chance(cut) => self.network.cut(a, b),
                true if self.rng.chance(3) => self.network.half_open(from, to),
                true if self.rng.chance(2) => self.network.lose_one(from, to),
                // A heartbeat that is missed, or a peer that is back.
                true if self.rng.chance(5) => self.connect(a, b),
                false if self.rng.chance(join) => self.connect(a, b),
                _ => {}
            }
        }
        if self.plan.crashes && self.rng.chance(4) {
            let who = self.rng.below(self.sides.len());
            return self.crash(who);
        }
        if self.plan.loses_state && self.rng.chance(4) {
            let who = self.rng.below(self.sides.len());
            return self.disaster(who);
        }
        Ok(())
    }

    fn connect_all(&mut self) {
        for ((a, b), _) in self.network.pairs() {
            self.connect(a, b);
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        self.network.connect(a, b, &mut self.rng);
        for (me, peer) in [(a, b), (b, a)] {
            let slot = self.sides[peer].slot;
            self.commit(me);
            let replica = &self.sides[me].replica;
            let (applied, incarnation) = (replica.cursor(slot), replica.incarnation());
            let wants_state = replica.wants_state(slot);
            self.sessions[me][peer] = Session { asked_state: wants_state, ..Session::default() };
            self.send(me, peer, Message::Hello { applied, incarnation, wants_state });
        }
    }

    pub fn send(&mut self, from: usize, to: usize, message: Message) {
        self.network.send(from, to, message, self.now_ms, &mut self.rng);
    }

    pub fn commit(&mut self, who: usize) {
        let made = self.sides[who].commit();
        for made in &made {
            (self.trace)(format_args!("{who} made {:?}", made.change));
        }
        self.made.extend(made);
    }

    pub fn sync(&mut self, who: usize) {
        self.commit(who);
        self.sides[who].sync();
        if self.plan.loses_state && self.rng.chance(30) {
            self.sides[who].back_up(&self.made);
        }
        for peer in 0..self.sides.len() {
            self.acknowledge(who, peer);
        }
    }

    fn trim(&mut self, who: usize) {
        let known = self.knows_everything(who);
        self.sides[who].trim(known);
        if self.plan.short_log {
            self.sides[who].keep_log(LOG_KEPT);
        }
    }

    /// Everybody has what this replica has, and it has what they had made before they did. The rule
    /// of two is core's; among three, a third one's changes are to be everywhere as well.
    fn knows_everything(&self, who: usize) -> bool {
        let side = &self.sides[who];
        let heard = |peer: usize| {
            self.sessions[who][peer].heard.as_ref().is_some_and(|theirs| side.is_had_by(theirs))
        };
        side.replica.may_forget_removed()
            && (0..self.sides.len()).all(|peer| peer == who || heard(peer))
    }

    /// Everybody is connected for good: everything arrives, and then all must agree.
    fn finish(&mut self) -> Check {
        self.connect_all();
        let mut quiet = 0;
        for round in 0..ROUNDS_MAX {
            self.now_ms += 100;
            for who in 0..self.sides.len() {
                let at = self.at();
                self.sides[who].settle(at).map_err(broken)?;
                self.sync(who);
                self.trim(who);
                self.ask(who);
            }
            self.ship_all();
            self.deliver()?;
            checks::bounds(self)?;
            for ((a, b), up) in self.network.pairs() {
                if !up {
                    self.connect(a, b);
                }
            }
            quiet = if self.is_quiet() { quiet + 1 } else { 0 };
            if quiet > QUIET_ROUNDS {
                (self.trace)(format_args!("quiet after {round} rounds"));
                return checks::at_the_end(self);
            }
        }
        Err((FailureKind::Stuck, self.what_is_stuck()))
    }

    fn is_quiet(&self) -> bool {
        (0..self.sides.len()).all(|who| {
            let side = &self.sides[who];
            side.replica.own_shadows().is_empty()
                && !side.replica.is_catching_up()
                && self.sides.iter().all(|peer| !side.replica.answers(peer.slot))
                && self.sessions[who].iter().all(|session| session.telling.is_none())
                && side.wanted().iter().all(|(id, _, v)| side.gone.contains(&(*id, *v)))
                && self.knows_everything(who)
        })
    }

    fn what_is_stuck(&self) -> String {
        let stuck = |who: usize| {
            let side = &self.sides[who];
            let peers: Vec<_> = (0..self.sides.len())
                .filter(|peer| *peer != who)
                .map(|peer| {
                    let slot = self.sides[peer].slot;
                    (peer, side.replica.applied(slot), side.replica.log.acked(slot))
                })
                .collect();
            let (last, wanted) = (side.replica.last(), side.wanted());
            let shadows = side.replica.own_shadows();
            let sessions: Vec<_> = self.sessions[who].iter().collect();
            format!(
                "{who}: {sessions:?} last {last:?} peers {peers:?} wants {wanted:?} unsettled {shadows:?}\n"
            )
        };
        (0..self.sides.len()).map(stuck).collect()
    }
}
