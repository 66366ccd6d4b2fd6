//! Who tails which inode, so that nobody tails it twice.
//!
//! Tailers and the discovery of new files share it; it holds names and numbers
//! and never looks at the file system.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Device, inode, topic.
pub type InodeKey = (u64, u64, Arc<str>);

/// The inodes and paths that are tailed.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
    changes: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Inner {
    inodes: HashMap<InodeKey, PathBuf>,
    paths: HashMap<PathKey, Arc<Tailed>>,
}

/// Path, topic.
pub type PathKey = (PathBuf, Arc<str>);

/// What a tailer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// There was something to read.
    #[default]
    Reading,
    /// Everything is read.
    Idle,
    /// There is more to read, but the queue has no room for it.
    Full,
    /// It gave its thread and handle back, and is looked at now and then.
    Asleep,
    /// The path does not exist.
    Missing,
    /// The file cannot be read.
    Failed,
    /// Its source was taken away; it is read to its end.
    Draining,
    /// It waits for its turn: there are more files than may be open at once.
    Queued,
}

/// What others may know of a path's tailer.
#[derive(Debug, Default)]
pub struct Tailed {
    // Locks and not messages: whoever wants to know asks at any moment.
    state: Mutex<State>,
    trouble: Mutex<Option<String>>,
    thread: Mutex<Option<String>>,
}

/// An inode that is tailed; until it is dropped nobody else gets it.
#[derive(Debug)]
pub struct InodeClaim {
    registry: Registry,
    key: InodeKey,
}

/// A path that is tailed for a topic; until it is dropped nobody else gets it.
#[derive(Debug)]
pub struct PathClaim {
    registry: Registry,
    key: PathKey,
    tailed: Arc<Tailed>,
}

impl State {
    /// Its name in status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            State::Reading => "reading",
            State::Idle => "idle",
            State::Full => "full",
            State::Asleep => "asleep",
            State::Missing => "waiting",
            State::Failed => "failed",
            State::Draining => "draining",
            State::Queued => "queued",
        }
    }
}

impl Tailed {
    /// What it is doing.
    pub fn state(&self) -> State {
        *held(&self.state)
    }

    /// Says what it is doing.
    pub fn show(&self, state: State) {
        *held(&self.state) = state;
    }

    /// What is in its way, if anything.
    pub fn trouble(&self) -> Option<String> {
        held(&self.trouble).clone()
    }

    /// Says what is in its way. False when that was said before.
    pub fn tell(&self, trouble: Option<&str>) -> bool {
        let mut told = held(&self.trouble);
        let news = told.as_deref() != trouble;
        if news {
            *told = trouble.map(str::to_owned);
        }
        news
    }

    /// Its thread's name, while it has one.
    pub fn thread(&self) -> Option<String> {
        held(&self.thread).clone()
    }

    /// Says which thread it has.
    pub fn runs_in(&self, thread: Option<&str>) {
        *held(&self.thread) = thread.map(str::to_owned);
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    // A lock and not messages: the answer decides whether a file is opened.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        held(&self.inner)
    }

    /// Another number than before means: somebody has got or given up a path or
    /// an inode.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Claims an inode for the tailer of `path`; else the path that has it.
    pub fn claim_inode(&self, key: InodeKey, path: &Path) -> Result<InodeClaim, PathBuf> {
        let mut inner = self.inner();
        if let Some(holder) = inner.inodes.get(&key) {
            return Err(holder.clone());
        }
        inner.inodes.insert(key.clone(), path.to_owned());
        self.changed();
        Ok(InodeClaim {
            registry: self.clone(),
            key,
        })
    }

    /// The path whose tailer has an inode.
    pub fn holder(&self, key: &InodeKey) -> Option<PathBuf> {
        self.inner().inodes.get(key).cloned()
    }

    /// Claims a path for a new tailer, unless it has one for this topic.
    pub fn claim_path(&self, path: &Path, topic: &Arc<str>) -> Option<PathClaim> {
        let key = (path.to_owned(), Arc::clone(topic));
        let mut inner = self.inner();
        if inner.paths.contains_key(&key) {
            return None;
        }
        let tailed = Arc::new(Tailed::default());
        inner.paths.insert(key.clone(), Arc::clone(&tailed));
        self.changed();
        Some(PathClaim {
            registry: self.clone(),
            key,
            tailed,
        })
    }

    /// True when a path has a tailer for this topic, awake or asleep.
    pub fn has_path(&self, key: &PathKey) -> bool {
        self.inner().paths.contains_key(key)
    }

    /// Everything that is tailed.
    pub fn tailed(&self) -> Vec<(PathKey, Arc<Tailed>)> {
        let inner = self.inner();
        let all = inner.paths.iter();
        all.map(|(key, tailed)| (key.clone(), Arc::clone(tailed)))
            .collect()
    }
}

impl PathClaim {
    /// True when the path is claimed for this topic.
    pub fn is_for(&self, topic: &str) -> bool {
        *self.key.1 == *topic
    }

    /// What others may know of the tailer.
    pub fn tailed(&self) -> &Arc<Tailed> {
        &self.tailed
    }
}

impl InodeClaim {
    /// The claimed inode.
    pub fn key(&self) -> &InodeKey {
        &self.key
    }
}

impl Drop for InodeClaim {
    fn drop(&mut self) {
        self.registry.inner().inodes.remove(&self.key);
        self.registry.changed();
    }
}

impl Drop for PathClaim {
    fn drop(&mut self) {
        self.registry.inner().paths.remove(&self.key);
        self.registry.changed();
    }
}
