// SPDX-License-Identifier: MPL-2.0
//! What is held, by age: looked at behind the frames and questions that change it, for at most a hundredth
//! of the time.

use std::time::{Duration, Instant};

use super::Shared;
use crate::Stream;
use crate::stream::Age;

/// Looking rests this many times as long as it took.
const REST: u32 = 99;

#[derive(Default)]
pub struct Ages {
    rows: Vec<Age>,
    changed: bool,
    rests_until: Option<Instant>,
}

impl Ages {
    /// The newest first, as they were a moment ago.
    pub fn rows(&self) -> &[Age] {
        &self.rows
    }

    /// They are not what they were.
    pub fn change(&mut self) {
        self.changed = true;
    }

    /// When to look again; `None` while they are what they were.
    pub fn due(&self) -> Option<Instant> {
        self.changed.then(|| self.rests_until.unwrap_or_else(Instant::now))
    }

    /// Takes what a stream said of them in so much time.
    fn set(&mut self, rows: Vec<Age>, took: Duration) {
        let rests_until = Instant::now().checked_add(took.saturating_mul(REST));
        *self = Self { rows, changed: false, rests_until };
    }
}

impl Shared {
    /// Looks at the ages of what a stream holds.
    pub fn look_at_ages(&self, stream: &Stream) {
        let began = Instant::now();
        let rows = stream.ages();
        let took = began.elapsed();
        self.settle(|queue| queue.ages.set(rows, took));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_rests_a_hundred_times_as_long_as_it_takes() {
        let mut ages = Ages::default();
        assert_eq!(ages.due(), None, "there is nothing to look at");
        ages.change();
        assert!(ages.due().is_some_and(|due| due <= Instant::now()), "the first look is at once");
        let before = Instant::now();
        ages.set(vec![Age::default()], Duration::from_secs(2));
        assert_eq!((ages.due(), ages.rows().len()), (None, 1));
        ages.change();
        assert!(ages.due().is_some_and(|due| due - before >= Duration::from_secs(198)));
    }
}
