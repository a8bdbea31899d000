// SPDX-License-Identifier: MPL-2.0
//! The nouns: what a unit of video is, where its tokens come from and where they stand, and the shape
//! of the model that made them.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device};

use crate::model::rope::{Layout, Place, Positions, Rope};

/// Wider than any stream: a window that has no end.
pub const UNBOUNDED: usize = usize::MAX / 4;

/// The decoder's shape, as far as the memory needs it, and how the units of a stream lie in it.
#[derive(Clone)]
pub struct Geometry {
    pub layers: usize,
    /// Query heads `H`.
    pub heads: usize,
    /// Key and value heads `Hk`.
    pub kv_heads: usize,
    /// `d`.
    pub head_dim: usize,
    /// Softmax scale.
    pub scale: f64,
    pub dtype: DType,
    pub device: Device,
    pub rope: Arc<Rope>,
    /// Tokens of a unit, `M`.
    pub unit_tokens: usize,
    /// How the video's tokens are placed.
    pub layout: Layout,
}

impl fmt::Debug for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layers, heads, kv_heads, head_dim, unit_tokens, layout, .. } = self;
        write!(f, "{layers} layers of {heads}/{kv_heads} heads of {head_dim}, ")?;
        write!(f, "units of {unit_tokens} tokens, {layout:?}")
    }
}

impl Geometry {
    /// Tokens of a unit.
    pub fn length(&self, unit: &Unit) -> usize {
        unit.patches.as_ref().map_or(self.unit_tokens, |patches| patches.len())
    }

    /// Places that a unit takes: a picture with holes is as large as a whole one.
    pub fn steps(&self, unit: &Unit) -> usize {
        if self.layout == Layout::Run { self.length(unit) } else { self.unit_tokens }
    }

    /// Where the `n` tokens behind `seen` of the stream stand, of which `prefix` are no video.
    pub fn upcoming(&self, prefix: usize, seen: usize, n: usize) -> Positions {
        let video = seen.saturating_sub(prefix);
        self.layout.stretch(prefix, video..video + n).positions
    }

    /// Where `n` tokens of a unit come from and where they stood in a stream behind so many tokens
    /// of prefix.
    pub fn rows_of(&self, prefix: usize, unit: &Unit, n: usize) -> Vec<Row> {
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

impl Unit {
    /// Bytes in memory, with half as many more that a growing list has room for.
    pub fn bytes(&self) -> u64 {
        let patches = self.patches.as_ref().map_or(0, |patches| size_of_val(&patches[..]) + 16);
        let embedding = self.embedding.as_ref().map_or(0, |e| size_of_val(&e[..]) + 16);
        (size_of::<Self>() * 3 / 2 + patches + embedding) as u64
    }
}

/// The units that a memory knows, by ascending id.
#[derive(Clone, Debug, Default)]
pub struct Units {
    units: VecDeque<Unit>,
    bytes: u64,
}

impl Units {
    /// Takes in units whose ids are above all that are here.
    pub fn extend(&mut self, units: impl IntoIterator<Item = Unit>) {
        for unit in units {
            self.bytes += unit.bytes();
            self.units.push_back(unit);
        }
    }

    pub fn len(&self) -> usize {
        self.units.len()
    }

    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Unit> {
        self.units.iter()
    }

    pub fn get(&self, id: u64) -> Option<&Unit> {
        self.units.get(self.units.binary_search_by_key(&id, |unit| unit.id).ok()?)
    }

    pub fn remove(&mut self, id: u64) {
        let at = self.units.binary_search_by_key(&id, |unit| unit.id);
        if let Some(unit) = at.ok().and_then(|at| self.units.remove(at)) {
            self.bytes -= unit.bytes();
        }
    }

    /// Drops those whose ids are below this one.
    pub fn drop_below(&mut self, id: u64) {
        while let Some(unit) = self.units.pop_front_if(|unit| unit.id < id) {
            self.bytes -= unit.bytes();
        }
    }

    pub fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.units.retain(|unit| keep(unit.id));
        self.bytes = self.units.iter().map(Unit::bytes).sum();
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Where a token that a layer holds comes from and where it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    pub unit: u64,
    /// Its place in the unit's picture, or [`RESIDUE`].
    pub patch: u32,
    /// The encoding step that it came with.
    pub step: u64,
    pub place: Place,
    /// What the signal said when it came, for signals that see a token only then.
    pub score: f32,
}

/// The patch of a row that stands for several tokens which are gone.
pub const RESIDUE: u32 = u32::MAX;
