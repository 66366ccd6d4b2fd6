//! The key `kafka`: which cluster, and how it is written to.

use std::time::Duration;

use crate::kafka::{Address, Compression, Options};

use super::super::Sink;
use super::super::document::{Content, Entry};
use super::super::object::{Found, Object, Report, shorten};
use super::{Files, HOUR, MINUTE, MOMENT};

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
const MECHANISMS: &[(&str, ())] = &[("PLAIN", ()), ("SCRAM-SHA-256", ()), ("SCRAM-SHA-512", ())];

/// What was said; what was not said is `None`.
pub struct Lowered {
    /// Where lines go.
    pub sink: Sink,
    /// Producer threads.
    pub producers: Option<usize>,
    /// Codec.
    pub compression: Option<Compression>,
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
            linger: None,
            batch_bytes_max: None,
        };
    };
    let mut options = Options::new(brokers(&kafka, report));
    if let Some(found) = kafka.text("client_id", report) {
        options.client_id = client_id(found, report);
    }
    if let Some(timeout) = kafka.duration("request_timeout", 100 * MOMENT..=HOUR, report) {
        options.request_timeout = timeout;
    }
    if let Some(timeout) = kafka.duration("connect_timeout", 10 * MOMENT..=10 * MINUTE, report) {
        options.connect_timeout = timeout;
    }
    kafka.choice("acks", &[("all", ())], report);
    refuse_tls(&kafka, files, report);
    refuse_sasl(&kafka, files, report);
    Lowered {
        sink: Sink::Kafka(options),
        producers: kafka.number("producers", 1..=64, report),
        compression: kafka.choice("compression", COMPRESSION, report),
        linger: kafka.duration("linger", Duration::ZERO..=MINUTE, report),
        batch_bytes_max: batch_bytes(&kafka, report),
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

/// Sending in the clear instead would be wrong.
fn refuse_tls(kafka: &Object, files: &mut Files, report: &mut Report) {
    if !kafka.has("tls") {
        return;
    }
    if let Some(tls) = kafka.object("tls", report) {
        files.readable(&tls, "ca_file", report);
        files.readable(&tls, "cert_file", report);
        files.private(&tls, "key_file", report);
        tls.flag("insecure_skip_verify", report);
        check_pair(&tls, report);
    }
    let problem = "TLS to Kafka is not supported by this version yet: remove it and use a listener without TLS, or wait for a version that has it";
    report.wrong(kafka.spot("tls"), &kafka.path_of("tls"), problem);
}

fn refuse_sasl(kafka: &Object, files: &mut Files, report: &mut Report) {
    if !kafka.has("sasl") {
        return;
    }
    if let Some(sasl) = kafka.object("sasl", report) {
        for name in ["mechanism", "username"] {
            if !sasl.has(name) {
                sasl.missing(name, report);
            }
        }
        sasl.choice("mechanism", MECHANISMS, report);
        sasl.text("username", report);
        files.password(&sasl, report);
        if !sasl.has("password") && !sasl.has("password_file") {
            sasl.missing("password_file", report);
        }
    }
    let problem = "logging in to Kafka is not supported by this version yet: remove it and use a listener without SASL, or wait for a version that has it";
    report.wrong(kafka.spot("sasl"), &kafka.path_of("sasl"), problem);
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
