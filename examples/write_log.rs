//! Writes a log file and rotates it, the way the programs do that logship follows.
//!
//! It knows nothing of logship: it is the other side of the file. Every line
//! but the odd ones carries a number (`seq=000000123`), so that whoever reads
//! at the far end can count what is missing, what came twice and what came out
//! of order. Equal arguments write equal bytes.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

/// How much is gathered before it is written when nothing asks for less.
const BUFFER_BYTES: usize = 256 << 10;
/// How often a writer that holds to a rate wakes up.
const TICK: Duration = Duration::from_millis(5);
/// Length of the longest odd line.
const LONG_LINE_BYTES: usize = 5_000;
/// Where the clock inside the lines starts: 2026-01-05 08:00:00 UTC.
const EPOCH_SECONDS: u64 = 8 * 3_600;

const AFTER_HELP: &str = "\
Examples:
  200 lines as fast as possible:
      write_log /tmp/app.log --lines 200
  like a busy web server under logrotate, until Ctrl-C:
      write_log /tmp/app.log --rate 1000 --rotate rename --rotate-every 10s --keep 5
  the hard case, a writer that does not flush whole lines and is truncated:
      write_log /tmp/app.log --lines 100000 --rate 20000 --partial-writes \\
          --rotate copytruncate --rotate-lines 5000
  half a GiB to measure with:
      write_log /tmp/big.log --total-bytes 512MiB

Try it together with logship, in two terminals:
      cargo run --example write_log -- /tmp/app.log --rate 5 --rotate-lines 20
      cargo run -- tail /tmp/app.log --topic demo

What arrived is complete when every number from the first to the last one of
the closing report is there once:
      grep -ao 'seq=[0-9]*' records | sort | uniq -c | awk '$1 != 1'";

/// Write a log file and rotate it like the programs logship follows
///
/// Writes until --lines, --total-bytes or --duration is reached, whichever
/// comes first, or for ever. Every line carries `seq=` and nine digits. The
/// lines and their order depend on the arguments alone, so two runs with equal
/// arguments write equal bytes (unless a clock decides: --duration,
/// --rotate-every). Reports what it wrote on standard error.
#[derive(Debug, Parser)]
#[command(name = "write_log", after_help = AFTER_HELP, max_term_width = 90)]
struct Args {
    /// The file to write; rotated generations become PATH.1, PATH.2, ...
    path: PathBuf,

    /// Go on at the end of an existing file
    #[arg(long, conflicts_with = "overwrite")]
    append: bool,
    /// Empty an existing file first; without this it is refused
    #[arg(long)]
    overwrite: bool,

    /// Stop after this many lines
    #[arg(long, value_name = "N", help_heading = "How much")]
    lines: Option<u64>,
    /// Stop after about this many bytes (the last line is finished)
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "How much")]
    total_bytes: Option<u64>,
    /// Stop after this long, such as 30s or 2m
    #[arg(long, value_parser = humantime::parse_duration, help_heading = "How much")]
    duration: Option<Duration>,
    /// Lines a second [default: as fast as possible]
    #[arg(
        long,
        value_name = "LINES",
        help_heading = "How much",
        conflicts_with = "byte_rate"
    )]
    rate: Option<u64>,
    /// Bytes a second, such as 1MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "How much")]
    byte_rate: Option<u64>,

    /// Mean length of a line in bytes, its end included; lines vary by half of it
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "200",
          help_heading = "Lines")]
    line_bytes: u64,
    /// Shapes of lines to mix
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "access,json,trace,plain",
        help_heading = "Lines"
    )]
    shapes: Vec<Shape>,
    /// Make every Nth line an odd one: in turn an empty line (it has no number),
    /// UTF-8 text, tabs, a CR LF end, 5 KB; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Lines")]
    odd_every: u64,
    /// Number of the first line
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Lines")]
    first_seq: u64,
    /// Another seed, other lines
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Lines")]
    seed: u64,

    /// How to rotate [default: rename, when one of the next two is given]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Rotation")]
    rotate: Option<Rotate>,
    /// Rotate after this many lines
    #[arg(long, value_name = "N", help_heading = "Rotation")]
    rotate_lines: Option<u64>,
    /// Rotate after this long, such as 500ms
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration,
          help_heading = "Rotation")]
    rotate_every: Option<Duration>,
    /// How many old generations to keep
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Rotation")]
    keep: u32,

    /// Write every line in two pieces, cut anywhere
    #[arg(long, help_heading = "Writing")]
    partial_writes: bool,
    /// Write every line by itself, at once [default: gather 256 KiB, or 5 ms at a --rate]
    #[arg(long, help_heading = "Writing")]
    flush_lines: bool,
    /// No closing report
    #[arg(short, long, help_heading = "Writing")]
    quiet: bool,
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// Like the access log of a web server
    Access,
    /// One JSON object
    Json,
    /// A stack trace over several lines
    Trace,
    /// Date, level, words
    Plain,
}

/// How a generation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rotate {
    /// Rename the file, create a new one (logrotate "create")
    Rename,
    /// Copy the file, empty it in place (logrotate "copytruncate")
    Copytruncate,
    /// Move a new file over the old one at once
    Replace,
    /// Never
    None,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match Writer::open(&args).and_then(|mut writer| writer.run().map(|()| writer.report())) {
        Ok(report) => {
            if !args.quiet {
                eprintln!("{report}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("write_log: '{}': {error}", args.path.display());
            ExitCode::FAILURE
        }
    }
}

/// The open file, what is gathered for it, and what was written so far.
struct Writer<'a> {
    args: &'a Args,
    file: File,
    buffer: Vec<u8>,
    lines: Lines,
    dice: Dice,
    started: Instant,
    rotated_at: Instant,
    rotated_line: u64,
    line_count: u64,
    byte_count: u64,
    rotation_count: u64,
}

/// The closing line.
struct Report {
    lines: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    rotations: u64,
    seconds: f64,
}

impl<'a> Writer<'a> {
    fn open(args: &'a Args) -> io::Result<Writer<'a>> {
        let file =
            open_for_append(&args.path, !(args.append || args.overwrite)).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::AlreadyExists => {
                        io::Error::other("exists already: --append goes on, --overwrite empties it")
                    }
                    _ => error,
                }
            })?;
        if args.overwrite {
            file.set_len(0)?;
        }
        let now = Instant::now();
        Ok(Writer {
            args,
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES * 2),
            lines: Lines::new(args),
            dice: Dice(args.seed ^ 0x5eed),
            started: now,
            rotated_at: now,
            rotated_line: 0,
            line_count: 0,
            byte_count: 0,
            rotation_count: 0,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        while !self.done() {
            self.pace()?;
            self.write_line()?;
            if self.rotation_due() {
                self.flush()?;
                self.rotate()?;
            }
        }
        self.flush()
    }

    fn done(&self) -> bool {
        let reached = |limit: Option<u64>, count| limit.is_some_and(|limit| count >= limit);
        reached(self.args.lines, self.line_count)
            || reached(self.args.total_bytes, self.byte_count)
            || self
                .args
                .duration
                .is_some_and(|limit| self.started.elapsed() >= limit)
    }

    /// Sleeps while the rate is ahead of the clock. What is gathered is
    /// written first: a reader should not wait for a full buffer.
    fn pace(&mut self) -> io::Result<()> {
        while self.ahead() {
            self.flush()?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn ahead(&self) -> bool {
        let seconds = self.started.elapsed().as_secs_f64();
        let beyond = |rate: Option<u64>, count: u64| {
            rate.is_some_and(|rate| count as f64 > rate as f64 * seconds)
        };
        beyond(self.args.rate, self.line_count) || beyond(self.args.byte_rate, self.byte_count)
    }

    fn write_line(&mut self) -> io::Result<()> {
        let begin = self.buffer.len();
        self.lines.next_into(&mut self.buffer);
        let length = self.buffer.len() - begin;
        self.line_count += 1;
        self.byte_count += length as u64;
        if self.args.partial_writes {
            let cut = begin + self.dice.below(length as u64) as usize;
            self.file.write_all(&self.buffer[..cut])?;
            self.buffer.drain(..cut);
            self.flush()
        } else if self.args.flush_lines || self.buffer.len() >= BUFFER_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn rotation_due(&self) -> bool {
        let by_lines = self
            .args
            .rotate_lines
            .is_some_and(|limit| self.line_count - self.rotated_line >= limit && !self.done());
        by_lines
            || self
                .args
                .rotate_every
                .is_some_and(|limit| self.rotated_at.elapsed() >= limit)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.args.path;
        match self.args.rotate.unwrap_or(Rotate::Rename) {
            Rotate::None => return Ok(()),
            Rotate::Rename => {
                self.shift_old()?;
                match self.args.keep {
                    0 => fs::remove_file(path)?,
                    _ => fs::rename(path, old(path, 1))?,
                }
                self.file = open_for_append(path, true)?;
            }
            Rotate::Copytruncate => {
                self.shift_old()?;
                if self.args.keep > 0 {
                    fs::copy(path, old(path, 1))?;
                }
                self.file.set_len(0)?;
            }
            Rotate::Replace => {
                self.shift_old()?;
                if self.args.keep > 0 {
                    fs::hard_link(path, old(path, 1))?;
                }
                let fresh = with_suffix(path, "new");
                self.file = open_for_append(&fresh, true)?;
                fs::rename(&fresh, path)?;
            }
        }
        self.rotation_count += 1;
        self.rotated_at = Instant::now();
        self.rotated_line = self.line_count;
        Ok(())
    }

    /// Makes room for PATH.1: every old generation moves up, the last one goes.
    fn shift_old(&self) -> io::Result<()> {
        let path = &self.args.path;
        for number in (1..=self.args.keep).rev() {
            let from = old(path, number);
            let moved = match number == self.args.keep {
                true => fs::remove_file(from),
                false => fs::rename(from, old(path, number + 1)),
            };
            match moved {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn report(&self) -> Report {
        Report {
            lines: self.line_count,
            bytes: self.byte_count,
            first_seq: self.args.first_seq,
            last_seq: self.lines.seq - 1,
            rotations: self.rotation_count,
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "wrote lines={} bytes={} first_seq={} last_seq={} rotations={} seconds={:.3}",
            self.lines, self.bytes, self.first_seq, self.last_seq, self.rotations, self.seconds
        )
    }
}

fn open_for_append(path: &Path, must_be_new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).create_new(must_be_new);
    options.open(path)
}

fn old(path: &Path, number: u32) -> PathBuf {
    with_suffix(path, &number.to_string())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// The lines, one after the other.
struct Lines {
    dice: Dice,
    shapes: Vec<Shape>,
    mean_bytes: u64,
    odd_every: u64,
    line: u64,
    seq: u64,
    clock_ms: u64,
    /// The rest of a stack trace that is under way.
    trace: VecDeque<&'static str>,
    /// What the lines so far stay below the mean length; negative when above.
    owed_bytes: i64,
}

const METHODS: [&str; 4] = ["GET", "GET", "POST", "DELETE"];
const CODES: [u64; 6] = [200, 200, 200, 304, 404, 500];
const LEVELS: [&str; 5] = ["INFO", "INFO", "INFO", "WARN", "ERROR"];
const SERVICES: [&str; 5] = ["cart", "checkout", "search", "mailer", "auth"];
const WORDS: [&str; 24] = [
    "request",
    "served",
    "user",
    "order",
    "retry",
    "cache",
    "miss",
    "hit",
    "timeout",
    "upstream",
    "connection",
    "closed",
    "opened",
    "queue",
    "worker",
    "started",
    "finished",
    "payload",
    "token",
    "expired",
    "refreshed",
    "slow",
    "query",
    "index",
];
const FRAMES: [&str; 6] = [
    "at com.example.shop.Cart.add(Cart.java:118)",
    "at com.example.shop.Checkout.run(Checkout.java:42)",
    "at java.base/java.util.concurrent.FutureTask.run(FutureTask.java:264)",
    "at java.base/java.lang.Thread.run(Thread.java:840)",
    "Caused by: java.net.SocketTimeoutException: Read timed out",
    "... 7 more",
];
const ODD: [fn(&mut Vec<u8>, u64); 5] = [
    |line, _| line.extend_from_slice(b"\n"),
    |line, seq| {
        put(
            line,
            format_args!("seq={seq:09} žluťoučký kůň 馬 🐎 naïve “quotes”\n"),
        )
    },
    |line, seq| {
        put(
            line,
            format_args!("seq={seq:09}\tcolumns\tapart\tby\ttabs\t\n"),
        )
    },
    |line, seq| put(line, format_args!("seq={seq:09} written on Windows\r\n")),
    |line, seq| {
        put(line, format_args!("seq={seq:09} "));
        let unit = b"the long tail of one very talkative line, ";
        line.extend(unit.iter().cycle().take(LONG_LINE_BYTES));
        line.push(b'\n');
    },
];

impl Lines {
    fn new(args: &Args) -> Lines {
        Lines {
            dice: Dice(args.seed),
            shapes: args.shapes.clone(),
            mean_bytes: args.line_bytes,
            odd_every: args.odd_every,
            line: 0,
            seq: args.first_seq,
            clock_ms: EPOCH_SECONDS * 1_000,
            trace: VecDeque::new(),
            owed_bytes: 0,
        }
    }

    /// Appends one line with its end.
    fn next_into(&mut self, out: &mut Vec<u8>) {
        self.line += 1;
        self.clock_ms += self.dice.below(40);
        if self.odd_every > 0 && self.line.is_multiple_of(self.odd_every) {
            let turn = (self.line / self.odd_every - 1) as usize % ODD.len();
            ODD[turn](out, self.seq);
            // The empty line comes first and has no room for a number.
            self.seq += u64::from(turn != 0);
            return;
        }
        let begin = out.len();
        let mean = self.mean_bytes as i64;
        // The frames of a stack trace are as long as they are; the others make up for it.
        let owed = self.owed_bytes.clamp(-mean / 2, mean * 2);
        let length = mean / 2 + self.dice.below(self.mean_bytes) as i64 + owed;
        let end = begin as i64 + length - " seq=000000000\n".len() as i64;
        self.shape(out, end.max(0) as usize);
        self.owed_bytes += mean - (out.len() - begin) as i64;
        self.seq += 1;
    }

    /// Writes a line that reaches `end` before its number, when its shape needs less.
    fn shape(&mut self, out: &mut Vec<u8>, end: usize) {
        let seq = self.seq;
        if let Some(frame) = self.trace.pop_front() {
            put(out, format_args!("\t{frame} seq={seq:09}\n"));
            return;
        }
        let shape = self.pick_shape();
        let (second, ms) = (self.clock_ms / 1_000, self.clock_ms % 1_000);
        let (hour, minute, second) = (second / 3_600 % 24, second / 60 % 60, second % 60);
        let service = self.dice.pick(&SERVICES);
        match shape {
            Shape::Access => {
                let (a, b) = (self.dice.below(256), self.dice.below(256));
                let method = self.dice.pick(&METHODS);
                let code = self.dice.pick(&CODES);
                let (item, size) = (self.dice.below(10_000), self.dice.below(60_000));
                put(
                    out,
                    format_args!(
                        "198.51.{a}.{b} - - [05/Jan/2026:{hour:02}:{minute:02}:{second:02} +0000] \
                         \"{method} /{service}/{item} HTTP/1.1\" {code} {size} \"-\" \"Mozilla/5.0"
                    ),
                );
                self.fill(out, end.saturating_sub(1));
                put(out, format_args!("\" seq={seq:09}\n"));
            }
            Shape::Json => {
                let level = self.dice.pick(&LEVELS);
                let took = self.dice.below(900);
                put(
                    out,
                    format_args!(
                        "{{\"time\":\"2026-01-05T{hour:02}:{minute:02}:{second:02}.{ms:03}Z\",\
                         \"level\":\"{level}\",\"service\":\"{service}\",\"took_ms\":{took},\
                         \"message\":\"done"
                    ),
                );
                self.fill(out, end.saturating_sub(10));
                put(out, format_args!("\",\"id\":\"seq={seq:09}\"}}\n"));
            }
            Shape::Trace => {
                put(
                    out,
                    format_args!(
                        "2026-01-05 {hour:02}:{minute:02}:{second:02},{ms:03} ERROR [{service}] \
                         java.lang.IllegalStateException: failed"
                    ),
                );
                self.fill(out, end);
                put(out, format_args!(" seq={seq:09}\n"));
                let depth = 1 + self.dice.below(FRAMES.len() as u64) as usize;
                self.trace.extend(&FRAMES[..depth]);
            }
            Shape::Plain => {
                let level = self.dice.pick(&LEVELS);
                put(
                    out,
                    format_args!(
                        "2026-01-05T{hour:02}:{minute:02}:{second:02}.{ms:03}Z {level} {service}:"
                    ),
                );
                self.fill(out, end);
                put(out, format_args!(" seq={seq:09}\n"));
            }
        }
    }

    /// A stack trace is many lines, so it begins more rarely than the others.
    fn pick_shape(&mut self) -> Shape {
        match self.dice.pick(&self.shapes) {
            Shape::Trace if self.dice.below(4) > 0 => self.dice.pick(&self.shapes),
            shape => shape,
        }
    }

    /// Appends words until `out` is `end` long, the last one cut to fit.
    fn fill(&mut self, out: &mut Vec<u8>, end: usize) {
        while out.len() + 1 < end {
            let word = self.dice.pick(&WORDS).as_bytes();
            let room = (end - out.len() - 1).min(word.len());
            out.push(b' ');
            out.extend_from_slice(&word[..room]);
        }
    }
}

fn put(line: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    line.write_fmt(text)
        .expect("writing to memory does not fail");
}

/// Throws the same numbers for the same seed (SplitMix64, Steele et al. 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from zero up to, but not including, `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Reads `512MiB`, `1MB`, `64k` or a bare number of bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "k" | "kib" => 1 << 10,
        "mb" => 1_000_000,
        "m" | "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "g" | "gib" => 1 << 30,
        _ => return Err("a size is a number with an optional unit, such as 512MiB".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a size begins with a number".to_owned())?;
    number
        .checked_mul(factor)
        .filter(|size| *size > 0)
        .ok_or_else(|| "out of range".to_owned())
}
