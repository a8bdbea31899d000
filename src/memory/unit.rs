// SPDX-License-Identifier: MPL-2.0
//! The nouns: what a unit of video is, where its tokens come from and where they stand, and the shape
//! of the model that made them.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::model::rope::{Kept, Layout, Place, Positions, Rope};
use crate::model::vision::Moment;
use crate::snapshot::shared;

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
    /// What is computed on the device stays there, and only what a choice goes by is read back.
    pub on_device: bool,
    pub rope: Arc<Rope>,
    /// Tokens of a unit as the stream begins, words included: by it is counted what is given in units.
    pub unit_tokens: usize,
    /// Tokens of a unit's picture, `M`.
    pub picture_tokens: usize,
    /// Seconds of stream time that a unit stands for where frames come regularly.
    pub unit_seconds: f64,
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
        let picture = unit.patches.as_ref().map_or(self.picture_tokens, |patches| patches.len());
        unit.words.tokens() + picture
    }

    /// Columns of the grid in which a picture's tokens lie. Where the model does not say, it is as high as
    /// wide, or a line.
    pub fn columns(&self) -> u32 {
        let side = self.picture_tokens.isqrt();
        let columns = match self.layout {
            Layout::Grid { cols, .. } | Layout::Lines { cols, .. } => cols,
            Layout::Run if side * side == self.picture_tokens => side,
            Layout::Run => self.picture_tokens,
        };
        columns.max(1) as u32
    }

    /// Places that a unit takes: a picture with holes is as large as a whole one.
    pub fn steps(&self, unit: &Unit) -> usize {
        match (self.layout, &unit.patches) {
            (Layout::Run, _) => self.length(unit),
            (Layout::Grid { .. }, _) | (_, None) => {
                self.layout.room(unit.words.tokens(), self.picture_tokens)
            }
            // Of several pictures as many as it has something of.
            (Layout::Lines { .. }, Some(patches)) => {
                let end = patches.last().map_or(0, |&last| offset(last) + 1);
                self.layout.room(unit.words.tokens(), end.max(self.picture_tokens))
            }
        }
    }

    /// Tokens by which the window has moved on behind a unit.
    pub fn passed(&self, unit: &Unit) -> usize {
        match self.layout {
            Layout::Lines { .. } => self.length(unit),
            Layout::Run | Layout::Grid { .. } => self.steps(unit),
        }
    }

    /// Where these units stand in a stream behind so many tokens of prefix, with so many tokens each.
    pub fn positions(&self, prefix: usize, units: &[Unit], lengths: &[usize]) -> Positions {
        let of_unit = |(unit, &n): (&Unit, &usize)| match self.layout {
            Layout::Run => Positions::run(prefix + unit.at, n),
            Layout::Grid { .. } | Layout::Lines { .. } => {
                let rows = self.rows_of(prefix, unit, n);
                Positions::listed(rows.into_iter().map(|row| row.place).collect())
            }
        };
        let units = units.iter().zip(lengths).map(of_unit);
        units.fold(Positions::run(0, 0), |all, unit| all.then(&unit))
    }

    /// Where `n` tokens of a unit come from and where they stood in a stream behind so many tokens
    /// of prefix.
    pub fn rows_of(&self, prefix: usize, unit: &Unit, n: usize) -> Vec<Row> {
        let Words { front, behind } = unit.words.of(n);
        let seen = n.saturating_sub(front + behind);
        let patches: Vec<u32> = (0..seen).map(|token| unit.patch(token)).collect();
        let offsets: Vec<usize> = patches.iter().map(|&patch| offset(patch)).collect();
        // Dropped before it was encoded, a patch leaves no gap on a single axis; after that, it does.
        let dense = self.layout == Layout::Run && !matches!(unit.kind, Kind::Piece { .. });
        let kept = if dense { Kept::all(seen) } else { Kept::some(&offsets) };
        let places =
            self.layout.places_in(prefix, (unit.at, unit.time), kept.within(front, behind));
        let words = |from: u32, n: usize| (from..).take(n);
        let codes = words(FRONT, front).chain(patches).chain(words(BEHIND, behind));
        let row =
            |(patch, place)| Row { unit: unit.id, patch, step: unit.segment, place, score: 0.0 };
        codes.zip(places).map(row).collect()
    }
}

/// Tokens of the words that stand around a unit's picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    pub front: usize,
    pub behind: usize,
}

impl Words {
    pub fn tokens(self) -> usize {
        self.front + self.behind
    }

    /// Of a unit whose picture has `of` tokens the places of these of them, ascending, and of the words
    /// around it.
    pub fn with(self, picture: &[usize], of: usize) -> Vec<usize> {
        let Self { front, behind } = self;
        let end = front + of;
        let picture = picture.iter().map(|&token| front + token);
        (0..front).chain(picture).chain(end..end + behind).collect()
    }

    /// Those in `n` tokens of a unit: where they leave no room for a picture, these are its gist.
    pub fn of(self, n: usize) -> Self {
        if n > self.tokens() { self } else { Self::default() }
    }
}

/// What a unit stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// The seconds that are told of it in words, where the model has some.
    pub told: f64,
    /// Places that the video in front of it takes.
    pub at: usize,
    /// Steps of time from the stream's first unit, each as long as a unit where frames come
    /// regularly; see [`Clock`].
    pub time: f64,
    /// Which of its picture's tokens it consists of; `None`: all, in order.
    #[serde(with = "shared")]
    pub patches: Option<Arc<[u32]>>,
    /// Words around the picture.
    pub words: Words,
    /// What an outside model makes of its first picture.
    #[serde(with = "shared")]
    pub embedding: Option<Arc<[f32]>>,
}

/// Turns the times of units into steps from the stream's first. A clock that jumps, back or by more
/// than a day, goes on one step behind where it stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// Seconds of stream time at step 0.
    origin: f64,
    /// Seconds and steps of the last unit.
    last: Option<(f64, f64)>,
}

impl Clock {
    /// Seconds between two units that no camera leaves.
    const LONGEST: f64 = 86_400.0;
    /// A unit this near to a whole step, in steps, is at it: clocks round.
    const NEAR: f64 = 0.005;

    /// When the next unit comes that begins at these seconds, a regular one being `unit` seconds long.
    pub fn tick(&mut self, seconds: f64, unit: f64) -> f64 {
        let unit = if unit.is_finite() && unit > 0.0 { unit } else { 1.0 };
        let time = match self.last {
            None => {
                self.origin = seconds;
                0.0
            }
            Some((before, _)) if seconds > before && seconds - before <= Self::LONGEST => {
                let time = (seconds - self.origin) / unit;
                if (time - time.round()).abs() < Self::NEAR { time.round() } else { time }
            }
            Some((_, time)) => {
                let next = time.floor() + 1.0;
                self.origin = seconds - next * unit;
                next
            }
        };
        self.last = Some((seconds, time));
        time
    }
}

impl Unit {
    /// Which patch a token of its picture is.
    pub fn patch(&self, token: usize) -> u32 {
        let own = self.patches.as_ref().and_then(|patches| patches.get(token).copied());
        own.unwrap_or(token as u32)
    }

    /// What is told of it.
    pub fn moment(&self) -> Moment {
        Moment { frame: self.frames.start, seconds: self.told }
    }

    /// Steps of time from `before` to this unit where both are retrieved and stand side by side: their
    /// own where one followed the other in the stream, else one.
    pub fn behind(&self, before: &Self) -> f64 {
        let own = self.time - before.time;
        if self.id == before.id + 1 && own > 0.0 { own } else { 1.0 }
    }

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

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Unit> + DoubleEndedIterator {
        self.units.iter()
    }

    pub fn get(&self, id: u64) -> Option<&Unit> {
        self.units.get(self.units.binary_search_by_key(&id, |unit| unit.id).ok()?)
    }

    /// The newest frame's picture is that of all frames up to number `frames`, until that second.
    pub fn lengthen(&mut self, frames: u64, end: f64) {
        // Its segment's summary, and pieces of several grains, may end with it.
        let Some(newest) = self.units.back().map(|unit| unit.frames.end) else { return };
        let ends = self.units.iter_mut().rev().take_while(|unit| unit.frames.end == newest);
        ends.for_each(|unit| {
            unit.frames.end = newest.max(frames);
            unit.end = unit.end.max(end);
        });
    }

    /// Another one of the same id.
    pub fn replace(&mut self, unit: Unit) {
        let at = self.units.binary_search_by_key(&unit.id, |unit| unit.id);
        if let Some(own) = at.ok().and_then(|at| self.units.get_mut(at)) {
            self.bytes = self.bytes + unit.bytes() - own.bytes();
            *own = unit;
        }
    }

    pub fn remove(&mut self, id: u64) {
        let at = self.units.binary_search_by_key(&id, |unit| unit.id);
        if let Some(unit) = at.ok().and_then(|at| self.units.remove(at)) {
            self.bytes -= unit.bytes();
        }
    }

    /// Drops those whose ids are below this one.
    pub fn drop_below(&mut self, id: u64) {
        while let Some(unit) = self.units.front().filter(|unit| unit.id < id) {
            self.bytes -= unit.bytes();
            self.units.pop_front();
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub unit: u64,
    /// Its place in the unit's picture; from [`FRONT`] or [`BEHIND`] on, in the words around it; or
    /// [`RESIDUE`].
    pub patch: u32,
    /// The encoding step that it came with.
    pub step: u64,
    pub place: Place,
    /// What the signal said when it came, for signals that see a token only then.
    pub score: f32,
}

/// The patch of the first word in front of a picture, and behind it.
pub const FRONT: u32 = 1 << 30;
pub const BEHIND: u32 = 1 << 31;
/// The patch of a row that stands for several tokens which are gone.
pub const RESIDUE: u32 = u32::MAX;

/// Where a patch stands in its unit's picture: what stands for several, where the picture begins.
pub fn offset(patch: u32) -> usize {
    if patch == RESIDUE { 0 } else { patch as usize }
}

impl Row {
    /// Whether it is one of the words around a picture.
    pub fn is_word(&self) -> bool {
        (FRONT..RESIDUE).contains(&self.patch)
    }

    /// What rows of a unit are ordered by: words, picture, what stands for others, words.
    pub fn order(&self) -> u32 {
        match self.patch {
            patch @ 0..FRONT => patch + FRONT,
            patch @ FRONT..BEHIND => patch - FRONT,
            RESIDUE => BEHIND - 1,
            patch => patch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(seconds: &[f64], unit: f64) -> Vec<f64> {
        let mut clock = Clock::default();
        seconds.iter().map(|&seconds| clock.tick(seconds, unit)).collect()
    }

    #[test]
    fn regular_units_are_whole_steps_apart_however_their_clock_rounds() {
        let thirds: Vec<f64> = (0..100u64).map(|i| (i * 333_333_333) as f64 / 1e9 + 1e6).collect();
        let expected: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(ticks(&thirds, 1.0 / 3.0), expected);
        assert_eq!(ticks(&[7.0, 9.001, 10.999], 2.0), [0.0, 1.0, 2.0]);
    }

    #[test]
    fn what_was_dropped_leaves_its_time() {
        assert_eq!(ticks(&[0.0, 5.0, 6.0, 8.5], 1.0), [0.0, 5.0, 6.0, 8.5]);
    }

    #[test]
    fn a_clock_that_jumps_goes_on_a_step_later() {
        assert_eq!(ticks(&[50.0, 51.0, 0.0, 1.0, 1.0, 2.5], 1.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.5]);
        assert_eq!(ticks(&[0.0, 1e18, 1e18 + 512.0, 3.0], 1.0)[..2], [0.0, 1.0]);
        let wild = ticks(&[0.0, f64::NAN, f64::INFINITY, -1e300, 1e300, 2.0, 3.0], 1.0);
        assert!(wild.iter().all(|time| time.is_finite()), "{wild:?}");
    }
}
