// SPDX-License-Identifier: MPL-2.0
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rumqttc::{AsyncClient, Event as Packet, Incoming, MqttOptions, QoS};
use serde_json::{Value, json};
use streamkvqa_wall::config::{Config, MqttConfig};
use streamkvqa_wall::hub::*;

use super::servers::{Mosquitto, until};
use super::stand_in::{alert, answer, broker, brokers, camera, standing};

/// Somebody who hears everything that goes through a broker from now on, and before it what is retained.
pub struct Ear {
    heard: Arc<Mutex<Vec<(String, String)>>>,
    pub client: AsyncClient,
    task: tokio::task::JoinHandle<()>,
}

impl Ear {
    pub async fn at(server: &Mosquitto) -> Self {
        let mut options = MqttOptions::new(format!("ear-{}", new_id()), "127.0.0.1", server.port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut eventloop) = AsyncClient::new(options, 10);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (to, ready) = (heard.clone(), Arc::new(tokio::sync::Notify::new()));
        let is_ready = ready.clone();
        let task = tokio::spawn(async move {
            while let Ok(packet) = eventloop.poll().await {
                match packet {
                    Packet::Incoming(Incoming::Publish(message)) => {
                        let text = String::from_utf8(message.payload.to_vec()).unwrap();
                        to.lock().push((message.topic, text));
                    }
                    Packet::Incoming(Incoming::SubAck(_)) => ready.notify_one(),
                    _ => {}
                }
            }
        });
        client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
        is_ready.notified().await;
        let ear = Ear { heard, client, task };
        // What is retained comes before what is sent later.
        ear.client.publish("mark", QoS::AtLeastOnce, false, "").await.unwrap();
        until("what is retained", || ear.of("mark").pop()).await;
        ear.heard.lock().retain(|(topic, _)| topic != "mark");
        ear
    }

    pub fn of(&self, topic: &str) -> Vec<String> {
        self.heard
            .lock()
            .iter()
            .filter(|(at, _)| at == topic)
            .map(|(_, text)| text.clone())
            .collect()
    }

    pub fn json(&self, topic: &str) -> Vec<Value> {
        self.of(topic)
            .iter()
            .map(|text| serde_json::from_str(text).unwrap_or(Value::Null))
            .collect()
    }

    /// What was heard last on a topic.
    async fn last(&self, topic: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(topic, || self.json(topic).into_iter().next_back().filter(|value| is(value))).await
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config(server: &Mosquitto) -> Config {
    let mqtt =
        MqttConfig { url: format!("mqtt://127.0.0.1:{}", server.port), ..MqttConfig::default() };
    Config { mqtt: Some(mqtt), ..Config::default() }
}

async fn connected(hub: &Hub) {
    until("a connection", || {
        broker(hub, "mqtt").filter(|told| told.state == BrokerState::Connected && told.waiting == 0)
    })
    .await;
}

/// What Home Assistant would show: its templates are Jinja's.
fn shown(part: &Value, payload: &Value) -> String {
    let template = part["value_template"].as_str().unwrap();
    let mut environment = minijinja::Environment::new();
    environment
        .add_filter("to_json", |value: minijinja::Value| serde_json::to_string(&value).unwrap());
    environment.render_str(template, minijinja::context! { value_json => minijinja::Value::from(minijinja::value::Serde(payload)) }).unwrap()
}

const DEVICE: &str = "homeassistant/device/streamkvqa_yard/config";

#[tokio::test]
async fn home_assistant_is_told_of_cameras_and_what_is_so() {
    let folder = tempfile::tempdir().unwrap();
    let server = Mosquitto::start(folder.path());
    let hub = Hub::new();
    let standings = vec![
        standing("fire", &[], Some("yes"), Some("yes")),
        standing("who", &["postman", "nobody"], None, Some("nobody")),
        standing("what", &[], None, Some(&"long ".repeat(100))),
    ];
    hub.publish(Event::Camera(camera("yard", CameraState::Live, standings.clone())));
    let brokers = brokers(&hub, folder.path());
    brokers.apply(&config(&server));
    connected(&hub).await;
    let ear = Ear::at(&server).await;

    let device = ear.last(DEVICE, |device| device["cmps"].is_object()).await;
    let parts: BTreeMap<String, Value> = serde_json::from_value(device["cmps"].clone()).unwrap();
    let platform = |name: &str| parts[name]["p"].as_str().unwrap();
    assert_eq!(platform("standing_fire"), "binary_sensor");
    assert_eq!(platform("standing_who"), "sensor");
    assert_eq!(parts["standing_who"]["options"], json!(["postman", "nobody"]));
    assert_eq!(platform("alert"), "event");
    assert_eq!(device["dev"]["name"], "The yard");
    let ids: std::collections::BTreeSet<&str> =
        parts.values().map(|part| part["unique_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), parts.len(), "ids are unique");
    // Every entity has its value at the broker, and its template makes what Home Assistant takes of it.
    for (name, expected) in [
        ("standing_fire", "ON".to_owned()),
        ("standing_who", "nobody".to_owned()),
        ("standing_what", "long ".repeat(51)),
        ("state", "live".to_owned()),
        ("memory", "4096".to_owned()),
        ("lag", "0.5".to_owned()),
        ("first_word", "None".to_owned()),
    ] {
        let topic = parts[name]["state_topic"].as_str().unwrap();
        let payload = ear.last(topic, Value::is_object).await;
        assert_eq!(shown(&parts[name], &payload), expected, "{name}");
    }
    assert_eq!(device["availability"][0]["topic"], "streamkvqa/wall/attic/status");
    assert_eq!(ear.of("streamkvqa/wall/attic/status"), ["online"]);
    assert_eq!(ear.of("streamkvqa/camera/yard/availability"), ["online"]);

    // What happens.
    hub.publish(Event::Answer(answer("yard", "a fox")));
    hub.publish(Event::Alert(alert("yard", AlertState::On)));
    let told = ear.last("streamkvqa/camera/yard/alert", Value::is_object).await;
    let event: Value = serde_json::from_str(&shown(&parts["alert"], &told)).unwrap();
    assert_eq!((&event["event_type"], &event["answer"]), (&"on".into(), &"yes".into()));
    let told = ear.last("streamkvqa/camera/yard/last_answer", Value::is_object).await;
    assert_eq!(shown(&parts["last_answer"], &told), "a fox");
    let mut off = standings[0].clone();
    off.state = Some("no".into());
    hub.publish(Event::Standing { camera: "yard".into(), standing: off });
    let told = ear.last("streamkvqa/camera/yard/standing/fire", |told| told["state"] == "no").await;
    assert_eq!(shown(&parts["standing_fire"], &told), "OFF");
    hub.publish(Event::Camera(camera("yard", CameraState::Waiting, standings.clone())));
    until("its absence", || {
        ear.of("streamkvqa/camera/yard/availability").contains(&"offline".into()).then_some(())
    })
    .await;

    // A standing question that goes takes its entity along, and a camera all of them.
    hub.publish(Event::Camera(camera("yard", CameraState::Live, standings[1..].to_vec())));
    until("the removal", || {
        let told = ear.json(DEVICE);
        let gone = told.iter().position(|device| {
            device["cmps"]["standing_fire"] == json!({ "p": "binary_sensor" })
        })?;
        let last = told.len() - 1;
        (gone < last && told[last]["cmps"]["standing_fire"].is_null()).then_some(())
    })
    .await;
    assert_eq!(ear.of("streamkvqa/camera/yard/standing/fire").last().map(String::as_str), Some(""));
    hub.publish(Event::Gone { camera: "yard".into() });
    until("the end", || ear.of(DEVICE).last()?.is_empty().then_some(())).await;
    connected(&hub).await;
    let later = Ear::at(&server).await;
    let left: Vec<String> = later.heard.lock().iter().map(|(topic, _)| topic.clone()).collect();
    assert_eq!(left, ["streamkvqa/wall/attic/status"], "nothing else is retained");
    brokers.stop().await;
    until("a goodbye", || {
        (ear.of("streamkvqa/wall/attic/status").last()? == "offline").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_question_over_mqtt_has_a_reply() {
    let folder = tempfile::tempdir().unwrap();
    let server = Mosquitto::start(folder.path());
    let hub = Hub::new();
    hub.publish(Event::Camera(camera("yard", CameraState::Live, Vec::new())));
    let brokers = brokers(&hub, folder.path());
    brokers.apply(&config(&server));
    connected(&hub).await;
    let ear = Ear::at(&server).await;
    for (camera, text) in [
        ("yard", "who came?"),
        ("yard", r#"{"question": "and then?", "id": "mine"}"#),
        ("yard", r#"{"question": 3}"#),
        ("none", "anyone?"),
    ] {
        let topic = format!("streamkvqa/camera/{camera}/ask");
        ear.client.publish(topic, QoS::AtLeastOnce, false, text).await.unwrap();
    }
    let replies = until("three replies", || {
        Some(ear.json("streamkvqa/camera/yard/reply")).filter(|replies| replies.len() == 3)
    });
    let replies = replies.await;
    let find = |is: &dyn Fn(&Value) -> bool| {
        replies.iter().find(|reply| is(reply)).unwrap_or_else(|| panic!("{replies:?}"))
    };
    find(&|reply| reply["answer"]["text"] == "you asked: who came?" && reply["id"].is_null());
    find(&|reply| reply["answer"]["text"] == "you asked: and then?" && reply["id"] == "mine");
    find(&|reply| reply["answer"].is_null() && reply["error"].is_string());
    ear.last("streamkvqa/camera/none/reply", |reply| reply["error"].is_string()).await;
    brokers.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_gone_is_a_state_and_gets_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Mosquitto::start(folder.path());
    let hub = Hub::new();
    hub.publish(Event::Camera(camera("yard", CameraState::Live, Vec::new())));
    let brokers = brokers(&hub, folder.path());
    brokers.apply(&config(&server));
    connected(&hub).await;
    server.kill();
    let sent: Vec<String> = (0..200).map(|number| format!("answer {number}")).collect();
    for text in &sent {
        hub.publish(Event::Answer(answer("yard", text)));
    }
    let gone = until("its state", || {
        broker(&hub, "mqtt").filter(|told| told.state == BrokerState::Failed && told.waiting >= 200)
    });
    let gone = gone.await;
    assert!(gone.reason.is_some() && gone.next_try.is_some(), "{gone:?}");
    // Its last moments are heard: the ear is there before the wall is back.
    server.again();
    let ear = Ear::at(&server).await;
    connected(&hub).await;
    until("all answers", || {
        let told = ear.json("streamkvqa/camera/yard/answer");
        let mut texts: Vec<String> =
            told.iter().map(|told| told["text"].as_str().unwrap().to_owned()).collect();
        texts.dedup();
        (texts == sent || texts.ends_with(&sent[sent.len() - 1..])).then_some(())
    })
    .await;
    // A broker that has forgotten everything is told everything again.
    let later = Ear::at(&server).await;
    for topic in [DEVICE, "streamkvqa/camera/yard/state", "streamkvqa/wall/attic/status"] {
        until(topic, || later.of(topic).pop()).await;
    }
    brokers.stop().await;
}

#[tokio::test]
async fn what_an_earlier_life_told_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let server = Mosquitto::start(folder.path());
    let hub = Hub::new();
    let fire = standing("fire", &[], Some("yes"), Some("no"));
    hub.publish(Event::Camera(camera("yard", CameraState::Live, vec![fire])));
    hub.publish(Event::Camera(camera("hall", CameraState::Live, Vec::new())));
    let first = brokers(&hub, folder.path());
    first.apply(&config(&server));
    connected(&hub).await;
    first.stop().await;

    // The camera `hall` and the standing question have gone meanwhile.
    let hub = Hub::new();
    hub.publish(Event::Camera(camera("yard", CameraState::Live, Vec::new())));
    let second = brokers(&hub, folder.path());
    let ear = Ear::at(&server).await;
    second.apply(&config(&server));
    until("the entity's removal", || {
        ear.json(DEVICE)
            .iter()
            .any(|told| told["cmps"]["standing_fire"] == json!({ "p": "binary_sensor" }))
            .then_some(())
    })
    .await;
    until("the camera's removal", || {
        ear.of("homeassistant/device/streamkvqa_hall/config").last()?.is_empty().then_some(())
    })
    .await;
    connected(&hub).await;
    let later = Ear::at(&server).await;
    let device = later.last(DEVICE, Value::is_object).await;
    assert!(device["cmps"]["standing_fire"].is_null(), "{device}");
    assert!(later.of("streamkvqa/camera/yard/standing/fire").is_empty());
    assert!(
        !later.heard.lock().iter().any(|(topic, _)| topic.contains("hall")),
        "{:?}",
        later.heard.lock()
    );
    second.stop().await;
}

#[tokio::test]
async fn a_broker_with_tls_is_believed_by_its_certificate_alone() {
    let folder = tempfile::tempdir().unwrap();
    let server = Mosquitto::start_secure(folder.path());
    let hub = Hub::new();
    let brokers = brokers(&hub, folder.path());
    let with = |ca: Option<std::path::PathBuf>| {
        let url = format!("mqtts://127.0.0.1:{}", server.port);
        Config { mqtt: Some(MqttConfig { url, ca, ..MqttConfig::default() }), ..Config::default() }
    };
    let refused = || async {
        until("a reason", || broker(&hub, "mqtt").filter(|told| told.state == BrokerState::Failed))
            .await
    };
    brokers.apply(&with(Some(folder.path().join("nowhere.pem"))));
    assert!(refused().await.reason.unwrap().contains("nowhere.pem"));
    brokers.apply(&with(Some(folder.path().join("ca.pem"))));
    connected(&hub).await;
    // The system does not know it.
    brokers.apply(&with(None));
    refused().await;
    brokers.stop().await;
}
