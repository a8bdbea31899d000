// SPDX-License-Identifier: MPL-2.0
use futures_util::StreamExt as _;
use serde_json::Value;
use streamkvqa_wall::config::{Config, NatsConfig};
use streamkvqa_wall::hub::*;

use super::servers::{LONG, Nats, until};
use super::stand_in::{alert, answer, broker, brokers};

fn config(server: &Nats) -> Config {
    Config {
        nats: Some(NatsConfig { url: server.url(), ..NatsConfig::default() }),
        ..Config::default()
    }
}

async fn connected(hub: &Hub) {
    until("a connection", || {
        broker(hub, "nats").filter(|told| told.state == BrokerState::Connected)
    })
    .await;
}

async fn next(subscriber: &mut async_nats::Subscriber) -> (String, Value) {
    let message =
        tokio::time::timeout(LONG, subscriber.next()).await.expect("a message comes").unwrap();
    (message.subject.to_string(), serde_json::from_slice(&message.payload).unwrap())
}

#[tokio::test]
async fn answers_and_alerts_are_messages_and_requests_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let server = Nats::start(folder.path());
    let hub = Hub::new();
    let brokers = brokers(&hub, folder.path());
    brokers.apply(&config(&server));
    connected(&hub).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut all = client.subscribe("streamkvqa.*.*").await.unwrap();
    // Once this has come, the server knows of the subscription.
    client.publish("streamkvqa.mark.x", "null".into()).await.unwrap();
    next(&mut all).await;
    hub.publish(Event::Answer(answer("yard", "a fox")));
    hub.publish(Event::Alert(alert("yard", AlertState::On)));
    let (subject, body) = next(&mut all).await;
    assert_eq!((subject.as_str(), &body["text"]), ("streamkvqa.answer.yard", &"a fox".into()));
    let (subject, body) = next(&mut all).await;
    assert_eq!((subject.as_str(), &body["state"]), ("streamkvqa.alert.yard", &"on".into()));

    let asked = client.request("streamkvqa.ask.yard", "who came?".into()).await.unwrap();
    let body: Value = serde_json::from_slice(&asked.payload).unwrap();
    assert_eq!(
        (&body["text"], &body["source"]),
        (&"you asked: who came?".into(), &"broker".into())
    );
    for bad in ["{\"text\": 3}", "{"] {
        let refused = client.request("streamkvqa.ask.yard", bad.into()).await.unwrap();
        let body: Value = serde_json::from_slice(&refused.payload).unwrap();
        assert!(body["error"].is_string(), "{body}");
    }
    let refused = client.request("streamkvqa.ask.none", "who?".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&refused.payload).contains("no camera"));
    brokers.stop().await;
}

/// Waits until a stream has so many messages.
async fn keeps(stream: &mut async_nats::jetstream::stream::Stream, count: u64) {
    let end = std::time::Instant::now() + LONG;
    loop {
        let has = stream.info().await.map(|info| info.state.messages).unwrap_or(0);
        if has >= count {
            return;
        }
        assert!(std::time::Instant::now() < end, "{has} of {count}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_happens_while_the_server_is_away_is_told_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Nats::start(folder.path());
    let hub = Hub::new();
    let brokers = brokers(&hub, folder.path());
    brokers.apply(&config(&server));
    connected(&hub).await;
    // A stream that keeps them, as users have one: its duplicates are told by the message's id.
    let client = async_nats::connect(server.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client.clone());
    let kept = async_nats::jetstream::stream::Config {
        name: "kept".into(),
        subjects: vec!["streamkvqa.answer.>".into()],
        ..Default::default()
    };
    let mut stream = stream.create_stream(kept).await.unwrap();

    hub.publish(Event::Answer(answer("yard", "before")));
    keeps(&mut stream, 1).await;
    server.kill();
    for number in 0..250 {
        hub.publish(Event::Answer(answer("yard", &number.to_string())));
    }
    let gone = until("its state", || {
        broker(&hub, "nats").filter(|told| told.state == BrokerState::Failed)
    })
    .await;
    assert!(gone.waiting == 250 && gone.reason.is_some() && gone.next_try.is_some(), "{gone:?}");
    server.again();
    connected(&hub).await;
    keeps(&mut stream, 251).await;
    assert_eq!(
        stream.info().await.unwrap().state.messages,
        251,
        "none is lost, and none comes twice"
    );
    brokers.stop().await;
}
