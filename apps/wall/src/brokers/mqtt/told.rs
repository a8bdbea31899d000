// SPDX-License-Identifier: MPL-2.0
//! What a broker is told of what happens: events become topics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::discovery::{self, Entities};
use super::outbox::Outbox;
use super::topics::Topics;
use crate::hub::{Answer, Camera, CameraState, Event, Health, Standing, State};

/// How often at most the health of a camera is told.
const HEALTH_EVERY: Duration = Duration::from_secs(5);

/// What has been told so far, and what waits to be.
pub(super) struct Told {
    pub topics: Topics,
    pub outbox: Outbox,
    /// Cameras that this wall speaks for.
    cameras: BTreeMap<String, Camera>,
    /// Cameras of which other walls speak.
    elsewhere: BTreeSet<String>,
    entities: BTreeMap<String, Entities>,
    health: HashMap<String, Instant>,
    /// Cameras that the broker knows from an earlier life, and nobody here.
    strange: BTreeMap<String, Value>,
}

fn json_of(what: &impl Serialize) -> Vec<u8> {
    // Nothing here has keys that are no text.
    serde_json::to_vec(what).unwrap_or_default()
}

impl Told {
    pub fn new(topics: Topics, bound: usize) -> Self {
        Told {
            topics,
            outbox: Outbox::new(bound),
            cameras: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
            entities: BTreeMap::new(),
            health: HashMap::new(),
            strange: BTreeMap::new(),
        }
    }

    /// What is so after events have been missed.
    pub fn state(&mut self, state: &State) {
        let known: Vec<String> = self.cameras.keys().cloned().collect();
        for camera in
            known.iter().filter(|known| !state.cameras.iter().any(|camera| camera.id == **known))
        {
            self.gone(camera);
        }
        for camera in &state.cameras {
            self.camera(camera);
        }
    }

    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Camera(camera) => self.camera(camera),
            Event::Gone { camera } => self.gone(camera),
            Event::Health { camera, health } => self.health(camera, health),
            Event::Standing { camera, standing } => self.standing(camera, standing),
            Event::Answer(answer) => self.answer(answer),
            Event::Alert(alert) => {
                self.outbox.tell(self.topics.camera(&alert.camera, "alert"), json_of(alert));
            }
            Event::Token { .. } | Event::Broker(_) | Event::Order { .. } => {}
        }
    }

    fn camera(&mut self, camera: &Camera) {
        // Without a host it is on its way between walls, and the next one speaks for it.
        if camera.state == CameraState::Elsewhere || camera.host.is_empty() {
            self.leave(&camera.id);
            return;
        }
        self.elsewhere.remove(&camera.id);
        self.cameras.insert(camera.id.clone(), camera.clone());
        self.announce(&camera.id);
        if let Some(device) = self.strange.remove(&camera.id) {
            self.told_before(&camera.id, device);
        }
        let state = json!({
            "state": camera.state,
            "reason": camera.reason,
            "next_try": camera.next_try,
            "since": camera.since,
            "host": camera.host,
        });
        self.outbox.set(self.topics.camera(&camera.id, "state"), json_of(&state));
        let up = if camera.state == CameraState::Live { "online" } else { "offline" };
        self.outbox.set(self.topics.camera(&camera.id, "availability"), up);
        for standing in &camera.standing {
            self.outbox.set(self.topics.standing(&camera.id, &standing.id), json_of(standing));
        }
        let kept: BTreeSet<String> = camera
            .standing
            .iter()
            .map(|standing| self.topics.standing(&camera.id, &standing.id))
            .collect();
        self.outbox.clear_except(&self.topics.camera(&camera.id, "standing/"), &kept);
        self.health(&camera.id, &camera.health);
    }

    /// Tells Home Assistant of a camera, and of the entities that it no longer has.
    fn announce(&mut self, id: &str) {
        let (Some(camera), Some(at)) = (self.cameras.get(id), self.topics.discovery(id)) else {
            return;
        };
        let before = self.entities.get(id).cloned().unwrap_or_default();
        let (device, now) = discovery::device(camera, &self.topics, &before);
        if before.keys().any(|name| !now.contains_key(name)) {
            // Once with what is gone, and once without: what is retained must not remove what comes later.
            self.outbox.tell_retained(at.clone(), json_of(&device));
        }
        let (device, now) = discovery::device(camera, &self.topics, &now);
        self.outbox.set(at, json_of(&device));
        self.entities.insert(id.to_owned(), now);
    }

    /// What the broker was told of a camera in an earlier life of a wall. What is no longer so is taken back: of
    /// a camera that is here at once, of one that is not once [`Told::settle`] says that it will not come.
    pub fn told_before(&mut self, id: &str, device: Value) {
        if !self.cameras.contains_key(id) {
            if discovery::is_of(&device, &self.topics) {
                self.strange.insert(id.to_owned(), device);
            }
            return;
        }
        let now = self.entities.get(id).cloned().unwrap_or_default();
        let mut all = discovery::entities(&device);
        all.append(&mut now.clone());
        if all != now {
            for topic in discovery::standing_topics(&device) {
                if !self.outbox.is_set(&topic) {
                    self.outbox.clear(&topic);
                }
            }
            self.entities.insert(id.to_owned(), all);
            self.announce(id);
        }
    }

    /// Cameras that have not come by now are taken to be gone.
    pub fn settle(&mut self) {
        for (id, device) in std::mem::take(&mut self.strange) {
            if !self.cameras.contains_key(&id) && !self.elsewhere.contains(&id) {
                for topic in discovery::standing_topics(&device) {
                    self.outbox.clear(&topic);
                }
                self.gone(&id);
            }
        }
    }

    fn gone(&mut self, id: &str) {
        self.cameras.remove(id);
        self.entities.remove(id);
        self.health.remove(id);
        self.elsewhere.remove(id);
        if let Some(at) = self.topics.discovery(id) {
            self.outbox.clear(&at);
        }
        for what in ["state", "availability", "health", "last_answer"] {
            self.outbox.clear(&self.topics.camera(id, what));
        }
        self.outbox.clear_below(&self.topics.camera(id, ""));
    }

    /// Another wall speaks for it now.
    fn leave(&mut self, id: &str) {
        if !self.elsewhere.insert(id.to_owned()) {
            return;
        }
        self.cameras.remove(id);
        self.entities.remove(id);
        self.health.remove(id);
        self.outbox.forget_below(&self.topics.camera(id, ""));
        if let Some(at) = self.topics.discovery(id) {
            self.outbox.forget_below(&at);
        }
    }

    fn health(&mut self, id: &str, health: &Health) {
        let Some(camera) = self.cameras.get_mut(id) else { return };
        camera.health = health.clone();
        let now = Instant::now();
        if self.health.get(id).is_some_and(|last| now.duration_since(*last) < HEALTH_EVERY) {
            return;
        }
        self.health.insert(id.to_owned(), now);
        self.outbox.set(self.topics.camera(id, "health"), json_of(health));
    }

    fn standing(&mut self, id: &str, standing: &Standing) {
        let Some(camera) = self.cameras.get_mut(id) else { return };
        let new = match camera.standing.iter_mut().find(|known| known.id == standing.id) {
            Some(known) => {
                let other = known.question != standing.question
                    || known.choices != standing.choices
                    || known.when != standing.when;
                *known = standing.clone();
                other
            }
            None => {
                camera.standing.push(standing.clone());
                true
            }
        };
        if new {
            self.announce(id);
        }
        self.outbox.set(self.topics.standing(id, &standing.id), json_of(standing));
    }

    fn answer(&mut self, answer: &Answer) {
        let text = json_of(answer);
        self.outbox.tell(self.topics.camera(&answer.camera, "answer"), text.clone());
        self.outbox.set(self.topics.camera(&answer.camera, "last_answer"), text);
    }
}
