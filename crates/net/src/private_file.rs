//! Files that only their owner may read: keys and what guards invites.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Largest private file that is read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why a private file could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("others may read it (mode {mode:04o})")]
    Exposed { mode: u32 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The whole file; `None` if there is none. Refuses one that group or others can read.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ReadError::Exposed { mode });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 4 MiB").into());
    }
    Ok(Some(bytes))
}

/// Replaces the file, atomically and durably, with mode 0600.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = write_draft(path, bytes)?;
    fs::rename(&draft, path).inspect_err(|_| drop(fs::remove_file(&draft)))?;
    sync_directory(path)
}

/// Creates the file, durably, with mode 0600; `AlreadyExists` if someone was faster.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = write_draft(path, bytes)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    linked?;
    sync_directory(path)
}

fn write_draft(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    if let Some(parent) = parent(path) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}.draft", crate::entropy::number()));
    let draft = PathBuf::from(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(fs::remove_file(&draft)))?;
    Ok(draft)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(parent(path).unwrap_or(Path::new(".")))?.sync_all()
}

fn parent(path: &Path) -> Option<&Path> {
    path.parent().filter(|p| !p.as_os_str().is_empty())
}
