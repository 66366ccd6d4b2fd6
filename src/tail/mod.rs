//! Tailing: from files to chunks in the queue.
//!
//! One thread follows one path through rotations and truncations, claims what
//! it reads in the ledger and offers it to the queue. It never waits for
//! Kafka, and knows nothing of it.

mod cut;
mod discover;
mod fence;
mod generation;
mod handles;
mod identity;
mod input;
mod left;
mod listing;
mod pattern;
mod registry;
mod rotated;
mod sleeper;
mod tailer;
mod tree;
mod wanted;

use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use twox_hash::XxHash3_64;

use crate::ledger::Ledger;
use crate::queue::Queue;
use crate::record::Shape;

pub use discover::{Discovery, Exclude, Found, News, Request, Source};
pub use fence::Fence;
pub use handles::Handles;
pub use input::{Input, Retained};
pub use left::Left;
pub use listing::Listings;
pub use pattern::Pattern;
pub use registry::{PathClaim, PathKey, Registry, State, Tailed};
pub use sleeper::Sleeper;
pub use tailer::{End, Order, Tailer, check_path};
pub use wanted::Wanted;

/// What a full queue does to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WhenFull {
    /// The range stays next in line; nothing is lost.
    #[default]
    Wait,
    /// The range is given up and counted.
    Drop,
}

/// Where reading begins in a file without a saved position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadFrom {
    /// At its first byte.
    Beginning,
    /// At its last, unfinished line.
    End,
}

/// What is done with the lines of a source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    /// Where they go.
    pub topic: Arc<str>,
    /// Where reading begins in a file without a saved position that is there at
    /// the first look; one that appears later is read from its beginning.
    pub read_from: ReadFrom,
    /// What a full queue does.
    pub when_full: WhenFull,
    /// What they become.
    pub shape: Arc<Shape>,
    /// Which files may be read; `None` for all that the pattern matches.
    pub fence: Option<Arc<Fence>>,
}

impl Job {
    /// Another number for every other behaviour (XXH3, 64 bits).
    pub fn hash64(&self) -> u64 {
        let mut hasher = XxHash3_64::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// How files are tailed, whatever their source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Pause after the end of a file was reached; doubles while it is quiet.
    pub poll_interval_min: Duration,
    /// Longest pause between two looks at a file and its path. It bounds how
    /// long a file may exist between two rotations without being noticed.
    pub poll_interval_max: Duration,
    /// How long a renamed or deleted file must be quiet before it is let go.
    pub rotated_grace: Duration,
    /// Files of one path that are open at once.
    pub open_generations_max: usize,
    /// Files that are open at once; by default what the process may open, less
    /// some for other purposes.
    pub open_files_max: Option<usize>,
    /// Bytes of the disk that deleted files may keep, because they are held open
    /// until they are settled; of what is more, the rest is lost.
    pub held_deleted_bytes_max: u64,
    /// How long a file must be quiet before it gives its thread and handle back.
    pub idle_after: Duration,
    /// Read to the end and finish, instead of following.
    pub once: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            poll_interval_min: Duration::from_millis(50),
            poll_interval_max: Duration::from_millis(200),
            rotated_grace: Duration::from_secs(5),
            open_generations_max: 100,
            open_files_max: None,
            held_deleted_bytes_max: 10 << 30,
            idle_after: Duration::from_secs(5),
            once: false,
        }
    }
}

/// What all tailers share.
#[derive(Debug, Clone)]
pub struct Context {
    /// How files are tailed.
    pub options: Arc<Options>,
    /// Where chunks go.
    pub queue: Queue,
    /// Where positions are.
    pub ledger: Arc<Ledger>,
    /// Who tails what.
    pub registry: Registry,
    /// What is to be tailed.
    pub wanted: Wanted,
    /// Tailers that are awake.
    pub awake: Arc<AtomicUsize>,
    /// What may be open.
    pub handles: Handles,
    /// What stands in directories.
    pub listings: Listings,
    /// This host's name; part of what chooses the partition.
    pub host: Arc<str>,
}

#[cfg(test)]
impl Context {
    /// Nothing is wanted, nothing known, and nobody takes a chunk.
    fn of_nothing() -> Context {
        Context {
            options: Arc::default(),
            queue: crate::queue::queue(1, 1).0,
            ledger: Arc::default(),
            registry: Registry::default(),
            wanted: Wanted::default(),
            awake: Arc::default(),
            handles: Handles::new(None),
            listings: Listings::default(),
            host: "h".into(),
        }
    }
}

/// One path to be tailed, and where its lines go.
#[derive(Debug, Clone)]
pub struct Target {
    /// Absolute path.
    pub path: PathBuf,
    /// What is done with its lines.
    pub job: Arc<Job>,
    /// Where to begin if the file is there at the first look and has no saved
    /// position.
    pub read_from: ReadFrom,
    /// When nothing stood at the path yet, if that is known: what had it since then
    /// and is rotated away belongs to it.
    pub missing_at: Option<SystemTime>,
    /// The path was named, so that it is waited for when it is not there.
    pub named: bool,
}
