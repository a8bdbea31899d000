// SPDX-License-Identifier: MPL-2.0
//! Starting, seeking, stopping and ending, above all while the model is busy.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;

use crate::pipeline::*;

/// One layer of the test's model takes far less, the machine's other work included.
const AT_ONCE: Duration = Duration::from_millis(500);

#[test]
fn the_end_waits_for_answers() {
    let rig = Rig::new(&format!("videotestsrc num-buffers=20 {BALL} ! QA ! fakesink"));
    let ask = gst::Structure::builder("ask").field("question", "what?").field("at", 1.9f64);
    let id = rig.ask_full(ask.field("max-tokens", 40u32).build());
    let answers = rig.play().answers();
    assert_eq!((answers.len(), answers[0].id(), answers[0].status()), (1, id, "ok".into()));
}

#[test]
fn the_end_waits_no_longer_than_eos_timeout() {
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers=20 {BALL} ! QA method=streamkv eos-timeout=300000000 ! fakesink sync=true"
    ));
    rig.pause();
    let id = rig.ask_long();
    let started = Instant::now();
    let answers = rig.play().answers();
    assert!(started.elapsed() < PATIENCE / 2);
    assert_eq!((answers[0].id(), answers[0].status()), (id, "cancelled".into()));
}

#[test]
fn after_the_end_one_can_still_ask() {
    let rig =
        Rig::new(&format!("videotestsrc num-buffers=20 {BALL} ! QA ! fakesink qa.text ! fakesink"));
    rig.play().eos();
    let id = rig.ask("what was it?");
    let answer = rig.answer();
    assert_eq!((answer.id(), answer.status(), answer.ms("asked-at")), (id, "ok".into(), 1900));
}

#[test]
fn an_empty_stream_ends() {
    let rig =
        Rig::new("videotestsrc num-buffers=0 ! QA question=what? ! fakesink qa.text ! fakesink");
    let answers = rig.play().answers();
    assert_eq!(answers[0].status(), "error");
}

#[test]
fn stopping_does_not_wait_for_the_model() {
    let rig = Rig::new(&format!(
        "videotestsrc {BALL} ! QA method=streamkv ! fakesink sync=true qa.text ! fakesink"
    ));
    rig.pause();
    rig.ask_long();
    let took = rig.stop();
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn stopping_does_not_wait_for_a_video_that_is_held_back() {
    let rig = Rig::new(&format!(
        "videotestsrc {BALL} ! QA method=streamkv max-queue=1 sample-rate=10/1 ! fakesink sync=false"
    ));
    rig.pause();
    rig.ask_long();
    rig.play();
    rig.until("full queue", |stats| stats.get::<u64>("queue").unwrap() == 1);
    let took = rig.stop();
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn stopping_and_starting_again_works_from_every_state() {
    let rig =
        Rig::new(&format!("videotestsrc num-buffers=20 {BALL} ! QA ! fakesink qa.text ! fakesink"));
    for state in [gst::State::Null, gst::State::Ready, gst::State::Null] {
        rig.play();
        rig.ask("what?");
        assert_eq!(rig.answers().len(), 1);
        rig.pipeline.set_state(state).unwrap();
        rig.bus.set_flushing(true);
        rig.bus.set_flushing(false);
    }
    // And without waiting for anything.
    for _ in 0..10 {
        rig.play();
        rig.stop();
    }
}

#[test]
fn a_handler_may_stop_the_pipeline() {
    let rig =
        Rig::new(&format!("videotestsrc {BALL} ! QA ! fakesink sync=true qa.text ! fakesink"));
    let (sender, stopped) = mpsc::channel();
    let pipeline = rig.pipeline.downgrade();
    rig.qa().connect("answer", false, move |_| {
        let pipeline = pipeline.upgrade()?;
        sender.send(pipeline.set_state(gst::State::Null)).unwrap();
        None
    });
    rig.pause();
    rig.ask("what?");
    assert!(stopped.recv_timeout(PATIENCE).unwrap().is_ok());
    let (_, state, _) = rig.pipeline.state(gst::ClockTime::ZERO);
    assert_eq!(state, gst::State::Null);
}

#[test]
fn a_token_handler_may_ask_cancel_and_stop() {
    let rig = Rig::new(&format!("videotestsrc {BALL} ! QA ! fakesink sync=true"));
    let (sender, stopped) = mpsc::channel();
    let pipeline = rig.pipeline.downgrade();
    rig.qa().connect("token", false, move |args| {
        let qa: gst::Element = args[0].get().unwrap();
        let id: u64 = qa.emit_by_name("ask", &[&"and?"]);
        let _: bool = qa.emit_by_name("cancel", &[&id]);
        let _: gst::Structure = qa.property("stats");
        let _ = sender.send(pipeline.upgrade()?.set_state(gst::State::Null));
        None
    });
    rig.pause();
    rig.ask("what?");
    assert!(stopped.recv_timeout(PATIENCE).unwrap().is_ok());
}

#[test]
fn seeking_does_not_wait_for_the_model() {
    let rig = Rig::new(&format!(
        "videotestsrc {BALL} ! QA method=streamkv ! fakesink sync=true qa.text ! fakesink"
    ));
    rig.pause();
    let long = rig.ask_long();
    let started = Instant::now();
    rig.pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::from_seconds(5)).unwrap();
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    let cancelled = rig.answer();
    assert_eq!((cancelled.id(), cancelled.status()), (long, "cancelled".into()));
    let next = rig.ask("and now?");
    let answer = rig.answer();
    assert_eq!((answer.id(), answer.status()), (next, "ok".into()));
}

#[test]
fn seeking_frees_a_video_that_is_held_back() {
    let rig = Rig::new(&format!(
        "videotestsrc {BALL} ! QA method=streamkv max-queue=1 sample-rate=10/1 ! fakesink sync=false"
    ));
    rig.pause();
    rig.ask_long();
    rig.play();
    rig.until("full queue", |stats| stats.get::<u64>("queue").unwrap() == 1);
    let encoded = rig.stat("encoded");
    let started = Instant::now();
    rig.pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::from_seconds(5)).unwrap();
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    rig.until("new frames", |stats| stats.get::<u64>("encoded").unwrap() > encoded + 5);
}

#[test]
fn a_hail_of_seeks_leaves_everything_working() {
    let rig = Rig::new(&format!(
        "videotestsrc {BALL} ! QA sample-rate=10/1 question=still? question-interval=200000000 \
         ! fakesink sync=true qa.text ! fakesink"
    ));
    rig.pause();
    rig.play();
    for second in 0..40 {
        let at = gst::ClockTime::from_seconds(second * 7 % 11);
        rig.pipeline.seek_simple(gst::SeekFlags::FLUSH, at).unwrap();
    }
    rig.until("pending answers", |_| rig.qa().property::<u32>("pending") == 0);
    let id = rig.ask("are you there?");
    rig.wait("the last answer", |message| {
        Answer::of(message).filter(|answer| answer.id() == id && answer.status() == "ok")
    });
}

#[test]
fn two_elements_share_one_model() {
    let element = |name: &str| format!("streamkvqa name={name} model-path={}", model());
    let rig = Rig::raw(&format!(
        "videotestsrc num-buffers=20 {BALL} ! {} ! fakesink \
         videotestsrc num-buffers=20 {BALL} ! {} ! fakesink",
        element("qa"),
        element("other")
    ));
    // Another spelling of the same folder.
    rig.element("other").set_property("model-path", path("tests/../tests/fixtures/./ov-even"));
    for name in ["qa", "other"] {
        let _: u64 = rig.element(name).emit_by_name("ask", &[&"what?"]);
    }
    assert_eq!(rig.play().answers().len(), 2);
    // Tests beside this one may hold the same model.
    assert!(rig.stat("model-users") >= 2);
}

#[test]
fn an_installed_model_is_found_by_its_name_and_shared_with_who_names_the_folder() {
    let rig = Rig::raw(&format!(
        "videotestsrc num-buffers=10 {BALL} ! streamkvqa name=qa max-tokens=3 model-path=everyday ! fakesink \
         videotestsrc num-buffers=10 {BALL} ! streamkvqa name=other model-path={} ! fakesink",
        path("models/everyday")
    ));
    rig.pause();
    // Whoever has loaded it lets go of it a moment later.
    rig.until("one model", |stats| stats.get::<u64>("model-users") == Ok(2));
    rig.ask("what is it?");
    assert_eq!(rig.play().answers()[0].status(), "ok");
}

#[test]
fn sixteen_live_elements_in_one_process() {
    let rigs: Vec<_> = (0..16)
        .map(|_| {
            Rig::new(&format!(
                "videotestsrc is-live=true num-buffers=20 {BALL} ! QA question=what? \
                 ! fakesink qa.text ! fakesink sync=false"
            ))
        })
        .collect();
    rigs.iter().for_each(|rig| {
        rig.play();
    });
    for rig in &rigs {
        let answers = rig.answers();
        assert_eq!((answers.len(), answers[0].status()), (1, "ok".into()));
        assert_eq!(rig.stat("frames-in"), 20);
    }
    let started = Instant::now();
    rigs.iter().for_each(|rig| {
        rig.stop();
    });
    assert!(started.elapsed() < 4 * AT_ONCE);
}

#[test]
fn the_latency_query_passes_and_says_whether_it_is_live() {
    for (source, live) in [("is-live=true", true), ("num-buffers=20", false)] {
        let rig = Rig::new(&format!("videotestsrc {source} {BALL} ! QA ! fakesink"));
        rig.play();
        rig.until("a frame", |stats| stats.get::<u64>("frames-in").unwrap() > 0);
        assert_eq!(rig.stats().get::<bool>("live").unwrap(), live);
    }
}
