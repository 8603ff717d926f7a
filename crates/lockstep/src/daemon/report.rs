//! `status`: everything about the volumes and their peers, as one JSON object.

use super::Daemon;
use super::hosted::Hosted;
use crate::pump::{Cursors, PeerStatus, Pump, PumpStatus};
use serde_json::{Map, Value, json};

/// The state of the whole daemon.
pub fn report(daemon: &Daemon) -> Value {
    let volumes: Vec<Value> =
        daemon.volumes.all().iter().map(|volume| one(daemon, volume)).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "home": daemon.home.dir(),
        "id": daemon.me.to_string(),
        "listen": daemon.net.listening(),
        "volumes": volumes,
        "limits": limits(),
        "problems": *daemon.left_out.lock(),
        "notices": *daemon.notices.lock(),
    })
}

/// The limits of replication by name, their unit at its end.
fn limits() -> Value {
    let named = lockstep_core::limits::ALL.iter();
    Value::Object(named.map(|(name, limit)| (name.to_lowercase(), (*limit).into())).collect())
}

fn one(daemon: &Daemon, volume: &Hosted) -> Value {
    let record = volume.record();
    let status = volume.pump().map(|pump| pump.status());
    let mut problems = volume.troubles();
    let is_open = status.is_some();
    if !is_open && problems.is_empty() {
        problems.push("it is still being opened".to_owned());
    }
    let PumpStatus { peers, pending_changes, pending_bytes, problems: pumps, notices, counters } =
        status.unwrap_or_else(|| absent(&record.peers));
    problems.extend(pumps);
    let notices: Vec<String> = volume.notices().into_iter().chain(notices).collect();
    let without = volume.pump().map(|pump| pump.volume().without_bytes());
    let (without_content, since): (Option<Vec<_>>, Option<Vec<_>>) =
        without.map(|files| files.into_iter().unzip()).unzip();
    json!({
        "name": record.name,
        "id": record.id.to_string(),
        "mount": record.mount,
        "backing": record.backing,
        "policy": record.policy,
        "pins": volume.pump().map(|pump| pump.volume().status().pins),
        "mounted": volume.is_mounted(),
        "passthrough": volume.pump().map(|pump| volume.is_mounted() && pump.volume().is_passing()),
        "open": is_open,
        "listen": record.listen,
        "peers": peers.iter().map(|p| peer(daemon, volume, p)).collect::<Vec<_>>(),
        "pending_changes": pending_changes,
        "pending_bytes": pending_bytes,
        "problems": problems,
        "notices": notices,
        "without_content": without_content,
        "without_content_since": since,
        "conflicts": volume.pump().map(|pump| pump.volume().conflicts().len()),
        "verify": volume.pump().map(|pump| checks(&pump)),
        "trash": volume.pump().map(|pump| trash(&pump)),
        "requests": object(volume.requests()),
        "counters": object(counters),
    })
}

fn checks(pump: &Pump) -> Value {
    let checks = pump.checks();
    json!({
        "passes": checks.passes,
        "last": checks.last_unix_secs,
        "files": checks.last.files,
        "bytes": checks.last.bytes,
        "differences": checks.last.differences.len() as u64 + checks.last.left_out,
        "unlike": checks.unlike.values().sum::<u64>(),
    })
}

fn trash(pump: &Pump) -> Value {
    let trash = pump.volume().trash_status();
    json!({
        "entries": trash.entries,
        "bytes": trash.bytes,
        "bytes_max": pump.volume().trash_bytes_max().ok(),
        "kept": trash.kept,
        "expired": trash.expired,
    })
}

fn peer(daemon: &Daemon, volume: &Hosted, peer: &PeerStatus) -> Value {
    let unreached = || daemon.net.dial_problem(peer.id, volume.id()).map(|why| why.to_string());
    let problem = peer.problem.clone().or_else(|| if peer.connected { None } else { unreached() });
    json!({
        "id": peer.id.to_string(),
        "name": peer.name,
        "connected": peer.connected,
        "path": peer.path,
        "kex": peer.kex,
        "pending_changes": peer.pending_changes,
        "pending_bytes": peer.pending_bytes,
        "problem": problem,
        "cursors": cursors(&peer.cursors),
    })
}

fn cursors(cursors: &Cursors) -> Value {
    json!({
        "appended": cursors.appended,
        "durable": cursors.durable,
        "sent": cursors.sent,
        "acknowledged": cursors.acknowledged,
        "acknowledged_durable": cursors.acknowledged_durable,
        "acknowledged_complete": cursors.acknowledged_complete,
        "applied": cursors.applied,
    })
}

/// The peers of a volume that is not open: known, not connected.
fn absent(peers: &[super::record::PeerRecord]) -> PumpStatus {
    let known = |peer: &super::record::PeerRecord| PeerStatus {
        id: peer.id,
        name: peer.name.clone(),
        connected: false,
        path: None,
        kex: None,
        pending_changes: 0,
        pending_bytes: 0,
        problem: None,
        cursors: Cursors::default(),
    };
    PumpStatus {
        peers: peers.iter().map(known).collect(),
        pending_changes: 0,
        pending_bytes: 0,
        problems: Vec::new(),
        notices: Vec::new(),
        counters: Vec::new(),
    }
}

fn object(counts: Vec<(&'static str, u64)>) -> Value {
    Value::Object(counts.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect::<Map<_, _>>())
}
