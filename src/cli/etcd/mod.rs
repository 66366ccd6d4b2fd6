//! `logship etcd`: reads, checks and writes the remote config.
//!
//! A value is judged by the code that `run` judges it with. Nothing is written
//! that a logship would refuse.

pub mod args;
mod changes;
mod put;

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::config::etcd::{Client, Endpoint, EtcdError, Options, Tls, Value};
use crate::config::{self, FileConfig, Surroundings};
use crate::exit::Exit;
use crate::kafka::Secret;
use crate::tail::Source;
use crate::text::shown;

use super::check::{shown_warning, survey};
use super::variables::variable;
use super::{complain, hint, load, refuse, surroundings};
use args::{CheckValueArgs, EtcdArgs, EtcdCommands, GetArgs, Reach};

/// Where etcd is, if neither --config nor --endpoints says it.
const ENDPOINTS: &str = "LOGSHIP_ETCD_ENDPOINTS";
/// Name of standard input, as an argument and in mistakes.
const STDIN: &str = "-";

/// Runs `logship etcd`.
pub fn run(args: &EtcdArgs) -> Exit {
    let done = match &args.command {
        EtcdCommands::Get(args) => get(args),
        EtcdCommands::Put(args) => put::run(args),
        EtcdCommands::Check(args) => check(args),
    };
    done.unwrap_or_else(|exit| exit)
}

fn get(args: &GetArgs) -> Result<Exit, Exit> {
    let place = Place::find(&args.key, &args.reach)?;
    let values = place.read()?;
    if values.is_empty() {
        return Err(place.nothing());
    }
    let text = match (args.json, place.is_prefix()) {
        (true, true) => line(&values.iter().map(as_json).collect()),
        (true, false) => line(&as_json(&values[0])),
        (false, true) => values.iter().flat_map(with_key).collect(),
        (false, false) => on_its_own(&values[0].bytes),
    };
    // Whoever hangs up early does not want the rest.
    let _ = io::stdout().write_all(&text);
    Ok(Exit::Settled)
}

fn line(document: &serde_json::Value) -> Vec<u8> {
    format!("{document}\n").into_bytes()
}

fn as_json(value: &Value) -> serde_json::Value {
    let (key, revision) = (&value.key, value.mod_revision);
    match std::str::from_utf8(&value.bytes) {
        Ok(text) => json!({"key": key, "mod_revision": revision, "value": text}),
        Err(_) => {
            let text = STANDARD.encode(&value.bytes);
            json!({"key": key, "mod_revision": revision, "value_base64": text})
        }
    }
}

/// A value as it is; on a terminal it disturbs nothing and ends its line.
fn on_its_own(bytes: &[u8]) -> Vec<u8> {
    if !io::stdout().is_terminal() {
        return bytes.to_vec();
    }
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| shown(line) + "\n");
    lines.collect::<String>().into_bytes()
}

/// A value below the line that names its key.
fn with_key(value: &Value) -> Vec<u8> {
    let name = format!("{} (revision {})\n", shown(&value.key), value.mod_revision);
    let mut bytes = [name.as_bytes(), &on_its_own(&value.bytes)].concat();
    if bytes.last() != Some(&b'\n') {
        bytes.push(b'\n');
    }
    bytes
}

fn check(args: &CheckValueArgs) -> Result<Exit, Exit> {
    let place = Place::find(&args.key, &args.reach)?;
    let values = if args.file.is_none() && io::stdin().is_terminal() {
        place.read()?
    } else {
        let bytes = place.value_in(args.file.as_deref())?;
        vec![named(args.file.as_deref(), bytes)]
    };
    if values.is_empty() {
        return Err(place.nothing());
    }
    let mut exit = Exit::Settled;
    for value in &values {
        match place.judge(&value.key, &value.bytes) {
            Ok(sources) => place.tell_plan(&value.key, &sources),
            Err(refused) => exit = refused,
        }
    }
    Ok(exit)
}

/// A value that is not in etcd has its file's name in mistakes.
fn named(file: Option<&Path>, bytes: Vec<u8>) -> Value {
    Value {
        key: file.map_or_else(|| STDIN.to_owned(), shown),
        mod_revision: 0,
        bytes,
    }
}

/// A key, how it is reached, and what its values may say.
struct Place {
    key: String,
    config: FileConfig,
    /// `None` when nothing says where etcd is.
    options: Option<Options>,
}

impl Place {
    fn find(key: &str, reach: &Reach) -> Result<Place, Exit> {
        let around = surroundings()?;
        let (config, options) = match &reach.config {
            Some(file) => reach_by_config(file, &around)?,
            None => (
                FileConfig::bare(Arc::clone(&around.host)),
                by_options(reach)?,
            ),
        };
        let ip = config.etcd.as_ref().and_then(|remote| remote.ip);
        let key = config::fill_in(key, &around.host, ip)
            .map_err(|problem| usage(&format!("KEY '{}': {problem}", shown(key)), ""))?;
        Ok(Place {
            key,
            config,
            options,
        })
    }

    fn is_prefix(&self) -> bool {
        self.key.ends_with('/')
    }

    fn client(&self) -> Result<Client, Exit> {
        let missing = || {
            let advice =
                format!("give --config FILE, or --endpoints http://HOST:2379, or set {ENDPOINTS}");
            usage("nothing says where etcd is", &advice)
        };
        self.options.clone().map(Client::new).ok_or_else(missing)
    }

    /// What is in etcd: the key's value, or all below it.
    fn read(&self) -> Result<Vec<Value>, Exit> {
        let mut client = self.client()?;
        let read = match self.is_prefix() {
            true => client.list(&self.key),
            false => client
                .get(&self.key)
                .map(|value| value.into_iter().collect()),
        };
        read.map_err(|error| failed(&error))
    }

    fn nothing(&self) -> Exit {
        let place = if self.is_prefix() { "below" } else { "under" };
        let key = shown(&self.key);
        complain(&format!("there is nothing in etcd {place} '{key}'"), None);
        Exit::CouldNotRun
    }

    /// The value that a file or standard input holds.
    fn value_in(&self, file: Option<&Path>) -> Result<Vec<u8>, Exit> {
        if self.is_prefix() {
            let problem = format!("'{}' stands for all keys below it", shown(&self.key));
            return Err(usage(&problem, "name the one key that the value is for"));
        }
        let path = file.filter(|path| path.as_os_str() != STDIN);
        let limit = self.bytes_max();
        let mut bytes = Vec::new();
        let read = match path {
            Some(path) => File::open(path).and_then(|file| bounded(file, limit, &mut bytes)),
            None => bounded(io::stdin(), limit, &mut bytes),
        };
        let name = path.map_or_else(
            || "standard input".to_owned(),
            |path| format!("'{}'", shown(path)),
        );
        read.map_err(|error| usage(&format!("cannot read {name}: {error}"), ""))?;
        if bytes.len() > limit {
            let problem = format!("{name} has over {limit} bytes, which a logship would refuse");
            return Err(usage(&problem, "spread the sources over several keys"));
        }
        Ok(bytes)
    }

    fn bytes_max(&self) -> usize {
        let options = self.options.clone();
        let options = options.unwrap_or_else(|| Options::new(Vec::new()));
        options.value_bytes_max
    }

    /// The sources of a value; its mistakes are told, and are the exit code.
    fn judge(&self, name: &str, bytes: &[u8]) -> Result<Vec<Arc<Source>>, Exit> {
        let judged = config::read_value(name, bytes, &self.config);
        let (sources, warnings) = judged.map_err(|mistakes| refuse(&mistakes, &shown(name)))?;
        for warning in &warnings {
            let _ = writeln!(io::stderr(), "{}", shown_warning(warning));
        }
        Ok(sources)
    }

    fn tell_plan(&self, name: &str, sources: &[Arc<Source>]) {
        let (plan, warnings) = survey(sources, self.config.line_bytes_max());
        let _ = write!(io::stdout(), "{} is good\n\n{plan}", shown(name));
        for warning in warnings {
            let _ = writeln!(io::stderr(), "{warning}");
        }
    }
}

fn reach_by_config(
    file: &Path,
    around: &Surroundings,
) -> Result<(FileConfig, Option<Options>), Exit> {
    let config = load(file, around)?;
    let Some(remote) = &config.etcd else {
        let problem = format!("{} has no section etcd", shown(file));
        return Err(usage(
            &problem,
            "say there where etcd is, or use --endpoints",
        ));
    };
    let options = remote.options.clone();
    Ok((config, Some(options)))
}

fn by_options(reach: &Reach) -> Result<Option<Options>, Exit> {
    let (texts, name) = if reach.endpoints.is_empty() {
        let text =
            variable(ENDPOINTS).map_err(|problem| usage(&format!("{ENDPOINTS}: {problem}"), ""))?;
        let Some(text) = text else {
            return Ok(None);
        };
        (text.split(',').map(str::to_owned).collect(), ENDPOINTS)
    } else {
        (reach.endpoints.clone(), "--endpoints")
    };
    let parse = |text: &String| text.trim().parse::<Endpoint>();
    let endpoints: Result<Vec<Endpoint>, _> = texts.iter().map(parse).collect();
    let endpoints = endpoints.map_err(|error| usage(&format!("{name}: {error}"), ""))?;
    let mut options = Options::new(endpoints);
    options.tls = tls(reach, &options.endpoints)?;
    if let (Some(user), Some(file)) = (&reach.user, &reach.password_file) {
        if user.contains(':') {
            let advice = "the password is read from --password-file: here everybody on this host would see it";
            return Err(usage("--user takes a name only", advice));
        }
        let (secret, doubt) = config::read_secret(file)
            .map_err(|problem| usage(&format!("--password-file: {problem}"), ""))?;
        warn("--password-file", doubt);
        warn("--password-file", config::open_to_all(file));
        options.username = Some(user.clone());
        options.password = Some(Secret::new(secret));
    }
    Ok(Some(options))
}

fn tls(reach: &Reach, endpoints: &[Endpoint]) -> Result<Option<Tls>, Exit> {
    let tls = Tls {
        ca_file: reach.cacert.clone(),
        cert_file: reach.cert.clone(),
        key_file: reach.key_file.clone(),
    };
    if tls == Tls::default() {
        return Ok(None);
    }
    if !endpoints.iter().any(Endpoint::is_tls) {
        let problem =
            "--cacert, --cert and --key are for https, and all endpoints begin with http:";
        return Err(usage(problem, "change the endpoints, or leave them out"));
    }
    warn(
        "--key",
        tls.key_file.as_deref().and_then(config::open_to_all),
    );
    Ok(Some(tls))
}

/// Reads one byte more than the limit at most.
fn bounded(from: impl Read, limit: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
    from.take(limit as u64 + 1).read_to_end(bytes).map(drop)
}

/// Tells what had better be looked at about an option, if anything.
fn warn(option: &str, problem: Option<String>) {
    if let Some(problem) = problem {
        let _ = writeln!(io::stderr(), "warning: {option}: {problem}");
    }
}

fn usage(problem: &str, advice: &str) -> Exit {
    complain(problem, None);
    if !advice.is_empty() {
        hint(advice);
    }
    Exit::Usage
}

/// etcd did not do it.
fn failed(error: &EtcdError) -> Exit {
    complain(&format!("etcd: {error}"), None);
    Exit::CouldNotRun
}
