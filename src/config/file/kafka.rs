//! The key `kafka`: which cluster, and how it is written to.

use std::time::Duration;

use crate::kafka::{Address, Compression, Kind, Options, Secret};

use super::super::Sink;
use super::super::document::{Content, Entry, Spot};
use super::super::legacy::{self, Lacking};
use super::super::object::{Found, Object, Report, shorten};
use super::super::security::{
    self, MECHANISMS, PROTOCOLS, Said, SaslRequest, SecurityRequest, Setting, TlsRequest,
};
use super::super::units::show_duration;
use super::{Files, HOUR, MINUTE, MOMENT};

/// Bytes of a request, and of all that are under way to a broker. Brokers take 100 MiB
/// (`socket.request.max.bytes`).
const REQUEST_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=100 << 20;
/// Largest batch that is made; beyond it a queue could not fill one.
const BATCH_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=64 << 20;
/// What a broker takes by default (`message.max.bytes`), for one batch.
const BROKER_BYTES_MAX: usize = 1_048_588;
/// Longest client id, the limit of names in Kafka.
const CLIENT_ID_BYTES_MAX: usize = 249;

const COMPRESSION: &[(&str, Compression)] = &[
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

const CLIENTS: &[(&str, Kind)] = &[
    ("auto", Kind::Auto),
    ("modern", Kind::Modern),
    ("legacy", Kind::Legacy),
];

/// What was said; what was not said is `None`.
pub struct Lowered {
    /// Where lines go.
    pub sink: Sink,
    /// Producer threads.
    pub producers: Option<usize>,
    /// Codec.
    pub compression: Option<Compression>,
    /// Level of the codec.
    pub compression_level: Option<i32>,
    /// How long a line waits for others.
    pub linger: Option<Duration>,
    /// Bytes of a batch before compression.
    pub batch_bytes_max: Option<usize>,
}

/// Without `kafka`, standard output.
pub fn lower(root: &Object, files: &mut Files, report: &mut Report) -> Lowered {
    let Some(kafka) = root.object("kafka", report) else {
        return Lowered {
            sink: Sink::Stdout,
            producers: None,
            compression: None,
            compression_level: None,
            linger: None,
            batch_bytes_max: None,
        };
    };
    let mut options = Options::new(brokers(&kafka, report));
    options.client = kafka.choice("client", CLIENTS, report).unwrap_or_default();
    if let Some(found) = kafka.text("client_id", report) {
        options.client_id = client_id(found, report);
    }
    if let Some(timeout) = kafka.duration("request_timeout", 100 * MOMENT..=HOUR, report) {
        options.request_timeout = timeout;
    }
    let timeouts = [
        ("connect_timeout", &mut options.connect_timeout),
        ("handshake_timeout", &mut options.handshake_timeout),
    ];
    for (name, timeout) in timeouts {
        if let Some(given) = kafka.duration(name, 10 * MOMENT..=10 * MINUTE, report) {
            *timeout = given;
        }
    }
    limits(&kafka, &mut options, report);
    kafka.choice("acks", &[("all", ())], report);
    secure(&kafka, &mut options, files, report);
    let compression = kafka.choice("compression", COMPRESSION, report);
    if options.client == Kind::Legacy {
        lower_to_legacy(&kafka, &options, compression, report);
    }
    let compression =
        compression.or((options.client == Kind::Legacy).then_some(legacy::COMPRESSION));
    Lowered {
        sink: Sink::Kafka(Box::new(options)),
        producers: kafka.number("producers", 1..=64, report),
        compression,
        compression_level: level(&kafka, compression.unwrap_or_default(), report),
        linger: kafka.duration("linger", Duration::ZERO..=MINUTE, report),
        batch_bytes_max: batch_bytes(&kafka, report),
    }
}

/// What is under way at most, and how patiently it is tried again.
fn limits(kafka: &Object, options: &mut Options, report: &mut Report) {
    if let Some(requests) = kafka.number("in_flight_requests", 1..=5, report) {
        options.in_flight_max = requests;
    }
    if let Some(bytes) = kafka.size("in_flight_bytes", REQUEST_BYTES, report) {
        options.in_flight_bytes_max = bytes;
    }
    if let Some(bytes) = kafka.size("request_bytes", REQUEST_BYTES, report) {
        options.request_bytes_max = bytes;
    }
    let (first, longest) = &mut options.backoff;
    for (name, pause) in [("retry_backoff", first), ("retry_backoff_max", longest)] {
        if let Some(given) = kafka.duration(name, 10 * MOMENT..=10 * MINUTE, report) {
            *pause = given;
        }
    }
    let (first, longest) = options.backoff;
    if first > longest {
        let problem = format!(
            "is more than retry_backoff_max, which is {}",
            show_duration(longest)
        );
        report.wrong(
            kafka.spot("retry_backoff"),
            &kafka.path_of("retry_backoff"),
            problem,
        );
    }
    if let Some(pause) = kafka.duration("refused_backoff", 100 * MOMENT..=HOUR, report) {
        options.refused_pause = pause;
    }
    if let Some(age) = kafka.duration("metadata_age_max", 1_000 * MOMENT..=24 * HOUR, report) {
        options.metadata_age_max = age;
    }
}

fn level(kafka: &Object, compression: Compression, report: &mut Report) -> Option<i32> {
    let level = kafka.number("compression_level", 1..=22, report)?;
    let level = i32::try_from(level).ok()?;
    if let Some(problem) = level_problem(compression, level) {
        let name = "compression_level";
        report.wrong(kafka.spot(name), &kafka.path_of(name), problem);
    }
    Some(level)
}

/// What is wrong with a level of a compression, if anything.
pub fn level_problem(compression: Compression, level: i32) -> Option<String> {
    match compression.levels() {
        Some(levels) if levels.contains(&level) => None,
        Some(levels) => Some(format!(
            "{level} is no level of {compression}: use {} to {}",
            levels.start(),
            levels.end()
        )),
        None => Some(format!(
            "{compression} has no levels: leave it away, or use gzip or zstd"
        )),
    }
}

/// Tells what the legacy client lacks of what was said.
fn lower_to_legacy(
    kafka: &Object,
    options: &Options,
    compression: Option<Compression>,
    report: &mut Report,
) {
    let asked = legacy::Asked {
        compression,
        level: kafka.has("compression_level"),
        tls: options.tls.is_some() || kafka.has("tls"),
        sasl: options.sasl.is_some() || kafka.has("sasl"),
    };
    for (lacking, problem) in legacy::refusals(&asked) {
        let key = match lacking {
            Lacking::Compression => "compression",
            Lacking::Level => "compression_level",
            Lacking::Tls if kafka.has("tls") => "tls",
            // Where TLS was only named, and means that of the system.
            Lacking::Tls => "security_protocol",
            Lacking::Sasl => "sasl",
        };
        report.wrong(kafka.spot(key), &kafka.path_of(key), problem);
    }
    for (key, problem) in legacy::without_effect(options) {
        report.warn(kafka.spot(key), &kafka.path_of(key), problem);
    }
}

fn brokers(kafka: &Object, report: &mut Report) -> Vec<Address> {
    if !kafka.has("brokers") {
        kafka.missing("brokers", report);
        return Vec::new();
    }
    let Some(texts) = kafka.texts_with("brokers", written_out, report) else {
        return Vec::new();
    };
    if kafka.is_empty_list("brokers") {
        let problem = "is empty: give at least one, like [\"kafka1:9092\"]";
        report.wrong(kafka.spot("brokers"), &kafka.path_of("brokers"), problem);
    }
    let mut brokers = Vec::new();
    for found in texts {
        for text in Address::split(&found.value) {
            match text.parse::<Address>() {
                Ok(address) => brokers.push(address),
                Err(error) => {
                    let problem = several(text).unwrap_or_else(|| error.to_string());
                    report.wrong(found.at, &found.key, problem);
                }
            }
        }
    }
    brokers
}

/// What to write instead of addresses with another sign than a comma between them.
fn several(text: &str) -> Option<String> {
    let pieces = text.split(|c: char| c == ';' || c.is_whitespace());
    let addresses: Result<Vec<Address>, _> = pieces
        .filter(|piece| !piece.is_empty())
        .map(str::parse)
        .collect();
    let addresses = addresses.ok().filter(|addresses| addresses.len() > 1)?;
    let quoted: Vec<String> = addresses
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    Some(format!(
        "separate brokers in the list: [{}]",
        quoted.join(", ")
    ))
}

/// What to write instead of a broker that is an object: `k1: 9092`, `host: k1`.
fn written_out(entries: &[Entry]) -> Option<String> {
    let scalar = |entry: &Entry| match &entry.value.content {
        Content::Text(text) | Content::Number(text) => Some(text.clone()),
        _ => None,
    };
    let named = |name: &str| entries.iter().find(|entry| entry.name == name);
    let (host, port) = match (named("host"), entries) {
        (Some(host), _) => (scalar(host)?, named("port").and_then(scalar)),
        (None, [entry]) => (entry.name.clone(), scalar(entry)),
        _ => return None,
    };
    let port = port.unwrap_or_else(|| "9092".to_owned());
    let address: Address = format!("{host}:{port}").parse().ok()?;
    Some(format!("write it as \"{address}\""))
}

fn client_id(found: Found<String>, report: &mut Report) -> String {
    let plain = found
        .value
        .chars()
        .all(|c| c.is_ascii_graphic() || c == ' ');
    if !plain || found.value.len() > CLIENT_ID_BYTES_MAX {
        let problem = format!(
            "'{}' is not a client id: use at most {CLIENT_ID_BYTES_MAX} letters, digits and signs of ASCII",
            shorten(&found.value)
        );
        report.wrong(found.at, &found.key, problem);
    }
    found.value
}

fn batch_bytes(kafka: &Object, report: &mut Report) -> Option<usize> {
    let bytes = kafka.size("batch_bytes", BATCH_BYTES, report)?;
    if bytes > BROKER_BYTES_MAX {
        let problem = format!(
            "is more than the {BROKER_BYTES_MAX} bytes that a broker takes by default: raise message.max.bytes of the brokers too"
        );
        report.warn(
            kafka.spot("batch_bytes"),
            &kafka.path_of("batch_bytes"),
            problem,
        );
    }
    Some(bytes)
}

/// TLS and the login.
fn secure(kafka: &Object, options: &mut Options, files: &mut Files, report: &mut Report) {
    let mistakes = report.mistakes.len();
    let request = SecurityRequest {
        protocol: kafka.choice_in_any_case("security_protocol", PROTOCOLS, report),
        tls: tls(kafka, files, report),
        sasl: sasl(kafka, files, report),
    };
    if report.mistakes.len() > mistakes {
        return; // what follows from them would only be told twice
    }
    let problems = match security::lower(&request, Said::InConfig, options) {
        Ok(warnings) => warnings,
        Err(problems) => {
            for (setting, problem) in problems {
                let (spot, key) = place_of(setting, kafka);
                report.wrong(spot, &key, problem);
            }
            return;
        }
    };
    for (setting, problem) in problems {
        let (spot, key) = place_of(setting, kafka);
        report.warn(spot, &key, problem);
    }
}

/// Where a setting stands, or should.
fn place_of(setting: Setting, kafka: &Object) -> (Spot, String) {
    let (object, name) = setting.key();
    let mut told_already = Report::new("".into(), false);
    let inner = object.and_then(|object| kafka.object(object, &mut told_already));
    let of = inner.as_ref().unwrap_or(kafka);
    (of.spot(name), of.path_of(name))
}

fn tls(kafka: &Object, files: &mut Files, report: &mut Report) -> Option<TlsRequest> {
    let tls = kafka.object("tls", report)?;
    check_pair(&tls, report);
    Some(TlsRequest {
        ca_file: files.readable(&tls, "ca_file", report),
        cert_file: files.readable(&tls, "cert_file", report),
        key_file: files.private(&tls, "key_file", report),
        insecure_skip_verify: tls.flag("insecure_skip_verify", report).unwrap_or(false),
    })
}

fn sasl(kafka: &Object, files: &mut Files, report: &mut Report) -> Option<SaslRequest> {
    let sasl = kafka.object("sasl", report)?;
    Some(SaslRequest {
        mechanism: sasl.choice_in_any_case("mechanism", MECHANISMS, report),
        username: sasl.text("username", report).map(|found| found.value),
        password: files.password(&sasl, report).map(Secret::new),
        token_file: files.private(&sasl, "token_file", report),
    })
}

/// A certificate without its key is of no use, and the other way round.
pub fn check_pair(tls: &Object, report: &mut Report) {
    for (one, other) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
        if tls.has(one) && !tls.has(other) {
            report.wrong(
                tls.spot(one),
                &tls.path_of(one),
                format!("needs {other} beside it"),
            );
        }
    }
}
