//! `verify`: whether the disk below holds what was written.

use super::Daemon;
use super::hosted::Hosted;
use super::trash::opened;
use crate::errors::Outcome;
use lockstep_vfs::Verified;
use serde_json::{Value, json};
use std::sync::Arc;

/// Checks one volume, or all.
pub fn verify(daemon: &Daemon, volume: Option<&str>) -> Outcome<Value> {
    daemon.await_opened();
    let volumes = daemon.volumes.meant(volume)?;
    let checked: Outcome<Vec<Value>> = volumes.iter().map(one).collect();
    let checked = checked?;
    let clean = checked.iter().all(|volume| volume["clean"] == true);
    Ok(json!({ "clean": clean, "volumes": checked }))
}

fn one(volume: &Arc<Hosted>) -> Outcome<Value> {
    let (record, pump) = (volume.record(), opened(volume)?);
    let Verified { files, bytes, differences, left_out, complete } = pump.verify();
    let root = record.shown_at();
    let differences: Vec<Value> = differences
        .iter()
        .map(|difference| {
            json!({
                "path": root.join(&difference.path).to_string_lossy(),
                "where": "disk",
                "what": difference.mismatch.text(),
            })
        })
        .collect();
    Ok(json!({
        "name": record.name,
        "clean": complete && differences.is_empty() && left_out == 0,
        "files": files,
        "bytes": bytes,
        "differences": differences,
        "left_out": left_out,
    }))
}
