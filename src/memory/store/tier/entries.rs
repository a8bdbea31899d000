// SPDX-License-Identifier: MPL-2.0
//! Where every block lies, by unit. A snapshot takes all of it for the price of a handle a unit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::super::codec::Packed;
use super::super::disk::Place;
use super::super::pool::Stretch;

/// By unit, then in order of arrival: the order of the stream.
pub type Key = (u64, u64);

/// Where a block is kept.
#[derive(Clone, Debug)]
pub enum Home {
    /// As the model computed it.
    Device(Stretch),
    Host(Arc<Packed>),
    Disk(Place),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub layer: usize,
    pub home: Home,
    pub lost: Arc<AtomicBool>,
}

/// Entries in the order of their keys. A clone shares each unit's until one of them changes.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Of each unit, by number.
    units: BTreeMap<u64, Arc<Vec<(u64, Entry)>>>,
    len: usize,
}

impl Entries {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn insert(&mut self, (unit, number): Key, entry: Entry) {
        let own = self.units.entry(unit).or_insert_with(|| Arc::new(Vec::with_capacity(1)));
        let own = Arc::make_mut(own);
        match place(own, number) {
            Ok(at) => own[at].1 = entry,
            Err(at) => {
                own.insert(at, (number, entry));
                self.len += 1;
            }
        }
    }

    pub fn get(&self, (unit, number): &Key) -> Option<&Entry> {
        let own = self.units.get(unit)?;
        let at = place(own, *number).ok()?;
        own.get(at).map(|(_, entry)| entry)
    }

    pub fn get_mut(&mut self, (unit, number): &Key) -> Option<&mut Entry> {
        let own = self.units.get_mut(unit)?;
        let at = place(own, *number).ok()?;
        Arc::make_mut(own).get_mut(at).map(|(_, entry)| entry)
    }

    pub fn remove(&mut self, (unit, number): &Key) -> Option<Entry> {
        let own = self.units.get_mut(unit)?;
        let at = place(own, *number).ok()?;
        let (_, entry) = Arc::make_mut(own).remove(at);
        if own.is_empty() {
            self.units.remove(unit);
        }
        self.len -= 1;
        Some(entry)
    }

    pub fn first(&self) -> Option<Key> {
        self.iter().next().map(|(key, _)| key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &Entry)> {
        self.units.iter().flat_map(|(&unit, own)| {
            own.iter().map(move |(number, entry)| ((unit, *number), entry))
        })
    }
}

/// Where a unit's entry of this number is, or would be.
fn place(own: &[(u64, Entry)], number: u64) -> Result<usize, usize> {
    own.binary_search_by_key(&number, |(number, _)| *number)
}
