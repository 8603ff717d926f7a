//! `share` and `invite`: a directory becomes a volume, and a code lets another machine join it.

use super::addresses::offered;
use super::config::Config;
use super::directory::{Site, Surveyor, forget_private_dir};
use super::hosted::Hosted;
use super::record::{VolumeRecord, check_name, unfinished};
use super::undo::Undo;
use super::{Daemon, now_unix_secs};
use crate::control::Place;
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use crate::pump::Fresh;
use lockstep_core::{Slot, VolumeId};
use lockstep_net::Invite;
use serde_json::{Value, json};
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long an invite can be redeemed.
const INVITE_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The creator's replica.
const FIRST_SLOT: Slot = Slot(1);

/// Creates a volume from `dir`, serves it and issues its first invite.
pub fn share(daemon: &Daemon, dir: &Path, name: Option<String>, place: &Place) -> Outcome<Value> {
    let _changing = daemon.change()?;
    let mut undo = Undo::default();
    let site = surveyor(daemon).share(dir, place, &mut undo)?;
    let name = name.map_or_else(|| name_of(&site.backing), Ok)?;
    check_name(&name)?;
    refuse_taken(daemon, &name)?;
    let listen = match place.listen {
        Some(address) => daemon.listen(address)?,
        None => usual_listener(daemon)?,
    };
    let record = VolumeRecord {
        mount: site.mount.clone(),
        listen: Some(listen),
        me: Some(daemon.me),
        policy: place.policy,
        ..VolumeRecord::new(fresh_id()?, name, site.backing.clone(), FIRST_SLOT)
    };
    let volume = establish(daemon, record, Fresh::Created, &mut undo)?;
    let code = issue(daemon, &volume, listen)?;
    undo.forget();
    Ok(placed(&volume.record(), &site, "invite", code.into()))
}

/// Another invite for a volume that exists.
pub fn invite_again(daemon: &Daemon, meant: &str) -> Outcome<Value> {
    let _changing = daemon.change()?;
    let volume = daemon.volumes.find(meant)?;
    let record = volume.record();
    let listen = match record.listen {
        Some(address) => daemon.listen(address)?,
        None => {
            let address = usual_listener(daemon)?;
            volume.listen_on(&daemon.home, address)?;
            address
        }
    };
    let code = issue(daemon, &volume, listen)?;
    let notes: Vec<String> = volume.has_room_for(None).err().map_or_else(Vec::new, |_| {
        let peer = record.peers.last().map_or("its peer", |peer| &peer.name);
        vec![format!(
            "\"{}\" is already shared with {peer}: only that machine can join it again",
            record.name
        )]
    });
    Ok(json!({ "volume": record.name, "invite": code, "notes": notes }))
}

/// Opens, mounts and remembers a new volume. Whatever fails is taken back by `undo`.
pub fn establish(
    daemon: &Daemon,
    record: VolumeRecord,
    fresh: Fresh,
    undo: &mut Undo,
) -> Outcome<Arc<Hosted>> {
    let dir = daemon.home.volume(record.id);
    let unfinished = unfinished(&daemon.home, record.id);
    fs::write(&unfinished, []).map_err(|e| {
        Failure::io("create", &unfinished, &e, "make room on the home's filesystem")
    })?;
    let mark = unfinished.clone();
    undo.push(move || drop(fs::remove_file(mark)));
    DirBuilder::new().mode(0o700).create(&dir).map_err(|e| {
        Failure::io("create", &dir, &e, "make room on the home's filesystem, or use another --home")
    })?;
    undo.push(move || drop(fs::remove_dir_all(dir)));
    forget_private_dir(&record.backing, undo);
    let volume = Hosted::new(record);
    let closing = Arc::clone(&volume);
    undo.push(move || closing.close());
    volume.open(&daemon.home, &daemon.config, &daemon.runtime, fresh)?;
    volume.mount().map_err(|failure| failure.advise("or use --no-mount to do without a mount"))?;
    volume.record().save(&daemon.home)?;
    let _ = fs::remove_file(unfinished);
    daemon.volumes.insert(Arc::clone(&volume));
    let (volumes, id) = (Arc::clone(&daemon.volumes), volume.id());
    undo.push(move || volumes.remove(id));
    Ok(volume)
}

/// The record of the volume `id` that `home` knows of; `None` if its daemon was killed while it made
/// that volume, which is taken back.
pub fn recorded(home: &Home, id: VolumeId) -> Outcome<Option<VolumeRecord>> {
    let record = VolumeRecord::load(home, id)?;
    let (dir, unfinished) = (home.volume(id), unfinished(home, id));
    match (&record, unfinished.exists()) {
        (None, false) => return Err(VolumeRecord::missing(home, id)),
        (None, true) => {
            tracing::warn!(volume = %id, "a volume that was never complete is removed");
            match fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::io("remove", &dir, &e, "move it away"));
                }
                _ => {}
            }
        }
        (Some(_), _) => {}
    }
    let _ = fs::remove_file(unfinished);
    Ok(record)
}

/// Who may choose directories in the name of `daemon`.
pub fn surveyor(daemon: &Daemon) -> Surveyor<'_> {
    Surveyor { home: &daemon.home, volumes: &daemon.volumes, dir_mode: daemon.dir_mode }
}

/// What `share` and `join` print: the volume, its places, and one thing more.
pub fn placed(record: &VolumeRecord, site: &Site, further: &str, value: Value) -> Value {
    json!({
        "volume": record.name,
        "mount": site.mount,
        "backing": site.backing,
        further: value,
    })
}

/// Whether this home has a volume called `name`.
pub fn is_taken(daemon: &Daemon, name: &str) -> bool {
    daemon.volumes.all().iter().any(|other| other.record().name == name)
}

fn refuse_taken(daemon: &Daemon, name: &str) -> Outcome<()> {
    if !is_taken(daemon, name) {
        return Ok(());
    }
    let message = format!("a volume of this home is already called \"{name}\"");
    Err(Failure::failed(message, "give this one another name with --name VOLUME"))
}

fn name_of(backing: &Path) -> Outcome<String> {
    let name = backing.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        let message = format!("{} has no name of its own", backing.display());
        Failure::failed(message, "give the volume one with --name VOLUME")
    })
}

/// The home's own address for volumes that were given none: chosen at the first, then kept.
pub fn usual_listener(daemon: &Daemon) -> Outcome<SocketAddr> {
    let config = Config::load(&daemon.home)?;
    let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let address = daemon.listen(config.listen.unwrap_or(anywhere))?;
    if config.listen.is_none() {
        Config { listen: Some(address), ..config }.save(&daemon.home)?;
    }
    Ok(address)
}

fn issue(daemon: &Daemon, volume: &Hosted, listen: SocketAddr) -> Outcome<String> {
    let now = now_unix_secs();
    let secret = daemon
        .invites
        .issue(volume.id(), now, INVITE_TTL)
        .map_err(|e| Failure::failed(format!("cannot issue an invite: {e}"), ""))?;
    let invite = Invite {
        volume: volume.id(),
        volume_name: volume.record().name,
        peer: daemon.me,
        addrs: offered(listen),
        secret,
        expires_unix_secs: now + INVITE_TTL.as_secs(),
    };
    Ok(invite.to_string())
}

fn fresh_id() -> Outcome<VolumeId> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| {
        Failure::failed(format!("the system gives no random numbers: {e}"), "try again")
    })?;
    Ok(VolumeId(id))
}
