//! What can go wrong with etcd, and what follows from it.
//!
//! Every failure names the endpoint, the step and, where there is something to
//! do about it, what to change. Nothing here decides when to try again.

use std::fmt;
use std::io;

use crate::kafka::brief_tls;

use super::endpoint::Endpoint;

/// Longest message of a server that is repeated, in characters.
const MESSAGE_CHARS_MAX: usize = 300;
/// gRPC status codes (grpc/doc/statuscodes.md).
const DEADLINE_EXCEEDED: i64 = 4;
const PERMISSION_DENIED: i64 = 7;
const RESOURCE_EXHAUSTED: i64 = 8;
const UNAVAILABLE: i64 = 14;
const UNAUTHENTICATED: i64 = 16;

/// What was tried. The order is that of a connection's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The host name was looked up.
    Resolve,
    /// A TCP connection was opened.
    Connect,
    /// Files for TLS were read, or hands shaken.
    Tls,
    /// The server was asked for its version.
    Version,
    /// User and password were shown.
    Authenticate,
    /// Keys or values were read.
    Range,
    /// Changes were waited for.
    Watch,
    /// A value was written.
    Put,
    /// A key was deleted.
    Delete,
}

/// What somebody would do differently about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This endpoint does not do it; another one, or later, may.
    Unreachable,
    /// etcd refuses it, and would anywhere.
    Refused,
    /// The token is missing or no longer known.
    Token,
    /// The revision asked for is gone, or not there yet.
    Compacted,
    /// More than we are willing to load.
    TooLarge,
    /// No such path: another version of the gateway.
    NotFound,
    /// The stream of changes does not get through.
    Unwatchable,
}

/// One endpoint's failure in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which one.
    pub endpoint: Endpoint,
    /// Doing what.
    pub step: Step,
    /// What follows from it.
    pub kind: Kind,
    /// What happened, a lower-case fragment.
    pub problem: String,
    /// What to change, when that is known.
    pub hint: Option<&'static str>,
}

/// Why a call failed: what each endpoint that was tried said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdError(pub Vec<Failure>);

impl Failure {
    pub(super) fn new(endpoint: &Endpoint, step: Step, kind: Kind, problem: String) -> Failure {
        Failure {
            endpoint: endpoint.clone(),
            step,
            kind,
            problem,
            hint: None,
        }
    }

    pub(super) fn with_hint(self, hint: &'static str) -> Failure {
        Failure {
            hint: Some(hint),
            ..self
        }
    }

    /// From what the HTTP client says.
    pub(super) fn http(endpoint: &Endpoint, step: Step, error: &ureq::Error) -> Failure {
        let (step, problem, hint) = match error {
            ureq::Error::HostNotFound => (
                Step::Resolve,
                "there is no such host".to_owned(),
                Some(HOST_HINT),
            ),
            ureq::Error::Timeout(ureq::Timeout::Connect) => (
                Step::Connect,
                "no connection within the time limit".to_owned(),
                Some("is the address in etcd.endpoints right, and lets a firewall it through?"),
            ),
            ureq::Error::Timeout(_) => (step, "no answer within the time limit".to_owned(), None),
            ureq::Error::Rustls(error) => (Step::Tls, error.to_string(), tls_hint(error)),
            ureq::Error::Io(error) if is_hang_up(error) && step != Step::Watch => {
                let hint = match endpoint.is_tls() {
                    true => CLIENT_CERTIFICATE_HINT,
                    false => HTTPS_HINT,
                };
                let problem = "the connection was closed without an answer";
                (step, problem.to_owned(), Some(hint))
            }
            ureq::Error::Io(error) => io_failure(step, error),
            other => (step, other.to_string(), None),
        };
        Failure {
            hint,
            ..Failure::new(endpoint, step, Kind::Unreachable, problem)
        }
    }

    /// From the body of an answer that is not 200, or of an error in a stream.
    pub(super) fn refusal(endpoint: &Endpoint, step: Step, status: u16, body: &[u8]) -> Failure {
        let (code, message) = parse_refusal(body);
        let kind = kind_of(status, code, &message);
        let problem = match message.as_str() {
            "" => format!("HTTP status {status}"),
            message => shortened(message),
        };
        Failure {
            hint: hint_of(code, &message),
            ..Failure::new(endpoint, step, kind, problem)
        }
    }

    /// From an answer that is not what etcd says.
    pub(super) fn garbled(endpoint: &Endpoint, step: Step, what: &str) -> Failure {
        let problem = format!("the answer is not etcd's: {what}");
        Failure::new(endpoint, step, Kind::Unreachable, problem)
            .with_hint("does something else listen there?")
    }

    /// True when another endpoint would say the same.
    pub(super) fn is_general(&self) -> bool {
        match self.kind {
            Kind::Refused | Kind::Token | Kind::TooLarge => true,
            Kind::Unreachable | Kind::NotFound | Kind::Unwatchable | Kind::Compacted => false,
        }
    }
}

const HOST_HINT: &str = "check the host in etcd.endpoints";
const CLIENT_CERTIFICATE_HINT: &str =
    "if etcd wants a certificate that it can verify, set etcd.tls.cert_file and etcd.tls.key_file";

const HTTPS_HINT: &str = "if etcd speaks TLS there, the endpoint must begin with https://";

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

fn io_failure(step: Step, error: &io::Error) -> (Step, String, Option<&'static str>) {
    let inner = error.get_ref();
    if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return (Step::Tls, brief_tls(tls), tls_hint(tls));
    }
    if let Some(http) = inner.and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        return (step, http.to_string(), None);
    }
    let text = error.to_string();
    // The standard library has no kind for it.
    if text.contains("failed to lookup address") {
        return (Step::Resolve, text, Some(HOST_HINT));
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            Step::Connect,
            text,
            Some("is etcd running there, and is the port in etcd.endpoints right?"),
        ),
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable => (
            Step::Connect,
            text,
            Some("is there a route to the address in etcd.endpoints?"),
        ),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            (step, "no answer within the time limit".to_owned(), None)
        }
        _ => (step, text, None),
    }
}

fn tls_hint(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{AlertDescription, CertificateError, Error};
    match error {
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Some("etcd.tls.ca_file must hold the CA that signed etcd's certificate"),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some("the host in etcd.endpoints must be one that etcd's certificate names"),
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => Some("renew etcd's certificate, or set the clock"),
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired,
        ) => Some(CLIENT_CERTIFICATE_HINT),
        Error::InvalidMessage(_) => {
            Some("etcd may speak no TLS there: then the endpoint begins with http://")
        }
        _ => None,
    }
}

/// Code and message of the shapes `{"error":TEXT,"message":..,"code":..}` (3.4),
/// `{"code":..,"message":..}` (3.6) and `{"error":{..}}` (streams).
fn parse_refusal(body: &[u8]) -> (Option<i64>, String) {
    let Ok(whole) = serde_json::from_slice::<serde_json::Value>(body) else {
        return (None, String::from_utf8_lossy(body).trim().to_owned());
    };
    let inner = match &whole["error"] {
        object @ serde_json::Value::Object(_) => object,
        _ => &whole,
    };
    let code = inner["code"].as_i64().or(inner["grpc_code"].as_i64());
    let message = inner["message"].as_str().or(inner["error"].as_str());
    (code, message.unwrap_or_default().to_owned())
}

fn kind_of(status: u16, code: Option<i64>, message: &str) -> Kind {
    let has = |part: &str| message.contains(part);
    if has("invalid auth token") || has("user name is empty") || has("revision in header is old") {
        return Kind::Token;
    }
    if has("has been compacted") || has("is a future revision") {
        return Kind::Compacted;
    }
    if has("request is too large") {
        return Kind::Refused;
    }
    match code {
        Some(UNAUTHENTICATED) => Kind::Token,
        Some(UNAVAILABLE | DEADLINE_EXCEEDED | RESOURCE_EXHAUSTED) => Kind::Unreachable,
        _ if status == 404 => Kind::NotFound,
        Some(PERMISSION_DENIED) => Kind::Refused,
        _ if has("permission denied") => Kind::Refused,
        Some(_) if (400..500).contains(&status) => Kind::Refused,
        // Not etcd's own word: a proxy's, or another server's.
        _ => Kind::Unreachable,
    }
}

fn hint_of(code: Option<i64>, message: &str) -> Option<&'static str> {
    const HINTS: [(&str, &str); 9] = [
        (
            "permission denied",
            "a role of etcd.username must be given the key: etcdctl role grant-permission",
        ),
        (
            "user name is empty",
            "etcd has authentication on: set etcd.username and etcd.password_file",
        ),
        (
            "invalid user ID or password",
            "check etcd.username and etcd.password_file",
        ),
        (
            "CommonName",
            "with authentication on, etcd's gateway takes client certificates without a common name only",
        ),
        ("HTTP request to an HTTPS server", HTTPS_HINT),
        ("no leader", QUORUM_HINT),
        ("request timed out", QUORUM_HINT),
        (
            "request is too large",
            "shorten the value, or raise etcd's --max-request-bytes",
        ),
        (
            "mvcc: database space exceeded",
            "compact and defragment etcd",
        ),
    ];
    const QUORUM_HINT: &str = "most of etcd's members must be up";
    let found = HINTS.iter().find(|(part, _)| message.contains(part));
    found
        .map(|(_, hint)| *hint)
        .or((code == Some(UNAVAILABLE)).then_some(QUORUM_HINT))
}

/// Fit for a message: one line, nothing that disturbs a terminal, not endless.
fn shortened(text: &str) -> String {
    let cut: String = text.chars().take(MESSAGE_CHARS_MAX).collect();
    crate::text::shown(cut)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Resolve => "resolve",
            Step::Connect => "connect",
            Step::Tls => "TLS",
            Step::Version => "version",
            Step::Authenticate => "authenticate",
            Step::Range => "range",
            Step::Watch => "watch",
            Step::Put => "put",
            Step::Delete => "delete",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.endpoint, self.step, self.problem)?;
        match self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no endpoint to ask (set etcd.endpoints)");
        }
        for (at, failure) in self.0.iter().enumerate() {
            let between = if at > 0 { "; " } else { "" };
            write!(f, "{between}{failure}")?;
        }
        Ok(())
    }
}

impl std::error::Error for EtcdError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Failure {
        let endpoint = "http://a:1".parse().unwrap();
        Failure::refusal(&endpoint, Step::Range, status, body.as_bytes())
    }

    #[test]
    fn both_shapes_of_an_error_are_read() {
        let message = "etcdserver: permission denied";
        for body in [
            format!(r#"{{"error":"{message}","message":"{message}","code":7}}"#),
            format!(r#"{{"code": 7, "message": "{message}"}}"#),
            format!(r#"{{"error":{{"grpc_code":7,"http_code":403,"message":"{message}"}}}}"#),
            format!(r#"{{"error":{{"code":7,"message":"{message}"}}}}"#),
        ] {
            let failure = refusal(403, &body);
            assert_eq!(
                (failure.kind, failure.problem.as_str()),
                (Kind::Refused, message)
            );
            assert!(failure.hint.unwrap().contains("grant-permission"));
        }
    }

    #[test]
    fn what_follows_from_a_refusal_is_told_from_code_and_message() {
        for (status, body, kind) in [
            (
                401,
                r#"{"message":"etcdserver: invalid auth token","code":16}"#,
                Kind::Token,
            ),
            (
                400,
                r#"{"error":"etcdserver: user name is empty","code":3}"#,
                Kind::Token,
            ),
            (401, "<html>", Kind::Unreachable),
            (403, "<html>permission</html>", Kind::Unreachable),
            (
                400,
                r#"{"error":"etcdserver: request is too large","code":8}"#,
                Kind::Refused,
            ),
            (403, r#"{"message":"x","code":7}"#, Kind::Refused),
            (
                400,
                r#"{"code":11,"message":"required revision has been compacted"}"#,
                Kind::Compacted,
            ),
            (
                503,
                r#"{"code":14,"message":"etcdserver: no leader"}"#,
                Kind::Unreachable,
            ),
            (504, "<html>", Kind::Unreachable),
            (429, "", Kind::Unreachable),
            (404, "404 page not found", Kind::NotFound),
            (
                400,
                r#"{"code":3,"message":"etcdserver: key is not provided"}"#,
                Kind::Refused,
            ),
        ] {
            assert_eq!(refusal(status, body).kind, kind, "{status} {body}");
        }
    }

    #[test]
    fn a_failure_names_endpoint_step_problem_and_what_to_change() {
        let body = "Client sent an HTTP request to an HTTPS server.\n";
        assert_eq!(
            refusal(400, body).to_string(),
            "http://a:1: range: Client sent an HTTP request to an HTTPS server. \
             (if etcd speaks TLS there, the endpoint must begin with https://)"
        );
        assert_eq!(
            refusal(502, "").to_string(),
            "http://a:1: range: HTTP status 502"
        );
        let long = refusal(500, &"\x1b[31m".repeat(10_000)).to_string();
        assert!(long.len() < 4_000 && !long.contains('\x1b'));
    }
}
