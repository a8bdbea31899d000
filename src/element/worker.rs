// SPDX-License-Identifier: MPL-2.0
//! The inference thread as the rest of the element sees it: one queue in, answers out. What the
//! thread does with the queue is in [`thread`].
//!
//! Frames and questions share one queue, so a question is answered from exactly the frames that
//! entered before it. All frames at the head of the queue are encoded as one batch. Whoever feeds
//! the queue decides whether a full one holds the video back or loses its oldest frame.
//!
//! Every piece of work has its own [`Cancel`](crate::Cancel); flush, stop and `cancel` raise the one that is
//! running and take back what waits. A [`Worker`] lives from READY to READY: a new run has a new
//! queue, so a thread that was left behind (see [`Worker::stop`]) cannot touch it.

mod ages;
mod keeper;
mod queue;
mod recent;
mod standing;
mod thread;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use parking_lot::{Condvar, Mutex, MutexGuard};

pub(super) use self::queue::{Counters, Refused};
use self::queue::{Job, Queue};
pub(super) use self::recent::Recent;
use self::standing::Standing;
pub(super) use self::standing::State;
use super::answer::{Asked, Record, Status};
use super::bus::CAT;
use super::outlet::Outlet;
use super::picture::Shot;
use super::question::Question;
use super::settings::Settings;
use super::shared_model::{self, LoadKey, Ticket, Waiter};
use super::timeline::{Moment, Timeline};
use crate::VideoLlm;
use crate::snapshot::Claim;
use crate::stream::{Age, StreamStats};

/// How long the end of the stream waits for questions to be reported as cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// The run is over, and with it what was asked of it: nobody has said this yet.
#[derive(Debug)]
pub(super) struct Over(pub Box<Record>);

/// What the thread tells whoever knows the questions that stand.
pub(super) trait Watcher: Send + Sync {
    /// Whether anybody wants to hear that the picture changes.
    fn wants_changes(&self) -> bool;
    /// It has changed at this moment; no frame behind it has been seen.
    fn changed(&self, at: Moment);
}

/// How a run ended.
pub(super) struct Ended {
    /// For the next run.
    pub model: Option<Arc<VideoLlm>>,
    /// What nobody has said yet.
    pub unsaid: Vec<Record>,
    /// Why the engine was gone before.
    pub failure: Option<String>,
}

/// How waiting for the pending answers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    Done,
    Interrupted,
    /// So many questions were cancelled.
    TimedOut(usize),
}

/// What the property `stats` tells of a run.
#[derive(Default)]
pub(super) struct Stats {
    pub counters: Counters,
    pub memory: StreamStats,
    /// The same by age.
    pub ages: Vec<Age>,
    /// Frames that wait.
    pub queue: usize,
    pub recent: Recent,
    /// See [`Queue::lag`].
    pub lag: f64,
    /// `None` until the model is loaded.
    pub model_users: Option<usize>,
    /// What most of the model's weights are held in; empty before it is loaded.
    pub weights: &'static str,
}

/// What the thread, the streaming thread and the application share.
///
/// Lock order: `queue` before `timeline`, `standing` alone; none is held while anything leaves the
/// element.
struct Shared {
    outlet: Arc<Outlet>,
    watcher: Box<dyn Watcher>,
    standing: Mutex<Standing>,
    /// As they were when the run began.
    settings: Settings,
    queue: Mutex<Queue>,
    changed: Condvar,
    timeline: Mutex<Timeline>,
    progress: Mutex<Option<Instant>>,
    /// The file that the memory is kept in, until the thread has it.
    claim: Mutex<Option<Claim>>,
}

pub(super) struct Worker {
    key: LoadKey,
    /// The memory is kept in a file.
    keeps: bool,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    ticket: Mutex<Option<Ticket>>,
}

impl Worker {
    /// Begins a run: a thread for inference and, unless `model` is there already, one for loading.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(
        outlet: Arc<Outlet>,
        watcher: Box<dyn Watcher>,
        settings: Settings,
        claim: Option<Claim>,
        (key, model): (&LoadKey, Option<Arc<VideoLlm>>),
    ) -> std::io::Result<Self> {
        let keeps = claim.is_some();
        let shared = Arc::new(Shared {
            outlet,
            watcher,
            standing: Mutex::default(),
            settings,
            queue: Mutex::default(),
            changed: Condvar::new(),
            timeline: Mutex::default(),
            progress: Mutex::default(),
            claim: Mutex::new(claim),
        });
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new().name("streamkvqa".into()).spawn(move || shared.run())?
        };
        let waiter: Arc<dyn Waiter> = shared.clone();
        let mut ticket = None;
        if model.is_none() && !shared_model::is_loaded(key) {
            let text = format!("Loading {}", key.path.display());
            shared.post_progress(gst::ProgressType::Start, &text);
        }
        match model.map_or_else(|| shared_model::request(key, &waiter), Ok) {
            Ok(model) => waiter.loaded(Ok(model)),
            Err(place) => ticket = Some(place),
        }
        let (thread, ticket) = (Mutex::new(Some(thread)), Mutex::new(ticket));
        Ok(Self { key: key.clone(), keeps, shared, thread, ticket })
    }

    /// Ends the run within one layer of inference.
    pub fn stop(&self) -> Ended {
        {
            let mut queue = self.shared.queue.lock();
            queue.stop();
        }
        self.shared.changed.notify_all();
        let ticket = self.ticket.lock().take();
        let loading = {
            let queue = self.shared.queue.lock();
            queue.model.is_none() && queue.failure.is_none()
        };
        if ticket.is_some() && loading {
            self.shared.post_progress(gst::ProgressType::Canceled, "Loading was cancelled");
        }
        drop(ticket);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            // The application may stop the pipeline in an `answer` handler, on this very thread.
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            gst::error!(CAT, "the inference thread panicked");
        }
        let mut queue = self.shared.queue.lock();
        let unsaid = queue.unsaid();
        Ended { model: queue.model.take(), unsaid, failure: queue.failure.clone() }
    }

    /// Takes back everything that waits and refuses more until [`flush_stop`](Self::flush_stop).
    pub fn flush_start(&self) {
        let mut queue = self.shared.queue.lock();
        queue.flushing = true;
        queue.newest = None;
        (queue.looked, queue.first) = (None, None);
        queue.withdraw(&Status::Cancelled);
        drop(queue);
        self.shared.changed.notify_all();
    }

    pub fn flush_stop(&self) {
        self.shared.queue.lock().flushing = false;
        self.shared.timeline.lock().break_epoch();
    }

    /// The clocks map differently from the next frame on.
    pub fn break_epoch(&self) {
        self.shared.timeline.lock().break_epoch();
    }

    /// Forgets everything seen, after the jobs that wait.
    pub fn clear(&self) {
        self.shared.queue.lock().jobs.push_back(Job::Clear);
        self.shared.changed.notify_all();
    }

    /// Has the memory saved, after the jobs that wait; `false` where there is no file for it, or no run any
    /// more.
    pub fn save(&self) -> bool {
        let mut queue = self.shared.queue.lock();
        if !self.keeps || queue.stopped || queue.failure.is_some() {
            return false;
        }
        queue.jobs.push_back(Job::Save);
        drop(queue);
        self.shared.changed.notify_all();
        true
    }

    /// Which model the run is of.
    pub fn key(&self) -> &LoadKey {
        &self.key
    }

    /// The sample rate that the user asked for or, once it is loaded, the model's folder recommends.
    pub fn rate(&self) -> Option<f64> {
        let recommended = || {
            let queue = self.shared.queue.lock();
            queue.model.as_ref().and_then(|model| model.recommended_sample_rate())
        };
        self.shared.settings.rate().or_else(recommended)
    }

    /// Waits until the model is loaded.
    pub fn wait_for_model(&self) -> Result<(), Refused> {
        let mut queue = self.shared.queue.lock();
        loop {
            if let Some(refused) = queue.refusal() {
                return Err(refused);
            }
            if queue.model.is_some() {
                return Ok(());
            }
            self.shared.changed.wait(&mut queue);
        }
    }

    /// Engine time of a sampled frame at this element time.
    pub fn engine_time(
        &self,
        at: Moment,
        time: gst::ClockTime,
        rate: f64,
        gap: gst::ClockTime,
    ) -> f64 {
        self.shared.timeline.lock().enter(at, time, rate, gap)
    }

    /// Queues a sampled frame. A full queue waits if nothing may be lost, else it loses its oldest
    /// frame.
    pub fn push(&self, shot: Shot, time: f64, lossless: bool) -> Result<(), Refused> {
        let limit = self.shared.settings.max_queue as usize;
        let size = shot.size();
        let mut queue = self.shared.queue.lock();
        while lossless && queue.is_full(limit, size) && queue.refusal().is_none() {
            self.shared.changed.wait(&mut queue);
        }
        if let Some(refused) = queue.refusal() {
            return Err(refused);
        }
        queue.push(shot, time, limit);
        drop(queue);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// A frame is not seen, and why.
    pub fn miss(&self, reason: &str, count: impl FnOnce(&mut Counters)) {
        self.shared.miss(reason, count);
    }

    /// A frame, sampled or not, has entered the element, for the model to look at or not.
    pub fn enter(&self, at: Moment, looked: bool) -> Result<(), Refused> {
        let mut queue = self.shared.queue.lock();
        if let Some(refused) = queue.refusal() {
            return Err(refused);
        }
        queue.newest = Some(at);
        if looked {
            queue.looked = Some(Instant::now());
        }
        Ok(())
    }

    pub fn count(&self, add: impl FnOnce(&mut Counters)) {
        add(&mut self.shared.queue.lock().counters);
    }

    /// Whether a frame has entered since the start or the last flush.
    pub fn has_seen(&self) -> bool {
        self.shared.queue.lock().newest.is_some()
    }

    /// Waits until one more question may be asked, if a schedule asks it and nothing may be lost;
    /// whether that was before the deadline.
    pub fn wait_for_room(&self, deadline: Option<Instant>) -> Result<bool, Refused> {
        let limit = self.shared.settings.max_pending as usize;
        let mut queue = self.shared.queue.lock();
        loop {
            if let Some(refused) = queue.refusal() {
                return Err(refused);
            }
            if queue.pending < limit {
                return Ok(true);
            }
            match deadline {
                None => self.shared.changed.wait(&mut queue),
                Some(deadline) => {
                    if self.shared.changed.wait_until(&mut queue, deadline).timed_out() {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Queues a question behind the frames that have entered; too many, and it is reported as
    /// dropped. `prepare` is called before anything can come of it.
    ///
    /// # Errors
    /// The run is over.
    pub fn ask(&self, question: Arc<Question>, prepare: impl FnOnce(&Asked)) -> Result<(), Over> {
        let mut queue = self.shared.queue.lock();
        if queue.stopped && !question.is_standing() {
            return Err(Over(Box::new(Record::last_word(question, Status::Cancelled))));
        }
        queue.ask(question, self.shared.settings.max_pending as usize, prepare);
        drop(queue);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Queues questions about a frame that has just been seen, in front of all that waits.
    pub fn ask_first(
        &self,
        questions: Vec<Arc<Question>>,
        at: Moment,
        prepare: impl Fn(&Asked, Option<Moment>),
    ) {
        let mut queue = self.shared.queue.lock();
        let limit = self.shared.settings.max_pending as usize;
        for question in questions.into_iter().rev() {
            let newest = queue.newest;
            queue.ask_first(question, at, limit, |asked| prepare(asked, newest));
        }
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Whether a question has been asked and is still to be looked at.
    pub fn is_waiting(&self, id: u64) -> bool {
        let is_meant = |job: &Job| matches!(job, Job::Ask(asked) if asked.question.id == id);
        self.shared.queue.lock().jobs.iter().any(is_meant)
    }

    /// What the answers to a standing question have said so far.
    pub fn standing(&self, id: u64) -> Option<State> {
        self.shared.standing.lock().get(id).cloned()
    }

    /// Says the last word on a question of the schedule.
    ///
    /// # Errors
    /// The run is over.
    pub fn end(&self, question: Arc<Question>, status: Status) -> Result<(), Over> {
        let mut queue = self.shared.queue.lock();
        if queue.stopped {
            return Err(Over(Box::new(Record::last_word(question, status))));
        }
        queue.end(question, status);
        drop(queue);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Takes back the askings of one question; whether there were any. Those of a standing question
    /// end in silence: that is on the schedule, where its last word comes from.
    pub fn cancel(&self, id: u64) -> bool {
        let found = self.shared.queue.lock().cancel(id);
        self.shared.standing.lock().forget(id);
        self.shared.changed.notify_all();
        found
    }

    /// Waits until no question is pending, nor any frame on which one may be asked; cancels what is left
    /// at the deadline.
    pub fn drain(&self, deadline: Option<Instant>) -> Drained {
        let started = Instant::now();
        // A question may be asked about them, and what is kept is to have them.
        let looks = self.keeps || self.shared.watcher.wants_changes();
        let mut queue = self.shared.queue.lock();
        let mut told = 0;
        let outcome = loop {
            if queue.refusal().is_some() {
                break Drained::Interrupted;
            }
            if queue.pending == 0 && !(looks && queue.is_looking()) {
                break Drained::Done;
            }
            let waited = started.elapsed();
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let pending = queue.pending;
                if pending == 0 {
                    break Drained::Done;
                }
                queue.withdraw(&Status::Cancelled);
                self.shared.changed.notify_all();
                let grace = Instant::now() + CANCEL_GRACE;
                while queue.pending > 0
                    && queue.refusal().is_none()
                    && !self.shared.changed.wait_until(&mut queue, grace).timed_out()
                {
                }
                break Drained::TimedOut(pending);
            }
            if waited.as_secs() > told {
                told = waited.as_secs();
                let text = format!("Answering: {} questions left", queue.pending);
                let kind = match told {
                    1 => gst::ProgressType::Start,
                    _ => gst::ProgressType::Continue,
                };
                MutexGuard::unlocked(&mut queue, || {
                    self.shared.outlet.progress(kind, "answer", &text);
                });
                continue;
            }
            let next = started + Duration::from_secs(told + 1);
            let next = deadline.map_or(next, |deadline| next.min(deadline));
            self.shared.changed.wait_until(&mut queue, next);
        };
        drop(queue);
        if told > 0 {
            let kind = gst::ProgressType::Complete;
            self.shared.outlet.progress(kind, "answer", "Answering has ended");
        }
        outcome
    }

    /// Askings that are not reported yet.
    pub fn pending(&self) -> usize {
        let queue = self.shared.queue.lock();
        queue.pending.saturating_sub(queue.reporting)
    }

    pub fn stats(&self) -> Stats {
        let queue = self.shared.queue.lock();
        let lag = queue.lag(&self.shared.timeline.lock());
        Stats {
            counters: queue.counters,
            memory: queue.memory,
            ages: queue.ages.rows().to_vec(),
            queue: queue.frames,
            recent: queue.recent.clone(),
            lag,
            model_users: queue.model.as_ref().map(Arc::strong_count),
            weights: queue.model.as_ref().map_or("", |model| model.weights_format()),
        }
    }
}
