// SPDX-License-Identifier: MPL-2.0
//! Keeps leases and cameras in step: claims, renews, begins, gives up, and stops in time what can no longer be
//! renewed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, sleep};

use super::clock::{Moment, now};
use super::leases::{Held, Phase};
use super::memories::Memories;
use super::records::{Key, Lease, Life, Listed};
use super::store::{Store, Written, read, value, write};
use super::view::{Act, Me, View};
use super::{Shared, list, pictures, questions, sharing, word};
use crate::brokers::nats;
use crate::hub::Event;

/// Between two tries to reach a server that has never been there.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at leases that may be over: well below what is left for stopping.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks at the files of memories.
const FILES: Duration = Duration::from_millis(500);
const SWEEP: Duration = Duration::from_secs(3600);
/// Tries to fetch a memory, a second apart, before a camera begins without: it remembers nothing then.
const FETCHES: usize = 5;

/// A cluster's tasks, until it is stopped.
pub(super) async fn run(shared: Arc<Shared>, told: mpsc::Receiver<Event>) {
    let through = tokio::spawn(sharing::let_through(shared.clone()));
    let telling = tokio::spawn(sharing::tell_others(shared.clone(), told));
    let keeper = loop {
        match Keeper::reach(&shared).await {
            Ok(keeper) => break keeper,
            Err(reason) => {
                shared.link.failed(reason, AGAIN, 0);
                tokio::select! {
                    () = sleep(AGAIN) => {}
                    () = shared.stop.cancelled() => {
                        telling.abort();
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
    through.abort();
}

/// What claims and renews.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    store: Store,
    memories: Memories,
    /// What is being done at a camera; what is next waits for it.
    at_work: Mutex<HashMap<String, JoinHandle<()>>>,
    /// The watch has shown everything that was there when it began, and this process's last beat since.
    beat_seen: Mutex<u64>,
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
            beat_seen: Mutex::default(),
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
                Some(listed) => View::see(&mut view.cameras, id, revision, listed, at),
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
                        *self.beat_seen.lock() = life.beat;
                    } else if life.host == shared.host && *self.beat_seen.lock() > 0 {
                        // Not one that was before us: it beats while we do.
                        *self.namesake.lock() = Some(at);
                    }
                    let known = view.walls.contains_key(host);
                    View::see(&mut view.walls, host, revision, life, at) && !known
                }
                None => view.walls.remove(host).is_some(),
            },
            Some(Key::Memory(_)) | None => false,
        };
        drop(view);
        if new {
            shared.changed.notify_one();
        }
    }

    /// Beats and renews.
    async fn renew(&self) {
        let shared = &self.shared;
        let mut ticks = interval(shared.leases.lasts / 5);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut life = Life {
            host: shared.host.clone(),
            life: shared.life.clone(),
            max: shared.config.max_cameras,
            beat: 0,
        };
        let mut failures = 0_u32;
        loop {
            ticks.tick().await;
            life.beat += 1;
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

    /// A camera that is not this wall's any more.
    fn stop(&self, camera: String) {
        let shared = self.shared.clone();
        shared.questions.leave(&camera);
        self.work(camera.clone(), async move {
            let _ = shared.local.stop_camera(&camera).await;
            shared.changed.notify_one();
        });
    }

    /// What is done at one camera is done in turn.
    fn work(&self, camera: String, work: impl Future<Output = ()> + Send + 'static) {
        let mut at_work = self.at_work.lock();
        at_work.retain(|_, job| !job.is_finished());
        let before = at_work.remove(&camera);
        let job = tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            work.await;
        });
        at_work.insert(camera, job);
    }

    fn is_at_work(&self) -> bool {
        self.at_work.lock().values().any(|job| !job.is_finished())
    }

    /// Claims, gives up, and follows the list.
    async fn decide(self: &Arc<Self>) {
        let shared = &self.shared;
        let mut ticks = interval(Duration::from_millis(250));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shared.changed.notified() => {}
            }
            sharing::tell_places(shared);
            self.follow_list();
            // Whoever does not see its own beats does not see others' either.
            if *self.beat_seen.lock() == 0 || !self.store.connected() {
                continue;
            }
            let acts = {
                let held: BTreeMap<String, bool> = shared
                    .leases
                    .all()
                    .into_iter()
                    .map(|(camera, held)| (camera, held.phase == Phase::Leaving))
                    .collect();
                let view = shared.view.lock();
                let me = Me {
                    host: &shared.host,
                    life: &shared.life,
                    max: shared.config.max_cameras,
                    held: &held,
                };
                view.decide(&me, now(), shared.leases.lasts)
            };
            let mut claims = Vec::new();
            for act in acts {
                match act {
                    Act::Claim { camera, revision } => claims.push(self.claim(camera, revision)),
                    // Gently: one after the other.
                    Act::Give { camera, to } if !self.is_at_work() => self.give(camera, Some(to)),
                    Act::Give { .. } => {}
                }
            }
            join_all(claims).await;
            questions::ask_open(shared, &self.store);
        }
    }

    /// Cameras that are held and have changed on the list, or left it.
    fn follow_list(self: &Arc<Self>) {
        for (camera, held) in self.shared.leases.all() {
            if held.phase != Phase::Watching {
                continue;
            }
            let listed =
                self.shared.view.lock().cameras.get(&camera).map(|seen| seen.value.clone());
            match listed {
                None => self.give(camera, None),
                Some(listed) if list::effective(&listed) != list::effective(&held.listed) => {
                    self.shared.leases.listed(&camera, held.epoch, listed.clone());
                    let shared = self.shared.clone();
                    self.work(camera, async move {
                        if let Err(refused) =
                            shared.local.start_camera(list::effective(&listed), None).await
                        {
                            tracing::warn!(%refused, "a camera's new configuration");
                        }
                    });
                }
                Some(_) => {}
            }
        }
    }

    async fn claim(self: &Arc<Self>, camera: String, revision: u64) {
        let shared = &self.shared;
        let listed = shared.view.lock().cameras.get(&camera).map(|seen| seen.value.clone());
        let Some(listed) = listed else { return };
        // No claim on the same revision can succeed again, so this grows from holder to holder.
        let epoch = revision + 1;
        let lease =
            Lease { holder: Some(shared.host.clone()), life: shared.life.clone(), epoch, to: None };
        let sent = now();
        let key = Key::Lease(&camera).to_string();
        if let Written::Yes(revision) =
            write(&self.store.common, &key, &lease, revision, shared.patience()).await
        {
            tracing::info!(camera, "is this wall's now");
            shared.leases.take(&camera, revision, epoch, listed, sent);
            let keeper = self.clone();
            self.work(camera.clone(), async move { keeper.begin(&camera, epoch).await });
        }
    }

    /// Begins to watch a camera where the last wall left off.
    async fn begin(&self, camera: &str, epoch: u64) {
        let shared = &self.shared;
        let is_ours = || shared.leases.holds(camera) == Some(epoch);
        let mut memory = None;
        for _ in 0..FETCHES {
            match self.memories.fetch(camera).await {
                Ok(fetched) => {
                    memory = fetched;
                    break;
                }
                Err(reason) if is_ours() => {
                    tracing::warn!(camera, reason, "its memory could not be fetched");
                    sleep(AGAIN).await;
                }
                Err(_) => break,
            }
        }
        while is_ours() {
            let listed = shared.leases.all().get(camera).map(|held| held.listed.clone());
            let Some(listed) = listed else { return };
            match shared.local.start_camera(list::effective(&listed), memory.clone()).await {
                Ok(()) => {
                    if let Some(file) =
                        shared.local.memory_path(camera).filter(|_| memory.is_some())
                    {
                        self.memories.is_known(camera, &file);
                    }
                    self.memories.is_here(camera, epoch);
                    if let Some(fetched) = &memory {
                        // It has been copied to where it belongs.
                        let _ = tokio::fs::remove_file(fetched).await;
                    }
                    shared.leases.phase(camera, epoch, Phase::Watching);
                    shared.changed.notify_one();
                    return;
                }
                Err(refused) => {
                    tracing::warn!(camera, %refused, "could not be started");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// Stops a camera, uploads what it remembers, and lets another wall have it.
    fn give(self: &Arc<Self>, camera: String, to: Option<String>) {
        let Some(held) = self.shared.leases.all().remove(&camera) else { return };
        self.shared.leases.phase(&camera, held.epoch, Phase::Leaving);
        self.shared.questions.leave(&camera);
        let keeper = self.clone();
        self.work(camera.clone(), async move { keeper.hand_over(&camera, &held, to).await });
    }

    async fn hand_over(&self, camera: &str, held: &Held, to: Option<String>) {
        let shared = &self.shared;
        // What it remembers up to here is uploaded while it goes on; what is new then is little.
        if let Some(file) =
            shared.local.memory_path(camera).filter(|file| self.memories.is_new(camera, file))
        {
            let _ = self.memories.upload(camera, held.epoch, &file).await;
        }
        let memory = shared.local.stop_camera(camera).await.ok().flatten();
        let listed = shared.view.lock().cameras.contains_key(camera);
        if let Some(file) = memory.filter(|_| listed)
            && let Err(reason) = self.memories.upload(camera, held.epoch, &file).await
        {
            tracing::warn!(camera, reason, "its memory could not be uploaded");
        }
        // From here on nothing is renewed, so the record stays as it is found.
        let Some(held) = shared.leases.drop(camera, held.epoch) else { return };
        let key = Key::Lease(camera).to_string();
        let released = Lease { holder: None, life: String::new(), epoch: held.epoch, to };
        let mut revision = held.revision;
        for _ in 0..3 {
            match write(&self.store.common, &key, &released, revision, shared.patience()).await {
                Written::Yes(_) => break,
                Written::Unknown(_) => {}
                Written::Late => {
                    match read::<Lease>(&self.store.common, &key, shared.patience()).await {
                        Ok(Some((stands, Some(lease))))
                            if lease == held.record(&shared.host, &shared.life) =>
                        {
                            revision = stands;
                        }
                        _ => break,
                    }
                }
            }
        }
        shared.changed.notify_one();
    }

    /// Keeps the list up to this machine's configuration.
    async fn announce(&self) {
        loop {
            // The view is needed to know what was announced before.
            while *self.beat_seen.lock() == 0 {
                sleep(LOOK).await;
            }
            match list::announce(&self.shared, &self.store).await {
                Ok(()) => self.shared.reconfigured.notified().await,
                Err(reason) => {
                    tracing::warn!(reason, "the cameras could not be put on the list");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// Uploads memories whenever they have been saved.
    async fn upload(&self) {
        let mut swept = now();
        loop {
            sleep(FILES).await;
            for (camera, held) in self.shared.leases.all() {
                let file = self.shared.local.memory_path(&camera);
                let Some(file) = file.filter(|file| {
                    held.phase == Phase::Watching && self.memories.is_new(&camera, file)
                }) else {
                    continue;
                };
                if let Err(reason) = self.memories.upload(&camera, held.epoch, &file).await {
                    tracing::warn!(camera, reason, "its memory could not be uploaded");
                }
            }
            if now() - swept > SWEEP {
                swept = now();
                let names: BTreeSet<String> = self.shared.names();
                if let Err(reason) = self.memories.sweep(&names).await {
                    tracing::warn!(reason, "old memories could not be swept");
                }
            }
        }
    }

    /// Gives everything up.
    async fn leave(self: &Arc<Self>) {
        let held = self.shared.leases.all();
        // Renewed meanwhile, so that nobody takes a camera whose memory is still on its way.
        let renewing = self.clone();
        let renewing = tokio::spawn(async move { renewing.renew().await });
        for camera in held.keys() {
            self.give(camera.clone(), None);
        }
        let jobs: Vec<JoinHandle<()>> = self.at_work.lock().drain().map(|(_, job)| job).collect();
        join_all(jobs).await;
        renewing.abort();
        let key = Key::Wall(&word(&self.shared.host)).to_string();
        let delete = self.store.common.delete(key);
        let _ = tokio::time::timeout(self.shared.patience(), delete).await;
        let _ = self.store.client.flush().await;
    }
}
