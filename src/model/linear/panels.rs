// SPDX-License-Identifier: MPL-2.0
//! Kernels for processors that multiply groups and add them up in one instruction: four bytes each
//! (AVX-512 VNNI), or pairs of bf16 (AVX-512 BF16).
//!
//! Weights lie in panels of [`WIDTH`] outputs: group after group of inputs, in each the outputs side by
//! side. What comes in lies in tiles of up to [`TALL`] rows, in the same order. A tile times a panel
//! stays in registers, and no more rows are computed than there are: with one row, as in decoding, the
//! weights are read as fast as memory gives them.

use std::marker::PhantomData;
use std::ops::Range;

use bytemuck::{Pod, cast_slice};

/// Outputs of a panel.
pub const WIDTH: usize = 32;
/// Rows of a tile, at most: with two vectors of sums each they fill the registers.
const TALL: usize = 12;

/// With so few rows the product waits for memory, whose own reading ahead ends with each page.
const READ: usize = 8;
/// Groups that are then asked for ahead.
const AHEAD: usize = 16;

/// What is multiplied with one instruction, of one row or output: 32 bits.
pub trait Group: Copy + Send + Sync {
    /// A number of what comes in, and of the weights.
    type Input: Pod;
    type Weight: Pod;
    /// What a product gives.
    type Sum: Copy + Default;

    /// Whether this processor has the instruction.
    fn is_there() -> bool;

    /// Writes the sums `[R, WIDTH]` of a tile `[groups, R]` and a panel `[groups, WIDTH]`.
    ///
    /// # Safety
    /// The instruction must [be there](Self::is_there).
    unsafe fn tile<const R: usize>(
        inputs: &[[[u8; 4]; R]],
        weights: &[[[u8; 4]; WIDTH]],
        sums: &mut [[Self::Sum; WIDTH]; R],
    );
}

/// Four bytes: unsigned ones come in, weights are signed. Sums are exact.
#[derive(Clone, Copy)]
pub struct Bytes;

/// Two bf16, given by their bits, which are summed in f32.
#[derive(Clone, Copy)]
pub struct Pairs;

/// A group's kernel: `$dot` adds the products of two vectors of groups to a vector of sums.
macro_rules! kernel {
    (
        $group:ident, $input:ty, $weight:ty, $sum:ty, $feature:tt,
        $vector:ident, $zero:ident, $dot:expr
    ) => {
        impl Group for $group {
            type Input = $input;
            type Weight = $weight;
            type Sum = $sum;

            fn is_there() -> bool {
                #[cfg(target_arch = "x86_64")]
                return is_x86_feature_detected!("avx512f") && is_x86_feature_detected!($feature);
                #[cfg(not(target_arch = "x86_64"))]
                false
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f", enable = $feature)]
            unsafe fn tile<const R: usize>(
                inputs: &[[[u8; 4]; R]],
                weights: &[[[u8; 4]; WIDTH]],
                to: &mut [[$sum; WIDTH]; R],
            ) {
                use std::arch::x86_64::*;
                let mut sums = [[$zero(); 2]; R];
                for (inputs, weights) in inputs.iter().zip(weights) {
                    if R <= READ {
                        let ahead = std::ptr::from_ref(weights).wrapping_add(AHEAD).cast();
                        _mm_prefetch::<_MM_HINT_T0>(ahead);
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64));
                    }
                    // SAFETY: as many bytes, and any are a vector.
                    let weights: [__m512i; 2] = unsafe { std::mem::transmute(*weights) };
                    for (sums, input) in sums.iter_mut().zip(inputs) {
                        let input = _mm512_set1_epi32(i32::from_ne_bytes(*input));
                        sums[0] = $dot(sums[0], input, weights[0]);
                        sums[1] = $dot(sums[1], input, weights[1]);
                    }
                }
                for (to, sums) in to.iter_mut().zip(sums) {
                    // SAFETY: two vectors are as many numbers of 32 bits as a panel has outputs.
                    *to = unsafe { std::mem::transmute::<[$vector; 2], [$sum; WIDTH]>(sums) };
                }
            }

            #[cfg(not(target_arch = "x86_64"))]
            unsafe fn tile<const R: usize>(
                _: &[[[u8; 4]; R]],
                _: &[[[u8; 4]; WIDTH]],
                _: &mut [[$sum; WIDTH]; R],
            ) {
                unreachable!("no such instruction is there")
            }
        }
    };
}

kernel!(Bytes, u8, i8, i32, "avx512vnni", __m512i, _mm512_setzero_si512, |sum, a, b| {
    _mm512_dpbusd_epi32(sum, a, b)
});
kernel!(
    Pairs,
    u16,
    u16,
    f32,
    "avx512bf16",
    __m512,
    _mm512_setzero_ps,
    |sum, a: __m512i, b: __m512i| {
        // SAFETY: as many bits, and any are numbers.
        let pairs = |x: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(x) };
        _mm512_dpbf16_ps(sum, pairs(a), pairs(b))
    }
);

/// The numbers of a row by groups, the last filled up with zeros.
fn in_groups<T: Pod>(row: &[T]) -> impl Iterator<Item = [u8; 4]> {
    let (whole, rest) = cast_slice::<T, u8>(row).as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    whole.iter().copied().chain((!rest.is_empty()).then_some(last))
}

/// Groups of a row of so many numbers.
fn groups_of<T>(numbers: usize) -> usize {
    (numbers * size_of::<T>()).div_ceil(4)
}

/// Weights of some outputs in panels, the last filled up with zeros.
pub struct Panels<G> {
    outputs: usize,
    /// Groups of a row.
    groups: usize,
    /// `[panels, groups, WIDTH]`.
    weights: Vec<[[u8; 4]; WIDTH]>,
    of: PhantomData<G>,
}

/// Rows of what comes in, in tiles.
pub struct Tiles<G> {
    rows: usize,
    groups: usize,
    /// Tile after tile `[groups, rows of the tile]`.
    inputs: Vec<[u8; 4]>,
    of: PhantomData<G>,
}

impl<G: Group> Panels<G> {
    /// Of rows `[outputs, inputs]`, one an output, each of which lies `stride` behind the last. `room` is
    /// memory to use again.
    pub fn new(
        rows: &[G::Weight],
        (outputs, inputs, stride): (usize, usize, usize),
        room: Vec<[[u8; 4]; WIDTH]>,
    ) -> Self {
        let groups = groups_of::<G::Weight>(inputs);
        let mut weights = room;
        weights.clear();
        weights.resize(outputs.div_ceil(WIDTH) * groups, [[0; 4]; WIDTH]);
        let rows = rows.chunks(stride.max(1)).take(outputs);
        for (output, row) in rows.enumerate() {
            let (panel, column) = (output / WIDTH, output % WIDTH);
            let panel = &mut weights[panel * groups..][..groups];
            panel
                .iter_mut()
                .zip(in_groups(&row[..inputs]))
                .for_each(|(to, group)| to[column] = group);
        }
        Self { outputs, groups, weights, of: PhantomData }
    }

    /// The memory, to be used again.
    pub fn into_room(self) -> Vec<[[u8; 4]; WIDTH]> {
        self.weights
    }

    /// The products of all rows and outputs, a tile and a panel at a time: `to(first row, outputs, sums)`, where
    /// of the sums `[rows, WIDTH]` as many count as there are outputs. `None` where the processor has no such
    /// instruction, or rows and weights differ in their groups.
    pub fn multiply(
        &self,
        tiles: &Tiles<G>,
        mut to: impl FnMut(usize, Range<usize>, &[[G::Sum; WIDTH]]),
    ) -> Option<()> {
        if !G::is_there() || self.groups != tiles.groups {
            return None;
        }
        let mut room = [[G::Sum::default(); WIDTH]; TALL];
        for first in (0..self.outputs).step_by(WIDTH) {
            let outputs = first..self.outputs.min(first + WIDTH);
            let panel = &self.weights[first / WIDTH * self.groups..][..self.groups];
            let mut inputs = tiles.inputs.as_slice();
            for rows in tiles_of(tiles.rows) {
                let (tile, rest) = inputs.split_at(rows.len() * self.groups);
                inputs = rest;
                let sums = &mut room[..rows.len()];
                // SAFETY: the instruction is there, as was asked above.
                unsafe { on_tile::<G>(tile, panel, sums) };
                to(rows.start, outputs.clone(), sums);
            }
        }
        Some(())
    }
}

impl<G: Group> Tiles<G> {
    /// Of rows `[n, inputs]`.
    pub fn new(rows: &[G::Input], inputs: usize) -> Self {
        let groups = groups_of::<G::Input>(inputs);
        let count = rows.len().checked_div(inputs).unwrap_or(0);
        let mut all = vec![[0; 4]; count * groups];
        let mut rest = all.as_mut_slice();
        for tile in tiles_of(count) {
            let (to, behind) = rest.split_at_mut(tile.len() * groups);
            rest = behind;
            let height = tile.len();
            for (at, row) in
                rows[tile.start * inputs..tile.end * inputs].chunks_exact(inputs).enumerate()
            {
                let places = to.chunks_exact_mut(height).zip(in_groups(row));
                places.for_each(|(to, group)| to[at] = group);
            }
        }
        Self { rows: count, groups, inputs: all, of: PhantomData }
    }
}

/// `0..rows` in as few tiles as can be, nearly equal.
fn tiles_of(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.div_ceil(TALL);
    (0..count).map(move |at| at * rows / count..(at + 1) * rows / count)
}

/// [`Group::tile`] of as many rows as there are sums for.
///
/// # Safety
/// The instruction must be there.
unsafe fn on_tile<G: Group>(
    inputs: &[[u8; 4]],
    weights: &[[[u8; 4]; WIDTH]],
    sums: &mut [[G::Sum; WIDTH]],
) {
    macro_rules! of {
        ($($rows:literal)*) => {
            match sums.len() {
                $($rows => {
                    if let Ok(sums) = <&mut [_; $rows]>::try_from(sums) {
                        // SAFETY: the caller's promise.
                        unsafe { G::tile(inputs.as_chunks().0, weights, sums) };
                    }
                })*
                rows => debug_assert!(rows == 0, "{rows} rows are more than a tile has"),
            }
        };
    }
    of!(1 2 3 4 5 6 7 8 9 10 11 12)
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// Products by plain loops, and by the kernel where there is one.
    fn check<G: Group>(
        input: impl Fn(usize) -> G::Input,
        weight: impl Fn(usize) -> G::Weight,
        product: impl Fn(&[G::Input], &[G::Weight]) -> f64,
        value: impl Fn(G::Sum) -> f64,
    ) {
        for (rows, inputs, outputs) in [
            (1, 4, 32),
            (2, 5, 33),
            (3, 64, 7),
            (12, 30, 64),
            (13, 7, 40),
            (25, 130, 96),
            (40, 1, 1),
        ] {
            let stride = inputs + 3;
            let x: Vec<_> = (0..rows * inputs).map(&input).collect();
            let w: Vec<_> = (0..outputs * stride).map(&weight).collect();
            let panels = Panels::<G>::new(&w, (outputs, inputs, stride), Vec::new());
            let mut found = vec![f64::NAN; rows * outputs];
            let took = panels.multiply(&Tiles::new(&x, inputs), |first, columns, sums| {
                for (row, sums) in sums.iter().enumerate() {
                    for (column, &sum) in columns.clone().zip(sums) {
                        found[(first + row) * outputs + column] = value(sum);
                    }
                }
            });
            assert_eq!(took.is_some(), G::is_there());
            if took.is_none() {
                continue;
            }
            for (row, x) in x.chunks_exact(inputs).enumerate() {
                for (output, w) in w.chunks_exact(stride).enumerate() {
                    let (found, wanted) = (found[row * outputs + output], product(x, &w[..inputs]));
                    let near = (found - wanted).abs() <= 1e-5 * wanted.abs().max(1.0);
                    assert!(near, "{rows} {inputs} {outputs}: {found} {wanted}");
                }
            }
        }
    }

    #[test]
    fn panels_give_the_products_of_their_numbers() {
        check::<Bytes>(
            |i| (i * 37 % 256) as u8,
            |i| (i * 91 % 255) as u8 as i8,
            |x, w| x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum(),
            f64::from,
        );
        let value = |bits: &u16| f64::from(bf16::from_bits(*bits).to_f32());
        check::<Pairs>(
            |i| bf16::from_f32((i * 37 % 101) as f32 * 0.03 - 1.5).to_bits(),
            |i| bf16::from_f32((i * 91 % 97) as f32 * 0.02 - 1.0).to_bits(),
            |x, w| x.iter().zip(w).map(|(x, w)| value(x) * value(w)).sum(),
            f64::from,
        );
    }

    #[test]
    fn every_row_is_in_one_tile() {
        for rows in 0..200 {
            let tiles: Vec<_> = tiles_of(rows).collect();
            assert_eq!(tiles.iter().map(Range::len).sum::<usize>(), rows);
            assert!(tiles.iter().all(|tile| (1..=TALL).contains(&tile.len())), "{rows}");
            assert!(tiles.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}
