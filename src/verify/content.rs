//! Finds lines by what they hold, for records that do not say where they are from.
//!
//! Costs 20 bytes of memory a line, and up to twice that while it is made. What is
//! found by its hash is compared with the file, so that no line passes for another.

use twox_hash::XxHash3_64;

use super::Error;
use super::files::Files;

/// All lines of all files.
#[derive(Debug)]
pub struct Content {
    /// By hash, then by place.
    lines: Vec<Entry>,
    /// For each line the next one that has not arrived, or a shortcut there: a
    /// line that has not points at itself.
    free: Vec<u32>,
    /// Where each file begins among all places.
    starts: Vec<u64>,
    /// The place of the last line that there is only once.
    here: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// XXH3, 64 bits, of the value.
    hash: u64,
    /// The byte where the line begins, as if the files stood one after the other.
    place: u64,
}

/// Which line a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub file: usize,
    /// Where the line begins.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// There is no other like it, so that it tells the order.
    pub only: bool,
}

impl Content {
    /// Reads all files; `read` is told of every line's bytes.
    ///
    /// # Errors
    /// If a file cannot be read, or there are more than 4,294,967,295 lines.
    pub fn new(files: &mut Files, mut read: impl FnMut(u64)) -> Result<Content, Error> {
        let mut lines = Vec::new();
        let mut starts = Vec::new();
        let mut start = 0;
        for file in 0..files.all().len() {
            let (size, hole) = (files.all()[file].size, files.all()[file].hole);
            starts.push(start);
            // The first line may have been shipped with its hole or without.
            for stretch in [(0, hole), (hole, size)] {
                files.lines(file, stretch, |at, line, rules| {
                    read(line.bytes());
                    lines.extend(rules.values(line).map(|value| Entry {
                        hash: XxHash3_64::oneshot(value),
                        place: start + at,
                    }));
                    Ok(())
                })?;
            }
            start += size;
        }
        lines.sort_unstable();
        let count = u32::try_from(lines.len()).map_err(|_| Error::TooManyLines)?;
        Ok(Content {
            lines,
            free: (0..=count).collect(),
            starts,
            here: 0,
        })
    }

    /// The line that a value is. Of equal ones it is the next that has not arrived
    /// after the last place that is certain, else the first; or when all have
    /// arrived, the last one once more.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn find(&mut self, files: &mut Files, value: &[u8]) -> Result<Option<Found>, Error> {
        let hash = XxHash3_64::oneshot(value);
        let first = self.lines.partition_point(|line| line.hash < hash);
        let behind = first + self.lines[first..].partition_point(|line| line.hash == hash);
        if first == behind {
            return Ok(None);
        }
        let here = self.here;
        let next = first + self.lines[first..behind].partition_point(|line| line.place < here);
        let free = Some(self.free_from(next))
            .filter(|&at| at < behind)
            .unwrap_or_else(|| self.free_from(first));
        let at = free.min(behind - 1);
        let place = self.lines[at].place;
        let file = self.starts.partition_point(|&start| start <= place) - 1;
        let from = place - self.starts[file];
        let Some((rules, line)) = files.line_at(file, from)? else {
            return Ok(None);
        };
        if !rules.values(line).any(|one| one == value) {
            return Ok(None);
        }
        self.free[at] = at as u32 + 1;
        let only = behind - first == 1;
        if only {
            self.here = place;
        }
        Ok(Some(Found {
            file,
            from,
            to: from + line.bytes(),
            only,
        }))
    }

    /// The first line from `at` on that has not arrived. Shortens the way there.
    fn free_from(&mut self, mut at: usize) -> usize {
        while self.free[at] as usize != at {
            let next = self.free[at] as usize;
            self.free[at] = self.free[next];
            at = next;
        }
        at
    }
}
