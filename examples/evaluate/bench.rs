// SPDX-License-Identifier: MPL-2.0
//! One cell of the comparison: a method at a length and a budget, over many videos.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gststreamkvqa::memory::store::StoreOptions;
use gststreamkvqa::{EngineError, Frame, Question, Recipe, ReuseOptions, Stream, VideoLlm};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::world::{Asked, Drawn, PAINTED, Video, World};

/// The method that sees no video.
const BLIND: &str = "blind";

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

/// What is one cell's own.
pub struct Plan {
    pub label: String,
    pub frames: usize,
    pub budget: usize,
    recipe: Recipe,
    store: StoreOptions,
    reuse: ReuseOptions,
    blind: bool,
}

impl Plan {
    /// `method` is a name with options behind a colon, joined by plus signs: the method's, and
    /// `store`, `store-residual`, `tower-reuse` and `reuse-tolerance` as the element has them. A plain name is the published method;
    /// names of options joined to it by plus signs, as in `rekv+recent`, take these from the model's
    /// folder.
    pub fn parse(
        method: &str,
        model: &VideoLlm,
        frames: usize,
        budget: usize,
    ) -> Result<Self, EngineError> {
        let (name, options) = method.split_once(':').unwrap_or((method, ""));
        let mut parts = name.split('+');
        let name = parts.next().unwrap_or_default();
        let blind = name == BLIND;
        let known = if blind { "full" } else { name };
        let mut recipe = Recipe::published_for(known, model)?;
        let tuned = Recipe::for_model(known, model)?.options();
        for key in parts {
            let option = tuned.iter().find(|option| option.name == key);
            recipe.set(key, option.map_or("", |option| &option.value))?;
        }
        // A budget is what a method may use; where the model's folder recommends less, it does.
        let own =
            |key| Some(model.recommendations().recipes.get(name)?.get(key)?.as_u64()? as usize);
        let less = ["retrieve", "cap"].into_iter().filter_map(own).min();
        let frame = Frame::new(vec![0; 3 * PAINTED.0 * PAINTED.1], PAINTED.0, PAINTED.1, 0.0)?;
        let unit = model.picture(&frame)?.tokens();
        recipe.set_budget(less.map_or(budget, |less| less.min(budget)), unit);
        let mut store = StoreOptions::default();
        let mut reuse = ReuseOptions { most: 0, tolerance: 2.0 };
        for option in options.split('+').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match key {
                "store" => store.codec = Some(value.parse()?),
                "store-residual" => {
                    store.residual = number(key, value)?;
                }
                "tower-reuse" => reuse.most = number(key, value)?,
                "reuse-tolerance" => reuse.tolerance = number(key, value)?,
                _ => recipe.set(key, value)?,
            }
        }
        Ok(Self { label: method.to_owned(), frames, budget, recipe, store, reuse, blind })
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, EngineError> {
    let reason = format!("`{value}` is no number that can be taken");
    value.parse().map_err(|_| EngineError::Option { key: key.into(), reason })
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
    /// One over the number of different right answers.
    pub chance: BTreeMap<String, f64>,
    /// Answers whose first evidence overlaps the frames that hold the answer.
    pub evidence: Count,
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
    answers: BTreeMap<String, std::collections::BTreeSet<String>>,
    evidence: Count,
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
    let mut video = world.video(
        seed,
        Drawn {
            frames: plan.frames,
            held_out: work.held_out,
            held_out_wording: work.held_out_wording,
            at_end: work.at_end,
            per_kind: work.per_kind,
        },
    );
    let wanted = |asked: &Asked| work.kinds.iter().any(|kind| kind == asked.kind);
    video.questions.retain(|asked| work.kinds.is_empty() || wanted(asked));
    video.questions.sort_by_key(|question| question.after_frame);

    let mut tally = Tally::default();
    let options = gststreamkvqa::StreamOptions {
        store: plan.store.clone(),
        reuse: plan.reuse,
        ..Default::default()
    };
    let mut stream = Stream::open(model.clone(), plan.recipe.clone(), options)?;
    let mut pushed = 0;
    for question in &video.questions {
        if !plan.blind {
            let frames = (pushed..=question.after_frame).map(|index| paint(&video, index));
            let frames: Vec<Frame> = frames.collect::<Result<_, _>>()?;
            let start = Instant::now();
            stream.push_frames(&frames)?;
            tally.ingest += start.elapsed();
            tally.frames += frames.len() as u64;
            pushed = pushed.max(question.after_frame + 1);
            tally.peak = tally.peak.max(stream.stats().store.values());
        }
        tally.note(question, &stream.ask(&Question::new(question.text.as_str()), |_| {})?);
    }
    tally.stored = stream.stats().store.values();
    Ok(tally)
}

fn paint(video: &Video<'_>, index: usize) -> Result<Frame, EngineError> {
    let (width, height) = PAINTED;
    Frame::new(video.paint(index), width, height, index as f64)
}

impl Tally {
    fn note(&mut self, question: &Asked, answer: &gststreamkvqa::Answer) {
        let right = answer.text.trim() == question.answer;
        self.kinds.entry(question.kind.into()).or_default().add(right);
        self.answers.entry(question.kind.into()).or_default().insert(question.answer.clone());
        self.first_token += answer.timings.first_token;
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
        self.evidence = [self.evidence, other.evidence].into_iter().sum();
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
            evidence: self.evidence,
            ingest_ms_per_frame: self.ingest.as_secs_f64() * 1e3 / self.frames.max(1) as f64,
            first_token_ms: self.first_token.as_secs_f64() * 1e3 / asked.max(1) as f64,
            stored_bytes_per_minute: self.stored as f64 / minutes,
            peak_bytes: self.peak,
        }
    }
}
