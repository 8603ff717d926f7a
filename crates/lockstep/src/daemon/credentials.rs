//! What lets peers in: the key by which they know this home, and the invites it gave out.

use super::durable;
use super::record::{VolumeRecord, remembered};
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use lockstep_core::PeerId;
use lockstep_net::{Identity, IdentityError, InviteBook, InviteBookError};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The key of `home`, drawn now if nobody can know the home by one yet.
pub fn identity(home: &Home) -> Outcome<Identity> {
    let path = home.identity_key();
    match fs::metadata(&path) {
        Ok(found) => refuse_foreign(&path, found.uid())?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => refuse_forgotten(home, &path)?,
        Err(e) => return Err(Failure::io("use the key file", &path, &e, HINT)),
    }
    let identity = load(&path)?;
    refuse_another(home, &path, identity.peer_id())?;
    Ok(identity)
}

fn load(path: &Path) -> Outcome<Identity> {
    Identity::load_or_create(path).map_err(|error| match error {
        IdentityError::Exposed { mode, .. } => Failure::failed(
            format!("the key file {} can be read by others (mode {mode:04o})", path.display()),
            format!(
                "if nobody has seen it, run `chmod 600 {}`; otherwise {PAIR_ANEW}",
                path.display()
            ),
        ),
        IdentityError::Damaged { .. } => {
            let message = format!("the key file {} is damaged", path.display());
            Failure::failed(message, format!("restore it from a backup; without one, {PAIR_ANEW}"))
        }
        IdentityError::Io { source, .. } => Failure::io("use the key file", path, &source, HINT),
    })
}

/// What to do without the key: the peers will know this home by another one.
const PAIR_ANEW: &str =
    "move it and the home's `volumes` away, and share or join the directories again";

const HINT: &str = "see that its owner may read it, and that the disk is healthy";

/// A file of another user is one that this user can read.
fn refuse_foreign(path: &Path, owner: u32) -> Outcome<()> {
    let own = rustix::process::geteuid().as_raw();
    if owner == own {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::failed(
        format!("the key file {path} belongs to another user ({owner}), who can read it"),
        format!("if that user may know the key, run `chown {own} {path}`; otherwise {PAIR_ANEW}"),
    ))
}

/// Peers know a home with volumes by its key: with another one they would refuse it.
fn refuse_forgotten(home: &Home, path: &Path) -> Outcome<()> {
    let volumes = remembered(home)?.len();
    if volumes == 0 {
        return Ok(());
    }
    Err(Failure::failed(
        format!(
            "the key file {} is missing, by which the peers of {volumes} volumes of this home know \
             it",
            path.display()
        ),
        format!(
            "restore it from a backup; without one, move {} away and share or join the directories \
             again",
            home.volumes().display()
        ),
    ))
}

/// A key with an altered digit is a key, and none that a peer knows.
fn refuse_another(home: &Home, path: &Path, key: PeerId) -> Outcome<()> {
    let records =
        remembered(home)?.into_iter().filter_map(|id| VolumeRecord::load(home, id).ok()?);
    let Some(other) = records.into_iter().find(|record| record.me.is_some_and(|me| me != key))
    else {
        return Ok(());
    };
    let path = path.display();
    Err(Failure::failed(
        format!("{path} is not the key by which the peers of \"{}\" know this home", other.name),
        format!("restore it from a backup; without one, {PAIR_ANEW}"),
    ))
}

/// The invites of `home`. A book that cannot be read is kept aside: whom it would have let in needs a
/// new invite.
pub fn invites(home: &Home, notices: &mut Vec<String>) -> Outcome<InviteBook> {
    let path = home.invites();
    let mut opened = InviteBook::open(&path);
    if let Err(InviteBookError::Exposed { mode, .. }) = opened {
        notices.push(close(&path, mode)?);
        opened = InviteBook::open(&path);
    }
    if let Err(damage) = opened {
        let reason = match damage {
            InviteBookError::Io { source, .. } => source.to_string(),
            _ => "it is no book of this version".to_owned(),
        };
        let kept = durable::set_aside(&path)?;
        notices.push(format!(
            "{} was damaged ({reason}): it is kept in {}; invites that were given out and not used \
             are void, `lockstep invite VOLUME` prints new ones",
            path.display(),
            kept.display()
        ));
        opened = InviteBook::open(&path);
    }
    notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    opened.map_err(|e| Failure::of_sentence(&e.to_string()))
}

fn close(path: &Path, mode: u32) -> Outcome<String> {
    let closed = fs::set_permissions(path, Permissions::from_mode(0o600));
    closed.map_err(|e| Failure::io("close", path, &e, "move it away"))?;
    let path = path.display();
    Ok(format!(
        "{path} could be read by others (mode {mode:04o}): it is closed again; it holds no secrets"
    ))
}
