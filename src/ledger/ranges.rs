//! A set of byte ranges that never overlap.
//!
//! Neighbours are one range: what is settled after a gap stays one range, however
//! long the gap is waited for.

use std::collections::BTreeMap;

/// Non-empty ranges with gaps between them, by their first byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range that overlaps none in the set.
    pub fn insert(&mut self, from: u64, to: u64) {
        debug_assert!(from < to, "an empty range {from}..{to}");
        debug_assert!(
            self.first_overlap(from, to).is_none(),
            "{from}..{to} overlaps"
        );
        let to = self.0.remove(&to).unwrap_or(to);
        match self.0.range_mut(..from).next_back() {
            Some((_, end)) if *end == from => *end = to,
            _ => {
                self.0.insert(from, to);
            }
        }
    }

    /// Takes a range out that lies within one of the set. False if none holds it.
    pub fn carve(&mut self, from: u64, to: u64) -> bool {
        let Some((&start, &end)) = self.0.range(..=from).next_back() else {
            return false;
        };
        if end < to {
            return false;
        }
        self.0.remove(&start);
        if start < from {
            self.0.insert(start, from);
        }
        if to < end {
            self.0.insert(to, end);
        }
        true
    }

    /// The range that holds the byte at `at`.
    pub fn holding(&self, at: u64) -> Option<(u64, u64)> {
        let (&from, &to) = self.0.range(..=at).next_back()?;
        (at < to).then_some((from, to))
    }

    /// The first byte at or after `at` where a range begins.
    pub fn next_start(&self, at: u64) -> Option<u64> {
        self.0.range(at..).next().map(|(&from, _)| from)
    }

    /// Takes the range that begins at `at`; its end.
    pub fn take_at(&mut self, at: u64) -> Option<u64> {
        self.0.remove(&at)
    }

    /// True if there is no range.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(&from, &to)| (from, to))
    }

    /// Bytes in all ranges.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|(from, to)| to - from).sum()
    }

    fn first_overlap(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        self.holding(from).or_else(|| {
            let start = self.next_start(from).filter(|&start| start < to)?;
            self.holding(start)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_piece_taken_from_the_middle_leaves_both_ends() {
        let mut ranges = Ranges::default();
        ranges.insert(10, 30);
        assert!(ranges.carve(15, 20));
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(10, 15), (20, 30)]);
        assert_eq!(ranges.holding(14), Some((10, 15)));
        assert_eq!(ranges.holding(15), None);
        assert_eq!(ranges.next_start(15), Some(20));
        assert_eq!(ranges.bytes(), 15);
    }

    /// The runs of neighbouring bytes in a set.
    fn runs(bytes: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &at in bytes {
            match runs.last_mut() {
                Some((_, end)) if *end == at => *end += 1,
                _ => runs.push((at, at + 1)),
            }
        }
        runs
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn ranges_are_the_runs_of_a_set_of_bytes(
            steps in proptest::collection::vec((0..3, 0..40_u64, 1..12_u64), 1..60)
        ) {
            let (mut ranges, mut bytes) = (Ranges::default(), BTreeSet::new());
            for (what, from, len) in steps {
                let to = from + len;
                let present = (from..to).filter(|at| bytes.contains(at)).count() as u64;
                match what {
                    0 if present == 0 => {
                        ranges.insert(from, to);
                        bytes.extend(from..to);
                    }
                    1 => {
                        prop_assert_eq!(ranges.carve(from, to), present == len);
                        if present == len {
                            bytes.retain(|at| !(from..to).contains(at));
                        }
                    }
                    2 => {
                        let run = runs(&bytes).into_iter().find(|run| run.0 == from);
                        prop_assert_eq!(ranges.take_at(from), run.map(|run| run.1));
                        bytes.retain(|at| !run.is_some_and(|run| (run.0..run.1).contains(at)));
                    }
                    _ => {}
                }
                let runs = runs(&bytes);
                prop_assert_eq!(ranges.iter().collect::<Vec<_>>(), &runs[..]);
                prop_assert_eq!(ranges.bytes(), bytes.len() as u64);
                prop_assert_eq!(ranges.is_empty(), bytes.is_empty());
                for at in 0..55 {
                    let holding = runs.iter().find(|run| (run.0..run.1).contains(&at));
                    prop_assert_eq!(ranges.holding(at), holding.copied());
                    let next = runs.iter().map(|run| run.0).find(|from| *from >= at);
                    prop_assert_eq!(ranges.next_start(at), next);
                }
            }
        }
    }

    #[test]
    fn what_is_not_wholly_inside_is_left_alone() {
        let mut ranges = Ranges::default();
        ranges.insert(10, 20);
        assert!(!ranges.carve(5, 15));
        assert!(!ranges.carve(15, 25));
        assert!(!ranges.carve(20, 21));
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(10, 20)]);
    }
}
