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
use crate::model::preprocess::patches::Patches;
use crate::model::rope::Layout;

impl Plan for Config {
    fn area(&self, settings: &Settings) -> std::result::Result<(usize, usize), String> {
        settings.area(&self.cells(), PIXELS)
    }

    fn template(&self) -> &'static str {
        TEMPLATE
    }

    fn build(&self, processor: &ProcessorConfig, vb: VarBuilder) -> Result<Box<dyn Vision>> {
        Ok(Box::new(Qwen::new(self, Patches::new(&self.cells(), processor), vb)?))
    }
}

/// The smallest and the largest frame that Qwen's own video loading hands to the model. The published
/// folders hold bounds for still images only, of which the upper one, 16384 tokens, is not meant for
/// video.
const PIXELS: (usize, usize) = (128 * 28 * 28, 768 * 28 * 28);

/// What the published template makes of a system message and one user turn.
const TEMPLATE: &str = "{% for message in messages %}\
    {% if loop.first and message['role'] != 'system' %}\
    {{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}\
    {{ '<|im_start|>' + message['role'] + '\n' }}\
    {% for part in message['content'] %}\
    {% if part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}\
    {% else %}{{ part['text'] }}{% endif %}{% endfor %}\
    {{ '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

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
