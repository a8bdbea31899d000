// SPDX-License-Identifier: MPL-2.0
//! Passes of several streams as one: where cameras share a model, their rows go through the linear
//! layers together, and each camera's thread does its own attention. To the decoder, the others are
//! an [`Attend`] that hands out rows and collects contexts.

use std::sync::mpsc::channel;

use candle_core::Tensor;

use super::rows::{Rows, Word};
use super::{Attend, Decoder};
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::model::gathering::{Entered, Heard, Job, Member};

impl Decoder {
    /// [`forward`](Self::forward) past what `new` makes, together with other threads that are about to
    /// do the same; what has attended, and the states. `new` may be asked twice.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Cancelled`](EngineError::Cancelled) also while it waits.
    pub fn forward_together<A: Attend>(
        &self,
        embeds: &Tensor,
        cancel: &Cancel,
        new: impl Fn() -> A,
    ) -> Result<(A, Tensor)> {
        let alone = || {
            let mut pass = new();
            let states = self.forward(embeds, &mut pass)?;
            Ok((pass, states))
        };
        let (answers, contexts) = channel();
        let place = match self.together.enter(|| Rows { embeds: embeds.clone(), contexts }) {
            Entered::First(_turn) => return alone(),
            Entered::Waits(place) => place,
        };
        let mut pass = new();
        loop {
            match place.hear(cancel)? {
                Heard::Lead(_turn, others) => {
                    return match self.lead(embeds, &others, &mut pass)? {
                        Some(states) => Ok((pass, states)),
                        None => alone(),
                    };
                }
                Heard::Word(Word::Attend(layer, [q, k, v])) => {
                    // The others go on without one that fails; a leader that is gone needs nothing.
                    let context = pass.attend(layer, &q, &k, &v);
                    let _ = answers.send(context.as_ref().ok().cloned());
                    context?;
                }
                Heard::Word(Word::Done(states)) => return Ok((pass, states)),
                Heard::Word(Word::Alone) | Heard::Nothing => return alone(),
            }
        }
    }

    /// A pass of this thread's rows and the others'. `None`: something went wrong, and each is to run
    /// by itself.
    fn lead(
        &self,
        embeds: &Tensor,
        others: &[Member<Rows>],
        own: &mut dyn Attend,
    ) -> Result<Option<Tensor>> {
        if others.is_empty() {
            return self.forward(embeds, own).map(Some);
        }
        let rows = embeds.dim(0)?;
        let all: Vec<&Tensor> =
            std::iter::once(embeds).chain(others.iter().map(|other| &other.job.embeds)).collect();
        let mut spans = Vec::with_capacity(others.len());
        let mut start = rows;
        for other in others {
            spans.push((start, other.job.size()));
            start += other.job.size();
        }
        let mut company =
            Company { own, rows, others, gone: vec![false; others.len()], spans: &spans };
        match self.forward(&Tensor::cat(&all, 0)?, &mut company) {
            Ok(states) => {
                for (other, &(start, n)) in others.iter().zip(&spans) {
                    other.tell(Word::Done(states.narrow(0, start, n)?));
                }
                Ok(Some(states.narrow(0, 0, rows)?))
            }
            Err(error) => {
                others.iter().for_each(|other| {
                    other.tell(Word::Alone);
                });
                // Its own wish, or what only it can be blamed for if it is alone.
                if matches!(error, EngineError::Cancelled) { Err(error) } else { Ok(None) }
            }
        }
    }
}

/// All who take part in a pass, as one.
struct Company<'a> {
    own: &'a mut dyn Attend,
    /// This thread's rows, which come first.
    rows: usize,
    others: &'a [Member<Rows>],
    /// Whose part has failed; its rows go along and mean nothing.
    gone: Vec<bool>,
    /// First row and rows of each of the others.
    spans: &'a [(usize, usize)],
}

impl Attend for Company<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let part = |start: usize, n: usize| -> Result<[Tensor; 3]> {
            let of = |x: &Tensor| x.narrow(1, start, n);
            Ok([of(q)?, of(k)?, of(v)?])
        };
        for ((other, &(start, n)), gone) in self.others.iter().zip(self.spans).zip(&mut self.gone) {
            *gone = *gone || !other.tell(Word::Attend(layer, part(start, n)?));
        }
        let [own_q, own_k, own_v] = part(0, self.rows)?;
        let own = self.own.attend(layer, &own_q, &own_k, &own_v);
        // Theirs are waited for even where this one failed: they are at work with what lies here.
        let mut contexts = Vec::with_capacity(self.others.len() + 1);
        for ((other, &(_, n)), gone) in self.others.iter().zip(self.spans).zip(&mut self.gone) {
            let context = if *gone { None } else { other.job.contexts.recv().ok().flatten() };
            *gone = context.is_none();
            contexts.push(match context {
                Some(context) => context,
                None => {
                    let (heads, _, dim) = q.dims3()?;
                    Tensor::zeros((heads, n, dim), q.dtype(), q.device())?
                }
            });
        }
        contexts.insert(0, own?);
        Ok(Tensor::cat(&contexts, 1)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::model::attention::{Stage, Visible, attend};
    use crate::model::decoder::testing::{WIDTH, decoder, rows};

    /// Plain causal attention that can be held up in its first layer, and can fail in its second.
    struct Causal<'a> {
        gate: Option<&'a mpsc::Receiver<()>>,
        waiting: &'a (dyn Fn() -> usize + Sync),
        /// How many still waited when it began.
        left: Option<usize>,
        fails: bool,
    }

    impl Attend for Causal<'_> {
        fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
            if let (0, Some(gate)) = (layer, self.gate) {
                gate.recv().unwrap();
            }
            self.left.get_or_insert_with(|| (self.waiting)());
            if layer == 1 && self.fails {
                return Err(EngineError::Question("no".into()));
            }
            let visible = Visible::Window { offset: 0, width: usize::MAX / 4 };
            attend(&[Stage { q, k, v, visible }], 0.3)
        }
    }

    fn values(x: &Tensor) -> Vec<Vec<f32>> {
        x.to_vec2().unwrap()
    }

    fn assert_alike(found: &Tensor, expected: &Tensor) {
        let pairs = values(found).into_iter().flatten().zip(values(expected).into_iter().flatten());
        pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} is not {b}"));
    }

    #[test]
    fn who_comes_while_a_pass_runs_goes_together_afterwards_and_gets_its_own() {
        let decoder = decoder();
        let waiting = || decoder.together.waiting();
        let alone = |x: &Tensor| {
            let mut pass = Causal { gate: None, waiting: &waiting, left: None, fails: false };
            decoder.forward(x, &mut pass).unwrap()
        };
        let inputs: Vec<Tensor> = (0..5).map(|i| rows(i, 3 + i as usize)).collect();
        let expected: Vec<Tensor> = inputs.iter().map(alone).collect();
        let (open, gate) = mpsc::channel();
        let cancelled = Cancel::new();
        std::thread::scope(|scope| {
            let run = |at: usize, gate: Option<mpsc::Receiver<()>>, cancel: Cancel| {
                let (decoder, waiting, inputs) = (&decoder, &waiting, &inputs);
                move || {
                    let pass =
                        || Causal { gate: gate.as_ref(), waiting, left: None, fails: at == 3 };
                    let found = decoder.forward_together(&inputs[at], &cancel, pass);
                    found.map(|(pass, states)| (pass.left, states))
                }
            };
            let begun = Instant::now();
            let until = |count: usize| {
                while waiting() != count {
                    assert!(begun.elapsed() < Duration::from_secs(60), "{count} wait");
                    std::thread::yield_now();
                }
            };
            let first = scope.spawn(run(0, Some(gate), Cancel::new()));
            while !decoder.together.is_busy() {
                std::thread::yield_now();
            }
            let mut others = Vec::new();
            for at in 1..4 {
                others.push(scope.spawn(run(at, None, Cancel::new())));
                until(at);
            }
            // One more, which changes its mind.
            let gives_up = scope.spawn(run(4, None, cancelled.clone()));
            until(4);
            cancelled.raise();
            assert!(matches!(gives_up.join().unwrap(), Err(EngineError::Cancelled)));
            assert_eq!(waiting(), 3);
            open.send(()).unwrap();
            assert_alike(&first.join().unwrap().unwrap().1, &expected[0]);
            for (at, other) in (1..4).zip(others) {
                match other.join().unwrap() {
                    Ok((left, states)) => {
                        assert_eq!(left, Some(0), "all were taken along");
                        assert_alike(&states, &expected[at]);
                    }
                    Err(error) => {
                        assert_eq!(at, 3);
                        assert!(matches!(error, EngineError::Question(_)), "{error}");
                    }
                }
            }
        });
        assert!(!decoder.together.is_busy(), "the decoder is free again");
    }

    #[test]
    fn numbers_of_one_that_are_none_are_no_fault_of_the_others() {
        let decoder = decoder();
        let waiting = || decoder.together.waiting();
        let good = rows(1, 4);
        let bad = Tensor::full(f32::NAN, (2, WIDTH), good.device()).unwrap();
        let mut pass = Causal { gate: None, waiting: &waiting, left: None, fails: false };
        let expected = decoder.forward(&good, &mut pass).unwrap();
        let (open, gate) = mpsc::channel();
        let new = || Causal { gate: None, waiting: &waiting, left: None, fails: false };
        std::thread::scope(|scope| {
            let decoder = &decoder;
            let first = scope.spawn(move || {
                let held = || Causal { gate: Some(&gate), ..new() };
                decoder.forward_together(&rows(2, 2), &Cancel::new(), held).map(|_| ())
            });
            while !decoder.together.is_busy() {
                std::thread::yield_now();
            }
            let run = |x: &Tensor| {
                let x = x.clone();
                scope.spawn(move || decoder.forward_together(&x, &Cancel::new(), new).map(|f| f.1))
            };
            let (good, bad) = (run(&good), run(&bad));
            while waiting() < 2 {
                std::thread::yield_now();
            }
            open.send(()).unwrap();
            first.join().unwrap().unwrap();
            assert_alike(&good.join().unwrap().unwrap(), &expected);
            assert!(matches!(bad.join().unwrap(), Err(EngineError::NotFinite { .. })));
        });
    }

    #[test]
    fn a_pass_that_panics_leaves_the_decoder_free() {
        let decoder = decoder();
        let waiting = || 0;
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let pass = || -> Causal { panic!("on purpose") };
            decoder.forward_together(&rows(1, 2), &Cancel::new(), pass).map(|_| ())
        }));
        assert!(panics.is_err());
        let pass = || Causal { gate: None, waiting: &waiting, left: None, fails: false };
        assert!(decoder.forward_together(&rows(1, 2), &Cancel::new(), pass).is_ok());
    }
}
