// SPDX-License-Identifier: MPL-2.0
//! Questions with one right answer: how they are drawn, and how they are written down.

use std::io::{self, Write};
use std::ops::Range;

use serde::Serialize;

/// What a question of a world can be about.
pub trait QuestionKind: Copy + 'static {
    const ALL: &[Self];

    fn name(self) -> &'static str;
}

/// Which wordings to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    /// Those of the training.
    Trained,
    /// The one of each kind that training never reads.
    HeldOut,
}

/// When questions are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// After a random frame of the stream.
    Anytime,
    /// After its last frame.
    End,
}

/// How questions are drawn.
#[derive(Clone, Debug)]
pub struct QuestionOptions<K> {
    pub count: usize,
    /// Draws one kind after another from this list; repeat a kind to weigh it.
    pub kinds: Vec<K>,
    pub when: When,
    pub wording: Wording,
}

impl<K: QuestionKind> Default for QuestionOptions<K> {
    fn default() -> Self {
        Self {
            count: K::ALL.len(),
            kinds: K::ALL.to_vec(),
            when: When::Anytime,
            wording: Wording::Trained,
        }
    }
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question<K> {
    pub kind: K,
    pub text: String,
    /// A few lower-case words.
    pub answer: String,
    /// The newest frame the question may know.
    pub after_frame: usize,
    /// The frames that hold the answer; empty where the answer is that there are none.
    pub relevant: Vec<Range<usize>>,
}

/// A line of a questions file: what the element reads, and what the answer should be.
#[derive(Serialize)]
struct FileLine<'a> {
    question: &'a str,
    /// Running time in seconds: half a second after the frame it is asked after.
    at: f64,
    tag: &'a str,
    answer: &'a str,
    after_frame: usize,
    relevant: &'a [Range<usize>],
}

/// Writes a questions file, JSON Lines in the order of asking.
///
/// # Errors
/// What writing fails with.
pub fn write_questions<K: QuestionKind>(
    mut out: impl Write,
    mut questions: Vec<Question<K>>,
) -> io::Result<()> {
    questions.sort_by_key(|question| question.after_frame);
    for question in &questions {
        let line = FileLine {
            question: &question.text,
            at: question.after_frame as f64 + 0.5,
            tag: question.kind.name(),
            answer: &question.answer,
            after_frame: question.after_frame,
            relevant: &question.relevant,
        };
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// A question as one array: kind, text, answer, after frame, relevant frames.
type Row<K> = (K, String, String, usize, Vec<[usize; 2]>);

/// A stream as training reads it: the numbers of its frames in a pool, and its questions.
#[derive(Serialize)]
pub struct StreamLine<K> {
    frames: Vec<usize>,
    questions: Vec<Row<K>>,
}

impl<K> StreamLine<K> {
    /// Of the frames of a stream that are `kept`; `pool_frame` gives the number of each.
    pub fn new(
        kept: &[bool],
        pool_frame: impl Fn(usize) -> usize,
        questions: Vec<Question<K>>,
    ) -> Self {
        // rank[i]: how many frames before frame i are kept.
        let mut rank = vec![0];
        rank.extend(kept.iter().scan(0, |count, &kept| {
            *count += usize::from(kept);
            Some(*count)
        }));
        let ranked = |range: &Range<usize>| [rank[range.start], rank[range.end]];
        let row = |question: Question<K>| {
            let relevant = question.relevant.iter().map(ranked).collect();
            let after = rank[question.after_frame];
            (question.kind, question.text, question.answer, after, relevant)
        };
        Self {
            frames: (0..kept.len()).filter(|&index| kept[index]).map(pool_frame).collect(),
            questions: questions.into_iter().map(row).collect(),
        }
    }
}
