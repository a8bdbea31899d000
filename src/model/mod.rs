// SPDX-License-Identifier: MPL-2.0
//! Running a Video-LLM checkpoint: frames in, tokens of the decoder's width out, and a decoder
//! that leaves its attention to the caller.
//!
//! [`VideoLlm::load`] reads a Hugging Face folder. Which family it belongs to, the front door asks
//! (`family.rs`), and nobody behind it again; a family is a folder here (docs/adding-a-model.md). The unit
//! of video is what becomes one block of tokens: a frame, or two of them. Nothing here knows how a stream
//! is remembered; see [`decoder::Attend`] for the seam.

pub mod attention;
pub mod checkpoint;
mod choice;
pub mod decoder;
mod device;
mod family;
mod files;
mod gate;
mod gathering;
pub mod generate;
pub mod hub;
pub mod installed;
mod internvl;
pub mod kernels;
mod linear;
mod llava_onevision;
mod load;
mod norm;
mod picture;
pub mod preprocess;
pub mod prompt;
mod quantised;
mod qwen2_5_vl;
mod qwen2_vl;
mod qwen3_vl;
mod room;
pub mod rope;
#[cfg(test)]
mod saved;
pub(crate) mod side_by_side;
pub(crate) mod sound;
pub mod stage;
pub mod text_image;
pub mod verdict;
mod video_llm;
pub mod vision;
mod worth;

pub use self::checkpoint::Recommendations;
pub use self::load::{
    DTypeChoice, DeviceChoice, HubOptions, LoadOptions, LoadProgress, LoadStep, Report,
};
pub use self::room::MemoryShare;
pub use self::video_llm::VideoLlm;
