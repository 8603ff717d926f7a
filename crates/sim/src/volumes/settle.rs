//! The end of a run: everybody is up and connected, everything is carried, and then all must be
//! equal, nothing lost, nothing left over.

use super::calls::{Calls, Torn, torn};
use super::fetch;
use super::host::{Host, slot};
use super::ledger::ContentId;
use super::world::World;
use crate::failure::{Check, FailureKind};
use lockstep_core::{Kind, NodeId, Perm, Sequence, Times};
use lockstep_disk::Disk;
use lockstep_vfs::{DirEntry, FetchJob, Fh, Result, Volume};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Rounds in which everything must have settled.
const ROUNDS_MAX: usize = 300;
/// Rounds without anything to do after which it has.
const QUIET_ROUNDS: usize = 4;
/// Longer than any delay of a connection.
const ROUND: Duration = Duration::from_millis(600);
const READ_MAX: u32 = 1 << 20;

/// What a program sees of one name: everything but its path.
#[derive(Debug, PartialEq, Clone)]
struct Seen {
    node: NodeId,
    kind: Kind,
    perm: Perm,
    nlink: u32,
    times: Times,
    content: (usize, ContentId, String),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Brings the run to its end and checks what must hold there.
pub fn end(world: &mut World<'_>) -> Check {
    for at in 0..world.hosts.len() {
        world.set_full(at, false);
        world.hosts[at].power.restore();
        if !world.hosts[at].is_up() {
            world.start(at)?;
        }
        let World { hosts, ledger, rng, step, .. } = world;
        Calls { host: &mut hosts[at], ledger, rng, step: *step }.close_all();
    }
    carry_everything(world)?;
    check_equal(world)?;
    check_below(world)?;
    check_versions(world)?;
    check_leftovers(world)
}

fn carry_everything(world: &mut World<'_>) -> Check {
    let mut quiet = 0;
    for _ in 0..ROUNDS_MAX {
        let busy = round(world);
        quiet = if busy { 0 } else { quiet + 1 };
        if quiet >= QUIET_ROUNDS {
            return Ok(());
        }
    }
    let left = world.hosts.iter().map(|host| {
        let volume = host.volume.as_ref();
        let state = volume.map(|v| (v.status(), v.outstanding(), v.last()));
        let peers: Vec<_> = host.peers.iter().map(|(n, end)| (n, end.describe())).collect();
        format!("host {}: {state:?} {peers:?}", host.number)
    });
    Err((FailureKind::Stuck, left.collect::<Vec<_>>().join("\n")))
}

/// Whether there was anything to do.
fn round(world: &mut World<'_>) -> bool {
    world.clock.advance(ROUND);
    let hosts = world.hosts.len();
    let pairs: Vec<_> =
        (0..hosts).flat_map(|a| (0..hosts).map(move |b| (a, b))).filter(|(a, b)| a != b).collect();
    let mut busy = false;
    for (a, b) in pairs.iter().copied() {
        if !world.sessions.answers(a, b) {
            world.connect(a, b);
            busy = true;
        }
    }
    for at in 0..hosts {
        let Some(volume) = world.hosts[at].volume.clone() else { continue };
        volume.announce_all();
        busy |= volume.commit().is_err();
    }
    for (a, b) in pairs.iter().copied() {
        while world.exchange().ship(a, b) {
            busy = true;
        }
    }
    world.clock.advance(ROUND);
    let now = lockstep_vfs::Clock::running(&*world.clock);
    for (a, b) in pairs.iter().copied() {
        while world.exchange().deliver(a, b) {}
        for _ in 0..20 {
            busy |= world.exchange().receive(a, b);
        }
    }
    for at in 0..hosts {
        world.hosts[at].retry_due(now);
        while fetch::begin(&mut world.hosts, at) {}
        while fetch::step(&mut world.hosts, &world.sessions, at, 0) {}
    }
    busy | keep_house(world)
}

fn keep_house(world: &mut World<'_>) -> bool {
    let mut busy = !world.sessions.is_quiet();
    for at in 0..world.hosts.len() {
        world.exchange().make_applied_durable(at);
        let Some(volume) = world.hosts[at].volume.clone() else { continue };
        busy |= volume.trim().is_err() || volume.tidy_trash().is_err();
        let lost = without_bytes(world, at).len().min(volume.without_bytes().len()) as u64;
        let status = volume.status();
        busy |= status.absent > lost || status.unannounced + status.unnumbered > 0;
        for (peer, end) in &world.hosts[at].peers {
            let last = world.hosts[*peer].volume.as_ref().map(|peer| peer.last());
            busy |= !end.is_idle() || Some(volume.applied(slot(*peer))) < last;
        }
    }
    busy
}

/// Files that wait for a content that nobody can give any more, for power cuts took every version
/// there was, or the only bytes were removed below: `status` names them, and reads fail.
fn without_bytes(world: &World<'_>, at: usize) -> BTreeSet<NodeId> {
    let host = &world.hosts[at];
    let Some(volume) = &host.volume else { return BTreeSet::new() };
    if world.plan.power_cuts {
        let lost = volume.without_bytes().into_iter();
        return lost.filter_map(|(path, _)| volume.node_at(&path)).collect();
    }
    let lost = |(_, job): &&(Duration, FetchJob)| {
        volume.is_wanted(job) && world.ledger.was_removed_below(job.content)
    };
    host.retries.iter().filter(lost).map(|(_, job)| job.node).collect()
}

fn check_equal(world: &mut World<'_>) -> Check {
    let mut views = Vec::new();
    let lacking: Vec<BTreeSet<NodeId>> =
        (0..world.hosts.len()).map(|at| without_bytes(world, at)).collect();
    for (at, host) in world.hosts.iter().enumerate() {
        let Some(volume) = &host.volume else { continue };
        // What was removed below may still be shown by one; what cuts took, nobody has.
        let unseen = match world.plan.power_cuts {
            true => lacking[at].clone(),
            false => lacking.iter().flatten().copied().collect(),
        };
        let view = shown(volume, &unseen).map_err(|errno| {
            (FailureKind::Broken, format!("host {} cannot be read: {errno}", host.number))
        })?;
        views.push(view);
    }
    for (number, view) in views.iter().enumerate().skip(1) {
        let differs = difference(&views[0], view);
        if !differs.is_empty() {
            let what = format!("host 0 (-) and host {number} (+):\n{}", differs.join("\n"));
            return Err((FailureKind::Differ, what));
        }
    }
    Ok(())
}

fn difference(one: &BTreeMap<String, Seen>, two: &BTreeMap<String, Seen>) -> Vec<String> {
    let only = |sign: char, a: &BTreeMap<String, Seen>, b: &BTreeMap<String, Seen>| {
        let differs = a.iter().filter(|(path, seen)| b.get(*path) != Some(seen));
        differs.map(|(path, seen)| format!("{sign} {path}: {seen:?}")).collect::<Vec<_>>()
    };
    [only('-', one, two), only('+', two, one)].concat()
}

/// Everything a program sees, by path; but for the bytes of some files.
fn shown(volume: &Volume, without_bytes: &BTreeSet<NodeId>) -> Result<BTreeMap<String, Seen>> {
    let mut shown = BTreeMap::new();
    let mut dirs = vec![(NodeId::ROOT, String::new())];
    while let Some((dir, path)) = dirs.pop() {
        let mut entries = Vec::new();
        let mut emit = |entry: DirEntry<'_>| {
            let name = String::from_utf8_lossy(entry.name).into_owned();
            entries.push((name, entry.stat.node));
            false
        };
        volume.read_dir(Fh(0), dir, 2, &mut emit)?;
        for (name, node) in entries {
            let path = format!("{path}/{name}");
            let seen = look(volume, node, without_bytes.contains(&node))?;
            if seen.kind == Kind::Dir {
                dirs.push((node, path.clone()));
            }
            shown.insert(path, seen);
        }
    }
    Ok(shown)
}

fn look(volume: &Volume, node: NodeId, is_without_bytes: bool) -> Result<Seen> {
    let stat = volume.getattr(node)?;
    let bytes = match stat.kind {
        Kind::File if !is_without_bytes => {
            let opened = volume.open(node, 0)?;
            let bytes = volume.read(opened.fh, 0, READ_MAX);
            volume.release(opened.fh);
            bytes?
        }
        _ => Vec::new(),
    };
    let names = volume.list_xattrs(node)?;
    let value = |name: Vec<u8>| Ok((name.clone(), volume.get_xattr(node, &name)?));
    let xattrs = names.into_iter().map(value).collect::<Result<_>>()?;
    let begins = String::from_utf8_lossy(&bytes[..bytes.len().min(32)]).into_owned();
    let content = (bytes.len(), ContentId::of(&bytes), begins);
    let (kind, nlink) = (stat.kind, stat.nlink);
    // An older version that is shown meanwhile has its own.
    let (perm, times) = match is_without_bytes {
        true => (Perm::default(), Times::default()),
        false => (stat.perm, stat.times),
    };
    Ok(Seen { node, kind, perm, nlink, times, content, xattrs })
}

/// Below stands what is shown, and all of it was written by somebody.
fn check_below(world: &World<'_>) -> Check {
    for host in &world.hosts {
        let Some(volume) = &host.volume else { continue };
        let verified = volume.verify(&|_| true);
        if !verified.complete || !verified.differences.is_empty() {
            let what = format!("host {}: {:?}", host.number, verified.differences);
            return Err((FailureKind::Differ, what));
        }
        for (ino, (_, is_shown)) in host.contents() {
            let bytes = host.disk.core().live.0.get(&ino).map(|inode| inode.bytes());
            let Some(bytes) = bytes.filter(|_| is_shown) else { continue };
            if !world.ledger.is_known(&bytes) {
                let Torn(what) = torn(format!("host {} inode {ino}", host.number), &bytes);
                return Err((FailureKind::Torn, what));
            }
        }
    }
    Ok(())
}

fn check_versions(world: &World<'_>) -> Check {
    let there: BTreeSet<ContentId> = world.hosts.iter().flat_map(Host::content_set).collect();
    let lost = world.ledger.alive.iter().find(|(id, _)| !there.contains(id));
    lost.map_or(Ok(()), |(id, version)| Err((FailureKind::Lost, format!("{id:?} {version:?}"))))
}

fn check_leftovers(world: &World<'_>) -> Check {
    // What is kept stays while somebody lacks a content.
    if (0..world.hosts.len()).any(|at| !without_bytes(world, at).is_empty()) {
        return Ok(());
    }
    for host in &world.hosts {
        let kept = host.disk.keep_list().unwrap_or_default();
        let mut left = host.disk.temp_list().unwrap_or_default();
        // How far the last batch got.
        left.retain(|name| name != "begun");
        left.extend(kept.into_iter().filter(|name| !name.starts_with("trash-")));
        if !left.is_empty() {
            let what = format!("host {} keeps {left:?}", host.number);
            return Err((FailureKind::Unbounded, what));
        }
    }
    match world.plan.one_works {
        true => check_silence(world),
        false => Ok(()),
    }
}

/// Where one host works, the others change nothing and disagree with nothing.
fn check_silence(world: &World<'_>) -> Check {
    for host in &world.hosts[1..] {
        let Some(volume) = &host.volume else { continue };
        if volume.last() > Sequence(0) {
            let said = volume.log_after(Sequence(0), 3);
            let what = format!("nobody works on host {}, which says {said:?}", host.number);
            return Err((FailureKind::Wrong, what));
        }
    }
    for (at, host) in world.hosts.iter().enumerate() {
        let Some(volume) = &host.volume else { continue };
        let names = shown(volume, &without_bytes(world, at)).unwrap_or_default().into_keys();
        let odd: Vec<String> = names.filter(|name| name.contains(" (")).collect();
        if !odd.is_empty() {
            return Err((FailureKind::Wrong, format!("nobody disagreed, but there are {odd:?}")));
        }
    }
    Ok(())
}
