//! Extended attributes of every kind of file.

use crate::{Backing, errno, is_root};
use lockstep_disk::{Disk, XattrFlags};
use rustix::io::Errno;
use std::path::Path;

#[test]
fn values_are_set_read_listed_and_removed() {
    let tree = Backing::new();
    tree.write("f", b"");
    let (disk, f) = (&tree.disk, Path::new("f"));
    let long = vec![7; 3_000];
    disk.set_xattr(f, b"user.a", b"\0binary\xff", XattrFlags::Any).unwrap();
    disk.set_xattr(f, b"user.empty", b"", XattrFlags::Create).unwrap();
    disk.set_xattr(f, b"user.long", &long, XattrFlags::Any).unwrap();
    assert_eq!(disk.get_xattr(f, b"user.a").unwrap(), b"\0binary\xff");
    assert_eq!(disk.get_xattr(f, b"user.empty").unwrap(), b"");
    assert_eq!(disk.get_xattr(f, b"user.long").unwrap(), long);
    let mut names = disk.list_xattrs(f).unwrap();
    names.sort();
    assert_eq!(names, [&b"user.a"[..], b"user.empty", b"user.long"]);
    disk.remove_xattr(f, b"user.a").unwrap();
    assert_eq!(errno(disk.get_xattr(f, b"user.a")), Errno::NODATA.raw_os_error());
    assert_eq!(errno(disk.remove_xattr(f, b"user.a")), Errno::NODATA.raw_os_error());
}

#[test]
fn many_names_are_listed() {
    let tree = Backing::new();
    tree.write("f", b"");
    for n in 0..60 {
        let name = format!("user.a-rather-long-name-{n}");
        tree.disk.set_xattr(Path::new("f"), name.as_bytes(), b"", XattrFlags::Any).unwrap();
    }
    assert_eq!(tree.disk.list_xattrs(Path::new("f")).unwrap().len(), 60);
}

#[test]
fn flags_decide_between_creating_and_replacing() {
    let tree = Backing::new();
    tree.write("f", b"");
    let set = |flags| tree.disk.set_xattr(Path::new("f"), b"user.a", b"1", flags);
    assert_eq!(errno(set(XattrFlags::Replace)), Errno::NODATA.raw_os_error());
    set(XattrFlags::Create).unwrap();
    assert_eq!(errno(set(XattrFlags::Create)), Errno::EXIST.raw_os_error());
    set(XattrFlags::Replace).unwrap();
}

#[test]
fn directories_and_the_root_have_them() {
    let tree = Backing::new();
    tree.disk.mkdir(Path::new("d"), 0o755).unwrap();
    for path in ["", "d"] {
        tree.disk.set_xattr(Path::new(path), b"user.a", b"1", XattrFlags::Any).unwrap();
        assert_eq!(tree.disk.get_xattr(Path::new(path), b"user.a").unwrap(), b"1");
        assert_eq!(tree.disk.list_xattrs(Path::new(path)).unwrap(), [b"user.a"]);
    }
}

#[test]
fn a_symlink_is_not_followed() {
    let tree = Backing::new();
    tree.write("target", b"");
    tree.disk.symlink(b"target", Path::new("link")).unwrap();
    tree.disk.set_xattr(Path::new("target"), b"user.a", b"1", XattrFlags::Any).unwrap();
    let link = Path::new("link");
    assert_eq!(tree.disk.list_xattrs(link).unwrap(), Vec::<Vec<u8>>::new());
    assert!(tree.disk.get_xattr(link, b"user.a").is_err());
    // Symlinks have no user attributes (xattr(7)).
    let refused = errno(tree.disk.set_xattr(link, b"user.b", b"2", XattrFlags::Any));
    assert_eq!(refused, Errno::PERM.raw_os_error());
    assert!(tree.disk.remove_xattr(link, b"user.a").is_err());
    assert_eq!(tree.disk.list_xattrs(Path::new("target")).unwrap(), [b"user.a"]);
    if is_root() {
        tree.disk.set_xattr(link, b"trusted.t", b"3", XattrFlags::Any).unwrap();
        assert_eq!(tree.disk.get_xattr(link, b"trusted.t").unwrap(), b"3");
        assert_eq!(tree.disk.list_xattrs(link).unwrap(), [b"trusted.t"]);
        assert!(tree.disk.get_xattr(Path::new("target"), b"trusted.t").is_err());
    }
}

#[test]
fn a_fifo_is_not_opened_for_them() {
    let tree = Backing::new();
    tree.disk.mknod(Path::new("fifo"), 0o010_644, 0).unwrap();
    let fifo = Path::new("fifo");
    assert_eq!(tree.disk.list_xattrs(fifo).unwrap(), Vec::<Vec<u8>>::new());
    let refused = errno(tree.disk.set_xattr(fifo, b"user.a", b"1", XattrFlags::Any));
    assert_eq!(refused, Errno::PERM.raw_os_error());
}

#[test]
fn lockstep_s_own_do_not_exist() {
    let tree = Backing::new();
    tree.disk.placeholder(Path::new("p"), 10).unwrap();
    let (p, marker) = (Path::new("p"), b"user.lockstep.absent");
    assert_eq!(tree.disk.list_xattrs(p).unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(errno(tree.disk.get_xattr(p, marker)), Errno::NODATA.raw_os_error());
    assert_eq!(errno(tree.disk.remove_xattr(p, marker)), Errno::NODATA.raw_os_error());
    let refused = errno(tree.disk.set_xattr(p, marker, b"", XattrFlags::Any));
    assert_eq!(refused, Errno::PERM.raw_os_error());
    assert!(tree.disk.is_placeholder(p).unwrap());
}

#[test]
fn a_seal_stays_with_the_file_is_broken_and_shows_to_nobody() {
    let tree = Backing::new();
    let file = tree.disk.temp_create("t").unwrap();
    assert_eq!(file.set_seal(None).map_err(|error| error.kind()), Ok(()), "there is none to break");
    file.set_seal(Some(b"first")).unwrap();
    file.set_seal(Some(b"second")).unwrap();
    let f = Path::new("f");
    tree.disk.temp_install("t", f).unwrap();
    assert_eq!(tree.disk.seal(f).unwrap().as_deref(), Some(&b"second"[..]));
    assert_eq!(tree.disk.list_xattrs(f).unwrap(), Vec::<Vec<u8>>::new());
    file.set_seal(None).unwrap();
    assert_eq!(tree.disk.seal(f).unwrap(), None);
}
