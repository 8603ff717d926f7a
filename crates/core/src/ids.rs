//! Identities: who a peer is, which node is meant, and which of two versions is newer.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A peer's Ed25519 public key: the peer *is* its key (RFC 7250 raw public key).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub [u8; 32]);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.short())
    }
}

impl PeerId {
    /// The first eight hexadecimal digits: enough for a human to tell peers apart.
    pub fn short(&self) -> String {
        self.0[..4].iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// A volume's identity: 16 random bytes drawn when it is created.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeId(pub [u8; 16]);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A replica's number within one volume: 1 for its creator, the next free one for each that joins.
/// 0 belongs to nobody; the root directory carries it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug, Default,
)]
pub struct Slot(pub u16);

/// A file, directory or symlink; the same on every peer and across renames; shown as `st_ino`.
///
/// The high 16 bits are the slot of the replica that created the node, the low 48 its counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The volume's root directory.
    pub const ROOT: NodeId = NodeId(1);
    /// Largest counter a replica may use.
    pub const COUNTER_MAX: u64 = (1 << 48) - 1;

    /// The node numbered `counter` by the replica in `slot`.
    pub fn new(slot: Slot, counter: u64) -> Self {
        NodeId((u64::from(slot.0) << 48) | (counter & Self::COUNTER_MAX))
    }

    /// The slot of the replica that created the node.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> 48) as u16)
    }

    /// The creating replica's counter.
    pub fn counter(self) -> u64 {
        self.0 & Self::COUNTER_MAX
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.slot().0, self.counter())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A Lamport time with the replica that drew it: a total order in which a change always comes
/// after everything its author had seen.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug, Default,
)]
pub struct Version {
    /// Lamport counter.
    pub lamport: u64,
    /// Author.
    pub slot: Slot,
}

/// The gap-free number of a change in its author's log, from 1.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug, Default,
)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The number after this one.
    pub fn next(self) -> Self {
        Sequence(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_keep_slot_and_counter_apart() {
        let id = NodeId::new(Slot(7), 42);
        assert_eq!((id.slot(), id.counter()), (Slot(7), 42));
        assert_eq!(NodeId::ROOT.slot(), Slot(0));
    }

    #[test]
    fn versions_order_by_lamport_then_author() {
        let v = |lamport, slot| Version { lamport, slot: Slot(slot) };
        assert!(v(2, 1) > v(1, 9));
        assert!(v(2, 2) > v(2, 1));
    }
}
