// SPDX-License-Identifier: MPL-2.0
//! Running a Video-LLM checkpoint: frames in, tokens of the decoder's width out, and a decoder
//! that leaves its attention to the caller.
//!
//! [`VideoLlm::load`] reads a Hugging Face folder of LLaVA-OneVision (SigLIP and Qwen2). Nothing
//! here knows how a stream is remembered; see [`decoder::Attend`] for the seam.

pub mod attention;
pub mod checkpoint;
pub mod decoder;
mod device;
pub mod generate;
pub mod preprocess;
pub mod prompt;
pub mod rope;
pub mod vision;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::frame::Frame;
pub use checkpoint::Recommendations;
use checkpoint::{Checkpoint, Weights};
use decoder::Decoder;
use preprocess::Preprocessor;
use prompt::Prompts;
use vision::projector::Projector;
use vision::siglip::Siglip;

/// Which device runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The first CUDA device if this build and machine have one, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

/// In which number format the weights are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DTypeChoice {
    /// f32 on the CPU; the checkpoint's own on a GPU.
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
}

/// How far loading has come: `done` of `total` bytes of weights.
#[derive(Clone, Copy, Debug)]
pub struct LoadProgress {
    pub done: u64,
    pub total: u64,
}

#[derive(Clone, Default)]
pub struct LoadOptions {
    pub device: DeviceChoice,
    pub dtype: DTypeChoice,
    /// Called from the loading thread after every tensor.
    pub progress: Option<Arc<dyn Fn(LoadProgress) + Send + Sync>>,
    pub cancel: Cancel,
}

/// A loaded Video-LLM. Cloning shares the weights.
#[derive(Clone)]
pub struct VideoLlm(Arc<Parts>);

struct Parts {
    preprocessor: Preprocessor,
    tower: Siglip,
    projector: Projector,
    image_newline: Tensor,
    decoder: Decoder,
    prompts: Prompts,
    recommendations: Recommendations,
    unused: Vec<String>,
    device: Device,
    dtype: DType,
}

/// Patches per batch through the vision tower: enough to keep the threads busy, few enough that
/// the widest activation of a large tower stays below 100 MB.
const BATCH_PATCHES: usize = 4096;

impl VideoLlm {
    /// Reads a Hugging Face model folder.
    ///
    /// # Errors
    /// What is wrong with the folder, by file and tensor; [`Device`](crate::EngineError::Device) if
    /// the device is not there; [`Cancelled`](crate::EngineError::Cancelled) between two tensors.
    pub fn load(dir: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let checkpoint = Checkpoint::open(dir.as_ref())?;
        let config = checkpoint.config();
        let preprocessor = Preprocessor::new(&checkpoint.processor()?);
        let recommendations = checkpoint.recommendations()?;
        let prompts = Prompts::new(&checkpoint)?;
        let device = device::open(options.device)?;
        let weights = Weights::open(checkpoint.weight_files()?)?;
        let stored = weights.dtype("language_model.embed_tokens.weight");
        let dtype = device::dtype(options.dtype, &device, stored);
        // A tied checkpoint may carry a copy of the head; an untied one must have it.
        let (mut parts, unused) = weights.build(dtype, &device, options, |vb| {
            let tower = Siglip::new(&config.vision, &config.feature_layers, vb.pp("vision_tower"))?;
            let projector = Projector::new(config, vb.pp("multi_modal_projector"))?;
            let newline = vb.get(config.text.hidden_size, "image_newline")?;
            let head = (!config.tied).then(|| vb.pp("lm_head"));
            let decoder = Decoder::new(&config.text, vb.pp("language_model"), head)?;
            Ok(Parts {
                preprocessor,
                tower,
                projector,
                image_newline: newline.unsqueeze(0)?,
                decoder,
                prompts,
                recommendations,
                unused: Vec::new(),
                device: device.clone(),
                dtype,
            })
        })?;
        parts.unused = unused;
        Ok(Self(Arc::new(parts)))
    }

    pub fn decoder(&self) -> &Decoder {
        &self.0.decoder
    }

    pub fn prompts(&self) -> &Prompts {
        &self.0.prompts
    }

    pub fn preprocessor(&self) -> &Preprocessor {
        &self.0.preprocessor
    }

    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// The number format of the weights and of what flows between the layers.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Tokens `M` that a frame becomes.
    pub fn tokens_per_frame(&self) -> usize {
        self.0.projector.tokens()
    }

    /// Frame tokens `[f, M, C]`. Frames go through the vision tower in batches; `cancel` is looked
    /// at between its layers.
    pub fn encode_frames(&self, frames: &[Frame], cancel: &Cancel) -> Result<Tensor> {
        let parts = &*self.0;
        let batch = (BATCH_PATCHES / parts.tower.patches()).max(1);
        let mut tokens = Vec::with_capacity(frames.len().div_ceil(batch));
        for frames in frames.chunks(batch) {
            cancel.check()?;
            tokens.push(parts.projector.forward(&self.vision_features(frames, cancel)?)?);
        }
        match tokens.len() {
            0 => {
                let shape = (0, self.tokens_per_frame(), parts.decoder.hidden_size());
                Ok(Tensor::zeros(shape, parts.dtype, &parts.device)?)
            }
            1 => Ok(tokens.remove(0)),
            _ => Ok(Tensor::cat(&tokens, 0)?),
        }
    }

    /// What the vision tower sees in each patch, `[f, g * g, D]`, before projector and pooling: the
    /// features that compare scenes.
    pub fn vision_features(&self, frames: &[Frame], cancel: &Cancel) -> Result<Tensor> {
        let pixels = self.0.preprocessor.pixels(frames, &self.0.device)?;
        self.0.tower.forward(&pixels.to_dtype(self.0.dtype)?, cancel)
    }

    /// The embedding `[1, C]` that closes a video in the checkpoint's own prompt.
    pub fn image_newline(&self) -> &Tensor {
        &self.0.image_newline
    }

    /// What the model's folder recommends (`streamkvqa.json`); empty if it has none.
    pub fn recommendations(&self) -> &Recommendations {
        &self.0.recommendations
    }

    pub fn recommended_sample_rate(&self) -> Option<f64> {
        self.0.recommendations.sample_rate
    }

    /// Names of weights in the checkpoint that the model has no place for; worth a warning.
    pub fn unused_tensors(&self) -> &[String] {
        &self.0.unused
    }
}

const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<VideoLlm>();
};
