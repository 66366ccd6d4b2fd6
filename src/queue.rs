//! The bounded queues between tailers and producers, and what travels on them.
//!
//! A queue holds chunks: complete lines of one file, with their byte range.
//! Nothing here knows how lines are cut or sent, and nothing here waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::ledger::{Claim, FileLedger};
use crate::record::Shape;

/// Chunks in one producer's queue. The bound that counts is the one in bytes;
/// this one limits what many tiny chunks cost beyond their bytes.
const CHUNKS_MAX: usize = 4_096;
/// Buffers kept for reuse; only ones of at least [`RECYCLED_BYTES_MIN`] bytes.
const SPARE_BUFFERS_MAX: usize = 32;
/// Smaller buffers are cheaper to allocate than to keep.
const RECYCLED_BYTES_MIN: usize = 128 << 10;
/// Larger ones, made for a long line, are not worth their memory.
const RECYCLED_BYTES_MAX: usize = 512 << 10;

/// Complete lines of one file: one byte range, and the way home for its ack.
#[derive(Debug)]
pub struct Chunk {
    /// The file's account, where the range is acknowledged or given back.
    pub file: Arc<FileLedger>,
    /// What its lines are to become.
    pub shape: Arc<Shape>,
    /// First byte of the range.
    pub from: u64,
    /// Byte after the range; line ends included.
    pub to: u64,
    /// Records in it.
    pub lines: u64,
    /// A single line, cut at `line_bytes_max`; the range holds all of it.
    pub cut: bool,
    /// When it was read, in milliseconds since 1970 UTC.
    pub read_at_ms: i64,
    /// The flow's epoch when it was read; see [`Flow`](crate::ledger::Flow).
    pub epoch: u32,
    /// Allocated for reading; the lines are its first `len` bytes.
    buffer: Vec<u8>,
    len: usize,
    cursor: u64,
    lease: Option<Lease>,
}

/// The part of the byte budget that a queued chunk takes. Returns it, and the
/// buffer, when the chunk is done with.
#[derive(Debug)]
struct Lease {
    shared: Arc<Shared>,
    bytes: usize,
}

#[derive(Debug)]
struct Shared {
    bytes_max: usize,
    bytes: AtomicUsize,
    /// Held by whoever reads a long line.
    long_line: Mutex<()>,
    spare: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
}

/// The tailers' end of the queues.
#[derive(Debug, Clone)]
pub struct Queue {
    lanes: Arc<[Sender<Chunk>]>,
    shared: Arc<Shared>,
}

/// Why a chunk was not taken. It is let go: its range is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No room now.
    Full,
    /// The producers are gone.
    Closed,
}

/// Makes the queues of `producers` producers, which share `bytes_max` bytes.
pub fn queue(producers: usize, bytes_max: usize) -> (Queue, Vec<Receiver<Chunk>>) {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..producers).map(|_| bounded(CHUNKS_MAX)).unzip();
    let shared = Shared {
        bytes_max,
        bytes: AtomicUsize::new(0),
        long_line: Mutex::new(()),
        spare: bounded(SPARE_BUFFERS_MAX),
    };
    let queue = Queue {
        lanes: senders.into(),
        shared: Arc::new(shared),
    };
    (queue, receivers)
}

impl Queue {
    /// A buffer of at least `bytes` initialised bytes, reused if there is one.
    pub fn buffer(&self, bytes: usize) -> Vec<u8> {
        if bytes >= RECYCLED_BYTES_MIN
            && let Ok(spare) = self.shared.spare.1.try_recv()
            && spare.len() >= bytes
        {
            return spare;
        }
        vec![0; bytes]
    }

    /// Gives a buffer back that was not made into a chunk.
    pub fn recycle(&self, buffer: Vec<u8>) {
        self.shared.recycle(buffer);
    }

    /// False when an offer would probably be refused, so that reading is not
    /// worth the trouble.
    pub fn has_room(&self) -> bool {
        self.shared.bytes.load(Ordering::Relaxed) < self.shared.bytes_max
    }

    /// The turn to read a long line, to be kept until it is offered: many files
    /// with such lines would else need as many large buffers at once. Held over
    /// a read, because the memory is what it guards.
    pub fn long_line_turn(&self) -> MutexGuard<'_, ()> {
        self.shared
            .long_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in the queues and in the hands of producers.
    pub fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Offers a chunk to the producer that its flow belongs to.
    ///
    /// An empty queue takes any chunk, so that a small budget delays a large
    /// chunk and never stops it.
    pub fn try_send(&self, mut chunk: Chunk) -> Result<(), Refused> {
        let bytes = chunk.buffer.len();
        let taken = self
            .shared
            .bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (used == 0 || used + bytes <= self.shared.bytes_max).then(|| used + bytes)
            });
        if taken.is_err() {
            return Err(Refused::Full);
        }
        chunk.lease = Some(Lease {
            shared: Arc::clone(&self.shared),
            bytes,
        });
        let flow = Arc::clone(chunk.file.flow());
        flow.enter();
        let lane = (flow.hash() % self.lanes.len() as u64) as usize;
        self.lanes[lane].try_send(chunk).map_err(|error| {
            let (mut chunk, refused) = match error {
                TrySendError::Full(chunk) => (chunk, Refused::Full),
                TrySendError::Disconnected(chunk) => (chunk, Refused::Closed),
            };
            chunk.cursor = chunk.to; // the claim is still the tailer's
            refused
        })
    }
}

impl Chunk {
    /// A chunk of the first `len` bytes of `buffer`, not yet queued.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        file: Arc<FileLedger>,
        shape: Arc<Shape>,
        (from, to): (u64, u64),
        lines: u64,
        cut: bool,
        read_at_ms: i64,
        epoch: u32,
        buffer: Vec<u8>,
        len: usize,
    ) -> Chunk {
        debug_assert!(from < to && len <= buffer.len());
        Chunk {
            file,
            shape,
            from,
            to,
            lines,
            cut,
            read_at_ms,
            epoch,
            buffer,
            len,
            cursor: from,
            lease: None,
        }
    }

    /// The lines with their ends, as they stand in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// True when the file's tailer will read this range again, so that sending
    /// it would put it out of order and send it twice. What cannot be read
    /// again, because the file was truncated, is never stale.
    pub fn is_stale(&self) -> bool {
        self.epoch != self.file.flow().epoch() && !self.file.is_gone()
    }

    /// Where the lines begin that were not handed over yet.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Hands over the lines up to `to`, `records` that are sent and `skipped`
    /// empty ones that are not: whoever has the claim now acknowledges it or
    /// gives it back.
    pub fn hand_over(&mut self, to: u64, records: u64, skipped: u64) -> Claim {
        debug_assert!(self.cursor < to && to <= self.to);
        let from = std::mem::replace(&mut self.cursor, to);
        Claim::new(Arc::clone(&self.file), (from, to), records, skipped)
    }
}

/// A queued chunk that is let go gives back what was not handed over.
impl Drop for Chunk {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        if self.cursor < self.to {
            self.file.give_back(self.cursor, self.to);
        }
        lease.shared.bytes.fetch_sub(lease.bytes, Ordering::AcqRel);
        lease.shared.recycle(std::mem::take(&mut self.buffer));
        self.file.flow().leave();
    }
}

impl Shared {
    fn recycle(&self, buffer: Vec<u8>) {
        if (RECYCLED_BYTES_MIN..=RECYCLED_BYTES_MAX).contains(&buffer.len()) {
            let _ = self.spare.0.try_send(buffer);
        }
    }
}
