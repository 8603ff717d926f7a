//! `join`: redeeming an invite, so that a directory here becomes another replica of a volume.

use super::Daemon;
use super::directory::Site;
use super::hosted::Hosted;
use super::record::{PeerRecord, VolumeRecord, check_name};
use super::share::{establish, is_taken, placed, surveyor};
use super::undo::Undo;
use crate::control::Place;
use crate::errors::{Failure, Outcome};
use crate::pump::Fresh;
use lockstep_core::Slot;
use lockstep_net::{Invite, InviteCodeError, PairGrant, Refusal};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long `join` waits for the first session, so that a `wait` right after it has a peer.
const FIRST_SESSION_DEADLINE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// The invite in `code`.
pub fn parse(code: &str) -> Outcome<Invite> {
    code.trim().parse().map_err(|e: InviteCodeError| {
        let text = e.to_string();
        let parts = text.rsplit_once("; ").or_else(|| text.rsplit_once(": "));
        let (message, hint) = parts.unwrap_or((&text, "ask for a new code"));
        Failure::usage(format!("cannot join: {message}"), hint)
    })
}

/// Joins the volume that `code` invites to, with `dir` for its plain files.
pub fn join(daemon: &Daemon, code: &str, dir: &Path, place: &Place) -> Outcome<Value> {
    let invite = parse(code)?;
    let _changing = daemon.change()?;
    refuse_own(daemon, &invite)?;
    let mut undo = Undo::default();
    // All that can go wrong here goes wrong before the invite is used up.
    let site = surveyor(daemon).join(dir, place, &mut undo)?;
    let listen = place.listen.map(|address| daemon.listen(address)).transpose()?;
    let grant = pair(daemon, &invite, listen)?;
    let record =
        VolumeRecord { policy: place.policy, ..record(daemon, &invite, &grant, &site, listen) };
    let volume = establish(daemon, record, Fresh::Joining, &mut undo)
        .map_err(|failure| failure.advise("then ask for a new code: this one is used up"))?;
    undo.forget();
    let record = volume.record();
    daemon.dial(&record);
    let notes: Vec<String> = await_session(&volume).err().into_iter().collect();
    let peer = json!({ "id": invite.peer.to_string(), "name": grant.host });
    let mut printed = placed(&record, &site, "peer", peer);
    printed["notes"] = json!(notes);
    Ok(printed)
}

fn refuse_own(daemon: &Daemon, invite: &Invite) -> Outcome<()> {
    if let Some(known) = daemon.volumes.get(invite.volume) {
        let record = known.record();
        let message = format!(
            "this home already has the volume \"{}\", at {}",
            record.name,
            record.backing.display()
        );
        return Err(Failure::failed(
            message,
            "run `lockstep join` on another machine, or with another --home",
        ));
    }
    if invite.peer == daemon.me {
        let message = "this invite comes from this very home, which no longer has the volume";
        return Err(Failure::failed(message, "share the directory again"));
    }
    Ok(())
}

fn pair(daemon: &Daemon, invite: &Invite, listen: Option<SocketAddr>) -> Outcome<PairGrant> {
    let host = daemon.config.host_name();
    let listen = listen.into_iter().collect();
    let paired = daemon.runtime.block_on(daemon.net.pair(invite, host, listen));
    paired.map_err(|refusal| {
        let message = format!("cannot join \"{}\": {refusal}", invite.volume_name.escape_debug());
        let hint = match refusal {
            Refusal::Unreachable(_) => {
                "see that the other side's daemon runs (lockstep status) and that this machine reaches it"
            }
            _ => "look at `lockstep status` on the other side; `lockstep invite` there prints a new code",
        };
        Failure::failed(message, hint)
    })
}

fn record(
    daemon: &Daemon,
    invite: &Invite,
    grant: &PairGrant,
    site: &Site,
    listen: Option<SocketAddr>,
) -> VolumeRecord {
    let name = free_name(daemon, &grant.volume_name, invite);
    let next = grant.your_slot.max(grant.my_slot).0.saturating_add(1);
    VolumeRecord {
        mount: site.mount.clone(),
        me: Some(daemon.me),
        listen,
        next_slot: Slot(next),
        peers: vec![PeerRecord {
            id: invite.peer,
            name: grant.host.clone(),
            slot: grant.my_slot,
            addrs: invite.addrs.clone(),
        }],
        ..VolumeRecord::new(invite.volume, name, site.backing.clone(), grant.your_slot)
    }
}

/// The sharer's name for the volume, or one close to it that is free and harmless here.
fn free_name(daemon: &Daemon, theirs: &str, invite: &Invite) -> String {
    let wanted = match check_name(theirs) {
        Ok(()) => theirs.to_owned(),
        Err(_) => invite.volume.to_string()[..8].to_owned(),
    };
    let mut candidates =
        std::iter::once(wanted.clone()).chain((2..).map(|number| format!("{wanted}-{number}")));
    candidates.find(|name| !is_taken(daemon, name)).expect("numbers do not end before volumes do")
}

fn await_session(volume: &Hosted) -> Result<(), String> {
    let deadline = Instant::now() + FIRST_SESSION_DEADLINE;
    while let Some(pump) = volume.pump() {
        let status = pump.status();
        if status.peers.iter().any(|peer| peer.connected) {
            return Ok(());
        }
        if Instant::now() > deadline {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Err("joined, but the first session with the peer is not up yet: `lockstep status` shows why"
        .to_owned())
}
