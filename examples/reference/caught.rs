// SPDX-License-Identifier: MPL-2.0
//! Pipelines that make the element say all that it ever says.

use std::error::Error;

use gst::prelude::*;
use gstreamer as gst;

/// What came under one name.
pub struct Caught {
    pub title: &'static str,
    pub structures: Vec<gst::Structure>,
}

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ov-even");
const FRAME: usize = 3 * 56 * 56;

/// Every message and the meta.
///
/// # Errors
/// A pipeline does not run, or does not say what it should.
pub fn all() -> Result<Vec<Caught>, Box<dyn Error>> {
    let file = std::env::temp_dir().join(format!("reference-{}.memory", std::process::id()));
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=src is-live=true format=time caps=video/x-raw,format=RGB,width=56,height=56,framerate=10/1 ! \
         streamkvqa name=qa model-path={MODEL} max-tokens=3 stall-timeout=300000000 \
         memory-path={} autosave-interval=500000000 stats-interval=200000000 ! appsink name=sink sync=false async=false",
        file.display()
    ))?
    .downcast::<gst::Pipeline>()
    .map_err(|_| "not a pipeline")?;
    let qa = pipeline.by_name("qa").ok_or("no qa")?;
    let ask = |text: &str| gst::Structure::builder("ask").field("question", text);
    let standing = ask("is it?").field("choices", gst::List::new(["yes", "no"]));
    qa.emit_by_name::<u64>("ask-full", &[&standing.field("interval", 0.2f64).build()]);
    // A stretch of which nothing is known is an error.
    let lost = ask("then?").field("at", 0.4f64).field("from", "2026-05-01T08:30:00Z").build();
    qa.emit_by_name::<u64>("ask-full", &[&lost]);
    pipeline.set_state(gst::State::Playing)?;
    let src = pipeline.by_name("src").ok_or("no source")?;
    let sink = pipeline.by_name("sink").ok_or("no sink")?;

    let names = ["streamkvqa/answer", "streamkvqa/video", "streamkvqa/memory", "streamkvqa/stats"];
    let mut caught = names.map(|title| Caught { title, structures: Vec::new() });
    let mut metas = Vec::new();
    let bus = pipeline.bus().ok_or("no bus")?;
    let mut time = gst::ClockTime::ZERO;
    let began = std::time::Instant::now();
    // Frames, a silence that is told of, and frames again.
    while began.elapsed().as_secs() < 60 {
        let silent = caught[1].structures.is_empty() && time > gst::ClockTime::SECOND;
        if !silent {
            let mut buffer = gst::Buffer::from_mut_slice(vec![time.mseconds() as u8; FRAME]);
            if let Some(buffer) = buffer.get_mut() {
                buffer.set_pts(time);
                tell_time_of_day(buffer, time);
            }
            let _ = src.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]);
            time += gst::ClockTime::from_mseconds(100);
        }
        let wait = gst::ClockTime::from_mseconds(5).nseconds();
        while let Some(sample) =
            sink.emit_by_name::<Option<gst::Sample>>("try-pull-sample", &[&wait])
        {
            let buffer = sample.buffer().map(ToOwned::to_owned);
            let meta = buffer.as_ref().and_then(|buffer| {
                gst::meta::CustomMeta::from_buffer(buffer, "StreamKvqaAnswerMeta").ok()
            });
            metas.extend(meta.map(|meta| meta.structure().to_owned()));
        }
        while let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(60)) {
            if let gst::MessageView::Error(error) = message.view() {
                return Err(error.error().into());
            }
            let Some(structure) = message.structure() else { continue };
            if let Some(own) = caught.iter_mut().find(|own| own.title == structure.name()) {
                own.structures.push(structure.to_owned());
            }
        }
        let has = |of: usize, field: &str| {
            caught[of].structures.iter().any(|structure| structure.has_field(field))
        };
        let told = caught[1].structures.len() >= 2 && has(0, "error") && has(0, "choices");
        if told
            && !caught[2].structures.is_empty()
            && caught[3].structures.len() > 8
            && !metas.is_empty()
        {
            break;
        }
    }
    pipeline.set_state(gst::State::Null)?;
    std::fs::remove_file(&file)?;
    let mut caught: Vec<Caught> = caught.into();
    caught.insert(1, Caught { title: "streamkvqa/alert", structures: alerts()? });
    caught.push(Caught { title: "StreamKvqaAnswerMeta", structures: metas });
    match caught.iter().find(|own| own.structures.is_empty()) {
        Some(silent) => Err(format!("no {} came", silent.title).into()),
        None => Ok(caught),
    }
}

/// The time of day of a frame, as a camera tells it.
fn tell_time_of_day(buffer: &mut gst::BufferRef, time: gst::ClockTime) {
    let unix = gst::Caps::new_empty_simple("timestamp/x-unix");
    let wall = gst::ClockTime::from_seconds(1_700_000_000) + time;
    gst::ReferenceTimestampMeta::add(buffer, &unix, wall, gst::ClockTime::NONE);
}

/// What begins and ceases in the clip of the toy world.
fn alerts() -> Result<Vec<gst::Structure>, Box<dyn Error>> {
    let root = env!("CARGO_MANIFEST_DIR");
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={root}/examples/media/toyworld.webm ! matroskademux ! vp8dec ! \
         streamkvqa name=qa model-path={root}/models/toyworld method=rekv ! fakesink sync=false"
    ))?
    .downcast::<gst::Pipeline>()
    .map_err(|_| "not a pipeline")?;
    let shapes = gst::List::new(["circle", "square", "triangle", "cross", "ring", "diamond"]);
    let question = gst::Structure::builder("ask")
        .field("question", "what shape is it now?")
        .field("choices", shapes)
        .field("when", "cross")
        .field("interval", 1.0f64)
        .build();
    let qa = pipeline.by_name("qa").ok_or("no qa")?;
    qa.emit_by_name::<u64>("ask-full", &[&question]);
    let pad = qa.static_pad("sink").ok_or("no pad")?;
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            let time = buffer.pts().unwrap_or_default();
            tell_time_of_day(buffer.make_mut(), time);
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().ok_or("no bus")?;
    let mut alerts = Vec::new();
    for message in bus.iter_timed(gst::ClockTime::from_seconds(60)) {
        match message.view() {
            gst::MessageView::Error(error) => return Err(error.error().into()),
            gst::MessageView::Eos(_) => break,
            _ => {}
        }
        let alert = message.structure().filter(|alert| alert.name() == "streamkvqa/alert");
        alerts.extend(alert.map(ToOwned::to_owned));
    }
    pipeline.set_state(gst::State::Null)?;
    Ok(alerts)
}
