//! The command line as it is typed.

use crate::control::Side;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use lockstep_vfs::Policy;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One folder, in lockstep on every machine.
///
/// `lockstep share DIR` on one machine prints a code; `lockstep join CODE DIR` on another joins it.
/// What one side writes, the other sees in milliseconds, over an encrypted connection between the
/// two, without a server.
#[derive(Parser, Debug)]
#[command(name = "lockstep", version, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage. `lockstep demo` shows it all on one machine."
)]
pub struct Cli {
    /// Keep keys and state in DIR, so that several peers can run on one machine [default:
    /// $LOCKSTEP_HOME, else the XDG state and config directories]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create a volume from DIR, serve it, and print an invite
    Share(Share),
    /// Join the volume that CODE invites to; files that DIR already holds are merged, keeping both
    Join(Join),
    /// Show volumes, mounts, peers, connections and what is still to be sent
    Status,
    /// Wait until every connected peer has all that was written here, and the other way round
    Wait(Wait),
    /// Print another invite for a volume (each is used once)
    Invite(OneVolume),
    /// Compare both sides, and the disk here with what was written; exit code 1 if they differ
    Verify(SomeVolumes),
    /// Show what both sides changed while apart, or settle it
    Conflicts(Conflicts),
    /// Show, restore or remove for good what peers' changes deleted or overwrote here
    Trash(Trash),
    /// Fetch PATH and everything below it, and keep it here
    Pin(OnePath),
    /// Take the pin of PATH away; what is here stays until it is evicted
    Unpin(OnePath),
    /// Give up the bytes of PATH that a connected peer keeps; they come back when they are read
    Evict(OnePath),
    /// Take a volume's mount away until the next `start`; it stays shared
    Unmount(OneVolume),
    /// Start the daemon, and open and mount again whatever is not
    Start(Start),
    /// Stop the daemon: flush, unmount, disconnect
    Stop,
    /// Show the main job on this machine: two peers, two mounts, one git repository
    Demo(Demo),
    /// Be the daemon of this home
    #[command(hide = true)]
    Daemon,
}

/// Arguments of `share`.
#[derive(Args, Debug)]
pub struct Share {
    /// The directory; its files are shared, and stay plain files in it
    pub dir: PathBuf,
    /// Name of the volume [default: the directory's name]
    #[arg(long, value_name = "VOLUME")]
    pub name: Option<String>,
    /// Where to show and serve it.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Arguments of `join`.
#[derive(Args, Debug)]
pub struct Join {
    /// The code that `lockstep share` printed
    pub code: String,
    /// The directory for the volume's plain files; made if it is missing
    pub dir: PathBuf,
    /// Where to show and serve it.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Where a volume is shown, and where peers reach it.
#[derive(Args, Debug)]
pub struct PlaceArgs {
    /// Mount the volume at MNT [default: over DIR itself]
    #[arg(long, value_name = "MNT")]
    pub mount: Option<PathBuf>,
    /// Do not mount: replicate the plain directory only
    #[arg(long, conflicts_with = "mount")]
    pub no_mount: bool,
    /// Where peers reach this side; port 0 picks a free one, which is kept
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// When contents come here: `eager` fetches all of them at once, `on-demand` each when it is
    /// first read
    #[arg(long, value_name = "POLICY", default_value = "eager", value_parser = policies())]
    pub policy: Policy,
    /// Keep the daemon in this terminal until it is interrupted
    #[arg(long)]
    pub foreground: bool,
}

/// Arguments of `pin`, `unpin` and `evict`.
#[derive(Args, Debug)]
pub struct OnePath {
    /// A file or directory in a volume
    pub path: PathBuf,
}

/// Arguments of `wait`.
#[derive(Args, Debug)]
pub struct Wait {
    /// Give up after S seconds
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = seconds)]
    pub timeout: f64,
}

/// Arguments of `invite` and `unmount`.
#[derive(Args, Debug)]
pub struct OneVolume {
    /// Its name, or the beginning of its id
    pub volume: String,
}

/// Arguments of `conflicts`.
#[derive(Args, Debug)]
pub struct Conflicts {
    /// What to do [default: list them]
    #[command(subcommand)]
    pub command: Option<ConflictsCommand>,
}

/// What is done about conflicts.
#[derive(Subcommand, Debug)]
pub enum ConflictsCommand {
    /// Settle the conflict about PATH: one version gets the plain name, the others go to the trash
    Resolve {
        /// The plain name, or one copy
        path: PathBuf,
        /// Whose version to keep
        #[arg(long, value_enum, value_name = "SIDE")]
        keep: Side,
    },
}

/// Arguments of `trash`.
#[derive(Args, Debug)]
pub struct Trash {
    /// What to do with it.
    #[command(subcommand)]
    pub command: TrashCommand,
}

/// What is done with the trash.
#[derive(Subcommand, Debug)]
pub enum TrashCommand {
    /// Show what is in it, newest first
    List(SomeVolumes),
    /// Put the newest version of PATH back, under another name if PATH exists; of a removed directory
    /// each file in it that was kept
    Restore {
        /// Where it stood
        path: PathBuf,
    },
    /// Remove everything in it for good
    Empty(SomeVolumes),
}

/// Arguments of commands about one volume or all.
#[derive(Args, Debug)]
pub struct SomeVolumes {
    /// Its name, or the beginning of its id [default: all volumes]
    pub volume: Option<String>,
}

/// Arguments of `start`.
#[derive(Args, Debug)]
pub struct Start {
    /// Keep the daemon in this terminal until it is interrupted
    #[arg(long)]
    pub foreground: bool,
}

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub struct Demo {
    /// Leave everything as it is at the end, and print where
    #[arg(long)]
    pub keep: bool,
    /// Clone this repository instead of a small generated one
    #[arg(long, value_name = "URL")]
    pub repo: Option<String>,
}

fn policies() -> impl TypedValueParser<Value = Policy> {
    PossibleValuesParser::new(["eager", "on-demand"]).map(|word| match word.as_str() {
        "on-demand" => Policy::OnDemand,
        _ => Policy::Eager,
    })
}

/// Longest patience of `wait`: ten years, in seconds.
const PATIENCE_MAX_S: f64 = 315_360_000.0;

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=PATIENCE_MAX_S).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds, 0 or more".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_the_promised_one() {
        Cli::command().debug_assert();
        for line in [
            "lockstep --home h share d --mount m --name v --listen 127.0.0.1:0 --json",
            "lockstep share d --no-mount --foreground --home h",
            "lockstep join CODE d --mount m --listen [::]:4",
            "lockstep status --json",
            "lockstep wait --timeout 0.5",
            "lockstep invite v",
            "lockstep unmount v",
            "lockstep verify",
            "lockstep verify v --json",
            "lockstep conflicts",
            "lockstep conflicts --json",
            "lockstep conflicts resolve p --keep mine",
            "lockstep conflicts resolve p --keep theirs --json",
            "lockstep conflicts resolve --keep both p",
            "lockstep trash list",
            "lockstep trash list v --json",
            "lockstep trash restore p",
            "lockstep trash empty",
            "lockstep trash empty v",
            "lockstep start --foreground",
            "lockstep stop",
            "lockstep share d --policy on-demand",
            "lockstep join c d --policy eager",
            "lockstep pin p --json",
            "lockstep unpin p",
            "lockstep evict p",
            "lockstep demo --keep --repo u",
            "lockstep daemon",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
        for line in [
            "lockstep",
            "lockstep share",
            "lockstep share d --mount m --no-mount",
            "lockstep share d --listen here",
            "lockstep share d --policy never",
            "lockstep evict",
            "lockstep wait --timeout -1",
            "lockstep wait --timeout never",
            "lockstep conflicts resolve p",
            "lockstep conflicts resolve p --keep neither",
            "lockstep trash",
            "lockstep trash restore",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
