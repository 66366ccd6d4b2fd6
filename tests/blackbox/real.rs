//! Against a real Apache Kafka, read back by kcat, and with the real logrotate.
//!
//! `tests/run` starts the broker; a plain `cargo test` leaves these out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::world::{Log, Logship, World, numbered};

const DEADLINE: Duration = Duration::from_secs(60);

/// The broker that `tests/run` started.
fn broker() -> String {
    std::env::var("LOGSHIP_TEST_KAFKA").expect("LOGSHIP_TEST_KAFKA is set: run tests/run")
}

/// A topic that no other test and no earlier run has.
fn new_topic() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{number}", std::process::id())
}

/// A topic of the real broker and what is in it.
struct Topic {
    name: String,
}

impl Topic {
    fn new() -> Topic {
        Topic { name: new_topic() }
    }

    /// `logship tail` to it, with state, from the beginning.
    fn tail(&self, world: &World, logs: &[&Log]) -> Logship {
        let paths = logs
            .iter()
            .map(|log| log.path().to_owned().into_os_string());
        world
            .logship(["tail".into()].into_iter().chain(paths))
            .args(["--topic", &self.name, "--brokers", &broker()])
            .args(["--from", "beginning"])
            .with_state()
    }

    /// All values by partition, in order of offsets, as kcat reads them.
    #[track_caller]
    fn partitions(&self) -> BTreeMap<i32, Vec<Vec<u8>>> {
        self.read()
            .unwrap_or_else(|problem| panic!("kcat: {problem}"))
    }

    fn read(&self) -> Result<BTreeMap<i32, Vec<Vec<u8>>>, String> {
        let out = Command::new("kcat")
            .args(["-b", &broker(), "-C", "-t", &self.name, "-o", "beginning"])
            // %R is the value's length as four bytes: values may hold anything.
            .args(["-e", "-q", "-X", "check.crcs=true", "-f", "%p %R%s"])
            .output()
            .expect("kcat is installed: run tests/run");
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        let mut found: BTreeMap<i32, Vec<Vec<u8>>> = BTreeMap::new();
        let mut rest = &out.stdout[..];
        while let Some(space) = rest.iter().position(|&byte| byte == b' ') {
            let partition = std::str::from_utf8(&rest[..space])
                .unwrap()
                .parse()
                .unwrap();
            let (length, tail) = rest[space + 1..].split_first_chunk().unwrap();
            let (value, tail) = tail.split_at(i32::from_be_bytes(*length) as usize);
            found.entry(partition).or_default().push(value.to_vec());
            rest = tail;
        }
        Ok(found)
    }

    fn values(&self) -> Vec<Vec<u8>> {
        self.partitions().into_values().flatten().collect()
    }

    /// Waits until it holds so many records.
    #[track_caller]
    fn wait_for(&self, count: usize) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            // Before the first line the topic does not exist.
            let found = self.read().unwrap_or_default();
            let values: Vec<Vec<u8>> = found.into_values().flatten().collect();
            if values.len() >= count {
                return values;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count} records in topic {}",
                values.len(),
                self.name
            );
        }
    }
}

/// Values and lines are the same, in order; else where they first differ.
#[track_caller]
fn assert_same(values: &[Vec<u8>], lines: &[String]) {
    let differ = values
        .iter()
        .zip(lines)
        .position(|(value, line)| value != line.as_bytes());
    let at = differ.unwrap_or(values.len().min(lines.len()));
    let text = |value: &Vec<u8>| String::from_utf8_lossy(value).into_owned();
    assert!(
        differ.is_none() && values.len() == lines.len(),
        "{} records of {} lines; at {at} came {:?} instead of {:?}",
        values.len(),
        lines.len(),
        values.get(at).map(text),
        lines.get(at)
    );
}

/// The records of a file as they must arrive.
fn lines_of(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read(path).unwrap();
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    text.split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
        .collect()
}

#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn the_sample_log_arrives_byte_for_byte_once_and_in_order() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let (world, topic) = (World::new(), Topic::new());
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sample.log");
        let log = world.later("sample.log");
        fs::copy(sample, log.path()).unwrap();
        let run = || {
            topic
                .tail(&world, &[&log])
                .once()
                .args(["--compression", codec])
                .run()
        };

        run().exits(0);
        let partitions = topic.partitions();
        assert_eq!(partitions.len(), 1, "one file, one partition");
        assert_eq!(topic.values(), lines_of(log.path()), "{codec}");

        run().exits(0);
        assert_eq!(
            topic.values().len(),
            lines_of(log.path()).len(),
            "sent again"
        );
    }
}

#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn every_file_keeps_its_order_over_four_partitions() {
    let (world, topic) = (World::new(), Topic::new());
    let mut logs: Vec<Log> = (0..8).map(|n| world.log(format!("{n}.log"))).collect();
    let all: Vec<Vec<String>> = (0..8)
        .map(|n| {
            numbered(0..10_000)
                .iter()
                .map(|line| format!("{n} {line}"))
                .collect()
        })
        .collect();
    for (log, lines) in logs.iter_mut().zip(&all) {
        log.write(lines);
    }
    topic
        .tail(&world, &logs.iter().collect::<Vec<_>>())
        .once()
        .run()
        .exits(0);

    let values = topic.values();
    assert_eq!(values.len(), 80_000);
    assert!(topic.partitions().len() > 1);
    for (n, lines) in all.iter().enumerate() {
        let start = format!("{n} ");
        let ours: Vec<&[u8]> = values
            .iter()
            .map(Vec::as_slice)
            .filter(|value| value.starts_with(start.as_bytes()))
            .collect();
        let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        assert!(ours == lines, "file {n} is not what arrived");
    }
}

#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn spread_batches_arrive_once_in_all_partitions() {
    let (world, topic) = (World::new(), Topic::new());
    let mut log = world.log("app.log");
    let lines = numbered(0..300_000);
    log.write(&lines);
    let tail = topic.tail(&world, &[&log]).once();
    tail.args(["--partition", "spread", "--compression", "none"])
        .run()
        .exits(0);

    let mut values = topic.values();
    values.sort();
    assert!(
        values
            == lines
                .iter()
                .map(|l| l.clone().into_bytes())
                .collect::<Vec<_>>()
    );
    assert_eq!(topic.partitions().len(), 4);
}

/// The issue's sentence: killed half way with SIGKILL and started again, no
/// line is missing.
#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn killed_half_way_and_started_again_no_line_is_missing() {
    let (world, topic) = (World::new(), Topic::new());
    let mut log = world.log("app.log");
    let mut lines = Vec::new();
    for round in 0..6 {
        let more = numbered(round * 50_000..(round + 1) * 50_000);
        let shipper = topic.tail(&world, &[&log]).start();
        log.write(&more);
        lines.extend(more);
        topic.wait_for(round * 50_000 + 1);
        shipper.kill();
    }
    topic.tail(&world, &[&log]).once().run().exits(0);

    let mut values = topic.values();
    let sent = values.len();
    values.sort();
    values.dedup();
    assert!(
        values
            == lines
                .iter()
                .map(|l| l.clone().into_bytes())
                .collect::<Vec<_>>()
    );
    // Each kill repeats at most what was not in the checkpoint: one round.
    assert!(
        sent <= 2 * lines.len(),
        "{sent} records of {} lines",
        lines.len()
    );
}

#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn a_stop_and_a_start_in_mid_stream_deliver_every_line_once() {
    let (world, topic) = (World::new(), Topic::new());
    let mut log = world.log("app.log");
    let lines = numbered(0..200_000);
    for part in lines.chunks(50_000) {
        let shipper = topic.tail(&world, &[&log]).start();
        log.write(part);
        topic.wait_for(1);
        shipper.stop().exits(0);
    }
    topic.tail(&world, &[&log]).once().run().exits(0);
    assert_same(&topic.values(), &lines);
}

#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn a_line_of_just_over_a_mebibyte_of_noise_is_cut_and_accepted() {
    let (world, topic) = (World::new(), Topic::new());
    let mut log = world.log("app.log");
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..1_100_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .filter(|byte| !b"\r\n".contains(byte))
        .collect();
    log.write_raw(&noise);
    log.write(["", "next"]);
    topic.tail(&world, &[&log]).once().run().exits(0);

    let values = topic.values();
    assert_eq!(values.len(), 2);
    assert!(values[0].len() > 1_040_000 && noise.starts_with(&values[0]));
    assert_eq!(values[1], b"next");
}

/// The real logrotate, both ways, while lines keep coming.
#[test]
#[ignore = "needs logrotate and a real Kafka: run tests/run"]
fn logrotate_create_and_copytruncate_lose_and_repeat_nothing() {
    for how in ["create", "copytruncate"] {
        let (world, topic) = (World::new(), Topic::new());
        let mut log = world.log("app.log");
        let config = world.path("logrotate.conf");
        let text = format!("{} {{\n  rotate 9\n  {how}\n}}\n", log.path().display());
        fs::write(&config, text).unwrap();
        let shipper = topic.tail(&world, &[&log]).start();

        for round in 0..5 {
            log.write(numbered(round * 100..round * 100 + 100));
            // With copytruncate, what was not read before is lost by design.
            topic.wait_for(round * 100 + 100);
            let done = Command::new("logrotate")
                .args(["--force", "--state"])
                .args([&world.path("logrotate.state"), &config])
                .output()
                .expect("logrotate is installed: run tests/run");
            assert!(
                done.status.success(),
                "{}",
                String::from_utf8_lossy(&done.stderr)
            );
            if how == "create" {
                log.reopen();
            }
        }
        log.write(["the end"]);

        let values = topic.wait_for(501);
        let ended = shipper.stop().exits(0);
        let mut lines: Vec<Vec<u8>> = numbered(0..500).into_iter().map(Into::into).collect();
        lines.push(b"the end".to_vec());
        assert!(values == lines, "{how}: {} records", values.len());
        assert!(!ended.stderr.contains("lost"), "{}", ended.stderr);
    }
}
