//! What a record of a source looks like: format, key, labels, partition.
//!
//! It is chosen where the source is configured, and every chunk carries it to
//! the producer, so that a change of the configuration needs no new thread and
//! what was read before keeps the shape it was read for. Nothing here encodes.

use std::collections::BTreeMap;
use std::path::Path;

/// The form of a record's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// The line's bytes.
    #[default]
    Raw,
    /// An object with the names of the Elastic Common Schema.
    Json,
}

/// Which partition a line goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Partitioning {
    /// All lines of a path to one partition, so that they keep their order.
    #[default]
    File,
    /// Batches to the partitions in turn.
    Spread,
}

/// A record's key, with `{path}` and `{host}` to be filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyTemplate(pub String);

/// How the lines of a source become records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The form of a record's value.
    pub format: Format,
    /// The records' key, if they have one.
    pub key: Option<KeyTemplate>,
    /// Which partition a line goes to.
    pub partitioning: Partitioning,
    /// Names and values that a JSON record says under `labels`.
    pub labels: BTreeMap<String, String>,
    /// Records have headers that say where they came from.
    pub headers: bool,
    /// Bytes of a line that are shipped at most.
    pub line_bytes_max: usize,
    /// An empty line is dropped, and counted.
    pub skip_empty: bool,
}

impl KeyTemplate {
    /// The key for the lines of a path.
    pub fn render(&self, path: &Path, host: &str) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
