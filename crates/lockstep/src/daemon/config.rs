//! Settings of a whole home: `config.json`.

use super::addresses;
use super::durable;
use crate::errors::Outcome;
use crate::home::Home;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What may be set, or was chosen once and is kept.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where volumes listen that were shared without `--listen`: chosen once, so that invites and
    /// peers find the same port after a restart.
    pub listen: Option<SocketAddr>,
    /// The name peers show for this one; the machine's host name if absent.
    pub host: Option<String>,
}

impl Config {
    /// The settings of `home`.
    pub fn load(home: &Home) -> Outcome<Self> {
        Ok(durable::read_json(&home.config_file())?.unwrap_or_default())
    }

    /// Keeps these settings.
    pub fn save(&self, home: &Home) -> Outcome<()> {
        durable::write_json(&home.config_file(), self)
    }
}

/// The name that peers show for this one.
pub fn host_name(home: &Home) -> String {
    Config::load(home).ok().and_then(|c| c.host).unwrap_or_else(addresses::host_name)
}
