//! The daemon changes its mind while it runs: what is new holds within a second,
//! what is as it was notices nothing, and no line is lost or sent twice.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use logship::admin::{FileReport, Report};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::broker::{ApiKey, Broker, Fault, Misdeed, Record, check_sequence};
use crate::daemon::{GRACE, IN_EFFECT, Replace, config, records, source, text, to_broker, values};
use crate::world::{DEADLINE, Log, Rotate, Shipper, World, numbered};

/// How soon /healthz knows of a refused reload.
const HEALTH_WITHIN: Duration = Duration::from_secs(5);

/// Within a second, and what a loaded machine adds.
#[track_caller]
fn in_effect_since(begun: Instant) {
    let took = begun.elapsed();
    assert!(took < IN_EFFECT + GRACE, "it took {took:?}");
}

/// Puts a config into force with SIGHUP, and waits until it is.
#[track_caller]
fn reload(world: &World, shipper: &Shipper, config: &Value) {
    let before = world.status().config.revision;
    world.configure(config);
    shipper.signal(Signal::HUP);
    world.status_until("a new config", |report| report.config.revision > before);
}

/// The records of topics, one topic after the other.
fn all_of(broker: &Broker, topics: &[&str]) -> Vec<Record> {
    let of = |topic: &&str| broker.records(topic);
    topics.iter().flat_map(of).collect()
}

/// Waits until topics have so many records together.
#[track_caller]
fn arrive(broker: &Broker, topics: &[&str], count: usize) {
    let deadline = Instant::now() + DEADLINE;
    while all_of(broker, topics).len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} records\n{}",
            all_of(broker, topics).len(),
            broker.summary()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

// ---- how a change is noticed -----------------------------------------------------

#[test]
fn a_changed_file_holds_within_a_second_however_it_is_written() {
    let world = World::new();
    let mut sources = json!([source("none.log", "t")]);
    let shipper = world.run(&config(sources.clone())).start();
    world.status();
    for (n, how) in Replace::ALL.into_iter().enumerate() {
        let name = format!("{n}.log");
        world.log(&name).write([format!("{how:?}")]);
        sources[0] = source(&name, "t");
        let begun = Instant::now();
        world.replace_config(&text(&config(sources.clone())), how);
        shipper.delivers([format!("{how:?}")]);
        in_effect_since(begun);
    }
    let ended = shipper.stop().exits(0);
    assert!(!ended.stderr.contains("[ERROR]"), "{}", ended.stderr);
}

/// Prometheus takes a counter that goes back for a restart; those of before were taken to
/// the grave by the producers that a reload replaces.
#[test]
fn counters_go_on_when_producers_are_replaced() {
    let (broker, world) = (Broker::start(), World::new());
    world.log("app.log").write(["one"]);
    let mut config = config(json!([source("app.log", "t")]));
    config["kafka"] = json!({ "brokers": [broker.addresses()] });
    let shipper = world.run(&config).start();
    broker.wait_for("t", 1, DEADLINE);
    let answers = |report: Report| report.kafka.unwrap().request_seconds.count;
    let before = answers(world.status_until("an answer", |report| answers(report.clone()) > 0));
    config["kafka"]["linger"] = json!("51ms");
    world.configure(&config);
    shipper.says("lines go through new producers from now on");
    let after = answers(world.status());
    assert_eq!(after, before, "nothing was shipped since");
    shipper.stop().exits(0);
}

/// Ten seconds each, whatever was configured: too often where a directory locks a user out.
#[test]
fn the_pause_after_a_refusal_is_that_of_the_config() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, attempts) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"no TLS here\r\n");
            if sender.send(()).is_err() {
                return;
            }
        }
    });
    let mut config = config(json!([source("app.log", "t")]));
    config["kafka"] = json!({
        "brokers": [address],
        "producers": 1,
        "refused_backoff": "100ms",
        "tls": { "insecure_skip_verify": true },
    });
    let shipper = world.run(&config).start();
    shipper.says("cannot reach broker");
    let deadline = Instant::now() + DEADLINE;
    for _ in 0..10 {
        let left = deadline.saturating_duration_since(Instant::now());
        attempts.recv_timeout(left).expect("another attempt");
    }
    shipper.stop().exits(0);
}

/// What `/status` shows of a config would tell whoever guesses the password that he is right.
#[test]
fn the_hash_in_the_status_is_the_same_whatever_the_password_is() {
    let hash = |password: &str, user: &str| {
        let world = World::new();
        let mut config = config(json!([]));
        config["kafka"] = json!({
            "brokers": ["127.0.0.1:1"],
            "sasl": { "mechanism": "SCRAM-SHA-512", "username": user, "password": password },
        });
        let shipper = world.run(&config).start();
        let hash = world.status().config.hash;
        shipper.stop().exits(0);
        hash
    };
    let first = hash("hunter2", "me");
    assert_eq!(first.len(), 16, "{first}");
    assert_eq!(first, hash("hunter3", "me"));
    assert_ne!(first, hash("hunter2", "you"));
}

#[test]
fn sighup_reads_the_file_and_what_says_nothing_new_changes_nothing() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mut config = config(json!([source("app.log", "t")]));
    let shipper = world.run(&config).start();
    log.write(["one"]);
    shipper.delivers(["one"]);
    let thread = world.file("app.log", "t").unwrap().thread;

    shipper.signal(Signal::HUP);
    world.reloads("unchanged", 1);
    world.configure(&config); // the same content at another time
    log.write(["two"]);
    shipper.delivers(["two"]);
    config["stats_interval"] = json!("100ms");
    world.configure(&config);
    shipper.says("shipping read=2");

    let report = world.status();
    assert_eq!(report.config.revision, 2);
    assert_eq!(report.config.reloads["unchanged"], 1);
    assert_eq!(report.config.reloads["applied"], 1);
    assert_eq!(world.file("app.log", "t").unwrap().thread, thread);
    assert!(thread.is_some_and(|name| name.starts_with("tail:")));
    shipper.stop().exits(0);
}

#[test]
fn a_broken_file_changes_nothing_and_health_says_so_until_it_is_mended() {
    let world = World::new();
    let mut log = world.log("app.log");
    let good = text(&config(json!([source("app.log", "t")])));
    let bad = good.replace("\"topic\"", "\"topc\"");
    let shipper = world.run(&config(json!([source("app.log", "t")]))).start();
    world.health(200, HEALTH_WITHIN);
    let broken = |mend: &dyn Fn()| {
        let told = world.health(503, HEALTH_WITHIN);
        log_goes_on(&shipper, &world);
        mend();
        world.health(200, HEALTH_WITHIN);
        told
    };
    log.write(["one"]);
    shipper.delivers(["one"]);

    world.replace_config(&bad, Replace::Rename);
    let checked = world.logship(["check-config"]).arg(world.config()).run();
    let mistake = checked.stderr.lines().next().unwrap().to_owned();
    assert!(mistake.contains("logship.json:"), "{mistake}");
    let told = broken(&|| world.replace_config(&good, Replace::Rename));
    assert!(told.contains(&mistake), "{told}\nnot {mistake}");
    shipper.says(&mistake);

    // Gone, and back as it was.
    fs::rename(world.config(), world.path("away")).unwrap();
    let told = broken(&|| fs::rename(world.path("away"), world.config()).unwrap());
    assert!(told.contains("cannot read the config file"), "{told}");

    let report = world.status();
    assert_eq!(
        (report.config.revision, report.config.reloads["refused"]),
        (1, 2)
    );
    log.write(["two"]);
    shipper.delivers(["two"]);
    shipper.stop().exits(0);
}

fn log_goes_on(shipper: &Shipper, world: &World) {
    let mut log = world.log("app.log");
    log.write(["meanwhile"]);
    shipper.delivers(["meanwhile"]);
}

#[test]
fn what_needs_a_restart_is_said() {
    let world = World::new();
    let mut config = config(json!([source("app.log", "t")]));
    let shipper = world.run(&config).start();
    world.status();
    config["state_dir"] = json!("elsewhere");
    config["admin"] = json!({ "listen": "127.0.0.1:1" });
    config["sources"][0]["path"] = json!("other.log");
    world.log("other.log").write(["one"]);
    world.configure(&config);
    shipper.delivers(["one"]);
    shipper.says("state_dir cannot change while logship runs");
    shipper.says("admin.listen cannot change while logship runs");
    assert!(!world.path("elsewhere").exists());
    shipper.stop().exits(0);
}

// ---- sources come and go ---------------------------------------------------------

#[test]
fn a_source_that_is_removed_stops_and_one_that_comes_back_resumes() {
    let (broker, world) = (Broker::start(), World::new());
    let (mut stays, mut goes) = (world.log("stays.log"), world.log("goes.log"));
    let with = to_broker(
        &broker,
        json!([source("stays.log", "s"), source("goes.log", "g")]),
    );
    let without = to_broker(&broker, json!([source("stays.log", "s")]));
    let shipper = world.run(&with).start();
    let mut lines = Vec::new();
    for round in 0..4 {
        let more = numbered(round * 50..round * 50 + 50);
        stays.write(&more);
        goes.write(&more);
        lines.extend(more);
        arrive(&broker, &["g"], lines.len());
        let (thread, handle) = (
            world.file("stays.log", "s").unwrap().thread,
            shipper.descriptors("stays.log"),
        );
        assert_eq!(handle.len(), 1);

        let begun = Instant::now();
        world.replace_config(&text(&without), Replace::ALL[round]);
        world.status_until("the file to be let go", |report| report.files.len() == 1);
        in_effect_since(begun);
        assert_eq!(shipper.descriptors("goes.log"), [""; 0]);
        let more = [format!("between {round}")];
        goes.write(&more);
        goes.rotate(Rotate::Rename);
        goes.write(["after"]);
        lines.extend(more);
        lines.push("after".into());
        stays.write(["untouched"]);
        world.configure(&with);
        arrive(&broker, &["g"], lines.len());
        assert_eq!(world.file("stays.log", "s").unwrap().thread, thread);
        assert_eq!(shipper.descriptors("stays.log"), handle);
    }
    shipper.stop().exits(0);
    check_sequence(&lines, &broker.records("g")).assert_exact();
    assert_eq!(broker.records("s").len(), 4 * 51);
}

#[test]
fn an_added_source_begins_where_it_says() {
    let world = World::new();
    world.log("b.log").write(["from the beginning"]);
    let mut end = world.log("c.log");
    end.write(["never"]);
    let mut sources = json!([source("a.log", "t")]);
    let shipper = world.run(&config(sources.clone())).start();
    world.status();
    sources = json!([
        source("a.log", "t"),
        source("b.log", "t"),
        { "path": "c*.log", "topic": "c", "read_from": "end" },
    ]);
    reload(&world, &shipper, &config(sources));
    shipper.delivers(["from the beginning"]);
    shipper.awake(&mut end);
    world.log("c2.log").write(["later"]);
    shipper.delivers(["later"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// So many that some wait for their turn when the config changes.
#[test]
fn files_that_wait_for_their_turn_still_begin_at_their_end_after_a_reload() {
    const FILES: usize = 1_200;
    let world = World::new();
    world.dir("logs");
    let log = |n: usize| world.log(format!("logs/{n}.log"));
    (0..FILES).for_each(|n| log(n).write(["never"]));
    let mut config = config(json!([{ "path": "logs/*.log", "topic": "t", "read_from": "end" }]));
    let shipper = world.run(&config).start();
    world.status_until("some files", |report| report.files.len() > 600);
    config["sources"][0]["labels"] = json!({"a": "b"});
    config["sources"][0]["format"] = json!("json");
    reload(&world, &shipper, &config);
    world.status_until("all files", |report| {
        let open = |file: &&FileReport| file.inode > 0;
        report.files.iter().filter(open).count() == FILES
    });
    (0..FILES).for_each(|n| log(n).write(["new"]));
    for line in shipper.next_lines(FILES) {
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            (&value["message"], &value["labels"]["a"]),
            (&json!("new"), &json!("b"))
        );
    }
    shipper.stop().exits(0).printed([""; 0]);
}

/// A file that several sources want belongs to the first of them.
#[test]
fn a_file_goes_from_one_source_to_another_without_a_break() {
    let world = World::new();
    let mut log = world.log("app.log");
    let json_source = json!({ "path": "app*.log", "topic": "t", "format": "json" });
    let shipper = world
        .run(&config(json!([source("*.log", "t"), json_source])))
        .start();
    log.write(["one"]);
    shipper.delivers(["one"]);
    let handle = shipper.descriptors("app.log");
    let thread = world.file("app.log", "t").unwrap().thread;

    let excluding = json!({ "path": "*.log", "topic": "t", "exclude": ["app*"] });
    reload(&world, &shipper, &config(json!([excluding, json_source])));
    thread::sleep(Duration::from_millis(250));
    log.write(["two"]);
    let line = shipper.next_lines(1).remove(0);
    let value: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(value["message"], "two");
    assert_eq!(shipper.descriptors("app.log"), handle);
    assert_eq!(world.file("app.log", "t").unwrap().thread, thread);

    reload(&world, &shipper, &config(json!([excluding])));
    world.status_until("the excluded file to be let go", |report| {
        report.files.is_empty()
    });
    log.write(["three"]);
    reload(&world, &shipper, &config(json!([source("*.log", "t")])));
    shipper.delivers(["three"]);
    shipper.stop().exits(0).printed([""; 0]);
}

#[test]
fn a_changed_shape_keeps_the_position() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let shapes = [
        json!({ "format": "raw" }),
        json!({ "format": "json", "labels": {"v": "1"} }),
        json!({ "format": "json", "labels": {"v": "2"}, "key": "k" }),
        json!({ "format": "raw", "skip_empty": true, "line_bytes_max": 3 }),
        json!({ "headers": true }),
    ];
    let config = |shape: &Value| {
        let mut one = source("app.log", "t");
        one.as_object_mut()
            .unwrap()
            .extend(shape.as_object().unwrap().clone());
        to_broker(&broker, json!([one]))
    };
    let shipper = world.run(&config(&shapes[0])).start();
    world.status();
    for (n, shape) in shapes.iter().enumerate() {
        if n > 0 {
            reload(&world, &shipper, &config(shape));
        }
        // The tailer hears of it at its next look.
        thread::sleep(Duration::from_millis(250));
        log.write([format!("line{n}"), String::new()]);
        records(&broker, "t", [2, 4, 6, 7, 9][n]);
    }
    let all = broker.records("t");
    assert_eq!(all.len(), 9);
    let labels =
        |n: usize| serde_json::from_slice::<Value>(&all[n].value).unwrap()["labels"]["v"].clone();
    assert_eq!(
        (&all[0].value[..], labels(2), labels(4)),
        (&b"line0"[..], json!("1"), json!("2"))
    );
    assert_eq!(
        (all[4].key.as_deref(), &all[6].value[..]),
        (Some(&b"k"[..]), &b"lin"[..])
    );
    assert!(all[..7].iter().all(|record| record.headers.is_empty()));
    assert!(all[7..].iter().all(|record| record.headers.len() == 6));
    shipper.stop().exits(0);
}

// ---- another topic ---------------------------------------------------------------

/// What was read goes to the old one, what follows to the new one.
#[test]
fn a_changed_topic_begins_where_the_old_one_ends() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |topic: &str| to_broker(&broker, json!([source("*.log", topic)]));
    let shipper = world.run(&to("t0")).start();
    for round in 0..5 {
        let (topic, next) = (format!("t{round}"), format!("t{}", round + 1));
        log.write(numbered(round * 100..round * 100 + 100));
        records(&broker, &topic, 100);
        reload(&world, &shipper, &to(&next));
        if round % 2 == 0 {
            log.rotate(Rotate::Rename);
        }
        world.status_until("the new topic", |report| {
            report.files.iter().any(|file| file.topic == next)
        });
    }
    log.write(["the end"]);
    records(&broker, "t5", 1);
    shipper.stop().exits(0);
    for round in 0..5 {
        let lines = numbered(round * 100..round * 100 + 100);
        check_sequence(lines, &broker.records(&format!("t{round}"))).assert_exact();
    }
    assert_eq!(values(&broker, "t5"), ["the end"]);
}

/// A renamed file is held by the tailer of the name that it had, and found under the
/// name that it has, for the new topic: whoever is first must not read it again.
#[test]
fn a_topic_that_changes_just_after_a_rotation_within_a_pattern_repeats_nothing() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |topic: &str| to_broker(&broker, json!([source("app.log*", topic)]));
    let shipper = world.run(&to("t0")).start();
    for round in 0..8 {
        let (topic, next) = (format!("t{round}"), format!("t{}", round + 1));
        log.write(numbered(round * 100..round * 100 + 100));
        records(&broker, &topic, 100);
        log.rotate(Rotate::Rename);
        reload(&world, &shipper, &to(&next));
        world.status_until("the new topic", |report| {
            report.files.iter().any(|file| file.topic == next)
        });
    }
    log.write(["the end"]);
    records(&broker, "t8", 1);
    shipper.stop().exits(0);
    for round in 0..8 {
        let lines = numbered(round * 100..round * 100 + 100);
        check_sequence(lines, &broker.records(&format!("t{round}"))).assert_exact();
    }
    assert_eq!(values(&broker, "t8"), ["the end"]);
}

/// Names move on: each tailer holds the file that the next name leads to by now. The one
/// that hears of the new topic first took the other's file for one that nobody knows.
#[test]
fn a_topic_that_changes_while_names_move_on_repeats_nothing() {
    let (broker, world) = (Broker::start(), World::new());
    let to = |topic: &str| to_broker(&broker, json!([source("*.log*", topic)]));
    let lines = |n: usize| numbered(10 * n..10 * n + 10);
    let named = |n: usize, name: usize| world.path(format!("{n}.log.{name}"));
    for n in 0..20 {
        world.log(format!("{n}.log.1")).write(lines(2 * n));
        world.log(format!("{n}.log.2")).write(lines(2 * n + 1));
    }
    let shipper = world.run(&to("old")).start();
    records(&broker, "old", 400);
    for n in 0..20 {
        fs::rename(named(n, 2), named(n, 3)).unwrap();
        fs::rename(named(n, 1), named(n, 2)).unwrap();
    }
    thread::sleep(Duration::from_millis(50)); // for some to look, and not for others
    reload(&world, &shipper, &to("new"));
    for n in 0..20 {
        let mut late = fs::File::options().append(true).open(named(n, 2)).unwrap();
        late.write_all(format!("late {n}\n").as_bytes()).unwrap();
    }
    arrive(&broker, &["old", "new"], 420);
    thread::sleep(Duration::from_millis(500));
    let new = values(&broker, "new");
    shipper.stop().exits(0);
    assert_eq!(
        all_of(&broker, &["old", "new"]).len(),
        420,
        "again: {new:?}"
    );
}

/// The tailer of the name that is written to looks for files that were rotated away from
/// it unseen; one of a moment ago, known by another name and topic, seemed to be one.
#[test]
fn a_topic_that_changes_while_stopped_just_after_a_rotation_repeats_nothing() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |pattern, topic| to_broker(&broker, json!([source(pattern, topic)]));
    let shipper = world.run(&to("app.log*", "old")).start();
    log.write(numbered(0..10));
    records(&broker, "old", 10);
    log.rotate(Rotate::Rename);
    shipper.stop().exits(0);
    let shipper = world.run(&to("app.log*", "old")).start(); // it is found by its name of now
    let name = world.path("app.log.1").display().to_string();
    world.status_until("the new name", |report| {
        report.files.iter().any(|file| file.path == name)
    });
    shipper.stop().exits(0);
    log.write(["of now"]);
    let shipper = world.run(&to("app.log", "new")).start();
    records(&broker, "new", 1);
    thread::sleep(Duration::from_millis(500));
    shipper.stop().exits(0);
    assert_eq!(values(&broker, "new"), ["of now"]);
    check_sequence(numbered(0..10), &broker.records("old")).assert_exact();
}

/// As fast as one can ask for it, while lines keep coming.
#[test]
fn a_topic_that_changes_back_and_forth_under_load_loses_and_repeats_nothing() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |topic: &str| to_broker(&broker, json!([source("*.log", topic)]));
    let shipper = world.run(&to("one")).start();
    let mut count = 0;
    for round in 0..20 {
        for _ in 0..5 {
            log.write(numbered(count..count + 20));
            count += 20;
            thread::sleep(Duration::from_millis(5));
        }
        reload(&world, &shipper, &to(["two", "one"][round % 2]));
    }
    arrive(&broker, &["one", "two"], count);
    shipper.stop().exits(0);
    let mut all = all_of(&broker, &["one", "two"]);
    all.sort_by(|a, b| a.value.cmp(&b.value));
    check_sequence(numbered(0..count), &all).assert_exact();
    for topic in ["one", "two"] {
        let got = values(&broker, topic);
        assert!(got.is_sorted(), "{topic} is out of order");
    }
}

#[test]
fn a_topic_that_changes_while_kafka_is_away_loses_and_repeats_nothing() {
    for back in [false, true] {
        let (broker, world) = (Broker::start(), World::new());
        let mut log = world.log("app.log");
        let to = |topic: &str| to_broker(&broker, json!([source("*.log", topic)]));
        let shipper = world.run(&to("one")).start();
        log.write(["first"]);
        world.acked("one", 1);
        broker.pause();
        log.write(numbered(0..100));
        world.status_until("the topic to stall", |report| {
            report.files.iter().any(|file| file.state == "full")
        });
        let begun = Instant::now();
        reload(&world, &shipper, &to("two"));
        world.status_until("the new topic", |report| {
            report.files.iter().any(|file| file.topic == "two")
        });
        in_effect_since(begun);
        log.write(numbered(100..200));
        if back {
            reload(&world, &shipper, &to("one"));
            world.status_until("the old topic", |report| {
                report
                    .files
                    .iter()
                    .any(|file| file.topic == "one" && file.state != "rotated")
            });
            log.write(numbered(200..300));
        }
        let count = if back { 300 } else { 200 };
        broker.resume();
        arrive(&broker, &["one", "two"], count + 1);
        world.status_until("all to be settled", |report| {
            report.topics.values().all(|topic| topic.lag_bytes == 0)
        });
        shipper.stop().exits(0);
        let mut all = all_of(&broker, &["one", "two"]);
        all.sort_by(|a, b| a.value.cmp(&b.value));
        let lines = [vec!["first".to_owned()], numbered(0..count)].concat();
        check_sequence(lines, &all).assert_exact();
        assert!(values(&broker, "one").contains(&numbered([0])[0]));
        if !back {
            check_sequence(numbered(100..200), &broker.records("two")).assert_exact();
        }
    }
}

#[test]
fn a_topic_that_changes_while_the_file_sleeps_or_logship_does_goes_on() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |topic: &str| {
        let mut config = to_broker(
            &broker,
            json!([{ "path": "*.log", "topic": topic, "read_from": "end" }]),
        );
        config["idle_after"] = json!("50ms");
        config
    };
    let shipper = world.run(&to("one")).start();
    world.status_until("the file", |report| {
        report.files.iter().any(|file| file.inode == log.inode())
    });
    log.write(["1"]);
    records(&broker, "one", 1);
    world.all_asleep(1);
    reload(&world, &shipper, &to("two"));
    log.write(["2"]);
    records(&broker, "two", 1);
    world.all_asleep(1);
    reload(&world, &shipper, &to("one"));
    log.write(["3"]);
    records(&broker, "one", 2);
    shipper.stop().exits(0);
    log.write(["4"]);
    let shipper = world.run(&to("three")).start();
    log.write(["5"]);
    records(&broker, "three", 2);
    shipper.stop().exits(0);
    let got = ["one", "two", "three"].map(|topic| values(&broker, topic).join(" "));
    assert_eq!(got, ["1 3", "2", "4 5"]);
}

/// Where the link led was asked anew for the account of the new topic, when it led
/// elsewhere by then: the file was not found after the next start.
#[test]
fn a_topic_that_changes_after_a_link_was_pointed_elsewhere_forgets_no_target() {
    let (broker, world) = (Broker::start(), World::new());
    world.dir("old");
    world.dir("new");
    let mut target = world.log("old/1.txt");
    let (mut link, mut next) = (world.later("app.log"), world.log("new/2.txt"));
    link.point_at(&target);
    let to = |topic: &str| to_broker(&broker, json!([source("app.log", topic)]));
    let shipper = world.run(&to("one")).start();
    target.write(["one"]);
    records(&broker, "one", 1);
    link.point_at(&next);
    next.write(["two"]);
    records(&broker, "one", 2);
    reload(&world, &shipper, &to("new"));
    world.status_until("the new topic for both", |report| {
        let new = report.files.iter().filter(|file| file.topic == "new");
        new.count() == 2
    });
    shipper.stop().exits(0);
    target.write(["late"]);
    next.write(["three"]);
    let shipper = world.run(&to("new")).start();
    records(&broker, "new", 2);
    shipper.stop().exits(0);
    let mut new = values(&broker, "new");
    new.sort_unstable();
    assert_eq!(new, ["late", "three"]);
}

/// What was on its way to the old topic came back when the file did not hold it any more:
/// the account of the new topic was told of the truncation, the old one's was not, so that
/// nobody said what was lost.
#[test]
fn what_a_truncation_takes_from_a_topic_of_before_is_told() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |topic: &str| {
        let mut config = to_broker(&broker, json!([source("*.log", topic)]));
        config["shutdown_timeout"] = json!("300ms");
        // Other producers: until the old ones are done, nothing is read.
        config["kafka"]["linger"] = json!(if topic == "one" { "5ms" } else { "6ms" });
        config
    };
    let shipper = world.run(&to("one")).start();
    log.write(["first"]);
    records(&broker, "one", 1);
    broker.fault(Fault::of(Misdeed::Silence).on(ApiKey::Produce));
    log.write(numbered(0..10));
    broker.wait_for_requests(ApiKey::Produce, 2, DEADLINE);
    let lost = (6, log.size());
    reload(&world, &shipper, &to("two"));
    log.truncate();
    log.write(["of the next life"]);
    world.status_until("the next life", |report| {
        report.files.iter().any(|file| file.generation == 1)
    });
    let ended = shipper.stop().exits(0); // nothing waits any more
    let losses: Vec<_> = ended
        .losses()
        .iter()
        .map(|loss| (loss.from, loss.to))
        .collect();
    assert_eq!(losses, [lost], "{}", ended.stderr);
    broker.clear_faults();
    let shipper = world.run(&to("two")).start();
    records(&broker, "two", 1);
    shipper.stop().exits(0);
    assert_eq!(values(&broker, "two"), ["of the next life"]);
}

/// The new one is written down before the old one is settled.
#[test]
fn a_kill_just_after_a_changed_topic_loses_nothing() {
    for pause_ms in [0, 100, 400, 1_300] {
        let (broker, world) = (Broker::start(), World::new());
        let mut log = world.log("app.log");
        let to = |topic: &str| to_broker(&broker, json!([source("*.log", topic)]));
        let shipper = world.run(&to("one")).start();
        log.write(["first"]);
        world.acked("one", 1);
        broker.pause();
        log.write(numbered(0..100));
        world.status_until("the lines to be read", |report| {
            report.topics["one"].read_lines == 101
        });
        reload(&world, &shipper, &to("two"));
        log.write(numbered(100..200));
        thread::sleep(Duration::from_millis(pause_ms));
        shipper.kill();
        broker.resume();
        let shipper = world.run(&to("two")).start();
        log.write(["the end"]);
        let deadline = Instant::now() + DEADLINE;
        while !values(&broker, "two").contains(&"the end".to_owned()) {
            assert!(Instant::now() < deadline, "{}", broker.summary());
            thread::sleep(Duration::from_millis(5));
        }
        shipper.stop().exits(0);
        let lines = [
            vec!["first".into()],
            numbered(0..200),
            vec!["the end".into()],
        ]
        .concat();
        let report = check_sequence(&lines, &all_of(&broker, &["one", "two"]));
        assert!(report.missing.is_empty(), "after {pause_ms} ms: {report}");
    }
}

// ---- another Kafka ---------------------------------------------------------------

/// A log that is written to until it is told to end.
fn writing<T>(log: &mut Log, work: impl FnOnce() -> T) -> (usize, T) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                log.write(numbered(count..count + 20));
                count += 20;
                thread::sleep(Duration::from_millis(10));
            }
            count
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (writer.join().unwrap(), result)
    })
}

#[test]
fn other_brokers_and_producers_under_load_keep_every_line_and_the_order() {
    let (a, b, world) = (Broker::start(), Broker::start(), World::new());
    let mut log = world.log("app.log");
    let sources = json!([source("*.log", "t")]);
    let mut config = to_broker(&a, sources.clone());
    let shipper = world.run(&config).start();
    world.status();
    let (count, at_a) = writing(&mut log, || {
        records(&a, "t", 20);
        for (key, value) in [
            ("/kafka/compression", json!("zstd")),
            ("/kafka/producers", json!(3)),
            ("/queue/bytes", json!("1MiB")),
            // The new producers are faster than what the old ones have.
            ("/kafka/linger", json!("150ms")),
            ("/kafka/linger", json!("1ms")),
            ("/kafka/linger", json!("150ms")),
            ("/kafka/linger", json!("1ms")),
            ("/kafka/compression", json!("none")),
        ] {
            config["queue"]["bytes"] = config["queue"]
                .get("bytes")
                .cloned()
                .unwrap_or(json!("4MiB"));
            config["kafka"]["producers"] = config["kafka"]
                .get("producers")
                .cloned()
                .unwrap_or(json!(2));
            config["kafka"]["compression"] = config["kafka"]
                .get("compression")
                .cloned()
                .unwrap_or(json!("lz4"));
            *config.pointer_mut(key).unwrap() = value;
            let seen = a.records("t").len();
            reload(&world, &shipper, &config);
            records(&a, "t", seen + 200);
        }
        config["kafka"]["brokers"] = json!([b.addresses()]);
        reload(&world, &shipper, &config);
        records(&b, "t", 200);
        let at_a = a.records("t").len();
        // The old connections are gone.
        world.status_until("the old producers' end", |_| shipper.threads("send:") == 3);
        at_a
    });
    log.write(["the end"]);
    arrive_last(&b, "the end");
    shipper.stop().exits(0);
    assert_eq!(a.records("t").len(), at_a, "the old cluster got more");
    let all = [a.records("t"), b.records("t")].concat();
    let lines = [numbered(0..count), vec!["the end".into()]].concat();
    check_sequence(lines, &all).assert_exact();
}

#[track_caller]
fn arrive_last(broker: &Broker, last: &str) {
    let deadline = Instant::now() + DEADLINE;
    while values(broker, "t").last().is_none_or(|value| value != last) {
        assert!(Instant::now() < deadline, "{}", broker.summary());
        thread::sleep(Duration::from_millis(10));
    }
}

/// The old producers' connection is dead, and nobody has noticed yet.
#[test]
fn what_the_old_producers_cannot_send_is_not_overtaken() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let mut config = to_broker(&broker, json!([source("*.log", "t")]));
    let shipper = world.run(&config).start();
    log.write(["first"]);
    world.acked("t", 1);
    broker.fault(Fault::of(Misdeed::Silence).on(ApiKey::Produce).times(1));
    log.write(numbered(0..100));
    broker.wait_for_requests(ApiKey::Produce, 2, DEADLINE);
    config["kafka"]["compression"] = json!("none");
    reload(&world, &shipper, &config);
    log.write(numbered(100..200));
    thread::sleep(Duration::from_millis(1_200)); // time for whoever is hasty
    broker.pause(); // as when the connection's end is noticed at last
    broker.resume();
    let lines = [vec!["first".into()], numbered(0..200)].concat();
    check_sequence(lines, &records(&broker, "t", 201)).assert_exact();
    shipper.stop().exits(0);
}

/// A broker that took a batch and does not confirm it knows the batch again only from
/// the producer that sent it: other producers for the same broker sent it twice.
#[test]
fn what_the_old_producers_wait_for_is_not_sent_again_by_the_new_ones() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let mut config = to_broker(&broker, json!([source("*.log", "t")]));
    let shipper = world.run(&config).start();
    broker.fault(Fault::of(Misdeed::ErrorAfterAppend(7)).on(ApiKey::Produce)); // REQUEST_TIMED_OUT
    log.write(numbered(0..100));
    records(&broker, "t", 1);
    config["kafka"]["linger"] = json!("7ms");
    reload(&world, &shipper, &config);
    log.write(numbered(100..200));
    thread::sleep(Duration::from_millis(1_500)); // time for whoever is hasty
    broker.clear_faults();
    check_sequence(numbered(0..200), &records(&broker, "t", 200)).assert_exact();
    shipper.stop().exits(0);
}

/// Every one of them is a pool of threads, and they are not to be many.
#[test]
fn a_broker_that_never_answers_does_not_gather_producers() {
    let (broker, world) = (Broker::start(), World::new());
    let mut config = to_broker(&broker, json!([source("*.log", "t")]));
    let shipper = world.run(&config).start();
    broker.fault(Fault::of(Misdeed::Silence).on(ApiKey::Produce));
    for n in 0..12 {
        world.log(format!("{n}.log")).write(["a line"]);
        broker.wait_for_requests(ApiKey::Produce, n + 1, DEADLINE);
        config["kafka"]["linger"] = json!(format!("{}ms", n + 1));
        reload(&world, &shipper, &config);
    }
    thread::sleep(Duration::from_millis(1_200));
    // Two of the pool of now, two each of four that wait.
    let threads = || shipper.threads("send:");
    world.status_until("few producers", |_| threads() <= 10);
    broker.clear_faults();
    broker.pause();
    broker.resume();
    records(&broker, "t", 12);
    world.status_until("the old producers' end", |_| threads() == 2);
    shipper.stop().exits(0);
}

/// Tailers that the old producers had told to hold still must not wait for them.
#[test]
fn another_kafka_takes_what_the_dead_one_did_not() {
    let (dead, live, world) = (Broker::start(), Broker::start(), World::new());
    let mut log = world.log("app.log");
    let config = |broker: &Broker| to_broker(broker, json!([source("*.log", "t")]));
    let shipper = world.run(&config(&dead)).start();
    log.write(["first"]);
    world.acked("t", 1);
    dead.pause();
    log.write(numbered(0..1_000));
    world.status_until("the topic to stall", |report| {
        report.files.iter().any(|file| file.state == "full")
    });
    let begun = Instant::now();
    reload(&world, &shipper, &config(&live));
    in_effect_since(begun);
    check_sequence(numbered(0..1_000), &records(&live, "t", 1_000)).assert_exact();
    shipper.stop().exits(0);
}

#[test]
fn a_reload_while_kafka_is_away_holds_within_a_second() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("a.log");
    world.log("b.log").write(["one"]);
    let both = to_broker(&broker, json!([source("a.log", "t"), source("b.log", "t")]));
    let one = to_broker(&broker, json!([source("b.log", "t")]));
    broker.pause();
    let shipper = world.run(&one).start();
    log.write(numbered(0..10_000));
    for (config, files) in [(&both, 2), (&one, 1), (&both, 2)] {
        let begun = Instant::now();
        world.configure(config);
        world.status_until("the files", |report| report.sources.len() == files);
        in_effect_since(begun);
        world.status_until("the files", |report| {
            report
                .files
                .iter()
                .filter(|file| file.thread.is_some())
                .count()
                == files
        });
        in_effect_since(begun);
    }
    broker.resume();
    records(&broker, "t", 10_001);
    shipper.stop().exits(0);
    let mut got = broker.records("t");
    got.retain(|record| record.value != "one");
    check_sequence(numbered(0..10_000), &got).assert_exact();
}

// ---- and all of it ---------------------------------------------------------------

#[test]
fn a_hundred_reloads_under_load_are_not_noticed_by_untouched_files() {
    const FILES: usize = 10;
    const BATCH: usize = 60;
    let (broker, world) = (Broker::builder().partitions(4).start(), World::new());
    let mut logs: Vec<Log> = (0..FILES).map(|n| world.log(format!("{n}.log"))).collect();
    world.log("extra.log").write(["extra"]);
    let mut base = to_broker(&broker, json!([source("[0-9].log", "t")]));
    let shipper = world.run(&base).start();
    world.status_until("the files", |report| {
        let open = |file: &&FileReport| file.inode > 0 && file.thread.is_some();
        report.files.iter().filter(open).count() == FILES
    });
    let threads = || -> Vec<_> {
        let files = world.status().files;
        let ours = files.into_iter().filter(|file| file.topic == "t");
        ours.map(|file| (file.path, file.thread)).collect()
    };
    let before = threads();
    let handles = shipper.descriptors(".log");

    let done = AtomicBool::new(false);
    let counts: Vec<usize> = thread::scope(|scope| {
        let writers: Vec<_> = logs
            .iter_mut()
            .enumerate()
            .map(|(n, log)| {
                let done = &done;
                scope.spawn(move || {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        log.write(of_file(n, count..count + BATCH));
                        count += BATCH;
                        thread::sleep(Duration::from_millis(30));
                    }
                    count
                })
            })
            .collect();
        for round in 0..100 {
            base["sources"] = match round % 4 {
                0 => json!([source("[0-9].log", "t"), source("extra.log", "x")]),
                1 => json!([source("extra.log", "y"), source("[0-9].log", "t")]),
                2 => {
                    json!([{ "path": "extra.log", "topic": "y", "format": "json" }, source("[0-9].log", "t")])
                }
                _ => json!([source("[0-9].log", "t")]),
            };
            world.configure(&base);
            shipper.signal(Signal::HUP);
            world.status_until("a reload", |report| report.config.revision >= round + 2);
        }
        done.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    let total: usize = counts.iter().sum();
    let all = records(&broker, "t", total);
    assert_eq!(threads(), before);
    assert_eq!(shipper.descriptors(".log"), handles);
    shipper.stop().exits(0);
    assert_eq!(broker.records("t").len(), total);
    for (n, count) in counts.into_iter().enumerate() {
        let start = format!("{n} ");
        let ours = |record: &&Record| record.value.starts_with(start.as_bytes());
        let ours: Vec<Record> = all.iter().filter(ours).cloned().collect();
        check_sequence(of_file(n, 0..count), &ours).assert_exact();
    }
    // Taken away and given to another topic within milliseconds, its line may be
    // sent again while it is on its way; but it is sent.
    let extra = [values(&broker, "x"), values(&broker, "y")].concat();
    assert!(!extra.is_empty());
}

fn of_file(n: usize, lines: std::ops::Range<usize>) -> Vec<String> {
    let pad = "x".repeat(480);
    lines.map(|line| format!("{n} {line:09} {pad}")).collect()
}
