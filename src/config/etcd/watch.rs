//! The stream of changes below one key.
//!
//! It tells that something changed and up to which revision, never the values:
//! whoever follows reads them anew, so that nothing large passes through here.

use std::io::{self, BufRead, BufReader};

use ureq::BodyReader;

use super::content::Range;
use super::endpoint::Endpoint;
use super::failure::{Failure, Kind, Step};
use super::gateway::Gateway;
use super::wire::{CreateRequest, Number, WatchLine, WatchRequest};

/// Longest line that is looked into; a longer one holds events for certain.
const LINE_BYTES_MAX: usize = 256 << 10;

/// An open watch. Dropping it closes its connection, which ends it.
pub struct Watch {
    endpoint: Endpoint,
    lines: Lines<BufReader<BodyReader<'static>>>,
}

/// What a watch tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Watched {
    /// It stands.
    Created,
    /// Something changed, up to this revision if that is known.
    Changed(Option<i64>),
    /// It lives.
    Progress,
    /// Nothing for a while.
    Silence,
}

impl Watch {
    /// Asks for all changes since `revision`, itself included.
    ///
    /// # Errors
    /// In [`Step::Watch`] or before.
    pub fn open(gateway: &mut Gateway, range: &Range, revision: i64) -> Result<Watch, Failure> {
        let request = WatchRequest {
            create_request: CreateRequest {
                key: range.key(),
                range_end: range.end(),
                start_revision: Number(revision),
                progress_notify: true,
            },
        };
        let response = gateway.stream("/watch", &request)?;
        Ok(Watch {
            endpoint: gateway.endpoint().clone(),
            lines: Lines::new(BufReader::new(response.into_body().into_reader())),
        })
    }

    /// Waits for the next line, or some seconds.
    ///
    /// # Errors
    /// The end of the watch, for whatever reason.
    pub fn next(&mut self) -> Result<Watched, Failure> {
        match self.lines.next() {
            Ok(Line::Whole(line)) => read_line(&self.endpoint, &line),
            Ok(Line::TooLong) => Ok(Watched::Changed(None)),
            Ok(Line::NotYet) => Ok(Watched::Silence),
            Ok(Line::End) => Err(self.failure(Kind::Unreachable, "etcd has closed the connection")),
            Err(error) => {
                let error = ureq::Error::from(error);
                Err(Failure::http(&self.endpoint, Step::Watch, &error))
            }
        }
    }

    /// That no confirmation came in time.
    pub fn never_confirmed(&self) -> Failure {
        self.failure(Kind::Unwatchable, "it was not confirmed in time")
    }

    fn failure(&self, kind: Kind, problem: &str) -> Failure {
        Failure::new(&self.endpoint, Step::Watch, kind, problem.to_owned())
    }
}

fn read_line(endpoint: &Endpoint, line: &[u8]) -> Result<Watched, Failure> {
    let garbled = |what: &str| Failure::garbled(endpoint, Step::Watch, what);
    let parsed: WatchLine =
        serde_json::from_slice(line).map_err(|error| garbled(&error.to_string()))?;
    if parsed.error.is_some() {
        return Err(Failure::refusal(endpoint, Step::Watch, 500, line));
    }
    let result = parsed
        .result
        .ok_or_else(|| garbled("neither result nor error"))?;
    // A watch that is refused says `created` as well.
    if result.canceled {
        if result.compact_revision.0 > 0 {
            let problem = "the revision to watch from has been compacted".to_owned();
            return Err(Failure::new(
                endpoint,
                Step::Watch,
                Kind::Compacted,
                problem,
            ));
        }
        let reason = serde_json::json!({ "message": result.cancel_reason });
        let reason = reason.to_string();
        return Err(Failure::refusal(
            endpoint,
            Step::Watch,
            500,
            reason.as_bytes(),
        ));
    }
    if result.created {
        return Ok(Watched::Created);
    }
    let newest = result
        .events
        .iter()
        .map(|event| event.kv.mod_revision.0)
        .max();
    Ok(newest.map_or(Watched::Progress, |newest| Watched::Changed(Some(newest))))
}

/// Cuts a stream into lines without ever keeping a long one.
struct Lines<R> {
    stream: R,
    line: Vec<u8>,
    too_long: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Whole(Vec<u8>),
    TooLong,
    NotYet,
    End,
}

impl<R: BufRead> Lines<R> {
    fn new(stream: R) -> Lines<R> {
        Lines {
            stream,
            line: Vec::new(),
            too_long: false,
        }
    }

    fn next(&mut self) -> io::Result<Line> {
        loop {
            let bytes = match self.stream.fill_buf() {
                Ok([]) => return Ok(Line::End),
                Ok(bytes) => bytes,
                // What has come of a line is kept until the rest comes.
                Err(error) if is_silence(&error) => return Ok(Line::NotYet),
                Err(error) => return Err(error),
            };
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            self.too_long |= self.line.len() + piece.len() > LINE_BYTES_MAX;
            if self.too_long {
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(piece);
            }
            let used = piece.len() + usize::from(end.is_some());
            self.stream.consume(used);
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                if std::mem::take(&mut self.too_long) {
                    return Ok(Line::TooLong);
                }
                if !line.trim_ascii().is_empty() {
                    return Ok(Line::Whole(line));
                }
            }
        }
    }
}

/// True for the time limit of one read, after which the stream can be read on.
fn is_silence(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(ureq::Error::Timeout(ureq::Timeout::PerRead)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Watched, Kind> {
        let endpoint = "http://a:1".parse().unwrap();
        read_line(&endpoint, line.as_bytes()).map_err(|failure| failure.kind)
    }

    #[test]
    fn a_line_tells_what_happened_to_the_watch() {
        for (line, watched) in [
            (
                r#"{"result":{"header":{"revision":"2"},"created":true}}"#,
                Ok(Watched::Created),
            ),
            (
                r#"{"result": {"header": {"revision": "9"}}}"#,
                Ok(Watched::Progress),
            ),
            (
                r#"{"result":{"events":[{"kv":{"mod_revision":"3"}},{"type":"DELETE","kv":{"mod_revision":4}}]}}"#,
                Ok(Watched::Changed(Some(4))),
            ),
            (
                r#"{"result":{"created":true,"canceled":true,"cancel_reason":"etcdserver: permission denied"}}"#,
                Err(Kind::Refused),
            ),
            (
                r#"{"result":{"created":true,"canceled":true,"cancel_reason":"etcdserver: invalid auth token"}}"#,
                Err(Kind::Token),
            ),
            (
                r#"{"result":{"canceled":true,"compact_revision":"7"}}"#,
                Err(Kind::Compacted),
            ),
            (r#"{"result":{"canceled":true}}"#, Err(Kind::Unreachable)),
            (
                r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#,
                Err(Kind::Unreachable),
            ),
            (
                r#"{"error": {"code": 7, "message": "etcdserver: permission denied"}}"#,
                Err(Kind::Refused),
            ),
            ("{}", Err(Kind::Unreachable)),
            ("<html>", Err(Kind::Unreachable)),
        ] {
            assert_eq!(read(line), watched, "{line}");
        }
    }

    #[test]
    fn a_line_over_the_limit_is_passed_over_and_the_next_is_whole() {
        let long = vec![b'x'; LINE_BYTES_MAX * 3];
        let stream = [&b"one\n\n"[..], &long, b"\ntwo\nrest"].concat();
        let mut lines = Lines::new(BufReader::new(&stream[..]));
        assert_eq!(lines.next().unwrap(), Line::Whole(b"one".to_vec()));
        assert_eq!(lines.next().unwrap(), Line::TooLong);
        assert_eq!(lines.next().unwrap(), Line::Whole(b"two".to_vec()));
        assert_eq!(lines.next().unwrap(), Line::End);
    }
}
