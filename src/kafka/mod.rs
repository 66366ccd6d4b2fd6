//! A synchronous Kafka producer: idempotent, pipelined, on plain threads.
//!
//! It imports nothing of the rest of logship and knows nothing of files or
//! lines. It does not consume and does not speak transactions.
//!
//! A [`BatchBuilder`] encodes records, a [`Producer`] carries the batches to the
//! leaders of their partitions and says what became of them. For brokers that know no
//! record batches yet there is [`Legacy`], another [`Client`].

mod address;
mod answer;
mod batch;
mod client;
mod codec;
mod connection;
mod error;
mod headers;
mod legacy;
mod probe;
mod producer;
mod sasl;
mod stats;
mod tls;
mod transport;
mod wire;

pub use address::{Address, AddressError};
pub use batch::{BatchBuilder, ProducerId, next_sequence};
pub use client::{Client, Kind, Records};
pub use codec::Compression;
pub use connection::Event;
pub use error::{Cause, ConnectionError, ErrorCode, Stage, Verdict};
pub use headers::{EncodedHeaders, Headers};
pub use legacy::{Legacy, MessageBuilder};
pub use probe::{Check, probe};
pub use producer::{Notice, Options, Outcome, Producer, Return, TopicId};
pub use sasl::{Login, Sasl, ScramHash, Secret};
pub use stats::{Latency, SECONDS, Stats};
pub use tls::{Identity, Tls, brief as brief_tls};

/// The longest topic name a broker takes, in bytes.
const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Says what is wrong with a topic name, if anything.
///
/// Source: `org.apache.kafka.common.internals.Topic` in Kafka's clients.
pub fn check_topic_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let problem = if name.is_empty() {
        "it is empty".to_owned()
    } else if name == "." || name == ".." {
        "'.' and '..' are reserved".to_owned()
    } else if name.len() > TOPIC_NAME_BYTES_MAX {
        format!("it is longer than {TOPIC_NAME_BYTES_MAX} characters")
    } else if let Some(c) = name.chars().find(|&c| !legal(c)) {
        format!("'{}' is not one of a-z A-Z 0-9 . _ -", c.escape_debug())
    } else {
        return Ok(());
    };
    Err(format!(
        "'{}' cannot be a Kafka topic: {problem}",
        name.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rule() {
        for good in ["a", "a.b_c-D9", &"x".repeat(249)] {
            assert_eq!(check_topic_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\n", &"x".repeat(250)] {
            assert!(check_topic_name(bad).is_err(), "{bad}");
        }
    }
}
