// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-streamkvqa
 * @title: streamkvqa
 * @short_description: answers questions about the video that passes
 *
 * Watches decoded video, remembers it as the compact KV memory of a Video-LLM and answers questions
 * about anything it has seen, at any time, without stopping the video. The video passes untouched;
 * frames are sampled by running time (`sample-rate`) and encoded on a thread of the element's own.
 * `active=false` stops the looking, at run time: what was seen is kept, and asked about as before.
 *
 * ## Questions
 *
 * A question is answered as of the newest frame that had entered the element when it was asked, or
 * as of its `at` running time. Ask with the `ask` and `ask-full` action signals, a custom event
 * `streamkvqa/ask` (upstream or downstream, with the fields of `ask-full` and, where there are
 * several elements, `element`), the properties `question` and `question-interval`, or a
 * `questions-file`. A question asked before the first frame is answered as of the first frame; one
 * that is due only after the end of the stream is answered at its end.
 *
 * ## Answers
 *
 * An element message `streamkvqa/answer`, the signals `answer` and `token`, a buffer on the request
 * pad `text` (subtitles, overlay or JSON Lines), a `StreamKvqaAnswerMeta` on the next video buffer
 * and the property `last-answer`. The evidence says which stretches of the video an answer looked
 * at, `frame-age` how long ago the newest frame had come in when it was asked; `json` is all of it as
 * one text, with times in seconds.
 *
 * Every question gets exactly one last word (`last` is true): `ok`, `cancelled` (by `cancel`, a
 * flush, `eos-timeout`, another `question`, or the stop), `dropped` or `error`. Answers to a standing
 * question come before its last word, which is `cancelled`.
 *
 * ## Standing questions
 *
 * `interval` asks again and again, `on` when the picture changes or upstream has seen something
 * (`trigger-classes`, or a custom event `streamkvqa/trigger`). With `choices` the model decides between
 * answers; with `when` an element message and signal `streamkvqa/alert`, `alert` say that the answer has
 * become that one (`status=began`) or no longer is (`ceased`), since when, and on what evidence.
 *
 * ## Live and not
 *
 * In a live pipeline the video never waits: when the model is slower, the oldest waiting sample is
 * dropped and counted in `stats`. Otherwise the element holds the video back and loses nothing.
 * The end of the stream, or of a segment that loops, waits for pending answers, up to `eos-timeout`.
 * While the element holds a file back, QoS events stop here: a decoder would skip frames.
 *
 * When a live source delivers nothing, standing questions fall due by the pipeline's clock, and after
 * `stall-timeout` an element message `streamkvqa/video` says `status=stopped`; one with
 * `status=resumed` follows. Both carry `element`, `last-frame`, `frame-age` and `json`.
 *
 * ## Time
 *
 * `at` and `interval` count running time for as long as the frames' stamps are plausible. A clock
 * that starts again goes on for them, and a single stamp far ahead or back changes nothing.
 *
 * ## A memory that survives
 *
 * `memory-path` names a file that what is remembered is read from at the start and written to at the stop,
 * every `autosave-interval` and by the signal `save-memory`, as a whole or not at all. An element message
 * `streamkvqa/memory` tells of it (`status=restored` or `saved`). Evidence of an earlier run says `restored`.
 *
 * ## What the model sees
 *
 * What a viewer would see: crop meta, `image-orientation` tags, pixel aspect ratio and overlay meta
 * are applied to the model's copy of a sampled frame, never to the buffer. Buffers marked as
 * corrupted, as a gap or as decode-only are not sampled. Video that cannot be read passes with one
 * warning that says what to put in front.
 *
 * ## Statistics
 *
 * The structure `stats`: `frames-in` buffers came, `broken` of them hold no picture to remember;
 * `sampled` frames were copied for the model, which took `take-ms-per-frame` of the streaming thread;
 * `dropped` of them waited too long, `unreadable` ones could not be read, `encoded` ones are in the
 * memory, `encode-ms-per-frame` each. The property's description has the rest.
 *
 * ## Example: subtitles that answer
 *
 * |[
 * gst-launch-1.0 filesrc location=demo.mp4 ! decodebin ! streamkvqa name=qa \
 *     model-path=models/everyday questions-file=questions.jsonl ! fakesink \
 *     qa.text ! srtenc ! filesink location=answers.srt
 * ]|
 *
 * ## Example: a camera that is asked every ten seconds
 *
 * |[
 * gst-launch-1.0 -m videotestsrc is-live=true pattern=ball ! streamkvqa model-path=models/toyworld \
 *     question="what color is the ball?" question-interval=10000000000 ! videoconvert ! autovideosink
 * ]|
 *
 * ## Example: questions and answers in the picture
 *
 * |[
 * gst-launch-1.0 filesrc location=demo.mp4 ! decodebin ! streamkvqa name=qa \
 *     model-path=models/everyday questions-file=questions.jsonl \
 *     text-template="Q: {question}{br}A: {answer}" ! videoconvert ! textoverlay name=overlay ! \
 *     videoconvert ! autovideosink qa.text ! queue ! overlay.text_sink
 * ]|
 *
 * Since: 0.1.0
 */
mod events;
mod live;
mod run;
mod signals;

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use glib::subclass::Signal;
use glib::subclass::prelude::*;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::BaseTransformMode;
use gst_base::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;
use parking_lot::Mutex;

use super::bus::CAT;
use super::detections::Detections;
use super::enums::ResetOn;
use super::inlet::Inlet;
use super::outlet::Outlet;
use super::picture;
use super::settings::Settings;
use super::shared_model::LoadKey;
use super::text_pad::TextPad;
use super::video::Video;
use super::watch::Watch;
use super::worker::{Refused, Worker};
use super::{properties, stats};
use crate::VideoLlm;

/// Lock order: `video`, then one of the leaves (all others, those of the rooms included). No lock
/// is held while something is pushed, posted, emitted or queried, and none while a thread waits for
/// the engine.
pub struct StreamKvqa {
    settings: Arc<Mutex<Settings>>,
    video: Video,
    inlet: Inlet,
    outlet: Arc<Outlet>,
    watch: Watch,
    /// Posts statistics.
    reporter: Watch,
    detections: Mutex<Detections>,
    /// From READY to READY.
    worker: Mutex<Option<Arc<Worker>>>,
    /// Kept over READY, so that a second run need not load again.
    model: Mutex<Option<(LoadKey, Arc<VideoLlm>)>>,
}

impl StreamKvqa {
    fn settings(&self) -> Settings {
        self.settings.lock().clone()
    }

    fn worker(&self) -> Option<Arc<Worker>> {
        self.worker.lock().clone()
    }

    fn text(&self) -> Option<Arc<TextPad>> {
        self.outlet.text()
    }

    /// What the property `stats` says of a run.
    fn stats(&self, worker: Option<&Worker>) -> gst::Structure {
        let known = |id| worker.and_then(|worker| worker.standing(id));
        let asked = self.inlet.standing().into_iter();
        let asked: Vec<_> = asked.map(|question| (known(question.id), question)).collect();
        let stats = worker.map(Worker::stats).unwrap_or_default();
        stats::structure(&stats, &asked, self.video.live().unwrap_or(false))
    }
}

#[glib::object_subclass]
impl ObjectSubclass for StreamKvqa {
    const NAME: &'static str = "GstStreamKvqa";
    type Type = super::StreamKvqa;
    type ParentType = gst_base::BaseTransform;

    fn new() -> Self {
        let settings = Arc::default();
        Self {
            outlet: Arc::new(Outlet::new(Arc::clone(&settings))),
            settings,
            video: Video::default(),
            inlet: Inlet::default(),
            watch: Watch::default(),
            reporter: Watch::default(),
            detections: Mutex::default(),
            worker: Mutex::default(),
            model: Mutex::default(),
        }
    }
}

impl ObjectImpl for StreamKvqa {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_passthrough(true);
        self.outlet.belong_to(self.obj().upcast_ref());
    }

    fn properties() -> &'static [glib::ParamSpec] {
        properties::properties()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let running = self.worker().is_some();
        let changed = {
            let mut settings = self.settings.lock();
            let before = settings.get(pspec);
            if !settings.set(value, pspec) {
                gst::warning!(CAT, imp = self, "property {} cannot be set", pspec.name());
            }
            running
                && before
                    .zip(settings.get(pspec))
                    .is_some_and(|(old, new)| old.compare(&new) != Some(Ordering::Equal))
        };
        match pspec.name() {
            "question" | "question-interval" => self.arm_question(),
            "latency" if changed => {
                let obj = self.obj();
                let _ = obj.post_message(gst::message::Latency::builder().src(&*obj).build());
            }
            name if changed && !pspec.flags().contains(gst::PARAM_FLAG_MUTABLE_PLAYING) => {
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::Settings,
                    ("{name} was set while the element runs; it takes effect at the next start, \
                      from READY to PAUSED")
                );
            }
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let worker = self.worker();
        match pspec.name() {
            "last-answer" => self.outlet.last_answer().to_value(),
            "pending" => {
                let asked = worker.map_or(0, |worker| worker.pending());
                let pending = asked.saturating_add(self.inlet.owed());
                u32::try_from(pending).unwrap_or(u32::MAX).to_value()
            }
            "stats" => self.stats(worker.as_deref()).to_value(),
            _ => self.settings.lock().get(pspec).unwrap_or_else(|| pspec.default_value().clone()),
        }
    }

    fn signals() -> &'static [Signal] {
        static SIGNALS: LazyLock<Vec<Signal>> = LazyLock::new(signals::all);
        &SIGNALS
    }
}

impl GstObjectImpl for StreamKvqa {}

impl ElementImpl for StreamKvqa {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Streaming video question answering",
                "Filter/Analyzer/Video/AI",
                "Answers questions about the video that passes, from the KV memory of a Video-LLM",
                env!("CARGO_PKG_AUTHORS"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let video = gst::Caps::builder_full()
                .structure(gst::Structure::new_empty("video/x-raw"))
                .structure_with_any_features(gst::Structure::new_empty("video/x-raw"))
                .build();
            let text = gst::Caps::builder("text/x-raw").field("format", "utf8").build();
            let template = |name, direction, presence, caps: &gst::Caps| {
                gst::PadTemplate::new(name, direction, presence, caps)
            };
            [
                template("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &video),
                template("src", gst::PadDirection::Src, gst::PadPresence::Always, &video),
                template("text", gst::PadDirection::Src, gst::PadPresence::Request, &text),
            ]
            .into_iter()
            .filter_map(Result::ok)
            .collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        _name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        if self.text().is_some() {
            gst::warning!(CAT, imp = self, "there is one text pad; put a tee behind it");
            return None;
        }
        let pad = gst::Pad::builder_from_template(template)
            .name("text")
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.text_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.text_query(pad, query))
            })
            .build();
        let text = TextPad::new(pad.clone());
        let running = self.worker().is_some();
        if running && pad.set_active(true).is_err() {
            gst::warning!(CAT, imp = self, "cannot activate the text pad");
        }
        if self.obj().add_pad(&pad).is_err() {
            return None;
        }
        self.outlet.set_text(Arc::clone(&text));
        if running {
            text.start();
        }
        Some(pad)
    }

    fn release_pad(&self, pad: &gst::Pad) {
        if let Some(text) = self.outlet.take_text(pad) {
            text.release();
            let _ = self.obj().remove_pad(pad);
        }
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.start_run()?,
            gst::StateChange::PlayingToPaused => {
                self.expect_no_video();
                if let Some(text) = self.text() {
                    text.pause();
                }
            }
            gst::StateChange::PausedToReady => self.stop_run(),
            _ => {}
        }
        let result = self.parent_change_state(transition);
        match (transition, &result) {
            (gst::StateChange::ReadyToPaused, Ok(_)) => {
                if let Some(text) = self.text() {
                    text.start();
                }
            }
            (gst::StateChange::ReadyToPaused, Err(_)) => self.stop_run(),
            (gst::StateChange::PausedToPlaying, Ok(_)) => self.expect_video(),
            (gst::StateChange::ReadyToNull, _) => *self.model.lock() = None,
            _ => {}
        }
        result
    }
}

impl BaseTransformImpl for StreamKvqa {
    const MODE: BaseTransformMode = BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = true;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        if self.video.set_caps(incaps) {
            self.reset(ResetOn::Caps);
        }
        Ok(())
    }

    fn propose_allocation(
        &self,
        decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        self.parent_propose_allocation(decide_query, query)?;
        picture::withdraw_unreadable(query);
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match self.downstream_event(&event) {
            Some(handled) => handled,
            None => self.parent_sink_event(event),
        }
    }

    fn src_event(&self, event: gst::Event) -> bool {
        match self.upstream_event(event) {
            Ok(handled) => handled,
            Err(event) => self.parent_src_event(event),
        }
    }

    fn submit_input_buffer(
        &self,
        is_discont: bool,
        mut inbuf: gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        if let Some(worker) = self.worker() {
            let observed = self.observe(&worker, &inbuf);
            self.video.pass();
            observed.map_err(|refused| match refused {
                Refused::Flushing => gst::FlowError::Flushing,
                Refused::Failed => gst::FlowError::Error,
            })?;
        }
        self.outlet.attach_metas(&mut inbuf);
        self.parent_submit_input_buffer(is_discont, inbuf)
    }
}
