// SPDX-License-Identifier: MPL-2.0
//! What is said of a question beside its text, wherever it was written: checked, and put on it.

use gst::ClockTime;
use gstreamer as gst;

use super::{MAX_TOKENS, On, Question, When, without_nul};
use crate::element::condition::Rule;
use crate::model::verdict;

/// Shorter intervals ask at every frame anyway.
const MIN_INTERVAL: ClockTime = ClockTime::from_mseconds(1);
/// Times beyond this (73 years) are slips of the pen, and sums of two of them fit u64.
const MAX_SECONDS: f64 = 2_300_000_000.0;

/// One end of the stretch that a question is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::element) enum Bound {
    /// Running time.
    At(ClockTime),
    /// So long before the moment as of which it is asked.
    Ago(ClockTime),
    /// Nanoseconds since 1970.
    Wall(u64),
}

impl Bound {
    /// Seconds of running time; below 0, before the moment of asking.
    ///
    /// # Errors
    /// Names the field.
    pub fn of_seconds(name: &str, seconds: f64) -> Result<Self, String> {
        match seconds < 0.0 {
            true => seconds_field(name, -seconds).map(Self::Ago),
            false => seconds_field(name, seconds).map(Self::At),
        }
    }

    /// A moment of clock time, as in RFC 3339.
    ///
    /// # Errors
    /// Names the field.
    pub fn of_clock(name: &str, text: &str) -> Result<Self, String> {
        let time = glib::DateTime::from_iso8601(text.trim(), None).ok();
        let wall = time.and_then(|time| {
            let microseconds =
                i128::from(time.to_unix()) * 1_000_000 + i128::from(time.microsecond());
            u64::try_from(microseconds * 1000).ok()
        });
        wall.map(Self::Wall).ok_or_else(|| {
            format!(
                "`{name}` is {text:?}; it is a number of seconds, or a moment with its time zone such \
                 as \"2026-05-01T08:30:00Z\""
            )
        })
    }
}

/// What is said of a question beside its text, as it was written.
#[derive(Clone, Debug, Default)]
pub(in crate::element) struct Terms {
    pub at: Option<ClockTime>,
    pub interval: Option<ClockTime>,
    pub on: Vec<String>,
    pub on_change: bool,
    pub tag: Option<String>,
    pub max_tokens: Option<u64>,
    pub choices: Vec<String>,
    /// The answer whose beginning and end are alerts.
    pub when: Option<String>,
    pub hold: Option<ClockTime>,
    pub cool_down: Option<ClockTime>,
    pub from: Option<Bound>,
    pub to: Option<Bound>,
}

/// What a question with `when` and without `choices` is answered with.
const YES_OR_NO: [&str; 2] = ["yes", "no"];

impl Terms {
    /// The choices, and what of them is an alert.
    ///
    /// # Errors
    /// Names the field that is wrong.
    fn choices(&self) -> Result<(Vec<String>, Option<Rule>), String> {
        let choices = self.choices.iter().map(|choice| without_nul(choice.trim()));
        let mut choices: Vec<String> = choices.collect();
        let Some(when) = &self.when else {
            if self.hold.is_some() || self.cool_down.is_some() {
                return Err("`for` and `cool-down` say nothing without `when`".into());
            }
            if !choices.is_empty() {
                verdict::check(&choices).map_err(|error| reason(&error))?;
            }
            return Ok((choices, None));
        };
        let is_meant = |choice: &String| choice.to_lowercase() == when.trim().to_lowercase();
        if choices.is_empty() {
            choices = YES_OR_NO.map(Into::into).to_vec();
        }
        verdict::check(&choices).map_err(|error| reason(&error))?;
        let Some(when) = choices.iter().find(|choice| is_meant(choice)).cloned() else {
            let choices = choices.join("\", \"");
            return Err(format!("`when` is {when:?}, which is none of the choices \"{choices}\""));
        };
        let (hold, cool_down) = (self.hold.unwrap_or_default(), self.cool_down.unwrap_or_default());
        Ok((choices, Some(Rule { when, hold, cool_down })))
    }
}

/// What is wrong, without who says so.
fn reason(error: &crate::EngineError) -> String {
    match error {
        crate::EngineError::Question(reason) => reason.clone(),
        error => error.to_string(),
    }
}

impl Question {
    /// The same under these terms; without a time it is asked as `otherwise` says.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn with(self, terms: Terms, otherwise: When) -> Result<Self, String> {
        let (choices, alert) = terms.choices()?;
        let Terms { at, interval, on_change, tag, max_tokens, from, to, .. } = terms;
        let turned = match (from, to) {
            (Some(Bound::At(from)), Some(Bound::At(to))) => from > to,
            (Some(Bound::Ago(from)), Some(Bound::Ago(to))) => from < to,
            (Some(Bound::Wall(from)), Some(Bound::Wall(to))) => from > to,
            _ => false,
        };
        if turned {
            return Err("`from` is later than `to`".into());
        }
        if interval.is_some_and(|interval| interval < MIN_INTERVAL) {
            return Err("`interval` is shorter than 0.001 s".into());
        }
        let max_tokens = match max_tokens {
            Some(0) => return Err("`max-tokens` is 0; the shortest answer has 1 token".into()),
            Some(tokens) => {
                Some(u32::try_from(tokens).map_or(MAX_TOKENS, |tokens| tokens.min(MAX_TOKENS)))
            }
            None => None,
        };
        let on = On::of(&terms.on)?;
        let when = match (at, interval) {
            (from, Some(interval)) => When::Every { from, interval },
            (Some(_), None) if on.any() => {
                return Err(
                    "`at` is one moment and `on` are others; say `interval` too, or leave \
                            one of them out"
                        .into(),
                );
            }
            (Some(at), None) => When::At(at),
            (None, None) if on.any() => When::Occasion,
            (None, None) => otherwise,
        };
        let tag = tag.map(|tag| without_nul(&tag));
        let question =
            Self { when, on, on_change, tag, max_tokens, choices, alert, from, to, ..self };
        if question.alert.is_some() && !question.is_standing() {
            return Err("`when` is for standing questions; say `interval` or `on` too".into());
        }
        Ok(question)
    }
}

pub(in crate::element) fn seconds_field(name: &str, seconds: f64) -> Result<ClockTime, String> {
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        return Err(format!("`{name}` is {seconds}; it is a number of seconds, 0 or more"));
    }
    Ok(ClockTime::from_nseconds((seconds * 1e9).round() as u64))
}
