//! Keeping what is damaged for whoever wants to look at it: beside its place, as
//! `NAME.damaged-DATE-TIME`.

use lockstep_core::tree::civil;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Damaged files or directories of one name that are kept; the oldest go.
pub const DAMAGED_KEPT_MAX: usize = 4;

/// Names that one second has.
const NUMBERS_MAX: u32 = 100;
/// What is copied aside leaves so much of the disk.
const SPARE_BYTES: u64 = 16 * 1024 * 1024;

/// Moves the file or directory `path` aside, so that a new one can take its name. Answers where it
/// is now.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = free_name(path)?;
    fs::rename(path, &aside)?;
    kept(path, aside)
}

/// Keeps `bytes` that are about to be cut off the file `path` in a file of their own, in `dir`.
/// Answers where they are. The last space of a disk is left to those who work.
pub fn set_bytes_aside(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let disk = rustix::fs::statvfs(dir)?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free_bytes < SPARE_BYTES + bytes.len() as u64 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let place = dir.join(path.file_name().unwrap_or_default());
    let aside = free_name(&place)?;
    let mut file = File::create_new(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    kept(&place, aside)
}

/// Makes the new name durable, and removes the oldest of too many.
fn kept(path: &Path, aside: PathBuf) -> io::Result<PathBuf> {
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()?;
    let prefix = prefix(path);
    let mut kept: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|found| {
            let name = found.file_name().unwrap_or_default();
            name.as_bytes().starts_with(prefix.as_bytes())
        })
        .collect();
    kept.sort();
    let surplus = kept.len().saturating_sub(DAMAGED_KEPT_MAX);
    for old in kept.iter().take(surplus).filter(|old| **old != aside) {
        let is_dir = old.symlink_metadata()?.is_dir();
        if is_dir { fs::remove_dir_all(old)? } else { fs::remove_file(old)? }
    }
    Ok(aside)
}

fn free_name(path: &Path) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = civil(i64::try_from(now.as_secs()).unwrap_or_default()).replace(' ', "-");
    let name = |number: u32| {
        let mut name = prefix(path);
        name.push(&now);
        if number > 0 {
            name.push(format!("-{number:02}"));
        }
        path.with_file_name(name)
    };
    // Behind all that are kept of this second, so that the names sort by age.
    let taken = (0..NUMBERS_MAX).rev().find(|number| name(*number).symlink_metadata().is_ok());
    match taken.map_or(0, |last| last + 1) {
        NUMBERS_MAX => Err(io::ErrorKind::AlreadyExists.into()),
        number => Ok(name(number)),
    }
}

fn prefix(path: &Path) -> OsString {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".damaged-");
    prefix
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_are_kept_and_the_oldest_of_many_go() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("book");
        for round in 0..12 {
            if round % 2 == 0 {
                fs::write(&path, format!("{round}")).unwrap();
            } else {
                fs::create_dir(&path).unwrap();
            }
            let aside = set_aside(&path).unwrap();
            assert!(!path.exists());
            assert_eq!(aside.is_dir(), round % 2 == 1, "{}", aside.display());
            let name = aside.file_name().unwrap().to_str().unwrap();
            assert!(name.starts_with("book.damaged-2"), "{name}");
            let kept = fs::read_dir(dir.path()).unwrap().count();
            assert_eq!(kept, DAMAGED_KEPT_MAX.min(round + 1), "after {name}");
        }
        let bytes = set_bytes_aside(dir.path(), Path::new("/elsewhere/book"), b"tail").unwrap();
        assert_eq!(fs::read(bytes).unwrap(), b"tail");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), DAMAGED_KEPT_MAX);
    }
}
