// SPDX-License-Identifier: MPL-2.0
//! One question as it was put, and when it is to be asked.

use std::sync::atomic::{AtomicU64, Ordering};

use gst::ClockTime;
use gstreamer as gst;

use super::condition::Rule;
use crate::model::verdict;

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
    fn of<T: AsRef<str>>(words: &[T]) -> Result<Self, String> {
        let mut on = Self::default();
        for word in words {
            match word.as_ref() {
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

/// One end of the stretch that a question is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
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
pub(super) struct Terms {
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
        let (at, interval) = (time_field(structure, "at")?, time_field(structure, "interval")?);
        let (hold, cool_down) =
            (time_field(structure, "for")?, time_field(structure, "cool-down")?);
        let max_tokens = match structure.value("max-tokens") {
            Err(_) => None,
            Ok(value) => Some(integer(value).ok_or("`max-tokens` is not a positive integer")?),
        };
        let on_change = match structure.value("on-change") {
            Err(_) => false,
            Ok(value) => value.get().map_err(|_| "`on-change` is not a boolean")?,
        };
        let text_of = |name: &str| match structure.value(name) {
            Err(_) => Ok(None),
            Ok(value) => {
                value.get::<Option<String>>().map_err(|_| format!("`{name}` is not a string"))
            }
        };
        let (tag, when) = (text_of("tag")?, text_of("when")?);
        let (on, choices) = (words(structure, "on")?, words(structure, "choices")?);
        let (from, to) = (bound_field(structure, "from")?, bound_field(structure, "to")?);
        let terms = Terms {
            at,
            interval,
            on,
            on_change,
            tag,
            max_tokens,
            choices,
            when,
            hold,
            cool_down,
            from,
            to,
        };
        Self::new(&text)?.with(terms, When::Now)
    }

    /// Whether it is asked again and again, and never has had its last answer.
    pub fn is_standing(&self) -> bool {
        matches!(self.when, When::Every { .. } | When::Occasion)
    }

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

/// Seconds or ns of running time, or a moment of clock time.
fn bound_field(structure: &gst::StructureRef, name: &str) -> Result<Option<Bound>, String> {
    let Ok(value) = structure.value(name) else { return Ok(None) };
    if let Ok(Some(text)) = value.get::<Option<String>>() {
        return Bound::of_clock(name, &text).map(Some);
    }
    if let Ok(seconds) = value.get::<f64>() {
        return Bound::of_seconds(name, seconds).map(Some);
    }
    let whole = value.get::<i64>().ok().or_else(|| value.get::<i32>().ok().map(i64::from));
    if let Some(ago) = whole.filter(|&whole| whole < 0) {
        return Ok(Some(Bound::Ago(ClockTime::from_nseconds(ago.unsigned_abs()))));
    }
    let time = time_field(structure, name).map_err(|_| {
        format!("`{name}` is neither a number (ns as an integer, seconds as a double) nor a moment")
    })?;
    Ok(time.map(Bound::At))
}

/// One text or a list of them.
fn words(structure: &gst::StructureRef, name: &str) -> Result<Vec<String>, String> {
    let Ok(value) = structure.value(name) else { return Ok(Vec::new()) };
    let fault = || format!("`{name}` is neither a string nor a list of them");
    if let Ok(text) = value.get::<Option<String>>() {
        return Ok(text.into_iter().collect());
    }
    let all: &[glib::SendValue] = match (value.get::<gst::ListRef>(), value.get::<gst::ArrayRef>())
    {
        (Ok(list), _) => list.as_slice(),
        (_, Ok(array)) => array.as_slice(),
        _ => return Err(fault()),
    };
    all.iter().map(|value| value.get::<String>().map_err(|_| fault())).collect()
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
    fn a_structure_takes_choices_occasions_and_what_is_an_alert() {
        gst::init().unwrap();
        let ask = || gst::Structure::builder("ask").field("question", "is it open?");
        let read = |structure: gst::Structure| Question::from_structure(&structure);
        let choices = gst::List::new(["Open", "closed"]);
        let question = read(
            ask()
                .field("choices", &choices)
                .field("when", "open")
                .field("for", 2.0f64)
                .field("on", "change")
                .build(),
        )
        .unwrap();
        assert_eq!(question.choices, ["Open", "closed"]);
        let rule = question.alert.unwrap();
        assert_eq!((rule.when.as_str(), rule.hold), ("Open", ClockTime::from_seconds(2)));
        assert_eq!((question.when, question.on.change), (When::Occasion, true));
        let array = gst::Array::new(["change", "detection"]);
        let question =
            read(ask().field("on", array).field("when", "no").field("interval", 1.0f64).build())
                .unwrap();
        assert_eq!(question.choices, ["yes", "no"]);
        assert!(question.on.change && question.on.detection && question.is_standing());
        for (structure, said) in [
            (ask().field("when", "ajar").field("interval", 1.0f64), "`when` is \"ajar\""),
            (ask().field("when", "yes"), "standing"),
            (ask().field("for", 1.0f64), "`for`"),
            (ask().field("on", "motion"), "`on` is \"motion\""),
            (ask().field("on", "change").field("at", 3.0f64), "`at`"),
            (ask().field("choices", "yes"), "two"),
            (ask().field("choices", 7i32), "`choices`"),
            (ask().field("choices", gst::List::new([1i32, 2])), "`choices`"),
        ] {
            let error = read(structure.build()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_structure_takes_a_stretch() {
        gst::init().unwrap();
        let ask = || gst::Structure::builder("ask").field("question", "q");
        let read = |structure: gst::Structure| Question::from_structure(&structure);
        let seconds = ClockTime::from_seconds;
        let question = read(ask().field("from", 5.0f64).field("to", 9_000_000_000u64).build());
        let question = question.unwrap();
        assert_eq!(question.from, Some(Bound::At(seconds(5))));
        assert_eq!(question.to, Some(Bound::At(seconds(9))));
        let question = read(ask().field("from", -60.0f64).field("to", -1_000_000_000i64).build());
        let question = question.unwrap();
        assert_eq!(question.from, Some(Bound::Ago(seconds(60))));
        assert_eq!(question.to, Some(Bound::Ago(seconds(1))));
        for text in ["2026-05-01T08:30:00.25Z", "2026-05-01T10:30:00.25+02:00"] {
            let question = read(ask().field("from", text).build()).unwrap();
            assert_eq!(question.from, Some(Bound::Wall(1_777_624_200_250_000_000)));
        }
        for (structure, said) in [
            (ask().field("from", "yesterday"), "`from` is \"yesterday\""),
            (ask().field("to", "2026-05-01T08:30:00"), "time zone"),
            (ask().field("to", true), "`to`"),
            (ask().field("to", f64::NAN), "`to`"),
            (ask().field("from", 3.0f64).field("to", 2.0f64), "later"),
            (ask().field("from", -3.0f64).field("to", -5.0f64), "later"),
        ] {
            let error = read(structure.build()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

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
