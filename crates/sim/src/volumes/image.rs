//! What a filesystem holds at one moment: inodes, names, bytes.

use lockstep_core::Timespec;
use lockstep_disk::{BackingStat, FileType};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Unit in which bytes are stored.
pub const BLOCK_BYTES: usize = 4096;
/// The root of the backing tree.
pub const ROOT: u64 = 1;
/// `.lockstep/tmp`.
pub const TEMP: u64 = 2;
/// `.lockstep/keep`.
pub const KEPT: u64 = 3;
/// First inode number that is given out.
const FIRST: u64 = 11;

/// The bytes of one block.
pub type Block = Arc<[u8]>;

/// Attributes of an inode that are journaled together.
#[derive(Clone, Debug)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One file, directory or other thing.
#[derive(Clone, Debug)]
pub struct Inode {
    pub file_type: FileType,
    pub meta: Meta,
    pub btime: Timespec,
    pub nlink: u32,
    pub rdev: u64,
    pub target: Vec<u8>,
    pub entries: BTreeMap<Vec<u8>, u64>,
    pub size_bytes: u64,
    /// Blocks that are stored; the others are holes.
    pub blocks: BTreeMap<u64, Block>,
}

/// One change of metadata.
#[derive(Clone, Debug)]
pub enum Change {
    Make(u64, Box<Inode>),
    Enter { dir: u64, name: Vec<u8>, ino: u64 },
    Leave { dir: u64, name: Vec<u8> },
    Update(u64, Meta),
    Truncate(u64, u64),
    Free(u64),
}

/// All inodes.
#[derive(Clone, Debug)]
pub struct Image(pub BTreeMap<u64, Inode>);

impl Inode {
    pub fn new(file_type: FileType, mode: u32, at: Timespec) -> Self {
        let xattrs = BTreeMap::new();
        let meta = Meta { mode, uid: 0, gid: 0, atime: at, mtime: at, ctime: at, xattrs };
        let (target, entries, blocks) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Inode {
            file_type,
            meta,
            btime: at,
            nlink: 0,
            rdev: 0,
            target,
            entries,
            size_bytes: 0,
            blocks,
        }
    }

    pub fn stat(&self, ino: u64) -> BackingStat {
        let Meta { mode, uid, gid, atime, mtime, ctime, .. } = self.meta;
        let size_bytes = match self.file_type {
            FileType::Symlink => self.target.len() as u64,
            _ => self.size_bytes,
        };
        let blocks = self.blocks.len() as u64 * 8;
        BackingStat {
            file_type: self.file_type,
            mode,
            uid,
            gid,
            nlink: self.nlink,
            size_bytes,
            blocks,
            atime,
            mtime,
            ctime,
            btime: self.btime,
            ino,
            dev: 1,
            rdev: self.rdev,
        }
    }

    /// Bytes from `offset` on; fewer only at the end.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let len = (buf.len() as u64).min(self.size_bytes.saturating_sub(offset)) as usize;
        for (at, byte) in buf[..len].iter_mut().enumerate() {
            let position = offset + at as u64;
            let block = self.blocks.get(&(position / BLOCK_BYTES as u64));
            *byte = block.map_or(0, |block| block[position as usize % BLOCK_BYTES]);
        }
        len
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size_bytes as usize];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Cuts off or extends by a hole.
    pub fn truncate(&mut self, size: u64) {
        let whole = size / BLOCK_BYTES as u64;
        let rest = size as usize % BLOCK_BYTES;
        let mut beyond = self.blocks.split_off(&whole);
        if let Some(block) = beyond.remove(&whole).filter(|_| rest > 0) {
            self.blocks.insert(whole, cut(&block, rest));
        }
        self.size_bytes = size;
    }
}

/// `block` with zeros from `len` on.
pub fn cut(block: &Block, len: usize) -> Block {
    let mut bytes = block.to_vec();
    bytes[len..].fill(0);
    bytes.into()
}

impl Image {
    /// An empty backing tree with its private directories.
    pub fn new(at: Timespec) -> Self {
        let dir = || Inode { nlink: 2, ..Inode::new(FileType::Dir, 0o755, at) };
        Image([ROOT, TEMP, KEPT].into_iter().map(|ino| (ino, dir())).collect())
    }

    /// The lowest number that is free: like real filesystems, this one gives numbers again.
    pub fn free_number(&self) -> u64 {
        (FIRST..).find(|ino| !self.0.contains_key(ino)).unwrap_or(FIRST)
    }

    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Make(ino, inode) => drop(self.0.insert(*ino, (**inode).clone())),
            Change::Enter { dir, name, ino } => {
                if let Some(dir) = self.0.get_mut(dir) {
                    dir.entries.insert(name.clone(), *ino);
                }
                self.count(*ino, 1);
            }
            Change::Leave { dir, name } => {
                let ino = self.0.get_mut(dir).and_then(|dir| dir.entries.remove(name));
                if let Some(ino) = ino {
                    self.count(ino, -1);
                }
            }
            Change::Update(ino, meta) => {
                if let Some(inode) = self.0.get_mut(ino) {
                    inode.meta = meta.clone();
                }
            }
            Change::Truncate(ino, size) => {
                if let Some(inode) = self.0.get_mut(ino) {
                    inode.truncate(*size);
                }
            }
            Change::Free(ino) => drop(self.0.remove(ino)),
        }
    }

    fn count(&mut self, ino: u64, by: i32) {
        if let Some(inode) = self.0.get_mut(&ino) {
            inode.nlink = inode.nlink.saturating_add_signed(by);
        }
    }

    /// Removes what has no name: nobody has it open any more.
    pub fn sweep(&mut self) {
        self.0.retain(|_, inode| inode.nlink > 0);
    }
}
