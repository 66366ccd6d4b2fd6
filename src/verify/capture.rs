//! What arrived, as it was captured: lines, JSON objects, what kcat shows.
//!
//! It says what a record holds and where it says that it is from; whether that is
//! so is not known here.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, de};

/// How records were captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Each line is a value.
    Raw,
    /// Each line is a value of the format json.
    Json,
    /// Each line is an object as `kcat -J` prints it.
    Kcat,
}

/// A record.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The line that it is of.
    pub line: Cow<'a, [u8]>,
    /// What was not UTF-8 in the line is U+FFFD here.
    pub lossy: bool,
    /// Where it says that it is from.
    pub place: Option<Place>,
    /// Its partition; 0 where that is not known.
    pub partition: i32,
}

/// Where a record says that it is from.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub host: Option<Vec<u8>>,
    /// The path that was tailed.
    pub path: PathBuf,
    /// Device number.
    pub device: Option<u64>,
    /// Inode number.
    pub inode: u64,
    /// Which life of the file.
    pub generation: Option<u64>,
    /// Where the line begins.
    pub offset: u64,
}

impl Input {
    /// What a capture that begins with this line is.
    pub fn of(line: &[u8]) -> Input {
        if serde_json::from_slice::<Envelope>(line).is_ok() {
            Input::Kcat
        } else if serde_json::from_slice::<Ecs>(line).is_ok() {
            Input::Json
        } else {
            Input::Raw
        }
    }

    /// The record that a line is.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn record<'a>(self, line: &'a [u8]) -> Result<Record<'a>, String> {
        match self {
            Input::Raw => Ok(Record {
                line: Cow::Borrowed(line),
                lossy: false,
                place: None,
                partition: 0,
            }),
            Input::Json => match serde_json::from_slice::<Ecs>(line) {
                Ok(ecs) => ecs.record(0),
                Err(error) => Err(format!("it is no record of --format json: {error}")),
            },
            Input::Kcat => match serde_json::from_slice::<Envelope>(line) {
                Ok(envelope) => envelope.record(),
                Err(error) => Err(format!("it is not what kcat -J prints: {error}")),
            },
        }
    }
}

/// What `kcat -J` prints of a record. It copies the bytes of headers and payload,
/// whatever they are, into strings of JSON.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "topic")]
    _topic: de::IgnoredAny,
    partition: i32,
    #[serde(rename = "offset")]
    _offset: i64,
    #[serde(default)]
    headers: Vec<Option<Bytes>>,
    payload: Option<Bytes>,
}

/// A value of the format json.
#[derive(Deserialize)]
struct Ecs {
    message: Bytes,
    log: EcsLog,
    #[serde(default)]
    host: EcsHost,
}

#[derive(Deserialize)]
struct EcsLog {
    file: EcsFile,
    offset: u64,
}

#[derive(Deserialize)]
struct EcsFile {
    path: Bytes,
    inode: String,
    device_id: String,
}

#[derive(Deserialize, Default)]
struct EcsHost {
    name: Option<Bytes>,
}

impl Envelope {
    fn record<'a>(self) -> Result<Record<'a>, String> {
        let Some(Bytes(payload)) = self.payload else {
            return Err("it has no payload".to_owned());
        };
        let place = place_in(&self.headers)?;
        let ecs = serde_json::from_slice::<Ecs>(&payload).ok();
        // A line may look like that, too: then its headers say something else.
        let ecs = ecs.filter(|ecs| place.as_ref().is_none_or(|place| ecs.is_at(place)));
        let Some(ecs) = ecs else {
            return Ok(Record {
                line: Cow::Owned(payload),
                lossy: false,
                place,
                partition: self.partition,
            });
        };
        let record = ecs.record(self.partition)?;
        Ok(Record {
            place: place.or(record.place),
            ..record
        })
    }
}

impl Ecs {
    fn is_at(&self, place: &Place) -> bool {
        let inode = self.log.file.inode.parse();
        (inode, self.log.offset) == (Ok(place.inode), place.offset)
    }

    fn record<'a>(self, partition: i32) -> Result<Record<'a>, String> {
        let file = self.log.file;
        Ok(Record {
            line: Cow::Owned(self.message.0),
            lossy: true,
            place: Some(Place {
                host: self.host.name.map(|name| name.0),
                path: path(&file.path.0),
                device: Some(number("log.file.device_id", file.device_id.as_bytes())?),
                inode: number("log.file.inode", file.inode.as_bytes())?,
                generation: None,
                offset: self.log.offset,
            }),
            partition,
        })
    }
}

/// Where headers say that a record is from; other headers may stand among them.
fn place_in(headers: &[Option<Bytes>]) -> Result<Option<Place>, String> {
    let mut place = Place::default();
    let (mut inode, mut offset) = (None, None);
    for pair in headers.chunks(2) {
        let [Some(Bytes(name)), Some(Bytes(value))] = pair else {
            continue;
        };
        match &name[..] {
            b"path" => place.path = path(value),
            b"host" => place.host = Some(value.clone()),
            b"device" => place.device = Some(number("device", value)?),
            b"inode" => inode = Some(number("inode", value)?),
            b"generation" => place.generation = Some(number("generation", value)?),
            b"offset" => offset = Some(number("offset", value)?),
            _ => {}
        }
    }
    let numbers = inode.zip(offset);
    Ok(numbers.map(|(inode, offset)| Place {
        inode,
        offset,
        ..place
    }))
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn number(name: &str, text: &[u8]) -> Result<u64, String> {
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("{name} is no number: '{}'", text.escape_ascii()))
}

/// A string of JSON, also where it is not UTF-8.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct AnyString;
        impl Visitor<'_> for AnyString {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(AnyString)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kcat 1.7.1 printed it.
    const KCAT: &[u8] = b"{\"topic\":\"h1\",\"partition\":3,\"offset\":1,\"tstype\":\"create\",\"ts\":1795793893117,\"broker\":1,\
        \"headers\":[\"path\",\"/tmp/a\xff.log\",\"trace\",null,\"host\",\"vm\",\"device\",\"65024\",\"inode\",\"10094319\",\"generation\",\"2\",\"offset\",\"4\"],\
        \"key\":null,\"payload\":\"two \xff\xfe \\u0000\\\"\"}";
    const ECS: &[u8] = br#"{"@timestamp":"2026-11-27T15:38:14.295Z","message":"one \u0000\ufffd","log":{"file":{"path":"/tmp/a.log","inode":"10094319","device_id":"65024"},"offset":17,"flags":["invalid_utf8"]},"host":{"name":"vm"},"agent":{"type":"logship","version":"0.1.0"},"labels":{}}"#;

    #[test]
    fn what_kcat_shows_is_read_byte_for_byte() {
        assert_eq!(Input::of(KCAT), Input::Kcat);
        let expected = Record {
            line: Cow::Borrowed(b"two \xff\xfe \0\""),
            lossy: false,
            place: Some(Place {
                host: Some(b"vm".to_vec()),
                path: path(b"/tmp/a\xff.log"),
                device: Some(65024),
                inode: 10_094_319,
                generation: Some(2),
                offset: 4,
            }),
            partition: 3,
        };
        assert_eq!(Input::Kcat.record(KCAT), Ok(expected));
    }

    #[test]
    fn a_json_record_says_where_it_is_from() {
        assert_eq!(Input::of(ECS), Input::Json);
        let expected = |partition| Record {
            line: Cow::Borrowed("one \0\u{fffd}".as_bytes()),
            lossy: true,
            place: Some(Place {
                host: Some(b"vm".to_vec()),
                path: path(b"/tmp/a.log"),
                device: Some(65024),
                inode: 10_094_319,
                generation: None,
                offset: 17,
            }),
            partition,
        };
        assert_eq!(Input::Json.record(ECS), Ok(expected(0)));

        let payload = serde_json::to_string(std::str::from_utf8(ECS).unwrap()).unwrap();
        let inside =
            format!(r#"{{"topic":"t","partition":1,"offset":0,"key":null,"payload":{payload}}}"#);
        assert_eq!(Input::Kcat.record(inside.as_bytes()), Ok(expected(1)));
    }

    /// A log may hold lines that were shipped by another logship.
    #[test]
    fn headers_tell_a_json_record_from_a_line_that_looks_like_one() {
        let payload = serde_json::to_string(std::str::from_utf8(ECS).unwrap()).unwrap();
        for (offset, is_json) in [(17, true), (18, false)] {
            let text = format!(
                r#"{{"topic":"t","partition":1,"offset":0,"headers":["inode","10094319","generation","7","offset","{offset}"],"payload":{payload}}}"#
            );
            let record = Input::Kcat.record(text.as_bytes()).unwrap();
            assert_eq!((record.lossy, record.line != ECS), (is_json, is_json));
            assert_eq!(record.place.unwrap().generation, Some(7));
        }
    }

    #[test]
    fn anything_else_is_a_line() {
        for line in [
            &b""[..],
            b"a line",
            b"{\"topic\":1}",
            b"\xff",
            b"null",
            b"[]",
        ] {
            assert_eq!(Input::of(line), Input::Raw, "{line:?}");
            assert_eq!(Input::Raw.record(line).unwrap().line, line);
        }
        let bare = br#"{"topic":"t","partition":0,"offset":0,"payload":"x"}"#;
        assert_eq!(Input::Kcat.record(bare).unwrap().place, None);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        let problem = |input: Input, line: &str| input.record(line.as_bytes()).unwrap_err();
        let cut = problem(Input::Kcat, r#"{"topic":"t","partition":0,"off"#);
        assert!(
            cut.starts_with("it is not what kcat -J prints: EOF"),
            "{cut}"
        );
        let empty = r#"{"topic":"t","partition":0,"offset":0,"payload":null}"#;
        assert_eq!(problem(Input::Kcat, empty), "it has no payload");
        let headers =
            r#"{"topic":"t","partition":0,"offset":0,"payload":"","headers":["inode","x"]}"#;
        assert_eq!(problem(Input::Kcat, headers), "inode is no number: 'x'");
        let other = problem(Input::Json, r#"{"message":"x"}"#);
        assert!(other.contains("missing field `log`"), "{other}");
    }
}
