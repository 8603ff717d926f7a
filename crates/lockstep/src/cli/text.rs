//! The answers of commands, for people.

use serde_json::Value;
use std::fmt::Write;

/// What `share` says.
pub fn shared(answer: &Value) -> String {
    format!(
        "Sharing \"{}\": {}\nOn the other machine, run\n\n  lockstep join {} DIR\n\n\
         The code works once, within 24 hours. `lockstep status` shows who has joined.\n",
        word(answer, "volume"),
        places(answer),
        word(answer, "invite"),
    )
}

/// What `join` says.
pub fn joined(answer: &Value) -> String {
    let peer = word(&answer["peer"], "name");
    format!("Joined \"{}\" of {peer}: {}\n", word(answer, "volume"), places(answer))
}

/// What `invite` says.
pub fn invited(answer: &Value) -> String {
    let (volume, code) = (word(answer, "volume"), word(answer, "invite"));
    format!(
        "To join \"{volume}\", run on the other machine\n\n  lockstep join {code} DIR\n\n\
         The code works once, within 24 hours.\n"
    )
}

/// What `unmount` says.
pub fn unmounted(answer: &Value) -> String {
    let volume = word(answer, "volume");
    if answer["unmounted"] == true {
        format!(
            "Unmounted \"{volume}\" from {}. It stays shared; `lockstep start` mounts it again.\n",
            word(answer, "mount")
        )
    } else {
        format!("\"{volume}\" was not mounted.\n")
    }
}

/// What `wait` says.
pub fn waited(answer: &Value) -> String {
    let left_out = answer["volumes"].as_array().is_some_and(|all| {
        all.iter().any(|v| v["disconnected"].as_array().is_some_and(|d| !d.is_empty()))
    });
    let who = if left_out { "Connected peers have" } else { "Both sides have" };
    format!("{who} everything.\n")
}

/// What `stop` says.
pub fn stopped(answer: &Value) -> String {
    let home = word(answer, "home");
    if answer["stopped"] == true {
        format!("Stopped the daemon of {home}.\n")
    } else {
        format!("No daemon runs for the home {home}.\n")
    }
}

/// What `status` and `start` say.
pub fn status(answer: &Value) -> String {
    let mut out = format!(
        "Lockstep {}, process {}, home {}\n",
        word(answer, "version"),
        answer["pid"],
        word(answer, "home")
    );
    let volumes = answer["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
    for volume in volumes {
        let _ = write!(out, "\n{}  {}\n", word(volume, "name"), mount_of(volume));
        for peer in volume["peers"].as_array().into_iter().flatten() {
            out.push_str(&peer_line(peer));
        }
        if volume["policy"] == "on-demand" {
            out.push_str("  on demand: contents come when they are read\n");
        }
        out.push_str(&pending_line(volume));
        let conflicts = volume["conflicts"].as_u64().unwrap_or_default();
        if conflicts > 0 {
            let _ = writeln!(out, "  conflicts: {conflicts}; `lockstep conflicts` shows them");
        }
        let since = volume["without_content_since"].as_array().into_iter().flatten();
        let without = volume["without_content"].as_array().into_iter().flatten();
        for (path, since) in without.zip(since) {
            let (path, since) =
                (path.as_str().unwrap_or_default(), since.as_i64().unwrap_or_default());
            let _ = writeln!(out, "  without content since {}: {path}", moment(since));
        }
        for problem in volume["problems"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "  problem: {}", problem.as_str().unwrap_or_default());
        }
        for notice in volume["notices"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "  note: {}", notice.as_str().unwrap_or_default());
        }
    }
    let problems = answer["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    for problem in problems {
        let _ = writeln!(out, "\nproblem: {}", problem.as_str().unwrap_or_default());
    }
    for notice in answer["notices"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "\nnote: {}", notice.as_str().unwrap_or_default());
    }
    if volumes.is_empty() && problems.is_empty() {
        out.push_str("\nNothing is shared yet: run `lockstep share DIR`.\n");
    }
    out
}

/// What `verify` says.
pub fn verified(answer: &Value) -> String {
    let mut out = String::new();
    for volume in answer["volumes"].as_array().into_iter().flatten() {
        for difference in volume["differences"].as_array().into_iter().flatten() {
            let path = difference["path"].as_str().map(|path| format!("{path} "));
            let _ = writeln!(out, "{}{}", path.unwrap_or_default(), word(difference, "what"));
        }
        let left_out = volume["left_out"].as_u64().unwrap_or_default();
        if left_out > 0 {
            let _ = writeln!(out, "and {left_out} more");
        }
        let found = if volume["clean"] == true { "no differences" } else { "differences" };
        let bytes = size(volume["bytes"].as_u64().unwrap_or_default());
        let (name, files) = (word(volume, "name"), &volume["files"]);
        let _ = writeln!(out, "{name}: {found}; {files} files read, {bytes}");
    }
    out
}

/// What `conflicts` says.
pub fn conflicts_listed(answer: &Value) -> String {
    let mut out = String::new();
    let volumes = answer["volumes"].as_array().into_iter().flatten();
    for conflict in volumes.flat_map(|v| v["conflicts"].as_array().into_iter().flatten()) {
        let whose = |part: &str, host: &str| match conflict["mine"] == part {
            true => "this machine".to_owned(),
            false => word(conflict, host).to_owned(),
        };
        let _ = writeln!(
            out,
            "{}\n  is the version of {}; that of {}, since {}, is\n  {}",
            word(conflict, "path"),
            whose("path", "kept_by"),
            whose("copy", "copy_of"),
            moment(conflict["time"].as_i64().unwrap_or_default()),
            word(conflict, "copy"),
        );
    }
    if out.is_empty() {
        return "No conflicts.\n".to_owned();
    }
    out + "\nSettle one with `lockstep conflicts resolve PATH --keep mine|theirs|both`.\n"
}

/// What `conflicts resolve` says.
pub fn conflict_resolved(answer: &Value) -> String {
    let path = word(answer, "path");
    match answer["discarded"].as_u64() {
        Some(0) | None => format!("Settled: {path}\n"),
        Some(n) => format!("Settled: {path}; to the trash: {n}\n"),
    }
}

/// What `trash list` says.
pub fn trash_listed(answer: &Value) -> String {
    let mut out = String::new();
    for volume in answer["volumes"].as_array().into_iter().flatten() {
        let entries = volume["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
        for entry in entries {
            let _ = writeln!(
                out,
                "{}  {:>10}  {} by {}  {}",
                moment(entry["time"].as_i64().unwrap_or_default()),
                size(entry["size"].as_u64().unwrap_or_default()),
                word(entry, "reason"),
                word(entry, "peer"),
                word(entry, "path"),
            );
        }
        let _ = writeln!(
            out,
            "{}: {} versions, {} of at most {}",
            word(volume, "name"),
            entries.len(),
            size(volume["bytes"].as_u64().unwrap_or_default()),
            size(volume["bytes_max"].as_u64().unwrap_or_default()),
        );
    }
    out
}

/// What `trash restore` says.
pub fn trash_restored(answer: &Value) -> String {
    let restored = word(answer, "restored");
    match answer["files"].as_u64() {
        Some(files) if files > 1 => format!("Restored {restored}: {files} files\n"),
        _ => format!("Restored {restored}\n"),
    }
}

/// What `trash empty` says.
pub fn trash_emptied(answer: &Value) -> String {
    let volumes = answer["volumes"].as_array().into_iter().flatten();
    volumes
        .map(|v| {
            format!("Emptied the trash of \"{}\": {} versions\n", word(v, "name"), v["removed"])
        })
        .collect()
}

/// A moment in UTC: `YYYY-MM-DD HH.MM.SS`.
fn moment(unix_secs: i64) -> String {
    lockstep_core::tree::civil(unix_secs)
}

/// What `pin` says.
pub fn pinned(answer: &Value) -> String {
    let (path, files, absent) = (word(answer, "path"), &answer["files"], &answer["absent"]);
    format!("Pinned {path}: {files} files, {absent} of them are on their way here\n")
}

/// What `unpin` says.
pub fn unpinned(answer: &Value) -> String {
    let path = word(answer, "path");
    match answer["was_pinned"] == true {
        true => format!("Unpinned {path}: its bytes stay until `lockstep evict`\n"),
        false => format!("{path} was not pinned itself\n"),
    }
}

/// What `evict` says.
pub fn evicted(answer: &Value) -> String {
    let bytes = size(answer["bytes"].as_u64().unwrap_or_default());
    let mut out = format!("Evicted {} files, {bytes}\n", answer["evicted"]);
    for stays in answer["reasons"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "{} stays: {}", word(stays, "path"), word(stays, "reason"));
    }
    out
}

fn mount_of(volume: &Value) -> String {
    if volume["mount"].is_null() || volume["mounted"] == true {
        places(volume)
    } else {
        format!("{}, not mounted", word(volume, "backing"))
    }
}

fn peer_line(peer: &Value) -> String {
    let id: String = word(peer, "id").chars().take(8).collect();
    let mut line = format!("  peer {} ({id})  ", word(peer, "name"));
    if peer["connected"] == true {
        let _ = write!(line, "connected, {}, {}", word(peer, "path"), word(peer, "kex"));
    } else {
        line.push_str("not connected");
    }
    if let Some(problem) = peer["problem"].as_str() {
        let _ = write!(line, "; {problem}");
    }
    line + "\n"
}

fn pending_line(volume: &Value) -> String {
    let (changes, bytes) = (&volume["pending_changes"], volume["pending_bytes"].as_u64());
    match (changes.as_u64(), bytes) {
        (Some(0), Some(0)) if volume["peers"].as_array().is_some_and(Vec::is_empty) => {
            "  no peer has joined yet\n".to_owned()
        }
        (Some(0), Some(0)) => "  nothing pending\n".to_owned(),
        _ => format!("  pending: {changes} changes, {}\n", size(bytes.unwrap_or_default())),
    }
}

fn places(answer: &Value) -> String {
    let (backing, mount) = (word(answer, "backing"), word(answer, "mount"));
    if answer["mount"].is_null() {
        format!("{backing}, not mounted")
    } else if mount == backing {
        format!("{mount}, mounted over itself")
    } else {
        format!("{mount}, with its plain files in {backing}")
    }
}

/// A number of bytes in the unit people would choose.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = "bytes";
    for next in units {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = next;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{amount:.1} {unit}") }
}

fn word<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_can_be_read_at_a_glance() {
        let text = status(&json!({
            "version": "1", "pid": 7, "home": "/h",
            "volumes": [{
                "name": "notes", "mount": "/n", "backing": "/n", "mounted": true,
                "peers": [
                    {"id": "abcdef0123", "name": "laptop", "connected": true,
                     "path": "tcp 1.2.3.4:5", "kex": "X25519MLKEM768", "problem": null},
                    {"id": "0123456789", "name": "desk", "connected": false, "problem": "disk full"},
                ],
                "pending_changes": 3, "pending_bytes": 2048, "problems": ["p"],
            }],
        }));
        let expected = "Lockstep 1, process 7, home /h\n\nnotes  /n, mounted over itself\n  \
            peer laptop (abcdef01)  connected, tcp 1.2.3.4:5, X25519MLKEM768\n  \
            peer desk (01234567)  not connected; disk full\n  pending: 3 changes, 2.0 KiB\n  \
            problem: p\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn sizes_have_the_unit_people_would_choose() {
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
    }
}
