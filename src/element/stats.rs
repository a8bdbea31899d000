// SPDX-License-Identifier: MPL-2.0
//! The property `stats`.

use std::sync::Arc;
use std::time::Duration;

use glib::value::ToSendValue;
use gstreamer as gst;

use super::question::Question;
use super::worker::{State, Stats};
use crate::stream::Age;

/// What a question that stands has come to.
fn standing(question: &Question, state: Option<&State>) -> glib::SendValue {
    let (answer, at) = state.and_then(|state| state.answer.clone()).unzip();
    let began = state.and_then(State::began);
    let structure = gst::Structure::builder("standing")
        .field("id", question.id)
        .field("question", &question.text)
        .field("tag", question.tag.as_deref().unwrap_or_default())
        .field("answer", answer.unwrap_or_default())
        .field_if_some("asked-at", at.flatten().map(gst::ClockTime::nseconds))
        .field_if_some("when", question.alert.as_ref().map(|rule| rule.when.as_str()))
        .field("holds", began.is_some())
        .field_if_some("since", began.map(gst::ClockTime::nseconds));
    structure.build().to_send_value()
}

/// What is remembered of a stretch of the past.
fn age(age: &Age) -> glib::SendValue {
    gst::Structure::builder("age")
        .field("oldest", (age.oldest.max(0.0) * 1e9) as u64)
        .field("units", age.units)
        .field("bytes", age.bytes)
        .build()
        .to_send_value()
}

/// `asked`: the questions that stand, each with what its answers have said.
pub(super) fn structure(
    stats: &Stats,
    asked: &[(Option<State>, Arc<Question>)],
    live: bool,
) -> gst::Structure {
    let asked = asked.iter().map(|(state, question)| standing(question, state.as_ref()));
    let Stats { counters, memory, ages, queue, recent, lag, model_users, weights } = stats;
    let mean = |total: Duration, count: u64| {
        if count == 0 { 0.0 } else { total.as_secs_f64() * 1e3 / count as f64 }
    };
    gst::Structure::builder("streamkvqa/stats")
        .field("frames-in", counters.frames_in)
        .field("sampled", counters.sampled)
        .field("dropped", counters.dropped)
        .field("broken", counters.broken)
        .field("unreadable", counters.unreadable)
        .field("encoded", counters.encoded)
        .field("skipped", memory.skipped)
        .field("reused-patches", memory.reused)
        .field("questions", counters.questions)
        .field("answers", counters.answers)
        .field("standing", gst::List::new(asked))
        .field("picture-changes", memory.changes)
        .field("queue", *queue as u64)
        .field("memory-bytes", memory.bytes)
        .field("memory-limit", memory.store.limit)
        .field("device-bytes", memory.store.device)
        .field("host-bytes", memory.store.host)
        .field("disk-bytes", memory.store.disk)
        .field("blocks", memory.store.blocks)
        .field("hits", memory.store.hits)
        .field("loads", memory.store.loads)
        .field("lost-blocks", memory.store.lost)
        .field("saves", counters.saves)
        .field("save-bytes", counters.save_bytes)
        .field("save-ms", counters.save_took.as_secs_f64() * 1e3)
        .field("save-pause-ms", counters.save_pause.as_secs_f64() * 1e3)
        .field("units", memory.units)
        .field("ages", gst::List::new(ages.iter().map(age)))
        .field("open-frames", memory.open_frames)
        .field("segments", memory.segments)
        .field("take-ms-per-frame", mean(counters.taking, counters.sampled))
        .field("encode-ms-per-frame", mean(counters.encoding, counters.encoded))
        .field("answer-ms", mean(counters.answering, counters.answers))
        .field("answer-ms-p50", recent.within(0.5, |pace| pace.answer))
        .field("answer-ms-p95", recent.within(0.95, |pace| pace.answer))
        .field("first-token-ms-p50", recent.within(0.5, |pace| pace.first_token))
        .field("first-token-ms-p95", recent.within(0.95, |pace| pace.first_token))
        .field("tokens-per-second", recent.tokens_per_second())
        .field("lag-ms", 1e3 * lag)
        .field("live", live)
        .field("weights", weights)
        .field("model-loaded", model_users.is_some())
        .field("model-users", model_users.unwrap_or(0) as u64)
        .build()
}
