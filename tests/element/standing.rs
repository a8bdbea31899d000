// SPDX-License-Identifier: MPL-2.0
//! Questions that stand: on which occasions they are asked, and what of their answers is news.

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

use crate::pipeline::*;

const SECOND: u64 = 1_000_000_000;
const SHAPES: [&str; 6] = ["circle", "square", "triangle", "cross", "ring", "diamond"];

/// The clip of the toy world with its model.
fn clip() -> Rig {
    let (clip, model) = (path("examples/media/toyworld.webm"), path("models/toyworld"));
    Rig::raw(&format!(
        "filesrc location={clip} ! matroskademux ! vp8dec ! \
         streamkvqa name=qa model-path={model} method=rekv ! fakesink sync=false"
    ))
}

fn ask(text: &str) -> gst::structure::Builder {
    gst::Structure::builder("ask").field("question", text)
}

/// A frame of packed RGB.
fn push(src: &gst::Element, rgb: Vec<u8>, ms: u64) {
    let mut buffer = gst::Buffer::from_mut_slice(rgb);
    buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(ms));
    let _ = src.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]);
}

/// Answers and alerts up to the end of the stream, in the order in which they come.
fn answers_and_alerts(rig: &Rig) -> (Vec<Answer>, Vec<gst::Structure>) {
    let (mut answers, mut alerts) = (Vec::new(), Vec::new());
    rig.wait("end of stream", |message| {
        answers.extend(Answer::of(message));
        let alert = message.structure().filter(|s| s.name() == "streamkvqa/alert");
        alerts.extend(alert.map(ToOwned::to_owned));
        matches!(message.view(), gst::MessageView::Eos(_)).then_some(())
    });
    answers.retain(|answer| !answer.0.get::<bool>("last").unwrap());
    assert!(answers.iter().all(|answer| answer.status() == "ok"), "{answers:?}");
    (answers, alerts)
}

#[test]
fn an_alert_says_when_something_becomes_true_and_when_it_ceases() {
    let rig = clip();
    let question = ask("what shape is it now?")
        .field("choices", gst::List::new(SHAPES))
        .field("when", "Cross")
        .field("tag", "cross")
        .field("interval", 1.0f64);
    let id = rig.ask_full(question.build());
    assert!(id > 0);
    let signalled = Arc::new(Mutex::new(0));
    let counted = signalled.clone();
    rig.qa().connect("alert", false, move |values| {
        let alert: gst::Structure = values[1].get().unwrap();
        assert_eq!(alert.name(), "streamkvqa/alert");
        *counted.lock().unwrap() += 1;
        None
    });
    let (answers, alerts) = answers_and_alerts(rig.play());
    assert!(answers.len() > 50, "{}", answers.len());
    for answer in &answers {
        let (text, choices) =
            (answer.text("answer"), answer.0.get::<gst::List>("choices").unwrap());
        let choices = choices.iter().map(|choice| choice.get::<gst::Structure>().unwrap());
        let choices: Vec<(String, f64)> =
            choices.map(|c| (c.get("answer").unwrap(), c.get("probability").unwrap())).collect();
        assert_eq!(choices.len(), SHAPES.len());
        assert!((choices.iter().map(|choice| choice.1).sum::<f64>() - 1.0).abs() < 1e-9);
        let best = choices.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        assert_eq!((&text, answer.0.get("probability").unwrap()), (&best.0, best.1));
        assert!(answer.0.get::<f64>("confidence").unwrap() <= 0.0);
    }
    // What the answers alone say.
    let mut expected = Vec::new();
    let mut crossed = false;
    for answer in &answers {
        let now = answer.text("answer") == "cross";
        if now != crossed {
            expected.push((if now { "began" } else { "ceased" }, answer.ms("asked-at")));
        }
        crossed = now;
    }
    assert!(expected.len() >= 3, "the clip shows a cross more than once: {expected:?}");
    let found: Vec<(String, u64)> = alerts
        .iter()
        .map(|alert| (alert.get("status").unwrap(), alert.get::<u64>("since").unwrap() / 1_000_000))
        .collect();
    let found: Vec<_> = found.iter().map(|(status, since)| (status.as_str(), *since)).collect();
    assert_eq!(found, expected);
    assert_eq!(*signalled.lock().unwrap(), alerts.len());
    for alert in &alerts {
        assert_eq!(alert.get::<u64>("id").unwrap(), id);
        assert_eq!(alert.get::<&str>("tag").unwrap(), "cross");
        assert!(!alert.get::<gst::List>("evidence").unwrap().is_empty());
        assert!(alert.get::<u64>("answered-at").unwrap() >= alert.get::<u64>("since").unwrap());
        let json: serde_json::Value =
            serde_json::from_str(alert.get::<&str>("json").unwrap()).unwrap();
        assert_eq!(json["status"], alert.get::<&str>("status").unwrap());
        assert_eq!(json["lasted"].is_null(), json["status"] == "began");
        // It holds what the structure holds.
        let names = alert.iter().map(|(name, _)| name.to_string()).filter(|name| name != "json");
        names.for_each(|name| assert!(!json[&name].is_null(), "{name} in {json}"));
    }
}

#[test]
fn a_question_is_asked_when_the_picture_changes_as_of_that_frame() {
    let options = toyworld::StreamOptions { frames: 40, ..Default::default() };
    let video = toyworld::Stream::generate(toyworld::seeds::VALIDATION.start + 3, &options);
    let rig = Rig::raw(&format!(
        "appsrc name=src format=time caps=video/x-raw,format=RGB,width=160,height=120,framerate=1/1 ! \
         streamkvqa name=qa model-path={} ! fakesink sync=false \
         qa.text ! fakesink name=text sync=false",
        path("models/toyworld")
    ));
    rig.ask_full(ask("what color is it now?").field("on", "change").build());
    let text = rig.element("text").static_pad("sink").unwrap();
    let texts = watch(&text, gst::PadProbeType::BUFFER, |_| Some(()));
    rig.play();
    let src = rig.element("src");
    for index in 0..video.frames() {
        push(&src, video.frame(index, 160, 120), 1000 * index as u64);
    }
    let _ = src.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
    let (answers, _) = answers_and_alerts(&rig);
    let times: Vec<u64> = answers.iter().map(|answer| answer.ms("asked-at")).collect();
    let cuts: Vec<u64> = video.shots.iter().map(|shot| 1000 * shot.start as u64).collect();
    assert!(cuts.len() > 5);
    assert_eq!(times, cuts);
    assert_eq!(rig.stat("picture-changes"), cuts.len() as u64);
    assert_eq!(texts.lock().unwrap().len(), cuts.len());
    for answer in &answers {
        // Nothing behind the frame that it was asked about.
        let evidence = answer.0.get::<gst::List>("evidence").unwrap();
        let ends = evidence.iter().map(|e| e.get::<gst::Structure>().unwrap());
        let last = ends.map(|e| e.get::<u64>("end").unwrap()).max().unwrap();
        assert!(last <= (answer.ms("asked-at") + 1000) * 1_000_000, "{last}");
    }
}

#[test]
fn a_question_is_asked_when_something_is_detected_and_its_frame_is_seen() {
    let rig = Rig::new(&format!("videotestsrc num-buffers=50 {BALL} ! QA ! fakesink"));
    rig.qa().set_property("trigger-classes", "person, dog");
    let sink = rig.qa().static_pad("sink").unwrap();
    sink.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let class = match buffer.pts().unwrap().mseconds() {
                1300..1800 => "person",
                2700 => "dog",
                3600.. => "cat",
                _ => return gst::PadProbeReturn::Ok,
            };
            let buffer = buffer.make_mut();
            gst_video::VideoRegionOfInterestMeta::add(buffer, class, (0, 0, 9, 9));
        }
        gst::PadProbeReturn::Ok
    });
    let id = rig.ask_full(ask("who?").field("on", "detection").build());
    let (answers, _) = answers_and_alerts(rig.play());
    let times: Vec<u64> = answers.iter().map(|answer| answer.ms("asked-at")).collect();
    assert_eq!(times, [1300, 2700]);
    assert!(answers.iter().all(|answer| answer.id() == id));
    // Five on the grid, and the two off it.
    assert_eq!(rig.stat("sampled"), 7);
}

#[test]
fn an_event_calls_like_a_detection() {
    let rig = Rig::new(
        "appsrc name=src format=time caps=video/x-raw,format=RGB,width=56,height=56,\
                        framerate=10/1 ! QA ! fakesink sync=false",
    );
    rig.ask_full(ask("who?").field("on", "detection").build());
    rig.play();
    let src = rig.element("src");
    let push = |ms| push(&src, vec![100; 56 * 56 * 3], ms);
    push(0);
    push(100);
    rig.until("two frames", |stats| stats.get::<u64>("frames-in").unwrap() == 2);
    let other = gst::Structure::builder("streamkvqa/trigger").field("element", "other").build();
    rig.pipeline.send_event(gst::event::CustomUpstream::new(other));
    let event = gst::Structure::new_empty("streamkvqa/trigger");
    rig.pipeline.send_event(gst::event::CustomUpstream::new(event));
    push(200);
    push(300);
    let _ = src.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
    let (answers, _) = answers_and_alerts(&rig);
    let times: Vec<u64> = answers.iter().map(|answer| answer.ms("asked-at")).collect();
    assert_eq!(times, [200]);
    // The first, and the one that was called for.
    assert_eq!(rig.stat("sampled"), 2);
}

#[test]
fn what_stands_is_listed_until_it_is_taken_back() {
    let rig = clip();
    let question = ask("did you see a white cross?").field("when", "yes").field("tag", "cross");
    let id = rig.ask_full(question.field("interval", 1.0f64).build());
    rig.ask_full(ask("what now?").field("at", 5.0f64).build());
    let listed = |stats: &gst::Structure| {
        let standing = stats.get::<gst::List>("standing").unwrap();
        standing.iter().map(|s| s.get::<gst::Structure>().unwrap()).collect::<Vec<_>>()
    };
    rig.play();
    rig.until("it holds", |stats| {
        listed(stats).first().is_some_and(|standing| standing.get::<bool>("holds").unwrap())
    });
    let standing = listed(&rig.stats());
    assert_eq!(standing.len(), 1);
    assert_eq!(standing[0].get::<u64>("id").unwrap(), id);
    assert_eq!(standing[0].get::<&str>("tag").unwrap(), "cross");
    assert_eq!(standing[0].get::<&str>("answer").unwrap(), "yes");
    assert!(standing[0].get::<u64>("since").unwrap() >= SECOND);
    assert!(rig.qa().emit_by_name::<bool>("cancel", &[&id]));
    assert!(listed(&rig.stats()).is_empty());
}

#[test]
fn statistics_are_posted_again_and_again() {
    let rig = Rig::new(&format!(
        "videotestsrc is-live=true num-buffers=30 {BALL} ! \
         QA stats-interval=300000000 question=what? question-interval=500000000 ! fakesink sync=false"
    ));
    rig.play();
    let mut posted = Vec::new();
    rig.wait("end of stream", |message| {
        let stats = message.structure().filter(|s| s.name() == "streamkvqa/stats");
        posted.extend(stats.map(ToOwned::to_owned));
        matches!(message.view(), gst::MessageView::Eos(_)).then_some(())
    });
    assert!(posted.len() >= 5, "{}", posted.len());
    let last = posted.last().unwrap();
    let number = |field: &str| last.get::<f64>(field).unwrap();
    assert!(last.get::<u64>("answers").unwrap() > 0);
    assert!(number("answer-ms-p95") >= number("answer-ms-p50"));
    assert!(number("answer-ms-p50") >= number("first-token-ms-p50"));
    assert!(number("first-token-ms-p50") > 0.0 && number("tokens-per-second") > 0.0);
    // A sample a second: what is remembered is hardly older.
    assert!((0.0..2000.0).contains(&number("lag-ms")), "{}", number("lag-ms"));
}

#[test]
fn what_is_due_again_before_it_was_answered_is_asked_once() {
    // A thousand times a second, which is more often than anything can be answered.
    let rig = Rig::new(
        "videotestsrc is-live=true num-buffers=2000 pattern=ball ! \
         video/x-raw,width=56,height=56,framerate=1000/1 ! \
         QA max-pending=2 question=what? question-interval=1000000 ! fakesink",
    );
    let answers = rig.play().answers();
    assert!(answers.len() > 10, "{}", answers.len());
    let other = answers.iter().find(|answer| !["ok", "cancelled"].contains(&&*answer.status()));
    assert!(other.is_none(), "{other:?}");
    assert!(rig.stat("frames-in") == 2000 && (answers.len() as u64) < 1900);
}
