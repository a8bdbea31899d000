// SPDX-License-Identifier: MPL-2.0
//! From frames to the tokens the decoder reads. An architecture is one [`Vision`]: LLaVA-OneVision
//! ([`one_vision`]: squares, a SigLIP tower, a pooling projector) or Qwen2.5-VL ([`qwen`]: patches
//! of pictures that keep their shape, a tower with windows, a merger).

pub mod one_vision;
pub mod projector;
pub mod qwen;
pub mod qwen_vit;
pub mod reuse;
pub mod siglip;
pub(super) mod together;

use candle_core::{Device, Tensor};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::frame::Frame;
pub use crate::model::picture::Picture;
use crate::model::rope::Layout;
use reuse::Reusing;

/// The half of a Video-LLM that sees.
pub trait Vision: Send + Sync {
    /// Frames that become one unit of tokens.
    fn frames_per_unit(&self) -> usize {
        1
    }

    /// The shape of the units of a stream that begins with this frame.
    fn picture(&self, first: &Frame) -> Result<Picture>;

    /// Whether the tower can take the frame at all.
    fn check(&self, _frame: &Frame) -> Result<()> {
        Ok(())
    }

    /// Pixels across and down that the tower takes of a picture shown as `width` x `height`.
    fn resolution(&self, width: usize, height: usize) -> (usize, usize);

    /// Patches of a unit: what it costs.
    fn patches(&self, picture: &Picture) -> usize;

    /// What the tower takes, in f32. Frames that do not fill the last unit are made up for.
    fn pixels(&self, frames: &[Frame], picture: &Picture, device: &Device) -> Result<Tensor>;

    /// What the tower sees in each patch, `[u, n, D]`, `n` the unit's patches. `cancel` is looked
    /// at between its layers.
    fn features(&self, pixels: &Tensor, picture: &Picture, cancel: &Cancel) -> Result<Tensor>;

    /// The unit tokens `[u, M, C]` of features.
    fn tokens(&self, features: &Tensor, picture: &Picture) -> Result<Tensor>;

    /// The same of frames whose patches can be taken from earlier ones, if the tower can do that.
    fn reusing(&self) -> Option<&dyn Reusing> {
        None
    }

    /// Where the tokens of a stream stand, of which a second has `rate` frames. `compat` is
    /// [`Layout::Grid`]'s.
    fn layout(&self, _picture: &Picture, _rate: f64, _compat: bool) -> Layout {
        Layout::Run
    }

    /// The embedding `[1, C]` that closes a video in the checkpoint's own prompt, if it has one.
    fn closing(&self) -> Option<&Tensor> {
        None
    }
}
