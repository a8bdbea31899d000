// SPDX-License-Identifier: MPL-2.0
//! The inference thread as the rest of the element sees it: one queue in, answers out. What the
//! thread does with the queue is in [`thread`].
//!
//! Frames and questions share one queue, so a question is answered from exactly the frames that
//! entered before it. All frames at the head of the queue are encoded as one batch. Whoever feeds
//! the queue decides whether a full one holds the video back or loses its oldest frame.
//!
//! Every piece of work has its own [`Cancel`]; flush, stop and `cancel` raise the one that is
//! running and take back what waits. A [`Worker`] lives from READY to READY: a new run has a new
//! queue, so a thread that was left behind (see [`Worker::stop`]) cannot touch it.

mod thread;

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::answer::Status;
use super::bus::CAT;
use super::outlet::Outlet;
use super::picture::Shot;
use super::question::Question;
use super::settings::Settings;
use super::shared_model::{self, LoadKey, Ticket, Waiter};
use super::timeline::{Moment, Timeline};
use crate::stream::StreamStats;
use crate::{Cancel, EngineError, VideoLlm};

/// How long the end of the stream waits for questions to be reported as cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// Bytes of frames that may wait for the model, however many they are; one may always.
const MAX_HELD: usize = 256 << 20;

/// One asking of a question.
#[derive(Clone)]
pub(super) struct Asked {
    /// Unique in the process: a standing question has one id and many askings.
    pub number: u64,
    pub question: Arc<Question>,
    pub at: Option<Moment>,
    since: Instant,
}

enum Job {
    /// A sampled frame and its engine time.
    Frame(Shot, f64),
    Ask(Asked),
    Clear,
}

/// Why something did not get into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Flushing,
    Failed,
}

/// How waiting for the pending answers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    Done,
    Interrupted,
    /// So many questions were cancelled.
    TimedOut(usize),
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub frames_in: u64,
    pub sampled: u64,
    pub dropped: u64,
    pub broken: u64,
    pub unreadable: u64,
    pub encoded: u64,
    pub questions: u64,
    pub answers: u64,
    /// Copying the sampled frames, in the streaming thread.
    pub taking: Duration,
    pub encoding: Duration,
    pub answering: Duration,
}

/// What the property `stats` tells of a run.
#[derive(Default)]
pub(super) struct Stats {
    pub counters: Counters,
    pub memory: StreamStats,
    /// Frames that wait.
    pub queue: usize,
    /// `None` until the model is loaded.
    pub model_users: Option<usize>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Questions that end without the engine; they go ahead of all jobs.
    reports: VecDeque<(Asked, Status)>,
    /// How many of the jobs are frames.
    frames: usize,
    /// Bytes of those frames.
    held: usize,
    /// Why the newest frame was not seen, if it was not.
    missed: Option<String>,
    /// Whether there was a warning that the engine cannot take frames, since it last took one.
    lost: bool,
    /// Askings that are not reported yet, the running one included.
    pending: usize,
    running: Option<(Option<u64>, Cancel)>,
    newest: Option<Moment>,
    loaded: Option<Result<Arc<VideoLlm>, Arc<EngineError>>>,
    /// Kept as long as the run, because the registry's own reference is weak.
    model: Option<Arc<VideoLlm>>,
    flushing: bool,
    stopped: bool,
    failed: bool,
    counters: Counters,
    memory: StreamStats,
}

impl Queue {
    fn refusal(&self) -> Option<Refused> {
        if self.flushing || self.stopped {
            Some(Refused::Flushing)
        } else {
            self.failed.then_some(Refused::Failed)
        }
    }

    /// Takes back everything that waits: questions are reported, frames forgotten.
    fn withdraw(&mut self, status: &Status) {
        if let Some((_, cancel)) = &self.running {
            cancel.raise();
        }
        for job in std::mem::take(&mut self.jobs) {
            match job {
                Job::Frame(..) => {}
                Job::Ask(asked) => self.reports.push_back((asked, status.clone())),
                // Forgetting was asked for and stays asked for.
                Job::Clear => self.jobs.push_back(Job::Clear),
            }
        }
        (self.frames, self.held) = (0, 0);
    }

    /// Whether a frame of this size has to wait, or to take another's place.
    fn is_full(&self, limit: usize, size: usize) -> bool {
        self.frames >= limit || (self.frames > 0 && self.held.saturating_add(size) > MAX_HELD)
    }
}

/// What the thread, the streaming thread and the application share.
///
/// Lock order: `queue` before `timeline`; neither is held while anything leaves the element.
struct Shared {
    outlet: Arc<Outlet>,
    /// As they were when the run began.
    settings: Settings,
    queue: Mutex<Queue>,
    changed: Condvar,
    timeline: Mutex<Timeline>,
    progress: Mutex<Option<Instant>>,
}

pub(super) struct Worker {
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
        settings: Settings,
        key: &LoadKey,
        model: Option<Arc<VideoLlm>>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            outlet,
            settings,
            queue: Mutex::default(),
            changed: Condvar::new(),
            timeline: Mutex::default(),
            progress: Mutex::default(),
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
        Ok(Self { shared, thread: Mutex::new(Some(thread)), ticket: Mutex::new(ticket) })
    }

    /// Ends the run within one layer of inference. Gives the model back, for the next run, and the
    /// questions that nobody will answer.
    pub fn stop(&self) -> (Option<Arc<VideoLlm>>, Vec<Asked>) {
        let unanswered = {
            let mut queue = self.shared.queue.lock();
            queue.stopped = true;
            queue.withdraw(&Status::Cancelled);
            std::mem::take(&mut queue.reports).into_iter().map(|(asked, _)| asked).collect()
        };
        self.shared.changed.notify_all();
        let ticket = self.ticket.lock().take();
        let loading = {
            let queue = self.shared.queue.lock();
            queue.model.is_none() && !queue.failed
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
        (self.shared.queue.lock().model.take(), unanswered)
    }

    /// Takes back everything that waits and refuses more until [`flush_stop`](Self::flush_stop).
    pub fn flush_start(&self) {
        let mut queue = self.shared.queue.lock();
        queue.flushing = true;
        queue.newest = None;
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

    /// The sample rate that the model's folder recommends, once it is loaded.
    pub fn recommended_rate(&self) -> Option<f64> {
        self.shared.queue.lock().model.as_ref().and_then(|model| model.recommended_sample_rate())
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

    /// Engine time of a sampled frame.
    pub fn engine_time(&self, at: Moment, rate: f64, gap: gst::ClockTime) -> f64 {
        self.shared.timeline.lock().enter(at, rate, gap)
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
        queue.counters.sampled += 1;
        while queue.is_full(limit, size) {
            let oldest = queue.jobs.iter().position(|job| matches!(job, Job::Frame(..)));
            let Some(Job::Frame(oldest, _)) = oldest.and_then(|index| queue.jobs.remove(index))
            else {
                break;
            };
            queue.frames -= 1;
            queue.held -= oldest.size();
            queue.counters.dropped += 1;
        }
        queue.jobs.push_back(Job::Frame(shot, time));
        queue.frames += 1;
        queue.held += size;
        drop(queue);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// A frame is not seen, and why.
    pub fn miss(&self, reason: &str, count: impl FnOnce(&mut Counters)) {
        self.shared.miss(reason, count);
    }

    /// A frame, sampled or not, has entered the element.
    pub fn enter(&self, at: Moment) -> Result<(), Refused> {
        let mut queue = self.shared.queue.lock();
        if let Some(refused) = queue.refusal() {
            return Err(refused);
        }
        queue.newest = Some(at);
        Ok(())
    }

    pub fn count(&self, add: impl FnOnce(&mut Counters)) {
        add(&mut self.shared.queue.lock().counters);
    }

    /// Whether a frame has entered since the start or the last flush.
    pub fn has_seen(&self) -> bool {
        self.shared.queue.lock().newest.is_some()
    }

    /// Waits until one more question may be asked, if a schedule asks it and nothing may be lost.
    pub fn wait_for_room(&self) -> Result<(), Refused> {
        let limit = self.shared.settings.max_pending as usize;
        let mut queue = self.shared.queue.lock();
        loop {
            if let Some(refused) = queue.refusal() {
                return Err(refused);
            }
            if queue.pending < limit {
                return Ok(());
            }
            self.shared.changed.wait(&mut queue);
        }
    }

    /// Queues a question behind the frames that have entered; too many, and it is reported as
    /// dropped. `prepare` is called before anything can come of it.
    pub fn ask(&self, question: Arc<Question>, prepare: impl FnOnce(&Asked)) {
        let mut queue = self.shared.queue.lock();
        queue.counters.questions += 1;
        let number = super::question::next_id();
        let asked = Asked { number, question, at: queue.newest, since: Instant::now() };
        prepare(&asked);
        let full = queue.pending >= self.shared.settings.max_pending as usize;
        queue.pending += 1;
        if queue.failed {
            let status = Status::Error("the engine has failed".into());
            queue.reports.push_back((asked, status));
        } else if queue.stopped || queue.flushing {
            queue.reports.push_back((asked, Status::Cancelled));
        } else if full {
            queue.reports.push_back((asked, Status::Dropped));
        } else {
            queue.jobs.push_back(Job::Ask(asked));
        }
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Reports a question of the schedule that will not be asked.
    pub fn report(&self, question: Arc<Question>, status: Status) {
        let mut queue = self.shared.queue.lock();
        let number = super::question::next_id();
        let asked = Asked { number, question, at: None, since: Instant::now() };
        queue.pending += 1;
        queue.reports.push_back((asked, status));
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Takes back the askings of one question; whether there were any.
    pub fn cancel(&self, id: u64) -> bool {
        let mut queue = self.shared.queue.lock();
        let queue = &mut *queue;
        let mut found = false;
        if let Some((Some(running), cancel)) = &queue.running
            && *running == id
        {
            cancel.raise();
            found = true;
        }
        let reports = &mut queue.reports;
        queue.jobs.retain(|job| match job {
            Job::Ask(asked) if asked.question.id == id => {
                reports.push_back((asked.clone(), Status::Cancelled));
                found = true;
                false
            }
            _ => true,
        });
        self.shared.changed.notify_all();
        found
    }

    /// Waits until no question is pending; cancels what is left after `timeout`.
    pub fn drain(&self, timeout: Option<Duration>) -> Drained {
        let started = Instant::now();
        let mut queue = self.shared.queue.lock();
        let mut told = 0;
        let outcome = loop {
            if queue.refusal().is_some() {
                break Drained::Interrupted;
            }
            if queue.pending == 0 {
                break Drained::Done;
            }
            let waited = started.elapsed();
            if timeout.is_some_and(|timeout| waited >= timeout) {
                let pending = queue.pending;
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
            let next = Duration::from_secs(told + 1);
            let next = timeout.map_or(next, |timeout| next.min(timeout));
            self.shared.changed.wait_until(&mut queue, started + next);
        };
        drop(queue);
        if told > 0 {
            let kind = gst::ProgressType::Complete;
            self.shared.outlet.progress(kind, "answer", "Answering has ended");
        }
        outcome
    }

    pub fn pending(&self) -> u32 {
        u32::try_from(self.shared.queue.lock().pending).unwrap_or(u32::MAX)
    }

    pub fn stats(&self) -> Stats {
        let queue = self.shared.queue.lock();
        Stats {
            counters: queue.counters,
            memory: queue.memory,
            queue: queue.frames,
            model_users: queue.model.as_ref().map(Arc::strong_count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_in_frames_and_in_bytes() {
        let queue = |frames, held| Queue { frames, held, ..Queue::default() };
        assert!(!queue(7, 7 << 20).is_full(8, 1 << 20));
        assert!(queue(8, 8 << 20).is_full(8, 1 << 20));
        assert!(queue(5, MAX_HELD - 10).is_full(4096, 11));
        assert!(!queue(5, MAX_HELD - 10).is_full(4096, 10));
        // A frame that is larger than the bound is no reason to see nothing.
        assert!(!queue(0, 0).is_full(1, 2 * MAX_HELD));
        assert!(queue(1, usize::MAX).is_full(4096, usize::MAX));
    }
}
