// SPDX-License-Identifier: MPL-2.0
//! Rotary position embedding, half-split (NeoX) form: rows of `[H, n, d]` turned by angles that
//! grow with their position.
//!
//! The memory stores keys before rotation and turns them when they are used, so this runs on every
//! retrieval and not only once per token. Tables are f32 whatever the model's number format:
//! bf16 cannot tell positions above 256 apart.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use parking_lot::RwLock;

use crate::error::Result;

/// The positions of `n` rows. Opaque, so that positions on several axes (M-RoPE's time, height and
/// width) can join the plain ones without a change for callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Run { start: usize, n: usize },
    Constant { position: usize, n: usize },
    Listed(Vec<usize>),
}

impl Positions {
    /// `start, start + 1, ..`
    pub fn run(start: usize, n: usize) -> Self {
        Self(Kind::Run { start, n })
    }

    /// The same position `n` times.
    pub fn constant(position: usize, n: usize) -> Self {
        Self(Kind::Constant { position, n })
    }

    /// Any positions, row by row.
    pub fn listed(positions: Vec<usize>) -> Self {
        Self(Kind::Listed(positions))
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Run { n, .. } | Kind::Constant { n, .. } => *n,
            Kind::Listed(positions) => positions.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Cosines and sines `[capacity, d / 2]` of the positions `0..capacity`.
struct Table {
    cos: Tensor,
    sin: Tensor,
    capacity: usize,
}

/// The rotation of one model; shared between threads.
pub struct Rope {
    inv_freq: Vec<f32>,
    device: Device,
    /// Grows with the highest position of a run; replaced, never changed, so readers keep theirs.
    table: RwLock<Arc<Table>>,
    /// The last run beyond the table: every layer asks for the same one.
    far: RwLock<Option<(Range<usize>, Arc<Table>)>>,
}

/// First size of the table, and the highest position for which it grows. Positions beyond, which a
/// stream that runs for days reaches, are computed on the spot, once for all layers.
const FIRST_CAPACITY: usize = 1024;
const MAX_CAPACITY: usize = 1 << 16;

impl Rope {
    pub fn new(head_dim: usize, theta: f64, device: &Device) -> Result<Self> {
        // The frequencies are rounded to f32 as in transformers (a difference here would grow with
        // the position); the angles are then exact products of them.
        let inv_freq: Vec<f32> = (0..head_dim / 2)
            .map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32))
            .collect();
        let table = Arc::new(Table::new(&inv_freq, 0..FIRST_CAPACITY, device)?);
        Ok(Self {
            inv_freq,
            device: device.clone(),
            table: RwLock::new(table),
            far: RwLock::new(None),
        })
    }

    /// Rotates `x` `[H, n, d]` by the rows' positions; the result has the number format of `x`.
    pub fn rotate(&self, x: &Tensor, positions: &Positions) -> Result<Tensor> {
        let (_, n, _) = x.dims3()?;
        if positions.len() != n {
            let message = format!("{} positions for {n} rows of {:?}", positions.len(), x.dims());
            return Err(candle_core::Error::msg(message).into());
        }
        if n == 0 {
            return Ok(x.clone());
        }
        let (cos, sin) = self.tables(positions)?;
        let dtype = x.dtype();
        let x = x.to_dtype(DType::F32)?.contiguous()?.unsqueeze(0)?;
        Ok(candle_nn::rotary_emb::rope(&x, &cos, &sin)?.squeeze(0)?.to_dtype(dtype)?)
    }

    /// Cosines and sines `[n, d / 2]`, contiguous.
    fn tables(&self, positions: &Positions) -> Result<(Tensor, Tensor)> {
        match &positions.0 {
            Kind::Run { start, n } => {
                let run = *start..start.saturating_add(*n);
                if run.end > MAX_CAPACITY {
                    let table = self.far(run)?;
                    return Ok((table.cos.clone(), table.sin.clone()));
                }
                let table = self.up_to(run.end)?;
                Ok((table.cos.narrow(0, *start, *n)?, table.sin.narrow(0, *start, *n)?))
            }
            Kind::Constant { position, n } => {
                let one = self.tables(&Positions::run(*position, 1))?;
                let spread =
                    |row: Tensor| row.broadcast_as((*n, self.inv_freq.len()))?.contiguous();
                Ok((spread(one.0)?, spread(one.1)?))
            }
            Kind::Listed(positions) => {
                let table = Table::new(&self.inv_freq, positions.iter().copied(), &self.device)?;
                Ok((table.cos, table.sin))
            }
        }
    }

    /// A table of a run of its own.
    fn far(&self, run: Range<usize>) -> Result<Arc<Table>> {
        if let Some((held, table)) = &*self.far.read()
            && *held == run
        {
            return Ok(table.clone());
        }
        let table = Arc::new(Table::new(&self.inv_freq, run.clone(), &self.device)?);
        *self.far.write() = Some((run, table.clone()));
        Ok(table)
    }

    /// The table, grown to hold the positions below `end`.
    fn up_to(&self, end: usize) -> Result<Arc<Table>> {
        let table = self.table.read().clone();
        if end <= table.capacity {
            return Ok(table);
        }
        let grown = Arc::new(Table::new(&self.inv_freq, 0..end.next_power_of_two(), &self.device)?);
        let mut slot = self.table.write();
        // Another thread may have grown it further in the meantime.
        if slot.capacity < grown.capacity {
            *slot = grown.clone();
        }
        Ok(grown)
    }
}

impl Table {
    fn new(
        inv_freq: &[f32],
        positions: impl ExactSizeIterator<Item = usize>,
        device: &Device,
    ) -> Result<Self> {
        let capacity = positions.len();
        let mut cos = Vec::with_capacity(capacity * inv_freq.len());
        let mut sin = Vec::with_capacity(capacity * inv_freq.len());
        for position in positions {
            for &freq in inv_freq {
                let angle = position as f64 * f64::from(freq);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        let shape = (capacity, inv_freq.len());
        Ok(Self {
            cos: Tensor::from_vec(cos, shape, device)?,
            sin: Tensor::from_vec(sin, shape, device)?,
            capacity,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn all_spellings_of_a_position_agree_and_the_table_grows() {
        let rope = Rope::new(8, 1e4, &Device::Cpu).unwrap();
        let x = Tensor::randn(0f32, 1.0, (2, 3, 8), &Device::Cpu).unwrap();
        for start in [0, 5, 1022, 5000, MAX_CAPACITY - 1, MAX_CAPACITY + 7] {
            let run = rope.rotate(&x, &Positions::run(start, 3)).unwrap();
            let listed = vec![start, start + 1, start + 2];
            assert_eq!(rows(&run), rows(&rope.rotate(&x, &Positions::listed(listed)).unwrap()));
            let first = rope.rotate(&x.narrow(1, 0, 1).unwrap(), &Positions::constant(start, 1));
            assert_eq!(rows(&first.unwrap()), rows(&run.narrow(1, 0, 1).unwrap()));
        }
        assert!(rope.table.read().capacity <= MAX_CAPACITY);
        assert!(rope.rotate(&x, &Positions::run(0, 2)).is_err());
    }

    #[test]
    fn scores_depend_on_distance_alone() {
        let rope = Rope::new(16, 1e4, &Device::Cpu).unwrap();
        let q = Tensor::randn(0f32, 1.0, (1, 1, 16), &Device::Cpu).unwrap();
        let k = Tensor::randn(0f32, 1.0, (1, 1, 16), &Device::Cpu).unwrap();
        let score = |p: usize| {
            let q = rope.rotate(&q, &Positions::run(p + 9, 1)).unwrap();
            let k = rope.rotate(&k, &Positions::run(p, 1)).unwrap();
            rows(&(q * k).unwrap()).iter().sum::<f32>()
        };
        assert!((score(0) - score(3000)).abs() < 1e-4);
    }
}
