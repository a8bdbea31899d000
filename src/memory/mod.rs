// SPDX-License-Identifier: MPL-2.0
//! What is kept of a stream: per-layer blocks of un-rotated keys and values with provenance, the
//! local window that new frames see, and the ways in and out.
//!
//! The way in is [`VideoMemory::encode`], which reads the memory and returns an [`Encoded`] piece
//! of stream, and [`VideoMemory::commit`], which takes it in. A question about the open segment
//! encodes it and does not commit: that is the temporary branch. The way out is a [`View`].

pub mod attend;
pub mod budget;
mod evict;
#[cfg(test)]
mod golden;
pub mod grains;
#[cfg(test)]
mod laws;
pub mod position;
mod probe;
pub mod rank;
pub mod recipe;
pub mod reduce;
pub mod reread;
pub mod resident;
pub mod retrieve;
pub mod score;
pub mod segment;
pub mod select;
pub mod sparse;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::memory::attend::{Guide, Ingest};
use crate::memory::budget::keep_counts;
use crate::memory::evict::{Frame, Scores};
use crate::memory::grains::{Alone, Grains};
use crate::memory::position::Order;
use crate::memory::probe::{Ask, Grow};
use crate::memory::recipe::{Compression, Keeps, Recipe, Resident, Sees};
use crate::memory::reread::{filed, gist};
use crate::memory::resident::{Layer, Places, RESIDUE, Row, gather};
use crate::memory::score::{MeanQuery, representative};
use crate::memory::segment::Segment;
use crate::memory::sparse::{IngestSparse, Sparse};
use crate::memory::store::{Block, Kv, LayerStore, Store, StoreOptions, StoreStats, Window};
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
    /// A piece of the recipe's grain of this number.
    Piece {
        grain: usize,
    },
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
    /// Tokens of video in front of it, as it entered the decoder.
    pub at: usize,
    /// Which of its picture's tokens it consists of; `None`: all, in order.
    pub patches: Option<Arc<[u32]>>,
    /// What an outside model makes of its first picture.
    pub embedding: Option<Arc<[f32]>>,
}

/// A closed piece of stream that the decoder has seen but the memory does not hold.
#[derive(Debug)]
pub struct Encoded {
    pub units: Vec<Unit>,
    /// Tokens that entered the decoder.
    tokens: usize,
    layers: Vec<EncodedLayer>,
    /// The resident cache with this piece in it.
    resident: Option<Vec<Layer>>,
    /// The window of changed keys behind it.
    sparse: Option<Vec<sparse::Layer>>,
    /// What entered the decoder, unit by unit, if that is what is kept.
    inputs: Vec<Block>,
}

#[derive(Debug)]
struct EncodedLayer {
    /// Parts of `whole`, or their gists.
    blocks: Vec<Block>,
    /// Keys rotated at their place in the stream, for the window; compression spares them.
    window: Option<Kv>,
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
    /// What new tokens see.
    sees: Sees,
    /// Whether units are kept to be retrieved, and what of them.
    store: bool,
    keeps: Keeps,
    pub(crate) places: Places,
    pub(crate) order: Order,
    /// The same tokens cut several times, if the recipe says so.
    grains: Grains,
    /// Cosine of keys above which one of two tokens of a piece goes.
    grain_alike: f64,
    /// The windows where new tokens see changed keys.
    sparse: Vec<sparse::Layer>,
    /// Whether units are represented by their changed keys.
    changed_representative: bool,
    /// How the resident cache is bounded, if there is one.
    pub(crate) residency: Option<Resident>,
    resident: Option<Vec<Layer>>,
    /// The embedded prompts that ask the resident cache what matters, `[n, C]` each.
    probes: Vec<Tensor>,
    /// What entered the decoder, in stream order, if that is what is kept.
    inputs: VecDeque<Block>,
    /// Where the blocks of all layers lie, and behind the last layer the inputs.
    tiers: Store,
    /// Units that some layer may still hold, by ascending id.
    units: VecDeque<Unit>,
    next_unit: u64,
    next_segment: u64,
    /// Tokens encoded so far, prefix included: the place of the next one in the stream.
    pub(crate) seen: usize,
}

/// A unit's blocks are of a size, or one is its input and the others, together, are less.
fn store(options: StoreOptions, geometry: &Geometry, keeps: Keeps) -> Store {
    let (places, of_a_size) = match keeps {
        Keeps::KeysAndValues => (geometry.layers, geometry.layers),
        Keeps::Inputs => (geometry.layers + 1, 2),
    };
    Store::new(options, places, of_a_size, geometry.device.clone())
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
        let layers: Vec<LayerStore> = (0..geometry.layers)
            .map(|_| LayerStore {
                prefix: None,
                window: Window::new(recipe.window),
                blocks: VecDeque::new(),
            })
            .collect();
        let tiers = store(StoreOptions::default(), &geometry, recipe.keeps);
        Self {
            geometry,
            rope,
            layout: Layout::Run,
            window: recipe.window,
            answer_window: recipe.window.filter(|_| recipe.windowed_answers),
            compat: recipe.compat,
            sees: recipe.sees,
            grains: recipe.grains.clone(),
            grain_alike: recipe.grain_alike,
            sparse: vec![sparse::Layer::default(); layers.len()],
            changed_representative: recipe.changed_representative,
            store: recipe.store,
            keeps: recipe.keeps,
            places: recipe.places,
            order: recipe.order,
            resident: recipe.resident.as_ref().map(|_| vec![Layer::default(); layers.len()]),
            residency: recipe.resident.clone(),
            probes: Vec::new(),
            inputs: VecDeque::new(),
            tiers,
            layers,
            units: VecDeque::new(),
            next_unit: 0,
            next_segment: 0,
            seen: 0,
        }
    }

    /// An empty memory's blocks will be kept that way.
    pub fn store_in(&mut self, options: StoreOptions) {
        self.tiers = store(options, &self.geometry, self.keeps);
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

    /// The embedded prompts, `[n, C]` each, that [`Recipe::probes`] names.
    pub fn set_probes(&mut self, probes: Vec<Tensor>) {
        self.probes = probes;
    }

    /// Where `n` tokens of a unit come from and where they stood in the stream.
    pub(crate) fn rows_of(&self, unit: &Unit, n: usize) -> Vec<Row> {
        let prefix = self.prefix_tokens();
        let patch = |i: usize| match &unit.patches {
            Some(patches) => patches.get(i).copied().unwrap_or(i as u32),
            None => i as u32,
        };
        // Dropped before it was encoded, a patch leaves no gap on a single axis; after that, it does.
        let dense = self.layout == Layout::Run && !matches!(unit.kind, Kind::Piece { .. });
        let place = |i: usize| {
            let token = unit.at + if dense { i } else { patch(i) as usize };
            self.layout.stretch(prefix, token..token + 1).positions.places()[0]
        };
        (0..n)
            .map(|i| Row {
                unit: unit.id,
                patch: patch(i),
                step: unit.segment,
                place: place(i),
                score: 0.0,
            })
            .collect()
    }

    /// Runs the tokens before the video, `[n, C]`, and keeps them as every context's first part.
    pub fn open(&mut self, decoder: &Decoder, prefix: &Tensor, cancel: &Cancel) -> Result<()> {
        let mut ingest = Ingest::new(self, cancel);
        decoder.forward(prefix, &mut ingest)?;
        let fresh = ingest.into_layers();
        self.seen += prefix.dim(0)?;
        for (layer, (raw, rotated)) in self.layers.iter_mut().zip(fresh) {
            if self.sees == Sees::Window {
                layer.window.append(&rotated)?;
            }
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
        let inputs = self.inputs(segment, summary)?;
        if let (Some(resident), Sees::Resident) = (&self.resident, self.sees) {
            return self.encode_beside(resident, decoder, inputs, segment, cancel);
        }
        if !self.grains.is_empty() {
            return self.encode_grains(decoder, segment, cancel);
        }
        if let Sees::Changed(rule) = self.sees {
            return self.encode_sparse(rule, decoder, inputs, cancel);
        }
        let tokens: Vec<&Tensor> = inputs.iter().map(|(_, tokens)| tokens).collect();
        let embeds = Tensor::cat(&tokens, 0)?;
        let mut ingest = Ingest::new(self, cancel);
        decoder.forward(&embeds, &mut ingest)?;
        let fresh = ingest.into_layers();
        let raw: Vec<&Kv> = fresh.iter().map(|(raw, _)| raw).collect();
        let resident = self.grown(&inputs, &raw, decoder, cancel)?;
        let kept = match self.keeps {
            Keeps::Inputs => inputs.iter().map(|(u, t)| Block::new(u.id, filed(t)?)).collect(),
            Keeps::KeysAndValues => Ok(Vec::new()),
        };
        let units = inputs.into_iter().map(|(unit, _)| unit).collect();
        Ok(Encoded { resident, inputs: kept?, ..self.encoded(units, fresh)? })
    }

    /// The resident cache with tokens that came in by other ways than beside it.
    fn grown(
        &self,
        inputs: &[(Unit, Tensor)],
        raw: &[&Kv],
        decoder: &Decoder,
        cancel: &Cancel,
    ) -> Result<Option<Vec<Layer>>> {
        let Some(resident) = &self.resident else { return Ok(None) };
        let rows = self.rows_of_all(inputs)?;
        let layers = resident.iter().zip(raw);
        let layers = layers.map(|(layer, raw)| layer.with(raw, std::slice::from_ref(&rows)));
        let layers = layers.collect::<Result<_>>()?;
        Ok(Some(self.shrunk(layers, None, decoder, cancel)?))
    }

    /// Frames come in with a window of changed keys before them.
    fn encode_sparse(
        &self,
        rule: Sparse,
        decoder: &Decoder,
        inputs: Vec<(Unit, Tensor)>,
        cancel: &Cancel,
    ) -> Result<Encoded> {
        let tokens: Vec<&Tensor> = inputs.iter().map(|(_, tokens)| tokens).collect();
        let lengths: Vec<usize> =
            tokens.iter().map(|tokens| tokens.dim(0)).collect::<candle_core::Result<_>>()?;
        let mut ingest = IngestSparse::new(self, rule, &self.sparse, &lengths, cancel);
        decoder.forward(&Tensor::cat(&tokens, 0)?, &mut ingest)?;
        let fresh = ingest.into_layers();
        let mut raw = Vec::with_capacity(fresh.len());
        let mut windows = Vec::with_capacity(fresh.len());
        let mut changed = Vec::with_capacity(fresh.len());
        for (kv, window, kept) in fresh {
            raw.push((kv, None));
            windows.push(window);
            changed.push(kept);
        }
        let grown: Vec<&Kv> = raw.iter().map(|(kv, _)| kv).collect();
        let resident = self.grown(&inputs, &grown, decoder, cancel)?;
        let units = inputs.into_iter().map(|(unit, _)| unit).collect();
        let mut encoded = self.cut_blocks(units, raw)?;
        if self.changed_representative {
            for (layer, kept) in encoded.layers.iter_mut().zip(changed) {
                for (block, kept) in layer.blocks.iter_mut().zip(kept) {
                    if let Some(kv) = block.load()? {
                        block.representative = representative(&gather(&kv, &[kept])?.k)?;
                    }
                }
            }
        }
        Ok(Encoded { resident, sparse: Some(windows), ..encoded })
    }

    /// The segment's tokens, cut once for each grain, every piece alone behind the prefix.
    fn encode_grains(
        &self,
        decoder: &Decoder,
        segment: &Segment,
        cancel: &Cancel,
    ) -> Result<Encoded> {
        let tokens: Vec<&Tensor> = segment.frames.iter().map(|frame| &frame.tokens).collect();
        let tokens = Tensor::cat(&tokens, 0)?;
        let n = tokens.dim(0)?;
        let mut sources = Vec::with_capacity(n);
        for frame in &segment.frames {
            sources.extend((0..frame.tokens.dim(0)?).map(|_| frame));
        }
        let before = self.seen.saturating_sub(self.prefix_tokens());
        let unit_tokens = self.geometry.unit_tokens.max(1);
        // Units with their blocks of all layers.
        let mut pieces: Vec<(Unit, Vec<Block>)> = Vec::new();
        for (index, grain) in self.grains.iter().enumerate() {
            let size = grain.tokens(unit_tokens);
            let whole = n - n % size;
            if whole == 0 {
                continue;
            }
            let mut alone = Alone::new(self, size, cancel);
            decoder.forward(&tokens.narrow(0, 0, whole)?, &mut alone)?;
            let layers = alone.into_layers();
            let Some(last) = layers.last() else { continue };
            for start in (0..whole).step_by(size) {
                let keys = grains::mean_heads(&last.rotated.narrow(1, start, size)?)?;
                let received = last.received.get(start..start + size).unwrap_or(&[]);
                let importance = grains::importance(received, &keys, grain.attention);
                let kept = grains::choose(&importance, &keys, grain.kept(size), self.grain_alike);
                let (Some(from), Some(to)) = (sources.get(start), sources.get(start + size - 1))
                else {
                    continue;
                };
                // Where in its picture a piece of a grid begins.
                let base = if self.layout == Layout::Run { 0 } else { start % unit_tokens };
                let unit = Unit {
                    id: 0,
                    kind: Kind::Piece { grain: index },
                    segment: self.next_segment,
                    frames: from.frames.start..to.frames.end,
                    start: from.start,
                    end: to.end,
                    at: before + start - base,
                    patches: Some(kept.iter().map(|&i| (base + i) as u32).collect()),
                    embedding: from.embedding.clone(),
                };
                let blocks = layers.iter().map(|layer| {
                    let kv = gather(&layer.raw.part(start, size)?, std::slice::from_ref(&kept))?;
                    let rotated = layer.rotated.narrow(1, start, size)?;
                    let rotated = Kv { v: rotated.clone(), k: rotated };
                    let rotated = gather(&rotated, std::slice::from_ref(&kept))?;
                    let mut block = Block::new(0, kv)?;
                    block.representative = representative(&rotated.k)?;
                    Ok(block)
                });
                pieces.push((unit, blocks.collect::<Result<_>>()?));
            }
        }
        // In the order in which they end.
        pieces.sort_by_key(|(unit, _)| unit.frames.end);
        let mut units = Vec::with_capacity(pieces.len());
        let empty = || -> Result<Kv> {
            let (heads, dim) = (self.geometry.kv_heads, self.geometry.head_dim);
            let none = Tensor::zeros((heads, 0, dim), self.geometry.dtype, &self.geometry.device)?;
            Ok(Kv { k: none.clone(), v: none })
        };
        let mut layers = Vec::with_capacity(self.geometry.layers);
        for _ in 0..self.geometry.layers {
            layers.push(EncodedLayer { blocks: Vec::new(), window: None, whole: empty()? });
        }
        for ((mut unit, blocks), id) in pieces.into_iter().zip(self.next_unit..) {
            unit.id = id;
            units.push(unit);
            for (layer, mut block) in layers.iter_mut().zip(blocks) {
                block.unit = id;
                layer.blocks.push(block);
            }
        }
        Ok(Encoded { tokens: n, units, layers, resident: None, sparse: None, inputs: Vec::new() })
    }

    fn rows_of_all(&self, inputs: &[(Unit, Tensor)]) -> Result<Vec<Row>> {
        let rows = inputs.iter().map(|(unit, tokens)| Ok(self.rows_of(unit, tokens.dim(0)?)));
        Ok(rows.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Frames come in beside the resident cache, as many at a time as it has room for.
    fn encode_beside(
        &self,
        resident: &[Layer],
        decoder: &Decoder,
        inputs: Vec<(Unit, Tensor)>,
        segment: &Segment,
        cancel: &Cancel,
    ) -> Result<Encoded> {
        let mut resident = resident.to_vec();
        let mut raw: Vec<Vec<Kv>> = vec![Vec::new(); resident.len()];
        let mut rest = &inputs[..];
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(self.room(&resident, rest)?);
            rest = later;
            let tokens: Vec<&Tensor> = piece.iter().map(|(_, tokens)| tokens).collect();
            let rows = self.rows_of_all(piece)?;
            let peaks: BTreeSet<u64> =
                segment.frames.iter().filter(|f| f.peak).map(|f| f.frames.start).collect();
            let pivots: Vec<bool> = piece
                .iter()
                .map(|(unit, tokens)| Ok(vec![peaks.contains(&unit.frames.start); tokens.dim(0)?]))
                .collect::<Result<Vec<_>>>()?
                .concat();
            let mut grow = Grow::new(self, &resident, &rows, &pivots, cancel);
            decoder.forward(&Tensor::cat(&tokens, 0)?, &mut grow)?;
            let grown = grow.into_layers();
            let mut received = Vec::with_capacity(grown.len());
            for ((layer, raw), grown) in resident.iter_mut().zip(&mut raw).zip(grown) {
                *layer = layer.with(&grown.raw, &grown.rows)?;
                received.extend(grown.received);
                raw.push(grown.raw);
            }
            let received = (!received.is_empty()).then_some(received);
            resident = self.shrunk(resident, received, decoder, cancel)?;
        }
        let layers = raw.iter().map(|parts| {
            let keys: Vec<&Tensor> = parts.iter().map(|kv| &kv.k).collect();
            let values: Vec<&Tensor> = parts.iter().map(|kv| &kv.v).collect();
            Ok(Kv { k: Tensor::cat(&keys, 1)?, v: Tensor::cat(&values, 1)? })
        });
        let layers: Vec<Kv> = layers.collect::<Result<_>>()?;
        let units = inputs.into_iter().map(|(unit, _)| unit).collect();
        let encoded =
            self.cut_blocks(units, layers.into_iter().map(|raw| (raw, None)).collect())?;
        Ok(Encoded { resident: Some(resident), ..encoded })
    }

    /// How many of these units may come in before the cache has to shrink, at least one.
    fn room(&self, resident: &[Layer], units: &[(Unit, Tensor)]) -> Result<usize> {
        let Some(recipe) = self.residency.as_ref().filter(|recipe| recipe.floor < 1.0) else {
            return Ok(units.len());
        };
        let cap = recipe.cap * self.geometry.unit_tokens;
        let held = resident.iter().map(Layer::tokens).max().unwrap_or(0);
        let mut room = cap.saturating_sub(held);
        let mut count = 0;
        for (_, tokens) in units {
            let n = tokens.dim(0)?;
            if n > room {
                break;
            }
            room -= n;
            count += 1;
        }
        Ok(count.max(1))
    }

    /// The cache within its bound.
    fn shrunk(
        &self,
        layers: Vec<Layer>,
        received: Option<Vec<Scores>>,
        decoder: &Decoder,
        cancel: &Cancel,
    ) -> Result<Vec<Layer>> {
        let Some(recipe) = &self.residency else { return Ok(layers) };
        let unit = self.geometry.unit_tokens.max(1);
        let held = layers.iter().map(Layer::tokens).max().unwrap_or(0);
        let seen = layers.iter().map(Layer::seen).max().unwrap_or(0);
        let Some(budget) = recipe.shrink_to(held, seen, unit) else { return Ok(layers) };
        let received = match received {
            None if recipe.asks() => Some(self.ask_probes(&layers, recipe, decoder, cancel)?),
            received => received,
        };
        let frame = Frame {
            rope: &self.rope,
            unit_tokens: unit,
            layout: self.layout,
            prefix: self.prefix_tokens(),
            compat: self.compat,
        };
        evict::shrink(&layers, recipe, self.places, budget, received, &frame)
    }

    /// What each layer's rows receive from the prompts: from the one there is, or each layer from
    /// that of its depth (shallow, middle, deep).
    fn ask_probes(
        &self,
        layers: &[Layer],
        recipe: &Resident,
        decoder: &Decoder,
        cancel: &Cancel,
    ) -> Result<Vec<Scores>> {
        let mut answers = Vec::with_capacity(self.probes.len());
        for probe in &self.probes {
            let mut ask = Ask::new(self, layers, recipe.heads, cancel);
            decoder.forward(probe, &mut ask)?;
            answers.push(ask.into_layers());
        }
        let depth = layers.len();
        let role = |layer: usize| {
            usize::from(layer >= score::shallow_to(depth))
                + usize::from(layer >= score::deep_from(depth))
        };
        let of = |layer: usize| -> Scores {
            let answer = answers.get(role(layer)).or(answers.first());
            let scores = answer.and_then(|layers| layers.get(layer)).cloned();
            scores.unwrap_or_else(|| vec![vec![0.0; layers[layer].tokens()]])
        };
        Ok((0..depth).map(of).collect())
    }

    /// Cuts what an ingest pass left behind into blocks.
    pub(crate) fn encoded(&self, units: Vec<Unit>, fresh: Vec<(Kv, Kv)>) -> Result<Encoded> {
        let fresh = fresh.into_iter().map(|(raw, rotated)| (raw, Some(rotated))).collect();
        self.cut_blocks(units, fresh)
    }

    fn cut_blocks(&self, units: Vec<Unit>, fresh: Vec<(Kv, Option<Kv>)>) -> Result<Encoded> {
        let mut layers = Vec::with_capacity(fresh.len());
        let lengths: Vec<usize> = units.iter().map(|unit| self.length(unit)).collect();
        for (raw, rotated) in fresh {
            let mut blocks = Vec::with_capacity(units.len());
            let mut start = 0;
            for (unit, &len) in units.iter().zip(&lengths).filter(|_| self.store) {
                let whole = raw.part(start, len)?;
                let kept = match self.keeps {
                    Keeps::KeysAndValues => whole,
                    Keeps::Inputs => gist(&whole)?,
                };
                blocks.push(Block::new(unit.id, kept)?);
                start += len;
            }
            layers.push(EncodedLayer { blocks, window: rotated, whole: raw });
        }
        let tokens = units.iter().map(|unit| self.steps(unit)).sum();
        Ok(Encoded { tokens, units, layers, resident: None, sparse: None, inputs: Vec::new() })
    }

    /// Tokens of a unit.
    fn length(&self, unit: &Unit) -> usize {
        unit.patches.as_ref().map_or(self.geometry.unit_tokens, |patches| patches.len())
    }

    /// Places that a unit takes: a picture with holes is as large as a whole one.
    fn steps(&self, unit: &Unit) -> usize {
        if self.layout == Layout::Run { self.length(unit) } else { self.geometry.unit_tokens }
    }

    /// The segment's units with their tokens `[n, C]`, the summary behind them.
    fn inputs(&self, segment: &Segment, summary: bool) -> Result<Vec<(Unit, Tensor)>> {
        let mut tokens: Vec<Tensor> = segment.frames.iter().map(|f| f.tokens.clone()).collect();
        let mean = if summary { segment.summary()? } else { None };
        let mut units = self.name_units(segment, mean.is_some());
        let mut at = self.seen.saturating_sub(self.prefix_tokens());
        for unit in &mut units {
            unit.at = at;
            at += self.steps(unit);
        }
        tokens.extend(mean);
        Ok(units.into_iter().zip(tokens).collect())
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
                at: 0,
                patches: frame.patches.clone(),
                embedding: frame.embedding.clone(),
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
                at: 0,
                patches: None,
                embedding: None,
            };
            units.push(summary);
        }
        units
    }

    /// Takes in a piece of stream that [`encode`](Self::encode) made from this memory's present
    /// state.
    pub fn commit(&mut self, encoded: Encoded) -> Result<()> {
        let held: BTreeSet<u64> =
            encoded.layers.iter().flat_map(|layer| &layer.blocks).map(|block| block.unit).collect();
        for input in encoded.inputs.into_iter().filter(|input| held.contains(&input.unit)) {
            self.inputs.push_back(self.tiers.put(self.layers.len(), input)?);
        }
        for (index, (layer, fresh)) in self.layers.iter_mut().zip(encoded.layers).enumerate() {
            if let Some(window) = &fresh.window {
                layer.window.append(window)?;
            }
            for block in fresh.blocks {
                layer.blocks.push_back(self.tiers.put(index, block)?);
            }
        }
        self.seen += encoded.tokens;
        self.next_segment += 1;
        self.next_unit += encoded.units.len() as u64;
        self.units.extend(encoded.units);
        if let Some(sparse) = encoded.sparse {
            self.sparse = sparse;
        }
        if encoded.resident.is_some() {
            self.resident = encoded.resident;
            self.forget_lost_units();
        }
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

    /// Moves blocks between the tiers until each is within its budget, and drops units, the oldest
    /// first and in all layers alike, until that is so or one unit is left.
    ///
    /// # Errors
    /// What the computation fails with; a tier that fails is a [warning](Self::take_warnings).
    pub fn settle(&mut self) -> Result<()> {
        for layer in &mut self.layers {
            layer.blocks.retain(|block| !block.is_lost());
        }
        for lost in self.inputs.iter().filter(|input| input.is_lost()) {
            self.layers.iter_mut().for_each(|layer| layer.drop_unit(lost.unit));
        }
        self.inputs.retain(|input| !input.is_lost());
        let fixed = self.fixed_bytes();
        let mut dropped = None;
        while let Some(unit) = self.tiers.settle(fixed)?
            && self.units.len() > 1
            && dropped.replace(unit) != Some(unit)
        {
            for layer in &mut self.layers {
                layer.drop_unit(unit);
            }
            self.inputs.retain(|input| input.unit != unit);
            self.units.retain(|held| held.id != unit);
        }
        // What is left over is the resident cache's, whose oldest tokens go.
        let over = self.tiers.excess();
        if let (Some(layers), true) = (&mut self.resident, over > 0) {
            let held: u64 = layers.iter().map(Layer::bytes).sum();
            let share = held.saturating_sub(over) as f64 / held.max(1) as f64;
            for layer in layers {
                let n = layer.tokens();
                let newest = n - (n as f64 * share) as usize..n;
                if let Ok(left) = layer.keep(&[newest.collect()]) {
                    *layer = left;
                }
            }
        }
        self.forget_lost_units();
        Ok(())
    }

    fn forget_lost_units(&mut self) {
        if let Some(layers) = &self.resident {
            let blocks = self.layers.iter().flat_map(|l| l.blocks.iter()).map(|b| b.unit);
            let rows = layers.iter().flat_map(Layer::lists).flatten().map(|row| row.unit);
            let held: BTreeSet<u64> = blocks.chain(rows).collect();
            self.units.retain(|unit| held.contains(&unit.id));
            return;
        }
        let oldest = self.layers.iter().filter_map(|l| l.blocks.front()).map(|b| b.unit).min();
        let is_older = |unit| oldest.is_none_or(|oldest| unit < oldest);
        while self.inputs.front().is_some_and(|input| is_older(input.unit)) {
            self.inputs.pop_front();
        }
        while self.units.front().is_some_and(|unit| is_older(unit.id)) {
            self.units.pop_front();
        }
    }

    /// Bytes of the windows, the prefix and the resident cache, which always lie on the device.
    fn fixed_bytes(&self) -> u64 {
        self.layers.iter().map(LayerStore::fixed_bytes).sum::<u64>()
            + self.resident.iter().flatten().map(Layer::bytes).sum::<u64>()
            + self.sparse.iter().map(sparse::Layer::bytes).sum::<u64>()
    }

    /// What lies in each tier, windows, prefix and resident cache included.
    pub fn store_stats(&self) -> StoreStats {
        let blocks = self.tiers.stats();
        StoreStats { device: blocks.device + self.fixed_bytes(), ..blocks }
    }

    /// What went wrong with a tier since the last call.
    pub fn take_warnings(&self) -> Vec<EngineError> {
        self.tiers.take_warnings()
    }

    /// Tokens of a layer that are held without being retrieved.
    pub fn resident(&self, layer: usize) -> Option<&Layer> {
        self.resident.as_ref()?.get(layer)
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
        let empty = self.layers.iter().all(|layer| layer.blocks.is_empty());
        if compression.keep_ratio >= 1.0 || frames == 0 || empty {
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
    /// A layer's blocks in stream order, less those that are lost.
    pub fn blocks(&self, layer: usize) -> impl Iterator<Item = &'a Block> {
        let stored = self.memory.layers.get(layer).into_iter().flat_map(|l| l.blocks.iter());
        let stored = stored.filter(|block| !block.is_lost());
        let branch = self.branch.and_then(|branch| branch.layers.get(layer));
        stored.chain(branch.into_iter().flat_map(|l| l.blocks.iter()))
    }

    /// The blocks that a question may want: all but those of which every token is resident.
    pub fn candidates(&self, layer: usize) -> impl Iterator<Item = &'a Block> {
        let lists = self.resident(layer).map_or(&[][..], Layer::lists);
        let mut held: HashMap<u64, usize> = HashMap::new();
        if let [rows] = lists {
            let own = rows.iter().filter(|row| row.patch != RESIDUE);
            own.for_each(|row| *held.entry(row.unit).or_default() += 1);
        }
        self.blocks(layer)
            .filter(move |block| held.get(&block.unit).is_none_or(|&held| block.tokens() > held))
    }

    /// What a layer holds without being asked for it.
    pub fn resident(&self, layer: usize) -> Option<&'a Layer> {
        let branch = self.branch.and_then(|branch| branch.resident.as_ref()?.get(layer));
        branch.or_else(|| self.memory.resident(layer))
    }

    /// What entered the decoder as this unit, if the memory keeps that.
    pub fn input(&self, unit: u64) -> Option<&'a Block> {
        let inputs = &self.memory.inputs;
        match inputs.binary_search_by_key(&unit, |input| input.unit) {
            Ok(index) => inputs.get(index),
            Err(_) => self.branch?.inputs.iter().find(|input| input.unit == unit),
        }
    }

    pub fn unit(&self, id: u64) -> Option<&'a Unit> {
        let stored = self.memory.units.binary_search_by_key(&id, |unit| unit.id);
        match stored {
            Ok(index) => self.memory.units.get(index),
            Err(_) => self.branch?.units.iter().find(|unit| unit.id == id),
        }
    }
}
