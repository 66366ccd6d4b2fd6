//! A report as a table for people.
//!
//! Everything that comes out of the document is escaped. Only on a terminal is
//! anything shortened.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use indicatif::HumanBytes;

use crate::admin::{FileReport, KafkaReport, Report};
use crate::text::{from_text, shown};

/// The columns, and whether they hold numbers.
const COLUMNS: [(&str, bool); 7] = [
    ("FILE", false),
    ("TOPIC", false),
    ("POSITION", true),
    ("LAG", true),
    ("LINES/S", true),
    ("STATE", false),
    ("LAST ERROR", false),
];
/// Where the columns stand that give way on a terminal.
const FILE: usize = 0;
const TOPIC: usize = 1;
const LAST_ERROR: usize = COLUMNS.len() - 1;
/// Where the state stands, which is coloured.
const STATE: usize = LAST_ERROR - 1;
/// What stands between two columns.
const GAP: &str = "  ";
/// Characters that a path keeps however narrow the terminal is.
const PATH_MIN: usize = 16;
/// Characters of a topic on a terminal.
const TOPIC_MAX: usize = 24;
/// Characters that errors keep, if there are any.
const ERROR_MIN: usize = 24;
/// Problems that are listed.
const PROBLEMS_MAX: usize = 10;

/// How it is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// Characters of a line; none where it is not a terminal.
    width: Option<usize>,
    /// Lines of the screen, when it must fit there.
    height: Option<usize>,
    /// Lines of the terminal.
    rows: Option<usize>,
    colours: bool,
}

impl Look {
    /// For a terminal with these columns and rows, or for something else.
    pub fn new(terminal: Option<(usize, usize)>, colours: bool) -> Look {
        Look {
            width: terminal.map(|(columns, _)| columns),
            height: None,
            rows: terminal.map(|(_, rows)| rows),
            colours,
        }
    }

    /// What does not fit on the screen is left out.
    pub fn on_one_screen(self) -> Look {
        Look {
            height: self.rows,
            ..self
        }
    }

    /// True for a terminal.
    pub fn is_terminal(self) -> bool {
        self.width.is_some()
    }

    fn paint(self, text: &str, colour: Colour) -> String {
        match (self.colours, colour) {
            (false, _) | (_, Colour::Plain) => text.to_owned(),
            (true, Colour::Bold) => format!("\x1b[1m{text}\x1b[0m"),
            (true, Colour::Red) => format!("\x1b[31m{text}\x1b[0m"),
            (true, Colour::Yellow) => format!("\x1b[33m{text}\x1b[0m"),
            (true, Colour::Green) => format!("\x1b[32m{text}\x1b[0m"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Colour {
    Plain,
    Bold,
    Red,
    Yellow,
    Green,
}

/// Path, topic, device, inode, generation.
type FileKey<'a> = (&'a str, &'a str, u64, u64, u64);

fn key(file: &FileReport) -> FileKey<'_> {
    (
        &file.path,
        &file.topic,
        file.device,
        file.inode,
        file.generation,
    )
}

/// Acknowledged lines a second, between two reports.
#[derive(Debug, Default)]
pub(super) struct Rates<'a>(HashMap<FileKey<'a>, f64>);

impl<'a> Rates<'a> {
    /// The rates of the files that both reports know, if they are of one process.
    pub fn between(before: &Report, after: &'a Report) -> Rates<'a> {
        let seconds = after.uptime_seconds - before.uptime_seconds;
        let same = (before.pid, &before.started_at) == (after.pid, &after.started_at);
        if !same || seconds <= 0.0 {
            return Rates::default();
        }
        let known = before
            .files
            .iter()
            .map(|file| (key(file), file.acked_lines));
        let known: HashMap<_, _> = known.collect();
        let rate = |file: &'a FileReport| {
            let lines = file.acked_lines.saturating_sub(*known.get(&key(file))?);
            Some((key(file), lines as f64 / seconds))
        };
        Rates(after.files.iter().filter_map(rate).collect())
    }

    fn of(&self, file: &FileReport) -> String {
        let rate = self.0.get(&key(file));
        rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"))
    }
}

/// The whole page: a line of everything, what is wrong, and the files.
pub(super) fn overview(report: &Report, rates: &Rates<'_>, look: &Look) -> String {
    let mut lines = vec![head(report, *look)];
    let problems = problems(report);
    for problem in problems.iter().take(PROBLEMS_MAX) {
        let text = cut(format!("problem: {problem}"), look.width);
        lines.push(look.paint(&text, Colour::Red));
    }
    if problems.len() > PROBLEMS_MAX {
        lines.push(format!("and {} more", problems.len() - PROBLEMS_MAX));
    }
    if !report.files.is_empty() {
        lines.push(String::new());
        let used = lines.len() + wrapped(report, look);
        let room = look.height.map(|height| height.saturating_sub(used + 1));
        lines.extend(files(report, rates, *look, room));
    }
    lines.join("\n") + "\n"
}

/// Lines that the first one takes beyond its own, on a narrow terminal.
fn wrapped(report: &Report, look: &Look) -> usize {
    let length = head(report, Look::default()).chars().count();
    look.width
        .map_or(0, |width| length.saturating_sub(1) / width.max(1))
}

fn head(report: &Report, look: Look) -> String {
    let health = if report.health.healthy {
        look.paint("healthy", Colour::Green)
    } else {
        look.paint("unhealthy", Colour::Red)
    };
    let lag = report.topics.values().map(|topic| topic.lag_bytes).sum();
    let uptime = Duration::from_secs(report.uptime_seconds.max(0.0) as u64);
    [
        look.paint(&format!("logship {}", shown(&report.version)), Colour::Bold),
        format!("pid {}", report.pid),
        format!("up {}", humantime::format_duration(uptime)),
        health,
        kafka(report.kafka.as_ref(), look),
        format!("config revision {}", report.config.revision),
        format!("lag {}", HumanBytes(lag)),
        format!("files {}", report.files.len()),
    ]
    .join(GAP)
}

fn kafka(kafka: Option<&KafkaReport>, look: Look) -> String {
    match kafka {
        None => "to standard output".to_owned(),
        Some(kafka) if kafka.up => look.paint("kafka up", Colour::Green),
        Some(kafka) => {
            let since = kafka
                .unreachable_seconds
                .map_or_else(String::new, |seconds| {
                    let whole = Duration::from_secs(seconds.max(0.0) as u64);
                    format!(" for {}", humantime::format_duration(whole))
                });
            look.paint(&format!("kafka down{since}"), Colour::Red)
        }
    }
}

/// What somebody should look at, each thing once.
fn problems(report: &Report) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut add = |what: String, why: &str| {
        if why.is_empty() || !found.iter().any(|known| known.contains(&shown(why))) {
            found.push(shown(what));
        }
    };
    for reason in &report.health.reasons {
        add(reason.clone(), reason);
    }
    if let Some(problem) = &report.config.last_problem {
        add(format!("config: {problem}"), problem);
    }
    for etcd in &report.config.etcd {
        if let Some(problem) = &etcd.problem {
            add(format!("etcd key {}: {problem}", etcd.key), problem);
        }
    }
    for (kind, task) in report.tasks.iter().filter(|(_, task)| task.failing) {
        let error = task.last_error.as_deref().unwrap_or_default();
        add(format!("{kind} keeps failing: {error}"), error);
    }
    for (topic, figures) in &report.topics {
        for (reason, bytes) in figures.lost_bytes.iter().filter(|(_, bytes)| **bytes > 0) {
            add(format!("topic {topic}: {bytes} bytes lost ({reason})"), "");
        }
        for (reason, lines) in figures.dead_letter_lines.iter().filter(|(_, n)| **n > 0) {
            add(
                format!("topic {topic}: {lines} lines went to the dead letters ({reason})"),
                "",
            );
        }
    }
    found
}

// ---- the table -------------------------------------------------------------------

/// The table, those that lag most first, at most `room` lines of it.
fn files(report: &Report, rates: &Rates<'_>, look: Look, room: Option<usize>) -> Vec<String> {
    let mut files: Vec<&FileReport> = report.files.iter().collect();
    files.sort_by_key(|file| (Reverse(file.lag_bytes), &file.path, &file.topic));
    let room = room.map_or(usize::MAX, |room| room.saturating_sub(1)); // its first line
    let fits = if files.len() > room {
        room.saturating_sub(1) // its last line
    } else {
        files.len()
    };
    let mut rows: Vec<[String; COLUMNS.len()]> = vec![COLUMNS.map(|(title, _)| title.to_owned())];
    rows.extend(files[..fits].iter().map(|file| cells(file, rates)));
    let widths = widths(&rows, look.width);
    let mut lines: Vec<String> = rows
        .iter()
        .enumerate()
        .map(|(number, row)| line(row, &widths, number == 0, look))
        .collect();
    if fits < files.len() {
        lines.push(format!("and {} more", files.len() - fits));
    }
    lines
}

fn cells(file: &FileReport, rates: &Rates<'_>) -> [String; COLUMNS.len()] {
    [
        shown(from_text(&file.path)),
        shown(&file.topic),
        HumanBytes(file.position).to_string(),
        HumanBytes(file.lag_bytes).to_string(),
        rates.of(file),
        shown(&file.state),
        file.last_error.as_ref().map(shown).unwrap_or_default(),
    ]
}

/// How wide each column is: as its widest cell, but on a terminal paths and
/// errors share what the others leave, and topics have a limit.
fn widths(rows: &[[String; COLUMNS.len()]], terminal: Option<usize>) -> [usize; COLUMNS.len()] {
    let mut widths: [usize; COLUMNS.len()] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    });
    if let Some(terminal) = terminal {
        widths[TOPIC] = widths[TOPIC].min(TOPIC_MAX);
        let gaps = GAP.len() * (COLUMNS.len() - 1);
        let others: usize = widths[FILE + 1..LAST_ERROR].iter().sum();
        let left = terminal.saturating_sub(others + gaps);
        let for_errors = widths[LAST_ERROR].min(ERROR_MIN);
        let for_path = left.saturating_sub(for_errors).max(PATH_MIN);
        widths[FILE] = widths[FILE].min(for_path);
        widths[LAST_ERROR] = widths[LAST_ERROR].min(left.saturating_sub(widths[FILE]));
    }
    widths
}

fn line(
    row: &[String; COLUMNS.len()],
    widths: &[usize; COLUMNS.len()],
    is_head: bool,
    look: Look,
) -> String {
    let mut line = String::new();
    for (column, cell) in row.iter().enumerate() {
        let width = widths[column];
        let text = match column {
            FILE | TOPIC => shortened(cell, width),
            LAST_ERROR => cut(cell.clone(), Some(width)),
            _ => cell.clone(),
        };
        let padded = match COLUMNS[column] {
            (_, true) => format!("{text:>width$}"),
            (_, false) => format!("{text:<width$}"),
        };
        let colour = match column {
            _ if is_head => Colour::Bold,
            STATE => state_colour(cell),
            LAST_ERROR => Colour::Red,
            _ => Colour::Plain,
        };
        let gap = if column == 0 { "" } else { GAP };
        let padded = if column == LAST_ERROR { &text } else { &padded };
        let _ = match padded.as_str() {
            "" => Ok(()),
            padded => write!(line, "{gap}{}", look.paint(padded, colour)),
        };
    }
    line.trim_end().to_owned()
}

fn state_colour(state: &str) -> Colour {
    match state {
        "failed" => Colour::Red,
        "waiting" | "full" => Colour::Yellow,
        _ => Colour::Plain,
    }
}

/// A text that loses its middle where it is too long: of a path, the beginning
/// and above all the end say which one it is.
fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let first = kept / 3;
    let beginning: String = text.chars().take(first).collect();
    let end: String = text.chars().skip(length - (kept - first)).collect();
    format!("{beginning}…{end}")
}

/// A text that loses its end where it is too long.
fn cut(text: String, width: Option<usize>) -> String {
    match width {
        Some(width) if text.chars().count() > width => {
            let kept: String = text.chars().take(width.saturating_sub(1)).collect();
            if width == 0 { kept } else { kept + "…" }
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, lag_bytes: u64, error: Option<&str>) -> FileReport {
        FileReport {
            path: path.to_owned(),
            topic: "web".to_owned(),
            state: "reading".to_owned(),
            lag_bytes,
            last_error: error.map(str::to_owned),
            ..FileReport::default()
        }
    }

    fn report(files: Vec<FileReport>) -> Report {
        Report {
            files,
            ..Report::default()
        }
    }

    fn table(report: &Report, look: Look) -> Vec<String> {
        let text = overview(report, &Rates::default(), &look);
        text.lines().skip(2).map(str::to_owned).collect()
    }

    #[test]
    fn what_lags_most_comes_first_and_columns_are_aligned() {
        let report = report(vec![
            file("/b", 0, None),
            file("/a", 0, None),
            file("/long/c", 2048, Some("no")),
        ]);
        let expected = [
            "FILE     TOPIC  POSITION       LAG  LINES/S  STATE    LAST ERROR",
            "/long/c  web         0 B  2.00 KiB        -  reading  no",
            "/a       web         0 B       0 B        -  reading",
            "/b       web         0 B       0 B        -  reading",
        ];
        assert_eq!(table(&report, Look::default()), expected);
    }

    #[test]
    fn on_a_terminal_every_line_fits_and_paths_keep_their_end() {
        let path = format!("/var/{}/access.log", "deep/".repeat(40));
        let error = "permission denied ".repeat(9);
        let mut first = file(&path, 1, Some(&error));
        first.topic = "t".repeat(249);
        let report = report(vec![first, file("/a", 0, None)]);
        for width in [100, 120, 200] {
            let lines = table(&report, Look::new(Some((width, 24)), false));
            for line in &lines {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
            let file = lines[1].split_whitespace().next().unwrap();
            assert!(file.contains('…') && file.ends_with(".log"), "{file}");
        }
        let full = table(&report, Look::default());
        assert!(
            full[1].starts_with(&path) && full[1].ends_with(error.trim_end()),
            "{full:?}"
        );
    }

    #[test]
    fn a_screen_takes_no_more_than_it_has() {
        let report = report((0..100).map(|n| file(&format!("/{n}"), n, None)).collect());
        let look = Look::new(Some((100, 12)), false).on_one_screen();
        let text = overview(&report, &Rates::default(), &look);
        assert!(text.lines().count() < 12, "{text}");
        assert!(text.contains("/99 "), "{text}");
        assert!(text.ends_with("and 93 more\n"), "{text}");
    }

    #[test]
    fn nothing_in_a_document_reaches_the_terminal_unescaped() {
        let mut evil = file("/a\u{1b}[31m%0A%FF", 0, Some("\u{7}"));
        evil.topic = "t\r".to_owned();
        evil.state = "s\u{9b}".to_owned();
        let mut report = report(vec![evil]);
        report.version = "\u{1b}c".to_owned();
        report.health.reasons = vec!["two\nlines".to_owned()];
        let text = overview(&report, &Rates::default(), &Look::default());
        let odd = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(odd, None, "{text:?}");
        assert!(text.contains("/a\\u{1b}[31m\\n\\xff"), "{text}");
    }

    #[test]
    fn rates_are_of_one_process_and_one_file() {
        let sample = |uptime_seconds, acked_lines| Report {
            uptime_seconds,
            pid: 1,
            files: vec![FileReport {
                acked_lines,
                ..file("/a", 0, None)
            }],
            ..Report::default()
        };
        let (before, after) = (sample(1.0, 100), sample(1.5, 600));
        assert_eq!(Rates::between(&before, &after).of(&after.files[0]), "1000");
        let mut restarted = sample(1.5, 600);
        restarted.pid = 2;
        let rates = Rates::between(&before, &restarted);
        assert_eq!(rates.of(&restarted.files[0]), "-");
        let mut other = sample(1.5, 600);
        other.files[0].generation = 1;
        assert_eq!(Rates::between(&before, &other).of(&other.files[0]), "-");
    }

    #[test]
    fn a_problem_is_listed_once() {
        let mut report = Report::default();
        report.health.reasons = vec!["the last reload was refused: bad key".to_owned()];
        report.config.last_problem = Some("bad key".to_owned());
        assert_eq!(problems(&report), ["the last reload was refused: bad key"]);
    }
}
