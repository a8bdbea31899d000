// SPDX-License-Identifier: MPL-2.0
//! Where tokens stand: places in time and in the picture, and the layout of a video, which turns
//! "tokens 98 to 196 of the video" or "what is left of these units" into [`Positions`].

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where a token stands in time and in the picture. Text stands at the same number on every axis,
/// and so does everything in a model with one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
pub struct Positions(pub(super) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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

    /// One behind the largest number of any row on any axis.
    pub fn end(&self) -> usize {
        match &self.0 {
            Kind::Run { n: 0, .. } | Kind::Constant { n: 0, .. } => 0,
            Kind::Run { start, n } => start.saturating_add(*n),
            Kind::Constant { position, .. } => position.saturating_add(1),
            Kind::Listed(places) => {
                places.iter().map(|place| place.max().saturating_add(1)).max().unwrap_or(0)
            }
        }
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Layout {
    /// One behind the other.
    Run,
    /// By time and by their place in the picture (M-RoPE). The token in row `r` and column `c` of a
    /// unit that comes `i` steps of time behind the first of a video that starts at `s` stands at
    /// `t = s + floor(i * step)`, `h = s + r`, `w = s + c`. Where units come regularly `i` is whole.
    Grid {
        /// Rows and columns of a unit's tokens, row by row; both at least 1.
        rows: usize,
        cols: usize,
        /// Positions on the time axis from one regular unit to the next, at least 0; for Qwen2.5-VL
        /// `tokens_per_second` times the seconds that a unit stands for. In f32, as transformers
        /// rounds it.
        step: f32,
        /// What follows a video stands behind the largest position in it; with this, behind its
        /// first picture, however long the video (transformers 5).
        compat: bool,
    },
    /// Unit by unit, one behind the other, time being told in words (Qwen3-VL). Words stand as text
    /// does. The token in row `r` and column `c` of a picture that starts at `s` stands at `t = s`,
    /// `h = s + r`, `w = s + c`, and what follows the picture behind its longer side.
    Lines {
        /// Rows and columns of a picture's tokens, row by row; both at least 1.
        rows: usize,
        cols: usize,
        /// Tokens of the words around one, as the stream begins.
        words: usize,
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

/// What is left of a retrieved unit: words in front of its picture, tokens of the picture, words behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept<'a> {
    front: usize,
    picture: Offsets<'a>,
    behind: usize,
}

/// Tokens of a picture, counted as it entered the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offsets<'a> {
    /// The first so many, without a gap.
    All(usize),
    /// These, ascending.
    Some(&'a [usize]),
}

impl<'a> Kept<'a> {
    /// The first so many tokens of a picture.
    pub fn all(n: usize) -> Self {
        Self { front: 0, picture: Offsets::All(n), behind: 0 }
    }

    /// These tokens of a picture, ascending.
    pub fn some(offsets: &'a [usize]) -> Self {
        Self { front: 0, picture: Offsets::Some(offsets), behind: 0 }
    }

    /// With so many tokens of words around.
    pub fn within(self, front: usize, behind: usize) -> Self {
        Self { front, behind, ..self }
    }

    pub fn len(&self) -> usize {
        self.front + self.seen() + self.behind
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of the picture.
    fn seen(&self) -> usize {
        match self.picture {
            Offsets::All(n) => n,
            Offsets::Some(offsets) => offsets.len(),
        }
    }

    fn offset(&self, index: usize) -> Option<usize> {
        match self.picture {
            Offsets::All(n) => (index < n).then_some(index),
            Offsets::Some(offsets) => offsets.get(index).copied(),
        }
    }

    fn offsets(&self) -> impl Iterator<Item = usize> + use<'a> {
        let kept = *self;
        (0..kept.seen()).filter_map(move |index| kept.offset(index))
    }

    /// One behind the last of the picture's tokens that are left.
    fn end(&self) -> usize {
        self.seen().checked_sub(1).and_then(|last| self.offset(last)).map_or(0, |last| last + 1)
    }
}

impl Layout {
    /// Where a unit's tokens stand in a video that starts at `start`: `at` places are taken in front of
    /// the unit, and it comes `time` steps behind the first. A token of the picture leaves a gap where it
    /// is missing.
    pub fn places_in(&self, start: usize, (at, time): (usize, f64), unit: Kept<'_>) -> Vec<Place> {
        let picture = |start: usize| unit.offsets().map(move |token| (start, token));
        match *self {
            Self::Grid { .. } => {
                let front = (0..unit.front).map(|_| self.place(start, time, 0));
                let seen = picture(start).map(|(start, token)| self.place(start, time, token));
                let behind = (0..unit.behind).map(|_| self.place(start, time, 0));
                front.chain(seen).chain(behind).collect()
            }
            Self::Run => {
                let base = start + at + unit.front;
                let front = (base - unit.front..base).map(Place::text);
                let seen = picture(base).map(|(base, token)| Place::text(base + token));
                let behind = base + unit.end();
                front.chain(seen).chain((behind..behind + unit.behind).map(Place::text)).collect()
            }
            Self::Lines { .. } => {
                let base = start + at + unit.front;
                let front = (base - unit.front..base).map(Place::text);
                let seen = picture(base).map(|(base, token)| self.place(base, 0.0, token));
                let behind = base + self.taken(unit.end());
                front.chain(seen).chain((behind..behind + unit.behind).map(Place::text)).collect()
            }
        }
    }

    /// Places that a unit takes on the axes that others stand behind it on: words around it, and
    /// `tokens` tokens of pictures, holes included.
    pub fn room(&self, words: usize, tokens: usize) -> usize {
        words + self.taken(tokens)
    }

    /// The same of the pictures alone.
    fn taken(&self, tokens: usize) -> usize {
        match *self {
            Self::Lines { rows, cols, .. } => self.pictures(tokens) * rows.max(cols),
            Self::Run | Self::Grid { .. } => tokens,
        }
    }

    /// The tokens `tokens` of a video that starts at `start` and whose units come regularly. Token 0
    /// is the video's first.
    pub fn stretch(&self, start: usize, tokens: Range<usize>) -> Placed {
        if *self == Self::Run {
            return Placed::run(start + tokens.start, tokens.len());
        }
        self.listed(start, tokens.map(|token| self.place(start, 0.0, token)).collect())
    }

    /// What is left of some units, side by side behind `start` as if the stream had consisted of
    /// nothing else: without a gap on one axis; on three, each unit has the time of its rank
    /// among them and its tokens keep their places in the picture.
    ///
    /// A unit of more tokens than a picture has takes as many steps of time as it covers.
    pub fn packed<'a>(&self, start: usize, units: impl IntoIterator<Item = Kept<'a>>) -> Placed {
        let mut rank = 0;
        let ranked = units.into_iter().map(|unit| {
            let time = rank as f64;
            rank += self.pictures(unit.end());
            (time, unit)
        });
        self.timed(start, ranked)
    }

    /// The same with a time for each unit, in steps behind `start`.
    pub fn timed<'a>(
        &self,
        start: usize,
        units: impl IntoIterator<Item = (f64, Kept<'a>)>,
    ) -> Placed {
        if *self == Self::Run {
            let n = units.into_iter().map(|(_, unit)| unit.len()).sum();
            return Placed::run(start, n);
        }
        let (mut places, mut at) = (Vec::new(), 0);
        for (time, unit) in units {
            places.extend(self.places_in(start, (at, time), unit));
            at += self.room(unit.front + unit.behind, unit.end());
        }
        match self {
            Self::Lines { .. } => Placed { positions: Positions::listed(places), next: start + at },
            Self::Run | Self::Grid { .. } => self.listed(start, places),
        }
    }

    /// Pictures that a unit of so many tokens covers.
    fn pictures(&self, tokens: usize) -> usize {
        match *self {
            Self::Run => 1,
            Self::Grid { rows, cols, .. } | Self::Lines { rows, cols, .. } => {
                tokens.div_ceil(rows * cols)
            }
        }
    }

    /// How many positions apart two tokens are, one a picture's last and the other `tokens` tokens
    /// before it: the distance at which a window of that width ends.
    pub fn reach(&self, tokens: usize) -> usize {
        match *self {
            Self::Run => tokens,
            Self::Grid { rows, cols, step, .. } => steps((tokens / (rows * cols)) as f64, step),
            Self::Lines { rows, cols, words } => {
                let share = (words + rows.max(cols)) as f64 / (words + rows * cols) as f64;
                (tokens as f64 * share) as usize
            }
        }
    }

    /// `token` counts from the first of the picture at `time`.
    fn place(&self, start: usize, time: f64, token: usize) -> Place {
        match *self {
            Self::Run => Place::text(start + token),
            Self::Grid { rows, cols, step, .. } => {
                let (unit, token) = (token / (rows * cols), token % (rows * cols));
                Place {
                    t: start + steps(time + unit as f64, step),
                    h: start + token / cols,
                    w: start + token % cols,
                }
            }
            Self::Lines { rows, cols, .. } => {
                let (picture, token) = (token / (rows * cols), token % (rows * cols));
                let start = start + picture * rows.max(cols);
                Place { t: start, h: start + token / cols, w: start + token % cols }
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

/// The farthest that time carries: so far that nothing is told apart there, and near enough that
/// positions can be added up.
const HORIZON: usize = 1 << 48;

/// Positions on the time axis that so many steps take. Whole steps are rounded as transformers rounds
/// them, in f32; between them a position is reached when all but a trifle of it has passed.
fn steps(time: f64, step: f32) -> usize {
    const TRIFLE: f64 = 1e-6;
    let positions = match time.fract() == 0.0 {
        true => (time as f32 * step) as usize,
        false => (time * f64::from(step) + TRIFLE) as usize,
    };
    positions.min(HORIZON)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Frames may be ages apart; whatever their times, there is a place for each.
    #[test]
    fn ages_between_units_end_at_the_horizon() {
        for step in [1e18, 8e18, f32::MAX, f32::INFINITY, f32::NAN] {
            let layout = Layout::Grid { rows: 2, cols: 3, step, compat: false };
            let placed = layout.stretch(7, 0..18);
            assert!(placed.next <= 7 + HORIZON + 4, "{step}: {}", placed.next);
            let again = layout.packed(placed.next, [Kept::all(6), Kept::all(6)]);
            assert!(again.next >= placed.next, "{step}");
            assert!(layout.reach(usize::MAX / 4) <= HORIZON, "{step}");
        }
    }

    #[test]
    fn a_fraction_of_a_step_is_rounded_down_once() {
        let layout = Layout::Grid { rows: 1, cols: 1, step: 0.7, compat: false };
        let t: Vec<usize> = places(&layout.stretch(0, 0..6)).iter().map(|p| p.0).collect();
        assert_eq!(t, [0, 0, 1, 2, 2, 3]);
    }

    #[test]
    fn a_unit_stands_at_its_own_time() {
        let layout = grid(false);
        let one = |layout: Layout, time| layout.places_in(3, (99, time), Kept::some(&[4]))[0];
        let t = |time: f64| one(layout, time).t - 3;
        // Two positions a step.
        assert_eq!([0.0, 1.0, 1.2, 1.5, 5.0].map(t), [0, 2, 2, 3, 10]);
        // A time that was a third of a second is not a position early.
        assert_eq!(t(1.0 - 1e-9), 2);
        assert_eq!(one(Layout::Run, 7.5), Place::text(106));
        let placed = layout.timed(3, [(0.0, Kept::all(6)), (5.0, Kept::some(&[1]))]);
        assert_eq!((places(&placed)[6], placed.next), ((13, 3, 4), 14));
    }

    #[test]
    fn packed_units_get_their_rank_as_time_and_keep_their_picture() {
        let kept = [Kept::all(6), Kept::some(&[1, 5]), Kept::some(&[]), Kept::some(&[0])];
        let placed = grid(false).packed(10, kept);
        assert_eq!(placed.positions.len(), 9);
        assert_eq!(places(&placed)[6..], [(12, 10, 11), (12, 11, 12), (14, 10, 10)]);
        assert_eq!(placed.next, 15);
        assert_eq!(grid(false).packed(10, [Kept::all(12)]), grid(false).stretch(10, 0..12));
        let run = Layout::Run.packed(10, kept);
        assert_eq!(run, Placed::run(10, 9));
        assert_eq!(Layout::Run.stretch(10, 3..9).positions, Positions::run(13, 6));
    }

    #[test]
    fn a_window_reaches_as_far_as_its_pictures_in_time() {
        assert_eq!(Layout::Run.reach(14), 14);
        assert_eq!(grid(false).reach(14), 4);
    }

    /// Qwen3-VL's example: each unit's line of words, its picture, and the end of the line.
    #[test]
    fn lines_stand_one_behind_the_other_and_a_picture_takes_its_longer_side() {
        let layout = Layout::Lines { rows: 2, cols: 3, words: 3 };
        let whole = Kept::all(6).within(2, 1);
        let placed = layout.packed(10, [whole, Kept::some(&[1, 5]).within(2, 1)]);
        let first = [(10, 10, 10), (11, 11, 11), (12, 12, 12), (12, 12, 13), (12, 12, 14)];
        assert_eq!(places(&placed)[..5], first);
        assert_eq!(places(&placed)[5..9], [(12, 13, 12), (12, 13, 13), (12, 13, 14), (15, 15, 15)]);
        // Holes change nothing for what follows.
        let second = [(16, 16, 16), (17, 17, 17), (18, 18, 19), (18, 19, 20), (21, 21, 21)];
        assert_eq!((&places(&placed)[9..], placed.next), (&second[..], 22));
        // Two pictures in one line, and a unit of which words alone are left.
        let placed =
            layout.packed(0, [Kept::some(&[0, 6]).within(1, 1), Kept::all(0).within(2, 0)]);
        let both = [(0, 0, 0), (1, 1, 1), (4, 4, 4), (7, 7, 7), (8, 8, 8), (9, 9, 9)];
        assert_eq!((&places(&placed)[..], placed.next), (&both[..], 10));
        assert_eq!(layout.reach(90), 60);
    }

    #[test]
    fn words_on_one_axis_are_tokens_like_others() {
        let placed =
            Layout::Run.packed(5, [Kept::all(4).within(2, 1), Kept::some(&[3]).within(1, 0)]);
        assert_eq!(placed, Placed::run(5, 9));
        let own = Layout::Run.places_in(5, (10, 0.0), Kept::some(&[0, 3]).within(2, 1));
        assert_eq!(own, [15, 16, 17, 20, 21].map(Place::text));
    }
}
