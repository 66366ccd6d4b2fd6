//! Lowers the arguments of `logship tail` to a plan.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use twox_hash::XxHash3_64;

use crate::kafka::{self, Address, Compression, Kind};
use crate::record::{Format, KeyTemplate, Partitioning, Shape};
use crate::tail::{self, Job, Pattern, ReadFrom, Source, WhenFull};

use super::file::level_problem;
use super::legacy::{self, Lacking};
use super::renew::SinkRead;
use super::security::{self, Said, SecurityRequest, Setting};
use super::{Mistake, Plan, Sink, defaults};

/// The longest name of a state directory, well below what file systems take.
const NAME_BYTES_MAX: usize = 200;

/// What was typed, parsed but not yet put together.
#[derive(Debug, Clone)]
pub struct TailRequest {
    /// The PATHs; `-` is standard input.
    pub paths: Vec<PathBuf>,
    /// `--topic`
    pub topic: String,
    /// `--brokers`; none: standard output.
    pub brokers: Option<String>,
    /// `--security-protocol`, `--tls-...` and `--sasl-...`
    pub security: SecurityRequest,
    /// `--once`
    pub once: bool,
    /// `--from`
    pub read_from: Option<ReadFrom>,
    /// `--format`
    pub format: Format,
    /// `--key`
    pub key: Option<String>,
    /// `--headers`
    pub headers: bool,
    /// `--partition`
    pub partitioning: Partitioning,
    /// `--client`
    pub client: Kind,
    /// `--compression`
    pub compression: Option<Compression>,
    /// `--compression-level`
    pub compression_level: Option<i32>,
    /// `--when-full`
    pub when_full: WhenFull,
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--name`
    pub name: Option<String>,
    /// `--no-state`
    pub no_state: bool,
    /// `--shutdown-timeout`
    pub shutdown_timeout: Duration,
    /// `--stats-interval`
    pub stats_interval: Duration,
    /// `--timeout`
    pub timeout: Option<Duration>,
}

/// What the lowering needs to know of the process's surroundings.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The current directory.
    pub directory: PathBuf,
    /// Where state is kept by default; `None` when there is no such place.
    pub state_base: Option<PathBuf>,
    /// This host's name.
    pub host: Arc<str>,
}

/// Puts a plan together, with what had better be looked at, or says everything that is
/// wrong.
///
/// # Errors
/// All mistakes at once.
pub fn lower_tail(
    request: &TailRequest,
    around: &Surroundings,
) -> Result<(Plan, Vec<Mistake>), Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut wrong = |key: &str, problem: String| {
        mistakes.push(Mistake {
            place: None,
            key: key.to_owned(),
            problem,
        });
    };
    let inputs = lower_inputs(&request.paths, around, &mut wrong);
    if let Err(problem) = kafka::check_topic_name(&request.topic) {
        wrong("--topic", problem);
    }
    let (sink, problems) = match lower_sink(
        request.brokers.as_deref(),
        request.client,
        &request.security,
    ) {
        Ok(lowered) => (Some(lowered), Vec::new()),
        Err(problems) => (None, problems),
    };
    for problem in problems {
        wrong(&problem.key, problem.problem);
    }
    let is_legacy = request.client == Kind::Legacy && request.brokers.is_some();
    let compression = request.compression.unwrap_or(match is_legacy {
        true => legacy::COMPRESSION,
        false => Compression::default(),
    });
    if is_legacy {
        lower_to_legacy(request, &mut wrong);
    } else if let Some(level) = request.compression_level
        && let Some(problem) = level_problem(compression, level)
    {
        wrong("--compression-level", problem);
    }
    if let Some(name) = &request.name
        && let Some(problem) = name_problem(name)
    {
        wrong("--name", problem);
    }
    let state_dir = lower_state_dir(request, around, &mut wrong);
    let (Some((sink, warnings)), true) = (sink, mistakes.is_empty()) else {
        return Err(mistakes);
    };
    let default_from = if request.once {
        ReadFrom::Beginning
    } else {
        ReadFrom::End
    };
    let job = Arc::new(Job {
        topic: request.topic.as_str().into(),
        read_from: request.read_from.unwrap_or(default_from),
        when_full: request.when_full,
        shape: Arc::new(Shape {
            format: request.format,
            key: request.key.clone().map(KeyTemplate),
            partitioning: request.partitioning,
            labels: BTreeMap::new(),
            headers: request.headers && matches!(sink, Sink::Kafka(_)),
            line_bytes_max: defaults::line_bytes_max(&sink, request.headers),
            skip_empty: false,
        }),
        fence: None,
    });
    let mut plan = Plan {
        tail: tail::Options {
            once: request.once,
            ..tail::Options::default()
        },
        state_dir,
        stats_interval: request.stats_interval,
        shutdown_timeout: request.shutdown_timeout,
        timeout: request.timeout,
        ..defaults::plan(sink, Arc::clone(&around.host))
    };
    plan.pool.send.compression = compression;
    plan.pool.send.compression_level = request.compression_level;
    for input in inputs {
        let job = Arc::clone(&job);
        match input {
            Input::Stdin => plan.stdin = Some(job),
            Input::Path(path) => plan.named.push((path, job)),
            Input::Pattern(pattern) => plan.sources.push(Arc::new(Source::new(*pattern, job))),
        }
    }
    Ok((plan, warnings))
}

/// Tells what the legacy client lacks of what was asked for.
fn lower_to_legacy(request: &TailRequest, wrong: &mut impl FnMut(&str, String)) {
    let security = &request.security;
    let asked = legacy::Asked {
        compression: request.compression,
        level: request.compression_level.is_some(),
        tls: security.tls.is_some() || security.protocol.is_some_and(|protocol| protocol.tls),
        sasl: security.sasl.is_some() || security.protocol.is_some_and(|protocol| protocol.sasl),
    };
    for (lacking, problem) in legacy::refusals(&asked) {
        let option = match lacking {
            Lacking::Compression => "--compression",
            Lacking::Level => "--compression-level",
            Lacking::Tls => match &security.tls {
                None => Setting::Protocol.option(),
                Some(files) if files.ca_file.is_some() => Setting::CaFile.option(),
                Some(files) if files.cert_file.is_some() => Setting::CertFile.option(),
                Some(files) if files.key_file.is_some() => Setting::KeyFile.option(),
                Some(_) => Setting::Insecure.option(),
            },
            Lacking::Sasl if security.sasl.is_none() => Setting::Protocol.option(),
            Lacking::Sasl => Setting::Sasl.option(),
        };
        wrong(option, problem.to_owned());
    }
    if request.headers {
        let problem =
            "are not known to brokers before Kafka 0.11: leave them away, or --client legacy";
        wrong("--headers", problem.to_owned());
    }
}

/// Where lines go, as the files of TLS and the login say it now, with what had better be
/// looked at.
///
/// # Errors
/// All mistakes at once.
pub fn lower_sink(brokers: Option<&str>, client: Kind, security: &SecurityRequest) -> SinkRead {
    let Some(brokers) = brokers else {
        let warning = Mistake {
            place: None,
            key: "--brokers".to_owned(),
            problem: "is not given, so that what is said of TLS and the login has no effect"
                .to_owned(),
        };
        let said = *security != SecurityRequest::default();
        return Ok((Sink::Stdout, said.then_some(warning).into_iter().collect()));
    };
    let (mut addresses, mut mistakes) = (Vec::new(), Vec::new());
    for broker in Address::split(brokers) {
        match broker.parse() {
            Ok(address) => addresses.push(address),
            Err(error) => mistakes.push(Mistake {
                place: None,
                key: "--brokers".to_owned(),
                problem: format!("{error}"),
            }),
        }
    }
    let mut options = kafka::Options::new(addresses);
    options.client = client;
    let warnings = security::lower(security, Said::Typed, &mut options);
    let warnings = warnings.unwrap_or_else(|problems| {
        mistakes.extend(problems.into_iter().map(typed));
        Vec::new()
    });
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let warnings = warnings.into_iter().map(typed).collect();
    Ok((Sink::Kafka(Box::new(options)), warnings))
}

/// What is wrong with an option of security.
fn typed((setting, problem): security::Problem) -> Mistake {
    Mistake {
        place: None,
        key: setting.option().to_owned(),
        problem,
    }
}

/// One of the PATHs.
#[derive(Debug)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file, by its absolute path.
    Path(PathBuf),
    /// All files that match.
    Pattern(Box<Pattern>),
}

/// What PATHs mean, each once. `wrong` is told of those that mean nothing.
pub fn lower_inputs(
    paths: &[PathBuf],
    around: &Surroundings,
    wrong: &mut impl FnMut(&str, String),
) -> Vec<Input> {
    let mut inputs: Vec<Input> = Vec::new();
    for path in paths {
        let input = if path.as_os_str() == "-" {
            Input::Stdin
        } else if path.as_os_str().is_empty() {
            wrong("PATH", "'' is not a path".to_owned());
            continue;
        } else {
            match lower_path(path, &around.directory) {
                Ok(input) => input,
                Err(problem) => {
                    wrong("PATH", problem);
                    continue;
                }
            }
        };
        let twice = inputs.iter().any(|known| match (known, &input) {
            (Input::Stdin, Input::Stdin) => true,
            (Input::Path(a), Input::Path(b)) => a == b,
            (Input::Pattern(a), Input::Pattern(b)) => a.text() == b.text(),
            _ => false,
        });
        if !twice {
            inputs.push(input);
        }
    }
    inputs
}

/// An existing path is taken literally, whatever characters it holds.
fn lower_path(path: &Path, directory: &Path) -> Result<Input, String> {
    let exists = path.symlink_metadata().is_ok();
    match path.to_str() {
        Some(text) if !exists && Pattern::is_pattern(text) => Pattern::new(text, directory)
            .map(|pattern| Input::Pattern(Box::new(pattern)))
            .map_err(|problem| format!("'{}' is not a pattern: {problem}", text.escape_debug())),
        _ => Ok(Input::Path(plain(directory, path))),
    }
}

/// An absolute path without `.` and doubled slashes: one file, one spelling.
/// `..` and links are left alone, they may mean something.
fn plain(directory: &Path, path: &Path) -> PathBuf {
    directory.join(path).components().collect()
}

fn name_problem(name: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let good = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.chars().all(legal);
    (!good).then(|| {
        format!(
            "'{}' cannot name a directory: use a-z A-Z 0-9 . _ -, not beginning with a dot",
            name.escape_debug()
        )
    })
}

/// Where positions are kept: in a directory of this tail's own, below
/// `--state-dir` or the default place, so that different tails run side by side
/// and the same one twice is refused.
fn lower_state_dir(
    request: &TailRequest,
    around: &Surroundings,
    wrong: &mut impl FnMut(&str, String),
) -> Option<PathBuf> {
    let by_itself = request.brokers.is_some(); // standard output keeps no state
    if request.no_state || !(by_itself || request.state_dir.is_some()) {
        return None;
    }
    let given = request.state_dir.as_ref();
    let base = given
        .map(|given| around.directory.join(given))
        .or_else(|| around.state_base.clone());
    let Some(base) = base else {
        wrong(
            "--state-dir",
            "there is no default: neither HOME nor XDG_STATE_HOME is set (give a directory, or --no-state)"
                .to_owned(),
        );
        return None;
    };
    let name = request.name.clone();
    Some(base.join(name.unwrap_or_else(|| own_name(request, around))))
}

/// A name that the same topic and paths always give, and no others.
fn own_name(request: &TailRequest, around: &Surroundings) -> String {
    let mut paths: Vec<PathBuf> = request
        .paths
        .iter()
        .map(|path| plain(&around.directory, path))
        .collect();
    paths.sort();
    let mut bytes = Vec::new();
    for path in &paths {
        bytes.extend_from_slice(path.as_os_str().as_encoded_bytes());
        bytes.push(0);
    }
    let hash = XxHash3_64::oneshot(&bytes);
    let topic: String = request.topic.chars().take(NAME_BYTES_MAX / 2).collect();
    format!("{}-{hash:016x}", topic.trim_start_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(paths: &[&str]) -> TailRequest {
        TailRequest {
            paths: paths.iter().map(PathBuf::from).collect(),
            topic: "t".into(),
            brokers: Some("a:1,b:2".into()),
            security: SecurityRequest::default(),
            once: false,
            read_from: None,
            format: Format::Raw,
            key: None,
            headers: false,
            partitioning: Partitioning::File,
            client: Kind::Auto,
            compression: None,
            compression_level: None,
            when_full: WhenFull::Wait,
            state_dir: None,
            name: None,
            no_state: false,
            shutdown_timeout: Duration::from_secs(1),
            stats_interval: Duration::from_secs(1),
            timeout: None,
        }
    }

    fn around() -> Surroundings {
        Surroundings {
            directory: "/here".into(),
            state_base: Some("/state".into()),
            host: "h".into(),
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let wrong = TailRequest {
            topic: "no such/topic".into(),
            brokers: Some("localhost,b:99999".into()),
            name: Some("../up".into()),
            ..request(&["", "a[", "good"])
        };
        let keys: Vec<String> = lower_tail(&wrong, &around())
            .unwrap_err()
            .into_iter()
            .map(|mistake| mistake.key)
            .collect();
        assert_eq!(
            keys,
            [
                "PATH",
                "PATH",
                "--topic",
                "--brokers",
                "--brokers",
                "--name"
            ]
        );
    }

    #[test]
    fn the_legacy_client_has_its_own_codec_and_refuses_what_it_lacks_by_option() {
        let old = TailRequest {
            client: Kind::Legacy,
            ..request(&["a"])
        };
        let (plan, _) = lower_tail(&old, &around()).unwrap();
        assert_eq!(plan.pool.send.compression, Compression::Snappy);
        let Sink::Kafka(options) = &plan.pool.sink else {
            panic!("there are brokers");
        };
        assert_eq!(options.client, Kind::Legacy);
        let modern = lower_tail(&request(&["a"]), &around()).unwrap().0;
        assert_eq!(modern.pool.send.compression, Compression::Lz4);

        let wrong = TailRequest {
            compression: Some(Compression::Zstd),
            compression_level: Some(3),
            headers: true,
            security: SecurityRequest {
                tls: Some(security::TlsRequest {
                    insecure_skip_verify: true,
                    ..Default::default()
                }),
                sasl: Some(security::SaslRequest {
                    token_file: Some("/t".into()),
                    mechanism: Some(security::Mechanism::OauthBearer),
                    ..Default::default()
                }),
                protocol: None,
            },
            ..old
        };
        let refused = lower_tail(&wrong, &around()).unwrap_err();
        let keys: Vec<&str> = refused.iter().map(|mistake| &*mistake.key).collect();
        let expected = [
            "--compression",
            "--compression-level",
            "--tls-insecure-skip-verify",
            "--sasl-mechanism",
            "--headers",
        ];
        assert_eq!(keys, expected, "{refused:?}");
    }

    #[test]
    fn the_same_tail_has_the_same_state_directory_and_another_one_another() {
        let dir = |request: &TailRequest| lower_tail(request, &around()).unwrap().0.state_dir;
        let one = dir(&request(&["a", "/b"]));
        assert_eq!(one, dir(&request(&["/b", "/here/a"])));
        assert_eq!(one, dir(&request(&["./a", "//b/"])));
        assert_ne!(one, dir(&request(&["a"])));
        assert!(one.unwrap().starts_with("/state"));

        let named = TailRequest {
            name: Some("n".into()),
            ..request(&["a"])
        };
        assert_eq!(dir(&named), Some("/state/n".into()));
        let given = TailRequest {
            state_dir: Some("d".into()),
            ..request(&["a"])
        };
        assert!(dir(&given).unwrap().starts_with("/here/d"));
    }

    #[test]
    fn standard_output_keeps_state_only_when_asked() {
        let plain = TailRequest {
            brokers: None,
            security: SecurityRequest::default(),
            ..request(&["a"])
        };
        assert_eq!(lower_tail(&plain, &around()).unwrap().0.state_dir, None);
        let asked = TailRequest {
            state_dir: Some("/d".into()),
            ..plain
        };
        let dir = lower_tail(&asked, &around()).unwrap().0.state_dir;
        assert!(dir.unwrap().starts_with("/d"));
    }

    #[test]
    fn a_path_given_twice_is_one_source() {
        let plan = lower_tail(
            &request(&["a", "/here/a", "-", "-", "*.x", "*.x"]),
            &around(),
        );
        let (plan, _) = plan.unwrap();
        assert!(plan.stdin.is_some());
        assert_eq!((plan.named.len(), plan.sources.len()), (1, 1));
    }
}
