//! Records that no broker will ever accept, kept for a person to look at.
//!
//! One JSON object a line, appended and synced before the position moves past
//! the record. Nothing here reads them again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::disk::{self, RealDisk};
use crate::ledger::Claim;
use crate::text::to_text;

const FILE_NAME: &str = "dead-letters.jsonl";

/// The dead-letter file of a state directory; made with the first letter.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    /// Records written, by topic and the error's name.
    // Shared by the producers; a dead letter is rare, so the lock may be held
    // while it is written.
    counts: Mutex<BTreeMap<(String, String), u64>>,
}

#[derive(Serialize)]
struct Letter<'a> {
    topic: &'a str,
    file: String,
    inode: u64,
    from: u64,
    to: u64,
    error_code: i16,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl DeadLetters {
    /// Dead letters kept in `directory`.
    pub fn in_directory(directory: &Path) -> DeadLetters {
        DeadLetters {
            path: directory.join(FILE_NAME),
            counts: Mutex::default(),
        }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a record; it is there for good when this returns. The file is opened
    /// each time: one that was moved or deleted meanwhile is no place for a letter.
    pub fn write(&self, claim: &Claim, value: &[u8], code: i16, error: &str) -> io::Result<()> {
        let origin = claim.file().origin();
        let text = std::str::from_utf8(value).ok();
        let (from, to) = claim.range();
        let letter = Letter {
            topic: &origin.topic,
            file: to_text(&origin.path),
            inode: origin.inode,
            from,
            to,
            error_code: code,
            error,
            value: text,
            value_base64: text.is_none().then(|| STANDARD.encode(value)),
        };
        let mut line = serde_json::to_vec(&letter)?;
        line.push(b'\n');
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        disk::append_line(&RealDisk, &self.path, &line)?;
        *counts
            .entry((origin.topic.to_string(), error.to_owned()))
            .or_default() += 1;
        Ok(())
    }

    /// Records written so far, by topic and the error's name.
    pub fn counts(&self) -> BTreeMap<(String, String), u64> {
        let counts = self.counts.lock();
        counts.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ledger::{FileLedger, Ledger, Mark, Origin};

    fn claim() -> Claim {
        let path = Path::new("/a.log");
        let origin = Origin {
            path: path.into(),
            device: 1,
            inode: 2,
            real: None,
            topic: "t".into(),
            generation: 0,
        };
        let flow = Ledger::default().flow("h", path, &origin.topic);
        let file = Arc::new(FileLedger::new(
            origin,
            flow,
            3,
            Mark::default(),
            Mark::default(),
        ));
        file.claim(3, 9, 1, Mark::default()).hand_on();
        Claim::new(file, (3, 9), 1, 0)
    }

    #[test]
    fn a_value_that_is_not_utf8_is_written_in_the_base64_of_the_rfc() {
        let directory = tempfile::tempdir().unwrap();
        let letters = DeadLetters::in_directory(directory.path());
        for value in [&b"text"[..], b"\xff\xfe\xfd\xfc\xfb", b"\xff"] {
            letters.write(&claim(), value, 10, "too large").unwrap();
        }
        let text = std::fs::read_to_string(letters.path()).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["value"], "text");
        assert!(lines[0].get("value_base64").is_none());
        // RFC 4648, section 4: the alphabet with + and /, and padding.
        assert_eq!(lines[1]["value_base64"], "//79/Ps=");
        assert_eq!(lines[2]["value_base64"], "/w==");
        assert!(lines[1].get("value").is_none());
    }
}
