// SPDX-License-Identifier: MPL-2.0
//! A wall without cameras: hubs, and somebody who answers at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use streamkvqa_wall::brokers::{Brokers, Place};
use streamkvqa_wall::config::{CameraConfig, StandingConfig};
use streamkvqa_wall::hub::*;

/// Answers every question with its own words, but those to a camera `none`.
pub struct Echo(pub Hub);

#[async_trait]
impl Asks for Echo {
    async fn ask(&self, camera: &str, question: Question) -> Result<AnswerId, Refused> {
        if camera == "none" {
            return Err(Refused::NoCamera(camera.into()));
        }
        let mut answer = answer(camera, &format!("you asked: {}", question.text));
        answer.question = question.text;
        answer.source = question.source;
        let id = answer.id.clone();
        self.0.publish(Event::Answer(answer));
        Ok(id)
    }

    async fn add_standing(&self, _: &str, _: StandingConfig) -> Result<Standing, Refused> {
        Err(Refused::NotNow("no".into()))
    }

    async fn remove_standing(&self, _: &str, _: &str) -> Result<(), Refused> {
        Ok(())
    }

    async fn start_camera(&self, _: CameraConfig, _: Option<PathBuf>) -> Result<(), Refused> {
        Ok(())
    }

    async fn stop_camera(&self, _: &str) -> Result<Option<PathBuf>, Refused> {
        Ok(None)
    }

    fn memory_path(&self, _: &str) -> Option<PathBuf> {
        None
    }
}

pub fn answer(camera: &str, text: &str) -> Answer {
    Answer {
        id: new_id(),
        camera: camera.into(),
        question: "what is there?".into(),
        text: text.into(),
        confidence: Some(0.75),
        choice: None,
        asked: Timestamp::now(),
        answered: Timestamp::now(),
        first_token_ms: Some(120.0),
        evidence: Vec::new(),
        source: Source::Page,
        standing: None,
        error: None,
    }
}

pub fn alert(camera: &str, state: AlertState) -> Alert {
    Alert {
        id: new_id(),
        camera: camera.into(),
        standing: "fire".into(),
        question: "is there fire?".into(),
        state,
        answer: "yes".into(),
        confidence: Some(0.9),
        at: Timestamp::now(),
        evidence: Vec::new(),
    }
}

pub fn standing(id: &str, choices: &[&str], when: Option<&str>, state: Option<&str>) -> Standing {
    Standing {
        id: id.into(),
        question: format!("what about {id}?"),
        every: Some(1.0),
        on: On::Time,
        choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
        when: when.map(Into::into),
        for_s: None,
        cool_down_s: None,
        state: state.map(Into::into),
        confidence: Some(0.5),
        since: None,
    }
}

pub fn camera(id: &str, state: CameraState, standing: Vec<Standing>) -> Camera {
    Camera {
        id: id.into(),
        name: format!("The {id}"),
        state,
        reason: None,
        next_try: None,
        since: Timestamp::now(),
        host: "attic".into(),
        live: Live::default(),
        standing,
        health: Health { frames: 7, memory_bytes: 4096, lag_s: 0.5, ..Health::default() },
    }
}

/// Brokers of a wall of which `hub` is all there is.
pub fn brokers(hub: &Hub, folder: &Path) -> Brokers {
    Brokers::new(Place {
        own: hub.clone(),
        all: hub.clone(),
        asks: Arc::new(Echo(hub.clone())),
        folder: folder.to_owned(),
        wall: "Attic".into(),
        host: "attic".into(),
        clustered: false,
        settle: Duration::from_millis(300),
    })
}

pub fn broker(hub: &Hub, name: &str) -> Option<Broker> {
    hub.state().brokers.into_iter().find(|broker| broker.name == name)
}
