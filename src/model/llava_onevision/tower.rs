// SPDX-License-Identifier: MPL-2.0
//! The SigLIP vision tower, read out where LLaVA-OneVision reads it: the hidden states of chosen
//! layers, before `post_layernorm`.

use candle_core::{DType, Tensor};
use candle_nn::{Activation, LayerNorm, Module, VarBuilder};

use super::config::SiglipConfig;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::model::attention::{self, Stage, Visible};
use crate::model::linear::{Linear, activated, linear};
use crate::model::vision::squares::SquarePatches;

struct Attention {
    /// To queries, keys and values, side by side.
    qkv: Linear,
    out: Linear,
    heads: usize,
    head_dim: usize,
}

impl Attention {
    fn new(cfg: &SiglipConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let linear = |name| linear(cfg.hidden_size, cfg.hidden_size, vb.pp(name));
        Ok(Self {
            qkv: Linear::joined(&[linear("q_proj")?, linear("k_proj")?, linear("v_proj")?])?,
            out: linear("out_proj")?,
            heads: cfg.heads,
            head_dim: cfg.hidden_size / cfg.heads,
        })
    }

    /// `x` is `[f * n, D]`: every frame attends to itself. Frames and heads are one axis to the
    /// attention kernel, so a batch keeps all threads busy. Keys and values, `[f * n, 2 * D]`, go to
    /// `keep`.
    fn forward(&self, x: &Tensor, frames: usize, keep: Keep) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let patches = rows / frames;
        let qkv = self.qkv.forward(x)?;
        if let Some(keep) = keep {
            keep.push(qkv.narrow(1, width, 2 * width)?.contiguous()?);
        }
        let qkv = qkv.reshape((frames, patches, 3, self.heads, self.head_dim))?;
        // [3, f, H, n, d].
        let qkv = qkv.permute((2, 0, 3, 1, 4))?.contiguous()?;
        let part = |i| qkv.get(i)?.reshape((frames * self.heads, patches, self.head_dim));
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let stage = Stage { q: &q, k: &k, v: &v, visible: Visible::All };
        let context = attention::attend(&[stage], self.scale())?;
        let context = context
            .reshape((frames, self.heads, patches, self.head_dim))?
            .transpose(1, 2)?
            .reshape((rows, width))?;
        Ok(self.out.forward(&context)?)
    }

    /// `x` is `[c, D]`, patches of one frame that look at each other and at the other patches, whose
    /// keys and values are `others`, `[n - c, 2 * D]`.
    fn beside(&self, x: &Tensor, others: &Tensor) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        // Views `[H, rows, d]` of some columns.
        let heads = |x: &Tensor, part: usize| {
            let x = x.narrow(1, part * width, width)?;
            x.reshape((x.dim(0)?, self.heads, self.head_dim))?.transpose(0, 1)
        };
        let qkv = self.qkv.forward(x)?;
        let q = heads(&qkv, 0)?.contiguous()?;
        let (k, v) = (heads(&qkv, 1)?, heads(&qkv, 2)?);
        let (other_k, other_v) = (heads(others, 0)?, heads(others, 1)?);
        let stage = |k, v| Stage { q: &q, k, v, visible: Visible::All };
        let mut stages = vec![stage(&k, &v)];
        if others.dim(0)? > 0 {
            stages.push(stage(&other_k, &other_v));
        }
        let context = attention::attend(&stages, self.scale())?;
        Ok(self.out.forward(&context.transpose(0, 1)?.reshape((rows, width))?)?)
    }

    fn scale(&self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }
}

/// Where keys and values go that are to be kept.
type Keep<'a> = Option<&'a mut Vec<Tensor>>;

struct Block {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    act: Activation,
}

impl Block {
    fn new(cfg: &SiglipConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let norm = |name| candle_nn::layer_norm(cfg.hidden_size, cfg.layer_norm_eps, vb.pp(name));
        let mlp = vb.pp("mlp");
        Ok(Self {
            norm1: norm("layer_norm1")?,
            attention: Attention::new(cfg, vb.pp("self_attn"))?,
            norm2: norm("layer_norm2")?,
            fc1: linear(cfg.hidden_size, cfg.intermediate_size, mlp.pp("fc1"))?,
            fc2: linear(cfg.intermediate_size, cfg.hidden_size, mlp.pp("fc2"))?,
            act: cfg.act,
        })
    }

    /// `attend`: what the attention makes of its input.
    fn forward(
        &self,
        x: &Tensor,
        attend: impl FnOnce(&Attention, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let h = attend(&self.attention, &self.norm1.forward(x)?)?;
        let x = (x + h)?;
        let h = activated(&self.fc1, &self.norm2.forward(&x)?, self.act)?;
        Ok((x + self.fc2.forward(&h)?)?)
    }
}

/// The tower up to the last layer that is read out.
pub struct Siglip {
    patches: SquarePatches,
    positions: Tensor,
    blocks: Vec<Block>,
    /// Which hidden states are read; 0 is the embedding output.
    read: Vec<usize>,
}

impl Siglip {
    pub(crate) fn new(
        cfg: &SiglipConfig,
        read: &[usize],
        vb: VarBuilder,
    ) -> candle_core::Result<Self> {
        let embeddings = vb.pp("embeddings");
        let positions = embeddings
            .pp("position_embedding")
            .get((cfg.grid() * cfg.grid(), cfg.hidden_size), "weight")?
            .to_dtype(vb.dtype())?;
        let needed = read.iter().copied().max().unwrap_or(0);
        let blocks = (0..needed)
            .map(|i| Block::new(cfg, vb.pp("encoder").pp("layers").pp(i)))
            .collect::<candle_core::Result<_>>()?;
        Ok(Self {
            patches: SquarePatches::new(
                (cfg.hidden_size, cfg.grid(), cfg.patch_size),
                embeddings.pp("patch_embedding"),
            )?,
            positions,
            blocks,
            read: read.to_vec(),
        })
    }

    /// Features `[f, g * g, D * layers read]` of pixels `[f, 3, S, S]`, patches in row-major order.
    pub fn forward(&self, pixels: &Tensor, cancel: &Cancel) -> Result<Tensor> {
        self.whole(pixels, None, cancel)
    }

    /// The same of one frame, and keys and values of its patches by layer, `[g * g, 2 * D]`.
    pub(super) fn forward_kept(
        &self,
        pixels: &Tensor,
        cancel: &Cancel,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let mut kept = Vec::with_capacity(self.blocks.len());
        Ok((self.whole(pixels, Some(&mut kept), cancel)?, kept))
    }

    fn whole(&self, pixels: &Tensor, mut keep: Keep, cancel: &Cancel) -> Result<Tensor> {
        let frames = pixels.dim(0)?;
        let (patches, width) = self.positions.dims2()?;
        let x = self.patches.forward(pixels)?.reshape((frames, patches, width))?;
        let x = x.broadcast_add(&self.positions)?.reshape((frames * patches, width))?;
        let features = self.layers(x, cancel, |block, _, x| {
            block.forward(x, |attention, x| attention.forward(x, frames, keep.as_deref_mut()))
        })?;
        let width = features.dim(1)?;
        Ok(features.reshape((frames, patches, width))?)
    }

    /// Features `[c, D * layers read]` of some patches of a frame: of their pixels, `[c, 3 * s * s]`
    /// channel by channel, the numbers `[c]` of these patches and those `[n - c]` of the others, whose
    /// keys and values are those of another frame.
    pub(super) fn some(
        &self,
        pixels: &Tensor,
        (these, others): (&Tensor, &Tensor),
        keys_values: &[Tensor],
        cancel: &Cancel,
    ) -> Result<Tensor> {
        let x = self.patches.linear.forward(pixels)?;
        let x = (x + self.positions.index_select(these, 0)?)?;
        self.layers(x, cancel, |block, layer, x| {
            let missing = || candle_core::Error::msg(format!("nothing is kept of layer {layer}"));
            let kept = keys_values.get(layer).ok_or_else(missing)?;
            let others = kept.index_select(others, 0)?;
            block.forward(x, |attention, x| attention.beside(x, &others))
        })
    }

    /// What is read of the layers, side by side. `block` is what each makes of its rows `[n, D]`.
    fn layers(
        &self,
        mut x: Tensor,
        cancel: &Cancel,
        mut block: impl FnMut(&Block, usize, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut features = vec![None; self.read.len()];
        for layer in 0..=self.blocks.len() {
            for (feature, _) in features.iter_mut().zip(&self.read).filter(|(_, l)| **l == layer) {
                *feature = Some(x.clone());
            }
            if let Some(next) = self.blocks.get(layer) {
                cancel.check()?;
                x = block(next, layer, &x)?;
            }
        }
        Ok(Tensor::cat(&features.into_iter().flatten().collect::<Vec<_>>(), 1)?)
    }

    /// Patches per frame, `g * g`.
    pub fn patches(&self) -> usize {
        self.positions.dims()[0]
    }

    /// Patches along a side, and pixels along a side of one.
    pub(super) fn grid(&self) -> (usize, usize) {
        (self.patches.grid, self.patches.side)
    }

    /// The number format of what flows through it.
    pub(super) fn dtype(&self) -> DType {
        self.positions.dtype()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::VarMap;

    use super::*;

    const SIDE: usize = 13;
    const PATCH: usize = 3;
    const GRID: usize = 4;

    /// A tower of two layers with random weights, read where it is said.
    fn tower(read: &[usize]) -> Siglip {
        let config = SiglipConfig {
            hidden_size: 24,
            intermediate_size: 40,
            layers: 2,
            heads: 3,
            image_size: SIDE,
            patch_size: PATCH,
            layer_norm_eps: 1e-6,
            act: Activation::GeluPytorchTanh,
        };
        let weights = VarMap::new();
        let vb = || VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
        // Once for the names of its weights, and once more with their values.
        Siglip::new(&config, read, vb()).unwrap();
        for var in weights.data().lock().unwrap().values() {
            var.set(&var.randn_like(0.0, 0.3).unwrap()).unwrap();
        }
        Siglip::new(&config, read, vb()).unwrap()
    }

    fn picture() -> Tensor {
        Tensor::randn(0f32, 1.0, (1, 3, SIDE, SIDE), &Device::Cpu).unwrap()
    }

    /// The pixels of some patches, and their numbers and the others'.
    fn part(picture: &Tensor, these: &[u32]) -> (Tensor, Tensor, Tensor) {
        let patch = |&number: &u32| {
            let (y, x) = (number as usize / GRID * PATCH, number as usize % GRID * PATCH);
            let patch = picture.narrow(2, y, PATCH).unwrap().narrow(3, x, PATCH).unwrap();
            patch.flatten_all().unwrap()
        };
        let pixels = Tensor::stack(&these.iter().map(patch).collect::<Vec<_>>(), 0).unwrap();
        let others: Vec<u32> = (0..16).filter(|number| !these.contains(number)).collect();
        let numbers = |numbers: &[u32]| Tensor::new(numbers, &Device::Cpu).unwrap();
        (pixels, numbers(these), numbers(&others))
    }

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        let worst = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        worst.max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn all_patches_beside_none_are_the_whole_frame() {
        let (tower, cancel) = (tower(&[0, 2]), Cancel::new());
        let (old, new) = (picture(), picture());
        let (_, kept) = tower.forward_kept(&old, &cancel).unwrap();
        let (pixels, these, others) = part(&new, &(0..16).collect::<Vec<_>>());
        let found = tower.some(&pixels, (&these, &others), &kept, &cancel).unwrap();
        let right = tower.forward(&new, &cancel).unwrap().squeeze(0).unwrap();
        assert_eq!(found.dims(), [16, 48]);
        assert!(worst(&found, &right) < 1e-5);
        assert!(worst(&found, &tower.forward(&old, &cancel).unwrap().squeeze(0).unwrap()) > 0.1);
    }

    #[test]
    fn patches_find_the_others_where_these_are_as_they_were() {
        let cancel = Cancel::new();
        let (old, new) = (picture(), picture());
        let these = [1u32, 6, 15];
        let (pixels, numbers, others) = part(&new, &these);
        // The new picture is the old one but for these patches.
        let mut mixed = old.clone();
        for &number in &these {
            let (y, x) = (number as usize / GRID * PATCH, number as usize % GRID * PATCH);
            let patch = new.narrow(2, y, PATCH).unwrap().narrow(3, x, PATCH).unwrap();
            mixed = mixed.slice_assign(&[0..1, 0..3, y..y + PATCH, x..x + PATCH], &patch).unwrap();
        }
        // Of one layer this is exact: what others look like does not depend on these yet. Of the same
        // patches as before it is at any depth.
        for (read, now, exact) in [(1, &mixed, true), (2, &mixed, false), (2, &old, true)] {
            let tower = tower(&[read]);
            let (_, kept) = tower.forward_kept(&old, &cancel).unwrap();
            let pixels =
                if std::ptr::eq(now, &old) { part(&old, &these).0 } else { pixels.clone() };
            let found = tower.some(&pixels, (&numbers, &others), &kept, &cancel).unwrap();
            let right = tower.forward(now, &cancel).unwrap().squeeze(0).unwrap();
            let worst = worst(&found, &right.index_select(&numbers, 0).unwrap());
            assert_eq!(worst < 1e-5, exact, "read at {read}: {worst}");
        }
    }
}
