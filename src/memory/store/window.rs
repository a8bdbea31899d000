// SPDX-License-Identifier: MPL-2.0
//! Buffers that keys and values are appended to: the local window of a layer, the window of changed
//! keys, and the tail of tokens generated in one answer.

use std::collections::VecDeque;

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::memory::kv::{Kv, joined};

/// The newest tokens of one layer, keys rotated at their place in the stream, in a buffer that is
/// allocated ahead: appending costs the same however long the stream has run.
#[derive(Debug)]
pub struct Window {
    /// Tokens that stay visible; `None`: all.
    width: Option<usize>,
    buffer: Option<Kv>,
    len: usize,
}

/// A bounded window moves its content to the front of the buffer once in a width's such part: a copy
/// of four tokens for each that comes, which is nothing beside encoding it.
const SLACK: usize = 4;

impl Window {
    pub fn new(width: Option<usize>) -> Self {
        Self { width, buffer: None, len: 0 }
    }

    /// The tokens in the window, oldest first.
    pub fn view(&self) -> Result<Option<Kv>> {
        match &self.buffer {
            Some(buffer) if self.len > 0 => Ok(Some(Kv {
                k: buffer.k.narrow(1, 0, self.len)?,
                v: buffer.v.narrow(1, 0, self.len)?,
            })),
            _ => Ok(None),
        }
    }

    pub fn append(&mut self, fresh: &Kv) -> Result<()> {
        // Of more than the window holds, only its newest stay in sight.
        let seen = self.width.unwrap_or(usize::MAX);
        let n = fresh.tokens()?.min(seen);
        let fresh = &fresh.part(fresh.tokens()? - n, n)?;
        if n == seen {
            self.len = 0;
        }
        let room = self.buffer.as_ref().map_or(Ok(0), Kv::tokens)?;
        if self.len + n > room {
            self.make_room(fresh, n)?;
        }
        if let Some(buffer) = &self.buffer {
            buffer.k.slice_set(&fresh.k.contiguous()?, 1, self.len)?;
            buffer.v.slice_set(&fresh.v.contiguous()?, 1, self.len)?;
            self.len += n;
        }
        Ok(())
    }

    /// Bytes of the buffer, whatever is in use of it.
    pub fn bytes(&self) -> u64 {
        self.buffer.as_ref().map_or(0, Kv::footprint)
    }

    /// A buffer that starts with what must stay visible and has room for `n` more.
    fn make_room(&mut self, like: &Kv, n: usize) -> Result<()> {
        let keep = self.width.map_or(self.len, |width| self.len.min(width.saturating_sub(1)));
        let room = match self.width {
            Some(width) => n.max(width.min(1 << 16) / SLACK),
            None => (2 * (self.len + n)).next_power_of_two(),
        };
        let old = match &self.buffer {
            Some(buffer) => Some(Kv {
                k: buffer.k.narrow(1, self.len - keep, keep)?.contiguous()?,
                v: buffer.v.narrow(1, self.len - keep, keep)?.contiguous()?,
            }),
            None => None,
        };
        let buffer =
            Kv { k: room_like(&like.k, keep + room)?, v: room_like(&like.v, keep + room)? };
        if let Some(old) = old
            && keep > 0
        {
            buffer.k.slice_set(&old.k, 1, 0)?;
            buffer.v.slice_set(&old.v, 1, 0)?;
        }
        self.buffer = Some(buffer);
        self.len = keep;
        Ok(())
    }
}

/// What new tokens see of the newest units, where that is not all of them.
#[derive(Clone, Debug, Default)]
pub struct ChangedWindow {
    /// What is seen of each unit, keys rotated at their place in the stream.
    units: VecDeque<Kv>,
    /// The last unit's keys, un-rotated, token by token.
    last: Vec<f32>,
    /// Units that came in.
    seen: usize,
}

impl ChangedWindow {
    /// Everything that is seen, in one piece.
    pub fn view(&self) -> Result<Option<Kv>> {
        joined(&self.units.iter().collect::<Vec<_>>())
    }

    /// Takes in what will be seen of a unit whose keys `last` are; of all but the newest `most` units
    /// nothing is seen any more.
    pub fn push(&mut self, unit: Kv, last: Vec<f32>, most: usize) {
        self.units.push_back(unit);
        if self.units.len() > most {
            self.units.pop_front();
        }
        self.last = last;
        self.seen += 1;
    }

    /// The last unit's keys, un-rotated, token by token.
    pub fn last(&self) -> &[f32] {
        &self.last
    }

    /// Units that came in.
    pub fn seen(&self) -> usize {
        self.seen
    }

    pub fn bytes(&self) -> u64 {
        let units: u64 = self.units.iter().map(Kv::footprint).sum();
        units + (self.last.len() * size_of::<f32>()) as u64
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
        for width in [None, Some(5), Some(3)] {
            let mut window = Window::new(width);
            let parts: Vec<Kv> = (0..40).map(|i| tokens(i, 1 + (i as usize) % 4)).collect();
            for part in &parts {
                window.append(part).unwrap();
                let all: Vec<&Tensor> =
                    parts.iter().take_while(|p| !std::ptr::eq(*p, part)).map(|p| &p.k).collect();
                let all = Tensor::cat(&[all, vec![&part.k]].concat(), 1).unwrap();
                let held = window.view().unwrap().unwrap().k;
                let (n, held_n) = (all.dim(1).unwrap(), held.dim(1).unwrap());
                let must = width.map_or(n, |w| n.min(w - 1));
                assert!(held_n >= must, "{held_n} of {n} tokens for width {width:?}");
                assert_eq!(
                    values(&held),
                    values(&all.narrow(1, n - held_n, held_n).unwrap()),
                    "width {width:?}"
                );
            }
            if let Some(width) = width {
                let room = window.buffer.as_ref().unwrap().tokens().unwrap();
                assert!(room <= width + width / 4 + 4, "the buffer does not grow: {room}");
            }
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
