//! git, apart from whatever configuration this machine has.

use super::command::{Outcome, run};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const CONFIG: &str = "[user]\n\tname = A Tester\n\temail = tester@example.org\n[init]\n\tdefaultBranch = main\n\
[gc]\n\tauto = 0\n[protocol \"file\"]\n\tallow = always\n[safe]\n\tdirectory = *\n[advice]\n\tdetachedHead = false\n\
[core]\n\teditor = true\n[maintenance]\n\tauto = false\n";

/// A configuration and a place where git runs.
pub struct Git {
    config: PathBuf,
}

impl Git {
    /// Keeps its configuration in `home`, a directory of the test.
    pub fn new(home: &Path) -> Git {
        let config = home.join("gitconfig");
        std::fs::write(&config, CONFIG).expect("the test's directory is writable");
        Git { config }
    }

    /// `program` with git's environment set.
    pub fn environ<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OPTIONAL_LOCKS"] {
            command.env_remove(name);
        }
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", &self.config)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("HOME", self.config.parent().expect("made by new"))
    }

    /// Runs `git args...` in `dir`, whatever it answers.
    #[track_caller]
    pub fn attempt<S: AsRef<OsStr>>(&self, dir: &Path, args: &[S]) -> Outcome {
        let mut command = Command::new("git");
        run(self.environ(&mut command).current_dir(dir).args(args), Duration::from_secs(250))
    }

    /// Runs `git args...` in `dir`; what it printed.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, dir: &Path, args: &[S]) -> String {
        self.attempt(dir, args).success().stdout
    }

    /// Panics unless `git status` finds nothing changed in `dir`.
    #[track_caller]
    pub fn assert_clean(&self, dir: &Path) {
        assert_eq!(self.run(dir, &["status", "--porcelain"]), "", "git status in {dir:?}");
    }

    /// Panics unless `git fsck` finds every object whole.
    #[track_caller]
    pub fn assert_sound(&self, dir: &Path) {
        let outcome = self.attempt(dir, &["fsck", "--full", "--no-dangling", "--no-progress"]);
        let outcome = outcome.success();
        assert_eq!(format!("{}{}", outcome.stdout, outcome.stderr), "", "git fsck in {dir:?}");
    }

    /// All refs with what they point at.
    #[track_caller]
    pub fn refs(&self, dir: &Path) -> String {
        let heads = self.run(dir, &["show-ref", "--head"]);
        heads + &self.run(dir, &["rev-parse", "--all"])
    }

    /// How many files' content `git status` had to read in `dir`, as git itself counts them.
    #[track_caller]
    pub fn files_read_by_status(&self, dir: &Path, trace: &Path) -> u64 {
        let mut command = Command::new("git");
        let command = self.environ(&mut command).current_dir(dir).env("GIT_TRACE2_EVENT", trace);
        run(command.args(["status", "--porcelain"]), Duration::from_secs(60)).success();
        let events = std::fs::read_to_string(trace).expect("git wrote its trace");
        let scans = events.lines().filter_map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            let counted = event["key"] == "refresh/sum_scan";
            counted.then(|| event["value"].as_str()?.parse::<u64>().ok())?
        });
        scans.max().expect("git counts the files it scans in its trace")
    }
}
