// SPDX-License-Identifier: MPL-2.0
//! All cameras of this process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::camera::{Around, Camera};
use super::standing::Stand;
use super::watcher::Video;
use super::{Input, Sender};
use crate::config::{self, CameraConfig, StandingConfig};
use crate::history::History;
use crate::hub::{
    Answer, AnswerId, Asks, Event, Hub, LastAlert, Question, Refused, Standing, new_id,
};
use crate::picture::LivePicture;

/// A camera's thread may be stopping a pipeline, which takes a moment.
const PATIENCE: Duration = Duration::from_secs(15);
/// Writing a memory may take a while.
const STOPPING: Duration = Duration::from_secs(60);

/// What cameras have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This wall, for those of other machines.
    pub host: String,
    /// Folder of the memories.
    pub memories: PathBuf,
    /// The model of cameras that name none.
    pub model: Option<String>,
    /// There are no other walls that know of a question and ask it if this one is killed.
    pub alone: bool,
}

/// All cameras of this process. Clones are the same.
#[derive(Clone)]
pub struct Cameras {
    inner: Arc<Inner>,
}

struct Inner {
    hub: Hub,
    history: History,
    settings: Settings,
    model: Mutex<Option<String>>,
    cameras: Mutex<BTreeMap<String, Handle>>,
    elsewhere: Mutex<BTreeMap<String, LivePicture>>,
    /// What others have told of the alerts of cameras that are about to be started here.
    carried: Mutex<BTreeMap<String, Vec<LastAlert>>>,
}

struct Handle {
    config: CameraConfig,
    inputs: Sender,
    live: LivePicture,
    video: Arc<Mutex<Option<Video>>>,
    memory: Option<PathBuf>,
    model: Option<String>,
}

impl Cameras {
    /// None yet.
    pub fn new(hub: Hub, history: History, settings: Settings) -> Self {
        let model = Mutex::new(settings.model.clone());
        Cameras {
            inner: Arc::new(Inner {
                hub,
                history,
                settings,
                model,
                cameras: Mutex::default(),
                elsewhere: Mutex::default(),
                carried: Mutex::default(),
            }),
        }
    }

    /// The model of cameras that name none, from the next [`Cameras::apply`] on.
    pub fn set_model(&self, model: Option<String>) {
        *self.inner.model.lock() = model;
    }

    /// Watches these cameras and no others. Those of which nothing has changed go on as if nothing had been
    /// said; those with another name or other standing questions keep their pipeline.
    pub async fn apply(&self, wanted: &[CameraConfig]) {
        let before: Vec<CameraConfig> =
            self.inner.cameras.lock().values().map(|camera| camera.config.clone()).collect();
        let gone =
            before.iter().filter(|camera| !wanted.iter().any(|wanted| wanted.id == camera.id));
        futures_util::future::join_all(gone.map(|camera| self.remove(&camera.id))).await;
        let before = &before;
        let changes = wanted.iter().map(|wanted| async move {
            match before.iter().find(|before| before.id == wanted.id) {
                Some(before) if before == wanted && self.has_its_model(wanted) => {}
                Some(before) if before.has_same_pipeline(wanted) && self.has_its_model(wanted) => {
                    self.configure(wanted)
                }
                Some(before) => {
                    let _ = self.stop_camera(&before.id).await;
                    self.start(wanted.clone());
                }
                None => self.start(wanted.clone()),
            }
        });
        futures_util::future::join_all(changes).await;
    }

    /// Takes a camera from the wall; its memory stays in its file.
    pub async fn remove(&self, id: &str) {
        if self.stop_camera(id).await.is_ok() {
            self.inner.hub.publish(Event::Gone { camera: id.to_owned() });
        }
    }

    /// Stops all; their memories are saved then.
    pub async fn stop(&self) {
        let ids: Vec<String> = self.inner.cameras.lock().keys().cloned().collect();
        futures_util::future::join_all(ids.iter().map(|id| self.stop_camera(id))).await;
    }

    /// The picture of a camera, one that another machine watches included.
    pub fn live(&self, id: &str) -> Option<LivePicture> {
        let here = self.inner.cameras.lock().get(id).map(|camera| camera.live.clone());
        here.or_else(|| self.elsewhere(id))
    }

    /// The picture of a camera that another machine watches, which the cluster shows.
    pub fn elsewhere(&self, id: &str) -> Option<LivePicture> {
        self.inner.elsewhere.lock().get(id).cloned()
    }

    /// These are the cameras that other machines watch.
    pub fn keep_elsewhere(&self, ids: &[String]) {
        let mut elsewhere = self.inner.elsewhere.lock();
        elsewhere.retain(|id, _| ids.contains(id));
        for id in ids {
            elsewhere.entry(id.clone()).or_default();
        }
    }

    /// The raw video of a camera that is watched here, while it has a pipeline.
    pub fn video(&self, id: &str) -> Option<Video> {
        let video = self.inner.cameras.lock().get(id).map(|camera| camera.video.clone())?;
        let video = video.lock();
        video.clone()
    }

    /// This is what was last told of a camera's alerts, by whoever has watched it; it is to be started next.
    pub fn carry_on(&self, id: &str, alerts: Vec<LastAlert>) {
        self.inner.carried.lock().insert(id.to_owned(), alerts);
    }

    /// As it was started.
    pub fn config(&self, id: &str) -> Option<CameraConfig> {
        self.inner.cameras.lock().get(id).map(|camera| camera.config.clone())
    }

    fn start(&self, config: CameraConfig) {
        let Inner { hub, history, settings, cameras, .. } = &*self.inner;
        let model = self.model_of(&config);
        let id = config.id.clone();
        let mut standing: Vec<Stand> = config::standing_of(&config)
            .iter()
            .map(|(id, standing)| Stand::new(standing, id.clone(), true))
            .collect();
        // What came by the API goes where the file has another of the same name.
        for kept in history.standing(&id) {
            let Some(name) = kept.id.clone() else { continue };
            if !standing.iter().any(|stand| stand.standing.id == name) {
                standing.push(Stand::new(&kept, name, false));
            }
        }
        let carried = self.inner.carried.lock().remove(&id);
        for last in carried.unwrap_or_else(|| history.last_alerts(&id)) {
            if !standing.iter_mut().any(|stand| stand.resume(&last)) {
                history.forget_alert(&id, &last.alert.standing);
            }
        }
        let memory = config.memory.unwrap_or(true).then(|| self.memory_file(&config));
        let around = Around {
            hub: hub.clone(),
            history: history.clone(),
            host: settings.host.clone(),
            model: model.clone(),
            memory: memory.clone(),
            live: LivePicture::default(),
            video: Arc::default(),
        };
        let (inputs, receiver) = std::sync::mpsc::channel();
        let handle = Handle {
            config: config.clone(),
            inputs: inputs.clone(),
            live: around.live.clone(),
            video: around.video.clone(),
            memory,
            model,
        };
        cameras.lock().insert(id.clone(), handle);
        let camera = Camera::new(config, standing, around, receiver, inputs);
        let thread =
            std::thread::Builder::new().name(format!("camera {id}")).spawn(move || camera.run());
        if let Err(error) = thread {
            tracing::error!(camera = id, "no thread for it: {error}");
            cameras.lock().remove(&id);
        }
    }

    fn configure(&self, config: &CameraConfig) {
        if let Some(camera) = self.inner.cameras.lock().get_mut(&config.id) {
            camera.config = config.clone();
            let _ = camera.inputs.send(Input::Configure(Box::new(config.clone())));
        }
    }

    fn model_of(&self, config: &CameraConfig) -> Option<String> {
        config.model.clone().or_else(|| self.inner.model.lock().clone())
    }

    fn has_its_model(&self, config: &CameraConfig) -> bool {
        let model = self.model_of(config);
        self.inner.cameras.lock().get(&config.id).is_some_and(|camera| camera.model == model)
    }

    /// Memories of one model are of no use to another.
    fn memory_file(&self, config: &CameraConfig) -> PathBuf {
        let model = self.model_of(config).unwrap_or_else(|| "model".into());
        let model = model.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let model: String =
            model.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '-' }).collect();
        self.inner.settings.memories.join(format!("{}.{model}.memory", config.id))
    }

    async fn talk<T>(
        &self,
        camera: &str,
        patience: Duration,
        input: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, Refused> {
        let inputs = self.inner.cameras.lock().get(camera).map(|camera| camera.inputs.clone());
        let inputs = inputs.ok_or_else(|| Refused::NoCamera(camera.to_owned()))?;
        let (reply, answer) = oneshot::channel();
        let gone = || Refused::NotNow("the camera is being stopped".into());
        inputs.send(input(reply)).map_err(|_| gone())?;
        match tokio::time::timeout(patience, answer).await {
            Ok(answer) => answer.map_err(|_| gone()),
            Err(_) => Err(Refused::NotNow(
                "the camera does not react; it is busy starting or stopping".into(),
            )),
        }
    }
}

#[async_trait]
impl Asks for Cameras {
    async fn ask(&self, camera: &str, mut question: Question) -> Result<AnswerId, Refused> {
        config::check_question(&question.text, &question.choices).map_err(Refused::Bad)?;
        if question.from.zip(question.to).is_some_and(|(from, to)| from > to) {
            return Err(Refused::Bad("\"from\" is later than \"to\"".into()));
        }
        let history = &self.inner.history;
        let id = question.id.get_or_insert_with(new_id).clone();
        if self.inner.settings.alone {
            let why = "the wall stopped before it was answered";
            let asked = Timestamp::now();
            history.open_question(Answer::none(id.clone(), camera, &question, asked, why)).await;
        }
        let asked = self.talk(camera, PATIENCE, |reply| Input::Ask(question, reply)).await;
        let asked = asked.flatten();
        if self.inner.settings.alone && asked.is_err() {
            history.not_taken(&id);
        }
        asked
    }

    async fn add_standing(
        &self,
        camera: &str,
        standing: StandingConfig,
    ) -> Result<Standing, Refused> {
        standing.check().map_err(Refused::Bad)?;
        self.talk(camera, PATIENCE, |reply| Input::AddStanding(standing, reply)).await?
    }

    async fn remove_standing(&self, camera: &str, standing: &str) -> Result<(), Refused> {
        self.talk(camera, PATIENCE, |reply| Input::RemoveStanding(standing.to_owned(), reply))
            .await?
    }

    async fn start_camera(
        &self,
        camera: CameraConfig,
        memory: Option<PathBuf>,
    ) -> Result<(), Refused> {
        match self.config(&camera.id) {
            Some(before) if before.has_same_pipeline(&camera) => {
                self.inner.carried.lock().remove(&camera.id);
                self.configure(&camera);
                return Ok(());
            }
            Some(_) => drop(self.stop_camera(&camera.id).await?),
            None => {}
        }
        if let Some(memory) = memory {
            let file = self.memory_file(&camera);
            let to = file.clone();
            let put = tokio::task::spawn_blocking(move || put_in_place(&memory, &to)).await;
            put.map_err(std::io::Error::other).flatten().map_err(|error| {
                Refused::Failed(format!("its memory cannot be put at {}: {error}", file.display()))
            })?;
        }
        self.start(camera);
        Ok(())
    }

    async fn stop_camera(&self, camera: &str) -> Result<Option<PathBuf>, Refused> {
        let stopped = self.talk(camera, STOPPING, Input::Stop).await;
        let memory = self.inner.cameras.lock().remove(camera).and_then(|camera| camera.memory);
        stopped.map(|()| memory.filter(|memory| memory.exists()))
    }

    fn memory_path(&self, camera: &str) -> Option<PathBuf> {
        self.inner.cameras.lock().get(camera).and_then(|camera| camera.memory.clone())
    }
}

/// As a whole or not at all.
fn put_in_place(from: &Path, to: &Path) -> std::io::Result<()> {
    if from == to {
        return Ok(());
    }
    let half = to.with_extension("memory.new");
    std::fs::copy(from, &half)?;
    std::fs::File::open(&half)?.sync_all()?;
    std::fs::rename(&half, to)
}
