//! What is in the way of a file, and what can be said of a path without opening it.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::io::Errno;

/// Why a file is not opened.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// It is not there.
    Missing,
    /// As many are open as may be.
    NoHandle,
    /// As many of this path are open as may be.
    NoRoom(usize),
    /// Something else, in words.
    Other(String),
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Obstacle {
        match error.kind() {
            io::ErrorKind::NotFound => Obstacle::Missing,
            io::ErrorKind::PermissionDenied => {
                Obstacle::Other("permission denied: grant logship's user read access".to_owned())
            }
            _ if is_out_of_handles(&error) => Obstacle::NoHandle,
            _ => Obstacle::Other(error.to_string()),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Missing => write!(f, "it does not exist"),
            Obstacle::NoHandle => write!(f, "too many files are open (open_files_max)"),
            Obstacle::NoRoom(open) => write!(
                f,
                "{open} rotated files are still open (open_generations_max): waiting before the next one is opened"
            ),
            Obstacle::Other(problem) => write!(f, "{problem}"),
        }
    }
}

pub(super) fn is_out_of_handles(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    code.is_some_and(|code| [Errno::MFILE, Errno::NFILE].contains(&code))
}

/// Says why what stands at a path cannot be tailed, if it never can be: a
/// directory, a device. A path that is missing or not readable may change.
///
/// # Errors
/// What it is, and what to do instead.
pub fn check_path(path: &Path) -> Result<(), String> {
    fs::metadata(path).map_or(Ok(()), |meta| check_kind(&meta))
}

/// Says why what stands at a path cannot be tailed now.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn check_file(path: &Path) -> Result<(), String> {
    let meta = fs::metadata(path).map_err(|error| Obstacle::from(error).to_string())?;
    check_kind(&meta)
}

pub(super) fn check_kind(meta: &Metadata) -> Result<(), String> {
    let kind = meta.file_type();
    if kind.is_file() {
        Ok(())
    } else if kind.is_dir() {
        Err("it is a directory; name the files in it, for example with '/*.log' added".to_owned())
    } else if kind.is_fifo() {
        Err("it is a FIFO; read it into a pipe: logship tail - < FIFO".to_owned())
    } else if kind.is_socket() {
        Err(
            "it is a socket; let its writer write to a file, or to a pipe: logship tail -"
                .to_owned(),
        )
    } else {
        Err("it is a device; read it into a pipe: logship tail - < DEVICE".to_owned())
    }
}

/// True when the directory of a path is there, on the device it was on if that is
/// known: a volume that is not mounted yet has lost nothing.
pub fn is_reachable(path: &Path, device: Option<u64>) -> bool {
    let directory = path.parent().and_then(|parent| fs::metadata(parent).ok());
    directory.is_some_and(|meta| device.is_none_or(|device| device == meta.dev()))
}

/// True when this file stands at a path now.
pub fn stands_at(meta: &Metadata, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino()))
}
