//! Requests and answers as bytes.
//!
//! The small messages are the crate `kafka-protocol`'s; Produce is written
//! here, because it carries the batches and they are not copied again.
//!
//! Source: the protocol guide, <https://kafka.apache.org/protocol.html>.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse,
    MetadataRequest, MetadataResponse, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
    metadata_request::MetadataRequestTopic,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::batch::ProducerId;
use super::error::{Cause, ErrorCode};

/// The version in which ApiVersions is asked first.
pub const API_VERSIONS_NEWEST: i16 = 3;
/// Produce: 3 is the first with record batches (KIP-98), 7 the first with
/// zstd (KIP-110) and the newest that every Kafka from 2.1 and Redpanda take.
const PRODUCE: (i16, i16) = (3, 7);
/// Metadata: 4 is the first that can ask for topics to be made;
/// 9 and later are flexible and tell nothing more that is needed.
const METADATA: (i16, i16) = (4, 8);
/// InitProducerId without a transaction needs nothing newer (KIP-98).
const INIT_PRODUCER_ID: (i16, i16) = (0, 1);

/// The versions of each request that a broker and this client share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Of Produce.
    pub produce: i16,
    /// Of Metadata.
    pub metadata: i16,
    /// Of InitProducerId.
    pub init_producer_id: i16,
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
    fn of(bytes: Vec<u8>) -> Frame {
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
/// Versions 3 to 8 share this layout.
pub fn produce_request(
    version: i16,
    correlation: i32,
    client_id: &str,
    timeout: Duration,
    parts: &[ProducePart],
) -> Frame {
    debug_assert!((PRODUCE.0..=PRODUCE.1).contains(&version));
    let mut out = Out::default();
    out.i32(0); // the length, known at the end
    out.i16(ApiKey::Produce as i16);
    out.i16(version);
    out.i32(correlation);
    out.string(client_id);
    out.i16(-1); // no transactional id
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

/// Decodes a Produce answer, and how long the broker asks us to hold back (KIP-219).
pub fn produce_response(
    body: &[u8],
    version: i16,
) -> Result<(Vec<ProduceOutcome>, Duration), Cause> {
    let response: ProduceResponse = decode(ApiKey::Produce, body, version)?;
    let outcomes = response
        .responses
        .iter()
        .flat_map(|topic| {
            topic.partition_responses.iter().map(|part| ProduceOutcome {
                topic: topic.name.to_string(),
                partition: part.index,
                code: ErrorCode(part.error_code),
            })
        })
        .collect();
    Ok((outcomes, millis(response.throttle_time_ms)))
}

/// Encodes a Metadata request for these topics (none: only the brokers).
pub fn metadata_request<'a>(
    version: i16,
    correlation: i32,
    client_id: &str,
    topics: impl Iterator<Item = &'a str>,
    auto_create: bool,
) -> Frame {
    let topics = topics
        .map(|name| {
            MetadataRequestTopic::default()
                .with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
        })
        .collect();
    let request = MetadataRequest::default()
        .with_topics(Some(topics))
        .with_allow_auto_topic_creation(auto_create);
    encode(ApiKey::Metadata, &request, version, correlation, client_id)
}

/// Decodes a Metadata answer.
pub fn metadata_response(body: &[u8], version: i16) -> Result<MetadataResponse, Cause> {
    decode(ApiKey::Metadata, body, version)
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
pub fn init_producer_id_response(
    body: &[u8],
    version: i16,
) -> Result<Result<ProducerId, ErrorCode>, Cause> {
    let response: InitProducerIdResponse = decode(ApiKey::InitProducerId, body, version)?;
    Ok(match ErrorCode(response.error_code) {
        ErrorCode::NONE => Ok(ProducerId {
            id: response.producer_id.0,
            epoch: response.producer_epoch,
        }),
        code => Err(code),
    })
}

/// Encodes an ApiVersions request, correlation id 0.
pub fn api_versions_request(version: i16, client_id: &str) -> Vec<u8> {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("logship"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
    encode(ApiKey::ApiVersions, &request, version, 0, client_id).small
}

/// Decodes an ApiVersions answer; `None` when the broker wants another version.
pub fn api_versions_response(answer: &[u8], version: i16) -> Result<Option<Versions>, Cause> {
    let (_, body) = split_correlation(answer)?;
    // KIP-511: an unsupported version is answered in version 0.
    let code = body
        .first_chunk()
        .map_or(-1, |code| i16::from_be_bytes(*code));
    if ErrorCode(code) == ErrorCode::UNSUPPORTED_VERSION {
        return Ok(None);
    }
    let response: ApiVersionsResponse = decode(ApiKey::ApiVersions, body, version)?;
    if response.error_code != 0 {
        let code = ErrorCode(response.error_code);
        return Err(Cause::Protocol(format!("ApiVersions answered {code}")));
    }
    let shared = |api: ApiKey, ours: (i16, i16)| {
        response
            .api_keys
            .iter()
            .find(|theirs| theirs.api_key == api as i16)
            .filter(|theirs| theirs.min_version <= ours.1 && theirs.max_version >= ours.0)
            .map(|theirs| ours.1.min(theirs.max_version))
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
    }))
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

/// Decodes a body that follows a correlation id.
fn decode<T: Decodable>(api: ApiKey, body: &[u8], version: i16) -> Result<T, Cause> {
    let garbled =
        |error| Cause::Protocol(format!("an answer to {api:?} that cannot be read: {error}"));
    let mut body = Bytes::copy_from_slice(body);
    if api.response_header_version(version) > 0 {
        // The flexible header is the correlation id and tagged fields.
        let mut header = BytesMut::from(&[0; 4][..]);
        header.extend_from_slice(&body);
        body = header.freeze();
        ResponseHeader::decode(&mut body, api.response_header_version(version)).map_err(garbled)?;
    }
    T::decode(&mut body, version).map_err(garbled)
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ProduceRequest;
    use kafka_protocol::protocol::decode_request_header_from_buffer;

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

    #[test]
    fn a_broker_too_old_for_record_batches_is_told_from_garbage() {
        use kafka_protocol::messages::api_versions_response::ApiVersion;
        let response = ApiVersionsResponse::default().with_api_keys(vec![
            ApiVersion::default()
                .with_api_key(ApiKey::Produce as i16)
                .with_max_version(2),
        ]);
        let mut answer = BytesMut::from(&[0; 4][..]);
        response.encode(&mut answer, 0).unwrap();
        assert!(matches!(
            api_versions_response(&answer, 0),
            Err(Cause::Version(_))
        ));
        assert!(matches!(
            api_versions_response(b"HTTP/1.1 400 Bad Request", 3),
            Err(Cause::Protocol(_))
        ));
    }
}
