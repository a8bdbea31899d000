// SPDX-License-Identifier: MPL-2.0
//! Other systems that are told what happens: MQTT, webhooks, NATS, Prometheus. One that is gone is a state on
//! the page; its messages wait, and nothing waits for it.

mod link;
pub mod metrics;
mod mqtt;
pub(crate) mod nats;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use self::link::Link;
use self::webhook::Queue;
use crate::config::{Config, MqttConfig, NatsConfig, WebhookConfig};
use crate::hub::{Asks, BrokerKind, Hub};

/// How long brokers get for their last words.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What brokers stand on.
#[derive(Clone)]
pub struct Place {
    /// What this wall answers for: that is told.
    pub own: Hub,
    /// What is shown here, other walls' too: how the brokers are is told there.
    pub all: Hub,
    /// Who is asked what comes in.
    pub asks: Arc<dyn Asks>,
    /// The folder of what waits.
    pub folder: PathBuf,
    /// The wall's name for people.
    pub wall: String,
    /// Its name among machines.
    pub host: String,
    /// Whether other walls hear the same questions, of which one is to take each.
    pub clustered: bool,
    /// How long after the start a camera may come that a broker knows from an earlier life.
    pub settle: Duration,
}

impl Place {
    /// An MQTT filter; where there are several walls one of them gets each message.
    fn shared(&self, filter: &str) -> String {
        if self.clustered { format!("$share/streamkvqa/{filter}") } else { filter.to_owned() }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Mqtt(MqttConfig),
    Webhook(WebhookConfig),
    Nats(NatsConfig),
}

struct Running {
    what: What,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Connections to other systems, as the configuration has them.
pub struct Brokers {
    place: Place,
    running: Mutex<BTreeMap<String, Running>>,
    queue: Mutex<Option<Arc<Queue>>>,
}

impl Brokers {
    /// None yet.
    pub fn new(place: Place) -> Self {
        Brokers { place, running: Mutex::default(), queue: Mutex::default() }
    }

    /// Begins, ends and leaves alone, so that those run that `config` has. Needs a Tokio runtime.
    pub fn apply(&self, config: &Config) {
        let mut wanted = BTreeMap::new();
        if let Some(mqtt) = &config.mqtt {
            wanted.insert("mqtt".to_owned(), What::Mqtt(mqtt.clone()));
        }
        if let Some(nats) = &config.nats {
            wanted.insert("nats".to_owned(), What::Nats(nats.clone()));
        }
        for hook in &config.webhooks {
            wanted.insert(format!("webhook {}", hook.name), What::Webhook(hook.clone()));
        }
        let mut running = self.running.lock();
        running.retain(|name, running| {
            let stays = wanted.get(name) == Some(&running.what);
            if !stays {
                running.stop.cancel();
            }
            stays
        });
        for (name, what) in wanted {
            if !running.contains_key(&name)
                && let Some(begun) = self.begin(what)
            {
                running.insert(name, begun);
            }
        }
    }

    fn begin(&self, what: What) -> Option<Running> {
        let stop = CancellationToken::new();
        let place = self.place.clone();
        let task = match what.clone() {
            What::Mqtt(config) => tokio::spawn(mqtt::run(config, place, stop.clone())),
            What::Nats(config) => tokio::spawn(nats::run(config, place, stop.clone())),
            What::Webhook(config) => {
                let queue = self.queue(&config.name)?;
                // Subscribed here: what happens from the return of `apply` on is posted.
                let events = place.own.subscribe();
                let ended = stop.clone();
                tokio::spawn(async move {
                    let run = webhook::run(config, queue, events, place.all, place.wall);
                    tokio::select! {
                        () = run => {}
                        () = ended.cancelled() => {}
                    }
                })
            }
        };
        Some(Running { what, stop, task })
    }

    /// The file of what waits for hooks.
    fn queue(&self, hook: &str) -> Option<Arc<Queue>> {
        let mut queue = self.queue.lock();
        if queue.is_none() {
            let path = self.place.folder.join("webhooks.sqlite");
            match Queue::open(&path, webhook::BOUND) {
                Ok(opened) => *queue = Some(Arc::new(opened)),
                Err(error) => {
                    let link = Link::new(
                        self.place.all.clone(),
                        &format!("webhook {hook}"),
                        BrokerKind::Webhook,
                    );
                    link.failed(format!("{}: {error}", path.display()), Duration::ZERO, 0);
                }
            }
        }
        queue.clone()
    }

    /// Ends all of them; they get a moment for their last words.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock());
        for running in running.values() {
            running.stop.cancel();
        }
        let ends = running.into_values().map(|running| running.task);
        let _ = tokio::time::timeout(LAST_WORDS, futures_util::future::join_all(ends)).await;
    }
}
