//! Why a file is read, or why it is not.
//!
//! What logship says of it is held against what is there now. Everything that
//! was found out is listed, and one sentence says what follows.

use std::fmt::{self, Write as _};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use indicatif::HumanBytes;

use crate::admin::{FileReport, Report, SourceReport};
use crate::tail::{Exclude, Pattern};
use crate::text::{from_text, shown};

/// Opening a FIFO for reading blocks until it has a writer; see fcntl(2).
const O_NONBLOCK: i32 = 0o4000;

/// What there is to know, and its verdict at the end. `path` is absolute;
/// `is_here` is false when logship runs where other files are.
pub(super) fn explain(report: &Report, path: &Path, is_here: bool) -> String {
    let seen = if is_here {
        Seen::of(path)
    } else {
        Seen::Elsewhere
    };
    let case = Case {
        path,
        files: of_path(report, path),
        same: of_inode(report, path, &seen),
        sources: report
            .sources
            .iter()
            .filter_map(|source| Some((source, fit(source, path, &seen)?)))
            .collect(),
        seen,
        report,
    };
    format!("{}verdict: {}.\n", case.facts(), shown(case.verdict()))
}

/// What is there now, as this user sees it.
enum Seen {
    /// Another machine would have to be asked.
    Elsewhere,
    /// Nothing is there.
    Missing,
    /// It cannot even be looked at.
    Hidden(io::Error),
    /// Something that has no lines.
    Irregular(&'static str),
    /// A file, and whether it can be opened.
    Regular(Metadata, io::Result<()>),
}

/// What a source says of a path.
enum Fit {
    /// It is looked for.
    Fits,
    /// It would be, but for this exclude.
    Excluded(String),
    /// It would be by its name, but no search comes to it.
    Passed,
}

/// Everything that is known.
struct Case<'a> {
    path: &'a Path,
    report: &'a Report,
    seen: Seen,
    /// What is tailed under this path: for each topic, and each generation.
    files: Vec<&'a FileReport>,
    /// The same file, tailed under another path.
    same: Vec<&'a FileReport>,
    /// The sources that have something to say.
    sources: Vec<(&'a SourceReport, Fit)>,
}

impl Seen {
    fn of(path: &Path) -> Seen {
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == ErrorKind::NotFound => return Seen::Missing,
            Err(error) => return Seen::Hidden(error),
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            return Seen::Irregular("a directory");
        }
        if kind.is_fifo() {
            return Seen::Irregular("a FIFO");
        }
        if kind.is_socket() {
            return Seen::Irregular("a socket");
        }
        if !kind.is_file() {
            return Seen::Irregular("a device");
        }
        let opened = File::options()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open(path);
        Seen::Regular(meta, opened.map(drop))
    }

    fn identity(&self) -> Option<(u64, u64)> {
        match self {
            Seen::Regular(meta, _) => Some((meta.dev(), meta.ino())),
            _ => None,
        }
    }
}

fn of_path<'a>(report: &'a Report, path: &Path) -> Vec<&'a FileReport> {
    let files = report.files.iter();
    files.filter(|file| from_text(&file.path) == path).collect()
}

fn of_inode<'a>(report: &'a Report, path: &Path, seen: &Seen) -> Vec<&'a FileReport> {
    let same = |file: &&FileReport| {
        Some((file.device, file.inode)) == seen.identity() && from_text(&file.path) != path
    };
    report.files.iter().filter(same).collect()
}

// ---- sources ---------------------------------------------------------------------

/// What a source says of a path; none when it does not match.
fn fit(source: &SourceReport, path: &Path, seen: &Seen) -> Option<Fit> {
    let here = std::env::current_dir().unwrap_or_default();
    let pattern = Pattern::new(&source.path, &here).ok()?;
    if !pattern.fits(path) {
        return None;
    }
    let excludes =
        |text: &&String| Exclude::new(text, &here).is_ok_and(|exclude| exclude.matches(path));
    if let Some(exclude) = source.exclude.iter().find(excludes) {
        return Some(Fit::Excluded(exclude.clone()));
    }
    let is_searched = pattern.literal().is_none() && matches!(seen, Seen::Regular(..));
    if is_searched && (!pattern.is_match(path) || is_behind_link(pattern.base(), path)) {
        return Some(Fit::Passed);
    }
    Some(Fit::Fits)
}

/// True when a directory below `base` on the way to a path is a symbolic link: the
/// search does not follow it.
fn is_behind_link(base: &Path, path: &Path) -> bool {
    let ways = path.ancestors().skip(1);
    let below = ways.take_while(|way| *way != base && way.starts_with(base));
    below.into_iter().any(Path::is_symlink)
}

// ---- facts -----------------------------------------------------------------------

impl Case<'_> {
    fn facts(&self) -> String {
        let mut text = format!("{}\n", shown(self.path));
        let mut fact = |what: &str, value: String| {
            let _ = writeln!(text, "  {what:<10}  {value}");
        };
        fact("file", self.seen.to_string());
        let is_here = !matches!(self.seen, Seen::Elsewhere);
        if let Some(target) = fs::read_link(self.path).ok().filter(|_| is_here) {
            fact("link", format!("to {}", shown(target)));
        }
        if let Seen::Regular(_, opened) = &self.seen {
            let readable = match opened {
                Ok(()) => "yes".to_owned(),
                Err(error) => format!("not by this user: {error}"),
            };
            fact("readable", readable);
        }
        for (source, fit) in &self.sources {
            fact("source", format!("{}: {fit}", source_text(source)));
        }
        if self.sources.is_empty() {
            fact(
                "source",
                format!("none of {} matches", self.report.sources.len()),
            );
        }
        for file in &self.files {
            tell(file, "tailed", &mut fact);
        }
        for file in &self.same {
            fact("same as", shown(from_text(&file.path)));
            tell(file, "tailed", &mut fact);
        }
        text
    }
}

fn source_text(source: &SourceReport) -> String {
    let (path, topic) = (shown(&source.path), shown(&source.topic));
    match source.origin.as_str() {
        "" => format!("{path} to topic {topic}"),
        origin => format!("{path} to topic {topic} ({})", shown(origin)),
    }
}

fn tell(file: &FileReport, what: &str, fact: &mut dyn FnMut(&str, String)) {
    let thread = file.thread.as_ref().map_or("none", String::as_str);
    fact(
        what,
        format!(
            "to topic {}: {}, thread {}",
            shown(&file.topic),
            shown(&file.state),
            shown(thread)
        ),
    );
    fact(
        "identity",
        format!(
            "device {}, inode {}, generation {}",
            file.device, file.inode, file.generation
        ),
    );
    fact(
        "position",
        format!(
            "{} of {}, lag {}",
            file.position,
            file.size,
            HumanBytes(file.lag_bytes)
        ),
    );
    if let Some(error) = &file.last_error {
        fact("last error", shown(error));
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Elsewhere => f.write_str("on another host, not looked at"),
            Seen::Missing => f.write_str("does not exist"),
            Seen::Hidden(error) => write!(f, "cannot be looked at by this user: {error}"),
            Seen::Irregular(kind) => write!(f, "{kind}, not a regular file"),
            Seen::Regular(meta, _) => write!(
                f,
                "regular, {} bytes, device {}, inode {}",
                meta.len(),
                meta.dev(),
                meta.ino()
            ),
        }
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fit::Fits => f.write_str("matches"),
            Fit::Excluded(exclude) => write!(f, "excluded by '{}'", shown(exclude)),
            Fit::Passed => f.write_str("would match, but is not found by the search"),
        }
    }
}

// ---- the verdict -----------------------------------------------------------------

impl Case<'_> {
    /// One sentence, the nearest cause first.
    fn verdict(&self) -> String {
        if let Some(file) = self.current() {
            return self.of_tailed(file);
        }
        if let Some(file) = self.same.first() {
            let path = from_text(&file.path);
            return format!(
                "it is read under another path: '{}' is the same file",
                shown(path)
            );
        }
        if let Seen::Irregular(kind) = self.seen {
            return format!("it is not read, because it is {kind}");
        }
        if self.sources.is_empty() {
            return "it is not read, because no source matches it".to_owned();
        }
        if let Some(sentence) = self.kept_out() {
            return sentence;
        }
        match &self.seen {
            Seen::Missing => {
                "it is not read, because it does not exist; it will be when it appears".to_owned()
            }
            Seen::Hidden(error) | Seen::Regular(_, Err(error)) => {
                format!("it is not read, perhaps because it cannot be: this user hears '{error}'")
            }
            _ => "it is not read yet, though a source matches it: \
                  ask again in a moment, then look into the log"
                .to_owned(),
        }
    }

    /// Of what is tailed under this path, the file that is there now, else one
    /// that was not rotated away.
    fn current(&self) -> Option<&FileReport> {
        let identity = self.seen.identity();
        let now = |file: &&&FileReport| Some((file.device, file.inode)) == identity;
        let newest = |file: &&&FileReport| (file.state != "rotated", file.generation);
        let files = self.files.iter();
        let there = files.clone().filter(now).max_by_key(newest);
        there.or(files.max_by_key(newest)).copied()
    }

    /// When every source that matches leaves it out.
    fn kept_out(&self) -> Option<String> {
        let mut reasons = Vec::new();
        for (source, fit) in &self.sources {
            let path = shown(&source.path);
            reasons.push(match fit {
                Fit::Fits => return None,
                Fit::Excluded(exclude) => {
                    format!("'{}' of source {path} excludes it", shown(exclude))
                }
                Fit::Passed => format!(
                    "the search for {path} does not come to it: names that begin with a dot, \
                     linked directories and closed ones are passed over"
                ),
            });
        }
        Some(format!(
            "it is not read, because {}",
            reasons.join(", and ")
        ))
    }

    fn of_tailed(&self, file: &FileReport) -> String {
        let waits = HumanBytes(file.lag_bytes);
        let error = file.last_error.as_deref().unwrap_or("it did not say why");
        let away = self.report.kafka.as_ref().is_some_and(|kafka| !kafka.up);
        let why = if away {
            ", because Kafka does not answer"
        } else {
            ""
        };
        match file.state.as_str() {
            "failed" => format!("it is not read at the moment, because its task failed: {error}"),
            "waiting" => match (&self.seen, &file.last_error) {
                (Seen::Missing, _) => "it is waited for, because it does not exist".to_owned(),
                (_, Some(error)) => format!("it is not read, but waited for: {error}"),
                (_, None) => format!("it is tailed, and {waits} wait to be acknowledged{why}"),
            },
            "draining" => format!(
                "it is read to its end and then let go, as no source wants it any more; \
                 {waits} wait{why}"
            ),
            "full" => format!(
                "it is read no faster than Kafka takes it: the queue is full and {waits} wait{why}"
            ),
            _ if matches!(self.seen, Seen::Missing) => format!(
                "it is gone, and read to its end through the open handle; {waits} wait{why}"
            ),
            "rotated" => format!("it was rotated away and is read to its end; {waits} wait{why}"),
            _ if self.is_replaced(file) => {
                "another file was put in its place, and is read after the old one".to_owned()
            }
            _ if file.lag_bytes == 0 => {
                "it is read, and everything in it is acknowledged".to_owned()
            }
            _ => format!("it is read, and {waits} wait to be acknowledged{why}"),
        }
    }

    fn is_replaced(&self, file: &FileReport) -> bool {
        let identity = self.seen.identity();
        identity.is_some_and(|identity| identity != (file.device, file.inode))
    }
}
