// SPDX-License-Identifier: MPL-2.0
//! Frames to pixel tensors, equal to what the Hugging Face processors make of them.
//!
//! The picture is resized to the model's square with antialiasing and the aspect ratio ignored,
//! rescaled and normalised. The resize goes width first, then height, each pass rounded to 8 bits:
//! that order and rounding are torchvision's, and with them the result is equal to the bit; one
//! two-dimensional call of the resizer differs by up to two dozen grey levels.

use candle_core::{DType, Device, Tensor};
use fast_image_resize as fir;
use fir::images::{TypedImage, TypedImageRef};
use fir::pixels::U8x3;
use fir::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use rayon::prelude::*;

use super::checkpoint::ProcessorConfig;
use crate::error::{EngineError, Result};
use crate::frame::Frame;

/// Resize, rescale and normalise with a checkpoint's numbers.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    /// Side `S` of the square picture the vision tower takes.
    side: usize,
    algorithm: ResizeAlg,
    /// Per channel, the value of each grey level after rescaling and normalising.
    levels: [[f32; 256]; 3],
}

impl Preprocessor {
    /// `cfg` has been checked to resize to a square of the tower's size.
    pub(crate) fn new(cfg: &ProcessorConfig) -> Self {
        let mut levels = [[0.0; 256]; 3];
        for ((levels, mean), std) in levels.iter_mut().zip(cfg.mean).zip(cfg.std) {
            for (grey, level) in levels.iter_mut().enumerate() {
                *level = ((grey as f64 * cfg.rescale - mean) / std) as f32;
            }
        }
        Self { side: cfg.side, algorithm: cfg.resample, levels }
    }

    /// Side `S` of the pictures made.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Pixels `[f, 3, S, S]` in f32 on `device`.
    pub fn pixels(&self, frames: &[Frame], device: &Device) -> Result<Tensor> {
        let plane = self.side * self.side;
        let mut pixels = vec![0f32; frames.len() * 3 * plane];
        pixels.par_chunks_exact_mut(3 * plane).zip(frames).try_for_each(|(out, frame)| {
            let rgb = self.resize(frame)?;
            for (channel, out) in out.chunks_exact_mut(plane).enumerate() {
                let levels = &self.levels[channel];
                for (out, pixel) in out.iter_mut().zip(rgb.as_chunks::<3>().0) {
                    *out = levels[usize::from(pixel[channel])];
                }
            }
            Ok::<(), EngineError>(())
        })?;
        let shape = (frames.len(), 3, self.side, self.side);
        Ok(Tensor::from_vec(pixels, shape, &Device::Cpu)?
            .to_dtype(DType::F32)?
            .to_device(device)?)
    }

    /// The picture as packed RGB, S x S.
    pub fn resize(&self, frame: &Frame) -> Result<Vec<u8>> {
        let fault = |e: &dyn std::fmt::Display| EngineError::Frame {
            time: frame.time(),
            reason: format!("resizing {}x{}: {e}", frame.width(), frame.height()),
        };
        let to_u32 = |n: usize| u32::try_from(n).map_err(|e| fault(&e));
        let (width, height) = (to_u32(frame.width())?, to_u32(frame.height())?);
        let side = to_u32(self.side)?;
        if (width, height) == (side, side) {
            return Ok(frame.rgb().to_vec());
        }
        let options = ResizeOptions::new().resize_alg(self.algorithm).use_alpha(false);
        let mut resizer = Resizer::new();
        // The typed calls keep the compiler from instantiating every pixel type there is.
        let source = TypedImageRef::<U8x3>::from_buffer(width, height, frame.rgb())
            .map_err(|e| fault(&e))?;
        let mut narrow = TypedImage::<U8x3>::new(side, height);
        resizer.resize_typed(&source, &mut narrow, &options).map_err(|e| fault(&e))?;
        let mut bytes = vec![0; 3 * self.side * self.side];
        let mut square =
            TypedImage::<U8x3>::from_buffer(side, side, &mut bytes).map_err(|e| fault(&e))?;
        resizer.resize_typed(&narrow, &mut square, &options).map_err(|e| fault(&e))?;
        Ok(bytes)
    }
}

/// The resize filter of a processor's `resample` number (PIL's numbering).
pub(crate) fn filter(resample: u64) -> Option<ResizeAlg> {
    Some(match resample {
        0 => ResizeAlg::Nearest,
        1 => ResizeAlg::Convolution(FilterType::Lanczos3),
        2 => ResizeAlg::Convolution(FilterType::Bilinear),
        3 => ResizeAlg::Convolution(FilterType::CatmullRom),
        _ => return None,
    })
}
