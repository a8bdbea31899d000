// SPDX-License-Identifier: MPL-2.0
//! Where a model runs and in which number formats.

use candle_core::{DType, Device};

use super::load::{DTypeChoice, DeviceChoice};
use crate::error::Result;

/// Opens a device. The second value says why `auto` fell back to the CPU, if a CUDA build did.
pub(super) fn open(choice: DeviceChoice) -> Result<(Device, Option<String>)> {
    match choice {
        DeviceChoice::Cpu => Ok((Device::Cpu, None)),
        DeviceChoice::Cuda(ordinal) => Ok((cuda(ordinal)?, None)),
        DeviceChoice::Auto => match cuda(0) {
            Ok(device) => Ok((device, None)),
            // A build without CUDA has nothing to miss.
            Err(why) => Ok((Device::Cpu, cfg!(feature = "cuda").then(|| why.to_string()))),
        },
    }
}

/// The CUDA libraries are linked, so this program does not start where they are not installed; what
/// is left to fail is the driver or the device.
#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Device> {
    Device::new_cuda(ordinal).map_err(|e| crate::error::EngineError::Device {
        name: format!("cuda:{ordinal}"),
        reason: format!(
            "{e}; is an NVIDIA driver running (nvidia-smi lists the devices)? Choose the CPU \
             otherwise"
        ),
    })
}

#[cfg(not(feature = "cuda"))]
fn cuda(ordinal: usize) -> Result<Device> {
    Err(crate::error::EngineError::Device {
        name: format!("cuda:{ordinal}"),
        reason: "this build has no CUDA; build with `--features cuda` or choose the CPU".into(),
    })
}

/// The number formats of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Formats {
    /// Of matrices, which are nearly all of the weights.
    pub matrices: DType,
    /// Of what flows between the layers, and of the vectors added to it or multiplied with it.
    pub flow: DType,
}

impl Formats {
    /// On the CPU what flows is f32 whatever the matrices are held in: it has fast products of
    /// f32 with narrower weights (see [`linear`](super::linear)) and slow ones of two narrow
    /// operands.
    pub fn new(choice: DTypeChoice, device: &Device, stored: Option<DType>) -> Self {
        let matrices = match choice {
            DTypeChoice::F32 => DType::F32,
            DTypeChoice::Bf16 => DType::BF16,
            DTypeChoice::F16 => DType::F16,
            DTypeChoice::Auto => stored.unwrap_or(DType::F32),
        };
        Self { matrices, flow: if device.is_cpu() { DType::F32 } else { matrices } }
    }

    /// The format of a weight of this rank.
    pub fn of(self, rank: usize) -> DType {
        if rank < 2 { self.flow } else { self.matrices }
    }
}
