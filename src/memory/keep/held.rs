// SPDX-License-Identifier: MPL-2.0
//! What a look at the memory starts from: the model's shape, the method, and what each layer holds.

use super::resident::Layer;
use crate::error::Result;
use crate::memory::kv::Kv;
use crate::memory::recipe::Recipe;
use crate::memory::store::{LayerStore, Stretch};
use crate::memory::unit::{Geometry, Row, Unit};
use crate::model::rope::Positions;

#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    pub geometry: &'a Geometry,
    pub recipe: &'a Recipe,
    pub layers: &'a [LayerStore],
    /// The resident cache, a layer each; `None` where the recipe has none.
    pub resident: Option<&'a [Layer]>,
}

impl<'a> Held<'a> {
    /// The tokens before the video, un-rotated.
    pub fn prefix(&self, layer: usize) -> Option<&'a Kv> {
        self.layers.get(layer)?.prefix.as_ref()
    }

    /// The same where they lie.
    pub fn opening(&self, layer: usize) -> Option<&'a Stretch> {
        self.layers.get(layer)?.opening.as_ref()
    }

    /// Their number.
    pub fn prefix_tokens(&self) -> usize {
        self.prefix(0).and_then(|prefix| prefix.tokens().ok()).unwrap_or(0)
    }

    /// The tokens before the video, keys turned where they stand.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn prefix_in_place(&self, layer: usize) -> Result<Option<Kv>> {
        let Some(prefix) = self.prefix(layer) else { return Ok(None) };
        let here = Positions::run(0, prefix.tokens()?);
        let k = self.geometry.rope.rotate(&prefix.k, &here)?;
        Ok(Some(Kv { k, v: prefix.v.clone() }))
    }

    /// Ids of the units that a layer holds to be retrieved, in stream order.
    pub fn units(&self, layer: usize) -> Vec<u64> {
        let layer = self.layers.get(layer);
        layer.map_or_else(Vec::new, |layer| layer.blocks.iter().map(|b| b.unit).collect())
    }

    /// Tokens of a layer that are held without being retrieved.
    pub fn resident_at(&self, layer: usize) -> Option<&'a Layer> {
        self.resident?.get(layer)
    }

    /// Where `n` tokens of a unit come from and where they stood in the stream.
    pub fn rows_of(&self, unit: &Unit, n: usize) -> Vec<Row> {
        self.geometry.rows_of(self.prefix_tokens(), unit, n)
    }
}
