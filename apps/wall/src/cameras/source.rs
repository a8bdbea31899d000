// SPDX-License-Identifier: MPL-2.0
//! Where a camera's video comes from: a bin that is built anew for each try and leaves the rest of the pipeline,
//! and with it what is remembered, as it is.

use std::path::Path;

use gst::prelude::*;
use gstreamer as gst;

use super::watcher::Watcher;
use super::{Input, Sender};
use crate::config::CameraConfig;

/// What a source is to be: plain pictures in main memory.
const WANTED: &str = "video/x-raw";
/// Microseconds after which a server that says nothing is given up.
const TIMEOUT_US: u64 = 5_000_000;

/// A source at work. [`Source::stop`] takes it out of the pipeline.
pub struct Source {
    bin: gst::Bin,
    /// Which of the camera's tries it is.
    pub number: u64,
}

impl Source {
    /// Puts a source into the pipeline and starts it. What happens to it comes in as [`Input`] with its number.
    ///
    /// # Errors
    /// Says what is wrong with the description, or why it does not start.
    pub fn start(
        config: &CameraConfig,
        number: u64,
        watcher: &Watcher,
        inputs: &Sender,
    ) -> Result<Self, String> {
        let (bin, decoder) = build(config)?;
        // It goes to its state by itself. Else the pipeline would be taken back with it whenever it connects, and one
        // that fails in the middle of that would leave the pipeline, and all sources after it, paused for ever.
        bin.set_property("async-handling", true);
        let tee = watcher.entry();
        let (inner, events, pipeline) =
            (bin.downgrade(), inputs.clone(), watcher.pipeline().downgrade());
        decoder.connect_pad_added(move |_, pad| {
            let (Some(bin), Some(pipeline)) = (inner.upgrade(), pipeline.upgrade()) else { return };
            if !pad.query_caps(None).iter().any(|structure| structure.name().starts_with("video/"))
            {
                return;
            }
            if let Err(error) = connect(&bin, pad, &tee, &pipeline, number, &events) {
                let _ = events.send(Input::SourceFailed(
                    number,
                    format!("its video cannot be taken: {error}"),
                ));
            }
        });
        let (inner, events) = (bin.downgrade(), inputs.clone());
        decoder.connect_no_more_pads(move |_| {
            let has_video = inner.upgrade().is_some_and(|bin| bin.static_pad("src").is_some());
            if !has_video {
                let _ = events
                    .send(Input::SourceFailed(number, "there is no video in this stream".into()));
            }
        });
        let source = Source { bin, number };
        watcher.pipeline().add(&source.bin).map_err(|error| error.to_string())?;
        if source.bin.set_state(gst::State::Playing).is_err() {
            // The bus knows more, and what it says comes in before anything else.
            let reason =
                watcher.last_error(&source.bin).unwrap_or_else(|| "it does not start".into());
            source.stop(watcher);
            return Err(reason);
        }
        Ok(source)
    }

    /// Whether something that happened is the source's.
    pub fn has(&self, object: &gst::Object) -> bool {
        object == self.bin.upcast_ref::<gst::Object>() || object.has_as_ancestor(&self.bin)
    }

    /// Ends it; the rest of the pipeline plays on without video.
    pub fn stop(self, watcher: &Watcher) {
        // Locked, so that the pipeline does not start it again while it goes.
        self.bin.set_locked_state(true);
        let _ = self.bin.set_state(gst::State::Null);
        let _ = watcher.pipeline().remove(&self.bin);
    }
}

/// The source's bin, and the element in it that brings out pads.
fn build(config: &CameraConfig) -> Result<(gst::Bin, gst::Element), String> {
    let caps = gst::Caps::new_empty_simple(WANTED);
    if let Some(pipeline) = &config.pipeline {
        let description = format!("{pipeline} ! decodebin name=wall-decoder");
        let bin = gst::parse::bin_from_description(&description, false)
            .map_err(|error| error.message().to_string())?;
        let decoder = bin.by_name("wall-decoder").ok_or("there is no decodebin")?;
        decoder.set_property("caps", caps);
        decoder.set_property("expose-all-streams", false);
        return Ok((bin, decoder));
    }
    let uri = address(config.uri.as_deref().unwrap_or_default())?;
    let decoder = gst::ElementFactory::make("uridecodebin")
        .property("uri", uri)
        .property("caps", caps)
        .property("expose-all-streams", false)
        .build()
        .map_err(|_| "GStreamer's base plugins are missing (gstreamer1.0-plugins-base)")?;
    decoder.connect("source-setup", false, |values| {
        if let Some(source) = values.get(1).and_then(|value| value.get::<gst::Element>().ok()) {
            set_up(&source);
        }
        None
    });
    let bin = gst::Bin::new();
    bin.add(&decoder).map_err(|error| error.to_string())?;
    Ok((bin, decoder))
}

/// A URI as it is, a path as one.
fn address(uri: &str) -> Result<String, String> {
    if uri.contains("://") {
        return Ok(uri.to_owned());
    }
    let path = std::path::absolute(Path::new(uri)).map_err(|error| error.to_string())?;
    gst::glib::filename_to_uri(path, None).map(Into::into).map_err(|error| error.to_string())
}

/// Properties of sources that have them: over TCP, and giving up in time.
fn set_up(source: &gst::Element) {
    let Some(factory) = source.factory() else { return };
    match factory.name().as_str() {
        "rtspsrc" => {
            // From the beginning, as through a firewall: with UDP first, five seconds go by before it is tried.
            source.set_property_from_str("protocols", "tcp");
            source.set_property("tcp-timeout", TIMEOUT_US);
            source.set_property("latency", 200u32);
        }
        "souphttpsrc" => {
            source.set_property("timeout", 10u32);
            source.set_property("retries", 1i32);
            source.set_property("is-live", false);
        }
        _ => {}
    }
}

/// From a decoder's pad to the tee: `clocksync ! src`. What is not live is played as fast as it was filmed.
fn connect(
    bin: &gst::Bin,
    pad: &gst::Pad,
    tee: &gst::Pad,
    pipeline: &gst::Pipeline,
    number: u64,
    inputs: &Sender,
) -> Result<(), String> {
    if bin.static_pad("src").is_some() {
        // A second video in the same stream.
        return Ok(());
    }
    let mut latency = gst::query::Latency::new();
    let is_live = pad.query(&mut latency) && latency.result().0;
    if !is_live {
        // Its times begin at 0, the pipeline's went on.
        let now = pipeline.current_running_time().unwrap_or_default();
        pad.set_offset(i64::try_from(now.nseconds()).unwrap_or_default());
    }
    let pace = gst::ElementFactory::make("clocksync")
        .property("sync", !is_live)
        .build()
        .map_err(|_| "GStreamer has no clocksync")?;
    bin.add(&pace).map_err(|error| error.to_string())?;
    let (sink, src) = (pace.static_pad("sink"), pace.static_pad("src"));
    let (sink, src) = sink.zip(src).ok_or("clocksync has no pads")?;
    let out = gst::GhostPad::builder_with_target(&src)
        .map_err(|error| error.to_string())?
        .name("src")
        .build();
    // The end of this source is not the end of the camera.
    let events = inputs.clone();
    out.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| match info.event() {
        Some(event) if event.type_() == gst::EventType::Eos => {
            let _ = events.send(Input::SourceEnded(number));
            gst::PadProbeReturn::Handled
        }
        _ => gst::PadProbeReturn::Ok,
    });
    out.set_active(true).map_err(|error| error.to_string())?;
    bin.add_pad(&out).map_err(|error| error.to_string())?;
    if let Some(before) = tee.peer() {
        let _ = before.unlink(tee);
    }
    out.link(tee).map_err(|error| error.to_string())?;
    pace.sync_state_with_parent().map_err(|error| error.to_string())?;
    pad.link(&sink).map(drop).map_err(|error| error.to_string())
}
