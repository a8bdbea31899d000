// SPDX-License-Identifier: MPL-2.0
//! The Qwen2 decoder without a cache.
//!
//! For each layer it projects queries, keys and values and hands them, before RoPE, to an
//! [`Attend`], which decides what they are compared with. Ingesting video, retrieving, answering
//! and probing are four implementations of that trait; the decoder knows none of them.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, Embedding, Module, RmsNorm, VarBuilder};

use super::checkpoint::TextConfig;
use super::linear::{Linear, linear, linear_no_bias};
use super::rope::Rope;
use super::sound::Sum;
use crate::error::{EngineError, Result};

/// What a forward pass compares its tokens with.
pub trait Attend {
    /// The context `[H, n, d]` of one layer. `q` is `[H, n, d]`, `k` and `v` are `[Hk, n, d]`, all
    /// before RoPE.
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor>;
}

/// Projections around one attention: `[n, C]` to heads and back.
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Attention {
    fn new(cfg: &TextConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let (hidden, width) = (cfg.hidden_size, cfg.heads * cfg.head_dim);
        let kv_width = cfg.kv_heads * cfg.head_dim;
        Ok(Self {
            q: linear(hidden, width, vb.pp("q_proj"))?,
            k: linear(hidden, kv_width, vb.pp("k_proj"))?,
            v: linear(hidden, kv_width, vb.pp("v_proj"))?,
            o: linear_no_bias(width, hidden, vb.pp("o_proj"))?,
            heads: cfg.heads,
            kv_heads: cfg.kv_heads,
            head_dim: cfg.head_dim,
        })
    }

    /// `[n, heads * d]` as contiguous `[heads, n, d]`.
    fn split(&self, x: Tensor, heads: usize) -> candle_core::Result<Tensor> {
        let n = x.dim(0)?;
        x.reshape((n, heads, self.head_dim))?.transpose(0, 1)?.contiguous()
    }

    fn forward<A: Attend + ?Sized>(
        &self,
        x: &Tensor,
        layer: usize,
        attend: &mut A,
        sound: &mut Sum,
    ) -> Result<Tensor> {
        let q = self.split(self.q.forward(x)?, self.heads)?;
        let k = self.split(self.k.forward(x)?, self.kv_heads)?;
        let v = self.split(self.v.forward(x)?, self.kv_heads)?;
        // A key that is no number may weigh nothing to who attends; it must not be kept either.
        [&q, &k, &v].into_iter().try_for_each(|x| sound.add(x))?;
        let context = attend.attend(layer, &q, &k, &v)?;
        let n = x.dim(0)?;
        let context = context.transpose(0, 1)?.reshape((n, self.heads * self.head_dim))?;
        Ok(self.o.forward(&context)?)
    }
}

/// The gated feed-forward part (SwiGLU).
struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
    act: Activation,
}

impl Mlp {
    fn new(cfg: &TextConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let (hidden, inner) = (cfg.hidden_size, cfg.intermediate_size);
        Ok(Self {
            gate: linear_no_bias(hidden, inner, vb.pp("gate_proj"))?,
            up: linear_no_bias(hidden, inner, vb.pp("up_proj"))?,
            down: linear_no_bias(inner, hidden, vb.pp("down_proj"))?,
            act: cfg.act,
        })
    }
}

impl Module for Mlp {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let gated = (self.act.forward(&self.gate.forward(x)?)? * self.up.forward(x)?)?;
        self.down.forward(&gated)
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
        let norm = |name| candle_nn::rms_norm(cfg.hidden_size, cfg.rms_norm_eps, vb.pp(name));
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
    rope: Arc<Rope>,
    /// The number format of what flows between the layers.
    dtype: DType,
    device: Device,
    cfg: TextConfig,
}

impl Decoder {
    /// `vb` is the language model's, `head` that of a separate `lm_head`; `None` ties the output
    /// to the embeddings.
    pub(crate) fn new(cfg: &TextConfig, vb: VarBuilder, head: Option<VarBuilder>) -> Result<Self> {
        let embeddings =
            candle_nn::embedding(cfg.vocab_size, cfg.hidden_size, vb.pp("embed_tokens"))?;
        let layers = (0..cfg.layers)
            .map(|i| Layer::new(cfg, vb.pp("layers").pp(i)))
            .collect::<candle_core::Result<_>>()?;
        let head = match head {
            Some(vb) => linear_no_bias(cfg.hidden_size, cfg.vocab_size, vb)?,
            None => Linear::new(embeddings.embeddings().clone(), None),
        };
        let rope = match cfg.mrope_section {
            Some(section) => Rope::multimodal(section, cfg.rope_theta, vb.device())?,
            None => Rope::new(cfg.head_dim, cfg.rope_theta, vb.device())?,
        };
        Ok(Self {
            embeddings,
            layers,
            norm: candle_nn::rms_norm(cfg.hidden_size, cfg.rms_norm_eps, vb.pp("norm"))?,
            head,
            rope: Arc::new(rope),
            dtype: vb.dtype(),
            device: vb.device().clone(),
            cfg: cfg.clone(),
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

    pub fn vocab_size(&self) -> usize {
        self.cfg.vocab_size
    }

    /// The longest context the checkpoint claims to handle.
    pub fn max_positions(&self) -> usize {
        self.cfg.max_positions
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

    /// One pass over `embeds` `[n, C]`; the result `[n, C]` is after the final norm.
    ///
    /// # Errors
    /// [`NotFinite`](EngineError::NotFinite) where any query, key, value or state was not; and those
    /// of `attend`.
    pub fn forward<A: Attend + ?Sized>(&self, embeds: &Tensor, attend: &mut A) -> Result<Tensor> {
        let mut x = embeds.clone();
        let mut sound = Sum::default();
        for (i, layer) in self.layers.iter().enumerate() {
            let h = layer.attention.forward(
                &layer.attention_norm.forward(&x)?,
                i,
                attend,
                &mut sound,
            )?;
            x = (x + h)?;
            let h = layer.mlp.forward(&layer.mlp_norm.forward(&x)?)?;
            x = (x + h)?;
        }
        let states = self.norm.forward(&x)?;
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
