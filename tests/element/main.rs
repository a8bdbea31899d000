// SPDX-License-Identifier: MPL-2.0
//! The element in real pipelines.

#[path = "../common/copy.rs"]
mod copy;
#[path = "../common/leaks.rs"]
mod leaks;
#[path = "../common/pipeline.rs"]
mod pipeline;

mod answers;
mod bounds;
mod cameras;
mod faults;
mod life;
mod picture;
mod questions;
mod qwen;
mod saved;
mod settings;
mod standing;
mod text;
mod time;
mod unseen;
mod video;
