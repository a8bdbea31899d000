// SPDX-License-Identifier: MPL-2.0
//! The property table: names, ranges, defaults, descriptions and what a change takes.
//!
//! [`Settings`] is what the user wrote; [`Settings::recipe`] and [`Settings::load_key`] are what the
//! engine makes of it, with every fault named.

use std::path::PathBuf;
use std::sync::LazyLock;

use glib::prelude::*;
use gst::prelude::*;
use gstreamer as gst;

use super::question::MAX_TOKENS;
use super::shared_model::LoadKey;
use super::{DType, Leaky, PromptStyle, ResetOn, Store, TextFormat, TextTimestamp};
use crate::memory::recipe::RecipeOption;
use crate::memory::store::{Budget, StoreOptions};
use crate::model::{DTypeChoice, DeviceChoice, HubOptions, hub, prompt};
use crate::{EngineError, Question, Recipe, StreamOptions, VideoLlm};

/// Names the model folder where `model-path` is not set.
const MODEL_VARIABLE: &str = "STREAMKVQA_MODEL";

/// Frames per second, where neither the user nor the model says.
pub(super) const DEFAULT_RATE: f64 = 1.0;
const DEFAULT_METHOD: &str = "auto";
const DEFAULT_DEVICE: &str = "auto";
const DEFAULT_FRAME_SIZE: u32 = 1024;
const DEFAULT_MAX_QUEUE: u32 = 8;
const DEFAULT_MAX_PENDING: u32 = 64;
const DEFAULT_EOS_TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(60);
const DEFAULT_STORE_RESIDUAL: u32 = StoreOptions::DEFAULT_RESIDUAL as u32;
const DEFAULT_TEXT_TEMPLATE: &str = "{answer}";
const DEFAULT_TEXT_DURATION: gst::ClockTime = gst::ClockTime::from_seconds(5);

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub model_path: Option<String>,
    pub allow_download: bool,
    pub device: String,
    pub dtype: DType,
    pub method: String,
    pub method_options: Option<String>,
    pub prompt_style: PromptStyle,
    pub mrope_compat: bool,
    pub system_prompt: Option<String>,
    pub max_memory: u64,
    pub max_host_memory: u64,
    pub max_disk: u64,
    pub disk_path: Option<String>,
    pub store: Store,
    pub store_residual: u32,
    pub max_tokens: u32,
    pub sample_rate: gst::Fraction,
    pub frame_size: u32,
    pub leaky: Leaky,
    pub max_queue: u32,
    pub max_pending: u32,
    pub reset_on: ResetOn,
    pub question: Option<String>,
    pub question_interval: gst::ClockTime,
    pub questions_file: Option<String>,
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
            prompt_style: PromptStyle::default(),
            mrope_compat: false,
            system_prompt: None,
            max_memory: 0,
            max_host_memory: 0,
            max_disk: 0,
            disk_path: None,
            store: Store::default(),
            store_residual: DEFAULT_STORE_RESIDUAL,
            max_tokens: Question::DEFAULT_MAX_TOKENS as u32,
            sample_rate: gst::Fraction::new(0, 1),
            frame_size: DEFAULT_FRAME_SIZE,
            leaky: Leaky::default(),
            max_queue: DEFAULT_MAX_QUEUE,
            max_pending: DEFAULT_MAX_PENDING,
            reset_on: ResetOn::default(),
            question: None,
            question_interval: gst::ClockTime::ZERO,
            questions_file: None,
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
                         Hugging Face folder of a LLaVA-OneVision or Qwen2.5-VL model, for instance \
                         model-path=models/toyworld"
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
            },
        })
    }

    /// Where a model is, found out now, so that a wrong path fails the state change; and so that two
    /// spellings of one folder share one model. What has to be downloaded keeps its name.
    fn found(&self, path: PathBuf) -> Result<PathBuf, EngineError> {
        let path = match hub::cached(&path, &HubOptions::default()) {
            Ok(folder) => folder.unwrap_or(path),
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
        for pair in self.method_options.as_deref().unwrap_or_default().split([',', ';']) {
            let pair = pair.trim();
            if pair.is_empty() {
                continue;
            }
            let Some((key, value)) = pair.split_once('=') else {
                return Err(EngineError::Option {
                    key: pair.into(),
                    reason: "has no value; write method-options=\"key=value,key=value\"".into(),
                });
            };
            recipe.set(key.trim(), value.trim())?;
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
            ..StreamOptions::default()
        }
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
            disk_path: self.disk_path.as_deref().filter(|path| !path.is_empty()).map(PathBuf::from),
        }
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
            "prompt-style" => self.prompt_style = read(value),
            "mrope-compat" => self.mrope_compat = read(value),
            "system-prompt" => self.system_prompt = read(value),
            "max-memory" => self.max_memory = read(value),
            "max-host-memory" => self.max_host_memory = read(value),
            "max-disk" => self.max_disk = read(value),
            "disk-path" => self.disk_path = read(value),
            "store" => self.store = read(value),
            "store-residual" => self.store_residual = read(value),
            "max-tokens" => self.max_tokens = read(value),
            "sample-rate" => self.sample_rate = read(value),
            "frame-size" => self.frame_size = read(value),
            "leaky" => self.leaky = read(value),
            "max-queue" => self.max_queue = read(value),
            "max-pending" => self.max_pending = read(value),
            "reset-on" => self.reset_on = read(value),
            "question" => self.question = read(value),
            "question-interval" => self.question_interval = time(value),
            "questions-file" => self.questions_file = read(value),
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
            "prompt-style" => self.prompt_style.to_value(),
            "mrope-compat" => self.mrope_compat.to_value(),
            "system-prompt" => self.system_prompt.to_value(),
            "max-memory" => self.max_memory.to_value(),
            "max-host-memory" => self.max_host_memory.to_value(),
            "max-disk" => self.max_disk.to_value(),
            "disk-path" => self.disk_path.to_value(),
            "store" => self.store.to_value(),
            "store-residual" => self.store_residual.to_value(),
            "max-tokens" => self.max_tokens.to_value(),
            "sample-rate" => self.sample_rate.to_value(),
            "frame-size" => self.frame_size.to_value(),
            "leaky" => self.leaky.to_value(),
            "max-queue" => self.max_queue.to_value(),
            "max-pending" => self.max_pending.to_value(),
            "reset-on" => self.reset_on.to_value(),
            "question" => self.question.to_value(),
            "question-interval" => self.question_interval.nseconds().to_value(),
            "questions-file" => self.questions_file.to_value(),
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

/// All properties in the order in which `gst-inspect-1.0` lists them by name.
pub(super) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        [model_properties(), video_properties(), question_properties(), answer_properties()]
            .concat()
    });
    &PROPERTIES
}

fn model_properties() -> Vec<glib::ParamSpec> {
    let methods = format!(
        "How the video is remembered: {}. Options of a method go into method-options",
        Recipe::names().join(", ")
    );
    // A line each, below the text of the property as gst-inspect-1.0 places it.
    let lines = Recipe::all_options().into_iter().map(|option| {
        let RecipeOption { name, value, help, source } = option;
        format!("\n{:26}{name} ({value}): {help} [{source}]", "")
    });
    let options = format!(
        "Changes to the method as \"key=value,key=value\". An option that the method does not have \
         fails the state change. Options, their defaults where no method is named and in the \
         methods that are, and where they come from:{}",
        lines.collect::<String>()
    );
    vec![
        glib::ParamSpecString::builder("model-path")
            .nick("Model path")
            .blurb(
                "Hugging Face folder of the Video-LLM (LLaVA-OneVision or Qwen2.5-VL), for \
                 instance models/toyworld, or hf:owner/name[@revision] for one in the Hugging Face cache \
                 (HF_HUB_CACHE, HF_HOME). Unset: the environment variable STREAMKVQA_MODEL. \
                 Elements with equal model-path, device and dtype share one loaded model",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("allow-download")
            .nick("Allow download")
            .blurb(
                "Download a model-path of the form hf:owner/name into the Hugging Face cache if it \
                 is not there (HF_ENDPOINT, HF_TOKEN). Progress is on the bus",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("device")
            .nick("Device")
            .blurb(
                "Where the model runs: auto (the first CUDA device, else the CPU), cpu, cuda or \
                 cuda:N. CUDA needs a build with the cargo feature cuda",
            )
            .default_value(Some(DEFAULT_DEVICE))
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<DType>("dtype")
            .nick("Data type")
            .blurb("Number format of the weights. The CPU computes in f32 with any of them")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("method")
            .nick("Memory method")
            .blurb(&methods)
            .default_value(Some(DEFAULT_METHOD))
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("method-options")
            .nick("Method options")
            .blurb(&options)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<PromptStyle>("prompt-style")
            .nick("Prompt style")
            .blurb("Who decides the words around the video and the question")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("mrope-compat")
            .nick("M-RoPE as in transformers 5")
            .blurb(
                "Put the question behind the video's first picture, as transformers 5 does, instead \
                 of behind its last moment, as Qwen2.5-VL was trained; of no effect on other models",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("system-prompt")
            .nick("System prompt")
            .blurb("System message in front of the video. Unset: the prompt style's own")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("max-memory")
            .nick("Maximum memory")
            .blurb(
                "Upper bound in bytes for what is remembered of the video; the oldest goes first, to \
                 the tiers of max-host-memory and disk-path where they are set. With them, or with a \
                 store coarser than the model computes, it bounds what is held decoded on the \
                 model's device. 0: no bound but the method's",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("max-host-memory")
            .nick("Maximum host memory")
            .blurb(
                "Upper bound in bytes for what lies encoded in main memory, apart from max-memory. \
                 It takes what max-memory cannot hold, and passes the oldest on to disk-path. 0: what \
                 is encoded counts against max-memory or, with a disk-path, goes to disk at once",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("max-disk")
            .nick("Maximum disk")
            .blurb(
                "Upper bound in bytes for the files in disk-path; the oldest are deleted first. 0: \
                 what the disk has room for",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("disk-path")
            .nick("Disk path")
            .blurb(
                "Folder for what neither max-memory nor max-host-memory can hold; each stream makes \
                 a folder of its own in it and deletes it at its end. A disk that is full or fails \
                 makes the memory smaller, with a warning. Unset: nothing is written",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<Store>("store")
            .nick("Store")
            .blurb("Number format of what is remembered, except for the newest tokens (store-residual)")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("store-residual")
            .nick("Store residual")
            .blurb(
                "Newest tokens of each layer that stay as the model computed them where store is \
                 coarser",
            )
            .maximum(1 << 24)
            .default_value(DEFAULT_STORE_RESIDUAL)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-tokens")
            .nick("Maximum answer length")
            .blurb("Longest answer in tokens, where a question does not say otherwise")
            .minimum(1)
            .maximum(MAX_TOKENS)
            .default_value(Question::DEFAULT_MAX_TOKENS as u32)
            .mutable_playing()
            .build(),
    ]
}

fn video_properties() -> Vec<glib::ParamSpec> {
    vec![
        gst::ParamSpecFraction::builder("sample-rate")
            .nick("Sample rate")
            .blurb(
                "Frames per second of running time that the model sees. 0/1: as the model's folder \
                 recommends, else 1/1",
            )
            .minimum(gst::Fraction::new(0, 1))
            .maximum(gst::Fraction::new(1000, 1))
            .default_value(gst::Fraction::new(0, 1))
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("frame-size")
            .nick("Frame size")
            .blurb(
                "Sampled frames whose longer side has more pixels are scaled down to it, keeping \
                 the aspect ratio, before the model's own preprocessing. 0: never",
            )
            .maximum(32768)
            .default_value(DEFAULT_FRAME_SIZE)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<Leaky>("leaky")
            .nick("Leaky")
            .blurb("What happens when frames come faster than the model takes them; stats counts losses")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-queue")
            .nick("Maximum queue")
            .blurb("Sampled frames that may wait for the model; waiting frames are encoded as one batch")
            .minimum(1)
            .maximum(4096)
            .default_value(DEFAULT_MAX_QUEUE)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<ResetOn>("reset-on")
            .nick("Reset on")
            .blurb("Which event makes the element forget everything seen")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(
                "frames-in, sampled, dropped, unreadable, encoded (frames); questions, answers; \
                 queue (frames waiting); memory-bytes, units, segments, open-frames (what is \
                 remembered; open frames are not compressed yet); device-bytes, host-bytes, disk-bytes \
                 (the same by tier); blocks (a unit in a layer), hits and loads (blocks that \
                 questions found on the device or had to decode), lost-blocks (to damaged files); \
                 encode-ms-per-frame, answer-ms (means); live, model-loaded",
            )
            .read_only()
            .build(),
    ]
}

fn question_properties() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecString::builder("question")
            .nick("Question")
            .blurb(
                "Set while video is playing: asked at once. Set before: asked every \
                 question-interval, or once at the end of the stream",
            )
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("question-interval")
            .nick("Question interval")
            .blurb("Running time in ns after which `question` is asked again. 0: it is asked once")
            .maximum(u64::MAX - 1)
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("questions-file")
            .nick("Questions file")
            .blurb(
                "JSON Lines, one question each: {\"question\": \"...\", \"at\": s, \"interval\": s, \
                 \"on-change\": bool, \"tag\": \"...\", \"max-tokens\": n}; only question is needed, \
                 times are seconds of running time. Without at or interval: asked at the end of the \
                 stream. on-change reports an answer only if it differs from the last one. Blank \
                 lines and lines that begin with # are skipped",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-pending")
            .nick("Maximum pending questions")
            .blurb(
                "Questions that may wait for an answer. Another one holds the video back where \
                 nothing may be lost and a schedule asks it, and is answered with \
                 status=dropped otherwise",
            )
            .minimum(1)
            .default_value(DEFAULT_MAX_PENDING)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("pending")
            .nick("Pending questions")
            .blurb("Questions asked and not yet answered; those whose time has not come do not count")
            .read_only()
            .build(),
        glib::ParamSpecUInt64::builder("eos-timeout")
            .nick("EOS timeout")
            .blurb(
                "Longest time in ns that the end of the stream is held back for pending answers; \
                 what is not answered by then is cancelled. 18446744073709551615: for ever",
            )
            .default_value(DEFAULT_EOS_TIMEOUT.nseconds())
            .mutable_playing()
            .build(),
    ]
}

fn answer_properties() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecString::builder("last-answer")
            .nick("Last answer")
            .blurb("Text of the last answer; notifies")
            .read_only()
            .build(),
        glib::ParamSpecBoolean::builder("post-messages")
            .nick("Post messages")
            .blurb(
                "Post an element message streamkvqa/answer for every answer: id, question, answer, \
                 tag, status (ok, cancelled, dropped, error), asked-at and answered-at (running \
                 time, ns), asked-at-stream (ns), wall-clock (ns since 1970, if known), evidence \
                 (list of start, end in ns and score), tokens, latency-ms, truncated",
            )
            .default_value(true)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder::<TextFormat>("text-format")
            .nick("Text format")
            .blurb("What a buffer on the text pad holds")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("text-template")
            .nick("Text template")
            .blurb(
                "Plain text of an answer; {question}, {answer}, {tag}, {start} and {end} (of the \
                 strongest evidence) are filled in, {br} or \\n is a line feed",
            )
            .default_value(Some(DEFAULT_TEXT_TEMPLATE))
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("text-duration")
            .nick("Text duration")
            .blurb("Duration in ns of a buffer on the text pad")
            .minimum(1)
            .maximum(u64::MAX - 1)
            .default_value(DEFAULT_TEXT_DURATION.nseconds())
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder::<TextTimestamp>("text-timestamp")
            .nick("Text timestamp")
            .blurb("To which moment an answer on the text pad belongs")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("latency")
            .nick("Text latency")
            .blurb(
                "Latency in ns that the text pad adds to the pipeline's. It delays every sink; \
                 sync=false on the text branch is mostly the better way",
            )
            .maximum(u64::MAX - 1)
            .mutable_ready()
            .build(),
    ]
}
