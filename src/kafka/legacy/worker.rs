//! The thread that the crate `kafka` works in: one request at a time, each of which
//! may block for minutes.
//!
//! The crate has no time-out that could be set, keeps a connection after it failed, and
//! trusts every count that a broker sends. So a worker ends with its first failure, and
//! its owner lets go of one that is silent, waits for none of them, and starts another.
//! What is asked, and what follows from an answer, is the owner's business.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use kafka::client::metadata::Partition;
use kafka::client::{Compression as Codec, KafkaClient, ProduceMessage, RequiredAcks};

use super::super::address::Address;
use super::super::codec::Compression;
use super::super::connection::{hung_up, look_up, open_tcp};
use super::super::error::{Cause, ConnectionError, ErrorCode, Stage};
use super::super::producer::Options;
use super::messages::Messages;

/// What a worker is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Ask for the partitions of these topics, which makes them where brokers do that; of
    /// all that there are, if none is named.
    Ask(Vec<String>),
    /// Write a batch.
    Write {
        /// Topic name.
        topic: String,
        /// Partition index.
        partition: usize,
        /// What to write.
        messages: Arc<Messages>,
    },
}

/// The leader of a partition, if there is one.
pub type Leader = Option<Address>;

/// What a worker says.
#[derive(Debug)]
pub struct Event {
    /// Which one.
    pub worker: u64,
    /// What.
    pub said: Said,
}

/// The answer to a command.
#[derive(Debug)]
pub enum Said {
    /// For each topic the leaders of its partitions. One of which nothing is known has
    /// no partitions.
    Leaders(Address, Vec<(String, Vec<Leader>)>),
    /// A broker took the batch, or not.
    Written(Address, ErrorCode),
    /// Nobody knows what became of the command, and the worker has ended.
    Down(ConnectionError),
}

/// The body of the thread.
pub struct Worker {
    /// Its number. Each begins with the next of the brokers that are named.
    pub id: u64,
    /// Brokers, time-outs, client id.
    pub options: Options,
    /// Codec of batches.
    pub codec: Codec,
    /// What to do, one after the other.
    pub commands: Receiver<Command>,
    /// Where to tell.
    pub events: Sender<Event>,
}

/// The codec that the legacy client has in place of one that it has not.
pub fn codec_of(compression: Compression) -> Codec {
    match compression {
        Compression::None => Codec::NONE,
        Compression::Gzip => Codec::GZIP,
        Compression::Snappy | Compression::Lz4 | Compression::Zstd => Codec::SNAPPY,
    }
}

/// Which broker a worker tries first: each the next one.
pub fn first_of(worker: u64, brokers: &[Address]) -> usize {
    usize::try_from(worker).unwrap_or(0) % brokers.len().max(1)
}

impl Worker {
    /// Runs until the owner lets go, or something fails.
    pub fn run(self) {
        let first = first_of(self.id, &self.options.bootstrap);
        let mut guard = Guard {
            worker: self.id,
            address: Some(self.options.bootstrap[first].clone()),
            events: self.events.clone(),
        };
        let mut link = None;
        for command in &self.commands {
            let said = self.serve(command, &mut link);
            let over = matches!(said, Said::Down(_));
            let _ = self.events.send(Event {
                worker: self.id,
                said,
            });
            if over {
                break;
            }
        }
        guard.address = None;
    }

    fn serve(&self, command: Command, link: &mut Option<Link>) -> Said {
        let link = match link {
            Some(link) => link,
            None => match self.connect() {
                Ok(connected) => link.insert(connected),
                Err(error) => return Said::Down(error),
            },
        };
        match command {
            Command::Ask(topics) => link.ask(topics),
            Command::Write {
                topic,
                partition,
                messages,
            } => link.write(&topic, partition, &messages, &self.options),
        }
    }

    /// Finds a broker that can be reached. The crate opens a connection of its own
    /// afterwards, but it neither keeps to a time-out nor says why it could not.
    fn connect(&self) -> Result<Link, ConnectionError> {
        let brokers = &self.options.bootstrap;
        let first = first_of(self.id, brokers);
        let mut failed = None;
        for address in brokers[first..].iter().chain(&brokers[..first]) {
            let opened = look_up(address)
                .and_then(|addresses| open_tcp(addresses, self.options.connect_timeout));
            match opened {
                Ok(_) => {
                    let mut client = KafkaClient::new(vec![address.to_string()]);
                    client.set_client_id(self.options.client_id.clone());
                    client.set_compression(self.codec);
                    return Ok(Link {
                        client,
                        address: address.clone(),
                    });
                }
                Err(problem) => failed = Some((address.clone(), problem)),
            }
        }
        let (address, (stage, cause)) = failed.expect("there is at least one broker");
        Err(ConnectionError {
            address,
            stage,
            cause,
        })
    }
}

/// The crate's client, and the broker it was begun with.
struct Link {
    client: KafkaClient,
    address: Address,
}

impl Link {
    fn ask(&mut self, mut topics: Vec<String>) -> Said {
        if let Err(error) = self.client.load_metadata(&topics) {
            return down(self.address.clone(), error);
        }
        let known = self.client.topics();
        if topics.is_empty() {
            topics = known.names().map(str::to_owned).collect();
        }
        let found = topics.into_iter().map(|topic| {
            let partitions = known.partitions(&topic);
            let all = partitions.iter().flat_map(|partitions| partitions.iter());
            let leaders = all.map(|partition| address_of(&partition)).collect();
            (topic, leaders)
        });
        Said::Leaders(self.address.clone(), found.collect())
    }

    fn write(
        &mut self,
        topic: &str,
        partition: usize,
        messages: &Messages,
        options: &Options,
    ) -> Said {
        let index = i32::try_from(partition).unwrap_or(-1);
        let leader = self.leader_of(topic, index);
        let leader = leader.unwrap_or_else(|| self.address.clone());
        // An empty line is an empty value: without `Some` it would be null.
        let all = messages
            .iter()
            .map(|(key, value)| ProduceMessage::new(topic, index, key, Some(value)));
        // The broker gives up first, so that it is the one to say why.
        let patience = options.request_timeout / 2;
        let written = self
            .client
            .produce_messages(RequiredAcks::All, patience, all);
        let confirms = match written {
            Ok(confirms) => confirms,
            Err(kafka::Error::Kafka(code)) => {
                return Said::Written(leader, ErrorCode(code as i16));
            }
            Err(error) => return down(leader, error),
        };
        let ours = confirms
            .into_iter()
            .filter(|confirm| confirm.topic == topic)
            .flat_map(|confirm| confirm.partition_confirms)
            .find(|confirm| confirm.partition == index);
        match ours.map(|confirm| confirm.offset) {
            Some(Ok(_)) => Said::Written(leader, ErrorCode::NONE),
            Some(Err(code)) => Said::Written(leader, ErrorCode(code as i16)),
            None => {
                let problem = "an answer that does not name the partition".to_owned();
                failed(leader, Cause::Protocol(problem))
            }
        }
    }

    /// The broker that a partition is written to, as far as it is known.
    fn leader_of(&self, topic: &str, partition: i32) -> Leader {
        let known = self.client.topics();
        let partitions = known.partitions(topic)?;
        address_of(&partitions.partition(partition)?)
    }
}

fn address_of(partition: &Partition) -> Leader {
    let (host, port) = partition.leader()?.host().rsplit_once(':')?;
    Some(Address::new(host, port.parse().ok()?))
}

fn down(address: Address, error: kafka::Error) -> Said {
    let cause = match error {
        kafka::Error::Io(error) => hung_up(error),
        kafka::Error::NoHostReachable => Cause::HungUp,
        other => Cause::Protocol(other.to_string()),
    };
    failed(address, cause)
}

fn failed(address: Address, cause: Cause) -> Said {
    Said::Down(ConnectionError {
        address,
        stage: Stage::Legacy,
        cause,
    })
}

/// Says so when the crate panics, as it may over an answer that is none of Kafka's.
struct Guard {
    worker: u64,
    /// A broker to name; `None` when there is nothing to say.
    address: Option<Address>,
    events: Sender<Event>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(address) = self.address.take() {
            let problem = "an answer that cannot be read: not Kafka?".to_owned();
            let _ = self.events.send(Event {
                worker: self.worker,
                said: failed(address, Cause::Protocol(problem)),
            });
        }
    }
}
