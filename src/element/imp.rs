// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-streamkvqa
 * @title: streamkvqa
 * @short_description: answers questions about the video that passes
 *
 * Watches decoded video, remembers it as the compact KV memory of a Video-LLM and answers questions
 * about anything it has seen, at any time, without stopping the video. The video passes untouched;
 * frames are sampled by running time (`sample-rate`) and encoded on a thread of the element's own.
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
 * at.
 *
 * ## Live and not
 *
 * In a live pipeline the video never waits: when the model is slower, the oldest waiting sample is
 * dropped and counted in `stats`. Otherwise the element holds the video back and loses nothing.
 * The end of the stream waits for pending answers, up to `eos-timeout`.
 *
 * ## Example: subtitles that answer
 *
 * |[
 * gst-launch-1.0 filesrc location=demo.mp4 ! decodebin ! streamkvqa name=qa \
 *     model-path=models/toyworld questions-file=questions.jsonl ! fakesink \
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
 *     model-path=models/toyworld questions-file=questions.jsonl \
 *     text-template="Q: {question}{br}A: {answer}" ! videoconvert ! textoverlay name=overlay ! \
 *     videoconvert ! autovideosink qa.text ! queue ! overlay.text_sink
 * ]|
 *
 * Since: 0.1.0
 */
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use glib::subclass::Signal;
use glib::subclass::prelude::*;
use gst::ClockTime;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::BaseTransformMode;
use gst_base::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;
use gstreamer_video as gst_video;
use parking_lot::Mutex;

use super::answer::{Record, Status};
use super::question::{self, Question, Seen};
use super::sampler::Reader;
use super::schedule::Schedule;
use super::settings::{self, Fault, Settings};
use super::shared_model::LoadKey;
use super::text_pad::TextPad;
use super::video::Video;
use super::worker::{Refused, Worker};
use crate::VideoLlm;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("streamkvqa", gst::DebugColorFlags::empty(), Some("Video questions"))
});

/// Lock order: `video`, `schedule`, then one of the leaves (all others). No lock is held while
/// something is pushed, posted, emitted or queried, and none while a thread waits for the engine.
#[derive(Default)]
pub struct StreamKvqa {
    pub(super) settings: Mutex<Settings>,
    pub(super) video: Mutex<Video>,
    pub(super) schedule: Mutex<Schedule>,
    pub(super) worker: Mutex<Option<Arc<Worker>>>,
    pub(super) text: Mutex<Option<Arc<TextPad>>>,
    /// Kept over READY, so that a second run need not load again.
    pub(super) model: Mutex<Option<(LoadKey, Arc<VideoLlm>)>>,
    /// The standing question of the `question` property.
    pub(super) standing: Mutex<Option<u64>>,
    pub(super) seen: Mutex<Seen>,
    pub(super) metas: Mutex<VecDeque<Record>>,
    pub(super) last_answer: Mutex<Option<String>>,
}

impl StreamKvqa {
    pub(super) fn settings(&self) -> Settings {
        self.settings.lock().clone()
    }

    pub(super) fn worker(&self) -> Option<Arc<Worker>> {
        self.worker.lock().clone()
    }

    pub(super) fn text(&self) -> Option<Arc<TextPad>> {
        self.text.lock().clone()
    }
}

/// A run: READY to PAUSED, and back.
impl StreamKvqa {
    /// Checks everything that can be checked without the model, and begins to load it.
    fn start_run(&self) -> Result<(), gst::StateChangeError> {
        let settings = self.settings();
        let key = settings.load_key().and_then(|key| {
            settings.recipe(None)?;
            settings.check_store()?;
            Ok(key)
        });
        let key = key.map_err(|fault| {
            match fault {
                Fault::Unset(text) => {
                    gst::element_imp_error!(self, gst::ResourceError::Settings, ("{text}"));
                }
                Fault::Engine(error) => self.post_engine_error(&error),
            }
            gst::StateChangeError
        })?;
        let from_file = settings.questions_file.as_deref().map(question::from_file);
        let from_file = from_file.unwrap_or(Ok(Vec::new())).map_err(|error| {
            let text = error.to_string();
            match error {
                question::FileError::Read { source, .. }
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    gst::element_imp_error!(self, gst::ResourceError::NotFound, ("{text}"));
                }
                question::FileError::Read { .. } => {
                    gst::element_imp_error!(self, gst::ResourceError::OpenRead, ("{text}"));
                }
                question::FileError::Line { .. } => {
                    gst::element_imp_error!(self, gst::ResourceError::Settings, ("{text}"));
                }
            }
            gst::StateChangeError
        })?;

        *self.video.lock() = Video::default();
        *self.seen.lock() = Seen::default();
        let model = self.model.lock().take().filter(|(old, _)| *old == key).map(|(_, model)| model);
        let worker = Worker::start(&self.obj(), settings, &key, model).map_err(|error| {
            gst::element_imp_error!(self, gst::ResourceError::NoSpaceLeft, ("no thread: {error}"));
            gst::StateChangeError
        })?;
        *self.worker.lock() = Some(Arc::new(worker));
        {
            let mut schedule = self.schedule.lock();
            for question in from_file {
                schedule.add(Arc::new(Question { id: question::next_id(), ..question }));
            }
        }
        self.arm_question();
        Ok(())
    }

    /// Before the parent's state change: that waits for the streaming thread, which may wait for
    /// the engine.
    fn stop_run(&self) {
        let worker = self.worker.lock().take();
        let Some(worker) = worker else { return };
        let (model, unanswered) = worker.stop();
        if let Some(text) = self.text() {
            text.stop();
        }
        if let (Some(model), Ok(key)) = (model, self.settings().load_key()) {
            *self.model.lock() = Some((key, model));
        }
        *self.standing.lock() = None;
        let scheduled = self.schedule.lock().clear();
        for asked in unanswered {
            self.post_answer(&Record::unanswered(asked.question, asked.at, Status::Cancelled));
        }
        for question in scheduled {
            gst::debug!(CAT, imp = self, "question {} never fell due", question.id);
        }
        self.metas.lock().clear();
    }
}

#[glib::object_subclass]
impl ObjectSubclass for StreamKvqa {
    const NAME: &'static str = "GstStreamKvqa";
    type Type = super::StreamKvqa;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for StreamKvqa {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_passthrough(true);
    }

    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !self.settings.lock().set(value, pspec) {
            gst::warning!(CAT, imp = self, "property {} cannot be set", pspec.name());
        }
        if matches!(pspec.name(), "question" | "question-interval") {
            self.arm_question();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "last-answer" => self.last_answer.lock().to_value(),
            "pending" => self.worker().map_or(0, |worker| worker.pending()).to_value(),
            "stats" => self.stats().to_value(),
            _ => self.settings.lock().get(pspec).unwrap_or_else(|| pspec.default_value().clone()),
        }
    }

    fn signals() -> &'static [Signal] {
        static SIGNALS: LazyLock<Vec<Signal>> = LazyLock::new(question::signals);
        &SIGNALS
    }
}

impl StreamKvqa {
    fn stats(&self) -> gst::Structure {
        let (counters, memory, queue, users) =
            self.worker().map(|worker| worker.stats()).unwrap_or_default();
        let mean = |total: std::time::Duration, count: u64| {
            if count == 0 { 0.0 } else { total.as_secs_f64() * 1e3 / count as f64 }
        };
        gst::Structure::builder("streamkvqa/stats")
            .field("frames-in", counters.frames_in)
            .field("sampled", counters.sampled)
            .field("dropped", counters.dropped)
            .field("unreadable", counters.unreadable)
            .field("encoded", counters.encoded)
            .field("questions", counters.questions)
            .field("answers", counters.answers)
            .field("queue", queue as u64)
            .field("memory-bytes", memory.bytes)
            .field("device-bytes", memory.store.device)
            .field("host-bytes", memory.store.host)
            .field("disk-bytes", memory.store.disk)
            .field("blocks", memory.store.blocks)
            .field("hits", memory.store.hits)
            .field("loads", memory.store.loads)
            .field("lost-blocks", memory.store.lost)
            .field("units", memory.units)
            .field("open-frames", memory.open_frames)
            .field("segments", memory.segments)
            .field("encode-ms-per-frame", mean(counters.encoding, counters.encoded))
            .field("answer-ms", mean(counters.answering, counters.answers))
            .field("live", self.video.lock().live.unwrap_or(false))
            .field("model-loaded", users.is_some())
            .field("model-users", users.unwrap_or(0) as u64)
            .build()
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
        *self.text.lock() = Some(text.clone());
        let running = self.worker().is_some();
        if running && pad.set_active(true).is_err() {
            gst::warning!(CAT, imp = self, "cannot activate the text pad");
        }
        if self.obj().add_pad(&pad).is_err() {
            *self.text.lock() = None;
            return None;
        }
        if running {
            text.start();
        }
        Some(pad)
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let text = self.text.lock().take_if(|text| text.pad() == pad);
        if let Some(text) = text {
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
        let reader = match Reader::new(incaps, self.settings.lock().frame_size) {
            Ok(reader) => reader,
            Err(reason) => {
                gst::element_imp_error!(
                    self,
                    gst::StreamError::Format,
                    ("cannot read video of {incaps}: {reason}")
                );
                return Err(gst::loggable_error!(CAT, "cannot read {}: {}", incaps, reason));
            }
        };
        let fps = gst_video::VideoInfo::from_caps(incaps).ok().map(|info| info.fps());
        let changed = {
            let mut video = self.video.lock();
            video.frame_duration = fps.filter(|fps| fps.numer() > 0).and_then(|fps| {
                ClockTime::SECOND.mul_div_floor(
                    fps.denom().unsigned_abs().into(),
                    fps.numer().unsigned_abs().into(),
                )
            });
            video.reader = Some(reader);
            video.warned_map = false;
            video.caps.replace(incaps.clone()).is_some_and(|old| old != *incaps)
        };
        if changed {
            self.reset(super::ResetOn::Caps);
        }
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        let worker = self.worker();
        match event.view() {
            gst::EventView::StreamStart(_) => {
                {
                    let mut video = self.video.lock();
                    video.live = None;
                    if let Some((_, sampler)) = &mut video.sampler {
                        sampler.restart();
                    }
                }
                if let Some(worker) = &worker {
                    worker.break_epoch();
                }
                if let Some(text) = self.text() {
                    text.stream_start();
                }
                self.reset(super::ResetOn::StreamStart);
            }
            gst::EventView::Segment(segment) => {
                self.video.lock().segment = segment.segment().downcast_ref::<ClockTime>().cloned();
                if let Some(worker) = &worker {
                    worker.break_epoch();
                }
                self.reset(super::ResetOn::Segment);
            }
            gst::EventView::Gap(gap) => {
                let (start, duration) = gap.get();
                let segment = self.video.lock().segment.clone();
                let running = segment.and_then(|segment| segment.to_running_time(start));
                if let (Some(text), Some(running)) = (self.text(), running) {
                    text.video(running, running.saturating_add(duration.unwrap_or_default()));
                }
            }
            gst::EventView::FlushStart(_) => {
                if let Some(worker) = &worker {
                    worker.flush_start();
                }
                if let Some(text) = self.text() {
                    text.flush_start(event.clone());
                }
            }
            gst::EventView::FlushStop(flush) => {
                {
                    let mut video = self.video.lock();
                    video.segment = None;
                    video.last = None;
                    if let Some((_, sampler)) = &mut video.sampler {
                        sampler.restart();
                    }
                }
                if flush.resets_time() {
                    self.schedule.lock().restart();
                }
                if let Some(worker) = &worker {
                    worker.flush_stop();
                }
                if let Some(text) = self.text() {
                    text.flush_stop(event.clone());
                }
                self.reset(super::ResetOn::Flush);
            }
            gst::EventView::Eos(_) => {
                if let Some(worker) = &worker {
                    self.end(worker);
                }
                if let Some(text) = self.text() {
                    text.end();
                }
            }
            gst::EventView::CustomDownstream(custom) => {
                if let Some(handled) = self.ask_event(custom) {
                    return handled;
                }
            }
            _ => {}
        }
        self.parent_sink_event(event)
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
            self.observe(&worker, &inbuf).map_err(|refused| match refused {
                Refused::Flushing => gst::FlowError::Flushing,
                Refused::Failed => gst::FlowError::Error,
            })?;
        }
        self.attach_metas(&mut inbuf);
        self.parent_submit_input_buffer(is_discont, inbuf)
    }
}
