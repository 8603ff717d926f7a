//! The invite: one line that a person carries from one machine to another. It holds who to reach,
//! where, and a secret that works once.

use crate::limits::ADDRESSES_MAX;
use data_encoding::BASE32_NOPAD;
use lockstep_core::{PeerId, VolumeId};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

const PREFIX: &str = "lockstep-";
const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
/// A code longer than this was not made by us.
const CODE_CHARS_MAX: usize = 4096;
/// Longest volume name that fits.
const NAME_BYTES_MAX: usize = 255;

/// What an invite code says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invite {
    /// The volume.
    pub volume: VolumeId,
    /// Its name, cut at 255 bytes in the code.
    pub volume_name: String,
    /// Who invites.
    pub peer: PeerId,
    /// Where to reach them; at most 16 fit the code.
    pub addrs: Vec<SocketAddr>,
    /// Works once.
    pub secret: [u8; 16],
    /// When it stops working: seconds since the epoch.
    pub expires_unix_secs: u64,
}

/// Why a text is no invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteCodeError {
    /// Something else altogether.
    #[error(
        "this is not an invite code: it must start with 'lockstep-'; copy the whole line that `lockstep share` or `lockstep invite` printed"
    )]
    NotACode,
    /// A code with a typing or copying mistake.
    #[error("this invite code is damaged (a part is missing or mistyped): copy it again, whole")]
    Damaged,
    /// A code of a later format.
    #[error("this invite code comes from a newer version of Lockstep: update this one")]
    NewerVersion,
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.volume.0);
        bytes.extend_from_slice(&self.peer.0);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&self.expires_unix_secs.to_be_bytes());
        let name = cut(&self.volume_name, NAME_BYTES_MAX);
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        let addrs = &self.addrs[..self.addrs.len().min(ADDRESSES_MAX)];
        bytes.push(addrs.len() as u8);
        addrs.iter().for_each(|address| encode_address(*address, &mut bytes));
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for Invite {
    type Err = InviteCodeError;

    /// Forgiving about case and white space (a code pasted out of a wrapped line), about nothing
    /// else.
    fn from_str(text: &str) -> Result<Invite, InviteCodeError> {
        let text: String =
            text.chars().filter(|c| !c.is_whitespace()).take(CODE_CHARS_MAX).collect();
        let text = text.to_ascii_lowercase();
        let code = text.strip_prefix(PREFIX).ok_or(InviteCodeError::NotACode)?;
        let bytes = BASE32_NOPAD
            .decode(code.to_ascii_uppercase().as_bytes())
            .map_err(|_| InviteCodeError::Damaged)?;
        let (body, sum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .filter(|(body, _)| !body.is_empty())
            .ok_or(InviteCodeError::Damaged)?;
        if *sum != checksum(body) {
            return Err(InviteCodeError::Damaged);
        }
        if body[0] != FORMAT {
            return Err(InviteCodeError::NewerVersion);
        }
        Reader(&body[1..]).invite().ok_or(InviteCodeError::Damaged)
    }
}

/// What is left to read of a code.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn invite(mut self) -> Option<Invite> {
        let volume = VolumeId(self.take()?);
        let peer = PeerId(self.take()?);
        let secret = self.take()?;
        let expires_unix_secs = u64::from_be_bytes(self.take()?);
        let volume_name = self.name()?;
        let count = usize::from(self.byte()?);
        if count > ADDRESSES_MAX {
            return None;
        }
        let addrs = (0..count).map(|_| self.address()).collect::<Option<_>>()?;
        let invite = Invite { volume, volume_name, peer, addrs, secret, expires_unix_secs };
        self.0.is_empty().then_some(invite)
    }

    fn name(&mut self) -> Option<String> {
        let len = usize::from(self.byte()?);
        let (name, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        let name = std::str::from_utf8(name).ok()?;
        (!name.contains(char::is_control)).then(|| name.to_owned())
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip: IpAddr = match self.byte()? {
            4 => Ipv4Addr::from(self.take::<4>()?).into(),
            6 => Ipv6Addr::from(self.take::<16>()?).into(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(self.take()?)))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
}

fn encode_address(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("lockstep invite code checksum v1", bytes);
    *hash.first_chunk().expect("4 of 32 bytes")
}

fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        Invite {
            volume: VolumeId([7; 16]),
            volume_name: "projects ü".into(),
            peer: PeerId([9; 32]),
            addrs: vec!["192.0.2.7:26431".parse().unwrap(), "[2001:db8::1]:26431".parse().unwrap()],
            secret: [3; 16],
            expires_unix_secs: 1_900_000_000,
        }
    }

    #[test]
    fn an_invite_is_read_back_even_in_capitals_and_wrapped() {
        let code = invite().to_string();
        assert!(code.starts_with("lockstep-") && !code.contains(char::is_whitespace));
        assert_eq!(code.parse(), Ok(invite()));
        assert_eq!(code.to_uppercase().parse(), Ok(invite()));
        let wrapped = format!(" {}\n {} ", &code[..40], &code[40..]);
        assert_eq!(wrapped.parse(), Ok(invite()));
    }

    #[test]
    fn each_kind_of_bad_code_has_its_own_error() {
        let parse = |text: &str| text.parse::<Invite>();
        assert_eq!(parse("hello"), Err(InviteCodeError::NotACode));
        assert_eq!(parse(""), Err(InviteCodeError::NotACode));
        assert_eq!(parse("lockstep-"), Err(InviteCodeError::Damaged));
        assert_eq!(parse("lockstep-0189"), Err(InviteCodeError::Damaged));
        let mut newer = vec![FORMAT + 1, 1, 2, 3];
        newer.extend_from_slice(&checksum(&newer));
        let newer = format!("lockstep-{}", BASE32_NOPAD.encode(&newer));
        assert_eq!(parse(&newer), Err(InviteCodeError::NewerVersion));
    }

    #[test]
    fn every_single_mistyped_or_missing_character_is_noticed() {
        let code = invite().to_string();
        for at in "lockstep-".len()..code.len() {
            let mut typo = code.clone().into_bytes();
            typo[at] = if typo[at] == b'a' { b'b' } else { b'a' };
            let typo = String::from_utf8(typo).unwrap();
            assert_eq!(typo.parse::<Invite>(), Err(InviteCodeError::Damaged), "at {at}");
            assert_eq!(code[..at].parse::<Invite>(), Err(InviteCodeError::Damaged), "cut at {at}");
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let long = Invite { volume_name: "ü".repeat(300), ..invite() };
        let back: Invite = long.to_string().parse().unwrap();
        assert_eq!(back.volume_name, "ü".repeat(127));
    }
}
