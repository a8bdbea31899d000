// SPDX-License-Identifier: MPL-2.0
//! By what angles positions turn the pairs of a row.

use std::ops::Range;

/// The frequencies of the `head_dim / 2` pairs, rounded to f32 as in transformers (a difference
/// here would grow with the position); the angles are then exact products of them.
pub(super) fn frequencies(head_dim: usize, theta: f64) -> impl Iterator<Item = f32> {
    (0..head_dim / 2).map(move |i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32))
}

/// Cosines and sines of any position, without computing each anew: those of a round number of steps, and those
/// of the few steps behind it, by the addition theorem. In double precision all along, so that what comes out
/// as f32 is what the angle's own cosine would.
pub(super) struct Angles {
    inv_freq: Vec<f32>,
    /// `[STEPS, d / 2]`, cosine and sine.
    behind: Vec<(f64, f64)>,
}

/// Steps behind a round number.
const STEPS: usize = 256;

impl Angles {
    pub fn new(inv_freq: Vec<f32>) -> Self {
        let mut angles = Self { inv_freq, behind: Vec::new() };
        angles.behind = (0..STEPS).flat_map(|position| angles.exactly(position)).collect();
        angles
    }

    /// Cosine and sine of each pair at a position, computed.
    fn exactly(&self, position: usize) -> Vec<(f64, f64)> {
        let angles = self.inv_freq.iter().map(|&freq| position as f64 * f64::from(freq));
        angles.map(|angle| (angle.cos(), angle.sin())).collect()
    }

    /// Pairs, `d / 2`.
    pub fn pairs(&self) -> usize {
        self.inv_freq.len()
    }

    /// Cosine and sine of each pair at a position.
    pub fn turn(&self, position: usize) -> Vec<(f32, f32)> {
        self.run(position..position.saturating_add(1))
    }

    /// Cosines and sines `[n, d / 2]` at these positions.
    pub fn run(&self, positions: Range<usize>) -> Vec<(f32, f32)> {
        let pairs = self.pairs();
        let mut turns = Vec::with_capacity(positions.len() * pairs);
        let mut round = (usize::MAX, Vec::new());
        for position in positions {
            let (of, behind) = (position - position % STEPS, position % STEPS);
            if round.0 != of {
                round = (of, self.exactly(of));
            }
            let behind = self.behind.iter().skip(behind * pairs);
            turns.extend(round.1.iter().zip(behind).map(|((cos, sin), (c, s))| {
                ((cos * c - sin * s) as f32, (sin * c + cos * s) as f32)
            }));
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_those_of_the_angles_themselves() {
        let angles = Angles::new(frequencies(128, 1e6).collect());
        for start in [0, 200, 16_384 - 100, 1 << 20, 400_000_011] {
            let turns = angles.run(start..start + 300);
            let exact: Vec<(f32, f32)> = (start..start + 300)
                .flat_map(|position| angles.exactly(position))
                .map(|(cos, sin)| (cos as f32, sin as f32))
                .collect();
            assert_eq!(turns.len(), exact.len());
            for (found, exact) in turns.iter().zip(&exact) {
                // The last bit of an f32 near one, where both lie beside a rounding's edge.
                assert!((found.0 - exact.0).abs() <= f32::EPSILON / 2.0, "{found:?} {exact:?}");
                assert!((found.1 - exact.1).abs() <= f32::EPSILON / 2.0, "{found:?} {exact:?}");
            }
        }
    }
}
