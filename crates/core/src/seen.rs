//! What a replica has seen of everybody's work: the nodes and versions it knew at some time, even
//! if it has forgotten them since. With it, "I lack this node" is either "I removed it" or "I never
//! heard of it".

use crate::ids::{NodeId, Slot, Version};
use crate::spans::Spans;
use crate::tree::NodeState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Per author, the node counters and Lamport times seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Counters of nodes.
    pub nodes: BTreeMap<Slot, Spans>,
    /// Lamport times of versions.
    pub versions: BTreeMap<Slot, Spans>,
}

impl Seen {
    /// Whether `node` was known at some time.
    pub fn has_node(&self, node: NodeId) -> bool {
        node == NodeId::ROOT
            || self.nodes.get(&node.slot()).is_some_and(|spans| spans.contains(node.counter()))
    }

    /// Whether the change `version` was known at some time. Lamport time 0 (what was found in a
    /// directory) counts as seen: it comes with its node.
    pub fn has_version(&self, version: Version) -> bool {
        version.lamport == 0
            || self.versions.get(&version.slot).is_some_and(|s| s.contains(version.lamport))
    }

    /// The next change of an author was applied: it made `node`, if any.
    pub fn applied(&mut self, version: Version, made: Option<NodeId>) {
        self.versions.entry(version.slot).or_default().extend(version.lamport);
        if let Some(node) = made {
            self.nodes.entry(node.slot()).or_default().extend(node.counter());
        }
    }

    /// The change `version` counts as seen.
    pub fn saw(&mut self, version: Version) {
        if version.lamport > 0 {
            let of_author = self.versions.entry(version.slot).or_default();
            of_author.add(version.lamport - 1, version.lamport);
        }
    }

    /// A node, its content and its names count as seen.
    pub fn saw_state(&mut self, state: &NodeState) {
        let (slot, counter) = (state.node.slot(), state.node.counter());
        if state.node != NodeId::ROOT {
            self.nodes.entry(slot).or_default().add(counter.saturating_sub(1), counter);
        }
        self.saw(state.content_version);
        state.names.iter().for_each(|(.., given)| self.saw(*given));
    }

    /// The change `version` counts as not seen: what was made without knowing it has overruled it.
    pub fn overruled(&mut self, version: Version) {
        if let Some(spans) = self.versions.get_mut(&version.slot) {
            spans.remove(version.lamport);
        }
    }

    /// Whether `version` came, and was overruled by what was made without knowing it.
    pub fn has_overruled(&self, version: Version) -> bool {
        let counted = self.versions.get(&version.slot).map_or(0, Spans::newest);
        counted >= version.lamport && !self.has_version(version)
    }

    /// Everything `other` has seen is seen.
    pub fn merge(&mut self, other: &Seen) {
        for (slot, spans) in &other.nodes {
            self.nodes.entry(*slot).or_default().merge(spans);
        }
        for (slot, spans) in &other.versions {
            self.versions.entry(*slot).or_default().merge(spans);
        }
    }

    /// Nobody knows numbers of `slot` that are not here: the gaps were never drawn.
    pub fn fill(&mut self, slot: Slot) {
        let of_slot = [self.nodes.get_mut(&slot), self.versions.get_mut(&slot)];
        of_slot.into_iter().flatten().for_each(Spans::fill);
    }
}
