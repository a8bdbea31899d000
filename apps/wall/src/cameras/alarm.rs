// SPDX-License-Identifier: MPL-2.0
//! What everyone has been told of a standing question's alert. The element knows only what has been since its
//! pipeline was built; that an alert was told earlier, by a wall that was stopped or on another machine, is known
//! here: it is not told again, and its end is told where the element never saw its beginning.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::says::News;
use crate::hub::{AlertState, LastAlert};

/// One question's.
#[derive(Clone, Debug, Default)]
pub struct Alarm {
    /// A beginning was told, and no end.
    on: bool,
    /// When a beginning was last told.
    began: Option<Timestamp>,
    /// That was of the element at work, which keeps quiet by itself for a while.
    by_element: bool,
    /// The element believes that it is so.
    believed: bool,
    /// Not told yet: too soon after the one before.
    early: Option<News>,
    /// Since when answers say otherwise than was told.
    otherwise: Option<Instant>,
}

/// What of the question's terms counts here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// For how long answers must say so before it is believed.
    pub hold: Duration,
    /// After a beginning, until another is told.
    pub cool_down: Duration,
}

impl Alarm {
    /// Goes on where somebody has left off.
    pub fn after(last: &LastAlert) -> Self {
        Alarm { on: last.alert.state == AlertState::On, began: last.began, ..Self::default() }
    }

    /// Another element is asked from now on, which knows of nothing.
    pub fn anew(&mut self) {
        *self = Alarm { on: self.on, began: self.began, ..Self::default() };
    }

    /// The element has news; what of it is to be told.
    pub fn news(&mut self, news: News, terms: Terms, now: Timestamp) -> Option<News> {
        self.otherwise = None;
        self.believed = news.state == AlertState::On;
        match news.state {
            AlertState::On if self.on => None,
            AlertState::On if self.is_early(terms, now) => {
                self.early = Some(news);
                None
            }
            AlertState::On => {
                (self.on, self.began, self.by_element) = (true, Some(now), true);
                Some(news)
            }
            AlertState::Off => {
                self.early = None;
                std::mem::take(&mut self.on).then_some(news)
            }
        }
    }

    /// The element has answered, whether what is watched for or something else; what is to be told of that.
    pub fn answered(
        &mut self,
        holds: bool,
        terms: Terms,
        (now, today): (Instant, Timestamp),
        news: impl FnOnce() -> News,
    ) -> Option<News> {
        if self.early.is_some() && !self.is_early(terms, today) {
            let early = self.early.take()?;
            return self.news(early, terms, today);
        }
        if holds || self.believed || !self.on {
            self.otherwise = None;
            return None;
        }
        // The element has never believed it, and says nothing when it is over.
        let since = *self.otherwise.get_or_insert(now);
        if now.saturating_duration_since(since) < terms.hold {
            return None;
        }
        (self.on, self.otherwise) = (false, None);
        Some(News { state: AlertState::Off, ..news() })
    }

    /// Clocks may have been set back: what lies ahead says nothing.
    fn is_early(&self, terms: Terms, now: Timestamp) -> bool {
        let ago = self.began.filter(|_| !self.by_element).map(|began| now.duration_since(began));
        ago.is_some_and(|ago| ago >= SignedDuration::ZERO && ago.unsigned_abs() < terms.cool_down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Alert;

    const NONE: Terms = Terms { hold: Duration::ZERO, cool_down: Duration::ZERO };

    fn news(state: AlertState) -> News {
        News {
            number: 1,
            state,
            answer: String::new(),
            confidence: None,
            at: Timestamp::UNIX_EPOCH,
            evidence: Vec::new(),
        }
    }

    fn last(state: AlertState, began: i64) -> LastAlert {
        let alert = Alert {
            id: String::new(),
            camera: String::new(),
            standing: String::new(),
            question: String::new(),
            state,
            answer: String::new(),
            confidence: None,
            at: Timestamp::UNIX_EPOCH,
            evidence: Vec::new(),
        };
        LastAlert { alert, began: Some(at(began)) }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// What is told of what an element does, a step a second from 100 s on: `+` and `-` are its news, `1` and `0`
    /// its answers, `|` another element.
    fn told(alarm: &mut Alarm, steps: &str, terms: Terms) -> String {
        let begin = Instant::now();
        let mut told = String::new();
        for (second, step) in steps.chars().enumerate() {
            let today = at(100 + second as i64);
            let now = begin + Duration::from_secs(second as u64);
            let said = match step {
                '+' => alarm.news(news(AlertState::On), terms, today),
                '-' => alarm.news(news(AlertState::Off), terms, today),
                '|' => {
                    alarm.anew();
                    None
                }
                holds => {
                    alarm.answered(holds == '1', terms, (now, today), || news(AlertState::Off))
                }
            };
            told.push(match said.map(|news| news.state) {
                Some(AlertState::On) => '+',
                Some(AlertState::Off) => '-',
                None => '.',
            });
        }
        told
    }

    #[test]
    fn what_one_element_says_is_told() {
        assert_eq!(told(&mut Alarm::default(), "01+110-01+", NONE), "..+...-..+");
    }

    #[test]
    fn what_another_element_sees_again_is_not_told_again_and_its_end_is() {
        assert_eq!(told(&mut Alarm::default(), "1+|1+1-|1+-", NONE), ".+....-..+-");
        assert_eq!(told(&mut Alarm::after(&last(AlertState::On, 0)), "1+-", NONE), "..-");
    }

    #[test]
    fn what_has_ceased_between_two_elements_is_over_once_answers_have_said_so_for_long_enough() {
        let terms = Terms { hold: Duration::from_secs(2), ..NONE };
        assert_eq!(told(&mut Alarm::default(), "1+|0000", terms), ".+...-.");
        assert_eq!(told(&mut Alarm::default(), "1+|0010001+", terms), ".+......-.+");
        assert_eq!(told(&mut Alarm::after(&last(AlertState::Off, 0)), "000", terms), "...");
    }

    #[test]
    fn quiet_is_kept_from_one_element_to_the_next() {
        let terms = Terms { cool_down: Duration::from_secs(6), ..NONE };
        let before = || Alarm::after(&last(AlertState::Off, 98));
        // It still is so when the quiet is over; or it is not.
        assert_eq!(told(&mut before(), "1+1111-", terms), "....+.-");
        assert_eq!(told(&mut before(), "1+1-011+", terms), ".......+");
        // An element keeps its own, by the video's time, which is not quite ours.
        assert_eq!(told(&mut Alarm::default(), "1+0-1+", terms), ".+.-.+");
        // A clock that was set back keeps nobody quiet.
        assert_eq!(told(&mut Alarm::after(&last(AlertState::Off, 1000)), "1+", terms), ".+");
    }
}
