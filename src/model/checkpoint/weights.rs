// SPDX-License-Identifier: MPL-2.0
//! The weights: memory-mapped safetensors under one set of names.
//!
//! A model is built twice. The first time every tensor it asks for is only noted down, and the
//! notes are compared with the files: what is missing, misshapen or has no place becomes one error
//! before anything is allocated. The second time the tensors are copied out of the mapping, whose
//! pages are given back at once, so that loading needs hardly more memory than the model itself.

pub(crate) mod random;
mod shard;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use parking_lot::Mutex;

use self::shard::{Shard, canonical};
use crate::error::{EngineError, Result};
use crate::model::device::Formats;
use crate::model::files::INDEX;
use crate::model::load::{LoadOptions, LoadProgress, LoadStep};
use crate::model::quantised;

struct Source {
    shard: usize,
    /// As the file spells it.
    name: String,
    shape: Vec<usize>,
    bytes: u64,
    /// `None`: a format that no weight is expected in.
    dtype: Option<DType>,
    stored: safetensors::Dtype,
}

/// All tensors of a checkpoint by canonical name.
pub(crate) struct Weights {
    dir: PathBuf,
    shards: Vec<Shard>,
    sources: HashMap<String, Source>,
}

impl Weights {
    pub fn open(dir: &Path, paths: &[PathBuf]) -> Result<Self> {
        let shards = paths.iter().map(|path| Shard::open(path)).collect::<Result<Vec<_>>>()?;
        let mut sources: HashMap<String, Source> = HashMap::new();
        for (index, shard) in shards.iter().enumerate() {
            for (name, info) in shard.header.tensors() {
                let (from, to) = info.data_offsets;
                let dtype = DType::try_from(info.dtype).ok();
                let source = Source {
                    shard: index,
                    name: name.clone(),
                    shape: info.shape.clone(),
                    bytes: (to - from) as u64,
                    dtype: dtype.filter(|d| matches!(d, DType::F32 | DType::F16 | DType::BF16)),
                    stored: info.dtype,
                };
                if let Some(other) = sources.insert(canonical(&name), source) {
                    let file = &shards[other.shard].name;
                    let reason = format!(
                        "means the same weight as `{}` in {file}; keep one of them",
                        other.name
                    );
                    return Err(shard.fault(&name, reason));
                }
            }
        }
        Ok(Self { dir: dir.to_owned(), shards, sources })
    }

    /// The number format in which the checkpoint stores a tensor.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.sources.get(name)?.dtype
    }

    /// Whether two tensors are both there and are not the same, number by number.
    pub fn differ(&self, one: &str, other: &str) -> Result<bool> {
        let (Some(one), Some(other)) = (self.sources.get(one), self.sources.get(other)) else {
            return Ok(false);
        };
        if (one.stored, &one.shape) != (other.stored, &other.shape) {
            return Ok(true);
        }
        let [first, second] = [one, other].map(|source| &self.shards[source.shard]);
        first.with(&one.name, |_, one| second.with(&other.name, |_, other| one != other))?
    }

    /// Builds something from the weights, after they have been found to be exactly what it asks
    /// for; and how many bytes they take. `build` gets the root of the canonical names and runs
    /// twice; tensors that `unread` knows may be there without being asked for.
    ///
    /// # Errors
    /// One that names everything missing, misshapen, of an unknown number format or without a
    /// place.
    pub fn build<T>(
        self,
        formats: Formats,
        device: &Device,
        options: &LoadOptions,
        unread: impl Fn(&str) -> bool,
        build: impl Fn(VarBuilder<'static>) -> Result<T>,
    ) -> Result<(T, u64)> {
        let weights = Arc::new(self);
        let root = |backend: Box<dyn SimpleBackend>, device: &Device| {
            VarBuilder::from_backend(backend, formats.flow, device.clone())
        };

        let plan = Arc::new(Plan::new(weights.clone()));
        let planned = build(root(Box::new(PlanBackend(plan.clone())), &Device::Cpu));
        plan.compare(planned.is_ok(), unread)?;
        drop(planned?);

        let bytes = |name: &String| weights.sources.get(name).map_or(0, |source| source.bytes);
        let total = plan.wanted.lock().keys().map(bytes).sum();
        let loader = Arc::new(Loader {
            weights: weights.clone(),
            formats,
            total,
            options: options.clone(),
            state: Mutex::default(),
        });
        let built = build(root(Box::new(LoadBackend(loader.clone())), device));
        // candle's error type cannot carry ours; the loader kept it.
        let (fault, held) = {
            let mut state = loader.state.lock();
            (state.fault.take(), state.held)
        };
        match fault {
            Some(fault) => Err(fault),
            None => Ok((built?, held)),
        }
    }
}

/// What a model asks for, noted down without loading anything.
struct Plan {
    weights: Arc<Weights>,
    /// Elements of the largest tensor there is.
    largest: usize,
    wanted: Mutex<BTreeMap<String, Shape>>,
}

impl Plan {
    fn new(weights: Arc<Weights>) -> Self {
        let elements = |source: &Source| source.shape.iter().product();
        let largest = weights.sources.values().map(elements).max().unwrap_or(0);
        Self { weights, largest, wanted: Mutex::default() }
    }

    /// A stand-in of the shape wanted that takes no memory.
    fn note(&self, shape: Shape, name: &str) -> candle_core::Result<Tensor> {
        let elements = shape.elem_count();
        self.wanted.lock().insert(name.to_owned(), shape.clone());
        // Cannot be there; and the model may make a copy of it.
        if elements > self.largest {
            candle_core::bail!("`{name}` is larger than every tensor of the checkpoint")
        }
        Tensor::zeros((), DType::F32, &Device::Cpu)?.broadcast_as(shape)
    }

    /// One error for everything in which the files differ from the notes. Tensors without a place
    /// are known only once the notes are `complete`.
    fn compare(&self, complete: bool, unread: impl Fn(&str) -> bool) -> Result<()> {
        let Weights { dir, shards, sources } = &*self.weights;
        let wanted = self.wanted.lock();
        let mut missing = Vec::new();
        let mut faults = Vec::new();
        for (name, shape) in wanted.iter() {
            let Some(source) = sources.get(name) else {
                missing.push(name.as_str());
                continue;
            };
            let (name, file) = (&source.name, &shards[source.shard].name);
            if source.shape != shape.dims() {
                let (found, expected) = (&source.shape, shape.dims());
                faults.push(format!(
                    "`{name}` in {file} has shape {found:?}, config.json calls for {expected:?}"
                ));
            } else if source.dtype.is_none() {
                let stored = source.stored;
                faults.push(format!(
                    "`{name}` in {file} is stored as {stored:?}; supported: F32, F16, BF16"
                ));
            }
        }
        let mut extra: Vec<_> = if complete { sources.iter().collect() } else { Vec::new() };
        extra.retain(|(name, _)| !wanted.contains_key(*name) && !unread(name));
        let mut extra: Vec<_> = extra.iter().map(|(_, source)| source.name.as_str()).collect();
        extra.sort_unstable();

        let mut parts = Vec::new();
        if !missing.is_empty() {
            let file = if let [shard] = shards.as_slice() { &shard.name } else { INDEX };
            parts.push(format!("missing from {file}: {}", listed(&missing)));
        }
        if faults.len() > LISTED {
            let more = faults.len() - LISTED;
            faults.truncate(LISTED);
            faults.push(format!("{more} more like these"));
        }
        parts.extend(faults);
        if !extra.is_empty() {
            parts.push(format!("config.json has no place for {}", listed(&extra)));
        }
        if parts.is_empty() {
            return Ok(());
        }
        Err(EngineError::Checkpoint {
            path: dir.clone(),
            reason: format!(
                "the weights are not those of the model in config.json: {}. Either a file is \
                 incomplete or one of them belongs to another model",
                parts.join("; ")
            ),
        })
    }
}

/// So many names are spelled out in an error.
const LISTED: usize = 8;

fn listed(names: &[&str]) -> String {
    let mut text =
        names.iter().take(LISTED).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        text += &format!(" and {} more", names.len() - LISTED);
    }
    text
}

struct PlanBackend(Arc<Plan>);

impl SimpleBackend for PlanBackend {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        _: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        self.0.note(shape, name)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        let shape = match self.0.weights.sources.get(name) {
            Some(source) => source.shape.clone().into(),
            None => Shape::from(0),
        };
        self.0.note(shape, name)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.weights.sources.contains_key(name)
    }
}

#[derive(Default)]
struct State {
    done: u64,
    /// Bytes of what was handed out.
    held: u64,
    fault: Option<EngineError>,
}

struct Loader {
    weights: Arc<Weights>,
    formats: Formats,
    total: u64,
    options: LoadOptions,
    state: Mutex<State>,
}

impl Loader {
    fn load(&self, wanted: &str, device: &Device) -> Result<Tensor> {
        self.options.cancel.check()?;
        let Weights { dir, shards, sources } = &*self.weights;
        let eight_bits = quantised::name_of(wanted);
        let name = eight_bits.unwrap_or(wanted);
        let Some(source) = sources.get(name) else {
            let reason = "was not planned for".into();
            return Err(EngineError::Tensor { path: dir.clone(), name: name.into(), reason });
        };
        let shard = &shards[source.shard];
        let tensor = shard.load(&source.name, self.formats.of(source.shape.len()), device)?;
        let tensor = match eight_bits {
            Some(_) => quantised::quantised(&tensor).map_err(|e| shard.fault(&source.name, e))?,
            None => tensor,
        };
        let done = {
            let mut state = self.state.lock();
            state.done += source.bytes;
            state.held += (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
            state.done
        };
        if let Some(report) = &self.options.progress {
            report(&LoadProgress {
                step: LoadStep::Read,
                file: shard.name.clone(),
                number: source.shard + 1,
                files: shards.len(),
                done,
                total: self.total,
            });
        }
        Ok(tensor)
    }
}

struct LoadBackend(Arc<Loader>);

impl SimpleBackend for LoadBackend {
    fn get(
        &self,
        _: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.get_unchecked(name, dtype, device)
    }

    fn get_unchecked(&self, name: &str, _: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.0.load(name, device).map_err(|fault| {
            let message = fault.to_string();
            self.0.state.lock().fault.get_or_insert(fault);
            candle_core::Error::msg(message)
        })
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.formats.have(name, |name| self.0.weights.sources.contains_key(name))
    }
}
