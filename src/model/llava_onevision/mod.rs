// SPDX-License-Identifier: MPL-2.0
//! LLaVA-OneVision: squares, SigLIP, a projector that pools, and a newline behind the video.

mod config;
mod projector;
mod tower;

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

use self::config::Config;
pub(super) use self::config::checked;
use self::projector::Projector;
use self::tower::Siglip;
use super::vision::reuse::{Grid, Origin, Reference, Reuse, Reusing};
use super::vision::{Picture, Plan, Vision};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::frame::Frame;
use crate::model::checkpoint::{ProcessorConfig, Settings};
use crate::model::preprocess::Resampler;
use crate::model::preprocess::square::Squares;

impl Plan for Config {
    fn area(&self, settings: &Settings) -> std::result::Result<(usize, usize), String> {
        settings.square(self.tower.image_size)
    }

    fn is_unread(&self, name: &str) -> bool {
        self.is_unread(name)
    }

    fn template(&self) -> &'static str {
        TEMPLATE
    }

    fn has_pieces(&self) -> bool {
        true
    }

    fn build(&self, processor: &ProcessorConfig, vb: VarBuilder) -> Result<Box<dyn Vision>> {
        let resampler = Resampler::new(processor);
        let squares = Squares { resampler, side: self.tower.image_size, edge: None };
        Ok(Box::new(OneVision::new(self, squares, vb)?))
    }
}

/// The template of the published checkpoints.
const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}\
    {% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}\
    {% for part in message['content'] if part['type'] == 'video' %}{{ '<video>' }}{% endfor %}\
    {% for part in message['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}\
    {{ '<|im_end|>' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

struct OneVision {
    squares: Squares,
    tower: Siglip,
    projector: Projector,
    newline: Tensor,
}

impl OneVision {
    /// `vb` is the root.
    fn new(cfg: &Config, squares: Squares, vb: VarBuilder) -> candle_core::Result<Self> {
        Ok(Self {
            squares,
            tower: Siglip::new(&cfg.tower, &cfg.feature_layers, vb.pp("vision_tower"))?,
            projector: Projector::new(cfg, vb.pp("multi_modal_projector"))?,
            newline: vb.get(cfg.out_hidden_size, "image_newline")?.unsqueeze(0)?,
        })
    }
}

impl Vision for OneVision {
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

    fn reusing(&self) -> Option<&dyn Reusing> {
        Some(self)
    }

    fn closing(&self) -> Option<&Tensor> {
        Some(&self.newline)
    }
}

impl Reusing for OneVision {
    fn tokens(&self, frame: &Frame, reuse: &mut Reuse, cancel: &Cancel) -> Result<Tensor> {
        let rgb = self.squares.square(frame)?;
        let (side, patch) = self.tower.grid();
        let grid = Grid { picture: self.squares.side, patch, side };
        if let Some((reference, changed)) = reuse.changed(frame, &rgb, &grid) {
            let taken = grid.patches() - changed.len();
            let tokens = match changed.is_empty() {
                true => reference.tokens.clone(),
                false => self.partly(&rgb, &grid, reference, &changed, cancel)?,
            };
            reuse.took(taken);
            return Ok(tokens);
        }
        let pixels = self.squares.pixels_of(&rgb, self.newline.device())?;
        let (features, keys_values) =
            self.tower.forward_kept(&pixels.to_dtype(self.tower.dtype())?, cancel)?;
        let projected = self.projector.project(&features.squeeze(0)?)?;
        let tokens = self.projector.pool(&projected, 1)?;
        let frame = Origin::of(frame);
        let reference = Reference { frame, rgb, keys_values, projected, tokens: tokens.clone() };
        reuse.refer_to(reference);
        Ok(tokens)
    }
}

impl OneVision {
    /// The tokens `[1, M, C]` of a picture of which only these patches differ from the reference.
    fn partly(
        &self,
        rgb: &[u8],
        grid: &Grid,
        reference: &Reference,
        changed: &[u32],
        cancel: &Cancel,
    ) -> Result<Tensor> {
        let device = self.newline.device();
        let patches = grid.patches();
        // Where each patch is found, in the reference or behind it among those that changed.
        let mut places: Vec<u32> = (0..patches as u32).collect();
        for (place, &number) in (patches as u32..).zip(changed) {
            if let Some(at) = places.get_mut(number as usize) {
                *at = place;
            }
        }
        let others: Vec<u32> = places.iter().copied().filter(|&at| at < patches as u32).collect();
        let numbers = |numbers: &[u32]| Tensor::new(numbers, device);
        let pixels = self.squares.patches_of(rgb, (grid.patch, grid.side), changed, device)?;
        let features = self.tower.some(
            &pixels.to_dtype(self.tower.dtype())?,
            (&numbers(changed)?, &numbers(&others)?),
            &reference.keys_values,
            cancel,
        )?;
        let fresh = self.projector.project(&features)?;
        let all = Tensor::cat(&[&reference.projected, &fresh], 0)?;
        self.projector.pool(&all.index_select(&numbers(&places)?, 0)?, 1)
    }
}
