// SPDX-License-Identifier: MPL-2.0
//! The questions whose time has not come, in the order in which it comes.

use std::sync::Arc;

use gst::ClockTime;
use gstreamer as gst;

use super::question::{On, Question, When};

/// The questions whose time has not come, in the order in which it comes.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    question: Arc<Question>,
    /// Element time; `None` until the first frame says where it begins, and for the end of the stream.
    due: Option<ClockTime>,
    asked: bool,
}

impl Schedule {
    pub fn add(&mut self, question: Arc<Question>) {
        let due = match question.when {
            When::Now => Some(ClockTime::ZERO),
            When::At(at) => Some(at),
            When::Every { from, .. } => from,
            When::AtEnd | When::Occasion => None,
        };
        self.entries.push(Entry { question, due, asked: false });
    }

    pub fn remove(&mut self, id: u64) -> Option<Arc<Question>> {
        let index = self.entries.iter().position(|entry| entry.question.id == id)?;
        Some(self.entries.remove(index).question)
    }

    pub fn clear(&mut self) -> Vec<Arc<Question>> {
        self.entries.drain(..).map(|entry| entry.question).collect()
    }

    /// A question that was handed out could not be asked yet; a standing one comes again anyway.
    pub fn put_back(&mut self, question: Arc<Question>) {
        if !question.is_standing() {
            self.add(question);
        }
    }

    /// Running time starts again: standing questions count from its next frame.
    pub fn restart(&mut self) {
        for entry in &mut self.entries {
            if let When::Every { from, .. } = entry.question.when
                && (entry.asked || from.is_none())
            {
                entry.due = None;
            }
        }
    }

    /// Whether a question falls due at this time.
    pub fn is_due(&self, time: ClockTime) -> bool {
        self.next_time().is_some_and(|due| due <= time)
    }

    /// When the next question falls due.
    pub fn next_time(&self) -> Option<ClockTime> {
        self.entries.iter().filter_map(|entry| entry.due).min()
    }

    /// The next question that falls due at this time; asked once or rescheduled.
    pub fn next_due(&mut self, time: ClockTime) -> Option<Arc<Question>> {
        for entry in &mut self.entries {
            entry.keep_up(time);
        }
        let (index, due) = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| Some((index, entry.due.filter(|due| *due <= time)?)))
            .min_by_key(|&(index, due)| (due, index))?;
        let entry = self.entries.get_mut(index)?;
        let When::Every { interval, .. } = entry.question.when else {
            return Some(self.entries.remove(index).question);
        };
        let missed = (time - due).nseconds() / interval.nseconds().max(1);
        entry.due = Some(due.saturating_add(interval.saturating_mul(missed.saturating_add(1))));
        entry.asked = true;
        Some(entry.question.clone())
    }

    /// The questions that are asked on an occasion of this kind.
    pub fn on(&mut self, occasion: impl Fn(On) -> bool) -> Vec<Arc<Question>> {
        let meant = self.entries.iter_mut().filter(|entry| occasion(entry.question.on));
        meant
            .map(|entry| {
                entry.asked = true;
                entry.question.clone()
            })
            .collect()
    }

    /// Whether there are any.
    pub fn has(&self, occasion: impl Fn(On) -> bool) -> bool {
        self.entries.iter().any(|entry| occasion(entry.question.on))
    }

    /// All that stand.
    pub fn standing(&self) -> Vec<Arc<Question>> {
        let standing = self.entries.iter().filter(|entry| entry.question.is_standing());
        standing.map(|entry| entry.question.clone()).collect()
    }

    /// The next question that the end of the stream makes due: those that never were.
    pub fn next_at_end(&mut self) -> Option<Arc<Question>> {
        let index = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| !entry.asked && entry.question.when != When::Occasion)
            .min_by_key(|&(index, entry)| (entry.due.unwrap_or(ClockTime::MAX), index))?
            .0;
        let entry = self.entries.get_mut(index)?;
        entry.asked = true;
        if entry.question.is_standing() {
            return Some(entry.question.clone());
        }
        Some(self.entries.remove(index).question)
    }

    /// Questions that will be asked once or for the first time.
    pub fn owed(&self) -> usize {
        let owed = |entry: &&Entry| !entry.asked && entry.question.when != When::Occasion;
        self.entries.iter().filter(owed).count()
    }
}

impl Entry {
    /// A standing question never waits longer than its interval, wherever time has come from.
    fn keep_up(&mut self, time: ClockTime) {
        let When::Every { from, interval } = self.question.when else { return };
        let next = time.saturating_add(interval);
        let begun = self.asked || from.is_none();
        self.due = match self.due {
            None => Some(next),
            Some(due) if begun => Some(due.min(next)),
            due => due,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(text: &str, when: When) -> Arc<Question> {
        Arc::new(Question { when, ..Question::new(text).unwrap() })
    }

    fn due(schedule: &mut Schedule, seconds: u64) -> Vec<String> {
        std::iter::from_fn(|| schedule.next_due(ClockTime::from_seconds(seconds)))
            .map(|question| question.text.clone())
            .collect()
    }

    #[test]
    fn questions_fall_due_in_the_order_of_their_times() {
        let seconds = ClockTime::from_seconds;
        let mut schedule = Schedule::default();
        schedule.add(question("five", When::At(seconds(5))));
        schedule.add(question("two", When::At(seconds(2))));
        schedule.add(question("last", When::AtEnd));
        schedule.add(question("each", When::Every { from: None, interval: seconds(3) }));
        schedule.add(question("now", When::Now));
        assert_eq!(due(&mut schedule, 1), ["now"]);
        assert!(!schedule.is_due(seconds(1)) && schedule.is_due(seconds(2)));
        assert_eq!(due(&mut schedule, 5), ["two", "each", "five"]);
        assert_eq!(due(&mut schedule, 6), [""; 0]);
        assert_eq!(due(&mut schedule, 20), ["each"]);
        assert_eq!(due(&mut schedule, 21), [""; 0]);
        assert_eq!(schedule.next_at_end().unwrap().text, "last");
        assert!(schedule.next_at_end().is_none());
    }

    #[test]
    fn the_end_asks_what_never_fell_due() {
        let seconds = ClockTime::from_seconds;
        let mut schedule = Schedule::default();
        schedule.add(question("end", When::AtEnd));
        schedule.add(question("late", When::At(seconds(500))));
        schedule.add(question("each", When::Every { from: None, interval: seconds(300) }));
        due(&mut schedule, 1);
        let texts: Vec<_> = std::iter::from_fn(|| schedule.next_at_end())
            .map(|question| question.text.clone())
            .collect();
        assert_eq!(texts, ["each", "late", "end"]);
    }

    #[test]
    fn standing_questions_go_on_after_running_time_restarts() {
        let seconds = ClockTime::from_seconds;
        let mut schedule = Schedule::default();
        schedule.add(question("each", When::Every { from: None, interval: seconds(2) }));
        assert_eq!(due(&mut schedule, 100), [""; 0]);
        assert_eq!(due(&mut schedule, 102), ["each"]);
        schedule.restart();
        assert_eq!(due(&mut schedule, 0), [""; 0]);
        assert_eq!(due(&mut schedule, 2), ["each"]);
    }

    #[test]
    fn standing_questions_go_on_when_time_comes_back_from_far_ahead() {
        let seconds = ClockTime::from_seconds;
        let mut schedule = Schedule::default();
        schedule.add(question("each", When::Every { from: None, interval: seconds(2) }));
        schedule
            .add(question("later", When::Every { from: Some(seconds(90)), interval: seconds(2) }));
        assert_eq!(due(&mut schedule, 0), [""; 0]);
        assert_eq!(due(&mut schedule, 50), ["each"]);
        assert_eq!(due(&mut schedule, 3), [""; 0]);
        assert_eq!(due(&mut schedule, 5), ["each"]);
        assert_eq!(schedule.owed(), 1);
    }

    #[test]
    fn what_could_not_be_asked_is_asked_later_and_once() {
        let seconds = ClockTime::from_seconds;
        let mut schedule = Schedule::default();
        schedule.add(question("once", When::At(seconds(1))));
        schedule
            .add(question("each", When::Every { from: Some(seconds(1)), interval: seconds(1) }));
        for _ in 0..2 {
            let question = schedule.next_due(seconds(1)).unwrap();
            schedule.put_back(question);
        }
        assert_eq!(due(&mut schedule, 1), ["once"]);
        assert_eq!(due(&mut schedule, 2), ["each"]);
        assert_eq!(due(&mut schedule, 3), ["each"]);
    }
}
