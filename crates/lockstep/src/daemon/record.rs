//! What a home remembers about a volume between two runs of its daemon: `volume.json`.

use super::durable;
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use lockstep_core::{PeerId, Slot, VolumeId};
use lockstep_vfs::Policy;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The layout of `volume.json` written here.
const FORMAT: u32 = 1;
/// The line of `volume.json` that the others are checked against.
const CHECK: &str = "check";
const UNFINISHED: &str = ".unfinished";
/// Longest name of a volume, in characters.
const NAME_MAX_CHARS: usize = 64;

/// One volume of this home.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Layout of this file.
    pub format: u32,
    /// The volume, the same on every peer.
    #[serde(with = "hexadecimal")]
    pub id: VolumeId,
    /// The key by which its peers know this home.
    #[serde(default, with = "hexadecimal::optional")]
    pub me: Option<PeerId>,
    /// Its name here.
    pub name: String,
    /// The directory of its plain files.
    pub backing: PathBuf,
    /// When contents come here.
    #[serde(default)]
    pub policy: Policy,
    /// Where it is mounted; `None` for a volume without a mount.
    pub mount: Option<PathBuf>,
    /// This replica's number.
    pub slot: Slot,
    /// The number the next peer that joins here gets.
    pub next_slot: Slot,
    /// Where peers reach this volume; `None` if this home only dials.
    pub listen: Option<SocketAddr>,
    /// The other replicas.
    pub peers: Vec<PeerRecord>,
}

/// One other replica.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerRecord {
    /// Its key.
    #[serde(with = "hexadecimal")]
    pub id: PeerId,
    /// Its host's name.
    pub name: String,
    /// Its replica's number.
    pub slot: Slot,
    /// Where to dial it; empty for a peer that dials us.
    pub addrs: Vec<SocketAddr>,
}

impl VolumeRecord {
    /// A volume without peers.
    pub fn new(id: VolumeId, name: String, backing: PathBuf, slot: Slot) -> Self {
        VolumeRecord {
            format: FORMAT,
            id,
            me: None,
            name,
            backing,
            policy: Policy::default(),
            mount: None,
            slot,
            next_slot: Slot(slot.0 + 1),
            listen: None,
            peers: Vec::new(),
        }
    }

    /// Where its user sees it: its mount, or the plain directory without one.
    pub fn shown_at(&self) -> &Path {
        self.mount.as_deref().unwrap_or(&self.backing)
    }

    /// Makes this the record that the next start finds.
    pub fn save(&self, home: &Home) -> Outcome<()> {
        let path = path(home, self.id);
        let value = self.checked().map_err(|e| {
            Failure::failed(format!("cannot write {}: {e}", path.display()), "use other names")
        })?;
        durable::write_json(&path, &value)
    }

    /// What its file says, with the line that the others are checked against.
    pub(crate) fn checked(&self) -> serde_json::Result<Value> {
        let mut value = serde_json::to_value(self)?;
        value[CHECK] = check(&value).into();
        Ok(value)
    }

    /// The record of `id`, `None` if the home has none.
    pub fn load(home: &Home, id: VolumeId) -> Outcome<Option<Self>> {
        let path = path(home, id);
        let value: Option<Value> = durable::read_json(&path, &way_out(home, id))?;
        let record = value.map(unaltered::<Self>).transpose().map_err(|why| {
            Failure::failed(format!("{} is damaged: {why}", path.display()), way_out(home, id))
        })?;
        match record {
            Some(r) if r.format != FORMAT => Err(Failure::failed(
                format!("{} was written by a newer Lockstep", path.display()),
                "install that version again",
            )),
            Some(r) if r.id != id => Err(Failure::failed(
                format!("{} is about another volume, {}", path.display(), r.id),
                "move it back to where it was",
            )),
            record => Ok(record),
        }
    }

    /// The failure of a home that knows of `id` and has no record of it.
    pub fn missing(home: &Home, id: VolumeId) -> Failure {
        Failure::failed(format!("{} is missing", path(home, id).display()), way_out(home, id))
    }
}

/// What `value` says, if it was not altered since it was written. A number that has changed would be
/// another replica's, and no error. Who alters the file by hand takes the line away.
pub(crate) fn unaltered<T: DeserializeOwned>(mut value: Value) -> Result<T, String> {
    let written = value.as_object_mut().and_then(|object| object.remove(CHECK));
    if written.is_some_and(|written| written != check(&value)) {
        return Err(format!("it was altered since it was written (its `{CHECK}` does not match)"));
    }
    serde_json::from_value(value).map_err(|e| e.to_string())
}

fn check(value: &Value) -> String {
    blake3::hash(value.to_string().as_bytes()).to_hex()[..16].to_owned()
}

fn path(home: &Home, id: VolumeId) -> PathBuf {
    home.volume(id).join("volume.json")
}

/// The volumes that `home` has, and those whose making was cut short.
pub fn remembered(home: &Home) -> Outcome<BTreeSet<VolumeId>> {
    let dir = home.volumes();
    let failed = |e| Failure::io("read", &dir, &e, "see that its owner may read it");
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.map_err(failed)?,
    };
    let names = entries.map(|entry| entry.map(|e| e.file_name())).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(failed)?;
    let id = |name: &OsString| {
        let name = name.to_str()?;
        volume_id(name.strip_suffix(UNFINISHED).unwrap_or(name))
    };
    Ok(names.iter().filter_map(id).collect())
}

/// There from before the directory of the volume `id` is made until it has its record: a directory
/// without both has lost its record.
pub fn unfinished(home: &Home, id: VolumeId) -> PathBuf {
    home.volumes().join(format!("{id}{UNFINISHED}"))
}

/// What to do about a record that cannot be read: only it knows where the volume's files are.
fn way_out(home: &Home, id: VolumeId) -> String {
    format!(
        "restore it from a backup, or move {} away and share or join the directory again; then \
         `lockstep start`",
        home.volume(id).display()
    )
}

/// Why `name` cannot be a volume's name, if it cannot.
pub fn check_name(name: &str) -> Outcome<()> {
    let reason = if name.trim().is_empty() {
        "it is empty"
    } else if name.chars().count() > NAME_MAX_CHARS {
        "it is longer than 64 characters"
    } else if name.contains('/') || name.chars().any(char::is_control) || name.starts_with('-') {
        "it may not start with '-' nor contain '/' or control characters"
    } else {
        return Ok(());
    };
    let message = format!("\"{}\" cannot name a volume: {reason}", name.escape_debug());
    Err(Failure::usage(message, "choose one with --name VOLUME"))
}

/// The volume whose id is these 32 hexadecimal digits.
pub fn volume_id(text: &str) -> Option<VolumeId> {
    hexadecimal::parse(text).map(VolumeId)
}

/// Ids as hexadecimal text.
mod hexadecimal {
    use super::{PeerId, VolumeId};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;

    pub trait FromBytes: Sized {
        fn from_hexadecimal(text: &str) -> Option<Self>;
    }

    impl FromBytes for PeerId {
        fn from_hexadecimal(text: &str) -> Option<Self> {
            parse(text).map(PeerId)
        }
    }

    impl FromBytes for VolumeId {
        fn from_hexadecimal(text: &str) -> Option<Self> {
            parse(text).map(VolumeId)
        }
    }

    pub fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() || pairs.len() != N {
            return None;
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            *byte = u8::try_from(high? * 16 + low?).expect("two hexadecimal digits");
        }
        Some(bytes)
    }

    pub fn serialize<T: Display, S: Serializer>(id: &T, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(id)
    }

    /// An id that may be missing.
    pub mod optional {
        use super::FromBytes;
        use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
        use std::fmt::Display;

        pub fn serialize<T: Display, S: Serializer>(
            id: &Option<T>,
            out: S,
        ) -> Result<S::Ok, S::Error> {
            id.as_ref().map(ToString::to_string).serialize(out)
        }

        pub fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
        where
            T: FromBytes,
            D: Deserializer<'de>,
        {
            let text = Option::<String>::deserialize(from)?;
            let id = |text: String| T::from_hexadecimal(&text);
            text.map(|text| id(text).ok_or_else(|| D::Error::custom("not an id"))).transpose()
        }
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromBytes,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(from)?;
        T::from_hexadecimal(&text).ok_or_else(|| D::Error::custom("not an id"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_file() {
        let dir = std::env::temp_dir().join(format!("lockstep-record-{}", std::process::id()));
        let home = Home::locate(Some(&dir)).unwrap();
        let id = VolumeId([0xab; 16]);
        std::fs::create_dir_all(home.volume(id)).unwrap();
        assert_eq!(VolumeRecord::load(&home, id), Ok(None));

        let mut record = VolumeRecord::new(id, "notes".into(), "/b".into(), Slot(1));
        record.peers.push(PeerRecord {
            id: PeerId([7; 32]),
            name: "laptop".into(),
            slot: Slot(2),
            addrs: vec!["[::1]:4".parse().unwrap()],
        });
        record.save(&home).unwrap();
        let text = std::fs::read_to_string(home.volume(id).join("volume.json")).unwrap();
        assert!(text.contains(&"ab".repeat(16)), "{text}");
        assert_eq!(VolumeRecord::load(&home, id), Ok(Some(record.clone())));

        let path = home.volume(id).join("volume.json");
        let altered = text.replace("\"slot\": 2", "\"slot\": 3");
        assert_ne!(altered, text);
        std::fs::write(&path, &altered).unwrap();
        let refusal = VolumeRecord::load(&home, id).unwrap_err();
        assert!(refusal.message().contains("volume.json is damaged: it was altered"), "{refusal}");
        let by_hand: Vec<&str> =
            altered.lines().filter(|line| !line.contains("\"check\"")).collect();
        std::fs::write(&path, by_hand.join("\n").replacen(",\n}", "\n}", 1)).unwrap();
        record.peers[0].slot = Slot(3);
        assert_eq!(VolumeRecord::load(&home, id), Ok(Some(record)));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn ids_are_read_back_and_nothing_else_is() {
        assert_eq!(volume_id(&"0f".repeat(16)), Some(VolumeId([0x0f; 16])));
        for bad in ["", "0f", &"0g".repeat(16), &"0f".repeat(17), &"é".repeat(16)] {
            assert_eq!(volume_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_that_would_confuse_a_terminal_or_a_path_are_refused() {
        for bad in ["", " ", "a/b", "a\x1b[31m", "-x", &"n".repeat(65)] {
            assert_eq!(check_name(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
        for good in ["notes", "my notes", "Ümläut", "..."] {
            assert_eq!(check_name(good), Ok(()), "{good:?}");
        }
    }
}
