// SPDX-License-Identifier: MPL-2.0
//! What a stream has to say beside its answers: each trouble once, not once a frame.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::error::EngineError;
use crate::memory::recipe::{Recipe, Retrieval};
use crate::model::VideoLlm;

/// Warnings on their way to whoever asks for them. The lock is held to look and to note.
#[derive(Default)]
pub struct Notices(Mutex<State>);

/// What may turn out not to be finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// What the eyes make of a frame.
    Tokens,
    /// What the decoder makes of it.
    Keys,
    Answer,
}

#[derive(Default)]
struct State {
    waiting: Vec<EngineError>,
    /// What of each part was not finite, until something is again.
    not_finite: BTreeMap<Part, String>,
    too_long: bool,
}

impl Notices {
    pub fn add(&self, warning: EngineError) {
        self.0.lock().waiting.push(warning);
    }

    /// Notes that something was left out because its numbers are not finite. A run of such is one
    /// warning.
    pub fn not_finite(&self, part: Part, what: String) {
        let mut state = self.0.lock();
        let known = !state.not_finite.is_empty();
        state.not_finite.insert(part, what.clone());
        if !known {
            state.waiting.push(EngineError::NotFinite { what });
        }
    }

    /// Notes that the numbers are finite again.
    pub fn finite(&self, part: Part) {
        self.0.lock().not_finite.remove(&part);
    }

    /// What of the frames was not finite last, if nothing has been since.
    pub fn unseen(&self) -> Option<EngineError> {
        let state = self.0.lock();
        let what = [Part::Keys, Part::Tokens].iter().find_map(|part| state.not_finite.get(part));
        what.map(|what| EngineError::NotFinite { what: what.clone() })
    }

    /// Notes how much a question would see: `positions` and, of a method that looks at everything,
    /// `frames`. Beyond what the model was made for that is a warning, once.
    pub fn length(&self, model: &VideoLlm, recipe: &Recipe, positions: usize, frames: usize) {
        let most = model.decoder().max_positions();
        let sees_all = sees_everything(recipe);
        let trained = model.recommendations().trained_frames.filter(|_| sees_all);
        let reason = if positions > most {
            format!(
                "a question would see {positions} positions, and the model is made for {most} \
                 (`max_position_embeddings`)"
            )
        } else if let Some(trained) = trained.filter(|&trained| frames > trained) {
            format!(
                "a question would see {frames} frames, and the model was trained on {trained} \
                 (`trained_frames`)"
            )
        } else {
            return;
        };
        let remedy = if sees_all {
            "method=auto, streamkv or sliding-window look at a bounded part of the video"
        } else {
            "lower what it looks at: `retrieve`, `last` or the like in method-options"
        };
        let mut state = self.0.lock();
        if !std::mem::replace(&mut state.too_long, true) {
            let reason = format!("{reason}: answers get worse; {remedy}");
            let method = recipe.name().into();
            state.waiting.push(EngineError::Method { name: method, reason });
        }
    }

    /// A new stream begins; what is not told yet still is.
    pub fn begin_anew(&self) {
        let mut state = self.0.lock();
        (state.not_finite, state.too_long) = (BTreeMap::new(), false);
    }

    pub fn take(&self) -> Vec<EngineError> {
        std::mem::take(&mut self.0.lock().waiting)
    }
}

/// Whether a question sees all units there have been.
pub fn sees_everything(recipe: &Recipe) -> bool {
    recipe.store && recipe.resident.is_none() && recipe.retrieval == Retrieval::All { last: None }
}
