//! The daemon: what a config makes it do, from its start to its end.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::broker::{ApiKey, Broker, Fault, Misdeed, check_sequence};
use crate::daemon::{config, records, source, to_broker, values};
use crate::world::{Rotate, World, numbered, walk};

/// How soon a new file must be found with the configs of these tests.
const FOUND_WITHIN: Duration = Duration::from_secs(2);

// ---- what is tailed --------------------------------------------------------------

#[test]
fn several_sources_ship_to_their_topics_in_their_formats() {
    let (broker, world) = (Broker::start(), World::new());
    let (mut web, mut db) = (world.log("web.log"), world.log("db.log"));
    web.write(["GET /"]);
    db.write(["", "select 1", "", "toolong"]);
    let shipper = world
        .run(&to_broker(
            &broker,
            json!([
                { "path": "web.log", "topic": "web", "format": "json", "labels": {"env": "test"}, "key": "{path}" },
                { "path": "db.log", "topic": "db", "skip_empty": true, "line_bytes_max": 4 },
            ]),
        ))
        .start();

    assert_eq!(
        records(&broker, "db", 2)
            .iter()
            .map(|r| &r.value[..])
            .collect::<Vec<_>>(),
        [b"sele", b"tool"]
    );
    let record = records(&broker, "web", 1).remove(0);
    let key = web.path().display().to_string();
    assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
    let value: Value = serde_json::from_slice(&record.value).unwrap();
    assert_eq!(value["message"], "GET /");
    assert_eq!(value["labels"], json!({"env": "test"}));
    assert_eq!(value["log"]["file"]["path"], json!(key));

    world.status_until("all to be acknowledged", |report| {
        report.topics["db"].lag_bytes == 0
    });
    let report = world.status();
    assert_eq!(report.topics["db"].dropped_lines["empty"], 2, "{report:?}");
    assert_eq!(report.topics["db"].truncated_lines, 2, "{report:?}");
    shipper.stop().exits(0);
}

#[test]
fn new_files_are_found_from_their_beginning_also_below_new_directories() {
    let world = World::new();
    world.dir("logs");
    let sources = json!([{
        "path": "logs/**/*.log", "topic": "t", "exclude": ["*.tmp.log", "logs/skip/**"], "read_from": "end",
    }]);
    world.log("logs/old.log").write(["old"]);
    let shipper = world.run(&config(sources)).start();
    shipper.says("running");
    world.status_until("the old file", |report| report.files.len() == 1);

    let begun = Instant::now();
    for name in ["logs/a.log", "logs/new/b.log", "logs/new/deep/er/c.log"] {
        fs::create_dir_all(world.path(name).parent().unwrap()).unwrap();
        world.log(name).write(["one", "two"]);
        shipper.delivers(["one", "two"]);
    }
    fs::create_dir_all(world.path("logs/skip")).unwrap();
    for name in ["logs/x.tmp.log", "logs/skip/y.log", "logs/x.txt"] {
        world.log(name).write(["not this"]);
    }
    assert!(begun.elapsed() < 3 * FOUND_WITHIN, "{:?}", begun.elapsed());
    world.log("logs/z.log").write(["the end"]);
    shipper.delivers(["the end"]);
    let files: Vec<String> = world.status().files.into_iter().map(|f| f.path).collect();
    assert_eq!(files.len(), 5, "{files:?}");
}

#[test]
fn a_named_file_that_is_missing_is_told_once_and_found_when_it_is_made() {
    let world = World::new();
    let shipper = world
        .run(&config(json!([source("logs/later.log", "t")])))
        .start();
    shipper.says("logs/later.log: it does not exist");
    world.dir("logs");
    let mut log = world.later("logs/later.log");
    log.write(["one"]);
    shipper.delivers(["one"]);
    let ended = shipper.stop().exits(0);
    assert_eq!(ended.stderr.matches("does not exist").count(), 1);
}

#[test]
fn a_file_under_two_topics_goes_to_both_and_one_of_two_sources_once() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let shipper = world
        .run(&to_broker(
            &broker,
            json!([
                source("app.log", "one"),
                source("*.log", "two"),
                source("a*.log", "one")
            ]),
        ))
        .start();
    log.write(numbered(0..100));
    check_sequence(numbered(0..100), &records(&broker, "one", 100)).assert_exact();
    check_sequence(numbered(0..100), &records(&broker, "two", 100)).assert_exact();
    shipper.says_line("a warning about two topics", |line| {
        line.contains("WARN") && line.contains("app.log") && line.contains("topics=one,two")
    });
    let second = numbered(100..200);
    log.rotate(Rotate::Rename);
    log.write(&second);
    records(&broker, "one", 200);
    records(&broker, "two", 200);
    shipper.stop().exits(0);
    for topic in ["one", "two"] {
        check_sequence(numbered(0..200), &broker.records(topic)).assert_exact();
    }
}

#[test]
fn reading_from_the_end_is_for_the_first_look_at_a_source() {
    let world = World::new();
    let mut end = json!([{ "path": "a/*.log", "topic": "a", "read_from": "end" }]);
    world.dir("a");
    let mut old = world.log("a/old.log");
    old.write(["before"]);
    let run = |sources: &Value| world.run(&config(sources.clone())).start();
    let shipper = run(&end);
    shipper.awake(&mut old);
    world.log("a/new.log").write(["first of the new file"]);
    shipper.delivers(["first of the new file"]);
    shipper.stop().exits(0);

    // While it is stopped: a file of the old source, and a new source with an old file.
    world.log("a/meanwhile.log").write(["meanwhile"]);
    world.dir("b");
    let mut other = world.log("b/old.log");
    other.write(["never"]);
    end.as_array_mut()
        .unwrap()
        .push(json!({ "path": "b/*.log", "topic": "b", "read_from": "end" }));
    let shipper = run(&end);
    shipper.delivers(["meanwhile"]);
    shipper.awake(&mut other);
    world.log("b/new.log").write(["later"]);
    shipper.delivers(["later"]);
    shipper.stop().exits(0).printed([""; 0]);
}

// ---- start, stop, start again ----------------------------------------------------

#[test]
fn a_second_start_goes_on_where_the_first_stopped() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let config = to_broker(&broker, json!([source("*.log", "t")]));
    for (round, signal) in [Signal::TERM, Signal::INT, Signal::TERM]
        .into_iter()
        .enumerate()
    {
        let lines = numbered(round * 3_000..round * 3_000 + 3_000);
        let shipper = world.run(&config).start();
        log.write(&lines);
        records(&broker, "t", round * 3_000 + 1_000);
        shipper.signal(signal);
        shipper.ends().exits(0);
    }
    let shipper = world.run(&config).start();
    log.write(["the end"]);
    let all = records(&broker, "t", 9_001);
    shipper.stop().exits(0);
    let lines = [numbered(0..9_000), vec!["the end".into()]].concat();
    check_sequence(lines, &all).assert_exact();
}

#[test]
fn a_kill_loses_nothing() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let config = to_broker(&broker, json!([source("*.log", "t")]));
    for round in 0..3 {
        let shipper = world.run(&config).start();
        log.write(numbered(round * 2_000..round * 2_000 + 2_000));
        let seen = broker.records("t").len();
        records(&broker, "t", seen + 1);
        shipper.kill();
    }
    let shipper = world.run(&config).start();
    log.write(["the end"]);
    loop {
        let got = broker.records("t");
        if got.last().is_some_and(|record| record.value == "the end") {
            break;
        }
        records(&broker, "t", got.len() + 1);
    }
    shipper.stop().exits(0);
    let lines = [numbered(0..6_000), vec!["the end".into()]].concat();
    let all = broker.records("t");
    let report = check_sequence(&lines, &all);
    assert!(report.missing.is_empty(), "{report}");
}

#[test]
fn exit_codes_say_how_it_ended() {
    // 3: not everything is acknowledged, and a second signal ends it at once.
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let mut away = to_broker(&broker, json!([source("*.log", "t")]));
    broker.pause();
    let shipper = world.run(&away).start();
    log.write(["one"]);
    read_one(&world);
    shipper.signal(Signal::TERM);
    shipper.says("stopping: waiting up to 10s");
    let begun = Instant::now();
    shipper.stop().exits(3).never_said("reload");
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    // 3 again, by its own deadline.
    away["shutdown_timeout"] = json!("200ms");
    let shipper = world.run(&away).start();
    read_one(&world);
    shipper.stop().exits(3);
    // 4: dead letters.
    broker.resume();
    broker.fault(
        Fault::of(Misdeed::Error(87))
            .on(ApiKey::Produce)
            .topic("t")
            .times(1),
    );
    let shipper = world.run(&away).start();
    shipper.says("dead letters");
    log.write(["two"]);
    records(&broker, "t", 1);
    shipper.stop().exits(4);
    assert_eq!(values(&broker, "t"), ["two"]);
    assert!(world.path("state/dead-letters.jsonl").exists());
}

fn read_one(world: &World) {
    world.status_until("a line to be read", |report| {
        let topic = report.topics.get("t");
        topic.is_some_and(|topic| topic.read_lines == 1)
    });
}

#[test]
fn two_daemons_do_not_share_a_state_directory() {
    let world = World::new();
    world.log("app.log").write(["one"]);
    let config = config(json!([source("*.log", "t")]));
    let first = world.run(&config).start();
    first.delivers(["one"]);
    let second = world.run(&config).run().exits(1);
    assert!(
        second.stderr.contains(&first.pid().to_string()),
        "{second:?}"
    );
    first.stop().exits(0);
}

#[test]
fn a_config_that_is_missing_or_wrong_is_refused_with_its_place() {
    let world = World::new();
    let config = world.config();
    let run = || world.logship(["run", "--config"]).arg(&config).run();
    run().exits(2).said("logship.json");

    fs::write(
        &config,
        "{\n  \"sources\": [\n    {\"path\": \"*.log\", \"topc\": \"t\"}\n  ]\n}\n",
    )
    .unwrap();
    let ran = run().exits(2);
    let checked = world
        .logship(["check-config"])
        .arg(&config)
        .run()
        .exits(2)
        .stderr;
    let place = format!(
        "{}:3:23: sources[0].topc: unknown key, did you mean 'topic'?",
        config.display()
    );
    assert!(ran.stderr.contains(&place), "{}", ran.stderr);
    assert!(checked.contains(&place), "{checked}");
    world.logship(["run"]).run().exits(2).said("--config");
    assert!(!world.state_dir().exists());
}

#[test]
fn without_kafka_and_state_dir_nothing_is_kept() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one"]);
    let mut config = config(json!([source("*.log", "t")]));
    config.as_object_mut().unwrap().remove("state_dir");
    let before: Vec<PathBuf> = walk(&world.path(""));
    for _ in 0..2 {
        let shipper = world.run(&config).start();
        shipper.delivers(["one"]);
        shipper.stop().exits(0).said("no kafka in the config");
    }
    let mut after = walk(&world.path(""));
    after.retain(|path| *path != world.config());
    assert_eq!(before, after);
}

// ---- a slow Kafka ----------------------------------------------------------------

#[test]
fn a_source_that_drops_stays_at_the_live_end_beside_one_that_waits() {
    let (broker, world) = (Broker::start(), World::new());
    let (mut drops, mut waits) = (world.log("drops.log"), world.log("waits.log"));
    let sources = json!([
        { "path": "drops.log", "topic": "drops", "when_full": "drop" },
        source("waits.log", "waits"),
    ]);
    let mut config = to_broker(&broker, sources);
    config["queue"] = json!({ "bytes": "1MiB" });
    let shipper = world.run(&config).start();
    for log in [&mut drops, &mut waits] {
        log.write(["first"]);
    }
    records(&broker, "drops", 1);
    records(&broker, "waits", 1);
    broker.pause();
    for log in [&mut drops, &mut waits] {
        log.write(numbered(0..60_000));
    }
    world.status_until("something to be dropped", |report| {
        report.topics["drops"].dropped_lines["queue_full"] > 0
    });
    broker.resume();
    let all = records(&broker, "waits", 60_001);
    check_sequence([vec!["first".into()], numbered(0..60_000)].concat(), &all).assert_exact();
    let report = world.status_until("all to be settled", |report| {
        report.topics.values().all(|topic| topic.lag_bytes == 0)
    });
    let topic = &report.topics["drops"];
    assert_eq!(
        topic.acked_lines + topic.dropped_lines["queue_full"],
        60_001,
        "{topic:?}"
    );
    assert_eq!(
        topic.known_bytes,
        topic.acked_bytes + topic.dropped_bytes["queue_full"]
    );
    drops.write(["the end"]);
    let dropped = topic.dropped_lines["queue_full"];
    records(&broker, "drops", usize::try_from(60_002 - dropped).unwrap());
    assert_eq!(
        values(&broker, "drops").last().map(String::as_str),
        Some("the end")
    );
    shipper.stop().exits(0);
}

// ---- messages --------------------------------------------------------------------

#[test]
fn the_log_file_is_opened_again_when_it_was_rotated() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mut config = config(json!([source("app.log", "t")]));
    config["stats_interval"] = json!("100ms");
    let faults = world.dir("faults");
    let shipper = world
        .run(&config)
        .env("LOGSHIP_TEST_FAULTS", &faults)
        .args(["--log-file", "own.txt"])
        .start();
    log.write(["one"]);
    shipper.delivers(["one"]);
    let own = world.path("own.txt");
    let holds = |path: &PathBuf, text: &str| {
        let deadline = Instant::now() + crate::world::DEADLINE;
        while !fs::read_to_string(path).is_ok_and(|told| told.contains(text)) {
            assert!(
                Instant::now() < deadline,
                "{} never says '{text}'",
                path.display()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    holds(&own, "shipping read=1");
    fs::rename(&own, world.path("own.txt.1")).unwrap();
    holds(&own, "shipping read=1");
    fs::write(faults.join("tail"), "").unwrap();
    holds(&own, "panicked: a test wants this thread to fail: tail");
    holds(&own, "a thread failed");
    let ended = shipper.stop().exits(0);
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);
    holds(&own, "done read=1");
}
