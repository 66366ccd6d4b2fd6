//! librdkafka's mock cluster, and librdkafka's consumer to read what is in it.
//!
//! Nothing here is ours but the wish what goes wrong: requests are taken apart, and
//! records read (`check.crcs`), by code of people who never saw logship.
//!
//! What the mock does *not* do (2.12, `rdkafka_mock.c` and `rdkafka_mock_handlers.c`):
//! - It looks at sequences only of who has a transactional id, so a batch that comes
//!   twice is in its log twice, and one that comes too early is not refused.
//! - An error that is asked for is answered to a whole request, and *nothing* of that
//!   request is appended, whatever the error's name says. When it cuts the connection
//!   instead, what came behind that request is appended all the same, and not answered.
//! - Errors for Metadata are not looked at; it has those of topics instead.
//! - It keeps the newest 5 MiB of a partition, and is one thread.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Header, Headers};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::broker::Record;

/// Generous: it is only waited for in full when something is wrong.
const DEADLINE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const BROKERS: i32 = 3;

/// Three brokers; a topic that is asked for is made with four partitions.
pub struct Mock(MockCluster<'static, DefaultProducerContext>);

impl Mock {
    pub fn start() -> Mock {
        Mock(MockCluster::new(BROKERS).unwrap())
    }

    /// With a topic of three partitions, one on each broker.
    pub fn with_topic(name: &str) -> Mock {
        let mock = Mock::start();
        mock.0.create_topic(name, BROKERS, BROKERS).unwrap();
        mock.turn_leaders(name, 0);
        mock
    }

    /// Gives each partition of such a topic to the broker so many places further on.
    pub fn turn_leaders(&self, topic: &str, places: i32) {
        let broker = |partition| (partition + places) % BROKERS + 1;
        (0..BROKERS).for_each(|partition| self.lead(topic, partition, broker(partition)));
    }

    fn lead(&self, topic: &str, partition: i32, broker: i32) {
        let set = self.0.partition_leader(topic, partition, Some(broker));
        set.unwrap();
    }

    /// `HOST:PORT` of every broker, with commas between.
    pub fn addresses(&self) -> String {
        self.0.bootstrap_servers()
    }

    /// The next requests of this kind are answered with these errors, one each.
    pub fn fail(&self, api: RDKafkaApiKey, codes: &[i32]) {
        let errors: Vec<RDKafkaRespErr> = codes.iter().map(|&code| error(code)).collect();
        self.0.request_errors(api, &errors);
    }

    /// From now on Metadata says this of a topic; 0 that all is well.
    pub fn fail_topic(&self, topic: &str, code: i32) {
        self.0.topic_error(topic, error(code)).unwrap();
    }

    /// How long each broker's answers take.
    pub fn answer_after(&self, delay: Duration) {
        (1..=BROKERS).for_each(|broker| self.0.broker_round_trip_time(broker, delay).unwrap());
    }

    /// Cuts the connections of a broker and takes no new ones; its leaders stay.
    pub fn down(&self, broker: i32) {
        self.0.broker_down(broker).unwrap();
    }

    pub fn up(&self, broker: i32) {
        self.0.broker_up(broker).unwrap();
    }

    /// The newest version of a request that the brokers admit to.
    pub fn speak(&self, api: RDKafkaApiKey, newest: i16) {
        self.0.apiversion(api, Some(0), Some(newest)).unwrap();
    }

    /// Waits until a topic has at least so many records.
    #[track_caller]
    pub fn wait_for(&self, topic: &str, records: u64) {
        let (reader, until) = (self.reader(), Instant::now() + DEADLINE);
        loop {
            let ends = ends(&reader, topic);
            let there = ends.as_ref().map_or(0, |ends| count(ends));
            if there >= records {
                return;
            }
            assert!(
                Instant::now() < until,
                "waited {DEADLINE:?} for {records} records in '{topic}', but there are {ends:?}"
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// All records of a topic, by partition and offset. The mock hands them out a batch at
    /// a time, so its answers should not be slow.
    #[track_caller]
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let reader = self.reader();
        let ends = ends(&reader, topic).unwrap();
        let mut from = TopicPartitionList::new();
        for &(partition, _) in &ends {
            from.add_partition_offset(topic, partition, Offset::Beginning)
                .unwrap();
        }
        reader.assign(&from).unwrap();

        let mut records = Vec::new();
        while (records.len() as u64) < count(&ends) {
            let message = reader.poll(DEADLINE);
            let message = message.unwrap_or_else(|| panic!("no more than {} came", records.len()));
            records.push(record(&message.unwrap()));
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    fn reader(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.addresses())
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "10")
            .create()
            .unwrap()
    }
}

/// Kafka's error code as librdkafka has it, which knows more of them.
fn error(code: i32) -> RDKafkaRespErr {
    RDKafkaRespErr::try_from(code).unwrap()
}

/// The partitions of a topic and how many records each has.
fn ends(reader: &BaseConsumer, topic: &str) -> KafkaResult<Vec<(i32, i64)>> {
    let metadata = reader.fetch_metadata(Some(topic), DEADLINE)?;
    let partitions = metadata.topics()[0].partitions().iter();
    let end = |partition: i32| {
        let (first, end) = reader.fetch_watermarks(topic, partition, DEADLINE)?;
        assert_eq!(
            first, 0,
            "the mock keeps 5 MiB of a partition, and had more"
        );
        Ok((partition, end))
    };
    partitions.map(|partition| end(partition.id())).collect()
}

fn count(ends: &[(i32, i64)]) -> u64 {
    ends.iter().map(|(_, end)| end.unsigned_abs()).sum()
}

fn record(message: &BorrowedMessage) -> Record {
    let header = |header: Header<&[u8]>| {
        let value = header.value.map(Bytes::copy_from_slice);
        (header.key.to_owned(), value)
    };
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(Bytes::copy_from_slice),
        value: Bytes::copy_from_slice(message.payload().expect("a value is never null")),
        timestamp_ms: message.timestamp().to_millis().unwrap(),
        headers: headers.map(header).collect(),
        producer_id: -1,
        arrived: Instant::now(),
    }
}
