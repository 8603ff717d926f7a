//! Warnings that strangers can cause: each is said once a minute at most, so that nobody can fill
//! our log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(60);

/// When each warning was last said.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    said: Mutex<HashMap<String, Instant>>,
}

impl Quiet {
    /// Warns, unless the same was said within the last minute. `text` must be one of few.
    pub(crate) fn warn(&self, text: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if said.get(text).is_some_and(|at| now.duration_since(*at) < PAUSE) {
            return;
        }
        said.insert(text.to_owned(), now);
        drop(said);
        tracing::warn!("{text}");
    }
}
