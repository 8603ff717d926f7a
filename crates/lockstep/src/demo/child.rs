//! Programs that the demo runs, and the one thing that ends them early: Ctrl-C.

use crate::errors::{Failure, Outcome};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const PAUSE: Duration = Duration::from_millis(2);

/// Runs programs until an interruption.
#[derive(Clone)]
pub struct Children {
    interrupted: Arc<AtomicBool>,
}

impl Children {
    /// From now on an interrupt, a termination or a hangup ends the running program, not the demo,
    /// which then cleans up.
    pub fn watch() -> Outcome<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        let failed = |e: std::io::Error| {
            Failure::failed(format!("cannot watch for signals: {e}"), "see ulimit -n and -u")
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let inside = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        drop(inside);
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                flag.store(true, Ordering::SeqCst);
            });
        });
        Ok(Children { interrupted })
    }

    /// The same, deaf to interruptions: for cleaning up.
    pub fn undisturbed(&self) -> Self {
        Children { interrupted: Arc::default() }
    }

    /// Fails once the demo was interrupted.
    pub fn check(&self) -> Outcome<()> {
        if self.interrupted.load(Ordering::SeqCst) {
            return Err(Failure::failed("interrupted", "run `lockstep demo` again"));
        }
        Ok(())
    }

    /// Runs `command` to its end; what it wrote to standard output.
    pub fn output(&self, command: &mut Command) -> Outcome<String> {
        self.check()?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Failure::failed(format!("cannot run {program}: {e}"), ""))?;
        let said = collect(child.stdout.take());
        let complained = collect(child.stderr.take());
        let ended = self.wait(&mut child);
        let (said, complained) = (said.join(), complained.join());
        let (said, complained) = (said.unwrap_or_default(), complained.unwrap_or_default());
        ended?
            .then_some(said)
            .ok_or_else(|| Failure::failed(format!("{}: {}", line(command), complained.trim()), ""))
    }

    fn wait(&self, child: &mut Child) -> Outcome<bool> {
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    self.check()?;
                    return Ok(status.success());
                }
                Ok(None) => {}
                Err(e) => return Err(Failure::failed(format!("lost a program: {e}"), "")),
            }
            if let Err(interrupted) = self.check() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(interrupted);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks has said what it had to say.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
