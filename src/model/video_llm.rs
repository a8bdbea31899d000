// SPDX-License-Identifier: MPL-2.0
//! A loaded Video-LLM: the half that sees, the decoder and the words, read from one folder.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::checkpoint::{
    Checkpoint, GENERATION_CONFIG, Generation, ProcessorConfig, Recommendations, Settings, Weights,
    random,
};
use super::choice::History;
use super::decoder::Decoder;
use super::device::{self, Formats};
use super::family::Family;
use super::files;
use super::hub;
use super::linear;
use super::load::LoadOptions;
use super::prompt::Prompts;
use super::room::{MemoryShare, Room};
use super::rope::Layout;
use super::text_image::TextImage;
use super::text_image::shared::TextImages;
use super::vision::reuse::Reuse;
use super::vision::together::Shared;
use super::vision::{Moment, Picture, Vision};
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::frame::Frame;

/// A loaded Video-LLM. Cloning shares the weights.
#[derive(Clone)]
pub struct VideoLlm(Arc<Parts>);

struct Parts {
    /// Where it was read from, and the seed that stands for weights where there are none.
    source: (PathBuf, Option<u64>),
    fingerprint: OnceLock<String>,
    vision: Shared,
    decoder: Decoder,
    prompts: Prompts,
    generation: Generation,
    recommendations: Recommendations,
    device: Device,
    fallback: Option<String>,
    formats: Formats,
    weight_bytes: u64,
    text_images: TextImages,
    /// Found out when the first stream asks for its part.
    room: OnceLock<Option<Arc<Room>>>,
}

/// Weights of a decoder's layers from which on `auto` takes eight bits where they are fast. Smaller models
/// gain by them too, but are fast enough to stay as exact as they are stored.
const LARGE: usize = 50_000_000;

/// Weights by their canonical names.
const EMBEDDINGS: &str = "language_model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Patches per batch through the vision tower: enough to keep the threads busy, few enough that
/// the widest activation of a large tower stays below 100 MB.
const BATCH_PATCHES: usize = 4096;

impl VideoLlm {
    /// Reads a Hugging Face model folder, a model by its name on the hub (`hf:owner/name`, see [`hub`]), or
    /// an installed one by the name of its folder (see [`installed`](super::installed)).
    ///
    /// # Errors
    /// What is wrong with the folder, by file and tensor; [`Hub`](crate::EngineError::Hub) for a
    /// name that is not in the cache; [`Device`](crate::EngineError::Device) if the device is not
    /// there; [`Cancelled`](crate::EngineError::Cancelled) between two tensors.
    pub fn load(dir: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        Checkpoint::check_name(dir.as_ref())?;
        let checkpoint = Checkpoint::open(&hub::folder(dir.as_ref(), options)?)?;
        let family = Family::of(&checkpoint)?;
        let Family { words, plan } = &family;
        let fits = |found: &Settings| plan.fits(found);
        let area = |found: &Settings| plan.area(found);
        let processor = ProcessorConfig::read(checkpoint.dir(), plan.colours(), fits, area)?;
        let recommendations = checkpoint.recommendations()?;
        let prompts = Prompts::new(&checkpoint, words, &**plan)?;
        let generation = checkpoint.generation()?;
        let (device, fallback) = device::open(options.device)?;
        let eight_bits = linear::eight_bits_are_fast() && words.text.weights() >= LARGE;
        let formats = |stored| Formats::new(options.dtype, device.is_cpu(), stored, eight_bits);
        let weights = options.made_up.is_none().then(|| checkpoint.weights()).transpose()?;
        // As transformers 5: a head that is not the embeddings counts for more than a config that says so.
        let differ = |weights: &Weights| weights.differ(HEAD, EMBEDDINGS);
        let tied = words.tied && !weights.as_ref().map_or(Ok(false), differ)?;
        let build = |vb: VarBuilder<'static>| {
            let vision = plan.build(&processor, vb.clone())?;
            // A tied checkpoint may carry a copy of the head; an untied one must have it.
            let head = (!tied).then(|| vb.pp("lm_head"));
            let decoder = Decoder::new(&words.text, vb.pp("language_model"), head)?;
            Ok((vision, decoder))
        };
        let (formats, built) = if let Some(weights) = weights {
            let formats = formats(weights.dtype(EMBEDDINGS))?;
            let unread = |name: &str| family.is_unread(name);
            (formats, weights.build(formats, &device, options, unread, build)?)
        } else {
            let formats = formats(Some(DType::BF16))?;
            let seed = options.made_up.unwrap_or_default();
            (formats, random::build(seed, formats, &device, &options.cancel, build)?)
        };
        let ((vision, decoder), weight_bytes) = built;
        let weight_bytes = weight_bytes + decoder.doubled_bytes();
        let source = (checkpoint.dir().to_owned(), options.made_up);
        let parts = Parts {
            source,
            fingerprint: OnceLock::new(),
            vision: Shared::new(vision, BATCH_PATCHES),
            decoder,
            prompts,
            generation,
            recommendations,
            device,
            fallback,
            formats,
            weight_bytes,
            text_images: TextImages::default(),
            room: OnceLock::new(),
        };
        Ok(Self(Arc::new(parts)))
    }

    /// A stream's part of half of the memory that is free where this model runs, the weights being
    /// there; all streams that take one share it evenly. `None` where nobody knows what is free.
    pub fn memory_share(&self) -> Option<Arc<MemoryShare>> {
        let room = self.0.room.get_or_init(|| Room::of(&self.0.device)).clone()?;
        Some(Arc::new(MemoryShare::of(room)))
    }

    /// Where it was read from.
    pub fn folder(&self) -> &Path {
        let (folder, _) = &self.0.source;
        folder
    }

    /// A name for what the model is, by the content of its files: what one model has made is of no use to
    /// another. The first who asks waits until they are read.
    ///
    /// # Errors
    /// [`EngineError::Read`] for a file that has gone.
    pub fn fingerprint(&self) -> Result<&str> {
        if let Some(known) = self.0.fingerprint.get() {
            return Ok(known);
        }
        let found = match &self.0.source {
            (_, Some(seed)) => format!("made up from {seed}"),
            (folder, None) => files::fingerprint(folder)?,
        };
        Ok(self.0.fingerprint.get_or_init(|| found))
    }

    pub fn decoder(&self) -> &Decoder {
        &self.0.decoder
    }

    pub fn prompts(&self) -> &Prompts {
        &self.0.prompts
    }

    /// What `generation_config.json` asks of an answer.
    pub(crate) fn generation(&self) -> &Generation {
        &self.0.generation
    }

    /// Warnings about settings of `generation_config.json` that change answers in transformers and
    /// not here.
    pub fn unapplied(&self) -> Option<EngineError> {
        let Parts { generation, recommendations, .. } = &*self.0;
        let settings = &generation.unapplied;
        (!settings.is_empty()).then(|| EngineError::Checkpoint {
            path: recommendations.folder.join(GENERATION_CONFIG),
            reason: format!("{} not applied here; answers may differ", settings.join(", ")),
        })
    }

    /// What stands before an answer: the ids in front of a video, `tokens` tokens of it, and the ids
    /// behind it.
    pub fn history(&self, opening: &[u32], tokens: usize, tail: &[u32]) -> History {
        let video = (self.prompts().video(), tokens);
        History::around((opening, tail), video, self.generation().reach())
    }

    /// The same of a video whose units have words of their own. `lines`: the ids in front of each unit's
    /// picture and behind it; `tokens`: of a picture; `gone`: tokens of units that nobody knows any more.
    pub(crate) fn history_of_lines(
        &self,
        (opening, tail): (&[u32], &[u32]),
        lines: &[[Vec<u32>; 2]],
        (tokens, gone): (usize, usize),
    ) -> History {
        let video = (self.prompts().video(), tokens);
        History::of_lines((opening, tail), lines, video, gone, self.generation().reach())
    }

    /// The embeddings of the words around a unit's picture, as wide as its tokens; `None` where there
    /// are none.
    pub fn around(&self, moment: Moment) -> Result<Option<[Tensor; 2]>> {
        let Some([front, behind]) = self.prompts().around(moment)? else { return Ok(None) };
        let wide = |ids: &[u32]| -> Result<Tensor> {
            let (decoder, vectors) = (self.decoder(), self.vision().vectors());
            let own = decoder.embed(ids)?;
            let others = (ids.len(), (vectors - 1) * decoder.hidden_size());
            let others = Tensor::zeros(others, own.dtype(), own.device())?;
            Ok(if vectors > 1 { Tensor::cat(&[own, others], 1)? } else { own })
        };
        Ok(Some([wide(&front)?, wide(&behind)?]))
    }

    /// The half that sees.
    pub fn vision(&self) -> &dyn Vision {
        &*self.0.vision.vision
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

    /// The number format in which the weights are held: of the embeddings, and of all matrices where
    /// [`weights_format`](Self::weights_format) is no other.
    pub fn weights_dtype(&self) -> DType {
        self.0.formats.matrices
    }

    /// What most weights are held in, by the name that `dtype` has for it.
    pub fn weights_format(&self) -> &'static str {
        self.0.formats.name()
    }

    /// Frames that become one unit.
    pub fn frames_per_unit(&self) -> usize {
        self.0.vision.vision.frames_per_unit()
    }

    /// Pixels across and down that the tower takes of a picture shown as `width` x `height`.
    pub fn resolution(&self, width: usize, height: usize) -> (usize, usize) {
        self.0.vision.vision.resolution(width, height)
    }

    /// The shape of the units of a stream that begins with this frame. Later frames of another
    /// shape are fitted into it.
    pub fn picture(&self, first: &Frame) -> Result<Picture> {
        self.0.vision.vision.picture(first)
    }

    /// Where the tokens of a stream stand that has `rate` frames a second. `compat` puts what
    /// follows a video where transformers 5 does; see [`Layout`].
    pub fn layout(&self, picture: &Picture, rate: f64, compat: bool) -> Layout {
        self.0.vision.vision.layout(picture, rate, compat)
    }

    /// Unit tokens `[u, M, C]`, `C` all vectors of a token; the last frame is repeated if it does not fill its unit. Units go
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
            let pixels = vision.pixels(frames, picture, self.device())?.to_dtype(self.dtype())?;
            let units = frames.len().div_ceil(vision.frames_per_unit());
            self.0.vision.tokens(&pixels, units, picture, cancel)
        });
        let mut tokens = tokens.collect::<Result<Vec<_>>>()?;
        match tokens.len() {
            0 => {
                let width = self.vision().vectors() * self.decoder().hidden_size();
                let shape = (0, picture.tokens(), width);
                Ok(Tensor::zeros(shape, self.dtype(), self.device())?)
            }
            1 => Ok(tokens.remove(0)),
            _ => Ok(Tensor::cat(&tokens, 0)?),
        }
    }

    /// The same frame by frame, where patches that did not change may be taken from an earlier frame. A
    /// tower that cannot do that sees all of them.
    pub fn encode_reusing(
        &self,
        frames: &[Frame],
        picture: &Picture,
        reuse: &mut Reuse,
        cancel: &Cancel,
    ) -> Result<Tensor> {
        let tower = self.vision().reusing().filter(|_| reuse.is_on() && !frames.is_empty());
        let Some(tower) = tower else { return self.encode_frames(frames, picture, cancel) };
        let tokens = frames.iter().map(|frame| {
            cancel.check()?;
            tower.tokens(frame, reuse, cancel)
        });
        Ok(Tensor::cat(&tokens.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// What the vision tower sees in each patch, `[u, n, D]`, before it is brought to the decoder's
    /// width: the features that compare scenes.
    pub fn vision_features(
        &self,
        frames: &[Frame],
        picture: &Picture,
        cancel: &Cancel,
    ) -> Result<Tensor> {
        let pixels = self.0.vision.vision.pixels(frames, picture, self.device())?;
        self.0.vision.vision.features(&pixels.to_dtype(self.dtype())?, picture, cancel)
    }

    /// The embedding `[1, C]` that closes a video in the checkpoint's own prompt, if it has one.
    pub fn image_newline(&self) -> Option<&Tensor> {
        self.0.vision.vision.closing()
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

const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<VideoLlm>();
};
