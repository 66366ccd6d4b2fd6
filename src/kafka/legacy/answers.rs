//! What brokers answer in version 0, which is all that the oldest of them speak.
//!
//! Anybody may listen at a port and any broker may be broken: nothing is kept of an
//! answer but what was asked for, and of that no more than a cluster can have.

use std::collections::HashMap;

use kafka_protocol::messages::ApiKey;

use super::super::address::{self, Address};
use super::super::answer::Answer;
use super::super::error::{Cause, ErrorCode, quoted};
use super::super::wire::BROKERS_MAX;

/// Bytes of a host name that are believed; DNS has 253 (RFC 1035 section 3.1).
const HOST_BYTES_MAX: usize = 255;
/// Partitions that are believed, of all topics that were asked for.
const PARTITIONS_MAX: usize = 100_000;

/// The leader of a partition, if there is one.
pub type Leader = Option<Address>;

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Why there are no partitions, if so.
    pub code: ErrorCode,
    /// The leaders of its partitions. A topic of which nothing is known has none.
    pub leaders: Vec<Leader>,
}

/// Decodes a Metadata answer: what it says of these topics, in their order.
pub fn metadata(body: &[u8], topics: Vec<String>) -> Result<Vec<Known>, Cause> {
    let mut answer = Answer::new(ApiKey::Metadata, body);
    let brokers = brokers(&mut answer)?;
    let mut known: Vec<Known> = topics.into_iter().map(Known::nothing_of).collect();
    let names = known.iter().map(|topic| topic.name.clone());
    let places: HashMap<String, usize> = names.zip(0..).collect();
    let mut partitions = 0;
    for _ in 0..answer.count()? {
        let code = ErrorCode(answer.i16()?);
        let place = places.get(&answer.string()?);
        let count = answer.count()?;
        let mut leaders = Vec::new();
        if place.is_some() {
            partitions += count;
            if partitions > PARTITIONS_MAX {
                return Err(nonsense(format!("names {partitions} partitions")));
            }
            leaders.resize(count, None);
        }
        for _ in 0..count {
            answer.i16()?; // error code: without a leader, nothing but that is of interest
            let index = answer.i32()?;
            let leader = answer.i32()?;
            for _replicas_and_those_in_sync in 0..2 {
                for _ in 0..answer.count()? {
                    answer.i32()?;
                }
            }
            if place.is_none() {
                continue;
            }
            let slot = usize::try_from(index).ok();
            match slot.and_then(|index| leaders.get_mut(index)) {
                Some(slot) => *slot = brokers.get(&leader).cloned(),
                None => return Err(nonsense(format!("names partition {index} of {count}"))),
            }
        }
        if let Some(&place) = place {
            (known[place].code, known[place].leaders) = (code, leaders);
        }
    }
    answer.end()?;
    Ok(known)
}

/// The brokers by node id.
fn brokers(answer: &mut Answer) -> Result<HashMap<i32, Address>, Cause> {
    let mut brokers = HashMap::new();
    for _ in 0..answer.count_within(&mut { BROKERS_MAX }, "brokers")? {
        let node = answer.i32()?;
        let host = answer.string()?;
        let port = answer.i32()?;
        if host.len() > HOST_BYTES_MAX || !address::is_host(&host) {
            return Err(nonsense(format!("names a broker \"{}\"", quoted(&host))));
        }
        if let Ok(port) = u16::try_from(port) {
            brokers.insert(node, Address::new(host, port));
        }
    }
    Ok(brokers)
}

/// Decodes a Produce answer: what became of the batch for this partition.
pub fn written(body: &[u8], topic: &str, partition: i32) -> Result<ErrorCode, Cause> {
    let mut answer = Answer::new(ApiKey::Produce, body);
    let mut ours = None;
    for _ in 0..answer.count()? {
        let is_topic = answer.string()? == topic;
        for _ in 0..answer.count()? {
            let index = answer.i32()?;
            let code = ErrorCode(answer.i16()?);
            answer.i64()?; // offset
            if is_topic && index == partition {
                ours = Some(code);
            }
        }
    }
    answer.end()?;
    ours.ok_or_else(|| nonsense("does not name the partition".to_owned()))
}

impl Known {
    fn nothing_of(name: String) -> Known {
        Known {
            name,
            code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            leaders: Vec::new(),
        }
    }
}

fn nonsense(does: String) -> Cause {
    Cause::Protocol(format!("an answer that {does}: not Kafka?"))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::{BrokerId, MetadataResponse, TopicName};
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;

    /// Brokers 1 to 3; topic "a" with two partitions, written in the order 1, 0, of which
    /// the first has no leader, and "other", which nobody asked for.
    fn metadata_answer() -> Vec<u8> {
        let broker = |node| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(node))
                .with_host(StrBytes::from_string(format!("k{node}")))
                .with_port(9090 + node)
        };
        let partition = |index, leader| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BrokerId(leader))
                .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
                .with_isr_nodes(vec![BrokerId(2)])
        };
        let topic = |name, partitions| {
            MetadataResponseTopic::default()
                .with_name(Some(TopicName(StrBytes::from_static_str(name))))
                .with_partitions(partitions)
        };
        let answer = MetadataResponse::default()
            .with_brokers((1..=3).map(broker).collect())
            .with_topics(vec![
                topic("a", vec![partition(1, 3), partition(0, -1)]),
                topic("other", vec![partition(0, 1)]),
            ]);
        let mut bytes = BytesMut::new();
        answer.encode(&mut bytes, 0).unwrap();
        bytes.to_vec()
    }

    /// As the protocol guide has it; the crate `kafka-protocol` knows no version so old.
    const PRODUCE_ANSWER: &[u8] =
        b"\0\0\0\x01\0\x01t\0\0\0\x02\0\0\0\x05\0\x07\0\0\0\0\0\0\0\x2a\0\0\0\x06\0\0\0\0\0\0\0\0\0\x2a";

    #[test]
    fn only_what_was_asked_for_is_kept_of_metadata() {
        let wanted = || vec!["b".to_owned(), "a".to_owned()];
        let known = metadata(&metadata_answer(), wanted()).unwrap();
        let [b, a] = &known[..] else {
            panic!("{known:?}");
        };
        assert_eq!(*b, Known::nothing_of("b".to_owned()));
        assert_eq!((a.name.as_str(), a.code), ("a", ErrorCode::NONE));
        assert_eq!(a.leaders, [None, Some(Address::new("k3", 9093))]);
    }

    #[test]
    fn an_answer_to_produce_is_of_one_partition() {
        let code = |topic, partition| written(PRODUCE_ANSWER, topic, partition);
        assert_eq!(code("t", 5).unwrap(), ErrorCode(7));
        assert_eq!(code("t", 6).unwrap(), ErrorCode::NONE);
        assert!(code("t", 7).is_err());
        assert!(code("u", 5).is_err());
    }

    #[test]
    fn answers_that_are_cut_or_too_long_are_refused() {
        let whole = metadata_answer();
        for end in 0..whole.len() {
            assert!(metadata(&whole[..end], vec!["a".to_owned()]).is_err());
        }
        let more = [&whole[..], &[0]].concat();
        assert!(metadata(&more, vec!["a".to_owned()]).is_err());
        for end in 0..PRODUCE_ANSWER.len() {
            assert!(written(&PRODUCE_ANSWER[..end], "t", 5).is_err());
        }
        assert!(written(&[PRODUCE_ANSWER, &[0]].concat(), "t", 5).is_err());
    }

    /// Any byte of an answer may be any other: what comes of it is an error, or it is an
    /// answer. Nothing panics.
    #[test]
    fn answers_that_were_damaged_do_no_harm() {
        let whole = metadata_answer();
        for at in 0..whole.len() {
            for byte in 0..=u8::MAX {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let _ = metadata(&damaged, vec!["a".to_owned(), "b".to_owned()]);
            }
        }
        for at in 0..PRODUCE_ANSWER.len() {
            for byte in 0..=u8::MAX {
                let mut damaged = PRODUCE_ANSWER.to_vec();
                damaged[at] = byte;
                let _ = written(&damaged, "t", 5);
            }
        }
    }
}
