// SPDX-License-Identifier: MPL-2.0
//! Qwen2-VL: as Qwen2.5-VL without windows, and with a step of time for each unit, however long that is.

mod config;
mod tower;

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

use self::config::Config;
pub(super) use self::config::checked;
use self::tower::Tower;
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
        let patches = Patches::new(&self.cells(), processor);
        Ok(Box::new(Qwen2 { patches, tower: Tower::new(self, vb.pp("visual"))? }))
    }
}

struct Qwen2 {
    patches: Patches,
    tower: Tower,
}

impl Vision for Qwen2 {
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

    fn layout(&self, picture: &Picture, _: f64, compat: bool) -> Layout {
        Layout::Grid { rows: picture.rows, cols: picture.cols, step: 1.0, compat }
    }
}
