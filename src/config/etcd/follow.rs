//! Follows one key, or all below one, and tells its content on every change.
//!
//! A session belongs to one endpoint: list, then watch from the next revision,
//! and list again whenever the watch tells of a change. What is told is always a
//! list, so a consistent whole; the watch only says when. A session that ends
//! for whatever reason is followed by another one, which begins with a list:
//! nothing that happened in between is missed.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use super::content::{self, Content, Range, Values};
use super::failure::{EtcdError, Failure, Kind};
use super::gateway::{Gateway, Wires};
use super::options::Options;
use super::watch::{Watch, Watched};
use crate::text::as_value;
use crate::thread::{self, Stop};

/// Pause after all endpoints have failed, doubling to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);
/// A session that lasted so long is no failure: the next pause is the first again.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Shortest pause between two lists, whatever was asked for.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// How long a stop waits for the thread, which may sit in a name look-up or a
/// connect; both end by themselves and touch nothing afterwards.
const STOP_PATIENCE: Duration = Duration::from_millis(700);

/// What is told of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The whole content: the key itself, or for a key ending in `/` every key
    /// below it. Empty when there is none. Told at first, and when it has
    /// changed; also the end of any trouble.
    Values {
        /// The key as it was given.
        key: String,
        /// The content is as of this revision.
        revision: i64,
        /// Those over the limit are among them, but not loaded.
        values: Values,
    },
    /// It cannot be followed at the moment; what was told before still holds.
    Trouble {
        /// The key as it was given.
        key: String,
        /// Endpoint, step, what is wrong and what to change. Told when it changes.
        problem: String,
    },
    /// It can be followed again, and nothing has changed.
    Recovered {
        /// The key as it was given.
        key: String,
    },
}

/// Follows one key until a stop is requested or the receiver is gone.
///
/// The work is done by a thread of its own, so that a stop can take it from
/// any wait; this one waits for the stop. When the system has no thread left,
/// that is trouble, and the end.
///
/// # Panics
/// When that thread panics.
pub fn follow(options: &Options, key: &str, events: &Sender<Event>, stop: &Stop) {
    let wires = Arc::new(Wires::default());
    let (running, ended) = bounded::<Infallible>(0);
    let follower = Follower::new(options, key, events, stop, &wires);
    let body = move || {
        let _running = running;
        follower.run();
    };
    let task = match thread::try_spawn("etcd", body) {
        Ok(task) => task,
        Err(error) => {
            let problem = format!("the operating system has no thread left: {error}");
            let key = key.to_owned();
            let _ = events.try_send(Event::Trouble { key, problem });
            return;
        }
    };
    select! {
        recv(ended) -> _ => {}
        recv(stop.signal()) -> _ => wires.cut(),
    }
    if is_still_running(&ended) {
        task.detach();
    } else if let Err(name) = task.join() {
        panic!("thread {name} panicked");
    }
}

fn is_still_running(ended: &Receiver<Infallible>) -> bool {
    ended.recv_timeout(STOP_PATIENCE) == Err(RecvTimeoutError::Timeout)
}

/// Nobody wants to hear more: a stop was requested, or the receiver is gone.
struct Gone;

/// Why a session is over.
enum End {
    Gone,
    /// Begin another one; nothing is wrong.
    Again,
    /// Something is wrong with this endpoint, or with etcd.
    Failed(Failure),
}

impl From<Gone> for End {
    fn from(_: Gone) -> End {
        End::Gone
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failed(failure)
    }
}

struct Follower {
    options: Options,
    key: String,
    range: Range,
    events: Sender<Event>,
    stop: Stop,
    wires: Arc<Wires>,
    /// The endpoint to begin the next session with: the last good one.
    current: usize,
    /// By endpoint, what it failed with since the last that was well.
    failed: Vec<Option<Failure>>,
    /// The session has come so far that the key was followed.
    is_up: bool,
    /// Endpoints of which it was told that they cannot be watched.
    unwatchable: BTreeSet<usize>,
    /// The trouble that was told last and is not over.
    told: Option<String>,
    /// The content is too large to be told, and why.
    too_large: Option<Failure>,
    /// The content that was told last.
    values: Option<Values>,
    /// It was read in this session. What is older may be of another etcd: after
    /// a restored backup, revisions come twice.
    is_fresh: bool,
}

impl Follower {
    fn new(
        options: &Options,
        key: &str,
        events: &Sender<Event>,
        stop: &Stop,
        wires: &Arc<Wires>,
    ) -> Follower {
        Follower {
            options: options.clone(),
            key: key.to_owned(),
            range: Range::of(key),
            events: events.clone(),
            stop: stop.clone(),
            wires: Arc::clone(wires),
            current: 0,
            failed: vec![None; options.endpoints.len()],
            is_up: false,
            unwatchable: BTreeSet::new(),
            told: None,
            too_large: None,
            values: None,
            is_fresh: false,
        }
    }

    fn run(mut self) {
        let Err(Gone) = self.sessions();
    }

    /// One session after the other. All endpoints are tried without a pause in
    /// between, then there is one.
    fn sessions(&mut self) -> Result<Infallible, Gone> {
        if self.options.endpoints.is_empty() {
            self.trouble(EtcdError(Vec::new()).to_string())?;
            let _ = self.stop.signal().recv();
            return Err(Gone);
        }
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let Err(end) = self.session();
            if self.stop.requested() {
                return Err(Gone);
            }
            let pause = match end {
                End::Gone => return Err(Gone),
                End::Again => PAUSE_FIRST,
                End::Failed(failure) => {
                    if begun.elapsed() >= STEADY_AFTER {
                        failures = 0;
                    }
                    failures += 1;
                    self.has_failed(failure, failures)?
                }
            };
            self.stop.sleep(pause);
        }
    }

    /// Notes a failure, moves to the next endpoint, and says how long to pause.
    fn has_failed(&mut self, failure: Failure, failures: usize) -> Result<Duration, Gone> {
        log::debug!("cannot follow key={} {failure}", as_value(&self.key));
        if failure.is_general() {
            self.trouble(failure.to_string())?;
            return Ok(jittered(PAUSE_LONGEST));
        }
        let count = self.options.endpoints.len();
        // The end of what was well is no trouble yet, only that it cannot begin again.
        if !self.is_up {
            self.failed[self.current] = Some(failure);
        }
        self.current = (self.current + 1) % count;
        if self.failed.iter().all(Option::is_some) {
            let all = self.failed.iter().flatten().cloned().collect();
            self.trouble(EtcdError(all).to_string())?;
        }
        if !failures.is_multiple_of(count) {
            return Ok(Duration::ZERO);
        }
        Ok(pause_after(failures / count))
    }

    fn session(&mut self) -> Result<Infallible, End> {
        (self.is_up, self.is_fresh) = (false, false);
        let endpoint = self.options.endpoints[self.current].clone();
        let mut gateway = Gateway::open(&endpoint, &self.options)?;
        self.wires.hold(&gateway);
        let listed = self.refresh(&mut gateway)?.revision;
        match self.watch(&mut gateway, listed) {
            Err(End::Failed(failure)) if failure.kind == Kind::Unwatchable => {
                self.poll(&mut gateway, &failure)
            }
            end => end,
        }
    }

    fn watch(&mut self, gateway: &mut Gateway, mut listed: i64) -> Result<Infallible, End> {
        let mut watch = Watch::open(gateway, &self.range, listed + 1)?;
        let opened = Instant::now();
        let (mut confirmed, mut looked) = (false, opened);
        loop {
            match watch.next()? {
                Watched::Created => {
                    confirmed = true;
                    self.unwatchable.remove(&self.current);
                    self.is_well()?;
                }
                Watched::Changed(newest) if newest.is_none_or(|newest| newest > listed) => {
                    listed = self.refresh(gateway)?.revision;
                    self.is_well()?;
                }
                Watched::Changed(_) | Watched::Progress | Watched::Silence => {}
            }
            if self.stop.requested() {
                return Err(End::Gone);
            }
            if !confirmed && opened.elapsed() >= self.options.watch_timeout {
                return Err(watch.never_confirmed().into());
            }
            if confirmed && looked.elapsed() >= self.options.look_interval {
                self.look(gateway)?;
                looked = Instant::now();
            }
        }
    }

    /// Looks whether the watch has missed something: silence alone proves
    /// nothing, a dead connection is as silent.
    fn look(&mut self, gateway: &mut Gateway) -> Result<(), End> {
        if !self.refresh(gateway)?.changed {
            return Ok(());
        }
        let endpoint = gateway.endpoint();
        log::debug!("the watch has missed a change endpoint={endpoint}");
        Err(End::Again)
    }

    /// Lists again and again, until it is time to try to watch.
    fn poll(&mut self, gateway: &mut Gateway, why: &Failure) -> Result<Infallible, End> {
        if self.unwatchable.insert(self.current) {
            log::info!(
                "cannot watch, so the key is polled key={} interval={:?} {why} (does a proxy buffer answers?)",
                as_value(&self.key),
                self.options.poll_interval
            );
        }
        let begun = Instant::now();
        loop {
            self.is_well()?;
            if begun.elapsed() >= self.options.rewatch_interval {
                self.current = (self.current + 1) % self.options.endpoints.len();
                return Err(End::Again);
            }
            self.stop
                .sleep(self.options.poll_interval.max(POLL_INTERVAL_MIN));
            if self.stop.requested() {
                return Err(End::Gone);
            }
            self.refresh(gateway)?;
        }
    }

    /// Lists, and tells what has changed.
    fn refresh(&mut self, gateway: &mut Gateway) -> Result<Refreshed, End> {
        let (nothing, bytes_max) = (Values::default(), self.options.value_bytes_max);
        let known = self.values.as_ref().filter(|_| self.is_fresh);
        let known = known.unwrap_or(&nothing);
        let Content { revision, values } = content::read(gateway, &self.range, bytes_max, known)?;
        let values = match values {
            Ok(values) => values,
            Err(failure) => {
                let changed = self.too_large.as_ref() != Some(&failure);
                self.trouble(failure.to_string())?;
                self.too_large = Some(failure);
                return Ok(Refreshed { revision, changed });
            }
        };
        self.is_fresh = true;
        let was_too_large = self.too_large.take().is_some();
        if self.values.as_ref() == Some(&values) {
            let changed = was_too_large;
            return Ok(Refreshed { revision, changed });
        }
        self.told = None;
        self.values = Some(values.clone());
        self.tell(Event::Values {
            key: self.key.clone(),
            revision,
            values,
        })?;
        let changed = true;
        Ok(Refreshed { revision, changed })
    }

    /// The key is followed: whatever was the trouble is over.
    fn is_well(&mut self) -> Result<(), Gone> {
        self.is_up = true;
        self.failed.fill(None);
        if self.too_large.is_none() && self.told.take().is_some() {
            let key = self.key.clone();
            self.tell(Event::Recovered { key })?;
        }
        Ok(())
    }

    fn trouble(&mut self, problem: String) -> Result<(), Gone> {
        if self.stop.requested() {
            return Err(Gone); // It may have come from the stop itself.
        }
        if self.told.as_ref() == Some(&problem) {
            return Ok(());
        }
        self.told = Some(problem.clone());
        let key = self.key.clone();
        self.tell(Event::Trouble { key, problem })
    }

    fn tell(&self, event: Event) -> Result<(), Gone> {
        if self.stop.requested() {
            return Err(Gone);
        }
        select! {
            send(self.events, event) -> sent => sent.map_err(|_| Gone),
            recv(self.stop.signal()) -> _ => Err(Gone),
        }
    }
}

/// The outcome of a list.
struct Refreshed {
    revision: i64,
    changed: bool,
}

/// The pause after so many rounds over all endpoints, at least one.
fn pause_after(rounds: usize) -> Duration {
    let doublings = u32::try_from(rounds - 1).unwrap_or(u32::MAX).min(16);
    jittered(
        PAUSE_FIRST
            .saturating_mul(1 << doublings)
            .min(PAUSE_LONGEST),
    )
}

/// Up to a fifth less, so that many logships do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1_000;
    pause.mul_f64(1.0 - random as f64 / 5_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_the_first_to_the_longest() {
        for (rounds, longest) in [(1, 250), (2, 500), (5, 4_000), (6, 5_000), (90, 5_000)] {
            let pause = pause_after(rounds).as_millis();
            assert!(
                (longest * 4 / 5..=longest).contains(&pause),
                "{rounds}: {pause}"
            );
        }
    }
}
