//! pjdfstest, the POSIX suite for filesystems, on a mount and on the disk below it, case by case.

use crate::support::command::{Outcome, run};
use crate::support::connected;
use crate::support::environment::{has_root, skip};
use crate::support::scratch::set_mode;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Cases of version 0.2.2; fewer were not understood.
const CASES: usize = 398;
/// The C library knows the link limit of a few filesystems only, and says "unknown" of ours.
const UNKNOWN_TO_THE_C_LIBRARY: &str = "link::link_count_max";

/// The suite, which `scripts/tools` installs.
fn suite() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin/pjdfstest");
    if !installed.exists() {
        skip("pjdfstest is not installed: run scripts/tools");
        return None;
    }
    Some(installed)
}

/// All optional cases that Linux has, two users that every distribution has.
fn configuration(may_remount: bool) -> String {
    let group = |user: &str| {
        let id = run(Command::new("id").args(["-gn", user]), Duration::from_secs(10)).success();
        format!("[\"{user}\", \"{}\"]", id.stdout.trim())
    };
    format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\n\
         utimensat = {{}}\nstat_st_birthtime = {{}}\n\
         [settings]\nnaptime = 0.01\nallow_remount = {may_remount}\n\
         [dummy_auth]\nentries = [{}, {}]\n",
        group("nobody"),
        group("daemon")
    )
}

/// What became of each case: `ok`, `FAILED` or `skipped`; and everything that was printed.
fn results(command: &mut Command) -> (BTreeMap<String, String>, Outcome) {
    let outcome = run(command.env("NO_COLOR", "1"), Duration::from_secs(200));
    let case = |line: &str| {
        let (name, result) = line.split_once(' ')?;
        let result = result.trim();
        let known = matches!(result, "ok" | "FAILED" | "skipped") && name.contains("::");
        known.then(|| (name.to_owned(), result.to_owned()))
    };
    (outcome.stdout.lines().filter_map(case).collect(), outcome)
}

#[test]
fn pjdfstest_passes_every_case_that_the_disk_below_passes() {
    if !has_root("to change users and make device nodes") {
        return;
    }
    let Some(suite) = suite() else { return };
    let pair = connected!();
    let place = pair.outside("pjdfstest");
    let (native, other_disk) = (pair.outside("native"), Path::new("/dev/shm"));
    let on = |at: &Path, may_remount: bool, cases: &[&str]| {
        let file = place.join("configuration.toml");
        std::fs::write(&file, configuration(may_remount)).unwrap();
        let mut command = Command::new(&suite);
        command.arg("-c").arg(&file).arg("-p").arg(at).arg("-s").arg(other_disk).args(cases);
        command
    };
    let (below, _) = results(&mut on(&native, false, &[]));
    let (shown, said) = results(&mut on(pair.a.mnt(), false, &[]));
    assert_eq!((below.len(), shown.len()), (CASES, CASES), "{}", said.stdout);
    for (name, result) in below.iter().filter(|(_, result)| *result == "ok") {
        let expected = if name == UNKNOWN_TO_THE_C_LIBRARY { "skipped" } else { result };
        assert_eq!(shown[name], expected, "{name}, {}", said.stdout);
    }

    // The cases of a filesystem that is remounted read-only, which the machine's own disk cannot
    // be. Without its helper, which would start a filesystem, `mount` just remounts.
    let mount = place.join("mount");
    std::fs::write(&mount, "#!/bin/sh\nPATH=\"${PATH#*:}\" exec mount -i \"$@\"\n").unwrap();
    set_mode(&mount, 0o755);
    let path = format!("{}:{}", place.display(), std::env::var("PATH").unwrap());
    let (read_only, said) = results(on(pair.a.mnt(), true, &["erofs"]).env("PATH", path));
    assert!(read_only.len() >= 13, "{}", said.stdout);
    for (name, result) in &read_only {
        assert_eq!(result, "ok", "{name}, {}", said.stdout);
    }
    println!("{} cases, {} of them read-only", shown.len(), read_only.len());
    pair.identical();
}
