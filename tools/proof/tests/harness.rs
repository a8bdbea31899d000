// SPDX-License-Identifier: MPL-2.0
//! Each pad of the element alone, in GstHarness: what goes in and comes out, without a pipeline around it.

#[path = "../../../tests/common/leaks.rs"]
mod leaks;

use std::sync::Once;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_check::Harness;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/ov-even");
const CAPS: &str = "video/x-raw,format=RGB,width=56,height=56,framerate=10/1";
const PATIENCE: Duration = Duration::from_secs(60);

fn element() -> gst::Element {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        // SAFETY: nothing else runs yet.
        unsafe { std::env::set_var(leaks::VARIABLE.0, leaks::VARIABLE.1) };
        gst::init().unwrap();
        leaks::watch();
        gststreamkvqa::plugin_register_static().unwrap();
    });
    let element = gst::ElementFactory::make("streamkvqa").property("model-path", MODEL);
    element.property("max-tokens", 3u32).build().unwrap()
}

/// The element between a source and a sink of the harness.
fn video(element: &gst::Element) -> Harness {
    let mut harness = Harness::with_element(element, Some("sink"), Some("src"));
    harness.set_src_caps(CAPS.parse().unwrap());
    harness
}

fn frame(number: u64) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(vec![number as u8; 56 * 56 * 3]);
    let own = buffer.get_mut().unwrap();
    own.set_pts(gst::ClockTime::from_mseconds(100 * number));
    own.set_duration(gst::ClockTime::from_mseconds(100));
    buffer
}

/// The events that have come to the harness's sink so far.
fn events(harness: &mut Harness) -> Vec<gst::Event> {
    std::iter::from_fn(|| harness.try_pull_event()).collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn buffers_pass_from_sink_to_src_as_they_are() {
    let element = element();
    let mut harness = video(&element);
    for number in 0..20 {
        let buffer = frame(number);
        let memory = buffer.peek_memory(0).as_ptr();
        assert_eq!(harness.push(buffer), Ok(gst::FlowSuccess::Ok));
        let passed = harness.pull().unwrap();
        assert_eq!(passed.peek_memory(0).as_ptr(), memory, "not copied");
        assert_eq!(passed.pts(), Some(gst::ClockTime::from_mseconds(100 * number)));
    }
    assert_eq!((harness.buffers_received(), harness.buffers_in_queue()), (20, 0));
}

#[test]
fn downstream_sees_the_events_of_upstream_in_their_order_and_each_once() {
    let element = element();
    let mut harness = video(&element);
    harness.push(frame(0)).unwrap();
    let tags = gst::TagList::new();
    assert!(harness.push_event(gst::event::Tag::new(tags)));
    assert!(harness.push_event(gst::event::Eos::new()));
    let types: Vec<_> = events(&mut harness).iter().map(|event| event.type_()).collect();
    let expected = [
        gst::EventType::StreamStart,
        gst::EventType::Caps,
        gst::EventType::Segment,
        gst::EventType::Tag,
        gst::EventType::Eos,
    ];
    assert_eq!(types, expected);
    // What comes behind the end is told so.
    assert_eq!(harness.push(frame(1)), Err(gst::FlowError::Eos));
}

#[test]
fn a_flush_opens_what_the_end_has_closed() {
    let element = element();
    let mut harness = video(&element);
    harness.push(frame(0)).unwrap();
    assert!(harness.push_event(gst::event::Eos::new()));
    assert!(harness.push_event(gst::event::FlushStart::new()));
    assert!(harness.push_event(gst::event::FlushStop::new(true)));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    assert!(harness.push_event(gst::event::Segment::new(&segment)));
    assert_eq!(harness.push(frame(5)), Ok(gst::FlowSuccess::Ok));
    assert_eq!(harness.buffers_received(), 2);
}

#[test]
fn the_sink_pad_takes_video_alone_and_asks_downstream_which() {
    let element = element();
    let mut harness = video(&element);
    harness.set_sink_caps("video/x-raw,format=RGB,width=[1,640],height=[1,640]".parse().unwrap());
    let sink = element.static_pad("sink").unwrap();
    assert!(sink.query_accept_caps(&CAPS.parse().unwrap()));
    assert!(!sink.query_accept_caps(&"audio/x-raw".parse().unwrap()));
    let caps = sink.query_caps(None);
    assert_eq!(caps.structure(0).unwrap().get::<&str>("format"), Ok("RGB"));
}

#[test]
fn the_src_pad_passes_upstream_events_and_the_latency() {
    let element = element();
    let mut harness = video(&element);
    harness.push(frame(0)).unwrap();
    let _ = std::iter::from_fn(|| harness.try_pull_upstream_event()).count();
    assert!(harness.push_upstream_event(gst::event::Seek::new(
        1.0,
        gst::SeekFlags::FLUSH,
        gst::SeekType::Set,
        gst::ClockTime::ZERO,
        gst::SeekType::None,
        gst::ClockTime::NONE,
    )));
    assert_eq!(harness.pull_upstream_event().unwrap().type_(), gst::EventType::Seek);
    harness.set_upstream_latency(gst::ClockTime::from_mseconds(40));
    assert_eq!(harness.query_latency(), Some(gst::ClockTime::from_mseconds(40)));
}

#[test]
fn a_question_as_an_event_is_answered_on_the_text_pad() {
    let element = element();
    let mut harness = video(&element);
    let mut text = Harness::with_element(&element, None, Some("text"));
    text.play();
    harness.push(frame(0)).unwrap();
    let ask = gst::Structure::builder("streamkvqa/ask").field("question", "what?").build();
    assert!(harness.push_upstream_event(gst::event::CustomUpstream::new(ask)));
    // Who asks is heard and not passed on.
    assert!(
        std::iter::from_fn(|| harness.try_pull_upstream_event())
            .all(|event| event.type_() != gst::EventType::CustomUpstream)
    );
    until("an answer", || element.property::<Option<String>>("last-answer").is_some());
    harness.push(frame(20)).unwrap();
    assert!(harness.push_event(gst::event::Eos::new()));
    until("the end of the text", || {
        text.sinkpad().unwrap().sticky_event::<gst::event::Eos>(0).is_some()
    });
    assert_eq!(text.buffers_received(), 1);
    let events = events(&mut text);
    let first: Vec<_> = events.iter().take(4).map(|event| event.type_()).collect();
    let expected = [
        gst::EventType::StreamStart,
        gst::EventType::Caps,
        gst::EventType::Segment,
        gst::EventType::Gap,
    ];
    assert_eq!(first, expected, "what a text sink needs to preroll");
    let gst::EventView::StreamStart(start) = events[0].view() else { panic!("{events:?}") };
    assert!(start.stream_flags().contains(gst::StreamFlags::SPARSE));
    let answer = text.pull().unwrap();
    assert!(answer.pts().is_some() && answer.duration() > Some(gst::ClockTime::ZERO));
    let answer = answer.into_mapped_buffer_readable().unwrap();
    assert!(std::str::from_utf8(&answer).is_ok());
}
