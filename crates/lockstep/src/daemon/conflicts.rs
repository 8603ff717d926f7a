//! `conflicts` and `conflicts resolve`: what both sides changed while apart.

use super::Daemon;
use super::hosted::Hosted;
use super::trash::opened;
use crate::control::Side;
use crate::errors::{Failure, Outcome};
use lockstep_vfs::{Conflict, Keep, ResolveError};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// The conflicts of all volumes.
pub fn list(daemon: &Daemon) -> Outcome<Value> {
    daemon.await_opened();
    let volumes = daemon.volumes.all();
    let listed: Outcome<Vec<Value>> = volumes.iter().map(listed).collect();
    Ok(json!({ "volumes": listed? }))
}

fn listed(volume: &Arc<Hosted>) -> Outcome<Value> {
    let (record, pump) = (volume.record(), opened(volume)?);
    let conflicts = pump.volume().conflicts();
    let conflicts: Vec<Value> = conflicts.iter().map(|c| one(record.shown_at(), c)).collect();
    Ok(json!({ "name": record.name, "conflicts": conflicts }))
}

fn one(root: &Path, conflict: &Conflict) -> Value {
    let mine = match (conflict.kept_is_mine, conflict.copy_is_mine) {
        (true, false) => Some("path"),
        (false, true) => Some("copy"),
        _ => None,
    };
    json!({
        "path": root.join(&conflict.path).to_string_lossy(),
        "copy": root.join(&conflict.copy).to_string_lossy(),
        "kept_by": conflict.kept_by,
        "copy_of": conflict.copy_of,
        "mine": mine,
        "time": conflict.at.secs,
        "node": conflict.node.0,
    })
}

/// Settles the conflict about `path`.
pub fn resolve(daemon: &Daemon, path: &Path, keep: Side) -> Outcome<Value> {
    daemon.await_opened();
    let (volume, relative) = daemon.volumes.containing(path)?;
    let keep = match keep {
        Side::Mine => Keep::Mine,
        Side::Theirs => Keep::Theirs,
        Side::Both => Keep::Both,
    };
    let shown = path.display();
    let resolved = opened(&volume)?.volume().resolve(&relative, keep).map_err(|e| match e {
        ResolveError::Unknown { .. } => Failure::failed(
            format!("there is no conflict about {shown}"),
            "run `lockstep conflicts` to see those there are",
        ),
        ResolveError::NoVersion { .. } => Failure::failed(
            format!("no version of {shown} is of that side"),
            "run `lockstep conflicts` to see whose each version is",
        ),
        ResolveError::Refused { source, .. } => Failure::failed(
            format!("the conflict about {shown} cannot be settled: {source}"),
            "nothing is lost: run `lockstep wait`, then try again",
        ),
    })?;
    let record = volume.record();
    Ok(json!({
        "volume": record.name,
        "path": record.shown_at().join(&resolved.path).to_string_lossy(),
        "discarded": resolved.discarded,
    }))
}
