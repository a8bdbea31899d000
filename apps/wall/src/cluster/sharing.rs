// SPDX-License-Identifier: MPL-2.0
//! What happens at this wall's cameras goes out to all walls, and what happens at theirs comes in, so that every
//! page shows all. Nothing leaves in the name of a camera whose lease is not held at that moment.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::interval;

use super::clock::now;
use super::store::Store;
use super::{Shared, list, questions, word};
use crate::hub::{Camera, CameraState, Event, Health, Live, State};

/// How often everything that is so is told anew: messages between walls are not acknowledged.
const AGAIN: Duration = Duration::from_secs(10);

/// An event on its way to other walls.
#[derive(Serialize, Deserialize)]
struct Told {
    host: String,
    event: Event,
}

/// Lets through what this wall's cameras publish.
pub(super) async fn let_through(shared: Arc<Shared>) {
    let mut events = shared.cameras.subscribe();
    loop {
        match events.recv().await {
            Ok(event) => gate(&shared, &event),
            Err(RecvError::Lagged(lost)) => {
                tracing::warn!(lost, "events came too fast");
                tell_state(&shared);
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn gate(shared: &Arc<Shared>, event: &Event) {
    match event {
        Event::Broker(_) => shared.all.publish(event.clone()),
        Event::Answer(answer) if shared.questions.knows(&answer.id) => {
            let store = shared.store.read().clone();
            if let Some(store) = store {
                tokio::spawn(questions::answered(shared.clone(), store, answer.clone()));
            }
        }
        Event::Alert(alert) if shared.leases.holds(&alert.camera).is_some() => {
            shared.alerts.take(alert.clone());
        }
        Event::Alert(_) => {}
        // A camera leaves the wall when it leaves the list.
        Event::Gone { .. } => {}
        Event::Camera(camera) => {
            let id = camera.id.clone();
            if shared.leases.holds(&id).is_none() {
                return;
            }
            shared.fitness.is(&id, camera.state, now());
            let mut camera = camera.clone();
            if camera.state == CameraState::Stopped {
                // Nobody stopped it for good: it is on its way.
                camera.state = CameraState::Waiting;
                camera.reason = Some("it goes to another wall".into());
            }
            camera.host.clone_from(&shared.host);
            publish(shared, Event::Camera(camera));
        }
        _ => {
            let of_us = event.camera().is_some_and(|camera| shared.leases.holds(camera).is_some());
            if of_us {
                publish(shared, event.clone());
            }
        }
    }
}

fn publish(shared: &Shared, event: Event) {
    shared.own.publish(event.clone());
    shared.all.publish(event.clone());
    // Where it cannot be told now it is not: everything that is so is told again.
    let _ = shared.telling.try_send(event);
}

/// Tells other walls what happens here, in its order. Nothing of it is kept for a server that is away.
pub(super) async fn tell_others(shared: Arc<Shared>, mut told: mpsc::Receiver<Event>) {
    while let Some(event) = told.recv().await {
        let store = shared.store.read().clone();
        let Some(store) = store.filter(Store::connected) else { continue };
        let told = Told { host: shared.host.clone(), event };
        let Ok(bytes) = serde_json::to_vec(&told) else { continue };
        let subject = format!("{}.event.{}", store.subject, word(&shared.host));
        let _ = store.client.publish(subject, bytes.into()).await;
    }
}

/// Tells all walls of this one's cameras.
pub(super) fn tell_state(shared: &Shared) {
    let State { cameras, .. } = shared.cameras.state();
    for mut camera in cameras {
        if shared.leases.keeps(&camera.id).is_some() && camera.state != CameraState::Stopped {
            camera.host.clone_from(&shared.host);
            publish(shared, Event::Camera(camera));
        }
    }
}

/// Takes in what other walls tell, until the connection ends.
pub(super) async fn take_in(shared: &Arc<Shared>, store: &Store) -> Result<(), String> {
    let subscribe = store.client.subscribe(format!("{}.event.*", store.subject)).await;
    let mut events = subscribe.map_err(|error| error.to_string())?;
    let subscribe = store.client.subscribe(format!("{}.hello", store.subject)).await;
    let mut hellos = subscribe.map_err(|error| error.to_string())?;
    let _ = store.client.publish(format!("{}.hello", store.subject), "".into()).await;
    let mut again = interval(AGAIN);
    loop {
        tokio::select! {
            message = events.next() => match message {
                Some(message) => take(shared, &message.payload),
                None => return Err("the connection is closed".into()),
            },
            hello = hellos.next() => match hello {
                Some(_) => tell_state(shared),
                None => return Err("the connection is closed".into()),
            },
            _ = again.tick() => tell_state(shared),
        }
    }
}

fn take(shared: &Shared, payload: &[u8]) {
    let Ok(Told { host, event }) = serde_json::from_slice::<Told>(payload) else { return };
    let Some(camera) = event.camera().map(str::to_owned) else { return };
    // Of a camera only its holder may speak, and of ours we.
    let holder = {
        let view = shared.view.lock();
        view.holder(&camera, now(), shared.leases.lasts).and_then(|lease| lease.holder.clone())
    };
    if host == shared.host
        || shared.leases.holds(&camera).is_some()
        || holder.is_some_and(|holder| holder != host)
    {
        return;
    }
    let event = match event {
        Event::Camera(mut camera) => {
            // WebRTC is between a page and the wall that has the camera; pictures come through us.
            camera.live.whep = false;
            camera.host = host;
            Event::Camera(camera)
        }
        // Alerts stand in their cameras' records.
        Event::Gone { .. } | Event::Broker(_) | Event::Alert(_) => return,
        other => other,
    };
    shared.all.publish(event);
}

/// Who has which camera has changed: pages and brokers are told of those that are not here.
pub(super) fn tell_places(shared: &Shared) {
    let places: Vec<(String, Option<String>, Camera)> = {
        let view = shared.view.lock();
        let moment = now();
        let place = |(id, seen): (&String, &super::view::Seen<super::records::Listed>)| {
            let holder =
                view.holder(id, moment, shared.leases.lasts).and_then(|lease| lease.holder.clone());
            (id.clone(), holder, blank(&list::effective(&seen.value)))
        };
        view.cameras.iter().map(place).collect()
    };
    let names: Vec<&String> = places.iter().map(|(id, ..)| id).collect();
    let order = shared.view.lock().order();
    for hub in [&shared.own, &shared.all] {
        hub.arrange(order.clone());
    }
    for hub in [&shared.own, &shared.all] {
        for camera in hub.state().cameras {
            if !names.contains(&&camera.id) {
                hub.publish(Event::Gone { camera: camera.id });
            }
        }
    }
    for (id, holder, mut camera) in places {
        if shared.leases.holds(&id).is_some() {
            continue;
        }
        match holder {
            Some(holder) => {
                camera.state = CameraState::Elsewhere;
                camera.host = holder;
            }
            None => {
                camera.state = CameraState::Waiting;
                camera.reason = Some("no wall watches it; the next one that can takes it".into());
            }
        }
        for (hub, is_own) in [(&shared.own, true), (&shared.all, false)] {
            let before = hub.camera(&id);
            let told = match &before {
                // Where its own wall has told more, pages keep that. Brokers are told no more than where it is.
                Some(before) if before.host == camera.host && !camera.host.is_empty() => {
                    is_own && before.state != camera.state
                }
                Some(before) => before.host != camera.host || before.reason != camera.reason,
                None => true,
            };
            if told {
                let mut camera = camera.clone();
                if let Some(before) = before {
                    camera.standing = before.standing;
                    camera.health = before.health;
                }
                hub.publish(Event::Camera(camera));
            }
        }
    }
}

/// A camera of which nothing is known but that it is on the list.
fn blank(config: &crate::config::CameraConfig) -> Camera {
    Camera {
        id: config.id.clone(),
        name: config.name.clone().unwrap_or_else(|| config.id.clone()),
        state: CameraState::Waiting,
        reason: None,
        next_try: None,
        since: Timestamp::now(),
        host: String::new(),
        live: Live::default(),
        standing: Vec::new(),
        health: Health::default(),
    }
}
