// SPDX-License-Identifier: MPL-2.0
//! Every frame a square of one size: its aspect ratio ignored (LLaVA-OneVision, SigLIP), or its
//! middle cut out (CLIP).

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{Resampler, check_aspect};
use crate::error::{EngineError, Result};
use crate::frame::Frame;

/// Frames to squares.
#[derive(Clone, Debug)]
pub struct Squares {
    pub(crate) resampler: Resampler,
    /// Side `S` of the picture the vision tower takes.
    pub(crate) side: usize,
    /// Keep the aspect ratio, bring the shorter side to this length, at least `S`, and cut the
    /// middle out.
    pub(crate) edge: Option<usize>,
}

impl Squares {
    /// Pixels `[f, 3, S, S]` in f32 on `device`.
    pub fn pixels(&self, frames: &[Frame], device: &Device) -> Result<Tensor> {
        let side = self.side;
        let plane = side * side;
        let mut pixels = vec![0f32; frames.len() * 3 * plane];
        pixels.par_chunks_exact_mut(3 * plane).zip(frames).try_for_each(|(out, frame)| {
            self.normalise(&self.square(frame)?, out);
            Ok::<(), EngineError>(())
        })?;
        Ok(Tensor::from_vec(pixels, (frames.len(), 3, side, side), &Device::Cpu)?
            .to_device(device)?)
    }

    /// The same `[1, 3, S, S]` of what [`square`](Self::square) made of a frame.
    pub(crate) fn pixels_of(&self, rgb: &[u8], device: &Device) -> Result<Tensor> {
        let side = self.side;
        let mut pixels = vec![0f32; 3 * side * side];
        self.normalise(rgb, &mut pixels);
        Ok(Tensor::from_vec(pixels, (1, 3, side, side), &Device::Cpu)?.to_device(device)?)
    }

    /// Of that, the patches of these numbers, `[c, 3 * p * p]`: squares of `patch` pixels, `grid` in a
    /// row.
    pub(crate) fn patches_of(
        &self,
        rgb: &[u8],
        (patch, grid): (usize, usize),
        numbers: &[u32],
        device: &Device,
    ) -> Result<Tensor> {
        let line = 3 * self.side;
        let mut pixels = Vec::with_capacity(numbers.len() * 3 * patch * patch);
        for &number in numbers {
            let (row, column) = (number as usize / grid, number as usize % grid);
            for (channel, levels) in self.resampler.levels.iter().enumerate() {
                let lines = rgb.chunks_exact(line).skip(row * patch).take(patch);
                for line in lines {
                    let patch = line.chunks_exact(3 * patch).nth(column).unwrap_or_default();
                    let greys = patch.as_chunks::<3>().0.iter().map(|pixel| pixel[channel]);
                    pixels.extend(greys.map(|grey| levels[usize::from(grey)]));
                }
            }
        }
        let shape = (numbers.len(), 3 * patch * patch);
        Ok(Tensor::from_vec(pixels, shape, &Device::Cpu)?.to_device(device)?)
    }

    /// Packed RGB to planes.
    fn normalise(&self, rgb: &[u8], planes: &mut [f32]) {
        for (channel, out) in planes.chunks_exact_mut(self.side * self.side).enumerate() {
            let levels = &self.resampler.levels[channel];
            for (out, pixel) in out.iter_mut().zip(rgb.as_chunks::<3>().0) {
                *out = levels[usize::from(pixel[channel])];
            }
        }
    }

    /// # Errors
    /// [`EngineError::Frame`] for a frame whose middle cannot be cut out, being too long and thin.
    pub fn check(&self, frame: &Frame) -> Result<()> {
        // The longer side grows with the aspect ratio, and the resized frame in memory with it.
        if self.edge.is_some() { check_aspect(frame) } else { Ok(()) }
    }

    /// The frame as packed RGB, `S` x `S`.
    pub(crate) fn square(&self, frame: &Frame) -> Result<Vec<u8>> {
        let side = self.side;
        let Some(edge) = self.edge else { return self.resampler.resize(frame, side, side) };
        let (width, height) = frame.shape();
        let (short, long) = (width.min(height), width.max(height));
        self.check(frame)?;
        let long = edge * long / short;
        let (width, height) = if width <= height { (edge, long) } else { (long, edge) };
        let rgb = self.resampler.resize(frame, width, height)?;
        let (left, top) = ((width - side) / 2, (height - side) / 2);
        let rows = rgb.chunks_exact(3 * width).skip(top).take(side);
        Ok(rows.flat_map(|row| &row[3 * left..3 * (left + side)]).copied().collect())
    }
}
