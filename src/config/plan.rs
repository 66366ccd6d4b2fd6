//! The complete plan of a run: what is tailed, how, and where to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::kafka;
use crate::send;
use crate::tail::{self, Pattern, ReadFrom};

/// Everything a run needs to know.
#[derive(Debug)]
pub struct Plan {
    /// What is tailed, in the order it was given.
    pub sources: Vec<Source>,
    /// Where all lines go.
    pub topic: Arc<str>,
    /// Where to begin in a file without a saved position.
    pub read_from: ReadFrom,
    /// How files are tailed.
    pub tail: tail::Options,
    /// How lines are sent.
    pub send: send::Options,
    /// Where they are sent.
    pub sink: Sink,
    /// Producer threads; standard output has one.
    pub producers: usize,
    /// Bytes in all queues, at most.
    pub queue_bytes_max: usize,
    /// Where positions are kept, if anywhere.
    pub state_dir: Option<PathBuf>,
    /// How often patterns are looked at.
    pub discover_interval: Duration,
    /// How often figures are told.
    pub stats_interval: Duration,
    /// How long a stop waits for acknowledgements.
    pub shutdown_timeout: Duration,
    /// When to give up, if ever.
    pub timeout: Option<Duration>,
}

/// One thing to be tailed.
#[derive(Debug)]
pub enum Source {
    /// Standard input.
    Stdin,
    /// The file at an absolute path.
    Path(PathBuf),
    /// All files that match, now and later.
    Pattern(Pattern),
}

/// Where lines are sent.
#[derive(Debug)]
pub enum Sink {
    /// Standard output, one record a line.
    Stdout,
    /// Kafka.
    Kafka(kafka::Options),
}
