//! The volumes that this daemon serves.

use super::hosted::Hosted;
use crate::errors::{Failure, Outcome};
use lockstep_core::VolumeId;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Volumes by id.
#[derive(Default)]
pub struct Volumes {
    by_id: RwLock<BTreeMap<VolumeId, Arc<Hosted>>>,
}

impl Volumes {
    /// The volume `id`.
    pub fn get(&self, id: VolumeId) -> Option<Arc<Hosted>> {
        self.by_id.read().get(&id).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Hosted>> {
        self.by_id.read().values().cloned().collect()
    }

    /// Serves one more.
    pub fn insert(&self, volume: Arc<Hosted>) {
        self.by_id.write().insert(volume.id(), volume);
    }

    /// Serves `id` no longer.
    pub fn remove(&self, id: VolumeId) {
        self.by_id.write().remove(&id);
    }

    /// The volume that a user means by its name or by the beginning of its id.
    pub fn find(&self, meant: &str) -> Outcome<Arc<Hosted>> {
        let all: Vec<(Arc<Hosted>, String)> =
            self.all().into_iter().map(|v| (Arc::clone(&v), v.record().name)).collect();
        if let Some((named, _)) = all.iter().find(|(_, name)| name == meant) {
            return Ok(Arc::clone(named));
        }
        let mut matching =
            all.iter().filter(|(v, _)| !meant.is_empty() && v.id().to_string().starts_with(meant));
        match (matching.next(), matching.next()) {
            (Some((volume, _)), None) => Ok(Arc::clone(volume)),
            (Some(_), Some(_)) => Err(Failure::failed(
                format!("several volumes have ids that begin with {meant}"),
                "give more of the id (lockstep status --json shows it)",
            )),
            (None, _) => Err(unknown(meant, all.into_iter().map(|(_, name)| name).collect())),
        }
    }

    /// The volume that a user names, or all.
    pub fn meant(&self, name: Option<&str>) -> Outcome<Vec<Arc<Hosted>>> {
        name.map_or_else(|| Ok(self.all()), |name| Ok(vec![self.find(name)?]))
    }

    /// The volume that `path` is in, by its mount or its plain directory, and the path in it.
    pub fn containing(&self, path: &Path) -> Outcome<(Arc<Hosted>, PathBuf)> {
        let within = |volume: Arc<Hosted>| {
            let record = volume.record();
            let roots = record.mount.iter().chain([&record.backing]);
            let inside = roots.filter_map(|root| path.strip_prefix(root).ok()).next()?;
            Some((volume, inside.to_owned()))
        };
        let innermost = self.all().into_iter().filter_map(within);
        innermost.min_by_key(|(_, inside)| inside.components().count()).ok_or_else(|| {
            Failure::failed(
                format!("{} is in no volume of this home", path.display()),
                "give a path below a mount that `lockstep status` shows",
            )
        })
    }
}

fn unknown(meant: &str, names: Vec<String>) -> Failure {
    let message = format!("there is no volume \"{}\" here", meant.escape_debug());
    let hint = if names.is_empty() {
        "nothing is shared yet: run `lockstep share DIR`".to_owned()
    } else {
        format!("choose one of: {}", names.join(", "))
    };
    Failure::failed(message, hint)
}
