// SPDX-License-Identifier: MPL-2.0
//! One answer, in every shape in which it leaves the element: bus message and signal (a structure),
//! text buffer (plain or JSON), video meta.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::ClockTime;
use gstreamer as gst;
use serde_json::json;

use super::bus::{known, seconds};
use super::condition::Turn;
use super::question::{Question, next_id, without_nul};
use super::timeline::{Moment, Stretch, Timeline};
use crate::{Answer, Choice, Finish};

/// Name of the element message and of the structure in the `answer` signal.
pub(super) const MESSAGE_NAME: &str = "streamkvqa/answer";
/// The same of news of a standing question, and of the `alert` signal.
pub(super) const ALERT_NAME: &str = "streamkvqa/alert";
/// Fields of an answer that its alert has otherwise, or not at all.
const NOT_OF_ALERTS: [&str; 7] =
    ["status", "last", "error", "tokens", "truncated", "finish", "json"];
/// Name of the custom meta on the next video buffer.
pub(super) const META_NAME: &str = "StreamKvqaAnswerMeta";

/// How a question ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    /// By `cancel`, by a flush, by stopping, by the EOS timeout, or by another `question`.
    Cancelled,
    /// Too many questions were waiting.
    Dropped,
    /// The engine could not answer; why is in the text.
    Error(String),
}

impl Status {
    fn nick(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::Dropped => "dropped",
            Self::Error(_) => "error",
        }
    }
}

/// One asking of a question.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Unique in the process: a standing question has one id and many askings.
    pub number: u64,
    pub question: Arc<Question>,
    /// The newest frame then.
    pub at: Option<Moment>,
    /// How long ago that had come in.
    pub frame_age: Option<Duration>,
    pub since: Instant,
}

impl Asked {
    /// A question that is not, or not yet, asked of a frame.
    pub fn of_nothing(question: Arc<Question>) -> Self {
        Self { number: next_id(), question, at: None, frame_age: None, since: Instant::now() }
    }
}

/// A stretch of the video that an answer looked at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    stretch: Stretch,
    score: f64,
}

/// An asking and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub asked: Asked,
    /// The newest frame when it was answered.
    pub answered: Option<Moment>,
    pub status: Status,
    /// Nothing more comes under this question's id.
    pub last: bool,
    pub text: String,
    pub evidence: Vec<Span>,
    pub tokens: usize,
    /// Why the answer ended, if there is one.
    pub finish: Option<Finish>,
    /// See [`Answer::confidence`].
    pub confidence: Option<f64>,
    pub choices: Vec<Choice>,
    pub latency: Duration,
}

impl Record {
    /// An asking that was not answered.
    pub fn unanswered(asked: Asked, status: Status) -> Self {
        Self {
            answered: None,
            status,
            last: !asked.question.is_standing(),
            text: String::new(),
            evidence: Vec::new(),
            tokens: 0,
            finish: None,
            confidence: None,
            choices: Vec::new(),
            latency: Duration::ZERO,
            asked,
        }
    }

    /// What ends a question that is still on the schedule.
    pub fn last_word(question: Arc<Question>, status: Status) -> Self {
        Self { last: true, ..Self::unanswered(Asked::of_nothing(question), status) }
    }

    /// `until`: seconds of engine time up to which was asked.
    pub fn answered(asked: Asked, answer: &Answer, timeline: &Timeline, until: f64) -> Self {
        let evidence = answer.evidence.iter().map(|evidence| Span {
            stretch: timeline.locate(evidence.start, evidence.end, until),
            score: evidence.score,
        });
        Self {
            text: without_nul(&answer.text),
            evidence: evidence.collect(),
            tokens: answer.ids.len(),
            finish: Some(answer.finish),
            confidence: answer.confidence,
            choices: answer.choices.clone(),
            latency: asked.since.elapsed(),
            ..Self::unanswered(asked, Status::Ok)
        }
    }

    fn is_truncated(&self) -> bool {
        self.finish == Some(Finish::Length)
    }

    /// How likely the answer is among the question's choices, if it has some.
    fn probability(&self) -> Option<f64> {
        let own = |choice: &&Choice| without_nul(&choice.text) == self.text;
        self.choices.iter().find(own).map(|choice| choice.probability)
    }

    fn question(&self) -> &Question {
        &self.asked.question
    }

    /// The structure's fields; times are ns.
    fn fields(&self, element: &str) -> Vec<(&'static str, glib::SendValue)> {
        use glib::value::ToSendValue;
        let mut fields = vec![
            ("element", element.to_send_value()),
            ("id", self.question().id.to_send_value()),
            ("question", self.question().text.to_send_value()),
            ("answer", self.text.to_send_value()),
            ("status", self.status.nick().to_send_value()),
            ("last", self.last.to_send_value()),
            ("tag", self.question().tag.as_deref().unwrap_or_default().to_send_value()),
        ];
        if let Status::Error(reason) = &self.status {
            fields.push(("error", without_nul(reason).to_send_value()));
        }
        if let Some(at) = self.asked.at {
            fields.push(("asked-at", at.running.nseconds().to_send_value()));
            if let Some(stream) = at.stream {
                fields.push(("asked-at-stream", stream.nseconds().to_send_value()));
            }
            if let Some(wall) = at.wall {
                fields.push(("wall-clock", wall.to_send_value()));
            }
        }
        if let Some(age) = self.asked.frame_age {
            let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
            fields.push(("frame-age", age.to_send_value()));
        }
        if let Some(answered) = self.answered {
            fields.push(("answered-at", answered.running.nseconds().to_send_value()));
        }
        let evidence = self.evidence.iter().map(|span| {
            let Stretch { start, end, restored } = span.stretch;
            let structure = gst::Structure::builder("evidence")
                .field("start", start.running.nseconds())
                .field("end", end.running.nseconds())
                .field("score", span.score)
                .field_if_some("start-stream", start.stream.map(ClockTime::nseconds))
                .field_if_some("end-stream", end.stream.map(ClockTime::nseconds))
                .field_if_some("start-wall-clock", start.wall)
                .field_if_some("end-wall-clock", end.wall)
                .field_if_some("restored", restored.then_some(true));
            structure.build().to_send_value()
        });
        fields.extend([
            ("evidence", gst::List::new(evidence).to_send_value()),
            ("tokens", (self.tokens as u64).to_send_value()),
            ("latency-ms", (self.latency.as_secs_f64() * 1e3).to_send_value()),
            ("truncated", self.is_truncated().to_send_value()),
            ("json", self.json(element).to_send_value()),
        ]);
        if let Some(finish) = self.finish {
            fields.push(("finish", finish.name().to_send_value()));
        }
        if let Some(confidence) = self.confidence {
            fields.push(("confidence", confidence.to_send_value()));
        }
        if let Some(probability) = self.probability() {
            let choices = self.choices.iter().map(|choice| {
                let choice = gst::Structure::builder("choice")
                    .field("answer", without_nul(&choice.text))
                    .field("probability", choice.probability);
                choice.build().to_send_value()
            });
            fields.push(("probability", probability.to_send_value()));
            fields.push(("choices", gst::List::new(choices).to_send_value()));
        }
        fields
    }

    /// News of what a standing question asks about: the structure of its bus message and of the `alert`
    /// signal.
    pub fn alert(&self, turn: Turn, element: &str) -> gst::Structure {
        let (status, since, lasted) = match turn {
            Turn::Began { since } => ("began", since, None),
            Turn::Ceased { since, lasted } => ("ceased", since, Some(lasted)),
        };
        let mut structure = gst::Structure::new_empty(ALERT_NAME);
        for (name, value) in self.fields(element) {
            // Whose it is, and what of the answer bears on it.
            if !NOT_OF_ALERTS.contains(&name) {
                structure.set_value(name, value);
            }
        }
        let mut json = self.fields_json(element);
        if let Some(fields) = json.as_object_mut() {
            NOT_OF_ALERTS.iter().for_each(|name| drop(fields.remove(*name)));
            fields.insert("status".into(), status.into());
            fields.insert("since".into(), seconds(since).into());
            fields.extend(lasted.map(|lasted| ("lasted".into(), seconds(lasted).into())));
        }
        structure.set("status", status);
        structure.set("since", since.nseconds());
        if let Some(lasted) = lasted {
            structure.set("lasted", lasted.nseconds());
        }
        structure.set("json", json.to_string());
        structure
    }

    fn evidence_json(&self) -> Vec<serde_json::Value> {
        let unix = |wall: u64| wall as f64 / 1e9;
        let span = |span: &Span| {
            let Stretch { start, end, restored } = span.stretch;
            known(json!({
                "start": seconds(start.running),
                "end": seconds(end.running),
                "start-stream": start.stream.map(seconds),
                "end-stream": end.stream.map(seconds),
                "start-wall-clock": start.wall.map(unix),
                "end-wall-clock": end.wall.map(unix),
                "restored": restored.then_some(true),
                "score": span.score,
            }))
        };
        self.evidence.iter().map(span).collect()
    }

    /// The structure of the bus message and of the `answer` signal.
    pub fn structure(&self, element: &str) -> gst::Structure {
        let mut structure = gst::Structure::new_empty(MESSAGE_NAME);
        for (name, value) in self.fields(element) {
            structure.set_value(name, value);
        }
        structure
    }

    /// Attaches the same fields to a video buffer.
    pub fn attach(
        &self,
        element: &str,
        buffer: &mut gst::BufferRef,
    ) -> Result<(), glib::BoolError> {
        let mut meta = gst::meta::CustomMeta::add(buffer, META_NAME)?;
        let structure = meta.mut_structure();
        for (name, value) in self.fields(element) {
            structure.set_value(name, value);
        }
        Ok(())
    }

    /// The same fields as one JSON object, for those who can read neither lists nor 64 bits: times
    /// are seconds.
    pub fn json(&self, element: &str) -> String {
        self.fields_json(element).to_string()
    }

    fn fields_json(&self, element: &str) -> serde_json::Value {
        let Asked { question, at, frame_age, .. } = &self.asked;
        let error = match &self.status {
            Status::Error(reason) => Some(without_nul(reason)),
            _ => None,
        };
        known(json!({
            "element": element,
            "id": question.id,
            "question": question.text,
            "answer": self.text,
            "status": self.status.nick(),
            "last": self.last,
            "tag": question.tag,
            "error": error,
            "asked-at": at.map(|at| seconds(at.running)),
            "asked-at-stream": at.and_then(|at| at.stream).map(seconds),
            "wall-clock": at.and_then(|at| at.wall).map(|wall| wall as f64 / 1e9),
            "frame-age": frame_age.map(|age| age.as_secs_f64()),
            "answered-at": self.answered.map(|answered| seconds(answered.running)),
            "evidence": self.evidence_json(),
            "tokens": self.tokens,
            "latency-ms": self.latency.as_secs_f64() * 1e3,
            "truncated": self.is_truncated(),
            "finish": self.finish.map(Finish::name),
            "confidence": self.confidence,
            "probability": self.probability(),
            "choices": self.probability().map(|_| {
                let share = |choice: &Choice| (without_nul(&choice.text), json!(choice.probability));
                self.choices.iter().map(share).collect::<serde_json::Map<_, _>>()
            }),
        }))
    }

    /// The answer in the words of a template. Blank lines would end a subtitle early.
    pub fn plain(&self, template: &str) -> String {
        let strongest = self.evidence.iter().max_by(|a, b| a.score.total_cmp(&b.score));
        let time = |time: Option<ClockTime>| time.map_or("-".into(), minutes);
        let mut text = String::new();
        let mut rest = template;
        while let Some(start) = rest.find(['{', '\\']) {
            text.push_str(&rest[..start]);
            rest = &rest[start..];
            let (placeholder, value) = [
                ("{question}", self.question().text.clone()),
                ("{answer}", self.text.clone()),
                ("{tag}", self.question().tag.clone().unwrap_or_default()),
                ("{start}", time(strongest.map(|span| span.stretch.start.running))),
                ("{end}", time(strongest.map(|span| span.stretch.end.running))),
                ("{br}", "\n".to_owned()),
                ("\\n", "\n".to_owned()),
            ]
            .into_iter()
            .find(|(placeholder, _)| rest.starts_with(placeholder))
            .unwrap_or_else(|| ("?", rest[..1].to_owned()));
            text.push_str(&value);
            rest = &rest[placeholder.len()..];
        }
        text.push_str(rest);
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// `m:ss` up to an hour, `h:mm:ss` from there.
fn minutes(time: ClockTime) -> String {
    let seconds = time.saturating_add(ClockTime::from_mseconds(500)).seconds();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        let question = Question { id: 7, tag: Some("t".into()), ..Question::new("who?").unwrap() };
        let seconds = ClockTime::from_seconds;
        let moment = |time| Moment { running: seconds(time), stream: None, wall: None };
        let span = |start, end, score| Span {
            stretch: Stretch { start: moment(start), end: moment(end), restored: false },
            score,
        };
        let at = Some(moment(90));
        let frame_age = Some(Duration::from_millis(1500));
        let asked = Asked { at, frame_age, ..Asked::of_nothing(Arc::new(question)) };
        Record {
            text: text.into(),
            evidence: vec![span(1, 2, 0.25), span(59, 3601, 0.75)],
            ..Record::unanswered(asked, Status::Ok)
        }
    }

    #[test]
    fn a_template_is_filled_in_once() {
        let record = record("{question} {br}\\n");
        let text = record.plain("Q: {question}{br}\\nA: {answer} [{start}-{end}] {tag} {x} é{");
        assert_eq!(text, "Q: who?\nA: {question} {br}\\n [0:59-1:00:01] t {x} é{");
    }

    #[test]
    fn blank_lines_do_not_reach_a_subtitle() {
        assert_eq!(record("a\n\n\r\n b \n").plain("{answer}"), "a\n b");
    }

    #[test]
    fn json_is_one_line_whatever_the_answer_says() {
        let json = record("a\n\"b\"").json("qa");
        assert!(!json.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["answer"], &value["asked-at"]), (&json!("a\n\"b\""), &json!(90.0)));
        assert_eq!(value["evidence"][1]["start"], json!(59.0));
        assert_eq!((&value["frame-age"], &value["element"]), (&json!(1.5), &json!("qa")));
        assert!(value.get("wall-clock").is_none());
    }

    #[test]
    fn the_structure_holds_nanoseconds_and_a_list_of_evidence() {
        gst::init().unwrap();
        let structure = record("red").structure("qa");
        assert_eq!(structure.get::<u64>("asked-at").unwrap(), 90_000_000_000);
        assert_eq!(structure.get::<&str>("element").unwrap(), "qa");
        assert_eq!(structure.get::<u64>("frame-age").unwrap(), 1_500_000_000);
        let evidence = structure.get::<gst::List>("evidence").unwrap();
        let strongest = evidence[1].get::<gst::Structure>().unwrap();
        assert_eq!(strongest.get::<f64>("score").unwrap(), 0.75);
        assert_eq!(strongest.get::<u64>("start").unwrap(), 59_000_000_000);
    }
}
