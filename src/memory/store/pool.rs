// SPDX-License-Identifier: MPL-2.0
//! Where blocks lie on a device: a pool a layer, which is rows of keys and values in slabs that are
//! allocated ahead. A block is a stretch of such rows, its page, so storing one allocates nothing, and
//! whatever a question chose is gathered at once.
//!
//! Pages are as long as their blocks: the heads of a slab lie apart, `[Hk, rows, d]`, and rows of any
//! number of blocks can be taken by one list of rows. The units of a call that lie one behind the other
//! are written at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;
use parking_lot::Mutex;

use crate::error::Result;
use crate::memory::kv::{Kv, concat, joined, rows};
use crate::model::kernels;
use crate::model::rope::{Positions, Rope};

/// Rows of a pool's first slab, if nothing longer comes in. Each further one is half as large as all
/// before it.
const FIRST_ROWS: usize = 4096;

/// A run of tokens in something larger.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// `[Hk, rows, d]`.
    of: Kv,
    start: usize,
    tokens: usize,
    /// Of a pool's rows: nobody else gets them as long as this is held.
    page: Option<Arc<Page>>,
}

/// Rows of a slab that are in use.
#[derive(Debug)]
struct Page {
    free: Arc<Mutex<Free>>,
    start: usize,
    len: usize,
}

impl Drop for Page {
    fn drop(&mut self) {
        self.free.lock().give_back(self.start, self.len);
    }
}

impl Stretch {
    /// All of these.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn whole(kv: Kv) -> Result<Self> {
        let tokens = kv.tokens()?;
        Ok(Self { of: kv, start: 0, tokens, page: None })
    }

    /// Tokens `start..start + tokens` of these.
    pub fn part(of: &Kv, start: usize, tokens: usize) -> Self {
        Self { of: of.clone(), start, tokens, page: None }
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Its keys and values `[Hk, n, d]`, in the same storage: to be looked at as long as this is held.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn kv(&self) -> Result<Kv> {
        self.of.part(self.start, self.tokens)
    }

    /// Its keys and values, to be kept.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn into_kv(self) -> Result<Kv> {
        let kv = self.kv()?;
        if self.page.is_some() { kv.detached() } else { Ok(kv) }
    }

    /// The same in storage of its own, so that dropping what it was a part of frees that.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn detached(&self) -> Result<Self> {
        Self::whole(self.kv()?.detached()?)
    }

    /// What it takes besides its values.
    pub fn overhead(&self) -> u64 {
        match &self.page {
            Some(_) => size_of::<Page>() as u64 + 16,
            None => Kv::OVERHEAD,
        }
    }

    /// Bytes that are its own.
    pub fn footprint(&self) -> u64 {
        let row = |t: &Tensor| {
            let rows = t.dims().get(1).copied().unwrap_or(0).max(1);
            t.elem_count() / rows * t.dtype().size_in_bytes()
        };
        ((row(&self.of.k) + row(&self.of.v)) * self.tokens) as u64 + self.overhead()
    }

    /// Whether `next` lies right behind it.
    pub fn goes_on_in(&self, next: &Self) -> bool {
        self.is_beside(next) && self.start + self.tokens == next.start
    }

    /// Whether both lie in the same tensors.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.of.k.id() == other.of.k.id() && self.of.v.id() == other.of.v.id()
    }
}

/// Stretches one behind the other in one piece; `None` of nothing. `on_device`: what lies in the same
/// tensors is gathered at once.
///
/// # Errors
/// What the computation fails with.
pub fn gathered(parts: &[Stretch], on_device: bool) -> Result<Option<Kv>> {
    let runs = in_runs(parts);
    if let [run] = &runs[..] {
        return Ok(Some(match run.page {
            // Its rows may get other values once nobody holds the pages.
            Some(_) => run.kv()?.detached()?,
            None => run.kv()?,
        }));
    }
    let mut pieces = Vec::with_capacity(runs.len());
    for beside in runs.chunk_by(Stretch::is_beside) {
        match beside {
            [first, _, ..] if on_device && is_dense(&first.of) => {
                let list = beside.iter().flat_map(|run| run.start..run.start + run.tokens);
                pieces.push(rows(&first.of, &list.collect::<Vec<_>>())?);
            }
            _ => {
                for run in beside {
                    pieces.push(run.kv()?);
                }
            }
        }
    }
    joined(&pieces.iter().collect::<Vec<_>>())
}

/// [`gathered`] with keys turned to where they stand, in one pass.
///
/// # Errors
/// What the computation fails with.
pub fn turned(
    parts: &[Stretch],
    on_device: bool,
    rope: &Rope,
    positions: &Positions,
) -> Result<Option<Kv>> {
    let runs = in_runs(parts);
    if let Some(first) = runs.first().filter(|first| on_device && is_dense(&first.of))
        && runs.iter().all(|run| run.is_beside(first))
    {
        let Kv { k, v } = &first.of;
        let elements = k.dim(2)?;
        let rows = runs.iter().flat_map(|run| run.start..run.start + run.tokens);
        let from: Vec<i64> = rows.map(|row| (row * elements) as i64).collect();
        let from = Tensor::from_vec(from, positions.len(), k.device())?;
        if let (Some(kernels), Some(k)) =
            (kernels::on(v.device()), rope.gather_rotated(k, &from, positions)?)
            && let Some(v) = kernels.gather(v, &from)?
        {
            return Ok(Some(Kv { k, v }));
        }
    }
    let parts_kv: Vec<Kv> = runs.iter().map(Stretch::kv).collect::<Result<_>>()?;
    let (keys, values): (Vec<_>, Vec<_>) = parts_kv.iter().map(|kv| (&kv.k, &kv.v)).unzip();
    if let Some(k) = rope.join_rotated(&keys, positions)? {
        let v = match (&runs[..], &values[..]) {
            ([run], [v]) if run.page.is_none() => (*v).clone(),
            _ => concat(&values)?,
        };
        return Ok(Some(Kv { k, v }));
    }
    match gathered(parts, on_device)? {
        Some(Kv { k, v }) => Ok(Some(Kv { k: rope.rotate(&k, positions)?, v })),
        None => Ok(None),
    }
}

fn is_dense(kv: &Kv) -> bool {
    kv.k.is_contiguous() && kv.v.is_contiguous()
}

/// Those that lie right behind one another as one.
fn in_runs(parts: &[Stretch]) -> Vec<Stretch> {
    let mut runs: Vec<Stretch> = Vec::with_capacity(parts.len());
    for part in parts.iter().filter(|part| part.tokens > 0) {
        match runs.last_mut() {
            Some(last) if last.goes_on_in(part) => last.tokens += part.tokens,
            _ => runs.push(part.clone()),
        }
    }
    runs
}

/// Which rows of a slab are free: where they start, and how many.
#[derive(Debug)]
struct Free(BTreeMap<usize, usize>);

impl Free {
    fn rows(&self) -> usize {
        self.0.values().sum()
    }

    /// The first `len` rows in a row.
    fn take(&mut self, len: usize) -> Option<usize> {
        let (&start, &found) = self.0.iter().find(|(_, found)| **found >= len)?;
        self.0.remove(&start);
        if found > len {
            self.0.insert(start + len, found - len);
        }
        Some(start)
    }

    fn give_back(&mut self, mut start: usize, mut len: usize) {
        if let Some(behind) = self.0.remove(&(start + len)) {
            len += behind;
        }
        if let Some((&before, &rows)) = self.0.range(..start).next_back()
            && before + rows == start
        {
            (start, len) = (before, rows + len);
        }
        self.0.insert(start, len);
    }
}

/// Rows `[Hk, rows, d]`.
#[derive(Debug)]
struct Slab {
    kv: Kv,
    rows: usize,
    free: Arc<Mutex<Free>>,
}

/// The blocks of one layer, all of as many heads as wide.
#[derive(Debug, Default)]
pub struct Pool {
    slabs: Vec<Slab>,
}

impl Pool {
    /// Copies runs of tokens `lengths` that lie one behind the other into the pool, which then has at
    /// most `most` rows; `None`: without a bound. Those for which there is no room come back `None`.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn put(
        &mut self,
        kv: &Kv,
        lengths: &[usize],
        most: Option<usize>,
    ) -> Result<Vec<Option<Stretch>>> {
        let all = lengths.iter().sum();
        if !self.takes(kv) {
            return Ok(vec![None; lengths.len()]);
        }
        if let Some((slab, start)) = self.room(kv, all, most)? {
            self.write(kv, (0, all), slab, start)?;
            let mut at = start;
            let mut pages = Vec::with_capacity(lengths.len());
            for &len in lengths {
                pages.push(self.page(slab, at, len));
                at += len;
            }
            return Ok(pages);
        }
        let mut from = 0;
        let mut pages = Vec::with_capacity(lengths.len());
        for &len in lengths {
            pages.push(match self.room(kv, len, Some(0))? {
                Some((slab, start)) => {
                    self.write(kv, (from, len), slab, start)?;
                    self.page(slab, start, len)
                }
                None => None,
            });
            from += len;
        }
        Ok(pages)
    }

    /// Rows that are allocated and hold nothing.
    pub fn free_rows(&self) -> usize {
        self.slabs.iter().map(|slab| slab.free.lock().rows()).sum()
    }

    /// Bytes of the values that could lie in them.
    pub fn reserved(&self) -> u64 {
        let bytes = |slab: &Slab| slab.kv.bytes() / slab.rows.max(1) as u64;
        self.slabs.first().map_or(0, bytes) * self.free_rows() as u64
    }

    /// Whether these are like what is in the pool.
    fn takes(&self, kv: &Kv) -> bool {
        let like = |a: &Tensor, b: &Tensor| {
            let outer = |t: &Tensor| (t.dims().first().copied(), t.dims().last().copied());
            outer(a) == outer(b) && a.dtype() == b.dtype()
        };
        self.slabs.first().is_none_or(|slab| like(&slab.kv.k, &kv.k) && like(&slab.kv.v, &kv.v))
    }

    /// So many rows in a row: a slab and where they start in it. They are taken.
    fn room(
        &mut self,
        like: &Kv,
        rows: usize,
        most: Option<usize>,
    ) -> Result<Option<(usize, usize)>> {
        if rows == 0 {
            return Ok(None);
        }
        for (at, slab) in self.slabs.iter().enumerate() {
            if let Some(start) = slab.free.lock().take(rows) {
                return Ok(Some((at, start)));
            }
        }
        let held: usize = self.slabs.iter().map(|slab| slab.rows).sum();
        let left = most.map_or(usize::MAX, |most| most.saturating_sub(held));
        let wanted = rows.max(FIRST_ROWS).max(held / 2).min(left);
        if wanted < rows {
            return Ok(None);
        }
        let slab = Slab::new(like, wanted).or_else(|_| Slab::new(like, rows))?;
        let start = slab.free.lock().take(rows);
        self.slabs.push(slab);
        Ok(start.map(|start| (self.slabs.len() - 1, start)))
    }

    fn write(&self, kv: &Kv, (from, len): (usize, usize), slab: usize, start: usize) -> Result<()> {
        let Some(slab) = self.slabs.get(slab) else { return Ok(()) };
        let part = kv.part(from, len)?;
        slab.kv.k.slice_set(&part.k.contiguous()?, 1, start)?;
        slab.kv.v.slice_set(&part.v.contiguous()?, 1, start)?;
        Ok(())
    }

    fn page(&self, slab: usize, start: usize, tokens: usize) -> Option<Stretch> {
        let slab = self.slabs.get(slab).filter(|_| tokens > 0)?;
        let page = Page { free: Arc::clone(&slab.free), start, len: tokens };
        Some(Stretch { of: slab.kv.clone(), start, tokens, page: Some(Arc::new(page)) })
    }
}

impl Slab {
    fn new(like: &Kv, rows: usize) -> Result<Self> {
        let zeros = |like: &Tensor| -> Result<Tensor> {
            let (heads, _, dim) = like.dims3()?;
            Ok(Tensor::zeros((heads, rows, dim), like.dtype(), like.device())?)
        };
        let kv = Kv { k: zeros(&like.k)?, v: zeros(&like.v)? };
        Ok(Self { kv, rows, free: Arc::new(Mutex::new(Free(BTreeMap::from([(0, rows)])))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::kv::read;
    use crate::memory::testing::{Lcg, random_tensor};

    fn kv(seed: u64, n: usize) -> Kv {
        Kv { k: random_tensor(seed, (2, n, 4)), v: random_tensor(seed + 1000, (2, n, 4)) }
    }

    fn values(kv: &Kv) -> Vec<f32> {
        [read(&kv.k).unwrap(), read(&kv.v).unwrap()].concat()
    }

    #[test]
    fn a_page_holds_what_was_put_there_and_is_free_when_nobody_holds_it() {
        let mut pool = Pool::default();
        let mut lcg = Lcg(5);
        let mut held: Vec<(Stretch, Vec<f32>)> = Vec::new();
        for seed in 0..300 {
            let lengths: Vec<usize> =
                (0..1 + seed as usize % 4).map(|i| 1 + (i + seed as usize) % 5).collect();
            let fresh = kv(seed, lengths.iter().sum());
            let mut from = 0;
            for (page, &len) in
                pool.put(&fresh, &lengths, Some(90)).unwrap().into_iter().zip(&lengths)
            {
                if let Some(page) = page {
                    assert_eq!(page.tokens(), len);
                    held.push((page, values(&fresh.part(from, len).unwrap())));
                }
                from += len;
            }
            let used: usize = held.iter().map(|(page, _)| page.tokens()).sum();
            assert_eq!(pool.free_rows(), 90 - used);
            for (page, wanted) in &held {
                assert_eq!(&values(&page.kv().unwrap()), wanted, "step {seed}");
            }
            while held.len() > 12 || lcg.next() > 0.6 && !held.is_empty() {
                let at = ((lcg.next() + 1.0) / 2.0 * held.len() as f32) as usize;
                held.remove(at.min(held.len() - 1));
            }
        }
        assert!(held.len() > 3);
        held.clear();
        let free = pool.slabs[0].free.lock();
        assert_eq!((pool.slabs.len(), &free.0), (1, &BTreeMap::from([(0, 90)])), "in one piece");
    }

    #[test]
    fn what_is_looked_at_is_not_overwritten() {
        let mut pool = Pool::default();
        let page = pool.put(&kv(1, 6), &[6], Some(8)).unwrap().remove(0).unwrap();
        let (looked, kept) =
            (page.clone(), gathered(std::slice::from_ref(&page), true).unwrap().unwrap());
        drop(page);
        assert!(pool.put(&kv(2, 6), &[6], Some(8)).unwrap()[0].is_none(), "somebody looks at it");
        assert_eq!(values(&looked.kv().unwrap()), values(&kv(1, 6)));
        drop(looked);
        assert!(pool.put(&kv(2, 6), &[6], Some(8)).unwrap()[0].is_some());
        assert_eq!(values(&kept), values(&kv(1, 6)), "what was gathered is a copy");
    }

    #[test]
    fn an_unbounded_pool_grows_by_slabs_and_moves_nothing() {
        let mut pool = Pool::default();
        let mut held = Vec::new();
        for seed in 0..40 {
            held.extend(pool.put(&kv(seed, 400), &[150, 250], None).unwrap());
        }
        assert!((2..=5).contains(&pool.slabs.len()), "{}", pool.slabs.len());
        for (seed, pages) in held.chunks(2).enumerate() {
            let pages: Vec<Stretch> = pages.iter().flatten().cloned().collect();
            assert_eq!(
                values(&gathered(&pages, true).unwrap().unwrap()),
                values(&kv(seed as u64, 400))
            );
        }
        let row = 2 * 2 * 4 * 4;
        assert_eq!(pool.reserved(), pool.free_rows() as u64 * row);
        assert_eq!(
            held[0].as_ref().unwrap().footprint() - held[0].as_ref().unwrap().overhead(),
            150 * row
        );
    }

    #[test]
    fn what_is_gathered_is_what_lies_there_in_order_wherever_that_is() {
        let (mut pool, loose) = (Pool::default(), kv(9, 20));
        let mut parts: Vec<Stretch> = (0..30)
            .flat_map(|seed| pool.put(&kv(seed, 400), &[100, 300], None).unwrap())
            .map(Option::unwrap)
            .collect();
        assert!(pool.slabs.len() > 1);
        parts.push(Stretch::part(&loose, 3, 4));
        parts.push(Stretch::part(&loose, 7, 2));
        parts.push(Stretch::part(&loose, 1, 2));
        let mut lcg = Lcg(3);
        for n in [1, 2, 5, 12] {
            let chosen: Vec<Stretch> =
                (0..n).map(|_| parts[((lcg.next() + 1.0) / 2.0 * 62.9) as usize].clone()).collect();
            let kvs: Vec<Kv> = chosen.iter().map(|part| part.kv().unwrap()).collect();
            let wanted = joined(&kvs.iter().collect::<Vec<_>>()).unwrap().unwrap();
            for on_device in [false, true] {
                let found = gathered(&chosen, on_device).unwrap().unwrap();
                assert_eq!(values(&found), values(&wanted), "{n} parts");
            }
        }
        // Of one slab, forwards, backwards and one behind the other.
        for order in [&[0usize, 1, 2, 3][..], &[3, 0, 6], &[2, 2]] {
            let chosen: Vec<Stretch> = order.iter().map(|&i| parts[i].clone()).collect();
            let found = gathered(&chosen, true).unwrap().unwrap();
            assert_eq!(values(&found), values(&gathered(&chosen, false).unwrap().unwrap()));
        }
        assert!(gathered(&[], true).unwrap().is_none());
    }

    #[test]
    fn what_is_not_like_the_rest_has_no_place() {
        let mut pool = Pool::default();
        assert!(pool.put(&kv(1, 3), &[3], None).unwrap()[0].is_some());
        let other = random_tensor(1, (2, 3, 6));
        let other = Kv { k: other.clone(), v: other };
        assert!(pool.put(&other, &[3], None).unwrap()[0].is_none());
    }
}
