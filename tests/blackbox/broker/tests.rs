//! The fake broker itself, by requests made by hand.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::messages::{
    metadata_request::MetadataRequestTopic,
    produce_request::{PartitionProduceData, TopicProduceData},
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use super::*;

const SOON: Duration = Duration::from_secs(5);
/// Names a real Kafka, `HOST:PORT`, that has to answer as the fake does.
const REAL_KAFKA: &str = "LOGSHIP_TEST_KAFKA";

struct Client {
    stream: TcpStream,
    sent: i32,
}

impl Client {
    fn connect(address: &str) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, sent: 0 }
    }

    fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.sent += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(StrBytes::from_static_str("test")));
        let mut bytes = BytesMut::zeroed(4);
        header
            .encode(&mut bytes, R::header_version(version))
            .unwrap();
        request.encode(&mut bytes, version).unwrap();
        let length = bytes.len() as u32 - 4;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&bytes).unwrap();
    }

    fn receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > 1_000_000 {
            return Err(io::Error::other(format!("{length} bytes")));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let mut body = Bytes::from(body);
        let header = ResponseHeader::decode(&mut body, R::Response::header_version(version));
        let correlation = header.map_err(io::Error::other)?.correlation_id;
        if correlation != self.sent {
            return Err(io::Error::other(format!("correlation {correlation}")));
        }
        // kafka-protocol makes room for as many entries as an answer says it has.
        if body[..] == vec![0x7f; body.len()] {
            return Err(io::Error::other("absurd counts"));
        }
        let response = R::Response::decode(&mut body, version).map_err(io::Error::other)?;
        assert!(body.is_empty(), "{} bytes too many", body.len());
        Ok(response)
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.send(version, request);
        self.receive::<R>(version)
    }

    /// A new producer id; a real broker needs a moment for its first.
    fn new_producer(&mut self) -> i64 {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        loop {
            let answer = self.call(1, &request).unwrap();
            if answer.error_code == 0 {
                return answer.producer_id.0;
            }
        }
    }

    /// Error code and offset of one batch to one partition.
    fn produce(&mut self, to: (&str, i32), batch: &Bytes) -> io::Result<(i16, i64)> {
        let answer = self.call(7, &produce(to, batch))?;
        let answer = &answer.responses[0].partition_responses[0];
        Ok((answer.error_code, answer.base_offset))
    }

    /// Error code and leaders of a topic.
    fn topic(&mut self, name: &str) -> (i16, Vec<i32>) {
        let topic = &self.call(8, &metadata(name)).unwrap().topics[0];
        let leaders = topic.partitions.iter().map(|p| p.leader_id.0);
        (topic.error_code, leaders.collect())
    }
}

fn metadata(name: &str) -> MetadataRequest {
    let name = TopicName(StrBytes::from_string(name.to_owned()));
    let topic = MetadataRequestTopic::default().with_name(Some(name));
    MetadataRequest::default().with_topics(Some(vec![topic]))
}

fn produce((topic, partition): (&str, i32), batch: &Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch.clone()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(1_000)
        .with_transactional_id(None)
        .with_topic_data(vec![topic])
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_millis() as i64
}

fn record(producer_id: i64, epoch: i16, sequence: i32, value: &str) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id,
        producer_epoch: epoch,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence,
        timestamp: now_ms(),
        key: None,
        value: Some(value.to_owned().into()),
        headers: Default::default(),
    }
}

fn encode(records: &[Record], compression: Compression) -> Bytes {
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    let compress = |plain: &mut BytesMut, out: &mut BytesMut, codec| {
        let mut out = out.writer();
        match codec {
            Compression::None => out.write_all(plain)?,
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, Default::default());
                encoder.write_all(plain)?;
                encoder.finish()?;
            }
            Compression::Snappy => {
                out.write_all(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01")?;
                let block = snap::raw::Encoder::new().compress_vec(plain)?;
                out.write_all(&(block.len() as u32).to_be_bytes())?;
                out.write_all(&block)?;
            }
            Compression::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
                encoder.write_all(plain)?;
                encoder.finish()?;
            }
            Compression::Zstd => zstd::stream::copy_encode(plain.reader(), out, 0)?,
        }
        Ok(())
    };
    let compress = Some(compress);
    RecordBatchEncoder::encode_with_custom_compression(&mut bytes, records, &options, compress)
        .unwrap();
    bytes.freeze()
}

/// A batch of `count` records with these sequences.
fn batch(producer_id: i64, epoch: i16, first: i32, count: i32) -> Bytes {
    let record = |at: i32| {
        let value = format!("{first}+{at}");
        let mut record = record(producer_id, epoch, first.wrapping_add(at), &value);
        record.offset = at.into();
        record
    };
    let records: Vec<_> = (0..count).map(record).collect();
    encode(&records, Compression::None)
}

/// The batch with some bytes put over it and a good CRC again.
fn patched(batch: &Bytes, patches: &[(usize, &[u8])]) -> Bytes {
    let mut batch = BytesMut::from(&batch[..]);
    for &(at, bytes) in patches {
        batch[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn broker_with(topic: &str, partitions: usize) -> (Broker, Client) {
    let broker = Broker::start();
    broker.create_topic(topic, partitions);
    let client = Client::connect(&broker.addresses());
    (broker, client)
}

#[track_caller]
fn assert_one_violation(broker: &Broker, text: &str) {
    let violations = broker.forgive();
    let one = violations.len() == 1 && violations[0].contains(text);
    assert!(one, "{text}: {violations:?}");
}

fn panic_text(body: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(body)).expect_err("it should have panicked");
    *panic.downcast::<String>().unwrap()
}

#[test]
fn an_unsupported_api_versions_request_is_answered_in_version_0() {
    let broker = Broker::builder()
        .api_versions_max(2)
        .produce_version_max(5)
        .start();
    let mut client = Client::connect(&broker.addresses());
    let request = ApiVersionsRequest::default();
    client.send(3, &request);
    let refused = client.receive::<ApiVersionsRequest>(0).unwrap();
    assert_eq!(refused.error_code, 35);
    for version in 0..=2 {
        let answer = client.call(version, &request).unwrap();
        let produce = answer.api_keys.iter().find(|row| row.api_key == 0).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 5));
    }
    assert_eq!(broker.requests(ApiKey::ApiVersions), 4);
}

#[test]
fn a_request_that_is_not_served_is_a_violation_and_closes_the_connection() {
    let broker = Broker::builder().produce_version_max(7).start();
    let attempt = |what: &str, send: &dyn Fn(&mut Client)| {
        let mut client = Client::connect(&broker.addresses());
        send(&mut client);
        let end = client.receive::<ApiVersionsRequest>(0).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof, "{what}");
        assert_one_violation(&broker, what);
    };
    let request = produce(("t", 0), &batch(1, 0, 0, 1));
    let weak = request.clone().with_acks(1);
    let mut twice = request.clone();
    twice.topic_data.push(request.topic_data[0].clone());
    attempt("Produce in version 8", &|client| client.send(8, &request));
    attempt("acks is 1", &|client| client.send(7, &weak));
    attempt("twice in one request", &|client| client.send(7, &twice));
    attempt("Fetch", &|client| client.send(4, &FetchRequest::default()));
    // What kafka-protocol does not make: ApiVersions with a byte too many, Produce v2.
    for (what, bytes) in [
        (
            "1 bytes too many",
            b"\0\0\0\x0b\0\x12\0\0\0\0\0\0\xff\xff!".as_slice(),
        ),
        (
            "Produce in version 2",
            b"\0\0\0\x0a\0\0\0\x02\0\0\0\0\xff\xff",
        ),
        ("a request of 4294967295 bytes", &[0xff; 4]),
    ] {
        attempt(what, &|client| client.stream.write_all(bytes).unwrap());
    }
}

#[test]
fn metadata_says_where_the_leaders_are_in_every_version() {
    let broker = Broker::builder().nodes(3).start();
    broker.create_topic("t", 4);
    broker.move_leader("t", 3, -1);
    let mut client = Client::connect(broker.addresses().split(',').nth(1).unwrap());
    for version in 0..=12 {
        let answer = client.call(version, &metadata("t")).unwrap();
        let brokers = answer.brokers.iter();
        let brokers = brokers.map(|b| format!("{}:{}", &*b.host, b.port));
        assert_eq!(brokers.collect::<Vec<_>>().join(","), broker.addresses());
        let partitions = answer.topics[0].partitions.iter();
        let leaders: Vec<_> = partitions.map(|p| (p.leader_id.0, p.error_code)).collect();
        assert_eq!(leaders, [(1, 0), (2, 0), (3, 0), (-1, 5)], "{version}");
        let all = MetadataRequest::default().with_topics((version == 0).then(Vec::new));
        assert_eq!(client.call(version, &all).unwrap().topics, answer.topics);
    }
}

#[test]
fn a_topic_is_created_by_asking_if_that_is_allowed_and_takes_a_moment() {
    let broker = Broker::builder()
        .partitions(2)
        .creation(Duration::from_millis(50))
        .start();
    let mut client = Client::connect(&broker.addresses());
    let asked_only = metadata("t").with_allow_auto_topic_creation(false);
    assert_eq!(client.call(8, &asked_only).unwrap().topics[0].error_code, 3);
    assert_eq!(client.topic("not/legal").0, 17);
    let begin = Instant::now();
    assert_eq!(client.topic("t"), (5, vec![]));
    let early = client.produce(("t", 0), &batch(1, 0, 0, 1)).unwrap();
    assert_eq!(early, (3, -1));
    while client.topic("t").0 == 5 {}
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert_eq!(client.topic("t"), (0, vec![1, 1]));

    let broker = Broker::builder().creation_error(3).start();
    assert_eq!(Client::connect(&broker.addresses()).topic("t").0, 3);
    assert_eq!(broker.records("t"), []);
    let broker = Broker::builder().auto_create(false).start();
    let mut client = Client::connect(&broker.addresses());
    assert_eq!((client.topic("t").0, client.topic("t").0), (3, 3));
}

#[test]
fn records_are_kept_as_they_were_sent_in_every_version_and_codec() {
    let (broker, mut client) = broker_with("t", 1);
    use Compression::{Gzip, Lz4, None, Snappy, Zstd};
    for (version, codec) in [(3, None), (4, Gzip), (6, Snappy), (8, Lz4), (9, Zstd)] {
        let before = broker.records("t").len();
        let id = client.new_producer();
        let empty = record(id, 0, 0, "");
        let rich = Record {
            offset: 1,
            key: Some("key".into()),
            headers: [
                ("a".into(), Some("b".into())),
                ("null".into(), Option::None),
            ]
            .into(),
            ..record(id, 0, 1, &"long ".repeat(30_000))
        };
        let request = produce(("t", 0), &encode(&[empty, rich.clone()], codec));
        let answer = client.call(version, &request).unwrap();
        let code = answer.responses[0].partition_responses[0].error_code;
        assert_eq!(code, 0, "{codec:?}");

        let records = broker.wait_for("t", before + 2, SOON);
        assert_eq!(
            (records[before].value.len(), &records[before].key),
            (0, &Option::None)
        );
        let expected = super::Record {
            partition: 0,
            offset: before as i64 + 1,
            key: rich.key,
            value: rich.value.unwrap(),
            timestamp_ms: rich.timestamp,
            headers: vec![
                ("a".into(), Some("b".into())),
                ("null".into(), Option::None),
            ],
            producer_id: id,
            arrived: records[before + 1].arrived,
        };
        assert_eq!(records[before + 1..], [expected]);
    }
    broker.wait_for_requests(ApiKey::Produce, 5, SOON);
    assert_eq!(broker.partition("t", 0).len(), 10);
    assert_eq!(broker.partition("t", 1), []);
}

/// Run once against the real thing, the fake must not drift from it:
/// `LOGSHIP_TEST_KAFKA=127.0.0.1:9092 cargo test --test blackbox sequences_are`.
#[test]
fn sequences_are_judged_as_a_real_broker_does() {
    const MAX: i32 = i32::MAX;
    // Producer, epoch, first sequence, records; error code and offset.
    #[rustfmt::skip]
    let script = [
        ((0, 0, 0, 1), (0, 0)),
        ((0, 0, 1, 2), (0, 1)),
        ((0, 0, 1, 2), (0, 1)),         // repeated: the original offset
        ((0, 0, 1, 1), (45, -1)),       // the same sequence, another batch
        ((0, 0, 4, 1), (45, -1)),       // a gap
        ((0, 0, 3, 1), (0, 3)),
        ((0, 0, 4, 1), (0, 4)),
        ((0, 0, 5, 1), (0, 5)),
        ((0, 0, 6, 1), (0, 6)),
        ((0, 0, 1, 2), (0, 1)),         // the oldest of the five
        ((0, 0, 0, 1), (45, -1)),       // older than the five: not 46
        ((0, 1, 7, 1), (45, -1)),       // a new epoch begins at 0
        ((0, 1, 0, 1), (0, 7)),
        ((0, 0, 7, 1), (47, -1)),       // an old epoch
        ((0, 1, 1, 1), (0, 8)),
        ((1, 0, MAX - 1, 1), (0, 9)),   // unknown producer: any sequence
        ((1, 0, MAX, 2), (0, 10)),      // round the corner
        ((1, 0, MAX, 2), (0, 10)),
        ((1, 0, 1, 1), (0, 12)),
    ];
    let check = |address: &str, topic: &str| {
        let mut client = Client::connect(address);
        while client.topic(topic).0 != 0 {}
        let producers = [client.new_producer(), client.new_producer()];
        // A real leader may not know of it yet; repeating the first step is no harm.
        let first = batch(producers[0], 0, 0, 1);
        while client.produce((topic, 0), &first).unwrap().0 != 0 {}
        for (step, ((producer, epoch, first, count), expected)) in script.into_iter().enumerate() {
            let batch = batch(producers[producer], epoch, first, count);
            let answer = client.produce((topic, 0), &batch).unwrap();
            assert_eq!(answer, expected, "{address}, step {step}");
        }
    };
    let broker = Broker::start();
    check(&broker.addresses(), "t");
    assert_eq!(broker.records("t").len(), 13);
    if let Ok(address) = std::env::var(REAL_KAFKA) {
        check(&address, &format!("sequences-{}", now_ms()));
    }
}

#[test]
fn every_flaw_of_a_batch_is_told() {
    let (broker, mut client) = broker_with("t", 1);
    let id = client.new_producer();
    let good = batch(id, 0, 0, 2);
    let put = |at, byte: u8| patched(&good, &[(at, &[byte])]);
    let mut bad_crc = BytesMut::from(&good[..]);
    bad_crc[17] ^= 1;
    let double = [batch(id, 0, 0, 1), batch(id, 0, 1, 1)].concat();
    let one = |record| encode(&[record], Compression::None);
    let (mut old, mut null) = (record(id, 0, 0, "x"), record(id, 0, 0, "x"));
    (old.timestamp, null.value) = (0, None);
    let plain = one(record(-1, -1, -1, "x"));
    let lz4 = encode(&[record(id, 0, 0, "x")], Compression::Lz4);
    let gzip = encode(&[record(id, 0, 0, "x")], Compression::Gzip);
    let more = [&gzip[..], &[0]].concat().into();
    let more = patched(&more, &[(8, &(gzip.len() as u32 - 11).to_be_bytes())]);
    #[rustfmt::skip]
    let flaws = [
        ("bytes are no batch", Bytes::new()),
        ("batchLength is", double.into()),
        ("magic is 1", put(16, 1)),
        ("computed", bad_crc.freeze()),
        ("base offset", put(7, 1)),
        ("no known codec", put(22, 5)),
        ("no known codec", put(22, 0x10)),
        ("record count", put(60, 0)),
        ("lastOffsetDelta", put(26, 2)),
        ("id, epoch, sequence are", put(51, 0xff)),
        ("cannot decompress gzip", put(22, 1)),
        ("cannot decompress snappy", put(22, 2)),
        ("cannot decompress lz4", put(22, 3)),
        ("cannot decompress zstd", put(22, 4)),
        ("gzip: 1 bytes too many", more),
        ("independent blocks", patched(&lz4, &[(65, &[0x40])])),
        ("not exactly 3 records", patched(&good, &[(26, &[2]), (60, &[3])])),
        ("not exactly 1 records", patched(&good, &[(26, &[0]), (60, &[1])])),
        ("not exactly 2 records", put(good.len() - 1, 2)),                      // a header
        ("not exactly 2 records", put(62, 1)),                                  // attributes
        ("not exactly 2 records", put(64, 2)),                                  // offset delta
        ("not exactly 2 records", patched(&good, &[(66, &[4]), (69, &[0])])),   // value length
        ("maxTimestamp", patched(&good, &[(35, &[0; 8])])),
        ("is of 0", one(old)),
        ("a tombstone", one(null)),
        ("without producer id", plain.clone()),
    ];
    for (text, batch) in flaws {
        let answer = client.produce(("t", 0), &batch).unwrap();
        assert_one_violation(&broker, text);
        assert_eq!(answer.0 == 0, text == "without producer id", "{text}");
    }
    let zstd = encode(&[record(id, 0, 0, "x")], Compression::Zstd);
    let answer = client.call(6, &produce(("t", 0), &zstd)).unwrap();
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 76);
    assert_one_violation(&broker, "zstd in version 6");
    assert_eq!(broker.records("t").len(), 1);

    let broker = Broker::builder().idempotence_required(false).start();
    broker.create_topic("t", 1);
    let mut client = Client::connect(&broker.addresses());
    assert_eq!(client.produce(("t", 0), &plain).unwrap(), (0, 0));
}

#[test]
fn only_the_leader_takes_what_is_small_enough_for_a_topic_that_is_there() {
    let broker = Broker::builder().nodes(2).max_message_bytes(100).start();
    broker.create_topic("t", 2);
    let mut client = Client::connect(&broker.address(1));
    let id = client.new_producer();
    let mut code = |to, count| client.produce(to, &batch(id, 0, 0, count)).unwrap().0;
    assert_eq!(code(("t", 0), 4), 10);
    assert_eq!(code(("t", 0), 1), 0);
    assert_eq!(code(("t", 1), 1), 6);
    broker.move_leader("t", 1, 1);
    assert_eq!(code(("t", 1), 1), 0);
    assert_eq!(code(("t", 2), 1), 3);
    assert_eq!(code(("u", 0), 1), 3);
}

#[test]
fn every_misdeed_is_done_once_and_then_all_is_well() {
    use Misdeed::*;
    const DELAY: Duration = Duration::from_millis(100);
    // What a client sees of it, and whether the batch is in the log.
    let misdeeds = [
        (CutBefore, "failed to fill", 0),
        (CutAfter, "failed to fill", 1),
        (CutMidAnswer, "failed to fill", 1),
        (Silence, "temporarily unavailable", 0),
        (Delay(DELAY), "Ok((0, 0))", 1),
        (Error(7), "Ok((7, -1))", 0),
        (ErrorAfterAppend(20), "Ok((20, -1))", 1),
        (Garbage, "1213486160 bytes", 1),
        (Nonsense, "Err", 1),
        (AbsurdCounts, "Err", 1),
        (WrongCorrelation, "correlation", 1),
    ];
    for (misdeed, seen, appended) in misdeeds {
        let (broker, mut client) = broker_with("t", 1);
        let state = || (broker.records("t").len(), broker.faults_fired());
        let fault = Fault::of(misdeed).on(ApiKey::Produce);
        broker.fault(fault.node(1).topic("t").times(1));
        broker.fault(Fault::of(CutBefore).node(2));
        let batch = batch(client.new_producer(), 0, 0, 1);
        let patience = if misdeed == Silence { DELAY } else { SOON };
        client.stream.set_read_timeout(Some(patience)).unwrap();
        let begin = Instant::now();
        let answer = format!("{:?}", client.produce(("t", 0), &batch));
        assert!(answer.contains(seen), "{misdeed:?}: {answer}");
        assert!(begin.elapsed() >= DELAY || misdeed != Delay(DELAY));
        assert!(misdeed != Silence || client.produce(("t", 0), &batch).is_err());
        assert_eq!(state(), (appended, 1), "{misdeed:?}");

        let mut client = Client::connect(&broker.addresses());
        let answer = client.produce(("t", 0), &batch).unwrap();
        assert_eq!(answer, (0, 0), "{misdeed:?}");
        assert_eq!(state(), (1, 1), "{misdeed:?}");
    }
}

#[test]
fn errors_reach_every_api_and_only_the_topic_they_are_meant_for() {
    let (broker, mut client) = broker_with("t", 1);
    broker.create_topic("u", 1);
    broker.fault(Fault::of(Misdeed::Error(29)).topic("t"));
    assert_eq!((client.topic("t").0, client.topic("u").0), (29, 0));
    let id = client.new_producer();
    let mut both = produce(("t", 0), &batch(id, 0, 0, 1));
    let other = produce(("u", 0), &batch(id, 0, 0, 1));
    both.topic_data.extend(other.topic_data);
    let answer = client.call(7, &both).unwrap();
    let code = |at: usize| answer.responses[at].partition_responses[0].error_code;
    assert_eq!((code(0), code(1)), (29, 0));

    broker.clear_faults();
    broker.fault(Fault::of(Misdeed::Error(15)));
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    assert_eq!(client.call(4, &request).unwrap().error_code, 15);
    let versions = client.call(3, &ApiVersionsRequest::default()).unwrap();
    assert_eq!(versions.error_code, 15);
    let transactional = request.with_transactional_id(Some(TransactionalId("x".into())));
    broker.clear_faults();
    assert_eq!(client.call(4, &transactional).unwrap().error_code, 42);
    assert!(broker.forgive()[0].contains("transactional id 'x'"));
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let codes = |seed| {
        let (broker, mut client) = broker_with("t", 1);
        broker.fault(Fault::mix(seed, 2, [Misdeed::Error(7), Misdeed::Error(19)]));
        (0..20).map(|_| client.topic("t").0).collect::<Vec<_>>()
    };
    let one = codes(1);
    assert_eq!(one, codes(1));
    assert_ne!(one, codes(2));
    assert!([0, 7, 19].iter().all(|code| one.contains(code)), "{one:?}");
}

/// Of others there may be more: they have no sequence to come out of order.
#[test]
fn a_sixth_produce_request_in_flight_is_a_violation() {
    for in_flight in [5, 6] {
        let (broker, mut client) = broker_with("t", 1);
        let id = client.new_producer();
        broker.fault(Fault::of(Misdeed::Delay(Duration::from_millis(300))));
        client.send(8, &metadata("t"));
        for first in 0..in_flight {
            client.send(7, &produce(("t", 0), &batch(id, 0, first, 1)));
        }
        client.sent -= in_flight;
        client.receive::<MetadataRequest>(8).unwrap();
        for _ in 0..in_flight {
            client.sent += 1;
            client.receive::<ProduceRequest>(7).unwrap();
        }
        match in_flight {
            5 => assert_eq!(broker.violations(), [""; 0]),
            _ => assert_one_violation(&broker, "6 Produce requests in flight"),
        }
    }
}

#[test]
fn a_port_that_is_away_refuses_and_comes_back_with_what_it_knew() {
    let (broker, mut client) = broker_with("t", 1);
    let id = client.new_producer();
    let first = batch(id, 0, 0, 1);
    client.produce(("t", 0), &first).unwrap();
    for _ in 0..3 {
        broker.pause();
        assert!(client.receive::<ProduceRequest>(7).is_err());
        let refused = TcpStream::connect(broker.addresses()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        broker.resume();
        client = Client::connect(&broker.addresses());
        assert_eq!(client.produce(("t", 0), &first).unwrap(), (0, 0));
    }

    // What was read but not processed is gone with the connection.
    broker.fault(Fault::of(Misdeed::Delay(SOON)));
    for sequence in [1, 2] {
        client.send(7, &produce(("t", 0), &batch(id, 0, sequence, 1)));
    }
    broker.wait_for("t", 2, SOON);
    broker.pause();
    broker.wait_for_requests(ApiKey::Produce, 6, SOON);
    assert_eq!(broker.records("t").len(), 2);
}

#[test]
fn reading_can_be_slow() {
    let (broker, mut client) = broker_with("t", 1);
    let record = record(client.new_producer(), 0, 0, &"x".repeat(20_000));
    broker.read_slowly(Some(100_000));
    let begin = Instant::now();
    let batch = encode(&[record], Compression::None);
    client.produce(("t", 0), &batch).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(150));
}

/// What a client sent before it hung up is processed, as by a real broker.
#[test]
fn a_request_outlives_its_connection() {
    let (broker, mut client) = broker_with("t", 1);
    let id = client.new_producer();
    broker.fault(Fault::of(Misdeed::Delay(Duration::from_millis(50))));
    client.send(7, &produce(("t", 0), &batch(id, 0, 0, 1)));
    client.send(7, &produce(("t", 0), &batch(id, 0, 1, 1)));
    drop(client);
    broker.wait_for("t", 2, SOON);
}

#[test]
fn a_broker_that_saw_a_violation_panics_when_dropped() {
    let text = panic_text(|| {
        let (_broker, mut client) = broker_with("t", 1);
        let old = patched(&batch(1, 0, 0, 1), &[(16, &[1])]);
        client.produce(("t", 0), &old).unwrap();
    });
    let expected = "node 1: Produce to t:0: magic is 1, not 2";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn waiting_in_vain_says_what_came_instead() {
    let (broker, mut client) = broker_with("t", 2);
    client.produce(("t", 1), &batch(1, 0, 0, 3)).unwrap();
    let text = panic_text(|| drop(broker.wait_for("t", 4, Duration::from_millis(20))));
    assert!(text.contains("4 records in topic 't'"), "{text}");
    assert!(text.contains("3 records, by partition [0, 3]"), "{text}");
}

#[test]
fn the_oracle_tells_missing_repeated_misordered_and_unexpected_lines() {
    let records = |lines: &str| {
        let record = |(at, line): (usize, &str)| {
            let (partition, value) = line.split_once(':').unwrap();
            super::Record {
                partition: partition.parse().unwrap(),
                offset: at as i64,
                key: None,
                value: Bytes::from(value.to_owned()),
                timestamp_ms: 0,
                headers: vec![],
                producer_id: 0,
                arrived: Instant::now(),
            }
        };
        let lines = lines.split_whitespace().enumerate();
        lines.map(record).collect::<Vec<_>>()
    };
    let lines = ["a", "b", "c", "b"];
    check_sequence(lines, &records("0:a 0:b 0:c 0:b")).assert_exact();
    check_sequence(lines, &records("0:a 0:b 0:c 0:a 0:b")).assert_lossless();
    let report = check_sequence(lines, &records("0:a 0:c 0:b 0:a 0:c 0:x"));
    assert_eq!(report.missing, ["\"b\" line 3"]);
    assert_eq!(report.repeated, ["\"a\" at 0:3", "\"c\" at 0:4"]);
    assert_eq!(report.misordered, ["\"b\" line 1 at 0:2 after line 2"]);
    assert_eq!(report.unexpected, ["\"x\" at 0:5"]);
    let text = panic_text(|| report.assert_lossless());
    let expected = "4 lines, 6 records, by partition {0: 6}";
    assert!(text.contains(expected), "{text}");
}
