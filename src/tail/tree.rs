//! What stands in directories, read again only when they change.
//!
//! A directory's own modification time says whether names were added or removed.
//! It does not match patterns and does not look at the files.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listing::Stamp;

/// Some file systems do not keep the time of directories: after this long they
/// are read again whatever it says.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A symbolic link, to whatever.
    Link,
    /// A directory.
    Directory,
    /// Anything else: it is never tailed.
    Other,
}

/// Names in a directory, sorted.
pub type Names = Arc<[(OsString, Kind)]>;

/// The directories that were asked for.
#[derive(Debug, Default)]
pub struct Tree {
    directories: HashMap<PathBuf, Directory>,
    round: u64,
    versions: u64,
    troubles: Vec<(PathBuf, io::Error)>,
}

#[derive(Debug)]
struct Directory {
    /// `None` when it was not there.
    stamp: Option<Stamp>,
    settled: bool,
    read: Instant,
    names: Names,
    /// Another number for every other content.
    version: u64,
    /// When it was last asked whether it changed.
    round: u64,
}

impl Kind {
    /// What the file system says.
    pub fn of(kind: FileType) -> Kind {
        if kind.is_file() {
            Kind::File
        } else if kind.is_symlink() {
            Kind::Link
        } else if kind.is_dir() {
            Kind::Directory
        } else {
            Kind::Other
        }
    }
}

impl Tree {
    /// From now on every directory is asked once more whether it changed.
    pub fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Forgets directories that nobody asked for in this round.
    pub fn end_round(&mut self) {
        let round = self.round;
        self.directories
            .retain(|_, directory| directory.round == round);
        self.troubles.clear();
    }

    /// Directories that could not be read in this round.
    pub fn troubles(&mut self) -> Vec<(PathBuf, io::Error)> {
        std::mem::take(&mut self.troubles)
    }

    /// A number that is another one when the names in the directory are.
    pub fn version(&mut self, path: &Path) -> u64 {
        self.list(path).0
    }

    /// The names in a directory. One that cannot be read has none.
    pub fn list(&mut self, path: &Path) -> (u64, Names) {
        let known = self.directories.get_mut(path);
        if let Some(known) = known {
            if known.round == self.round {
                return (known.version, Arc::clone(&known.names));
            }
            known.round = self.round;
            let fresh = known.settled && known.read.elapsed() < READ_AGAIN_AFTER;
            if fresh && known.stamp == Stamp::of(path) {
                return (known.version, Arc::clone(&known.names));
            }
        }
        self.read(path)
    }

    fn read(&mut self, path: &Path) -> (u64, Names) {
        // First the time, then the names: what comes in between shows next time.
        let stamp = Stamp::of(path);
        let names = read_names(path);
        let readable = names.is_ok(); // what is in the way may go without a trace
        let names: Names = match names {
            Ok(names) => names.into(),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.troubles.push((path.to_owned(), error));
                }
                Arc::from([])
            }
        };
        let old = self.directories.remove(path);
        let version = match &old {
            Some(old) if old.names == names => old.version,
            _ => {
                self.versions += 1;
                self.versions
            }
        };
        let directory = Directory {
            settled: readable && stamp.is_some_and(|stamp| stamp.is_settled()),
            stamp,
            read: Instant::now(),
            names: Arc::clone(&names),
            version,
            round: self.round,
        };
        self.directories.insert(path.to_owned(), directory);
        (version, names)
    }
}

fn read_names(path: &Path) -> io::Result<Vec<(OsString, Kind)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)?.flatten() {
        if let Ok(kind) = entry.file_type() {
            names.push((entry.file_name(), Kind::of(kind)));
        }
    }
    names.sort();
    Ok(names)
}
