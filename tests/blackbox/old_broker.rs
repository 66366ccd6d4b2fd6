//! A broker of before Kafka 0.11 at the wire, as honest or hostile as a test wants: one
//! topic of one partition, version 0 of everything, no compression.
//!
//! Written from the protocol guide, <https://kafka.apache.org/protocol.html>, and read by
//! hand, so that it shares nothing with what it tests.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const UNSUPPORTED_VERSION: i16 = 35;

/// A broker; its threads end with the test's process.
pub struct OldBroker {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    values: Vec<Vec<u8>>,
    spite: Option<Spite>,
    streams: Vec<TcpStream>,
}

/// What requests of a kind are answered with instead.
#[derive(Clone)]
pub struct Spite {
    /// Of this kind; on those that come after it in a connection's life it hangs up.
    pub on: Kind,
    /// How.
    pub how: How,
}

/// A kind of request, in the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ApiVersions,
    Metadata,
    Produce,
}

#[derive(Clone)]
pub enum How {
    /// These bytes, and then nothing.
    Bytes(Vec<u8>),
    /// These bytes for ever.
    Flood(Vec<u8>),
    /// A frame with this behind the right correlation id.
    Body(Vec<u8>),
    /// A frame with this behind another correlation id.
    OfAnother(Vec<u8>),
    /// A frame that is longer than what comes of it.
    Half,
}

impl OldBroker {
    pub fn start() -> OldBroker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&shared));
                let clone = stream.try_clone().unwrap();
                state.lock().unwrap().streams.push(clone);
                thread::spawn(move || serve(stream, port, &state));
            }
        });
        OldBroker { port, state }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on, or no more. Connections are cut.
    pub fn spite(&self, spite: Option<Spite>) {
        let mut state = self.lock();
        state.spite = spite;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// What was written, in order.
    pub fn values(&self) -> Vec<Vec<u8>> {
        self.lock().values.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn serve(mut stream: TcpStream, port: u16, state: &Mutex<State>) {
    let _ = answer_all(&mut stream, port, state);
    let _ = stream.shutdown(Shutdown::Both);
}

fn answer_all(stream: &mut TcpStream, port: u16, state: &Mutex<State>) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame)?;
        let kind = match i16::from_be_bytes([frame[0], frame[1]]) {
            API_VERSIONS => Kind::ApiVersions,
            METADATA => Kind::Metadata,
            _ => Kind::Produce,
        };
        let spite = state.lock().unwrap().spite.clone();
        let Some(spite) = spite.filter(|spite| kind >= spite.on) else {
            let body = honest(&frame, port, state);
            stream.write_all(&framed(&frame[4..8], &body))?;
            continue;
        };
        if kind > spite.on {
            return Ok(());
        }
        match spite.how {
            How::Bytes(bytes) => stream.write_all(&bytes)?,
            How::Flood(bytes) => loop {
                stream.write_all(&bytes)?;
            },
            How::Body(body) => stream.write_all(&framed(&frame[4..8], &body))?,
            How::OfAnother(body) => stream.write_all(&framed(&[0x7f; 4], &body))?,
            How::Half => {
                stream.write_all(&[0, 0, 1, 0])?;
                stream.write_all(&frame[4..8])?;
                return Ok(());
            }
        }
    }
}

fn framed(correlation: &[u8], body: &[u8]) -> Vec<u8> {
    let length = (correlation.len() + body.len()) as u32;
    [&length.to_be_bytes(), correlation, body].concat()
}

fn honest(frame: &[u8], port: u16, state: &Mutex<State>) -> Vec<u8> {
    let mut request = Reader(frame);
    let (api, version) = (request.i16(), request.i16());
    request.take(4); // correlation id
    request.string();
    match api {
        PRODUCE => {
            assert_eq!(version, 0);
            let mut values = Vec::new();
            let body = produce(&mut request, &mut values);
            state.lock().unwrap().values.append(&mut values);
            body
        }
        METADATA => {
            assert_eq!(version, 0);
            let topics = (0..request.i32()).map(|_| request.string()).collect();
            metadata(port, topics)
        }
        API_VERSIONS if version == 0 => {
            let mut body = 0_i16.to_be_bytes().to_vec();
            body.extend(3_i32.to_be_bytes());
            for (api, newest) in [(PRODUCE, 2_i16), (METADATA, 1), (API_VERSIONS, 0)] {
                body.extend([api, 0, newest].map(i16::to_be_bytes).concat());
            }
            body
        }
        API_VERSIONS => [&UNSUPPORTED_VERSION.to_be_bytes()[..], &0_i32.to_be_bytes()].concat(),
        other => panic!("no request of an old client: {other}"),
    }
}

fn metadata(port: u16, mut topics: Vec<String>) -> Vec<u8> {
    if topics.is_empty() {
        topics = vec!["t".to_owned()];
    }
    let mut body = brokers(&[(1, "127.0.0.1", port)]);
    body.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        body.extend(topic_of(&topic, 1, &[(0, 1)]));
    }
    body
}

/// The brokers of a Metadata answer: node, host, port.
pub fn brokers(all: &[(i32, &str, u16)]) -> Vec<u8> {
    let mut body = (all.len() as i32).to_be_bytes().to_vec();
    for (node, host, port) in all {
        body.extend(node.to_be_bytes());
        body.extend(text(host));
        body.extend(i32::from(*port).to_be_bytes());
    }
    body
}

/// A topic of a Metadata answer: how many partitions it says that it has, and index and
/// leader of those that come.
pub fn topic_of(name: &str, count: i32, partitions: &[(i32, i32)]) -> Vec<u8> {
    let mut body = 0_i16.to_be_bytes().to_vec();
    body.extend(text(name));
    body.extend(count.to_be_bytes());
    for (index, leader) in partitions {
        body.extend(0_i16.to_be_bytes());
        body.extend(index.to_be_bytes());
        body.extend(leader.to_be_bytes());
        for _replicas_and_those_in_sync in 0..2 {
            body.extend(1_i32.to_be_bytes());
            body.extend(leader.to_be_bytes());
        }
    }
    body
}

/// A STRING.
pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// Takes the batches apart, and answers that they are written.
fn produce(request: &mut Reader, values: &mut Vec<Vec<u8>>) -> Vec<u8> {
    assert_eq!(request.i16(), -1, "acks=all");
    request.i32(); // patience
    let topics = request.i32();
    let mut body = topics.to_be_bytes().to_vec();
    for _ in 0..topics {
        body.extend(text(&request.string()));
        let partitions = request.i32();
        body.extend(partitions.to_be_bytes());
        for _ in 0..partitions {
            body.extend(request.i32().to_be_bytes());
            body.extend(0_i16.to_be_bytes());
            body.extend(7_i64.to_be_bytes());
            let size = request.i32() as usize;
            let mut set = Reader(request.take(size));
            while !set.0.is_empty() {
                set.take(8); // offset
                let size = set.i32() as usize;
                let mut message = Reader(set.take(size));
                message.take(4); // checksum
                assert_eq!(message.take(2), [0, 0], "magic and attributes");
                assert_eq!(message.i32(), -1, "no key");
                let size = message.i32() as usize;
                values.push(message.take(size).to_vec());
                assert!(message.0.is_empty());
            }
        }
    }
    assert!(request.0.is_empty());
    body
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        self.0.split_off(..bytes).expect("a whole request")
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn string(&mut self) -> String {
        let size = self.i16() as usize;
        String::from_utf8(self.take(size).to_vec()).unwrap()
    }
}
