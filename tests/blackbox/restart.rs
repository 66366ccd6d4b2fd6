//! Stopping and starting again: nothing missing after any end, nothing twice
//! after a clean one. All of it on standard output, with a state directory.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use crate::cli::NOTHING;
use crate::world::{Ended, Log, Logship, World, numbered};

/// Enough lines that a run takes a while: about 23 MB.
const MANY: usize = 300_000;

fn world_with_log<L: AsRef<[u8]>>(lines: impl IntoIterator<Item = L>) -> (World, Log) {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(lines);
    (world, log)
}

fn tail(world: &World, log: &Log) -> Logship {
    world.tail([log]).with_state()
}

#[test]
fn a_second_run_sends_nothing_again() {
    let (world, mut log) = world_with_log(["one", "two"]);
    tail(&world, &log)
        .once()
        .run()
        .exits(0)
        .printed(["one", "two"]);
    tail(&world, &log).once().run().exits(0).printed([""; 0]);

    log.write(["three"]);

    tail(&world, &log).once().run().exits(0).printed(["three"]);
}

#[test]
fn a_saved_position_wins_over_from() {
    let (world, mut log) = world_with_log(["one", "two"]);
    tail(&world, &log)
        .once()
        .run()
        .exits(0)
        .printed(["one", "two"]);
    log.write(["three"]);

    let end = ["--from", "end"];
    tail(&world, &log)
        .once()
        .args(end)
        .run()
        .exits(0)
        .printed(["three"]);
    let again = tail(&world, &log).once().since_beginning().run();
    again.exits(0).printed([""; 0]);
}

#[test]
fn no_state_ignores_the_saved_position_and_leaves_it_alone() {
    let (world, mut log) = world_with_log(["one", "two"]);
    tail(&world, &log)
        .once()
        .run()
        .exits(0)
        .printed(["one", "two"]);
    log.write(["three"]);

    let ignoring = tail(&world, &log).once().arg("--no-state").run();
    ignoring.exits(0).printed(["one", "two", "three"]);

    tail(&world, &log).once().run().exits(0).printed(["three"]);
}

#[test]
fn without_a_state_directory_standard_output_leaves_nothing_behind() {
    let (world, log) = world_with_log(["one"]);

    world.tail([&log]).once().run().exits(0).printed(["one"]);
    world.tail([&log]).once().run().exits(0).printed(["one"]);

    assert_eq!(fs::read_dir(world.home()).unwrap().count(), 0);
}

#[test]
fn lines_written_while_logship_was_away_are_delivered() {
    let (world, mut log) = world_with_log(["one"]);
    let shipper = tail(&world, &log).since_beginning().start();
    shipper.delivers(["one"]);
    shipper.stop().exits(0);

    log.write(["two", "three"]);

    // Also by a run that would begin at the end of a file it does not know.
    let shipper = tail(&world, &log).start();
    shipper.delivers(["two", "three"]);
    log.write(["four"]);
    shipper.delivers(["four"]);
}

#[test]
fn a_stop_half_way_and_a_start_deliver_every_line_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let (world, log) = world_with_log(numbered(0..MANY));
        let shipper = tail(&world, &log).since_beginning().start();
        shipper.delivers(numbered(0..1_000));
        shipper.pause_reading();
        shipper.signal(signal);
        shipper.resume_reading();
        let first = shipper.ends().exits(0).lines();
        assert!(first.len() < MANY - 1_000, "the stop came too late");

        let second = tail(&world, &log).once().run().exits(0);

        second.printed(numbered(1_000 + first.len()..MANY));
    }
}

#[test]
fn a_kill_half_way_loses_nothing() {
    let (world, log) = world_with_log(numbered(0..MANY));
    let mut delivered = 0;
    for killed_after in [1, 10_000, 40_000] {
        let shipper = tail(&world, &log).since_beginning().start();
        let mut lines = shipper.next_lines(killed_after);
        lines.extend(shipper.kill().whole_lines());
        delivered = follows_on(delivered, &lines);
    }

    let last = tail(&world, &log).once().run().exits(0);

    assert_eq!(follows_on(delivered, &last.lines()), MANY);
}

/// Checks that a run goes on where the earlier ones, which delivered all lines
/// below `delivered`, left off or before; returns what is delivered by now.
#[track_caller]
fn follows_on(delivered: usize, lines: &[Vec<u8>]) -> usize {
    let number = |line: &[u8]| -> usize {
        let line = std::str::from_utf8(line).unwrap();
        line["seq=".len()..][..9].parse().unwrap()
    };
    let Some(first) = lines.first().map(|line| number(line)) else {
        return delivered;
    };
    assert!(
        first <= delivered,
        "lines {delivered} to {first} are missing"
    );
    for (n, line) in (first..).zip(lines) {
        assert_eq!(number(line), n, "a line is missing or misplaced");
    }
    delivered.max(first + lines.len())
}

/// A position follows the acknowledgement, never the reading: what waits in the
/// queue, because nobody takes it, is read again after a kill.
#[test]
fn a_kill_while_the_reader_stalls_loses_nothing() {
    let (world, log) = world_with_log(numbered(0..MANY));
    let mut shipper = tail(&world, &log).since_beginning().start();
    let mut lines = shipper.next_lines(10);
    shipper.pause_reading();
    shipper.has_read(1 << 20);
    shipper.waits_for("the checkpoint", |_| {
        world.checkpoints().first().map(|_| ())
    });
    sleep(Duration::from_millis(1_500));

    lines.extend(shipper.kill().whole_lines());

    let delivered = follows_on(0, &lines);
    let last = tail(&world, &log).once().run().exits(0);
    assert_eq!(follows_on(delivered, &last.lines()), MANY);
}

/// What a clean stop has written down stays, whatever comes after it.
#[test]
fn a_kill_repeats_only_what_came_after_the_last_checkpoint() {
    let (world, mut log) = world_with_log(["one", "two"]);
    let shipper = tail(&world, &log).since_beginning().start();
    shipper.delivers(["one", "two"]);
    shipper.stop().exits(0);

    log.write(["three"]);
    let shipper = tail(&world, &log).start();
    shipper.delivers(["three"]);
    shipper.kill();
    log.write(["four"]);

    let ended = tail(&world, &log).once().run().exits(0);

    let lines = ended.lines();
    assert!(
        lines == [&b"three"[..], b"four"] || lines == [b"four"],
        "{lines:?}"
    );
}

/// About once a second what was acknowledged is written down, so that a kill a
/// few seconds later has nothing left to repeat.
#[test]
fn what_was_delivered_is_written_down_while_running() {
    let (world, log) = world_with_log(["one", "two"]);
    let mut shipper = tail(&world, &log).since_beginning().start();
    shipper.delivers(["one", "two"]);
    shipper.waits_for("the checkpoint", |_| {
        world.checkpoints().first().map(|_| ())
    });
    // One may have been written just before the lines; the next one tells.
    shipper.quiet_for(Duration::from_millis(2_500));
    shipper.kill();

    tail(&world, &log).once().run().exits(0).printed([""; 0]);
}

#[test]
fn a_partial_line_over_a_stop_or_a_kill_is_completed_once() {
    for signal in [Signal::TERM, Signal::KILL] {
        let (world, mut log) = world_with_log(["whole"]);
        log.write_raw("par");
        let shipper = tail(&world, &log).since_beginning().start();
        shipper.delivers(["whole"]);
        shipper.signal(signal);
        let ended = shipper.ends();
        assert_eq!(ended.lines(), Vec::<Vec<u8>>::new());

        log.write_raw("tial\nnext\n");

        // A kill so early may have come before the first checkpoint.
        let shipper = tail(&world, &log).since_beginning().start();
        let again = signal == Signal::KILL;
        let repeated = shipper.delivers_at_least(["partial", "next"]);
        assert!(
            repeated <= usize::from(again),
            "{repeated} lines came again"
        );
        shipper.quiet_for(Duration::from_millis(300));
    }
}

/// The head by which a file is known grows with the file.
#[test]
fn a_file_that_grows_from_five_to_five_thousand_bytes_is_never_sent_again() {
    let (world, mut log) = world_with_log(["five"]);
    let shipper = tail(&world, &log).since_beginning().start();
    shipper.delivers(["five"]);
    shipper.stop().exits(0);
    for round in 0..4 {
        let lines = numbered(round * 15..round * 15 + 15);
        log.write(&lines);
        tail(&world, &log).once().run().exits(0).printed(&lines);
    }
    assert!(log.size() > 4_000);
}

/// The inode is the same and the head may be too, so it takes more than that.
#[test]
fn a_file_truncated_while_logship_was_away_is_read_from_its_beginning() {
    let text = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect();
    let shorter: Vec<String> = text(&["new"]);
    let longer = numbered(100..200);
    let alike = [numbered(0..60), text(&["six", "ten", "and one more"])].concat();
    for rewritten in [shorter, longer, alike] {
        let (world, mut log) = world_with_log(numbered(0..60));
        log.write(["one", "two"]);
        tail(&world, &log).once().run().exits(0);

        log.truncate();
        log.write(&rewritten);

        let ended = tail(&world, &log).once().run();
        ended.exits(0).printed(rewritten);
    }
}

/// A new file is a new file, also when it got the old one's inode and begins
/// with the same words, few or many.
#[test]
fn a_file_replaced_while_logship_was_away_is_read_from_its_beginning() {
    for head in [1, 60] {
        let (world, mut log) = world_with_log(numbered(0..head));
        log.write(["one", "two"]);
        tail(&world, &log).once().run().exits(0);

        let path = log.path().to_owned();
        drop(log);
        fs::remove_file(path).unwrap();
        let mut log = world.log("app.log");
        log.write(numbered(0..head));
        let rest = ["six", "ten", "and one more"];
        log.write(rest);

        let expected = numbered(0..head).into_iter().chain(rest.map(String::from));
        tail(&world, &log).once().run().exits(0).printed(expected);
    }
}

#[test]
fn files_with_equal_content_are_different_files() {
    let (world, _log) = world_with_log(numbered(0..40));
    world.log("app.2.log").write(numbered(0..40));
    let tail = || world.tail([world.path("*.log")]).with_state().once();

    let shipper = tail().start();
    shipper.delivers_in_any_order(numbered((0..40).chain(0..40)));
    shipper.ends().exits(0).printed([""; 0]);

    tail().run().exits(0).printed([""; 0]);
}

#[test]
fn a_reader_that_stalls_does_not_hold_up_a_stop_for_longer_than_allowed() {
    let (world, log) = world_with_log(numbered(0..MANY));
    let limit = ["--shutdown-timeout", "300ms"];
    let mut shipper = tail(&world, &log).since_beginning().args(limit).start();
    shipper.pause_reading();
    shipper.has_read(1 << 20);

    let first = shipper.stop().exits(3).whole_lines();

    let delivered = follows_on(0, &first);
    let second = tail(&world, &log).once().run().exits(0);
    assert_eq!(follows_on(delivered, &second.lines()), MANY);
}

#[test]
fn a_second_signal_ends_at_once() {
    let (world, log) = world_with_log(numbered(0..MANY));
    let limit = ["--shutdown-timeout", "1h"];
    let mut shipper = tail(&world, &log).since_beginning().args(limit).start();
    shipper.pause_reading();
    shipper.has_read(1 << 20);

    // Equal signals melt into one while they wait, so more than two may be
    // needed; what must not be needed is an hour.
    for _ in 0..20 {
        shipper.signal(Signal::TERM);
        sleep(Duration::from_millis(100));
        if shipper.has_ended() {
            break;
        }
    }

    let first = shipper.ends().exits(3).whole_lines();
    let delivered = follows_on(0, &first);
    let second = tail(&world, &log).once().run().exits(0);
    assert_eq!(follows_on(delivered, &second.lines()), MANY);
}

type Damage = fn(&[u8]) -> Vec<u8>;

/// What a crash or a full disk may leave of a file.
const DAMAGES: [(&str, Damage); 5] = [
    ("emptied", |_| Vec::new()),
    ("zeroed", |bytes| vec![0; bytes.len()]),
    ("cut short", |bytes| bytes[..bytes.len() / 2].to_vec()),
    ("garbled", |_| b"not a checkpoint at all\n".to_vec()),
    ("changed by a digit", |bytes| {
        let mut bytes = bytes.to_vec();
        let digit = bytes.iter().rposition(u8::is_ascii_digit).unwrap();
        bytes[digit] = b'0' + (bytes[digit] - b'0' + 1) % 10;
        bytes
    }),
];

/// The previous generation knows less, so lines may come again, but none is
/// missing, and somebody is told.
#[test]
fn a_damaged_checkpoint_is_said_and_the_one_before_it_is_used() {
    for (how, damage) in DAMAGES {
        let (world, mut log) = world_with_log(["one"]);
        for line in ["two", "three"] {
            tail(&world, &log).once().run().exits(0);
            log.write([line]);
        }
        let checkpoint = world.checkpoints().remove(0);
        fs::write(&checkpoint, damage(&fs::read(&checkpoint).unwrap())).unwrap();

        let ended = tail(&world, &log).once().run().exits(0);

        let lines: BTreeSet<_> = ended.lines().into_iter().collect();
        assert!(lines.contains(&b"three"[..]), "{how}: {lines:?}");
        assert!(!lines.contains(&b"one"[..]), "{how}: began all over");
        tells_of_the_checkpoint(&ended, how);
        tail(&world, &log).once().run().exits(0).printed([""; 0]);
    }
}

#[test]
fn with_every_checkpoint_damaged_it_begins_at_the_beginning_and_says_so() {
    for (how, damage) in DAMAGES {
        let (world, mut log) = world_with_log(["one"]);
        for line in ["two", "three"] {
            tail(&world, &log).once().run().exits(0);
            log.write([line]);
        }
        for checkpoint in world.checkpoints() {
            fs::write(&checkpoint, damage(&fs::read(&checkpoint).unwrap())).unwrap();
        }

        // Also when following, where a file nobody knows is begun at its end.
        let shipper = tail(&world, &log).start();

        shipper.delivers(["one", "two", "three"]);
        tells_of_the_checkpoint(&shipper.stop().exits(0), how);
        tail(&world, &log).once().run().exits(0).printed([""; 0]);
    }
}

#[track_caller]
fn tells_of_the_checkpoint(ended: &Ended, how: &str) {
    let told = ended.stderr.lines().any(|line| {
        let line = line.to_ascii_lowercase();
        line.contains("checkpoint") && (line.contains("warn") || line.contains("error"))
    });
    if !told {
        ended.fail(&format!("nothing was said of a checkpoint that was {how}"));
    }
}

/// A half written file of a crash, beside the checkpoint, is nobody's checkpoint.
#[test]
fn a_checkpoint_is_replaced_at_once_and_leaves_no_temporary_files() {
    let (world, mut log) = world_with_log(["one"]);
    let mut counts = BTreeSet::new();
    for n in 0..4 {
        tail(&world, &log).once().run().exits(0);
        log.write([format!("line {n}")]);
        counts.insert(crate::world::walk(&world.state_dir()).len());
    }
    // The previous generation comes with the second run; then nothing piles up.
    assert!(counts.len() <= 2, "{counts:?} files");
}

#[test]
fn the_same_tail_twice_is_refused_with_the_holders_pid() {
    let (world, mut log) = world_with_log([""; 0]);
    let shipper = tail(&world, &log).start();
    shipper.awake(&mut log);

    let ended = tail(&world, &log).once().run().exits(1).printed([""; 0]);

    let state_dir = world.state_dir();
    ended
        .said(state_dir.to_str().unwrap())
        .said(&shipper.pid().to_string());
    log.write(["still here"]);
    shipper.delivers(["still here"]);
}

#[test]
fn tails_with_names_share_a_state_directory() {
    let (world, mut log) = world_with_log([""; 0]);
    let mut other = world.log("other.log");
    let shipper = tail(&world, &log).args(["--name", "mine"]).start();
    shipper.awake(&mut log);

    other.write(["one"]);
    let yours = || tail(&world, &other).once().args(["--name", "yours"]).run();
    yours().exits(0).printed(["one"]);
    yours().exits(0).printed([""; 0]);

    log.write(["still here"]);
    shipper.delivers(["still here"]);
}

/// In the default place, that is, where every tail has a directory of its own.
/// Standard output keeps nothing there, so there must be a broker, if only in
/// name; and it is /var/lib/logship for root, so this is not run as root.
#[test]
fn different_tails_run_side_by_side_and_the_same_one_twice_is_refused() {
    let (world, log) = world_with_log(["one"]);
    let other = world.log("other.log");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let broker = free.unwrap().to_string();
    let tail = |log: &Log, topic: &str| {
        let tail = world.logship(["tail".into(), log.path().as_os_str().to_owned()]);
        tail.args(["--topic", topic, "--brokers", &broker])
            .since_beginning()
            .unprivileged()
    };
    let shipper = tail(&log, "demo").start();
    shipper.says(&broker);

    let twice = tail(&log, "demo").once().run().exits(1);
    twice.said(&shipper.pid().to_string());
    for another in [tail(&other, "demo"), tail(&log, "another")] {
        let timeout = ["--once", "--timeout", "300ms"];
        let ended = another.args(timeout).run();
        ended.never_said(&shipper.pid().to_string());
    }
    assert!(world.home().join("state/logship").is_dir());
}

#[test]
fn tails_of_one_name_exclude_each_other_whatever_they_tail() {
    let (world, mut log) = world_with_log([""; 0]);
    let other = world.log("other.log");
    let name = ["--name", "mine"];
    let shipper = tail(&world, &log).args(name).start();
    shipper.awake(&mut log);

    let ended = tail(&world, &other).once().args(name).run();

    ended.exits(1).said(&shipper.pid().to_string());
}

#[test]
fn the_lock_of_a_killed_process_is_no_lock() {
    let (world, mut log) = world_with_log([""; 0]);
    let shipper = tail(&world, &log).start();
    shipper.awake(&mut log);
    shipper.kill();

    tail(&world, &log).once().run().exits(0);
}

/// What was shipped whole and deleted afterwards is nobody's loss.
#[test]
fn files_that_were_shipped_and_deleted_are_in_nobodys_way() {
    let world = World::new();
    world.dir("many");
    let tail = || world.tail([world.path("many/*.log")]).with_state().once();
    for n in 0..300 {
        world.later(format!("many/{n}.log")).write(["one"]);
    }
    tail().run().exits(0).printed([&b"one"[..]; 300]);
    for n in 0..300 {
        fs::remove_file(world.path(format!("many/{n}.log"))).unwrap();
    }
    world.later("many/last.log").write(["two"]);

    let ended = tail().run().exits(0).printed(["two"]);

    assert_eq!(ended.losses(), []);
    tail().run().exits(0).printed([""; 0]);
}

/// With default options: the new file of a rotation while logship was stopped
/// has no position, and once was begun at its end.
#[test]
fn a_named_file_rotated_while_stopped_is_read_from_its_beginning() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["old"]);
    let tail = || world.tail(["app.log"]).with_state();
    let shipper = tail().start();
    shipper.awake(&mut log);
    log.write(["one"]);
    shipper.delivers(["one"]);
    shipper.stop().exits(0);

    log.rename_to(world.path("app.log.1"));
    log.write(["the rest of the old one"]);
    log.reopen();
    log.write(["new one", "new two"]);

    let shipper = tail().start();
    shipper.delivers(["the rest of the old one", "new one", "new two"]);
    shipper.stop().exits(0);
}

/// One file, one state, whichever way its path is written.
#[test]
fn every_spelling_of_a_path_has_the_same_position() {
    let world = World::new();
    world.log("app.log").write(["one"]);
    let absolute = world
        .path("app.log")
        .into_os_string()
        .into_string()
        .unwrap();
    let doubled = absolute.replacen('/', "//", 2);
    let tail = |path: &str| world.tail([path]).with_state().once().run().exits(0);
    tail("app.log").printed(["one"]);
    for path in ["./app.log", ".//./app.log", &absolute, &doubled] {
        tail(path).printed(NOTHING);
    }
}

/// The tailer of its old path must not declare it gone before the one of its
/// new path has had a look.
#[test]
fn a_file_moved_to_another_watched_directory_while_stopped_is_not_sent_again() {
    let world = World::new();
    let (new, old) = (world.dir("new"), world.dir("old"));
    world.log("old/another.log");
    let mut log = world.log("new/app.log");
    log.write(numbered(0..1_000));
    let tail = || world.tail(["new/*.log", "old/*.log"]).with_state().once();
    tail().run().exits(0).printed(numbered(0..1_000));

    fs::rename(new.join("app.log"), old.join("app.log")).unwrap();
    log.reopen();
    log.write(["new"]);

    tail().run().exits(0).printed(["new"]).never_said("lost");
}
