// SPDX-License-Identifier: MPL-2.0
//! The way in without the decoder: what would enter it is kept, to be encoded when a question comes
//! (SimpleStream).

use super::before::{Before, WayIn};
use super::encoded::{Encoded, EncodedLayer};
use super::frames::Segment;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::model::decoder::Decoder;

/// No pass at all.
pub struct Unread;

impl WayIn for Unread {
    fn encode(
        &self,
        before: Before<'_>,
        segment: &Segment,
        _: &Decoder,
        _: &Cancel,
    ) -> Result<Encoded> {
        let inputs = before.inputs(segment)?;
        let geometry = before.held.geometry;
        Ok(Encoded {
            tokens: inputs.units.iter().map(|unit| geometry.passed(unit)).sum(),
            taken: inputs.units.iter().map(|unit| geometry.steps(unit)).sum(),
            layers: (0..geometry.layers).map(|_| EncodedLayer::default()).collect(),
            resident: None,
            inputs: inputs.kept(before.held.recipe)?,
            units: inputs.units,
        })
    }
}
