// SPDX-License-Identifier: MPL-2.0
//! One question as it was put, and when it is to be asked.

mod fields;
mod terms;

use std::sync::atomic::{AtomicU64, Ordering};

use gst::ClockTime;
use gstreamer as gst;

pub(super) use self::terms::{Bound, Terms, seconds_field};
use super::condition::Rule;

/// The engine sets room aside for the longest answer, so that is not for everyone to say.
pub(super) const MAX_TOKENS: u32 = 32_768;

/// A question as it was put; a standing one is asked many times.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Question {
    pub id: u64,
    pub text: String,
    pub tag: Option<String>,
    pub when: When,
    /// What else it is asked on.
    pub on: On,
    /// Report an answer only if it differs from the last one.
    pub on_change: bool,
    /// The answer is one of these; empty: it is free.
    pub choices: Vec<String>,
    /// What is reported as an alert.
    pub alert: Option<Rule>,
    /// The stretch that it is about; `None`: all that was seen.
    pub from: Option<Bound>,
    pub to: Option<Bound>,
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
    /// Whenever there is an occasion, see [`On`].
    Occasion,
}

/// Occasions on which a standing question is asked, whatever the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct On {
    /// The picture changes.
    pub change: bool,
    /// Something upstream has seen something.
    pub detection: bool,
}

impl On {
    /// # Errors
    /// Names the word that is none.
    fn of(words: &[String]) -> Result<Self, String> {
        let mut on = Self::default();
        for word in words {
            match word.as_str() {
                "change" => on.change = true,
                "detection" => on.detection = true,
                word => return Err(format!("`on` is {word:?}; it is \"change\" or \"detection\"")),
            }
        }
        Ok(on)
    }

    pub fn any(self) -> bool {
        self.change || self.detection
    }
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

    /// Whether it is asked again and again, and never has had its last answer.
    pub fn is_standing(&self) -> bool {
        matches!(self.when, When::Every { .. } | When::Occasion)
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
