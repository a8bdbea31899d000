// SPDX-License-Identifier: MPL-2.0
//! Clocks that start again, wild stamps, sources that stall, segments that loop: questions and text
//! go on.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;

use crate::pipeline::*;

/// Twenty frames a second.
const STEP: u64 = 50;

/// A source whose stamps the test chooses.
const STAMPED: &str = "appsrc name=src format=time \
    caps=video/x-raw,format=RGB,width=16,height=16,framerate=20/1";

fn ns(ms: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(ms)
}

#[track_caller]
fn push(rig: &Rig, stamp: gst::ClockTime) {
    let mut buffer = gst::Buffer::from_slice(vec![100u8; 16 * 16 * 3]);
    {
        let buffer = buffer.get_mut().unwrap();
        buffer.set_pts(stamp);
        buffer.set_duration(ns(STEP));
    }
    let flow: gst::FlowReturn = rig.element("src").emit_by_name("push-buffer", &[&buffer]);
    assert_eq!(flow, gst::FlowReturn::Ok);
}

fn end(rig: &Rig) {
    let _: gst::FlowReturn = rig.element("src").emit_by_name("end-of-stream", &[]);
}

/// Stamps in ms, for a second of video from here.
fn a_second(from: u64) -> impl Iterator<Item = u64> {
    (from..from + 1000).step_by(STEP as usize)
}

/// Asks every 200 ms; a text of every answer reaches a synchronised sink.
fn standing(source: &str) -> Rig {
    Rig::new(&format!(
        "{source} ! QA question=still? question-interval=200000000 text-format=json \
         ! fakesink name=video qa.text ! fakesink name=text sync=true"
    ))
}

/// As many answers and texts as two seconds bring, give or take a jump's worth.
#[track_caller]
fn goes_on(rig: &Rig, what: &str) {
    let texts =
        watch(&rig.element("text").static_pad("sink").unwrap(), gst::PadProbeType::BUFFER, |_| {
            Some(())
        });
    let answers = rig.answers().len();
    assert!((9..=11).contains(&answers), "{what}: {answers} answers");
    let texts = texts.lock().unwrap().len();
    assert!(texts + 1 >= answers, "{what}: {texts} texts of {answers} answers");
}

/// Stamps, in ms, of two seconds of video in which they jump.
fn jumps() -> [(&'static str, Vec<u64>); 8] {
    let hour = 3_600_000;
    let year = 365 * 24 * hour;
    let first = || a_second(0);
    [
        ("starts again", first().chain(a_second(0)).collect()),
        ("starts again elsewhere", a_second(hour).chain(a_second(17)).collect()),
        ("an hour ahead, once", first().chain([hour]).chain(a_second(1050)).collect()),
        ("a year ahead, thrice", first().chain([year; 3]).chain(a_second(1150)).collect()),
        ("half a minute ahead, once", first().chain([31_000]).chain(a_second(1050)).collect()),
        ("back, once", first().chain([3]).chain(a_second(1050)).collect()),
        ("an hour ahead for good", first().chain(a_second(hour)).collect()),
        ("starts again twice", [0; 4].into_iter().flat_map(|_| (0..500).step_by(50)).collect()),
    ]
}

#[test]
fn standing_questions_and_text_survive_stamps_that_jump() {
    for (what, stamps) in jumps() {
        // Where the text has to wait for an hour, so has the video.
        let for_good = what.ends_with("for good");
        let rig = standing(STAMPED);
        rig.element("text").set_property("sync", !for_good && !what.contains("elsewhere"));
        rig.play();
        for stamp in stamps {
            push(&rig, ns(stamp));
        }
        end(&rig);
        goes_on(&rig, what);
    }
}

#[test]
fn overlays_and_muxers_take_the_text_of_stamps_that_jump() {
    for listener in [
        "textoverlay name=l ! fakesink qa.text ! l.text_sink",
        "queue ! matroskamux name=l ! fakesink qa.text ! queue ! l.",
    ] {
        for (what, stamps) in jumps() {
            let rig = Rig::new(&format!(
                "{STAMPED} ! QA question=still? question-interval=200000000 ! {listener}"
            ));
            let started = Instant::now();
            rig.play();
            stamps.iter().for_each(|&stamp| push(&rig, ns(stamp)));
            end(&rig);
            let answers = rig.answers().len();
            assert!((9..=11).contains(&answers), "{listener}, {what}: {answers} answers");
            assert!(started.elapsed() < PATIENCE / 4, "{listener}, {what}");
        }
    }
}

#[test]
fn standing_questions_survive_a_reconnection_with_a_new_stream() {
    for with_stream_start in [false, true] {
        let rig = standing(STAMPED);
        rig.play();
        let source = rig.element("src").static_pad("src").unwrap();
        let sent = std::sync::atomic::AtomicBool::new(false);
        // A camera's second connection: the stream begins anew, the pipeline does not.
        source.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let again = info.buffer().unwrap().offset() == 1;
            if again && !sent.swap(true, std::sync::atomic::Ordering::SeqCst) {
                if with_stream_start {
                    pad.push_event(gst::event::StreamStart::new("camera/again"));
                    pad.push_event(gst::event::Caps::new(&pad.current_caps().unwrap()));
                }
                let segment = gst::FormattedSegment::<gst::ClockTime>::new();
                pad.push_event(gst::event::Segment::new(&segment));
            }
            gst::PadProbeReturn::Ok
        });
        a_second(0).for_each(|stamp| push(&rig, ns(stamp)));
        for (index, stamp) in a_second(0).enumerate() {
            let mut buffer = gst::Buffer::from_slice(vec![100u8; 16 * 16 * 3]);
            let writable = buffer.get_mut().unwrap();
            writable.set_pts(ns(stamp));
            writable.set_offset(u64::from(index == 0));
            let _: gst::FlowReturn = rig.element("src").emit_by_name("push-buffer", &[&buffer]);
        }
        end(&rig);
        goes_on(&rig, "reconnection");
    }
}

#[test]
fn a_wild_stamp_makes_no_question_fall_due() {
    let file = temporary(
        "{\"question\": \"soon?\", \"at\": 1.5}\n{\"question\": \"much later?\", \"at\": 3000}\n",
    );
    let rig =
        Rig::new(&format!("{STAMPED} ! QA questions-file={} ! fakesink", file.path().display()));
    rig.play();
    for stamp in a_second(0).chain([3_600_000]).chain(a_second(1050)) {
        push(&rig, ns(stamp));
    }
    end(&rig);
    let asked: Vec<_> = rig.answers().iter().map(|answer| answer.ms("asked-at")).collect();
    assert_eq!(asked, [1500, 2000]);
}

#[test]
fn a_long_hole_is_no_wild_stamp() {
    let file = temporary("{\"question\": \"behind it?\", \"at\": 3000}\n");
    let rig =
        Rig::new(&format!("{STAMPED} ! QA questions-file={} ! fakesink", file.path().display()));
    rig.play();
    for stamp in a_second(0).chain(a_second(3_600_000)) {
        push(&rig, ns(stamp));
    }
    end(&rig);
    assert_eq!(rig.answers()[0].ms("asked-at"), 3_600_000 + STEP);
}

#[test]
fn negative_stamps_are_no_stamps() {
    let negative = |ms: u64| gst::ClockTime::from_nseconds(u64::MAX - ms * 1_000_000);
    for stamps in [
        vec![negative(40), ns(0), ns(50), ns(1000)],
        vec![ns(0), negative(1), ns(100), negative(1 << 40), ns(1000)],
        vec![negative(3), negative(2), negative(1)],
        vec![gst::ClockTime::from_nseconds(u64::MAX / 2), ns(0), ns(1000)],
    ] {
        let rig = Rig::new(&format!(
            "{STAMPED} ! QA question=what? ! fakesink qa.text ! fakesink name=text"
        ));
        rig.play();
        stamps.iter().for_each(|&stamp| push(&rig, stamp));
        end(&rig);
        let answer = rig.answers().remove(0);
        assert_eq!(answer.status(), "ok", "{stamps:?}: {answer:?}");
        assert!(answer.ms("asked-at") <= 1000, "{stamps:?}: {answer:?}");
    }
}

#[test]
fn a_broken_frame_makes_no_answer_fresh() {
    let rig = Rig::new(&format!("{STAMPED} ! QA ! fakesink"));
    rig.play();
    push(&rig, ns(0));
    rig.until("a frame", |stats| stats.get::<u64>("encoded").unwrap() == 1);
    std::thread::sleep(Duration::from_millis(300));
    let mut broken = gst::Buffer::from_slice(vec![7u8; 16 * 16 * 3]);
    broken.get_mut().unwrap().set_pts(ns(500));
    broken.get_mut().unwrap().set_flags(gst::BufferFlags::CORRUPTED);
    let _: gst::FlowReturn = rig.element("src").emit_by_name("push-buffer", &[&broken]);
    rig.until("the other", |stats| stats.get::<u64>("frames-in").unwrap() == 2);
    rig.ask("what?");
    let answer = rig.answer();
    assert!(answer.ms("frame-age") >= 300, "{answer:?}");
}

/// The next word on the video itself.
#[track_caller]
fn video(rig: &Rig, status: &str) -> gst::Structure {
    rig.wait(status, |message| {
        let structure = message.structure().filter(|s| s.name() == "streamkvqa/video")?;
        assert_eq!(structure.get::<&str>("status").unwrap(), status, "{structure}");
        Some(structure.to_owned())
    })
}

fn no_video_message(rig: &Rig) {
    while let Some(message) = rig.bus.pop() {
        let name = message.structure().map(|structure| structure.name().to_string());
        assert_ne!(name.as_deref(), Some("streamkvqa/video"), "{message:?}");
    }
}

const VALVE: &str = "videotestsrc is-live=true pattern=ball ! \
    video/x-raw,width=56,height=56,framerate=20/1 ! valve name=valve";

#[test]
fn a_live_source_that_stalls_is_asked_about_by_the_clock() {
    let rig = Rig::new(&format!(
        "{VALVE} ! QA question=still? question-interval=300000000 stall-timeout=500000000 \
         ! fakesink sync=false qa.text ! fakesink sync=false"
    ));
    rig.play();
    rig.answer();
    assert!(rig.answer().ms("frame-age") < 200);
    rig.element("valve").set_property("drop", true);
    let stopped = video(&rig, "stopped");
    let last = stopped.get::<u64>("last-frame").unwrap();
    assert!(stopped.get::<u64>("frame-age").unwrap() >= 500_000_000, "{stopped}");
    assert_eq!(stopped.get::<&str>("element").unwrap(), "qa");
    let json: serde_json::Value =
        serde_json::from_str(stopped.get::<&str>("json").unwrap()).unwrap();
    assert_eq!(json["status"], "stopped");
    // Those that were on their way are younger.
    let answers: Vec<_> = (0..6).map(|_| rig.answer()).collect();
    let ages: Vec<_> = answers.iter().map(|answer| answer.ms("frame-age")).collect();
    // One that is asked late does not make the next one late.
    assert!(ages.windows(2).all(|two| two[1] > two[0]), "{ages:?}");
    assert!(ages[5] >= ages[0] + 4 * 300, "{ages:?}");
    assert!(ages[5] >= 1500 && ages[5] < 10_000, "{ages:?}");
    assert!(answers[1..].iter().all(|answer| answer.ms("asked-at") == last / 1_000_000));
    rig.element("valve").set_property("drop", false);
    let resumed = video(&rig, "resumed");
    assert!(resumed.get::<u64>("frame-age").unwrap() > 1_500_000_000, "{resumed}");
    let fresh = rig.wait("a fresh answer", |message| {
        Answer::of(message).filter(|answer| answer.ms("frame-age") < 200)
    });
    assert!(fresh.ms("asked-at") > last / 1_000_000);
}

#[test]
fn a_question_for_later_is_asked_of_a_stalled_source() {
    let rig = Rig::new(&format!("{VALVE} ! QA ! fakesink sync=false"));
    rig.play();
    rig.until("a frame", |stats| stats.get::<u64>("encoded").unwrap() > 0);
    rig.element("valve").set_property("drop", true);
    video(&rig, "stopped");
    // The schedule of a stall that began long ago is looked at again.
    let ask = gst::Structure::builder("ask").field("question", "well?").field("at", 4.0f64);
    let id = rig.ask_full(ask.build());
    let answer = rig.answer();
    assert_eq!((answer.id(), answer.status()), (id, "ok".into()));
    assert!(answer.ms("frame-age") > 1000, "{answer:?}");
}

#[test]
fn a_camera_that_never_delivers_is_reported() {
    let rig = Rig::new(&format!(
        "{STAMPED} is-live=true ! QA stall-timeout=300000000 ! fakesink async=false"
    ));
    rig.play();
    let stopped = video(&rig, "stopped");
    assert!(!stopped.has_field("last-frame"), "{stopped}");
}

#[test]
fn nothing_stalls_that_is_paused_ended_or_no_camera() {
    let patience = Duration::from_millis(800);
    let rig = Rig::new(&format!("{VALVE} ! QA stall-timeout=200000000 ! fakesink sync=false"));
    rig.play();
    rig.until("a frame", |stats| stats.get::<u64>("encoded").unwrap() > 0);
    rig.pipeline.set_state(gst::State::Paused).unwrap();
    std::thread::sleep(patience);
    no_video_message(&rig);
    rig.play();
    // A source that is sent an event while its sink prerolls waits for a lock that the change of state
    // needs: GStreamer's own.
    rig.pipeline.state(gst::ClockTime::from_seconds(30)).0.unwrap();
    rig.pipeline.send_event(gst::event::Eos::new());
    rig.eos();
    std::thread::sleep(patience);
    no_video_message(&rig);

    let rig = Rig::new(&format!("{STAMPED} ! QA stall-timeout=200000000 ! fakesink"));
    rig.play();
    push(&rig, ns(0));
    std::thread::sleep(patience);
    no_video_message(&rig);
}

#[test]
fn a_live_video_that_the_element_holds_back_has_not_stopped() {
    let rig = Rig::new(&format!(
        "videotestsrc is-live=true {BALL} ! QA method=streamkv leaky=never max-queue=1 \
         sample-rate=10/1 stall-timeout=200000000 ! fakesink sync=false"
    ));
    rig.play();
    let long = rig.ask_long();
    rig.until("full queue", |stats| stats.get::<u64>("queue").unwrap() == 1);
    std::thread::sleep(Duration::from_millis(800));
    no_video_message(&rig);
    rig.qa().emit_by_name::<bool>("cancel", &[&long]);
}

#[test]
fn stopping_does_not_wait_for_the_watch() {
    let rig = Rig::new(&format!(
        "{VALVE} ! QA question=still? question-interval=3600000000000 ! fakesink sync=false"
    ));
    rig.play();
    rig.until("a frame", |stats| stats.get::<u64>("encoded").unwrap() > 0);
    rig.element("valve").set_property("drop", true);
    video(&rig, "stopped");
    let took = rig.stop();
    assert!(took < Duration::from_millis(500), "{took:?}");
    // And it watches again.
    rig.element("valve").set_property("drop", false);
    rig.play();
    rig.until("a frame", |stats| stats.get::<u64>("encoded").unwrap() > 0);
    rig.element("valve").set_property("drop", true);
    video(&rig, "stopped");
}

#[test]
fn a_live_clock_that_starts_again_is_asked_about_by_the_pipelines() {
    let rig = Rig::new(&format!(
        "{VALVE} ! QA question=still? question-interval=300000000 ! fakesink sync=false \
         qa.text ! fakesink name=text sync=false"
    ));
    let shift = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let by = shift.clone();
    rig.qa().static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let by = gst::ClockTime::from_nseconds(by.load(std::sync::atomic::Ordering::SeqCst));
            let pts = buffer.pts().unwrap();
            buffer.make_mut().set_pts(if by > pts { by } else { pts.saturating_sub(by) });
        }
        gst::PadProbeReturn::Ok
    });
    rig.play();
    (0..3).for_each(|_| drop(rig.answer()));
    // Back by a second, an hour ahead and standing still there, and right again.
    for ns in [1_000_000_000, 3_600_000_000_000, 0] {
        shift.store(ns, std::sync::atomic::Ordering::SeqCst);
        let started = Instant::now();
        (0..6).for_each(|_| drop(rig.answer()));
        let took = started.elapsed();
        assert!(took < Duration::from_secs(8), "{ns}: {took:?} for six answers");
    }
}

#[test]
fn a_segment_that_is_done_asks_what_waits_for_the_end() {
    let file = temporary("{\"question\": \"end?\"}\n{\"question\": \"beyond?\", \"at\": 3600}\n");
    let rig = Rig::new(&format!(
        "videotestsrc {BALL} ! QA questions-file={} text-template=<{{question}}> ! fakesink \
         qa.text ! fakesink name=text",
        file.path().display()
    ));
    let pad = rig.qa().static_pad("text").unwrap();
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    let notes = watch(&pad, mask, |info| match &info.data {
        Some(gst::PadProbeData::Buffer(_)) => Some("text".to_owned()),
        Some(gst::PadProbeData::Event(event)) => Some(event.type_().name().to_string()),
        _ => None,
    });
    rig.pause();
    notes.lock().unwrap().clear();
    let seek = |flags, start| {
        let kind = gst::SeekType::Set;
        let flags = flags | gst::SeekFlags::SEGMENT;
        rig.pipeline.seek(1.0, flags, kind, ns(start), kind, ns(start + 1000)).unwrap();
    };
    seek(gst::SeekFlags::FLUSH, 0);
    rig.play();
    let mut asked = Vec::new();
    // The source's message comes before its event has gone through the pipeline.
    rig.wait("both answers", |message| {
        asked.extend(Answer::of(message).map(|answer| (answer.question(), answer.ms("asked-at"))));
        (asked.len() == 2).then_some(())
    });
    assert_eq!(asked, [("beyond?".to_owned(), 900), ("end?".to_owned(), 900)]);
    let is_done = |note: &String| note == "segment-done";
    rig.until("the text's end", |_| notes.lock().unwrap().iter().any(is_done));
    let noted = notes.lock().unwrap().clone();
    let texts = noted.iter().take_while(|note| !is_done(note)).filter(|note| *note == "text");
    assert_eq!(texts.count(), 2, "{noted:?}");
    // It plays on, and so does the text.
    rig.ask("and now?");
    seek(gst::SeekFlags::empty(), 5000);
    let count = |of: &str| notes.lock().unwrap().iter().filter(|note| *note == of).count();
    rig.until("another segment", |_| count("segment-done") == 2 && count("text") == 3);
}

#[test]
fn qos_reaches_the_decoder_only_where_frames_may_be_lost() {
    for (source, properties, passes) in [
        ("num-buffers=20", "", false),
        ("num-buffers=20", "leaky=always", true),
        ("is-live=true", "", true),
        ("is-live=true", "leaky=never", false),
    ] {
        let rig = Rig::new(&format!(
            "videotestsrc name=source {source} {BALL} ! QA {properties} ! fakesink name=sink"
        ));
        let seen = watch(
            &rig.element("source").static_pad("src").unwrap(),
            gst::PadProbeType::EVENT_UPSTREAM,
            |info| match &info.data {
                Some(gst::PadProbeData::Event(event)) => Some(event.type_()),
                _ => None,
            },
        );
        rig.play();
        rig.until("a frame", |stats| stats.get::<u64>("frames-in").unwrap() > 0);
        let late = gst::event::Qos::new(gst::QOSType::Underflow, 2.0, 900_000_000, ns(100));
        rig.element("sink").static_pad("sink").unwrap().push_event(late);
        let passed = seen.lock().unwrap().contains(&gst::EventType::Qos);
        assert_eq!(passed, passes, "{source} {properties}");
    }
}

#[test]
fn a_file_that_a_sink_calls_late_loses_no_sample() {
    // The model is slower than the video, the sink says so, and the decoder would skip.
    let rig = Rig::new(&format!(
        "filesrc location={} ! matroskademux ! vp8dec ! videorate ! video/x-raw,framerate=10/1 ! \
         identity eos-after=60 ! QA method=streamkv max-queue=1 sample-rate=10/1 \
         ! identity sleep-time=60000 ! fakesink sync=true qos=true max-lateness=1",
        path("examples/media/toyworld.webm")
    ));
    let skipped = watch(
        &rig.qa().static_pad("sink").unwrap().peer().unwrap(),
        gst::PadProbeType::EVENT_UPSTREAM,
        |info| match &info.data {
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Qos => {
                Some(())
            }
            _ => None,
        },
    );
    rig.play().eos();
    assert!(skipped.lock().unwrap().is_empty());
    assert!(rig.stat("sampled") >= 59, "{}", rig.stats());
}
