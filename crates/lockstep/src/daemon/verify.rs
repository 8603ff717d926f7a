//! `verify`: whether both sides have the same, and the disk below holds what was written.

use super::Daemon;
use super::hosted::Hosted;
use super::trash::opened;
use crate::errors::Outcome;
use crate::pump::Compared;
use lockstep_vfs::Verified;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Differences from one peer that are named; the rest is counted.
const DIFFERENCES_MAX: usize = 1_000;

/// Checks one volume, or all.
pub fn verify(daemon: &Daemon, volume: Option<&str>) -> Outcome<Value> {
    daemon.await_opened();
    if volume.is_none() {
        daemon.all_listed()?;
    }
    let volumes = daemon.volumes.meant(volume)?;
    let checked: Outcome<Vec<Value>> = volumes.iter().map(one).collect();
    let checked = checked?;
    let clean = checked.iter().all(|volume| volume["clean"] == true);
    let notes: Vec<String> = checked.iter().flat_map(notes).collect();
    Ok(json!({ "clean": clean, "volumes": checked, "notes": notes }))
}

fn one(volume: &Arc<Hosted>) -> Outcome<Value> {
    let (record, pump) = (volume.record(), opened(volume)?);
    let root = record.shown_at();
    let compared = pump.compare();
    let Verified { files, bytes, differences: below, mut left_out, complete } = pump.verify();
    let mut differences: Vec<Value> = below
        .iter()
        .map(|difference| {
            json!({
                "path": root.join(&difference.path).to_string_lossy(),
                "where": "disk",
                "what": difference.mismatch.text(),
            })
        })
        .collect();
    for peer in &compared {
        let all = peer.differing.as_ref().map_or(0, Vec::len);
        left_out += all.saturating_sub(DIFFERENCES_MAX) as u64;
        differences.extend(from_peer(root, peer).take(DIFFERENCES_MAX));
    }
    let peers: Vec<Value> = compared
        .iter()
        .map(|peer| {
            let problem = peer.differing.as_ref().err();
            json!({ "name": peer.peer, "compared": problem.is_none(), "problem": problem })
        })
        .collect();
    Ok(json!({
        "name": record.name,
        "clean": complete && differences.is_empty() && left_out == 0,
        "files": files,
        "bytes": bytes,
        "peers": peers,
        "differences": differences,
        "left_out": left_out,
    }))
}

/// What the two sides do not have alike. What only the peer has, has no path here.
fn from_peer<'c>(root: &'c Path, compared: &'c Compared) -> impl Iterator<Item = Value> + 'c {
    let peer = &compared.peer;
    compared.differing.iter().flatten().map(move |differing| {
        let what = match &differing.path {
            Some(_) => format!("is missing or different on {peer}"),
            None => format!("node {} is only on {peer}", differing.node),
        };
        let path = differing.path.as_ref().map(|path| root.join(path));
        let path = path.map(|path| path.to_string_lossy().into_owned());
        json!({ "path": path, "where": peer, "what": what })
    })
}

fn notes(volume: &Value) -> Vec<String> {
    let name = volume["name"].as_str().unwrap_or_default();
    let peers = volume["peers"].as_array().into_iter().flatten();
    peers
        .filter_map(|peer| {
            let (who, why) = (peer["name"].as_str()?, peer["problem"].as_str()?);
            Some(format!("{name}: not compared with {who}: {why}"))
        })
        .collect()
}
