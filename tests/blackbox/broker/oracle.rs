//! Was every line delivered exactly once and in order?

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;

use super::Record;

/// Offenders shown per kind; the rest are only counted.
const SHOWN_MAX: usize = 5;

/// What is wrong between the lines that were written and the records that came.
///
/// Every offender is a text that quotes the line and says where it is.
#[derive(Debug, Default)]
pub struct Report {
    /// Lines that did not come.
    pub missing: Vec<String>,
    /// Arrivals of a line beyond how often it was written.
    pub repeated: Vec<String>,
    /// First arrivals that came after a later line of the same partition.
    pub misordered: Vec<String>,
    /// Records that are no line at all.
    pub unexpected: Vec<String>,
    lines: usize,
    per_partition: BTreeMap<i32, usize>,
}

/// Compares what was written, in order, with what came, in order of offsets.
///
/// Order is judged within a partition. Lines should differ: of equal ones the
/// first to come is taken for the first that was written.
pub fn check_sequence<L: AsRef<[u8]>>(
    lines_expected: impl IntoIterator<Item = L>,
    records: &[Record],
) -> Report {
    let lines: Vec<L> = lines_expected.into_iter().collect();
    let mut report = Report {
        lines: lines.len(),
        ..Report::default()
    };
    let mut waiting: HashMap<&[u8], VecDeque<usize>> = HashMap::new();
    for (at, line) in lines.iter().enumerate() {
        waiting.entry(line.as_ref()).or_default().push_back(at);
    }
    let mut latest: HashMap<i32, usize> = HashMap::new();
    for record in records {
        *report.per_partition.entry(record.partition).or_default() += 1;
        let place = format!("at {}:{}", record.partition, record.offset);
        let Some(places) = waiting.get_mut(&record.value[..]) else {
            report.unexpected.push(quote(&record.value, &place));
            continue;
        };
        let Some(at) = places.pop_front() else {
            report.repeated.push(quote(&record.value, &place));
            continue;
        };
        let latest = latest.entry(record.partition).or_insert(at);
        if at < *latest {
            let place = format!("line {at} {place} after line {latest}");
            report.misordered.push(quote(&record.value, &place));
        }
        *latest = at.max(*latest);
    }
    let mut missing: Vec<usize> = waiting.into_values().flatten().collect();
    missing.sort_unstable();
    let missing = missing.into_iter();
    report.missing = missing
        .map(|at| quote(lines[at].as_ref(), &format!("line {at}")))
        .collect();
    report
}

impl Report {
    /// Every line once and in order, and nothing else.
    pub fn is_exact(&self) -> bool {
        self.is_lossless() && self.repeated.is_empty()
    }

    /// Every line, first arrivals in order; repetitions are forgiven.
    pub fn is_lossless(&self) -> bool {
        self.missing.is_empty() && self.misordered.is_empty() && self.unexpected.is_empty()
    }

    #[track_caller]
    pub fn assert_exact(&self) {
        assert!(
            self.is_exact(),
            "not every line exactly once and in order:\n{self}"
        );
    }

    #[track_caller]
    pub fn assert_lossless(&self) {
        assert!(
            self.is_lossless(),
            "not every line at least once and in order:\n{self}"
        );
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records: usize = self.per_partition.values().sum();
        let Report {
            lines,
            per_partition,
            ..
        } = self;
        writeln!(
            f,
            "  {lines} lines, {records} records, by partition {per_partition:?}"
        )?;
        for (kind, offenders) in [
            ("missing", &self.missing),
            ("repeated", &self.repeated),
            ("misordered", &self.misordered),
            ("unexpected", &self.unexpected),
        ] {
            writeln!(f, "  {kind}: {}", offenders.len())?;
            offenders
                .iter()
                .take(SHOWN_MAX)
                .try_for_each(|one| writeln!(f, "    {one}"))?;
        }
        Ok(())
    }
}

fn quote(line: &[u8], place: &str) -> String {
    const BYTES_MAX: usize = 80;
    let shown = line[..line.len().min(BYTES_MAX)].escape_ascii();
    let more = if line.len() > BYTES_MAX { "..." } else { "" };
    format!("\"{shown}{more}\" {place}")
}
