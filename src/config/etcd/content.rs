//! What stands under a key at one revision.
//!
//! The keys are listed first, then each value that is not known yet is read at
//! the revision of the list: the whole is consistent, and only one value at a
//! time can be large.

use super::failure::{Failure, Kind, Step};
use super::gateway::{ANSWER_BYTES_MAX, Gateway, Overflow};
use super::wire::{Answer, Bytes, KeyValue, Number, RangeRequest};
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

/// A value over the limit, which is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLarge {
    /// Its key; what is not UTF-8 in it is replaced.
    pub key: String,
    /// The revision that wrote it.
    pub mod_revision: i64,
    /// How large it is and may be, in a sentence.
    pub problem: String,
}

/// The values of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    /// In order of keys.
    pub loaded: Vec<Value>,
    /// Those over the limit, in order of keys.
    pub too_large: Vec<TooLarge>,
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
    /// Or why there is too much of them.
    pub values: Result<Values, Failure>,
}

impl TooLarge {
    /// The same for whoever needs all values or none.
    pub fn into_failure(self, gateway: &Gateway) -> Failure {
        let hint = "shorten the value, or spread it over several keys";
        too_large(gateway, self.problem, hint)
    }
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
/// One over the limit does not keep back the others.
///
/// # Errors
/// In [`Step::Range`] or before.
pub fn read(
    gateway: &mut Gateway,
    range: &Range,
    value_bytes_max: usize,
    known: &Values,
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
    known: &Values,
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
    let (mut values, mut bytes_sum) = (Values::default(), 0);
    for entry in list.kvs {
        let found = match known.find(&entry) {
            Some(found) => found,
            None => read_value(gateway, &entry, revision, value_bytes_max)?,
        };
        match found {
            Ok(value) => {
                bytes_sum += value.bytes.len();
                values.loaded.push(value);
            }
            Err(too_large) => values.too_large.push(too_large),
        }
        if bytes_sum > CONTENT_BYTES_MAX {
            let problem = format!("the values below {below} have over {CONTENT_BYTES_MAX} bytes");
            return content(Err(too_large(gateway, problem, "shorten the values")));
        }
    }
    content(Ok(values))
}

impl Values {
    /// What is known of a listed key, if it was not written again.
    fn find(&self, listed: &KeyValue) -> Option<Result<Value, TooLarge>> {
        let is_same = |key: &str, mod_revision: i64| {
            mod_revision == listed.mod_revision.0 && key.as_bytes() == listed.key.0
        };
        let loaded = self.loaded.iter();
        let mut loaded = loaded.filter(|value| is_same(&value.key, value.mod_revision));
        let too_large = self.too_large.iter();
        let mut too_large = too_large.filter(|value| is_same(&value.key, value.mod_revision));
        let refused = || too_large.next().cloned().map(Err);
        loaded.next().cloned().map(Ok).or_else(refused)
    }
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
    listed: &KeyValue,
    revision: i64,
    bytes_max: usize,
) -> Result<Result<Value, TooLarge>, Failure> {
    let request = RangeRequest {
        key: listed.key.clone(),
        revision: Some(Number(revision)),
        ..RangeRequest::default()
    };
    let key = String::from_utf8_lossy(&listed.key.0).into_owned();
    let mod_revision = listed.mod_revision.0;
    let room = (bytes_max + listed.key.0.len()).div_ceil(3);
    let room = room.saturating_mul(4).saturating_add(ANSWER_OVERHEAD_BYTES);
    let size = match ask(gateway, &request, room)? {
        Ok(answer) => {
            let value = answer.kvs.into_iter().next().map(|kv| kv.value.0);
            let bytes = value.ok_or_else(|| garbled(gateway, "a listed key has no value"))?;
            if bytes.len() <= bytes_max {
                return Ok(Ok(Value {
                    key,
                    mod_revision,
                    bytes,
                }));
            }
            Some(bytes.len() as u64)
        }
        Err(overflow) => overflow.value_bytes,
    };
    let size = size.map_or("far too many".to_owned(), |size| size.to_string());
    let problem = format!(
        "the value of {} has {size} bytes, of which {bytes_max} are allowed",
        shown(&key)
    );
    Ok(Err(TooLarge {
        key,
        mod_revision,
        problem,
    }))
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
