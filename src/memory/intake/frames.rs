// SPDX-License-Identifier: MPL-2.0
//! Frames' tokens on their way into the memory, and segments of them.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;

/// One frame's tokens on their way into the memory, or the mean of several merged neighbours.
#[derive(Clone, Debug)]
pub struct FrameTokens {
    /// `[M, C]`, in the decoder's space; or with more vectors side by side, which are added behind its
    /// first layers.
    pub tokens: Tensor,
    /// Indices of the pushed frames it stands for.
    pub frames: Range<u64>,
    /// Seconds of stream time of its first and last frame.
    pub start: f64,
    pub end: f64,
    /// The mean of its first and its last frame's seconds: the time that is told of it.
    pub told: f64,
    /// Which of the picture's tokens these are; `None`: all, in order.
    pub patches: Option<Arc<[u32]>>,
    /// Whether it differs more from the frame before it than its neighbours do from theirs.
    pub peak: bool,
    /// What an outside model makes of the picture, for retrieval by it.
    pub embedding: Option<Arc<[f32]>>,
    /// The mean of the tokens, `[C]`, where it has been read together with other frames'.
    pub mean: Option<Arc<[f32]>>,
}

impl FrameTokens {
    /// A whole frame.
    pub fn whole(tokens: Tensor, frames: Range<u64>, (start, end): (f64, f64)) -> Self {
        let (patches, embedding, mean) = (None, None, None);
        let told = (start + end) / 2.0;
        Self { tokens, frames, start, end, told, patches, peak: false, embedding, mean }
    }

    /// Seconds of stream time of the last frame that was looked at, less what was left out behind it.
    pub fn shown(&self) -> f64 {
        2.0 * self.told - self.start
    }
}

/// Neighbouring frames that are encoded together.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pub frames: Vec<FrameTokens>,
}

impl Segment {
    /// Mean of the segment's whole frames, `[M, C]` (StreamKV's summary); `None` if it has none.
    pub fn summary(&self) -> Result<Option<Tensor>> {
        let whole = self.frames.iter().filter(|frame| frame.patches.is_none());
        let tokens: Vec<&Tensor> = whole.map(|frame| &frame.tokens).collect();
        match tokens.len() {
            0 => Ok(None),
            _ => Ok(Some(Tensor::stack(&tokens, 0)?.mean(0)?)),
        }
    }
}
