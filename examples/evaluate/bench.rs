// SPDX-License-Identifier: MPL-2.0
//! One cell of the comparison: a method at a length and a budget, over many videos.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gststreamkvqa::{EngineError, Frame, Question, Stream, VideoLlm};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::plan::{Plan, Sees, paint};
use crate::world::{Asked, Drawn, World};

/// What is the same for all cells.
pub struct Work {
    pub streams: u64,
    pub first_seed: u64,
    pub per_kind: usize,
    /// Which kinds are asked; empty: all.
    pub kinds: Vec<String>,
    pub at_end: bool,
    pub held_out: bool,
    pub held_out_wording: bool,
    pub jobs: usize,
}

impl Work {
    /// What videos of so many frames are drawn by.
    pub fn drawn(&self, frames: usize) -> Drawn {
        Drawn {
            frames,
            held_out: self.held_out,
            held_out_wording: self.held_out_wording,
            at_end: self.at_end,
            per_kind: self.per_kind,
        }
    }
}

/// Right answers out of all.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Count {
    pub right: u64,
    pub n: u64,
}

impl Count {
    pub fn add(&mut self, right: bool) {
        self.right += u64::from(right);
        self.n += 1;
    }

    pub fn share(self) -> f64 {
        self.right as f64 / self.n as f64
    }

    /// Standard error of the share.
    pub fn error(self) -> f64 {
        let p = self.share();
        (p * (1.0 - p) / self.n as f64).sqrt()
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |a, b| Self { right: a.right + b.right, n: a.n + b.n })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    pub method: String,
    pub frames: usize,
    pub budget: usize,
    pub kinds: BTreeMap<String, Count>,
    /// The same of each video, by its number among the seeds: differences between methods are those on the same
    /// videos. Earlier reports do not have it.
    #[serde(default)]
    pub videos: BTreeMap<u64, Count>,
    /// One over the number of different right answers.
    pub chance: BTreeMap<String, f64>,
    /// Answers whose first evidence overlaps the frames that hold the answer.
    pub evidence: Count,
    /// Answers by how many frames ago what they are about was last seen: up to so many, a power of two.
    #[serde(default)]
    pub ages: BTreeMap<usize, Count>,
    /// Tokens that an answer has in front of it, the mean of all layers; earlier reports did not count
    /// them.
    #[serde(default)]
    pub context_tokens: Option<f64>,
    pub ingest_ms_per_frame: f64,
    pub first_token_ms: f64,
    /// Of keys, values and inputs; what a block takes besides would be most of so small a model's.
    pub stored_bytes_per_minute: f64,
    pub peak_bytes: u64,
}

impl Cell {
    pub fn kinds_where(&self, wanted: impl Fn(&str) -> bool) -> Count {
        self.kinds.iter().filter(|(kind, _)| wanted(kind)).map(|(_, count)| *count).sum()
    }

    pub fn overall(&self) -> Count {
        self.kinds_where(|_| true)
    }
}

#[derive(Default)]
struct Tally {
    kinds: BTreeMap<String, Count>,
    videos: BTreeMap<u64, Count>,
    answers: BTreeMap<String, std::collections::BTreeSet<String>>,
    evidence: Count,
    ages: BTreeMap<usize, Count>,
    context: f64,
    ingest: Duration,
    frames: u64,
    first_token: Duration,
    stored: u64,
    peak: u64,
}

/// Runs all videos, several at a time, each on one core.
pub fn evaluate(
    model: &VideoLlm,
    world: &World,
    plan: &Plan,
    work: &Work,
) -> Result<Cell, EngineError> {
    let plan = &plan.bounded(model, world, work)?;
    let bar = ProgressBar::new(work.streams);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(format!("{} {} frames", plan.label, plan.frames));
    let next = AtomicU64::new(0);
    let tally = Mutex::new(Ok(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..work.jobs.max(1) {
            scope.spawn(|| {
                // A pool of its own keeps the kernels from splitting work this small.
                let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= work.streams {
                        return;
                    }
                    let run = || one_video(model, world, plan, work, work.first_seed + index);
                    let outcome = match &pool {
                        Ok(pool) => pool.install(run),
                        Err(_) => run(),
                    };
                    bar.inc(1);
                    let mut tally = tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    *tally = match (std::mem::replace(&mut *tally, Ok(Tally::default())), outcome) {
                        (Ok(all), Ok(video)) => Ok(all.and(video)),
                        (Err(error), _) | (_, Err(error)) => Err(error),
                    };
                }
            });
        }
    });
    bar.finish_and_clear();
    let tally = tally.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())?;
    Ok(tally.into_cell(plan, work))
}

fn one_video(
    model: &VideoLlm,
    world: &World,
    plan: &Plan,
    work: &Work,
    seed: u64,
) -> Result<Tally, EngineError> {
    let mut video = world.video(seed, work.drawn(plan.frames));
    let wanted = |asked: &Asked| work.kinds.iter().any(|kind| kind == asked.kind);
    video.questions.retain(|asked| work.kinds.is_empty() || wanted(asked));
    video.questions.sort_by_key(|question| question.after_frame);

    let mut tally = Tally::default();
    if plan.sees == Sees::Relevant {
        for question in &video.questions {
            let mut stream = Stream::new(model.clone(), plan.recipe.clone())?;
            let frames = relevant(question, plan.budget).into_iter();
            let frames = frames.map(|index| paint(&video, index)).collect::<Result<Vec<_>, _>>()?;
            tally.push(&mut stream, &frames)?;
            tally.note(question, &stream.ask(&Question::new(question.text.as_str()), |_| {})?);
        }
        return Ok(tally.of_video(seed));
    }
    let options = gststreamkvqa::StreamOptions {
        store: plan.store.clone(),
        reuse: plan.reuse,
        ..Default::default()
    };
    let mut stream = Stream::open(model.clone(), plan.recipe.clone(), options)?;
    let mut pushed = 0;
    for question in &video.questions {
        if plan.sees == Sees::All {
            let frames = (pushed..=question.after_frame).map(|index| paint(&video, index));
            tally.push(&mut stream, &frames.collect::<Result<Vec<_>, _>>()?)?;
            pushed = pushed.max(question.after_frame + 1);
        }
        tally.note(question, &stream.ask(&Question::new(question.text.as_str()), |_| {})?);
    }
    tally.stored = stream.stats().store.values();
    Ok(tally.of_video(seed))
}

/// The frames that hold the answer, or evenly so many of them; where none does, since something never was, the
/// newest ones.
fn relevant(question: &Asked, most: usize) -> Vec<usize> {
    let end = question.after_frame + 1;
    let mut holding: Vec<usize> = question.relevant.iter().cloned().flatten().collect();
    holding.retain(|index| *index < end);
    holding.sort_unstable();
    holding.dedup();
    if holding.is_empty() {
        return (end.saturating_sub(most)..end).collect();
    }
    let many = holding.len().min(most.max(1));
    (0..many).map(|at| holding[at * holding.len() / many]).collect()
}

impl Tally {
    fn push(&mut self, stream: &mut Stream, frames: &[Frame]) -> Result<(), EngineError> {
        let start = Instant::now();
        stream.push_frames(frames)?;
        self.ingest += start.elapsed();
        self.frames += frames.len() as u64;
        self.peak = self.peak.max(stream.stats().store.values());
        Ok(())
    }

    fn of_video(mut self, seed: u64) -> Self {
        self.videos.insert(seed, self.kinds.values().copied().sum());
        self
    }

    fn note(&mut self, question: &Asked, answer: &gststreamkvqa::Answer) {
        let right = answer.text.trim() == question.answer;
        self.kinds.entry(question.kind.into()).or_default().add(right);
        self.answers.entry(question.kind.into()).or_default().insert(question.answer.clone());
        self.first_token += answer.timings.first_token;
        let tokens = answer.layers.iter().map(|layer| layer.context_tokens).sum::<usize>();
        self.context += tokens as f64 / answer.layers.len().max(1) as f64;
        if let Some(seen) = question.relevant.iter().map(|range| range.end).max() {
            let age = (question.after_frame + 1).saturating_sub(seen).max(1).next_power_of_two();
            self.ages.entry(age).or_default().add(right);
        }
        if !question.relevant.is_empty() {
            let looked = answer.evidence.first().is_some_and(|evidence| {
                question.relevant.iter().any(|range| {
                    evidence.start < range.end as f64 && evidence.end >= range.start as f64
                })
            });
            self.evidence.add(looked);
        }
    }

    fn and(mut self, other: Self) -> Self {
        for (kind, count) in other.kinds {
            let mine = self.kinds.entry(kind).or_default();
            *mine = [*mine, count].into_iter().sum();
        }
        for (kind, answers) in other.answers {
            self.answers.entry(kind).or_default().extend(answers);
        }
        self.videos.extend(other.videos);
        self.evidence = [self.evidence, other.evidence].into_iter().sum();
        for (age, count) in other.ages {
            let mine = self.ages.entry(age).or_default();
            *mine = [*mine, count].into_iter().sum();
        }
        self.context += other.context;
        self.ingest += other.ingest;
        self.frames += other.frames;
        self.first_token += other.first_token;
        self.stored += other.stored;
        self.peak = self.peak.max(other.peak);
        self
    }

    fn into_cell(self, plan: &Plan, work: &Work) -> Cell {
        let asked: u64 = self.kinds.values().map(|count| count.n).sum();
        let minutes = (work.streams as usize * plan.frames) as f64 / 60.0;
        let chance = |answers: &std::collections::BTreeSet<String>| 1.0 / answers.len() as f64;
        Cell {
            method: plan.label.clone(),
            frames: plan.frames,
            budget: plan.budget,
            chance: self
                .answers
                .iter()
                .map(|(kind, answers)| (kind.clone(), chance(answers)))
                .collect(),
            kinds: self.kinds,
            videos: self.videos,
            evidence: self.evidence,
            ages: self.ages,
            context_tokens: Some(self.context / asked.max(1) as f64),
            ingest_ms_per_frame: self.ingest.as_secs_f64() * 1e3 / self.frames.max(1) as f64,
            first_token_ms: self.first_token.as_secs_f64() * 1e3 / asked.max(1) as f64,
            stored_bytes_per_minute: self.stored as f64 / minutes,
            peak_bytes: self.peak,
        }
    }
}
