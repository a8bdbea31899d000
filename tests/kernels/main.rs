// SPDX-License-Identifier: MPL-2.0
//! The way of a device, walked on the CPU: every kernel is run by a launcher for the CPU's own
//! tensors, and what the other tests hold of models and memories has to hold of this way too.
//!
//! The launcher is the contract in plain loops ([`reference`]), or, with `STREAMKVQA_EMULATOR` (the
//! command of `tools/kernels/serve.py`), the kernels' own text in Triton's interpreter: `make
//! gpu-check` has both.

// The tests that are taken along share their helpers, each in its own copy.
#![allow(clippy::duplicate_mod)]

mod each;
mod emulator;
mod reference;

// The same promises, kept by other means.
#[path = "../memory.rs"]
mod memory;
#[path = "../methods.rs"]
mod methods;
#[path = "../model.rs"]
mod model;
#[path = "../model_finite.rs"]
mod model_finite;
#[path = "../qwen.rs"]
mod qwen;

use std::sync::Arc;

use gststreamkvqa::model::kernels::install_on_cpu;
use gststreamkvqa::model::kernels::launch::Launcher;

/// Before any test, since it is so for the whole process.
#[ctor::ctor(unsafe)]
fn install() {
    install_on_cpu(Some(launcher()));
}

fn launcher() -> Arc<dyn Launcher> {
    match std::env::var("STREAMKVQA_EMULATOR") {
        Ok(command) if !command.is_empty() => Arc::new(emulator::Emulator::start(&command)),
        _ => Arc::new(reference::Reference),
    }
}
