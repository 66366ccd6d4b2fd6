//! Which lines of a file arrived, which did so twice, and which too late.
//!
//! It knows byte ranges only.

use std::collections::BTreeMap;

/// Byte ranges that arrived; neighbours are one.
#[derive(Debug, Default)]
pub struct Coverage(BTreeMap<u64, u64>);

/// Ranges in the order in which they were found; ones that follow each other
/// are one.
#[derive(Debug, Clone)]
pub struct Runs {
    /// The first of them, as many as are to be shown.
    pub shown: Vec<Run>,
    shown_max: usize,
    last_to: u64,
    /// How many there are.
    pub tally: Tally,
}

/// Lines that stand one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Its first byte.
    pub from: u64,
    /// The byte after it; line ends included.
    pub to: u64,
    /// Lines in it.
    pub lines: u64,
}

/// How much was found of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ranges.
    pub ranges: u64,
    /// Lines in them.
    pub lines: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// What arrived of a file.
#[derive(Debug)]
pub struct Arrivals {
    /// What did.
    pub coverage: Coverage,
    /// Lines in it.
    pub lines: u64,
    /// What did once more.
    pub repeated: Runs,
    /// What came after a line that stands behind it.
    pub misordered: Runs,
    /// The line that stands furthest back, by partition.
    furthest: BTreeMap<i32, u64>,
}

impl Coverage {
    /// True if some of these bytes are in it.
    pub fn touches(&self, from: u64, to: u64) -> bool {
        let before = self.0.range(..to).next_back();
        before.is_some_and(|(_, &end)| end > from)
    }

    /// Adds a range that touches none.
    fn add(&mut self, mut from: u64, mut to: u64) {
        if let Some((&start, &end)) = self.0.range(..from).next_back()
            && end == from
        {
            self.0.remove(&start);
            from = start;
        }
        if let Some(end) = self.0.remove(&to) {
            to = end;
        }
        self.0.insert(from, to);
    }

    /// What is in it, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(&from, &to)| (from, to))
    }

    /// What is not in it of these bytes, in order.
    pub fn gaps(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = from;
        for (start, end) in self.ranges().take_while(|&(start, _)| start < to) {
            if start > at {
                gaps.push((at, start));
            }
            at = at.max(end);
        }
        if at < to {
            gaps.push((at, to));
        }
        gaps
    }
}

impl Runs {
    /// None yet; it remembers `shown_max`, and counts the others.
    pub fn new(shown_max: usize) -> Runs {
        Runs {
            shown: Vec::new(),
            shown_max,
            last_to: 0,
            tally: Tally::default(),
        }
    }

    /// Adds a line.
    pub fn push(&mut self, from: u64, to: u64) {
        let goes_on = self.tally.ranges > 0 && self.last_to == from;
        self.last_to = to;
        self.tally.lines += 1;
        self.tally.bytes += to - from;
        if !goes_on {
            self.tally.ranges += 1;
            if self.shown.len() < self.shown_max {
                self.shown.push(Run { from, to, lines: 1 });
            }
        } else if self.shown.len() as u64 == self.tally.ranges
            && let Some(last) = self.shown.last_mut()
        {
            last.to = to;
            last.lines += 1;
        }
    }
}

impl Runs {
    /// Adds what was found in another way.
    pub fn append(&mut self, other: &Runs) {
        let room = self.shown_max - self.shown.len();
        self.shown.extend(other.shown.iter().take(room));
        self.tally.add(other.tally);
        self.last_to = other.last_to;
    }
}

impl Tally {
    /// Adds what was found elsewhere.
    pub fn add(&mut self, other: Tally) {
        self.ranges += other.ranges;
        self.lines += other.lines;
        self.bytes += other.bytes;
    }
}

impl Arrivals {
    /// Nothing yet; of each kind of finding `shown_max` ranges are remembered.
    pub fn new(shown_max: usize) -> Arrivals {
        Arrivals {
            coverage: Coverage::default(),
            lines: 0,
            repeated: Runs::new(shown_max),
            misordered: Runs::new(shown_max),
            furthest: BTreeMap::new(),
        }
    }

    /// A line arrived, in this partition; `None` if nothing can be said of its
    /// order.
    pub fn arrive(&mut self, from: u64, to: u64, partition: Option<i32>) {
        if self.coverage.touches(from, to) {
            self.repeated.push(from, to);
            return;
        }
        self.coverage.add(from, to);
        self.lines += 1;
        let Some(partition) = partition else { return };
        let furthest = self.furthest.entry(partition).or_insert(from);
        if from < *furthest {
            self.misordered.push(from, to);
        }
        *furthest = from.max(*furthest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(runs: &Runs) -> Vec<(u64, u64, u64)> {
        let shown = runs.shown.iter();
        shown.map(|run| (run.from, run.to, run.lines)).collect()
    }

    #[test]
    fn neighbours_become_one_whatever_order_they_come_in() {
        let mut coverage = Coverage::default();
        for (from, to) in [(10, 20), (30, 40), (20, 30), (0, 5), (5, 10), (50, 60)] {
            assert!(!coverage.touches(from, to));
            coverage.add(from, to);
            assert!(coverage.touches(from, to));
        }
        assert_eq!(coverage.ranges().collect::<Vec<_>>(), [(0, 40), (50, 60)]);
        assert_eq!(coverage.gaps(0, 60), [(40, 50)]);
        assert_eq!(coverage.gaps(45, 70), [(45, 50), (60, 70)]);
        assert_eq!(coverage.gaps(10, 40), []);
    }

    #[test]
    fn what_came_late_is_misordered_and_what_came_again_is_repeated() {
        let mut arrivals = Arrivals::new(10);
        for at in [0, 1, 4, 2, 3, 5, 2, 3, 0] {
            arrivals.arrive(at * 10, at * 10 + 10, Some(0));
        }
        assert_eq!(runs(&arrivals.misordered), [(20, 40, 2)]);
        assert_eq!(runs(&arrivals.repeated), [(20, 40, 2), (0, 10, 1)]);
        assert_eq!(arrivals.lines, 6);
    }

    #[test]
    fn order_is_that_of_a_partition_and_of_lines_that_tell_it() {
        let mut arrivals = Arrivals::new(10);
        arrivals.arrive(50, 60, Some(1));
        arrivals.arrive(10, 20, Some(2));
        arrivals.arrive(0, 10, None);
        assert_eq!(arrivals.misordered.tally, Tally::default());
        arrivals.arrive(20, 30, Some(1));
        assert_eq!(runs(&arrivals.misordered), [(20, 30, 1)]);
    }

    #[test]
    fn runs_beyond_what_is_shown_are_counted() {
        let mut found = Runs::new(1);
        for (from, to) in [(0, 1), (1, 2), (10, 11), (11, 13), (20, 21)] {
            found.push(from, to);
        }
        assert_eq!(runs(&found), [(0, 2, 2)]);
        let tally = Tally {
            ranges: 3,
            lines: 5,
            bytes: 6,
        };
        assert_eq!(found.tally, tally);
    }
}
