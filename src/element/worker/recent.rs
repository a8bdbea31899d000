// SPDX-License-Identifier: MPL-2.0
//! How fast the last answers came.

use std::collections::VecDeque;
use std::time::Duration;

/// So many answers are remembered.
const MOST: usize = 512;

/// What one answer took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// From the asking to the whole answer, waiting included.
    pub answer: Duration,
    /// From the engine's beginning to the first token.
    pub first_token: Duration,
    /// All tokens behind the first one, and how long they took.
    pub tokens: usize,
    pub decode: Duration,
}

/// The newest answers.
#[derive(Clone, Debug, Default)]
pub struct Recent(VecDeque<Pace>);

impl Recent {
    pub fn add(&mut self, pace: Pace) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(pace);
    }

    /// Milliseconds within which this share of the answers came; 0, if there has been none.
    pub fn within(&self, share: f64, of: impl Fn(&Pace) -> Duration) -> f64 {
        let mut all: Vec<f64> = self.0.iter().map(|pace| 1e3 * of(pace).as_secs_f64()).collect();
        all.sort_unstable_by(f64::total_cmp);
        let rank = (share * all.len() as f64).ceil() as usize;
        all.get(rank.max(1) - 1).copied().unwrap_or(0.0)
    }

    /// Tokens a second, the first of each answer aside; 0 where there are no others.
    pub fn tokens_per_second(&self) -> f64 {
        let tokens: usize = self.0.iter().map(|pace| pace.tokens).sum();
        let took: f64 = self.0.iter().map(|pace| pace.decode.as_secs_f64()).sum();
        if tokens > 0 && took > 0.0 { tokens as f64 / took } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_newest() {
        let mut recent = Recent::default();
        let within = |recent: &Recent, share| recent.within(share, |pace| pace.answer).round();
        assert_eq!((within(&recent, 0.5), recent.tokens_per_second()), (0.0, 0.0));
        for milliseconds in (1..=100).rev() {
            let (answer, decode) = (Duration::from_millis(milliseconds), Duration::from_millis(10));
            recent.add(Pace { answer, decode, tokens: 2, ..Pace::default() });
        }
        assert_eq!((within(&recent, 0.5), within(&recent, 0.95)), (50.0, 95.0));
        assert_eq!((within(&recent, 1.0), within(&recent, 0.0)), (100.0, 1.0));
        assert!((recent.tokens_per_second() - 200.0).abs() < 1e-6);
        for _ in 0..MOST {
            recent.add(Pace { answer: Duration::from_secs(7), ..Pace::default() });
        }
        assert_eq!((within(&recent, 0.0), recent.tokens_per_second()), (7000.0, 0.0));
    }
}
