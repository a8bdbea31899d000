// SPDX-License-Identifier: MPL-2.0
//! From frames to the pixels a vision tower takes, equal to what Hugging Face's processors make of
//! them: [`square`] for LLaVA-OneVision and text-image pairs, [`patches`] for Qwen2.5-VL, and here
//! what both share.
//!
//! The resize goes width first, then height, each pass rounded to 8 bits: that order and rounding
//! are torchvision's, and with them the result is equal to the bit; one two-dimensional call of the
//! resizer differs by up to two dozen grey levels.

pub mod patches;
pub mod square;

use fast_image_resize as fir;
use fir::images::{TypedImage, TypedImageRef};
use fir::pixels::U8x3;
use fir::{ResizeAlg, ResizeOptions, Resizer};

use super::checkpoint::ProcessorConfig;
use crate::error::{EngineError, Result};
use crate::frame::Frame;

/// Resizing, rescaling and normalising with a checkpoint's numbers.
#[derive(Clone, Debug)]
pub struct Resampler {
    algorithm: ResizeAlg,
    /// Per channel, the value of each grey level after rescaling and normalising.
    levels: [[f32; 256]; 3],
}

impl Resampler {
    pub(crate) fn new(cfg: &ProcessorConfig) -> Self {
        let mut levels = [[0.0; 256]; 3];
        for ((levels, mean), std) in levels.iter_mut().zip(cfg.mean).zip(cfg.std) {
            for (grey, level) in levels.iter_mut().enumerate() {
                *level = ((grey as f64 * cfg.rescale - mean) / std) as f32;
            }
        }
        Self { algorithm: cfg.resample, levels }
    }

    /// The frame as packed RGB, `width` x `height`, with antialiasing and its aspect ratio ignored.
    pub fn resize(&self, frame: &Frame, width: usize, height: usize) -> Result<Vec<u8>> {
        let fault = |e: &dyn std::fmt::Display| EngineError::Frame {
            time: frame.time(),
            reason: format!("resizing {}x{}: {e}", frame.width(), frame.height()),
        };
        let to_u32 = |n: usize| u32::try_from(n).map_err(|e| fault(&e));
        let source = (to_u32(frame.width())?, to_u32(frame.height())?);
        let target = (to_u32(width)?, to_u32(height)?);
        if source == target {
            return Ok(frame.rgb().to_vec());
        }
        let options = ResizeOptions::new().resize_alg(self.algorithm).use_alpha(false);
        let mut resizer = Resizer::new();
        // The typed calls keep the compiler from instantiating every pixel type there is.
        let source_image = TypedImageRef::<U8x3>::from_buffer(source.0, source.1, frame.rgb())
            .map_err(|e| fault(&e))?;
        let mut narrow = TypedImage::<U8x3>::new(target.0, source.1);
        resizer.resize_typed(&source_image, &mut narrow, &options).map_err(|e| fault(&e))?;
        let mut bytes = vec![0; 3 * width * height];
        let mut resized = TypedImage::<U8x3>::from_buffer(target.0, target.1, &mut bytes)
            .map_err(|e| fault(&e))?;
        resizer.resize_typed(&narrow, &mut resized, &options).map_err(|e| fault(&e))?;
        Ok(bytes)
    }
}

/// Wider or higher than this many times the other side is not a picture (transformers' bound for
/// Qwen2-VL).
const MAX_ASPECT: usize = 200;

fn check_aspect(frame: &Frame) -> Result<()> {
    let (width, height) = frame.shape();
    if width.max(height) <= MAX_ASPECT * width.min(height) {
        return Ok(());
    }
    Err(EngineError::Frame {
        time: frame.time(),
        reason: format!(
            "the picture is {width}x{height}; a side may be at most {MAX_ASPECT} times the other"
        ),
    })
}
