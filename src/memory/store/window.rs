// SPDX-License-Identifier: MPL-2.0
//! Buffers that keys and values are appended to: the local window of a layer, the window of changed
//! keys, and the tail of tokens generated in one answer.

mod saved;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::memory::kv::Kv;

/// The newest tokens of one layer, keys rotated at their place in the stream. A bounded window is a ring:
/// once it is full, a newcomer takes the place of the oldest, nothing is moved and nothing allocated.
#[derive(Debug)]
pub struct Window {
    /// Tokens that stay visible; `None`: all.
    width: Option<usize>,
    buffer: Option<Kv>,
    /// Whoever reads the buffer beside us has a clone of this; then it is not written to.
    lent: Arc<()>,
    /// Where in the buffer the oldest token lies.
    start: usize,
    len: usize,
}

impl Window {
    pub fn new(width: Option<usize>) -> Self {
        Self { width, buffer: None, lent: Arc::default(), start: 0, len: 0 }
    }

    /// The tokens in the window: the older ones, and the newer ones if they lie apart.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn view(&self) -> Result<Vec<Kv>> {
        let Some(buffer) = self.buffer.as_ref().filter(|_| self.len > 0) else {
            return Ok(Vec::new());
        };
        let older = self.len.min(buffer.tokens()? - self.start);
        let mut parts = vec![buffer.part(self.start, older)?];
        if older < self.len {
            parts.push(buffer.part(0, self.len - older)?);
        }
        Ok(parts)
    }

    /// Takes in what comes behind.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn append(&mut self, fresh: &Kv) -> Result<()> {
        let all = fresh.tokens()?;
        // Of more than the window holds, only its newest stay in sight.
        let n = all.min(self.width.unwrap_or(usize::MAX));
        let fresh = fresh.part(all - n, n)?;
        self.make_room(&fresh, n)?;
        if n == 0 {
            return Ok(());
        }
        self.own()?;
        let Some(buffer) = &self.buffer else { return Ok(()) };
        let room = buffer.tokens()?;
        let gone = (self.len + n).saturating_sub(room);
        self.start = (self.start + gone) % room;
        self.len -= gone;
        let at = (self.start + self.len) % room;
        let first = n.min(room - at);
        for (from, len, to) in [(0, first, at), (first, n - first, 0)] {
            if len > 0 {
                let part = fresh.part(from, len)?;
                buffer.k.slice_set(&part.k.contiguous()?, 1, to)?;
                buffer.v.slice_set(&part.v.contiguous()?, 1, to)?;
            }
        }
        self.len += n;
        Ok(())
    }

    /// Leaves a buffer that somebody reads to them, and goes on with a copy.
    fn own(&mut self) -> Result<()> {
        if Arc::get_mut(&mut self.lent).is_none() {
            self.buffer = self.buffer.as_ref().map(Kv::detached).transpose()?;
            self.lent = Arc::default();
        }
        Ok(())
    }

    /// Bytes of the buffer, whatever is in use of it.
    pub fn bytes(&self) -> u64 {
        self.buffer.as_ref().map_or(0, Kv::footprint)
    }

    /// Room for `n` more, if there is to be. It grows by doubling up to the window's width, so that a
    /// wide window costs nothing until it is used.
    fn make_room(&mut self, like: &Kv, n: usize) -> Result<()> {
        let room = self.buffer.as_ref().map_or(Ok(0), Kv::tokens)?;
        let most = self.width.unwrap_or(usize::MAX);
        if self.len + n <= room || room >= most {
            return Ok(());
        }
        let wanted = (self.len + n).next_power_of_two().min(most);
        let buffer = Kv { k: room_like(&like.k, wanted)?, v: room_like(&like.v, wanted)? };
        let mut at = 0;
        for part in self.view()? {
            buffer.k.slice_set(&part.k.contiguous()?, 1, at)?;
            buffer.v.slice_set(&part.v.contiguous()?, 1, at)?;
            at += part.tokens()?;
        }
        self.buffer = Some(buffer);
        self.lent = Arc::default();
        self.start = 0;
        Ok(())
    }
}

/// What new tokens see of the newest units, where that is not all of them. A pass takes a copy with room
/// for what it will add, so that its units are written behind one another and nothing is joined.
#[derive(Clone, Debug, Default)]
pub struct ChangedWindow {
    /// What is seen, keys rotated at their place in the stream: `len` tokens from `start` on.
    buffer: Option<Kv>,
    start: usize,
    len: usize,
    /// Tokens of each unit.
    lengths: VecDeque<usize>,
    /// The last unit's keys, un-rotated, `[Hk, n, d]`.
    last: Option<Tensor>,
    /// Units that came in.
    seen: usize,
}

impl ChangedWindow {
    /// Everything that is seen.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn view(&self) -> Result<Option<Kv>> {
        let buffer = self.buffer.as_ref().filter(|_| self.len > 0);
        buffer.map(|buffer| buffer.part(self.start, self.len)).transpose()
    }

    /// The same in a buffer of its own with room for so many tokens more. `like`: keys of the model.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn with_room(&self, like: &Tensor, tokens: usize) -> Result<Self> {
        let room = (self.len + tokens).max(1);
        let buffer = Kv { k: room_like(like, room)?, v: room_like(like, room)? };
        if let Some(seen) = self.view()? {
            buffer.k.slice_set(&seen.k.contiguous()?, 1, 0)?;
            buffer.v.slice_set(&seen.v.contiguous()?, 1, 0)?;
        }
        Ok(Self { buffer: Some(buffer), start: 0, ..self.clone() })
    }

    /// Takes in what will be seen of a unit whose keys `last` are; of all but the newest `most` units
    /// nothing is seen any more.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn push(&mut self, unit: &Kv, last: Tensor, most: usize) -> Result<()> {
        let n = unit.tokens()?;
        let room = self.buffer.as_ref().map_or(Ok(0), Kv::tokens)?;
        if self.start + self.len + n > room {
            *self = self.with_room(&unit.k, n)?;
        }
        if let Some(buffer) = self.buffer.as_ref().filter(|_| n > 0) {
            buffer.k.slice_set(&unit.k.contiguous()?, 1, self.start + self.len)?;
            buffer.v.slice_set(&unit.v.contiguous()?, 1, self.start + self.len)?;
        }
        self.len += n;
        self.lengths.push_back(n);
        if self.lengths.len() > most
            && let Some(gone) = self.lengths.pop_front()
        {
            self.start += gone;
            self.len -= gone;
        }
        self.last = Some(last);
        self.seen += 1;
        Ok(())
    }

    /// The same with no more room than is used.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn fitted(self) -> Result<Self> {
        let buffer = self.view()?.map(|seen| seen.detached()).transpose()?;
        Ok(Self { buffer, start: 0, ..self })
    }

    /// The last unit's keys, un-rotated, `[Hk, n, d]`.
    pub fn last(&self) -> Option<&Tensor> {
        self.last.as_ref()
    }

    /// Units that came in.
    pub fn seen(&self) -> usize {
        self.seen
    }

    pub fn bytes(&self) -> u64 {
        let last = self.last.as_ref();
        let last = last.map_or(0, |t| (t.elem_count() * t.dtype().size_in_bytes()) as u64);
        self.buffer.as_ref().map_or(0, Kv::footprint) + last
    }
}

/// Keys and values of the tokens generated in one answer, appended in place.
#[derive(Debug)]
pub struct Tail {
    buffer: Kv,
    len: usize,
}

impl Tail {
    /// Room for `room` tokens of `[kv_heads, room, dim]`.
    pub fn new(
        kv_heads: usize,
        room: usize,
        dim: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let zeros = || Tensor::zeros((kv_heads, room, dim), dtype, device);
        Ok(Self { buffer: Kv { k: zeros()?, v: zeros()? }, len: 0 })
    }

    pub fn tokens(&self) -> usize {
        self.len
    }

    /// Grows by doubling, so that a generous token limit costs nothing until it is used.
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<()> {
        let needed = self.len + k.dim(1)?;
        if needed > self.buffer.tokens()? {
            let old = self.view()?;
            let room = needed.next_power_of_two();
            let buffer = Kv { k: room_like(k, room)?, v: room_like(v, room)? };
            buffer.k.slice_set(&old.k.contiguous()?, 1, 0)?;
            buffer.v.slice_set(&old.v.contiguous()?, 1, 0)?;
            self.buffer = buffer;
        }
        self.buffer.k.slice_set(&k.contiguous()?, 1, self.len)?;
        self.buffer.v.slice_set(&v.contiguous()?, 1, self.len)?;
        self.len += k.dim(1)?;
        Ok(())
    }

    /// Forgets all but the first so many; how many were forgotten.
    pub fn truncate(&mut self, tokens: usize) -> usize {
        let forgotten = self.len.saturating_sub(tokens);
        self.len -= forgotten;
        forgotten
    }

    pub fn view(&self) -> Result<Kv> {
        Ok(Kv {
            k: self.buffer.k.narrow(1, 0, self.len)?,
            v: self.buffer.v.narrow(1, 0, self.len)?,
        })
    }
}

fn room_like(tensor: &Tensor, tokens: usize) -> Result<Tensor> {
    let (heads, _, dim) = tensor.dims3()?;
    Ok(Tensor::zeros((heads, tokens, dim), tensor.dtype(), tensor.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::testing::random_tensor;

    fn tokens(seed: u64, n: usize) -> Kv {
        Kv { k: random_tensor(seed, (2, n, 4)), v: random_tensor(seed + 1000, (2, n, 4)) }
    }

    fn values(tensor: &Tensor) -> Vec<Vec<Vec<f32>>> {
        tensor.to_vec3().unwrap()
    }

    #[test]
    fn the_window_holds_the_newest_tokens_in_order() {
        for width in [None, Some(5), Some(3), Some(1), Some(12)] {
            let mut window = Window::new(width);
            let parts: Vec<Kv> = (0..40).map(|i| tokens(i, 1 + (i as usize) % 4)).collect();
            for (i, part) in parts.iter().enumerate() {
                window.append(part).unwrap();
                let all: Vec<&Tensor> = parts[..=i].iter().map(|p| &p.k).collect();
                let all = Tensor::cat(&all, 1).unwrap();
                let held: Vec<Tensor> = window.view().unwrap().into_iter().map(|p| p.k).collect();
                assert!((1..=2).contains(&held.len()));
                let held = Tensor::cat(&held, 1).unwrap();
                let (n, held_n) = (all.dim(1).unwrap(), held.dim(1).unwrap());
                assert_eq!(held_n, width.map_or(n, |w| n.min(w)), "width {width:?}");
                assert_eq!(
                    values(&held),
                    values(&all.narrow(1, n - held_n, held_n).unwrap()),
                    "width {width:?}"
                );
            }
            if let Some(width) = width {
                let room = window.buffer.as_ref().unwrap().tokens().unwrap();
                assert_eq!(room, width, "no more than is in sight");
            }
        }
    }

    #[test]
    fn a_full_window_is_written_in_place() {
        let mut window = Window::new(Some(6));
        for seed in 0..4 {
            window.append(&tokens(seed, 4)).unwrap();
        }
        let buffer = window.buffer.clone().unwrap();
        for seed in 4..8 {
            window.append(&tokens(seed, 4)).unwrap();
        }
        // The same storage: what came in later shows in what was held before.
        assert_eq!(values(&buffer.k), values(&window.buffer.as_ref().unwrap().k));
        assert_eq!(window.view().unwrap().len(), 2);
    }

    #[test]
    fn what_is_lent_is_left_as_it_is_until_it_is_given_back() {
        let mut window = Window::new(Some(6));
        for seed in 0..4 {
            window.append(&tokens(seed, 4)).unwrap();
        }
        let buffer = |window: &Window| window.buffer.clone().unwrap().k;
        let (lent, read) = (Arc::clone(&window.lent), buffer(&window));
        let before = values(&read);
        window.append(&tokens(4, 4)).unwrap();
        assert_eq!(values(&read), before);
        assert_ne!(values(&buffer(&window)), before);
        // From now on the buffer is its own, whether the other is given back or not.
        let own = buffer(&window);
        window.append(&tokens(5, 1)).unwrap();
        assert_eq!(values(&own), values(&buffer(&window)));
        drop(lent);
        let (lent, read) = (Arc::clone(&window.lent), buffer(&window));
        drop(lent);
        window.append(&tokens(6, 1)).unwrap();
        assert_eq!(values(&read), values(&buffer(&window)), "in place again");
    }

    #[test]
    fn what_changed_lies_in_one_piece_and_a_copy_is_a_copy() {
        let (mut window, mut all) = (ChangedWindow::default(), Vec::new());
        for step in 0..12u64 {
            let mut ahead =
                window.with_room(&tokens(0, 1).k, if step % 2 == 0 { 9 } else { 3 }).unwrap();
            // Another goes its own way from the same window.
            let mut other = window.with_room(&tokens(0, 1).k, 9).unwrap();
            other.push(&tokens(900 + step, 5), tokens(0, 1).k, 3).unwrap();
            for seed in [2 * step, 2 * step + 1] {
                let unit = tokens(seed, 1 + seed as usize % 4);
                ahead.push(&unit, unit.k.clone(), 3).unwrap();
                all.push(unit);
            }
            window = ahead.fitted().unwrap();
            let newest: Vec<&Tensor> = all.iter().rev().take(3).rev().map(|unit| &unit.k).collect();
            let seen = window.view().unwrap().unwrap().k;
            assert_eq!(values(&seen), values(&Tensor::cat(&newest, 1).unwrap()), "step {step}");
            assert_eq!(values(window.last().unwrap()), values(&all.last().unwrap().k));
            assert_eq!(window.seen(), all.len());
            assert_eq!(window.buffer.as_ref().unwrap().tokens().unwrap(), window.len);
        }
    }

    #[test]
    fn a_tail_grows_and_keeps_what_it_holds() {
        let mut tail = Tail::new(2, 3, 4, DType::F32, &Device::Cpu).unwrap();
        let parts: Vec<Kv> = (0..9).map(|i| tokens(i, 1 + i as usize % 3)).collect();
        for part in &parts {
            tail.append(&part.k, &part.v).unwrap();
        }
        let all: Vec<&Tensor> = parts.iter().map(|part| &part.k).collect();
        assert_eq!(values(&tail.view().unwrap().k), values(&Tensor::cat(&all, 1).unwrap()));
    }
}
