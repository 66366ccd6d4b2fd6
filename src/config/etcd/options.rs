//! How etcd is reached and how patiently.
//!
//! What is followed is said elsewhere, key by key.

use std::path::PathBuf;
use std::time::Duration;

use super::endpoint::Endpoint;
use crate::kafka::Secret;

/// How often keys are listed where they cannot be watched.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Largest value that is loaded. etcd itself takes 1.5 MiB by default.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// TCP and TLS. Two seconds outlast one lost packet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than etcd takes to say that it has no quorum, which is 7 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(9);
/// A watch is confirmed within milliseconds where nothing buffers it.
const WATCH_TIMEOUT: Duration = Duration::from_secs(4);
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
const REWATCH_INTERVAL: Duration = Duration::from_secs(60);

/// How etcd is reached. Two that are equal behave alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Options {
    /// The members, tried in this order. At least one.
    pub endpoints: Vec<Endpoint>,
    /// User, where etcd has authentication on.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<Secret>,
    /// Files for `https`; without any, the certificates of the system are trusted.
    pub tls: Option<Tls>,
    /// How often keys are listed where they cannot be watched.
    pub poll_interval: Duration,
    /// Largest value that is loaded, in bytes.
    pub value_bytes_max: usize,
    /// For TCP and TLS together. How long a name may be looked up is the system's.
    pub connect_timeout: Duration,
    /// For each part of a request: it, the beginning of its answer, the rest.
    pub request_timeout: Duration,
    /// Within this time a watch must be confirmed, else it counts as impossible.
    pub watch_timeout: Duration,
    /// How often it is looked whether a watch has missed something.
    pub look_interval: Duration,
    /// How often a watch is tried again where it was impossible.
    pub rewatch_interval: Duration,
}

impl Options {
    /// The defaults for everything else.
    pub fn new(endpoints: Vec<Endpoint>) -> Options {
        Options {
            endpoints,
            username: None,
            password: None,
            tls: None,
            poll_interval: POLL_INTERVAL,
            value_bytes_max: VALUE_BYTES_MAX,
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            watch_timeout: WATCH_TIMEOUT,
            look_interval: LOOK_INTERVAL,
            rewatch_interval: REWATCH_INTERVAL,
        }
    }
}

/// Files in PEM. They are read anew for every connection, so that renewed ones
/// are taken up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Who may have signed the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, with what is between it and the CA.
    pub cert_file: Option<PathBuf>,
    /// The key of our certificate.
    pub key_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown_with_the_options() {
        let mut options = Options::new(vec!["http://a:1".parse().unwrap()]);
        options.password = Some(Secret::new("hunter2"));
        let shown = format!("{options:?} {options:#?}");
        assert!(shown.contains("***") && !shown.contains("hunter2"));
    }
}
