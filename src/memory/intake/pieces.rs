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
use crate::memory::kv::{self, Kv, index, mean_heads, pick, read_all, representatives};
use crate::memory::recipe::Grain;
use crate::memory::store::{Block, Blocks, MeanKeys};
use crate::memory::unit::{Kind, UNBOUNDED, Unit, Words};
use crate::memory::weigh::change;
use crate::model::attention::{self, Stage, Visible};
use crate::model::decoder::{Attend, Decoder};
use crate::model::rope::{Kept, Layout};

/// A pass a grain.
pub struct Pieces;

/// The frame that a token is of, and its time in the stream.
type Source<'a> = (&'a FrameTokens, f64);

/// The units of one grain, not numbered yet, and per layer their keys and values, one behind the other,
/// with the mean key of each.
#[derive(Default)]
struct Cut {
    units: Vec<Unit>,
    lengths: Vec<usize>,
    layers: Vec<(Kv, Tensor)>,
    /// Places that they take one behind the other.
    taken: usize,
}

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
        let geometry = before.held.geometry;
        let mut grains = Vec::new();
        for (index, grain) in before.held.recipe.grains.iter().enumerate() {
            let size = grain.tokens(geometry.picture_tokens.max(1));
            let whole = sources.len() - sources.len() % size;
            if whole > 0 {
                let (mut parts, mut words) = (Vec::new(), Vec::new());
                for (at, own) in sources[..whole].chunks_exact(size).enumerate() {
                    let ((from, _), (to, _)) = (own[0], own[size - 1]);
                    let piece = tokens.narrow(0, at * size, size)?;
                    let told = (from.told + to.told) / 2.0;
                    let (piece, around) = before.worded(&piece, from.frames.start, told)?;
                    parts.push(piece);
                    words.push(around);
                }
                let new = || InPieces::new(before.held, size, cancel).with_words(&words);
                let tokens = match before.prompts.teller.is_some() {
                    true => Tensor::cat(&parts, 0)?,
                    false => tokens.narrow(0, 0, whole)?,
                };
                let pass = before.pass(decoder, &tokens, cancel, new)?;
                let layers = pass.into_layers();
                let pieces = (size, &words[..]);
                grains.push(cut(before, (index, &grain), pieces, &layers, &sources[..whole])?);
            }
        }
        // In the order in which they end.
        let units = grains.iter().flat_map(|grain| grain.units.iter());
        let mut units: Vec<(usize, Unit)> = units.cloned().enumerate().collect();
        units.sort_by_key(|(_, unit)| unit.frames.end);
        for ((_, unit), id) in units.iter_mut().zip(before.next_unit..) {
            unit.id = id;
        }
        let order: Vec<usize> = units.iter().map(|(place, _)| *place).collect();
        let units: Vec<Unit> = units.into_iter().map(|(_, unit)| unit).collect();
        let mut layers: Vec<EncodedLayer> = Vec::new();
        layers.resize_with(geometry.layers, EncodedLayer::default);
        for (at, layer) in layers.iter_mut().enumerate().filter(|_| !units.is_empty()) {
            layer.blocks = merged(&grains, at, &units, &order, geometry.on_device)?;
        }
        let most = |of: fn(&Cut) -> usize| grains.iter().map(of).max().unwrap_or(0);
        let taken = most(|cut| cut.taken).max(sources.len());
        Ok(Encoded { tokens: sources.len(), taken, units, layers, ..Encoded::default() })
    }
}

/// One layer's blocks of all grains. `order`: of each unit its place among those of the first grain,
/// the second, and so on.
fn merged(
    grains: &[Cut],
    layer: usize,
    units: &[Unit],
    order: &[usize],
    on_device: bool,
) -> Result<Blocks> {
    let (mut parts, mut mean_keys) = (Vec::with_capacity(order.len()), Vec::new());
    for grain in grains {
        let Some((kv, means)) = grain.layers.get(layer) else { continue };
        let mut start = 0;
        for &len in &grain.lengths {
            parts.push((kv, start, len));
            start += len;
        }
        mean_keys.push(means);
    }
    let mean_keys = pick(&Tensor::cat(&mean_keys, 0)?, &index(order, mean_keys[0].device())?, 0)?;
    let blocks = units.iter().zip(order).filter_map(|(unit, &place)| {
        let &(kv, start, len) = parts.get(place)?;
        Some(Block::part(unit.id, kv, start, len))
    });
    Ok(Blocks::of(blocks.collect(), MeanKeys::of(mean_keys, on_device)?))
}

/// The pieces of `size` tokens that a pass made of these sources, thinned. What they are thinned by is
/// read in one go.
fn cut(
    before: Before<'_>,
    (number, grain): (usize, &Grain),
    (size, words): (usize, &[Words]),
    layers: &[Piecewise],
    sources: &[Source<'_>],
) -> Result<Cut> {
    let (recipe, geometry) = (before.held.recipe, before.held.geometry);
    let last = layers.last().and_then(|last| Some((last, last.received.as_ref()?)));
    let Some((last, received)) = last else { return Ok(Cut::default()) };
    let read = read_all(&[received.clone(), mean_heads(&last.rotated)?])?;
    let [received, keys] = &read[..] else { return Ok(Cut::default()) };
    let dim = keys.len() / received.len().max(1);
    let mut cut = Cut::default();
    let mut rows = Vec::new();
    // The first row of a piece, words included.
    let mut first = 0;
    for (at, (own, &Words { front, behind })) in sources.chunks_exact(size).zip(words).enumerate() {
        let start = at * size;
        let picture = first + front..first + front + size;
        let (Some(received), Some(keys)) =
            (received.get(picture.clone()), keys.get(picture.start * dim..picture.end * dim))
        else {
            break;
        };
        let importance = change::importance(received, keys, grain.attention);
        let kept = change::choose(&importance, keys, grain.kept(size), recipe.grain_alike);
        let ((from, time), (to, _)) = (own[0], own[size - 1]);
        // Where in its picture a piece of a grid begins.
        let base = match geometry.layout {
            Layout::Run => 0,
            Layout::Grid { .. } | Layout::Lines { .. } => start % geometry.picture_tokens.max(1),
        };
        cut.units.push(Unit {
            id: 0,
            kind: Kind::Piece { grain: number },
            segment: before.segment,
            frames: from.frames.start..to.frames.end,
            start: from.start,
            end: to.end,
            told: (from.told + to.told) / 2.0,
            at: match geometry.layout {
                Layout::Lines { .. } => before.taken + cut.taken,
                Layout::Run | Layout::Grid { .. } => before.taken + cut.taken - base,
            },
            time,
            patches: Some(kept.iter().map(|&i| (base + i) as u32).collect()),
            words: Words { front, behind },
            embedding: from.embedding.clone(),
        });
        cut.lengths.push(front + kept.len() + behind);
        rows.extend(first..picture.start);
        rows.extend(kept.into_iter().map(|i| picture.start + i));
        rows.extend(picture.end..picture.end + behind);
        first = picture.end + behind;
        cut.taken += geometry.layout.room(front + behind, size);
    }
    let places = index(&rows, last.rotated.device())?;
    for layer in layers {
        let mean_keys = representatives(&pick(&layer.rotated, &places, 1)?, &cut.lengths)?;
        cut.layers.push((kv::rows(&layer.raw, &rows)?, mean_keys));
    }
    Ok(cut)
}

/// Pieces of `piece` tokens, each of which sees the prefix and itself.
pub struct InPieces<'a> {
    held: Held<'a>,
    piece: usize,
    /// Words around each, if there are any.
    words: &'a [Words],
    cancel: &'a Cancel,
    layers: Vec<Piecewise>,
}

/// What a layer made of the pieces.
pub struct Piecewise {
    pub raw: Kv,
    /// Keys turned where they stand in their piece.
    pub rotated: Tensor,
    /// The attention that each token receives from its piece, `[n]`; of the last layer only.
    pub received: Option<Tensor>,
}

impl<'a> InPieces<'a> {
    pub fn new(held: Held<'a>, piece: usize, cancel: &'a Cancel) -> Self {
        Self { held, piece, words: &[], cancel, layers: Vec::new() }
    }

    /// The same of pieces with words around them.
    pub fn with_words(self, words: &'a [Words]) -> Self {
        Self { words, ..self }
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
        let bare = geometry.layout.stretch(before, 0..self.piece).positions;
        let last = layer + 1 == geometry.layers;
        let (mut contexts, mut keys, mut received) = (Vec::new(), Vec::new(), Vec::new());
        let (mut start, mut words) = (0, self.words.iter());
        while start < q.dim(1)? {
            self.cancel.check()?;
            let Words { front, behind } = words.next().copied().unwrap_or_default();
            let n = front + self.piece + behind;
            let here = match front + behind {
                0 => bare.clone(),
                _ => {
                    let piece = Kept::all(self.piece).within(front, behind);
                    geometry.layout.packed(before, [piece]).positions
                }
            };
            let part = |x: &Tensor| x.narrow(1, start, n)?.contiguous();
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
                let mass = attention::attention_mass_tensor(&q, &all, visible, geometry.scale)?;
                received.push(mass.narrow(0, before, n)?);
            }
            keys.push(k);
            start += n;
        }
        let raw = Kv { k: k.clone(), v: v.clone() };
        let received = if received.is_empty() { None } else { Some(Tensor::cat(&received, 0)?) };
        self.layers.push(Piecewise { raw, rotated: Tensor::cat(&keys, 1)?, received });
        Ok(Tensor::cat(&contexts, 1)?)
    }
}
