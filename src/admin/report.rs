//! Everything there is to tell at one moment, as plain data.
//!
//! It is the document of `/status`, and metrics and health are made of it. How
//! the figures come about is not known here. Bytes are bytes of files, line
//! ends included; every map has as many entries as there are topics, reasons,
//! error codes or kinds of task. A field that is missing in a document has its
//! default, so that different versions understand each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The states that a file can be in, see [`FileReport::state`].
pub const FILE_STATES: [&str; 8] = [
    "reading", "idle", "full", "asleep", "waiting", "failed", "draining", "rotated",
];

/// Everything there is to tell at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Version of logship.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// This host's name.
    pub host: String,
    /// When it was started; RFC 3339, UTC.
    pub started_at: String,
    /// How long ago that was.
    pub uptime_seconds: f64,
    /// Whether somebody should look.
    pub health: Health,
    /// What it was told to do.
    pub config: ConfigReport,
    /// The cluster; none when records go to standard output.
    pub kafka: Option<KafkaReport>,
    /// What is read and not yet in a batch.
    pub queue: QueueReport,
    /// How long ago positions were last written down; none before the first
    /// time and without a state directory.
    pub checkpoint_age_seconds: Option<f64>,
    /// Log files that are open.
    pub open_files: u64,
    /// How many may be.
    pub open_files_max: u64,
    /// Bytes of the disk that deleted files take, because they are held open until
    /// everything in them is acknowledged.
    pub held_deleted_bytes: u64,
    /// The figures of each topic.
    pub topics: BTreeMap<String, TopicReport>,
    /// What is looked for.
    pub sources: Vec<SourceReport>,
    /// What was found.
    pub files: Vec<FileReport>,
    /// The kinds of task, like `tail` and `send`.
    pub tasks: BTreeMap<String, TaskReport>,
}

/// Whether somebody should look. By default nobody needs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Nothing is wrong that does not pass by itself.
    pub healthy: bool,
    /// What is wrong, a sentence each.
    pub reasons: Vec<String>,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            healthy: true,
            reasons: Vec::new(),
        }
    }
}

/// The config and how it came about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigReport {
    /// The config file, if there is one.
    pub file: Option<String>,
    /// How many configs were applied, the first one included.
    pub revision: u64,
    /// Hash of the one that is in force, but for the passwords in it.
    pub hash: String,
    /// Reloads by result: `applied`, `unchanged`, `refused`.
    pub reloads: BTreeMap<String, u64>,
    /// When the last one was tried; RFC 3339, UTC.
    pub last_reload_at: Option<String>,
    /// Why the last one was refused.
    pub last_problem: Option<String>,
    /// The keys in etcd that are watched.
    pub etcd: Vec<EtcdReport>,
}

/// A key in etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EtcdReport {
    /// The key, its placeholders filled in.
    pub key: String,
    /// Its `mod_revision` that was last read.
    pub revision: u64,
    /// What became of it, one word.
    pub state: String,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// The cluster, as this client sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KafkaReport {
    /// Where it was looked for, `HOST:PORT` each.
    pub brokers: Vec<String>,
    /// Some broker answers.
    pub up: bool,
    /// How long none has.
    pub unreachable_seconds: Option<f64>,
    /// Topics of which nothing was acknowledged although lines are to be sent, and for how
    /// many seconds.
    pub waiting_seconds: BTreeMap<String, f64>,
    /// Requests sent.
    pub requests: u64,
    /// Errors by name of the error code, or by stage of a connection.
    pub errors: BTreeMap<String, u64>,
    /// From a request to its answer.
    pub request_seconds: Histogram,
}

/// How often something was how large.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Histogram {
    /// Upper bounds of the buckets, inclusive, ascending.
    pub bounds: Vec<f64>,
    /// Observations of each bucket alone. What is above the last bound is in
    /// `count` only, or in one more bucket at the end.
    pub counts: Vec<u64>,
    /// All observations added up.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
}

/// What is read and not yet in a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueReport {
    /// Bytes in all queues.
    pub bytes: u64,
    /// What they may be at most.
    pub bytes_max: u64,
}

/// The figures of a topic. `known_bytes` is acknowledged + waiting + dropped +
/// dead letters + lost at every moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicReport {
    /// Lines offered to a producer at least once.
    pub read_lines: u64,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Lines acknowledged.
    pub acked_lines: u64,
    /// Bytes of them.
    pub acked_bytes: u64,
    /// Lines given up by choice, by reason.
    pub dropped_lines: BTreeMap<String, u64>,
    /// Bytes given up by choice, by reason: a run of NUL bytes has no lines.
    pub dropped_bytes: BTreeMap<String, u64>,
    /// Bytes that could not be read any more, by reason.
    pub lost_bytes: BTreeMap<String, u64>,
    /// Lines cut at the longest that is shipped.
    pub truncated_lines: u64,
    /// Lines in the dead-letter file, by reason.
    pub dead_letter_lines: BTreeMap<String, u64>,
    /// Bytes of lines that no broker takes, in the dead-letter file if there is one.
    pub dead_letter_bytes: u64,
    /// Bytes known to exist.
    pub known_bytes: u64,
    /// Bytes that wait: known and not settled.
    pub lag_bytes: u64,
}

/// What is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceReport {
    /// The pattern as it was written; absolute, or else seen from where logship
    /// was started.
    pub path: String,
    /// What is left out: without a slash by base name, with one by whole path.
    pub exclude: Vec<String>,
    /// Where the lines go.
    pub topic: String,
    /// Where it was configured: a file or an etcd key.
    pub origin: String,
    /// How many files it has found.
    pub files: usize,
}

/// A file that is tailed. Its `known_bytes` are acknowledged + waiting + dropped +
/// dead letters; with a loss a life is over, and what was lost is told by topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileReport {
    /// Its path, as [`to_text`](crate::text::to_text) writes one.
    pub path: String,
    /// Where its lines go.
    pub topic: String,
    /// One of [`FILE_STATES`].
    pub state: String,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Which life of the inode: one more with every truncation.
    pub generation: u64,
    /// Everything before it is acknowledged, dropped or lost.
    pub position: u64,
    /// The last size seen.
    pub size: u64,
    /// Bytes known to exist: from where reading began to the last size seen.
    pub known_bytes: u64,
    /// Bytes acknowledged in this process's life.
    pub acked_bytes: u64,
    /// What waits in it.
    pub lag_bytes: u64,
    /// Bytes given up by choice.
    pub dropped_bytes: u64,
    /// Bytes of lines that no broker takes.
    pub dead_letter_bytes: u64,
    /// Lines read in this process's life.
    pub read_lines: u64,
    /// Lines acknowledged in this process's life.
    pub acked_lines: u64,
    /// What went wrong last, while it matters.
    pub last_error: Option<String>,
    /// The thread that reads it, if one does.
    pub thread: Option<String>,
}

/// The tasks of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskReport {
    /// How often one was started again after it had failed.
    pub restarts: u64,
    /// One keeps failing.
    pub failing: bool,
    /// What went wrong last.
    pub last_error: Option<String>,
}
