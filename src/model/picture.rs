// SPDX-License-Identifier: MPL-2.0
//! The shape of a stream's units.

use serde::{Deserialize, Serialize};

use crate::frame::Frame;

/// The shape of a stream's units, which its first frame decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// Rows and columns of tokens.
    pub rows: usize,
    pub cols: usize,
    /// Shape of the frames that it was made for.
    pub width: usize,
    pub height: usize,
}

impl Picture {
    /// Tokens of a unit, `M`.
    pub fn tokens(&self) -> usize {
        self.rows * self.cols
    }

    /// How much of `width` x `height` pixels, which stand for this picture, a frame fills that is
    /// fitted into it whole with its own aspect ratio. At least one pixel each way.
    pub fn fitted(&self, frame: &Frame, width: usize, height: usize) -> (usize, usize) {
        let (shown_width, shown_height) = frame.shape();
        let x = self.width as f64 / shown_width as f64;
        let y = self.height as f64 / shown_height as f64;
        let share = |own: f64, pixels: usize| {
            let filled = (pixels as f64 * x.min(y) / own).round() as usize;
            filled.clamp(1, pixels)
        };
        (share(x, width), share(y, height))
    }
}
