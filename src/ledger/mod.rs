//! What Kafka has acknowledged, per file, as byte ranges.
//!
//! The ledger is the one piece of state that matters: a position advances on
//! acknowledgement and never on read. It does no input or output; the
//! checkpoint writes it to disk, tailers claim ranges in it, producers settle
//! them.

mod file;
mod flow;
mod ranges;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use file::now_seconds;
pub use file::{Claim, DropReason, Figures, FileLedger, Gap, LossReason, Mark, Origin, Ticket};
pub use flow::Flow;

/// What the checkpoint keeps of a file: enough to find it again and go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file as it was found.
    pub origin: Origin,
    /// Fingerprint of the first bytes.
    pub head: Mark,
    /// Everything before it is settled.
    pub position: u64,
    /// Settled ranges after `position`.
    pub beyond: Vec<(u64, u64)>,
    /// Fingerprint of bytes that end at or before `position`.
    pub window: Mark,
    /// The file's size when it was last looked at.
    pub size: u64,
    /// When it was last looked at, in seconds since 1970 UTC.
    pub seen: u64,
}

/// The identity under which a position is kept: device, inode, topic.
type Key = (u64, u64, Arc<str>);

/// All files' ledgers, and what is remembered of files that are not open.
#[derive(Debug, Default)]
pub struct Ledger {
    // A lock and not messages: positions are read by whoever opens a file,
    // at the moment it is opened. Held for a map's time only.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    open: Vec<Arc<FileLedger>>,
    remembered: HashMap<Key, Entry>,
    /// What closed files have added up to.
    closed: Figures,
}

impl Entry {
    fn key(&self) -> Key {
        let origin = &self.origin;
        (origin.device, origin.inode, Arc::clone(&origin.topic))
    }
}

impl Ledger {
    /// A ledger that knows these files from an earlier run.
    pub fn remembering(entries: Vec<Entry>) -> Ledger {
        let remembered = entries.into_iter().map(|e| (e.key(), e)).collect();
        Ledger {
            inner: Mutex::new(Inner {
                remembered,
                ..Inner::default()
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered of an inode. It stays remembered until its account is
    /// opened: a checkpoint in between must not miss it.
    pub fn recall(&self, device: u64, inode: u64, topic: &Arc<str>) -> Option<Entry> {
        let key = (device, inode, Arc::clone(topic));
        self.inner().remembered.get(&key).cloned()
    }

    /// Forgets an inode that is no more. False when its account was opened, or
    /// it was forgotten, meanwhile.
    pub fn forget_file(&self, device: u64, inode: u64, topic: &Arc<str>) -> bool {
        let key = (device, inode, Arc::clone(topic));
        self.inner().remembered.remove(&key).is_some()
    }

    /// What is remembered under a path, whichever inode it was.
    pub fn remembered_at(&self, path: &std::path::Path, topic: &str) -> Vec<Entry> {
        let same = |e: &&Entry| e.origin.path == path && *e.origin.topic == *topic;
        self.inner()
            .remembered
            .values()
            .filter(same)
            .cloned()
            .collect()
    }

    /// Remembers a file that is not open, so that its position is not lost.
    pub fn remember(&self, entry: Entry) {
        self.inner().remembered.insert(entry.key(), entry);
    }

    /// Opens the account of a file, which takes the place of what is remembered.
    pub fn open(&self, file: Arc<FileLedger>) {
        let mut inner = self.inner();
        inner.remembered.remove(&file.entry().key());
        inner.open.push(file);
    }

    /// Closes an account in which everything is settled. With `remember` its
    /// position is kept, for the day the file turns up under another name.
    pub fn close(&self, file: &Arc<FileLedger>, remember: bool) {
        let mut inner = self.inner();
        inner.open.retain(|open| !Arc::ptr_eq(open, file));
        inner.closed += file.figures();
        if remember {
            let entry = file.entry();
            inner.remembered.insert(entry.key(), entry);
        }
    }

    /// Counts and tells what was unread of a remembered file that is no more.
    pub fn lose(&self, entry: &Entry, reason: LossReason) {
        let settled = entry.position + entry.beyond.iter().map(|(a, b)| b - a).sum::<u64>();
        let mut at = entry.position;
        for &(from, to) in entry.beyond.iter().chain([&(entry.size, entry.size)]) {
            if at < from {
                file::tell_loss(&entry.origin, at, from, reason);
            }
            at = at.max(to);
        }
        let bytes = entry.size.saturating_sub(settled);
        let mut inner = self.inner();
        inner.closed.known_bytes += bytes;
        inner.closed.lost_bytes += bytes;
    }

    /// The sum over all files, open and closed.
    pub fn figures(&self) -> Figures {
        let inner = self.inner();
        let open = inner.open.iter().map(|file| file.figures());
        open.fold(inner.closed, |sum, figures| sum + figures)
    }

    /// Everything to be written down. Where an inode has several lives, the
    /// newest counts: the bytes of the others are gone.
    pub fn entries(&self) -> Vec<Entry> {
        let inner = self.inner();
        let mut newest: HashMap<Key, Entry> = inner.remembered.clone();
        for file in &inner.open {
            let Some(mut entry) = file.durable_entry() else {
                continue;
            };
            entry.seen = now_seconds(); // it is in our hands
            let older = |known: &Entry| known.origin.generation <= entry.origin.generation;
            if newest.get(&entry.key()).is_none_or(older) {
                newest.insert(entry.key(), entry);
            }
        }
        let mut entries: Vec<Entry> = newest.into_values().collect();
        entries.sort_by(|a, b| {
            let order = |e: &Entry| (e.origin.path.clone(), e.origin.device, e.origin.inode);
            order(a).cmp(&order(b))
        });
        entries
    }

    /// Forgets files that have not been seen since `before` (seconds since 1970).
    pub fn forget(&self, before: u64) {
        self.inner()
            .remembered
            .retain(|_, entry| entry.seen >= before);
    }
}
