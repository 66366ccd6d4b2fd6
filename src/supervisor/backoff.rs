//! When something that failed is started again.

use std::time::{Duration, Instant};

/// First and longest pause before a new start.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What ran for so long before it failed begins with the first pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// Failures in a row that are no accident any more.
const FAILING_FROM: u32 = 3;

/// The failures in a row of one task.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    started: Instant,
    due: Option<Instant>,
}

impl Backoff {
    /// Of a task that is just being started.
    pub fn new() -> Backoff {
        Backoff {
            failures: 0,
            started: Instant::now(),
            due: None,
        }
    }

    /// It failed. Returns the pause before the next start: 1 s doubling to 60 s.
    pub fn failed(&mut self) -> Duration {
        if self.due.is_none() && self.started.elapsed() >= HEALTHY_AFTER {
            self.failures = 0;
        }
        self.failures += 1;
        let doubled = PAUSE.0 * 2_u32.pow(self.failures.saturating_sub(1).min(16));
        let pause = doubled.min(PAUSE.1);
        self.due = Some(Instant::now() + pause);
        pause
    }

    /// True once when the time for the next start has come.
    pub fn take_due(&mut self) -> bool {
        let due = self.due.is_some_and(|due| due <= Instant::now());
        if due {
            self.due = None;
            self.started = Instant::now();
        }
        due
    }

    /// True while it waits for its next start.
    pub fn is_waiting(&self) -> bool {
        self.due.is_some()
    }

    /// True when it keeps failing, and has not been running well since.
    pub fn is_failing(&self) -> bool {
        let well = self.due.is_none() && self.started.elapsed() >= HEALTHY_AFTER;
        self.failures >= FAILING_FROM && !well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u64> = (0..8).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(backoff.is_failing());
        assert!(!backoff.take_due());
    }
}
