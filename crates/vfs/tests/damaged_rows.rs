//! A state database whose values were altered: every start either refuses it as damaged or opens a
//! sound volume; none panics or hangs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lockstep_core::{NodeId, Sequence, Slot};
use lockstep_disk::{PlainDisk, StateBatch, StateDb, StateStore};
use lockstep_vfs::{Caller, OpenError, Origin, Volume};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const ANYONE: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };

#[path = "../../../fuzz/mutated.rs"]
mod mutated;
use mutated::Dice;

fn start(dir: &Path, origin: Origin) -> Result<Arc<Volume>, OpenError> {
    let disk = PlainDisk::open(&dir.join("tree")).unwrap();
    let db = StateDb::open(&dir.join("state"))?;
    Volume::start(Arc::new(disk), db, Slot(1), "here", origin)
}

/// Directories in directories, files, a symlink, something removed.
fn filled() -> TempDir {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("tree")).unwrap();
    let volume = start(dir.path(), Origin::Created).unwrap();
    volume.add_peer(Slot(2), "there");
    let mut parent = NodeId::ROOT;
    for depth in 0..3 {
        parent = volume.mkdir(&ANYONE, parent, format!("d{depth}").as_bytes(), 0o755).unwrap().node;
        for file in 0..3 {
            let name = format!("f{file}");
            let (stat, opened) = volume.create(&ANYONE, parent, name.as_bytes(), 0o644, 2).unwrap();
            volume.write(opened.fh, 0, name.as_bytes(), false, false).unwrap();
            volume.flush(opened.fh).unwrap();
            volume.release(opened.fh);
            assert_ne!(stat.node, parent);
        }
        volume.unlink(parent, b"f1").unwrap();
    }
    volume.announce_all();
    volume.make_durable().unwrap();
    dir
}

#[test]
fn altered_rows_counters_and_log_entries_are_damage_or_open_a_sound_volume() {
    let (mut damaged, mut opened) = (0, 0);
    for seed in 0..120 {
        let mut dice = Dice(seed);
        let dir = filled();
        {
            let db = StateDb::open(&dir.path().join("state")).unwrap();
            let mut batch = StateBatch::default();
            match seed % 3 {
                0 => {
                    let mut nodes = db.load_nodes().unwrap();
                    let (id, bytes) = nodes.swap_remove(dice.below(nodes.len() as u64) as usize);
                    batch.nodes.push((id, Some(dice.spoilt(&bytes))));
                }
                1 => {
                    let bytes = db.meta("counters").unwrap().unwrap();
                    batch.meta.push(("counters".into(), dice.spoilt(&bytes)));
                }
                _ => {
                    let mut log = db.read_log(Sequence(0), usize::MAX).unwrap();
                    let (seq, bytes) = log.swap_remove(dice.below(log.len() as u64) as usize);
                    batch.log.push((seq, dice.spoilt(&bytes)));
                }
            }
            db.commit(&batch).unwrap();
        }
        match start(dir.path(), Origin::Existing) {
            Ok(volume) => {
                opened += 1;
                volume.commit().unwrap();
                volume.mkdir(&ANYONE, NodeId::ROOT, b"still works", 0o755).unwrap();
            }
            Err(error) => {
                damaged += 1;
                assert!(error.is_damage(), "seed {seed}: {error}");
            }
        }
    }
    assert!(damaged > 3 && opened > 3, "{damaged} damaged, {opened} opened");
}
