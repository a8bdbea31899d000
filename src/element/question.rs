// SPDX-License-Identifier: MPL-2.0
//! Who asks what, and when: questions from signals, events, properties and files, and the schedule
//! of those whose time has not come.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::ClockTime;
use gstreamer as gst;
use serde::Deserialize;

/// Name of the custom event that asks, upstream or downstream.
pub(super) const EVENT_NAME: &str = "streamkvqa/ask";

/// Shorter intervals ask at every frame anyway.
const MIN_INTERVAL: ClockTime = ClockTime::from_mseconds(1);
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
    /// Once, at the first frame with at least this running time, or at the end of the stream.
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

    fn with(
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
            Some(tokens) => Some(u32::try_from(tokens).unwrap_or(u32::MAX)),
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

fn seconds_field(name: &str, seconds: f64) -> Result<ClockTime, String> {
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        return Err(format!("`{name}` is {seconds}; it is a number of seconds, 0 or more"));
    }
    Ok(ClockTime::from_nseconds((seconds * 1e9).round() as u64))
}

/// One line of a questions file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Line {
    question: String,
    at: Option<f64>,
    interval: Option<f64>,
    #[serde(default)]
    on_change: bool,
    tag: Option<String>,
    max_tokens: Option<u64>,
}

impl TryFrom<Line> for Question {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let at = line.at.map(|at| seconds_field("at", at)).transpose()?;
        let interval = line.interval.map(|time| seconds_field("interval", time)).transpose()?;
        let question = Self::new(&line.question)?;
        question.with(at, interval, When::AtEnd, line.on_change, line.tag, line.max_tokens)
    }
}

/// Why a questions file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot read questions-file {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error(
        "questions-file {path}, line {line}: {reason}; a line is one JSON object such as \
         {{\"question\": \"what color is the ball?\", \"at\": 12.5, \"tag\": \"ball\"}}"
    )]
    Line { path: String, line: usize, reason: String },
}

/// Reads a questions file.
pub(super) fn from_file(path: &str) -> Result<Vec<Question>, FileError> {
    let bytes = std::fs::read(Path::new(path))
        .map_err(|source| FileError::Read { path: path.into(), source })?;
    let fault = |line, reason| FileError::Line { path: path.into(), line, reason };
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        fault(1 + good.iter().filter(|&&byte| byte == b'\n').count(), "is not UTF-8".into())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut questions = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed: Line = serde_json::from_str(line)
            .map_err(|error| fault(number, without_position(&error.to_string())))?;
        questions.push(Question::try_from(parsed).map_err(|reason| fault(number, reason))?);
    }
    Ok(questions)
}

/// serde_json counts lines inside the one line it was given.
fn without_position(message: &str) -> String {
    match message.rsplit_once(" at line 1 column ") {
        Some((reason, column)) => format!("{reason} (column {column})"),
        None => message.into(),
    }
}

/// The questions whose time has not come, in the order in which it comes.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    question: Arc<Question>,
    /// `None` until the first frame says where running time begins, and for the end of the stream.
    due: Option<ClockTime>,
    asked: bool,
}

impl Schedule {
    pub fn add(&mut self, question: Arc<Question>) {
        let due = match question.when {
            When::Now => Some(ClockTime::ZERO),
            When::At(at) => Some(at),
            When::Every { from, .. } => from,
            When::AtEnd => None,
        };
        self.entries.push(Entry { question, due, asked: false });
    }

    pub fn remove(&mut self, id: u64) -> Option<Arc<Question>> {
        let index = self.entries.iter().position(|entry| entry.question.id == id)?;
        Some(self.entries.remove(index).question)
    }

    pub fn clear(&mut self) -> Vec<Arc<Question>> {
        self.entries.drain(..).map(|entry| entry.question).collect()
    }

    /// Running time starts again: standing questions count from its next frame.
    pub fn restart(&mut self) {
        for entry in &mut self.entries {
            if let When::Every { from, .. } = entry.question.when
                && (entry.asked || from.is_none())
            {
                entry.due = None;
            }
        }
    }

    /// Whether a question falls due at a frame of this running time.
    pub fn is_due(&self, running: ClockTime) -> bool {
        self.entries.iter().any(|entry| entry.due.is_some_and(|due| due <= running))
    }

    /// The next question that falls due at a frame of this running time; asked once or rescheduled.
    pub fn next_due(&mut self, running: ClockTime) -> Option<Arc<Question>> {
        for entry in &mut self.entries {
            if let (When::Every { interval, .. }, None) = (entry.question.when, entry.due) {
                entry.due = Some(running.saturating_add(interval));
            }
        }
        let (index, due) = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| Some((index, entry.due.filter(|due| *due <= running)?)))
            .min_by_key(|&(index, due)| (due, index))?;
        let entry = &mut self.entries[index];
        let When::Every { interval, .. } = entry.question.when else {
            return Some(self.entries.remove(index).question);
        };
        let missed = (running - due).nseconds() / interval.nseconds();
        entry.due = Some(due.saturating_add(interval.saturating_mul(missed + 1)));
        entry.asked = true;
        Some(entry.question.clone())
    }

    /// The next question that the end of the stream makes due: those that never were.
    pub fn next_at_end(&mut self) -> Option<Arc<Question>> {
        let index = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| !entry.asked)
            .min_by_key(|&(index, entry)| (entry.due.unwrap_or(ClockTime::MAX), index))?
            .0;
        let entry = &mut self.entries[index];
        entry.asked = true;
        if let When::Every { .. } = entry.question.when {
            return Some(entry.question.clone());
        }
        Some(self.entries.remove(index).question)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn parse(content: &[u8]) -> Result<Vec<Question>, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        from_file(file.path().to_str().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_questions_file_is_json_lines_with_comments() {
        let questions = parse(
            b"\xef\xbb\xbf# what we want to know\n\n\
              {\"question\": \"who?\", \"at\": 2.5, \"tag\": \"w\", \"max-tokens\": 7}\r\n\
              {\"question\": \"still?\", \"interval\": 10, \"on-change\": true}\n\
              {\"question\": \"why?\"}",
        )
        .unwrap();
        assert_eq!(questions.len(), 3);
        assert_eq!(questions[0].when, When::At(ClockTime::from_mseconds(2500)));
        assert_eq!((questions[0].tag.as_deref(), questions[0].max_tokens), (Some("w"), Some(7)));
        let every = When::Every { from: None, interval: ClockTime::from_seconds(10) };
        assert_eq!((questions[1].when, questions[1].on_change), (every, true));
        assert_eq!(questions[2].when, When::AtEnd);
    }

    #[test]
    fn a_malformed_line_is_named_with_its_number_and_what_is_right() {
        for (content, expected) in [
            (&b"{\"question\": \"a\"}\n{\"question\": \"b\""[..], "line 2"),
            (b"# c\n\n[1]", "line 3"),
            (b"{\"question\": \"a\", \"att\": 1}", "unknown field `att`"),
            (b"{\"at\": 1}", "missing field `question`"),
            (b"{\"question\": \" \"}", "`question` is empty"),
            (b"{\"question\": \"a\", \"at\": -1}", "`at` is -1"),
            (b"{\"question\": \"a\", \"at\": 1e300}", "`at` is"),
            (b"{\"question\": \"a\", \"interval\": 0}", "`interval`"),
            (b"{\"question\": \"a\", \"max-tokens\": 0}", "`max-tokens`"),
            (b"{\"question\": \"a\"}\n\xff\xfe", "line 2: is not UTF-8"),
        ] {
            let message = parse(content).unwrap_err();
            assert!(message.contains(expected), "{message}");
            assert!(message.contains("line ") && message.contains("such as {\"question\""));
        }
    }

    #[test]
    fn an_unreadable_questions_file_is_named() {
        let message = from_file("/nowhere/questions.jsonl").unwrap_err().to_string();
        assert!(message.contains("/nowhere/questions.jsonl"), "{message}");
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

    fn question(text: &str, when: When) -> Arc<Question> {
        Arc::new(Question { when, ..Question::new(text).unwrap() })
    }

    fn due(schedule: &mut Schedule, seconds: u64) -> Vec<String> {
        std::iter::from_fn(|| schedule.next_due(ClockTime::from_seconds(seconds)))
            .map(|question| question.text.clone())
            .collect()
    }

    #[test]
    fn questions_fall_due_in_the_order_of_their_times() {
        let seconds = ClockTime::from_seconds;
        let mut schedule = Schedule::default();
        schedule.add(question("five", When::At(seconds(5))));
        schedule.add(question("two", When::At(seconds(2))));
        schedule.add(question("last", When::AtEnd));
        schedule.add(question("each", When::Every { from: None, interval: seconds(3) }));
        schedule.add(question("now", When::Now));
        assert_eq!(due(&mut schedule, 1), ["now"]);
        assert!(!schedule.is_due(seconds(1)) && schedule.is_due(seconds(2)));
        assert_eq!(due(&mut schedule, 5), ["two", "each", "five"]);
        assert_eq!(due(&mut schedule, 6), [""; 0]);
        assert_eq!(due(&mut schedule, 20), ["each"]);
        assert_eq!(due(&mut schedule, 21), [""; 0]);
        assert_eq!(schedule.next_at_end().unwrap().text, "last");
        assert!(schedule.next_at_end().is_none());
    }

    #[test]
    fn the_end_asks_what_never_fell_due() {
        let seconds = ClockTime::from_seconds;
        let mut schedule = Schedule::default();
        schedule.add(question("end", When::AtEnd));
        schedule.add(question("late", When::At(seconds(500))));
        schedule.add(question("each", When::Every { from: None, interval: seconds(300) }));
        due(&mut schedule, 1);
        let texts: Vec<_> = std::iter::from_fn(|| schedule.next_at_end())
            .map(|question| question.text.clone())
            .collect();
        assert_eq!(texts, ["each", "late", "end"]);
    }

    #[test]
    fn standing_questions_go_on_after_running_time_restarts() {
        let seconds = ClockTime::from_seconds;
        let mut schedule = Schedule::default();
        schedule.add(question("each", When::Every { from: None, interval: seconds(2) }));
        assert_eq!(due(&mut schedule, 100), [""; 0]);
        assert_eq!(due(&mut schedule, 102), ["each"]);
        schedule.restart();
        assert_eq!(due(&mut schedule, 0), [""; 0]);
        assert_eq!(due(&mut schedule, 2), ["each"]);
    }
}
