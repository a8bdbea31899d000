// SPDX-License-Identifier: MPL-2.0
//! How old what is held is.

use super::resident::Layer;
use super::stored::Stored;

/// Where one age ends and the next begins, in seconds; the last has no end.
const ENDS: [f64; 6] = [60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0];

/// What is held that is about as old.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Age {
    /// Seconds from the beginning of its oldest unit to the end of the newest unit of all.
    pub oldest: f64,
    pub units: u64,
    /// Bytes of their keys and values, in whichever tier or in a resident cache. What belongs to no unit is
    /// of no age: the prompt, local windows, what units are ranked by.
    pub bytes: u64,
}

impl Stored {
    /// What is held by age, the newest first: a minute, ten, an hour, six, a day, a week, longer; without
    /// those of which nothing is held. Walks over all that is held.
    pub fn ages(&self, resident: Option<&[Layer]>) -> Vec<Age> {
        let newest = self.units.iter().map(|unit| unit.end).fold(f64::MIN, f64::max);
        let mut ages = [Age::default(); ENDS.len() + 1];
        let mut which = Vec::with_capacity(self.units.len());
        for unit in self.units.iter() {
            let old = newest - unit.start;
            let index = ENDS.partition_point(|&end| end < old);
            which.push((unit.id, index));
            if let Some(age) = ages.get_mut(index) {
                age.units += 1;
                age.oldest = age.oldest.max(old);
            }
        }
        // What comes next is mostly of the unit that the last was of.
        let mut last = None;
        let mut add = |id: u64, bytes: u64| {
            if last.is_none_or(|(of, _)| of != id) {
                let found = which.binary_search_by_key(&id, |&(id, _)| id).ok();
                last = found.and_then(|at| which.get(at)).copied();
            }
            if let Some(age) = last.and_then(|(_, index)| ages.get_mut(index)) {
                age.bytes += bytes;
            }
        };
        self.tiers.each(&mut add);
        for layer in resident.into_iter().flatten() {
            let rows = layer.lists().iter().map(Vec::len).sum::<usize>().max(1) as u64;
            let bytes = layer.kv().map_or(0, |kv| kv.bytes()) / rows;
            layer.lists().iter().flatten().for_each(|row| add(row.unit, bytes));
        }
        ages.into_iter().filter(|age| age.units > 0).collect()
    }
}
