//! Compares files with what arrived of them: what is missing, repeated, or out of
//! order.
//!
//! A record that says where it is from is looked up there and compared, byte by
//! byte; one that does not is found by what it holds. Nothing is written, locked
//! or printed here.
//!
//! Memory: of records with a place what the gaps between them cost, about 50 bytes
//! each; of others 20 bytes a line of the files besides, see `content`.

mod arrivals;
mod capture;
mod content;
mod files;
mod lines;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::text::shown;

use arrivals::{Arrivals, Run, Runs};
use capture::{Place, Record};
use content::Content;
use files::Files;
use lines::Line;

pub use arrivals::Tally;
pub use capture::Input;
pub use lines::Rules;

/// What a line of a capture may have beyond the line of a file: headers and labels.
const ENVELOPE_BYTES_MAX: usize = 1 << 20;
/// Bytes of JSON that one byte of a line may become: `\u0000`, escaped again.
const ESCAPED_BYTES_MAX: usize = 7;
/// Files by the name of one that are looked at for its earlier lives; all of them can
/// be open at once.
const COPIES_MAX: usize = files::OPEN_MAX - 1;
/// Records between two reports of how far it is.
const REPORT_EVERY: u64 = 1024;

/// What to compare, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The files.
    pub files: Vec<PathBuf>,
    /// What arrived, one after the other; `None` is standard input.
    pub captures: Vec<Option<PathBuf>>,
    /// How it was captured; by default what its first line looks like.
    pub input: Option<Input>,
    /// How lines became records.
    pub rules: Rules,
    /// What stands before the first line that arrived of a file need not arrive.
    pub from_first: bool,
    /// Records that say that they are of another host are passed over.
    pub host: String,
    /// Ranges of each kind and file that are remembered, the others are counted.
    pub shown_max: usize,
}

/// Who is told.
pub trait Listener {
    /// Something was found.
    ///
    /// # Errors
    /// If it cannot be passed on; then this is the end.
    fn found(&mut self, finding: &Finding) -> io::Result<()>;

    /// So many bytes were read of about so many; 0 if that is not known.
    fn read(&mut self, bytes: u64, of: u64);
}

/// What is not as it should be.
#[derive(Debug)]
pub enum Finding<'a> {
    /// Lines of a file.
    Lines(Lines<'a>),
    /// A record that is no line of any of the files.
    Unknown(Unknown<'a>),
}

/// Lines of a file that stand one after the other.
#[derive(Debug)]
pub struct Lines<'a> {
    /// What became of them.
    pub kind: Kind,
    /// The file.
    pub path: &'a Path,
    /// Its inode number.
    pub inode: u64,
    /// The first byte.
    pub from: u64,
    /// The byte after the last one; line ends included.
    pub to: u64,
    /// How many they are.
    pub count: u64,
}

/// A record and where it was captured.
#[derive(Debug)]
pub struct Unknown<'a> {
    /// The capture.
    pub capture: &'a str,
    /// Its line.
    pub line: u64,
    /// What the record holds.
    pub value: &'a [u8],
}

/// What can be said of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They did not arrive.
    Missing,
    /// They arrived once more.
    Repeated,
    /// They arrived after one that stands behind them.
    Misordered,
    /// The last one has no line end yet, and did not arrive.
    Unfinished,
}

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Files.
    pub files: u64,
    /// Records.
    pub records: u64,
    /// Lines that arrived, each counted once.
    pub arrived: u64,
    /// Lines that did not.
    pub missing: Tally,
    /// Lines that arrived once more.
    pub repeated: Tally,
    /// Lines that came after one that stands behind them.
    pub misordered: Tally,
    /// Last lines without an end that did not arrive.
    pub unfinished: Tally,
    /// Records that are of none of the files.
    pub unknown: u64,
    /// Records of these files that are not what stands there now: of an earlier
    /// life, or written since this began.
    pub earlier: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// A file cannot be read.
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A capture cannot be read.
    Capture {
        /// The capture.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A line of a capture is no record.
    BadRecord {
        /// The capture.
        name: String,
        /// The line.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The files have more lines than can be found by what they hold.
    TooManyLines,
    /// The listener failed.
    Listener(io::Error),
}

/// One life of a file, as records tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Life {
    /// They do not.
    Untold,
    /// Of these numbers.
    Told {
        generation: Option<u64>,
        inode: u64,
        device: Option<u64>,
    },
}

/// Compares.
///
/// # Errors
/// If a file or a capture cannot be read, or the listener fails.
pub fn verify(options: &Options, listener: &mut dyn Listener) -> Result<Sum, Error> {
    let files = Files::new(&options.files, options.rules.clone())?;
    let mut verification = Verification {
        options,
        files,
        homes: HashMap::new(),
        arrivals: HashMap::new(),
        content: None,
        sum: Sum::default(),
        progress: Progress::new(options),
        listener,
    };
    for capture in &options.captures {
        verification.read(capture.as_deref())?;
    }
    verification.conclude()
}

/// Where the lines of a life are.
#[derive(Debug, Default)]
struct Homes {
    /// The files that it may be of, the most likely first.
    files: Vec<usize>,
    /// Some of its lines are not where the others are: it may be several lives.
    is_split: bool,
}

struct Verification<'a> {
    options: &'a Options,
    files: Files,
    /// Where the lines of each life are.
    homes: HashMap<Life, Homes>,
    /// What arrived of a file, by the life that the records were of.
    arrivals: HashMap<(usize, Life), Arrivals>,
    /// Made when a record does not say where it is from.
    content: Option<Content>,
    sum: Sum,
    progress: Progress,
    listener: &'a mut dyn Listener,
}

/// How far it is.
struct Progress {
    read: u64,
    of: u64,
}

/// What became of a record.
enum Fate {
    Arrived,
    Earlier,
    Unknown,
}

impl Verification<'_> {
    fn read(&mut self, capture: Option<&Path>) -> Result<(), Error> {
        let name = capture.map_or_else(|| "standard input".to_owned(), shown);
        let failed = |source| Error::Capture {
            name: name.clone(),
            source,
        };
        let mut reader = open(capture).map_err(failed)?;
        let value_bytes_max = self.files.rules.kept_max();
        let kept_max = value_bytes_max * ESCAPED_BYTES_MAX + ENVELOPE_BYTES_MAX;
        let mut input = self.options.input;
        let mut line = Line::default();
        for number in 1.. {
            if !line.read(&mut reader, kept_max).map_err(failed)? {
                break;
            }
            self.progress.read += line.bytes();
            if number % REPORT_EVERY == 0 {
                self.listener.read(self.progress.read, self.progress.of);
            }
            let bad = |problem| Error::BadRecord {
                name: name.clone(),
                line: number,
                problem,
            };
            let Some(text) = line.whole() else {
                return Err(bad(format!(
                    "it is {} bytes long, which no record is",
                    line.bytes()
                )));
            };
            let input = *input.get_or_insert_with(|| Input::of(text));
            let record = input.record(text).map_err(bad)?;
            self.sum.records += 1;
            match self.take(&record)? {
                Fate::Arrived => {}
                Fate::Earlier => self.sum.earlier += 1,
                Fate::Unknown => {
                    self.sum.unknown += 1;
                    let finding = Finding::Unknown(Unknown {
                        capture: &name,
                        line: number,
                        value: &record.line,
                    });
                    self.listener.found(&finding).map_err(Error::Listener)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, record: &Record) -> Result<Fate, Error> {
        match &record.place {
            Some(place) => self.take_placed(record, place),
            None => self.take_unplaced(record),
        }
    }

    /// A record that does not say where it is from.
    fn take_unplaced(&mut self, record: &Record) -> Result<Fate, Error> {
        if self.content.is_none() {
            self.content = Some(self.index()?);
        }
        let content = self.content.as_mut().expect("just made");
        let Some(found) = content.find(&mut self.files, &record.line)? else {
            return Ok(Fate::Unknown);
        };
        let partition = found.only.then_some(record.partition);
        self.arrivals_of(found.file, Life::Untold)
            .arrive(found.from, found.to, partition);
        Ok(Fate::Arrived)
    }

    fn index(&mut self) -> Result<Content, Error> {
        let sizes = self.files.all().iter().map(|subject| subject.size);
        self.progress.of += if self.progress.of > 0 { sizes.sum() } else { 0 };
        let (progress, listener) = (&mut self.progress, &mut self.listener);
        let mut lines = 0;
        Content::new(&mut self.files, |bytes| {
            progress.read += bytes;
            lines += 1;
            if lines % REPORT_EVERY == 0 {
                listener.read(progress.read, progress.of);
            }
        })
    }

    /// A record that says where it is from: it is, if its line stands there. Where
    /// it does not, the file was truncated since, and there may be a copy.
    fn take_placed(&mut self, record: &Record, place: &Place) -> Result<Fate, Error> {
        let elsewhere = |host: &Vec<u8>| host != self.options.host.as_bytes();
        if place.host.as_ref().is_some_and(elsewhere) {
            return Ok(Fate::Unknown);
        }
        let life = Life::Told {
            generation: place.generation,
            inode: place.inode,
            device: place.device,
        };
        let homes = self.homes_of(life, place);
        if homes.is_empty() {
            return Ok(Fate::Unknown);
        }
        let fit = self.fitting(&homes, life, record, place)?;
        let homes = self.homes.get_mut(&life).expect("just looked up");
        let Some((file, to)) = fit else {
            homes.is_split = true;
            return Ok(Fate::Earlier);
        };
        if let Some(rank) = homes.files.iter().position(|&home| home == file)
            && rank > 0
        {
            homes.is_split = true;
            homes.files[..=rank].rotate_right(1);
        }
        // Of several lives nobody knows which line came when.
        let is_one = place.generation.is_some() || !homes.is_split;
        self.arrivals_of(file, life)
            .arrive(place.offset, to, is_one.then_some(record.partition));
        Ok(Fate::Arrived)
    }

    /// The files that a life may be of: the one with its numbers and copies of it,
    /// before them the one that its last line was found in.
    fn homes_of(&mut self, life: Life, place: &Place) -> Vec<usize> {
        let files = &self.files;
        let homes = self.homes.entry(life).or_insert_with(|| {
            let own = files.find(place.device, place.inode);
            let copies = files.copies_of(&place.path).into_iter();
            let copies = copies.filter(|file| Some(*file) != own).take(COPIES_MAX);
            Homes {
                files: own.into_iter().chain(copies).collect(),
                is_split: false,
            }
        });
        homes.files.clone()
    }

    /// The file where the record's line stands, and where it ends there. Without a
    /// generation equal lines of two lives look the same: then one that it has not
    /// arrived in is better.
    fn fitting(
        &mut self,
        homes: &[usize],
        life: Life,
        record: &Record,
        place: &Place,
    ) -> Result<Option<(usize, u64)>, Error> {
        let mut fit = None;
        for &file in homes {
            let Some(to) = self.stands_at(file, place.offset, record)? else {
                continue;
            };
            let arrived = self.arrivals_of(file, life);
            if place.generation.is_some() || !arrived.coverage.touches(place.offset, to) {
                return Ok(Some((file, to)));
            }
            fit = fit.or(Some((file, to)));
        }
        Ok(fit)
    }

    /// Where the line ends that begins there and is the record's.
    fn stands_at(&mut self, file: usize, at: u64, record: &Record) -> Result<Option<u64>, Error> {
        let Some((rules, line)) = self.files.line_at(file, at)? else {
            return Ok(None);
        };
        let same = |value: &[u8]| match record.lossy {
            true => String::from_utf8_lossy(value).as_bytes() == &record.line[..],
            false => value == &record.line[..],
        };
        let fits = rules.values(line).any(same);
        Ok(fits.then_some(at + line.bytes()))
    }

    fn arrivals_of(&mut self, file: usize, life: Life) -> &mut Arrivals {
        let shown_max = self.options.shown_max;
        self.arrivals
            .entry((file, life))
            .or_insert_with(|| Arrivals::new(shown_max))
    }

    /// Tells what was found, file by file.
    fn conclude(mut self) -> Result<Sum, Error> {
        let current = self.current_lives();
        self.move_chance_hits(&current)?;
        self.sum.files = current.len() as u64;
        for (file, life) in current.into_iter().enumerate() {
            let untold = self.arrivals.remove(&(file, Life::Untold));
            let told = life.and_then(|life| self.arrivals.remove(&(file, life)));
            let arrivals = match (told, untold) {
                (Some(mut told), Some(untold)) => {
                    self.join(file, &mut told, untold)?;
                    told
                }
                (one, other) => one
                    .or(other)
                    .unwrap_or_else(|| Arrivals::new(self.options.shown_max)),
            };
            self.sum.arrived += arrivals.lines;
            self.tell_gaps(file, &arrivals)?;
            self.tell_runs(file, Kind::Repeated, &arrivals.repeated)?;
            self.tell_runs(file, Kind::Misordered, &arrivals.misordered)?;
        }
        for arrivals in self.arrivals.values() {
            self.sum.earlier += arrivals.lines + arrivals.repeated.tally.lines;
        }
        Ok(self.sum)
    }

    /// Of each file the life that it is in: the one of which most lines stand in
    /// it, the latest of those.
    fn current_lives(&self) -> Vec<Option<Life>> {
        let mut best: Vec<Option<(u64, Life)>> = vec![None; self.files.all().len()];
        for (&(file, life), arrivals) in &self.arrivals {
            if life != Life::Untold {
                best[file] = best[file].max(Some((arrivals.lines, life)));
            }
        }
        best.into_iter()
            .map(|best| best.map(|(_, life)| life))
            .collect()
    }

    /// The first lines of a life may stand in its file's next one as well, and were
    /// taken for those before it was clear that the life is that of a copy.
    fn move_chance_hits(&mut self, current: &[Option<Life>]) -> Result<(), Error> {
        for (copy, life) in current.iter().enumerate() {
            let Some(life) = *life else { continue };
            let elsewhere = self
                .arrivals
                .keys()
                .filter(|&&(file, of)| of == life && file != copy && current[file] != Some(life));
            for (file, of) in elsewhere.copied().collect::<Vec<_>>() {
                let hits = self.arrivals.remove(&(file, of)).expect("just listed");
                self.move_hits(file, hits, (copy, life))?;
            }
        }
        Ok(())
    }

    fn move_hits(&mut self, file: usize, hits: Arrivals, to: (usize, Life)) -> Result<(), Error> {
        for range in hits.coverage.ranges() {
            for (at, value) in self.values_in(file, range)? {
                let record = Record {
                    line: value.into(),
                    lossy: false,
                    place: None,
                    partition: 0,
                };
                match self.stands_at(to.0, at, &record)? {
                    Some(end) => self.arrivals_of(to.0, to.1).arrive(at, end, None),
                    None => self.sum.earlier += 1,
                }
            }
        }
        Ok(())
    }

    fn values_in(&mut self, file: usize, range: (u64, u64)) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let mut values = Vec::new();
        self.files.lines(file, range, |at, line, rules| {
            let value = rules.values(line).next().unwrap_or_default();
            values.push((at, value.to_vec()));
            Ok(())
        })?;
        Ok(values)
    }

    /// Adds what arrived without a place to what arrived with one.
    fn join(&mut self, file: usize, told: &mut Arrivals, untold: Arrivals) -> Result<(), Error> {
        for range in untold.coverage.ranges() {
            self.files.lines(file, range, |at, line, _| {
                told.arrive(at, at + line.bytes(), None);
                Ok(())
            })?;
        }
        told.repeated.append(&untold.repeated);
        told.misordered.append(&untold.misordered);
        Ok(())
    }

    /// Tells what did not arrive.
    fn tell_gaps(&mut self, file: usize, arrivals: &Arrivals) -> Result<(), Error> {
        let subject = &self.files.all()[file];
        let (end, size, hole) = (subject.end, subject.size, subject.hole);
        let first = arrivals.coverage.ranges().next();
        let begin = match first {
            _ if !self.options.from_first => 0,
            Some((from, _)) => from,
            None => end,
        };
        let mut missing = Runs::new(self.options.shown_max);
        for (from, to) in arrivals.coverage.gaps(begin.max(hole), end) {
            self.files.lines(file, (from, to), |at, line, rules| {
                if !rules.skips(line) {
                    missing.push(at, at + line.bytes());
                }
                Ok(())
            })?;
        }
        self.tell_runs(file, Kind::Missing, &missing)?;
        let mut unfinished = Runs::new(1);
        if end < size && !arrivals.coverage.touches(end, size) {
            unfinished.push(end, size);
        }
        self.tell_runs(file, Kind::Unfinished, &unfinished)
    }

    fn tell_runs(&mut self, file: usize, kind: Kind, runs: &Runs) -> Result<(), Error> {
        let subject = &self.files.all()[file];
        for &Run { from, to, lines } in &runs.shown {
            let finding = Finding::Lines(Lines {
                kind,
                path: &subject.path,
                inode: subject.inode,
                from,
                to,
                count: lines,
            });
            self.listener.found(&finding).map_err(Error::Listener)?;
        }
        match kind {
            Kind::Missing => &mut self.sum.missing,
            Kind::Repeated => &mut self.sum.repeated,
            Kind::Misordered => &mut self.sum.misordered,
            Kind::Unfinished => &mut self.sum.unfinished,
        }
        .add(runs.tally);
        Ok(())
    }
}

impl Progress {
    fn new(options: &Options) -> Progress {
        let size = |capture: &Option<PathBuf>| {
            let meta = capture.as_ref()?.metadata().ok()?;
            meta.is_file().then_some(meta.len())
        };
        let sizes: Option<u64> = options.captures.iter().map(size).sum();
        Progress {
            read: 0,
            of: sizes.unwrap_or(0),
        }
    }
}

fn open(capture: Option<&Path>) -> io::Result<Box<dyn BufRead>> {
    Ok(match capture {
        None => Box::new(io::stdin().lock()),
        Some(path) => Box::new(BufReader::with_capacity(64 << 10, File::open(path)?)),
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File { path, source } => write!(f, "cannot read '{}': {source}", shown(path)),
            Error::Capture { name, source } => write!(f, "cannot read {name}: {source}"),
            Error::BadRecord {
                name,
                line,
                problem,
            } => write!(f, "{name}:{line}: {problem}"),
            Error::TooManyLines => write!(
                f,
                "more than {} lines cannot be found by what they hold: compare fewer files at once, or ship with headers",
                u32::MAX
            ),
            Error::Listener(source) => write!(f, "cannot say what was found: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::File { source, .. } | Error::Capture { source, .. } => Some(source),
            Error::Listener(source) => Some(source),
            Error::BadRecord { .. } | Error::TooManyLines => None,
        }
    }
}
