//! `lockstep demo`: the main job on one machine, with nothing played: two homes, two daemons that
//! are processes of this very binary, two mounts, and a git repository between them.

mod checks;
mod child;
mod repository;
mod stage;

use crate::cli::output::{Output, say, say_error};
use crate::errors::{Failure, Outcome};
use checks::Checks;
use child::Children;
use serde_json::{Value, json};
use stage::Stage;
use std::time::{Duration, Instant};

/// Shows the main job. `keep` leaves everything running; `repo` is cloned instead of a generated one.
pub fn run(keep: bool, repo: Option<&str>, output: Output) -> Outcome<()> {
    let children = Children::watch()?;
    require_git(&children)?;
    require_fuse()?;
    let mut stage = Stage::build(&children)?;
    let mut program = Program { output, steps: Vec::new(), began: Instant::now() };
    program
        .line(&format!("Lockstep demo: two peers on this machine, in {}\n", stage.dir().display()));
    let outcome = play(&stage, repo, &mut program);
    match (&outcome, keep) {
        (_, true) => program.line(&stage.keep()),
        (Ok(()), false) => {
            program.step("both daemons stop, mounts and files are removed", || stage.clear())?
        }
        (Err(_), false) => stage.clear()?,
    }
    outcome?;
    program.end();
    Ok(())
}

fn play(stage: &Stage, repo: Option<&str>, program: &mut Program) -> Outcome<()> {
    program.step("A shares a directory, B joins it with the code", || stage.connect())?;
    let source = match repo {
        Some(url) => url.to_owned(),
        None => {
            let title = "a repository to clone: 8 files, 24 objects, 2 MiB";
            program.step(title, || repository::generate(stage))?
        }
    };
    let checks = Checks::new(stage);
    program.step("git clone into A's mount", || checks.clone_on_a(&source))?;
    program.step("lockstep wait: B has all of it, durable and complete", || stage.a().wait())?;
    program.step("every file's inode and times fit git's index on B as on A", || {
        checks.index_fits()
    })?;
    let reads = program.step("git status in B's mount: clean", || checks.status_is_clean())?;
    program.remark(&format!("B's mount answered {reads} read requests meanwhile"));
    program.step("git fsck --full in B's mount: every object is whole", || checks.is_sound())?;
    for (from, to) in [(stage.b(), stage.a()), (stage.a(), stage.b())] {
        let title =
            format!("a commit on {}: {}'s git log shows it, both are clean", from.name, to.name);
        let seen = program.step(&title, || checks.commit_travels(from, to))?;
        program.remark(&format!("visible on {} {} after git returned", to.name, shown(seen)));
    }
    let session =
        program.step("what lockstep status says of the connection", || stage.a().session())?;
    program.remark(&session.describe());
    session.check()
}

/// Prints the steps as they happen, with the time each took.
struct Program {
    output: Output,
    steps: Vec<Value>,
    began: Instant,
}

impl Program {
    fn step<T>(&mut self, title: &str, act: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let number = self.steps.len() + 1;
        self.print(&format!("{number:>3}. {title:<66} "));
        let start = Instant::now();
        let outcome = act();
        let took = start.elapsed();
        self.steps
            .push(json!({ "step": title, "seconds": took.as_secs_f64(), "ok": outcome.is_ok() }));
        self.print(&match &outcome {
            Ok(_) => format!("{:>9}\n", shown(took)),
            Err(_) => "   FAILED\n".to_owned(),
        });
        outcome.map_err(|failure| failure.during(&format!("step {number} ({title})")))
    }

    fn remark(&mut self, text: &str) {
        if let Some(step) = self.steps.last_mut() {
            step["remark"] = json!(text);
        }
        self.line(&format!("     {text}"));
    }

    fn line(&self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    fn end(self) {
        let took = self.began.elapsed();
        self.line(&format!("\nAll of it worked, in {}.", shown(took)));
        if self.output.json {
            let seconds = took.as_secs_f64();
            say(&format!("{}\n", json!({ "ok": true, "seconds": seconds, "steps": self.steps })));
        }
    }

    fn print(&self, text: &str) {
        if self.output.json { say_error(text) } else { say(text) }
    }
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

fn require_git(children: &Children) -> Outcome<()> {
    let mut git = std::process::Command::new("git");
    children.output(git.arg("--version")).map(drop).map_err(|failure| {
        let message = format!("the demo needs git: {}", failure.message());
        Failure::failed(message, "install it, e.g. with `apt-get install git`")
    })
}

fn require_fuse() -> Outcome<()> {
    crate::daemon::directory::check_fuse().map_err(|failure| {
        Failure::failed(
            failure.message(),
            "run `modprobe fuse`, or in a container pass /dev/fuse in",
        )
    })
}
