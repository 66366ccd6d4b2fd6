//! Where the files of a path are after a rotation: in the same directory, under
//! other names.
//!
//! It opens nothing and decides nothing; it only looks for inodes, names and sizes.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::input::{CLOCK_TICK, Look};
use super::listing::{Listing, Listings};
use crate::ledger::{Entry, Origin};

/// How long a renamed file is looked at that its writer may go on with.
pub const FORMER_FOR: Duration = Duration::from_secs(3600);
/// Files of a path that are looked at so.
pub const FORMER_MAX: usize = 32;

/// A file that was renamed, read to its end and let go. Its writer may not have
/// noticed, and go on with it.
#[derive(Debug, Clone)]
pub struct Former {
    entry: Entry,
    path: PathBuf,
    /// What the last look at it told before it was let go, if that is known: there may be room
    /// behind what was read.
    left: Option<Look>,
    until: SystemTime,
}

/// What became of such a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing was written to it.
    Quiet,
    /// There is more in it than was read.
    Grown,
    /// It is not there any more, or it was quiet for long enough.
    Over,
}

impl Former {
    /// One that is at `path` now.
    pub fn new(entry: Entry, path: PathBuf) -> Former {
        let seen = UNIX_EPOCH + Duration::from_secs(entry.seen);
        Former {
            entry,
            path,
            left: None,
            until: seen + FORMER_FOR,
        }
    }

    /// One that was found at `path` just now.
    pub fn just_seen(entry: Entry, path: PathBuf) -> Former {
        Former {
            entry,
            path,
            left: None,
            until: SystemTime::now() + FORMER_FOR,
        }
    }

    /// All that this look told of is read.
    pub fn left_at(self, look: Look) -> Former {
        Former {
            left: Some(look),
            ..self
        }
    }

    /// What is known of it.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Looks at it: one stat, and a search when it was renamed once more.
    pub fn look(&mut self, listings: &Listings) -> Fate {
        let origin = &self.entry.origin;
        let same = |meta: &Metadata| (meta.dev(), meta.ino()) == (origin.device, origin.inode);
        let meta = match fs::metadata(&self.path).ok().filter(same) {
            Some(meta) => meta,
            None => match whereabouts(listings, origin) {
                Some((path, meta)) => {
                    self.path = path;
                    meta
                }
                None => return Fate::Over,
            },
        };
        let is_as_left = self.left == Some(Look::at(&meta));
        if meta.len() > self.entry.position && !is_as_left {
            Fate::Grown
        } else if SystemTime::now() > self.until {
            Fate::Over
        } else {
            Fate::Quiet
        }
    }
}

/// Where a file is now that had a path: beside it, or beside what it led to if it
/// was a link.
pub fn whereabouts(listings: &Listings, origin: &Origin) -> Option<(PathBuf, Metadata)> {
    let beside = |path: &Path| {
        let listing = listings.of(path.parent()?);
        with_inode(&listing, origin.device, origin.inode)
    };
    beside(&origin.path).or_else(|| beside(origin.real.as_deref()?))
}

/// Where in a directory a file with an inode is now. Only what has its number is
/// looked at: a directory may be large.
pub fn with_inode(listing: &Listing, device: u64, inode: u64) -> Option<(PathBuf, Metadata)> {
    listing.with_inode(inode).find_map(|path| {
        let meta = fs::symlink_metadata(&path).ok()?;
        let found = meta.is_file() && (meta.dev(), meta.ino()) == (device, inode);
        found.then_some((path, meta))
    })
}

/// Files with names that a rotation of `path` gives, oldest first, which were
/// created after `since`: they had the path when nobody looked. None where the
/// file system does not know when a file was created.
pub fn created_since(
    listings: &Listings,
    path: &Path,
    since: SystemTime,
) -> Vec<(PathBuf, Metadata)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let since = since - CLOCK_TICK;
    let listing = listings.of(directory);
    let rotated = listing
        .beginning_with(name)
        .filter(|other| is_rotation_of(path, other));
    let files =
        rotated.filter_map(|path| fs::symlink_metadata(&path).ok().map(|meta| (path, meta)));
    let new = |meta: &Metadata| meta.created().is_ok_and(|created| created >= since);
    let mut files: Vec<_> = files
        .filter(|(_, meta)| meta.is_file() && new(meta))
        .collect();
    // Of those created within a tick of the clock, the greater number is the older file.
    files.sort_by_key(|(path, meta)| (meta.created().ok(), Reverse(count_in(name, path))));
    files
}

/// The count that `app.log.3` has of `app.log`. A date is none: of two, the greater is
/// the younger, and they are a day apart.
fn count_in(name: &OsStr, rotated: &Path) -> Option<u16> {
    let rotated = rotated.file_name()?.as_encoded_bytes();
    let rest = rotated.strip_prefix(name.as_encoded_bytes())?;
    let digits = std::str::from_utf8(rest.get(1..)?).ok()?;
    digits.parse().ok().filter(|_| digits.len() <= 4)
}

/// True for a path with a name that a rotation of `path` gives.
pub fn is_rotation_of(path: &Path, other: &Path) -> bool {
    let names = path.file_name().zip(other.file_name());
    names.is_some_and(|(name, other)| is_rotated(name, other))
}

/// True for `app.log.1`, `app.log-20261121` and the like of `app.log`. One with
/// letters behind it, `app.log.gz`, `app.log.lock`, is another file.
fn is_rotated(name: &OsStr, other: &OsStr) -> bool {
    let rest = other
        .as_encoded_bytes()
        .strip_prefix(name.as_encoded_bytes());
    rest.is_some_and(|rest| {
        rest.iter().any(u8::is_ascii_digit)
            && rest[0].is_ascii_punctuation()
            && rest
                .iter()
                .all(|byte| byte.is_ascii_digit() || b".-_:+TZ".contains(byte))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::ledger::Mark;
    use crate::tail::input::created_ns;

    /// What was written between the last look at a file and its letting go would not be read
    /// for an hour, if the file counted as left with it.
    #[test]
    fn a_file_that_was_let_go_with_room_has_grown_only_when_it_changed_since_its_last_look() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("app.log.1");
        fs::write(&path, b"one\n\0\0\0\0").unwrap();
        let meta = fs::metadata(&path).unwrap();
        let entry = Entry {
            origin: Origin {
                path: temp.path().join("app.log"),
                real: None,
                topic: "t".into(),
                device: meta.dev(),
                inode: meta.ino(),
                generation: 0,
                created_ns: created_ns(&meta),
            },
            head: Mark::default(),
            position: 4,
            beyond: Vec::new(),
            window: Mark::default(),
            size: 4,
            seen: u64::from(u32::MAX),
            complete: true,
            found_at: None,
            ended: false,
        };
        let mut former = Former::new(entry, path.clone()).left_at(Look::at(&meta));
        let listings = Listings::default();
        assert_eq!(former.look(&listings), Fate::Quiet);
        std::thread::sleep(2 * CLOCK_TICK);
        let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(former.look(&listings), Fate::Grown);
    }

    #[test]
    fn the_count_of_a_rotation_is_told_from_a_date() {
        let count = |other: &str| count_in(OsStr::new("app.log"), Path::new(other));
        assert_eq!(count("/a/app.log.12"), Some(12));
        assert_eq!(count("/a/app.log-20261121"), None);
        assert_eq!(count("/a/app.log.1-2"), None);
        assert_eq!(count("/a/app.log"), None);
    }

    #[test]
    fn names_of_a_rotation_are_told_from_other_names() {
        let rotated = |other: &str| is_rotated(OsStr::new("app.log"), OsStr::new(other));
        for name in [
            "app.log.1",
            "app.log-20261121",
            "app.log.2026-11-21T10:00:00Z",
            "app.log_3",
        ] {
            assert!(rotated(name), "{name}");
        }
        for name in [
            "app.log",
            "app.log.gz",
            "app.log.1.gz",
            "app.log.lock",
            "app.log2",
            "app.lo.1",
            "app.log.-",
        ] {
            assert!(!rotated(name), "{name}");
        }
    }
}
