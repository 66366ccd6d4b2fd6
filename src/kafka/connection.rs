//! One connection to one broker: two threads that carry bytes.
//!
//! A connection decides nothing: it connects, makes itself safe, logs in (and in
//! again before the login ends), writes the frames it is given and hands back
//! every answer. Who waits for which answer, for how long, and what follows when
//! it closes is the producer's business.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::address::Address;
use super::codec::Compression;
use super::error::{Cause, ConnectionError, Stage};
use super::sasl::Sasl;
use super::tls::Tls;
use super::transport::{Reader, Transport, Writer};
use super::wire::{self, Frame, Versions};

/// Longest answer that is believed. Metadata of a cluster with 100,000
/// partitions is about 10 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Frames that may wait for the writer; more than requests in flight, so that
/// the producer never blocks on it.
const FRAMES_MAX: usize = 32;
/// Exchanges of a login; no mechanism has more.
const LOGIN_ROUNDS_MAX: usize = 5;
/// After this part of the time that a login holds, there is another one.
const LOGIN_AGAIN_AFTER: f64 = 0.85;
/// ... and not sooner than this: a broker that wants it all the time gets requests only.
const LOGIN_AGAIN_MIN: Duration = Duration::from_secs(1);
/// How an alert of TLS begins (RFC 8446 section 5.1): what a listener with TLS says to
/// who speaks in the clear.
const TLS_ALERT: [u8; 2] = [0x15, 0x03];
/// The correlation id of what the connection asks by itself. The owner's are positive.
const OURS: i32 = -1;

/// How a broker is reached, whichever it is.
#[derive(Debug, Clone)]
pub struct Dial {
    /// The name the brokers' logs and quotas know us by.
    pub client_id: String,
    /// Opening the TCP connection may take so long, for each address of the host.
    pub connect_timeout: Duration,
    /// The way from the open connection to the first request may.
    pub handshake_timeout: Duration,
    /// Each answer of another login may, behind those of requests before it.
    pub request_timeout: Duration,
    /// TLS; without it, in the clear.
    pub tls: Option<Tls>,
    /// Logging in, if the broker wants it.
    pub sasl: Option<Sasl>,
    /// The codec that batches come in.
    pub compression: Compression,
}

/// Names one attempt at a connection; never used again.
pub type ConnectionId = u64;

/// What a connection tells its owner.
#[derive(Debug)]
pub enum Event {
    /// The handshake is done; requests may follow.
    Up(ConnectionId, Versions),
    /// An answer without its length field: correlation id, then the body.
    Answer(ConnectionId, Vec<u8>),
    /// The connection never was or is no more. Always the last event of its id.
    Down(ConnectionId, ConnectionError),
}

/// The owner's end. Dropping it closes the connection and ends its threads.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    frames: Sender<Frame>,
    progress: Progress,
}

// A lock and not messages: the owner asks for it when nothing comes any more.
type Progress = Arc<Mutex<Reached>>;

/// How far a connection is.
#[derive(Debug)]
struct Reached {
    /// What it is at.
    stage: Stage,
    /// Its socket, once there is one.
    socket: Option<TcpStream>,
}

impl Connection {
    /// Starts to connect in the background; the outcome comes as an [`Event`].
    ///
    /// The threads are not joined: looking up a name cannot be interrupted,
    /// and they own nothing that anybody waits for.
    pub fn open(
        id: ConnectionId,
        address: Address,
        dial: Dial,
        events: Sender<Event>,
    ) -> Connection {
        let (frames, queue) = bounded(FRAMES_MAX);
        let progress = Arc::new(Mutex::new(Reached {
            stage: Stage::Dns,
            socket: None,
        }));
        let worker = Worker {
            id,
            address,
            dial,
            progress: Arc::clone(&progress),
            events,
        };
        let (spare, unable) = (worker.events.clone(), worker.address.clone());
        if let Err(error) = spawn(format!("kafka:{id}:write"), move || worker.run(&queue)) {
            let error = ConnectionError {
                address: unable,
                stage: Stage::Tcp,
                cause: Cause::Io(error),
            };
            // The owner reads the events; with no room it would wait for itself.
            let _ = spare.try_send(Event::Down(id, error));
        }
        Connection {
            id,
            frames,
            progress,
        }
    }

    /// The id that this connection's events carry.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// What it is at: where to look when nothing comes of it.
    pub fn stage(&self) -> Stage {
        held(&self.progress).stage
    }

    /// Queues a frame. False when the connection is closing, and then an
    /// [`Event::Down`] is on its way.
    pub fn send(&self, frame: Frame) -> bool {
        self.frames.try_send(frame).is_ok()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The lock is held for a pointer's time only; a shutdown does not block.
        if let Some(socket) = &held(&self.progress).socket {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn held(progress: &Progress) -> MutexGuard<'_, Reached> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one place of the client that makes threads.
pub(super) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name).spawn(body).map(drop)
}

struct Worker {
    id: ConnectionId,
    address: Address,
    dial: Dial,
    progress: Progress,
    events: Sender<Event>,
}

/// A connection that requests may follow on.
struct Ready {
    transport: Transport,
    versions: Versions,
    login: Option<Standing>,
}

/// A login that holds until a moment.
struct Standing {
    sasl: Sasl,
    version: i16,
    until: Option<Instant>,
}

/// Where a problem was, and which.
pub(super) type Problem = (Stage, Cause);

impl Worker {
    fn run(self, queue: &Receiver<Frame>) {
        let ready = match self.connect() {
            Ok(ready) => ready,
            Err((stage, cause)) => return self.down(stage, cause),
        };
        let Transport { reader, writer } = ready.transport;
        let Ok(socket) = writer.socket().try_clone() else {
            return self.down(Stage::Serving, Cause::HungUp);
        };
        let _ = self.events.send(Event::Up(self.id, ready.versions));
        let (ours, answers) = bounded(1);
        // Why the writer ended it, where the reader only sees an end.
        let failed: Arc<Mutex<Option<Problem>>> = Arc::default();
        let reading = Reading {
            id: self.id,
            address: self.address.clone(),
            events: self.events.clone(),
            ours,
            failed: Arc::clone(&failed),
        };
        let body = move || reading.run(reader);
        if let Err(error) = spawn(format!("kafka:{}:read", self.id), body) {
            return self.down(Stage::Serving, Cause::Io(error));
        }
        let writing = Writing {
            worker: self,
            writer,
            login: ready.login,
            answers,
        };
        if let Err(problem) = writing.run(queue) {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
        }
        // Wakes the reader, which reports the end.
        let _ = socket.shutdown(Shutdown::Both);
    }

    fn down(&self, stage: Stage, cause: Cause) {
        let address = self.address.clone();
        let error = ConnectionError {
            address,
            stage,
            cause,
        };
        let _ = self.events.send(Event::Down(self.id, error));
    }

    fn connect(&self) -> Result<Ready, Problem> {
        let mut transport = self.open_transport()?;
        let mut shaken = self.shake_hands(&mut transport, &[wire::API_VERSIONS_NEWEST, 0]);
        if matches!(shaken, Err(Cause::HungUp)) {
            // Some do so on a version that they do not know, instead of saying it.
            transport = self.open_transport()?;
            shaken = self.shake_hands(&mut transport, &[0]);
        }
        let versions = shaken.map_err(|cause| self.refused(cause))?;
        self.goes_on(Stage::Sasl);
        let logged_in = self.log_in(&mut transport, versions);
        let login = logged_in.map_err(|cause| (Stage::Sasl, self.waited(cause)))?;
        self.goes_on(Stage::Serving);
        transport
            .lift_deadline()
            .map_err(|error| (Stage::Handshake, Cause::Io(error)))?;
        Ok(Ready {
            transport,
            versions,
            login,
        })
    }

    /// A connection, with TLS if that is wanted, on which nothing was asked yet.
    fn open_transport(&self) -> Result<Transport, Problem> {
        self.goes_on(Stage::Dns);
        let addresses = look_up(&self.address)?;
        self.goes_on(Stage::Tcp);
        let socket = open_tcp(addresses, self.dial.connect_timeout)?;
        let deadline = Instant::now() + self.dial.handshake_timeout;
        let prepared = socket.set_nodelay(true).and_then(|()| socket.try_clone());
        let clone = prepared.map_err(|error| (Stage::Tcp, Cause::Io(error)))?;
        held(&self.progress).socket = Some(clone);

        self.goes_on(Stage::Tls);
        let transport = self
            .secure(socket, deadline)
            .map_err(|cause| (Stage::Tls, cause))?;
        self.goes_on(Stage::Handshake);
        Ok(transport)
    }

    fn goes_on(&self, stage: Stage) {
        held(&self.progress).stage = stage;
    }

    /// Where the first exchange failed. Our side of TLS 1.3 is done before the broker has
    /// looked at our certificate (RFC 8446 section 4.4.2.4), so one that hangs up then may
    /// want another.
    fn refused(&self, cause: Cause) -> Problem {
        match self.waited(cause) {
            Cause::HungUp if self.dial.tls.is_some() => (Stage::Tls, Cause::HungUp),
            Cause::Tls(error) => (Stage::Tls, Cause::Tls(error)),
            cause => (Stage::Handshake, cause),
        }
    }

    fn secure(&self, socket: TcpStream, deadline: Instant) -> Result<Transport, Cause> {
        let Some(tls) = &self.dial.tls else {
            return Transport::plain(socket, deadline).map_err(Cause::Io);
        };
        let session = tls.session(&self.address).map_err(Cause::Tls)?;
        Transport::tls(socket, session, deadline).map_err(|error| self.waited(hung_up(error)))
    }

    /// Asks for the API versions in one of these versions; a broker that does not know our version of
    /// the question answers in version 0, and is asked again in that (KIP-511).
    fn shake_hands(&self, transport: &mut Transport, asked: &[i16]) -> Result<Versions, Cause> {
        for &version in asked {
            let question = wire::api_versions_request(version, &self.dial.client_id);
            let answer = ask(transport, &question)?;
            match wire::api_versions_response(&answer, version)? {
                Some(versions) => return self.suits(versions),
                None if version > 0 => continue,
                None => break,
            }
        }
        Err(Cause::Version(
            "the broker refuses every version of ApiVersions".to_owned(),
        ))
    }

    /// A broker that does not know our codec would be sent what it, or its consumers, cannot
    /// read.
    fn suits(&self, versions: Versions) -> Result<Versions, Cause> {
        match versions.take(self.dial.compression) {
            true => Ok(versions),
            false => Err(Cause::NoZstd(versions.produce)),
        }
    }

    fn log_in(
        &self,
        transport: &mut Transport,
        versions: Versions,
    ) -> Result<Option<Standing>, Cause> {
        let Some(sasl) = &self.dial.sasl else {
            return Ok(None);
        };
        let version = versions
            .sasl_authenticate
            .ok_or_else(|| Cause::Login("logging in needs Kafka 1.0 or newer".to_owned()))?;
        let mut login = Standing {
            sasl: sasl.clone(),
            version,
            until: None,
        };
        login.renew(&self.dial.client_id, |frame| ask(transport, frame))?;
        Ok(Some(login))
    }

    fn waited(&self, cause: Cause) -> Cause {
        waited(cause, self.dial.handshake_timeout)
    }
}

/// A socket's time-out, told as what it was.
pub(super) fn waited(cause: Cause, timeout: Duration) -> Cause {
    use io::ErrorKind::{TimedOut, WouldBlock};
    match cause {
        Cause::Io(error) if matches!(error.kind(), WouldBlock | TimedOut) => {
            Cause::Silence(timeout)
        }
        other => other,
    }
}

/// The addresses of a host, at least one.
pub(super) fn look_up(address: &Address) -> Result<Vec<SocketAddr>, Problem> {
    let found = (address.host(), address.port()).to_socket_addrs();
    let found: Vec<SocketAddr> = found
        .map_err(|error| (Stage::Dns, Cause::Io(error)))?
        .collect();
    match found.is_empty() {
        true => Err((Stage::Dns, Cause::NoAddress)),
        false => Ok(found),
    }
}

/// Opens a TCP connection to one of these addresses, each of which may take `timeout`.
pub(super) fn open_tcp(
    addresses: Vec<SocketAddr>,
    timeout: Duration,
) -> Result<TcpStream, Problem> {
    let mut problem = Cause::NoAddress;
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                problem = Cause::Silence(timeout);
            }
            Err(error) => problem = Cause::Io(error),
        }
    }
    Err((Stage::Tcp, problem))
}

impl Standing {
    /// Logs in, or in again (KIP-368). `ask` carries a request and brings its answer.
    fn renew(
        &mut self,
        client_id: &str,
        mut ask: impl FnMut(&Frame) -> Result<Vec<u8>, Cause>,
    ) -> Result<(), Cause> {
        let begun = Instant::now();
        let mechanism = self.sasl.mechanism();
        let answer = ask(&wire::sasl_handshake_request(OURS, client_id, mechanism))?;
        let (_, body) = wire::split_correlation(&answer)?;
        if let Some(known) = wire::sasl_handshake_response(body)? {
            return Err(Cause::Mechanism(mechanism, known));
        }
        let secret = self.sasl.secret()?;
        let (mut exchange, mut message) = self.sasl.begin(&secret)?;
        for _ in 0..LOGIN_ROUNDS_MAX {
            let version = self.version;
            let frame = wire::sasl_authenticate_request(version, OURS, client_id, message);
            let answer = ask(&frame)?;
            let (_, body) = wire::split_correlation(&answer)?;
            let (said, holds) = wire::sasl_authenticate_response(body, version, &secret)?;
            match exchange.answer(&said, &secret)? {
                Some(next) => message = next,
                None => {
                    let after = |holds: Duration| holds.mul_f64(LOGIN_AGAIN_AFTER);
                    self.until = holds.map(|holds| begun + after(holds).max(LOGIN_AGAIN_MIN));
                    return Ok(());
                }
            }
        }
        Err(Cause::Login(
            "the broker's questions have no end".to_owned(),
        ))
    }
}

/// Sends a request and waits for the answer; nothing else is under way.
pub(super) fn ask(transport: &mut Transport, frame: &Frame) -> Result<Vec<u8>, Cause> {
    transport.writer.write(frame).map_err(hung_up)?;
    read_answer(&mut transport.reader)
}

/// The end that writes.
struct Writing {
    worker: Worker,
    writer: Writer,
    login: Option<Standing>,
    /// Answers to what the connection asked by itself.
    answers: Receiver<Vec<u8>>,
}

impl Writing {
    /// Writes until the owner lets go, or the socket or another login fails. Of a
    /// socket that fails the reader sees why.
    fn run(mut self, queue: &Receiver<Frame>) -> Result<(), Problem> {
        loop {
            let due = self.login.as_ref().and_then(|login| login.until);
            let frame = match due {
                Some(due) => queue.recv_deadline(due),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match frame {
                Ok(frame) => {
                    if self.writer.write(&frame).is_err() {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.log_in_again().map_err(|cause| (Stage::Sasl, cause))?;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            // A queue that is never empty must not keep the login from being renewed.
            if self.is_due() {
                self.log_in_again().map_err(|cause| (Stage::Sasl, cause))?;
            }
        }
    }

    fn is_due(&self) -> bool {
        let due = self.login.as_ref().and_then(|login| login.until);
        due.is_some_and(|due| Instant::now() >= due)
    }

    /// Other requests wait meanwhile: brokers refuse them in the middle of a login.
    /// What was sent before is answered before.
    fn log_in_again(&mut self) -> Result<(), Cause> {
        let Some(login) = &mut self.login else {
            return Ok(());
        };
        let dial = &self.worker.dial;
        let (writer, answers) = (&mut self.writer, &self.answers);
        self.worker.goes_on(Stage::Sasl);
        login.renew(&dial.client_id, |frame| {
            writer.write(frame).map_err(hung_up)?;
            answers
                .recv_timeout(dial.request_timeout)
                .map_err(|error| match error {
                    RecvTimeoutError::Timeout => Cause::Silence(dial.request_timeout),
                    RecvTimeoutError::Disconnected => Cause::HungUp,
                })
        })?;
        self.worker.goes_on(Stage::Serving);
        log::debug!("logged in again at broker {}", self.worker.address);
        Ok(())
    }
}

/// The end that reads.
struct Reading {
    id: ConnectionId,
    address: Address,
    events: Sender<Event>,
    ours: Sender<Vec<u8>>,
    failed: Arc<Mutex<Option<Problem>>>,
}

impl Reading {
    fn run(self, reader: Reader) {
        let cause = self.read_answers(reader);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let (stage, cause) = failed.take().unwrap_or((Stage::Serving, cause));
        drop(failed);
        let error = ConnectionError {
            address: self.address,
            stage,
            cause,
        };
        let _ = self.events.send(Event::Down(self.id, error));
    }

    fn read_answers(&self, mut reader: Reader) -> Cause {
        loop {
            let answer = match read_answer(&mut reader) {
                Ok(answer) => answer,
                Err(cause) => return cause,
            };
            let is_ours = answer.starts_with(&OURS.to_be_bytes());
            let handed_on = match is_ours {
                true => self.ours.try_send(answer).is_ok(),
                false => self.events.send(Event::Answer(self.id, answer)).is_ok(),
            };
            if !handed_on {
                return Cause::HungUp;
            }
        }
    }
}

/// Reads one length-prefixed answer.
fn read_answer(stream: &mut impl Read) -> Result<Vec<u8>, Cause> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(hung_up)?;
    if length[..2] == TLS_ALERT {
        return Err(Cause::SpeaksTls);
    }
    if length == *b"HTTP" {
        return Err(Cause::Protocol("what answers there speaks HTTP".to_owned()));
    }
    let length = i32::from_be_bytes(length);
    let length = usize::try_from(length)
        .ok()
        .filter(|&length| (4..=ANSWER_BYTES_MAX).contains(&length))
        .ok_or_else(|| Cause::Protocol(format!("an answer of {length} bytes: not Kafka?")))?;
    let mut answer = Vec::new();
    // Grows with what comes, so that a lying length costs nothing.
    let read = stream
        .take(length as u64)
        .read_to_end(&mut answer)
        .map_err(hung_up)?;
    if read < length {
        return Err(Cause::HungUp);
    }
    Ok(answer)
}

/// What an error of the socket, or of TLS in its place, means.
fn hung_up(error: io::Error) -> Cause {
    let tls = error.get_ref().and_then(|error| error.downcast_ref());
    if let Some(error) = tls {
        return Cause::Tls(rustls::Error::clone(error));
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Cause::HungUp,
        _ => Cause::Io(error),
    }
}
