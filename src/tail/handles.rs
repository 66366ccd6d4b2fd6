//! How many log files may be open at once, and how much of deleted ones is kept.
//!
//! Whoever opens a file takes a handle first, and gives it back with the file.
//! It opens nothing and knows no file; who waits and who gives way is decided by
//! tailers and by whoever starts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};

/// Handles that are left for connections, state and directories, where the
/// process may have that many; of fewer, half.
const RESERVED: usize = 64;

/// The handles of all tailers.
#[derive(Debug, Clone)]
pub struct Handles(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    max: AtomicUsize,
    open: AtomicUsize,
    /// Turns that others wait for.
    asked: AtomicUsize,
    deleted_bytes: AtomicU64,
}

/// The right to have one file open; dropping it gives it back.
#[derive(Debug)]
pub struct Handle(Option<Arc<Counts>>);

/// How much of the disk one tailer keeps from being used again, because it holds
/// deleted files open.
#[derive(Debug)]
pub struct DeletedBytes {
    counts: Arc<Counts>,
    bytes: u64,
}

impl Handles {
    /// At most `wanted` files, and no more than the process may open; by default
    /// as many as that.
    pub fn new(wanted: Option<usize>) -> Handles {
        let handles = Handles(Arc::new(Counts {
            max: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            deleted_bytes: AtomicU64::new(0),
        }));
        handles.limit(wanted);
        handles
    }

    /// Another limit from now on. Files that are open stay open.
    pub fn limit(&self, wanted: Option<usize>) {
        let allowed = allowed();
        let max = wanted.map_or(allowed, |wanted| wanted.min(allowed));
        self.0.max.store(max, Ordering::Relaxed);
    }

    /// How many files may be open.
    pub fn max(&self) -> usize {
        self.0.max.load(Ordering::Relaxed)
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// The right to open one more. `None` when there is none left; somebody is
    /// asked to give way then.
    pub fn take(&self) -> Option<Handle> {
        let max = self.max();
        let more = |open| (open < max).then_some(open + 1);
        let taken = self
            .0
            .open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        if taken.is_err() {
            self.ask(1);
        }
        taken.ok().map(|_| Handle(Some(Arc::clone(&self.0))))
    }

    /// For a file that is compared and closed at once: one of those that are left for
    /// other purposes, so that nobody has to give way for it.
    pub fn for_a_glance() -> Handle {
        Handle(None)
    }

    /// So many wait for a handle.
    pub fn ask(&self, count: usize) {
        self.0.asked.fetch_max(count, Ordering::Relaxed);
    }

    /// True when somebody waits.
    pub fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed) > 0
    }

    /// True for as many as others wait for: it is one's own turn to give way.
    pub fn gives_way(&self) -> bool {
        let fewer = |asked: usize| asked.checked_sub(1);
        self.0
            .asked
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer)
            .is_ok()
    }

    /// A tailer that holds no deleted file yet.
    pub fn no_deleted_bytes(&self) -> DeletedBytes {
        DeletedBytes {
            counts: Arc::clone(&self.0),
            bytes: 0,
        }
    }

    /// What all tailers together keep of deleted files, in bytes of the disk.
    pub fn deleted_bytes(&self) -> u64 {
        self.0.deleted_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(counts) = &self.0 {
            counts.open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl DeletedBytes {
    /// So much it is now.
    pub fn set(&mut self, bytes: u64) {
        let all = &self.counts.deleted_bytes;
        all.fetch_add(bytes, Ordering::Relaxed);
        all.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Ordering::Relaxed);
    }
}

impl Drop for DeletedBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// How many log files this process may have open.
fn allowed() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    (limit - RESERVED.min(limit / 2)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_handles_than_the_limit_and_a_dropped_one_is_free_again() {
        let handles = Handles::new(Some(2));
        let (first, second) = (handles.take(), handles.take());
        assert!(first.is_some() && second.is_some() && !handles.is_asked());
        assert!(handles.take().is_none());
        assert!(handles.is_asked(), "whoever was refused has asked");
        drop(first);
        assert_eq!(handles.open(), 1);
        assert!(handles.take().is_some());
    }

    #[test]
    fn as_many_give_way_as_others_wait() {
        let handles = Handles::new(None);
        handles.ask(2);
        let gave_way = (0..5).filter(|_| handles.gives_way()).count();
        assert_eq!(gave_way, 2);
    }

    #[test]
    fn a_tailer_that_ends_keeps_nothing_of_deleted_files() {
        let handles = Handles::new(None);
        let (mut one, mut two) = (handles.no_deleted_bytes(), handles.no_deleted_bytes());
        one.set(5);
        two.set(7);
        one.set(3);
        assert_eq!(handles.deleted_bytes(), 10);
        drop(two);
        assert_eq!(handles.deleted_bytes(), 3);
    }
}
