// SPDX-License-Identifier: MPL-2.0
//! What a wall does with a camera: takes it, begins where the last wall left off, follows the list, saves what is
//! remembered, and lets another wall have it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

use super::clock::now;
use super::keeper::{AGAIN, Keeper, LOOK};
use super::leases::{Held, Phase};
use super::records::{Key, Lease};
use super::store::{Written, read, write};
use super::view::{Act, Me};
use super::{alerts, list, questions, sharing, word};

/// Between two looks at the files of memories.
const FILES: Duration = Duration::from_millis(500);
const SWEEP: Duration = Duration::from_secs(3600);
/// Tries to fetch a memory and what was told of alerts, a second apart, before a camera begins without.
const FETCHES: usize = 5;

impl Keeper {
    /// A camera that is not this wall's any more.
    pub(super) fn stop(&self, camera: String) {
        let shared = self.shared.clone();
        shared.questions.leave(&camera);
        shared.fitness.leaves(&camera);
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
    pub(super) async fn decide(self: &Arc<Self>) {
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
            if !shared.knows_all() || !self.store.connected() {
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
                    unfit: &shared.fitness.unfit(now()),
                    failing: &shared.fitness.failing(),
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
        for _ in 0..FETCHES {
            match alerts::carry_on(shared, &self.store, camera, epoch).await {
                Ok(told) => {
                    shared.pictures.carry_on(camera, told);
                    break;
                }
                Err(reason) if is_ours() => {
                    tracing::warn!(camera, reason, "its alerts could not be fetched");
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
                    shared.fitness.begins(camera, now());
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
        self.shared.fitness.leaves(&camera);
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
    pub(super) async fn announce(&self) {
        loop {
            // The view is needed to know what was announced before.
            while !self.shared.knows_all() {
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
    pub(super) async fn upload(&self) {
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
    pub(super) async fn leave(self: &Arc<Self>) {
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
