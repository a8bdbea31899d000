// SPDX-License-Identifier: MPL-2.0
//! Questions that come in over MQTT: a plain text, or JSON with more than the words.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::hub::{Answer, AnswerId, Question, Source};

/// Longest message that is read.
pub(super) const LONGEST: usize = 16 * 1024;
/// Longest `id` of somebody's own.
const LONGEST_ID: usize = 128;
/// Questions whose answers are waited for.
const PENDING: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asking {
    question: String,
    id: Option<String>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    #[serde(default)]
    choices: Vec<String>,
}

/// The question in a message, and what its sender calls it.
///
/// # Errors
///
/// What is wrong with the message, for its sender.
pub(super) fn read(payload: &[u8]) -> Result<(Question, Option<String>), String> {
    if payload.len() > LONGEST {
        return Err(format!("a question has at most {LONGEST} bytes"));
    }
    let text =
        std::str::from_utf8(payload).map_err(|_| "a question is UTF-8 text".to_owned())?.trim();
    if text.is_empty() {
        return Err("the question is empty".into());
    }
    if !text.starts_with('{') {
        let question =
            Question { text: text.to_owned(), source: Source::Broker, ..Question::default() };
        return Ok((question, None));
    }
    let asking: Asking =
        serde_json::from_str(text).map_err(|error| format!("not a question: {error}"))?;
    if asking.id.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
        return Err(format!("an id has at most {LONGEST_ID} bytes"));
    }
    let Asking { question: text, id, from, to, choices } = asking;
    Ok((Question { text, from, to, choices, source: Source::Broker, id: None }, id))
}

/// What is sent back once there is an answer.
pub(super) fn answered(id: Option<&str>, answer: &Answer) -> Value {
    json!({ "id": id, "answer": answer, "error": answer.error })
}

/// What is sent back where there will be none.
pub(super) fn refused(id: Option<&str>, reason: &str) -> Value {
    json!({ "id": id, "answer": null, "error": reason })
}

/// Questions that have been asked, by the answer's id, with what their senders call them.
#[derive(Default)]
pub(super) struct Pending {
    asked: HashMap<AnswerId, (String, Option<String>)>,
    /// Answers that came before the asking had returned.
    early: HashMap<AnswerId, Answer>,
}

impl Pending {
    /// A question of camera `camera` has been taken; its reply, if the answer was faster.
    pub fn asked(&mut self, answer: AnswerId, camera: String, id: Option<String>) -> Option<Value> {
        if let Some(answer) = self.early.remove(&answer) {
            return Some(answered(id.as_deref(), &answer));
        }
        if self.asked.len() >= PENDING
            && let Some(some) = self.asked.keys().min().cloned()
        {
            self.asked.remove(&some);
        }
        self.asked.insert(answer, (camera, id));
        None
    }

    /// The camera and the reply, if somebody here waits for it. `more`: questions are still being taken.
    pub fn answered(&mut self, answer: &Answer, more: bool) -> Option<(String, Value)> {
        if let Some((camera, id)) = self.asked.remove(&answer.id) {
            return Some((camera, answered(id.as_deref(), answer)));
        }
        if more && answer.source == Source::Broker {
            self.early.insert(answer.id.clone(), answer.clone());
        } else if !more {
            self.early.clear();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_text_or_json() {
        let (question, id) = read(b" who came? ").unwrap();
        assert_eq!((question.text.as_str(), id), ("who came?", None));
        let (question, id) =
            read(br#"{"question": "who?", "id": "7", "choices": ["a", "b"]}"#).unwrap();
        assert_eq!(
            (question.text.as_str(), id.as_deref(), question.choices.len()),
            ("who?", Some("7"), 2)
        );
        for bad in
            [&b""[..], b"\xff", br#"{"question": 3}"#, br#"{"quest": "x"}"#, &[b'a'; LONGEST + 1]]
        {
            read(bad).unwrap_err();
        }
    }
}
