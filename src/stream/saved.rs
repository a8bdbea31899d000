// SPDX-License-Identifier: MPL-2.0
//! A stream that survives: its memory in a file, and back from there.
//!
//! The open segment, frames that wait for the rest of their unit, windows and what is resident are all part
//! of it, so an answer after [`Stream::load`] is the one that came before [`Stream::save`]. Caches are
//! not: the first frame afterwards goes through the tower as a whole, and is never left out as one that shows
//! nothing new.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Stream, StreamOptions};
use crate::error::{EngineError, Result};
use crate::frame::Frame;
use crate::memory::recipe::{EXTERNAL_MODEL, Recipe};
use crate::model::VideoLlm;
use crate::model::vision::Picture;
use crate::snapshot::{Reader, Snapshot};

/// Whose memory it is.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Origin {
    /// What wrote it.
    version: String,
    /// Where the model lay; what it is, `model` says.
    folder: String,
    model: String,
    /// What keys and values are computed in.
    dtype: String,
    method: String,
    options: Vec<(String, String)>,
    /// What an outside model is that ranks too.
    outside: Option<String>,
    /// The ids in front of the video.
    opening: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct State {
    frames: u64,
    skipped: u64,
    reused: u64,
    changes: u64,
    last_mean: Vec<f32>,
    picture: Option<Picture>,
    pending: usize,
}

#[derive(Serialize, Deserialize)]
struct Pending {
    width: usize,
    height: usize,
    shape: (usize, usize),
    time: f64,
}

impl Stream {
    /// What is remembered now, to be written at any later moment and on any thread: taking it costs
    /// milliseconds, whatever the disk does.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.snapshot_with(())
    }

    /// The same with something beside it that [`restore_with`](Self::restore_with) gives back.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn snapshot_with(&self, beside: impl Serialize + Send + 'static) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        snapshot.value(self.origin()?);
        snapshot.value(State {
            frames: self.frames,
            skipped: self.sieve.total(),
            reused: self.reuse.total(),
            changes: self.changes.total(),
            last_mean: self.changes.last().to_vec(),
            picture: self.picture,
            pending: self.pending.len(),
        });
        for frame in &self.pending {
            let frame = frame.clone();
            let (width, height, shape) = (frame.width(), frame.height(), frame.shape());
            let head = Pending { width, height, shape, time: frame.time() };
            snapshot.add(move |out| out.record(&head, frame.rgb()));
        }
        self.segmenter.save(&mut snapshot);
        self.memory.save(&mut snapshot)?;
        snapshot.value(beside);
        Ok(snapshot)
    }

    /// Writes what is remembered to a file, in the place of the one that is there: whoever is killed
    /// meanwhile leaves the old one. How many bytes it takes.
    ///
    /// # Errors
    /// [`EngineError::Snapshot`] where it cannot be written, or what the computation fails with.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<u64> {
        self.snapshot()?.write(path.as_ref())
    }

    /// A stream that goes on where the one was that was saved.
    ///
    /// # Errors
    /// As [`Stream::open`] and [`restore`](Self::restore).
    pub fn load(
        model: VideoLlm,
        recipe: Recipe,
        options: StreamOptions,
        path: impl AsRef<Path>,
    ) -> Result<Self> {
        let mut stream = Self::open(model, recipe, options)?;
        stream.restore(path)?;
        Ok(stream)
    }

    /// Lets a stream that has seen nothing go on where another was, of the same model and method. How much
    /// it may hold, and where, may be different.
    ///
    /// # Errors
    /// [`EngineError::Snapshot`] for a file that is damaged or of another model, method or format, and
    /// [`EngineError::Read`] for one that cannot be read; the file and the stream are as they were.
    pub fn restore(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.restore_with::<()>(path).map(drop)
    }

    /// The same, and what was put beside it; `None` if that was something else.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub fn restore_with<T: DeserializeOwned>(
        &mut self,
        path: impl AsRef<Path>,
    ) -> Result<Option<T>> {
        let mut from = Reader::open(path.as_ref())?;
        let own = self.origin()?;
        if let Some(difference) = from.value::<Origin>()?.differs(&own) {
            return Err(from.refuse(difference));
        }
        if self.stats().frames > 0 {
            return Err(from.refuse("cannot be read into a stream that has seen frames".into()));
        }
        let restored = self.take_up(from);
        if restored.is_err() {
            self.clear()?;
        }
        restored
    }

    fn take_up<T: DeserializeOwned>(&mut self, mut from: Reader) -> Result<Option<T>> {
        let state: State = from.value()?;
        let mut pending = Vec::new();
        for _ in 0..state.pending {
            let (Pending { width, height, shape, time }, rgb) = from.record()?;
            let frame = Frame::new(rgb, width, height, time);
            let frame = frame.and_then(|frame| frame.shown_as(shape.0, shape.1));
            pending.push(frame.map_err(|_| from.damage("another frame than expected"))?);
        }
        self.segmenter.restore(&mut from, self.model.device())?;
        self.memory.restore(&mut from)?;
        let beside: ciborium::Value = from.value()?;
        from.end()?;
        self.frames = state.frames;
        self.sieve.resume(state.skipped);
        self.reuse.resume(state.reused);
        self.changes.resume(state.last_mean, state.changes);
        (self.picture, self.pending) = (state.picture, pending);
        *self.branch.get_mut() = None;
        Ok(beside.deserialized().ok())
    }

    /// Seconds of stream time up to which anything is remembered.
    pub fn end(&self) -> Option<f64> {
        let units = self.memory.units().next_back().map(|unit| unit.end);
        let open = self.segmenter.open_frames().last().map(|frame| frame.end);
        let pending = self.pending.last().map(Frame::time);
        [units, open, pending].into_iter().flatten().max_by(f64::total_cmp)
    }

    fn origin(&self) -> Result<Origin> {
        // Where a model lies is not what it is.
        let options = self.recipe.options().into_iter();
        let options = options.filter(|option| option.name != EXTERNAL_MODEL);
        let outside = self.outside.as_ref().map(|outside| outside.fingerprint());
        Ok(Origin {
            version: env!("CARGO_PKG_VERSION").into(),
            folder: self.model.folder().display().to_string(),
            model: self.model.fingerprint()?.into(),
            dtype: self.model.dtype().as_str().into(),
            method: self.recipe.name().into(),
            options: options.map(|option| (option.name.to_owned(), option.value)).collect(),
            outside: outside.transpose()?.map(str::to_owned),
            opening: self.opening.clone().unwrap_or_default(),
        })
    }
}

impl Origin {
    /// Why a memory of this origin is of no use to `own`, and what to do.
    fn differs(&self, own: &Self) -> Option<String> {
        let or = "or name another file; this one stays as it is";
        if self.model != own.model {
            return Some(format!(
                "is of another model: of the one that was in {} then ({}), and the one in {} is not the same \
                 ({}). Set model-path to that one, {or}",
                self.folder, self.model, own.folder, own.model
            ));
        }
        if self.dtype != own.dtype {
            return Some(format!(
                "holds numbers in {}, and the model computes in {}: set dtype={}, {or}",
                self.dtype, own.dtype, self.dtype
            ));
        }
        if self.method != own.method {
            return Some(format!(
                "is of method {}, and this is {}: set method={}, {or}",
                self.method, own.method, self.method
            ));
        }
        if self.options != own.options {
            let other = self.options.iter().filter(|option| !own.options.contains(option));
            let other: Vec<String> = other.map(|(name, value)| format!("{name}={value}")).collect();
            let other = match other.is_empty() {
                true => "without some of the options of".into(),
                false => other.join(","),
            };
            return Some(format!(
                "is of method {} with other options: set method-options={other}, {or}",
                self.method
            ));
        }
        if self.outside != own.outside {
            return Some(format!(
                "is of another text-image model (method option external-model): name the one that it is of, {or}"
            ));
        }
        (self.opening != own.opening).then(|| {
            format!(
                "begins with other words in front of the video: set system-prompt, prompt-style and \
                 mrope-compat as they were, {or}"
            )
        })
    }
}

/// What the types promise to whoever writes on a thread of its own.
const _: fn() = || {
    fn is_send<T: Send + 'static>() {}
    is_send::<Snapshot>();
    is_send::<EngineError>();
};
