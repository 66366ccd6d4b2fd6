//! A fake Kafka cluster at the wire: real ports, real protocol, threads.
//!
//! It is the oracle for "every line exactly once and in order", so it takes
//! nothing on trust: whatever no correct producer would send is a violation,
//! and a [`Broker`] that saw one panics when it is dropped. It appends and
//! refuses like a real leader does, sequence numbers included. It does not
//! serve consumers, replicate, forget, or speak TLS and SASL.
//!
//! ```ignore
//! let broker = Broker::builder().nodes(3).partitions(4).start();
//! broker.fault(Fault::of(Misdeed::CutAfter).on(ApiKey::Produce).times(2));
//! let shipper = world.start(["--brokers", &broker.addresses(), "--topic", "t"]);
//! let records = broker.wait_for("t", 1_000, Duration::from_secs(10));
//! check_sequence(&lines, &records).assert_exact();
//! ```

mod cluster;
mod wire;

mod batch;
mod capture;
mod fault;
mod oracle;
mod tests;

use std::fmt::Write as _;
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use kafka_protocol::messages::ApiKey;

pub use batch::Record;
pub use capture::as_kcat;
pub use fault::{Fault, Misdeed};
pub use oracle::check_sequence;

use cluster::{Cluster, State};

/// A running cluster; dropping it ends its threads and judges the clients.
pub struct Broker {
    cluster: Arc<Cluster>,
    listeners: Vec<Arc<TcpListener>>,
    threads: Vec<JoinHandle<()>>,
}

/// Declares [`Builder`] with one setter and one default per field.
macro_rules! builder {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $default:expr;)*) => {
        /// How a cluster is made.
        #[derive(Debug, Clone)]
        pub struct Builder { $($field: $type,)* }

        impl Builder {
            $($(#[$doc])* pub fn $field(self, $field: $type) -> Builder {
                Builder { $field, ..self }
            })*
        }

        impl Default for Builder {
            fn default() -> Builder {
                Builder { $($field: $default,)* }
            }
        }
    };
}

builder! {
    /// Nodes with ids from 1 on, each with its own port.
    nodes: usize = 1;
    /// Partitions of a topic that is created by asking for it.
    partitions: usize = 1;
    /// Whether asking for a topic creates it.
    auto_create: bool = true;
    /// How long creation takes; it is never ready at the first answer.
    creation: Duration = Duration::from_millis(20);
    /// The error code meanwhile: LEADER_NOT_AVAILABLE, or 3 as with KRaft.
    creation_error: i16 = 5;
    /// `max.message.bytes`, of a whole batch.
    max_message_bytes: usize = 1_048_588;
    /// The newest Produce version, from 3 to 9.
    produce_version_max: i16 = 9;
    /// The newest ApiVersions version, from 0 to 4.
    api_versions_max: i16 = 4;
    /// Whether it hangs up on a newer one, instead of naming what it knows (KIP-511).
    api_versions_hang_up: bool = false;
    /// Whether a batch without producer id is a violation.
    idempotence_required: bool = true;
}

impl Builder {
    pub fn start(self) -> Broker {
        let bind = |_| wire::bind().expect("127.0.0.1 has ports left");
        let (listeners, ports): (Vec<_>, _) = (0..self.nodes).map(bind).unzip();
        let cluster = Arc::new(Cluster::new(self, ports));
        let run = |(listener, node): (&Arc<TcpListener>, i32)| {
            let (listener, cluster) = (Arc::clone(listener), Arc::clone(&cluster));
            thread::Builder::new()
                .name(format!("node:{node}"))
                .spawn(move || wire::run_node(cluster, node, &listener))
                .expect("the operating system has threads left")
        };
        let threads = listeners.iter().zip(1..).map(run).collect();
        Broker {
            cluster,
            listeners,
            threads,
        }
    }
}

impl Broker {
    /// One node, topics of one partition made by asking for them.
    pub fn start() -> Broker {
        Broker::builder().start()
    }

    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `HOST:PORT` of every node, with commas between.
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.nodes().map(|node| self.address(node)).collect();
        addresses.join(",")
    }

    fn nodes(&self) -> impl Iterator<Item = i32> {
        1..=self.listeners.len() as i32
    }

    pub fn address(&self, node: i32) -> String {
        format!("127.0.0.1:{}", self.cluster.ports[node as usize - 1])
    }

    /// Makes a topic, or makes it anew and empty; its leaders go round the nodes.
    pub fn create_topic(&self, name: &str, partitions: usize) {
        let mut state = self.cluster.lock();
        self.cluster
            .create_topic(&mut state, name, partitions, Instant::now());
    }

    /// Gives a partition to another node; to none if that is -1.
    #[track_caller]
    pub fn move_leader(&self, topic: &str, partition: i32, node: i32) {
        let mut state = self.cluster.lock();
        let partitions = state.topics.get_mut(topic).map(|t| &mut t.partitions);
        let Some(found) = partitions.and_then(|all| all.get_mut(partition as usize)) else {
            panic!("there is no {topic}:{partition}");
        };
        found.leader = node;
    }

    /// All records of a topic, by partition and offset.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        self.cluster.lock().records(topic).cloned().collect()
    }

    /// Takes out what is there of a topic, in the order of arrival: a long test
    /// need not keep it all. Offsets go on as if nothing were missing.
    pub fn take_records(&self, topic: &str) -> Vec<Record> {
        let mut state = self.cluster.lock();
        let topic = state.topics.get_mut(topic);
        let mut taken = Vec::new();
        for partition in topic.into_iter().flat_map(|topic| &mut topic.partitions) {
            partition.taken += partition.records.len();
            taken.append(&mut partition.records);
        }
        taken.sort_by_key(|record| record.arrived);
        taken
    }

    /// The newest producer id: whoever asks from now on gets a higher one.
    pub fn producer_id(&self) -> i64 {
        self.cluster.lock().producer_id()
    }

    /// All records of a partition.
    pub fn partition(&self, topic: &str, partition: i32) -> Vec<Record> {
        let mut records = self.records(topic);
        records.retain(|record| record.partition == partition);
        records
    }

    /// Waits until a topic has at least so many records, and gives them back.
    /// A violation ends the wait.
    #[track_caller]
    pub fn wait_for(&self, topic: &str, records: usize, deadline: Duration) -> Vec<Record> {
        let what = format!("{records} records in topic '{topic}'");
        let enough = |state: &State| state.records(topic).count() >= records;
        self.wait(&what, deadline, enough);
        self.records(topic)
    }

    /// Waits until at least so many requests of a kind have come.
    #[track_caller]
    pub fn wait_for_requests(&self, api: ApiKey, requests: usize, deadline: Duration) {
        let what = format!("{requests} {api:?} requests");
        let enough = |state: &State| state.requests.get(&api).is_some_and(|&n| n >= requests);
        self.wait(&what, deadline, enough);
    }

    #[track_caller]
    fn wait(&self, what: &str, deadline: Duration, done: impl Fn(&State) -> bool) {
        let until = Instant::now() + deadline;
        let over = |state: &State| done(state) || !state.violations.is_empty();
        if !done(&self.cluster.wait(until, over)) {
            panic!(
                "waited {deadline:?} at most for {what}, but\n{}",
                self.summary()
            );
        }
    }

    /// Requests of a kind that have come so far, processed or not.
    pub fn requests(&self, api: ApiKey) -> usize {
        self.cluster.lock().requests.get(&api).copied().unwrap_or(0)
    }

    /// Adds a fault; of several, the first that befalls a request counts.
    pub fn fault(&self, fault: Fault) {
        self.cluster.lock().faults.push(fault);
    }

    pub fn clear_faults(&self) {
        self.cluster.lock().faults.clear();
    }

    /// Requests that a fault befell, so that a test can tell it had one.
    pub fn faults_fired(&self) -> usize {
        self.cluster.lock().faults_fired
    }

    /// Reads so many bytes per second on each connection; `None` is full speed.
    /// The kernel's socket buffers take some megabytes all the same.
    pub fn read_slowly(&self, bytes_per_second: Option<usize>) {
        self.cluster.lock().read_bytes_per_second = bytes_per_second;
    }

    /// All ports away: connections are cut, new ones refused.
    pub fn pause(&self) {
        self.nodes().for_each(|node| self.pause_node(node));
    }

    /// All ports back, with everything that was known.
    pub fn resume(&self) {
        self.nodes().for_each(|node| self.resume_node(node));
    }

    pub fn pause_node(&self, node: i32) {
        let mut state = self.cluster.lock();
        if !state.away.contains(&node) {
            state.away.push(node);
            // Only once: shut down again, the port would cut what it accepts later.
            wire::go_away(&self.listeners[node as usize - 1]);
        }
        state.links.retain(|_, (of, stream)| {
            let cut = *of == node;
            if cut {
                let _ = stream.shutdown(Shutdown::Both);
            }
            !cut
        });
        drop(state);
        self.cluster.notify();
    }

    pub fn resume_node(&self, node: i32) {
        let mut state = self.cluster.lock();
        if state.away.contains(&node) {
            wire::come_back(&self.listeners[node as usize - 1]);
            state.away.retain(|&away| away != node);
        }
        drop(state);
        self.cluster.notify();
    }

    /// What no correct producer would have done.
    pub fn violations(&self) -> Vec<String> {
        self.cluster.lock().violations.clone()
    }

    /// The violations, which are then forgotten: for tests that provoke them.
    pub fn forgive(&self) -> Vec<String> {
        std::mem::take(&mut self.cluster.lock().violations)
    }

    /// What the broker saw, for a person whose test failed.
    pub fn summary(&self) -> String {
        let state = self.cluster.lock();
        let mut text = String::new();
        for (name, topic) in &state.topics {
            let counts: Vec<_> = topic.partitions.iter().map(|p| p.records.len()).collect();
            let sum: usize = counts.iter().sum();
            let _ = writeln!(
                text,
                "  topic '{name}': {sum} records, by partition {counts:?}"
            );
        }
        let _ = writeln!(text, "  requests: {:?}", state.requests);
        let _ = writeln!(text, "  nodes away: {:?}", state.away);
        let (fired, faults) = (state.faults_fired, &state.faults);
        let _ = writeln!(text, "  faults: {fired} fired, set {faults:?}");
        let _ = write!(text, "  violations: {:#?}", state.violations);
        text
    }
}

impl State {
    fn records(&self, topic: &str) -> impl Iterator<Item = &Record> {
        let partitions = self.topics.get(topic).map(|topic| &topic.partitions);
        let partitions = partitions.into_iter().flatten();
        partitions.flat_map(|partition| &partition.records)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let away = self.cluster.lock().away.clone();
        self.cluster.lock().stopping = true;
        self.pause();
        let threads = self.threads.drain(..);
        let broken = threads.map(JoinHandle::join).any(|end| end.is_err());
        self.cluster.lock().away = away;
        if thread::panicking() {
            eprintln!("the broker saw:\n{}", self.summary());
            return;
        }
        assert!(!broken, "a thread of the fake broker panicked");
        let clean = self.violations().is_empty();
        assert!(clean, "no correct producer does this:\n{}", self.summary());
    }
}
