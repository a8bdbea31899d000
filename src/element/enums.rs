// SPDX-License-Identifier: MPL-2.0
//! The choices that properties offer.

use glib::prelude::*;
use gstreamer as gst;

use crate::memory::store::codec::Codec;

/// Whether frames may be lost when the model is slower than the video.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstStreamKvqaLeaky")]
#[non_exhaustive]
pub enum Leaky {
    #[default]
    #[enum_value(name = "Drop in live pipelines, hold the video back otherwise", nick = "auto")]
    Auto,
    #[enum_value(name = "Hold the video back, lose nothing", nick = "never")]
    Never,
    #[enum_value(
        name = "Drop the oldest waiting frame, never hold the video back",
        nick = "always"
    )]
    Always,
}

/// In which number format the weights are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstStreamKvqaDType")]
#[non_exhaustive]
pub enum DType {
    #[default]
    #[enum_value(
        name = "The checkpoint's own format; q8 for a large model on a CPU with VNNI",
        nick = "auto"
    )]
    Auto,
    #[enum_value(name = "32-bit floating point", nick = "f32")]
    F32,
    #[enum_value(name = "16-bit brain floating point", nick = "bf16")]
    Bf16,
    #[enum_value(name = "16-bit floating point", nick = "f16")]
    F16,
    #[enum_value(name = "8 bits with a scale for each output; on the CPU only", nick = "q8")]
    Q8,
}

/// In which number format the remembered keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstStreamKvqaStore")]
#[non_exhaustive]
pub enum Store {
    #[default]
    #[enum_value(
        name = "As the model computes; with bounded tiers, the finest of which an hour fits",
        nick = "auto"
    )]
    Auto,
    #[enum_value(name = "32-bit floating point", nick = "f32")]
    F32,
    #[enum_value(name = "16-bit floating point", nick = "f16")]
    F16,
    #[enum_value(
        name = "16-bit brain floating point: 8 bits of each value, less than q8 keeps where keys have a large bias (Qwen2)",
        nick = "bf16"
    )]
    Bf16,
    #[enum_value(name = "8 bits a value, in groups of 32 (KIVI)", nick = "q8")]
    Q8,
    #[enum_value(name = "4 bits a value, in groups of 32 (KIVI)", nick = "q4")]
    Q4,
    #[enum_value(name = "2 bits a value, in groups of 32 (KIVI)", nick = "q2")]
    Q2,
}

impl Store {
    pub(super) fn codec(self) -> Option<Codec> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(Codec::F32),
            Self::F16 => Some(Codec::F16),
            Self::Bf16 => Some(Codec::Bf16),
            Self::Q8 => Some(Codec::Q8),
            Self::Q4 => Some(Codec::Q4),
            Self::Q2 => Some(Codec::Q2),
        }
    }
}

/// Who decides the words around the video and the question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstStreamKvqaPromptStyle")]
#[non_exhaustive]
pub enum PromptStyle {
    #[default]
    #[enum_value(name = "The checkpoint's own chat template", nick = "hf")]
    Hf,
    #[enum_value(name = "The separately tokenised pieces of ReKV and StreamKV", nick = "rekv")]
    Rekv,
}

/// What a buffer on the text pad holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstStreamKvqaTextFormat")]
#[non_exhaustive]
pub enum TextFormat {
    #[default]
    #[enum_value(name = "The text that text-template makes of an answer", nick = "plain")]
    Plain,
    #[enum_value(name = "One JSON object and a line feed (JSON Lines)", nick = "json")]
    Json,
}

/// To which moment an answer on the text pad belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstStreamKvqaTextTimestamp")]
#[non_exhaustive]
pub enum TextTimestamp {
    #[default]
    #[enum_value(name = "answer in live pipelines, question otherwise", nick = "auto")]
    Auto,
    #[enum_value(
        name = "The moment the answer was ready; text never holds anything up",
        nick = "answer"
    )]
    Answer,
    #[enum_value(
        name = "The moment of the question; the text stream waits for it",
        nick = "question"
    )]
    Question,
}

/// Which event makes the element forget everything seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstStreamKvqaResetOn")]
#[non_exhaustive]
pub enum ResetOn {
    #[default]
    #[enum_value(name = "Keep the memory as long as the element runs", nick = "never")]
    Never,
    #[enum_value(name = "A new stream: source switch, reconnection", nick = "stream-start")]
    StreamStart,
    #[enum_value(
        name = "A new segment: every seek, every stream of a concatenation",
        nick = "segment"
    )]
    Segment,
    #[enum_value(name = "A flush: every flushing seek", nick = "flush")]
    Flush,
    #[enum_value(name = "A change of the video format or size", nick = "caps")]
    Caps,
}

/// Lets the plugin's documentation and `gst-inspect-1.0` know them.
pub(super) fn register() {
    for ty in [
        Leaky::static_type(),
        DType::static_type(),
        Store::static_type(),
        PromptStyle::static_type(),
        TextFormat::static_type(),
        TextTimestamp::static_type(),
        ResetOn::static_type(),
    ] {
        gst::prelude::PluginApiExt::mark_as_plugin_api(ty, gst::PluginAPIFlags::empty());
    }
}
