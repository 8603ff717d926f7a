//! `wait`: until both sides of every volume have what was written before.

use super::Daemon;
use super::hosted::{Hosted, Trouble};
use crate::cli::text::size;
use crate::errors::{Failure, Outcome};
use crate::pump::{Pump, PumpStatus};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A peer that has just joined or just lost its session, or that a daemon just started expects, gets
/// this long to connect before `wait` goes on without it.
const CONNECT_GRACE: Duration = Duration::from_secs(3);
/// How much longer than asked a wait may take.
const LATE_MAX: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(10);

/// Waits for every volume at once. Peers that are not connected are named, not waited for.
pub fn wait(daemon: &Daemon, timeout: Duration) -> Outcome<Value> {
    let deadline = Instant::now() + timeout;
    daemon.await_opened();
    daemon.all_listed()?;
    let volumes = daemon.volumes.all();
    let outcomes: Vec<(String, Result<Vec<String>, String>)> = std::thread::scope(|threads| {
        let waiting: Vec<_> = volumes
            .iter()
            .map(|volume| (volume.record().name, threads.spawn(|| wait_for(volume, deadline))))
            .collect();
        let broken = |_| Err("waiting broke inside the daemon".to_owned());
        waiting.into_iter().map(|(name, t)| (name, t.join().unwrap_or_else(broken))).collect()
    });
    let missing: Vec<String> = outcomes
        .iter()
        .filter_map(|(name, outcome)| Some(format!("{name}: {}", outcome.as_ref().err()?)))
        .collect();
    if !missing.is_empty() {
        let message = format!("not everything arrived in time: {}", missing.join("; "));
        return Err(Failure::failed(
            message,
            "wait longer with --timeout S, or see `lockstep status`",
        ));
    }
    let absent: Vec<(String, Vec<String>)> =
        outcomes.into_iter().map(|(name, outcome)| (name, outcome.unwrap_or_default())).collect();
    Ok(json!({ "complete": true, "volumes": per_volume(&absent), "notes": notes(&absent) }))
}

/// Waits for one volume; the names of peers that were not connected.
fn wait_for(volume: &Arc<Hosted>, deadline: Instant) -> Result<Vec<String>, String> {
    let Some(pump) = volume.pump() else {
        let why = volume.troubles().join("; ");
        return Err(format!("it is not open: {why}"));
    };
    let grace = (volume.expecting_since() + CONNECT_GRACE).min(deadline);
    let disconnected = || -> Vec<String> {
        pump.status().peers.into_iter().filter(|p| !p.connected).map(|p| p.name).collect()
    };
    while !volume.has(Trouble::Open) && Instant::now() < grace && !disconnected().is_empty() {
        std::thread::sleep(PAUSE);
    }
    let patience = deadline.saturating_duration_since(Instant::now());
    await_pump(&pump, patience).map_err(|why| format!("{why}{}", owed(&pump.status())))?;
    Ok(disconnected())
}

/// The pump's own wait, given up on time even while a peer that does not answer holds it up.
fn await_pump(pump: &Arc<Pump>, patience: Duration) -> Result<(), String> {
    let (told, outcome) = std::sync::mpsc::sync_channel(1);
    let pump = Arc::clone(pump);
    std::thread::spawn(move || told.send(pump.wait(patience)));
    let late = |_| Err("the peer does not answer".to_owned());
    outcome.recv_timeout(patience + LATE_MAX).unwrap_or_else(late)
}

/// What each peer still lacks.
fn owed(status: &PumpStatus) -> String {
    let owing = status.peers.iter().filter(|peer| peer.pending_changes > 0);
    owing
        .map(|peer| {
            let bytes = size(peer.pending_bytes);
            format!("; {} lacks {} changes ({bytes})", peer.name, peer.pending_changes)
        })
        .collect()
}

fn per_volume(absent: &[(String, Vec<String>)]) -> Vec<Value> {
    let line =
        |(name, peers): &(String, Vec<String>)| json!({ "name": name, "disconnected": peers });
    absent.iter().map(line).collect()
}

fn notes(absent: &[(String, Vec<String>)]) -> Vec<String> {
    let note = |(name, peers): &(String, Vec<String>)| {
        format!("{name}: not waited for {}, which is not connected", peers.join(", "))
    };
    absent.iter().filter(|(_, peers)| !peers.is_empty()).map(note).collect()
}
