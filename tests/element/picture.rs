// SPDX-License-Identifier: MPL-2.0
//! What the model sees is what a viewer would see.
//!
//! How it is shown: the memory of two pipelines, as it lies on disk, is compared byte by byte. In one
//! of them GStreamer's own elements have done to the video what a viewer's sink would do.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cpu_time::ThreadTime;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use gststreamkvqa::memory::store::{Budget, StoreOptions};
use gststreamkvqa::{Frame, LoadOptions, Recipe, Stream, StreamOptions, VideoLlm};

use crate::pipeline::*;

pub const QWEN: &str = "tests/fixtures/qwen-wide";

/// Keys and values of everything seen, by the files they lie in.
type Memory = BTreeMap<String, Vec<u8>>;

/// A pipeline that writes what it remembers to disk; a batch has one frame, so that no sum depends
/// on which frames came together.
struct Watcher {
    rig: Rig,
    disk: tempfile::TempDir,
}

impl Watcher {
    /// `QA` becomes the element, with the model of a folder.
    #[track_caller]
    fn new(model: &str, description: &str) -> Self {
        let disk = tempfile::tempdir().unwrap();
        let element = format!(
            "streamkvqa name=qa max-tokens=3 model-path={} method=rekv store=f32 store-residual=0 \
             max-memory=1 disk-path={} max-queue=1 leaky=never sample-rate=10/1",
            path(model),
            disk.path().display()
        );
        Self { rig: Rig::raw(&with_element(description, &element)), disk }
    }

    /// What is remembered once the stream has ended, of `frames` frames.
    #[track_caller]
    fn remembers(&self, frames: u64) -> Memory {
        self.rig.play().eos();
        self.rig
            .until("all frames encoded", |stats| stats.get::<u64>("encoded").unwrap() == frames);
        assert_eq!(self.rig.stat("unreadable"), 0);
        memory(self.disk.path())
    }
}

fn memory(disk: &Path) -> Memory {
    let list = |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let files = list(disk).flat_map(|stream| list(&stream));
    let memory: Memory = files
        .map(|file| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(file).unwrap())
        })
        .collect();
    assert!(memory.values().any(|bytes| !bytes.is_empty()), "nothing is remembered");
    memory
}

/// What a stream of the engine alone remembers of frames.
fn engine(model: &str, frames: &[Frame]) -> Memory {
    let disk = tempfile::tempdir().unwrap();
    let options = StreamOptions {
        store: StoreOptions {
            codec: Some(gststreamkvqa::memory::store::codec::Codec::F32),
            residual: 0,
            share: None,
            budget: Budget { device: Some(1), ..Budget::default() },
            disk_path: Some(disk.path().into()),
        },
        sample_rate: Some(10.0),
        ..StreamOptions::default()
    };
    let model = VideoLlm::load(path(model), &LoadOptions::default()).unwrap();
    let recipe = Recipe::for_model("rekv", &model).unwrap();
    let mut stream = Stream::open(model, recipe, options).unwrap();
    frames.iter().for_each(|frame| stream.push(frame).unwrap());
    memory(disk.path())
}

/// The sink of a pipeline says in ALLOCATION queries that it takes these metas.
fn announce(rig: &Rig, metas: &'static [fn(&mut gst::query::Allocation)]) {
    let pad = rig.element("sink").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
        if let Some(query) = info.query_mut()
            && let gst::QueryViewMut::Allocation(query) = query.view_mut()
        {
            metas.iter().for_each(|add| add(query));
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

const CROPPING: &[fn(&mut gst::query::Allocation)] = &[
    |query| query.add_allocation_meta::<gst_video::VideoMeta>(None),
    |query| query.add_allocation_meta::<gst_video::VideoCropMeta>(None),
];

fn crops(info: &gst::PadProbeInfo) -> Option<bool> {
    Some(info.buffer()?.meta::<gst_video::VideoCropMeta>().is_some())
}

#[test]
fn a_crop_that_the_sink_would_do_is_what_the_model_sees() {
    let format =
        |format: &str| format!("video/x-raw,format={format},width=76,height=66,framerate=10/1");
    for (caps, crop) in [
        (format("RGB"), "left=20"),
        (format("RGB"), "right=7"),
        (format("BGRx"), "top=5"),
        (format("GRAY8"), "bottom=9"),
        (format("RGB"), "left=7 right=5 top=3 bottom=1"),
        (format("I420"), "left=20 top=10"),
        (format("NV12"), "left=6 right=10 top=2 bottom=20"),
    ] {
        let run = |by_sink: bool| {
            let watcher = Watcher::new(
                "tests/fixtures/ov-even",
                &format!(
                    "videotestsrc num-buffers=3 pattern=smpte horizontal-speed=5 ! {caps} ! \
                     videocrop {crop} ! QA ! fakesink name=sink"
                ),
            );
            if by_sink {
                announce(&watcher.rig, CROPPING);
            }
            let pad = watcher.rig.qa().static_pad("sink").unwrap();
            let cropped = watch(&pad, gst::PadProbeType::BUFFER, crops);
            let memory = watcher.remembers(3);
            assert_eq!(*cropped.lock().unwrap(), [by_sink; 3], "{caps} {crop}");
            memory
        };
        assert!(run(true) == run(false), "{caps} {crop}");
    }
}

/// Pushes a buffer for each second.
pub fn push(rig: &Rig, second: u64, mut buffer: gst::Buffer) {
    buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(100 * second));
    let flow: gst::FlowReturn = rig.element("src").emit_by_name("push-buffer", &[&buffer]);
    assert_eq!(flow, gst::FlowReturn::Ok);
}

pub fn end(rig: &Rig) {
    let flow: gst::FlowReturn = rig.element("src").emit_by_name("end-of-stream", &[]);
    assert_eq!(flow, gst::FlowReturn::Ok);
}

/// A picture that is no other and not like itself turned.
pub fn pixels(width: usize, height: usize, seed: usize) -> Vec<u8> {
    (0..width * height * 3).map(|i| ((i * i + 31 * i * seed + 7 * seed) >> 3) as u8).collect()
}

pub const SMALL: &str = "format=RGB,width=16,height=16";

pub fn small() -> gst::Buffer {
    gst::Buffer::from_slice(vec![100_u8; 16 * 16 * 3])
}

pub fn appsrc(caps: &str) -> String {
    format!(
        "appsrc name=src format=time caps=video/x-raw,framerate=10/1,{caps} ! QA ! fakesink name=sink"
    )
}

#[test]
fn a_decoder_that_pads_its_pictures_shows_no_padding() {
    let shown = 56 * 56 * 3;
    let clean = |seed| pixels(56, 56, seed);
    let frame = |seed| Frame::new(clean(seed), 56, 56, seed as f64 / 10.0).unwrap();
    let expected = engine("tests/fixtures/ov-even", &[0, 1, 2].map(frame));
    for crop in [false, true] {
        let watcher =
            Watcher::new("tests/fixtures/ov-even", &appsrc("format=RGB,width=56,height=56"));
        watcher.rig.play();
        for seed in 0..3 {
            // Rows of 64 pixels, and eight rows more, full of something else.
            let mut padded = vec![0xaa_u8; 64 * 64 * 3];
            for (to, row) in padded.chunks_mut(64 * 3).zip(clean(seed).chunks(56 * 3)) {
                to[..56 * 3].copy_from_slice(row);
            }
            assert_eq!(clean(seed).len(), shown);
            let mut buffer = gst::Buffer::from_slice(padded);
            let writable = buffer.make_mut();
            let (flags, format) =
                (gst_video::VideoFrameFlags::empty(), gst_video::VideoFormat::Rgb);
            gst_video::VideoMeta::add(writable, flags, format, 64, 64).unwrap();
            if crop {
                gst_video::VideoCropMeta::add(writable, (0, 0, 56, 56));
            }
            push(&watcher.rig, seed as u64, buffer);
        }
        end(&watcher.rig);
        assert!(watcher.remembers(3) == expected, "crop meta: {crop}");
    }
}

#[test]
fn an_allocation_query_announces_nothing_that_the_model_could_not_see() {
    const ALL: &[fn(&mut gst::query::Allocation)] = &[
        |query| query.add_allocation_meta::<gst_video::VideoAffineTransformationMeta>(None),
        |query| query.add_allocation_meta::<gst_video::VideoMeta>(None),
        |query| query.add_allocation_meta::<gst_video::VideoCropMeta>(None),
        |query| query.add_allocation_meta::<gst_video::VideoAffineTransformationMeta>(None),
        |query| query.add_allocation_meta::<gst_video::VideoOverlayCompositionMeta>(None),
        |query| query.add_allocation_meta::<gst_video::VideoRegionOfInterestMeta>(None),
    ];
    let rig = Rig::new(&appsrc(SMALL));
    announce(&rig, ALL);
    rig.play();
    push(&rig, 0, small());
    rig.until("the frame", |stats| stats.get::<u64>("encoded").unwrap() == 1);
    let pad = rig.qa().static_pad("sink").unwrap();
    let mut query = gst::query::Allocation::new(pad.current_caps().as_ref(), false);
    assert!(pad.peer().unwrap().peer_query(&mut query));
    let metas: Vec<_> = query.allocation_metas().map(|(api, _)| api.name()).collect();
    assert_eq!(
        metas,
        [
            "GstVideoMetaAPI",
            "GstVideoCropMetaAPI",
            "GstVideoOverlayCompositionMetaAPI",
            "GstVideoRegionOfInterestMetaAPI"
        ]
    );
}

#[test]
fn text_that_the_sink_would_draw_is_what_the_model_sees() {
    let run = |by_sink: bool| {
        let watcher = Watcher::new(
            "tests/fixtures/ov-even",
            "videotestsrc num-buffers=2 pattern=black ! \
             video/x-raw,format=RGB,width=112,height=112,framerate=10/1 ! \
             textoverlay text=READ font-desc=30 ! QA ! fakesink name=sink",
        );
        if by_sink {
            announce(
                &watcher.rig,
                &[|query| {
                    query.add_allocation_meta::<gst_video::VideoOverlayCompositionMeta>(None);
                }],
            );
        }
        let overlay = |info: &gst::PadProbeInfo| {
            Some(info.buffer()?.meta::<gst_video::VideoOverlayCompositionMeta>().is_some())
        };
        let pad = watcher.rig.qa().static_pad("sink").unwrap();
        let overlays = watch(&pad, gst::PadProbeType::BUFFER, overlay);
        let memory = watcher.remembers(2);
        (memory, overlays.lock().unwrap().clone())
    };
    let ((drawn, _), (attached, overlays)) = (run(false), run(true));
    // Where this GStreamer's textoverlay draws the text itself, there is nothing to compare.
    assert!(drawn == attached, "overlays: {overlays:?}");
}

/// A tag event, as a demuxer sends it.
fn orientation(value: &str, scope: gst::TagScope) -> gst::Event {
    let mut tags = gst::TagList::new();
    let list = tags.get_mut().unwrap();
    list.add::<gst::tags::ImageOrientation>(&value, gst::TagMergeMode::Replace);
    list.set_scope(scope);
    gst::event::Tag::new(tags)
}

#[test]
fn the_model_sees_the_picture_upright_whatever_its_tag_says() {
    const TAGS: [(&str, &str); 8] = [
        ("rotate-0", "identity"),
        ("rotate-90", "90r"),
        ("rotate-180", "180"),
        ("rotate-270", "90l"),
        ("flip-rotate-0", "horiz"),
        ("flip-rotate-90", "ur-ll"),
        ("flip-rotate-180", "vert"),
        ("flip-rotate-270", "ul-lr"),
    ];
    let run = |tag: &'static str, scope: gst::TagScope, viewer: &str| {
        let watcher = Watcher::new(
            QWEN,
            &format!(
                "videotestsrc num-buffers=2 pattern=smpte ! \
                 video/x-raw,format=RGB,width=84,height=56,framerate=10/1 ! identity name=tagged ! \
                 {viewer} QA ! fakesink"
            ),
        );
        let tagged = watcher.rig.element("tagged").static_pad("src").unwrap();
        tagged.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
            assert!(pad.push_event(orientation(tag, scope)));
            gst::PadProbeReturn::Remove
        });
        watcher.remembers(2)
    };
    let mut seen = Vec::new();
    for (tag, turned) in TAGS {
        let viewer = format!("videoflip video-direction={turned} !");
        let upright = run("rotate-0", gst::TagScope::Stream, &viewer);
        assert!(run(tag, gst::TagScope::Stream, "") == upright, "{tag}");
        assert!(run(tag, gst::TagScope::Global, "") == upright, "{tag} of the whole file");
        assert!(!seen.contains(&upright), "{tag} turns as another does");
        seen.push(upright);
    }
}

#[test]
fn orientation_changes_on_the_way_and_ends_with_the_stream() {
    let watcher = Watcher::new("tests/fixtures/ov-even", &appsrc("format=RGB,width=56,height=56"));
    watcher.rig.play();
    let sink = watcher.rig.qa().static_pad("sink").unwrap();
    let encoded = |frames: u64| {
        watcher.rig.until("frame", |stats| stats.get::<u64>("encoded").unwrap() == frames);
    };
    let buffer = || gst::Buffer::from_slice(pixels(56, 56, 1));
    push(&watcher.rig, 0, buffer());
    encoded(1);
    assert!(sink.send_event(orientation("rotate-180", gst::TagScope::Stream)));
    push(&watcher.rig, 1, buffer());
    encoded(2);
    let mut title = gst::TagList::new();
    title.get_mut().unwrap().add::<gst::tags::Title>(&"a title", gst::TagMergeMode::Replace);
    assert!(sink.send_event(gst::event::Tag::new(title)));
    push(&watcher.rig, 2, buffer());
    encoded(3);
    assert!(sink.send_event(orientation("flip-rotate-0", gst::TagScope::Stream)));
    push(&watcher.rig, 3, buffer());
    encoded(4);
    let segment = sink.sticky_event::<gst::event::Segment>(0).unwrap();
    assert!(sink.send_event(gst::event::StreamStart::new("another")));
    assert!(sink.send_event(segment));
    push(&watcher.rig, 4, buffer());
    end(&watcher.rig);

    let rgb = pixels(56, 56, 1);
    let turned: Vec<u8> = rgb.chunks(3).rev().flatten().copied().collect();
    let mirrored: Vec<u8> =
        rgb.chunks(56 * 3).flat_map(|row| row.chunks(3).rev().flatten()).copied().collect();
    let shown = [&rgb, &turned, &turned, &mirrored, &rgb];
    let frames = shown
        .into_iter()
        .enumerate()
        .map(|(second, rgb)| Frame::new(rgb.clone(), 56, 56, second as f64 / 10.0).unwrap());
    let expected = engine("tests/fixtures/ov-even", &frames.collect::<Vec<_>>());
    assert!(watcher.remembers(5) == expected);
}

#[test]
fn turning_leaves_the_buffer_alone() {
    let rig = Rig::new(
        "videotestsrc num-buffers=3 ! video/x-raw,format=RGB,width=84,height=56,framerate=10/1 ! \
         taginject tags=\"image-orientation=(string)rotate-90\" ! QA sample-rate=10/1 ! fakesink",
    );
    let bytes = |info: &gst::PadProbeInfo| Some(info.buffer()?.map_readable().unwrap().to_vec());
    let before = watch(&rig.qa().static_pad("sink").unwrap(), gst::PadProbeType::BUFFER, bytes);
    let after = watch(&rig.qa().static_pad("src").unwrap(), gst::PadProbeType::BUFFER, bytes);
    rig.play().eos();
    assert_eq!(before.lock().unwrap().len(), 3);
    assert!(*before.lock().unwrap() == *after.lock().unwrap());
}

/// Bytes that a pipeline remembers of two frames: a model that keeps the picture's shape has more
/// of them for a larger picture.
fn tokens(caps: &str, properties: &str) -> u64 {
    let rig = Rig::raw(&format!(
        "videotestsrc num-buffers=2 ! video/x-raw,format=RGB,framerate=10/1,{caps} ! streamkvqa \
         name=qa model-path={} method=full sample-rate=10/1 {properties} ! fakesink",
        path(QWEN)
    ));
    rig.play().eos();
    rig.until("both frames", |stats| stats.get::<u64>("encoded").unwrap() == 2);
    rig.stat("memory-bytes")
}

#[test]
fn pixels_that_are_not_square_reach_the_model_as_they_are_shown() {
    let narrow = "width=20,height=90";
    let par = |par: &str| tokens(&format!("{narrow},pixel-aspect-ratio={par}"), "");
    assert_eq!(par("4/1"), tokens("width=80,height=90", ""));
    assert_eq!(par("1/1"), tokens(narrow, ""));
    assert_ne!(par("4/1"), par("1/1"));
    assert_eq!(
        tokens("width=160,height=240,pixel-aspect-ratio=2/1", ""),
        tokens("width=320,height=240", "")
    );
    assert_eq!(tokens("width=40,height=90,pixel-aspect-ratio=1/2", ""), tokens(narrow, ""));
}

#[test]
fn a_model_resizes_once_and_from_every_pixel() {
    let large = |model: &str, properties: &str| {
        let watcher = Watcher::new(
            model,
            &appsrc("format=RGB,width=1920,height=1080").replace("QA", &format!("QA {properties}")),
        );
        watcher.rig.play();
        (0..2).for_each(|second| {
            push(&watcher.rig, second, gst::Buffer::from_slice(pixels(1920, 1080, 3)));
        });
        end(&watcher.rig);
        watcher.remembers(2)
    };
    let frame = |second| Frame::new(pixels(1920, 1080, 3), 1920, 1080, f64::from(second) / 10.0);
    let frames = [0, 1].map(|second| frame(second).unwrap());
    for (model, properties) in [
        (QWEN, ""),
        (QWEN, "frame-size=0"),
        ("tests/fixtures/ov-even", ""),
        // Smaller than what the model looks at.
        ("tests/fixtures/ov-even", "frame-size=16"),
    ] {
        assert!(large(model, properties) == engine(model, &frames), "{model} {properties}");
    }
}

#[test]
fn frame_size_bounds_what_a_picture_costs() {
    let wide = |properties| tokens("width=320,height=240", properties);
    assert!(wide("frame-size=56") < wide(""));
    assert_eq!(wide("frame-size=112"), wide(""));
    assert_eq!(wide("frame-size=0"), wide(""));
}

#[test]
fn a_sampled_frame_costs_the_streaming_thread_a_copy() {
    let rig = Rig::new(
        "videotestsrc num-buffers=12 pattern=black ! \
         video/x-raw,format=NV12,width=1920,height=1080,framerate=10/1 ! QA sample-rate=10/1 ! \
         fakesink",
    );
    let costs = costs(&rig);
    rig.play().eos();
    rig.until("all frames", |stats| stats.get::<u64>("encoded").unwrap() == 12);
    let (copying, taking) = (costs.copying.median(), costs.taking.median());
    println!("a copy takes {copying:?}, the element {taking:?}");
    // Colours would take as long again, and more room besides.
    assert!(taking < 2 * copying, "{taking:?} of {copying:?}");
    let told: f64 = rig.stats().get("take-ms-per-frame").unwrap();
    assert!(told > 0.0);
}

/// What the streaming thread works on each buffer. Time in which it waits for a processor, as beside other
/// tests, is none of it.
struct Costs {
    /// Copying it once, as GStreamer does.
    copying: Times,
    /// Between the element's pads.
    taking: Times,
}

struct Times(Arc<Mutex<Vec<Duration>>>);

impl Times {
    #[track_caller]
    fn median(&self) -> Duration {
        let mut all = self.0.lock().unwrap().clone();
        assert_eq!(all.len(), 12);
        all.sort();
        all[all.len() / 2]
    }
}

fn costs(rig: &Rig) -> Costs {
    thread_local! { static BEGAN: Cell<Option<ThreadTime>> = const { Cell::new(None) }; }
    let pad = |name| rig.qa().static_pad(name).unwrap();
    let held = Mutex::new(Vec::new());
    let copying = watch(&pad("sink"), gst::PadProbeType::BUFFER, move |info| {
        let began = ThreadTime::now();
        // Into room of its own, as the element's is while the model has not seen it.
        held.lock().unwrap().push(info.buffer()?.copy_deep().unwrap());
        let took = began.elapsed();
        BEGAN.set(Some(ThreadTime::now()));
        Some(took)
    });
    let taking = watch(&pad("src"), gst::PadProbeType::BUFFER, |_| {
        BEGAN.take().map(|began| began.elapsed())
    });
    Costs { copying: Times(copying), taking: Times(taking) }
}
