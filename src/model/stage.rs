// SPDX-License-Identifier: MPL-2.0
//! The unit of attention: one group of keys with the queries that match it, and which of them each
//! query may see.

use candle_core::Tensor;

/// Which keys `j` a query row `i` of a stage may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visible {
    All,
    /// Key `j` is visible to row `i` iff `0 <= i - j + offset < width`.
    Window {
        offset: usize,
        width: usize,
    },
    /// Key `j` is visible to row `i` iff `i - j + offset >= width`.
    Beyond {
        offset: usize,
        width: usize,
    },
    /// Every key, but only for rows `>= first`.
    FromRow(usize),
}

impl Visible {
    /// The visible keys of row `i` out of `keys` as a half-open interval `[lo, hi)`. All the rules
    /// are intervals, which is what lets a kernel skip whole tiles.
    pub fn interval(self, i: usize, keys: usize) -> (usize, usize) {
        let (lo, hi) = match self {
            Self::All => (0, keys),
            Self::Window { offset, width } => {
                let end = i.saturating_add(offset).saturating_add(1);
                (end.saturating_sub(width), end.min(keys))
            }
            Self::Beyond { offset, width } => {
                let end = i.saturating_add(offset).saturating_add(1).saturating_sub(width);
                (0, end.min(keys))
            }
            Self::FromRow(first) => (0, if i >= first { keys } else { 0 }),
        };
        if lo < hi { (lo, hi) } else { (0, 0) }
    }
}

/// One group of keys with the queries rotated to match it.
///
/// `q` is `[H, nq, d]`, `k` and `v` are `[Hk, nk, d]`; query head `h` reads KV head `h / (H / Hk)`.
/// `k` and `v` may be views of a larger buffer; only their last axis must be dense.
pub struct Stage<'a> {
    pub q: &'a Tensor,
    pub k: &'a Tensor,
    pub v: &'a Tensor,
    pub visible: Visible,
}

/// The common sizes of the stages of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Query heads `H`.
    pub heads: usize,
    /// KV heads `Hk`.
    pub kv_heads: usize,
    /// Query rows `nq`.
    pub rows: usize,
    /// Head dim `d`.
    pub dim: usize,
}

impl Sizes {
    /// Query heads per KV head.
    pub fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    pub fn of(q: &Tensor, k: &Tensor) -> candle_core::Result<Self> {
        let (heads, rows, dim) = q.dims3()?;
        let (kv_heads, _, key_dim) = k.dims3()?;
        if key_dim != dim || kv_heads == 0 || heads % kv_heads != 0 || dim == 0 {
            candle_core::bail!("attention: queries {:?} do not fit keys {:?}", q.dims(), k.dims())
        }
        Ok(Self { heads, kv_heads, rows, dim })
    }
}
