// SPDX-License-Identifier: MPL-2.0
//! The questions whose time has not come, in the order in which it comes.

use std::sync::Arc;

use gst::ClockTime;
use gstreamer as gst;

use super::question::{Question, When};

/// The questions whose time has not come, in the order in which it comes.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    question: Arc<Question>,
    /// `None` until the first frame says where running time begins, and for the end of the stream.
    due: Option<ClockTime>,
    asked: bool,
}

impl Schedule {
    pub fn add(&mut self, question: Arc<Question>) {
        let due = match question.when {
            When::Now => Some(ClockTime::ZERO),
            When::At(at) => Some(at),
            When::Every { from, .. } => from,
            When::AtEnd => None,
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

    /// Whether a question falls due at a frame of this running time.
    pub fn is_due(&self, running: ClockTime) -> bool {
        self.entries.iter().any(|entry| entry.due.is_some_and(|due| due <= running))
    }

    /// The next question that falls due at a frame of this running time; asked once or rescheduled.
    pub fn next_due(&mut self, running: ClockTime) -> Option<Arc<Question>> {
        for entry in &mut self.entries {
            if let (When::Every { interval, .. }, None) = (entry.question.when, entry.due) {
                entry.due = Some(running.saturating_add(interval));
            }
        }
        let (index, due) = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| Some((index, entry.due.filter(|due| *due <= running)?)))
            .min_by_key(|&(index, due)| (due, index))?;
        let entry = &mut self.entries[index];
        let When::Every { interval, .. } = entry.question.when else {
            return Some(self.entries.remove(index).question);
        };
        let missed = (running - due).nseconds() / interval.nseconds();
        entry.due = Some(due.saturating_add(interval.saturating_mul(missed + 1)));
        entry.asked = true;
        Some(entry.question.clone())
    }

    /// The next question that the end of the stream makes due: those that never were.
    pub fn next_at_end(&mut self) -> Option<Arc<Question>> {
        let index = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| !entry.asked)
            .min_by_key(|&(index, entry)| (entry.due.unwrap_or(ClockTime::MAX), index))?
            .0;
        let entry = &mut self.entries[index];
        entry.asked = true;
        if let When::Every { .. } = entry.question.when {
            return Some(entry.question.clone());
        }
        Some(self.entries.remove(index).question)
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
}
