// SPDX-License-Identifier: MPL-2.0
//! The property table: names, ranges, defaults, descriptions and what a change takes.

use std::sync::LazyLock;

use glib::prelude::*;
use gst::prelude::*;
use gstreamer as gst;

use super::enums::{DType, Leaky, PromptStyle, ResetOn, Store, TextFormat, TextTimestamp};
use super::question::MAX_TOKENS;
use super::settings::{
    DEFAULT_AUTOSAVE_INTERVAL, DEFAULT_DEVICE, DEFAULT_EOS_TIMEOUT, DEFAULT_FRAME_SIZE,
    DEFAULT_MAX_PENDING, DEFAULT_MAX_QUEUE, DEFAULT_METHOD, DEFAULT_REUSE_TOLERANCE,
    DEFAULT_SKIP_TOLERANCE, DEFAULT_STALL_TIMEOUT, DEFAULT_STORE_RESIDUAL, DEFAULT_TEXT_DURATION,
    DEFAULT_TEXT_TEMPLATE,
};
use crate::memory::recipe::RecipeOption;
use crate::{Question, Recipe};

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
        "Changes to the method as \"key=value,key=value\"; a value with commas is quoted, key=\"a, b\". \
         An option that the method does not have fails the state change. Options, their defaults where no method is named and in the \
         methods that are, and where they come from:{}",
        lines.collect::<String>()
    );
    vec![
        glib::ParamSpecString::builder("model-path")
            .nick("Model path")
            .blurb(
                "Hugging Face folder of the Video-LLM (Qwen3-VL, Qwen2.5-VL, Qwen2-VL, LLaVA-OneVision or \
                 InternVL3), for instance models/toyworld; or hf:owner/name[@revision] for one in the Hugging Face cache \
                 (HF_HUB_CACHE, HF_HOME); or the name of an installed one, for instance everyday \
                 (STREAMKVQA_MODELS, /usr/share/streamkvqa/models). Unset: the environment variable STREAMKVQA_MODEL. \
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
            .blurb("Number format of the weights. The CPU computes in f32 with all but q8, and a model large \
                 enough takes q8 there by itself where the processor has VNNI; stats says what it took")
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
        glib::ParamSpecBoxed::builder::<gst::Structure>("method-options-structure")
            .nick("Method options as a structure")
            .blurb(
                "The same as a GstStructure of any name: a field an option, texts and numbers as they \
                 are. What it says goes before what method-options says",
            )
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
                "Do as transformers 5 where that is not how checkpoints were trained: put the question \
                 behind the video's first picture instead of behind its last moment (Qwen2-VL, \
                 Qwen2.5-VL), or one more pair of brackets around all units (Qwen3-VL); of no effect \
                 on other models",
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
                "Upper bound in bytes for what is remembered of the video. Where there is no room for more, \
                 the oldest gets coarser step by step (`thin` in method-options), or leaves for the \
                 tiers of max-host-memory and disk-path where they are set. With them, or with a store \
                 coarser than the model computes, it bounds what is held decoded on the model's device. \
                 0: half of what is free there when the model's first stream begins, shared evenly by \
                 all its streams (stats has it as memory-limit)",
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
        glib::ParamSpecString::builder("memory-path")
            .nick("Memory path")
            .blurb(
                "File that what is remembered is kept in from one run to the next: read at the start, written at \
                 the stop, every autosave-interval and when save-memory asks for it, as a whole or not at all. A \
                 file that is damaged or of another model, method or format fails the start with one error and is \
                 left as it is. Each stream needs one of its own. What happened is told by an element message \
                 streamkvqa/memory: element, status (restored, saved), path, frames, units, bytes, took-ms, and \
                 json, one text with all of them. Unset: what is remembered ends with the run",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("autosave-interval")
            .nick("Autosave interval")
            .blurb(
                "Time in ns after which the memory is written to memory-path again if anything has been seen \
                 since; the video and the questions go on meanwhile. A file that cannot be written is a warning, \
                 and the one before it stays. 0: only at the stop and when save-memory asks for it",
            )
            .maximum(u64::MAX - 1)
            .default_value(DEFAULT_AUTOSAVE_INTERVAL.nseconds())
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
        glib::ParamSpecDouble::builder("temperature")
            .nick("Temperature")
            .blurb(
                "Draw the tokens of an answer, their scores divided by this; likely tokens become \
                 likelier below 1. 0: the best token each time, whatever the model's \
                 generation_config.json says of do_sample",
            )
            .minimum(0.0)
            .maximum(100.0)
            .default_value(0.0)
            .mutable_playing()
            .build(),
        glib::ParamSpecDouble::builder("top-p")
            .nick("Top p")
            .blurb(
                "Where temperature draws tokens: draw from the fewest that have this probability \
                 together. 1: from all",
            )
            .minimum(0.0)
            .maximum(1.0)
            .default_value(1.0)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("seed")
            .nick("Seed")
            .blurb(
                "Where temperature draws tokens: the same seed, question and memory give the same \
                 answer",
            )
            .mutable_playing()
            .build(),
    ]
}

fn video_properties() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecBoolean::builder("active")
            .nick("Active")
            .blurb(
                "Whether the model looks at the video. Without, the video passes, what was seen is \
                 kept and questions are answered from it",
            )
            .default_value(true)
            .mutable_playing()
            .build(),
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
                "Longer side in pixels of what the model looks at, for models that give larger \
                 pictures more tokens (Qwen's). It bounds what a frame costs, and with it what \
                 can be read in it; what the model looks at is made of all pixels of the frame. 0: \
                 as the model's processor says",
            )
            .maximum(32768)
            .default_value(DEFAULT_FRAME_SIZE)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-skip")
            .nick("Most frames to skip")
            .blurb(
                "Sampled frames in a row that the model need not look at because they show what the \
                 last one showed (skip-tolerance); that picture then stands for their time as well, \
                 and stats counts them as skipped. 0: it looks at every one",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecDouble::builder("skip-tolerance")
            .nick("Skip tolerance")
            .blurb(
                "Grey levels of 255 by which, on average, the place of 16 x 16 pixels that differs most \
                 may differ from the last picture for a frame to be skipped. 0: only what is equal",
            )
            .minimum(0.0)
            .maximum(255.0)
            .default_value(DEFAULT_SKIP_TOLERANCE)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("tower-reuse")
            .nick("Frames that reuse the tower's work")
            .blurb(
                "Sampled frames in a row of which only the patches that changed since an earlier \
                 frame (reuse-tolerance) go through the vision tower; that frame is the last one \
                 that did as a whole, as the first does, one of which more than a quarter has \
                 changed, and every one behind so many. What the others look like beside what \
                 changed is not seen. stats counts the patches. 0: every frame as a whole. For \
                 LLaVA-OneVision; others ignore it, with a warning",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecDouble::builder("reuse-tolerance")
            .nick("Reuse tolerance")
            .blurb(
                "Grey levels of 255 by which, on average, the quarter of a patch that differs \
                 most may differ from the earlier frame for the patch not to go through the \
                 tower. 0: only what is equal",
            )
            .minimum(0.0)
            .maximum(255.0)
            .default_value(DEFAULT_REUSE_TOLERANCE)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<Leaky>("leaky")
            .nick("Leaky")
            .blurb("What happens when frames come faster than the model takes them; stats counts losses")
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("stall-timeout")
            .nick("Stall timeout")
            .blurb(
                "Time in ns without a frame of a live source after which an element message \
                 streamkvqa/video says status=stopped (and, once it is back, status=resumed), with \
                 last-frame (running time, ns) and frame-age (ns). Standing questions go on by the \
                 clock. 0: never",
            )
            .maximum(u64::MAX - 1)
            .default_value(DEFAULT_STALL_TIMEOUT.nseconds())
            .mutable_playing()
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
                "frames-in, sampled, dropped, broken (marked as corrupted, a gap or not to be \
                 shown), unreadable, encoded (frames), skipped (of the encoded, those that showed nothing new), \
                 reused-patches (tower-reuse); \
                 questions, answers, standing (a list of the questions that stand: id, question, tag, the \
                 newest answer and asked-at, and of those with alerts when, holds and since), \
                 picture-changes (counted while a question waits for them); \
                 queue (frames waiting); memory-bytes, units, segments, open-frames (what is \
                 remembered; open frames are not compressed yet), ages (the same by age: oldest, \
                 units, bytes); memory-limit (max-memory, or a share of what \
                 the machine has); device-bytes, host-bytes, disk-bytes \
                 (the same by tier); blocks (a unit in a layer), hits and loads (blocks that \
                 questions found on the device or had to decode), lost-blocks (to damaged files); saves \
                 (to memory-path), save-bytes, save-ms (the last one's file and how long it took to write, beside \
                 everything else), save-pause-ms (how long the last one kept frames and questions waiting); \
                 take-ms-per-frame (in the streaming thread), encode-ms-per-frame, answer-ms (means); \
                 answer-ms-p50 and -p95 (half and 95 % of the last 512 answers came within, waiting \
                 included), first-token-ms-p50 and -p95 (without waiting), tokens-per-second; lag-ms (how \
                 far the newest frame that is remembered lies behind the newest that came); \
                 live, weights (their number format), model-loaded, model-users",
            )
            .read_only()
            .build(),
        glib::ParamSpecUInt64::builder("stats-interval")
            .nick("Statistics interval")
            .blurb("Time in ns after which `stats` is posted as element message streamkvqa/stats, again \
                    and again. 0: it is not posted")
            .maximum(u64::MAX - 1)
            .mutable_ready()
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
                 \"on\": \"change\" or \"detection\", \"on-change\": bool, \"choices\": [\"...\"], \
                 \"when\": \"...\", \"for\": s, \"cool-down\": s, \"from\": s, \"to\": s, \"tag\": \"...\", \
                 \"max-tokens\": n}; \
                 only question is needed, times are seconds of running time. interval asks again and \
                 again, on when the picture changes or upstream has seen something (trigger-classes); \
                 with none of these and without at it is asked at the end of the stream. on-change \
                 reports an answer only if it differs from the last one (with when, if it makes an alert). choices are the answers that \
                 the model decides between; an alert is posted when the answer has been the one in \
                 when for so many seconds, and when it no longer is. from and to say which stretch of the video \
                 the question is about (below 0: before the moment of asking; or a moment of clock time \
                 such as \"2026-05-01T08:30:00Z\"). Blank lines and lines that begin \
                 with # are skipped",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("trigger-classes")
            .nick("Trigger classes")
            .blurb(
                "Names of what detectors mark on frames (GstVideoRegionOfInterestMeta), with commas \
                 between them; * is any. When one of these comes, its frame is shown to the model and \
                 the questions with \"on\": \"detection\" are asked. A custom event streamkvqa/trigger \
                 does the same without a name",
            )
            .mutable_playing()
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
            .blurb(
                "Questions that wait for an answer, those whose time has not come included; a standing \
                 one counts until it is asked for the first time, and while it is being answered",
            )
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
                "Post an element message streamkvqa/answer for every answer: element, id, question, \
                 answer, tag, status (ok, cancelled, dropped, error), last (nothing more comes under \
                 this id), asked-at and answered-at (running time, ns), asked-at-stream (ns), \
                 wall-clock (ns since 1970, if known), frame-age (ns since the newest frame had come \
                 in when it was asked), evidence (list of start, end in ns and score), tokens, \
                 latency-ms, truncated, finish (stop, length, loop); and json, one text with all of \
                 them and times in seconds",
            )
            .default_value(true)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder::<TextFormat>("text-format")
            .nick("Text format")
            .blurb("What a buffer on the text pad holds")
            .mutable_playing()
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
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("latency")
            .nick("Text latency")
            .blurb(
                "Latency in ns that the text pad adds to the pipeline's. It delays every sink; \
                 sync=false on the text branch is mostly the better way",
            )
            .maximum(u64::MAX - 1)
            .mutable_playing()
            .build(),
    ]
}
