//! Files that had a path while nobody looked, and files that only look like them:
//! the first are all shipped, in order, and the others never.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::{Broker, Fault, Misdeed};
use crate::daemon::{config, records, source, to_broker, values};
use crate::sleep::{asleep, sleepy};
use crate::world::{Log, Logship, Rotate, Shipper, World, numbered};

/// Time for every path to be looked at, and more than once.
const LOOKS: Duration = Duration::from_millis(400);
/// Until what is known is written down for a kill.
const WRITTEN_DOWN: Duration = Duration::from_millis(1_500);
/// Longer before a stop than anything is taken for unseen that was created then.
const LONG_AGO: Duration = Duration::from_millis(4_500);
/// How far apart generations are that nobody may miss.
const GENERATION: Duration = Duration::from_millis(300);
/// Files that are made at most to get an inode number again.
const INODES_MAX: usize = 500;

fn of_app_log() -> Value {
    config(json!([source("app.log", "t")]))
}

/// Waits for a line, and returns it and all before it.
fn lines_until(shipper: &Shipper, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != last) {
        let line = shipper.next_lines(1).remove(0);
        lines.push(String::from_utf8_lossy(&line).into_owned());
    }
    lines
}

/// The next generation of a log begins with these lines.
fn rotate_to<L: AsRef<[u8]>>(log: &mut Log, lines: impl IntoIterator<Item = L>) {
    log.rotate(Rotate::Rename);
    log.write(lines);
}

/// How logship comes not to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blind {
    Stopped,
    Killed,
    Asleep,
}

impl Blind {
    /// The one that looks from now on is what this is given, and what it returns.
    fn begin(self, world: &World, shipper: Shipper) -> Option<Shipper> {
        match self {
            Blind::Stopped => {
                shipper.stop().exits(0);
            }
            Blind::Killed => {
                sleep(WRITTEN_DOWN);
                shipper.kill();
            }
            Blind::Asleep => {
                world.all_asleep(1);
                return Some(shipper);
            }
        }
        None
    }
}

// ---- rotated while nobody looked ---------------------------------------------------

/// A host is down for some hours, and logrotate of a busy log is not. Only the file
/// that was known was looked for, and what had the path between that one and the
/// one of now was never read.
#[test]
fn every_generation_of_a_time_without_logship_arrives_once_and_in_order() {
    for blind in [Blind::Stopped, Blind::Killed] {
        let world = World::new();
        let mut log = world.log("app.log");
        let shipper = world.run(&of_app_log()).start();
        log.write(["the beginning"]);
        shipper.delivers(["the beginning"]);
        blind.begin(&world, shipper);

        log.write(numbered(0..10));
        for generation in 1..6 {
            rotate_to(&mut log, numbered(generation * 10..generation * 10 + 10));
        }
        let shipper = world.run(&of_app_log()).start();
        shipper.delivers(numbered(0..60));
        let ended = shipper.stop().exits(0).printed([""; 0]);
        assert_eq!(ended.losses(), [], "{blind:?}");

        let shipper = world.run(&of_app_log()).start();
        log.write(["the end"]);
        shipper.delivers(["the end"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

#[test]
fn every_generation_between_two_runs_from_cron_arrives_once_and_in_order() {
    let world = World::new();
    let mut log = world.log("app.log");
    let run = |log: &Log| world.tail([log]).with_state().once().run().exits(0);
    log.write(["one"]);
    run(&log).printed(["one"]);
    for round in 0..3 {
        let lines = numbered(round * 40..round * 40 + 40);
        for (n, part) in lines.chunks(10).enumerate() {
            if n > 0 {
                log.rotate(Rotate::Rename);
            }
            log.write(part);
        }
        run(&log).printed(&lines);
    }
    run(&log).printed([""; 0]);
}

/// What the checkpoint says of a file may be older than the kill: a generation that
/// began in between is known to nobody.
#[test]
fn a_generation_that_began_just_before_a_kill_and_is_rotated_after_it_arrives() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.run(&of_app_log()).start();
    log.write(["a 1"]);
    shipper.delivers(["a 1"]);
    sleep(WRITTEN_DOWN);
    rotate_to(&mut log, ["b 1"]);
    shipper.delivers(["b 1"]);
    shipper.kill();
    log.write(["b 2"]);
    rotate_to(&mut log, ["c 1"]);

    let shipper = world.run(&of_app_log()).start();
    let lines = lines_until(&shipper, "c 1");
    let again = lines.len().saturating_sub(2); // what was not written down
    assert_eq!(lines, ["b 1", "b 2", "c 1"][1 - again.min(1)..]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// The names tell nothing of an age: a file that had the path long before logship
/// was stopped was read then, or was never to be.
#[test]
fn a_rotated_file_of_long_before_the_stop_is_not_shipped() {
    let world = World::new();
    world.log("app.log.5").write(["of long ago"]);
    sleep(LONG_AGO);
    let mut log = world.log("app.log");
    let shipper = world.run(&of_app_log()).start();
    log.write(["one", "two"]);
    shipper.delivers(["one", "two"]);
    shipper.stop().exits(0);
    rotate_to(&mut log, ["three"]);
    rotate_to(&mut log, ["four"]);

    let shipper = world.run(&of_app_log()).start();
    shipper.delivers(["three", "four"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// The copy has the name and the age of a file that had the path unseen, and would
/// repeat all that was shipped of the life before.
#[test]
fn a_copy_that_copytruncate_made_around_a_stop_is_not_shipped() {
    for stopped_first in [true, false] {
        let world = World::new();
        let mut log = world.log("app.log");
        let shipper = world.run(&of_app_log()).start();
        log.write(numbered(0..10));
        shipper.delivers(numbered(0..10));
        if stopped_first {
            shipper.stop().exits(0);
            log.rotate(Rotate::CopyTruncate);
        } else {
            log.rotate(Rotate::CopyTruncate);
            log.write(["of the second life"]);
            shipper.delivers(["of the second life"]);
            shipper.stop().exits(0);
        }

        for line in ["after a start", "after another"] {
            log.write([line]);
            let shipper = world.run(&of_app_log()).start();
            shipper.delivers([line]);
            log.write(["the end"]);
            shipper.delivers(["the end"]);
            shipper.stop().exits(0).printed([""; 0]);
        }
    }
}

/// Nothing stands at a path for long. It is found in its third second, say, and two
/// files of it are rotated away by then.
#[test]
fn a_path_that_is_rotated_every_moment_from_its_first_file_on_loses_nothing() {
    let run = |world: &World| {
        let mut config = of_app_log();
        config["discover_interval"] = json!("1s");
        world.run(&config)
    };
    let tail = |world: &World| world.tail(["app.log"]);
    let commands: [&dyn Fn(&World) -> Logship; 2] = [&run, &tail];
    for command in commands {
        for phase in 0..3 {
            let world = World::new();
            let mut log = world.later("app.log");
            let shipper = command(&world).start();
            shipper.says("it does not exist");
            sleep(LOOKS + phase * GENERATION);
            log.write(["generation 0"]);
            for n in 1..4 {
                sleep(GENERATION);
                rotate_to(&mut log, [format!("generation {n}")]);
            }
            shipper.delivers((0..4).map(|n| format!("generation {n}")));
            shipper.stop().exits(0).printed([""; 0]);
        }
    }
}

/// Most programs begin each of their logs with the same words. The unseen file was
/// taken for a copy of the one before it, which begins like it.
#[test]
fn an_unseen_file_that_begins_like_the_one_before_it_is_no_copy() {
    let (_world, mut log, shipper) = asleep("app.log");
    rotate_to(&mut log, ["one", "of the unseen"]);
    rotate_to(&mut log, ["one", "of the last"]);
    shipper.delivers(["one", "of the unseen", "one", "of the last"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// A program that was not told of the rotation, and whose log is rotated often.
#[test]
fn a_writer_that_never_noticed_twenty_rotations_is_heard() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mut shipper = world.run(&of_app_log()).start();
    log.write(["the beginning"]);
    shipper.delivers(["the beginning"]);
    let mut old = log.writer();
    for n in 0..20 {
        rotate_to(&mut log, [format!("generation {n}")]);
        shipper.delivers([format!("generation {n}")]);
    }
    let rotated = |path: &Path| path.to_string_lossy().contains("app.log.");
    shipper.has_open(false, rotated); // until all are let go
    old.write_all(b"of the old writer\n").unwrap();
    shipper.delivers(["of the old writer"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// Nothing was left in the file when logship looked for it, so that nobody looked again.
#[test]
fn a_writer_that_never_noticed_a_rotation_while_stopped_is_heard() {
    for content in [&["the beginning"][..], &[]] {
        let world = World::new();
        let mut log = world.log("app.log");
        let shipper = world.run(&of_app_log()).start();
        log.write(content);
        shipper.delivers(content);
        world.status_until("the file", |report| report.files.len() == 1);
        shipper.stop().exits(0);
        let mut old = log.writer();
        rotate_to(&mut log, ["the next"]);
        let shipper = world.run(&of_app_log()).start();
        shipper.delivers(["the next"]);
        sleep(LOOKS);
        old.write_all(b"of the old writer\n").unwrap();
        shipper.delivers(["of the old writer"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

// ---- one handle ---------------------------------------------------------------------

fn one_handle(mut config: Value) -> Value {
    config["open_files_max"] = json!(1);
    config
}

/// The only handle was taken for the file of now, none was left for the rest of the
/// one before it, and so it was given back: again and again, with nothing read.
#[test]
fn one_handle_is_enough_for_rotations_while_stopped() {
    for others in 0..2 {
        let world = World::new();
        let config = one_handle(config(json!([source("*.log", "t")])));
        let mut log = world.log("app.log");
        let mut other: Vec<Log> = (0..others).map(|_| world.log("other.log")).collect();
        log.write(["one"]);
        other.iter_mut().for_each(|log| log.write(["other one"]));
        let shipper = world.run(&config).start();
        shipper.next_lines(1 + others);
        shipper.stop().exits(0);
        log.write(["two"]);
        rotate_to(&mut log, ["three"]);
        rotate_to(&mut log, ["four"]);
        other.iter_mut().for_each(|log| log.write(["other two"]));

        let shipper = world.run(&config).start();
        let lines = shipper.next_lines(3 + others);
        let of_log = lines.iter().filter(|line| !line.starts_with(b"other"));
        assert!(of_log.eq(["two", "three", "four"].map(str::as_bytes).iter()));
        shipper.stop().exits(0).printed([""; 0]);
    }
}

/// Its one handle was the file's, so that nobody could look what the copy is.
#[test]
fn one_handle_is_enough_to_know_a_copy() {
    let world = World::new();
    let mut log = world.log("app.log");
    let config = one_handle(of_app_log());
    let shipper = world.run(&config).start();
    log.write(numbered(0..10));
    shipper.delivers(numbered(0..10));
    log.rotate(Rotate::CopyTruncate);
    log.write(["of the second life"]);
    shipper.delivers(["of the second life"]);
    shipper.stop().exits(0);
    log.rotate(Rotate::Rename);
    log.write(["of the next file"]);
    let shipper = world.run(&config).start();
    shipper.delivers(["of the next file"]);
    shipper.stop().exits(0).printed([""; 0]);
}

#[test]
fn one_handle_is_enough_for_rotations_while_asleep() {
    let world = World::new();
    let names = ["a.log", "b.log", "c.log"];
    let mut logs = names.map(|name| world.log(name));
    let config = one_handle(sleepy(json!([source("*.log", "t")])));
    let shipper = world.run(&config).start();
    for (log, name) in logs.iter_mut().zip(names) {
        log.write([name]);
    }
    shipper.delivers_in_any_order(names);
    world.all_asleep(3);
    for n in 0..3 {
        rotate_to(&mut logs[0], [format!("generation {n}")]);
    }
    shipper.delivers((0..3).map(|n| format!("generation {n}")));
    logs[1].write(["of the other"]);
    shipper.delivers(["of the other"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// The file of now took the only handle whenever it woke, and what woke it, the old
/// one, could never be opened.
#[test]
fn one_handle_is_enough_for_a_writer_that_never_noticed_the_rename() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mut shipper = world.run(&one_handle(of_app_log())).start();
    log.write(["one"]);
    shipper.delivers(["one"]);
    let mut old = log.writer();
    rotate_to(&mut log, ["two"]);
    shipper.delivers(["two"]);
    shipper.has_open(false, |path| path.ends_with("app.log.1"));
    old.write_all(b"of the old writer\n").unwrap();
    shipper.delivers(["of the old writer"]);
    log.write(["three"]);
    shipper.delivers(["three"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// It was found, and its turn has not come: it and the next one are renamed before
/// anybody opens them.
#[test]
fn a_file_that_is_rotated_before_its_first_turn_is_shipped_and_its_followers_are() {
    let (world, mut waiting, shipper) = waits_for_its_first_turn();
    rotate_to(&mut waiting, ["two"]);
    rotate_to(&mut waiting, ["three"]);
    shipper.delivers(["one", "two", "three"]);
    assert_eq!(world.status().topics["t"].lag_bytes, 0);
    let ended = shipper.stop().exits(0).printed([""; 0]);
    assert_eq!(ended.losses(), []);
}

#[test]
fn a_file_that_is_deleted_before_its_first_turn_is_reported_as_lost() {
    let (_world, mut waiting, shipper) = waits_for_its_first_turn();
    let (inode, bytes) = (waiting.inode(), waiting.size());
    waiting.rotate(Rotate::Recreate);
    waiting.write(["two"]);
    shipper.delivers(["two"]);
    shipper.says("lost path=");
    let told = shipper.stop().exits(0).losses();
    let told: Vec<_> = told.iter().map(|l| (l.inode, l.from, l.bytes)).collect();
    assert_eq!(told, [(inode, 0, bytes)]);
}

/// Another file has the only handle, and has just begun to be read.
fn waits_for_its_first_turn() -> (World, Log, Shipper) {
    let world = World::new();
    world.log("a.log").write(["of the first"]);
    let mut waiting = world.log("b.log");
    waiting.write(["one"]);
    let config = one_handle(config(json!([source("*.log", "t")])));
    let shipper = world.run(&config).start();
    shipper.delivers(["of the first"]);
    world.status_until("it to wait", |report| {
        report.files.iter().any(|file| file.state == "queued")
    });
    (world, waiting, shipper)
}

/// None of them ever rests, and each is rotated while others have the handle.
#[test]
fn busy_files_that_are_rotated_share_one_handle_and_lose_nothing() {
    const FILES: usize = 3;
    let world = World::new();
    let mut logs: Vec<Log> = (0..FILES).map(|n| world.log(format!("{n}.log"))).collect();
    let config = one_handle(config(json!([source("*.log", "t")])));
    let shipper = world.run(&config).start();
    let lines_of =
        |n: usize, round: usize| (0..5).map(move |line| format!("{n}: {:05}", round * 5 + line));
    for round in 0..90 {
        for (n, log) in logs.iter_mut().enumerate() {
            log.write(lines_of(n, round));
            if (round + n * 7) % 20 == 19 {
                log.rotate(Rotate::Rename);
            }
        }
        sleep(Duration::from_millis(20));
    }
    let arrived = shipper.next_lines(FILES * 90 * 5);
    for n in 0..FILES {
        let expected = (0..90).flat_map(|round| lines_of(n, round));
        let prefix = format!("{n}: ");
        let of_file = arrived
            .iter()
            .filter(|line| line.starts_with(prefix.as_bytes()));
        assert!(of_file.eq(expected.map(String::into_bytes).collect::<Vec<_>>().iter()));
    }
    shipper.stop().exits(0).printed([""; 0]);
}

// ---- room that is written over -------------------------------------------------------

/// A log with three lines that are shipped, and room behind them which was seen.
fn with_room(room: u64) -> (World, File, u64, Shipper) {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.run(&of_app_log()).start();
    let head = ["one", "two", "three"];
    log.write(head);
    shipper.delivers(head);
    let (writer, at) = (for_writing(log.path()), log.size());
    writer.set_len(at + room).unwrap();
    world.status_until("the room to be seen", |report| {
        report.files.iter().any(|file| file.size == at + room)
    });
    sleep(LOOKS);
    (world, writer, at, shipper)
}

fn for_writing(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

/// All is counted, and counted right: lines that are read are lines that are acknowledged.
fn ends_without_a_loss(world: &World, shipper: Shipper, lines: u64) {
    let report = world.status_until("all to be acknowledged", |report| {
        report.topics["t"].lag_bytes == 0
    });
    let topic = &report.topics["t"];
    let counted = (topic.read_lines, topic.acked_lines);
    assert_eq!(counted, (lines, lines), "{topic:?}");
    let ended = shipper.stop().exits(0).printed([""; 0]);
    assert_eq!(ended.losses(), []);
}

/// Nothing of the room is left, and nothing came behind it: its last byte ends a line.
#[test]
fn room_that_is_written_over_as_a_whole_gives_its_lines_at_once() {
    let (world, writer, at, shipper) = with_room(6);
    writer.write_all_at(b"a\nb\nc\n", at).unwrap();
    shipper.delivers(["a", "b", "c"]);
    writer.write_all_at(b"d\n", at + 6).unwrap();
    shipper.delivers(["d"]);
    ends_without_a_loss(&world, shipper, 7);
}

/// The search for the next line end began behind the room, found the one beyond, and
/// all that was written over the room was one line of it.
#[test]
fn room_that_is_written_over_up_to_a_line_beyond_gives_every_line() {
    const LINES: usize = 20_000;
    for parts in [1, 2, 7] {
        let lines = numbered(0..LINES);
        let bytes = lines.join("\n") + "\n";
        let (world, writer, at, shipper) = with_room(bytes.len() as u64);
        let line_bytes = bytes.len() / LINES;
        let mut offset = 0;
        for part in lines.chunks(LINES.div_ceil(parts)) {
            let to = offset + part.len() * line_bytes;
            let written = &bytes.as_bytes()[offset..to];
            writer.write_all_at(written, at + offset as u64).unwrap();
            if to == bytes.len() {
                writer.write_all_at(b"beyond\n", at + to as u64).unwrap();
            }
            shipper.delivers(part);
            offset = to;
        }
        shipper.delivers(["beyond"]);
        ends_without_a_loss(&world, shipper, 3 + LINES as u64 + 1);
    }
}

#[test]
fn room_that_grows_page_by_page_while_lines_fill_it_repeats_and_loses_nothing() {
    const PAGE: u64 = 4 << 10;
    let (world, writer, mut at, shipper) = with_room(0);
    let mut size = at;
    let lines = numbered(0..600);
    for line in &lines {
        let end = at + line.len() as u64 + 1;
        if end > size {
            size += PAGE;
            writer.set_len(size).unwrap();
        }
        writer
            .write_all_at(format!("{line}\n").as_bytes(), at)
            .unwrap();
        at = end;
        sleep(Duration::from_millis(4));
    }
    shipper.delivers(&lines);
    writer.set_len(at).unwrap();
    writer.write_all_at(b"the end\n", at).unwrap();
    shipper.delivers(["the end"]);
    ends_without_a_loss(&world, shipper, 3 + 600 + 1);
}

/// A log with room behind three lines, of which the second waits for a human, and the third
/// came back.
fn with_room_and_stalled() -> (Broker, World, File, u64, Shipper) {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let shipper = world
        .run(&to_broker(&broker, json!([source("app.log", "t")])))
        .start();
    log.write(["one"]);
    world.acked("t", 1);
    let (writer, at) = (for_writing(log.path()), log.size());
    writer.set_len(at + 4096).unwrap();
    sleep(LOOKS);
    broker.fault(Fault::of(Misdeed::Error(29)).topic("t"));
    writer.write_all_at(b"two\n", at).unwrap();
    sleep(Duration::from_secs(1)); // it waits for a human, and what follows comes back
    writer.write_all_at(b"three\n", at + 4).unwrap();
    world.status_until("the topic to stall", |report| {
        report.files.iter().any(|file| file.state == "full")
    });
    sleep(LOOKS);
    (broker, world, writer, at, shipper)
}

/// Lines came back, so that they are to be read again, and more are written over the room
/// behind them: nobody knew of those, and they were lost without a word.
#[test]
fn lines_that_are_written_over_room_while_those_before_wait_are_known() {
    let (broker, world, writer, at, shipper) = with_room_and_stalled();
    writer.write_all_at(b"four\n", at + 10).unwrap();
    world.status_until("all to be known", |report| {
        report.topics["t"].known_bytes >= at + 15
    });
    broker.clear_faults();
    records(&broker, "t", 4);
    let ended = shipper.stop().exits(0);
    assert_eq!(ended.losses(), []);
}

/// ... or the room is given back: the file was taken for truncated, and all came again.
#[test]
fn room_that_is_given_back_while_lines_before_it_wait_is_no_truncation() {
    let (broker, world, writer, at, shipper) = with_room_and_stalled();
    writer.set_len(at + 10).unwrap();
    sleep(LOOKS);
    broker.clear_faults();
    records(&broker, "t", 3);
    world.status_until("all to be acknowledged", |report| {
        report.topics["t"].lag_bytes == 0
    });
    let ended = shipper.stop().exits(0);
    assert_eq!(ended.losses(), []);
    assert_eq!(values(&broker, "t"), ["one", "two", "three"]);
}

/// Its room was shipped as a line of NUL bytes, and what its writer, which had not noticed the
/// rename, wrote there was never read.
#[test]
fn room_of_a_renamed_file_is_no_line_and_what_is_written_there_is_read() {
    let (world, writer, at, mut shipper) = with_room(8192);
    let old = world.path("app.log.1");
    fs::rename(world.path("app.log"), &old).unwrap();
    world.log("app.log").write(["next"]);
    shipper.delivers(["next"]);
    sleep(LOOKS);
    writer.write_all_at(b"late\n", at).unwrap();
    shipper.delivers(["late"]);
    shipper.has_open(false, |path| path == old);
    writer.write_all_at(b"later\n", at + 5).unwrap();
    shipper.delivers(["later"]);
    ends_without_a_loss(&world, shipper, 6);
}

/// ... and neither is that of a file that is read once, which waited for it for ever when it
/// was given back.
#[test]
fn room_of_a_file_that_is_read_once_is_no_line() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one", "two"]);
    let at = log.size();
    for room in [10, 1 << 20] {
        log.writer().set_len(at + room).unwrap();
        let ended = world.tail([log.path()]).once().run();
        ended.exits(0).printed(["one", "two"]);
    }
}

// ---- holes and restarts -----------------------------------------------------------------

/// A writer without O_APPEND goes on where it was after a truncation, and what was
/// before is NUL bytes. They came as a part of the first line when logship had been
/// stopped around it.
#[test]
fn the_hole_that_a_truncation_leaves_is_skipped_also_over_a_restart() {
    for truncation_seen in [false, true] {
        let world = World::new();
        let mut log = world.log("app.log");
        let shipper = world.run(&of_app_log()).start();
        log.write(numbered(0..3_000));
        shipper.delivers(numbered(0..3_000));
        let (writer, position) = (for_writing(log.path()), log.size());
        if truncation_seen {
            log.truncate();
            shipper.says("truncated or rewritten");
            shipper.stop().exits(0);
        } else {
            shipper.stop().exits(0);
            log.truncate();
        }
        writer
            .write_all_at(b"after the hole\nand more\n", position)
            .unwrap();

        let shipper = world.run(&of_app_log()).start();
        shipper.delivers(["after the hole", "and more"]);
        log.write(["a \0 here is data"]);
        shipper.delivers(["a \0 here is data"]);
        let ended = shipper.stop().exits(0).printed([""; 0]);
        assert_eq!(ended.losses(), []);
    }
}

// ---- inode numbers that are used again --------------------------------------------------

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// Makes a file with an inode number that is free again. False where the file system
/// does not use one twice soon, which is told: nothing is to be seen there.
fn takes_inode(world: &World, number: u64, name: &str, content: &str) -> bool {
    let tried = |n: usize| world.path(format!("tried-{n}"));
    for n in 0..INODES_MAX {
        fs::write(tried(n), content).unwrap();
        if inode(tried(n)) == number {
            fs::rename(tried(n), world.path(name)).unwrap();
            (0..n).for_each(|n| fs::remove_file(tried(n)).unwrap());
            return true;
        }
    }
    eprintln!("skipped: no file got the inode {number} again");
    false
}

/// Deletes a log and frees its inode.
fn deleted(log: Log) -> u64 {
    let number = log.inode();
    fs::remove_file(log.path()).unwrap();
    number
}

/// The first line is all that is known of a short file, and the next file of the path
/// has it too: that one was taken for its rest.
#[test]
fn another_file_with_the_inode_and_the_first_line_of_a_log_is_read_from_its_beginning() {
    for blind in [Blind::Stopped, Blind::Asleep] {
        let (world, log, shipper) = asleep("app.log");
        let shipper = blind.begin(&world, shipper);
        let number = deleted(log);
        if !takes_inode(&world, number, "app.log", "one\nnew\n") {
            return;
        }
        let config = sleepy(json!([source("app.log", "t")]));
        let shipper = shipper.unwrap_or_else(|| world.run(&config).start());
        shipper.delivers(["one", "new"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

/// logrotate deletes the oldest file and creates one that gets its inode: that one was
/// known, it seemed, and passed over when it was rotated away unseen.
#[test]
fn an_unseen_file_with_the_inode_of_one_that_was_known_is_shipped() {
    let (world, log, mut shipper) = asleep("app.log");
    log.rename_to(world.path("app.log.1"));
    fs::write(world.path("app.log"), "two\n").unwrap();
    shipper.delivers(["two"]);
    shipper.has_open(false, |path| path.ends_with("app.log.1"));
    world.all_asleep(1);

    let number = log.inode();
    drop(log);
    fs::remove_file(world.path("app.log.1")).unwrap();
    fs::rename(world.path("app.log"), world.path("app.log.2")).unwrap();
    if !takes_inode(&world, number, "app.log.1", "of the unseen\n") {
        return;
    }
    fs::write(world.path("app.log"), "of the last\n").unwrap();
    shipper.delivers(["of the unseen", "of the last"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// The same for the copy that copytruncate makes: it seemed to be known already, so that
/// nobody remembered what it is, and the next logship shipped it.
#[test]
fn a_copy_with_the_inode_of_a_file_that_was_known_is_not_shipped() {
    let (world, mut log, mut shipper) = asleep("app.log");
    let first = world.path("app.log.1");
    log.rename_to(&first);
    log.reopen();
    log.write(["two"]);
    shipper.delivers(["two"]);
    shipper.has_open(false, |path| path.ends_with("app.log.1"));
    world.all_asleep(1);

    let number = inode(&first);
    fs::remove_file(&first).unwrap();
    if !takes_inode(&world, number, "app.log.1", "two\n") {
        return;
    }
    log.truncate();
    log.write(["three"]);
    shipper.delivers(["three"]);
    shipper.stop().exits(0);
    log.rotate(Rotate::Rename);
    log.write(["four"]);
    let shipper = world.run(&of_app_log()).start();
    shipper.delivers(["four"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// A file that nobody named must never be shipped: an inode is no name, and of an
/// empty log nothing else was known, of a short one little more.
#[test]
fn a_file_that_only_has_the_inode_of_a_log_is_never_shipped() {
    for head in ["", "#\n"] {
        for blind in [Blind::Stopped, Blind::Killed, Blind::Asleep] {
            let world = World::new();
            let mut log = world.log("app.log");
            let config = sleepy(json!([source("app.log", "t")]));
            let shipper = world.run(&config).start();
            log.write_raw(head);
            shipper.delivers(head.lines());
            world.all_asleep(1);
            let shipper = blind.begin(&world, shipper);
            let number = deleted(log);
            if !takes_inode(&world, number, "secret.txt", &format!("{head}a secret\n")) {
                return;
            }
            let mut log = world.log("app.log");
            log.write(["new"]);
            let shipper = shipper.unwrap_or_else(|| world.run(&config).start());
            shipper.delivers(["new"]);
            sleep(LOOKS);
            log.write(["the end"]);
            shipper.delivers(["the end"]);
            shipper.stop().exits(0).printed([""; 0]);
        }
    }
}

/// Nothing stands at the path, so that the log is looked for by its inode.
#[test]
fn a_file_that_only_has_the_inode_of_a_log_is_not_taken_for_one_that_was_renamed() {
    for head in ["", "#\n"] {
        let world = World::new();
        let mut log = world.log("app.log");
        let shipper = world.run(&of_app_log()).start();
        log.write_raw(head);
        shipper.delivers(head.lines());
        world.status_until("the file", |report| report.files.len() == 1);
        shipper.stop().exits(0);
        let number = deleted(log);
        if !takes_inode(&world, number, "app.log.1", &format!("{head}a secret\n")) {
            return;
        }
        let shipper = world.run(&of_app_log()).start();
        world.status(); // it is up
        sleep(2 * LOOKS);
        let ended = shipper.stop().exits(0).printed([""; 0]);
        ended.never_said("a file is gone"); // nobody opened it
    }
}

/// The renamed log is looked at for an hour, because its writer may go on with it.
#[test]
fn a_file_that_only_has_the_inode_of_an_empty_rotated_log_is_never_shipped() {
    let world = World::new();
    let log = world.log("app.log");
    let config = sleepy(json!([source("app.log", "t")]));
    let mut shipper = world.run(&config).start();
    world.all_asleep(1);
    log.rename_to(world.path("app.log.1"));
    let mut new = world.log("app.log");
    new.write(["new"]);
    shipper.delivers(["new"]);
    shipper.has_open(false, |path| path.ends_with("app.log.1"));

    let number = log.inode();
    drop(log);
    fs::remove_file(world.path("app.log.1")).unwrap();
    if !takes_inode(&world, number, "secret.txt", "a secret\n") {
        return;
    }
    sleep(LOOKS);
    new.write(["the end"]);
    shipper.delivers(["the end"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// Nobody knows of a file that came and went unseen whether it was truncated under a
/// writer that does not append: NUL bytes at its head are what that leaves.
#[test]
fn the_hole_at_the_head_of_a_rotated_file_that_nobody_saw_is_skipped() {
    let world = World::new();
    let config = config(json!([source("app.log", "t")]));
    let mut log = world.log("app.log");
    let shipper = world.run(&config).start();
    log.write(["one"]);
    shipper.delivers(["one"]);
    shipper.stop().exits(0);
    log.rotate(Rotate::Rename);
    log.write_raw([0; 5_000]);
    log.write(["behind the hole"]);
    log.rotate(Rotate::Rename);
    log.write(["the end"]);

    let shipper = world.run(&config).start();
    shipper.delivers(["behind the hole", "the end"]);
    let ended = shipper.stop().exits(0).printed([""; 0]);
    let told: Vec<u64> = ended.drops().iter().map(|drop| drop.bytes).collect();
    assert_eq!(told, [5_000]);
}

/// Where a file is that a link led to must not be forgotten when it is taken up again
/// while the link leads elsewhere.
#[test]
fn the_target_of_before_is_found_again_and_again_where_it_is() {
    let world = World::new();
    world.dir("old");
    world.dir("new");
    let mut target = world.log("old/1.txt");
    let (mut link, mut next) = (world.later("app.log"), world.log("new/2.txt"));
    link.point_at(&target);
    let config = config(json!([source("app.log", "t")]));
    let shipper = world.run(&config).start();
    target.write(["one"]);
    shipper.delivers(["one"]);
    shipper.stop().exits(0);
    link.point_at(&next);

    for round in 0..3 {
        target.write([format!("old {round}")]);
        next.write([format!("new {round}")]);
        let shipper = world.run(&config).start();
        shipper.delivers_in_any_order([format!("old {round}"), format!("new {round}")]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

/// Another name of the file that stands at its path was tailed first, and nobody looked
/// any more what had been at the path before.
#[test]
fn what_is_lost_is_told_also_where_another_file_has_a_second_name() {
    let world = World::new();
    let mut log = world.log("b.log");
    let config = config(json!([source("*.log", "t")]));
    let shipper = world.run(&config).start();
    log.write(["one"]);
    shipper.delivers(["one"]);
    log.write_raw("unfinished");
    world.status_until("all of it to be known", |report| {
        report.files.iter().any(|file| file.size == 14)
    });
    shipper.stop();
    let inode = log.inode();
    let mut other = world.log("a.log");
    other.write(["two"]);
    fs::remove_file(log.path()).unwrap();
    fs::hard_link(other.path(), log.path()).unwrap();

    let shipper = world.run(&config).start();
    shipper.delivers(["two"]);
    shipper.says("lost path=");
    let told = shipper.stop().exits(0).losses();
    let told: Vec<_> = told.iter().map(|l| (l.inode, l.from, l.bytes)).collect();
    assert_eq!(told, [(inode, 4, 10)]);
}

/// NUL bytes are no fingerprint: the file was taken for the same one, and what was in it
/// was waited for.
#[test]
fn a_file_that_begins_with_nuls_and_is_truncated_unseen_is_reported_as_lost() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.run(&of_app_log()).start();
    log.write_raw([0; 5_000]);
    log.write_raw("unfinished");
    world.status_until("all of it to be known", |report| {
        report.files.iter().any(|file| file.size == 5_010)
    });
    shipper.stop();
    for_writing(log.path()).set_len(0).unwrap();
    log.write(["new"]);

    let shipper = world.run(&of_app_log()).start();
    shipper.delivers(["new"]);
    let told = shipper.stop().exits(0).losses();
    let told: Vec<_> = told.iter().map(|l| (l.inode, l.from, l.bytes)).collect();
    assert_eq!(told, [(log.inode(), 0, 5_010)]);
}
