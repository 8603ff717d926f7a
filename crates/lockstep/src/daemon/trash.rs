//! `trash list`, `trash restore`, `trash empty`: what peers' changes took away here.

use super::Daemon;
use super::hosted::Hosted;
use crate::errors::{Failure, Outcome};
use crate::pump::Pump;
use lockstep_vfs::{RestoreError, TrashItem};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// What is in the trash of one volume, or of all.
pub fn list(daemon: &Daemon, volume: Option<&str>) -> Outcome<Value> {
    daemon.await_opened();
    let volumes = daemon.volumes.meant(volume)?;
    let listed: Outcome<Vec<Value>> = volumes.iter().map(listed).collect();
    Ok(json!({ "volumes": listed? }))
}

fn listed(volume: &Arc<Hosted>) -> Outcome<Value> {
    let (record, pump) = (volume.record(), opened(volume)?);
    let entries: Vec<Value> =
        pump.volume().trash_list().iter().map(|item| entry(record.shown_at(), item)).collect();
    let status = pump.volume().trash_status();
    Ok(json!({
        "name": record.name,
        "entries": entries,
        "bytes": status.bytes,
        "bytes_max": pump.volume().trash_bytes_max().unwrap_or_default(),
    }))
}

fn entry(root: &Path, item: &TrashItem) -> Value {
    json!({
        "path": root.join(&item.path).to_string_lossy(),
        "size": item.size_bytes,
        "time": item.at.secs,
        "peer": item.host,
        "reason": item.reason.word(),
    })
}

/// Puts the newest version of `path` back.
pub fn restore(daemon: &Daemon, path: &Path) -> Outcome<Value> {
    daemon.await_opened();
    let (volume, relative) = daemon.volumes.containing(path)?;
    let restored = opened(&volume)?.volume().restore(&relative).map_err(|error| match error {
        RestoreError::Unknown { .. } => Failure::failed(
            format!("the trash has no version of {}", path.display()),
            "run `lockstep trash list` to see what it has",
        ),
        RestoreError::Refused { source, .. } => Failure::failed(
            format!("cannot restore {}: {source}", path.display()),
            "it is still in the trash: mend the cause, then try again",
        ),
    })?;
    let record = volume.record();
    Ok(json!({
        "volume": record.name,
        "path": path.to_string_lossy(),
        "restored": record.shown_at().join(restored.path).to_string_lossy(),
        "files": restored.files,
    }))
}

/// Removes everything from the trash of one volume, or of all, for good.
pub fn empty(daemon: &Daemon, volume: Option<&str>) -> Outcome<Value> {
    daemon.await_opened();
    let mut emptied = Vec::new();
    for volume in daemon.volumes.meant(volume)? {
        let (name, pump) = (volume.record().name, opened(&volume)?);
        let removed = pump.volume().empty_trash().map_err(|error| {
            Failure::failed(
                format!("the trash of \"{name}\" cannot be emptied: {error}"),
                "see that the directory's disk is writable, then try again",
            )
        })?;
        emptied.push(json!({ "name": name, "removed": removed }));
    }
    Ok(json!({ "volumes": emptied }))
}

/// What runs `volume`, or why nothing does.
pub fn opened(volume: &Arc<Hosted>) -> Outcome<Arc<Pump>> {
    volume.pump().ok_or_else(|| {
        let message = format!("\"{}\" is not open", volume.record().name);
        Failure::failed(message, "run `lockstep status` to see why")
    })
}
