// SPDX-License-Identifier: MPL-2.0
//! Our kernels for NVIDIA devices: what they compute, when they are used, and how they are launched.
//!
//! They are written in Triton under `tools/kernels`, compiled ahead to the text in `ptx/` and listed in
//! `table.json`; neither is written by hand. Rust knows them by name, sizes and arguments alone:
//!
//! | room | subject |
//! |---|---|
//! | [`table`] | which kernels there are, in which variants |
//! | [`launch`] | an argument list, a grid, and whoever runs them |
//! | [`attention`] | softmax attention by stages, attention mass |
//! | [`rows`] | rows of keys and values: turned, gathered, averaged |
//! | [`rank`] | the best of many scores |
//! | [`pointwise`] | what stands between the products of a layer |
//! | `cuda` | the launcher of a device |
//!
//! Where there is none for a number format or a size, the caller falls back to candle's operations.
//! A launcher for the CPU's own tensors can be installed for tests: with one that runs the kernels'
//! text in Triton's interpreter, the whole engine takes the way that it takes on a device.

pub mod attention;
#[cfg(feature = "cuda")]
mod cuda;
pub mod launch;
pub mod pointwise;
pub mod rank;
pub mod rows;
pub mod table;

use std::sync::Arc;

use candle_core::{DType, Device, Result, Shape, Tensor};
use parking_lot::RwLock;

use self::launch::{Arg, Launch, Launcher};
use self::table::{Table, Variant};

/// The launcher of the CPU's tensors.
static ON_CPU: RwLock<Option<Arc<dyn Launcher>>> = RwLock::new(None);

/// Runs kernels on tensors of the CPU from now on; `None`: no more. For tests, of everything in the
/// process.
pub fn install_on_cpu(launcher: Option<Arc<dyn Launcher>>) {
    *ON_CPU.write() = launcher;
}

/// Whether what is computed on a device is to stay there: reading it would make the device wait.
pub fn stays_on(device: &Device) -> bool {
    !device.is_cpu() || ON_CPU.read().is_some()
}

/// The kernels of a device.
#[derive(Clone)]
pub struct Kernels {
    table: &'static Table,
    launcher: Arc<dyn Launcher>,
    device: Device,
}

/// The kernels for tensors on this device, if it has any.
pub fn on(device: &Device) -> Option<Kernels> {
    let launcher = match device {
        Device::Cpu => ON_CPU.read().clone()?,
        #[cfg(feature = "cuda")]
        Device::Cuda(cuda) => cuda::launcher(cuda)?,
        _ => return None,
    };
    Some(Kernels { table: Table::get().ok()?, launcher, device: device.clone() })
}

impl Kernels {
    /// The variant of a kernel for a number format that fits best; see [`Table::find`].
    fn variant<F: Ord>(
        &self,
        kernel: &str,
        dtype: DType,
        fit: impl Fn(&Variant) -> Option<F>,
    ) -> Option<&'static Variant> {
        self.table.find(kernel, dtype, self.launcher.generation(), fit)
    }

    /// The only variant there is for a number format.
    fn only(&self, kernel: &str, dtype: DType) -> Option<&'static Variant> {
        self.variant(kernel, dtype, |_| Some(()))
    }

    /// A tensor that a kernel writes before anybody reads it.
    fn output(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        match (&self.device, dtype) {
            // What is forgotten shows.
            (Device::Cpu, DType::F32 | DType::F16 | DType::BF16) => {
                Tensor::full(f32::NAN, shape, &self.device)?.to_dtype(dtype)
            }
            (Device::Cpu, _) => Tensor::zeros(shape, dtype, &self.device),
            // SAFETY: every caller hands it to a kernel that writes all of it, on the stream on
            // which it will be read.
            (device, _) => unsafe { Tensor::empty(shape, dtype, device) },
        }
    }

    fn launch(&self, variant: &Variant, grid: [usize; 3], args: &[Arg<'_>]) -> Result<()> {
        let mut blocks = [0; 3];
        for (axis, (blocks, wanted)) in blocks.iter_mut().zip(grid).enumerate() {
            // Only the first axis of a grid may be long.
            let most = if axis == 0 { i32::MAX as usize } else { 65_535 };
            if wanted > most {
                candle_core::bail!("kernel {}: a grid of {grid:?} blocks", variant.kernel)
            }
            *blocks = wanted as u32;
        }
        if blocks.contains(&0) {
            return Ok(());
        }
        self.launcher.launch(&Launch { variant, grid: blocks, args })
    }
}

/// A count or a stride as kernels take it.
fn count(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| candle_core::Error::msg(format!("{n} is too many for a kernel")))
}

/// What kernels take addresses to be multiples of, in bytes, and strides, in elements.
const ALIGNED: usize = 16;
const STEP: usize = 8;

/// The tensor itself where the last axis is dense and rows lie as kernels want them, else a copy.
fn dense(x: &Tensor) -> Result<Tensor> {
    let (layout, size) = (x.layout(), x.dtype().size_in_bytes());
    let aligned = (layout.start_offset() * size).is_multiple_of(ALIGNED);
    match layout.stride() {
        [rest @ .., 1] if aligned && rest.iter().all(|s| s.is_multiple_of(STEP)) => Ok(x.clone()),
        _ => x.force_contiguous(),
    }
}

/// Whether rows of so many elements can lie as kernels want them.
fn suits(dim: usize) -> bool {
    dim.is_multiple_of(STEP)
}

/// Strides of the first two axes of `[H, n, d]`.
fn strides(x: &Tensor) -> Result<[Arg<'static>; 2]> {
    match *x.stride() {
        [head, row, _] => Ok([Arg::I64(head as i64), Arg::I64(row as i64)]),
        _ => candle_core::bail!("{:?} is not [heads, rows, dim]", x.dims()),
    }
}
