//! The client for brokers before Kafka 0.11, against a real one of them and against newer
//! ones that still understand it; read back by kcat.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use logship::admin::Report;
use serde_json::{Value, json};

use crate::daemon::config;
use crate::kafka::{Kafka, Topic, Version};
use crate::world::{Log, Rotate, World, numbered};

/// A generation of a file that is there for so long is seen.
const GENERATIONS_APART: Duration = Duration::from_millis(600);
const CODECS: [&str; 3] = ["none", "gzip", "snappy"];

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn kafka_0_10_makes_the_legacy_client_take_over_by_itself() {
    let kafka = Kafka::start(Version::V0_10);
    let (world, topic) = (World::new(), Topic::at(&kafka.addresses()));
    let mut log = world.log("app.log");
    let lines = numbered(0..5_000);
    log.write(&lines);
    let tail = topic.tail(&world, &[&log]).once().arg("--headers");
    tail.run()
        .exits(0)
        .said("going on with the legacy client: the broker is older than Kafka 0.11")
        .said("headers are not sent");
    assert!(topic.values() == bytes(&lines), "not the lines, in order");

    let mut config = legacy_config(&kafka, &topic, "none", &["app.log"]);
    connects(&world, &config, 0, "metadata: ok (with the legacy client)");
    config["kafka"]["client"] = json!("auto");
    connects(
        &world,
        &config,
        0,
        "up to version 2: the legacy client is taken",
    );
    config["kafka"]["client"] = json!("modern");
    connects(&world, &config, 1, "set kafka.client to \"legacy\"");
    end_to_end(&kafka);
}

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn with_kafka_4_the_legacy_client_says_that_it_is_refused() {
    const REFUSED: &str = "Kafka 4, and listeners with TLS or SASL, hang up on the legacy client";
    let kafka = Kafka::start(Version::V4_3);
    let (world, topic) = (World::new(), Topic::at(&kafka.addresses()));
    world.log("app.log").write(["line"]);
    let mut config = legacy_config(&kafka, &topic, "none", &["app.log"]);
    connects(
        &world,
        &config,
        1,
        "takes nothing of this client (leave kafka.client away)",
    );
    let shipper = world.run(&config).start();
    shipper.says(REFUSED);
    // What was not acknowledged goes out when the config is right.
    config["kafka"]["client"] = json!("auto");
    world.configure(&config);
    assert_eq!(topic.wait_for(1), [b"line"]);
    shipper.stop().exits(0);
}

/// What `check-config --connect` says.
#[track_caller]
fn connects(world: &World, config: &Value, code: i32, text: &str) {
    world.configure(config);
    let check = world.logship(["check-config", "--connect"]);
    let checked = check.arg(world.config()).run().exits(code);
    let printed = String::from_utf8(checked.lines().join(&b'\n')).unwrap();
    assert!(printed.contains(text), "{printed}");
}

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn through_kafka_2_8_the_legacy_client_loses_nothing() {
    end_to_end(&Kafka::start(Version::V2_8));
}

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn through_kafka_3_9_the_legacy_client_loses_nothing() {
    end_to_end(&Kafka::start(Version::V3_9));
}

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn the_legacy_client_follows_moved_leaders_and_a_topic_that_waits_holds_up_no_other() {
    let kafka = Kafka::cluster_of(Version::V3_9);
    let (world, topic) = (World::new(), Topic::at(&kafka.addresses()));
    kafka.create_topic(&topic.name, 6, &[]);
    let mut logs: Vec<Log> = (0..6).map(|n| world.log(format!("{n}.log"))).collect();
    let mut config = legacy_config(&kafka, &topic, "snappy", &["?.log"]);
    let later = Topic::at(&kafka.addresses());
    let waits = json!({ "path": "waits.log", "topic": later.name });
    config["sources"].as_array_mut().unwrap().push(waits);
    world.log("waits.log").write(["one", "two"]);

    let shipper = world.run(&config).start();
    shipper.says(&format!("topic '{}' does not take lines", later.name));
    let mut lines = vec![Vec::new(); logs.len()];
    for round in 0..60 {
        if round == 20 {
            kafka.kill(1); // which leads some of them
        }
        for (n, (log, lines)) in logs.iter_mut().zip(&mut lines).enumerate() {
            let more: Vec<String> = (0..50)
                .map(|at| format!("{n} {round:02} {at:02}"))
                .collect();
            log.write(&more);
            lines.extend(more);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let all = lines.iter().flatten().count();
    world.status_until("all to be acknowledged", |report| {
        report.topics[&topic.name].acked_lines == all as u64
    });
    let arrived = topic.values();
    for (n, lines) in lines.iter().enumerate() {
        let of_file = arrived
            .iter()
            .filter(|value| value.starts_with(n.to_string().as_bytes()));
        assert!(
            first_seen(of_file) == bytes(lines),
            "file {n}, first seen in order"
        );
    }

    kafka.restart(1); // a new topic is to be on all nodes
    kafka.create_topic(&later.name, 1, &[]);
    shipper.says(&format!("topic takes lines again topic={}", later.name));
    assert_eq!(later.wait_for(2), [b"one", b"two"]);
    shipper.stop().exits(0);
}

fn end_to_end(kafka: &Kafka) {
    for codec in CODECS {
        ships_with(kafka, codec);
    }
    sets_aside_what_is_too_large(kafka);
    survives_a_kill(kafka);
    stops_in_time_with_a_silent_broker(kafka);
}

fn legacy_config(kafka: &Kafka, topic: &Topic, codec: &str, paths: &[&str]) -> Value {
    let source = |path: &&str| json!({ "path": path, "topic": topic.name });
    let mut config = config(paths.iter().map(source).collect());
    config["kafka"] = json!({
        "brokers": [kafka.addresses()],
        "client": "legacy",
        "compression": codec,
        "linger": "5ms",
    });
    config
}

/// Files that are rotated while they are shipped: every line once, each file in order,
/// also a line of nothing.
fn ships_with(kafka: &Kafka, codec: &str) {
    let (world, topic) = (World::new(), Topic::at(&kafka.addresses()));
    let mut logs = ["a.log", "b.log", "c.log"].map(|name| world.log(name));
    let config = legacy_config(kafka, &topic, codec, &["*.log"]);
    let shipper = world.run(&config).start();
    world.status_until("the files", |report| report.files.len() == 3);
    let mut written: [Vec<String>; 3] = Default::default();
    for round in 0..10 {
        for (name, (log, written)) in ["a", "b", "c"]
            .iter()
            .zip(logs.iter_mut().zip(&mut written))
        {
            let lines: Vec<String> = (0..500).map(|n| format!("{name} {round} {n:04}")).collect();
            log.write(&lines);
            written.extend(lines);
            if round % 3 == 1 {
                log.rotate(Rotate::Rename);
            }
        }
        std::thread::sleep(GENERATIONS_APART / 3);
    }
    logs[0].write([""]);
    let all: usize = written.iter().map(Vec::len).sum();
    let arrived = topic.wait_for(all + 1);
    shipper.stop().exits(0);
    assert_eq!(arrived.len(), all + 1, "once each ({codec})");
    for (name, written) in ["a", "b", "c"].iter().zip(&written) {
        let of_file = arrived
            .iter()
            .filter(|value| value.starts_with(name.as_bytes()));
        assert!(
            of_file.eq(&bytes(written)),
            "the lines of {name}, in order ({codec})"
        );
    }
    // A value of nothing is no null, which would delete in a compacted topic.
    let lengths = topic.kcat(&["-f", "%S\n"]).unwrap();
    let lengths = String::from_utf8(lengths).unwrap();
    let of_nothing: Vec<&str> = lengths
        .lines()
        .filter(|len| *len == "0" || len.starts_with('-'))
        .collect();
    assert_eq!(of_nothing, ["0"], "-1 is null ({codec})");
}

/// Batches that are too large become smaller, and a record that is goes to the dead
/// letters; its neighbours arrive.
fn sets_aside_what_is_too_large(kafka: &Kafka) {
    let (world, topic) = (World::new(), Topic::at(&kafka.addresses()));
    let mut log = world.log("app.log");
    let lines: Vec<String> = (0..3_000).map(|n| format!("{n:01000}")).collect();
    let huge = "x".repeat(1_500_000);
    log.write(&lines[..1_500]);
    log.write([&huge]);
    log.write(&lines[1_500..]);
    let mut config = legacy_config(kafka, &topic, "none", &["app.log"]);
    config["kafka"]["batch_bytes"] = json!("3MiB");
    config["sources"][0]["line_bytes_max"] = json!("2MiB");
    let shipper = world.run(&config).start();
    shipper.says("refused for ever, now in the dead letters");
    topic.wait_for(lines.len());
    shipper.stop().exits(4);
    assert!(topic.values() == bytes(&lines), "its neighbours, in order");
    let letters = fs::read_to_string(world.path("state/dead-letters.jsonl")).unwrap();
    let letters: Vec<Value> = letters
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["value"], huge);
    assert_eq!(letters[0]["error"], "MESSAGE_TOO_LARGE");
}

/// The one broker is killed with a batch on its way, and lines go on to come while it is
/// away. Only that batch may come twice.
fn survives_a_kill(kafka: &Kafka) {
    const BATCH_BYTES: usize = 16 << 10;
    let (world, topic) = (World::new(), Topic::at(&kafka.addresses()));
    let mut log = world.log("app.log");
    let lines: Vec<String> = (0..40_000).map(|n| format!("{n:0200}")).collect();
    let (first, rest) = lines.split_at(30_000);
    let mut config = legacy_config(kafka, &topic, "snappy", &["app.log"]);
    config["kafka"]["batch_bytes"] = json!(BATCH_BYTES);
    log.write(first);
    let shipper = world.run(&config).start();
    let acked = |report: &Report| report.topics.get(&topic.name).map_or(0, |t| t.acked_lines);
    let before = world.status_until("some lines", |report| acked(report) > 1_000);
    kafka.kill(1);
    assert!(acked(&before) < first.len() as u64, "the kill was too late");
    shipper.says(&format!("cannot reach broker {}", kafka.addresses()));
    log.write(rest);
    kafka.restart(1);
    shipper.says(&format!("connected again broker={}", kafka.addresses()));
    world.status_until("all to be acknowledged", |report| {
        acked(report) == lines.len() as u64
    });
    shipper.stop().exits(0);
    let arrived = topic.values();
    let firsts = first_seen(arrived.iter());
    assert!(firsts == bytes(&lines), "every line, first seen in order");
    let repeated = arrived.len() - firsts.len();
    println!("lines that came twice after the kill: {repeated}");
    assert!(repeated <= BATCH_BYTES / 200, "{repeated} lines came twice");
}

/// The crate's calls may block for minutes; a stop does not.
fn stops_in_time_with_a_silent_broker(kafka: &Kafka) {
    let (world, topic) = (World::new(), Topic::at(&kafka.addresses()));
    let mut log = world.log("app.log");
    log.write(numbered(0..10));
    let mut config = legacy_config(kafka, &topic, "none", &["app.log"]);
    config["shutdown_timeout"] = json!("1s");
    config["kafka"]["request_timeout"] = json!("2s");
    let shipper = world.run(&config).start();
    topic.wait_for(10);
    kafka.pause(1);
    log.write(numbered(10..20));
    shipper.says("request of the legacy client: no answer within 2s");
    let begun = std::time::Instant::now();
    shipper.stop().exits(3);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        begun.elapsed()
    );
    kafka.resume(1);
    let shipper = world.run(&config).start();
    topic.wait_for(20);
    shipper.stop().exits(0);
}

/// Without what comes again.
fn first_seen<'a>(values: impl Iterator<Item = &'a Vec<u8>>) -> Vec<Vec<u8>> {
    let mut seen = HashSet::new();
    values
        .filter(|value| seen.insert(*value))
        .cloned()
        .collect()
}

fn bytes(lines: &[String]) -> Vec<Vec<u8>> {
    lines.iter().map(|line| line.clone().into_bytes()).collect()
}
