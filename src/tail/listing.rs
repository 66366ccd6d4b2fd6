//! What stands in a directory, by name and by inode: read once for all who ask.
//!
//! Only names and inode numbers are kept, and not for long. It opens no file and
//! looks at none: whoever asks does, at those that fit.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A directory that changed so shortly before it was read may have changed once
/// more within the same tick of the file system's clock: it is read again.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// Directories whose listings are kept.
const LISTINGS_MAX: usize = 8;
/// How long one is kept at most, also because some file systems do not keep the time
/// of directories.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Which directory it is, and when names in it were last added or removed. Two looks
/// that saw the same, and saw it settled, had the same names before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, i64),
}

/// The listings of directories that somebody has just asked for.
// A lock and not messages: a tailer looks for a file at the moment it decides what
// becomes of it. Held for a short list's time; the directory is read outside of it.
#[derive(Debug, Clone, Default)]
pub struct Listings(Arc<Mutex<Vec<Kept>>>);

#[derive(Debug)]
struct Kept {
    directory: PathBuf,
    stamp: Stamp,
    since: Instant,
    /// Whoever asks while it is being read waits, as long as reading it would take.
    cell: Cell,
}

type Cell = Arc<OnceLock<Read>>;

/// A directory as it was read.
#[derive(Debug)]
struct Read {
    /// Before the first name was.
    begun: Instant,
    /// Any change since then shows in the stamp.
    settled: bool,
    /// All of it could be read.
    whole: bool,
    listing: Arc<Listing>,
}

/// Names in a directory with their inode numbers: 24 bytes a name and what it is
/// long. The two orders are made when they are first asked for.
#[derive(Debug, Default)]
pub struct Listing {
    directory: PathBuf,
    names: Vec<u8>,
    entries: Vec<Entry>,
    by_name: OnceLock<Box<[u32]>>,
    by_inode: OnceLock<Box<[u32]>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    inode: u64,
    /// Where its name is in `names`, and how long.
    at: u32,
    len: u32,
}

impl Stamp {
    /// That of a directory now; `None` when it is not there.
    pub fn of(directory: &Path) -> Option<Stamp> {
        let meta = fs::metadata(directory).ok()?;
        Some(Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }

    /// True when any later change has another time.
    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        // A clock that was set back must not hide changes either.
        let settled = i64::try_from(SETTLED_AFTER.as_secs()).unwrap_or(i64::MAX);
        (settled..).contains(&now.saturating_sub(self.modified.0))
    }
}

impl Listings {
    /// What stands in a directory now: as it was read a moment ago if it has not
    /// changed since, else read anew. One that cannot be read has no names.
    ///
    /// Where a change may not show, those who have asked before it is read share what
    /// is: many files that come at once in a large directory are not as many reads of it.
    pub fn of(&self, directory: &Path) -> Arc<Listing> {
        let asked = Instant::now();
        loop {
            // First the time, then the names: what comes in between shows next time.
            let Some(stamp) = Stamp::of(directory) else {
                return Arc::default();
            };
            let cell = self.cell(directory, stamp);
            let read = cell.get_or_init(|| Read::now(directory, stamp));
            let is_of_now = read.begun >= asked;
            if read.whole && (read.settled || is_of_now) {
                return Arc::clone(&read.listing);
            }
            // What was in the way may go without a trace, and so may a name.
            self.held().retain(|kept| !Arc::ptr_eq(&kept.cell, &cell));
            if is_of_now {
                return Arc::clone(&read.listing);
            }
        }
    }

    /// Lets go of listings that have been kept for long enough: when nobody asks, they
    /// take no memory.
    pub fn let_go(&self) {
        self.held().retain(Kept::is_young);
    }

    fn held(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the listing of a directory is kept, or will be.
    fn cell(&self, directory: &Path, stamp: Stamp) -> Cell {
        let mut all = self.held();
        all.retain(Kept::is_young);
        let at = all.iter().position(|kept| kept.directory == directory);
        if let Some(at) = at {
            if all[at].stamp == stamp {
                return Arc::clone(&all[at].cell);
            }
            all.remove(at);
        }
        if all.len() >= LISTINGS_MAX {
            all.remove(0); // the oldest
        }
        let cell = Cell::default();
        all.push(Kept {
            directory: directory.to_owned(),
            stamp,
            since: Instant::now(),
            cell: Arc::clone(&cell),
        });
        cell
    }
}

impl Kept {
    fn is_young(&self) -> bool {
        self.since.elapsed() < KEPT_FOR
    }
}

impl Read {
    /// Reads a directory that had this stamp a moment ago.
    fn now(directory: &Path, stamp: Stamp) -> Read {
        let (begun, settled) = (Instant::now(), stamp.is_settled());
        let mut listing = Listing {
            directory: directory.to_owned(),
            ..Listing::default()
        };
        let whole = listing.read_names().is_ok();
        Read {
            begun,
            settled,
            whole,
            listing: Arc::new(listing),
        }
    }
}

impl Listing {
    /// What can be read of it is there also after an error.
    fn read_names(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for entry in fs::read_dir(&self.directory)? {
            match entry {
                Ok(entry) => {
                    result = result.and(self.add(entry.file_name().as_bytes(), entry.ino()))
                }
                Err(error) => result = Err(error),
            }
        }
        self.names.shrink_to_fit();
        self.entries.shrink_to_fit();
        result
    }

    /// # Errors
    /// The names take more than 4 GiB.
    fn add(&mut self, name: &[u8], inode: u64) -> io::Result<()> {
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let at = u32::try_from(self.names.len()).map_err(too_large)?;
        let len = u32::try_from(name.len()).map_err(too_large)?;
        self.names.extend_from_slice(name);
        self.entries.push(Entry { inode, at, len });
        Ok(())
    }

    /// Paths of everything whose name begins like this, by name.
    pub fn beginning_with(&self, prefix: &OsStr) -> impl Iterator<Item = PathBuf> {
        let prefix = prefix.as_bytes();
        let order = self
            .by_name
            .get_or_init(|| self.sorted(|a, b| self.name(a).cmp(self.name(b))));
        let from = order.partition_point(|&at| self.name_at(at) < prefix);
        let names = order[from..].iter().map(|&at| self.name_at(at));
        names
            .take_while(move |name| name.starts_with(prefix))
            .map(|name| self.directory.join(OsStr::from_bytes(name)))
    }

    /// Paths of everything with this inode number.
    pub fn with_inode(&self, inode: u64) -> impl Iterator<Item = PathBuf> {
        let order = self
            .by_inode
            .get_or_init(|| self.sorted(|a, b| a.inode.cmp(&b.inode)));
        let inode_at = |at: u32| self.entries[at as usize].inode;
        let from = order.partition_point(|&at| inode_at(at) < inode);
        let same = order[from..]
            .iter()
            .take_while(move |&&at| inode_at(at) == inode);
        same.map(|&at| self.directory.join(OsStr::from_bytes(self.name_at(at))))
    }

    fn sorted(&self, compare: impl Fn(&Entry, &Entry) -> Ordering) -> Box<[u32]> {
        // A name takes a byte at least, and of those there are fewer.
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let mut order: Box<[u32]> = (0..count).collect();
        let entry = |at: u32| &self.entries[at as usize];
        order.sort_unstable_by(|&a, &b| compare(entry(a), entry(b)));
        order
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.at as usize..][..entry.len as usize]
    }

    fn name_at(&self, at: u32) -> &[u8] {
        self.name(&self.entries[at as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::MetadataExt;

    /// Sets back the time at which names in a directory last changed.
    fn settle(directory: &Path) {
        let long_ago = SystemTime::now() - 2 * SETTLED_AFTER;
        let directory = fs::File::open(directory).unwrap();
        directory.set_modified(long_ago).unwrap();
    }

    fn names(paths: impl Iterator<Item = PathBuf>) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        paths.map(name).collect()
    }

    fn directory_of(names: &[&str]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(temp.path().join(name), "").unwrap();
        }
        temp
    }

    #[test]
    fn a_listing_gives_names_by_their_beginning_and_by_inode() {
        let temp = directory_of(&["app.log.1", "b", "app.log", "a", "app.log.2", "app.lo"]);
        let listing = Listings::default().of(temp.path());
        let beginning = |prefix: &str| names(listing.beginning_with(OsStr::new(prefix)));
        assert_eq!(beginning("app.log"), ["app.log", "app.log.1", "app.log.2"]);
        assert_eq!(beginning("b"), ["b"]);
        assert_eq!(beginning("c"), [""; 0]);
        assert_eq!(beginning("").len(), 6);
        let linked = temp.path().join("app.log.1");
        fs::hard_link(&linked, temp.path().join("z")).unwrap();
        let listing = Listings::default().of(temp.path());
        let inode = fs::metadata(linked).unwrap().ino();
        let mut same = names(listing.with_inode(inode));
        same.sort();
        assert_eq!(same, ["app.log.1", "z"]);
        assert_eq!(names(listing.with_inode(u64::MAX)), [""; 0]);
    }

    #[test]
    fn a_directory_that_rests_is_read_once_and_one_that_changes_each_time() {
        let temp = directory_of(&["a"]);
        let listings = Listings::default();
        let all = || names(listings.of(temp.path()).beginning_with(OsStr::new("")));
        assert!(!Arc::ptr_eq(
            &listings.of(temp.path()),
            &listings.of(temp.path())
        ));
        settle(temp.path());
        assert!(Arc::ptr_eq(
            &listings.of(temp.path()),
            &listings.of(temp.path())
        ));
        fs::rename(temp.path().join("a"), temp.path().join("b")).unwrap();
        assert_eq!(all(), ["b"]);
        settle(temp.path());
        assert_eq!(all(), ["b"]);
        fs::remove_file(temp.path().join("b")).unwrap();
        assert_eq!(all(), [""; 0]);
    }

    /// Five thousand new files in a directory were as many reads of it.
    #[test]
    fn those_who_ask_while_a_changing_directory_is_read_share_the_next_read() {
        let temp = directory_of(&["a"]);
        let (listings, directory) = (Listings::default(), temp.path());
        let stamp = Stamp::of(directory).unwrap();
        let under_way = listings.cell(directory, stamp);
        let (it_reads, reads) = std::sync::mpsc::channel();
        let (all_ask, asked) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let reading = Arc::clone(&under_way);
            scope.spawn(move || {
                reading.get_or_init(|| {
                    let read = Read::now(directory, stamp);
                    it_reads.send(()).unwrap();
                    asked.recv().unwrap();
                    read
                });
            });
            reads.recv().unwrap();
            let ask = || scope.spawn(|| listings.of(directory));
            let asking: Vec<_> = std::iter::repeat_with(ask).take(20).collect();
            while Arc::strong_count(&under_way) < asking.len() + 3 {
                std::thread::yield_now();
            }
            all_ask.send(()).unwrap();
            let mut answers = asking.into_iter().map(|asked| asked.join().unwrap());
            let first = answers.next().unwrap();
            assert!(answers.all(|next| Arc::ptr_eq(&first, &next)));
            let old = &under_way.get().unwrap().listing;
            assert!(!Arc::ptr_eq(&first, old), "it was read before they asked");
        });
    }

    #[test]
    fn few_listings_are_kept_and_not_for_long() {
        let temp = directory_of(&[]);
        let listings = Listings::default();
        for n in 0..2 * LISTINGS_MAX {
            let directory = temp.path().join(n.to_string());
            fs::create_dir(&directory).unwrap();
            settle(&directory);
            listings.of(&directory);
        }
        assert_eq!(listings.held().len(), LISTINGS_MAX);
        std::thread::sleep(KEPT_FOR);
        listings.let_go();
        assert!(listings.held().is_empty());
    }

    /// Nothing in its time tells when a directory may be read again.
    #[test]
    fn a_directory_that_cannot_be_read_is_asked_for_again() {
        let temp = directory_of(&["a"]);
        settle(temp.path());
        let listings = Listings::default();
        let not_a_directory = temp.path().join("a");
        let long_ago = SystemTime::now() - 2 * SETTLED_AFTER;
        let file = fs::File::options().write(true).open(&not_a_directory);
        file.unwrap().set_modified(long_ago).unwrap();
        let listing = listings.of(&not_a_directory);
        assert_eq!(names(listing.beginning_with(OsStr::new(""))), [""; 0]);
        assert!(listings.held().is_empty());
    }
}
