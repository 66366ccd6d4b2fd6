//! Rotation, seen from outside: the real binary, real files, whole lines.

use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::world::{Ended, Loss, Rotate, World, numbered};

/// How far apart the generations are that must all be seen under one path.
const GENERATION: Duration = Duration::from_millis(250);
/// More than the queue, its pipe and every buffer hold together.
const MORE_THAN_THE_QUEUE: usize = 24 << 20;
/// Length of a [`wide`] line with its end.
const WIDE: usize = 512;

/// The line written just before the switch is the easiest one to lose: it is
/// in a file whose name already points elsewhere.
#[test]
fn lines_written_around_a_rotation_all_arrive_in_order() {
    for how in Rotate::LOSSLESS {
        let world = World::new();
        let mut log = world.log("app.log");
        let shipper = world.tail([&log]).since_beginning().start();

        log.write(["one", "two"]);
        shipper.delivers(["one", "two"]);

        log.write(["last of the old file"]);
        log.rotate(how);
        log.write(["first of the new file"]);

        shipper.delivers(["last of the old file", "first of the new file"]);
    }
}

#[test]
fn the_writer_may_go_on_in_the_renamed_file() {
    let world = World::new();
    let mut old = world.log("app.log");
    let shipper = world.tail([&old]).since_beginning().start();
    old.write(["before"]);
    shipper.delivers(["before"]);

    old.rename_to(world.path("app.log.1"));
    for n in 0..4 {
        old.write([format!("alone {n}")]);
        shipper.delivers([format!("alone {n}")]);
    }
    let mut new = world.log("app.log");
    for n in 0..8 {
        // For two seconds both are written to.
        sleep(GENERATION);
        new.write([format!("new {n}")]);
        shipper.delivers([format!("new {n}")]);
        old.write([format!("old {n}")]);
        shipper.delivers([format!("old {n}")]);
    }
}

#[test]
fn ten_rotations_inside_a_glob_repeat_nothing() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world
        .tail([world.path("app.log*")])
        .since_beginning()
        .start();
    for generation in 0..10 {
        let lines = [format!("{generation} first"), format!("{generation} last")];
        log.write(&lines);
        shipper.delivers(&lines);
        log.rotate(Rotate::Rename);
    }
    log.write(["the end"]);
    shipper.delivers(["the end"]);
}

#[test]
fn rotations_in_quick_succession_inside_a_glob_lose_and_repeat_nothing() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world
        .tail([world.path("app.log*")])
        .args(["--format", "json"])
        .since_beginning()
        .start();
    for generation in 0..30 {
        log.write(numbered(generation * 50..generation * 50 + 50));
        log.rotate(Rotate::Rename);
    }
    let mut arrived = shipper.next_lines(1_500);
    log.write(["the end"]);
    arrived.extend(shipper.next_lines(1));
    let verify = world.verify([world.path("app.log*")], arrived.join(&b'\n'));
    verify
        .run()
        .exits(0)
        .printed(["done files=31 records=1501 arrived=1501 missing=0 repeated=0 misordered=0"]);
}

/// Who follows one path must look at it often enough, whatever it is doing.
#[test]
fn generations_a_quarter_second_apart_are_all_seen_with_one_path() {
    let world = World::new();
    let mut followed = Rotate::LOSSLESS.map(|how| {
        world.dir(&format!("{how:?}"));
        let mut log = world.log(format!("{how:?}/app.log"));
        let shipper = world.tail([&log]).since_beginning().start();
        log.write(["awake"]);
        shipper.delivers(["awake"]);
        (how, log, shipper)
    });
    for generation in 0..8 {
        for (how, log, _) in &mut followed {
            log.rotate(*how);
            log.write(numbered(generation * 3..generation * 3 + 3));
        }
        sleep(GENERATION);
    }
    for (_, _, shipper) in followed {
        shipper.delivers(numbered(0..24));
    }
}

/// The queue is full, because nobody reads standard output. The generations
/// that come and go meanwhile must be noticed, and kept open.
#[test]
fn generations_that_come_and_go_while_nothing_can_be_delivered_all_arrive() {
    let world = World::new();
    let mut log = world.log("app.log");
    let count = MORE_THAN_THE_QUEUE / WIDE;
    log.write(wide(0..count));
    let mut shipper = world.tail([&log]).since_beginning().start();
    shipper.pause_reading();
    shipper.has_read(1 << 20);
    for generation in 0..4 {
        log.rotate(Rotate::Recreate);
        log.write(wide(count + generation * 10..count + generation * 10 + 10));
        sleep(GENERATION);
    }
    shipper.resume_reading();

    shipper.delivers(wide(0..count + 40));
    let peak = shipper.peak_memory();
    assert!(peak < 40 << 20, "{peak} bytes of memory were used");
    let figures = shipper.stop().exits(0).summary();
    let lines = count as u64 + 40;
    assert_eq!((figures.read, figures.acked), (lines, lines));
    assert_eq!((figures.dropped, figures.lag), (0, 0));
}

#[test]
fn a_file_renamed_and_deleted_with_unread_data_is_read_to_its_end_and_let_go() {
    let world = World::new();
    let mut log = world.log("app.log");
    let count = MORE_THAN_THE_QUEUE / WIDE;
    log.write(wide(0..count));
    let mut shipper = world.tail([&log]).since_beginning().start();
    shipper.pause_reading();
    shipper.has_read(1 << 20);

    log.rename_to(world.path("app.log.1"));
    fs::remove_file(world.path("app.log.1")).unwrap();
    shipper.resume_reading();

    shipper.delivers(wide(0..count));
    shipper.has_open(false, is_deleted_log);
}

/// The handle may be kept for a while, since some writers go on in it.
#[test]
fn a_file_that_lost_its_name_is_read_to_its_end_and_let_go() {
    let world = World::new();
    let started = ["deleted", "replaced"].map(|name| {
        world.dir(name);
        let mut log = world.log(format!("{name}/app.log"));
        let shipper = world.tail([&log]).since_beginning().start();
        log.write(["one"]);
        shipper.delivers(["one"]);
        log.write(["two"]);
        match name {
            "deleted" => {
                log.delete();
                shipper.delivers(["two"]);
            }
            _ => {
                log.rotate(Rotate::Replace);
                log.write(["new"]);
                shipper.delivers(["two", "new"]);
            }
        }
        shipper
    });
    for mut shipper in started {
        shipper.has_open(false, is_deleted_log);
    }
}

#[test]
fn a_file_deleted_and_created_again_at_once_is_read_from_its_beginning() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    log.write(["a first line of the old file", "and a second one"]);
    shipper.delivers(["a first line of the old file", "and a second one"]);

    for n in 0..5 {
        log.rotate(Rotate::Recreate);
        log.write([format!("new {n}")]);
        shipper.delivers([format!("new {n}")]);
    }
}

#[test]
fn a_file_renamed_inside_the_glob_is_not_read_again() {
    let world = World::new();
    let mut log = world.log("a.log");
    let shipper = world.tail([world.path("*.log")]).since_beginning().start();
    log.write(["one"]);
    shipper.delivers(["one"]);

    log.rename_to(world.path("b.log"));
    log.write(["two"]);
    shipper.delivers(["two"]);
    let mut other = world.log("c.log");
    other.write(["three"]);

    shipper.delivers(["three"]);
}

#[test]
fn a_file_renamed_inside_the_glob_while_logship_is_stopped_is_finished() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one"]);
    let tail = || world.tail([world.path("app.log*")]).with_state().once();
    tail().run().exits(0).printed(["one"]);

    log.write(["rest of the old one"]);
    log.rotate(Rotate::Rename);
    log.write(["all of", "the new one"]);

    let mut lines = tail().run().exits(0).lines();
    lines.sort();
    assert_eq!(
        lines,
        ["all of", "rest of the old one", "the new one"].map(Vec::from)
    );
    tail().run().exits(0).printed([""; 0]);
}

/// The oldest promise of all: what is lost is said, by file and byte range.
#[test]
fn a_file_moved_out_of_reach_while_logship_is_stopped_is_reported_as_lost() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(wide(0..MORE_THAN_THE_QUEUE / WIDE));
    let (size, inode) = (log.size(), log.inode());
    let tail = || world.tail([world.path("app.log*")]).with_state();
    let mut shipper = tail()
        .since_beginning()
        .args(["--shutdown-timeout", "200ms"])
        .start();
    shipper.pause_reading();
    shipper.has_read(1 << 20);
    let delivered = shipper.stop().exits(3).whole_lines().len() * WIDE;

    log.rename_to(world.dir("away").join("app.log"));
    log.reopen();
    log.write(["the new one"]);

    let ended = tail().once().run().exits(0).printed(["the new one"]);
    let lost = loss(&ended, &world.path("app.log"), inode);
    assert!(lost.start <= delivered as u64, "{lost:?}, {delivered}");
    assert_eq!(lost.start % WIDE as u64, 0);
    assert_eq!(lost.end, size);
}

#[test]
fn copytruncate_loses_and_repeats_nothing_when_the_reader_is_caught_up() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    for round in 0..6 {
        let lines = numbered(round * 20..round * 20 + 20 - round);
        log.write(&lines);
        shipper.delivers(&lines);
        log.rotate(Rotate::CopyTruncate);
    }
    assert_eq!(shipper.stop().exits(0).losses(), []);
}

/// What sits in the queue or in flight at the truncation is delivered; what was
/// not read is lost and reported; the two meet at one byte.
#[test]
fn copytruncate_behind_the_readers_back_is_reported_to_the_byte() {
    let world = World::new();
    let mut log = world.log("app.log");
    let count = MORE_THAN_THE_QUEUE / WIDE;
    log.write(wide(0..count));
    let size = log.size();
    let mut shipper = world.tail([&log]).since_beginning().start();
    shipper.pause_reading();
    shipper.has_read(1 << 20);

    log.rotate(Rotate::CopyTruncate);
    log.write(["first after the truncation"]);
    let line = shipper.says_line("what was lost", |line| Loss::in_line(line).is_some());
    shipper.resume_reading();

    let from = Loss::in_line(&line).expect("just found").from;
    shipper.delivers(wide(0..usize::try_from(from).unwrap() / WIDE));
    shipper.delivers(["first after the truncation"]);
    let ended = shipper.stop().exits(0);
    assert_eq!(loss(&ended, log.path(), log.inode()), from..size);
}

#[test]
fn a_log_truncated_and_written_shorter_is_read_from_its_beginning() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    log.write(["a line long enough to shrink below", "and another"]);
    shipper.delivers(["a line long enough to shrink below", "and another"]);

    log.truncate();
    log.write(["short"]);
    shipper.delivers(["short"]);
    log.write(["next"]);
    shipper.delivers(["next"]);
}

#[test]
fn a_log_shrunk_to_its_own_first_line_begins_again_with_that_line() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    log.write(["# log of app", "one", "two"]);
    shipper.delivers(["# log of app", "one", "two"]);

    log.truncate();
    log.write(["# log of app"]);

    shipper.delivers(["# log of app"]);
}

/// Between two looks the file was emptied and has grown past the old position:
/// the size alone says nothing.
#[test]
fn a_log_truncated_and_grown_past_the_position_is_read_from_its_beginning() {
    for first_line in ["# log of app", "# another log"] {
        let world = World::new();
        let mut log = world.log("app.log");
        let shipper = world.tail([&log]).since_beginning().start();
        log.write(["# log of app", "one", "two"]);
        shipper.delivers(["# log of app", "one", "two"]);

        let rewritten = [first_line, "three", "four", "five", "six", "seven"];
        log.truncate();
        log.write(rewritten);

        shipper.delivers(rewritten);
        log.write(["eight"]);
        shipper.delivers(["eight"]);
    }
}

#[test]
fn a_log_rewritten_with_equal_size_is_read_from_its_beginning() {
    for in_place in [false, true] {
        let world = World::new();
        let mut log = world.log("app.log");
        let shipper = world.tail([&log]).since_beginning().start();
        log.write(["# log of app", "one", "two"]);
        shipper.delivers(["# log of app", "one", "two"]);

        // The changed time is all that a look at the file can see, and the
        // clock of a file system is a coarse one.
        sleep(Duration::from_millis(50));
        if in_place {
            let writer = OpenOptions::new().write(true).open(log.path()).unwrap();
            writer.write_all_at(b"# log of app\nsix\nten\n", 0).unwrap();
        } else {
            log.truncate();
            log.write(["# log of app", "six", "ten"]);
        }

        shipper.delivers(["# log of app", "six", "ten"]);
    }
}

/// A writer without O_APPEND goes on where it was, and the file system fills
/// what was truncated with NUL bytes.
/// Whoever sets the time of the last write back, as `cp -p` and `rsync -t` do, does
/// not hide a rewrite of equal size: the time of the last change tells.
#[test]
fn a_log_rewritten_with_its_size_and_its_time_is_read_from_its_beginning() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    log.write(["one", "two"]);
    shipper.delivers(["one", "two"]);
    let file = OpenOptions::new().write(true).open(log.path()).unwrap();
    let written = file.metadata().unwrap().modified().unwrap();
    sleep(GENERATION); // until what was written is no news any more

    file.write_all_at(b"ONE\nTWO\n", 0).unwrap();
    file.set_modified(written).unwrap();

    shipper.delivers(["ONE", "TWO"]);
}

#[test]
fn nul_bytes_left_by_a_truncation_are_skipped() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    let lines = numbered(0..100);
    log.write(&lines);
    shipper.delivers(&lines);

    let position = log.size();
    let writer = OpenOptions::new().write(true).open(log.path()).unwrap();
    log.truncate();
    writer.write_all_at(b"after the hole\n", position).unwrap();

    shipper.delivers(["after the hole"]);
    log.write(["a \0 here is data"]);
    shipper.delivers(["a \0 here is data"]);
}

#[test]
fn a_symbolic_link_pointed_elsewhere_is_a_rotation() {
    let world = World::new();
    let mut old = world.log("app-1.log");
    let mut new = world.log("app-2.log");
    let mut link = world.later("current");
    link.point_at(&old);
    let shipper = world.tail([&link]).since_beginning().start();
    old.write(["one"]);
    shipper.delivers(["one"]);

    old.write(["rest of the old target"]);
    new.write(["already in the new target"]);
    link.point_at(&new);

    shipper.delivers(["rest of the old target", "already in the new target"]);
    new.write(["two"]);
    shipper.delivers(["two"]);
}

#[test]
fn a_file_with_two_names_is_read_once_with_a_warning() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one"]);
    log.link_to(world.path("hard.link"));

    let shipper = world
        .tail([world.path("*.log"), world.path("*.link")])
        .since_beginning()
        .start();

    shipper.delivers(["one"]);
    shipper.says_line("a warning with a path", |line| {
        let named = line.contains("app.log") || line.contains("hard.link");
        named && line.to_ascii_lowercase().contains("warn")
    });
    log.write(["two"]);
    shipper.delivers(["two"]);
}

#[test]
fn a_file_given_twice_is_read_once() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mut link = world.later("link.log");
    link.point_at(&log);
    log.write(["one", "two"]);

    let paths = [log.path(), log.path(), Path::new("app.log"), link.path()];
    let ended = world.tail(paths).once().run();

    ended.exits(0).printed(["one", "two"]);
}

#[test]
fn a_missing_file_is_said_once_and_read_from_its_beginning_when_it_comes() {
    let world = World::new();
    let mut log = world.later("app.log");
    let shipper = world.tail([&log]).start();
    shipper.says("app.log");
    shipper.quiet_for(Duration::from_millis(500));
    let said = shipper.stderr();
    // Long enough for some more looks at it.
    shipper.quiet_for(Duration::from_millis(2_500));
    assert_eq!(shipper.stderr(), said);

    log.write(["one", "two"]);

    shipper.delivers(["one", "two"]);
}

#[test]
fn a_broken_link_is_said_and_followed_when_it_is_whole() {
    let world = World::new();
    let mut target = world.later("target.log");
    let mut link = world.later("link.log");
    link.point_at(&target);
    let shipper = world.tail([&link]).start();
    shipper.says("link.log");

    target.write(["one"]);

    shipper.delivers(["one"]);
}

#[test]
fn a_pattern_in_a_directory_that_comes_later_is_watched() {
    let world = World::new();
    let mut other = world.log("other.log");
    let pattern = world.path("later/*/*.log");
    let shipper = world.tail([other.path(), &pattern]).start();
    shipper.awake(&mut other);

    world.dir("later/deep");
    world.later("later/deep/a.log").write(["one"]);

    shipper.delivers(["one"]);
}

/// Every kind of rotation in turn, every line once, in order.
#[test]
fn a_long_mix_of_rotations_loses_and_repeats_nothing() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    let mut delivered = 0;
    for round in 0..24 {
        log.write(numbered(round * 50..round * 50 + 1));
        // With its first line delivered, logship has the file open ...
        shipper.delivers(numbered(delivered..round * 50 + 1));
        delivered = round * 50 + 1;
        log.write(numbered(delivered..delivered + 49));
        let how = Rotate::ALL[round % Rotate::ALL.len()];
        if how == Rotate::CopyTruncate {
            // ... but only what it has read outlives a truncation.
            shipper.delivers(numbered(delivered..delivered + 49));
            delivered += 49;
        }
        log.rotate(how);
    }
    log.write(["the end"]);
    shipper.delivers(numbered(delivered..1_200));
    shipper.delivers(["the end"]);
}

/// The byte range of the one loss that was reported, which is of this file.
#[track_caller]
fn loss(ended: &Ended, path: &Path, inode: u64) -> Range<u64> {
    let [loss] = &ended.losses()[..] else {
        ended.fail("expected one report of a loss, with inode=, from=, to= and bytes=");
    };
    assert!(loss.line.contains(path.to_str().unwrap()), "{loss:?}");
    assert_eq!(loss.inode, inode, "{loss:?}");
    assert_eq!(loss.bytes, loss.to - loss.from, "{loss:?}");
    loss.from..loss.to
}

fn is_deleted_log(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.contains(".log") && path.ends_with(" (deleted)")
}

/// Lines of [`WIDE`] bytes with their ends, that can be counted.
fn wide(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let line = |n| format!("seq={n:09} {}", "=".repeat(WIDE - 15));
    let lines: Vec<String> = numbers.into_iter().map(line).collect();
    debug_assert!(lines.iter().all(|line| line.len() + 1 == WIDE));
    lines
}

/// The copy has the name and the age of a file that was rotated away unseen.
#[test]
fn a_copy_that_copytruncate_made_is_no_rotated_file() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    for round in 0..10 {
        let lines = numbered(round * 20..round * 20 + 10);
        log.write(&lines);
        shipper.delivers(&lines);
        log.rotate(Rotate::CopyTruncate);
        log.rotate(Rotate::Rename);
        let lines = numbered(round * 20 + 10..round * 20 + 20);
        log.write(&lines);
        shipper.delivers(&lines);
    }
    shipper.stop().exits(0).printed([""; 0]);
}

/// A path is looked at every 100 ms. What came and went in between is found by its
/// name and the time of its creation.
#[test]
fn rotations_faster_than_anybody_looks_lose_nothing() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    log.write(["the beginning"]);
    shipper.delivers(["the beginning"]);

    for generation in 0..20 {
        log.write(numbered(generation * 5..generation * 5 + 5));
        log.rotate(Rotate::Rename);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    fs::write(world.path("app.log.9.lock"), "not a log\n").unwrap();
    log.write(["the end"]);

    shipper.delivers(numbered(0..100));
    shipper.delivers(["the end"]);
    shipper.stop().exits(0).printed([""; 0]);
}
