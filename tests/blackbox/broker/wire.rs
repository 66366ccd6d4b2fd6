//! Ports and connections: frames in, frames out, as badly as asked.
//!
//! A connection is two threads: one reads ahead, so that more requests in
//! flight than allowed are seen while an answer is late; one answers in order,
//! as a broker does. What is answered is not decided here.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use super::cluster::{Action, Cluster, State};

/// More Produce requests than this and idempotence is lost (KIP-98).
const IN_FLIGHT_MAX: usize = 5;
/// Requests read ahead; a client that keeps to the limit needs fewer.
const READ_AHEAD_MAX: usize = 64;
/// `socket.request.max.bytes` of a broker.
const REQUEST_BYTES_MAX: usize = 104_857_600;
/// Slow reading takes a second's bytes in so many steps.
const SLOW_STEPS: usize = 50;
/// How often a node that is away tries whether it is back, unless it is told.
const AWAY_LOOK: Duration = Duration::from_secs(60);
const BACKLOG: i32 = 128;

/// A port of 127.0.0.1 that can go away and come back.
///
/// Going away is `shutdown`: Linux then refuses connections and wakes `accept`,
/// but the port stays ours. That needs a port that was asked for by number,
/// hence the second `bind`.
pub fn bind() -> io::Result<(Arc<TcpListener>, u16)> {
    let mut result = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..10 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        result = TcpListener::bind(("127.0.0.1", port)).map(|listener| (Arc::new(listener), port));
        if result.is_ok() {
            break;
        }
    }
    result
}

pub fn go_away(listener: &TcpListener) {
    let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
}

pub fn come_back(listener: &TcpListener) {
    rustix::net::listen(listener, BACKLOG).expect("the port is still ours");
}

/// A node: accepts connections until the cluster stops.
pub fn run_node(cluster: Arc<Cluster>, node: i32, listener: &TcpListener) {
    thread::scope(|scope| {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    let cluster = &cluster;
                    scope.spawn(move || serve(cluster, node, &stream));
                }
                Err(_) => {
                    let back = |state: &State| state.stopping || !state.away.contains(&node);
                    if cluster.wait(Instant::now() + AWAY_LOOK, back).stopping {
                        break;
                    }
                }
            }
        }
    });
}

fn serve(cluster: &Cluster, node: i32, stream: &TcpStream) {
    let Some(link) = cluster.link(node, stream) else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let unanswered = AtomicUsize::new(0);
    let (sender, frames) = sync_channel(READ_AHEAD_MAX);
    let connection = Connection {
        cluster,
        node,
        link,
        stream,
        unanswered,
    };
    thread::scope(|scope| {
        scope.spawn(|| connection.read(sender));
        connection.answer(frames);
        let _ = stream.shutdown(Shutdown::Both);
    });
    cluster.lock().links.remove(&link);
}

struct Connection<'a> {
    cluster: &'a Cluster,
    node: i32,
    link: u64,
    stream: &'a TcpStream,
    /// Produce requests.
    unanswered: AtomicUsize,
}

impl Connection<'_> {
    /// Reads frames until either side hangs up.
    fn read(&self, frames: SyncSender<(Instant, Bytes)>) {
        let (cluster, node) = (self.cluster, self.node);
        let complain = |what| cluster.violation(format!("node {node}: {what}"));
        let mut length = [0; 4];
        while self.read_exact(&mut length).is_ok() {
            let length = u32::from_be_bytes(length) as usize;
            if length > REQUEST_BYTES_MAX {
                complain(format!("a request of {length} bytes"));
                let _ = self.stream.shutdown(Shutdown::Both);
                return;
            }
            let mut frame = vec![0; length];
            if self.read_exact(&mut frame).is_err() {
                return;
            }
            let counts = usize::from(is_produce(&frame));
            let in_flight = self.unanswered.fetch_add(counts, Ordering::SeqCst) + counts;
            if in_flight > IN_FLIGHT_MAX {
                complain(format!(
                    "{in_flight} Produce requests in flight, not {IN_FLIGHT_MAX}"
                ));
            }
            if frames.send((Instant::now(), frame.into())).is_err() {
                return;
            }
        }
    }

    fn read_exact(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        let mut stream = self.stream;
        while !buffer.is_empty() {
            let Some(rate) = self.cluster.lock().read_bytes_per_second else {
                return stream.read_exact(buffer);
            };
            let step = (rate / SLOW_STEPS).clamp(1, buffer.len());
            stream.read_exact(&mut buffer[..step])?;
            buffer = &mut buffer[step..];
            self.sleep_until(Instant::now() + Duration::from_secs(1) * step as u32 / rate as u32);
        }
        Ok(())
    }

    /// Answers frames in order. When the client hangs up, what it sent is
    /// processed all the same; when we do, the rest is forgotten.
    fn answer(&self, frames: Receiver<(Instant, Bytes)>) {
        let mut stream = self.stream;
        let mut silent = false;
        for (arrived, frame) in frames {
            if silent {
                continue;
            }
            let counts = usize::from(is_produce(&frame));
            let (answer, last) = match self.cluster.handle(self.link, self.node, frame) {
                Action::Answer(answer, delay) => {
                    self.sleep_until(arrived + delay);
                    (answer, false)
                }
                Action::AnswerAndClose(answer) => (answer, true),
                Action::FallSilent => {
                    silent = true;
                    continue;
                }
            };
            self.unanswered.fetch_sub(counts, Ordering::SeqCst);
            let _ = stream.write_all(&answer);
            if last {
                return;
            }
        }
    }

    /// Sleeps, unless the connection is cut meanwhile.
    fn sleep_until(&self, until: Instant) {
        let cut = |state: &State| !state.links.contains_key(&self.link);
        drop(self.cluster.wait(until, cut));
    }
}

/// Metadata may be asked for beside as many as there may be.
fn is_produce(frame: &[u8]) -> bool {
    frame.starts_with(&(ApiKey::Produce as i16).to_be_bytes())
}
