//! Opening a volume's state: if it is damaged it is kept aside, and rebuilt from the directory and
//! the peers; if it is gone, likewise.

use super::{Fresh, VolumeSpec};
use lockstep_disk::Disk;
use lockstep_disk::state::StateDb;
use lockstep_vfs::{OpenError, Volume};
use std::sync::Arc;

/// For tests: a smaller limit of the changes that a log keeps for peers that are away.
const KEEP_LOG: &str = "LOCKSTEP_LOG_KEPT_MAX";

/// The volume, and what there is to say about its opening.
pub(super) fn volume(
    spec: &VolumeSpec,
    disk: Arc<dyn Disk>,
    fresh: Fresh,
) -> Result<(Arc<Volume>, Vec<String>), OpenError> {
    let mut notices = Vec::new();
    let volume = match attempt(spec, &disk, fresh, &mut notices) {
        Err(damage) if damage.is_damage() => {
            let kept = StateDb::set_aside(&spec.state_dir)?;
            let notice = format!(
                "the state of \"{}\" was damaged ({damage}): it is kept in {} and was rebuilt from \
                 the directory; the peers complete it",
                spec.name,
                kept.display()
            );
            tracing::warn!(volume = %spec.id, "{notice}");
            notices.push(notice);
            attempt(spec, &disk, Fresh::Existing, &mut notices)?
        }
        other => other?,
    };
    if volume.began_without_state() && notices.is_empty() {
        let notice = format!(
            "there was no state of \"{}\" in {}: it was rebuilt from the directory; the peers \
             complete it",
            spec.name,
            spec.state_dir.display()
        );
        tracing::warn!(volume = %spec.id, "{notice}");
        notices.push(notice);
    }
    if let Some(changes) = std::env::var(KEEP_LOG).ok().and_then(|text| text.parse().ok()) {
        volume.keep_log(changes);
    }
    Ok((volume, notices))
}

fn attempt(
    spec: &VolumeSpec,
    disk: &Arc<dyn Disk>,
    fresh: Fresh,
    notices: &mut Vec<String>,
) -> Result<Arc<Volume>, OpenError> {
    let db = StateDb::open(&spec.state_dir)?;
    if let Some(cut) = db.cut() {
        let kept = cut.kept.as_ref();
        let kept = kept.map_or_else(String::new, |kept| format!(" and kept in {}", kept.display()));
        notices.push(format!(
            "the newest entries of {} were torn, as by a power cut, a kill or a full disk: they were cut off{kept}; \
             what they told comes from the directory and the peers again",
            cut.journal.display()
        ));
    }
    Volume::start(Arc::clone(disk), db, spec.slot, &spec.host, fresh)
}
