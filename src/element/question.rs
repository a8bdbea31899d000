// SPDX-License-Identifier: MPL-2.0
//! Who asks what: questions from signals, events, properties and files.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use glib::subclass::Signal;
use glib::subclass::prelude::*;
use gst::ClockTime;
use gst::prelude::*;
use gstreamer as gst;
use serde::Deserialize;

use super::answer::Status;
use super::imp::{CAT, StreamKvqa};
use super::worker::Worker;

/// Events seen lately; one upstream event arrives once per sink.
const MAX_SEQNUMS: usize = 64;
/// Name of the custom event that asks, upstream or downstream.
pub(super) const EVENT_NAME: &str = "streamkvqa/ask";

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

/// Upstream events that have been seen.
#[derive(Default)]
pub(super) struct Seen {
    asks: VecDeque<gst::Seqnum>,
    seek: Option<gst::Seqnum>,
}
/// Questions in.
impl StreamKvqa {
    /// Asks now if a frame has entered, else at the first frame or whenever the question says.
    fn ask(&self, question: Question) -> u64 {
        let id = next_id();
        let question = Arc::new(Question { id, ..question });
        gst::debug!(CAT, imp = self, "question {id}: {:?}", question.text);
        match self.worker() {
            Some(worker) if question.when == When::Now && worker.has_seen() => {
                self.ask_now(&worker, question);
            }
            _ => self.schedule.lock().add(question),
        }
        id
    }

    pub(super) fn ask_now(&self, worker: &Worker, question: Arc<Question>) {
        let text = self.text().filter(|_| self.text_waits());
        worker.ask(question, |asked| {
            if let (Some(text), Some(at)) = (&text, asked.at) {
                text.hold(asked.number, at.running);
            }
        });
    }

    /// Refuses with a warning and 0.
    pub(super) fn ask_structure(&self, structure: &gst::StructureRef) -> u64 {
        match Question::from_structure(structure) {
            Ok(question) => self.ask(question),
            Err(reason) => {
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::Settings,
                    ("question refused: {reason}"),
                    ["{structure:?}"]
                );
                0
            }
        }
    }

    pub(super) fn cancel(&self, id: u64) -> bool {
        let scheduled = self.schedule.lock().remove(id);
        let worker = self.worker();
        let running = worker.as_ref().is_some_and(|worker| worker.cancel(id));
        let found = scheduled.is_some() || running;
        if let (Some(question), Some(worker), false) = (scheduled, worker, running) {
            worker.report(question, Status::Cancelled);
        }
        found
    }

    pub(super) fn clear_memory(&self) {
        if let Some(worker) = self.worker() {
            worker.clear();
        }
    }

    /// Puts the `question` property on the schedule, in place of what it said before.
    pub(super) fn arm_question(&self) {
        let Some(worker) = self.worker() else { return };
        let settings = self.settings();
        let standing = self.standing.lock().take();
        if let Some(id) = standing {
            self.schedule.lock().remove(id);
        }
        let Some(Ok(question)) = settings.question.as_deref().map(Question::new) else { return };
        let interval = settings.question_interval;
        let playing = worker.has_seen();
        let when = match (interval > ClockTime::ZERO, playing) {
            (true, _) => When::Every { from: playing.then_some(ClockTime::ZERO), interval },
            (false, true) => When::Now,
            (false, false) => When::AtEnd,
        };
        let id = self.ask(Question { when, ..question });
        *self.standing.lock() = Some(id);
    }

    /// A custom event, from either side; `None` if it is somebody else's.
    pub(super) fn ask_event(&self, event: &gst::EventRef) -> Option<bool> {
        let structure = event.structure().filter(|s| s.name() == EVENT_NAME)?;
        let element = structure.get::<Option<String>>("element").ok().flatten();
        if element.is_some_and(|name| name != self.obj().name()) {
            return None;
        }
        {
            let mut seen = self.seen.lock();
            if seen.asks.contains(&event.seqnum()) {
                return Some(true);
            }
            if seen.asks.len() == MAX_SEQNUMS {
                seen.asks.pop_front();
            }
            seen.asks.push_back(event.seqnum());
        }
        self.ask_structure(structure);
        Some(true)
    }

    /// Upstream events of the video's source pad and of the text pad; `Err` goes on.
    pub(super) fn upstream_event(&self, event: gst::Event) -> Result<bool, gst::Event> {
        match event.view() {
            gst::EventView::CustomUpstream(custom) => self.ask_event(custom).ok_or(event),
            gst::EventView::Seek(_) => {
                // Both pads get the same seek when a pipeline is sought.
                let seqnum = event.seqnum();
                if self.seen.lock().seek.replace(seqnum) == Some(seqnum) {
                    return Ok(true);
                }
                Err(event)
            }
            _ => Err(event),
        }
    }
}
/// The signals of the element, both ways.
pub(super) fn signals() -> Vec<Signal> {
    /// The element that a signal was emitted on. GObject checks the types of all arguments.
    fn element(args: &[glib::Value]) -> Option<super::StreamKvqa> {
        args.first()?.get().ok()
    }
    vec![
        Signal::builder("ask")
            .param_types([String::static_type()])
            .return_type::<u64>()
            .action()
            .class_handler(|args| {
                let element = element(args)?;
                let text = args.get(1)?.get::<Option<String>>().ok()?.unwrap_or_default();
                let structure = gst::Structure::builder("ask").field("question", text).build();
                Some(element.imp().ask_structure(&structure).to_value())
            })
            .build(),
        Signal::builder("ask-full")
            .param_types([gst::Structure::static_type()])
            .return_type::<u64>()
            .action()
            .class_handler(|args| {
                let element = element(args)?;
                let structure = args.get(1)?.get::<Option<gst::Structure>>().ok()?;
                let structure = structure.unwrap_or_else(|| gst::Structure::new_empty("ask"));
                Some(element.imp().ask_structure(&structure).to_value())
            })
            .build(),
        Signal::builder("cancel")
            .param_types([u64::static_type()])
            .return_type::<bool>()
            .action()
            .class_handler(|args| {
                let element = element(args)?;
                let id = args.get(1)?.get().ok()?;
                Some(element.imp().cancel(id).to_value())
            })
            .build(),
        Signal::builder("clear-memory")
            .action()
            .class_handler(|args| {
                element(args)?.imp().clear_memory();
                None
            })
            .build(),
        Signal::builder("answer").param_types([gst::Structure::static_type()]).build(),
        Signal::builder("token").param_types([u64::static_type(), String::static_type()]).build(),
    ]
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
}
