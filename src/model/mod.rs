// SPDX-License-Identifier: MPL-2.0
//! Running a Video-LLM checkpoint: frames in, tokens of the decoder's width out, and a decoder
//! that leaves its attention to the caller.
//!
//! [`VideoLlm::load`] reads a Hugging Face folder of LLaVA-OneVision (SigLIP and Qwen2) or
//! Qwen2.5-VL. The unit of video is what becomes one block of tokens: a frame, or two of them. Nothing
//! here knows how a stream is remembered; see [`decoder::Attend`] for the seam.

pub mod attention;
pub mod checkpoint;
pub mod decoder;
mod device;
pub mod generate;
pub mod hub;
mod linear;
pub mod preprocess;
pub mod prompt;
pub mod rope;
pub mod text_image;
pub mod vision;

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::frame::Frame;
use checkpoint::Checkpoint;
pub use checkpoint::Recommendations;
use checkpoint::{ProcessorConfig, VisionConfig};
use decoder::Decoder;
use device::Formats;
pub use hub::HubOptions;
use preprocess::Resampler;
use preprocess::patches::Patches;
use preprocess::square::Squares;
use prompt::Prompts;
use rope::Layout;
use text_image::{TextImage, TextImages};
use vision::one_vision::OneVision;
use vision::qwen::Qwen;
use vision::{Picture, Vision};

/// Which device runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The first CUDA device if this build and machine have one, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = EngineError;

    /// `auto` or nothing, `cpu`, `cuda` or `cuda:N`.
    fn from_str(name: &str) -> Result<Self> {
        match name.trim() {
            "" | "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(0)),
            _ => {}
        }
        let index = name.trim().strip_prefix("cuda:").and_then(|index| index.parse().ok());
        index.map(Self::Cuda).ok_or_else(|| EngineError::Device {
            name: name.into(),
            reason: "unknown; use auto, cpu, cuda or cuda:N".into(),
        })
    }
}

/// In which number format the weights are held. The CPU computes in f32 with any of them; a GPU
/// computes in the format itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DTypeChoice {
    /// The checkpoint's own.
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
}

/// What is being done with a file of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadStep {
    Download,
    /// Copying weights to where the model runs.
    Read,
}

/// How far loading has come.
#[derive(Clone, Debug)]
pub struct LoadProgress {
    pub step: LoadStep,
    /// The file in work.
    pub file: Arc<str>,
    /// Which one of the `files` of this step it is, from 1.
    pub number: usize,
    pub files: usize,
    /// Bytes, of one file when downloading and of all files when reading.
    pub done: u64,
    pub total: u64,
}

/// Hears how far loading has come.
pub type Report = dyn Fn(&LoadProgress) + Send + Sync;

#[derive(Clone, Default)]
pub struct LoadOptions {
    pub device: DeviceChoice,
    pub dtype: DTypeChoice,
    /// Called from the loading thread, after every tensor and every piece of a download.
    pub progress: Option<Arc<Report>>,
    pub cancel: Cancel,
    pub hub: HubOptions,
}

/// A loaded Video-LLM. Cloning shares the weights.
#[derive(Clone)]
pub struct VideoLlm(Arc<Parts>);

struct Parts {
    vision: Box<dyn Vision>,
    decoder: Decoder,
    prompts: Prompts,
    recommendations: Recommendations,
    device: Device,
    fallback: Option<String>,
    formats: Formats,
    weight_bytes: u64,
    text_images: TextImages,
}

/// Patches per batch through the vision tower: enough to keep the threads busy, few enough that
/// the widest activation of a large tower stays below 100 MB.
const BATCH_PATCHES: usize = 4096;

impl VideoLlm {
    /// Reads a Hugging Face model folder, or a model by its name on the hub (`hf:owner/name`, see
    /// [`hub`]).
    ///
    /// # Errors
    /// What is wrong with the folder, by file and tensor; [`Hub`](crate::EngineError::Hub) for a
    /// name that is not in the cache; [`Device`](crate::EngineError::Device) if the device is not
    /// there; [`Cancelled`](crate::EngineError::Cancelled) between two tensors.
    pub fn load(dir: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let checkpoint = Checkpoint::open(&hub::folder(dir.as_ref(), options)?)?;
        let config = checkpoint.config();
        let processor = checkpoint.processor()?;
        let recommendations = checkpoint.recommendations()?;
        let prompts = Prompts::new(&checkpoint)?;
        let (device, fallback) = device::open(options.device)?;
        let weights = checkpoint.weights()?;
        let stored = weights.dtype("language_model.embed_tokens.weight");
        let formats = Formats::new(options.dtype, &device, stored);
        let unread = |name: &str| config.is_unread(name);
        let (built, weight_bytes) = weights.build(formats, &device, options, unread, |vb| {
            let vision = vision(&config.vision, &processor, vb.clone())?;
            // A tied checkpoint may carry a copy of the head; an untied one must have it.
            let head = (!config.tied).then(|| vb.pp("lm_head"));
            let decoder = Decoder::new(&config.text, vb.pp("language_model"), head)?;
            Ok((vision, decoder))
        })?;
        let (vision, decoder) = built;
        let parts = Parts {
            vision,
            decoder,
            prompts,
            recommendations,
            device,
            fallback,
            formats,
            weight_bytes,
            text_images: TextImages::default(),
        };
        Ok(Self(Arc::new(parts)))
    }

    pub fn decoder(&self) -> &Decoder {
        &self.0.decoder
    }

    pub fn prompts(&self) -> &Prompts {
        &self.0.prompts
    }

    /// The half that sees.
    pub fn vision(&self) -> &dyn Vision {
        &*self.0.vision
    }

    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// What the weights take in memory.
    pub fn weight_bytes(&self) -> u64 {
        self.0.weight_bytes
    }

    /// Why the choice of a device fell back to the CPU, if it did; worth a warning.
    pub fn device_fallback(&self) -> Option<&str> {
        self.0.fallback.as_deref()
    }

    /// The number format of what flows between the layers, keys and values included.
    pub fn dtype(&self) -> DType {
        self.0.formats.flow
    }

    /// The number format in which the weights are held.
    pub fn weights_dtype(&self) -> DType {
        self.0.formats.matrices
    }

    /// Frames that become one unit.
    pub fn frames_per_unit(&self) -> usize {
        self.0.vision.frames_per_unit()
    }

    /// The shape of the units of a stream that begins with this frame. Later frames of another
    /// shape are fitted into it.
    pub fn picture(&self, first: &Frame) -> Result<Picture> {
        self.0.vision.picture(first)
    }

    /// Where the tokens of a stream stand that has `rate` frames a second. `compat` puts what
    /// follows a video where transformers 5 does; see [`Layout`].
    pub fn layout(&self, picture: &Picture, rate: f64, compat: bool) -> Layout {
        self.0.vision.layout(picture, rate, compat)
    }

    /// Unit tokens `[u, M, C]`; the last frame is repeated if it does not fill its unit. Units go
    /// through the vision tower in batches; `cancel` is looked at between its layers.
    pub fn encode_frames(
        &self,
        frames: &[Frame],
        picture: &Picture,
        cancel: &Cancel,
    ) -> Result<Tensor> {
        let vision = self.vision();
        let units = (BATCH_PATCHES / vision.patches(picture).max(1)).max(1);
        let batches = frames.chunks(units * vision.frames_per_unit());
        let tokens = batches.map(|frames| {
            cancel.check()?;
            vision.tokens(&self.vision_features(frames, picture, cancel)?, picture)
        });
        let mut tokens = tokens.collect::<Result<Vec<_>>>()?;
        match tokens.len() {
            0 => {
                let shape = (0, picture.tokens(), self.decoder().hidden_size());
                Ok(Tensor::zeros(shape, self.dtype(), self.device())?)
            }
            1 => Ok(tokens.remove(0)),
            _ => Ok(Tensor::cat(&tokens, 0)?),
        }
    }

    /// What the vision tower sees in each patch, `[u, n, D]`, before it is brought to the decoder's
    /// width: the features that compare scenes.
    pub fn vision_features(
        &self,
        frames: &[Frame],
        picture: &Picture,
        cancel: &Cancel,
    ) -> Result<Tensor> {
        let pixels = self.0.vision.pixels(frames, picture, self.device())?;
        self.0.vision.features(&pixels.to_dtype(self.dtype())?, picture, cancel)
    }

    /// The embedding `[1, C]` that closes a video in the checkpoint's own prompt, if it has one.
    pub fn image_newline(&self) -> Option<&Tensor> {
        self.0.vision.closing()
    }

    /// What the model's folder recommends (`streamkvqa.json`); empty if it has none.
    pub fn recommendations(&self) -> &Recommendations {
        &self.0.recommendations
    }

    /// The text-image pair of a folder, on this model's device; streams that name the same folder
    /// share it.
    ///
    /// # Errors
    /// As [`TextImage::load`].
    pub fn text_image(&self, dir: &Path, options: &LoadOptions) -> Result<Arc<TextImage>> {
        let load = || TextImage::load(dir, self.device(), options);
        // However it is spelt; a name on the hub is no path, and what is missing has no other name.
        let same = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        self.0.text_images.get(&same, &options.cancel, load)
    }

    pub fn recommended_sample_rate(&self) -> Option<f64> {
        self.0.recommendations.sample_rate
    }
}

/// The half that sees, of the architecture that the config says. `vb` is the root.
fn vision(
    config: &VisionConfig,
    processor: &ProcessorConfig,
    vb: VarBuilder,
) -> Result<Box<dyn Vision>> {
    let resampler = Resampler::new(processor);
    Ok(match config {
        VisionConfig::OneVision(config) => {
            let squares = Squares { resampler, side: config.tower.image_size, edge: None };
            Box::new(OneVision::new(config, squares, vb)?)
        }
        VisionConfig::Qwen(config) => {
            let patches = Patches {
                resampler,
                side: config.patch_size,
                merge: config.merge,
                frames: config.frames_per_unit,
                min_pixels: processor.min_pixels,
                max_pixels: processor.max_pixels,
            };
            Box::new(Qwen::new(config, patches, vb)?)
        }
    })
}

const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<VideoLlm>();
};
