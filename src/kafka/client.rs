//! What a client is to whoever sends through it. There are two: our own producer,
//! and the legacy one for brokers that are too old for it.
//!
//! It is a state machine that one thread owns and that never blocks:
//! [`Client::handle`] takes what its own threads say, [`Client::poll`] moves
//! everything on, and [`Client::next_outcome`] tells what became of the batches. It
//! holds no line outside a batch, and does not decide where a line goes.

use std::time::Instant;

use crossbeam_channel::Receiver;

use super::headers::EncodedHeaders;
use super::producer::{Notice, Outcome, TopicId};

/// Which client writes to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Our own, unless a broker says that it is too old for it.
    #[default]
    Auto,
    /// Our own, whatever a broker says.
    Modern,
    /// The one for brokers before Kafka 0.11.
    Legacy,
}

/// Records on their way into a batch.
pub trait Records {
    /// Sets the limit in bytes, before compression and with all that a batch adds; one above
    /// the builder's own is that one.
    fn limit(&mut self, bytes_max: usize);

    /// Appends a record. When there is one already and this one would go past the
    /// limit, nothing changes and the answer is `false`.
    fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: &[u8],
        headers: EncodedHeaders,
    ) -> bool;

    /// Whether there is none.
    fn is_empty(&self) -> bool;

    /// Their number.
    fn records(&self) -> u32;

    /// Their size so far, before compression, with all that a batch adds.
    fn bytes(&self) -> usize;
}

/// Carries batches to the leaders of their partitions. `R` is what the caller attaches
/// to each.
pub trait Client<R> {
    /// What its threads say.
    type Event: Send;
    /// What it takes batches from.
    type Batch: Records;

    /// Nobody reads again what is returned from now on: what waits is kept, whatever room it
    /// takes.
    fn drain(&mut self) {}

    /// What its threads say; feed it to [`Client::handle`].
    fn events(&self) -> Receiver<Self::Event>;

    /// Takes in what its threads say.
    fn handle(&mut self, event: Self::Event, now: Instant);

    /// Moves everything on that can move. Returns when it wants to be called again at
    /// the latest.
    fn poll(&mut self, now: Instant) -> Option<Instant>;

    /// The topic of this name; asks for its metadata when it is new.
    fn topic(&mut self, name: &str, now: Instant) -> TopicId;

    /// The name of a topic.
    fn topic_name(&self, topic: TopicId) -> &str;

    /// How many partitions the topic had when it was first seen, 0 while that is not
    /// known. It stays when partitions are added, so that what is hashed to a partition
    /// stays there; it follows when they get fewer.
    fn partitions(&self, topic: TopicId) -> usize;

    /// How many partitions the topic has now.
    fn partitions_now(&self, topic: TopicId) -> usize;

    /// True when a batch for this partition would go out at once. When only a
    /// connection or the like is missing, it is on its way after this.
    fn ready(&mut self, topic: TopicId, partition: usize, now: Instant) -> bool;

    /// How large the next batch of a partition may be, before compression: one that takes
    /// none is tried with little. A single record may be larger.
    fn batch_bytes_max(&self, _topic: TopicId, _partition: usize) -> usize {
        usize::MAX
    }

    /// Submits the records to a partition that is [`ready`](Client::ready), and leaves
    /// none behind; [`Client::poll`] sends them.
    ///
    /// # Panics
    /// When the partition is not ready or there is no record.
    fn submit(&mut self, topic: TopicId, partition: usize, batch: &mut Self::Batch, receipt: R);

    /// The next outcome, oldest first.
    fn next_outcome(&mut self) -> Option<Outcome<R>>;

    /// The next notice, oldest first.
    fn next_notice(&mut self) -> Option<Notice>;

    /// True while a submitted batch has no outcome that the caller has seen.
    fn is_busy(&self) -> bool;
}
