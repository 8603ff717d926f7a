//! Settings of a whole home: `config.json`.

use super::addresses;
use super::durable;
use crate::errors::Outcome;
use crate::home::Home;
use lockstep_vfs::TrashLimits;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// Ten years: beyond it, times could not be reckoned with.
const VERIFY_PAUSE_MAX_S: u64 = 10 * 365 * 24 * 3600;

/// What may be set, or was chosen once and is kept.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where volumes listen that were shared without `--listen`: chosen once, so that invites and
    /// peers find the same port after a restart.
    pub listen: Option<SocketAddr>,
    /// The name peers show for this one; the machine's host name if absent.
    pub host: Option<String>,
    /// Days that the trash keeps a version; 7 if absent.
    pub trash_days: Option<u64>,
    /// Share of a disk that the trash of a volume on it takes at most, in percent; 10 if absent.
    pub trash_percent: Option<u64>,
    /// Seconds between two background checks of a volume; 6 hours if absent.
    pub verify_pause_s: Option<u64>,
}

impl Config {
    /// The settings of `home`. What is damaged is no reason to go by the defaults: they could empty a
    /// trash that was to be kept for longer.
    pub fn load(home: &Home) -> Outcome<Self> {
        let mend = "mend it; or move it away, to have all settings at their defaults";
        Ok(durable::read_json(&home.config_file(), mend)?.unwrap_or_default())
    }

    /// The name that peers show for this one.
    pub fn host_name(&self) -> String {
        self.host.clone().unwrap_or_else(addresses::host_name)
    }

    /// How much the trash of each volume keeps.
    pub fn trash_limits(&self) -> TrashLimits {
        let usual = TrashLimits::default();
        let days = |days: u64| Duration::from_secs(days.saturating_mul(24 * 3600));
        TrashLimits {
            age_max: self.trash_days.map_or(usual.age_max, days),
            disk_percent_max: self.trash_percent.map_or(usual.disk_percent_max, |p| p.min(100)),
        }
    }

    /// Pause between two background checks of a volume.
    pub fn verify_pause(&self) -> Duration {
        Duration::from_secs(self.verify_pause_s.unwrap_or(6 * 3600).min(VERIFY_PAUSE_MAX_S))
    }

    /// Keeps these settings.
    pub fn save(&self, home: &Home) -> Outcome<()> {
        durable::write_json(&home.config_file(), self)
    }
}
