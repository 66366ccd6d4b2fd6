//! The key `sources`, and the same entries from etcd.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::kafka::check_topic_name;
use crate::record::{Format, KeyTemplate, Partitioning, Shape};
use crate::tail::{Exclude, Fence, Job, Pattern, ReadFrom, Source, WhenFull};

use super::super::defaults;
use super::super::object::{NO_HOME, Object, Report, is_home, no_path, shorten};

/// Entries of a list, at most.
const SOURCES_MAX: usize = 20_000;
/// Labels of a source, and bytes of a name or a value, at most.
const LABELS_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 1024;
/// Bytes of a key as it is written.
const KEY_BYTES_MAX: usize = 1024;
const LINE_BYTES: std::ops::RangeInclusive<u64> = 1..=64 << 20;

pub const WHEN_FULL: &[(&str, WhenFull)] = &[("wait", WhenFull::Wait), ("drop", WhenFull::Drop)];
const FORMATS: &[(&str, Format)] = &[("raw", Format::Raw), ("json", Format::Json)];
const PARTITIONS: &[(&str, Partitioning)] = &[
    ("file", Partitioning::File),
    ("spread", Partitioning::Spread),
];
const READ_FROM: &[(&str, ReadFrom)] =
    &[("beginning", ReadFrom::Beginning), ("end", ReadFrom::End)];

/// What holds for a source that does not say so itself.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// `queue.when_full`
    pub when_full: WhenFull,
    /// Longest line, in a record without headers.
    pub line_bytes_max: usize,
    /// Lines go to a broker, which has a limit of its own.
    pub to_kafka: bool,
    /// ... through the client for brokers that know no headers.
    pub to_legacy: bool,
}

/// Where entries stand.
pub struct Context<'a> {
    /// What relative paths are taken from; none may be relative without it.
    pub directory: Option<&'a Path>,
    /// What holds where an entry says nothing.
    pub defaults: &'a Defaults,
    /// What they may read.
    pub fence: Option<&'a Arc<Fence>>,
}

/// All entries; of those with the same path and topic the first.
pub fn lower_all(entries: &[Object], context: &Context, report: &mut Report) -> Vec<Arc<Source>> {
    if let Some(beyond) = entries.get(SOURCES_MAX) {
        report.wrong(
            beyond.at,
            &beyond.key,
            format!("there are more than {SOURCES_MAX} sources: use patterns"),
        );
        return Vec::new();
    }
    let mut sources: Vec<Arc<Source>> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for entry in entries {
        let Some(source) = lower(entry, context, report) else {
            continue;
        };
        let same = (
            source.pattern.text().to_owned(),
            Arc::clone(&source.job.topic),
        );
        if let Some(first) = known.get(&same) {
            report.warn(
                entry.at,
                &entry.key,
                format!("has the path and topic of {first}, which is what holds: remove one"),
            );
            continue;
        }
        known.insert(same, entry.key.clone());
        sources.push(Arc::new(source));
    }
    sources
}

fn lower(entry: &Object, context: &Context, report: &mut Report) -> Option<Source> {
    for name in ["path", "topic"] {
        if !entry.has(name) {
            entry.missing(name, report);
        }
    }
    let pattern = pattern(entry, context, report);
    let exclude = exclude(entry, context, report);
    let topic = topic(entry, report);
    let format = entry.choice("format", FORMATS, report).unwrap_or_default();
    let headers = headers(entry, context, report);
    let shape = Shape {
        format,
        key: key(entry, report),
        partitioning: entry
            .choice("partition", PARTITIONS, report)
            .unwrap_or_default(),
        labels: labels(entry, format, report),
        headers,
        line_bytes_max: line_bytes_max(entry, headers, context, report),
        skip_empty: entry.flag("skip_empty", report).unwrap_or(false),
    };
    let read_from = entry.choice("read_from", READ_FROM, report);
    let when_full = entry.choice("when_full", WHEN_FULL, report);
    let job = Job {
        fence: context.fence.cloned(),
        topic: topic?.into(),
        read_from: read_from.unwrap_or(ReadFrom::Beginning),
        when_full: when_full.unwrap_or(context.defaults.when_full),
        shape: Arc::new(shape),
    };
    Some(Source {
        exclude,
        origin: report.place(entry.at).to_string().into(),
        remote: report.remote,
        ..Source::new(pattern?, Arc::new(job))
    })
}

fn pattern(entry: &Object, context: &Context, report: &mut Report) -> Option<Pattern> {
    let found = entry.text("path", report)?;
    let text = &found.value;
    let problem = match context.directory {
        None if !text.starts_with('/') => Some("must be absolute in etcd"),
        _ if text == "-" => Some("is standard input only for 'logship tail': name files"),
        _ if text.ends_with('/') => {
            Some("names a directory: name the files in it, like 'DIR/*.log'")
        }
        _ => no_path(text),
    };
    if let Some(problem) = problem {
        report.wrong(
            found.at,
            &found.key,
            format!("'{}' {problem}", shorten(text)),
        );
        return None;
    }
    if let (Some(name), Some(_)) = (shell_variable(text), context.directory) {
        let problem = format!("'${name}' is not filled in: '${{{name}}}' is");
        report.warn(found.at, &found.key, problem);
    }
    if is_home(text) {
        report.warn(found.at, &found.key, NO_HOME);
    }
    if text.contains(" /") || text.contains(",/") && !text.contains('{') {
        let problem = "looks like two paths: use one source per path";
        report.warn(found.at, &found.key, problem);
    }
    let pattern = match Pattern::new(text, context.directory.unwrap_or(Path::new("/"))) {
        Ok(pattern) => pattern,
        Err(problem) => {
            let hint = match text.contains('[') {
                true => r" (write \[ for a bracket that means itself)",
                false => "",
            };
            let problem = format!("'{}' is not a pattern: {problem}{hint}", shorten(text));
            report.wrong(found.at, &found.key, problem);
            return None;
        }
    };
    if let Some(Err(problem)) = context.fence.map(|fence| fence.check(&pattern)) {
        report.wrong(
            found.at,
            &found.key,
            format!("'{}' {problem}", shorten(text)),
        );
    }
    Some(pattern)
}

/// A name that a shell would have filled in: `HOME` in `$HOME/x.log`.
fn shell_variable(text: &str) -> Option<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split('$').skip(1).find_map(|rest| {
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let name = &rest[..end];
        name.starts_with(|c: char| !c.is_ascii_digit())
            .then_some(name)
    })
}

fn exclude(entry: &Object, context: &Context, report: &mut Report) -> Vec<Exclude> {
    let mut excludes = Vec::new();
    for found in entry.texts("exclude", report).unwrap_or_default() {
        let text = &found.value;
        if context.directory.is_none() && text.contains('/') && !text.starts_with('/') {
            let problem = format!(
                "'{}' must be absolute in etcd, or without a slash for the names of files",
                shorten(text)
            );
            report.wrong(found.at, &found.key, problem);
            continue;
        }
        match Exclude::new(text, context.directory.unwrap_or(Path::new("/"))) {
            Ok(exclude) => excludes.push(exclude),
            Err(problem) => report.wrong(
                found.at,
                &found.key,
                format!("'{}' is not a pattern: {problem}", shorten(text)),
            ),
        }
    }
    excludes
}

fn topic(entry: &Object, report: &mut Report) -> Option<String> {
    let found = entry.text("topic", report)?;
    if let Err(problem) = check_topic_name(&found.value) {
        report.wrong(found.at, &found.key, problem);
        return None;
    }
    Some(found.value)
}

fn key(entry: &Object, report: &mut Report) -> Option<KeyTemplate> {
    let found = entry.text("key", report)?;
    if found.value.len() > KEY_BYTES_MAX {
        report.wrong(
            found.at,
            &found.key,
            format!("is longer than {KEY_BYTES_MAX} bytes"),
        );
        return None;
    }
    if let Some(name) = other_name(&found.value, &["{path}", "{host}"]) {
        report.warn(
            found.at,
            &found.key,
            format!("'{name}' is not filled in, only {{path}} and {{host}} are"),
        );
    }
    Some(KeyTemplate(found.value))
}

/// A `{name}` that is none of those known.
pub fn other_name(text: &str, known: &[&str]) -> Option<String> {
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        rest = &rest[at..];
        let end = rest.find('}')? + 1;
        let name = &rest[..end];
        if !known.contains(&name) {
            return Some(shorten(name));
        }
        rest = &rest[end..];
    }
    None
}

fn labels(entry: &Object, format: Format, report: &mut Report) -> BTreeMap<String, String> {
    let Some(texts) = entry.text_map("labels", report) else {
        return BTreeMap::new();
    };
    let (at, path) = (entry.spot("labels"), entry.path_of("labels"));
    if texts.len() > LABELS_MAX {
        report.wrong(
            at,
            &path,
            format!(
                "there are {} of them, at most {LABELS_MAX} are allowed",
                texts.len()
            ),
        );
    }
    if !texts.is_empty() && format == Format::Raw {
        report.warn(
            at,
            &path,
            "are only in records of the format \"json\": add \"format\": \"json\", or remove them",
        );
    }
    let mut labels = BTreeMap::new();
    for found in texts {
        let (name, text) = found.value;
        if name.is_empty() {
            report.wrong(found.at, &found.key, "the name is empty");
        } else if name.len().max(text.len()) > LABEL_BYTES_MAX {
            report.wrong(
                found.at,
                &found.key,
                format!("is longer than {LABEL_BYTES_MAX} bytes"),
            );
        }
        labels.insert(name, text);
    }
    labels
}

fn headers(entry: &Object, context: &Context, report: &mut Report) -> bool {
    let headers = entry.flag("headers", report).unwrap_or(false);
    if headers && !context.defaults.to_kafka {
        report.warn(
            entry.spot("headers"),
            &entry.path_of("headers"),
            "are only in records that go to Kafka: standard output has no room for them",
        );
    }
    if headers && context.defaults.to_legacy {
        report.wrong(
            entry.spot("headers"),
            &entry.path_of("headers"),
            "are not known to brokers before Kafka 0.11: leave them away, or kafka.client",
        );
    }
    headers && context.defaults.to_kafka
}

fn line_bytes_max(entry: &Object, headers: bool, context: &Context, report: &mut Report) -> usize {
    let default = context.defaults.line_bytes_max - defaults::headers_bytes(headers);
    let Some(bytes) = entry.size("line_bytes_max", LINE_BYTES, report) else {
        return default;
    };
    if context.defaults.to_kafka && bytes > default {
        let problem = format!(
            "a line of more than {default} bytes is more than a broker takes by default: raise message.max.bytes of the brokers, or such lines go to the dead letters"
        );
        report.warn(
            entry.spot("line_bytes_max"),
            &entry.path_of("line_bytes_max"),
            problem,
        );
    }
    bytes
}
