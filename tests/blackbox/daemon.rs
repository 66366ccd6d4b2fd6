//! What tests of `logship run` have in common: configs, and asking the running
//! daemon on its socket.
//!
//! A config is a JSON value that a test changes and writes down again, in the
//! ways that people and programs replace a file.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logship::admin::{FileReport, Report};
use serde_json::{Value, json};

use crate::broker::{Broker, Record};
use crate::world::{DEADLINE, Logship, Shipper, World};

/// How soon a change of the config must hold.
pub const IN_EFFECT: Duration = Duration::from_secs(1);
/// What a loaded machine may add to it in a test.
pub const GRACE: Duration = Duration::from_secs(2);

/// A config with state, and intervals that suit a test's patience.
pub fn config(sources: Value) -> Value {
    json!({
        "state_dir": "state",
        "sources": sources,
        "discover_interval": "100ms",
        "poll_interval_max": "100ms",
    })
}

/// The same, to a broker.
pub fn to_broker(broker: &Broker, sources: Value) -> Value {
    let mut config = config(sources);
    config["kafka"] = json!({ "brokers": [broker.addresses()], "linger": "5ms" });
    config
}

/// A source of a path relative to the world, for a topic.
pub fn source(path: &str, topic: &str) -> Value {
    json!({ "path": path, "topic": topic })
}

/// How a config file is replaced.
#[derive(Debug, Clone, Copy)]
pub enum Replace {
    /// Written in place, in one go.
    InPlace,
    /// Emptied first, written later, as some editors do.
    TruncateFirst,
    /// A new file is moved over it.
    Rename,
    /// The old file is moved away, then a new one is written.
    LikeVim,
}

impl Replace {
    pub const ALL: [Replace; 4] = [
        Replace::InPlace,
        Replace::TruncateFirst,
        Replace::Rename,
        Replace::LikeVim,
    ];
}

impl World {
    /// Where the config is.
    pub fn config(&self) -> PathBuf {
        self.path("logship.json")
    }

    /// Writes the config in place.
    pub fn configure(&self, config: &Value) {
        self.replace_config(&text(config), Replace::InPlace);
    }

    /// Replaces the config.
    pub fn replace_config(&self, text: &str, how: Replace) {
        let path = self.config();
        match how {
            Replace::InPlace => fs::write(path, text).unwrap(),
            Replace::TruncateFirst => {
                fs::write(&path, "").unwrap();
                std::thread::sleep(Duration::from_millis(20));
                fs::write(&path, text).unwrap();
            }
            Replace::Rename => {
                let fresh = self.path("logship.json.new");
                fs::write(&fresh, text).unwrap();
                fs::rename(fresh, path).unwrap();
            }
            Replace::LikeVim => {
                fs::rename(&path, self.path("logship.json~")).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                fs::write(path, text).unwrap();
            }
        }
    }

    /// `logship run` with this config.
    pub fn run(&self, config: &Value) -> Logship {
        self.configure(config);
        self.logship(["run", "--config"]).arg(self.config())
    }

    /// What the daemon answers on its socket: code and body.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        let socket = self.state_dir().join(logship::admin::SOCKET);
        let deadline = Instant::now() + DEADLINE;
        loop {
            match ask(&socket, path) {
                Ok(answer) => return answer,
                Err(error) if Instant::now() > deadline => {
                    panic!("nobody answers on {}: {error}", socket.display())
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// `/status`.
    #[track_caller]
    pub fn status(&self) -> Report {
        serde_json::from_str(&self.get("/status").1).unwrap()
    }

    /// What `/status` says of a path, and of a topic if it names several.
    #[track_caller]
    pub fn file(&self, path: &str, topic: &str) -> Option<FileReport> {
        let path = self.path(path).display().to_string();
        let fits = |file: &FileReport| file.path == path && file.topic == topic;
        let mut files = self.status().files;
        files.retain(|file| fits(file) && file.state != "rotated");
        files.pop()
    }

    /// A figure of `/metrics` by its name with labels.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let found = lines.find(|(key, _)| *key == name);
        let Some((_, value)) = found else {
            panic!("no sample {name} in\n{text}");
        };
        value.parse().unwrap()
    }

    /// Waits until the status is as wanted, and returns it.
    #[track_caller]
    pub fn status_until(&self, what: &str, fits: impl Fn(&Report) -> bool) -> Report {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let report = self.status();
            if fits(&report) {
                return report;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}: {report:#?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until this many reloads have this result.
    #[track_caller]
    pub fn reloads(&self, result: &str, count: u64) {
        self.status_until(&format!("{count} reloads {result}"), |report| {
            report.config.reloads[result] >= count
        });
    }

    /// Waits until logship knows that this many lines of a topic have arrived: what
    /// has arrived and is not acknowledged may be sent again.
    #[track_caller]
    pub fn acked(&self, topic: &str, lines: u64) {
        self.status_until(&format!("{lines} acknowledged lines"), |report| {
            report
                .topics
                .get(topic)
                .is_some_and(|topic| topic.acked_lines >= lines)
        });
    }

    /// Waits until all files sleep.
    #[track_caller]
    pub fn all_asleep(&self, files: usize) {
        self.status_until(&format!("{files} sleeping files"), |report| {
            report.files.len() == files && report.files.iter().all(|file| file.state == "asleep")
        });
    }

    /// Waits until `/healthz` answers with this code, and returns its words.
    #[track_caller]
    pub fn health(&self, code: u16, within: Duration) -> String {
        let deadline = Instant::now() + within;
        loop {
            let answer = self.get("/healthz");
            if answer.0 == code {
                return answer.1;
            }
            assert!(Instant::now() < deadline, "/healthz still says {answer:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Shipper {
    /// How many threads it has whose name begins so.
    pub fn threads(&self, prefix: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
        tasks
            .flatten()
            .filter_map(name)
            .filter(|name| name.starts_with(prefix))
            .count()
    }

    /// The numbers of its handles on files whose name ends so: a file that was
    /// opened again has another one, or none in between.
    pub fn descriptors(&self, suffix: &str) -> Vec<String> {
        let handles = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let fits = |handle: &fs::DirEntry| {
            let target = fs::read_link(handle.path());
            target.is_ok_and(|path| path.to_string_lossy().ends_with(suffix))
        };
        let number = |handle: fs::DirEntry| handle.file_name().to_string_lossy().into_owned();
        let mut numbers: Vec<String> = handles.flatten().filter(fits).map(number).collect();
        numbers.sort();
        numbers
    }
}

fn ask(socket: &Path, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.unwrap_or(0), body.to_owned()))
}

/// A config as people write it, over several lines.
pub fn text(config: &Value) -> String {
    serde_json::to_string_pretty(config).unwrap()
}

/// Waits for this many records of a topic.
#[track_caller]
pub fn records(broker: &Broker, topic: &str, count: usize) -> Vec<Record> {
    broker.wait_for(topic, count, DEADLINE)
}

/// The values of a topic's records, in their order.
pub fn values(broker: &Broker, topic: &str) -> Vec<String> {
    let text = |record: Record| String::from_utf8_lossy(&record.value).into_owned();
    broker.records(topic).into_iter().map(text).collect()
}
