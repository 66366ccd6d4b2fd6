//! The little of HTTP/1.1 that is served: request heads in, responses out.
//!
//! RFC 9110 and 9112. Every response ends its connection, and no body is read:
//! none of the requests that are answered means anything by one.

use std::time::{SystemTime, UNIX_EPOCH};

use httparse::{EMPTY_HEADER, Error, Header, Status};

use super::metrics::Format;

/// Bytes of a request's head, from its first line to the empty one.
pub(super) const HEAD_BYTES_MAX: usize = 8 << 10;
/// Fields of a request's head.
const FIELDS_MAX: usize = 64;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Like `GET`.
    pub method: String,
    /// The path of the target, without its query.
    pub path: String,
    /// How metrics are wanted.
    pub format: Format,
}

/// What the bytes that came so far are.
#[derive(Debug)]
pub(super) enum Parsed {
    /// The beginning of a head.
    Unfinished,
    /// A request.
    Request(Request),
    /// Nothing that could be answered otherwise.
    Refused(Response),
}

/// Reads a request's head.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(bytes) {
        Ok(Status::Complete(length)) if length <= HEAD_BYTES_MAX => understand(&head),
        Ok(Status::Partial) if bytes.len() < HEAD_BYTES_MAX => Parsed::Unfinished,
        Ok(_) | Err(Error::TooManyHeaders) => Parsed::Refused(Response::text(
            431,
            format!("at most {HEAD_BYTES_MAX} bytes and {FIELDS_MAX} header fields are read\n"),
        )),
        Err(Error::Version) => Parsed::Refused(Response::text(505, "this is HTTP/1.1\n")),
        Err(error) => Parsed::Refused(Response::text(400, format!("not a request: {error}\n"))),
    }
}

fn understand(head: &httparse::Request<'_, '_>) -> Parsed {
    let hosts = values(head.headers, "host").count();
    if hosts > 1 || (hosts == 0 && head.version == Some(1)) {
        let problem = "a request has one Host field (RFC 9112, 3.2)\n";
        return Parsed::Refused(Response::text(400, problem));
    }
    Parsed::Request(Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: path(head.path.unwrap_or_default()).to_owned(),
        format: wanted_format(values(head.headers, "accept")),
    })
}

/// The values of a field, however often it is there.
fn values<'a>(fields: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value)
}

/// The path of a target in origin form or, as proxies write it, absolute form
/// (RFC 9112, 3.2).
fn path(target: &str) -> &str {
    let target = target.split(['?', '#']).next().unwrap_or_default();
    match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    }
}

/// OpenMetrics where it is asked for by name, in a version that this is, and
/// not less than plain text is (RFC 9110, 12.5.1).
fn wanted_format<'a>(accepts: impl Iterator<Item = &'a [u8]>) -> Format {
    let (mut open, mut plain) = (0.0, 0.0);
    for accept in accepts {
        let accept = String::from_utf8_lossy(accept).to_ascii_lowercase();
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let parameter = |name| {
                let mut found = parameters.iter().filter(|(key, _)| key.trim() == name);
                found.next().map(|(_, value)| value.trim())
            };
            let weight = parameter("q").map_or(Ok(1.0), str::parse).unwrap_or(0.0);
            let version = parameter("version").map(|version| version.trim_matches('"'));
            match kind {
                "application/openmetrics-text" if version.is_none_or(|v| v == "1.0.0") => {
                    open = weight;
                }
                "text/plain" => plain = weight,
                _ => {}
            }
        }
    }
    if open > 0.0 && open >= plain {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Response {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Response {
    /// A response with a body of this type.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Response {
        Response {
            status,
            content_type,
            body: body.into(),
        }
    }

    /// A response for people.
    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response::new(status, "text/plain; charset=utf-8", body)
    }

    /// The bytes to send. The response to HEAD has the same fields and no body.
    pub fn into_bytes(self, to_head: bool) -> Vec<u8> {
        let allow = if self.status == 405 {
            "Allow: GET, HEAD\r\n"
        } else {
            ""
        };
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\n{allow}Content-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.status,
            phrase(self.status),
            date(SystemTime::now()),
            self.content_type,
            self.body.len(),
        )
        .into_bytes();
        if !to_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// A moment as the field Date has it: `Sun, 06 Nov 1994 08:49:37 GMT`
/// (RFC 9110, 5.6.7).
fn date(moment: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let weekday = DAYS[(since.as_secs() / 86_400 % 7) as usize]; // 1 January 1970 was a Thursday
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string();
    let (year, month, day, time) = (&text[..4], &text[5..7], &text[8..10], &text[11..19]);
    let month = MONTHS[month.parse::<usize>().map_or(0, |month| month - 1)];
    format!("{weekday}, {day} {month} {year} {time} GMT")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn format_for(accept: &str) -> Format {
        wanted_format([accept.as_bytes()].into_iter())
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(format_for(prometheus), Format::OpenMetrics);
        assert_eq!(
            format_for("application/openmetrics-text"),
            Format::OpenMetrics
        );
        for plain in [
            "",
            "*/*",
            "text/plain",
            "text/plain, application/openmetrics-text; q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text; version=0.0.1, text/plain;q=0.5",
        ] {
            assert_eq!(format_for(plain), Format::Text, "{plain}");
        }
    }

    #[test]
    fn the_path_is_found_in_every_form_of_a_target() {
        assert_eq!(path("/metrics"), "/metrics");
        assert_eq!(path("/metrics?x=http://y/z"), "/metrics");
        assert_eq!(path("http://localhost:9598/status?x"), "/status");
        assert_eq!(path("http://localhost:9598"), "/");
        assert_eq!(path("*"), "*");
    }

    #[test]
    fn a_date_is_written_as_the_rfc_does() {
        let moment = UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(date(moment), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
        let long = format!("GET /{}", "a".repeat(HEAD_BYTES_MAX));
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("\x16\x03\x01 hello\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            (&many, 431),
            (&long, 431),
        ] {
            match parse(bytes.as_bytes()) {
                Parsed::Refused(response) => assert_eq!(response.status, expected, "{bytes}"),
                other => panic!("{bytes}: {other:?}"),
            }
        }
        assert!(matches!(parse(b"GET / HT"), Parsed::Unfinished));
        assert!(matches!(
            parse(b"GET / HTTP/1.0\r\n\r\n"),
            Parsed::Request(_)
        ));
    }
}
