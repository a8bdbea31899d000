// SPDX-License-Identifier: MPL-2.0
//! The text pad and those that listen to it.

use gst::prelude::*;
use gstreamer as gst;

use crate::pipeline::*;

/// Questions at 1 and 2.5 seconds and at the end.
fn questions() -> tempfile::NamedTempFile {
    temporary(
        "{\"question\": \"one?\", \"at\": 1}\n\
         {\"question\": \"two?\", \"at\": 2.5, \"tag\": \"t\"}\n\
         {\"question\": \"end?\"}\n",
    )
}

fn file_rig(source: &str, rest: &str) -> (Rig, tempfile::NamedTempFile) {
    let file = questions();
    let rig = Rig::new(&format!(
        "videotestsrc {source} num-buffers=40 {BALL} ! QA questions-file={} {rest}",
        file.path().display()
    ));
    (rig, file)
}

/// What a file sink behind the text pad has written.
fn written(encoder: &str) -> String {
    let output = tempfile::NamedTempFile::new().unwrap();
    let (rig, _file) = file_rig(
        "",
        &format!(
            "text-template=<{{question}}> ! fakesink qa.text ! {encoder} filesink location={}",
            output.path().display()
        ),
    );
    assert_eq!(rig.play().answers().len(), 3);
    rig.stop();
    std::fs::read_to_string(output.path()).unwrap()
}

#[test]
fn subtitles_carry_the_times_of_their_questions() {
    let srt = written("srtenc !");
    let lines: Vec<_> = srt.lines().collect();
    assert_eq!(lines[1], "00:00:01,000 --> 00:00:06,000", "{srt}");
    assert_eq!(lines[2], "<one?>", "{srt}");
    assert_eq!(lines[5], "00:00:02,500 --> 00:00:07,500", "{srt}");
    assert_eq!(lines[6], "<two?>", "{srt}");
    assert_eq!(lines[10], "<end?>", "{srt}");
}

#[test]
fn text_and_video_share_the_number_of_a_seek() {
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers=100 {BALL} ! QA ! fakesink name=video qa.text ! fakesink name=text"
    ));
    let note = |sink: &str| {
        let pad = rig.element(sink).static_pad("sink").unwrap();
        watch(&pad, gst::PadProbeType::EVENT_DOWNSTREAM, |info| {
            let event = info.event()?;
            let wanted = [gst::EventType::Segment, gst::EventType::Eos].contains(&event.type_());
            wanted.then(|| (event.type_(), event.seqnum()))
        })
    };
    let (video, text) = (note("video"), note("text"));
    rig.pause();
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
    let (from, to) = (gst::ClockTime::from_seconds(2), gst::ClockTime::from_seconds(4));
    let (set, seqnum) = (gst::SeekType::Set, gst::Seqnum::next());
    let seek = gst::event::Seek::builder(1.0, flags, set, from, set, to).seqnum(seqnum).build();
    assert!(rig.pipeline.send_event(seek));
    rig.play().eos();
    let expected = [(gst::EventType::Segment, seqnum), (gst::EventType::Eos, seqnum)];
    assert!(video.lock().unwrap().ends_with(&expected), "{video:?}");
    assert!(text.lock().unwrap().ends_with(&expected), "{text:?}");
}

/// Text has running times; what moment of the video they mean, its segment says.
#[test]
fn text_tells_the_stream_time_of_the_video() {
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers=100 {BALL} ! QA ! fakesink qa.text ! fakesink name=text"
    ));
    let pad = rig.element("text").static_pad("sink").unwrap();
    let segments =
        watch(&pad, gst::PadProbeType::EVENT_DOWNSTREAM, |info| match info.event()?.view() {
            gst::EventView::Segment(segment) => Some(segment.segment().clone()),
            _ => None,
        });
    rig.pause();
    let second = gst::ClockTime::from_mseconds;
    // A frame comes every 100 ms, and what is asked of one comes no earlier.
    for (rate, from, running, expected) in
        [(1.0, 2000, 500, 2500), (2.0, 3000, 500, 4000), (0.5, 1000, 1000, 1500)]
    {
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
        let (set, none) = (gst::SeekType::Set, gst::SeekType::None);
        rig.pipeline.seek(rate, flags, set, second(from), none, gst::ClockTime::NONE).unwrap();
        rig.until("a segment", |_| {
            let segments = segments.lock().unwrap();
            let newest = segments.last().and_then(|s| s.downcast_ref::<gst::ClockTime>());
            newest.is_some_and(|segment| {
                segment.to_running_time(second(running)) == Some(second(running))
                    && segment.to_stream_time(second(running)) == Some(second(expected))
            })
        });
    }
}

#[test]
fn web_subtitles_are_written() {
    let vtt = written("webvttenc !");
    assert!(vtt.starts_with("WEBVTT") && vtt.contains("<two?>"), "{vtt}");
    assert!(vtt.contains("00:00:02.500 --> 00:00:07.500"), "{vtt}");
}

#[test]
fn json_lines_hold_one_object_each() {
    let output = tempfile::NamedTempFile::new().unwrap();
    let (rig, _file) = file_rig(
        "",
        &format!(
            "text-format=json ! fakesink qa.text ! filesink location={}",
            output.path().display()
        ),
    );
    assert_eq!(rig.play().answers().len(), 3);
    rig.stop();
    let written = std::fs::read_to_string(output.path()).unwrap();
    let lines: Vec<serde_json::Value> =
        written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[1]["question"], &lines[1]["tag"]), (&"two?".into(), &"t".into()));
    assert_eq!(lines[1]["asked-at"], 2.5);
    assert_eq!(lines[1]["status"], "ok");
}

#[test]
fn a_text_sink_prerolls_though_nobody_asks() {
    let rig = Rig::new(&format!(
        "videotestsrc {BALL} ! QA ! fakesink sync=true qa.text ! fakesink sync=true"
    ));
    rig.pause();
}

/// The video's sink is late, as one is that waits for sound: the text's has rendered all there is when the pause
/// comes.
#[test]
fn a_text_sink_that_has_nothing_left_pauses_with_the_others() {
    let rig = Rig::new(&format!(
        "videotestsrc {BALL} ! QA ! fakesink sync=true ts-offset=150000000 qa.text ! fakesink sync=true"
    ));
    rig.play();
    for round in 0..8 {
        for state in [gst::State::Playing, gst::State::Paused] {
            rig.pipeline.set_state(state).unwrap();
            let wait = gst::ClockTime::from_seconds(10);
            let (reached, ..) = rig.pipeline.state(wait);
            assert_eq!(reached, Ok(gst::StateChangeSuccess::Success), "{state:?} {round}");
            // At another moment of a frame each time.
            std::thread::sleep(std::time::Duration::from_millis(130 + 17 * round));
        }
    }
}

#[test]
fn an_overlay_shows_answers_and_never_stalls() {
    for source in ["", "is-live=true"] {
        for queue in ["", "queue !"] {
            let (rig, _file) = file_rig(
                source,
                &format!("! textoverlay name=o ! fakesink qa.text ! {queue} o.text_sink"),
            );
            assert_eq!(rig.play().answers().len(), 3, "{source} {queue}");
        }
    }
}

#[test]
fn a_muxer_takes_video_and_text() {
    for source in ["", "is-live=true"] {
        let output = tempfile::NamedTempFile::new().unwrap();
        let (rig, _file) = file_rig(
            source,
            &format!(
                "text-template=<{{question}}> ! matroskamux name=m ! filesink location={} qa.text ! m.",
                output.path().display()
            ),
        );
        assert_eq!(rig.play().answers().len(), 3, "{source}");
        rig.stop();
        // Matroska stores subtitles as they are.
        let file = std::fs::read(output.path()).unwrap();
        for text in ["<one?>", "<two?>", "<end?>"] {
            let found = file.windows(text.len()).filter(|bytes| *bytes == text.as_bytes()).count();
            assert_eq!(found, 1, "{source}: {text}");
        }
    }
}

#[test]
fn gaps_and_texts_cover_the_video_in_order() {
    for (source, rest) in [("", ""), ("", "text-timestamp=answer"), ("is-live=true", "")] {
        let (rig, _file) = file_rig(source, &format!("{rest} ! fakesink qa.text ! fakesink"));
        let pad = rig.qa().static_pad("text").unwrap();
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        let notes = watch(&pad, mask, |info| match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let duration = buffer.duration().expect("a text without duration");
                assert_eq!(duration.seconds(), 5);
                let discont = buffer.flags().contains(gst::BufferFlags::DISCONT);
                let name = if discont { "first text" } else { "text" };
                Some((name.to_owned(), buffer.pts().unwrap(), buffer.pts().unwrap()))
            }
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Gap(gap) => {
                    let (start, duration) = gap.get();
                    Some(("gap".to_owned(), start, start + duration.unwrap()))
                }
                gst::EventView::StreamStart(start) => {
                    assert!(start.stream_flags().contains(gst::StreamFlags::SPARSE));
                    assert!(start.stream_id().ends_with("text"), "{start:?}");
                    Some(("stream-start".to_owned(), gst::ClockTime::ZERO, gst::ClockTime::ZERO))
                }
                _ => {
                    let name = event.type_().name().to_string();
                    Some((name, gst::ClockTime::ZERO, gst::ClockTime::ZERO))
                }
            },
            _ => None,
        });
        rig.play().eos();
        let notes = notes.lock().unwrap();
        let names: Vec<_> = notes.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names[..4], ["stream-start", "caps", "segment", "gap"], "{source}{rest}");
        assert_eq!(*names.last().unwrap(), "eos");
        assert_eq!(names.iter().filter(|name| **name == "first text").count(), 1);
        assert_eq!(names.iter().filter(|name| **name == "text").count(), 2);
        // A live stream does not begin at zero, nor does it keep its pace to the nanosecond.
        let mut position = notes[3].1;
        for (name, start, end) in
            notes.iter().filter(|(name, ..)| name.ends_with("text") || name == "gap")
        {
            assert!(*start >= position, "{name} at {start} after {position}");
            if name == "gap" {
                assert_eq!(*start, position, "a hole before a gap");
            }
            position = *end;
        }
        let end = gst::ClockTime::from_seconds(4);
        assert!(position == end || (!source.is_empty() && position > end / 2), "{position}");
    }
}

#[test]
fn a_gap_is_there_before_its_frame() {
    // With wait-text an overlay without queues passes a frame only if the text is that far.
    let rig = Rig::new(&format!(
        "videotestsrc {BALL} ! QA ! textoverlay name=o wait-text=true ! fakesink sync=true \
         qa.text ! o.text_sink"
    ));
    rig.pause();
}

#[test]
fn an_unlinked_text_pad_does_not_stop_the_video() {
    let (rig, _file) = file_rig("", "! fakesink");
    rig.qa().request_pad_simple("text").unwrap();
    assert_eq!(rig.play().answers().len(), 3);
}

#[test]
fn a_failing_text_branch_does_not_stop_the_video() {
    let (rig, _file) =
        file_rig("", "! fakesink name=video qa.text ! identity eos-after=1 ! fakesink");
    let frames =
        watch(&rig.element("video").static_pad("sink").unwrap(), gst::PadProbeType::BUFFER, |_| {
            Some(())
        });
    rig.play().eos();
    assert_eq!(frames.lock().unwrap().len(), 40);
}

#[test]
fn a_seek_flushes_the_text_and_it_goes_on() {
    let rig = Rig::new(&format!(
        "videotestsrc {BALL} ! QA method=streamkv ! textoverlay name=o ! fakesink sync=true qa.text ! o.text_sink"
    ));
    rig.pause();
    for second in [10, 3, 20] {
        rig.ask_long();
        rig.pipeline
            .seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::from_seconds(second))
            .unwrap();
        rig.wait("preroll", |message| {
            matches!(message.view(), gst::MessageView::AsyncDone(_)).then_some(())
        });
    }
    rig.play();
    rig.ask("what?");
    rig.wait("answer", |message| Answer::of(message).filter(|answer| answer.status() == "ok"));
}

#[test]
fn the_text_pad_comes_and_goes_while_playing() {
    let rig = Rig::new(&format!("videotestsrc {BALL} ! QA ! fakesink sync=true"));
    rig.pause();
    rig.play();
    for _ in 0..5 {
        let sink = gst::ElementFactory::make("fakesink").property("async", false).build().unwrap();
        sink.set_property("sync", false);
        rig.pipeline.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        let input = sink.static_pad("sink").unwrap();
        let (sender, texts) = std::sync::mpsc::channel();
        input.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let _ = sender.send(());
            gst::PadProbeReturn::Ok
        });
        let pad = rig.qa().request_pad_simple("text").unwrap();
        pad.link(&input).unwrap();
        rig.ask("what?");
        texts.recv_timeout(PATIENCE).expect("no text came");
        // Also while an answer is on its way.
        rig.ask("and?");
        rig.qa().release_request_pad(&pad);
        assert!(rig.qa().static_pad("text").is_none());
        sink.set_state(gst::State::Null).unwrap();
        rig.pipeline.remove(&sink).unwrap();
    }
}

#[test]
fn a_text_pad_that_is_stuck_downstream_can_be_released() {
    // A paused text sink blocks its second buffer.
    let rig =
        Rig::new(&format!("videotestsrc {BALL} ! QA ! fakesink qa.text ! fakesink name=text"));
    rig.pause();
    rig.ask("one?");
    rig.ask("two?");
    rig.answer();
    rig.answer();
    let pad = rig.qa().static_pad("text").unwrap();
    rig.qa().release_request_pad(&pad);
}

#[test]
fn the_latency_property_raises_the_text_pads_latency_only() {
    let rig = Rig::new(&format!(
        "videotestsrc is-live=true {BALL} ! QA latency=70000000 ! fakesink name=video qa.text ! fakesink name=text"
    ));
    rig.play();
    rig.until("a frame", |stats| stats.get::<u64>("frames-in").unwrap() > 0);
    let latency = |name: &str| {
        let mut query = gst::query::Latency::new();
        assert!(rig.element(name).static_pad("sink").unwrap().peer_query(&mut query));
        query.result().1
    };
    assert_eq!(latency("text"), latency("video") + gst::ClockTime::from_mseconds(70));
}
