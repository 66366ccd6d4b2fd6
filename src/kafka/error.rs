//! What can go wrong between a client and a cluster, and what follows from it.
//!
//! One table maps every Kafka error code to one verdict; nothing else in the
//! client decides whether an error is worth a retry.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

use super::address::Address;
use super::tls;
use super::wire::PRODUCE_ZSTD;

/// Characters of what a broker says that are repeated in a message.
const QUOTED_CHARS_MAX: usize = 200;

/// A Kafka error code; 0 is "no error".
///
/// Source: the protocol guide, "Error codes".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub i16);

/// What the client does about an error code in answer to Produce or Metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The records are in the log: either now or since an earlier attempt.
    Accepted,
    /// It will pass; without any limit in time.
    Retry,
    /// It will pass once we know the cluster better: ask for metadata first.
    Refresh,
    /// The batch is too big or holds a record that will never be accepted.
    Poison,
    /// Nothing of this topic gets through until somebody changes something.
    TopicWaits,
    /// The broker and we disagree about the producer id or its sequence.
    NewProducer,
}

use Verdict::{Accepted, NewProducer, Poison, Refresh, Retry, TopicWaits};

/// The one table. A code that is not in it is retried: an unknown trouble is
/// no reason to lose a line.
const TABLE: &[(i16, &str, Verdict)] = &[
    (-1, "UNKNOWN_SERVER_ERROR", Retry),
    (0, "NONE", Accepted),
    (2, "CORRUPT_MESSAGE", Retry),
    (3, "UNKNOWN_TOPIC_OR_PARTITION", Refresh),
    (5, "LEADER_NOT_AVAILABLE", Refresh),
    (6, "NOT_LEADER_OR_FOLLOWER", Refresh),
    (7, "REQUEST_TIMED_OUT", Retry),
    (8, "BROKER_NOT_AVAILABLE", Refresh),
    (9, "REPLICA_NOT_AVAILABLE", Refresh),
    (10, "MESSAGE_TOO_LARGE", Poison),
    (13, "NETWORK_EXCEPTION", Refresh),
    (14, "COORDINATOR_LOAD_IN_PROGRESS", Retry),
    (15, "COORDINATOR_NOT_AVAILABLE", Retry),
    (16, "NOT_COORDINATOR", Retry),
    (17, "INVALID_TOPIC_EXCEPTION", TopicWaits),
    (18, "RECORD_LIST_TOO_LARGE", Poison),
    (19, "NOT_ENOUGH_REPLICAS", Retry),
    (20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", Retry),
    (21, "INVALID_REQUIRED_ACKS", TopicWaits),
    (29, "TOPIC_AUTHORIZATION_FAILED", TopicWaits),
    (31, "CLUSTER_AUTHORIZATION_FAILED", TopicWaits),
    (32, "INVALID_TIMESTAMP", TopicWaits), // of the time when a line was read: a clock is wrong
    (33, "UNSUPPORTED_SASL_MECHANISM", TopicWaits),
    (34, "ILLEGAL_SASL_STATE", TopicWaits),
    (35, "UNSUPPORTED_VERSION", TopicWaits),
    (37, "INVALID_PARTITIONS", TopicWaits),
    (38, "INVALID_REPLICATION_FACTOR", TopicWaits),
    (39, "INVALID_REPLICA_ASSIGNMENT", TopicWaits),
    (40, "INVALID_CONFIG", TopicWaits),
    (41, "NOT_CONTROLLER", Refresh),
    (42, "INVALID_REQUEST", TopicWaits),
    (43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", TopicWaits),
    (44, "POLICY_VIOLATION", TopicWaits),
    (45, "OUT_OF_ORDER_SEQUENCE_NUMBER", NewProducer),
    (46, "DUPLICATE_SEQUENCE_NUMBER", Accepted),
    (47, "INVALID_PRODUCER_EPOCH", NewProducer),
    (49, "INVALID_PRODUCER_ID_MAPPING", NewProducer),
    (51, "CONCURRENT_TRANSACTIONS", Retry),
    (56, "KAFKA_STORAGE_ERROR", Refresh),
    (58, "SASL_AUTHENTICATION_FAILED", TopicWaits),
    (59, "UNKNOWN_PRODUCER_ID", NewProducer),
    (72, "LISTENER_NOT_FOUND", Refresh),
    (74, "FENCED_LEADER_EPOCH", Refresh),
    (76, "UNSUPPORTED_COMPRESSION_TYPE", TopicWaits),
    (87, "INVALID_RECORD", Poison),
    (89, "THROTTLING_QUOTA_EXCEEDED", Retry),
    (90, "PRODUCER_FENCED", NewProducer),
    (100, "UNKNOWN_TOPIC_ID", Refresh),
    (103, "INCONSISTENT_TOPIC_ID", Refresh),
];

impl ErrorCode {
    /// No error.
    pub const NONE: ErrorCode = ErrorCode(0);
    /// The topic or one of its partitions does not exist.
    pub const UNKNOWN_TOPIC_OR_PARTITION: ErrorCode = ErrorCode(3);
    /// An election is going on, or the topic is just being made.
    pub const LEADER_NOT_AVAILABLE: ErrorCode = ErrorCode(5);
    /// More bytes than the topic takes in one batch.
    pub const MESSAGE_TOO_LARGE: ErrorCode = ErrorCode(10);
    /// More bytes than a segment of the log takes.
    pub const RECORD_LIST_TOO_LARGE: ErrorCode = ErrorCode(18);
    /// The broker does not speak this version of the request.
    pub const UNSUPPORTED_VERSION: ErrorCode = ErrorCode(35);

    /// True when it says that something is too large, and nothing of what is in it.
    pub fn is_of_size(self) -> bool {
        [
            ErrorCode::MESSAGE_TOO_LARGE,
            ErrorCode::RECORD_LIST_TOO_LARGE,
        ]
        .contains(&self)
    }

    /// The name the protocol guide gives the code.
    pub fn name(self) -> &'static str {
        self.row()
            .map_or("an error code this client does not know", |row| row.1)
    }

    /// What the client does about it.
    pub fn verdict(self) -> Verdict {
        self.row().map_or(Retry, |row| row.2)
    }

    /// True when an answer to Produce with it says for certain that nothing was appended.
    /// Most say nothing of that: a leader that waits for its replicas, and is deposed, answers
    /// NOT_LEADER_OR_FOLLOWER for what is in its log (`DelayedProduce`).
    pub fn leaves_nothing(self) -> bool {
        const NOT_ENOUGH_REPLICAS: i16 = 19;
        const THROTTLING_QUOTA_EXCEEDED: i16 = 89;
        matches!(self.0, NOT_ENOUGH_REPLICAS | THROTTLING_QUOTA_EXCEEDED)
            || matches!(self.verdict(), Poison | TopicWaits)
    }

    /// Its label in metrics: the name, or `code_N` of one that this client does not know.
    pub fn label(self) -> Cow<'static, str> {
        self.row().map_or_else(
            || format!("code_{}", self.0).into(),
            |row| Cow::Borrowed(row.1),
        )
    }

    fn row(self) -> Option<&'static (i16, &'static str, Verdict)> {
        TABLE
            .binary_search_by_key(&self.0, |row| row.0)
            .ok()
            .map(|at| &TABLE[at])
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

/// How far a connection got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Looking up the host's addresses.
    Dns,
    /// Opening the TCP connection.
    Tcp,
    /// Making it a TLS connection.
    Tls,
    /// Asking for the API versions, the first exchange with a broker.
    Handshake,
    /// Logging in.
    Sasl,
    /// Serving requests.
    Serving,
    /// Serving requests of the legacy client.
    Legacy,
}

impl Stage {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Dns => "dns",
            Stage::Tcp => "tcp",
            Stage::Tls => "tls",
            Stage::Handshake => "handshake",
            Stage::Sasl => "sasl",
            Stage::Serving | Stage::Legacy => "request",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Dns => "DNS lookup",
            Stage::Tcp => "TCP connect",
            Stage::Tls => "TLS handshake",
            Stage::Handshake => "Kafka handshake",
            Stage::Sasl => "SASL login",
            Stage::Serving => "request",
            Stage::Legacy => "request of the legacy client",
        })
    }
}

/// Why there is no connection to a broker, or no longer.
#[derive(Debug)]
pub struct ConnectionError {
    /// The broker as it was addressed.
    pub address: Address,
    /// How far it got.
    pub stage: Stage,
    /// What went wrong there.
    pub cause: Cause,
}

/// What went wrong with a connection.
#[derive(Debug)]
pub enum Cause {
    /// The operating system says no.
    Io(io::Error),
    /// The host name has no address.
    NoAddress,
    /// No answer within the time-out.
    Silence(Duration),
    /// The broker hung up.
    HungUp,
    /// The broker hung up on a request of this name, after it had answered others.
    HungUpOn(&'static str),
    /// What came is not what Kafka's protocol says.
    Protocol(String),
    /// What came is TLS, where none was expected.
    SpeaksTls,
    /// TLS says no.
    Tls(rustls::Error),
    /// The login fails, on either side.
    Login(String),
    /// The listener has no login.
    NoLogin,
    /// The broker does not know the mechanism, and names those that it knows.
    Mechanism(&'static str, Vec<String>),
    /// The broker is older or newer than what this client speaks.
    Version(String),
    /// The broker is older than Kafka 0.11, where record batches began (KIP-98): it knows
    /// Produce up to this version.
    NoRecordBatches(i16),
    /// The broker takes record batches and hands out no producer ids (KIP-98).
    NoIdempotence,
    /// The broker is older than Kafka 2.1, where zstd began (KIP-110), and batches come in
    /// zstd: it knows Produce up to this version.
    NoZstd(i16),
}

impl ConnectionError {
    /// True when an idle connection was merely closed by the broker, which
    /// brokers do after `connections.max.idle.ms` and which means nothing.
    pub fn is_hang_up(&self) -> bool {
        matches!(self.cause, Cause::HungUp)
    }

    /// True when somebody has to change something before it works: a wrong password, a
    /// certificate that nobody trusts.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.cause,
            Cause::Tls(_)
                | Cause::Login(_)
                | Cause::NoLogin
                | Cause::Mechanism(..)
                | Cause::NoIdempotence
                | Cause::NoZstd(_)
        )
    }

    /// True when only the legacy client can write to this broker.
    pub fn wants_legacy(&self) -> bool {
        matches!(self.cause, Cause::NoRecordBatches(_))
    }

    /// What the reader of the message can change.
    pub fn hint(&self) -> &'static str {
        match (self.stage, &self.cause) {
            (Stage::Dns, _) => "check the host name and the resolver",
            (Stage::Tcp, Cause::Silence(_)) => "check the address, routes and firewalls",
            (Stage::Tcp, _) => "check the address and whether the broker runs",
            (_, Cause::SpeaksTls) => "this listener wants TLS: kafka.tls, --security-protocol SSL",
            (_, Cause::Tls(error)) => tls::hint(error),
            (Stage::Tls, Cause::HungUp) => {
                "this listener may be one without TLS, or want a certificate of ours"
            }
            (Stage::Tls, _) => "check that this port is a Kafka listener with TLS",
            (_, Cause::NoIdempotence) => {
                "allow idempotent producers there, or set kafka.client to \"legacy\", with which lines may come twice and which knows neither TLS nor SASL"
            }
            (_, Cause::NoZstd(_)) => "use lz4 or another codec: kafka.compression, --compression",
            (Stage::Handshake, Cause::Version(_)) => "logship needs Kafka 0.11 or newer",
            (Stage::Handshake, Cause::NoRecordBatches(_)) => {
                "set kafka.client to \"legacy\" (--client legacy), which knows neither TLS nor SASL"
            }
            (Stage::Handshake, Cause::HungUp) => {
                "check that this port is a Kafka listener; one with TLS needs kafka.tls, a broker before 0.10 needs kafka.client: \"legacy\", --client legacy"
            }
            (Stage::Handshake, Cause::Silence(_)) => {
                "check that this port is a Kafka listener; a broker before 0.10 needs kafka.client: \"legacy\", --client legacy"
            }
            (Stage::Handshake, _) => "check that this port is a Kafka listener",
            (_, Cause::Mechanism(..)) => {
                "use a mechanism that the broker knows: kafka.sasl.mechanism, --sasl-mechanism"
            }
            (Stage::Sasl, Cause::NoLogin) => "leave kafka.sasl away, or use a listener with SASL",
            (Stage::Sasl, Cause::HungUp) => {
                "check that this listener is one with SASL, and user and password"
            }
            (Stage::Sasl, Cause::Silence(_) | Cause::Protocol(_)) => "check the broker's log",
            (Stage::Sasl, Cause::Login(problem)) if problem.contains("token") => {
                "check the token: kafka.sasl.token_file, --sasl-token-file"
            }
            (Stage::Sasl, _) => "check user and password, and whether the broker knows them",
            (Stage::Serving, Cause::HungUp) => {
                "see the broker's log; a listener with SASL hangs up on who does not log in"
            }
            (_, Cause::HungUpOn("InitProducerId")) => {
                "see the broker's log; it answers other requests, so this is no mistake of TLS or login: a proxy may not know idempotent producers"
            }
            (_, Cause::HungUpOn(_)) => {
                "see the broker's log if it stays so; it answers other requests"
            }
            (Stage::Legacy, Cause::Version(_)) => "leave kafka.client away",
            (Stage::Legacy, Cause::HungUp) => {
                "see the broker's log; Kafka 4, and listeners with TLS or SASL, hang up on the legacy client"
            }
            (Stage::Legacy, Cause::Protocol(_)) => {
                "check that this port is a Kafka listener, without TLS, of a broker before Kafka 4"
            }
            (Stage::Serving | Stage::Legacy, _) => "check the broker's log",
        }
    }
}

/// A broker's text, as much of it as a person reads.
pub(super) fn quoted(text: &str) -> String {
    let text: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    text.escape_debug().to_string()
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.stage, self.address, self.cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Io(error) => write!(f, "{error}"),
            Cause::NoAddress => f.write_str("the host name has no address"),
            Cause::Silence(waited) => write!(f, "no answer within {waited:?}"),
            Cause::HungUp => f.write_str("the broker closed the connection"),
            Cause::HungUpOn(request) => {
                write!(f, "the broker closed the connection on {request}")
            }
            Cause::Protocol(what) | Cause::Version(what) | Cause::Login(what) => f.write_str(what),
            Cause::NoRecordBatches(newest) => write!(
                f,
                "the broker is older than Kafka 0.11: it knows Produce up to version {newest}"
            ),
            Cause::NoIdempotence => f.write_str(
                "the broker offers no InitProducerId, which Kafka has since 0.11, and logship sends nothing without a producer id",
            ),
            Cause::NoZstd(newest) => write!(
                f,
                "the broker does not know zstd, which needs Kafka 2.1: it knows Produce up to version {newest}, not {PRODUCE_ZSTD}"
            ),
            Cause::SpeaksTls => f.write_str("the broker speaks TLS"),
            Cause::NoLogin => f.write_str("this listener knows no login"),
            Cause::Tls(error) => f.write_str(&tls::told(error)),
            Cause::Mechanism(ours, theirs) if theirs.is_empty() => {
                write!(f, "the broker does not know {ours}, and names no other")
            }
            Cause::Mechanism(ours, theirs) => write!(
                f,
                "the broker does not know {ours}, but {}",
                theirs.join(", ")
            ),
        }
    }
}

impl std::error::Error for ConnectionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Io(error) => Some(error),
            Cause::Tls(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(TABLE.is_sorted_by_key(|row| row.0));
    }

    #[test]
    fn an_unknown_code_is_retried_for_ever() {
        assert_eq!(ErrorCode(12_345).verdict(), Verdict::Retry);
        assert_eq!(
            ErrorCode(12_345).to_string(),
            "an error code this client does not know (12345)"
        );
    }

    #[test]
    fn codes_have_the_names_of_the_protocol_guide() {
        assert_eq!(ErrorCode(6).to_string(), "NOT_LEADER_OR_FOLLOWER (6)");
        assert_eq!(ErrorCode(10).verdict(), Verdict::Poison);
        assert_eq!(ErrorCode(46).verdict(), Verdict::Accepted);
    }
}
