// SPDX-License-Identifier: MPL-2.0
use std::time::{Duration, Instant};

use super::*;
use crate::hub::{BrokerState, Evidence, Source, State, new_id};

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// An answer that rests on a second of video.
fn answer(when: i64, seen: i64) -> Answer {
    let evidence =
        Evidence { from: at(seen), to: at(seen + 1000), score: Some(0.5), picture: None };
    Answer {
        id: new_id(),
        camera: "yard-1".into(),
        question: "what is here now?".into(),
        text: "a dog".into(),
        confidence: Some(0.5),
        choice: None,
        asked: at(when),
        answered: at(when),
        first_token_ms: None,
        evidence: vec![evidence],
        source: Source::Api,
        standing: None,
        error: None,
    }
}

struct Past {
    hub: Hub,
    history: History,
    heard: crate::hub::Receiver,
}

fn open(folder: &Path, config: &HistoryConfig) -> Past {
    let hub = Hub::new();
    let heard = hub.subscribe();
    let history = History::start(folder, config, &hub).unwrap();
    history.keep(&hub);
    Past { hub, history, heard }
}

impl Past {
    /// Tells of an answer, and waits until everyone has heard.
    fn tell(&mut self, answer: Answer) -> Answer {
        self.hub.publish(Event::Answer(answer));
        loop {
            if let Event::Answer(answer) = &*self.heard.blocking_recv().unwrap() {
                return answer.clone();
            }
        }
    }

    fn picture(&self, ms: i64, bytes: usize) {
        self.history.keep_picture("yard-1", &Picture { at: at(ms), jpeg: vec![7; bytes].into() });
    }

    fn answers(&self) -> Vec<String> {
        let found = self.history.find(&Query { limit: Some(1000), ..Query::default() }).unwrap();
        found.iter().map(|entry| entry.id().to_owned()).collect()
    }

    fn moments(&self) -> usize {
        self.history.moments("yard-1", at(now()), 80_000.0).unwrap().len()
    }
}

#[track_caller]
fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn evidence_gets_the_picture_in_its_middle_which_stays_as_long_as_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let seen = now() - 60_000;
    let config = HistoryConfig { max_picture_bytes: 1_000, ..HistoryConfig::default() };
    let mut past = open(folder.path(), &config);
    for ms in (seen - 4000..seen + 4000).step_by(400) {
        past.picture(ms, 1000);
    }
    let told = past.tell(answer(now(), seen));
    let key = told.evidence[0].picture.clone().unwrap();
    assert_eq!(key, format!("yard-1-{}", seen + 400));
    // All others are too much.
    past.history.configure(&HistoryConfig { max_picture_bytes: 0, ..config.clone() });
    until("the others to go", || past.moments() == 1);
    assert_eq!(past.history.picture(&key).unwrap().unwrap().len(), 1000);
    // The answer is too much, and takes its picture along.
    past.history.configure(&HistoryConfig { max_picture_bytes: 0, max_bytes: 0, ..config });
    until("the answer to go", || past.answers().is_empty());
    until("its picture to go", || past.history.picture(&key).unwrap().is_none());
    assert_eq!(
        past.history.find(&Query { q: Some("dog".into()), ..Query::default() }).unwrap(),
        []
    );
}

#[test]
fn the_oldest_go_first_by_age_and_by_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let config = HistoryConfig { keep_days: 2.0, ..HistoryConfig::default() };
    let mut past = open(folder.path(), &config);
    let day = 86_400_000;
    let ids: Vec<String> =
        (0..10).rev().map(|days| past.tell(answer(now() - days * day, 0)).id).collect();
    past.history.configure(&config);
    until("eight to be too old", || past.answers().len() == 2);
    assert_eq!(past.answers(), [&*ids[9], &*ids[8]]);
    let size = serde_json::to_string(&Entry::Answer(answer(now(), 0))).unwrap().len() as u64;
    past.history.configure(&HistoryConfig { max_bytes: size + size / 2, ..config });
    until("one to be too much", || past.answers().len() == 1);
    assert_eq!(past.answers(), [&*ids[9]]);
}

#[test]
fn what_comes_twice_is_kept_and_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut past = open(folder.path(), &HistoryConfig::default());
    let first = past.tell(answer(now(), 0));
    past.hub.publish(Event::Answer(first.clone()));
    let second = answer(now(), 0);
    // The next that everyone hears of is another one.
    assert_eq!(past.tell(second.clone()).id, second.id);
    assert_eq!(past.answers(), [second.id, first.id]);
}

#[test]
fn a_damaged_database_is_put_aside_and_a_new_one_begun() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(schema::FILE), "no database, but words".repeat(1000))
        .unwrap();
    let mut past = open(folder.path(), &HistoryConfig::default());
    let told = past.tell(answer(now(), 0));
    assert_eq!(past.answers(), [told.id]);
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().any(|name| name.to_string_lossy().contains("damaged")));
}

#[test]
fn a_folder_that_is_gone_is_a_state_and_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut past = open(&folder.path().join("none"), &HistoryConfig::default());
    past.tell(answer(now(), 0));
    let State { brokers, .. } = past.hub.state();
    assert_eq!((brokers[0].state, brokers[0].waiting), (BrokerState::Failed, 1));
    assert!(past.history.find(&Query::default()).is_err());
    std::fs::create_dir(folder.path().join("none")).unwrap();
    until("it to be written", || past.hub.state().brokers[0].waiting == 0);
    assert_eq!(past.answers().len(), 1);
}

#[test]
fn standing_questions_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let past = open(folder.path(), &HistoryConfig::default());
    let standing = |id: &str| StandingConfig { id: Some(id.into()), ..StandingConfig::default() };
    for id in ["b", "a"] {
        past.history.keep_standing("yard-1", &standing(id)).unwrap();
    }
    assert_eq!(past.history.standing("yard-1"), [standing("a"), standing("b")]);
    past.history.close();
    let past = open(folder.path(), &HistoryConfig::default());
    past.history.forget_standing("yard-1", "a").unwrap();
    assert_eq!(past.history.standing("yard-1"), [standing("b")]);
}
