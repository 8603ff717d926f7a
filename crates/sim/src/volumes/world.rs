//! One run: random steps of programs, daemons, connections and misfortune, then the end.

use super::below;
use super::calls::{Calls, Torn};
use super::clock::SimClock;
use super::fetch;
use super::host::Host;
use super::ledger::{ContentId, Ledger};
use super::plan::VolumePlan;
use super::session::{self, Exchange, Sessions};
use super::settle;
use crate::failure::{Check, Failure, FailureKind};
use crate::rng::Rng;
use lockstep_vfs::Clock;
use std::collections::BTreeSet;
use std::fmt::Arguments;
use std::sync::Arc;
use std::time::Duration;

/// Disk changes after which a doomed daemon dies, at most.
const DEATH_CHANGES_MAX: usize = 40;

/// Where a run tells what it does.
pub type Trace<'t> = &'t mut dyn FnMut(Arguments<'_>);

pub struct World<'t> {
    pub plan: VolumePlan,
    pub hosts: Vec<Host>,
    pub sessions: Sessions,
    pub ledger: Ledger,
    pub rng: Rng,
    pub clock: Arc<SimClock>,
    pub trace: Trace<'t>,
    pub step: usize,
}

/// Runs `seed` under `plan`; `trace` hears what happens.
pub fn run(seed: u64, plan: VolumePlan, trace: Trace<'_>) -> Result<(), Failure> {
    let mut rng = Rng::new(seed);
    let clock = Arc::new(SimClock::new(Rng::new(rng.bits())));
    let hosts = (0..plan.hosts).map(|number| Host::new(number, clock.clone())).collect();
    let (sessions, ledger) = (Sessions::default(), Ledger::default());
    let mut world = World { plan, hosts, sessions, ledger, rng, clock, trace, step: 0 };
    let outcome = world.live().and_then(|()| settle::end(&mut world));
    let step = world.step;
    outcome.map_err(|(kind, what)| Failure { seed, step, kind, what })
}

impl World<'_> {
    fn live(&mut self) -> Check {
        for host in 0..self.hosts.len() {
            self.start(host)?;
        }
        for _ in 0..80 + self.rng.below(240) {
            self.step += 1;
            self.pass_time();
            self.one_step()?;
            self.bury_dead();
        }
        Ok(())
    }

    fn pass_time(&mut self) {
        let ms = match self.rng.below(20) {
            0 => 500 + self.rng.below(3_000),
            1..=4 => 20 + self.rng.below(300),
            _ => self.rng.below(12),
        };
        self.clock.advance(Duration::from_millis(ms as u64));
        let now = self.clock.running();
        self.hosts.iter_mut().for_each(|host| host.retry_due(now));
    }

    fn one_step(&mut self) -> Check {
        let at = self.rng.below(self.hosts.len());
        if !self.hosts[at].is_up() {
            return self.while_down(at);
        }
        let peer = (at + 1 + self.rng.below(self.hosts.len() - 1)) % self.hosts.len();
        match self.rng.below(100) {
            0..=29 => self.calls(at),
            30..=39 => {
                self.announce(at);
                Ok(())
            }
            40..=88 => {
                self.exchange_some(at, peer);
                Ok(())
            }
            89..=93 => {
                self.keep_house(at);
                Ok(())
            }
            94..=96 => {
                self.connection(at, peer);
                Ok(())
            }
            _ => {
                self.misfortune(at);
                Ok(())
            }
        }
    }

    fn calls(&mut self, at: usize) -> Check {
        let at = if self.plan.one_works { 0 } else { at };
        for _ in 0..1 + self.rng.below(3) {
            let World { hosts, ledger, rng, step, trace, .. } = self;
            let mut calls = Calls { host: &mut hosts[at], ledger, rng, step: *step };
            let told = calls
                .make_one()
                .map_err(|Torn(what)| (FailureKind::Torn, format!("host {at}: {what}")))?;
            trace(format_args!("{step} host {at}: {told}"));
        }
        Ok(())
    }

    fn announce(&mut self, at: usize) {
        let Some(volume) = self.hosts[at].volume.clone() else { return };
        volume.announce_due();
        if volume.commit_due() == Some(Duration::ZERO) || self.rng.chance(20) {
            // What the disk refuses now is numbered later.
            let _ = volume.commit();
        }
        (self.trace)(format_args!(
            "{} host {at}: announces, log {:?}",
            self.step,
            volume.log_last()
        ));
    }

    fn exchange_some(&mut self, at: usize, peer: usize) {
        let what = self.rng.below(5);
        let which = self.rng.below(8);
        let done = match what {
            0 => self.exchange().ship(at, peer),
            1 => self.exchange().deliver(peer, at),
            2 => self.exchange().receive(peer, at),
            3 => fetch::begin(&mut self.hosts, at),
            _ => fetch::step(&mut self.hosts, &self.sessions, at, which),
        };
        (self.trace)(format_args!("{} host {at} peer {peer}: exchange {what} {done}", self.step));
    }

    pub fn exchange(&mut self) -> Exchange<'_> {
        let now = self.clock.running();
        let World { hosts, sessions, rng, .. } = self;
        Exchange { hosts, sessions, rng, now }
    }

    fn keep_house(&mut self, at: usize) {
        let Some(volume) = self.hosts[at].volume.clone() else { return };
        match self.rng.below(2) {
            0 => self.exchange().make_applied_durable(at),
            // Both say what the disk refused, and go on next time.
            _ => drop((volume.trim(), volume.tidy_trash())),
        }
        (self.trace)(format_args!("{} host {at}: keeps house", self.step));
    }

    fn connection(&mut self, at: usize, peer: usize) {
        let up = self.sessions.is_up(at, peer);
        let stays_apart = self.plan.apart && !self.rng.chance(15);
        match (up, self.rng.below(4)) {
            (true, 0) => session::cut(&mut self.hosts, &mut self.sessions, at, peer),
            (true, 1) => self.sessions.half_open(at, peer),
            (true, _) if self.sessions.is_half_open(at, peer) => {
                session::cut(&mut self.hosts, &mut self.sessions, at, peer);
            }
            (false, _) if !stays_apart => self.connect(at, peer),
            _ => {}
        }
        let up = self.sessions.is_up(at, peer);
        (self.trace)(format_args!("{} hosts {at} {peer}: connected {up}", self.step));
    }

    pub fn connect(&mut self, a: usize, b: usize) {
        let World { hosts, sessions, rng, .. } = self;
        session::connect(hosts, sessions, a, b, rng);
    }

    fn misfortune(&mut self, at: usize) {
        if self.plan.crashes() && self.rng.chance(60) {
            self.hosts[at].power.dies_after(self.rng.below(DEATH_CHANGES_MAX) as u64);
        }
        if self.plan.full_disks {
            let is_full = self.rng.chance(50);
            self.set_full(at, is_full);
        }
    }

    pub fn set_full(&mut self, at: usize, is_full: bool) {
        self.hosts[at].disk.core().is_full = is_full;
        self.hosts[at].store.set_full(is_full);
    }

    /// Daemons that have died are taken away, with what a power cut takes.
    pub fn bury_dead(&mut self) {
        for at in 0..self.hosts.len() {
            if self.hosts[at].power.is_dead() {
                let cut = self.plan.power_cuts && (!self.plan.kills || self.rng.chance(50));
                (self.trace)(format_args!("{} host {at}: dies, power cut {cut}", self.step));
                self.bury(at, cut);
            }
        }
    }

    fn bury(&mut self, at: usize, power_cut: bool) {
        for peer in (0..self.hosts.len()).filter(|peer| *peer != at) {
            session::cut(&mut self.hosts, &mut self.sessions, at, peer);
        }
        let shown = self.hosts[at].contents();
        let host = &mut self.hosts[at];
        host.forget();
        match power_cut {
            true => {
                host.disk.core().cut_power(&mut self.rng);
                host.store.cut_power(&mut self.rng);
                self.lose_power(at, shown.into_values());
            }
            false => host.disk.core().kill(),
        }
        self.hosts[at].power.restore();
    }

    /// Bytes that a program had not synced may be torn or gone; others must be there.
    fn lose_power(&mut self, at: usize, shown: impl Iterator<Item = (ContentId, bool)>) {
        let host = &mut self.hosts[at];
        let synced = |id: &ContentId| self.ledger.synced.contains(&(at, *id));
        host.must_have =
            shown.filter(|(id, is_shown)| *is_shown && synced(id)).map(|(id, _)| id).collect();
        let core = host.disk.core();
        for ino in &host.written {
            if let Some(inode) = core.live.0.get(ino) {
                self.ledger.seen(&inode.bytes());
            }
        }
        drop(core);
        let here_or_elsewhere: BTreeSet<ContentId> =
            self.hosts.iter().flat_map(Host::content_set).collect();
        self.ledger.lost_power(at, &here_or_elsewhere);
    }

    fn while_down(&mut self, at: usize) -> Check {
        if self.rng.chance(40) {
            if self.rng.chance(20) {
                self.hosts[at].power.dies_after(self.rng.below(DEATH_CHANGES_MAX) as u64);
            }
            return self.start(at);
        }
        if self.plan.kills && !self.plan.one_works {
            let World { hosts, ledger, rng, step, trace, .. } = self;
            let told = below::edit(&mut hosts[at], ledger, *step, rng);
            trace(format_args!("{step} host {at}: {told}"));
        }
        Ok(())
    }

    /// Starts a daemon; what was durable must be there.
    pub fn start(&mut self, at: usize) -> Check {
        let hosts = self.hosts.len();
        let started = self.hosts[at].start(hosts);
        if self.hosts[at].power.is_dead() {
            return Ok(());
        }
        started
            .map_err(|error| (FailureKind::Broken, format!("host {at} does not start: {error}")))?;
        (self.trace)(format_args!("{} host {at}: starts", self.step));
        let there = self.hosts[at].content_set();
        let must_have = std::mem::take(&mut self.hosts[at].must_have);
        match must_have.iter().find(|id| !there.contains(id)) {
            Some(id) => {
                let what = self.ledger.alive.get(id);
                Err((FailureKind::Lost, format!("host {at} synced {id:?} {what:?}: it is gone")))
            }
            None => Ok(()),
        }
    }
}
