// SPDX-License-Identifier: MPL-2.0
//! Attention by stages: every stage gives its context and the log-sum-exp of its scores, in as many
//! parts as keep the device busy, and one small kernel joins them. Nothing of size queries times keys
//! is stored, there is no mask, and no key is repeated for the query heads that share it.

use candle_core::{DType, Result, Tensor};

use super::launch::Arg;
use super::table::Variant;
use super::{Kernels, count, dense, strides, suits};
use crate::model::stage::{Sizes, Stage, Visible};

/// No bound: farther than any key, and far from overflow.
const FAR: i64 = 1 << 30;
/// Up to this many rows of a KV head's query heads, small tiles are best: decoding, and little more.
const FEW_ROWS: usize = 32;
/// More parts than this and a row's are read side by side.
const MANY_PARTS: usize = 6;
/// Blocks that keep a device busy: two for each of its 132 multiprocessors.
const BUSY: usize = 264;
/// Fewer keys than this are not worth a part of their own.
const SHORTEST_PART: usize = 256;

/// Tiles of one call.
struct Tiles {
    variant: &'static Variant,
    rows: usize,
    keys: usize,
}

/// How a stage's keys are split over blocks.
struct Split {
    parts: usize,
    chunk: usize,
}

impl Kernels {
    /// [`attend`](crate::model::attention::attend), laid out token by token: a view of `[nq, H, d]`.
    /// `None` where no kernel fits.
    pub fn attend(&self, stages: &[Stage], sizes: Sizes, scale: f64) -> Result<Option<Tensor>> {
        let Some(first) = stages.first() else { return Ok(None) };
        let dtype = first.v.dtype();
        let same = stages.iter().flat_map(|s| [s.q, s.k, s.v]).all(|t| t.dtype() == dtype);
        let Some(tiles) = self.tiles("attend", dtype, sizes).filter(|_| same) else {
            return Ok(None);
        };
        let Sizes { heads, kv_heads, rows, dim } = sizes;
        let mut splits = Vec::with_capacity(stages.len());
        for stage in stages {
            splits.push(tiles.split(stage.k.dim(1)?, sizes));
        }
        let parts: usize = splits.iter().map(|split| split.parts).sum();
        let join = self.variant("join", dtype, |v| {
            let side_by_side = v.constant("BP") > 1;
            v.of_heads(dim).filter(|_| side_by_side == (parts > MANY_PARTS))
        });
        let Some(join) = join else { return Ok(None) };
        let joined = self.output((rows, heads, dim), dtype)?;
        let view = joined.transpose(0, 1)?;
        if rows == 0 {
            return Ok(Some(view));
        }
        let contexts = self.output((parts, heads, rows, dim), DType::F32)?;
        let sums = self.output((parts, heads, rows), DType::F32)?;
        let mut part = 0;
        for (stage, split) in stages.iter().zip(&splits).filter(|(_, split)| split.parts > 0) {
            let [q, k, v] = [dense(stage.q)?, dense(stage.k)?, dense(stage.v)?];
            let [q_head, q_row] = strides(&q)?;
            let [k_head, k_row] = strides(&k)?;
            let [v_head, v_row] = strides(&v)?;
            let out = contexts.narrow(0, part, split.parts)?;
            let sum = sums.narrow(0, part, split.parts)?;
            let [lo, hi, from] = bounds(stage.visible)?;
            let args = [
                Arg::Read(&q),
                Arg::Read(&k),
                Arg::Read(&v),
                Arg::Write(&out),
                Arg::Write(&sum),
                q_head,
                q_row,
                k_head,
                k_row,
                v_head,
                v_row,
                Arg::I32(count(kv_heads)?),
                Arg::I32(count(heads)?),
                Arg::I32(count(rows)?),
                Arg::I32(count(k.dim(1)?)?),
                Arg::I32(count(dim)?),
                lo,
                hi,
                from,
                Arg::I32(count(split.chunk)?),
                Arg::F32(in_bits(scale)),
            ];
            self.launch(tiles.variant, tiles.grid(sizes, split.parts), &args)?;
            part += split.parts;
        }
        let [y_head, y_row] = strides(&view)?;
        let args = [
            Arg::Read(&contexts),
            Arg::Read(&sums),
            Arg::Write(&joined),
            y_head,
            y_row,
            Arg::I32(count(parts)?),
            Arg::I32(count(heads)?),
            Arg::I32(count(rows)?),
            Arg::I32(count(dim)?),
        ];
        self.launch(join, [rows.div_ceil(join.constant("BR")), heads, 1], &args)?;
        Ok(Some(view))
    }

    /// What every key receives of every KV head's query heads, summed over them and over the rows:
    /// `[Hk, nk]` in f32. `None` where no kernel fits.
    pub fn attention_mass(
        &self,
        q: &Tensor,
        k: &Tensor,
        visible: Visible,
        sizes: Sizes,
        scale: f64,
    ) -> Result<Option<Tensor>> {
        let dtype = q.dtype();
        let Some(tiles) = self.tiles("scores", dtype, sizes).filter(|_| k.dtype() == dtype) else {
            return Ok(None);
        };
        let (Some(join), Some(mass)) = (
            self.only("join_lse", DType::F32),
            self.variant("mass", dtype, |v| v.of_heads(sizes.dim)),
        ) else {
            return Ok(None);
        };
        let Sizes { heads, kv_heads, rows, dim } = sizes;
        let keys = k.dim(1)?;
        let received = self.output((kv_heads, keys), DType::F32)?;
        if keys == 0 || rows == 0 {
            return Tensor::zeros((kv_heads, keys), DType::F32, q.device()).map(Some);
        }
        let split = tiles.split(keys, sizes);
        let sums = self.output((split.parts, heads, rows), DType::F32)?;
        let [q, k] = [dense(q)?, dense(k)?];
        let ([q_head, q_row], [k_head, k_row]) = (strides(&q)?, strides(&k)?);
        let [lo, hi, from] = bounds(visible)?;
        let shape = [
            Arg::I32(count(kv_heads)?),
            Arg::I32(count(heads)?),
            Arg::I32(count(rows)?),
            Arg::I32(count(keys)?),
            Arg::I32(count(dim)?),
            lo,
            hi,
            from,
        ];
        let places = [q_head, q_row, k_head, k_row];
        let scale = Arg::F32(in_bits(scale));
        let args = [
            &[Arg::Read(&q), Arg::Read(&k), Arg::Write(&sums)][..],
            &places,
            &shape,
            &[Arg::I32(count(split.chunk)?), scale],
        ];
        self.launch(tiles.variant, tiles.grid(sizes, split.parts), &args.concat())?;
        let all = self.output((heads, rows), DType::F32)?;
        let args = [
            Arg::Read(&sums),
            Arg::Write(&all),
            Arg::I32(count(split.parts)?),
            Arg::I32(count(heads * rows)?),
        ];
        self.launch(join, [(heads * rows).div_ceil(join.constant("BR")), 1, 1], &args)?;
        let args = [
            &[Arg::Read(&q), Arg::Read(&k), Arg::Read(&all), Arg::Write(&received)][..],
            &places,
            &shape,
            &[scale],
        ];
        self.launch(mass, [keys.div_ceil(mass.constant("BN")), kv_heads, 1], &args.concat())?;
        Ok(Some(received))
    }

    /// The tiles for this many rows.
    fn tiles(&self, kernel: &str, dtype: DType, sizes: Sizes) -> Option<Tiles> {
        if !suits(sizes.dim) {
            return None;
        }
        let few = sizes.group() * sizes.rows <= FEW_ROWS;
        let variant = self.variant(kernel, dtype, |v| {
            let rows = v.constant("BM");
            Some((v.of_heads(sizes.dim)?, if few { rows } else { usize::MAX - rows }))
        })?;
        Some(Tiles { variant, rows: variant.constant("BM"), keys: variant.constant("BN") })
    }
}

impl Tiles {
    fn row_tiles(&self, sizes: Sizes) -> usize {
        (sizes.group() * sizes.rows).div_ceil(self.rows)
    }

    fn grid(&self, sizes: Sizes, parts: usize) -> [usize; 3] {
        [self.row_tiles(sizes), sizes.kv_heads, parts]
    }

    /// One part where the rows alone keep the device busy, else as many as do.
    fn split(&self, keys: usize, sizes: Sizes) -> Split {
        if keys == 0 {
            return Split { parts: 0, chunk: 1 };
        }
        let wanted = BUSY / (self.row_tiles(sizes) * sizes.kv_heads).max(1);
        let parts = wanted.clamp(1, keys.div_ceil(SHORTEST_PART));
        let chunk = keys.div_ceil(parts).next_multiple_of(self.keys.max(1));
        Split { parts: keys.div_ceil(chunk), chunk }
    }
}

/// The scale of scores whose exponentials are powers of two.
fn in_bits(scale: f64) -> f32 {
    (scale * std::f64::consts::LOG2_E) as f32
}

/// `lo`, `hi` and `first`: row `i` sees key `j` iff `i >= first` and `i + lo < j <= i + hi`.
fn bounds(visible: Visible) -> Result<[Arg<'static>; 3]> {
    let near = |n: usize| i64::try_from(n).unwrap_or(FAR).min(FAR);
    let (lo, hi, first) = match visible {
        Visible::All => (-FAR, FAR, 0),
        Visible::Window { offset, width } => (near(offset) - near(width), near(offset), 0),
        Visible::Beyond { offset, width } => (-FAR, near(offset) - near(width), 0),
        Visible::FromRow(first) => (-FAR, FAR, near(first)),
    };
    let i32s = |n: i64| n.clamp(-FAR, FAR) as i32;
    Ok([Arg::I32(i32s(lo)), Arg::I32(i32s(hi)), Arg::I32(i32s(first))])
}
