//! Chunks that wait for the same destination, and how they fill a batch.
//!
//! A lane keeps the order in which chunks came. It does not know when a batch
//! may go out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use memchr::memchr;

use crate::kafka::{EncodedHeaders, Records};
use crate::ledger::{Claim, Flow};
use crate::queue::Chunk;
use crate::record::{Format, Shape};

use super::format::{JsonWriter, Line};
use super::headers::OriginHeaders;

/// Chunks for one partition, or for one topic whose partitions do not matter or
/// are not known yet.
#[derive(Debug, Default)]
pub struct Lane {
    chunks: VecDeque<(Instant, Chunk)>,
    bytes: usize,
    /// Flows whose tailers were told to hold still.
    held: Vec<Arc<Flow>>,
    /// Since when nothing could be sent although something was due.
    pub blocked_since: Option<Instant>,
    /// It was blocked for so long that it keeps nothing any more.
    pub stalled: bool,
    /// It keeps nothing until then, whatever the brokers say.
    pub paused_until: Option<Instant>,
}

/// Where in its topic a chunk is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// To one partition, but they are not known yet.
    Unknown,
    /// To any partition.
    Any,
    /// To this one.
    Partition(usize),
}

/// What one batch is made of; goes with it and comes back.
#[derive(Debug)]
pub struct Receipt {
    /// The lane they waited in.
    pub place: Place,
    /// The lines' ranges, in order.
    pub claims: Vec<Claim>,
    /// The value, when the batch is a single record: what is needed to write it
    /// to the dead letters.
    pub single: Option<Box<[u8]>>,
}

/// What [`Encoder::encode`] took of a chunk.
#[derive(Debug, Clone, Copy)]
struct Taken {
    /// Where it stopped.
    to: u64,
    /// Lines that are in the batch now.
    records: u64,
    /// Empty lines that are not to be sent.
    skipped: u64,
}

/// Turns lines into records; what it remembers is only to do it faster.
#[derive(Debug)]
pub struct Encoder {
    host: Arc<str>,
    json: JsonWriter,
    key: Option<(Arc<Flow>, Arc<Shape>, Vec<u8>)>,
    headers: OriginHeaders,
    /// The first value of the batch; see [`Receipt::single`].
    first_value: Vec<u8>,
}

impl Receipt {
    /// False while a file that was truncated is the only other place where the lines were.
    pub fn can_be_read_again(&self) -> bool {
        !self.claims.iter().any(|claim| claim.file().is_gone())
    }
}

impl Lane {
    /// Adds a chunk; while stalled, it is given back and its tailer held.
    pub fn push(&mut self, chunk: Chunk, now: Instant) {
        if chunk.is_stale() {
            return;
        }
        if self.stalled && !chunk.file.is_gone() {
            self.hold(&chunk);
            return;
        }
        self.bytes += chunk.bytes().len();
        self.chunks.push_back((now, chunk));
    }

    /// Bytes of lines that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest chunk came.
    pub fn oldest(&self) -> Option<Instant> {
        self.chunks.front().map(|(at, _)| *at)
    }

    /// True when nothing waits and nobody is held.
    pub fn is_idle(&self) -> bool {
        self.chunks.is_empty() && self.held.is_empty()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Lets go of the oldest chunks if their tailers read them again.
    pub fn purge_front(&mut self) {
        if self
            .chunks
            .front()
            .is_some_and(|(_, chunk)| chunk.is_stale())
        {
            self.purge();
        }
    }

    /// Lets go of chunks whose tailers read them again.
    pub fn purge(&mut self) {
        self.chunks.retain(|(_, chunk)| !chunk.is_stale());
        self.count_bytes();
    }

    fn count_bytes(&mut self) {
        let bytes = self.chunks.iter().map(|(_, chunk)| chunk.bytes().len());
        self.bytes = bytes.sum();
    }

    /// Gives back what can be read again and tells the tailers to hold still:
    /// the file is the buffer, and the queue's room is for those who can use it.
    pub fn stall(&mut self) {
        self.stalled = true;
        let chunks = std::mem::take(&mut self.chunks);
        let (only_here, in_file): (VecDeque<_>, VecDeque<_>) = chunks
            .into_iter()
            .partition(|(_, chunk)| chunk.file.is_gone());
        for (_, chunk) in in_file {
            self.hold(&chunk);
        }
        self.chunks = only_here;
        self.count_bytes();
    }

    /// Lets the tailers go on.
    pub fn release(&mut self) {
        self.stalled = false;
        self.blocked_since = None;
        self.paused_until = None;
        for flow in self.held.drain(..) {
            flow.hold(false);
        }
    }

    /// Takes all chunks out, to be placed anew.
    pub fn take(&mut self) -> impl Iterator<Item = (Instant, Chunk)> {
        self.bytes = 0;
        std::mem::take(&mut self.chunks).into_iter()
    }

    fn hold(&mut self, chunk: &Chunk) {
        self.hold_flow(chunk.file.flow());
    }

    /// Tells a tailer to hold still until the lane is released.
    pub fn hold_flow(&mut self, flow: &Arc<Flow>) {
        flow.hold(true);
        if !self.held.iter().any(|held| Arc::ptr_eq(held, flow)) {
            self.held.push(Arc::clone(flow));
        }
    }

    /// Fills the builder with the oldest lines, up to `bytes_max`, and takes
    /// them out of the lane.
    pub fn fill(
        &mut self,
        place: Place,
        encoder: &mut Encoder,
        builder: &mut impl Records,
        bytes_max: usize,
    ) -> Receipt {
        let mut claims = Vec::new();
        builder.limit(bytes_max);
        while let Some((_, chunk)) = self.chunks.front_mut() {
            if !chunk.is_stale() {
                let taken = encoder.encode(chunk, builder);
                if taken.to > chunk.cursor() {
                    let claim = chunk.hand_over(taken.to, taken.records, taken.skipped);
                    if taken.records > 0 {
                        claims.push(claim);
                    } else {
                        claim.ack(); // nothing of it is to be sent
                    }
                }
                if taken.to < chunk.to {
                    break;
                }
            }
            self.bytes = self.bytes.saturating_sub(chunk.bytes().len());
            self.chunks.pop_front();
        }
        let single = (builder.records() == 1).then(|| encoder.first_value.as_slice().into());
        Receipt {
            place,
            claims,
            single,
        }
    }
}

/// Its producer has ended, or failed: who was told to hold still is not to wait
/// for somebody who will never come.
impl Drop for Lane {
    fn drop(&mut self) {
        self.release();
    }
}

impl Encoder {
    /// An encoder for lines of this host.
    pub fn new(host: Arc<str>) -> Encoder {
        Encoder {
            json: JsonWriter::new(Arc::clone(&host)),
            headers: OriginHeaders::new(Arc::clone(&host)),
            host,
            key: None,
            first_value: Vec::new(),
        }
    }

    /// Encodes the lines of a chunk that were not handed over yet, until the
    /// batch is full.
    ///
    /// This is the hot path: each line's bytes are copied once, into the batch.
    fn encode(&mut self, chunk: &Chunk, builder: &mut impl Records) -> Taken {
        let shape = &chunk.shape;
        let (mut records, mut skipped) = (0, 0);
        self.render_key(chunk);
        let mut headers = shape.headers.then(|| self.headers.of(chunk.file.origin()));
        let key = shape.key.as_ref().and(self.key.as_ref());
        let key = key.map(|(_, _, key)| key.as_slice());
        let mut to = chunk.to;
        for line in Lines::of(chunk) {
            if shape.skip_empty && line.bytes.is_empty() {
                skipped += 1;
                continue;
            }
            let value = match shape.format {
                Format::Raw => line.bytes,
                Format::Json => {
                    let origin = chunk.file.origin();
                    self.json.write(origin, shape, chunk.read_at_ms, line)
                }
            };
            if builder.is_empty() {
                self.first_value.clear();
                self.first_value.extend_from_slice(value);
            }
            let headers = match &mut headers {
                None => EncodedHeaders::NONE,
                Some(headers) => headers.at(line.offset),
            };
            if !builder.push(chunk.read_at_ms, key, value, headers) {
                to = line.offset;
                break;
            }
            if line.cut {
                chunk.file.count_cut();
            }
            records += 1;
        }
        Taken {
            to,
            records,
            skipped,
        }
    }

    fn render_key(&mut self, chunk: &Chunk) {
        let Some(template) = &chunk.shape.key else {
            return;
        };
        let (flow, shape) = (chunk.file.flow(), &chunk.shape);
        let same = |(of, with, _): &(Arc<Flow>, Arc<Shape>, Vec<u8>)| {
            Arc::ptr_eq(of, flow) && Arc::ptr_eq(with, shape)
        };
        if !self.key.as_ref().is_some_and(same) {
            let key = template.render(&chunk.file.origin().path, &self.host);
            self.key = Some((Arc::clone(flow), Arc::clone(shape), key));
        }
    }
}

/// The lines of a chunk that were not handed over yet, without their ends: `\n`, and one
/// `\r` before it.
#[derive(Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
    /// Where that begins in the file.
    offset: u64,
    line_bytes_max: usize,
    /// The chunk is one line, and was longer.
    cut: bool,
}

impl<'a> Lines<'a> {
    /// Those of this one.
    pub fn of(chunk: &'a Chunk) -> Lines<'a> {
        let at = usize::try_from(chunk.cursor() - chunk.from).expect("it is within the chunk");
        Lines {
            rest: chunk.bytes().get(at..).unwrap_or_default(),
            offset: chunk.cursor(),
            line_bytes_max: chunk.shape.line_bytes_max,
            cut: chunk.cut,
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    #[inline]
    fn next(&mut self) -> Option<Line<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr(b'\n', self.rest);
        let (line, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &[][..]),
        };
        let bytes = match end {
            Some(_) => line.strip_suffix(b"\r").unwrap_or(line),
            None => line,
        };
        let whole = bytes.len() <= self.line_bytes_max;
        let found = Line {
            bytes: if whole {
                bytes
            } else {
                &bytes[..self.line_bytes_max]
            },
            offset: self.offset,
            cut: self.cut || !whole,
        };
        self.offset += (self.rest.len() - rest.len()) as u64;
        self.rest = rest;
        Some(found)
    }
}
