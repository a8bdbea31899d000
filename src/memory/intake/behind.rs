// SPDX-License-Identifier: MPL-2.0
//! Fresh rows behind what they look at: a prompt, a question, an answer.

use candle_core::Tensor;

use crate::error::Result;
use crate::memory::keep::Held;
use crate::memory::kv::Kv;
use crate::memory::unit::UNBOUNDED;
use crate::model::attention::{self, Stage, Visible};
use crate::model::rope::{Positions, Rope};

/// How far the rows behind a context see (ReKV's question attention).
#[derive(Clone, Copy)]
pub struct AnswerWindow<'a> {
    /// Tokens a row sees, itself included.
    pub width: usize,
    /// The un-rotated prefix that it sees beyond.
    pub sinks: Option<&'a Kv>,
    /// How far away that seems.
    pub far: usize,
}

/// Fresh rows behind a finished context: what they see of it, of each other, and, where answers
/// keep to a window, of the sinks behind that window.
pub struct Behind<'a> {
    pub rope: &'a Rope,
    pub scale: f64,
    /// Keys rotated.
    pub context: Option<&'a Kv>,
    /// How far a row sees; `None`: everything before it.
    pub window: Option<AnswerWindow<'a>>,
}

impl<'a> Behind<'a> {
    /// Behind one layer's context (keys rotated), as far as the recipe lets answers see.
    pub fn context(held: Held<'a>, layer: usize, context: Option<&'a Kv>) -> Self {
        let Held { geometry, recipe, .. } = held;
        let width = recipe.window.filter(|_| recipe.windowed_answers);
        Self {
            rope: &geometry.rope,
            scale: geometry.scale,
            context,
            window: width.map(|width| AnswerWindow {
                width,
                sinks: held.prefix(layer),
                far: geometry.layout.reach(width - 1),
            }),
        }
    }

    /// `raw_q` and `q` are the rows before and after RoPE; `own` holds everything behind the
    /// context, the rows themselves included, keys rotated.
    pub fn attend(&self, raw_q: &Tensor, q: &Tensor, own: &Kv) -> Result<Tensor> {
        let n = q.dim(1)?;
        let context = self.context.map_or(Ok(0), Kv::tokens)?;
        let offset = own.tokens()? - n;
        let width = self.window.map_or(UNBOUNDED, |window| window.width);
        let mut stages = Vec::with_capacity(3);
        if let Some(Kv { k, v }) = self.context {
            let visible = Visible::Window { offset: context + offset, width };
            stages.push(Stage { q, k, v, visible });
        }
        let visible = Visible::Window { offset, width };
        stages.push(Stage { q, k: &own.k, v: &own.v, visible });
        let q_sink;
        if let Some(AnswerWindow { sinks: Some(Kv { k, v }), far, .. }) = self.window
            && context + offset + n > width
        {
            q_sink = self.rope.rotate(raw_q, &Positions::constant(far, n))?;
            let visible = Visible::Beyond { offset: context + offset, width };
            stages.push(Stage { q: &q_sink, k, v, visible });
        }
        attention::attend(&stages, self.scale)
    }

    /// Rows that begin at position `start`, with nothing between them and the context.
    pub fn attend_fresh(&self, start: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let here = Positions::run(start, q.dim(1)?);
        let own = Kv { k: self.rope.rotate(k, &here)?, v: v.clone() };
        self.attend(q, &self.rope.rotate(q, &here)?, &own)
    }
}
