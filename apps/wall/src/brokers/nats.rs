// SPDX-License-Identifier: MPL-2.0
//! Answers and alerts as NATS messages, and questions by request.
//!
//! A publication on NATS is not acknowledged. So behind each one goes a message to ourselves on the same
//! connection: once that has come back, the server has the others too, unless the connection was made anew in
//! between; then they are sent again, under the same `Nats-Msg-Id`.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap, Message, Subscriber};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Place;
use super::link::Link;
use crate::backoff::Backoff;
use crate::config::NatsConfig;
use crate::hub::{Answer, BrokerKind, Event, Question, Receiver, Source};

/// Messages that wait while the server is away; the oldest leave.
const BOUND: usize = 10_000;
/// Messages that go out before the server is asked whether it has them.
const BATCH: usize = 100;
/// How long it may take to say so.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long somebody who asks is waited for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
/// Longest question.
const LONGEST: usize = 16 * 1024;
/// Questions by request that wait for their answers.
const ASKING: usize = 64;

/// Connects to a server, and again whenever it has to.
///
/// # Errors
///
/// What is wrong with the address or the credentials, or that nobody answers there.
pub(crate) async fn connect(
    url: &str,
    credentials: Option<&std::path::Path>,
    name: &str,
) -> Result<Client, String> {
    let mut options = ConnectOptions::new()
        .name(name)
        .ping_interval(Duration::from_secs(5))
        .connection_timeout(Duration::from_secs(3))
        .request_timeout(Some(Duration::from_secs(5)))
        .reconnect_delay_callback(|attempts| {
            Duration::from_millis((attempts as u64).saturating_mul(100).min(1000))
        });
    if let Some(path) = credentials {
        let file = options.credentials_file(path).await;
        options = file.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    options.connect(url).await.map_err(|error| error.to_string())
}

/// Tells one server until `stop`.
pub(super) async fn run(config: NatsConfig, place: Place, stop: CancellationToken) {
    let link = Link::new(place.all.clone(), "nats", BrokerKind::Nats);
    let prefix = config.prefix.clone().unwrap_or_else(|| "streamkvqa".into());
    let mut teller = Teller { waiting: VecDeque::new(), prefix, lost: 0 };
    let mut events = place.own.subscribe();
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        let client = tokio::select! {
            client = connect(&config.url, config.credentials.as_deref(), "streamkvqa-wall") => client,
            () = stop.cancelled() => return,
        };
        let reason = match client {
            Ok(client) => {
                let asking = tokio::spawn(answer_requests(
                    client.clone(),
                    teller.prefix.clone(),
                    place.clone(),
                ));
                let told = tokio::select! {
                    reason = teller.tell(&client, &mut events, &link, &mut backoff) => Some(reason),
                    () = stop.cancelled() => None,
                };
                asking.abort();
                match told {
                    Some(reason) => reason,
                    None => return drop(timeout(PATIENCE, teller.send_all(&client)).await),
                }
            }
            Err(reason) => reason,
        };
        let wait = backoff.failed();
        link.failed(reason, wait, teller.waiting.len());
        let pause = sleep(wait);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = stop.cancelled() => return,
                event = events.recv() => teller.take(event),
            }
            link.waiting(teller.waiting.len());
        }
    }
}

struct Teller {
    waiting: VecDeque<(String, String, Vec<u8>)>,
    prefix: String,
    lost: u64,
}

impl Teller {
    /// Tells what waits and what comes; returns why that no longer works.
    async fn tell(
        &mut self,
        client: &Client,
        events: &mut Receiver,
        link: &Link,
        backoff: &mut Backoff,
    ) -> String {
        loop {
            if let Err(reason) = self.send_all(client).await {
                return reason;
            }
            backoff.worked();
            link.connected(0);
            let event = events.recv().await;
            self.take(event);
            // Whatever else has come meanwhile goes in the same batch.
            while let Ok(event) = events.try_recv() {
                self.take(Ok(event));
            }
            link.waiting(self.waiting.len());
        }
    }

    fn take(&mut self, event: Result<std::sync::Arc<Event>, RecvError>) {
        let event = match event {
            Ok(event) => event,
            Err(RecvError::Lagged(lost)) => {
                return tracing::warn!(lost, "events came too fast for NATS");
            }
            Err(RecvError::Closed) => return,
        };
        let (camera, id) = match &*event {
            Event::Answer(answer) => (&answer.camera, &answer.id),
            Event::Alert(alert) => (&alert.camera, &alert.id),
            _ => return,
        };
        let kind = event.kind();
        let subject = format!("{}.{kind}.{camera}", self.prefix);
        self.waiting.push_back((
            subject,
            format!("{kind}-{id}"),
            event.data().to_string().into_bytes(),
        ));
        if self.waiting.len() > BOUND {
            self.waiting.pop_front();
            self.lost += 1;
            tracing::warn!(
                lost = self.lost,
                "messages waited too long for the NATS server and are lost"
            );
        }
    }

    /// Returns when the server has all that waits.
    async fn send_all(&mut self, client: &Client) -> Result<(), String> {
        let inbox = client.new_inbox();
        let mut back = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
        while !self.waiting.is_empty() {
            let connection = client.statistics().connects.load(Ordering::SeqCst);
            let batch = self.waiting.len().min(BATCH);
            for (subject, id, body) in self.waiting.iter().take(batch) {
                let mut headers = HeaderMap::new();
                headers.insert(async_nats::header::NATS_MESSAGE_ID, id.as_str());
                let sent =
                    client.publish_with_headers(subject.clone(), headers, body.clone().into());
                sent.await.map_err(|error| error.to_string())?;
            }
            client.publish(inbox.clone(), "".into()).await.map_err(|error| error.to_string())?;
            match timeout(PATIENCE, back.next()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Err("the connection is closed".into()),
                Err(_) => return Err("the server does not answer".into()),
            }
            // On one connection what was sent first has come first.
            if client.statistics().connects.load(Ordering::SeqCst) == connection {
                self.waiting.drain(..batch);
            }
        }
        Ok(())
    }
}

/// Answers requests on `PREFIX.ask.CAMERA` with the answer to what they ask.
async fn answer_requests(client: Client, prefix: String, place: Place) {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(ASKING));
    loop {
        // One of several walls takes a question.
        let requests = client.queue_subscribe(format!("{prefix}.ask.*"), "walls".into()).await;
        let Ok(mut requests): Result<Subscriber, _> = requests else { return };
        while let Some(request) = requests.next().await {
            let Some(reply) = request.reply.clone() else { continue };
            let Ok(permit) = places.clone().try_acquire_owned() else {
                let full = json!({ "error": "too many questions wait" }).to_string();
                let _ = client.publish(reply, full.into()).await;
                continue;
            };
            let (client, place) = (client.clone(), place.clone());
            tokio::spawn(async move {
                let answer = match answer(&place, &request).await {
                    Ok(answer) => json!(answer),
                    Err(reason) => json!({ "error": reason }),
                };
                let _ = client.publish(reply, answer.to_string().into()).await;
                drop(permit);
            });
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// The answer to one request: the words alone, or a question's JSON.
async fn answer(place: &Place, request: &Message) -> Result<Answer, String> {
    let camera = request.subject.rsplit('.').next().unwrap_or_default();
    if request.payload.len() > LONGEST {
        return Err(format!("a question has at most {LONGEST} bytes"));
    }
    let text =
        std::str::from_utf8(&request.payload).map_err(|_| "a question is UTF-8 text")?.trim();
    let mut question: Question = if text.starts_with('{') {
        serde_json::from_str(text).map_err(|error| format!("not a question: {error}"))?
    } else {
        Question { text: text.into(), ..Question::default() }
    };
    question.source = Source::Broker;
    let mut events = place.all.subscribe();
    let id = place.asks.ask(camera, question).await.map_err(|refused| refused.to_string())?;
    let answered = async {
        loop {
            match events.recv().await {
                Ok(event) => match &*event {
                    Event::Answer(answer) if answer.id == id => return Ok(answer.clone()),
                    _ => {}
                },
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err("the wall stops".to_owned()),
            }
        }
    };
    timeout(ANSWER_WITHIN, answered).await.map_err(|_| "no answer came in time".to_owned())?
}
