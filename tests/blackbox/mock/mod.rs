//! Our wire as others understand it: librdkafka's mock cluster takes the requests, its
//! consumer reads the records. `--features mock-kafka`; see [`cluster`] for its limits.

mod cluster;

use std::os::unix::ffi::OsStrExt;
use std::slice;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::types::RDKafkaApiKey::{InitProducerId, Metadata, Produce};
use serde_json::{Value, json};

use crate::broker::{Record, check_sequence};
use crate::daemon::{config, source};
use crate::world::{Log, Logship, World, numbered};
use cluster::Mock;

const TOPIC: &str = "demo";
const FILES: usize = 8;
/// Lines of each file in a turn, of which a small batch holds a few.
const LINES: usize = 200;
const SLOW: Duration = Duration::from_millis(30);
/// librdkafka's own: the mock cuts the connection instead of answering.
const CUT: i32 = -195;

/// `logship tail` to the mock, with state, from the beginning.
fn tail(world: &World, logs: &[Log], mock: &Mock) -> Logship {
    let tail = world.tail(logs).with_state().since_beginning();
    tail.args(["--brokers", &mock.addresses()])
}

/// A config for `logship run` to the mock.
fn to_mock(mock: &Mock, sources: Value) -> Value {
    let mut config = config(sources);
    config["kafka"] = json!({ "brokers": [mock.addresses()], "linger": "5ms" });
    config
}

/// Lines of a few files, each beginning with the file's number, written bit by bit.
struct Files {
    logs: Vec<Log>,
    lines: Vec<Vec<String>>,
}

impl Files {
    fn new(world: &World) -> Files {
        Files {
            logs: (0..FILES).map(|n| world.log(format!("{n}.log"))).collect(),
            lines: vec![Vec::new(); FILES],
        }
    }

    /// Adds so many lines to each file with one write, and returns how many there are.
    fn grow(&mut self, count: usize) -> u64 {
        for (n, (log, lines)) in self.logs.iter_mut().zip(&mut self.lines).enumerate() {
            let from = lines.len();
            let more: Vec<String> = (from..from + count).map(|l| format!("{n} {l}")).collect();
            log.write(&more);
            lines.extend(more);
        }
        self.lines.iter().map(|lines| lines.len() as u64).sum()
    }

    /// Each file's lines with what arrived of them.
    fn with(&self, records: &[Record]) -> impl Iterator<Item = (&Vec<String>, Vec<Record>)> {
        self.lines.iter().enumerate().map(|(n, lines)| {
            let start = format!("{n} ");
            let ours = |record: &&Record| record.value.starts_with(start.as_bytes());
            (lines, records.iter().filter(ours).cloned().collect())
        })
    }

    #[track_caller]
    fn assert_exact(&self, records: &[Record]) {
        for (lines, records) in self.with(records) {
            check_sequence(lines, &records).assert_exact();
        }
    }

    #[track_caller]
    fn assert_lossless(&self, records: &[Record]) {
        for (lines, records) in self.with(records) {
            check_sequence(lines, &records).assert_lossless();
        }
    }
}

/// `logship run` that follows the files with batches of a few lines, so that several of
/// a partition are on their way when many lines are written.
fn run(world: &World, files: &Files, mock: &Mock) -> Logship {
    let source = |n| source(&format!("{n}.log"), TOPIC);
    let mut config = to_mock(mock, (0..files.logs.len()).map(source).collect());
    config["kafka"]["batch_bytes"] = json!("1KiB");
    world.run(&config)
}

/// The longest line with headers that is shipped whole.
const LINE_BYTES_MAX: usize = 1024 * 1024 - 5 * 1024;

/// Bytes that are hard to compress, without line ends.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let bytes = std::iter::repeat_with(next).filter(|&byte| byte != b'\n' && byte != b'\r');
    bytes.take(count).collect()
}

/// What a codec or a length may stumble over.
fn odd_lines() -> Vec<Vec<u8>> {
    let every_byte = (0..=255).filter(|&byte| byte != b'\n').collect();
    vec![
        b"".to_vec(),
        every_byte,
        b"\xff\x00\r\r\x00".to_vec(),
        b"".to_vec(),
        noise(LINE_BYTES_MAX),
        vec![b'a'; LINE_BYTES_MAX],
        "grüße".into(),
        vec![0; 100_000],
        b"".to_vec(),
    ]
}

/// Values and headers of a file's records: the lines, each with its place in the file.
#[track_caller]
fn assert_file(log: &Log, lines: &[Vec<u8>], records: &[Record]) {
    let key = format!("{}!", log.path().display());
    let ours: Vec<&Record> = records
        .iter()
        .filter(|record| record.key.as_deref() == Some(key.as_bytes()))
        .collect();
    assert_eq!(ours.len(), lines.len(), "{key}");
    let (mut offset, path) = (0, log.path().as_os_str().as_bytes());
    for (at, (record, line)) in ours.iter().zip(lines).enumerate() {
        assert!(record.value == line, "{key}: line {at} is another");
        let names: Vec<&str> = record.headers.iter().map(|(name, _)| &name[..]).collect();
        let expected = ["path", "host", "device", "inode", "generation", "offset"];
        assert_eq!(names, expected);
        let values = record.headers.iter().map(|(_, value)| value.as_deref());
        let values: Vec<&[u8]> = values.map(Option::unwrap).collect();
        assert_eq!(values[0], path);
        assert_eq!(values[5], offset.to_string().as_bytes());
        offset += line.len() + 1;
    }
}

#[test]
fn librdkafka_reads_the_bytes_of_every_line_with_every_codec() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let (mock, world) = (Mock::start(), World::new());
        let lines = [
            odd_lines(),
            numbered(0..5_000).into_iter().map(Into::into).collect(),
        ];
        let mut logs = [world.log("odd.log"), world.log("even.log")];
        for (log, lines) in logs.iter_mut().zip(&lines) {
            log.write(lines);
        }
        let now_ms = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            i64::try_from(since.as_millis()).unwrap()
        };
        let begun_ms = now_ms();
        let run = || {
            tail(&world, &logs, &mock)
                .once()
                .args(["--compression", codec, "--headers", "--key", "{path}!"])
                .run()
        };
        run().exits(0);

        let records = mock.records(TOPIC);
        for (log, lines) in logs.iter().zip(&lines) {
            assert_file(log, lines, &records);
        }
        let in_time = begun_ms..=now_ms();
        assert!(records.iter().all(|r| in_time.contains(&r.timestamp_ms)));

        run().exits(0);
        assert_eq!(mock.records(TOPIC).len(), records.len(), "{codec}: again");
    }
}

/// Each version has a shape of its own, and the mock reads them all by its own code. Of
/// Produce 5 its answers lack the log start offset, which it has from 6 on.
#[test]
fn librdkafka_understands_every_version_of_our_requests() {
    let versions: [(_, &[i16]); 3] = [
        (Produce, &[3, 4, 6, 7]),
        (Metadata, &[4, 5, 6, 7, 8]),
        (InitProducerId, &[0, 1]),
    ];
    for (api, versions) in versions {
        for &version in versions {
            let (mock, world) = (Mock::with_topic(TOPIC), World::new());
            mock.speak(api, version);
            let mut files = Files::new(&world);
            let shipper = run(&world, &files, &mock).start();
            world.acked(TOPIC, files.grow(5));
            world.acked(TOPIC, files.grow(5));
            shipper.stop().exits(0);
            files.assert_exact(&mock.records(TOPIC));
        }
    }
}

/// Nothing of a refused request is in the mock's log, so every line must come once. A
/// file's lines are one batch here: the mock would take a second one in flight, which
/// a broker that knows about sequences refuses.
#[test]
fn errors_that_pass_cost_no_line_and_repeat_none() {
    let (mock, world) = (Mock::with_topic(TOPIC), World::new());
    let mut files = Files::new(&world);
    let shipper = run(&world, &files, &mock).start();
    world.acked(TOPIC, files.grow(5));
    // Those that are just tried again, then those that have metadata asked for first.
    for code in [-1, 2, 7, 19, 20, 3, 5, 6, 8, 13, 56] {
        mock.fail(Produce, &[code; 3]);
        world.acked(TOPIC, files.grow(5));
        shipper.says(&format!("({code})"));
    }
    shipper.stop().exits(0);
    files.assert_exact(&mock.records(TOPIC));
}

/// One batch at a time, or the mock would append the next one.
#[test]
fn a_connection_that_is_cut_at_a_request_costs_no_line() {
    let (mock, world) = (Mock::with_topic(TOPIC), World::new());
    let mut log = world.log("app.log");
    let shipper = tail(&world, slice::from_ref(&log), &mock).start();
    for round in 0..5 {
        mock.fail(Produce, &[CUT; 2]);
        log.write(numbered(round * 10..round * 10 + 10));
        mock.wait_for(TOPIC, round as u64 * 10 + 10);
    }
    shipper.stop().exits(0).said("cannot reach broker");
    check_sequence(numbered(0..50), &mock.records(TOPIC)).assert_exact();
}

/// The first producer id for the new one is refused, so that asking for it shows.
#[test]
fn a_broken_sequence_costs_a_new_producer_id_and_no_line() {
    for code in [45, 47, 59] {
        let (mock, world) = (Mock::with_topic(TOPIC), World::new());
        let mut log = world.log("app.log");
        log.write(numbered(0..10));
        let shipper = tail(&world, slice::from_ref(&log), &mock).start();
        mock.wait_for(TOPIC, 10);
        mock.fail(Produce, &[code; 2]);
        mock.fail(InitProducerId, &[31]);
        log.write(numbered(10..20));
        shipper.says("give out no producer id");
        mock.wait_for(TOPIC, 20);
        shipper.stop().exits(0);
        check_sequence(numbered(0..20), &mock.records(TOPIC)).assert_exact();
    }
}

#[test]
fn a_producer_id_that_is_refused_for_a_while_is_asked_for_again() {
    let (mock, world) = (Mock::with_topic(TOPIC), World::new());
    mock.fail(InitProducerId, &[14, 15, 16, 51, -1, CUT, 31]);
    let mut files = Files::new(&world);
    let expected = files.grow(5);
    let shipper = tail(&world, &files.logs, &mock).start();
    shipper.says("give out no producer id: CLUSTER_AUTHORIZATION_FAILED (31)");
    mock.wait_for(TOPIC, expected);
    shipper.stop().exits(0);
    files.assert_exact(&mock.records(TOPIC));
}

#[test]
fn leaders_that_move_while_answers_are_slow_are_followed() {
    let (mock, world) = (Mock::with_topic(TOPIC), World::new());
    mock.answer_after(SLOW);
    let mut files = Files::new(&world);
    let shipper = run(&world, &files, &mock).start();
    for round in 0..12 {
        mock.wait_for(TOPIC, files.grow(LINES) / 2);
        files.grow(LINES);
        mock.turn_leaders(TOPIC, round);
    }
    mock.wait_for(TOPIC, files.grow(LINES));
    shipper.stop().exits(0);
    mock.answer_after(Duration::ZERO);
    files.assert_exact(&mock.records(TOPIC));
}

/// A batch whose answer was cut off is in the log, and the mock takes it again: only
/// here may lines repeat. First arrivals are in order all the same.
#[test]
fn brokers_that_go_down_while_answers_are_slow_cost_no_line() {
    let (mock, world) = (Mock::with_topic(TOPIC), World::new());
    mock.answer_after(SLOW);
    let mut files = Files::new(&world);
    let shipper = run(&world, &files, &mock).start();
    for round in 0..9 {
        mock.wait_for(TOPIC, files.grow(LINES) / 2);
        files.grow(LINES);
        let broker = round % 4;
        let brokers = if broker == 0 { 1..=3 } else { broker..=broker };
        brokers.clone().for_each(|broker| mock.down(broker));
        files.grow(LINES);
        brokers.for_each(|broker| mock.up(broker));
    }
    world.acked(TOPIC, files.grow(LINES));
    shipper.stop().exits(0);
    mock.answer_after(Duration::ZERO);
    files.assert_lossless(&mock.records(TOPIC));
}

#[test]
fn a_topic_that_is_denied_waits_and_is_told_once_while_another_goes_on() {
    for code in [29, 17, 3, 5] {
        let (mock, world) = (Mock::with_topic("free"), World::new());
        mock.fail_topic(TOPIC, code);
        let sources = json!([source("0.log", "free"), source("1.log", TOPIC)]);
        let config = to_mock(&mock, sources);
        let (mut free, mut denied) = (world.log("0.log"), world.log("1.log"));
        let shipper = world.run(&config).start();

        denied.write(numbered(0..10));
        shipper.says(&format!("topic '{TOPIC}' does not take lines"));
        for round in 1..=5 {
            free.write(numbered(round * 10 - 10..round * 10));
            mock.wait_for("free", round as u64 * 10);
        }

        mock.fail_topic(TOPIC, 0);
        mock.wait_for(TOPIC, 10);
        let ended = shipper.stop().exits(0);
        check_sequence(numbered(0..10), &mock.records(TOPIC)).assert_exact();
        check_sequence(numbered(0..50), &mock.records("free")).assert_exact();
        let told = ended.stderr.matches("does not take lines").count();
        assert_eq!(told, 1, "{}", ended.stderr);
        assert!(
            ended.stderr.contains(&format!("({code})")),
            "{}",
            ended.stderr
        );
    }
}
