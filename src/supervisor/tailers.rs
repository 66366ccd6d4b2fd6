//! The tailers: which paths have one, for what, and what becomes of them.
//!
//! It compares what is tailed with what is to be tailed, path by path, and
//! touches only what differs.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};

use crate::queue::Queue;
use crate::tail::{
    Context, Found, Job, Left, Options, Order, PathClaim, PathKey, ReadFrom, Retained, Sleeper,
    Source, State, Tailer, Target,
};
use crate::text::shown;
use crate::thread::{StopHandle, Task, spawn, stop_pair, try_spawn};

use super::backoff::Backoff;
use super::{Event, Obituary, Who, join_all};

/// Tailers that are awake before others have to wait for one that falls asleep.
const AWAKE_MAX: usize = 256;
/// Combinations of sources about which something was told once, at most.
const TOLD_MAX: usize = 100;
/// How many start all the same, ten times a second.
const WAITING_STARTS: usize = 64;

/// What is wanted of a path, and the claim for its topic if that is another one.
type Wish = (Arc<Source>, Option<Arc<PathClaim>>);

/// All tailers.
pub struct Tailers {
    context: Context,
    events: Sender<Event>,
    /// By number: a path may get a new tailer before the end of the last is heard of.
    running: HashMap<u64, Running>,
    retries: HashMap<PathKey, Retry>,
    /// Those that wait for others to fall asleep, or for their turn.
    waiting: VecDeque<Waiting>,
    /// It was told that files take turns.
    told_of_turns: bool,
    /// Sources that share files, about which it was told.
    told_of_topics: Vec<Vec<(String, Arc<str>)>>,
    /// How long what was in etcd and is gone is read on.
    drain_timeout: Duration,
    /// Where files were looked for that nobody tails.
    left: Left,
    /// Ends the thread that reads standard input.
    stdin_stop: Option<StopHandle>,
    made: u64,
}

struct Running {
    target: Target,
    /// Its source is in etcd: taken away, it is drained.
    remote: bool,
    orders: Sender<Order>,
    stop: Option<StopHandle>,
    _task: Task,
    draining: bool,
    /// What it has the path by, also for topics of before for as long as it holds them.
    claims: Vec<Weak<PathClaim>>,
    /// How often its path failed before.
    backoff: Backoff,
}

/// A path that has no thread yet.
enum Waiting {
    /// Nothing of it was read.
    New(Box<Tailer>, bool, Backoff),
    /// It slept, or gave way to others.
    Woken(Box<Sleeper>),
}

struct Retry {
    target: Target,
    remote: bool,
    backoff: Backoff,
}

impl Tailers {
    /// No tailers yet.
    pub fn new(context: Context, events: Sender<Event>) -> Tailers {
        Tailers {
            context,
            events,
            running: HashMap::new(),
            retries: HashMap::new(),
            waiting: VecDeque::new(),
            told_of_turns: false,
            told_of_topics: Vec::new(),
            drain_timeout: Duration::ZERO,
            left: Left::default(),
            stdin_stop: None,
            made: 0,
        }
    }

    /// True when no path has a tailer that is awake, or will have one again.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && self.retries.is_empty() && self.waiting.is_empty()
    }

    /// How many were ever started.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// True when a tailer keeps failing.
    pub fn is_failing(&self) -> bool {
        let waiting = self.retries.values().map(|retry| &retry.backoff);
        let mut all = waiting.chain(self.running.values().map(|running| &running.backoff));
        all.any(Backoff::is_failing)
    }

    // ---- starting --------------------------------------------------------------

    /// Starts a tailer for a path that was found, unless it has one.
    pub fn start_found(&mut self, found: Found, read_from: ReadFrom) {
        let (source, wanted) = (&found.source, &self.context.wanted);
        let key = (found.path, Arc::clone(&source.job.topic));
        // After a reload a path may be found for what is no longer wanted of it.
        if self.retries.contains_key(&key)
            || !wanted.sources().iter().any(|one| Arc::ptr_eq(one, source))
        {
            return;
        }
        let ledger = &self.context.ledger;
        let number = found.inode.map(|(device, inode, _)| (device, inode));
        let attended = number.map(|number| ledger.attended(number));
        if attended.is_some_and(|attended| wanted.changes_hands(&attended)) {
            return;
        }
        let topics = wanted.topics(&key.0);
        ledger.inherit(&key.0, found.inode, &key.1, &topics, &|path, topic| {
            wanted.wants(path, topic)
        });
        if topics.len() > 1 {
            self.tell_of_topics(&key.0);
        }
        let target = Target {
            path: key.0,
            job: Arc::clone(&source.job),
            read_from,
            missing_at: found.missing_at,
            named: false,
        };
        self.start(target, source.remote, Backoff::new());
    }

    /// Starts tailers for paths that nobody tails, and where files stood of which
    /// something is unread: it is found under another name, or lost and told.
    pub fn take_up_left(&mut self) {
        for origin in self.left.look(&self.context) {
            let wanted = &self.context.wanted;
            let same = wanted.of_topic(&origin.path, &origin.topic);
            // With another topic by now, that one inherits.
            let other = || wanted.of(&origin.path).into_iter().next();
            if let Some(source) = same.or_else(other) {
                let found = Found {
                    path: origin.path,
                    source,
                    first: false,
                    inode: None,
                    missing_at: None,
                };
                self.start_found(found, ReadFrom::Beginning);
            }
        }
    }

    /// Says which sources ship a path to more than one topic: once for all paths.
    fn tell_of_topics(&mut self, path: &Path) {
        let wanted = self.context.wanted.of(path);
        let told: Vec<(String, Arc<str>)> = wanted
            .iter()
            .map(|source| {
                let pattern = source.pattern.text().to_owned();
                (pattern, Arc::clone(&source.job.topic))
            })
            .collect();
        if self.told_of_topics.len() >= TOLD_MAX || self.told_of_topics.contains(&told) {
            return;
        }
        let topics: Vec<&str> = told.iter().map(|(_, topic)| &**topic).collect();
        log::warn!(
            "{} matches several sources and is shipped to all their topics topics={}",
            shown(path),
            topics.join(",")
        );
        self.told_of_topics.push(told);
    }

    /// Starts a tailer for a path that is waited for, unless it has one.
    pub fn start_named(&mut self, path: PathBuf, job: Arc<Job>, read_from: ReadFrom) -> bool {
        self.context.wanted.name(path.clone());
        let target = Target {
            path,
            job,
            read_from,
            missing_at: None,
            named: true,
        };
        self.start(target, false, Backoff::new())
    }

    /// Starts a tailer for a path that slept, or lets it wait for its turn.
    pub fn wake(&mut self, sleeper: Sleeper) {
        if self.may_open_more() {
            self.wake_now(sleeper);
        } else {
            self.wait(Waiting::Woken(Box::new(sleeper)));
        }
    }

    /// A tailer gave its handle to others: its path waits for its next turn.
    pub fn gave_way(&mut self, number: u64, sleeper: Box<Sleeper>) {
        self.wait(Waiting::Woken(sleeper));
        self.ended(number);
    }

    fn wait(&mut self, mut waiting: Waiting) {
        match &mut waiting {
            Waiting::New(tailer, ..) => tailer.queue(),
            Waiting::Woken(sleeper) => sleeper.queue(),
        }
        self.waiting.push_back(waiting);
    }

    /// False when as many tailers run as may have a file open. One that waits for a
    /// file, or has none because another tailer has it, does not count.
    fn may_open_more(&self) -> bool {
        let max = self.context.handles.max();
        let open = || self.running.values().filter(|one| one.may_have_a_file());
        self.running.len() < max || open().count() < max
    }

    /// Starts a tailer for a path that slept, and tells it what has changed.
    fn wake_now(&mut self, sleeper: Sleeper) {
        let target = sleeper.target().clone();
        let remote = self
            .context
            .wanted
            .of_topic(&target.path, &target.job.topic)
            .map_or(target.job.fence.is_some(), |source| source.remote);
        let tailer = Tailer::awake(self.context.clone(), sleeper);
        self.run_late(tailer, target, remote, Backoff::new());
    }

    /// Runs a tailer that was made for what was wanted a while ago, if its path is
    /// wanted still.
    fn run_late(
        &mut self,
        mut tailer: Tailer,
        mut target: Target,
        mut remote: bool,
        backoff: Backoff,
    ) {
        if !target.named {
            let claims = [Arc::downgrade(tailer.path_claim())];
            let Some((source, claim)) = self.wish_for(&target, &claims) else {
                if remote {
                    self.run_to_its_end(tailer, target);
                }
                return;
            };
            let job = Arc::clone(&source.job);
            (target.job, remote) = (Arc::clone(&job), source.remote);
            tailer.obey(Order::Serve { job, claim });
        }
        self.run(tailer, target, remote, backoff);
    }

    /// Runs a tailer whose source is gone from etcd, as long as that is drained.
    fn run_to_its_end(&mut self, tailer: Tailer, target: Target) {
        let number = self.run(tailer, target, true, Backoff::new());
        if let Some(running) = self.running.remove(&number) {
            self.adjust(number, running, self.drain_timeout);
        }
    }

    fn start(&mut self, target: Target, remote: bool, backoff: Backoff) -> bool {
        let registry = &self.context.registry;
        let Some(claim) = registry.claim_path(&target.path, &target.job.topic) else {
            return false;
        };
        let tailer = Tailer::new(self.context.clone(), target.clone(), Arc::new(claim));
        if self.running.len() >= AWAKE_MAX || !self.may_open_more() {
            self.wait(Waiting::New(Box::new(tailer), remote, backoff));
        } else {
            self.run(tailer, target, remote, backoff);
        }
        true
    }

    /// Tells a tailer what those that run were told while it waited.
    fn catch_up(&self, tailer: &mut Tailer) {
        tailer.obey(Order::Tune(Arc::clone(&self.context.options)));
        tailer.obey(Order::Offer(self.context.queue.clone()));
    }

    /// Starts tailers that wait: as many as there is room for, and `more` that only
    /// need a thread.
    fn start_waiting(&mut self, mut more: usize) {
        while self.may_open_more() && (self.running.len() < AWAKE_MAX || more > 0) {
            if self.running.len() >= AWAKE_MAX {
                more -= 1;
            }
            match self.waiting.pop_front() {
                Some(Waiting::New(mut tailer, remote, backoff)) => {
                    self.catch_up(&mut tailer);
                    let target = tailer.target().clone();
                    self.run_late(*tailer, target, remote, backoff);
                }
                Some(Waiting::Woken(sleeper)) => self.wake_now(*sleeper),
                None => return,
            }
        }
        if !self.waiting.is_empty() && !self.may_open_more() {
            self.let_take_turns();
        }
    }

    /// There are more files than may be open: those that are open give way after a
    /// while.
    fn let_take_turns(&mut self) {
        let handles = &self.context.handles;
        handles.ask(self.waiting.len());
        if !std::mem::replace(&mut self.told_of_turns, true) {
            log::warn!(
                "there is more to read than files that may be open at once, so they take turns: \
                 raise open_files_max or the limit of open files (ulimit -n) open_files_max={}",
                handles.max()
            );
        }
    }

    /// Starts the tailer of standard input, and the thread that reads it.
    pub fn start_stdin(&mut self, path: &Path, job: Arc<Job>) -> io::Result<()> {
        let target = Target {
            path: path.to_owned(),
            job,
            read_from: ReadFrom::Beginning,
            missing_at: None,
            named: true,
        };
        let registry = &self.context.registry;
        let Some(claim) = registry.claim_path(path, &target.job.topic) else {
            return Ok(());
        };
        let retained = Arc::new(Retained::default());
        let (filled, (handle, stop)) = (Arc::clone(&retained), stop_pair());
        self.stdin_stop = Some(handle);
        spawn("stdin", move || filled.fill(&stop)).detach();
        let tailer = Tailer::of_stdin(
            self.context.clone(),
            target.clone(),
            Arc::new(claim),
            retained,
        )?;
        self.run(tailer, target, false, Backoff::new());
        Ok(())
    }

    fn run(&mut self, tailer: Tailer, target: Target, remote: bool, backoff: Backoff) -> u64 {
        let number = self.made;
        self.made += 1;
        let name = format!("tail:{number}");
        let (handle, stop) = stop_pair();
        let (sender, orders) = unbounded();
        let claims = vec![Arc::downgrade(tailer.path_claim())];
        let events = self.events.clone();
        self.context
            .awake
            .store(self.running.len() + 1, Ordering::Relaxed);
        let obituary = Obituary::new(Who::Tailer(number), events.clone());
        let task = try_spawn(name, move || {
            let end = tailer.run(&orders, &stop);
            obituary.withdraw();
            let _ = events.send(Event::TailerEnded(number, end));
        });
        match task {
            Ok(task) => {
                let running = Running {
                    target,
                    remote,
                    orders: sender,
                    stop: Some(handle),
                    _task: task,
                    draining: false,
                    claims,
                    backoff,
                };
                self.running.insert(number, running);
            }
            Err(error) => {
                let _ = self.events.send(Event::NoThread(error));
                self.retry_later(target, remote, backoff);
            }
        }
        number
    }

    // ---- ends ------------------------------------------------------------------

    /// A tailer has ended by itself.
    pub fn ended(&mut self, number: u64) {
        self.running.remove(&number);
        self.context
            .awake
            .store(self.running.len(), Ordering::Relaxed);
        self.start_waiting(0);
    }

    /// A tailer panicked. Returns the pause before the path is taken up again,
    /// from its acknowledged position.
    pub fn died(&mut self, number: u64) -> Option<(PathBuf, Duration)> {
        let running = self.running.remove(&number)?;
        let path = running.target.path.clone();
        let pause = self.retry_later(running.target, running.remote, running.backoff);
        Some((path, pause))
    }

    fn retry_later(&mut self, target: Target, remote: bool, mut backoff: Backoff) -> Duration {
        let pause = backoff.failed();
        let key = (target.path.clone(), Arc::clone(&target.job.topic));
        let target = Target {
            // What stands there now was begun, or has appeared since.
            read_from: ReadFrom::Beginning,
            ..target
        };
        let retry = Retry {
            target,
            remote,
            backoff,
        };
        self.retries.insert(key, retry);
        pause
    }

    /// True when nothing has changed for a path that fell asleep.
    pub fn is_still_wanted(&self, sleeper: &Sleeper) -> bool {
        let target = sleeper.target();
        let (path, topic) = (&target.path, &target.job.topic);
        let wanted = || self.context.wanted.of_topic(path, topic);
        target.named || wanted().is_some_and(|source| source.job == target.job)
    }

    /// Takes up paths whose tailers failed, when the time has come.
    pub fn tend(&mut self) {
        self.start_waiting(WAITING_STARTS); // none waits for ever
        let due = self.retries.extract_if(|_, retry| retry.backoff.take_due());
        let due: Vec<Retry> = due.map(|(_, retry)| retry).collect();
        for retry in due {
            self.start(retry.target, retry.remote, retry.backoff);
        }
    }

    // ---- changes ---------------------------------------------------------------

    /// Tails these sources from now on, like this. What is gone is stopped, or
    /// drained for `drain_timeout` when it was in etcd; what goes on elsewhere is
    /// told so; the rest is left alone.
    pub fn follow(
        &mut self,
        sources: Vec<Arc<Source>>,
        options: &Options,
        drain_timeout: Duration,
    ) {
        self.context.wanted.change(sources);
        self.left.look_again();
        self.drain_timeout = drain_timeout;
        self.context.handles.limit(options.open_files_max);
        if *self.context.options != *options {
            self.context.options = Arc::new(options.clone());
            for running in self.running.values() {
                let _ = running
                    .orders
                    .send(Order::Tune(Arc::clone(&self.context.options)));
            }
        }
        let running: Vec<(u64, Running)> = self.running.drain().collect();
        for (number, running) in running {
            self.adjust(number, running, drain_timeout);
        }
        let wanted = &self.context.wanted;
        self.retries.retain(|(path, topic), retry| {
            let wanted = wanted.of_topic(path, topic);
            if let Some(source) = &wanted {
                retry.target.job = Arc::clone(&source.job);
            }
            wanted.is_some() || retry.target.named
        });
    }

    /// Tells a tailer what is wanted of its path now.
    fn adjust(&mut self, number: u64, mut running: Running, drain_timeout: Duration) {
        if running.target.named {
            self.running.insert(number, running);
            return;
        }
        if let Some((source, claim)) = self.wish_for(&running.target, &running.claims) {
            running.claims.retain(|held| held.strong_count() > 0);
            running.claims.extend(claim.as_ref().map(Arc::downgrade));
            let other = source.job.hash64() != running.target.job.hash64();
            if other || running.draining {
                let job = Arc::clone(&source.job);
                let _ = running.orders.send(Order::Serve { job, claim });
            }
            running.take_over(&source);
        } else if running.remote && !drain_timeout.is_zero() {
            if !std::mem::replace(&mut running.draining, true) {
                let _ = running
                    .orders
                    .send(Order::Drain(Instant::now() + drain_timeout));
            }
        } else {
            running.stop = None;
        }
        self.running.insert(number, running);
    }

    /// What is wanted of a path that is tailed: the same topic, or else another one
    /// with the claim for it; `None` when nobody wants it.
    fn wish_for(&self, target: &Target, held: &[Weak<PathClaim>]) -> Option<Wish> {
        match self
            .context
            .wanted
            .of_topic(&target.path, &target.job.topic)
        {
            Some(source) => Some((source, None)),
            None => self.moved(&target.path, held),
        }
    }

    /// What a path is to be shipped to, and by nobody else yet: its topic has changed.
    fn moved(&self, path: &Path, held: &[Weak<PathClaim>]) -> Option<Wish> {
        let wanted = self.context.wanted.of(path);
        let topics = self.context.wanted.topics(path);
        wanted.into_iter().find_map(|source| {
            let topic = &source.job.topic;
            // It may be on its way back to a topic that it has not let go of yet.
            let mut held = held.iter().filter_map(Weak::upgrade);
            let claim = match held.find(|claim| claim.is_for(topic)) {
                Some(claim) => claim,
                None => Arc::new(self.context.registry.claim_path(path, topic)?),
            };
            self.context
                .ledger
                .inherit(path, None, topic, &topics, &|_, _| false);
            Some((source, Some(claim)))
        })
    }

    /// Offers lines to another queue from now on.
    pub fn offer_to(&mut self, queue: &Queue) {
        self.context.queue = queue.clone();
        for running in self.running.values() {
            let _ = running.orders.send(Order::Offer(queue.clone()));
        }
    }

    /// Stops all of them and waits a while for their ends.
    pub fn stop(&mut self, patience: Duration) {
        self.stdin_stop = None;
        self.retries.clear();
        self.waiting.clear();
        for running in self.running.values_mut() {
            running.stop = None;
        }
        let tasks = self.running.drain().map(|(_, running)| running._task);
        join_all(tasks.collect(), Instant::now() + patience);
    }
}

impl Running {
    fn may_have_a_file(&self) -> bool {
        let mut claims = self.claims.iter().filter_map(Weak::upgrade);
        claims.any(|claim| !matches!(claim.tailed().state(), State::Missing | State::Failed))
    }

    fn take_over(&mut self, source: &Arc<Source>) {
        self.target.job = Arc::clone(&source.job);
        self.remote = source.remote;
        self.draining = false;
    }
}
