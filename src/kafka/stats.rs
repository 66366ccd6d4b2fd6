//! What a producer has done, counted for whoever wants to show it.
//!
//! Counters only grow; reading them disturbs nobody.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Upper bounds of the histogram's buckets in seconds; one more is without bound.
pub const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// Names of failures that are counted apart, at most.
const ERRORS_MAX: usize = 100;
/// What counts all others: a broker must not make labels without end.
const OTHER_ERRORS: &str = "other";

/// Figures of one producer, or of several that share them.
#[derive(Debug, Default)]
pub struct Stats {
    counters: Arc<Counters>,
    reach: Mutex<Reach>,
    /// By the thread that waits.
    waiting: Mutex<HashMap<ThreadId, Vec<(String, Instant)>>>,
}

/// What has been counted since the process began.
#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    buckets: [AtomicU64; SECONDS.len() + 1],
    micros: AtomicU64,
    // Locks and not messages: whoever wants to know asks at any moment.
    errors: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug, Default)]
struct Reach {
    connections: usize,
    /// Since when no broker can be reached.
    lost: Option<Instant>,
}

/// Produce requests and how long their answers took.
#[derive(Debug, Clone, PartialEq)]
pub struct Latency {
    /// Answers for each bucket of [`SECONDS`], and beyond the last one.
    pub counts: [u64; SECONDS.len() + 1],
    /// Sum of all answers' times in seconds.
    pub sum_seconds: f64,
}

impl Stats {
    /// For producers that take the place of these: they count on, also while these end,
    /// but whom they can reach, and what waits, is their own.
    pub fn successor(&self) -> Stats {
        Stats {
            counters: Arc::clone(&self.counters),
            reach: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    /// Requests that were sent, of any kind.
    pub fn requests(&self) -> u64 {
        self.counters.requests.load(Ordering::Relaxed)
    }

    /// Failures by name: a Kafka error code's, `code_N` of one that has none here, or the
    /// step at which a connection was lost; beyond a hundred names, `other`.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        held(&self.counters.errors).clone()
    }

    /// How long Produce requests took.
    pub fn latency(&self) -> Latency {
        Latency {
            counts: std::array::from_fn(|at| self.counters.buckets[at].load(Ordering::Relaxed)),
            sum_seconds: self.counters.micros.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }

    /// True while there is a connection to a broker.
    pub fn is_up(&self) -> bool {
        held(&self.reach).connections > 0
    }

    /// For how long no broker could be reached.
    pub fn unreachable_for(&self) -> Option<Duration> {
        held(&self.reach).lost.map(|since| since.elapsed())
    }

    /// For how long nothing of a topic was acknowledged although something of it is to be
    /// sent: the longest that a producer waits.
    pub fn waiting_for(&self) -> BTreeMap<String, Duration> {
        let mut longest = BTreeMap::new();
        for (topic, since) in held(&self.waiting).values().flatten() {
            let waited = longest.entry(topic.clone()).or_insert(Duration::ZERO);
            *waited = since.elapsed().max(*waited);
        }
        longest
    }

    /// What the producer of this thread waits for, and since when.
    pub fn set_waiting(&self, topics: Vec<(String, Instant)>) {
        let thread = thread::current().id();
        match topics.is_empty() {
            true => _ = held(&self.waiting).remove(&thread),
            false => _ = held(&self.waiting).insert(thread, topics),
        }
    }

    pub(super) fn sent(&self) {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self, after: Duration) {
        let seconds = after.as_secs_f64();
        let bucket = SECONDS.iter().position(|&bound| seconds <= bound);
        let bucket = bucket.unwrap_or(SECONDS.len());
        self.counters.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.counters.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, error: &str) {
        let mut errors = held(&self.counters.errors);
        let known = errors.contains_key(error) || errors.len() < ERRORS_MAX;
        let error = if known { error } else { OTHER_ERRORS };
        match errors.get_mut(error) {
            Some(count) => *count += 1,
            None => _ = errors.insert(error.to_owned(), 1),
        }
    }

    pub(super) fn connected(&self) {
        let mut reach = held(&self.reach);
        reach.connections += 1;
        reach.lost = None;
    }

    /// A connection that `stood`, or was tried, is no more.
    pub(super) fn disconnected(&self, stood: bool, idle: bool) {
        let mut reach = held(&self.reach);
        reach.connections -= usize::from(stood);
        if reach.connections == 0 && !idle {
            reach.lost.get_or_insert_with(Instant::now);
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::error::ErrorCode;
    use super::*;

    /// All unknown codes were one label.
    #[test]
    fn unknown_codes_have_labels_of_their_own_and_those_have_an_end() {
        let stats = Stats::default();
        for code in [6, 12_345, 6].into_iter().chain(20_000..21_000) {
            stats.failed(&ErrorCode(code).label());
        }
        let errors = stats.errors();
        assert_eq!(errors["NOT_LEADER_OR_FOLLOWER"], 2);
        assert_eq!(errors["code_12345"], 1);
        assert_eq!(errors.len(), ERRORS_MAX + 1);
        assert_eq!(errors.values().sum::<u64>(), 1_003);
    }

    #[test]
    fn a_successor_counts_on_and_has_connections_of_its_own() {
        let old = Stats::default();
        old.sent();
        old.failed("X");
        old.answered(Duration::from_micros(1));
        old.connected();
        let new = old.successor();
        assert!(old.is_up() && !new.is_up());
        old.sent();
        new.sent();
        assert_eq!((new.requests(), new.errors()["X"]), (3, 1));
        assert_eq!(new.latency(), old.latency());
    }
}
