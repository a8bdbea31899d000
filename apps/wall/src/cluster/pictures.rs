// SPDX-License-Identifier: MPL-2.0
//! Pictures of cameras that other walls watch, so that a page shows them as if they were here: the newest ones are
//! asked of the wall that has the camera, those of the past of whoever has kept them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::{Instant, interval, sleep, timeout};

use super::Shared;
use super::store::Store;
use crate::hub::Evidence;
use crate::picture::{LivePicture, Picture};

/// Between two pictures of a camera that somebody looks at, and of one that nobody does.
const LOOKED_AT: Duration = Duration::from_millis(500);
const UNSEEN: Duration = Duration::from_secs(3);
/// How long another wall may take for one.
const PATIENCE: Duration = Duration::from_secs(2);
/// For so long a camera is taken to be looked at after another wall has asked for its picture.
const LOOKS: Duration = Duration::from_secs(2);
/// How far a picture may be from what it is evidence of.
const NEAR: f64 = 2.0;
/// When a picture was seen.
const AT: &str = "At";
/// What is asked for is looked at.
const WATCHING: &str = "watching";

/// Answers what other walls ask for, until the connection ends.
pub(super) async fn serve(shared: &Arc<Shared>, store: &Store) -> Result<(), String> {
    let subscribe = |what: &str| store.client.subscribe(format!("{}.{what}", store.subject));
    let mut newest = subscribe("live.*").await.map_err(|error| error.to_string())?;
    let mut kept = subscribe("picture").await.map_err(|error| error.to_string())?;
    loop {
        tokio::select! {
            request = newest.next() => {
                let request = request.ok_or("the connection is closed")?;
                live(shared, &store.client, request).await;
            }
            request = kept.next() => {
                let request = request.ok_or("the connection is closed")?;
                let (shared, client) = (shared.clone(), store.client.clone());
                tokio::spawn(async move { past(&shared, &client, request).await });
            }
        }
    }
}

async fn live(shared: &Arc<Shared>, client: &Client, request: Message) {
    let camera = request.subject.rsplit('.').next().unwrap_or_default();
    let (Some(reply), Some(_)) = (request.reply, shared.leases.holds(camera)) else { return };
    let Some(live) = shared.pictures.live(camera) else { return };
    if request.payload == WATCHING.as_bytes() {
        // While there are viewers pictures come more often; that wall's are ours.
        let view = live.view();
        tokio::spawn(async move {
            sleep(LOOKS).await;
            drop(view);
        });
    }
    let Some(picture) = live.newest() else { return };
    let mut headers = HeaderMap::new();
    headers.insert(AT, picture.at.to_string().as_str());
    let jpeg = bytes::Bytes::from_owner(picture.jpeg);
    let _ = client.publish_with_headers(reply, headers, jpeg).await;
}

/// Who has not kept it is silent: another may have.
async fn past(shared: &Shared, client: &Client, request: Message) {
    let Some(reply) = request.reply else { return };
    let Ok(key) = String::from_utf8(request.payload.to_vec()) else { return };
    let history = shared.history.clone();
    let picture = tokio::task::spawn_blocking(move || history.picture(&key)).await;
    if let Ok(Ok(Some(jpeg))) = picture {
        let _ = client.publish(reply, jpeg.into()).await;
    }
}

/// A picture of the past that another wall has kept.
pub(super) async fn fetch(shared: &Shared, key: &str) -> Option<Vec<u8>> {
    let store = shared.store().ok()?;
    let request = store.client.request(format!("{}.picture", store.subject), key.to_owned().into());
    let reply = timeout(PATIENCE, request).await.ok()?.ok()?;
    Some(reply.payload.to_vec())
}

/// Keeps the newest pictures of other walls' cameras.
pub(super) async fn follow(shared: &Arc<Shared>, store: &Store) {
    let mut asked: std::collections::BTreeMap<String, Instant> = std::collections::BTreeMap::new();
    let mut ticks = interval(LOOKED_AT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let elsewhere =
            shared.names().into_iter().filter(|camera| shared.leases.holds(camera).is_none());
        let elsewhere: Vec<String> = elsewhere.collect();
        shared.pictures.keep_elsewhere(&elsewhere);
        if !store.connected() {
            continue;
        }
        asked.retain(|camera, _| elsewhere.contains(camera));
        let now = Instant::now();
        let due = elsewhere.iter().filter_map(|camera| {
            let picture = shared.pictures.elsewhere(camera)?;
            let every = if picture.viewers() > 0 { LOOKED_AT } else { UNSEEN };
            let due = asked
                .get(camera)
                .is_none_or(|last| now.duration_since(*last) + LOOKED_AT / 2 > every);
            due.then_some((camera.clone(), picture))
        });
        let due: Vec<(String, LivePicture)> = due.collect();
        asked.extend(due.iter().map(|(camera, _)| (camera.clone(), now)));
        join_all(due.iter().map(|(camera, picture)| newest(store, camera, picture))).await;
    }
}

async fn newest(store: &Store, camera: &str, into: &LivePicture) {
    let why = if into.viewers() > 0 { WATCHING } else { "" };
    let request = store.client.request(format!("{}.live.{camera}", store.subject), why.into());
    let Ok(Ok(reply)) = timeout(PATIENCE, request).await else { return };
    let at = reply
        .headers
        .as_ref()
        .and_then(|headers| headers.get(AT))
        .and_then(|at| at.as_str().parse().ok());
    let Some(at): Option<Timestamp> = at else { return };
    if into.newest().is_none_or(|known| known.at < at) {
        into.show(Picture { at, jpeg: reply.payload.to_vec().into() });
    }
}

/// Names the pictures of evidence that are kept here, for the pages of walls that have none.
pub(super) async fn name(shared: &Shared, camera: &str, evidence: &mut Vec<Evidence>) {
    let (history, camera) = (shared.history.clone(), camera.to_owned());
    let mut found = evidence.clone();
    let named = tokio::task::spawn_blocking(move || {
        for one in found.iter_mut().filter(|one| one.picture.is_none()) {
            let half = one.to.duration_since(one.from).as_secs_f64() / 2.0;
            let middle =
                one.from.saturating_add(jiff::SignedDuration::from_millis((half * 1000.0) as i64));
            let Ok(middle) = middle else { continue };
            let Ok(moments) = history.moments(&camera, middle, half + NEAR) else { continue };
            let nearest =
                moments.into_iter().min_by_key(|moment| moment.at.duration_since(middle).abs());
            one.picture = nearest.map(|moment| moment.picture);
        }
        found
    });
    if let Ok(named) = named.await {
        *evidence = named;
    }
}
