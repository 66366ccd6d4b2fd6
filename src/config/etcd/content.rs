//! What stands under a key at one revision.
//!
//! The keys are listed first, then each value that is not known yet is read at
//! the revision of the list: the whole is consistent, and only one value at a
//! time can be large.

use super::failure::{Failure, Kind, Step};
use super::gateway::{ANSWER_BYTES_MAX, Gateway, Overflow};
use super::wire::{Answer, Bytes, Number, RangeRequest};
use crate::text::shown;

/// Keys below one key that are loaded.
const KEYS_MAX: usize = 1_000;
/// All values below one key together, in bytes.
const CONTENT_BYTES_MAX: usize = 64 << 20;
/// Room in an answer for everything but key and value, in bytes.
const ANSWER_OVERHEAD_BYTES: usize = 4 << 10;
/// How often a list is begun anew because its revision was compacted under it.
const READS_MAX: usize = 3;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Value {
    /// Its key; what is not UTF-8 in it is replaced.
    pub key: String,
    /// The revision that wrote it.
    pub mod_revision: i64,
    /// As it is, of any content.
    pub bytes: Vec<u8>,
}

/// One key, or all below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// The key itself.
    Key(String),
    /// Every key that begins so.
    Below(String),
}

/// What stands in a range.
pub struct Content {
    /// As of this revision.
    pub revision: i64,
    /// In order of keys; or what of it is too large.
    pub values: Result<Vec<Value>, Failure>,
}

impl Range {
    /// The key itself, or for a key ending in `/` every key below it.
    pub fn of(key: &str) -> Range {
        if key.ends_with('/') {
            Range::Below(key.to_owned())
        } else {
            Range::Key(key.to_owned())
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Range::Key(text) | Range::Below(text) => text,
        }
    }

    pub(super) fn key(&self) -> Bytes {
        match self {
            // An empty key is none; all keys begin at NUL.
            Range::Below(text) if text.is_empty() => Bytes(vec![0]),
            range => Bytes(range.text().as_bytes().to_vec()),
        }
    }

    /// The first key after the range: the prefix with its last byte plus one.
    pub(super) fn end(&self) -> Option<Bytes> {
        let Range::Below(prefix) = self else {
            return None;
        };
        let mut end = prefix.as_bytes().to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                return Some(Bytes(end));
            }
        }
        Some(Bytes(vec![0])) // To the last key there is.
    }
}

/// Reads a range. Values in `known` that were not written again are taken from it.
///
/// # Errors
/// In [`Step::Range`] or before.
pub fn read(
    gateway: &mut Gateway,
    range: &Range,
    value_bytes_max: usize,
    known: &[Value],
) -> Result<Content, Failure> {
    let mut reads = 0;
    loop {
        reads += 1;
        match read_once(gateway, range, value_bytes_max, known) {
            Err(failure) if failure.kind == Kind::Compacted && reads < READS_MAX => {}
            done => return done,
        }
    }
}

/// How many keys a range has.
///
/// # Errors
/// In [`Step::Range`] or before.
pub fn count(gateway: &mut Gateway, range: &Range) -> Result<i64, Failure> {
    let request = RangeRequest {
        key: range.key(),
        range_end: range.end(),
        count_only: true,
        ..RangeRequest::default()
    };
    let answer = ask(gateway, &request, ANSWER_BYTES_MAX)?;
    let answer: Answer = answer.map_err(|_| garbled(gateway, "it is too long"))?;
    Ok(answer.count.0)
}

fn read_once(
    gateway: &mut Gateway,
    range: &Range,
    value_bytes_max: usize,
    known: &[Value],
) -> Result<Content, Failure> {
    let list = list_keys(gateway, range)?;
    let revision = list.header.revision.0;
    let content = |values| Ok(Content { revision, values });
    let below = shown(range.text());
    if list.kvs.len() > KEYS_MAX {
        let problem = format!("there are more than {KEYS_MAX} keys below {below}");
        let hint = "keep only what belongs there below that key";
        return content(Err(too_large(gateway, problem, hint)));
    }
    let (mut values, mut bytes_sum) = (Vec::with_capacity(list.kvs.len()), 0);
    for entry in list.kvs {
        let is_same = |value: &&Value| {
            value.mod_revision == entry.mod_revision.0 && value.key.as_bytes() == entry.key.0
        };
        let found = match known.iter().find(is_same) {
            Some(value) => Ok(value.bytes.clone()),
            None => read_value(gateway, &entry.key, revision, value_bytes_max)?,
        };
        let bytes = match found {
            Ok(bytes) => bytes,
            Err(too_large) => return content(Err(too_large)),
        };
        bytes_sum += bytes.len();
        if bytes_sum > CONTENT_BYTES_MAX {
            let problem = format!("the values below {below} have over {CONTENT_BYTES_MAX} bytes");
            return content(Err(too_large(gateway, problem, "shorten the values")));
        }
        values.push(Value {
            key: String::from_utf8_lossy(&entry.key.0).into_owned(),
            mod_revision: entry.mod_revision.0,
            bytes,
        });
    }
    content(Ok(values))
}

/// The keys of a range and their revisions, one more than are loaded at most.
fn list_keys(gateway: &mut Gateway, range: &Range) -> Result<Answer, Failure> {
    let request = RangeRequest {
        key: range.key(),
        range_end: range.end(),
        limit: Some(Number(KEYS_MAX as i64 + 1)),
        keys_only: true,
        ..RangeRequest::default()
    };
    let answer = ask(gateway, &request, ANSWER_BYTES_MAX)?;
    answer.map_err(|_| garbled(gateway, "a list of keys is too long"))
}

/// One value as of `revision`; the inner error says that it is too large.
fn read_value(
    gateway: &mut Gateway,
    key: &Bytes,
    revision: i64,
    bytes_max: usize,
) -> Result<Result<Vec<u8>, Failure>, Failure> {
    let request = RangeRequest {
        key: key.clone(),
        revision: Some(Number(revision)),
        ..RangeRequest::default()
    };
    let room = (bytes_max + key.0.len()).div_ceil(3).saturating_mul(4);
    let size = match ask(
        gateway,
        &request,
        room.saturating_add(ANSWER_OVERHEAD_BYTES),
    )? {
        Ok(answer) => {
            let value = answer.kvs.into_iter().next().map(|kv| kv.value.0);
            let value = value.ok_or_else(|| garbled(gateway, "a listed key has no value"))?;
            if value.len() <= bytes_max {
                return Ok(Ok(value));
            }
            Some(value.len() as u64)
        }
        Err(overflow) => overflow.value_bytes,
    };
    let key = shown(String::from_utf8_lossy(&key.0).as_ref());
    let size = size.map_or("far too many".to_owned(), |size| size.to_string());
    let problem = format!("the value of {key} has {size} bytes, of which {bytes_max} are allowed");
    let hint = "shorten the value, or spread it over several keys";
    Ok(Err(too_large(gateway, problem, hint)))
}

fn ask(
    gateway: &mut Gateway,
    request: &RangeRequest,
    bytes_max: usize,
) -> Result<Result<Answer, Overflow>, Failure> {
    gateway.call(Step::Range, "/kv/range", request, bytes_max)
}

fn garbled(gateway: &Gateway, what: &str) -> Failure {
    Failure::garbled(gateway.endpoint(), Step::Range, what)
}

fn too_large(gateway: &Gateway, problem: String, hint: &'static str) -> Failure {
    let failure = Failure::new(gateway.endpoint(), Step::Range, Kind::TooLarge, problem);
    failure.with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_before_the_first_key_that_begins_otherwise() {
        let end = |range: Range| range.end().map(|bytes| bytes.0);
        assert_eq!(end(Range::of("/a")), None);
        assert_eq!(end(Range::of("/a/")), Some(b"/a0".to_vec()));
        assert_eq!(end(Range::Below("a".into())), Some(b"b".to_vec()));
        assert_eq!(end(Range::Below(String::new())), Some(vec![0]));
    }
}
