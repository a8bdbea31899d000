// SPDX-License-Identifier: MPL-2.0
//! What the answers to the standing questions have said so far.

use std::collections::HashMap;

use gst::ClockTime;
use gstreamer as gst;

use crate::element::answer::Record;
use crate::element::condition::{Clocks, Condition, Turn};

/// By the ids of the questions.
#[derive(Debug, Default)]
pub struct Standing(HashMap<u64, State>);

/// Of one question.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The newest answer, and as of when.
    pub answer: Option<(String, Option<ClockTime>)>,
    condition: Condition,
}

impl State {
    /// Since when it is true, if it is.
    pub fn began(&self) -> Option<ClockTime> {
        self.condition.began()
    }
}

impl Standing {
    pub fn get(&self, id: u64) -> Option<&State> {
        self.0.get(&id)
    }

    /// Takes an answer in, asked as of this engine time. Whether it says what the one before it said, and the
    /// news it amounts to.
    pub fn see(&mut self, record: &Record, engine: ClockTime) -> (bool, Option<Turn>) {
        let question = &record.asked.question;
        if !question.is_standing() {
            return (false, None);
        }
        let at = record.asked.at.map(|at| at.running);
        let state = self.0.entry(question.id).or_default();
        let last = state.answer.replace((record.text.clone(), at));
        let same = last.is_some_and(|(text, _)| text == record.text);
        let clocks = at.map(|running| Clocks { engine, running });
        let turn = question
            .alert
            .as_ref()
            .zip(clocks)
            .and_then(|(rule, at)| state.condition.see(record.text == rule.when, at, rule));
        (same, turn)
    }

    /// The question is asked no more.
    pub fn forget(&mut self, id: u64) {
        self.0.remove(&id);
    }
}
