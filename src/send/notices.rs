//! Repeated happenings, told on change and then at a slow pace.
//!
//! Several producers meet the same trouble at once; the user hears of it once.

use std::collections::HashMap;
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
    told: Mutex<HashMap<String, (String, Instant)>>,
}

impl Notices {
    /// True when this is to be told: it is new, has changed, or was last told
    /// long ago.
    pub fn is_news(&self, about: &str, state: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.len() >= TROUBLES_MAX && !told.contains_key(about) {
            told.retain(|_, (_, at)| at.elapsed() < AGAIN_AFTER);
        }
        match told.get(about) {
            Some((last, at)) if last == state && at.elapsed() < AGAIN_AFTER => false,
            _ => {
                told.insert(about.to_owned(), (state.to_owned(), now));
                true
            }
        }
    }

    /// True when something was told about it before, and now it is over.
    pub fn is_over(&self, about: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.remove(about).is_some()
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
}
