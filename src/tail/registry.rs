//! Who tails which inode, so that nobody tails it twice.
//!
//! Tailers and the discovery of new files share it; it holds names and numbers
//! and never looks at the file system.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Device, inode, topic.
pub type InodeKey = (u64, u64, Arc<str>);

/// The inodes and paths that are tailed.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    inodes: HashMap<InodeKey, PathBuf>,
    paths: HashSet<PathBuf>,
}

/// An inode that is tailed; until it is dropped nobody else gets it.
#[derive(Debug)]
pub struct InodeClaim {
    registry: Registry,
    key: InodeKey,
}

/// A path that is tailed; until it is dropped nobody else gets it.
#[derive(Debug)]
pub struct PathClaim {
    registry: Registry,
    path: PathBuf,
}

impl Registry {
    // A lock and not messages: the answer decides whether a file is opened.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims an inode for the tailer of `path`; else the path that has it.
    pub fn claim_inode(&self, key: InodeKey, path: &Path) -> Result<InodeClaim, PathBuf> {
        let mut inner = self.inner();
        if let Some(holder) = inner.inodes.get(&key) {
            return Err(holder.clone());
        }
        inner.inodes.insert(key.clone(), path.to_owned());
        Ok(InodeClaim {
            registry: self.clone(),
            key,
        })
    }

    /// The path whose tailer has an inode.
    pub fn holder(&self, key: &InodeKey) -> Option<PathBuf> {
        self.inner().inodes.get(key).cloned()
    }

    /// Claims a path for a new tailer, unless it has one.
    pub fn claim_path(&self, path: &Path) -> Option<PathClaim> {
        self.inner()
            .paths
            .insert(path.to_owned())
            .then(|| PathClaim {
                registry: self.clone(),
                path: path.to_owned(),
            })
    }

    /// True when a path has a tailer.
    pub fn has_path(&self, path: &Path) -> bool {
        self.inner().paths.contains(path)
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
    }
}

impl Drop for PathClaim {
    fn drop(&mut self) {
        self.registry.inner().paths.remove(&self.path);
    }
}
