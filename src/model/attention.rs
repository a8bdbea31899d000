// SPDX-License-Identifier: MPL-2.0
//! Softmax attention over several groups of keys at once, and the column sums of it.
//!
//! The unit is the **stage**: a rotated copy of the queries, keys rotated to match, values, and a
//! rule for which key each query may see. [`attend`] takes one softmax over the union of all
//! stages, so a sink, a retrieved context and a local window, each with positions of its own, are
//! one call. On the CPU in f32 the kernel of [`cpu`] does the work in tiles, on a device a kernel of
//! [`kernels`]; what neither knows goes through [`attend_composed`], plain candle operations in f32.

pub mod cpu;
pub(super) mod simd;
#[cfg(test)]
mod tests;

use candle_core::{D, DType, Device, Tensor};

use super::kernels;
pub use super::stage::{Sizes, Stage, Visible};
use crate::error::Result;

fn sizes(stages: &[Stage]) -> candle_core::Result<Sizes> {
    let Some(first) = stages.first() else {
        candle_core::bail!("attention needs at least one stage")
    };
    let sizes = Sizes::of(first.q, first.k)?;
    for stage in stages {
        if Sizes::of(stage.q, stage.k)? != sizes || stage.k.dims() != stage.v.dims() {
            candle_core::bail!(
                "attention: a stage with q {:?}, k {:?}, v {:?} beside one of {sizes:?}",
                stage.q.dims(),
                stage.k.dims(),
                stage.v.dims()
            )
        }
    }
    Ok(sizes)
}

fn is_cpu_f32<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> bool {
    tensors.into_iter().all(|t| t.dtype() == DType::F32 && matches!(t.device(), Device::Cpu))
}

/// The context `[H, nq, d]`: one softmax of `scale * q k^T` over the union of the stages' visible
/// keys, times their values. A row that sees no key at all gives zeros.
pub fn attend(stages: &[Stage], scale: f64) -> Result<Tensor> {
    let sizes = sizes(stages)?;
    // `sizes` has seen a first stage.
    if let Some(kernels) = kernels::on(stages[0].q.device())
        && let Some(context) = kernels.attend(stages, sizes, scale)?
    {
        return Ok(context);
    }
    if is_cpu_f32(stages.iter().flat_map(|s| [s.q, s.k, s.v])) {
        return Ok(cpu::attend(stages, sizes, scale as f32)?);
    }
    attend_composed(stages, scale)
}

/// [`attend`] from candle's own operations, on any device and in any number format (computed in
/// f32, returned in the format of the first stage's values). It holds all scores at once; it is
/// the fallback, and the oracle of the tiled kernel's tests and benchmark.
pub fn attend_composed(stages: &[Stage], scale: f64) -> Result<Tensor> {
    let sizes = sizes(stages)?;
    let mut scores = Vec::with_capacity(stages.len());
    for stage in stages {
        scores.push(composed_scores(stage.q, stage.k, stage.visible, sizes, scale)?);
    }
    let (weights, sum) = composed_softmax(&Tensor::cat(&scores, D::Minus1)?)?;
    let mut context: Option<Tensor> = None;
    let mut start = 0;
    for stage in stages {
        let keys = stage.k.dim(1)?;
        if keys == 0 {
            continue;
        }
        let part = weights.narrow(D::Minus1, start, keys)?.contiguous()?;
        let part = part.matmul(&stage.v.to_dtype(DType::F32)?.contiguous()?)?;
        context = Some(match context {
            Some(context) => (context + part)?,
            None => part,
        });
        start += keys;
    }
    let shape = (sizes.heads, sizes.rows, sizes.dim);
    // Not empty: `sizes` has seen a first stage.
    let (dtype, device) = (stages[0].v.dtype(), stages[0].v.device());
    Ok(match context {
        Some(context) => context.broadcast_div(&sum)?.reshape(shape)?.to_dtype(dtype)?,
        None => Tensor::zeros(shape, dtype, device)?,
    })
}

/// Scaled scores `[Hk, G * nq, nk]` in f32, minus infinity where the key is out of sight. Folding
/// the group into the rows spares a copy of the keys per query head.
fn composed_scores(
    q: &Tensor,
    k: &Tensor,
    visible: Visible,
    sizes: Sizes,
    scale: f64,
) -> candle_core::Result<Tensor> {
    let keys = k.dim(1)?;
    let group = sizes.group();
    let q = (q.to_dtype(DType::F32)?.contiguous()? * scale)?;
    let q = q.reshape((sizes.kv_heads, group * sizes.rows, sizes.dim))?;
    if keys == 0 {
        return Tensor::zeros((sizes.kv_heads, group * sizes.rows, 0), DType::F32, q.device());
    }
    let scores = q.matmul(&k.to_dtype(DType::F32)?.contiguous()?.t()?)?;
    if visible == Visible::All {
        return Ok(scores);
    }
    let mut mask = vec![f32::NEG_INFINITY; sizes.rows * keys];
    for (i, row) in mask.chunks_exact_mut(keys).enumerate() {
        let (lo, hi) = visible.interval(i, keys);
        row[lo..hi].fill(0.0);
    }
    let mask = Tensor::from_vec(mask, (1, 1, sizes.rows, keys), q.device())?;
    scores.reshape((sizes.kv_heads, group, sizes.rows, keys))?.broadcast_add(&mask)?.reshape((
        sizes.kv_heads,
        group * sizes.rows,
        keys,
    ))
}

/// Unnormalised softmax weights along the last axis and their sums `[.., 1]`, arranged so that a
/// row of nothing but minus infinity gives weights of zero and a sum that can be divided by.
fn composed_softmax(scores: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
    if scores.dim(D::Minus1)? == 0 {
        let (a, b, _) = scores.dims3()?;
        return Ok((scores.clone(), Tensor::ones((a, b, 1), DType::F32, scores.device())?));
    }
    let max = scores.max_keepdim(D::Minus1)?.maximum(-1e30f64)?;
    let weights = scores.broadcast_sub(&max)?.exp()?;
    let sum = weights.sum_keepdim(D::Minus1)?.maximum(1e-30f64)?;
    Ok((weights, sum))
}

/// How much attention each key receives: for every key `j` the sum over the query rows of the mean
/// over the heads of `softmax(scale * q k^T)[h, i, j]`; `nk` numbers that add up to the number of
/// rows that see a key. `q` is `[H, nq, d]`, `k` is `[Hk, nk, d]`. The scores themselves are never
/// held for more than a tile (CPU) or a KV head (composed), on a device not at all.
pub fn attention_mass(q: &Tensor, k: &Tensor, visible: Visible, scale: f64) -> Result<Vec<f32>> {
    let sizes = Sizes::of(q, k)?;
    if is_cpu_f32([q, k]) && !kernels::stays_on(q.device()) {
        return Ok(cpu::attention_mass(q, k, visible, sizes, scale as f32)?);
    }
    Ok(attention_mass_tensor(q, k, visible, scale)?.to_vec1()?)
}

/// [`attention_mass`] left where the keys are, `[nk]` in f32.
pub fn attention_mass_tensor(
    q: &Tensor,
    k: &Tensor,
    visible: Visible,
    scale: f64,
) -> Result<Tensor> {
    let sizes = Sizes::of(q, k)?;
    if let Some(mass) = mass_on_device(q, k, visible, sizes, scale)? {
        return Ok((mass.sum(0)? / sizes.heads as f64)?);
    }
    let mass = match is_cpu_f32([q, k]) {
        true => cpu::attention_mass(q, k, visible, sizes, scale as f32)?,
        false => attention_mass_composed(q, k, visible, scale)?,
    };
    let keys = mass.len();
    Ok(Tensor::from_vec(mass, keys, q.device())?)
}

/// What a kernel makes of it, `[Hk, nk]`: of each KV head the sum over its query heads. `None` where
/// none fits.
fn mass_on_device(
    q: &Tensor,
    k: &Tensor,
    visible: Visible,
    sizes: Sizes,
    scale: f64,
) -> Result<Option<Tensor>> {
    match kernels::on(q.device()) {
        Some(kernels) => Ok(kernels.attention_mass(q, k, visible, sizes, scale)?),
        None => Ok(None),
    }
}

/// [`attention_mass`] of each KV head by itself, the mean over its query heads, left where the keys
/// are: `[Hk, nk]` in f32.
pub fn attention_mass_by_head(
    q: &Tensor,
    k: &Tensor,
    visible: Visible,
    scale: f64,
) -> Result<Tensor> {
    let sizes = Sizes::of(q, k)?;
    let group = sizes.group();
    if let Some(mass) = mass_on_device(q, k, visible, sizes, scale)? {
        return Ok((mass / group as f64)?);
    }
    let one = |head: usize| {
        let q = q.narrow(0, head * group, group)?.contiguous()?;
        attention_mass_tensor(&q, &k.narrow(0, head, 1)?, visible, scale)
    };
    let heads: Vec<Tensor> = (0..sizes.kv_heads).map(one).collect::<Result<_>>()?;
    Ok(Tensor::stack(&heads, 0)?)
}

/// [`attention_mass`] from candle's own operations, one KV head at a time.
pub fn attention_mass_composed(
    q: &Tensor,
    k: &Tensor,
    visible: Visible,
    scale: f64,
) -> Result<Vec<f32>> {
    let sizes = Sizes::of(q, k)?;
    let keys = k.dim(1)?;
    if keys == 0 {
        return Ok(Vec::new());
    }
    let group = sizes.group();
    let one = Sizes { heads: group, kv_heads: 1, ..sizes };
    let mut mass = Tensor::zeros(keys, DType::F32, q.device())?;
    for head in 0..sizes.kv_heads {
        let q = q.narrow(0, head * group, group)?;
        let scores = composed_scores(&q, &k.narrow(0, head, 1)?, visible, one, scale)?;
        let (weights, sum) = composed_softmax(&scores)?;
        mass = (mass + weights.broadcast_div(&sum)?.sum((0, 1))?)?;
    }
    Ok((mass / sizes.heads as f64)?.to_vec1()?)
}
