// SPDX-License-Identifier: MPL-2.0
use super::*;

fn token(text: &str) -> Event {
    Event::Token { answer: "1".into(), camera: "yard".into(), text: text.into() }
}

#[test]
fn an_event_is_on_the_wire_under_its_name() {
    assert_eq!(token("a").kind(), "token");
    assert_eq!(
        token("a").data(),
        serde_json::json!({"answer": "1", "camera": "yard", "text": "a"})
    );
    let broker = Broker {
        name: "home".into(),
        kind: BrokerKind::Mqtt,
        state: BrokerState::Failed,
        reason: Some("refused".into()),
        next_try: Some("2026-05-01T08:30:00Z".parse().unwrap()),
        waiting: 2,
    };
    let data = Event::Broker(broker.clone()).data();
    assert_eq!(data["kind"], "mqtt");
    assert_eq!(data["next_try"], "2026-05-01T08:30:00Z");
    let whole = serde_json::to_string(&Event::Broker(broker.clone())).unwrap();
    assert_eq!(serde_json::from_str::<Event>(&whole).unwrap(), Event::Broker(broker));
}

#[test]
fn a_slow_listener_loses_the_oldest_and_is_told() {
    let hub = Hub::new();
    let mut listener = hub.subscribe();
    for number in 0..BACKLOG + 3 {
        hub.publish(token(&number.to_string()));
    }
    match listener.try_recv() {
        Err(broadcast::error::TryRecvError::Lagged(lost)) => assert_eq!(lost, 3),
        other => panic!("{other:?}"),
    }
    assert_eq!(*listener.try_recv().unwrap(), token("3"));
}

#[test]
fn ids_grow() {
    let mut ids: Vec<String> = (0..1000).map(|_| new_id()).collect();
    let made = ids.clone();
    ids.sort();
    ids.dedup();
    assert_eq!(ids, made);
}
