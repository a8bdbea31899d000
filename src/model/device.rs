// SPDX-License-Identifier: MPL-2.0
//! Opening the device a model runs on.

use candle_core::{DType, Device};

use super::{DTypeChoice, DeviceChoice};
use crate::error::Result;

pub(super) fn open(choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(ordinal) => cuda(ordinal),
        DeviceChoice::Auto => Ok(cuda(0).unwrap_or(Device::Cpu)),
    }
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Device> {
    let fault = |reason: String| crate::error::EngineError::Device {
        name: format!("cuda:{ordinal}"),
        reason,
    };
    // The loader of the CUDA libraries panics where it finds none.
    match std::panic::catch_unwind(|| Device::new_cuda(ordinal)) {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(e)) => Err(fault(e.to_string())),
        Err(_) => Err(fault("the CUDA libraries cannot be loaded; is a driver installed?".into())),
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(ordinal: usize) -> Result<Device> {
    Err(crate::error::EngineError::Device {
        name: format!("cuda:{ordinal}"),
        reason: "this build has no CUDA; build with `--features cuda` or choose the CPU".into(),
    })
}

/// The number format to hold the weights in. The CPU computes in f32: candle widens anything else
/// on every use.
pub(super) fn dtype(choice: DTypeChoice, device: &Device, stored: Option<DType>) -> DType {
    match choice {
        DTypeChoice::F32 => DType::F32,
        DTypeChoice::Bf16 => DType::BF16,
        DTypeChoice::F16 => DType::F16,
        DTypeChoice::Auto if device.is_cpu() => DType::F32,
        DTypeChoice::Auto => stored.unwrap_or(DType::BF16),
    }
}
