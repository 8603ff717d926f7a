//! Small files that are either the old ones or the new ones, whatever happens in between.

use crate::errors::{Failure, Outcome};
use lockstep_disk::aside;
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces `path` by `bytes`, 0600, on stable storage when it returns.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut fresh_name = name.to_os_string();
    fresh_name.push(".new");
    let fresh = dir.join(fresh_name);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(dir)?.sync_all()
}

/// Writes `value` as JSON in place of `path`.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Outcome<()> {
    let write = || {
        let mut text = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
        text.push(b'\n');
        replace(path, &text)
    };
    write().map_err(|e| {
        Failure::io("write", path, &e, "make room on that filesystem and see that it is writable")
    })
}

/// The JSON in `path`, `None` if there is no such file. `mend` is what to do about a damaged one.
pub fn read_json<T: DeserializeOwned>(path: &Path, mend: &str) -> Outcome<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::io("read", path, &e, "see that its owner may read it")),
    };
    let damaged = |e| Failure::failed(format!("{} is damaged: {e}", path.display()), mend);
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

/// Keeps what is damaged beside its place, as `NAME.damaged-DATE-TIME`.
pub fn set_aside(path: &Path) -> Outcome<PathBuf> {
    aside::set_aside(path).map_err(|e| {
        Failure::io("move aside", path, &e, "move it away: a new one is made in its place")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_written_is_read_and_damage_is_named() {
        let dir = std::env::temp_dir().join(format!("lockstep-durable-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.json");
        assert_eq!(read_json::<Vec<u8>>(&path, "mend it"), Ok(None));
        write_json(&path, &vec![1u8, 2]).unwrap();
        write_json(&path, &vec![3u8]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path, "mend it"), Ok(Some(vec![3])));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::write(&path, "[3").unwrap();
        let damage = read_json::<Vec<u8>>(&path, "mend it").unwrap_err();
        assert!(damage.message().contains("a.json is damaged"), "{damage}");
        assert!(damage.to_string().contains("mend it"), "{damage}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
