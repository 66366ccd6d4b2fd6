//! Files of any kind: what they are called, where they are, who may read them, and
//! what else may stand at a path. What programs write into them is in `lines.rs`,
//! how they give way to the next is in `rotation.rs`.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::daemon::{config, source};
use crate::world::{Log, Loss, Shipper, World, bytes_name, numbered};

/// Longer than it takes to look at a path, however it is looked at.
const A_LOOK: Duration = Duration::from_millis(300);
/// A change that the clock of a file system must be able to tell from the last one.
const CLOCK_TICK: Duration = Duration::from_millis(50);

/// Names that a shell, a terminal, a pattern or a text format may stumble over.
const STRANGE_NAMES: [&[u8]; 12] = [
    b"with space.log",
    b" spaces around ",
    b"with\nnewline.log",
    b"with\ttab and \x1b[31mescape\x07.log",
    b"not utf-8 \xff\xfe.log",
    b"half a character \xe2\x82.log",
    "žluťoučký 🐎.log".as_bytes(),
    b"it's \"quoted\" $HOME `x` \\n.log",
    b"100%25 [a-z]*?{x,y}.log",
    b"-dash.log",
    b"=1 from=2 to=3 bytes=4",
    b"\\\" lost path=x inode=1 from=2 to=3 bytes=4",
];

/// `logship run` with these sources.
fn run(world: &World, sources: Value) -> Shipper {
    world.run(&config(sources)).start()
}

/// `logship run` as somebody who may not read everything.
fn run_unprivileged(world: &World, sources: Value) -> Shipper {
    let state = world.dir("state");
    fs::set_permissions(state, Permissions::from_mode(0o777)).unwrap();
    world.run(&config(sources)).unprivileged().start()
}

/// The path and the message of each record in the json format.
fn messages(lines: Vec<Vec<u8>>) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let read = |line: Vec<u8>| {
        let record: Value = serde_json::from_slice(&line).unwrap();
        (
            text(&record["log"]["file"]["path"]),
            text(&record["message"]),
        )
    };
    lines.into_iter().map(read).collect()
}

/// One world in which each name goes through every door that a name has: a
/// pattern, a record, the status, the checkpoint, and the message of a loss.
#[test]
fn strange_names_go_through_every_door() {
    let world = World::new();
    world.dir("logs");
    let path = |name: &[u8]| Path::new("logs").join(bytes_name(name));
    let mut logs = STRANGE_NAMES.map(|name| world.log(path(name)));
    let mut pattern = source("logs/*", "t");
    pattern["format"] = json!("json");
    let all = |message: &str| -> BTreeSet<(String, String)> {
        let shown = |name| world.path(path(name)).to_string_lossy().into_owned();
        let names = STRANGE_NAMES.iter();
        names
            .map(|name| (shown(name), message.to_owned()))
            .collect()
    };

    let shipper = run(&world, json!([pattern]));
    for log in &mut logs {
        log.write_raw("one\nunfinished");
    }
    assert_eq!(messages(shipper.next_lines(logs.len())), all("one"));

    let waits = |count| {
        let report = world.status_until("what is unfinished", |report| {
            let waits = report.files.iter().filter(|file| file.lag_bytes == 10);
            waits.count() == count
        });
        let paths = report.files.into_iter().map(|file| file.path);
        let read_back: BTreeSet<PathBuf> =
            paths.map(|path| logship::text::from_text(&path)).collect();
        let expected = STRANGE_NAMES.iter().map(|name| world.path(path(name)));
        assert_eq!(read_back, expected.collect());
    };
    waits(logs.len());
    shipper.stop().exits(0).printed([""; 0]);

    // Remembered, each under its own name.
    let shipper = run(&world, json!([pattern]));
    waits(logs.len());
    for log in &mut logs {
        log.truncate();
        log.write(["two"]);
    }
    assert_eq!(messages(shipper.next_lines(logs.len())), all("two"));
    let ended = shipper.stop().exits(0).printed([""; 0]);
    let losses = ended.losses();
    assert_eq!(losses.len(), logs.len(), "{losses:#?}");
    for log in &logs {
        let of_log = |loss: &&Loss| loss.inode == log.inode();
        let loss = losses.iter().find(of_log).expect("a loss for each file");
        let figures = (loss.from, loss.to, loss.bytes);
        assert_eq!(figures, (4, 14, 10), "{}", loss.line);
    }
    let obeyed = |c: char| c.is_control() && c != '\n';
    assert!(!ended.stderr.contains(obeyed), "{:?}", ended.stderr);
}

/// In a config a path is a pattern: what means something in one is escaped.
#[test]
fn a_config_names_one_strange_file_by_escaping_what_patterns_mean() {
    let world = World::new();
    let names = ["a[1]*?{x,y}.log", "with space.log", "it's \"quoted\".log"];
    let mut logs = names.map(|name| world.log(name));
    world
        .log("a1.log")
        .write(["a neighbour that the name would match as a pattern"]);
    let escape = |name: &str| -> String {
        let special = |c: char| "[]*?{}".contains(c);
        let escaped = |c: char| [special(c).then_some('\\'), Some(c)];
        name.chars().flat_map(escaped).flatten().collect()
    };
    let sources: Vec<Value> = names
        .iter()
        .map(|name| source(&escape(name), "t"))
        .collect();
    for round in ["one", "two"] {
        for (log, name) in logs.iter_mut().zip(names) {
            log.write([format!("{name} {round}")]);
        }
        let shipper = run(&world, json!(sources));
        shipper.delivers_in_any_order(names.map(|name| format!("{name} {round}")));
        shipper.stop().exits(0).printed([""; 0]);
    }
}

#[test]
fn names_and_paths_may_be_as_long_as_the_system_takes_them() {
    let world = World::new();
    let name = format!("{}.log", "n".repeat(251));
    let deep: PathBuf = (0..14).map(|n| format!("{n:0>200}")).collect();
    world.dir(deep.to_str().unwrap());
    for pattern in [
        "**/*.log".to_owned(),
        deep.join(&name).display().to_string(),
    ] {
        let mut log = world.log(deep.join(&name));
        log.truncate();
        for round in ["one", "two"] {
            log.write([round]);
            let mut config = config(json!([source(&pattern, "t")]));
            config["state_dir"] = json!(format!("state of {}", pattern.len()));
            let shipper = world.run(&config).start();
            shipper.delivers([round]);
            shipper.stop().exits(0).printed([""; 0]);
        }
    }
}

// ---- links ---------------------------------------------------------------------

/// current -> day -> file: whichever of them is pointed elsewhere, it is a rotation,
/// and the rest of the old target comes first.
#[test]
fn a_chain_of_links_that_is_pointed_elsewhere_in_the_middle_is_a_rotation() {
    for pattern in ["current", "curr*"] {
        let world = World::new();
        let mut logs = ["1.txt", "2.txt", "3.txt"].map(|name| world.log(name));
        let (mut current, mut day) = (world.later("current"), world.later("day"));
        day.point_at(&logs[0]);
        current.point_at(&day);
        let shipper = run(&world, json!([source(pattern, "t")]));
        logs[0].write(["one"]);
        shipper.delivers(["one"]);

        logs[0].write(["rest of one"]);
        logs[1].write(["two"]);
        day.point_at(&logs[1]);
        shipper.delivers(["rest of one", "two"]);

        logs[1].write(["rest of two"]);
        logs[2].write(["three"]);
        current.point_at(&logs[2]);
        shipper.delivers(["rest of two", "three"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

#[test]
fn a_link_that_leads_nowhere_for_a_while_loses_and_repeats_nothing() {
    for pattern in ["current", "curr*"] {
        let world = World::new();
        let (mut old, mut new) = (world.log("old.txt"), world.log("new.txt"));
        let missing = world.later("missing.txt");
        let mut link = world.later("current");
        link.point_at(&old);
        let shipper = run(&world, json!([source(pattern, "t")]));
        old.write(["one"]);
        shipper.delivers(["one"]);

        link.point_at(&missing);
        sleep(A_LOOK);
        old.write(["to a file that nothing leads to"]);
        shipper.delivers(["to a file that nothing leads to"]);
        link.point_at(&old); // and back
        old.write(["two"]);
        shipper.delivers(["two"]);
        link.point_at(&missing);
        sleep(A_LOOK);
        link.point_at(&new);
        new.write(["three"]);
        shipper.delivers(["three"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

/// The name it was found under goes, the other one stays and is wanted too.
#[test]
fn a_hard_link_goes_on_under_its_other_name() {
    let world = World::new();
    let mut log = world.log("a.log");
    log.link_to(world.path("b.log"));
    let sources = json!([source("*.log", "t")]);
    let shipper = run(&world, sources.clone());
    log.write(["one"]);
    shipper.delivers(["one"]);
    for name in ["a.log", "b.log"] {
        if world.file(name, "t").is_some() {
            fs::remove_file(world.path(name)).unwrap();
            break;
        }
    }
    sleep(A_LOOK);
    log.write(["two"]);
    shipper.delivers(["two"]);
    shipper.stop().exits(0).printed([""; 0]);

    log.write(["three"]);
    let shipper = run(&world, sources);
    shipper.delivers(["three"]);
    shipper.stop().exits(0).printed([""; 0]);
}

// ---- permission ------------------------------------------------------------------

/// The handle that is open stays good, whatever becomes of the permission.
#[test]
fn a_file_whose_permission_is_taken_away_while_it_is_open_goes_on() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = run_unprivileged(&world, json!([source("app.log", "t")]));
    log.write(["one"]);
    shipper.delivers(["one"]);
    log.chmod(0o000);
    sleep(A_LOOK);
    log.write(["two"]);
    shipper.delivers(["two"]);
    log.chmod(0o644);
    log.write(["three"]);
    shipper.delivers(["three"]);
    let ended = shipper.stop().exits(0).printed([""; 0]);
    ended.never_said("permission denied");
}

/// logrotate with `create 0600 root`, by mistake.
#[test]
fn a_rotation_to_a_file_that_may_not_be_read_is_said_once_and_made_up_for() {
    for pattern in ["app.log", "*.log"] {
        let world = World::new();
        let mut old = world.log("app.log");
        let shipper = run_unprivileged(&world, json!([source(pattern, "t")]));
        old.write(["one"]);
        shipper.delivers(["one"]);

        old.rename_to(world.path("app.1"));
        let mut new = world.log("app.log");
        new.chmod(0o000);
        new.write(["in the dark"]);
        old.write(["the old file is still read"]);
        shipper.delivers(["the old file is still read"]);
        shipper.says("permission denied: grant logship's user read access");
        sleep(2 * A_LOOK);
        new.write(["and more"]);
        new.chmod(0o644);

        shipper.delivers(["in the dark", "and more"]);
        let ended = shipper.stop().exits(0).printed([""; 0]);
        let said = ended.stderr.matches("permission denied").count();
        assert_eq!(said, 1, "{}", ended.stderr);
    }
}

/// It has no handle: what is written meanwhile is read when it may be.
#[test]
fn a_sleeping_file_whose_permission_is_taken_away_goes_on_when_it_is_given_back() {
    let world = World::new();
    let state = world.dir("state");
    fs::set_permissions(state, Permissions::from_mode(0o777)).unwrap();
    let mut log = world.log("app.log");
    let mut config = config(json!([source("app.log", "t")]));
    config["idle_after"] = json!("150ms");
    let shipper = world.run(&config).unprivileged().start();
    log.write(["one"]);
    shipper.delivers(["one"]);
    world.all_asleep(1);

    log.chmod(0o000);
    shipper.says("permission denied");
    log.write(["two"]);
    sleep(A_LOOK);
    log.chmod(0o644);
    shipper.delivers(["two"]);
    world.all_asleep(1);
    log.chmod(0o640); // nothing to read, and nothing to say again
    log.chmod(0o644);
    world.all_asleep(1);
    log.write(["three"]);
    shipper.delivers(["three"]);
    shipper.stop().exits(0).printed([""; 0]);
}

#[test]
fn a_directory_whose_permission_is_taken_away_for_a_while_hides_nothing_for_ever() {
    for pattern in ["logs/app.log", "logs/*.log"] {
        let world = World::new();
        let dir = world.dir("logs");
        let mut log = world.log("logs/app.log");
        let shipper = run_unprivileged(&world, json!([source(pattern, "t")]));
        log.write(["one"]);
        shipper.delivers(["one"]);
        fs::set_permissions(&dir, Permissions::from_mode(0o000)).unwrap();
        log.write(["two"]);
        shipper.delivers(["two"]);
        log.rename_to(world.path("logs/app.log.1"));
        let mut new = world.log("logs/app.log");
        new.write(["three"]);
        sleep(A_LOOK);
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        shipper.delivers(["three"]);
        log.write(["the last of the old"]);
        shipper.delivers(["the last of the old"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

// ---- directories -----------------------------------------------------------------

/// What was written last is still read, and what comes then is another file.
#[test]
fn a_directory_removed_and_made_again_is_found_again() {
    for pattern in [
        "top/logs/app.log",
        "top/logs/*.log",
        "top/*/*.log",
        "top/**/*.log",
    ] {
        let world = World::new();
        world.dir("top/logs");
        let mut log = world.log("top/logs/app.log");
        let shipper = run(&world, json!([source(pattern, "t")]));
        log.write(["at first"]);
        shipper.delivers(["at first"]);
        for removed in ["top/logs", "top"] {
            log.write([format!("before {removed} is removed")]);
            fs::remove_dir_all(world.path(removed)).unwrap();
            shipper.delivers([format!("before {removed} is removed")]);
            world.dir("top/logs");
            log = world.log("top/logs/app.log");
            log.write([format!("after {removed} was removed")]);
            shipper.delivers([format!("after {removed} was removed")]);
        }
        shipper.stop().exits(0).printed([""; 0]);
    }
}

#[test]
fn a_directory_renamed_away_and_back_repeats_nothing() {
    for pattern in ["logs/app.log", "logs/*.log"] {
        let world = World::new();
        world.dir("logs");
        let mut log = world.log("logs/app.log");
        let shipper = run(&world, json!([source(pattern, "t")]));
        log.write(["one"]);
        shipper.delivers(["one"]);
        fs::rename(world.path("logs"), world.path("away")).unwrap();
        log.write(["two"]);
        shipper.delivers(["two"]);
        sleep(A_LOOK);
        fs::rename(world.path("away"), world.path("logs")).unwrap();
        log.write(["three"]);
        shipper.delivers(["three"]);
        world.log("logs/other.log"); // a reason to look at the directory again
        sleep(A_LOOK);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

// ---- what is no file ----------------------------------------------------------------

fn make_fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

/// A FIFO without a writer would block whoever opens it, a device may do anything.
#[test]
fn what_is_no_file_is_refused_by_name_with_what_to_do() {
    let world = World::new();
    let mut good = world.log("good.log");
    make_fifo(&world.path("fifo"));
    let _socket = UnixListener::bind(world.path("socket")).unwrap();
    world.dir("directory");
    symlink("/dev/zero", world.path("device")).unwrap();
    let names = ["fifo", "socket", "directory", "device"];
    let hints = [
        "tail - < FIFO",
        "it is a socket",
        "name the files in it",
        "it is a device",
    ];

    good.write(["one"]);
    let once = world
        .tail(names.into_iter().chain(["good.log"]))
        .once()
        .run();
    let ended = once.exits(1).printed(["one"]);
    for (name, hint) in names.into_iter().zip(hints) {
        says_of(&ended.stderr, name, hint);
    }

    let all = names.iter().chain(&["good.log"]);
    let named: Vec<Value> = all.map(|name| source(name, "t")).collect();
    let shipper = run(&world, json!(named));
    shipper.delivers(["one"]);
    for (name, hint) in names.into_iter().zip(hints) {
        shipper.says_line(name, |line| line.contains(name) && line.contains(hint));
    }
    good.write(["two"]);
    shipper.delivers(["two"]);
    shipper.stop().exits(0).printed([""; 0]);
}

#[track_caller]
fn says_of(stderr: &str, name: &str, hint: &str) {
    let said = |line: &str| line.contains(&format!("/{name}:")) && line.contains(hint);
    assert!(
        stderr.lines().any(said),
        "nothing of {name} with '{hint}' in\n{stderr}"
    );
}

/// Directories and links to them stand beside logs everywhere, and are passed over.
#[test]
fn what_is_no_file_is_passed_over_by_a_pattern_and_disturbs_nobody() {
    let world = World::new();
    world.dir("logs/directory.log");
    make_fifo(&world.path("logs/fifo.log"));
    let _socket = UnixListener::bind(world.path("logs/socket.log")).unwrap();
    symlink("/dev/zero", world.path("logs/device.log")).unwrap();
    symlink("fifo.log", world.path("logs/link.log")).unwrap();
    let mut good = world.log("logs/good.log");
    good.write(["one"]);
    world
        .tail(["logs/*.log"])
        .once()
        .run()
        .exits(0)
        .printed(["one"]);

    let mut shipper = run(&world, json!([source("logs/*.log", "t")]));
    shipper.delivers(["one"]);
    good.write(["two"]);
    shipper.delivers(["two"]);
    shipper.has_open(false, |path| path.starts_with("/dev/zero"));
    // What becomes a file is one.
    fs::remove_file(world.path("logs/fifo.log")).unwrap();
    world.log("logs/fifo.log").write(["three"]);
    shipper.delivers(["three"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// Opened when it was a file, and no file at the moment of the next look.
#[test]
fn a_path_that_turns_into_something_else_and_back_keeps_its_lines() {
    for pattern in ["app.log", "*.log"] {
        let world = World::new();
        let mut log = world.log("app.log");
        let shipper = run(&world, json!([source(pattern, "t")]));
        log.write(["one"]);
        shipper.delivers(["one"]);
        type Become = fn(&Path);
        let others: [Become; 3] = [
            |path| fs::create_dir(path).unwrap(),
            make_fifo,
            |path| symlink("/dev/zero", path).unwrap(),
        ];
        for (n, other) in others.into_iter().enumerate() {
            log.write([format!("before {n}")]);
            log.delete();
            other(log.path());
            shipper.delivers([format!("before {n}")]);
            sleep(A_LOOK);
            log.write([format!("through the handle {n}")]);
            shipper.delivers([format!("through the handle {n}")]);
            fs::remove_dir(log.path())
                .or_else(|_| fs::remove_file(log.path()))
                .unwrap();
            log.reopen();
            log.write([format!("after {n}")]);
            shipper.delivers([format!("after {n}")]);
        }
        shipper.stop().exits(0).printed([""; 0]);
    }
}

/// A rotation by `mv` to another file system: a copy, and a removal.
#[test]
fn a_file_moved_to_another_device_is_read_to_its_end_and_its_copy_is_another_file() {
    let shm = tempfile::Builder::new()
        .prefix("logship-test-")
        .tempdir_in("/dev/shm")
        .unwrap();
    let world = World::new();
    let mut log = world.log("app.log");
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    assert_ne!(
        device(shm.path()),
        device(log.path()),
        "/dev/shm is a device of its own"
    );
    let pattern = format!("{}/*.log", shm.path().display());
    let shipper = run(
        &world,
        json!([source("app.log", "t"), source(&pattern, "copies")]),
    );
    let lines = numbered(0..40);
    log.write(&lines);
    shipper.delivers(&lines);

    let copy = shm.path().join("app.1.log");
    fs::copy(log.path(), &copy).unwrap();
    log.write(["just before the removal"]);
    let mut old = log.writer();
    log.delete();
    shipper.delivers_in_any_order([lines, vec!["just before the removal".to_owned()]].concat());
    old.write_all(b"through the handle\n").unwrap();
    shipper.delivers(["through the handle"]);
    log.reopen();
    log.write(["new"]);
    shipper.delivers(["new"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// The directory hides it: that it is missing would be a wrong word.
#[test]
fn a_named_file_in_a_closed_directory_is_said_to_be_closed_and_not_to_be_missing() {
    let world = World::new();
    let dir = world.dir("logs");
    world.log("logs/app.log").write(["one"]);
    fs::set_permissions(&dir, Permissions::from_mode(0o000)).unwrap();
    let shipper = run_unprivileged(&world, json!([source("logs/app.log", "t")]));
    shipper.says("logs/app.log: permission denied");
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    shipper.delivers(["one"]);
    let ended = shipper.stop().exits(0).printed([""; 0]);
    ended.never_said("does not exist");
}

// ---- what is done to a file ----------------------------------------------------------

/// A log that was read to its end by a running logship.
fn read(world: &World) -> (Log, Shipper) {
    let mut log = world.log("app.log");
    let shipper = run(world, json!([source("app.log", "t")]));
    log.write(["one", "two", "three"]);
    shipper.delivers(["one", "two", "three"]);
    (log, shipper)
}

#[test]
fn a_file_that_shrinks_by_a_byte_or_to_the_end_of_a_line_begins_again() {
    for (size, again) in [
        (13, &["one", "two"][..]),
        (8, &["one", "two"]),
        (4, &["one"]),
    ] {
        let world = World::new();
        let (mut log, shipper) = read(&world);
        assert_eq!(log.size(), 14);
        let writer = File::options().write(true).open(log.path()).unwrap();
        writer.set_len(size).unwrap();
        shipper.delivers(again);
        log.write_raw("\nfour\n");
        let rest = if size == 13 { "three" } else { "" };
        shipper.delivers([rest, "four"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

/// An editor writes the whole into a new file and moves it over the old one.
#[test]
fn a_file_that_an_editor_has_saved_is_a_new_file() {
    let world = World::new();
    let (log, shipper) = read(&world);
    fs::write(world.path("app.log.swp"), "one\ntwo\nthree\nfour\n").unwrap();
    fs::rename(world.path("app.log.swp"), log.path()).unwrap();
    shipper.delivers(["one", "two", "three", "four"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// `while true; do command > app.log; done`
#[test]
fn a_file_emptied_and_written_again_and_again_is_read_each_time() {
    let world = World::new();
    let (log, shipper) = read(&world);
    for round in 0..12 {
        let lines = numbered(round..round + 1 + round % 4);
        sleep(CLOCK_TICK);
        let mut writer = File::create(log.path()).unwrap();
        for line in &lines {
            writeln!(writer, "{line}").unwrap();
        }
        shipper.delivers(&lines);
    }
    shipper.stop().exits(0).printed([""; 0]);
}

/// Times say that something may have changed; only the content says what.
#[test]
fn touching_a_file_and_setting_its_time_back_repeat_nothing() {
    for idle_after in ["150ms", "1h"] {
        let world = World::new();
        let mut config = config(json!([source("app.log", "t")]));
        config["idle_after"] = json!(idle_after);
        let shipper = world.run(&config).start();
        let mut log = world.log("app.log");
        log.write(["one"]);
        shipper.delivers(["one"]);
        let hour = Duration::from_secs(3_600);
        let now = SystemTime::now();
        for time in [now, now - hour, now + hour, SystemTime::UNIX_EPOCH] {
            if idle_after != "1h" {
                world.all_asleep(1);
            }
            let writer = File::options().write(true).open(log.path()).unwrap();
            writer.set_modified(time).unwrap();
            sleep(A_LOOK);
        }
        log.write(["two"]);
        shipper.delivers(["two"]);
        shipper.stop().exits(0).printed([""; 0]);
    }
}

/// Holes are NUL bytes, and NUL bytes are data.
#[test]
fn a_hole_in_the_middle_of_a_file_is_data() {
    let world = World::new();
    let (mut log, shipper) = read(&world);
    let writer = File::options().write(true).open(log.path()).unwrap();
    writer.write_all_at(b"after\n", 14 + 70_000).unwrap();
    log.write(["next"]);
    let line = [vec![0; 70_000], b"after".to_vec()].concat();
    shipper.delivers([&line[..], b"next"]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// A writer that makes room first (fallocate, or a memory map) and fills it with lines.
#[test]
fn lines_that_are_written_over_preallocated_nul_bytes_arrive() {
    let world = World::new();
    let log = world.log("app.log");
    let writer = File::options().write(true).open(log.path()).unwrap();
    writer.set_len(1 << 20).unwrap();
    let shipper = run(&world, json!([source("app.log", "t")]));
    world.status_until("its size", |report| {
        report.files.iter().any(|file| file.size == 1 << 20)
    });
    sleep(A_LOOK);
    let mut offset = 0;
    for n in 0..30 {
        let line = format!("line {n:03} {}", "=".repeat(100));
        writer
            .write_all_at(format!("{line}\n").as_bytes(), offset)
            .unwrap();
        offset += line.len() as u64 + 1;
        shipper.delivers([line]);
        sleep(CLOCK_TICK);
    }
    // What it did not need it gives back when it closes the file.
    writer.set_len(offset).unwrap();
    world.status_until("its new size", |report| {
        report.files.iter().any(|file| file.size == offset) && report.topics["t"].lag_bytes == 0
    });
    writer.write_all_at(b"the end\n", offset).unwrap();
    shipper.delivers(["the end"]);
    let ended = shipper.stop().exits(0).printed([""; 0]);
    assert_eq!(ended.losses(), []);
}
