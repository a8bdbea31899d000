// SPDX-License-Identifier: MPL-2.0
//! The launcher of an NVIDIA device: loads each kernel's text once, and puts launches on the device's
//! one stream.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use candle_core::cuda::cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use candle_core::cuda::cudarc::driver::{CudaFunction, LaunchConfig, PushKernelArg};
use candle_core::cuda::{CudaDType, DeviceId};
use candle_core::{CudaDevice, CudaStorage, DType, Error, Result, Storage, Tensor};
use half::{bf16, f16};
use parking_lot::RwLock;

use super::launch::{Arg, Launch, Launcher};
use super::table;

/// Threads of a warp.
const WARP: u32 = 32;
/// Shared memory that a kernel gets without asking, in bytes.
const PLAIN_SHARED: u32 = 48 << 10;

struct OnDevice {
    device: CudaDevice,
    generation: u32,
    /// By file, of which each has one. Lock order: nothing is locked beside it.
    functions: RwLock<HashMap<String, CudaFunction>>,
}

/// The launcher of a device, one for each; `None` where the device does not say what it is.
pub fn launcher(device: &CudaDevice) -> Option<Arc<dyn Launcher>> {
    static ALL: OnceLock<RwLock<HashMap<DeviceId, Arc<dyn Launcher>>>> = OnceLock::new();
    let all = ALL.get_or_init(RwLock::default);
    if let Some(launcher) = all.read().get(&device.id()) {
        return Some(Arc::clone(launcher));
    }
    let (major, minor) = device.cuda_stream().context().compute_capability().ok()?;
    let launcher: Arc<dyn Launcher> = Arc::new(OnDevice {
        device: device.clone(),
        generation: (10 * major + minor).max(0) as u32,
        functions: RwLock::default(),
    });
    Some(Arc::clone(all.write().entry(device.id()).or_insert(launcher)))
}

impl OnDevice {
    fn function(&self, launch: &Launch<'_>) -> Result<CudaFunction> {
        let variant = launch.variant;
        if let Some(function) = self.functions.read().get(&variant.file) {
            return Ok(function.clone());
        }
        let text = table::ptx(variant).map_err(Error::msg)?;
        let function = self.device.get_or_load_custom_func(&variant.entry, &variant.file, &text)?;
        let function = function.into_cuda_function();
        if variant.shared > PLAIN_SHARED {
            function
                .set_attribute(
                    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    variant.shared.min(i32::MAX as u32) as i32,
                )
                .map_err(Error::wrap)?;
        }
        self.functions.write().insert(variant.file.clone(), function.clone());
        Ok(function)
    }

    /// The address of a view's first element.
    fn address(&self, x: &Tensor) -> Result<u64> {
        let (storage, layout) = x.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            candle_core::bail!("a kernel of {:?} was given a tensor of the CPU", self.device)
        };
        let stream = self.device.cuda_stream();
        fn start<T: CudaDType + candle_core::cuda::cudarc::driver::DeviceRepr>(
            storage: &CudaStorage,
            stream: &candle_core::cuda::cudarc::driver::CudaStream,
        ) -> Result<u64> {
            use candle_core::cuda::cudarc::driver::DevicePtr;
            // What the second value would wait for is on this same stream.
            Ok(storage.as_cuda_slice::<T>()?.device_ptr(stream).0)
        }
        let start = match x.dtype() {
            DType::BF16 => start::<bf16>(storage, &stream)?,
            DType::F16 => start::<f16>(storage, &stream)?,
            DType::F32 => start::<f32>(storage, &stream)?,
            DType::I32 => start::<i32>(storage, &stream)?,
            DType::I64 => start::<i64>(storage, &stream)?,
            DType::U32 => start::<u32>(storage, &stream)?,
            other => candle_core::bail!("no kernel takes {other:?}"),
        };
        Ok(start + (layout.start_offset() * x.dtype().size_in_bytes()) as u64)
    }
}

/// A parameter's bytes, where the driver reads them.
enum Value {
    Address(u64),
    I32(i32),
    I64(i64),
    F32(f32),
}

impl Launcher for OnDevice {
    fn generation(&self) -> u32 {
        self.generation
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        launch.check()?;
        let function = self.function(launch)?;
        let mut values = Vec::with_capacity(launch.variant.params.len());
        for arg in launch.args {
            values.push(match *arg {
                Arg::Read(x) | Arg::Write(x) => Value::Address(self.address(x)?),
                Arg::I32(n) => Value::I32(n),
                Arg::I64(n) => Value::I64(n),
                Arg::F32(x) => Value::F32(x),
            });
        }
        // What the compiler may add and these kernels do not use.
        values.resize_with(launch.variant.params.len(), || Value::Address(0));
        let stream = self.device.cuda_stream();
        let mut builder = stream.launch_builder(&function);
        for value in &values {
            match value {
                Value::Address(address) => builder.arg(address),
                Value::I32(n) => builder.arg(n),
                Value::I64(n) => builder.arg(n),
                Value::F32(x) => builder.arg(x),
            };
        }
        let [x, y, z] = launch.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (launch.variant.num_warps * WARP, 1, 1),
            shared_mem_bytes: launch.variant.shared,
        };
        // SAFETY: number and kinds of the parameters are those that the kernel's text declares, and
        // its pointers point into tensors that live until the launch is on the stream: what frees
        // them is queued behind it. That it stays inside them is what `make gpu-check` proves.
        unsafe { builder.launch(config) }.map_err(Error::wrap)?;
        Ok(())
    }
}
