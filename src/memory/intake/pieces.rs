// SPDX-License-Identifier: MPL-2.0
//! The way in without a past: the same tokens cut several times, into patches of a frame, frames and
//! runs of frames; each piece is encoded alone behind the prefix and thinned by the attention it pays
//! itself and by how quickly its keys change (MuKV §1.3-1.5).

use candle_core::Tensor;

use super::before::{Before, WayIn};
use super::encoded::{Encoded, EncodedLayer};
use super::frames::{FrameTokens, Segment};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::keep::Held;
use crate::memory::kv::{Kv, gather, mean_heads, representative};
use crate::memory::recipe::Grain;
use crate::memory::store::Block;
use crate::memory::unit::{Kind, UNBOUNDED, Unit};
use crate::memory::weigh::change;
use crate::model::attention::{self, Stage, Visible};
use crate::model::decoder::{Attend, Decoder};
use crate::model::rope::Layout;

/// A pass a grain.
pub struct Pieces;

/// The frame that a token is of, and its time in the stream.
type Source<'a> = (&'a FrameTokens, f64);

/// A unit, not numbered yet, with its keys and values in all layers and the mean key of each.
type Piece = (Unit, Vec<(Kv, Vec<f32>)>);

impl WayIn for Pieces {
    fn encode(
        &self,
        before: Before<'_>,
        segment: &Segment,
        decoder: &Decoder,
        cancel: &Cancel,
    ) -> Result<Encoded> {
        let tokens: Vec<&Tensor> = segment.frames.iter().map(|frame| &frame.tokens).collect();
        let tokens = Tensor::cat(&tokens, 0)?;
        let mut sources = Vec::with_capacity(tokens.dim(0)?);
        let mut clock = before.clock;
        for frame in &segment.frames {
            let time = clock.tick(frame.start, before.held.geometry.unit_seconds);
            sources.extend((0..frame.tokens.dim(0)?).map(|_| (frame, time)));
        }
        let mut pieces: Vec<Piece> = Vec::new();
        for (index, grain) in before.held.recipe.grains.iter().enumerate() {
            let size = grain.tokens(before.held.geometry.unit_tokens.max(1));
            let whole = sources.len() - sources.len() % size;
            if whole > 0 {
                let new = || InPieces::new(before.held, size, cancel);
                let tokens = tokens.narrow(0, 0, whole)?;
                let (pass, _) = decoder.forward_together(&tokens, cancel, new)?;
                let layers = pass.into_layers();
                pieces.extend(cut(before, (index, &grain), size, &layers, &sources[..whole])?);
            }
        }
        // In the order in which they end.
        pieces.sort_by_key(|(unit, _)| unit.frames.end);
        let mut units = Vec::with_capacity(pieces.len());
        let mut layers: Vec<EncodedLayer> = Vec::new();
        layers.resize_with(before.held.geometry.layers, EncodedLayer::default);
        for ((mut unit, blocks), id) in pieces.into_iter().zip(before.next_unit..) {
            unit.id = id;
            units.push(unit);
            for (layer, (kv, mean_key)) in layers.iter_mut().zip(blocks) {
                layer.blocks.push(Block::new(id, kv)?, &mean_key);
            }
        }
        Ok(Encoded { tokens: sources.len(), units, layers, ..Encoded::default() })
    }
}

/// The pieces of `size` tokens that a pass made of these sources, thinned.
fn cut(
    before: Before<'_>,
    (index, grain): (usize, &Grain),
    size: usize,
    layers: &[Piecewise],
    sources: &[Source<'_>],
) -> Result<Vec<Piece>> {
    let Some(last) = layers.last() else { return Ok(Vec::new()) };
    let (recipe, geometry) = (before.held.recipe, before.held.geometry);
    let pieces = sources.chunks_exact(size).enumerate().map(|(number, own)| {
        let start = number * size;
        let keys = mean_heads(&last.rotated.narrow(1, start, size)?)?;
        let received = last.received.get(start..start + size).unwrap_or(&[]);
        let importance = change::importance(received, &keys, grain.attention);
        let kept = change::choose(&importance, &keys, grain.kept(size), recipe.grain_alike);
        let ((from, time), (to, _)) = (own[0], own[size - 1]);
        // Where in its picture a piece of a grid begins.
        let base = match geometry.layout {
            Layout::Run => 0,
            Layout::Grid { .. } => start % geometry.unit_tokens.max(1),
        };
        let unit = Unit {
            id: 0,
            kind: Kind::Piece { grain: index },
            segment: before.segment,
            frames: from.frames.start..to.frames.end,
            start: from.start,
            end: to.end,
            at: before.video() + start - base,
            time,
            patches: Some(kept.iter().map(|&i| (base + i) as u32).collect()),
            embedding: from.embedding.clone(),
        };
        let blocks = layers.iter().map(|layer| {
            let kv = gather(&layer.raw.part(start, size)?, std::slice::from_ref(&kept))?;
            let rotated = layer.rotated.narrow(1, start, size)?;
            let rotated = Kv { v: rotated.clone(), k: rotated };
            let rotated = gather(&rotated, std::slice::from_ref(&kept))?;
            Ok((kv, representative(&rotated.k)?))
        });
        Ok((unit, blocks.collect::<Result<_>>()?))
    });
    pieces.collect()
}

/// Pieces of `piece` tokens, each of which sees the prefix and itself.
pub struct InPieces<'a> {
    held: Held<'a>,
    piece: usize,
    cancel: &'a Cancel,
    layers: Vec<Piecewise>,
}

/// What a layer made of the pieces.
pub struct Piecewise {
    pub raw: Kv,
    /// Keys turned where they stand in their piece.
    pub rotated: Tensor,
    /// The attention that each token receives from its piece; of the last layer only.
    pub received: Vec<f32>,
}

impl<'a> InPieces<'a> {
    pub fn new(held: Held<'a>, piece: usize, cancel: &'a Cancel) -> Self {
        Self { held, piece, cancel, layers: Vec::new() }
    }

    pub fn into_layers(self) -> Vec<Piecewise> {
        self.layers
    }
}

impl Attend for InPieces<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let held = self.held;
        let (geometry, rope) = (held.geometry, &held.geometry.rope);
        let prefix = held.prefix_in_place(layer)?;
        let before = held.prefix_tokens();
        let here = geometry.layout.stretch(before, 0..self.piece).positions;
        let last = layer + 1 == geometry.layers;
        let (mut contexts, mut keys, mut received) = (Vec::new(), Vec::new(), Vec::new());
        for start in (0..q.dim(1)?).step_by(self.piece) {
            self.cancel.check()?;
            let part = |x: &Tensor| x.narrow(1, start, self.piece)?.contiguous();
            let (q, k, v) =
                (rope.rotate(&part(q)?, &here)?, rope.rotate(&part(k)?, &here)?, part(v)?);
            let mut stages = Vec::with_capacity(2);
            if let Some(Kv { k, v }) = &prefix {
                stages.push(Stage { q: &q, k, v, visible: Visible::All });
            }
            let own = Visible::Window { offset: 0, width: UNBOUNDED };
            stages.push(Stage { q: &q, k: &k, v: &v, visible: own });
            contexts.push(attention::attend(&stages, geometry.scale)?);
            if last {
                let all = match &prefix {
                    Some(prefix) => Tensor::cat(&[&prefix.k, &k], 1)?,
                    None => k.clone(),
                };
                let visible = Visible::Window { offset: before, width: UNBOUNDED };
                let mass = attention::attention_mass(&q, &all, visible, geometry.scale)?;
                received.extend_from_slice(&mass[before..]);
            }
            keys.push(k);
        }
        let raw = Kv { k: k.clone(), v: v.clone() };
        self.layers.push(Piecewise { raw, rotated: Tensor::cat(&keys, 1)?, received });
        Ok(Tensor::cat(&contexts, 1)?)
    }
}
