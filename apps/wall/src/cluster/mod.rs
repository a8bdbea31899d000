// SPDX-License-Identifier: MPL-2.0
//! Several machines as one wall, on JetStream: one list of cameras, each watched by the wall that holds its
//! lease, its memory in an object store, questions to whoever has it, and every page shows all.
//!
//! What two walls might do at the same time is decided by the revisions of records, never by clocks: a lease is
//! claimed and renewed, a question is answered, a snapshot becomes the newest by writing a record whose last
//! revision one names. Only one of two such writes succeeds.

mod alerts;
mod clock;
mod fitness;
mod keeper;
mod leases;
mod list;
mod memories;
mod moving;
mod pictures;
mod questions;
mod records;
mod sharing;
mod store;
mod view;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::alerts::Alerts;
use self::fitness::Fitness;
use self::leases::Leases;
use self::questions::Questions;
use self::store::Store;
use self::view::View;
use crate::brokers::Link;
use crate::cameras::Cameras;
use crate::config::{CameraConfig, ClusterConfig, StandingConfig};
use crate::history::History;
use crate::hub::{AnswerId, Asks, BrokerKind, Event, Hub, Question, Refused, Standing, new_id};

/// How long a lease lasts where the configuration does not say.
const LEASE: Duration = Duration::from_secs(5);
/// Shorter ones would be lost to a moment's pause of the network.
const SHORTEST: Duration = Duration::from_secs(1);
/// Events that wait to be told to other walls; more than these are not told.
const TELLING: usize = 4096;
/// Longest time that the cameras' last words may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// What a cluster stands on.
pub struct Place {
    /// This machine's name, unique among the walls.
    pub host: String,
    /// Folder for memories on their way.
    pub folder: PathBuf,
    /// The cameras of this process.
    pub local: Cameras,
    /// Pictures of the past that are kept here.
    pub history: History,
    /// What they publish to.
    pub cameras: Hub,
    /// What this wall answers for.
    pub own: Hub,
    /// What all walls have.
    pub all: Hub,
}

/// This machine's part in a cluster. It asks all cameras, wherever they are.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
    running: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What the parts of a cluster have in common.
struct Shared {
    host: String,
    /// This process, over all restarts of the host's.
    life: String,
    config: ClusterConfig,
    folder: PathBuf,
    local: Arc<dyn Asks>,
    pictures: Cameras,
    history: History,
    cameras: Hub,
    own: Hub,
    all: Hub,
    link: Link,
    leases: Leases,
    view: Mutex<View>,
    /// The watch has shown everything that was there when it began, and this process's last beat since.
    beat_seen: Mutex<u64>,
    questions: Questions,
    alerts: Alerts,
    fitness: Fitness,
    /// The cameras of this machine's configuration.
    configured: Mutex<Vec<CameraConfig>>,
    /// Something above has changed.
    changed: Notify,
    /// `configured` has changed.
    reconfigured: Notify,
    store: RwLock<Option<Store>>,
    /// What other walls are to hear.
    telling: mpsc::Sender<Event>,
    stop: CancellationToken,
}

impl Cluster {
    /// Joins the walls of `config`, with what this machine's configuration has of cameras. A server that is not
    /// there is a state on the page; it is tried again.
    pub fn start(config: &ClusterConfig, place: Place, cameras: Vec<CameraConfig>) -> Self {
        let lease = config.lease.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let (telling, told) = mpsc::channel(TELLING);
        let (alerts, alarming) = Alerts::new();
        let shared = Arc::new(Shared {
            telling,
            host: place.host,
            life: new_id(),
            config: config.clone(),
            folder: place.folder,
            pictures: place.local.clone(),
            local: Arc::new(place.local),
            history: place.history,
            link: Link::new(place.all.clone(), "cluster", BrokerKind::Cluster),
            cameras: place.cameras,
            own: place.own,
            all: place.all,
            leases: Leases::new(lease.unwrap_or(LEASE).max(SHORTEST)),
            view: Mutex::default(),
            beat_seen: Mutex::default(),
            questions: Questions::default(),
            alerts,
            fitness: Fitness::default(),
            configured: Mutex::new(cameras),
            changed: Notify::new(),
            reconfigured: Notify::new(),
            store: RwLock::default(),
            stop: CancellationToken::new(),
        });
        let running = tokio::spawn(keeper::run(shared.clone(), told, alarming));
        Cluster { shared, running: Arc::new(Mutex::new(Some(running))) }
    }

    /// This machine's configuration has these cameras now.
    pub fn apply(&self, cameras: Vec<CameraConfig>) {
        *self.shared.configured.lock() = cameras;
        self.shared.reconfigured.notify_one();
    }

    /// Gives all cameras up, their memories in the store, so that other walls go on at once.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        let running = self.running.lock().take();
        if let Some(running) = running {
            let _ = tokio::time::timeout(LAST_WORDS, running).await;
        }
    }
}

impl Shared {
    /// The store, where it has been reached.
    fn store(&self) -> Result<Store, Refused> {
        let away =
            || Refused::NotNow("the cluster's NATS server is not there; it is tried again".into());
        self.store.read().clone().filter(Store::connected).ok_or_else(away)
    }

    /// How long one word with the server may take.
    fn patience(&self) -> Duration {
        (self.leases.lasts / 4).clamp(Duration::from_millis(500), Duration::from_secs(2))
    }

    /// The records have been seen as they stand.
    fn knows_all(&self) -> bool {
        *self.beat_seen.lock() > 0
    }

    fn names(&self) -> BTreeSet<String> {
        self.view.lock().names()
    }
}

#[async_trait]
impl Asks for Cluster {
    async fn ask(&self, camera: &str, question: Question) -> Result<AnswerId, Refused> {
        questions::ask(&self.shared, camera, question).await
    }

    async fn add_standing(
        &self,
        camera: &str,
        standing: StandingConfig,
    ) -> Result<Standing, Refused> {
        list::add_standing(&self.shared, camera, standing).await
    }

    async fn remove_standing(&self, camera: &str, standing: &str) -> Result<(), Refused> {
        list::remove_standing(&self.shared, camera, standing).await
    }

    /// The walls decide among themselves who starts one.
    async fn start_camera(&self, _: CameraConfig, _: Option<PathBuf>) -> Result<(), Refused> {
        Err(Refused::NotNow("in a cluster the walls share the cameras out by themselves".into()))
    }

    /// See [`Asks::start_camera`].
    async fn stop_camera(&self, _: &str) -> Result<Option<PathBuf>, Refused> {
        Err(Refused::NotNow("in a cluster the walls share the cameras out by themselves".into()))
    }

    async fn picture(&self, key: &str) -> Option<Vec<u8>> {
        pictures::fetch(&self.shared, key).await
    }

    fn memory_path(&self, camera: &str) -> Option<PathBuf> {
        self.shared.local.memory_path(camera)
    }
}

/// A name as one word of a subject or a key: as it is where it is one.
fn word(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(fits) {
        return name.to_owned();
    }
    // An `=` is in no name that fits.
    format!("={}", name.bytes().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn a_name_is_one_word() {
        assert_eq!(word("attic-1"), "attic-1");
        assert_ne!(word("attic.home"), word("attic-home"));
        assert!(!word("attic.home").contains('.'));
    }
}
