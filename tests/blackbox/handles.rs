//! Handles are few: more files than may be open, rotated files that are kept open,
//! deleted ones that fill the disk, and renamed ones whose writer has not noticed.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, Record, check_sequence};
use crate::daemon::{config, records, source, to_broker, values};
use crate::world::{DEADLINE, Log, Rotate, Shipper, World, figure, numbered};

/// A config for files `*.log` of which so many may be open.
fn with_handles(mut config: Value, open_files_max: usize) -> Value {
    config["open_files_max"] = json!(open_files_max);
    config
}

fn logs_open(shipper: &Shipper) -> usize {
    shipper.descriptors(".log").len()
}

/// The lines of one file among those of all.
fn of_file(records: &[Record], name: &str) -> Vec<String> {
    let values = records.iter().map(|record| {
        let text = String::from_utf8_lossy(&record.value);
        text.into_owned()
    });
    values.filter(|value| value.starts_with(name)).collect()
}

// ---- more files than handles -----------------------------------------------------

#[test]
fn five_files_are_all_shipped_and_followed_through_one_handle() {
    let world = World::new();
    let mut logs: Vec<Log> = (0..5).map(|n| world.log(format!("{n}.log"))).collect();
    for (n, log) in logs.iter_mut().enumerate() {
        log.write((0..100).map(|line| format!("{n}: {line}")));
    }
    let config = with_handles(config(json!([source("*.log", "t")])), 1);
    let shipper = world.run(&config).start();
    let all = |from: usize, to: usize| {
        (0..5).flat_map(move |n| (from..to).map(move |line| format!("{n}: {line}")))
    };
    shipper.delivers_in_any_order(all(0, 100));
    for round in 0..3 {
        for (n, log) in logs.iter_mut().enumerate() {
            log.write([format!("{n}: {}", 100 + round)]);
        }
        shipper.delivers_in_any_order(all(100 + round, 101 + round));
        assert!(logs_open(&shipper) <= 1);
    }
    assert_eq!(world.metric("logship_open_files_max"), 1.0);
    let ended = shipper.stop().exits(0).printed([""; 0]);
    let told = ended.stderr.matches("they take turns").count();
    assert_eq!(told, 1, "{}", ended.stderr);
}

/// Files that had waited for their first turn since before a reload offered their
/// lines to the producers of before, which were gone: logship ended.
#[test]
fn files_that_wait_for_a_handle_during_a_reload_are_shipped_by_the_new_producers() {
    let (world, broker) = (World::new(), Broker::start());
    let mut expected: Vec<String> = (0..4).map(|n| format!("line of {n}")).collect();
    for (n, line) in expected.iter().enumerate() {
        world.log(format!("{n}.log")).write([line]);
    }
    let mut config = with_handles(to_broker(&broker, json!([source("*.log", "t")])), 1);
    broker.pause(); // so that none of them is settled and gives its handle away
    let shipper = world.run(&config).start();
    shipper.says("they take turns");
    config["kafka"]["linger"] = json!("7ms");
    world.configure(&config);
    world.reloads("applied", 1);
    world.status_until("all files to be read", |report| {
        let lines: u64 = report.topics.values().map(|topic| topic.read_lines).sum();
        lines == 4
    });
    broker.resume();

    records(&broker, "t", 4);

    let mut arrived = values(&broker, "t");
    arrived.sort();
    expected.sort();
    assert_eq!(arrived, expected);
    shipper.stop().exits(0);
}

/// None of the files is ever quiet, so none would give its handle away by itself.
#[test]
fn files_that_never_rest_share_fewer_handles_than_they_are() {
    const FILES: usize = 8;
    let (broker, world) = (Broker::start(), World::new());
    let config = with_handles(to_broker(&broker, json!([source("*.log", "t")])), 2);
    let names: Vec<String> = (0..FILES).map(|n| format!("{n}.log")).collect();
    let logs: Vec<Log> = names.iter().map(|name| world.log(name)).collect();
    let resting = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = logs
        .into_iter()
        .enumerate()
        .map(|(n, mut log)| {
            let resting = Arc::clone(&resting);
            thread::spawn(move || {
                let mut written = 0;
                while !resting.load(Ordering::Relaxed) {
                    log.write([format!("{n}: {written}")]);
                    written += 1;
                    thread::sleep(Duration::from_millis(5));
                }
                written
            })
        })
        .collect();
    let shipper = world.run(&config).start();

    // Lines of every file arrive while all of them are being written, twice over.
    let mut goal = vec![0; FILES];
    for _ in 0..2 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let all = broker.records("t");
            let counts = (0..FILES).map(|n| of_file(&all, &format!("{n}: ")).len());
            let counts: Vec<usize> = counts.collect();
            if counts.iter().zip(&goal).all(|(count, goal)| count > goal) {
                goal = counts;
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{counts:?} of more than {goal:?}"
            );
            assert!(logs_open(&shipper) <= 2);
            thread::sleep(Duration::from_millis(20));
        }
    }
    resting.store(true, Ordering::Relaxed);
    let written: Vec<usize> = writers.into_iter().map(|w| w.join().unwrap()).collect();
    let all = records(&broker, "t", written.iter().sum());
    for (n, written) in written.into_iter().enumerate() {
        let expected: Vec<String> = (0..written).map(|line| format!("{n}: {line}")).collect();
        assert_eq!(of_file(&all, &format!("{n}: ")), expected);
    }
    shipper.stop().exits(0);
}

#[test]
fn a_rotation_is_followed_through_one_handle() {
    let world = World::new();
    let (mut a, mut b) = (world.log("a.log"), world.log("b.log"));
    let config = with_handles(config(json!([source("*.log", "t")])), 1);
    let shipper = world.run(&config).start();
    a.write(["a 1"]);
    b.write(["b 1"]);
    shipper.delivers_in_any_order(["a 1", "b 1"]);
    for round in 2..5 {
        for (name, log) in [("a", &mut a), ("b", &mut b)] {
            log.write([format!("{name} {round} old")]);
            log.rotate(Rotate::Rename);
            log.write([format!("{name} {round} new")]);
        }
        let lines =
            ["a", "b"].map(|name| [format!("{name} {round} old"), format!("{name} {round} new")]);
        shipper.delivers_in_any_order(lines.concat());
        let open = shipper.descriptors(".log").len() + shipper.descriptors(".log.1").len();
        assert!(open <= 1, "{open} files are open");
    }
    shipper.stop().exits(0).printed([""; 0]);
}

/// The limit is the one of the process where the config names none.
#[test]
fn a_process_that_may_open_few_files_ships_many() {
    for once in ["--once", "--from=beginning"] {
        let world = World::new();
        let mut expected = Vec::new();
        for n in 0..60 {
            let lines: Vec<String> = (0..20).map(|line| format!("{n}: {line}")).collect();
            world.log(format!("{n}.log")).write(&lines);
            expected.extend(lines);
        }
        let script = "ulimit -n 32; exec \"$@\"";
        let tail = world.tail(["*.log"]).arg(once);
        let shipper = tail.through("sh").prefixed(["-c", script, "sh"]).start();
        shipper.delivers_in_any_order(&expected);
        let ended = if once == "--once" {
            shipper.ends()
        } else {
            shipper.stop()
        };
        ended
            .exits(0)
            .printed([""; 0])
            .never_said("Too many open files");
    }
}

// ---- generations ------------------------------------------------------------------

/// While as many rotated files are open as may be, others come and go. They are
/// found by their names when there is room.
#[test]
fn rotations_beyond_the_limit_of_open_generations_lose_nothing() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let mut config = to_broker(&broker, json!([source("app.log", "t")]));
    config["open_generations_max"] = json!(3);
    let shipper = world.run(&config).start();
    log.write(["the beginning"]);
    records(&broker, "t", 1);
    broker.pause();
    let mut expected = vec!["the beginning".to_owned()];
    for generation in 0..12 {
        let lines = numbered(generation * 10..generation * 10 + 10);
        log.write(&lines);
        expected.extend(lines);
        log.rotate(Rotate::Rename);
        thread::sleep(Duration::from_millis(150)); // so that each is looked at
    }
    log.write(["the end"]);
    expected.push("the end".to_owned());
    assert!(shipper.open_files().len() < 30);
    shipper.says("open_generations_max");
    broker.resume();

    let all = records(&broker, "t", expected.len());
    check_sequence(expected, &all).assert_exact();
    shipper.stop().exits(0).never_said("lost path");
}

/// Nothing stands at the path whenever it is looked at, and yet there was a file.
#[test]
fn a_file_that_came_and_went_while_the_path_was_missing_is_found() {
    for idle_after in ["10ms", "1h"] {
        let world = World::new();
        let mut config = config(json!([source("app.log", "t")]));
        config["idle_after"] = json!(idle_after);
        config["discover_interval"] = json!("1h"); // the path is its tailer's
        let mut log = world.log("app.log");
        let shipper = world.run(&config).start();
        log.write(["one"]);
        shipper.delivers(["one"]);
        log.rename_to(world.path("app.log.2"));
        thread::sleep(Duration::from_millis(400)); // it is seen to be missing
        let mut unseen = world.log("app.log");
        unseen.write(["of the unseen file"]);
        unseen.rename_to(world.path("app.log.1"));
        thread::sleep(Duration::from_millis(400));
        world.log("app.log").write(["of the next"]);

        shipper.delivers(["of the unseen file", "of the next"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

/// The same of a path that was never there, and sleeps for that long.
#[test]
fn a_file_that_came_and_went_before_anything_stood_at_a_named_path_is_found() {
    let world = World::new();
    let log = world.later("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    shipper.says("it does not exist");
    thread::sleep(Duration::from_millis(400)); // it sleeps
    let mut unseen = log;
    unseen.write(["of the unseen file"]);
    unseen.rename_to(world.path("app.log.1"));
    thread::sleep(Duration::from_millis(400));
    world.log("app.log").write(["of the next"]);

    shipper.delivers(["of the unseen file", "of the next"]);
    shipper.stop().exits(0).printed([""; 0]);
}

// ---- deleted files ------------------------------------------------------------------

#[test]
fn deleted_files_take_no_more_of_the_disk_than_they_may() {
    let (broker, world) = (Broker::start(), World::new());
    let mut config = to_broker(&broker, json!([source("app.log", "t")]));
    config["queue"] = json!({ "bytes": "1MiB" });
    config["held_deleted_bytes_max"] = json!("6MiB");
    let mut log = world.log("app.log");
    let shipper = world.run(&config).start();
    log.write(["the beginning"]);
    records(&broker, "t", 1);
    broker.pause();
    let (mut written, mut inodes) = (0, Vec::new());
    for generation in 0..3 {
        log.write(numbered(generation * 60_000..(generation + 1) * 60_000));
        written += log.size();
        inodes.push(log.inode());
        world.status_until("the file to be open", |report| {
            report.files.iter().any(|file| file.inode == log.inode())
        });
        log.rotate(Rotate::Recreate);
    }
    log.write(["the end"]);
    written += log.size();
    let report = world.status_until("the bound to hold", |report| {
        let lost = &report.topics["t"].lost_bytes["held_deleted_bytes_max"];
        *lost > 0 && report.held_deleted_bytes <= 6 << 20
    });
    assert!(report.held_deleted_bytes > 4 << 20, "{report:#?}");
    broker.resume();

    let report = world.status_until("everything to be settled", |report| {
        let topic = &report.topics["t"];
        topic.lag_bytes == 0 && topic.known_bytes == written
    });
    let topic = &report.topics["t"];
    let lost = topic.lost_bytes["held_deleted_bytes_max"];
    assert_eq!(topic.acked_bytes + lost, written, "{topic:?}");
    let delivered = values(&broker, "t");
    assert_eq!(delivered.last().map(String::as_str), Some("the end"));
    let told = shipper.stop().exits(0).losses();
    assert_eq!(told.iter().map(|loss| loss.bytes).sum::<u64>(), lost);
    assert!(told.iter().all(|loss| inodes.contains(&loss.inode)));
    assert!(told[0].line.contains("reason=held_deleted_bytes_max"));
}

// ---- writers that have not noticed --------------------------------------------------

/// A program that is never told to open its log again writes to the renamed file for
/// as long as it runs.
#[test]
fn a_writer_that_never_noticed_the_rename_is_heard_long_after() {
    is_heard_long_after_the_rename("1h");
}

#[test]
fn a_writer_that_never_noticed_the_rename_wakes_the_path_that_sleeps() {
    is_heard_long_after_the_rename("150ms");
}

fn is_heard_long_after_the_rename(idle_after: &str) {
    let world = World::new();
    let mut config = config(json!([source("app.log", "t")]));
    config["idle_after"] = json!(idle_after);
    let mut old = world.log("app.log");
    let mut shipper = world.run(&config).start();
    old.write(["one"]);
    shipper.delivers(["one"]);
    old.rename_to(world.path("app.log.1"));
    let mut new = world.log("app.log");
    new.write(["of the new one"]);
    shipper.delivers(["of the new one"]);
    shipper.has_open(false, |path| path.ends_with("app.log.1"));

    old.write(["two"]);
    shipper.delivers(["two"]);
    shipper.has_open(false, |path| path.ends_with("app.log.1"));
    fs::rename(world.path("app.log.1"), world.path("app.log.2")).unwrap();
    old.write(["three"]);
    shipper.delivers(["three"]);
    shipper.has_open(false, |path| path.ends_with("app.log.2"));

    // Also over a restart.
    shipper.stop().exits(0).printed([""; 0]);
    old.write(["four"]);
    new.write(["of the new one again"]);
    let shipper = world.run(&config).start();
    shipper.delivers_in_any_order(["four", "of the new one again"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// A device number is the kernel's, and another one after a restart of the machine.
#[test]
fn files_whose_device_number_has_changed_go_on_where_they_were() {
    let world = World::new();
    let mut log = world.log("app.log");
    let config = config(json!([source("app.log", "t")]));
    let shipper = world.run(&config).start();
    log.write(["one", "two"]);
    shipper.delivers(["one", "two"]);
    shipper.stop().exits(0);
    log.write(["the rest of the old one"]);
    log.rotate(Rotate::Rename);
    log.write(["three"]);
    world.renumber_devices();

    for round in 0..2 {
        let shipper = world.run(&config).start();
        if round == 0 {
            shipper.delivers(["the rest of the old one", "three"]);
        } else {
            log.write(["four"]);
            shipper.delivers(["four"]);
        }
        let ended = shipper.stop().exits(0).printed([""; 0]);
        let told = ended.stderr.contains("device number");
        assert_eq!(told, round == 0, "{}", ended.stderr);
        assert_eq!(figure(&ended.stderr, "lost_bytes"), None);
    }
}

/// Whoever writes to a renamed file is heard as long as nothing takes its path; so many
/// of them as may be open kept all others from being read, for ever.
#[test]
fn files_that_were_renamed_and_have_no_successor_give_way_to_others() {
    for pattern in [true, false] {
        let world = World::new();
        let mut logs = ["a", "b", "c"].map(|name| world.log(format!("{name}.log")));
        let sources = match pattern {
            true => json!([source("*.log", "t")]),
            false => json!(["a.log", "b.log", "c.log"].map(|path| source(path, "t"))),
        };
        let shipper = world.run(&with_handles(config(sources), 2)).start();
        for log in &mut logs[..2] {
            log.write(["one"]);
        }
        shipper.delivers(["one", "one"]);
        for log in &logs[..2] {
            let old = format!("{}.1", log.path().display());
            fs::rename(log.path(), old).unwrap();
        }
        logs[2].write(["two"]);
        shipper.delivers(["two"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

/// Its handle is for another file, nothing has its path, and its writer notices the rename
/// late: what it wrote to the old file was never read.
#[test]
fn a_renamed_file_that_gave_its_handle_away_is_listened_to_while_nothing_has_its_path() {
    let world = World::new();
    let mut logs = [world.log("a.log"), world.log("b.log")];
    let config = with_handles(config(json!([source("*.log", "t")])), 1);
    let mut shipper = world.run(&config).start();
    logs[0].write(["one"]);
    logs[1].write(["two"]);
    shipper.delivers_in_any_order(["one", "two"]);
    let old = world.path("a.log.1");
    logs[0].rename_to(&old);
    shipper.has_open(true, |path| path == old);
    logs[1].write(["three"]);
    shipper.delivers(["three"]);
    shipper.has_open(false, |path| path == old);
    thread::sleep(Duration::from_secs(1)); // its path is given up by then
    logs[0].write(["late"]);
    shipper.delivers(["late"]);
    fs::remove_file(&old).unwrap();
    world.status_until("nothing to listen to", |report| report.files.len() == 1);
    shipper.stop().exits(0).printed([""; 0]);
}
