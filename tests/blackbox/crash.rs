//! What a crash, a full disk or a person may do to the state directory: no line
//! is missing afterwards, it starts every time, and it says what it found.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::broker::{ApiKey, Broker, Fault, Misdeed, check_sequence};
use crate::daemon::{config, source, to_broker, values};
use crate::world::{DEADLINE, Log, Logship, Shipper, World, numbered, walk};

/// A daemon that prints, from the end of files it does not know.
fn from_end(world: &World) -> Logship {
    let mut config = config(json!([source("app.log", "t")]));
    config["sources"][0]["read_from"] = json!("end");
    world.run(&config)
}

/// `logship tail`, which begins at the end too.
fn tail(world: &World) -> Logship {
    world.tail(["app.log"]).with_state()
}

type Start = fn(&World) -> Logship;
const WAYS: [(&str, Start); 2] = [("run", from_end), ("tail", tail)];

/// A world in which lines were shipped and both generations of the checkpoint are
/// there, with `rest` in the file that was not shipped.
fn shipped(start: Start, rest: &[&str]) -> (World, Log) {
    let world = World::new();
    let mut log = world.log("app.log");
    for line in ["one", "two"] {
        let shipper = start(&world).start();
        shipper.awake(&mut log);
        log.write([line]);
        shipper.delivers([line]);
        shipper.stop().exits(0);
    }
    assert!(generations(&world).iter().all(|path| path.is_file()));
    log.write(rest);
    (world, log)
}

/// Where the newest checkpoint is, and the one before.
fn generations(world: &World) -> [PathBuf; 2] {
    let lock = |path: &PathBuf| path.ends_with("lock");
    let lock = walk(&world.state_dir()).into_iter().find(lock);
    let lock = lock.expect("a logship ran here");
    ["checkpoint.json", "checkpoint.previous.json"].map(|name| lock.with_file_name(name))
}

type Damage = fn(&Path);

fn cut(path: &Path, keep: impl Fn(usize) -> usize) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..keep(bytes.len())]).unwrap();
}

/// What may be found in the place of a checkpoint, and what is said of it.
const DAMAGES: [(&str, &str, Damage); 8] = [
    ("empty", "damaged", |path| cut(path, |_| 0)),
    ("one byte", "damaged", |path| cut(path, |_| 1)),
    ("half", "damaged", |path| cut(path, |len| len / 2)),
    // Only the line end and the last brace are missing.
    ("all but its end", "damaged", |path| {
        cut(path, |len| len - 2)
    }),
    ("zeros", "damaged", |path| {
        let len = fs::metadata(path).unwrap().len();
        fs::write(path, vec![0; len as usize]).unwrap();
    }),
    ("garbage", "damaged", |path| {
        fs::write(path, b"\xff\xfe garbage").unwrap()
    }),
    ("of a newer logship", "newer logship", |path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replacen("\"version\":1", "\"version\":2", 1)).unwrap();
    }),
    ("a directory", "cannot be read", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
        fs::write(path.join("something"), "in it").unwrap();
    }),
];

/// In `run` a source of which no file was known any more was taken for a new one:
/// with `read_from: end` it began at the end, and what was waiting was never sent.
#[test]
fn with_no_usable_checkpoint_nothing_begins_at_the_end() {
    for (how, said, damage) in DAMAGES {
        for (way, start) in WAYS {
            let (world, mut log) = shipped(start, &["waiting"]);
            let checkpoints = generations(&world);
            checkpoints.iter().for_each(|path| damage(path));
            for n in 0..3 {
                let line = format!("start {n}");
                log.write([&line]);
                let shipper = start(&world).start();
                let lines: &[&str] = if n == 0 {
                    &["one", "two", "waiting"]
                } else {
                    &[]
                };
                shipper.delivers_at_least(lines.iter().copied().chain([&*line]));
                let ended = shipper.kill();
                for path in checkpoints.iter().filter(|_| n == 0) {
                    let path = path.display().to_string();
                    let told = |line: &&str| {
                        line.contains("unusable") && line.contains(&path) && line.contains(said)
                    };
                    let times = ended.stderr.lines().filter(told).count();
                    if times != 1 {
                        ended.fail(&format!("{way}, {how}: said {times} times of {path}"));
                    }
                }
            }
            let shipper = start(&world).start();
            log.write(["and then"]);
            shipper.delivers_at_least(["and then"]);
            shipper.stop().exits(0);
            assert!(checkpoints[0].is_file(), "{way}, {how}");
        }
    }
}

/// The newest is set aside, and the machine stops before a new one is written: what
/// is left looks as if nothing had ever been damaged.
#[test]
fn a_crash_while_recovering_from_a_damaged_checkpoint_loses_nothing() {
    for (way, start) in WAYS {
        let (world, mut log) = shipped(start, &[]);
        // The file is one that only the newest knew.
        let [newest, previous] = generations(&world);
        fs::rename(&newest, newest.with_file_name("checkpoint.json.damaged")).unwrap();
        let empty = fs::read_to_string(&previous).unwrap();
        let (head, _) = empty.split_once("\"checksum\"").unwrap();
        // XXH3 of "[]".
        let checksum = format!("{:016x}", twox_hash::XxHash3_64::oneshot(b"[]"));
        let empty = format!("{head}\"checksum\":\"{checksum}\",\"files\":[]}}\n");
        fs::write(previous, empty).unwrap();
        log.write(["waiting"]);

        let shipper = start(&world).start();

        shipper.delivers_at_least(["one", "two", "waiting"]);
        let ended = shipper.stop().exits(0);
        assert!(
            ended.stderr.contains("previous checkpoint"),
            "{way}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_checkpoint_that_may_not_be_read_is_said_and_the_one_before_is_used() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one"]);
    let state = world.dir("state");
    fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
    let once = || tail(&world).unprivileged().once();
    for line in ["two", "three"] {
        once().run().exits(0);
        log.write([line]);
    }
    let [newest, _] = generations(&world);
    fs::set_permissions(&newest, Permissions::from_mode(0o000)).unwrap();

    let ended = once().run().exits(0);

    let lines = ended.lines();
    assert!(lines.contains(&b"three".to_vec()), "{lines:?}");
    assert!(!lines.contains(&b"one".to_vec()), "{lines:?}");
    ended
        .said("unusable checkpoint")
        .said(newest.to_str().unwrap());
    once().run().exits(0).printed([""; 0]);
}

/// Somebody who removes the checkpoints wants to begin anew, and is told that it does.
#[test]
fn checkpoints_that_were_removed_are_missed() {
    let (world, _log) = shipped(from_end, &["three"]);
    let [newest, previous] = generations(&world);
    fs::remove_file(&newest).unwrap();
    let shipper = from_end(&world).start();
    shipper.says("the newest checkpoint is missing");
    shipper.delivers_at_least(["three"]);
    shipper.stop().exits(0);

    for path in [&newest, &previous] {
        fs::remove_file(path).unwrap();
    }
    let shipper = from_end(&world).start();
    shipper.says("no checkpoint in a state directory that was used before");
    shipper.stop().exits(0).printed([""; 0]);
    let again = from_end(&world).start();
    again.says("no kafka in the config");
    again.stop().exits(0).never_said("no checkpoint");
}

/// Backups bring old things back. Lines come again then, and none is missing.
#[test]
fn generations_that_changed_places_lose_nothing() {
    for (_, start) in WAYS {
        let (world, _log) = shipped(start, &["waiting"]);
        let [newest, previous] = generations(&world);
        fs::rename(&newest, world.path("between")).unwrap();
        fs::rename(&previous, &newest).unwrap();
        fs::rename(world.path("between"), &previous).unwrap();

        let shipper = start(&world).start();

        shipper.delivers_at_least(["waiting"]);
        shipper.stop().exits(0);
    }
}

/// A copied state directory: the paths are the same and the inodes are not, or the
/// numbers are and the files are not.
#[test]
fn a_checkpoint_of_another_host_is_said_once_and_loses_nothing() {
    let world = World::new();
    let once = || world.tail(["*.log"]).with_state().once();
    let logs = ["copied", "moved", "rewritten"].map(|name| {
        let mut log = world.log(format!("{name}.log"));
        log.write([format!("{name} one")]);
        log
    });
    once().run().exits(0);
    let [newest, _] = generations(&world);
    let text = fs::read_to_string(&newest).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let here = document["host"].as_str().unwrap();
    let elsewhere = text.replacen(&format!("\"host\":\"{here}\""), "\"host\":\"elsewhere\"", 1);
    assert_ne!(text, elsewhere);
    fs::write(&newest, elsewhere).unwrap();
    let [mut copied, mut moved, mut rewritten] = logs;
    fs::copy(copied.path(), world.path("copy")).unwrap();
    fs::rename(world.path("copy"), copied.path()).unwrap();
    copied.reopen();
    copied.write(["copied two"]);
    moved.write(["moved two"]);
    rewritten.truncate();
    rewritten.write(["another file with its number", "and more"]);

    let shipper = once().start();

    shipper.delivers_in_any_order([
        "copied one",
        "copied two",
        "moved two",
        "another file with its number",
        "and more",
    ]);
    let ended = shipper.ends().exits(0);
    let told = ended.stderr.matches("written on another host").count();
    assert_eq!(told, 1, "{}", ended.stderr);
    let ended = ended.said(newest.to_str().unwrap());
    ended
        .said("host=elsewhere")
        .said(&format!("this_host={here}"));
    once().run().exits(0).never_said("another host");
}

/// One that says nothing of its host is of a logship from before hosts were kept.
#[test]
fn a_checkpoint_without_a_host_is_as_good_as_any() {
    let (world, _log) = shipped(tail, &["waiting"]);
    let [newest, _] = generations(&world);
    let document: Value = serde_json::from_slice(&fs::read(&newest).unwrap()).unwrap();
    let host = format!("\"host\":{},", document["host"]);
    let text = fs::read_to_string(&newest).unwrap();
    assert!(text.contains(&host));
    fs::write(&newest, text.replacen(&host, "", 1)).unwrap();

    let ended = tail(&world).once().run().exits(0).printed(["waiting"]);

    ended.never_said("another host").never_said("unusable");
}

/// Chunks that are settled one by one behind one that waits were written down as
/// ranges that touch, and such a checkpoint was taken for a damaged one: after a
/// restart everything came again.
#[test]
fn a_checkpoint_with_many_settled_ranges_after_a_gap_is_a_good_one() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let mut config = to_broker(&broker, json!([source("app.log", "t")]));
    config["queue"] = json!({ "bytes": "1MiB", "when_full": "drop" });
    log.write(["shipped"]);
    let mut shipper = world.run(&config).start();
    world.acked("t", 1);
    broker.pause();
    let large = "x".repeat(200_000);
    for n in 0..30 {
        log.write([&large]);
        world.status_until("the line to be read", |report| {
            report.topics["t"].read_lines > n + 1
                || report.topics["t"].dropped_lines["queue_full"] > 0
        });
    }
    shipper.waits_for("ranges after the position", |_| {
        let text = fs::read(&generations(&world)[0]).ok()?;
        let document: Value = serde_json::from_slice(&text).ok()?;
        let ranges = document["files"][0]["acked_beyond"].as_array()?.len();
        (ranges > 0).then_some(())
    });
    shipper.kill();
    broker.resume();

    let shipper = world.run(&config).start();

    log.write(["after"]);
    world.status_until("everything to be settled", |report| {
        let topic = report.topics.get("t");
        topic.is_some_and(|topic| topic.acked_lines > 0 && topic.lag_bytes == 0)
    });
    shipper.stop().exits(0).never_said("unusable");
    let shipped = values(&broker, "t");
    let times = shipped.iter().filter(|line| *line == "shipped").count();
    assert_eq!(times, 1);
}

// ---- a directory that goes wrong while logship runs --------------------------------

/// A running daemon with a line shipped and a checkpoint written.
fn running(world: &World, log: &mut Log, logship: Logship) -> Shipper {
    let mut shipper = logship.start();
    log.write(["before"]);
    shipper.delivers_at_least(["before"]);
    shipper.waits_for("a checkpoint", |_| world.checkpoints().pop());
    shipper
}

fn beginning(world: &World) -> Logship {
    world.run(&config(json!([source("app.log", "t")])))
}

#[test]
fn on_a_full_disk_shipping_goes_on_and_positions_are_written_when_there_is_room() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = running(&world, &mut log, beginning(&world).can_fill_disk());

    shipper.fill_disk();
    log.write(["while full"]);
    shipper.delivers(["while full"]);
    let said = shipper.says("cannot write the checkpoint");
    assert!(said.contains(world.state_dir().to_str().unwrap()), "{said}");
    let told = world.health(503, DEADLINE);
    assert!(told.contains("positions cannot be written down"), "{told}");
    log.write(["still full"]);
    shipper.delivers(["still full"]);

    shipper.empty_disk();
    shipper.says("checkpoints are written again");
    world.health(200, DEADLINE);
    log.write(["room"]);
    shipper.delivers(["room"]);
    let ended = shipper.kill();
    assert_eq!(
        ended.stderr.matches("cannot write the checkpoint").count(),
        1
    );

    // What was shipped while the disk was full was written down afterwards.
    log.write(["after"]);
    let shipper = beginning(&world).start();
    let lines = shipper.next_lines(1);
    assert!(
        [&b"room"[..], b"after"].contains(&&lines[0][..]),
        "{lines:?}"
    );
    if lines[0] == b"room" {
        shipper.delivers(["after"]);
    }
}

#[test]
fn a_kill_on_a_full_disk_repeats_lines_and_loses_none() {
    let world = World::new();
    let mut log = world.log("app.log");
    for _ in 0..2 {
        let shipper = running(&world, &mut log, beginning(&world).can_fill_disk());
        shipper.fill_disk();
        log.write(["while full"]);
        shipper.delivers(["while full"]);
        shipper.says("cannot write the checkpoint");
        shipper.kill();

        log.write(["after"]);
        let shipper = beginning(&world).start();
        shipper.delivers_at_least(["while full", "after"]);
        shipper.stop().exits(0);
    }
}

#[test]
fn a_state_directory_that_turns_read_only_is_said_and_forgiven() {
    let world = World::new();
    let mut log = world.log("app.log");
    let state = world.dir("state");
    let mode = |mode| fs::set_permissions(&state, Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    let shipper = running(&world, &mut log, beginning(&world).unprivileged());

    mode(0o555);
    log.write(["read-only"]);
    shipper.delivers(["read-only"]);
    let said = shipper.says("cannot write the checkpoint");
    assert!(said.contains(state.to_str().unwrap()), "{said}");
    world.health(503, DEADLINE);

    mode(0o777);
    shipper.says("checkpoints are written again");
    world.health(200, DEADLINE);
    shipper.kill();
    log.write(["after"]);
    let shipper = beginning(&world).unprivileged().start();
    shipper.delivers(["after"]);
}

/// With the directory its lock is gone, and a second logship would start.
#[test]
fn a_state_directory_that_vanishes_is_made_and_locked_again() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mut shipper = running(&world, &mut log, beginning(&world));

    fs::remove_dir_all(world.state_dir()).unwrap();

    let said = shipper.says("was taken away");
    assert!(said.contains(world.state_dir().to_str().unwrap()), "{said}");
    shipper.waits_for("a checkpoint", |_| world.checkpoints().pop());
    let second = beginning(&world).run().exits(1);
    second.said(&shipper.pid().to_string());
    world.health(200, DEADLINE); // asked on the socket, which is there again as well
    log.write(["later"]);
    shipper.delivers(["later"]);
    shipper.stop().exits(0);
    log.write(["after"]);
    beginning(&world).start().delivers(["after"]);
}

/// One that is stopped (SIGSTOP) and whose directory was taken away, and one that
/// started in its place.
fn overtaken(world: &World, log: &mut Log) -> (Shipper, Shipper) {
    let first = running(world, log, beginning(world));
    first.signal(Signal::STOP);
    fs::remove_dir_all(world.state_dir()).unwrap();
    let second = beginning(world).start();
    second.delivers(["before"]);
    answers(world, &second);
    (first, second)
}

/// Waits until it is this one that answers on the socket.
fn answers(world: &World, shipper: &Shipper) {
    let pid = shipper.pid();
    world.status_until("it to answer", |report| report.pid == pid);
}

/// Between the loss of the lock and its discovery a second one may start. Both ship,
/// since neither knows what the other has, and the first one says so.
#[test]
fn a_second_logship_in_a_directory_that_was_taken_away_is_noticed() {
    let world = World::new();
    let mut log = world.log("app.log");
    let (first, second) = overtaken(&world, &mut log);

    first.signal(Signal::CONT);

    // It may have been stopped in the middle of writing, which is told before.
    let holder = format!("in use by another logship with pid {}", second.pid());
    let told = |line: &str| line.contains("cannot write the checkpoint") && line.contains(&holder);
    first.says_line(&holder, told);
    log.write(["both"]);
    first.delivers(["both"]);
    second.delivers(["both"]);
    answers(&world, &second);

    second.stop().exits(0);
    first.says("checkpoints are written again");
    let third = beginning(&world).run().exits(1);
    third.said(&first.pid().to_string());
    answers(&world, &first);
}

/// A socket's file is removed at the end, but not that of whoever came after.
#[test]
fn the_end_of_one_logship_leaves_the_socket_of_the_next_alone() {
    let world = World::new();
    let mut log = world.log("app.log");
    let (first, second) = overtaken(&world, &mut log);
    let socket = world.path("state/admin.sock");
    let inode = || fs::metadata(&socket).map(|meta| meta.ino()).ok();
    let before = inode();

    first.signal(Signal::CONT);
    first.stop().exits(0);

    assert_eq!(inode(), before);
    second.stop().exits(0);
}

// ---- dead letters ---------------------------------------------------------------------

fn letters(world: &World) -> Vec<Value> {
    let text = fs::read_to_string(world.path("state/dead-letters.jsonl")).unwrap_or_default();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn poisoned() -> (World, Log, Broker) {
    let broker = Broker::builder().max_message_bytes(20_000).start();
    let world = World::new();
    let log = world.log("app.log");
    (world, log, broker)
}

fn to(world: &World, broker: &Broker) -> Logship {
    world.run(&to_broker(broker, json!([source("app.log", "t")])))
}

/// Compression is no way out for it.
fn too_large() -> String {
    let word = |n: u64| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n << 7));
    (1..8_000).map(word).collect()
}

#[test]
fn a_dead_letter_that_finds_no_room_waits_and_is_written_once() {
    for killed in [false, true] {
        let (world, mut log, broker) = poisoned();
        log.write(["one"]);
        let mut shipper = to(&world, &broker).can_fill_disk().start();
        broker.wait_for("t", 1, DEADLINE);
        shipper.waits_for("a checkpoint", |_| world.checkpoints().pop());
        shipper.fill_disk();
        log.write([too_large().as_str(), "two"]);
        let said = shipper.says("cannot write the dead letters");
        assert!(said.contains("dead-letters.jsonl"), "{said}");
        assert_eq!(letters(&world), Vec::<Value>::new());

        if killed {
            shipper.kill();
            shipper = to(&world, &broker).start();
        } else {
            shipper.empty_disk();
        }

        world.status_until("everything to be settled", |report| {
            let topic = report.topics.get("t");
            topic.is_some_and(|topic| topic.known_bytes > 0 && topic.lag_bytes == 0)
        });
        let letters = letters(&world);
        assert_eq!(letters.len(), 1, "killed: {killed}");
        assert_eq!(letters[0]["value"], too_large());
        let last = values(&broker, "t").pop();
        assert_eq!(last.as_deref(), Some("two"));
        shipper.stop().exits(4);
    }
}

/// The letter is synced before the position moves past its record, so a crash in
/// between brought the record again, and its letter was written a second time.
#[test]
fn a_dead_letter_that_no_checkpoint_knows_of_is_not_written_again() {
    let (world, mut log, broker) = poisoned();
    log.write(["one"]);
    let mut shipper = to(&world, &broker).start();
    world.acked("t", 1);
    shipper.waits_for("a checkpoint", |_| world.checkpoints().pop());
    // Nothing replaces a directory: checkpoints fail, letters do not.
    let obstacle = world.path("state/checkpoint.json.tmp");
    shipper.waits_for("a moment between two checkpoints", |_| {
        fs::create_dir(&obstacle).ok()
    });
    for kill in 0..3 {
        if kill == 0 {
            log.write([too_large().as_str(), "two"]);
        }
        shipper.says("now in the dead letters");
        shipper.kill();
        assert_eq!(letters(&world).len(), 1, "after {kill} kills");
        shipper = to(&world, &broker).start();
    }
    fs::remove_dir(&obstacle).unwrap();
    world.status_until("everything to be settled", |report| {
        let topic = report.topics.get("t");
        topic.is_some_and(|topic| topic.dead_letter_bytes > 0 && topic.lag_bytes == 0)
    });
    assert_eq!(letters(&world).len(), 1);
    shipper.stop().exits(4);
    let mut shipped = values(&broker, "t");
    shipped.dedup();
    assert!(shipped.contains(&"two".to_owned()), "{shipped:?}");
}

/// A letter into a file that has no name any more would be lost, and the position
/// would be past it.
#[test]
fn dead_letters_go_to_the_file_that_has_the_name() {
    let (world, mut log, broker) = poisoned();
    let shipper = to(&world, &broker).start();
    for _ in 0..2 {
        log.write([too_large()]);
        shipper.says("now in the dead letters");
        let deadline = Instant::now() + DEADLINE;
        while letters(&world).len() != 1 {
            assert!(Instant::now() < deadline, "{:?}", letters(&world).len());
            sleep(Duration::from_millis(5));
        }
        fs::remove_file(world.path("state/dead-letters.jsonl")).unwrap();
    }
    shipper.stop().exits(4);
}

// ---- kills --------------------------------------------------------------------------------

/// How often logship writes down what was acknowledged.
const INTERVAL: Duration = Duration::from_secs(1);
/// What a loaded machine may add to it.
const GRACE: Duration = Duration::from_millis(1_500);

/// What came to the broker, over all runs.
#[derive(Default)]
struct Arrivals {
    /// How many different lines.
    lines: usize,
    /// Which lines came in this run, and when that was seen.
    run: Vec<(usize, Instant)>,
    records: usize,
    repeated: usize,
}

impl Arrivals {
    /// Looks at what has come since the last time. Lines come in their order, or
    /// again: then not from before line `known`.
    #[track_caller]
    fn look(&mut self, broker: &Broker, known: usize) {
        let (now, values) = (Instant::now(), values(broker, "t"));
        for line in &values[self.records..] {
            let number: usize = line["seq=".len()..][..9].parse().unwrap();
            assert!(number <= self.lines, "lines before {number} are missing");
            self.run.push((number, now));
            if number == self.lines {
                self.lines += 1;
                continue;
            }
            assert!(
                number >= known,
                "line {number} came again, {known} were written down"
            );
            self.repeated += 1;
        }
        self.records = values.len();
    }

    /// How many lines are settled once all that came in this run by then is.
    fn before(&self, then: Instant) -> usize {
        let early = self.run.iter().filter(|(_, at)| *at < then);
        early.map(|(number, _)| number + 1).max().unwrap_or(0)
    }
}

/// How many lines a killed logship left written down.
fn written_down(world: &World, line_bytes: usize) -> usize {
    // Between its two renames there is only the one before.
    let generations = generations(world);
    let Some(bytes) = generations.iter().find_map(|path| fs::read(path).ok()) else {
        return 0;
    };
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    let position = document["files"][0]["position"].as_u64().unwrap_or(0) as usize;
    assert_eq!(position % line_bytes, 0, "a position stands inside a line");
    position / line_bytes
}

/// Thirty kills at instants that have nothing to do with what logship does. What
/// comes again is what the checkpoint did not have, and what it did not have came
/// within its interval before the kill.
#[test]
fn thirty_kills_lose_nothing_and_repeat_only_what_came_after_the_last_checkpoint() {
    const KILLS: u64 = 30;
    let (broker, world) = (Broker::start(), World::new());
    // So that there always is something that came and is not acknowledged.
    broker.fault(Fault::of(Misdeed::Delay(Duration::from_millis(40))).on(ApiKey::Produce));
    let mut log = world.log("app.log");
    let line_bytes = numbered([0])[0].len() + 1;
    let mut arrivals = Arrivals::default();
    let (mut written, mut known, mut bound) = (0, 0, 0);
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for kill in 0..KILLS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Now and then longer than the interval and what a loaded machine adds to it.
        let long = if kill % 10 == 9 { 3_000 } else { 60 };
        let life = Duration::from_millis(long + (seed >> 33) % 500);
        // Now and then everything that is read only waits.
        let away = kill % 3 == 1;
        if away {
            broker.pause();
        }
        arrivals.run.clear();
        let shipper = to(&world, &broker).start();
        let dies = Instant::now() + life;
        while Instant::now() < dies {
            log.write(numbered(written..written + 20));
            written += 20;
            sleep(Duration::from_millis(20));
            arrivals.look(&broker, known);
        }
        let killed = Instant::now();
        shipper.kill();
        if away {
            broker.resume();
        }
        arrivals.look(&broker, known);
        let now_known = written_down(&world, line_bytes);
        let came = arrivals.lines;
        assert!(now_known <= came, "{now_known} written down, {came} came");
        assert!(
            now_known >= known,
            "{now_known} written down, {known} before"
        );
        let due = arrivals.before(killed - INTERVAL - GRACE);
        assert!(
            now_known >= due,
            "{now_known} written down, {due} came long before the kill"
        );
        known = now_known;
        bound += came - known;
    }
    let shipper = to(&world, &broker).start();
    world.status_until("all lines to be acknowledged", |report| {
        let position = report.files.first().map(|file| file.position);
        position == Some((written * line_bytes) as u64)
    });
    shipper.stop().exits(0);
    arrivals.look(&broker, known);
    check_sequence(numbered(0..written), &broker.records("t")).assert_lossless();
    let repeated = arrivals.repeated;
    assert!(
        repeated <= bound,
        "{repeated} lines came again, at most {bound} may"
    );
    assert!(bound > 0, "no kill came before its checkpoint");
}

/// A life that was shorter than the interval between two checkpoints left nothing
/// behind: killed once a second, logship sent the same lines for ever.
#[test]
fn a_logship_that_is_killed_before_a_second_is_over_gets_on_all_the_same() {
    const LIVES_MAX: usize = 30;
    const BATCH_BYTES: usize = 4 << 10;
    let life = Duration::from_millis(700);
    let (broker, world) = (Broker::start(), World::new());
    broker.fault(Fault::of(Misdeed::Delay(Duration::from_millis(50))).on(ApiKey::Produce));
    let mut log = world.log("app.log");
    let lines = numbered(0..8_000);
    let line_bytes = lines[0].len() + 1;
    log.write(&lines);
    let mut config = to_broker(&broker, json!([source("app.log", "t")]));
    config["kafka"]["batch_bytes"] = json!(BATCH_BYTES);
    // A broker that has not read them yet takes them after the kill.
    let in_flight = 5 * BATCH_BYTES / line_bytes;
    let mut arrivals = Arrivals::default();
    let (mut lives, mut known, mut bound) = (0, 0, 0);
    while known < lines.len() {
        lives += 1;
        assert!(
            lives <= LIVES_MAX,
            "{known} written down after {LIVES_MAX} lives"
        );
        let shipper = world.run(&config).start();
        sleep(life);
        shipper.kill();
        arrivals.look(&broker, known);
        known = written_down(&world, line_bytes);
        assert!(known <= arrivals.lines);
        bound += arrivals.lines - known + in_flight;
    }
    assert!(lives > 2, "all was written down in {lives} lives");
    check_sequence(lines, &broker.records("t")).assert_lossless();
    let repeated = arrivals.repeated;
    assert!(
        repeated <= bound,
        "{repeated} lines came again, at most {bound} may"
    );
}
