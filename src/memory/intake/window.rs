// SPDX-License-Identifier: MPL-2.0
//! The way in past a local window: each token sees the newest tokens before it and, once the window
//! has moved past them, the prefix as attention sinks (ReKV §3.1).

use candle_core::Tensor;

use super::before::{Before, WayIn};
use super::encoded::Encoded;
use super::frames::Segment;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::kv::Kv;
use crate::memory::unit::UNBOUNDED;
use crate::model::attention::{self, Stage, Visible};
use crate::model::decoder::{Attend, Decoder};
use crate::model::rope::Positions;

/// One pass over all units of a segment.
pub struct Windowed;

impl WayIn for Windowed {
    fn encode(
        &self,
        before: Before<'_>,
        segment: &Segment,
        decoder: &Decoder,
        cancel: &Cancel,
    ) -> Result<Encoded> {
        let inputs = before.inputs(segment)?;
        let here = before.positions(&inputs)?;
        let embeds = inputs.embeds()?;
        let new = || InWindow::new(before, here.clone(), cancel);
        let pass = before.pass(decoder, &embeds, cancel, new)?;
        let fresh = pass.into_layers();
        let raw: Vec<&Kv> = fresh.iter().map(|(raw, _)| raw).collect();
        let resident = before.grown(&inputs, &raw, decoder, cancel)?;
        let kept = inputs.kept(before.held.recipe)?;
        let fresh = fresh.into_iter().map(|(raw, rotated)| (raw, Some(rotated))).collect();
        let encoded = Encoded::cut(before.held, inputs.units, fresh)?;
        Ok(Encoded { resident, inputs: kept, ..encoded })
    }
}

/// Video in: each token sees the window before it and, once the window has moved past them, the
/// prefix tokens as attention sinks at a constant distance (ReKV §3.1 and code).
pub struct InWindow<'a> {
    before: Before<'a>,
    /// Where the new rows stand.
    here: Positions,
    cancel: &'a Cancel,
    /// Per layer: un-rotated, and keys rotated at their place in the stream.
    layers: Vec<(Kv, Kv)>,
}

impl<'a> InWindow<'a> {
    /// `here`: where the new rows stand.
    pub fn new(before: Before<'a>, here: Positions, cancel: &'a Cancel) -> Self {
        Self { before, here, cancel, layers: Vec::new() }
    }

    /// Per layer the un-rotated keys and values of everything taken in, and the same with keys
    /// rotated.
    pub fn into_layers(self) -> Vec<(Kv, Kv)> {
        self.layers
    }

    /// Which of the `n` new rows see the sinks.
    fn sinks_visible(&self, width: usize, n: usize) -> Option<Visible> {
        let seen = self.before.seen;
        if seen + n <= width {
            return None;
        }
        if !self.before.held.recipe.compat {
            // Exactly the sinks that have left the window.
            return Some(Visible::Beyond { offset: seen, width });
        }
        // The reference decides per sub-block of one unit, and does not mind that the first such
        // sub-block may still have sinks inside its window.
        let unit = self.before.held.geometry.unit_tokens.max(1);
        let first = (0..n)
            .step_by(unit)
            .find(|start| seen + start + unit.min(n - start) > width)
            .unwrap_or(n);
        Some(Visible::FromRow(first))
    }
}

impl Attend for InWindow<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let Before { held, .. } = self.before;
        let (rope, layout) = (&held.geometry.rope, held.geometry.layout);
        let n = q.dim(1)?;
        let width = held.recipe.window.unwrap_or(UNBOUNDED);
        let fresh = Kv { k: rope.rotate(k, &self.here)?, v: v.clone() };
        let q_here = rope.rotate(q, &self.here)?;
        let store = &held.layers[layer];

        let past = store.window.view()?;
        let mut stages = Vec::with_capacity(4);
        let mut offset: usize = past.iter().map(Kv::tokens).sum::<Result<_>>()?;
        for part in &past {
            let visible = Visible::Window { offset, width };
            stages.push(Stage { q: &q_here, k: &part.k, v: &part.v, visible });
            offset -= part.tokens()?;
        }
        let visible = Visible::Window { offset: 0, width };
        stages.push(Stage { q: &q_here, k: &fresh.k, v: &fresh.v, visible });

        // All sinks share one position, at the far end of the window.
        let q_sink;
        if let (Some(sinks), Some(visible)) = (&store.prefix, self.sinks_visible(width, n)) {
            let far = layout.reach(width - 1);
            q_sink = rope.rotate(q, &Positions::constant(far, n))?;
            stages.push(Stage { q: &q_sink, k: &sinks.k, v: &sinks.v, visible });
        }
        let context = attention::attend(&stages, held.geometry.scale)?;
        self.layers.push((Kv { k: k.clone(), v: v.clone() }, fresh));
        Ok(context)
    }
}
