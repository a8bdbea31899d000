// SPDX-License-Identifier: MPL-2.0
//! Questions that stand: as the element takes them, and what their answers amount to.

use std::time::Duration;

use gstreamer as gst;
use jiff::Timestamp;

use super::alarm::{Alarm, Terms};
use crate::config::StandingConfig;
use crate::hub::{AlertState, LastAlert, On, Question, Standing};

/// A standing question of a camera.
#[derive(Clone, Debug)]
pub struct Stand {
    /// As it is on the page.
    pub standing: Standing,
    /// Whether it is in the configuration file; else it came by the API.
    pub configured: bool,
    /// The element's number for it, while it has one.
    pub number: Option<u64>,
    /// Why the element does not take it.
    pub fault: Option<String>,
    /// What has been told of its alert.
    pub alarm: Alarm,
}

impl Stand {
    /// Nothing is known of it yet.
    pub fn new(config: &StandingConfig, id: String, configured: bool) -> Self {
        let config = config.clone();
        let standing = Standing {
            id,
            question: config.question,
            every: config.every,
            on: config.on,
            choices: config.choices,
            when: config.when,
            for_s: config.for_s,
            cool_down_s: config.cool_down_s,
            state: None,
            confidence: None,
            since: None,
        };
        Stand { standing, configured, number: None, fault: None, alarm: Alarm::default() }
    }

    /// Goes on where alerts of it were left off; whether that was this question's.
    pub fn resume(&mut self, last: &LastAlert) -> bool {
        let Standing { id, question, when, .. } = &self.standing;
        let is_watched_for = last.alert.state == AlertState::Off || self.holds(&last.alert.answer);
        let is_its = last.alert.standing == *id && last.alert.question == *question;
        let fits = is_its && when.is_some() && is_watched_for;
        if fits {
            self.alarm = Alarm::after(last);
        }
        fits
    }

    /// Whether its alerts are the other's.
    pub fn watches_as(&self, other: &Self) -> bool {
        let (own, other) = (&self.standing, &other.standing);
        own.id == other.id && own.question == other.question && own.when == other.when
    }

    /// Whether an answer is the one that is watched for.
    pub fn holds(&self, answer: &str) -> bool {
        let same = |when: &String| when.trim().to_lowercase() == answer.trim().to_lowercase();
        self.standing.when.as_ref().is_some_and(same)
    }

    /// When alerts are told.
    pub fn terms(&self) -> Terms {
        let time = |seconds: Option<f64>| {
            Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default()
        };
        Terms { hold: time(self.standing.for_s), cool_down: time(self.standing.cool_down_s) }
    }

    /// As `ask-full` takes it.
    pub fn structure(&self) -> gst::Structure {
        let Standing { question, every, on, choices, when, for_s, cool_down_s, .. } =
            &self.standing;
        let change = matches!(on, On::Change | On::Both);
        let occasion =
            if change { Some("change") } else { (*on == On::Detection).then_some("detection") };
        let by_time = matches!(on, On::Time | On::Both) || every.is_some();
        gst::Structure::builder("ask")
            .field("question", question.as_str())
            .field_if_some("interval", by_time.then(|| every.unwrap_or(EVERY)))
            .field_if_some("on", occasion)
            .field_if(
                "choices",
                gst::List::new(choices.iter().map(String::as_str)),
                !choices.is_empty(),
            )
            .field_if_some("when", when.as_deref())
            .field_if_some("for", *for_s)
            .field_if_some("cool-down", *cool_down_s)
            .build()
    }

    /// Takes an answer; whether anything is news, the text first.
    pub fn take(&mut self, text: &str, confidence: Option<f32>, at: Timestamp) -> (bool, bool) {
        let is_new = self.standing.state.as_deref() != Some(text);
        let moved = match (self.standing.confidence, confidence) {
            (Some(before), Some(now)) => (before - now).abs() >= 0.05,
            (before, now) => before != now,
        };
        if is_new {
            self.standing.state = Some(text.to_owned());
            self.standing.since = Some(at);
        }
        if is_new || moved {
            self.standing.confidence = confidence;
        }
        (is_new, is_new || moved)
    }
}

/// Seconds between askings where nothing is said.
pub const EVERY: f64 = 5.0;

/// A question asked once, as `ask-full` takes it.
pub fn once(question: &Question) -> gst::Structure {
    let choices = &question.choices;
    gst::Structure::builder("ask")
        .field("question", question.text.as_str())
        .field_if(
            "choices",
            gst::List::new(choices.iter().map(String::as_str)),
            !choices.is_empty(),
        )
        .field_if_some("from", question.from.map(|at| at.to_string()))
        .field_if_some("to", question.to.map(|at| at.to_string()))
        .build()
}
