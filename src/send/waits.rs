//! Since when nothing of a topic was acknowledged although something of it is to be sent.
//!
//! It only keeps the time; who is told of it, and after how long, is decided elsewhere.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::kafka::{Stats, TopicId};

/// Pause between two times that it is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(250);
/// How long lines that came back may take to be read again. What is not there by then is
/// no more to be sent, or by another producer.
const READ_AGAIN_WITHIN: Duration = Duration::from_secs(10);

/// What one producer waits for.
#[derive(Debug)]
pub struct Waits {
    stats: Arc<Stats>,
    topics: HashMap<TopicId, Wait>,
    shown: Option<Instant>,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    /// That have no outcome yet.
    batches: usize,
    /// When some came back last, if none was acknowledged since: they are being read again.
    returned: Option<Instant>,
}

impl Waits {
    /// Nothing yet; shown in these figures.
    pub fn new(stats: Arc<Stats>) -> Waits {
        Waits {
            stats,
            topics: HashMap::new(),
            shown: None,
        }
    }

    fn of(&mut self, topic: TopicId, now: Instant) -> &mut Wait {
        self.topics.entry(topic).or_insert(Wait {
            since: now,
            batches: 0,
            returned: None,
        })
    }

    /// A batch is on its way.
    pub fn submitted(&mut self, topic: TopicId, now: Instant) {
        self.of(topic, now).batches += 1;
    }

    /// A batch was acknowledged, or a record is in the dead letters: something moves.
    pub fn settled(&mut self, topic: TopicId, now: Instant) {
        let wait = self.of(topic, now);
        wait.batches = wait.batches.saturating_sub(1);
        wait.since = now;
        wait.returned = None;
    }

    /// Batches came back.
    pub fn returned(&mut self, topic: TopicId, batches: usize, now: Instant) {
        let wait = self.of(topic, now);
        wait.batches = wait.batches.saturating_sub(batches);
        wait.returned = Some(now);
    }

    /// Shows now and then what waits: that, and the topics of which lines are queued.
    pub fn show<'a>(
        &mut self,
        queued: impl Iterator<Item = TopicId>,
        name_of: impl Fn(TopicId) -> &'a str,
        now: Instant,
    ) {
        if self.shown.is_some_and(|at| now < at + SHOWN_EVERY) {
            return;
        }
        self.shown = Some(now);
        let queued: Vec<TopicId> = queued.collect();
        for &topic in &queued {
            self.of(topic, now);
        }
        let is_read_again = |at: Instant| now < at + READ_AGAIN_WITHIN;
        self.topics.retain(|topic, wait| {
            let returned = wait.returned.is_some_and(is_read_again);
            wait.batches > 0 || returned || queued.contains(topic)
        });
        let since = self.topics.iter();
        let since = since.map(|(&topic, wait)| (name_of(topic).to_owned(), wait.since));
        self.stats.set_waiting(since.collect());
    }
}

/// Who has ended waits for nothing.
impl Drop for Waits {
    fn drop(&mut self) {
        self.stats.set_waiting(Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use crate::kafka::{Client, Options, Producer};

    use super::*;

    /// Its file was truncated, or is no more wanted: an alarm went on for ever.
    #[test]
    fn what_came_back_and_does_not_come_again_is_waited_for_no_more() {
        let stats = Arc::new(Stats::default());
        let mut waits = Waits::new(Arc::clone(&stats));
        let now = Instant::now();
        let mut client = Producer::<()>::new(Options::new(Vec::new()), Arc::default());
        let topic = client.topic("t", now);
        waits.submitted(topic, now);
        waits.returned(topic, 1, now);
        let mut shown_after = |pause: Duration| {
            waits.show([].into_iter(), |_| "t", now + pause);
            stats.waiting_for().len()
        };
        assert_eq!(shown_after(READ_AGAIN_WITHIN / 2), 1);
        assert_eq!(shown_after(READ_AGAIN_WITHIN), 0);
    }
}
