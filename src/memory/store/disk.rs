// SPDX-License-Identifier: MPL-2.0
//! Segment files: runs of encoded blocks on disk, each read back alone.
//!
//! A stream has a folder of its own under `disk-path`, readable by nobody else, which goes when the
//! stream goes; a file goes with its last block. Where a process was killed, the next stream that uses
//! `disk-path` removes what it left: the segment files of a folder that nobody holds locked. A file is a sequence of records, little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | `SKVB` |
//! | 2 | version, 1 |
//! | 1, 1 | codec, type of the decoded tensors |
//! | 8, 4 | unit, layer |
//! | 4, 4, 4 | KV heads, tokens, head dimension |
//! | 8 | length of what follows |
//! | 4 | its CRC-32 |
//! | .. | keys and values as [`codec`](super::codec) writes them |

use std::fs::{self, DirEntry, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::DType;
use memmap2::MmapOptions;
use tempfile::TempDir;

use super::codec::{Codec, Form, Packed};

const MAGIC: &[u8; 4] = b"SKVB";
const VERSION: u16 = 1;
/// Bytes in front of each block.
pub const HEADER: u64 = 44;

/// How the folders of streams begin, and segment files begin and end.
const FOLDER: &str = "streamkvqa-";
const FILE: (&str, &str) = ("segment-", ".kv");

/// A stream's own folder of segment files.
#[derive(Debug)]
pub struct Folder {
    dir: TempDir,
    /// The folder itself, held locked as long as it is used; the system lets go when a process dies.
    _lock: Option<File>,
    files: u64,
    /// Bytes of the files that are there.
    bytes: Arc<AtomicU64>,
}

/// One file; deleted when the last block in it is dropped.
#[derive(Debug)]
pub struct SegmentFile {
    path: PathBuf,
    bytes: u64,
    folder: Arc<AtomicU64>,
}

/// Which block a record holds.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    pub unit: u64,
    pub layer: u32,
}

/// Where one block lies.
#[derive(Clone, Debug)]
pub struct Place {
    file: Arc<SegmentFile>,
    /// Of the record.
    offset: u64,
    label: Label,
    pub form: Form,
    crc: u32,
}

impl Folder {
    /// A new folder in `parent`, which is made if it is not there.
    pub fn create(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        // One at a time, so that no folder is seen between being made and being locked. Where there are
        // no locks, nothing is taken for an orphan.
        let gate = locked(parent);
        if gate.is_some() {
            remove_orphans(parent);
        }
        let dir = tempfile::Builder::new().prefix(FOLDER).tempdir_in(parent)?;
        let lock = gate.as_ref().and_then(|_| locked(dir.path()));
        Ok(Self { dir, _lock: lock, files: 0, bytes: Arc::default() })
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Writes blocks into a new file; all of them or, where the disk is full, none.
    pub fn write(&mut self, blocks: &[(Label, &Packed)]) -> io::Result<Vec<Place>> {
        let path = self.dir.path().join(format!("{}{:06}{}", FILE.0, self.files, FILE.1));
        self.files += 1;
        let bytes = blocks.iter().map(|(_, packed)| HEADER + packed.bytes.len() as u64).sum();
        let out = File::create_new(&path)?;
        // From here on the file goes where anything fails.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let file = Arc::new(SegmentFile { path, bytes, folder: Arc::clone(&self.bytes) });
        let mut out = BufWriter::new(out);
        let mut places = Vec::with_capacity(blocks.len());
        let mut offset = 0;
        for &(label, packed) in blocks {
            let crc = crc32fast::hash(&packed.bytes);
            let place = Place { file: Arc::clone(&file), offset, label, form: packed.form, crc };
            out.write_all(&place.header())?;
            out.write_all(&packed.bytes)?;
            offset += HEADER + packed.bytes.len() as u64;
            places.push(place);
        }
        out.flush()?;
        Ok(places)
    }
}

/// A folder, locked for this process once nobody else holds it; `None` where that cannot be had.
fn locked(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

/// Removes what streams have left whose process is gone: their segment files, and their folder if
/// nothing else is in it. What cannot be read or removed stays.
fn remove_orphans(parent: &Path) {
    let is_named = |entry: &DirEntry, (begin, end): (&str, &str)| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with(begin) && name.ends_with(end))
    };
    let list = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    for entry in list(parent).filter(|entry| is_named(entry, (FOLDER, ""))) {
        let Ok(folder) = File::open(entry.path()) else { continue };
        if folder.try_lock().is_err() {
            continue;
        }
        for file in list(&entry.path()).filter(|file| is_named(file, FILE)) {
            let _ = fs::remove_file(file.path());
        }
        let _ = fs::remove_dir(entry.path());
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        // It may be gone already; the folder's own removal comes behind.
        let _ = fs::remove_file(&self.path);
        self.folder.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Place {
    fn header(&self) -> Vec<u8> {
        let Form { codec, dtype, shape } = self.form;
        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.push(match codec {
            Codec::F32 => 0,
            Codec::F16 => 1,
            Codec::Bf16 => 2,
            Codec::Q8 => 3,
            Codec::Q4 => 4,
            Codec::Q2 => 5,
        });
        header.push(match dtype {
            DType::F16 => 1,
            DType::BF16 => 2,
            _ => 0,
        });
        header.extend(self.label.unit.to_le_bytes());
        header.extend(self.label.layer.to_le_bytes());
        for size in [shape.heads, shape.tokens, shape.dim] {
            header.extend((size as u32).to_le_bytes());
        }
        header.extend(self.payload().to_le_bytes());
        header.extend(self.crc.to_le_bytes());
        header
    }

    /// Whether both lie in one file.
    pub fn is_beside(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }

    /// Bytes of its keys and values.
    pub fn payload(&self) -> u64 {
        self.form.codec.bytes(self.form.shape) as u64
    }

    /// Maps the block's record and hands out its payload, once header and checksum are right.
    ///
    /// # Errors
    /// What is wrong with the file, with its name.
    pub fn read<T>(&self, take: impl FnOnce(&[u8]) -> T) -> Result<T, Damage> {
        let path = || self.file.path.clone();
        let damage = |reason: String| Damage { path: path(), reason, all: false };
        let file = File::open(&self.file.path).map_err(|e| Damage {
            path: path(),
            reason: format!("cannot be opened: {e}"),
            all: true,
        })?;
        let length = file.metadata().map_err(|e| damage(e.to_string()))?.len();
        let record = HEADER + self.payload();
        if length < self.offset + record {
            return Err(damage(format!("has {length} bytes and should have {}", self.file.bytes)));
        }
        // SAFETY: the file is this stream's own, in a folder of its own, written once and mapped
        // for the length of this call; its length was looked at just now.
        let map = unsafe { MmapOptions::new().offset(self.offset).len(record as usize).map(&file) };
        let map = map.map_err(|e| damage(format!("cannot be mapped: {e}")))?;
        let (header, payload) = map.split_at(HEADER as usize);
        if header != self.header() {
            return Err(damage(format!("has another header at byte {}", self.offset)));
        }
        if crc32fast::hash(payload) != self.crc {
            return Err(damage(format!("has a wrong checksum at byte {}", self.offset)));
        }
        Ok(take(payload))
    }
}

/// A segment file that is not what was written.
#[derive(Debug)]
pub struct Damage {
    pub path: PathBuf,
    pub reason: String,
    /// All of it, not this block alone.
    pub all: bool,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::memory::kv::Kv;
    use crate::memory::store::codec::encode;
    use crate::memory::testing::random_tensor;

    fn packed(seed: u64, codec: Codec) -> Packed {
        let tensor = |seed| random_tensor(seed, (2, 9, 8));
        encode(codec, &Kv { k: tensor(seed), v: tensor(seed + 1) }).unwrap()
    }

    fn written(parent: &Path) -> (Folder, Vec<Packed>, Vec<Place>) {
        let mut folder = Folder::create(parent).unwrap();
        let blocks: Vec<Packed> =
            Codec::ALL.iter().enumerate().map(|(i, &codec)| packed(i as u64, codec)).collect();
        let labelled: Vec<(Label, &Packed)> = blocks
            .iter()
            .enumerate()
            .map(|(i, packed)| (Label { unit: i as u64 / 2, layer: i as u32 % 2 }, packed))
            .collect();
        let places = folder.write(&labelled).unwrap();
        (folder, blocks, places)
    }

    #[test]
    fn what_was_written_is_read() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, blocks, places) = written(parent.path());
        for (block, place) in blocks.iter().zip(&places) {
            assert_eq!(place.header().len() as u64, HEADER);
            assert_eq!(place.form, block.form);
            assert!(place.read(|bytes| bytes == block.bytes).unwrap());
        }
        let length = fs::metadata(&places[0].file.path).unwrap().len();
        assert_eq!((length, folder.bytes()), (places[0].file.bytes, length));
    }

    #[test]
    fn every_kind_of_damage_is_noticed_and_named() {
        let parent = tempfile::tempdir().unwrap();
        let (_folder, _, places) = written(parent.path());
        let (first, last) = (&places[0], places.last().unwrap());
        let path = &first.file.path;
        let whole = fs::read(path).unwrap();
        let spoil = |at: u64| {
            fs::write(path, &whole).unwrap();
            let byte = !whole[at as usize];
            File::options().write(true).open(path).unwrap().write_at(&[byte], at).unwrap();
        };
        let reason = |place: &Place| {
            let damage = place.read(|_| ()).unwrap_err();
            assert_eq!(&damage.path, path);
            damage.reason
        };
        spoil(0);
        assert!(reason(first).contains("header"));
        assert!(last.read(|_| ()).is_ok(), "the others are whole");
        spoil(HEADER);
        assert!(reason(first).contains("checksum"));
        File::options().write(true).open(path).unwrap().set_len(whole.len() as u64 - 1).unwrap();
        assert!(reason(last).contains("bytes"));
        fs::remove_file(path).unwrap();
        assert!(reason(first).contains("opened"));
    }

    #[test]
    fn files_go_with_their_last_block_and_the_folder_with_the_stream() {
        let parent = tempfile::tempdir().unwrap();
        let count = |path: &Path| fs::read_dir(path).unwrap().count();
        let (folder, _, mut places) = written(parent.path());
        let other = Folder::create(parent.path()).unwrap();
        assert_eq!(count(parent.path()), 2, "streams do not share a folder");
        while places.pop().is_some() {
            assert_eq!(count(folder.dir.path()), usize::from(!places.is_empty()));
        }
        drop((folder, other));
        assert_eq!(count(parent.path()), 0);
    }
}
