// SPDX-License-Identifier: MPL-2.0
//! What is kept of a stream: per-layer blocks of un-rotated keys and values with provenance, the
//! local window that new frames see, and the ways in and out.
//!
//! The way in is [`VideoMemory::encode`], which reads the memory and returns an [`Encoded`] piece
//! of stream, and [`VideoMemory::commit`], which takes it in. A question about the open segment
//! encodes it and does not commit: that is the temporary branch. The way out is a [`View`].

pub mod attend;
pub mod budget;
pub mod position;
pub mod recipe;
pub mod retrieve;
pub mod score;
pub mod segment;
pub mod select;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::attend::{Guide, Ingest};
use crate::memory::budget::keep_counts;
use crate::memory::recipe::{Compression, Recipe};
use crate::memory::score::MeanQuery;
use crate::memory::segment::Segment;
use crate::memory::store::{Block, Kv, LayerStore, Window};
use crate::model::VideoLlm;
use crate::model::decoder::Decoder;
use crate::model::rope::{Layout, Positions, Rope};

/// The decoder's shape, as far as the memory needs it.
#[derive(Clone, Debug)]
pub struct Geometry {
    pub layers: usize,
    /// Query heads `H`.
    pub heads: usize,
    /// Key and value heads `Hk`.
    pub kv_heads: usize,
    /// `d`.
    pub head_dim: usize,
    /// Tokens of a unit, `M`.
    pub unit_tokens: usize,
    /// Softmax scale.
    pub scale: f64,
    pub dtype: DType,
    pub device: Device,
}

/// What a unit stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Frame,
    /// The mean frame of its segment.
    Summary,
}

/// Where a stored unit comes from. The same in every layer that still holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Counts up in stream order, dropped units included.
    pub id: u64,
    pub kind: Kind,
    pub segment: u64,
    /// Indices of the pushed frames it stands for.
    pub frames: Range<u64>,
    /// Seconds of stream time of its first and last frame.
    pub start: f64,
    pub end: f64,
}

/// A closed piece of stream that the decoder has seen but the memory does not hold.
#[derive(Debug)]
pub struct Encoded {
    pub units: Vec<Unit>,
    /// Tokens that entered the decoder.
    tokens: usize,
    layers: Vec<EncodedLayer>,
}

#[derive(Debug)]
struct EncodedLayer {
    /// Parts of `whole`.
    blocks: Vec<Block>,
    /// Keys rotated at their place in the stream, for the window; compression spares them.
    window: Kv,
    /// All un-rotated keys and values, for the guidance prompt.
    whole: Kv,
}

pub struct VideoMemory {
    pub(crate) geometry: Geometry,
    pub(crate) rope: Arc<Rope>,
    /// How the video's tokens are placed; text-like until [`lay_out`](Self::lay_out) says so.
    pub(crate) layout: Layout,
    /// Tokens a new token sees, itself included.
    pub(crate) window: Option<usize>,
    /// The same for questions and answers; `None`: they see their whole context.
    pub(crate) answer_window: Option<usize>,
    pub(crate) compat: bool,
    pub(crate) layers: Vec<LayerStore>,
    /// Units that some layer may still hold, by ascending id.
    units: VecDeque<Unit>,
    next_unit: u64,
    next_segment: u64,
    /// Tokens encoded so far, prefix included: the place of the next one in the stream.
    pub(crate) seen: usize,
}

impl VideoMemory {
    /// An empty memory for a model's decoder. What its units look like, the stream's first frame
    /// tells; see [`lay_out`](Self::lay_out).
    pub fn for_model(model: &VideoLlm, recipe: &Recipe) -> Self {
        let decoder = model.decoder();
        let geometry = Geometry {
            layers: decoder.layers(),
            heads: decoder.heads(),
            kv_heads: decoder.kv_heads(),
            head_dim: decoder.head_dim(),
            unit_tokens: 1,
            scale: decoder.scale(),
            dtype: model.dtype(),
            device: model.device().clone(),
        };
        Self::new(geometry, Arc::clone(decoder.rope()), recipe)
    }

    pub fn new(geometry: Geometry, rope: Arc<Rope>, recipe: &Recipe) -> Self {
        let layers = (0..geometry.layers)
            .map(|_| LayerStore {
                prefix: None,
                window: Window::new(recipe.window),
                blocks: VecDeque::new(),
            })
            .collect();
        Self {
            geometry,
            rope,
            layout: Layout::Run,
            window: recipe.window,
            answer_window: recipe.window.filter(|_| recipe.windowed_answers),
            compat: recipe.compat,
            layers,
            units: VecDeque::new(),
            next_unit: 0,
            next_segment: 0,
            seen: 0,
        }
    }

    /// Says what the units of this stream look like, before the first of them is encoded.
    pub fn lay_out(&mut self, unit_tokens: usize, layout: Layout) {
        self.geometry.unit_tokens = unit_tokens;
        self.layout = layout;
    }

    /// Where the next `n` tokens of the stream stand.
    pub(crate) fn upcoming(&self, n: usize) -> Positions {
        let prefix = self.prefix_tokens();
        let video = self.seen.saturating_sub(prefix);
        self.layout.stretch(prefix, video..video + n).positions
    }

    /// Runs the tokens before the video, `[n, C]`, and keeps them as every context's first part.
    pub fn open(&mut self, decoder: &Decoder, prefix: &Tensor, cancel: &Cancel) -> Result<()> {
        let mut ingest = Ingest::new(self, cancel);
        decoder.forward(prefix, &mut ingest)?;
        let fresh = ingest.into_layers();
        self.seen += prefix.dim(0)?;
        for (layer, (raw, rotated)) in self.layers.iter_mut().zip(fresh) {
            layer.window.append(&rotated)?;
            layer.prefix = Some(raw);
        }
        Ok(())
    }

    /// Runs a segment through the decoder as the next piece of the stream and drops what the
    /// compression does not keep. The memory itself does not change.
    pub fn encode(
        &self,
        decoder: &Decoder,
        segment: &Segment,
        summary: bool,
        cancel: &Cancel,
    ) -> Result<Encoded> {
        let units = self.name_units(segment, summary);
        let mut tokens: Vec<Tensor> = segment.frames.iter().map(|f| f.tokens.clone()).collect();
        if summary {
            tokens.push(segment.summary()?);
        }
        let embeds = Tensor::cat(&tokens, 0)?;
        let mut ingest = Ingest::new(self, cancel);
        decoder.forward(&embeds, &mut ingest)?;
        self.encoded(units, ingest.into_layers())
    }

    /// Cuts what an ingest pass left behind into blocks.
    pub(crate) fn encoded(&self, units: Vec<Unit>, fresh: Vec<(Kv, Kv)>) -> Result<Encoded> {
        let per_unit = self.geometry.unit_tokens;
        let mut layers = Vec::with_capacity(fresh.len());
        for (raw, rotated) in fresh {
            let block =
                |(i, unit): (usize, &Unit)| Block::new(unit.id, raw.part(i * per_unit, per_unit)?);
            let blocks = units.iter().enumerate().map(block);
            layers.push(EncodedLayer {
                blocks: blocks.collect::<Result<_>>()?,
                window: rotated,
                whole: raw,
            });
        }
        Ok(Encoded { tokens: units.len() * per_unit, units, layers })
    }

    fn name_units(&self, segment: &Segment, summary: bool) -> Vec<Unit> {
        let mut units: Vec<Unit> = (self.next_unit..)
            .zip(&segment.frames)
            .map(|(id, frame)| Unit {
                id,
                kind: Kind::Frame,
                segment: self.next_segment,
                frames: frame.frames.clone(),
                start: frame.start,
                end: frame.end,
            })
            .collect();
        if let (true, Some(first), Some(last)) = (summary, units.first(), units.last()) {
            let summary = Unit {
                id: last.id + 1,
                kind: Kind::Summary,
                segment: self.next_segment,
                frames: first.frames.start..last.frames.end,
                start: first.start,
                end: last.end,
            };
            units.push(summary);
        }
        units
    }

    /// Takes in a piece of stream that [`encode`](Self::encode) made from this memory's present
    /// state.
    pub fn commit(&mut self, encoded: Encoded) -> Result<()> {
        for (layer, fresh) in self.layers.iter_mut().zip(encoded.layers) {
            layer.window.append(&fresh.window)?;
            for block in fresh.blocks {
                layer.blocks.push_back(block.stored()?);
            }
        }
        self.seen += encoded.tokens;
        self.next_segment += 1;
        self.next_unit += encoded.units.len() as u64;
        self.units.extend(encoded.units);
        Ok(())
    }

    /// Drops the oldest units of every layer down to the newest `count`.
    pub fn keep_last(&mut self, count: usize) {
        for layer in &mut self.layers {
            let surplus = layer.blocks.len().saturating_sub(count);
            layer.blocks.drain(..surplus);
        }
        self.forget_lost_units();
    }

    /// Drops the oldest units, in all layers alike, until at most `bytes` are stored or one unit
    /// is left.
    pub fn shrink_to(&mut self, bytes: u64) {
        while self.bytes() > bytes && self.units.len() > 1 {
            let Some(oldest) = self.units.front().map(|unit| unit.id) else { return };
            for layer in &mut self.layers {
                while layer.blocks.front().is_some_and(|block| block.unit <= oldest) {
                    layer.blocks.pop_front();
                }
            }
            self.units.pop_front();
        }
        self.forget_lost_units();
    }

    fn forget_lost_units(&mut self) {
        let oldest = self.layers.iter().filter_map(|l| l.blocks.front()).map(|b| b.unit).min();
        while self.units.front().is_some_and(|unit| oldest.is_none_or(|oldest| unit.id < oldest)) {
            self.units.pop_front();
        }
    }

    /// Keys and values held, windows and prefix included.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(LayerStore::bytes).sum()
    }

    /// Units that at least one layer may still hold.
    pub fn units(&self) -> impl ExactSizeIterator<Item = &Unit> {
        self.units.iter()
    }

    pub fn segments(&self) -> u64 {
        self.next_segment
    }

    /// Ids of the units that a layer holds, in stream order.
    pub fn held(&self, layer: usize) -> Vec<u64> {
        self.layers
            .get(layer)
            .map_or_else(Vec::new, |store| store.blocks.iter().map(|block| block.unit).collect())
    }

    /// Tokens in front of the video.
    pub fn prefix_tokens(&self) -> usize {
        self.layers
            .first()
            .and_then(|layer| layer.prefix.as_ref())
            .and_then(|prefix| prefix.tokens().ok())
            .unwrap_or(0)
    }
}

impl Encoded {
    /// Scores each frame by the guidance prompt `[n, C]` and keeps the best of each layer, and the
    /// summary (StreamKV 3.3). The prompt sees this segment only and leaves nothing behind.
    pub fn compress(
        &mut self,
        memory: &VideoMemory,
        decoder: &Decoder,
        guidance: &Tensor,
        compression: &Compression,
        cancel: &Cancel,
    ) -> Result<()> {
        let frames = self.units.iter().filter(|unit| unit.kind == Kind::Frame).count();
        if compression.keep_ratio >= 1.0 || frames == 0 {
            return Ok(());
        }
        let whole: Vec<&Kv> = self.layers.iter().map(|layer| &layer.whole).collect();
        let mut guide = Guide::new(memory, whole, cancel);
        decoder.forward(guidance, &mut guide)?;
        let scores = self.frame_scores(&guide.into_queries(), frames);
        let counts = keep_counts(&scores, frames, compression.keep_ratio, compression.rule);
        for ((layer, scores), count) in self.layers.iter_mut().zip(&scores).zip(counts) {
            layer.keep(frames, &select::top(scores, count));
        }
        Ok(())
    }

    fn frame_scores(&self, queries: &[MeanQuery], frames: usize) -> Vec<Vec<f32>> {
        let score = |layer: &EncodedLayer, query: &MeanQuery| -> Vec<f32> {
            let frames = layer.blocks.iter().take(frames);
            frames.map(|b| query.score(&b.representative, score::Similarity::Dot)).collect()
        };
        self.layers.iter().zip(queries).map(|(layer, query)| score(layer, query)).collect()
    }

    /// Ids of the units that a layer still holds.
    pub fn held(&self, layer: usize) -> Vec<u64> {
        self.layers
            .get(layer)
            .map_or_else(Vec::new, |l| l.blocks.iter().map(|block| block.unit).collect())
    }
}

impl EncodedLayer {
    /// Keeps the chosen ones of the first `frames` blocks (ascending) and all behind them.
    fn keep(&mut self, frames: usize, chosen: &[usize]) {
        let mut index = 0;
        self.blocks.retain(|_| {
            let keep = index >= frames || chosen.binary_search(&index).is_ok();
            index += 1;
            keep
        });
    }
}

/// A memory and, for a question about the present, the branch that holds the open segment.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub memory: &'a VideoMemory,
    pub branch: Option<&'a Encoded>,
}

impl<'a> View<'a> {
    /// A layer's blocks in stream order.
    pub fn blocks(&self, layer: usize) -> impl Iterator<Item = &'a Block> {
        let stored = self.memory.layers.get(layer).into_iter().flat_map(|l| l.blocks.iter());
        let branch = self.branch.and_then(|branch| branch.layers.get(layer));
        stored.chain(branch.into_iter().flat_map(|l| l.blocks.iter()))
    }

    pub fn unit(&self, id: u64) -> Option<&'a Unit> {
        let stored = self.memory.units.binary_search_by_key(&id, |unit| unit.id);
        match stored {
            Ok(index) => self.memory.units.get(index),
            Err(_) => self.branch?.units.iter().find(|unit| unit.id == id),
        }
    }
}
