//! Lines: where they begin and end, and that their bytes stay as they are.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::world::{World, numbered};

/// The longest line that is shipped whole (`line_bytes_max`, 1 MiB).
const LINE_BYTES_MAX: usize = 1 << 20;

/// Long enough for a line that wrongly comes to have come.
const A_WHILE: Duration = Duration::from_millis(400);

#[test]
fn every_line_of_a_file_arrives_once_and_in_order() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one", "two", "three"]);

    let ended = world.tail([&log]).once().run();

    ended.exits(0).printed(["one", "two", "three"]);
}

#[test]
fn many_lines_arrive_once_and_in_order() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(numbered(0..300_000));

    let ended = world.tail([&log]).once().run();

    let ended = ended.exits(0).printed(numbered(0..300_000));
    world.verify([&log], ended.stdout).run().exits(0);
}

#[test]
fn an_empty_file_is_no_line_and_no_failure() {
    let world = World::new();
    let log = world.log("app.log");

    let ended = world.tail([&log]).once().run();

    ended.exits(0).printed([""; 0]);
}

#[test]
fn lines_appended_while_following_arrive_soon() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).start();
    shipper.awake(&mut log);

    for n in 0..5 {
        let written = Instant::now();
        log.write([format!("line {n}"), format!("another {n}")]);
        shipper.delivers([format!("line {n}"), format!("another {n}")]);
        // The contract says one second at worst; the rest is for a loaded machine.
        assert!(written.elapsed() < Duration::from_secs(3));
    }
}

#[test]
fn from_the_end_only_what_comes_after_is_read() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["old", "older"]);

    let shipper = world.tail([&log]).start();
    shipper.awake(&mut log); // fails when an old line comes

    log.write(["new"]);
    shipper.delivers(["new"]);
}

/// A position never stands inside a line. So the line that was being written
/// when logship began is delivered whole or not at all, but never its end only.
#[test]
fn from_the_end_no_half_of_a_line_is_read() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mut other = world.log("other.log");
    log.write_raw("old\nhalf a ");
    let mut shipper = world.tail([&log, &other]).start();
    shipper.awake(&mut other);
    shipper.has_open(true, |path| path.ends_with("app.log"));

    log.write_raw("line\nnext\n");

    let first = shipper.next_lines(1).remove(0);
    if first != b"next" {
        assert_eq!(first.escape_ascii().to_string(), "half a line");
        shipper.delivers(["next"]);
    }
}

#[test]
fn a_file_that_appears_later_is_read_from_its_beginning() {
    let world = World::new();
    let mut first = world.log("first.log");
    first.write(["old"]);
    let shipper = world.tail([world.path("*.log")]).start();
    shipper.awake(&mut first);

    let mut second = world.later("second.log");
    second.write(["its first line", "its second line"]);

    shipper.delivers(["its first line", "its second line"]);
}

#[test]
fn an_empty_line_is_a_record() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write_raw("\n\na\n\nb\n\n");

    let ended = world.tail([&log]).once().run();

    ended.exits(0).printed(["", "", "a", "", "b", ""]);
}

#[test]
fn an_empty_line_is_a_record_while_following() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    for _ in 0..3 {
        log.write([""]);
        shipper.delivers([""]);
    }
    log.write(["a", "", "b"]);
    shipper.delivers(["a", "", "b"]);
}

#[test]
fn exactly_one_carriage_return_before_the_line_end_is_removed() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write_raw("a\r\nb\r\r\n\r\nc\rd\n\re\r\n\r\r\n");

    let ended = world.tail([&log]).once().run();

    ended
        .exits(0)
        .printed(["a", "b\r", "", "c\rd", "\re", "\r"]);
}

/// Whoever reads in blocks sees some `\r` at the end of one and its `\n` at the
/// start of the next. The block sizes are not known here, so every power of two
/// has a line end across it, and then line ends wander over all other edges.
#[test]
fn a_line_end_across_the_edge_of_a_read_buffer_is_one_line_end() {
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    let mut put = |bytes: &mut Vec<u8>, length: usize| {
        let line = vec![b'a' + (expected.len() % 26) as u8; length];
        bytes.extend_from_slice(&line);
        bytes.extend_from_slice(b"\r\n");
        expected.push(line);
    };
    for edge in (9..=20).map(|power| 1_usize << power) {
        let length = edge - 1 - bytes.len();
        put(&mut bytes, length);
        assert_eq!(bytes[edge - 1..=edge], *b"\r\n");
    }
    for n in 0..3_000 {
        put(&mut bytes, 600 + n % 101);
    }
    let world = World::new();
    let mut log = world.log("app.log");
    log.write_raw(&bytes);

    let ended = world.tail([&log]).once().run();

    ended.exits(0).printed(expected);
}

#[test]
fn a_line_end_written_in_two_pieces_is_one_line_end() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();

    log.write_raw("one\r");
    shipper.quiet_for(A_WHILE);
    log.write_raw("\ntwo\r");
    shipper.delivers(["one"]);
    log.write_raw("still two\r\n");

    shipper.delivers(["two\rstill two"]);
}

#[test]
fn a_line_written_in_two_pieces_is_one_record() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();

    log.write_raw("par");
    shipper.quiet_for(A_WHILE);
    log.write_raw("tial\n");

    shipper.delivers(["partial"]);
    log.write(["next"]);
    shipper.delivers(["next"]);
}

#[test]
fn lines_written_in_pieces_of_any_size_arrive_as_they_are() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();

    let lines = numbered(0..4_000);
    let text = lines.join("\n") + "\n";
    let mut rest = text.as_bytes();
    for size in (1..).map(|n: usize| n * n * 7 % 613 + 1) {
        let (piece, more) = rest.split_at(size.min(rest.len()));
        log.write_raw(piece);
        rest = more;
        if rest.is_empty() {
            break;
        }
    }

    shipper.delivers(lines);
}

#[test]
fn a_last_line_without_end_is_shipped_with_once() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write_raw("whole\nwithout end");

    let ended = world.tail([&log]).once().run();

    ended.exits(0).printed(["whole", "without end"]);
}

#[test]
fn a_last_line_without_end_waits_for_its_end_while_following() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write_raw("whole\nwithout end");
    let shipper = world.tail([&log]).since_beginning().start();
    shipper.delivers(["whole"]);
    shipper.quiet_for(A_WHILE);

    // What was not read as a line is nobody's debt: the stop is a clean one.
    let ended = shipper.stop();

    ended.exits(0).printed([""; 0]);
}

#[test]
fn bytes_that_are_not_text_stay_as_they_are() {
    let lines: [&[u8]; 8] = [
        b"\xef\xbb\xbfa byte order mark",
        b"a \0 NUL and \0\0\0 more",
        b"\0",
        b"broken UTF-8: \xff\xfe\xc3( \xe2\x82",
        b"\x1b[31mred\x1b[0m",
        b"tab\tbell\x07del\x7f",
        b" spaces around ",
        "žluťoučký kůň 馬 🐎".as_bytes(),
    ];
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(lines);
    log.write([(0..=255).filter(|byte| *byte != b'\n').collect::<Vec<u8>>()]);
    let expected = fs::read(log.path()).unwrap();

    let ended = world.tail([&log]).once().run().exits(0);

    assert_eq!(
        ended.stdout.escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );
}

#[test]
fn nul_bytes_at_the_head_of_a_file_that_was_never_truncated_are_data() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write_raw(b"\0\0\0\0head\nnext\n");

    let ended = world.tail([&log]).once().run();

    ended.exits(0).printed(["\0\0\0\0head", "next"]);
}

#[test]
fn long_lines_are_byte_identical() {
    let lengths = [
        4_095,
        4_096,
        4_097,
        65_535,
        65_536,
        65_537,
        262_143,
        262_145,
        1_000_000,
        LINE_BYTES_MAX - 1,
        LINE_BYTES_MAX,
    ];
    let lines: Vec<Vec<u8>> = lengths.map(long_line).into();
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(&lines);
    log.write(["short"]);
    log.write_raw(long_line(LINE_BYTES_MAX));
    log.write_raw("\r\nafter\n");

    let ended = world.tail([&log]).once().run();

    let rest = [
        b"short".to_vec(),
        long_line(LINE_BYTES_MAX),
        b"after".into(),
    ];
    ended.exits(0).printed(lines.into_iter().chain(rest));
}

#[test]
fn a_line_over_the_limit_is_cut_there_and_the_next_one_is_intact() {
    for over in [1, 2, 1_000, LINE_BYTES_MAX, 5 * LINE_BYTES_MAX + 17] {
        let world = World::new();
        let mut log = world.log("app.log");
        let line = long_line(LINE_BYTES_MAX + over);
        log.write([b"before", &line[..], b"after", b"", b"last"]);

        let ended = world.tail([&log]).once().run();

        let cut = &line[..LINE_BYTES_MAX];
        ended
            .exits(0)
            .printed([b"before", cut, b"after", b"", b"last"]);
    }
}

#[test]
fn a_line_over_the_limit_is_cut_at_the_same_place_while_following() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    let line = long_line(3 * LINE_BYTES_MAX + 5);

    log.write(["before"]);
    shipper.delivers(["before"]);
    for piece in line.chunks(300_007) {
        log.write_raw(piece);
    }
    log.write_raw("\nafter\n");

    shipper.delivers([&line[..LINE_BYTES_MAX], b"after"]);
}

/// A program that writes binary data, or forgot its line ends.
#[test]
fn an_endless_line_costs_bounded_memory_and_the_line_after_it_is_intact() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mebibyte = long_line(1 << 20);
    for _ in 0..64 {
        log.write_raw(&mebibyte);
    }
    let mut shipper = world.tail([&log]).since_beginning().start();
    shipper.has_read(64 << 20);
    log.write_raw("\nafter\n");

    shipper.delivers([&mebibyte[..LINE_BYTES_MAX], b"after"]);
    let peak = shipper.peak_memory();
    assert!(peak < 40 << 20, "{peak} bytes of memory were used");
}

#[test]
fn an_endless_last_line_is_cut_with_once() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write_raw(long_line(3 << 20));

    let ended = world.tail([&log]).once().run();

    ended.exits(0).printed([long_line(LINE_BYTES_MAX)]);
}

#[test]
fn a_large_file_costs_bounded_memory() {
    let world = World::new();
    let mut log = world.log("app.log");
    let lines = numbered(0..50_000);
    for _ in 0..16 {
        log.write(&lines);
    }
    let shipper = world.tail([&log]).since_beginning().start();
    for _ in 0..16 {
        shipper.delivers(&lines);
    }
    let peak = shipper.peak_memory();
    assert!(peak < 40 << 20, "{peak} bytes of memory were used");
}

#[test]
fn a_file_beyond_four_gibibytes_is_followed_at_its_end() {
    let world = World::new();
    let mut log = world.log("app.log");
    let file = OpenOptions::new().write(true).open(log.path()).unwrap();
    file.set_len(5 << 30).unwrap(); // sparse
    log.write(["", "old"]);

    let shipper = world.tail([&log]).start();
    shipper.awake(&mut log);
    log.write(["beyond four gibibytes"]);

    shipper.delivers(["beyond four gibibytes"]);
}

#[test]
fn a_thousand_files_at_once_arrive_once_each_in_its_order() {
    let world = World::new();
    world.dir("many");
    let line = |file: usize, n: usize| format!("file {file:04} line {n}");
    for file in 0..1_000 {
        let mut log = world.later(format!("many/{file}.log"));
        log.write((0..10).map(|n| line(file, n)));
    }

    let ended = world.tail([world.path("many/*.log")]).once().run().exits(0);

    let mut lines = ended.lines();
    assert_eq!(lines.len(), 10_000);
    lines.sort_by(|a, b| a[..9].cmp(&b[..9])); // stable: each file keeps its order
    let expected = (0..1_000).flat_map(|file| (0..10).map(move |n| line(file, n)));
    for (got, expected) in lines.iter().zip(expected) {
        assert_eq!(String::from_utf8_lossy(got), expected);
    }
}

#[test]
fn the_sample_log_comes_out_line_for_line() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sample.log");
    let bytes = fs::read(&sample).unwrap();
    let expected: Vec<&[u8]> = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\n").unwrap_or(line))
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .collect();
    let world = World::new();

    let ended = world.tail([sample]).once().run();

    assert!(expected.len() > 100);
    ended.exits(0).printed(expected);
}

/// A line in which every stretch is different, so that no piece of it can
/// stand in for another.
fn long_line(length: usize) -> Vec<u8> {
    let mut line = Vec::with_capacity(length + 8);
    while line.len() < length {
        line.extend_from_slice(format!("{:07} ", line.len()).as_bytes());
    }
    line.truncate(length);
    line
}
