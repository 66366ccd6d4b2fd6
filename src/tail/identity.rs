//! Is this the file it was? Fingerprints of a file's head and of the bytes
//! before a position.
//!
//! Device and inode are not enough: inodes are reused, and files are rewritten
//! in place. Nothing here decides what follows from an answer.

use std::io;

use twox_hash::XxHash3_64;

use super::input::Input;
use crate::ledger::{Entry, Mark, may_be_one};

/// Bytes of the head that are hashed once the file has them.
const HEAD_BYTES_MAX: u64 = 1 << 10;
/// Bytes before a position that are hashed.
const WINDOW_BYTES_MAX: u64 = 4 << 10;

/// What became of a file that was remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognition {
    /// The same; reading goes on at the position.
    Same,
    /// Another file with its inode number, or the same rewritten.
    Changed,
}

/// Fingerprint of the head of a file of `size` bytes, up to 1 KiB. NUL bytes at its
/// end do not count: they may be room that the writer has made for lines.
pub fn head(input: &Input, size: u64) -> io::Result<Mark> {
    Ok(grown_head(input, Mark::default(), size)?.unwrap_or_default())
}

/// The fingerprint of a head that may have grown to `size` bytes; `None` when it
/// does not begin with what `head` was made of. Both are of the same bytes, read
/// once: a rewrite in between cannot pass for growth.
pub fn grown_head(input: &Input, head: Mark, size: u64) -> io::Result<Option<Mark>> {
    if let Input::Stdin(_) = input {
        return Ok(Some(head));
    }
    let len = size.min(HEAD_BYTES_MAX).max(u64::from(head.len));
    let mut bytes = vec![0; len as usize];
    let read = input.read_at(&mut bytes, 0)?;
    let before = bytes[..read].get(..head.len as usize);
    let same = before.is_some_and(|before| head.len == 0 || head == mark_of(before, head.end));
    let nuls = bytes[..read].iter().rev().take_while(|byte| **byte == 0);
    let written = (read - nuls.count()).max(head.len as usize);
    Ok(same.then(|| mark_of(&bytes[..written], written as u64)))
}

/// Fingerprint of up to 4 KiB before `position`.
pub fn window(input: &Input, position: u64) -> io::Result<Mark> {
    mark(input, position, position.min(WINDOW_BYTES_MAX))
}

/// The same, of a chunk just read: the bytes need not be read again when it is
/// large enough.
pub fn window_of_chunk(input: &Input, to: u64, bytes: &[u8], whole: bool) -> io::Result<Mark> {
    let wanted = to.min(WINDOW_BYTES_MAX);
    match usize::try_from(wanted) {
        Ok(len) if whole && bytes.len() >= len => Ok(mark_of(&bytes[bytes.len() - len..], to)),
        _ => window(input, to),
    }
}

/// True when the file still has the bytes that `mark` was made of.
pub fn fits(input: &Input, expected: Mark) -> io::Result<bool> {
    let nothing = expected.len == 0 || matches!(input, Input::Stdin(_));
    Ok(nothing || mark(input, expected.end, u64::from(expected.len))? == expected)
}

/// True when a file of `size` bytes is a copy of a remembered one, which was not empty.
pub fn is_copy(input: &Input, size: u64, entry: &Entry) -> io::Result<bool> {
    Ok(entry.head.len + entry.window.len > 0 && goes_on(input, size, entry)?)
}

/// True when a file of `size` bytes begins like a remembered one, and has all that
/// was settled of it.
fn goes_on(input: &Input, size: u64, entry: &Entry) -> io::Result<bool> {
    Ok(size >= entry.settled_to() && fits(input, entry.head)? && fits(input, entry.window)?)
}

/// Tells a remembered file from another one in its place.
pub fn recognise(input: &Input, size: u64, entry: &Entry) -> io::Result<Recognition> {
    let same_inode = may_be_one(entry.origin.created_ns, input.created_ns());
    // Where nothing of it was settled, all that tells it from another file with an equal head,
    // or none, is that it has not shrunk.
    let has_shrunk = entry.window.len == 0 && size < entry.size;
    Ok(
        if same_inode && !has_shrunk && goes_on(input, size, entry)? {
            Recognition::Same
        } else {
            Recognition::Changed
        },
    )
}

/// Hashes `len` bytes that end at `end`. A file too short gives a mark of what
/// there is, which fits nothing that was longer.
fn mark(input: &Input, end: u64, len: u64) -> io::Result<Mark> {
    if let Input::Stdin(_) = input {
        return Ok(Mark::default()); // it is never resumed and never rewritten
    }
    let mut bytes = vec![0; len as usize];
    let read = input.read_at(&mut bytes, end - len)?;
    Ok(mark_of(&bytes[..read], end))
}

/// The fingerprint of bytes that end at `end`.
fn mark_of(bytes: &[u8], end: u64) -> Mark {
    Mark {
        end,
        len: bytes.len() as u32,
        hash: XxHash3_64::oneshot(bytes),
    }
}
