//! What the nodes know together, and what they answer.
//!
//! Sources: the protocol guide, <https://kafka.apache.org/protocol.html>, and
//! for producer ids and sequences `ProducerAppendInfo`, `ProducerStateEntry`
//! and `UnifiedLog` of Kafka 4.3. Nothing here reads or writes a socket.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, DescribeConfigsRequest,
    DescribeConfigsResponse, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest,
    MetadataResponse, ProduceRequest, ProduceResponse, ResponseHeader, TopicName,
    api_versions_response::ApiVersion,
    describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    produce_response::{PartitionProduceResponse, TopicProduceResponse},
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes, decode_request_header_from_buffer};

use super::Builder;
use super::batch::{self, Batch, Flaw, Record};
use super::fault::{Doom, Fault, Misdeed};

const NONE: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const LEADER_NOT_AVAILABLE: i16 = 5;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_TOPIC_EXCEPTION: i16 = 17;
const UNSUPPORTED_VERSION: i16 = 35;
const INVALID_REQUEST: i16 = 42;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;

/// Batches of a producer a partition remembers (`NUM_BATCHES_TO_RETAIN`).
const WINDOW_BATCHES: usize = 5;
/// The first Produce version in which zstd is allowed (KIP-110).
const PRODUCE_ZSTD: i16 = 7;
/// Kafka 4 advertises Produce from 0 but reads it from 3 on (KIP-896).
const PRODUCE_MIN: i16 = 3;

/// All nodes of the fake cluster.
pub struct Cluster {
    config: Builder,
    /// Port by node, which count from 1.
    pub ports: Vec<u16>,
    /// A lock and not a message, because tests ask at any time and a condition
    /// variable tells them of every change. Never held while reading or writing.
    state: Mutex<State>,
    changed: Condvar,
}

/// What changes while the cluster runs.
#[derive(Default)]
pub struct State {
    pub topics: BTreeMap<String, Topic>,
    pub faults: Vec<Fault>,
    pub faults_fired: usize,
    pub requests: HashMap<ApiKey, usize>,
    pub violations: Vec<String>,
    /// Nodes whose port is closed.
    pub away: Vec<i32>,
    pub stopping: bool,
    pub read_bytes_per_second: Option<usize>,
    /// Open connections and their nodes; one that is not here is cut.
    pub links: HashMap<u64, (i32, TcpStream)>,
    links_made: u64,
    producers_made: i64,
}

pub struct Topic {
    /// When its leaders are elected.
    ready: Instant,
    pub partitions: Vec<Partition>,
}

#[derive(Default)]
pub struct Partition {
    /// The leading node; none while negative.
    pub leader: i32,
    pub records: Vec<Record>,
    /// Records that a test has taken out; they stand before those that are there.
    pub taken: usize,
    producers: HashMap<i64, Producer>,
}

/// What a partition knows of a producer.
struct Producer {
    epoch: i16,
    /// The newest batches: first and last sequence, and offset.
    window: VecDeque<(i32, i32, i64)>,
}

/// What a connection does about a request.
pub enum Action {
    /// Answers, but not before the request is this old.
    Answer(Vec<u8>, Duration),
    AnswerAndClose(Vec<u8>),
    FallSilent,
}

/// One partition of a Produce request.
struct Part {
    topic: String,
    partition: i32,
    bytes: usize,
    batch: Result<Batch, Flaw>,
}

/// One request, as far as its header goes.
struct Call {
    link: u64,
    node: i32,
    api: ApiKey,
    version: i16,
    correlation: i32,
}

/// A request while it is processed.
struct Serving<'a> {
    cluster: &'a Cluster,
    call: &'a Call,
    state: &'a mut State,
    doom: Doom,
}

impl Cluster {
    pub fn new(config: Builder, ports: Vec<u16>) -> Cluster {
        Cluster {
            config,
            ports,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The state; whoever changes it calls [`Cluster::notify`].
    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed while it held the lock is no reason for a second panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn notify(&self) {
        self.changed.notify_all();
    }

    /// Waits until `done`, or until then at most, and gives back the state.
    pub fn wait(&self, until: Instant, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let left = until.saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), left, |state| !done(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn violation(&self, text: String) {
        self.lock().violations.push(text);
        self.notify();
    }

    /// Takes a new connection in, unless its node is away.
    pub fn link(&self, node: i32, stream: &TcpStream) -> Option<u64> {
        let mut state = self.lock();
        if state.stopping || state.away.contains(&node) {
            return None;
        }
        state.links_made += 1;
        let link = state.links_made;
        state.links.insert(link, (node, stream.try_clone().ok()?));
        Some(link)
    }

    pub fn create_topic(&self, state: &mut State, name: &str, partitions: usize, ready: Instant) {
        let leaders = (1..=self.ports.len() as i32).cycle().take(partitions);
        let partition = |leader| Partition {
            leader,
            ..Partition::default()
        };
        let partitions = leaders.map(partition).collect();
        let topic = Topic { ready, partitions };
        state.topics.insert(name.to_owned(), topic);
    }

    /// Processes one request of a connection to a node.
    pub fn handle(&self, link: u64, node: i32, frame: Bytes) -> Action {
        let action = self.try_handle(link, node, frame);
        self.notify();
        action.unwrap_or_else(|violation| {
            self.violation(format!("node {node}: {violation}"));
            Action::AnswerAndClose(Vec::new())
        })
    }

    /// The error is what the client did wrong.
    fn try_handle(&self, link: u64, node: i32, mut body: Bytes) -> Result<Action, String> {
        let kind = body.first_chunk().copied().map_or(-1, i16::from_be_bytes);
        let api = ApiKey::try_from(kind).map_err(|()| format!("an API of kind {kind}"))?;
        if body.len() < 10 {
            return Err(format!("{api:?} of {} bytes", body.len()));
        }
        let header = decode_request_header_from_buffer(&mut body)
            .map_err(|error| format!("the header of {api:?} cannot be read: {error}"))?;
        let version = header.request_api_version;
        let served = self.served().into_iter().find(|row| row.0 == api);
        let (.., min, max) = served.ok_or(format!("asked for {api:?}"))?;
        let mut call = Call {
            link,
            node,
            api,
            version,
            correlation: header.correlation_id,
        };
        if api == ApiKey::ApiVersions && version > max {
            if self.config.api_versions_hang_up {
                return Ok(Action::AnswerAndClose(Vec::new()));
            }
            // KIP-511: answered in version 0, with the one row that helps.
            let answer = ApiVersionsResponse::default()
                .with_error_code(UNSUPPORTED_VERSION)
                .with_api_keys(vec![api_version(api, 0, max)]);
            call.version = 0;
            return Ok(self.serve(&call, &[], |_| answer));
        }
        if !(min..=max).contains(&version) {
            return Err(format!("{api:?} in version {version} of {min} to {max}"));
        }
        let action = match api {
            ApiKey::ApiVersions => decode(version, &mut body).map(|_: ApiVersionsRequest| {
                self.serve(&call, &[], |serving| serving.api_versions())
            }),
            ApiKey::Metadata => decode(version, &mut body).and_then(|request| {
                let names = names(&request)?;
                Ok(self.serve(&call, &names, |serving| serving.metadata(&request, &names)))
            }),
            ApiKey::InitProducerId => decode(version, &mut body).map(|request| {
                self.serve(&call, &[], |serving| serving.init_producer_id(&request))
            }),
            ApiKey::DescribeConfigs => decode(version, &mut body).map(|request| {
                self.serve(&call, &[], |serving| serving.describe_configs(&request))
            }),
            _ => decode(version, &mut body)
                .and_then(read_produce)
                .map(|parts| {
                    let names: Vec<_> = parts.iter().map(|part| part.topic.clone()).collect();
                    self.serve(&call, &names, |serving| serving.produce(&parts))
                }),
        };
        action.map_err(|what| format!("{api:?} version {version}: {what}"))
    }

    /// Processes a request unless a fault befalls it, and answers as told.
    fn serve<A: Encodable>(
        &self,
        call: &Call,
        topics: &[String],
        process: impl FnOnce(&mut Serving) -> A,
    ) -> Action {
        let mut state = self.lock();
        *state.requests.entry(call.api).or_default() += 1;
        let close = Action::AnswerAndClose(Vec::new());
        if !state.links.contains_key(&call.link) {
            return close;
        }
        let doom = state.draw(call.node, call.api, topics);
        let misdeed = doom.misdeed;
        match misdeed {
            Some(Misdeed::CutBefore) => return close,
            Some(Misdeed::Silence) => return Action::FallSilent,
            _ => (),
        }
        let mut serving = Serving {
            cluster: self,
            call,
            state: &mut state,
            doom,
        };
        let mut bytes = call.answer(&process(&mut serving));
        let mut delay = Duration::ZERO;
        match misdeed {
            Some(Misdeed::CutAfter) => return close,
            Some(Misdeed::CutMidAnswer) => {
                bytes.truncate(bytes.len() / 2);
                return Action::AnswerAndClose(bytes);
            }
            Some(Misdeed::Delay(by)) => delay = by,
            Some(Misdeed::Garbage) => bytes = b"HTTP/1.1 400 Bad Request\r\n\r\n".into(),
            Some(Misdeed::Nonsense) => bytes[8..].fill(0xff),
            Some(Misdeed::AbsurdCounts) => bytes[8..].fill(0x7f),
            Some(Misdeed::WrongCorrelation) => bytes[4] ^= 0x40,
            _ => (),
        }
        Action::Answer(bytes, delay)
    }

    /// Advertised minimum, served minimum and maximum of each API.
    fn served(&self) -> [(ApiKey, i16, i16, i16); 5] {
        let config = &self.config;
        [
            (ApiKey::Produce, 0, PRODUCE_MIN, config.produce_version_max),
            (ApiKey::Metadata, 0, 0, 12),
            (ApiKey::ApiVersions, 0, 0, config.api_versions_max),
            (ApiKey::InitProducerId, 0, 0, 4),
            (ApiKey::DescribeConfigs, 1, 1, 4),
        ]
    }
}

impl Call {
    /// An answer with its length and correlation id.
    fn answer(&self, body: &impl Encodable) -> Vec<u8> {
        let mut bytes = BytesMut::zeroed(4);
        ResponseHeader::default()
            .with_correlation_id(self.correlation)
            .encode(&mut bytes, self.api.response_header_version(self.version))
            .and_then(|()| body.encode(&mut bytes, self.version))
            .expect("our answers fit the version they are asked in");
        let length = bytes.len() as u32 - 4;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes.into()
    }
}

impl Serving<'_> {
    fn api_versions(&self) -> ApiVersionsResponse {
        let served = self.cluster.served().into_iter();
        let mut rows: Vec<_> = served
            .map(|(api, advertised, _, max)| api_version(api, advertised, max))
            .collect();
        // Every broker has these, and librdkafka takes a broker without them for
        // one without record batches; they are not served all the same.
        rows.push(api_version(ApiKey::Fetch, 4, 11));
        rows.push(api_version(ApiKey::FindCoordinator, 0, 2));
        let code = self.doom.error("").err().unwrap_or(NONE);
        ApiVersionsResponse::default()
            .with_error_code(code)
            .with_api_keys(rows)
    }

    fn metadata(&mut self, request: &MetadataRequest, names: &[String]) -> MetadataResponse {
        let brokers = self.cluster.ports.iter().zip(1..).map(|(&port, node)| {
            MetadataResponseBroker::default()
                .with_node_id(node.into())
                .with_host(StrBytes::from_static_str("127.0.0.1"))
                .with_port(port.into())
        });
        // Null is all topics, and before version 1 an empty list is.
        let all = names.is_empty() && (request.topics.is_none() || self.call.version == 0);
        let names = if all {
            self.state.topics.keys().cloned().collect()
        } else {
            names.to_vec()
        };
        let topics = names.iter().map(|name| {
            let topic = MetadataResponseTopic::default().with_name(Some(topic_name(name)));
            match self.find(name, request.allow_auto_topic_creation) {
                Ok(found) => topic.with_partitions(found.describe()),
                Err(code) => topic.with_error_code(code),
            }
        });
        MetadataResponse::default()
            .with_topics(topics.collect())
            .with_brokers(brokers.collect())
            .with_controller_id(1.into())
    }

    fn find(&mut self, name: &str, may_create: bool) -> Result<&Topic, i16> {
        self.doom.error(name)?;
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 249 || !name.chars().all(legal) {
            return Err(INVALID_TOPIC_EXCEPTION);
        }
        let config = &self.cluster.config;
        if !self.state.topics.contains_key(name) {
            if !may_create || !config.auto_create {
                return Err(UNKNOWN_TOPIC_OR_PARTITION);
            }
            let ready = Instant::now() + config.creation;
            self.cluster
                .create_topic(self.state, name, config.partitions, ready);
            return Err(config.creation_error);
        }
        let topic = &self.state.topics[name];
        if topic.is_ready() {
            Ok(topic)
        } else {
            Err(config.creation_error)
        }
    }

    /// The one setting there is, and only of the node itself, as brokers do.
    fn describe_configs(&mut self, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
        let auto_create = self.cluster.config.auto_create.to_string();
        let setting = DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str("auto.create.topics.enable"))
            .with_value(Some(StrBytes::from_string(auto_create)));
        let node = self.call.node.to_string();
        let results = request.resources.iter().map(|resource| {
            let result = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            if resource.resource_type == 4 && *resource.resource_name == *node {
                result.with_configs(vec![setting.clone()])
            } else {
                result.with_error_code(INVALID_REQUEST)
            }
        });
        DescribeConfigsResponse::default().with_results(results.collect())
    }

    /// Without a transaction every request gets a new id; what the client says
    /// of an older one is ignored (`TransactionCoordinator.handleInitProducerId`).
    fn init_producer_id(&mut self, request: &InitProducerIdRequest) -> InitProducerIdResponse {
        let mut result = self.doom.error("");
        if let Some(id) = &request.transactional_id {
            let text = format!("InitProducerId for the transactional id '{}'", id.as_str());
            self.state.violations.push(text);
            result = Err(INVALID_REQUEST);
        }
        let response = InitProducerIdResponse::default();
        let Err(code) = result else {
            self.state.producers_made += 1;
            return response.with_producer_id(self.state.producer_id().into());
        };
        response
            .with_error_code(code)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1)
    }

    fn produce(&mut self, parts: &[Part]) -> ProduceResponse {
        let mut topics: Vec<TopicProduceResponse> = Vec::new();
        for part in parts {
            let result = self.append(part).and_then(|offset| {
                self.doom.denies(&part.topic)?;
                Ok(offset)
            });
            let answer = PartitionProduceResponse::default()
                .with_index(part.partition)
                .with_error_code(result.err().unwrap_or(NONE))
                .with_base_offset(result.unwrap_or(-1));
            if topics.last().is_none_or(|last| *last.name != *part.topic) {
                let name = topic_name(&part.topic);
                topics.push(TopicProduceResponse::default().with_name(name));
            }
            let topic = topics.last_mut().expect("one was just made");
            topic.partition_responses.push(answer);
        }
        ProduceResponse::default().with_responses(topics)
    }

    /// Appends a batch as the leader of its partition; offset or error code.
    fn append(&mut self, part: &Part) -> Result<i64, i16> {
        let Part {
            topic, partition, ..
        } = part;
        self.doom.refuses(topic)?;
        let (node, version, config) = (self.call.node, self.call.version, &self.cluster.config);
        let State {
            topics, violations, ..
        } = &mut *self.state;
        let mut violation = |text: &str| {
            violations.push(format!(
                "node {node}: Produce to {topic}:{partition}: {text}"
            ));
        };
        let topic = topics.get_mut(topic).filter(|topic| topic.is_ready());
        let found = topic.and_then(|topic| topic.partitions.get_mut(*partition as usize));
        let found = found.ok_or(UNKNOWN_TOPIC_OR_PARTITION)?;
        if found.leader != node {
            return Err(NOT_LEADER_OR_FOLLOWER);
        }
        if part.bytes > config.max_message_bytes {
            return Err(MESSAGE_TOO_LARGE);
        }
        let batch = part.batch.as_ref().map_err(|flaw| {
            violation(&flaw.text);
            flaw.code
        })?;
        if batch.zstd && version < PRODUCE_ZSTD {
            violation(&format!("zstd in version {version}, not {PRODUCE_ZSTD}"));
            return Err(UNSUPPORTED_COMPRESSION_TYPE);
        }
        if batch.producer_id < 0 && config.idempotence_required {
            violation("a batch without producer id");
        }
        found.append(*partition, batch)
    }
}

impl Partition {
    /// Appends what is new, as the log of a real broker decides.
    fn append(&mut self, partition: i32, batch: &Batch) -> Result<i64, i16> {
        let offset = (self.taken + self.records.len()) as i64;
        if batch.producer_id >= 0 {
            let first = batch.first_sequence;
            let last = sequence_after(first, batch.records.len() as i32 - 1);
            let producer = self.producers.entry(batch.producer_id);
            let producer = producer.or_insert_with(|| Producer::unknown(batch.epoch));
            if let Some(original) = producer.admit(batch.epoch, first, last)? {
                return Ok(original);
            }
            producer.window.push_back((first, last, offset));
            if producer.window.len() > WINDOW_BATCHES {
                producer.window.pop_front();
            }
        }
        let records = batch.records.iter().cloned().zip(offset..);
        self.records.extend(records.map(|(record, offset)| Record {
            partition,
            offset,
            arrived: Instant::now(),
            ..record
        }));
        Ok(offset)
    }
}

impl Producer {
    /// Of a producer it knows nothing of, a partition accepts any sequence
    /// (KIP-360, since Kafka 2.5): what it knew may have been deleted.
    fn unknown(epoch: i16) -> Producer {
        Producer {
            epoch,
            window: VecDeque::new(),
        }
    }

    /// The offset of a batch that is a repetition, or nothing if it is next.
    ///
    /// A repetition older than the window is out of order like any other gap:
    /// brokers have not answered `DUPLICATE_SEQUENCE_NUMBER` since Kafka 1.0.
    fn admit(&mut self, epoch: i16, first: i32, last: i32) -> Result<Option<i64>, i16> {
        if epoch < self.epoch {
            return Err(INVALID_PRODUCER_EPOCH);
        }
        if epoch > self.epoch {
            if first != 0 {
                return Err(OUT_OF_ORDER_SEQUENCE_NUMBER);
            }
            *self = Producer::unknown(epoch);
        }
        let mut window = self.window.iter();
        if let Some(known) = window.find(|known| (known.0, known.1) == (first, last)) {
            return Ok(Some(known.2));
        }
        match self.window.back() {
            Some((_, newest, _)) if sequence_after(*newest, 1) != first => {
                Err(OUT_OF_ORDER_SEQUENCE_NUMBER)
            }
            _ => Ok(None),
        }
    }
}

impl Topic {
    fn is_ready(&self) -> bool {
        self.ready <= Instant::now()
    }

    fn describe(&self) -> Vec<MetadataResponsePartition> {
        let describe = |(index, partition): (i32, &Partition)| {
            let code = if partition.leader < 0 {
                LEADER_NOT_AVAILABLE
            } else {
                NONE
            };
            MetadataResponsePartition::default()
                .with_error_code(code)
                .with_partition_index(index)
                .with_leader_id(partition.leader.into())
                .with_replica_nodes(vec![partition.leader.into()])
                .with_isr_nodes(vec![partition.leader.into()])
        };
        (0..).zip(&self.partitions).map(describe).collect()
    }
}

impl State {
    /// The newest producer id.
    pub fn producer_id(&self) -> i64 {
        999 + self.producers_made
    }

    fn draw(&mut self, node: i32, api: ApiKey, topics: &[String]) -> Doom {
        let doom = self
            .faults
            .iter_mut()
            .find_map(|fault| fault.draw(node, api, topics));
        self.faults_fired += usize::from(doom.is_some());
        doom.unwrap_or_default()
    }
}

fn names(request: &MetadataRequest) -> Result<Vec<String>, String> {
    let topics = request.topics.iter().flatten();
    let names = topics.map(|topic| Some(topic.name.as_ref()?.to_string()));
    names
        .collect::<Option<_>>()
        .ok_or("topics by id, and none was ever told".to_owned())
}

fn read_produce(request: ProduceRequest) -> Result<Vec<Part>, String> {
    if request.acks != -1 {
        return Err(format!("acks is {}, not -1", request.acks));
    }
    if let Some(id) = request.transactional_id {
        return Err(format!("a transactional id, '{}'", id.as_str()));
    }
    let mut parts: Vec<Part> = Vec::new();
    for topic in request.topic_data {
        for data in topic.partition_data {
            let (topic, partition) = (topic.name.to_string(), data.index);
            let mut earlier = parts.iter();
            if earlier.any(|part| (&part.topic, part.partition) == (&topic, partition)) {
                return Err(format!("{topic}:{partition} twice in one request"));
            }
            let bytes = data.records.unwrap_or_default();
            parts.push(Part {
                topic,
                partition,
                bytes: bytes.len(),
                batch: batch::read(&bytes),
            });
        }
    }
    Ok(parts)
}

/// Decodes a body of which nothing may be left over.
fn decode<T: Decodable>(version: i16, body: &mut Bytes) -> Result<T, String> {
    let decoded = T::decode(body, version).map_err(|error| error.to_string())?;
    if body.is_empty() {
        Ok(decoded)
    } else {
        Err(format!("{} bytes too many", body.len()))
    }
}

fn api_version(api: ApiKey, min: i16, max: i16) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api as i16)
        .with_min_version(min)
        .with_max_version(max)
}

/// Sequences go round after `i32::MAX` (`DefaultRecordBatch.incrementSequence`).
fn sequence_after(sequence: i32, by: i32) -> i32 {
    sequence.wrapping_add(by) & i32::MAX
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
