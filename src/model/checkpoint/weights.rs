// SPDX-License-Identifier: MPL-2.0
//! The weights: memory-mapped safetensors under one set of names.
//!
//! A model is built twice. The first time every tensor it asks for is only noted down, and the
//! notes are compared with the files: what is missing, misshapen or has no place becomes one error
//! before anything is allocated. The second time the tensors are copied out of the mapping, whose
//! pages are given back at once, so that loading needs hardly more memory than the model itself.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use memmap2::{Mmap, UncheckedAdvice};
use parking_lot::Mutex;
use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use serde::Deserialize;

use super::read_optional;
use crate::error::{EngineError, Result};
use crate::model::device::Formats;
use crate::model::{LoadOptions, LoadProgress, LoadStep};

pub(crate) const INDEX: &str = "model.safetensors.index.json";
pub(crate) const SINGLE: &str = "model.safetensors";
/// The format's own limit on a header.
const MAX_HEADER_BYTES: usize = 100_000_000;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The names of the files of a sharded checkpoint; `None` if the folder has no index.
pub(crate) fn index_files(dir: &Path) -> Result<Option<Vec<String>>> {
    let index = dir.join(INDEX);
    let Some(Index { weight_map }) = read_optional(&index)? else { return Ok(None) };
    let fault = |reason: String| Err(EngineError::Checkpoint { path: index.clone(), reason });
    let mut names: Vec<_> = weight_map.into_values().collect();
    names.sort();
    names.dedup();
    // A shard lies in the folder itself: a path that leads elsewhere is not followed.
    if let Some(name) =
        names.iter().find(|n| Path::new(n).components().count() != 1 || n.starts_with('.'))
    {
        return fault(format!("`{name}` is not the name of a file in this folder"));
    }
    if names.is_empty() {
        return fault("the weight map is empty".into());
    }
    Ok(Some(names))
}

/// The folder's safetensors files, by the index or the usual name.
pub(crate) fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    if let Some(names) = index_files(dir)? {
        return Ok(names.into_iter().map(|name| dir.join(name)).collect());
    }
    let single = dir.join(SINGLE);
    if single.exists() {
        return Ok(vec![single]);
    }
    Err(EngineError::Checkpoint {
        path: dir.to_owned(),
        reason: format!(
            "no weights; expected {SINGLE} or {INDEX} (PyTorch .bin files are not read)"
        ),
    })
}

/// The name under which the model asks for a tensor of any spelling: the module tree of
/// transformers 4.52 and later (`model.language_model.layers...`, `model.visual...`), the published
/// checkpoints' (`language_model.model.layers...`, `vision_tower.vision_model...` of
/// LLaVA-OneVision, `model.layers...` of Qwen2.5-VL) and what transformers 5 saves
/// (`vision_tower.encoder...`).
fn canonical(name: &str) -> String {
    let name = match name.strip_prefix("model.") {
        Some(rest)
            if [
                "language_model.",
                "vision_tower.",
                "multi_modal_projector.",
                "image_newline",
                "visual.",
            ]
            .iter()
            .any(|part| rest.starts_with(part)) =>
        {
            rest
        }
        _ => name,
    };
    for (from, to) in [
        ("language_model.model.", "language_model."),
        ("model.", "language_model."),
        ("language_model.lm_head.", "lm_head."),
        ("vision_tower.vision_model.", "vision_tower."),
    ] {
        if let Some(rest) = name.strip_prefix(from) {
            return format!("{to}{rest}");
        }
    }
    name.to_owned()
}

/// One mapped safetensors file.
struct Shard {
    path: PathBuf,
    name: Arc<str>,
    map: Mmap,
    /// Where the data begins.
    start: usize,
    header: Metadata,
}

impl Shard {
    fn open(path: &Path) -> Result<Self> {
        let read = |source| EngineError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(read)?;
        // SAFETY: the mapping is read while the model loads and dropped with it. That nobody
        // shortens the file during that time is what every user of memory-mapped weights has to
        // assume.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        let (start, header) = header(&map).map_err(|reason| EngineError::Checkpoint {
            path: path.to_owned(),
            reason: format!(
                "not a complete safetensors file ({} bytes): {reason}; a download that broke off \
                 looks like this, fetch the file again",
                map.len()
            ),
        })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into();
        Ok(Self { path: path.to_owned(), name, map, start, header })
    }

    fn fault(&self, name: &str, reason: impl ToString) -> EngineError {
        EngineError::Tensor {
            path: self.path.clone(),
            name: name.into(),
            reason: reason.to_string(),
        }
    }

    /// A copy of one tensor in the number format and on the device wanted.
    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(TensorInfo { dtype: stored, shape, data_offsets: (from, to) }) =
            self.header.info(name)
        else {
            return Err(self.fault(name, "is not in this file"));
        };
        let (start, end) = (self.start + from, self.start + to);
        let bytes = self.map.get(start..end).ok_or_else(|| self.fault(name, "is cut off"))?;
        let view = TensorView::new(*stored, shape.clone(), bytes);
        let view = view.map_err(|e| self.fault(name, e))?;
        let tensor = view.load(device).and_then(|t| t.to_dtype(dtype));
        self.release(start, end - start);
        tensor.map_err(|e| self.fault(name, e))
    }

    /// Gives back the pages of what has been copied; they would count as ours until the end.
    fn release(&self, offset: usize, length: usize) {
        // SAFETY: the mapping is read-only and backed by a file, so that dropped pages come back
        // unchanged when they are touched again, as those shared with a neighbour are. Failing is
        // harmless.
        let _ =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, length) };
    }
}

/// Where the data begins, and what it is. Everything in the header has been checked against the
/// length of the file.
fn header(bytes: &[u8]) -> std::result::Result<(usize, Metadata), String> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Err("it ends within the first 8 bytes".into());
    };
    let length = u64::from_le_bytes(*length);
    let (header, data) = usize::try_from(length)
        .ok()
        .filter(|&length| length <= MAX_HEADER_BYTES)
        .and_then(|length| rest.split_at_checked(length))
        .ok_or_else(|| format!("it claims a header of {length} bytes"))?;
    // Reading it checks that the tensors follow each other and are as long as their shapes say.
    let metadata: Metadata = serde_json::from_slice(header).map_err(|e| format!("header: {e}"))?;
    if metadata.data_len() != data.len() {
        let (expected, found) = (metadata.data_len(), data.len());
        return Err(format!("it should hold {expected} bytes of tensors and holds {found}"));
    }
    Ok((bytes.len() - data.len(), metadata))
}

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
        match loader.state.lock().fault.take() {
            Some(fault) => Err(fault),
            None => Ok((built?, plan.held(formats))),
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
    fn note(&self, shape: Shape, name: &str, dtype: DType) -> candle_core::Result<Tensor> {
        let elements = shape.elem_count();
        self.wanted.lock().insert(name.to_owned(), shape.clone());
        // Cannot be there; and the model may make a copy of it.
        if elements > self.largest {
            candle_core::bail!("`{name}` is larger than every tensor of the checkpoint")
        }
        Tensor::zeros((), dtype, &Device::Cpu)?.broadcast_as(shape)
    }

    /// Bytes of everything asked for, in the number formats it is held in.
    fn held(&self, formats: Formats) -> u64 {
        let bytes = |shape: &Shape| shape.elem_count() * formats.of(shape.rank()).size_in_bytes();
        self.wanted.lock().values().map(|shape| bytes(shape) as u64).sum()
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
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        self.0.note(shape, name, dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> candle_core::Result<Tensor> {
        let shape = match self.0.weights.sources.get(name) {
            Some(source) => source.shape.clone().into(),
            None => Shape::from(0),
        };
        self.0.note(shape, name, dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.weights.sources.contains_key(name)
    }
}

#[derive(Default)]
struct State {
    done: u64,
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
    fn load(&self, name: &str, device: &Device) -> Result<Tensor> {
        self.options.cancel.check()?;
        let Weights { dir, shards, sources } = &*self.weights;
        let Some(source) = sources.get(name) else {
            let reason = "was not planned for".into();
            return Err(EngineError::Tensor { path: dir.clone(), name: name.into(), reason });
        };
        let shard = &shards[source.shard];
        let tensor = shard.load(&source.name, self.formats.of(source.shape.len()), device)?;
        let done = {
            let mut state = self.state.lock();
            state.done += source.bytes;
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
        self.0.weights.sources.contains_key(name)
    }
}
#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn all_spellings_of_a_weight_are_one_name() {
        for name in [
            "language_model.model.layers.3.mlp.up_proj.weight",
            "model.language_model.layers.3.mlp.up_proj.weight",
            "model.layers.3.mlp.up_proj.weight",
        ] {
            assert_eq!(canonical(name), "language_model.layers.3.mlp.up_proj.weight");
        }
        for name in [
            "vision_tower.vision_model.encoder.layers.0.layer_norm1.bias",
            "vision_tower.encoder.layers.0.layer_norm1.bias",
            "model.vision_tower.vision_model.encoder.layers.0.layer_norm1.bias",
        ] {
            assert_eq!(canonical(name), "vision_tower.encoder.layers.0.layer_norm1.bias");
        }
        for name in ["language_model.lm_head.weight", "lm_head.weight"] {
            assert_eq!(canonical(name), "lm_head.weight");
        }
        for name in ["visual.merger.ln_q.weight", "model.visual.merger.ln_q.weight"] {
            assert_eq!(canonical(name), "visual.merger.ln_q.weight");
        }
        for name in ["image_newline", "model.image_newline"] {
            assert_eq!(canonical(name), "image_newline");
        }
    }
}
