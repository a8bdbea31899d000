// SPDX-License-Identifier: MPL-2.0
//! A matrix in eight bits, as a tensor: for each row and each [slice](slices) of its inputs one scale,
//! and a whole number of -127 to 127 for each weight. A row is its numbers, then its scales (f32, little
//! endian).
//!
//! A scale is the largest weight of its slice over 127, so that no weight is further from its number
//! than half a step. Where a slice holds a weight that is no number its scale is none either, and so
//! will be what comes of it.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

/// A loader that holds a model in eight bits has, beside each matrix, this of the same name: what
/// [`quantised`] makes of it.
const SUFFIX: &str = ".q8";

/// Inputs that share a scale, at most: fewer are more exact and slower (docs/performance.md).
const SLICE: usize = 512;
/// Fewer inputs than that are not worth it: such a row keeps its floats.
const FEWEST: usize = 32;
const TOP: f32 = 127.0;

/// A loader of a model that is to be computed in bf16 has, beside each matrix, this of the same name: it
/// says that what comes in may be rounded too, and is never read.
const ROUNDING: &str = ".in_bf16";

/// The name that says that a matrix is to be multiplied in bf16.
pub fn rounding(matrix: &str) -> String {
    format!("{matrix}{ROUNDING}")
}

/// The matrix of which a name says that.
pub fn rounding_of(named: &str) -> Option<&str> {
    named.strip_suffix(ROUNDING)
}

/// The name of a matrix in eight bits.
pub fn named(matrix: &str) -> String {
    format!("{matrix}{SUFFIX}")
}

/// The matrix that a name in eight bits is of.
pub fn name_of(named: &str) -> Option<&str> {
    named.strip_suffix(SUFFIX)
}

/// Whether a matrix of so many inputs can be held in eight bits.
pub fn fits(inputs: usize) -> bool {
    inputs >= FEWEST
}

/// `0..inputs` in as few slices as can be, nearly equal, each of a multiple of four but the last.
pub fn slices(inputs: usize) -> Vec<Range<usize>> {
    let count = inputs.div_ceil(SLICE).max(1);
    let length = inputs.div_ceil(count).next_multiple_of(4).max(4);
    (0..inputs).step_by(length).map(|from| from..inputs.min(from + length)).collect()
}

/// `[outputs, inputs]` of floats in eight bits, `[outputs, bytes]`; on the CPU.
///
/// # Errors
/// What reading the weights fails with.
pub fn quantised(weight: &Tensor) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let weight = weight.to_device(&Device::Cpu)?;
    let slices = slices(inputs);
    let bytes = inputs + 4 * slices.len();
    let mut rows = vec![0u8; outputs * bytes];
    // A band at a time, so that the weights need not be held twice.
    const BAND: usize = 256;
    for (band, rows) in rows.chunks_mut(BAND * bytes).enumerate() {
        let count = rows.len() / bytes;
        let floats = weight.narrow(0, band * BAND, count)?.to_dtype(DType::F32)?;
        let floats: Vec<f32> = floats.flatten_all()?.to_vec1()?;
        rows.par_chunks_exact_mut(bytes).zip(floats.par_chunks_exact(inputs)).for_each(
            |(row, weights)| {
                let (numbers, scales) = row.split_at_mut(inputs);
                for (slice, scale) in slices.iter().zip(scales.chunks_exact_mut(4)) {
                    let step = quantise(&weights[slice.clone()], &mut numbers[slice.clone()]);
                    scale.copy_from_slice(&step.to_le_bytes());
                }
            },
        );
    }
    Tensor::from_vec(rows, (outputs, bytes), &Device::Cpu)
}

/// Writes the numbers of some weights, and returns their scale.
fn quantise(weights: &[f32], numbers: &mut [u8]) -> f32 {
    let mut largest = 0f32;
    let mut sound = 0f32;
    for weight in weights {
        largest = largest.max(weight.abs());
        // Stays zero as long as all are finite.
        sound += weight * 0.0;
    }
    if sound != 0.0 || !largest.is_finite() {
        return f32::NAN;
    }
    let step = largest / TOP;
    // So small that dividing by it says nothing.
    if !step.is_normal() {
        return 0.0;
    }
    for (number, weight) in numbers.iter_mut().zip(weights) {
        *number = (weight / step).round().clamp(-TOP, TOP) as i8 as u8;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_few_and_nearly_equal() {
        assert_eq!(slices(512), vec![0..512; 1]);
        assert_eq!(slices(896), [0..448, 448..896]);
        assert_eq!(slices(1152), [0..384, 384..768, 768..1152]);
        assert_eq!(slices(1100), [0..368, 368..736, 736..1100]);
        for inputs in 1..5000 {
            let slices = slices(inputs);
            assert_eq!(slices.iter().map(Range::len).sum::<usize>(), inputs);
            assert!(slices.iter().all(|slice| slice.len() <= SLICE && !slice.is_empty()));
        }
    }

    #[test]
    fn no_weight_is_further_from_its_number_than_half_a_step() {
        let weights: Vec<f32> = (0..3 * 1100).map(|i| ((i * 37) % 1001) as f32 - 400.0).collect();
        let tensor = Tensor::from_vec(weights.clone(), (3, 1100), &Device::Cpu).unwrap();
        let rows: Vec<Vec<u8>> = quantised(&tensor).unwrap().to_vec2().unwrap();
        for (row, weights) in rows.iter().zip(weights.chunks(1100)) {
            let (numbers, scales) = row.split_at(1100);
            for (slice, scale) in slices(1100).into_iter().zip(scales.chunks(4)) {
                let step = f32::from_le_bytes(scale.try_into().unwrap());
                for (number, weight) in numbers[slice.clone()].iter().zip(&weights[slice]) {
                    let error = (f32::from(*number as i8) * step - weight).abs();
                    assert!(error <= step * 0.5001, "{weight}: {error} of {step}");
                }
            }
        }
    }

    #[test]
    fn weights_that_are_no_numbers_give_none_and_zeros_zero() {
        for (weight, scale) in [(f32::NAN, None), (f32::INFINITY, None), (0.0, Some(0.0))] {
            let mut numbers = [0; 4];
            let step = quantise(&[0.0, weight, 0.0, 0.0], &mut numbers);
            assert_eq!(step.is_nan().then_some(()), scale.is_none().then_some(()));
            assert_eq!(numbers, [0; 4]);
        }
    }
}
