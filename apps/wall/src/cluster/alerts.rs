// SPDX-License-Identifier: MPL-2.0
//! Alerts of cameras wherever they are. Each is written into its camera's record under the camera's lease before
//! anyone hears of it, and every wall tells its page what it sees there; so each is told once, and whoever takes
//! the camera knows what has been told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::records::{Alerts as Record, Key, TheAlert};
use super::store::{Store, Written, read, write};
use super::{Shared, list, pictures};
use crate::hub::{Alert, AlertState, Event, LastAlert};

/// Alerts of a camera that are kept for walls that have been away, beside the newest of each question.
const KEPT: usize = 32;
/// Alerts that are remembered as told.
const TOLD: usize = 10_000;
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(300);
/// Writings that others may get ahead of.
const TRIES: usize = 20;

/// Those that wait to be written, and those that have been told.
pub(super) struct Alerts {
    waiting: mpsc::UnboundedSender<Alert>,
    told: Mutex<BTreeSet<String>>,
}

impl Alerts {
    /// What is taken comes out for [`write_down`].
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Alert>) {
        let (waiting, receiver) = mpsc::unbounded_channel();
        (Alerts { waiting, told: Mutex::default() }, receiver)
    }

    /// An alert of a camera here.
    pub fn take(&self, alert: Alert) {
        let _ = self.waiting.send(alert);
    }
}

/// Writes alerts into their records, in their order. One whose camera is no longer this wall's is left to the next,
/// which sees what this one has seen.
pub(super) async fn write_down(shared: Arc<Shared>, mut alerts: mpsc::UnboundedReceiver<Alert>) {
    while let Some(mut alert) = alerts.recv().await {
        pictures::name(&shared, &alert.camera, &mut alert.evidence).await;
        let camera = alert.camera.clone();
        while let Some(epoch) = shared.leases.holds(&camera) {
            let store = shared.store.read().clone();
            let Some(store) = store else { break };
            let told = |record: &mut Record| {
                if record.all.iter().all(|one| one.alert.id != alert.id) {
                    let is_on = alert.state == AlertState::On;
                    let before = record.newest(&alert.standing).and_then(|one| one.began);
                    let began = if is_on { Some(Timestamp::now()) } else { before };
                    let (alert, life) = (alert.clone(), shared.life.clone());
                    record.all.push(TheAlert { alert, began, life });
                }
            };
            match change(&shared, &store, &camera, epoch, told).await {
                Ok(_) => break,
                Err(reason) => {
                    tracing::warn!(camera, reason, "an alert could not be written down");
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

/// What has been told of a camera's alerts, for a wall that is about to watch it under the lease `epoch`. From then
/// on no wall that had it before can add to that.
///
/// # Errors
///
/// What the server says, or that it does not answer.
pub(super) async fn carry_on(
    shared: &Shared,
    store: &Store,
    camera: &str,
    epoch: u64,
) -> Result<Vec<LastAlert>, String> {
    let record = change(shared, store, camera, epoch, |_| {}).await?.unwrap_or_default();
    let standing: BTreeSet<&String> = record.all.iter().map(|one| &one.alert.standing).collect();
    let newest = standing.into_iter().filter_map(|standing| record.newest(standing));
    Ok(newest.map(|one| LastAlert { alert: one.alert.clone(), began: one.began }).collect())
}

/// Nobody has been told of a standing question that was removed: another may have its name.
pub(super) async fn forget(shared: &Shared, store: &Store, camera: &str, standing: &str) {
    let forget = |record: &mut Record| record.all.retain(|one| one.alert.standing != standing);
    if let Err(reason) = change(shared, store, camera, 0, forget).await {
        tracing::warn!(camera, standing, reason, "its alerts could not be forgotten");
    }
}

/// Changes a camera's record under the lease `epoch` (0: whoever has it); none: a later wall has it.
async fn change(
    shared: &Shared,
    store: &Store,
    camera: &str,
    epoch: u64,
    to: impl Fn(&mut Record),
) -> Result<Option<Record>, String> {
    let key = Key::Alert(camera).to_string();
    for _ in 0..TRIES {
        let stands = read::<Record>(&store.common, &key, shared.patience()).await?;
        let (revision, before) = stands.map_or((0, None), |(revision, value)| (revision, value));
        let before = before.unwrap_or_default();
        if epoch != 0 && before.epoch > epoch {
            return Ok(None);
        }
        let mut after = Record { epoch: before.epoch.max(epoch), ..before.clone() };
        to(&mut after);
        let listed = shared.view.lock().cameras.get(camera).map(|seen| seen.value.clone());
        let stand = listed.map(|listed| list::effective(&listed)).unwrap_or_default();
        let stand = crate::config::standing_of(&stand);
        after.thin(KEPT, |standing| stand.iter().any(|(id, _)| id == standing));
        if after == before {
            return Ok(Some(after));
        }
        match write(&store.common, &key, &after, revision, shared.patience()).await {
            Written::Yes(_) => return Ok(Some(after)),
            Written::Late => {}
            Written::Unknown(reason) => return Err(reason),
        }
    }
    Err("others write the record all the time".into())
}

/// Tells of what is new in a camera's record.
pub(super) fn tell(shared: &Shared, record: Record) {
    for TheAlert { alert, life, .. } in record.all {
        {
            let mut told = shared.alerts.told.lock();
            if !told.insert(alert.id.clone()) {
                continue;
            }
            if told.len() > TOLD {
                told.pop_first();
            }
        }
        // As with answers: by every wall from here, to the brokers by the wall whose camera it was.
        if life == shared.life {
            shared.own.publish(Event::Alert(alert.clone()));
        }
        shared.all.publish(Event::Alert(alert));
    }
}
