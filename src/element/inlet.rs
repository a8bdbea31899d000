// SPDX-License-Identifier: MPL-2.0
//! Questions in: from signals, events, properties and files, to the schedule or the worker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use gst::ClockTime;
use gstreamer as gst;
use parking_lot::Mutex;

use super::answer::Status;
use super::bus::QUESTIONS;
use super::outlet::Outlet;
use super::question::{On, Question, When, next_id};
use super::schedule::Schedule;
use super::settings::Settings;
use super::text_pad::TextPad;
use super::timeline::Moment;
use super::worker::{Refused, Worker};

/// Events seen lately; one upstream event arrives once per sink.
const MAX_SEQNUMS: usize = 64;
/// Name of the custom event that asks, upstream or downstream.
const EVENT_NAME: &str = "streamkvqa/ask";

/// Where questions go: to the worker of the run, and through it to the text pad that waits for
/// their answers.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub worker: &'a Worker,
    pub outlet: &'a Outlet,
    pub text: Option<&'a TextPad>,
}

impl Way<'_> {
    fn ask(&self, question: Arc<Question>) {
        gst::debug!(QUESTIONS, "question {} is asked: {:?}", question.id, question.text);
        let asked = self.worker.ask(question, |asked| {
            if let (Some(text), Some(at)) = (self.text, asked.at) {
                text.hold(asked.number, at.running);
            }
        });
        if let Err(over) = asked {
            self.outlet.last_word(&over.0);
        }
    }

    /// Asks about a frame that has just been seen.
    fn ask_first(&self, questions: Vec<Arc<Question>>, at: Moment) {
        self.worker.ask_first(questions, at, |asked, newest| {
            gst::debug!(
                QUESTIONS,
                "question {} is asked: {:?}",
                asked.question.id,
                asked.question.text
            );
            // Text is held from where the video has come to.
            if let (Some(text), Some(newest)) = (self.text, newest) {
                text.hold(asked.number, newest.running);
            }
        });
    }

    fn end(&self, question: Arc<Question>, status: Status) {
        if let Err(over) = self.worker.end(question, status) {
            self.outlet.last_word(&over.0);
        }
    }
}

/// Each lock is a leaf.
#[derive(Default)]
pub(super) struct Inlet {
    schedule: Mutex<Schedule>,
    /// The question of the `question` property.
    standing: Mutex<Option<u64>>,
    seen: Mutex<Seen>,
}

/// Upstream events that have been seen.
#[derive(Default)]
struct Seen {
    asks: VecDeque<gst::Seqnum>,
    seek: Option<gst::Seqnum>,
}

impl Inlet {
    /// Asks now if a frame has entered, else at the first frame or whenever the question says.
    pub fn ask(&self, question: Question, way: Option<Way>) -> u64 {
        let id = next_id();
        let question = Arc::new(Question { id, ..question });
        gst::debug!(QUESTIONS, "question {id}: {:?}", question.text);
        match way {
            Some(way) if question.when == When::Now && way.worker.has_seen() => way.ask(question),
            _ => self.schedule.lock().add(question),
        }
        id
    }

    /// Puts the questions of a file on the schedule.
    pub fn add(&self, questions: Vec<Question>) {
        let mut schedule = self.schedule.lock();
        for question in questions {
            schedule.add(Arc::new(Question { id: next_id(), ..question }));
        }
    }

    /// Puts the `question` property on the schedule, in place of what it said before.
    pub fn arm(&self, settings: &Settings, way: Way) {
        let standing = self.standing.lock().take();
        if let Some(id) = standing {
            self.withdraw(id, way);
        }
        let Some(Ok(question)) = settings.question.as_deref().map(Question::new) else { return };
        let interval = settings.question_interval;
        let playing = way.worker.has_seen();
        let when = match (interval > ClockTime::ZERO, playing) {
            (true, _) => When::Every { from: playing.then_some(ClockTime::ZERO), interval },
            (false, true) => When::Now,
            (false, false) => When::AtEnd,
        };
        let id = self.ask(Question { when, ..question }, Some(way));
        *self.standing.lock() = Some(id);
    }

    /// Whether a question falls due at this element time.
    pub fn is_due(&self, time: ClockTime) -> bool {
        self.schedule.lock().is_due(time)
    }

    /// Element time at which the next question falls due.
    pub fn next_time(&self) -> Option<ClockTime> {
        self.schedule.lock().next_time()
    }

    /// Asks what falls due at this element time. `lossless` waits until there is room; else what is due
    /// again while it still waits is asked once.
    pub fn ask_due(&self, time: ClockTime, lossless: bool, way: Way) -> Result<(), Refused> {
        loop {
            let due = self.schedule.lock().next_due(time);
            let Some(question) = due else { return Ok(()) };
            if !lossless && way.worker.is_waiting(question.id) {
                continue;
            }
            if lossless && let Err(refused) = way.worker.wait_for_room(None) {
                self.schedule.lock().put_back(question);
                return Err(refused);
            }
            way.ask(question);
        }
    }

    /// Whether a question waits for the picture to change.
    pub fn wants_changes(&self) -> bool {
        self.schedule.lock().has(|on| on.change)
    }

    /// The picture has changed.
    pub fn changed(&self, at: Moment, way: Way) {
        let questions = self.schedule.lock().on(|on| on.change);
        way.ask_first(questions, at);
    }

    /// Something upstream has seen something. `lossless` waits until there is room; else a question that
    /// still waits is asked once.
    pub fn detected(&self, lossless: bool, way: Way) -> Result<(), Refused> {
        let questions = self.schedule.lock().on(|on: On| on.detection);
        for question in questions {
            match lossless {
                true => drop(way.worker.wait_for_room(None)?),
                false if way.worker.is_waiting(question.id) => continue,
                false => {}
            }
            way.ask(question);
        }
        Ok(())
    }

    /// The questions that stand.
    pub fn standing(&self) -> Vec<Arc<Question>> {
        self.schedule.lock().standing()
    }

    /// Asks what never fell due. `lossless` waits until there is room; what there is none for before
    /// the deadline is cancelled.
    pub fn ask_at_end(&self, lossless: bool, deadline: Option<Instant>, way: Way) {
        loop {
            let next = self.schedule.lock().next_at_end();
            let Some(question) = next else { return };
            let room = if lossless { way.worker.wait_for_room(deadline) } else { Ok(true) };
            match room {
                Ok(true) => way.ask(question),
                Ok(false) if question.is_standing() => {}
                Ok(false) => way.end(question, Status::Cancelled),
                Err(_) => return self.schedule.lock().put_back(question),
            }
        }
    }

    /// Takes a question back, wherever it is; whether it was anywhere.
    pub fn cancel(&self, id: u64, way: Way) -> bool {
        self.withdraw(id, way) || way.worker.cancel(id)
    }

    /// Takes a question off the schedule, with all of its askings.
    fn withdraw(&self, id: u64, way: Way) -> bool {
        let Some(question) = self.take(id) else { return false };
        way.worker.cancel(id);
        way.end(question, Status::Cancelled);
        true
    }

    /// Takes a question off the schedule; somebody is to say its last word.
    pub fn take(&self, id: u64) -> Option<Arc<Question>> {
        self.schedule.lock().remove(id)
    }

    /// Questions that will be asked once or for the first time.
    pub fn owed(&self) -> usize {
        self.schedule.lock().owed()
    }

    /// Running time starts again.
    pub fn restart(&self) {
        self.schedule.lock().restart();
    }

    /// A new run has seen no events.
    pub fn begin(&self) {
        *self.seen.lock() = Seen::default();
    }

    /// The run is over: what never fell due.
    pub fn end(&self) -> Vec<Arc<Question>> {
        *self.standing.lock() = None;
        self.schedule.lock().clear()
    }

    /// Whether an event that asks comes for the first time.
    pub fn is_new_ask(&self, seqnum: gst::Seqnum) -> bool {
        let mut seen = self.seen.lock();
        if seen.asks.contains(&seqnum) {
            return false;
        }
        if seen.asks.len() == MAX_SEQNUMS {
            seen.asks.pop_front();
        }
        seen.asks.push_back(seqnum);
        true
    }

    /// Both source pads get the same seek when a pipeline is sought; whether this is the first.
    pub fn is_new_seek(&self, seqnum: gst::Seqnum) -> bool {
        self.seen.lock().seek.replace(seqnum) != Some(seqnum)
    }
}

/// What a custom event asks the element of this name; `None` if it is somebody else's.
pub(super) fn asked_of<'a>(event: &'a gst::EventRef, name: &str) -> Option<&'a gst::StructureRef> {
    is_for(event, EVENT_NAME, name)
}

/// What a custom event of this kind says to the element of this name.
pub(super) fn is_for<'a>(
    event: &'a gst::EventRef,
    kind: &str,
    name: &str,
) -> Option<&'a gst::StructureRef> {
    let structure = event.structure().filter(|structure| structure.name() == kind)?;
    let element = structure.get::<Option<String>>("element").ok().flatten();
    element.is_none_or(|element| element == name).then_some(structure)
}
