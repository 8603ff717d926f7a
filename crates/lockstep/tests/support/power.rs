//! A peer on a disk of its own, whose power a test can cut.
//!
//! The disk is an ext4 image on a loop device. Cutting is ext4's own shutdown without flushing its
//! journal: from that instant nothing reaches the image any more, whatever was still in memory.

use super::command::run;
use super::environment::{has_root, skip, unmount_below};
use super::peer::Peer;
use super::{SOON, eventually};
use rustix::mount::UnmountFlags;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587d;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const WITHOUT_FLUSHING: u32 = 2;
const IMAGE_BYTES: u64 = 1 << 30;

/// The disk that holds everything of a peer: home, directory and mount point.
pub struct PowerSupply {
    peer: Arc<Peer>,
    image: PathBuf,
    at: PathBuf,
}

impl PowerSupply {
    /// Puts `peer`, which has not been started, on a disk of its own, an image in `dir`. `None`,
    /// said loudly, where that is impossible.
    pub fn of(peer: &Arc<Peer>, dir: &Path) -> Option<PowerSupply> {
        if !has_root("to mount a disk image") {
            return None;
        }
        let image = dir.join(format!("{}.img", peer.name));
        File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).expect("a sparse file");
        run(Command::new("mkfs.ext4").arg("-qF").arg(&image), SOON).success();
        let at = peer.home.parent().expect("made by the pair").to_owned();
        let supply = PowerSupply { peer: peer.clone(), image, at };
        if !supply.mount() {
            skip("no loop device can be had (`modprobe loop`)");
            return None;
        }
        for dir in [&*peer.home, &peer.backing, peer.mnt()] {
            std::fs::create_dir_all(dir).expect("the new disk is empty");
        }
        Some(supply)
    }

    fn mount(&self) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop"]).arg(&self.image).arg(&self.at);
        run(&mut mount, SOON).code == Some(0)
    }

    /// The disk stops at this instant. Calls that need it fail from then on.
    pub fn cut(&self) {
        let disk = File::open(&self.at).expect("mounted");
        // SAFETY: this request reads one u32, which outlives the call.
        let done = unsafe { libc::ioctl(disk.as_raw_fd(), SHUTDOWN, &WITHOUT_FLUSHING) };
        assert_eq!(done, 0, "ext4 shuts down: {}", std::io::Error::last_os_error());
    }

    /// The machine is up again, with what had reached the disk, its journal replayed; the daemon is
    /// not started.
    pub fn restore(&self) {
        self.peer.kill9();
        unmount_below(self.peer.mnt());
        eventually("the dead disk is let go", SOON, || {
            rustix::mount::unmount(&self.at, UnmountFlags::NOFOLLOW).is_ok()
        });
        assert!(self.mount(), "the disk can be mounted again");
    }
}

impl Drop for PowerSupply {
    fn drop(&mut self) {
        self.peer.signal(rustix::process::Signal::KILL);
        unmount_below(self.peer.mnt());
        let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}
