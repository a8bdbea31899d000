// SPDX-License-Identifier: MPL-2.0
//! What the element says in its messages, in the wall's nouns.

use gst::ClockTime;
use gst::glib;
use gstreamer as gst;
use jiff::{SignedDuration, Timestamp};

use crate::hub::{AlertState, Evidence, Health, Tier};

/// Running time and time of day at one moment.
pub type Now = (ClockTime, Timestamp);

/// A `streamkvqa/answer`.
#[derive(Debug)]
pub struct Said {
    /// The element's number for the question.
    pub number: u64,
    /// Its text, or why there is none.
    pub text: Result<String, String>,
    /// Nothing more comes under this number.
    pub last: bool,
    /// 0 to 1.
    pub confidence: Option<f32>,
    /// Whether the question had choices.
    pub chosen: bool,
    /// The heaviest first.
    pub evidence: Vec<Evidence>,
}

/// A `streamkvqa/alert`.
#[derive(Clone, Debug)]
pub struct News {
    /// The element's number for the question.
    pub number: u64,
    /// Which of the two.
    pub state: AlertState,
    /// The answer that said so.
    pub answer: String,
    /// 0 to 1.
    pub confidence: Option<f32>,
    /// Since when.
    pub at: Timestamp,
    /// The heaviest first.
    pub evidence: Vec<Evidence>,
}

/// Reads an answer.
pub fn answer(structure: &gst::StructureRef, now: Now) -> Option<Said> {
    let text = |name| structure.get::<String>(name).ok();
    let status = text("status")?;
    Some(Said {
        number: structure.get("id").ok()?,
        text: match status.as_str() {
            "ok" => Ok(text("answer").unwrap_or_default()),
            "dropped" => Err("too many questions wait at this camera; ask again in a while".into()),
            "cancelled" => Err("the camera's pipeline was stopped before it was answered".into()),
            _ => Err(text("error").unwrap_or_else(|| "the model could not answer".into())),
        },
        last: structure.get("last").unwrap_or(true),
        confidence: confidence(structure),
        chosen: structure.has_field("choices"),
        evidence: evidence(structure, now),
    })
}

/// Reads an alert.
pub fn alert(structure: &gst::StructureRef, now: Now) -> Option<News> {
    Some(News {
        number: structure.get("id").ok()?,
        state: match structure.get::<String>("status").ok()?.as_str() {
            "began" => AlertState::On,
            _ => AlertState::Off,
        },
        answer: structure.get("answer").unwrap_or_default(),
        confidence: confidence(structure),
        at: structure.get::<u64>("since").ok().map_or(now.1, |since| moment(since, now)),
        evidence: evidence(structure, now),
    })
}

/// Reads a `streamkvqa/stats`.
pub fn health(structure: &gst::StructureRef) -> Health {
    let count = |name| structure.get::<u64>(name).unwrap_or_default();
    let number = |name| structure.get::<f64>(name).ok().filter(|value| value.is_finite());
    let answered = |name| number(name).filter(|_| count("answers") > 0);
    Health {
        lag_s: number("lag-ms").unwrap_or_default() / 1e3,
        frames: count("frames-in"),
        dropped: count("dropped"),
        queue: count("queue"),
        first_token_p50_ms: answered("first-token-ms-p50"),
        first_token_p95_ms: answered("first-token-ms-p95"),
        memory_bytes: count("memory-bytes"),
        memory_units: count("units"),
        tiers: structure
            .get::<gst::List>("ages")
            .iter()
            .flat_map(|ages| ages.iter())
            .filter_map(tier)
            .collect(),
    }
}

/// What is remembered up to an age.
fn tier(age: &glib::SendValue) -> Option<Tier> {
    let age: gst::Structure = age.get().ok()?;
    let oldest = ClockTime::from_nseconds(age.get("oldest").ok()?);
    Some(Tier {
        age_s: oldest.nseconds() as f64 / 1e9,
        bytes: age.get("bytes").ok()?,
        units: age.get("units").ok()?,
    })
}

/// The probability among choices, else the mean probability of the tokens.
fn confidence(structure: &gst::StructureRef) -> Option<f32> {
    let probability = structure.get::<f64>("probability").ok();
    let mean = || structure.get::<f64>("confidence").ok().map(f64::exp);
    probability
        .or_else(mean)
        .filter(|value| value.is_finite())
        .map(|value| value.clamp(0.0, 1.0) as f32)
}

fn evidence(structure: &gst::StructureRef, now: Now) -> Vec<Evidence> {
    let Ok(list) = structure.get::<gst::ListRef>("evidence") else { return Vec::new() };
    list.as_slice().iter().filter_map(|value| stretch(value, now)).collect()
}

fn stretch(value: &glib::Value, now: Now) -> Option<Evidence> {
    let stretch = value.get::<gst::Structure>().ok()?;
    let is_restored = stretch.get("restored").unwrap_or(false);
    let at = |wall: &str, running: &str| {
        let wall = stretch.get::<u64>(wall).ok().and_then(of_unix);
        // Running time of an earlier run says nothing about today.
        wall.or_else(|| {
            stretch.get::<u64>(running).ok().filter(|_| !is_restored).map(|at| moment(at, now))
        })
    };
    Some(Evidence {
        from: at("start-wall-clock", "start")?,
        to: at("end-wall-clock", "end")?,
        score: stretch
            .get::<f64>("score")
            .ok()
            .filter(|score| score.is_finite())
            .map(|score| score as f32),
        picture: None,
    })
}

fn of_unix(nanoseconds: u64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanoseconds.into()).ok()
}

/// The time of day of a running time.
fn moment(running: u64, (now, today): Now) -> Timestamp {
    let ago = i128::from(now.nseconds()) - i128::from(running);
    let ago = i64::try_from(ago).unwrap_or_default();
    today.checked_sub(SignedDuration::from_nanos(ago)).unwrap_or(today)
}
