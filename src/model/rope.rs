// SPDX-License-Identifier: MPL-2.0
//! Rotary position embedding, half-split (NeoX) form: rows of `[H, n, d]` turned by angles that
//! grow with their position, on one axis or, as Qwen2-VL's M-RoPE has it, on three.
//!
//! The memory stores keys before rotation and turns them when they are used, so this runs on every
//! retrieval and not only once per token. Tables are f32 whatever the model's number format:
//! bf16 cannot tell positions above 256 apart.
//!
//! Where a video's tokens stand is the model's affair and not a method's: a [`Layout`] turns
//! "tokens 98 to 196 of the video" or "what is left of these units" into [`Positions`].

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use parking_lot::RwLock;

use crate::error::Result;

/// Where a token stands in time and in the picture. Text stands at the same number on every axis,
/// and so does everything in a model with one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub t: usize,
    pub h: usize,
    pub w: usize,
}

impl Place {
    pub fn text(position: usize) -> Self {
        Self { t: position, h: position, w: position }
    }

    /// The largest of the three.
    pub fn max(&self) -> usize {
        self.t.max(self.h).max(self.w)
    }
}

/// The positions of `n` rows. Runs, which is all that text and models with one axis need, stay
/// two numbers and are read from a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Run { start: usize, n: usize },
    Constant { position: usize, n: usize },
    Listed(Arc<[Place]>),
}

impl Positions {
    /// `start, start + 1, ..` on every axis.
    pub fn run(start: usize, n: usize) -> Self {
        Self(Kind::Run { start, n })
    }

    /// The same position `n` times, on every axis.
    pub fn constant(position: usize, n: usize) -> Self {
        Self(Kind::Constant { position, n })
    }

    /// Any places, row by row.
    pub fn listed(places: Vec<Place>) -> Self {
        Self(Kind::Listed(places.into()))
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Run { n, .. } | Kind::Constant { n, .. } => *n,
            Kind::Listed(places) => places.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row by row.
    pub fn places(&self) -> Vec<Place> {
        match &self.0 {
            Kind::Run { start, n } => (*start..start + n).map(Place::text).collect(),
            Kind::Constant { position, n } => vec![Place::text(*position); *n],
            Kind::Listed(places) => places.to_vec(),
        }
    }

    /// These rows and `others` behind them. Runs that meet stay a run.
    pub fn then(&self, others: &Self) -> Self {
        match (&self.0, &others.0) {
            _ if others.is_empty() => self.clone(),
            _ if self.is_empty() => others.clone(),
            (Kind::Run { start, n }, Kind::Run { start: next, n: more }) if start + n == *next => {
                Self::run(*start, n + more)
            }
            _ => Self::listed([self.places(), others.places()].concat()),
        }
    }
}

/// How the tokens of a video are placed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// One behind the other.
    Run,
    /// By time and by their place in the picture (M-RoPE). The token in row `r` and column `c` of
    /// the `i`-th unit of a video that starts at `s` stands at `t = s + floor(i * step)`,
    /// `h = s + r`, `w = s + c`.
    Grid {
        /// Rows and columns of a unit's tokens, row by row; both at least 1.
        rows: usize,
        cols: usize,
        /// Positions on the time axis from one unit to the next, at least 0; for Qwen2.5-VL
        /// `tokens_per_second` times the seconds that a unit stands for. In f32, as transformers
        /// rounds it.
        step: f32,
        /// What follows a video stands behind the largest position in it; with this, behind its
        /// first picture, however long the video (transformers 5).
        compat: bool,
    },
}

/// A stretch of video with its positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub positions: Positions,
    /// The position of a text token right behind it.
    pub next: usize,
}

impl Placed {
    /// Text, or anything on one axis.
    pub fn run(start: usize, n: usize) -> Self {
        Self { positions: Positions::run(start, n), next: start + n }
    }
}

/// What is left of a retrieved unit: offsets of its tokens, counted as it entered the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept<'a> {
    /// The first so many, without a gap.
    All(usize),
    /// These, ascending.
    Some(&'a [usize]),
}

impl Kept<'_> {
    pub fn len(&self) -> usize {
        match self {
            Self::All(n) => *n,
            Self::Some(offsets) => offsets.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn offset(&self, index: usize) -> Option<usize> {
        match self {
            Self::All(n) => (index < *n).then_some(index),
            Self::Some(offsets) => offsets.get(index).copied(),
        }
    }
}

impl Layout {
    /// The tokens `tokens` of a video that starts at `start`, in the places they have in the
    /// stream. Token 0 is the video's first.
    pub fn stretch(&self, start: usize, tokens: Range<usize>) -> Placed {
        if *self == Self::Run {
            return Placed::run(start + tokens.start, tokens.len());
        }
        self.listed(start, tokens.map(|token| self.place(start, 0, token)).collect())
    }

    /// What is left of some units, side by side behind `start` as if the stream had consisted of
    /// nothing else: without a gap on one axis; on three, each unit has the time of its rank
    /// among them and its tokens keep their places in the picture.
    ///
    /// A unit of more tokens than a picture has takes as many steps of time as it covers.
    pub fn packed<'a>(&self, start: usize, units: impl IntoIterator<Item = Kept<'a>>) -> Placed {
        let Self::Grid { rows, cols, .. } = self else {
            let n = units.into_iter().map(|unit| unit.len()).sum();
            return Placed::run(start, n);
        };
        let mut places = Vec::new();
        let mut rank = 0;
        for unit in units {
            let offsets = (0..unit.len()).filter_map(|i| unit.offset(i));
            places.extend(offsets.map(|token| self.place(start, rank, token)));
            let last = unit.len().checked_sub(1).and_then(|i| unit.offset(i));
            rank += last.map_or(0, |last| last / (rows * cols) + 1);
        }
        self.listed(start, places)
    }

    /// How many positions apart two tokens are, one a picture's last and the other `tokens` tokens
    /// before it: the distance at which a window of that width ends.
    pub fn reach(&self, tokens: usize) -> usize {
        match *self {
            Self::Run => tokens,
            Self::Grid { rows, cols, step, .. } => steps(tokens / (rows * cols), step),
        }
    }

    /// `token` counts from the first of unit `rank`.
    fn place(&self, start: usize, rank: usize, token: usize) -> Place {
        match *self {
            Self::Run => Place::text(start + token),
            Self::Grid { rows, cols, step, .. } => {
                let (unit, token) = (token / (rows * cols), token % (rows * cols));
                Place {
                    t: start + steps(rank + unit, step),
                    h: start + token / cols,
                    w: start + token % cols,
                }
            }
        }
    }

    fn listed(&self, start: usize, places: Vec<Place>) -> Placed {
        let end = places.iter().map(Place::max).max().map_or(start, |last| last + 1);
        let next = match *self {
            Self::Grid { rows, cols, compat: true, .. } if end > start => start + rows.max(cols),
            _ => end,
        };
        Placed { positions: Positions::listed(places), next }
    }
}

/// Positions on the time axis that `units` steps take.
fn steps(units: usize, step: f32) -> usize {
    (units as f32 * step) as usize
}

/// Cosines and sines `[capacity, d / 2]` of the positions `0..capacity`.
struct Table {
    cos: Tensor,
    sin: Tensor,
    capacity: usize,
}

/// An axis of a [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    T,
    H,
    W,
}

/// The rotation of one model; shared between threads.
pub struct Rope {
    inv_freq: Vec<f32>,
    /// Which axis turns each pair.
    axes: Vec<Axis>,
    device: Device,
    /// Grows with the highest position of a run; replaced, never changed, so readers keep theirs.
    table: RwLock<Arc<Table>>,
    /// The last positions that the table does not have: every layer asks for the same ones.
    last: RwLock<Option<(Positions, Arc<Table>)>>,
}

/// First size of the table, and the highest position for which it grows. Positions beyond, which a
/// stream that runs for days reaches, are computed on the spot, once for all layers.
const FIRST_CAPACITY: usize = 1024;
const MAX_CAPACITY: usize = 1 << 16;

impl Rope {
    /// One axis.
    pub fn new(head_dim: usize, theta: f64, device: &Device) -> Result<Self> {
        let pairs = frequencies(head_dim, theta).map(|frequency| (Axis::T, frequency));
        Self::of_pairs(pairs.collect(), device)
    }

    /// Three axes: of the `d / 2` pairs, the first `section[0]` are turned by time, the next
    /// `section[1]` by height and the last `section[2]` by width (`mrope_section`).
    pub fn multimodal(section: [usize; 3], theta: f64, device: &Device) -> Result<Self> {
        let head_dim = 2 * section.iter().sum::<usize>();
        let runs = [Axis::T, Axis::H, Axis::W].into_iter().zip(section);
        let axes = runs.flat_map(|(axis, pairs)| std::iter::repeat_n(axis, pairs));
        Self::of_pairs(axes.zip(frequencies(head_dim, theta)).collect(), device)
    }

    /// Two axes with the same frequencies: half of the pairs are turned by height, half by width
    /// (the vision tower of Qwen2-VL).
    pub fn axial(head_dim: usize, theta: f64, device: &Device) -> Result<Self> {
        let on = |axis| frequencies(head_dim / 2, theta).map(move |frequency| (axis, frequency));
        Self::of_pairs(on(Axis::H).chain(on(Axis::W)).collect(), device)
    }

    fn of_pairs(pairs: Vec<(Axis, f32)>, device: &Device) -> Result<Self> {
        let (axes, inv_freq): (Vec<Axis>, Vec<f32>) = pairs.into_iter().unzip();
        let table = Arc::new(Table::new(&inv_freq, 0..FIRST_CAPACITY, device)?);
        Ok(Self {
            inv_freq,
            axes,
            device: device.clone(),
            table: RwLock::new(table),
            last: RwLock::new(None),
        })
    }

    /// Rotates `x` `[H, n, d]` by the rows' positions; the result has the number format of `x`.
    pub fn rotate(&self, x: &Tensor, positions: &Positions) -> Result<Tensor> {
        let (_, n, _) = x.dims3()?;
        if positions.len() != n {
            let message = format!("{} positions for {n} rows of {:?}", positions.len(), x.dims());
            return Err(candle_core::Error::msg(message).into());
        }
        if n == 0 {
            return Ok(x.clone());
        }
        let (cos, sin) = self.tables(positions)?;
        let dtype = x.dtype();
        let x = x.to_dtype(DType::F32)?.contiguous()?.unsqueeze(0)?;
        Ok(candle_nn::rotary_emb::rope(&x, &cos, &sin)?.squeeze(0)?.to_dtype(dtype)?)
    }

    /// Cosines and sines `[n, d / 2]`, contiguous.
    fn tables(&self, positions: &Positions) -> Result<(Tensor, Tensor)> {
        match &positions.0 {
            Kind::Run { start, n } => {
                let run = *start..start.saturating_add(*n);
                if run.end > MAX_CAPACITY {
                    let table =
                        self.held(positions, || Table::new(&self.inv_freq, run, &self.device))?;
                    return Ok((table.cos.clone(), table.sin.clone()));
                }
                let table = self.up_to(run.end)?;
                Ok((table.cos.narrow(0, *start, *n)?, table.sin.narrow(0, *start, *n)?))
            }
            Kind::Constant { position, n } => {
                let one = self.tables(&Positions::run(*position, 1))?;
                let spread =
                    |row: Tensor| row.broadcast_as((*n, self.inv_freq.len()))?.contiguous();
                Ok((spread(one.0)?, spread(one.1)?))
            }
            Kind::Listed(places) => {
                let table = self.held(positions, || self.at(places))?;
                Ok((table.cos.clone(), table.sin.clone()))
            }
        }
    }

    /// A table of the rows' own. Places share their numbers, so each is computed once.
    fn at(&self, places: &[Place]) -> Result<Table> {
        let mut turns = HashMap::new();
        for position in places.iter().flat_map(|place| [place.t, place.h, place.w]) {
            turns.entry(position).or_insert_with(|| turn(&self.inv_freq, position));
        }
        let mut cos = Vec::with_capacity(places.len() * self.axes.len());
        let mut sin = Vec::with_capacity(cos.capacity());
        for place in places {
            let [t, h, w] = [place.t, place.h, place.w].map(|position| &turns[&position]);
            for (pair, axis) in self.axes.iter().enumerate() {
                let turn = match axis {
                    Axis::T => t,
                    Axis::H => h,
                    Axis::W => w,
                };
                cos.push(turn[pair].0);
                sin.push(turn[pair].1);
            }
        }
        Table::of(cos, sin, self.axes.len(), &self.device)
    }

    /// The table that `make` makes of these positions, or the one it made the last time.
    fn held(
        &self,
        positions: &Positions,
        make: impl FnOnce() -> Result<Table>,
    ) -> Result<Arc<Table>> {
        if let Some((held, table)) = &*self.last.read()
            && held == positions
        {
            return Ok(table.clone());
        }
        let table = Arc::new(make()?);
        *self.last.write() = Some((positions.clone(), table.clone()));
        Ok(table)
    }

    /// The table, grown to hold the positions below `end`.
    fn up_to(&self, end: usize) -> Result<Arc<Table>> {
        let table = self.table.read().clone();
        if end <= table.capacity {
            return Ok(table);
        }
        let grown = Arc::new(Table::new(&self.inv_freq, 0..end.next_power_of_two(), &self.device)?);
        let mut slot = self.table.write();
        // Another thread may have grown it further in the meantime.
        if slot.capacity < grown.capacity {
            *slot = grown.clone();
        }
        Ok(grown)
    }
}

impl Table {
    fn new(inv_freq: &[f32], positions: Range<usize>, device: &Device) -> Result<Self> {
        let (cos, sin) = positions.flat_map(|position| turn(inv_freq, position)).unzip();
        Self::of(cos, sin, inv_freq.len(), device)
    }

    fn of(cos: Vec<f32>, sin: Vec<f32>, pairs: usize, device: &Device) -> Result<Self> {
        let capacity = cos.len() / pairs.max(1);
        Ok(Self {
            cos: Tensor::from_vec(cos, (capacity, pairs), device)?,
            sin: Tensor::from_vec(sin, (capacity, pairs), device)?,
            capacity,
        })
    }
}

/// The frequencies of the `head_dim / 2` pairs, rounded to f32 as in transformers (a difference
/// here would grow with the position); the angles are then exact products of them.
fn frequencies(head_dim: usize, theta: f64) -> impl Iterator<Item = f32> {
    (0..head_dim / 2).map(move |i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32))
}

/// Cosine and sine of each pair at a position.
fn turn(inv_freq: &[f32], position: usize) -> Vec<(f32, f32)> {
    let angles = inv_freq.iter().map(|&freq| position as f64 * f64::from(freq));
    angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn all_spellings_of_a_position_agree_and_the_table_grows() {
        let rope = Rope::new(8, 1e4, &Device::Cpu).unwrap();
        let x = Tensor::randn(0f32, 1.0, (2, 3, 8), &Device::Cpu).unwrap();
        for start in [0, 5, 1022, 5000, MAX_CAPACITY - 1, MAX_CAPACITY + 7] {
            let run = rope.rotate(&x, &Positions::run(start, 3)).unwrap();
            let listed = Positions::listed((start..start + 3).map(Place::text).collect());
            assert_eq!(rows(&run), rows(&rope.rotate(&x, &listed).unwrap()));
            let first = rope.rotate(&x.narrow(1, 0, 1).unwrap(), &Positions::constant(start, 1));
            assert_eq!(rows(&first.unwrap()), rows(&run.narrow(1, 0, 1).unwrap()));
        }
        assert!(rope.table.read().capacity <= MAX_CAPACITY);
        assert!(rope.rotate(&x, &Positions::run(0, 2)).is_err());
    }

    #[test]
    fn scores_depend_on_distance_alone() {
        let rope = Rope::new(16, 1e4, &Device::Cpu).unwrap();
        let q = Tensor::randn(0f32, 1.0, (1, 1, 16), &Device::Cpu).unwrap();
        let k = Tensor::randn(0f32, 1.0, (1, 1, 16), &Device::Cpu).unwrap();
        let score = |p: usize| {
            let q = rope.rotate(&q, &Positions::run(p + 9, 1)).unwrap();
            let k = rope.rotate(&k, &Positions::run(p, 1)).unwrap();
            rows(&(q * k).unwrap()).iter().sum::<f32>()
        };
        assert!((score(0) - score(3000)).abs() < 1e-4);
    }

    #[test]
    fn each_axis_turns_its_own_pairs() {
        let rope = Rope::multimodal([1, 2, 1], 1e4, &Device::Cpu).unwrap();
        let plain = Rope::new(8, 1e4, &Device::Cpu).unwrap();
        let x = Tensor::randn(0f32, 1.0, (2, 1, 8), &Device::Cpu).unwrap();
        let at =
            |rope: &Rope, place| rows(&rope.rotate(&x, &Positions::listed(vec![place])).unwrap());
        let (t, h, w) = (7, 30, 2000);
        let found = at(&rope, Place { t, h, w });
        for (pair, position) in [t, h, h, w].into_iter().enumerate() {
            let expected = at(&plain, Place::text(position));
            for channel in [pair, pair + 4, pair + 8, pair + 12] {
                assert_eq!(found[channel], expected[channel], "channel {channel}");
            }
        }
        assert_eq!(at(&rope, Place::text(h)), at(&plain, Place::text(h)));
        let run = rope.rotate(&x, &Positions::run(h, 1)).unwrap();
        assert_eq!(rows(&run), at(&plain, Place::text(h)));
    }

    #[test]
    fn runs_that_meet_stay_a_run() {
        assert_eq!(Positions::run(0, 3).then(&Positions::run(3, 4)), Positions::run(0, 7));
        let apart = Positions::run(0, 1).then(&Positions::run(5, 1));
        assert_eq!(apart, Positions::listed(vec![Place::text(0), Place::text(5)]));
        assert_eq!(apart.then(&Positions::run(9, 0)), apart);
    }

    fn places(placed: &Placed) -> Vec<(usize, usize, usize)> {
        placed.positions.places().iter().map(|p| (p.t, p.h, p.w)).collect()
    }

    /// Two by three tokens, two positions a unit: the example of transformers' documentation.
    fn grid(compat: bool) -> Layout {
        Layout::Grid { rows: 2, cols: 3, step: 2.0, compat }
    }

    #[test]
    fn a_grid_places_by_time_row_and_column() {
        let placed = grid(false).stretch(3, 4..8);
        assert_eq!(places(&placed), [(3, 4, 4), (3, 4, 5), (5, 3, 3), (5, 3, 4)]);
        // Three units: what follows stands behind the last one's time, or, in compat, behind the
        // first picture.
        assert_eq!(grid(false).stretch(3, 0..18).next, 8);
        assert_eq!(grid(true).stretch(3, 0..18).next, 6);
        assert_eq!(grid(false).stretch(3, 0..6).next, 6);
        assert_eq!(grid(false).stretch(3, 0..0).next, 3);
    }

    #[test]
    fn a_fraction_of_a_step_is_rounded_down_once() {
        let layout = Layout::Grid { rows: 1, cols: 1, step: 0.7, compat: false };
        let t: Vec<usize> = places(&layout.stretch(0, 0..6)).iter().map(|p| p.0).collect();
        assert_eq!(t, [0, 0, 1, 2, 2, 3]);
    }

    #[test]
    fn packed_units_get_their_rank_as_time_and_keep_their_picture() {
        let kept = [Kept::All(6), Kept::Some(&[1, 5]), Kept::Some(&[]), Kept::Some(&[0])];
        let placed = grid(false).packed(10, kept);
        assert_eq!(placed.positions.len(), 9);
        assert_eq!(places(&placed)[6..], [(12, 10, 11), (12, 11, 12), (14, 10, 10)]);
        assert_eq!(placed.next, 15);
        assert_eq!(grid(false).packed(10, [Kept::All(12)]), grid(false).stretch(10, 0..12));
        let run = Layout::Run.packed(10, kept);
        assert_eq!(run, Placed::run(10, 9));
        assert_eq!(Layout::Run.stretch(10, 3..9).positions, Positions::run(13, 6));
    }

    #[test]
    fn a_window_reaches_as_far_as_its_pictures_in_time() {
        assert_eq!(Layout::Run.reach(14), 14);
        assert_eq!(grid(false).reach(14), 4);
    }
}
