//! `logship check-config`: what is wrong with a config, or what it would do.
//!
//! The config is read by the code that `run` reads it with, and files are found
//! by the code that finds them there. Nothing is opened for reading but to see
//! whether it can be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{
    FileConfig, Mistake, Remote, Sink, describe_security, etcd, read_value, show_duration,
    show_size,
};
use crate::exit::Exit;
use crate::kafka::{self, Kind};
use crate::record::{Format, Partitioning};
use crate::tail::{Discovery, ReadFrom, Registry, Source, WhenFull, check_path};
use crate::text::shown;

use super::args::CheckArgs;

/// Files of a source that are shown, and warnings of one kind.
const SHOWN_MAX: usize = 5;
/// Endings of files that hold no lines.
const COMPRESSED: &[&str] = &["gz", "bz2", "xz", "zst", "lz4", "zip"];

/// Checks a config, and says what it would do.
pub fn run(args: &CheckArgs) -> Exit {
    let file = args.file.as_ref().or(args.config.as_ref());
    let file = file.expect("one of them is required");
    let config = match super::surroundings().and_then(|around| super::load(file, &around)) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let survey = Survey::of(&config.plan.sources);
    let mut warnings: Vec<String> = config.warnings.iter().map(shown_warning).collect();
    warnings.extend(survey.warnings());
    // Whoever hangs up early does not want the rest.
    let _ = io::stdout().write_all(plan(file, &config, &survey).as_bytes());
    for warning in &warnings {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    if !args.connect || connect(&config) {
        Exit::Settled
    } else {
        Exit::CouldNotRun
    }
}

/// What sources would tail to where on this host, and what had better be looked
/// at.
pub fn survey(sources: &[Arc<Source>], line_bytes_max: usize) -> (String, Vec<String>) {
    let survey = Survey::of(sources);
    (survey.describe(line_bytes_max), survey.warnings())
}

/// A warning as it is printed.
pub fn shown_warning(warning: &Mistake) -> String {
    match &warning.place {
        Some(place) => {
            let said = Mistake {
                place: None,
                ..warning.clone()
            };
            format!("{place}: warning: {said}")
        }
        None => format!("warning: {warning}"),
    }
}

/// The files that were found.
struct Survey<'a> {
    sources: Vec<Surveyed<'a>>,
    /// Directories that could not be read, and why.
    unreadable: Vec<(PathBuf, io::Error)>,
}

/// The files of one source.
struct Surveyed<'a> {
    source: &'a Arc<Source>,
    files: Vec<(PathBuf, u64)>,
    excluded: usize,
}

impl<'a> Survey<'a> {
    fn of(sources: &'a [Arc<Source>]) -> Survey<'a> {
        let scanned = scan(sources.to_vec());
        let bare = |source: &Arc<Source>| {
            Arc::new(Source::new(source.pattern.clone(), Arc::clone(&source.job)))
        };
        let surveyed = sources.iter().zip(scanned.files).map(|(source, files)| {
            let all = match source.exclude.is_empty() {
                true => files.len(),
                false => scan(vec![bare(source)]).files.iter().map(Vec::len).sum(),
            };
            Surveyed {
                source,
                excluded: all.saturating_sub(files.len()),
                files,
            }
        });
        Survey {
            sources: surveyed.collect(),
            unreadable: scanned.unreadable,
        }
    }

    fn describe(&self, line_bytes_max: usize) -> String {
        let files: usize = self.sources.iter().map(|one| one.files.len()).sum();
        let count = self.sources.len();
        let mut out = format!("sources  {count}, with {} now\n", counted(files, "file"));
        for one in &self.sources {
            one.describe(line_bytes_max, &mut out);
        }
        out
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut holders: BTreeMap<&Path, Vec<&Arc<Source>>> = BTreeMap::new();
        for one in &self.sources {
            warnings.extend(one.warnings());
            warnings.extend(one.unreadable(&self.unreadable));
            for (path, _) in &one.files {
                holders.entry(path).or_default().push(one.source);
            }
        }
        let shared = holders.iter().filter(|(_, sources)| sources.len() > 1);
        let mut shared = shared.filter_map(|(path, sources)| shared_warning(path, sources));
        warnings.extend(shared.by_ref().take(SHOWN_MAX));
        match shared.count() {
            0 => {}
            more => warnings.push(format!(
                "warning: {more} more files are matched by more than one source"
            )),
        }
        warnings
    }
}

/// What one look has found.
struct Scanned {
    /// With their sizes, by source.
    files: Vec<Vec<(PathBuf, u64)>>,
    /// Directories that could not be read, and why.
    unreadable: Vec<(PathBuf, io::Error)>,
}

/// One look, as `run` begins with.
fn scan(sources: Vec<Arc<Source>>) -> Scanned {
    let index: HashMap<*const Source, usize> = sources
        .iter()
        .enumerate()
        .map(|(n, source)| (Arc::as_ptr(source), n))
        .collect();
    let mut files = vec![Vec::new(); sources.len()];
    let mut discovery = Discovery::new(sources, Registry::default());
    for found in discovery.scan() {
        let bytes = fs::metadata(&found.path).map_or(0, |meta| meta.len());
        files[index[&Arc::as_ptr(&found.source)]].push((found.path, bytes));
    }
    Scanned {
        files,
        unreadable: discovery.unreadable(),
    }
}

fn shared_warning(path: &Path, sources: &[&Arc<Source>]) -> Option<String> {
    let (first, other) = (sources[0], *sources.get(1)?);
    let (path, origin, elsewhere) = (shown(path), &other.origin, &first.origin);
    let (topic, other_topic) = (&first.job.topic, &other.job.topic);
    if topic != other_topic {
        return Some(format!(
            "{origin}: warning: path: {path} is shipped to two topics, '{topic}' and '{other_topic}' (the other source is at {elsewhere})"
        ));
    }
    let differs = first.job != other.job;
    differs.then(|| format!("{origin}: warning: path: {path} is tailed as the source at {elsewhere} says, which matches it first and has the same topic"))
}

impl Surveyed<'_> {
    fn warnings(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.files.is_empty() {
            problems.push(self.why_nothing());
        }
        let packed = |(path, _): &&(PathBuf, u64)| {
            let end = path.extension().and_then(|end| end.to_str());
            end.is_some_and(|end| COMPRESSED.contains(&end))
        };
        if let Some((path, _)) = self.files.iter().find(packed) {
            let count = self.files.iter().filter(packed).count();
            let end = path.extension().unwrap_or_default().to_string_lossy();
            problems.push(format!(
                "{count} of its files are compressed and would be shipped as they are, like {}: add \"exclude\": [\"*.{end}\"]",
                shown(path)
            ));
        }
        let unreadable = self
            .files
            .iter()
            .filter_map(|(path, _)| Some((path, File::open(path).err()?)));
        let unreadable: Vec<_> = unreadable.collect();
        if let Some((path, error)) = unreadable.first() {
            let count = unreadable.len();
            problems.push(format!(
                "{count} of its files cannot be read by this user, like {}: {error}",
                shown(path)
            ));
        }
        let origin = &self.source.origin;
        problems
            .into_iter()
            .map(|problem| format!("{origin}: warning: path: {problem}"))
            .collect()
    }

    /// What of the directories below this source's base could not be read.
    fn unreadable(&self, directories: &[(PathBuf, io::Error)]) -> Vec<String> {
        let (base, origin) = (self.source.pattern.base(), &self.source.origin);
        let below = directories
            .iter()
            .filter(|(path, _)| path.starts_with(base) && path != base);
        let told = below.take(SHOWN_MAX).map(|(path, error)| {
            let path = shown(path);
            format!("{origin}: warning: path: cannot look into '{path}': {error}")
        });
        told.collect()
    }

    fn why_nothing(&self) -> String {
        let pattern = &self.source.pattern;
        let text = shown(pattern.text());
        if let Some(path) = pattern.literal() {
            return match check_path(path) {
                Err(problem) => format!("cannot tail '{text}': {problem}"),
                Ok(()) if self.excluded > 0 => format!("'{text}' is excluded"),
                Ok(()) => format!("'{text}' does not exist yet: it is waited for"),
            };
        }
        let base = shown(pattern.base());
        let why = match fs::read_dir(pattern.base()) {
            Err(error) => format!("cannot look into '{base}': {error}"),
            Ok(_) if self.excluded > 0 => {
                format!("all {} that it matches are excluded", self.excluded)
            }
            Ok(_) => "files that appear are taken".to_owned(),
        };
        format!("'{text}' matches no file yet: {why}")
    }

    fn describe(&self, line_bytes_max: usize, out: &mut String) {
        let source = self.source;
        let _ = writeln!(
            out,
            "  {} -> {}",
            shown(source.pattern.text()),
            source.job.topic
        );
        let settings = settings(source, line_bytes_max);
        if !settings.is_empty() {
            let _ = writeln!(out, "    {}", settings.join(", "));
        }
        let bytes: u64 = self.files.iter().map(|(_, bytes)| bytes).sum();
        let excluded = match self.excluded {
            0 => String::new(),
            count => format!(" ({count} excluded)"),
        };
        let _ = writeln!(
            out,
            "    {}, {}{excluded}",
            counted(self.files.len(), "file"),
            readable(bytes)
        );
        for (path, bytes) in self.files.iter().take(SHOWN_MAX) {
            let _ = writeln!(out, "      {}  {}", shown(path), readable(*bytes));
        }
        if let Some(more) = self
            .files
            .len()
            .checked_sub(SHOWN_MAX)
            .filter(|more| *more > 0)
        {
            let _ = writeln!(out, "      and {more} more");
        }
    }
}

/// What is not as it would be by itself.
pub fn settings(source: &Source, line_bytes_max: usize) -> Vec<String> {
    let (job, shape) = (&source.job, &source.job.shape);
    let mut settings = Vec::new();
    if !source.exclude.is_empty() {
        let texts: Vec<String> = source
            .exclude
            .iter()
            .map(|exclude| shown(exclude.text()))
            .collect();
        settings.push(format!("exclude {}", texts.join(" ")));
    }
    if shape.format == Format::Json {
        settings.push("format json".to_owned());
    }
    if let Some(key) = &shape.key {
        settings.push(format!("key {}", shown(&key.0)));
    }
    if shape.partitioning == Partitioning::Spread {
        settings.push("partition spread".to_owned());
    }
    for (name, value) in &shape.labels {
        settings.push(format!("label {}={}", shown(name), shown(value)));
    }
    if shape.headers {
        settings.push("headers".to_owned());
    }
    if job.read_from == ReadFrom::End {
        settings.push("read_from end".to_owned());
    }
    if job.when_full == WhenFull::Drop {
        settings.push("when_full drop".to_owned());
    }
    if shape.skip_empty {
        settings.push("skip_empty".to_owned());
    }
    if shape.line_bytes_max != line_bytes_max {
        let size = show_size(shape.line_bytes_max as u64);
        settings.push(format!("lines up to {size}"));
    }
    settings
}

fn plan(file: &Path, config: &FileConfig, survey: &Survey) -> String {
    let plan = &config.plan;
    let mut out = format!("{} is good\n\n", shown(file));
    let _ = writeln!(out, "records  {}", sink(config));
    let state = plan
        .state_dir
        .as_ref()
        .map_or_else(|| "none is kept".to_owned(), shown);
    let _ = writeln!(out, "state    {state}");
    if let Some(listen) = plan.admin_listen {
        let _ = writeln!(out, "status   http://{listen}/");
    }
    out += &survey.describe(config.line_bytes_max());
    if let Some(remote) = &config.etcd {
        describe_etcd(remote, &mut out);
    }
    out
}

fn sink(config: &FileConfig) -> String {
    let pool = &config.plan.pool;
    let Sink::Kafka(options) = &pool.sink else {
        return "to standard output, because there is no kafka".to_owned();
    };
    let brokers: Vec<String> = options.bootstrap.iter().map(ToString::to_string).collect();
    let send = &pool.send;
    let client = match options.client {
        Kind::Legacy => "legacy client, ",
        Kind::Auto | Kind::Modern => "",
    };
    let security = describe_security(options);
    format!(
        "to Kafka at {}{} ({client}{}, linger {}, {})",
        brokers.join(", "),
        security.map_or(String::new(), |security| format!(" over {security}")),
        format!("{:?}", send.compression).to_lowercase(),
        show_duration(send.linger),
        counted(pool.producers, "producer"),
    )
}

fn describe_etcd(remote: &Remote, out: &mut String) {
    let options = &remote.options;
    let endpoints: Vec<String> = options.endpoints.iter().map(ToString::to_string).collect();
    let _ = writeln!(out, "etcd     {}", endpoints.join(", "));
    for key in &remote.keys {
        let below = if key.ends_with('/') {
            " and all below it"
        } else {
            ""
        };
        let _ = writeln!(out, "  {}{below}", shown(key));
    }
    let login = match &options.username {
        Some(name) => format!("as {}", shown(name)),
        None => "without a user".to_owned(),
    };
    let _ = writeln!(
        out,
        "    {login}, read when they change, or every {}",
        show_duration(options.poll_interval)
    );
}

/// So many of something.
pub fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// A size at a glance.
fn readable(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} bytes"),
        _ => format!("{size:.1} {}", UNITS[unit]),
    }
}

/// Tries etcd, then Kafka. False when a step failed.
fn connect(config: &FileConfig) -> bool {
    let mut good = true;
    let mut topics = config.plan.topics();
    if let Some(remote) = &config.etcd {
        heading("etcd");
        for check in etcd::probe(&remote.options, &remote.keys) {
            good &= tell(&check.name, &check.outcome);
        }
        // Where it cannot be read, there is nothing to be said of what it holds.
        good = good && check_values(remote, config, &mut topics);
    }
    if let Sink::Kafka(options) = &config.plan.pool.sink {
        heading("kafka");
        let topics: Vec<String> = topics.iter().map(ToString::to_string).collect();
        let options = kafka::Options {
            compression: config.plan.pool.send.compression,
            ..kafka::Options::clone(options)
        };
        for check in kafka::probe(&options, &topics) {
            good &= tell(&check.name, &check.outcome);
        }
    }
    good
}

/// Reads the values of the keys as `run` reads them, and adds their topics.
fn check_values(remote: &Remote, config: &FileConfig, topics: &mut BTreeSet<Arc<str>>) -> bool {
    let mut client = etcd::Client::new(remote.options.clone());
    let mut good = true;
    for key in &remote.keys {
        let values = match key.ends_with('/') {
            true => client.list(key),
            false => client.get(key).map(|value| value.into_iter().collect()),
        };
        match values {
            Ok(values) => {
                for value in values {
                    good &= check_value(&value, config, topics);
                }
            }
            Err(error) => good &= tell(key, &Err(error.to_string())),
        }
    }
    good
}

fn check_value(value: &etcd::Value, config: &FileConfig, topics: &mut BTreeSet<Arc<str>>) -> bool {
    let name = format!("value of {}", value.key);
    match read_value(&value.key, &value.bytes, config) {
        Ok((sources, warnings)) => {
            tell(&name, &Ok(counted(sources.len(), "source")));
            topics.extend(sources.iter().map(|source| Arc::clone(&source.job.topic)));
            for warning in &warnings {
                let _ = writeln!(io::stderr(), "{}", shown_warning(warning));
            }
            true
        }
        Err(mistakes) => {
            for mistake in mistakes {
                tell(&name, &Err(mistake.to_string()));
            }
            false
        }
    }
}

fn heading(text: &str) {
    let _ = writeln!(io::stdout(), "\ntrying {text}");
}

/// One line for a step. True when it went well.
fn tell(name: &str, outcome: &Result<String, String>) -> bool {
    let name = shown(name);
    let line = match outcome {
        Ok(detail) if detail.is_empty() => format!("  {name}: ok"),
        Ok(detail) => format!("  {name}: ok ({})", shown(detail)),
        Err(problem) => {
            let failed = if super::colours(&io::stdout()) {
                "\x1b[31mFAILED\x1b[0m"
            } else {
                "FAILED"
            };
            format!("  {name}: {failed}: {}", shown(problem))
        }
    };
    let _ = writeln!(io::stdout(), "{line}");
    outcome.is_ok()
}
