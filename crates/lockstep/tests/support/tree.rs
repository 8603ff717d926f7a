//! What a user sees of a tree, entry by entry, and how two trees differ.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One entry: everything `lstat`, `readlink`, `read` and `getxattr` tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Hard links.
    pub nlink: u64,
    /// Size, bytes.
    pub size: u64,
    /// Modification time, seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Change time, seconds and nanoseconds.
    pub ctime: (i64, i64),
    /// Hash of a file's bytes; a symlink's target.
    pub content: Content,
    /// Extended attributes in the user namespace.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A regular file's bytes: how many were read, and their hash.
    Bytes(u64, u64),
    /// A symlink's target.
    Target(PathBuf),
    /// Directories, pipes, sockets.
    None,
}

/// Every entry below `root`, and `root` itself as the empty path.
#[track_caller]
pub fn walk(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let full = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) };
        let entry = read_entry(&full).unwrap_or_else(|why| panic!("{}: {why}", full.display()));
        if entry.mode & libc::S_IFMT == libc::S_IFDIR {
            let names = std::fs::read_dir(&full)
                .unwrap_or_else(|why| panic!("reading directory {}: {why}", full.display()));
            for name in names {
                open.push(path.join(name.expect("readdir goes on").file_name()));
            }
        }
        assert!(found.insert(path.clone(), entry).is_none(), "{} listed twice", path.display());
    }
    found
}

/// The names below `root`, and `root` itself as the empty path, in order.
pub fn walk_names(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(root.join(&path)).into_iter().flatten() {
            let entry = entry.expect("readdir goes on");
            let child = path.join(entry.file_name());
            match entry.file_type().expect("readdir tells the type").is_dir() {
                true => open.push(child),
                false => found.push(child),
            }
        }
        found.push(path);
    }
    found.sort_unstable();
    found
}

fn read_entry(path: &Path) -> std::io::Result<Entry> {
    let meta = path.symlink_metadata()?;
    let content = match meta.mode() & libc::S_IFMT {
        libc::S_IFREG => hash(path)?,
        libc::S_IFLNK => Content::Target(std::fs::read_link(path)?),
        _ => Content::None,
    };
    Ok(Entry {
        ino: meta.ino(),
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        nlink: meta.nlink(),
        size: meta.size(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        ctime: (meta.ctime(), meta.ctime_nsec()),
        content,
        xattrs: user_xattrs(path)?,
    })
}

fn hash(path: &Path) -> std::io::Result<Content> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        let len = file.read(&mut buffer)?;
        if len == 0 {
            return Ok(Content::Bytes(total, hasher.finish()));
        }
        hasher.write(&buffer[..len]);
        total += len as u64;
    }
}

/// The `user.` attributes of `path` itself.
pub fn user_xattrs(path: &Path) -> std::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0u8; 65_536];
    let len = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(len) => len,
        Err(rustix::io::Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Err(why) => return Err(why.into()),
    };
    let names = names[..len].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    names
        .map(|name| {
            let mut value = vec![0u8; 65_536];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
            value.truncate(len);
            Ok((name.to_vec(), value))
        })
        .collect()
}

/// Panics unless both trees show the same names, bytes and `stat` fields.
#[track_caller]
pub fn assert_identical(a: &Path, b: &Path) {
    let (left, right) = (walk(a), walk(b));
    for (root, tree) in [(a, &left), (b, &right)] {
        for (path, entry) in tree {
            if let Content::Bytes(read, _) = entry.content {
                assert_eq!(read, entry.size, "bytes read of {}", root.join(path).display());
            }
        }
    }
    let differences = differences(&left, &right);
    assert!(
        differences.is_empty(),
        "{} and {} differ in {} entries of {}:\n{}",
        a.display(),
        b.display(),
        differences.len(),
        left.len(),
        differences[..differences.len().min(12)].join("\n")
    );
}

fn differences(left: &BTreeMap<PathBuf, Entry>, right: &BTreeMap<PathBuf, Entry>) -> Vec<String> {
    let mut found = Vec::new();
    for (path, entry) in left {
        match right.get(path) {
            None => found.push(format!("only left: {}", path.display())),
            Some(other) if other != entry => {
                found.push(format!("{}:\n  {entry:?}\n  {other:?}", path.display()));
            }
            Some(_) => {}
        }
    }
    let only_right = right.keys().filter(|path| !left.contains_key(*path));
    found.extend(only_right.map(|path| format!("only right: {}", path.display())));
    found
}

/// The bytes of every regular file below `root`, by path, leaving out Lockstep's own directory.
pub fn plain_files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |(path, bytes): (PathBuf, io::Result<Vec<u8>>)| {
        let bytes = bytes.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, bytes)
    };
    files(root).into_iter().map(read).collect()
}

/// The same, without those whose bytes are not here.
pub fn files_here(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_here = |(path, bytes): (PathBuf, io::Result<Vec<u8>>)| Some((path, bytes.ok()?));
    files(root).into_iter().filter_map(is_here).collect()
}

fn files(root: &Path) -> BTreeMap<PathBuf, io::Result<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(root.join(&dir)).expect("a directory").flatten() {
            let path = dir.join(entry.file_name());
            let kind = entry.file_type().expect("readdir tells the type");
            if kind.is_dir() && path != Path::new(".lockstep") {
                open.push(path);
            } else if kind.is_file() {
                found.insert(path.clone(), std::fs::read(root.join(&path)));
            }
        }
    }
    found
}
