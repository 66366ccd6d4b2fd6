//! What agents of this kind fail at, each failure with a test that is named after it.
//!
//! It reads as the list. Where another file has the whole subject, that file is
//! named, and here is the failure itself.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::broker::{ApiKey, Broker, Fault, Misdeed, check_sequence};
use crate::daemon::{config, records, source, to_broker, values};
use crate::world::{DEADLINE, Log, Logship, Rotate, TOPIC, World, figure, numbered};

/// Longer than it takes to look at a path.
const A_LOOK: Duration = Duration::from_millis(300);
/// Longer than a stall, a retry and a look take: every timer of an outage but the
/// one of a request that is never answered, which a closed port does not need.
const OUTAGE: Duration = Duration::from_secs(4);

/// `logship tail` to standard output, with its state.
fn tail(world: &World, log: &Log) -> Logship {
    world.tail([log]).with_state().since_beginning()
}

/// `logship tail` to a broker, with its state.
fn tail_to(broker: &Broker, world: &World, log: &Log) -> Logship {
    tail(world, log).args(["--brokers", &broker.addresses()])
}

// ---- crashes and one-shot runs ---------------------------------------------------------

/// Agents that move their position when they have read, and not when Kafka has said
/// so, lose a tenth of the lines in each kill. More kills are in `restart.rs` and
/// `shipping.rs`.
#[test]
fn sigkill_under_load_loses_nothing() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let done = AtomicBool::new(false);
    let mut lines = 0;
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut next = 0;
            while !done.load(Ordering::Relaxed) {
                log.write(numbered(next..next + 200));
                next += 200;
                sleep(Duration::from_millis(2));
            }
            next
        });
        for _ in 0..4 {
            let shipper = world.tail(["app.log"]).with_state().since_beginning();
            let shipper = shipper.args(["--brokers", &broker.addresses()]).start();
            let before = broker.records(TOPIC).len();
            broker.wait_for(TOPIC, before + 2_000, DEADLINE);
            shipper.kill();
        }
        done.store(true, Ordering::Relaxed);
        lines = writer.join().unwrap();
    });
    tail_to(&broker, &world, &log).once().run().exits(0);
    check_sequence(numbered(0..lines), &broker.records(TOPIC)).assert_lossless();
}

/// With Kafka away, agents that are told to read once and end say that all went well,
/// with every line lost and the position at the end.
#[test]
fn kafka_away_in_one_shot_mode_is_no_success_and_moves_no_position() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    log.write(numbered(0..1_000));
    broker.pause();
    for _ in 0..2 {
        let ended = tail_to(&broker, &world, &log)
            .once()
            .args(["--timeout", "1s"])
            .run()
            .exits(3);
        let figures = ended.summary();
        assert_eq!(
            (figures.acked, figures.dropped, figures.lag),
            (0, 0, log.size())
        );
    }
    broker.resume();
    tail_to(&broker, &world, &log).once().run().exits(0);
    check_sequence(numbered(0..1_000), &broker.records(TOPIC)).assert_exact();
}

/// A broker that takes its time, and one that takes the lines and cuts the line: the
/// run is over when the last line is acknowledged, and not when it was sent.
#[test]
fn a_one_shot_run_ends_well_only_when_every_line_is_acknowledged() {
    for misdeed in [
        Misdeed::Delay(Duration::from_millis(700)),
        Misdeed::CutBefore,
        Misdeed::CutAfter,
    ] {
        let (broker, world) = (Broker::start(), World::new());
        let mut log = world.log("app.log");
        log.write(numbered(0..1_000));
        broker.fault(Fault::of(misdeed).on(ApiKey::Produce).times(2));
        let ended = tail_to(&broker, &world, &log).once().run().exits(0);
        check_sequence(numbered(0..1_000), &broker.records(TOPIC)).assert_exact();
        assert_eq!(ended.summary().acked, 1_000);
    }
}

/// After a power cut a state file may be as long as it was and all zeros: agents that
/// do not start then, or start at the end. More damage is in `restart.rs`.
#[test]
fn a_zeroed_state_file_neither_stops_a_start_nor_loses_a_line() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one", "two"]);
    for _ in 0..2 {
        tail(&world, &log).once().run().exits(0); // so that there is one before the last
        log.write(["more"]);
    }
    for path in crate::world::walk(&world.state_dir()) {
        if path.is_file() {
            let size = fs::metadata(&path).unwrap().len();
            fs::write(&path, vec![0; usize::try_from(size).unwrap()]).unwrap();
        }
    }
    let shipper = world.tail([&log]).with_state().start();
    shipper.delivers(["one", "two", "more", "more"]);
    shipper.says("checkpoint");
    shipper.stop().exits(0);
    tail(&world, &log).once().run().exits(0).printed([""; 0]);
}

/// Agents that wait for a broker that says nothing, for ever or until they are killed
/// by something that loses their state. More ends are in `restart.rs`.
#[test]
fn a_shutdown_does_not_hang_and_says_what_is_not_acknowledged() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    broker.fault(Fault::of(Misdeed::Silence).on(ApiKey::Produce));
    log.write(numbered(0..500));
    let limit = ["--shutdown-timeout", "500ms"];
    let shipper = tail_to(&broker, &world, &log).args(limit).start();
    broker.wait_for_requests(ApiKey::Produce, 1, DEADLINE);

    let begun = Instant::now();
    let ended = shipper.stop().exits(3);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        (ended.summary().acked, ended.summary().lag),
        (0, log.size())
    );

    broker.clear_faults();
    tail_to(&broker, &world, &log).once().run().exits(0);
    check_sequence(numbered(0..500), &broker.records(TOPIC)).assert_lossless();
}

// ---- identity ------------------------------------------------------------------------

/// A log was rotated away and deleted, and its inode was given to a file beside it:
/// the state of logrotate, a key. Agents that go by the inode ship it.
/// (So did logship: it looked for the rest of the old file by its inode.)
#[test]
fn another_file_with_the_inode_of_a_rotated_one_is_not_shipped() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one", "two"]);
    tail(&world, &log)
        .once()
        .run()
        .exits(0)
        .printed(["one", "two"]);

    // The same as an inode that is used again, without asking the file system for it.
    log.rename_to(world.path("secret.key"));
    fs::write(
        world.path("secret.key"),
        "a secret, and longer than the log was\n",
    )
    .unwrap();
    log.reopen();
    log.write(["three"]);

    tail(&world, &log).once().run().exits(0).printed(["three"]);
}

/// The new file has path, device and inode of the old one: agents that know a file by
/// those go on at the old position. While logship runs: `rotation.rs`; while the file
/// sleeps: `sleep.rs`.
#[test]
fn a_reused_inode_is_a_new_file() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["a line of the old file", "and another"]);
    tail(&world, &log).once().run().exits(0);
    for round in 0..3 {
        let lines = [
            format!("{round}: of a new file"),
            "that is longer than the old one".into(),
            "was".into(),
        ];
        // What another file with this inode looks like from outside.
        fs::write(log.path(), lines.join("\n") + "\n").unwrap();
        tail(&world, &log).once().run().exits(0).printed(lines);
    }
}

/// Files that begin alike for more than any fingerprint covers: agents that know a
/// file by its first bytes take the second for the first.
#[test]
fn two_files_with_equal_heads_of_two_kibibytes_are_two_files() {
    let head = numbered(0..30);
    assert!(head.join("\n").len() > 2_048);
    let world = World::new();
    world.dir("logs");
    let mut logs = ["a", "b", "c"].map(|name| world.log(format!("logs/{name}.log")));
    let shipper = world
        .run(&config(json!([source("logs/*.log", "t")])))
        .start();
    for (n, log) in logs.iter_mut().enumerate() {
        log.write(&head);
        log.write([format!("file {n}")]);
        shipper.delivers(&head);
        shipper.delivers([format!("file {n}")]);
    }
    // And generations of one file.
    for how in Rotate::ALL {
        logs[0].rotate(how);
        logs[0].write(&head);
        logs[0].write([format!("{how:?}")]);
        shipper.delivers(&head);
        shipper.delivers([format!("{how:?}")]);
    }
    shipper.stop().exits(0).printed([""; 0]);

    // And while logship is stopped.
    logs[0].rotate(Rotate::Rename);
    logs[0].write(&head);
    let shipper = world
        .run(&config(json!([source("logs/*.log", "t")])))
        .start();
    shipper.delivers(&head);
    shipper.stop().exits(0).printed([""; 0]);
}

/// Agents that want a fingerprint of a kilobyte before they read leave small files
/// unread for ever.
#[test]
fn files_below_any_fingerprint_are_read_from_their_first_byte() {
    let world = World::new();
    world.dir("logs");
    let sizes = [1, 2, 3, 10, 31, 255, 256, 1_023];
    let run = || {
        world
            .run(&config(json!([source("logs/*.log", "t")])))
            .start()
    };
    let shipper = run();
    let mut logs = sizes.map(|size| {
        let mut log = world.log(format!("logs/{size}.log"));
        let line = "x".repeat(size - 1);
        log.write([&line]);
        shipper.delivers([line]);
        assert_eq!(log.size(), size as u64);
        log
    });
    shipper.stop().exits(0).printed([""; 0]);
    let shipper = run();
    for log in &mut logs {
        log.write([""]); // one byte more
    }
    shipper.delivers(sizes.map(|_| ""));
    shipper.stop().exits(0).printed([""; 0]);
}

/// Emptied and grown past the old position between two looks: agents that compare
/// sizes go on in the middle of a line.
#[test]
fn a_file_that_regrew_past_the_position_is_read_from_its_start() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = tail(&world, &log).start();
    let mut size = 0;
    for round in 0..6 {
        log.write([format!("round {round}")]);
        let lines = numbered(round * 10..round * 20 + 5);
        log.write(&lines);
        shipper.delivers([format!("round {round}")].iter().chain(&lines));
        assert!(log.size() >= size, "it is to be longer than before");
        size = log.size();
        log.truncate();
    }
    log.write(["the end"]);
    shipper.delivers(["the end"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// All lines end alike, as lines of logs do: agents that compare some bytes before the
/// position find them there again by chance.
#[test]
fn equal_line_endings_around_a_rewrite_do_not_hide_it() {
    let ending = " level=info service=checkout region=eu-central-1 status=200 and so on";
    let line = |n: usize| format!("{n:04}{ending}");
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = tail(&world, &log).start();
    for round in 0..6 {
        // As many lines as before and some more: the old position is at a line's end.
        let lines: Vec<String> = (0..3 + round).map(|n| line(100 * round + n)).collect();
        sleep(A_LOOK);
        fs::write(log.path(), lines.join("\n") + "\n").unwrap();
        shipper.delivers(&lines);
    }
    log.write(["the end"]);
    shipper.delivers(["the end"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// Agents that ask for names and not for files ship four lines of ten again when names
/// move faster than they look. More rotations are in `rotation.rs` and `pressure.rs`.
#[test]
fn rapid_rotations_repeat_no_line() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = tail(&world, &log).start();
    log.write(["the beginning"]);
    shipper.delivers(["the beginning"]);
    for generation in 0..50 {
        log.write(numbered(generation * 100..generation * 100 + 100));
        log.rotate(Rotate::Rename);
        sleep(Duration::from_millis(30));
    }
    log.write(["the end"]);
    let end = vec!["the end".to_owned()];
    shipper.delivers_in_any_order([numbered(0..5_000), end].concat());
    shipper.stop().exits(0).printed([""; 0]);
}

/// Agents that take `app.log.1.gz` for a log ship the compressed bytes of what they
/// have shipped. Which names are none of logship's business is for `exclude` to say.
#[test]
fn the_compressed_copy_of_a_rotated_file_is_not_shipped_again() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mut wanted = source("app.log*", "t");
    wanted["exclude"] = json!(["*.gz"]);
    let shipper = world.run(&config(json!([wanted]))).start();
    for round in 0..3 {
        log.write([format!("round {round}")]);
        shipper.delivers([format!("round {round}")]);
        let gz = world.path(format!("app.log.{round}.gz"));
        log.rename_to(world.path("app.log.1"));
        let mut text = Vec::new();
        File::open(world.path("app.log.1"))
            .unwrap()
            .read_to_end(&mut text)
            .unwrap();
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(gz).unwrap(), flate2::Compression::fast());
        encoder.write_all(&text).unwrap();
        encoder.finish().unwrap();
        fs::remove_file(world.path("app.log.1")).unwrap();
        log.reopen();
        sleep(A_LOOK);
    }
    log.write(["the end"]);
    shipper.delivers(["the end"]);
    let mut files = world.status().files;
    files.retain(|file| file.path.ends_with(".gz"));
    assert_eq!(files, [], "it may have no line end");
    shipper.stop().exits(0).printed([""; 0]);
}

// ---- lines -----------------------------------------------------------------------------

/// One long line, and agents do not read the file any more. More lengths are in
/// `lines.rs`.
#[test]
fn a_line_longer_than_any_buffer_does_not_blind_the_tailer() {
    const LIMIT: usize = 1 << 20;
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = tail(&world, &log).start();
    for length in [100_000, 600_000, LIMIT, 3 * LIMIT] {
        let line = format!("{length} {}", "x".repeat(length));
        log.write(["before"]);
        log.write_raw(&line);
        log.write(["", "after", "and more"]);
        shipper.delivers([
            "before",
            &line[..line.len().min(LIMIT)],
            "after",
            "and more",
        ]);
    }
    let ended = shipper.stop().exits(0).printed([""; 0]);
    assert_eq!(figure(ended.stderr.lines().last().unwrap(), "cut"), Some(2));
}

/// copytruncate under a writer without O_APPEND leaves NUL bytes up to its old offset:
/// agents ship megabytes of them, or never find a line again. With the real logrotate:
/// `real.rs`.
#[test]
fn a_nul_hole_that_a_truncation_left_is_skipped_and_counted_to_the_byte() {
    let world = World::new();
    let log = world.log("app.log");
    let writer = File::options().write(true).open(log.path()).unwrap();
    let shipper = world.run(&config(json!([source("app.log", "t")]))).start();
    let (mut offset, mut holes) = (0, 0);
    for round in 0..3 {
        let lines = numbered(round * 5_000..round * 5_000 + 5_000);
        let text = lines.join("\n") + "\n";
        writer.write_all_at(text.as_bytes(), offset).unwrap();
        offset += text.len() as u64;
        shipper.delivers(&lines);
        fs::copy(log.path(), world.path("copy")).unwrap();
        File::options()
            .write(true)
            .open(log.path())
            .unwrap()
            .set_len(0)
            .unwrap();
        holes += offset;
    }
    writer.write_all_at(b"the end\n", offset).unwrap();
    shipper.delivers(["the end"]);
    world.acked("t", 15_001);
    // The hole of the last round is the whole of what was before.
    let report = world.status_until("the holes", |report| {
        report.topics["t"].dropped_bytes["nul_hole"] == holes
    });
    let topic = &report.topics["t"];
    assert_eq!(topic.acked_bytes, offset + 8);
    assert_eq!(topic.known_bytes, holes + offset + 8);
    let ended = shipper.stop().exits(0).printed([""; 0]);
    assert_eq!(
        figure(ended.stderr.lines().last().unwrap(), "dropped_bytes"),
        Some(holes)
    );
}

// ---- Kafka ------------------------------------------------------------------------------

/// Agents whose client gives up after some minutes drop what they hold, or never come
/// back. Retries have no limit here, so an outage is long when it is longer than the
/// timers that there are; the log is rotated meanwhile.
#[test]
fn an_outage_longer_than_every_timer_loses_nothing_and_moves_no_position() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let mut config = to_broker(&broker, json!([source("app.log", "t")]));
    config["unhealthy_after"] = json!("1s");
    let shipper = world.run(&config).start();
    log.write(["before"]);
    world.acked("t", 1);
    broker.pause();
    let begun = Instant::now();
    let mut lines = 0;
    while begun.elapsed() < OUTAGE {
        log.write(numbered(lines..lines + 10));
        lines += 10;
        log.rotate(Rotate::ALL[lines / 10 % 3]); // the lossless ones
        sleep(A_LOOK);
    }
    let width = numbered(0..1)[0].len() as u64 + 1;
    let report = world.status_until("what waits", |report| {
        report.topics["t"].known_bytes == 7 + width * lines as u64
    });
    assert_eq!(report.topics["t"].acked_bytes, 7);
    assert!(
        world
            .health(503, DEADLINE)
            .contains("Kafka has been unreachable")
    );

    broker.resume();
    records(&broker, "t", lines + 1);
    let expected = ["before".to_owned()].into_iter().chain(numbered(0..lines));
    assert_eq!(values(&broker, "t"), expected.collect::<Vec<_>>());
    world.health(200, DEADLINE);
    assert_eq!(shipper.stop().exits(0).losses(), []);
}

/// A slow Kafka fills the queue, and agents that wait with a line in their hands do not
/// see that their file is rotated. What nothing is sent of: `pressure.rs`.
#[test]
fn back_pressure_with_a_rotation_every_second_loses_no_generation() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let mut config = to_broker(&broker, json!([source("app.log", "t")]));
    config["queue"] = json!({ "bytes": "1MiB" });
    config["kafka"]["compression"] = json!("none");
    config["kafka"]["batch_bytes"] = json!("64KiB");
    let shipper = world.run(&config).start();
    log.write(["before"]);
    world.acked("t", 1);
    let slow = Misdeed::Delay(Duration::from_secs(1));
    broker.fault(Fault::of(slow).on(ApiKey::Produce));
    const LINES: usize = 20_000; // 1.5 MB
    for generation in 0..5 {
        log.write(numbered(generation * LINES..generation * LINES + LINES));
        log.rotate(Rotate::Recreate);
        sleep(Duration::from_secs(1));
    }
    let full = world.status().files.iter().any(|file| file.state == "full");
    assert!(full, "there was no back-pressure");
    broker.clear_faults();
    let records = records(&broker, "t", 5 * LINES + 1);
    check_sequence(numbered(0..5 * LINES), &records[1..]).assert_exact();
    assert_eq!(shipper.stop().exits(0).losses(), []);
}

/// Agents that send a record again and again that is refused each time ship nothing
/// more. What the dead letter holds is in `shipping.rs`.
#[test]
fn a_poison_record_is_put_aside_and_stops_nobody() {
    let broker = Broker::builder().max_message_bytes(20_000).start();
    let world = World::new();
    let mut log = world.log("app.log");
    let mut config = to_broker(&broker, json!([source("app.log", "t")]));
    config["kafka"]["compression"] = json!("none");
    let shipper = world.run(&config).start();
    for round in 0..3 {
        let lines = numbered(round * 100..round * 100 + 100);
        log.write(&lines[..50]);
        log.write(["p".repeat(30_000)]);
        log.write(&lines[50..]);
        records(&broker, "t", (round + 1) * 100);
    }
    check_sequence(numbered(0..300), &broker.records("t")).assert_exact();
    let report = world.status_until("an end", |report| report.topics["t"].lag_bytes == 0);
    let dead = &report.topics["t"].dead_letter_lines;
    assert_eq!(dead.values().sum::<u64>(), 3, "{dead:?}");
    let asked = broker.requests(ApiKey::Produce);
    sleep(A_LOOK);
    assert_eq!(
        broker.requests(ApiKey::Produce),
        asked,
        "it is still being sent"
    );
    shipper.stop().exits(4);
}

// ---- telling -----------------------------------------------------------------------------

/// Agents lose lines and say nothing, or say that something was lost. Here message,
/// summary, status and metrics say the same, to the byte.
#[test]
fn a_loss_is_counted_and_reported_to_the_byte_everywhere() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mut config = config(json!([source("app.log", "t")]));
    config["queue"] = json!({ "bytes": "1MiB" });
    let shipper = world.run(&config).start();
    shipper.pause_reading();
    let mut written = 0;
    let mut lost = 0;
    for round in 0..3 {
        log.write(numbered(0..60_000));
        written += log.size();
        world.status_until("a full queue and the whole size", |report| {
            let is_behind = |file: &logship::admin::FileReport| {
                (file.size, file.generation, file.state.as_str()) == (log.size(), round, "full")
            };
            report.files.iter().any(is_behind)
        });
        let told = |text: &str| -> u64 {
            let losses = text.lines().filter(|line| line.contains("lost path="));
            losses.filter_map(|line| figure(line, "bytes")).sum()
        };
        log.truncate();
        let losses =
            |shipper: &crate::world::Shipper| shipper.stderr().matches("lost path=").count();
        let deadline = Instant::now() + DEADLINE;
        while losses(&shipper) == usize::try_from(round).unwrap() && Instant::now() < deadline {
            sleep(Duration::from_millis(5));
        }
        lost = told(&shipper.stderr());
    }
    assert!(lost > 0);
    shipper.resume_reading();
    let report = world.status_until("an end", |report| report.topics["t"].lag_bytes == 0);
    let topic = &report.topics["t"];
    assert_eq!(topic.lost_bytes["truncated"], lost);
    assert_eq!(topic.acked_bytes + lost, written);
    assert_eq!(topic.known_bytes, written);
    let metric = "logship_lost_bytes_total{topic=\"t\",reason=\"truncated\"}";
    assert_eq!(world.metric(metric), lost as f64);
    let ended = shipper.stop().exits(0);
    assert_eq!(
        figure(ended.stderr.lines().last().unwrap(), "lost_bytes"),
        Some(lost)
    );
}

// Many files for next to nothing: `sleep.rs`. Reloads under load, and while Kafka is
// away: `reload.rs`. Messages that name the broker, the stage and the code: `cli.rs`
// and `shipping.rs`. Watches of etcd that are compacted, cancelled or silent:
// `etcd_follow.rs`.
