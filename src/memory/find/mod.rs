// SPDX-License-Identifier: MPL-2.0
//! The way out: from a question to one context a layer.
//!
//! [`View`] is what a question may look at; how it chooses is what the files differ in: [`retrieve`]
//! (the best units of each layer), [`consensus`], [`pieces`], [`pages`], [`fresh`] and [`gate`]. What was chosen is packed
//! into a [`Context`] ([`places`]) or, where inputs are kept, [read again](reread). [`trust`] says how far what was
//! found is to be trusted.

pub mod bare;
pub mod consensus;
pub mod fresh;
pub mod gate;
pub mod ids;
pub mod liked;
pub mod outstanding;
pub mod pages;
pub mod pieces;
pub mod places;
pub mod reread;
pub mod retrieve;
pub mod trust;
pub mod view;
pub mod within;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::recipe::{Retrieval, Sees};
use crate::memory::weigh::select::Choice;
use crate::model::decoder::Decoder;

pub use bare::Bare;
pub use places::Context;
pub use retrieve::{Asked, Retrieve, Wanted};
pub use view::View;
pub use within::Within;

/// What each layer will see in front of the answer prompt.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
pub fn contexts<'a>(
    view: View<'_>,
    question: impl Into<Asked<'a>>,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    let question = question.into();
    match view.held.recipe.retrieval {
        Retrieval::All { last } if view.held.recipe.sees == Sees::Nothing => {
            fresh::newest(view, last.unwrap_or(usize::MAX), decoder, cancel)
        }
        Retrieval::All { last } => view.pack_all(last),
        Retrieval::Best {
            units,
            most,
            oldest,
            recent,
            chunk,
            spread,
            agree,
            read,
            cover,
            reach,
            rule,
        } => {
            let choice = Choice { oldest, recent, chunk, spread, even: 0.0 };
            let wanted = Wanted { units, most, agree, read, cover, reach, rule, choice };
            retrieve::best(view, wanted, question, decoder, cancel)
        }
        Retrieval::Consensus { units } => {
            consensus::agreed(view, units, question.tokens, decoder, cancel)
        }
        Retrieval::Fresh { units } => fresh::newest(view, units, decoder, cancel),
        Retrieval::Gated { gate, few } => {
            gate::gated(view, (gate, few), question.tokens, decoder, cancel)
        }
        Retrieval::Grains { lean, top } => {
            pieces::leant(view, (lean, top), question.tokens, decoder, cancel)
        }
        Retrieval::Pages { tokens, share, recent } => {
            let recent = recent * view.held.geometry.unit_tokens;
            let mut pick = pages::PickPages::new(
                view,
                (tokens, share, recent),
                view.held.recipe.similarity,
                cancel,
            );
            decoder.forward(question.tokens, &mut pick)?;
            Ok(pick.contexts)
        }
    }
}
