//! Records that no broker will ever accept, kept for a person to look at.
//!
//! One JSON object a line, appended and synced before the position moves past
//! the record. A crash in between brings the record again: so the last letters are
//! read once, and one that is there already is not written a second time.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use twox_hash::XxHash3_64;

use crate::disk::{self, RealDisk};
use crate::ledger::Claim;
use crate::text::to_text;

const FILE_NAME: &str = "dead-letters.jsonl";
/// How far back letters are known again: those of a second or so, when there was no
/// checkpoint. One of a line of 1 MiB may take six times that as JSON.
const READ_BYTES_MAX: u64 = 8 << 20;
const KNOWN_MAX: usize = 10_000;

/// The dead-letter file of a state directory; made with the first letter.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    /// The file grows up to there, and no letter is written that would take it further.
    bytes_max: u64,
    // Shared by the producers; a dead letter is rare, so the lock may be held
    // while it is written.
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    /// Records, by topic and the error's name.
    counts: BTreeMap<(String, String), u64>,
    /// Hashes of the last letters' lines, of earlier runs too once they were read.
    known: Option<VecDeque<u64>>,
}

#[derive(Serialize)]
struct Letter<'a> {
    topic: &'a str,
    file: String,
    inode: u64,
    /// With it no two records have equal letters. The device would not do: its number
    /// may change with a restart of the machine.
    generation: u64,
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
    /// Dead letters kept in `directory`, in a file of at most `bytes_max` bytes.
    pub fn in_directory(directory: &Path, bytes_max: u64) -> DeadLetters {
        DeadLetters {
            path: directory.join(FILE_NAME),
            bytes_max,
            written: Mutex::default(),
        }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a record, unless a crash left it there; it is there for good when this
    /// returns. The file is opened each time: one that was moved or deleted meanwhile
    /// is no place for a letter.
    ///
    /// # Errors
    /// What the file system says; a file that would become larger than it may.
    pub fn write(&self, claim: &Claim, value: &[u8], code: i16, error: &str) -> io::Result<()> {
        let origin = claim.file().origin();
        let text = std::str::from_utf8(value).ok();
        let (from, to) = claim.range();
        let letter = Letter {
            topic: &origin.topic,
            file: to_text(&origin.path),
            inode: origin.inode,
            generation: origin.generation,
            from,
            to,
            error_code: code,
            error,
            value: text,
            value_base64: text.is_none().then(|| STANDARD.encode(value)),
        };
        let mut line = serde_json::to_vec(&letter)?;
        line.push(b'\n');
        let mut written = self.written();
        written.append_once(&self.path, &line, self.bytes_max)?;
        let counted = (origin.topic.to_string(), error.to_owned());
        *written.counts.entry(counted).or_default() += 1;
        Ok(())
    }

    /// Records written so far, by topic and the error's name.
    pub fn counts(&self) -> BTreeMap<(String, String), u64> {
        self.written().counts.clone()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    fn append_once(&mut self, path: &Path, line: &[u8], bytes_max: u64) -> io::Result<()> {
        let known = match &mut self.known {
            Some(known) => known,
            None => self.known.insert(hashes_in(path)?),
        };
        let hash = XxHash3_64::oneshot(line);
        if known.contains(&hash) {
            return Ok(());
        }
        let size = std::fs::metadata(path).map_or(0, |meta| meta.len());
        if size + line.len() as u64 > bytes_max {
            let problem = format!(
                "it has {size} bytes, and dead_letters_bytes_max is {bytes_max}: move it away, or raise that"
            );
            return Err(io::Error::other(problem));
        }
        disk::append_line(&RealDisk, path, line)?;
        if known.len() >= KNOWN_MAX {
            known.pop_front();
        }
        known.push_back(hash);
        Ok(())
    }
}

/// The hashes of the last lines of a file.
fn hashes_in(path: &Path) -> io::Result<VecDeque<u64>> {
    let end = disk::read_end(&RealDisk, path, READ_BYTES_MAX)?;
    let lines = end.split_inclusive(|byte| *byte == b'\n');
    let newest = lines.rev().take(KNOWN_MAX).map(XxHash3_64::oneshot);
    let mut hashes: VecDeque<u64> = newest.collect();
    hashes.make_contiguous().reverse();
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ledger::{FileLedger, Ledger, Mark, Origin};

    fn claim(generation: u64) -> Claim {
        let path = Path::new("/a.log");
        let origin = Origin {
            path: path.into(),
            device: 1,
            inode: 2,
            real: None,
            topic: "t".into(),
            generation,
            created_ns: None,
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
    fn a_record_that_comes_again_has_one_letter_and_one_of_another_life_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let open = || DeadLetters::in_directory(directory.path(), u64::MAX);
        let write = |letters: &DeadLetters, generation| {
            letters
                .write(&claim(generation), b"text", 10, "too large")
                .unwrap();
            std::fs::read(letters.path()).unwrap()
        };
        let first = open();
        let one = write(&first, 0);
        assert_eq!(write(&first, 0), one, "after a panic");
        let second = open();
        assert_eq!(write(&second, 0), one, "after a crash");
        let both = write(&second, 1);
        assert_eq!(both.iter().filter(|byte| **byte == b'\n').count(), 2);
        // What a crash left of a line is no letter.
        std::fs::write(second.path(), &both[..both.len() - 1]).unwrap();
        assert_eq!(write(&open(), 1), both);
    }

    /// Whoever never looks at them must not find the disk full; and nothing is lost: the
    /// record waits, and the message says why.
    #[test]
    fn a_file_of_letters_that_is_full_takes_no_more_until_it_is_moved_away() {
        let directory = tempfile::tempdir().unwrap();
        let letters = DeadLetters::in_directory(directory.path(), 200);
        let write = |generation| letters.write(&claim(generation), b"text", 10, "too large");
        write(0).unwrap();
        let error = write(1).unwrap_err().to_string();
        assert!(error.contains("move it away"), "{error}");
        std::fs::rename(letters.path(), directory.path().join("old")).unwrap();
        write(1).unwrap();
    }

    #[test]
    fn what_is_known_of_letters_is_bounded_and_is_of_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let lines: String = (0..=KNOWN_MAX).map(|n| format!("{n}\n")).collect();
        std::fs::write(&path, lines).unwrap();
        let mut written = Written::default();
        written.append_once(&path, b"1\n", u64::MAX).unwrap(); // the oldest that is known
        written.append_once(&path, b"new\n", u64::MAX).unwrap(); // in its place
        written.append_once(&path, b"1\n", u64::MAX).unwrap();
        written.append_once(&path, b"0\n", u64::MAX).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let end = format!("{KNOWN_MAX}\nnew\n1\n0\n");
        assert!(text.ends_with(&end), "{}", &text[text.len() - 40..]);
        assert_eq!(written.known.map(|known| known.len()), Some(KNOWN_MAX));
    }

    #[test]
    fn a_value_that_is_not_utf8_is_written_in_the_base64_of_the_rfc() {
        let directory = tempfile::tempdir().unwrap();
        let letters = DeadLetters::in_directory(directory.path(), u64::MAX);
        for value in [&b"text"[..], b"\xff\xfe\xfd\xfc\xfb", b"\xff"] {
            letters.write(&claim(0), value, 10, "too large").unwrap();
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
