// SPDX-License-Identifier: MPL-2.0
//! What Home Assistant is told of a camera, so that it needs no configuration of its own: one device with its
//! entities (<https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::topics::{Topics, word};
use crate::hub::{Camera, Standing};

/// Longest state that Home Assistant takes.
const LONGEST: usize = 255;

/// Entities by name, each with its platform.
pub(super) type Entities = BTreeMap<String, String>;

/// What a standing question is to Home Assistant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Yes and no.
    Binary,
    /// One of several.
    Choice,
    /// Any words.
    Words,
}

pub(super) fn shape(standing: &Standing) -> Shape {
    let yes_or_no =
        |text: &str| text.eq_ignore_ascii_case("yes") || text.eq_ignore_ascii_case("no");
    let all = standing.choices.iter().all(|choice| yes_or_no(choice));
    match (standing.choices.len(), standing.when.as_deref()) {
        (0, Some(when)) if yes_or_no(when) => Shape::Binary,
        (0, _) => Shape::Words,
        (2, _) if all => Shape::Binary,
        _ => Shape::Choice,
    }
}

/// The device of a camera, and which entities it has. `gone` are those it had before: Home Assistant removes
/// an entity of which it is told the platform and nothing else.
pub(super) fn device(camera: &Camera, topics: &Topics, gone: &Entities) -> (Value, Entities) {
    let mut parts = health(camera, topics);
    parts.extend(answers(camera, topics));
    for standing in &camera.standing {
        parts.insert(
            format!("standing_{}", word(&standing.id)),
            self::standing(camera, standing, topics),
        );
    }
    let device = topics.device(&camera.id);
    for (name, part) in &mut parts {
        part["unique_id"] = json!(format!("{device}_{name}"));
    }
    let entities = parts
        .iter()
        .filter_map(|(name, part)| Some((name.clone(), part["p"].as_str()?.to_owned())));
    let entities: Entities = entities.collect();
    for (name, platform) in gone {
        if !entities.contains_key(name) {
            parts.insert(name.clone(), json!({ "p": platform }));
        }
    }
    let whole = json!({
        "dev": {
            "ids": [device],
            "name": camera.name,
            "mf": "streamkvqa",
            "mdl": "Camera on the wall",
            "sw": env!("CARGO_PKG_VERSION"),
        },
        "o": { "name": "streamkvqa-wall", "sw": env!("CARGO_PKG_VERSION") },
        "availability": [{ "topic": topics.status() }],
        "qos": 1,
        "cmps": parts,
    });
    (whole, entities)
}

/// Which entities a device has that was told of earlier.
pub(super) fn entities(device: &Value) -> Entities {
    let parts = device["cmps"].as_object().into_iter().flatten();
    let whole = parts.filter(|(_, part)| part["unique_id"].is_string());
    whole.filter_map(|(name, part)| Some((name.clone(), part["p"].as_str()?.to_owned()))).collect()
}

/// Where the answers to standing questions were told of a device.
pub(super) fn standing_topics(device: &Value) -> Vec<String> {
    let parts = device["cmps"].as_object().into_iter().flatten();
    let standing = parts.filter(|(name, _)| name.starts_with("standing_"));
    standing.filter_map(|(_, part)| Some(part["state_topic"].as_str()?.to_owned())).collect()
}

/// Whether it was this wall that told of it last.
pub(super) fn is_of(device: &Value, topics: &Topics) -> bool {
    device["availability"][0]["topic"] == json!(topics.status())
}

fn health(camera: &Camera, topics: &Topics) -> Map<String, Value> {
    let at = topics.camera(&camera.id, "health");
    let number = |name: &str, field: &str, class: Option<&str>, unit: Option<&str>, grows: bool| {
        let mut part = json!({
            "p": "sensor",
            "name": name,
            "state_topic": at,
            "value_template": format!("{{{{ value_json.{field} }}}}"),
            "state_class": if grows { "total_increasing" } else { "measurement" },
            "entity_category": "diagnostic",
        });
        if let Some(class) = class {
            part["device_class"] = json!(class);
        }
        if let Some(unit) = unit {
            part["unit_of_measurement"] = json!(unit);
        }
        part
    };
    let state_topic = topics.camera(&camera.id, "state");
    let mut parts = Map::new();
    parts.insert(
        "state".into(),
        json!({
            "p": "sensor",
            "name": "State",
            "device_class": "enum",
            "options": ["starting", "live", "stalled", "waiting", "stopped", "elsewhere"],
            "state_topic": state_topic,
            "value_template": "{{ value_json.state }}",
            "json_attributes_topic": state_topic,
            "entity_category": "diagnostic",
        }),
    );
    parts.insert("lag".into(), number("Lag", "lag_s", Some("duration"), Some("s"), false));
    parts.insert("frames".into(), number("Frames", "frames", None, None, true));
    parts.insert("dropped".into(), number("Dropped frames", "dropped", None, None, true));
    parts.insert(
        "memory".into(),
        number("Memory", "memory_bytes", Some("data_size"), Some("B"), false),
    );
    let mut first = number("First word", "first_token_p50_ms", Some("duration"), Some("ms"), false);
    first["value_template"] = json!(
        "{{ value_json.first_token_p50_ms if value_json.first_token_p50_ms is not none else 'None' }}"
    );
    parts.insert("first_word".into(), first);
    parts
}

/// What one is told of answers and alerts, and where one asks.
fn answers(camera: &Camera, topics: &Topics) -> Map<String, Value> {
    let last = topics.camera(&camera.id, "last_answer");
    let mut parts = Map::new();
    parts.insert(
        "last_answer".into(),
        json!({
            "p": "sensor",
            "name": "Last answer",
            "icon": "mdi:comment-text-outline",
            "state_topic": last,
            "value_template": format!("{{{{ (value_json.text or value_json.error or '')[:{LONGEST}] }}}}"),
            "json_attributes_topic": last,
        }),
    );
    parts.insert(
        "alert".into(),
        json!({
            "p": "event",
            "name": "Alert",
            "icon": "mdi:alert-outline",
            "event_types": ["on", "off"],
            "state_topic": topics.camera(&camera.id, "alert"),
            "value_template": "{{ {'event_type': value_json.state, 'question': value_json.question, \
                'answer': value_json.answer, 'standing': value_json.standing, 'at': value_json.at} | to_json }}",
        }),
    );
    parts.insert(
        "ask".into(),
        json!({
            "p": "text",
            "name": "Ask",
            "icon": "mdi:comment-question-outline",
            "max": LONGEST,
            "command_topic": topics.camera(&camera.id, "ask"),
        }),
    );
    parts
}

fn standing(camera: &Camera, standing: &Standing, topics: &Topics) -> Value {
    let at = topics.standing(&camera.id, &standing.id);
    let mut part = json!({
        "name": standing.question,
        "state_topic": at,
        "json_attributes_topic": at,
        "availability": [
            { "topic": topics.status() },
            { "topic": topics.camera(&camera.id, "availability") },
        ],
        "availability_mode": "all",
    });
    match shape(standing) {
        Shape::Binary => {
            part["p"] = json!("binary_sensor");
            part["value_template"] = json!(
                "{% set is = (value_json.state or '') | lower %}\
                 {{ 'ON' if is == 'yes' else 'OFF' if is == 'no' else 'None' }}"
            );
        }
        Shape::Choice => {
            part["p"] = json!("sensor");
            part["device_class"] = json!("enum");
            part["options"] = json!(standing.choices);
            part["value_template"] = json!("{{ value_json.state or 'None' }}");
        }
        Shape::Words => {
            part["p"] = json!("sensor");
            part["value_template"] =
                json!(format!("{{{{ (value_json.state or 'None')[:{LONGEST}] }}}}"));
        }
    }
    part
}
