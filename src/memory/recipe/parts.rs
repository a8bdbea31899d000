// SPDX-License-Identifier: MPL-2.0
//! The parts that a method is composed of, each an enum with its options: how the stream is cut and
//! thinned, what new tokens see, what is kept of a unit, and what an answer looks at.

/// How a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    /// Nothing waits: the frames of one push are one segment. Encoding does not depend on how
    /// many frames that are.
    Never,
    /// Every `frames` frames.
    Uniform { frames: usize },
    /// Where the cosine of neighbouring frames falls to `threshold` or below, but not within the
    /// first `min` frames; beyond `max` frames the two most alike neighbours are merged, or the
    /// segment is closed (`close_at_max`). `seconds` bounds how long a segment stays open.
    Semantic { threshold: f32, min: usize, max: usize, close_at_max: bool, seconds: f64 },
    /// Whenever the tokens that are left of the frames fill a unit of so many frames' worth; units
    /// go across frames (CacheFlow §4.4).
    Pack { frames: usize },
}

/// What is done to frames before they are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Reduce {
    #[default]
    Nothing,
    /// Neighbours of a segment whose mean cosine is above this become one frame, their mean.
    Frames { alike: f64 },
    /// Patches whose cosine with the same one of the frame before is not below this go; the one
    /// that is least alike stays in any case.
    Patches { alike: f64 },
    /// The frames of a segment that differ most from the one before them stay, this fraction of
    /// them, peaks of change first.
    Peaks { keep: f64 },
}

/// What new tokens see of what came before them. The prefix they see in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sees {
    /// The newest tokens, as many as the recipe's window has.
    #[default]
    Window,
    /// Nothing else.
    Prefix,
    /// Nothing at all: they are not encoded before a question comes.
    Nothing,
    /// The resident cache.
    Resident,
    /// What changed in the newest units.
    Changed(Sparse),
}

/// How far new frames see, and how much of that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sparse {
    /// Units before the one at hand.
    pub units: usize,
    /// Fraction of a unit's tokens that later ones see.
    pub keep: f64,
    /// Compare units in pairs, the first of each whole, instead of each with the one before it.
    pub pairs: bool,
}

/// Several ways of cutting, fine to coarse; none: not at all. The lists are of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grains {
    pub frames: Vec<f64>,
    pub keep: Vec<f64>,
    pub attention: Vec<f64>,
    pub retrieve: Vec<usize>,
}

impl Grains {
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Grain> {
        let shares = self.frames.iter().zip(&self.keep).zip(self.attention.iter());
        shares.zip(&self.retrieve).map(|(((&frames, &keep), &attention), &retrieve)| Grain {
            frames,
            keep,
            attention,
            retrieve,
        })
    }
}

/// One way of cutting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grain {
    /// Frames' worth of tokens of a piece; less than one: a part of a frame.
    pub frames: f64,
    /// Fraction of a piece's tokens that is kept; where that is none, all are.
    pub keep: f64,
    /// Weight of the attention signal against the keys' change, 0..=1.
    pub attention: f64,
    /// Pieces in the context of an answer.
    pub retrieve: usize,
}

impl Grain {
    /// Tokens of a piece where a frame has `unit`.
    pub fn tokens(&self, unit: usize) -> usize {
        ((self.frames * unit as f64).round() as usize).max(1)
    }

    /// Tokens that are left of a piece of `n`: where the share is none, all are.
    pub fn kept(&self, n: usize) -> usize {
        match (n as f64 * self.keep) as usize {
            0 => n,
            kept => kept,
        }
    }
}

/// What is dropped from a closed segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Compression {
    /// Fraction of a segment's frames that is kept, in 0..=1.
    pub keep_ratio: f64,
    pub rule: BudgetRule,
    /// The prompt whose mean query says what matters; never stored.
    pub guidance: String,
}

/// How a total budget is spread over the layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BudgetRule {
    /// As released: z-scored softmax, a threshold search that stops within four of the total, then
    /// a min-max stretch to `mean * (1 - temperature) ..= mean * (1 + temperature)`. Temperature 0
    /// gives every layer the mean.
    Stretched { temperature: f64 },
    /// As published: softmax of the plain scores, the search run to the end, no stretch.
    Threshold,
}

/// What is stored of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeps {
    /// Its keys and values in every layer.
    #[default]
    KeysAndValues,
    /// What entered the decoder, and of every layer the mean key and the mean value to find it by.
    /// What is found is encoded again, as if it were all there had been.
    Inputs,
}

/// How the places of resident tokens, and of what was retrieved, are chosen when they are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Places {
    /// Side by side behind the prefix, whatever lay between them.
    #[default]
    Packed,
    /// Where they stood in the stream.
    Kept,
    /// Where they stood, until the largest passes the limit: then side by side, once.
    Lazy { limit: usize },
    /// Where they stood; what a step leaves of a stretch is squeezed to that fraction of its time.
    Scaled,
    /// Every unit right behind the prefix, all at the same place.
    Local,
}

/// In which order retrieved units stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As in the stream.
    #[default]
    Stream,
    /// As they were found, best first.
    Found,
}

/// What an answer looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum Retrieval {
    /// Everything stored, or its last `last` units.
    All { last: Option<usize> },
    /// The best units of each layer, and the newest ones in any case.
    Best {
        /// Mean number of units a layer.
        units: usize,
        /// No layer takes more than this.
        most: usize,
        /// How many of the oldest units are always among them; with `cover`, where most are evenly apart.
        oldest: usize,
        /// How many of the newest units are always among them.
        recent: usize,
        /// Neighbours that are ranked together.
        chunk: usize,
        /// The fraction of its score that a unit lends to its neighbours.
        spread: f64,
        /// All layers look at the same units: those that they like best together.
        agree: bool,
        /// Where what is found is encoded again: the fraction of it that is, the newest units whole and
        /// of the others what stands out. As many more are found.
        read: f64,
        /// The less the layers agree on what the question likes and any other does not, the more of them
        /// are evenly apart.
        cover: bool,
        /// What is mostly evenly apart and encoded again stands where it stood, drawn together where that
        /// is further than so many units; 0: side by side.
        reach: usize,
        rule: BudgetRule,
    },
    /// The same units for all layers: what the first and the last layer agree on (CacheFlow §4.4).
    Consensus { units: usize },
    /// The newest units, encoded anew behind the prefix, and before them what is resident of others.
    Fresh { units: usize },
    /// The newest units, those that are whole where there are tiers; others only where these have less to do
    /// with the question than they usually have with one. Encoded when the question comes (SAVEMem).
    Gated {
        /// How many times the usual is enough.
        gate: f64,
        /// How many others are wanted where it is clear which.
        few: usize,
    },
    /// Of every grain its best pieces, the same for all layers; the finer ones lean on what the
    /// coarsest found (MuKV §1.7).
    Grains {
        /// How much they lean, 0..=1.
        lean: f64,
        /// How many of the best coarse pieces they lean on.
        top: usize,
    },
    /// Of what is resident the best pages of each layer, and the newest tokens (LiveVLM §4.3).
    Pages {
        /// Tokens of a page.
        tokens: usize,
        /// Fraction of the pages that is taken.
        share: f64,
        /// Frames' worth of newest tokens that are always taken.
        recent: usize,
    },
}

/// How a mean query is compared with a representative key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Similarity {
    /// Plain dot product (both released codes).
    Dot,
    /// Cosine (both papers).
    Cosine,
}

/// Who ranks units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Expert {
    /// The language model's own keys and queries.
    #[default]
    Internal,
    /// An outside text-image model.
    External,
    /// Both, fused by their ranks: each gives a unit `1 / (kappa + rank)`.
    Both { kappa: f64 },
}

/// What becomes of inputs as newer ones come, whether there is room for them or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Older {
    #[default]
    Stays,
    Tiers(Tiers),
    Span(Span),
}

/// Whole pictures, then what changed in them, then that with what is alike side by side merged (FluxMem).
#[derive(Clone, Debug, PartialEq)]
pub struct Tiers {
    /// Units that are whole, the newest.
    pub whole: usize,
    /// Units behind them of which what changed is left.
    pub changed: usize,
    /// Cosine above which a token did not change in any case.
    pub same: f64,
    /// Frames' worth of tokens in all; where pseudo-questions are asked, in all but the whole ones.
    pub cap: usize,
    pub bank: Option<Bank>,
}

/// Pseudo-questions that are asked of every picture when it comes, to say what of it matters (SAVEMem).
#[derive(Clone, Debug, PartialEq)]
pub struct Bank {
    pub questions: Questions,
    /// How much more than `same` a token has to be like what is around it to go, if it has all to do with one
    /// of them.
    pub spare: f64,
    /// How many times the usual change makes another scene, of which nothing goes for being the same.
    pub scene: f64,
}

/// One question or more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions(pub Vec<String>);

/// The tokens that directions which follow the stream say least of (CausalMem).
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Frames' worth of tokens in all.
    pub cap: usize,
    pub directions: usize,
    /// What a picture leaves of how much directions were used before it.
    pub decay: f64,
    /// Directions that a picture may bring.
    pub new: usize,
}

/// One step by which a unit gets thinner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Half of its tokens go: those most like its mean.
    Tokens,
    /// Of two neighbours the newer one goes.
    Frames,
    /// One token is left, the mean; then that of two neighbours, and so on.
    Sketch,
}

/// Steps, one after the other; the last one is taken again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rungs(pub Vec<Rung>);

/// What becomes of the oldest where there is no room for more.
#[derive(Clone, Debug, PartialEq)]
pub struct Thinning {
    /// Without any it is dropped.
    pub rungs: Rungs,
    /// The share of what is held that stays as it came.
    pub whole: f64,
}
