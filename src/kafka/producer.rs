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

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::address::Address;
use super::batch::{BatchBuilder, ProducerId, next_sequence};
use super::connection::{Connection, ConnectionId, Event, Timeouts};
use super::error::{Cause, ConnectionError, ErrorCode, Stage, Verdict};
use super::wire::{self, ProducePart, Versions};

/// Events that may wait for the producer's thread; connections block beyond.
const EVENTS_MAX: usize = 1_024;
/// Batch buffers kept for reuse.
const SPARE_BUFFERS_MAX: usize = 2;

/// How a [`Producer`] behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to ask for the cluster; at least one.
    pub bootstrap: Vec<Address>,
    /// The name the brokers' logs and quotas know us by.
    pub client_id: String,
    /// Opening a TCP connection.
    pub connect_timeout: Duration,
    /// The first exchange on a new connection.
    pub handshake_timeout: Duration,
    /// How long to wait for an answer before the connection is given up.
    pub request_timeout: Duration,
    /// Requests in flight to one broker; more than 5 breaks idempotence (KIP-98).
    pub in_flight_max: usize,
    /// Bytes of batches in flight to one broker, beyond which no other request
    /// follows; bounds memory.
    pub in_flight_bytes_max: usize,
    /// Bytes of batches in one request; one batch always fits.
    pub request_bytes_max: usize,
    /// First and longest pause before something is tried again.
    pub backoff: (Duration, Duration),
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
            client_id: "logship".to_owned(),
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            in_flight_max: 5,
            in_flight_bytes_max: 2_500_000,
            request_bytes_max: 1_000_000,
            backoff: (Duration::from_millis(100), Duration::from_secs(2)),
            creation_grace: Duration::from_secs(3),
            waiting_pause: Duration::from_secs(1),
            metadata_age_max: Duration::from_secs(300),
        }
    }
}

/// A topic this producer knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId(usize);

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
        /// `Some(bytes)` when the first of them, that many bytes before
        /// compression, was more than the broker takes: make smaller ones.
        too_large: Option<usize>,
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
        /// What the broker answered.
        code: ErrorCode,
    },
}

/// Sends batches to the partitions of a cluster.
#[derive(Debug)]
pub struct Producer<R> {
    options: Options,
    events: (Sender<Event>, Receiver<Event>),
    peers: HashMap<Address, Peer>,
    nodes: HashMap<i32, Address>,
    bootstrap_next: usize,
    topics: Vec<Topic<R>>,
    topic_ids: HashMap<String, TopicId>,
    identity: Identity,
    metadata: Metadata,
    /// Batches to be sent, oldest first: topic, partition.
    unsent: VecDeque<(TopicId, usize)>,
    outcomes: VecDeque<Outcome<R>>,
    notices: VecDeque<Notice>,
    spare: Vec<Vec<u8>>,
    last_id: u64,
}

/// Where we stand with one broker address.
#[derive(Debug, Default)]
struct Peer {
    link: Option<Link>,
    failures: u32,
    retry_at: Option<Instant>,
    told: bool,
    silent_until: Option<Instant>,
}

#[derive(Debug)]
struct Link {
    connection: Connection,
    /// `None` while it connects.
    versions: Option<Versions>,
    pending: VecDeque<Pending>,
    correlation: i32,
}

#[derive(Debug)]
struct Pending {
    correlation: i32,
    deadline: Instant,
    kind: Request,
}

#[derive(Debug)]
enum Request {
    Metadata,
    InitProducerId,
    Produce { parts: Vec<Sent>, bytes: usize },
}

/// One batch of a Produce request.
#[derive(Debug)]
struct Sent {
    topic: TopicId,
    partition: usize,
    batch: u64,
}

#[derive(Debug)]
struct Topic<R> {
    name: String,
    error: Option<ErrorCode>,
    /// Since when it has an error.
    failing_since: Option<Instant>,
    /// The error was told.
    told: bool,
    /// The error came from Produce, so that Metadata cannot say it is over.
    denied: bool,
    partitions: Vec<Partition<R>>,
    /// Partitions that the topic had when it was first seen; see
    /// [`Producer::partitions`].
    first_count: usize,
}

#[derive(Debug)]
struct Partition<R> {
    leader: Option<i32>,
    producer: Option<ProducerId>,
    /// The producer id whose sequences broke here, never used again.
    broken: Option<ProducerId>,
    /// The broker has acknowledged something under the producer id. Until then
    /// it takes *any* sequence for the first (KIP-360), so that a second batch
    /// in flight could get in before the first one.
    proven: bool,
    next_sequence: i32,
    batches: VecDeque<Batch<R>>,
    /// Settle what is in flight, then resend one at a time.
    recovering: bool,
    failures: u32,
    retry_at: Option<Instant>,
    /// It stands in `unsent`.
    queued: bool,
    /// The topic was made again with fewer partitions.
    gone: bool,
}

#[derive(Debug)]
struct Batch<R> {
    id: u64,
    bytes: Arc<Vec<u8>>,
    records: u32,
    /// Before compression.
    plain_bytes: usize,
    receipt: R,
    state: BatchState,
    poison: Option<ErrorCode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchState {
    Unsent,
    InFlight,
    /// Acknowledged, but one before it is not yet.
    Acked,
}

#[derive(Debug)]
struct Identity {
    current: Option<ProducerId>,
    wanted: bool,
    asking: bool,
    retry_at: Option<Instant>,
    told: bool,
}

#[derive(Debug)]
struct Metadata {
    due: Option<Instant>,
    asking: bool,
    failures: u32,
    newest: Option<Instant>,
}

impl<R> Default for Partition<R> {
    fn default() -> Self {
        Partition {
            leader: None,
            producer: None,
            broken: None,
            proven: false,
            next_sequence: 0,
            batches: VecDeque::new(),
            recovering: false,
            failures: 0,
            retry_at: None,
            queued: false,
            gone: false,
        }
    }
}

impl<R> Partition<R> {
    fn in_flight(&self) -> bool {
        self.batches
            .iter()
            .any(|batch| batch.state == BatchState::InFlight)
    }

    fn front_is_acked(&self) -> bool {
        let front = self.batches.front();
        front.is_some_and(|batch| batch.state == BatchState::Acked)
    }

    fn first_unsent(&self) -> Option<usize> {
        self.batches
            .iter()
            .position(|batch| batch.state == BatchState::Unsent)
    }
}

impl<R> Producer<R> {
    /// A producer that connects when it has something to do.
    pub fn new(options: Options) -> Self {
        Producer {
            options,
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
                told: false,
            },
            metadata: Metadata {
                due: None,
                asking: false,
                failures: 0,
                newest: None,
            },
            unsent: VecDeque::new(),
            outcomes: VecDeque::new(),
            notices: VecDeque::new(),
            spare: Vec::new(),
            last_id: 0,
        }
    }

    /// What the connections say; feed it to [`Producer::handle`].
    pub fn events(&self) -> Receiver<Event> {
        self.events.1.clone()
    }

    /// The topic of this name; asks for its metadata when it is new.
    pub fn topic(&mut self, name: &str, now: Instant) -> TopicId {
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

    /// The name of a topic.
    pub fn topic_name(&self, topic: TopicId) -> &str {
        &self.topics[topic.0].name
    }

    /// Why nothing of this topic gets through, if so.
    pub fn topic_error(&self, topic: TopicId) -> Option<ErrorCode> {
        self.topics[topic.0].error
    }

    /// How many partitions the topic had when it was first seen, 0 while that
    /// is not known. It stays when partitions are added, so that what is
    /// hashed to a partition stays there; it follows when they get fewer.
    pub fn partitions(&self, topic: TopicId) -> usize {
        self.topics[topic.0].first_count
    }

    /// How many partitions the topic has now.
    pub fn partitions_now(&self, topic: TopicId) -> usize {
        let partitions = &self.topics[topic.0].partitions;
        partitions
            .iter()
            .filter(|partition| !partition.gone)
            .count()
    }

    /// True when a batch for this partition would go out at once. When only a
    /// connection or a producer id is missing, it is on its way after this.
    pub fn ready(&mut self, topic: TopicId, partition: usize, now: Instant) -> bool {
        let Some(leader) = self.usable(topic, partition) else {
            return false;
        };
        let Some(address) = self.nodes.get(&leader).cloned() else {
            self.refresh(now);
            return false;
        };
        self.connect(&address, now);
        self.peers[&address].has_room(&self.options, now) && self.give_identity(topic, partition)
    }

    /// The leader of a partition to which another batch may be submitted.
    fn usable(&self, topic: TopicId, partition: usize) -> Option<i32> {
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

    /// Finishes the builder's batch and submits it to a partition that is
    /// [`ready`](Producer::ready); [`Producer::poll`] sends it.
    ///
    /// # Panics
    /// When the partition is not ready or the builder is empty.
    pub fn submit(
        &mut self,
        topic: TopicId,
        partition: usize,
        builder: &mut BatchBuilder,
        receipt: R,
    ) {
        assert!(!builder.is_empty(), "an empty batch is not sent");
        let recycled = self.spare.pop().unwrap_or_default();
        let (records, plain_bytes) = (builder.records(), builder.bytes());
        self.last_id += 1;
        let id = self.last_id;
        let part = &mut self.topics[topic.0].partitions[partition];
        let producer = part.producer.expect("a ready partition has a producer id");
        let bytes = builder.finish(producer, part.next_sequence, recycled);
        part.next_sequence = next_sequence(part.next_sequence, records);
        part.batches.push_back(Batch {
            id,
            bytes: Arc::new(bytes),
            records,
            plain_bytes,
            receipt,
            state: BatchState::Unsent,
            poison: None,
        });
        self.queue(topic, partition);
    }

    /// The next outcome, oldest first.
    pub fn next_outcome(&mut self) -> Option<Outcome<R>> {
        self.outcomes.pop_front()
    }

    /// The next notice, oldest first.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// True while a submitted batch has no outcome that the caller has seen.
    pub fn is_busy(&self) -> bool {
        if !self.outcomes.is_empty() {
            return true;
        }
        let partitions = || self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions().any(|partition| !partition.batches.is_empty())
    }

    /// Takes in what a connection says.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Up(id, versions) => self.up(id, versions),
            Event::Answer(id, answer) => self.answer(id, &answer, now),
            Event::Down(id, error) => self.down(id, error, now),
        }
    }

    /// Moves everything on that can move. Returns when it wants to be called
    /// again at the latest.
    pub fn poll(&mut self, now: Instant) -> Option<Instant> {
        self.expire(now);
        self.ask(now);
        self.flush(now);
        self.next_deadline(now)
    }

    // ---- connections -----------------------------------------------------

    fn connect(&mut self, address: &Address, now: Instant) {
        let peer = self.peers.entry(address.clone()).or_default();
        if peer.link.is_some() || peer.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.last_id += 1;
        let timeouts = Timeouts {
            connect: self.options.connect_timeout,
            handshake: self.options.handshake_timeout,
        };
        peer.link = Some(Link {
            connection: Connection::open(
                self.last_id,
                address.clone(),
                &self.options.client_id,
                &timeouts,
                self.events.0.clone(),
            ),
            versions: None,
            pending: VecDeque::new(),
            correlation: 0,
        });
    }

    /// The address and peer that a live connection belongs to.
    fn owner(&mut self, id: ConnectionId) -> Option<(&Address, &mut Peer)> {
        self.peers.iter_mut().find(|(_, peer)| {
            peer.link
                .as_ref()
                .is_some_and(|link| link.connection.id() == id)
        })
    }

    fn up(&mut self, id: ConnectionId, versions: Versions) {
        let Some((address, peer)) = self.owner(id) else {
            return;
        };
        let address = address.clone();
        peer.failures = 0;
        peer.retry_at = None;
        let first = !std::mem::replace(&mut peer.told, false);
        if let Some(link) = &mut peer.link {
            link.versions = Some(versions);
        }
        log::debug!("connected to broker {address} first={first} versions={versions:?}");
        self.notices.push_back(Notice::Reached(address));
    }

    fn down(&mut self, id: ConnectionId, error: ConnectionError, now: Instant) {
        let backoff = self.options.backoff;
        let Some((_, peer)) = self.owner(id) else {
            return;
        };
        let link = peer.link.take().expect("the owner was found by its link");
        let idle = link.pending.is_empty() && error.is_hang_up() && link.versions.is_some();
        if !idle {
            peer.failures += 1;
            peer.retry_at = Some(now + pause(backoff, peer.failures));
            peer.told = true;
            self.notices.push_back(Notice::Unreachable(error));
        }
        for pending in link.pending {
            self.unanswered(pending.kind, now);
        }
        if !idle {
            self.refresh_later(now);
        }
    }

    fn unanswered(&mut self, request: Request, now: Instant) {
        match request {
            Request::Metadata => {
                self.metadata.asking = false;
                self.refresh_later(now);
            }
            Request::InitProducerId => self.identity.asking = false,
            Request::Produce { parts, .. } => {
                for part in parts {
                    self.settle(&part, None, now);
                }
            }
        }
    }

    /// Gives up connections whose oldest request was not answered in time.
    fn expire(&mut self, now: Instant) {
        let overdue: Vec<(ConnectionId, Address)> = self
            .peers
            .iter()
            .filter_map(|(address, peer)| {
                let link = peer.link.as_ref()?;
                let oldest = link.pending.front()?;
                (oldest.deadline <= now).then(|| (link.connection.id(), address.clone()))
            })
            .collect();
        for (id, address) in overdue {
            let error = ConnectionError {
                address,
                stage: Stage::Serving,
                cause: Cause::Silence(self.options.request_timeout),
            };
            self.down(id, error, now);
        }
    }

    // ---- metadata and producer ids ---------------------------------------

    /// Asks for metadata now, if nothing is in the way.
    fn refresh(&mut self, now: Instant) {
        if self.metadata.due.is_none() {
            let soonest = self
                .metadata
                .newest
                .map_or(now, |newest| newest + self.options.backoff.0);
            self.metadata.due = Some(soonest.max(now));
        }
    }

    /// Asks for metadata after a pause that grows with failures.
    fn refresh_later(&mut self, now: Instant) {
        if self.metadata.due.is_none() {
            self.metadata.failures += 1;
            self.metadata.due = Some(now + pause(self.options.backoff, self.metadata.failures));
        }
    }

    fn ask(&mut self, now: Instant) {
        if self.topics.is_empty() {
            return;
        }
        let stale = self
            .metadata
            .newest
            .is_some_and(|newest| now >= newest + self.options.metadata_age_max);
        let metadata =
            !self.metadata.asking && (stale || self.metadata.due.is_some_and(|due| due <= now));
        let identity = self.identity.wanted
            && !self.identity.asking
            && self.identity.retry_at.is_none_or(|at| at <= now);
        if !metadata && !identity {
            return;
        }
        let Some(address) = self.any_peer(now) else {
            return;
        };
        if metadata {
            self.ask_metadata(&address, now);
        }
        if identity {
            self.ask_identity(&address, now);
        }
    }

    /// A broker with a working connection; starts connecting when there is none.
    fn any_peer(&mut self, now: Instant) -> Option<Address> {
        let up = self.peers.iter().find(|(_, peer)| {
            peer.silent_until.is_none_or(|until| until <= now)
                && peer
                    .link
                    .as_ref()
                    .is_some_and(|link| link.versions.is_some() && link.pending.len() < 8)
        });
        if let Some((address, _)) = up {
            return Some(address.clone());
        }
        let connecting = |peer: &Peer| peer.link.as_ref().is_some_and(|l| l.versions.is_none());
        if !self.peers.values().any(connecting) {
            let candidates: Vec<Address> = self
                .options
                .bootstrap
                .iter()
                .chain(self.nodes.values())
                .cloned()
                .collect();
            for _ in 0..candidates.len() {
                let address = candidates[self.bootstrap_next % candidates.len()].clone();
                self.bootstrap_next = self.bootstrap_next.wrapping_add(1);
                self.connect(&address, now);
                if connecting(&self.peers[&address]) {
                    break;
                }
            }
        }
        None
    }

    fn ask_metadata(&mut self, address: &Address, now: Instant) {
        let deadline = now + self.options.request_timeout;
        let link = link_of(&mut self.peers, address);
        let version = link.versions().metadata;
        let frame = wire::metadata_request(
            version,
            link.next_correlation(),
            &self.options.client_id,
            self.topics.iter().map(|topic| topic.name.as_str()),
            true,
        );
        link.send(frame, deadline, Request::Metadata);
        self.metadata.asking = true;
        self.metadata.due = None;
    }

    fn ask_identity(&mut self, address: &Address, now: Instant) {
        let deadline = now + self.options.request_timeout;
        let link = link_of(&mut self.peers, address);
        let version = link.versions().init_producer_id;
        let frame = wire::init_producer_id_request(
            version,
            link.next_correlation(),
            &self.options.client_id,
        );
        link.send(frame, deadline, Request::InitProducerId);
        self.identity.asking = true;
    }

    fn apply_identity(&mut self, answer: Result<ProducerId, ErrorCode>, now: Instant) {
        self.identity.asking = false;
        match answer {
            Ok(id) => {
                self.identity.current = Some(id);
                self.identity.wanted = false;
                self.identity.told = false;
                self.identity.retry_at = None;
            }
            Err(code) => {
                self.identity.retry_at = Some(now + self.options.waiting_pause);
                // Coordinators load for a moment after a broker's start.
                if code.verdict() != Verdict::Retry && !self.identity.told {
                    self.identity.told = true;
                    self.notices.push_back(Notice::NoProducerId(code));
                }
            }
        }
    }

    fn apply_metadata(&mut self, answer: wire::ClusterMetadata, now: Instant) {
        self.metadata.asking = false;
        if answer.brokers.is_empty() {
            return self.refresh_later(now); // a broker that is just starting
        }
        self.metadata.newest = Some(now);
        self.nodes = answer.brokers.into_iter().collect();
        let mut settled = true;
        for topic in answer.topics {
            let Some(&id) = self.topic_ids.get(&topic.name) else {
                continue;
            };
            if topic.code == ErrorCode::NONE {
                self.topic_recovers(id);
                settled &= self.apply_leaders(id, topic.leaders, now);
            } else {
                settled = false;
                self.topic_fails(id, topic.code, now);
            }
        }
        if settled {
            self.metadata.failures = 0;
        } else if self.topics.iter().any(|topic| topic.told) {
            self.metadata.due = Some(now + self.options.waiting_pause);
        } else {
            self.refresh_later(now);
        }
    }

    /// Takes over the leaders of a topic. False when one has none.
    fn apply_leaders(
        &mut self,
        id: TopicId,
        leaders: Vec<(i32, Option<i32>)>,
        now: Instant,
    ) -> bool {
        let topic = &mut self.topics[id.0];
        let count = leaders.len();
        if topic.partitions.len() < count {
            topic.partitions.resize_with(count, Partition::default);
        }
        if topic.first_count == 0 || topic.first_count > count {
            topic.first_count = count;
        }
        let mut complete = true;
        for (index, leader) in leaders {
            let part = usize::try_from(index)
                .ok()
                .and_then(|index| topic.partitions.get_mut(index));
            let Some(part) = part else { continue };
            complete &= leader.is_some();
            part.gone = false;
            if part.leader != leader {
                part.leader = leader;
                // A new leader: no reason to wait any longer.
                part.retry_at = part.retry_at.map(|at| at.min(now));
            }
        }
        for index in count..topic.partitions.len() {
            self.topics[id.0].partitions[index].gone = true;
            self.advance(id, index);
        }
        complete
    }

    fn topic_fails(&mut self, id: TopicId, code: ErrorCode, now: Instant) {
        let topic = &mut self.topics[id.0];
        topic.error = Some(code);
        let since = *topic.failing_since.get_or_insert(now);
        // A topic that is just being made is unknown, or without a leader, for a moment.
        let passing = match code.verdict() {
            Verdict::Retry | Verdict::Refresh => now < since + self.options.creation_grace,
            _ => false,
        };
        if !passing && !topic.told {
            topic.told = true;
            self.notices
                .push_back(Notice::TopicWaits(topic.name.clone(), code));
        }
    }

    /// Metadata knows the topic; if Produce was what failed, it is tried again.
    fn topic_recovers(&mut self, id: TopicId) {
        let topic = &mut self.topics[id.0];
        topic.error = None;
        topic.failing_since = None;
        if !topic.denied && std::mem::take(&mut topic.told) {
            self.notices
                .push_back(Notice::TopicReady(topic.name.clone()));
        }
    }

    // ---- answers -----------------------------------------------------------

    fn answer(&mut self, id: ConnectionId, answer: &[u8], now: Instant) {
        let Some((address, peer)) = self.owner(id) else {
            return;
        };
        let address = address.clone();
        let taken = take_pending(peer, answer);
        let outcome = taken.and_then(|(kind, versions, body)| {
            self.understand(&address, kind, versions, body, now)
        });
        if let Err(cause) = outcome {
            let error = ConnectionError {
                address,
                stage: Stage::Serving,
                cause,
            };
            self.down(id, error, now);
        }
    }

    fn understand(
        &mut self,
        address: &Address,
        kind: Request,
        versions: Versions,
        body: &[u8],
        now: Instant,
    ) -> Result<(), Cause> {
        let decoded = match &kind {
            Request::Metadata => wire::metadata_response(body, versions.metadata)
                .map(|answer| self.apply_metadata(answer, now)),
            Request::InitProducerId => {
                wire::init_producer_id_response(body).map(|answer| self.apply_identity(answer, now))
            }
            Request::Produce { parts, .. } => wire::produce_response(body, versions.produce)
                .map(|answer| self.apply_produce(address, parts, answer, now)),
        };
        // An answer that cannot be read settles nothing.
        decoded.inspect_err(|_| self.unanswered(kind, now))
    }

    fn apply_produce(
        &mut self,
        address: &Address,
        parts: &[Sent],
        (outcomes, throttle): (Vec<wire::ProduceOutcome>, Duration),
        now: Instant,
    ) {
        if !throttle.is_zero()
            && let Some(peer) = self.peers.get_mut(address)
        {
            peer.silent_until = Some(now + throttle);
        }
        for part in parts {
            let code = outcomes
                .iter()
                .find(|outcome| {
                    outcome.partition as usize == part.partition
                        && outcome.topic == self.topics[part.topic.0].name
                })
                .map(|outcome| outcome.code);
            self.settle(part, code, now);
        }
    }

    /// One batch is no longer in flight: `None` when nobody knows what became of it.
    fn settle(&mut self, sent: &Sent, code: Option<ErrorCode>, now: Instant) {
        let topic = &mut self.topics[sent.topic.0];
        let partition = &mut topic.partitions[sent.partition];
        let Some(at) = partition.batches.iter().position(|b| b.id == sent.batch) else {
            return;
        };
        let verdict = code.map_or(Verdict::Refresh, ErrorCode::verdict);
        if verdict == Verdict::Accepted {
            partition.batches[at].state = BatchState::Acked;
            partition.proven = true;
            self.advance(sent.topic, sent.partition);
            return;
        }
        let batch = &mut partition.batches[at];
        batch.state = BatchState::Unsent;
        // A gap behind a batch that failed is no trouble of its own: the
        // sequences are broken only when the first batch, alone, hears of it.
        let alone = at == 0 && partition.recovering && !partition.in_flight();
        let echo = verdict == Verdict::NewProducer && !alone;
        let batch = &mut partition.batches[at];
        batch.poison = code.filter(|_| verdict == Verdict::Poison);
        partition.recovering = true;
        if let Some(code) = code.filter(|_| !echo) {
            self.notices.push_back(Notice::Retried {
                topic: topic.name.clone(),
                partition: sent.partition as i32,
                code,
            });
        }
        match verdict {
            Verdict::Accepted | Verdict::Poison => {}
            Verdict::NewProducer if echo => {}
            Verdict::NewProducer => {
                self.give_back(sent.topic, sent.partition, None);
                return;
            }
            Verdict::Retry | Verdict::Refresh => {
                partition.failures += 1;
                partition.retry_at = Some(now + pause(self.options.backoff, partition.failures));
            }
            Verdict::TopicWaits => {
                partition.retry_at = Some(now + self.options.waiting_pause);
                topic.denied = true;
                self.topic_fails(sent.topic, code.expect("a verdict on a code"), now);
                self.metadata.due = Some(now + self.options.waiting_pause);
            }
        }
        if verdict == Verdict::Refresh {
            self.refresh(now);
        }
        self.advance(sent.topic, sent.partition);
    }

    /// Reports what is acknowledged in order and decides what comes next for a
    /// partition whose state has changed.
    fn advance(&mut self, id: TopicId, index: usize) {
        let topic = &mut self.topics[id.0];
        let partition = &mut topic.partitions[index];
        while partition.front_is_acked()
            && let Some(batch) = partition.batches.pop_front()
        {
            partition.failures = 0;
            partition.retry_at = None;
            if std::mem::take(&mut topic.denied) {
                topic.told = false;
                self.notices
                    .push_back(Notice::TopicReady(topic.name.clone()));
            }
            if let Ok(bytes) = Arc::try_unwrap(batch.bytes)
                && self.spare.len() < SPARE_BUFFERS_MAX
            {
                self.spare.push(bytes);
            }
            self.outcomes.push_back(Outcome::Acked {
                topic: id,
                receipt: batch.receipt,
            });
        }
        if partition.batches.is_empty() {
            partition.recovering = false;
            return;
        }
        if partition.in_flight() {
            return;
        }
        if partition.gone {
            self.give_back(id, index, None);
        } else if let Some(code) = partition.batches[0].poison {
            self.set_aside(id, index, code);
        } else if partition.recovering {
            self.queue(id, index);
        }
    }

    /// Deals with a batch that is not accepted as it is, everything else of its
    /// partition being settled.
    fn set_aside(&mut self, id: TopicId, index: usize, code: ErrorCode) {
        let partition = &mut self.topics[id.0].partitions[index];
        let first = &partition.batches[0];
        if first.records > 1 {
            let bytes = first.plain_bytes;
            self.give_back(id, index, Some(bytes));
            return;
        }
        if let Some(batch) = partition.batches.pop_front() {
            self.outcomes.push_back(Outcome::Refused {
                topic: id,
                receipt: batch.receipt,
                code,
            });
        }
        self.give_back(id, index, None);
    }

    /// Returns all batches of a partition that are not in the log, none of them
    /// being in flight, and lets it go on with a producer id that is new to it.
    fn give_back(&mut self, id: TopicId, index: usize, too_large: Option<usize>) {
        let partition = &mut self.topics[id.0].partitions[index];
        let acked = |batch: &Batch<R>| batch.state == BatchState::Acked;
        let (acked, returned): (Vec<_>, Vec<_>) = partition.batches.drain(..).partition(acked);
        partition.broken = partition.producer.take();
        partition.recovering = false;
        partition.retry_at = None;
        for Batch { receipt, .. } in acked {
            self.outcomes
                .push_back(Outcome::Acked { topic: id, receipt });
        }
        let receipts: Vec<R> = returned.into_iter().map(|batch| batch.receipt).collect();
        if !receipts.is_empty() {
            self.outcomes.push_back(Outcome::Returned {
                topic: id,
                receipts,
                too_large,
            });
        }
    }

    // ---- sending -----------------------------------------------------------

    fn queue(&mut self, topic: TopicId, index: usize) {
        let partition = &mut self.topics[topic.0].partitions[index];
        if !std::mem::replace(&mut partition.queued, true) {
            self.unsent.push_back((topic, index));
        }
    }

    /// Sends what can be sent: one request a broker with a batch of each of its
    /// partitions, again until the brokers have enough or nothing is left.
    fn flush(&mut self, now: Instant) {
        loop {
            let mut requests: HashMap<Address, (usize, Vec<(TopicId, usize)>)> = HashMap::new();
            let waiting = std::mem::take(&mut self.unsent);
            for (topic, index) in waiting {
                if !self.still_unsent(topic, index) {
                    continue;
                }
                let Some((address, bytes)) = self.destination(topic, index, now) else {
                    self.unsent.push_back((topic, index));
                    continue;
                };
                let request = requests.entry(address).or_default();
                if request.0 > 0 && request.0 + bytes > self.options.request_bytes_max {
                    self.unsent.push_back((topic, index));
                    continue;
                }
                request.0 += bytes;
                request.1.push((topic, index));
            }
            if requests.is_empty() {
                return;
            }
            for (address, (_, parts)) in requests {
                self.send_produce(&address, parts, now);
            }
        }
    }

    fn still_unsent(&mut self, topic: TopicId, index: usize) -> bool {
        let partition = &mut self.topics[topic.0].partitions[index];
        let blocked = partition.recovering && partition.in_flight();
        partition.queued = partition.first_unsent().is_some() && !blocked;
        partition.queued
    }

    /// Where the next batch of a partition goes, and its bytes; `None` if not now.
    fn destination(
        &mut self,
        topic: TopicId,
        index: usize,
        now: Instant,
    ) -> Option<(Address, usize)> {
        let partition = &self.topics[topic.0].partitions[index];
        if self.topics[topic.0].error.is_some() || partition.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let bytes = partition.batches[partition.first_unsent()?].bytes.len();
        let leader = partition.leader;
        let Some(address) = leader.and_then(|leader| self.nodes.get(&leader)).cloned() else {
            self.refresh(now);
            return None;
        };
        self.connect(&address, now);
        let room = self.peers[&address].has_room(&self.options, now);
        room.then_some((address, bytes))
    }

    fn send_produce(&mut self, address: &Address, mut parts: Vec<(TopicId, usize)>, now: Instant) {
        parts.sort_by_key(|&(topic, index)| (topic.0, index));
        let mut sent = Vec::with_capacity(parts.len());
        let mut produce = Vec::with_capacity(parts.len());
        for &(id, index) in &parts {
            let partition = &mut self.topics[id.0].partitions[index];
            let at = partition
                .first_unsent()
                .expect("only unsent batches are flushed");
            let batch = &mut partition.batches[at];
            batch.state = BatchState::InFlight;
            partition.queued = false;
            sent.push(Sent {
                topic: id,
                partition: index,
                batch: batch.id,
            });
        }
        for part in &sent {
            let topic = &self.topics[part.topic.0];
            let batches = &topic.partitions[part.partition].batches;
            let batch = batches
                .iter()
                .find(|batch| batch.id == part.batch)
                .expect("it was just marked");
            produce.push(ProducePart {
                topic: &topic.name,
                partition: part.partition as i32,
                batch: Arc::clone(&batch.bytes),
            });
        }
        let link = link_of(&mut self.peers, address);
        let version = link.versions().produce;
        let correlation = link.next_correlation();
        // The broker gives up first, so that it is the one to say why.
        let patience = self.options.request_timeout / 2;
        let frame = wire::produce_request(
            version,
            correlation,
            &self.options.client_id,
            patience,
            &produce,
        );
        let deadline = now + self.options.request_timeout;
        let request = Request::Produce {
            parts: sent,
            bytes: produce.iter().map(|part| part.batch.len()).sum(),
        };
        link.send(frame, deadline, request);
        for (topic, index) in parts {
            let partition = &self.topics[topic.0].partitions[index];
            if !partition.recovering && partition.first_unsent().is_some() {
                self.queue(topic, index);
            }
        }
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

impl Link {
    fn versions(&self) -> Versions {
        self.versions.expect("requests follow the handshake")
    }

    fn next_correlation(&mut self) -> i32 {
        self.correlation = self.correlation.wrapping_add(1);
        self.correlation
    }

    fn send(&mut self, frame: wire::Frame, deadline: Instant, kind: Request) {
        // When the connection is closing, its end settles the request.
        self.connection.send(frame);
        self.pending.push_back(Pending {
            correlation: self.correlation,
            deadline,
            kind,
        });
    }

    /// Produce requests in flight, and the bytes of their batches.
    fn produce_in_flight(&self) -> (usize, usize) {
        let produces = self
            .pending
            .iter()
            .filter_map(|pending| match pending.kind {
                Request::Produce { bytes, .. } => Some(bytes),
                _ => None,
            });
        produces.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes))
    }
}

impl Peer {
    /// True when another Produce request may go out at once.
    fn has_room(&self, options: &Options, now: Instant) -> bool {
        let Some(link) = self.link.as_ref().filter(|link| link.versions.is_some()) else {
            return false;
        };
        let (requests, bytes) = link.produce_in_flight();
        requests < options.in_flight_max
            && bytes < options.in_flight_bytes_max
            && self.silent_until.is_none_or(|until| until <= now)
    }
}

fn link_of<'a>(peers: &'a mut HashMap<Address, Peer>, address: &Address) -> &'a mut Link {
    peers
        .get_mut(address)
        .and_then(|peer| peer.link.as_mut())
        .expect("the caller chose a connected peer")
}

/// Brokers answer the requests of a connection in their order.
fn take_pending<'a>(
    peer: &mut Peer,
    answer: &'a [u8],
) -> Result<(Request, Versions, &'a [u8]), Cause> {
    let link = peer.link.as_mut().expect("the owner was found by its link");
    let (correlation, body) = wire::split_correlation(answer)?;
    match link.pending.front() {
        Some(pending) if pending.correlation == correlation => {
            let pending = link.pending.pop_front().expect("it was just seen");
            Ok((pending.kind, link.versions(), body))
        }
        _ => Err(Cause::Protocol(format!(
            "an answer to request {correlation}, which is not the next"
        ))),
    }
}

/// The pause before attempt `failures` + 1: doubling, with up to a fifth of
/// jitter so that many producers do not come back in step.
fn pause((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let base = doubled.min(longest);
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.subsec_nanos());
    base.mul_f64(0.9 + f64::from(seed % 1_000) / 5_000.0)
}
