//! The life of the daemon's process, from the lock on its home to its release.

use super::Daemon;
use super::lock::HomeLock;
use crate::cli::log;
use crate::control::{Request, listener};
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use rustix::fs::Mode;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Tasks that outlast the shutdown by this long are left behind.
const TASKS_DEADLINE: Duration = Duration::from_secs(2);

/// Runs the daemon of `home` until it is stopped. With `first`, a command given with
/// `--foreground`: carries it out, hands the outcome to `told`, and ends if it failed.
pub fn run(home: &Home, first: Option<Request>, told: impl FnOnce(&Outcome<Value>)) -> Outcome<()> {
    home.create()?;
    let lock = HomeLock::take(home)?;
    log::start();
    // For the files of the state, which the database makes. Modes of users' files are set as the
    // callers of the mounts say.
    let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let _ = rustix::process::chdir("/");
    let runtime = runtime()?;
    let daemon = Daemon::assemble(home, runtime.handle(), 0o777 & !umask.as_raw_mode())?;
    let outcome = serve(&runtime, &daemon, home, first, told);
    daemon.shut_down();
    drop(daemon);
    runtime.shutdown_timeout(TASKS_DEADLINE);
    tracing::info!("daemon stopped");
    log::flush();
    lock.keep_until_exit();
    outcome
}

fn serve(
    runtime: &Runtime,
    daemon: &Arc<Daemon>,
    home: &Home,
    first: Option<Request>,
    told: impl FnOnce(&Outcome<Value>),
) -> Outcome<()> {
    let _inside = runtime.enter();
    watch_signals(runtime, daemon)?;
    let control = listener::bind(home)?;
    let answering = Arc::clone(daemon);
    let answer: listener::Answer = Arc::new(move |request| answering.carry_out(request));
    let serving = runtime.spawn(listener::serve(control, home.clone(), answer));
    tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "daemon started");
    let opening = Arc::clone(daemon);
    let opened = runtime.spawn_blocking(move || opening.open_all());
    let outcome = first.map_or(Ok(()), |request| {
        let outcome = daemon.carry_out(request);
        told(&outcome);
        outcome.map(drop)
    });
    if outcome.is_ok() {
        runtime.block_on(daemon.stop.notified());
    }
    serving.abort();
    let _ = std::fs::remove_file(home.socket());
    let _ = runtime.block_on(opened);
    outcome
}

fn runtime() -> Outcome<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("lockstep-net")
        .build()
        .map_err(|e| Failure::failed(format!("cannot start threads: {e}"), "see ulimit -u"))
}

/// The first signal stops the daemon in order, the second one at once.
fn watch_signals(runtime: &Runtime, daemon: &Arc<Daemon>) -> Outcome<()> {
    let wanted = || -> std::io::Result<_> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [a, b, c] = kinds.map(signal);
        Ok((a?, b?, c?))
    };
    let (mut interrupt, mut terminate, mut hangup) = wanted()
        .map_err(|e| Failure::failed(format!("cannot watch for signals: {e}"), "see ulimit -n"))?;
    let daemon = Arc::downgrade(daemon);
    runtime.spawn(async move {
        for already_stopping in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if already_stopping {
                log::flush();
                std::process::exit(1);
            }
            tracing::info!("stopping on a signal");
            daemon.upgrade().inspect(|daemon| drop(daemon.stop()));
        }
    });
    Ok(())
}
