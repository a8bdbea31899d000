// SPDX-License-Identifier: MPL-2.0
//! The tiers and who lies where.
//!
//! What a block holds is settled once, when it leaves the residual window: from then on it is what
//! the codec makes of it, in whichever tier. It moves down in stream order: the host tier fills and
//! its oldest blocks go to disk, the disk fills and the oldest are forgotten. Questions move nothing
//! but copies: a block that is looked at leaves a decoded copy on the device, and the copies that
//! were not looked at for longest make room. So what is remembered never depends on what was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;

use super::codec::{self, Codec, Packed, Shape};
use super::disk::{Damage, Folder, HEADER, Label, Place};
use super::options::{Budget, StoreOptions, StoreStats};
use crate::error::{EngineError, Result};
use crate::memory::kv::Kv;

/// Units that `store=auto` wants room for: an hour at one frame a second.
const AUTO_UNITS: u64 = 3600;
/// No segment file is made larger than this, but for a single unit that is.
const FILE_BYTES: u64 = 64 << 20;

/// Bytes of an entry besides keys and values: the maps' nodes are a little more than half full, and
/// the handle and its flag are allocations of their own.
pub const RECORD: u64 =
    (size_of::<(Key, Entry)>() + size_of::<(Key, usize)>()) as u64 * 11 / 6 + 104;

/// Bytes that the device holds besides the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Besides {
    /// Windows, the prefix, a resident cache: they stay whatever is forgotten.
    pub fixed: u64,
    /// Mean keys and where units come from: they go with their units.
    pub index: u64,
}

/// By unit, then in order of arrival: the order of the stream.
pub type Key = (u64, u64);

#[derive(Debug)]
struct Entry {
    layer: usize,
    home: Home,
    copy: Option<Copied>,
    lost: Arc<AtomicBool>,
}

/// Where a block is kept.
#[derive(Debug)]
enum Home {
    /// As the model computed it.
    Device(Kv),
    Host(Arc<Packed>),
    Disk(Place),
}

/// What was decoded for a question and may be wanted again.
#[derive(Debug)]
struct Copied {
    kv: Kv,
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
    entries: BTreeMap<Key, Entry>,
    next: u64,
    residual: Vec<Residual>,
    in_host: BTreeSet<Key>,
    /// Blocks with a copy, by last use.
    copied: BTreeMap<u64, Key>,
    clock: u64,
    /// Bytes of blocks whose home is the device, and of copies.
    plain: u64,
    copies: u64,
    /// Pairs of tensors among these.
    tensors: u64,
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
    Ready(Kv),
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
            entries: BTreeMap::new(),
            next: 0,
            residual: (0..layers).map(|_| Residual::default()).collect(),
            in_host: BTreeSet::new(),
            copied: BTreeMap::new(),
            clock: 0,
            plain: 0,
            copies: 0,
            tensors: 0,
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

    /// Takes a block in.
    pub fn put(&mut self, layer: usize, unit: u64, kv: Kv) -> Result<(Key, Arc<AtomicBool>)> {
        let key = (unit, self.next);
        self.next += 1;
        let rule = self.rule(&kv)?;
        let tokens = kv.tokens()?;
        self.plain += kv.footprint();
        self.tensors += 1;
        let lost = Arc::new(AtomicBool::new(false));
        let entry = Entry { layer, home: Home::Device(kv), copy: None, lost: Arc::clone(&lost) };
        self.entries.insert(key, entry);
        if let Some(residual) = self.residual.get_mut(layer) {
            residual.blocks.insert(key, tokens);
            residual.tokens += tokens;
        }
        if let Some(width) = rule.residual {
            while let Some(oldest) = self.beyond_residual(layer, width) {
                self.encode(oldest, rule)?;
            }
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
        let bounded = self.options.budget.device.is_some();
        let has_below = self.options.budget.host.is_some() || self.options.disk_path.is_some();
        let codec = match self.options.codec {
            Some(codec) => codec,
            None if bounded && has_below => self.fitting(own, kv)?,
            None => own,
        };
        let exact = codec.is_exact(dtype);
        let residual = match (exact, bounded && has_below) {
            (true, false) => None,
            (true, true) => Some(0),
            (false, _) => Some(self.options.residual),
        };
        let rule = Rule { codec, exact, residual };
        self.rule = Some(rule);
        Ok(rule)
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

    /// The oldest block of a layer without which it still has `width` tokens in the residual.
    fn beyond_residual(&self, layer: usize, width: usize) -> Option<Key> {
        let residual = self.residual.get(layer)?;
        let (&key, &tokens) = residual.blocks.first_key_value()?;
        (residual.tokens - tokens >= width).then_some(key)
    }

    fn leave_residual(&mut self, layer: usize, key: Key) {
        if let Some(residual) = self.residual.get_mut(layer)
            && let Some(tokens) = residual.blocks.remove(&key)
        {
            residual.tokens -= tokens;
        }
    }

    /// Settles what a block holds and moves it to the host tier.
    fn encode(&mut self, key: Key, rule: Rule) -> Result<()> {
        let Some(entry) = self.entries.get_mut(&key) else { return Ok(()) };
        let Home::Device(kv) = &entry.home else { return Ok(()) };
        let kv = kv.clone();
        let packed = codec::encode(rule.codec, &kv)?;
        self.plain -= kv.footprint();
        self.tensors -= 1;
        self.host += packed.bytes.len() as u64;
        entry.home = Home::Host(Arc::new(packed));
        let layer = entry.layer;
        self.in_host.insert(key);
        self.leave_residual(layer, key);
        if rule.exact {
            self.keep_copy(key, kv);
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
                self.encode(oldest, Rule { exact: false, ..rule })?;
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
            return self.entries.first_key_value().map(|(&key, _)| key);
        }
        self.in_host.first().copied().into_iter().chain(self.oldest_on_device()).min()
    }

    fn has_disk(&self) -> bool {
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
        self.options.budget.device.map_or(0, |budget| bytes.saturating_sub(budget))
    }

    /// Bytes that are in memory of every block, wherever its keys and values lie.
    fn records(&self) -> u64 {
        self.entries.len() as u64 * RECORD
    }

    /// Whether what is in memory of units whose blocks lie below is too much. A device that is over
    /// its budget by its fixed bytes alone is no reason to forget.
    fn index_is_over(&self) -> bool {
        let Besides { fixed, index } = self.besides;
        let budget = self.options.budget.device.filter(|&budget| fixed < budget);
        budget.is_some_and(|budget| fixed + index + self.records() > budget)
    }

    /// Says once that the device's budget is less than the least that can be held.
    pub fn tell_least(&mut self, besides: Besides, units: usize) {
        let over = self.excess(besides);
        let Some(budget) = self.options.budget.device.filter(|_| over > 0) else { return };
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
        while self.options.budget.device.is_none() || self.device_is_over() {
            let Some((_, key)) = self.copied.pop_first() else { return };
            if let Some(copy) = self.entries.get_mut(&key).and_then(|entry| entry.copy.take()) {
                self.copies -= copy.kv.footprint();
                self.tensors -= 1;
            }
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
        let entry = self.entries.get_mut(&key)?;
        if let Some(copy) = &mut entry.copy {
            self.copied.remove(&copy.used);
            self.clock += 1;
            copy.used = self.clock;
            self.copied.insert(self.clock, key);
            self.hits += 1;
            return Some(Source::Ready(copy.kv.clone()));
        }
        match &entry.home {
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

    /// Keeps what was decoded, if there is room for it.
    pub fn keep_copy(&mut self, key: Key, kv: Kv) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.copy.is_some() {
            return;
        }
        self.clock += 1;
        self.copies += kv.footprint();
        self.tensors += 1;
        entry.copy = Some(Copied { kv, used: self.clock });
        self.copied.insert(self.clock, key);
        self.trim_copies();
    }

    /// A block, or its whole file, cannot be read: it is as if it had been forgotten.
    pub fn lose(&mut self, key: Key, place: &Place, damage: Damage) {
        let keys: Vec<Key> = if damage.all {
            let in_file = |home: &Home| matches!(home, Home::Disk(p) if p.is_beside(place));
            self.entries.iter().filter(|(_, e)| in_file(&e.home)).map(|(&key, _)| key).collect()
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
        if let Some(copy) = entry.copy {
            self.copies -= copy.kv.footprint();
            self.tensors -= 1;
            self.copied.remove(&copy.used);
        }
        match entry.home {
            Home::Device(kv) => {
                self.plain -= kv.footprint();
                self.tensors -= 1;
                self.leave_residual(entry.layer, key);
            }
            Home::Host(packed) => {
                self.host -= packed.bytes.len() as u64;
                self.in_host.remove(&key);
            }
            Home::Disk(_) => {}
        }
    }

    pub fn codec(&self) -> Option<Codec> {
        self.rule.map(|rule| rule.codec)
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn stats(&self) -> StoreStats {
        StoreStats {
            device: self.plain + self.copies + self.records(),
            overhead: self.records() + self.tensors * Kv::OVERHEAD,
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

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
