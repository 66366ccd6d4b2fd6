//! Repeated happenings, told on change and then at a slow pace.
//!
//! Several producers meet the same trouble at once; the user hears of it once.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the same trouble is told again while it lasts.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Troubles remembered; beyond that the oldest are forgotten, and told again.
const TROUBLES_MAX: usize = 1_000;

/// What the user was told, by what it is about.
#[derive(Debug, Default)]
pub struct Notices {
    // Shared by the producers; held for a map's time only.
    told: Mutex<HashMap<String, Trouble>>,
}

#[derive(Debug, Default)]
struct Trouble {
    /// The parts that have it, where it is about something with parts.
    parts: HashSet<i32>,
    /// What was told of it, and when.
    states: Vec<(String, Instant)>,
}

impl Trouble {
    /// True when this state was not told, or long ago; from now on it was.
    fn is_news(&mut self, state: &str) -> bool {
        let told = self.states.iter().position(|(told, _)| told == state);
        if told.is_some_and(|at| self.states[at].1.elapsed() < AGAIN_AFTER) {
            return false;
        }
        self.states.retain(|(told, _)| told != state);
        self.states.push((state.to_owned(), Instant::now()));
        true
    }

    fn is_recent(&self) -> bool {
        let mut times = self.states.iter().map(|(_, at)| at);
        times.any(|at| at.elapsed() < AGAIN_AFTER)
    }
}

impl Notices {
    /// True when this is to be told: it is new, has changed, or was last told
    /// long ago.
    pub fn is_news(&self, about: &str, state: &str) -> bool {
        self.note(about, |trouble| {
            trouble.states.retain(|(told, _)| told == state);
            trouble.is_news(state)
        })
    }

    /// The same of one of several parts, which are told of as one: that another part
    /// is in the same state is no news, nor that parts take turns.
    pub fn is_news_of_part(&self, about: &str, part: i32, state: &str) -> bool {
        self.note(about, |trouble| {
            trouble.parts.insert(part);
            trouble.is_news(state)
        })
    }

    fn note(&self, about: &str, note: impl FnOnce(&mut Trouble) -> bool) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TROUBLES_MAX && !told.contains_key(about) {
            told.retain(|_, trouble| trouble.is_recent());
        }
        note(told.entry(about.to_owned()).or_default())
    }

    /// True when something was told about it before, and now it is over.
    pub fn is_over(&self, about: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.remove(about).is_some()
    }

    /// True when this part was the last that had the trouble, and now it is over.
    pub fn is_over_for_part(&self, about: &str, part: i32) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(trouble) = told.get_mut(about) else {
            return false;
        };
        let over = trouble.parts.remove(&part) && trouble.parts.is_empty();
        if over {
            told.remove(about);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_told_once_and_a_change_again() {
        let notices = Notices::default();
        assert!(notices.is_news("broker a", "refused"));
        assert!(!notices.is_news("broker a", "refused"));
        assert!(notices.is_news("broker b", "refused"));
        assert!(notices.is_news("broker a", "silence"));
        assert!(notices.is_over("broker a"));
        assert!(!notices.is_over("broker a"));
        assert!(notices.is_news("broker a", "silence"));
    }
    #[test]
    fn parts_in_trouble_are_told_of_as_one_until_the_last_is_out_of_it() {
        let notices = Notices::default();
        let news = |part, state| notices.is_news_of_part("t", part, state);
        assert!(news(0, "refused"));
        assert!(!news(1, "refused"));
        assert!(news(1, "silence"));
        assert!(!news(0, "refused"));
        assert!(!notices.is_over_for_part("t", 2));
        assert!(!notices.is_over_for_part("t", 0));
        assert!(!news(1, "silence"));
        assert!(notices.is_over_for_part("t", 1));
        assert!(!notices.is_over_for_part("t", 1));
        assert!(news(1, "silence"));
    }
}
