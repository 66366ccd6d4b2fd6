//! What the cluster looks like: metadata, and the producer id.
//!
//! It asks whichever broker answers, and sends no batch.

use std::time::Instant;

use super::super::address::Address;
use super::super::batch::ProducerId;
use super::super::error::{Cause, ErrorCode, Verdict};
use super::super::wire;
use super::partition::Partition;
use super::peer::{Peer, Request, link_of};
use super::{Notice, Producer, TopicId, pause};

impl<R> Producer<R> {
    /// Asks for metadata now, if nothing is in the way.
    pub(super) fn refresh(&mut self, now: Instant) {
        if self.metadata.due.is_none() {
            let soonest = self
                .metadata
                .newest
                .map_or(now, |newest| newest + self.options.backoff.0);
            self.metadata.due = Some(soonest.max(now));
        }
    }

    /// Asks for metadata after a pause that grows with failures.
    pub(super) fn refresh_later(&mut self, now: Instant) {
        if self.metadata.due.is_none() {
            self.metadata.failures += 1;
            self.metadata.due = Some(now + pause(self.options.backoff, self.metadata.failures));
        }
    }

    pub(super) fn ask(&mut self, now: Instant) {
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
        // One at a time until it has answered: else nobody knows on which one it hangs up.
        if identity && (self.peers[&address].answers || !self.metadata.asking) {
            self.ask_identity(&address, now);
        }
    }

    /// A broker with a working connection; starts connecting when there is none.
    pub(super) fn any_peer(&mut self, now: Instant) -> Option<Address> {
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

    pub(super) fn ask_metadata(&mut self, address: &Address, now: Instant) {
        let deadline = now + self.options.request_timeout;
        let link = link_of(&mut self.peers, address);
        let version = link.versions().metadata;
        let frame = wire::metadata_request(
            version,
            link.next_correlation(),
            &self.options.client_id,
            self.topics.iter().map(|topic| topic.name.as_str()),
            wire::Purpose::Producing,
        );
        link.send(frame, deadline, Request::Metadata);
        self.stats.sent();
        self.metadata.asking = true;
        self.metadata.due = None;
    }

    pub(super) fn ask_identity(&mut self, address: &Address, now: Instant) {
        let deadline = now + self.options.request_timeout;
        let link = link_of(&mut self.peers, address);
        let version = link.versions().init_producer_id;
        let frame = wire::init_producer_id_request(
            version,
            link.next_correlation(),
            &self.options.client_id,
        );
        link.send(frame, deadline, Request::InitProducerId);
        self.stats.sent();
        self.identity.asking = true;
    }

    pub(super) fn apply_identity(&mut self, answer: Result<ProducerId, ErrorCode>, now: Instant) {
        self.identity.asking = false;
        match answer {
            Ok(id) => {
                // A broker that hands out the same one is not asked all the time.
                let again = self.identity.current.replace(id) == Some(id);
                self.identity.retry_at = again.then(|| now + self.options.waiting_pause);
                self.identity.wanted = false;
                self.identity.told = false;
                self.identity.failing_since = None;
            }
            Err(code) => {
                self.identity.retry_at = Some(now + self.options.waiting_pause);
                let since = *self.identity.failing_since.get_or_insert(now);
                // Coordinators load for a moment after a broker's start.
                let passing =
                    code.verdict() == Verdict::Retry && now < since + self.options.creation_grace;
                if !passing && !self.identity.told {
                    self.identity.told = true;
                    self.notices.push_back(Notice::NoProducerId(code));
                }
            }
        }
    }

    pub(super) fn apply_metadata(
        &mut self,
        answer: wire::ClusterMetadata,
        now: Instant,
    ) -> Result<(), Cause> {
        if answer.brokers.is_empty() {
            let problem = "it knows of no broker, not even itself"; // it may be just starting
            return Err(Cause::Protocol(problem.to_owned()));
        }
        self.metadata.asking = false;
        self.metadata.newest = Some(now);
        self.nodes = answer.brokers.into_iter().collect();
        // What nothing is said of is asked for again.
        let mut settled = answer.topics.len() >= self.topics.len();
        for topic in answer.topics {
            let Some(&id) = self.topic_ids.get(&topic.name) else {
                continue;
            };
            if topic.code == ErrorCode::NONE {
                let is_led = |(_, leader): &(i32, Option<i32>)| {
                    leader.is_some_and(|node| self.nodes.contains_key(&node))
                };
                let all_wait = !topic.leaders.iter().any(is_led);
                settled &= self.apply_leaders(id, topic.leaders, now);
                match all_wait {
                    true => self.topic_fails(id, ErrorCode::LEADER_NOT_AVAILABLE, now),
                    false => self.topic_recovers(id),
                }
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
        Ok(())
    }

    /// Takes over the leaders of a topic. False when one has none.
    pub(super) fn apply_leaders(
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
        let mut complete = count > 0;
        for (index, leader) in leaders {
            // One that is no broker cannot be asked.
            let leader = leader.filter(|node| self.nodes.contains_key(node));
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

    pub(super) fn topic_fails(&mut self, id: TopicId, code: ErrorCode, now: Instant) {
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
    pub(super) fn topic_recovers(&mut self, id: TopicId) {
        let topic = &mut self.topics[id.0];
        topic.error = None;
        topic.failing_since = None;
        if !topic.denied && std::mem::take(&mut topic.told) {
            self.notices
                .push_back(Notice::TopicReady(topic.name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::client::Client;
    use super::super::Options;
    use super::*;

    /// Lines waited for it, and nothing was said.
    #[test]
    fn a_topic_without_a_leader_that_can_be_asked_is_told_after_a_while() {
        let mut producer = Producer::<()>::new(Options::new(Vec::new()), Arc::default());
        let now = Instant::now();
        producer.topic("t", now);
        for leaders in [vec![], vec![(0, None)], vec![(0, Some(7))]] {
            let answer = || wire::ClusterMetadata {
                brokers: vec![(1, Address::new("b", 1))],
                topics: vec![wire::TopicMetadata {
                    name: "t".to_owned(),
                    code: ErrorCode::NONE,
                    leaders: leaders.clone(),
                    may_write: None,
                }],
            };
            let later = now + producer.options.creation_grace;
            for (at, told) in [(now, 0), (later, 1), (later, 0)] {
                producer.apply_metadata(answer(), at).unwrap();
                let notices: Vec<Notice> = producer.notices.drain(..).collect();
                assert_eq!(notices.len(), told, "{leaders:?}: {notices:?}");
            }
            let ready = wire::ClusterMetadata {
                topics: vec![wire::TopicMetadata {
                    leaders: vec![(0, Some(1))],
                    ..answer().topics.remove(0)
                }],
                ..answer()
            };
            producer.apply_metadata(ready, later).unwrap();
            assert!(matches!(
                producer.next_notice(),
                Some(Notice::TopicReady(_))
            ));
        }
    }

    #[test]
    fn a_producer_id_that_is_refused_for_a_while_is_told_whatever_the_reason() {
        let mut producer = Producer::<()>::new(Options::new(Vec::new()), Arc::default());
        let now = Instant::now();
        let later = now + producer.options.creation_grace;
        for (at, told) in [(now, false), (later, true), (later, false)] {
            producer.apply_identity(Err(ErrorCode(14)), at);
            assert_eq!(producer.next_notice().is_some(), told);
        }
    }

    /// It was asked again at once, for ever.
    #[test]
    fn a_broker_that_hands_out_the_same_producer_id_is_asked_again_after_a_pause() {
        let mut producer = Producer::<()>::new(Options::new(Vec::new()), Arc::default());
        let now = Instant::now();
        let pause = producer.options.waiting_pause;
        for (id, retry_at) in [(1, None), (1, Some(now + pause)), (2, None)] {
            producer.apply_identity(Ok(ProducerId { id, epoch: 0 }), now);
            assert_eq!(producer.identity.retry_at, retry_at, "id {id}");
        }
    }
}
