// SPDX-License-Identifier: MPL-2.0
//! A kernel's launch as data, and whoever carries it out.

use candle_core::{Result, Tensor};

use super::table::Variant;

/// One argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// Where a view's first element lies.
    Read(&'a Tensor),
    /// The same, to be written; nobody else may read or write it meanwhile.
    Write(&'a Tensor),
    I32(i32),
    I64(i64),
    F32(f32),
}

impl Arg<'_> {
    /// What is promised of it: the bytes between a view's beginning and its storage's, which lies as a
    /// device lays it, or the number.
    fn number(&self) -> u64 {
        match *self {
            Self::Read(x) | Self::Write(x) => {
                (x.layout().start_offset() * x.dtype().size_in_bytes()) as u64
            }
            Self::I32(n) => u64::from(n.unsigned_abs()),
            Self::I64(n) => n.unsigned_abs(),
            Self::F32(_) => 0,
        }
    }

    /// The kind of parameter that it fills, as `table.json` has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Read(_) | Self::Write(_) => "ptr",
            Self::I32(_) => "i32",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
        }
    }
}

/// A kernel to run over a grid of blocks.
#[derive(Debug)]
pub struct Launch<'a> {
    pub variant: &'a Variant,
    pub grid: [u32; 3],
    pub args: &'a [Arg<'a>],
}

impl Launch<'_> {
    /// Whether the arguments are those that the kernel has, and lie as it was promised.
    ///
    /// # Errors
    /// Says what is not so.
    pub fn check(&self) -> Result<()> {
        let own = self.variant.params.iter().filter(|kind| *kind != "scratch");
        let given: Vec<&str> = self.args.iter().map(Arg::kind).collect();
        if !own.eq(given.iter()) {
            candle_core::bail!(
                "kernel {} takes {:?}, not {given:?}",
                self.variant.kernel,
                self.variant.params
            )
        }
        let promised = self.args.iter().zip(&self.variant.divisible);
        for (at, (arg, by)) in promised.enumerate() {
            if arg.number() % by != 0 {
                candle_core::bail!(
                    "kernel {}: argument {at} is {}, which is no multiple of {by}",
                    self.variant.kernel,
                    arg.number()
                )
            }
        }
        Ok(())
    }
}

/// Runs kernels on the tensors of a device, in the order in which they come.
pub trait Launcher: Send + Sync {
    /// What the device understands: 90 for 9.0, and so on.
    fn generation(&self) -> u32;

    /// # Errors
    /// What the device says.
    fn launch(&self, launch: &Launch<'_>) -> Result<()>;
}
