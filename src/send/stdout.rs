//! Lines to standard output, one record a line: to try things, and for pipes.
//!
//! What was written counts as acknowledged. A reader that hangs up is a normal
//! end.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, select};
use memchr::memchr;

use crate::queue::Chunk;
use crate::record::Format;
use crate::thread::{Stop, fault_point};

use super::format::JsonWriter;
use super::lane::Lines;

/// Pause when standard output is not blocking and takes nothing.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// Why writing ended.
#[derive(Debug)]
pub enum StdoutEnd {
    /// Everything was written, or a stop was requested.
    Done,
    /// The reader hung up.
    ReaderGone,
    /// Standard output cannot be written.
    Failed(io::Error),
}

/// Writes chunks to standard output.
#[derive(Debug)]
pub struct StdoutSender {
    json: JsonWriter,
    out: File,
    buffer: Vec<u8>,
}

impl StdoutSender {
    /// A sender that owns a duplicate of standard output, so that nothing is
    /// buffered twice.
    pub fn new(host: Arc<str>) -> io::Result<StdoutSender> {
        let out = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(StdoutSender {
            json: JsonWriter::new(host),
            out: File::from(out),
            buffer: Vec::new(),
        })
    }

    /// Runs until the queue is closed and empty, the reader hangs up, or a stop
    /// is requested.
    pub fn run(mut self, chunks: &Receiver<Chunk>, stop: &Stop) -> StdoutEnd {
        loop {
            fault_point("send");
            let chunk = select! {
                recv(chunks) -> chunk => chunk,
                recv(stop.signal()) -> _ => return StdoutEnd::Done,
            };
            let Ok(chunk) = chunk else {
                return StdoutEnd::Done;
            };
            match self.write(chunk, stop) {
                Ok(true) => {}
                Ok(false) => return StdoutEnd::Done,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return StdoutEnd::ReaderGone;
                }
                Err(error) => return StdoutEnd::Failed(error),
            }
        }
    }

    /// Writes a chunk and acknowledges it. False when a stop came first.
    fn write(&mut self, mut chunk: Chunk, stop: &Stop) -> io::Result<bool> {
        if chunk.is_stale() {
            return Ok(true);
        }
        let shape = &chunk.shape;
        let plain = shape.format == Format::Raw
            && !shape.skip_empty
            && !chunk.cut
            && chunk.bytes().ends_with(b"\n")
            && chunk.bytes().len() <= shape.line_bytes_max
            && memchr(b'\r', chunk.bytes()).is_none();
        let (written, skipped) = if plain {
            (write_all(&mut self.out, chunk.bytes(), stop)?, 0)
        } else {
            let skipped = self.encode(&chunk);
            (write_all(&mut self.out, &self.buffer, stop)?, skipped)
        };
        if written {
            let (to, lines) = (chunk.to, chunk.lines);
            chunk.hand_over(to, lines - skipped, skipped).ack();
        }
        Ok(written)
    }

    /// Fills the buffer with a chunk's records. Returns how many empty lines are
    /// not to be sent.
    fn encode(&mut self, chunk: &Chunk) -> u64 {
        self.buffer.clear();
        let shape = &chunk.shape;
        let mut skipped = 0;
        for line in Lines::of(chunk) {
            if shape.skip_empty && line.bytes.is_empty() {
                skipped += 1;
                continue;
            }
            if line.cut {
                chunk.file.count_cut();
            }
            let value = match shape.format {
                Format::Raw => line.bytes,
                Format::Json => {
                    let origin = chunk.file.origin();
                    self.json.write(origin, shape, chunk.read_at_ms, line)
                }
            };
            self.buffer.extend_from_slice(value);
            self.buffer.push(b'\n');
        }
        skipped
    }
}

/// Writes everything, also to an output that does not block. False when a stop
/// came first.
fn write_all(out: &mut File, mut bytes: &[u8], stop: &Stop) -> io::Result<bool> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stop.requested() {
                    return Ok(false);
                }
                thread::sleep(FULL_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
