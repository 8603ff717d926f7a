//! One node: the registers that `stat` shows, each with the version that set it.

use super::claim::Claims;
use super::directory::Directory;
use crate::attr::{Kind, Perm, Times, Timespec};
use crate::change::Body;
use crate::content::ContentRef;
use crate::ids::{NodeId, Version};
use crate::name::EntryName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A file, directory, symlink, pipe or socket of the tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is, with what only that kind has.
    pub body: NodeBody,
    /// Mode and owner.
    pub perm: Perm,
    /// Version of `perm`.
    pub perm_version: Version,
    /// Times.
    pub times: Times,
    /// Version of each of `times`: concurrent changes may set one and not the others.
    pub times_version: TimesVersion,
    /// Extended attributes that replicate; `None` is a removal still remembered.
    pub xattrs: BTreeMap<Vec<u8>, (Version, Option<Vec<u8>>)>,
    /// The names it is shown under. None: unlinked, kept while open or while a peer may not know yet.
    pub links: Vec<Link>,
    /// What is known of its names, where that is more than its links say.
    pub(super) history: Option<Box<Claims>>,
}

/// Which change set each of a node's times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimesVersion {
    /// Of `atime`.
    pub atime: Version,
    /// Of `mtime`.
    pub mtime: Version,
    /// Of `ctime`.
    pub ctime: Version,
}

/// What only one kind of node has.
#[derive(Clone, Debug)]
pub enum NodeBody {
    /// A file's bytes.
    File(FileBody),
    /// A directory's entries.
    Dir(Box<Directory>),
    /// A symlink's target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Which bytes a file shows, and which are on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBody {
    /// The content shown: announced by this replica or complete from a peer.
    pub content: ContentRef,
    /// Version of `content`.
    pub version: Version,
    /// Whether the bytes of `content` are below. Absent bytes are fetched when read.
    pub resident: bool,
    /// A newer content, shown once all its bytes are here.
    pub incoming: Option<Incoming>,
    /// Local writes that are not announced yet: the size shown is `live_size_bytes`.
    pub dirty: bool,
    /// Size with local writes.
    pub live_size_bytes: u64,
    /// Mode, owner and times as changes set them, while local writes that are not announced show
    /// others.
    pub announced: Option<Box<(Perm, Times)>>,
}

/// A content that replaces the one shown as soon as it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// The new bytes.
    pub content: ContentRef,
    /// Their version.
    pub version: Version,
    /// The node's times with them.
    pub times: Times,
    /// The node's permissions with them.
    pub perm: Perm,
}

/// One name of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Directory.
    pub parent: NodeId,
    /// The name its author gave.
    pub name: EntryName,
    /// The name it is shown under: differs from `name` while another node won that name.
    pub shown: EntryName,
    /// Version of the link.
    pub version: Version,
}

impl FileBody {
    /// The newest version known, shown or on its way: what a new edit or removal is based on.
    pub fn newest_version(&self) -> Version {
        self.incoming.map_or(self.version, |incoming| incoming.version)
    }

    /// The content and version still to be fetched, if any is.
    pub fn wanted(&self) -> Option<(ContentRef, Version)> {
        match self.incoming {
            Some(incoming) => Some((incoming.content, incoming.version)),
            None if !self.resident => Some((self.content, self.version)),
            None => None,
        }
    }
}

impl Node {
    pub(super) fn new(body: &Body, perm: Perm, times: Times, version: Version) -> Self {
        let body = match body {
            Body::File(content) => NodeBody::File(FileBody {
                content: *content,
                version,
                resident: content.size_bytes == 0,
                live_size_bytes: content.size_bytes,
                ..FileBody::default()
            }),
            Body::Dir => NodeBody::Dir(Box::default()),
            Body::Symlink(target) => NodeBody::Symlink(target.clone()),
            Body::Fifo => NodeBody::Fifo,
            Body::Socket => NodeBody::Socket,
        };
        Node {
            body,
            perm,
            perm_version: version,
            times,
            times_version: TimesVersion { atime: version, mtime: version, ctime: version },
            xattrs: BTreeMap::new(),
            links: Vec::new(),
            history: None,
        }
    }

    /// What the node is.
    pub fn kind(&self) -> Kind {
        match &self.body {
            NodeBody::File(_) => Kind::File,
            NodeBody::Dir(_) => Kind::Dir,
            NodeBody::Symlink(_) => Kind::Symlink,
            NodeBody::Fifo => Kind::Fifo,
            NodeBody::Socket => Kind::Socket,
        }
    }

    /// `st_nlink`.
    pub fn nlink(&self) -> u32 {
        match &self.body {
            NodeBody::Dir(_) if self.is_unlinked() => 0,
            NodeBody::Dir(dir) => 2 + dir.subdirs,
            _ => self.links.len() as u32,
        }
    }

    /// `st_size`.
    pub fn size_bytes(&self) -> u64 {
        match &self.body {
            NodeBody::File(file) => file.live_size_bytes,
            NodeBody::Symlink(target) => target.len() as u64,
            NodeBody::Dir(_) => 4096,
            NodeBody::Fifo | NodeBody::Socket => 0,
        }
    }

    /// The file's bytes, if it is a file.
    pub fn file(&self) -> Option<&FileBody> {
        match &self.body {
            NodeBody::File(file) => Some(file),
            _ => None,
        }
    }

    /// The file's bytes, if it is a file.
    pub fn file_mut(&mut self) -> Option<&mut FileBody> {
        match &mut self.body {
            NodeBody::File(file) => Some(file),
            _ => None,
        }
    }

    /// The directory's entries, if it is one.
    pub fn dir(&self) -> Option<&Directory> {
        match &self.body {
            NodeBody::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    pub(super) fn dir_mut(&mut self) -> Option<&mut Directory> {
        match &mut self.body {
            NodeBody::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    /// Whether the node has no name any more.
    pub fn is_unlinked(&self) -> bool {
        self.links.is_empty() && self.history.is_some()
    }

    /// The version of the newest content known; the default for what has none.
    pub fn content_version(&self) -> Version {
        self.file().map(FileBody::newest_version).unwrap_or_default()
    }

    /// Bytes were written here at `now`: what `stat` shows moves at once, the registers follow
    /// when the content is announced.
    pub fn written(&mut self, now: Timespec) {
        let registers = (self.perm, self.times);
        if let NodeBody::File(file) = &mut self.body {
            file.dirty = true;
            file.announced.get_or_insert_with(|| Box::new(registers));
        }
        (self.times.mtime, self.times.ctime) = (now, now);
    }

    /// The writes so far are announced. Whether `stat` showed something else than the registers.
    pub fn announced(&mut self) -> bool {
        let NodeBody::File(file) = &mut self.body else { return false };
        file.dirty = false;
        file.announced.take().is_some()
    }

    /// The writes so far were in vain: nobody will hear of them.
    pub fn forget_writes(&mut self) {
        let NodeBody::File(file) = &mut self.body else { return };
        file.dirty = false;
        if let Some(announced) = file.announced.take() {
            (self.perm, self.times) = *announced;
        }
    }

    /// Mode, owner and times as changes set them, if writes show others.
    fn registers(&mut self) -> Option<&mut (Perm, Times)> {
        match &mut self.body {
            NodeBody::File(file) => file.announced.as_deref_mut(),
            _ => None,
        }
    }

    pub(super) fn set_perm(&mut self, perm: Perm, version: Version) -> bool {
        let newer = version > self.perm_version;
        if newer {
            if let Some(registers) = self.registers() {
                registers.0 = perm;
            }
            self.perm = perm;
            self.perm_version = version;
        }
        newer
    }

    pub(super) fn set_times(&mut self, times: Times, version: Version) -> bool {
        let atime = version > self.times_version.atime;
        if atime {
            if let Some(registers) = self.registers() {
                registers.1.atime = times.atime;
            }
            (self.times.atime, self.times_version.atime) = (times.atime, version);
        }
        let mtime = self.set_mtime(times.mtime, version);
        self.set_ctime(times.ctime, version) || mtime || atime
    }

    pub(super) fn set_mtime(&mut self, mtime: Timespec, version: Version) -> bool {
        let newer = version > self.times_version.mtime;
        if newer {
            if let Some(registers) = self.registers() {
                registers.1.mtime = mtime;
            }
            (self.times.mtime, self.times_version.mtime) = (mtime, version);
        }
        newer
    }

    pub(super) fn set_ctime(&mut self, ctime: Timespec, version: Version) -> bool {
        let newer = version > self.times_version.ctime;
        if newer {
            if let Some(registers) = self.registers() {
                registers.1.ctime = ctime;
            }
            (self.times.ctime, self.times_version.ctime) = (ctime, version);
        }
        newer
    }
}
