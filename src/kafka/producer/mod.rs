//! The idempotent producer: from encoded batches to acknowledgements.
//!
//! It is a state machine that one thread owns: [`Producer::handle`] takes what
//! the connections say, [`Producer::poll`] moves everything on, and
//! [`Producer::next_outcome`] tells what became of the batches. It never blocks,
//! holds no line outside a batch, and does not decide where a line goes.
//!
//! The rule that keeps every record once and in order (KIP-98): when a batch
//! of a partition fails, first everything in flight for that partition is
//! settled, then the unacknowledged batches go out again one at a time, in
//! order, with the sequences they had. When the sequences themselves are beyond
//! repair, the batches are returned to the caller, who still has the lines,
//! and the partition goes on with a new producer id.

mod cluster;
mod dispatch;
mod partition;
mod peer;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::address::Address;
use super::batch::{BatchBuilder, ProducerId, next_sequence};
use super::client::{Client, Kind};
use super::codec::Compression;
use super::connection::{Dial, Event};
use super::error::{ConnectionError, ErrorCode};
use super::sasl::Sasl;
use super::stats::Stats;
use super::tls::Tls;
use partition::{Batch, BatchState, Topic};
use peer::Peer;

/// Events that may wait for the producer's thread; connections block beyond.
const EVENTS_MAX: usize = 1_024;
/// Batch buffers kept for reuse.
const SPARE_BUFFERS_MAX: usize = 2;
/// Bytes of a batch that only tries whether a partition takes any, before compression: so
/// hundreds of partitions that do not cost little.
const TRIAL_BYTES: usize = 32 << 10;

/// How a [`Producer`] behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Where to ask for the cluster; at least one.
    pub bootstrap: Vec<Address>,
    /// Which client writes to it.
    pub client: Kind,
    /// The name the brokers' logs and quotas know us by.
    pub client_id: String,
    /// TLS; without it everything is sent in the clear.
    pub tls: Option<Tls>,
    /// Logging in, if the brokers want it.
    pub sasl: Option<Sasl>,
    /// The codec that batches come in: a broker that does not know it is sent none.
    pub compression: Compression,
    /// Opening a TCP connection.
    pub connect_timeout: Duration,
    /// All exchanges on a new connection, before the first request.
    pub handshake_timeout: Duration,
    /// How long to wait for an answer before the connection is given up.
    pub request_timeout: Duration,
    /// Requests in flight to one broker; more than 5 breaks idempotence (KIP-98).
    pub in_flight_max: usize,
    /// Bytes of batches in flight to one broker, beyond which no other request
    /// follows; bounds memory, and so does this: of what waits to be tried again, there is
    /// as much for each broker. Partitions that take nothing return what is more.
    pub in_flight_bytes_max: usize,
    /// Bytes of batches in one request; one batch always fits.
    pub request_bytes_max: usize,
    /// First and longest pause before something is tried again.
    pub backoff: (Duration, Duration),
    /// Pause after a broker did not take us, or we did not take it: that waits for a human,
    /// and some lock out who fails too often.
    pub refused_pause: Duration,
    /// How long a new topic may be unknown or without leaders before it is told.
    pub creation_grace: Duration,
    /// Pause before a topic that waits for a human is tried again.
    pub waiting_pause: Duration,
    /// Metadata is asked for again after this long.
    pub metadata_age_max: Duration,
}

impl Options {
    /// The defaults, for these brokers.
    pub fn new(bootstrap: Vec<Address>) -> Options {
        Options {
            bootstrap,
            client: Kind::Auto,
            client_id: "logship".to_owned(),
            tls: None,
            sasl: None,
            compression: Compression::None,
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            in_flight_max: 5,
            in_flight_bytes_max: 2_500_000,
            request_bytes_max: 1_000_000,
            backoff: (Duration::from_millis(100), Duration::from_secs(2)),
            refused_pause: Duration::from_secs(10),
            creation_grace: Duration::from_secs(3),
            waiting_pause: Duration::from_secs(1),
            metadata_age_max: Duration::from_secs(300),
        }
    }

    /// True when the legacy client may take over from this one: it was not ruled out, and
    /// it can do what is asked.
    pub fn may_be_legacy(&self) -> bool {
        self.client == Kind::Auto && self.tls.is_none() && self.sasl.is_none()
    }

    pub(super) fn dial(&self) -> Dial {
        Dial {
            client_id: self.client_id.clone(),
            connect_timeout: self.connect_timeout,
            handshake_timeout: self.handshake_timeout,
            request_timeout: self.request_timeout,
            tls: self.tls.clone(),
            sasl: self.sasl.clone(),
            compression: self.compression,
        }
    }
}

/// A topic this producer knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId(pub(in crate::kafka) usize);

/// What became of batches. `R` is what the caller attached to each.
#[derive(Debug)]
pub enum Outcome<R> {
    /// All in-sync replicas have the batch.
    Acked {
        /// Of the topic.
        topic: TopicId,
        /// What the caller attached.
        receipt: R,
    },
    /// Known not to be in the log, in the order they were submitted; to be
    /// sent again by the caller.
    Returned {
        /// Of the topic.
        topic: TopicId,
        /// What the caller attached.
        receipts: Vec<R>,
        /// Why, and what follows.
        why: Return,
    },
    /// A single record that the broker will never accept.
    Refused {
        /// Of the topic.
        topic: TopicId,
        /// What the caller attached.
        receipt: R,
        /// Why.
        code: ErrorCode,
    },
}

/// Why batches are returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// Their sequences are of no use any more: they can be sent again as they were.
    Renumbered,
    /// The first of them, of so many bytes before compression, was refused for ever for this
    /// reason: make smaller ones, until the culprit stands alone.
    TooLarge(usize, ErrorCode),
    /// Their partition takes none for now, and there is no room to keep them until it does.
    NoRoom,
}

/// Changes of state that a person may want to hear of.
#[derive(Debug)]
pub enum Notice {
    /// A broker cannot be reached, or not any more.
    Unreachable(ConnectionError),
    /// A broker that could not be reached is there again, or for the first time.
    Reached(Address),
    /// Nothing of this topic gets through, and this is why.
    TopicWaits(String, ErrorCode),
    /// The topic that waited gets through.
    TopicReady(String),
    /// The brokers refuse to hand out a producer id.
    NoProducerId(ErrorCode),
    /// A request failed and is tried again.
    Retried {
        /// Topic name.
        topic: String,
        /// Partition index.
        partition: i32,
        /// The broker that answered.
        broker: Address,
        /// What it answered.
        code: ErrorCode,
    },
    /// A partition takes batches after [`Notice::Retried`].
    Accepted {
        /// Topic name.
        topic: String,
        /// Partition index.
        partition: i32,
    },
    /// Records of this topic are sent without their headers, which old brokers do not know.
    HeadersLeftAway(String),
}

/// Sends batches to the partitions of a cluster.
#[derive(Debug)]
pub struct Producer<R> {
    options: Options,
    stats: Arc<Stats>,
    events: (Sender<Event>, Receiver<Event>),
    peers: HashMap<Address, Peer>,
    nodes: HashMap<i32, Address>,
    bootstrap_next: usize,
    topics: Vec<Topic<R>>,
    topic_ids: HashMap<String, TopicId>,
    identity: Identity,
    metadata: Metadata,
    /// Whether what a receipt stands for can be had again.
    returnable: fn(&R) -> bool,
    /// Nobody reads again what is returned.
    draining: bool,
    /// Bytes of batches that are neither in flight nor acknowledged.
    waiting_bytes: usize,
    /// Batches to be sent, oldest first: topic, partition.
    unsent: VecDeque<(TopicId, usize)>,
    outcomes: VecDeque<Outcome<R>>,
    notices: VecDeque<Notice>,
    spare: Vec<Vec<u8>>,
    last_id: u64,
}

#[derive(Debug)]
struct Identity {
    current: Option<ProducerId>,
    wanted: bool,
    asking: bool,
    retry_at: Option<Instant>,
    failing_since: Option<Instant>,
    told: bool,
}

#[derive(Debug)]
struct Metadata {
    due: Option<Instant>,
    asking: bool,
    failures: u32,
    newest: Option<Instant>,
}

impl<R> Producer<R> {
    /// A producer that connects when it has something to do, and counts what it
    /// does in `stats`.
    pub fn new(options: Options, stats: Arc<Stats>) -> Self {
        Producer {
            options,
            stats,
            events: bounded(EVENTS_MAX),
            peers: HashMap::new(),
            nodes: HashMap::new(),
            bootstrap_next: 0,
            topics: Vec::new(),
            topic_ids: HashMap::new(),
            identity: Identity {
                current: None,
                wanted: false,
                asking: false,
                retry_at: None,
                failing_since: None,
                told: false,
            },
            metadata: Metadata {
                due: None,
                asking: false,
                failures: 0,
                newest: None,
            },
            returnable: |_| true,
            draining: false,
            waiting_bytes: 0,
            unsent: VecDeque::new(),
            outcomes: VecDeque::new(),
            notices: VecDeque::new(),
            spare: Vec::new(),
            last_id: 0,
        }
    }

    /// Keeps the batches whose receipts are not like this, whatever room they take.
    #[must_use]
    pub fn returning_only(mut self, returnable: fn(&R) -> bool) -> Self {
        self.returnable = returnable;
        self
    }

    /// Why nothing of this topic gets through, if so.
    pub fn topic_error(&self, topic: TopicId) -> Option<ErrorCode> {
        self.topics[topic.0].error
    }

    /// The leader of a partition to which another batch may be submitted.
    fn usable(&self, topic: TopicId, partition: usize, now: Instant) -> Option<i32> {
        let topic = &self.topics[topic.0];
        let partition = topic.partitions.get(partition)?;
        let batches_max = if partition.proven {
            self.options.in_flight_max
        } else {
            1
        };
        let fit = topic.error.is_none()
            && !partition.gone
            && !partition.recovering
            && !partition.queued
            && partition.retry_at.is_none_or(|at| at <= now)
            && partition.batches.len() < batches_max;
        partition.leader.filter(|_| fit)
    }

    /// Sees to it that a partition has a producer id, or that one is asked for.
    fn give_identity(&mut self, topic: TopicId, partition: usize) -> bool {
        let partition = &mut self.topics[topic.0].partitions[partition];
        if partition.producer.is_some() {
            return true;
        }
        match self.identity.current {
            Some(id) if partition.broken != Some(id) => {
                partition.producer = Some(id);
                partition.proven = false;
                partition.next_sequence = 0;
                true
            }
            _ => {
                self.identity.wanted = true;
                false
            }
        }
    }

    /// What `waiting_bytes` is kept at without counting.
    fn waiting_bytes_counted(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions
            .flat_map(|partition| &partition.batches)
            .filter(|batch| batch.state == BatchState::Unsent)
            .map(|batch| batch.bytes.len())
            .sum()
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let peers = self.peers.values().flat_map(|peer| {
            let oldest = peer.link.as_ref().and_then(|link| link.pending.front());
            [
                peer.retry_at,
                peer.silent_until,
                oldest.map(|pending| pending.deadline),
            ]
        });
        let unsent = self
            .unsent
            .iter()
            .map(|&(topic, index)| self.topics[topic.0].partitions[index].retry_at);
        let metadata = [self.metadata.due.filter(|_| !self.metadata.asking)];
        peers
            .chain(unsent)
            .chain(metadata)
            .chain([self.identity.retry_at])
            .flatten()
            .filter(|&at| at > now)
            .min()
    }
}

impl<R> Client<R> for Producer<R> {
    type Event = Event;
    type Batch = BatchBuilder;

    fn drain(&mut self) {
        self.draining = true;
    }

    fn events(&self) -> Receiver<Event> {
        self.events.1.clone()
    }

    fn topic(&mut self, name: &str, now: Instant) -> TopicId {
        if let Some(&id) = self.topic_ids.get(name) {
            return id;
        }
        let id = TopicId(self.topics.len());
        self.topics.push(Topic {
            name: name.to_owned(),
            error: None,
            failing_since: None,
            told: false,
            denied: false,
            partitions: Vec::new(),
            first_count: 0,
        });
        self.topic_ids.insert(name.to_owned(), id);
        self.identity.wanted |= self.identity.current.is_none();
        self.metadata.due = Some(now);
        id
    }

    fn topic_name(&self, topic: TopicId) -> &str {
        &self.topics[topic.0].name
    }

    fn partitions(&self, topic: TopicId) -> usize {
        self.topics[topic.0].first_count
    }

    fn partitions_now(&self, topic: TopicId) -> usize {
        let partitions = &self.topics[topic.0].partitions;
        partitions
            .iter()
            .filter(|partition| !partition.gone)
            .count()
    }

    fn ready(&mut self, topic: TopicId, partition: usize, now: Instant) -> bool {
        let Some(leader) = self.usable(topic, partition, now) else {
            return false;
        };
        let Some(address) = self.nodes.get(&leader).cloned() else {
            self.refresh(now);
            return false;
        };
        self.connect(&address, now);
        self.peers[&address].has_room(&self.options, now) && self.give_identity(topic, partition)
    }

    fn batch_bytes_max(&self, topic: TopicId, partition: usize) -> usize {
        let failing = self.topics[topic.0].partitions[partition].failures > 0;
        match failing || self.is_crowded() {
            true => TRIAL_BYTES,
            false => usize::MAX,
        }
    }

    fn submit(&mut self, topic: TopicId, partition: usize, builder: &mut BatchBuilder, receipt: R) {
        assert!(!builder.is_empty(), "an empty batch is not sent");
        let recycled = self.spare.pop().unwrap_or_default();
        let (records, plain_bytes) = (builder.records(), builder.bytes());
        self.last_id += 1;
        let id = self.last_id;
        let part = &mut self.topics[topic.0].partitions[partition];
        let producer = part.producer.expect("a ready partition has a producer id");
        let sequence = part.next_sequence;
        let bytes = builder.finish(producer, sequence, recycled);
        self.waiting_bytes += bytes.len();
        part.next_sequence = next_sequence(part.next_sequence, records);
        part.batches.push_back(Batch {
            id,
            bytes: Arc::new(bytes),
            sequence,
            records,
            plain_bytes,
            receipt,
            state: BatchState::Unsent,
            poison: None,
            uncertain: false,
        });
        self.queue(topic, partition);
    }

    fn next_outcome(&mut self) -> Option<Outcome<R>> {
        self.outcomes.pop_front()
    }

    fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    fn is_busy(&self) -> bool {
        if !self.outcomes.is_empty() {
            return true;
        }
        let partitions = || self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions().any(|partition| !partition.batches.is_empty())
    }

    fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Up(id, versions) => self.up(id, versions),
            Event::Answer(id, answer) => self.answer(id, &answer, now),
            Event::Down(id, error) => self.down(id, error, now),
        }
    }

    fn poll(&mut self, now: Instant) -> Option<Instant> {
        debug_assert_eq!(self.waiting_bytes, self.waiting_bytes_counted());
        self.expire(now);
        self.ask(now);
        self.flush(now);
        self.next_deadline(now)
    }
}

/// Its connections end with it, and do not count any more.
impl<R> Drop for Producer<R> {
    fn drop(&mut self) {
        for peer in self.peers.values() {
            let stood = |link: &peer::Link| link.serves;
            self.stats
                .disconnected(peer.link.as_ref().is_some_and(stood), true);
        }
    }
}

/// The pause before attempt `failures` + 1: doubling up to the longest.
pub(super) fn pause(backoff: (Duration, Duration), failures: u32) -> Duration {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.subsec_nanos());
    jittered(backoff, failures, seed)
}

/// A tenth more or less, but never more than the longest, so that many producers do not come
/// back in step.
fn jittered((first, longest): (Duration, Duration), failures: u32, seed: u32) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let jitter = 0.9 + f64::from(seed % 1_000) / 5_000.0;
    doubled.min(longest).mul_f64(jitter).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pause_is_longer_than_the_longest() {
        let backoff = (Duration::from_millis(100), Duration::from_secs(2));
        for seed in 0..1_000 {
            let first = jittered(backoff, 1, seed).as_millis();
            assert!((90..=110).contains(&first), "{first} ms");
            let last = jittered(backoff, 40, seed).as_millis();
            assert!((1_800..=2_000).contains(&last), "{last} ms");
        }
    }
}
