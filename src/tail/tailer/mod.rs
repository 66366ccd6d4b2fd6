//! The thread that follows one path, whatever file stands there.
//!
//! It keeps the files that had the path open until their lines are settled,
//! reads them in their order, and finds a new one as soon as it is there. It
//! does not cut lines and does not look for other paths.

mod files;
mod obstacle;
mod recover;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Receiver;

use crate::ledger::{Attendance, Entry, FileLedger, Flow, Keep, LossReason, Mark, Origin};
use crate::queue::Queue;
use crate::text::{as_value, shown};
use crate::thread::{Stop, fault_point};

use super::generation::{Generation, Step};
use super::handles::DeletedBytes;
use super::input::{Input, Look, Retained};
use super::registry::{PathClaim, State};
use super::rotated::Former;
use super::sleeper::{Sleeper, Stat};
use super::{Context, Job, Options, Target};

use obstacle::Obstacle;
pub use obstacle::{check_file, check_path, is_reachable, stands_at};

/// First and longest pause while the queue is full.
const FULL_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// So many tailers that are awake are a crowd: each takes a thread's memory.
const CROWD: usize = 128;
/// How long a file in a crowd must be quiet before it sleeps.
const IDLE_AFTER_IN_CROWD: Duration = Duration::from_millis(300);
/// How long a file is read at least while others wait for its handle.
const TURN: Duration = Duration::from_secs(1);
/// How long a file that is drained must be quiet before that is its end: its
/// writer may be in the middle of its last words.
const DRAINED_AFTER: Duration = Duration::from_millis(200);

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
    /// There is more to read, but others wait for the handle.
    GaveWay(Box<Sleeper>),
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
    /// When somebody last saw what stands at the path, in this run or an earlier one.
    seen: Option<SystemTime>,
    /// The same at the look before that.
    seen_before: Option<SystemTime>,
    /// Device and inode of what stood there.
    stood: Option<(u64, u64)>,
    /// It was not what stood there before.
    moved: bool,
    /// A read failed.
    unreadable: bool,
    /// Remembered files of this path that were not found, and since when.
    /// Another tailer may still turn out to have them.
    missing: Vec<(Instant, Entry)>,
    /// Files that were renamed, read to their end and let go, the newest last.
    /// `None` until those of an earlier run were looked up.
    former: Option<Vec<Former>>,
    /// The last lives that ended with a truncation: copies of them may be about.
    truncated: VecDeque<Entry>,
    /// The file that stood here when the path fell asleep.
    was: Option<Entry>,
    /// Another file stands at the path than the last one that is open.
    replaced: bool,
    /// There is a file to be opened, and no handle for it.
    crowded_out: bool,
    /// Since when it has had its turn.
    turn: Instant,
    deleted_bytes: DeletedBytes,
    drain_until: Option<Instant>,
    /// What is on its way was offered to another queue, or by another tailer.
    settling: bool,
    shown: State,
    claim: Arc<PathClaim>,
}

impl Tailer {
    /// A tailer for a path that it has to itself.
    pub fn new(context: Context, target: Target, claim: Arc<PathClaim>) -> Tailer {
        let (ledger, topic) = (&context.ledger, &target.job.topic);
        let flow = ledger.flow(&context.host, &target.path, topic);
        let seen = target.missing_at;
        Tailer {
            seen: seen.or_else(|| files::seen_before_this_run(ledger, &target)),
            flow,
            deleted_bytes: context.handles.no_deleted_bytes(),
            context,
            target,
            generations: VecDeque::new(),
            retired: Vec::new(),
            closing: Vec::new(),
            looked: None,
            seen_before: None,
            stood: None,
            moved: false,
            unreadable: false,
            missing: Vec::new(),
            former: None,
            truncated: VecDeque::new(),
            was: None,
            replaced: false,
            crowded_out: false,
            turn: Instant::now(),
            drain_until: None,
            settling: false,
            shown: State::Reading,
            claim,
        }
    }

    /// A tailer that goes on where another one fell asleep.
    pub fn awake(context: Context, sleeper: Sleeper) -> Tailer {
        let woken = sleeper.wake();
        let mut tailer = Tailer::new(context, woken.target, woken.claim);
        (tailer.was, tailer.seen) = (woken.was, Some(woken.seen));
        tailer.former = Some(woken.former);
        tailer
    }

    /// It waits for its turn to begin.
    pub fn queue(&mut self) {
        self.claim.tailed().show(State::Queued);
        self.note_first_file();
    }

    /// The path, and what is done with its lines.
    pub fn target(&self) -> &Target {
        &self.target
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
        let origin = tailer.origin((0, 0, None), 0);
        let (flow, none) = (Arc::clone(&tailer.flow), Mark::default());
        let account = FileLedger::new(origin, flow, 0, none, none);
        account.supersede(); // a pipe has no position to come back to
        let account = tailer.context.ledger.open(account);
        let input = Input::Stdin(retained);
        let job = Arc::clone(&tailer.target.job);
        let generation = Generation::new(input, None, account, job, false)?;
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
        self.turn = Instant::now();
        while !stop.requested() && !self.is_drained() {
            fault_point("tail");
            while let Ok(order) = orders.try_recv() {
                self.obey(order);
            }
            if let Some(end) = self.look_around() {
                return end;
            }
            self.declare_gone();
            if let Some(stat) = self.may_give_way() {
                return End::GaveWay(Box::new(self.sleep(stat)));
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
            (true, _) if self.crowded_out => State::Queued,
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
            let next = self.successor(&generation);
            self.generations.extend(next);
            let mut old = generation;
            old.retire();
            self.retired.push(old);
        }
    }

    /// The same file for the topic of now.
    /// `None` when another tailer ships it to that.
    fn successor(&mut self, old: &Generation) -> Option<Generation> {
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
                Err(_) => return None,
            },
        };
        // Where it is stays as it is known: a link may lead elsewhere by now.
        let topic = Arc::clone(&self.target.job.topic);
        let origin = Origin {
            topic,
            ..origin.clone()
        };
        let flow = Arc::clone(&self.flow);
        let job = Arc::clone(&self.target.job);
        let ledger = &self.context.ledger;
        let account = ledger.open_after(old.ledger(), origin, flow, old.window());
        Some(Generation::following(old, Some(claim), account, job))
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
        let crowd = self.context.awake.load(Ordering::Relaxed) > CROWD;
        let idle_after = match self.context.options.idle_after {
            long if crowd || self.context.handles.is_asked() => long.min(IDLE_AFTER_IN_CROWD),
            idle_after => idle_after,
        };
        let quiet = |file: &Generation| file.is_quiet_for(idle_after);
        if !self.may_sleep() || !self.generations.iter().all(quiet) {
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
                (self.target.named || self.has_former()).then_some(None)
            }
            _ => None,
        }
    }

    /// Some when others wait for a handle and this one has had its turn: what stands
    /// at the path. Only a file that is found there again gives its handle away.
    fn may_give_way(&self) -> Option<Option<Stat>> {
        let handles = &self.context.handles;
        if !handles.is_asked() || self.turn.elapsed() < TURN || !self.may_sleep() {
            return None;
        }
        let file = self.generations.back()?;
        let meta = fs::metadata(&self.target.path).ok()?;
        let here = file.has(meta.dev(), meta.ino());
        (here && handles.gives_way()).then(|| Some(Stat::of(&meta)))
    }

    /// True when one file at most is all there is to remember.
    fn may_sleep(&self) -> bool {
        !(self.context.options.once || self.is_stdin() || self.settling)
            && self.drain_until.is_none()
            && self.was.is_none()
            && self.generations.len() <= 1
            && self.retired.is_empty()
            && self.closing.is_empty()
            && self.missing.is_empty()
    }

    fn sleep(mut self, stat: Option<Stat>) -> Sleeper {
        let file = self.generations.pop_back().map(Generation::close);
        log::debug!("asleep path={}", as_value(&self.target.path));
        let seen = match (stat, self.seen) {
            (None, Some(seen)) => seen,
            _ => SystemTime::now(),
        };
        let former = self.former.unwrap_or_default();
        Sleeper::new(self.target, (stat, seen), file, former, self.claim)
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
        let live = self.live();
        for at in 0..self.generations.len() {
            let generation = &mut self.generations[at];
            // The last line of a file that is over counts without a line end,
            // once its writer has had the time to finish it.
            let over = at < live || generation.last_look().links == 0;
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
                    self.tell_unreadable(&error);
                }
            }
        }
        retired
    }

    /// The index of the file that stands at the path; those before it are over.
    fn live(&self) -> usize {
        let files = self.generations.len();
        files.saturating_sub(usize::from(!self.replaced))
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
                Ok(Step::Truncated) | Err(_) => generation.give_up(LossReason::Truncated),
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
        any && !self.crowded_out
            && self.missing.is_empty()
            && self.generations.iter().all(over)
            && self.generations.iter().all(Generation::is_settled)
            && self.retired.iter().all(Generation::is_retired)
            && self.closing.iter().all(|ledger| ledger.is_settled(0))
    }

    fn close_all(&mut self) {
        for generation in self.generations.drain(..).chain(self.retired.drain(..)) {
            let durable = generation.ledger().is_durable();
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

    // ---- messages ----------------------------------------------------------

    /// Says a problem with the path once, until it changes.
    fn tell(&mut self, obstacle: &Obstacle) {
        let problem = obstacle.to_string();
        if self.claim.tailed().tell(Some(&problem)) {
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

    fn tell_unreadable(&mut self, error: &io::Error) {
        self.tell(&Obstacle::Other(format!("cannot read: {error}")));
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

#[cfg(test)]
mod tests {
    use super::*;

    use crate::record::Shape;
    use crate::tail::{Pattern, ReadFrom, Source, WhenFull};

    fn job(topic: &str) -> Arc<Job> {
        Arc::new(Job {
            topic: topic.into(),
            read_from: ReadFrom::Beginning,
            when_full: WhenFull::Wait,
            shape: Arc::new(Shape::default()),
            fence: None,
        })
    }

    /// Topics were changed twice, and the tailer has heard of the first change only: it read
    /// the file from its beginning, for a topic that nobody wants it for.
    #[test]
    fn a_file_is_not_opened_for_a_topic_that_is_not_wanted_any_more() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.log");
        fs::write(&path, "one\n").unwrap();
        let context = Context::of_nothing();
        let want = |topic: &str| {
            let pattern = Pattern::new("*.log", temp.path()).unwrap();
            let source = Source::new(pattern, job(topic));
            context.wanted.change(vec![Arc::new(source)]);
        };
        want("two");
        let target = Target {
            path: path.clone(),
            job: job("one"),
            read_from: ReadFrom::Beginning,
            missing_at: None,
            named: false,
        };
        let registry = &context.registry;
        let claim = registry.claim_path(&path, &target.job.topic).unwrap();
        let mut tailer = Tailer::new(context.clone(), target, Arc::new(claim));
        assert!(tailer.look_around().is_none());
        assert_eq!(tailer.generations.len(), 0);
        want("one");
        thread::sleep(2 * files::LOOK_EVERY);
        assert!(tailer.look_around().is_none());
        assert_eq!(tailer.generations.len(), 1);
    }
}
