//! Which chunks lie where: the manifests of contents that are here, and an index from the hash of
//! a chunk to the files that hold it.
//!
//! Everything here is a hint. Bytes found through it are compared with their hash before they
//! count, so a row that no longer tells the truth costs a look, never a wrong byte. The rows live
//! in the database, not in memory, whatever the number of files.

use super::error::Fault;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use lockstep_core::{ContentHash, ContentRef, Manifest, NodeId};

/// Chunks written or removed in one batch.
const BATCH_CHUNKS: usize = 2048;
/// Bytes of a chunk's hash in the index: enough that others rarely share them.
const PREFIX_BYTES: usize = 16;

/// A content of a node, complete or on its way: the file that holds it, wherever that stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Holding {
    /// The file.
    pub node: NodeId,
    /// The beginning of the content's hash.
    pub content: [u8; 8],
}

/// Where a chunk may lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whereabouts {
    /// The file.
    pub holding: Holding,
    /// Offset of the chunk's first byte in it.
    pub offset_bytes: u64,
}

impl Holding {
    /// `content` of `node`.
    pub fn new(node: NodeId, content: &ContentRef) -> Holding {
        let content = content.hash.0.first_chunk().copied().unwrap_or_default();
        Holding { node, content }
    }

    pub(super) fn key(&self) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.node.0.to_be_bytes());
        key[8..].copy_from_slice(&self.content);
        key
    }

    pub(super) fn of_key(key: &[u8]) -> Option<Holding> {
        let (node, content) = key.split_first_chunk::<8>()?;
        let node = NodeId(u64::from_be_bytes(*node));
        Some(Holding { node, content: content.try_into().ok()? })
    }
}

/// The two keyspaces.
pub(super) struct Holdings {
    manifests: Keyspace,
    chunks: Keyspace,
}

impl Holdings {
    pub(super) fn open(
        db: &Database,
        options: impl Fn() -> KeyspaceCreateOptions,
    ) -> fjall::Result<Holdings> {
        Ok(Holdings {
            manifests: db.keyspace("manifests", &options)?,
            chunks: db.keyspace("chunks", &options)?,
        })
    }

    /// Writes down what `content` of a node consists of.
    pub(super) fn hold(
        &self,
        db: &Database,
        holding: Holding,
        content: &ContentRef,
        manifest: &Manifest,
    ) -> Result<(), Fault> {
        // Backwards: of equal chunks the first is found, which a transfer reaches first.
        let mut offset = manifest.size_bytes();
        for (number, part) in manifest.chunks.chunks(BATCH_CHUNKS).enumerate().rev() {
            let mut write = db.batch().durability(Some(PersistMode::Buffer));
            for chunk in part.iter().rev() {
                offset -= u64::from(chunk.len_bytes);
                let at = offset.to_be_bytes();
                write.insert(&self.chunks, chunk_key(&chunk.hash, &holding), at.as_slice());
            }
            let records = Manifest { chunks: part.to_vec() }.encode();
            write.insert(&self.manifests, part_key(&holding, number), records);
            write.commit()?;
        }
        let mut value = content.size_bytes.to_be_bytes().to_vec();
        value.extend_from_slice(&content.hash.0);
        let mut write = db.batch().durability(Some(PersistMode::Buffer));
        // The whole content is found by its own name, as if it were a chunk.
        let key = chunk_key(&content.hash.0, &holding);
        write.insert(&self.chunks, key, 0u64.to_be_bytes().as_slice());
        write.insert(&self.manifests, holding.key(), value);
        Ok(write.commit()?)
    }

    /// Forgets a holding.
    pub(super) fn release(&self, db: &Database, holding: Holding) -> Result<(), Fault> {
        let Some((content, manifest)) = self.read(holding)? else { return Ok(()) };
        let mut write = db.batch().durability(Some(PersistMode::Buffer));
        write.remove(&self.manifests, holding.key());
        write.remove(&self.chunks, chunk_key(&content.hash.0, &holding));
        write.commit()?;
        for (number, part) in manifest.chunks.chunks(BATCH_CHUNKS).enumerate() {
            let mut write = db.batch().durability(Some(PersistMode::Buffer));
            write.remove(&self.manifests, part_key(&holding, number));
            for chunk in part {
                write.remove(&self.chunks, chunk_key(&chunk.hash, &holding));
            }
            write.commit()?;
        }
        Ok(())
    }

    /// All contents of `node`.
    pub(super) fn of(&self, node: NodeId) -> Result<Vec<Holding>, Fault> {
        let mut found = Vec::new();
        for entry in self.manifests.prefix(node.0.to_be_bytes()) {
            found.extend(Holding::of_key(&entry.key()?));
        }
        Ok(found)
    }

    /// A content with its chunks.
    pub(super) fn read(&self, holding: Holding) -> Result<Option<(ContentRef, Manifest)>, Fault> {
        let Some(value) = self.manifests.get(holding.key())? else { return Ok(None) };
        let Some(content) = decode(&value) else { return Ok(None) };
        let mut manifest = Manifest::default();
        for part in self.manifests.range(part_key(&holding, 0)..=part_key(&holding, usize::MAX)) {
            let (_, records) = part.into_inner()?;
            let Some(part) = Manifest::decode(&records) else { return Ok(None) };
            manifest.chunks.extend(part.chunks);
        }
        Ok(Some((content, manifest)))
    }

    /// Where a chunk, or a whole content, may lie: at most `max` places.
    pub(super) fn find(&self, hash: &[u8; 32], max: usize) -> Result<Vec<Whereabouts>, Fault> {
        let mut found = Vec::new();
        for entry in self.chunks.prefix(&hash[..PREFIX_BYTES]).take(max) {
            let (key, value) = entry.into_inner()?;
            let holding = key.get(PREFIX_BYTES..).and_then(Holding::of_key);
            let offset: Option<[u8; 8]> = value.as_ref().try_into().ok();
            if let (Some(holding), Some(offset)) = (holding, offset) {
                found.push(Whereabouts { holding, offset_bytes: u64::from_be_bytes(offset) });
            }
        }
        Ok(found)
    }
}

fn chunk_key(hash: &[u8; 32], holding: &Holding) -> [u8; PREFIX_BYTES + 16] {
    let mut key = [0; PREFIX_BYTES + 16];
    key[..PREFIX_BYTES].copy_from_slice(&hash[..PREFIX_BYTES]);
    key[PREFIX_BYTES..].copy_from_slice(&holding.key());
    key
}

/// A manifest is stored in parts of [`BATCH_CHUNKS`] chunks.
fn part_key(holding: &Holding, number: usize) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&holding.key());
    key[16..].copy_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
    key
}

pub(super) fn decode(value: &[u8]) -> Option<ContentRef> {
    let (size, hash) = value.split_first_chunk::<8>()?;
    let hash = hash.try_into().ok()?;
    Some(ContentRef { size_bytes: u64::from_be_bytes(*size), hash: ContentHash(hash) })
}
