// SPDX-License-Identifier: MPL-2.0
//! One question as it was put, and when it is to be asked.

use std::sync::atomic::{AtomicU64, Ordering};

use gst::ClockTime;
use gstreamer as gst;

/// Shorter intervals ask at every frame anyway.
const MIN_INTERVAL: ClockTime = ClockTime::from_mseconds(1);
/// The engine sets room aside for the longest answer, so that is not for everyone to say.
pub(super) const MAX_TOKENS: u32 = 32_768;
/// Times beyond this (73 years) are slips of the pen, and sums of two of them fit u64.
const MAX_SECONDS: f64 = 2_300_000_000.0;

/// A question as it was put; a standing one is asked many times.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Question {
    pub id: u64,
    pub text: String,
    pub tag: Option<String>,
    pub when: When,
    /// Report an answer only if it differs from the last one.
    pub on_change: bool,
    /// `None`: the element's.
    pub max_tokens: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum When {
    /// As of the newest frame that has entered; of the first one, if none has.
    #[default]
    Now,
    /// Once, at the first frame of at least this time, or at the end of the stream.
    At(ClockTime),
    /// At `from` (`None`: one interval after the first frame) and every `interval` from then on.
    Every { from: Option<ClockTime>, interval: ClockTime },
    /// Once, at the end of the stream.
    AtEnd,
}

impl Question {
    /// # Errors
    /// Says what is wrong with the text.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = without_nul(text.trim());
        if text.is_empty() {
            return Err("`question` is empty".into());
        }
        Ok(Self { text, ..Self::default() })
    }

    /// The fields of `ask-full` and of the event. Times are ns as integers, seconds as floats.
    ///
    /// # Errors
    /// Names the field that is missing or wrong.
    pub fn from_structure(structure: &gst::StructureRef) -> Result<Self, String> {
        let text = structure
            .get::<Option<String>>("question")
            .ok()
            .flatten()
            .ok_or("the string field `question` is missing")?;
        let at = time_field(structure, "at")?;
        let interval = time_field(structure, "interval")?;
        let max_tokens = match structure.value("max-tokens") {
            Err(_) => None,
            Ok(value) => Some(integer(value).ok_or("`max-tokens` is not a positive integer")?),
        };
        let on_change = match structure.value("on-change") {
            Err(_) => false,
            Ok(value) => value.get().map_err(|_| "`on-change` is not a boolean")?,
        };
        let tag = match structure.value("tag") {
            Err(_) => None,
            Ok(value) => value.get::<Option<String>>().map_err(|_| "`tag` is not a string")?,
        };
        Self::new(&text)?.with(at, interval, When::Now, on_change, tag, max_tokens)
    }

    /// Whether it is asked again and again, and never has had its last answer.
    pub fn is_standing(&self) -> bool {
        matches!(self.when, When::Every { .. })
    }

    pub fn with(
        self,
        at: Option<ClockTime>,
        interval: Option<ClockTime>,
        otherwise: When,
        on_change: bool,
        tag: Option<String>,
        max_tokens: Option<u64>,
    ) -> Result<Self, String> {
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
        let when = match (at, interval) {
            (from, Some(interval)) => When::Every { from, interval },
            (Some(at), None) => When::At(at),
            (None, None) => otherwise,
        };
        let tag = tag.map(|tag| without_nul(&tag));
        Ok(Self { when, on_change, tag, max_tokens, ..self })
    }
}

/// A number for the next question; 0 is none.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// GLib's strings end at the first NUL, and outside text may hold one.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn integer(value: &glib::SendValue) -> Option<u64> {
    value
        .get::<u64>()
        .ok()
        .or_else(|| value.get::<u32>().ok().map(u64::from))
        .or_else(|| value.get::<i32>().ok().and_then(|value| value.try_into().ok()))
        .or_else(|| value.get::<i64>().ok().and_then(|value| value.try_into().ok()))
}

fn time_field(structure: &gst::StructureRef, name: &str) -> Result<Option<ClockTime>, String> {
    let Ok(value) = structure.value(name) else { return Ok(None) };
    if let Ok(time) = value.get::<Option<ClockTime>>() {
        return Ok(time);
    }
    if let Some(time) = integer(value) {
        return Ok(Some(ClockTime::from_nseconds(time.min(u64::MAX - 1))));
    }
    let seconds = value.get::<f64>().map_err(|_| {
        format!("`{name}` is neither an integer (running time in ns) nor a double (seconds)")
    })?;
    seconds_field(name, seconds).map(Some)
}

pub(super) fn seconds_field(name: &str, seconds: f64) -> Result<ClockTime, String> {
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        return Err(format!("`{name}` is {seconds}; it is a number of seconds, 0 or more"));
    }
    Ok(ClockTime::from_nseconds((seconds * 1e9).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_takes_times_in_ns_and_in_seconds() {
        gst::init().unwrap();
        let structure = |at: glib::SendValue| {
            gst::Structure::builder("ask").field("question", "q").field("at", at).build()
        };
        use glib::value::ToSendValue;
        let at = |value| Question::from_structure(&structure(value)).map(|question| question.when);
        let second = When::At(ClockTime::SECOND);
        assert_eq!(at(1_000_000_000u64.to_send_value()).unwrap(), second);
        assert_eq!(at(1_000_000_000i32.to_send_value()).unwrap(), second);
        assert_eq!(at(1.0f64.to_send_value()).unwrap(), second);
        assert!(at("soon".to_send_value()).unwrap_err().contains("`at`"));
        assert!(at(f64::NAN.to_send_value()).is_err());
        assert!(at((-5i32).to_send_value()).is_err());
    }
}
