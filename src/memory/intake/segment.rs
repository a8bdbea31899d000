// SPDX-License-Identifier: MPL-2.0
//! Cutting the stream into segments: the unit of encoding and of compression.
//!
//! ReKV takes frames as they come; StreamKV cuts where neighbouring frames stop looking alike
//! (StreamKV §3.1; the boundary features are those of the released code: the mean of a frame's
//! projected, pooled tokens).

mod saved;

use std::collections::VecDeque;

use candle_core::{DType, Tensor};

use super::frames::{FrameTokens, Segment};
use super::reduce::{cosines, cosines_there, drop_alike, first_of, merge_alike, peaks};
use crate::error::Result;
use crate::memory::kv::{nothing, read_all};
use crate::memory::recipe::{Cut, Recipe, Reduce};

/// The open segment and the rule that closes it.
#[derive(Clone, Debug)]
pub struct Segmenter {
    cut: Cut,
    reduce: Reduce,
    /// The newest frame as it came, before any patch was dropped.
    before: Option<Tensor>,
    /// Round boundary features to f16 as the reference does.
    compat: bool,
    open: Vec<FrameTokens>,
    /// Mean token of each open frame, `[C]`.
    features: Vec<Vec<f32>>,
    /// `cosines[i]` compares open frames `i` and `i + 1`.
    cosines: Vec<f32>,
    /// Feature of the newest frame as it came, never of a merged one.
    newest: Vec<f32>,
    /// What frames are compared by is computed where they are.
    on_device: bool,
    /// Of a token, the numbers that are compared; `None`: all.
    compared: Option<usize>,
    /// Of the frames that come next the first that each stands for, and its cosines with the one before
    /// it.
    foreseen: VecDeque<(u64, Vec<f32>)>,
}

impl Segmenter {
    pub fn new(cut: Cut, compat: bool) -> Self {
        Self {
            cut,
            reduce: Reduce::Nothing,
            before: None,
            compat,
            open: Vec::new(),
            features: Vec::new(),
            cosines: Vec::new(),
            newest: Vec::new(),
            on_device: false,
            compared: None,
            foreseen: VecDeque::new(),
        }
    }

    /// Cuts and reduces as the recipe says. A step of fixed length takes at most half of what a
    /// resident cache may hold, as in every published setting: a larger one would push out all
    /// that is older before anything has been compared with it.
    pub fn of(recipe: &Recipe) -> Self {
        let cut = match (recipe.cut, &recipe.resident) {
            (Cut::Uniform { frames }, Some(resident)) => {
                Cut::Uniform { frames: frames.min((resident.cap / 2).max(1)) }
            }
            (cut, _) => cut,
        };
        Self::new(cut, recipe.compat).reducing(recipe.reduce)
    }

    /// The same with redundancy taken out before anything is encoded.
    pub fn reducing(self, reduce: Reduce) -> Self {
        Self { reduce, ..self }
    }

    /// The same for frames that stay where they are computed.
    pub fn where_they_are(self, on_device: bool) -> Self {
        Self { on_device, ..self }
    }

    /// The same of tokens that are several vectors side by side, of which the first, `width` numbers, is
    /// what frames are compared by.
    pub fn comparing(self, width: usize) -> Self {
        Self { compared: Some(width), ..self }
    }

    /// What of tokens `[M, C]` is compared.
    fn seen(&self, tokens: &Tensor) -> Result<Tensor> {
        first_of(tokens, self.compared)
    }

    /// Looks at frames that will be pushed next: what patches are dropped by, all in one read.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn foresee(&mut self, frames: &[FrameTokens]) -> Result<()> {
        self.foreseen.clear();
        if !self.on_device || !matches!(self.reduce, Reduce::Patches { .. }) {
            return Ok(());
        }
        let mut unread = Vec::with_capacity(frames.len());
        let mut before = self.before.clone();
        for frame in frames {
            unread.push(match &before {
                Some(before) => cosines_there(&self.seen(&frame.tokens)?, before)?,
                None => nothing(0)?,
            });
            before = Some(self.seen(&frame.tokens)?);
        }
        let starts = frames.iter().map(|frame| frame.frames.start);
        self.foreseen = starts.zip(read_all(&unread)?).collect();
        Ok(())
    }

    /// What was foreseen of a frame that is pushed now.
    fn known(&mut self, frame: &FrameTokens) -> Option<Vec<f32>> {
        let (start, cosines) = self.foreseen.pop_front()?;
        if start != frame.frames.start {
            self.foreseen.clear();
            return None;
        }
        Some(cosines)
    }

    /// Takes the next frame; returns the segment that it closed, if any. The frame itself opens
    /// the next segment, except under [`Cut::Uniform`], whose last frame completes its segment.
    pub fn push(&mut self, frame: FrameTokens) -> Result<Option<Segment>> {
        let known = self.known(&frame);
        let frame = self.reduced(frame, known)?;
        match self.cut {
            Cut::Never => {
                self.open.push(frame);
                Ok(None)
            }
            Cut::Uniform { frames } => {
                self.open.push(frame);
                if self.open.len() >= frames { self.close() } else { Ok(None) }
            }
            Cut::Pack { .. } => {
                self.open.push(frame);
                let (units, rest) = self.packed(false)?;
                self.open = rest;
                Ok((!units.is_empty()).then_some(Segment { frames: units }))
            }
            Cut::Semantic { threshold, min, max, close_at_max, seconds } => {
                let feature = self.feature(&frame)?;
                let Some(first) = self.open.first() else {
                    self.start_with(frame, feature);
                    return Ok(None);
                };
                let alike = cosine(&feature, &self.newest, self.compat);
                // The reference compares in f16: 0.99 is 0.990234375 there, and equality cuts.
                let threshold = match self.compat {
                    true => half::f16::from_f32(threshold).to_f32(),
                    false => threshold,
                };
                // What is left out behind a frame may not have come yet.
                let overdue = frame.shown() - first.start >= seconds;
                let full = close_at_max && self.open.len() >= max;
                if (self.open.len() < min || alike > threshold) && !overdue && !full {
                    self.append(frame, feature, alike, max)?;
                    return Ok(None);
                }
                let closed = self.close()?;
                self.start_with(frame, feature);
                Ok(closed)
            }
        }
    }

    /// Takes the open segment, if it has any frame.
    pub fn close(&mut self) -> Result<Option<Segment>> {
        self.features.clear();
        self.cosines.clear();
        let frames = match (self.cut, self.reduce) {
            (Cut::Pack { .. }, _) => {
                let (units, _) = self.packed(true)?;
                self.open.clear();
                units
            }
            (_, Reduce::Frames { alike }) => {
                let open = std::mem::take(&mut self.open);
                merge_alike(open, alike, self.compared, self.on_device)?
            }
            (_, Reduce::Peaks { keep }) => {
                let open = std::mem::take(&mut self.open);
                peaks(open, keep, self.compared, self.on_device)?
            }
            _ => std::mem::take(&mut self.open),
        };
        Ok((!frames.is_empty()).then_some(Segment { frames }))
    }

    /// The open segment as it would be if it closed now, with these frames behind it.
    pub fn open_segment(&self, more: Vec<FrameTokens>) -> Result<Option<Segment>> {
        let mut closing = self.clone();
        for frame in more {
            let frame = closing.reduced(frame, None)?;
            closing.open.push(frame);
        }
        closing.close()
    }

    /// The frame without what the one before it already said.
    fn reduced(&mut self, frame: FrameTokens, known: Option<Vec<f32>>) -> Result<FrameTokens> {
        let whole = self.seen(&frame.tokens)?;
        let frame = match (self.reduce, &self.before) {
            (Reduce::Patches { alike }, Some(before)) => {
                let cosines = match known {
                    Some(cosines) => cosines,
                    None => cosines(&whole, before, self.on_device)?,
                };
                drop_alike(frame, &cosines, alike)?
            }
            _ => frame,
        };
        self.before = Some(whole);
        Ok(frame)
    }

    /// The open frames' tokens in units across frames, and what does not fill one, frame by frame;
    /// with `all` that makes a unit too.
    fn packed(&self, all: bool) -> Result<(Vec<FrameTokens>, Vec<FrameTokens>)> {
        let (Cut::Pack { frames }, Some(first)) = (self.cut, self.open.first()) else {
            return Ok((Vec::new(), Vec::new()));
        };
        let whole = self.before.as_ref().map_or(Ok(0), |before| before.dim(0))?;
        let size = (whole * frames).max(1);
        // Of every token its frame and its patch.
        let mut tokens = Vec::new();
        for (index, frame) in self.open.iter().enumerate() {
            let n = frame.tokens.dim(0)? as u32;
            let patches = frame.patches.as_ref().map_or_else(|| (0..n).collect(), |p| p.to_vec());
            tokens.extend(patches.into_iter().map(|patch| (index, frame, patch)));
        }
        let rows: Vec<&Tensor> = self.open.iter().map(|frame| &frame.tokens).collect();
        let rows = Tensor::cat(&rows, 0)?;
        let filled = if all { tokens.len() } else { tokens.len() - tokens.len() % size };
        let piece = |start: usize, end: usize| -> Result<FrameTokens> {
            let own = tokens.get(start..end).unwrap_or(&[]);
            let (begin, from) =
                own.first().map_or((0, first), |(index, frame, _)| (*index, *frame));
            let to = own.last().map_or(first, |(_, frame, _)| *frame);
            // Patches of later frames count on, so that each token of a unit has its own.
            let patch = |(index, _, patch): &(usize, &FrameTokens, u32)| {
                ((index - begin) * whole) as u32 + patch
            };
            Ok(FrameTokens {
                tokens: rows.narrow(0, start, end - start)?,
                frames: from.frames.start..to.frames.end,
                start: from.start,
                end: to.end,
                told: (from.told + to.told) / 2.0,
                patches: Some(own.iter().map(patch).collect()),
                mean: None,
                ..from.clone()
            })
        };
        let units = (0..filled).step_by(size).map(|start| piece(start, (start + size).min(filled)));
        let units = units.collect::<Result<_>>()?;
        let mut rest = Vec::new();
        let mut start = filled;
        for tokens in tokens[filled..].chunk_by(|a, b| a.0 == b.0) {
            rest.push(piece(start, start + tokens.len())?);
            start += tokens.len();
        }
        Ok((units, rest))
    }

    /// Says that its newest frame stands for all frames up to number `frames`, until that second of
    /// the stream. `false` if it has none.
    pub fn lengthen(&mut self, frames: u64, end: f64) -> bool {
        let Some(newest) = self.open.last_mut() else { return false };
        newest.frames.end = newest.frames.end.max(frames);
        newest.end = newest.end.max(end);
        true
    }

    /// Frames that wait for a boundary.
    pub fn open_frames(&self) -> &[FrameTokens] {
        &self.open
    }

    /// Whether frames are to wait for a boundary at all.
    pub fn holds_frames(&self) -> bool {
        self.cut != Cut::Never
    }

    fn start_with(&mut self, frame: FrameTokens, feature: Vec<f32>) {
        self.newest.clone_from(&feature);
        self.open = vec![frame];
        self.features = vec![feature];
    }

    fn append(
        &mut self,
        frame: FrameTokens,
        feature: Vec<f32>,
        alike: f32,
        max: usize,
    ) -> Result<()> {
        self.newest.clone_from(&feature);
        self.open.push(frame);
        self.features.push(feature);
        self.cosines.push(alike);
        if self.open.len() > max { self.merge_most_alike() } else { Ok(()) }
    }

    fn merge_most_alike(&mut self) -> Result<()> {
        // The first of equals, as argmax has it.
        let Some(at) = (0..self.cosines.len())
            .reduce(|best, i| if self.cosines[i] > self.cosines[best] { i } else { best })
        else {
            return Ok(());
        };
        let right = self.open.remove(at + 1);
        self.features.remove(at + 1);
        let left = &mut self.open[at];
        // Frames of which patches were dropped have no mean; the fuller one speaks for both.
        if left.tokens.dims() == right.tokens.dims() {
            left.tokens = ((&left.tokens + &right.tokens)? * 0.5)?;
        } else if right.tokens.dim(0)? > left.tokens.dim(0)? {
            left.tokens = right.tokens;
            left.patches = right.patches;
        }
        left.frames.end = right.frames.end;
        left.end = right.end;
        left.told = (left.start + left.end) / 2.0;
        left.mean = None;
        let left = left.clone();
        self.features[at] = self.feature(&left)?;
        self.cosines.remove(at);
        if at > 0 {
            self.cosines[at - 1] = cosine(&self.features[at - 1], &self.features[at], self.compat);
        }
        if at < self.cosines.len() {
            self.cosines[at] = cosine(&self.features[at], &self.features[at + 1], self.compat);
        }
        Ok(())
    }

    /// Whether it looks at the mean of each frame's tokens.
    pub fn compares_means(&self) -> bool {
        matches!(self.cut, Cut::Semantic { .. })
    }

    fn feature(&self, frame: &FrameTokens) -> Result<Vec<f32>> {
        let mut mean = match &frame.mean {
            Some(mean) => mean.to_vec(),
            None => self.seen(&frame.tokens)?.to_dtype(DType::F32)?.mean(0)?.to_vec1()?,
        };
        if self.compat {
            mean.iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32());
        }
        Ok(mean)
    }
}

/// `a . b / (|a| |b| + 1e-8)`; with `stepwise` every intermediate is rounded to f16.
fn cosine(a: &[f32], b: &[f32], stepwise: bool) -> f32 {
    let round = |x: f64| if stepwise { f64::from(half::f16::from_f64(x)) } else { x };
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    let norms = round(round(dot(a, a).sqrt()) * round(dot(b, b).sqrt()));
    round(round(dot(a, b)) / round(norms + 1e-8)) as f32
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Frames of one token on the unit circle.
    fn frames(degrees: &[f64]) -> Vec<FrameTokens> {
        degrees
            .iter()
            .enumerate()
            .map(|(i, angle)| {
                let (sin, cos) = angle.to_radians().sin_cos();
                let i = i as u64;
                let tokens = Tensor::new(&[[cos as f32, sin as f32]], &Device::Cpu).unwrap();
                FrameTokens::whole(tokens, i..i + 1, (i as f64, i as f64))
            })
            .collect()
    }

    fn semantic(min: usize, max: usize) -> Cut {
        Cut::Semantic { threshold: 0.99, min, max, close_at_max: false, seconds: f64::INFINITY }
    }

    fn cut(cut: Cut, degrees: &[f64]) -> Vec<Segment> {
        let mut segmenter = Segmenter::new(cut, false);
        let mut segments: Vec<Segment> =
            frames(degrees).into_iter().filter_map(|f| segmenter.push(f).unwrap()).collect();
        segments.extend(segmenter.close().unwrap());
        segments
    }

    fn lengths(segments: &[Segment]) -> Vec<usize> {
        segments.iter().map(|s| s.frames.len()).collect()
    }

    const ANGLES: [f64; 15] =
        [0., 1., 2., 40., 41., 42., 43., 90., 91., 92., 93., 94., 95., 96., 10.];

    #[test]
    fn boundaries_match_the_golden_vectors() {
        assert_eq!(lengths(&cut(semantic(4, 64), &ANGLES)), [7, 7, 1]);
        assert_eq!(lengths(&cut(semantic(1, 64), &ANGLES)), [3, 4, 7, 1]);
    }

    #[test]
    fn a_full_segment_merges_its_most_alike_neighbours() {
        // Gaps 1.0, 1.1, 1.3, 0.9, 1.2, 1.4: distinct, so that rounding cannot choose.
        let angles = [90.0, 91.0, 92.1, 93.4, 94.3, 95.5, 96.9];
        let segments = cut(semantic(1, 4), &angles);
        assert_eq!(lengths(&segments), [4]);
        let spans: Vec<_> = segments[0].frames.iter().map(|f| f.frames.clone()).collect();
        // 93.4 and 94.3 merge first, then 90 and 91, then 95.5 joins the first pair: the gap to a
        // newcomer is that to the frame before it as it came, not as it was merged.
        assert_eq!(spans.iter().map(|s| s.end - s.start).sum::<u64>(), 7);
        assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start), "order is kept");
        assert_eq!(spans, [0..2, 2..3, 3..6, 6..7]);
    }

    #[test]
    fn golden_merge_of_equal_gaps() {
        let segments = cut(semantic(1, 4), &ANGLES);
        assert_eq!(lengths(&segments), [3, 4, 4, 1]);
    }

    #[test]
    fn merging_equal_frames_changes_nothing_but_the_span() {
        let segments = cut(semantic(1, 2), &[30.0, 30.0, 30.0]);
        assert_eq!(lengths(&segments), [2]);
        for frame in &segments[0].frames {
            let tokens = frame.tokens.to_vec2::<f32>().unwrap();
            assert!((tokens[0][0] - 30f32.to_radians().cos()).abs() < 1e-6);
        }
    }

    #[test]
    fn the_threshold_limits_are_one_segment_or_min_frames_each() {
        let rule = |threshold| Cut::Semantic {
            threshold,
            min: 3,
            max: 64,
            close_at_max: false,
            seconds: f64::INFINITY,
        };
        assert_eq!(lengths(&cut(rule(-2.0), &ANGLES)), [15]);
        assert_eq!(lengths(&cut(rule(2.0), &ANGLES)), [3, 3, 3, 3, 3]);
    }

    #[test]
    fn time_and_size_can_close_a_segment_in_which_nothing_changes() {
        let still = [5.0; 9];
        let by_time =
            Cut::Semantic { threshold: 0.99, min: 1, max: 64, close_at_max: false, seconds: 4.0 };
        assert_eq!(lengths(&cut(by_time, &still)), [4, 4, 1]);
        let by_size = Cut::Semantic {
            threshold: 0.99,
            min: 1,
            max: 3,
            close_at_max: true,
            seconds: f64::INFINITY,
        };
        assert_eq!(lengths(&cut(by_size, &still)), [3, 3, 3]);
        assert_eq!(lengths(&cut(Cut::Uniform { frames: 4 }, &still)), [4, 4, 1]);
    }

    #[test]
    fn a_step_takes_at_most_half_of_the_resident_cache() {
        for name in Recipe::names() {
            let published = Recipe::named(name).unwrap();
            assert_eq!(Segmenter::of(&published).cut, published.cut, "{name}");
        }
        let step = |name: &str, cap: &str| {
            let mut recipe = Recipe::named(name).unwrap();
            recipe.set("cap", cap).unwrap();
            let mut segmenter = Segmenter::of(&recipe);
            let push = |frame| segmenter.push(frame).unwrap();
            frames(&[0.0; 33]).into_iter().filter_map(push).next().unwrap().frames.len()
        };
        for name in ["hermes", "retake"] {
            let steps: Vec<_> = ["1", "8", "16"].map(|cap| step(name, cap)).into();
            assert_eq!(steps, [1, 4, 8], "{name}");
        }
        assert_eq!((step("hermes", "64"), step("retake", "64")), (16, 32));
        assert_eq!((step("infinipot-v", "8"), step("infinipot-v", "16")), (4, 8));
    }

    #[test]
    fn packed_units_go_across_frames_and_lose_no_token() {
        let frame = |i: u64, n: usize| {
            let rows: Vec<f32> = (0..2 * n).map(|x| (10 * i) as f32 + x as f32).collect();
            let tokens = Tensor::from_vec(rows, (n, 2), &Device::Cpu).unwrap();
            let patches: Vec<u32> = (0..n as u32).map(|p| p + 4 - n as u32).collect();
            let whole = FrameTokens::whole(tokens, i..i + 1, (i as f64, i as f64));
            FrameTokens { patches: (n < 4).then(|| patches.into()), ..whole }
        };
        let mut segmenter = Segmenter::new(Cut::Pack { frames: 1 }, false);
        let mut units = Vec::new();
        for (i, n) in [4, 2, 1, 2, 3].into_iter().enumerate() {
            // What is left of a frame does not say how large a whole one is.
            segmenter.before = Some(Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap());
            segmenter.open.push(frame(i as u64, n));
            let (full, rest) = segmenter.packed(false).unwrap();
            segmenter.open = rest;
            units.extend(full);
        }
        units.extend(segmenter.close().unwrap().into_iter().flat_map(|segment| segment.frames));
        let patches: Vec<_> = units.iter().map(|unit| unit.patches.clone().unwrap()).collect();
        let expected: [&[u32]; 3] = [&[0, 1, 2, 3], &[2, 3, 7, 10], &[3, 5, 6, 7]];
        assert_eq!(patches.iter().map(|p| &p[..]).collect::<Vec<_>>(), expected);
        let spans: Vec<_> = units.iter().map(|unit| unit.frames.clone()).collect();
        assert_eq!(spans, [0..1, 1..4, 3..5]);
    }

    #[test]
    fn the_summary_of_equal_frames_is_the_frame() {
        let segment = &cut(semantic(1, 64), &[12.0, 12.0, 12.0])[0];
        let summary = segment.summary().unwrap().unwrap().to_vec2::<f32>().unwrap();
        assert!((summary[0][0] - 12f32.to_radians().cos()).abs() < 1e-6);
    }

    #[test]
    fn the_references_threshold_is_rounded_to_f16_and_equality_cuts() {
        let at = |degrees: f64| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            let round = |x: f64| half::f16::from_f64(x).to_f32();
            cosine(&[1.0, 0.0], &[round(cos), round(sin)], true)
        };
        let on_it = (780..820).map(|i| f64::from(i) / 100.0).find(|&i| at(i) == 0.990_234_4);
        let cut = |compat| {
            let mut segmenter = Segmenter::new(semantic(1, 64), compat);
            let frames = frames(&[0.0, on_it.unwrap()]).into_iter();
            frames.filter_map(|frame| segmenter.push(frame).unwrap()).count()
        };
        assert_eq!((cut(true), cut(false)), (1, 0));
    }

    #[test]
    fn the_golden_threshold_lies_between_8_and_8_11_degrees() {
        assert_eq!(lengths(&cut(semantic(1, 64), &[0.0, 8.0])), [2]);
        assert_eq!(lengths(&cut(semantic(1, 64), &[0.0, 8.11])), [1, 1]);
    }
}
