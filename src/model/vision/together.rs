// SPDX-License-Identifier: MPL-2.0
//! Pictures of several streams through one tower at once.

use candle_core::Tensor;

use super::{Picture, Vision};
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::model::gathering::{Entered, Gathering, Heard, Job, Member};

/// Pixels that wait for the tower.
pub struct Pixels {
    pixels: Tensor,
    picture: Picture,
    units: usize,
    patches: usize,
}

/// What becomes of them; `None`: something went wrong that need not be their fault.
type Tokens = Option<Tensor>;

impl Job for Pixels {
    type Word = Tokens;

    fn size(&self) -> usize {
        self.units * self.patches
    }

    fn goes_with(&self, other: &Self) -> bool {
        // Frames of one shape make pictures of one shape.
        (self.picture.rows, self.picture.cols) == (other.picture.rows, other.picture.cols)
            && self.pixels.dims().get(1..) == other.pixels.dims().get(1..)
    }
}

/// A tower and those who wait for it.
pub struct Shared {
    pub vision: Box<dyn Vision>,
    gathering: Gathering<Pixels>,
}

impl Shared {
    /// `most`: patches of what goes through it at once.
    pub fn new(vision: Box<dyn Vision>, most: usize) -> Self {
        Self { vision, gathering: Gathering::new(most) }
    }

    /// The tokens `[u, M, C]` of the pixels of `units` units, together with those of other threads.
    ///
    /// # Errors
    /// [`Cancelled`](EngineError::Cancelled), or what the computation fails with.
    pub fn tokens(
        &self,
        pixels: &Tensor,
        units: usize,
        picture: &Picture,
        cancel: &Cancel,
    ) -> Result<Tensor> {
        let alone = || self.through(pixels, picture, cancel);
        let job = || Pixels {
            pixels: pixels.clone(),
            picture: *picture,
            units,
            patches: self.vision.patches(picture),
        };
        let place = match self.gathering.enter(job) {
            Entered::First(_turn) => return alone(),
            Entered::Waits(place) => place,
        };
        match place.hear(cancel)? {
            Heard::Lead(_turn, others) if others.is_empty() => alone(),
            Heard::Lead(_turn, others) => {
                match self.lead(pixels, units, picture, &others, cancel) {
                    Ok(tokens) => Ok(tokens),
                    Err(error) => {
                        others.iter().for_each(|other| {
                            other.tell(None);
                        });
                        if matches!(error, EngineError::Cancelled) { Err(error) } else { alone() }
                    }
                }
            }
            Heard::Word(Some(tokens)) => Ok(tokens),
            Heard::Word(None) | Heard::Nothing => alone(),
        }
    }

    fn through(&self, pixels: &Tensor, picture: &Picture, cancel: &Cancel) -> Result<Tensor> {
        self.vision.tokens(&self.vision.features(pixels, picture, cancel)?, picture)
    }

    fn lead(
        &self,
        pixels: &Tensor,
        units: usize,
        picture: &Picture,
        others: &[Member<Pixels>],
        cancel: &Cancel,
    ) -> Result<Tensor> {
        let all: Vec<&Tensor> =
            std::iter::once(pixels).chain(others.iter().map(|other| &other.job.pixels)).collect();
        let tokens = self.through(&Tensor::cat(&all, 0)?, picture, cancel)?;
        let mut start = units;
        for other in others {
            other.tell(Some(tokens.narrow(0, start, other.job.units)?));
            start += other.job.units;
        }
        debug_assert_eq!(tokens.dim(0)?, start);
        Ok(tokens.narrow(0, 0, units)?)
    }
}
