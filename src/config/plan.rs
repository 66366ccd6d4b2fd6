//! The complete plan of a run: what is tailed, how, and where to.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::kafka;
use crate::send;
use crate::tail::{self, Job, Source};

/// Everything a run needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What is done with the lines of standard input, if it is read.
    pub stdin: Option<Arc<Job>>,
    /// Absolute paths that are waited for, and what is done with their lines.
    pub named: Vec<(PathBuf, Arc<Job>)>,
    /// All files that match, now and later.
    pub sources: Vec<Arc<Source>>,
    /// How files are tailed.
    pub tail: tail::Options,
    /// How lines are sent, and where to.
    pub pool: Pool,
    /// Where positions are kept, if anywhere.
    pub state_dir: Option<PathBuf>,
    /// Largest file of dead letters.
    pub dead_letters_bytes_max: u64,
    /// Where status and metrics are served besides the socket in `state_dir`.
    pub admin_listen: Option<SocketAddr>,
    /// How often patterns are looked at.
    pub discover_interval: Duration,
    /// How often figures are told.
    pub stats_interval: Duration,
    /// How long a stop waits for acknowledgements.
    pub shutdown_timeout: Duration,
    /// How long a source that was deleted in etcd is read on.
    pub drain_timeout: Duration,
    /// How long Kafka may be unreachable before that is called unhealthy.
    pub unhealthy_after: Duration,
    /// When to give up, if ever.
    pub timeout: Option<Duration>,
}

/// What the producers need to know. A change of it makes new ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Where lines are sent.
    pub sink: Sink,
    /// How they are sent.
    pub send: send::Options,
    /// Producer threads; standard output has one.
    pub producers: usize,
    /// Bytes in all queues, at most.
    pub queue_bytes_max: usize,
}

/// Where lines are sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Sink {
    /// Standard output, one record a line.
    Stdout,
    /// Kafka.
    Kafka(Box<kafka::Options>),
}

impl Plan {
    /// Every topic that lines are sent to.
    pub fn topics(&self) -> BTreeSet<Arc<str>> {
        let stdin = self.stdin.iter();
        let named = self.named.iter().map(|(_, job)| job);
        let sources = self.sources.iter().map(|source| &source.job);
        let jobs = stdin.chain(named).chain(sources);
        jobs.map(|job| Arc::clone(&job.topic)).collect()
    }
}
