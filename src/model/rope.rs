// SPDX-License-Identifier: MPL-2.0
//! Rotary position embedding, half-split (NeoX) form: rows of `[H, n, d]` turned by angles that
//! grow with their position, on one axis or, as Qwen2-VL's M-RoPE has it, on three.
//!
//! The memory stores keys before rotation and turns them when they are used, so this runs on every
//! retrieval and not only once per token. Tables are f32 whatever the model's number format:
//! bf16 cannot tell positions above 256 apart.
//!
//! Where a video's tokens stand is the model's affair and not a method's: [`Layout`].

mod angles;
mod layout;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use parking_lot::RwLock;

use self::angles::{Angles, frequencies};
use self::layout::Kind;
pub use self::layout::{Kept, Layout, Place, Placed, Positions};
use super::kernels::rows::{Standing, Turns};
use super::kernels::{self, Kernels};
use super::side_by_side;
use crate::error::Result;

/// Cosines and sines `[capacity, d / 2]` of the positions `0..capacity`.
struct Table {
    cos: Tensor,
    sin: Tensor,
    capacity: usize,
}

/// An axis of a [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    T,
    H,
    W,
}

/// The rotation of one model; shared between threads.
pub struct Rope {
    angles: Angles,
    /// Which axis turns each pair.
    axes: Vec<Axis>,
    device: Device,
    /// Of the first positions, which most rows stand at.
    table: Table,
    /// The last positions that the table does not have: every layer asks for the same ones.
    last: RwLock<Option<(Positions, Arc<Table>)>>,
    /// Where the last listed rows stand, on a device.
    listed: RwLock<Option<(Positions, Arc<Listed>)>>,
    /// Which axis turns each pair, on a device.
    on_device: OnceLock<Tensor>,
}

/// Places of rows as kernels read them.
enum Listed {
    /// On a single axis, `[n]` in i32.
    One(Tensor),
    /// `[3, n]` in i32.
    Three(Tensor),
}

/// Positions of the table of a decoder, and of a tower, whose pictures are not as wide. It is as large from
/// the first frame on as it is after days; what stands beyond is computed on the spot, once for all layers.
const OF_A_STREAM: usize = 1 << 14;
const OF_A_PICTURE: usize = 1 << 10;

impl Rope {
    /// One axis.
    pub fn new(head_dim: usize, theta: f64, device: &Device) -> Result<Self> {
        let pairs = frequencies(head_dim, theta).map(|frequency| (Axis::T, frequency));
        Self::of_pairs(pairs.collect(), OF_A_STREAM, device)
    }

    /// Three axes: of the `d / 2` pairs, the first `section[0]` are turned by time, the next
    /// `section[1]` by height and the last `section[2]` by width (`mrope_section`).
    pub fn multimodal(section: [usize; 3], theta: f64, device: &Device) -> Result<Self> {
        let head_dim = 2 * section.iter().sum::<usize>();
        let runs = [Axis::T, Axis::H, Axis::W].into_iter().zip(section);
        let axes = runs.flat_map(|(axis, pairs)| std::iter::repeat_n(axis, pairs));
        Self::of_pairs(axes.zip(frequencies(head_dim, theta)).collect(), OF_A_STREAM, device)
    }

    /// The same with the axes in turn: pair `i` is turned by height where `i % 3 == 1`, by width where
    /// `i % 3 == 2`, each as often as its section says, and by time elsewhere (Qwen3-VL).
    pub fn interleaved(section: [usize; 3], theta: f64, device: &Device) -> Result<Self> {
        let pairs = section.iter().sum::<usize>();
        let axis = |pair: usize| match pair % 3 {
            1 if pair < 3 * section[1] => Axis::H,
            2 if pair < 3 * section[2] => Axis::W,
            _ => Axis::T,
        };
        let pairs = (0..pairs).map(axis).zip(frequencies(2 * pairs, theta));
        Self::of_pairs(pairs.collect(), OF_A_STREAM, device)
    }

    /// Two axes with the same frequencies: half of the pairs are turned by height, half by width
    /// (the vision tower of Qwen2-VL).
    pub fn axial(head_dim: usize, theta: f64, device: &Device) -> Result<Self> {
        let on = |axis| frequencies(head_dim / 2, theta).map(move |frequency| (axis, frequency));
        Self::of_pairs(on(Axis::H).chain(on(Axis::W)).collect(), OF_A_PICTURE, device)
    }

    fn of_pairs(pairs: Vec<(Axis, f32)>, capacity: usize, device: &Device) -> Result<Self> {
        let (axes, inv_freq): (Vec<Axis>, Vec<f32>) = pairs.into_iter().unzip();
        let angles = Angles::new(inv_freq);
        let table = Table::new(&angles, 0..capacity, device)?;
        Ok(Self {
            angles,
            axes,
            device: device.clone(),
            table,
            last: RwLock::new(None),
            listed: RwLock::new(None),
            on_device: OnceLock::new(),
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
        if let Some(kernels) = kernels::on(x.device())
            && let Some(turned) = self.turned(&kernels, None, x, positions)?
        {
            return Ok(turned);
        }
        let (cos, sin) = self.tables(positions)?;
        let dtype = x.dtype();
        let x = x.to_dtype(DType::F32)?.contiguous()?.unsqueeze(0)?;
        Ok(candle_nn::rotary_emb::rope(&x, &cos, &sin)?.squeeze(0)?.to_dtype(dtype)?)
    }

    /// Rows of several tensors `[H, n_i, d]` one behind the other, turned, in one pass over them on the
    /// CPU. `None` elsewhere.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn join_rotated(&self, parts: &[&Tensor], positions: &Positions) -> Result<Option<Tensor>> {
        let ours = |part: &&Tensor| part.device().is_cpu() && kernels::on(part.device()).is_none();
        if !parts.iter().all(ours) {
            return Ok(None);
        }
        let (cos, sin) = self.tables(positions)?;
        Ok(side_by_side::joined(parts, Some(side_by_side::Turns { cos: &cos, sin: &sin }))?)
    }

    /// Rows of a pool, turned, in one pass where the device has a kernel for that: see
    /// [`Kernels::gather_rotated`].
    pub fn gather_rotated(
        &self,
        pool: &Tensor,
        from: &Tensor,
        positions: &Positions,
    ) -> Result<Option<Tensor>> {
        match kernels::on(pool.device()) {
            Some(kernels) => self.turned(&kernels, Some(from), pool, positions),
            None => Ok(None),
        }
    }

    /// By a kernel, which reads the whole table. Places beyond it have a table of their own.
    fn turned(
        &self,
        kernels: &Kernels,
        from: Option<&Tensor>,
        x: &Tensor,
        positions: &Positions,
    ) -> Result<Option<Tensor>> {
        let turn = |table: &Table, at: Standing<'_>| {
            let turns = Turns { cos: &table.cos, sin: &table.sin };
            match from {
                Some(from) => kernels.gather_rotated(x, from, turns, at),
                None => kernels.rotate(x, turns, at),
            }
        };
        if positions.end() > self.table.capacity {
            let own = self.held(positions, || match &positions.0 {
                Kind::Listed(places) => self.at(places),
                Kind::Run { start, n } => self.run(*start, *n),
                Kind::Constant { position, n } => self.at(&vec![Place::text(*position); *n]),
            })?;
            return Ok(turn(&own, Standing::Run { start: 0 })?);
        }
        let table = &self.table;
        match &positions.0 {
            Kind::Run { start, .. } => Ok(turn(table, Standing::Run { start: *start })?),
            Kind::Constant { position, .. } => Ok(turn(table, Standing::At(*position))?),
            Kind::Listed(places) => match &*self.listed(positions, places)? {
                Listed::One(places) => Ok(turn(table, Standing::Listed(places))?),
                Listed::Three(places) => {
                    let axes = self.axes_on_device()?;
                    Ok(turn(table, Standing::OnAxes { places, axes })?)
                }
            },
        }
    }

    /// The places on the device, or those that it made the last time.
    fn listed(&self, positions: &Positions, places: &[Place]) -> Result<Arc<Listed>> {
        if let Some((held, listed)) = &*self.listed.read()
            && held == positions
        {
            return Ok(listed.clone());
        }
        // None is beyond the table, which is small.
        let axis = |of: fn(&Place) -> usize| places.iter().map(move |place| of(place) as i32);
        let n = places.len();
        let listed = match places.iter().all(|place| place.t == place.h && place.t == place.w) {
            true => {
                let times: Vec<i32> = axis(|place| place.t).collect();
                Listed::One(Tensor::from_vec(times, n, &self.device)?)
            }
            false => {
                let all: Vec<i32> =
                    axis(|p| p.t).chain(axis(|p| p.h)).chain(axis(|p| p.w)).collect();
                Listed::Three(Tensor::from_vec(all, (3, n), &self.device)?)
            }
        };
        let listed = Arc::new(listed);
        *self.listed.write() = Some((positions.clone(), listed.clone()));
        Ok(listed)
    }

    fn axes_on_device(&self) -> Result<&Tensor> {
        if let Some(axes) = self.on_device.get() {
            return Ok(axes);
        }
        let axes: Vec<i32> = self.axes.iter().map(|&axis| axis as i32).collect();
        let pairs = axes.len();
        let axes = Tensor::from_vec(axes, pairs, &self.device)?;
        Ok(self.on_device.get_or_init(|| axes))
    }

    /// Cosines and sines `[n, d / 2]`, contiguous.
    fn tables(&self, positions: &Positions) -> Result<(Tensor, Tensor)> {
        match &positions.0 {
            Kind::Run { start, n } => {
                if start.saturating_add(*n) > self.table.capacity {
                    let table = self.held(positions, || self.run(*start, *n))?;
                    return Ok((table.cos.clone(), table.sin.clone()));
                }
                let Table { cos, sin, .. } = &self.table;
                Ok((cos.narrow(0, *start, *n)?, sin.narrow(0, *start, *n)?))
            }
            Kind::Constant { position, n } => {
                let one = self.tables(&Positions::run(*position, 1))?;
                let spread = |row: Tensor| row.broadcast_as((*n, self.axes.len()))?.contiguous();
                Ok((spread(one.0)?, spread(one.1)?))
            }
            Kind::Listed(places) => {
                let table = self.held(positions, || self.at(places))?;
                Ok((table.cos.clone(), table.sin.clone()))
            }
        }
    }

    /// A table of a run's own.
    fn run(&self, start: usize, n: usize) -> Result<Table> {
        Table::new(&self.angles, start..start.saturating_add(n), &self.device)
    }

    /// A table of the rows' own. Places share their numbers, so each is computed once.
    fn at(&self, places: &[Place]) -> Result<Table> {
        let mut turns = HashMap::new();
        for position in places.iter().flat_map(|place| [place.t, place.h, place.w]) {
            turns.entry(position).or_insert_with(|| self.angles.turn(position));
        }
        let mut cos = Vec::with_capacity(places.len() * self.axes.len());
        let mut sin = Vec::with_capacity(cos.capacity());
        for place in places {
            let [t, h, w] = [place.t, place.h, place.w].map(|position| &turns[&position]);
            for (pair, axis) in self.axes.iter().enumerate() {
                let turn = match axis {
                    Axis::T => t,
                    Axis::H => h,
                    Axis::W => w,
                };
                cos.push(turn[pair].0);
                sin.push(turn[pair].1);
            }
        }
        Table::of(cos, sin, self.axes.len(), &self.device)
    }

    /// The table that `make` makes of these positions, or the one it made the last time.
    fn held(
        &self,
        positions: &Positions,
        make: impl FnOnce() -> Result<Table>,
    ) -> Result<Arc<Table>> {
        if let Some((held, table)) = &*self.last.read()
            && held == positions
        {
            return Ok(table.clone());
        }
        let table = Arc::new(make()?);
        *self.last.write() = Some((positions.clone(), table.clone()));
        Ok(table)
    }
}

impl Table {
    fn new(angles: &Angles, positions: Range<usize>, device: &Device) -> Result<Self> {
        let (cos, sin) = angles.run(positions).into_iter().unzip();
        Self::of(cos, sin, angles.pairs(), device)
    }

    fn of(cos: Vec<f32>, sin: Vec<f32>, pairs: usize, device: &Device) -> Result<Self> {
        let capacity = cos.len() / pairs.max(1);
        Ok(Self {
            cos: Tensor::from_vec(cos, (capacity, pairs), device)?,
            sin: Tensor::from_vec(sin, (capacity, pairs), device)?,
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
    fn all_spellings_of_a_position_agree_within_the_table_and_beyond() {
        let rope = Rope::new(8, 1e4, &Device::Cpu).unwrap();
        let x = Tensor::randn(0f32, 1.0, (2, 3, 8), &Device::Cpu).unwrap();
        for start in [0, 5, 1022, 5000, OF_A_STREAM - 1, OF_A_STREAM + 7, 3_000_000_000] {
            let run = rope.rotate(&x, &Positions::run(start, 3)).unwrap();
            let listed = Positions::listed((start..start + 3).map(Place::text).collect());
            assert_eq!(rows(&run), rows(&rope.rotate(&x, &listed).unwrap()));
            let first = rope.rotate(&x.narrow(1, 0, 1).unwrap(), &Positions::constant(start, 1));
            assert_eq!(rows(&first.unwrap()), rows(&run.narrow(1, 0, 1).unwrap()));
        }
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

    #[test]
    fn interleaved_axes_take_turns_until_their_section_is_full() {
        let rope = Rope::interleaved([24, 20, 20], 5e6, &Device::Cpu).unwrap();
        let count = |axis| rope.axes.iter().filter(|&&own| own == axis).count();
        assert_eq!([Axis::T, Axis::H, Axis::W].map(count), [24, 20, 20]);
        assert_eq!(rope.axes[..4], [Axis::T, Axis::H, Axis::W, Axis::T]);
        assert_eq!(rope.axes[58..], [Axis::H, Axis::W, Axis::T, Axis::T, Axis::T, Axis::T]);
    }

    #[test]
    fn each_axis_turns_its_own_pairs() {
        let rope = Rope::multimodal([1, 2, 1], 1e4, &Device::Cpu).unwrap();
        let plain = Rope::new(8, 1e4, &Device::Cpu).unwrap();
        let x = Tensor::randn(0f32, 1.0, (2, 1, 8), &Device::Cpu).unwrap();
        let at =
            |rope: &Rope, place| rows(&rope.rotate(&x, &Positions::listed(vec![place])).unwrap());
        let (t, h, w) = (7, 30, 2000);
        let found = at(&rope, Place { t, h, w });
        for (pair, position) in [t, h, h, w].into_iter().enumerate() {
            let expected = at(&plain, Place::text(position));
            for channel in [pair, pair + 4, pair + 8, pair + 12] {
                assert_eq!(found[channel], expected[channel], "channel {channel}");
            }
        }
        assert_eq!(at(&rope, Place::text(h)), at(&plain, Place::text(h)));
        let run = rope.rotate(&x, &Positions::run(h, 1)).unwrap();
        assert_eq!(rows(&run), at(&plain, Place::text(h)));
    }
}
