//! The address of a broker, as people write it: `HOST:PORT`.
//!
//! Resolving the host is left to the connection: an address that does not
//! resolve today may resolve tomorrow.

use std::fmt;
use std::str::FromStr;

/// Host name or IP address, and TCP port, of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: String,
    port: u16,
}

/// Why a text is not the address of a broker.
#[derive(Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

impl Address {
    /// Makes an address from what a broker says of itself in Metadata.
    pub fn new(host: impl Into<String>, port: u16) -> Address {
        Address {
            host: host.into(),
            port,
        }
    }

    /// The pieces of a list with commas. One with user and password stays whole: a
    /// password may hold a comma, and no piece of it may be shown.
    pub fn split(text: &str) -> impl Iterator<Item = &str> {
        let has_password = text.contains('@');
        text.split(move |c| c == ',' && !has_password)
            .map(str::trim)
    }

    /// Host name or IP address, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port, never zero in a parsed address.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let wrong = |problem| AddressError {
            text: text.to_owned(),
            problem,
        };
        if let Some((_, address)) = text.rsplit_once('@') {
            return Err(AddressError {
                text: format!("...@{address}"), // what stands before it may be a password
                problem: "user and password belong into kafka.sasl",
            });
        }
        if text.contains("://") {
            return Err(wrong("leave the scheme away"));
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| wrong("the port is missing"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest
                .strip_suffix(']')
                .filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
                .ok_or_else(|| wrong("not an IPv6 address between the brackets"))?,
            None if host.contains(':') => {
                return Err(wrong("an IPv6 address needs brackets, like [::1]:9092"));
            }
            None => host,
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        if !is_host(host) {
            return Err(wrong(
                "the host holds a character that no host name can hold",
            ));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Address::new(host, port)),
            _ => Err(wrong("the port must be a number from 1 to 65535")),
        }
    }
}

/// True for what may name a host, and stand in a message.
pub(super) fn is_host(host: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-_.:%".contains(c);
    host.chars().all(plain)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not HOST:PORT: {}",
            self.text.escape_debug(),
            self.problem
        )
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in ["localhost:9092", "10.0.0.1:1", "[::1]:65535", "a-b.c_d:9"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn user_and_password_in_an_address_are_refused_and_not_shown() {
        for text in [
            "user:hunter2@h:1",
            "kafka://user:hunter2@h:1",
            "a:hunter2@x@h:1",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            let expected = "'...@h:1' is not HOST:PORT: user and password belong into kafka.sasl";
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_malformed_address_is_refused_with_what_is_wrong() {
        for (text, problem) in [
            ("localhost", "port is missing"),
            ("localhost:", "from 1 to 65535"),
            ("localhost:0", "from 1 to 65535"),
            ("localhost:65536", "from 1 to 65535"),
            ("localhost:+1x", "from 1 to 65535"),
            (":9092", "host is missing"),
            ("::1:9092", "needs brackets"),
            ("[::g]:9092", "not an IPv6"),
            ("kafka://a:9092", "scheme"),
            ("a b:9092", "no host name"),
            ("", "port is missing"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
