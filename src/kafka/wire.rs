//! Requests and answers as bytes.
//!
//! Small requests are encoded by the crate `kafka-protocol`. Produce is written
//! here, because it carries the batches and they are not copied again; answers
//! are read here, because what comes from a socket may be anything, and the
//! crate believes every count it reads.
//!
//! Source: the protocol guide, <https://kafka.apache.org/protocol.html>.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, DescribeConfigsRequest, InitProducerIdRequest, MetadataRequest,
    RequestHeader, SaslAuthenticateRequest, SaslHandshakeRequest, TopicName,
    describe_configs_request::DescribeConfigsResource, metadata_request::MetadataRequestTopic,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::address::{self, Address};
use super::answer::Answer;
use super::batch::ProducerId;
use super::codec::Compression;
use super::error::{Cause, ErrorCode, Verdict, quoted};
use super::sasl::Secret;

/// The version in which ApiVersions is asked first.
pub const API_VERSIONS_NEWEST: i16 = 3;
/// Produce: 3 is the first with record batches (KIP-98), 7 the first with
/// zstd (KIP-110) and the newest that every Kafka from 2.1 and Redpanda take.
const PRODUCE: (i16, i16) = (3, PRODUCE_ZSTD);
/// The first Produce with zstd, of Kafka 2.1.
pub const PRODUCE_ZSTD: i16 = 7;
/// Metadata: 4 is the first that can ask for topics to be made;
/// 9 and later are flexible and tell nothing more that is needed.
const METADATA: (i16, i16) = (4, 8);
/// InitProducerId without a transaction needs nothing newer (KIP-98).
const INIT_PRODUCER_ID: (i16, i16) = (0, 1);
/// SaslHandshake that is followed by SaslAuthenticate (KIP-152).
const SASL_HANDSHAKE: i16 = 1;
/// Mechanisms of a broker that are named in a message; there are five.
const MECHANISMS_SHOWN_MAX: usize = 20;
/// SaslAuthenticate: 1 tells how long the login holds (KIP-368).
const SASL_AUTHENTICATE: (i16, i16) = (0, 1);

/// The first version of Fetch that knows record batches and nothing else.
const FETCH_BATCHES: i16 = 4;

/// The versions of each request that a broker and this client share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Of Produce.
    pub produce: i16,
    /// Of Metadata.
    pub metadata: i16,
    /// Of InitProducerId.
    pub init_producer_id: i16,
    /// Of SaslAuthenticate; `None` before Kafka 1.0.
    pub sasl_authenticate: Option<i16>,
    /// It takes record batches only, as Kafka 4 does, whatever it says of Produce (KIP-896).
    pub batches_only: bool,
}

impl Versions {
    /// True when batches may come in this codec.
    pub fn take(&self, compression: Compression) -> bool {
        compression != Compression::Zstd || self.produce >= PRODUCE_ZSTD
    }
}

/// The bytes of one request, batches shared rather than copied.
#[derive(Debug)]
pub struct Frame {
    small: Vec<u8>,
    order: Vec<Segment>,
}

#[derive(Debug)]
enum Segment {
    Small(Range<usize>),
    Batch(Arc<Vec<u8>>),
}

impl Frame {
    pub(super) fn of(bytes: Vec<u8>) -> Frame {
        Frame {
            order: vec![Segment::Small(0..bytes.len())],
            small: bytes,
        }
    }

    /// The request's bytes in order, length field first.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.order.iter().map(|segment| match segment {
            Segment::Small(range) => &self.small[range.clone()],
            Segment::Batch(batch) => batch.as_slice(),
        })
    }

    #[cfg(test)]
    fn concat(&self) -> Vec<u8> {
        self.segments().collect::<Vec<_>>().concat()
    }
}

/// One partition's batch in a Produce request.
pub struct ProducePart<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Partition index.
    pub partition: i32,
    /// The encoded batch.
    pub batch: Arc<Vec<u8>>,
}

/// Encodes a Produce request with acks=all.
///
/// `parts` are grouped by topic: those of one topic stand side by side.
/// Versions 0 to 8 share this layout, but for the transactional id; those before 3 are of
/// the legacy client.
pub fn produce_request(
    version: i16,
    correlation: i32,
    client_id: &str,
    timeout: Duration,
    parts: &[ProducePart],
) -> Frame {
    debug_assert!(version <= PRODUCE.1);
    let mut out = Out::default();
    out.i32(0); // the length, known at the end
    out.i16(ApiKey::Produce as i16);
    out.i16(version);
    out.i32(correlation);
    out.string(client_id);
    if version >= 3 {
        out.i16(-1); // no transactional id
    }
    out.i16(-1); // acks=all
    out.i32(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
    let topics = || parts.chunk_by(|a, b| a.topic == b.topic);
    out.count(topics().count());
    for topic in topics() {
        out.string(topic[0].topic);
        out.count(topic.len());
        for part in topic {
            out.i32(part.partition);
            out.count(part.batch.len());
            out.batch(&part.batch);
        }
    }
    out.finish()
}

/// Builds a [`Frame`]: fixed-width fields in one buffer, batches by reference.
#[derive(Default)]
struct Out {
    small: Vec<u8>,
    order: Vec<Segment>,
    start: usize,
    batch_bytes: usize,
}

impl Out {
    fn i16(&mut self, value: i16) {
        self.small.extend_from_slice(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.small.extend_from_slice(&value.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.i32(i32::try_from(count).expect("requests are bounded far below 2 GiB"));
    }

    fn string(&mut self, text: &str) {
        self.i16(i16::try_from(text.len()).expect("names are shorter than 32 KiB"));
        self.small.extend_from_slice(text.as_bytes());
    }

    fn batch(&mut self, batch: &Arc<Vec<u8>>) {
        self.order
            .push(Segment::Small(self.start..self.small.len()));
        self.start = self.small.len();
        self.batch_bytes += batch.len();
        self.order.push(Segment::Batch(Arc::clone(batch)));
    }

    fn finish(mut self) -> Frame {
        if self.start < self.small.len() {
            self.order
                .push(Segment::Small(self.start..self.small.len()));
        }
        let length = self.small.len() - 4 + self.batch_bytes;
        let length = i32::try_from(length).expect("requests are bounded far below 2 GiB");
        self.small[..4].copy_from_slice(&length.to_be_bytes());
        Frame {
            small: self.small,
            order: self.order,
        }
    }
}

/// What a Produce answer says of one partition.
#[derive(Debug)]
pub struct ProduceOutcome {
    /// Topic name.
    pub topic: String,
    /// Partition index.
    pub partition: i32,
    /// What became of the batch.
    pub code: ErrorCode,
}

/// Decodes a Produce answer to a request with so many `parts`, and how long the broker asks us
/// to hold back (KIP-219).
pub fn produce_response(
    body: &[u8],
    version: i16,
    mut parts: usize,
) -> Result<(Vec<ProduceOutcome>, Duration), Cause> {
    let mut answer = Answer::new(ApiKey::Produce, body);
    let mut outcomes = Vec::new();
    for _ in 0..answer.count()? {
        let topic = answer.string()?;
        for _ in 0..answer.count_within(&mut parts, "partitions")? {
            let partition = answer.i32()?;
            let code = ErrorCode(answer.i16()?);
            answer.i64()?; // base offset
            answer.i64()?; // log append time
            if version >= 5 {
                answer.i64()?; // log start offset
            }
            outcomes.push(ProduceOutcome {
                topic: topic.clone(),
                partition,
                code,
            });
        }
    }
    let throttle_ms = answer.i32()?;
    Ok((outcomes, millis(throttle_ms)))
}

/// Brokers of a cluster that are believed.
pub const BROKERS_MAX: usize = 10_000;
/// Topics of one answer that are believed,
const TOPICS_MAX: usize = 100_000;
/// and partitions of all of them.
const PARTITIONS_MAX: usize = 1_000_000;

/// What a Metadata answer says.
#[derive(Debug, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// The brokers by node id.
    pub brokers: Vec<(i32, Address)>,
    /// The topics that were asked for.
    pub topics: Vec<TopicMetadata>,
}

/// What a Metadata answer says of a topic.
#[derive(Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its name.
    pub name: String,
    /// Why there is nothing else to say, if so.
    pub code: ErrorCode,
    /// Partition index and the leader's node id, if there is one.
    pub leaders: Vec<(i32, Option<i32>)>,
    /// Whether this client may write to it, where that was asked and the broker tells
    /// (KIP-430, Kafka 2.3).
    pub may_write: Option<bool>,
}

/// What Metadata is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To produce: topics are made where the brokers allow it.
    Producing,
    /// To tell a person: nothing is made, and what this client may do is asked too.
    Probing,
}

/// Encodes a Metadata request for these topics (none: only the brokers).
pub fn metadata_request<'a>(
    version: i16,
    correlation: i32,
    client_id: &str,
    topics: impl Iterator<Item = &'a str>,
    purpose: Purpose,
) -> Frame {
    let topics = topics
        .map(|name| {
            MetadataRequestTopic::default()
                .with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
        })
        .collect();
    let request = MetadataRequest::default()
        .with_topics(Some(topics))
        .with_allow_auto_topic_creation(purpose == Purpose::Producing)
        .with_include_topic_authorized_operations(purpose == Purpose::Probing && version >= 8);
    encode(ApiKey::Metadata, &request, version, correlation, client_id)
}

/// Decodes a Metadata answer.
pub fn metadata_response(body: &[u8], version: i16) -> Result<ClusterMetadata, Cause> {
    const REPLICA_NOT_AVAILABLE: i16 = 9; // the leader is there all the same
    let mut answer = Answer::new(ApiKey::Metadata, body);
    let mut partitions_left = PARTITIONS_MAX;
    answer.i32()?; // throttle time
    let mut brokers = Vec::new();
    for _ in 0..answer.count_within(&mut { BROKERS_MAX }, "brokers")? {
        let node = answer.i32()?;
        let host = answer.string()?;
        let port = answer.i32()?;
        answer.nullable_string()?; // rack
        if !address::is_host(&host) {
            let problem = format!("a broker by the name of \"{}\"", quoted(&host));
            return Err(Cause::Protocol(problem));
        }
        if let Ok(port) = u16::try_from(port) {
            brokers.push((node, Address::new(host, port)));
        }
    }
    answer.nullable_string()?; // cluster id
    answer.i32()?; // controller
    let mut topics = Vec::new();
    for _ in 0..answer.count_within(&mut { TOPICS_MAX }, "topics")? {
        let code = ErrorCode(answer.i16()?);
        let name = answer.string()?;
        answer.i8()?; // internal
        let mut leaders = Vec::new();
        for _ in 0..answer.count_within(&mut partitions_left, "partitions")? {
            let error = answer.i16()?;
            let index = answer.i32()?;
            let leader = answer.i32()?;
            if version >= 7 {
                answer.i32()?; // leader epoch
            }
            // Replicas, those in sync, and those offline.
            for _ in 0..if version >= 5 { 3 } else { 2 } {
                for _ in 0..answer.count()? {
                    answer.i32()?;
                }
            }
            let up = [0, REPLICA_NOT_AVAILABLE].contains(&error) && leader >= 0;
            leaders.push((index, up.then_some(leader)));
        }
        let may_write = match version {
            8.. => may_write(answer.i32()?),
            _ => None,
        };
        topics.push(TopicMetadata {
            name,
            code,
            leaders,
            may_write,
        });
    }
    Ok(ClusterMetadata { brokers, topics })
}

/// Whether Write is among the operations that a broker allows, one bit each; `None` when
/// it does not tell.
fn may_write(operations: i32) -> Option<bool> {
    const NOT_TOLD: i32 = i32::MIN;
    const WRITE: i32 = 1 << 4; // org.apache.kafka.common.acl.AclOperation
    (operations != NOT_TOLD).then_some(operations & WRITE != 0)
}

/// Encodes an InitProducerId request without a transaction.
pub fn init_producer_id_request(version: i16, correlation: i32, client_id: &str) -> Frame {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(0);
    encode(
        ApiKey::InitProducerId,
        &request,
        version,
        correlation,
        client_id,
    )
}

/// Decodes an InitProducerId answer.
pub fn init_producer_id_response(body: &[u8]) -> Result<Result<ProducerId, ErrorCode>, Cause> {
    let mut answer = Answer::new(ApiKey::InitProducerId, body);
    answer.i32()?; // throttle time
    let code = ErrorCode(answer.i16()?);
    let (id, epoch) = (answer.i64()?, answer.i16()?);
    Ok(match code {
        ErrorCode::NONE if id < 0 || epoch < 0 => {
            let problem = format!("a producer id below zero: {id}, {epoch}");
            return Err(Cause::Protocol(problem));
        }
        ErrorCode::NONE => Ok(ProducerId { id, epoch }),
        code => Err(code),
    })
}

/// The broker's setting that lets topics be made on first use.
const AUTO_CREATE: &str = "auto.create.topics.enable";
/// DescribeConfigs: the oldest that Kafka 4 takes; Kafka has it since 1.1.
const DESCRIBE_CONFIGS: i16 = 1;

/// Asks a broker, which answers for itself only, whether it makes topics on
/// first use.
pub fn auto_create_request(correlation: i32, client_id: &str, node: i32) -> Frame {
    const BROKER: i8 = 4;
    let broker = DescribeConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(StrBytes::from_string(node.to_string()))
        .with_configuration_keys(Some(vec![StrBytes::from_static_str(AUTO_CREATE)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![broker]);
    encode(
        ApiKey::DescribeConfigs,
        &request,
        DESCRIBE_CONFIGS,
        correlation,
        client_id,
    )
}

/// What the broker says to [`auto_create_request`], if it says it.
pub fn auto_create_response(body: &[u8]) -> Result<Option<bool>, Cause> {
    let mut answer = Answer::new(ApiKey::DescribeConfigs, body);
    answer.i32()?; // throttle time
    let mut found = None;
    for _ in 0..answer.count()? {
        answer.i16()?; // error code: then there are no settings
        answer.nullable_string()?; // error message
        answer.i8()?; // resource type
        answer.string()?; // resource name
        for _ in 0..answer.count()? {
            let name = answer.string()?;
            let value = answer.nullable_string()?;
            for _ in 0..3 {
                answer.i8()?; // read-only, source, sensitive
            }
            for _ in 0..answer.count()? {
                answer.string()?; // synonym
                answer.nullable_string()?;
                answer.i8()?;
            }
            if name == AUTO_CREATE {
                found = value.map(|value| value == "true");
            }
        }
    }
    Ok(found)
}

/// Encodes an ApiVersions request, correlation id 0.
pub fn api_versions_request(version: i16, client_id: &str) -> Frame {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("logship"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
    encode(ApiKey::ApiVersions, &request, version, 0, client_id)
}

/// Decodes an ApiVersions answer; `None` when the broker wants another version.
pub fn api_versions_response(answer: &[u8], version: i16) -> Result<Option<Versions>, Cause> {
    let (_, body) = split_correlation(answer)?;
    let mut answer = Answer::new(ApiKey::ApiVersions, body);
    let code = ErrorCode(answer.i16()?);
    // KIP-511: an unsupported version is answered in version 0.
    if code == ErrorCode::UNSUPPORTED_VERSION {
        return Ok(None);
    }
    if code != ErrorCode::NONE {
        return Err(Cause::Protocol(format!("ApiVersions answered {code}")));
    }
    let flexible = version >= 3;
    let count = if flexible {
        answer.compact_count()?
    } else {
        answer.count()?
    };
    let mut offered = Vec::new();
    for _ in 0..count {
        offered.push((answer.i16()?, answer.i16()?, answer.i16()?));
        if flexible {
            answer.skip_tags()?;
        }
    }
    let offer_of = |api: ApiKey| offered.iter().find(|(key, ..)| *key == api as i16);
    if let Some((_, _, newest)) = offer_of(ApiKey::Produce)
        && *newest < PRODUCE.0
    {
        return Err(Cause::NoRecordBatches(*newest));
    }
    if offer_of(ApiKey::InitProducerId).is_none() {
        return Err(Cause::NoIdempotence);
    }
    let shared = |api: ApiKey, ours: (i16, i16)| {
        offer_of(api)
            .filter(|(_, min, max)| *min <= ours.1 && *max >= ours.0)
            .map(|(_, _, max)| ours.1.min(*max))
            .ok_or_else(|| {
                Cause::Version(format!(
                    "the broker does not speak {api:?} in a version from {} to {}",
                    ours.0, ours.1
                ))
            })
    };
    Ok(Some(Versions {
        produce: shared(ApiKey::Produce, PRODUCE)?,
        metadata: shared(ApiKey::Metadata, METADATA)?,
        init_producer_id: shared(ApiKey::InitProducerId, INIT_PRODUCER_ID)?,
        sasl_authenticate: shared(ApiKey::SaslAuthenticate, SASL_AUTHENTICATE).ok(),
        batches_only: offer_of(ApiKey::Fetch)
            .is_some_and(|(_, oldest, _)| *oldest >= FETCH_BATCHES),
    }))
}

/// Encodes a SaslHandshake: which mechanism follows.
pub fn sasl_handshake_request(correlation: i32, client_id: &str, mechanism: &str) -> Frame {
    let mechanism = StrBytes::from_string(mechanism.to_owned());
    let request = SaslHandshakeRequest::default().with_mechanism(mechanism);
    let api = ApiKey::SaslHandshake;
    encode(api, &request, SASL_HANDSHAKE, correlation, client_id)
}

/// Decodes a SaslHandshake answer: the mechanisms that the broker knows, when ours is
/// not among them.
pub fn sasl_handshake_response(body: &[u8]) -> Result<Option<Vec<String>>, Cause> {
    const UNSUPPORTED_SASL_MECHANISM: ErrorCode = ErrorCode(33);
    const ILLEGAL_SASL_STATE: ErrorCode = ErrorCode(34);
    let mut answer = Answer::new(ApiKey::SaslHandshake, body);
    let code = ErrorCode(answer.i16()?);
    if code == ErrorCode::NONE {
        return Ok(None);
    }
    if code == ILLEGAL_SASL_STATE {
        return Err(Cause::NoLogin);
    }
    if code != UNSUPPORTED_SASL_MECHANISM {
        return Err(Cause::Login(code.to_string()));
    }
    let count = answer.count()?.min(MECHANISMS_SHOWN_MAX);
    let known: Result<Vec<String>, Cause> =
        (0..count).map(|_| Ok(quoted(&answer.string()?))).collect();
    known.map(Some)
}

/// Encodes a SaslAuthenticate: one message of the mechanism.
pub fn sasl_authenticate_request(
    version: i16,
    correlation: i32,
    client_id: &str,
    message: Vec<u8>,
) -> Frame {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
    let api = ApiKey::SaslAuthenticate;
    encode(api, &request, version, correlation, client_id)
}

/// Decodes a SaslAuthenticate answer: the broker's message, and how long the login
/// holds; `None` for as long as the connection.
pub fn sasl_authenticate_response(
    body: &[u8],
    version: i16,
    secret: &Secret,
) -> Result<(Vec<u8>, Option<Duration>), Cause> {
    let mut answer = Answer::new(ApiKey::SaslAuthenticate, body);
    let code = ErrorCode(answer.i16()?);
    let problem = answer.nullable_string()?;
    if code != ErrorCode::NONE {
        let problem = secret.quoted_without(&problem.unwrap_or_default());
        let problem = format!("{code} {problem}");
        return Err(match code.verdict() {
            Verdict::Retry => Cause::Protocol(problem), // a broker that has just started
            _ => Cause::Login(problem),
        });
    }
    let message = answer.bytes()?.to_vec();
    let holds_ms = if version >= 1 { answer.i64()? } else { 0 };
    let holds = u64::try_from(holds_ms).ok().filter(|ms| *ms > 0);
    Ok((message, holds.map(Duration::from_millis)))
}

/// Splits an answer into correlation id and the rest.
pub fn split_correlation(answer: &[u8]) -> Result<(i32, &[u8]), Cause> {
    answer
        .split_first_chunk()
        .map(|(id, body)| (i32::from_be_bytes(*id), body))
        .ok_or_else(|| Cause::Protocol("an answer without correlation id".to_owned()))
}

fn encode(
    api: ApiKey,
    request: &impl Encodable,
    version: i16,
    correlation: i32,
    client_id: &str,
) -> Frame {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_string(client_id.to_owned())));
    let mut buffer = BytesMut::from(&[0; 4][..]);
    header
        .encode(&mut buffer, api.request_header_version(version))
        .and_then(|()| request.encode(&mut buffer, version))
        .expect("our own requests are within what their versions allow");
    let length = i32::try_from(buffer.len() - 4).expect("requests are far below 2 GiB");
    buffer[..4].copy_from_slice(&length.to_be_bytes());
    Frame::of(buffer.into())
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::produce_response::{
        PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{
        ApiVersionsResponse, BrokerId, MetadataResponse, ProduceRequest, ProduceResponse,
        SaslAuthenticateResponse, SaslHandshakeResponse,
    };
    use kafka_protocol::protocol::{Decodable, decode_request_header_from_buffer};

    #[test]
    fn our_produce_request_is_what_the_protocol_crate_reads() {
        let part = |topic, partition, bytes: &[u8]| ProducePart {
            topic,
            partition,
            batch: Arc::new(bytes.to_vec()),
        };
        for version in PRODUCE.0..=PRODUCE.1 {
            let frame = produce_request(
                version,
                7,
                "me",
                Duration::from_secs(1),
                &[
                    part("a", 3, b"first"),
                    part("a", 4, b""),
                    part("b", 0, b"third"),
                ],
            );
            let mut bytes = Bytes::from(frame.concat());
            let length = bytes.split_to(4);
            assert_eq!(
                u32::from_be_bytes(length[..].try_into().unwrap()),
                bytes.len() as u32
            );
            let header = decode_request_header_from_buffer(&mut bytes).unwrap();
            assert_eq!(header.correlation_id, 7);
            assert_eq!(header.client_id.unwrap().as_str(), "me");
            let request = ProduceRequest::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty());
            assert_eq!(request.acks, -1);
            assert_eq!(request.timeout_ms, 1_000);
            assert_eq!(request.transactional_id, None);
            let got: Vec<_> = request
                .topic_data
                .iter()
                .flat_map(|topic| {
                    topic.partition_data.iter().map(|part| {
                        let records = part.records.clone().unwrap_or_default();
                        (topic.name.to_string(), part.index, records)
                    })
                })
                .collect();
            assert_eq!(
                got,
                [
                    ("a".into(), 3, Bytes::from_static(b"first")),
                    ("a".into(), 4, Bytes::new()),
                    ("b".into(), 0, Bytes::from_static(b"third")),
                ]
            );
        }
    }

    /// An answer as the protocol crate encodes it.
    fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
        let mut body = BytesMut::new();
        message.encode(&mut body, version).unwrap();
        body.to_vec()
    }

    fn name(text: &str) -> TopicName {
        TopicName(StrBytes::from_string(text.to_owned()))
    }

    #[test]
    fn metadata_answers_are_read_as_the_protocol_crate_writes_them() {
        let response = metadata();
        for version in METADATA.0..=METADATA.1 {
            let read = metadata_response(&encoded(&response, version), version).unwrap();
            assert_eq!(read.brokers, [(7, Address::new("h", 9_092))]);
            assert_eq!(read.topics.len(), 2);
            assert_eq!(read.topics[0].leaders, [(0, Some(7)), (1, None)]);
            assert_eq!(read.topics[1].code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        }
    }

    fn metadata() -> MetadataResponse {
        let partition = |index, leader, error| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BrokerId(leader))
                .with_error_code(error)
                .with_replica_nodes(vec![BrokerId(7), BrokerId(8)])
                .with_isr_nodes(vec![BrokerId(7)])
        };
        MetadataResponse::default()
            .with_brokers(vec![
                MetadataResponseBroker::default()
                    .with_node_id(BrokerId(7))
                    .with_host(StrBytes::from_static_str("h"))
                    .with_port(9_092),
            ])
            .with_topics(vec![
                MetadataResponseTopic::default()
                    .with_name(Some(name("a")))
                    .with_partitions(vec![partition(0, 7, 0), partition(1, -1, 5)]),
                MetadataResponseTopic::default()
                    .with_name(Some(name("b")))
                    .with_error_code(3),
            ])
    }

    #[test]
    fn produce_answers_are_read_as_the_protocol_crate_writes_them() {
        let response = produce();
        for version in PRODUCE.0..=PRODUCE.1 {
            let body = encoded(&response, version);
            let (outcomes, throttle) = produce_response(&body, version, 10).unwrap();
            assert_eq!(throttle, Duration::from_millis(250));
            let read: Vec<_> = outcomes
                .iter()
                .map(|o| (&*o.topic, o.partition, o.code.0))
                .collect();
            assert_eq!(read, [("a", 3, 0), ("a", 4, 6)]);
        }
    }

    fn produce() -> ProduceResponse {
        let partition = |index, code| {
            PartitionProduceResponse::default()
                .with_index(index)
                .with_error_code(code)
        };
        ProduceResponse::default()
            .with_throttle_time_ms(250)
            .with_responses(vec![
                TopicProduceResponse::default()
                    .with_name(name("a"))
                    .with_partition_responses(vec![partition(3, 0), partition(4, 6)]),
            ])
    }

    #[test]
    fn api_versions_are_read_in_both_layouts() {
        let api = |key: ApiKey, max| {
            ApiVersion::default()
                .with_api_key(key as i16)
                .with_max_version(max)
        };
        let response = ApiVersionsResponse::default().with_api_keys(vec![
            api(ApiKey::Produce, 13),
            api(ApiKey::Metadata, 5),
            api(ApiKey::InitProducerId, 0),
            api(ApiKey::SaslAuthenticate, 2),
            api(ApiKey::Fetch, 18).with_min_version(4),
        ]);
        for version in [0, API_VERSIONS_NEWEST] {
            let answer = [vec![0; 4], encoded(&response, version)].concat();
            let versions = api_versions_response(&answer, version).unwrap().unwrap();
            let expected = Versions {
                produce: 7,
                metadata: 5,
                init_producer_id: 0,
                sasl_authenticate: Some(1),
                batches_only: true,
            };
            assert_eq!(versions, expected);
        }
    }

    /// It was told that Kafka 0.11 is needed, by a broker that is newer.
    #[test]
    fn a_broker_without_producer_ids_is_told_with_what_it_lacks() {
        let api = |key: ApiKey, max| {
            ApiVersion::default()
                .with_api_key(key as i16)
                .with_max_version(max)
        };
        let response = ApiVersionsResponse::default()
            .with_api_keys(vec![api(ApiKey::Produce, 7), api(ApiKey::Metadata, 8)]);
        let answer = [vec![0; 4], encoded(&response, 0)].concat();
        let refused = api_versions_response(&answer, 0).unwrap_err();
        assert!(matches!(refused, Cause::NoIdempotence), "{refused:?}");
    }

    #[test]
    fn a_login_is_asked_for_and_its_answers_are_understood() {
        let secret = Secret::new("hunter2");
        let frame = sasl_handshake_request(-1, "me", "PLAIN").concat();
        let mut request = Bytes::from(frame).slice(4..);
        let header = decode_request_header_from_buffer(&mut request).unwrap();
        assert_eq!((header.request_api_key, header.correlation_id), (17, -1));
        let request = SaslHandshakeRequest::decode(&mut request, 1).unwrap();
        assert_eq!(request.mechanism.as_str(), "PLAIN");

        let refused = SaslHandshakeResponse::default()
            .with_error_code(33)
            .with_mechanisms(vec![StrBytes::from_static_str("GSSAPI")]);
        let known = sasl_handshake_response(&encoded(&refused, 1)).unwrap();
        assert_eq!(known, Some(vec!["GSSAPI".to_owned()]));
        let none = SaslHandshakeResponse::default().with_error_code(34);
        let error = sasl_handshake_response(&encoded(&none, 1)).unwrap_err();
        assert!(matches!(error, Cause::NoLogin), "{error}");

        for version in [0, 1] {
            let frame = sasl_authenticate_request(version, -1, "me", b"token".to_vec()).concat();
            let mut request = Bytes::from(frame).slice(4..);
            decode_request_header_from_buffer(&mut request).unwrap();
            let request = SaslAuthenticateRequest::decode(&mut request, version).unwrap();
            assert_eq!(&request.auth_bytes[..], b"token");
            let mut answer =
                SaslAuthenticateResponse::default().with_auth_bytes(Bytes::from_static(b"hello"));
            if version == 1 {
                answer = answer.with_session_lifetime_ms(6_000);
            }
            let (said, holds) =
                sasl_authenticate_response(&encoded(&answer, version), version, &secret).unwrap();
            assert_eq!(said, b"hello");
            assert_eq!(holds, (version == 1).then(|| Duration::from_secs(6)));
        }
        let wrong = SaslAuthenticateResponse::default()
            .with_error_code(58)
            .with_error_message(Some(StrBytes::from_static_str("no\x1b such user")));
        let error = sasl_authenticate_response(&encoded(&wrong, 1), 1, &secret).unwrap_err();
        for code in [58, 14, 999] {
            let said = SaslAuthenticateResponse::default()
                .with_error_code(code)
                .with_error_message(Some(StrBytes::from_static_str("bad: hunter2")));
            let told = sasl_authenticate_response(&encoded(&said, 1), 1, &secret).unwrap_err();
            assert!(told.to_string().ends_with("bad: ***"), "{told}");
        }
        let expected = "SASL_AUTHENTICATION_FAILED (58) no\\u{1b} such user";
        assert_eq!(error.to_string(), expected);
    }

    /// What comes from a socket may be anything: an error, and never a panic or
    /// an allocation of what a count claims.
    #[test]
    fn answers_that_were_damaged_are_refused() {
        let mut random = 1_u64;
        let mut next = |below: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as usize % below
        };
        for body in [encoded(&metadata(), 8), encoded(&produce(), 7)] {
            for _ in 0..5_000 {
                let mut damaged = body.clone();
                damaged.truncate(next(body.len() + 1));
                for _ in 0..next(4) {
                    if let Some(byte) = damaged.len().checked_sub(1).map(|last| next(last + 1)) {
                        damaged[byte] = next(256) as u8;
                    }
                }
                let _ = metadata_response(&damaged, 8);
                let _ = produce_response(&damaged, 7, 10);
                let _ = init_producer_id_response(&damaged);
                let _ = api_versions_response(&damaged, 3);
            }
        }
        assert!(metadata_response(&[0x7f; 40], 8).is_err());
        assert!(produce_response(&[0x7f; 40], 7, 10).is_err());
    }

    /// Of 64 MiB that say so, each took many times as much.
    #[test]
    fn an_answer_with_more_than_was_asked_for_is_not_believed() {
        let body = encoded(&produce(), 7);
        assert!(produce_response(&body, 7, 10).is_ok());
        assert!(produce_response(&body, 7, 0).is_err());
        let topic = MetadataResponseTopic::default().with_name(Some(TopicName::default()));
        let many = MetadataResponse::default().with_topics(vec![topic; TOPICS_MAX + 1]);
        let error = metadata_response(&encoded(&many, 8), 8).unwrap_err();
        assert!(error.to_string().contains("names 100001 topics"), "{error}");
    }

    #[test]
    fn a_broker_too_old_for_record_batches_is_told_from_garbage() {
        let response = ApiVersionsResponse::default().with_api_keys(vec![
            ApiVersion::default()
                .with_api_key(ApiKey::Produce as i16)
                .with_max_version(2),
        ]);
        let mut answer = BytesMut::from(&[0; 4][..]);
        response.encode(&mut answer, 0).unwrap();
        assert!(matches!(
            api_versions_response(&answer, 0),
            Err(Cause::NoRecordBatches(2)) // Kafka 0.10
        ));
        assert!(matches!(
            api_versions_response(b"HTTP/1.1 400 Bad Request", 3),
            Err(Cause::Protocol(_))
        ));
    }
}
