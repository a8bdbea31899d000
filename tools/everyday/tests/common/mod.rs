// SPDX-License-Identifier: MPL-2.0
//! What the tests of the world share.

#![allow(dead_code, reason = "each test file takes its part")]

use everyday::{Noun, Question, QuestionOptions, Stream, StreamOptions};

pub fn stream(seed: u64, frames: usize) -> Stream {
    Stream::generate(seed, &StreamOptions { frames, ..StreamOptions::default() })
}

/// Streams as training sees them.
pub fn trained_streams() -> impl Iterator<Item = Stream> {
    (0..150).map(|seed| stream(seed, 64))
}

pub fn many_questions(stream: &Stream) -> Vec<Question> {
    stream.questions(0, &QuestionOptions { count: 80, ..QuestionOptions::default() })
}

/// The thing a text mentions: the longest name wins, so that a fire engine is no fire.
pub fn mentioned(text: &str) -> Option<Noun> {
    let holds = |name: &str| {
        text.match_indices(name).any(|(at, _)| {
            let letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphabetic);
            let bytes = text.as_bytes();
            !letter(at.checked_sub(1).and_then(|at| bytes.get(at)))
                && !letter(bytes.get(at + name.len()))
        })
    };
    Noun::all()
        .filter(|noun| holds(noun.name()) || holds(noun.plural()))
        .max_by_key(|noun| noun.name().len())
}
