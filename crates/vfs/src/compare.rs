//! Comparing this replica with a peer's, by digests: names, attributes, and the hashes of contents.
//!
//! Both sides go on working meanwhile, so one look proves nothing. What counts differs in every one
//! of several looks, and did not change here between them: whatever is on its way arrives.

use crate::volume::Volume;
use lockstep_core::{Comparison, DigestIndex, NodeId, NodeRange, Part};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Looks that must agree.
const LOOKS: usize = 3;

/// A node that the two sides do not have alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// The node.
    pub node: NodeId,
    /// Its path here, relative to the volume's root; `None` if only the peer has it.
    pub path: Option<PathBuf>,
}

/// Asks a peer what is in ranges of node ids there, one part for each; an error says why it did not
/// answer.
pub type Ask<'a> = dyn FnMut(&[NodeRange]) -> Result<Vec<Part>, String> + 'a;

/// What one look found: nodes, each with its digest here.
type Look = BTreeMap<NodeId, Option<u128>>;

impl Volume {
    /// Finds what differs from a peer. `ask` tells what is in ranges there; `between` is called
    /// before each further look, to let arrive what is on its way.
    ///
    /// # Errors
    ///
    /// Why the two could not be compared.
    pub fn compare(
        &self,
        ask: &mut Ask<'_>,
        between: &mut dyn FnMut() -> Result<(), String>,
    ) -> Result<Vec<Differing>, String> {
        let mut differing = self.look(ask)?;
        for _ in 1..LOOKS {
            if differing.is_empty() {
                break;
            }
            between()?;
            let again = self.look(ask)?;
            differing.retain(|node, digest| again.get(node) == Some(digest));
        }
        let state = self.read_state();
        let path = |node| state.replica.tree.path(node);
        Ok(differing.into_keys().map(|node| Differing { node, path: path(node) }).collect())
    }

    fn look(&self, ask: &mut Ask<'_>) -> Result<Look, String> {
        let index: DigestIndex = self.digests();
        let mut comparison = Comparison::new(&index);
        loop {
            let ranges = comparison.ask();
            if ranges.is_empty() {
                break;
            }
            let parts = ask(&ranges)?;
            comparison.answer(&ranges, &parts).map_err(|misfit| misfit.to_string())?;
        }
        let (here, there) = (comparison.differing, comparison.only_there);
        Ok(here.into_iter().chain(there).map(|node| (node, index.digest(node))).collect())
    }
}
