//! Tailing: from files to chunks in the queue.
//!
//! One thread follows one path through rotations and truncations, claims what
//! it reads in the ledger and offers it to the queue. It never waits for
//! Kafka, and knows nothing of it.

mod cut;
mod discover;
mod generation;
mod identity;
mod input;
mod registry;
mod tailer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::Ledger;
use crate::queue::Queue;

pub use discover::{Discovery, Found, Pattern};
pub use input::{Input, Retained};
pub use registry::{PathClaim, Registry};
pub use tailer::{End, Tailer, check_path};

/// What a full queue does to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// The range stays next in line; nothing is lost.
    #[default]
    Wait,
    /// The range is given up and counted.
    Drop,
}

/// Where reading begins in a file without a saved position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// At its first byte.
    Beginning,
    /// At its last, unfinished line.
    End,
}

/// How files are tailed.
#[derive(Debug, Clone)]
pub struct Options {
    /// What a full queue does.
    pub when_full: WhenFull,
    /// Bytes of a line that are shipped at most.
    pub line_bytes_max: usize,
    /// Pause after the end of a file was reached; doubles while it is quiet.
    pub poll_interval_min: Duration,
    /// Longest pause between two looks at a file and its path. It bounds how
    /// long a file may exist between two rotations without being noticed.
    pub poll_interval_max: Duration,
    /// How long a renamed or deleted file must be quiet before it is let go.
    pub rotated_grace: Duration,
    /// Files of one path that are open at once.
    pub open_generations_max: usize,
    /// Read to the end and finish, instead of following.
    pub once: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            when_full: WhenFull::Wait,
            line_bytes_max: 1 << 20,
            poll_interval_min: Duration::from_millis(50),
            poll_interval_max: Duration::from_millis(200),
            rotated_grace: Duration::from_secs(5),
            open_generations_max: 100,
            once: false,
        }
    }
}

/// What all tailers share.
#[derive(Debug, Clone)]
pub struct Context {
    /// How files are tailed.
    pub options: Options,
    /// Where chunks go.
    pub queue: Queue,
    /// Where positions are.
    pub ledger: Arc<Ledger>,
    /// Who tails what.
    pub registry: Registry,
    /// This host's name; part of what chooses the partition.
    pub host: Arc<str>,
}

/// One path to be tailed, and where its lines go.
#[derive(Debug, Clone)]
pub struct Target {
    /// Absolute path.
    pub path: PathBuf,
    /// Where its lines go.
    pub topic: Arc<str>,
    /// Where to begin if the file is there at the first look and has no saved
    /// position.
    pub read_from: ReadFrom,
    /// The path was named, so that it is waited for when it is not there.
    pub named: bool,
}
