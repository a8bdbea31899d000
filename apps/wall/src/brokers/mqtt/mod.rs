// SPDX-License-Identifier: MPL-2.0
//! MQTT: answers, alerts and what is so, with Home Assistant's discovery, and questions that come in.
//!
//! What waits is kept here and not in the client: that forgets, when a broker has lost the session, what it had
//! not acknowledged.

mod ask;
mod discovery;
mod outbox;
mod tls;
mod told;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event as Packet, EventLoop, Incoming, LastWill, MqttOptions, Outgoing, QoS,
};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::ask::Pending;
use self::told::Told;
use self::topics::Topics;
use super::Place;
use super::link::Link;
use crate::backoff::Backoff;
use crate::config::MqttConfig;
use crate::hub::{AnswerId, BrokerKind, Event, Receiver, Refused};

/// Messages that wait while a broker is away.
const BOUND: usize = 10_000;
/// Messages on their way to the broker that it has not acknowledged.
const WINDOW: usize = 50;
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Largest message read: what Home Assistant was told of a camera with many standing questions.
const LARGEST: usize = 1 << 20;
const TAKEN: usize = 64;

/// A question that a camera has taken or refused: its camera, what its sender calls it, and which.
type Taken = (String, Option<String>, Result<AnswerId, Refused>);

/// Speaks to one broker until `stop`.
pub(super) async fn run(config: MqttConfig, place: Place, stop: CancellationToken) {
    let link = Link::new(place.all.clone(), "mqtt", BrokerKind::Mqtt);
    let topics = Topics::new(config.prefix.as_deref(), &place.host, config.discovery.as_deref());
    let (state, own) = place.own.subscribe_with_state();
    let (taken, asked) = mpsc::channel(TAKEN);
    let mut told = Told::new(topics, BOUND);
    told.state(&state);
    let all = place.all.subscribe();
    let mut speaker = Speaker {
        place,
        told,
        own,
        all,
        pending: Pending::default(),
        taken,
        asked,
        asking: 0,
        settled: None,
        lost: 0,
    };
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let reason = match options(&config, &speaker.place, &speaker.told.topics) {
            Ok(options) => {
                let (client, eventloop) = AsyncClient::new(options, 2 * WINDOW + 8);
                speaker.connection(&client, eventloop, &link, &mut backoff, &stop).await
            }
            Err(reason) => reason,
        };
        if stop.is_cancelled() {
            return;
        }
        let wait = backoff.failed();
        link.failed(reason, wait, speaker.told.outbox.len());
        let next = Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                () = stop.cancelled() => return,
                event = speaker.own.recv() => speaker.own_event(event),
                event = speaker.all.recv() => speaker.any_event(event),
                Some(taken) = speaker.asked.recv() => speaker.was_taken(taken),
            }
            link.waiting(speaker.told.outbox.len());
        }
    }
}

fn options(config: &MqttConfig, place: &Place, topics: &Topics) -> Result<MqttOptions, String> {
    let url = url::Url::parse(&config.url).map_err(|error| format!("url: {error}"))?;
    let secure = match url.scheme() {
        "mqtt" | "tcp" => false,
        "mqtts" | "ssl" => true,
        other => return Err(format!("url: \"{other}\" is neither mqtt nor mqtts")),
    };
    let host = url.host_str().ok_or("url: it has no host")?.trim_matches(['[', ']']);
    let port = url.port().unwrap_or(if secure { 8883 } else { 1883 });
    // Two of the same name would throw each other out.
    let id = format!("streamkvqa-{}-{:08x}", topics::word(&place.host), fastrand::u32(..));
    let mut options = MqttOptions::new(id, host, port);
    options.set_keep_alive(KEEP_ALIVE);
    options.set_clean_session(true);
    options.set_inflight(WINDOW as u16 * 2);
    options.set_max_packet_size(LARGEST, LARGEST);
    options.set_last_will(LastWill::new(topics.status(), "offline", QoS::AtLeastOnce, true));
    if !url.username().is_empty() {
        let plain = |text: &str| percent(text);
        options.set_credentials(plain(url.username()), plain(url.password().unwrap_or_default()));
    }
    if secure {
        options.set_transport(tls::transport(config.ca.as_deref())?);
    }
    Ok(options)
}

/// Text of a URL without its escapes.
fn percent(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| behind.get(..2)).flatten();
        let byte = escaped
            .and_then(|two| std::str::from_utf8(two).ok())
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Speaker {
    place: Place,
    told: Told,
    own: Receiver,
    all: Receiver,
    pending: Pending,
    taken: mpsc::Sender<Taken>,
    asked: mpsc::Receiver<Taken>,
    /// Questions that no camera has taken or refused yet.
    asking: usize,
    /// When cameras of an earlier life that have not come by then are taken to be gone.
    settled: Option<Instant>,
    lost: u64,
}

impl Speaker {
    /// One connection, from its making to its end; returns why it ended.
    async fn connection(
        &mut self,
        client: &AsyncClient,
        eventloop: EventLoop,
        link: &Link,
        backoff: &mut Backoff,
        stop: &CancellationToken,
    ) -> String {
        let (packets, mut incoming) = mpsc::channel(TAKEN);
        // A task of its own: it may not be dropped in the middle of a packet, as it would be here.
        let driver = AbortOnDrop(tokio::spawn(drive(eventloop, packets)));
        let mut connected = false;
        let mut last_words = None;
        let reason = loop {
            let settled =
                self.settled.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            let end = last_words.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                packet = incoming.recv() => match packet {
                    None => break "the connection ended".to_owned(),
                    Some(Err(reason)) => break reason,
                    Some(Ok(packet)) => if self.packet(client, packet) {
                        connected = true;
                        backoff.worked();
                    },
                },
                event = self.own.recv() => self.own_event(event),
                event = self.all.recv() => self.any_event(event),
                Some(taken) = self.asked.recv() => self.was_taken(taken),
                () = sleep_until(settled) => {
                    self.settled = None;
                    self.told.settle();
                }
                () = stop.cancelled(), if last_words.is_none() => {
                    if !connected {
                        return String::new();
                    }
                    self.told.outbox.set(self.told.topics.status(), "offline");
                    last_words = Some(Instant::now() + LAST_WORDS);
                }
                () = sleep_until(end) => break String::new(),
            }
            if connected {
                self.send(client);
                let waiting = self.told.outbox.len();
                link.connected(waiting);
                if self.told.outbox.lost > self.lost {
                    self.lost = self.told.outbox.lost;
                    tracing::warn!(
                        lost = self.lost,
                        "messages waited too long for the MQTT broker and are lost"
                    );
                }
                if last_words.is_some() && waiting == 0 {
                    break String::new();
                }
            }
        };
        if stop.is_cancelled() {
            // A clean end: the broker does not speak our last will.
            let _ = client.try_disconnect();
            while let Ok(Some(Ok(_))) = tokio::time::timeout(LAST_WORDS, incoming.recv()).await {}
        }
        drop(driver);
        reason
    }

    /// Whether it is the one with which a connection begins.
    fn packet(&mut self, client: &AsyncClient, packet: Packet) -> bool {
        match packet {
            Packet::Incoming(Incoming::ConnAck(_)) => {
                self.told.outbox.connected();
                self.told.outbox.set(self.told.topics.status(), "online");
                let _ = client
                    .try_subscribe(self.place.shared(&self.told.topics.asks()), QoS::AtLeastOnce);
                if let Some(filter) = self.told.topics.discoveries() {
                    let _ = client.try_subscribe(filter, QoS::AtLeastOnce);
                }
                self.settled = Some(Instant::now() + self.place.settle);
                return true;
            }
            Packet::Incoming(Incoming::PubAck(ack)) => self.told.outbox.acknowledged(ack.pkid),
            Packet::Outgoing(Outgoing::Publish(number)) => self.told.outbox.numbered(number),
            Packet::Incoming(Incoming::Publish(message)) => {
                if let Some(camera) = self.told.topics.asked(&message.topic) {
                    let camera = camera.to_owned();
                    // A question that the broker has kept would be asked again at every connection.
                    if !message.retain {
                        self.ask(camera, &message.payload);
                    }
                } else if let Some(camera) = self.told.topics.discovered(&message.topic)
                    && message.retain
                    && let Ok(device) = serde_json::from_slice::<Value>(&message.payload)
                {
                    self.told.told_before(camera, device);
                }
            }
            _ => {}
        }
        false
    }

    fn send(&mut self, client: &AsyncClient) {
        while let Some(message) = self.told.outbox.next(WINDOW) {
            let to = message.topic.clone();
            match client.try_publish(to, QoS::AtLeastOnce, message.retain, message.payload.clone())
            {
                Ok(()) => message.sent(),
                Err(_) => return,
            }
        }
    }

    fn own_event(&mut self, event: Result<Arc<Event>, RecvError>) {
        match event {
            Ok(event) => self.told.event(&event),
            Err(RecvError::Lagged(lost)) => {
                tracing::warn!(lost, "events came too fast for MQTT");
                self.told.state(&self.place.own.state());
            }
            Err(RecvError::Closed) => {}
        }
    }

    /// Replies are of answers wherever they come from.
    fn any_event(&mut self, event: Result<Arc<Event>, RecvError>) {
        if let Ok(event) = event
            && let Event::Answer(answer) = &*event
            && let Some((camera, reply)) = self.pending.answered(answer, self.asking > 0)
        {
            self.reply(&camera, &reply);
        }
    }

    fn ask(&mut self, camera: String, payload: &[u8]) {
        match ask::read(payload) {
            Err(reason) => self.reply(&camera, &ask::refused(None, &reason)),
            Ok((_, id)) if self.asking >= TAKEN => {
                self.reply(&camera, &ask::refused(id.as_deref(), "too many questions wait"));
            }
            Ok((question, id)) => {
                self.asking += 1;
                let (asks, taken) = (self.place.asks.clone(), self.taken.clone());
                tokio::spawn(async move {
                    let result = asks.ask(&camera, question).await;
                    let _ = taken.send((camera, id, result)).await;
                });
            }
        }
    }

    fn was_taken(&mut self, (camera, id, result): Taken) {
        self.asking = self.asking.saturating_sub(1);
        let reply = match result {
            Ok(answer) => self.pending.asked(answer, camera.clone(), id),
            Err(refused) => Some(ask::refused(id.as_deref(), &refused.to_string())),
        };
        if let Some(reply) = reply {
            self.reply(&camera, &reply);
        }
    }

    fn reply(&mut self, camera: &str, reply: &Value) {
        self.told.outbox.tell(self.told.topics.camera(camera, "reply"), reply.to_string());
    }
}

/// Keeps a connection going until it ends.
async fn drive(mut eventloop: EventLoop, packets: mpsc::Sender<Result<Packet, String>>) {
    loop {
        let packet = eventloop.poll().await.map_err(|error| error.to_string());
        let last = packet.is_err();
        if packets.send(packet).await.is_err() || last {
            return;
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
