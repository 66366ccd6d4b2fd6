//! The client for brokers that know no record batches, which began with Kafka 0.11
//! (KIP-98): it speaks version 0 of everything, as brokers from 0.8.2 to 3.9 do.
//!
//! It sends one batch at a time and writes each until it is acknowledged: at least
//! once and in order, but without idempotence, so that lines may come twice after a lost
//! connection. It knows no headers, no timestamps, no lz4, no zstd, neither TLS nor SASL.
//!
//! The order holds because a partition has one batch at most, which is sent again before
//! anything that follows it.

mod answers;
mod messages;
mod probe;
mod worker;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::address::Address;
use super::client::{Client, Records};
use super::connection::spawn;
use super::error::{Cause, ConnectionError, ErrorCode, Stage, Verdict};
use super::producer::{Notice, Options, Outcome, Return, TopicId, pause};
use super::stats::Stats;
use answers::{Known, Leader};
pub use messages::MessageBuilder;
use messages::Messages;
pub(super) use probe::probe;
pub use worker::Event;
use worker::{Command, Said, Worker};

/// Events that may wait. A worker that was let go may add one more.
const EVENTS_MAX: usize = 64;

/// Sends batches to the partitions of a cluster of old brokers.
#[derive(Debug)]
pub struct Legacy<R> {
    options: Options,
    stats: Arc<Stats>,
    events: (Sender<Event>, Receiver<Event>),
    link: Option<Link>,
    /// Connections that failed one after the other, and when the next one is tried.
    failures: u32,
    retry_at: Option<Instant>,
    /// Brokers that were complained of.
    troubled: BTreeSet<Address>,
    topics: Vec<Topic<R>>,
    topic_ids: HashMap<String, TopicId>,
    metadata: Metadata,
    /// Batches to be sent, oldest first: topic, partition.
    unsent: VecDeque<(TopicId, usize)>,
    outcomes: VecDeque<Outcome<R>>,
    notices: VecDeque<Notice>,
    spare: Vec<u8>,
    last_worker: u64,
}

/// A worker, and what it was asked last.
#[derive(Debug)]
struct Link {
    worker: u64,
    commands: Sender<(Command, Instant)>,
    /// It has told the leaders.
    serves: bool,
    /// The broker is taken as reached. Kafka 4 tells leaders too, and hangs up on batches.
    proven: bool,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    asked: Instant,
    deadline: Instant,
    /// The partition whose batch is written; else it is metadata.
    batch: Option<(TopicId, usize)>,
}

#[derive(Debug, Default)]
struct Metadata {
    /// When it is asked for again.
    due: Option<Instant>,
    /// Answers that did not name a leader of everything, one after the other.
    failures: u32,
}

#[derive(Debug)]
struct Topic<R> {
    name: String,
    partitions: Vec<Partition<R>>,
    /// Partitions that it had when it was first seen; see [`Client::partitions`].
    first_count: usize,
    /// Partitions that it has now; those beyond are gone.
    count: usize,
    /// Since when it has none.
    unknown_since: Option<Instant>,
    /// That it waits was told.
    told: bool,
}

#[derive(Debug)]
struct Partition<R> {
    leader: Leader,
    batch: Option<Batch<R>>,
    failures: u32,
    /// It was told that a batch is tried again, and not yet that one was accepted.
    retried: bool,
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Batch<R> {
    messages: Messages,
    receipt: R,
}

impl<R> Default for Partition<R> {
    fn default() -> Self {
        Partition {
            leader: None,
            batch: None,
            failures: 0,
            retried: false,
            retry_at: None,
        }
    }
}

impl<R> Legacy<R> {
    /// A client that is connected to nothing yet and counts in `stats`.
    pub fn new(options: Options, stats: Arc<Stats>) -> Self {
        Legacy {
            options,
            stats,
            events: bounded(EVENTS_MAX),
            link: None,
            failures: 0,
            retry_at: None,
            troubled: BTreeSet::new(),
            topics: Vec::new(),
            topic_ids: HashMap::new(),
            metadata: Metadata::default(),
            unsent: VecDeque::new(),
            outcomes: VecDeque::new(),
            notices: VecDeque::new(),
            spare: Vec::new(),
            last_worker: 0,
        }
    }

    fn partition(&mut self, (topic, index): (TopicId, usize)) -> &mut Partition<R> {
        &mut self.topics[topic.0].partitions[index]
    }

    /// The broker that the last worker tried first.
    fn first_broker(&self) -> Address {
        let brokers = &self.options.bootstrap;
        brokers[worker::first_of(self.last_worker, brokers)].clone()
    }

    // ---- asking ------------------------------------------------------------------

    /// Lets a worker go that has been silent for too long.
    fn expire(&mut self, now: Instant) {
        let pending = self.link.as_ref().and_then(|link| link.pending.as_ref());
        if pending.is_some_and(|pending| pending.deadline <= now) {
            let place = pending.and_then(|pending| pending.batch);
            let leader = place.and_then(|place| self.partition(place).leader.clone());
            let error = ConnectionError {
                address: leader.unwrap_or_else(|| self.first_broker()),
                stage: Stage::Legacy,
                cause: Cause::Silence(self.options.request_timeout),
            };
            self.down(error, now);
        }
    }

    fn connect(&mut self, now: Instant) {
        let rests = self.retry_at.is_some_and(|at| at > now);
        if self.link.is_some() || self.topics.is_empty() || rests {
            return;
        }
        self.last_worker += 1;
        let (commands, queue) = bounded(1);
        let worker = Worker {
            id: self.last_worker,
            options: self.options.clone(),
            commands: queue,
            events: self.events.0.clone(),
        };
        // Not joined: looking up a name cannot be interrupted, and it owns nothing anybody
        // waits for.
        let name = format!("kafka:{}:legacy", self.last_worker);
        if let Err(error) = spawn(name, move || worker.run()) {
            let error = ConnectionError {
                address: self.first_broker(),
                stage: Stage::Tcp,
                cause: Cause::Io(error),
            };
            return self.down(error, now);
        }
        self.link = Some(Link {
            worker: self.last_worker,
            commands,
            serves: false,
            proven: false,
            pending: None,
        });
        self.metadata.due = Some(now);
    }

    /// Gives the worker something to do, if it has nothing.
    fn ask(&mut self, now: Instant) {
        let idle = |link: &&mut Link| link.pending.is_none();
        if self.link.as_mut().filter(idle).is_none() {
            return;
        }
        let (command, batch) = if self.metadata.due.is_some_and(|due| due <= now) {
            self.metadata.due = None;
            let names = self.topics.iter().map(|topic| topic.name.clone());
            (Command::Ask(names.collect()), None)
        } else if let Some(place) = self.next_batch(now) {
            (self.write(place), Some(place))
        } else {
            return;
        };
        let deadline = now + self.options.request_timeout;
        let link = self.link.as_mut().expect("it was just seen");
        link.pending = Some(Pending {
            asked: now,
            deadline,
            batch,
        });
        // When the worker is ending, it says so.
        let _ = link.commands.try_send((command, deadline));
        self.stats.sent();
    }

    fn write(&self, (topic, index): (TopicId, usize)) -> Command {
        let topic = &self.topics[topic.0];
        let partition = &topic.partitions[index];
        let batch = partition.batch.as_ref().expect("an unsent batch is there");
        Command::Write {
            leader: partition.leader.clone().expect("it was looked for"),
            topic: topic.name.clone(),
            partition: i32::try_from(index).expect("an answer counts in 32 bits"),
            set: Arc::clone(&batch.messages.set),
        }
    }

    /// Takes out the oldest batch that may be sent now.
    fn next_batch(&mut self, now: Instant) -> Option<(TopicId, usize)> {
        let may_go = |&(topic, index): &(TopicId, usize)| {
            let partition = &self.topics[topic.0].partitions[index];
            partition.leader.is_some() && partition.retry_at.is_none_or(|at| at <= now)
        };
        let at = self.unsent.iter().position(may_go)?;
        self.unsent.remove(at)
    }

    // ---- hearing -----------------------------------------------------------------

    fn reached(&mut self, address: &Address) {
        let Some(link) = &mut self.link else { return };
        if !std::mem::replace(&mut link.proven, true) {
            self.stats.connected();
            (self.failures, self.retry_at) = (0, None);
        }
        if self.troubled.remove(address) {
            self.notices.push_back(Notice::Reached(address.clone()));
        }
    }

    fn down(&mut self, error: ConnectionError, now: Instant) {
        let link = self.link.take();
        let stood = link.as_ref().is_some_and(|link| link.proven);
        if let Some(place) = link.and_then(|link| link.pending?.batch) {
            self.rest(place, now);
        }
        self.failures += 1;
        self.retry_at = Some(now + pause(self.options.backoff, self.failures));
        self.stats.failed(error.stage.name());
        self.stats.disconnected(stood, false);
        self.troubled.insert(error.address.clone());
        self.notices.push_back(Notice::Unreachable(error));
    }

    /// A batch goes out again after a pause, and those of other partitions before it.
    fn rest(&mut self, place: (TopicId, usize), now: Instant) {
        let backoff = self.options.backoff;
        let partition = self.partition(place);
        partition.failures += 1;
        partition.retry_at = Some(now + pause(backoff, partition.failures));
        self.unsent.push_back(place);
    }

    /// Takes over what is known of the partitions.
    fn learn(&mut self, found: Vec<Known>, now: Instant) {
        let mut complete = true;
        for Known {
            name,
            code,
            leaders,
        } in found
        {
            let Some(&id) = self.topic_ids.get(&name) else {
                continue;
            };
            complete &= !leaders.is_empty() && leaders.iter().all(Option::is_some);
            if leaders.is_empty() {
                self.topic_is_unknown(id, code, now);
            } else {
                self.topic_is_known(id, leaders);
            }
        }
        if complete {
            self.metadata.failures = 0;
            self.metadata.due = Some(now + self.options.metadata_age_max);
        } else {
            self.metadata.failures += 1;
            let told = self.topics.iter().any(|topic| topic.told);
            let rest = match told {
                true => self.options.waiting_pause,
                false => pause(self.options.backoff, self.metadata.failures),
            };
            self.metadata.due = Some(now + rest);
        }
    }

    /// Metadata in version 0 makes a topic where that is allowed, but for a moment it has
    /// no partitions.
    fn topic_is_unknown(&mut self, id: TopicId, code: ErrorCode, now: Instant) {
        let topic = &mut self.topics[id.0];
        for partition in &mut topic.partitions {
            partition.leader = None;
        }
        let since = *topic.unknown_since.get_or_insert(now);
        if !topic.told && now >= since + self.options.creation_grace {
            topic.told = true;
            let waits = Notice::TopicWaits(topic.name.clone(), code);
            self.notices.push_back(waits);
        }
    }

    fn topic_is_known(&mut self, id: TopicId, leaders: Vec<Leader>) {
        let topic = &mut self.topics[id.0];
        topic.count = leaders.len();
        if topic.unknown_since.take().is_some() && std::mem::take(&mut topic.told) {
            let ready = Notice::TopicReady(topic.name.clone());
            self.notices.push_back(ready);
        }
        if topic.first_count == 0 || topic.first_count > topic.count {
            topic.first_count = topic.count;
        }
        if topic.partitions.len() < topic.count {
            let count = topic.count;
            topic.partitions.resize_with(count, Partition::default);
        }
        let mut leaders = leaders.into_iter();
        for partition in &mut topic.partitions {
            partition.leader = leaders.next().flatten();
        }
        self.give_back_gone(id);
    }

    /// Returns what was for partitions that are no more: the topic was made again with
    /// fewer.
    fn give_back_gone(&mut self, id: TopicId) {
        let topic = &mut self.topics[id.0];
        let gone = topic.partitions.iter_mut().skip(topic.count);
        let receipts: Vec<R> = gone
            .filter_map(|partition| Some(partition.batch.take()?.receipt))
            .collect();
        if receipts.is_empty() {
            return;
        }
        let count = topic.count;
        self.unsent
            .retain(|(topic, index)| *topic != id || *index < count);
        self.outcomes.push_back(Outcome::Returned {
            topic: id,
            receipts,
            why: Return::Renumbered,
        });
        self.goes_on(id);
    }

    /// A topic that was told to wait does not: also one whose batch, which was there to tell
    /// when it goes on, is there no more.
    fn goes_on(&mut self, topic: TopicId) {
        let topic = &mut self.topics[topic.0];
        if std::mem::take(&mut topic.told) {
            let ready = Notice::TopicReady(topic.name.clone());
            self.notices.push_back(ready);
        }
    }

    /// The broker has answered a batch.
    fn settle(&mut self, place: (TopicId, usize), code: ErrorCode, now: Instant) {
        let verdict = code.verdict();
        if verdict == Verdict::Accepted {
            return self.acked(place);
        }
        self.stats.failed(&code.label());
        if verdict == Verdict::Poison {
            return self.set_aside(place, code);
        }
        self.rest(place, now);
        let (topic, index) = place;
        let first_broker = self.first_broker();
        let topic = &mut self.topics[topic.0];
        let partition = &mut topic.partitions[index];
        let broker = partition.leader.clone().unwrap_or(first_broker);
        if verdict == Verdict::TopicWaits {
            let pause = self.options.waiting_pause;
            partition.retry_at = Some(now + pause);
            if !std::mem::replace(&mut topic.told, true) {
                let waits = Notice::TopicWaits(topic.name.clone(), code);
                self.notices.push_back(waits);
            }
        } else {
            partition.retried = true;
            self.notices.push_back(Notice::Retried {
                topic: topic.name.clone(),
                partition: i32::try_from(index).unwrap_or(-1),
                broker,
                code,
            });
        }
        // Whatever it was, a leader may have moved.
        let soon = now + self.options.backoff.0;
        self.metadata.due = Some(self.metadata.due.map_or(soon, |due| due.min(soon)));
    }

    fn acked(&mut self, place: (TopicId, usize)) {
        let partition = self.partition(place);
        (partition.failures, partition.retry_at) = (0, None);
        let retried = std::mem::take(&mut partition.retried);
        let Some(batch) = partition.batch.take() else {
            return;
        };
        let topic = &mut self.topics[place.0.0];
        if retried {
            self.notices.push_back(Notice::Accepted {
                topic: topic.name.clone(),
                partition: i32::try_from(place.1).unwrap_or(-1),
            });
        }
        self.goes_on(place.0);
        if let Ok(set) = Arc::try_unwrap(batch.messages.set) {
            self.spare = set;
        }
        self.outcomes.push_back(Outcome::Acked {
            topic: place.0,
            receipt: batch.receipt,
        });
    }

    /// A batch that is not taken as it is: smaller ones, or a record that never will be.
    fn set_aside(&mut self, place: (TopicId, usize), code: ErrorCode) {
        let Some(batch) = self.partition(place).batch.take() else {
            return;
        };
        let topic = place.0;
        let outcome = match batch.messages.count {
            1 => Outcome::Refused {
                topic,
                receipt: batch.receipt,
                code,
            },
            _ => Outcome::Returned {
                topic,
                receipts: vec![batch.receipt],
                why: Return::TooLarge(batch.messages.plain_bytes, code),
            },
        };
        self.outcomes.push_back(outcome);
        self.goes_on(topic);
    }
}

impl<R> Client<R> for Legacy<R> {
    type Event = Event;
    type Batch = MessageBuilder;

    fn events(&self) -> Receiver<Event> {
        self.events.1.clone()
    }

    fn handle(&mut self, event: Event, now: Instant) {
        let link = self.link.as_mut();
        let Some(link) = link.filter(|link| link.worker == event.worker) else {
            return; // of one that was let go: what it wrote is written again
        };
        let (address, answer) = match event.said {
            Said::Down(error) => return self.down(error, now),
            Said::Leaders(address, found) => (address, Ok(found)),
            Said::Written(address, code) => (address, Err(code)),
        };
        let pending = link.pending.take();
        link.serves = true;
        match (answer, pending) {
            (Ok(found), _) => {
                if self.unsent.is_empty() {
                    self.reached(&address);
                }
                self.learn(found, now);
            }
            (Err(code), Some(pending)) => {
                self.reached(&address);
                self.stats.answered(now.duration_since(pending.asked));
                if let Some(place) = pending.batch {
                    self.settle(place, code, now);
                }
            }
            (Err(_), None) => {}
        }
    }

    fn poll(&mut self, now: Instant) -> Option<Instant> {
        self.expire(now);
        self.connect(now);
        self.ask(now);
        let pending = self.link.as_ref().and_then(|link| link.pending.as_ref());
        let waiting = self.unsent.iter().map(|&(topic, index)| {
            let partition = &self.topics[topic.0].partitions[index];
            partition.retry_at
        });
        waiting
            .chain([
                pending.map(|pending| pending.deadline),
                self.metadata.due,
                self.retry_at,
            ])
            .flatten()
            .filter(|&at| at > now)
            .min()
    }

    fn topic(&mut self, name: &str, now: Instant) -> TopicId {
        if let Some(&id) = self.topic_ids.get(name) {
            return id;
        }
        let id = TopicId(self.topics.len());
        self.topics.push(Topic {
            name: name.to_owned(),
            partitions: Vec::new(),
            first_count: 0,
            count: 0,
            unknown_since: None,
            told: false,
        });
        self.topic_ids.insert(name.to_owned(), id);
        self.metadata.due = Some(now);
        id
    }

    fn topic_name(&self, topic: TopicId) -> &str {
        &self.topics[topic.0].name
    }

    fn partitions(&self, topic: TopicId) -> usize {
        self.topics[topic.0].first_count
    }

    fn partitions_now(&self, topic: TopicId) -> usize {
        self.topics[topic.0].count
    }

    fn ready(&mut self, topic: TopicId, partition: usize, _now: Instant) -> bool {
        let link = self.link.as_ref();
        let idle = link.is_some_and(|link| link.serves && link.pending.is_none());
        let topic = &self.topics[topic.0];
        let partition = topic.partitions.get(partition);
        // Of a topic that waits, the batch that is there tells when it goes on.
        idle && !topic.told
            && partition.is_some_and(|known| known.leader.is_some() && known.batch.is_none())
    }

    fn submit(&mut self, topic: TopicId, partition: usize, batch: &mut MessageBuilder, receipt: R) {
        assert!(!batch.is_empty(), "an empty batch is not sent");
        let messages = batch.finish(std::mem::take(&mut self.spare));
        if messages.lost_headers {
            let name = self.topics[topic.0].name.clone();
            self.notices.push_back(Notice::HeadersLeftAway(name));
        }
        let place = (topic, partition);
        let known = self.partition(place);
        assert!(known.batch.is_none(), "the partition is ready");
        known.batch = Some(Batch { messages, receipt });
        self.unsent.push_back(place);
    }

    fn next_outcome(&mut self) -> Option<Outcome<R>> {
        self.outcomes.pop_front()
    }

    fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    fn is_busy(&self) -> bool {
        let mut partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        !self.outcomes.is_empty() || partitions.any(|partition| partition.batch.is_some())
    }
}

/// Its connection ends with it, and does not count any more.
impl<R> Drop for Legacy<R> {
    fn drop(&mut self) {
        let stood = self.link.as_ref().is_some_and(|link| link.proven);
        self.stats.disconnected(stood, true);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::codec::Compression;
    use super::super::headers::EncodedHeaders;
    use super::*;

    /// A client whose worker is this test.
    struct Played {
        client: Legacy<u32>,
        commands: Receiver<(Command, Instant)>,
        worker: u64,
        now: Instant,
    }

    impl Played {
        /// Topics of one partition each, led by a broker.
        fn with(topics: &[&str]) -> Played {
            let broker = Address::new("broker", 9092);
            let options = Options::new(vec![broker]);
            let now = Instant::now();
            let mut client = Legacy::new(options, Arc::default());
            for topic in topics {
                client.topic(topic, now);
            }
            let mut played = Played {
                client,
                commands: bounded(1).1,
                worker: 0,
                now,
            };
            played.connects();
            played
        }

        /// There is a new worker, which tells the leaders.
        fn connects(&mut self) {
            let (commands, queue) = bounded(1);
            self.commands = queue;
            self.worker += 1;
            self.client.link = Some(Link {
                worker: self.worker,
                commands,
                serves: false,
                proven: false,
                pending: None,
            });
            self.client.metadata.due = Some(self.now);
            self.client.poll(self.now);
            let broker = Address::new("broker", 9092);
            let leaders = |topic: &Topic<u32>| Known {
                name: topic.name.clone(),
                code: ErrorCode::NONE,
                leaders: vec![Some(broker.clone())],
            };
            let found = self.client.topics.iter().map(leaders).collect();
            self.command();
            self.says(Said::Leaders(broker.clone(), found));
        }

        fn command(&self) -> Command {
            self.commands.try_recv().expect("something is asked").0
        }

        /// The topic that is written to.
        fn written(&mut self) -> String {
            self.client.poll(self.now);
            match self.command() {
                Command::Write { topic, .. } => topic,
                other => panic!("not {other:?}"),
            }
        }

        fn says(&mut self, said: Said) {
            let worker = self.worker;
            self.client.handle(Event { worker, said }, self.now);
        }

        fn answers(&mut self, code: i16) {
            let broker = Address::new("broker", 9092);
            self.says(Said::Written(broker, ErrorCode(code)));
        }

        fn submit(&mut self, topic: &str, receipt: u32) {
            let id = self.client.topic(topic, self.now);
            assert!(self.client.ready(id, 0, self.now), "{topic} takes a batch");
            let mut batch = MessageBuilder::new(1_000, Compression::None);
            for _ in 0..receipt {
                batch.push(0, None, b"line", EncodedHeaders::NONE);
            }
            self.client.submit(id, 0, &mut batch, receipt);
        }

        /// Is nothing, or whose outcome it is.
        fn outcome(&mut self) -> Option<(&'static str, u32)> {
            Some(match self.client.next_outcome()? {
                Outcome::Acked { receipt, .. } => ("acked", receipt),
                Outcome::Refused { receipt, .. } => ("refused", receipt),
                Outcome::Returned { receipts, .. } => ("returned", receipts[0]),
            })
        }
    }

    #[test]
    fn a_batch_that_failed_is_sent_again_before_what_follows_and_others_go_on() {
        let mut played = Played::with(&["a", "b"]);
        played.submit("a", 1);
        assert_eq!(played.written(), "a");
        played.answers(7); // REQUEST_TIMED_OUT
        let a = played.client.topic("a", played.now);
        assert!(!played.client.ready(a, 0, played.now), "it would overtake");
        played.submit("b", 2);
        assert_eq!(played.written(), "b");
        played.answers(0);
        assert_eq!(played.outcome(), Some(("acked", 2)));

        played.client.metadata.due = None; // it is asked for too, which is not the point
        played.now += Duration::from_millis(200);
        assert_eq!(played.written(), "a");
        assert_eq!(played.outcome(), None);
        played.answers(0);
        assert_eq!(played.outcome(), Some(("acked", 1)));
        assert!(!played.client.is_busy());
    }

    #[test]
    fn a_batch_whose_worker_is_silent_or_gone_is_kept_and_sent_again_first() {
        let mut played = Played::with(&["a"]);
        played.submit("a", 1);
        assert_eq!(played.written(), "a");
        played.now += played.client.options.request_timeout;
        played.client.poll(played.now);
        assert!(played.client.link.is_none(), "it was let go");
        let told = played.client.next_notice();
        let silent = "request of the legacy client at broker:9092: no answer within 30s";
        assert!(
            matches!(&told, Some(Notice::Unreachable(error)) if error.to_string() == silent),
            "{told:?}"
        );
        played.answers(0); // too late: nobody knows any more what it is the answer to
        assert_eq!(played.outcome(), None);
        assert!(played.client.is_busy());
        assert_eq!(played.client.unsent, [(TopicId(0), 0)]);
    }

    #[test]
    fn a_broker_that_tells_leaders_and_hangs_up_on_batches_is_told_once() {
        let mut played = Played::with(&["a"]);
        assert!(played.client.stats.is_up());
        played.submit("a", 1);
        for _ in 0..2 {
            assert_eq!(played.written(), "a");
            played.says(failed(Cause::HungUp));
            let told = played.client.next_notice();
            assert!(matches!(told, Some(Notice::Unreachable(_))), "{told:?}");
            played.now += played.client.options.backoff.1 * 2;
            played.connects();
            assert!(played.client.next_notice().is_none(), "no Reached");
            assert!(!played.client.stats.is_up());
        }
        assert_eq!(played.client.failures, 2, "it waits longer and longer");
        assert_eq!(played.written(), "a");
        played.answers(0);
        assert!(matches!(
            played.client.next_notice(),
            Some(Notice::Reached(_))
        ));
        assert!(played.client.stats.is_up());
    }

    fn failed(cause: Cause) -> Said {
        Said::Down(ConnectionError {
            address: Address::new("broker", 9092),
            stage: Stage::Legacy,
            cause,
        })
    }

    #[test]
    fn what_is_too_large_comes_back_and_a_single_record_is_refused() {
        let mut played = Played::with(&["a"]);
        for (records, expected) in [(3, "returned"), (1, "refused")] {
            played.submit("a", records);
            assert_eq!(played.written(), "a");
            played.answers(10); // MESSAGE_TOO_LARGE
            assert_eq!(played.outcome(), Some((expected, records)));
        }
    }

    #[test]
    fn a_topic_that_waits_is_told_once_and_takes_one_batch_until_it_goes_on() {
        let mut played = Played::with(&["a"]);
        played.submit("a", 1);
        for _ in 0..2 {
            assert_eq!(played.written(), "a");
            played.answers(29); // TOPIC_AUTHORIZATION_FAILED
            played.client.metadata.due = None;
            played.now += played.client.options.waiting_pause;
        }
        let told: Vec<Notice> = std::iter::from_fn(|| played.client.next_notice()).collect();
        assert!(
            matches!(&told[..], [Notice::TopicWaits(topic, ErrorCode(29))] if topic == "a"),
            "{told:?}"
        );
        assert_eq!(played.written(), "a");
        played.answers(0);
        assert!(matches!(
            played.client.next_notice(),
            Some(Notice::TopicReady(_))
        ));
    }

    /// The batch that was to tell when the topic goes on came back: it never went on.
    #[test]
    fn a_topic_that_waits_goes_on_when_its_batch_is_refused_for_ever() {
        let mut played = Played::with(&["a"]);
        played.submit("a", 2);
        played.written();
        played.answers(29); // TOPIC_AUTHORIZATION_FAILED
        played.client.metadata.due = None;
        played.now += played.client.options.waiting_pause;
        played.written();
        played.answers(10); // MESSAGE_TOO_LARGE
        assert_eq!(played.outcome(), Some(("returned", 2)));
        let topic = played.client.topic("a", played.now);
        assert!(played.client.ready(topic, 0, played.now));
    }

    #[test]
    fn a_topic_without_partitions_is_told_when_it_stays_so() {
        let mut played = Played::with(&["a"]);
        let unknown = || {
            let known = Known {
                name: "a".to_owned(),
                code: ErrorCode(17), // INVALID_TOPIC_EXCEPTION
                leaders: vec![],
            };
            Said::Leaders(Address::new("broker", 9092), vec![known])
        };
        played.says(unknown());
        assert!(played.client.next_notice().is_none(), "it may be just made");
        played.now += played.client.options.creation_grace;
        played.says(unknown());
        assert!(matches!(
            played.client.next_notice(),
            Some(Notice::TopicWaits(_, ErrorCode(17)))
        ));
        assert!(played.client.next_notice().is_none());
    }
}
