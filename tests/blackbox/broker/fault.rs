//! What goes wrong between a client and a broker, on demand.
//!
//! A fault says what happens to which requests and how often. Ports that go
//! away and slow reading are not about requests; see `Broker`.

use std::time::Duration;

use kafka_protocol::messages::ApiKey;

use crate::dice::Dice;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdeed {
    /// The connection is cut before the request is processed.
    CutBefore,
    /// The connection is cut when the request is processed but not answered.
    CutAfter,
    /// The connection is cut in the middle of the answer.
    CutMidAnswer,
    /// Neither this nor any later request of the connection is processed.
    Silence,
    /// The answer leaves no sooner than this after the request came.
    Delay(Duration),
    /// Refused with this error code.
    Error(i16),
    /// Processed, and answered with this error code all the same.
    ErrorAfterAppend(i16),
    /// Processed, and answered by something that is no Kafka.
    Garbage,
    /// Processed, and answered by a well-framed body of 0xff, in which compact
    /// arrays have four thousand million entries.
    Nonsense,
    /// The same of 0x7f, which does that to arrays with a fixed-width count.
    AbsurdCounts,
    /// Processed, and answered as if it had been another request.
    WrongCorrelation,
}

/// Misdeeds and the requests they befall.
#[derive(Debug, Clone)]
pub struct Fault {
    misdeeds: Vec<Misdeed>,
    one_in: u64,
    dice: Dice,
    api: Option<ApiKey>,
    node: Option<i32>,
    topic: Option<String>,
    left: Option<usize>,
}

impl Fault {
    /// Befalls every request until cleared.
    pub fn of(misdeed: Misdeed) -> Fault {
        Fault::mix(0, 1, [misdeed])
    }

    /// Befalls one in so many requests with any of the misdeeds; the same seed
    /// and the same order of requests give the same faults.
    pub fn mix(seed: u64, one_in: u64, misdeeds: impl Into<Vec<Misdeed>>) -> Fault {
        Fault {
            misdeeds: misdeeds.into(),
            one_in,
            dice: Dice::new(seed),
            api: None,
            node: None,
            topic: None,
            left: None,
        }
    }

    /// Only requests of this kind.
    pub fn on(self, api: ApiKey) -> Fault {
        Fault {
            api: Some(api),
            ..self
        }
    }

    /// Only requests to this node.
    pub fn node(self, node: i32) -> Fault {
        Fault {
            node: Some(node),
            ..self
        }
    }

    /// Only requests that name this topic, and of those only its part.
    pub fn topic(self, topic: &str) -> Fault {
        Fault {
            topic: Some(topic.to_owned()),
            ..self
        }
    }

    /// Only the next so many requests.
    pub fn times(self, left: usize) -> Fault {
        Fault {
            left: Some(left),
            ..self
        }
    }

    /// Whether the fault befalls a request, and how.
    pub(super) fn draw(&mut self, node: i32, api: ApiKey, topics: &[String]) -> Option<Doom> {
        let meant = self.api.is_none_or(|only| only == api)
            && self.node.is_none_or(|only| only == node)
            && self.topic.as_ref().is_none_or(|only| topics.contains(only));
        if !meant || self.left == Some(0) || !self.dice.one_in(self.one_in) {
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        Some(Doom {
            misdeed: Some(*self.dice.pick(&self.misdeeds)),
            topic: self.topic.clone(),
        })
    }
}

/// What befalls one request, if anything, and the topic that is confined to.
#[derive(Default)]
pub(super) struct Doom {
    pub misdeed: Option<Misdeed>,
    topic: Option<String>,
}

impl Doom {
    /// The error code a topic is refused with.
    pub fn refuses(&self, topic: &str) -> Result<(), i16> {
        match self.misdeed {
            Some(Misdeed::Error(code)) if self.concerns(topic) => Err(code),
            _ => Ok(()),
        }
    }

    /// The error code a topic is answered with although all went well.
    pub fn denies(&self, topic: &str) -> Result<(), i16> {
        match self.misdeed {
            Some(Misdeed::ErrorAfterAppend(code)) if self.concerns(topic) => Err(code),
            _ => Ok(()),
        }
    }

    /// Either, where there is nothing to append.
    pub fn error(&self, topic: &str) -> Result<(), i16> {
        self.refuses(topic).and_then(|()| self.denies(topic))
    }

    fn concerns(&self, topic: &str) -> bool {
        self.topic.as_deref().is_none_or(|only| only == topic)
    }
}
