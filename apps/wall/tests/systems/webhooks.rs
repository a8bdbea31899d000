// SPDX-License-Identifier: MPL-2.0
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use streamkvqa_wall::config::{Config, WebhookConfig};
use streamkvqa_wall::hub::*;

use super::servers::{free_port, until};
use super::stand_in::{alert, answer, broker, brokers};

/// Headers and body.
type Post = (HashMap<String, String>, Value);

/// What a receiver was sent, and what it is to say to the next ones.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<Post>>>,
    says: Arc<Mutex<Vec<u16>>>,
}

impl Receiver {
    async fn listen(&self, port: u16) -> tokio::task::JoinHandle<()> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let app = Router::new().fallback(take).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
    }

    fn texts(&self) -> Vec<String> {
        self.got
            .lock()
            .iter()
            .map(|(_, body)| body["data"]["text"].as_str().unwrap_or("?").to_owned())
            .collect()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let headers =
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    receiver.got.lock().push((headers.collect(), serde_json::from_slice(&body).unwrap()));
    let mut says = receiver.says.lock();
    let status = if says.is_empty() { 200 } else { says.remove(0) };
    StatusCode::from_u16(status).unwrap()
}

fn config(port: u16) -> Config {
    let hook = WebhookConfig {
        name: "hall".into(),
        url: format!("http://127.0.0.1:{port}/told"),
        on: vec!["answer".into(), "alert".into()],
        secret: Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()),
        headers: [("x-room".to_owned(), "3".to_owned())].into(),
        ..WebhookConfig::default()
    };
    Config { webhooks: vec![hook], ..Config::default() }
}

#[tokio::test]
async fn a_hook_is_told_in_order_signed_and_again_until_it_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, receiver, port) = (Hub::new(), Receiver::default(), free_port());
    // Fails twice, then refuses the second message for good.
    *receiver.says.lock() = vec![503, 429, 200, 404, 200];
    let _listening = receiver.listen(port).await;
    let brokers = brokers(&hub, folder.path());
    brokers.apply(&config(port));
    for text in ["one", "two", "three"] {
        hub.publish(Event::Answer(answer("yard", text)));
    }
    until("the third", || receiver.texts().contains(&"three".to_owned()).then_some(())).await;
    assert_eq!(receiver.texts(), ["one", "one", "one", "two", "three"]);
    let got = receiver.got.lock().clone();
    let key = |number: usize| got[number].0["idempotency-key"].clone();
    assert_eq!(key(0), key(2), "tries of one message have one key");
    assert_ne!(key(2), key(3));
    assert_eq!(got[0].0["webhook-id"], key(0));
    assert!(got[0].0["webhook-signature"].starts_with("v1,"), "{:?}", got[0].0);
    assert_eq!(got[0].0["x-room"], "3");
    assert_eq!((&got[0].1["kind"], &got[0].1["wall"]), (&"answer".into(), &"Attic".into()));
    let told = until("the hook's state", || {
        broker(&hub, "webhook hall")
            .filter(|told| told.state == BrokerState::Connected && told.waiting == 0)
    });
    told.await;
    brokers.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_hook_survives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let (hub, receiver) = (Hub::new(), Receiver::default());
    let first = brokers(&hub, folder.path());
    first.apply(&config(port));
    for text in ["one", "two"] {
        hub.publish(Event::Answer(answer("yard", text)));
    }
    let told = until("its state", || {
        broker(&hub, "webhook hall")
            .filter(|told| told.state == BrokerState::Failed && told.waiting == 2)
    });
    let told = told.await;
    assert!(told.reason.is_some() && told.next_try.is_some(), "{told:?}");
    // As kill -9 would: nothing is closed or written any more.
    std::mem::forget(first);

    let _listening = receiver.listen(port).await;
    let hub = Hub::new();
    let second = brokers(&hub, folder.path());
    second.apply(&config(port));
    hub.publish(Event::Alert(alert("yard", AlertState::On)));
    until("all three", || {
        let got = receiver.got.lock();
        let ids: std::collections::HashSet<_> =
            got.iter().map(|(headers, _)| headers["webhook-id"].clone()).collect();
        (ids.len() == 3).then_some(())
    })
    .await;
    let mut texts = receiver.texts();
    // The forgotten ones may have posted as well: this process is not really dead.
    texts.dedup();
    assert_eq!(texts.first().map(String::as_str), Some("one"));
    assert_eq!(receiver.got.lock().last().unwrap().1["kind"], "alert");
    second.stop().await;
}

#[tokio::test]
async fn nothing_waits_for_a_hook_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hub = Hub::new();
    let brokers = brokers(&hub, folder.path());
    brokers.apply(&config(listener.local_addr().unwrap().port()));
    let begin = std::time::Instant::now();
    for number in 0..1000 {
        hub.publish(Event::Answer(answer("yard", &number.to_string())));
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    until("the count of what waits", || {
        broker(&hub, "webhook hall").filter(|told| told.waiting > 0)
    })
    .await;
}
