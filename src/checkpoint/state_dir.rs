//! The state directory: where logship remembers, and one logship at a time.
//!
//! It is made on demand and locked while it is in use. The lock is the
//! kernel's, so a killed process leaves none behind. What the files in it mean
//! is not known here.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::text::shown;

const LOCK: &str = "lock";

/// A state directory that this process holds.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    // A lock and not a message: the directory is shared, and only the checkpoint's
    // thread ever looks at it. Nobody waits for it.
    lock: Mutex<File>,
    used_before: bool,
}

/// What became of the directory since it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is where it was, with our lock in it.
    Kept,
    /// It, or the lock in it, was taken away; it was made and locked again.
    Anew,
}

/// Why a state directory cannot be used.
#[derive(Debug)]
pub enum StateError {
    /// It cannot be made or written.
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds it.
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process id of the holder, if it could be read.
        holder: Option<u32>,
    },
}

impl StateDir {
    /// Makes the directory if need be (mode 0700) and locks it.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        let unusable = |source| StateError::Unusable {
            path: path.to_owned(),
            source,
        };
        let used_before = fs::metadata(path.join(LOCK)).is_ok_and(|meta| meta.len() > 0);
        let lock = take(path)?;
        // A directory without write permission would only fail at the first save.
        let probe = path.join("probe");
        File::create(&probe)
            .and_then(|_| fs::remove_file(&probe))
            .map_err(unusable)?;
        Ok(StateDir {
            path: path.to_owned(),
            lock: Mutex::new(lock),
            used_before,
        })
    }

    /// Makes sure that this process still is the one that holds the directory: a
    /// lock whose file was taken away keeps nobody out.
    ///
    /// # Errors
    /// When it is somebody else's by now, or cannot be made again.
    pub fn hold_on(&self) -> Result<Hold, StateError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let there = fs::metadata(self.path.join(LOCK)).map(identity);
        let ours = lock.metadata().map(identity);
        if let (Ok(there), Ok(ours)) = (there, ours)
            && there == ours
        {
            return Ok(Hold::Kept);
        }
        *lock = take(&self.path)?;
        Ok(Hold::Anew)
    }

    /// True when another process has held it before.
    pub fn was_used_before(&self) -> bool {
        self.used_before
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The lock of a directory, which is made if need be.
fn take(path: &Path) -> Result<File, StateError> {
    let unusable = |source| StateError::Unusable {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(unusable)?;
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK))
        .map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StateError::InUse {
                path: path.to_owned(),
                holder: holder(&mut lock),
            });
        }
        Err(TryLockError::Error(source)) => return Err(unusable(source)),
    }
    write_pid(&mut lock).map_err(unusable)?;
    Ok(lock)
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    lock.rewind()?;
    lock.write_all(text.as_bytes())?; // over the old one: a full disk has room for that
    lock.set_len(text.len() as u64)
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Unusable { path, source } => {
                write!(f, "cannot use state directory '{}': {source}", shown(path))
            }
            StateError::InUse { path, holder } => {
                write!(f, "state directory '{}' is in use", shown(path))?;
                match holder {
                    Some(pid) => write!(f, " by another logship with pid {pid}"),
                    None => write!(f, " by another logship"),
                }
            }
        }
    }
}

impl std::error::Error for StateError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let temp = tempfile::tempdir().unwrap();
        let first = StateDir::open(temp.path()).unwrap();
        let second = StateDir::open(temp.path()).unwrap_err().to_string();
        assert!(second.contains(&std::process::id().to_string()), "{second}");
        drop(first);
        StateDir::open(temp.path()).unwrap();
    }

    #[test]
    fn a_directory_below_a_file_is_refused_with_its_path() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let path = temp.path().join("below");
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
    }
}
