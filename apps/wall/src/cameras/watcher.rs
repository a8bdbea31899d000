// SPDX-License-Identifier: MPL-2.0
//! A camera's pipeline without its source: the element that watches, and the branch that makes pictures.
//!
//! ```text
//! source --> tee --> streamkvqa --> fakesink
//!             +--> queue (leaky) --> videoconvertscale --> jpegenc --> appsink
//! ```
//!
//! Neither branch holds the other up: the element takes a frame and passes on, the queue drops what the encoder
//! has no time for.

mod pictures;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;
use jiff::Timestamp;
use parking_lot::Mutex;

pub use self::pictures::Pictures;
use super::{Input, Sender, reason};
use crate::config::CameraConfig;

const STATS_EVERY: Duration = Duration::from_secs(2);
/// What a viewer of live video may tap.
#[derive(Clone, Debug)]
pub struct Video {
    /// The camera's pipeline.
    pub pipeline: gst::Pipeline,
    /// Its raw video; pads are to be requested.
    pub tee: gst::Element,
}

/// How frames come.
#[derive(Debug)]
pub struct Flow {
    start: Instant,
    frames: AtomicU64,
    /// Milliseconds since `start`.
    last: AtomicU64,
    /// Whether the first frame since then has been told.
    told: AtomicBool,
}

impl Flow {
    /// Frames that came.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// How long ago the newest came.
    pub fn idle(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }

    /// The next frame is news, and the time without begins now.
    pub fn expect(&self) {
        self.touch();
        self.tell_next();
    }

    /// The next frame is news.
    pub fn tell_next(&self) {
        self.told.store(false, Ordering::Relaxed);
    }

    fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }
}

/// A pipeline at work. Dropping it stops it.
pub struct Watcher {
    pipeline: gst::Pipeline,
    tee: gst::Element,
    entry: gst::Pad,
    qa: gst::Element,
    /// How frames come.
    pub flow: Arc<Flow>,
    errors: Arc<Mutex<Vec<(gst::Object, String)>>>,
}

impl Watcher {
    /// Builds the pipeline and starts it; messages and tokens come in with `number`.
    ///
    /// # Errors
    /// Says what is missing or wrong.
    pub fn start(
        config: &CameraConfig,
        model: Option<&str>,
        memory: Option<&Path>,
        number: u64,
        pictures: Pictures,
        inputs: &Sender,
    ) -> Result<Self, String> {
        let pipeline = gst::Pipeline::new();
        // A source may have a clock of its own, which would go with it.
        pipeline.use_clock(Some(&gst::SystemClock::obtain()));
        let tee = make("tee", "gstreamer1.0")?;
        // While a source is built anew there is nobody to push, and a viewer that leaves is no fault.
        tee.set_property("allow-not-linked", true);
        let qa = element(config, model, memory)?;
        let end = make("fakesink", "gstreamer1.0")?;
        end.set_property("sync", false);
        end.set_property("async", false);
        let said = |error: gst::glib::BoolError| error.to_string();
        pipeline.add_many([&tee, &qa, &end]).map_err(said)?;
        gst::Element::link_many([&tee, &qa, &end]).map_err(said)?;
        let entry = tee.static_pad("sink").ok_or("tee has no sink")?;
        let flow = Arc::new(Flow {
            start: Instant::now(),
            frames: AtomicU64::new(0),
            last: AtomicU64::new(0),
            told: AtomicBool::new(true),
        });
        stamp(&entry, &flow, number, inputs);
        pictures::attach(&pipeline, &tee, pictures)?;
        let tokens = inputs.clone();
        qa.connect("token", false, move |values| {
            let id = values.get(1).and_then(|value| value.get::<u64>().ok());
            let text = values.get(2).and_then(|value| value.get::<String>().ok());
            if let Some((id, text)) = id.zip(text) {
                let _ = tokens.send(Input::Token(number, id, text));
            }
            None
        });
        let errors = Arc::new(Mutex::new(Vec::new()));
        listen(&pipeline, &errors, number, inputs)?;
        let watcher = Watcher { pipeline, tee, entry, qa, flow, errors };
        if watcher.pipeline.set_state(gst::State::Playing).is_err() {
            let qa = watcher.qa.clone();
            return Err(watcher
                .last_error(&qa)
                .unwrap_or_else(|| "the pipeline does not start".into()));
        }
        Ok(watcher)
    }

    /// The pipeline.
    pub fn pipeline(&self) -> &gst::Pipeline {
        &self.pipeline
    }

    /// Where a source is linked to.
    pub fn entry(&self) -> gst::Pad {
        self.entry.clone()
    }

    /// What viewers may tap.
    pub fn video(&self) -> Video {
        Video { pipeline: self.pipeline.clone(), tee: self.tee.clone() }
    }

    /// Whether something that happened is the element's.
    pub fn is_element(&self, object: &gst::Object) -> bool {
        object == self.qa.upcast_ref::<gst::Object>()
    }

    /// The last error of an element or of what is in it, once.
    pub fn last_error(&self, of: &impl IsA<gst::Object>) -> Option<String> {
        let errors = std::mem::take(&mut *self.errors.lock());
        let is_of = |object: &gst::Object| {
            object == of.upcast_ref::<gst::Object>() || object.has_as_ancestor(of)
        };
        errors.into_iter().find(|(object, _)| is_of(object)).map(|(_, text)| text)
    }

    /// Asks the element; returns its number for the question.
    ///
    /// # Errors
    /// Says why it does not take it.
    pub fn ask(&self, question: gst::Structure) -> Result<u64, String> {
        self.errors.lock().clear();
        match self.qa.emit_by_name::<u64>("ask-full", &[&question]) {
            0 => Err(self
                .last_error(&self.qa)
                .unwrap_or_else(|| "the element does not take it".into())),
            number => Ok(number),
        }
    }

    /// Takes a question back.
    pub fn cancel(&self, number: u64) {
        self.qa.emit_by_name::<bool>("cancel", &[&number]);
    }

    /// Running time of now, and the time of day.
    pub fn now(&self) -> (gst::ClockTime, Timestamp) {
        (self.pipeline.current_running_time().unwrap_or_default(), Timestamp::now())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Writes the memory to its file.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn make(name: &str, package: &str) -> Result<gst::Element, String> {
    gst::ElementFactory::make(name)
        .build()
        .map_err(|_| format!("GStreamer has no {name} (Debian: {package})"))
}

/// The element with its properties.
fn element(
    config: &CameraConfig,
    model: Option<&str>,
    memory: Option<&Path>,
) -> Result<gst::Element, String> {
    let qa = make("streamkvqa", "gstreamer1.0-streamkvqa; `make build` where it is not installed")?;
    if let Some(model) = config.model.as_deref().or(model) {
        qa.set_property("model-path", model);
    }
    // As cameras do: what the model has no time for is lost to it, and the picture goes on.
    qa.set_property_from_str("leaky", "always");
    qa.set_property("stats-interval", u64::try_from(STATS_EVERY.as_nanos()).unwrap_or(0));
    if let Some(memory) = memory {
        qa.set_property("memory-path", memory.to_str().ok_or("the memory's path is not UTF-8")?);
        if let Some(seconds) = config.autosave {
            qa.set_property("autosave-interval", (seconds * 1e9) as u64);
        }
    }
    for (name, value) in &config.properties {
        let fault = |said: &str| format!("property {name} = \"{value}\": {said}");
        let spec =
            qa.find_property(name).ok_or_else(|| fault("the element has no such property"))?;
        if !spec.flags().contains(gst::glib::ParamFlags::WRITABLE) {
            return Err(fault("it can only be read"));
        }
        let value = gst::glib::Value::deserialize_with_pspec(value, &spec).map_err(|_| {
            fault(&format!("the element wants a value of type {}", spec.value_type()))
        })?;
        qa.set_property_from_value(name, &value);
    }
    Ok(qa)
}

/// Counts frames, and writes on each when it came: by that the element tells evidence of today and of earlier
/// runs, and pictures are found by it.
fn stamp(entry: &gst::Pad, flow: &Arc<Flow>, number: u64, inputs: &Sender) {
    let (flow, inputs) = (flow.clone(), inputs.clone());
    let unix = gst::Caps::new_empty_simple("timestamp/x-unix");
    entry.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        flow.frames.fetch_add(1, Ordering::Relaxed);
        flow.touch();
        if !flow.told.swap(true, Ordering::Relaxed) {
            let _ = inputs.send(Input::Flowing(number));
        }
        if let Some(buffer) = info.buffer_mut() {
            let now = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default();
            let buffer = buffer.make_mut();
            // A camera's own clock may be wrong, and all that is compared with it here is by this one.
            buffer.foreach_meta_mut(|mut meta| {
                let is_clock = meta.downcast_ref::<gst::ReferenceTimestampMeta>().is_some();
                let keep = if is_clock {
                    gst::buffer::BufferMetaForeachAction::Remove
                } else {
                    gst::buffer::BufferMetaForeachAction::Keep
                };
                std::ops::ControlFlow::Continue(keep)
            });
            gst::ReferenceTimestampMeta::add(
                buffer,
                &unix,
                gst::ClockTime::from_nseconds(now),
                gst::ClockTime::NONE,
            );
        }
        gst::PadProbeReturn::Ok
    });
}

/// What is posted goes to the camera's thread; errors are at hand for whoever has just caused them.
fn listen(
    pipeline: &gst::Pipeline,
    errors: &Arc<Mutex<Vec<(gst::Object, String)>>>,
    number: u64,
    inputs: &Sender,
) -> Result<(), String> {
    let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
    let (errors, inputs) = (errors.clone(), inputs.clone());
    bus.set_sync_handler(move |_, message| {
        use gst::MessageView;
        let sender = message.src();
        let text = match message.view() {
            MessageView::Error(error) => {
                Some(reason::of(sender, &error.error(), error.debug().as_deref()))
            }
            MessageView::Warning(warning) => {
                Some(reason::of(sender, &warning.error(), warning.debug().as_deref()))
            }
            MessageView::Element(_) | MessageView::Progress(_) => None,
            _ => return gst::BusSyncReply::Drop,
        };
        if let Some((object, text)) = sender.cloned().zip(text) {
            let mut errors = errors.lock();
            if errors.len() < 16 {
                errors.push((object, text));
            }
        }
        let _ = inputs.send(Input::Message(number, message.clone()));
        gst::BusSyncReply::Drop
    });
    Ok(())
}
