// SPDX-License-Identifier: MPL-2.0
//! Who has asked a camera what. Each question has one last word, whatever becomes of the camera.

use std::time::Instant;

use gstreamer as gst;
use jiff::Timestamp;

use super::Camera;
use crate::cameras::says::{self, News, Said};
use crate::cameras::standing::{self, Stand};
use crate::config::{self, CameraConfig, StandingConfig};
use crate::hub::{
    Alert, AlertState, Answer, AnswerId, Event, Question, Refused, Source, Standing, new_id,
};

/// Questions that may wait at one camera.
const MOST_WAITING: usize = 32;
/// Standing questions of one camera.
const MOST_STANDING: usize = 64;

/// A question that waits for its answer.
pub(super) struct Asked {
    id: AnswerId,
    question: Question,
    asked: Timestamp,
    since: Instant,
    first_token: Option<f64>,
}

impl Camera {
    pub(super) fn ask(&mut self, question: Question) -> Result<AnswerId, Refused> {
        let reason =
            || self.state.1.clone().map(|reason| format!(": {reason}")).unwrap_or_default();
        let Some(watcher) = &self.watcher else {
            return Err(Refused::NotNow(format!("the camera is not watched now{}", reason())));
        };
        if watcher.flow.frames() == 0 {
            return Err(Refused::NotNow(format!("it has not shown a picture yet{}", reason())));
        }
        if self.asked.len() >= MOST_WAITING {
            return Err(Refused::NotNow(format!(
                "{MOST_WAITING} questions wait at this camera; ask again in a while"
            )));
        }
        let number = watcher.ask(standing::once(&question)).map_err(Refused::Bad)?;
        let id = question.id.clone().unwrap_or_else(new_id);
        let asked = Asked {
            id: id.clone(),
            question,
            asked: Timestamp::now(),
            since: Instant::now(),
            first_token: None,
        };
        self.asked.insert(number, asked);
        Ok(id)
    }

    pub(super) fn token(&mut self, number: u64, text: String) {
        let Some(asked) = self.asked.get_mut(&number) else { return };
        asked.first_token.get_or_insert_with(|| asked.since.elapsed().as_secs_f64() * 1e3);
        let (answer, camera) = (asked.id.clone(), self.config.id.clone());
        self.around.hub.publish(Event::Token { answer, camera, text });
    }

    pub(super) fn answered(&mut self, said: Said) {
        if let Some(asked) = self.asked.remove(&said.number) {
            self.around.hub.publish(Event::Answer(answer_to(&self.config.id, asked, said)));
            return;
        }
        let camera = self.config.id.clone();
        let Some(stand) = self.standing.iter_mut().find(|stand| stand.number == Some(said.number))
        else {
            return;
        };
        if said.last {
            stand.number = None;
        }
        let now = Timestamp::now();
        let Ok(text) = said.text else { return };
        let news = || News {
            number: said.number,
            state: AlertState::Off,
            answer: text.clone(),
            confidence: said.confidence,
            at: now,
            evidence: said.evidence.clone(),
        };
        let (holds, terms) = (stand.holds(&text), stand.terms());
        let news = stand.alarm.answered(holds, terms, (Instant::now(), now), news);
        let alert = news.map(|news| alert_of(&camera, &stand.standing, news));
        let (is_new, is_changed) = stand.take(&text, said.confidence, now);
        if is_changed {
            let standing = stand.standing.clone();
            self.around.hub.publish(Event::Standing { camera: camera.clone(), standing });
        }
        if is_new {
            let answer = Answer {
                id: new_id(),
                camera,
                question: stand.standing.question.clone(),
                choice: said.chosen.then(|| text.clone()),
                text,
                confidence: said.confidence,
                asked: now,
                answered: now,
                first_token_ms: None,
                evidence: said.evidence,
                source: Source::Standing,
                standing: Some(stand.standing.id.clone()),
                error: None,
            };
            self.around.hub.publish(Event::Answer(answer));
        }
        if let Some(alert) = alert {
            self.around.hub.publish(Event::Alert(alert));
        }
    }

    pub(super) fn alert(&mut self, news: News) {
        let number = Some(news.number);
        let Some(stand) = self.standing.iter_mut().find(|stand| stand.number == number) else {
            return;
        };
        let terms = stand.terms();
        if let Some(news) = stand.alarm.news(news, terms, Timestamp::now()) {
            let alert = alert_of(&self.config.id, &stand.standing, news);
            self.around.hub.publish(Event::Alert(alert));
        }
    }

    /// What an ending pipeline still says.
    pub(super) fn last_words(&mut self, message: &gst::Message) {
        let now = (gst::ClockTime::ZERO, Timestamp::now());
        let said = message.structure().filter(|structure| structure.name() == "streamkvqa/answer");
        if let Some(said) = said.and_then(|structure| says::answer(structure, now))
            && let Some(asked) = self.asked.remove(&said.number)
        {
            self.around.hub.publish(Event::Answer(answer_to(&self.config.id, asked, said)));
        }
    }

    /// Whoever has no answer by now gets none.
    pub(super) fn close_questions(&mut self) {
        let why = "the camera's pipeline was stopped before it was answered".to_string();
        let left: Vec<Asked> = self.asked.drain().map(|(_, asked)| asked).collect();
        for asked in left {
            let said = Said {
                number: 0,
                text: Err(why.clone()),
                last: true,
                confidence: None,
                chosen: false,
                evidence: Vec::new(),
            };
            self.around.hub.publish(Event::Answer(answer_to(&self.config.id, asked, said)));
        }
        for stand in &mut self.standing {
            stand.number = None;
            stand.alarm.anew();
        }
    }

    /// Tells a new pipeline what stands.
    pub(super) fn ask_standing(&mut self) {
        let Some(watcher) = &self.watcher else { return };
        for stand in self.standing.iter_mut().filter(|stand| stand.number.is_none()) {
            match watcher.ask(stand.structure()) {
                Ok(number) => (stand.number, stand.fault) = (Some(number), None),
                Err(fault) => {
                    tracing::warn!(
                        camera = self.config.id,
                        standing = stand.standing.id,
                        "{fault}"
                    );
                    stand.fault = Some(fault);
                }
            }
        }
    }

    pub(super) fn add_standing(&mut self, config: &StandingConfig) -> Result<Standing, Refused> {
        if self.standing.len() >= MOST_STANDING {
            return Err(Refused::Bad(format!(
                "{MOST_STANDING} questions stand at this camera; remove one first"
            )));
        }
        let taken = |id: &str| self.standing.iter().any(|stand| stand.standing.id == id);
        let id = match &config.id {
            Some(id) if taken(id) => {
                return Err(Refused::Bad(format!("a standing question \"{id}\" is there already")));
            }
            Some(id) => id.clone(),
            None => config::standing_id(&config.question, taken),
        };
        let mut stand = Stand::new(config, id.clone(), false);
        if let Some(watcher) = &self.watcher {
            stand.number = Some(watcher.ask(stand.structure()).map_err(Refused::Bad)?);
        }
        let kept = StandingConfig { id: Some(id), ..config.clone() };
        if let Err(error) = self.around.history.keep_standing(&self.config.id, &kept) {
            if let (Some(watcher), Some(number)) = (&self.watcher, stand.number) {
                watcher.cancel(number);
            }
            return Err(Refused::Failed(format!("it cannot be kept: {error}")));
        }
        let standing = stand.standing.clone();
        self.standing.push(stand);
        self.publish();
        Ok(standing)
    }

    pub(super) fn remove_standing(&mut self, id: &str) -> Result<(), Refused> {
        let at = self.standing.iter().position(|stand| stand.standing.id == id);
        let Some(at) = at else {
            return Err(Refused::NotFound(format!("no standing question \"{id}\" is there")));
        };
        if self.standing.get(at).is_some_and(|stand| stand.configured) {
            return Err(Refused::Bad(
                "it stands in the configuration file; remove it there".into(),
            ));
        }
        self.around
            .history
            .forget_standing(&self.config.id, id)
            .map_err(|error| Refused::Failed(format!("it cannot be removed for good: {error}")))?;
        let stand = self.standing.remove(at);
        if let (Some(watcher), Some(number)) = (&self.watcher, stand.number) {
            watcher.cancel(number);
        }
        self.publish();
        Ok(())
    }

    /// The file says something else of what needs no other pipeline: name and standing questions. Those that are
    /// the same keep their state.
    pub(super) fn configure(&mut self, config: CameraConfig) {
        let (before, others): (Vec<Stand>, Vec<Stand>) =
            std::mem::take(&mut self.standing).into_iter().partition(|stand| stand.configured);
        let wanted = config::standing_of(&config);
        let is_same = |stand: &Stand, (id, config): &(String, StandingConfig)| {
            let new = Stand::new(config, id.clone(), true).standing;
            let Standing { state, confidence, since, .. } = stand.standing.clone();
            stand.standing == Standing { state, confidence, since, ..new }
        };
        let (kept, gone): (Vec<Stand>, Vec<Stand>) = before
            .into_iter()
            .partition(|stand| wanted.iter().any(|wanted| is_same(stand, wanted)));
        for number in gone.iter().filter_map(|stand| stand.number) {
            if let Some(watcher) = &self.watcher {
                watcher.cancel(number);
            }
        }
        for wanted in &wanted {
            let known = kept.iter().find(|stand| is_same(stand, wanted)).cloned();
            let new = || {
                let mut stand = Stand::new(&wanted.1, wanted.0.clone(), true);
                if let Some(before) = gone.iter().find(|before| stand.watches_as(before)) {
                    stand.alarm = before.alarm.clone();
                    stand.alarm.anew();
                }
                stand
            };
            self.standing.push(known.unwrap_or_else(new));
        }
        for before in &gone {
            if !self.standing.iter().any(|stand| stand.watches_as(before)) {
                self.around.history.forget_alert(&config.id, &before.standing.id);
            }
        }
        self.standing.extend(others);
        self.config = config;
        self.ask_standing();
        self.publish();
    }
}

fn alert_of(camera: &str, standing: &Standing, news: News) -> Alert {
    Alert {
        id: new_id(),
        camera: camera.to_owned(),
        standing: standing.id.clone(),
        question: standing.question.clone(),
        state: news.state,
        answer: news.answer,
        confidence: news.confidence,
        at: news.at,
        evidence: news.evidence,
    }
}

fn answer_to(camera: &str, asked: Asked, said: Said) -> Answer {
    let Asked { id, question, asked, first_token, .. } = asked;
    let (text, error) = match said.text {
        Ok(text) => (text, None),
        Err(why) => (String::new(), Some(why)),
    };
    Answer {
        id,
        camera: camera.to_owned(),
        question: question.text,
        choice: (said.chosen && error.is_none()).then(|| text.clone()),
        text,
        confidence: said.confidence,
        asked,
        answered: Timestamp::now(),
        first_token_ms: first_token,
        evidence: said.evidence,
        source: question.source,
        standing: None,
        error,
    }
}
