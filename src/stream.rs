// SPDX-License-Identifier: MPL-2.0
//! One camera's life: push frames, ask, look at what is kept. The engine's facade.

mod alike;
mod answer;
mod changes;
mod opening;
mod saved;

use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Tensor};
use parking_lot::Mutex;

pub use self::alike::SkipOptions;
use self::alike::{Run, Sieve, Sifted};
use self::answer::Said;
pub use self::answer::{Answer, LayerContext, Question, Timings};
use self::changes::Changes;
pub use self::opening::StreamOptions;
use self::opening::{empty_memory, form, outside, unused};
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::evidence;
use crate::frame::Frame;
use crate::memory::VideoMemory;
use crate::memory::answer::Answering;
use crate::memory::find::{self, Asked, Context, View, Within};
use crate::memory::intake::{Encoded, FrameTokens, Segment, Segmenter};
pub use crate::memory::keep::Age;
use crate::memory::recipe::{Older, Recipe};
use crate::memory::store::StoreStats;
use crate::memory::unit::{Kind, Unit};
use crate::model::generate::{History, Request, generate};
use crate::model::kernels;
use crate::model::prompt::Tail;
use crate::model::rope::{Kept, Layout};
use crate::model::text_image::TextImage;
use crate::model::verdict::weigh;
use crate::model::vision::Picture;
use crate::model::vision::reuse::Reuse;
pub use crate::model::vision::reuse::ReuseOptions;
use crate::model::{VideoLlm, sound};
use crate::notices::{self, Notices, Part};

/// What a stream holds, for `stats` and for benchmarks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StreamStats {
    /// Frames pushed since the start or the last [`Stream::clear`].
    pub frames: u64,
    /// Of these, how many showed nothing new and were left out.
    pub skipped: u64,
    /// Patches that were taken from an earlier frame instead of going through the tower.
    pub reused: u64,
    /// Units (frames and summaries) that at least one layer still holds.
    pub units: u64,
    pub segments: u64,
    /// How often the picture has changed since [`Stream::watch_changes`].
    pub changes: u64,
    /// Frames waiting in the open segment.
    pub open_frames: u64,
    /// Bytes of stored keys and values in all tiers, windows and sinks included.
    pub bytes: u64,
    pub store: StoreStats,
}

/// One video and what is remembered of it.
pub struct Stream {
    model: VideoLlm,
    recipe: Recipe,
    options: StreamOptions,
    memory: VideoMemory,
    segmenter: Segmenter,
    /// The text-image model that ranks units too, if the recipe has one.
    outside: Option<Arc<TextImage>>,
    sieve: Sieve,
    reuse: Reuse,
    changes: Changes,
    /// Frames taken into units.
    frames: u64,
    /// Frames that wait for the rest of their unit.
    pending: Vec<Frame>,
    /// The shape of the units, which the first frame decided.
    picture: Option<Picture>,
    /// The open segment as the last question saw it. Several questions at one moment share it.
    branch: Mutex<Option<Arc<Encoded>>>,
    /// The ids in front of the video; `None` where the decoder made no numbers of them, and nothing
    /// can be seen or said.
    opening: Option<Vec<u32>>,
    notices: Notices,
    cancel: Cancel,
}

/// Frames of a recipe that does not cut are encoded at most this many at a time, and of large ones
/// so few that they have about as many tokens as below: more make no product faster, and the working
/// memory and how long a cancellation waits stay bounded. The result does not depend on it.
const CHUNK: usize = 64;
const CHUNK_TOKENS: usize = 2048;

/// Answer tokens for which room is set aside at once; a longer answer makes room as it grows.
const ROOM: usize = 256;

impl Stream {
    /// A stream in the checkpoint's own prompt style and without a memory bound.
    ///
    /// # Errors
    /// As [`Stream::open`].
    pub fn new(model: VideoLlm, recipe: Recipe) -> Result<Self> {
        Self::open(model, recipe, StreamOptions::default())
    }

    /// Opens a stream: runs the tokens in front of the video through the decoder.
    ///
    /// # Errors
    /// [`EngineError::Words`] for words that are too long, [`EngineError::Cancelled`], and whatever
    /// the computation fails with.
    pub fn open(model: VideoLlm, recipe: Recipe, options: StreamOptions) -> Result<Self> {
        let cancel = options.cancel.clone();
        let notices = Notices::default();
        if let Some(unapplied) = model.unapplied() {
            notices.add(unapplied);
        }
        if let Some(unused) = unused(&model, &options) {
            notices.add(unused);
        }
        let (memory, opening) = empty_memory(&model, &recipe, &options, &notices)?;
        Ok(Self {
            memory,
            opening,
            notices,
            segmenter: segmenter(&model, &recipe),
            outside: outside(&model, &recipe, &options)?,
            sieve: Sieve::default(),
            reuse: Reuse::new(options.reuse),
            changes: Changes::default(),
            frames: 0,
            pending: Vec::new(),
            picture: None,
            branch: Mutex::new(None),
            cancel,
            model,
            recipe,
            options,
        })
    }

    /// The flag that the following calls obey.
    pub fn set_cancel(&mut self, cancel: Cancel) {
        self.cancel = cancel;
    }

    /// Counts from now on how often the picture changes ([`StreamStats::changes`]).
    ///
    /// # Errors
    /// As [`Recipe::for_model`].
    pub fn watch_changes(&mut self) -> Result<()> {
        self.changes.watch(&self.recipe, &self.model)
    }

    pub fn model(&self) -> &VideoLlm {
        &self.model
    }

    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    pub fn memory(&self) -> &VideoMemory {
        &self.memory
    }

    /// Whether a frame can be pushed at all. One that cannot be takes those down with it that are
    /// pushed in the same call.
    ///
    /// # Errors
    /// [`EngineError::Frame`] with what is wrong with it.
    pub fn check(&self, frame: &Frame) -> Result<()> {
        self.model.vision().check(frame)?;
        self.outside.as_ref().map_or(Ok(()), |outside| outside.check(frame))
    }

    /// # Errors
    /// As [`Stream::push_frames`].
    pub fn push(&mut self, frame: &Frame) -> Result<()> {
        self.push_frames(std::slice::from_ref(frame))
    }

    /// Takes frames in stream order; several at once are encoded in one batch.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`] or what the computation fails
    /// with. The segments that were complete before the fault are in the memory, the frames of
    /// this call behind them are lost.
    pub fn push_frames(&mut self, frames: &[Frame]) -> Result<()> {
        let seen = self.see(frames);
        if seen.is_err() {
            self.sieve.forget();
        }
        seen
    }

    fn see(&mut self, frames: &[Frame]) -> Result<()> {
        *self.branch.get_mut() = None;
        let Some(picture) = self.look_at(frames)? else { return Ok(()) };
        if self.opening.is_none() {
            self.frames += frames.len() as u64;
            return Ok(());
        }
        let per_unit = self.model.frames_per_unit();
        let units = (per_unit, self.pending.len());
        let period = self.options.sample_rate.map(f64::recip);
        let Sifted { before, frames } = self.sieve.sift(frames, self.options.skip, units, period);
        self.lengthen(before);
        let (fresh, mut runs): (Vec<Frame>, Vec<Run>) = frames.into_iter().unzip();
        let mut frames = std::mem::take(&mut self.pending);
        runs.splice(0..0, vec![Run::default(); frames.len()]);
        frames.extend(fresh);
        // Of a unit that waits for more, nothing is left out behind it.
        let whole = frames.len() - frames.len() % per_unit;
        self.pending = frames.split_off(whole);
        let units = (CHUNK_TOKENS / picture.tokens().max(1)).clamp(1, CHUNK.div_ceil(per_unit));
        let chunks = frames.chunks(units * per_unit).zip(runs.chunks(units * per_unit));
        for (frames, runs) in chunks {
            self.take_in(frames, runs, &picture)?;
        }
        Ok(())
    }

    /// The newest picture stands for these frames too.
    fn lengthen(&mut self, run: Run) {
        self.frames += run.frames;
        if run.frames > 0 && !self.segmenter.lengthen(self.frames, run.end) {
            self.memory.lengthen(self.frames, run.end);
        }
    }

    /// Closes the open segment, if there is one, with the frames that still wait for the rest of
    /// their unit.
    ///
    /// # Errors
    /// As [`Stream::push_frames`].
    pub fn flush(&mut self) -> Result<()> {
        *self.branch.get_mut() = None;
        if let Some(picture) = self.picture {
            let rest = std::mem::take(&mut self.pending);
            self.take_in(&rest, &vec![Run::default(); rest.len()], &picture)?;
        }
        self.reuse.forget();
        match self.segmenter.close()? {
            Some(segment) => self.remember(&segment),
            None => Ok(()),
        }
    }

    /// Answers from all frames pushed so far and leaves the memory as it was. `on_token` gets the
    /// answer's text piece by piece as it is generated.
    ///
    /// # Errors
    /// [`EngineError::Question`] for a text that cannot be asked, [`EngineError::Cancelled`], or what
    /// the computation fails with.
    pub fn ask(&self, question: &Question, mut on_token: impl FnMut(&str)) -> Result<Answer> {
        let answer = self.answer(question, &mut on_token);
        match &answer {
            Err(EngineError::NotFinite { what }) => {
                self.notices.not_finite(Part::Answer, what.clone());
            }
            Ok(_) => self.notices.finite(Part::Answer),
            Err(_) => {}
        }
        answer
    }

    fn answer(&self, question: &Question, on_token: &mut dyn FnMut(&str)) -> Result<Answer> {
        let asked = Instant::now();
        let (prompt, tail) = self.prompt(&question.text)?;
        let branch = self.branch()?;
        let branched = asked.elapsed();
        if let Some(fault) = self.blindness(branch.as_deref()) {
            return Err(fault);
        }

        let view = self.memory.view(branch.as_deref());
        let within = question.within.map(|span| view.between(span)).transpose()?;
        if let (Some((from, to)), Some(true)) =
            (question.within, within.as_ref().map(Within::is_empty))
        {
            let reason = format!("nothing that is remembered was seen from {from:.3} to {to:.3} s");
            return Err(EngineError::Question(reason));
        }
        let view = View { within: within.as_ref(), ..view };
        let contexts = self.look_up(view, &question.text)?;
        let retrieved = asked.elapsed();

        let room = prompt.dim(0)? + question.max_tokens.min(ROOM);
        // Where few tokens keep the places of a long stream, that is the method's idea.
        let reach = |context: &Context| context.next.min(context.tokens());
        let positions = contexts.iter().flatten().map(reach).max();
        let positions = positions.unwrap_or(0).saturating_add(prompt.dim(0)?);
        self.notices.length(&self.model, &self.recipe, positions, self.held_frames());
        let mut answering = Answering::new(self.memory.held(), &contexts, room, &self.cancel);
        let said = if question.choices.is_empty() {
            let request = Request {
                prompt: &prompt,
                before: self.history(&tail, branch.as_deref())?,
                max_tokens: question.max_tokens.min(Question::MAX_TOKENS),
                sampling: question.sampling,
            };
            Said::from(generate(&self.model, &request, &mut answering, &self.cancel, on_token)?)
        } else {
            let choices = &question.choices;
            let said =
                Said::from(weigh(&self.model, &prompt, choices, &mut answering, &self.cancel)?);
            on_token(&said.text);
            said
        };
        let mut evidence = evidence::stretches(&answering.into_mass()?, |id| view.unit(id));
        if let Some((from, to)) = question.within {
            // A frame that stands for more time than that lies in it with a part.
            for stretch in &mut evidence {
                (stretch.start, stretch.end) = (stretch.start.max(from), stretch.end.min(to));
            }
        }
        let timings = Timings {
            branch: branched,
            retrieve: retrieved - branched,
            prefill: said.prefill,
            decode: said.decode,
            first_token: retrieved + said.prefill,
        };
        let Said { text, ids, finish, confidence, choices, first_logits, .. } = said;
        Ok(Answer {
            text,
            ids,
            evidence,
            finish,
            confidence,
            choices,
            timings,
            layers: contexts.iter().map(LayerContext::of).collect(),
            open_units: branch.as_ref().map_or_else(Vec::new, |branch| branch.units.clone()),
            first_logits: question.keep_logits.then_some(first_logits),
        })
    }

    pub fn stats(&self) -> StreamStats {
        let store = self.memory.store_stats();
        StreamStats {
            frames: self.frames + self.pending.len() as u64,
            skipped: self.sieve.total(),
            reused: self.reuse.total(),
            units: self.memory.units().len() as u64,
            segments: self.memory.segments(),
            changes: self.changes.total(),
            open_frames: (self.segmenter.open_frames().len() + self.pending.len()) as u64,
            bytes: store.bytes(),
            store,
        }
    }

    /// What is held by age, the newest first. Walks over all that is held: for somebody who looks, not for
    /// each frame.
    pub fn ages(&self) -> Vec<Age> {
        self.memory.ages()
    }

    /// What is worth a warning since the last call, each trouble once.
    ///
    /// A tier of the memory that failed (a full disk, a folder that cannot be written to, a file
    /// that is missing or damaged): the memory is smaller for it, the answers are not wrong. A frame
    /// of which the model makes numbers that are not finite: it is not remembered. More to look at
    /// than the model was made for. Settings of `generation_config.json` that are not known here.
    pub fn take_warnings(&self) -> Vec<EngineError> {
        let mut warnings = self.memory.take_warnings();
        warnings.extend(self.notices.take());
        warnings
    }

    /// Why no question can be answered: no frame has been seen, or none of which the model made
    /// numbers. `None` if there is something to look at.
    pub fn nothing_to_see(&self) -> Option<EngineError> {
        let stats = self.stats();
        if stats.units + stats.open_frames > 0 && self.opening.is_some() {
            return None;
        }
        let fault = self.notices.unseen();
        Some(fault.unwrap_or_else(|| EngineError::Question("no frame has been seen".into())))
    }

    /// The same where all that may have been seen was not finite.
    fn blindness(&self, branch: Option<&Encoded>) -> Option<EngineError> {
        let sees = branch.is_some() || self.memory.units().len() > 0;
        self.notices.unseen().filter(|_| !sees || self.opening.is_none())
    }

    /// Positions that all units held take behind the prefix.
    fn positions(&self) -> usize {
        let held = self.memory.held();
        let (geometry, prefix) = (held.geometry, held.prefix_tokens());
        let mut units = self.memory.units();
        let count = units.len();
        let Some(first) = units.next() else { return prefix };
        let last = units.next_back().unwrap_or(first);
        match geometry.layout {
            Layout::Run if self.recipe.older == Older::Stays => {
                prefix + count * geometry.unit_tokens
            }
            Layout::Run => {
                prefix + self.memory.units().map(|unit| geometry.length(unit)).sum::<usize>()
            }
            Layout::Lines { .. } => prefix + last.at - first.at + geometry.steps(last),
            Layout::Grid { .. } => {
                let picture = Kept::all(geometry.picture_tokens);
                geometry.layout.timed(prefix, [(last.time - first.time, picture)]).next
            }
        }
    }

    /// Frames of which something is held.
    fn held_frames(&self) -> usize {
        let units = self.memory.units().len() + self.segmenter.open_frames().len();
        units * self.model.frames_per_unit() + self.pending.len()
    }

    /// What stands in front of an answer, as transformers counts it.
    fn history(&self, tail: &Tail, branch: Option<&Encoded>) -> Result<History> {
        let units =
            (self.frames as usize + self.pending.len()).div_ceil(self.model.frames_per_unit());
        let (opening, rules) =
            (self.opening.as_deref().unwrap_or_default(), self.model.generation());
        let tokens = self.picture.map_or(0, |picture| picture.tokens());
        let known = self.memory.units().chain(branch.iter().flat_map(|branch| &branch.units));
        let moments = known.filter(|unit| unit.kind == Kind::Frame).map(Unit::moment);
        let lines = moments.map(|moment| self.model.prompts().around(moment));
        // Nobody looks at them mostly.
        let lines = lines.take(if rules.looks_back() { usize::MAX } else { 1 });
        if let Some(lines) = lines.collect::<Result<Option<Vec<_>>>>()?
            && !lines.is_empty()
        {
            let line = tokens + lines.iter().flatten().take(2).map(Vec::len).sum::<usize>();
            let gone = units.saturating_sub(lines.len()) * line;
            let around = (opening, &tail.ids[..]);
            return Ok(self.model.history_of_lines(around, &lines, (tokens, gone)));
        }
        let closing = usize::from(tail.newline && self.model.image_newline().is_some());
        Ok(self.model.history(opening, units * tokens + closing, &tail.ids))
    }

    /// Forgets everything seen; the prefix stays.
    ///
    /// # Errors
    /// As [`Stream::open`]; nothing is forgotten then.
    pub fn clear(&mut self) -> Result<()> {
        let options = StreamOptions { cancel: self.cancel.clone(), ..self.options.clone() };
        self.notices.begin_anew();
        (self.memory, self.opening) =
            empty_memory(&self.model, &self.recipe, &options, &self.notices)?;
        *self.branch.get_mut() = None;
        self.segmenter = segmenter(&self.model, &self.recipe);
        self.sieve = Sieve::default();
        self.reuse = Reuse::new(self.options.reuse);
        self.changes.forget();
        self.pending.clear();
        self.picture = None;
        self.frames = 0;
        Ok(())
    }

    /// Lets the first frames of the stream decide what its units look like. `None` if there has
    /// been no frame yet.
    fn look_at(&mut self, frames: &[Frame]) -> Result<Option<Picture>> {
        let mut first = self.pending.iter().chain(frames);
        if self.picture.is_none()
            && let Some(first) = first.clone().next()
        {
            self.picture = Some(self.model.picture(first)?);
        }
        // How far apart units are matters from the second one on.
        if let (Some(picture), 0) = (self.picture, self.frames) {
            let spacing = first.next().zip(first.next()).map(|(a, b)| b.time() - a.time());
            let rate = self.options.sample_rate.or(spacing.map(f64::recip));
            let rate = rate.filter(|rate| rate.is_finite() && *rate > 0.0).unwrap_or(1.0);
            let layout = self.model.layout(&picture, rate, self.options.mrope_compat);
            let seconds = self.model.frames_per_unit() as f64 / rate;
            self.memory.lay_out(picture.tokens(), seconds, layout)?;
        }
        Ok(self.picture)
    }

    /// Encodes frames, each with what is left out behind it, and hands their units on. The last unit
    /// may be short of frames.
    fn take_in(&mut self, frames: &[Frame], runs: &[Run], picture: &Picture) -> Result<()> {
        let left_out: u64 = runs.iter().map(|run| run.frames).sum();
        let end = self.frames + frames.len() as u64 + left_out;
        let tokens = self.model.encode_reusing(frames, picture, &mut self.reuse, &self.cancel)?;
        let units = self.units(&tokens, frames, runs)?;
        if units.len() < frames.len().div_ceil(self.model.frames_per_unit()) {
            // What is not remembered cannot stand for what comes.
            self.sieve.forget();
            self.reuse.forget();
        }
        self.segmenter.foresee(&units)?;
        for unit in units {
            self.frames = unit.frames.end;
            if let Some(mean) = &unit.mean {
                self.changes.see(mean);
            }
            if let Some(segment) = self.segmenter.push(unit)? {
                self.remember(&segment)?;
            }
        }
        self.frames = end;
        if !self.segmenter.holds_frames()
            && let Some(segment) = self.segmenter.close()?
        {
            self.remember(&segment)?;
        }
        Ok(())
    }

    /// The next frames of the stream and their tokens `[u, M, C]` as units, less those that are not
    /// finite.
    fn units(&self, tokens: &Tensor, frames: &[Frame], runs: &[Run]) -> Result<Vec<FrameTokens>> {
        let per_unit = self.model.frames_per_unit();
        // One read a batch: with what will be compared, if anything will.
        let compared = self.segmenter.compares_means() || self.changes.are_watched();
        let (finite, means) = match compared {
            true => {
                let mut means: Vec<Vec<f32>> = tokens.to_dtype(DType::F32)?.mean(1)?.to_vec2()?;
                let finite = |mean: &Vec<f32>| mean.iter().all(|x| x.is_finite());
                let finite = means.iter().map(finite).collect();
                // Of several vectors side by side the first is compared.
                let width = self.model.decoder().hidden_size();
                means.iter_mut().for_each(|mean| mean.truncate(width));
                (finite, Some(means))
            }
            false => (sound::finite_each(tokens)?, None),
        };
        let mut begin = self.frames;
        let pairs = frames.chunks(per_unit).zip(runs.chunks(per_unit));
        let units =
            pairs.enumerate().filter_map(|(index, (frames, runs))| {
                let (first, last, run) = (frames.first()?, frames.last()?, runs.last()?);
                let numbers = begin..begin + frames.len() as u64 + run.frames;
                begin = numbers.end;
                let end = if run.frames > 0 { run.end } else { last.time() };
                let span = (first.time(), end);
                // What is left out behind it is not what it shows.
                let told = (first.time() + last.time()) / 2.0;
                Some(tokens.get(index).map(|tokens| FrameTokens {
                    told,
                    ..FrameTokens::whole(tokens, numbers, span)
                }))
            });
        let mut units: Vec<FrameTokens> = units.collect::<candle_core::Result<_>>()?;
        if let Some(outside) = &self.outside {
            // The first frame of a unit speaks for it.
            let first = frames.chunks(per_unit).filter_map(|frames| frames.first().cloned());
            let embeddings = outside.images(&first.collect::<Vec<_>>())?;
            for (unit, embedding) in units.iter_mut().zip(embeddings) {
                unit.embedding = Some(embedding);
            }
        }
        for (unit, mean) in units.iter_mut().zip(means.into_iter().flatten()) {
            unit.mean = Some(mean.into());
        }
        if finite.contains(&true) {
            self.notices.finite(Part::Tokens);
        }
        let mut finite = finite.into_iter();
        units.retain(|unit| {
            let finite = finite.next().unwrap_or(true);
            if !finite {
                let what = told("the tokens of the frame", unit.start);
                self.notices.not_finite(Part::Tokens, what);
            }
            finite
        });
        Ok(units)
    }

    fn remember(&mut self, segment: &Segment) -> Result<()> {
        let encoded = self.encode(segment, false)?;
        if encoded.as_ref().is_none_or(|(_, whole)| !whole) {
            // What is not remembered cannot stand for what comes.
            self.sieve.forget();
        }
        let Some((encoded, _)) = encoded else { return Ok(()) };
        self.notices.finite(Part::Keys);
        self.memory.commit(encoded)?;
        self.memory.settle()?;
        if notices::sees_everything(&self.recipe) {
            let frames = self.held_frames();
            self.notices.length(&self.model, &self.recipe, self.positions(), frames);
        }
        Ok(())
    }

    /// A segment as the memory would hold it, less the units of which the decoder makes no finite
    /// numbers, and whether it is whole; `None` if that leaves nothing.
    /// `at_once`: a question waits for it.
    fn encode(&self, segment: &Segment, at_once: bool) -> Result<Option<(Encoded, bool)>> {
        let (memory, decoder) = (&self.memory, self.model.decoder());
        let encode = |segment: &Segment| {
            let encoded = match at_once {
                true => memory.encode_at_once(decoder, segment, &self.cancel),
                false => memory.encode(decoder, segment, &self.cancel),
            };
            match encoded {
                Err(EngineError::NotFinite { .. }) => Ok(None),
                encoded => encoded.map(Some),
            }
        };
        if let Some(encoded) = encode(segment)? {
            return Ok(Some((encoded, true)));
        }
        let mut sound = Segment::default();
        for unit in &segment.frames {
            let alone = Segment { frames: vec![unit.clone()] };
            if encode(&alone)?.is_some() {
                sound.frames.push(unit.clone());
            } else {
                let what = told("keys and values of the frame", unit.start);
                self.notices.not_finite(Part::Keys, what);
            }
        }
        if sound.frames.is_empty() {
            return Ok(None);
        }
        let encoded = encode(&sound)?;
        if encoded.is_none() {
            self.notices.not_finite(Part::Keys, "keys and values of a segment".into());
        }
        Ok(encoded.map(|encoded| (encoded, false)))
    }

    /// The open segment as it would be stored if it closed now, with the frames that wait for the
    /// rest of their unit.
    fn branch(&self) -> Result<Option<Arc<Encoded>>> {
        if self.segmenter.open_frames().is_empty() && self.pending.is_empty() {
            return Ok(None);
        }
        let held = self.branch.lock().clone();
        if held.is_some() {
            return Ok(held);
        }
        let pending = match &self.picture {
            Some(picture) => {
                let runs = vec![Run::default(); self.pending.len()];
                let tokens = self.model.encode_frames(&self.pending, picture, &self.cancel)?;
                self.units(&tokens, &self.pending, &runs)?
            }
            None => Vec::new(),
        };
        let Some(segment) = self.segmenter.open_segment(pending)? else { return Ok(None) };
        let Some((encoded, _)) = self.encode(&segment, true)? else { return Ok(None) };
        let encoded = Arc::new(encoded);
        *self.branch.lock() = Some(Arc::clone(&encoded));
        Ok(Some(encoded))
    }

    fn look_up(&self, view: View<'_>, text: &str) -> Result<Vec<Option<Context>>> {
        let decoder = self.model.decoder();
        let tokens = decoder.embed(&self.model.prompts().question(text)?)?;
        let embedding = self.outside.as_ref().map(|outside| outside.text(text)).transpose()?;
        let (any, embedding) = (self.memory.prompts().any.as_ref(), embedding.as_deref());
        let asked = Asked { tokens: &tokens, any, embedding };
        find::contexts(view, asked, decoder, &self.cancel)
    }

    /// Everything behind the video, `[n, C]`, and its ids.
    fn prompt(&self, text: &str) -> Result<(Tensor, Tail)> {
        let options = &self.options;
        let tail =
            self.model.prompts().tail(form(options), options.system_prompt.as_deref(), text)?;
        let ids = self.model.decoder().embed(&tail.ids)?;
        let embeds = match self.model.image_newline().filter(|_| tail.newline) {
            Some(newline) => Tensor::cat(&[newline, &ids], 0)?,
            None => ids,
        };
        Ok((embeds, tail))
    }
}

fn segmenter(model: &VideoLlm, recipe: &Recipe) -> Segmenter {
    Segmenter::of(recipe)
        .where_they_are(kernels::stays_on(model.device()))
        .comparing(model.decoder().hidden_size())
}

fn told(what: &str, seconds: f64) -> String {
    format!("{what} at {seconds:.3} s, which is not remembered,")
}
