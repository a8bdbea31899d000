// SPDX-License-Identifier: MPL-2.0
//! Answers and alerts posted to web addresses, in their order, each again until it is taken.

mod post;
mod queue;
mod sign;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

use self::post::{Outcome, Poster};
pub(crate) use self::queue::{BOUND, Queue};
use super::link::Link;
use crate::backoff::Backoff;
use crate::config::WebhookConfig;
use crate::hub::{BrokerKind, Event, Hub, Receiver};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How long to wait for a disk that takes nothing.
const DISK_WAIT: Duration = Duration::from_secs(5);

/// Runs one hook until the task is aborted. What waits in `queue` is posted first.
pub(super) async fn run(
    config: WebhookConfig,
    queue: Arc<Queue>,
    events: Receiver,
    told: Hub,
    wall: String,
) {
    let name = config.name.clone();
    let link = Arc::new(Link::new(told, &format!("webhook {name}"), BrokerKind::Webhook));
    let new = Arc::new(Notify::new());
    let taking = take(config.clone(), queue.clone(), events, link.clone(), new.clone(), wall);
    tokio::join!(taking, deliver(name, Arc::new(Poster::new(config)), queue, link, new));
}

/// Writes what happens into the queue.
async fn take(
    config: WebhookConfig,
    queue: Arc<Queue>,
    mut events: Receiver,
    link: Arc<Link>,
    new: Arc<Notify>,
    wall: String,
) {
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(lost)) => {
                link.remark(format!("{lost} events came too fast to be written down"));
                continue;
            }
            Err(RecvError::Closed) => return std::future::pending().await,
        };
        let Some((id, body)) = message(&config, &event, &wall) else { continue };
        while let Err(reason) =
            put(&queue, &config.name, &id, &body).await.map(|lost| note_lost(&link, lost))
        {
            link.failed(format!("what waits cannot be written down: {reason}"), DISK_WAIT, 0);
            tokio::time::sleep(DISK_WAIT).await;
        }
        new.notify_one();
    }
}

fn note_lost(link: &Link, lost: usize) {
    if lost > 0 {
        link.remark(format!("more than {BOUND} messages wait: the oldest is lost"));
    }
}

/// Id and body of what is posted of an event, if the hook wants it.
fn message(config: &WebhookConfig, event: &Event, wall: &str) -> Option<(String, Vec<u8>)> {
    let id = match event {
        Event::Answer(answer) => &answer.id,
        Event::Alert(alert) => &alert.id,
        _ => return None,
    };
    let kind = event.kind();
    let wanted =
        if config.on.is_empty() { kind == "alert" } else { config.on.iter().any(|on| on == kind) };
    let camera = event.camera()?;
    let of_it = config.cameras.is_empty() || config.cameras.iter().any(|wanted| wanted == camera);
    if !(wanted && of_it) {
        return None;
    }
    let body = serde_json::json!({ "kind": kind, "wall": wall, "data": event.data() });
    Some((format!("{kind}-{id}"), body.to_string().into_bytes()))
}

async fn put(queue: &Arc<Queue>, hook: &str, id: &str, body: &[u8]) -> Result<usize, String> {
    let (queue, hook, id, body) = (queue.clone(), hook.to_owned(), id.to_owned(), body.to_owned());
    on_disk(move || queue.put(&hook, &id, &body)).await
}

/// A disk may take its time, for which no other task has to wait.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Posts what is in the queue.
async fn deliver(
    name: String,
    poster: Arc<Poster>,
    queue: Arc<Queue>,
    link: Arc<Link>,
    new: Arc<Notify>,
) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let (at, hook) = (queue.clone(), name.clone());
        let next = on_disk(move || Ok((at.first(&hook)?, at.waiting(&hook)?))).await;
        let (message, waiting) = match next {
            Ok((Some(message), waiting)) => (message, waiting),
            Ok((None, _)) => {
                link.waiting(0);
                new.notified().await;
                continue;
            }
            Err(reason) => {
                link.failed(format!("what waits cannot be read: {reason}"), DISK_WAIT, 0);
                tokio::time::sleep(DISK_WAIT).await;
                continue;
            }
        };
        link.waiting(waiting);
        let (by, what) = (poster.clone(), message.clone());
        let outcome = tokio::task::spawn_blocking(move || by.post(&what)).await;
        let outcome = outcome.unwrap_or_else(|error| Outcome::Again(error.to_string(), None));
        let refused = match outcome {
            Outcome::Taken => None,
            Outcome::Refused(reason) => Some(reason),
            Outcome::Again(reason, wish) => {
                let wait = backoff.failed().max(wish.unwrap_or_default());
                link.failed(reason, wait, waiting);
                tokio::time::sleep(wait).await;
                continue;
            }
        };
        backoff.worked();
        let (at, done) = (queue.clone(), message.clone());
        if let Err(reason) = on_disk(move || at.done(&done)).await {
            // It is posted again then: receivers know it by its key.
            link.failed(
                format!("what was posted cannot be crossed out: {reason}"),
                DISK_WAIT,
                waiting,
            );
            tokio::time::sleep(DISK_WAIT).await;
            continue;
        }
        link.connected(waiting.saturating_sub(1));
        if let Some(reason) = refused {
            tracing::warn!(hook = name, id = message.id, reason, "a message is given up");
            link.remark(format!("a message is given up: {reason}"));
        }
    }
}
