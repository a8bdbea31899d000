// SPDX-License-Identifier: MPL-2.0
//! The tiers and who lies where.
//!
//! What a block holds is settled once, when it leaves the residual window: from then on it is what
//! the codec makes of it, in whichever tier. It moves down in stream order: the host tier fills and
//! its oldest blocks go to disk, the disk fills and the oldest are forgotten. Questions move nothing
//! but copies: a block that is looked at leaves a decoded copy on the device, and the copies that
//! were not looked at for longest make room. So what is remembered never depends on what was asked.

mod entries;
mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Tensor};

use self::entries::{Entries, Entry, Home};
use super::codec::{self, Codec, Packed, Shape};
use super::disk::{Damage, Folder, HEADER, Label, Place};
use super::options::{Budget, StoreOptions, StoreStats};
use super::pool::{Pool, Stretch, gathered};
use crate::error::{EngineError, Result};
use crate::memory::kv::{Kv, joined};

pub use self::entries::Key;
pub use self::saved::Restored;

/// Units that `store=auto` wants room for: an hour at one frame a second.
const AUTO_UNITS: u64 = 3600;
/// No segment file is made larger than this, but for a single unit that is.
const FILE_BYTES: u64 = 64 << 20;

/// Bytes of an entry besides keys and values: lists that grow by doubling and nodes of maps are a little more
/// than half full, and the handle and its flag are allocations of their own.
pub const RECORD: u64 = (size_of::<(Key, Entry)>() + size_of::<(Key, usize)>()) as u64 * 2 + 104;

/// Bytes that the device holds besides the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Besides {
    /// Windows, the prefix, a resident cache: they stay whatever is forgotten.
    pub fixed: u64,
    /// Mean keys and where units come from: they go with their units.
    pub index: u64,
}

/// What was decoded for a question and may be wanted again.
#[derive(Debug)]
struct Copied {
    kv: Stretch,
    used: u64,
}

/// Blocks of one layer that are not encoded yet.
#[derive(Debug, Default)]
struct Residual {
    blocks: BTreeMap<Key, usize>,
    tokens: usize,
}

/// What the first block decides.
#[derive(Clone, Copy, Debug)]
struct Rule {
    codec: Codec,
    exact: bool,
    /// Newest tokens a layer keeps as they are; `None`: all, nothing is encoded.
    residual: Option<usize>,
    /// What the model computes.
    dtype: DType,
}

#[derive(Debug)]
pub struct Tiers {
    options: StoreOptions,
    device: Device,
    /// Blocks of a unit, as large as the first one.
    of_a_size: usize,
    rule: Option<Rule>,
    folder: Option<Folder>,
    /// Nothing can be written any more; what is on disk stays.
    disk_failed: bool,
    entries: Entries,
    next: u64,
    residual: Vec<Residual>,
    in_host: BTreeSet<Key>,
    /// Decoded copies, and whose they are by last use.
    copied: BTreeMap<Key, Copied>,
    used: BTreeMap<u64, Key>,
    clock: u64,
    /// Bytes of blocks whose home is the device, and of copies.
    plain: u64,
    copies: u64,
    /// Of these what is no value.
    extra: u64,
    /// A layer each, where blocks lie in pools.
    pools: Vec<Pool>,
    host: u64,
    /// Bytes of the device that are not the store's.
    besides: Besides,
    told_least: bool,
    hits: u64,
    loads: u64,
    lost: u64,
    /// Of those, the ones that somebody may still hold on to.
    held_lost: u64,
    told_full: bool,
    warnings: Vec<EngineError>,
}

/// Where the bytes of a block come from.
pub enum Source {
    Ready(Stretch),
    Host(Arc<Packed>),
    Disk(Place),
}

impl Tiers {
    pub fn new(options: StoreOptions, layers: usize, of_a_size: usize, device: Device) -> Self {
        let mut tiers = Self {
            options,
            device,
            of_a_size,
            rule: None,
            folder: None,
            disk_failed: false,
            entries: Entries::default(),
            next: 0,
            residual: (0..layers).map(|_| Residual::default()).collect(),
            in_host: BTreeSet::new(),
            copied: BTreeMap::new(),
            used: BTreeMap::new(),
            clock: 0,
            plain: 0,
            copies: 0,
            extra: 0,
            pools: Vec::new(),
            host: 0,
            besides: Besides::default(),
            told_least: false,
            hits: 0,
            loads: 0,
            lost: 0,
            held_lost: 0,
            told_full: false,
            warnings: Vec::new(),
        };
        tiers.open_folder();
        tiers
    }

    fn open_folder(&mut self) {
        let Some(path) = self.options.disk_path.clone() else { return };
        match Folder::create(&path) {
            Ok(folder) => self.folder = Some(folder),
            Err(error) => self.warnings.push(EngineError::Store {
                path,
                reason: format!(
                    "nothing can be written here ({error}); the memory does without the disk and \
                     forgets its oldest units sooner"
                ),
            }),
        }
    }

    /// From now on blocks lie in pools.
    pub fn pool(&mut self) {
        self.pools.resize_with(self.residual.len(), Pool::default);
    }

    /// Takes blocks of a layer in, with their units: all of them, or none.
    pub fn put_all(
        &mut self,
        layer: usize,
        blocks: Vec<(u64, Stretch)>,
    ) -> Result<Vec<(Key, Arc<AtomicBool>)>> {
        let (units, loose): (Vec<u64>, Vec<Stretch>) = blocks.into_iter().unzip();
        let homes = self.homes(layer, &loose)?;
        let mut stored: Vec<(Key, Arc<AtomicBool>)> = Vec::with_capacity(homes.len());
        let put = || -> Result<()> {
            for (unit, home) in units.into_iter().zip(homes) {
                stored.push(self.put(layer, unit, home)?);
            }
            match self.rule {
                Some(rule) => self.encode_all(&self.beyond_residual(layer, rule), rule),
                None => Ok(()),
            }
        };
        if let Err(error) = put() {
            stored.iter().for_each(|(key, _)| self.forget(*key));
            return Err(error);
        }
        Ok(stored)
    }

    /// The same in the layer's pool or, where there is none or no room in it, in storage of their own:
    /// room is made behind a call, so what comes when all is full lies outside.
    fn homes(&mut self, layer: usize, loose: &[Stretch]) -> Result<Vec<Stretch>> {
        let most = loose.first().and_then(|like| self.most_rows(like));
        let Some(pool) = self.pools.get_mut(layer) else {
            return loose.iter().map(Stretch::detached).collect();
        };
        let mut homes = Vec::with_capacity(loose.len());
        for run in loose.chunk_by(Stretch::is_beside) {
            let lengths: Vec<usize> = run.iter().map(Stretch::tokens).collect();
            let Some(kv) = gathered(run, true)? else {
                homes.extend(run.iter().cloned());
                continue;
            };
            for (page, loose) in pool.put(&kv, &lengths, most)?.into_iter().zip(run) {
                homes.push(match page {
                    Some(page) => page,
                    None => loose.detached()?,
                });
            }
        }
        Ok(homes)
    }

    /// Rows that a layer's pool may have, of a layer whose rows are like these: its share of what the
    /// device has room for.
    fn most_rows(&self, like: &Stretch) -> Option<usize> {
        let budget = self.options.device()?.saturating_sub(self.besides.fixed);
        let row = (like.footprint() - like.overhead()) / like.tokens().max(1) as u64;
        Some((budget / self.of_a_size.max(1) as u64 / row.max(1)) as usize)
    }

    /// Keys and values that stay as long as the layer, in its pool if it has one.
    pub fn hold(&mut self, layer: usize, kv: Kv) -> Result<Stretch> {
        let whole = Stretch::whole(kv)?;
        match self.pools.is_empty() {
            true => Ok(whole),
            false => Ok(self.homes(layer, std::slice::from_ref(&whole))?.pop().unwrap_or(whole)),
        }
    }

    /// Takes a block in.
    fn put(&mut self, layer: usize, unit: u64, kv: Stretch) -> Result<(Key, Arc<AtomicBool>)> {
        let key = (unit, self.next);
        self.next += 1;
        self.rule(&kv.kv()?)?;
        let tokens = kv.tokens();
        self.plain += kv.footprint();
        self.extra += kv.overhead();
        let lost = Arc::new(AtomicBool::new(false));
        let entry = Entry { layer, home: Home::Device(kv), lost: Arc::clone(&lost) };
        self.entries.insert(key, entry);
        if let Some(residual) = self.residual.get_mut(layer) {
            residual.blocks.insert(key, tokens);
            residual.tokens += tokens;
        }
        Ok((key, lost))
    }

    /// The codec, once it is known what the model computes.
    fn rule(&mut self, kv: &Kv) -> Result<Rule> {
        if let Some(rule) = self.rule {
            return Ok(rule);
        }
        let dtype = kv.k.dtype();
        let own = Codec::exact(dtype);
        let bounded = self.options.device().is_some();
        let codec = match self.options.codec {
            Some(codec) => codec,
            None if bounded && self.has_below() => self.fitting(own, kv)?,
            None => own,
        };
        let rule = self.rule_of(codec, dtype);
        self.rule = Some(rule);
        Ok(rule)
    }

    /// What a codec means with these bounds.
    fn rule_of(&self, codec: Codec, dtype: DType) -> Rule {
        let exact = codec.is_exact(dtype);
        let residual = match (exact, self.options.device().is_some() && self.has_below()) {
            (true, false) => None,
            (true, true) => Some(0),
            (false, _) => Some(self.options.residual),
        };
        Rule { codec, exact, residual, dtype }
    }

    fn has_below(&self) -> bool {
        self.options.budget.host.is_some() || self.options.disk_path.is_some()
    }

    /// The finest codec with which the lower tiers have room for [`AUTO_UNITS`] units like this one.
    fn fitting(&self, own: Codec, kv: &Kv) -> Result<Codec> {
        let (heads, tokens, dim) = kv.k.dims3()?;
        let shape = Shape { heads, tokens, dim };
        let Budget { host, disk, .. } = self.options.budget;
        let room = match (self.options.disk_path.is_some(), disk) {
            (true, None) => return Ok(own),
            (true, Some(disk)) => host.unwrap_or(0).saturating_add(disk),
            (false, _) => host.unwrap_or(0),
        };
        let fits = |codec: &Codec| {
            let block = codec.bytes(shape) as u64 + HEADER;
            block.saturating_mul(self.of_a_size as u64).saturating_mul(AUTO_UNITS) <= room
        };
        let halves = if own == Codec::F32 { Codec::F16 } else { own };
        Ok([own, halves, Codec::Q8].into_iter().find(fits).unwrap_or(Codec::Q4))
    }

    /// The oldest blocks of a layer without which it still has as many tokens in the residual as the
    /// rule wants.
    fn beyond_residual(&self, layer: usize, rule: Rule) -> Vec<Key> {
        let (Some(residual), Some(width)) = (self.residual.get(layer), rule.residual) else {
            return Vec::new();
        };
        let mut left = residual.tokens;
        let go = residual.blocks.iter().take_while(|(_, tokens)| {
            let goes = left - **tokens >= width;
            left -= if goes { **tokens } else { 0 };
            goes
        });
        go.map(|(&key, _)| key).collect()
    }

    fn leave_residual(&mut self, layer: usize, key: Key) {
        if let Some(residual) = self.residual.get_mut(layer)
            && let Some(tokens) = residual.blocks.remove(&key)
        {
            residual.tokens -= tokens;
        }
    }

    /// Settles what blocks of a layer hold and moves them to the host tier: from a device in one copy.
    fn encode_all(&mut self, keys: &[Key], rule: Rule) -> Result<()> {
        let here: Vec<(Key, Stretch)> = keys
            .iter()
            .filter_map(|key| match &self.entries.get(key)?.home {
                Home::Device(kv) => Some((*key, kv.clone())),
                Home::Host(_) | Home::Disk(_) => None,
            })
            .collect();
        let stretches: Vec<Stretch> = here.iter().map(|(_, kv)| kv.clone()).collect();
        let values = if self.pools.is_empty() { stretches } else { on_host(&stretches)? };
        for ((key, kv), values) in here.into_iter().zip(values) {
            let packed = codec::encode(rule.codec, &values.kv()?)?;
            self.plain -= kv.footprint();
            self.extra -= kv.overhead();
            self.host += packed.bytes.len() as u64;
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.home = Home::Host(Arc::new(packed));
            let layer = entry.layer;
            self.in_host.insert(key);
            self.leave_residual(layer, key);
            if rule.exact {
                self.keep_copy(key, kv);
            }
        }
        Ok(())
    }

    /// Brings every tier within its budget. What is returned is a unit that has to be forgotten first.
    pub fn settle(&mut self, besides: Besides) -> Result<Option<u64>> {
        self.besides = besides;
        self.trim_copies();
        if let Some(rule @ Rule { residual: Some(_), .. }) = self.rule {
            while self.device_is_over() {
                let Some(oldest) = self.oldest_on_device() else { break };
                self.encode_all(&[oldest], Rule { exact: false, ..rule })?;
            }
        }
        if self.has_disk() && self.host > self.options.budget.host.unwrap_or(0) {
            self.move_to_disk();
        }
        let over = match self.is_single() {
            true => self.device_is_over(),
            false => self.host > self.options.budget.host.unwrap_or(0) || self.index_is_over(),
        };
        Ok(self.oldest_that_counts().filter(|_| over).map(|(unit, _)| unit))
    }

    fn oldest_on_device(&self) -> Option<Key> {
        self.residual.iter().filter_map(|r| r.blocks.first_key_value()).map(|(&key, _)| key).min()
    }

    /// The oldest block that makes room when it goes. What lies on a disk that takes no more is in
    /// nobody's way.
    fn oldest_that_counts(&self) -> Option<Key> {
        if self.has_disk() {
            return self.entries.first();
        }
        self.in_host.first().copied().into_iter().chain(self.oldest_on_device()).min()
    }

    pub fn has_disk(&self) -> bool {
        self.folder.is_some() && !self.disk_failed
    }

    /// Whether everything has to do with the device's budget: nothing is encoded, or what is
    /// encoded has no budget of its own.
    fn is_single(&self) -> bool {
        let plain = self.rule.is_none_or(|rule| rule.residual.is_none());
        plain || (self.options.budget.host.is_none() && !self.has_disk())
    }

    fn device_is_over(&self) -> bool {
        self.over() > 0
    }

    /// Bytes by which the device is beyond its budget, with this besides the blocks.
    pub fn excess(&mut self, besides: Besides) -> u64 {
        self.besides = besides;
        self.over()
    }

    fn over(&self) -> u64 {
        let shared = if self.is_single() { self.host } else { 0 };
        let Besides { fixed, index } = self.besides;
        let bytes = fixed + index + self.records() + self.plain + self.copies + shared;
        self.options.device().map_or(0, |budget| bytes.saturating_sub(budget))
    }

    /// Bytes that are in memory of every block, wherever its keys and values lie.
    fn records(&self) -> u64 {
        self.entries.len() as u64 * RECORD
    }

    /// Whether what is in memory of units whose blocks lie below is too much. A device that is over
    /// its budget by its fixed bytes alone is no reason to forget.
    fn index_is_over(&self) -> bool {
        let Besides { fixed, index } = self.besides;
        let budget = self.options.device().filter(|&budget| fixed < budget);
        budget.is_some_and(|budget| fixed + index + self.records() > budget)
    }

    /// Says once that the device's budget is less than the least that can be held.
    pub fn tell_least(&mut self, besides: Besides, units: usize) {
        let over = self.excess(besides);
        let Some(budget) = self.options.device().filter(|_| over > 0) else { return };
        let of_units = budget.saturating_add(over).saturating_sub(besides.fixed);
        let least = besides.fixed + of_units / units.max(1) as u64;
        if !std::mem::replace(&mut self.told_least, true) {
            self.warnings.push(EngineError::Store {
                path: "max-memory".into(),
                reason: format!(
                    "of {budget} bytes cannot be kept: the tokens before the video, the windows and \
                     the newest unit take {least} bytes, which is the least for this model and method"
                ),
            });
        }
    }

    fn trim_copies(&mut self) {
        // Without a bound there is no telling how much a codec was to save.
        while self.options.device().is_none() || self.device_is_over() {
            let Some(key) = self.used.first_key_value().map(|(_, key)| *key) else { return };
            self.drop_copy(key);
        }
    }

    fn drop_copy(&mut self, key: Key) {
        if let Some(copy) = self.copied.remove(&key) {
            self.used.remove(&copy.used);
            self.copies -= copy.kv.footprint();
            self.extra -= copy.kv.overhead();
        }
    }

    /// Writes the oldest units of the host tier to disk until it is within its budget, some more
    /// than needed, so that files do not get small.
    fn move_to_disk(&mut self) {
        let Budget { host, disk, .. } = self.options.budget;
        let largest = disk.map_or(FILE_BYTES, |disk| FILE_BYTES.min(disk / 4));
        let host = host.unwrap_or(0);
        let target = host - (host / 4).min(largest);
        while self.has_disk() && self.host > target {
            let batch = self.oldest_in_host(self.host - target, largest);
            let bytes: u64 = batch.iter().map(|(.., p)| HEADER + p.bytes.len() as u64).sum();
            let room = self.options.budget.disk.unwrap_or(u64::MAX);
            if bytes > room {
                self.disk_fails(format!("max-disk has no room for a single unit of {bytes} bytes"));
            } else if batch.is_empty() || self.on_disk() + bytes > room {
                return self.tell_full();
            } else {
                self.write(&batch);
            }
        }
    }

    /// Whole units from the oldest on, of at least `wanted` bytes but not of more than `largest`
    /// unless the first alone is.
    fn oldest_in_host(&self, wanted: u64, largest: u64) -> Vec<(Key, Label, Arc<Packed>)> {
        let mut batch: Vec<(Key, Label, Arc<Packed>)> = Vec::new();
        let (mut bytes, mut whole) = (0, 0);
        for &key in &self.in_host {
            let Some(Entry { layer, home: Home::Host(packed), .. }) = self.entries.get(&key) else {
                continue;
            };
            let (unit, _) = key;
            if batch.last().is_some_and(|((last, _), ..)| *last != unit) {
                whole = batch.len();
                if bytes >= wanted {
                    break;
                }
            }
            bytes += HEADER + packed.bytes.len() as u64;
            if whole > 0 && bytes > largest {
                batch.truncate(whole);
                break;
            }
            let label = Label { unit, layer: *layer as u32 };
            batch.push((key, label, Arc::clone(packed)));
        }
        batch
    }

    fn write(&mut self, batch: &[(Key, Label, Arc<Packed>)]) {
        let Some(folder) = &mut self.folder else { return };
        let blocks: Vec<(Label, &Packed)> =
            batch.iter().map(|(_, label, packed)| (*label, &**packed)).collect();
        match folder.write(&blocks) {
            Ok(places) => {
                for ((key, _, packed), place) in batch.iter().zip(places) {
                    self.host -= packed.bytes.len() as u64;
                    self.in_host.remove(key);
                    if let Some(entry) = self.entries.get_mut(key) {
                        entry.home = Home::Disk(place);
                    }
                }
            }
            // What fitted is what there is: from now on, old files make room for new ones.
            Err(error) if is_full(&error) && self.on_disk() > 0 => {
                self.options.budget.disk = Some(self.on_disk());
                self.tell_full();
            }
            Err(error) => self.disk_fails(error.to_string()),
        }
    }

    fn on_disk(&self) -> u64 {
        self.folder.as_ref().map_or(0, Folder::bytes)
    }

    fn disk_fails(&mut self, why: String) {
        self.disk_failed = true;
        self.warn(format!(
            "cannot be written to ({why}); the memory does without more of it and forgets its \
             oldest units sooner"
        ));
    }

    fn tell_full(&mut self) {
        if !std::mem::replace(&mut self.told_full, true) {
            self.warn(format!(
                "is full ({} bytes used); the oldest units are forgotten from now on. Raise \
                 max-disk or free some room to remember more",
                self.on_disk()
            ));
        }
    }

    fn warn(&mut self, reason: String) {
        let path = self.options.disk_path.clone().unwrap_or_default();
        self.warnings.push(EngineError::Store { path, reason });
    }

    pub fn has_lost(&self) -> bool {
        self.held_lost > 0
    }

    pub fn forget_lost(&mut self) {
        self.held_lost = 0;
    }

    /// Where a block's keys and values are to be had; `None`: they are lost.
    pub fn find(&mut self, key: Key) -> Option<Source> {
        if let Some(copy) = self.copied.get_mut(&key) {
            self.used.remove(&copy.used);
            self.clock += 1;
            copy.used = self.clock;
            self.used.insert(self.clock, key);
            self.hits += 1;
            return Some(Source::Ready(copy.kv.clone()));
        }
        match &self.entries.get(&key)?.home {
            Home::Device(kv) => {
                self.hits += 1;
                Some(Source::Ready(kv.clone()))
            }
            Home::Host(packed) => {
                self.loads += 1;
                Some(Source::Host(Arc::clone(packed)))
            }
            Home::Disk(place) => {
                self.loads += 1;
                Some(Source::Disk(place.clone()))
            }
        }
    }

    /// Keeps what was decoded of a layer's blocks on the host, as far as there is room for it, and says
    /// where it lies on the device.
    pub fn keep_decoded(&mut self, decoded: Vec<(Key, Kv)>) -> Result<Vec<Stretch>> {
        let (keys, decoded): (Vec<Key>, Vec<Kv>) = decoded.into_iter().unzip();
        let layer = keys.iter().find_map(|key| Some(self.entries.get(key)?.layer));
        let copies = match self.pools.is_empty() {
            true => decoded.into_iter().map(Stretch::whole).collect::<Result<Vec<_>>>()?,
            false => {
                // In one piece, which is one copy to the device.
                let lengths: Vec<usize> = decoded.iter().map(Kv::tokens).collect::<Result<_>>()?;
                let Some(all) = joined(&decoded.iter().collect::<Vec<_>>())? else {
                    return Ok(Vec::new());
                };
                let all =
                    Kv { k: all.k.to_device(&self.device)?, v: all.v.to_device(&self.device)? };
                let mut start = 0;
                let parts = lengths.into_iter().map(|len| {
                    start += len;
                    Stretch::part(&all, start - len, len)
                });
                let parts: Vec<Stretch> = parts.collect();
                // Without a bound no copy is kept.
                match layer.filter(|_| self.options.device().is_some()) {
                    Some(layer) => self.homes(layer, &parts)?,
                    None => parts,
                }
            }
        };
        for (key, copy) in keys.into_iter().zip(&copies) {
            self.keep_copy(key, copy.clone());
        }
        Ok(copies)
    }

    fn keep_copy(&mut self, key: Key, kv: Stretch) {
        if self.entries.get(&key).is_none() || self.copied.contains_key(&key) {
            return;
        }
        self.clock += 1;
        self.copies += kv.footprint();
        self.extra += kv.overhead();
        self.copied.insert(key, Copied { kv, used: self.clock });
        self.used.insert(self.clock, key);
        self.trim_copies();
    }

    /// A block, or its whole file, cannot be read: it is as if it had been forgotten.
    pub fn lose(&mut self, key: Key, place: &Place, damage: Damage) {
        let keys: Vec<Key> = if damage.all {
            let in_file = |home: &Home| matches!(home, Home::Disk(p) if p.is_beside(place));
            self.entries.iter().filter(|(_, e)| in_file(&e.home)).map(|(key, _)| key).collect()
        } else {
            vec![key]
        };
        for &key in &keys {
            if let Some(entry) = self.entries.get(&key) {
                entry.lost.store(true, Ordering::Relaxed);
                self.lost += 1;
                self.held_lost += 1;
            }
            self.forget(key);
        }
        self.warnings.push(EngineError::Store {
            path: damage.path,
            reason: format!("{}; {} blocks of the memory are lost", damage.reason, keys.len()),
        });
    }

    /// Lets go of a block.
    pub fn forget(&mut self, key: Key) {
        let Some(entry) = self.entries.remove(&key) else { return };
        self.drop_copy(key);
        match entry.home {
            Home::Device(kv) => {
                self.plain -= kv.footprint();
                self.extra -= kv.overhead();
                self.leave_residual(entry.layer, key);
            }
            Home::Host(packed) => {
                self.host -= packed.bytes.len() as u64;
                self.in_host.remove(&key);
            }
            Home::Disk(_) => {}
        }
    }

    /// Every block's unit and bytes, a decoded copy's included, in stream order.
    pub fn each(&self, look: &mut dyn FnMut(u64, u64)) {
        for (key, entry) in self.entries.iter() {
            let home = match &entry.home {
                Home::Device(kv) => kv.footprint(),
                Home::Host(packed) => packed.bytes.len() as u64,
                Home::Disk(place) => place.payload(),
            };
            let copy = self.copied.get(&key).map_or(0, |copy| copy.kv.footprint());
            look(key.0, home + copy);
        }
    }

    pub fn codec(&self) -> Option<Codec> {
        self.rule.map(|rule| rule.codec)
    }

    pub fn stats(&self) -> StoreStats {
        StoreStats {
            device: self.plain + self.copies + self.records(),
            limit: self.options.device().unwrap_or(0),
            overhead: self.records() + self.extra,
            reserved: self.pools.iter().map(Pool::reserved).sum(),
            host: self.host,
            disk: self.on_disk(),
            blocks: self.entries.len() as u64,
            hits: self.hits,
            loads: self.loads,
            lost: self.lost,
        }
    }

    pub fn take_warnings(&mut self) -> Vec<EngineError> {
        std::mem::take(&mut self.warnings)
    }
}

/// These in the host's memory, in their order: in one copy, with nothing else of the slabs that they
/// lie in.
fn on_host(stretches: &[Stretch]) -> Result<Vec<Stretch>> {
    let Some(Kv { k, v }) = gathered(stretches, true)? else { return Ok(stretches.to_vec()) };
    let flat = [k.flatten_all()?, v.flatten_all()?];
    let both = Tensor::cat(&flat, 0)?.to_device(&Device::Cpu)?;
    let part =
        |start, like: &Tensor| both.narrow(0, start, like.elem_count())?.reshape(like.dims());
    let all = Kv { k: part(0, &k)?, v: part(k.elem_count(), &v)? };
    let mut start = 0;
    let parts = stretches.iter().map(|stretch| {
        start += stretch.tokens();
        Stretch::part(&all, start - stretch.tokens(), stretch.tokens())
    });
    Ok(parts.collect())
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
