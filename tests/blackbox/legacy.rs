//! The client for brokers before Kafka 0.11, against a real one of them and against newer
//! ones that still understand it; read back by kcat.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use logship::admin::Report;
use serde_json::{Value, json};

use crate::daemon::config;
use crate::kafka::{Kafka, Topic, Version};
use crate::old_broker::{self, How, Kind, OldBroker, Spite};
use crate::world::{Log, Rotate, Shipper, World, numbered};

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

/// Memory of the whole process, whatever a broker answers: 64 MiB for an answer, as long
/// as any that is believed, and as much again for what is kept of it and all else.
const MEMORY_MAX: u64 = 128 << 20;

/// The crate that the legacy client was made of believed every length and count: one
/// answer, and the process was aborted for want of memory.
#[test]
fn no_answer_of_an_old_broker_ends_the_legacy_client_or_takes_its_memory() {
    let (world, broker) = (World::new(), OldBroker::start());
    let mut log = world.log("app.log");
    let mut shipper = world.run(&to_old(&broker, "legacy")).start();
    let mut lines = Vec::new();
    for (name, spite, problem) in hostile(broker.address()) {
        let more = vec![format!("{name}: one"), format!("{name}: two")];
        broker.spite(Some(spite));
        log.write(&more);
        lines.extend(more);
        tells(&mut shipper, &name, &problem);
        broker.spite(None);
        shipper.waits_for(&format!("the lines after {name}"), |_| {
            (first_seen(broker.values().iter()) == bytes(&lines)).then_some(())
        });
        let peak = shipper.peak_memory();
        println!("{name}: {} MiB", peak >> 20);
        assert!(peak < MEMORY_MAX, "{name}: {peak} bytes");
    }
    shipper.stop().exits(0);
}

/// Which client is taken is what a broker says, so a hostile one is asked that first.
#[test]
fn no_answer_that_chooses_the_client_ends_it_or_takes_its_memory() {
    const COUNTS: [u8; 6] = [0, 0, 0x7f, 0xff, 0xff, 0xff];
    let (world, broker) = (World::new(), OldBroker::start());
    let lines = ["one".to_owned(), "two".to_owned()];
    world.log("app.log").write(&lines);
    let spite = |on, how| broker.spite(Some(Spite { on, how }));
    spite(Kind::ApiVersions, How::Body(COUNTS.into()));
    let mut shipper = world.run(&to_old(&broker, "auto")).start();
    let (address, unreadable) = (broker.address(), "that cannot be read: not Kafka?");
    let handshake = format!(
        "cannot reach broker {address}: Kafka handshake: an answer to ApiVersions {unreadable}"
    );
    shipper.says(&handshake);
    spite(Kind::Metadata, How::Body(COUNTS[2..].into()));
    shipper.says("going on with the legacy client: the broker is older than Kafka 0.11");
    let metadata = format!(
        "cannot reach broker {address}: request of the legacy client: an answer to Metadata {unreadable}"
    );
    shipper.says(&metadata);
    broker.spite(None);
    shipper.waits_for("the lines", |_| {
        (first_seen(broker.values().iter()) == bytes(&lines)).then_some(())
    });
    assert!(shipper.peak_memory() < MEMORY_MAX);
    shipper.stop().exits(0);
}

#[test]
fn tail_writes_to_an_old_broker_when_it_is_told() {
    let (world, broker) = (World::new(), OldBroker::start());
    let lines = ["one".to_owned(), String::new(), "two".to_owned()];
    world.log("app.log").write(&lines);
    let tail = world.logship(["tail", "app.log", "--topic", "t", "--once"]);
    let tail = tail.args(["--brokers", &broker.address(), "--client", "legacy"]);
    let ended = tail.args(["--compression", "none"]).run().exits(0);
    ended.never_said("going on with the legacy client"); // it did not have to find out
    assert_eq!(broker.values(), bytes(&lines));
}

#[test]
fn check_config_names_an_old_broker_whose_answers_are_none() {
    let (world, broker) = (World::new(), OldBroker::start());
    let config = to_old(&broker, "legacy");
    world.log("app.log").write(["line"]);
    connects(&world, &config, 0, "topic t: ok (1 partition)");
    for (name, spite, problem) in hostile(broker.address()) {
        if spite.on != Kind::Metadata {
            continue;
        }
        broker.spite(Some(spite));
        let Some((_, problem)) = problem.split_once("request of the legacy client: ") else {
            continue; // it can be read, and something else is wrong with it
        };
        let failed = format!("{}: metadata: FAILED: {problem}", broker.address());
        println!("{name}: {failed}");
        connects(&world, &config, 1, &failed);
    }
}

/// What it says from now on, once what it said so far is out of the way.
#[track_caller]
fn tells(shipper: &mut Shipper, name: &str, text: &str) {
    let label = format!("'{text}' after {name}");
    let before = shipper.stderr().matches(text).count();
    shipper.waits_for(&label, |shipper| {
        (shipper.stderr().matches(text).count() > before).then_some(())
    });
}

fn to_old(broker: &OldBroker, client: &str) -> Value {
    let mut config = config(json!([{ "path": "app.log", "topic": "t" }]));
    config["kafka"] = json!({
        "brokers": [broker.address()],
        "client": client,
        "producers": 1,
        "compression": "none",
        "linger": "5ms",
        "retry_backoff": "10ms",
        "retry_backoff_max": "100ms",
    });
    config
}

/// A name, what the broker does, and what logship says of it.
fn hostile(address: String) -> Vec<(String, Spite, String)> {
    const COUNT: [u8; 4] = i32::MAX.to_be_bytes();
    let mut all = Vec::new();
    let mut add = |name, on: Kind, how, problem: &str| {
        let told = match problem.starts_with("an answer") {
            true => {
                format!("cannot reach broker {address}: request of the legacy client: {problem}")
            }
            false => problem.to_owned(),
        };
        all.push((format!("{on:?}, {name}"), Spite { on, how }, told));
    };
    for (on, api) in [(Kind::Metadata, "Metadata"), (Kind::Produce, "Produce")] {
        let unreadable = format!("an answer to {api} that cannot be read: not Kafka?");
        let length = |length: i32| How::Bytes(length.to_be_bytes().to_vec());
        let bytes_of = |length| format!("an answer of {length} bytes: not Kafka?");
        add("2 GB", on, length(2_000_000_000), &bytes_of(2_000_000_000));
        add("a negative length", on, length(-1), &bytes_of(-1));
        add("a length of nothing", on, length(0), &bytes_of(0));
        add(
            "HTTP",
            on,
            How::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".into()),
            "what answers there speaks HTTP",
        );
        add(
            "a flood of a letter",
            on,
            How::Flood(vec![b'A'; 1 << 16]),
            &bytes_of(0x4141_4141),
        );
        // The whole of an answer that is believed, and then more.
        let mut flood = (64_u32 << 20).to_be_bytes().to_vec();
        flood.resize(64 << 20, 0x7f);
        add(
            "a flood of an answer",
            on,
            How::Flood(flood),
            "an answer to another request: not Kafka?",
        );
        add(
            "another request",
            on,
            How::OfAnother(vec![0; 8]),
            "an answer to another request: not Kafka?",
        );
        add(
            "half an answer",
            on,
            How::Half,
            "the broker closed the connection",
        );
        add("nothing behind the id", on, How::Body(vec![]), &unreadable);
        add("2^31-1 entries", on, How::Body(COUNT.to_vec()), &unreadable);
        add("0xff", on, How::Body(vec![0xff; 100]), &unreadable);
        add("0x7f", on, How::Body(vec![0x7f; 60 << 20]), &unreadable);
    }
    let topics = |brokers: &[(i32, &str, u16)], topics: &[Vec<u8>]| {
        let mut body = old_broker::brokers(brokers);
        body.extend((topics.len() as i32).to_be_bytes());
        body.extend(topics.concat());
        How::Body(body)
    };
    let one = [(1, "127.0.0.1", 1)];
    let unreadable = "an answer to Metadata that cannot be read: not Kafka?";
    let partitions: Vec<(i32, i32)> = (0..100_001).map(|index| (index, 1)).collect();
    let many = vec![(1, "h", 1); 10_001];
    let long = "h".repeat(300);
    let on = Kind::Metadata;
    add(
        "a partition out of range",
        on,
        topics(&one, &[old_broker::topic_of("t", 1, &[(7, 1)])]),
        "an answer that names partition 7 of 1: not Kafka?",
    );
    add(
        "a partition below zero",
        on,
        topics(&one, &[old_broker::topic_of("t", 1, &[(-1, 1)])]),
        "an answer that names partition -1 of 1: not Kafka?",
    );
    add(
        "2^31-1 partitions",
        on,
        topics(&one, &[old_broker::topic_of("t", i32::MAX, &[(0, 1)])]),
        unreadable,
    );
    add(
        "too many partitions",
        on,
        topics(&one, &[old_broker::topic_of("t", 100_001, &partitions)]),
        "an answer that names 100001 partitions: not Kafka?",
    );
    add(
        "too many brokers",
        on,
        topics(&many, &[]),
        "an answer that names 10001 brokers: not Kafka?",
    );
    add(
        "a long host",
        on,
        topics(&[(1, &long, 1)], &[]),
        "an answer that names a broker \"hhh",
    );
    add(
        "a host of control characters",
        on,
        topics(&[(1, "a\nb", 1)], &[]),
        "an answer that names a broker \"a\\nb\": not Kafka?",
    );
    // A name that is longer than what comes, and one of a negative length.
    let mut cut = old_broker::brokers(&[]);
    cut.extend([0, 0, 0, 1, 0, 0, 0x7f, 0xff, b't']);
    add("a long name", on, How::Body(cut), unreadable);
    let mut negative = old_broker::brokers(&[]);
    negative.extend([0, 0, 0, 1, 0, 0, 0xff, 0xf0, 0, 0, 0, 0]);
    add("a negative name", on, How::Body(negative), unreadable);
    // What cannot be told from the answer of a large cluster, and is not kept.
    let mut nameless = old_broker::brokers(&[]);
    nameless.extend(3_000_000_i32.to_be_bytes());
    nameless.resize(nameless.len() + 3_000_000 * 8, 0);
    add(
        "topics without a name",
        on,
        How::Body(nameless),
        "topic 't' does not take lines",
    );
    let all_led = topics(
        &one,
        &[old_broker::topic_of("t", 100_000, &partitions[..100_000])],
    );
    add(
        "as many partitions as are believed",
        on,
        all_led,
        "cannot reach broker 127.0.0.1:1: TCP connect",
    );
    let other = [
        &1_i32.to_be_bytes()[..],
        &old_broker::text("other"),
        &[0; 4],
    ]
    .concat();
    add(
        "another topic",
        Kind::Produce,
        How::Body(other),
        "an answer that does not name the partition: not Kafka?",
    );
    all
}
