//! Sending: from chunks in the queue to acknowledgements in the ledger.
//!
//! Two sinks share the queue's other end: Kafka, and standard output for trying
//! things and for pipes. A line is encoded once; what comes back unsent is given
//! back to the ledger, and never kept here.

mod dead_letters;
mod format;
mod kafka;
mod lane;
mod notices;
mod stdout;

use std::sync::Arc;
use std::time::Duration;

pub use dead_letters::DeadLetters;
pub use format::Format;
pub use kafka::KafkaSender;
pub use notices::Notices;
pub use stdout::{StdoutEnd, StdoutSender};

/// Which partition a line goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Partitioning {
    /// All lines of a path to one partition, so that they keep their order.
    #[default]
    File,
    /// Batches to the partitions in turn.
    Spread,
}

/// A record's key, with `{path}` and `{host}` to be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate(pub String);

impl KeyTemplate {
    /// The key for the lines of a path.
    fn render(&self, path: &std::path::Path, host: &str) -> Vec<u8> {
        let mut key = Vec::new();
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find('{') {
            key.extend_from_slice(&rest.as_bytes()[..at]);
            rest = &rest[at..];
            if let Some(tail) = rest.strip_prefix("{path}") {
                key.extend_from_slice(path.as_os_str().as_encoded_bytes());
                rest = tail;
            } else if let Some(tail) = rest.strip_prefix("{host}") {
                key.extend_from_slice(host.as_bytes());
                rest = tail;
            } else {
                key.push(b'{');
                rest = &rest[1..];
            }
        }
        key.extend_from_slice(rest.as_bytes());
        key
    }
}

/// How lines are sent.
#[derive(Debug, Clone)]
pub struct Options {
    /// The form of a record's value.
    pub format: Format,
    /// The records' key, if they have one.
    pub key: Option<KeyTemplate>,
    /// Which partition a line goes to.
    pub partitioning: Partitioning,
    /// Compression of batches.
    pub compression: crate::kafka::Compression,
    /// Bytes of a batch before compression, at most.
    pub batch_bytes_max: usize,
    /// How long a line may wait for others to share its batch.
    pub linger: Duration,
    /// Bytes of a line that are shipped at most.
    pub line_bytes_max: usize,
    /// This host's name.
    pub host: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_key_is_filled_in_and_other_braces_are_left_alone() {
        let key = |text: &str| {
            let bytes = KeyTemplate(text.into()).render(Path::new("/a/b"), "h");
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(key("fixed"), "fixed");
        assert_eq!(key("{host}:{path}"), "h:/a/b");
        assert_eq!(key("{{path}{x}{"), "{/a/b{x}{");
    }
}
