// SPDX-License-Identifier: MPL-2.0
//! A camera's video as VP8, for all who look at it by WebRTC.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_utils::{ConsumptionLink, StreamProducer};
use parking_lot::Mutex;

/// Time of the encoder and of all who get its frames: that of the machine, from the same moment on.
const BASE: gst::ClockTime = gst::ClockTime::ZERO;
/// Between two frames: people watch, and processors have models to run.
const LEAST_INTERVAL: Duration = Duration::from_millis(60);
/// A camera that shows nothing for so long has no video.
const SILENT: Duration = Duration::from_secs(30);
/// For the camera's thread to let go of a pad.
const PATIENCE: Duration = Duration::from_secs(5);

/// `deadline` and `cpu-used` are what realtime is. A key frame comes when one joins, and otherwise seldom.
const ENCODER: &str = "appsrc name=raw is-live=true do-timestamp=true format=time leaky-type=downstream \
    max-buffers=2 max-bytes=0 max-time=0 ! videoconvert ! video/x-raw,format=I420 ! \
    vp8enc deadline=1 cpu-used=8 threads=1 lag-in-frames=0 end-usage=cbr target-bitrate=1500000 \
    keyframe-max-dist=150 static-threshold=100 ! appsink name=frames";

/// Makes VP8 of a camera's raw video for as long as it lives, in a pipeline of its own.
pub struct Encoder {
    camera: gst::Pipeline,
    tee: gst::Element,
    tee_pad: gst::Pad,
    /// In the camera's pipeline; its name tells the camera that its errors are not the camera's.
    tap: gst::Bin,
    pipeline: gst::Pipeline,
    frames: StreamProducer,
    newest: Arc<Mutex<Instant>>,
}

impl Encoder {
    /// Waits for states of elements: not for threads that must not wait.
    pub fn attach(camera: &gst::Pipeline, tee: &gst::Element) -> Result<Self, String> {
        let text = |error: gst::glib::Error| error.to_string();
        let pipeline = gst::parse::launch(ENCODER).map_err(text)?;
        let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "no pipeline")?;
        let raw = app_src(&pipeline, "raw")?;
        let frames = pipeline.by_name("frames").and_downcast::<gst_app::AppSink>();
        let frames = frames.ok_or("no appsink")?;
        let frames = StreamProducer::with(
            &frames,
            gstreamer_utils::streamproducer::ProducerSettings { sync: false },
        );
        share_time(&pipeline);

        let newest = Arc::new(Mutex::new(Instant::now()));
        let sink = gst_app::AppSink::builder().sync(false).async_(false).max_buffers(1).drop(true);
        let sink = sink.callbacks(pass_on(raw, newest.clone())).build();
        let queue = gst::ElementFactory::make("queue")
            .property_from_str("leaky", "downstream")
            .property("max-size-buffers", 1u32)
            .property("max-size-bytes", 0u32)
            .property("max-size-time", 0u64)
            .build()
            .map_err(|error| error.to_string())?;
        let tap = gst::Bin::with_name(&format!("viewer-{}", uuid::Uuid::now_v7().simple()));
        let boolean = |error: gst::glib::BoolError| error.to_string();
        tap.add_many([&queue, sink.upcast_ref()]).map_err(boolean)?;
        queue.link(&sink).map_err(boolean)?;
        let entrance = queue.static_pad("sink").ok_or("a queue without a pad")?;
        let entrance = gst::GhostPad::with_target(&entrance).map_err(boolean)?;
        tap.add_pad(&entrance).map_err(boolean)?;

        pipeline.set_state(gst::State::Playing).map_err(|_| "the encoder does not start")?;
        // From here on, dropping `encoder` undoes what has been done.
        let tee_pad = tee.request_pad_simple("src_%u").ok_or("the camera's tee has no pad")?;
        let (camera, tee) = (camera.clone(), tee.clone());
        let encoder = Encoder { camera, tee, tee_pad, tap, pipeline, frames, newest };
        encoder.camera.add(&encoder.tap).map_err(boolean)?;
        encoder.tap.sync_state_with_parent().map_err(boolean)?;
        encoder.tee_pad.link(&entrance).map_err(|error| error.to_string())?;
        Ok(encoder)
    }

    /// Has `consumer` get every frame from the next key frame on, which comes at once.
    pub fn feed(&self, consumer: &gst_app::AppSrc) -> Result<ConsumptionLink, String> {
        self.frames.add_consumer(consumer).map_err(|error| error.to_string())
    }

    /// Whether the camera has shown something lately.
    pub fn has_video(&self) -> bool {
        self.newest.lock().elapsed() < SILENT
    }
}

impl Drop for Encoder {
    /// Never waits, nor does the camera.
    fn drop(&mut self) {
        let parts = (self.camera.clone(), self.tee.clone(), self.tee_pad.clone(), self.tap.clone());
        let pipeline = self.pipeline.clone();
        let detach = move || {
            detach(&parts.0, &parts.1, &parts.2, &parts.3);
            let _ = pipeline.set_state(gst::State::Null);
        };
        let thread = std::thread::Builder::new().name("encoder end".into()).spawn(detach);
        if let Err(error) = thread {
            tracing::warn!("an encoder is not stopped: {error}");
        }
    }
}

fn detach(camera: &gst::Pipeline, tee: &gst::Element, tee_pad: &gst::Pad, tap: &gst::Bin) {
    let (unlinked, done) = mpsc::channel();
    tee_pad.add_probe(gst::PadProbeType::IDLE, move |pad, _| {
        if let Some(peer) = pad.peer() {
            let _ = pad.unlink(&peer);
        }
        let _ = unlinked.send(());
        gst::PadProbeReturn::Remove
    });
    // A pipeline that is being stopped may hold its pads; it takes them along.
    let _ = done.recv_timeout(PATIENCE);
    tee.release_request_pad(tee_pad);
    let _ = tap.set_state(gst::State::Null);
    let _ = camera.remove(tap);
}

/// Hands the camera's frames to the encoder, not too many, and without the camera's times: those may jump.
fn pass_on(raw: gst_app::AppSrc, newest: Arc<Mutex<Instant>>) -> gst_app::AppSinkCallbacks {
    let mut last = None::<Instant>;
    let mut caps = None::<gst::Caps>;
    gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let now = Instant::now();
            *newest.lock() = now;
            if last.is_some_and(|last| now - last < LEAST_INTERVAL) {
                return Ok(gst::FlowSuccess::Ok);
            }
            last = Some(now);
            if caps.as_deref() != sample.caps() {
                caps = sample.caps_owned();
                raw.set_caps(caps.as_ref());
            }
            if let Some(mut buffer) = sample.buffer_owned() {
                let own = buffer.make_mut();
                own.set_pts(None);
                own.set_dts(None);
                own.set_duration(None);
                // One that is stopping takes no more; that is no fault of the camera's.
                let _ = raw.push_buffer(buffer);
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .build()
}

/// Frames keep their times from one pipeline to the next.
pub fn share_time(pipeline: &gst::Pipeline) {
    pipeline.use_clock(Some(&gst::SystemClock::obtain()));
    pipeline.set_start_time(gst::ClockTime::NONE);
    pipeline.set_base_time(BASE);
}

/// The `appsrc` of this name.
pub fn app_src(pipeline: &gst::Pipeline, name: &str) -> Result<gst_app::AppSrc, String> {
    pipeline.by_name(name).and_downcast().ok_or_else(|| format!("no appsrc {name}"))
}
