//! Lines of any length in bounded memory, and what of a line is shipped.
//!
//! The rules are those of the tailer; here they are told once more, in the
//! plainest way, so that a mistake there is not made here too.

use std::io::{self, BufRead};

use memchr::memchr;

/// How lines become records.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Where a longer line may have been cut, in bytes, the largest first; at
    /// least one.
    pub line_bytes_max: Vec<usize>,
    /// Empty lines need not arrive.
    pub skip_empty: bool,
    /// The last line counts also without a line end.
    pub once: bool,
}

/// One line; its buffer is used again for the next.
#[derive(Debug, Default)]
pub struct Line {
    /// Its first bytes, without its end.
    kept: Vec<u8>,
    len: u64,
    ended: bool,
}

impl Line {
    /// Reads the next line, and keeps its first `kept_max` bytes. False at the
    /// end of the input.
    ///
    /// # Errors
    /// Those of the input.
    pub fn read(&mut self, input: &mut impl BufRead, kept_max: usize) -> io::Result<bool> {
        self.kept.clear();
        (self.len, self.ended) = (0, false);
        loop {
            let block = match input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                block => block?,
            };
            if block.is_empty() {
                return Ok(self.len > 0);
            }
            let end = memchr(b'\n', block);
            let piece = &block[..end.unwrap_or(block.len())];
            let room = kept_max - self.kept.len();
            self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
            self.len += piece.len() as u64;
            self.ended = end.is_some();
            let taken = piece.len() + usize::from(self.ended);
            input.consume(taken);
            if self.ended {
                return Ok(true);
            }
        }
    }

    /// Its bytes without its end, if all of them were kept.
    pub fn whole(&self) -> Option<&[u8]> {
        (self.kept.len() as u64 == self.len).then_some(&self.kept)
    }

    /// Its bytes with its end.
    pub fn bytes(&self) -> u64 {
        self.len + u64::from(self.ended)
    }

    /// It has a line end.
    pub fn is_ended(&self) -> bool {
        self.ended
    }
}

impl Rules {
    /// How much of a line must be kept: one byte more, for a `\r` that is no part
    /// of it.
    pub fn kept_max(&self) -> usize {
        self.line_bytes_max[0] + 1
    }

    /// What may have been shipped of a line: one value, or where it was to be cut
    /// one for each place.
    pub fn values<'a>(&'a self, line: &'a Line) -> impl Iterator<Item = &'a [u8]> {
        let all = line.whole().filter(|_| line.ended);
        let text = all
            .and_then(|all| all.strip_suffix(b"\r"))
            .unwrap_or(&line.kept);
        let longest = self.line_bytes_max[0];
        let first = &text[..text.len().min(longest)];
        let shorter = self.line_bytes_max[1..].iter();
        let cut = shorter.filter_map(move |&bytes| text.get(..bytes).filter(|cut| *cut != text));
        std::iter::once(first).chain(cut)
    }

    /// It need not arrive.
    pub fn skips(&self, line: &Line) -> bool {
        self.skip_empty && self.values(line).all(<[u8]>::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(line_bytes_max: &[usize]) -> Rules {
        Rules {
            line_bytes_max: line_bytes_max.to_vec(),
            skip_empty: false,
            once: false,
        }
    }

    /// All values of all lines, read through a buffer that splits them anywhere.
    fn values(bytes: &[u8], line_bytes_max: &[usize]) -> Vec<Vec<Vec<u8>>> {
        let rules = rules(line_bytes_max);
        let mut line = Line::default();
        let mut all = Vec::new();
        let mut input = io::BufReader::with_capacity(3, bytes);
        while line.read(&mut input, rules.kept_max()).unwrap() {
            all.push(rules.values(&line).map(<[u8]>::to_vec).collect());
        }
        all
    }

    #[test]
    fn a_line_loses_its_end_and_one_carriage_return() {
        let found = values(b"a\n\r\n\r\r\n\nb\rc\nlast\r", &[10]);
        let expected: [&[u8]; 6] = [b"a", b"", b"\r", b"", b"b\rc", b"last\r"];
        assert_eq!(found, expected.map(|value| vec![value.to_vec()]));
    }

    #[test]
    fn a_long_line_is_cut_wherever_it_may_have_been() {
        let found = values(b"123456\n12345\r\n123\n1234\n123\r\n", &[5, 3]);
        let texts: [&[&str]; 5] = [
            &["12345", "123"],
            &["12345", "123"],
            &["123"],
            &["1234", "123"],
            &["123"],
        ];
        let expected = texts.map(|texts| {
            let bytes = texts.iter().map(|text| text.as_bytes().to_vec());
            bytes.collect::<Vec<_>>()
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn of_an_endless_line_only_the_beginning_is_kept() {
        let mut line = Line::default();
        let mut input = io::BufReader::new(io::Read::take(io::repeat(b'x'), 1 << 20));
        assert!(line.read(&mut input, 100).unwrap());
        assert_eq!((line.bytes(), line.kept.capacity() < 300), (1 << 20, true));
        assert_eq!(line.whole(), None);
        assert!(!line.read(&mut input, 100).unwrap());
    }
}
