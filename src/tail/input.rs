//! Where the bytes of a file are read from: the file, or standard input.
//!
//! Both are read at an offset, as often as need be. It knows no lines.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::handles::Handle;
use crate::thread::Stop;

/// Bytes of standard input that are kept until they are settled.
const RETAINED_BYTES_MAX: usize = 8 << 20;
/// Bytes read from standard input at once.
const STDIN_READ_BYTES: usize = 64 << 10;
/// How soon a stop ends a wait for standard input.
const STDIN_POLL_MS: i64 = 100;

/// A file or standard input, read at offsets.
#[derive(Debug, Clone)]
pub enum Input {
    /// A regular file.
    File(Arc<OpenFile>),
    /// What standard input has brought so far.
    Stdin(Arc<Retained>),
}

/// A log file and the handle it takes.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    _handle: Handle,
}

/// What a look at an input tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Bytes it has.
    pub size: u64,
    /// Time of the last write: seconds and nanoseconds. Zero for standard input.
    pub modified: (i64, i64),
    /// The same of the last change of any kind, which nobody can set back.
    pub changed: (i64, i64),
    /// Names it has in the file system.
    pub links: u64,
    /// Nothing will follow.
    pub ended: bool,
}

impl Input {
    /// A file that was opened for reading.
    pub fn file(file: File, handle: Handle) -> Input {
        Input::File(Arc::new(OpenFile {
            file,
            _handle: handle,
        }))
    }

    /// Reads at `offset` until `buffer` is full or the end is reached.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Input::File(open) => read_file_at(&open.file, buffer, offset),
            Input::Stdin(retained) => Ok(retained.read_at(buffer, offset)),
        }
    }

    /// Its size and state now.
    pub fn look(&self) -> io::Result<Look> {
        match self {
            Input::File(open) => open.file.metadata().map(|meta| Look::at(&meta)),
            Input::Stdin(retained) => Ok(retained.look()),
        }
    }

    /// Bytes it takes on the disk although it has no name any more, at most its size:
    /// a sparse file takes less.
    pub fn deleted_bytes(&self) -> u64 {
        const BLOCK_BYTES: u64 = 512; // see stat(2)
        let Input::File(open) = self else {
            return 0;
        };
        let meta = open.file.metadata().ok();
        meta.filter(|meta| meta.nlink() == 0).map_or(0, |meta| {
            meta.len().min(meta.blocks().saturating_mul(BLOCK_BYTES))
        })
    }

    /// When the file was created, in nanoseconds since 1970, where the file system
    /// knows.
    pub fn created_ns(&self) -> Option<u64> {
        match self {
            Input::File(open) => created_ns(&open.file.metadata().ok()?),
            Input::Stdin(_) => None,
        }
    }

    /// Everything before `position` is settled and need not be kept.
    pub fn release(&self, position: u64) {
        if let Input::Stdin(retained) = self {
            retained.release(position);
        }
    }

    /// True where NUL bytes at the end may be room that a writer has made for lines.
    pub fn may_have_room(&self) -> bool {
        !matches!(self, Input::Stdin(_))
    }

    /// True when it ended because it could not be read.
    pub fn has_failed(&self) -> bool {
        match self {
            Input::File(_) => false,
            Input::Stdin(retained) => retained.kept().failed,
        }
    }

    /// The bytes `from..to` will not be asked for: the end of an endless line.
    pub fn forget(&self, from: u64, to: u64) {
        if let Input::Stdin(retained) = self {
            retained.forget(from, to);
        }
    }
}

/// File systems date a change by a clock that ticks this slowly, or faster.
pub const CLOCK_TICK: Duration = Duration::from_millis(20);

impl Look {
    /// True when the file may change once more without looking any different,
    /// because it has changed within the same tick of the file system's clock.
    pub fn may_hide_a_change(&self) -> bool {
        let changed = UNIX_EPOCH
            + Duration::new(
                u64::try_from(self.changed.0).unwrap_or(0),
                u32::try_from(self.changed.1).unwrap_or(0),
            );
        SystemTime::now()
            .duration_since(changed)
            .map_or(true, |since| since < CLOCK_TICK)
    }

    /// What a file's metadata tell.
    pub fn at(meta: &Metadata) -> Look {
        Look {
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            links: meta.nlink(),
            ended: false,
        }
    }
}

/// When a file was created, in nanoseconds since 1970, where the file system knows.
pub fn created_ns(meta: &Metadata) -> Option<u64> {
    let since = meta.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

fn read_file_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<usize> {
    let mut total = 0;
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => break,
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
                total += read;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// Standard input, kept in memory until it is settled. What is kept is bounded,
/// so a slow Kafka slows the writer of the pipe down, as pipes do.
#[derive(Debug, Default)]
pub struct Retained {
    // A lock and not messages: the tailer reads at any offset, any number of times.
    kept: Mutex<Kept>,
    room: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    base: u64,
    bytes: Vec<u8>,
    /// A stretch that was forgotten: offset and length.
    hole: Option<(u64, u64)>,
    ended: bool,
    failed: bool,
}

impl Kept {
    fn size(&self) -> u64 {
        self.base + self.bytes.len() as u64 + self.hole.map_or(0, |(_, len)| len)
    }

    /// The index in `bytes` of an offset that is not in the hole.
    fn index(&self, offset: u64) -> usize {
        let skipped = match self.hole {
            Some((at, len)) if offset > at => len.min(offset - at),
            _ => 0,
        };
        usize::try_from(offset - self.base - skipped).expect("what is kept fits into memory")
    }
}

impl Retained {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> Look {
        let kept = self.kept();
        Look {
            size: kept.size(),
            modified: (0, 0),
            changed: (0, 0),
            links: 1,
            ended: kept.ended,
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let kept = self.kept();
        if offset < kept.base || offset >= kept.size() {
            return 0;
        }
        // Never across the hole: what follows it is another read.
        let end = match kept.hole {
            Some((at, _)) if offset < at => kept.index(at),
            _ => kept.bytes.len(),
        };
        let from = kept.index(offset);
        let len = buffer.len().min(end - from);
        buffer[..len].copy_from_slice(&kept.bytes[from..from + len]);
        len
    }

    fn release(&self, position: u64) {
        let mut kept = self.kept();
        let little = position < kept.base + (RETAINED_BYTES_MAX / 4) as u64;
        let passed = kept.hole.is_some_and(|(at, len)| at + len <= position);
        if little && !passed && position < kept.size() {
            return; // moving bytes down is worth it a few times a megabyte
        }
        let upto = kept.index(position);
        kept.bytes.drain(..upto);
        if kept.hole.is_some_and(|(at, len)| at + len <= position) {
            kept.hole = None;
        }
        kept.base = position;
        self.room.notify_all();
    }

    fn forget(&self, from: u64, to: u64) {
        let mut kept = self.kept();
        let (at, len) = match kept.hole {
            None => (from, to - from),
            Some((at, len)) if at == from => (at, to - at - len),
            Some(_) => return, // an earlier line's; this one waits until it is settled
        };
        let start = kept.index(at + kept.hole.map_or(0, |(_, len)| len));
        let count = usize::try_from(len).expect("what is kept fits into memory");
        kept.bytes.drain(start..start + count);
        kept.hole = Some((at, to - at));
        self.room.notify_all();
    }

    /// The body of the thread that reads standard input into memory.
    pub fn fill(&self, stop: &Stop) {
        let stdin = io::stdin();
        let mut block = vec![0; STDIN_READ_BYTES];
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: STDIN_POLL_MS * 1_000_000,
        };
        while !stop.requested() {
            if !self.wait_for_room() {
                continue;
            }
            let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                _ => {}
            }
            match stdin.lock().read(&mut block) {
                Ok(0) => break,
                Ok(read) => self.kept().bytes.extend_from_slice(&block[..read]),
                Err(error)
                    if matches!(
                        error.kind(),
                        // Another process may have made it non-blocking.
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                    ) => {}
                Err(error) => {
                    log::error!("cannot read standard input: {error}");
                    self.kept().failed = true;
                    break;
                }
            }
        }
        self.kept().ended = true;
    }

    fn wait_for_room(&self) -> bool {
        let kept = self.kept();
        let full = |kept: &mut Kept| kept.bytes.len() >= RETAINED_BYTES_MAX;
        let pause = Duration::from_millis(STDIN_POLL_MS as u64);
        let (kept, wait) = self
            .room
            .wait_timeout_while(kept, pause, full)
            .unwrap_or_else(PoisonError::into_inner);
        drop(kept);
        !wait.timed_out()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retained(bytes: &[u8]) -> Retained {
        let retained = Retained::default();
        retained.kept().bytes.extend_from_slice(bytes);
        retained
    }

    fn read(retained: &Retained, offset: u64) -> Vec<u8> {
        let mut buffer = [0; 16];
        let read = retained.read_at(&mut buffer, offset);
        buffer[..read].to_vec()
    }

    #[test]
    fn what_was_forgotten_leaves_the_offsets_of_the_rest_as_they_were() {
        let retained = retained(b"0123456789");
        retained.forget(2, 5);
        retained.forget(2, 7);
        assert_eq!(retained.look().size, 10);
        assert_eq!(read(&retained, 0), b"01");
        assert_eq!(read(&retained, 7), b"789");
        retained.kept().bytes.extend_from_slice(b"ab");
        assert_eq!(read(&retained, 9), b"9ab");
    }

    #[test]
    fn only_a_look_soon_after_a_change_may_hide_another_one() {
        let changed = |ago: Duration| {
            let at = SystemTime::now() - ago;
            let since = at.duration_since(UNIX_EPOCH).unwrap();
            let changed = (since.as_secs() as i64, i64::from(since.subsec_nanos()));
            let (size, modified, links) = (0, changed, 1);
            let look = Look {
                size,
                modified,
                changed,
                links,
                ended: false,
            };
            look.may_hide_a_change()
        };
        assert!(changed(Duration::ZERO));
        assert!(!changed(CLOCK_TICK));
    }

    /// The hole of one long line must be gone before the next one needs its own.
    #[test]
    fn a_hole_is_given_up_as_soon_as_it_is_passed() {
        let retained = retained(b"0123456789");
        retained.forget(2, 5);
        retained.release(6);
        assert_eq!(retained.kept().hole, None);
        assert_eq!(read(&retained, 6), b"6789");
        retained.forget(7, 9);
        assert_eq!(read(&retained, 9), b"9");
    }

    #[test]
    fn what_is_released_is_not_kept() {
        let retained = retained(b"0123456789");
        retained.forget(2, 5);
        retained.release(10);
        assert_eq!(retained.kept().bytes.len(), 0);
        retained.kept().bytes.extend_from_slice(b"ab");
        assert_eq!(read(&retained, 10), b"ab");
        assert_eq!(retained.look().size, 12);
    }
}
