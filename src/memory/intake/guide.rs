// SPDX-License-Identifier: MPL-2.0
//! A prompt over one encoded segment that says what to keep of it (StreamKV §3.3).

use candle_core::Tensor;

use super::behind::{AnswerWindow, Behind};
use super::encoded::{Encoded, EncodedLayer};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::keep::Held;
use crate::memory::kv::Kv;
use crate::memory::recipe::{Compression, Similarity};
use crate::memory::unit::{Kind, Words};
use crate::memory::weigh::budget::keep_counts;
use crate::memory::weigh::score::{MeanQuery, Unread};
use crate::memory::weigh::select::top;
use crate::model::decoder::{Attend, Decoder};
use crate::model::rope::Kept;

/// Scores each frame by the guidance prompt `[n, C]` and keeps the best of each layer, and the
/// summary. The prompt sees this segment only and leaves nothing behind.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
pub fn compress(
    encoded: &mut Encoded,
    held: Held<'_>,
    compression: &Compression,
    guidance: &Tensor,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<()> {
    let frames = encoded.units.iter().filter(|unit| unit.kind == Kind::Frame).count();
    let empty = encoded.layers.iter().all(|layer| layer.blocks.is_empty());
    let whole: Option<Vec<&Kv>> = encoded.layers.iter().map(|l| l.whole.as_ref()).collect();
    let Some(whole) = whole else { return Ok(()) };
    if compression.keep_ratio >= 1.0 || frames == 0 || empty {
        return Ok(());
    }
    let units: Vec<(Words, usize)> =
        encoded.units.iter().map(|unit| (unit.words, held.geometry.length(unit))).collect();
    let mut guide = Guide::new(held, whole, cancel).of(&units);
    decoder.forward(guidance, &mut guide)?;
    let scores = frame_scores(&encoded.layers, &guide.into_queries(), frames)?;
    let counts = keep_counts(&scores, frames, compression.keep_ratio, compression.rule);
    for ((layer, scores), count) in encoded.layers.iter_mut().zip(&scores).zip(counts) {
        keep(layer, frames, &top(scores, count))?;
    }
    Ok(())
}

/// Of each layer the scores of its first `frames` blocks, all layers' in one read.
fn frame_scores(
    layers: &[EncodedLayer],
    queries: &[MeanQuery],
    frames: usize,
) -> Result<Vec<Vec<f32>>> {
    let score = |(layer, query): (&EncodedLayer, &MeanQuery)| {
        query.scores(layer.blocks.mean_keys(), Similarity::Dot)
    };
    let scores = layers.iter().zip(queries).map(score).collect::<Result<_>>()?;
    let mut scores = Unread::read_all(scores)?;
    scores.iter_mut().for_each(|scores| scores.truncate(frames));
    Ok(scores)
}

/// Keeps the chosen ones of the first `frames` blocks (ascending) and all behind them.
fn keep(layer: &mut EncodedLayer, frames: usize, chosen: &[usize]) -> Result<()> {
    layer.blocks.retain(|index, _| index >= frames || chosen.binary_search(&index).is_ok())
}

/// The guidance prompt over one encoded segment: sees nothing before it, leaves only its mean
/// queries (StreamKV 3.3).
pub struct Guide<'a> {
    held: Held<'a>,
    segment: Vec<&'a Kv>,
    /// Words and tokens of each unit, where there are words.
    units: &'a [(Words, usize)],
    cancel: &'a Cancel,
    queries: Vec<MeanQuery>,
}

impl<'a> Guide<'a> {
    /// `segment`: per layer the un-rotated keys and values of the segment.
    pub fn new(held: Held<'a>, segment: Vec<&'a Kv>, cancel: &'a Cancel) -> Self {
        Self { held, segment, units: &[], cancel, queries: Vec::new() }
    }

    /// The segment's units, each with the words around it and its tokens, words included.
    pub fn of(self, units: &'a [(Words, usize)]) -> Self {
        Self { units, ..self }
    }

    pub fn into_queries(self) -> Vec<MeanQuery> {
        self.queries
    }
}

impl Attend for Guide<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let geometry = self.held.geometry;
        self.queries.push(MeanQuery::of(q, geometry.kv_heads, geometry.on_device)?);
        let (rope, segment) = (&geometry.rope, self.segment[layer]);
        // Positions restart at the segment.
        let placed = match self.units.iter().any(|(words, _)| words.tokens() > 0) {
            true => geometry.layout.packed(
                0,
                self.units.iter().map(|&(Words { front, behind }, n)| {
                    Kept::all(n.saturating_sub(front + behind)).within(front, behind)
                }),
            ),
            false => geometry.layout.stretch(0, 0..segment.tokens()?),
        };
        let keys = rope.rotate(&segment.k, &placed.positions)?;
        let context = Kv { k: keys, v: segment.v.clone() };
        // In the reference it looks back as far as frames do.
        let window = self.held.recipe.window.filter(|_| self.held.recipe.compat);
        let window = window.map(|width| AnswerWindow { width, sinks: None, far: 0 });
        let behind = Behind { rope, scale: geometry.scale, context: Some(&context), window };
        behind.attend_fresh(placed.next, q, k, v)
    }
}
