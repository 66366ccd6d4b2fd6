//! Sending: from chunks in the queue to acknowledgements in the ledger.
//!
//! Two sinks share the queue's other end: Kafka, and standard output for trying
//! things and for pipes. A line is encoded once; what comes back unsent is given
//! back to the ledger, and never kept here.

mod dead_letters;
mod format;
mod headers;
mod kafka;
mod lane;
mod notices;
mod stdout;
mod waits;

use std::sync::Arc;
use std::time::Duration;

pub use dead_letters::DeadLetters;
pub use kafka::KafkaSender;
pub use notices::Notices;
pub use stdout::{StdoutEnd, StdoutSender};

/// How lines are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Compression of batches.
    pub compression: crate::kafka::Compression,
    /// Its level, where it has some and not the default is wanted.
    pub compression_level: Option<i32>,
    /// Bytes of a batch before compression, at most.
    pub batch_bytes_max: usize,
    /// How long a line may wait for others to share its batch.
    pub linger: Duration,
    /// This host's name.
    pub host: Arc<str>,
}
