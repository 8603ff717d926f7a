//! Where one peer keeps its key and its state: a directory of its own, closed to everybody else.
//!
//! With `--home DIR` (or `LOCKSTEP_HOME`) everything is in DIR, so that several peers can run on
//! one machine. Without it the XDG base directories are used: the key and the configuration under
//! `$XDG_CONFIG_HOME/lockstep`, the rest under `$XDG_STATE_HOME/lockstep`.

use crate::errors::{Failure, Outcome};
use lockstep_core::VolumeId;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The places of one peer's files. Locating a home touches nothing on disk.
#[derive(Clone, Debug)]
pub struct Home {
    state: PathBuf,
    config: PathBuf,
}

impl Home {
    /// The home meant by `--home`, else by the environment.
    pub fn locate(explicit: Option<&Path>) -> Outcome<Home> {
        Self::locate_in(explicit, &|name| std::env::var_os(name).filter(|v| !v.is_empty()))
    }

    fn locate_in(
        explicit: Option<&Path>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Outcome<Home> {
        let chosen =
            explicit.map(PathBuf::from).or_else(|| variable("LOCKSTEP_HOME").map(Into::into));
        if let Some(dir) = chosen {
            let dir = std::path::absolute(&dir).map_err(|e| {
                Failure::io("use the home", &dir, &e, "give --home DIR another DIR")
            })?;
            return Ok(Home { state: dir.clone(), config: dir });
        }
        let base = |xdg: &str, below_home: &str| {
            variable(xdg)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
                .or_else(|| variable("HOME").map(|h| PathBuf::from(h).join(below_home)))
                .map(|dir| dir.join("lockstep"))
                .ok_or_else(|| {
                    Failure::usage(
                        "there is no place for keys and state: HOME is not set",
                        "give --home DIR, or set HOME",
                    )
                })
        };
        Ok(Home {
            state: base("XDG_STATE_HOME", ".local/state")?,
            config: base("XDG_CONFIG_HOME", ".config")?,
        })
    }

    /// Creates the directories, 0700, and refuses ones that others could read.
    pub fn create(&self) -> Outcome<()> {
        create_private(&self.state)?;
        create_private(&self.config)?;
        create_private(&self.volumes())
    }

    /// The arguments that make another `lockstep` use this home.
    pub fn arguments(&self) -> Vec<OsString> {
        let one_place = self.state == self.config;
        if one_place { vec!["--home".into(), self.state.clone().into()] } else { Vec::new() }
    }

    /// The directory shown to users as "the home".
    pub fn dir(&self) -> &Path {
        &self.state
    }

    /// Both directories: the state's and the configuration's (the same one with `--home`).
    pub fn dirs(&self) -> [&Path; 2] {
        [&self.state, &self.config]
    }

    /// The Ed25519 key, 0600.
    pub fn identity_key(&self) -> PathBuf {
        self.config.join("identity.key")
    }

    /// Settings of the whole home.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.json")
    }

    /// Invites given out, as hashes.
    pub fn invites(&self) -> PathBuf {
        self.state.join("invites.json")
    }

    /// Locked by the one daemon of this home for as long as it lives.
    pub fn lock_file(&self) -> PathBuf {
        self.state.join("daemon.lock")
    }

    /// The process id of that daemon.
    pub fn pid_file(&self) -> PathBuf {
        self.state.join("daemon.pid")
    }

    /// The control socket, 0600.
    pub fn socket(&self) -> PathBuf {
        self.state.join("control.sock")
    }

    /// What a daemon in the background says.
    pub fn log_file(&self) -> PathBuf {
        self.state.join("daemon.log")
    }

    /// One directory per volume.
    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    /// The directory of one volume.
    pub fn volume(&self, id: VolumeId) -> PathBuf {
        self.volumes().join(id.to_string())
    }
}

fn create_private(dir: &Path) -> Outcome<()> {
    const HINT: &str = "choose another place with --home DIR";
    let io = |doing: &str, e: std::io::Error| Failure::io(doing, dir, &e, HINT);
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(|e| io("create the directory above", e))?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(io("create the home", e)),
    }
    let found = fs::metadata(dir).map_err(|e| io("look at the home", e))?;
    if !found.is_dir() {
        return Err(Failure::failed(
            format!("the home {} is not a directory", dir.display()),
            HINT,
        ));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        let message = format!("the home {} belongs to another user", dir.display());
        return Err(Failure::failed(message, HINT));
    }
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let empty = fs::read_dir(dir).map_err(|e| io("read the home", e))?.next().is_none();
    if !empty {
        let message =
            format!("the home {} is open to other users and would hold keys", dir.display());
        let hint = format!("run `chmod 700 {}`, or {HINT}", dir.display());
        return Err(Failure::failed(message, hint));
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(|e| io("close the home", e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn locate(explicit: Option<&str>, variables: &[(&str, &str)]) -> Outcome<Home> {
        Home::locate_in(explicit.map(Path::new), &|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn an_explicit_home_needs_no_environment() {
        let home = locate(Some("/x/y"), &[]).unwrap();
        assert_eq!(home.identity_key(), Path::new("/x/y/identity.key"));
        assert_eq!(home.socket(), Path::new("/x/y/control.sock"));
        let by_variable = locate(None, &[("LOCKSTEP_HOME", "/v"), ("HOME", "/h")]).unwrap();
        assert_eq!(by_variable.lock_file(), Path::new("/v/daemon.lock"));
    }

    #[test]
    fn without_one_the_base_directories_are_used() {
        let home = locate(None, &[("HOME", "/h")]).unwrap();
        assert_eq!(home.identity_key(), Path::new("/h/.config/lockstep/identity.key"));
        assert_eq!(home.volumes(), Path::new("/h/.local/state/lockstep/volumes"));
        let home = locate(None, &[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]).unwrap();
        assert_eq!(home.invites(), Path::new("/s/lockstep/invites.json"));
        let relative = locate(None, &[("HOME", "/h"), ("XDG_STATE_HOME", "s")]).unwrap();
        assert_eq!(relative.dir(), Path::new("/h/.local/state/lockstep"));
    }

    #[test]
    fn no_home_at_all_is_a_usage_error_that_names_the_way_out() {
        let failure = locate(None, &[]).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.to_string().contains("--home"), "{failure}");
    }
}
