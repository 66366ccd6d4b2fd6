//! The progress bar of `--once` and of `verify`, on a terminal only.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::ledger::Figures;

/// A progress bar on standard error, or nothing.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    /// A bar if it is wanted and standard error is a terminal.
    pub fn new(wanted: bool) -> Progress {
        let bar = (wanted && io::stderr().is_terminal()).then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(
                ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg}")
                    .expect("the template is right"),
            );
            bar
        });
        Progress {
            bar,
            started: Instant::now(),
        }
    }

    /// True when there is a bar.
    pub fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Shows how far it is.
    pub fn show(&self, figures: &Figures) {
        let Some(bar) = &self.bar else { return };
        let done = figures.known_bytes - figures.waiting_bytes;
        let elapsed = self.started.elapsed();
        let seconds = elapsed.as_secs_f64().max(0.001);
        let rate = figures.acked_lines as f64 / seconds;
        let left = (done > 0).then(|| {
            let whole = seconds * figures.known_bytes as f64 / done as f64;
            Duration::from_secs_f64((whole - seconds).max(0.0))
        });
        let left = left.map_or_else(
            || "waiting for Kafka".to_owned(),
            |left| format!("{} left", HumanDuration(left)),
        );
        bar.set_length(figures.known_bytes);
        bar.set_position(done);
        bar.set_message(format!("{rate:.0} lines/s {left}"));
    }

    /// Shows how many bytes are read; nothing where nobody knows of how many.
    pub fn show_read(&self, bytes: u64, of: u64) {
        let Some(bar) = self.bar.as_ref().filter(|_| of > 0) else {
            return;
        };
        bar.set_length(of.max(bytes));
        bar.set_position(bytes);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Does something to the terminal while the bar is away.
    pub fn aside<T>(&self, body: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(body),
            None => body(),
        }
    }
}
