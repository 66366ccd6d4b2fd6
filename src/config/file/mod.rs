//! Lowers a config file, or the value of an etcd key, to what a run needs.
//!
//! `run`, `check-config` and a reload all come through here. Files that a config
//! names are looked at; the network is not touched.

mod kafka;
mod remote;
mod sources;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use twox_hash::XxHash3_64;

use crate::small;
use crate::tail::{self, Source};
use crate::text::shown;

use super::document::{self, Content, Syntax, TEXT_BYTES_MAX, Value};
use super::object::{Found, NO_HOME, Object, Report, object_of, objects_of};
use super::secret::{cannot_read, is_open, open_to_all, read_secret};
use super::units::show_duration;
use super::{Mistake, Plan, Sink, Surroundings, defaults};

pub use kafka::level_problem;
pub use remote::{Remote, fill_in};
use sources::Context;

const MOMENT: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Bytes in all queues: a line of the default limit fits several times over.
const QUEUE_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;
const DEAD_LETTERS_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 50;
const HELD_DELETED_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 50;

/// The least entry of `sources`.
pub const ENTRY: &str = r#"{"path": "/var/log/a.log", "topic": "a"}"#;
/// The least config.
pub const LEAST: &str = r#"{"sources": [{"path": "/var/log/a.log", "topic": "a"}]}"#;

/// What a config file says.
#[derive(Debug, Clone)]
pub struct FileConfig {
    /// The plan, with the file's sources and none of etcd's.
    pub plan: Plan,
    /// Where other sources come from, if anywhere.
    pub etcd: Option<Remote>,
    /// XXH3 (64 bits) of the text.
    pub text_hash: u64,
    /// The same of what it says, but for passwords: this one may be shown.
    pub shown_hash: u64,
    /// What had better be looked at.
    pub warnings: Vec<Mistake>,
    /// What holds for a source that does not say so itself.
    defaults: sources::Defaults,
}

/// The sources of an etcd value, and what had better be looked at.
pub type ValueRead = (Vec<Arc<Source>>, Vec<Mistake>);

impl FileConfig {
    /// What holds for a value of etcd where no config is at hand: that its lines
    /// go to Kafka, and that any path is allowed.
    pub fn bare(host: Arc<str>) -> FileConfig {
        let line_bytes_max = defaults::LINE_BYTES_MAX - defaults::RECORD_OVERHEAD_BYTES;
        FileConfig {
            plan: defaults::plan(Sink::Stdout, host),
            etcd: None,
            text_hash: 0,
            shown_hash: 0,
            warnings: Vec::new(),
            defaults: sources::Defaults {
                when_full: tail::WhenFull::default(),
                line_bytes_max,
                to_kafka: true,
                to_legacy: false,
            },
        }
    }

    /// Longest line of a source that does not say so itself.
    pub fn line_bytes_max(&self) -> usize {
        self.defaults.line_bytes_max
    }
}

/// Reads a config file.
///
/// # Errors
/// All mistakes at once, in the order of the file.
pub fn load(file: &Path, around: &Surroundings) -> Result<FileConfig, Vec<Mistake>> {
    let text = small::read(file, TEXT_BYTES_MAX as u64 + 1).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::IsADirectory => " (name a file in it)",
            _ => "",
        };
        vec![Mistake {
            place: None,
            key: shown(file),
            problem: format!("cannot read the config file: {error}{hint}"),
        }]
    })?;
    read_config(&text, file, around)
}

/// Lowers the text of a config file. `file` is where it stands: the name in
/// mistakes, its ending chooses the syntax, and relative paths are taken from
/// its directory.
///
/// # Errors
/// All mistakes at once, in the order of the file.
pub fn read_config(
    text: &[u8],
    file: &Path,
    around: &Surroundings,
) -> Result<FileConfig, Vec<Mistake>> {
    let mut report = Report::new(shown(file).into(), false);
    let root = parse(text, Syntax::of(file), LEAST, &mut report);
    let root = root.as_ref();
    let lowered = root
        .and_then(|root| object_of(root, "", "", &mut report))
        .and_then(|root| lower(&root, file, around, &mut report));
    let warnings = report.end()?;
    let config = lowered.expect("whatever could not be lowered is a mistake");
    Ok(FileConfig {
        text_hash: XxHash3_64::oneshot(text),
        shown_hash: root.map_or(0, Value::hash_without_secrets),
        warnings,
        ..config
    })
}

/// Lowers the value of an etcd key: the JSON array that would stand under
/// `sources`. Beside the sources it tells what had better be looked at; unknown
/// keys are among it.
///
/// # Errors
/// All mistakes at once. One bad entry, or one outside of `etcd.allowed_paths`,
/// refuses the whole value.
pub fn read_value(key: &str, bytes: &[u8], config: &FileConfig) -> Result<ValueRead, Vec<Mistake>> {
    let mut report = Report::new(shown(key).into(), true);
    let mut sources = Vec::new();
    let root = parse(bytes, Syntax::Json, "[], which tails nothing", &mut report);
    if let Some(root) = &root {
        if let Content::List(items) = &root.content {
            let entries = objects_of(items, "", "sources[]", &mut report);
            let context = Context {
                directory: None,
                defaults: &config.defaults,
                fence: config.etcd.as_ref().map(|remote| &remote.fence),
            };
            sources = sources::lower_all(&entries, &context, &mut report);
        } else {
            let problem = format!(
                "must be the JSON array that would stand under sources, like [{ENTRY}]; got {}",
                root.kind()
            );
            report.wrong(root.at, "", problem);
        }
    }
    let warnings = report.end()?;
    Ok((sources, warnings))
}

/// The document; its flaws are reported. `least` is said of one that is empty.
fn parse(bytes: &[u8], syntax: Syntax, least: &str, report: &mut Report) -> Option<Value> {
    match document::parse(bytes, syntax) {
        Ok((root, doubles)) => {
            doubles.into_iter().for_each(|flaw| report.flaw(flaw));
            Some(root)
        }
        Err(mut flaw) => {
            if flaw.problem == document::EMPTY {
                flaw.problem = format!("{}: the least is {least}", document::EMPTY);
            }
            if flaw.problem == document::LIKE_YAML {
                let advice = match report.remote {
                    true => "in etcd it must be JSON",
                    false => "name the file .yaml",
                };
                flaw.problem = format!("{}: {advice}", document::LIKE_YAML);
            }
            report.flaw(flaw);
            None
        }
    }
}

/// The whole document.
fn lower(
    root: &Object,
    file: &Path,
    around: &Surroundings,
    report: &mut Report,
) -> Option<FileConfig> {
    let file = around.directory.join(file);
    let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
    let secrets = Secrets::default();
    let mut files = Files {
        directory: &directory,
        secrets,
    };

    let sink = kafka::lower(root, &mut files, report);
    let queue = root.object("queue", report);
    let queue = queue.as_ref();
    let queue_bytes = queue.and_then(|queue| queue.size("bytes", QUEUE_BYTES, report));
    let when_full = queue.and_then(|queue| queue.choice("when_full", sources::WHEN_FULL, report));
    let ours = sources::Defaults {
        when_full: when_full.unwrap_or_default(),
        line_bytes_max: defaults::line_bytes_max(&sink.sink, false),
        to_kafka: matches!(sink.sink, Sink::Kafka(_)) || root.has("kafka"),
        to_legacy: matches!(&sink.sink, Sink::Kafka(options) if options.client == crate::kafka::Kind::Legacy),
    };

    let mut plan = defaults::plan(sink.sink, Arc::clone(&around.host));
    plan.pool.producers = sink.producers.unwrap_or(plan.pool.producers);
    let send = &mut plan.pool.send;
    send.compression = sink.compression.unwrap_or(send.compression);
    send.compression_level = sink.compression_level;
    send.linger = sink.linger.unwrap_or(send.linger);
    send.batch_bytes_max = sink.batch_bytes_max.unwrap_or(send.batch_bytes_max);
    plan.pool.queue_bytes_max = queue_bytes.unwrap_or(plan.pool.queue_bytes_max);
    plan.state_dir = state_dir(root, &directory, around, report);
    if let Some(max) = root.size("dead_letters_bytes_max", DEAD_LETTERS_BYTES, report) {
        plan.dead_letters_bytes_max = max as u64;
    }
    lower_times(root, &mut plan, report);
    lower_tail_options(root, &mut plan.tail, report);
    if let Some(admin) = root.object("admin", report) {
        plan.admin_listen = admin_listen(&admin, report);
    }

    let context = Context {
        directory: Some(&directory),
        defaults: &ours,
        fence: None,
    };
    if let Some(entries) = root.objects("sources", "sources[]", report) {
        plan.sources = sources::lower_all(&entries, &context, report);
    }
    let state_dir = plan.state_dir.clone();
    let etcd = remote::lower(
        root,
        &mut files,
        state_dir.as_deref(),
        &file,
        around,
        report,
    );
    check_something_to_do(root, report);
    files.secrets.warn_of_open_files(&file, report);
    Some(FileConfig {
        plan,
        etcd,
        text_hash: 0,
        shown_hash: 0,
        warnings: Vec::new(),
        defaults: ours,
    })
}

fn check_something_to_do(root: &Object, report: &mut Report) {
    if root.has("etcd") {
        return;
    }
    if !root.has("sources") {
        root.missing_with(
            "sources",
            &format!("is missing, so that nothing is tailed: the least is {LEAST}"),
            report,
        );
    } else if root.is_empty_list("sources") {
        report.warn(
            root.spot("sources"),
            "sources",
            "is empty: nothing is tailed",
        );
    }
}

fn state_dir(
    root: &Object,
    directory: &Path,
    around: &Surroundings,
    report: &mut Report,
) -> Option<PathBuf> {
    if root.has("state_dir") {
        return root
            .path("state_dir", directory, report)
            .map(|found| found.value);
    }
    if !root.has("kafka") {
        return None;
    }
    if around.state_base.is_none() {
        let problem = "is missing and has no default: neither HOME nor XDG_STATE_HOME is set (give a directory)";
        report.wrong(root.at, "state_dir", problem);
    }
    around.state_base.clone()
}

fn lower_times(root: &Object, plan: &mut Plan, report: &mut Report) {
    let mut take = |name, limits, time: &mut Duration| {
        *time = root.duration(name, limits, report).unwrap_or(*time);
    };
    take(
        "shutdown_timeout",
        Duration::ZERO..=HOUR,
        &mut plan.shutdown_timeout,
    );
    take(
        "stats_interval",
        100 * MOMENT..=DAY,
        &mut plan.stats_interval,
    );
    take(
        "drain_timeout",
        Duration::ZERO..=HOUR,
        &mut plan.drain_timeout,
    );
    take(
        "unhealthy_after",
        100 * MOMENT..=DAY,
        &mut plan.unhealthy_after,
    );
    take(
        "discover_interval",
        10 * MOMENT..=HOUR,
        &mut plan.discover_interval,
    );
}

fn lower_tail_options(root: &Object, options: &mut tail::Options, report: &mut Report) {
    let least = root.duration("poll_interval_min", MOMENT..=MINUTE, report);
    let most = root.duration("poll_interval_max", MOMENT..=MINUTE, report);
    let (default_least, default_most) = (options.poll_interval_min, options.poll_interval_max);
    match (least, most) {
        (Some(least), Some(most)) if least > most => {
            let problem = format!(
                "{} is more than poll_interval_max ({}): lower it, or raise that",
                show_duration(least),
                show_duration(most)
            );
            report.wrong(root.spot("poll_interval_min"), "poll_interval_min", problem);
        }
        _ => {}
    }
    // One alone moves the other's default along.
    options.poll_interval_min = least.unwrap_or(default_least.min(most.unwrap_or(default_most)));
    options.poll_interval_max = most.unwrap_or(default_most.max(options.poll_interval_min));
    if let Some(idle_after) = root.duration("idle_after", 10 * MOMENT..=DAY, report) {
        options.idle_after = idle_after;
    }
    if let Some(max) = root.number("open_generations_max", 1..=10_000, report) {
        options.open_generations_max = max;
    }
    options.open_files_max = root.number("open_files_max", 1..=10_000_000, report);
    if let Some(max) = root.size("held_deleted_bytes_max", HELD_DELETED_BYTES, report) {
        options.held_deleted_bytes_max = max as u64;
    }
}

fn admin_listen(admin: &Object, report: &mut Report) -> Option<SocketAddr> {
    let found = admin.text("listen", report)?;
    let Ok(address) = found.value.parse::<SocketAddr>() else {
        let problem = "must be IP:PORT, like \"127.0.0.1:9598\" (host names are not taken)";
        report.wrong(found.at, &found.key, problem);
        return None;
    };
    let found = found.map(|_| address);
    if !found.value.ip().is_loopback() {
        let problem = format!(
            "{} is not loopback: whoever reaches it can read paths, topics and figures, without a password",
            found.value
        );
        report.warn(found.at, &found.key, problem);
    }
    Some(found.value)
}

/// The files that a config names, and where relative ones are.
struct Files<'a> {
    directory: &'a Path,
    secrets: Secrets,
}

/// Where secrets stand.
#[derive(Debug, Default)]
struct Secrets {
    /// In files of their own.
    files: Vec<Found<PathBuf>>,
    /// In the config itself.
    inline: Vec<Found<()>>,
}

impl Files<'_> {
    /// A file that must be there and readable.
    fn readable(&mut self, object: &Object, name: &str, report: &mut Report) -> Option<PathBuf> {
        let found = object.path(name, self.directory, report)?;
        match small::open(&found.value) {
            Ok(_) => Some(found.value),
            Err(error) => {
                let written = found.value.strip_prefix(self.directory);
                let problem = match written {
                    Ok(path) if path.starts_with("~") => NO_HOME.to_owned(),
                    _ => cannot_read(&found.value, &error),
                };
                report.wrong(found.at, &found.key, problem);
                None
            }
        }
    }

    /// A file that must be there, and should be readable by its owner only.
    fn private(&mut self, object: &Object, name: &str, report: &mut Report) -> Option<PathBuf> {
        let path = self.readable(object, name, report)?;
        self.secrets.files.push(Found {
            value: path.clone(),
            at: object.spot(name),
            key: object.path_of(name),
        });
        Some(path)
    }

    /// A password, written here or in a file of its own.
    fn password(&mut self, object: &Object, report: &mut Report) -> Option<String> {
        let inline = object.secret("password", report);
        let file = self.private(object, "password_file", report);
        if object.has("password") && object.has("password_file") {
            let problem = "stands beside password: keep one of them";
            report.wrong(
                object.spot("password_file"),
                &object.path_of("password_file"),
                problem,
            );
        }
        if let Some(found) = inline {
            if found.value.1 {
                self.secrets.inline.push(Found {
                    value: (),
                    at: found.at,
                    key: found.key,
                });
            }
            return Some(found.value.0);
        }
        let read = read_secret(&file?);
        let (at, key) = (
            object.spot("password_file"),
            object.path_of("password_file"),
        );
        match read {
            Ok((secret, doubt)) => {
                if let Some(doubt) = doubt {
                    report.warn(at, &key, doubt);
                }
                Some(secret)
            }
            Err(problem) => {
                report.wrong(at, &key, problem);
                None
            }
        }
    }
}

impl Secrets {
    fn warn_of_open_files(&self, config: &Path, report: &mut Report) {
        for found in &self.files {
            if let Some(problem) = open_to_all(&found.value) {
                report.warn(found.at, &found.key, problem);
            }
        }
        if !self.inline.is_empty() && is_open(config) {
            let path = shown(config);
            for found in &self.inline {
                let problem = format!(
                    "everybody on this host can read it here: chmod 600 '{path}', or use password_file"
                );
                report.warn(found.at, &found.key, problem);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{KEYS, Key};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    const EXAMPLE: &str = include_str!("../../../examples/logship.yaml");

    fn around() -> Surroundings {
        Surroundings {
            directory: "/here".into(),
            state_base: Some("/state".into()),
            host: "h".into(),
        }
    }

    fn read(name: &str, text: &str) -> Result<FileConfig, Vec<Mistake>> {
        read_config(text.as_bytes(), Path::new(name), &around())
    }

    /// A config in which these keys of the table have these values.
    fn config(values: &[(&str, Value)]) -> String {
        let mut root = json!({});
        for (path, value) in values {
            let mut at = &mut root;
            for part in path.split('.') {
                at = match part.strip_suffix("[]") {
                    Some(name) => {
                        let list = &mut at[name];
                        if list.is_null() {
                            *list = json!([{}]);
                        }
                        &mut list[0]
                    }
                    None => &mut at[part],
                };
            }
            *at = value.clone();
        }
        root.to_string()
    }

    fn example_of(key: &Key) -> Value {
        serde_json::from_str(key.example).unwrap()
    }

    fn is_refused_as_such(key: &Key) -> bool {
        key.path.starts_with("kafka.tls") || key.path.starts_with("kafka.sasl")
    }

    /// What nobody reads is not refused either.
    #[test]
    fn every_key_of_the_table_is_read() {
        for key in KEYS {
            let mistakes = read("c.json", &config(&[(key.path, json!([[]]))])).unwrap_err();
            let path = key.path.replace("[]", "[0]");
            let told = mistakes
                .iter()
                .any(|mistake| mistake.key.starts_with(&path));
            assert!(told, "{path} is not read:\n{mistakes:?}");
        }
    }

    #[test]
    fn the_defaults_of_the_table_are_those_that_hold() {
        let required = [
            ("sources[].path", json!("/a")),
            ("sources[].topic", json!("t")),
            ("kafka.brokers", json!(["a:1"])),
            ("etcd.endpoints", json!(["http://a:1"])),
            ("etcd.keys", json!(["/k"])),
            ("state_dir", json!("/s")),
        ];
        let plain = read("c.json", &config(&required)).unwrap();
        for key in KEYS.iter().filter(|key| !is_refused_as_such(key)) {
            let Ok(value) = serde_json::from_str(key.default) else {
                continue;
            };
            if value == json!({}) {
                continue; // It would take away what is required in it.
            }
            let mut values = required.to_vec();
            values.push((key.path, value));
            let said = read("c.json", &config(&values)).unwrap();
            assert_eq!(essence(&said), essence(&plain), "{}", key.path);
        }
    }

    /// All that a config says, without where it says it.
    fn essence(config: &FileConfig) -> String {
        let plan = &config.plan;
        let sources = plan.sources.iter();
        let jobs: Vec<_> = sources
            .map(|source| (&source.job, source.exclude.len()))
            .collect();
        let rest = Plan {
            sources: Vec::new(),
            ..plan.clone()
        };
        let remote = config.etcd.as_ref();
        let remote = remote.map(|remote| (&remote.options, &remote.keys));
        format!("{jobs:?} {rest:?} {remote:?}")
    }

    #[test]
    fn the_examples_of_the_table_are_good_values() {
        for key in KEYS {
            let mistakes = match read("c.json", &config(&[(key.path, example_of(key))])) {
                Ok(_) => continue,
                Err(mistakes) => mistakes,
            };
            let path = key.path.replace("[]", "[0]");
            let wrong: Vec<&Mistake> = mistakes
                .iter()
                .filter(|mistake| mistake.key.starts_with(&path))
                .filter(|mistake| {
                    ![
                        "is missing",
                        "cannot read",
                        "needs",
                        "supported",
                        "password_file",
                        "is not set",
                        "has no levels",
                    ]
                    .iter()
                    .any(|fine| mistake.problem.contains(fine))
                })
                .collect();
            assert!(wrong.is_empty(), "{path}: {wrong:?}");
        }
    }

    #[test]
    fn the_example_has_every_key() {
        // What is commented out without a space after the sign is a key too.
        let uncommented: String = EXAMPLE
            .lines()
            .map(|line| {
                let indent = line.len() - line.trim_start().len();
                match line.trim_start().strip_prefix('#') {
                    Some(rest)
                        if rest.starts_with(|c: char| c.is_alphabetic())
                            || rest.starts_with("  ") && !line.starts_with("#  ") =>
                    {
                        format!("{}{rest}\n", &line[..indent])
                    }
                    _ => format!("{line}\n"),
                }
            })
            .collect();
        let root = document::parse(uncommented.as_bytes(), Syntax::Yaml)
            .unwrap()
            .0;
        let mut found = BTreeSet::new();
        paths(&root.content, "", &mut found);
        let known: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
        let missing: Vec<_> = known.difference(&found).collect();
        assert!(
            missing.is_empty(),
            "examples/logship.yaml lacks {missing:?}"
        );
    }

    fn paths(content: &Content, at: &str, found: &mut BTreeSet<String>) {
        match content {
            Content::Object(entries) => {
                for entry in entries {
                    let path =
                        format!("{at}{}{}", if at.is_empty() { "" } else { "." }, entry.name);
                    paths(&entry.value.content, &path, found);
                    found.insert(path);
                }
            }
            Content::List(items) => {
                for item in items {
                    paths(&item.content, &format!("{at}[]"), found);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn a_relative_path_is_taken_from_the_directory_of_the_config() {
        let text = r#"{"state_dir": "s", "sources": [{"path": "a/*.log", "topic": "t"}]}"#;
        let config = read("etc/c.json", text).unwrap();
        assert_eq!(config.plan.state_dir, Some("/here/etc/s".into()));
        assert!(config.plan.sources[0].wants(Path::new("/here/etc/a/x.log")));
    }

    #[test]
    fn state_is_kept_by_default_only_for_kafka() {
        let source = ("sources[].path", json!("/a"));
        let topic = ("sources[].topic", json!("t"));
        let stdout = read("c.json", &config(&[source.clone(), topic.clone()])).unwrap();
        assert_eq!(
            (stdout.plan.state_dir, stdout.plan.pool.sink),
            (None, Sink::Stdout)
        );
        let kafka = config(&[source, topic, ("kafka.brokers", json!(["a:1"]))]);
        assert_eq!(
            read("c.json", &kafka).unwrap().plan.state_dir,
            Some("/state".into())
        );
        let homeless = Surroundings {
            state_base: None,
            ..around()
        };
        let mistakes = read_config(kafka.as_bytes(), Path::new("c.json"), &homeless).unwrap_err();
        assert_eq!(mistakes[0].key, "state_dir");
    }

    fn remote(extra: &str) -> FileConfig {
        let text = format!(
            r#"{{"etcd": {{"endpoints": ["http://a:1"], "keys": ["/{{host}}/{{ip}}"]{extra}}}, "agent": {{"ip": "1.2.3.4"}}}}"#
        );
        read("c.json", &text).unwrap()
    }

    #[test]
    fn the_keys_of_etcd_are_filled_in() {
        assert_eq!(remote("").etcd.unwrap().keys, ["/h/1.2.3.4"]);
    }

    #[test]
    fn a_value_of_etcd_is_sources_with_its_own_rules() {
        let config = remote(r#", "allowed_paths": ["/var/log/**"]"#);
        let value = br#"[{"path": "/var/log/a.log", "topic": "a", "colour": 1}]"#;
        let (sources, warnings) = read_value("/k", value, &config).unwrap();
        assert!(sources[0].remote && sources[0].origin.starts_with("/k:1:2"));
        assert_eq!(
            warnings[0].to_string(),
            "/k:1:43: [0].colour: unknown key: remove it (known here: path, exclude, topic, format, key, partition, labels, headers, read_from, when_full, line_bytes_max, skip_empty)"
        );
        for (value, problem) in [
            ("", "/k:1:1: is empty: the least is [], which tails nothing"),
            ("{}", "/k:1:1: must be the JSON array"),
            (
                "[{\"path\": \"a.log\", \"topic\": \"a\"}]",
                "/k:1:11: [0].path: 'a.log' must be absolute in etcd",
            ),
            (
                "[{\"path\": \"/srv/a\", \"topic\": \"a\"}]",
                "/k:1:11: [0].path: '/srv/a' is outside of etcd.allowed_paths",
            ),
            (
                "[{\"path\": \"/var/log/../lib/a\", \"topic\": \"a\"}]",
                "/k:1:11: [0].path: '/var/log/../lib/a' leads upwards",
            ),
            (
                "[{\"path\": \"/var/log/${HOME}\", \"topic\": \"a\"}]",
                "/k:1:11: [0].path: variables are not filled in in etcd",
            ),
            (
                "[{\"path\": \"/var/log/a\", \"topic\": \"a\"}, {\"path\": \"/var/log/b\"}]",
                "/k:1:40: [1].topic: is missing",
            ),
        ] {
            let said = read_value("/k", value.as_bytes(), &config).unwrap_err()[0].to_string();
            assert!(said.starts_with(problem), "{value}\n{said}");
        }
    }

    #[test]
    fn what_holds_secrets_is_out_of_reach_for_etcd() {
        let config = remote("");
        let value = br#"[{"path": "/here/c.json", "topic": "a"}]"#;
        assert!(read_value("/k", value, &config).is_err());
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = remote(r#", "username": "u", "password": "hunter2""#);
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    /// Whatever a slip of the hand makes of a config, it is told and no panic.
    #[test]
    fn mutations_of_a_good_config_never_panic() {
        let json = include_str!("../../../examples/logship.json");
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for (name, text) in [("c.json", json), ("c.yaml", EXAMPLE)] {
            for _ in 0..1_000 {
                let mut bytes = text.as_bytes().to_vec();
                for _ in 0..=next(4) {
                    let (at, to) = (next(bytes.len()), next(bytes.len()));
                    match next(5) {
                        0 => bytes[at] = next(256) as u8,
                        1 => drop(bytes.remove(at)),
                        2 => bytes.insert(at, b"{}[]:,\"'&*-# \n\t!|>%@`"[next(21)]),
                        3 => bytes.truncate(at.max(1)),
                        _ => bytes.swap(at, to),
                    }
                }
                let _ = read_config(&bytes, Path::new(name), &around());
            }
        }
    }
}
