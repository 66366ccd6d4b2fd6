//! The bytes of a connection, in the clear or through TLS: one half reads, the
//! other writes, each from its own thread.
//!
//! It knows bytes only. TLS state is shared by both halves behind a lock that is
//! never held while a socket is read or written: so a broker that does not read
//! keeps nobody from hearing it.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConnection;

use super::wire::Frame;

/// Encrypted bytes that are read at once, and written at once.
const CIPHERTEXT_BYTES: usize = 64 << 10;

/// Both halves.
#[derive(Debug)]
pub struct Transport {
    /// The half that reads.
    pub reader: Reader,
    /// The half that writes.
    pub writer: Writer,
}

/// What the broker says.
#[derive(Debug)]
pub struct Reader {
    socket: Timed,
    tls: Option<Decryption>,
}

/// A socket that may be used until a moment, however the bytes are spread over the time.
#[derive(Debug)]
struct Timed {
    socket: TcpStream,
    deadline: Option<Instant>,
}

/// What we say.
#[derive(Debug)]
pub struct Writer {
    socket: Timed,
    tls: Option<Encryption>,
}

// A lock and not messages: both halves work on one state, in turns.
type Session = Arc<Mutex<ClientConnection>>;

#[derive(Debug)]
struct Decryption {
    session: Session,
    /// What was read and is not decrypted yet: these bytes from `at` on.
    ciphertext: Vec<u8>,
    at: usize,
}

#[derive(Debug)]
struct Encryption {
    session: Session,
    ciphertext: Vec<u8>,
}

impl Transport {
    /// In the clear.
    ///
    /// # Errors
    /// No more handles.
    pub fn plain(socket: TcpStream, deadline: Instant) -> io::Result<Transport> {
        Ok(Transport {
            reader: Reader {
                socket: Timed::new(socket.try_clone()?, deadline),
                tls: None,
            },
            writer: Writer {
                socket: Timed::new(socket, deadline),
                tls: None,
            },
        })
    }

    /// Through TLS: shakes hands.
    ///
    /// # Errors
    /// A [`rustls::Error`] inside, where it is one.
    pub fn tls(
        socket: TcpStream,
        mut session: ClientConnection,
        deadline: Instant,
    ) -> io::Result<Transport> {
        let mut timed = Timed::new(socket.try_clone()?, deadline);
        while session.is_handshaking() {
            session.complete_io(&mut timed)?;
        }
        let session = Arc::new(Mutex::new(session));
        Ok(Transport {
            reader: Reader {
                socket: timed,
                tls: Some(Decryption {
                    session: Arc::clone(&session),
                    ciphertext: Vec::new(),
                    at: 0,
                }),
            },
            writer: Writer {
                socket: Timed::new(socket, deadline),
                tls: Some(Encryption {
                    session,
                    ciphertext: Vec::new(),
                }),
            },
        })
    }

    /// Until when what follows may take.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.reader.socket.deadline = Some(deadline);
        self.writer.socket.deadline = Some(deadline);
    }

    /// The connection is made: from now on, everything takes the time it takes.
    ///
    /// # Errors
    /// Those of setting a socket's time-outs.
    pub fn lift_deadline(&mut self) -> io::Result<()> {
        self.reader.socket.deadline = None;
        self.writer.socket.deadline = None;
        self.writer.socket().set_read_timeout(None)?;
        self.writer.socket().set_write_timeout(None)
    }
}

impl Timed {
    fn new(socket: TcpStream, deadline: Instant) -> Timed {
        Timed {
            socket,
            deadline: Some(deadline),
        }
    }

    /// The time that is left; `None` without a deadline.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        match self.deadline.map(left) {
            Some(Duration::ZERO) => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(left),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(left) = self.left()? {
            self.socket.set_read_timeout(Some(left))?;
        }
        self.socket.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice]) -> io::Result<usize> {
        if let Some(left) = self.left()? {
            self.socket.set_write_timeout(Some(left))?;
        }
        self.socket.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

fn held(session: &Session) -> MutexGuard<'_, ClientConnection> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.read(buffer);
        };
        loop {
            if let Some(read) = tls.read(buffer)? {
                return Ok(read);
            }
            tls.ciphertext.resize(CIPHERTEXT_BYTES, 0);
            let read = self.socket.read(&mut tls.ciphertext)?;
            tls.ciphertext.truncate(read);
            tls.at = 0;
            if read == 0 {
                return Ok(0);
            }
        }
    }
}

impl Decryption {
    /// Bytes in the clear; `None` when more must come first. What the state has to say
    /// to the broker goes out with the next request (RFC 8446 section 4.6.3 wants
    /// nothing sooner).
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut session = held(&self.session);
        loop {
            match session.reader().read(buffer) {
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => {}
            }
            let mut rest = &self.ciphertext[self.at..];
            if rest.is_empty() {
                return Ok(None);
            }
            self.at += session.read_tls(&mut rest)?;
            session
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

impl Writer {
    /// Writes all of a request.
    pub fn write(&mut self, frame: &Frame) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.write(frame, &mut self.socket),
            None => {
                let mut slices: Vec<IoSlice> = frame.segments().map(IoSlice::new).collect();
                write_all_vectored(&mut self.socket, &mut slices)
            }
        }
    }

    /// The connection itself.
    pub fn socket(&self) -> &TcpStream {
        &self.socket.socket
    }
}

impl Encryption {
    fn write(&mut self, frame: &Frame, socket: &mut Timed) -> io::Result<()> {
        for segment in frame.segments() {
            for piece in segment.chunks(CIPHERTEXT_BYTES) {
                self.encrypt(piece)?;
                if self.ciphertext.len() >= CIPHERTEXT_BYTES {
                    self.flush(socket)?;
                }
            }
        }
        self.flush(socket)
    }

    fn encrypt(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut session = held(&self.session);
        session.writer().write_all(piece)?;
        while session.wants_write() {
            session.write_tls(&mut self.ciphertext)?;
        }
        Ok(())
    }

    fn flush(&mut self, socket: &mut Timed) -> io::Result<()> {
        socket.write_all(&self.ciphertext)?;
        self.ciphertext.clear();
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A time-out of the socket begins again with every byte: a broker that sends one now
    /// and then held a connection in its handshake for ever, and nothing was said.
    #[test]
    fn a_deadline_ends_a_handshake_that_trickles() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut broker, _) = listener.accept().unwrap();
        let trickles = thread::spawn(move || {
            while broker.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        let deadline = Instant::now() + Duration::from_millis(200);
        let mut transport = Transport::plain(socket, deadline).unwrap();
        let error = io::copy(&mut transport.reader, &mut io::sink()).unwrap_err();
        assert!(ran_out_of_time(&error), "{error}");
        drop(transport);
        trickles.join().unwrap();
    }

    fn ran_out_of_time(error: &io::Error) -> bool {
        use io::ErrorKind::{TimedOut, WouldBlock};
        matches!(error.kind(), TimedOut | WouldBlock)
    }

    /// A broker that takes a request in small sips kept its writer, and the batch in its
    /// hands, for ever.
    #[test]
    fn a_deadline_ends_a_request_that_is_sipped() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut broker, _) = listener.accept().unwrap();
        let sips = thread::spawn(move || {
            let mut sip = [0; 64 << 10];
            while broker.read(&mut sip).is_ok_and(|read| read > 0) {
                thread::sleep(Duration::from_millis(5));
            }
        });
        let deadline = Instant::now() + Duration::from_millis(200);
        let mut transport = Transport::plain(socket, deadline).unwrap();
        let error = transport.writer.write(&Frame::of(vec![0; 64 << 20]));
        let error = error.unwrap_err();
        assert!(ran_out_of_time(&error), "{error}");
        drop(transport);
        sips.join().unwrap();
    }
}
