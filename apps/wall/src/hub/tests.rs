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

#[test]
fn cameras_are_in_the_order_they_are_given_and_others_behind_them() {
    let hub = Hub::new();
    let camera = |id: &str| Camera {
        id: id.into(),
        name: id.into(),
        state: CameraState::Live,
        reason: None,
        next_try: None,
        since: jiff::Timestamp::UNIX_EPOCH,
        host: String::new(),
        live: Live::default(),
        standing: Vec::new(),
        health: Health::default(),
    };
    for id in ["d", "c", "b", "a"] {
        hub.publish(Event::Camera(camera(id)));
    }
    let ids = || hub.state().cameras.into_iter().map(|camera| camera.id).collect::<String>();
    assert_eq!(ids(), "abcd");
    let mut heard = hub.subscribe();
    hub.arrange(vec!["c".into(), "x".into(), "b".into()]);
    assert_eq!(ids(), "cbad");
    let told = heard.try_recv().unwrap();
    assert_eq!(told.data(), serde_json::json!({"cameras": ["c", "x", "b"]}));
    hub.arrange(vec!["c".into(), "x".into(), "b".into()]);
    assert!(heard.try_recv().is_err(), "it is the same");
}
