// SPDX-License-Identifier: MPL-2.0
//! Reading the files of a model's folder: JSON and text of a sane size, and which files hold the
//! weights.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{EngineError, Result};

/// A JSON or text file larger than this is not a model's.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// The text of a file of the folder.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let read = |path: &Path| -> std::io::Result<String> {
        let size = std::fs::metadata(path)?.len();
        if size > MAX_TEXT_BYTES {
            let message = format!("{size} bytes are too many for a file of this kind");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
        }
        std::fs::read_to_string(path)
    };
    read(path).map_err(|source| EngineError::Read { path: path.to_owned(), source })
}

/// A JSON file; `None` if there is none.
pub(crate) fn read_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse_json(path, &read_text(path)?)
}

pub(crate) fn parse_json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| EngineError::Checkpoint {
        path: path.to_owned(),
        reason: format!("not the JSON expected here: {e}"),
    })
}

pub(crate) const INDEX: &str = "model.safetensors.index.json";
pub(crate) const SINGLE: &str = "model.safetensors";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The names of the files of a sharded checkpoint; `None` if the folder has no index.
pub(crate) fn index_files(dir: &Path) -> Result<Option<Vec<String>>> {
    let index = dir.join(INDEX);
    let Some(Index { weight_map }) = read_optional(&index)? else { return Ok(None) };
    let fault = |reason: String| Err(EngineError::Checkpoint { path: index.clone(), reason });
    let mut names: Vec<_> = weight_map.into_values().collect();
    names.sort();
    names.dedup();
    // A shard lies in the folder itself: a path that leads elsewhere is not followed.
    if let Some(name) =
        names.iter().find(|n| Path::new(n).components().count() != 1 || n.starts_with('.'))
    {
        return fault(format!("`{name}` is not the name of a file in this folder"));
    }
    if names.is_empty() {
        return fault("the weight map is empty".into());
    }
    Ok(Some(names))
}

/// The folder's safetensors files, by the index or the usual name.
pub(crate) fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    if let Some(names) = index_files(dir)? {
        return Ok(names.into_iter().map(|name| dir.join(name)).collect());
    }
    let single = dir.join(SINGLE);
    if single.exists() {
        return Ok(vec![single]);
    }
    Err(EngineError::Checkpoint {
        path: dir.to_owned(),
        reason: format!(
            "no weights; expected {SINGLE} or {INDEX} (PyTorch .bin files are not read)"
        ),
    })
}

/// What decides, beside the weights, which numbers a model makes of a picture. What belongs to answers
/// alone is not among it.
const DECIDING: [&str; 5] = [
    "config.json",
    "tokenizer.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
];

/// A name for what a folder's model is, whatever the folder is called: a checksum of its files and the bytes
/// they have. All of them are read.
pub(crate) fn fingerprint(dir: &Path) -> Result<String> {
    let deciding = DECIDING.iter().map(|name| dir.join(name)).filter(|path| path.exists());
    let files: Vec<PathBuf> = deciding.chain(weight_files(dir)?).collect();
    let sums = files
        .par_iter()
        .map(|path| sum(path).map_err(|source| EngineError::Read { path: path.clone(), source }));
    let (mut crc, mut bytes) = (crc32fast::Hasher::new(), 0);
    for (own, length) in sums.collect::<Result<Vec<_>>>()? {
        crc.update(&own.to_le_bytes());
        bytes += length;
    }
    Ok(format!("{:08x}-{bytes}", crc.finalize()))
}

/// The CRC-32 of a file, and its length.
fn sum(path: &Path) -> std::io::Result<(u32, u64)> {
    let (mut file, mut crc, mut buffer) =
        (File::open(path)?, crc32fast::Hasher::new(), vec![0; 1 << 20]);
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((crc.finalize(), length)),
            n => {
                crc.update(&buffer[..n]);
                length += n as u64;
            }
        }
    }
}
