//! `pin`, `unpin`, `evict`: which bytes stay on this machine.

use super::Daemon;
use super::hosted::Hosted;
use crate::errors::{Failure, Outcome};
use crate::pump::Pump;
use lockstep_core::NodeId;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a user means by a path in a volume.
struct Meant {
    volume: Arc<Hosted>,
    pump: Arc<Pump>,
    node: NodeId,
    path: PathBuf,
}

/// Fetches `path` and everything below it, and keeps it.
pub fn pin(daemon: &Daemon, path: &Path) -> Outcome<Value> {
    let meant = find(daemon, path)?;
    let extent = meant.pump.volume().pin(meant.node).map_err(|e| unwritten(&meant.path, &e))?;
    Ok(json!({
        "volume": meant.volume.record().name,
        "path": meant.path.to_string_lossy(),
        "pinned": true,
        "files": extent.files,
        "absent": extent.absent,
    }))
}

/// Takes the pin of `path` away.
pub fn unpin(daemon: &Daemon, path: &Path) -> Outcome<Value> {
    let meant = find(daemon, path)?;
    let had = meant.pump.volume().unpin(meant.node).map_err(|e| unwritten(&meant.path, &e))?;
    Ok(json!({
        "volume": meant.volume.record().name,
        "path": meant.path.to_string_lossy(),
        "pinned": false,
        "was_pinned": had,
    }))
}

/// Gives up the bytes of `path`, or of all files below it, that a connected peer keeps.
pub fn evict(daemon: &Daemon, path: &Path) -> Outcome<Value> {
    let meant = find(daemon, path)?;
    let evicted = meant.pump.evict(meant.node);
    if let (0, Some((file, why))) = (evicted.files, evicted.stays.first()) {
        let file = meant.volume.record().shown_at().join(file);
        let others = match evicted.stays_total - 1 {
            0 => String::new(),
            others => format!(" (nor {others} others)"),
        };
        let text = why.to_string();
        let (reason, hint) = text.rsplit_once(": ").unwrap_or((&text, "see `lockstep status`"));
        let message = format!("cannot evict {}{others}: {reason}", file.display());
        return Err(Failure::failed(message, hint));
    }
    let root = meant.volume.record().shown_at().to_owned();
    let stays: Vec<Value> = evicted
        .stays
        .iter()
        .map(|(file, why)| {
            json!({ "path": root.join(file).to_string_lossy(), "reason": why.to_string() })
        })
        .collect();
    Ok(json!({
        "volume": meant.volume.record().name,
        "path": meant.path.to_string_lossy(),
        "evicted": evicted.files,
        "bytes": evicted.bytes,
        "kept": evicted.stays_total,
        "reasons": stays,
    }))
}

fn find(daemon: &Daemon, path: &Path) -> Outcome<Meant> {
    daemon.await_opened();
    let (volume, inside) = daemon.volumes.containing(path)?;
    let pump = volume.pump().ok_or_else(|| {
        Failure::failed(
            format!("\"{}\" is not open", volume.record().name),
            "run `lockstep status` to see why",
        )
    })?;
    let node = pump.volume().node_at(&inside).ok_or_else(|| {
        Failure::failed(
            format!("{} does not exist in the volume", path.display()),
            "check the spelling; `ls` shows what the volume holds",
        )
    })?;
    Ok(Meant { volume, pump, node, path: path.to_owned() })
}

fn unwritten(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(
        format!("the pin of {} cannot be written down: {error}", path.display()),
        "free space on the disk of the state directory, then try again",
    )
}
