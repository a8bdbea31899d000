// SPDX-License-Identifier: MPL-2.0
//! Qwen2.5-VL's eyes: two frames become one unit, a picture keeps its shape, and its tokens stand
//! where they are in time and in the picture.

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

use super::qwen_vit::QwenVit;
use super::{Picture, Vision};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::frame::Frame;
use crate::model::checkpoint::QwenVisionConfig;
use crate::model::preprocess::patches::Patches;
use crate::model::rope::Layout;

pub struct Qwen {
    patches: Patches,
    tower: QwenVit,
    tokens_per_second: f64,
}

impl Qwen {
    /// `vb` is the root.
    pub(crate) fn new(cfg: &QwenVisionConfig, patches: Patches, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            patches,
            tower: QwenVit::new(cfg, vb.pp("visual"))?,
            tokens_per_second: cfg.tokens_per_second,
        })
    }
}

impl Vision for Qwen {
    fn frames_per_unit(&self) -> usize {
        self.patches.frames
    }

    fn picture(&self, first: &Frame) -> Result<Picture> {
        self.patches.picture(first)
    }

    fn check(&self, frame: &Frame) -> Result<()> {
        self.patches.check(frame)
    }

    fn resolution(&self, width: usize, height: usize) -> (usize, usize) {
        self.patches.resolution(width, height)
    }

    fn patches(&self, picture: &Picture) -> usize {
        self.patches.count(picture)
    }

    fn pixels(&self, frames: &[Frame], picture: &Picture, device: &Device) -> Result<Tensor> {
        self.patches.pixels(frames, picture, device)
    }

    fn features(&self, pixels: &Tensor, picture: &Picture, cancel: &Cancel) -> Result<Tensor> {
        self.tower.forward(pixels, picture, cancel)
    }

    fn tokens(&self, features: &Tensor, _: &Picture) -> Result<Tensor> {
        self.tower.merge(features)
    }

    fn layout(&self, picture: &Picture, rate: f64, compat: bool) -> Layout {
        let seconds = (self.patches.frames as f64 / rate) as f32;
        let step = self.tokens_per_second as f32 * seconds;
        Layout::Grid { rows: picture.rows, cols: picture.cols, step, compat }
    }
}
