// SPDX-License-Identifier: MPL-2.0
//! Mean keys once more, in eight bits: a quarter of the bytes says of nearly all of them that they are not
//! among the best, and only what it leaves open is read whole.
//!
//! Frames of one camera are alike, so a code holds what a key is beside the mean of the keys around it.
//! How far off that is at most is known, hence what is chosen is what all keys read whole would choose.

use rayon::prelude::*;

use super::rows::{PIECE, Rows};

/// Rows that share a mean and steps.
const STRETCH: usize = 64;
const _: () = assert!(PIECE.is_multiple_of(STRETCH), "a stretch is of one piece");

/// Stretches that one thread looks through at a time.
const STRETCHES_OF_A_THREAD: usize = 32;

/// Codes of rows `[n, dim]`, as far as they fill whole stretches.
#[derive(Debug, Default)]
pub struct Coarse {
    dim: usize,
    /// `[stretches, dim]`: the mean of a stretch's rows.
    means: Vec<f32>,
    /// `[stretches, dim]`: how much a code of one is.
    steps: Vec<f32>,
    /// `[stretches, dim, STRETCH]`: a row is a column here, so that scores are summed up side by side.
    codes: Vec<i8>,
}

impl Coarse {
    /// Bytes that a row of so many numbers costs here.
    pub fn bytes_of_a_row(dim: usize) -> usize {
        dim + 2 * dim * size_of::<f32>() / STRETCH
    }

    /// Forgets the codes of the rows from this one on, and of those that share a stretch with it.
    pub fn cut(&mut self, row: usize) {
        let stretches = row / STRETCH;
        self.means.truncate(stretches * self.dim);
        self.steps.truncate(stretches * self.dim);
        self.codes.truncate(stretches * STRETCH * self.dim);
    }

    /// Takes in what is new of these rows `[n, dim]`, of which it knows the first.
    pub fn follow(&mut self, rows: &Rows) {
        self.dim = rows.dim();
        let known = |codes: &[i8]| codes.len().checked_div(rows.dim()).unwrap_or(0);
        while let Some(stretch) = rows.run(known(&self.codes), STRETCH) {
            self.take(stretch);
        }
    }

    /// Takes a stretch in.
    fn take(&mut self, rows: &[f32]) {
        let dim = self.dim;
        let mut mean = vec![0.0; dim];
        for row in rows.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x / STRETCH as f32);
        }
        let mut step = vec![0.0f32; dim];
        for row in rows.chunks_exact(dim) {
            let apart = row.iter().zip(&mean).map(|(x, mean)| (x - mean).abs() / 127.0);
            // Unlike `max`, this keeps what is not a number.
            step.iter_mut()
                .zip(apart)
                .for_each(|(step, x)| *step = if x <= *step { *step } else { x });
        }
        for (at, (mean, step)) in mean.iter().zip(&step).enumerate() {
            let apart = rows.iter().skip(at).step_by(dim).map(|x| x - mean);
            let code = |x: f32| if x == 0.0 { 0 } else { (x / step).round() as i8 };
            self.codes.extend(apart.map(code));
        }
        self.means.append(&mut mean);
        self.steps.append(&mut step);
    }

    /// The least and the most that a question `[dim]` can make of each row from `from` on, as far as there
    /// are codes.
    pub fn bounds(&self, question: &[f32], from: usize) -> Bounds {
        let dim = self.dim.max(1);
        let stretches = self.means.len() / dim;
        let first = (from / STRETCH).min(stretches);
        let mut scores = vec![0.0; (stretches - first) * STRETCH];
        let mut errors = vec![0.0; stretches - first];
        let many = STRETCHES_OF_A_THREAD;
        let codes = self.codes.get(first * STRETCH * dim..).unwrap_or_default();
        let means = self.means.get(first * dim..).unwrap_or_default();
        let steps = self.steps.get(first * dim..).unwrap_or_default();
        codes
            .par_chunks(many * STRETCH * dim)
            .zip(means.par_chunks(many * dim).zip(steps.par_chunks(many * dim)))
            .zip(scores.par_chunks_mut(many * STRETCH).zip(errors.par_chunks_mut(many)))
            .for_each(|((codes, (means, steps)), (scores, errors))| {
                let stretches = Stretches { codes, means, steps };
                pulp::Arch::new().dispatch(Bounding { question, stretches, scores, errors });
            });
        Bounds { scores, errors, skipped: from - first * STRETCH }
    }
}

/// What codes say of the rows' scores.
#[derive(Debug)]
pub struct Bounds {
    scores: Vec<f32>,
    /// Of each stretch: how far the rows' own scores are from these at most. Not a number or infinite where
    /// that cannot be said.
    errors: Vec<f32>,
    /// Rows at the front that were not asked about.
    skipped: usize,
}

impl Bounds {
    pub fn len(&self) -> usize {
        self.scores.len().saturating_sub(self.skipped)
    }

    /// Of each row the least that it has.
    pub fn least(&self) -> Vec<f32> {
        self.each(|score, error| score - error)
    }

    /// Of each row the most that it can have.
    pub fn most(&self) -> Vec<f32> {
        self.each(|score, error| score + error)
    }

    fn each(&self, of: impl Fn(f32, f32) -> f32) -> Vec<f32> {
        let mut all = Vec::with_capacity(self.scores.len());
        for (scores, &error) in self.scores.chunks(STRETCH).zip(&self.errors) {
            all.extend(scores.iter().map(|&score| of(score, error)));
        }
        all.drain(..self.skipped.min(all.len()));
        all
    }
}

/// Some stretches, one behind the other.
struct Stretches<'a> {
    codes: &'a [i8],
    means: &'a [f32],
    steps: &'a [f32],
}

struct Bounding<'a> {
    question: &'a [f32],
    stretches: Stretches<'a>,
    scores: &'a mut [f32],
    errors: &'a mut [f32],
}

impl pulp::WithSimd for Bounding<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { question, stretches: Stretches { codes, means, steps }, scores, errors } = self;
        let dim = question.len().max(1);
        let mut scaled = vec![0.0; dim];
        let stretches = means.chunks_exact(dim).zip(steps.chunks_exact(dim));
        let stretches = stretches.zip(codes.chunks_exact(STRETCH * dim));
        let into = scores.chunks_exact_mut(STRETCH).zip(errors);
        for (((mean, step), codes), (scores, error)) in stretches.zip(into) {
            let (mut base, mut rounded, mut largest) = (0.0, 0.0, 0.0);
            for (((scaled, q), mean), step) in scaled.iter_mut().zip(question).zip(mean).zip(step) {
                *scaled = q * step;
                base += q * mean;
                rounded += scaled.abs() / 2.0;
                largest += (q * mean).abs() + 127.0 * scaled.abs();
            }
            // Beside what a code leaves out, what sums in f32 do, here and of the rows themselves.
            *error = rounded + largest * f32::EPSILON * (2 * dim + 16) as f32;
            let mut sums = [base; STRETCH];
            let (codes, _) = codes.as_chunks::<STRETCH>();
            for (scaled, codes) in scaled.iter().zip(codes) {
                for (sum, code) in sums.iter_mut().zip(codes) {
                    *sum += scaled * f32::from(*code);
                }
            }
            scores.copy_from_slice(&sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::testing::random_tensor;

    fn random(seed: u64, n: usize) -> Vec<f32> {
        random_tensor(seed, n).to_vec1().unwrap()
    }

    fn exact(question: &[f32], row: &[f32]) -> f64 {
        question.iter().zip(row).map(|(q, x)| f64::from(*q) * f64::from(*x)).sum()
    }

    /// Rows as a camera's are: all much alike, and each a little another.
    fn camera(rows: usize, dim: usize) -> Vec<f32> {
        let (wall, noise) = (random(1, dim), random(2, rows * dim));
        noise.iter().enumerate().map(|(i, x)| 5.0 * wall[i % dim] + 0.1 * x).collect()
    }

    #[test]
    fn every_score_lies_between_its_bounds_and_they_are_near() {
        for dim in [3, 16, 40] {
            let (rows, question) = (camera(300, dim), random(3, dim));
            let mut coarse = Coarse::default();
            coarse.follow(&Rows::of(rows.clone(), dim));
            for from in [0, 5, 64, 200, 256] {
                let bounds = coarse.bounds(&question, from);
                assert_eq!(bounds.len(), 256 - from);
                let (least, most) = (bounds.least(), bounds.most());
                assert_eq!((least.len(), most.len()), (256 - from, 256 - from));
                for (at, (least, most)) in least.iter().zip(&most).enumerate() {
                    let row = &rows[(from + at) * dim..][..dim];
                    let score = exact(&question, row);
                    assert!(f64::from(*least) <= score && score <= f64::from(*most), "{dim} {at}");
                    // By far less than what a row's score comes to.
                    let length: f32 = question.iter().map(|q| q.abs()).sum();
                    assert!(most - least < 0.01 * length, "{} of {length}", most - least);
                }
            }
        }
    }

    #[test]
    fn codes_follow_what_becomes_of_the_rows() {
        let dim = 4;
        let (mut rows, question) = (camera(200, dim), random(3, dim));
        let mut coarse = Coarse::default();
        coarse.follow(&Rows::of(rows[..70 * dim].to_vec(), dim));
        assert_eq!(coarse.bounds(&question, 0).len(), 64);
        coarse.follow(&Rows::of(rows.clone(), dim));
        assert_eq!(coarse.bounds(&question, 0).len(), 192);
        rows[70 * dim..].fill(100.0);
        coarse.cut(70);
        assert_eq!(coarse.bounds(&question, 0).len(), 64);
        coarse.follow(&Rows::of(rows.clone(), dim));
        let most = coarse.bounds(&question, 0).most();
        let score = exact(&question, &rows[150 * dim..][..dim]) as f32;
        assert!((most[150] - score).abs() < 1e-3 * score.abs(), "{} {score}", most[150]);
    }

    #[test]
    fn of_what_is_not_a_number_nothing_is_said() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut rows = camera(128, 4);
            rows[9] = wrong;
            let mut coarse = Coarse::default();
            coarse.follow(&Rows::of(rows.clone(), 4));
            let bounds = coarse.bounds(&random(3, 4), 0);
            let (least, most) = (bounds.least(), bounds.most());
            let open = |row: usize| most[row].is_nan() || most[row] == f32::INFINITY;
            assert!(open(2) && open(60) && !open(64), "{wrong}: {} {}", most[2], most[64]);
            assert!(least[2].is_nan() || least[2] == f32::NEG_INFINITY, "{wrong}: {}", least[2]);
        }
    }
}
