//! `logship verify`: what is missing, repeated and misordered is found, exactly
//! that, in every form in which records are captured.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::{Broker, Record, as_kcat};
use crate::world::{Log, Rotate, TOPIC, World, numbered, walk};

const DEADLINE: Duration = Duration::from_secs(30);

/// Lines of every kind: equal, empty, with a carriage return, not UTF-8, NUL.
const ODD: &[u8] =
    b"one\n\nequal\nequal\r\n\xff\xfe\x00\"\\\n\r\r\n\nequal\n\xc3\xa4\t\x1b[31m\nlast\n";

/// Ways to ship and to capture: the format, and whether kcat shows the topic.
const CAPTURES: [(&str, bool); 4] = [
    ("raw", false),
    ("json", false),
    ("raw", true),
    ("json", true),
];

/// Ships logs with `--once`, and returns what was captured.
fn ship(world: &World, paths: &[OsString], format: &str, kcat: bool) -> Vec<u8> {
    let tail = world.tail(paths.iter().cloned()).once().arg("-q");
    let tail = tail.args(["--format", format]);
    if !kcat {
        return tail.run().exits(0).stdout;
    }
    let broker = Broker::start();
    let tail = tail.args(["--headers", "--no-state", "--brokers", &broker.addresses()]);
    tail.run().exits(0);
    as_kcat(TOPIC, &broker.records(TOPIC))
}

/// The lines of a capture, with their ends.
fn lines(captured: &[u8]) -> Vec<&[u8]> {
    captured.split_inclusive(|byte| *byte == b'\n').collect()
}

/// What is printed of lines of a log.
fn range(what: &str, log: &Log, from: u64, to: u64, lines: u64) -> String {
    let (path, inode, bytes) = (log.path().display(), log.inode(), to - from);
    format!("{what} path={path} inode={inode} from={from} to={to} bytes={bytes} lines={lines}")
}

#[test]
fn what_arrived_once_and_in_order_is_proven_in_every_form() {
    for (format, kcat) in CAPTURES {
        let world = World::new();
        let mut log = world.log("app.log");
        log.write_raw(ODD);
        let captured = ship(&world, &[(&log).into()], format, kcat);
        let before = walk(&world.path(""));

        let ended = world.verify([&log], captured).run();

        let sum = "done files=1 records=10 arrived=10 missing=0 repeated=0 misordered=0";
        let ended = ended.exits(0).printed([sum]);
        assert_eq!(ended.stderr, "");
        assert_eq!(walk(&world.path("")), before, "something was written");
    }
}

/// Whoever reads the findings by their keys is not led astray by a name.
#[test]
fn a_name_that_looks_like_figures_is_quoted_in_a_finding() {
    let world = World::new();
    let mut log = world.log("x\" from=2 bytes=4");
    log.write(["one", "two"]);

    let ended = world.verify([&log], "two\n").run().exits(5);

    let path = log.path().display().to_string().replace('"', "\\\"");
    let inode = log.inode();
    let missing = format!("missing path=\"{path}\" inode={inode} from=0 to=4 bytes=4 lines=1");
    let lines = ended.lines();
    assert_eq!(String::from_utf8_lossy(&lines[0]), missing);
}

/// Ten lines of ten bytes; each finding by itself, byte for byte, in every form.
#[test]
fn each_finding_is_a_line_with_file_inode_and_byte_range() {
    for (format, kcat) in CAPTURES {
        let world = World::new();
        let mut log = world.log("app.log");
        log.write((0..10).map(|n| format!("line no {n}")));
        let captured = ship(&world, &[(&log).into()], format, kcat);
        let of = |order: &[usize]| {
            let all = lines(&captured);
            let picked = order.iter().map(|&n| all[n]);
            world.verify([&log], picked.collect::<Vec<_>>().concat())
        };
        let done = |records, arrived, missing, repeated, misordered, rest: &str| {
            format!(
                "done files=1 records={records} arrived={arrived} missing={missing} repeated={repeated} misordered={misordered}{rest}"
            )
        };

        let ended = of(&[0, 4, 5, 6, 8]).run().exits(5);
        ended.printed([
            range("missing", &log, 10, 40, 3),
            range("missing", &log, 70, 80, 1),
            range("missing", &log, 90, 100, 1),
            done(5, 5, 5, 0, 0, " missing_bytes=50"),
        ]);

        let repeating = [0, 1, 2, 3, 2, 3, 4, 0, 5, 6, 7, 8, 9];
        let expected = [
            range("repeated", &log, 20, 40, 2),
            range("repeated", &log, 0, 10, 1),
            done(13, 10, 0, 3, 0, ""),
        ];
        of(&repeating).run().exits(6).printed(&expected);
        let allowed = of(&repeating).arg("--allow-repeats");
        allowed.run().exits(0).printed(&expected);

        let ended = of(&[0, 3, 1, 2, 4, 5, 9, 6, 7, 8]).arg("--allow-repeats");
        ended.run().exits(6).printed([
            range("misordered", &log, 10, 30, 2),
            range("misordered", &log, 60, 90, 3),
            done(10, 10, 0, 0, 5, ""),
        ]);

        let ended = of(&[9, 0, 0, 1, 2, 3, 4, 5, 6]).run().exits(5);
        ended.printed([
            range("missing", &log, 70, 90, 2),
            range("repeated", &log, 0, 10, 1),
            range("misordered", &log, 0, 70, 7),
            done(9, 8, 2, 1, 7, " missing_bytes=20"),
        ]);
    }
}

#[test]
fn a_record_of_no_file_is_shown_and_is_no_failure() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one", "two"]);
    let long = "x".repeat(61);
    let captured = format!("one\nnever\x1bwritten\ntwo\n{long}\n");

    let ended = world.verify([&log], captured).run();

    ended.exits(0).printed([
        "unknown record=\"standard input:2\" bytes=13 starts=\"never\\x1bwritten\"".to_owned(),
        format!(
            "unknown record=\"standard input:4\" bytes=61 starts=\"{}...\"",
            "x".repeat(60)
        ),
        "done files=1 records=4 arrived=2 missing=0 repeated=0 misordered=0 unknown=2".to_owned(),
    ]);
}

/// Equal lines can be counted, but not told apart: no order is made up, and none
/// that did not come is overlooked.
#[test]
fn equal_lines_are_counted_and_tell_no_order() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["equal", "x", "equal", "y", "equal"]);
    let verify = |captured: &str| world.verify([&log], captured).run();

    verify("equal\nx\nequal\ny\nequal\n").exits(0);
    verify("x\nequal\ny\nequal\n").exits(5).printed([
        range("missing", &log, 0, 6, 1),
        "done files=1 records=4 arrived=4 missing=1 repeated=0 misordered=0 missing_bytes=6".into(),
    ]);
    let ended = verify("equal\nequal\nx\nequal\ny\nequal\n").exits(6);
    assert!(
        ended.lines()[1]
            .starts_with(b"done files=1 records=6 arrived=5 missing=0 repeated=1 misordered=0"),
        "{ended:?}"
    );
}

#[test]
fn a_last_line_without_an_end_is_unfinished_and_counts_with_once() {
    for (format, kcat) in CAPTURES {
        let world = World::new();
        let mut log = world.log("app.log");
        log.write_raw("one\npar");
        let shipped = ship(&world, &[(&log).into()], format, kcat);
        let followed = lines(&shipped)[0].to_vec();

        let ended = world.verify([&log], followed.clone()).run().exits(0);
        ended.printed([
            range("unfinished", &log, 4, 7, 1),
            "done files=1 records=1 arrived=1 missing=0 repeated=0 misordered=0 unfinished_bytes=3"
                .into(),
        ]);
        let ended = world.verify([&log], followed).once().run().exits(5);
        ended.printed([
            range("missing", &log, 4, 7, 1),
            "done files=1 records=1 arrived=1 missing=1 repeated=0 misordered=0 missing_bytes=3"
                .into(),
        ]);
        for verify in [
            world.verify([&log], &shipped[..]),
            world.verify([&log], &shipped[..]).once(),
        ] {
            verify
                .run()
                .exits(0)
                .printed(["done files=1 records=2 arrived=2 missing=0 repeated=0 misordered=0"]);
        }
    }
}

#[test]
fn what_was_not_to_be_shipped_is_not_missing() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write_raw("old\n\r\none\n\ntwo\n");

    world.verify([&log], "one\ntwo\n").run().exits(5);
    let verify = world.verify([&log], "old\none\ntwo\n").arg("--skip-empty");
    verify.run().exits(0);
    let verify = world
        .verify([&log], "one\n\ntwo\n")
        .args(["--from", "first"]);
    verify
        .run()
        .exits(0)
        .printed(["done files=1 records=3 arrived=3 missing=0 repeated=0 misordered=0"]);
    let verify = world.verify([&log], "one\n\n").args(["--from", "first"]);
    verify.run().exits(5);
}

/// By default wherever logship cuts by itself, else where it is said.
#[test]
fn a_long_line_may_have_been_cut() {
    for (format, kcat) in CAPTURES {
        let world = World::new();
        let mut log = world.log("app.log");
        log.write(["x".repeat(1_200_000), "next".to_owned()]);
        let captured = ship(&world, &[(&log).into()], format, kcat);
        world.verify([&log], captured).run().exits(0);
    }
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["123456", "next"]);
    let verify = |max: &str| {
        let verify = world.verify([&log], "1234\nnext\n");
        verify.args(["--line-bytes-max", max]).run()
    };
    verify("4").exits(0);
    verify("5").exits(5);
    verify("0").exits(2).said("must be from 1 to 64MiB");
}

/// Follows a log to a broker, with headers.
fn follow(world: &World, log: &Log, broker: &Broker) -> crate::world::Shipper {
    let tail = world.tail([log]).since_beginning().arg("--no-state");
    tail.args(["--headers", "--brokers", &broker.addresses()])
        .start()
}

fn records(broker: &Broker, count: usize) -> Vec<Record> {
    broker.wait_for(TOPIC, count, DEADLINE)
}

/// Both lives begin with the same line. Told apart by their generation, each is
/// compared with the file that holds it: the copy that copytruncate made, or the
/// log itself; without the copy, records of the first life count as earlier.
#[test]
fn lives_of_a_truncated_file_are_told_apart_and_found_in_its_copy() {
    let (world, broker) = (World::new(), Broker::start());
    let mut log = world.log("app.log");
    let shipper = follow(&world, &log, &broker);
    log.write(["begin", "one", "two", "three"]);
    records(&broker, 4);
    log.rotate(Rotate::CopyTruncate);
    log.write(["begin", "four"]);
    let records = records(&broker, 6);
    shipper.stop().exits(0);
    let verify = |path: &str, records: &[Record]| {
        world
            .verify([world.path(path)], as_kcat(TOPIC, records))
            .run()
    };

    verify("app.log*", &records)
        .exits(0)
        .printed(["done files=2 records=6 arrived=6 missing=0 repeated=0 misordered=0"]);
    verify("app.log", &records)
        .exits(0)
        .printed(["done files=1 records=6 arrived=2 missing=0 repeated=0 misordered=0 earlier=4"]);
    let missing = range("missing", &log, 6, 11, 1);
    verify("app.log", &records[..5]).exits(5).printed([
        missing.clone(),
        "done files=1 records=5 arrived=1 missing=1 repeated=0 misordered=0 missing_bytes=5 earlier=4".into(),
    ]);
    let twice = [&records[..], &records[..1]].concat();
    let ended = verify("app.log*", &twice).exits(6);
    let found = String::from_utf8(ended.stdout).unwrap();
    assert!(found.starts_with("repeated path="), "{found}");
    assert!(
        found.contains("app.log.1 "),
        "of the copy, not of the log:\n{found}"
    );
    let without_three = [&records[..3], &records[4..]].concat();
    let ended = verify("app.log*", &without_three).exits(5);
    let found = String::from_utf8(ended.stdout).unwrap();
    assert!(
        found.contains("app.log.1 ") && found.contains(" from=14 to=20 "),
        "{found}"
    );
}

/// JSON has no generation: an equal line of another life is not taken for a repeat
/// as long as a copy can have it.
#[test]
fn json_records_of_two_lives_are_found_in_the_log_and_its_copy() {
    let world = World::new();
    let mut log = world.log("app.log");
    let tail = world
        .tail([&log])
        .since_beginning()
        .args(["--format", "json"]);
    let shipper = tail.start();
    log.write(["begin", "one", "two"]);
    let mut captured = shipper.next_lines(3);
    log.rotate(Rotate::CopyTruncate);
    log.write(["begin", "four"]);
    captured.extend(shipper.next_lines(2));
    shipper.stop().exits(0);

    let verify = |captured: &[Vec<u8>]| {
        let captured = captured.join(&b'\n');
        world.verify([world.path("app.log*")], captured).run()
    };
    verify(&captured).exits(0);
    verify(&captured[..4]).exits(5);
    captured.push(captured[1].clone());
    verify(&captured).exits(6);
}

#[test]
fn rotated_files_are_told_by_their_inode_whatever_their_name_is_now() {
    let (world, broker) = (World::new(), Broker::start());
    let mut log = world.log("app.log");
    let shipper = follow(&world, &log, &broker);
    for generation in 0..5 {
        log.write(numbered(generation * 100..generation * 100 + 100));
        records(&broker, generation * 100 + 100);
        log.rotate(Rotate::Rename);
    }
    log.write(["the end"]);
    let records = records(&broker, 501);
    shipper.stop().exits(0);
    let verify = |records: &[Record]| {
        let pattern = world.path("app.log*");
        world.verify([pattern], as_kcat(TOPIC, records)).run()
    };

    verify(&records)
        .exits(0)
        .printed(["done files=6 records=501 arrived=501 missing=0 repeated=0 misordered=0"]);
    let ended = verify(&[&records[..150], &records[160..]].concat()).exits(5);
    let found = String::from_utf8(ended.stdout).unwrap();
    let size = fs::metadata(world.path("app.log.4")).unwrap().len();
    let expected = format!(
        " from={} to={} bytes={} lines=10\n",
        size / 2,
        size * 6 / 10,
        size / 10
    );
    assert!(
        found.contains("/app.log.4 ") && found.contains(&expected),
        "{found}\n{expected}"
    );
}

/// A source that was given headers while it was shipped: both kinds of records are
/// of the same lines.
#[test]
fn records_with_and_without_headers_are_taken_together() {
    let (world, broker) = (World::new(), Broker::start());
    let mut log = world.log("app.log");
    log.write((0..10).map(|n| format!("line no {n}")));
    let tail = world.tail([&log]).once().args(["--headers", "--no-state"]);
    tail.args(["--brokers", &broker.addresses()]).run().exits(0);
    let with = broker.records(TOPIC);
    let mut without = with.clone();
    for record in &mut without {
        record.headers.clear();
    }
    let verify = |records: &[&[Record]]| {
        let captured = as_kcat(TOPIC, &records.concat());
        world.verify([&log], captured).run()
    };

    verify(&[&without[..4], &with[4..]]).exits(0);
    verify(&[&without[..4], &with[5..]]).exits(5).printed([
        range("missing", &log, 40, 50, 1),
        "done files=1 records=9 arrived=9 missing=1 repeated=0 misordered=0 missing_bytes=10"
            .into(),
    ]);
    verify(&[&without[..6], &with[4..]]).exits(6).printed([
        range("repeated", &log, 40, 60, 2),
        "done files=1 records=12 arrived=10 missing=0 repeated=2 misordered=0".into(),
    ]);
}

/// Batches of a file that go to the partitions in turn are in order in each of them.
#[test]
fn order_is_looked_at_within_each_partition() {
    let world = World::new();
    let broker = Broker::builder().partitions(3).start();
    let mut log = world.log("app.log");
    log.write(numbered(0..60_000));
    let tail = world.tail([&log]).once().arg("--no-state").arg("--headers");
    let tail = tail.args(["--partition", "spread", "--brokers", &broker.addresses()]);
    tail.run().exits(0);
    let mut records = broker.records(TOPIC);
    let used: BTreeSet<i32> = records.iter().map(|record| record.partition).collect();
    assert!(used.len() > 1, "one partition proves nothing");

    world
        .verify([&log], as_kcat(TOPIC, &records))
        .run()
        .exits(0);
    for record in &mut records {
        record.partition = 0;
    }
    world
        .verify([&log], as_kcat(TOPIC, &records))
        .run()
        .exits(6);
}

/// Two hosts may have a file of the same path, device and inode.
#[test]
fn records_of_other_hosts_and_files_are_none_of_ours() {
    let (world, broker) = (World::new(), Broker::start());
    let mut logs = ["app.log", "other.log"].map(|name| world.log(name));
    logs[0].write(["one"]);
    logs[1].write(["one"]);
    let paths = [&logs[0], &logs[1]].map(OsString::from);
    let tail = world.tail(paths).once().args(["--headers", "--no-state"]);
    tail.args(["--brokers", &broker.addresses()]).run().exits(0);
    let mut records = broker.records(TOPIC);
    let verify = |records: &[Record], host: Option<&str>| {
        let verify = world.verify([&logs[0]], as_kcat(TOPIC, records));
        let host = host.map(|host| ["--host", host]);
        verify.args(host.into_iter().flatten()).run()
    };

    let ended = verify(&records, None).exits(0);
    let last = String::from_utf8(ended.lines().pop().unwrap()).unwrap();
    assert!(
        last.ends_with("arrived=1 missing=0 repeated=0 misordered=0 unknown=1"),
        "{last}"
    );
    for record in &mut records {
        record.headers[1].1 = Some("elsewhere".into());
    }
    verify(&records, None).exits(5);
    verify(&records, Some("elsewhere")).exits(0);
}

#[test]
fn ten_findings_of_a_kind_are_shown_and_the_others_on_request() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(numbered(0..40));
    let every_other: Vec<String> = numbered((0..40).step_by(2));
    let captured = every_other.join("\n") + &"\nunknown".repeat(12);

    let ended = world.verify([&log], captured.clone()).run().exits(5);
    let text = String::from_utf8(ended.stdout).unwrap();
    let count =
        |text: &str, start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(
        (count(&text, "missing "), count(&text, "unknown ")),
        (10, 10)
    );
    assert!(
        text.contains("and 10 more missing ranges: --all shows them\n"),
        "{text}"
    );
    assert!(
        text.contains("and 2 more unknown records: --all shows them\n"),
        "{text}"
    );

    let ended = world.verify([&log], captured).arg("--all").run().exits(5);
    let text = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(
        (count(&text, "missing "), count(&text, "unknown ")),
        (20, 12)
    );
    assert!(!text.contains("more"), "{text}");
}

#[test]
fn captures_are_files_directories_and_standard_input_in_that_order() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["a", "b", "c", "d", "e"]);
    world.dir("arrived");
    for (name, text) in [
        ("one", "a\n"),
        ("arrived/2", "c\n"),
        ("arrived/1", "b\n"),
        ("last", "d\n"),
    ] {
        fs::write(world.path(name), text).unwrap();
    }
    let verify = |arrived: &[&str]| {
        let verify = world.verify([&log], "e\n");
        verify
            .args(arrived.iter().flat_map(|name| ["--arrived", name]))
            .run()
    };

    verify(&["one", "arrived", "last", "-"]).exits(0);
    verify(&["arrived", "one", "last", "-"]).exits(6);
    verify(&["one", "arrived", "last"]).exits(5);
}

#[test]
fn what_cannot_be_read_is_named_and_nothing_is_claimed() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one"]);
    log.link_to(world.path("hard"));
    world.log("packed.log.gz").write_raw(b"\x1f\x8b\x08\x00");
    world.log("secret").chmod(0o000);
    world.dir("empty");
    let good = r#"{"topic":"t","partition":0,"offset":0,"payload":"one"}"#;
    fs::write(
        world.path("bad"),
        format!("{good}\n{good}\n{{\"topic\":\"t\"}}\n"),
    )
    .unwrap();
    let refused = |args: &[&str], code: i32, problem: &str| {
        let verify = world.verify(args, "one\n").unprivileged();
        let ended = verify.run().exits(code).printed([""; 0]).said(problem);
        assert_eq!(ended.stderr.trim().lines().count(), 1, "{}", ended.stderr);
    };

    refused(
        &["nowhere.log"],
        1,
        "nowhere.log': No such file or directory",
    );
    refused(&["no*.log"], 1, "'no*.log' matches no file");
    refused(&["secret"], 1, "secret': Permission denied");
    refused(
        &["empty"],
        1,
        "empty': it is a directory; name the files in it",
    );
    refused(
        &["*.gz"],
        1,
        "packed.log.gz': it is compressed: unpack it, or leave it out",
    );
    refused(
        &["app.log", "-a", "nowhere"],
        1,
        "cannot read nowhere: No such file",
    );
    refused(
        &["app.log", "-a", "secret"],
        1,
        "cannot read secret: Permission denied",
    );
    refused(
        &["app.log", "-a", "empty"],
        1,
        "there is no capture in 'empty'",
    );
    refused(
        &["app.log", "-a", "bad"],
        1,
        "logship: bad:3: it is not what kcat -J prints: missing field `partition`",
    );
    refused(
        &["app.log", "-i", "json"],
        1,
        "logship: standard input:1: it is no record of --format json: expected",
    );
    refused(&["-"], 2, "PATH: '-' is what arrived, not what was shipped");
    refused(&["a["], 2, "PATH: 'a[' is not a pattern");
    // The same file under two names is one.
    world
        .verify(["app.log", "hard"], "one\n")
        .run()
        .exits(0)
        .printed(["done files=1 records=1 arrived=1 missing=0 repeated=0 misordered=0"]);
}

#[test]
fn an_empty_capture_is_said_to_be_empty() {
    let world = World::new();
    let mut log = world.log("app.log");
    world
        .verify([&log], "")
        .run()
        .exits(0)
        .said("warning: no record was captured");
    log.write(["one"]);
    let ended = world
        .verify([&log], "")
        .run()
        .exits(5)
        .said("warning: no record was captured");
    ended.printed([
        range("missing", &log, 0, 4, 1),
        "done files=1 records=0 arrived=0 missing=1 repeated=0 misordered=0 missing_bytes=4".into(),
    ]);
}

/// A hole that a writer without O_APPEND leaves after a truncation is no line.
#[test]
fn a_hole_of_nuls_at_the_beginning_need_not_arrive() {
    let (world, broker) = (World::new(), Broker::start());
    let mut log = world.log("app.log");
    let shipper = follow(&world, &log, &broker);
    log.write(["one", "two"]);
    records(&broker, 2);
    log.truncate();
    shipper.says("truncated or rewritten");
    log.write_raw(b"\0\0\0\0\0\0\0\0three\nfour\n");
    let records = records(&broker, 4);
    shipper.stop().exits(0);

    world
        .verify([&log], as_kcat(TOPIC, &records))
        .run()
        .exits(0);
    world.verify([&log], "three\nfour\n").run().exits(0);
    world
        .verify([&log], "\0\0\0\0\0\0\0\0three\nfour\n")
        .run()
        .exits(0);
    world.verify([&log], "four\n").run().exits(5).printed([
        range("missing", &log, 8, 14, 1),
        "done files=1 records=1 arrived=1 missing=1 repeated=0 misordered=0 missing_bytes=6".into(),
    ]);
}

/// The exit status is what a script reads, whoever hangs up.
#[test]
fn a_reader_that_hangs_up_does_not_change_the_exit_status() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one", "two"]);
    for (captured, code) in [("one\ntwo\n", 0), ("one\n", 5)] {
        let mut verify = world.logship(["verify", "app.log"]).piped_stdin().start();
        verify.hang_up();
        verify.feed(captured);
        verify.close_stdin();
        verify.ends().exits(code);
    }
}

/// What `verify` is to find, by definition: of lines of equal length, by number.
fn expected(order: &[usize], count: usize, bytes: u64) -> BTreeSet<(String, u64, u64)> {
    let mut found: Vec<(&str, usize)> = Vec::new();
    for (at, &line) in order.iter().enumerate() {
        let before = &order[..at];
        if before.contains(&line) {
            found.push(("repeated", line));
        } else if before.iter().any(|&other| other > line) {
            found.push(("misordered", line));
        }
    }
    found.extend(
        (0..count)
            .filter(|line| !order.contains(line))
            .map(|line| ("missing", line)),
    );
    let mut runs: Vec<(&str, usize, usize)> = Vec::new();
    for (kind, line) in found {
        // Runs of one kind go on even when findings of another stand between.
        match runs.iter_mut().rev().find(|(of, ..)| *of == kind) {
            Some((_, _, to)) if *to == line => *to += 1,
            _ => runs.push((kind, line, line + 1)),
        }
    }
    let range = |(kind, from, to): (&str, usize, usize)| {
        (kind.to_owned(), from as u64 * bytes, to as u64 * bytes)
    };
    runs.into_iter().map(range).collect()
}

/// Takes away, doubles and swaps lines of what was shipped, at random, and finds
/// exactly those.
#[test]
fn random_damage_is_found_exactly() {
    const LINES: usize = 400;
    for (format, kcat) in CAPTURES {
        let world = World::new();
        let mut log = world.log("app.log");
        log.write(numbered(0..LINES));
        let bytes = log.size() / LINES as u64;
        let captured = ship(&world, &[(&log).into()], format, kcat);
        let all = lines(&captured);
        assert_eq!(all.len(), LINES);
        for seed in 1..=6_u64 {
            let order = damaged(
                (0..LINES).collect(),
                seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            );
            let damaged: Vec<u8> = order.iter().flat_map(|&n| all[n]).copied().collect();

            let verify = world.verify([&log], damaged).args(["--json", "--all"]);
            let ended = verify.run();

            let mut found: Vec<Value> = ended
                .lines()
                .iter()
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect();
            let sum = found.pop().unwrap();
            let number = |value: &Value, name: &str| value[name].as_u64().unwrap();
            let ranges: BTreeSet<(String, u64, u64)> = found
                .iter()
                .map(|one| {
                    let kind = one["finding"].as_str().unwrap().to_owned();
                    assert_eq!(one["path"], json!(log.path()));
                    assert_eq!(number(one, "lines") * bytes, number(one, "bytes"));
                    (kind, number(one, "from"), number(one, "to"))
                })
                .collect();
            assert_eq!(
                ranges,
                expected(&order, LINES, bytes),
                "{format} {kcat} seed {seed}"
            );
            assert_eq!(sum["finding"], "done");
            assert_eq!(number(&sum, "records"), order.len() as u64);
            ended.exits(if sum["missing"]["lines"] != 0 { 5 } else { 6 });
        }
    }
}

fn damaged(mut order: Vec<usize>, mut random: u64) -> Vec<usize> {
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound as u64) as usize
    };
    for _ in 0..30 {
        let (at, other) = (below(order.len()), below(order.len()));
        match below(3) {
            0 => drop(order.remove(at)),
            1 => order.insert(at.max(other), order[at.min(other)]),
            _ => {
                let last = order.len() - 1;
                order.swap(at, (at + 1 + other % 3).min(last));
            }
        }
    }
    order
}

/// What stands in the README is done, word for word.
#[test]
fn the_proof_of_the_readme_works() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(readme).unwrap();
    let section = text.split("\n## Prove it\n").nth(1).unwrap();
    let script = section.split("```sh\n").nth(1).unwrap();
    let script = script.split("```").next().unwrap();
    let world = World::new();
    world.log("app.log").write(numbered(0..100));
    let bin = Path::new(env!("CARGO_BIN_EXE_logship")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let run = || {
        let shell = world.logship(["-euc", script]).instead("sh");
        shell.env("PATH", format!("{}:{path}", bin.display())).run()
    };

    run()
        .exits(0)
        .printed(["done files=1 records=100 arrived=100 missing=0 repeated=0 misordered=0"]);
}

/// Two lives with the same first line, the second of which is there: without a
/// generation neither is the second one's order what it seems to be.
#[test]
fn json_records_of_a_life_that_is_gone_make_no_order() {
    let world = World::new();
    let mut log = world.log("app.log");
    let tail = world.tail([&log]).since_beginning();
    let shipper = tail.args(["--format", "json"]).start();
    log.write(["a", "b", "same", "gone"]);
    let mut captured = shipper.next_lines(4);
    log.truncate();
    log.write(["x", "y", "same"]);
    captured.extend(shipper.next_lines(3));
    shipper.stop().exits(0);

    let ended = world.verify([&log], captured.join(&b'\n')).run().exits(6);
    ended.printed([
        range("repeated", &log, 4, 9, 1),
        "done files=1 records=7 arrived=3 missing=0 repeated=1 misordered=0 earlier=3".into(),
    ]);
}

/// The repeated line stands at the same place in the rotated file, which was told
/// of by records of its own.
#[test]
fn a_repeated_line_is_not_excused_by_an_equal_one_in_another_file() {
    for (format, kcat) in [CAPTURES[1], CAPTURES[2], CAPTURES[3]] {
        let world = World::new();
        let mut log = world.log("app.log");
        log.write(["begin", "one"]);
        log.rotate(Rotate::Rename);
        log.write(["begin", "two"]);
        let captured = ship(&world, &[world.path("app.log*").into()], format, kcat);
        let all = lines(&captured);
        for again in &all {
            let captured = [&captured[..], again].concat();
            let ended = world.verify([world.path("app.log*")], captured).run();
            let ended = ended.exits(6);
            assert_eq!(
                ended.lines()[1],
                b"done files=2 records=5 arrived=4 missing=0 repeated=1 misordered=0"
            );
        }
    }
}
