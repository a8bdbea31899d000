// SPDX-License-Identifier: MPL-2.0
//! A run, READY to PAUSED and back, and what happens in it: the rooms brought together.

use std::sync::Arc;

use glib::subclass::prelude::*;
use gst::ClockTime;
use gst::prelude::*;
use gst_base::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;

use super::StreamKvqa;
use crate::element::answer::{Record, Status};
use crate::element::bus::{self, CAT};
use crate::element::enums::{Leaky, ResetOn, TextTimestamp};
use crate::element::inlet::Way;
use crate::element::question::Question;
use crate::element::questions_file::{self, FileError};
use crate::element::settings::{DEFAULT_RATE, Fault};
use crate::element::text_pad::TextPad;
use crate::element::video::Sight;
use crate::element::worker::{Drained, Refused, Worker};

/// From start to stop.
impl StreamKvqa {
    /// Checks everything that can be checked without the model, and begins to load it.
    pub(super) fn start_run(&self) -> Result<(), gst::StateChangeError> {
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
                Fault::Engine(error) => bus::engine_error(self.obj().upcast_ref(), &error),
            }
            gst::StateChangeError
        })?;
        let from_file = settings.questions_file.as_deref().map(questions_file::read);
        let from_file = from_file.unwrap_or(Ok(Vec::new())).map_err(|error| {
            let kind = match &error {
                FileError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                    gst::ResourceError::NotFound
                }
                FileError::Read { .. } => gst::ResourceError::OpenRead,
                FileError::Line { .. } => gst::ResourceError::Settings,
            };
            gst::element_imp_error!(self, kind, ("{error}"));
            gst::StateChangeError
        })?;

        self.video.begin();
        self.inlet.begin();
        let model = self.model.lock().take().filter(|(old, _)| *old == key).map(|(_, model)| model);
        let outlet = Arc::clone(&self.outlet);
        let worker = Worker::start(outlet, settings, &key, model).map_err(|error| {
            gst::element_imp_error!(self, gst::ResourceError::NoSpaceLeft, ("no thread: {error}"));
            gst::StateChangeError
        })?;
        *self.worker.lock() = Some(Arc::new(worker));
        self.inlet.add(from_file);
        self.arm_question();
        Ok(())
    }

    /// Before the parent's state change: that waits for the streaming thread, which may wait for
    /// the engine.
    pub(super) fn stop_run(&self) {
        let worker = self.worker.lock().take();
        let Some(worker) = worker else { return };
        let (model, unanswered) = worker.stop();
        if let Some(text) = self.text() {
            text.stop();
        }
        if let (Some(model), Ok(key)) = (model, self.settings().load_key()) {
            *self.model.lock() = Some((key, model));
        }
        let scheduled = self.inlet.end();
        for asked in unanswered {
            self.outlet.post(&Record::unanswered(asked.question, asked.at, Status::Cancelled));
        }
        for question in scheduled {
            gst::debug!(CAT, imp = self, "question {} never fell due", question.id);
        }
        self.outlet.forget_metas();
    }

    /// The end: what never fell due is asked now, and pending answers are waited for.
    pub(super) fn end(&self, worker: &Worker) {
        let text = self.waiting_text();
        self.inlet.ask_at_end(self.is_lossless(), Way { worker, text: text.as_deref() });
        let timeout = self.settings.lock().eos_timeout;
        if let Drained::TimedOut(pending) = worker.drain(timeout.map(Into::into)) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Busy,
                ("{pending} questions were not answered within eos-timeout and are cancelled")
            );
        }
    }

    pub(super) fn reset(&self, on: ResetOn) {
        if self.settings.lock().reset_on == on {
            gst::debug!(CAT, imp = self, "forgetting everything: {on:?}");
            self.clear_memory();
        }
    }
}

/// The video that passes.
impl StreamKvqa {
    /// Looks at one buffer; may wait for the engine where nothing may be lost.
    pub(super) fn observe(&self, worker: &Worker, buffer: &gst::BufferRef) -> Result<(), Refused> {
        worker.count(|counters| counters.frames_in += 1);
        let settings = self.settings();
        let live = self.is_live();
        let lossless = self.is_lossless();
        if lossless && settings.rate().is_none() {
            // The model says how often it wants to look; until then no frame may be judged.
            worker.wait_for_model()?;
        }
        let obj = self.obj();
        let clock = live.then(|| obj.current_running_time()).flatten();
        let rate = settings.rate().or_else(|| worker.recommended_rate()).unwrap_or(DEFAULT_RATE);
        let is_due = |running| self.inlet.is_due(running);
        let seen = self.video.look(obj.upcast_ref(), buffer, rate, clock, is_due);
        let Some(seen) = seen else { return Ok(()) };
        let broken = matches!(seen.sight, Sight::Broken);
        match seen.sight {
            Sight::Unsampled => {}
            Sight::Sample(sample) => {
                let time = worker.engine_time(seen.at, sample.speed, sample.period);
                worker.count(|counters| counters.taking += sample.took);
                worker.push(sample.shot, time, lossless)?;
            }
            Sight::Broken => {
                let reason = "the frames are marked as corrupted, as a gap or as not to be shown";
                worker.miss(reason, |counters| counters.broken += 1);
            }
            Sight::Unreadable(reason) => {
                worker.miss(&reason, |counters| counters.unreadable += 1);
            }
        }
        let running = seen.at.running;
        // Questions that wait for the first frame wait for one that is whole.
        if !broken || worker.has_seen() {
            worker.enter(seen.at)?;
            let waiting = self.waiting_text();
            self.inlet.ask_due(running, lossless, Way { worker, text: waiting.as_deref() })?;
        }
        if let Some(text) = self.text() {
            text.video(running, running.saturating_add(seen.duration));
        }
        Ok(())
    }

    /// Whether a full queue holds the video back.
    fn is_lossless(&self) -> bool {
        let leaky = self.settings.lock().leaky;
        match leaky {
            Leaky::Auto => !self.is_live(),
            Leaky::Never => true,
            Leaky::Always => false,
        }
    }

    fn is_live(&self) -> bool {
        if let Some(live) = self.video.live() {
            return live;
        }
        let mut query = gst::query::Latency::new();
        let live = self.obj().sink_pad().peer_query(&mut query) && query.result().0;
        self.video.set_live(live);
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

    /// The text pad, if its stream waits for answers.
    fn waiting_text(&self) -> Option<Arc<TextPad>> {
        let timestamp = self.settings.lock().text_timestamp;
        let waits = match timestamp {
            TextTimestamp::Question => true,
            TextTimestamp::Answer => false,
            TextTimestamp::Auto => self.video.live() != Some(true),
        };
        self.text().filter(|_| waits)
    }
}

/// Questions.
impl StreamKvqa {
    /// Refuses with a warning and 0.
    pub(super) fn ask_structure(&self, structure: &gst::StructureRef) -> u64 {
        match Question::from_structure(structure) {
            Ok(question) => {
                let (worker, text) = (self.worker(), self.waiting_text());
                let way = worker.as_deref().map(|worker| Way { worker, text: text.as_deref() });
                self.inlet.ask(question, way)
            }
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

    /// Asks what the property `question` says.
    pub(super) fn arm_question(&self) {
        if let Some(worker) = self.worker() {
            let text = self.waiting_text();
            let way = Way { worker: &worker, text: text.as_deref() };
            self.inlet.arm(&self.settings(), way);
        }
    }

    pub(super) fn cancel(&self, id: u64) -> bool {
        self.inlet.cancel(id, self.worker().as_deref())
    }

    pub(super) fn clear_memory(&self) {
        if let Some(worker) = self.worker() {
            worker.clear();
        }
    }
}
