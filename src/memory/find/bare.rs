// SPDX-License-Identifier: MPL-2.0
//! How every layer asks: a question with nothing but the prefix before it.

use candle_core::Tensor;

use super::view::View;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::intake::Behind;
use crate::memory::kv::read;
use crate::memory::weigh::score::MeanQuery;
use crate::model::decoder::Attend;
use crate::model::rope::Positions;

/// A question with nothing but the prefix before it: how every layer asks.
pub struct Bare<'a> {
    view: View<'a>,
    cancel: &'a Cancel,
    /// Mean queries before RoPE, by layer.
    pub queries: Vec<MeanQuery>,
    /// The last token's key in the last layer, turned where it stands, `[Hk, 1, d]`.
    key: Option<Tensor>,
}

impl<'a> Bare<'a> {
    pub fn new(view: View<'a>, cancel: &'a Cancel) -> Self {
        Self { view, cancel, queries: Vec::new(), key: None }
    }

    /// The last token's key in the last layer, turned where it stands, `[Hk * d]`.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn key(&self) -> Result<Vec<f32>> {
        self.key.as_ref().map_or(Ok(Vec::new()), read)
    }
}

impl Attend for Bare<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let held = self.view.held;
        let geometry = held.geometry;
        self.queries.push(MeanQuery::of(q, geometry.kv_heads, geometry.on_device)?);
        let context = self.view.pack_nothing(layer)?;
        let start = context.as_ref().map_or(0, |context| context.next);
        let n = k.dim(1)?;
        let last = k.narrow(1, n - 1, 1)?.contiguous()?;
        self.key = Some(held.geometry.rope.rotate(&last, &Positions::run(start + n - 1, 1))?);
        Behind::context(held, layer, context.as_ref().map(|c| &c.kv)).attend_fresh(start, q, k, v)
    }
}
