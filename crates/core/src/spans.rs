//! A set of counter values as a few intervals.

use serde::{Deserialize, Serialize};

/// Numbers that were drawn by counting up, with gaps where a count was taken up further on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Spans {
    /// `(after, through]`, ascending, neither empty nor touching; an empty last one says how far was
    /// counted.
    spans: Vec<(u64, u64)>,
}

/// Whatever was decoded, the intervals are in order.
impl From<Vec<(u64, u64)>> for Spans {
    fn from(spans: Vec<(u64, u64)>) -> Self {
        let mut sorted = Spans::default();
        for (after, through) in spans {
            sorted.add(after, through);
            if after == through && after > sorted.newest() {
                sorted.spans.push((after, through));
            }
        }
        sorted
    }
}

impl From<Spans> for Vec<(u64, u64)> {
    fn from(spans: Spans) -> Self {
        spans.spans
    }
}

impl Spans {
    /// Intervals kept. Beyond, the oldest is forgotten: its numbers then count as not seen, which
    /// costs work and loses nothing.
    pub const SPANS_MAX: usize = 64;

    /// Whether `number` is in the set.
    pub fn contains(&self, number: u64) -> bool {
        let index = self.spans.partition_point(|(_, through)| *through < number);
        self.spans.get(index).is_some_and(|(after, _)| *after < number)
    }

    /// Adds the numbers above `after`, up to and including `through`.
    pub fn add(&mut self, after: u64, through: u64) {
        if after >= through {
            return;
        }
        let first = self.spans.partition_point(|(_, end)| *end < after);
        let last = self.spans.partition_point(|(start, _)| *start <= through);
        let joined = self.spans[first..last]
            .iter()
            .fold((after, through), |(low, high), (a, b)| (low.min(*a), high.max(*b)));
        self.spans.splice(first..last, [joined]);
        if self.spans.len() > Self::SPANS_MAX {
            self.spans.remove(0);
        }
    }

    /// Counting went on through `number`: everything since the newest number was seen too. One below
    /// that was told of before its turn counts by itself.
    pub fn extend(&mut self, number: u64) {
        let after = self.newest().min(number.saturating_sub(1));
        self.add(after, number);
    }

    /// Nothing was drawn in the gaps.
    pub fn fill(&mut self) {
        if let (Some((after, _)), Some((_, through))) = (self.spans.first(), self.spans.last()) {
            self.spans = vec![(*after, *through)];
        }
    }

    /// Takes out everything above `through`.
    pub fn cut(&mut self, through: u64) {
        self.spans.retain(|(after, _)| *after < through);
        if let Some((_, end)) = self.spans.last_mut() {
            *end = (*end).min(through);
        }
    }

    /// Takes `number` out, which stays counted.
    pub fn remove(&mut self, number: u64) {
        let index = self.spans.partition_point(|(_, through)| *through < number);
        let Some((after, through)) = self.spans.get(index).copied() else { return };
        if after < number {
            let is_last = index + 1 == self.spans.len();
            let below = Some((after, number - 1)).filter(|(low, high)| low < high);
            let above = Some((number, through)).filter(|(low, high)| low < high || is_last);
            self.spans.splice(index..=index, below.into_iter().chain(above));
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Spans) {
        other.iter().for_each(|(after, through)| self.add(after, through));
    }

    /// The largest number; 0 without any.
    pub fn newest(&self) -> u64 {
        self.spans.last().map_or(0, |(_, through)| *through)
    }

    /// The intervals, each without its first number and with its second.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.spans.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_what_a_set_of_numbers_would_be() {
        let mut state = 1u64;
        let mut roll = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let (mut spans, mut plain) = (Spans::default(), [false; 60]);
            for _ in 0..12 {
                let after = roll(60);
                let through = (after + roll(9)).min(59);
                spans.add(after, through);
                (after + 1..=through).for_each(|n| plain[n as usize] = true);
                let out = roll(60);
                spans.remove(out);
                plain[out as usize] = false;
            }
            let told: Vec<bool> = (0..60).map(|n| spans.contains(n)).collect();
            assert_eq!(told, plain, "{spans:?}");
            assert!(spans.spans.windows(2).all(|pair| pair[0].1 < pair[1].0), "{spans:?}");
            assert_eq!(Spans::from(Vec::from(spans.clone())), spans);
        }
    }

    #[test]
    fn a_number_that_comes_after_a_later_one_was_told_of_counts() {
        let mut spans = Spans::default();
        spans.extend(15);
        spans.add(17, 18);
        spans.extend(16);
        assert!(spans.contains(16) && !spans.contains(17));
        spans.extend(20);
        assert!(spans.contains(19), "a count goes on from the newest");
    }

    #[test]
    fn beyond_the_limit_the_oldest_numbers_count_as_not_seen() {
        let mut spans = Spans::default();
        (0..70).for_each(|n| spans.add(n * 10, n * 10 + 1));
        assert_eq!(spans.iter().count(), Spans::SPANS_MAX);
        assert!(!spans.contains(1) && spans.contains(691));
        spans.fill();
        assert!(spans.contains(500) && !spans.contains(1));
        spans.cut(300);
        assert!(spans.contains(300) && !spans.contains(301));
    }
}
