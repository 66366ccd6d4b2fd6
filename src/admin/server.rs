//! Serves reports on a Unix socket and over TCP, all from one thread.
//!
//! It never waits for a client: all of them are looked at in turns. A report is
//! built when somebody asks, and only then.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::tick;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::text::shown;
use crate::thread::{Stop, fault_point};

use super::bind_socket;
use super::connection::{Connection, Progress};
use super::http::{Request, Response};
use super::metrics::exposition;
use super::report::{Health, Report};
use super::stream::Stream;

/// Connections that one listener has at once; more are turned away. Each has
/// its own, so that nobody on the network can shut out the socket.
const CONNECTIONS_MAX: usize = 8;
/// Clients that are let in before the others are looked at again.
const ACCEPTED_MAX: usize = 32;
/// How often a socket's file is looked for.
const LOOK_FOR_FILE_EVERY: Duration = Duration::from_secs(1);
/// How often a stop and deadlines are looked at while nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What there is to ask for.
const NOT_FOUND: &str = "not here; there are /metrics, /status and /healthz\n";

/// Listens, and serves in [`run`](Server::run).
#[derive(Debug)]
pub struct Server {
    doors: Vec<Door>,
}

/// A listener and those who came in by it.
#[derive(Debug)]
pub(super) struct Door {
    listener: Listener,
    connections: Vec<Connection>,
    /// Nobody can be let in, which has been said.
    stuck: bool,
}

/// Where clients come from.
#[derive(Debug)]
pub(super) enum Listener {
    /// A Unix socket and its file.
    Unix(UnixListener, SocketFile),
    /// A TCP port.
    Tcp(TcpListener),
}

/// The file of a socket, which is removed with it unless it is another's by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// That of a socket which was just bound to a path.
    pub(super) fn at(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }

    fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|there| there == self.identity)
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Server {
    /// A server on these listeners, none of which waits.
    pub(super) fn new(listeners: Vec<Listener>) -> Server {
        let door = |listener| Door {
            listener,
            connections: Vec::new(),
            stuck: false,
        };
        Server {
            doors: listeners.into_iter().map(door).collect(),
        }
    }

    /// The TCP address that is listened on, with the port that was chosen for port 0.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.doors.iter().find_map(|door| match &door.listener {
            Listener::Unix(..) => None,
            Listener::Tcp(listener) => listener.local_addr().ok(),
        })
    }

    /// The body of the thread `admin`: serves until a stop is requested, which
    /// is noticed within 100 ms and cuts what is under way.
    pub fn run(mut self, report: &dyn Fn() -> Report, stop: &Stop) {
        let answer = |request: &Request| answer(request, report);
        let looks = tick(LOOK_FOR_FILE_EVERY);
        while !stop.requested() {
            fault_point("admin");
            if self.wait().is_err() {
                stop.sleep(LOOK_EVERY);
            }
            let look = looks.try_recv().is_ok();
            for door in &mut self.doors {
                if look {
                    door.listener.find_again();
                }
                door.serve(&answer);
                if door.stuck {
                    stop.sleep(LOOK_EVERY); // no handle is left, and that does not pass at once
                }
            }
        }
    }

    /// Until a client can go on or a new one comes.
    fn wait(&self) -> io::Result<()> {
        let mut sockets = Vec::new();
        for door in &self.doors {
            sockets.push(PollFd::new(&door.listener, PollFlags::IN));
            let clients = door.connections.iter();
            sockets.extend(clients.map(|client| PollFd::new(client, client.awaits())));
        }
        let pause = Timespec::try_from(LOOK_EVERY).map_err(io::Error::other)?;
        poll(&mut sockets, Some(&pause))?;
        Ok(())
    }
}

impl Door {
    /// Everybody goes on as far as they can, and who waits outside comes in.
    fn serve(&mut self, answer: &dyn Fn(&Request) -> Response) {
        self.connections
            .retain_mut(|client| client.proceed(answer) == Progress::Waits);
        let let_in = self.let_in();
        if let (Err(error), false) = (&let_in, self.stuck) {
            log::warn!("cannot accept connections for metrics and status error={error}");
        }
        self.stuck = let_in.is_err();
    }

    /// Takes in whoever waits outside.
    fn let_in(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTED_MAX {
            let stream = match self.listener.accept() {
                Ok(stream) => stream,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => continue,
                    _ => return Err(error),
                },
            };
            if self.connections.len() < CONNECTIONS_MAX {
                self.connections.extend(Connection::new(stream));
            } else {
                Connection::turn_away(stream);
            }
        }
        Ok(())
    }
}

impl Listener {
    /// A socket whose file was taken away, as with its directory, gets a new one as
    /// soon as there is a place for it.
    fn find_again(&mut self) {
        if let Listener::Unix(_, file) = self
            && !file.is_there()
            && let Ok(again) = bind_socket(&file.path)
        {
            *self = again;
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Unix(listener, _) => Ok(Stream::Unix(listener.accept()?.0)),
            Listener::Tcp(listener) => Ok(Stream::Tcp(listener.accept()?.0)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(listener, _) => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        }
    }
}

fn answer(request: &Request, report: &dyn Fn() -> Report) -> Response {
    let page: fn(&Request, &Report) -> Response = match request.path.as_str() {
        "/metrics" => metrics,
        "/status" => status,
        "/healthz" => health,
        _ => return Response::text(404, NOT_FOUND),
    };
    if !["GET", "HEAD"].contains(&request.method.as_str()) {
        return Response::text(405, "only GET and HEAD mean anything here\n");
    }
    page(request, &report())
}

fn metrics(request: &Request, report: &Report) -> Response {
    let format = request.format;
    Response::new(200, format.content_type(), exposition(report, format))
}

fn status(_: &Request, report: &Report) -> Response {
    let mut body = serde_json::to_vec(report).expect("a report has nothing JSON has not");
    body.push(b'\n');
    Response::new(200, "application/json", body)
}

fn health(_: &Request, report: &Report) -> Response {
    let Health { healthy, reasons } = &report.health;
    if *healthy {
        return Response::text(200, "ok\n");
    }
    let lines = reasons.iter().map(|reason| shown(reason) + "\n");
    Response::text(503, lines.collect::<String>())
}
