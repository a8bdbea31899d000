// SPDX-License-Identifier: MPL-2.0
//! What can go wrong in the engine. Every message names the file, tensor, option or frame at fault
//! and, where there is one, the remedy.

use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, EngineError>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A file or folder that could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },

    /// A checkpoint folder or file whose content is not what the engine can run.
    #[error("{}: {reason}", path.display())]
    Checkpoint { path: PathBuf, reason: String },

    /// A tensor that is missing, or whose shape contradicts the config.
    #[error("tensor `{name}` in {}: {reason}", path.display())]
    Tensor { path: PathBuf, name: String, reason: String },

    /// A model named on the Hugging Face hub that is not at hand.
    #[error("{name}: {reason}")]
    Hub { name: String, reason: String },

    #[error("unknown method `{name}`; known methods: {known}")]
    UnknownMethod { name: String, known: String },

    /// What a method does in a way that the model is not made for.
    #[error("method `{name}`: {reason}")]
    Method { name: String, reason: String },

    /// Words in front of the video that cannot be taken.
    #[error("`{name}`: {reason}")]
    Words { name: String, reason: String },

    /// A method option with an unknown name or a value out of range.
    #[error("method option `{key}`: {reason}")]
    Option { key: String, reason: String },

    /// A setting that this model has no use for. Streams report it as a warning.
    #[error("{name} is not used: {reason}")]
    Unused { name: String, reason: String },

    /// A frame whose buffer does not fit its size, or that has no picture at all.
    #[error("frame at {time:.3} s: {reason}")]
    Frame { time: f64, reason: String },

    /// A computation that gave NaN or infinity. Of a frame: it is not remembered, and a warning.
    #[error(
        "{what} are not finite numbers; a damaged weight gives that, or numbers too large for \
         dtype=f16, where f32 helps"
    )]
    NotFinite { what: String },

    #[error("question: {0}")]
    Question(String),

    #[error("tokenizer: {0}")]
    Tokenizer(String),

    #[error("device `{name}`: {reason}")]
    Device { name: String, reason: String },

    /// A tier of the memory that is smaller than it was to be. Never an answer's failure: streams
    /// report it as a warning.
    #[error("video memory: {} {reason}", path.display())]
    Store { path: PathBuf, reason: String },

    /// A file that a memory was saved to, or is to be, and what to do about it.
    #[error("saved memory {} (memory-path): {reason}", path.display())]
    Snapshot { path: PathBuf, reason: String },

    /// The caller raised the [`Cancel`](crate::Cancel) flag.
    #[error("cancelled")]
    Cancelled,

    #[error(transparent)]
    Compute(#[from] candle_core::Error),
}
