//! What keeps the lines of one path in order on their way through the queue.
//!
//! A flow is a path's stream of chunks, over all the files that had that name.
//! It knows no byte ranges; those are the file ledger's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use twox_hash::XxHash3_64;

/// Shared by the tailer of a path, its chunks and their producer.
///
/// When a range comes back unsent, everything read after it would overtake it.
/// So the epoch moves on, chunks of an earlier epoch are not sent, and the
/// tailer holds still until all of them have come back too.
#[derive(Debug)]
pub struct Flow {
    hash: u64,
    epoch: AtomicU32,
    queued: AtomicUsize,
    held: AtomicBool,
    /// Counts what is worth writing down, over all flows of a ledger.
    changes: Arc<AtomicU64>,
}

impl Flow {
    /// The flow of a path on a host; their hash chooses producer and partition.
    pub(super) fn new(host: &str, path: &Path, changes: Arc<AtomicU64>) -> Flow {
        let mut name = host.as_bytes().to_vec();
        name.push(0);
        name.extend_from_slice(path.as_os_str().as_encoded_bytes());
        Flow {
            hash: XxHash3_64::oneshot(&name),
            epoch: AtomicU32::new(0),
            queued: AtomicUsize::new(0),
            held: AtomicBool::new(false),
            changes,
        }
    }

    /// Of host and path; stable over restarts and versions.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Moves on whenever a range comes back.
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// A position, a size or a list of files is not what it was.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Chunks between the tailer's offer and their last line's batch.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// A chunk enters the queue.
    pub fn enter(&self) {
        self.queued.fetch_add(1, Ordering::AcqRel);
    }

    /// A chunk is done with.
    pub fn leave(&self) {
        self.queued.fetch_sub(1, Ordering::AcqRel);
    }

    /// True while the producer cannot send this flow's lines, so that offering
    /// them would only take room from others.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Tells the tailer to offer nothing, or to go on.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }
}
