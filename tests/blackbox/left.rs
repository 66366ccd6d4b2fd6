//! What was left unread when logship ended, and can never be read again or only
//! elsewhere: none of it is forgotten without a word.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use logship::admin::Report;
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::daemon::{records, source, to_broker, values};
use crate::world::{Log, Loss, Shipper, World, numbered};

/// Longer than a file may be missing before it is given up.
const LONG_GONE: Duration = Duration::from_millis(1_500);

/// A daemon with state that ships `logs/*.log`, which stops soon.
fn config(broker: &Broker) -> Value {
    let mut config = to_broker(broker, json!([source("logs/*.log", "t")]));
    config["shutdown_timeout"] = json!("100ms");
    config["queue"] = json!({ "bytes": "1MiB" });
    config
}

/// A stopped logship that has shipped one line of `logs/app.log` and knows of more.
fn stopped_with_unread_lines(broker: &Broker) -> (World, Log, u64) {
    let world = World::new();
    world.dir("logs");
    let mut log = world.log("logs/app.log");
    let shipper = world.run(&config(broker)).start();
    log.write(["one"]);
    records(broker, "t", 1);
    world.acked("t", 1);
    broker.pause();
    log.write(["two", "three"]);
    known(&world, log.size());
    shipper.stop().exits(3);
    let unread = log.size() - 4;
    (world, log, unread)
}

fn known(world: &World, bytes: u64) {
    world.status_until("all bytes to be known", |report| {
        report.topics["t"].known_bytes >= bytes
    });
}

#[track_caller]
fn tells_loss(shipper: &Shipper, inode: u64, from: u64, bytes: u64, reason: &str) {
    let line = shipper.says("lost path=");
    let loss = Loss::in_line(&line).unwrap();
    let told = (loss.inode, loss.from, loss.bytes);
    assert_eq!(told, (inode, from, bytes), "{line}");
    assert!(line.ends_with(&format!("reason={reason}")), "{line}");
}

/// A pattern has nobody who waits for one path: what stood there is remembered.
#[test]
fn what_is_unread_of_a_file_that_is_gone_is_reported_under_a_pattern_too() {
    for moved in [false, true] {
        let broker = Broker::start();
        let (world, log, unread) = stopped_with_unread_lines(&broker);
        if moved {
            fs::rename(log.path(), world.path("elsewhere")).unwrap();
        } else {
            fs::remove_file(log.path()).unwrap();
        }
        broker.resume();
        for round in 0..2 {
            let shipper = world.run(&config(&broker)).start();
            if round == 0 {
                tells_loss(&shipper, log.inode(), 4, unread, "gone");
                let topic = |report: &Report| report.topics["t"].clone();
                let report = world.status_until("the loss to be counted", |report| {
                    topic(report).lost_bytes.get("gone") == Some(&unread)
                });
                let figures = (topic(&report).known_bytes, topic(&report).lag_bytes);
                assert_eq!(figures, (unread, 0));
                sleep(LONG_GONE); // until it is written down
                shipper.kill();
            } else {
                sleep(LONG_GONE);
                assert_eq!(shipper.stop().exits(0).losses(), []);
            }
        }
    }
}

/// Its new name is none of the pattern's, and its rest is shipped all the same.
#[test]
fn a_file_renamed_out_of_a_pattern_while_stopped_is_finished() {
    let broker = Broker::start();
    let (world, mut log, _) = stopped_with_unread_lines(&broker);
    log.rename_to(world.path("logs/app.log.1"));
    log.write(["four"]);
    broker.resume();
    let shipper = world.run(&config(&broker)).start();
    records(&broker, "t", 4);
    assert_eq!(values(&broker, "t"), ["one", "two", "three", "four"]);
    assert_eq!(shipper.stop().exits(0).losses(), []);
}

/// A daemon that starts before its volumes are mounted.
#[test]
fn a_directory_that_is_not_there_yet_has_lost_nothing() {
    let broker = Broker::start();
    let (world, mut log, _) = stopped_with_unread_lines(&broker);
    fs::rename(world.path("logs"), world.path("away")).unwrap();
    broker.resume();
    let shipper = world.run(&config(&broker)).start();
    world.status(); // it is up
    sleep(LONG_GONE);
    fs::rename(world.path("away"), world.path("logs")).unwrap();
    records(&broker, "t", 3);
    log.write(["four"]);
    records(&broker, "t", 4);
    assert_eq!(values(&broker, "t"), ["one", "two", "three", "four"]);
    assert_eq!(shipper.stop().exits(0).losses(), []);
}

/// Of a truncated life only the queue has the lines. They are not in the file when
/// logship starts again, and no position tells of them.
#[test]
fn what_was_on_its_way_from_a_truncated_file_is_reported_after_a_kill() {
    for truncated in [true, false] {
        let (broker, world) = (Broker::start(), World::new());
        world.dir("logs");
        let mut log = world.log("logs/app.log");
        let shipper = world.run(&config(&broker)).start();
        log.write(["one"]);
        records(&broker, "t", 1);
        world.acked("t", 1);
        broker.pause();
        log.write(numbered(0..10));
        let queued = log.size();
        world.status_until("all to be on its way", |report| {
            report.topics["t"].read_bytes == queued
        });
        if truncated {
            log.truncate();
            shipper.says("truncated or rewritten");
            log.write(["of the new life"]);
            known(&world, queued + 16);
        }
        sleep(LONG_GONE); // until it is written down
        assert_eq!(shipper.kill().losses(), []);
        broker.resume();

        let shipper = world.run(&config(&broker)).start();
        if truncated {
            tells_loss(&shipper, log.inode(), 4, queued - 4, "unconfirmed");
            records(&broker, "t", 2);
            assert_eq!(values(&broker, "t")[1..], ["of the new life"]);
        } else {
            records(&broker, "t", 11);
        }
        world.status_until("all to be settled", |report| {
            report.topics["t"].lag_bytes == 0
        });
        let told = shipper.stop().exits(0).losses();
        assert_eq!(told.len(), usize::from(truncated));
        assert_eq!(world.run(&config(&broker)).start().stop().losses(), []);
    }
}
