//! What people do in the backing directory while the daemon is down.

use super::calls::{NAMES, content};
use super::host::Host;
use super::image::{KEPT, TEMP};
use super::ledger::Ledger;
use crate::rng::Rng;
use lockstep_disk::{BackingStat, Disk, DiskFile, FileType, RenameMode};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One edit; that it may be refused is part of the game. Placeholders are left alone: they are
/// nobody's files.
pub fn edit(host: &mut Host, ledger: &mut Ledger, step: usize, rng: &mut Rng) -> String {
    let (at, to) = (place(host, rng), place(host, rng));
    let which = rng.below(6);
    let done = match which {
        0..=1 => write(host, ledger, &at, step, rng),
        2 => replace(host, ledger, &at, &to),
        3 => remove(host, ledger, &at),
        4 => host.disk.mkdir(&at, 0o755),
        _ => host.disk.rmdir(&at),
    };
    let done = done.map_or_else(|e| e.to_string(), |()| "done".into());
    format!("below {which} {} {}: {done}", at.display(), to.display())
}

fn place(host: &Host, rng: &mut Rng) -> PathBuf {
    let mut path = PathBuf::new();
    for _ in 0..rng.below(3) {
        let below = path.join(OsStr::from_bytes(NAMES[rng.below(NAMES.len())]));
        let is_dir = host.disk.stat(&below).is_ok_and(|stat| stat.file_type == FileType::Dir);
        path = if is_dir { below } else { path };
    }
    path.join(OsStr::from_bytes(NAMES[rng.below(NAMES.len())]))
}

/// Whether something stands there that may be changed; the bytes of a file go with its last name.
fn standing(host: &Host, path: &Path) -> io::Result<BackingStat> {
    let stat = host.disk.stat(path)?;
    match host.disk.is_placeholder(path)? {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(stat),
    }
}

/// How many names people see of a file; what is kept of it has names of its own.
fn names(host: &Host, ino: u64) -> usize {
    let core = host.disk.core();
    let shown = core.live.0.iter().filter(|(dir, _)| !matches!(**dir, TEMP | KEPT));
    shown.flat_map(|(_, dir)| dir.entries.values()).filter(|of| **of == ino).count()
}

fn write(
    host: &mut Host,
    ledger: &mut Ledger,
    path: &Path,
    step: usize,
    rng: &mut Rng,
) -> io::Result<()> {
    let file = match standing(host, path) {
        Ok(stat) if stat.file_type == FileType::File => {
            ledger.given_up(&host.disk.bytes_at(path).unwrap_or_default());
            let file = host.disk.open(path)?;
            file.set_len(0)?;
            file
        }
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => host.disk.create(path, 0o644)?,
        Err(error) => return Err(error),
    };
    let bytes = content(host.number, step, rng);
    DiskFile::write_all_at(&*file, &bytes, 0)?;
    host.wrote();
    ledger.finished(host.number, None, &bytes);
    Ok(())
}

fn replace(host: &mut Host, ledger: &mut Ledger, from: &Path, to: &Path) -> io::Result<()> {
    let moved = standing(host, from)?;
    let target = match standing(host, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other?),
    };
    let names = target.map_or(0, |target| names(host, target.ino));
    let bytes = host.disk.bytes_at(to);
    host.disk.rename(from, to, RenameMode::Replace)?;
    let goes = target.filter(|target| names == 1 && target.ino != moved.ino);
    if goes.is_some_and(|target| target.file_type == FileType::File) {
        ledger.removed_below(&bytes.unwrap_or_default());
    }
    Ok(())
}

fn remove(host: &mut Host, ledger: &mut Ledger, path: &Path) -> io::Result<()> {
    let stat = standing(host, path)?;
    let (bytes, names) = (host.disk.bytes_at(path), names(host, stat.ino));
    host.disk.unlink(path)?;
    if names == 1 && stat.file_type == FileType::File {
        ledger.removed_below(&bytes.unwrap_or_default());
    }
    Ok(())
}
