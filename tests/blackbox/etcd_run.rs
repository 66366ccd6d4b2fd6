//! `logship run` with its sources in a real etcd: what is put, changed, deleted,
//! refused or out of reach, and what that does to the lines.
//!
//! The fake Kafka counts: every line once and in order, or the test fails.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{Broker, check_sequence};
use crate::etcd::{Etcd, Manner, Proxy, free_port};
use crate::world::{DEADLINE, Log, Shipper, World, numbered};

const KEY: &str = "/logship/sources";

/// A value with an entry for each path and topic.
fn value<P: AsRef<Path>, T: AsRef<str>>(entries: &[(P, T)]) -> String {
    let entry = |(path, topic): &(P, T)| {
        let (path, topic) = (path.as_ref().display(), topic.as_ref());
        format!(r#"{{"path":"{path}","topic":"{topic}"}}"#)
    };
    let entries: Vec<String> = entries.iter().map(entry).collect();
    format!("[{}]", entries.join(",\n "))
}

/// A host: a world with a config, and the Kafka it ships to.
struct Host {
    world: World,
    broker: Broker,
    endpoints: Vec<String>,
    keys: Vec<String>,
    /// More members of the section etcd, and of the config, as JSON.
    etcd: String,
    more: String,
}

impl Host {
    fn new(etcd: &Etcd) -> Host {
        Host::at(etcd.endpoints())
    }

    fn at(endpoints: Vec<String>) -> Host {
        Host {
            world: World::new(),
            broker: Broker::start(),
            endpoints,
            keys: vec![KEY.to_owned()],
            etcd: String::new(),
            more: String::new(),
        }
    }

    fn configure(&self) {
        let more = |text: &str| {
            if text.is_empty() {
                String::new()
            } else {
                format!(",\n {text}")
            }
        };
        let text = format!(
            "{{\"state_dir\": \"state\",\n \"kafka\": {{\"brokers\": [\"{}\"], \"linger\": \"5ms\"}},\n \
             \"etcd\": {{\"endpoints\": {:?}, \"keys\": {:?}{}}}{}}}\n",
            self.broker.addresses(),
            self.endpoints,
            self.keys,
            more(&self.etcd),
            more(&self.more),
        );
        let file = self.world.path("logship.json");
        fs::write(file.with_extension("new"), text).unwrap();
        fs::rename(file.with_extension("new"), file).unwrap();
    }

    /// Writes the config and runs it.
    fn run(&self) -> Daemon {
        self.configure();
        let shipper = self
            .world
            .logship(["run", "--config", "logship.json"])
            .start();
        let socket = self.world.path("state/admin.sock");
        Daemon { shipper, socket }
    }

    fn log(&self, name: &str) -> Log {
        self.world.log(name)
    }

    /// These lines are in the topic, all of them, once and in order, and no others.
    #[track_caller]
    fn has<L: AsRef<[u8]>>(&self, topic: &str, lines: impl IntoIterator<Item = L>) {
        let lines: Vec<L> = lines.into_iter().collect();
        let records = self.broker.wait_for(topic, lines.len(), DEADLINE);
        check_sequence(lines, &records).assert_exact();
    }

    /// The numbers of the lines in a topic, in the order in which they came.
    fn numbers(&self, topic: &str) -> Vec<usize> {
        let records = self.broker.records(topic);
        records
            .iter()
            .map(|record| number_in(&record.value))
            .collect()
    }
}

fn number_in(line: &[u8]) -> usize {
    std::str::from_utf8(&line[4..13]).unwrap().parse().unwrap()
}

/// A running logship and its socket.
struct Daemon {
    shipper: Shipper,
    socket: PathBuf,
}

impl Daemon {
    /// Status and body of what it serves; none while it is not up.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    fn document(&self) -> serde_json::Value {
        let body = self
            .get("/status")
            .map(|(_, body)| body)
            .unwrap_or_default();
        serde_json::from_str(&body).unwrap_or_default()
    }

    /// What `/status` says of a key.
    fn key(&self, key: &str) -> serde_json::Value {
        let document = self.document();
        let keys = document["config"]["etcd"].as_array().cloned();
        let mut keys = keys.unwrap_or_default().into_iter();
        keys.find(|one| one["key"] == key).unwrap_or_default()
    }

    #[track_caller]
    fn waits_for<T>(&mut self, what: &str, mut look: impl FnMut(&Daemon) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            if self.shipper.has_ended() || Instant::now() > deadline {
                panic!(
                    "waited for {what} in vain\n--- health: {:?}\n--- status: {:#}\n--- standard error:\n{}",
                    self.get("/healthz"),
                    self.document(),
                    self.shipper.stderr()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn key_is(&mut self, key: &str, state: &str) {
        self.waits_for(&format!("{key} to be {state}"), |daemon| {
            (daemon.key(key)["state"] == state).then_some(())
        });
    }

    #[track_caller]
    fn follows(&mut self) {
        self.key_is(KEY, "followed");
    }

    /// `/healthz` says 503 with these words.
    #[track_caller]
    fn is_unwell(&mut self, words: &str) {
        self.waits_for(&format!("health to say {words:?}"), |daemon| {
            let (status, body) = daemon.get("/healthz")?;
            (status == 503 && body.contains(words)).then_some(())
        });
    }

    #[track_caller]
    fn is_well(&mut self) {
        self.waits_for("health", |daemon| {
            (daemon.get("/healthz")?.0 == 200).then_some(())
        });
    }

    /// A path is tailed to a topic, or not.
    fn tails(&self, path: &Path, topic: &str) -> bool {
        let document = self.document();
        let files = document["files"].as_array().cloned().unwrap_or_default();
        files.iter().any(|file| {
            let gone = ["waiting", "failed"].contains(&file["state"].as_str().unwrap_or_default());
            file["path"] == path.display().to_string() && file["topic"] == topic && !gone
        })
    }

    #[track_caller]
    fn tails_no_more(&mut self, path: &Path, topic: &str) {
        self.waits_for(&format!("{} to be let go", path.display()), |daemon| {
            (!daemon.document().is_null() && !daemon.tails(path, topic)).then_some(())
        });
    }

    /// A path has no thread any more.
    #[track_caller]
    fn sleeps(&mut self, path: &Path) {
        self.waits_for(&format!("{} to sleep", path.display()), |daemon| {
            let files = daemon.document()["files"].as_array().cloned()?;
            let asleep = |file: &serde_json::Value| {
                file["path"] == path.display().to_string() && file["state"] == "asleep"
            };
            files.iter().any(asleep).then_some(())
        });
    }

    /// How often it began to tail something.
    fn restarts(&self) -> String {
        let document = self.document();
        format!("{:?}", document["tasks"])
    }

    #[track_caller]
    fn says(&self, text: &str) -> String {
        self.shipper.says(text)
    }

    /// SIGTERM; nothing is left to be acknowledged.
    #[track_caller]
    fn stops(self) {
        self.shipper
            .stop()
            .exits(0)
            .never_said("panicked")
            .never_said("lost path");
    }
}

/// A log whose topic changes, and the topics that it had. When a change holds is
/// seen by the lines only, each of which belongs to one of the topics.
struct Moving {
    log: Log,
    written: usize,
    topics: Vec<String>,
}

impl Moving {
    fn new(log: Log) -> Moving {
        let topics = Vec::new();
        Moving {
            log,
            written: 0,
            topics,
        }
    }

    fn path(&self) -> &Path {
        self.log.path()
    }

    fn write(&mut self, lines: usize) {
        self.log.write(numbered(self.written..self.written + lines));
        self.written += lines;
    }

    /// From some line on they arrive in this topic; all are in one of the topics,
    /// once and in order.
    #[track_caller]
    fn moves_to(&mut self, host: &Host, topic: &str) {
        self.topics.push(topic.to_owned());
        let deadline = Instant::now() + DEADLINE;
        while host.numbers(topic).is_empty() {
            assert!(
                Instant::now() < deadline,
                "no line in {topic}:\n{}",
                host.broker.summary()
            );
            self.write(1);
            thread::sleep(Duration::from_millis(20));
        }
        self.write(10);
        self.is_exact(host);
    }

    #[track_caller]
    fn is_exact(&self, host: &Host) {
        let deadline = Instant::now() + DEADLINE;
        let came = || -> Vec<usize> {
            let topics = self.topics.iter();
            topics.flat_map(|topic| host.numbers(topic)).collect()
        };
        while came().len() < self.written && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let expected: Vec<usize> = (0..self.written).collect();
        assert_eq!(came(), expected, "in {:?}", self.topics);
    }
}

/// Writes numbered lines until it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// So many lines at once, then a pause.
    fn start(mut log: Log, lines: usize, pause: Duration) -> Writer {
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let body = move || {
            while !stopped.load(Ordering::Relaxed) {
                let from = count.load(Ordering::Relaxed);
                log.write(numbered(from..from + lines));
                count.store(from + lines, Ordering::Relaxed);
                thread::sleep(pause);
            }
        };
        let thread = Some(thread::spawn(body));
        Writer {
            stop,
            written,
            thread,
        }
    }

    fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until it has written so many more.
    fn writes(&self, more: usize) {
        let until = self.written() + more;
        while self.written() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many lines it wrote.
    fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.written()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

// ---- values that come, change and go --------------------------------------------

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn what_is_put_is_shipped_within_a_second() {
    let etcd = Etcd::start();
    let host = Host::new(&etcd);
    let mut daemon = host.run();
    daemon.follows();
    let mut fastest = Duration::MAX; // This machine may be busy; not each time.
    for n in 0..3 {
        let (mut log, topic) = (host.log(&format!("{n}.log")), format!("t{n}"));
        log.write(numbered(0..10));
        let begun = Instant::now();
        etcd.put(KEY, value(&[(log.path(), &topic)]));
        host.has(&topic, numbered(0..10));
        fastest = fastest.min(begun.elapsed());
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    assert_eq!(daemon.key(KEY)["revision"], etcd.revision());
    daemon.is_well();
    daemon.stops();
}

/// What was read goes to the old topic, what follows to the new one: each line to
/// one of them, once.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_changed_topic_neither_loses_nor_repeats_a_line() {
    let etcd = Etcd::start();
    let host = Host::new(&etcd);
    let log = host.log("a.log");
    let path = log.path().to_owned();
    etcd.put(KEY, value(&[(&path, "t0")]));
    let daemon = host.run();
    let writer = Writer::start(log, 20, Duration::from_millis(2));
    host.broker.wait_for("t0", 1_000, DEADLINE);
    let topics: Vec<String> = (0..5).map(|n| format!("t{n}")).collect();
    for topic in &topics[1..] {
        etcd.put(KEY, value(&[(&path, topic)]));
        host.broker.wait_for(topic, 500, DEADLINE);
    }
    let written = writer.stop();
    let all = |host: &Host| {
        topics
            .iter()
            .map(|topic| host.numbers(topic))
            .collect::<Vec<_>>()
    };
    let deadline = Instant::now() + DEADLINE;
    while all(&host).concat().len() < written && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    // One topic after the other, each with what follows: the numbers are all, in order.
    let came = all(&host);
    assert_eq!(came.concat(), (0..written).collect::<Vec<_>>());
    assert!(came.iter().all(|numbers| !numbers.is_empty()));
    daemon.stops();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn an_entry_that_is_removed_stops_and_its_neighbour_goes_on() {
    let etcd = Etcd::start();
    let host = Host::new(&etcd);
    let (mut a, mut b) = (host.log("a.log"), host.log("b.log"));
    etcd.put(KEY, value(&[(a.path(), "a"), (b.path(), "b")]));
    let mut daemon = host.run();
    a.write(numbered(0..10));
    b.write(numbered(0..10));
    host.has("a", numbered(0..10));
    host.has("b", numbered(0..10));
    etcd.put(KEY, value(&[(a.path(), "a")]));
    daemon.tails_no_more(b.path(), "b");
    b.write(numbered(10..20));
    a.write(numbered(10..20));
    host.has("a", numbered(0..20));
    host.has("b", numbered(0..10));
    etcd.put(KEY, value(&[(a.path(), "a"), (b.path(), "b")]));
    host.has("b", numbered(0..20));
    daemon.stops();
}

/// While lines go on arriving they are shipped, for as long as drain_timeout;
/// then it is over, and the key brings the rest.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_deleted_key_is_drained_and_one_that_is_put_again_goes_on() {
    let etcd = Etcd::start();
    let host = Host {
        more: r#""drain_timeout": "1s""#.to_owned(),
        ..Host::new(&etcd)
    };
    let log = host.log("a.log");
    let path = log.path().to_owned();
    etcd.put(KEY, value(&[(&path, "a")]));
    let mut daemon = host.run();
    let writer = Writer::start(log, 1, Duration::from_millis(10));
    host.broker.wait_for("a", 20, DEADLINE);
    etcd.delete(KEY);
    let deleted_at = writer.written();
    daemon.tails_no_more(&path, "a");
    let stopped_at = writer.written();
    writer.writes(50);
    let shipped = host.numbers("a").len();
    assert!(
        deleted_at + 10 < shipped && shipped <= stopped_at + 1,
        "deleted at {deleted_at}, shipped {shipped}, let go by {stopped_at}"
    );
    etcd.put(KEY, value(&[(&path, "a")]));
    host.broker.wait_for("a", stopped_at + 50, DEADLINE);
    let written = writer.stop();
    host.has("a", numbered(0..written));
    daemon.stops();
}

/// What stands in a file when its key goes is shipped, also while Kafka is slow
/// to take it.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn what_a_deleted_key_leaves_unread_is_read_to_the_end() {
    let etcd = Etcd::start();
    let host = Host::new(&etcd);
    let mut log = host.log("a.log");
    etcd.put(KEY, value(&[(log.path(), "a")]));
    let mut daemon = host.run();
    log.write(numbered(0..10));
    host.has("a", numbered(0..10));
    log.write(numbered(10..50_000));
    etcd.delete(KEY);
    daemon.tails_no_more(log.path(), "a");
    host.has("a", numbered(0..50_000));
    daemon.stops();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_prefix_is_the_union_of_its_values_and_a_bad_one_is_refused_alone() {
    let etcd = Etcd::start();
    let host = Host {
        keys: vec!["/logship/".to_owned()],
        ..Host::new(&etcd)
    };
    let mut logs: Vec<Log> = (0..3).map(|n| host.log(&format!("{n}.log"))).collect();
    etcd.put("/logship/0", value(&[(logs[0].path(), "t0")]));
    etcd.put("/logship/1", value(&[(logs[1].path(), "t1")]));
    let mut daemon = host.run();
    for (n, log) in logs[..2].iter_mut().enumerate() {
        log.write(numbered(0..10));
        host.has(&format!("t{n}"), numbered(0..10));
    }
    // One goes bad, another one comes: the bad one's old value holds on.
    etcd.put("/logship/1", "[{\"path\": 1}]");
    daemon.is_unwell("/logship/1:1:");
    etcd.put("/logship/2", value(&[(logs[2].path(), "t2")]));
    for (n, log) in logs.iter_mut().enumerate() {
        log.write(numbered(10..20));
        let from = if n == 2 { 10 } else { 0 };
        host.has(&format!("t{n}"), numbered(from..20));
    }
    daemon.is_unwell("/logship/1:1:");
    // It is told once, not with each change of a neighbour.
    let told = daemon
        .shipper
        .stderr()
        .matches("a value in etcd is refused")
        .count();
    assert_eq!(told, 1, "{}", daemon.shipper.stderr());
    etcd.delete("/logship/0");
    daemon.tails_no_more(logs[0].path(), "t0");
    etcd.put("/logship/1", "[]");
    daemon.is_well();
    daemon.tails_no_more(logs[1].path(), "t1");
    daemon.stops();
}

/// A quiet file has no thread, and is looked at only now and then: what is written
/// to it in between belongs to the key that goes right after.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_sleeping_file_is_drained_too_and_follows_a_changed_topic() {
    let etcd = Etcd::start();
    let host = Host {
        more: r#""idle_after": "50ms""#.to_owned(),
        ..Host::new(&etcd)
    };
    let mut log = Moving::new(host.log("a.log"));
    let path = log.path().to_owned();
    etcd.put(KEY, value(&[(&path, "t0")]));
    let mut daemon = host.run();
    log.moves_to(&host, "t0");
    for round in 1..5 {
        daemon.sleeps(&path);
        let topic = format!("t{round}");
        etcd.put(KEY, value(&[(&path, &topic)]));
        log.moves_to(&host, &topic);
    }
    daemon.sleeps(&path);
    log.write(10);
    etcd.delete(KEY);
    log.is_exact(&host);
    daemon.tails_no_more(&path, "t4");
    daemon.stops();
}

// ---- values that are refused ------------------------------------------------------

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_bad_value_is_refused_with_its_place_and_the_old_one_holds() {
    let etcd = Etcd::start();
    let mut host = Host::new(&etcd);
    let dir = host.world.dir("log");
    host.etcd = format!(r#""allowed_paths": ["{}/**"]"#, dir.display());
    let mut log = host.log("log/a.log");
    let good = value(&[(log.path(), "a")]);
    etcd.put(KEY, &good);
    let mut daemon = host.run();
    daemon.follows();
    let mut lines = 0;
    for (bad, place, words) in [
        ("[\n{\"path\" \"/a\"}]".to_owned(), ":2:9: ", "':'"),
        (String::new(), ":1:1: ", "is empty"),
        ("{}".to_owned(), ":1:1: ", "must be the JSON array"),
        ("\u{0}\u{1b}".to_owned(), ":1:1: ", ""),
        (
            format!(
                "[{{\"path\": \"{0}/a.log\",\n \"topic\": \"a b\"}}]",
                dir.display()
            ),
            ":2:11: [0].topic: ",
            "'a b'",
        ),
        (
            "[{\"topic\": \"a\"}]".to_owned(),
            ":1:2: [0].path: ",
            "missing",
        ),
        (
            value(&[("/etc/passwd", "a")]),
            ":1:10: [0].path: ",
            "outside of etcd.allowed_paths",
        ),
        (
            format!(
                "[{}, {}]",
                &good[1..good.len() - 1],
                r#"{"path":"/etc/*","topic":"a"}"#
            ),
            "[1].path: ",
            "outside",
        ),
    ] {
        etcd.put(KEY, &bad);
        daemon.is_unwell(place);
        daemon.is_unwell(&format!("{KEY}:"));
        daemon.is_unwell(words);
        let line = daemon.shipper.says_line(place, |line| {
            line.contains(KEY) && line.contains(place) && line.contains(words)
        });
        assert!(!line.contains('\u{1b}'), "{line}");
        assert!(
            daemon.key(KEY)["problem"]
                .as_str()
                .unwrap_or_default()
                .contains(place),
            "{}",
            daemon.key(KEY)
        );
        log.write(numbered(lines..lines + 10));
        lines += 10;
        host.has("a", numbered(0..lines));
        etcd.put(KEY, &good);
        daemon.is_well();
        assert!(daemon.key(KEY)["problem"].is_null());
    }
    daemon.stops();
}

/// The config says what is allowed; a value is judged by what it says now, not by
/// what it said when the value came.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_refused_value_is_judged_again_when_the_file_changes() {
    let etcd = Etcd::start();
    let mut host = Host::new(&etcd);
    let (one, two) = (host.world.dir("one"), host.world.dir("two"));
    let only = |dir: &Path| format!(r#""allowed_paths": ["{}/**"]"#, dir.display());
    host.etcd = only(&one);
    let (mut a, mut b) = (host.log("one/a.log"), host.log("two/b.log"));
    etcd.put(KEY, value(&[(a.path(), "a")]));
    let mut daemon = host.run();
    a.write(numbered(0..10));
    host.has("a", numbered(0..10));
    etcd.put(KEY, value(&[(b.path(), "b")]));
    daemon.is_unwell("outside of etcd.allowed_paths");
    // A change that has nothing to do with it does not make it well.
    let before = daemon.document()["config"]["revision"].as_u64();
    host.more = r#""stats_interval": "9s""#.to_owned();
    host.configure();
    daemon.waits_for("the reload", |daemon| {
        (daemon.document()["config"]["revision"].as_u64() > before).then_some(())
    });
    daemon.is_unwell("outside of etcd.allowed_paths");

    host.etcd = only(&two);
    host.configure();
    b.write(numbered(0..10));
    host.has("b", numbered(0..10));
    daemon.is_well();
    daemon.tails_no_more(a.path(), "a");
    daemon.stops();
}

/// A link inside that leads out, and one that is turned round while it is read.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_link_that_leads_out_later_is_not_followed() {
    let etcd = Etcd::start();
    let mut host = Host::new(&etcd);
    let dir = host.world.dir("log");
    host.world.dir("private");
    host.etcd = format!(r#""allowed_paths": ["{}/**"]"#, dir.display());
    let mut secret = host.log("private/secret");
    secret.write(["password"]);
    let mut a = host.log("log/a.log");
    let pattern = dir.join("*.log");
    etcd.put(KEY, value(&[(&pattern, "t")]));
    let daemon = host.run();
    a.write(numbered(0..10));
    host.has("t", numbered(0..10));
    symlink(secret.path(), dir.join("evil.log")).unwrap();
    daemon.says("is outside of what may be read for");
    let mut turning = host.world.later("log/turning.log");
    turning.point_at(&a);
    turning.point_at(&secret);
    let mut late = host.log("log/late.log");
    late.write(numbered(10..20));
    a.write(numbered(20..30));
    let records = host.broker.wait_for("t", 30, DEADLINE);
    let came: BTreeSet<usize> = records
        .iter()
        .map(|record| number_in(&record.value))
        .collect();
    assert_eq!(came.len(), 30);
    let log = host.log("log/moved.log");
    fs::remove_file(dir.join("a.log")).unwrap();
    a.point_at(&secret); // in place of what is tailed
    secret.write(["another password"]);
    let mut moved = log;
    moved.write(numbered(30..40));
    let records = host.broker.wait_for("t", 40, DEADLINE);
    assert!(
        records
            .iter()
            .all(|record| record.value.starts_with(b"seq=")),
        "a secret was shipped"
    );
    daemon.stops();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_value_over_the_limit_changes_nothing_and_is_said() {
    let etcd = Etcd::start();
    let mut host = Host::new(&etcd);
    host.etcd = r#""value_bytes_max": "1KiB""#.to_owned();
    let mut log = Moving::new(host.log("a.log"));
    etcd.put(KEY, value(&[(log.path(), "a")]));
    let mut daemon = host.run();
    log.moves_to(&host, "a");
    let large = format!("[{}]", " ".repeat(2_000));
    etcd.put(KEY, large);
    daemon.is_unwell("2002 bytes, of which 1024 are allowed");
    daemon.follows();
    daemon.says("the one before it stays in force");
    log.write(10);
    log.is_exact(&host);
    etcd.put(KEY, value(&[(log.path(), "b")]));
    log.moves_to(&host, "b");
    daemon.is_well();
    daemon.stops();
}

/// Below a prefix a list was told as a whole or not at all, so that one value over
/// the limit kept back all changes of its good neighbours.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn below_a_prefix_a_value_over_the_limit_is_refused_alone() {
    let etcd = Etcd::start();
    let host = Host {
        keys: vec!["/logship/".to_owned()],
        etcd: r#""value_bytes_max": "1KiB""#.to_owned(),
        ..Host::new(&etcd)
    };
    let mut log = Moving::new(host.log("a.log"));
    let mut other = host.log("b.log");
    etcd.put("/logship/good", value(&[(log.path(), "a")]));
    etcd.put("/logship/large", value(&[(other.path(), "other")]));
    let mut daemon = host.run();
    log.moves_to(&host, "a");
    other.write(numbered(0..10));
    host.has("other", numbered(0..10));

    etcd.put("/logship/large", format!("[{}]", " ".repeat(2_000)));
    let words = "the value of /logship/large has 2002 bytes, of which 1024 are allowed";
    daemon.is_unwell(words);
    daemon.key_is("/logship/", "followed");
    assert_eq!(daemon.key("/logship/")["problem"], words);
    etcd.put("/logship/good", value(&[(log.path(), "b")]));
    log.moves_to(&host, "b");
    other.write(numbered(10..20));
    host.has("other", numbered(0..20));

    etcd.put("/logship/large", value(&[(other.path(), "other")]));
    daemon.is_well();
    daemon.stops();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_file_and_topic_named_in_the_file_and_in_etcd_is_one_job() {
    let etcd = Etcd::start();
    let mut host = Host::new(&etcd);
    let mut log = host.log("a.log");
    host.more = format!(r#""sources": {}"#, value(&[(log.path(), "a")]));
    let pattern = host.world.path("*.log");
    etcd.put(KEY, value(&[(log.path(), "a"), (&pattern, "a")]));
    let mut daemon = host.run();
    daemon.follows();
    log.write(numbered(0..10));
    host.has("a", numbered(0..10));
    daemon.says("is configured twice, the first one holds");
    // It is only the file's now, then only etcd's.
    etcd.delete(KEY);
    daemon.says("a new config is in force by=etcd revision=3");
    log.write(numbered(10..20));
    host.has("a", numbered(0..20));
    etcd.put(KEY, value(&[(log.path(), "a")]));
    host.more = String::new();
    host.configure();
    daemon.says("a new config is in force by=file");
    log.write(numbered(20..30));
    host.has("a", numbered(0..30));
    daemon.stops();
}

// ---- etcd in trouble --------------------------------------------------------------

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn lost_nodes_and_a_lost_quorum_stop_nothing_and_later_changes_are_applied() {
    let etcd = Etcd::cluster(3);
    let host = Host::new(&etcd);
    let log = host.log("a.log");
    let path = log.path().to_owned();
    etcd.put(KEY, value(&[(&path, "a")]));
    let mut daemon = host.run();
    let writer = Writer::start(log, 5, Duration::from_millis(5));
    host.broker.wait_for("a", 100, DEADLINE);
    etcd.kill_node(0); // the one it began with
    let mut other = Moving::new(host.log("b.log"));
    let other_path = other.path().to_owned();
    etcd.put(KEY, value(&[(&path, "a"), (&other_path, "b")]));
    other.moves_to(&host, "b");

    etcd.kill_node(1); // the quorum
    daemon.key_is(KEY, "trouble");
    let from = host.numbers("a").len();
    host.broker.wait_for("a", from + 200, DEADLINE);
    daemon.is_well();
    etcd.restart_node(1);
    daemon.follows();
    etcd.put(KEY, value(&[(&path, "a"), (&other_path, "c")]));
    other.moves_to(&host, "c");
    let written = writer.stop();
    host.has("a", numbered(0..written));
    daemon.stops();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_compaction_while_cut_off_hides_no_change() {
    let etcd = Etcd::start();
    let proxy = Proxy::to(etcd.port_of(0), Manner::Passes);
    let host = Host::at(vec![proxy.endpoint()]);
    let mut log = Moving::new(host.log("a.log"));
    etcd.put(KEY, value(&[(log.path(), "a")]));
    let mut daemon = host.run();
    log.moves_to(&host, "a");
    proxy.lead_to(free_port());
    daemon.key_is(KEY, "trouble");
    for n in 0..20 {
        etcd.put(KEY, value(&[(log.path(), &format!("never{n}"))]));
    }
    etcd.put(KEY, value(&[(log.path(), "b")]));
    etcd.compact();
    log.write(10);
    log.is_exact(&host);
    proxy.lead_to(etcd.port_of(0));
    log.moves_to(&host, "b");
    daemon.follows();
    etcd.put(KEY, value(&[(log.path(), "c")]));
    log.moves_to(&host, "c");
    daemon.stops();
}

/// Tokens die with the server; the password comes from a file.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_restarted_etcd_that_forgot_its_tokens_is_logged_in_to_again() {
    let etcd = Etcd::start();
    etcd.add_reader("reader", "secret", "/logship/");
    etcd.enable_auth();
    let mut host = Host::new(&etcd);
    fs::write(host.world.path("password"), "secret\n").unwrap();
    host.etcd = r#""username": "reader", "password_file": "password""#.to_owned();
    let mut log = Moving::new(host.log("a.log"));
    etcd.put(KEY, value(&[(log.path(), "a")]));
    let mut daemon = host.run();
    log.moves_to(&host, "a");
    etcd.kill();
    daemon.key_is(KEY, "trouble");
    etcd.restart();
    daemon.follows();
    etcd.put(KEY, value(&[(log.path(), "b")]));
    log.moves_to(&host, "b");
    let said = daemon.shipper.stderr();
    assert!(!said.contains("secret"), "{said}");
    daemon.stops();
}

/// A password that was changed is read anew with a reload, also where the config's
/// text is the same.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_changed_password_file_is_taken_up_with_a_reload() {
    let etcd = Etcd::start();
    etcd.add_reader("reader", "secret", "/logship/");
    etcd.enable_auth();
    let mut host = Host::new(&etcd);
    fs::write(host.world.path("password"), "old\n").unwrap();
    host.etcd = r#""username": "reader", "password_file": "password""#.to_owned();
    let mut log = host.log("a.log");
    log.write(numbered(0..10));
    etcd.put(KEY, value(&[(log.path(), "a")]));
    let mut daemon = host.run();
    daemon.key_is(KEY, "trouble");
    daemon.says("authenticate: ");
    fs::write(host.world.path("password"), "secret\n").unwrap();
    daemon.shipper.signal(rustix::process::Signal::HUP);
    host.has("a", numbered(0..10));
    daemon.follows();
    daemon.stops();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_start_without_etcd_uses_what_was_kept_and_says_so() {
    let etcd = Etcd::start();
    let host = Host::new(&etcd);
    let mut log = Moving::new(host.log("a.log"));
    etcd.put(KEY, value(&[(log.path(), "a")]));
    let daemon = host.run();
    log.moves_to(&host, "a");
    daemon.stops();
    etcd.kill();

    log.write(10);
    let mut daemon = host.run();
    daemon.says(&format!(
        "etcd does not answer: its last good value is used key={KEY} revision=2"
    ));
    log.is_exact(&host);
    daemon.key_is(KEY, "kept");
    daemon.is_well();
    let status = host
        .world
        .logship(["status", "--state-dir", "state"])
        .start()
        .ends()
        .exits(0);
    let shown = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        shown.contains(&format!("etcd key {KEY}: ")) && shown.contains("is etcd running there"),
        "{shown}"
    );

    etcd.restart();
    daemon.follows();
    etcd.put(KEY, value(&[(log.path(), "b")]));
    log.moves_to(&host, "b");
    daemon.stops();
}

/// It was written again only with etcd's next change: a start without etcd before that
/// shipped nothing of what etcd names.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn what_is_kept_is_kept_again_in_a_state_directory_that_was_made_again() {
    let etcd = Etcd::start();
    let host = Host::new(&etcd);
    let mut log = Moving::new(host.log("a.log"));
    etcd.put(KEY, value(&[(log.path(), "a")]));
    let mut daemon = host.run();
    log.moves_to(&host, "a");

    let state = host.world.state_dir();
    fs::remove_dir_all(&state).unwrap();

    daemon.says("was taken away");
    let kept = state.join("remote-config.json");
    daemon.waits_for("the remote config", |_| kept.is_file().then_some(()));
    daemon.stops();
    etcd.kill();
    log.write(10);
    let daemon = host.run();
    daemon.says("its last good value is used");
    log.is_exact(&host);
    daemon.stops();
}

/// A deleted key is kept too: nothing of it comes back without etcd.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_start_without_etcd_does_not_bring_back_what_was_deleted() {
    let etcd = Etcd::start();
    let host = Host {
        keys: vec![KEY.to_owned(), "/other".to_owned()],
        ..Host::new(&etcd)
    };
    let (mut a, mut b) = (host.log("a.log"), host.log("b.log"));
    etcd.put(KEY, value(&[(a.path(), "a")]));
    etcd.put("/other", value(&[(b.path(), "b")]));
    let mut daemon = host.run();
    a.write(numbered(0..10));
    host.has("a", numbered(0..10));
    etcd.delete(KEY);
    daemon.tails_no_more(a.path(), "a");
    daemon.stops();
    etcd.kill();
    a.write(numbered(10..20));
    b.write(numbered(0..10));
    let daemon = host.run();
    host.has("b", numbered(0..10));
    host.has("a", numbered(0..10));
    daemon.stops();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_start_without_etcd_and_without_anything_kept_ships_what_the_file_names() {
    let etcd = Etcd::start();
    etcd.kill();
    let mut host = Host::new(&etcd);
    let (mut a, mut b) = (host.log("a.log"), host.log("b.log"));
    host.more = format!(r#""sources": {}"#, value(&[(a.path(), "a")]));
    // Nothing that can be read was kept.
    fs::write(host.world.dir("state").join("remote-config.json"), "{").unwrap();
    let mut daemon = host.run();
    a.write(numbered(0..10));
    host.has("a", numbered(0..10));
    daemon.key_is(KEY, "trouble");
    daemon.says("cannot use the remote config that was kept");
    daemon.is_well();
    etcd.restart();
    etcd.put(KEY, value(&[(b.path(), "b")]));
    b.write(numbered(0..10));
    host.has("b", numbered(0..10));
    daemon.follows();
    daemon.stops();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn an_etcd_that_is_away_for_long_disturbs_no_line() {
    let etcd = Etcd::start();
    let host = Host::new(&etcd);
    let log = host.log("a.log");
    let path = log.path().to_owned();
    etcd.put(KEY, value(&[(&path, "a")]));
    let mut daemon = host.run();
    let writer = Writer::start(log, 10, Duration::from_millis(5));
    host.broker.wait_for("a", 100, DEADLINE);
    etcd.kill();
    daemon.key_is(KEY, "trouble");
    writer.writes(5_000);
    daemon.is_well();
    let trouble = daemon
        .shipper
        .stderr()
        .matches("cannot follow etcd")
        .count();
    assert!(
        trouble <= 2,
        "it is told on change, not again and again:\n{}",
        daemon.shipper.stderr()
    );
    etcd.restart();
    daemon.follows();
    let written = writer.stop();
    host.has("a", numbered(0..written));
    assert_eq!(
        daemon.document()["config"]["revision"],
        2,
        "{}",
        daemon.restarts()
    );
    daemon.stops();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn behind_a_proxy_that_buffers_a_change_is_applied_within_the_poll_interval() {
    let etcd = Etcd::start();
    let proxy = Proxy::to(etcd.port_of(0), Manner::HoldsStreams);
    let mut host = Host::at(vec![proxy.endpoint()]);
    host.etcd = r#""poll_interval": "500ms""#.to_owned();
    let daemon = host.run();
    daemon.says("cannot watch, so the key is polled");
    let mut fastest = Duration::MAX; // This machine may be busy; not each time.
    for n in 0..3 {
        let (mut log, topic) = (host.log(&format!("{n}.log")), format!("t{n}"));
        log.write(numbered(0..10));
        let begun = Instant::now();
        etcd.put(KEY, value(&[(log.path(), &topic)]));
        host.has(&topic, numbered(0..10));
        fastest = fastest.min(begun.elapsed());
    }
    assert!(fastest < Duration::from_millis(1_500), "{fastest:?}");
    daemon.stops();
}

// ---- much at once -----------------------------------------------------------------

/// Ten entries change without end while ten others, beside them in the same value,
/// are written: those notice nothing.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn files_that_a_flood_of_changes_does_not_touch_lose_repeat_and_disorder_nothing() {
    const FILES: usize = 10;
    const PUTS: usize = 50;
    let etcd = Etcd::start();
    let host = Host::new(&etcd);
    let logs: Vec<Log> = (0..FILES).map(|n| host.log(&format!("{n}.log"))).collect();
    let topics: Vec<String> = (0..FILES).map(|n| format!("t{n}")).collect();
    let paths: Vec<PathBuf> = logs.iter().map(|log| log.path().to_owned()).collect();
    let kept: Vec<(&PathBuf, &str)> = paths
        .iter()
        .zip(topics.iter().map(String::as_str))
        .collect();
    etcd.put(KEY, value(&kept));
    let mut daemon = host.run();
    daemon.follows();
    let pause = Duration::from_millis(20);
    let writers: Vec<Writer> = logs
        .into_iter()
        .map(|log| Writer::start(log, 50, pause))
        .collect();
    for topic in &topics {
        host.broker.wait_for(topic, 100, DEADLINE);
    }
    let begun = Instant::now();
    let passing = host.world.path("passing.log");
    fs::write(&passing, "x\n").unwrap();
    for n in 0..PUTS {
        let mut entries = kept.clone();
        // It comes, changes its topic and its place, and goes.
        let topic = format!("passing{}", n % 7);
        if n % 3 > 0 {
            entries.insert(n % FILES, (&passing, &topic));
        }
        if n % 5 == 0 {
            entries.reverse();
        }
        etcd.put(KEY, value(&entries));
    }
    let took = begun.elapsed();
    let written: Vec<usize> = writers.into_iter().map(Writer::stop).collect();
    for (topic, written) in topics.iter().zip(&written) {
        host.has(topic, numbered(0..*written));
    }
    let revision = etcd.revision();
    daemon.waits_for("the last revision", |daemon| {
        (daemon.key(KEY)["revision"] == revision).then_some(())
    });
    println!(
        "{PUTS} puts in {took:?}, {} lines",
        written.iter().sum::<usize>()
    );
    daemon.stops();
}

// ---- keys and the file --------------------------------------------------------------

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn two_hosts_follow_their_own_keys_by_address_and_share_that_of_the_name() {
    let etcd = Etcd::start();
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host_key = format!("/by-name/{}", name.trim());
    let of = |ip: &str| Host {
        keys: vec!["/by-ip/{ip}".to_owned(), "/by-name/{host}".to_owned()],
        more: format!(r#""agent": {{"ip": "{ip}"}}"#),
        ..Host::new(&etcd)
    };
    let (one, two) = (of("10.0.0.1"), of("10.0.0.2"));
    let mut logs = [one.log("a.log"), two.log("a.log")];
    etcd.put("/by-ip/10.0.0.1", value(&[(logs[0].path(), "mine")]));
    etcd.put("/by-ip/10.0.0.2", value(&[(logs[1].path(), "mine")]));
    etcd.put(
        &host_key,
        value(&[(logs[0].path(), "shared"), (logs[1].path(), "shared")]),
    );
    let (mut first, mut second) = (one.run(), two.run());
    logs[0].write(numbered(0..10));
    logs[1].write(numbered(10..20));
    one.has("mine", numbered(0..10));
    two.has("mine", numbered(10..20));
    for host in [&one, &two] {
        let came: BTreeSet<usize> = {
            host.broker.wait_for("shared", 20, DEADLINE);
            host.numbers("shared").into_iter().collect()
        };
        assert_eq!(came, (0..20).collect());
    }
    etcd.delete("/by-ip/10.0.0.1");
    first.tails_no_more(logs[0].path(), "mine");
    logs[1].write(numbered(20..30));
    two.has("mine", numbered(10..30));
    second.key_is("/by-ip/10.0.0.2", "followed");
    second.key_is(&host_key, "followed");
    first.stops();
    second.stops();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn other_endpoints_and_other_keys_in_the_file_take_effect() {
    let (etcd, other) = (Etcd::start(), Etcd::start());
    let mut host = Host::new(&etcd);
    let (mut a, mut b) = (host.log("a.log"), host.log("b.log"));
    let mut c = Moving::new(host.log("c.log"));
    etcd.put(KEY, value(&[(a.path(), "a")]));
    other.put(KEY, value(&[(b.path(), "b")]));
    other.put("/other", value(&[(c.path(), "c")]));
    let mut daemon = host.run();
    a.write(numbered(0..10));
    host.has("a", numbered(0..10));

    host.endpoints = other.endpoints();
    host.configure();
    b.write(numbered(0..10));
    host.has("b", numbered(0..10));
    daemon.tails_no_more(a.path(), "a");

    host.keys = vec!["/other".to_owned()];
    host.configure();
    c.moves_to(&host, "c");
    daemon.tails_no_more(b.path(), "b");
    assert!(daemon.key(KEY).is_null(), "{}", daemon.document()["config"]);

    // The old ones have no say any more.
    etcd.put(KEY, value(&[(a.path(), "never")]));
    other.put(KEY, value(&[(a.path(), "never")]));
    other.put("/other", value(&[(c.path(), "d")]));
    c.moves_to(&host, "d");
    assert!(host.numbers("never").is_empty());
    daemon.stops();
}

/// A port that takes no connection and refuses none: to connect takes as long as
/// whoever tries is willing to wait.
struct Deaf {
    listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Deaf {
    fn new() -> Deaf {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        // Its queue is full with one or two.
        let _queue = (0..8).map_while(connect).collect();
        Deaf { listener, _queue }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }
}

/// Nobody answers at the new endpoints, and each try takes its time: neither the
/// reload after that nor the stop waits for it.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_reload_and_a_stop_wait_for_no_endpoint() {
    let etcd = Etcd::start();
    let mut host = Host::new(&etcd);
    host.keys = (0..20).map(|n| format!("/k{n}")).collect();
    let deaf = Deaf::new();
    host.endpoints = vec![deaf.endpoint()];
    let mut log = host.log("a.log");
    let daemon = host.run();
    daemon.says("running version"); // and connecting, each key for two seconds
    host.endpoints = etcd.endpoints();
    log.write(numbered(0..10));
    etcd.put("/k9", value(&[(log.path(), "a")]));
    host.configure();
    let begun = Instant::now();
    host.has("a", numbered(0..10));
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    host.endpoints = vec![deaf.endpoint()];
    host.configure();
    daemon.says("the config says nothing new by=file");
    let begun = Instant::now();
    daemon.stops();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}
