// SPDX-License-Identifier: MPL-2.0
//! Keeps what a wall knows of the others and what it holds: follows the records, renews leases, and has those
//! cameras stopped in time whose leases cannot be renewed. What it does with cameras is in `moving`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, sleep};

use super::clock::{Moment, now};
use super::leases::Held;
use super::memories::Memories;
use super::records::{Alerts as Record, Key, Lease, Life, Listed};
use super::store::{Store, Written, read, value, write};
use super::view::View;
use super::{Shared, alerts, pictures, questions, sharing, word};
use crate::brokers::nats;
use crate::hub::{Alert, Event};

/// Between two tries to reach a server that has never been there.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at leases that may be over: well below what is left for stopping.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// A cluster's tasks, until it is stopped.
pub(super) async fn run(
    shared: Arc<Shared>,
    told: mpsc::Receiver<Event>,
    alarming: mpsc::UnboundedReceiver<Alert>,
) {
    let through = tokio::spawn(sharing::let_through(shared.clone()));
    let telling = tokio::spawn(sharing::tell_others(shared.clone(), told));
    let alarming = tokio::spawn(alerts::write_down(shared.clone(), alarming));
    let keeper = loop {
        match Keeper::reach(&shared).await {
            Ok(keeper) => break keeper,
            Err(reason) => {
                shared.link.failed(reason, AGAIN, 0);
                tokio::select! {
                    () = sleep(AGAIN) => {}
                    () = shared.stop.cancelled() => {
                        telling.abort();
                        alarming.abort();
                        return through.abort();
                    }
                }
            }
        }
    };
    let keeper = Arc::new(keeper);
    *shared.store.write() = Some(keeper.store.clone());
    tokio::select! {
        () = keeper.clone().look_after() => {}
        () = shared.stop.cancelled() => {}
    }
    keeper.leave().await;
    telling.abort();
    alarming.abort();
    through.abort();
}

/// What claims and renews.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Store,
    pub(super) memories: Memories,
    /// What is being done at a camera; what is next waits for it.
    pub(super) at_work: Mutex<HashMap<String, JoinHandle<()>>>,
    /// When another wall of our name was heard of.
    namesake: Mutex<Option<Moment>>,
}

impl Keeper {
    async fn reach(shared: &Arc<Shared>) -> Result<Self, String> {
        let config = &shared.config;
        let client =
            nats::connect(&config.nats, config.credentials.as_deref(), &shared.host).await?;
        let store = Store::open(client, &word(config.name.as_deref().unwrap_or("wall"))).await?;
        let memories = Memories::new(store.clone(), &shared.folder);
        Ok(Keeper {
            shared: shared.clone(),
            store,
            memories,
            at_work: Mutex::default(),
            namesake: Mutex::default(),
        })
    }

    async fn look_after(self: Arc<Self>) {
        // Tasks of their own: whatever else is slow, these are not to be.
        let mut prompt = JoinSet::new();
        let (renewing, watching) = (self.clone(), self.clone());
        prompt.spawn(async move { renewing.renew().await });
        prompt.spawn(async move { watching.watch_leases().await });
        tokio::join!(
            self.follow(),
            self.decide(),
            self.announce(),
            self.upload(),
            pictures::follow(&self.shared, &self.store),
            self.repeat("pictures", || pictures::serve(&self.shared, &self.store)),
            self.repeat("questions", || questions::follow(&self.shared, &self.store)),
            self.repeat("events", || sharing::take_in(&self.shared, &self.store)),
        );
    }

    /// Does something that goes on until it fails, again and again.
    async fn repeat<F: Future<Output = Result<(), String>>>(
        &self,
        what: &str,
        work: impl Fn() -> F,
    ) {
        loop {
            if let Err(reason) = work().await {
                tracing::warn!(what, reason, "is begun anew");
            }
            sleep(AGAIN).await;
        }
    }

    /// Keeps the view.
    async fn follow(&self) {
        self.repeat("records", || async {
            let watch = self.store.common.watch_with_history(">").await;
            let mut watch = watch.map_err(|error| error.to_string())?;
            loop {
                // Our own beats come by every second: a watch in which nothing comes is dead.
                let entry = tokio::time::timeout(3 * self.shared.leases.lasts, watch.next()).await;
                let Ok(Some(entry)) = entry else { return Err("nothing comes".into()) };
                self.see(&entry.map_err(|error| error.to_string())?);
            }
        })
        .await;
    }

    fn see(&self, entry: &async_nats::jetstream::kv::Entry) {
        let (shared, revision, at) = (&self.shared, entry.revision, now());
        let mut view = shared.view.lock();
        let new = match Key::read(&entry.key) {
            Some(Key::Camera(id)) => match value::<Listed>(entry) {
                Some(listed) => {
                    let before = view.cameras.get(id).map(|seen| &seen.value.config);
                    if before.is_some_and(|before| !before.has_same_pipeline(&listed.config)) {
                        shared.fitness.forget(id);
                    }
                    View::see(&mut view.cameras, id, revision, listed, at)
                }
                None => {
                    view.cameras.get(id).is_some_and(|seen| seen.revision < revision)
                        && view.cameras.remove(id).is_some()
                }
            },
            Some(Key::Lease(id)) => {
                let before = view.leases.get(id).and_then(|seen| seen.value.clone());
                let lease = value::<Lease>(entry);
                View::see(&mut view.leases, id, revision, lease.clone(), at) && before != lease
            }
            Some(Key::Wall(host)) => match value::<Life>(entry) {
                Some(life) => {
                    if life.life == shared.life {
                        *shared.beat_seen.lock() = life.beat;
                    } else if life.host == shared.host && shared.knows_all() {
                        // Not one that was before us: it beats while we do.
                        *self.namesake.lock() = Some(at);
                    }
                    let known = view.walls.contains_key(host);
                    View::see(&mut view.walls, host, revision, life, at) && !known
                }
                None => view.walls.remove(host).is_some(),
            },
            Some(Key::Alert(_)) => {
                drop(view);
                if let Some(record) = value::<Record>(entry) {
                    alerts::tell(shared, record);
                }
                return;
            }
            Some(Key::Memory(_)) | None => false,
        };
        drop(view);
        if new {
            shared.changed.notify_one();
        }
    }

    /// Beats and renews.
    pub(super) async fn renew(&self) {
        let shared = &self.shared;
        let mut ticks = interval(shared.leases.lasts / 5);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut life = Life {
            host: shared.host.clone(),
            life: shared.life.clone(),
            max: shared.config.max_cameras,
            beat: 0,
            unfit: BTreeMap::new(),
        };
        let mut failures = 0_u32;
        loop {
            ticks.tick().await;
            life.beat += 1;
            life.unfit = shared.fitness.unfit(now());
            let held = shared.leases.all();
            let renewals = join_all(held.iter().map(|(camera, held)| self.renew_one(camera, held)));
            let (beat, _) = tokio::join!(self.beat(&life), renewals);
            match beat {
                Ok(()) => {
                    failures = 0;
                    let since = *self.namesake.lock();
                    if since.is_some_and(|since| now().saturating_sub(since) < shared.leases.lasts)
                    {
                        let reason = format!(
                            "another wall is called \"{}\" too; `host` in section [wall] names each",
                            shared.host
                        );
                        shared.link.failed(reason, shared.leases.lasts, shared.questions.open());
                    } else {
                        shared.link.connected(shared.questions.open());
                    }
                }
                Err(reason) => {
                    failures += 1;
                    if failures > 1 {
                        shared.link.failed(
                            reason,
                            shared.leases.lasts / 5,
                            shared.questions.open(),
                        );
                    }
                    // A server that has lost its disk has to be told of the buckets again.
                    if failures.is_multiple_of(10) && self.store.connected() {
                        let name = word(shared.config.name.as_deref().unwrap_or("wall"));
                        let _ = Store::open(self.store.client.clone(), &name).await;
                    }
                }
            }
        }
    }

    async fn beat(&self, life: &Life) -> Result<(), String> {
        let bytes = serde_json::to_vec(life).map_err(|error| error.to_string())?;
        let key = Key::Wall(&word(&self.shared.host)).to_string();
        let put = self.store.common.put(key, bytes.into());
        match tokio::time::timeout(self.shared.patience(), put).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(super::store::plain(&error)),
            Err(_) => Err("the NATS server does not answer".into()),
        }
    }

    async fn renew_one(&self, camera: &str, held: &Held) {
        let (shared, key) = (&self.shared, Key::Lease(camera).to_string());
        let record = held.record(&shared.host, &shared.life);
        let mut revision = held.revision;
        for _ in 0..2 {
            let sent = now();
            match write(&self.store.common, &key, &record, revision, shared.patience()).await {
                Written::Yes(revision) => {
                    return shared.leases.renewed(camera, held.epoch, revision, sent);
                }
                Written::Unknown(_) => return,
                Written::Late => {}
            }
            // A renewal of ours that was thought lost has arrived, or somebody else has the camera.
            match read::<Lease>(&self.store.common, &key, shared.patience()).await {
                Ok(Some((stands, Some(lease)))) if lease == record => {
                    shared.leases.revised(camera, held.epoch, stands);
                    revision = stands;
                }
                Ok(_) => {
                    tracing::warn!(camera, "its lease was lost");
                    if shared.leases.drop(camera, held.epoch).is_some() {
                        self.stop(camera.to_owned());
                    }
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Stops cameras whose leases run out, before anyone else may have them.
    async fn watch_leases(&self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for (camera, _) in self.shared.leases.expired() {
                tracing::warn!(camera, "its lease could not be renewed");
                self.stop(camera);
            }
        }
    }
}
