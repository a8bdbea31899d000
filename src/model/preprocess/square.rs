// SPDX-License-Identifier: MPL-2.0
//! LLaVA-OneVision's pixels: every frame a square of one size, its aspect ratio ignored.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::Resampler;
use crate::error::{EngineError, Result};
use crate::frame::Frame;

/// Frames to squares.
#[derive(Clone, Debug)]
pub struct Squares {
    pub(crate) resampler: Resampler,
    /// Side `S` of the picture the vision tower takes.
    pub(crate) side: usize,
}

impl Squares {
    /// Pixels `[f, 3, S, S]` in f32 on `device`.
    pub fn pixels(&self, frames: &[Frame], device: &Device) -> Result<Tensor> {
        let side = self.side;
        let plane = side * side;
        let mut pixels = vec![0f32; frames.len() * 3 * plane];
        pixels.par_chunks_exact_mut(3 * plane).zip(frames).try_for_each(|(out, frame)| {
            let rgb = self.resampler.resize(frame, side, side)?;
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
}
