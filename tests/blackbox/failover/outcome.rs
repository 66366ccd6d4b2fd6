//! What came of the lines, and the table of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::fault::Fault;
use super::scene::{FILES, parse};
use crate::kafka::Topic;

/// What came of a scene.
#[derive(Default)]
pub struct Outcome {
    /// Lines that were written.
    pub lines: usize,
    /// Neither there nor deleted with their topic.
    pub missing: usize,
    /// There more than once.
    pub repeated: usize,
    /// After a later line of the same file in the same partition.
    pub misordered: usize,
    /// Acknowledged, and deleted with their topic.
    pub deleted: usize,
    /// In which no line of one of the files was acknowledged.
    pub longest_stall: Duration,
    /// From the end of the fault.
    pub recovery: Duration,
    /// Warnings and errors.
    pub messages: Vec<String>,
}

impl Outcome {
    /// Compares what kcat reads with what was written: so many lines of each file,
    /// the first of which may have been deleted.
    pub fn of(topic: &Topic, written: &[usize], deleted: &[usize]) -> Outcome {
        let partitions = topic.partitions().into_values();
        let lines = |values: Vec<Vec<u8>>| values.iter().map(|value| parse(value)).collect();
        Outcome::of_lines(partitions.map(lines), written, deleted)
    }

    /// Files and numbers of the lines in each partition.
    fn of_lines(
        partitions: impl Iterator<Item = Vec<(usize, usize)>>,
        written: &[usize],
        deleted: &[usize],
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut seen = vec![BTreeSet::new(); FILES];
        for lines in partitions {
            let mut last = [None; FILES];
            for (file, number) in lines {
                if !seen[file].insert(number) {
                    outcome.repeated += 1;
                } else if last[file] > Some(number) {
                    outcome.misordered += 1;
                }
                last[file] = last[file].max(Some(number));
            }
        }
        for file in 0..FILES {
            outcome.lines += written[file];
            for absent in (0..written[file]).filter(|number| !seen[file].contains(number)) {
                match absent < deleted[file] {
                    true => outcome.deleted += 1,
                    false => outcome.missing += 1,
                }
            }
        }
        outcome
    }

    /// Takes names and ports out of the messages, so that those of different rounds can
    /// be counted together.
    pub fn mask(&mut self, addresses: &str, topic: &str) {
        for message in &mut self.messages {
            *message = message.replace(topic, "TOPIC");
            for address in addresses.split(',') {
                *message = message.replace(address, "HOST:PORT");
            }
        }
    }

    fn is_clean(&self) -> bool {
        (self.missing, self.repeated, self.misordered) == (0, 0, 0)
    }
}

/// Prints a line for each scene as it ends, the sums of each fault, and what was said.
pub struct Table {
    rows: BTreeMap<Fault, Vec<Outcome>>,
}

impl Table {
    /// Prints its head.
    pub fn begin() -> Table {
        println!(
            "{:<20} {:>5} {:>8} {:>7} {:>8} {:>10} {:>8} {:>7} {:>10} {:>8}",
            "fault",
            "round",
            "lines",
            "missing",
            "repeated",
            "misordered",
            "deleted",
            "stall_s",
            "recovery_s",
            "messages"
        );
        Table {
            rows: BTreeMap::new(),
        }
    }

    /// Prints what came of a scene.
    pub fn add(&mut self, fault: Fault, round: usize, outcome: Outcome) {
        print_row(fault, &round.to_string(), &outcome);
        self.rows.entry(fault).or_default().push(outcome);
    }

    /// Prints sums, with the longest times, and fails if any line was not there once
    /// and in order.
    #[track_caller]
    pub fn end(self) {
        println!();
        for (&fault, outcomes) in &self.rows {
            print_row(fault, "all", &sum(outcomes));
        }
        for (fault, outcomes) in &self.rows {
            print_messages(*fault, outcomes);
        }
        let mut all = self.rows.values().flatten();
        assert!(all.all(Outcome::is_clean), "see the table");
    }
}

fn print_row(fault: Fault, round: &str, outcome: &Outcome) {
    println!(
        "{fault:<20} {round:>5} {:>8} {:>7} {:>8} {:>10} {:>8} {:>7.2} {:>10.2} {:>8}",
        outcome.lines,
        outcome.missing,
        outcome.repeated,
        outcome.misordered,
        outcome.deleted,
        outcome.longest_stall.as_secs_f64(),
        outcome.recovery.as_secs_f64(),
        outcome.messages.len(),
    );
}

fn sum(outcomes: &[Outcome]) -> Outcome {
    let mut sum = Outcome::default();
    for outcome in outcomes {
        sum.lines += outcome.lines;
        sum.missing += outcome.missing;
        sum.repeated += outcome.repeated;
        sum.misordered += outcome.misordered;
        sum.deleted += outcome.deleted;
        sum.longest_stall = sum.longest_stall.max(outcome.longest_stall);
        sum.recovery = sum.recovery.max(outcome.recovery);
        sum.messages.extend(outcome.messages.iter().cloned());
    }
    sum
}

/// Each message with how often it was said.
fn print_messages(fault: Fault, outcomes: &[Outcome]) {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for message in outcomes.iter().flat_map(|outcome| &outcome.messages) {
        *counts.entry(message).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort();
    println!("\n{fault}, in {} rounds:", outcomes.len());
    for (message, count) in counts {
        println!("{count:>5}x {message}");
    }
}

#[test]
fn a_line_is_counted_as_missing_repeated_misordered_or_deleted() {
    let file = |file: usize, numbers: &[usize]| -> Vec<(usize, usize)> {
        numbers.iter().map(|&number| (file, number)).collect()
    };
    let partitions = [
        file(0, &[2, 3, 3, 5, 4, 7]),
        // Of two files in one partition, and of one file in two.
        [file(1, &[0, 1]), file(0, &[6]), file(1, &[2])].concat(),
    ];
    let written = [8, 4, 0, 0];
    let outcome = Outcome::of_lines(partitions.into_iter(), &written, &[1, 0, 0, 0]);
    assert_eq!((outcome.lines, outcome.deleted), (12, 1));
    assert_eq!(outcome.missing, 2, "1 of the first file, 3 of the second");
    assert_eq!((outcome.repeated, outcome.misordered), (1, 1));
}
