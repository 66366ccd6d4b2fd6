//! The line with the figures: every ten seconds, and at the end.

use std::fmt;
use std::time::Duration;

use crate::ledger::Figures;

/// What was read, acknowledged, dropped and lost, in one line.
#[derive(Debug)]
pub struct Summary {
    what: &'static str,
    figures: Figures,
    elapsed: Duration,
}

impl Summary {
    /// A summary that begins with `what`.
    pub fn new(what: &'static str, figures: Figures, elapsed: Duration) -> Summary {
        Summary {
            what,
            figures,
            elapsed,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        write!(
            f,
            "{} read={} acked={} dropped={} lag={} known_bytes={} read_bytes={} acked_bytes={}",
            self.what,
            figures.read_lines,
            figures.acked_lines,
            figures.dropped_lines.iter().sum::<u64>(),
            figures.waiting_bytes,
            figures.known_bytes,
            figures.read_bytes,
            figures.acked_bytes,
        )?;
        // What should not happen is told only when it did.
        for (name, figure) in [
            ("dropped_bytes", figures.dropped_bytes.iter().sum()),
            ("dead_letter_bytes", figures.dead_bytes),
            ("lost_bytes", figures.lost_bytes.iter().sum()),
            ("dead_letters", figures.dead_lines),
            ("cut", figures.cut_lines),
        ] {
            if figure > 0 {
                write!(f, " {name}={figure}")?;
            }
        }
        write!(f, " seconds={:.1}", self.elapsed.as_secs_f64())
    }
}
