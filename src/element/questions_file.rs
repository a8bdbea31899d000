// SPDX-License-Identifier: MPL-2.0
//! Questions from a file: JSON Lines with comments, every fault with its line.

use std::path::Path;

use serde::Deserialize;

use super::question::{Bound, Question, Terms, When, seconds_field};

/// One line of a questions file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Line {
    question: String,
    at: Option<f64>,
    interval: Option<f64>,
    #[serde(default)]
    on: Words,
    #[serde(default)]
    on_change: bool,
    tag: Option<String>,
    max_tokens: Option<u64>,
    #[serde(default)]
    choices: Vec<String>,
    when: Option<String>,
    r#for: Option<f64>,
    cool_down: Option<f64>,
    from: Option<Moment>,
    to: Option<Moment>,
}

/// Seconds, or a moment of clock time.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of seconds or a moment such as \"2026-05-01T08:30:00Z\"")]
enum Moment {
    Seconds(f64),
    Clock(String),
}

impl Moment {
    fn bound(&self, name: &str) -> Result<Bound, String> {
        match self {
            Self::Seconds(seconds) => Bound::of_seconds(name, *seconds),
            Self::Clock(text) => Bound::of_clock(name, text),
        }
    }
}

/// One word or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`on` is \"change\", \"detection\" or a list of them")]
enum Words {
    One(String),
    Several(Vec<String>),
}

impl Default for Words {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl TryFrom<Line> for Question {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let time = |name, time: Option<f64>| time.map(|time| seconds_field(name, time)).transpose();
        let terms = Terms {
            at: time("at", line.at)?,
            interval: time("interval", line.interval)?,
            on: match line.on {
                Words::One(word) => vec![word],
                Words::Several(words) => words,
            },
            on_change: line.on_change,
            tag: line.tag,
            max_tokens: line.max_tokens,
            choices: line.choices,
            when: line.when,
            hold: time("for", line.r#for)?,
            cool_down: time("cool-down", line.cool_down)?,
            from: line.from.map(|from| from.bound("from")).transpose()?,
            to: line.to.map(|to| to.bound("to")).transpose()?,
        };
        Self::new(&line.question)?.with(terms, When::AtEnd)
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
pub(super) fn read(path: &str) -> Result<Vec<Question>, FileError> {
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use gst::ClockTime;
    use gstreamer as gst;

    use super::*;

    fn parse(content: &[u8]) -> Result<Vec<Question>, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        read(file.path().to_str().unwrap()).map_err(|error| error.to_string())
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
    fn a_line_says_what_is_an_alert() {
        let questions = parse(
            b"{\"question\": \"open?\", \"on\": [\"change\"], \"choices\": [\"open\", \"closed\"]}\n\
              {\"question\": \"fire?\", \"interval\": 1, \"on\": \"detection\", \"when\": \"yes\", \
               \"for\": 2.5, \"cool-down\": 60}",
        )
        .unwrap();
        assert_eq!((questions[0].when, questions[0].alert.is_some()), (When::Occasion, false));
        let rule = questions[1].alert.as_ref().unwrap();
        assert_eq!((rule.hold.mseconds(), rule.cool_down.seconds()), (2500, 60));
        assert!(questions[1].on.detection && !questions[1].on.change);
        for (line, said) in [
            (&br#"{"question": "q", "on": 3}"#[..], "`on` is"),
            (br#"{"question": "q", "on": "motion"}"#, "motion"),
            (br#"{"question": "q", "interval": 1, "when": "maybe"}"#, "maybe"),
            (br#"{"question": "q", "when": "yes"}"#, "standing"),
            (br#"{"question": "q", "from": "noon"}"#, "`from` is \"noon\""),
            (br#"{"question": "q", "to": [1]}"#, "number of seconds"),
            (br#"{"question": "q", "interval": 1, "when": "yes", "for": -1}"#, "`for`"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
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
        let message = read("/nowhere/questions.jsonl").unwrap_err().to_string();
        assert!(message.contains("/nowhere/questions.jsonl"), "{message}");
    }
}
