// SPDX-License-Identifier: MPL-2.0
//! What has been seen, as a few directions: tokens that they leave much of are new (CausalMem, 2606.25658,
//! §3.2, as the released code for LLaVA-OneVision does it).

use serde::{Deserialize, Serialize};

use super::select::best;

/// Directions shorter than this are rounding.
const NOTHING: f32 = 1e-6;
/// Rows this near to a right angle, by their cosine, stay as they are; so often all of them are looked at.
const RIGHT: f64 = 1e-12;
const SWEEPS: usize = 30;
/// What rounding leaves of a direction that tokens do not have, beside the longest.
const ROUNDING: f64 = 1e-6;
/// Why a direction that has just come is not the first to go.
const FRESH: f32 = 1.0;

/// Orthonormal directions and how much they are used of late.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Basis {
    /// `[k][C]`
    directions: Vec<Vec<f32>>,
    used: Vec<f32>,
}

impl Basis {
    pub fn is_empty(&self) -> bool {
        self.directions.is_empty()
    }

    pub fn directions(&self) -> &[Vec<f32>] {
        &self.directions
    }

    /// Begins with the directions in which these tokens, `[n, C]`, lie, the longest `most` of them.
    pub fn begin(&mut self, tokens: &[f32], dim: usize, most: usize) {
        let rows = tokens.chunks_exact(dim.max(1));
        let mut rows: Vec<Vec<f64>> =
            rows.map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
        apart(&mut rows);
        let lengths: Vec<f64> = rows.iter().map(|row| product(row, row).sqrt()).collect();
        let order: Vec<f32> = lengths.iter().map(|length| *length as f32).collect();
        let longest = lengths.iter().copied().fold(0.0, f64::max);
        for at in best(&order, most.min(dim)) {
            if let (Some(row), Some(&length)) = (rows.get(at), lengths.get(at))
                && length > ROUNDING * longest
            {
                self.directions.push(row.iter().map(|x| (x / length) as f32).collect());
                self.used.push(FRESH);
            }
        }
    }

    /// Turns to what is new. `used`: how much of each direction there is in the newest tokens, by their
    /// mean; `rest`: what the directions leave of the tokens that they leave most of, `[C]` each, most
    /// first.
    pub fn turn(&mut self, used: &[f32], rest: &[Vec<f32>], decay: f64, most: usize) {
        for (own, now) in self.used.iter_mut().zip(used) {
            *own = (decay * f64::from(*own) + (1.0 - decay) * f64::from(*now)) as f32;
        }
        // Once more, because what is left of the second is of the first's rounding.
        let mut fresh = orthonormal(rest.to_vec());
        for direction in &mut fresh {
            let shares: Vec<f32> = self.directions.iter().map(|own| dot(own, direction)).collect();
            for (own, share) in self.directions.iter().zip(shares) {
                direction.iter_mut().zip(own).for_each(|(x, own)| *x -= share * own);
            }
        }
        for direction in orthonormal(fresh) {
            self.directions.push(direction);
            self.used.push(FRESH);
        }
        if self.directions.len() > most {
            let mut order = best(&self.used, most);
            order.sort_unstable();
            self.directions =
                order.iter().map(|&at| std::mem::take(&mut self.directions[at])).collect();
            self.used = order.iter().map(|&at| self.used[at]).collect();
        }
    }
}

/// Turns pairs of rows until all are at right angles: these are the singular vectors, each as long as its
/// singular value (one-sided Jacobi; Hestenes 1958).
fn apart(rows: &mut [Vec<f64>]) {
    for _ in 0..SWEEPS {
        let mut turned = false;
        for second in 1..rows.len() {
            let (before, behind) = rows.split_at_mut(second);
            let Some(b) = behind.first_mut() else { return };
            for a in before {
                let (aa, bb, ab) = (product(a, a), product(b, b), product(a, b));
                if ab.abs() <= RIGHT * (aa * bb).sqrt() {
                    continue;
                }
                turned = true;
                let ratio = (bb - aa) / (2.0 * ab);
                let tan = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
                let cos = 1.0 / tan.hypot(1.0);
                for (a, b) in a.iter_mut().zip(b.iter_mut()) {
                    (*a, *b) = (cos * (*a - tan * *b), cos * (tan * *a + *b));
                }
            }
        }
        if !turned {
            return;
        }
    }
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>() as f32
}

/// These one after the other, each without what it shares with those before it, and of length 1; what
/// has nothing of its own goes.
fn orthonormal(vectors: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let mut found: Vec<Vec<f32>> = Vec::with_capacity(vectors.len());
    for mut vector in vectors {
        let whole = dot(&vector, &vector).sqrt();
        for _ in 0..2 {
            for own in &found {
                let share = dot(own, &vector);
                vector.iter_mut().zip(own).for_each(|(x, own)| *x -= share * own);
            }
        }
        let length = dot(&vector, &vector).sqrt();
        if length > NOTHING * whole.max(NOTHING) {
            vector.iter_mut().for_each(|x| *x /= length);
            found.push(vector);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_those_of_the_tokens_and_no_others() {
        let mut basis = Basis::default();
        // Two tokens and their sum, whichever side is longer.
        basis.begin(&[3.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 3.0, 1.0, 0.0, 0.0], 4, 8);
        assert_eq!(basis.directions().len(), 2);
        let mut tall = Basis::default();
        tall.begin(&[2.0, 0.0, 4.0, 0.0, 6.0, 0.0], 2, 8);
        assert_eq!(tall.directions().len(), 1);
        for basis in [basis, tall] {
            for (at, a) in basis.directions().iter().enumerate() {
                for (other, b) in basis.directions().iter().enumerate() {
                    let product = dot(a, b);
                    assert!((product - f32::from(u8::from(at == other))).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn what_is_not_used_goes_first() {
        let mut basis = Basis::default();
        basis.begin(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], 3, 2);
        let first = basis.directions()[0].clone();
        let used: Vec<f32> = (0..2).map(|at| f32::from(u8::from(at == 1))).collect();
        basis.turn(&used, &[vec![0.0, 0.0, 5.0]], 0.5, 2);
        assert_eq!(basis.directions().len(), 2);
        assert!(basis.directions().contains(&vec![0.0, 0.0, 1.0]));
        assert!(!basis.directions().contains(&first));
        // Nothing new.
        basis.turn(&used, &[vec![0.0, 0.0, 3.0]], 0.5, 3);
        assert_eq!(basis.directions().len(), 2);
    }
}
