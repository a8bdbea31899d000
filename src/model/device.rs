// SPDX-License-Identifier: MPL-2.0
//! Where a model runs and in which number formats.

use candle_core::{DType, Device};

use super::load::{DTypeChoice, DeviceChoice};
use super::quantised;
use crate::error::{EngineError, Result};

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

/// The CUDA libraries are looked for now, at the first call (tools/cuda/lazy.sh): a program with the
/// feature `cuda` starts on any machine, and what is missing is an error like any other.
#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Device> {
    let fails = |reason: String| EngineError::Device { name: format!("cuda:{ordinal}"), reason };
    super::kernels::table::Table::get().map_err(|reason| fails(reason.into()))?;
    let opened = Device::new_cuda_with_stream(ordinal).and_then(|device| {
        let cuda = device.as_cuda_device()?;
        // SAFETY: this device has one stream, whatever thread uses it, and nothing of it is used on
        // another; so all is done in the order in which it was asked for, and events add nothing.
        unsafe { cuda.disable_event_tracking() };
        keep_freed_memory(cuda)?;
        Ok(device)
    });
    opened.map_err(|fault| {
        // Behind the first line is a backtrace, where RUST_BACKTRACE asks for one.
        let fault = fault.to_string();
        let fault = fault.lines().next().unwrap_or_default();
        fails(format!(
            "{fault}; needed are an NVIDIA driver (nvidia-smi lists the devices) and, where the \
             dynamic linker looks, libcublas.so.13, libcublasLt.so.13 and libcurand.so.10. Choose \
             the CPU otherwise"
        ))
    })
}

/// Memory that is freed stays with this process: by default every wait for the device gives it back,
/// and the next pass pays for having it mapped again.
#[cfg(feature = "cuda")]
fn keep_freed_memory(device: &candle_core::CudaDevice) -> candle_core::Result<()> {
    use candle_core::cuda::cudarc::driver::sys;
    let context = device.cuda_stream().context().clone();
    let mut pool = std::ptr::null_mut();
    let mut everything = u64::MAX;
    // SAFETY: the device is that of a living context; the driver writes the pool's handle where it is
    // told to and reads a u64, which is what this attribute is.
    let done = unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result().and_then(|()| {
            sys::cuMemPoolSetAttribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                (&raw mut everything).cast(),
            )
            .result()
        })
    };
    // A device without pools allocates and frees as it can.
    match done {
        Ok(()) => Ok(()),
        Err(e) if e.0 == sys::CUresult::CUDA_ERROR_NOT_SUPPORTED => Ok(()),
        Err(e) => Err(candle_core::Error::wrap(e)),
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(ordinal: usize) -> Result<Device> {
    Err(EngineError::Device {
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
    /// Matrices of linear layers are held in eight bits instead.
    pub eight_bits: bool,
    /// Inputs of linear layers are rounded to bf16, as the matrices are.
    pub in_bf16: bool,
}

impl Formats {
    /// On the CPU what flows is f32 whatever the matrices are held in; only where bf16 is asked for by
    /// name are products taken in it (see [`linear`](super::linear)). `eight_by_itself`: whether `auto`
    /// takes eight bits there.
    ///
    /// # Errors
    /// [`Device`](EngineError::Device) for a format that the device cannot compute with.
    pub fn new(
        choice: DTypeChoice,
        on_cpu: bool,
        stored: Option<DType>,
        eight_by_itself: bool,
    ) -> Result<Self> {
        let matrices = match choice {
            DTypeChoice::F32 => DType::F32,
            DTypeChoice::Bf16 => DType::BF16,
            DTypeChoice::F16 => DType::F16,
            DTypeChoice::Auto | DTypeChoice::Q8 => stored.unwrap_or(DType::F32),
        };
        let eight_bits = match choice {
            DTypeChoice::Q8 => true,
            DTypeChoice::Auto => on_cpu && eight_by_itself,
            _ => false,
        };
        if eight_bits && !on_cpu {
            return Err(EngineError::Device {
                name: "cuda".into(),
                reason: "weights of eight bits (dtype q8) are for the CPU; a GPU computes in bf16 \
                         or f16: choose one of them, or auto"
                    .into(),
            });
        }
        let flow = if on_cpu { DType::F32 } else { matrices };
        let in_bf16 = on_cpu && choice == DTypeChoice::Bf16;
        Ok(Self { matrices, flow, eight_bits, in_bf16 })
    }

    /// The format in which a weight of this rank is read.
    pub fn of(self, rank: usize) -> DType {
        if rank < 2 { self.flow } else { self.matrices }
    }

    /// Whether a loader has a tensor of this name; `is_there`: whether the checkpoint has.
    pub fn have(self, name: &str, is_there: impl Fn(&str) -> bool) -> bool {
        match (quantised::name_of(name), quantised::rounding_of(name)) {
            (Some(name), _) => self.eight_bits && is_there(name),
            (None, Some(name)) => self.in_bf16 && is_there(name),
            (None, None) => is_there(name),
        }
    }

    /// The name of what most weights are held in, as `dtype` has it.
    pub fn name(self) -> &'static str {
        match self.matrices {
            _ if self.eight_bits => "q8",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            other => other.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits_are_for_the_cpu_and_come_by_themselves_where_they_are_worth_it() {
        let formats = |choice, on_cpu, worth| {
            Formats::new(choice, on_cpu, Some(DType::BF16), worth).map(Formats::name)
        };
        assert_eq!(formats(DTypeChoice::Auto, true, true).unwrap(), "q8");
        assert_eq!(formats(DTypeChoice::Auto, true, false).unwrap(), "bf16");
        assert_eq!(formats(DTypeChoice::Auto, false, true).unwrap(), "bf16");
        assert_eq!(formats(DTypeChoice::Q8, true, false).unwrap(), "q8");
        assert_eq!(formats(DTypeChoice::F16, true, true).unwrap(), "f16");
        let refused = formats(DTypeChoice::Q8, false, false).unwrap_err().to_string();
        assert!(refused.contains("choose one of them, or auto"), "{refused}");
    }
}
