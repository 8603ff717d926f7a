//! The commands, as a user types them and reads their answers.

pub mod args;
pub mod log;
pub mod output;
pub mod text;

use crate::control::{Place, Request, caller};
use crate::daemon::{abandoned, join, launch, lock, run};
use crate::demo;
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use args::{Cli, Command, ConflictsCommand, PlaceArgs, TrashCommand};
use clap::Parser;
use clap::error::ErrorKind;
use output::Output;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A daemon that is asked to stop and still lives after this time is reported.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => {
            let output = Output { json: cli.json };
            dispatch(cli, output).unwrap_or_else(|failure| output.failure(&failure))
        }
        Err(error) => misunderstood(&error),
    }
}

fn misunderstood(error: &clap::Error) -> ExitCode {
    let asked_for = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
    let in_json = std::env::args_os().any(|arg| arg == "--json");
    if in_json && !asked_for.contains(&error.kind()) {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let failure = Failure::usage(message, "run `lockstep help`");
        output::say(&format!("{}\n", failure.to_json()));
    }
    let _ = error.print();
    ExitCode::from(if asked_for.contains(&error.kind()) { 0 } else { 2 })
}

fn dispatch(cli: Cli, output: Output) -> Outcome<ExitCode> {
    if let Command::Demo(demo) = &cli.command {
        return demo::run(demo.keep, demo.repo.as_deref(), output).map(|()| ExitCode::SUCCESS);
    }
    let home = Home::locate(cli.home.as_deref())?;
    let ask = |request: Request| caller::call(&home, &request);
    Ok(match cli.command {
        Command::Share(share) => {
            let foreground = share.place.foreground;
            let dir = absolute(&share.dir)?;
            let request = Request::Share { dir, name: share.name, place: place(share.place)? };
            with_daemon(&home, foreground, request, output, text::shared)
        }
        Command::Join(args) => {
            // A code that is none must not start a daemon.
            join::parse(&args.code)?;
            let foreground = args.place.foreground;
            let dir = absolute(&args.dir)?;
            let request = Request::Join { code: args.code, dir, place: place(args.place)? };
            with_daemon(&home, foreground, request, output, text::joined)
        }
        Command::Start(start) => start_daemon(&home, start.foreground, output),
        Command::Status => output.finish(ask(Request::Status), text::status),
        Command::Wait(wait) => {
            let timeout_ms = Duration::from_secs_f64(wait.timeout).as_millis() as u64;
            output.finish(ask(Request::Wait { timeout_ms }), text::waited)
        }
        Command::Invite(which) => {
            output.finish(ask(Request::Invite { volume: which.volume }), text::invited)
        }
        Command::Unmount(which) => {
            output.finish(ask(Request::Unmount { volume: which.volume }), text::unmounted)
        }
        Command::Verify(which) => {
            let outcome = ask(Request::Verify { volume: which.volume });
            let differ = outcome.as_ref().is_ok_and(|answer| answer["clean"] != true);
            let ended = output.finish(outcome, text::verified);
            if differ { ExitCode::FAILURE } else { ended }
        }
        Command::Conflicts(conflicts) => match conflicts.command {
            None => output.finish(ask(Request::Conflicts), text::conflicts_listed),
            Some(ConflictsCommand::Resolve { path, keep }) => {
                let path = located(&path)?;
                output.finish(ask(Request::Resolve { path, keep }), text::conflict_resolved)
            }
        },
        Command::Trash(trash) => match trash.command {
            TrashCommand::List(which) => {
                output.finish(ask(Request::TrashList { volume: which.volume }), text::trash_listed)
            }
            TrashCommand::Restore { path } => {
                let path = located(&path)?;
                output.finish(ask(Request::TrashRestore { path }), text::trash_restored)
            }
            TrashCommand::Empty(which) => output
                .finish(ask(Request::TrashEmpty { volume: which.volume }), text::trash_emptied),
        },
        Command::Pin(which) => {
            let path = located(&which.path)?;
            output.finish(ask(Request::Pin { path }), text::pinned)
        }
        Command::Unpin(which) => {
            let path = located(&which.path)?;
            output.finish(ask(Request::Unpin { path }), text::unpinned)
        }
        Command::Evict(which) => {
            let path = located(&which.path)?;
            output.finish(ask(Request::Evict { path }), text::evicted)
        }
        Command::Stop => output.finish(stop(&home), text::stopped),
        Command::Daemon => match run::run(&home, None, |_| ()) {
            Err(failure) if failure.is_early() => {
                output.failure(&failure);
                ExitCode::from(launch::EARLY)
            }
            ended => ended.map(|()| ExitCode::SUCCESS)?,
        },
        Command::Demo(_) => unreachable!("answered above: it has homes of its own"),
    })
}

/// Has a daemon carry out `request`: the one that runs, one started for it, or this process.
fn with_daemon(
    home: &Home,
    foreground: bool,
    request: Request,
    output: Output,
    text: fn(&Value) -> String,
) -> ExitCode {
    if !foreground {
        return output.finish(ask_running(home, &request), text);
    }
    let ended = run::run(home, Some(request), |outcome| {
        if let Ok(value) = outcome {
            output.success(value.clone(), text);
        }
    });
    ended.map_or_else(|failure| output.failure(&failure), |()| ExitCode::SUCCESS)
}

/// Asks the daemon of `home`, one started for it if none runs.
fn ask_running(home: &Home, request: &Request) -> Outcome<Value> {
    let deadline = Instant::now() + STOP_DEADLINE;
    loop {
        let new = launch::ensure_running(home)?;
        let outcome = caller::call(home, request);
        match &outcome {
            // One that leaves has done nothing of it; the next one will.
            Err(failure) if failure.is_early() && Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            Err(_) if new => {
                stop_if_idle(home);
                return outcome;
            }
            _ => return outcome,
        }
    }
}

/// A daemon that was started for a command that failed leaves with it, unless it serves something.
fn stop_if_idle(home: &Home) {
    let asked = caller::call(home, &Request::StopIfIdle);
    if asked.is_ok_and(|answer| answer["stopping"] == true) {
        let _ = stop(home);
    }
}

fn start_daemon(home: &Home, foreground: bool, output: Output) -> ExitCode {
    if foreground {
        return with_daemon(home, true, Request::Start, output, text::status);
    }
    let outcome = ask_running(home, &Request::Start);
    let failed = outcome.as_ref().ok().and_then(troubled);
    match failed {
        Some(failure) => output.failure(&failure),
        None => output.finish(outcome, text::status),
    }
}

/// The failure of a start after which some volume is not open or not mounted.
fn troubled(status: &Value) -> Option<Failure> {
    let lines = |problems: &Value| -> Vec<String> {
        let each = problems.as_array().into_iter().flatten();
        each.filter_map(|line| line.as_str().map(str::to_owned)).collect()
    };
    let mut broken = lines(&status["problems"]);
    let volumes = status["volumes"].as_array().into_iter().flatten();
    broken.extend(
        volumes
            .filter(|v| v["open"] == false || (v["mounted"] == false && !v["mount"].is_null()))
            .map(|v| {
                let name = v["name"].as_str().unwrap_or_default();
                format!("{name}: {}", lines(&v["problems"]).join("; "))
            }),
    );
    let message = format!("the daemon runs, but not every volume is there: {}", broken.join("; "));
    let hint = "mend the cause, then run `lockstep start` again";
    (!broken.is_empty()).then(|| Failure::failed(message, hint))
}

/// Asks the daemon to stop and returns when its process is gone.
fn stop(home: &Home) -> Outcome<Value> {
    abandoned::release(home)?;
    if !lock::HomeLock::is_held(home)? {
        return Ok(json!({ "stopped": false, "home": home.dir() }));
    }
    let asked = caller::call(home, &Request::Stop);
    if asked.as_ref().is_err_and(Failure::is_silent) {
        return asked;
    }
    let deadline = Instant::now() + STOP_DEADLINE;
    while lock::HomeLock::is_held(home)? {
        if Instant::now() > deadline {
            let pid = lock::pid(home).map_or_else(|| "?".to_owned(), |pid| pid.to_string());
            let why = asked.err().map(|e| format!(" ({})", e.message())).unwrap_or_default();
            return Err(Failure::failed(
                format!("the daemon (process {pid}) has not stopped within 60 seconds{why}"),
                format!("look at {}; as a last resort run `kill {pid}`", home.log_file().display()),
            ));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(json!({ "stopped": true, "home": home.dir() }))
}

fn place(args: PlaceArgs) -> Outcome<Place> {
    let mount = args.mount.map(|mount| absolute(&mount)).transpose()?;
    Ok(Place { mount, no_mount: args.no_mount, listen: args.listen, policy: args.policy })
}

/// The daemon has another working directory.
fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path).map_err(|e| {
        let message = format!("\"{}\" is not a path: {e}", path.display());
        Failure::usage(message, "give a directory")
    })
}

/// A path in a volume as the daemon knows it: symlinks on the way to it are resolved as far as the
/// way exists, its last name is left alone.
fn located(path: &Path) -> Outcome<PathBuf> {
    let path = absolute(path)?;
    let resolved = path
        .ancestors()
        .skip(1)
        .find_map(|above| Some(above.canonicalize().ok()?.join(path.strip_prefix(above).ok()?)));
    Ok(resolved.unwrap_or(path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_leaves_a_volume_behind_fails_and_names_it() {
        let fine =
            json!({"volumes": [{"name": "a", "open": true, "mounted": false, "mount": null}]});
        assert!(troubled(&fine).is_none());
        let broken = json!({"volumes": [
            {"name": "a", "open": true, "mounted": false, "mount": "/m", "problems": ["no /dev/fuse"]},
            {"name": "b", "open": true, "mounted": true, "mount": "/n", "problems": []},
        ]});
        let failure = troubled(&broken).unwrap();
        assert!(failure.message().ends_with("a: no /dev/fuse"), "{failure}");
    }
}
