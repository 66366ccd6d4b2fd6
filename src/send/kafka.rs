//! The producer thread: takes chunks from its queue, batches them, and brings
//! the acknowledgements home.
//!
//! It holds no line that the ledger does not know to be on its way. How batches
//! reach a broker is `crate::kafka`'s business, which has two clients for that; which
//! lines go into them, and when, is decided here and is the same with both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};

use crate::kafka::{
    self, BatchBuilder, Client, Kind, Legacy, MessageBuilder, Notice, Outcome, Producer, Records,
    Return, TopicId,
};
use crate::queue::Chunk;
use crate::record::Partitioning;
use crate::text::as_value;
use crate::thread::{Stop, fault_point};

use super::lane::{Encoder, Lane, Place, Receipt};
use super::waits::Waits;
use super::{DeadLetters, Notices, Options};

/// A destination that takes nothing for so long keeps no room in the queue.
const STALL_AFTER: Duration = Duration::from_secs(1);
/// Longest sleep: bounds how late a stalled lane notices that it can go on.
const WAKE_EVERY: Duration = Duration::from_millis(250);
/// Batches that a topic takes before the next ones may be larger again.
const ACKED_BEFORE_LARGER: u32 = 8;
/// Pause of a lane whose dead letters cannot be written.
const DEAD_LETTER_PAUSE: Duration = Duration::from_secs(5);

/// Which lane a chunk waits in.
type LaneKey = (TopicId, Place);

/// One producer of the pool.
pub struct KafkaSender {
    options: Options,
    kafka: kafka::Options,
    stats: Arc<kafka::Stats>,
    told: Told,
    topics: Vec<Arc<str>>,
}

/// Who hears of what went wrong.
#[derive(Clone)]
struct Told {
    notices: Arc<Notices>,
    dead_letters: Option<Arc<DeadLetters>>,
}

/// Why sending ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Everything is settled, or a stop was requested.
    Done,
    /// A broker is too old for this client, and the other one may be taken.
    BrokerIsOld,
}

impl KafkaSender {
    /// A producer with these options; without `dead_letters`, records that no
    /// broker accepts are told and counted, and kept nowhere.
    pub fn new(
        options: Options,
        kafka: kafka::Options,
        stats: Arc<kafka::Stats>,
        notices: Arc<Notices>,
        dead_letters: Option<Arc<DeadLetters>>,
    ) -> KafkaSender {
        let kafka = kafka::Options {
            compression: options.compression,
            ..kafka
        };
        KafkaSender {
            options,
            kafka,
            stats,
            told: Told {
                notices,
                dead_letters,
            },
            topics: Vec::new(),
        }
    }

    /// Gets ready for a topic before its first line: connects, asks for its
    /// partitions, and tells if that does not work.
    pub fn expect(&mut self, topic: &Arc<str>) {
        self.topics.push(Arc::clone(topic));
    }

    /// Runs until the queue is closed and everything in it is settled, or until
    /// a stop is requested: then what is not settled goes back to the ledger.
    ///
    /// A broker that is too old for our own client hands over to the legacy one. What
    /// the first one held goes back to the ledger, as at its end.
    pub fn run(self, chunks: &Receiver<Chunk>, stop: &Stop) {
        if self.kafka.client != Kind::Legacy && self.modern().run(chunks.clone(), stop) == End::Done
        {
            return;
        }
        self.legacy().run(chunks.clone(), stop);
    }

    fn modern(&self) -> Shipper<Producer<Receipt>> {
        let batch = BatchBuilder::new(self.options.batch_bytes_max, self.options.compression)
            .at_level(self.options.compression_level);
        let client = Producer::new(self.kafka.clone(), Arc::clone(&self.stats))
            .returning_only(Receipt::can_be_read_again);
        self.shipper(client, batch, self.kafka.may_be_legacy())
    }

    fn legacy(&self) -> Shipper<Legacy<Receipt>> {
        let options = &self.options;
        let batch = MessageBuilder::new(options.batch_bytes_max, options.compression);
        let (kafka, stats) = (self.kafka.clone(), Arc::clone(&self.stats));
        let client = Legacy::new(kafka, stats);
        self.shipper(client, batch, false)
    }

    fn shipper<C: Client<Receipt>>(
        &self,
        mut client: C,
        batch: C::Batch,
        may_change: bool,
    ) -> Shipper<C> {
        for topic in &self.topics {
            client.topic(topic, Instant::now());
        }
        Shipper {
            encoder: Encoder::new(Arc::clone(&self.options.host)),
            options: self.options.clone(),
            client,
            batch,
            may_change,
            lanes: HashMap::new(),
            batch_limits: HashMap::new(),
            spread_next: HashMap::new(),
            told: self.told.clone(),
            waits: Waits::new(Arc::clone(&self.stats)),
            draining: false,
            end: End::Done,
        }
    }
}

/// Sends through one client.
struct Shipper<C: Client<Receipt>> {
    options: Options,
    client: C,
    encoder: Encoder,
    batch: C::Batch,
    /// The other client may be taken, should a broker ask for it.
    may_change: bool,
    lanes: HashMap<LaneKey, Lane>,
    /// Topics that take less than a whole batch: what was learned from refusals.
    batch_limits: HashMap<TopicId, Limit>,
    /// The partition after the last one used, of topics that are spread.
    spread_next: HashMap<TopicId, usize>,
    told: Told,
    waits: Waits,
    draining: bool,
    end: End,
}

impl<C: Client<Receipt>> Shipper<C> {
    fn run(mut self, mut chunks: Receiver<Chunk>, stop: &Stop) -> End {
        let events = self.client.events();
        while !(self.draining && self.is_done()) {
            fault_point("send");
            let wake = self.pump(Instant::now());
            if self.end != End::Done {
                break;
            }
            let pause = wake.saturating_duration_since(Instant::now());
            select! {
                recv(chunks) -> chunk => match chunk {
                    Ok(chunk) => self.accept(chunk),
                    Err(_) => {
                        self.draining = true;
                        self.client.drain();
                        chunks = never();
                    }
                },
                recv(events) -> event => self.hear(event.ok()),
                recv(stop.signal()) -> _ => return End::Done,
                default(pause) => {}
            }
            // Whatever else is there already belongs to the same round.
            while let Ok(event) = events.try_recv() {
                self.hear(Some(event));
            }
            while let Ok(chunk) = chunks.try_recv() {
                self.accept(chunk);
            }
        }
        self.end
    }

    fn is_done(&self) -> bool {
        self.lanes.values().all(Lane::is_empty) && !self.client.is_busy()
    }

    fn hear(&mut self, event: Option<C::Event>) {
        if let Some(event) = event {
            self.client.handle(event, Instant::now());
        }
    }

    fn accept(&mut self, chunk: Chunk) {
        let now = Instant::now();
        let topic = self.client.topic(&chunk.file.origin().topic, now);
        // Behind what waits to be placed, even if partitions have come to be
        // known meanwhile: it must not overtake.
        let unplaced = self.lanes.contains_key(&(topic, Place::Unknown));
        let place = match self.place_of(topic, &chunk) {
            Place::Partition(_) if unplaced => Place::Unknown,
            place => place,
        };
        self.lanes
            .entry((topic, place))
            .or_default()
            .push(chunk, now);
    }

    /// Where a chunk goes, as far as the topic's partitions are known.
    fn place_of(&self, topic: TopicId, chunk: &Chunk) -> Place {
        let count = self.client.partitions(topic) as u64;
        match chunk.shape.partitioning {
            Partitioning::Spread => Place::Any,
            Partitioning::File if count == 0 => Place::Unknown,
            Partitioning::File => Place::Partition((chunk.file.flow().hash() % count) as usize),
        }
    }

    /// Sends what is due. Returns when it wants to be called again.
    fn pump(&mut self, now: Instant) -> Instant {
        self.client.poll(now);
        self.settle(now);
        self.place(now);
        let keys: Vec<LaneKey> = self.lanes.keys().copied().collect();
        let mut wake = now + WAKE_EVERY;
        for key in keys {
            if let Some(due) = self.serve(key, now) {
                wake = wake.min(due);
            }
        }
        self.lanes.retain(|_, lane| !lane.is_idle());
        let queued = self.lanes.keys().map(|(topic, _)| *topic);
        self.waits
            .show(queued, |topic| self.client.topic_name(topic), now);
        let due = self.client.poll(now);
        self.settle(now);
        due.map_or(wake, |due| wake.min(due))
    }

    /// Moves chunks to their partitions' lanes once these are known.
    fn place(&mut self, now: Instant) {
        // Nowhere yet, or in a partition that is no more.
        let misplaced = |(topic, place): &&LaneKey| {
            let count = self.client.partitions(*topic);
            match *place {
                Place::Unknown => count > 0,
                Place::Any => false,
                Place::Partition(partition) => count > 0 && partition >= count,
            }
        };
        let ready: Vec<LaneKey> = self.lanes.keys().filter(misplaced).copied().collect();
        for key in ready {
            let Some(mut lane) = self.lanes.remove(&key) else {
                continue;
            };
            lane.release();
            for (_, chunk) in lane.take() {
                let key = (key.0, self.place_of(key.0, &chunk));
                self.lanes.entry(key).or_default().push(chunk, now);
            }
        }
    }

    /// Sends batches of a lane while some are due and its partition takes them.
    /// Returns when the next one is due.
    fn serve(&mut self, key: LaneKey, now: Instant) -> Option<Instant> {
        loop {
            let lane = self.lanes.get_mut(&key)?;
            lane.purge_front();
            if lane.paused_until.is_some_and(|until| until > now) {
                return lane.paused_until;
            }
            let limit = self.batch_limits.get(&key.0).map(|limit| limit.bytes);
            let limit = limit.unwrap_or(self.options.batch_bytes_max);
            let oldest = lane.oldest();
            let due_at = oldest.map(|oldest| oldest + self.options.linger);
            let is_due =
                self.draining || lane.bytes() >= limit || due_at.is_some_and(|at| at <= now);
            let waits = lane.stalled || (oldest.is_some() && is_due);
            if !waits {
                return due_at;
            }
            let Some(partition) = self.ready_partition(key, now) else {
                return self.blocked(key, now);
            };
            let lane = self.lanes.get_mut(&key)?;
            lane.release();
            if lane.is_empty() {
                return None;
            }
            let limit = limit.min(self.client.batch_bytes_max(key.0, partition));
            let receipt = lane.fill(key.1, &mut self.encoder, &mut self.batch, limit);
            if !self.batch.is_empty() {
                self.waits.submitted(key.0, now);
                self.client
                    .submit(key.0, partition, &mut self.batch, receipt);
                self.client.poll(now);
            }
        }
    }

    fn ready_partition(&mut self, (topic, place): LaneKey, now: Instant) -> Option<usize> {
        match place {
            Place::Partition(partition) => {
                let ready = self.client.ready(topic, partition, now);
                return ready.then_some(partition);
            }
            Place::Unknown => return None, // `place` moves it on
            Place::Any => {}
        }
        let count = self.client.partitions_now(topic);
        let next = self.spread_next.entry(topic).or_default();
        let from = std::mem::take(next);
        let ready = (0..count)
            .map(|step| (from + step) % count)
            .find(|&partition| self.client.ready(topic, partition, now));
        self.spread_next
            .insert(topic, ready.map_or(from, |partition| partition + 1));
        ready
    }

    /// Something is due and cannot go out: after a while, it gives its room up.
    fn blocked(&mut self, key: LaneKey, now: Instant) -> Option<Instant> {
        let draining = self.draining;
        let lane = self.lanes.get_mut(&key)?;
        let since = *lane.blocked_since.get_or_insert(now);
        if !lane.stalled && !draining && now >= since + STALL_AFTER {
            lane.stall();
        }
        (!lane.stalled)
            .then_some(since + STALL_AFTER)
            .filter(|&at| at > now)
    }

    // ---- what became of batches ---------------------------------------------

    fn settle(&mut self, now: Instant) {
        while let Some(outcome) = self.client.next_outcome() {
            match outcome {
                Outcome::Acked { topic, receipt } => {
                    self.raise_limit(topic);
                    self.waits.settled(topic, now);
                    for claim in receipt.claims {
                        claim.ack();
                    }
                }
                Outcome::Returned {
                    topic,
                    receipts,
                    why,
                } => {
                    self.waits.returned(topic, receipts.len(), now);
                    match why {
                        Return::Renumbered => {}
                        Return::TooLarge(bytes, code) => self.lower_limit(topic, bytes, code),
                        Return::NoRoom => self.hold(topic, &receipts),
                    }
                    // Dropped, their claims go back to the ledger.
                    drop(receipts);
                    self.purge();
                }
                Outcome::Refused {
                    topic,
                    receipt,
                    code,
                } => self.refused(topic, receipt, code, now),
            }
        }
        while let Some(notice) = self.client.next_notice() {
            match notice {
                Notice::Unreachable(error) if self.may_change && error.wants_legacy() => {
                    self.change(&error);
                }
                notice => tell(&self.told.notices, &notice),
            }
        }
    }

    /// Ends, so that the legacy client goes on.
    fn change(&mut self, error: &kafka::ConnectionError) {
        self.end = End::BrokerIsOld;
        let about = format!("old broker {}", error.address);
        if self.told.notices.is_news(&about, "") {
            log::warn!(
                "going on with the legacy client: {} (broker={}; lines may come twice after a lost connection, headers and times are not sent, lz4 and zstd become snappy)",
                error.cause,
                error.address
            );
        }
    }

    /// Their partition takes nothing for now: its lane stalls, so that nobody reads for it.
    fn hold(&mut self, topic: TopicId, receipts: &[Receipt]) {
        for receipt in receipts {
            if receipt.place == Place::Any {
                continue; // other partitions take it
            }
            let lane = self.lanes.entry((topic, receipt.place)).or_default();
            for claim in &receipt.claims {
                lane.hold_flow(claim.file().flow());
            }
            lane.stall();
        }
    }

    /// What came back is read again: so must be what was read after it.
    fn purge(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.purge();
        }
    }

    /// A batch was more than the topic takes, or holds a record that it never will; the
    /// next ones are half of it.
    fn lower_limit(&mut self, topic: TopicId, bytes: usize, code: kafka::ErrorCode) {
        let limit = self.batch_limits.entry(topic).or_insert(Limit {
            bytes,
            acked: 0,
            too_large: None,
        });
        let refused = bytes.min(limit.bytes);
        limit.bytes = (refused / 2).max(1);
        limit.acked = 0;
        if code.is_of_size() {
            limit.too_large = Some(refused);
            log::info!(
                "the broker takes smaller batches only topic={} batch_bytes={}",
                self.client.topic_name(topic),
                limit.bytes
            );
        }
    }

    /// A batch was taken: after some, the next ones are twice as large again, if the topic
    /// has not refused that for its size.
    fn raise_limit(&mut self, topic: TopicId) {
        let Some(limit) = self.batch_limits.get_mut(&topic) else {
            return;
        };
        limit.acked += 1;
        let next = 2 * limit.bytes;
        if limit.acked < ACKED_BEFORE_LARGER || limit.too_large.is_some_and(|most| next >= most) {
            return;
        }
        (limit.bytes, limit.acked) = (next, 0);
        if next >= self.options.batch_bytes_max {
            self.batch_limits.remove(&topic);
        }
    }

    /// A record that will never be accepted: to the dead letters, and on.
    fn refused(&mut self, topic: TopicId, receipt: Receipt, code: kafka::ErrorCode, now: Instant) {
        let mut is_buried = true;
        let value = receipt.single.unwrap_or_default();
        for claim in receipt.claims {
            let origin = claim.file().origin();
            let (from, to) = claim.range();
            let (topic_name, path, inode) = (&origin.topic, as_value(&origin.path), origin.inode);
            let Some(letters) = &self.told.dead_letters else {
                log::error!(
                    "refused for ever, and not kept because there is no state directory topic={topic_name} path={path} inode={inode} from={from} to={to} error={code}"
                );
                claim.bury();
                continue;
            };
            match letters.write(&claim, &value, code.0, code.name()) {
                Ok(()) => {
                    log::error!(
                        "refused for ever, now in the dead letters topic={topic_name} path={path} inode={inode} from={from} to={to} error={code} dead_letters={}",
                        as_value(letters.path())
                    );
                    claim.bury();
                }
                Err(error) => {
                    is_buried = false;
                    if self
                        .told
                        .notices
                        .is_news("dead letters", &error.to_string())
                    {
                        log::error!(
                            "cannot write the dead letters: the file waits path={path} dead_letters={} error={error}",
                            as_value(letters.path())
                        );
                    }
                    let flow = Arc::clone(claim.file().flow());
                    let lane = self.lanes.entry((topic, receipt.place)).or_default();
                    lane.hold_flow(&flow);
                    lane.stall();
                    lane.paused_until = Some(now + DEAD_LETTER_PAUSE);
                }
            }
        }
        match is_buried {
            true => self.waits.settled(topic, now),
            false => self.waits.returned(topic, 1, now),
        }
        self.purge();
    }
}

/// How large batches of a topic may be.
#[derive(Debug, Clone, Copy)]
struct Limit {
    bytes: usize,
    /// Batches that were taken since it was set.
    acked: u32,
    /// What was refused for its size: never as large again.
    too_large: Option<usize>,
}

fn tell(notices: &Notices, notice: &Notice) {
    match notice {
        Notice::Unreachable(error) => {
            let about = format!("broker {}", error.address);
            if notices.is_news(&about, &error.to_string()) {
                log::warn!(
                    "cannot reach broker {}: {}: {} (trying again; {})",
                    error.address,
                    error.stage,
                    error.cause,
                    error.hint()
                );
            }
        }
        Notice::Reached(address) => {
            let over = notices.is_over(&format!("broker {address}"));
            if over {
                log::info!("connected again broker={address}");
            }
        }
        Notice::TopicWaits(topic, code) => {
            if notices.is_news(&format!("topic {topic}"), &code.to_string()) {
                log::warn!(
                    "topic '{topic}' does not take lines: {code} (they wait in their files; {})",
                    topic_hint(*code)
                );
            }
        }
        Notice::TopicReady(topic) => {
            if notices.is_over(&format!("topic {topic}")) {
                log::info!("topic takes lines again topic={topic}");
            }
        }
        Notice::NoProducerId(code) => {
            if notices.is_news("producer id", &code.to_string()) {
                let hint = match code.verdict() {
                    kafka::Verdict::Retry => "see the brokers' logs: their controller may be away",
                    _ => "the principal needs IdempotentWrite on the cluster",
                };
                log::warn!("the brokers give out no producer id: {code} (trying again; {hint})");
            }
        }
        Notice::HeadersLeftAway(topic) => {
            if notices.is_news(&format!("headers {topic}"), "") {
                log::warn!(
                    "headers are not sent, because brokers before Kafka 0.11 do not know them topic={topic}"
                );
            }
        }
        Notice::Retried {
            topic,
            partition,
            broker,
            code,
        } => {
            if notices.is_news_of_part(&format!("retry {topic}"), *partition, &code.to_string()) {
                log::warn!(
                    "produce failed, trying again topic={topic} partition={partition} broker={broker} error={code}"
                );
            }
        }
        Notice::Accepted { topic, partition } => {
            if notices.is_over_for_part(&format!("retry {topic}"), *partition) {
                log::info!("produce works again topic={topic}");
            }
        }
    }
}

fn topic_hint(code: kafka::ErrorCode) -> &'static str {
    match code.0 {
        3 => "create the topic, or allow auto.create.topics.enable on the brokers",
        32 => {
            "set the clock of this host, or of the brokers, or see message.timestamp.before.max.ms and after.max.ms"
        }
        38 => "there are fewer brokers than default.replication.factor says: create the topic",
        29 => "grant the principal Write and Describe on the topic",
        17 => "the brokers refuse the name",
        _ => "see the brokers' logs",
    }
}
