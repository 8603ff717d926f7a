//! What changes have said of a node's names: which were given, which were taken, by which version.
//! From this alone follows which names the node has, so the order in which changes arrive does not
//! matter.
//!
//! - A file has every name whose newest change gave it. If none is left, the name taken last comes
//!   back, unless whoever removed the file had seen its newest content (edit beats delete).
//! - A directory has one name: where the newest move put it. Removed, it stays for as long as
//!   something is in it.

use super::node::{Node, NodeBody};
use super::state::Name;
use crate::ids::{NodeId, Version};
use crate::name::EntryName;
use crate::planted::{self, Bug};
use serde::{Deserialize, Serialize};

/// One name of a node. A directory has one claim, which moves with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    pub parent: NodeId,
    pub name: EntryName,
    /// Newest change that gave the name.
    pub given: Version,
    /// Newest change that took it; the default if none did.
    pub taken: Version,
}

/// All that is known of a node's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub names: Vec<Claim>,
    /// Newest content that somebody had seen who removed the node, not just one of its names.
    pub removed_at: Version,
}

impl Claim {
    pub(super) fn stands(&self) -> bool {
        self.given >= self.taken
            || planted::has(Bug::IgnoreTaken)
                && self.given > Version::default()
                && self.given.slot != self.taken.slot
    }

    fn is_at(&self, parent: NodeId, name: &EntryName) -> bool {
        self.parent == parent && self.name == *name
    }
}

impl Claims {
    /// `version` gives a name.
    pub(super) fn give(&mut self, parent: NodeId, name: &EntryName, version: Version, dir: bool) {
        let known = match dir {
            true => self.names.first_mut(),
            false => self.names.iter_mut().find(|claim| claim.is_at(parent, name)),
        };
        match known {
            Some(claim) if version > claim.given => {
                (claim.parent, claim.name, claim.given) = (parent, name.clone(), version);
            }
            Some(_) => {}
            None => self.names.push(Claim {
                parent,
                name: name.clone(),
                given: version,
                taken: Version::default(),
            }),
        }
    }

    /// `version` takes a name. A directory is removed wherever it is.
    pub(super) fn take(&mut self, parent: NodeId, name: &EntryName, version: Version, dir: bool) {
        let known = match dir {
            true => self.names.first_mut(),
            false => self.names.iter_mut().find(|claim| claim.is_at(parent, name)),
        };
        match known {
            Some(claim) => claim.taken = claim.taken.max(version),
            None => self.names.push(Claim {
                parent,
                name: name.clone(),
                given: Version::default(),
                taken: version,
            }),
        }
    }

    /// A name stands again, whatever took it.
    pub(super) fn clear_taken(&mut self, parent: NodeId, name: &EntryName) {
        for claim in self.names.iter_mut().filter(|claim| claim.is_at(parent, name)) {
            claim.taken = Version::default();
        }
    }

    /// Each of two replicas shows a file under a name that the other saw taken: the name given last
    /// stands again. Both choose from the same names, so both choose the same, whoever hears first.
    pub(super) fn keep_one(&mut self, shown: impl Iterator<Item = Name>) {
        if let Some((parent, name, given)) = shown.max_by(|a, b| (a.2, a).cmp(&(b.2, b))) {
            self.give(parent, &name, given, false);
            self.clear_taken(parent, &name);
        }
    }

    /// The names of a node, not a directory, whose newest content is `content`.
    pub(super) fn standing(&self, content: Version) -> Vec<&Claim> {
        let standing: Vec<&Claim> = self.names.iter().filter(|claim| claim.stands()).collect();
        if !standing.is_empty() || self.removed_at >= content {
            return standing;
        }
        self.taken_last().into_iter().collect()
    }

    fn taken_last(&self) -> Option<&Claim> {
        self.names.iter().max_by_key(|claim| (claim.taken, claim.parent, claim.name.clone()))
    }
}

impl Node {
    /// The name, with its directory, that a removed file has again once an edit brings it back.
    pub fn name_taken_last(&self) -> Option<(NodeId, EntryName)> {
        self.claims().taken_last().map(|claim| (claim.parent, claim.name.clone()))
    }

    /// What is known of the node's names; without a history, what its links say.
    pub(super) fn claims(&self) -> Claims {
        self.history.as_deref().cloned().unwrap_or_else(|| self.plain_claims())
    }

    /// The same, to be changed.
    pub(super) fn claims_mut(&mut self) -> &mut Claims {
        if self.history.is_none() {
            self.history = Some(Box::new(self.plain_claims()));
        }
        self.history.as_mut().expect("set above")
    }

    fn plain_claims(&self) -> Claims {
        let plain = |link: &super::Link| Claim {
            parent: link.parent,
            name: link.name.clone(),
            given: link.version,
            taken: Version::default(),
        };
        Claims { names: self.links.iter().map(plain).collect(), removed_at: Version::default() }
    }

    /// A directory's place as its authors have it, and whether it stands by itself.
    pub(super) fn dir_claim(&self) -> Option<(NodeId, EntryName, Version, bool)> {
        match &self.history {
            Some(claims) => {
                let claim = claims.names.first()?;
                Some((claim.parent, claim.name.clone(), claim.given, claim.stands()))
            }
            None => {
                let link = self.links.first()?;
                Some((link.parent, link.name.clone(), link.version, true))
            }
        }
    }

    /// Drops what can never matter again. Whether a history is left.
    pub(super) fn compact_claims(&mut self) -> bool {
        let content = self.content_version();
        let is_file = matches!(self.body, NodeBody::File(_));
        let plain = self.plain_claims();
        let Some(claims) = &mut self.history else { return false };
        if planted::has(Bug::ForgetTaken) && claims.names.iter().any(Claim::stands) {
            claims.names.retain(Claim::stands);
        }
        for claim in claims.names.iter_mut().filter(|claim| claim.stands()) {
            claim.taken = Version::default();
        }
        if is_file && claims.removed_at < content {
            claims.removed_at = Version::default();
        }
        let is_plain = claims.removed_at == Version::default()
            && claims.names.len() == plain.names.len()
            && claims.names.iter().all(|claim| plain.names.contains(claim));
        if is_plain {
            self.history = None;
        }
        self.history.is_some()
    }

    /// Every replica has every change: names taken once are not given back by an older change. What
    /// still decides how the node is shown stays.
    pub(super) fn forget_taken_names(&mut self) {
        if let Some(claims) = &mut self.history
            && claims.names.iter().any(Claim::stands)
        {
            claims.names.retain(Claim::stands);
        }
        self.compact_claims();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slot;

    #[test]
    fn of_names_that_each_saw_taken_both_keep_the_one_given_last() {
        let version = |lamport, slot| Version { lamport, slot: Slot(slot) };
        let name = |text: &str| EntryName::new(text.as_bytes()).expect("valid");
        let (first, last) = (version(5, 1), version(6, 2));
        let shown = [(NodeId::ROOT, name("one"), first), (NodeId::ROOT, name("two"), last)];
        for order in [[0, 1], [1, 0]] {
            let mut claims = Claims::default();
            for at in order {
                claims.give(NodeId::ROOT, &shown[at].1, shown[at].2, false);
                claims.take(NodeId::ROOT, &shown[at].1, version(9, 1), false);
            }
            assert!(!claims.names.iter().any(Claim::stands));
            claims.keep_one(order.iter().map(|at| shown[*at].clone()));
            let standing: Vec<&EntryName> =
                claims.names.iter().filter(|c| c.stands()).map(|c| &c.name).collect();
            assert_eq!(standing, [&name("two")]);
        }
    }
}
