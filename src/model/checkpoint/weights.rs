// SPDX-License-Identifier: MPL-2.0
//! The weights: memory-mapped safetensors under one set of names, each tensor checked against the
//! shape the config calls for before it is copied.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::safetensors::{Load, MmapedSafetensors};
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use parking_lot::Mutex;
use serde::Deserialize;

use super::read_optional;
use crate::error::{EngineError, Result};
use crate::model::{LoadOptions, LoadProgress};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The folder's safetensors files, by the index or the usual name.
pub(super) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let index = dir.join(INDEX);
    let fault = |path: &Path, reason: String| {
        Err(EngineError::Checkpoint { path: path.to_owned(), reason })
    };
    if let Some(Index { weight_map }) = read_optional(&index)? {
        let mut names: Vec<_> = weight_map.into_values().collect();
        names.sort();
        names.dedup();
        // A shard lies in the folder itself: a path that leads elsewhere is not followed.
        if let Some(name) =
            names.iter().find(|n| Path::new(n).components().count() != 1 || n.starts_with('.'))
        {
            return fault(&index, format!("`{name}` is not the name of a file in this folder"));
        }
        if names.is_empty() {
            return fault(&index, "the weight map is empty".into());
        }
        return Ok(names.into_iter().map(|name| dir.join(name)).collect());
    }
    let single = dir.join(SINGLE);
    if single.exists() {
        return Ok(vec![single]);
    }
    fault(
        dir,
        format!("no weights; expected {SINGLE} or {INDEX} (PyTorch .bin files are not read)"),
    )
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

/// Parts of a checkpoint that LLaVA-OneVision carries and does not use.
const UNUSED: [&str; 3] = ["vision_tower.post_layernorm.", "vision_tower.head.", "lm_head."];

struct Source {
    file: usize,
    name: String,
}

/// All tensors of a checkpoint by canonical name.
pub(crate) struct Weights {
    paths: Vec<PathBuf>,
    files: Vec<MmapedSafetensors>,
    sources: HashMap<String, Source>,
    total: u64,
}

impl Weights {
    pub fn open(paths: Vec<PathBuf>) -> Result<Self> {
        let mut files = Vec::with_capacity(paths.len());
        let mut sources = HashMap::new();
        let mut total = 0u64;
        for (index, path) in paths.iter().enumerate() {
            let file = map(path)?;
            for (name, view) in file.tensors() {
                total = total.saturating_add(view.data().len() as u64);
                let source = Source { file: index, name: name.clone() };
                if let Some(other) = sources.insert(canonical(&name), source) {
                    return Err(EngineError::Tensor {
                        path: path.clone(),
                        reason: format!(
                            "means the same weight as `{}` in {}; keep one of them",
                            other.name,
                            paths[other.file].display()
                        ),
                        name,
                    });
                }
            }
            files.push(file);
        }
        Ok(Self { paths, files, sources, total })
    }

    pub fn contains(&self, name: &str) -> bool {
        self.sources.contains_key(name)
    }

    /// The number format in which the checkpoint stores a tensor.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        let source = self.sources.get(name)?;
        self.files.get(source.file)?.get(&source.name).ok()?.dtype().try_into().ok()
    }

    /// Builds something from the weights. `build` gets the root of the canonical names; its errors
    /// come out as the engine's, with file and tensor.
    pub fn build<T>(
        self,
        dtype: DType,
        device: &Device,
        options: &LoadOptions,
        build: impl FnOnce(VarBuilder<'static>) -> Result<T>,
    ) -> Result<(T, Vec<String>)> {
        let shared = Arc::new(Loader {
            weights: self,
            options: options.clone(),
            state: Mutex::new(State::default()),
        });
        let vb = VarBuilder::from_backend(Box::new(Backend(shared.clone())), dtype, device.clone());
        let built = build(vb);
        let mut state = shared.state.lock();
        match (built, state.fault.take()) {
            // candle's error type cannot carry ours; the loader kept it.
            (_, Some(fault)) => Err(fault),
            (Err(e), None) => Err(e),
            (Ok(built), None) => {
                let unused = |name: &&String| {
                    !state.used.contains(*name) && !UNUSED.iter().any(|part| name.starts_with(part))
                };
                let mut unused: Vec<_> =
                    shared.weights.sources.keys().filter(unused).cloned().collect();
                unused.sort();
                Ok((built, unused))
            }
        }
    }

    fn load(
        &self,
        wanted: Option<&Shape>,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> Result<(Tensor, u64)> {
        let Some(source) = self.sources.get(name) else {
            let path = match self.paths.as_slice() {
                [one] => one.clone(),
                [first, ..] => first.with_file_name(INDEX),
                [] => PathBuf::new(),
            };
            return Err(EngineError::Tensor {
                path,
                name: name.into(),
                reason: "missing; the checkpoint is incomplete or config.json belongs to another \
                         model"
                    .into(),
            });
        };
        let fault = |reason: String| EngineError::Tensor {
            path: self.paths[source.file].clone(),
            name: source.name.clone(),
            reason,
        };
        let view = self.files[source.file].get(&source.name).map_err(|e| fault(e.to_string()))?;
        if let Some(wanted) = wanted
            && view.shape() != wanted.dims()
        {
            return Err(fault(format!(
                "has shape {:?}; config.json calls for {:?}",
                view.shape(),
                wanted.dims()
            )));
        }
        let bytes = view.data().len() as u64;
        let stored = DType::try_from(view.dtype()).ok();
        if !matches!(stored, Some(DType::F32 | DType::F16 | DType::BF16)) {
            return Err(fault(format!(
                "is stored as {:?}; supported: F32, F16, BF16",
                view.dtype()
            )));
        }
        let tensor = view.load(device).and_then(|t| t.to_dtype(dtype));
        Ok((tensor.map_err(|e| fault(e.to_string()))?, bytes))
    }
}

fn map(path: &Path) -> Result<MmapedSafetensors> {
    let length = match std::fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(source) => return Err(EngineError::Read { path: path.to_owned(), source }),
    };
    // SAFETY: the mapping is read while the model loads and dropped with it. That nobody shortens
    // the file during that time is what every user of memory-mapped weights has to assume.
    let mapped = unsafe { MmapedSafetensors::new(path) };
    mapped.map_err(|e| EngineError::Checkpoint {
        path: path.to_owned(),
        reason: format!(
            "not a complete safetensors file ({length} bytes): {}; a download that broke off \
             looks like this, fetch the file again",
            reason(&e)
        ),
    })
}

/// The innermost message, without candle's wrapping of the path that ours already names.
fn reason(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithPath { inner, .. }
        | candle_core::Error::WithBacktrace { inner, .. } => reason(inner),
        other => other.to_string(),
    }
}

#[derive(Default)]
struct State {
    done: u64,
    used: HashSet<String>,
    fault: Option<EngineError>,
}

struct Loader {
    weights: Weights,
    options: LoadOptions,
    state: Mutex<State>,
}

impl Loader {
    fn get(
        &self,
        wanted: Option<&Shape>,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let loaded = self
            .options
            .cancel
            .check()
            .and_then(|()| self.weights.load(wanted, name, dtype, device));
        let mut state = self.state.lock();
        match loaded {
            Ok((tensor, bytes)) => {
                state.used.insert(name.to_owned());
                state.done = state.done.saturating_add(bytes);
                let progress = LoadProgress { done: state.done, total: self.weights.total };
                drop(state);
                if let Some(report) = &self.options.progress {
                    report(progress);
                }
                Ok(tensor)
            }
            Err(fault) => {
                let message = fault.to_string();
                state.fault.get_or_insert(fault);
                Err(candle_core::Error::msg(message))
            }
        }
    }
}

struct Backend(Arc<Loader>);

impl SimpleBackend for Backend {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.0.get(Some(&shape), name, dtype, device)
    }

    fn get_unchecked(
        &self,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.0.get(None, name, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.weights.contains(name)
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
