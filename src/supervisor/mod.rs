//! Starts everything, keeps watch, and stops it: from sink to source, and back.
//!
//! It introduces tailers, producers, discovery, checkpoint and config to each
//! other and is the only one to know them all. It reads no file and sends no line.

mod backoff;
mod board;
mod pool;
mod service;
mod summary;
mod tailers;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select, tick, unbounded};

use crate::admin::{self, AdminError};
use crate::checkpoint::{self, Checkpoint, StateDir, StateError};
use crate::config::{Follower, Plan, Renewal, Update};
use crate::exit::Exit;
use crate::ledger::{Figures, Ledger};
use crate::send::{DeadLetters, StdoutEnd};
use crate::tail::{
    Context, Discovery, End, Found, Handles, Listings, News, ReadFrom, Registry, Request, Sleeper,
    Source, Wanted, check_path,
};
use crate::text::{as_value, shown};
use crate::thread::{Stop, Task};

use board::Board;
use pool::{Pool, Retiring, Shared};
use service::Service;
use tailers::Tailers;

pub use summary::Summary;

/// How often progress is shown and finished threads are collected.
const TICK: Duration = Duration::from_millis(100);
/// How often accounts that nobody looks after are closed.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often files are looked for that are not at their path any more and have something
/// unread: one may be on a volume that was not mounted, or of a source that is new.
const LEFT_EVERY: Duration = Duration::from_secs(10);
/// How long threads get that only have to notice a stop.
const JOIN_PATIENCE: Duration = Duration::from_secs(1);
/// How long producers may go on with what they have when others send elsewhere.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// Pools that were replaced and wait for the brokers; the oldest of more has that long.
const RETIRING_MAX: usize = 4;
/// The thread that looks for files.
const DISCOVER: &str = "discover";
/// Standard input's name in messages and flows.
const STDIN_PATH: &str = "-";

/// A signal from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop cleanly; the second time, at once.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Why nothing was started.
#[derive(Debug)]
pub enum StartError {
    /// The state directory.
    State(StateError),
    /// The producers: standard output, or the operating system has no thread left.
    Producers(io::Error),
    /// Status and metrics.
    Admin(AdminError),
}

/// What the threads tell the supervisor.
#[derive(Debug)]
enum Event {
    /// The tailer with this number.
    TailerEnded(u64, End),
    /// Standard output is done with, and why.
    StdoutEnded(StdoutEnd),
    /// A thread ended without a word: it panicked, or could not be started.
    Died(Who),
    /// The operating system has no thread left for a tailer.
    NoThread(io::Error),
}

/// A thread that can be started again.
#[derive(Debug, Clone, Copy)]
enum Who {
    /// By number.
    Tailer(u64),
    /// The pool's number, and the producer's in it.
    Sender(u64, usize),
    /// By name.
    Service(&'static str),
}

/// Why the watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Nothing is left to do.
    Finished,
    /// A signal.
    Signal,
    /// `--timeout`.
    TimedOut,
    /// The reader of standard output hung up.
    ReaderGone,
    /// Something cannot go on.
    Failed,
}

/// Whoever wants to see the figures about ten times a second.
pub type Watch<'a> = Option<&'a mut dyn FnMut(&Figures)>;

struct Supervisor {
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    registry: Registry,
    listings: Listings,
    /// The state directory was used before.
    continued: bool,
    /// Something it remembered is lost: a file it does not know may be one it knew.
    damaged: bool,
    pool: Option<Pool>,
    pools_made: u64,
    shared: Shared,
    retiring: Vec<Retiring>,
    tailers: Tailers,
    services: Vec<Service>,
    /// Stopped last of all.
    checkpoint: Option<Service>,
    requests: (Sender<Request>, Receiver<Request>),
    news: (Sender<News>, Receiver<News>),
    updates: (Sender<Update>, Receiver<Update>),
    /// Asks for a reload; `None` when there is nothing to reload.
    reload: Option<Sender<()>>,
    /// A config is followed, in which sources come and go.
    follows: bool,
    events: (Sender<Event>, Receiver<Event>),
    board: Arc<Board>,
    /// Whether a source was known before this run, for those that begin at the end.
    known_sources: BTreeMap<(String, Arc<str>), bool>,
    /// Paths that sleep.
    asleep: usize,
    /// A PATH could not be read with `--once`, or standard input at all.
    unreadable: bool,
    /// A PATH is something that can never be tailed.
    refused: bool,
    /// It was told that there are more files than threads.
    out_of_threads: bool,
    /// When it was last looked for files that are left behind with something unread.
    left_looked: Instant,
    /// When, and after which changes, accounts were last closed.
    swept: (Instant, u64),
    started: Instant,
}

/// Where changes of a plan come from.
#[derive(Debug)]
pub enum Changes {
    /// Nowhere.
    Never,
    /// A config file and etcd.
    Config(Box<Follower>),
    /// The files that arguments have named.
    Files(Box<Renewal>),
}

/// Runs a plan until it is finished or stopped, and says what to exit with.
///
/// # Errors
/// When nothing could be started; then nothing was changed.
pub fn run(
    plan: Plan,
    changes: Changes,
    signals: &Receiver<Signal>,
    mut watch: Watch,
) -> Result<Exit, StartError> {
    let state_dir = match &plan.state_dir {
        Some(path) => Some(Arc::new(StateDir::open(path).map_err(StartError::State)?)),
        None => None,
    };
    let mut supervisor = Supervisor::new(plan, state_dir.as_ref())?;
    supervisor.start_services(state_dir, changes)?;
    let cause = supervisor.work(signals, &mut watch);
    let checkpoint = supervisor.checkpoint.take();
    let exit = supervisor.stop(cause, signals, &mut watch);
    if let Some(checkpoint) = checkpoint {
        checkpoint.finish(); // it is written last of all
    }
    Ok(exit)
}

/// Tells of a thread's death unless it is withdrawn, which a panic never does.
struct Obituary {
    who: Option<Who>,
    events: Sender<Event>,
}

impl Obituary {
    fn new(who: Who, events: Sender<Event>) -> Obituary {
        Obituary {
            who: Some(who),
            events,
        }
    }

    fn withdraw(mut self) {
        self.who = None;
    }
}

impl Drop for Obituary {
    fn drop(&mut self) {
        if let Some(who) = self.who.take() {
            let _ = self.events.send(Event::Died(who));
        }
    }
}

impl Supervisor {
    // ---- starting --------------------------------------------------------------

    fn new(plan: Plan, state_dir: Option<&Arc<StateDir>>) -> Result<Supervisor, StartError> {
        let memory = state_dir
            .map(|dir| Checkpoint::in_directory(dir, &plan.pool.send.host).load())
            .unwrap_or_default();
        let ledger = Arc::new(Ledger::remembering(memory.entries));
        let registry = Registry::default();
        let events = unbounded();
        let bytes_max = plan.dead_letters_bytes_max;
        let dead_letters =
            state_dir.map(|dir| Arc::new(DeadLetters::in_directory(dir.path(), bytes_max)));
        let progress = state_dir.map(|_| Arc::default());
        let shared = Shared {
            notices: Arc::default(),
            dead_letters: dead_letters.clone(),
            events: events.0.clone(),
        };
        let plan = Arc::new(plan);
        let topics = plan.topics().into_iter().collect();
        let pool = Pool::start(0, plan.pool.clone(), topics, shared.clone(), Arc::default());
        let pool = pool.map_err(StartError::Producers)?;
        let handles = Handles::new(plan.tail.open_files_max);
        let listings = Listings::default();
        let context = Context {
            options: Arc::new(plan.tail.clone()),
            queue: pool.queue().clone(),
            ledger: Arc::clone(&ledger),
            registry: registry.clone(),
            wanted: Wanted::default(),
            awake: Arc::default(),
            handles: handles.clone(),
            listings: listings.clone(),
            host: Arc::clone(&plan.pool.send.host),
        };
        let supervisor = Supervisor {
            board: Arc::new(Board::new(
                registry.clone(),
                Arc::clone(&ledger),
                progress,
                dead_letters,
                handles,
            )),
            tailers: Tailers::new(context, events.0.clone()),
            plan,
            ledger,
            registry,
            listings,
            continued: memory.continued,
            damaged: memory.damaged,
            pool: Some(pool),
            pools_made: 1,
            shared,
            retiring: Vec::new(),
            services: Vec::new(),
            checkpoint: None,
            requests: unbounded(),
            news: bounded(1_024),
            updates: unbounded(),
            reload: None,
            follows: false,
            events,
            known_sources: BTreeMap::new(),
            asleep: 0,
            unreadable: false,
            refused: false,
            out_of_threads: false,
            left_looked: Instant::now(),
            swept: (Instant::now(), 0),
            started: Instant::now(),
        };
        supervisor.show_plan();
        Ok(supervisor)
    }

    /// Starts the threads of which there is one each.
    fn start_services(
        &mut self,
        state_dir: Option<Arc<StateDir>>,
        changes: Changes,
    ) -> Result<(), StartError> {
        match changes {
            Changes::Never => {}
            Changes::Config(follower) => {
                self.follows = true;
                self.board.facts().config = follower.standing(); // before anybody asks
                self.start_admin()?;
                self.start_config(*follower, Follower::run);
            }
            Changes::Files(renewal) => self.start_config(*renewal, Renewal::run),
        }
        let progress = self.board.checkpoint.clone().unwrap_or_default();
        self.checkpoint = state_dir.map(|dir| {
            let ledger = Arc::clone(&self.ledger);
            let host = Arc::clone(&self.plan.pool.send.host);
            Service::start("checkpoint", &self.events.0, move || {
                let (dir, ledger, progress) =
                    (Arc::clone(&dir), Arc::clone(&ledger), Arc::clone(&progress));
                let host = Arc::clone(&host);
                Ok(Box::new(move |stop| {
                    checkpoint::run(&dir, &host, &ledger, &progress, stop);
                }))
            })
        });
        Ok(())
    }

    /// Serves status and metrics. Bound here the first time, so that an address
    /// that cannot be used is told before anything else.
    fn start_admin(&mut self) -> Result<(), StartError> {
        let state_dir = self.plan.state_dir.as_ref();
        let options = admin::Options {
            socket: state_dir.map(|dir| dir.join(admin::SOCKET)),
            listen: self.plan.admin_listen,
        };
        if options.socket.is_none() && options.listen.is_none() {
            return Ok(());
        }
        let mut first = Some(match admin::bind(&options) {
            Ok(server) => server,
            // It is not worth staying away for: the address is, somebody asked for it.
            Err(error @ AdminError::Socket { .. }) if self.plan.admin_listen.is_none() => {
                log::warn!("logship status will not find this logship: {error}");
                return Ok(());
            }
            Err(error) => return Err(StartError::Admin(error)),
        });
        let board = Arc::clone(&self.board);
        let service = Service::start("admin", &self.events.0, move || {
            let server = match first.take() {
                Some(server) => server,
                None => admin::bind(&options).map_err(io::Error::other)?,
            };
            let board = Arc::clone(&board);
            Ok(Box::new(move |stop| server.run(&|| board.report(), stop)))
        });
        self.services.push(service);
        Ok(())
    }

    /// Starts whoever makes new plans.
    fn start_config<T: Send + 'static>(
        &mut self,
        planner: T,
        run: fn(&mut T, &Sender<Update>, &Receiver<()>, &Stop),
    ) {
        let (reload, reloads) = bounded(1);
        self.reload = Some(reload);
        let updates = self.updates.0.clone();
        // What it knows outlives a panic, so that nothing is applied twice.
        let planner = Arc::new(Mutex::new(planner));
        let service = Service::start("config", &self.events.0, move || {
            let (planner, updates) = (Arc::clone(&planner), updates.clone());
            let reloads = reloads.clone();
            Ok(Box::new(move |stop| {
                let mut planner = planner.lock().unwrap_or_else(PoisonError::into_inner);
                run(&mut planner, &updates, &reloads, stop);
            }))
        });
        self.services.push(service);
    }

    /// Starts a tailer for everything that is there, and looks for more.
    fn start_sources(&mut self) {
        let plan = Arc::clone(&self.plan);
        self.tailers
            .follow(plan.sources.clone(), &plan.tail, Duration::ZERO);
        if let Some(job) = &plan.stdin
            && let Err(error) = self
                .tailers
                .start_stdin(Path::new(STDIN_PATH), Arc::clone(job))
        {
            log::error!("cannot read standard input error={error}");
        }
        for (path, job) in &plan.named {
            match check_path(path) {
                Ok(()) => {
                    let read_from = self.begin_at(job.read_from);
                    self.tailers
                        .start_named(path.clone(), Arc::clone(job), read_from);
                }
                Err(problem) => {
                    self.refused = true;
                    log::error!("cannot tail {}: {problem}", shown(path));
                }
            }
        }
        let mut discovery = Discovery::new(plan.sources.clone(), self.registry.clone());
        for found in discovery.scan() {
            self.start_found(found);
        }
        for source in discovery.without_files() {
            self.unreadable |= plan.tail.once;
            discovery.tell_of_nothing(source, plan.tail.once);
        }
        self.tailers.take_up_left();
        if !plan.tail.once {
            self.start_discovery(discovery);
        }
    }

    fn start_discovery(&mut self, first: Discovery) {
        let (registry, board) = (self.registry.clone(), Arc::clone(&self.board));
        let listings = self.listings.clone();
        let (requests, news) = (self.requests.1.clone(), self.news.0.clone());
        let mut first = Some(first);
        let service = Service::start(DISCOVER, &self.events.0, move || {
            let plan = board
                .facts()
                .plan
                .clone()
                .expect("it was shown at the start");
            let again = || Discovery::again(plan.sources.clone(), registry.clone());
            let discovery = first.take().unwrap_or_else(again);
            let every = plan.discover_interval;
            let (requests, news) = (requests.clone(), news.clone());
            let listings = listings.clone();
            Ok(Box::new(move |stop| {
                discovery.run(every, &listings, &requests, &news, stop)
            }))
        });
        self.services.push(service);
    }

    fn start_found(&mut self, found: Found) {
        let read_from = if found.first {
            self.begin_in(&found.source)
        } else {
            ReadFrom::Beginning
        };
        self.tailers.start_found(found, read_from);
    }

    /// Where the state directory was used before, a file without a position in it
    /// has appeared since: none of its lines was shipped.
    fn begin_at(&self, read_from: ReadFrom) -> ReadFrom {
        if self.continued {
            ReadFrom::Beginning
        } else {
            read_from
        }
    }

    /// The same, where sources come and go: one of which no file is known is new.
    fn begin_in(&mut self, source: &Source) -> ReadFrom {
        if !self.follows || self.damaged || source.job.read_from == ReadFrom::Beginning {
            return self.begin_at(source.job.read_from);
        }
        let topic = Arc::clone(&source.job.topic);
        let key = (source.pattern.text().to_owned(), Arc::clone(&topic));
        let ledger = &self.ledger;
        let known = self.known_sources.entry(key);
        let known = known.or_insert_with(|| ledger.knows(&topic, &|path| source.wants(path)));
        if *known {
            ReadFrom::Beginning
        } else {
            source.job.read_from
        }
    }

    // ---- working -------------------------------------------------------------

    /// Starts the tailers and watches until there is a reason to stop.
    fn work(&mut self, signals: &Receiver<Signal>, watch: &mut Watch) -> Cause {
        self.start_sources();
        let ticks = tick(TICK);
        let mut stats = (self.plan.stats_interval, tick(self.plan.stats_interval));
        let timeout = self.plan.timeout.map_or_else(never, after);
        let (events, news) = (self.events.1.clone(), self.news.1.clone());
        let updates = self.updates.1.clone();
        loop {
            select! {
                recv(signals) -> signal => match signal {
                    Ok(Signal::Stop) => return Cause::Signal,
                    Ok(Signal::Reload) => self.ask_for_reload(),
                    Err(_) => return Cause::Failed,
                },
                recv(events) -> event => {
                    if let Some(cause) = event.ok().and_then(|event| self.hear(event)) {
                        return cause;
                    }
                },
                recv(news) -> news => match news {
                    Ok(News::Found(found)) => self.start_found(found),
                    Ok(News::Woken(sleeper)) => self.wake(*sleeper),
                    Err(_) => {} // we hold a sender
                },
                recv(updates) -> update => {
                    if let Ok(update) = update {
                        self.apply(update);
                    }
                    if stats.0 != self.plan.stats_interval {
                        stats = (self.plan.stats_interval, tick(self.plan.stats_interval));
                    }
                },
                recv(stats.1) -> _ => log::info!("{}", self.summary("shipping")),
                recv(timeout) -> _ => return Cause::TimedOut,
                recv(ticks) -> _ => self.tend(watch),
            }
            if self.is_finished() {
                return Cause::Finished;
            }
        }
    }

    /// What has to be done now and then.
    fn tend(&mut self, watch: &mut Watch) {
        if let Some(watch) = watch {
            watch(&self.ledger.figures());
        }
        if let Some(pool) = &mut self.pool {
            pool.tend();
        }
        self.tailers.tend();
        for service in self.services.iter_mut().chain(&mut self.checkpoint) {
            service.tend();
        }
        for retired in self.retiring.extract_if(.., |retired| retired.is_over()) {
            retired.end(Duration::ZERO);
        }
        if self.left_looked.elapsed() >= LEFT_EVERY {
            self.left_looked = Instant::now();
            self.tailers.take_up_left();
        }
        if self.swept.0.elapsed() >= SWEEP_EVERY {
            let changes = self.ledger.changes();
            if std::mem::replace(&mut self.swept, (Instant::now(), changes)).1 != changes {
                self.ledger.sweep();
            }
            self.listings.let_go();
            self.show_failing();
        }
    }

    /// Nobody is left who could bring a line.
    fn is_finished(&self) -> bool {
        let waits = self.follows || !self.plan.sources.is_empty() || self.asleep > 0;
        self.tailers.is_empty() && (self.plan.tail.once || !waits)
    }

    fn hear(&mut self, event: Event) -> Option<Cause> {
        match event {
            Event::TailerEnded(number, End::Asleep(sleeper)) => {
                self.tailers.ended(number);
                self.asleep += 1;
                if self.tailers.is_still_wanted(&sleeper) {
                    let _ = self.requests.0.send(Request::Watch(sleeper));
                } else {
                    self.wake(*sleeper);
                }
                None
            }
            Event::TailerEnded(number, End::GaveWay(sleeper)) => {
                self.tailers.gave_way(number, sleeper);
                None
            }
            Event::TailerEnded(number, end) => {
                self.tailers.ended(number);
                self.unreadable |= matches!(end, End::Unreadable);
                matches!(end, End::QueueClosed).then_some(Cause::Failed)
            }
            Event::StdoutEnded(StdoutEnd::Done) => None,
            Event::StdoutEnded(StdoutEnd::ReaderGone) => Some(Cause::ReaderGone),
            Event::StdoutEnded(StdoutEnd::Failed(error)) => {
                log::error!("cannot write to standard output error={error}");
                Some(Cause::Failed)
            }
            Event::Died(who) => {
                self.bury(who);
                None
            }
            Event::NoThread(error) => {
                self.unreadable |= self.plan.tail.once;
                if !std::mem::replace(&mut self.out_of_threads, true) {
                    log::error!("cannot tail all files: no thread left for the next one: {error}");
                }
                None
            }
        }
    }

    /// A thread is no more. What it held is back in the ledger; it is started
    /// again after a while.
    fn bury(&mut self, who: Who) {
        let (kind, name, pause) = match who {
            Who::Tailer(number) => match self.tailers.died(number) {
                Some((path, pause)) => (
                    "tail",
                    format!("tail:{number} path={}", as_value(path)),
                    Some(pause),
                ),
                None => return,
            },
            Who::Sender(pool, at) => {
                let pause = self
                    .pool
                    .as_mut()
                    .and_then(|current| current.died(pool, at));
                ("send", format!("send:{at}"), pause)
            }
            Who::Service(name) => {
                let mut services = self.services.iter_mut().chain(&mut self.checkpoint);
                let service = services.find(|service| service.name() == name);
                let pause = service.map(Service::died);
                if name == DISCOVER {
                    self.take_up_named();
                }
                (name, name.to_owned(), pause)
            }
        };
        self.board.note_failure(kind, "it panicked");
        match pause {
            Some(pause) => log::error!(
                "a thread failed, please report this: it is started again in {} thread={name}",
                humantime::format_duration(pause)
            ),
            None => log::error!("a thread failed while it was stopping thread={name}"),
        }
    }

    /// What slept went with the thread that looked at it. The next one finds what
    /// matches a source; a path that was named is taken up here.
    fn take_up_named(&mut self) {
        let plan = Arc::clone(&self.plan);
        for (path, job) in &plan.named {
            let job = Arc::clone(job);
            // One that is awake has its path to itself.
            let slept = check_path(path).is_ok()
                && self
                    .tailers
                    .start_named(path.clone(), job, ReadFrom::Beginning);
            self.asleep -= usize::from(slept && self.asleep > 0);
        }
    }

    fn wake(&mut self, sleeper: Sleeper) {
        self.asleep -= 1;
        self.tailers.wake(sleeper);
    }

    // ---- changes ---------------------------------------------------------------

    fn ask_for_reload(&self) {
        match &self.reload {
            Some(reload) => _ = reload.try_send(()), // one that waits is enough
            None => log::info!("nothing to reload: no file of TLS or the login is used"),
        }
    }

    /// What is followed has been looked at: a new plan is put into force.
    fn apply(&mut self, update: Update) {
        self.board.facts().config = update.standing;
        if let Some(plan) = update.plan {
            self.change_to(Arc::new(*plan));
        }
    }

    fn change_to(&mut self, mut plan: Arc<Plan>) {
        let old = Arc::clone(&self.plan);
        for (key, same) in [
            ("state_dir", old.state_dir == plan.state_dir),
            ("admin.listen", old.admin_listen == plan.admin_listen),
            (
                "dead_letters_bytes_max",
                old.dead_letters_bytes_max == plan.dead_letters_bytes_max,
            ),
        ] {
            if !same {
                log::warn!(
                    "{key} cannot change while logship runs: restart it to put that into force"
                );
            }
        }
        let kept = Arc::make_mut(&mut plan);
        kept.state_dir.clone_from(&old.state_dir);
        kept.admin_listen = old.admin_listen;
        kept.dead_letters_bytes_max = old.dead_letters_bytes_max;
        self.plan = plan;
        if self.plan.pool != old.pool {
            self.replace_pool();
        }
        if self.follows {
            self.follow_sources();
        }
        self.show_plan();
    }

    /// Sources have come and gone, as they do in a config only.
    fn follow_sources(&mut self) {
        let plan = Arc::clone(&self.plan);
        self.known_sources.clear();
        self.tailers
            .follow(plan.sources.clone(), &plan.tail, plan.drain_timeout);
        let follow = Request::Follow(plan.sources.clone(), plan.discover_interval);
        let _ = self.requests.0.send(follow);
    }

    /// New producers for what is read from now on; the old ones go on with what they
    /// have, for a moment only if others send elsewhere: what an old broker does not
    /// acknowledge is not to wait for it. Nobody here waits for Kafka.
    fn replace_pool(&mut self) {
        let topics = self.plan.topics().into_iter().collect();
        let plan = self.plan.pool.clone();
        // What is counted grows as long as the process lives.
        let before = self.pool.as_ref().map(|pool| pool.stats().successor());
        let stats = Arc::new(before.unwrap_or_default());
        match Pool::start(self.pools_made, plan, topics, self.shared.clone(), stats) {
            Ok(pool) => {
                self.pools_made += 1;
                self.tailers.offer_to(pool.queue());
                let soon = Instant::now() + RETIRE_TIMEOUT;
                if let Some(old) = self.pool.replace(pool) {
                    let elsewhere = !old.sends_where(&self.plan.pool);
                    self.retiring.push(old.retire(elsewhere.then_some(soon)));
                }
                let too_many = self.retiring.len().saturating_sub(RETIRING_MAX);
                self.retiring[..too_many]
                    .iter_mut()
                    .for_each(|old| old.hurry(soon));
                log::info!("lines go through new producers from now on");
            }
            Err(error) => {
                log::error!("cannot start new producers, the old ones go on error={error}")
            }
        }
    }

    // ---- telling ---------------------------------------------------------------

    fn show_plan(&self) {
        let mut facts = self.board.facts();
        facts.plan = Some(Arc::clone(&self.plan));
        facts.queue = self.pool.as_ref().map(|pool| pool.queue().clone());
        facts.stats = self.pool.as_ref().map(|pool| Arc::clone(pool.stats()));
    }

    fn show_failing(&self) {
        let services = self.services.iter().chain(&self.checkpoint);
        let services = services.map(|service| (service.name(), service.is_failing()));
        let pool = self.pool.as_ref().is_some_and(Pool::is_failing);
        let others = [("tail", self.tailers.is_failing()), ("send", pool)];
        let mut facts = self.board.facts();
        for (name, failing) in services.chain(others) {
            if let Some(task) = facts.tasks.get_mut(name) {
                task.failing = failing;
            }
        }
    }

    fn summary(&self, what: &'static str) -> Summary {
        Summary::new(what, self.ledger.figures(), self.started.elapsed())
    }

    // ---- stopping ----------------------------------------------------------------

    /// Stops from source to sink: tailers, then producers once their queue is
    /// empty, all within one deadline.
    fn stop(mut self, cause: Cause, signals: &Receiver<Signal>, watch: &mut Watch) -> Exit {
        let plan = Arc::clone(&self.plan);
        let deadline = match cause {
            Cause::Finished | Cause::Signal => Instant::now() + plan.shutdown_timeout,
            Cause::TimedOut | Cause::ReaderGone | Cause::Failed => Instant::now(),
        };
        self.tailers.stop(JOIN_PATIENCE);
        let (ledger, started) = (Arc::clone(&self.ledger), self.started);
        // While following, one bad path among good ones is no failure of the run.
        let refused = self.refused && (plan.tail.once || self.tailers.made() == 0);
        let unreadable = self.unreadable || refused;
        let mut senders = std::mem::take(&mut self.retiring);
        senders.extend(self.pool.take().map(|pool| pool.retire(Some(deadline))));
        let services = std::mem::take(&mut self.services);
        self.board.facts().queue = None;
        drop(self); // closes the queue
        let waiting = ledger.figures().under_way_bytes > 0;
        let finished = |senders: &[Retiring]| senders.iter().all(Retiring::is_finished);
        if cause == Cause::Signal && waiting && !finished(&senders) {
            log::info!(
                "stopping: waiting up to {} for what was read to be acknowledged (a second signal stops at once)",
                humantime::format_duration(plan.shutdown_timeout)
            );
        }
        while Instant::now() < deadline && !finished(&senders) {
            if signals.recv_timeout(TICK / 10) == Ok(Signal::Stop) {
                log::warn!("stopping at once");
                break;
            }
            if let Some(watch) = watch {
                watch(&ledger.figures());
            }
        }
        for sender in senders {
            sender.end(JOIN_PATIENCE);
        }
        for service in services {
            service.stop(JOIN_PATIENCE);
        }
        let figures = ledger.figures();
        if let Some(watch) = watch {
            watch(&figures);
        }
        log::info!("{}", Summary::new("done", figures, started.elapsed()));
        let waits = figures.under_way_bytes > 0 || (plan.tail.once && figures.waiting_bytes > 0);
        match cause {
            Cause::ReaderGone => Exit::Settled,
            Cause::Failed if !waits => Exit::CouldNotRun,
            _ if waits => {
                tell_unsettled(&figures, &plan);
                Exit::Unsettled
            }
            // Given up before everything was even looked at.
            Cause::TimedOut => Exit::Unsettled,
            Cause::Signal if plan.tail.once => Exit::Unsettled,
            _ if unreadable => Exit::CouldNotRun,
            _ if figures.dead_lines > 0 => Exit::DeadLetters,
            _ => Exit::Settled,
        }
    }
}

fn tell_unsettled(figures: &Figures, plan: &Plan) {
    let next = match plan.state_dir {
        _ if plan.stdin.is_some() => {
            "the next run sends those of files; what standard input brought is lost"
        }
        Some(_) => "the next run sends them",
        None => "no state is kept, so the next run cannot tell them from the others",
    };
    log::warn!(
        "{} bytes are not acknowledged yet: {next}",
        figures.waiting_bytes
    );
}

fn all_finished(tasks: &[Task]) -> bool {
    tasks.iter().all(Task::is_finished)
}

/// Joins what ends in time, and lets go of the rest: it sits in a system call.
fn join_all(tasks: Vec<Task>, deadline: Instant) {
    while !all_finished(&tasks) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    for task in tasks {
        if task.is_finished() {
            let _ = task.join(); // a panic was told by its obituary
        } else {
            task.detach();
        }
    }
}

impl StartError {
    /// The next thing to try, when there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            StartError::State(StateError::Unusable { .. }) => Some(
                "give a directory you can write to (--state-dir, in a config state_dir), or --no-state",
            ),
            StartError::State(StateError::InUse { .. }) => Some(
                "stop the other logship, or give this one a --name or a state directory of its own",
            ),
            StartError::Producers(_) | StartError::Admin(_) => None,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::State(error) => write!(f, "{error}"),
            StartError::Producers(error) => write!(f, "cannot start the producers: {error}"),
            StartError::Admin(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StartError {}
