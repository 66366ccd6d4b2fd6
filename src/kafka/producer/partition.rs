//! Partitions and their batches: what an answer settles, and what follows.
//!
//! The rule of KIP-98 lives here: settle everything in flight, then resend one
//! at a time. How a batch travels does not.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::address::Address;
use super::super::batch::ProducerId;
use super::super::connection::ConnectionId;
use super::super::error::{Cause, ConnectionError, ErrorCode, Stage, Verdict};
use super::super::wire::{self, Versions};
use super::peer::{Pending, Request, Sent, take_pending};
use super::{Notice, Outcome, Producer, Return, SPARE_BUFFERS_MAX, TopicId, pause};

#[derive(Debug)]
pub(super) struct Topic<R> {
    pub(super) name: String,
    pub(super) error: Option<ErrorCode>,
    /// Since when it has an error.
    pub(super) failing_since: Option<Instant>,
    /// The error was told.
    pub(super) told: bool,
    /// The error came from Produce, so that Metadata cannot say it is over.
    pub(super) denied: bool,
    pub(super) partitions: Vec<Partition<R>>,
    /// Partitions that the topic had when it was first seen; see
    /// [`Producer::partitions`].
    pub(super) first_count: usize,
}

#[derive(Debug)]
pub(super) struct Partition<R> {
    pub(super) leader: Option<i32>,
    pub(super) producer: Option<ProducerId>,
    /// The producer id whose sequences broke here, never used again.
    pub(super) broken: Option<ProducerId>,
    /// The broker has acknowledged something under the producer id. Until then
    /// it takes *any* sequence for the first (KIP-360), so that a second batch
    /// in flight could get in before the first one.
    pub(super) proven: bool,
    pub(super) next_sequence: i32,
    pub(super) batches: VecDeque<Batch<R>>,
    /// Settle what is in flight, then resend one at a time.
    pub(super) recovering: bool,
    pub(super) failures: u32,
    pub(super) retry_at: Option<Instant>,
    /// It was told that a batch is tried again, and not yet that one was accepted.
    pub(super) retried: bool,
    /// It stands in `unsent`.
    pub(super) queued: bool,
    /// The topic was made again with fewer partitions.
    pub(super) gone: bool,
}

#[derive(Debug)]
pub(super) struct Batch<R> {
    pub(super) id: u64,
    pub(super) bytes: Arc<Vec<u8>>,
    /// Of its first record.
    pub(super) sequence: i32,
    pub(super) records: u32,
    /// Before compression.
    pub(super) plain_bytes: usize,
    pub(super) receipt: R,
    pub(super) state: BatchState,
    pub(super) poison: Option<ErrorCode>,
    /// An attempt may have left it in the log: it goes out again as it is.
    pub(super) uncertain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchState {
    Unsent,
    InFlight,
    /// Acknowledged, but one before it is not yet.
    Acked,
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
            retried: false,
            retry_at: None,
            queued: false,
            gone: false,
        }
    }
}

impl<R> Partition<R> {
    pub(super) fn in_flight(&self) -> bool {
        self.batches
            .iter()
            .any(|batch| batch.state == BatchState::InFlight)
    }

    pub(super) fn front_is_acked(&self) -> bool {
        let front = self.batches.front();
        front.is_some_and(|batch| batch.state == BatchState::Acked)
    }

    pub(super) fn first_unsent(&self) -> Option<usize> {
        self.batches
            .iter()
            .position(|batch| batch.state == BatchState::Unsent)
    }
}

impl<R> Producer<R> {
    pub(super) fn answer(&mut self, id: ConnectionId, answer: &[u8], now: Instant) {
        let (stats, patience) = (Arc::clone(&self.stats), self.options.request_timeout);
        let Some((address, peer)) = self.owner(id) else {
            return;
        };
        let address = address.clone();
        let oldest = peer.link.as_ref().and_then(|link| link.pending.front());
        let produce = oldest.filter(|oldest| matches!(oldest.kind, Request::Produce { .. }));
        if let Some(Pending { deadline, .. }) = produce {
            let left = deadline.saturating_duration_since(now);
            stats.answered(patience.saturating_sub(left));
        }
        let kind = oldest.map(|oldest| mem::discriminant(&oldest.kind));
        let taken = take_pending(peer, answer);
        let outcome = taken.and_then(|(kind, versions, body)| {
            self.understand(&address, kind, versions, body, now)
        });
        match outcome {
            Ok(()) => self.reached(id, kind, now),
            Err(cause) => {
                let error = ConnectionError {
                    address: address.clone(),
                    stage: Stage::Serving,
                    cause,
                };
                self.down(id, error, now);
                if let Some(peer) = self.peers.get_mut(&address) {
                    peer.failed_at = kind;
                }
            }
        }
    }

    pub(super) fn understand(
        &mut self,
        address: &Address,
        kind: Request,
        versions: Versions,
        body: &[u8],
        now: Instant,
    ) -> Result<(), Cause> {
        let decoded = match &kind {
            Request::Metadata => wire::metadata_response(body, versions.metadata)
                .and_then(|answer| self.apply_metadata(answer, now)),
            Request::InitProducerId => {
                wire::init_producer_id_response(body).map(|answer| self.apply_identity(answer, now))
            }
            Request::Produce { parts, .. } => {
                wire::produce_response(body, versions.produce, parts.len())
                    .and_then(|answer| self.apply_produce(address, parts, answer, now))
            }
        };
        // An answer that cannot be read settles nothing.
        decoded.inspect_err(|_| self.unanswered(kind, now))
    }

    pub(super) fn apply_produce(
        &mut self,
        address: &Address,
        parts: &[Sent],
        (outcomes, throttle): (Vec<wire::ProduceOutcome>, Duration),
        now: Instant,
    ) -> Result<(), Cause> {
        if !throttle.is_zero()
            && let Some(peer) = self.peers.get_mut(address)
        {
            // Quotas ask for less; a broker must not silence us for days.
            peer.silent_until = Some(now + throttle.min(self.options.request_timeout));
        }
        let code_of = |part: &Sent| {
            let topic = &self.topics[part.topic.0].name;
            let is_it = |outcome: &&wire::ProduceOutcome| {
                outcome.partition as usize == part.partition && outcome.topic == *topic
            };
            let found = outcomes.iter().find(is_it).map(|outcome| outcome.code);
            found.ok_or_else(|| {
                Cause::Protocol(format!(
                    "an answer to Produce that says nothing of partition {} of '{topic}'",
                    part.partition
                ))
            })
        };
        let codes: Vec<ErrorCode> = parts.iter().map(code_of).collect::<Result<_, _>>()?;
        for (part, code) in parts.iter().zip(codes) {
            self.settle(part, Some((address, code)), now);
        }
        Ok(())
    }

    /// One batch is no longer in flight: a broker's answer, or `None` when nobody
    /// knows what became of it.
    pub(super) fn settle(
        &mut self,
        sent: &Sent,
        answer: Option<(&Address, ErrorCode)>,
        now: Instant,
    ) {
        let topic = &mut self.topics[sent.topic.0];
        let partition = &mut topic.partitions[sent.partition];
        let Some(at) = partition.batches.iter().position(|b| b.id == sent.batch) else {
            return;
        };
        let code = answer.map(|(_, code)| code);
        let verdict = code.map_or(Verdict::Refresh, ErrorCode::verdict);
        if verdict == Verdict::Accepted {
            partition.batches[at].state = BatchState::Acked;
            partition.proven = true;
            self.advance(sent.topic, sent.partition);
            return;
        }
        if let Some(code) = code {
            self.stats.failed(&code.label());
        }
        let batch = &mut partition.batches[at];
        batch.state = BatchState::Unsent;
        batch.uncertain |= !code.is_some_and(ErrorCode::leaves_nothing);
        self.waiting_bytes += batch.bytes.len();
        // A gap behind a batch that failed is no trouble of its own: the
        // sequences are broken only when the first batch, alone, hears of it.
        let alone = at == 0 && partition.recovering && !partition.in_flight();
        let echo = verdict == Verdict::NewProducer && !alone;
        partition.batches[at].poison = code.filter(|_| verdict == Verdict::Poison);
        partition.recovering = true;
        if let Some((broker, code)) = answer.filter(|_| !echo) {
            partition.retried = true;
            self.notices.push_back(Notice::Retried {
                topic: topic.name.clone(),
                partition: sent.partition as i32,
                broker: broker.clone(),
                code,
            });
        }
        match verdict {
            Verdict::Accepted | Verdict::Poison => {}
            Verdict::NewProducer if echo => {}
            Verdict::NewProducer => {
                self.give_back(sent.topic, sent.partition, Return::Renumbered);
                // A broker that breaks every sequence must not be asked all the time.
                let partition = &mut self.topics[sent.topic.0].partitions[sent.partition];
                partition.failures += 1;
                partition.retry_at = Some(now + pause(self.options.backoff, partition.failures));
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
    pub(super) fn advance(&mut self, id: TopicId, index: usize) {
        let topic = &mut self.topics[id.0];
        let partition = &mut topic.partitions[index];
        while partition.front_is_acked()
            && let Some(batch) = partition.batches.pop_front()
        {
            partition.failures = 0;
            partition.retry_at = None;
            if std::mem::take(&mut partition.retried) {
                self.notices.push_back(Notice::Accepted {
                    topic: topic.name.clone(),
                    partition: index as i32,
                });
            }
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
            self.give_back(id, index, Return::Renumbered);
        } else if let Some(code) = partition.batches[0].poison {
            self.set_aside(id, index, code);
        } else if partition.recovering {
            match self.is_crowded() && self.may_let_go(id, index) {
                true => self.let_go(id, index),
                false => self.queue(id, index),
            }
        }
    }

    /// True when so much waits to be tried again that it must not become more.
    pub(super) fn is_crowded(&self) -> bool {
        let brokers = self.nodes.len().max(1);
        self.waiting_bytes > self.options.in_flight_bytes_max.saturating_mul(brokers)
    }

    /// True when none of a partition's batches can be in the log, and its lines can be had
    /// again.
    fn may_let_go(&self, id: TopicId, index: usize) -> bool {
        let mut batches = self.topics[id.0].partitions[index].batches.iter();
        !self.draining
            && batches.all(|batch| {
                batch.state == BatchState::Unsent
                    && !batch.uncertain
                    && (self.returnable)(&batch.receipt)
            })
    }

    /// Returns the batches of a partition that takes none, to make room for those that do.
    /// Nothing of them is in the log, so that their sequences are free again.
    fn let_go(&mut self, id: TopicId, index: usize) {
        let partition = &mut self.topics[id.0].partitions[index];
        partition.recovering = false;
        partition.failures = partition.failures.max(1); // it is tried with little from now on
        partition.next_sequence = partition.batches[0].sequence;
        let batches = partition.batches.drain(..);
        let receipts = batches.map(|batch| {
            self.waiting_bytes -= batch.bytes.len();
            batch.receipt
        });
        let receipts = receipts.collect();
        self.outcomes.push_back(Outcome::Returned {
            topic: id,
            receipts,
            why: Return::NoRoom,
        });
    }

    /// Deals with a batch that is not accepted as it is, everything else of its
    /// partition being settled.
    pub(super) fn set_aside(&mut self, id: TopicId, index: usize, code: ErrorCode) {
        let partition = &mut self.topics[id.0].partitions[index];
        let first = &partition.batches[0];
        if first.records > 1 {
            let bytes = first.plain_bytes;
            self.give_back(id, index, Return::TooLarge(bytes, code));
            return;
        }
        if let Some(batch) = partition.batches.pop_front() {
            self.waiting_bytes -= batch.bytes.len();
            self.outcomes.push_back(Outcome::Refused {
                topic: id,
                receipt: batch.receipt,
                code,
            });
        }
        self.give_back(id, index, Return::Renumbered);
    }

    /// Returns all batches of a partition that are not in the log, none of them
    /// being in flight, and lets it go on with a producer id that is new to it.
    pub(super) fn give_back(&mut self, id: TopicId, index: usize, why: Return) {
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
        let mut receipts = Vec::with_capacity(returned.len());
        for batch in returned {
            self.waiting_bytes -= batch.bytes.len();
            receipts.push(batch.receipt);
        }
        if !receipts.is_empty() {
            self.outcomes.push_back(Outcome::Returned {
                topic: id,
                receipts,
                why,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::client::Client;
    use super::super::Options;
    use super::*;

    const OUT_OF_ORDER: ErrorCode = ErrorCode(45);

    /// A producer with one partition that has one batch in flight.
    fn sending(producer: &mut Producer<()>, now: Instant) -> Sent {
        let topic = producer.topic("t", now);
        let partitions = &mut producer.topics[topic.0].partitions;
        partitions.resize_with(1, Partition::default);
        partitions[0].leader = Some(1);
        partitions[0].recovering = true;
        producer.last_id += 1;
        partitions[0].batches.push_back(Batch {
            id: producer.last_id,
            bytes: Arc::default(),
            sequence: 0,
            records: 1,
            plain_bytes: 1,
            receipt: (),
            state: BatchState::InFlight,
            poison: None,
            uncertain: false,
        });
        Sent {
            topic,
            partition: 0,
            batch: producer.last_id,
        }
    }

    /// Batches went round as fast as the broker answered, each time with a new producer id.
    #[test]
    fn a_broker_that_breaks_every_sequence_is_asked_ever_more_slowly() {
        let broker = Address::new("b", 1);
        let mut producer = Producer::<()>::new(Options::new(Vec::new()), Arc::default());
        let (first, longest) = producer.options.backoff;
        let mut now = Instant::now();
        for failures in 0..8 {
            let sent = sending(&mut producer, now);
            producer.settle(&sent, Some((&broker, OUT_OF_ORDER)), now);
            let returned = producer.next_outcome();
            assert!(
                matches!(returned, Some(Outcome::Returned { .. })),
                "{returned:?}"
            );
            assert_eq!(producer.usable(sent.topic, 0, now), None, "at once");
            now += (first * (1 << failures)).min(longest).mul_f64(0.9) - Duration::from_millis(1);
            assert_eq!(producer.usable(sent.topic, 0, now), None, "{failures}");
            now += longest;
            assert_eq!(producer.usable(sent.topic, 0, now), Some(1));
        }
        let sent = sending(&mut producer, now);
        producer.settle(&sent, Some((&broker, ErrorCode::NONE)), now);
        assert_eq!(producer.topics[0].partitions[0].failures, 0);
    }

    /// At a stop nobody reads again what comes back: it ended before its time.
    #[test]
    fn what_waits_is_kept_when_nobody_reads_it_again() {
        let mut producer = Producer::<()>::new(Options::new(Vec::new()), Arc::default());
        let sent = sending(&mut producer, Instant::now());
        let partition = &mut producer.topics[sent.topic.0].partitions[0];
        partition.batches[0].state = BatchState::Unsent;
        assert!(producer.may_let_go(sent.topic, 0));
        producer.drain();
        assert!(!producer.may_let_go(sent.topic, 0));
    }
}
