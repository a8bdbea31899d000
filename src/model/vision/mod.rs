// SPDX-License-Identifier: MPL-2.0
//! From frames to the tokens the decoder reads. A family supplies a [`Plan`], which its config is
//! checked into, and a [`Vision`], which is built from it.

pub(super) mod merged;
pub(super) mod patched;
pub mod reuse;
pub(super) mod squares;
pub(super) mod together;
pub(super) mod turned;

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::frame::Frame;
use crate::model::checkpoint::{ProcessorConfig, Settings};
pub use crate::model::picture::Picture;
use crate::model::rope::Layout;
use reuse::Reusing;

/// A unit as the words around its picture tell of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// The number of its first frame, from 0.
    pub frame: u64,
    /// The mean of the seconds of its first and its last frame.
    pub seconds: f64,
}

/// The words around each unit's picture, of families that have some.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// What stands in front of a unit's picture and behind it, control tokens and all.
    pub around: fn(Moment) -> [String; 2],
    /// What the template writes around the whole video, which the units' own words take the place of.
    pub instead_of: [&'static str; 2],
    /// Whether transformers 5 keeps that nevertheless.
    pub nests: bool,
    /// Control tokens in all this.
    pub controls: &'static [&'static str],
}

/// What a family's config says of its half that sees, checked.
pub trait Plan: Send + Sync {
    /// Whether the tower can have been trained with a processor's settings. Where a folder has several,
    /// those that do not fit are passed over.
    fn fits(&self, _settings: &Settings) -> bool {
        true
    }

    /// Bounds of a frame's area in pixels by the processor's settings, or what is wrong with these.
    fn area(&self, settings: &Settings) -> std::result::Result<(usize, usize), String>;

    /// Mean and deviation of a frame's colours where the settings have none, if not CLIP's.
    fn colours(&self) -> Option<([f64; 3], [f64; 3])> {
        None
    }

    /// Whether a weight (by canonical name) belongs to the architecture but is never read.
    fn is_unread(&self, _name: &str) -> bool {
        false
    }

    /// What the template writes for a video, if not the token that stands for it.
    fn placeholder(&self) -> Option<&'static str> {
        None
    }

    /// The chat template of a folder that has none.
    fn template(&self) -> &'static str;

    /// The words around each unit's picture.
    fn told(&self) -> Option<Told> {
        None
    }

    /// Whether the separately tokenised pieces of ReKV and StreamKV are written for it.
    fn has_pieces(&self) -> bool {
        false
    }

    /// The half that sees. `vb` is the root.
    fn build(&self, processor: &ProcessorConfig, vb: VarBuilder) -> Result<Box<dyn Vision>>;
}

/// The half of a Video-LLM that sees.
pub trait Vision: Send + Sync {
    /// Frames that become one unit of tokens.
    fn frames_per_unit(&self) -> usize {
        1
    }

    /// Vectors of a token, side by side: the one that goes into the decoder, and those that are added
    /// behind its first layers.
    fn vectors(&self) -> usize {
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

    /// The unit tokens `[u, M, C]` of features, `C` all [`vectors`](Self::vectors) of a token.
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
