//! The thread that follows one path, whatever file stands there.
//!
//! It keeps the files that had the path open until their lines are settled,
//! reads them in their order, and finds a new one as soon as it is there. It
//! does not cut lines and does not look for other paths.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Receiver;

use crate::ledger::{Attendance, Entry, FileLedger, Flow, Keep, Known, Mark, Origin};
use crate::queue::Queue;
use crate::text::shown;
use crate::thread::{Stop, fault_point};

use super::generation::{Generation, Step};
use super::identity::{self, Recognition};
use super::input::{Input, Look, Retained};
use super::registry::{InodeClaim, PathClaim, State};
use super::sleeper::{Sleeper, Stat};
use super::{Context, Fence, Job, Options, ReadFrom, Target, cut, rotated};

/// How often the path is looked at while the file is busy; bounds how late a
/// rotation is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// First and longest pause while the queue is full.
const FULL_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// So many tailers that are awake are a crowd: each takes a thread's memory.
const CROWD: usize = 128;
/// How long a file in a crowd must be quiet before it sleeps.
const IDLE_AFTER_IN_CROWD: Duration = Duration::from_millis(300);
/// How long a remembered file may be missing before it is given up: time for
/// another tailer to find it under another name.
const GONE_AFTER: Duration = Duration::from_millis(500);
/// Truncated lives that are remembered, to know a copy of one.
const TRUNCATED_MAX: usize = 8;
/// How often the names of a rotation are read again while they move on.
const UNSEEN_ROUNDS_MAX: usize = 5;
/// How long a file that is drained must be quiet before that is its end: its
/// writer may be in the middle of its last words.
const DRAINED_AFTER: Duration = Duration::from_millis(200);
/// Opening a FIFO for reading blocks until it has a writer; see fcntl(2).
const O_NONBLOCK: i32 = 0o4000;

/// Why a tailer ended. The supervisor decides what each means.
#[derive(Debug)]
pub enum End {
    /// A stop was requested, or everything is drained that was to be.
    Stopped,
    /// Everything is read and settled, and nothing will follow.
    Finished,
    /// The path cannot be read; only said when it is not waited for.
    Unreadable,
    /// The producers are gone.
    QueueClosed,
    /// Nothing has happened for a while: whoever looks for files looks at this
    /// one too.
    Asleep(Box<Sleeper>),
}

/// A change of what a tailer is to do.
#[derive(Debug)]
pub enum Order {
    /// Deal with lines like this from now on. With another topic, what was read
    /// for the old one still goes there.
    Serve {
        /// What is done with the lines.
        job: Arc<Job>,
        /// The path for its topic, when that is another one.
        claim: Option<Arc<PathClaim>>,
    },
    /// Tail like this from now on.
    Tune(Arc<Options>),
    /// Offer to this queue from now on, once what the other one had has come
    /// home: nothing is to overtake it.
    Offer(Queue),
    /// Read to the end, wait until it is settled, and stop; at that moment at
    /// the latest.
    Drain(Instant),
}

/// Follows one path.
#[derive(Debug)]
pub struct Tailer {
    context: Context,
    target: Target,
    flow: Arc<Flow>,
    /// Files that had the path, oldest first; the last one is the newest.
    generations: VecDeque<Generation>,
    /// Files of which something may come back for a topic of before.
    retired: Vec<Generation>,
    /// Accounts of truncated lives whose lines are still on their way.
    closing: Vec<Attendance>,
    looked: Option<Instant>,
    /// When somebody last saw what stands at the path.
    seen: Option<SystemTime>,
    /// A read failed.
    unreadable: bool,
    /// Remembered files of this path that were not found, and since when.
    /// Another tailer may still turn out to have them.
    missing: Vec<(Instant, Entry)>,
    /// The last lives that ended with a truncation: copies of them may be about.
    truncated: VecDeque<Entry>,
    /// The file that stood here when the path fell asleep.
    was: Option<Entry>,
    drain_until: Option<Instant>,
    /// What is on its way was offered to another queue, or by another tailer.
    settling: bool,
    shown: State,
    claim: Arc<PathClaim>,
}

impl Tailer {
    /// A tailer for a path that it has to itself.
    pub fn new(context: Context, target: Target, claim: Arc<PathClaim>) -> Tailer {
        let flow = context
            .ledger
            .flow(&context.host, &target.path, &target.job.topic);
        Tailer {
            flow,
            context,
            target,
            generations: VecDeque::new(),
            retired: Vec::new(),
            closing: Vec::new(),
            looked: None,
            seen: None,
            unreadable: false,
            missing: Vec::new(),
            truncated: VecDeque::new(),
            was: None,
            drain_until: None,
            settling: false,
            shown: State::Reading,
            claim,
        }
    }

    /// A tailer that goes on where another one fell asleep.
    pub fn awake(context: Context, sleeper: Sleeper) -> Tailer {
        let seen = sleeper.seen();
        let (target, was, claim) = sleeper.wake();
        let mut tailer = Tailer::new(context, target, claim);
        (tailer.was, tailer.seen) = (was, Some(seen));
        tailer
    }

    /// What says that it has its path to itself.
    pub fn path_claim(&self) -> &Arc<PathClaim> {
        &self.claim
    }

    /// A tailer of standard input, which `retained` is filled from.
    pub fn of_stdin(
        context: Context,
        target: Target,
        claim: Arc<PathClaim>,
        retained: Arc<Retained>,
    ) -> io::Result<Tailer> {
        let mut tailer = Tailer::new(context, target, claim);
        let origin = tailer.origin(0, 0, 0);
        let (flow, none) = (Arc::clone(&tailer.flow), Mark::default());
        let ledger = Arc::new(FileLedger::new(origin, flow, 0, none, none));
        ledger.supersede(); // a pipe has no position to come back to
        tailer.context.ledger.open(Arc::clone(&ledger));
        let input = Input::Stdin(retained);
        let job = Arc::clone(&tailer.target.job);
        let generation = Generation::new(input, None, &ledger, job, false)?;
        tailer.generations.push_back(generation);
        Ok(tailer)
    }

    /// Runs until a stop is requested, the queue goes away, or there is nothing
    /// left to do.
    ///
    /// A chunk the queue has no room for is let go and read again, so a slow
    /// Kafka shows as an unread file. Only reading pauses, though: the path is
    /// looked at all the same, because a file that is rotated away unseen is
    /// lost.
    pub fn run(mut self, orders: &Receiver<Order>, stop: &Stop) -> End {
        let mut quiet = self.context.options.poll_interval_min;
        let mut full = FULL_PAUSE.0;
        self.introduce();
        while !stop.requested() && !self.is_drained() {
            fault_point("tail");
            while let Ok(order) = orders.try_recv() {
                self.obey(order);
            }
            if let Some(end) = self.look_around() {
                return end;
            }
            match self.step() {
                Step::Busy => {
                    self.show(State::Reading);
                    (quiet, full) = (self.context.options.poll_interval_min, FULL_PAUSE.0);
                }
                Step::Full => {
                    self.show(State::Full);
                    stop.sleep(full);
                    full = (full * 2).min(FULL_PAUSE.1);
                }
                Step::Idle => {
                    self.let_go();
                    self.declare_gone();
                    if let Some(end) = self.end_of_idle() {
                        return end;
                    }
                    if let Some(stat) = self.is_sleepy() {
                        return End::Asleep(Box::new(self.sleep(stat)));
                    }
                    stop.sleep(quiet);
                    quiet = (quiet * 2).min(self.context.options.poll_interval_max);
                }
                Step::Truncated => {} // dealt with; go on with the next life
                Step::Closed => return End::QueueClosed,
            }
        }
        End::Stopped
    }

    /// Some when there is nothing to wait for.
    fn end_of_idle(&mut self) -> Option<End> {
        self.show(match (self.generations.is_empty(), self.drain_until) {
            (true, _) => State::Missing,
            (false, None) => State::Idle,
            (false, Some(_)) => State::Draining,
        });
        if self.is_finished() {
            let failed = self.generations.iter().any(Generation::has_failed);
            self.close_all();
            return Some(if failed {
                End::Unreadable
            } else {
                End::Finished
            });
        }
        let once = self.context.options.once;
        (once && self.unreadable).then_some(End::Unreadable)
    }

    /// Says who it is and what it does, where others look.
    fn introduce(&self) {
        let tailed = self.claim.tailed();
        tailed.show(self.shown);
        tailed.runs_in(thread::current().name());
    }

    fn show(&mut self, state: State) {
        let state = match state {
            State::Idle | State::Missing if self.claim.tailed().trouble().is_some() => {
                State::Failed
            }
            state => state,
        };
        if state != self.shown {
            self.shown = state;
            self.claim.tailed().show(state);
        }
    }

    // ---- orders --------------------------------------------------------------

    /// Does as it is told, now or while it runs.
    pub fn obey(&mut self, order: Order) {
        match order {
            Order::Tune(options) => self.context.options = options,
            Order::Offer(queue) => (self.context.queue, self.settling) = (queue, true),
            Order::Drain(until) => self.drain_until = Some(until),
            Order::Serve { job, claim: None } => {
                self.drain_until = None;
                for generation in &mut self.generations {
                    generation.serve(&job);
                }
                self.target.job = job;
            }
            Order::Serve {
                job,
                claim: Some(claim),
            } => {
                self.drain_until = None;
                self.change_topic(job, claim);
            }
        }
    }

    /// What was read goes to the old topic, what follows to the new one.
    fn change_topic(&mut self, job: Arc<Job>, claim: Arc<PathClaim>) {
        let context = &self.context;
        self.flow = context
            .ledger
            .flow(&context.host, &self.target.path, &job.topic);
        self.target.job = job;
        self.claim = claim;
        self.introduce();
        // What it looks for, it looks for under the topic of now.
        let missing = self.missing.iter_mut().map(|(_, entry)| entry);
        for entry in missing.chain(&mut self.was) {
            entry.origin.topic = Arc::clone(&self.target.job.topic);
        }
        for generation in std::mem::take(&mut self.generations) {
            match self.successor(&generation) {
                Ok(Some(next)) => self.generations.push_back(next),
                Ok(None) => {} // another tailer ships it to the new topic
                Err(error) => self.tell(&format!("cannot read: {error}")),
            }
            let mut old = generation;
            old.retire();
            self.retired.push(old);
        }
    }

    /// The same file for the topic of now.
    fn successor(&mut self, old: &Generation) -> io::Result<Option<Generation>> {
        let origin = old.ledger().origin();
        let topic = Arc::clone(&self.target.job.topic);
        let key = (origin.device, origin.inode, topic);
        // It may be ours from before the last change.
        let ours = |retired: &&Generation| {
            let origin = retired.ledger().origin();
            (origin.device, origin.inode, &origin.topic) == (key.0, key.1, &key.2)
        };
        let claim = match self.retired.iter().find(ours).and_then(Generation::claim) {
            Some(claim) => claim,
            None => match self.context.registry.claim_inode(key, &self.target.path) {
                Ok(claim) => Arc::new(claim),
                Err(_) => return Ok(None),
            },
        };
        let origin = self.origin(origin.device, origin.inode, origin.generation);
        let window = identity::window(old.input(), old.ledger().read_to())?;
        let flow = Arc::clone(&self.flow);
        let account = FileLedger::following(old.ledger(), origin, flow, window);
        let account = Arc::new(account);
        let job = Arc::clone(&self.target.job);
        let next = Generation::new(old.input().clone(), Some(claim), &account, job, false)?;
        self.context.ledger.open(account);
        Ok(Some(next))
    }

    fn is_drained(&self) -> bool {
        let settled = || {
            self.looked.is_some()
                && self.generations.iter().all(Generation::is_settled)
                && self.retired.iter().all(Generation::is_retired)
                && self
                    .generations
                    .iter()
                    .all(|file| file.is_quiet_for(DRAINED_AFTER))
        };
        self.drain_until
            .is_some_and(|until| Instant::now() >= until || settled())
    }

    // ---- sleeping ------------------------------------------------------------

    /// Some when nothing has happened at the path for a while: what stands there.
    fn is_sleepy(&self) -> Option<Option<Stat>> {
        let awake = self.context.awake.load(Ordering::Relaxed);
        let idle_after = match self.context.options.idle_after {
            long if awake > CROWD => long.min(IDLE_AFTER_IN_CROWD),
            idle_after => idle_after,
        };
        let busy = self.context.options.once
            || self.is_stdin()
            || self.drain_until.is_some()
            || self.generations.len() > 1
            || !(self.retired.is_empty() && self.closing.is_empty() && self.missing.is_empty());
        let quiet = |file: &Generation| file.is_quiet_for(idle_after);
        if busy || !self.generations.iter().all(quiet) {
            return None;
        }
        let now = fs::metadata(&self.target.path);
        match (self.generations.back(), now) {
            (Some(file), Ok(meta)) => {
                // As it was when its content was last compared.
                let same = file.has(meta.dev(), meta.ino()) && file.last_look() == Look::at(&meta);
                same.then(|| Some(Stat::of(&meta)))
            }
            (None, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                self.target.named.then_some(None)
            }
            _ => None,
        }
    }

    fn sleep(mut self, stat: Option<Stat>) -> Sleeper {
        let file = self.generations.pop_back().map(Generation::close);
        log::debug!("asleep path={}", shown(&self.target.path));
        Sleeper::new(self.target, stat, file, self.claim)
    }

    // ---- reading ---------------------------------------------------------------

    /// Reads from the oldest file that has something to read.
    fn step(&mut self) -> Step {
        self.settling &= !self.is_quiet();
        if self.settling {
            return Step::Full;
        }
        let retired = self.step_retired();
        if let Step::Busy | Step::Closed = retired {
            return retired;
        }
        let once = self.context.options.once;
        let newest = self.generations.len().saturating_sub(1);
        for at in 0..self.generations.len() {
            let generation = &mut self.generations[at];
            // The last line of a file that is over counts without a line end,
            // once its writer has had the time to finish it.
            let over = at < newest || generation.last_look().links == 0;
            let complete =
                (once && !generation.is_stdin()) || (over && self.context.has_waited(generation));
            match generation.step(complete, &self.context.queue) {
                Ok(Step::Idle) => {}
                Ok(Step::Truncated) => {
                    self.begin_next_life(at);
                    return Step::Truncated;
                }
                Ok(step) => return step,
                Err(error) => {
                    self.unreadable = true;
                    self.tell(&format!("cannot read: {error}"));
                }
            }
        }
        retired
    }

    /// Nothing of the path is on its way.
    fn is_quiet(&self) -> bool {
        let mut files = self.generations.iter().chain(&self.retired);
        files.all(|file| file.ledger().is_quiet())
    }

    /// Reads what has come back for topics of before. One of them that takes
    /// nothing does not keep the topic of now waiting.
    fn step_retired(&mut self) -> Step {
        let mut result = Step::Idle;
        for generation in &mut self.retired {
            match generation.step(true, &self.context.queue) {
                Ok(Step::Idle) => {}
                Ok(Step::Full) => result = Step::Full,
                Ok(Step::Truncated) | Err(_) => generation.give_up(),
                Ok(step) => return step,
            }
        }
        result
    }

    /// True when nothing will come any more.
    fn is_finished(&self) -> bool {
        let once = self.context.options.once;
        let over = |generation: &Generation| {
            generation.last_look().ended || (once && !generation.is_stdin())
        };
        let any = once || !self.generations.is_empty();
        any && self.missing.is_empty()
            && self.generations.iter().all(over)
            && self.generations.iter().all(Generation::is_settled)
            && self.retired.iter().all(Generation::is_retired)
            && self.closing.iter().all(|ledger| ledger.is_settled(0))
    }

    fn close_all(&mut self) {
        for generation in self.generations.drain(..).chain(self.retired.drain(..)) {
            let durable = generation.ledger().durable_entry().is_some();
            let keep = if durable {
                Keep::Position
            } else {
                Keep::Nothing
            };
            self.context.ledger.close(generation.ledger(), keep);
        }
        for ledger in self.closing.drain(..) {
            self.context.ledger.close(&ledger, Keep::Nothing);
        }
    }

    // ---- files come and go -------------------------------------------------

    /// Looks whether another file stands at the path. Some when that is a
    /// reason to end.
    fn look_around(&mut self) -> Option<End> {
        let once = self.context.options.once;
        let due = self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if !due || self.is_stdin() || (once && self.looked.is_some()) {
            return None;
        }
        let first = self.looked.replace(Instant::now()).is_none();
        self.show_deleted();
        let now = SystemTime::now();
        let looked = self.look_at_path(first);
        self.seen = Some(now);
        let problem = looked.err()?;
        let gone = self.generations.is_empty() && self.missing.is_empty();
        if once {
            self.tell(&problem);
            return gone.then_some(End::Unreadable);
        }
        if gone && !self.target.named && problem.starts_with(MISSING) {
            return Some(End::Finished);
        }
        if gone || !problem.starts_with(MISSING) {
            self.tell(&problem);
        }
        None
    }

    fn show_deleted(&self) {
        let deleted = self
            .generations
            .iter()
            .filter(|file| file.last_look().links == 0);
        let waiting = deleted.map(|file| {
            let ledger = file.ledger();
            ledger.size().saturating_sub(ledger.position())
        });
        self.claim.tailed().holds_deleted_bytes(waiting.sum());
    }

    fn is_stdin(&self) -> bool {
        self.generations.back().is_some_and(Generation::is_stdin)
    }

    fn look_at_path(&mut self, first: bool) -> Result<(), String> {
        let path = self.target.path.clone();
        let meta = fs::metadata(&path);
        let mut slept_here = false;
        if let Some(was) = self.was.take() {
            let there =
                |meta: &Metadata| (meta.dev(), meta.ino()) == (was.origin.device, was.origin.inode);
            slept_here = meta.as_ref().is_ok_and(there);
            if !slept_here {
                self.recover_one(&was, true)?;
            }
        }
        let meta = meta.map_err(explain)?;
        let known = self
            .generations
            .iter()
            .any(|g| g.has(meta.dev(), meta.ino()));
        if known {
            return Ok(());
        }
        check_kind(&meta)?;
        if self.generations.len() >= self.context.options.open_generations_max {
            return Err(format!(
                "{} rotated files are still open: waiting before the next one is opened",
                self.generations.len()
            ));
        }
        let (input, meta) = open(&path, &self.target.job).map_err(explain)?;
        let Some(claim) = self.claim(&meta, &path) else {
            return Ok(());
        };
        self.recover_renamed(&meta);
        if !slept_here {
            self.recover_unseen(); // what looks like it may be a copy else
        }
        let from = if first {
            self.target.read_from
        } else {
            ReadFrom::Beginning
        };
        let generation = self.begin(input, claim, &meta, from).map_err(explain)?;
        self.generations.push_back(generation);
        self.claim.tailed().tell(None);
        Ok(())
    }

    /// Claims an inode; `None` when another tailer has it.
    fn claim(&mut self, meta: &Metadata, path: &Path) -> Option<Arc<InodeClaim>> {
        let key = (meta.dev(), meta.ino(), Arc::clone(&self.target.job.topic));
        match self.context.registry.claim_inode(key, path) {
            Ok(claim) => Some(Arc::new(claim)),
            Err(holder) => {
                // A renamed file that its first tailer still holds is no news.
                let twice = fs::metadata(&holder)
                    .is_ok_and(|held| (held.dev(), held.ino()) == (meta.dev(), meta.ino()));
                if twice && holder != path {
                    self.warn(&format!(
                        "is the same file as {}, and is tailed once",
                        shown(&holder)
                    ));
                }
                None
            }
        }
    }

    /// Opens the account of a file, at its saved position if it has one.
    fn begin(
        &mut self,
        input: Input,
        claim: Arc<InodeClaim>,
        meta: &Metadata,
        from: ReadFrom,
    ) -> io::Result<Generation> {
        let (ledger, topic) = (&self.context.ledger, &self.target.job.topic);
        let known = ledger.recall(meta.dev(), meta.ino(), topic, &self.target.path);
        let slept = matches!(known, Some(Known::Open(_)));
        let account = match known {
            Some(known) => self.resume(known, &input, meta)?,
            None => {
                let start = match from {
                    ReadFrom::Beginning => 0,
                    ReadFrom::End => cut::last_line_start(&input, meta.len())?,
                };
                self.opened(self.fresh_account(&input, meta, 0, start)?)
            }
        };
        log::debug!(
            "opened path={} inode={} position={} size={}",
            shown(&self.target.path),
            meta.ino(),
            account.position(),
            meta.len()
        );
        let once = self.context.options.once;
        let job = Arc::clone(&self.target.job);
        let mut generation = Generation::new(input, Some(claim), &account, job, once)?;
        if slept && account.read_to() == 0 {
            generation.skip_nuls(); // it was truncated behind our back
        }
        Ok(generation)
    }

    /// Goes on with a file that is known, unless it is another one by now.
    fn resume(
        &mut self,
        known: Known,
        input: &Input,
        meta: &Metadata,
    ) -> io::Result<Arc<FileLedger>> {
        let entry = known.entry();
        let same = identity::recognise(input, meta.len(), &entry)? == Recognition::Same;
        match known {
            Known::Open(account) if same => {
                self.settling |= !account.is_quiet();
                Ok(account)
            }
            Known::Saved(entry) if same => {
                let origin = self.origin(meta.dev(), meta.ino(), entry.origin.generation);
                let flow = Arc::clone(&self.flow);
                Ok(self.opened(FileLedger::resumed(&entry, origin, flow)))
            }
            known => {
                log::info!(
                    "truncated, rewritten or replaced, reading from its start path={} inode={}",
                    shown(&self.target.path),
                    meta.ino()
                );
                self.remember_truncated(entry.clone());
                self.context.ledger.lose_known(&known);
                let life = entry.origin.generation + 1;
                Ok(self.opened(self.fresh_account(input, meta, life, 0)?))
            }
        }
    }

    fn opened(&self, account: FileLedger) -> Arc<FileLedger> {
        let account = Arc::new(account);
        self.context.ledger.open(Arc::clone(&account));
        account
    }

    fn fresh_account(
        &self,
        input: &Input,
        meta: &Metadata,
        generation: u64,
        start: u64,
    ) -> io::Result<FileLedger> {
        let head = identity::head(input, meta.len())?;
        let window = identity::window(input, start)?;
        let origin = self.origin(meta.dev(), meta.ino(), generation);
        Ok(FileLedger::new(
            origin,
            Arc::clone(&self.flow),
            start,
            head,
            window,
        ))
    }

    fn origin(&self, device: u64, inode: u64, generation: u64) -> Origin {
        let path = &self.target.path;
        Origin {
            real: path
                .is_symlink()
                .then(|| fs::canonicalize(path).ok())
                .flatten(),
            path: path.clone(),
            topic: Arc::clone(&self.target.job.topic),
            device,
            inode,
            generation,
        }
    }

    /// Files that stood at this path when it was last looked at, in an earlier
    /// run or under a name since forgotten, and were renamed with unread lines:
    /// if they are still in the same directory, their rest comes first.
    fn recover_renamed(&mut self, now_there: &Metadata) {
        let (ledger, topic) = (&self.context.ledger, &self.target.job.topic);
        let mut entries = ledger.known_at(&self.target.path, topic);
        entries.retain(|entry| {
            let origin = &entry.origin;
            (origin.device, origin.inode) != (now_there.dev(), now_there.ino())
        });
        entries.sort_by_key(|entry| entry.seen);
        for entry in entries {
            if let Err(problem) = self.recover_one(&entry, false) {
                self.tell(&problem);
            }
        }
    }

    /// Files that had the path between two looks, and were rotated away before the
    /// second: they come before the one that is there now.
    fn recover_unseen(&mut self) {
        let Some(since) = self.seen else { return };
        // Names may move on while they are read: until there is nothing new.
        for _ in 0..UNSEEN_ROUNDS_MAX {
            if !self.take_all_unseen(since) {
                return;
            }
        }
    }

    /// True when there was something.
    fn take_all_unseen(&mut self, since: SystemTime) -> bool {
        let mut any = false;
        for (path, meta) in rotated::created_since(&self.target.path, since) {
            let topic = &self.target.job.topic;
            let key = (meta.dev(), meta.ino(), Arc::clone(topic));
            let ledger = &self.context.ledger;
            let known = ledger.recall(meta.dev(), meta.ino(), topic, &self.target.path);
            if known.is_some() || self.context.registry.holder(&key).is_some() {
                continue;
            }
            match self.take_unseen(&path) {
                Ok(taken) => any |= taken,
                Err(problem) => {
                    any = true;
                    self.tell(&problem);
                }
            }
        }
        any
    }

    /// False for one that is no file of its own.
    fn take_unseen(&mut self, path: &Path) -> Result<bool, String> {
        let (input, meta) = open(path, &self.target.job).map_err(explain)?;
        // What copytruncate left looks just like it, also of a file whose truncation
        // was not noticed yet.
        let is_copy = |life: &Entry| {
            life.head.len > 0
                && identity::recognise(&input, meta.len(), life)
                    .is_ok_and(|same| same == Recognition::Same)
        };
        let open = self.generations.iter().map(|file| file.ledger().entry());
        if self.truncated.iter().any(is_copy) || open.into_iter().any(|life| is_copy(&life)) {
            return Ok(false);
        }
        let Some(claim) = self.claim(&meta, path) else {
            return Ok(true);
        };
        log::info!(
            "found a file that was rotated between two looks path={} now={}",
            shown(&self.target.path),
            shown(path)
        );
        let generation = self
            .begin(input, claim, &meta, ReadFrom::Beginning)
            .map_err(explain)?;
        self.generations.push_back(generation);
        Ok(true)
    }

    /// Finds a renamed file again. One that has nothing left is left alone unless
    /// it was `just_here`: its writer may not have noticed the rename yet.
    fn recover_one(&mut self, entry: &Entry, just_here: bool) -> Result<(), String> {
        let origin = &entry.origin;
        let found = rotated::find(&origin.path, origin.device, origin.inode);
        let real = || rotated::find(origin.real.as_deref()?, origin.device, origin.inode);
        let Some((path, meta)) = found.or_else(real) else {
            let known = |(_, missing): &(Instant, Entry)| missing.origin == *origin;
            if !self.missing.iter().any(known) {
                self.missing.push((Instant::now(), entry.clone()));
            }
            return Ok(());
        };
        let (input, _) = open(&path, &self.target.job).map_err(explain)?;
        let same = identity::recognise(&input, meta.len(), entry).map_err(explain)?;
        if same == Recognition::Same && meta.len() <= entry.position && !just_here {
            self.context.ledger.complete(entry);
            return Ok(()); // nothing left in it
        }
        let Some(claim) = self.claim(&meta, &self.target.path.clone()) else {
            return Ok(());
        };
        log::info!(
            "found the rest of a renamed file path={} now={}",
            shown(&self.target.path),
            shown(&path)
        );
        let generation = self
            .begin(input, claim, &meta, ReadFrom::Beginning)
            .map_err(explain)?;
        self.generations.push_back(generation);
        Ok(())
    }

    /// Gives up remembered files that nobody has found for a while.
    fn declare_gone(&mut self) {
        let context = &self.context;
        self.missing.retain(|(since, entry)| {
            if since.elapsed() < GONE_AFTER {
                return true;
            }
            log::info!(
                "a file is gone, and what was written to it after it was last looked at is not known path={} inode={} size={}",
                shown(&entry.origin.path),
                entry.origin.inode,
                entry.size
            );
            context.ledger.give_up(entry);
            false
        });
    }

    /// Goes on with a truncated file as a new one.
    fn begin_next_life(&mut self, at: usize) {
        let Some(generation) = self.generations.remove(at) else {
            return;
        };
        let old = generation.ledger().attend();
        self.remember_truncated(old.entry());
        let origin = old.origin();
        log::info!(
            "truncated or rewritten, reading from its start path={} inode={}",
            shown(&origin.path),
            origin.inode
        );
        let next = Origin {
            generation: origin.generation + 1,
            ..origin.clone()
        };
        let begun = generation.fresh_head().and_then(|head| {
            let flow = Arc::clone(&self.flow);
            let account = Arc::new(FileLedger::new(next, flow, 0, head, Mark::default()));
            let begun = generation.next_life(&account)?;
            self.context.ledger.open(account);
            Ok(begun)
        });
        match begun {
            Ok((generation, old)) => {
                self.generations.insert(at, generation);
                self.closing.push(old);
            }
            // Without its handle the file is found again through its path.
            Err(error) => {
                self.tell(&format!("cannot read: {error}"));
                self.closing.push(old);
            }
        }
    }

    fn remember_truncated(&mut self, life: Entry) {
        if self.truncated.len() >= TRUNCATED_MAX {
            self.truncated.pop_front();
        }
        self.truncated.push_back(life);
    }

    /// Lets go of files that are over: renamed or deleted, read to the end,
    /// settled, and quiet for a while.
    fn let_go(&mut self) {
        let newest = self.generations.len().saturating_sub(1);
        let mut at = 0;
        let context = &self.context;
        self.generations.retain(|generation| {
            let deleted = generation.last_look().links == 0;
            let over = at < newest || deleted;
            at += 1;
            if context.options.once || !over || !generation.is_settled() {
                return true;
            }
            let keep = !context.has_waited(generation);
            if !keep {
                log::debug!(
                    "let go path={} inode={} deleted={deleted}",
                    shown(&generation.ledger().origin().path),
                    generation.ledger().origin().inode
                );
                let keep = if deleted {
                    Keep::Nothing
                } else {
                    Keep::Complete
                };
                context.ledger.close(generation.ledger(), keep);
            }
            keep
        });
        self.retired.retain(|generation| {
            let settled = generation.is_retired();
            if settled {
                context.ledger.close(generation.ledger(), Keep::Nothing);
            }
            !settled
        });
        self.closing.retain(|ledger| {
            let settled = ledger.is_settled(0);
            if settled {
                context.ledger.close(ledger, Keep::Nothing);
            }
            !settled
        });
    }

    // ---- messages ----------------------------------------------------------

    /// Says a problem with the path once, until it changes.
    fn tell(&mut self, problem: &str) {
        if self.claim.tailed().tell(Some(problem)) {
            let next = if self.context.options.once {
                "not shipped"
            } else {
                "trying again"
            };
            log::warn!(
                "cannot tail {}: {problem} ({next})",
                shown(&self.target.path)
            );
        }
    }

    fn warn(&mut self, problem: &str) {
        if self.claim.tailed().tell(Some(problem)) {
            log::warn!("{} {problem}", shown(&self.target.path));
        }
    }
}

impl Context {
    /// True when a file that is over has been quiet for long enough.
    fn has_waited(&self, generation: &Generation) -> bool {
        generation
            .at_end_since()
            .is_some_and(|since| since.elapsed() >= self.options.rotated_grace)
    }
}

/// How the message about a missing file begins.
const MISSING: &str = "it does not exist";

#[allow(clippy::needless_pass_by_value)] // it is what `map_err` wants
fn explain(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => MISSING.to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied: grant logship's user read access".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Says why what stands at a path cannot be tailed, if it never can be: a
/// directory, a device. A path that is missing or not readable may change.
///
/// # Errors
/// What it is, and what to do instead.
pub fn check_path(path: &Path) -> Result<(), String> {
    fs::metadata(path).map_or(Ok(()), |meta| check_kind(&meta))
}

fn check_kind(meta: &Metadata) -> Result<(), String> {
    let kind = meta.file_type();
    if kind.is_file() {
        Ok(())
    } else if kind.is_dir() {
        Err("it is a directory; name the files in it, for example with '/*.log' added".to_owned())
    } else if kind.is_fifo() {
        Err("it is a FIFO; read it into a pipe: logship tail - < FIFO".to_owned())
    } else {
        Err("it is not a regular file".to_owned())
    }
}

/// Opens a regular file and asks what it really is.
fn open(path: &Path, job: &Job) -> io::Result<(Input, Metadata)> {
    let file: File = fs::OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let permitted = |fence: &Arc<Fence>| fence.permits_open(&file);
    if !job.fence.as_ref().is_none_or(permitted) {
        return Err(io::Error::other("it is outside of what etcd may name"));
    }
    Ok((Input::File(Arc::new(file)), meta))
}
