// SPDX-License-Identifier: MPL-2.0
//! One memory-mapped safetensors file, and one name for every spelling of a weight.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::tensor::{Metadata, TensorInfo, TensorView};

use crate::error::{EngineError, Result};

/// The format's own limit on a header.
const MAX_HEADER_BYTES: usize = 100_000_000;

/// The name under which the model asks for a tensor of any spelling: the module tree of
/// transformers 4.52 and later (`model.language_model.layers...`, `model.visual...`), the published
/// checkpoints' (`language_model.model.layers...`, `vision_tower.vision_model...` of
/// LLaVA-OneVision, `model.layers...` of Qwen2-VL and Qwen2.5-VL) and what transformers 5 saves
/// (`vision_tower.encoder...`).
pub(super) fn canonical(name: &str) -> String {
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
pub(super) struct Shard {
    path: PathBuf,
    pub name: Arc<str>,
    map: Mmap,
    /// Where the data begins.
    start: usize,
    pub header: Metadata,
}

impl Shard {
    pub fn open(path: &Path) -> Result<Self> {
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

    pub fn fault(&self, name: &str, reason: impl ToString) -> EngineError {
        EngineError::Tensor {
            path: self.path.clone(),
            name: name.into(),
            reason: reason.to_string(),
        }
    }

    /// A copy of one tensor in the number format and on the device wanted.
    pub fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor = self.with(name, |info, bytes| {
            let view = TensorView::new(info.dtype, info.shape.clone(), bytes);
            let view = view.map_err(|e| self.fault(name, e))?;
            let tensor = view.load(device).and_then(|t| t.to_dtype(dtype));
            tensor.map_err(|e| self.fault(name, e))
        });
        tensor?
    }

    /// Does something with the bytes of one tensor.
    pub fn with<T>(&self, name: &str, what: impl FnOnce(&TensorInfo, &[u8]) -> T) -> Result<T> {
        let Some(info) = self.header.info(name) else {
            return Err(self.fault(name, "is not in this file"));
        };
        let (from, to) = info.data_offsets;
        let (start, end) = (self.start + from, self.start + to);
        let bytes = self.map.get(start..end).ok_or_else(|| self.fault(name, "is cut off"))?;
        let done = what(info, bytes);
        self.release(start, end - start);
        Ok(done)
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
