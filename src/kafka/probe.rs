//! Tries whether a cluster can be written to, step by step, and sends no record.
//!
//! Every broker is reached as the producer reaches it, also those that the first
//! ones tell of: a listener that is advertised wrongly shows here. No topic is
//! made.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::address::Address;
use super::client::Kind;
use super::connection::{Connection, ConnectionId, Dial, Event};
use super::error::{Cause, ConnectionError, ErrorCode, Stage, Verdict};
use super::legacy;
use super::producer::Options;
use super::sasl::Sasl;
use super::wire::{self, ClusterMetadata, Frame, Purpose, TopicMetadata, Versions};

/// Everything about one broker.
const BROKER_MAX: Duration = Duration::from_secs(10);
/// Opening a connection, for each address of the host, and the handshake.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Pause before a question is asked again that a starting broker could not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Brokers that are tried, at most.
const BROKERS_MAX: usize = 100;
/// Events that may wait.
const EVENTS_MAX: usize = 1_024;

/// One step that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Broker and step, or the topic.
    pub name: String,
    /// A detail; or what is wrong and what to change.
    pub outcome: Result<String, String>,
}

/// Tries the brokers of these options and all they tell of, then the topics.
///
/// It takes ten seconds for the brokers that are named and as long again for
/// those that are advertised, at most.
pub fn probe(options: &Options, topics: &[String]) -> Vec<Check> {
    if options.client == Kind::Legacy {
        return legacy::probe(options, topics);
    }
    let mut probe = Probe::of(options, topics);
    probe.run();
    let is_old = probe.peers.iter().any(|peer| peer.is_old);
    let mut checks = probe.checks();
    if is_old {
        checks.extend(legacy::probe(options, topics));
    }
    checks
}

struct Probe<'a> {
    options: &'a Options,
    topics: &'a [String],
    events: (Sender<Event>, Receiver<Event>),
    peers: Vec<Peer>,
    /// What the first broker to answer says.
    cluster: Option<ClusterMetadata>,
    /// Whether the brokers make a topic on first use, if one says so.
    makes_topics: Option<bool>,
}

/// A broker that is tried.
struct Peer {
    address: Address,
    /// Who told of it, if it was not named.
    told_by: Option<Address>,
    connection: Connection,
    /// There is a TLS handshake among the steps.
    tls: bool,
    /// ... and a login, with this mechanism.
    mechanism: Option<&'static str>,
    waiting: Waiting,
    versions: Option<Versions>,
    deadline: Instant,
    /// When the producer id is asked for again, and how it was refused last.
    retry_at: Option<Instant>,
    refused: Option<ErrorCode>,
    checks: Vec<Check>,
    /// The legacy client takes it.
    is_old: bool,
}

/// What a broker was asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Connection,
    Metadata,
    ProducerId,
    Setting,
    Nothing,
}

impl<'a> Probe<'a> {
    /// Begins with the brokers that are named.
    fn of(options: &'a Options, topics: &'a [String]) -> Probe<'a> {
        let mut probe = Probe {
            options,
            topics,
            events: bounded(EVENTS_MAX),
            peers: Vec::new(),
            cluster: None,
            makes_topics: None,
        };
        for address in &options.bootstrap {
            probe.add(address, None);
        }
        probe
    }

    fn add(&mut self, address: &Address, told_by: Option<&Address>) {
        let known = self.peers.iter().any(|peer| peer.address == *address);
        if known || self.peers.len() >= BROKERS_MAX {
            return;
        }
        let dial = self.options.dial();
        let dial = Dial {
            connect_timeout: dial.connect_timeout.min(CONNECT_MAX),
            handshake_timeout: dial.handshake_timeout.min(CONNECT_MAX),
            ..dial
        };
        let connection = Connection::open(
            self.peers.len() as ConnectionId,
            address.clone(),
            dial,
            self.events.0.clone(),
        );
        self.peers.push(Peer {
            address: address.clone(),
            told_by: told_by.cloned(),
            connection,
            tls: self.options.tls.is_some(),
            mechanism: self.options.sasl.as_ref().map(Sasl::mechanism),
            waiting: Waiting::Connection,
            versions: None,
            deadline: Instant::now() + BROKER_MAX,
            retry_at: None,
            refused: None,
            checks: Vec::new(),
            is_old: false,
        });
    }

    /// Until nobody is waited for any more.
    fn run(&mut self) {
        loop {
            let waiting = |peer: &&Peer| peer.waiting != Waiting::Nothing;
            let wake = |peer: &Peer| {
                peer.retry_at
                    .map_or(peer.deadline, |at| at.min(peer.deadline))
            };
            let Some(wake) = self.peers.iter().filter(waiting).map(wake).min() else {
                return;
            };
            match self.events.1.recv_deadline(wake) {
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => self.on_time(Instant::now()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Up(id, versions) => self.up(id as usize, versions),
            Event::Answer(id, answer) => {
                if let Err(cause) = self.answered(id as usize, &answer) {
                    self.peers[id as usize].fails(&cause.to_string(), "is this a Kafka broker?");
                }
            }
            Event::Down(id, error) => {
                let may_be_legacy = self.options.may_be_legacy();
                self.peers[id as usize].down(&error, may_be_legacy);
            }
        }
    }

    fn on_time(&mut self, now: Instant) {
        for peer in &mut self.peers {
            if peer.waiting == Waiting::Nothing {
                continue;
            }
            if let (true, Some(code)) = (peer.deadline <= now, peer.refused) {
                let problem = format!("{code} for {BROKER_MAX:?}");
                peer.fails(&problem, "see the broker's log: its controller may be away");
            } else if peer.deadline <= now {
                let error = ConnectionError {
                    address: peer.address.clone(),
                    stage: peer.connection.stage(),
                    cause: Cause::Silence(BROKER_MAX),
                };
                peer.down(&error, false);
            } else if peer.retry_at.is_some_and(|at| at <= now) {
                peer.ask_producer_id(&self.options.client_id);
            }
        }
    }

    fn up(&mut self, id: usize, versions: Versions) {
        let topics = self.topics.iter().map(String::as_str);
        let frame = wire::metadata_request(
            versions.metadata,
            1,
            &self.options.client_id,
            topics,
            Purpose::Probing,
        );
        let peer = &mut self.peers[id];
        if peer.waiting != Waiting::Connection {
            return; // it was given up
        }
        peer.reached(Stage::Serving);
        peer.versions = Some(versions);
        peer.ask(Waiting::Metadata, frame);
    }

    fn answered(&mut self, id: usize, answer: &[u8]) -> Result<(), Cause> {
        let (_, body) = wire::split_correlation(answer)?;
        let Some(versions) = self.peers[id].versions else {
            return Ok(());
        };
        match self.peers[id].waiting {
            Waiting::Metadata => {
                self.metadata(id, wire::metadata_response(body, versions.metadata)?)
            }
            Waiting::ProducerId => {
                self.producer_id(id, wire::init_producer_id_response(body)?.err())
            }
            Waiting::Setting => {
                self.makes_topics = self.makes_topics.or(wire::auto_create_response(body)?);
                self.peers[id].waiting = Waiting::Nothing;
            }
            Waiting::Connection | Waiting::Nothing => {}
        }
        Ok(())
    }

    fn metadata(&mut self, id: usize, answer: ClusterMetadata) {
        let peer = &mut self.peers[id];
        if answer.brokers.is_empty() {
            return peer.fails(
                "it knows of no broker, not even itself",
                "it may be just starting: try again",
            );
        }
        let count = answer.brokers.len();
        peer.passes(
            "metadata",
            format!("{count} broker{}", if count == 1 { "" } else { "s" }),
        );
        peer.ask_producer_id(&self.options.client_id);
        let teller = peer.address.clone();
        for (_, address) in &answer.brokers {
            self.add(address, Some(&teller));
        }
        self.cluster.get_or_insert(answer);
    }

    fn producer_id(&mut self, id: usize, refused: Option<ErrorCode>) {
        const HINT: &str =
            "allow this client IdempotentWrite on the cluster, or Write on the topics";
        let peer = &mut self.peers[id];
        match refused {
            // A broker that has just started answers so to the first who asks.
            Some(code) if code.verdict() == Verdict::Retry => {
                peer.retry_at = Some(Instant::now() + RETRY_PAUSE);
                peer.refused = Some(code);
                return;
            }
            Some(code) => peer.push("producer id", Err(format!("{code} ({HINT})"))),
            None => peer.passes("producer id", String::new()),
        }
        self.ask_setting(id);
    }

    /// Asks whether topics are made on first use, if that matters and nobody has
    /// told. A broker answers for itself only.
    fn ask_setting(&mut self, id: usize) {
        let peer = &mut self.peers[id];
        peer.waiting = Waiting::Nothing;
        let Some(cluster) = &self.cluster else { return };
        let unknown = |topic: &TopicMetadata| topic.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let nodes = &cluster.brokers;
        let node = nodes.iter().find(|(_, address)| *address == peer.address);
        if let Some((node, _)) = node
            && self.makes_topics.is_none()
            && cluster.topics.iter().any(unknown)
        {
            let frame = wire::auto_create_request(3, &self.options.client_id, *node);
            peer.ask(Waiting::Setting, frame);
        }
    }

    fn checks(self) -> Vec<Check> {
        let topics: Vec<Check> = match &self.cluster {
            Some(cluster) => {
                let by_name: HashMap<&str, &TopicMetadata> = cluster
                    .topics
                    .iter()
                    .map(|topic| (topic.name.as_str(), topic))
                    .collect();
                let check = |name: &String| {
                    topic_check(name, by_name.get(name.as_str()).copied(), self.makes_topics)
                };
                self.topics.iter().map(check).collect()
            }
            None => Vec::new(),
        };
        let peers = self.peers.into_iter();
        peers.flat_map(|peer| peer.checks).chain(topics).collect()
    }
}

impl Peer {
    /// The steps before a stage went well.
    fn reached(&mut self, stage: Stage) {
        for step in [
            Stage::Dns,
            Stage::Tcp,
            Stage::Tls,
            Stage::Handshake,
            Stage::Sasl,
        ] {
            if step == stage {
                return;
            }
            let detail = match step {
                Stage::Tls if !self.tls => continue,
                Stage::Sasl => match self.mechanism {
                    Some(mechanism) => mechanism.to_owned(),
                    None => continue,
                },
                _ => String::new(),
            };
            self.passes(&step.to_string(), detail);
        }
    }

    fn ask(&mut self, waiting: Waiting, frame: Frame) {
        self.waiting = waiting;
        // When the connection is closing, its end says so.
        self.connection.send(frame);
    }

    fn ask_producer_id(&mut self, client_id: &str) {
        self.retry_at = None;
        if let Some(versions) = self.versions {
            let frame = wire::init_producer_id_request(versions.init_producer_id, 2, client_id);
            self.ask(Waiting::ProducerId, frame);
        }
    }

    fn down(&mut self, error: &ConnectionError, may_be_legacy: bool) {
        if error.wants_legacy() && may_be_legacy {
            self.reached(error.stage);
            let detail = format!("{}: the legacy client is taken", error.cause);
            self.passes(&error.stage.to_string(), detail);
            self.waiting = Waiting::Nothing;
            self.is_old = true;
        } else if self.waiting == Waiting::Connection {
            self.reached(error.stage);
            let hint = match self.told_by.is_some()
                && matches!(error.stage, Stage::Dns | Stage::Tcp)
            {
                true => {
                    "the brokers advertise this address: make it reachable from here, or change advertised.listeners"
                }
                false => error.hint(),
            };
            self.push(
                &error.stage.to_string(),
                Err(format!("{} ({hint})", error.cause)),
            );
            self.waiting = Waiting::Nothing;
        } else {
            self.fails(&error.cause.to_string(), error.hint());
        }
    }

    /// What was asked last goes wrong, and nothing more is asked.
    fn fails(&mut self, problem: &str, hint: &str) {
        let step = match self.waiting {
            Waiting::Metadata => "metadata",
            Waiting::ProducerId => "producer id",
            // Not everybody may ask for settings; they are not needed.
            Waiting::Connection | Waiting::Setting | Waiting::Nothing => {
                self.waiting = Waiting::Nothing;
                return;
            }
        };
        self.push(step, Err(format!("{problem} ({hint})")));
        self.waiting = Waiting::Nothing;
    }

    fn passes(&mut self, step: &str, detail: String) {
        self.push(step, Ok(detail));
    }

    fn push(&mut self, step: &str, outcome: Result<String, String>) {
        let teller = self
            .told_by
            .as_ref()
            .map(|teller| format!(", advertised by {teller}"));
        let name = format!("{}{}: {step}", self.address, teller.unwrap_or_default());
        self.checks.push(Check { name, outcome });
    }
}

fn topic_check(name: &str, topic: Option<&TopicMetadata>, makes_topics: Option<bool>) -> Check {
    let outcome = match topic {
        None => Err("the broker says nothing of it (try again)".to_owned()),
        Some(topic) if topic.code == ErrorCode::NONE && topic.may_write == Some(false) => Err(
            "this client may see it, but not write to it (allow this client Write on it)".to_owned(),
        ),
        Some(topic) if topic.code == ErrorCode::NONE => leaders(topic),
        Some(topic) if topic.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => match makes_topics {
            Some(true) => Ok("it does not exist yet, and is made on first use".to_owned()),
            Some(false) => Err("it does not exist, and auto.create.topics.enable is off (create it)".to_owned()),
            None => Err("it does not exist, and the broker does not tell whether it is made on first use (create it, or see auto.create.topics.enable)".to_owned()),
        },
        Some(topic) => Err(format!("{} ({})", topic.code, topic_hint(topic.code))),
    };
    Check {
        name: format!("topic {name}"),
        outcome,
    }
}

fn leaders(topic: &TopicMetadata) -> Result<String, String> {
    let headless: HashSet<i32> = topic
        .leaders
        .iter()
        .filter(|(_, leader)| leader.is_none())
        .map(|(index, _)| *index)
        .collect();
    let count = topic.leaders.len();
    match headless.iter().min() {
        None if count == 1 => Ok("1 partition".to_owned()),
        None => Ok(format!("{count} partitions")),
        Some(first) => Err(format!(
            "{} of {count} partitions have no leader, like {first} (start the brokers that hold them)",
            headless.len()
        )),
    }
}

fn topic_hint(code: ErrorCode) -> &'static str {
    const TOPIC_AUTHORIZATION_FAILED: ErrorCode = ErrorCode(29);
    match code {
        TOPIC_AUTHORIZATION_FAILED => "allow this client Describe and Write on it",
        ErrorCode::LEADER_NOT_AVAILABLE => "an election is going on: try again",
        _ if code.verdict() == Verdict::TopicWaits => "see the broker's log",
        _ => "try again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_told_with_what_to_change() {
        let topic = |code: i16, leaders: &[Option<i32>]| TopicMetadata {
            name: "t".to_owned(),
            code: ErrorCode(code),
            leaders: leaders
                .iter()
                .enumerate()
                .map(|(n, leader)| (n as i32, *leader))
                .collect(),
            may_write: None,
        };
        for (topic, makes_topics, expected) in [
            (topic(0, &[Some(1), Some(2)]), None, Ok("2 partitions")),
            (
                topic(0, &[Some(1), None]),
                None,
                Err("1 of 2 partitions have no leader, like 1"),
            ),
            (topic(3, &[]), Some(true), Ok("made on first use")),
            (
                topic(3, &[]),
                Some(false),
                Err("auto.create.topics.enable is off (create it)"),
            ),
            (topic(3, &[]), None, Err("does not tell whether")),
            (
                topic(29, &[]),
                None,
                Err("TOPIC_AUTHORIZATION_FAILED (29) (allow this client"),
            ),
        ] {
            let outcome = topic_check("t", Some(&topic), makes_topics).outcome;
            let said = outcome.as_ref().unwrap_or_else(|problem| problem);
            assert_eq!(outcome.is_ok(), expected.is_ok(), "{outcome:?}");
            assert!(
                said.contains(expected.unwrap_or_else(|problem| problem)),
                "{said}"
            );
        }
    }

    /// A resolver that is silent was told as "connection", whatever had gone before.
    #[test]
    fn what_takes_too_long_is_told_with_the_step_that_it_is_at() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let options = Options::new(vec![Address::new("127.0.0.1", port)]);
        let mut probe = Probe::of(&options, &[]);
        while probe.peers[0].connection.stage() != Stage::Handshake {
            std::thread::yield_now();
        }
        probe.on_time(Instant::now() + BROKER_MAX);
        let steps: Vec<(&str, bool)> = probe.peers[0]
            .checks
            .iter()
            .map(|check| {
                (
                    check.name.rsplit(": ").next().unwrap(),
                    check.outcome.is_ok(),
                )
            })
            .collect();
        let expected = [
            ("DNS lookup", true),
            ("TCP connect", true),
            ("Kafka handshake", false),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn a_port_where_nobody_listens_fails_at_tcp() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let options = Options::new(vec![Address::new("127.0.0.1", port)]);
        let checks = probe(&options, &["t".to_owned()]);
        let names: Vec<&str> = checks
            .iter()
            .map(|check| check.name.rsplit(": ").next().unwrap())
            .collect();
        assert_eq!(names, ["DNS lookup", "TCP connect"]);
        assert!(
            checks[0].outcome.is_ok() && checks[1].outcome.is_err(),
            "{checks:?}"
        );
    }
}
