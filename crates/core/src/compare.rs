//! Finding what differs between two replicas without telling what is equal: the nodes in the order
//! of their ids, summed up by ranges. Ranges with equal sums are equal; others are split, down to
//! lists of nodes.

use crate::ids::NodeId;
use std::collections::BTreeSet;
use std::ops::Deref;

/// 128 bits of a hash over a node's state.
pub type Digest = u128;

/// Nodes of a range that are listed rather than split.
pub const LISTED_MAX: usize = 64;
/// Ranges that one is split into.
pub const SPLIT_INTO: usize = 16;
/// Ranges asked about at once.
pub const ASKED_MAX: usize = 32;

/// Consecutive node ids, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeRange {
    /// First id.
    pub first: NodeId,
    /// Last id.
    pub last: NodeId,
}

impl NodeRange {
    /// All ids.
    pub const ALL: NodeRange = NodeRange { first: NodeId(0), last: NodeId(u64::MAX) };
}

/// What is in a range, summed up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The range.
    pub range: NodeRange,
    /// Nodes in it.
    pub nodes: u32,
    /// Sum of their digests.
    pub sum: Digest,
}

/// What is in a range, in parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// All its nodes.
    Listed(Vec<(NodeId, Digest)>),
    /// Ranges that together are the range, in order; at least two.
    Split(Vec<Summary>),
}

/// A peer's answer does not fit the question.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer's summary of its state does not cover what was asked")]
pub struct Misfit;

/// The digests of a replica's nodes at one moment.
#[derive(Clone, Debug)]
pub struct DigestIndex {
    ids: Vec<NodeId>,
    /// Sums of all digests before each node; one more than there are nodes.
    sums: Vec<Digest>,
}

impl DigestIndex {
    /// Indexes `nodes`, in any order, each id once.
    pub fn new(mut nodes: Vec<(NodeId, Digest)>) -> Self {
        nodes.sort_unstable();
        let mut sums: Vec<Digest> = vec![0];
        for (_, digest) in &nodes {
            sums.push(sums[sums.len() - 1].wrapping_add(*digest));
        }
        DigestIndex { ids: nodes.into_iter().map(|(id, _)| id).collect(), sums }
    }

    /// The digest of one node.
    pub fn digest(&self, node: NodeId) -> Option<Digest> {
        self.ids.binary_search(&node).ok().map(|at| self.sums[at + 1].wrapping_sub(self.sums[at]))
    }

    fn span(&self, range: NodeRange) -> (usize, usize) {
        let from = self.ids.partition_point(|id| *id < range.first);
        let to = self.ids.partition_point(|id| *id <= range.last);
        (from, to.max(from))
    }

    fn summary(&self, range: NodeRange) -> Summary {
        let (from, to) = self.span(range);
        let sum = self.sums[to].wrapping_sub(self.sums[from]);
        Summary { range, nodes: (to - from) as u32, sum }
    }

    /// What is in `range`.
    pub fn part(&self, range: NodeRange) -> Part {
        let (from, to) = self.span(range);
        if to - from <= LISTED_MAX {
            let digest = |at: usize| self.sums[at + 1].wrapping_sub(self.sums[at]);
            return Part::Listed((from..to).map(|at| (self.ids[at], digest(at))).collect());
        }
        let mut first = range.first;
        let cut = |part: usize| from + (to - from) * part / SPLIT_INTO;
        let ranges = (1..=SPLIT_INTO).map(|part| {
            let last = match part {
                SPLIT_INTO => range.last,
                _ => NodeId(self.ids[cut(part)].0 - 1),
            };
            let range = NodeRange { first, last };
            first = NodeId(last.0.wrapping_add(1));
            range
        });
        Part::Split(ranges.map(|range| self.summary(range)).collect())
    }
}

/// One replica's side of finding out where a peer differs.
#[derive(Debug)]
pub struct Comparison<I> {
    index: I,
    open: Vec<NodeRange>,
    /// Nodes here that the peer lacks or has otherwise.
    pub differing: BTreeSet<NodeId>,
    /// Nodes that only the peer has.
    pub only_there: Vec<NodeId>,
}

impl<I: Deref<Target = DigestIndex>> Comparison<I> {
    /// Starts with everything.
    pub fn new(index: I) -> Self {
        let open = vec![NodeRange::ALL];
        Comparison { index, open, differing: BTreeSet::new(), only_there: Vec::new() }
    }

    /// The ranges to ask the peer about next; none: all is known.
    pub fn ask(&mut self) -> Vec<NodeRange> {
        self.open.split_off(self.open.len().saturating_sub(ASKED_MAX))
    }

    /// Takes in what the peer answered about `asked`.
    pub fn answer(&mut self, asked: &[NodeRange], parts: &[Part]) -> Result<(), Misfit> {
        if asked.len() != parts.len() {
            return Err(Misfit);
        }
        for (range, part) in asked.iter().zip(parts) {
            match part {
                Part::Listed(nodes) => self.listed(*range, nodes)?,
                Part::Split(parts) => self.split(*range, parts)?,
            }
        }
        Ok(())
    }

    fn listed(&mut self, range: NodeRange, theirs: &[(NodeId, Digest)]) -> Result<(), Misfit> {
        let (from, to) = self.index.span(range);
        let mut here: BTreeSet<NodeId> = self.index.ids[from..to].iter().copied().collect();
        for (node, digest) in theirs {
            if *node < range.first || *node > range.last {
                return Err(Misfit);
            }
            match self.index.digest(*node) {
                None => self.only_there.push(*node),
                Some(ours) if ours == *digest => drop(here.remove(node)),
                Some(_) => {}
            }
        }
        self.differing.extend(here);
        Ok(())
    }

    fn split(&mut self, range: NodeRange, parts: &[Summary]) -> Result<(), Misfit> {
        let mut first = Some(range.first);
        for part in parts {
            if first != Some(part.range.first) || part.range.last < part.range.first {
                return Err(Misfit);
            }
            first = part.range.last.0.checked_add(1).map(NodeId);
        }
        let covers = parts.last().is_some_and(|part| part.range.last == range.last);
        if !covers || parts.len() < 2 {
            return Err(Misfit);
        }
        let unlike = parts.iter().filter(|part| self.index.summary(part.range) != **part);
        let unlike: Vec<NodeRange> = unlike.map(|part| part.range).collect();
        self.open.extend(unlike);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slot;

    fn nodes(count: u64) -> Vec<(NodeId, Digest)> {
        let digest =
            |n: u64| u128::from(n + 7).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        (1..=count).map(|n| (NodeId::new(Slot(1), n * 3), digest(n))).collect()
    }

    /// The comparison and the number of nodes and summaries that were told.
    fn compare(ours: &DigestIndex, theirs: &DigestIndex) -> (BTreeSet<NodeId>, Vec<NodeId>, usize) {
        let (mut comparison, mut told) = (Comparison::new(ours), 0);
        loop {
            let asked = comparison.ask();
            if asked.is_empty() {
                return (comparison.differing, comparison.only_there, told);
            }
            assert!(asked.len() <= ASKED_MAX);
            let parts: Vec<Part> = asked.iter().map(|range| theirs.part(*range)).collect();
            told += parts.iter().fold(0, |sum, part| match part {
                Part::Listed(nodes) => sum + nodes.len(),
                Part::Split(parts) => sum + parts.len(),
            });
            comparison.answer(&asked, &parts).expect("an honest answer fits");
        }
    }

    #[test]
    fn equal_replicas_tell_one_split() {
        let index = DigestIndex::new(nodes(20_000));
        assert_eq!(compare(&index, &index), (BTreeSet::new(), Vec::new(), SPLIT_INTO));
    }

    #[test]
    fn exactly_what_differs_is_found_at_the_cost_of_what_differs() {
        let ours = nodes(20_000);
        let mut theirs = ours.clone();
        let removed_there = theirs.remove(15_000).0;
        theirs[100].1 ^= 1;
        let edited = theirs[100].0;
        let new_there = NodeId::new(Slot(2), 5);
        theirs.push((new_there, 9));
        let (differing, only_there, told) =
            compare(&DigestIndex::new(ours), &DigestIndex::new(theirs));
        assert_eq!(differing, BTreeSet::from([edited, removed_there]));
        assert_eq!(only_there, [new_there]);
        assert!(told < 500, "{told} nodes and summaries told");
    }

    #[test]
    fn against_nothing_everything_differs() {
        let (all, none) = (DigestIndex::new(nodes(1000)), DigestIndex::new(Vec::new()));
        assert_eq!(compare(&all, &none).0.len(), 1000);
        assert_eq!(compare(&none, &all).1.len(), 1000);
    }

    #[test]
    fn answers_that_do_not_cover_the_question_are_refused() {
        let index = DigestIndex::new(nodes(100));
        let summary = |first, last| Summary {
            range: NodeRange { first: NodeId(first), last: NodeId(last) },
            nodes: 1,
            sum: 1,
        };
        for parts in [
            vec![],
            vec![summary(0, u64::MAX)],
            vec![summary(0, 5), summary(7, u64::MAX)],
            vec![summary(0, 5), summary(6, 9)],
            vec![summary(0, u64::MAX), summary(0, u64::MAX)],
        ] {
            let mut comparison = Comparison::new(&index);
            let asked = comparison.ask();
            assert_eq!(comparison.answer(&asked, &[Part::Split(parts)]), Err(Misfit));
        }
        let mut comparison = Comparison::new(&index);
        assert_eq!(comparison.answer(&comparison.open.clone(), &[]), Err(Misfit));
    }
}
