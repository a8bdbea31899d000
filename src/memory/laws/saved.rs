// SPDX-License-Identifier: MPL-2.0
//! What holds of a memory that was saved: the one that is read back is the same to the bit, answers the
//! same, and goes on as the other does.

use std::path::Path;

use super::super::store::Budget;
use super::super::store::codec::Codec;
use super::*;
use crate::snapshot::{Reader, Snapshot};

/// Where blocks lie.
#[derive(Clone, Copy, Debug)]
enum Kept {
    AsComputed,
    /// With room for so many bytes.
    Bounded(u64),
    /// Encoded, and on the disk as far as this is more.
    Below(Codec, u64),
}

impl Kept {
    fn options(self, disk: &Path) -> StoreOptions {
        let budget = Budget::default();
        match self {
            Self::AsComputed => StoreOptions::default(),
            Self::Bounded(bytes) => StoreOptions {
                budget: Budget { device: Some(bytes), ..budget },
                ..StoreOptions::default()
            },
            Self::Below(codec, host) => StoreOptions {
                codec: Some(codec),
                residual: 6,
                budget: Budget { device: Some(1 << 30), host: Some(host), ..budget },
                disk_path: Some(disk.to_owned()),
                ..StoreOptions::default()
            },
        }
    }
}

fn kept() -> impl Strategy<Value = Kept> {
    let codec = prop::sample::select(vec![Codec::F32, Codec::F16, Codec::Q8, Codec::Q4]);
    prop_oneof![
        Just(Kept::AsComputed),
        (9_000..60_000u64).prop_map(Kept::Bounded),
        (codec, 0..9_000u64).prop_map(|(codec, host)| Kept::Below(codec, host)),
    ]
}

impl Run<'_> {
    pub(super) fn save(&self, path: &Path) {
        let mut snapshot = Snapshot::default();
        self.segmenter.save(&mut snapshot);
        self.memory.save(&mut snapshot).unwrap();
        snapshot.value(self.frames);
        snapshot.write(path).unwrap();
    }

    pub(super) fn restore(&mut self, path: &Path) {
        let mut from = Reader::open(path).unwrap();
        self.segmenter.restore(&mut from, &Device::Cpu).unwrap();
        self.memory.restore(&mut from).unwrap();
        self.frames = from.value().unwrap();
        from.end().unwrap();
    }

    /// All that can be told of it but for decoded copies, which are a cache.
    pub(super) fn account(&self) -> String {
        let mut stats = self.memory.store_stats();
        // How often it was looked at is of no account, nor what a pool has set aside, nor what lies in a
        // file beside something that is still wanted: that does not come back.
        (stats.hits, stats.loads, stats.reserved, stats.disk) = (0, 0, 0, stats.disk.min(1));
        if !self.memory.stored.tiers.is_in_memory() {
            (stats.device, stats.overhead) = (0, 0);
        }
        let memory = &self.memory;
        let units: Vec<_> = memory.units().collect();
        let heights = units.iter().map(|unit| memory.stored.height(unit.id));
        let heights: Vec<usize> = heights.collect();
        let course = (memory.seen, memory.taken, memory.clock, memory.next_unit, memory.segments());
        format!("{stats:?} {course:?} {heights:?} {units:?}")
    }
}

fn seen_alike(one: &Run<'_>, other: &Run<'_>, seed: u64) -> std::result::Result<(), TestCaseError> {
    prop_assert_eq!(one.account(), other.account());
    prop_assert!(one.fingerprint() == other.fingerprint(), "another content");
    let (one, other) = (one.looks(seed), other.looks(seed));
    prop_assert_eq!(one.units, other.units);
    prop_assert_eq!(one.answer, other.answer);
    prop_assert_eq!(one.mass, other.mass);
    prop_assert!(one.contexts == other.contexts, "other contexts");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_saved_comes_back_and_goes_on(
        recipe in recipe(),
        kept in kept(),
        on_device in any::<bool>(),
        seed in 0..1000u64,
        steps in prop::collection::vec(1..6usize, 2..7),
        stops in 1..6usize,
    ) {
        // At a bound on a device a block that found no page may find one in another run, and more fits.
        let on_device = on_device && !matches!(kept, Kept::Bounded(_));
        let (decoder, folder) = (decoder(), tempfile::tempdir().unwrap());
        let open = || Run::stored(&decoder, &recipe, on_device, kept.options(folder.path()));
        let file = folder.path().join("memory");
        let mut run = open();
        let all = frames(seed, steps.iter().sum());
        let mut rest = &all[..];
        let mut pushed = |run: &mut Run<'_>, n| {
            let (now, later) = rest.split_at(n);
            rest = later;
            run.push(now);
            now
        };
        let stops = stops.min(steps.len() - 1);
        for &n in &steps[..stops] {
            pushed(&mut run, n);
        }
        let before = run.account();
        run.save(&file);
        prop_assert_eq!(before, run.account(), "saving left a trace");
        let mut again = open();
        again.restore(&file);
        seen_alike(&run, &again, seed + 1)?;
        for &n in &steps[stops..] {
            let now = pushed(&mut run, n);
            again.push(now);
            // What is encoded is not what is resident.
            if !matches!(kept, Kept::Below(..)) {
                again.check();
            }
        }
        seen_alike(&run, &again, seed + 2)?;
        // Once more, by another.
        again.save(&file);
        let mut third = open();
        third.restore(&file);
        seen_alike(&again, &third, seed + 3)?;
    }
}
