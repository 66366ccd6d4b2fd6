//! The address of an etcd member, as people write it: `http://HOST:PORT`.
//!
//! Resolving the host is left to the connection: an address that does not
//! resolve today may resolve tomorrow.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Scheme, host and port of an etcd member's client address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
}

/// Why a text is not an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub struct EndpointError {
    text: String,
    problem: &'static str,
}

impl Endpoint {
    /// True for `https`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host name or IP address, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port, never zero.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        parse(text).map_err(|problem| EndpointError {
            text: text.to_owned(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Endpoint, &'static str> {
    let (tls, rest) = if let Some(rest) = text.strip_prefix("http://") {
        (false, rest)
    } else if let Some(rest) = text.strip_prefix("https://") {
        (true, rest)
    } else {
        return Err("it must begin with http:// or https://");
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("leave user and password away, they have keys of their own");
    }
    if rest.contains(['/', '?', '#']) {
        return Err("nothing may follow the port");
    }
    let (host, port) = split(rest)?;
    if host.is_empty() {
        return Err("the host is missing");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if !host.chars().all(plain) {
        return Err("the host holds a character that no host name can hold");
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(Endpoint {
            tls,
            host: host.to_owned(),
            port,
        }),
        _ => Err("the port must be a number from 1 to 65535"),
    }
}

/// Host and port. An IPv6 address loses its brackets.
fn split(text: &str) -> Result<(&str, &str), &'static str> {
    const NO_PORT: &str = "the port is missing, etcd's is 2379";
    if let Some(inner) = text.strip_prefix('[') {
        let (host, port) = inner.split_once(']').ok_or("the bracket ] is missing")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("not an IPv6 address between the brackets");
        }
        return Ok((host, port.strip_prefix(':').ok_or(NO_PORT)?));
    }
    let (host, port) = text.rsplit_once(':').ok_or(NO_PORT)?;
    if host.contains(':') {
        return Err("an IPv6 address needs brackets, like http://[::1]:2379");
    }
    Ok((host, port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not http://HOST:PORT: {}",
            hide_login(&self.text).escape_debug(),
            self.problem
        )
    }
}

impl std::error::Error for EndpointError {}

/// A password that somebody wrote into the address must not reach a log.
fn hide_login(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://***{}", &text[..scheme], &text[at..])
        }
        (None, Some(at)) => format!("***{}", &text[at..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_back_as_it_was_written() {
        for text in [
            "http://localhost:2379",
            "https://10.0.0.1:1",
            "http://[::1]:65535",
            "https://a-b.c_d:9",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        let slash: Endpoint = "http://a:1/".parse().unwrap();
        assert_eq!(slash.to_string(), "http://a:1");
        assert!(!slash.is_tls());
    }

    #[test]
    fn a_malformed_endpoint_is_refused_with_what_is_wrong() {
        for (text, problem) in [
            ("localhost:2379", "begin with http://"),
            ("", "begin with http://"),
            ("ftp://a:1", "begin with http://"),
            ("http://localhost", "port is missing"),
            ("http://[::1]", "port is missing"),
            ("http://localhost:", "from 1 to 65535"),
            ("http://a:0", "from 1 to 65535"),
            ("http://a:65536", "from 1 to 65535"),
            ("http://:2379", "host is missing"),
            ("http://::1:2379", "needs brackets"),
            ("http://[::g]:2379", "not an IPv6"),
            ("http://[::1:2379", "bracket"),
            ("http://a:1/v3", "nothing may follow"),
            ("http://a:1?x", "nothing may follow"),
            ("http://a b:1", "no host name"),
            ("http://a\n:1", "no host name"),
            ("http://u:p@a:1", "user and password"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_not_repeated() {
        for text in [
            "http://u:secret@a:1",
            "u:secret@a:1",
            "http://u:sec@ret@a:1",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(!error.contains("sec"), "{error}");
        }
    }
}
