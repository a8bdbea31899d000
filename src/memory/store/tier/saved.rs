// SPDX-License-Identifier: MPL-2.0
//! Blocks on their way into a file and back, each to the tier that it came from.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::entries::{Entry, Home, Key};
use super::{FILE_BYTES, Label, Tiers};
use crate::error::Result;
use crate::memory::kv::Kv;
use crate::memory::store::codec::{self, Codec, Form, Packed, Shape};
use crate::memory::store::disk::HEADER;
use crate::memory::store::pool::Stretch;
use crate::snapshot::{Reader, Snapshot, Writer};

/// What is known of all blocks.
#[derive(Serialize, Deserialize)]
struct Books {
    /// The codec by its name, and what was computed; `None` before the first block.
    rule: Option<(String, String)>,
    hits: u64,
    loads: u64,
    lost: u64,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Tier {
    Device,
    Host,
    Disk,
}

/// What a record holds.
#[derive(Serialize, Deserialize)]
struct Saved {
    unit: u64,
    layer: usize,
    tier: Tier,
    codec: String,
    dtype: String,
    /// `[Hk, n, d]`.
    shape: [usize; 3],
}

/// A block that was put back: its layer and tokens, and what its handle holds.
pub struct Restored {
    pub layer: usize,
    pub tokens: usize,
    pub key: Key,
    pub lost: Arc<AtomicBool>,
}

impl Tiers {
    /// Decoded copies are none of it.
    pub fn save(&self, into: &mut Snapshot) {
        let rule = self.rule.map(|rule| (rule.codec.name().to_owned(), rule.dtype));
        let rule = rule.map(|(codec, dtype)| (codec, dtype.as_str().to_owned()));
        into.value(Books { rule, hits: self.hits, loads: self.loads, lost: self.lost });
        let entries = self.entries.clone();
        into.add(move |out| {
            for ((unit, _), entry) in entries.iter() {
                write(out, unit, entry.layer, &entry.home)?;
            }
            out.value(&None::<Saved>)
        });
    }

    /// Into a store that holds nothing, by whatever bounds it has now.
    pub fn restore(&mut self, from: &mut Reader) -> Result<Vec<Restored>> {
        let Books { rule, hits, loads, lost } = from.value()?;
        if let Some((codec, dtype)) = rule {
            let (Ok(codec), Ok(dtype)) = (codec.parse::<Codec>(), dtype.parse::<DType>()) else {
                return Err(from.damage("a number format that is not known"));
            };
            self.rule = Some(self.rule_of(self.options.codec.unwrap_or(codec), dtype));
        }
        let mut restored = Vec::new();
        let (mut below, mut bytes) = (Vec::new(), 0);
        while let (Some(saved), content) = from.record::<Option<Saved>>()? {
            let Some((form, layer)) = self.form_of(&saved) else {
                return Err(from.damage("a block of another model"));
            };
            let packed = Packed { form, bytes: content };
            if packed.bytes.len() != form.codec.bytes(form.shape) {
                return Err(from.damage("a block of another size"));
            }
            let (key, lost) = match saved.tier {
                Tier::Device => {
                    let Some(kv) = codec::decode(form, &packed.bytes)? else {
                        return Err(from.damage("a block of another size"));
                    };
                    let there = |tensor: &Tensor| tensor.to_device(&self.device);
                    let kv = Kv { k: there(&kv.k)?, v: there(&kv.v)? };
                    let loose = [Stretch::whole(kv)?];
                    let Some(home) = self.homes(layer, &loose)?.pop() else { continue };
                    self.put(layer, saved.unit, home)?
                }
                Tier::Host | Tier::Disk => self.put_packed(layer, saved.unit, packed),
            };
            if saved.tier == Tier::Disk {
                bytes += HEADER + form.codec.bytes(form.shape) as u64;
                below.push(key);
            }
            if bytes >= FILE_BYTES {
                self.put_below(&std::mem::take(&mut below));
                bytes = 0;
            }
            restored.push(Restored { layer, tokens: form.shape.tokens, key, lost });
        }
        self.put_below(&below);
        (self.hits, self.loads, self.lost) = (hits, loads, lost);
        Ok(restored)
    }

    /// `None`: nothing like it can lie here.
    fn form_of(&self, saved: &Saved) -> Option<(Form, usize)> {
        let [heads, tokens, dim] = saved.shape;
        let elements = heads.checked_mul(tokens)?.checked_mul(dim)?;
        elements.checked_mul(16)?;
        let (codec, dtype) = (saved.codec.parse().ok()?, saved.dtype.parse().ok()?);
        let form = Form { codec, dtype, shape: Shape { heads, tokens, dim } };
        (saved.layer < self.residual.len()).then_some((form, saved.layer))
    }

    fn put_packed(&mut self, layer: usize, unit: u64, packed: Packed) -> (Key, Arc<AtomicBool>) {
        let key = (unit, self.next);
        self.next += 1;
        self.host += packed.bytes.len() as u64;
        self.in_host.insert(key);
        let (home, lost) = (Home::Host(Arc::new(packed)), Arc::new(AtomicBool::new(false)));
        self.entries.insert(key, Entry { layer, home, lost: Arc::clone(&lost) });
        (key, lost)
    }

    /// To the disk, where there is one; a bound or a fault leaves them where they are, and what is too
    /// much goes as ever.
    fn put_below(&mut self, keys: &[Key]) {
        let room = self.options.budget.disk.unwrap_or(u64::MAX).saturating_sub(self.on_disk());
        let packed = keys.iter().filter_map(|&key| match self.entries.get(&key)? {
            Entry { layer, home: Home::Host(packed), .. } => {
                let label = Label { unit: key.0, layer: *layer as u32 };
                Some((key, label, Arc::clone(packed)))
            }
            _ => None,
        });
        let batch: Vec<(Key, Label, Arc<Packed>)> = packed.collect();
        let bytes: u64 = batch.iter().map(|(.., p)| HEADER + p.bytes.len() as u64).sum();
        if self.has_disk() && !batch.is_empty() && bytes <= room {
            self.write(&batch);
        }
    }
}

fn write(out: &mut Writer, unit: u64, layer: usize, home: &Home) -> Result<()> {
    let mut put = |tier, form: Form, bytes: &[u8]| {
        let Shape { heads, tokens, dim } = form.shape;
        let (codec, dtype) = (form.codec.name().into(), form.dtype.as_str().into());
        let saved = Saved { unit, layer, tier, codec, dtype, shape: [heads, tokens, dim] };
        out.record(&Some(saved), bytes)
    };
    match home {
        Home::Device(stretch) => {
            let kv = stretch.kv()?;
            let packed = codec::encode(Codec::exact(kv.k.dtype()), &kv)?;
            put(Tier::Device, packed.form, &packed.bytes)
        }
        Home::Host(packed) => put(Tier::Host, packed.form, &packed.bytes),
        Home::Disk(place) => match place.read(|bytes| put(Tier::Disk, place.form, bytes)) {
            Ok(written) => written,
            // It is as good as lost, which the next question that wants it will tell.
            Err(_) => Ok(()),
        },
    }
}
