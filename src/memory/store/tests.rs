// SPDX-License-Identifier: MPL-2.0
//! The store without a model.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::codec::Codec;
use super::*;
use crate::memory::kv::Kv;
use crate::memory::testing::random_tensor;
use crate::model::rope::{Positions, Rope};

const LAYERS: usize = 2;
const DIM: usize = 256;
/// Bytes of a block's values as computed, and of a unit's.
const BLOCK: u64 = 2 * 2 * 10 * DIM as u64 * 4;
const UNIT: u64 = LAYERS as u64 * BLOCK;
/// More than what comes with the values of forty units, and much less than a unit.
const SLACK: u64 = 40 * LAYERS as u64 * (Kv::OVERHEAD + tier::RECORD);
/// A unit in a segment file.
const FILED: u64 = UNIT + LAYERS as u64 * disk::HEADER;

fn kv(unit: u64, layer: usize) -> Kv {
    let tensor = |seed| random_tensor(seed, (2, 10, DIM));
    let seed = unit * 100 + layer as u64;
    Kv { k: tensor(seed), v: tensor(seed + 50) }
}

fn values(kv: &Kv) -> Vec<f32> {
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    [flat(&kv.k), flat(&kv.v)].concat()
}

/// A memory without a model: units of ten tokens in two layers.
struct Small {
    store: Store,
    units: VecDeque<(u64, Vec<Block>)>,
    next: u64,
}

impl Small {
    fn new(options: StoreOptions) -> Self {
        let store = Store::new(options, LAYERS, LAYERS, Device::Cpu);
        Self { store, units: VecDeque::new(), next: 0 }
    }

    fn pooled(options: StoreOptions) -> Self {
        let small = Self::new(options);
        Self { store: small.store.pooled(), ..small }
    }

    fn push(&mut self, count: u64) {
        for _ in 0..count {
            let unit = self.next;
            self.next += 1;
            let block = |layer| Block::new(unit, kv(unit, layer)).unwrap();
            let blocks =
                (0..LAYERS).map(|l| self.store.put(l, vec![block(l)]).unwrap().remove(0)).collect();
            self.units.push_back((unit, blocks));
            while let Some(unit) = self.store.settle(Besides::default()).unwrap()
                && self.units.len() > 1
            {
                self.units.retain(|(id, _)| *id != unit);
            }
        }
    }

    fn held(&self) -> Vec<u64> {
        self.units.iter().map(|(unit, _)| *unit).collect()
    }

    fn block(&self, unit: u64, layer: usize) -> &Block {
        let (_, blocks) = self.units.iter().find(|(id, _)| *id == unit).unwrap();
        &blocks[layer]
    }

    fn load(&self, unit: u64, layer: usize) -> Option<Vec<f32>> {
        self.block(unit, layer).load().unwrap().as_ref().map(values)
    }

    /// Everything held, in order, and nothing about where.
    fn content(&self) -> Vec<(u64, Vec<Option<Vec<f32>>>)> {
        let layers = |unit| (0..LAYERS).map(|layer| self.load(unit, layer)).collect();
        self.held().into_iter().map(|unit| (unit, layers(unit))).collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.store.take_warnings().iter().map(ToString::to_string).collect()
    }
}

/// Tiers of so many units.
fn tiers(device: u64, host: u64, disk: u64, path: &Path) -> StoreOptions {
    StoreOptions {
        budget: Budget {
            device: Some(if device == 0 { 0 } else { device * UNIT + SLACK }),
            host: Some(host * UNIT),
            disk: Some(disk * FILED),
        },
        disk_path: Some(path.into()),
        codec: Some(Codec::F32),
        ..StoreOptions::default()
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let list = |path: &Path| fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = list(path).flat_map(|folder| list(&folder)).collect();
    files.sort();
    files
}

#[test]
fn without_lower_tiers_the_oldest_go_and_nothing_is_encoded() {
    let budget = Budget { device: Some(5 * UNIT + SLACK), ..Budget::default() };
    let mut small = Small::new(StoreOptions { budget, ..StoreOptions::default() });
    small.push(9);
    assert_eq!(small.held(), [4, 5, 6, 7, 8]);
    let stats = small.store.stats();
    assert_eq!((stats.host, stats.disk), (0, 0));
    assert_eq!(stats.device, 5 * UNIT + 10 * (Kv::OVERHEAD + tier::RECORD));
    assert_eq!(stats.blocks, 10);
    assert!(small.warnings().is_empty());
    small.units.clear();
    assert_eq!(small.store.stats().bytes(), 0);
}

/// Where the child process of the next test keeps its blocks.
const ORPHANS: &str = "STREAMKVQA_TEST_ORPHANS";

#[test]
fn what_a_killed_process_left_goes_and_what_a_living_one_uses_stays() {
    if let Some(path) = std::env::var_os(ORPHANS) {
        // The process to be killed: it has files on disk and says so.
        let mut small = Small::new(tiers(1, 1, 20, Path::new(&path)));
        small.push(8);
        fs::write(Path::new(&path).join("ready"), "").unwrap();
        std::thread::sleep(std::time::Duration::from_secs(120));
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let name =
        "memory::store::tests::what_a_killed_process_left_goes_and_what_a_living_one_uses_stays";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(ORPHANS, parent.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !parent.path().join("ready").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut living = Small::new(tiers(1, 1, 20, parent.path()));
    living.push(8);
    let folders = || {
        let entries = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap());
        entries.filter(|entry| entry.path().is_dir()).count()
    };
    assert_eq!(folders(), 2, "both are in use");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(folders(), 2, "nobody has looked yet");
    let other = Small::new(tiers(1, 1, 20, parent.path()));
    assert_eq!(folders(), 2, "the orphan's is gone, the new one's is there");
    for unit in living.held() {
        assert_eq!(living.load(unit, 0).unwrap(), values(&kv(unit, 0)));
    }
    assert!(living.warnings().is_empty());
    drop((living, other));
    assert_eq!(folders(), 0);
}

#[test]
fn an_index_that_outgrows_the_device_forgets_the_oldest_whatever_room_the_disk_has() {
    let folder = tempfile::tempdir().unwrap();
    let records = 12 * LAYERS as u64 * tier::RECORD;
    let options = tiers(0, 1, 1000, folder.path());
    let budget = Budget { device: Some(records), ..options.budget };
    let mut small = Small::new(StoreOptions { budget, ..options });
    small.push(40);
    assert_eq!(small.held(), (28..40).collect::<Vec<_>>());
    assert!(small.store.stats().device <= records);
    assert!(small.warnings().is_empty());
}

#[test]
fn a_budget_below_the_least_is_told_once_with_the_least() {
    let budget = Budget { device: Some(1000), ..Budget::default() };
    let mut small = Small::new(StoreOptions { budget, ..StoreOptions::default() });
    small.push(3);
    for _ in 0..2 {
        small.store.tell_least(Besides { fixed: 5000, index: 0 }, small.held().len());
    }
    let warnings = small.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let least = 5000 + UNIT + LAYERS as u64 * (Kv::OVERHEAD + tier::RECORD);
    assert!(warnings[0].contains("1000 bytes") && warnings[0].contains(&least.to_string()));
}

#[test]
fn a_block_is_the_same_in_every_tier() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new(tiers(2, 3, 20, folder.path()));
    small.push(12);
    let stats = small.store.stats();
    assert!(stats.device > 0 && stats.host > 0 && stats.disk > 0, "{stats:?}");
    assert!(stats.device <= 2 * UNIT + SLACK && stats.host <= 3 * UNIT && stats.disk <= 20 * FILED);
    for unit in 0..12 {
        for layer in 0..LAYERS {
            assert_eq!(small.load(unit, layer).unwrap(), values(&kv(unit, layer)));
        }
    }
    assert!(small.warnings().is_empty());
}

#[test]
fn what_is_remembered_does_not_depend_on_what_was_asked() {
    for codec in Codec::ALL {
        for residual in [0, 15, 1000] {
            let folder = tempfile::tempdir().unwrap();
            let options =
                StoreOptions { codec: Some(codec), residual, ..tiers(3, 1, 2, folder.path()) };
            let alone = StoreOptions {
                disk_path: None,
                budget: Budget { device: Some(4 * UNIT + SLACK), ..Budget::default() },
                ..options.clone()
            };
            for options in [options, alone] {
                let mut asked = Small::new(options.clone());
                let mut silent = Small::new(options);
                for round in 0..40 {
                    asked.push(1);
                    silent.push(1);
                    let held = asked.held();
                    for pick in 0..3 {
                        let unit = held[(round * 7 + pick * 3) % held.len()];
                        asked.load(unit, pick % LAYERS);
                    }
                }
                assert_eq!(asked.content(), silent.content(), "{codec}, residual {residual}");
                // Asked again, from wherever it lies now.
                assert_eq!(asked.content(), asked.content());
            }
        }
    }
}

#[test]
fn copies_leave_the_device_by_last_use() {
    let budget = Budget { device: Some(3 * BLOCK + SLACK / 3), host: Some(20 * UNIT), disk: None };
    let mut small =
        Small::new(StoreOptions { budget, codec: Some(Codec::F32), ..StoreOptions::default() });
    small.push(12);
    let hit = |unit, layer| {
        let before = small.store.stats();
        small.load(unit, layer);
        let after = small.store.stats();
        assert_eq!(after.hits + after.loads, before.hits + before.loads + 1);
        assert!(after.device <= 3 * BLOCK + SLACK / 3);
        after.hits > before.hits
    };
    // The newest three, the other way round.
    assert!(hit(11, 1) && hit(11, 0) && hit(10, 1));
    assert!(!hit(6, 0), "takes the place of 11's second");
    assert!(hit(6, 0) && hit(10, 1) && hit(11, 0));
    assert!(!hit(11, 1), "takes the place of 6's");
    assert!(hit(10, 1) && hit(11, 0) && hit(11, 1));
    assert!(!hit(6, 0));
}

#[test]
fn looking_decodes_the_chosen_blocks_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new(tiers(0, 2, 20, folder.path()));
    small.push(10);
    let chosen = [(1, 0), (4, 1), (9, 0)];
    for (unit, layer) in chosen {
        small.load(unit, layer);
    }
    let stats = small.store.stats();
    assert_eq!((stats.loads, stats.hits), (3, 0));
    let records = stats.blocks * tier::RECORD;
    assert_eq!(stats.device, records, "no copy stays where there is no room for one");
    assert!(stats.host <= 2 * UNIT, "what came from the disk is not in the host tier");
}

fn coded(codec: Codec, unit: u64, layer: usize) -> Vec<f32> {
    let packed = codec::encode(codec, &kv(unit, layer)).unwrap();
    let kv = codec::decode(packed.form, &packed.bytes).unwrap();
    values(&kv.unwrap())
}

#[test]
fn what_a_block_holds_is_settled_when_it_is_encoded() {
    // With room for a copy of everything: none may be of what was there before.
    let budget = Budget { device: Some(9 * UNIT), host: Some(9 * UNIT), disk: None };
    let mut small = Small::new(StoreOptions {
        budget,
        codec: Some(Codec::Q4),
        residual: 0,
        ..StoreOptions::default()
    });
    small.push(3);
    for _ in 0..2 {
        for unit in 0..3 {
            assert_eq!(small.load(unit, 1).unwrap(), coded(Codec::Q4, unit, 1));
        }
    }
    assert_eq!((small.store.stats().loads, small.store.stats().hits), (3, 3));
}

#[test]
fn a_codec_begins_behind_the_residual_window() {
    let residual = 25;
    let mut small =
        Small::new(StoreOptions { codec: Some(Codec::Q4), residual, ..StoreOptions::default() });
    small.push(8);
    let plain = |unit| small.load(unit, 1).unwrap() == values(&kv(unit, 1));
    // Three units of ten tokens are the fewest that are not below 25.
    assert_eq!((0..8).filter(|&unit| plain(unit)).collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!(small.load(2, 1).unwrap(), coded(Codec::Q4, 2, 1));
    let packed = codec::encode(Codec::Q4, &kv(2, 1)).unwrap();
    let stats = small.store.stats();
    assert_eq!(stats.host, 5 * LAYERS as u64 * packed.bytes.len() as u64);
    let besides = stats.blocks * tier::RECORD + 3 * LAYERS as u64 * Kv::OVERHEAD;
    assert_eq!(stats.device, 3 * UNIT + besides, "no decoded copies without a budget for them");
}

#[test]
fn the_host_tier_without_a_budget_shares_the_devices() {
    let budget = Budget { device: Some(10 * UNIT + SLACK), ..Budget::default() };
    let mut small = Small::new(StoreOptions {
        budget,
        codec: Some(Codec::Q8),
        residual: 20,
        ..StoreOptions::default()
    });
    small.push(60);
    let held = small.held();
    assert!((20..40).contains(&held.len()), "more than f32 has room for: {}", held.len());
    assert!(small.store.stats().bytes() <= 10 * UNIT + SLACK);
    for &unit in &held {
        small.load(unit, 0);
        assert!(small.store.stats().bytes() <= 10 * UNIT + SLACK);
    }
    assert_eq!(small.held(), held);
}

#[test]
fn auto_is_as_fine_as_an_hour_allows() {
    let hours = |codec: Codec, hours: f64| {
        let shape = codec::Shape { heads: 2, tokens: 10, dim: DIM };
        let unit = LAYERS as f64 * (codec.bytes(shape) as f64 + disk::HEADER as f64);
        (unit * 3600.0 * hours) as u64
    };
    let chosen = |budget: Budget| {
        let mut small = Small::new(StoreOptions { budget, ..StoreOptions::default() });
        small.push(1);
        small.store.codec()
    };
    let below = |host| Budget { device: Some(UNIT), host: Some(host), disk: None };
    for codec in [Codec::F32, Codec::F16, Codec::Q8, Codec::Q4] {
        assert_eq!(chosen(below(hours(codec, 1.01))), Some(codec));
    }
    assert_eq!(chosen(below(UNIT)), Some(Codec::Q4), "no coarser by itself");
    assert_eq!(chosen(Budget::default()), Some(Codec::F32));
    let device = Budget { device: Some(UNIT), ..Budget::default() };
    assert_eq!(chosen(device), Some(Codec::F32), "nothing below: nothing is encoded");
}

#[test]
fn a_full_disk_forgets_the_oldest_and_says_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new(tiers(1, 2, 5, folder.path()));
    small.push(40);
    let stats = small.store.stats();
    assert!(stats.disk <= 5 * FILED && stats.disk >= 3 * FILED, "{stats:?}");
    let held = small.held();
    assert!((5..=7).contains(&held.len()) && held.last() == Some(&39), "{held:?}");
    for &unit in &held {
        assert_eq!(small.load(unit, 1).unwrap(), values(&kv(unit, 1)));
    }
    let warnings = small.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("max-disk") && warnings[0].contains("is full"));
    assert!(warnings[0].contains(&folder.path().display().to_string()));
    let size: u64 = files(folder.path()).iter().map(|f| f.metadata().unwrap().len()).sum();
    assert_eq!(size, stats.disk, "the count is what lies on the disk");
}

#[test]
fn a_disk_too_small_for_one_unit_is_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let options = tiers(1, 2, 5, folder.path());
    let budget = Budget { disk: Some(FILED - 1), ..options.budget };
    let mut small = Small::new(StoreOptions { budget, ..options });
    small.push(9);
    assert_eq!(small.held(), [7, 8]);
    let warnings = small.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("single unit"), "{warnings:?}");
}

#[test]
fn a_folder_that_cannot_be_written_is_done_without() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // No folder can be made below a file, whoever asks.
    let path = file.path().join("memory");
    for host in [Some(2 * UNIT), None] {
        let budget = Budget { device: Some(3 * UNIT + SLACK), host, disk: None };
        let mut small = Small::new(StoreOptions { budget, ..tiers(0, 0, 0, &path) });
        small.push(12);
        let held = small.held();
        assert_eq!(held.len(), if host.is_some() { 2 } else { 3 }, "{held:?}");
        for &unit in &held {
            assert_eq!(small.load(unit, 0).unwrap(), values(&kv(unit, 0)));
        }
        let warnings = small.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(&path.display().to_string()));
    }
}

#[test]
fn a_folder_that_goes_away_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new(tiers(0, 2, 50, folder.path()));
    small.push(6);
    fs::remove_dir_all(folder.path()).unwrap();
    small.push(6);
    assert!(small.warnings()[0].contains("cannot be written to"));
    assert_eq!(small.load(0, 0), None);
    assert_eq!(small.load(11, 0).unwrap(), values(&kv(11, 0)));
}

#[test]
fn a_missing_file_takes_its_blocks_with_it_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new(tiers(0, 2, 50, folder.path()));
    small.push(12);
    let gone = files(folder.path())[0].clone();
    fs::remove_file(&gone).unwrap();
    let content = small.content();
    let lost: BTreeSet<u64> =
        content.iter().filter(|(_, kv)| kv.contains(&None)).map(|(unit, _)| *unit).collect();
    assert!(!lost.is_empty() && lost.len() < 10, "{lost:?}");
    for (unit, layers) in content {
        for (layer, found) in layers.into_iter().enumerate() {
            let lost = lost.contains(&unit);
            assert_eq!(found, (!lost).then(|| values(&kv(unit, layer))));
            assert_eq!(small.block(unit, layer).is_lost(), lost);
        }
    }
    let warnings = small.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(&gone.display().to_string()), "{warnings:?}");
    assert_eq!(small.store.stats().lost, (LAYERS * lost.len()) as u64);
}

#[test]
fn a_damaged_block_is_lost_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new(tiers(0, 2, 50, folder.path()));
    small.push(12);
    let path = &files(folder.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[disk::HEADER as usize + 7] ^= 1;
    fs::write(path, bytes).unwrap();
    assert_eq!(small.load(0, 0), None);
    assert_eq!(small.load(0, 1).unwrap(), values(&kv(0, 1)));
    assert_eq!(small.warnings().len(), 1);
    assert_eq!(small.load(0, 0), None);
    assert!(small.warnings().is_empty(), "once");
}

#[test]
fn nothing_stays_on_disk_behind_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new(tiers(0, 2, 50, folder.path()));
    small.push(12);
    assert!(!files(folder.path()).is_empty());
    drop(small);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_stored_key_is_rotated_where_it_is_used() {
    // Golden vector `rope`: stored un-rotated, in any tier, and turned to position 63.
    let key = [
        0.346_469_94f32,
        0.789_683_2,
        0.600_325_94,
        -0.069_554_54,
        -0.226_909_24,
        -0.033_812_49,
        -0.409_628_2,
        0.074_828_21,
    ];
    let turned = [
        0.379_558_1f32,
        -0.292_184_6,
        0.624_924_5,
        -0.069_703_475,
        -0.165_725_32,
        0.734_418_8,
        -0.371_020_05,
        0.074_689_49,
    ];
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(tiers(0, 0, 9, folder.path()), 1, 1, Device::Cpu);
    let k = Tensor::from_slice(&key, (1, 1, 8), &Device::Cpu).unwrap();
    let block = Block::new(0, Kv { k: k.clone(), v: k }).unwrap();
    let block = store.put(0, vec![block]).unwrap().remove(0);
    store.settle(Besides::default()).unwrap();
    assert_eq!(files(folder.path()).len(), 1);
    let rope = Rope::new(8, 1e6, &Device::Cpu).unwrap();
    let k = block.load().unwrap().unwrap().k;
    let found = rope.rotate(&k, &Positions::run(63, 1)).unwrap();
    let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (a, b) in found.iter().zip(turned) {
        assert!((a - b).abs() <= 1e-6, "{a} is not {b}");
    }
}

#[test]
fn blocks_in_pools_are_the_same_blocks_in_the_same_tiers() {
    let folder = tempfile::tempdir().unwrap();
    let device = |units| Budget { device: Some(units * UNIT + SLACK), ..Budget::default() };
    let q8 = StoreOptions { codec: Some(Codec::Q8), ..tiers(3, 3, 20, folder.path()) };
    for options in [
        StoreOptions::default(),
        StoreOptions { budget: device(5), ..StoreOptions::default() },
        tiers(3, 4, 6, folder.path()),
        tiers(0, 4, 6, folder.path()),
        StoreOptions { residual: 25, ..q8 },
    ] {
        let bound = options.budget.device;
        let (mut plain, mut pooled) = (Small::new(options.clone()), Small::pooled(options));
        for step in 0..12 {
            plain.push(1 + step % 3);
            pooled.push(1 + step % 3);
            for unit in plain.held().into_iter().step_by(2) {
                assert_eq!(plain.load(unit, 1), pooled.load(unit, 1), "step {step}, unit {unit}");
            }
            // All of a layer at once, and one by one.
            let [one, other] = [&plain, &pooled].map(|small| {
                let all: Vec<&Block> = small.units.iter().map(|(_, blocks)| &blocks[0]).collect();
                let all: Option<Vec<Stretch>> = stretches(&all).unwrap().into_iter().collect();
                values(&gathered(&all.unwrap(), true).unwrap().unwrap())
            });
            assert_eq!(one, other, "step {step}");
            assert_eq!(plain.content(), pooled.content(), "step {step}");
            let (a, b) = (plain.store.stats(), pooled.store.stats());
            assert_eq!((a.host, a.disk, a.blocks), (b.host, b.disk, b.blocks), "step {step}");
            if let Some(bound) = bound.filter(|_| b.disk == 0 || b.host > 0) {
                assert!(b.device <= bound.max(UNIT + SLACK), "{} of {bound}", b.device);
                // What is set aside is within it too, but for units that came when all was full.
                assert!(b.device + b.reserved <= bound + UNIT + SLACK, "{b:?} of {bound}");
            }
        }
        assert_eq!(plain.warnings(), pooled.warnings());
        pooled.units.clear();
        let stats = pooled.store.stats();
        assert_eq!((stats.device, stats.host, stats.overhead), (0, 0, 0));
    }
}

#[test]
fn units_of_one_call_lie_side_by_side_and_are_gathered_at_once() {
    let store = Store::new(StoreOptions::default(), 1, 1, Device::Cpu).pooled();
    let whole = kv(3, 0);
    let prefix = store.hold(0, kv(4, 0)).unwrap();
    let lengths = [(0, 4), (4, 3), (7, 3)];
    let blocks =
        lengths.iter().zip(0..).map(|(&(start, n), unit)| Block::part(unit, &whole, start, n));
    let blocks = store.put(0, blocks.collect()).unwrap();
    let stretches: Vec<Stretch> =
        blocks.iter().map(|block| block.stretch().unwrap().unwrap()).collect();
    assert!(stretches.windows(2).all(|pair| pair[0].goes_on_in(&pair[1])));
    assert!(prefix.goes_on_in(&stretches[0]));
    let gathered = gathered(&[prefix, stretches[2].clone(), stretches[0].clone()], true);
    let parts = [kv(4, 0), whole.part(7, 3).unwrap(), whole.part(0, 4).unwrap()];
    let wanted = crate::memory::kv::joined(&parts.iter().collect::<Vec<_>>()).unwrap().unwrap();
    assert_eq!(values(&gathered.unwrap().unwrap()), values(&wanted));
    let row = BLOCK / 10;
    let stats = store.stats();
    assert_eq!(stats.device - stats.overhead, 10 * row);
    assert_eq!(stats.reserved, (4096 - 10) * row, "the prefix is let go of");
}
