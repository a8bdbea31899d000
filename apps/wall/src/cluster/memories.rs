// SPDX-License-Identifier: MPL-2.0
//! What cameras remember, in the object store: uploaded after each saving, fetched by whoever takes a camera.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::records::{Key, Snapshot, Snapshots};
use super::store::{Store, Written, plain, read, write};
use crate::hub::new_id;

/// Snapshots that are kept of a camera: the newest, and the one before in case it is damaged.
const KEPT: usize = 2;
/// How long one word with the server may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest pause in a transfer.
const PAUSE: Duration = Duration::from_secs(5);
/// An object that no record names is left alone for so long: its upload may not be over.
const ORPHAN: Duration = Duration::from_secs(600);

/// The memories of this wall's cameras.
pub(super) struct Memories {
    store: Store,
    folder: PathBuf,
    /// What of each file has been uploaded: its time and length.
    uploaded: Mutex<BTreeMap<String, (SystemTime, u64)>>,
    /// Under which lease a camera was watched here last: its memory is in its file here.
    left: Mutex<BTreeMap<String, u64>>,
}

impl Memories {
    /// Fetched memories go through `folder`.
    pub fn new(store: Store, folder: &Path) -> Self {
        Memories {
            store,
            folder: folder.join("fetched"),
            uploaded: Mutex::default(),
            left: Mutex::default(),
        }
    }

    /// Whether `file` is another than was uploaded last.
    pub fn is_new(&self, camera: &str, file: &Path) -> bool {
        let Some(now) = mark(file) else { return false };
        self.uploaded.lock().get(camera) != Some(&now)
    }

    /// The file is taken as uploaded: it is what has just been fetched.
    pub fn is_known(&self, camera: &str, file: &Path) {
        if let Some(now) = mark(file) {
            self.uploaded.lock().insert(camera.to_owned(), now);
        }
    }

    /// A camera is watched here under the lease `epoch`, and its file is its memory.
    pub fn is_here(&self, camera: &str, epoch: u64) {
        self.left.lock().insert(camera.to_owned(), epoch);
    }

    /// Uploads a camera's memory under the lease `epoch`. If another wall has the camera since, its snapshots
    /// stay and this one goes.
    ///
    /// # Errors
    ///
    /// Of the file, or what the server says.
    pub async fn upload(&self, camera: &str, epoch: u64, path: &Path) -> Result<(), String> {
        let Some(now) = mark(path) else { return Ok(()) };
        // Open, it stays what it is, whatever takes its place.
        let mut file = tokio::fs::File::open(path)
            .await
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let object = format!("{camera}/{epoch:020}-{}", new_id());
        let info = self
            .store
            .memories
            .put(object.as_str(), &mut file)
            .await
            .map_err(|error| plain(&error))?;
        let new =
            Snapshot { object: object.clone(), bytes: info.size as u64, at: Timestamp::now() };
        match self.name(camera, epoch, new).await {
            Ok(old) => {
                self.uploaded.lock().insert(camera.to_owned(), now);
                for snapshot in old {
                    let _ = self.store.memories.delete(&snapshot.object).await;
                }
                Ok(())
            }
            Err(reason) => {
                let _ = self.store.memories.delete(&object).await;
                Err(reason)
            }
        }
    }

    /// Puts a snapshot in front of the others; those that are too many now are returned.
    async fn name(&self, camera: &str, epoch: u64, new: Snapshot) -> Result<Vec<Snapshot>, String> {
        let key = Key::Memory(camera).to_string();
        for _ in 0..5 {
            let stands = read::<Snapshots>(&self.store.common, &key, PATIENCE).await?;
            let (revision, before) =
                stands.map_or((0, None), |(revision, value)| (revision, value));
            let before = before.unwrap_or_default();
            if before.epoch > epoch {
                return Err("another wall has the camera since".into());
            }
            let mut all = before.all;
            all.insert(0, new.clone());
            let old = all.split_off(KEPT.min(all.len()));
            match write(&self.store.common, &key, &Snapshots { epoch, all }, revision, PATIENCE)
                .await
            {
                Written::Yes(_) => return Ok(old),
                Written::Late => {}
                Written::Unknown(reason) => return Err(reason),
            }
        }
        Err("others write the record all the time".into())
    }

    /// The newest whole memory of a camera, in a file; none where
    /// there is none, or the file that lies here is newer. Which were damaged is logged.
    ///
    /// # Errors
    ///
    /// What the server says, or that it does not answer: it may have one.
    pub async fn fetch(&self, camera: &str) -> Result<Option<PathBuf>, String> {
        let key = Key::Memory(camera).to_string();
        let stands = read::<Snapshots>(&self.store.common, &key, PATIENCE).await?;
        let snapshots = stands.and_then(|(_, value)| value).unwrap_or_default();
        if self.left.lock().get(camera).is_some_and(|left| *left >= snapshots.epoch) {
            // Nobody has watched it since: what lies here is the newest.
            return Ok(None);
        }
        let mut reasons = Vec::new();
        for snapshot in &snapshots.all {
            match self.fetch_one(camera, snapshot).await {
                Ok(path) => return Ok(Some(path)),
                Err(Fault::Damaged(reason)) => {
                    tracing::warn!(camera, object = snapshot.object, reason, "a memory is damaged");
                }
                Err(Fault::Unreachable(reason)) => reasons.push(reason),
            }
        }
        match reasons.pop() {
            Some(reason) => Err(reason),
            None => Ok(None),
        }
    }

    async fn fetch_one(&self, camera: &str, snapshot: &Snapshot) -> Result<PathBuf, Fault> {
        let get = timeout(PATIENCE, self.store.memories.get(&snapshot.object)).await;
        let mut object = match get {
            Err(_) => return Err(Fault::Unreachable("the server does not answer".into())),
            Ok(Err(error))
                if error.kind() == async_nats::jetstream::object_store::GetErrorKind::NotFound =>
            {
                return Err(Fault::Damaged("it is not there".into()));
            }
            Ok(Err(error)) => return Err(Fault::Unreachable(plain(&error))),
            Ok(Ok(object)) => object,
        };
        let here = |error: std::io::Error| {
            Fault::Unreachable(format!("{}: {error}", self.folder.display()))
        };
        tokio::fs::create_dir_all(&self.folder).await.map_err(here)?;
        let path = self.folder.join(format!("{camera}.memory"));
        let mut file = tokio::fs::File::create(&path).await.map_err(here)?;
        let mut buffer = vec![0; 1 << 17];
        let mut length = 0_u64;
        loop {
            // The library compares the checksum behind the last piece.
            let piece =
                timeout(PAUSE, tokio::io::AsyncReadExt::read(&mut object, &mut buffer)).await;
            let count = match piece {
                Err(_) => {
                    return Err(Fault::Unreachable("the server stopped in the middle".into()));
                }
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(Fault::Damaged(error.to_string()));
                }
                Ok(Err(error)) => return Err(Fault::Unreachable(error.to_string())),
                Ok(Ok(0)) => break,
                Ok(Ok(count)) => count,
            };
            file.write_all(buffer.get(..count).unwrap_or_default()).await.map_err(here)?;
            length += count as u64;
        }
        file.flush().await.map_err(here)?;
        file.sync_all().await.map_err(here)?;
        if length != snapshot.bytes {
            return Err(Fault::Damaged(format!("it has {length} bytes of {}", snapshot.bytes)));
        }
        Ok(path)
    }

    /// Deletes the memories of cameras that are no longer on the list, and what crashes have left behind.
    pub async fn sweep(&self, cameras: &BTreeSet<String>) -> Result<(), String> {
        let mut objects = self.store.memories.list().await.map_err(|error| plain(&error))?;
        let mut named: BTreeMap<String, Option<Snapshots>> = BTreeMap::new();
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| plain(&error))?;
            let Some((camera, _)) = object.name.split_once('/') else { continue };
            if !named.contains_key(camera) {
                let key = Key::Memory(camera).to_string();
                let stands = read::<Snapshots>(&self.store.common, &key, PATIENCE).await?;
                named.insert(camera.to_owned(), stands.and_then(|(_, value)| value));
            }
            let snapshots = named.get(camera).and_then(Option::as_ref);
            let is_named = snapshots
                .is_some_and(|all| all.all.iter().any(|snapshot| snapshot.object == object.name));
            let age = object
                .modified
                .map(|at| (std::time::SystemTime::now()).duration_since(SystemTime::from(at)));
            let is_old = age.and_then(Result::ok).is_some_and(|age| age > ORPHAN);
            if (!is_named && is_old) || !cameras.contains(camera) {
                let _ = self.store.memories.delete(&object.name).await;
            }
        }
        for camera in named.keys().filter(|camera| !cameras.contains(*camera)) {
            let _ = self.store.common.purge(Key::Memory(camera).to_string()).await;
            let _ = self.store.common.purge(Key::Alert(camera).to_string()).await;
        }
        Ok(())
    }
}

enum Fault {
    /// Another try would end the same.
    Damaged(String),
    /// It may be whole.
    Unreachable(String),
}

fn mark(file: &Path) -> Option<(SystemTime, u64)> {
    let about = std::fs::metadata(file).ok()?;
    Some((about.modified().ok()?, about.len()))
}
