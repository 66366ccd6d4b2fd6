//! The sources in force: what is to be done with a path.
//!
//! It knows patterns and topics only; whether a path is tailed is the registry's
//! business.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Source;

/// The sources in force, shared by the supervisor, which changes them, and all tailers.
// A lock and not messages: a tailer that finds a file must know at that moment
// whether another one, which has not heard of the change yet, is about to bring it.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Arc<Mutex<InForce>>);

#[derive(Debug, Default)]
struct InForce {
    sources: Arc<[Arc<Source>]>,
    /// Paths that are tailed whatever the sources say.
    named: HashSet<PathBuf>,
}

impl Wanted {
    fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These sources and no others from now on.
    pub fn change(&self, sources: Vec<Arc<Source>>) {
        self.in_force().sources = sources.into();
    }

    /// A path that is tailed to its one topic until the end.
    pub fn name(&self, path: PathBuf) {
        self.in_force().named.insert(path);
    }

    /// All sources.
    pub fn sources(&self) -> Arc<[Arc<Source>]> {
        Arc::clone(&self.in_force().sources)
    }

    /// What is to be done with a path: the first source that wants it, for each topic.
    pub fn of(&self, path: &Path) -> Vec<Arc<Source>> {
        let mut wanted: Vec<Arc<Source>> = Vec::new();
        for source in self.sources().iter().filter(|source| source.wants(path)) {
            if wanted.iter().all(|of| of.job.topic != source.job.topic) {
                wanted.push(Arc::clone(source));
            }
        }
        wanted
    }

    /// The source by which a path is shipped to a topic.
    pub fn of_topic(&self, path: &Path, topic: &str) -> Option<Arc<Source>> {
        let mut wanted = self.of(path).into_iter();
        wanted.find(|source| *source.job.topic == *topic)
    }

    /// True when a path is shipped to a topic. What was named is tailed to its one topic.
    pub fn wants(&self, path: &Path, topic: &str) -> bool {
        self.in_force().named.contains(path) || self.of_topic(path, topic).is_some()
    }

    /// Where the lines of a path go.
    pub fn topics(&self, path: &Path) -> Vec<Arc<str>> {
        let wanted = self.of(path).into_iter();
        wanted.map(|source| Arc::clone(&source.job.topic)).collect()
    }

    /// True when a file is looked after for a topic that its path is not shipped to any
    /// more: whoever does so was told of another topic and has not heard it yet. It
    /// goes on with the file, from where it is.
    pub fn changes_hands(&self, attended: &[(PathBuf, Arc<str>)]) -> bool {
        let mut attended = attended.iter();
        attended.any(|(path, topic)| !self.wants(path, topic))
    }
}
