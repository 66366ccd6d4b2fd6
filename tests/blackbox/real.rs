//! Against a real Apache Kafka, read back by kcat, and with the real logrotate.
//!
//! `tests/run` starts the broker; a plain `cargo test` leaves these out.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::daemon::{config, source, to_broker};
use crate::kafka::Topic;
use crate::world::{Log, Loss, World, bytes_name, figure, numbered};

const DEADLINE: Duration = Duration::from_secs(60);

/// The broker that `tests/run` started.
fn broker() -> String {
    std::env::var("LOGSHIP_TEST_KAFKA").expect("LOGSHIP_TEST_KAFKA is set: run tests/run")
}

/// A topic of it that no other test has.
fn new_topic() -> Topic {
    Topic::at(&broker())
}

/// Values and lines are the same, in order; else where they first differ.
#[track_caller]
fn assert_same(values: &[Vec<u8>], lines: &[String]) {
    let differ = values
        .iter()
        .zip(lines)
        .position(|(value, line)| value != line.as_bytes());
    let at = differ.unwrap_or(values.len().min(lines.len()));
    let text = |value: &Vec<u8>| String::from_utf8_lossy(value).into_owned();
    assert!(
        differ.is_none() && values.len() == lines.len(),
        "{} records of {} lines; at {at} came {:?} instead of {:?}",
        values.len(),
        lines.len(),
        values.get(at).map(text),
        lines.get(at)
    );
}

/// The records of a file as they must arrive.
fn lines_of(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read(path).unwrap();
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    text.split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
        .collect()
}

#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn the_sample_log_arrives_byte_for_byte_once_and_in_order() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let (world, topic) = (World::new(), new_topic());
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sample.log");
        let log = world.later("sample.log");
        fs::copy(sample, log.path()).unwrap();
        let run = || {
            topic
                .tail(&world, &[&log])
                .once()
                .args(["--compression", codec])
                .run()
        };

        run().exits(0);
        let partitions = topic.partitions();
        assert_eq!(partitions.len(), 1, "one file, one partition");
        assert_eq!(topic.values(), lines_of(log.path()), "{codec}");

        run().exits(0);
        assert_eq!(
            topic.values().len(),
            lines_of(log.path()).len(),
            "sent again"
        );
    }
}

#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn every_file_keeps_its_order_over_four_partitions() {
    let (world, topic) = (World::new(), new_topic());
    let mut logs: Vec<Log> = (0..8).map(|n| world.log(format!("{n}.log"))).collect();
    let all: Vec<Vec<String>> = (0..8)
        .map(|n| {
            numbered(0..10_000)
                .iter()
                .map(|line| format!("{n} {line}"))
                .collect()
        })
        .collect();
    for (log, lines) in logs.iter_mut().zip(&all) {
        log.write(lines);
    }
    topic
        .tail(&world, &logs.iter().collect::<Vec<_>>())
        .once()
        .run()
        .exits(0);

    let values = topic.values();
    assert_eq!(values.len(), 80_000);
    assert!(topic.partitions().len() > 1);
    for (n, lines) in all.iter().enumerate() {
        let start = format!("{n} ");
        let ours: Vec<&[u8]> = values
            .iter()
            .map(Vec::as_slice)
            .filter(|value| value.starts_with(start.as_bytes()))
            .collect();
        let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        assert!(ours == lines, "file {n} is not what arrived");
    }
}

#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn spread_batches_arrive_once_in_all_partitions() {
    let (world, topic) = (World::new(), new_topic());
    let mut log = world.log("app.log");
    let lines = numbered(0..300_000);
    log.write(&lines);
    let tail = topic.tail(&world, &[&log]).once();
    tail.args(["--partition", "spread", "--compression", "none"])
        .run()
        .exits(0);

    let mut values = topic.values();
    values.sort();
    assert!(
        values
            == lines
                .iter()
                .map(|l| l.clone().into_bytes())
                .collect::<Vec<_>>()
    );
    assert_eq!(topic.partitions().len(), 4);
}

/// The issue's sentence: killed half way with SIGKILL and started again, no
/// line is missing.
#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn killed_half_way_and_started_again_no_line_is_missing() {
    let (world, topic) = (World::new(), new_topic());
    let mut log = world.log("app.log");
    let mut lines = Vec::new();
    for round in 0..6 {
        let more = numbered(round * 50_000..(round + 1) * 50_000);
        let shipper = topic.tail(&world, &[&log]).arg("--headers").start();
        log.write(&more);
        lines.extend(more);
        topic.wait_for(round * 50_000 + 1);
        shipper.kill();
    }
    let tail = topic.tail(&world, &[&log]).arg("--headers");
    tail.once().run().exits(0);

    let verify = topic.verify(&world, "app.log").arg("--allow-repeats");
    verify.run().exits(0);
    let mut values = topic.values();
    let sent = values.len();
    values.sort();
    values.dedup();
    assert!(
        values
            == lines
                .iter()
                .map(|l| l.clone().into_bytes())
                .collect::<Vec<_>>()
    );
    // Each kill repeats at most what was not in the checkpoint: one round.
    assert!(
        sent <= 2 * lines.len(),
        "{sent} records of {} lines",
        lines.len()
    );
}

#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn a_stop_and_a_start_in_mid_stream_deliver_every_line_once() {
    let (world, topic) = (World::new(), new_topic());
    let mut log = world.log("app.log");
    let lines = numbered(0..200_000);
    for part in lines.chunks(50_000) {
        let shipper = topic.tail(&world, &[&log]).start();
        log.write(part);
        topic.wait_for(1);
        shipper.stop().exits(0);
    }
    topic.tail(&world, &[&log]).once().run().exits(0);
    assert_same(&topic.values(), &lines);
}

#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn a_line_of_just_over_a_mebibyte_of_noise_is_cut_and_accepted() {
    let (world, topic) = (World::new(), new_topic());
    let mut log = world.log("app.log");
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..1_100_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .filter(|byte| !b"\r\n".contains(byte))
        .collect();
    log.write_raw(&noise);
    log.write(["", "next"]);
    topic.tail(&world, &[&log]).once().run().exits(0);

    let values = topic.values();
    assert_eq!(values.len(), 2);
    assert!(values[0].len() > 1_040_000 && noise.starts_with(&values[0]));
    assert_eq!(values[1], b"next");
}

/// The real logrotate with a config for one log.
struct Logrotate<'a> {
    world: &'a World,
}

impl Logrotate<'_> {
    fn of<'a>(world: &'a World, log: &Log, directives: &str) -> Logrotate<'a> {
        let text = format!("{} {{\n{directives}\n}}\n", log.path().display());
        fs::write(world.path("logrotate.conf"), text).unwrap();
        Logrotate { world }
    }

    /// One rotation.
    #[track_caller]
    fn rotates(&self) {
        let done = Command::new("logrotate")
            .args(["--force", "--state"])
            .arg(self.world.path("logrotate.state"))
            .arg(self.world.path("logrotate.conf"))
            .output()
            .expect("logrotate is installed: run tests/run");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.is_empty(), "{said}");
    }
}

/// As somebody else's consumer shows them.
#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn headers_are_what_kcat_shows() {
    let (world, topic) = (World::new(), new_topic());
    let mut log = world.log("app.log");
    log.write(["one", "", "three"]);
    let tail = topic.tail(&world, &[&log]).once().arg("--headers");
    tail.run().exits(0);

    let shown = topic.kcat(&["-f", "%h %s\n"]).unwrap();

    let host = rustix::system::uname();
    let meta = fs::metadata(log.path()).unwrap();
    let line = |(offset, value): (u64, &str)| {
        format!(
            "path={},host={},device={},inode={},generation=0,offset={offset} {value}\n",
            log.path().display(),
            host.nodename().to_str().unwrap(),
            meta.dev(),
            meta.ino(),
        )
    };
    let expected: String = [(0, "one"), (4, ""), (5, "three")].map(line).concat();
    assert_eq!(String::from_utf8(shown).unwrap(), expected);
}

/// What kcat makes of bytes that JSON has no place for, as the tests with a broker of
/// our own take it to do.
#[test]
#[ignore = "needs a real Kafka: run tests/run"]
fn lines_of_any_bytes_are_proven_through_kcat() {
    let bytes: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    for format in ["raw", "json"] {
        let (world, topic) = (World::new(), new_topic());
        let mut log = world.log(bytes_name(b"odd\xff\"\n\\.log"));
        log.write([&bytes[..], b"", b"\r", b"\xff", &bytes[128..]]);
        let tail = topic.tail(&world, &[&log]).once();
        let tail = tail.args(["--headers", "--format", format]);
        tail.run().exits(0);

        topic
            .verify(&world, "odd*")
            .run()
            .exits(0)
            .printed(["done files=1 records=5 arrived=5 missing=0 repeated=0 misordered=0"]);
        log.write(["missing"]);
        topic.verify(&world, "odd*").run().exits(5);
    }
}

/// The real logrotate, both ways, while lines keep coming.
#[test]
#[ignore = "needs logrotate and a real Kafka: run tests/run"]
fn logrotate_create_and_copytruncate_lose_and_repeat_nothing() {
    for how in ["create", "copytruncate"] {
        let (world, topic) = (World::new(), new_topic());
        let mut log = world.log("app.log");
        let logrotate = Logrotate::of(&world, &log, &format!("rotate 9\n{how}"));
        let shipper = topic.tail(&world, &[&log]).arg("--headers").start();

        for round in 0..5 {
            log.write(numbered(round * 100..round * 100 + 100));
            // With copytruncate, what was not read before is lost by design.
            topic.wait_for(round * 100 + 100);
            logrotate.rotates();
            if how == "create" {
                log.reopen();
            }
        }
        log.write(["the end"]);

        let values = topic.wait_for(501);
        let ended = shipper.stop().exits(0);
        let mut lines: Vec<Vec<u8>> = numbered(0..500).into_iter().map(Into::into).collect();
        lines.push(b"the end".to_vec());
        assert!(values == lines, "{how}: {} records", values.len());
        assert!(!ended.stderr.contains("lost"), "{}", ended.stderr);
        let verify = topic.verify(&world, "app.log*").run();
        verify
            .exits(0)
            .printed(["done files=6 records=501 arrived=501 missing=0 repeated=0 misordered=0"]);
    }
}

/// A source of a log, and of what logrotate makes of it but for what is compressed.
fn with_rotated(pattern: &str) -> Value {
    let mut source = source(pattern, "t");
    source["exclude"] = json!(["*.gz"]);
    config(json!([source]))
}

/// What is compressed may have no line end, and be read without a trace in the lines.
#[track_caller]
fn none_is_compressed(world: &World) {
    let mut files = world.status().files;
    files.retain(|file| file.path.ends_with(".gz"));
    assert_eq!(files, []);
}

/// Nothing is lost, and nothing that logrotate makes is shipped again, also under a
/// pattern that its names fit.
#[test]
#[ignore = "needs logrotate: run tests/run"]
fn however_logrotate_renames_nothing_is_lost_and_nothing_shipped_again() {
    for (how, rounds) in [
        ("create", 4),
        ("nocreate", 4),
        ("dateext", 1), // once a day
        ("compress\ndelaycompress", 4),
    ] {
        for pattern in ["app.log", "app.log*"] {
            let world = World::new();
            let mut log = world.log("app.log");
            let logrotate = Logrotate::of(&world, &log, &format!("rotate 3\n{how}"));
            let shipper = world.run(&with_rotated(pattern)).start();
            for round in 0..rounds {
                let lines = numbered(round * 20..round * 20 + 20);
                log.write(&lines);
                shipper.delivers(&lines);
                log.write([format!("{round} just before the rename")]);
                logrotate.rotates();
                log.write([format!("{round} just after the rename")]);
                let late = ["before", "after"];
                shipper.delivers(late.map(|when| format!("{round} just {when} the rename")));
                log.reopen();
            }
            log.write(["the end"]);
            shipper.delivers(["the end"]);
            none_is_compressed(&world);
            let ended = shipper.stop().exits(0).printed([""; 0]);
            ended.never_said("lost").never_said("gone");
        }
    }
}

/// `compress` without `delaycompress` leaves nothing of the old file but its handle.
#[test]
#[ignore = "needs logrotate: run tests/run"]
fn a_log_that_logrotate_compresses_at_once_is_shipped_once() {
    for pattern in ["app.log", "app.log*"] {
        let world = World::new();
        let mut log = world.log("app.log");
        let logrotate = Logrotate::of(&world, &log, "rotate 3\ncreate\ncompress");
        let shipper = world.run(&with_rotated(pattern)).start();
        for round in 0..5 {
            let lines = numbered(round * 20..round * 20 + 20);
            log.write(&lines);
            shipper.delivers(&lines);
            log.write([format!("{round} just before")]);
            logrotate.rotates();
            log.write([format!("{round} just after")]);
            log.reopen();
            shipper.delivers(["before", "after"].map(|when| format!("{round} just {when}")));
        }
        none_is_compressed(&world);
        shipper.stop().exits(0).printed([""; 0]).never_said("lost");
    }
}

#[test]
#[ignore = "needs logrotate: run tests/run"]
fn a_log_that_logrotate_renames_while_logship_is_stopped_is_finished_first() {
    for how in ["create", "nocreate", "dateext", "compress\ndelaycompress"] {
        for pattern in ["app.log", "app.log*"] {
            let world = World::new();
            let mut log = world.log("app.log");
            let logrotate = Logrotate::of(&world, &log, &format!("rotate 3\n{how}"));
            let shipper = world.run(&with_rotated(pattern)).start();
            log.write(["before the stop"]);
            shipper.delivers(["before the stop"]);
            shipper.stop().exits(0).printed([""; 0]);

            log.write(["before the rename"]);
            logrotate.rotates();
            log.write(["after the rename"]);
            log.reopen();
            log.write(["new"]);
            let shipper = world.run(&with_rotated(pattern)).start();
            shipper.delivers_in_any_order(["before the rename", "after the rename", "new"]);
            shipper.stop().exits(0).printed([""; 0]).never_said("lost");
        }
    }
}

/// The writer goes on at its offset, so each life but the first begins with a hole
/// as long as the one before: dropped, counted, and not a byte of it shipped.
#[test]
#[ignore = "needs logrotate: run tests/run"]
fn copytruncate_under_a_writer_that_does_not_append_leaves_a_hole_that_is_counted() {
    let world = World::new();
    let log = world.log("app.log");
    let mut writer = fs::File::create(log.path()).unwrap(); // without O_APPEND
    let logrotate = Logrotate::of(&world, &log, "rotate 9\ncopytruncate");
    let shipper = world.run(&config(json!([source("app.log", "t")]))).start();
    let (mut acked, mut holes) = (0, 0);
    for round in 0..4 {
        let lines = numbered(round * 500..round * 500 + 500);
        for line in &lines {
            writeln!(writer, "{line}").unwrap();
        }
        shipper.delivers(&lines);
        holes += acked;
        acked += lines.iter().map(|line| line.len() as u64 + 1).sum::<u64>();
        world.acked("t", (round as u64 + 1) * 500);
        logrotate.rotates();
    }
    let topic = world.status().topics.remove("t").unwrap();
    assert_eq!(
        (topic.acked_bytes, topic.dropped_bytes["nul_hole"]),
        (acked, holes)
    );
    assert_eq!((topic.known_bytes, topic.lag_bytes), (acked + holes, 0));
    assert_eq!(topic.lost_bytes.values().sum::<u64>(), 0);
    let ended = shipper.stop().exits(0).printed([""; 0]);
    let dropped = figure(ended.stderr.lines().last().unwrap(), "dropped_bytes");
    assert_eq!(dropped, Some(holes), "{}", ended.stderr);
    assert_eq!(ended.losses(), []);
}

/// Behind at the moment of truncation: what was lost and what was delivered are what
/// was written, to the byte, and the loss says which bytes of which file.
#[test]
#[ignore = "needs logrotate: run tests/run"]
fn what_copytruncate_takes_away_and_what_is_delivered_are_what_was_written() {
    for appending in [true, false] {
        let world = World::new();
        let log = world.log("app.log");
        let options = || fs::File::options();
        let mut writer = options()
            .append(appending)
            .write(true)
            .open(log.path())
            .unwrap();
        let logrotate = Logrotate::of(&world, &log, "rotate 9\ncopytruncate");
        let mut config = config(json!([source("app.log", "t")]));
        config["queue"] = json!({ "bytes": "1MiB" });
        let shipper = world.run(&config).start();
        shipper.pause_reading();
        let lines = numbered(0..120_000);
        let text = lines.join("\n") + "\n";
        writer.write_all(text.as_bytes()).unwrap();
        let written = text.len() as u64;
        world.status_until("a full queue and the whole size", |report| {
            report
                .files
                .iter()
                .any(|file| (file.state.as_str(), file.size) == ("full", written))
        });

        logrotate.rotates();
        writeln!(writer, "first after the truncation").unwrap();
        let loss = shipper.says_line("what was lost", |line| Loss::in_line(line).is_some());
        let loss = Loss::in_line(&loss).unwrap();
        assert!(
            loss.line.contains(log.path().to_str().unwrap()),
            "{}",
            loss.line
        );
        assert_eq!(
            (loss.inode, loss.to),
            (log.inode(), written),
            "{}",
            loss.line
        );
        shipper.resume_reading();
        let kept = text[..usize::try_from(loss.from).unwrap()].lines();
        shipper.delivers(kept);
        shipper.delivers(["first after the truncation"]);

        world.status_until("an end", |report| report.topics["t"].lag_bytes == 0);
        let topic = world.status().topics.remove("t").unwrap();
        let delivered = loss.from + "first after the truncation\n".len() as u64;
        let hole = if appending { 0 } else { written };
        assert_eq!(topic.acked_bytes, delivered);
        assert_eq!(topic.lost_bytes["truncated"], loss.bytes);
        assert_eq!(topic.dropped_bytes["nul_hole"], hole);
        assert_eq!(loss.from + loss.bytes, written);
        let ended = shipper.stop().exits(0).printed([""; 0]);
        assert_eq!(ended.losses().len(), 1, "{}", ended.stderr);
    }
}

/// The old file goes to another directory: while logship runs its handle leads
/// there; while it does not, nothing does, and what was not read is reported.
#[test]
#[ignore = "needs logrotate: run tests/run"]
fn a_log_that_goes_to_the_olddir_is_read_to_its_end_or_reported_as_lost() {
    for pattern in ["app.log", "app.log*"] {
        let world = World::new();
        let old = world.dir("old");
        let mut log = world.log("app.log");
        let directives = format!("rotate 9\ncreate\nolddir {}", old.display());
        let logrotate = Logrotate::of(&world, &log, &directives);
        let run = || world.run(&config(json!([source(pattern, "t")]))).start();
        let shipper = run();
        for round in 0..4 {
            log.write([format!("{round} before")]);
            shipper.delivers([format!("{round} before")]);
            log.write([format!("{round} just before")]);
            logrotate.rotates();
            log.write([format!("{round} just after")]);
            log.reopen();
            log.write([format!("{round} new")]);
            shipper.delivers(
                ["just before", "just after", "new"].map(|when| format!("{round} {when}")),
            );
        }
        log.write_raw("seen and not finished");
        world.status_until("the unfinished line", |report| {
            report.topics["t"].lag_bytes == 21
        });
        let (size, inode) = (log.size(), log.inode());
        shipper.stop().exits(0).printed([""; 0]);

        logrotate.rotates();
        log.reopen();
        log.write(["after the stop"]);
        let shipper = run();
        shipper.delivers(["after the stop"]);
        shipper.says("what was written to it after it was last looked at is not known");
        let ended = shipper.stop().exits(0).printed([""; 0]);
        let losses = ended.losses();
        let found: Vec<_> = losses
            .iter()
            .map(|loss| (loss.inode, loss.to, loss.bytes))
            .collect();
        assert_eq!(found, [(inode, size, 21)], "{}", ended.stderr);
    }
}

/// `rotate 1` deletes what is older than the last one; Kafka is away meanwhile.
#[test]
#[ignore = "needs logrotate: run tests/run"]
fn logs_that_logrotate_deletes_while_kafka_is_away_are_shipped_from_their_handles() {
    for pattern in ["app.log", "app.log*"] {
        let (broker, world) = (Broker::start(), World::new());
        let mut log = world.log("app.log");
        let logrotate = Logrotate::of(&world, &log, "rotate 1\ncreate");
        let shipper = world
            .run(&to_broker(&broker, json!([source(pattern, "t")])))
            .start();
        log.write(["one"]);
        world.acked("t", 1);
        broker.pause();
        for round in 0..6 {
            let lines = numbered(round * 20..round * 20 + 20);
            log.write(&lines);
            let known = ((round + 1) * 20 * (lines[0].len() + 1)) as u64;
            world.status_until("all of it", |report| report.topics["t"].lag_bytes == known);
            logrotate.rotates();
            log.reopen();
        }
        world.status_until("what is deleted and held", |report| {
            report.held_deleted_bytes > 0
        });
        broker.resume();
        let values: Vec<_> = broker
            .wait_for("t", 121, DEADLINE)
            .into_iter()
            .map(|record| record.value)
            .collect();
        let expected = ["one".to_owned()].into_iter().chain(numbered(0..120));
        assert_eq!(values, expected.collect::<Vec<_>>());
        let ended = shipper.stop().exits(0);
        assert_eq!(ended.losses(), []);
    }
}
