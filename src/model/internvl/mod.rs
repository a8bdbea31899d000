// SPDX-License-Identifier: MPL-2.0
//! InternVL3 and 3.5 in the layout of transformers (`-hf`): every frame a square with its number in front
//! of it, InternViT, and four patches a token.

mod config;
mod tower;

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

use self::config::Config;
pub(super) use self::config::checked;
use self::tower::{Projector, Tower};
use super::vision::{Moment, Picture, Plan, Told, Vision};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::frame::Frame;
use crate::model::checkpoint::{ProcessorConfig, Settings};
use crate::model::preprocess::Resampler;
use crate::model::preprocess::square::Squares;

impl Plan for Config {
    /// The published folders of InternVL3.5 have settings for videos besides, which are no more than the
    /// defaults of a class: 384 pixels, and other colours. Nothing can be made of 27 x 27 patches.
    fn fits(&self, settings: &Settings) -> bool {
        settings.square(self.image_size).is_ok()
    }

    fn area(&self, settings: &Settings) -> std::result::Result<(usize, usize), String> {
        settings.square(self.image_size)
    }

    fn placeholder(&self) -> Option<&'static str> {
        Some("<video>")
    }

    fn template(&self) -> &'static str {
        TEMPLATE
    }

    /// A line for each frame, whose break is the template's behind the last.
    fn told(&self) -> Option<Told> {
        Some(Told {
            around: |Moment { frame, .. }| {
                [format!("Frame{}: {START}", frame.saturating_add(1)), format!("{END}\n")]
            },
            instead_of: ["", "\n"],
            nests: false,
            controls: &[START, END],
        })
    }

    fn build(&self, processor: &ProcessorConfig, vb: VarBuilder) -> Result<Box<dyn Vision>> {
        let resampler = Resampler::new(processor);
        Ok(Box::new(InternVl {
            squares: Squares { resampler, side: self.image_size, edge: None },
            tower: Tower::new(self, vb.pp("vision_tower"))?,
            projector: Projector::new(self, vb.pp("multi_modal_projector"))?,
        }))
    }
}

const START: &str = "<img>";
const END: &str = "</img>";

/// What the published template makes of a system message and one user turn.
const TEMPLATE: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\n' }}\
    {% for part in message['content'] %}\
    {% if part['type'] == 'video' %}{{ '<video>\n' }}\
    {% else %}{{ part['text'] }}{% endif %}{% endfor %}\
    {{ '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

struct InternVl {
    squares: Squares,
    tower: Tower,
    projector: Projector,
}

impl Vision for InternVl {
    fn picture(&self, first: &Frame) -> Result<Picture> {
        let side = self.projector.side();
        let (width, height) = first.shape();
        Ok(Picture { rows: side, cols: side, width, height })
    }

    fn resolution(&self, _: usize, _: usize) -> (usize, usize) {
        (self.squares.side, self.squares.side)
    }

    fn patches(&self, _: &Picture) -> usize {
        self.tower.patches()
    }

    fn pixels(&self, frames: &[Frame], _: &Picture, device: &Device) -> Result<Tensor> {
        self.squares.pixels(frames, device)
    }

    fn features(&self, pixels: &Tensor, _: &Picture, cancel: &Cancel) -> Result<Tensor> {
        self.tower.forward(pixels, cancel)
    }

    fn tokens(&self, features: &Tensor, _: &Picture) -> Result<Tensor> {
        self.projector.forward(features)
    }
}
