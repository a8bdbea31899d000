// SPDX-License-Identifier: MPL-2.0
//! Questions about a stream, with the one right answer and the frames that hold it.
//!
//! A question is asked after a frame and is about the frames up to it.

use std::ops::Range;

use worlds::{Rng, When, Wording, derive};

use crate::kind::{Kind, Subject};
use crate::moment::Moment;
use crate::stream::Stream;
use crate::visit::History;

/// Moments at which an answer is looked for before another question is drawn.
const TRIES: usize = 32;
/// The share of `now` that is answered with nothing.
const NOTHING: f32 = 0.1;

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
#[derive(Clone, Debug)]
pub struct Fact {
    pub subject: Subject,
    pub answer: String,
    pub relevant: Vec<Range<usize>>,
}

impl Stream {
    /// Draws questions; equal seeds and options give equal questions.
    ///
    /// Fewer than `count` come back where the stream does not answer that many.
    pub fn questions(&self, seed: u64, options: &QuestionOptions) -> Vec<Question> {
        let mut rng = Rng::new(derive(derive(self.seed, 3), seed));
        let history = History::of(self);
        let mut order: Vec<Kind> = Vec::new();
        let mut questions = Vec::with_capacity(options.count);
        // A kind that finds nothing to ask is passed over, not waited for.
        for _ in 0..4 * options.count {
            if questions.len() == options.count || self.frames() == 0 {
                break;
            }
            if order.is_empty() {
                order.extend(&options.kinds);
                rng.shuffle(&mut order);
            }
            let Some(kind) = order.pop() else { break };
            if let Some((after_frame, fact)) = self.find(&history, kind, options.when, &mut rng) {
                let wordings = kind.wordings();
                let wording = match options.wording {
                    Wording::Trained => wordings[rng.below(2)],
                    Wording::HeldOut => wordings[2],
                };
                questions.push(Question {
                    kind,
                    text: fact.subject.put_into(wording),
                    answer: fact.answer,
                    after_frame,
                    relevant: fact.relevant,
                });
            }
        }
        questions
    }

    /// The question of `kind` about `subject` after a frame, in the first wording; `None` where it
    /// has no answer, or more than one.
    pub fn question(&self, kind: Kind, subject: Subject, after_frame: usize) -> Option<Question> {
        let facts = Moment::new(&History::of(self), after_frame).facts(kind);
        let fact = facts.into_iter().find(|fact| fact.subject == subject)?;
        Some(Question {
            kind,
            text: subject.put_into(kind.wordings()[0]),
            answer: fact.answer,
            after_frame,
            relevant: fact.relevant,
        })
    }

    /// Draws an answer first, then looks for a moment and a fact with it, so that no answer is
    /// likely merely because it is often true.
    fn find(
        &self,
        history: &History,
        kind: Kind,
        when: When,
        rng: &mut Rng,
    ) -> Option<(usize, Fact)> {
        let wanted = kind.answers().map(|answers| *rng.pick(answers));
        let nothing = rng.chance(NOTHING);
        let tries = if when == When::End { 1 } else { TRIES };
        for _ in 0..tries {
            let after_frame = match when {
                When::Anytime => rng.below(self.frames()),
                When::End => self.frames() - 1,
            };
            let mut facts = Moment::new(history, after_frame).facts(kind);
            if when == When::Anytime {
                facts.retain(|fact| match wanted {
                    Some(answer) => fact.answer == answer,
                    None => (fact.answer == "nothing") == (nothing && kind == Kind::Now),
                });
            }
            if let Some(fact) = pick_balanced(&facts, wanted, rng) {
                return Some((after_frame, fact));
            }
        }
        None
    }
}

/// A fact with the answer wanted; or else one with any answer, drawn before the fact.
fn pick_balanced(facts: &[Fact], wanted: Option<&str>, rng: &mut Rng) -> Option<Fact> {
    let mut answers: Vec<&str> = facts.iter().map(|fact| fact.answer.as_str()).collect();
    answers.sort_unstable();
    answers.dedup();
    if answers.is_empty() {
        return None;
    }
    let drawn = answers[rng.below(answers.len())];
    let answer = wanted.filter(|wanted| answers.contains(wanted)).unwrap_or(drawn);
    let matching: Vec<&Fact> = facts.iter().filter(|fact| fact.answer == answer).collect();
    Some((*rng.pick(&matching)).clone())
}
