// SPDX-License-Identifier: MPL-2.0
//! The file: little-endian, one record behind the other.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `SKVQAMEM` |
//! | 4 | version of the format, 1 |
//! | .. | records; the last one is a count of those before it, and nothing comes behind |
//!
//! | bytes of a record | content |
//! |---|---|
//! | 8 | length of what follows the checksum |
//! | 4 | CRC-32 of that length and of what follows |
//! | 4, .. | length of the head, and the head, in CBOR |
//! | .. | what is no head: values of a tensor, a block as the store's codec has it |
//!
//! Each record is read and checked by itself, so reading takes no more memory than what it reads, and a
//! file of which the end is missing is known by that.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::View;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};

const MAGIC: &[u8; 8] = b"SKVQAMEM";
const VERSION: u32 = 1;
const BUFFER: usize = 1 << 20;

const WHOLE: &str = "nothing was read from it and it stays as it is. Put a copy of it back, or move it \
                     away to begin with an empty memory";

#[derive(Serialize, Deserialize)]
struct End {
    records: u64,
}

#[derive(Serialize, Deserialize)]
struct Form {
    dtype: String,
    shape: Vec<usize>,
}

/// A file that is being written.
pub struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
    records: u64,
    bytes: u64,
}

impl Writer {
    /// `path`: what it is to become, for messages.
    pub(super) fn new(file: File, path: &Path) -> Result<Self> {
        let out = BufWriter::with_capacity(BUFFER, file);
        let mut writer = Self { path: path.to_owned(), out, records: 0, bytes: 0 };
        writer.put(MAGIC)?;
        writer.put(&VERSION.to_le_bytes())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        let written = self.out.write_all(bytes);
        written.map_err(|error| unwritten(&self.path, &error))
    }

    /// A head, and bytes that belong to it.
    pub fn record(&mut self, head: &impl Serialize, tail: &[u8]) -> Result<()> {
        let mut front = vec![0; 4];
        ciborium::into_writer(head, &mut front)
            .map_err(|error| unwritten(&self.path, &std::io::Error::other(error.to_string())))?;
        let length = (front.len() - 4) as u32;
        front[..4].copy_from_slice(&length.to_le_bytes());
        let all = ((front.len() + tail.len()) as u64).to_le_bytes();
        let mut crc = crc32fast::Hasher::new();
        [&all[..], &front, tail].iter().for_each(|bytes| crc.update(bytes));
        self.put(&all)?;
        self.put(&crc.finalize().to_le_bytes())?;
        self.put(&front)?;
        self.put(tail)?;
        self.records += 1;
        Ok(())
    }

    pub fn value(&mut self, value: &impl Serialize) -> Result<()> {
        self.record(value, &[])
    }

    pub fn tensor(&mut self, tensor: &Tensor) -> Result<()> {
        let here = tensor.to_device(&Device::Cpu)?.contiguous()?;
        let form = Form { dtype: here.dtype().as_str().into(), shape: here.dims().to_vec() };
        self.record(&form, &View::data(&here))
    }

    /// Says that this is all; the file, to be brought to the disk, and its bytes.
    pub(super) fn end(mut self) -> Result<(File, u64)> {
        let records = self.records;
        self.value(&End { records })?;
        let file = self.out.into_inner().map_err(|e| unwritten(&self.path, e.error()))?;
        Ok((file, self.bytes))
    }
}

/// Why a file could not be written.
pub(super) fn unwritten(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::Snapshot {
        path: path.to_owned(),
        reason: format!(
            "cannot be written ({error}); what was saved there before is untouched. Make room or name \
             another place"
        ),
    }
}

/// A file that is being read, record by record as they were written.
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    /// Bytes that are not read yet.
    left: u64,
    at: u64,
    records: u64,
}

impl Reader {
    /// # Errors
    /// [`EngineError::Read`] for a file that is not there or cannot be opened,
    /// [`EngineError::Snapshot`] for one that is of another kind or format.
    pub fn open(path: &Path) -> Result<Self> {
        let unread = |source| EngineError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unread)?;
        let meta = file.metadata().map_err(unread)?;
        let refused = |reason: String| EngineError::Snapshot { path: path.to_owned(), reason };
        if !meta.is_file() {
            return Err(refused("is no file; name one, for instance camera.memory in it".into()));
        }
        let file = BufReader::with_capacity(BUFFER, file);
        let mut reader = Self { path: path.to_owned(), file, left: meta.len(), at: 0, records: 0 };
        let foreign =
            || refused("holds no memory of a stream; it stays as it is. Name another file".into());
        if meta.len() < MAGIC.len() as u64 || reader.take::<8>()? != *MAGIC {
            return Err(foreign());
        }
        let version = u32::from_le_bytes(reader.take()?);
        if version != VERSION {
            return Err(refused(format!(
                "has format {version}, and this version reads format {VERSION}; it stays as it is. Go on \
                 with the version that wrote it, or name another file"
            )));
        }
        Ok(reader)
    }

    /// What is wrong with the content, and that nothing of it is used.
    pub fn damage(&self, what: &str) -> EngineError {
        EngineError::Snapshot {
            path: self.path.clone(),
            reason: format!("is damaged ({what} at byte {}); {WHOLE}", self.at),
        }
    }

    /// A file that is whole and does not belong here, and what to do.
    pub fn refuse(&self, reason: String) -> EngineError {
        EngineError::Snapshot { path: self.path.clone(), reason }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        if (bytes.len() as u64) > self.left {
            return Err(self.damage("its end is missing"));
        }
        if let Err(error) = self.file.read_exact(bytes) {
            return Err(self.damage(&error.to_string()));
        }
        self.left -= bytes.len() as u64;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The next head, and the bytes that belong to it.
    ///
    /// # Errors
    /// [`EngineError::Snapshot`] where the file is not what was written.
    pub fn record<T: DeserializeOwned>(&mut self) -> Result<(T, Vec<u8>)> {
        let length: [u8; 8] = self.take()?;
        let crc = u32::from_le_bytes(self.take()?);
        let all = u64::from_le_bytes(length);
        if all > self.left {
            return Err(self.damage("its end is missing"));
        }
        let mut content = vec![0; usize::try_from(all).unwrap_or(usize::MAX)];
        self.fill(&mut content)?;
        let mut found = crc32fast::Hasher::new();
        found.update(&length);
        found.update(&content);
        if found.finalize() != crc {
            return Err(self.damage("a wrong checksum"));
        }
        let head = content.first_chunk().map_or(usize::MAX, |n| u32::from_le_bytes(*n) as usize);
        let Some(end) = head.checked_add(4).filter(|end| *end <= content.len()) else {
            return Err(self.damage("a record without a head"));
        };
        let tail = content.split_off(end);
        let Ok(head) = ciborium::from_reader(content.get(4..).unwrap_or_default()) else {
            return Err(self.damage("another record than expected"));
        };
        self.at += 12 + all;
        self.records += 1;
        Ok((head, tail))
    }

    /// # Errors
    /// As [`record`](Self::record).
    pub fn value<T: DeserializeOwned>(&mut self) -> Result<T> {
        let (value, tail) = self.record()?;
        if tail.is_empty() { Ok(value) } else { Err(self.damage("another record than expected")) }
    }

    /// A tensor, there.
    ///
    /// # Errors
    /// As [`record`](Self::record), or what the computation fails with.
    pub fn tensor(&mut self, device: &Device) -> Result<Tensor> {
        let (Form { dtype, shape }, bytes) = self.record()?;
        let dtype = DType::from_str(&dtype).ok();
        let fits = |dtype: &DType| {
            let elements = shape.iter().try_fold(1usize, |all, &n| all.checked_mul(n));
            elements.and_then(|n| n.checked_mul(dtype.size_in_bytes())) == Some(bytes.len())
        };
        match dtype.filter(fits) {
            Some(dtype) => Ok(Tensor::from_raw_buffer(&bytes, dtype, &shape, device)?),
            None => Err(self.damage("another tensor than expected")),
        }
    }

    /// Says that this was all.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn end(mut self) -> Result<()> {
        let before = self.records;
        let End { records } = self.value()?;
        if records != before || self.left > 0 {
            return Err(self.damage("more than was written"));
        }
        Ok(())
    }
}
