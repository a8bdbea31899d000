// SPDX-License-Identifier: MPL-2.0
//! The video passes untouched, whatever the model does.

use gst::prelude::*;
use gstreamer as gst;

use crate::pipeline::*;

fn bytes(info: &gst::PadProbeInfo) -> Option<(Option<gst::ClockTime>, Vec<u8>)> {
    let buffer = info.buffer()?;
    Some((buffer.pts(), buffer.map_readable().unwrap().to_vec()))
}

#[test]
fn buffers_pass_bit_for_bit() {
    let rig =
        Rig::new(&format!("videotestsrc num-buffers=30 {BALL} ! QA question=what? ! fakesink"));
    let qa = rig.qa();
    let before = watch(&qa.static_pad("sink").unwrap(), gst::PadProbeType::BUFFER, bytes);
    let after = watch(&qa.static_pad("src").unwrap(), gst::PadProbeType::BUFFER, bytes);
    rig.play().eos();
    assert_eq!(before.lock().unwrap().len(), 30);
    assert_eq!(*before.lock().unwrap(), *after.lock().unwrap());
    assert_eq!(rig.stat("frames-in"), 30);
}

#[test]
fn a_file_loses_no_sample_and_is_held_back() {
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers=200 {BALL} ! QA max-queue=1 sample-rate=10/1 question=what? ! fakesink"
    ));
    rig.play().eos();
    assert_eq!((rig.stat("sampled"), rig.stat("dropped"), rig.stat("encoded")), (200, 0, 200));
}

#[test]
fn sampling_goes_by_running_time() {
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers=50 {BALL} ! QA sample-rate=2/1 question=what? ! fakesink"
    ));
    rig.play().eos();
    assert_eq!(rig.stat("sampled"), 10);
}

#[test]
fn a_live_stream_never_waits_and_counts_what_it_drops() {
    let rig = Rig::new(&format!(
        "videotestsrc is-live=true num-buffers=30 {BALL} ! QA method=streamkv max-queue=1 sample-rate=10/1 \
         eos-timeout=0 ! fakesink sync=false"
    ));
    let out = watch(&rig.qa().static_pad("src").unwrap(), gst::PadProbeType::BUFFER, |_| Some(()));
    rig.play();
    rig.until("first frame", |stats| stats.get::<u64>("encoded").unwrap() > 0);
    rig.ask_long();
    rig.eos();
    assert_eq!(out.lock().unwrap().len(), 30);
    assert!(rig.stats().get::<bool>("live").unwrap());
    let (sampled, dropped) = (rig.stat("sampled"), rig.stat("dropped"));
    assert_eq!(sampled, 30);
    assert!(dropped > 0, "nothing was dropped of {sampled}");
}

#[test]
fn leaky_never_holds_even_a_live_stream_back() {
    let rig = Rig::new(&format!(
        "videotestsrc is-live=true num-buffers=10 {BALL} ! QA max-queue=1 sample-rate=10/1 \
         leaky=never question=what? ! fakesink sync=false"
    ));
    rig.play().eos();
    assert_eq!((rig.stat("sampled"), rig.stat("dropped")), (10, 0));
}

#[test]
fn odd_sizes_and_formats_are_read() {
    for caps in [
        "format=I420,width=57,height=43",
        "format=NV12,width=1,height=1",
        "format=YUY2,width=33,height=2",
        "format=RGB,width=5,height=300",
        "format=P010_10LE,width=64,height=48",
        "format=I420,width=64,height=48,interlace-mode=interleaved",
    ] {
        let rig = Rig::new(&format!(
            "videotestsrc num-buffers=20 ! video/x-raw,framerate=10/1,{caps} ! QA question=what? \
             ! fakesink"
        ));
        let answers = rig.play().answers();
        assert_eq!(answers.len(), 1, "{caps}");
        assert_eq!(answers[0].status(), "ok", "{caps}: {answers:?}");
        assert_eq!((rig.stat("sampled"), rig.stat("unreadable")), (2, 0), "{caps}");
    }
}

/// Pushes buffers of the test's making through an appsrc.
fn push(rig: &Rig, buffer: gst::Buffer) {
    let flow: gst::FlowReturn = rig.element("src").emit_by_name("push-buffer", &[&buffer]);
    assert_eq!(flow, gst::FlowReturn::Ok);
}

fn end(rig: &Rig) {
    let _: gst::FlowReturn = rig.element("src").emit_by_name("end-of-stream", &[]);
}

const APPSRC: &str = "appsrc name=src format=time \
    caps=video/x-raw,format=RGB,width=16,height=16,framerate=10/1";

fn frame() -> gst::Buffer {
    gst::Buffer::from_slice(vec![100u8; 16 * 16 * 3])
}

#[test]
fn buffers_without_timestamps_are_timed_by_the_frame_rate() {
    let rig = Rig::new(&format!("{APPSRC} ! QA question=what? ! fakesink"));
    rig.play();
    (0..25).for_each(|_| push(&rig, frame()));
    end(&rig);
    let warning = rig.warning();
    assert!(warning.message().contains("without timestamps"), "{warning}");
    assert_eq!(rig.answers()[0].ms("asked-at"), 2400);
    assert_eq!(rig.stat("sampled"), 3);
}

#[test]
fn empty_and_short_buffers_are_warned_about_once_and_pass() {
    let rig = Rig::new(&format!("{APPSRC} ! QA question=what? ! fakesink"));
    let out = watch(&rig.qa().static_pad("src").unwrap(), gst::PadProbeType::BUFFER, |_| Some(()));
    rig.play();
    for second in 0..6 {
        let mut buffer = match second {
            0 => gst::Buffer::new(),
            1..4 => gst::Buffer::from_slice(vec![0u8; 7]),
            _ => frame(),
        };
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_seconds(second));
        push(&rig, buffer);
    }
    end(&rig);
    let warning = rig.warning();
    assert!(warning.message().contains("width=(int)16"), "{warning}");
    let mut warnings = 0;
    rig.wait("end of stream", |message| {
        warnings += usize::from(message.type_() == gst::MessageType::Warning);
        (message.type_() == gst::MessageType::Eos).then_some(())
    });
    assert_eq!(warnings, 0);
    assert_eq!(out.lock().unwrap().len(), 6);
    assert_eq!((rig.stat("unreadable"), rig.stat("encoded")), (4, 2));
}

#[test]
fn time_that_jumps_neither_stalls_nor_panics() {
    let rig = Rig::new(&format!("{APPSRC} ! QA question=what? ! fakesink sync=false"));
    rig.play();
    let far = u64::MAX / 2;
    for (index, ns) in
        [0, 5_000_000_000, 1_000_000_000, 0, far, far + 1, 7, 2_000_000_000].into_iter().enumerate()
    {
        let mut buffer = frame();
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.set_pts(gst::ClockTime::from_nseconds(ns));
            if index % 2 == 1 {
                buffer.set_flags(gst::BufferFlags::DISCONT);
                buffer.set_duration(gst::ClockTime::from_nseconds(u64::MAX - 1));
            }
        }
        push(&rig, buffer);
    }
    end(&rig);
    let answers = rig.answers();
    assert_eq!(answers[0].status(), "ok", "{answers:?}");
}

#[test]
fn new_caps_on_the_way_are_read() {
    let rig = Rig::new(&format!("{APPSRC} ! QA question=what? ! fakesink"));
    rig.play();
    for second in 0..4u64 {
        if second == 2 {
            let caps = "video/x-raw,format=GRAY8,width=20,height=10,framerate=10/1";
            rig.element("src").set_property_from_str("caps", caps);
        }
        let size = if second < 2 { 16 * 16 * 3 } else { 20 * 10 };
        let mut buffer = gst::Buffer::from_slice(vec![9u8; size]);
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_seconds(second));
        push(&rig, buffer);
    }
    end(&rig);
    rig.eos();
    assert_eq!((rig.stat("encoded"), rig.stat("unreadable")), (4, 0));
}

#[test]
fn memory_is_kept_over_a_seek_unless_reset_on_says_otherwise() {
    for (reset, kept) in [("never", true), ("flush", false), ("segment", false)] {
        let rig = Rig::new(&format!("videotestsrc {BALL} ! QA reset-on={reset} ! fakesink"));
        rig.pause();
        let pass = || {
            let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
            let (start, stop) = (gst::ClockTime::ZERO, gst::ClockTime::from_seconds(3));
            let kind = gst::SeekType::Set;
            rig.pipeline.seek(1.0, flags, kind, start, kind, stop).unwrap();
            rig.play().eos();
            // The answer comes behind all frames.
            rig.ask("what?");
            rig.answer();
            rig.remembered()
        };
        let once = pass();
        assert!(once > 0);
        let twice = pass();
        assert_eq!(twice > once, kept, "{reset}: {once} units, then {twice}");
    }
}

#[test]
fn a_still_camera_is_looked_at_now_and_then() {
    let still = "videotestsrc num-buffers=40 pattern=red ! \
                 video/x-raw,width=64,height=48,framerate=10/1";
    let rig =
        Rig::new(&format!("{still} ! QA max-skip=9 sample-rate=10/1 question=what? ! fakesink"));
    rig.play().eos();
    assert_eq!((rig.stat("sampled"), rig.stat("encoded"), rig.stat("skipped")), (40, 40, 36));
    assert_eq!(rig.stat("units"), 4);
    let rig = Rig::new(&format!("{still} ! QA sample-rate=10/1 question=what? ! fakesink"));
    rig.play().eos();
    assert_eq!((rig.stat("encoded"), rig.stat("skipped")), (40, 0));
    assert_eq!(rig.stat("reused-patches"), 0);
    // Frames that are seen again count as frames, but cost the tower nothing.
    let rig =
        Rig::new(&format!("{still} ! QA tower-reuse=9 sample-rate=10/1 question=what? ! fakesink"));
    rig.play().eos();
    assert_eq!((rig.stat("encoded"), rig.stat("units")), (40, 40));
    assert!(rig.stat("reused-patches") > 0);
    assert_eq!(rig.stat("reused-patches") % 36, 0);
}
