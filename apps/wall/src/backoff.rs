// SPDX-License-Identifier: MPL-2.0
//! How long to wait before the next try.

use std::time::Duration;

/// Waits that double with every failure, each cut by chance by up to a half, so that those who failed together
/// do not come back together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from about `first` to about `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest, failures: 0 }
    }

    /// How long to wait after one more failure.
    pub fn failed(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.longest).mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It worked: the next wait is the first again.
    pub fn worked(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for failure in 0..40 {
            let whole = Duration::from_secs(1 << failure.min(6)).min(Duration::from_secs(60));
            let wait = backoff.failed();
            assert!(wait >= whole / 2 && wait <= whole, "{failure}: {wait:?}");
        }
        backoff.worked();
        assert!(backoff.failed() <= Duration::from_secs(1));
    }
}
