//! The thread of the legacy client that talks to brokers: one request at a time, each of
//! which has its time.
//!
//! It ends with its first failure, and its owner lets go of one that is silent, waits for
//! none of them, and starts another. What is asked, and what follows from an answer, is
//! the owner's business.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::super::address::Address;
use super::super::connection::{self, Problem, look_up, open_tcp, waited};
use super::super::error::{Cause, ConnectionError, ErrorCode, Stage};
use super::super::producer::Options;
use super::super::transport::Transport;
use super::super::wire::{self, Frame, ProducePart, Purpose};
use super::answers::{self, Known};

/// The version of all requests: brokers speak it from 0.8 to 3.9.
const VERSION: i16 = 0;
/// A connection that rested for so long is made anew: brokers close theirs after ten
/// minutes (`connections.max.idle.ms`).
const IDLE_MAX: Duration = Duration::from_secs(9 * 60);

/// What a worker is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Ask for the partitions of these topics, which makes them where brokers do that.
    Ask(Vec<String>),
    /// Ask for all topics, which makes none, to know of these.
    Look(Vec<String>),
    /// Write a batch.
    Write {
        /// Who leads the partition.
        leader: Address,
        /// Topic name.
        topic: String,
        /// Partition index.
        partition: i32,
        /// What to write: a message set.
        set: Arc<Vec<u8>>,
    },
}

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
    /// What is known of each topic that was asked for.
    Leaders(Address, Vec<Known>),
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
    /// What to do, one after the other, and until when. What is not sent by then is not sent:
    /// the owner has let go, and another worker does it.
    pub commands: Receiver<(Command, Instant)>,
    /// Where to tell.
    pub events: Sender<Event>,
}

/// Which broker a worker tries first: each the next one.
pub fn first_of(worker: u64, brokers: &[Address]) -> usize {
    usize::try_from(worker).unwrap_or(0) % brokers.len().max(1)
}

impl Worker {
    /// Runs until the owner lets go, or something fails.
    pub fn run(self) {
        let mut links = Links {
            options: &self.options,
            open: HashMap::new(),
            asked: None,
            correlation: 0,
            deadline: Instant::now(),
        };
        for (command, deadline) in &self.commands {
            links.deadline = deadline;
            let said = match command {
                Command::Ask(topics) => links.ask(self.id, topics.clone(), topics),
                Command::Look(topics) => links.ask(self.id, Vec::new(), topics),
                Command::Write {
                    leader,
                    topic,
                    partition,
                    set,
                } => links.write(leader, &topic, partition, set),
            };
            let said = said.unwrap_or_else(Said::Down);
            let over = matches!(said, Said::Down(_));
            let _ = self.events.send(Event {
                worker: self.id,
                said,
            });
            if over {
                break;
            }
        }
    }
}

/// Connections to brokers.
struct Links<'a> {
    options: &'a Options,
    open: HashMap<Address, Link>,
    /// The broker that is asked for leaders.
    asked: Option<Address>,
    /// Of the last request.
    correlation: i32,
    /// Until when the owner waits for its answer.
    deadline: Instant,
}

struct Link {
    transport: Transport,
    used: Instant,
}

impl Links<'_> {
    /// Asks for some topics, or all of them, what is known of those that are `wanted`.
    fn ask(
        &mut self,
        worker: u64,
        topics: Vec<String>,
        wanted: Vec<String>,
    ) -> Result<Said, ConnectionError> {
        let address = match &self.asked {
            Some(address) => address.clone(),
            None => self.reach_one(worker)?,
        };
        let correlation = self.next_correlation();
        let frame = wire::metadata_request(
            VERSION,
            correlation,
            &self.options.client_id,
            topics.iter().map(String::as_str),
            Purpose::Producing,
        );
        self.exchange(&address, &frame)
            .and_then(|answer| answers::metadata(&answer, wanted).map_err(of_request))
            .map(|known| Said::Leaders(address.clone(), known))
            .map_err(|problem| at(address, problem))
    }

    fn write(
        &mut self,
        leader: Address,
        topic: &str,
        partition: i32,
        set: Arc<Vec<u8>>,
    ) -> Result<Said, ConnectionError> {
        let part = ProducePart {
            topic,
            partition,
            batch: set,
        };
        let correlation = self.next_correlation();
        // The broker gives up first, so that it is the one to say why.
        let patience = self.options.request_timeout / 2;
        let client_id = &self.options.client_id;
        let frame = wire::produce_request(VERSION, correlation, client_id, patience, &[part]);
        self.exchange(&leader, &frame)
            .and_then(|answer| answers::written(&answer, topic, partition).map_err(of_request))
            .map(|code| Said::Written(leader.clone(), code))
            .map_err(|problem| at(leader, problem))
    }

    fn next_correlation(&mut self) -> i32 {
        self.correlation = self.correlation.wrapping_add(1);
        self.correlation
    }

    /// Finds one of the brokers that are named which can be reached.
    fn reach_one(&mut self, worker: u64) -> Result<Address, ConnectionError> {
        let brokers = &self.options.bootstrap;
        let first = first_of(worker, brokers);
        let mut failed = None;
        for address in brokers[first..].iter().chain(&brokers[..first]) {
            match self.link(address) {
                Ok(_) => {
                    self.asked = Some(address.clone());
                    return Ok(address.clone());
                }
                Err(problem) => failed = Some(at(address.clone(), problem)),
            }
        }
        Err(failed.expect("there is at least one broker"))
    }

    /// Sends a request and waits for the body of its answer, so long at most.
    fn exchange(&mut self, address: &Address, frame: &Frame) -> Result<Vec<u8>, Problem> {
        let (correlation, timeout) = (self.correlation, self.options.request_timeout);
        let deadline = self.deadline;
        let link = self.link(address)?;
        let transport = &mut link.transport;
        transport.set_deadline(deadline);
        let mut answer = connection::ask(transport, frame)
            .map_err(|cause| of_request(waited(cause, timeout)))?;
        let (of, _) = wire::split_correlation(&answer).map_err(of_request)?;
        if of != correlation {
            let problem = "an answer to another request: not Kafka?".to_owned();
            return Err(of_request(Cause::Protocol(problem)));
        }
        answer.drain(..size_of_val(&of));
        Ok(answer)
    }

    /// The connection to a broker, made if there is none.
    fn link(&mut self, address: &Address) -> Result<&mut Link, Problem> {
        let now = Instant::now();
        self.open.retain(|_, link| link.used + IDLE_MAX > now);
        if !self.open.contains_key(address) {
            let transport = self.connect(address)?;
            let link = Link {
                transport,
                used: now,
            };
            self.open.insert(address.clone(), link);
        }
        let link = self.open.get_mut(address).expect("it is there now");
        link.used = Instant::now();
        Ok(link)
    }

    fn connect(&self, address: &Address) -> Result<Transport, Problem> {
        let socket = open_tcp(look_up(address)?, self.options.connect_timeout)?;
        let deadline = Instant::now() + self.options.request_timeout;
        socket
            .set_nodelay(true)
            .and_then(|()| Transport::plain(socket, deadline))
            .map_err(|error| (Stage::Tcp, Cause::Io(error)))
    }
}

fn of_request(cause: Cause) -> Problem {
    (Stage::Legacy, cause)
}

fn at(address: Address, (stage, cause): Problem) -> ConnectionError {
    ConnectionError {
        address,
        stage,
        cause,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use crossbeam_channel::bounded;

    use super::*;

    /// It took its time to connect, and its owner had let go: the batch came behind what
    /// the next worker wrote.
    #[test]
    fn a_batch_whose_time_is_over_is_not_written() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let leader = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
        let (send, commands) = bounded(1);
        let (events, said) = bounded(1);
        let write = Command::Write {
            leader: leader.clone(),
            topic: "t".to_owned(),
            partition: 0,
            set: Arc::default(),
        };
        send.send((write, Instant::now())).unwrap();
        let worker = Worker {
            id: 1,
            options: Options::new(vec![leader]),
            commands,
            events,
        };
        worker.run();
        assert!(matches!(said.recv().unwrap().said, Said::Down(_)));
        let mut written = Vec::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_end(&mut written)
            .unwrap();
        assert_eq!(written, b"");
    }
}
