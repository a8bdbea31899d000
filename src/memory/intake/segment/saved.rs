// SPDX-License-Identifier: MPL-2.0
//! The open segment on its way into a file and back.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::{FrameTokens, Segmenter};
use crate::error::Result;
use crate::snapshot::{Reader, Snapshot, shared};

#[derive(Serialize, Deserialize)]
struct Open {
    frames: usize,
    before: bool,
    features: Vec<Vec<f32>>,
    cosines: Vec<f32>,
    newest: Vec<f32>,
}

/// A frame but for its tokens.
#[derive(Serialize, Deserialize)]
struct Waiting {
    frames: Range<u64>,
    start: f64,
    end: f64,
    told: f64,
    #[serde(with = "shared")]
    patches: Option<Arc<[u32]>>,
    peak: bool,
    #[serde(with = "shared")]
    embedding: Option<Arc<[f32]>>,
    #[serde(with = "shared")]
    mean: Option<Arc<[f32]>>,
}

impl Segmenter {
    /// The frames that wait, and what the next one is compared with.
    pub fn save(&self, into: &mut Snapshot) {
        into.value(Open {
            frames: self.open.len(),
            before: self.before.is_some(),
            features: self.features.clone(),
            cosines: self.cosines.clone(),
            newest: self.newest.clone(),
        });
        if let Some(before) = &self.before {
            into.tensor(before.clone());
        }
        for frame in self.open.iter().cloned() {
            let FrameTokens { tokens, frames, start, end, told, patches, peak, embedding, mean } =
                frame;
            into.value(Waiting { frames, start, end, told, patches, peak, embedding, mean });
            into.tensor(tokens);
        }
    }

    /// # Errors
    /// What is wrong with the file, or what the computation fails with.
    pub fn restore(&mut self, from: &mut Reader, device: &Device) -> Result<()> {
        let open: Open = from.value()?;
        self.before = if open.before { Some(from.tensor(device)?) } else { None };
        (self.features, self.cosines, self.newest) = (open.features, open.cosines, open.newest);
        self.open.clear();
        for _ in 0..open.frames {
            let Waiting { frames, start, end, told, patches, peak, embedding, mean } =
                from.value()?;
            let tokens = from.tensor(device)?;
            if tokens.rank() != 2 {
                return Err(from.damage("another frame than expected"));
            }
            self.open.push(FrameTokens {
                tokens,
                frames,
                start,
                end,
                told,
                patches,
                peak,
                embedding,
                mean,
            });
        }
        Ok(())
    }
}
