// SPDX-License-Identifier: MPL-2.0
//! Windows on their way into a file and back. A ring comes back as it lay: where it is cut in two decides
//! how attention adds it up.

use std::sync::Arc;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{ChangedWindow, Window};
use crate::error::Result;
use crate::memory::kv::{Kv, joined};
use crate::memory::unit::Geometry;
use crate::snapshot::{Reader, Snapshot, Writer};

#[derive(Serialize, Deserialize)]
struct Ring {
    start: usize,
    len: usize,
    room: usize,
}

impl Window {
    /// # Errors
    /// What the computation fails with.
    pub fn save(&self, into: &mut Snapshot) -> Result<()> {
        let parts = self.view()?;
        let room = self.buffer.as_ref().map_or(Ok(0), Kv::tokens)?;
        into.value(Ring { start: self.start, len: self.len, room });
        let lent = Arc::clone(&self.lent);
        into.lent(move || {
            let copied = match parts.as_slice() {
                [one] => Some(one.detached()?),
                // Two become one in storage of its own.
                parts => joined(&parts.iter().collect::<Vec<_>>())?,
            };
            drop(lent);
            Ok(move |out: &mut Writer| match copied {
                Some(Kv { k, v }) => out.tensor(&k).and_then(|()| out.tensor(&v)),
                None => Ok(()),
            })
        });
        Ok(())
    }

    /// # Errors
    /// What is wrong with the file, or what the computation fails with.
    pub fn restore(&mut self, from: &mut Reader, geometry: &Geometry) -> Result<()> {
        let Ring { start, len, room } = from.value()?;
        (self.buffer, self.start, self.len) = (None, 0, 0);
        if len == 0 {
            return Ok(());
        }
        let kv = restored(from, geometry)?;
        let most = self.width.unwrap_or(usize::MAX);
        if kv.tokens()? != len || len > room || start >= room || room > most {
            return Err(from.damage("a window of another size"));
        }
        let buffer = Kv { k: super::room_like(&kv.k, room)?, v: super::room_like(&kv.v, room)? };
        let first = len.min(room - start);
        for (at, n, to) in [(0, first, start), (first, len - first, 0)] {
            if n > 0 {
                let part = kv.part(at, n)?;
                buffer.k.slice_set(&part.k.contiguous()?, 1, to)?;
                buffer.v.slice_set(&part.v.contiguous()?, 1, to)?;
            }
        }
        (self.buffer, self.start, self.len) = (Some(buffer), start, len);
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Changed {
    lengths: Vec<usize>,
    seen: usize,
    holds: bool,
    last: bool,
}

impl ChangedWindow {
    /// # Errors
    /// What the computation fails with.
    pub fn save(&self, into: &mut Snapshot) -> Result<()> {
        let (kv, last) = (self.view()?, self.last.clone());
        let lengths = self.lengths.iter().copied().collect();
        let (holds, has_last) = (kv.is_some(), last.is_some());
        into.value(Changed { lengths, seen: self.seen, holds, last: has_last });
        if let Some(kv) = kv {
            save(kv, into);
        }
        if let Some(last) = last {
            into.tensor(last);
        }
        Ok(())
    }

    /// # Errors
    /// What is wrong with the file, or what the computation fails with.
    pub fn restored(from: &mut Reader, geometry: &Geometry) -> Result<Self> {
        let Changed { lengths, seen, holds, last } = from.value()?;
        let buffer = if holds { Some(restored(from, geometry)?) } else { None };
        let len = buffer.as_ref().map_or(Ok(0), Kv::tokens)?;
        let last = if last { Some(tensor(from, geometry)?) } else { None };
        if lengths.iter().try_fold(0usize, |all, &n| all.checked_add(n)) != Some(len) {
            return Err(from.damage("a window of another size"));
        }
        Ok(Self { buffer, start: 0, len, lengths: lengths.into(), last, seen })
    }
}

fn save(Kv { k, v }: Kv, into: &mut Snapshot) {
    into.tensor(k);
    into.tensor(v);
}

fn restored(from: &mut Reader, geometry: &Geometry) -> Result<Kv> {
    Ok(Kv { k: tensor(from, geometry)?, v: tensor(from, geometry)? })
}

/// Keys or values of this model.
fn tensor(from: &mut Reader, geometry: &Geometry) -> Result<Tensor> {
    let tensor = from.tensor(&geometry.device)?;
    let fits = match tensor.dims3() {
        Ok((heads, _, dim)) => heads == geometry.kv_heads && dim == geometry.head_dim,
        Err(_) => false,
    };
    if fits && tensor.dtype() == geometry.dtype {
        return Ok(tensor);
    }
    Err(from.damage("keys and values of another model"))
}
