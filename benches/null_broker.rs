//! A Kafka broker that keeps nothing, for measuring what a producer costs.
//!
//! Every topic exists, this broker leads all of its partitions, and whatever is
//! produced is answered with success at once. Batches are dropped by the kernel
//! without being copied, so that the other side gets the machine. With
//! `--verify` they are read, checked and counted instead, which costs CPU; then
//! a figure of speed has the delivered lines beside it.
//!
//! ```text
//! cargo build --release --example null_broker
//! target/release/examples/null_broker --listen 127.0.0.1:9092 --once
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clap::Parser;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, InitProducerIdResponse, MetadataRequest, MetadataResponse,
    ProduceResponse, RequestHeader, ResponseHeader, TopicName,
    api_versions_response::ApiVersion,
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    produce_response::{PartitionProduceResponse, TopicProduceResponse},
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use rustix::net::RecvFlags;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use twox_hash::XxHash3_64;

/// The suspicious reader of the black-box tests.
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/blackbox/broker/batch.rs"]
mod batch;

/// Versions served, of which Produce has fixed-width fields only. The last two
/// are not served: librdkafka misses them before it sends record batches.
const APIS: [(ApiKey, i16, i16); 6] = [
    (ApiKey::Produce, 0, 8),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::Fetch, 4, 11),
    (ApiKey::FindCoordinator, 0, 2),
];
const UNSUPPORTED_VERSION: i16 = 35;
/// With `--once`, all connections have to be closed for this long.
const ONCE_QUIET: Duration = Duration::from_millis(300);
/// Without `--verify` no more than this of a frame is ever copied at once.
const WINDOW_BYTES: usize = 256 * 1024;
/// `socket.request.max.bytes` of a broker.
const REQUEST_BYTES_MAX: usize = 104_857_600;
const BATCH_HEADER_BYTES: usize = 61;

/// Answer every Produce request with success and keep nothing.
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 takes a free one, the first line printed says which.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Partitions of every topic.
    #[arg(long, value_name = "N", default_value_t = 4)]
    partitions: i32,
    /// Read and check the batches; count lines, bytes and a digest per topic.
    #[arg(long)]
    verify: bool,
    /// End when all connections are closed, not only at SIGINT or SIGTERM.
    #[arg(long)]
    once: bool,
    /// Print what `--verify` would print of the lines of FILE, and end.
    #[arg(long, value_name = "FILE")]
    digest: Option<PathBuf>,
}

enum Event {
    Opened,
    Closed,
    Signal,
}

/// What a topic received. The digest is the sum of the values' XXH3, so that
/// it tells whether all lines came, whatever their order.
#[derive(Default)]
struct Totals {
    requests: u64,
    batches: u64,
    records: u64,
    batch_bytes: u64,
    value_bytes: u64,
    digest: u64,
    flaws: u64,
}

struct Broker {
    options: Options,
    address: SocketAddr,
    /// By topic. One lock per request is nothing beside the request.
    totals: Mutex<BTreeMap<String, Totals>>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::parse();
    if let Some(path) = options.digest {
        let mut totals = Totals::default();
        let text = std::fs::read(path)?;
        let lines = text
            .strip_suffix(b"\n")
            .unwrap_or(&text)
            .split(|&byte| byte == b'\n');
        lines.for_each(|line| totals.add_value(line));
        println!("{totals}");
        return Ok(ExitCode::SUCCESS);
    }
    let listener = TcpListener::bind(options.listen)?;
    let address = listener.local_addr()?;
    println!("listening on {address}");
    let broker = Arc::new(Broker {
        options,
        address,
        totals: Mutex::default(),
    });

    let (events, inbox) = channel();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let on_signal = events.clone();
    thread::spawn(move || {
        signals
            .forever()
            .try_for_each(|_| on_signal.send(Event::Signal))
    });
    let acceptor = Arc::clone(&broker);
    thread::spawn(move || acceptor.accept(&listener, &events));

    let (mut open, mut any) = (0, false);
    loop {
        let idle = broker.options.once && any && open == 0;
        let wait = if idle { ONCE_QUIET } else { Duration::MAX };
        match inbox.recv_timeout(wait) {
            Ok(Event::Opened) => (open, any) = (open + 1, true),
            Ok(Event::Closed) => open -= 1,
            Ok(Event::Signal) | Err(_) => break,
        }
    }
    let totals = broker.totals.lock().unwrap_or_else(PoisonError::into_inner);
    for (topic, totals) in totals.iter() {
        println!("topic={topic} {totals}");
    }
    let flawed = totals.values().any(|totals| totals.flaws > 0);
    Ok(if flawed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl Totals {
    fn add_value(&mut self, value: &[u8]) {
        self.records += 1;
        self.value_bytes += value.len() as u64;
        self.digest = self.digest.wrapping_add(XxHash3_64::oneshot(value));
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals {
            requests,
            batches,
            records,
            batch_bytes,
            value_bytes,
            digest,
            flaws,
        } = self;
        write!(
            f,
            "requests={requests} batches={batches} records={records} "
        )?;
        write!(f, "batch_bytes={batch_bytes} value_bytes={value_bytes} ")?;
        write!(f, "digest={digest:016x} flaws={flaws}")
    }
}

impl Broker {
    fn accept(self: &Arc<Self>, listener: &TcpListener, events: &Sender<Event>) {
        for stream in listener.incoming().flatten() {
            let (broker, events) = (Arc::clone(self), events.clone());
            // A closed channel means that the process is about to end.
            let _ = events.send(Event::Opened);
            thread::spawn(move || {
                if let Err(error) = broker.serve(&stream) {
                    eprintln!("null_broker: connection closed: {error}");
                }
                let _ = events.send(Event::Closed);
            });
        }
    }

    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut window = vec![0; WINDOW_BYTES];
        let mut length = [0; 4];
        while receive(stream, &mut length, RecvFlags::WAITALL)? == length.len() {
            let left = u32::from_be_bytes(length) as usize;
            if !(10..=REQUEST_BYTES_MAX).contains(&left) {
                return Err(io::Error::other(format!("a request of {left} bytes")));
            }
            let mut frame = Frame {
                stream,
                window: &mut window,
                left,
            };
            let api = frame.i16()?;
            let version = frame.i16()?;
            let answer = match ApiKey::try_from(api) {
                Ok(ApiKey::Produce) if version >= 3 => self.produce(version, &mut frame)?,
                Ok(api) => self.answer_small(api, version, &mut frame)?,
                Err(()) => return Err(io::Error::other(format!("an API of kind {api}"))),
            };
            frame.skip(frame.left)?;
            stream.write_all(&answer)?;
        }
        Ok(())
    }

    /// Reads as little of a Produce request as the answer needs.
    fn produce(&self, version: i16, frame: &mut Frame) -> io::Result<Vec<u8>> {
        let correlation = frame.i32()?;
        let _client_id = frame.string()?;
        let _transactional_id = frame.string()?;
        let acks = frame.i16()?;
        let _timeout_ms = frame.i32()?;
        let mut topics = Vec::new();
        for _ in 0..frame.i32()? {
            let name = frame.string()?;
            let mut partitions = Vec::new();
            for _ in 0..frame.i32()? {
                partitions.push(PartitionProduceResponse::default().with_index(frame.i32()?));
                let bytes = frame.i32()? as usize;
                if self.options.verify {
                    let batch = Bytes::copy_from_slice(frame.bytes(bytes)?);
                    self.verify(&name, &batch);
                } else {
                    self.count(&name, bytes, frame)?;
                }
            }
            self.add(&name, |totals| totals.requests += 1);
            let answer = TopicProduceResponse::default()
                .with_name(TopicName(StrBytes::from_string(name)))
                .with_partition_responses(partitions);
            topics.push(answer);
        }
        let body = ProduceResponse::default().with_responses(topics);
        match acks {
            0 => Ok(Vec::new()),
            _ => encode(ApiKey::Produce, version, correlation, &body),
        }
    }

    /// Counts by what the header of a batch says.
    fn count(&self, topic: &str, bytes: usize, frame: &mut Frame) -> io::Result<()> {
        let header: [u8; BATCH_HEADER_BYTES] = frame.array()?;
        frame.skip(bytes.saturating_sub(BATCH_HEADER_BYTES))?;
        let [.., a, b, c, d] = header;
        self.add(topic, |totals| {
            totals.batches += 1;
            totals.batch_bytes += bytes as u64;
            totals.records += u64::from(u32::from_be_bytes([a, b, c, d]));
        });
        Ok(())
    }

    fn verify(&self, topic: &str, bytes: &Bytes) {
        let batch = batch::read(bytes);
        self.add(topic, |totals| {
            totals.batches += 1;
            totals.batch_bytes += bytes.len() as u64;
            match &batch {
                Ok(batch) => batch
                    .records
                    .iter()
                    .for_each(|record| totals.add_value(&record.value)),
                Err(flaw) => {
                    totals.flaws += 1;
                    eprintln!("null_broker: topic {topic}: {}", flaw.text);
                }
            }
        });
    }

    fn add(&self, topic: &str, change: impl FnOnce(&mut Totals)) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        if !totals.contains_key(topic) {
            totals.insert(topic.to_owned(), Totals::default());
        }
        totals.get_mut(topic).map(change);
    }

    fn answer_small(&self, api: ApiKey, version: i16, frame: &mut Frame) -> io::Result<Vec<u8>> {
        // The header again, as kafka-protocol wants it.
        let mut request = BytesMut::new();
        request.extend_from_slice(&(api as i16).to_be_bytes());
        request.extend_from_slice(&version.to_be_bytes());
        request.extend_from_slice(frame.bytes(frame.left)?);
        let mut request = request.freeze();
        let header = RequestHeader::decode(&mut request, api.request_header_version(version));
        let correlation = header.map_err(io::Error::other)?.correlation_id;
        match api {
            ApiKey::ApiVersions => {
                let rows = APIS.map(|(api, min, max)| {
                    let row = ApiVersion::default().with_api_key(api as i16);
                    row.with_min_version(min).with_max_version(max)
                });
                let body = ApiVersionsResponse::default().with_api_keys(rows.into());
                if version > 3 {
                    return encode(
                        api,
                        0,
                        correlation,
                        &body.with_error_code(UNSUPPORTED_VERSION),
                    );
                }
                encode(api, version, correlation, &body)
            }
            ApiKey::InitProducerId => {
                let body = InitProducerIdResponse::default().with_producer_id(1.into());
                encode(api, version, correlation, &body)
            }
            ApiKey::Metadata => {
                let request = MetadataRequest::decode(&mut request, version);
                let body = self.metadata(&request.map_err(io::Error::other)?);
                encode(api, version, correlation, &body)
            }
            _ => Err(io::Error::other(format!(
                "{api:?} version {version} is not served"
            ))),
        }
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let partition = |index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(1.into())
                .with_replica_nodes(vec![1.into()])
                .with_isr_nodes(vec![1.into()])
        };
        let topics = request.topics.iter().flatten().map(|topic| {
            MetadataResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions((0..self.options.partitions).map(partition).collect())
        });
        let broker = MetadataResponseBroker::default()
            .with_node_id(1.into())
            .with_host(StrBytes::from_string(self.address.ip().to_string()))
            .with_port(self.address.port().into());
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_controller_id(1.into())
            .with_topics(topics.collect())
    }
}

/// What is left of a request, most of which is better not looked at.
struct Frame<'a> {
    stream: &'a TcpStream,
    window: &'a mut Vec<u8>,
    left: usize,
}

impl Frame<'_> {
    /// The next bytes, copied.
    fn bytes(&mut self, count: usize) -> io::Result<&[u8]> {
        if count > self.left {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if count > self.window.len() {
            self.window.resize(count, 0);
        }
        let bytes = &mut self.window[..count];
        if receive(self.stream, bytes, RecvFlags::WAITALL)? < count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count;
        Ok(bytes)
    }

    /// Lets the next bytes go unseen; Linux does not even copy them.
    fn skip(&mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            let step = count.min(self.window.len()).min(self.left);
            let flags = RecvFlags::WAITALL | RecvFlags::TRUNC;
            let skipped = receive(self.stream, &mut self.window[..step], flags)?;
            if skipped == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.left -= skipped;
            count -= skipped;
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        Ok(*self
            .bytes(N)?
            .first_chunk()
            .expect("N bytes were asked for"))
    }

    fn i16(&mut self) -> io::Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> io::Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn string(&mut self) -> io::Result<String> {
        let length = self.i16()?.max(0);
        Ok(String::from_utf8_lossy(self.bytes(length as usize)?).into_owned())
    }
}

fn receive(stream: &TcpStream, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| rustix::net::recv(stream, &mut *buffer, flags))?.1)
}

fn encode(
    api: ApiKey,
    version: i16,
    correlation: i32,
    body: &impl Encodable,
) -> io::Result<Vec<u8>> {
    let mut bytes = BytesMut::zeroed(4);
    ResponseHeader::default()
        .with_correlation_id(correlation)
        .encode(&mut bytes, api.response_header_version(version))
        .and_then(|()| body.encode(&mut bytes, version))
        .map_err(io::Error::other)?;
    let length = bytes.len() as u32 - 4;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes.into())
}
