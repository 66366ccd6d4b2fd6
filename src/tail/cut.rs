//! Reads a block and cuts it at its last line end.
//!
//! It finds where lines end and nothing else: `\r`, empty lines and formats are
//! the producer's. Memory is bounded by the block and the longest line that is
//! shipped, however long a line in the file is.

use std::io;

use memchr::{memchr, memchr_iter, memrchr};

use super::input::Input;
use crate::queue::Queue;

/// Bytes read at once: small enough for a CPU's second-level cache, large
/// enough that system calls do not count.
pub const BLOCK_BYTES: usize = 256 << 10;

/// Where reading stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Start of the next line.
    pub offset: u64,
    /// No line ends between `offset` and here.
    pub scanned: u64,
    /// From here to `scanned` there are only NUL bytes: room that a writer has made,
    /// and may fill from its beginning. Equal to `scanned` where there are none.
    pub room: u64,
    /// All that was room at the last scan: it need not be read again to know.
    room_end: u64,
}

/// How far a call may go.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Byte after the last one that may be read.
    pub end: u64,
    /// A line that ends at `end` without a line end is complete.
    pub complete: bool,
    /// Bytes of a line that are shipped at most.
    pub line_bytes_max: usize,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Cut {
    /// Complete lines from the cursor's offset on.
    Lines(Lines),
    /// Part of a long line; go on reading.
    Partial,
    /// No complete line yet.
    Nothing,
}

/// Complete lines, or the beginning of a line that is too long.
#[derive(Debug, PartialEq, Eq)]
pub struct Lines {
    /// The lines are its first `len` bytes.
    pub buffer: Vec<u8>,
    /// Bytes of lines.
    pub len: usize,
    /// Byte after the last line in the file.
    pub to: u64,
    /// From `to` to here the file was seen to have room only.
    pub room_to: u64,
    /// Records.
    pub lines: u64,
    /// A single line of which only the beginning is in the buffer.
    pub cut: bool,
}

impl Cursor {
    /// True when the beginning of a line was seen and its end was not.
    pub fn is_in_line(&self) -> bool {
        self.scanned > self.offset
    }

    /// True when there is nothing but room from `offset` on, as far as was scanned.
    pub fn has_room_only(&self) -> bool {
        self.room == self.offset && self.scanned > self.offset
    }

    /// At the start of a line.
    pub fn at(offset: u64) -> Cursor {
        Cursor {
            offset,
            scanned: offset,
            room: offset,
            room_end: offset,
        }
    }

    /// The lines are taken.
    pub fn pass_lines(&mut self, lines: &Lines) {
        *self = Cursor {
            offset: lines.to,
            scanned: lines.room_to,
            room: lines.to,
            room_end: self.room_end.max(lines.room_to),
        };
    }

    /// The first byte of what was room is none any more: it is read again.
    pub fn enter_room(&mut self) {
        self.scanned = self.room.max(self.offset);
    }

    /// The room behind `size` was given back.
    pub fn shrink_to(&mut self, size: u64) {
        self.scanned = self.scanned.min(size);
        self.room_end = self.room_end.min(size);
    }

    /// Up to here there was nothing but what was read and room.
    pub fn seen_to(&self) -> u64 {
        self.scanned.max(self.room_end)
    }

    /// How far there is room behind lines that end at `to`, where `rest` follows.
    fn room_behind(&self, to: u64, rest: &[u8], end: u64) -> u64 {
        if rest.is_empty() || rest.iter().any(|byte| *byte != 0) {
            return to;
        }
        (to + rest.len() as u64).max(self.room_end.min(end))
    }

    /// No line ends in this block at `scanned`.
    fn pass(&mut self, block: &[u8], end: u64) {
        let to = self.scanned + block.len() as u64;
        let nuls = block.iter().rev().take_while(|byte| **byte == 0).count();
        if nuls < block.len() {
            self.room = to - nuls as u64;
        }
        self.scanned = to;
        if self.room < to {
            self.scanned = to.max(self.room_end.min(end));
            self.room_end = self.scanned;
        }
    }
}

/// Reads the next lines at the cursor. The cursor's offset is left alone: it is
/// moved by whoever knows that the lines were taken.
pub fn next(input: &Input, cursor: &mut Cursor, bounds: Bounds, queue: &Queue) -> io::Result<Cut> {
    if cursor.is_in_line() {
        return scan_on(input, cursor, bounds, queue);
    }
    let want = bounds
        .end
        .saturating_sub(cursor.offset)
        .min(BLOCK_BYTES as u64) as usize;
    if want == 0 {
        return Ok(Cut::Nothing);
    }
    let mut buffer = queue.buffer(want);
    let read = input.read_at(&mut buffer[..want], cursor.offset)?;
    let at_end = cursor.offset + read as u64 >= bounds.end;
    let len = match memrchr(b'\n', &buffer[..read]) {
        Some(last) => last + 1,
        None if at_end && bounds.complete && read > 0 => read,
        None => {
            cursor.pass(&buffer[..read], bounds.end);
            queue.recycle(buffer);
            return Ok(if cursor.scanned >= bounds.end || read == 0 {
                Cut::Nothing
            } else {
                Cut::Partial
            });
        }
    };
    let to = cursor.offset + len as u64;
    Ok(Cut::Lines(Lines {
        lines: count_lines(&buffer[..len]),
        to,
        room_to: cursor.room_behind(to, &buffer[len..read], bounds.end),
        buffer,
        len,
        cut: false,
    }))
}

/// Looks for the end of a line whose beginning was seen before.
fn scan_on(input: &Input, cursor: &mut Cursor, bounds: Bounds, queue: &Queue) -> io::Result<Cut> {
    let want = bounds
        .end
        .saturating_sub(cursor.scanned)
        .min(BLOCK_BYTES as u64) as usize;
    let mut block = queue.buffer(want);
    let read = input.read_at(&mut block[..want], cursor.scanned)?;
    let found = memchr(b'\n', &block[..read]).map(|at| {
        let to = cursor.scanned + at as u64 + 1;
        (to, cursor.room_behind(to, &block[at + 1..read], bounds.end))
    });
    if found.is_none() {
        cursor.pass(&block[..read], bounds.end);
    }
    queue.recycle(block);
    if let Some((to, room_to)) = found {
        return line(input, cursor, (to, room_to), bounds);
    }
    forget_rest(input, cursor, bounds.line_bytes_max);
    if cursor.scanned < bounds.end && read > 0 {
        return Ok(Cut::Partial);
    }
    if bounds.complete && cursor.scanned >= bounds.end {
        return line(input, cursor, (bounds.end, bounds.end), bounds);
    }
    Ok(Cut::Nothing)
}

/// What of a line that is too long will not be shipped need not be kept.
pub fn forget_rest(input: &Input, cursor: &Cursor, line_bytes_max: usize) {
    let shipped_to = cursor.offset + line_bytes_max as u64;
    if cursor.scanned > shipped_to {
        input.forget(shipped_to, cursor.scanned);
    }
}

/// The one line from the cursor to `to`, or as much of it as is shipped.
fn line(
    input: &Input,
    cursor: &Cursor,
    (to, room_to): (u64, u64),
    bounds: Bounds,
) -> io::Result<Cut> {
    const LINE_END_BYTES: u64 = 2;
    let whole = to - cursor.offset;
    let max = bounds.line_bytes_max as u64;
    let cut = whole > max + LINE_END_BYTES;
    let want = if cut { max } else { whole } as usize;
    let mut buffer = vec![0; want];
    let len = input.read_at(&mut buffer, cursor.offset)?;
    if len < want {
        return Ok(Cut::Nothing); // it became shorter; the next look will tell
    }
    Ok(Cut::Lines(Lines {
        buffer,
        len,
        to,
        room_to,
        lines: 1,
        cut,
    }))
}

/// Records in whole lines, the last of which may lack its line end.
pub fn count_lines(bytes: &[u8]) -> u64 {
    let ends = memchr_iter(b'\n', bytes).count() as u64;
    ends + u64::from(bytes.last().is_some_and(|&last| last != b'\n'))
}

/// The start of the last, unfinished line of a file of `size` bytes; `size` if
/// it ends with a line end.
pub fn last_line_start(input: &Input, size: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK_BYTES.min(size as usize)];
    let mut end = size;
    while end > 0 {
        let want = (BLOCK_BYTES as u64).min(end) as usize;
        let from = end - want as u64;
        let read = input.read_at(&mut block[..want], from)?;
        if let Some(at) = memrchr(b'\n', &block[..read]) {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::queue::queue;
    use crate::tail::Handles;

    fn input(bytes: &[u8]) -> Input {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        input_of(file)
    }

    fn input_of(file: File) -> Input {
        Input::file(file, Handles::new(None).take().unwrap())
    }

    fn bounds(end: usize, complete: bool) -> Bounds {
        Bounds {
            end: end as u64,
            complete,
            line_bytes_max: 1 << 20,
        }
    }

    /// All lines that come out, with the byte ranges they were cut into.
    fn read_all(bytes: &[u8], bounds: Bounds) -> (Vec<u8>, u64) {
        let input = input(bytes);
        let (queue, _receivers) = queue(1, 1 << 20);
        let mut cursor = Cursor::at(0);
        let mut out = Vec::new();
        loop {
            match next(&input, &mut cursor, bounds, &queue).unwrap() {
                Cut::Lines(lines) => {
                    out.extend_from_slice(&lines.buffer[..lines.len]);
                    cursor = Cursor::at(lines.to);
                }
                Cut::Partial => {}
                Cut::Nothing => return (out, cursor.offset),
            }
        }
    }

    #[test]
    fn a_block_ends_at_its_last_line_end() {
        let (out, offset) = read_all(b"a\n\nb\npart", bounds(9, false));
        assert_eq!((out.as_slice(), offset), (&b"a\n\nb\n"[..], 5));
        let (out, offset) = read_all(b"a\n\nb\npart", bounds(9, true));
        assert_eq!((out.as_slice(), offset), (&b"a\n\nb\npart"[..], 9));
    }

    #[test]
    fn lines_around_the_block_size_come_out_whole() {
        for len in [
            BLOCK_BYTES - 1,
            BLOCK_BYTES,
            BLOCK_BYTES + 1,
            3 * BLOCK_BYTES,
        ] {
            let mut bytes = vec![b'x'; len];
            bytes.push(b'\n');
            bytes.extend_from_slice(b"next\n");
            let end = bytes.len();
            let (out, offset) = read_all(&bytes, bounds(end, false));
            assert_eq!((out == bytes, offset), (true, end as u64), "{len}");
        }
    }

    #[test]
    fn of_a_line_over_the_limit_only_the_beginning_is_read() {
        let mut bytes = vec![b'x'; 3 * BLOCK_BYTES];
        bytes.extend_from_slice(b"\nnext\n");
        let limit = Bounds {
            line_bytes_max: BLOCK_BYTES + 5,
            ..bounds(bytes.len(), false)
        };
        let (out, offset) = read_all(&bytes, limit);
        assert_eq!(offset, bytes.len() as u64);
        assert_eq!(out.len(), BLOCK_BYTES + 5 + b"next\n".len());
    }

    #[test]
    fn a_line_that_grows_is_not_read_again_from_its_start() {
        let input = input(b"abcdef\n");
        let (queue, _receivers) = queue(1, 1 << 20);
        let mut cursor = Cursor::at(0);
        assert_eq!(
            next(&input, &mut cursor, bounds(3, false), &queue).unwrap(),
            Cut::Nothing
        );
        assert_eq!((cursor.offset, cursor.scanned, cursor.room), (0, 3, 3));
        match next(&input, &mut cursor, bounds(7, false), &queue).unwrap() {
            Cut::Lines(lines) => assert_eq!(&lines.buffer[..lines.len], b"abcdef\n"),
            other => panic!("{other:?}"),
        }
    }

    /// A writer that makes room first and fills it: nobody must take the NUL bytes
    /// for read, nor read all of them again for every line.
    #[test]
    fn room_that_is_filled_is_read_again_from_its_beginning() {
        const ROOM: u64 = 4 * BLOCK_BYTES as u64;
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(ROOM).unwrap();
        let input = input_of(file.try_clone().unwrap());
        let (queue, _receivers) = queue(1, 1 << 20);
        let mut cursor = Cursor::at(0);
        let scan = |cursor: &mut Cursor| {
            let bounds = bounds(ROOM as usize, false);
            let mut calls = 0;
            loop {
                calls += 1;
                match next(&input, cursor, bounds, &queue).unwrap() {
                    Cut::Partial => {}
                    Cut::Nothing => return (None, calls),
                    Cut::Lines(lines) => {
                        cursor.pass_lines(&lines);
                        return (Some(lines.buffer[..lines.len].to_vec()), calls);
                    }
                }
            }
        };
        assert_eq!(scan(&mut cursor), (None, 4));
        for n in 0..3_u64 {
            assert_eq!((cursor.room, cursor.scanned), (n * 4, ROOM));
            file.write_all(format!("{n:03}\n").as_bytes()).unwrap();
            cursor.enter_room();
            let line = format!("{n:03}\n").into_bytes();
            assert_eq!(scan(&mut cursor), (Some(line), 1));
            assert_eq!(scan(&mut cursor), (None, 1), "the rest is known");
        }
        file.write_all(b"par").unwrap();
        cursor.enter_room();
        assert_eq!(scan(&mut cursor), (None, 1));
        assert_eq!((cursor.offset, cursor.room, cursor.scanned), (12, 15, ROOM));
        cursor.shrink_to(15);
        assert_eq!((cursor.room, cursor.scanned), (15, 15));
    }

    /// A file in the order it was written: some lines, and how much of them has been
    /// written at each look.
    fn any_growth() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
        let near = |len: usize| len - 2..len + 3;
        let len = prop_oneof![
            20 => 0..30_usize,
            1 => near(BLOCK_BYTES),
            1 => near(2 * BLOCK_BYTES),
            1 => 0..3 * BLOCK_BYTES,
        ];
        let lines = proptest::collection::vec((len, any::<u8>()), 1..12);
        let looks = proptest::collection::vec(any::<proptest::sample::Index>(), 0..8);
        (lines, looks, any::<bool>()).prop_map(|(lines, looks, ended)| {
            let mut bytes = Vec::new();
            for (len, byte) in lines {
                // Any byte but the one that ends a line.
                bytes.extend(std::iter::repeat_n(
                    if byte == b'\n' { 0 } else { byte },
                    len,
                ));
                bytes.push(b'\n');
            }
            bytes.truncate(bytes.len() - usize::from(!ended));
            let look = |at: proptest::sample::Index| at.index(bytes.len() + 1);
            let mut looks: Vec<usize> = looks.into_iter().map(look).collect();
            looks.sort_unstable();
            looks.push(bytes.len());
            (bytes, looks)
        })
    }

    /// Where each line ends, the naive way.
    fn line_ends(bytes: &[u8], complete: bool) -> Vec<u64> {
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let mut ends: Vec<u64> = ends.map(|(at, _)| at as u64 + 1).collect();
        if complete && bytes.last().is_some_and(|last| *last != b'\n') {
            ends.push(bytes.len() as u64);
        }
        ends
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is in a file, however it grows, and however short the limit is:
        /// whole lines, each once and in order, byte for byte; of one that is too long
        /// for a block and the limit, its first bytes. Nothing larger is ever held.
        #[test]
        fn lines_come_out_as_a_naive_splitter_has_them(
            (bytes, looks) in any_growth(),
            complete in any::<bool>(),
            beyond in 0..9_usize,
            line_bytes_max in prop_oneof![1..40_usize, 1..4 * BLOCK_BYTES],
        ) {
            let mut file = tempfile::tempfile().unwrap();
            let input = input_of(file.try_clone().unwrap());
            let (queue, _receivers) = queue(1, 1 << 20);
            let (mut cursor, mut written, mut ends) = (Cursor::at(0), 0, Vec::new());
            for (n, &size) in looks.iter().enumerate() {
                file.write_all(&bytes[written..size]).unwrap();
                written = size;
                let last = n + 1 == looks.len();
                let bounds = Bounds {
                    // The size seen may be more than is there by now.
                    end: (size + if last { 0 } else { beyond }) as u64,
                    complete: last && complete,
                    line_bytes_max,
                };
                loop {
                    let lines = match next(&input, &mut cursor, bounds, &queue).unwrap() {
                        Cut::Lines(lines) => lines,
                        Cut::Partial => continue,
                        Cut::Nothing => break,
                    };
                    let (from, to) = (cursor.offset as usize, lines.to as usize);
                    let whole = &bytes[from..to];
                    prop_assert!(lines.len <= BLOCK_BYTES.max(line_bytes_max + 2));
                    prop_assert_eq!(&lines.buffer[..lines.len], &whole[..lines.len]);
                    if lines.cut {
                        prop_assert_eq!(lines.len, line_bytes_max);
                        prop_assert!(whole.len() > line_bytes_max + 2);
                        prop_assert_eq!(lines.lines, 1);
                    } else {
                        prop_assert_eq!(lines.len, whole.len());
                    }
                    let inside = line_ends(whole, true).into_iter().map(|end| end + from as u64);
                    let before = ends.len();
                    ends.extend(inside);
                    prop_assert_eq!(lines.lines as usize, ends.len() - before);
                    cursor.pass_lines(&lines);
                }
            }
            prop_assert_eq!(ends, line_ends(&bytes, complete));
        }
    }

    #[test]
    fn the_end_of_a_file_is_the_start_of_its_unfinished_line() {
        for (bytes, start) in [(&b""[..], 0), (b"a\n", 2), (b"a\nbc", 2), (b"abc", 0)] {
            let size = bytes.len() as u64;
            assert_eq!(last_line_start(&input(bytes), size).unwrap(), start);
        }
    }
}
