//! Files that stand for absent content: sparse, mode 0000, marked by an attribute.
//!
//! A placeholder is put together among the temporary files and then moved to its name: at no
//! moment, not even after a crash, is there an unmarked file of zeros under a user's name.

use super::beneath::Place;
use super::private::PrivateDir;
use super::xattr::{ABSENT_MARKER, Named};
use super::{Features, PlainDisk};
use crate::disk::DiskFile;
use rustix::fs::{AtFlags, Mode, RenameFlags, XattrFlags};
use rustix::io::Errno;
use std::io;
use std::sync::atomic::Ordering;

/// Temporary names of placeholders in the making.
const UNFINISHED_PREFIX: &str = "placeholder-";

/// Removes what a crash left of placeholders in the making.
pub(super) fn remove_unfinished(temp: &PrivateDir) -> io::Result<()> {
    temp.list()?
        .iter()
        .filter(|name| name.starts_with(UNFINISHED_PREFIX))
        .try_for_each(|name| temp.remove(name))
}

/// Makes one at `place`, where nothing must be unless `flags` allow to replace it.
pub(super) fn make(
    disk: &PlainDisk,
    place: &Place<'_>,
    size_bytes: u64,
    flags: RenameFlags,
) -> io::Result<()> {
    let number = disk.next_placeholder.fetch_add(1, Ordering::Relaxed);
    let name = format!("{UNFINISHED_PREFIX}{number}");
    let made = fill(&disk.temp, &name, disk.features, size_bytes)
        .and_then(|()| disk.temp.move_out(&name, place.dir(), place.name(), flags));
    if made.is_err() {
        // Best effort: opening the disk removes leftovers too.
        let _ = disk.temp.remove(&name);
    }
    made
}

fn fill(temp: &PrivateDir, name: &str, features: Features, size_bytes: u64) -> io::Result<()> {
    let file = temp.create(name)?;
    if features.user_xattrs {
        rustix::fs::fsetxattr(file.fd(), ABSENT_MARKER, b"1", XattrFlags::empty())?;
    }
    file.set_len(size_bytes)?;
    Ok(rustix::fs::fchmod(file.fd(), Mode::empty())?)
}

/// Whether `place` holds one.
///
/// Listing names needs no permission on the file, reading the marker would. Where attributes
/// cannot be stored, a file of mode 0000 without a single block is taken for one.
pub(super) fn is_at(disk: &PlainDisk, place: &Place<'_>) -> io::Result<bool> {
    let named = Named::open(place)?;
    let raw = rustix::fs::statx(named.fd(), c"", AtFlags::EMPTY_PATH, super::entries::WANTED)?;
    let stat = crate::stat::BackingStat::from_statx(&raw);
    if stat.file_type != crate::stat::FileType::File || stat.mode != 0 {
        return Ok(false);
    }
    if !disk.features.user_xattrs {
        return Ok(stat.blocks == 0 && stat.size_bytes > 0);
    }
    match named.list_with_own() {
        Ok(names) => Ok(names.iter().any(|name| name == ABSENT_MARKER)),
        Err(e) if Errno::from_io_error(&e) == Some(Errno::NOTSUP) => Ok(false),
        Err(e) => Err(e),
    }
}
