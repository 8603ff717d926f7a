//! Keeping a damaged database for whoever wants to look at it.

use super::opened::DATABASE_DIR;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Damaged databases kept.
pub const DAMAGED_KEPT_MAX: usize = 4;

pub(super) fn set_aside(dir: &Path, now: &str) -> io::Result<PathBuf> {
    let prefix = format!("{DATABASE_DIR}.damaged-");
    let names = (0..).map(|n| match n {
        0 => format!("{prefix}{now}"),
        n => format!("{prefix}{now}-{n}"),
    });
    let aside = names
        .map(|name| dir.join(name))
        .find(|path| !path.exists())
        .expect("there are more names than files");
    fs::rename(dir.join(DATABASE_DIR), &aside)?;
    File::open(dir)?.sync_all()?;
    let mut kept: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix)))
        .collect();
    kept.sort();
    let surplus = kept.len().saturating_sub(DAMAGED_KEPT_MAX);
    for old in kept.iter().take(surplus).filter(|old| **old != aside) {
        fs::remove_dir_all(old)?;
    }
    Ok(aside)
}
