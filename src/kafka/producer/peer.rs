//! The brokers as peers: connections, and requests in flight on them.
//!
//! What an answer means for a partition is decided in `partition`.

use std::collections::{HashMap, VecDeque};
use std::mem::{Discriminant, discriminant};
use std::time::Instant;

use super::super::address::Address;
use super::super::connection::{Connection, ConnectionId};
use super::super::error::{Cause, ConnectionError, Stage};
use super::super::wire::{self, Versions};
use super::{Notice, Options, Producer, TopicId, pause};

/// Where we stand with one broker address.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) link: Option<Link>,
    pub(super) failures: u32,
    pub(super) retry_at: Option<Instant>,
    pub(super) silent_until: Option<Instant>,
    /// It has answered a request, on this connection or on one before. A listener that wants
    /// a login hangs up on the first one.
    pub(super) answers: bool,
    /// The last connection ended with such a request, or with an answer to it that could
    /// not be read: that it answers others does not show that it is reached.
    pub(super) failed_at: Option<Discriminant<Request>>,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    /// `None` while it connects.
    pub(super) versions: Option<Versions>,
    /// A request was answered, so that it is reached: and not another one than that which
    /// the last connection ended with.
    pub(super) serves: bool,
    pub(super) since: Instant,
    pub(super) pending: VecDeque<Pending>,
    pub(super) correlation: i32,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) correlation: i32,
    pub(super) deadline: Instant,
    pub(super) kind: Request,
}

#[derive(Debug)]
pub(super) enum Request {
    Metadata,
    InitProducerId,
    Produce { parts: Vec<Sent>, bytes: usize },
}

/// One batch of a Produce request.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) topic: TopicId,
    pub(super) partition: usize,
    pub(super) batch: u64,
}

impl Request {
    /// Its name in the protocol guide.
    fn name(&self) -> &'static str {
        match self {
            Request::Metadata => "Metadata",
            Request::InitProducerId => "InitProducerId",
            Request::Produce { .. } => "Produce",
        }
    }
}

impl Link {
    pub(super) fn versions(&self) -> Versions {
        self.versions.expect("requests follow the handshake")
    }

    pub(super) fn next_correlation(&mut self) -> i32 {
        self.correlation = self.correlation.wrapping_add(1);
        self.correlation
    }

    pub(super) fn send(&mut self, frame: wire::Frame, deadline: Instant, kind: Request) {
        // When the connection is closing, its end settles the request.
        self.connection.send(frame);
        self.pending.push_back(Pending {
            correlation: self.correlation,
            deadline,
            kind,
        });
    }

    /// Produce requests in flight, and the bytes of their batches.
    pub(super) fn produce_in_flight(&self) -> (usize, usize) {
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
    pub(super) fn has_room(&self, options: &Options, now: Instant) -> bool {
        let Some(link) = self.link.as_ref().filter(|link| link.versions.is_some()) else {
            return false;
        };
        let (requests, bytes) = link.produce_in_flight();
        requests < options.in_flight_max
            && bytes < options.in_flight_bytes_max
            && self.silent_until.is_none_or(|until| until <= now)
    }
}

pub(super) fn link_of<'a>(
    peers: &'a mut HashMap<Address, Peer>,
    address: &Address,
) -> &'a mut Link {
    peers
        .get_mut(address)
        .and_then(|peer| peer.link.as_mut())
        .expect("the caller chose a connected peer")
}

/// Brokers answer the requests of a connection in their order.
pub(super) fn take_pending<'a>(
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

impl<R> Producer<R> {
    pub(super) fn connect(&mut self, address: &Address, now: Instant) {
        let peer = self.peers.entry(address.clone()).or_default();
        if peer.link.is_some() || peer.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.last_id += 1;
        peer.link = Some(Link {
            connection: Connection::open(
                self.last_id,
                address.clone(),
                self.options.dial(),
                self.events.0.clone(),
            ),
            versions: None,
            serves: false,
            since: now,
            pending: VecDeque::new(),
            correlation: 0,
        });
    }

    /// The address and peer that a live connection belongs to.
    pub(super) fn owner(&mut self, id: ConnectionId) -> Option<(&Address, &mut Peer)> {
        self.peers.iter_mut().find(|(_, peer)| {
            peer.link
                .as_ref()
                .is_some_and(|link| link.connection.id() == id)
        })
    }

    pub(super) fn up(&mut self, id: ConnectionId, versions: Versions) {
        let Some((address, peer)) = self.owner(id) else {
            return;
        };
        log::debug!("connected to broker {address} versions={versions:?}");
        if let Some(link) = &mut peer.link {
            link.versions = Some(versions);
        }
    }

    /// A request was answered: the broker is reached, unless the last connection ended with
    /// one of another kind and this one has not stood for long either.
    pub(super) fn reached(
        &mut self,
        id: ConnectionId,
        kind: Option<Discriminant<Request>>,
        now: Instant,
    ) {
        let (_, longest) = self.options.backoff;
        let Some((address, peer)) = self.owner(id) else {
            return;
        };
        let link = peer.link.as_mut().expect("the owner was found by its link");
        peer.answers = true;
        let proves = peer.failed_at.is_none() || peer.failed_at == kind;
        if link.serves || !(proves || now >= link.since + longest) {
            return;
        }
        link.serves = true;
        peer.failed_at = None;
        let address = address.clone();
        (peer.failures, peer.retry_at) = (0, None);
        self.stats.connected();
        self.notices.push_back(Notice::Reached(address));
    }

    pub(super) fn down(&mut self, id: ConnectionId, mut error: ConnectionError, now: Instant) {
        let (backoff, refused_pause) = (self.options.backoff, self.options.refused_pause);
        let Some((_, peer)) = self.owner(id) else {
            return;
        };
        let link = peer.link.take().expect("the owner was found by its link");
        let idle = link.pending.is_empty() && error.is_hang_up() && link.versions.is_some();
        let stood = link.serves;
        if !idle {
            let is_same = |pending: &&Pending| Some(discriminant(&pending.kind)) == peer.failed_at;
            let mut pending = link.pending.iter();
            // An answer to what went before may be lost with the connection.
            if let Some(at) = pending.find(is_same).or(link.pending.front()) {
                peer.failed_at = Some(discriminant(&at.kind));
                if peer.answers && error.is_hang_up() {
                    error.cause = Cause::HungUpOn(at.kind.name());
                }
            }
            peer.answers &= error.stage == Stage::Serving; // else it may be another by now
            peer.failures += 1;
            let pause = match error.is_refusal() {
                true => refused_pause,
                false => pause(backoff, peer.failures),
            };
            peer.retry_at = Some(now + pause);
            self.stats.failed(error.stage.name());
            self.notices.push_back(Notice::Unreachable(error));
        }
        self.stats.disconnected(stood, idle);
        for pending in link.pending {
            self.unanswered(pending.kind, now);
        }
        if !idle {
            self.refresh_later(now);
        }
    }

    pub(super) fn unanswered(&mut self, request: Request, now: Instant) {
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
    pub(super) fn expire(&mut self, now: Instant) {
        let overdue = self.peers.iter().filter_map(|(address, peer)| {
            let link = peer.link.as_ref()?;
            let oldest = link.pending.front()?;
            let error = ConnectionError {
                address: address.clone(),
                stage: link.connection.stage(), // another login may be what is silent
                cause: Cause::Silence(self.options.request_timeout),
            };
            (oldest.deadline <= now).then(|| (link.connection.id(), error))
        });
        for (id, error) in overdue.collect::<Vec<_>>() {
            self.down(id, error, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::client::Client;
    use super::*;

    /// Any answer counted as success: a broker that hangs up on InitProducerId was tried
    /// again six times a second, and each time it was lost and there again.
    #[test]
    fn a_broker_that_hangs_up_on_the_same_request_is_tried_ever_more_slowly() {
        let address = Address::new("127.0.0.1", 1);
        let options = Options::new(vec![address.clone()]);
        let (first, longest) = options.backoff;
        let mut producer = Producer::<()>::new(options, Arc::default());
        let mut now = Instant::now();
        let versions = Versions {
            produce: 7,
            metadata: 8,
            init_producer_id: 1,
            sasl_authenticate: None,
            batches_only: false,
        };
        let connected = |producer: &mut Producer<()>, now| {
            producer.connect(&address, now);
            let id = producer.peers[&address]
                .link
                .as_ref()
                .unwrap()
                .connection
                .id();
            producer.up(id, versions);
            producer.reached(id, Some(discriminant(&Request::Metadata)), now);
            producer.ask_identity(&address, now);
            id
        };
        for failures in 1..=8 {
            let id = connected(&mut producer, now);
            let error = ConnectionError {
                address: address.clone(),
                stage: Stage::Serving,
                cause: Cause::HungUp,
            };
            producer.down(id, error, now);
            let peer = &producer.peers[&address];
            assert_eq!(peer.failures, failures);
            let pause = peer.retry_at.unwrap() - now;
            let expected = (first * (1 << (failures - 1))).min(longest);
            assert!(pause >= expected.mul_f64(0.9), "{pause:?} after {failures}");
            now += pause;
        }
        let told: Vec<bool> = producer
            .notices
            .drain(..)
            .map(|notice| match notice {
                Notice::Reached(_) => true,
                Notice::Unreachable(error) => {
                    assert_eq!(
                        error.cause.to_string(),
                        "the broker closed the connection on InitProducerId"
                    );
                    assert!(!error.hint().contains("SASL"), "{}", error.hint());
                    false
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [[true].as_slice(), &[false; 8]].concat());

        let id = connected(&mut producer, now);
        producer.reached(id, Some(discriminant(&Request::InitProducerId)), now);
        assert_eq!(producer.peers[&address].failures, 0);
        assert!(matches!(producer.next_notice(), Some(Notice::Reached(_))));
    }
}
