// SPDX-License-Identifier: MPL-2.0
//! A method as data: one value of every part.

use super::parts::{
    Compression, Cut, Expert, Grains, Keeps, Older, Order, Places, Reduce, Retrieval, Sees,
    Similarity, Thinning, Tiers,
};
use super::resident::Resident;

/// A composition of the memory's parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    pub(in crate::memory) name: &'static str,
    /// What is taken out before anything is encoded.
    pub reduce: Reduce,
    pub cut: Cut,
    /// Append each segment's mean frame and keep it.
    pub summary: bool,
    /// Tokens that a new token sees, itself included; `None`: all of them.
    pub window: Option<usize>,
    /// Questions and answers keep to the window too, with the prefix as sinks (ReKV's code); else
    /// they see their whole context (StreamKV's).
    pub windowed_answers: bool,
    pub sees: Sees,
    /// Keep units to be retrieved.
    pub store: bool,
    pub keeps: Keeps,
    /// How inputs get fewer behind newer ones.
    pub older: Older,
    /// How the oldest units make room.
    pub thin: Thinning,
    /// A bounded cache beside the store, or instead of it.
    pub resident: Option<Resident>,
    /// Where tokens stand when they are looked at.
    pub places: Places,
    /// In which order retrieved units stand.
    pub order: Order,
    /// Cut the same tokens into pieces of these sizes, each encoded alone; none: whole frames.
    pub grains: Grains,
    /// Cosine of keys above which one of two tokens of a piece goes; 1: none goes.
    pub grain_alike: f64,
    /// Represent units by the mean of their changed keys instead of all.
    pub changed_representative: bool,
    pub expert: Expert,
    /// Folder of the outside text-image model.
    pub external_model: String,
    pub compression: Option<Compression>,
    pub retrieval: Retrieval,
    pub similarity: Similarity,
    /// Reproduce the reference's rounding of boundary features and its double-counted sinks.
    pub compat: bool,
    /// System message of the `rekv` prompt style.
    pub system: &'static str,
}

impl Recipe {
    /// Whether what an answer looks at is encoded when it is asked, and nothing has to be found first.
    pub fn is_fresh(&self) -> bool {
        matches!(self.retrieval, Retrieval::Fresh { .. } | Retrieval::Gated { .. })
            || self.sees == Sees::Nothing
    }

    /// The newest units that stay as they came.
    pub fn whole(&self) -> usize {
        match &self.older {
            Older::Tiers(tiers) => tiers.whole.max(1),
            Older::Stays | Older::Span(_) => 1,
        }
    }

    /// Questions that are asked of every unit when it comes.
    pub fn pseudo_questions(&self) -> &[String] {
        match &self.older {
            Older::Tiers(Tiers { bank: Some(bank), .. }) => &bank.questions.0,
            Older::Tiers(_) | Older::Stays | Older::Span(_) => &[],
        }
    }
}
