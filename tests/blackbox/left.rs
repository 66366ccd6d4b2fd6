//! What was left unread when logship ended, and can never be read again or only
//! elsewhere: none of it is forgotten without a word.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use logship::admin::Report;
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::daemon::{config as to_stdout, records, source, to_broker, values};
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

// ---- written to while stopped -------------------------------------------------------

/// What is told of a file that is gone and may have had more than was known.
const GONE: &str = "a file is gone, and what was written to it after";

/// A stopped logship that has shipped one line of each of these.
fn stopped_at_the_end(world: &World, config: &Value, names: &[&str]) -> Vec<Log> {
    world.dir("logs");
    let mut logs: Vec<Log> = names
        .iter()
        .map(|name| world.log(format!("logs/{name}.log")))
        .collect();
    let shipper = world.run(config).start();
    for (log, name) in logs.iter_mut().zip(names) {
        log.write([format!("{name} one")]);
    }
    shipper.delivers_in_any_order(names.iter().map(|name| format!("{name} one")));
    shipper.stop().exits(0).printed([""; 0]);
    logs
}

fn more_of(name: &str) -> Vec<String> {
    let lines = numbered(0..100).into_iter();
    lines.map(|line| format!("{name} {line}")).collect()
}

/// logrotate with `nocreate` while the host comes up. All that was known of the files was
/// shipped, and no file at their paths made anybody look for them: if their names moved
/// on before there was one, their last lines were lost.
#[test]
fn what_was_written_and_renamed_while_stopped_arrives_though_the_paths_are_empty() {
    let world = World::new();
    let config = to_stdout(json!([source("logs/*.log", "t")]));
    let mut logs = stopped_at_the_end(&world, &config, &["a", "b", "sealed"]);
    for (log, name) in logs.iter_mut().zip(["a", "b"]) {
        log.write(more_of(name));
    }
    for (log, to) in logs
        .iter()
        .zip(["a.log.1", "b.log-20261127", "sealed.log.1"])
    {
        log.rename_to(world.path(format!("logs/{to}")));
    }
    let shipper = world.run(&config).start();
    let arrived = shipper.next_lines(200);
    for name in ["a", "b"] {
        let of = arrived
            .iter()
            .filter(|line| line.starts_with(name.as_bytes()));
        assert!(of.eq(more_of(name).iter().map(String::as_bytes)), "{name}");
    }
    let ended = shipper.stop().exits(0).printed([""; 0]);
    assert_eq!(ended.losses(), []);
    ended.never_said("sealed");

    let shipper = world.run(&config).start();
    let mut next = world.log("logs/a.log");
    next.write(["a of the next"]);
    shipper.delivers(["a of the next"]);
    let ended = shipper.stop().exits(0).printed([""; 0]);
    ended.never_said(GONE);
}

/// The same for a run from cron.
#[test]
fn what_was_written_and_renamed_between_two_runs_arrives_though_the_path_is_empty() {
    let world = World::new();
    world.dir("logs");
    let mut log = world.log("logs/a.log");
    let once = |world: &World| {
        world
            .tail(["logs/*.log"])
            .args(["--once", "--state-dir", "state"])
    };
    log.write(["one"]);
    once(&world).start().ends().exits(0).printed(["one"]);
    log.write(["two"]);
    log.rename_to(world.path("logs/a.log.1"));
    world.log("logs/b.log");
    let ended = once(&world).start().ends().exits(0).printed(["two"]);
    ended.never_said("cannot tail");
    once(&world).start().ends().exits(0).printed([""; 0]);
}

/// A volume that is mounted after the start: who looks every ten seconds finds it.
#[test]
fn what_was_written_and_renamed_while_stopped_is_found_in_a_directory_that_comes_late() {
    let world = World::new();
    let config = to_stdout(json!([source("logs/*.log", "t")]));
    let mut logs = stopped_at_the_end(&world, &config, &["a"]);
    logs[0].write(["two"]);
    logs[0].rename_to(world.path("logs/a.log.1"));
    fs::rename(world.path("logs"), world.path("away")).unwrap();
    let shipper = world.run(&config).start();
    world.status(); // it is up
    fs::rename(world.path("away"), world.path("logs")).unwrap();
    shipper.delivers(["two"]);
    let ended = shipper.stop().exits(0).printed([""; 0]);
    ended.never_said(GONE);
}

/// Whether there was more in it than was shipped, nobody knows: that is no loss. It is told
/// once, to whoever cares for the path: when something stands there again.
#[test]
fn a_file_that_was_deleted_while_stopped_is_no_loss_and_told_of_once() {
    let world = World::new();
    let config = to_stdout(json!([source("logs/*.log", "t")]));
    let mut logs = stopped_at_the_end(&world, &config, &["a"]);
    logs[0].write(["two"]);
    fs::remove_file(logs[0].path()).unwrap();
    let start = || world.run(&config).start();
    let shipper = start();
    world.status(); // it is up
    sleep(LONG_GONE);
    let ended = shipper.stop().exits(0).printed([""; 0]).never_said(GONE);
    assert_eq!(ended.losses(), []);

    let shipper = start();
    let mut next = world.log("logs/a.log");
    next.write(["of the next"]);
    shipper.delivers(["of the next"]);
    shipper.says(GONE);
    assert_eq!(shipper.stop().exits(0).losses(), []);
    let shipper = start();
    world.status();
    shipper.stop().exits(0).printed([""; 0]).never_said(GONE);
}

// ---- truncated ----------------------------------------------------------------------

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
