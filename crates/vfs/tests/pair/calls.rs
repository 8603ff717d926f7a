//! Random calls, as programs make them.

use crate::side::Side;
use crate::{Mix, Rng};
use lockstep_core::NodeId;
use lockstep_vfs::{Caller, Fh, RenameMode, Result, SetAttr, Volume};

const O_WRONLY: i32 = 0o1;
const O_CREAT: i32 = 0o100;
const O_TRUNC: i32 = 0o1000;
const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

/// Files held open for writing, by side.
pub struct Calls {
    open: [Vec<Fh>; 2],
    mix: Mix,
}

impl Calls {
    pub fn new(mix: Mix) -> Calls {
        Calls { open: Default::default(), mix }
    }

    /// One call; that it may fail is part of the game.
    pub fn make_one(&mut self, sides: &[Side; 2], who: usize, rng: &mut Rng, step: usize) {
        let side = &sides[who];
        let _ = match self.mix.on_demand && rng.chance(20) {
            true => self.ask_for_bytes(side, &sides[1 - who], rng),
            false => self.attempt(&side.volume, who, rng, step),
        };
    }

    /// What a reader, a pin, or an eviction asks for.
    fn ask_for_bytes(&mut self, side: &Side, peer: &Side, rng: &mut Rng) -> Result<()> {
        let (dir, name) = self.place(&side.volume, rng)?;
        let node = side.volume.lookup(dir, name)?.node;
        match rng.below(4) {
            0 => {
                let _ = side.volume.pin(node);
            }
            1 => {
                let _ = side.volume.unpin(node);
            }
            2 => {
                let begun = side.volume.start_evicting(node).ok().flatten();
                if let Some(content) = begun {
                    let has = peer.volume.keeps(&[(node, content)])[0];
                    let _ = side.volume.finish_evicting(&[(node, content, has)]);
                }
            }
            _ => {
                // A reader: its bytes come before anything else happens.
                let _ = side.volume.pin(node);
                while side.volume.may_wait(node) && side.fetch_one(peer) {}
                let _ = side.volume.unpin(node);
            }
        }
        Ok(())
    }

    fn attempt(&mut self, volume: &Volume, who: usize, rng: &mut Rng, step: usize) -> Result<()> {
        let (dir, name) = self.place(volume, rng)?;
        let (to_dir, to_name) = self.place(volume, rng)?;
        let kinds = if self.mix.trees { 14 } else { 9 };
        match rng.below(kinds) {
            0..=2 => self.write(volume, who, (dir, name), rng, step),
            3..=5 => volume.rename(dir, name, to_dir, to_name, RenameMode::Replace),
            6..=7 => volume.unlink(dir, name),
            8 => self.close_one(volume, who, rng),
            9..=10 => volume.mkdir(&caller(), dir, name, 0o755).map(drop),
            11 => volume.rmdir(dir, name),
            12 => {
                let node = volume.lookup(dir, name)?.node;
                volume.link(node, to_dir, to_name).map(drop)
            }
            _ => {
                let node = volume.lookup(dir, name)?.node;
                let mode = Some([0o600, 0o640, 0o755][rng.below(3)]);
                volume.setattr(&caller(), node, None, &SetAttr { mode, ..SetAttr::default() })?;
                volume.set_xattr(node, b"user.step", step.to_string().as_bytes(), 0)
            }
        }
    }

    /// A directory that exists, and a name in it that may.
    fn place(&self, volume: &Volume, rng: &mut Rng) -> Result<(NodeId, &'static [u8])> {
        let mut dir = NodeId::ROOT;
        let depth = if self.mix.trees { rng.below(3) } else { 0 };
        for _ in 0..depth {
            dir = volume.lookup(dir, NAMES[rng.below(NAMES.len())])?.node;
            volume.open_dir(dir)?;
        }
        Ok((dir, NAMES[rng.below(NAMES.len())]))
    }

    /// Writes a file as a shell does, or leaves it open half written.
    fn write(
        &mut self,
        volume: &Volume,
        who: usize,
        (dir, name): (NodeId, &[u8]),
        rng: &mut Rng,
        step: usize,
    ) -> Result<()> {
        let flags = O_WRONLY | O_CREAT | O_TRUNC;
        let fh = match volume.lookup(dir, name) {
            Ok(stat) => volume.open(stat.node, O_WRONLY | O_TRUNC)?.fh,
            Err(_) => volume.create(&caller(), dir, name, 0o644, flags)?.1.fh,
        };
        let line = format!("side {who} step {step} ");
        let bytes = line.repeat(self.mix.lines[rng.below(4)]).into_bytes();
        let written = volume.write(fh, 0, &bytes, false, false);
        if rng.chance(self.mix.held_percent) {
            self.open[who].push(fh);
        } else {
            close(volume, fh);
        }
        written.map(drop)
    }

    fn close_one(&mut self, volume: &Volume, who: usize, rng: &mut Rng) -> Result<()> {
        if self.open[who].is_empty() {
            return Ok(());
        }
        let at = rng.below(self.open[who].len());
        let fh = self.open[who].swap_remove(at);
        // Bytes that are still to come would be waited for, and nobody else carries them here.
        if !volume.may_wait_fh(fh) {
            let _ = volume.write(fh, 3, b"and more", false, false);
        }
        close(volume, fh);
        Ok(())
    }

    pub fn close_all(&mut self, sides: &[Side; 2]) {
        for (side, open) in sides.iter().zip(&mut self.open) {
            open.drain(..).for_each(|fh| close(&side.volume, fh));
        }
    }
}

pub fn close(volume: &Volume, fh: Fh) {
    let _ = volume.flush(fh);
    volume.release(fh);
}

fn caller() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid, gid, pid: std::process::id(), umask: 0 }
}

/// Makes a file in the root, with `bytes`.
pub fn write_new(volume: &Volume, name: &[u8], bytes: &[u8]) -> NodeId {
    let flags = O_WRONLY | O_CREAT | O_TRUNC;
    let (stat, opened) = volume.create(&caller(), NodeId::ROOT, name, 0o644, flags).unwrap();
    volume.write(opened.fh, 0, bytes, false, false).unwrap();
    close(volume, opened.fh);
    stat.node
}
