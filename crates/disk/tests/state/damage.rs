//! Files that are damaged, foreign or out of reach: told apart, never taken for an empty database.

use crate::numbered;
use lockstep_core::{NodeId, Sequence};
use lockstep_disk::{StateBatch, StateDb, StateError, StateStore};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A database large enough to have tables besides its journal.
fn filled() -> TempDir {
    let dir = TempDir::new().unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    for n in 1..=100 {
        let nodes = vec![(NodeId(n), Some(vec![n as u8; 100_000]))];
        db.commit(&StateBatch { nodes, ..Default::default() }).unwrap();
    }
    for n in 101..=110 {
        db.commit(&numbered(n)).unwrap();
    }
    dir
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Opens and reads everything.
fn read_all(dir: &Path) -> Result<Vec<(NodeId, Vec<u8>)>, StateError> {
    let db = StateDb::open(dir)?;
    db.read_log(Sequence(0), usize::MAX)?;
    db.load_nodes()
}

#[test]
fn a_missing_file_is_damage() {
    let dir = filled();
    let version = dir.path().join("v1/version");
    fs::remove_file(version).unwrap();
    let error = read_all(dir.path()).unwrap_err();
    assert!(matches!(error, StateError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
}

#[test]
fn another_format_is_told_apart() {
    let dir = filled();
    fs::write(dir.path().join("v1/version"), b"FJL\x02").unwrap();
    let error = read_all(dir.path()).unwrap_err();
    assert!(matches!(error, StateError::Format { .. }), "{error}");
}

#[test]
fn a_file_in_the_place_of_a_directory_is_damage_and_kept_aside() {
    for name in ["state", "state/v1"] {
        let dir = TempDir::new().unwrap();
        let (state, file) = (dir.path().join("state"), dir.path().join(name));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, b"in the way").unwrap();
        let error = StateDb::open(&state).err().unwrap();
        assert!(error.is_damage(), "{name}: {error}");
        let aside = StateDb::set_aside(&state).unwrap();
        assert_eq!(fs::read(&aside).unwrap(), b"in the way");
        assert!(aside.to_str().unwrap().starts_with(file.to_str().unwrap()), "{}", aside.display());
        assert!(StateDb::open(&state).unwrap().load_nodes().unwrap().is_empty());
    }
}

/// Every file of the database in turn, emptied and altered: damage, or every node as it was. Of
/// an emptied journal nothing tells that it held something: there nodes may be missing.
#[test]
fn damage_to_any_file_never_yields_wrong_nodes() {
    let dir = filled();
    let whole = read_all(dir.path()).unwrap();
    let paths = files(&dir.path().join("v1"));
    assert!(paths.iter().any(|path| path.ends_with("tables/1")), "there must be tables: {paths:?}");
    for path in paths {
        let name = path.strip_prefix(dir.path()).unwrap();
        for damaged in [Vec::new(), altered(&path)] {
            let copy = copied(dir.path());
            fs::write(copy.path().join(name), &damaged).unwrap();
            match read_all(copy.path()) {
                Ok(nodes) if name.extension().is_some_and(|ext| ext == "jnl") => {
                    assert!(nodes.iter().all(|node| whole.contains(node)), "{}", name.display());
                }
                Ok(nodes) => assert!(nodes == whole, "{}", name.display()),
                Err(StateError::Corrupt { .. }) => {}
                Err(error) => panic!("{}: {error}", name.display()),
            }
        }
    }
}

/// The file's bytes with one of them changed.
fn altered(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len().min(100_000) / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0xff;
    }
    bytes
}

fn copied(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for path in files(dir) {
        let to = copy.path().join(path.strip_prefix(dir).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&path, &to).unwrap();
    }
    copy
}
