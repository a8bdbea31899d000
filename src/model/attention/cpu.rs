// SPDX-License-Identifier: MPL-2.0
//! The f32 attention kernel for the CPU: tiles of scores that stay in the cache.
//!
//! A block of query rows walks over the keys in tiles; scores come from a single-threaded
//! [`gemm`], an online softmax keeps a running maximum and sum per row, and a second product adds
//! the values. Threads work on different blocks. Tiles that the mask rules out are never computed,
//! and a call with few rows (decoding) is split over the keys instead and merged at the end.

use std::ops::Range;

use candle_core::{CpuStorage, Storage, Tensor};
use rayon::prelude::*;

use super::simd::{self, Level};
use crate::model::stage::{Sizes, Stage, Visible};
use crate::model::worth;

/// Query rows per block. With [`KEYS`] it makes 256 KiB of scores: half a megabyte of L2 is common.
const ROWS: usize = 128;
/// Keys per tile.
const KEYS: usize = 512;
/// A block whose walk is shorter than this many keys is not split over threads.
const MIN_SPLIT: usize = 1024;

/// `[heads, n, d]` f32 data on the CPU whose last axis is dense; heads and rows may be strided,
/// as in a view of a preallocated buffer.
#[derive(Clone, Copy)]
struct Heads<'a> {
    data: &'a [f32],
    head_stride: usize,
    row_stride: usize,
    rows: usize,
    dim: usize,
}

impl<'a> Heads<'a> {
    /// The data of `head` from row `start` to the end. Rows lie `row_stride` apart.
    fn tail(&self, head: usize, start: usize) -> &'a [f32] {
        &self.data[head * self.head_stride + start * self.row_stride..]
    }

    fn row(&self, head: usize, row: usize) -> &'a [f32] {
        &self.tail(head, row)[..self.dim]
    }
}

/// Calls `f` with the tensors' data in place, without a copy.
fn with_heads<R>(
    tensors: &[Tensor],
    f: impl FnOnce(&[Heads]) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    let guards: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut heads = Vec::with_capacity(guards.len());
    for (storage, layout) in &guards {
        let Storage::Cpu(CpuStorage::F32(data)) = &**storage else {
            candle_core::bail!("the CPU attention kernel takes f32 tensors on the CPU")
        };
        let (dims, stride) = (layout.dims(), layout.stride());
        heads.push(Heads {
            data: &data[layout.start_offset()..],
            head_stride: stride[0],
            row_stride: stride[1],
            rows: dims[1],
            dim: dims[2],
        });
    }
    f(&heads)
}

/// The tensor itself if its last axis is dense, else a contiguous copy.
fn dense_rows(tensor: &Tensor) -> candle_core::Result<Tensor> {
    if tensor.stride()[2] == 1 { Ok(tensor.clone()) } else { tensor.contiguous() }
}

/// A contiguous block of query rows that share one KV head. Rows are counted over the whole group:
/// row `r` is query row `r % nq` of the group's head `r / nq`.
#[derive(Clone)]
struct Block {
    kv_head: usize,
    rows: Range<usize>,
}

impl Block {
    /// Blocks stay inside one query head where heads have many rows, so that a causal mask rules
    /// out whole tiles; short heads share blocks, so that their keys are read once.
    fn all(sizes: Sizes) -> Vec<Self> {
        let group_rows = sizes.group() * sizes.rows;
        let span = if sizes.rows >= ROWS / 2 { sizes.rows } else { group_rows };
        let mut blocks = Vec::new();
        for kv_head in 0..sizes.kv_heads {
            for head_start in (0..group_rows).step_by(span.max(1)) {
                let head_end = (head_start + span).min(group_rows);
                let count = (head_end - head_start).div_ceil(ROWS).max(1);
                let size = (head_end - head_start).div_ceil(count).max(1);
                for start in (head_start..head_end).step_by(size) {
                    blocks.push(Self { kv_head, rows: start..(start + size).min(head_end) });
                }
            }
        }
        blocks
    }

    /// The visible interval of each row, and what they span together.
    fn intervals(&self, visible: Visible, sizes: Sizes, keys: usize) -> Intervals {
        let rows: Vec<_> =
            self.rows.clone().map(|r| visible.interval(r % sizes.rows, keys)).collect();
        let seen = rows.iter().filter(|(lo, hi)| lo < hi);
        let lo = seen.clone().map(|r| r.0).min().unwrap_or(0);
        let hi = seen.map(|r| r.1).max().unwrap_or(0);
        Intervals { rows, span: lo..hi }
    }
}

struct Intervals {
    rows: Vec<(usize, usize)>,
    span: Range<usize>,
}

/// A block's walk over some keys of one stage.
struct Walk<'a> {
    stage: usize,
    intervals: &'a Intervals,
    keys: Range<usize>,
}

/// What a block knows after its walk: the softmax numerators' running maximum and sum per row, and
/// the weighted values `[rows, d]`.
struct Partial {
    max: Vec<f32>,
    sum: Vec<f32>,
    values: Vec<f32>,
}

impl Partial {
    fn new(rows: usize, dim: usize) -> Self {
        Self {
            max: vec![f32::NEG_INFINITY; rows],
            sum: vec![0.0; rows],
            values: vec![0.0; rows * dim],
        }
    }

    fn merge(&mut self, level: Level, dim: usize, other: &Self) {
        for r in 0..self.max.len() {
            let max = self.max[r].max(other.max[r]);
            if max == f32::NEG_INFINITY {
                continue;
            }
            let (a, b) = ((self.max[r] - max).exp(), (other.max[r] - max).exp());
            let values = &mut self.values[r * dim..(r + 1) * dim];
            simd::scale(level, values, a);
            simd::add_scaled(level, values, &other.values[r * dim..(r + 1) * dim], b);
            self.sum[r] = a * self.sum[r] + b * other.sum[r];
            self.max[r] = max;
        }
    }

    fn write(&self, level: Level, dim: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.values);
        for (row, &sum) in out.chunks_exact_mut(dim).zip(&self.sum) {
            simd::scale(level, row, if sum > 0.0 { 1.0 / sum } else { 0.0 });
        }
    }
}

/// `out[m, n] = alpha * a[m, k] b[k, n] (+ out)`, strides in elements, on this thread.
///
/// # Safety
/// Every element that the sizes and strides reach must lie inside its buffer.
#[allow(clippy::too_many_arguments)]
unsafe fn product(
    (m, n, k): (usize, usize, usize),
    out: &mut [f32],
    out_row: usize,
    add: bool,
    a: &[f32],
    a_row: usize,
    b: &[f32],
    (b_row, b_col): (usize, usize),
    alpha: f32,
) {
    // SAFETY: the caller's promise; gemm touches no element beyond what the sizes reach.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_row as isize,
            add,
            a.as_ptr(),
            1,
            a_row as isize,
            b.as_ptr(),
            b_col as isize,
            b_row as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The kernel's view of one call.
struct Call<'a> {
    level: Level,
    sizes: Sizes,
    scale: f32,
    /// Per stage q (contiguous), k and v.
    heads: &'a [[Heads<'a>; 3]],
}

impl Call<'_> {
    /// Scores `[rows, keys]` of a block's tile into `out`, rows [`KEYS`] apart.
    fn scores(&self, block: &Block, stage: usize, keys: Range<usize>, out: &mut [f32]) {
        let [q, k, _] = &self.heads[stage];
        let dim = self.sizes.dim;
        let first = block.kv_head * self.sizes.group() * self.sizes.rows + block.rows.start;
        let q = &q.data[first * dim..(first + block.rows.len()) * dim];
        if block.rows.len() <= 2 {
            for (q, out) in q.chunks_exact(dim).zip(out.chunks_exact_mut(KEYS)) {
                for (j, out) in keys.clone().zip(out) {
                    *out = self.scale * simd::dot(self.level, q, k.row(block.kv_head, j));
                }
            }
            return;
        }
        let k_data = k.tail(block.kv_head, keys.start);
        assert!(keys.end <= k.rows && out.len() >= block.rows.len() * KEYS && keys.len() <= KEYS);
        assert!(k_data.len() >= (keys.len() - 1) * k.row_stride + dim);
        // SAFETY: the slices above and the assertions cover rows x d of q, keys x d of k and
        // rows x KEYS of the scores.
        unsafe {
            product(
                (block.rows.len(), keys.len(), dim),
                out,
                KEYS,
                false,
                q,
                dim,
                k_data,
                (1, k.row_stride),
                self.scale,
            );
        }
    }

    /// Adds the tile's weights times its values to the block's partial result.
    fn add_values(
        &self,
        block: &Block,
        stage: usize,
        keys: Range<usize>,
        p: &[f32],
        out: &mut [f32],
    ) {
        let v = &self.heads[stage][2];
        let dim = self.sizes.dim;
        if block.rows.len() <= 2 {
            for (p, out) in p.chunks_exact(KEYS).zip(out.chunks_exact_mut(dim)) {
                for (j, &p) in keys.clone().zip(p) {
                    simd::add_scaled(self.level, out, v.row(block.kv_head, j), p);
                }
            }
            return;
        }
        let v_data = v.tail(block.kv_head, keys.start);
        assert!(keys.end <= v.rows && p.len() >= block.rows.len() * KEYS && keys.len() <= KEYS);
        assert!(v_data.len() >= (keys.len() - 1) * v.row_stride + dim);
        assert!(out.len() >= block.rows.len() * dim);
        // SAFETY: the assertions cover rows x KEYS of the weights, keys x d of v and rows x d of
        // the result.
        unsafe {
            product(
                (block.rows.len(), dim, keys.len()),
                out,
                dim,
                true,
                p,
                KEYS,
                v_data,
                (v.row_stride, 1),
                1.0,
            );
        }
    }

    fn walk(&self, block: &Block, walks: &[Walk]) -> Partial {
        let dim = self.sizes.dim;
        let rows = block.rows.len();
        let mut state = Partial::new(rows, dim);
        let mut scores = vec![0f32; rows * KEYS];
        for walk in walks {
            for start in walk.keys.clone().step_by(KEYS) {
                let tile = start..(start + KEYS).min(walk.keys.end);
                self.scores(block, walk.stage, tile.clone(), &mut scores);
                for (r, row) in scores.chunks_exact_mut(KEYS).enumerate() {
                    let row = &mut row[..tile.len()];
                    let (lo, hi) = clip(walk.intervals.rows[r], &tile);
                    row[..lo].fill(0.0);
                    row[hi..].fill(0.0);
                    if lo == hi {
                        continue;
                    }
                    let max = simd::max(self.level, &row[lo..hi]).max(state.max[r]);
                    if max > state.max[r] {
                        // Nothing to rescale before the first visible key.
                        if state.max[r] > f32::NEG_INFINITY {
                            let factor = (state.max[r] - max).exp();
                            state.sum[r] *= factor;
                            let values = &mut state.values[r * dim..(r + 1) * dim];
                            simd::scale(self.level, values, factor);
                        }
                        state.max[r] = max;
                    }
                    state.sum[r] += simd::exp_sum(self.level, &mut row[lo..hi], max);
                }
                self.add_values(block, walk.stage, tile, &scores, &mut state.values);
            }
        }
        state
    }
}

/// A row's visible interval inside a tile, relative to the tile; `(0, 0)` if they do not meet.
fn clip((lo, hi): (usize, usize), tile: &Range<usize>) -> (usize, usize) {
    let (lo, hi) = (lo.max(tile.start), hi.min(tile.end));
    if lo < hi { (lo - tile.start, hi - tile.start) } else { (0, 0) }
}

/// See [`super::attend`]; all tensors are f32 on the CPU.
pub(super) fn attend(stages: &[Stage], sizes: Sizes, scale: f32) -> candle_core::Result<Tensor> {
    let mut tensors = Vec::with_capacity(stages.len() * 3);
    for stage in stages {
        tensors.push(stage.q.contiguous()?);
        tensors.push(dense_rows(stage.k)?);
        tensors.push(dense_rows(stage.v)?);
    }
    let out = with_heads(&tensors, |heads| {
        let (heads, _) = heads.as_chunks::<3>();
        let call = Call { level: Level::detect(), sizes, scale, heads };
        Ok(run(&call, stages))
    })?;
    Tensor::from_vec(out, (sizes.heads, sizes.rows, sizes.dim), stages[0].q.device())
}

fn run(call: &Call, stages: &[Stage]) -> Vec<f32> {
    let (sizes, dim) = (call.sizes, call.sizes.dim);
    let mut out = vec![0f32; sizes.heads * sizes.rows * dim];
    let blocks = Block::all(sizes);
    let intervals: Vec<Vec<Intervals>> = blocks
        .iter()
        .map(|block| {
            let of = |(stage, [_, k, _]): (&Stage, &[Heads; 3])| {
                block.intervals(stage.visible, sizes, k.rows)
            };
            stages.iter().zip(call.heads).map(of).collect()
        })
        .collect();
    let threads = rayon::current_num_threads();
    // Too few blocks to occupy the threads: several walks per block.
    let parts = if blocks.len() >= 2 * threads { 1 } else { threads.div_ceil(blocks.len().max(1)) };
    let mut slots = Vec::with_capacity(blocks.len());
    let mut rest = out.as_mut_slice();
    for block in &blocks {
        let (slot, tail) = rest.split_at_mut(block.rows.len() * dim);
        slots.push(slot);
        rest = tail;
    }
    let spans = intervals.iter().flatten().map(|intervals| intervals.span.len());
    let seen = blocks.iter().map(|block| block.rows.len()).max().unwrap_or(0);
    let work = 2 * dim * seen * spans.sum::<usize>() / blocks.len().max(1);
    let tasks = blocks.par_iter().zip(&intervals).zip(slots);
    tasks.with_min_len(worth::items(work)).for_each(|((block, intervals), slot)| {
        let walks = divide(intervals, parts);
        let partials: Vec<Partial> = match walks.as_slice() {
            [one] => vec![call.walk(block, one)],
            many => {
                let least = worth::items(2 * dim * block.rows.len() * MIN_SPLIT);
                many.par_iter().with_min_len(least).map(|walks| call.walk(block, walks)).collect()
            }
        };
        let mut partials = partials.into_iter();
        if let Some(mut state) = partials.next() {
            partials.for_each(|other| state.merge(call.level, dim, &other));
            state.write(call.level, dim, slot);
        }
    });
    out
}

/// Cuts a block's keys, over all stages, into at most `parts` walks of about equal length.
fn divide(intervals: &[Intervals], parts: usize) -> Vec<Vec<Walk<'_>>> {
    let total: usize = intervals.iter().map(|i| i.span.len()).sum();
    let share = total.div_ceil(parts.max(1)).max(MIN_SPLIT).next_multiple_of(KEYS);
    let mut walks = vec![Vec::new()];
    let mut room = share;
    for (stage, intervals) in intervals.iter().enumerate() {
        let mut start = intervals.span.start;
        while start < intervals.span.end {
            if room == 0 {
                walks.push(Vec::new());
                room = share;
            }
            let end = intervals.span.end.min(start + room);
            room -= end - start;
            if let Some(last) = walks.last_mut() {
                last.push(Walk { stage, intervals, keys: start..end });
            }
            start = end;
        }
    }
    walks
}

/// See [`super::attention_mass`]; two passes, because a column sum needs the rows' final sums.
pub fn attention_mass(
    q: &Tensor,
    k: &Tensor,
    visible: Visible,
    sizes: Sizes,
    scale: f32,
) -> candle_core::Result<Vec<f32>> {
    let tensors = [q.contiguous()?, dense_rows(k)?];
    with_heads(&tensors, |heads| {
        let [q, k] = heads else { candle_core::bail!("two tensors give two views") };
        let heads = [[*q, *k, *k]];
        let call = Call { level: Level::detect(), sizes, scale, heads: &heads };
        let keys = k.rows;
        let mass = Block::all(sizes)
            .par_iter()
            .fold(
                || vec![0f32; keys],
                |mut mass, block| {
                    let intervals = block.intervals(visible, sizes, keys);
                    call.add_mass(block, &intervals, &mut mass);
                    mass
                },
            )
            .reduce(
                || vec![0f32; keys],
                |mut a, b| {
                    simd::add_scaled(call.level, &mut a, &b, 1.0);
                    a
                },
            );
        Ok(mass.into_iter().map(|m| m / sizes.heads as f32).collect())
    })
}

impl Call<'_> {
    fn add_mass(&self, block: &Block, intervals: &Intervals, mass: &mut [f32]) {
        let rows = block.rows.len();
        let mut scores = vec![0f32; rows * KEYS];
        let (mut max, mut sum) = (vec![f32::NEG_INFINITY; rows], vec![0f32; rows]);
        let tiles = || intervals.span.clone().step_by(KEYS);
        for start in tiles() {
            let tile = start..(start + KEYS).min(intervals.span.end);
            self.scores(block, 0, tile.clone(), &mut scores);
            for (r, row) in scores.chunks_exact_mut(KEYS).enumerate() {
                let (lo, hi) = clip(intervals.rows[r], &tile);
                if lo == hi {
                    continue;
                }
                let new = simd::max(self.level, &row[lo..hi]).max(max[r]);
                if max[r] > f32::NEG_INFINITY {
                    sum[r] *= (max[r] - new).exp();
                }
                max[r] = new;
                sum[r] += simd::exp_sum(self.level, &mut row[lo..hi], new);
            }
        }
        for start in tiles() {
            let tile = start..(start + KEYS).min(intervals.span.end);
            self.scores(block, 0, tile.clone(), &mut scores);
            for (r, row) in scores.chunks_exact(KEYS).enumerate() {
                let (lo, hi) = clip(intervals.rows[r], &tile);
                if lo < hi && sum[r] > 0.0 {
                    let sums = &mut mass[tile.start + lo..tile.start + hi];
                    simd::add_exp(self.level, &row[lo..hi], max[r], 1.0 / sum[r], sums);
                }
            }
        }
    }
}
