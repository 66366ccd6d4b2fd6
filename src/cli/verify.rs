//! `logship verify`: what of files arrived.
//!
//! Finds files and captures, and prints what the room `verify` finds.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::{self, Input as Named, Surroundings};
use crate::exit::Exit;
use crate::record::Shape;
use crate::tail::{Discovery, Job, Pattern, ReadFrom, Registry, Source, WhenFull, check_path};
use crate::text::{as_value, shown, to_text};
use crate::verify::{Error, Finding, Input, Kind, Listener, Options, Rules, Sum, Tally};

use super::args::{InputArg, VerifyArgs, VerifyFrom};
use super::progress::Progress;
use super::{complain, either, hint, surroundings};

/// Findings of a kind that are shown.
const SHOWN_MAX: usize = 10;
/// Bytes of an unknown record that are shown.
const VALUE_BYTES_SHOWN: usize = 60;

/// Compares, tells, and says how it stands.
pub fn run(args: &VerifyArgs) -> Exit {
    either(compare(args))
}

fn compare(args: &VerifyArgs) -> Result<Exit, Exit> {
    let around = surroundings()?;
    let shown_max = if args.all { usize::MAX } else { SHOWN_MAX };
    let options = Options {
        files: files(&args.paths, &around)?,
        captures: captures(&args.arrived)?,
        input: args.input.map(|input| match input {
            InputArg::Raw => Input::Raw,
            InputArg::Json => Input::Json,
            InputArg::Kcat => Input::Kcat,
        }),
        rules: Rules {
            line_bytes_max: match args.line_bytes_max {
                Some(bytes) => vec![bytes],
                None => config::LINE_BYTES_MAX_EVER.to_vec(),
            },
            skip_empty: args.skip_empty,
            once: args.once,
        },
        from_first: args.from == VerifyFrom::First,
        host: args.host.clone().unwrap_or_else(|| around.host.to_string()),
        shown_max,
    };
    let mut printer = Printer {
        json: args.json,
        shown_max,
        shown: [0; Printer::KINDS],
        hung_up: false,
        progress: Progress::new(true),
    };
    let outcome = crate::verify::verify(&options, &mut printer);
    printer.progress.finish();
    let told = outcome.and_then(|sum| {
        printer.conclude(&sum).map_err(Error::Listener)?;
        Ok(sum)
    });
    match told {
        Ok(sum) => Ok(verdict(&sum, args.allow_repeats)),
        Err(error) => {
            complain(&error.to_string(), None);
            Err(Exit::CouldNotRun)
        }
    }
}

fn verdict(sum: &Sum, allow_repeats: bool) -> Exit {
    let repeated = !allow_repeats && sum.repeated.lines > 0;
    if sum.missing.lines > 0 {
        Exit::Missing
    } else if repeated || sum.misordered.lines > 0 {
        Exit::Irregular
    } else {
        Exit::Settled
    }
}

/// The files that PATHs name; whatever is wrong with one is told.
fn files(paths: &[PathBuf], around: &Surroundings) -> Result<Vec<PathBuf>, Exit> {
    let mut refused = false;
    let inputs = config::lower_inputs(paths, around, &mut |key, problem| {
        refused = true;
        complain(&format!("{key}: {problem}"), None);
    });
    if refused {
        return Err(Exit::Usage);
    }
    let mut files = Vec::new();
    for input in inputs {
        match input {
            Named::Path(path) => files.push(path),
            Named::Pattern(pattern) => files.extend(matches(*pattern)?),
            Named::Stdin => {
                complain("PATH: '-' is what arrived, not what was shipped", None);
                return Err(Exit::Usage);
            }
        }
    }
    for path in &files {
        if let Err(problem) = check_path(path) {
            complain(&format!("cannot read '{}': {problem}", shown(path)), None);
            return Err(Exit::CouldNotRun);
        }
    }
    Ok(files)
}

/// The files that match now, found as `tail` finds them.
fn matches(pattern: Pattern) -> Result<Vec<PathBuf>, Exit> {
    let text = shown(pattern.text());
    let job = Job {
        topic: "".into(),
        read_from: ReadFrom::Beginning,
        when_full: WhenFull::Wait,
        shape: Arc::new(Shape::default()),
        fence: None,
    };
    let source = Arc::new(Source::new(pattern, Arc::new(job)));
    let mut discovery = Discovery::new(vec![source], Registry::default());
    let found = discovery.scan().into_iter().map(|found| found.path);
    let mut found: Vec<PathBuf> = found.collect();
    found.sort();
    if let Some((path, error)) = discovery.unreadable().first() {
        let path = shown(path);
        complain(&format!("cannot look into '{path}': {error}"), None);
        return Err(Exit::CouldNotRun);
    }
    if found.is_empty() {
        complain(&format!("'{text}' matches no file"), None);
        return Err(Exit::CouldNotRun);
    }
    Ok(found)
}

/// Where what arrived is read from; `None` is standard input.
fn captures(arrived: &[PathBuf]) -> Result<Vec<Option<PathBuf>>, Exit> {
    if arrived.is_empty() {
        if io::stdin().is_terminal() {
            complain("nothing says what arrived", None);
            hint("pipe it in, or name it with --arrived; 'logship verify --help' has examples");
            return Err(Exit::Usage);
        }
        return Ok(vec![None]);
    }
    let mut captures = Vec::new();
    for path in arrived {
        if path.as_os_str() == "-" {
            captures.push(None);
        } else if path.is_dir() {
            captures.extend(files_in(path)?.into_iter().map(Some));
        } else {
            captures.push(Some(path.clone()));
        }
    }
    Ok(captures)
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>, Exit> {
    let paths = fs::read_dir(directory).and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<PathBuf>>>()
    });
    let problem = match paths {
        Err(error) => format!("cannot look into '{}': {error}", shown(directory)),
        Ok(mut paths) => {
            paths.retain(|path| path.is_file());
            paths.sort();
            if !paths.is_empty() {
                return Ok(paths);
            }
            format!("there is no capture in '{}'", shown(directory))
        }
    };
    complain(&problem, None);
    Err(Exit::CouldNotRun)
}

/// Prints findings, of each kind the first ones.
struct Printer {
    json: bool,
    shown_max: usize,
    /// Findings of each kind so far.
    shown: [usize; Printer::KINDS],
    /// The reader of standard output has gone; what counts then is the exit status.
    hung_up: bool,
    progress: Progress,
}

impl Printer {
    const KINDS: usize = 5;
    const UNKNOWN: usize = 4;

    fn print(&mut self, line: &str) -> io::Result<()> {
        if self.hung_up {
            return Ok(());
        }
        let written = self
            .progress
            .aside(|| io::stdout().write_all(format!("{line}\n").as_bytes()));
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.hung_up = true;
                Ok(())
            }
            written => written,
        }
    }

    /// The sum, after what was not shown.
    fn conclude(&mut self, sum: &Sum) -> io::Result<()> {
        if sum.records == 0 {
            let _ = writeln!(io::stderr(), "warning: no record was captured");
        }
        if self.json {
            return self.print(&sum_json(sum).to_string());
        }
        for (kind, tally) in tallies(sum) {
            self.print_rest(
                &format!("{} ranges", name(kind)),
                kind as usize,
                tally.ranges,
            )?;
        }
        self.print_rest("unknown records", Printer::UNKNOWN, sum.unknown)?;
        self.print(&sum_text(sum))
    }

    fn print_rest(&mut self, what: &str, kind: usize, count: u64) -> io::Result<()> {
        match count.saturating_sub(self.shown[kind] as u64) {
            0 => Ok(()),
            more => self.print(&format!("and {more} more {what}: --all shows them")),
        }
    }
}

impl Listener for Printer {
    fn found(&mut self, finding: &Finding) -> io::Result<()> {
        let kind = match finding {
            Finding::Lines(lines) => lines.kind as usize,
            Finding::Unknown(_) => Printer::UNKNOWN,
        };
        if self.shown[kind] == self.shown_max {
            return Ok(());
        }
        self.shown[kind] += 1;
        let line = match self.json {
            true => finding_json(finding).to_string(),
            false => finding_text(finding),
        };
        self.print(&line)
    }

    fn read(&mut self, bytes: u64, of: u64) {
        self.progress.show_read(bytes, of);
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Missing => "missing",
        Kind::Repeated => "repeated",
        Kind::Misordered => "misordered",
        Kind::Unfinished => "unfinished",
    }
}

fn tallies(sum: &Sum) -> [(Kind, Tally); 4] {
    [
        (Kind::Missing, sum.missing),
        (Kind::Repeated, sum.repeated),
        (Kind::Misordered, sum.misordered),
        (Kind::Unfinished, sum.unfinished),
    ]
}

fn finding_text(finding: &Finding) -> String {
    match finding {
        Finding::Lines(of) => format!(
            "{} path={} inode={} from={} to={} bytes={} lines={}",
            name(of.kind),
            as_value(of.path),
            of.inode,
            of.from,
            of.to,
            of.to - of.from,
            of.count
        ),
        Finding::Unknown(record) => {
            let (start, more) = start_of(record.value);
            format!(
                "unknown record={} bytes={} starts=\"{}{more}\"",
                as_value(format!("{}:{}", record.capture, record.line)),
                record.value.len(),
                start.escape_ascii()
            )
        }
    }
}

fn finding_json(finding: &Finding) -> Value {
    match finding {
        Finding::Lines(of) => json!({
            "finding": name(of.kind), "path": to_text(of.path), "inode": of.inode,
            "from": of.from, "to": of.to, "bytes": of.to - of.from, "lines": of.count,
        }),
        Finding::Unknown(record) => json!({
            "finding": "unknown", "capture": record.capture, "line": record.line,
            "bytes": record.value.len(),
            "starts": String::from_utf8_lossy(start_of(record.value).0),
        }),
    }
}

fn start_of(value: &[u8]) -> (&[u8], &'static str) {
    match value.get(..VALUE_BYTES_SHOWN) {
        Some(start) if start.len() < value.len() => (start, "..."),
        _ => (value, ""),
    }
}

fn sum_text(sum: &Sum) -> String {
    let mut text = format!(
        "done files={} records={} arrived={} missing={} repeated={} misordered={}",
        sum.files,
        sum.records,
        sum.arrived,
        sum.missing.lines,
        sum.repeated.lines,
        sum.misordered.lines
    );
    let rest = [
        ("missing_bytes", sum.missing.bytes),
        ("unfinished_bytes", sum.unfinished.bytes),
        ("unknown", sum.unknown),
        ("earlier", sum.earlier),
    ];
    for (name, count) in rest.into_iter().filter(|(_, count)| *count > 0) {
        text += &format!(" {name}={count}");
    }
    text
}

fn sum_json(sum: &Sum) -> Value {
    let mut object = json!({
        "finding": "done", "files": sum.files, "records": sum.records, "arrived": sum.arrived,
        "unknown": sum.unknown, "earlier": sum.earlier,
    });
    for (kind, tally) in tallies(sum) {
        object[name(kind)] =
            json!({"ranges": tally.ranges, "lines": tally.lines, "bytes": tally.bytes});
    }
    object
}
