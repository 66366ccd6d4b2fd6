//! One client of the server, from its first byte to its end.
//!
//! A connection never waits: it goes as far as it can and is looked at again.
//! Every phase has a deadline, so that nobody can hold one for ever.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::http::{self, Parsed, Request, Response};
use super::stream::Stream;

/// How long a client may take for the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may take to read the response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to hang up after that.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes read at once.
const READ_BYTES: usize = 4 << 10;

/// A client.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    phase: Phase,
    deadline: Instant,
}

#[derive(Debug)]
enum Phase {
    /// The request, as far as it has come.
    Head(Vec<u8>),
    /// The response, and how much of it is sent.
    Response(Vec<u8>, usize),
    /// The client has everything; what it still sends is thrown away. Closing
    /// earlier could take the response from it (RFC 9112, 9.6).
    Farewell,
}

/// How far a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for the client.
    Waits,
    /// It is over.
    Over,
}

/// What a phase came to.
enum Step {
    To(Phase),
    Waits,
    Over,
}

impl Connection {
    /// A client that was just accepted.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new(stream: Stream) -> io::Result<Connection> {
        stream.never_wait()?;
        Ok(Connection {
            stream,
            phase: Phase::Head(Vec::new()),
            deadline: Instant::now() + HEAD_TIMEOUT,
        })
    }

    /// Tells a client that there are too many, as far as that can be done without waiting.
    pub fn turn_away(mut stream: Stream) {
        let response = Response::text(503, "too many connections, try again\n");
        let _ = stream.never_wait();
        // What was sent and not read would turn the end into a reset.
        let _ = stream.read(&mut [0; READ_BYTES]);
        let _ = stream.write(&response.into_bytes(false));
        let _ = stream.end_writing();
    }

    /// What must happen to the socket before it can go on.
    pub fn awaits(&self) -> PollFlags {
        match self.phase {
            Phase::Head(_) | Phase::Farewell => PollFlags::IN,
            Phase::Response(..) => PollFlags::OUT,
        }
    }

    /// Goes as far as it can.
    pub fn proceed(&mut self, answer: &dyn Fn(&Request) -> Response) -> Progress {
        loop {
            if Instant::now() >= self.deadline {
                return Progress::Over;
            }
            let step = match &mut self.phase {
                Phase::Head(head) => read_head(&mut self.stream, head, answer),
                Phase::Response(bytes, sent) => write(&mut self.stream, bytes, sent),
                Phase::Farewell => discard(&mut self.stream),
            };
            match step {
                Ok(Step::To(phase)) => self.enter(phase),
                Ok(Step::Over) => return Progress::Over,
                Ok(Step::Waits) => return Progress::Waits,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Progress::Waits,
                    ErrorKind::Interrupted => {}
                    _ => return Progress::Over,
                },
            }
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.deadline = Instant::now()
            + match phase {
                Phase::Head(_) => HEAD_TIMEOUT,
                Phase::Response(..) => RESPONSE_TIMEOUT,
                Phase::Farewell => FAREWELL_TIMEOUT,
            };
        self.phase = phase;
    }
}

fn read_head(
    stream: &mut Stream,
    head: &mut Vec<u8>,
    answer: &dyn Fn(&Request) -> Response,
) -> io::Result<Step> {
    let mut buffer = [0; READ_BYTES];
    let count = stream.read(&mut buffer)?;
    if count == 0 {
        return Ok(Step::Over);
    }
    head.extend_from_slice(&buffer[..count]);
    let bytes = match http::parse(head) {
        Parsed::Unfinished => return Ok(Step::Waits),
        Parsed::Request(request) => answer(&request).into_bytes(request.method == "HEAD"),
        Parsed::Refused(response) => response.into_bytes(false),
    };
    Ok(Step::To(Phase::Response(bytes, 0)))
}

fn write(stream: &mut Stream, bytes: &[u8], sent: &mut usize) -> io::Result<Step> {
    while *sent < bytes.len() {
        match stream.write(&bytes[*sent..])? {
            0 => return Ok(Step::Over),
            count => *sent += count,
        }
    }
    stream.end_writing()?;
    Ok(Step::To(Phase::Farewell))
}

/// Reads one buffer at a time, so that nobody else waits for a client with much to say.
fn discard(stream: &mut Stream) -> io::Result<Step> {
    match stream.read(&mut [0; READ_BYTES])? {
        0 => Ok(Step::Over),
        _ => Ok(Step::Waits),
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
