//! Tries everything that following keys needs, step by step, for a person.
//!
//! Each endpoint is tried by a thread of its own, so that one that keeps silent
//! takes no time from the others. Nothing is changed in etcd.

use std::fmt;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::content::{self, Range};
use super::endpoint::Endpoint;
use super::failure::{Failure, Step};
use super::gateway::Gateway;
use super::options::Options;
use crate::text::shown;
use crate::thread;

/// All of it together.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// Each request of it; shorter than in service, so that a later step is reached.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Steps that may wait for the one who collects them.
const CHECKS_MAX: usize = 256;

/// One step that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Endpoint and step, and the key where one is read.
    pub name: String,
    /// A detail; or what is wrong and what to change.
    pub outcome: Result<String, String>,
}

/// Tries every endpoint: resolve, connect, TLS and version, authenticate, and
/// read each of `keys`. An endpoint's steps end with the first that fails.
///
/// Takes ten seconds at most. In order of the endpoints.
pub fn probe(options: &Options, keys: &[String]) -> Vec<Check> {
    let deadline = Instant::now() + PROBE_MAX;
    let options = Options {
        request_timeout: options.request_timeout.min(REQUEST_TIMEOUT),
        ..options.clone()
    };
    let probes: Vec<_> = options
        .endpoints
        .iter()
        .map(|endpoint| {
            let (checks, found) = bounded(CHECKS_MAX);
            let probe = Probe {
                endpoint: endpoint.clone(),
                options: options.clone(),
                keys: keys.to_vec(),
                checks,
            };
            let task = thread::try_spawn("etcd:probe", move || probe.run());
            (endpoint, task, found)
        })
        .collect();
    let collected = probes
        .into_iter()
        .map(|(endpoint, task, found)| match task {
            Ok(task) => {
                let checks = collect(endpoint, &found, deadline);
                task.detach(); // It may sit in a name look-up, and owns nothing.
                checks
            }
            Err(error) => vec![Check {
                name: endpoint.to_string(),
                outcome: Err(format!("the operating system has no thread left: {error}")),
            }],
        });
    collected.flatten().collect()
}

/// What one endpoint's thread finds, until it ends or the time is over.
fn collect(endpoint: &Endpoint, found: &Receiver<Check>, deadline: Instant) -> Vec<Check> {
    let mut checks = Vec::new();
    loop {
        match found.recv_deadline(deadline) {
            Ok(check) => checks.push(check),
            Err(RecvTimeoutError::Disconnected) => return checks,
            Err(RecvTimeoutError::Timeout) => {
                let limit = PROBE_MAX.as_secs();
                checks.push(Check {
                    name: endpoint.to_string(),
                    outcome: Err(format!("the next step took longer than {limit} s")),
                });
                return checks;
            }
        }
    }
}

struct Probe {
    endpoint: Endpoint,
    options: Options,
    keys: Vec<String>,
    checks: Sender<Check>,
}

impl Probe {
    fn run(self) {
        // The failing step has been told.
        let _ = self.steps();
    }

    fn steps(&self) -> Option<()> {
        let addresses = self.tell(Step::Resolve, self.resolve(), |addresses| {
            let texts: Vec<String> = addresses.iter().map(|a| a.ip().to_string()).collect();
            texts.join(", ")
        })?;
        self.tell(Step::Connect, self.connect(&addresses), ToString::to_string)?;
        let opened = Gateway::open(&self.endpoint, &self.options);
        let versioned =
            opened.and_then(|mut gateway| gateway.version().map(|version| (gateway, version)));
        let (mut gateway, _) = self.tell(Step::Version, versioned, |(_, version)| {
            let over = if self.endpoint.is_tls() {
                ", over TLS"
            } else {
                ""
            };
            format!("etcd {version}{over}")
        })?;
        self.tell(Step::Authenticate, gateway.authenticate(), |shown| {
            let name = self.options.username.as_deref().unwrap_or_default();
            match (shown, name) {
                (true, name) => format!("as {name}"),
                (false, "") => "without a user".to_owned(),
                (false, name) => format!("not asked for, {name} is not used"),
            }
        })?;
        for key in &self.keys {
            self.tell_as(
                format!("{}: {} {}", self.endpoint, Step::Range, shown(key)),
                content::count(&mut gateway, &Range::of(key)),
                |count| match count {
                    0 => "there is no such key yet".to_owned(),
                    1 => "1 key".to_owned(),
                    count => format!("{count} keys"),
                },
            )?;
        }
        Some(())
    }

    fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let (host, port) = (self.endpoint.host(), self.endpoint.port());
        let found = (host, port)
            .to_socket_addrs()
            .map(Iterator::collect::<Vec<_>>);
        let error = match found {
            Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) => ureq::Error::HostNotFound,
            Err(error) => ureq::Error::Io(error),
        };
        Err(Failure::http(&self.endpoint, Step::Resolve, &error))
    }

    fn connect(&self, addresses: &[SocketAddr]) -> Result<SocketAddr, Failure> {
        let mut last = ureq::Error::HostNotFound;
        for address in addresses {
            match TcpStream::connect_timeout(address, self.options.connect_timeout) {
                Ok(_) => return Ok(*address),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    last = ureq::Error::Timeout(ureq::Timeout::Connect);
                }
                Err(error) => last = ureq::Error::Io(error),
            }
        }
        Err(Failure::http(&self.endpoint, Step::Connect, &last))
    }

    fn tell<T>(
        &self,
        step: Step,
        outcome: Result<T, Failure>,
        detail: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let step = outcome.as_ref().err().map_or(step, |failure| failure.step);
        self.tell_as(format!("{}: {step}", self.endpoint), outcome, detail)
    }

    /// Passes an outcome on; `None` when it was a failure.
    fn tell_as<T>(
        &self,
        name: String,
        outcome: Result<T, Failure>,
        detail: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let told = match &outcome {
            Ok(done) => Ok(detail(done)),
            Err(failure) => Err(Advice(failure).to_string()),
        };
        // Nobody listens any more after the time is over.
        let _ = self.checks.try_send(Check {
            name,
            outcome: told,
        });
        outcome.ok()
    }
}

/// A failure without endpoint and step, which the name of the check says.
struct Advice<'a>(&'a Failure);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.problem)?;
        match self.0.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}
