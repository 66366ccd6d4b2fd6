//! From what a person wrote to a complete plan.
//!
//! Everything that can be refused without touching a file or the network is
//! refused here. The plan says all; nothing that runs looks back at options.

mod defaults;
mod document;
pub mod etcd;
mod file;
mod follow;
mod keep;
pub mod keys;
mod legacy;
mod object;
mod pem;
mod plan;
mod renew;
mod secret;
mod security;
mod tail;
mod units;
mod variables;

pub use defaults::LINE_BYTES_MAX_EVER;
pub use file::{FileConfig, Remote, fill_in, load, read_config, read_value};
pub use follow::{Follower, Standing, Update};
pub use plan::{Plan, Pool, Sink};
pub use renew::Renewal;
pub use secret::{open_to_all, read_secret};
pub use security::{
    Mechanism, Protocol, SaslRequest, SecurityRequest, TlsRequest, describe as describe_security,
};
pub use tail::{Input, Surroundings, TailRequest, lower_inputs, lower_sink, lower_tail};
pub use units::{parse_duration, parse_size, show_duration, show_size};

use std::fmt;
use std::sync::Arc;

/// A mistake in an option, an argument or a config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands; `None` for what was typed.
    pub place: Option<Place>,
    /// The option as it is typed, like `--topic`, the argument's name, or the
    /// path of a config key, like `kafka.brokers[1]`. Empty for a whole file.
    pub key: String,
    /// What is wrong, quoting the value.
    pub problem: String,
}

/// A place in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, or the etcd key.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Mistake {}
