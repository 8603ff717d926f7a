//! Starting a daemon in the background and waiting until it answers.

use super::abandoned;
use super::detach::detach;
use super::lock::HomeLock;
use crate::control::caller;
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A daemon that does not answer within this time is given up.
const ANSWER_DEADLINE: Duration = caller::SILENCE_MAX;
const PAUSE: Duration = Duration::from_millis(10);
/// A log longer than this is put aside before the next start.
const LOG_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How much of a log is searched for the reason of a failed start.
const LOG_TAIL_BYTES: u64 = 64 * 1024;
/// How a daemon ends that found another one on its home (`EX_TEMPFAIL` of sysexits(3)).
pub const EARLY: u8 = 75;
/// How a daemon's last words begin.
pub const LAST_WORDS: &str = "lockstep: ";
/// How the second line of last words begins.
const NEXT_STEP: &str = "  next step: ";

/// Returns when a daemon of `home` answers, one already running or a new one. Says which: `true`
/// for a new one.
pub fn ensure_running(home: &Home) -> Outcome<bool> {
    abandoned::release(home)?;
    let deadline = Instant::now() + ANSWER_DEADLINE;
    if caller::answers(home, deadline) {
        return Ok(false);
    }
    home.create()?;
    await_change(home, deadline)?;
    if caller::answers(home, deadline) {
        return Ok(false);
    }
    let (mut child, mut log_start) = spawn(home)?;
    let deadline = Instant::now() + ANSWER_DEADLINE;
    while !caller::answers(home, deadline) {
        let ended = child.try_wait().ok().flatten();
        // Another command may have started one at the same moment: then ours lost, and that is fine.
        if let Some(status) = ended
            && !HomeLock::is_held(home)?
        {
            if status.code() != Some(EARLY.into()) {
                return Err(last_words(home, log_start));
            }
            (child, log_start) = spawn(home)?;
        }
        if Instant::now() > deadline {
            return Err(caller::silent(home, ANSWER_DEADLINE));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}

/// A daemon that lives and does not answer is just starting or just leaving: waits for either.
fn await_change(home: &Home, deadline: Instant) -> Outcome<()> {
    while HomeLock::is_held(home)? && !caller::answers(home, deadline) {
        if Instant::now() > deadline {
            return Err(caller::silent(home, ANSWER_DEADLINE));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn spawn(home: &Home) -> Outcome<(Child, u64)> {
    let path = home.log_file();
    let failed = |e: std::io::Error| {
        let hint =
            "see that the home can be written, make room on its filesystem, or give --home DIR";
        Failure::io("start a daemon with its log in", &path, &e, hint)
    };
    if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_MAX_BYTES) {
        fs::rename(&path, path.with_extension("log.old")).map_err(failed)?;
    }
    let log =
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    let log_start = log.metadata().map_err(failed)?.len();
    // On a full disk the daemon could not even say why it ends.
    (&log).write_all(b"a command starts a daemon\n").map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command
        .args(home.arguments())
        .arg("daemon")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log);
    detach(&mut command);
    Ok((command.spawn().map_err(failed)?, log_start))
}

/// The failure that a daemon wrote to its log as it ended.
fn last_words(home: &Home, log_start: u64) -> Failure {
    let said = read_from(home, log_start).unwrap_or_default();
    parse_last_words(&said).unwrap_or_else(|| {
        Failure::failed(
            "the daemon ended as soon as it was started, without a word",
            format!("look at {}", home.log_file().display()),
        )
    })
}

/// What a daemon that failed to start left at the end of its log.
pub fn parse_last_words(said: &str) -> Option<Failure> {
    let start = said.rfind(&format!("\n{LAST_WORDS}")).map(|at| at + 1);
    let start = start.or_else(|| said.starts_with(LAST_WORDS).then_some(0))?;
    // Behind them another daemon may have written already.
    let mut lines = said[start + LAST_WORDS.len()..].lines();
    let message = lines.next().unwrap_or_default();
    let hint = lines.next().and_then(|line| line.strip_prefix(NEXT_STEP)).unwrap_or_default();
    Some(Failure::failed(message, hint))
}

fn read_from(home: &Home, log_start: u64) -> std::io::Result<String> {
    let mut log = File::open(home.log_file())?;
    let tail = log.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
    log.seek(SeekFrom::Start(log_start.max(tail)))?;
    let mut bytes = Vec::new();
    log.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_found_behind_the_log() {
        let failure = Failure::failed("cannot lock X: busy", "stop the other");
        let said = format!("2025 INFO lockstep: started\n{LAST_WORDS}{failure}\n");
        assert_eq!(parse_last_words(&said), Some(failure.clone()));
        let said = format!("{LAST_WORDS}{failure}\n2025 INFO lockstep: started\n");
        assert_eq!(parse_last_words(&said), Some(failure));
        assert_eq!(parse_last_words("2025 INFO lockstep: started\n"), None);
    }
}
