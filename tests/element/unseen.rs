// SPDX-License-Identifier: MPL-2.0
//! What is not seen, because it is broken or cannot be read: the video goes on, the rest is seen, and
//! everybody is told.

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

use crate::picture::{QWEN, SMALL, appsrc, end, pixels, push, small};
use crate::pipeline::*;

fn flagged(flags: gst::BufferFlags) -> gst::Buffer {
    let mut buffer = small();
    buffer.make_mut().set_flags(flags);
    buffer
}

#[test]
fn broken_pictures_are_not_remembered_and_the_next_whole_one_is() {
    let flags = [
        gst::BufferFlags::CORRUPTED,
        gst::BufferFlags::GAP,
        gst::BufferFlags::DECODE_ONLY,
        gst::BufferFlags::CORRUPTED | gst::BufferFlags::DISCONT,
    ];
    for flags in flags {
        let rig = Rig::new(&appsrc(SMALL).replace("QA", "QA sample-rate=2/1 question=what?"));
        let out =
            watch(&rig.qa().static_pad("src").unwrap(), gst::PadProbeType::BUFFER, |_| Some(()));
        rig.play();
        // Tenths of a second; every fifth is due, and the one behind a broken one.
        for tenth in 0..12 {
            let broken = matches!(tenth, 5 | 6 | 10);
            push(&rig, tenth, if broken { flagged(flags) } else { small() });
        }
        end(&rig);
        assert_eq!(rig.answers()[0].status(), "ok", "{flags:?}");
        let counts = ["frames-in", "sampled", "encoded", "broken", "unreadable"];
        assert_eq!(counts.map(|name| rig.stat(name)), [12, 3, 3, 3, 0], "{flags:?}");
        assert_eq!(out.lock().unwrap().len(), 12);
    }
}

#[test]
fn a_question_for_the_first_frame_waits_for_one_that_is_whole() {
    let rig = Rig::new(&appsrc(SMALL).replace("QA", "QA sample-rate=10/1"));
    rig.ask("what?");
    rig.play();
    (0..3).for_each(|tenth| push(&rig, tenth, flagged(gst::BufferFlags::CORRUPTED)));
    push(&rig, 3, small());
    let answer = rig.answer();
    assert_eq!((answer.status(), answer.ms("asked-at")), ("ok".into(), 300));
}

#[test]
fn an_answer_says_that_all_frames_were_broken() {
    let rig = Rig::new(&appsrc(SMALL).replace("QA", "QA question=what?"));
    rig.play();
    (0..3).for_each(|tenth| push(&rig, tenth, flagged(gst::BufferFlags::GAP)));
    end(&rig);
    let answers = rig.answers();
    assert_eq!(answers[0].status(), "error");
    assert!(answers[0].text("error").contains("gap"), "{answers:?}");
}

/// One buffer a tenth of a second of video that cannot be read: it passes untouched, one warning
/// says what to do, and an answer why nothing was seen.
#[track_caller]
fn passes_unseen(caps: &str, words: &[&str]) {
    let rig = Rig::new(&format!(
        "appsrc name=src format=time caps=\"{caps}\" ! QA sample-rate=10/1 ! fakesink name=sink"
    ));
    let bytes = |info: &gst::PadProbeInfo| Some(info.buffer()?.map_readable().unwrap().to_vec());
    let out = watch(&rig.qa().static_pad("src").unwrap(), gst::PadProbeType::BUFFER, bytes);
    rig.qa().set_property("question", "what?");
    rig.play();
    let sent: Vec<_> = (0..4_u8).map(|tenth| vec![tenth; 64]).collect();
    for (tenth, bytes) in sent.iter().enumerate() {
        push(&rig, tenth as u64, gst::Buffer::from_slice(bytes.clone()));
    }
    end(&rig);
    let (mut warnings, mut answers) = (Vec::new(), Vec::new());
    rig.wait("end of stream", |message| {
        match message.view() {
            gst::MessageView::Warning(warning) => warnings.push(warning.error().to_string()),
            gst::MessageView::Eos(_) => return Some(()),
            _ => answers.extend(Answer::of(message)),
        }
        None
    });
    assert_eq!(*out.lock().unwrap(), sent, "{caps}");
    assert_eq!(warnings.len(), 1, "{caps}: {warnings:?}");
    assert_eq!(answers.len(), 1, "{caps}: {answers:?}");
    assert_eq!(answers[0].status(), "error", "{caps}");
    for word in words {
        assert!(warnings[0].contains(word), "{caps}: {warnings:?}");
        assert!(answers[0].text("error").contains(word), "{caps}: {answers:?}");
    }
    assert_eq!((rig.stat("unreadable"), rig.stat("encoded")), (4, 0), "{caps}");
}

#[test]
fn video_that_cannot_be_read_passes_and_everybody_is_told_what_to_put_in_front() {
    let size = "width=64,height=64,framerate=10/1";
    for (caps, words) in [
        (format!("video/x-raw(memory:NVMM),format=NV12,{size}"), ["memory:NVMM", "nvvideoconvert"]),
        (
            format!("video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=NV12:0x1,{size}"),
            ["DMA_DRM", "vapostproc"],
        ),
        (format!("video/x-raw,format=SOMETHING_NEW,{size}"), ["raw video", "videoconvert"]),
        (format!("video/x-raw(memory:Unheard),format=NEW,{size}"), ["raw video", "system memory"]),
        (format!("video/x-raw,format=ENCODED,{size}"), ["ENCODED", "videoconvert"]),
        (
            format!("video/x-raw(format:Interlaced),format=I420,interlace-mode=alternate,{size}"),
            ["single fields", "deinterlace"],
        ),
        // Memory that could be mapped, with something in it that is no picture.
        (format!("video/x-raw(memory:GLMemory),format=RGBA,{size}"), ["64 bytes", "64x64"]),
    ] {
        passes_unseen(&caps, &words);
    }
}

#[test]
fn video_without_a_size_passes() {
    passes_unseen("video/x-raw,format=RGB", &["raw video"]);
}

#[test]
fn frames_that_the_model_cannot_take_leave_the_others_of_their_batch_alone() {
    let rig = Rig::raw(&format!(
        "appsrc name=src format=time ! streamkvqa name=qa model-path={} sample-rate=10/1 \
         question=what? max-tokens=3 ! fakesink",
        path(QWEN)
    ));
    // All four are there before the model is.
    rig.play();
    for (tenth, (width, height)) in
        [(84, 56), (4, 1200), (1200, 4), (84, 56)].into_iter().enumerate()
    {
        let caps = format!("video/x-raw,format=RGB,width={width},height={height},framerate=10/1");
        rig.element("src").set_property_from_str("caps", &caps);
        push(&rig, tenth as u64, gst::Buffer::from_slice(pixels(width, height, 1)));
    }
    end(&rig);
    let mut warnings = 0;
    rig.wait("end of stream", |message| {
        warnings += usize::from(message.type_() == gst::MessageType::Warning);
        (message.type_() == gst::MessageType::Eos).then_some(())
    });
    assert_eq!((rig.stat("encoded"), rig.stat("unreadable"), warnings), (2, 2, 1));
}

#[test]
fn a_crop_beyond_the_buffer_is_unreadable_and_the_video_goes_on() {
    let rig =
        Rig::new(&appsrc("format=RGB,width=16,height=16").replace("QA", "QA sample-rate=10/1"));
    let out = watch(&rig.qa().static_pad("src").unwrap(), gst::PadProbeType::BUFFER, |_| Some(()));
    rig.play();
    for (second, rect) in
        [(8, 8, 16, 16), (0, 0, 0, 16), (u32::MAX, 0, 1, 1), (2, 2, 4, 4)].into_iter().enumerate()
    {
        let mut buffer = gst::Buffer::from_slice(vec![50_u8; 16 * 16 * 3]);
        gst_video::VideoCropMeta::add(buffer.make_mut(), rect);
        push(&rig, second as u64, buffer);
    }
    end(&rig);
    let warning = rig.warning();
    assert!(warning.message().contains("crop meta"), "{warning}");
    rig.eos();
    rig.until("the last frame", |stats| stats.get::<u64>("encoded").unwrap() == 1);
    assert_eq!((rig.stat("unreadable"), out.lock().unwrap().len()), (3, 4));
}
