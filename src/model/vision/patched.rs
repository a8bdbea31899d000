// SPDX-License-Identifier: MPL-2.0
//! Towers over the patches of pictures that keep their shape, as Qwen's are.

use candle_core::{Device, Tensor};

use super::{Picture, Vision};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::frame::Frame;
use crate::model::preprocess::patches::Patches;
use crate::model::rope::Layout;

/// What is a family's own of such a tower.
pub trait Tower: Send + Sync {
    /// As [`Vision::vectors`].
    fn vectors(&self) -> usize {
        1
    }

    /// As [`Vision::features`], of the patches that [`Patches::pixels`] makes.
    fn forward(&self, pixels: &Tensor, picture: &Picture, cancel: &Cancel) -> Result<Tensor>;

    /// As [`Vision::tokens`].
    fn merge(&self, features: &Tensor) -> Result<Tensor>;
}

/// A tower with what makes its patches, and where its tokens stand: [`Vision::layout`].
pub struct Patched<T, L> {
    pub patches: Patches,
    pub tower: T,
    pub layout: L,
}

impl<T, L> Vision for Patched<T, L>
where
    T: Tower,
    L: Fn(&Picture, f64, bool) -> Layout + Send + Sync,
{
    fn frames_per_unit(&self) -> usize {
        self.patches.frames
    }

    fn vectors(&self) -> usize {
        self.tower.vectors()
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
        (self.layout)(picture, rate, compat)
    }
}
