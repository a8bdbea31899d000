// SPDX-License-Identifier: MPL-2.0
//! Replacing a file as a whole, and who may.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::records::{Writer, unwritten};
use crate::error::{EngineError, Result};

/// The name of a file with something behind it.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(end);
    path.with_file_name(name)
}

/// The folder that a file lies in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that nobody else may read: what a camera has seen is nobody else's business.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Whether somebody else holds a file locked; if not, this process does from now on. Where there are no
/// locks, nobody does.
fn is_anothers(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The file of this name, locked; `None` where somebody else holds it. Whoever had it may have removed or
/// renamed it since it was opened, and then what was locked is no longer the file of this name.
fn locked(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = create(path)?;
        if is_anothers(&file)? {
            return Ok(None);
        }
        if is_at(&file, path) {
            return Ok(Some(file));
        }
    }
}

/// Writes a file beside one and puts it in its place: whoever looks finds the old or the new one, whole,
/// also behind a loss of power.
pub(super) fn replace(
    path: &Path,
    write: impl FnOnce(Writer) -> Result<(File, u64)>,
) -> Result<u64> {
    let fault = |error: io::Error| unwritten(path, &error);
    let fresh = beside(path, ".tmp");
    // What a killed process left is overwritten; what a living one writes is not.
    let file = locked(&fresh).map_err(fault)?;
    let file = file.ok_or_else(|| fault(io::Error::other("somebody else is saving to it")))?;
    let put = || -> Result<u64> {
        file.set_len(0).map_err(fault)?;
        let (file, bytes) = write(Writer::new(file, path)?)?;
        file.sync_all().map_err(fault)?;
        fs::rename(&fresh, path).map_err(fault)?;
        // The new name has to reach the disk as well; not every file system knows that of folders.
        if let Ok(folder) = File::open(folder(path)) {
            let _ = folder.sync_all();
        }
        Ok(bytes)
    };
    put().inspect_err(|_| {
        let _ = fs::remove_file(&fresh);
    })
}

/// A file that one stream saves to and no other, held as long as the stream.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Claim {
    /// # Errors
    /// [`EngineError::Snapshot`] where another stream has it, or nothing can be written there.
    pub fn of(path: &Path) -> Result<Self> {
        let refused = |reason: String| EngineError::Snapshot { path: path.to_owned(), reason };
        if path.is_dir() || path.file_name().is_none() {
            return Err(refused(
                "is a folder; name a file, for instance camera.memory in it".into(),
            ));
        }
        if !folder(path).is_dir() {
            return Err(refused(format!(
                "cannot be written, since there is no folder {}; make it or name another place",
                folder(path).display()
            )));
        }
        let lock = beside(path, ".lock");
        let held = locked(&lock).map_err(|error| unwritten(path, &error))?;
        let Some(held) = held else {
            let reason = "is another stream's, which runs; each needs a file of its own";
            return Err(refused(reason.into()));
        };
        let _ = fs::remove_file(beside(path, ".tmp"));
        Ok(Self { path: path.to_owned(), lock, _held: held })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.lock);
    }
}

/// Whether an open file is the one of this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(named)) => place(file) == place(named),
        _ => false,
    }
}

/// Elsewhere an open file keeps its name.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}
