// SPDX-License-Identifier: MPL-2.0
//! Which kernels there are: `table.json`, and the text of each.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::OnceLock;

use candle_core::DType;
use serde::Deserialize;

/// A folder with another `table.json` and `ptx/`, to try kernels without another build.
const FOLDER: &str = "STREAMKVQA_KERNELS";

/// A kernel compiled for a number format, a generation of devices and some constants.
#[derive(Clone, Debug, Deserialize)]
pub struct Variant {
    pub kernel: String,
    /// `bf16`, `f16` or `f32`; kernels that know one format only say that.
    pub dtype: String,
    /// The oldest devices that run it: `80` and everything newer, or `90a` and nothing else.
    pub arch: String,
    /// Tile sizes and switches: `DP`, `BM`, `BN`, `BR`, `EVEN`, `MODE`, `TANH`.
    pub constants: BTreeMap<String, i64>,
    /// Its name in the text.
    pub entry: String,
    pub file: String,
    pub num_warps: u32,
    /// Bytes of shared memory of a block.
    pub shared: u32,
    /// Kinds of its parameters, in order; `scratch` are those that the compiler adds.
    pub params: Vec<String>,
    /// What the compiler takes each argument to be a multiple of: bytes of an address, else a number.
    pub divisible: Vec<u64>,
}

impl Variant {
    /// A constant of it, 1 if it has none of that name.
    pub fn constant(&self, name: &str) -> usize {
        self.constants.get(name).map_or(1, |&value| value.max(0) as usize)
    }

    /// Whether a device of this generation runs it, and how well it fits.
    fn fitness(&self, generation: u32) -> Option<u32> {
        match self.arch.strip_suffix('a') {
            Some(exact) => exact.parse().ok().filter(|&arch: &u32| arch == generation),
            None => self.arch.parse().ok().filter(|&arch: &u32| arch <= generation),
        }
    }

    /// How well it fits heads of `dim` channels, less being better: not at all, as one as wide, or as
    /// one that is wider and has to look where each head ends.
    pub fn of_heads(&self, dim: usize) -> Option<(usize, bool)> {
        let (width, exact) = (self.constant("DP"), self.constant("EVEN") == 1);
        let fits = if exact { width == dim } else { width >= dim };
        fits.then_some((width, !exact))
    }
}

/// All variants by kernel and number format.
#[derive(Debug, Default)]
pub struct Table(HashMap<String, Vec<Variant>>);

impl Table {
    /// The table of this process: the plugin's own, or that of the folder which `STREAMKVQA_KERNELS`
    /// names.
    ///
    /// # Errors
    /// Says which file cannot be read, or what is wrong with it.
    pub fn get() -> Result<&'static Self, &'static str> {
        static TABLE: OnceLock<Result<Table, String>> = OnceLock::new();
        TABLE.get_or_init(Self::read).as_ref().map_err(String::as_str)
    }

    fn read() -> Result<Self, String> {
        let text = match folder() {
            Some(folder) => {
                let path = folder.join("table.json");
                let text = std::fs::read_to_string(&path);
                Cow::Owned(text.map_err(|e| format!("{FOLDER}: {}: {e}", path.display()))?)
            }
            None => Cow::Borrowed(include_str!("table.json")),
        };
        let variants: Vec<Variant> =
            serde_json::from_str(&text).map_err(|e| format!("the table of kernels: {e}"))?;
        let mut table = Self::default();
        for variant in variants {
            table.0.entry(variant.kernel.clone()).or_default().push(variant);
        }
        Ok(table)
    }

    /// The variant that a device of this generation runs and that fits best: the least of what `fit`
    /// says, and of equals the one for the newest devices.
    pub fn find<F: Ord>(
        &self,
        kernel: &str,
        dtype: DType,
        generation: u32,
        fit: impl Fn(&Variant) -> Option<F>,
    ) -> Option<&Variant> {
        let of_kernel = self.0.get(kernel)?.iter().filter(|v| v.dtype == dtype.as_str());
        let fitting = of_kernel.filter_map(|v| {
            let newest = std::cmp::Reverse(v.fitness(generation)?);
            Some(((fit(v)?, newest), v))
        });
        fitting.min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, v)| v)
    }

    pub fn variants(&self) -> impl Iterator<Item = &Variant> {
        self.0.values().flatten()
    }
}

fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// The text of a kernel.
///
/// # Errors
/// Says which file cannot be read.
#[cfg(feature = "cuda")]
pub fn ptx(variant: &Variant) -> Result<Cow<'static, str>, String> {
    static OWN: include_dir::Dir<'_> =
        include_dir::include_dir!("$CARGO_MANIFEST_DIR/src/model/kernels/ptx");
    if let Some(folder) = folder() {
        let path = folder.join("ptx").join(&variant.file);
        let text = std::fs::read_to_string(&path);
        return text.map(Cow::Owned).map_err(|e| format!("{FOLDER}: {}: {e}", path.display()));
    }
    let text = OWN.get_file(&variant.file).and_then(|file| file.contents_utf8());
    text.map(Cow::Borrowed)
        .ok_or_else(|| format!("the kernel {} is not in this build", variant.file))
}
