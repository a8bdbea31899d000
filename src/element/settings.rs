// SPDX-License-Identifier: MPL-2.0
//! What the user set, and what the engine makes of it ([`Settings::recipe`],
//! [`Settings::load_key`]), with every fault named.

use std::path::{Path, PathBuf};

use glib::prelude::*;
use gstreamer as gst;

use super::enums::{DType, Leaky, PromptStyle, ResetOn, Store, TextFormat, TextTimestamp};
use super::options;
use super::shared_model::LoadKey;
use crate::memory::store::{Budget, StoreOptions};
use crate::model::{DTypeChoice, DeviceChoice, HubOptions, hub, installed, prompt};
use crate::{
    EngineError, Question, Recipe, ReuseOptions, Sampling, SkipOptions, StreamOptions, VideoLlm,
};

/// Names the model folder where `model-path` is not set.
const MODEL_VARIABLE: &str = "STREAMKVQA_MODEL";

/// Frames per second, where neither the user nor the model says.
pub(super) const DEFAULT_RATE: f64 = 1.0;
pub(super) const DEFAULT_METHOD: &str = "auto";
pub(super) const DEFAULT_DEVICE: &str = "auto";
pub(super) const DEFAULT_FRAME_SIZE: u32 = 1024;
pub(super) const DEFAULT_MAX_QUEUE: u32 = 8;
pub(super) const DEFAULT_MAX_PENDING: u32 = 64;
pub(super) const DEFAULT_EOS_TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(60);
pub(super) const DEFAULT_STALL_TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(2);
/// What a loss of power may cost, against writing all of a large memory again and again.
pub(super) const DEFAULT_AUTOSAVE_INTERVAL: gst::ClockTime = gst::ClockTime::from_seconds(300);
pub(super) const DEFAULT_STORE_RESIDUAL: u32 = StoreOptions::DEFAULT_RESIDUAL as u32;
/// Above the noise of a camera by day, below anything that moves.
pub(super) const DEFAULT_SKIP_TOLERANCE: f64 = 4.0;
/// Half of that: what is not seen here is missed for longer.
pub(super) const DEFAULT_REUSE_TOLERANCE: f64 = 2.0;
pub(super) const DEFAULT_TEXT_TEMPLATE: &str = "{answer}";
pub(super) const DEFAULT_TEXT_DURATION: gst::ClockTime = gst::ClockTime::from_seconds(5);

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub model_path: Option<String>,
    pub allow_download: bool,
    pub device: String,
    pub dtype: DType,
    pub method: String,
    pub method_options: Option<String>,
    pub method_structure: Option<gst::Structure>,
    pub prompt_style: PromptStyle,
    pub mrope_compat: bool,
    pub system_prompt: Option<String>,
    pub max_memory: u64,
    pub max_host_memory: u64,
    pub max_disk: u64,
    pub disk_path: Option<String>,
    pub memory_path: Option<String>,
    /// `None`: it is saved at the end of a run and by the signal alone.
    pub autosave_interval: Option<gst::ClockTime>,
    pub store: Store,
    pub store_residual: u32,
    pub max_tokens: u32,
    /// 0: no drawing, the best token each time.
    pub temperature: f64,
    pub top_p: f64,
    pub seed: u64,
    pub active: bool,
    pub sample_rate: gst::Fraction,
    pub frame_size: u32,
    pub max_skip: u32,
    pub skip_tolerance: f64,
    pub tower_reuse: u32,
    pub reuse_tolerance: f64,
    pub leaky: Leaky,
    /// `None`: a stall is not reported.
    pub stall_timeout: Option<gst::ClockTime>,
    pub max_queue: u32,
    pub max_pending: u32,
    pub reset_on: ResetOn,
    pub question: Option<String>,
    pub question_interval: gst::ClockTime,
    pub questions_file: Option<String>,
    /// Names with commas between them; `*` is any, and nothing none.
    pub trigger_classes: String,
    /// `None`: statistics are not posted.
    pub stats_interval: Option<gst::ClockTime>,
    pub post_messages: bool,
    pub text_format: TextFormat,
    pub text_template: String,
    pub text_duration: gst::ClockTime,
    pub text_timestamp: TextTimestamp,
    pub latency: gst::ClockTime,
    /// `None` waits for ever.
    pub eos_timeout: Option<gst::ClockTime>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model_path: None,
            allow_download: false,
            device: DEFAULT_DEVICE.into(),
            dtype: DType::default(),
            method: DEFAULT_METHOD.into(),
            method_options: None,
            method_structure: None,
            prompt_style: PromptStyle::default(),
            mrope_compat: false,
            system_prompt: None,
            max_memory: 0,
            max_host_memory: 0,
            max_disk: 0,
            disk_path: None,
            memory_path: None,
            autosave_interval: Some(DEFAULT_AUTOSAVE_INTERVAL),
            store: Store::default(),
            store_residual: DEFAULT_STORE_RESIDUAL,
            max_tokens: Question::DEFAULT_MAX_TOKENS as u32,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
            active: true,
            sample_rate: gst::Fraction::new(0, 1),
            frame_size: DEFAULT_FRAME_SIZE,
            max_skip: 0,
            skip_tolerance: DEFAULT_SKIP_TOLERANCE,
            tower_reuse: 0,
            reuse_tolerance: DEFAULT_REUSE_TOLERANCE,
            leaky: Leaky::default(),
            stall_timeout: Some(DEFAULT_STALL_TIMEOUT),
            max_queue: DEFAULT_MAX_QUEUE,
            max_pending: DEFAULT_MAX_PENDING,
            reset_on: ResetOn::default(),
            question: None,
            question_interval: gst::ClockTime::ZERO,
            questions_file: None,
            trigger_classes: String::new(),
            stats_interval: None,
            post_messages: true,
            text_format: TextFormat::default(),
            text_template: DEFAULT_TEXT_TEMPLATE.into(),
            text_duration: DEFAULT_TEXT_DURATION,
            text_timestamp: TextTimestamp::default(),
            latency: gst::ClockTime::ZERO,
            eos_timeout: Some(DEFAULT_EOS_TIMEOUT),
        }
    }
}

/// Why the settings cannot be used, with the GStreamer domain it belongs to.
pub(super) enum Fault {
    Unset(String),
    Engine(EngineError),
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl Settings {
    /// Which model to load, how, and where.
    pub fn load_key(&self) -> Result<LoadKey, Fault> {
        let path = match self.model_path.as_deref().filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => std::env::var_os(MODEL_VARIABLE).filter(|path| !path.is_empty()).map_or_else(
                || {
                    Err(Fault::Unset(format!(
                        "no model: set model-path (or the environment variable {MODEL_VARIABLE}) to a \
                         Hugging Face folder of a Qwen-VL, LLaVA-OneVision or InternVL model, for instance \
                         model-path=models/toyworld, or to one that is installed: {}",
                        match installed::names() {
                            names if names.is_empty() => "there is none".into(),
                            names => names.join(", "),
                        }
                    )))
                },
                |path| Ok(PathBuf::from(path)),
            )?,
        };
        Ok(LoadKey {
            path: self.found(path)?,
            device: self.device.parse::<DeviceChoice>()?,
            dtype: match self.dtype {
                DType::Auto => DTypeChoice::Auto,
                DType::F32 => DTypeChoice::F32,
                DType::Bf16 => DTypeChoice::Bf16,
                DType::F16 => DTypeChoice::F16,
                DType::Q8 => DTypeChoice::Q8,
            },
        })
    }

    /// Where a model is, found out now, so that a wrong path fails the state change; and so that two
    /// spellings of one folder share one model. What has to be downloaded keeps its name.
    fn found(&self, path: PathBuf) -> Result<PathBuf, EngineError> {
        let path = match hub::at_hand(&path, &HubOptions::default()) {
            Ok(folder) => folder,
            Err(EngineError::Hub { .. }) if self.allow_download => return Ok(path),
            Err(fault) => return Err(fault),
        };
        let path = path.canonicalize().map_err(|source| EngineError::Read { path, source })?;
        if !path.is_dir() {
            return Err(EngineError::Checkpoint {
                path,
                reason: "is a file; model-path names the folder that holds config.json".into(),
            });
        }
        Ok(path)
    }

    /// The method with its options; with the model's own defaults where a model is given.
    pub fn recipe(&self, model: Option<&VideoLlm>) -> Result<Recipe, EngineError> {
        let mut recipe = match model {
            Some(model) => Recipe::for_model(&self.method, model)?,
            None => Recipe::named(&self.method)?,
        };
        let text = self.method_options.as_deref().unwrap_or_default();
        let pairs = options::pairs(text);
        for (key, value) in pairs.map_err(|(key, reason)| EngineError::Option { key, reason })? {
            recipe.set(&key, &value)?;
        }
        for (key, value) in self.method_structure.iter().flat_map(|options| options.iter()) {
            recipe.set(key, &as_text(key, value)?)?;
        }
        Ok(recipe)
    }

    /// For a model that recommends `recommended` frames per second.
    pub fn stream_options(&self, recommended: Option<f64>) -> StreamOptions {
        StreamOptions {
            system_prompt: self.system_prompt.clone(),
            prompt_style: match self.prompt_style {
                PromptStyle::Hf => prompt::PromptStyle::Hf,
                PromptStyle::Rekv => prompt::PromptStyle::Rekv,
            },
            store: self.store_options(),
            sample_rate: Some(self.rate().or(recommended).unwrap_or(DEFAULT_RATE)),
            mrope_compat: self.mrope_compat,
            skip: SkipOptions {
                most: self.max_skip as usize,
                tolerance: self.skip_tolerance as f32,
            },
            reuse: ReuseOptions {
                most: self.tower_reuse as usize,
                tolerance: self.reuse_tolerance as f32,
            },
            ..StreamOptions::default()
        }
    }

    /// How answers are drawn, if they are.
    pub fn sampling(&self) -> Option<Sampling> {
        let Self { temperature, top_p, seed, .. } = *self;
        (temperature > 0.0).then_some(Sampling { temperature, top_p, seed })
    }

    pub fn check_store(&self) -> Result<(), Fault> {
        let options = self.store_options();
        if options.budget.disk.is_some() && options.disk_path.is_none() {
            return Err(Fault::Unset(
                "max-disk is set, but disk-path, which says where, is not".into(),
            ));
        }
        Ok(())
    }

    fn store_options(&self) -> StoreOptions {
        let bound = |bytes: u64| (bytes > 0).then_some(bytes);
        StoreOptions {
            codec: self.store.codec(),
            residual: self.store_residual as usize,
            budget: Budget {
                device: bound(self.max_memory),
                host: bound(self.max_host_memory),
                disk: bound(self.max_disk),
            },
            share: None,
            disk_path: self.disk_path.as_deref().filter(|path| !path.is_empty()).map(PathBuf::from),
        }
    }

    /// The file that the memory is kept in, if it is.
    pub fn memory_path(&self) -> Option<&Path> {
        self.memory_path.as_deref().filter(|path| !path.is_empty()).map(Path::new)
    }

    /// Frames per second that the user asked for; `None` leaves it to the model.
    pub fn rate(&self) -> Option<f64> {
        let (numer, denom) = (self.sample_rate.numer(), self.sample_rate.denom());
        (numer > 0).then(|| f64::from(numer) / f64::from(denom))
    }

    /// Sets one property; `false` for one that this table does not hold.
    pub fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) -> bool {
        // The parameter specification has fixed the type, so `get` cannot fail.
        fn read<T: for<'a> glib::value::FromValue<'a>>(value: &glib::Value) -> T {
            value.get().unwrap_or_else(|_| unreachable!("GObject checks property types"))
        }
        fn time(value: &glib::Value) -> gst::ClockTime {
            gst::ClockTime::from_nseconds(read::<u64>(value).min(u64::MAX - 1))
        }
        match pspec.name() {
            "model-path" => self.model_path = read(value),
            "allow-download" => self.allow_download = read(value),
            "device" => {
                self.device = read::<Option<String>>(value).unwrap_or(DEFAULT_DEVICE.into())
            }
            "dtype" => self.dtype = read(value),
            "method" => {
                self.method = read::<Option<String>>(value).unwrap_or(DEFAULT_METHOD.into())
            }
            "method-options" => self.method_options = read(value),
            "method-options-structure" => self.method_structure = read(value),
            "prompt-style" => self.prompt_style = read(value),
            "mrope-compat" => self.mrope_compat = read(value),
            "system-prompt" => self.system_prompt = read(value),
            "max-memory" => self.max_memory = read(value),
            "max-host-memory" => self.max_host_memory = read(value),
            "max-disk" => self.max_disk = read(value),
            "disk-path" => self.disk_path = read(value),
            "memory-path" => self.memory_path = read(value),
            "autosave-interval" => {
                self.autosave_interval = Some(time(value)).filter(|time| !time.is_zero());
            }
            "store" => self.store = read(value),
            "store-residual" => self.store_residual = read(value),
            "max-tokens" => self.max_tokens = read(value),
            "temperature" => self.temperature = read(value),
            "top-p" => self.top_p = read(value),
            "seed" => self.seed = read(value),
            "active" => self.active = read(value),
            "sample-rate" => self.sample_rate = read(value),
            "frame-size" => self.frame_size = read(value),
            "max-skip" => self.max_skip = read(value),
            "skip-tolerance" => self.skip_tolerance = read(value),
            "tower-reuse" => self.tower_reuse = read(value),
            "reuse-tolerance" => self.reuse_tolerance = read(value),
            "leaky" => self.leaky = read(value),
            "stall-timeout" => {
                self.stall_timeout = Some(time(value)).filter(|time| !time.is_zero())
            }
            "max-queue" => self.max_queue = read(value),
            "max-pending" => self.max_pending = read(value),
            "reset-on" => self.reset_on = read(value),
            "question" => self.question = read(value),
            "question-interval" => self.question_interval = time(value),
            "questions-file" => self.questions_file = read(value),
            "stats-interval" => {
                self.stats_interval = Some(time(value)).filter(|time| !time.is_zero());
            }
            "trigger-classes" => {
                self.trigger_classes = read::<Option<String>>(value).unwrap_or_default();
            }
            "post-messages" => self.post_messages = read(value),
            "text-format" => self.text_format = read(value),
            "text-template" => {
                self.text_template =
                    read::<Option<String>>(value).unwrap_or(DEFAULT_TEXT_TEMPLATE.into());
            }
            "text-duration" => self.text_duration = time(value),
            "text-timestamp" => self.text_timestamp = read(value),
            "latency" => self.latency = time(value),
            "eos-timeout" => {
                let timeout: u64 = read(value);
                self.eos_timeout =
                    (timeout != u64::MAX).then(|| gst::ClockTime::from_nseconds(timeout));
            }
            _ => return false,
        }
        true
    }

    /// Reads one property; `None` for one that this table does not hold.
    pub fn get(&self, pspec: &glib::ParamSpec) -> Option<glib::Value> {
        Some(match pspec.name() {
            "model-path" => self.model_path.to_value(),
            "allow-download" => self.allow_download.to_value(),
            "device" => self.device.to_value(),
            "dtype" => self.dtype.to_value(),
            "method" => self.method.to_value(),
            "method-options" => self.method_options.to_value(),
            "method-options-structure" => self.method_structure.to_value(),
            "prompt-style" => self.prompt_style.to_value(),
            "mrope-compat" => self.mrope_compat.to_value(),
            "system-prompt" => self.system_prompt.to_value(),
            "max-memory" => self.max_memory.to_value(),
            "max-host-memory" => self.max_host_memory.to_value(),
            "max-disk" => self.max_disk.to_value(),
            "disk-path" => self.disk_path.to_value(),
            "memory-path" => self.memory_path.to_value(),
            "autosave-interval" => self.autosave_interval.unwrap_or_default().nseconds().to_value(),
            "store" => self.store.to_value(),
            "store-residual" => self.store_residual.to_value(),
            "max-tokens" => self.max_tokens.to_value(),
            "temperature" => self.temperature.to_value(),
            "top-p" => self.top_p.to_value(),
            "seed" => self.seed.to_value(),
            "active" => self.active.to_value(),
            "sample-rate" => self.sample_rate.to_value(),
            "frame-size" => self.frame_size.to_value(),
            "max-skip" => self.max_skip.to_value(),
            "skip-tolerance" => self.skip_tolerance.to_value(),
            "tower-reuse" => self.tower_reuse.to_value(),
            "reuse-tolerance" => self.reuse_tolerance.to_value(),
            "leaky" => self.leaky.to_value(),
            "stall-timeout" => self.stall_timeout.unwrap_or_default().nseconds().to_value(),
            "max-queue" => self.max_queue.to_value(),
            "max-pending" => self.max_pending.to_value(),
            "reset-on" => self.reset_on.to_value(),
            "question" => self.question.to_value(),
            "question-interval" => self.question_interval.nseconds().to_value(),
            "questions-file" => self.questions_file.to_value(),
            "stats-interval" => self.stats_interval.unwrap_or_default().nseconds().to_value(),
            "trigger-classes" => self.trigger_classes.to_value(),
            "post-messages" => self.post_messages.to_value(),
            "text-format" => self.text_format.to_value(),
            "text-template" => self.text_template.to_value(),
            "text-duration" => self.text_duration.nseconds().to_value(),
            "text-timestamp" => self.text_timestamp.to_value(),
            "latency" => self.latency.nseconds().to_value(),
            "eos-timeout" => self.eos_timeout.map_or(u64::MAX, gst::ClockTime::nseconds).to_value(),
            _ => return None,
        })
    }
}

/// A field of a structure in the words of `method-options`.
fn as_text(key: &str, value: &glib::Value) -> Result<String, EngineError> {
    if let Ok(text) = value.get::<Option<String>>() {
        return Ok(text.unwrap_or_default());
    }
    let text = value.transform::<String>().ok().and_then(|text| text.get::<String>().ok());
    text.ok_or_else(|| EngineError::Option {
        key: key.into(),
        reason: format!("a {} is neither a text nor a number", value.type_()),
    })
}
