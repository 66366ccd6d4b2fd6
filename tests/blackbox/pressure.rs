//! Rotation under pressure: many generations in no time, their writers slow to
//! notice, while nothing, or not enough, can be delivered.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::{ApiKey, Broker, Fault, Misdeed};
use crate::daemon::{config, records, source, to_broker, values};
use crate::world::{DEADLINE, Log, Rotate, Shipper, World};

/// Twenty rotations in two seconds.
const GENERATIONS: usize = 20;
const APART: Duration = Duration::from_millis(100);
/// So many generations ago a file was renamed and its writer has not noticed.
const WRITERS: usize = 4;
/// Lines that a generation has before it is renamed.
const LINES: usize = 5;

/// A log that is rotated fast, each generation with a writer that goes on for
/// a while after the rename.
struct Rotations {
    log: Log,
    writers: Vec<File>,
    /// What was written to each generation, in its order.
    written: Vec<Vec<String>>,
}

impl Rotations {
    fn of(log: Log) -> Rotations {
        Rotations {
            writers: vec![log.writer()],
            log,
            written: vec![Vec::new()],
        }
    }

    /// Writes one line to a generation.
    fn write(&mut self, generation: usize) {
        let lines = &mut self.written[generation];
        let line = format!(
            "generation={generation:03} line={:06} and some words",
            lines.len()
        );
        writeln!(self.writers[generation], "{line}").unwrap();
        lines.push(line);
    }

    /// Twenty rotations in two seconds. The old files are written to meanwhile, and
    /// once more a while later.
    fn happen(&mut self) {
        for _ in 0..GENERATIONS {
            let now = self.written.len() - 1;
            for old in now.saturating_sub(WRITERS)..=now {
                self.write(old);
            }
            for _ in 0..LINES {
                self.write(now);
            }
            self.log.rotate(Rotate::Rename);
            self.writers.push(self.log.writer());
            self.written.push(Vec::new());
            for old in now.saturating_sub(WRITERS)..=now {
                self.write(old);
            }
            sleep(APART);
        }
        self.write(GENERATIONS);
    }

    fn lines(&self) -> usize {
        self.written.iter().map(Vec::len).sum()
    }

    fn bytes(&self) -> u64 {
        let all = self.written.iter().flatten();
        all.map(|line| line.len() as u64 + 1).sum()
    }

    /// Every line, once, and in the order of its file.
    #[track_caller]
    fn arrived(&self, values: &[String]) {
        for (generation, written) in self.written.iter().enumerate() {
            let start = format!("generation={generation:03} ");
            let mine = values.iter().filter(|value| value.starts_with(&start));
            let mine: Vec<&String> = mine.collect();
            let expected: Vec<&String> = written.iter().collect();
            assert_eq!(mine, expected, "generation {generation}");
        }
        assert_eq!(values.len(), self.lines(), "lines that nobody wrote");
    }

    /// Where a generation is by now.
    fn path(&self, generation: usize) -> PathBuf {
        let mut path = self.log.path().as_os_str().to_owned();
        if generation < GENERATIONS {
            path.push(format!(".{}", GENERATIONS - generation));
        }
        path.into()
    }
}

/// A world in which logship has shipped the first line of a log.
fn begun(config: &Value, world: &World) -> (Rotations, Shipper) {
    let mut rotations = Rotations::of(world.log("app.log"));
    let shipper = world.run(config).start();
    rotations.write(0);
    world.acked("t", 1);
    (rotations, shipper)
}

#[test]
fn twenty_rotations_in_two_seconds_with_their_writers_still_writing_arrive_once() {
    for pattern in ["app.log", "app.log*"] {
        let (broker, world) = (Broker::start(), World::new());
        let config = to_broker(&broker, json!([source(pattern, "t")]));
        let (mut rotations, shipper) = begun(&config, &world);
        rotations.happen();
        records(&broker, "t", rotations.lines());
        let ended = shipper.stop().exits(0);
        rotations.arrived(&values(&broker, "t"));
        assert_eq!(ended.losses(), []);
    }
}

/// Nobody reads standard output, so the queue is full before the first rotation.
#[test]
fn twenty_rotations_while_the_queue_is_full_arrive_once() {
    let world = World::new();
    let mut config = config(json!([source("app.log", "t")]));
    config["queue"] = json!({ "bytes": "1MiB" });
    let (mut rotations, shipper) = begun(&config, &world);
    shipper.next_lines(1);
    shipper.pause_reading();
    for _ in 0..60_000 {
        rotations.write(0); // more than queue, batches and pipe hold
    }
    world.status_until("a full queue", |report| report.files[0].state == "full");
    rotations.happen();
    world.status_until("all generations", |report| {
        let rotated = report.files.iter().filter(|file| file.state == "rotated");
        rotated.count() == GENERATIONS
    });

    shipper.resume_reading();
    let lines = shipper.next_lines(rotations.lines() - 1);
    let text = |line: Vec<u8>| String::from_utf8(line).unwrap();
    let first = rotations.written[0][0].clone();
    let values: Vec<String> = [first]
        .into_iter()
        .chain(lines.into_iter().map(text))
        .collect();
    let ended = shipper.stop().exits(0).printed([""; 0]);
    rotations.arrived(&values);
    assert_eq!(ended.losses(), []);
}

/// Each generation is seen and kept open, shown with what waits in it, and what is
/// deleted meanwhile is counted: `rotate 10` of logrotate, with Kafka away.
#[test]
fn twenty_rotations_while_kafka_is_away_are_shown_and_arrive_once_when_it_is_back() {
    let (broker, world) = (Broker::start(), World::new());
    let config = to_broker(&broker, json!([source("app.log", "t")]));
    let (mut rotations, shipper) = begun(&config, &world);
    broker.pause();
    rotations.happen();
    let acked = rotations.written[0][0].len() as u64 + 1;
    let waiting = rotations.bytes() - acked;
    world.status_until("all that was written", |report| {
        let rotated = report.files.iter().filter(|file| file.state == "rotated");
        rotated.count() == GENERATIONS && report.topics["t"].lag_bytes == waiting
    });

    let deleted = 0..GENERATIONS / 2;
    for generation in deleted.clone() {
        fs::remove_file(rotations.path(generation)).unwrap();
        rotations.write(generation); // and its writer has not noticed that either
    }
    let bytes = |lines: &Vec<String>| lines.iter().map(|line| line.len() as u64 + 1).sum::<u64>();
    let held: u64 = rotations.written[deleted].iter().map(bytes).sum();
    world.status_until("what is held in deleted files", |report| {
        report.held_deleted_bytes == held
    });
    assert_eq!(world.metric("logship_held_deleted_bytes"), held as f64);
    let waiting = (rotations.bytes() - acked) as f64;
    assert_eq!(world.metric("logship_lag_bytes{topic=\"t\"}"), waiting);
    let shown = world
        .logship(["status", "--json"])
        .with_state()
        .run()
        .exits(0);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let files = shown["files"].as_array().unwrap();
    let rotated = files.iter().filter(|file| file["state"] == "rotated");
    assert_eq!(rotated.count(), GENERATIONS, "{shown:#}");

    broker.resume();
    records(&broker, "t", rotations.lines());
    rotations.arrived(&values(&broker, "t"));
    let ended = shipper.stop().exits(0);
    assert_eq!(ended.losses(), []);
}

/// The file that stands at the path is not read while the one before it waits. It was
/// not looked at either: a truncation went unseen until Kafka was back, and what was
/// lost of it was not known.
#[test]
fn a_truncation_behind_a_file_that_waits_is_reported_to_the_byte() {
    let (broker, world) = (Broker::start(), World::new());
    let config = to_broker(&broker, json!([source("app.log", "t")]));
    let (mut rotations, shipper) = begun(&config, &world);
    broker.pause();
    rotations.write(0);
    world.status_until("the first file to wait", |report| {
        report.files[0].state == "full"
    });
    rotations.log.rotate(Rotate::Rename);
    rotations.log.write(["never read", "nor this"]);
    let second = rotations.log.inode();
    world.status_until("the second file", |report| {
        report
            .files
            .iter()
            .any(|file| (file.inode, file.size) == (second, 20))
    });
    rotations.log.truncate();
    rotations
        .log
        .write(["written after the truncation, and longer than before"]);
    let loss = shipper.says("lost path=");
    assert!(
        loss.contains(&format!("inode={second} from=0 to=20 bytes=20")),
        "{loss}"
    );

    broker.resume();
    let all = rotations.written[0].iter().map(String::as_str);
    let all: Vec<&str> = all
        .chain(["written after the truncation, and longer than before"])
        .collect();
    records(&broker, "t", all.len());
    assert_eq!(values(&broker, "t"), all);
    let ended = shipper.stop().exits(0);
    assert_eq!(ended.losses().len(), 1);
}

/// What waited for another try was bounded by nothing: hundreds of partitions whose replicas
/// were missing kept a whole batch each, for as long as that lasted. What is more than
/// `in_flight_bytes` goes back to the files, and is sent when the partitions take it.
#[test]
fn hundreds_of_partitions_that_take_nothing_cost_little_memory_and_hold_up_nobody() {
    const FILES: usize = 40;
    const LINES: usize = 300;
    /// Of the first file, which is spread over all of the partitions.
    const SPREAD: usize = 60_000;
    const MEMORY_MAX: u64 = 48 << 20;
    let line = |file: usize, line: usize| format!("{file:03} {line:06} {}", "x".repeat(1_000));
    let lines = |file: usize| if file == 0 { SPREAD } else { LINES };
    let (broker, world) = (Broker::start(), World::new());
    broker.create_topic("bad", 300);
    broker.create_topic("good", 1);
    let refusing = Fault::of(Misdeed::Error(19)).on(ApiKey::Produce); // NOT_ENOUGH_REPLICAS
    broker.fault(refusing.topic("bad"));
    world.dir("bad");
    for file in 0..FILES {
        let mut log = world.log(format!("bad/{file:03}.log"));
        log.write((0..lines(file)).map(|at| line(file, at)));
    }
    let mut good = world.log("good.log");
    let mut spread = source("bad/000.log", "bad");
    spread["partition"] = json!("spread");
    let by_file = source("bad/*[1-9].log", "bad");
    let by_file_too = source("bad/*[1-9]0.log", "bad");
    let good_source = source("good.log", "good");
    let mut config = to_broker(&broker, json!([spread, by_file, by_file_too, good_source]));
    for source in config["sources"].as_array_mut().unwrap() {
        source["read_from"] = json!("beginning");
    }
    config["kafka"]["compression"] = json!("none");

    let shipper = world.run(&config).start();
    broker.wait_for_requests(ApiKey::Produce, 300, DEADLINE);
    for at in 1..=20 {
        good.write([format!("healthy {at}")]);
        broker.wait_for("good", at, DEADLINE);
    }
    let peak = shipper.peak_memory();
    assert!(peak < MEMORY_MAX, "{} MiB", peak >> 20);
    assert_eq!(broker.records("bad").len(), 0);

    broker.clear_faults();
    let expected = (0..FILES).map(lines).sum();
    let arrived = broker.wait_for("bad", expected, 3 * DEADLINE);
    assert_eq!(arrived.len(), expected, "lines came twice");
    let mut last: HashMap<usize, usize> = HashMap::new();
    let mut seen = HashSet::new();
    for record in arrived {
        let value = std::str::from_utf8(&record.value).unwrap();
        let (file, number) = (value[..3].parse().unwrap(), value[4..10].parse().unwrap());
        assert!(seen.insert((file, number)), "twice: {}", &value[..10]);
        let before = last.insert(file, number);
        let in_order = file == 0 || before < Some(number);
        assert!(in_order, "{before:?} before {}", &value[..10]);
    }
    let peak = shipper.peak_memory();
    assert!(peak < MEMORY_MAX, "{} MiB", peak >> 20);
    shipper.stop().exits(0);
}

/// Brokers that answer and take nothing were no reason for anybody to look.
#[test]
fn a_topic_of_which_nothing_is_acknowledged_for_long_is_unhealthy_until_it_is() {
    let (broker, world) = (Broker::start(), World::new());
    let refusing = Fault::of(Misdeed::Error(19)).on(ApiKey::Produce); // NOT_ENOUGH_REPLICAS
    broker.fault(refusing.topic("bad"));
    let mut config = to_broker(
        &broker,
        json!([source("a.log", "good"), source("b.log", "bad")]),
    );
    config["unhealthy_after"] = json!("1s");
    let (mut good, mut bad) = (world.log("a.log"), world.log("b.log"));
    let shipper = world.run(&config).start();
    bad.write(["waits"]);
    good.write_raw("acknowledged\nwithout its end");
    broker.wait_for("good", 1, DEADLINE);
    let said = world.health(503, DEADLINE);
    assert!(
        said.contains("nothing of topic 'bad' has been acknowledged"),
        "{said}"
    );
    assert!(!said.contains("'good'"), "{said}");
    let status = world.logship(["status", "--state-dir", "state"]).run();
    let status = String::from_utf8(status.stdout.clone()).unwrap();
    assert!(
        status.contains("nothing of topic 'bad' has been"),
        "{status}"
    );

    broker.clear_faults();
    world.health(200, DEADLINE);
    sleep(Duration::from_millis(1_500)); // a line without its end waits for nobody
    world.health(200, DEADLINE);
    broker.wait_for("bad", 1, DEADLINE);
    shipper.stop();
}
