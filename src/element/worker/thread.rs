// SPDX-License-Identifier: MPL-2.0
//! What the inference thread does: it opens the stream once the model is there, then takes one
//! piece of work after the other from the queue. No lock is held while it computes or while
//! anything leaves the element.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;

use super::Shared;
use super::keeper::Keeper;
use super::queue::{Counters, End, Job, Queue, Running};
use super::recent::Pace;
use crate::element::answer::{Asked, Record, Status};
use crate::element::bus::{ENGINE, FRAMES};
use crate::element::picture::{Darkroom, Shot};
use crate::element::shared_model::Waiter;
use crate::model::text_image::TextImage;
use crate::model::{HubOptions, LoadProgress, LoadStep};
use crate::stream::Timings;
use crate::{Cancel, EngineError, Frame, LoadOptions, Recipe, Stream, StreamOptions, VideoLlm};

/// Progress messages come at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Bytes of RGB that are handed to the engine at once, or those of one frame.
const MAX_DEVELOPED: usize = 256 << 20;

/// What the thread does next.
enum Work {
    Open(Arc<VideoLlm>, Cancel),
    Fail(Arc<EngineError>),
    Report(Asked, End),
    Frames(Vec<(Shot, f64)>, Cancel),
    Ask(Asked, Cancel),
    Clear(Cancel),
    Save,
    /// Look at how old what is held is.
    Look,
}

impl Waiter for Shared {
    fn progress(&self, progress: &LoadProgress) {
        {
            let mut last = self.progress.lock();
            if last.is_some_and(|last| last.elapsed() < PROGRESS_INTERVAL) {
                return;
            }
            *last = Some(Instant::now());
        }
        let percent = progress.done.saturating_mul(100).checked_div(progress.total).unwrap_or(0);
        let LoadProgress { file, number, files, .. } = progress;
        let doing = match progress.step {
            LoadStep::Download => "Downloading",
            LoadStep::Read => "Loading",
        };
        let text = format!("{doing}: {percent} % ({file}, {number} of {files})");
        self.post_progress(gst::ProgressType::Continue, &text);
    }

    fn loaded(&self, result: Result<Arc<VideoLlm>, Arc<EngineError>>) {
        self.queue.lock().loaded = Some(result);
        self.changed.notify_all();
    }
}

impl Shared {
    pub fn run(self: &Arc<Self>) {
        if catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            let error = EngineError::Compute(candle_core::Error::Msg(
                "the engine panicked; please report this with the panic's message".into(),
            ));
            self.fail(&error);
            {
                let mut queue = self.queue.lock();
                queue.pending = queue.reports.len();
            }
            while let Some(work) = self.next(None) {
                if let Work::Report(asked, end) = work {
                    self.end(asked, end);
                }
            }
        }
    }

    fn serve(self: &Arc<Self>) {
        let mut engine: Option<(Stream, Option<Keeper>)> = None;
        let mut darkroom = Darkroom::new(self.settings.frame_size);
        while let Some(work) = self.next(engine.as_ref().map(|(_, keeper)| keeper.as_ref())) {
            match (work, &mut engine) {
                (Work::Open(model, cancel), _) => match self.open(&model, cancel) {
                    Ok(opened) => engine = Some(opened),
                    // A flush came between: once more. After a stop, there is no next work.
                    Err(EngineError::Cancelled) => {
                        self.settle(|queue| queue.loaded = Some(Ok(model)));
                    }
                    Err(error) => self.fail(&error),
                },
                (Work::Fail(error), _) => {
                    self.post_progress(gst::ProgressType::Error, &error.to_string());
                    self.fail(&error);
                }
                (Work::Report(asked, end), _) => self.end(asked, end),
                (Work::Frames(shots, cancel), Some((stream, keeper))) => {
                    keeper.iter_mut().for_each(|keeper| keeper.changed = true);
                    self.see(stream, &mut darkroom, shots, cancel);
                }
                (Work::Ask(asked, cancel), Some((stream, _))) => {
                    self.answer(stream, asked, cancel);
                }
                (Work::Clear(cancel), Some((stream, keeper))) => {
                    keeper.iter_mut().for_each(|keeper| keeper.changed = true);
                    self.forget(stream, cancel);
                }
                (Work::Save, Some((stream, keeper))) => {
                    if let Some(keeper) = keeper {
                        self.save(keeper, stream);
                    }
                    self.settle(|_| {});
                }
                (Work::Look, Some((stream, _))) => self.look_at_ages(stream),
                // `next` hands out engine work only where there is an engine.
                (
                    Work::Frames(..) | Work::Ask(..) | Work::Clear(_) | Work::Save | Work::Look,
                    None,
                ) => {}
            }
        }
        if let Some((stream, Some(keeper))) = engine {
            self.save_last(keeper, &stream);
        }
    }

    /// Waits for the next piece of work; `None` once the run is over.
    ///
    /// `engine`: there is one, and what it is kept by.
    fn next(&self, engine: Option<Option<&Keeper>>) -> Option<Work> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some((asked, end)) = queue.reports.pop_front() {
                return Some(Work::Report(asked, end));
            }
            match queue.loaded.take() {
                Some(Ok(model)) => {
                    let cancel = Cancel::new();
                    let cancel_open = cancel.clone();
                    queue.running =
                        Some(Running { asked: None, cancel: cancel_open, silent: false });
                    return Some(Work::Open(model, cancel));
                }
                Some(Err(error)) => return Some(Work::Fail(error)),
                None => {}
            }
            let ready = engine.is_some() && queue.failure.is_none();
            let save = engine.flatten().filter(|_| ready).and_then(Keeper::due);
            let look = queue.ages.due().filter(|_| ready);
            let now = Instant::now();
            let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
            if ready && (is_due(save) || is_due(look) || !queue.jobs.is_empty()) {
                let cancel = Cancel::new();
                let work = match () {
                    () if is_due(save) => Work::Save,
                    () if is_due(look) => Work::Look,
                    () => Self::take(&mut queue, &cancel),
                };
                let asked = match &work {
                    Work::Ask(asked, _) => Some(asked.clone()),
                    _ => None,
                };
                queue.running = Some(Running { asked, cancel, silent: false });
                drop(queue);
                self.changed.notify_all();
                return Some(work);
            }
            match save.into_iter().chain(look).min() {
                Some(due) => {
                    self.changed.wait_until(&mut queue, due);
                }
                None => self.changed.wait(&mut queue),
            }
        }
    }

    /// The head of the queue, with all frames up to the next other job as one piece of work.
    fn take(queue: &mut Queue, cancel: &Cancel) -> Work {
        let mut shots = Vec::new();
        while let Some(job) = queue.jobs.pop_front() {
            match job {
                Job::Frame(shot, time) => shots.push((shot, time)),
                other if !shots.is_empty() => {
                    queue.jobs.push_front(other);
                    break;
                }
                Job::Ask(asked) => return Work::Ask(asked, cancel.clone()),
                Job::Clear => return Work::Clear(cancel.clone()),
                Job::Save => return Work::Save,
            }
        }
        // Frames before the first other job may not be all there are.
        queue.frames = queue.frames.saturating_sub(shots.len());
        let taken = shots.iter().map(|(shot, _)| shot.size()).sum();
        queue.held = queue.held.saturating_sub(taken);
        Work::Frames(shots, cancel.clone())
    }

    fn open(
        self: &Arc<Self>,
        model: &Arc<VideoLlm>,
        cancel: Cancel,
    ) -> Result<(Stream, Option<Keeper>), EngineError> {
        let recipe = self.settings.recipe(Some(model))?;
        let options = self.settings.stream_options(model.recommended_sample_rate());
        // Held until the stream has it too; only this tells how far it has come.
        let _expert = self.outside_expert(model, &recipe, cancel.clone())?;
        let mut options = StreamOptions { cancel, ..options };
        if options.store.budget.device.is_none() {
            options.store.share = model.memory_share();
        }
        if let Some(share) = &options.store.share {
            self.outlet.log(*ENGINE, format_args!(
                "at most {} MiB are remembered: what {} streams of this model share, half of what was \
                 free when the first began; max-memory says otherwise",
                share.bytes() >> 20,
                share.takers()
            ));
        }
        let mut stream = Stream::open(VideoLlm::clone(model), recipe, options)?;
        let claim = self.claim.lock().take();
        if let Some(path) = &claim
            && let Err(error) = self.restore(path, &mut stream)
        {
            // A flush may have come between, and then all this is done again.
            *self.claim.lock() = claim;
            return Err(error);
        }
        let keeper = claim.map(|claim| Keeper::new(claim, self.settings.autosave_interval));
        if let Some(why) = model.device_fallback() {
            let reason = format!("{why}; the model runs on the CPU");
            self.outlet.warn(&EngineError::Device { name: self.settings.device.clone(), reason });
        }
        let told = self.progress.lock().is_some();
        self.settle(|queue| {
            queue.model = Some(model.clone());
            queue.holds(stream.stats());
        });
        if told {
            self.post_progress(gst::ProgressType::Complete, "Model loaded");
        }
        self.warn_of_store(&stream);
        Ok((stream, keeper))
    }

    /// Loads the text-image model that the recipe ranks with, if it has one.
    fn outside_expert(
        self: &Arc<Self>,
        model: &VideoLlm,
        recipe: &Recipe,
        cancel: Cancel,
    ) -> Result<Option<Arc<TextImage>>, EngineError> {
        let Some(folder) = recipe.outside_expert()? else { return Ok(None) };
        self.post_step(&format!("Loading {}", folder.display()));
        let shared = Arc::clone(self);
        let options = LoadOptions {
            cancel,
            progress: Some(Arc::new(move |progress| shared.progress(progress))),
            hub: HubOptions { download: self.settings.allow_download, ..HubOptions::default() },
            ..LoadOptions::default()
        };
        let pair = model.text_image(folder, &options);
        if let Err(error) = &pair
            && !matches!(error, EngineError::Cancelled)
        {
            self.post_progress(gst::ProgressType::Error, &error.to_string());
        }
        pair.map(Some)
    }

    /// Develops frames and hands them to the engine, so many at a time as fit into memory.
    fn see(
        &self,
        stream: &mut Stream,
        darkroom: &mut Darkroom,
        shots: Vec<(Shot, f64)>,
        cancel: Cancel,
    ) {
        stream.set_cancel(cancel.clone());
        let watching = self.watcher.wants_changes();
        if watching && let Err(error) = stream.watch_changes() {
            self.outlet.warn(&error);
        }
        let changes = stream.stats().changes;
        let base = self.timeline.lock().base();
        let mut newest = self.queue.lock().seen;
        let mut shots = shots.into_iter();
        let mut fine = true;
        while fine && shots.len() > 0 && !cancel.is_raised() {
            let started = Instant::now();
            let (mut frames, mut bytes) = (Vec::new(), 0);
            for (shot, time) in shots.by_ref() {
                let model = stream.model();
                let resolution = |width, height| model.resolution(width, height);
                let developed = darkroom.develop(&shot, base + time, resolution);
                match developed.and_then(|frame| stream.check(&frame).map(|()| frame)) {
                    Ok(frame) => {
                        bytes += frame.rgb().len();
                        let parted = |newest| self.timeline.lock().parts(newest, frame.time());
                        let broken = newest.is_some_and(parted);
                        newest = Some(frame.time());
                        frames.push(if broken { frame.after_break() } else { frame });
                    }
                    Err(error) => self.lose(&error, 1),
                }
                // Whoever asks about a change asks before the next frame.
                if bytes >= MAX_DEVELOPED || watching || cancel.is_raised() {
                    break;
                }
            }
            fine = self.encode(stream, &frames, started);
            if let Some(frame) = frames.last()
                && watching
                && stream.stats().changes > changes
                && !cancel.is_raised()
            {
                let at = self.timeline.lock().moment(frame.time());
                self.queue.lock().put_back(shots);
                self.watcher.changed(at);
                break;
            }
        }
        self.settle(|_| {});
    }

    /// Whether the engine can go on.
    fn encode(&self, stream: &mut Stream, frames: &[Frame], started: Instant) -> bool {
        let Some(last) = frames.last() else { return true };
        let developed = started.elapsed();
        let result = stream.push_frames(frames);
        let took = started.elapsed();
        {
            let mut queue = self.queue.lock();
            queue.holds(stream.stats());
            if result.is_ok() {
                (queue.missed, queue.lost) = (None, false);
                queue.seen = frames.last().map(Frame::time);
                queue.counters.encoded += frames.len() as u64;
                queue.counters.encoding += took;
            }
        }
        let (count, time) = (frames.len(), last.time());
        self.outlet.log(*FRAMES, format_args!(
            "{count} frames up to {time:.3} s seen in {took:.1?}, {developed:.1?} of it for colours, \
             crop and turning"
        ));
        self.warn_of_store(stream);
        match result {
            Ok(()) | Err(EngineError::Cancelled) => {}
            Err(error @ EngineError::Frame { .. }) => self.lose(&error, frames.len() as u64),
            Err(error) => {
                self.fail(&error);
                return false;
            }
        }
        true
    }

    fn answer(&self, stream: &mut Stream, asked: Asked, cancel: Cancel) {
        if let Some(fault) = stream.nothing_to_see() {
            let mut reason = match fault {
                EngineError::Question(reason) => reason,
                fault => fault.to_string(),
            };
            let missed = self.queue.lock().missed.clone();
            let inactive = (!self.outlet.settings().active).then(|| "active is false".to_owned());
            if let Some(why) = missed.or(inactive) {
                reason = format!("{reason}: {why}");
            }
            self.settle(|_| {});
            return self.end(asked, End::Unanswered(Status::Error(reason)));
        }
        stream.set_cancel(cancel);
        let id = asked.question.id;
        let bounds = (asked.question.from, asked.question.to);
        let within = match bounds {
            (None, None) => None,
            bounds => match self.timeline.lock().between(bounds, asked.at) {
                Ok(within) => Some(within),
                Err(reason) => {
                    self.settle(|_| {});
                    return self.end(asked, End::Unanswered(Status::Error(reason)));
                }
            },
        };
        let settings = self.outlet.settings();
        let question = crate::Question {
            sampling: settings.sampling(),
            within,
            ..crate::Question::new(asked.question.text.clone())
                .max_tokens(asked.question.max_tokens.unwrap_or(settings.max_tokens) as usize)
                .choices(asked.question.choices.iter().cloned())
        };
        let started = Instant::now();
        let result = stream.ask(&question, |token| {
            if !self.queue.lock().stopped {
                self.outlet.token(id, token);
            }
        });
        let took = started.elapsed();
        let waited = asked.since.elapsed().saturating_sub(took);
        if let Ok(answer) = &result {
            let Timings { branch, retrieve, first_token, decode, .. } = answer.timings;
            let found = answer.layers.iter().map(|layer| layer.context_tokens).max().unwrap_or(0);
            self.outlet.log(*ENGINE, format_args!(
                "question {id} waited {waited:.1?}; {branch:.1?} for the open segment, {retrieve:.1?} to \
                 find {found} tokens, first token after {first_token:.1?}, {} tokens in {decode:.1?} more",
                answer.ids.len()
            ));
        }
        let silent = self.settle(|queue| {
            queue.holds(stream.stats());
            if let Ok(answer) = &result {
                queue.counters.answers += 1;
                queue.counters.answering += took;
                queue.recent.add(Pace {
                    answer: waited + took,
                    first_token: answer.timings.first_token,
                    tokens: answer.ids.len().saturating_sub(1),
                    decode: answer.timings.decode,
                });
            }
        });
        self.warn_of_store(stream);
        match result {
            Ok(answer) => {
                let on_change = asked.question.on_change && asked.question.is_standing();
                let until = within.map_or(f64::MAX, |(_, until)| until);
                let (record, engine) = {
                    let timeline = self.timeline.lock();
                    let engine = timeline.asked(asked.at);
                    (Record::answered(asked, &answer, &timeline, until), engine)
                };
                let record = self.stamped(record);
                let (same, turn) = match silent {
                    true => (false, None),
                    false => self.standing.lock().see(&record, engine),
                };
                // What is debounced for the alerts is so for the answers.
                let old = match record.asked.question.alert.is_some() {
                    true => turn.is_none(),
                    false => same,
                };
                let alert = turn.map(|turn| (record.clone(), turn));
                self.deliver(record, silent || (on_change && old));
                if let Some((record, turn)) = alert
                    && !self.queue.lock().stopped
                {
                    self.outlet.alert(&record, turn);
                }
            }
            Err(EngineError::Cancelled) if silent => self.end(asked, End::Silent),
            Err(EngineError::Cancelled) => self.end(asked, End::Unanswered(Status::Cancelled)),
            // The stream has warned of it once.
            Err(error @ EngineError::NotFinite { .. }) => {
                self.end(asked, End::Unanswered(Status::Error(error.to_string())));
            }
            Err(error) => {
                self.outlet.warn(&error);
                self.end(asked, End::Unanswered(Status::Error(error.to_string())));
            }
        }
    }

    fn forget(&self, stream: &mut Stream, cancel: Cancel) {
        stream.set_cancel(cancel);
        let result = stream.clear();
        self.settle(|queue| {
            queue.holds(stream.stats());
            if matches!(result, Err(EngineError::Cancelled)) {
                // A flush came between; what is half forgotten has to go all the same.
                queue.jobs.push_front(Job::Clear);
            }
        });
        match result {
            Ok(()) | Err(EngineError::Cancelled) => {}
            Err(error) => self.fail(&error),
        }
    }

    /// A tier that fails makes the memory smaller and stops nothing.
    fn warn_of_store(&self, stream: &Stream) {
        for warning in stream.take_warnings() {
            self.outlet.warn(&warning);
        }
    }

    /// A piece of work is done; whether nobody wants to hear of it any more.
    pub(super) fn settle(&self, update: impl FnOnce(&mut Queue)) -> bool {
        let mut queue = self.queue.lock();
        let running = queue.running.take();
        update(&mut queue);
        drop(queue);
        self.changed.notify_all();
        running.is_some_and(|running| running.silent)
    }

    /// Frames that the engine cannot take. The first of a row is worth a warning.
    fn lose(&self, error: &EngineError, frames: u64) {
        self.miss(&error.to_string(), |counters| counters.unreadable += frames);
        let warned = std::mem::replace(&mut self.queue.lock().lost, true);
        if !warned {
            self.outlet.warn(error);
        }
    }

    /// A frame is not seen, and why.
    pub fn miss(&self, reason: &str, count: impl FnOnce(&mut Counters)) {
        let mut queue = self.queue.lock();
        count(&mut queue.counters);
        queue.missed = Some(reason.into());
    }

    fn end(&self, asked: Asked, end: End) {
        let (record, silent) = match end {
            End::Unanswered(status) => (Record::unanswered(asked, status), false),
            End::LastWord(status) => (Record::last_word(asked.question, status), false),
            End::Silent => (Record::unanswered(asked, Status::Cancelled), true),
        };
        self.deliver(self.stamped(record), silent);
    }

    /// What is said now, as of the newest frame that has entered.
    fn stamped(&self, mut record: Record) -> Record {
        record.answered = self.queue.lock().newest.or(record.asked.at);
        record
    }

    fn deliver(&self, record: Record, silent: bool) {
        let stopped = {
            let mut queue = self.queue.lock();
            queue.reporting = 1;
            if queue.stopped && !silent {
                // Whoever stopped the run says it.
                queue.late.push(record.clone());
            }
            queue.stopped
        };
        if !stopped {
            self.outlet.deliver(record, silent);
        }
        let mut queue = self.queue.lock();
        queue.pending = queue.pending.saturating_sub(1);
        queue.reporting = 0;
        drop(queue);
        self.changed.notify_all();
    }

    /// The engine is gone: one error, and nothing waits for it any more.
    fn fail(&self, error: &EngineError) {
        // First, or the source's own complaint that nobody takes its frames comes before.
        let stopped = self.queue.lock().stopped;
        if !stopped {
            self.outlet.error(error);
        }
        let status = Status::Error(error.to_string());
        let mut queue = self.queue.lock();
        queue.failure = Some(error.to_string());
        if let Some(Running { asked: Some(asked), silent, .. }) = queue.running.take() {
            // The engine panicked over it.
            let end = if silent { End::Silent } else { End::Unanswered(status.clone()) };
            queue.reports.push_back((asked, end));
        }
        queue.withdraw(&status);
        drop(queue);
        self.changed.notify_all();
    }

    /// The next thing that loading takes, if it has not begun with this.
    pub(super) fn post_step(&self, text: &str) {
        let begun = self.progress.lock().is_some();
        let kind = if begun { gst::ProgressType::Continue } else { gst::ProgressType::Start };
        self.post_progress(kind, text);
    }

    pub fn post_progress(&self, kind: gst::ProgressType, text: &str) {
        self.progress.lock().get_or_insert_with(Instant::now);
        self.outlet.progress(kind, "load-model", text);
    }
}
