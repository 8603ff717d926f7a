//! Small files that are either the old ones or the new ones, whatever happens in between.

use crate::errors::{Failure, Outcome};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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

/// The JSON in `path`, `None` if there is no such file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Outcome<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::io("read", path, &e, "see that its owner may read it")),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        Failure::failed(
            format!("{} is damaged: {e}", path.display()),
            "restore it from a backup, or move it away to start without it",
        )
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
        assert_eq!(read_json::<Vec<u8>>(&path), Ok(None));
        write_json(&path, &vec![1u8, 2]).unwrap();
        write_json(&path, &vec![3u8]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path), Ok(Some(vec![3])));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::write(&path, "[3").unwrap();
        let damage = read_json::<Vec<u8>>(&path).unwrap_err();
        assert!(damage.message().contains("a.json is damaged"), "{damage}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
