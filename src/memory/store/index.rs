// SPDX-License-Identifier: MPL-2.0
//! The array that a question ranks a layer's blocks by: their mean keys, a row each, on the host or
//! where the model computes.

use std::borrow::Cow;

use candle_core::{DType, Device, Tensor};

use super::coarse::{Bounds, Coarse};
use super::rows::{Rows, RowsFrom};
use crate::error::Result;
use crate::memory::kv::{index, pick, read};
use crate::snapshot::Snapshot;

/// Mean keys `[blocks, Hk * d]` in f32, in an array that grows by appending, so ranking is one product
/// over it. The first that come in decide where all of them lie.
#[derive(Debug, Default)]
pub struct MeanKeys {
    rows: Place,
    /// Rows at the front whose blocks are gone.
    gone: usize,
    /// `Hk * d`; known from the first row on.
    dim: usize,
    /// What is coarsely known of all rows on the host.
    coarse: Coarse,
}

#[derive(Debug)]
enum Place {
    Host(Rows),
    /// `[room, Hk * d]`, of which `len` rows are in use.
    Device {
        array: Tensor,
        len: usize,
    },
}

impl Default for Place {
    fn default() -> Self {
        Self::Host(Rows::default())
    }
}

/// All rows as they lie, `[blocks, Hk * d]`.
#[derive(Clone, Debug)]
pub enum Keys<'a> {
    Host(RowsFrom<'a>),
    Device(Tensor),
}

impl MeanKeys {
    /// These rows `[n, Hk * d]`. `on_device`: they stay where they are.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn of(rows: Tensor, on_device: bool) -> Result<Self> {
        let (len, dim) = rows.dims2()?;
        let rows = match on_device {
            true => Place::Device { array: rows.to_dtype(DType::F32)?.contiguous()?, len },
            false => Place::Host(Rows::of(read(&rows)?, dim)),
        };
        Ok(Self { rows, dim, ..Self::default() })
    }

    /// These rows, one behind the other, on the host.
    pub fn listed(rows: Vec<f32>, dim: usize) -> Self {
        Self { rows: Place::Host(Rows::of(rows, dim)), dim, ..Self::default() }
    }

    /// Rows whose blocks are there.
    pub fn len(&self) -> usize {
        self.all() - self.gone
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows in use, those whose blocks are gone included.
    fn all(&self) -> usize {
        match &self.rows {
            Place::Host(rows) => rows.len(),
            Place::Device { len, .. } => *len,
        }
    }

    /// Rows for which there is room.
    #[cfg(test)]
    pub fn room(&self) -> usize {
        match &self.rows {
            Place::Host(rows) => rows.room(),
            Place::Device { array, .. } => array.dims()[0],
        }
    }

    /// `Hk * d`.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All rows as they lie.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn keys(&self) -> Result<Keys<'_>> {
        Ok(match &self.rows {
            Place::Host(rows) => Keys::Host(rows.from(self.gone)),
            Place::Device { array, .. } => Keys::Device(array.narrow(0, self.gone, self.len())?),
        })
    }

    /// Between what a question `[Hk * d]` scores the rows on the host, the first of them as many as there
    /// are bounds for.
    pub fn bounds(&self, question: &[f32]) -> Bounds {
        self.coarse.bounds(question, self.gone)
    }

    /// Bytes that a row of so many numbers takes.
    pub fn bytes_of_a_row(dim: usize) -> usize {
        dim * size_of::<f32>() + Coarse::bytes_of_a_row(dim)
    }

    /// All rows on the host, `[blocks * Hk * d]`.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn read(&self) -> Result<Cow<'_, [f32]>> {
        Ok(match self.keys()? {
            Keys::Host(rows) => rows.joined(),
            Keys::Device(rows) => Cow::Owned(read(&rows)?),
        })
    }

    /// All rows `[blocks, Hk * d]`, held as they are now.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn save(&self, into: &mut Snapshot) -> Result<()> {
        let (shape, gone) = ((self.len(), self.dim), self.gone);
        match &self.rows {
            Place::Host(rows) => {
                let rows = rows.clone();
                into.add(move |out| {
                    let rows = rows.from(gone).joined().into_owned();
                    out.tensor(&Tensor::from_vec(rows, shape, &Device::Cpu)?)
                });
            }
            Place::Device { array, .. } => {
                into.tensor(array.narrow(0, gone, self.len())?.force_contiguous()?);
            }
        }
        Ok(())
    }

    /// Takes other rows in behind these.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn append(&mut self, fresh: &Self) -> Result<()> {
        if fresh.is_empty() {
            return Ok(());
        }
        if self.all() == 0 {
            *self = Self { rows: fresh.likewise(), dim: fresh.dim, ..Self::default() };
        }
        debug_assert_eq!(fresh.dim, self.dim, "one model, one width");
        let wanted = self.len() + fresh.len();
        match &mut self.rows {
            Place::Host(rows) => {
                match fresh.keys()? {
                    Keys::Host(fresh) => fresh.pieces().for_each(|piece| rows.extend(piece)),
                    Keys::Device(fresh) => rows.extend(&read(&fresh)?),
                }
                self.coarse.follow(rows);
            }
            Place::Device { array, len } => {
                let fresh = match fresh.keys()? {
                    Keys::Device(rows) => rows,
                    Keys::Host(rows) => {
                        let shape = (fresh.len(), fresh.dim);
                        Tensor::from_slice(&rows.joined(), shape, array.device())?
                    }
                };
                let n = fresh.dim(0)?;
                if *len + n > array.dim(0)? {
                    let held = array.narrow(0, self.gone, *len - self.gone)?;
                    *len -= self.gone;
                    self.gone = 0;
                    *array = moved(&held, wanted.next_power_of_two())?;
                }
                array.slice_set(&fresh.contiguous()?, 0, *len)?;
                *len += n;
            }
        }
        Ok(())
    }

    /// An array without rows, where these lie.
    fn likewise(&self) -> Place {
        match &self.rows {
            Place::Host(_) => Place::Host(Rows::new(self.dim)),
            // Its own room is never written to.
            Place::Device { array, .. } => match array.narrow(0, 0, 0) {
                Ok(array) => Place::Device { array, len: 0 },
                Err(_) => Place::Host(Rows::new(self.dim)),
            },
        }
    }

    /// Other rows of the same length for those from `index` on.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn set(&mut self, index: usize, others: &Self) -> Result<()> {
        let row = self.gone + index;
        match &mut self.rows {
            Place::Host(rows) => {
                rows.set(row, &others.read()?);
                self.coarse.cut(row);
                self.coarse.follow(rows);
            }
            Place::Device { array, .. } => {
                let others = match others.keys()? {
                    Keys::Device(rows) => rows.contiguous()?,
                    Keys::Host(rows) => {
                        let shape = (others.len(), others.dim);
                        Tensor::from_slice(&rows.joined(), shape, array.device())?
                    }
                };
                array.slice_set(&others, 0, row)?;
            }
        }
        Ok(())
    }

    /// Drops the oldest `count`.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn drop_front(&mut self, count: usize) -> Result<()> {
        self.gone += count.min(self.len());
        let left = self.len();
        // Once in a while, so that dropping costs the same however many there are.
        if self.gone <= left {
            return Ok(());
        }
        match &mut self.rows {
            Place::Host(rows) => {
                *rows = rows.from(self.gone).apart();
                self.coarse.cut(0);
                self.coarse.follow(rows);
            }
            Place::Device { array, len } => {
                let held = array.narrow(0, self.gone, left)?;
                *array = moved(&held, (2 * left).max(1))?;
                *len = left;
            }
        }
        self.gone = 0;
        Ok(())
    }

    /// The mean of the rows with these indices, each with a weight.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn mean(&self, of: &[(usize, f64)]) -> Result<Self> {
        let (indices, weights): (Vec<usize>, Vec<f64>) = of.iter().copied().unzip();
        let all = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let kept = self.kept(&indices)?;
        let rows = match kept.keys()? {
            Keys::Host(rows) => {
                let mut mean = vec![0.0; self.dim];
                for (row, weight) in rows.each().zip(&weights) {
                    let weight = (weight / all) as f32;
                    mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += weight * x);
                }
                Place::Host(Rows::of(mean, self.dim))
            }
            Keys::Device(rows) => {
                let weights: Vec<f32> = weights.iter().map(|w| (w / all) as f32).collect();
                let weights = Tensor::from_vec(weights, (1, indices.len()), rows.device())?;
                Place::Device { array: weights.matmul(&rows.contiguous()?)?, len: 1 }
            }
        };
        Ok(Self { rows, dim: self.dim, ..Self::default() })
    }

    /// The rows with these indices, ascending.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn kept(&self, indices: &[usize]) -> Result<Self> {
        if indices.is_empty() {
            return Ok(Self { rows: self.likewise(), dim: self.dim, ..Self::default() });
        }
        let rows = match self.keys()? {
            Keys::Host(rows) => {
                let mut kept = Rows::new(self.dim);
                indices.iter().filter_map(|&i| rows.get(i)).for_each(|row| kept.extend(row));
                Place::Host(kept)
            }
            Keys::Device(rows) => {
                let array = pick(&rows, &index(indices, rows.device())?, 0)?;
                Place::Device { array, len: indices.len() }
            }
        };
        Ok(Self { rows, dim: self.dim, ..Self::default() })
    }
}

/// Rows `[n, dim]` at the front of an array with this much room.
fn moved(rows: &Tensor, room: usize) -> Result<Tensor> {
    let (n, dim) = rows.dims2()?;
    let array = Tensor::zeros((room, dim), rows.dtype(), rows.device())?;
    if n > 0 {
        array.slice_set(&rows.contiguous()?, 0, 0)?;
    }
    Ok(array)
}
