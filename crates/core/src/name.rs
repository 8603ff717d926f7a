//! Names of directory entries, valid by construction: whatever a peer sends, no name can leave
//! its directory.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// One component of a path: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`. Not UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct EntryName(Arc<[u8]>);

/// Why bytes are not an [`EntryName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`EntryName::LEN_MAX_BYTES`] bytes.
    #[error("a name must not be longer than 255 bytes")]
    TooLong,
    /// `.` or `..`, or a `/` or NUL inside.
    #[error("a name must not be '.' or '..' nor contain '/' or NUL")]
    Forbidden,
}

impl EntryName {
    /// `NAME_MAX` on Linux.
    pub const LEN_MAX_BYTES: usize = 255;

    /// Checks `bytes` and takes a copy.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > Self::LEN_MAX_BYTES {
            return Err(NameError::TooLong);
        }
        if bytes == b"." || bytes == b".." || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(NameError::Forbidden);
        }
        Ok(EntryName(bytes.into()))
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for EntryName {
    type Error = NameError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, NameError> {
        EntryName::new(&bytes)
    }
}

impl From<EntryName> for Vec<u8> {
    fn from(name: EntryName) -> Self {
        name.0.to_vec()
    }
}

impl std::borrow::Borrow<[u8]> for EntryName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", &[b'x'; 256]] {
            assert!(EntryName::new(bad).is_err(), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b"\xff\xfe", &[b'x'; 255]] {
            assert!(EntryName::new(good).is_ok(), "{good:?}");
        }
    }
}
