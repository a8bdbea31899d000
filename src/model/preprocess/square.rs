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
            let rgb = self.square(frame)?;
            for (channel, out) in out.chunks_exact_mut(plane).enumerate() {
                let levels = &self.resampler.levels[channel];
                for (out, pixel) in out.iter_mut().zip(rgb.as_chunks::<3>().0) {
                    *out = levels[usize::from(pixel[channel])];
                }
            }
            Ok::<(), EngineError>(())
        })?;
        Ok(Tensor::from_vec(pixels, (frames.len(), 3, side, side), &Device::Cpu)?
            .to_device(device)?)
    }

    /// # Errors
    /// [`EngineError::Frame`] for a frame whose middle cannot be cut out, being too long and thin.
    pub fn check(&self, frame: &Frame) -> Result<()> {
        // The longer side grows with the aspect ratio, and the resized frame in memory with it.
        if self.edge.is_some() { check_aspect(frame) } else { Ok(()) }
    }

    /// The frame as packed RGB, `S` x `S`.
    fn square(&self, frame: &Frame) -> Result<Vec<u8>> {
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
