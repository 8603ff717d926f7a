//! A state database in memory that loses what was not synced: after a power cut it holds a prefix
//! of its commits.

use super::power::Power;
use crate::rng::Rng;
use lockstep_core::{ContentRef, Manifest, NodeId, Sequence};
use lockstep_disk::{Holding, StateBatch, StateError, StateStore, Whereabouts};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Default)]
struct Tables {
    nodes: BTreeMap<NodeId, Vec<u8>>,
    log: BTreeMap<Sequence, Vec<u8>>,
    meta: BTreeMap<String, Vec<u8>>,
    records: BTreeMap<String, Vec<u8>>,
    held: BTreeMap<Holding, (ContentRef, Manifest)>,
}

/// What is written down at once.
enum Commit {
    Batch(Box<StateBatch>),
    Hold(Holding, ContentRef, Manifest),
    Release(Holding),
}

#[derive(Default)]
struct Core {
    live: Tables,
    durable: Tables,
    unsynced: Vec<Commit>,
    is_full: bool,
}

/// One host's state database. Clones are the same database.
#[derive(Clone)]
pub struct SimStore {
    core: Arc<Mutex<Core>>,
    power: Power,
}

impl SimStore {
    pub fn new(power: Power) -> Self {
        SimStore { core: Arc::default(), power }
    }

    pub fn set_full(&self, is_full: bool) {
        self.core().is_full = is_full;
    }

    /// The power goes.
    pub fn cut_power(&self, rng: &mut Rng) {
        let mut core = self.core();
        let kept = rng.below(core.unsynced.len() + 1);
        let commits = std::mem::take(&mut core.unsynced);
        commits.iter().take(kept).for_each(|commit| core.durable.apply(commit));
        core.live = core.durable.clone();
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> Result<T, StateError> {
        self.power.is_on().map_err(failed)?;
        Ok(look(&self.core().live))
    }

    fn write(&self, commit: Commit) -> Result<(), StateError> {
        self.power.draw().map_err(failed)?;
        let mut core = self.core();
        if core.is_full {
            return Err(failed(io::ErrorKind::StorageFull.into()));
        }
        core.live.apply(&commit);
        core.unsynced.push(commit);
        Ok(())
    }
}

fn failed(source: io::Error) -> StateError {
    StateError::Failed { dir: "simulated".into(), source: source.into() }
}

impl Tables {
    fn apply(&mut self, commit: &Commit) {
        match commit {
            Commit::Batch(batch) => self.apply_batch(batch),
            Commit::Hold(holding, content, manifest) => {
                self.held.insert(*holding, (*content, manifest.clone()));
            }
            Commit::Release(holding) => drop(self.held.remove(holding)),
        }
    }

    fn apply_batch(&mut self, batch: &StateBatch) {
        for (node, row) in &batch.nodes {
            match row {
                Some(row) => drop(self.nodes.insert(*node, row.clone())),
                None => drop(self.nodes.remove(node)),
            }
        }
        for (name, value) in &batch.records {
            match value {
                Some(value) => drop(self.records.insert(name.clone(), value.clone())),
                None => drop(self.records.remove(name)),
            }
        }
        self.meta.extend(batch.meta.iter().cloned());
        self.log.extend(batch.log.iter().cloned());
        if let Some(through) = batch.trim_log_through {
            self.log = self.log.split_off(&through.next());
        }
    }

    fn find(&self, hash: &[u8; 32], max: usize) -> Vec<Whereabouts> {
        let mut found = Vec::new();
        for (holding, (content, manifest)) in &self.held {
            let mut offset_bytes = 0;
            let mut at = (content.hash.0 == *hash).then_some(0);
            for chunk in &manifest.chunks {
                at = at.or((chunk.hash == *hash).then_some(offset_bytes));
                offset_bytes += u64::from(chunk.len_bytes);
            }
            found.extend(at.map(|at| Whereabouts { holding: *holding, offset_bytes: at }));
        }
        found.truncate(max);
        found
    }
}

impl StateStore for SimStore {
    fn commit(&self, batch: &StateBatch) -> Result<(), StateError> {
        match batch.is_empty() {
            true => Ok(()),
            false => self.write(Commit::Batch(Box::new(batch.clone()))),
        }
    }

    fn sync(&self) -> Result<(), StateError> {
        self.power.draw().map_err(failed)?;
        let mut core = self.core();
        core.unsynced.clear();
        core.durable = core.live.clone();
        Ok(())
    }

    fn load_nodes(&self) -> Result<Vec<(NodeId, Vec<u8>)>, StateError> {
        self.read(|t| t.nodes.iter().map(|(node, row)| (*node, row.clone())).collect())
    }

    fn read_log(
        &self,
        from: Sequence,
        max_entries: usize,
    ) -> Result<Vec<(Sequence, Vec<u8>)>, StateError> {
        let owned = |(seq, entry): (&Sequence, &Vec<u8>)| (*seq, entry.clone());
        self.read(|t| t.log.range(from..).take(max_entries).map(owned).collect())
    }

    fn first_log(&self) -> Result<Option<Sequence>, StateError> {
        self.read(|t| t.log.keys().next().copied())
    }

    fn last_log(&self) -> Result<Option<Sequence>, StateError> {
        self.read(|t| t.log.keys().next_back().copied())
    }

    fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.read(|t| t.meta.get(key).cloned())
    }

    fn records(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let owned = |(name, value): (&String, &Vec<u8>)| (name.clone(), value.clone());
        self.read(|t| {
            let records = t.records.iter().filter(|(name, _)| name.starts_with(prefix));
            records.map(owned).collect()
        })
    }

    fn hold(
        &self,
        holding: Holding,
        content: &ContentRef,
        manifest: &Manifest,
    ) -> Result<(), StateError> {
        self.write(Commit::Hold(holding, *content, manifest.clone()))
    }

    fn release(&self, holding: Holding) -> Result<(), StateError> {
        match self.held(holding)? {
            Some(_) => self.write(Commit::Release(holding)),
            None => Ok(()),
        }
    }

    fn holdings(&self, node: NodeId) -> Result<Vec<Holding>, StateError> {
        self.read(|t| t.held.keys().filter(|holding| holding.node == node).copied().collect())
    }

    fn held(&self, holding: Holding) -> Result<Option<(ContentRef, Manifest)>, StateError> {
        self.read(|t| t.held.get(&holding).cloned())
    }

    fn find_chunk(&self, hash: &[u8; 32], max: usize) -> Result<Vec<Whereabouts>, StateError> {
        self.read(|t| t.find(hash, max))
    }
}
