// SPDX-License-Identifier: MPL-2.0
//! A wall at work: its parts put together, reconfigured and stopped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::brokers::metrics::Metrics;
use crate::brokers::{self, Brokers};
use crate::cameras::{Cameras, Settings, plugin};
use crate::cluster::{self, Cluster};
use crate::config::Config;
use crate::history::History;
use crate::hub::{Answer, Asks, Broker, BrokerKind, BrokerState, Event, Hub, State};
use crate::reload::HangUp;
use crate::web::{self, App};

/// How long after the start a camera may come that an MQTT broker knows from an earlier life.
const SETTLE: Duration = Duration::from_secs(30);

/// Why a wall does not start.
#[derive(Debug, thiserror::Error)]
pub enum WallError {
    /// There is no element.
    #[error(transparent)]
    Plugin(#[from] plugin::Missing),
    /// The data folder cannot be made or written.
    #[error("the folder {} cannot be used: {error}; `data` in section [wall] names another", path.display())]
    Data {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Another wall uses the data folder.
    #[error("another wall uses the folder {}; each needs its own (`data` in section [wall])", .0.display())]
    Taken(PathBuf),
    /// The address cannot be had.
    #[error(
        "cannot listen on {address}: {error}; `listen` in section [wall] names another address"
    )]
    Listen {
        /// Which.
        address: String,
        /// Why.
        error: std::io::Error,
    },
}

/// A wall at work. [`Wall::stop`] saves the memories.
pub struct Wall {
    /// What is shown here.
    pub hub: Hub,
    /// The past.
    pub history: History,
    /// The cameras of this process.
    pub cameras: Cameras,
    /// All cameras, those of other machines too.
    pub asks: Arc<dyn Asks>,
    address: SocketAddr,
    config: Mutex<Config>,
    cluster: Option<Cluster>,
    brokers: Brokers,
    app: Arc<App>,
    stop: CancellationToken,
    server: Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// Held while the data folder is ours.
    _lock: std::fs::File,
}

impl Wall {
    /// Starts all parts. Cameras, brokers and what else is not there yet are states, no errors.
    ///
    /// # Errors
    /// Says what is missing, and what helps.
    pub async fn start(config: Config) -> Result<Self, WallError> {
        plugin::find()?;
        let data = &config.wall.data;
        let fault = |error| WallError::Data { path: data.clone(), error };
        let memories = data.join("memories");
        std::fs::create_dir_all(&memories).map_err(fault)?;
        let lock = lock(data)?;
        let listener = TcpListener::bind(&config.wall.listen).await;
        let listener = listener
            .map_err(|error| WallError::Listen { address: config.wall.listen.clone(), error })?;
        let address = listener.local_addr().map_err(fault)?;
        let host = config.wall.host.clone().unwrap_or_else(machine);

        let hub = Hub::new();
        // Of one wall alone these are the same.
        let apart = || if config.cluster.is_some() { Hub::new() } else { hub.clone() };
        let (own, here) = (apart(), apart());
        let history = History::start(data, &config.history, &hub).map_err(fault)?;
        history.keep(&hub);
        let left_open = history.left_open();
        let settings = Settings {
            host: host.clone(),
            memories,
            model: config.wall.model.clone(),
            alone: config.cluster.is_none(),
        };
        let cameras = Cameras::new(here.clone(), history.clone(), settings);
        let cluster = config.cluster.as_ref().map(|cluster| {
            let place = cluster::Place {
                host: host.clone(),
                folder: data.clone(),
                local: cameras.clone(),
                history: history.clone(),
                cameras: here,
                own: own.clone(),
                all: hub.clone(),
            };
            Cluster::start(cluster, place, config.cameras.clone())
        });
        let asks: Arc<dyn Asks> = match &cluster {
            Some(cluster) => Arc::new(cluster.clone()),
            None => Arc::new(cameras.clone()),
        };
        let metrics = Metrics::start(&own, &hub);
        let brokers = Brokers::new(brokers::Place {
            own,
            all: hub.clone(),
            asks: asks.clone(),
            folder: data.clone(),
            wall: config.wall.name.clone(),
            host: host.clone(),
            clustered: cluster.is_some(),
            settle: SETTLE,
        });

        let app = Arc::new(App::new(&config, &host, &hub, &history, &cameras, &asks, metrics));
        let stop = CancellationToken::new();
        let server = web::serve(listener, app.clone(), stop.clone());
        let wall = Wall {
            hub,
            history,
            cameras,
            asks,
            address,
            config: Mutex::new(config.clone()),
            cluster,
            brokers,
            app,
            stop,
            server: Mutex::new(Some(server)),
            _lock: lock,
        };
        wall.brokers.apply(&config);
        for answer in left_open {
            wall.hub.publish(Event::Answer(Answer { answered: Timestamp::now(), ..answer }));
        }
        if wall.cluster.is_none() {
            wall.hub.arrange(ids(&config));
            wall.cameras.apply(&config.cameras).await;
        }
        Ok(wall)
    }

    /// Where the page is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is so.
    pub fn state(&self) -> State {
        self.hub.state()
    }

    /// Does what another configuration says. What it says the same goes on undisturbed; `wall.listen`,
    /// `wall.host`, `wall.data` and `cluster` hold from the next start on.
    pub async fn apply(&self, config: &Config) {
        let before = std::mem::replace(&mut *self.config.lock(), config.clone());
        if before.wall.model != config.wall.model {
            self.cameras.set_model(config.wall.model.clone());
        }
        self.history.configure(&config.history);
        self.app.configure(config);
        self.brokers.apply(config);
        match &self.cluster {
            Some(cluster) => cluster.apply(config.cameras.clone()),
            None => {
                self.hub.arrange(ids(config));
                self.cameras.apply(&config.cameras).await;
            }
        }
    }

    /// Reads its file again whenever it changes, and on SIGHUP, until the wall is stopped. A file with a fault is
    /// a state on the page, and nothing changes.
    pub async fn follow(&self, file: &Path, hang_up: HangUp) {
        tokio::select! {
            () = crate::reload::follow(self, file, hang_up) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Tells how the configuration's file is.
    pub(crate) fn tell_config(&self, fault: Option<String>) {
        self.hub.publish(Event::Broker(Broker {
            name: "configuration".into(),
            kind: BrokerKind::Config,
            state: if fault.is_some() { BrokerState::Failed } else { BrokerState::Connected },
            reason: fault,
            next_try: None,
            waiting: 0,
        }));
    }

    /// Stops all parts and saves the memories.
    pub async fn stop(&self) {
        self.stop.cancel();
        if let Some(cluster) = &self.cluster {
            cluster.stop().await;
        }
        self.cameras.stop().await;
        self.brokers.stop().await;
        let history = self.history.clone();
        let _ = tokio::task::spawn_blocking(move || history.close()).await;
        let server = self.server.lock().take();
        if let Some(server) = server {
            // Pages that listen would listen for ever.
            let _ = tokio::time::timeout(Duration::from_secs(2), server).await;
        }
    }
}

/// The cameras in their order.
fn ids(config: &Config) -> Vec<String> {
    config.cameras.iter().map(|camera| camera.id.clone()).collect()
}

/// One wall a folder.
fn lock(data: &Path) -> Result<std::fs::File, WallError> {
    let fault = |error| WallError::Data { path: data.to_path_buf(), error };
    let file = std::fs::File::create(data.join("lock")).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(WallError::Taken(data.to_path_buf())),
        Err(std::fs::TryLockError::Error(error)) => Err(fault(error)),
    }
}

/// The machine's name.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "wall".into() } else { name.to_owned() }
}
