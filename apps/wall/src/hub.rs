// SPDX-License-Identifier: MPL-2.0
//! What happens, told to whoever listens: the page, the history, brokers, other machines. The nouns of the
//! wall stand here too, in the form in which they go over the wire.

mod nouns;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

pub use nouns::*;

use crate::config::{CameraConfig, StandingConfig};

/// Events that a listener may lie behind before it loses the oldest.
pub const BACKLOG: usize = 4096;

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum Event {
    /// A camera is new, or another of its fields than `health` has changed.
    Camera(Camera),
    /// A camera is no longer on the wall.
    Gone {
        /// Which one.
        camera: String,
    },
    /// A piece of an answer, while it is written.
    Token {
        /// [`Answer::id`].
        answer: AnswerId,
        /// [`Camera::id`].
        camera: String,
        /// What comes behind what came before.
        text: String,
    },
    /// A question has its last word.
    Answer(Answer),
    /// What a standing question watches for has begun or ceased.
    Alert(Alert),
    /// How a camera is doing, every few seconds.
    Health {
        /// [`Camera::id`].
        camera: String,
        /// Of now.
        health: Health,
    },
    /// A standing question is new, or has another state.
    Standing {
        /// [`Camera::id`].
        camera: String,
        /// As it is now.
        standing: Standing,
    },
    /// A connection to another system has changed.
    Broker(Broker),
    /// The cameras have another order.
    Order {
        /// All that have a place in it, by [`Camera::id`].
        cameras: Vec<String>,
    },
}

impl Event {
    /// Its name on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Camera(_) => "camera",
            Event::Gone { .. } => "gone",
            Event::Token { .. } => "token",
            Event::Answer(_) => "answer",
            Event::Alert(_) => "alert",
            Event::Health { .. } => "health",
            Event::Standing { .. } => "standing",
            Event::Broker(_) => "broker",
            Event::Order { .. } => "order",
        }
    }

    /// The camera that it is about, if it is about one.
    pub fn camera(&self) -> Option<&str> {
        match self {
            Event::Camera(camera) => Some(&camera.id),
            Event::Answer(answer) => Some(&answer.camera),
            Event::Alert(alert) => Some(&alert.camera),
            Event::Gone { camera }
            | Event::Token { camera, .. }
            | Event::Health { camera, .. }
            | Event::Standing { camera, .. } => Some(camera),
            Event::Broker(_) | Event::Order { .. } => None,
        }
    }

    /// What goes over the wire under [`Event::kind`].
    pub fn data(&self) -> serde_json::Value {
        let value = match self {
            Event::Camera(camera) => serde_json::to_value(camera),
            Event::Answer(answer) => serde_json::to_value(answer),
            Event::Alert(alert) => serde_json::to_value(alert),
            Event::Broker(broker) => serde_json::to_value(broker),
            other => serde_json::to_value(other).map(|mut whole| whole["data"].take()),
        };
        // Only maps with keys that are no text cannot be written, and there are none.
        value.unwrap_or_default()
    }
}

/// What is so now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct State {
    /// In the order of the configuration; those that are not in it behind them, by `id`.
    pub cameras: Vec<Camera>,
    /// By `name`.
    pub brokers: Vec<Broker>,
}

/// What a listener gets events from: the latest [`BACKLOG`] of them. One that is slower loses the oldest and
/// is told how many (`RecvError::Lagged`).
pub type Receiver = broadcast::Receiver<Arc<Event>>;

/// Where events come in and go out, and what they amount to. Clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<Now>,
    sender: broadcast::Sender<Arc<Event>>,
    ledger: OnceLock<Ledger>,
}

/// Who writes answers and alerts down before others hear of them; an event that it does not take comes back.
pub type Ledger = Box<dyn Fn(Event) -> Option<Event> + Send + Sync>;

#[derive(Default)]
struct Now {
    cameras: BTreeMap<String, Camera>,
    order: Vec<String>,
    brokers: BTreeMap<String, Broker>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// A hub of which nobody has heard.
    pub fn new() -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        Hub { inner: Arc::new(Inner { state: Mutex::default(), sender, ledger: OnceLock::new() }) }
    }

    /// Tells everyone; of answers and alerts they hear once those are written down. Never waits: it may be called
    /// from any thread.
    pub fn publish(&self, event: Event) {
        let to_be_kept = matches!(event, Event::Answer(_) | Event::Alert(_));
        let event = match self.inner.ledger.get().filter(|_| to_be_kept) {
            Some(ledger) => ledger(event),
            None => Some(event),
        };
        if let Some(event) = event {
            self.announce(event);
        }
    }

    /// Has answers and alerts written down; once in a hub's life. What is written is to be announced.
    pub fn keep_with(&self, ledger: Ledger) {
        let _ = self.inner.ledger.set(ledger);
    }

    /// Tells everyone at once.
    pub(crate) fn announce(&self, event: Event) {
        let mut now = self.inner.state.lock();
        now.take(&event);
        // Sending copies a pointer and wakes listeners. Under the lock, so that who subscribes with the state
        // gets every event behind it and none before it. Nobody listening is no fault.
        let _ = self.inner.sender.send(Arc::new(event));
    }

    /// Cameras are in this order from now on.
    pub fn arrange(&self, cameras: Vec<String>) {
        if self.inner.state.lock().order != cameras {
            self.announce(Event::Order { cameras });
        }
    }

    /// Everything from now on.
    pub fn subscribe(&self) -> Receiver {
        self.inner.sender.subscribe()
    }

    /// What is so, and everything from then on: no event is missing and none comes twice.
    pub fn subscribe_with_state(&self) -> (State, Receiver) {
        let now = self.inner.state.lock();
        (now.to_state(), self.inner.sender.subscribe())
    }

    /// What is so.
    pub fn state(&self) -> State {
        self.inner.state.lock().to_state()
    }

    /// One camera, if it is on the wall.
    pub fn camera(&self, id: &str) -> Option<Camera> {
        self.inner.state.lock().cameras.get(id).cloned()
    }
}

impl Now {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Camera(camera) => {
                self.cameras.insert(camera.id.clone(), camera.clone());
            }
            Event::Gone { camera } => {
                self.cameras.remove(camera);
            }
            Event::Health { camera, health } => {
                if let Some(camera) = self.cameras.get_mut(camera) {
                    camera.health = health.clone();
                }
            }
            Event::Standing { camera, standing } => {
                if let Some(camera) = self.cameras.get_mut(camera) {
                    match camera.standing.iter_mut().find(|known| known.id == standing.id) {
                        Some(known) => *known = standing.clone(),
                        None => camera.standing.push(standing.clone()),
                    }
                }
            }
            Event::Broker(broker) => {
                self.brokers.insert(broker.name.clone(), broker.clone());
            }
            Event::Order { cameras } => self.order.clone_from(cameras),
            Event::Token { .. } | Event::Answer(_) | Event::Alert(_) => {}
        }
    }

    fn to_state(&self) -> State {
        let place = |camera: &Camera| self.order.iter().position(|id| *id == camera.id);
        let mut cameras: Vec<Camera> = self.cameras.values().cloned().collect();
        cameras.sort_by_cached_key(|camera| place(camera).unwrap_or(usize::MAX));
        State { cameras, brokers: self.brokers.values().cloned().collect() }
    }
}

/// Why something asked of a camera is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "refused", content = "reason", rename_all = "snake_case")]
pub enum Refused {
    /// There is no camera of this name.
    #[error("there is no camera \"{0}\"")]
    NoCamera(String),
    /// There is one, and it cannot answer now.
    #[error("{0}")]
    NotNow(String),
    /// There is no such thing at this camera.
    #[error("{0}")]
    NotFound(String),
    /// What was asked is not understood or too much.
    #[error("{0}")]
    Bad(String),
    /// It should have worked.
    #[error("{0}")]
    Failed(String),
}

/// What can be asked of cameras, wherever they are: `cameras::Cameras` for those of this process, the cluster
/// for those of other machines too.
#[async_trait]
pub trait Asks: Send + Sync {
    /// Asks a camera. The words come as [`Event::Token`], the last word as [`Event::Answer`] under the `id`
    /// returned, exactly once, whatever becomes of the camera.
    async fn ask(&self, camera: &str, question: Question) -> Result<AnswerId, Refused>;

    /// Has a question asked again and again; it outlives restarts of camera and wall. Returns its state.
    async fn add_standing(
        &self,
        camera: &str,
        standing: StandingConfig,
    ) -> Result<Standing, Refused>;

    /// Ends one.
    async fn remove_standing(&self, camera: &str, standing: &str) -> Result<(), Refused>;

    /// Watches a camera, its memory as in the file `memory`, where one is given. One that is watched already goes
    /// on as this configuration says, and keeps its pipeline if that can stay.
    async fn start_camera(
        &self,
        camera: CameraConfig,
        memory: Option<std::path::PathBuf>,
    ) -> Result<(), Refused>;

    /// Stops watching one; its memory is in the file [`Asks::memory_path`] then, which is returned if the camera
    /// has one.
    async fn stop_camera(&self, camera: &str) -> Result<Option<std::path::PathBuf>, Refused>;

    /// A picture of the past (JPEG) that another machine has kept, by the key that evidence has; none: nobody has, or
    /// said so in time.
    async fn picture(&self, key: &str) -> Option<Vec<u8>> {
        let _ = key;
        None
    }

    /// The file in which a camera's memory is kept, whether it is there yet or not. It is replaced as a whole
    /// from time to time, so it may be copied at any time.
    fn memory_path(&self, camera: &str) -> Option<std::path::PathBuf>;
}

#[cfg(test)]
mod tests;
