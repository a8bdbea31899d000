// SPDX-License-Identifier: MPL-2.0
//! Qwen2.5-VL: two frames become one unit, a picture keeps its shape, and its tokens stand where
//! they are in time and in the picture.

mod config;
mod tower;

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

use self::config::Config;
pub(super) use self::config::checked;
use self::tower::QwenVit;
use super::vision::{Picture, Plan, Vision};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::frame::Frame;
use crate::model::checkpoint::{ProcessorConfig, Settings};
use crate::model::preprocess::patches::{PIXELS_OF_A_FRAME, Patches};
use crate::model::prompt::QWEN_TEMPLATE;
use crate::model::rope::Layout;

impl Plan for Config {
    fn area(&self, settings: &Settings) -> std::result::Result<(usize, usize), String> {
        settings.area(&self.cells(), PIXELS_OF_A_FRAME)
    }

    fn template(&self) -> &'static str {
        QWEN_TEMPLATE
    }

    fn build(&self, processor: &ProcessorConfig, vb: VarBuilder) -> Result<Box<dyn Vision>> {
        Ok(Box::new(Qwen::new(self, Patches::new(&self.cells(), processor), vb)?))
    }
}

struct Qwen {
    patches: Patches,
    tower: QwenVit,
    tokens_per_second: f64,
}

impl Qwen {
    /// `vb` is the root.
    fn new(cfg: &Config, patches: Patches, vb: VarBuilder) -> Result<Self> {
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
