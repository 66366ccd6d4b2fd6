//! One endpoint's HTTP gateway: one request, one answer, or a stream of lines.
//!
//! It finds the path that this version of etcd serves, and shows user and
//! password when it is asked for them. Which endpoint, and when to try again, is
//! not decided here.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::endpoint::Endpoint;
use super::failure::{Failure, Kind, Step};
use super::options::Options;
use super::tls;
use super::wire::{LoginAnswer, LoginRequest, Version};
use crate::kafka::Secret;

/// Where versions serve the gateway: 3.4 and later, 3.3, 3.2.
const APIS: [&str; 3] = ["/v3", "/v3beta", "/v3alpha"];
/// Longest answer without values in it that is believed.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Longest body of a refusal that is read.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;
/// How much of a too large answer is read on, only to know its size.
const MEASURED_BYTES_MAX: u64 = 64 << 20;
/// Without it, a watch is silent for ever once its member has lost the others.
const HAS_LEADER: &str = "Grpc-Metadata-hasleader";

/// One endpoint, with what is known of it.
pub struct Gateway {
    endpoint: Endpoint,
    calls: Agent,
    streams: Agent,
    login: Option<(String, Secret)>,
    token: Option<String>,
    api: Option<&'static str>,
}

/// An answer over the limit, and how long the largest value in it is, in bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Overflow {
    /// `None` when even the measuring had to stop.
    pub value_bytes: Option<u64>,
}

impl Gateway {
    /// Gets ready to ask an endpoint; nothing is sent yet.
    ///
    /// # Errors
    /// Files for TLS that cannot be used.
    pub fn open(endpoint: &Endpoint, options: &Options) -> Result<Gateway, Failure> {
        let tls = tls::config(endpoint, options.tls.as_ref())?;
        let base = || {
            Agent::config_builder()
                .tls_config(tls.clone())
                .http_status_as_error(false)
                .max_redirects(0)
                // A variable meant for web pages must not lead it astray.
                .proxy(None)
                // A connection that was kept may be dead; calls are rare.
                .max_idle_connections(0)
                // No limit on looking a name up: ureq would spawn a thread for it.
                .timeout_connect(Some(options.connect_timeout))
        };
        let limit = Some(options.request_timeout);
        let calls = base()
            .timeout_send_request(limit)
            .timeout_send_body(limit)
            .timeout_recv_response(limit)
            .timeout_recv_body(limit);
        // No limit on the body as a whole, which never ends.
        let patience = options.watch_timeout.min(options.look_interval);
        let streams = base()
            .timeout_recv_response(Some(options.watch_timeout))
            .timeout_per_read(Some(patience));
        let secret = options.password.clone().unwrap_or_else(|| Secret::new(""));
        Ok(Gateway {
            endpoint: endpoint.clone(),
            calls: calls.build().into(),
            streams: streams.build().into(),
            login: options.username.clone().map(|name| (name, secret)),
            token: None,
            api: None,
        })
    }

    /// Which one this is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// One request and its answer, of `bytes_max` at most.
    ///
    /// # Errors
    /// In `step`, or in one of those before it; an answer that is too long is
    /// the inner result.
    pub fn call<T: DeserializeOwned>(
        &mut self,
        step: Step,
        path: &str,
        request: &impl Serialize,
        bytes_max: usize,
    ) -> Result<Result<T, Overflow>, Failure> {
        let agent = self.calls.clone();
        let mut response = self.post(&agent, step, path, request)?;
        let body = match read_bounded(response.body_mut().as_reader(), bytes_max) {
            Ok(Ok(body)) => body,
            Ok(Err(overflow)) => return Ok(Err(overflow)),
            Err(error) => return Err(self.failed(step, &ureq::Error::from(error))),
        };
        let answer = serde_json::from_slice(&body);
        answer
            .map(Ok)
            .map_err(|error| Failure::garbled(&self.endpoint, step, &error.to_string()))
    }

    /// One request, answered by a stream.
    ///
    /// # Errors
    /// In [`Step::Watch`] or before; an endpoint that keeps silent is unwatchable.
    pub fn stream(
        &mut self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<Response<Body>, Failure> {
        let agent = self.streams.clone();
        self.post(&agent, Step::Watch, path, request)
    }

    /// The server's version.
    ///
    /// # Errors
    /// In [`Step::Version`] or before.
    pub fn version(&mut self) -> Result<String, Failure> {
        let step = Step::Version;
        let asked = self.calls.get(format!("{}/version", self.endpoint)).call();
        let response = asked.map_err(|error| self.failed(step, &error))?;
        let body = self.body_of(step, response)?;
        serde_json::from_slice::<Version>(&body)
            .map(|version| version.etcdserver)
            .map_err(|error| Failure::garbled(&self.endpoint, step, &error.to_string()))
    }

    /// Shows user and password, if there are any. False where etcd asks nobody
    /// for them.
    ///
    /// # Errors
    /// In [`Step::Authenticate`] or before.
    pub fn authenticate(&mut self) -> Result<bool, Failure> {
        let Some((name, secret)) = self.login.clone() else {
            return Ok(false);
        };
        let password = secret.reveal();
        let request = LoginRequest {
            name: &name,
            password,
        };
        self.token = None;
        let (agent, step) = (self.calls.clone(), Step::Authenticate);
        let response = self.found(&agent, step, "/auth/authenticate", &request)?;
        match self.body_of(step, response) {
            Ok(body) => {
                let answer = serde_json::from_slice::<LoginAnswer>(&body);
                let answer = answer
                    .map_err(|error| Failure::garbled(&self.endpoint, step, &error.to_string()))?;
                self.token = Some(answer.token);
                Ok(true)
            }
            Err(failure) if failure.problem.contains("authentication is not enabled") => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Posts, and once more with a new token when the old one is not taken.
    fn post(
        &mut self,
        agent: &Agent,
        step: Step,
        path: &str,
        request: &impl Serialize,
    ) -> Result<Response<Body>, Failure> {
        let mut response = self.found(agent, step, path, request)?;
        if response.status() == 200 {
            return Ok(response);
        }
        let mut failure = self.refusal(step, &mut response);
        if failure.kind == Kind::Token && self.login.is_some() && self.authenticate()? {
            response = self.found(agent, step, path, request)?;
            if response.status() == 200 {
                return Ok(response);
            }
            failure = self.refusal(step, &mut response);
        }
        Err(failure)
    }

    /// Posts to the path of this version, which it finds out with the first call.
    fn found(
        &mut self,
        agent: &Agent,
        step: Step,
        path: &str,
        request: &impl Serialize,
    ) -> Result<Response<Body>, Failure> {
        if let Some(api) = self.api {
            return self.send(agent, step, api, path, request);
        }
        for api in APIS {
            let response = self.send(agent, step, api, path, request)?;
            if response.status() != 404 {
                self.api = Some(api);
                return Ok(response);
            }
        }
        let problem = format!("none of {} is served", APIS.join(", "));
        let failure = Failure::new(&self.endpoint, step, Kind::NotFound, problem);
        Err(failure
            .with_hint("is it etcd, with --enable-grpc-gateway, and no proxy that hides it?"))
    }

    fn send(
        &self,
        agent: &Agent,
        step: Step,
        api: &str,
        path: &str,
        request: &impl Serialize,
    ) -> Result<Response<Body>, Failure> {
        let body = serde_json::to_vec(request)
            .map_err(|error| Failure::garbled(&self.endpoint, step, &error.to_string()))?;
        let mut post = agent
            .post(format!("{}{api}{path}", self.endpoint))
            .header("Content-Type", "application/json")
            .header(HAS_LEADER, "true");
        if let Some(token) = &self.token {
            post = post.header("Authorization", token);
        }
        post.send(&body[..])
            .map_err(|error| self.failed(step, &error))
    }

    fn failed(&self, step: Step, error: &ureq::Error) -> Failure {
        let failure = Failure::http(&self.endpoint, step, error);
        let silent = matches!(
            error,
            ureq::Error::Timeout(ureq::Timeout::RecvResponse | ureq::Timeout::PerRead)
        );
        if step == Step::Watch && silent {
            return Failure {
                kind: Kind::Unwatchable,
                ..failure
            };
        }
        failure
    }

    /// The body of an answer that must be 200.
    fn body_of(&self, step: Step, mut response: Response<Body>) -> Result<Vec<u8>, Failure> {
        if response.status() != 200 {
            return Err(self.refusal(step, &mut response));
        }
        let mut body = Vec::new();
        let reader = response.body_mut().as_reader();
        let read = reader.take(REFUSAL_BYTES_MAX).read_to_end(&mut body);
        read.map_err(|error| self.failed(step, &ureq::Error::from(error)))?;
        Ok(body)
    }

    fn refusal(&self, step: Step, response: &mut Response<Body>) -> Failure {
        let status = response.status().as_u16();
        let mut body = Vec::new();
        // What came before the connection broke will do.
        let reader = response.body_mut().as_reader();
        let _ = reader.take(REFUSAL_BYTES_MAX).read_to_end(&mut body);
        Failure::refusal(&self.endpoint, step, status, &body)
    }
}

/// Reads an answer of `bytes_max` at most; of a longer one nothing is kept, it is
/// only measured.
fn read_bounded(mut reader: impl Read, bytes_max: usize) -> io::Result<Result<Vec<u8>, Overflow>> {
    let mut body = Vec::new();
    // Grows with what comes, so that a lying length costs nothing.
    reader
        .by_ref()
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut body)?;
    if body.len() <= bytes_max {
        return Ok(Ok(body));
    }
    let mut longest = LongestText::default();
    longest.take(&body);
    drop(body);
    let mut block = [0; 16 << 10];
    let mut measured = 0;
    while measured < MEASURED_BYTES_MAX {
        match reader.read(&mut block)? {
            0 => {
                let value_bytes = Some(longest.bytes);
                return Ok(Err(Overflow { value_bytes }));
            }
            count => {
                longest.take(&block[..count]);
                measured += count as u64;
            }
        }
    }
    Ok(Err(Overflow { value_bytes: None }))
}

/// Finds the longest base64 text between quotes and how many bytes it stands for.
#[derive(Default)]
struct LongestText {
    run: u64,
    padding: u64,
    bytes: u64,
}

impl LongestText {
    fn take(&mut self, json: &[u8]) {
        for byte in json {
            match byte {
                b'"' => {
                    self.bytes = self
                        .bytes
                        .max((self.run / 4 * 3).saturating_sub(self.padding));
                    (self.run, self.padding) = (0, 0);
                }
                b'=' => {
                    self.run += 1;
                    self.padding += 1;
                }
                _ => self.run += 1,
            }
        }
    }
}

/// The connections of one gateway at a time, for whoever must wake the thread
/// that waits on them.
#[derive(Default)]
pub struct Wires {
    // Shared with the thread that cuts them, which cannot send a message: the
    // other one sits in a read. Held for a pointer's time only.
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    agents: Vec<Agent>,
    cut: bool,
}

impl Wires {
    /// From now on these are the connections to cut.
    pub fn hold(&self, gateway: &Gateway) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.agents = vec![gateway.calls.clone(), gateway.streams.clone()];
        let late = held.cut.then(|| held.agents.clone());
        drop(held);
        shut_down(late.unwrap_or_default());
    }

    /// Ends every read and write on them, now and later.
    pub fn cut(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.cut = true;
        let agents = std::mem::take(&mut held.agents);
        drop(held);
        shut_down(agents);
    }
}

fn shut_down(agents: Vec<Agent>) {
    for agent in agents {
        agent.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_answer_is_measured_and_not_kept() {
        let json = |value: &str| format!(r#"{{"kvs":[{{"key":"L2E=","value":"{value}"}}]}}"#);
        let small = json("aGk=");
        assert_eq!(
            read_bounded(small.as_bytes(), small.len()).unwrap(),
            Ok(small.clone().into_bytes())
        );
        for (value, bytes) in [("aGk=", 2), ("aGkh", 3), ("aA==", 1)] {
            let value = format!("{}{value}", "AAAA".repeat(50_000));
            let overflow = read_bounded(json(&value).as_bytes(), 100).unwrap();
            let value_bytes = Some(150_000 + bytes);
            assert_eq!(overflow, Err(Overflow { value_bytes }));
        }
        let endless = io::repeat(b'A');
        let overflow = read_bounded(endless, 100).unwrap();
        assert_eq!(overflow, Err(Overflow { value_bytes: None }));
    }
}
