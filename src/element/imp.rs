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
use std::time::{SystemTime, UNIX_EPOCH};

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
use super::question::{self, Question, Schedule, When};
use super::sampler::{Reader, Sampler};
use super::settings::{self, Fault, Settings};
use super::shared_model::LoadKey;
use super::text_pad::TextPad;
use super::timeline::Moment;
use super::worker::{Drained, Refused, Worker};
use super::{Leaky, ResetOn, TextFormat, TextTimestamp};
use crate::{EngineError, Frame, VideoLlm};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("streamkvqa", gst::DebugColorFlags::empty(), Some("Video questions"))
});

/// Frames per second, where neither the user nor the model says.
const DEFAULT_RATE: f64 = 1.0;
/// Assumed duration of a frame about which nothing is known.
const DEFAULT_DURATION: ClockTime = ClockTime::from_mseconds(40);
/// Answers that wait for a video buffer to carry them.
const MAX_METAS: usize = 64;
/// Events seen lately; one upstream event arrives once per sink.
const MAX_SEQNUMS: usize = 64;

/// What the streaming thread knows of the video.
#[derive(Default)]
struct Video {
    segment: Option<gst::FormattedSegment<ClockTime>>,
    caps: Option<gst::Caps>,
    reader: Option<Reader>,
    /// From the caps; `None` for a variable frame rate.
    frame_duration: Option<ClockTime>,
    sampler: Option<(f64, Sampler)>,
    /// `None` until the first frame, and again after a new stream-start.
    live: Option<bool>,
    /// Running time and duration of the last buffer.
    last: Option<(ClockTime, ClockTime)>,
    warned_pts: bool,
    warned_map: bool,
}

/// Upstream events that have been seen.
#[derive(Default)]
struct Seen {
    asks: VecDeque<gst::Seqnum>,
    seek: Option<gst::Seqnum>,
}

/// Lock order: `video`, `schedule`, then one of the leaves (all others). No lock is held while
/// something is pushed, posted, emitted or queried, and none while a thread waits for the engine.
#[derive(Default)]
pub struct StreamKvqa {
    settings: Mutex<Settings>,
    video: Mutex<Video>,
    schedule: Mutex<Schedule>,
    worker: Mutex<Option<Arc<Worker>>>,
    text: Mutex<Option<Arc<TextPad>>>,
    /// Kept over READY, so that a second run need not load again.
    model: Mutex<Option<(LoadKey, Arc<VideoLlm>)>>,
    /// The standing question of the `question` property.
    standing: Mutex<Option<u64>>,
    seen: Mutex<Seen>,
    metas: Mutex<VecDeque<Record>>,
    last_answer: Mutex<Option<String>>,
}

impl StreamKvqa {
    pub(super) fn settings(&self) -> Settings {
        self.settings.lock().clone()
    }

    fn worker(&self) -> Option<Arc<Worker>> {
        self.worker.lock().clone()
    }

    fn text(&self) -> Option<Arc<TextPad>> {
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

/// Questions in.
impl StreamKvqa {
    /// Asks now if a frame has entered, else at the first frame or whenever the question says.
    fn ask(&self, question: Question) -> u64 {
        let id = question::next_id();
        let question = Arc::new(Question { id, ..question });
        gst::debug!(CAT, imp = self, "question {id}: {:?}", question.text);
        match self.worker() {
            Some(worker) if question.when == When::Now && worker.has_seen() => {
                self.ask_now(&worker, question);
            }
            _ => self.schedule.lock().add(question),
        }
        id
    }

    fn ask_now(&self, worker: &Worker, question: Arc<Question>) {
        let text = self.text().filter(|_| self.text_waits());
        worker.ask(question, |asked| {
            if let (Some(text), Some(at)) = (&text, asked.at) {
                text.hold(asked.number, at.running);
            }
        });
    }

    /// Refuses with a warning and 0.
    fn ask_structure(&self, structure: &gst::StructureRef) -> u64 {
        match Question::from_structure(structure) {
            Ok(question) => self.ask(question),
            Err(reason) => {
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::Settings,
                    ("question refused: {reason}"),
                    ["{structure:?}"]
                );
                0
            }
        }
    }

    fn cancel(&self, id: u64) -> bool {
        let scheduled = self.schedule.lock().remove(id);
        let worker = self.worker();
        let running = worker.as_ref().is_some_and(|worker| worker.cancel(id));
        let found = scheduled.is_some() || running;
        if let (Some(question), Some(worker), false) = (scheduled, worker, running) {
            worker.report(question, Status::Cancelled);
        }
        found
    }

    fn clear_memory(&self) {
        if let Some(worker) = self.worker() {
            worker.clear();
        }
    }

    /// Puts the `question` property on the schedule, in place of what it said before.
    fn arm_question(&self) {
        let Some(worker) = self.worker() else { return };
        let settings = self.settings();
        if let Some(id) = self.standing.lock().take() {
            self.schedule.lock().remove(id);
        }
        let Some(Ok(question)) = settings.question.as_deref().map(Question::new) else { return };
        let interval = settings.question_interval;
        let playing = worker.has_seen();
        let when = match (interval > ClockTime::ZERO, playing) {
            (true, _) => When::Every { from: playing.then_some(ClockTime::ZERO), interval },
            (false, true) => When::Now,
            (false, false) => When::AtEnd,
        };
        let id = self.ask(Question { when, ..question });
        *self.standing.lock() = Some(id);
    }

    /// A custom event, from either side; `None` if it is somebody else's.
    fn ask_event(&self, event: &gst::EventRef) -> Option<bool> {
        let structure = event.structure().filter(|s| s.name() == question::EVENT_NAME)?;
        let element = structure.get::<Option<String>>("element").ok().flatten();
        if element.is_some_and(|name| name != self.obj().name()) {
            return None;
        }
        {
            let mut seen = self.seen.lock();
            if seen.asks.contains(&event.seqnum()) {
                return Some(true);
            }
            if seen.asks.len() == MAX_SEQNUMS {
                seen.asks.pop_front();
            }
            seen.asks.push_back(event.seqnum());
        }
        self.ask_structure(structure);
        Some(true)
    }

    /// Upstream events of the video's source pad and of the text pad; `Err` goes on.
    fn upstream_event(&self, event: gst::Event) -> Result<bool, gst::Event> {
        match event.view() {
            gst::EventView::CustomUpstream(custom) => self.ask_event(custom).map_or(Err(event), Ok),
            gst::EventView::Seek(_) => {
                // Both pads get the same seek when a pipeline is sought.
                let seqnum = event.seqnum();
                if self.seen.lock().seek.replace(seqnum) == Some(seqnum) {
                    return Ok(true);
                }
                Err(event)
            }
            _ => Err(event),
        }
    }
}

/// Answers out; called from the inference thread.
impl StreamKvqa {
    pub(super) fn emit_token(&self, id: u64, token: &str) {
        self.obj().emit_by_name::<()>("token", &[&id, &question::without_nul(token)]);
    }

    /// Carries a record out in every shape; `unchanged` ones only end their asking.
    pub(super) fn deliver(&self, number: u64, record: Record, unchanged: bool) {
        let settings = self.settings();
        if let Some(text) = self.text() {
            let line = match settings.text_format {
                TextFormat::Json => Some(record.json()),
                TextFormat::Plain if record.status == Status::Ok => {
                    Some(record.plain(&settings.text_template))
                }
                TextFormat::Plain => None,
            };
            let line = line.filter(|line| !unchanged && !line.is_empty());
            text.release_hold(number, line.map(|line| (line, settings.text_duration)));
        }
        if unchanged {
            return;
        }
        if record.status == Status::Ok {
            *self.last_answer.lock() = Some(record.text.clone());
            let mut metas = self.metas.lock();
            if metas.len() == MAX_METAS {
                metas.pop_front();
            }
            metas.push_back(record.clone());
            drop(metas);
            self.obj().notify("last-answer");
        }
        self.post_answer(&record);
        // Last, because a handler may stop the pipeline.
        self.obj().emit_by_name::<()>("answer", &[&record.structure()]);
    }

    pub(super) fn post_answer(&self, record: &Record) {
        gst::info!(
            CAT,
            imp = self,
            "answer {}: {:?} ({:?})",
            record.question.id,
            record.text,
            record.status
        );
        if self.settings.lock().post_messages {
            let obj = self.obj();
            let message = gst::message::Element::builder(record.structure()).src(&*obj).build();
            let _ = obj.post_message(message);
        }
    }

    pub(super) fn post_progress(&self, kind: gst::ProgressType, code: &str, text: &str) {
        let obj = self.obj();
        let text = question::without_nul(text);
        let message = gst::message::Progress::builder(kind, code, &text).src(&*obj).build();
        let _ = obj.post_message(message);
    }

    pub(super) fn post_engine_error(&self, error: &EngineError) {
        let text = question::without_nul(&error.to_string());
        let detail = format!("{error:?}");
        match error {
            EngineError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::NotFound,
                    ("{text}"),
                    ["{detail}"]
                );
            }
            EngineError::Read { .. } => {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::OpenRead,
                    ("{text}"),
                    ["{detail}"]
                );
            }
            EngineError::UnknownMethod { .. } | EngineError::Option { .. } => {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::Settings,
                    ("{text}"),
                    ["{detail}"]
                );
            }
            EngineError::Compute(_) => {
                gst::element_imp_error!(self, gst::LibraryError::Failed, ("{text}"), ["{detail}"]);
            }
            _ => {
                gst::element_imp_error!(self, gst::ResourceError::Failed, ("{text}"), ["{detail}"]);
            }
        }
    }

    pub(super) fn post_engine_warning(&self, error: &EngineError) {
        let text = question::without_nul(&error.to_string());
        gst::element_imp_warning!(self, gst::StreamError::Failed, ("{text}"), ["{error:?}"]);
    }
}

/// The video that passes.
impl StreamKvqa {
    /// Looks at one buffer; may wait for the engine where nothing may be lost.
    fn observe(&self, worker: &Worker, buffer: &gst::BufferRef) -> Result<(), Refused> {
        worker.count(|counters| counters.frames_in += 1);
        let settings = self.settings();
        let live = self.is_live();
        let lossless = match settings.leaky {
            Leaky::Auto => !live,
            Leaky::Never => true,
            Leaky::Always => false,
        };
        if lossless && settings.rate().is_none() {
            // The model says how often it wants to look; until then no frame may be judged.
            worker.wait_for_model()?;
        }
        let clock = live.then(|| self.obj().current_running_time()).flatten();
        let rate = settings.rate().or_else(|| worker.recommended_rate()).unwrap_or(DEFAULT_RATE);
        let Some(seen) = self.look(worker, buffer, rate, clock) else { return Ok(()) };
        if let Some(frame) = seen.frame {
            worker.push(frame, lossless)?;
        }
        worker.enter(seen.at)?;
        loop {
            let due = self.schedule.lock().next_due(seen.at.running);
            let Some(question) = due else { break };
            if lossless && let Err(refused) = worker.wait_for_room() {
                self.schedule.lock().add(question);
                return Err(refused);
            }
            self.ask_now(worker, question);
        }
        if let Some(text) = self.text() {
            text.video(seen.at.running, seen.at.running.saturating_add(seen.duration));
        }
        Ok(())
    }

    /// Times the buffer and, if it is sampled, reads it. `None` for one outside of its segment.
    fn look(
        &self,
        worker: &Worker,
        buffer: &gst::BufferRef,
        rate: f64,
        clock: Option<ClockTime>,
    ) -> Option<Look> {
        let mut guard = self.video.lock();
        let video = &mut *guard;
        let mut warn_pts = false;
        let running = match (buffer.pts(), &video.segment) {
            (Some(pts), Some(segment)) => segment.to_running_time(pts)?,
            _ => {
                warn_pts = !std::mem::replace(&mut video.warned_pts, true);
                // Live buffers belong to now; others follow each other.
                let next = video.last.map(|(start, duration)| start.saturating_add(duration));
                clock.or(next).unwrap_or_default()
            }
        };
        let known = buffer.duration().filter(|duration| *duration > ClockTime::ZERO);
        let spacing = video.last.and_then(|(last, _)| running.checked_sub(last));
        let duration = known
            .or(video.frame_duration)
            .or(spacing.filter(|spacing| *spacing > ClockTime::ZERO))
            .unwrap_or(DEFAULT_DURATION)
            .min(ClockTime::from_seconds(1));
        video.last = Some((running, duration));
        let stream = match (buffer.pts(), &video.segment) {
            (Some(pts), Some(segment)) => segment.to_stream_time(pts),
            _ => None,
        };
        let at = Moment { running, stream, wall: wall_clock(buffer, running, clock) };

        if video.sampler.as_ref().is_none_or(|(old, _)| *old != rate) {
            video.sampler = Some((rate, Sampler::new(rate)));
        }
        let asked = self.schedule.lock().is_due(running);
        let mut frame = None;
        let mut unreadable = None;
        if let (Some((_, sampler)), Some(reader)) = (&mut video.sampler, &video.reader)
            && sampler.take(running, asked)
        {
            match reader.read(buffer) {
                Ok(picture) => {
                    let speed = video.segment.as_ref().map_or(1.0, |s| s.rate() * s.applied_rate());
                    let time = worker.engine_time(at, speed, sampler.period());
                    frame = Frame::new(picture.rgb, picture.width, picture.height, time).ok();
                }
                Err(reason) => {
                    worker.count(|counters| counters.unreadable += 1);
                    if !std::mem::replace(&mut video.warned_map, true) {
                        unreadable = Some((reason, video.caps.clone()));
                    }
                }
            }
        }
        drop(guard);
        if warn_pts {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("buffers without timestamps: their times are guessed")
            );
        }
        if let Some((reason, caps)) = unreadable {
            let caps = caps.map(|caps| caps.to_string()).unwrap_or_default();
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("cannot read a frame of {caps}: {reason}; the video goes on, the model misses frames")
            );
        }
        Some(Look { frame, at, duration })
    }

    fn is_live(&self) -> bool {
        if let Some(live) = self.video.lock().live {
            return live;
        }
        let mut query = gst::query::Latency::new();
        let live = self.obj().sink_pad().peer_query(&mut query) && query.result().0;
        self.video.lock().live = Some(live);
        let settings = self.settings();
        if live && settings.question.is_some() && settings.question_interval == ClockTime::ZERO {
            gst::element_imp_info!(
                self,
                gst::ResourceError::Settings,
                ("`question` without `question-interval` is asked at the end of this live stream")
            );
        }
        live
    }

    /// Whether the text stream waits for answers.
    fn text_waits(&self) -> bool {
        match self.settings.lock().text_timestamp {
            TextTimestamp::Question => true,
            TextTimestamp::Answer => false,
            TextTimestamp::Auto => self.video.lock().live != Some(true),
        }
    }

    fn attach_metas(&self, buffer: &mut gst::Buffer) {
        let records = std::mem::take(&mut *self.metas.lock());
        if records.is_empty() {
            return;
        }
        let buffer = buffer.make_mut();
        for record in records {
            if let Err(error) = record.attach(buffer) {
                gst::warning!(CAT, imp = self, "no {}: {error}", super::answer::META_NAME);
            }
        }
    }

    /// The end: what never fell due is asked now, and pending answers are waited for.
    fn end(&self, worker: &Worker) {
        let lossless = !(self.settings.lock().leaky == Leaky::Always || self.is_live());
        loop {
            let next = self.schedule.lock().next_at_end();
            let Some(question) = next else { break };
            if lossless && worker.wait_for_room().is_err() {
                break;
            }
            self.ask_now(worker, question);
        }
        let timeout = self.settings.lock().eos_timeout;
        if let Drained::TimedOut(pending) = worker.drain(timeout.map(Into::into)) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Busy,
                ("{pending} questions were not answered within eos-timeout and are cancelled")
            );
        }
    }

    fn reset(&self, on: ResetOn) {
        if self.settings.lock().reset_on == on {
            gst::debug!(CAT, imp = self, "forgetting everything: {on:?}");
            self.clear_memory();
        }
    }
}

/// One buffer as the element saw it.
struct Look {
    frame: Option<Frame>,
    at: Moment,
    duration: ClockTime,
}

/// Nanoseconds since 1970: from the sender, or from the local clock if the buffer belongs to now.
fn wall_clock(buffer: &gst::BufferRef, at: ClockTime, clock: Option<ClockTime>) -> Option<u64> {
    /// Seconds from 1900, where NTP counts from, to 1970.
    const NTP_TO_UNIX: u64 = 2_208_988_800_000_000_000;
    let sent = buffer.iter_meta::<gst::ReferenceTimestampMeta>().find_map(|meta| {
        let time = meta.timestamp().nseconds();
        match meta.reference().structure(0)?.name().as_str() {
            "timestamp/x-ntp" => time.checked_sub(NTP_TO_UNIX),
            "timestamp/x-unix" => Some(time),
            _ => None,
        }
    });
    sent.or_else(|| {
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos());
        now.ok()?.checked_add(at.nseconds())?.checked_sub(clock?.nseconds())
    })
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
        static SIGNALS: LazyLock<Vec<Signal>> = LazyLock::new(signals);
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
            .field("units", memory.units)
            .field("segments", memory.segments)
            .field("encode-ms-per-frame", mean(counters.encoding, counters.encoded))
            .field("answer-ms", mean(counters.answering, counters.answers))
            .field("live", self.video.lock().live.unwrap_or(false))
            .field("model-loaded", users.is_some())
            .field("model-users", users.unwrap_or(0) as u64)
            .build()
    }
}

fn signals() -> Vec<Signal> {
    /// The element that a signal was emitted on. GObject checks the types of all arguments.
    fn element(args: &[glib::Value]) -> Option<super::StreamKvqa> {
        args.first()?.get().ok()
    }
    vec![
        Signal::builder("ask")
            .param_types([String::static_type()])
            .return_type::<u64>()
            .action()
            .class_handler(|args| {
                let element = element(args)?;
                let text = args.get(1)?.get::<Option<String>>().ok()?.unwrap_or_default();
                let structure = gst::Structure::builder("ask").field("question", text).build();
                Some(element.imp().ask_structure(&structure).to_value())
            })
            .build(),
        Signal::builder("ask-full")
            .param_types([gst::Structure::static_type()])
            .return_type::<u64>()
            .action()
            .class_handler(|args| {
                let element = element(args)?;
                let structure = args.get(1)?.get::<Option<gst::Structure>>().ok()?;
                let structure = structure.unwrap_or_else(|| gst::Structure::new_empty("ask"));
                Some(element.imp().ask_structure(&structure).to_value())
            })
            .build(),
        Signal::builder("cancel")
            .param_types([u64::static_type()])
            .return_type::<bool>()
            .action()
            .class_handler(|args| {
                let element = element(args)?;
                let id = args.get(1)?.get().ok()?;
                Some(element.imp().cancel(id).to_value())
            })
            .build(),
        Signal::builder("clear-memory")
            .action()
            .class_handler(|args| {
                element(args)?.imp().clear_memory();
                None
            })
            .build(),
        Signal::builder("answer").param_types([gst::Structure::static_type()]).build(),
        Signal::builder("token").param_types([u64::static_type(), String::static_type()]).build(),
    ]
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

/// The text pad's functions.
impl StreamKvqa {
    fn text_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.type_() {
            // How late the text is says nothing about the video.
            gst::EventType::Qos | gst::EventType::Reconfigure => return true,
            // The video's source pad forwards it.
            gst::EventType::Latency => return true,
            _ => {}
        }
        match self.upstream_event(event) {
            Ok(handled) => handled,
            Err(event) => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn text_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(query) = query.view_mut() {
            let mut upstream = gst::query::Latency::new();
            if !self.obj().sink_pad().peer_query(&mut upstream) {
                return false;
            }
            let (live, min, max) = upstream.result();
            let own = self.settings.lock().latency;
            query.set(live, min.saturating_add(own), max.map(|max| max.saturating_add(own)));
            return true;
        }
        gst::Pad::query_default(pad, Some(&*self.obj()), query)
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
            self.reset(ResetOn::Caps);
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
                self.reset(ResetOn::StreamStart);
            }
            gst::EventView::Segment(segment) => {
                self.video.lock().segment = segment.segment().downcast_ref::<ClockTime>().cloned();
                if let Some(worker) = &worker {
                    worker.break_epoch();
                }
                self.reset(ResetOn::Segment);
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
                self.reset(ResetOn::Flush);
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
