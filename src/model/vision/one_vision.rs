// SPDX-License-Identifier: MPL-2.0
//! LLaVA-OneVision's eyes: squares, SigLIP, a projector that pools, and a newline behind the video.

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

use super::projector::Projector;
use super::siglip::Siglip;
use super::{Picture, Vision};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::frame::Frame;
use crate::model::checkpoint::OneVisionConfig;
use crate::model::preprocess::square::Squares;

pub struct OneVision {
    squares: Squares,
    tower: Siglip,
    projector: Projector,
    newline: Tensor,
}

impl OneVision {
    /// `vb` is the root.
    pub(crate) fn new(
        cfg: &OneVisionConfig,
        squares: Squares,
        vb: VarBuilder,
    ) -> candle_core::Result<Self> {
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

    fn closing(&self) -> Option<&Tensor> {
        Some(&self.newline)
    }
}
