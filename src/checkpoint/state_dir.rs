//! The state directory: where logship remembers, and one logship at a time.
//!
//! It is made on demand and locked while it is in use. The lock is the
//! kernel's, so a killed process leaves none behind. What the files in it mean
//! is not known here.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::text::shown;

const LOCK: &str = "lock";

/// A state directory that this process holds.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
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
        // A directory without write permission would only fail at the first save.
        let probe = path.join("probe");
        File::create(&probe)
            .and_then(|_| fs::remove_file(&probe))
            .map_err(unusable)?;
        Ok(StateDir {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
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
