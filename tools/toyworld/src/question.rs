// SPDX-License-Identifier: MPL-2.0
//! Questions about a stream, with the one right answer and the frames that hold it.
//!
//! A question is asked after a frame and is about the frames up to it. Only questions
//! with a single right answer are asked: those about an object mention one that has had
//! exactly one shot so far, those about the colour of a shape mention a shape seen in one colour.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::stream::{Shot, Stream};
use crate::vocabulary::{Key, Shape};
use worlds::{Rng, When, Wording, derive};

/// Counting is trained and asked up to here.
pub const MAX_COUNT: usize = 5;

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Now,
    NowColor,
    NowShape,
    NowWhere,
    NowBackground,
    Where,
    Background,
    ColorOf,
    Exist,
    First,
    Count,
    After,
    Before,
}

impl Kind {
    pub const ALL: &[Self] = &[
        Self::Now,
        Self::NowColor,
        Self::NowShape,
        Self::NowWhere,
        Self::NowBackground,
        Self::Where,
        Self::Background,
        Self::ColorOf,
        Self::Exist,
        Self::First,
        Self::Count,
        Self::After,
        Self::Before,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::NowColor => "now_color",
            Self::NowShape => "now_shape",
            Self::NowWhere => "now_where",
            Self::NowBackground => "now_background",
            Self::Where => "where",
            Self::Background => "background",
            Self::ColorOf => "color_of",
            Self::Exist => "exist",
            Self::First => "first",
            Self::Count => "count",
            Self::After => "after",
            Self::Before => "before",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// About the present rather than the past.
    pub fn is_now(self) -> bool {
        self <= Self::NowBackground
    }

    /// The ways to ask. Training uses all but the last, which is held out.
    /// `{}` stands for the object, the shape or the shapes asked about.
    fn phrasings(self) -> &'static [&'static str; 3] {
        match self {
            Self::Now => {
                &["what do you see now?", "what is there now?", "what do you see right now?"]
            }
            Self::NowColor => &[
                "what color is it now?",
                "which color do you see now?",
                "what color do you see right now?",
            ],
            Self::NowShape => &[
                "what shape is it now?",
                "which shape do you see now?",
                "what shape do you see right now?",
            ],
            Self::NowWhere => {
                &["where is it now?", "where is the shape now?", "where do you see it now?"]
            }
            Self::NowBackground => &[
                "what is the background now?",
                "which background do you see now?",
                "what background is there now?",
            ],
            Self::Where => {
                &["where was the {}?", "where did the {} appear?", "where did you see the {}?"]
            }
            Self::Background => &[
                "what was the background of the {}?",
                "which background did the {} have?",
                "what background did the {} have?",
            ],
            Self::ColorOf => &[
                "what color was the {}?",
                "which color did the {} have?",
                "what was the color of the {}?",
            ],
            Self::Exist => &["was there {}?", "did you see {}?", "did {} appear?"],
            Self::First => &[
                "what came first?",
                "what was the first thing you saw?",
                "what did you see first?",
            ],
            Self::Count => {
                &["how many {} were there?", "how many {} did you see?", "how many {} have come?"]
            }
            Self::After => &[
                "what came right after the {}?",
                "what did you see after the {}?",
                "what was there after the {}?",
            ],
            Self::Before => &[
                "what came right before the {}?",
                "what did you see before the {}?",
                "what was there before the {}?",
            ],
        }
    }
}

/// How questions are drawn.
pub type QuestionOptions = worlds::QuestionOptions<Kind>;

/// A question and its answer.
pub type Question = worlds::Question<Kind>;

impl worlds::QuestionKind for Kind {
    const ALL: &[Self] = Self::ALL;

    fn name(self) -> &'static str {
        self.name()
    }
}

/// What is true of a stream at one moment and worth asking.
#[derive(Clone)]
struct Fact {
    subject: String,
    answer: String,
    relevant: Vec<Range<usize>>,
}

impl Stream {
    /// Draws questions; equal seeds and options give equal questions.
    ///
    /// Fewer than `count` come back where the stream does not answer that many
    /// (a short stream may hold no single-coloured shape, for one).
    pub fn questions(&self, seed: u64, options: &QuestionOptions) -> Vec<Question> {
        let mut rng = Rng::new(derive(derive(self.seed, 3), seed));
        let mut order: Vec<Kind> = Vec::new();
        let mut questions = Vec::with_capacity(options.count);
        // A kind that finds nothing to ask is passed over, not waited for.
        for _ in 0..4 * options.count {
            if questions.len() == options.count {
                break;
            }
            let kind = order.pop().unwrap_or_else(|| {
                order.extend(&options.kinds);
                rng.shuffle(&mut order);
                order.pop().expect("there is a kind to ask")
            });
            let after_frame = match options.when {
                When::Anytime => rng.below(self.frames()),
                When::End => self.frames() - 1,
            };
            questions.extend(self.question(kind, after_frame, options.wording, &mut rng));
        }
        questions
    }

    /// One question of `kind` after `after_frame`, where there is something to ask.
    fn question(
        &self,
        kind: Kind,
        after_frame: usize,
        wording: Wording,
        rng: &mut Rng,
    ) -> Option<Question> {
        let facts = Moment::new(self, after_frame).facts(kind);
        let fact = pick_balanced(facts, rng)?;
        let phrasings = kind.phrasings();
        let phrasing = match wording {
            Wording::Trained => phrasings[rng.below(phrasings.len() - 1)],
            Wording::HeldOut => phrasings[phrasings.len() - 1],
        };
        Some(Question {
            kind,
            text: phrasing.replace("{}", &fact.subject),
            answer: fact.answer,
            after_frame,
            relevant: fact.relevant,
        })
    }
}

/// Draws an answer first and a fact with it second, so that no answer is
/// likely merely because many facts share it.
fn pick_balanced(facts: Vec<Fact>, rng: &mut Rng) -> Option<Fact> {
    let mut answers: Vec<&str> = facts.iter().map(|fact| fact.answer.as_str()).collect();
    answers.sort_unstable();
    answers.dedup();
    if answers.is_empty() {
        return None;
    }
    let answer = answers[rng.below(answers.len())];
    let matching: Vec<&Fact> = facts.iter().filter(|fact| fact.answer == answer).collect();
    Some((*rng.pick(&matching)).clone())
}

/// A stream as far as it has run.
struct Moment<'a> {
    shots: &'a [Shot],
    known: &'a [Key],
    after_frame: usize,
}

impl<'a> Moment<'a> {
    fn new(stream: &'a Stream, after_frame: usize) -> Self {
        let seen = stream.shots.partition_point(|shot| shot.start <= after_frame);
        Self { shots: &stream.shots[..seen], known: stream.casting.known(), after_frame }
    }

    /// Everything of `kind` that can be asked at this moment.
    fn facts(&self, kind: Kind) -> Vec<Fact> {
        match kind {
            Kind::Now => self.now(name_of),
            Kind::NowColor => {
                self.now(|shot| Some(shot.key().map_or("nothing", |key| key.color.word()).into()))
            }
            Kind::NowShape => {
                self.now(|shot| Some(shot.key().map_or("nothing", |key| key.shape.word()).into()))
            }
            Kind::NowWhere => self.now(|shot| match shot.key() {
                Some(_) => shot.scene.place().map(|place| place.word().into()),
                None => Some("nothing".into()),
            }),
            Kind::NowBackground => self.now(|shot| Some(shot.scene.backdrop.name.word().into())),
            Kind::Where => {
                self.of_soloists(|_, shot| shot.scene.place().map(|place| place.word().into()))
            }
            Kind::Background => {
                self.of_soloists(|_, shot| Some(shot.scene.backdrop.name.word().into()))
            }
            Kind::ColorOf => self.colors(),
            Kind::Exist => self.existence(),
            Kind::First => self.first(),
            Kind::Count => self.counts(),
            Kind::After => self.neighbours(1),
            Kind::Before => self.neighbours(-1),
        }
    }

    /// The frames of `shot` seen so far.
    fn seen(&self, shot: &Shot) -> Range<usize> {
        shot.start..shot.range().end.min(self.after_frame + 1)
    }

    fn ranges<'s>(&self, shots: impl IntoIterator<Item = &'s Shot>) -> Vec<Range<usize>> {
        shots.into_iter().map(|shot| self.seen(shot)).collect()
    }

    fn shots_of(&self, key: Key) -> impl Iterator<Item = &'a Shot> {
        let shots = self.shots;
        shots.iter().filter(move |shot| shot.key() == Some(key))
    }

    fn now(&self, answer: impl Fn(&Shot) -> Option<String>) -> Vec<Fact> {
        let shot = self.shots.last().expect("a stream has a first shot");
        let newest = self.after_frame..self.after_frame + 1;
        answer(shot)
            .map(|answer| Fact {
                subject: String::new(),
                answer,
                relevant: Vec::from([newest.clone()]),
            })
            .into_iter()
            .collect()
    }

    /// The objects that have had one shot so far, with its index.
    fn soloists(&self) -> impl Iterator<Item = (Key, usize)> {
        self.shots.iter().enumerate().filter_map(|(index, shot)| {
            let key = shot.key()?;
            (self.shots_of(key).count() == 1).then_some((key, index))
        })
    }

    fn of_soloists(&self, answer: impl Fn(Key, &Shot) -> Option<String>) -> Vec<Fact> {
        self.soloists()
            .filter_map(|(key, index)| {
                let shot = &self.shots[index];
                Some(Fact {
                    subject: key.name(),
                    answer: answer(key, shot)?,
                    relevant: self.ranges([shot]),
                })
            })
            .collect()
    }

    /// The colours of shapes seen in one colour.
    fn colors(&self) -> Vec<Fact> {
        let of = |shape: Shape| {
            let shots = self.shots_with(shape);
            let color = shots.first()?.key()?.color;
            let single = shots.iter().all(|shot| shot.key().is_some_and(|key| key.color == color));
            single.then(|| Fact {
                subject: shape.word().into(),
                answer: color.word().into(),
                relevant: self.ranges(shots),
            })
        };
        Shape::ALL.iter().filter_map(|&shape| of(shape)).collect()
    }

    fn shots_with(&self, shape: Shape) -> Vec<&'a Shot> {
        let shots = self.shots;
        shots.iter().filter(|shot| shot.key().is_some_and(|key| key.shape == shape)).collect()
    }

    /// Objects seen, and near misses: objects not seen whose colour and shape both were.
    fn existence(&self) -> Vec<Fact> {
        let seen: Vec<Key> = self.shots.iter().filter_map(Shot::key).collect();
        let of = |&key: &Key| {
            let present = seen.contains(&key);
            let near = seen.iter().any(|other| other.shape == key.shape)
                && seen.iter().any(|other| other.color == key.color);
            (present || near).then(|| Fact {
                subject: key.with_article(),
                answer: if present { "yes" } else { "no" }.into(),
                relevant: self.ranges(self.shots_of(key)),
            })
        };
        self.known.iter().filter_map(of).collect()
    }

    fn first(&self) -> Vec<Fact> {
        let shot = &self.shots[0];
        name_of(shot)
            .filter(|_| shot.key().is_some())
            .map(|answer| Fact { subject: String::new(), answer, relevant: self.ranges([shot]) })
            .into_iter()
            .collect()
    }

    /// How often each shape has appeared, in any colour.
    fn counts(&self) -> Vec<Fact> {
        let of = |&shape: &Shape| {
            let shots = self.shots_with(shape);
            (shots.len() <= MAX_COUNT).then(|| Fact {
                subject: shape.plural(),
                answer: shots.len().to_string(),
                relevant: self.ranges(shots),
            })
        };
        Shape::ALL.iter().filter_map(of).collect()
    }

    /// What came `step` shots after each soloist. A shot without an object is no neighbour.
    fn neighbours(&self, step: isize) -> Vec<Fact> {
        self.soloists()
            .filter_map(|(key, index)| {
                let neighbour = self.shots.get(index.checked_add_signed(step)?)?;
                let answer = neighbour.key()?.name();
                let pair = &self.shots[index.min(index.wrapping_add_signed(step))..][..2];
                Some(Fact { subject: key.name(), answer, relevant: self.ranges(pair) })
            })
            .collect()
    }
}

fn name_of(shot: &Shot) -> Option<String> {
    Some(shot.key().map_or("nothing".into(), Key::name))
}
