// SPDX-License-Identifier: MPL-2.0
//! The decoder without a cache: Qwen2's, or Qwen3's, which norms queries and keys head by head.
//!
//! For each layer it projects queries, keys and values and hands them, before RoPE, to an
//! [`Attend`], which decides what they are compared with. Ingesting video, retrieving, answering
//! and probing are four implementations of that trait; the decoder knows none of them.
//!
//! A row may be several vectors side by side: the first is what goes in, the second is added behind
//! the first layer, the third behind the second one (DeepStack).

mod rows;
#[cfg(test)]
pub(crate) mod testing;
mod together;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, Embedding, Module, VarBuilder};

use self::rows::{MOST_ROWS, Rows};
use super::checkpoint::{Mrope, TextConfig};
use super::gate::gated;
use super::gathering::Gathering;
use super::kernels;
use super::linear::{Linear, linear_b, linear_no_bias};
use super::norm::RmsNorm;
use super::rope::Rope;
use super::sound::Sum;
use crate::error::{EngineError, Result};

/// What a forward pass compares its tokens with.
pub trait Attend {
    /// The context `[H, n, d]` of one layer. `q` is `[H, n, d]`, `k` and `v` are `[Hk, n, d]`, all
    /// before RoPE; on a device they may be views of one buffer.
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor>;
}

/// Projections around one attention: `[n, C]` to heads and back.
struct Attention {
    /// To queries, keys and values, side by side.
    qkv: Linear,
    o: Linear,
    /// Of each head's queries and keys, if they are normed.
    norms: Option<[RmsNorm; 2]>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Attention {
    fn new(cfg: &TextConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let (hidden, width) = (cfg.hidden_size, cfg.heads * cfg.head_dim);
        let kv_width = cfg.kv_heads * cfg.head_dim;
        let linear = |outputs, name| linear_b(hidden, outputs, cfg.qkv_bias, vb.pp(name));
        let norm = |name| RmsNorm::new(cfg.head_dim, cfg.rms_norm_eps, vb.pp(name));
        Ok(Self {
            qkv: Linear::joined(&[
                linear(width, "q_proj")?,
                linear(kv_width, "k_proj")?,
                linear(kv_width, "v_proj")?,
            ])?,
            norms: if cfg.head_norms { Some([norm("q_norm")?, norm("k_norm")?]) } else { None },
            o: linear_no_bias(width, hidden, vb.pp("o_proj"))?,
            heads: cfg.heads,
            kv_heads: cfg.kv_heads,
            head_dim: cfg.head_dim,
        })
    }

    fn forward<A: Attend + ?Sized>(
        &self,
        x: &Tensor,
        layer: usize,
        attend: &mut A,
        sound: &mut Sum,
    ) -> Result<Tensor> {
        let (n, &Self { heads, kv_heads, head_dim, .. }) = (x.dim(0)?, self);
        let qkv = self.qkv.forward(x)?;
        // A key that is no number may weigh nothing to who attends; it must not be kept either.
        sound.add(&qkv)?;
        let qkv = qkv.reshape((n, heads + 2 * kv_heads, head_dim))?.transpose(0, 1)?;
        // Kernels of a device take rows as they lie.
        let in_place = kernels::on(x.device()).is_some();
        let part = |start, len| -> candle_core::Result<Tensor> {
            let part = qkv.narrow(0, start, len)?;
            if in_place { Ok(part) } else { part.contiguous() }
        };
        let (q, k, v) =
            (part(0, heads)?, part(heads, kv_heads)?, part(heads + kv_heads, kv_heads)?);
        let (q, k) = match &self.norms {
            Some([of_q, of_k]) => (of_q.forward(&q)?, of_k.forward(&k)?),
            None => (q, k),
        };
        let context = attend.attend(layer, &q, &k, &v)?;
        let context = context.transpose(0, 1)?.reshape((n, heads * head_dim))?;
        Ok(self.o.forward(&context)?)
    }
}

/// The gated feed-forward part (SwiGLU).
struct Mlp {
    gate_up: Linear,
    down: Linear,
    act: Activation,
}

impl Mlp {
    fn new(cfg: &TextConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let (hidden, inner) = (cfg.hidden_size, cfg.intermediate_size);
        Ok(Self {
            gate_up: Linear::joined(&[
                linear_no_bias(hidden, inner, vb.pp("gate_proj"))?,
                linear_no_bias(hidden, inner, vb.pp("up_proj"))?,
            ])?,
            down: linear_no_bias(inner, hidden, vb.pp("down_proj"))?,
            act: cfg.act,
        })
    }
}

impl Module for Mlp {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.down.forward(&gated(&self.gate_up.forward(x)?, self.act)?)
    }
}

struct Layer {
    attention: Attention,
    mlp: Mlp,
    attention_norm: RmsNorm,
    mlp_norm: RmsNorm,
}

impl Layer {
    fn new(cfg: &TextConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let norm = |name| RmsNorm::new(cfg.hidden_size, cfg.rms_norm_eps, vb.pp(name));
        Ok(Self {
            attention: Attention::new(cfg, vb.pp("self_attn"))?,
            mlp: Mlp::new(cfg, vb.pp("mlp"))?,
            attention_norm: norm("input_layernorm")?,
            mlp_norm: norm("post_attention_layernorm")?,
        })
    }
}

/// The text model: embeddings, layers, final norm and output head.
pub struct Decoder {
    embeddings: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    /// The head is the embeddings.
    tied: bool,
    rope: Arc<Rope>,
    /// The number format of what flows between the layers.
    dtype: DType,
    device: Device,
    cfg: TextConfig,
    together: Gathering<Rows>,
}

impl Decoder {
    /// `vb` is the language model's, `head` that of a separate `lm_head`; `None` ties the output
    /// to the embeddings.
    pub(crate) fn new(cfg: &TextConfig, vb: VarBuilder, head: Option<VarBuilder>) -> Result<Self> {
        let embeddings =
            candle_nn::embedding(cfg.vocab_size, cfg.hidden_size, vb.pp("embed_tokens"))?;
        // The largest tensors first: each is mapped as long as it is copied, on top of what is there by then.
        let own = |vb| linear_no_bias(cfg.hidden_size, cfg.vocab_size, vb);
        let own = head.map(own).transpose()?;
        let layers = (0..cfg.layers)
            .map(|i| Layer::new(cfg, vb.pp("layers").pp(i)))
            .collect::<candle_core::Result<Vec<Layer>>>()?;
        let tied = own.is_none();
        let head = match own {
            Some(own) => own,
            // Held a second time: a token's scores read all of it, a token's embedding one row.
            None if layers.first().is_some_and(|layer| layer.mlp.down.is_eight_bits()) => {
                Linear::in_eight_bits(embeddings.embeddings())?
            }
            None => Linear::new(embeddings.embeddings().clone(), None),
        };
        let rope = match cfg.mrope {
            Some(Mrope { section, interleaved: true }) => {
                Rope::interleaved(section, cfg.rope_theta, vb.device())?
            }
            Some(Mrope { section, .. }) => Rope::multimodal(section, cfg.rope_theta, vb.device())?,
            None => Rope::new(cfg.head_dim, cfg.rope_theta, vb.device())?,
        };
        Ok(Self {
            embeddings,
            layers,
            norm: RmsNorm::new(cfg.hidden_size, cfg.rms_norm_eps, vb.pp("norm"))?,
            head,
            tied,
            rope: Arc::new(rope),
            dtype: vb.dtype(),
            device: vb.device().clone(),
            cfg: cfg.clone(),
            together: Gathering::new(MOST_ROWS),
        })
    }

    pub fn layers(&self) -> usize {
        self.cfg.layers
    }

    /// Query heads `H`.
    pub fn heads(&self) -> usize {
        self.cfg.heads
    }

    /// Key and value heads `Hk`.
    pub fn kv_heads(&self) -> usize {
        self.cfg.kv_heads
    }

    /// Head dim `d`.
    pub fn head_dim(&self) -> usize {
        self.cfg.head_dim
    }

    /// Width `C` of the residual stream.
    pub fn hidden_size(&self) -> usize {
        self.cfg.hidden_size
    }

    /// Width of a layer's feed-forward part.
    pub fn inner_size(&self) -> usize {
        self.cfg.intermediate_size
    }

    pub fn vocab_size(&self) -> usize {
        self.cfg.vocab_size
    }

    /// Bytes of what is held twice, in two formats: the head, where it is the embeddings in eight bits.
    pub(super) fn doubled_bytes(&self) -> u64 {
        if self.tied { self.head.eight_bits_bytes() } else { 0 }
    }

    /// The longest context the checkpoint claims to handle.
    pub fn max_positions(&self) -> usize {
        self.cfg.max_positions
    }

    /// Multiply-adds of one token in the linear layers, the head not counted.
    pub fn work(&self) -> u64 {
        let TextConfig { hidden_size, intermediate_size, heads, kv_heads, head_dim, .. } = self.cfg;
        let attention = 2 * hidden_size * (heads + kv_heads) * head_dim;
        (self.cfg.layers * (attention + 3 * hidden_size * intermediate_size)) as u64
    }

    pub fn rope(&self) -> &Arc<Rope> {
        &self.rope
    }

    /// The factor on attention scores, `1 / sqrt(d)`.
    pub fn scale(&self) -> f64 {
        1.0 / (self.cfg.head_dim as f64).sqrt()
    }

    /// The embeddings `[n, C]` of token ids.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.cfg.vocab_size) {
            let vocab = self.cfg.vocab_size;
            return Err(EngineError::Tokenizer(format!(
                "token id {id} is outside the model's vocabulary of {vocab}; do tokenizer.json \
                 and config.json belong together?"
            )));
        }
        Ok(self.embeddings.forward(&Tensor::new(ids, &self.device)?)?.to_dtype(self.dtype)?)
    }

    /// One pass over `embeds` `[n, C]`, or `[n, (1 + e) * C]` with what is added behind the first `e`
    /// layers; the result `[n, C]` is after the final norm.
    ///
    /// # Errors
    /// [`NotFinite`](EngineError::NotFinite) where any query, key, value or state was not; and those
    /// of `attend`.
    pub fn forward<A: Attend + ?Sized>(&self, embeds: &Tensor, attend: &mut A) -> Result<Tensor> {
        let mut sound = Sum::default();
        let width = self.cfg.hidden_size;
        let vector = |at: usize| embeds.narrow(1, at * width, width);
        let vectors = embeds.dim(1)? / width.max(1);
        let mut x = if vectors > 1 { vector(0)?.contiguous()? } else { embeds.clone() };
        // Every sum is normed next: by the layer's second norm, the next layer's first, the last one.
        let mut states =
            self.layers.first().map_or(&self.norm, |l| &l.attention_norm).forward(&x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let h = layer.attention.forward(&states, i, attend, &mut sound)?;
            (x, states) = layer.mlp_norm.after_sum(&x, &h)?;
            let mut h = layer.mlp.forward(&states)?;
            if i + 1 < vectors {
                h = (h + vector(i + 1)?)?;
            }
            let next = self.layers.get(i + 1).map_or(&self.norm, |next| &next.attention_norm);
            (x, states) = next.after_sum(&x, &h)?;
        }
        sound.add(&states)?;
        if !sound.is_finite()? {
            return Err(EngineError::NotFinite { what: "what the decoder makes of this".into() });
        }
        Ok(states)
    }

    /// Scores `[n, vocab]` in f32 of the next token after each row of `hidden` `[n, C]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self.head.forward(hidden)?.to_dtype(DType::F32)?)
    }
}
