// SPDX-License-Identifier: MPL-2.0
//! A run, READY to PAUSED and back, and what happens in it: the rooms brought together.

use std::sync::Arc;
use std::time::Instant;

use glib::subclass::prelude::*;
use gst::prelude::*;
use gstreamer as gst;

use super::StreamKvqa;
use crate::element::answer::{Record, Status};
use crate::element::bus::{self, CAT};
use crate::element::detections::Detections;
use crate::element::enums::{ResetOn, TextTimestamp};
use crate::element::inlet::Way;
use crate::element::question::Question;
use crate::element::questions_file::{self, FileError};
use crate::element::sampler::Wish;
use crate::element::settings::{DEFAULT_RATE, Fault};
use crate::element::text_pad::TextPad;
use crate::element::timeline::Moment;
use crate::element::video::Sight;
use crate::element::worker::{Drained, Refused, Watcher, Worker};
use crate::snapshot::Claim;

/// From start to stop.
impl StreamKvqa {
    /// Checks everything that can be checked without the model, and begins to load it.
    pub(super) fn start_run(&self) -> Result<(), gst::StateChangeError> {
        let settings = self.settings();
        let key = settings.load_key().and_then(|key| {
            settings.recipe(None)?;
            settings.check_store()?;
            Ok((key, settings.memory_path().map(Claim::of).transpose()?))
        });
        let (key, claim) = key.map_err(|fault| {
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
        *self.detections.lock() = Detections::default();
        self.watch.open();
        self.reporter.open();
        let model = self.model.lock().take().filter(|(old, _)| *old == key).map(|(_, model)| model);
        let outlet = Arc::clone(&self.outlet);
        let watcher = Box::new(Changes(self.obj().downgrade()));
        let worker =
            Worker::start(outlet, watcher, settings, claim, (&key, model)).map_err(|error| {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::NoSpaceLeft,
                    ("no thread: {error}")
                );
                gst::StateChangeError
            })?;
        *self.worker.lock() = Some(Arc::new(worker));
        self.report_statistics();
        self.inlet.add(from_file);
        self.arm_question();
        Ok(())
    }

    /// Posts what `stats` says, again and again.
    fn report_statistics(&self) {
        let Some(interval) = self.settings.lock().stats_interval else { return };
        let (element, mut first) = (self.obj().downgrade(), true);
        self.reporter.start(move || {
            let element = element.upgrade()?;
            let worker = element.imp().worker()?;
            if !std::mem::take(&mut first) {
                bus::message(element.upcast_ref(), element.imp().stats(Some(&worker)));
            }
            Some(interval.into())
        });
    }

    /// Before the parent's state change: that waits for the streaming thread, which may wait for
    /// the engine.
    pub(super) fn stop_run(&self) {
        let worker = self.worker.lock().take();
        let Some(worker) = worker else { return };
        self.watch.stop();
        self.reporter.stop();
        let ended = worker.stop();
        if let Some(text) = self.text() {
            text.stop();
        }
        if let Some(model) = ended.model {
            *self.model.lock() = Some((worker.key().clone(), model));
        }
        self.outlet.forget_metas();
        for record in &ended.unsaid {
            self.outlet.last_word(record);
        }
        for question in self.inlet.end() {
            let status = ended.failure.clone().map_or(Status::Cancelled, Status::Error);
            self.outlet.last_word(&Record::last_word(question, status));
        }
    }

    /// The end: what never fell due is asked now, and pending answers are waited for.
    pub(super) fn end(&self, worker: &Worker) {
        let text = self.waiting_text();
        let timeout = self.settings.lock().eos_timeout;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout.into()));
        self.inlet.ask_at_end(self.is_lossless(), deadline, self.way(worker, &text));
        if let Drained::TimedOut(pending) = worker.drain(deadline) {
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

/// Tells the questions that wait for it that the picture has changed.
struct Changes(glib::WeakRef<crate::element::StreamKvqa>);

impl Watcher for Changes {
    fn wants_changes(&self) -> bool {
        self.0.upgrade().is_some_and(|element| element.imp().inlet.wants_changes())
    }

    fn changed(&self, at: Moment) {
        let Some(element) = self.0.upgrade() else { return };
        let imp = element.imp();
        let Some(worker) = imp.worker() else { return };
        let text = imp.waiting_text();
        imp.inlet.changed(at, imp.way(&worker, &text));
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
        if lossless && settings.active && worker.rate().is_none() {
            // The model says how often it wants to look; until then no frame may be judged.
            worker.wait_for_model()?;
        }
        let obj = self.obj();
        let clock = live.then(|| obj.current_running_time()).flatten();
        let rate = settings.active.then(|| worker.rate().unwrap_or(DEFAULT_RATE));
        let mut detected = false;
        let wish = |time| {
            detected = self.detections.lock().look(buffer, &settings.trigger_classes, time);
            match (detected, self.inlet.is_due(time)) {
                (true, _) => Wish::Detected,
                (_, true) => Wish::Asked,
                _ => Wish::None,
            }
        };
        let seen = self.video.look(obj.upcast_ref(), buffer, rate, clock, wish);
        let Some(seen) = seen else { return Ok(()) };
        if let Some(away) = seen.away {
            self.video_resumed(away);
        }
        let broken = matches!(seen.sight, Sight::Broken);
        let looked = settings.active && !broken && !matches!(seen.sight, Sight::Unreadable(_));
        match seen.sight {
            Sight::Unsampled => {}
            Sight::Sample(sample) => {
                let time = worker.engine_time(seen.at, seen.time, sample.speed, sample.period);
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
        // Questions that wait for the first frame wait for one that is whole.
        if !broken || worker.has_seen() {
            worker.enter(seen.at, looked)?;
            let waiting = self.waiting_text();
            let way = self.way(worker, &waiting);
            if detected {
                self.inlet.detected(lossless, way)?;
            }
            self.inlet.ask_due(seen.time, lossless, way)?;
        }
        if let Some(text) = self.text() {
            let start = seen.at.running;
            text.video(start, start.saturating_add(seen.duration), seen.pass);
        }
        Ok(())
    }

    /// The text pad, if its stream waits for answers.
    pub(super) fn waiting_text(&self) -> Option<Arc<TextPad>> {
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
    /// The way of a question; `text` is where its answer is waited for.
    pub(super) fn way<'a>(&'a self, worker: &'a Worker, text: &'a Option<Arc<TextPad>>) -> Way<'a> {
        Way { worker, outlet: &self.outlet, text: text.as_deref() }
    }

    /// Refuses with a warning and 0.
    pub(super) fn ask_structure(&self, structure: &gst::StructureRef) -> u64 {
        match Question::from_structure(structure) {
            Ok(question) => {
                let (worker, text) = (self.worker(), self.waiting_text());
                let way = worker.as_deref().map(|worker| self.way(worker, &text));
                let id = self.inlet.ask(question, way);
                self.watch.wake();
                id
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
            self.inlet.arm(&self.settings(), self.way(&worker, &text));
            self.watch.wake();
        }
    }

    pub(super) fn cancel(&self, id: u64) -> bool {
        if let Some(worker) = self.worker() {
            return self.inlet.cancel(id, self.way(&worker, &None));
        }
        let question = self.inlet.take(id);
        if let Some(question) = question.clone() {
            self.outlet.last_word(&Record::last_word(question, Status::Cancelled));
        }
        question.is_some()
    }

    /// Whether there is something that can be saved, and where.
    pub(super) fn save_memory(&self) -> bool {
        let saves = self.worker().is_some_and(|worker| worker.save());
        if !saves {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("save-memory: nothing is saved while the element does not run or memory-path is not set")
            );
        }
        saves
    }

    pub(super) fn clear_memory(&self) {
        if let Some(worker) = self.worker() {
            worker.clear();
        }
    }
}
