//! From what a person wrote to a complete plan.
//!
//! Everything that can be refused without touching a file or the network is
//! refused here. The plan says all; nothing that runs looks back at options.

mod plan;
mod tail;
mod units;

pub use plan::{Plan, Sink, Source};
pub use tail::{Surroundings, TailRequest, lower_tail};
pub use units::parse_duration;

use std::fmt;

/// A mistake in an option or argument.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The option as it is typed, like `--topic`, or the argument's name.
    pub key: String,
    /// What is wrong, quoting the value.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

impl std::error::Error for Mistake {}
