//! `--format json`: one object a line, with ECS names (DESIGN.md, section 5).

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::world::{Log, Logship, World, bytes_name};

/// The longest message, as long as the longest line.
const LINE_BYTES_MAX: usize = 1 << 20;

fn tail_json(world: &World, log: &Log) -> Logship {
    world.tail([log]).args(["--format", "json"])
}

/// Ships the log once and parses every record.
#[track_caller]
fn records(world: &World, log: &Log) -> Vec<Value> {
    let ended = tail_json(world, log).once().run().exits(0);
    let lines = ended.lines();
    lines
        .iter()
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn messages(records: &[Value]) -> Vec<&str> {
    let message = |record: &Value| record["message"].as_str().map(str::len);
    assert!(records.iter().all(|record| message(record).is_some()));
    records
        .iter()
        .filter_map(|record| record["message"].as_str())
        .collect()
}

#[test]
fn a_record_has_the_keys_of_the_contract_and_no_others() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["hello"]);
    let metadata = log.path().metadata().unwrap();

    let mut record = records(&world, &log).remove(0);

    let timestamp = record["@timestamp"].take();
    assert!(timestamp.is_string(), "{timestamp}");
    // ECS has both as keywords; numbers are fine too.
    for (key, expected) in [("inode", metadata.ino()), ("device_id", metadata.dev())] {
        let value = record["log"]["file"][key].take();
        assert_eq!(
            value.to_string().trim_matches('"'),
            expected.to_string(),
            "{key}"
        );
    }
    let host = rustix::system::uname()
        .nodename()
        .to_str()
        .unwrap()
        .to_owned();
    let expected = json!({
        "@timestamp": null,
        "message": "hello",
        "log": {
            "file": { "path": log.path(), "inode": null, "device_id": null },
            "offset": 0,
        },
        "host": { "name": host },
        "agent": { "type": "logship", "version": env!("CARGO_PKG_VERSION") },
        "labels": {},
    });
    assert_eq!(record, expected);
}

#[test]
fn the_timestamp_is_the_time_of_reading_in_utc_with_milliseconds() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["2001-02-03T04:05:06Z an old line"]);
    let moment = Duration::from_millis(1);
    let before = SystemTime::now() - moment;

    let record = records(&world, &log).remove(0);

    let after = SystemTime::now() + moment;
    let text = record["@timestamp"].as_str().unwrap();
    assert_eq!(text.len(), "2026-01-05T08:00:00.123Z".len(), "{text}");
    assert_eq!((&text[10..11], &text[19..20], &text[23..]), ("T", ".", "Z"));
    let time = humantime::parse_rfc3339(text).unwrap();
    assert!(before <= time && time <= after, "{text}");
}

#[test]
fn the_offset_is_where_the_line_begins_in_the_file() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write_raw("one\n\ntwo\r\nthr\u{e9}\u{e9}\nlast without end");

    let records = records(&world, &log);

    assert_eq!(
        messages(&records),
        ["one", "", "two", "thréé", "last without end"]
    );
    let offsets: Vec<_> = records
        .iter()
        .map(|r| r["log"]["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(offsets, [0, 4, 5, 10, 18]);
}

#[test]
fn offsets_go_on_where_the_last_run_stopped_and_begin_again_in_a_new_file() {
    let world = World::new();
    let mut log = world.log("app.log");
    let offset_of = |tail: Logship| -> Vec<(String, u64)> {
        let ended = tail.with_state().once().run().exits(0);
        let parse = |line: &Vec<u8>| -> Value { serde_json::from_slice(line).unwrap() };
        let records = ended.lines().iter().map(parse).collect::<Vec<_>>();
        let pair = |record: &Value| {
            let message = record["message"].as_str().unwrap().to_owned();
            (message, record["log"]["offset"].as_u64().unwrap())
        };
        records.iter().map(pair).collect()
    };
    log.write(["one", "two"]);
    assert_eq!(
        offset_of(tail_json(&world, &log)),
        [("one".into(), 0), ("two".into(), 4)]
    );
    log.write(["three"]);
    assert_eq!(offset_of(tail_json(&world, &log)), [("three".into(), 8)]);
    log.truncate();
    log.write(["new"]);
    assert_eq!(offset_of(tail_json(&world, &log)), [("new".into(), 0)]);
}

#[test]
fn whatever_needs_escaping_is_escaped() {
    let lines = [
        r#"quotes " and \ backslashes \n \u0041"#,
        "tab\tbell\u{7}nul\0del\u{7f}",
        "\u{1b}[31mred\u{1b}[0m",
        "\u{feff}a byte order mark",
        "\u{2028}\u{2029}\u{85}",
        "žluťoučký kůň 馬 🐎",
        r#"{"an":"object"}"#,
        "</script>",
        "a\rb",
    ];
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(lines);
    let every_control: String = (0..32_u8).filter(|c| *c != b'\n').map(char::from).collect();
    log.write([format!("{every_control}.")]);

    let records = records(&world, &log);

    let mut expected = lines.to_vec();
    let last = format!("{every_control}.");
    expected.push(&last);
    assert_eq!(messages(&records), expected);
    assert!(records.iter().all(|record| flags(record).is_empty()));
}

#[test]
fn bytes_that_are_not_utf8_are_replaced_and_flagged() {
    let cases: [(&[u8], &str); 5] = [
        (b"\xff", "\u{fffd}"),
        (b"a\xc3(b", "a\u{fffd}(b"),
        (b"cut short \xe2\x82", "cut short \u{fffd}"),
        (
            b"\xed\xa0\x80 a surrogate",
            "\u{fffd}\u{fffd}\u{fffd} a surrogate",
        ),
        (b"\xc0\xaf overlong", "\u{fffd}\u{fffd} overlong"),
    ];
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["fine"]);
    log.write(cases.map(|(line, _)| line));
    log.write(["fine again"]);

    let records = records(&world, &log);

    let mut expected = vec!["fine"];
    expected.extend(cases.map(|(_, message)| message));
    expected.push("fine again");
    assert_eq!(messages(&records), expected);
    let flagged: Vec<_> = records.iter().map(|record| flags(record).len()).collect();
    assert_eq!(flagged, [0, 1, 1, 1, 1, 1, 0]);
    let flag = &flags(&records[1])[0];
    assert!(flag.to_ascii_lowercase().contains("utf"), "{flag}");
}

#[test]
fn a_cut_line_is_flagged() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write([
        "x".repeat(LINE_BYTES_MAX),
        "y".repeat(LINE_BYTES_MAX + 1),
        "z".into(),
    ]);

    let records = records(&world, &log);

    let lengths: Vec<_> = messages(&records)
        .iter()
        .map(|message| message.len())
        .collect();
    assert_eq!(lengths, [LINE_BYTES_MAX, LINE_BYTES_MAX, 1]);
    assert_eq!(
        records.iter().map(flags).collect::<Vec<_>>(),
        [vec![], vec!["truncated"], vec![]]
    );
    assert_eq!(records[2]["log"]["offset"], 2 * LINE_BYTES_MAX + 3);
}

/// A cut in the middle of a character leaves bytes that are not UTF-8.
#[test]
fn a_line_that_is_cut_inside_a_character_is_still_json() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["x".to_owned() + &"é".repeat(LINE_BYTES_MAX / 2 + 1)]);

    let record = records(&world, &log).remove(0);

    let whole = "x".to_owned() + &"é".repeat(LINE_BYTES_MAX / 2 - 1);
    assert!(record["message"].as_str().unwrap().starts_with(&whole));
    assert!(flags(&record).contains(&"truncated"));
}

#[test]
fn a_path_that_is_not_utf8_is_still_json() {
    let world = World::new();
    let mut log = world.log(bytes_name(b"a\xff \"b\"\n.log"));
    log.write(["one"]);

    let record = records(&world, &log).remove(0);

    let path = record["log"]["file"]["path"].as_str().unwrap();
    assert!(path.ends_with("/a\u{fffd} \"b\"\n.log"), "{path:?}");
}

#[test]
fn the_path_is_the_absolute_one_of_the_file_also_for_a_pattern() {
    let world = World::new();
    world.log("app.log").write(["one"]);
    for path in ["app.log", "*.log"] {
        let tail = world.tail([path]).args(["--format", "json"]);
        let ended = tail.once().run().exits(0);
        let record: Value = serde_json::from_slice(&ended.lines()[0]).unwrap();
        let path = Path::new(record["log"]["file"]["path"].as_str().unwrap());
        assert_eq!(path, world.path("app.log"));
    }
}

#[test]
fn lines_of_standard_input_are_json_too() {
    let world = World::new();
    let tail = world.tail(["-"]).args(["--format", "json"]);
    let ended = tail.stdin("one\né\n").run().exits(0);
    let parse = |line: &Vec<u8>| serde_json::from_slice::<Value>(line).unwrap();
    let records: Vec<_> = ended.lines().iter().map(parse).collect();
    assert_eq!(messages(&records), ["one", "é"]);
}

fn flags(record: &Value) -> Vec<&str> {
    let flags = record["log"]["flags"].as_array();
    flags
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}
