//! The command line as others' scripts rely on it.

use crate::support::command::run;
use crate::support::connected;
use crate::support::environment::{self, mounts_below};
use crate::support::pair::{Layout, Pair};
use crate::support::peer::Placing;
use crate::support::repository::noise;
use crate::support::{SOON, eventually};
use rustix::process::Signal;
use serde_json::Value;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

fn has(object: &Value, key: &str, is: fn(&Value) -> bool) {
    let value = object.get(key).unwrap_or_else(|| panic!("no \"{key}\" in {object:#}"));
    assert!(is(value), "\"{key}\" is {value} in {object:#}");
}

#[test]
fn share_and_join_print_one_json_object() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let shared = pair.a.share();
    assert_eq!(shared["mount"], pair.a.mnt().to_str().unwrap());
    assert_eq!(shared["backing"], pair.a.backing.to_str().unwrap());
    has(&shared, "volume", Value::is_string);
    has(&shared, "invite", Value::is_string);
    let invite = shared["invite"].as_str().unwrap();
    assert!(!invite.contains(char::is_whitespace), "one word for a shell: {invite}");
    let joined = pair.b.join(invite);
    assert_eq!(joined["volume"], shared["volume"]);
    assert_eq!(joined["mount"], pair.b.mnt().to_str().unwrap());
    assert_eq!(joined["backing"], pair.b.backing.to_str().unwrap());
}

#[test]
fn share_without_a_mount_says_null() {
    let layout = Layout { a: Placing::Nowhere, ..Layout::default() };
    let Some(pair) = Pair::apart(layout) else { return };
    assert_eq!(pair.a.share()["mount"], Value::Null);
    assert!(mounts_below(&pair.a.backing).is_empty());
}

#[test]
fn share_names_the_volume_as_asked() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let dir = pair.a.backing.to_str().unwrap();
    let args =
        ["share", dir, "--no-mount", "--name", "photos", "--listen", "127.0.0.1:0", "--json"];
    assert_eq!(pair.a.run(&args).success().json()["volume"], "photos");
    assert_eq!(pair.a.volume()["name"], "photos");
}

#[test]
fn status_json_shape() {
    let pair = connected!();
    std::fs::write(pair.a.at("file"), "x").unwrap();
    pair.wait();
    for side in [&pair.a, &pair.b] {
        let status = side.status();
        assert_eq!(status["home"], side.home.to_str().unwrap());
        has(&status, "pid", Value::is_u64);
        let volume = side.volume();
        assert_eq!(volume["mount"], side.mnt().to_str().unwrap());
        assert_eq!(volume["backing"], side.backing.to_str().unwrap());
        has(&volume, "name", Value::is_string);
        assert_eq!((&volume["pending_changes"], &volume["pending_bytes"]), (&0.into(), &0.into()));
        assert_eq!(volume["peers"].as_array().map(Vec::len), Some(1), "{volume:#}");
        let peer = &volume["peers"][0];
        has(peer, "id", Value::is_string);
        has(peer, "name", Value::is_string);
        has(peer, "path", Value::is_string);
        assert_eq!(peer["connected"], true);
        assert_eq!(peer["kex"], "X25519MLKEM768", "post-quantum key exchange");
        let text = side.run(&["status"]).success().stdout;
        for word in [side.mnt().to_str().unwrap(), "X25519MLKEM768"] {
            assert!(text.contains(word), "no {word} in:\n{text}");
        }
    }
    assert_eq!(pair.a.volume()["name"], pair.b.volume()["name"]);
}

#[test]
fn keys_sockets_and_state_are_private() {
    let pair = connected!();
    for side in [&pair.a, &pair.b] {
        let mode = |name: &str| {
            let meta =
                side.home.join(name).metadata().unwrap_or_else(|why| panic!("{name}: {why}"));
            meta.permissions().mode() & 0o777
        };
        assert_eq!(mode("identity.key"), 0o600);
        for entry in std::fs::read_dir(&side.home).unwrap().flatten() {
            if entry.file_type().unwrap().is_socket() {
                assert_eq!(mode(entry.file_name().to_str().unwrap()), 0o600);
            }
        }
        let mut open = vec![side.home.clone()];
        while let Some(dir) = open.pop() {
            assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{dir:?}");
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                let mode = entry.metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
                open.extend(entry.file_type().unwrap().is_dir().then(|| entry.path()));
            }
        }
    }
}

#[test]
fn wait_covers_both_directions() {
    let pair = connected!();
    for round in 0..20u64 {
        std::fs::write(pair.a.at(format!("a{round}")), noise(round, 200_000)).unwrap();
        std::fs::write(pair.b.at(format!("b{round}")), noise(round, 200_000)).unwrap();
        pair.a.wait();
        assert!(
            std::fs::read(pair.b.backing.join(format!("a{round}"))).unwrap()
                == noise(round, 200_000)
        );
        assert!(
            std::fs::read(pair.a.backing.join(format!("b{round}"))).unwrap()
                == noise(round, 200_000)
        );
    }
}

#[test]
fn wait_times_out_naming_what_is_missing() {
    let pair = connected!();
    pair.b.signal(Signal::STOP);
    std::fs::write(pair.a.at("wanted"), noise(1, 100_000)).unwrap();
    let started = Instant::now();
    // A peer that answers nothing is at first still connected: then it is what is waited for.
    let outcome = pair.a.run(&["wait", "--timeout", "1"]);
    assert!(started.elapsed() < Duration::from_secs(20), "{outcome:#?}");
    outcome.fails_with(1, &[]);
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(said.contains("change") || said.contains("wanted"), "what is missing? {said}");
    pair.b.signal(Signal::CONT);
    pair.reconnected();
    pair.identical();
}

#[test]
fn wait_without_a_connected_peer_returns_at_once_and_says_so() {
    let pair = connected!();
    pair.b.stop();
    eventually("a notices", SOON, || !pair.a.is_connected());
    std::fs::write(pair.a.at("file"), "x").unwrap();
    let outcome = pair.a.run(&["wait", "--timeout", "30"]).success();
    assert!(!outcome.stderr.is_empty(), "a peer is away and nothing was said: {outcome:#?}");
}

#[test]
fn invite_prints_a_new_code_that_works() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let shared = pair.a.share();
    let volume = shared["volume"].as_str().unwrap();
    let printed = pair.a.run(&["invite", volume, "--json"]).success().json();
    let code = printed["invite"].as_str().unwrap();
    assert_ne!(code, shared["invite"].as_str().unwrap(), "each invite is for one use");
    pair.b.join(code);
    pair.reconnected();
    std::fs::write(pair.b.at("file"), "x").unwrap();
    pair.identical();
}

#[test]
fn a_used_invite_is_refused() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let shared = pair.a.share();
    let code = shared["invite"].as_str().unwrap();
    pair.b.join(code);
    pair.reconnected();
    let third = crate::support::peer::Peer::new("c", &pair.outside("third"), Placing::Nowhere);
    let dir = third.backing.to_str().unwrap();
    third
        .run(&["join", code, dir, "--no-mount", "--listen", "127.0.0.1:0"])
        .fails_with(1, &["used"]);
    pair.reconnected();
}

#[test]
fn unmount_and_start_mount_again() {
    let pair = connected!();
    std::fs::write(pair.a.at("file"), "x").unwrap();
    pair.wait();
    let volume = pair.a.volume()["name"].as_str().unwrap().to_owned();
    pair.a.run(&["unmount", &volume]).success();
    assert!(mounts_below(pair.a.mnt()).is_empty());
    std::fs::write(pair.b.at("more"), "written while a shows nothing").unwrap();
    pair.b.wait();
    assert!(pair.a.backing.join("more").exists(), "unmounted is still shared");
    pair.a.stop();
    pair.a.start();
    pair.reconnected();
    assert_eq!(mounts_below(pair.a.mnt()).len(), 1);
    pair.identical();
}

#[test]
fn stop_unmounts_ends_the_daemon_and_is_idempotent() {
    let pair = connected!();
    pair.a.stop();
    assert!(mounts_below(pair.a.mnt()).is_empty());
    assert!(!pair.a.daemon_lives());
    pair.a.run(&["stop"]).success();
    let status = pair.a.run(&["status", "--json"]);
    assert!(status.code.is_some_and(|code| code <= 1), "{status:#?}");
    pair.a.start();
    pair.a.run(&["start"]).success();
    pair.reconnected();
}

#[test]
fn the_daemon_does_not_hold_the_pipes_of_the_command() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let mut shell = Command::new("sh");
    let script = "out=$(\"$0\" --home \"$1\" share \"$2\" --no-mount --listen 127.0.0.1:0 --json) && echo \"got $out\"";
    shell.args(["-c", script]).arg(environment::binary());
    shell.arg(&pair.a.home).arg(&pair.a.backing);
    let outcome = run(&mut shell, Duration::from_secs(60)).success();
    assert!(outcome.stdout.starts_with("got {"), "{outcome:#?}");
}

#[test]
fn foreground_serves_until_it_is_interrupted() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let dir = pair.a.backing.to_str().unwrap();
    let mount = pair.a.mnt().to_str().unwrap();
    let mut command = pair.a.command(&["share", dir, "--mount", mount, "--foreground"]);
    command.args(["--listen", "127.0.0.1:0"]);
    let quiet = std::process::Stdio::null;
    let mut child = command.stdout(quiet()).stderr(quiet()).stdin(quiet()).spawn().unwrap();
    eventually("the volume is mounted", SOON, || !mounts_below(pair.a.mnt()).is_empty());
    std::fs::write(pair.a.at("file"), "x").unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    eventually("it ends", SOON, || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success());
    assert!(mounts_below(pair.a.mnt()).is_empty());
    assert!(pair.a.backing.join("file").exists());
}

#[test]
fn home_is_not_needed_with_an_explicit_one() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let mut command = Command::new(environment::binary());
    command.env_clear().arg("--home").arg(&pair.a.home).arg("share").arg(&pair.a.backing);
    run(command.args(["--no-mount", "--listen", "127.0.0.1:0", "--json"]), SOON).success().json();
}

#[test]
fn slow_demo_shows_the_main_job() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let mut command = Command::new(environment::binary());
    let temporary = pair.outside("demo");
    let command = command.arg("demo").env("TMPDIR", &temporary).env("HOME", pair.outside("home"));
    let outcome = run(command, Duration::from_secs(240)).success();
    assert!(outcome.stdout.contains("X25519MLKEM768"), "{}", outcome.stdout);
    assert!(mounts_below(&temporary).is_empty());
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "the demo cleans up");
}
