// SPDX-License-Identifier: MPL-2.0
//! Models by their name on the Hugging Face hub: `hf:owner/name` or `hf:owner/name@revision`.
//!
//! A name is looked up in the cache that all Hugging Face tools share (`refs/` says which commit a
//! branch or tag is, `snapshots/` holds the files of a commit). Only where the caller allows it,
//! what is missing there is downloaded into it, by the `hf-hub` crate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::files::{INDEX, SINGLE, index_files};
use super::installed;
use super::load::{HubOptions, LoadOptions, LoadProgress, LoadStep};
use crate::error::{EngineError, Result};

/// What a path begins with that is a name on the hub.
pub(crate) const PREFIX: &str = "hf:";

/// The files of a model that are read, beside the weights. Not every model has all of them.
const FILES: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "streamkvqa.json",
];

/// Whether a model path is a name on the hub and not a folder.
pub fn is_name(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(PREFIX))
}

/// The folder of a model: the path itself, an installed one of that name, or the snapshot of a name on the
/// hub.
///
/// # Errors
/// [`EngineError::Hub`] for a name that cannot be one, and for a model that is not in the cache and
/// may not or cannot be downloaded: which files are missing and where to put them. As
/// [`installed::folder`] for a name that is not the hub's.
pub(super) fn folder(path: &Path, options: &LoadOptions) -> Result<PathBuf> {
    match Model::parse(path, &options.hub)? {
        None => installed::folder(path),
        Some(model) => match model.cached() {
            Ok(folder) => Ok(folder),
            Err(missing) if options.hub.download => model.download(&missing, options),
            Err(missing) => Err(model.fault(missing.to_string())),
        },
    }
}

/// The folder that a model's path means, without downloading anything.
///
/// # Errors
/// As [`VideoLlm::load`](super::VideoLlm::load) for such a path without permission to download.
pub fn at_hand(path: &Path, options: &HubOptions) -> Result<PathBuf> {
    let Some(model) = Model::parse(path, options)? else { return installed::folder(path) };
    model.cached().map_err(|missing| model.fault(missing.to_string()))
}

/// A model on the hub and the cache it would be in.
struct Model {
    /// `owner/name`.
    id: String,
    revision: String,
    cache: PathBuf,
    endpoint: String,
}

/// Which files the cache lacks.
#[derive(Debug, thiserror::Error)]
#[error("{} is not in the Hugging Face cache", .0.join(", "))]
struct Missing(Vec<String>);

impl Model {
    fn parse(path: &Path, options: &HubOptions) -> Result<Option<Self>> {
        let Some(name) = path.to_str().and_then(|path| path.strip_prefix(PREFIX)) else {
            return Ok(None);
        };
        let fault = |reason: &str| {
            Err(EngineError::Hub { name: format!("{PREFIX}{name}"), reason: reason.into() })
        };
        let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
        let well_formed = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty() && part.chars().all(plain) && !part.starts_with('.')
        };
        if id.split('/').count() != 2 || !id.split('/').all(well_formed) {
            return fault(
                "expected hf:owner/name or hf:owner/name@revision, for instance \
                 hf:llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
            );
        }
        if !revision.split('/').all(well_formed) {
            return fault("the revision after @ must be a branch, a tag or a commit");
        }
        let Some(cache) = options.cache.clone().or_else(default_cache) else {
            return fault("where is the Hugging Face cache? Set HF_HOME or HF_HUB_CACHE");
        };
        let cache = std::path::absolute(&cache)
            .map_err(|source| EngineError::Read { path: cache, source })?;
        let endpoint = options.endpoint.clone().or_else(|| variable("HF_ENDPOINT"));
        let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".into());
        Ok(Some(Self {
            id: id.into(),
            revision: revision.into(),
            cache,
            endpoint: endpoint.trim_end_matches('/').into(),
        }))
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.id.clone(), RepoType::Model, self.revision.clone())
    }

    /// The snapshot, if it has all files that loading cannot do without.
    fn cached(&self) -> std::result::Result<PathBuf, Missing> {
        let folder = self.cache.join(self.repo().folder_name());
        let snapshots = folder.join("snapshots");
        let commit = std::fs::read_to_string(folder.join("refs").join(&self.revision)).ok();
        let commit = commit.as_deref().map_or(self.revision.as_str(), str::trim);
        let snapshot = snapshots.join(commit);
        // A damaged reference must not lead out of the cache.
        if commit.is_empty() || !commit.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Missing(vec![self.id.clone()]));
        }
        if !snapshot.is_dir() {
            return Err(Missing(vec![self.id.clone()]));
        }
        let mut missing = Vec::new();
        let mut need = |any: &[&str]| {
            if !any.iter().any(|file| snapshot.join(file).exists()) {
                missing.push(any.join(" or "));
            }
        };
        need(&["config.json"]);
        need(&["tokenizer.json"]);
        need(&[
            "preprocessor_config.json",
            "video_preprocessor_config.json",
            "processor_config.json",
        ]);
        match index_files(&snapshot) {
            // A damaged index is for the loader to tell.
            Err(_) => {}
            Ok(Some(shards)) => {
                for shard in shards {
                    need(&[&shard]);
                }
            }
            Ok(None) => need(&[SINGLE, INDEX]),
        }
        if missing.is_empty() { Ok(snapshot) } else { Err(Missing(missing)) }
    }

    /// Downloads what the cache lacks.
    fn download(&self, missing: &Missing, options: &LoadOptions) -> Result<PathBuf> {
        if variable("HF_HUB_OFFLINE").is_some_and(|v| !matches!(v.as_str(), "0" | "false" | "no")) {
            return Err(self.fault(format!("{missing} and HF_HUB_OFFLINE forbids to download it")));
        }
        // The crate asserts what it expects of a server.
        let fetched = catch_unwind(AssertUnwindSafe(|| self.fetch(options)));
        match fetched {
            Ok(Ok(())) => {}
            Ok(Err(Stop::Cancelled)) => return Err(EngineError::Cancelled),
            Ok(Err(Stop::Failed(reason))) => {
                let endpoint = &self.endpoint;
                let text = format!("{missing} and cannot be downloaded from {endpoint}: {reason}");
                return Err(self.fault(text));
            }
            Err(_) => {
                let text = format!("{} gave an answer that is not the hub's", self.endpoint);
                return Err(self.fault(text));
            }
        }
        self.cached().map_err(|missing| {
            let text = format!("{missing} and {} does not have it", self.endpoint);
            self.fault(text)
        })
    }

    fn fetch(&self, options: &LoadOptions) -> std::result::Result<(), Stop> {
        let cache = Cache::new(self.cache.clone());
        let token = variable("HF_TOKEN").or_else(|| cache.token());
        let repo = ApiBuilder::from_cache(cache)
            .with_endpoint(self.endpoint.clone())
            .with_token(token)
            .with_progress(false)
            .with_retries(2)
            .build()?
            .repo(self.repo());
        let listed = repo.info()?;
        let has = |file: &str| listed.siblings.iter().any(|there| there.rfilename == file);
        let mut wanted: Vec<&str> = FILES.into_iter().filter(|file| has(file)).collect();
        wanted.push(if has(INDEX) { INDEX } else { SINGLE });
        let snapshot = Cache::new(self.cache.clone()).repo(self.repo()).pointer_path(&listed.sha);
        fetch_all(&repo, &snapshot, &wanted, options)?;
        if let Ok(Some(shards)) = index_files(&snapshot) {
            let shards: Vec<_> = shards.iter().map(String::as_str).collect();
            fetch_all(&repo, &snapshot, &shards, options)?;
        }
        Ok(())
    }

    fn fault(&self, what: String) -> EngineError {
        let Self { id, revision, cache, .. } = self;
        EngineError::Hub {
            name: format!("{PREFIX}{id}"),
            reason: format!(
                "{what} ({}). Allow the download (property allow-download), run `hf download {id} \
                 --revision {revision}`, or put config.json, generation_config.json, \
                 tokenizer.json, tokenizer_config.json, the chat template, \
                 preprocessor_config.json and all *.safetensors with their index into a folder and \
                 name that instead",
                cache.display()
            ),
        }
    }
}

/// Downloads the files that the snapshot does not have yet.
fn fetch_all(
    repo: &ApiRepo,
    snapshot: &Path,
    files: &[&str],
    options: &LoadOptions,
) -> std::result::Result<(), Stop> {
    for (index, file) in files.iter().enumerate() {
        options.cancel.check().map_err(|_| Stop::Cancelled)?;
        if snapshot.join(file).exists() {
            continue;
        }
        let at = LoadProgress {
            step: LoadStep::Download,
            file: Arc::from(*file),
            number: index + 1,
            files: files.len(),
            done: 0,
            total: 0,
        };
        repo.download_with_progress(file, Told { options, at })?;
    }
    Ok(())
}

/// Why a download ended early.
enum Stop {
    Cancelled,
    Failed(String),
}

impl From<hf_hub::api::sync::ApiError> for Stop {
    fn from(error: hf_hub::api::sync::ApiError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Passes the progress of one file on.
struct Told<'a> {
    options: &'a LoadOptions,
    at: LoadProgress,
}

impl Told<'_> {
    fn tell(&self) {
        if let Some(report) = &self.options.progress {
            report(&self.at);
        }
    }
}

impl hf_hub::api::Progress for Told<'_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.at.done, self.at.total) = (0, size as u64);
        self.tell();
    }

    fn update(&mut self, size: usize) {
        self.at.done += size as u64;
        self.tell();
    }

    fn finish(&mut self) {}
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where Hugging Face's own tools keep their cache.
fn default_cache() -> Option<PathBuf> {
    if let Some(cache) = variable("HF_HUB_CACHE") {
        return Some(cache.into());
    }
    let home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
        let user = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let user = user.or_else(|| Some(std::env::home_dir()?.join(".cache")));
        Some(user?.join("huggingface"))
    });
    Some(home?.join("hub"))
}
