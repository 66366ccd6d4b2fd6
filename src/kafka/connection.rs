//! One connection to one broker: two threads that carry bytes.
//!
//! A connection decides nothing: it connects, shakes hands, writes the frames
//! it is given and hands back every answer. Who waits for which answer, for
//! how long, and what follows when it closes is the producer's business.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::address::Address;
use super::error::{Cause, ConnectionError, Stage};
use super::wire::{self, Frame, Versions};

/// Longest answer that is believed. Metadata of a cluster with 100,000
/// partitions is about 10 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Frames that may wait for the writer; more than requests in flight, so that
/// the producer never blocks on it.
const FRAMES_MAX: usize = 32;

/// How long the steps towards a working connection may take.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// Opening the TCP connection, for each address of the host.
    pub connect: Duration,
    /// From the open connection to the answer to ApiVersions.
    pub handshake: Duration,
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
    socket: Arc<Mutex<Option<TcpStream>>>,
}

impl Connection {
    /// Starts to connect in the background; the outcome comes as an [`Event`].
    ///
    /// The threads are not joined: looking up a name cannot be interrupted,
    /// and they own nothing that anybody waits for.
    pub fn open(
        id: ConnectionId,
        address: Address,
        client_id: &str,
        timeouts: &Timeouts,
        events: Sender<Event>,
    ) -> Connection {
        let (frames, queue) = bounded(FRAMES_MAX);
        let socket = Arc::new(Mutex::new(None));
        let worker = Worker {
            id,
            address,
            client_id: client_id.to_owned(),
            timeouts: timeouts.clone(),
            socket: Arc::clone(&socket),
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
        Connection { id, frames, socket }
    }

    /// The id that this connection's events carry.
    pub fn id(&self) -> ConnectionId {
        self.id
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
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = &*socket {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// The one place of the client that makes threads.
fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name).spawn(body).map(drop)
}

struct Worker {
    id: ConnectionId,
    address: Address,
    client_id: String,
    timeouts: Timeouts,
    socket: Arc<Mutex<Option<TcpStream>>>,
    events: Sender<Event>,
}

impl Worker {
    fn run(self, queue: &Receiver<Frame>) {
        let stream = match self.connect() {
            Ok((stream, versions)) => {
                let _ = self.events.send(Event::Up(self.id, versions));
                stream
            }
            Err(error) => {
                let _ = self.events.send(Event::Down(self.id, error));
                return;
            }
        };
        let Ok(reader) = stream.try_clone() else {
            self.down(Stage::Serving, Cause::HungUp);
            return;
        };
        let (id, address, events) = (self.id, self.address.clone(), self.events.clone());
        let reader = spawn(format!("kafka:{id}:read"), move || {
            let cause = read_answers(id, reader, &events);
            let _ = events.send(Event::Down(
                id,
                ConnectionError {
                    address,
                    stage: Stage::Serving,
                    cause,
                },
            ));
        });
        if let Err(error) = reader {
            self.down(Stage::Serving, Cause::Io(error));
            return;
        }
        write_frames(&stream, queue);
        // Wakes the reader, which reports the end.
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn down(&self, stage: Stage, cause: Cause) {
        let _ = self
            .events
            .send(Event::Down(self.id, self.error(stage, cause)));
    }

    fn error(&self, stage: Stage, cause: Cause) -> ConnectionError {
        ConnectionError {
            address: self.address.clone(),
            stage,
            cause,
        }
    }

    fn connect(&self) -> Result<(TcpStream, Versions), ConnectionError> {
        let mut stream = self.open_tcp()?;
        let prepared = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(self.timeouts.handshake)))
            .and_then(|()| stream.try_clone());
        let clone = prepared.map_err(|error| self.error(Stage::Tcp, Cause::Io(error)))?;
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(clone);

        let versions = self
            .shake_hands(&mut stream)
            .map_err(|cause| self.error(Stage::Handshake, cause))?;
        stream
            .set_read_timeout(None)
            .map_err(|error| self.error(Stage::Handshake, Cause::Io(error)))?;
        Ok((stream, versions))
    }

    fn open_tcp(&self) -> Result<TcpStream, ConnectionError> {
        let (host, port) = (self.address.host(), self.address.port());
        let addresses = (host, port)
            .to_socket_addrs()
            .map_err(|error| self.error(Stage::Dns, Cause::Io(error)))?;
        let mut cause = (Stage::Dns, Cause::NoAddress);
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.timeouts.connect) {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    cause = (Stage::Tcp, Cause::Silence(self.timeouts.connect));
                }
                Err(error) => cause = (Stage::Tcp, Cause::Io(error)),
            }
        }
        Err(self.error(cause.0, cause.1))
    }

    /// Asks for the API versions; a broker that does not know our version of
    /// the question answers in version 0, and is asked again in that (KIP-511).
    fn shake_hands(&self, stream: &mut TcpStream) -> Result<Versions, Cause> {
        for version in [wire::API_VERSIONS_NEWEST, 0] {
            let question = wire::api_versions_request(version, &self.client_id);
            stream.write_all(&question).map_err(Cause::Io)?;
            let answer =
                read_answer(stream).map_err(|cause| self.waited(cause, self.timeouts.handshake))?;
            match wire::api_versions_response(&answer, version)? {
                Some(versions) => return Ok(versions),
                None if version > 0 => continue,
                None => break,
            }
        }
        Err(Cause::Version(
            "the broker refuses every version of ApiVersions".to_owned(),
        ))
    }

    fn waited(&self, cause: Cause, limit: Duration) -> Cause {
        match cause {
            Cause::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                Cause::Silence(limit)
            }
            other => other,
        }
    }
}

/// Writes until the owner lets go or the socket fails; the reader sees why.
fn write_frames(mut stream: &TcpStream, queue: &Receiver<Frame>) {
    for frame in queue {
        let mut slices: Vec<IoSlice> = frame.segments().map(IoSlice::new).collect();
        if write_all_vectored(&mut stream, &mut slices).is_err() {
            return;
        }
    }
}

fn write_all_vectored(writer: &mut impl Write, mut slices: &mut [IoSlice]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match writer.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_answers(id: ConnectionId, mut stream: TcpStream, events: &Sender<Event>) -> Cause {
    loop {
        match read_answer(&mut stream) {
            Ok(answer) => {
                if events.send(Event::Answer(id, answer)).is_err() {
                    return Cause::HungUp;
                }
            }
            Err(cause) => return cause,
        }
    }
}

/// Reads one length-prefixed answer.
fn read_answer(stream: &mut impl Read) -> Result<Vec<u8>, Cause> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(hung_up)?;
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

fn hung_up(error: io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Cause::HungUp,
        _ => Cause::Io(error),
    }
}
