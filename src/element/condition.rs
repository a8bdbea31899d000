// SPDX-License-Identifier: MPL-2.0
//! When the answers to a standing question amount to news: what it asks about has become true, or is
//! no longer.

use gst::ClockTime;
use gstreamer as gst;

/// What is asked for: news of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rule {
    /// The answer that makes it true, as it stands among the question's choices.
    pub when: String,
    /// For how long answers must say so, either way, before it is believed.
    pub hold: ClockTime,
    /// For how long after the news of a beginning there is none of another.
    pub cool_down: ClockTime,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Turn {
    /// It is true, since then.
    Began { since: ClockTime },
    /// It is no longer, since then; it had been for so long.
    Ceased { since: ClockTime, lasted: ClockTime },
}

/// As of when something was asked. What has passed is counted in engine time, which neither leaps nor starts
/// again; what is told is running time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clocks {
    pub engine: ClockTime,
    pub running: ClockTime,
}

impl Clocks {
    fn since(self, earlier: Self) -> ClockTime {
        self.engine.saturating_sub(earlier.engine)
    }
}

/// What a standing question's answers have amounted to so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    /// Since when it is true, if it is believed to be.
    began: Option<Clocks>,
    /// Since when answers say otherwise than is believed.
    turning: Option<Clocks>,
    /// Whether there was news of what is believed to be true.
    told: bool,
    /// When there last was news of a beginning.
    last: Option<Clocks>,
}

impl Condition {
    /// Since when it is true, if it is: running time.
    pub fn began(&self) -> Option<ClockTime> {
        self.began.map(|began| began.running)
    }

    /// Takes the next answer in; the news, if there is any.
    pub fn see(&mut self, holds: bool, at: Clocks, rule: &Rule) -> Option<Turn> {
        // Running time starts again after a seek: what was before it is told as if it had been then.
        for earlier in [&mut self.began, &mut self.turning].into_iter().flatten() {
            earlier.running = earlier.running.min(at.running);
        }
        if holds == self.began.is_some() {
            self.turning = None;
        } else {
            let since = *self.turning.get_or_insert(at);
            if at.since(since) < rule.hold {
                return None;
            }
            self.turning = None;
            if !holds {
                let began = self.began.take().unwrap_or(since);
                let told = std::mem::take(&mut self.told);
                let lasted = since.since(began);
                return told.then_some(Turn::Ceased { since: since.running, lasted });
            }
            self.began = Some(since);
        }
        // What began while nobody wanted to hear of it is told as soon as they do.
        let since = self.began.filter(|_| !self.told)?;
        if self.last.is_some_and(|last| at.since(last) < rule.cool_down) {
            return None;
        }
        (self.told, self.last) = (true, Some(at));
        Some(Turn::Began { since: since.running })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(hold: u64, cool_down: u64) -> Rule {
        Rule {
            when: "yes".into(),
            hold: ClockTime::from_seconds(hold),
            cool_down: ClockTime::from_seconds(cool_down),
        }
    }

    /// Both clocks show so many seconds.
    fn clocks(seconds: u64) -> Clocks {
        let time = ClockTime::from_seconds(seconds);
        Clocks { engine: time, running: time }
    }

    /// The news of answers that come once a second, `1` for true: second, sign, since.
    fn news(answers: &str, rule: &Rule) -> Vec<(usize, char, u64)> {
        let mut condition = Condition::default();
        let mut news = Vec::new();
        for (second, answer) in answers.chars().enumerate() {
            match condition.see(answer == '1', clocks(second as u64), rule) {
                Some(Turn::Began { since }) => news.push((second, '+', since.seconds())),
                Some(Turn::Ceased { since, .. }) => news.push((second, '-', since.seconds())),
                None => {}
            }
        }
        news
    }

    #[test]
    fn only_what_turns_is_news() {
        assert_eq!(news("0011100", &rule(0, 0)), [(2, '+', 2), (5, '-', 5)]);
        assert_eq!(news("0000", &rule(0, 0)), []);
        assert_eq!(news("1111", &rule(0, 0)), [(0, '+', 0)]);
    }

    #[test]
    fn what_flickers_is_not_believed() {
        assert_eq!(news("0101010", &rule(2, 0)), []);
        assert_eq!(news("0111010111000", &rule(2, 0)), [(3, '+', 1), (12, '-', 10)]);
    }

    #[test]
    fn after_news_there_is_quiet_for_a_while() {
        assert_eq!(news("10101000001", &rule(0, 5)), [(0, '+', 0), (1, '-', 1), (10, '+', 10)]);
        // What begins within and still holds is told as soon as that is over.
        assert_eq!(
            news("1011111110", &rule(0, 5)),
            [(0, '+', 0), (1, '-', 1), (5, '+', 2), (9, '-', 9)]
        );
    }

    #[test]
    fn how_long_it_lasted_is_told() {
        let (rule, mut condition) = (rule(0, 0), Condition::default());
        condition.see(true, clocks(3), &rule);
        assert_eq!(condition.began(), Some(ClockTime::from_seconds(3)));
        let turn = condition.see(false, clocks(10), &rule).unwrap();
        let (since, lasted) = (ClockTime::from_seconds(10), ClockTime::from_seconds(7));
        assert_eq!(turn, Turn::Ceased { since, lasted });
        assert_eq!(condition.began(), None);
    }

    #[test]
    fn time_that_starts_again_makes_no_news() {
        let (rule, mut condition) = (rule(2, 60), Condition::default());
        let mut engine = ClockTime::from_seconds(9);
        // Answers come once a second, whatever the stamps say.
        let mut see = |holds, running| {
            engine += ClockTime::SECOND;
            condition.see(
                holds,
                Clocks { engine, running: ClockTime::from_seconds(running) },
                &rule,
            )
        };
        assert_eq!(
            [100, 101, 102].map(|at| see(true, at)).map(|turn| turn.is_some()),
            [false, false, true]
        );
        assert_eq!([see(true, 1), see(false, 2), see(false, 3)], [None; 3]);
        let (since, lasted) = (ClockTime::from_seconds(2), ClockTime::from_seconds(4));
        assert_eq!(see(false, 4), Some(Turn::Ceased { since, lasted }));
        // A minute of quiet is not over because the stamps began anew, nor because one of them is far off.
        assert_eq!([5, 6, 3607, 8].map(|at| see(true, at)), [None; 4]);
    }

    #[test]
    fn a_stamp_that_is_far_off_makes_nothing_last() {
        let (rule, mut condition) = (rule(60, 0), Condition::default());
        for (engine, running) in [(0, 0), (1, 1), (2, 3602), (3, 3), (59, 7200)] {
            let [engine, running] = [engine, running].map(ClockTime::from_seconds);
            assert_eq!(condition.see(true, Clocks { engine, running }, &rule), None);
        }
        assert!(condition.see(true, clocks(60), &rule).is_some());
    }
}
