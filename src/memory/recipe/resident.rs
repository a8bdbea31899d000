// SPDX-License-Identifier: MPL-2.0
//! The parts of a bounded cache: what says that a token matters, how a budget is spent, and what is
//! left of tokens that go.

/// A bounded cache that every answer sees whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Resident {
    /// Frames' worth of tokens that a layer holds at most.
    pub cap: usize,
    /// What is left when it shrinks, as a fraction of the cap. Below 1 it shrinks when it is full,
    /// else when it is more than full.
    pub floor: f64,
    /// The tokens in front of the video count towards the cap when it is asked whether it is full
    /// (HERMES's released code); never when it is asked what is left.
    pub prefix_counts: bool,
    /// Frames of the whole video where that is known, else 0: the last shrinking then leaves just
    /// room for the rest (InfiniPot-V's released code).
    pub total: usize,
    /// By what rows are ranked.
    pub signal: Signal,
    /// The share of the budget that `signal` spends; `then` spends the rest.
    pub share: f64,
    pub then: Signal,
    /// The newest fraction of what is held that stays in any case.
    pub recent: f64,
    pub heads: Heads,
    /// Blend with recency by depth, and lean on the next layer (HERMES).
    pub by_depth: bool,
    pub pick: Pick,
    pub scope: Scope,
    pub leave: Leave,
    pub probe: Probe,
    /// Smooth value norms over picture and time, by quarters of the depth.
    pub pooling: bool,
}

impl Resident {
    /// Whether a prompt has to be run to rank rows.
    pub fn asks(&self) -> bool {
        let listens = self.signal == Signal::Attention
            || (self.share < 1.0 && self.then == Signal::Attention);
        listens && matches!(self.probe, Probe::Turn | Probe::Words { .. })
    }
}

/// What says that a row matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The attention that it receives from the probe.
    Attention,
    /// How little its key resembles those of the same patch in the recent frames (TaR).
    Novelty,
    /// The length of its value (VaN).
    ValueNorm,
    /// How new it is.
    Recency,
}

/// Whose attention counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// The words between a question and its answer (StreamMem).
    Turn,
    /// Prompts that ask for details in shallow layers, for the whole in deep ones and for both
    /// between (HERMES).
    Words { local: String, global: String },
    /// The newest frames (LiveVLM).
    Newest { units: usize },
    /// The frames of a step among themselves (ReTaKe).
    Itself,
}

/// Whether a layer's KV heads hold the same rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    Shared,
    Own,
}

/// How rows are chosen by their scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pick {
    Top,
    /// Best first, as long as the stretch of stream that a row lies in has room.
    Buckets {
        /// Rows per stretch.
        size: usize,
        /// The share of the budget that goes by score alone.
        free: f64,
    },
    /// At equal distances, whatever the scores.
    Evenly,
}

/// What competes for the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything held.
    Whole,
    /// What came with one step; each step keeps the same fraction.
    Step,
}

/// What is left of rows that go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Nothing,
    /// A weighted mean of each new frame (StreamMem).
    Prototypes,
    /// In deep layers, the mean of all that goes (HERMES).
    Summary,
}
