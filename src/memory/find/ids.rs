// SPDX-License-Identifier: MPL-2.0
//! Ascending ids of units. Mostly they follow each other without a gap, and then two numbers say it
//! all, however many they are.

use std::ops::Range;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    Run(Range<u64>),
    Listed(Vec<u64>),
}

impl Default for Ids {
    fn default() -> Self {
        Self::Run(0..0)
    }
}

impl Ids {
    pub fn len(&self) -> usize {
        match self {
            Self::Run(run) => (run.end - run.start) as usize,
            Self::Listed(ids) => ids.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<u64> {
        match self {
            Self::Run(run) => run.clone().nth(index),
            Self::Listed(ids) => ids.get(index).copied(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub fn to_vec(&self) -> Vec<u64> {
        match self {
            Self::Run(run) => run.clone().collect(),
            Self::Listed(ids) => ids.clone(),
        }
    }

    /// Where an id is.
    pub fn position(&self, id: u64) -> Option<usize> {
        match self {
            Self::Run(run) => run.contains(&id).then(|| (id - run.start) as usize),
            Self::Listed(ids) => ids.binary_search(&id).ok(),
        }
    }

    /// Takes the one at this index out.
    pub fn remove(&mut self, index: usize) {
        let mut ids = self.to_vec();
        if index < ids.len() {
            ids.remove(index);
        }
        *self = Self::Listed(ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_the_list_of_what_is_in_it() {
        let (mut run, mut list) = (Ids::Run(3..7), Ids::Listed(vec![3, 4, 5, 6]));
        for _ in 0..2 {
            assert_eq!((run.len(), run.to_vec()), (list.len(), list.to_vec()));
            assert!(run.iter().eq(list.iter()) && !run.is_empty());
            for id in 0..9 {
                assert_eq!(run.position(id), list.position(id));
                assert_eq!(run.get(id as usize), list.get(id as usize));
            }
            run.remove(1);
            list.remove(1);
        }
        assert_eq!(run.to_vec(), [3, 6]);
        assert!(Ids::default().is_empty());
    }
}
