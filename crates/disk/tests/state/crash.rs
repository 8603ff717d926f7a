//! `kill -9` at any moment loses nothing that a commit had returned for.

use crate::{assert_holds_exactly, numbered};
use lockstep_core::Sequence;
use lockstep_disk::{StateDb, StateError, StateStore};
use std::collections::BTreeSet;
use std::fs;
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

/// What a power cut leaves of commits that were not synced: the journal ends early, or in zeros.
#[test]
fn a_torn_journal_holds_what_came_before_the_tear() {
    let dir = TempDir::new().unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    for number in 1..=20 {
        db.commit(&numbered(number)).unwrap();
    }
    drop(db);
    let journal = dir.path().join("v1/0.jnl");
    let whole = fs::read(&journal).unwrap();
    let written = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut seen = BTreeSet::new();
    for tear in (0..written).step_by(19) {
        let mut torn = whole[..tear].to_vec();
        if tear % 2 == 1 {
            torn.resize(written + 4096, 0);
        }
        fs::write(&journal, torn).unwrap();
        let db = StateDb::open(dir.path()).unwrap();
        let last = db.last_log().unwrap().unwrap_or_default().0;
        assert_holds_exactly(&db, last);
        seen.insert(last);
        db.commit(&numbered(last + 1)).unwrap();
        drop(db);
        assert_holds_exactly(&StateDb::open(dir.path()).unwrap(), last + 1);
    }
    assert!(seen.len() > 15 && !seen.contains(&20), "{seen:?}");
}

/// Pages of unsynced commits are written in any order: one in the middle can be missing.
#[test]
fn a_journal_with_a_page_missing_holds_what_came_before_it() {
    let dir = TempDir::new().unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    let mut with_big_value = numbered(2);
    with_big_value.meta.push(("big".to_owned(), vec![7; 30_000]));
    for batch in [numbered(1), with_big_value, numbered(3)] {
        db.commit(&batch).unwrap();
    }
    drop(db);
    let journal = dir.path().join("v1/0.jnl");
    let mut torn = fs::read(&journal).unwrap();
    torn[8192..12_288].fill(0);
    fs::write(&journal, &torn).unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    let cut = db.cut().expect("it says that it cut something off");
    assert_eq!(cut.journal, journal);
    let kept = fs::read(cut.kept.as_ref().expect("and keeps it")).unwrap();
    assert!(kept.len() > 30_000 - 4096 && torn.windows(kept.len()).any(|part| part == kept));
    drop(db);
    let db = StateDb::open(dir.path()).unwrap();
    assert_eq!(db.cut(), None, "what was cut is whole again");
    assert_holds_exactly(&db, 1);
    assert_eq!(db.meta("big").unwrap(), None);
}

#[test]
fn a_crash_while_the_database_is_being_made_is_no_harm() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("v1.new")).unwrap();
    fs::write(dir.path().join("v1.new/0.jnl"), b"half").unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    db.commit(&numbered(1)).unwrap();
    assert!(!dir.path().join("v1.new").exists());
}
