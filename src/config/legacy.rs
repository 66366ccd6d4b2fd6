//! What the legacy client lacks: what is refused, and what has no effect.
//!
//! A config file and the command line say the same under different names, which whoever
//! tells of it has.

use crate::kafka::{Compression, Options};

/// The codec of batches for old brokers, where none is named: all of them know it.
pub const COMPRESSION: Compression = Compression::Snappy;

/// What was asked for beside the legacy client.
#[derive(Debug)]
pub struct Asked {
    /// A codec.
    pub compression: Option<Compression>,
    /// A level of it.
    pub level: bool,
    /// TLS.
    pub tls: bool,
    /// A login.
    pub sasl: bool,
}

/// Something that it lacks.
#[derive(Debug, Clone, Copy)]
pub enum Lacking {
    /// The codec.
    Compression,
    /// Levels of a codec.
    Level,
    /// TLS.
    Tls,
    /// Logging in.
    Sasl,
}

/// What brokers before Kafka 0.11, or the client for them, cannot do of what was asked for,
/// and what to do about it.
pub fn refusals(asked: &Asked) -> Vec<(Lacking, &'static str)> {
    let mut refusals = Vec::new();
    if let Some(Compression::Lz4 | Compression::Zstd) = asked.compression {
        let problem =
            "is a codec that the legacy client does not have: use \"snappy\", \"gzip\" or \"none\"";
        refusals.push((Lacking::Compression, problem));
    }
    if asked.level {
        let problem = "is nothing that the legacy client can choose: leave it away";
        refusals.push((Lacking::Level, problem));
    }
    if asked.tls {
        let problem = "is TLS, which the legacy client does not have: use a listener without it";
        refusals.push((Lacking::Tls, problem));
    }
    if asked.sasl {
        let problem =
            "is a login, which the legacy client does not have: use a listener without it";
        refusals.push((Lacking::Sasl, problem));
    }
    refusals
}

/// The keys below `kafka` that only our own client looks at, of those whose value is not the
/// default, and why.
pub fn without_effect(options: &Options) -> Vec<(&'static str, &'static str)> {
    const ONE_REQUEST: &str =
        "has no effect with the legacy client, which sends one batch at a time: leave it away";
    const NO_HANDSHAKE: &str =
        "has no effect with the legacy client, which has no handshake: leave it away";
    let default = Options::new(Vec::new());
    let keys = [
        (
            "handshake_timeout",
            NO_HANDSHAKE,
            options.handshake_timeout == default.handshake_timeout,
        ),
        (
            "in_flight_requests",
            ONE_REQUEST,
            options.in_flight_max == default.in_flight_max,
        ),
        (
            "in_flight_bytes",
            ONE_REQUEST,
            options.in_flight_bytes_max == default.in_flight_bytes_max,
        ),
        (
            "request_bytes",
            ONE_REQUEST,
            options.request_bytes_max == default.request_bytes_max,
        ),
    ];
    let told = keys.into_iter().filter(|(.., is_default)| !is_default);
    told.map(|(key, problem, _)| (key, problem)).collect()
}
