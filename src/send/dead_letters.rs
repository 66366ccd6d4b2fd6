//! Records that no broker will ever accept, kept for a person to look at.
//!
//! One JSON object a line, appended and synced before the position moves past
//! the record. Nothing here reads them again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::ledger::Claim;
use crate::text::to_text;

const FILE_NAME: &str = "dead-letters.jsonl";

/// The dead-letter file of a state directory; made with the first letter.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    // Shared by the producers; a dead letter is rare, so the lock may be held
    // while it is written.
    file: Mutex<Option<File>>,
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
            file: Mutex::new(None),
        }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a record and syncs the file.
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
            value_base64: text.is_none().then(|| base64(value)),
        };
        let mut line = serde_json::to_vec(&letter)?;
        line.push(b'\n');
        let mut open = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &mut *open {
            Some(file) => file,
            None => open.insert(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .open(&self.path)?,
            ),
        };
        file.write_all(&line)?;
        file.sync_data()
    }
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            if at <= group.len() {
                let index = (bits >> (18 - 6 * at)) & 0x3f;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"\xff\xfe\xfd\xfc\xfb", "//79/Ps="),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }
}
