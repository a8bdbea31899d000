// SPDX-License-Identifier: MPL-2.0
//! Qwen2.5-VL's pixels: frames keep about their shape, `T` neighbours in time become one unit, and
//! a unit is handed over as flat patches in the order in which the merger takes them.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{Resampler, check_aspect};
use crate::error::{EngineError, Result};
use crate::frame::Frame;
use crate::model::checkpoint::ProcessorConfig;
use crate::model::checkpoint::processor::Cells;
use crate::model::picture::Picture;

/// The smallest and the largest frame that Qwen's own video loading hands to Qwen2-VL and Qwen2.5-VL. The published
/// folders hold bounds for still images only, of which the upper one, 16384 tokens, is not meant for
/// video.
pub(crate) const PIXELS_OF_A_FRAME: (usize, usize) = (128 * 28 * 28, 768 * 28 * 28);

/// Frames to patches.
#[derive(Clone, Debug)]
pub struct Patches {
    pub(crate) resampler: Resampler,
    /// Side `p` of a patch in pixels.
    pub(crate) side: usize,
    /// Side of a token in patches.
    pub(crate) merge: usize,
    /// Frames of a unit, `T`.
    pub(crate) frames: usize,
    pub(crate) min_pixels: usize,
    pub(crate) max_pixels: usize,
    /// A picture with a side of less than a token is made larger before all else (Qwen3-VL).
    pub(crate) enlarged: bool,
}

impl Patches {
    /// As a tower cuts a video up, of frames with an area within the processor's bounds.
    pub(crate) fn new(cells: &Cells, processor: &ProcessorConfig) -> Self {
        Self {
            resampler: Resampler::new(processor),
            side: cells.patch_size,
            merge: cells.merge,
            frames: cells.frames_per_unit,
            min_pixels: processor.min_pixels,
            max_pixels: processor.max_pixels,
            enlarged: false,
        }
    }

    /// The same as Qwen3-VL's processor has it.
    pub(crate) fn enlarging(self) -> Self {
        Self { enlarged: true, ..self }
    }

    /// The shape for a stream whose first frame has this size: the sides rounded to whole tokens,
    /// the area brought within its bounds (`smart_resize`).
    ///
    /// # Errors
    /// [`EngineError::Frame`] for a frame that is too long and thin.
    pub fn picture(&self, frame: &Frame) -> Result<Picture> {
        check_aspect(frame)?;
        let (width, height) = frame.shape();
        let factor = self.side * self.merge;
        let (width_px, height_px) = self.resolution(width, height);
        Ok(Picture { rows: height_px / factor, cols: width_px / factor, width, height })
    }

    /// Pixels across and down that the tower takes of a picture shown as `width` x `height`.
    pub fn resolution(&self, width: usize, height: usize) -> (usize, usize) {
        let factor = self.side * self.merge;
        let size = if self.enlarged { enlarged((height, width), factor) } else { (height, width) };
        let (height, width) = smart_resize(size, factor, self.min_pixels, self.max_pixels);
        (width, height)
    }

    /// # Errors
    /// [`EngineError::Frame`] for a frame that is too long and thin.
    pub fn check(&self, frame: &Frame) -> Result<()> {
        check_aspect(frame)
    }

    /// Patches per unit.
    pub fn count(&self, picture: &Picture) -> usize {
        picture.tokens() * self.merge * self.merge
    }

    /// `[u * n, 3 * T * p * p]` in f32 on `device`: units in order, and in each the `n` patches
    /// token by token. The last frame is repeated if it has no partner.
    pub fn pixels(&self, frames: &[Frame], picture: &Picture, device: &Device) -> Result<Tensor> {
        let width = 3 * self.frames * self.side * self.side;
        let units = frames.len().div_ceil(self.frames);
        let mut pixels = vec![0f32; units * self.count(picture) * width];
        pixels
            .par_chunks_mut((self.count(picture) * width).max(1))
            .zip(frames.par_chunks(self.frames))
            .try_for_each(|(out, frames)| {
                for step in 0..self.frames {
                    // A short chunk repeats its last frame.
                    let Some(frame) = frames.get(step).or(frames.last()) else { break };
                    let rgb = self.fit(frame, picture)?;
                    self.cut(&rgb, step, picture, out);
                }
                Ok::<(), EngineError>(())
            })?;
        let shape = (units * self.count(picture), width);
        Ok(Tensor::from_vec(pixels, shape, &Device::Cpu)?.to_device(device)?)
    }

    /// The frame as packed RGB of the picture's size. A frame of the shape that the picture was
    /// made for fills it; any other is fitted in, between black bars.
    fn fit(&self, frame: &Frame, picture: &Picture) -> Result<Vec<u8>> {
        let factor = self.side * self.merge;
        let (width, height) = (picture.cols * factor, picture.rows * factor);
        let (inner_width, inner_height) = picture.fitted(frame, width, height);
        // Less than half a token is no bar worth drawing.
        if width - inner_width < factor / 2 && height - inner_height < factor / 2 {
            return self.resampler.resize(frame, width, height);
        }
        let inner = self.resampler.resize(frame, inner_width, inner_height)?;
        let (left, top) = ((width - inner_width) / 2, (height - inner_height) / 2);
        let mut rgb = vec![0; 3 * width * height];
        let rows = rgb.chunks_exact_mut(3 * width).skip(top);
        for (out, row) in rows.zip(inner.chunks_exact(3 * inner_width)) {
            out[3 * left..3 * (left + inner_width)].copy_from_slice(row);
        }
        Ok(rgb)
    }

    /// Writes one frame's pixels to their places in the patches of its unit. A patch holds channel
    /// by channel, in each frame by frame, in each row by row.
    fn cut(&self, rgb: &[u8], step: usize, picture: &Picture, out: &mut [f32]) {
        let (side, merge) = (self.side, self.merge);
        let factor = side * merge;
        let plane = side * side;
        let row_bytes = 3 * picture.cols * factor;
        let patches = out.chunks_exact_mut(3 * self.frames * plane);
        for (index, patch) in patches.enumerate() {
            let (token, part) = (index / (merge * merge), index % (merge * merge));
            let top = token / picture.cols * factor + part / merge * side;
            let left = token % picture.cols * factor + part % merge * side;
            for (channel, levels) in self.resampler.levels.iter().enumerate() {
                let from = (channel * self.frames + step) * plane;
                for (y, out) in patch[from..from + plane].chunks_exact_mut(side).enumerate() {
                    let start = (top + y) * row_bytes + 3 * left;
                    let row = rgb[start..start + 3 * side].as_chunks::<3>().0;
                    for (out, pixel) in out.iter_mut().zip(row) {
                        *out = levels[usize::from(pixel[channel])];
                    }
                }
            }
        }
    }
}

/// Height and width of a picture whose sides have `factor` pixels at least; cut, as Python's `int` does.
fn enlarged((height, width): (usize, usize), factor: usize) -> (usize, usize) {
    if height >= factor && width >= factor {
        return (height, width);
    }
    let (h, w, f) = (height as f64, width as f64, factor as f64);
    let scale = (f / h).max(f / w);
    ((h * scale) as usize, (w * scale) as usize)
}

/// Height and width as multiples of `factor`, close to the given ones, with an area within the
/// bounds (Qwen2-VL's function of this name; halves round to even, as Python rounds).
fn smart_resize(
    (height, width): (usize, usize),
    factor: usize,
    min_pixels: usize,
    max_pixels: usize,
) -> (usize, usize) {
    let (h, w, f) = (height as f64, width as f64, factor as f64);
    let (rows, cols) = ((h / f).round_ties_even(), (w / f).round_ties_even());
    let area = rows * f * cols * f;
    let (rows, cols) = if area > max_pixels as f64 {
        let beta = (h * w / max_pixels as f64).sqrt();
        ((h / beta / f).floor().max(1.0), (w / beta / f).floor().max(1.0))
    } else if area < min_pixels as f64 {
        let beta = (min_pixels as f64 / (h * w)).sqrt();
        ((h * beta / f).ceil(), (w * beta / f).ceil())
    } else {
        (rows, cols)
    };
    (rows as usize * factor, cols as usize * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_processor() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
        for (fixture, factor) in [("qwen-wide", 28), ("qwen3-wide", 32)] {
            let path = format!("{folder}/{fixture}/expected.json");
            let facts: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            for case in facts["smart_resize"].as_array().unwrap() {
                let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
                let [height, width, min, max] =
                    ["height", "width", "min", "max"].map(|name| number(&case[name]));
                let expected = (number(&case["found"][0]), number(&case["found"][1]));
                let size = (height, width);
                let size = if factor == 32 { enlarged(size, factor) } else { size };
                assert_eq!(smart_resize(size, factor, min, max), expected, "{fixture} {case}");
            }
        }
    }

    #[test]
    fn halves_round_to_even_and_thin_pictures_have_a_row() {
        assert_eq!(smart_resize((42, 70), 28, 1, usize::MAX), (56, 56));
        assert_eq!(smart_resize((4000, 25), 28, 1, 10_000).1, 28);
    }
}
