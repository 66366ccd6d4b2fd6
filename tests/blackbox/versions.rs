//! Against every Kafka that people run, each started for its test, and read back
//! by kcat.

use std::time::Duration;

use crate::kafka::{Kafka, Topic, Version};
use crate::world::{Log, World, numbered};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// What logship and each of these brokers agree on: of Produce it needs nothing
/// newer than zstd, of Metadata nothing than the topics that may be made.
const AGREED: &str =
    "versions=Versions { produce: 7, metadata: 8, init_producer_id: 1, sasl_authenticate: Some(1)";

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn through_kafka_4_3_every_line_arrives_once_with_every_codec_and_a_kill_in_the_middle() {
    end_to_end(Version::V4_3);
}

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn through_kafka_3_9_every_line_arrives_once_with_every_codec_and_a_kill_in_the_middle() {
    end_to_end(Version::V3_9);
}

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn through_kafka_2_8_every_line_arrives_once_with_every_codec_and_a_kill_in_the_middle() {
    end_to_end(Version::V2_8);
}

fn end_to_end(version: Version) {
    let kafka = Kafka::start(version);
    for codec in CODECS {
        ships_with(&kafka, codec);
    }
    survives_a_kill(&kafka);
}

fn ships_with(kafka: &Kafka, codec: &str) {
    let (world, topic) = (World::new(), Topic::at(&kafka.addresses()));
    let mut log = world.log("app.log");
    let lines = numbered(0..5_000);
    log.write(&lines);
    let tail = topic.tail(&world, &[&log]).once();
    let tail = tail.args(["--headers", "-vv", "--compression", codec]);
    tail.run().exits(0).said(AGREED);
    arrived_once(&world, &topic, &lines);
}

/// The one broker is killed while lines come, and lines go on to come while it is away.
fn survives_a_kill(kafka: &Kafka) {
    let (world, topic) = (World::new(), Topic::at(&kafka.addresses()));
    let mut log = world.log("app.log");
    let lines = numbered(0..40_000);
    let mut parts = lines.chunks(100);
    let mut write = |log: &mut Log, count: usize| {
        for part in parts.by_ref().take(count) {
            log.write(part);
            std::thread::sleep(Duration::from_millis(5));
        }
    };

    let shipper = topic.tail(&world, &[&log]).arg("--headers").start();
    write(&mut log, 100);
    topic.wait_for(1);
    write(&mut log, 100);
    kafka.kill(1);
    write(&mut log, 100);
    shipper.says(&format!("cannot reach broker {}", kafka.addresses()));
    kafka.restart(1);
    shipper.says(&format!("connected again broker={}", kafka.addresses()));
    write(&mut log, 100);
    topic.wait_for(lines.len());
    shipper.stop().exits(0);
    arrived_once(&world, &topic, &lines);
}

/// By their headers, and by what kcat prints of the one partition of the one file.
#[track_caller]
fn arrived_once(world: &World, topic: &Topic, lines: &[String]) {
    let count = lines.len();
    let all =
        format!("done files=1 records={count} arrived={count} missing=0 repeated=0 misordered=0");
    topic.verify(world, "app.log").run().exits(0).printed([all]);
    let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    assert!(topic.values() == lines, "not the lines, in their order");
}
