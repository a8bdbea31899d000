// SPDX-License-Identifier: MPL-2.0
//! What waits for a pass of the decoder that is run for several threads at once.

use std::sync::mpsc::Receiver;

use candle_core::Tensor;

use crate::model::gathering::Job;

/// Rows of one pass: more make no product faster, and all wait longer.
pub const MOST_ROWS: usize = 2048;

/// Rows that wait for a pass, and where their contexts will come from.
pub struct Rows {
    pub embeds: Tensor,
    pub contexts: Receiver<Option<Tensor>>,
}

/// What a thread that does not lead is told.
pub enum Word {
    /// A layer's queries, keys and values of its rows.
    Attend(usize, [Tensor; 3]),
    Done(Tensor),
    /// Something went wrong that need not be its fault: it is to run by itself.
    Alone,
}

impl Job for Rows {
    type Word = Word;

    fn size(&self) -> usize {
        self.embeds.dim(0).unwrap_or(0)
    }

    fn goes_with(&self, other: &Self) -> bool {
        // Text has one vector a row where a picture may have several.
        self.embeds.dims().get(1) == other.embeds.dims().get(1)
    }
}
