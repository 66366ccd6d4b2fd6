//! Sends what can be sent: batches into requests, requests to leaders.
//!
//! It decides nothing about what comes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::super::address::Address;
use super::super::wire::{self, ProducePart};
use super::partition::BatchState;
use super::peer::{Request, Sent, link_of};
use super::{Producer, TopicId};

impl<R> Producer<R> {
    pub(super) fn queue(&mut self, topic: TopicId, index: usize) {
        let partition = &mut self.topics[topic.0].partitions[index];
        if !std::mem::replace(&mut partition.queued, true) {
            self.unsent.push_back((topic, index));
        }
    }

    /// Sends what can be sent: one request a broker with a batch of each of its
    /// partitions, again until the brokers have enough or nothing is left.
    pub(super) fn flush(&mut self, now: Instant) {
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

    pub(super) fn still_unsent(&mut self, topic: TopicId, index: usize) -> bool {
        let partition = &mut self.topics[topic.0].partitions[index];
        let blocked = partition.recovering && partition.in_flight();
        partition.queued = partition.first_unsent().is_some() && !blocked;
        partition.queued
    }

    /// Where the next batch of a partition goes, and its bytes; `None` if not now.
    pub(super) fn destination(
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

    pub(super) fn send_produce(
        &mut self,
        address: &Address,
        mut parts: Vec<(TopicId, usize)>,
        now: Instant,
    ) {
        parts.sort_by_key(|&(topic, index)| (topic.0, index));
        let mut sent = Vec::with_capacity(parts.len());
        let mut batches = Vec::with_capacity(parts.len());
        for &(id, index) in &parts {
            let partition = &mut self.topics[id.0].partitions[index];
            let at = partition
                .first_unsent()
                .expect("only unsent batches are flushed");
            let batch = &mut partition.batches[at];
            batch.state = BatchState::InFlight;
            self.waiting_bytes -= batch.bytes.len();
            partition.queued = false;
            sent.push(Sent {
                topic: id,
                partition: index,
                batch: batch.id,
            });
            batches.push(Arc::clone(&batch.bytes));
        }
        let produce: Vec<ProducePart> = sent
            .iter()
            .zip(batches)
            .map(|(part, batch)| ProducePart {
                topic: &self.topics[part.topic.0].name,
                partition: part.partition as i32,
                batch,
            })
            .collect();
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
        self.stats.sent();
        for (topic, index) in parts {
            let partition = &self.topics[topic.0].partitions[index];
            if !partition.recovering && partition.first_unsent().is_some() {
                self.queue(topic, index);
            }
        }
    }
}
