//! The rooms of the workspace and who may know whom (ARCHITECTURE.md): a crate exists to keep a
//! dependency out of the others, so a dependency in the wrong place fails here.
#![allow(missing_docs, clippy::unwrap_used)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest a product file may be, without its tests.
const FILE_LINES_MAX: usize = 500;

/// Which crates of ours each may depend on.
const MAY_KNOW: [(&str, &[&str]); 6] = [
    ("lockstep-core", &[]),
    ("lockstep-disk", &["lockstep-core"]),
    ("lockstep-vfs", &["lockstep-core", "lockstep-disk"]),
    ("lockstep-net", &["lockstep-core"]),
    ("lockstep", &["lockstep-core", "lockstep-disk", "lockstep-vfs", "lockstep-net"]),
    ("lockstep-sim", &["lockstep-core", "lockstep-disk", "lockstep-vfs"]),
];

/// Foreign crates that only some of ours may use.
const BELONGS_TO: [(&[&str], &[&str]); 4] = [
    (&["fuser", "libc", "nix"], &["lockstep"]),
    (
        &["tonic", "tonic-prost", "prost", "rustls", "tokio-rustls", "quinn", "iroh"],
        &["lockstep-net"],
    ),
    (&["fjall", "redb", "rusqlite", "sled"], &["lockstep-disk"]),
    (&["tokio", "tokio-stream", "hyper-util", "tower"], &["lockstep-net", "lockstep"]),
];

/// All that `core` may use: it has neither clock nor disk nor network.
const CORE_MAY_USE: [&str; 2] = ["serde", "thiserror"];

/// Crates without any `unsafe`.
const SAFE: [&str; 5] = ["core", "disk", "vfs", "net", "sim"];

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// Normal and build dependencies (not those of tests) of every crate.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace_root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap();
            let shipped = all.iter().filter(|dependency| dependency["kind"] != "dev");
            let names = shipped.map(|dependency| dependency["name"].as_str().unwrap().to_owned());
            (package["name"].as_str().unwrap().to_owned(), names.collect())
        })
        .collect()
}

#[test]
fn crates_know_only_whom_they_may_know() {
    let found = dependencies();
    let expected: BTreeSet<&str> = MAY_KNOW.iter().map(|(name, _)| *name).collect();
    let ours: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(ours, expected, "a new crate needs its place in MAY_KNOW and ARCHITECTURE.md");
    for (name, may_know) in MAY_KNOW {
        for other in found[name].iter().filter(|other| expected.contains(other.as_str())) {
            assert!(may_know.contains(&other.as_str()), "{name} must not depend on {other}");
        }
    }
}

#[test]
fn no_product_build_has_planted_bugs() {
    let root = workspace_root();
    for (name, _) in MAY_KNOW.iter().filter(|(name, _)| !name.ends_with("sim")) {
        let dir = root.join("crates").join(name.trim_start_matches("lockstep-"));
        let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap();
        let asked_for = manifest.matches("planted-bugs").count();
        let declared = usize::from(name.ends_with("core"));
        assert_eq!(asked_for, declared, "{name} must not ask for the feature planted-bugs");
        assert!(!manifest.contains("default = [\"planted-bugs"), "{name} has them by default");
    }
    let workspace = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(!workspace.contains("planted-bugs"), "nor may the workspace");
}

#[test]
fn foreign_crates_stay_in_their_room() {
    for (name, uses) in dependencies() {
        for (foreign, rooms) in BELONGS_TO {
            for used in foreign.iter().filter(|foreign| uses.contains(**foreign)) {
                assert!(
                    rooms.contains(&name.as_str()),
                    "{name} must not use {used}: {rooms:?} may"
                );
            }
        }
    }
}

#[test]
fn core_is_pure() {
    for used in &dependencies()["lockstep-core"] {
        assert!(CORE_MAY_USE.contains(&used.as_str()), "core must not use {used}");
    }
    let forbidden =
        ["std::fs", "std::net", "std::process", "std::thread", "SystemTime", "Instant::now"];
    for (path, text) in product_files("core") {
        for word in forbidden {
            assert!(
                !text.contains(word),
                "{} uses {word}: core has no I/O and no clock",
                path.display()
            );
        }
    }
}

#[test]
fn only_the_binary_may_be_unsafe() {
    for name in SAFE {
        let path = workspace_root().join("crates").join(name).join("src/lib.rs");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("#![forbid(unsafe_code)]"),
            "{} must forbid unsafe code",
            path.display()
        );
    }
}

/// Every product source file of a crate with its text up to its tests.
fn product_files(name: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![workspace_root().join("crates").join(name).join("src")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
            if path.is_dir() && !is_test {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
                let text = std::fs::read_to_string(&path).unwrap();
                let product = text.split("#[cfg(test)]\nmod ").next().unwrap().to_owned();
                found.push((path, product));
            }
        }
    }
    found
}

#[test]
fn files_are_short() {
    for name in ["core", "disk", "vfs", "net", "lockstep", "sim"] {
        for (path, text) in product_files(name) {
            let lines = text.lines().count();
            assert!(
                lines <= FILE_LINES_MAX,
                "{} has {lines} lines of {FILE_LINES_MAX}",
                path.display()
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for name in ["core", "disk", "vfs", "net", "lockstep", "sim"] {
        for (path, text) in product_files(name) {
            assert!(text.starts_with("//!"), "{} has no module documentation", path.display());
        }
    }
}

#[test]
fn names_say_what_a_thing_is() {
    let vague = ["util", "utils", "helper", "helpers", "manager", "common", "misc", "data", "info"];
    for name in ["core", "disk", "vfs", "net", "lockstep", "sim"] {
        for (path, _) in product_files(name) {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            assert!(!vague.contains(&stem), "{}: a name that says nothing", path.display());
        }
    }
}

#[test]
fn crates_share_the_workspace_lints() {
    for name in ["core", "disk", "vfs", "net", "lockstep", "sim"] {
        let path = workspace_root().join("crates").join(name).join("Cargo.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{}", path.display());
    }
}
