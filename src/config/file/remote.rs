//! The key `etcd`: where other sources come from, and what they may read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use crate::kafka::Secret;
use crate::tail::{Fence, Pattern};

use super::super::Surroundings;
use super::super::etcd::{Endpoint, Options, Tls};
use super::super::keys;
use super::super::object::{Found, Object, Report, shorten};
use super::super::pem;
use super::sources::other_name;
use super::{Files, HOUR, MOMENT, kafka};

const VALUE_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=16 << 20;
/// Keys that are followed, at most.
const KEYS_MAX: usize = 100;

/// Sources that stand in etcd.
#[derive(Debug, Clone)]
pub struct Remote {
    /// How etcd is reached.
    pub options: Options,
    /// The keys, filled in; one that ends with a slash means all below it.
    pub keys: Vec<String>,
    /// What their sources may read.
    pub fence: Arc<Fence>,
    /// `agent.ip`: what {ip} stands for, if not for the default route's address.
    pub ip: Option<IpAddr>,
}

pub fn lower(
    root: &Object,
    files: &mut Files,
    state_dir: Option<&Path>,
    config: &Path,
    around: &Surroundings,
    report: &mut Report,
) -> Option<Remote> {
    let agent = root.object("agent", report);
    let ip = agent.and_then(|agent| agent.parsed::<IpAddr>("ip", report));
    let ip = ip.map(|ip| ip.value);
    let etcd = root.object("etcd", report)?;
    let mut options = Options::new(endpoints(&etcd, report));
    if let Some(interval) = etcd.duration("poll_interval", 100 * MOMENT..=HOUR, report) {
        options.poll_interval = interval;
    }
    if let Some(bytes) = etcd.size("value_bytes_max", VALUE_BYTES, report) {
        options.value_bytes_max = bytes;
    }
    lower_login(&etcd, &mut options, files, report);
    if let Some(tls) = etcd.object("tls", report) {
        options.tls = Some(lower_tls(&tls, &options, files, report));
    }
    Some(Remote {
        options,
        keys: keys(&etcd, &around.host, ip, report),
        fence: Arc::new(fence(&etcd, files, state_dir, config, report)),
        ip,
    })
}

fn endpoints(etcd: &Object, report: &mut Report) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for found in required_texts(etcd, "endpoints", report) {
        match found.value.parse::<Endpoint>() {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(error) => report.wrong(found.at, &found.key, error.to_string()),
        }
    }
    endpoints
}

fn required_texts(etcd: &Object, name: &str, report: &mut Report) -> Vec<Found<String>> {
    if !etcd.has(name) {
        etcd.missing(name, report);
    } else if etcd.is_empty_list(name) {
        let example = keys::find(&format!("etcd.{name}")).map_or("", |key| key.example);
        let problem = format!("is empty: give at least one, like {example}");
        report.wrong(etcd.spot(name), &etcd.path_of(name), problem);
    }
    etcd.texts(name, report).unwrap_or_default()
}

fn lower_login(etcd: &Object, options: &mut Options, files: &mut Files, report: &mut Report) {
    options.username = etcd.text("username", report).map(|found| found.value);
    options.password = files.password(etcd, report).map(Secret::new);
    let passwords = ["password", "password_file"];
    let given = passwords.into_iter().find(|name| etcd.has(name));
    match (etcd.has("username"), given) {
        (true, None) => {
            let problem = "needs password_file, or password, beside it";
            report.wrong(etcd.spot("username"), &etcd.path_of("username"), problem);
        }
        (false, Some(name)) => {
            report.wrong(
                etcd.spot(name),
                &etcd.path_of(name),
                "needs username beside it",
            );
        }
        _ => {}
    }
    let local = |endpoint: &&Endpoint| {
        let ip = endpoint.host().parse::<IpAddr>();
        endpoint.host() == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    };
    let clear = options
        .endpoints
        .iter()
        .find(|endpoint| !endpoint.is_tls() && !local(endpoint));
    if let (Some(endpoint), Some(name)) = (clear, given) {
        let problem = format!("goes over the network in the clear to {endpoint}: use https");
        report.warn(etcd.spot(name), &etcd.path_of(name), problem);
    }
}

fn lower_tls(tls: &Object, options: &Options, files: &mut Files, report: &mut Report) -> Tls {
    kafka::check_pair(tls, report);
    let all = &options.endpoints;
    if !all.is_empty() && !all.iter().any(Endpoint::is_tls) {
        report.wrong(
            tls.at,
            &tls.key,
            "is for https, and all endpoints begin with http: change the endpoints, or remove it",
        );
    }
    let ca_file = files.readable(tls, "ca_file", report);
    // That none of them can be used is told where it is tried.
    if let Some(Ok((_, left_away))) = ca_file.as_deref().map(|file| pem::trusted(Some(file))) {
        for problem in left_away {
            let problem = format!("{problem} (it is left away)");
            report.warn(tls.spot("ca_file"), &tls.path_of("ca_file"), problem);
        }
    }
    Tls {
        ca_file,
        cert_file: files.readable(tls, "cert_file", report),
        key_file: files.private(tls, "key_file", report),
    }
}

fn fence(
    etcd: &Object,
    files: &Files,
    state_dir: Option<&Path>,
    config: &Path,
    report: &mut Report,
) -> Fence {
    let allowed = patterns(etcd, "allowed_paths", files, report);
    let mut denied = patterns(etcd, "denied_paths", files, report);
    let secrets = files
        .secrets
        .files
        .iter()
        .map(|found| found.value.as_path());
    for path in state_dir.into_iter().chain(secrets).chain([config]) {
        denied.extend(literal(path));
    }
    if etcd.is_empty_list("allowed_paths") {
        let problem =
            "is empty, so that no source could be read: give patterns, or leave the key out";
        report.wrong(
            etcd.spot("allowed_paths"),
            &etcd.path_of("allowed_paths"),
            problem,
        );
    } else if !etcd.has("allowed_paths") {
        let problem = "is not set: whoever writes to etcd can have almost any file read that logship can read (set it, like [\"/var/log/**\"])";
        report.warn(etcd.at, &etcd.path_of("allowed_paths"), problem);
    }
    Fence::new(allowed, denied)
}

/// A pattern for exactly this path, and what is below it.
fn literal(path: &Path) -> Option<Pattern> {
    let resolved = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let text = resolved.to_str()?;
    let escaped: String = text
        .chars()
        .flat_map(|c| {
            if "*?[]{}\\".contains(c) {
                vec!['\\', c]
            } else {
                vec![c]
            }
        })
        .collect();
    Pattern::new(&escaped, Path::new("/")).ok()
}

fn patterns(etcd: &Object, name: &str, files: &Files, report: &mut Report) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for found in etcd.texts(name, report).unwrap_or_default() {
        let text = found.value.trim_end_matches('/');
        let text = if text.is_empty() { "/**" } else { text };
        if Path::new(text)
            .components()
            .any(|part| part == std::path::Component::ParentDir)
        {
            report.wrong(
                found.at,
                &found.key,
                format!(
                    "'{}' leads upwards with '..': write the path without it",
                    shorten(text)
                ),
            );
            continue;
        }
        match Pattern::new(text, files.directory) {
            Ok(pattern) => patterns.push(pattern),
            Err(problem) => report.wrong(
                found.at,
                &found.key,
                format!("'{}' is not a pattern: {problem}", shorten(text)),
            ),
        }
    }
    patterns
}

fn keys(etcd: &Object, host: &str, ip: Option<IpAddr>, report: &mut Report) -> Vec<String> {
    let texts = required_texts(etcd, "keys", report);
    if texts.len() > KEYS_MAX {
        report.wrong(etcd.spot("keys"), &etcd.path_of("keys"), format!("there are more than {KEYS_MAX}: put the values below one key that ends with a slash"));
    }
    let mut keys = Vec::new();
    for found in texts {
        match fill_in(&found.value, host, ip) {
            Ok(key) => keys.push(key),
            Err(problem) => report.wrong(found.at, &found.key, problem),
        }
    }
    keys
}

/// A key with {host} and {ip} filled in; without an `ip` with the address of the
/// default route's interface.
///
/// # Errors
/// What is wrong, for whoever wrote the key.
pub fn fill_in(key: &str, host: &str, ip: Option<IpAddr>) -> Result<String, String> {
    if let Some(name) = other_name(key, &["{host}", "{ip}"]) {
        return Err(format!("'{name}' is not known: {{host}} and {{ip}} are"));
    }
    let key = key.replace("{host}", host);
    if !key.contains("{ip}") {
        return Ok(key);
    }
    let ip = ip.or_else(default_ip).ok_or(
        "no address of this host for {ip}, because there is no default route: set agent.ip",
    )?;
    Ok(key.replace("{ip}", &ip.to_string()))
}

/// The address of the default route's interface. Connecting a UDP socket chooses
/// it, and sends nothing; the addresses are those for documentation (RFC 5737,
/// RFC 3849).
fn default_ip() -> Option<IpAddr> {
    let far = |from: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect(SocketAddr::new(to, 9)).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
    };
    let v4 = || {
        far(
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        )
    };
    let v6 = || {
        far(
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        )
    };
    v4().or_else(v6)
}
