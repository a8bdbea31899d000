// SPDX-License-Identifier: MPL-2.0
//! Inputs get fewer as newer ones come, whether there is room for them or not: what an answer reads is a
//! stream that was tidied up on the way.
//!
//! [`tiers`] is FluxMem's way (2603.02096, §3.2) and with pseudo-questions ([`asked`]) SAVEMem's (2605.07897,
//! stage 1); [`span`] is CausalMem's (2606.25658, §3.2). They look at tokens as they enter the decoder, nothing
//! else.

mod asked;
mod seen;
mod span;
mod tiers;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use self::span::Spanned;
use self::tiers::Tiered;
use super::thin::Contents;
use crate::error::Result;
use crate::memory::recipe::Older;
use crate::memory::unit::Geometry;

/// What is remembered of pictures to tidy up by.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tidy {
    tiers: Tiered,
    span: Spanned,
}

impl Tidy {
    /// Tidies up behind units that have just come. `bank`: the recipe's pseudo-questions, `[m, C]` each.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn up(
        &mut self,
        (rule, bank): (&Older, &[Tensor]),
        fresh: &[u64],
        mut held: Contents<'_>,
        geometry: &Geometry,
    ) -> Result<()> {
        for &id in fresh {
            match rule {
                Older::Stays => return Ok(()),
                Older::Tiers(tiers) => self.tiers.take((tiers, bank), id, &mut held, geometry)?,
                Older::Span(span) => self.span.take(span, id, &mut held, geometry)?,
            }
        }
        Ok(())
    }

    /// How much the newest pictures usually have to do with a pseudo-question; `None` where none is asked.
    pub fn usual(&self) -> Option<f32> {
        self.tiers.usual()
    }
}
