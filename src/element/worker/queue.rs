// SPDX-License-Identifier: MPL-2.0
//! The one queue of frames and questions, and what became of the questions that leave it unanswered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ages::Ages;
use super::recent::Recent;
use crate::element::answer::{Asked, Record, Status};
use crate::element::picture::Shot;
use crate::element::question::Question;
use crate::element::timeline::{Moment, Timeline};
use crate::stream::StreamStats;
use crate::{Cancel, EngineError, VideoLlm};

/// Bytes of frames that may wait for the model, however many they are; one may always.
const MAX_HELD: usize = 256 << 20;

pub enum Job {
    /// A sampled frame and its engine time, counted from the beginning of this run.
    Frame(Shot, f64),
    Ask(Asked),
    Clear,
    Save,
}

/// Why something did not get into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Flushing,
    Failed,
}

/// How an asking ends that the engine does not answer.
pub enum End {
    Unanswered(Status),
    /// Nothing more comes under the id of its question.
    LastWord(Status),
    /// Its question has had the last word.
    Silent,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
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
    /// Files of the memory that were written; of the last one its bytes, how long it took, and how long
    /// taking it kept everything else waiting.
    pub saves: u64,
    pub save_bytes: u64,
    pub save_took: Duration,
    pub save_pause: Duration,
}

#[derive(Default)]
pub struct Queue {
    pub jobs: VecDeque<Job>,
    /// Questions that end without the engine; they go ahead of all jobs.
    pub reports: VecDeque<(Asked, End)>,
    /// How many of the jobs are frames.
    pub frames: usize,
    /// Bytes of those frames.
    pub held: usize,
    /// Why the newest frame was not seen, if it was not.
    pub missed: Option<String>,
    /// Whether there was a warning that the engine cannot take frames, since it last took one.
    pub lost: bool,
    /// Askings that are not reported yet, the running one included.
    pub pending: usize,
    /// Of those, the one that is being reported: whoever hears of it finds it pending no more, and the
    /// end of the stream still waits for it.
    pub reporting: usize,
    pub running: Option<Running>,
    pub newest: Option<Moment>,
    /// When the newest frame came in that the model could look at.
    pub looked: Option<Instant>,
    pub loaded: Option<Result<Arc<VideoLlm>, Arc<EngineError>>>,
    /// Kept as long as the run, because the registry's own reference is weak.
    pub model: Option<Arc<VideoLlm>>,
    pub flushing: bool,
    pub stopped: bool,
    /// Why the engine is gone.
    pub failure: Option<String>,
    /// What ended after the run was stopped.
    pub late: Vec<Record>,
    pub counters: Counters,
    pub memory: StreamStats,
    pub ages: Ages,
    /// How fast the last answers came.
    pub recent: Recent,
    /// Engine time of the newest frame that is in the memory.
    pub seen: Option<f64>,
    /// The same of the first one that was sampled since the start or the last flush, counted from the
    /// beginning of this run.
    pub first: Option<f64>,
}

/// What the thread is at.
pub struct Running {
    /// `None`, if it is no question.
    pub asked: Option<Asked>,
    pub cancel: Cancel,
    /// Nobody wants to hear of it any more.
    pub silent: bool,
}

impl Queue {
    /// Seconds from the newest frame that is in the memory to the newest that has entered; where none of those
    /// is in it that came since the start or the last flush, from the first of them.
    pub fn lag(&self, timeline: &Timeline) -> f64 {
        let Some((newest, first)) = self.newest.zip(self.first) else { return 0.0 };
        let seen = self.seen.unwrap_or(0.0).max(timeline.base() + first);
        let behind = newest.running.saturating_sub(timeline.moment(seen).running);
        behind.nseconds() as f64 / 1e9
    }

    /// What the stream holds is not what it was.
    pub fn holds(&mut self, memory: StreamStats) {
        self.memory = memory;
        self.ages.change();
    }

    pub fn refusal(&self) -> Option<Refused> {
        if self.flushing || self.stopped {
            Some(Refused::Flushing)
        } else {
            self.failure.is_some().then_some(Refused::Failed)
        }
    }

    /// Takes back everything that waits: questions are reported, frames forgotten.
    pub fn withdraw(&mut self, status: &Status) {
        if let Some(running) = &self.running {
            running.cancel.raise();
        }
        for job in std::mem::take(&mut self.jobs) {
            match job {
                Job::Frame(..) => {}
                Job::Ask(asked) => self.reports.push_back((asked, End::Unanswered(status.clone()))),
                // Forgetting was asked for and stays asked for, and so does saving.
                Job::Clear | Job::Save => self.jobs.push_back(job),
            }
        }
        (self.frames, self.held) = (0, 0);
    }

    /// Whether there are frames that are not seen yet.
    pub fn is_looking(&self) -> bool {
        self.frames > 0 || self.running.as_ref().is_some_and(|running| running.asked.is_none())
    }

    /// Whether a frame of this size has to wait, or to take another's place.
    pub fn is_full(&self, limit: usize, size: usize) -> bool {
        self.frames >= limit || (self.frames > 0 && self.held.saturating_add(size) > MAX_HELD)
    }

    /// Takes a frame in; a full queue loses its oldest ones.
    pub fn push(&mut self, shot: Shot, time: f64, limit: usize) {
        self.counters.sampled += 1;
        let size = shot.size();
        while self.is_full(limit, size) {
            let oldest = self.jobs.iter().position(|job| matches!(job, Job::Frame(..)));
            let Some(Job::Frame(oldest, _)) = oldest.and_then(|index| self.jobs.remove(index))
            else {
                break;
            };
            self.frames -= 1;
            self.held -= oldest.size();
            self.counters.dropped += 1;
        }
        self.first.get_or_insert(time);
        self.jobs.push_back(Job::Frame(shot, time));
        self.frames += 1;
        self.held += size;
    }

    /// Takes a question in, or says why not. `prepare` is called before anything can come of it.
    pub fn ask(&mut self, question: Arc<Question>, limit: usize, prepare: impl FnOnce(&Asked)) {
        let frame_age = self.looked.map(|looked| looked.elapsed());
        let asked = Asked { at: self.newest, frame_age, ..Asked::of_nothing(question) };
        self.take_in(asked, limit, prepare, VecDeque::push_back);
    }

    /// The same of a question about a frame that has been seen, in front of all that waits.
    pub fn ask_first(
        &mut self,
        question: Arc<Question>,
        at: Moment,
        limit: usize,
        prepare: impl FnOnce(&Asked),
    ) {
        let asked = Asked { at: Some(at), ..Asked::of_nothing(question) };
        self.take_in(asked, limit, prepare, VecDeque::push_front);
    }

    fn take_in(
        &mut self,
        asked: Asked,
        limit: usize,
        prepare: impl FnOnce(&Asked),
        put: impl FnOnce(&mut VecDeque<Job>, Job),
    ) {
        self.counters.questions += 1;
        prepare(&asked);
        let refusal = if let Some(reason) = &self.failure {
            Some(Status::Error(reason.clone()))
        } else if self.flushing || self.stopped {
            Some(Status::Cancelled)
        } else {
            (self.pending >= limit).then_some(Status::Dropped)
        };
        self.pending += 1;
        match refusal {
            Some(status) => self.reports.push_back((asked, End::Unanswered(status))),
            None => put(&mut self.jobs, Job::Ask(asked)),
        }
    }

    /// Frames that were taken out and come first again.
    pub fn put_back(&mut self, shots: impl DoubleEndedIterator<Item = (Shot, f64)>) {
        for (shot, time) in shots.rev() {
            self.frames += 1;
            self.held += shot.size();
            self.jobs.push_front(Job::Frame(shot, time));
        }
    }

    /// The last word on a question that is not asked any more.
    pub fn end(&mut self, question: Arc<Question>, status: Status) {
        self.pending += 1;
        self.reports.push_back((Asked::of_nothing(question), End::LastWord(status)));
    }

    /// Takes back the askings of one question; whether there were any. Those of a standing question
    /// end in silence: that is on the schedule, where its last word comes from.
    pub fn cancel(&mut self, id: u64) -> bool {
        let is_meant = |asked: &Asked| asked.question.id == id;
        let mut found = false;
        if let Some(running) = &mut self.running
            && let Some(asked) = running.asked.as_ref().filter(|asked| is_meant(asked))
        {
            running.silent |= asked.question.is_standing();
            running.cancel.raise();
            found = true;
        }
        for job in std::mem::take(&mut self.jobs) {
            match job {
                Job::Ask(asked) if is_meant(&asked) => {
                    let end = match asked.question.is_standing() {
                        true => End::Silent,
                        false => End::Unanswered(Status::Cancelled),
                    };
                    self.reports.push_back((asked, end));
                    found = true;
                }
                other => self.jobs.push_back(other),
            }
        }
        found
    }

    /// Nothing comes in any more, and what is in is not waited for.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.withdraw(&Status::Cancelled);
        if let Some(running) = &mut self.running {
            let asked = running.asked.as_ref();
            running.silent |= asked.is_some_and(|asked| asked.question.is_standing());
        }
    }

    /// What nobody has said when the run is over. A standing question is on the schedule, where its
    /// last word comes from.
    pub fn unsaid(&mut self) -> Vec<Record> {
        let reports = self.reports.drain(..).filter_map(|(asked, end)| match end {
            End::Unanswered(_) if asked.question.is_standing() => None,
            End::Unanswered(status) => Some(Record::unanswered(asked, status)),
            End::LastWord(status) => Some(Record::last_word(asked.question, status)),
            End::Silent => None,
        });
        self.late.drain(..).chain(reports).collect()
    }
}

#[cfg(test)]
mod tests {
    use gst::ClockTime;
    use gstreamer as gst;

    use super::*;

    #[test]
    fn what_has_entered_and_is_not_remembered_is_how_far_the_memory_lies_behind() {
        let mut timeline = Timeline::default();
        let mut enter = |seconds| {
            let running = ClockTime::from_seconds(seconds);
            let at = Moment { running, stream: None, wall: None };
            (at, timeline.enter(at, running, 1.0, ClockTime::SECOND))
        };
        let mut queue = Queue::default();
        let (_, first) = enter(3);
        let (newest, _) = enter(9);
        let timeline = timeline;
        assert_eq!(queue.lag(&timeline), 0.0, "nothing has entered");
        (queue.first, queue.newest) = (Some(first), Some(newest));
        assert_eq!(queue.lag(&timeline), 6.0, "the model is not there yet");
        queue.seen = Some(7.5);
        assert_eq!(queue.lag(&timeline), 1.5);
        // A flush: what was seen before it says nothing.
        (queue.seen, queue.first) = (Some(first), Some(8.0));
        assert_eq!(queue.lag(&timeline), 1.0);
    }

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
