//! What holds where nobody said otherwise, on the command line or in a file.

use std::sync::Arc;
use std::time::Duration;

use crate::kafka::Compression;
use crate::send;
use crate::tail;

use super::{Plan, Pool, Sink};

/// Producer threads.
pub const PRODUCERS: usize = 2;
/// Bytes in all queues.
pub const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a batch before compression. A broker takes 1,048,588 by default
/// (`message.max.bytes`).
pub const BATCH_BYTES_MAX: usize = 900 << 10;
/// How long a line waits for others to share its batch.
pub const LINGER: Duration = Duration::from_millis(50);
/// Longest line shipped.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// What a record and its batch add to a line, with room to spare; a line over
/// the limit towards Kafka is cut so that the broker's default still takes it.
pub const RECORD_OVERHEAD_BYTES: usize = 512;
/// What headers add to a record at most: the longest path there is, the longest
/// name of a host, and the names and numbers.
pub const HEADERS_BYTES: usize = 4096 + 512;
/// Where a line may have been cut that nobody said anything of, the largest first.
pub const LINE_BYTES_MAX_EVER: [usize; 3] = [
    LINE_BYTES_MAX,
    LINE_BYTES_MAX - RECORD_OVERHEAD_BYTES,
    LINE_BYTES_MAX - RECORD_OVERHEAD_BYTES - HEADERS_BYTES,
];
/// Largest file of dead letters: a day of them at 12 KB/s.
pub const DEAD_LETTERS_BYTES_MAX: u64 = 1 << 30;
/// How often patterns are looked at.
pub const DISCOVER_INTERVAL: Duration = Duration::from_secs(1);
/// How often figures are told.
pub const STATS_INTERVAL: Duration = Duration::from_secs(10);
/// How long a stop waits for acknowledgements.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a source that was deleted in etcd is read on.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long Kafka may be unreachable before that is called unhealthy.
pub const UNHEALTHY_AFTER: Duration = Duration::from_secs(60);

/// A plan that tails nothing yet.
pub fn plan(sink: Sink, host: Arc<str>) -> Plan {
    Plan {
        stdin: None,
        named: Vec::new(),
        sources: Vec::new(),
        tail: tail::Options::default(),
        pool: Pool {
            producers: match sink {
                Sink::Stdout => 1,
                Sink::Kafka(_) => PRODUCERS,
            },
            sink,
            send: send::Options {
                compression: Compression::Lz4,
                compression_level: None,
                batch_bytes_max: BATCH_BYTES_MAX,
                linger: LINGER,
                host,
            },
            queue_bytes_max: QUEUE_BYTES_MAX,
        },
        state_dir: None,
        dead_letters_bytes_max: DEAD_LETTERS_BYTES_MAX,
        admin_listen: None,
        discover_interval: DISCOVER_INTERVAL,
        stats_interval: STATS_INTERVAL,
        shutdown_timeout: SHUTDOWN_TIMEOUT,
        drain_timeout: DRAIN_TIMEOUT,
        unhealthy_after: UNHEALTHY_AFTER,
        timeout: None,
    }
}

/// Bytes of a line that are shipped at most, in a record with or without headers.
pub fn line_bytes_max(sink: &Sink, headers: bool) -> usize {
    match sink {
        Sink::Stdout => LINE_BYTES_MAX,
        Sink::Kafka(_) => LINE_BYTES_MAX - RECORD_OVERHEAD_BYTES - headers_bytes(headers),
    }
}

/// What a line has to leave to the headers of its record.
pub fn headers_bytes(headers: bool) -> usize {
    if headers { HEADERS_BYTES } else { 0 }
}
