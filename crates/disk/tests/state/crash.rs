//! `kill -9` at any moment loses nothing that a commit had returned for.

use crate::{assert_holds_exactly, numbered};
use lockstep_core::Sequence;
use lockstep_disk::{StateDb, StateError};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// Names the directory in which the child works; unset in an ordinary run.
const DIR_VARIABLE: &str = "LOCKSTEP_TEST_STATE_DIR";
const ACKNOWLEDGED: &str = "committed ";

/// Not a test: what the killed child does, which is to commit and to say so, forever.
#[test]
fn committing_child() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let db = StateDb::open(Path::new(&dir)).unwrap();
    let first = db.last_log().unwrap().unwrap_or_default().0 + 1;
    for number in first.. {
        db.commit(&numbered(number)).unwrap();
        writeln!(std::io::stdout(), "{ACKNOWLEDGED}{number}").unwrap();
    }
}

/// Kills its process when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn start_child(dir: &Path) -> (Killed, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::committing_child", "--nocapture"])
        .env(DIR_VARIABLE, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (Killed(child), output)
}

/// The number in the next acknowledgement; `None` at the end of the output.
fn next_acknowledged(output: &mut impl BufRead) -> Option<u64> {
    for line in output.lines() {
        if let Some((_, number)) = line.unwrap().split_once(ACKNOWLEDGED) {
            return number.parse().ok();
        }
    }
    None
}

#[test]
fn what_was_committed_survives_kill_9() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged = 0;
    for commits in [1, 7, 200, 30] {
        let (child, mut output) = start_child(dir.path());
        for _ in 0..commits {
            acknowledged = next_acknowledged(&mut output).expect("the child keeps committing");
        }
        drop(child);
        while let Some(number) = next_acknowledged(&mut output) {
            acknowledged = number;
        }
        let db = StateDb::open(dir.path()).unwrap();
        let last = db.last_log().unwrap().unwrap_or_default().0;
        assert!(last >= acknowledged, "{acknowledged} was acknowledged, {last} is the last");
        assert_holds_exactly(&db, last);
    }
}

#[test]
fn a_database_in_use_is_refused_to_others_and_free_after_kill_9() {
    let dir = TempDir::new().unwrap();
    let (child, mut output) = start_child(dir.path());
    next_acknowledged(&mut output).unwrap();
    let error = StateDb::open(dir.path()).err().unwrap();
    assert!(matches!(error, StateError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    drop(child);
    assert!(StateDb::open(dir.path()).unwrap().last_log().unwrap() >= Some(Sequence(1)));
}

#[test]
fn a_crash_while_the_database_is_being_made_is_no_harm() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("v1.new")).unwrap();
    std::fs::write(dir.path().join("v1.new/0.jnl"), b"half").unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    db.commit(&numbered(1)).unwrap();
    assert!(!dir.path().join("v1.new").exists());
}
