//! What programs do, through the volume's calls as the FUSE adapter makes them.

use super::host::{Host, Open};
use super::ledger::Ledger;
use crate::rng::Rng;
use lockstep_core::NodeId;
use lockstep_vfs::{Caller, Errno, Fh, Kind, RenameMode, Result, SetAttr, Volume};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const O_WRONLY: i32 = 0o1;
const O_CREAT: i32 = 0o100;
const O_TRUNC: i32 = 0o1000;
pub const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
/// Directories in directories.
const DEPTH_MAX: usize = 3;
/// Lengths of contents: within a block, some blocks, beyond what travels with a change, beyond one
/// chunk.
pub const LENGTHS: [usize; 6] = [24, 24, 700, 9_000, 40_000, 150_000];
/// Longest file.
const READ_MAX: u32 = 1 << 20;
const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };

/// A reader saw bytes that no file ever had.
pub struct Torn(pub String);

/// One program's call on one host.
pub struct Calls<'w> {
    pub host: &'w mut Host,
    pub ledger: &'w mut Ledger,
    pub rng: &'w mut Rng,
    pub step: usize,
}

/// A name in a directory, and where that is below.
#[derive(Clone, Debug)]
struct Name {
    dir: NodeId,
    name: &'static [u8],
    path: PathBuf,
}

/// Bytes unlike all others.
pub fn content(who: usize, step: usize, rng: &mut Rng) -> Vec<u8> {
    let len = LENGTHS[rng.below(LENGTHS.len())];
    let line = format!("<{who}.{step}.{:08x}>", rng.bits() as u32);
    let mut bytes = line.repeat(len / line.len() + 1).into_bytes();
    bytes.truncate(len.max(line.len()));
    bytes
}

impl Calls<'_> {
    /// One call. That it may be refused is part of the game.
    pub fn make_one(&mut self) -> std::result::Result<String, Torn> {
        let Some(volume) = self.host.volume.clone() else { return Ok(String::new()) };
        let which = self.rng.below(20);
        let (at, to) = (self.place(&volume), self.place(&volume));
        let done = match which {
            0..=4 => self.write(&volume, &at),
            5..=7 => self.rename(&volume, &at, &to),
            8..=9 => self.unlink(&volume, &at),
            10..=11 => self.close_one(&volume),
            12 => self.fsync_one(&volume),
            13 => volume.mkdir(&CALLER, at.dir, at.name, 0o755).map(drop),
            14 => volume.rmdir(at.dir, at.name),
            15 => self.link(&volume, &at, &to),
            16 => self.dress(&volume, &at),
            17 => self.truncate(&volume, &at),
            18 => volume.symlink(&CALLER, at.dir, at.name, b"somewhere").map(drop),
            _ => return self.read(&volume, &at),
        };
        let done = done.map_or_else(|e| format!("{e}"), |()| "done".into());
        Ok(format!("call {which} {} {}: {done}", at.path.display(), to.path.display()))
    }

    /// A directory that exists, and a name in it that may.
    fn place(&mut self, volume: &Volume) -> Name {
        let (mut dir, mut path) = (NodeId::ROOT, PathBuf::new());
        for _ in 0..self.rng.below(DEPTH_MAX) {
            let name = NAMES[self.rng.below(NAMES.len())];
            let below = volume.lookup(dir, name).ok().filter(|stat| stat.kind == Kind::Dir);
            if let Some(stat) = below {
                dir = stat.node;
                path.push(OsStr::from_bytes(name));
            }
        }
        let name = NAMES[self.rng.below(NAMES.len())];
        path.push(OsStr::from_bytes(name));
        Name { dir, name, path }
    }

    /// What a call is about to take away is given up, if the call is made, by who saw it.
    fn gives_up(&mut self, volume: &Volume, node: NodeId, path: &Path) -> Option<Vec<u8>> {
        match volume.may_wait(node) {
            true => None,
            false => self.host.disk.bytes_at(path),
        }
    }

    fn gave_up(&mut self, node: NodeId, bytes: Option<Vec<u8>>, done: &Result<()>) {
        if done.is_err() && !self.host.power.is_dead() {
            return;
        }
        match bytes {
            Some(bytes) => self.ledger.given_up(&bytes),
            None => self.ledger.given_up_unseen(node),
        }
    }

    /// Writes a file as a shell does, or leaves it open half written.
    fn write(&mut self, volume: &Arc<Volume>, Name { dir, name, path }: &Name) -> Result<()> {
        let (fh, node) = match volume.lookup(*dir, name) {
            Ok(stat) => {
                let seen = self.gives_up(volume, stat.node, path);
                let opened = volume.open(stat.node, O_WRONLY | O_TRUNC);
                self.gave_up(stat.node, seen, &opened.as_ref().map(drop).map_err(|e| *e));
                (opened?.fh, stat.node)
            }
            Err(_) => {
                let flags = O_WRONLY | O_CREAT | O_TRUNC;
                let (stat, opened) = volume.create(&CALLER, *dir, name, 0o644, flags)?;
                (opened.fh, stat.node)
            }
        };
        self.host.open.push(Open { fh, node, wrote: true });
        let bytes = content(self.host.number, self.step, self.rng);
        let half = if self.rng.chance(30) { bytes.len() / 2 } else { bytes.len() };
        let mut written = self.write_at(volume, fh, 0, &bytes[..half]);
        if half < bytes.len() && self.rng.chance(80) {
            written = written.and_then(|()| self.write_at(volume, fh, half as u64, &bytes[half..]));
        }
        if self.rng.chance(30) {
            self.fsync(volume, fh, node)?;
        }
        if !self.rng.chance(15) {
            self.close(volume, self.host.open.len() - 1);
        }
        written
    }

    fn write_at(&mut self, volume: &Volume, fh: Fh, offset: u64, bytes: &[u8]) -> Result<()> {
        let before = volume.read(fh, 0, READ_MAX)?;
        let mut after = before.clone();
        after.resize(after.len().max(offset as usize + bytes.len()), 0);
        after[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        self.ledger.seen(&after);
        let done = volume.write(fh, offset, bytes, false, false).map(drop);
        self.ledger.given_up(&before);
        // A disk that is full takes some of it.
        if let Ok(now) = volume.read(fh, 0, READ_MAX) {
            self.ledger.seen(&now);
        }
        self.host.wrote();
        done
    }

    fn close(&mut self, volume: &Volume, which: usize) {
        let open = self.host.open.swap_remove(which);
        let last = self.host.open.iter().all(|other| other.node != open.node);
        let is_named = volume.getattr(open.node).is_ok_and(|stat| stat.nlink > 0);
        if open.wrote
            && last
            && is_named
            && let Ok(bytes) = volume.read(open.fh, 0, READ_MAX)
        {
            self.ledger.finished(self.host.number, Some(open.node), &bytes);
        }
        // A file that closes tells nothing that its writer could act upon.
        let _ = volume.flush(open.fh);
        volume.release(open.fh);
    }

    fn fsync(&mut self, volume: &Volume, fh: Fh, node: NodeId) -> Result<()> {
        let bytes = volume.read(fh, 0, READ_MAX)?;
        let datasync = self.rng.chance(50);
        volume.fsync(fh, datasync)?;
        if !bytes.is_empty() && volume.getattr(node)?.nlink > 0 {
            self.ledger.fsynced(self.host.number, &bytes);
        }
        Ok(())
    }

    fn fsync_one(&mut self, volume: &Volume) -> Result<()> {
        let which = self.rng.below(self.host.open.len().max(1));
        let Some(Open { fh, node, .. }) = self.host.open.get(which) else { return Ok(()) };
        let (fh, node) = (*fh, *node);
        match volume.may_wait_fh(fh) {
            true => Ok(()),
            false => self.fsync(volume, fh, node),
        }
    }

    fn close_one(&mut self, volume: &Volume) -> Result<()> {
        let which = self.rng.below(self.host.open.len().max(1));
        let Some(Open { fh, .. }) = self.host.open.get(which) else { return Ok(()) };
        let fh = *fh;
        // Bytes that are still to come would be waited for.
        let written = match volume.may_wait_fh(fh) || self.rng.chance(30) {
            true => Ok(()),
            false => {
                let more = format!("({:08x})", self.rng.bits() as u32);
                self.host.open[which].wrote = true;
                self.write_at(volume, fh, 3, more.as_bytes())
            }
        };
        self.close(volume, which);
        written
    }

    pub fn close_all(&mut self) {
        let Some(volume) = self.host.volume.clone() else { return };
        while !self.host.open.is_empty() {
            self.close(&volume, 0);
        }
    }

    fn rename(&mut self, volume: &Volume, from: &Name, to: &Name) -> Result<()> {
        let mode = [RenameMode::Replace, RenameMode::Replace, RenameMode::Exchange];
        let mode = mode[self.rng.below(mode.len())];
        let moved = volume.lookup(from.dir, from.name)?.node;
        let target = volume
            .lookup(to.dir, to.name)
            .ok()
            .filter(|stat| mode == RenameMode::Replace && stat.node != moved && stat.nlink == 1);
        let seen = target.as_ref().and_then(|stat| self.gives_up(volume, stat.node, &to.path));
        let done = volume.rename(from.dir, from.name, to.dir, to.name, mode);
        if let Some(stat) = target.filter(|stat| stat.kind == Kind::File) {
            self.gave_up(stat.node, seen, &done);
        }
        done
    }

    fn unlink(&mut self, volume: &Volume, Name { dir, name, path }: &Name) -> Result<()> {
        let stat = volume.lookup(*dir, name)?;
        let seen = self.gives_up(volume, stat.node, path);
        let done = volume.unlink(*dir, name);
        if stat.kind == Kind::File && stat.nlink == 1 {
            self.gave_up(stat.node, seen, &done);
        }
        done
    }

    fn link(&mut self, volume: &Volume, from: &Name, to: &Name) -> Result<()> {
        let node = volume.lookup(from.dir, from.name)?.node;
        volume.link(node, to.dir, to.name).map(drop)
    }

    fn dress(&mut self, volume: &Volume, Name { dir, name, .. }: &Name) -> Result<()> {
        let node = volume.lookup(*dir, name)?.node;
        let mode = Some([0o600, 0o640, 0o755][self.rng.below(3)]);
        volume.setattr(&CALLER, node, None, &SetAttr { mode, ..SetAttr::default() })?;
        volume.set_xattr(node, b"user.step", self.step.to_string().as_bytes(), 0)
    }

    fn truncate(&mut self, volume: &Volume, Name { dir, name, path }: &Name) -> Result<()> {
        let stat = volume.lookup(*dir, name)?;
        if stat.kind != Kind::File || volume.may_wait(stat.node) {
            return Err(Errno::Again);
        }
        let before = self.host.disk.bytes_at(path).ok_or(Errno::Again)?;
        let size = self.rng.below(before.len() + 100);
        let mut after = before.clone();
        after.resize(size, 0);
        self.ledger.seen(&after);
        let set = SetAttr { size: Some(size as u64), ..SetAttr::default() };
        let done = volume.setattr(&CALLER, stat.node, None, &set).map(drop);
        self.gave_up(stat.node, Some(before), &done);
        self.host.wrote();
        done
    }

    fn read(
        &mut self,
        volume: &Volume,
        Name { dir, name, .. }: &Name,
    ) -> std::result::Result<String, Torn> {
        let found = volume.lookup(*dir, name).ok().filter(|stat| stat.kind == Kind::File);
        let Some(stat) = found.filter(|stat| !volume.may_wait(stat.node)) else {
            return Ok(String::new());
        };
        let Ok(opened) = volume.open(stat.node, 0) else { return Ok(String::new()) };
        let read = volume.read(opened.fh, 0, READ_MAX);
        volume.release(opened.fh);
        let node = stat.node;
        match read {
            Ok(bytes) if bytes.len() as u64 != stat.size_bytes => {
                let (got, size) = (bytes.len(), stat.size_bytes);
                Err(Torn(format!("{node} has {size} bytes, {got} were read")))
            }
            Ok(bytes) if !self.ledger.is_known(&bytes) => Err(torn(node, &bytes)),
            read => Ok(format!("read {node}: {:?}", read.map(|bytes| bytes.len()))),
        }
    }
}

/// Says what is strange about bytes that nobody wrote.
pub fn torn(node: impl std::fmt::Display, bytes: &[u8]) -> Torn {
    let zeros = bytes.iter().filter(|byte| **byte == 0).count();
    let begins = String::from_utf8_lossy(&bytes[..bytes.len().min(32)]);
    Torn(format!("{node}: {} bytes that nobody wrote, {zeros} of them zero: {begins}", bytes.len()))
}
