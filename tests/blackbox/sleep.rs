//! Quiet files give their thread and their handle back, and whatever then
//! happens to them is seen: by a look at them, not by holding them.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{config, source};
use crate::world::{Log, Rotate, Shipper, World, numbered};

/// How soon a sleeping file that grows must be shipped; the machine may be loaded.
const WOKEN_WITHIN: Duration = Duration::from_secs(2);
/// How far apart the generations are that must all be seen.
const GENERATION: Duration = Duration::from_millis(250);

/// A config whose files sleep soon.
pub fn sleepy(sources: Value) -> Value {
    let mut config = config(sources);
    config["idle_after"] = json!("150ms");
    config
}

/// A world in which logship sleeps after it has shipped one line.
pub fn asleep(path: &str) -> (World, Log, Shipper) {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.run(&sleepy(json!([source(path, "t")]))).start();
    log.write(["one"]);
    shipper.delivers(["one"]);
    world.all_asleep(1);
    (world, log, shipper)
}

#[test]
fn a_quiet_file_has_no_thread_and_no_handle_and_wakes_when_it_grows() {
    let (world, mut log, shipper) = asleep("app.log");
    for round in 0..3 {
        assert_eq!(shipper.threads("tail:"), 0);
        assert_eq!(shipper.descriptors("app.log"), [""; 0]);
        assert_eq!(world.file("app.log", "t").unwrap().thread, None);
        let begun = Instant::now();
        log.write([format!("round {round}")]);
        shipper.delivers([format!("round {round}")]);
        assert!(begun.elapsed() < WOKEN_WITHIN, "{:?}", begun.elapsed());
        world.all_asleep(1);
    }
    shipper.stop().exits(0).printed([""; 0]);
}

/// logrotate with `create`: what was written to the old file just before it was
/// renamed, and what its writer still writes to it.
#[test]
fn a_sleeping_file_that_is_renamed_is_read_to_its_end_first() {
    for path in ["app.log", "app.log*"] {
        let (world, mut old, shipper) = asleep(path);
        old.write(["just before"]);
        old.rename_to(world.path("app.log.1"));
        let mut new = world.log("app.log");
        new.write(["new"]);
        shipper.delivers_in_any_order(["just before", "new"]);
        for n in 0..12 {
            sleep(GENERATION);
            old.write([format!("old {n}")]);
            shipper.delivers([format!("old {n}")]);
        }
        new.write(["the end"]);
        shipper.delivers(["the end"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

/// The renamed file has nothing new when it is found, but its writer goes on.
#[test]
fn the_writer_of_a_file_that_slept_may_go_on_after_the_rename() {
    let (world, mut old, shipper) = asleep("app.log");
    old.rename_to(world.path("app.log.1"));
    let mut new = world.log("app.log");
    for n in 0..12 {
        sleep(GENERATION);
        old.write([format!("old {n}")]);
        shipper.delivers([format!("old {n}")]);
    }
    new.write(["new"]);
    shipper.delivers(["new"]);
    shipper.stop().exits(0).printed([""; 0]);
}

#[test]
fn a_sleeping_file_wakes_as_a_new_one_however_it_is_replaced() {
    for how in Rotate::ALL {
        let (world, mut log, shipper) = asleep("app.log");
        for round in 0..2 {
            log.rotate(how);
            let lines = [format!("{how:?} {round}"), "and more".to_owned()];
            log.write(&lines);
            shipper.delivers(&lines);
            world.all_asleep(1);
        }
        shipper.stop().exits(0).printed([""; 0]);
    }
}

#[test]
fn a_sleeping_file_that_is_rewritten_in_its_own_size_is_read_again() {
    let (world, log, shipper) = asleep("app.log");
    fs::write(log.path(), "two\n").unwrap();
    shipper.delivers(["two"]);
    world.all_asleep(1);
    fs::write(log.path(), "six\n").unwrap();
    shipper.delivers(["six"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// A sleeping file has no handle, so that its inode can be given to the next
/// file at once: the name, the device and the inode are the same then.
#[test]
fn a_sleeping_file_wakes_also_as_another_file_with_its_inode() {
    let (world, mut log, shipper) = asleep("app.log");
    let mut reused = 0;
    for n in 0..5 {
        let inode = log.inode();
        drop(std::mem::replace(&mut log, world.later("app.log")));
        fs::remove_file(log.path()).unwrap();
        let line = format!(
            "{n}: a first line that is longer and longer {}",
            "-".repeat(n)
        );
        log.write([&line]);
        reused += usize::from(log.inode() == inode);
        shipper.delivers([&line]);
        world.all_asleep(1);
    }
    log.write(["the end"]);
    shipper.delivers(["the end"]);
    shipper.stop().exits(0).printed([""; 0]);
    eprintln!("the inode was used again {reused} times");
}

#[test]
fn a_sleeping_symlink_that_is_pointed_elsewhere_is_a_rotation() {
    let world = World::new();
    let (mut first, mut second) = (world.log("first.txt"), world.log("second.txt"));
    let mut link = world.later("app.log");
    link.point_at(&first);
    let shipper = world.run(&sleepy(json!([source("*.log", "t")]))).start();
    first.write(["one"]);
    shipper.delivers(["one"]);
    world.all_asleep(1);
    second.write(["of the second"]);
    first.write(["last of the first"]);
    link.point_at(&second);
    shipper.delivers(["last of the first", "of the second"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// What is written to a sleeping file in the moment before its last name goes is
/// seen by nobody; so here that one is replaced as it slept.
/// A volume that is away for a while, or a file that is moved away and back.
#[test]
fn a_sleeping_file_that_is_away_for_a_while_goes_on_where_it_was() {
    let world = World::new();
    world.dir("logs");
    let mut log = world.log("logs/app.log");
    let shipper = world
        .run(&sleepy(json!([source("logs/*.log", "t")])))
        .start();
    log.write(["one"]);
    shipper.delivers(["one"]);
    world.all_asleep(1);

    fs::rename(world.path("logs"), world.path("away")).unwrap();
    shipper.says("a file is gone");
    fs::rename(world.path("away"), world.path("logs")).unwrap();
    log.write(["two"]);

    shipper.delivers(["two"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// The last line of the day, then the link is pointed at the file of the next.
#[test]
fn the_rest_of_a_symlinks_old_target_is_read_wherever_it_is() {
    let world = World::new();
    world.dir("days");
    let (mut first, mut second) = (world.log("days/1"), world.log("days/2"));
    let mut link = world.later("app.log");
    link.point_at(&first);
    let config = sleepy(json!([source("*.log", "t")]));
    let shipper = world.run(&config).start();
    first.write(["one"]);
    shipper.delivers(["one"]);
    world.all_asleep(1);

    first.write(["last of the first"]);
    link.point_at(&second);
    second.write(["two"]);
    shipper.delivers(["last of the first", "two"]);
    shipper.stop().exits(0);

    let third = world.log("days/3");
    second.write(["last of the second"]);
    link.point_at(&third);
    let shipper = world.run(&config).start();
    shipper.delivers(["last of the second"]);
    shipper.stop().exits(0).printed([""; 0]);
}

#[test]
fn rotations_that_begin_while_a_file_sleeps_are_all_seen() {
    for (path, how) in [
        ("app.log", Rotate::Rename),
        ("app.log*", Rotate::Rename),
        ("app.log", Rotate::Replace),
    ] {
        let (_world, mut log, shipper) = asleep(path);
        if how == Rotate::Replace {
            // Nobody can see what is written to a file without a handle and deleted at once.
            log.write(["awake"]);
            shipper.delivers(["awake"]);
        }
        for generation in 0..6 {
            let (first, last) = (20 * generation, 20 * generation + 10);
            if generation > 0 || how == Rotate::Rename {
                log.write(numbered(first..last));
            }
            log.rotate(how);
            if generation == 0 && how != Rotate::Rename {
                log.write(numbered(first..last));
            }
            log.write(numbered(last..last + 10));
            sleep(GENERATION);
        }
        if path == "app.log" && how == Rotate::Rename {
            shipper.delivers(numbered(0..120));
        } else {
            shipper.delivers_in_any_order(numbered(0..120));
        }
        log.write(["the end"]);
        shipper.delivers(["the end"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

#[test]
fn an_unfinished_last_line_is_completed_once_also_over_a_restart() {
    let (world, mut log, shipper) = asleep("app.log");
    log.write_raw("par");
    world.status_until("the beginning of a line", |report| {
        report.files[0].size == 7
    });
    sleep(2 * GENERATION); // idle_after, and a look
    log.write_raw("tial\n");
    shipper.delivers(["partial"]);
    log.write_raw("in");
    world.status_until("the beginning of a line", |report| {
        report.files[0].size == 14
    });
    shipper.stop().exits(0);
    let shipper = world.run(&sleepy(json!([source("app.log", "t")]))).start();
    world.status();
    sleep(2 * GENERATION);
    log.write_raw("complete\nthe end\n");
    shipper.delivers(["incomplete", "the end"]);
    shipper.stop().exits(0).printed([""; 0]);
}

#[test]
fn files_that_slept_when_logship_stopped_go_on_where_they_were() {
    let (world, mut log, shipper) = asleep("app.log");
    shipper.stop().exits(0);
    log.write(["while it was stopped"]);
    let run = || world.run(&sleepy(json!([source("app.log", "t")]))).start();
    let shipper = run();
    shipper.delivers(["while it was stopped"]);
    world.all_asleep(1);
    shipper.kill();
    log.write(["after a kill"]);
    log.rotate(Rotate::Rename);
    log.write(["rotated"]);
    let shipper = run();
    shipper.delivers(["after a kill", "rotated"]);
    shipper.stop().exits(0).printed([""; 0]);
}

#[test]
fn a_path_of_tail_that_is_missing_sleeps_and_is_found() {
    let world = World::new();
    let mut log = world.later("later.log");
    let shipper = world.tail([&log]).since_beginning().start();
    shipper.says("it does not exist");
    sleep(GENERATION);
    log.write(["one"]);
    shipper.delivers(["one"]);
    log.delete();
    log = world.later("later.log");
    sleep(GENERATION);
    log.write(["two"]);
    shipper.delivers(["two"]);
}

/// More than may be awake at once.
#[test]
fn six_hundred_files_are_shipped_once_first_in_turns_then_all_at_once() {
    const FILES: usize = 600;
    let world = World::new();
    world.dir("logs");
    let name = |n: usize| world.path(format!("logs/{n}.log"));
    let write = |round: &str| {
        let line = |n: usize| format!("{round} {n}");
        for n in 0..FILES {
            let mut log = world.log(name(n)); // a handle each would be too many
            log.write([line(n)]);
        }
        (0..FILES).map(line).collect::<Vec<_>>()
    };
    let lines = write("first");
    let shipper = world
        .run(&sleepy(json!([source("logs/*.log", "t")])))
        .start();
    shipper.delivers_in_any_order(lines);
    world.all_asleep(FILES);
    assert_eq!(shipper.threads("tail:"), 0);
    let lines = write("second");
    shipper.delivers_in_any_order(lines);
    world.all_asleep(FILES);
    shipper.stop().exits(0).printed([""; 0]);
}

/// Nothing of it is open, so it is looked for by its inode where it may not be read
/// now, and its rest must not be forgotten for that.
#[test]
fn the_rest_of_a_file_that_slept_and_may_not_be_read_for_a_while_is_not_forgotten() {
    let world = World::new();
    let state = world.dir("state");
    fs::set_permissions(state, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut old = world.log("app.log");
    let config = sleepy(json!([source("app.log", "t")]));
    let shipper = world.run(&config).unprivileged().start();
    old.write(["one"]);
    shipper.delivers(["one"]);
    world.all_asleep(1);

    old.chmod(0o000);
    old.write(["rest of the old one"]);
    old.rename_to(world.path("app.log.1"));
    let mut new = world.log("app.log");
    new.write(["new"]);
    shipper.delivers(["new"]);
    fs::set_permissions(
        world.path("app.log.1"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    shipper.delivers(["rest of the old one"]);
    shipper.stop().exits(0).printed([""; 0]);
}
