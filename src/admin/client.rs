//! Asks a running logship for its report.
//!
//! One GET over a Unix socket or TCP; bounded in time and size. It follows
//! nothing and keeps no connection.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Response, Status};

use crate::text::shown;

use super::report::Report;
use super::stream::Stream;

/// How long to wait for a TCP connection, for each address of the host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the whole exchange may take after that.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a response, head included.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// Bytes of its head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Fields of its head.
const FIELDS_MAX: usize = 64;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A Unix socket.
    Socket(PathBuf),
    /// `HOST:PORT`.
    Address(String),
}

/// Why there is no report.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens there.
    Nobody {
        /// Who was asked.
        target: Target,
        /// What the operating system says.
        source: io::Error,
    },
    /// Somebody may, but this user may not ask.
    Denied {
        /// Who was asked.
        target: Target,
    },
    /// The exchange broke off, or took too long.
    Broken {
        /// Who was asked.
        target: Target,
        /// Why.
        source: io::Error,
    },
    /// The answer is not that of a logship.
    Strange {
        /// Who was asked.
        target: Target,
        /// What is wrong with it.
        problem: String,
    },
}

/// Asks for the report; also returns the document as it came.
///
/// # Errors
/// Nobody there, no permission, no answer within ten seconds, or a strange one.
pub fn fetch(target: &Target) -> Result<(Report, Vec<u8>), ClientError> {
    let strange = |problem| ClientError::Strange {
        target: target.clone(),
        problem,
    };
    let mut stream = connect(target)?;
    let response = exchange(&mut stream).map_err(|source| ClientError::Broken {
        target: target.clone(),
        source,
    })?;
    let document = body(response).map_err(strange)?;
    let report = serde_json::from_slice(&document)
        .map_err(|error| strange(format!("not a status document: {error}")))?;
    Ok((report, document))
}

fn connect(target: &Target) -> Result<Stream, ClientError> {
    let stream = match target {
        Target::Socket(path) => UnixStream::connect(path).map(Stream::Unix),
        Target::Address(address) => connect_tcp(address).map(Stream::Tcp),
    };
    stream.map_err(|source| match source.kind() {
        ErrorKind::PermissionDenied => ClientError::Denied {
            target: target.clone(),
        },
        _ => ClientError::Nobody {
            target: target.clone(),
            source,
        },
    })
}

/// Tries every address of the host; the last failure counts.
fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends the request, and reads until the other side ends the connection, as it
/// is asked to.
fn exchange(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + EXCHANGE_TIMEOUT;
    stream.wait_at_most(EXCHANGE_TIMEOUT)?;
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: logship\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(no_answer());
        }
        stream.wait_at_most(left)?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(response),
            Ok(count) => response.extend_from_slice(&buffer[..count]),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(no_answer()),
                // Turned away: what was said before is worth more.
                ErrorKind::ConnectionReset if !response.is_empty() => return Ok(response),
                _ => return Err(error),
            },
        }
        if response.len() > RESPONSE_BYTES_MAX {
            let problem = format!("the answer is longer than {RESPONSE_BYTES_MAX} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
    }
}

fn no_answer() -> io::Error {
    let problem = format!("no whole answer within {} s", EXCHANGE_TIMEOUT.as_secs());
    io::Error::new(ErrorKind::TimedOut, problem)
}

/// The body of a response that is a whole 200.
fn body(mut response: Vec<u8>) -> Result<Vec<u8>, String> {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let mut head = Response::new(&mut fields);
    let start = &response[..response.len().min(HEAD_BYTES_MAX)];
    let length = match head.parse(start) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if response.is_empty() => {
            return Err("it hung up without a word".to_owned());
        }
        Ok(Status::Partial) => return Err("the head of the answer has no end".to_owned()),
        Err(error) => return Err(format!("not HTTP: {error}")),
    };
    let field = |name: &str| {
        let mut fields = head.headers.iter();
        fields.find(|field| field.name.eq_ignore_ascii_case(name))
    };
    if field("transfer-encoding").is_some() {
        return Err("its answer is in pieces, as logship's never is".to_owned());
    }
    let expected = field("content-length")
        .and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
    let code = head.code.unwrap_or_default();
    let body = response.split_off(length);
    if code != 200 {
        let text = String::from_utf8_lossy(&body);
        let line = shown(text.lines().next().unwrap_or_default());
        return Err(format!("status {code}: {line}"));
    }
    if expected.is_some_and(|expected: usize| expected != body.len()) {
        return Err("the answer is not whole".to_owned());
    }
    Ok(body)
}

impl ClientError {
    /// The next thing to try, when there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ClientError::Nobody { target, .. } => Some(match target {
                Target::Socket(_) => "is 'logship run' running with this state directory?",
                Target::Address(_) => "is 'logship run' running with this address in admin.listen?",
            }),
            ClientError::Denied { .. } => Some("ask as the user that runs logship, or as root"),
            ClientError::Broken { .. } => None,
            ClientError::Strange { .. } => Some("does something else answer there?"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Socket(path) => write!(f, "socket '{}'", shown(path)),
            Target::Address(address) => write!(f, "{}", shown(address)),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Nobody { target, source } => {
                write!(f, "nobody answers on {target}: {source}")
            }
            ClientError::Denied { target } => {
                write!(f, "permission denied to ask on {target}")
            }
            ClientError::Broken { target, source } => {
                write!(f, "no answer from {target}: {source}")
            }
            ClientError::Strange { target, problem } => {
                write!(f, "a strange answer from {target}: {problem}")
            }
        }
    }
}

impl std::error::Error for ClientError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_200_is_an_answer() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(body(whole.to_vec()), Ok(b"{}".to_vec()));
        for (response, problem) in [
            ("", "without a word"),
            ("HTTP/1.1 200 OK\r\n", "no end"),
            ("SSH-2.0-OpenSSH\r\n", "not HTTP"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
                "not whole",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2",
                "in pieces",
            ),
            (
                "HTTP/1.1 503 no\r\n\r\ntoo\x07 many\nx",
                "status 503: too\\u{7} many",
            ),
        ] {
            let refused = body(response.as_bytes().to_vec()).unwrap_err();
            assert!(refused.contains(problem), "{response}: {refused}");
        }
    }
}
