//! A directory of one test: made under the temporary directory, gone at its end whatever happened.

use super::environment::unmount_below;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "lockstep-test-";

/// A fresh directory that anyone may enter; unmounts what is mounted below it and removes itself.
pub struct Scratch(PathBuf);

impl Scratch {
    /// `/tmp/lockstep-test-PID-N`.
    pub fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep_once();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let path =
            fs::canonicalize(std::env::temp_dir()).expect("a temporary directory").join(name);
        fs::create_dir(&path).expect("the temporary directory is writable");
        set_mode(&path, 0o755);
        Scratch(path)
    }

    /// Its path, without symlinks.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory `name` in it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).expect("the scratch directory is writable");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("LOCKSTEP_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.0.display());
            return;
        }
        remove(&self.0);
    }
}

/// Sets the permission bits of `path`.
pub fn set_mode(path: &Path, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, mode).expect("the test owns what it changes");
}

fn remove(path: &Path) {
    unmount_below(path);
    let _ = fs::remove_dir_all(path);
}

/// Clears what test processes that were killed left behind: theirs are the directories whose
/// process is gone.
fn sweep_once() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                for peer in ["a", "b", "c"] {
                    super::peer::kill_recorded_daemon(&entry.path().join(peer).join("home"));
                }
                remove(&entry.path());
            }
        }
    });
}
