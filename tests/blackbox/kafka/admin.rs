//! What an administrator does to a cluster, as requests of our own: Kafka's tools
//! take seconds each, this takes none.
//!
//! It asks whichever node answers, and tries again while the cluster is busy with
//! itself.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, CreateAclsRequest, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteTopicsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest,
    MetadataRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::{DEADLINE, Kafka, Version};

/// How long a node may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);
const TIMEOUT_MS: i32 = 4_000;
const LOOK_EVERY: Duration = Duration::from_millis(50);

const NO_ERROR: i16 = 0;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const UNKNOWN_TOPIC: i16 = 3;
const ELECTION_NOT_NEEDED: i16 = 84;

// Kafka's numbers for what a configuration or an access rule is about.
const TOPIC: i8 = 2;
const SET: i8 = 0;
const LITERAL: i8 = 3;
const OPERATION_ALL: i8 = 2;
const OPERATION_DESCRIBE: i8 = 8;
const DENY: i8 = 2;
const ALLOW: i8 = 3;

/// A partition as the cluster tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub index: i32,
    /// The node that takes its lines, -1 for none.
    pub leader: i32,
    /// The nodes that are to have it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that are up to date.
    pub in_sync: Vec<i32>,
}

impl Kafka {
    /// Makes a topic.
    #[track_caller]
    pub fn create_topic(&self, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        let config = |(key, value): &(&str, &str)| {
            CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value)))
        };
        let wanted = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(-1)
            .with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(TIMEOUT_MS);
        self.until_done("create the topic", || {
            let code = self.ask(5, &request)?.topics[0].error_code;
            Ok([NO_ERROR, TOPIC_ALREADY_EXISTS]
                .contains(&code)
                .then_some(()))
        });
        self.partitions_until(topic, |found| {
            found.len() == usize::try_from(partitions).unwrap() && found.iter().all(is_whole)
        });
    }

    /// Deletes a topic, and waits until every node has forgotten it.
    #[track_caller]
    pub fn delete_topic(&self, topic: &str) {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name(topic)])
            .with_timeout_ms(TIMEOUT_MS);
        self.until_done("delete the topic", || {
            let code = self.ask(5, &request)?.responses[0].error_code;
            Ok([NO_ERROR, UNKNOWN_TOPIC].contains(&code).then_some(()))
        });
        self.until_done("forget the topic", || {
            for node in &self.nodes {
                if !partitions_at(&node.address, topic)?.is_empty() {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        });
    }

    /// Gives a topic more partitions: so many in all.
    #[track_caller]
    pub fn add_partitions(&self, topic: &str, count: i32) {
        let wanted = CreatePartitionsTopic::default()
            .with_name(name(topic))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(TIMEOUT_MS);
        self.until_done("add partitions", || {
            let code = self.ask(1, &request)?.results[0].error_code;
            Ok((code == NO_ERROR).then_some(()))
        });
        self.partitions_until(topic, |found| {
            found.len() == usize::try_from(count).unwrap() && found.iter().all(is_whole)
        });
    }

    /// Changes a topic's configuration.
    #[track_caller]
    pub fn alter_topic(&self, topic: &str, key: &str, value: &str) {
        let config = AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(SET)
            .with_value(Some(text(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        self.until_done("alter the topic", || {
            let code = self.ask(1, &request)?.responses[0].error_code;
            Ok((code == NO_ERROR).then_some(()))
        });
    }

    /// Denies a user everything about a topic.
    #[track_caller]
    pub fn deny(&self, user: &str, topic: &str) {
        self.rule(user, topic, OPERATION_ALL, DENY);
    }

    /// A user may see a topic, and so do nothing else with it.
    pub fn let_describe_only(&self, user: &str, topic: &str) {
        self.rule(user, topic, OPERATION_DESCRIBE, ALLOW);
    }

    fn rule(&self, user: &str, topic: &str, operation: i8, permission: i8) {
        let rule = AclCreation::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_resource_pattern_type(LITERAL)
            .with_principal(text(&format!("User:{user}")))
            .with_host(text("*"))
            .with_operation(operation)
            .with_permission_type(permission);
        let request = CreateAclsRequest::default().with_creations(vec![rule]);
        self.until_done("take the rule", || {
            let code = self.ask(2, &request)?.results[0].error_code;
            Ok((code == NO_ERROR).then_some(()))
        });
    }

    /// Moves every partition's leader to the next of its replicas, as an
    /// administrator does: another order of the replicas, then the preferred one.
    #[track_caller]
    pub fn move_leaders(&self, topic: &str) {
        let mut wanted = self.partitions(topic);
        for partition in &mut wanted {
            partition.replicas.rotate_left(1);
        }
        self.until_done("reorder the replicas", || {
            let answer = self.ask(0, &reassignment(topic, &wanted))?;
            let code = answer.error_code;
            let mut codes = answer.responses.iter().flat_map(|t| &t.partitions);
            let done = code == NO_ERROR && codes.all(|part| part.error_code == NO_ERROR);
            Ok(done.then_some(()))
        });
        let mut all = TopicPartitions::default().with_topic(name(topic));
        all.partitions = wanted.iter().map(|partition| partition.index).collect();
        let request = ElectLeadersRequest::default()
            .with_topic_partitions(Some(vec![all]))
            .with_timeout_ms(TIMEOUT_MS);
        self.until_done("elect the preferred leaders", || {
            let answer = self.ask(2, &request)?;
            let mut results = answer.replica_election_results.iter();
            let done = results.all(|topic| {
                let mut parts = topic.partition_result.iter();
                parts.all(|part| [NO_ERROR, ELECTION_NOT_NEEDED].contains(&part.error_code))
            });
            Ok((answer.error_code == NO_ERROR && done).then_some(()))
        });
        self.partitions_until(topic, |found| {
            let leads = |(now, then): (&Partition, &Partition)| now.leader == then.replicas[0];
            found.len() == wanted.len() && found.iter().zip(&wanted).all(leads)
        });
    }

    /// The partitions of a topic, none if there is no such topic.
    #[track_caller]
    pub fn partitions(&self, topic: &str) -> Vec<Partition> {
        self.until_done("tell the partitions", || {
            self.anywhere(|address| partitions_at(address, topic))
                .map(Some)
        })
    }

    /// Waits until the partitions of a topic are as wanted.
    #[track_caller]
    pub fn partitions_until(&self, topic: &str, fits: impl Fn(&[Partition]) -> bool) {
        self.until_done("get the partitions as wanted", || {
            let found = self.anywhere(|address| partitions_at(address, topic))?;
            Ok(fits(&found).then_some(()))
        });
    }

    /// Waits until every replica of a topic is up to date.
    #[track_caller]
    pub fn is_in_sync(&self, topic: &str) {
        self.partitions_until(topic, |found| found.iter().all(is_whole));
    }

    fn ask<R: Request>(&self, version: i16, request: &R) -> io::Result<R::Response> {
        self.anywhere(|address| ask(address, version, request))
    }

    /// The first answer of any node.
    fn anywhere<T>(&self, ask: impl Fn(&str) -> io::Result<T>) -> io::Result<T> {
        let mut result = Err(io::ErrorKind::NotConnected.into());
        for node in &self.nodes {
            result = ask(&node.address);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    #[track_caller]
    fn until_done<T>(&self, what: &str, mut done: impl FnMut() -> io::Result<Option<T>>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let result = done();
            if let Ok(Some(value)) = result {
                return value;
            }
            if Instant::now() > deadline {
                let why = result.err();
                panic!("Kafka did not {what}: {why:?}\n{}", self.logs());
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Led, and up to date on all its nodes.
fn is_whole(partition: &Partition) -> bool {
    partition.leader >= 0 && partition.in_sync.len() == partition.replicas.len()
}

/// The numbers of the brokers that a node knows.
pub fn brokers(address: &str, version: Version) -> io::Result<Vec<i32>> {
    let none = MetadataRequest::default().with_topics(Some(Vec::new()));
    let answer = ask(address, version.metadata(), &none)?;
    Ok(answer
        .brokers
        .iter()
        .map(|broker| broker.node_id.0)
        .collect())
}

fn partitions_at(address: &str, topic: &str) -> io::Result<Vec<Partition>> {
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(false);
    let mut answer = ask(address, 8, &request)?;
    let mut found: Vec<Partition> = answer
        .topics
        .remove(0)
        .partitions
        .iter()
        .map(part)
        .collect();
    found.sort_by_key(|partition| partition.index);
    Ok(found)
}

fn part(told: &MetadataResponsePartition) -> Partition {
    let numbers = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
    Partition {
        index: told.partition_index,
        leader: told.leader_id.0,
        replicas: numbers(&told.replica_nodes),
        in_sync: numbers(&told.isr_nodes),
    }
}

fn reassignment(topic: &str, wanted: &[Partition]) -> AlterPartitionReassignmentsRequest {
    let partition = |wanted: &Partition| {
        let replicas = wanted.replicas.iter().map(|&id| BrokerId(id)).collect();
        ReassignablePartition::default()
            .with_partition_index(wanted.index)
            .with_replicas(Some(replicas))
    };
    let topic = ReassignableTopic::default()
        .with_name(name(topic))
        .with_partitions(wanted.iter().map(partition).collect());
    AlterPartitionReassignmentsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(TIMEOUT_MS)
}

/// One request and its answer, on a connection of its own.
fn ask<R: Request>(address: &str, version: i16, request: &R) -> io::Result<R::Response> {
    exchange(&mut TcpStream::connect(address)?, version, request)
}

/// One request and its answer.
pub fn exchange<R: Request>(
    stream: &mut TcpStream,
    version: i16,
    request: &R,
) -> io::Result<R::Response> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_client_id(Some(text("logship-tests")));
    let mut frame = BytesMut::new();
    let encoded = header.encode(&mut frame, R::header_version(version));
    encoded.map_err(io::Error::other)?;
    let encoded = request.encode(&mut frame, version);
    encoded.map_err(io::Error::other)?;

    stream.set_read_timeout(Some(ANSWER))?;
    let length = u32::try_from(frame.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], &frame].concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;

    let mut answer = bytes::Bytes::from(answer);
    ResponseHeader::decode(&mut answer, R::Response::header_version(version))
        .map_err(io::Error::other)?;
    let decoded = R::Response::decode(&mut answer, version).map_err(io::Error::other)?;
    assert!(!answer.has_remaining(), "the whole answer was understood");
    Ok(decoded)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}
