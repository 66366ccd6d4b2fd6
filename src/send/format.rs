//! How a line becomes the value of a record.
//!
//! It sees one line at a time and knows nothing of batches.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::ledger::Origin;
use crate::record::Shape;

/// A line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The bytes to ship, at most `line_bytes_max`.
    pub bytes: &'a [u8],
    /// Offset of the line in its file.
    pub offset: u64,
    /// It was longer than `line_bytes_max`.
    pub cut: bool,
}

/// Writes lines as JSON objects; what does not change from line to line is
/// written once.
#[derive(Debug)]
pub struct JsonWriter {
    host: Arc<str>,
    prepared: Option<(Origin, Arc<Shape>)>,
    /// From after the message to the offset.
    middle: Vec<u8>,
    /// From after the offset and flags to the end.
    tail: Vec<u8>,
    timestamp: (i64, String),
    value: Vec<u8>,
}

impl JsonWriter {
    /// A writer for lines of this host.
    pub fn new(host: Arc<str>) -> JsonWriter {
        JsonWriter {
            host,
            prepared: None,
            middle: Vec::new(),
            tail: Vec::new(),
            timestamp: (i64::MIN, String::new()),
            value: Vec::new(),
        }
    }

    /// The object for a line of a file, read at `read_at_ms` since 1970.
    ///
    /// Invalid UTF-8 becomes U+FFFD, which `log.flags` then says.
    pub fn write(
        &mut self,
        origin: &Origin,
        shape: &Arc<Shape>,
        read_at_ms: i64,
        line: Line,
    ) -> &[u8] {
        let known =
            |(known, with): &(Origin, Arc<Shape>)| known == origin && Arc::ptr_eq(with, shape);
        if !self.prepared.as_ref().is_some_and(known) {
            self.prepare(origin, shape);
        }
        if self.timestamp.0 != read_at_ms {
            let since = Duration::from_millis(u64::try_from(read_at_ms).unwrap_or(0));
            let text = humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string();
            self.timestamp = (read_at_ms, text);
        }
        let out = &mut self.value;
        out.clear();
        out.extend_from_slice(b"{\"@timestamp\":\"");
        out.extend_from_slice(self.timestamp.1.as_bytes());
        out.extend_from_slice(b"\",\"message\":\"");
        let replaced = escape(line.bytes, out);
        out.extend_from_slice(&self.middle);
        push_number(line.offset, out);
        match (line.cut, replaced) {
            (false, false) => {}
            (true, false) => out.extend_from_slice(b",\"flags\":[\"truncated\"]"),
            (false, true) => out.extend_from_slice(b",\"flags\":[\"invalid_utf8\"]"),
            (true, true) => out.extend_from_slice(b",\"flags\":[\"truncated\",\"invalid_utf8\"]"),
        }
        out.extend_from_slice(&self.tail);
        out
    }

    fn prepare(&mut self, origin: &Origin, shape: &Arc<Shape>) {
        let mut path = Vec::new();
        escape(origin.path.as_os_str().as_encoded_bytes(), &mut path);
        let mut host = Vec::new();
        escape(self.host.as_bytes(), &mut host);
        self.middle = [
            b"\",\"log\":{\"file\":{\"path\":\"".as_slice(),
            &path,
            b"\",\"inode\":\"",
            origin.inode.to_string().as_bytes(),
            b"\",\"device_id\":\"",
            origin.device.to_string().as_bytes(),
            b"\"},\"offset\":",
        ]
        .concat();
        self.tail = [
            b"},\"host\":{\"name\":\"".as_slice(),
            &host,
            b"\"},\"agent\":{\"type\":\"logship\",\"version\":\"",
            env!("CARGO_PKG_VERSION").as_bytes(),
            b"\"},\"labels\":{",
        ]
        .concat();
        for (at, (name, value)) in shape.labels.iter().enumerate() {
            self.tail
                .extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
            escape(name.as_bytes(), &mut self.tail);
            self.tail.extend_from_slice(b"\":\"");
            escape(value.as_bytes(), &mut self.tail);
            self.tail.push(b'"');
        }
        self.tail.extend_from_slice(b"}}");
        self.prepared = Some((origin.clone(), Arc::clone(shape)));
    }
}

/// Appends bytes as the inside of a JSON string (RFC 8259, section 7). True
/// when some were not UTF-8 and became U+FFFD.
fn escape(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    if let Ok(text) = std::str::from_utf8(bytes) {
        escape_str(text, out);
        return false;
    }
    for chunk in bytes.utf8_chunks() {
        escape_str(chunk.valid(), out);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    true
}

/// Copies runs that need no escape at once.
fn escape_str(text: &str, out: &mut Vec<u8>) {
    const PLAIN: [bool; 256] = {
        let mut plain = [true; 256];
        let mut byte = 0;
        while byte < 0x20 {
            plain[byte] = false;
            byte += 1;
        }
        plain[b'"' as usize] = false;
        plain[b'\\' as usize] = false;
        plain
    };
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| !PLAIN[byte as usize]) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                let mut code = String::with_capacity(6);
                let _ = write!(code, "\\u{byte:04x}");
                out.extend_from_slice(code.as_bytes());
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends a number in decimal.
pub fn push_number(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Format, Partitioning};
    use serde_json::{Value, json};
    use std::path::PathBuf;

    fn written(bytes: &[u8], cut: bool) -> Value {
        let origin = Origin {
            path: PathBuf::from("/var/log/a \"b\".log"),
            real: None,
            topic: "t".into(),
            device: 3,
            inode: 4,
            generation: 0,
            created_ns: None,
        };
        let mut writer = JsonWriter::new("host\\1".into());
        let line = Line {
            bytes,
            offset: u64::MAX,
            cut,
        };
        let shape = Arc::new(Shape {
            format: Format::Json,
            key: None,
            partitioning: Partitioning::File,
            labels: [("a\"b".to_owned(), "\n".to_owned())].into(),
            headers: false,
            line_bytes_max: 1,
            skip_empty: false,
        });
        serde_json::from_slice(writer.write(&origin, &shape, 1_700_000_000_123, line)).unwrap()
    }

    #[test]
    fn a_line_becomes_an_object_with_ecs_names() {
        assert_eq!(
            written(b"hello", false),
            json!({
                "@timestamp": "2023-11-14T22:13:20.123Z",
                "message": "hello",
                "log": {
                    "file": {"path": "/var/log/a \"b\".log", "inode": "4", "device_id": "3"},
                    "offset": u64::MAX,
                },
                "host": {"name": "host\\1"},
                "agent": {"type": "logship", "version": env!("CARGO_PKG_VERSION")},
                "labels": {"a\"b": "\n"},
            })
        );
    }

    #[test]
    fn every_character_survives_the_escape() {
        let all: String = (0..0x250)
            .filter_map(char::from_u32)
            .chain("😀".chars())
            .collect();
        assert_eq!(written(all.as_bytes(), false)["message"], all.as_str());
    }

    #[test]
    fn invalid_utf8_and_cut_lines_are_flagged() {
        let value = written(b"a\xff\xfeb", true);
        assert_eq!(value["message"], "a\u{fffd}\u{fffd}b");
        assert_eq!(value["log"]["flags"], json!(["truncated", "invalid_utf8"]));
        assert_eq!(written(b"", true)["log"]["flags"], json!(["truncated"]));
        assert_eq!(written(b"x", false)["log"].get("flags"), None);
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 9, 10, u64::MAX] {
            let mut out = Vec::new();
            push_number(number, &mut out);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
