//! Bytes of small contents as they were announced, for as long as a peer may not have been sent
//! them: the file itself may have moved on, or be gone, by the time its change leaves.

use crate::volume::Volume;
use lockstep_core::{ContentRef, NodeId, limits};
use std::collections::{HashMap, VecDeque};

/// Bytes remembered at most, per volume; the oldest go first, and are then read from their file.
const REMEMBERED_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct InlineContents {
    contents: HashMap<ContentRef, Vec<u8>>,
    oldest: VecDeque<ContentRef>,
    total_bytes: u64,
}

impl InlineContents {
    /// Remembers what was announced.
    pub(crate) fn remember(&mut self, content: ContentRef, bytes: Vec<u8>) {
        if self.contents.insert(content, bytes).is_some() {
            return;
        }
        self.oldest.push_back(content);
        self.total_bytes += content.size_bytes;
        while self.total_bytes > REMEMBERED_MAX_BYTES {
            let Some(oldest) = self.oldest.pop_front() else { return };
            self.contents.remove(&oldest);
            self.total_bytes -= oldest.size_bytes;
        }
    }

    /// Every peer has everything.
    pub(crate) fn clear(&mut self) {
        *self = InlineContents::default();
    }
}

impl Volume {
    /// The bytes of a small content that was announced from here lately.
    pub(crate) fn remembered(&self, content: &ContentRef) -> Option<Vec<u8>> {
        self.inline_contents.lock().contents.get(content).cloned()
    }

    /// The bytes of a small content, to travel inside its change. `None` if they are not here any
    /// more: a later change says why.
    pub fn inline(&self, node: NodeId, content: ContentRef) -> Option<Vec<u8>> {
        if content.size_bytes > limits::INLINE_CONTENT_MAX_BYTES {
            return None;
        }
        if content.size_bytes == 0 {
            return Some(Vec::new());
        }
        if let Some(bytes) = self.remembered(&content) {
            return Some(bytes);
        }
        let file = self.serve(node, content).ok()?.file;
        let mut bytes = vec![0; content.size_bytes as usize];
        let read = file.read_at(&mut bytes, 0).ok()?;
        let whole = read == bytes.len();
        (whole && lockstep_disk::describe_bytes(&bytes).content == content).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_core::ContentHash;

    #[test]
    fn the_oldest_go_first_and_the_total_stays_bounded() {
        let mut inline = InlineContents::default();
        let content = |n: u8| ContentRef { size_bytes: 1 << 20, hash: ContentHash([n; 32]) };
        for n in 0..40 {
            inline.remember(content(n), Vec::new());
        }
        assert_eq!(inline.total_bytes, REMEMBERED_MAX_BYTES);
        assert!(!inline.contents.contains_key(&content(0)));
        assert!(inline.contents.contains_key(&content(39)));
    }
}
