//! Starts everything, keeps watch, and stops it: from sink to source, and back.
//!
//! It introduces tailers, producers, discovery and checkpoint to each other and
//! is the only one to know them all. It reads no file and sends no line.

mod summary;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select, tick, unbounded};

use crate::checkpoint::{self, StateDir, StateError};
use crate::config::{Plan, Sink, Source};
use crate::exit::Exit;
use crate::ledger::{Figures, Ledger};
use crate::queue::{Chunk, queue};
use crate::send::{DeadLetters, KafkaSender, Notices, StdoutEnd, StdoutSender};
use crate::tail::{
    Context, Discovery, End, Found, Pattern, ReadFrom, Registry, Retained, Tailer, Target,
    check_path,
};
use crate::text::shown;
use crate::thread::{Stop, StopHandle, Task, spawn, stop_pair, try_spawn};

pub use summary::Summary;

/// How often progress is shown and finished threads are collected.
const TICK: Duration = Duration::from_millis(100);
/// How long threads get that only have to notice a stop.
const JOIN_PATIENCE: Duration = Duration::from_secs(1);
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
    /// Standard output.
    Stdout(io::Error),
}

/// What the threads tell the supervisor.
#[derive(Debug)]
enum Event {
    /// The tailer with this number.
    TailerEnded(u64, End),
    /// Standard output is done with, and why.
    StdoutEnded(StdoutEnd),
    /// A thread ended without a word: it panicked.
    Died(String),
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

struct Supervisor<'a> {
    plan: &'a Plan,
    context: Context,
    events: (Sender<Event>, Receiver<Event>),
    /// By number: a path may get a new tailer before the end of the last is heard of.
    tailers: Vec<(u64, Task)>,
    tailers_stop: (Option<StopHandle>, Stop),
    /// A PATH could not be read with `--once`, or standard input at all.
    unreadable: bool,
    /// A PATH is something that can never be tailed.
    refused: bool,
    tailers_made: u64,
    /// It was told that there are more files than threads.
    out_of_threads: bool,
    started: Instant,
}

/// Runs a plan until it is finished or stopped, and says what to exit with.
///
/// `watch` is called about ten times a second with the figures so far.
///
/// # Errors
/// When nothing could be started; then nothing was changed.
pub fn run(
    plan: &Plan,
    signals: &Receiver<Signal>,
    watch: &mut dyn FnMut(&Figures),
) -> Result<Exit, StartError> {
    let state_dir = match &plan.state_dir {
        Some(path) => Some(Arc::new(StateDir::open(path).map_err(StartError::State)?)),
        None => None,
    };
    let memory = state_dir
        .as_deref()
        .map(checkpoint::load)
        .unwrap_or_default();
    let ledger = Arc::new(Ledger::remembering(memory.entries));

    let (queue, receivers) = queue(plan.producers, plan.queue_bytes_max);
    let events = unbounded();
    let (send_stop, senders) = start_senders(plan, receivers, state_dir.as_deref(), &events.0)
        .map_err(StartError::Stdout)?;
    let (save_stop, save) = stop_pair();
    let saver = state_dir.clone().map(|dir| {
        let ledger = Arc::clone(&ledger);
        spawn("checkpoint", move || checkpoint::run(&dir, &ledger, &save))
    });

    let (stop_handle, stop) = stop_pair();
    let mut supervisor = Supervisor {
        context: Context {
            options: plan.tail.clone(),
            queue,
            ledger: Arc::clone(&ledger),
            registry: Registry::default(),
            host: Arc::clone(&plan.send.host),
        },
        plan,
        events,
        tailers: Vec::new(),
        tailers_stop: (Some(stop_handle), stop),
        unreadable: false,
        refused: false,
        tailers_made: 0,
        out_of_threads: false,
        started: Instant::now(),
    };
    // Where the state directory was used before, a file without a position in it
    // has appeared since: none of its lines was shipped.
    let read_from = if memory.continued {
        ReadFrom::Beginning
    } else {
        plan.read_from
    };
    let cause = supervisor.work(read_from, signals, watch);
    let exit = supervisor.stop(cause, senders, send_stop, signals, watch);
    drop(save_stop);
    drop(saver);
    Ok(exit)
}

/// Starts the producer threads; they end when the queue is closed and empty.
fn start_senders(
    plan: &Plan,
    receivers: Vec<Receiver<Chunk>>,
    state_dir: Option<&StateDir>,
    events: &Sender<Event>,
) -> io::Result<(StopHandle, Vec<Task>)> {
    let (handle, stop) = stop_pair();
    let notices = Arc::new(Notices::default());
    let letters = state_dir.map(|dir| Arc::new(DeadLetters::in_directory(dir.path())));
    let mut senders = Vec::new();
    for (number, chunks) in receivers.into_iter().enumerate() {
        let (events, stop, name) = (events.clone(), stop.clone(), format!("send:{number}"));
        senders.push(match &plan.sink {
            Sink::Stdout => {
                let sender = StdoutSender::new(plan.send.clone())?;
                spawn(name, move || {
                    let end = sender.run(&chunks, &stop);
                    let _ = events.send(Event::StdoutEnded(end));
                })
            }
            Sink::Kafka(kafka) => {
                let mut sender = KafkaSender::new(
                    plan.send.clone(),
                    kafka.clone(),
                    Arc::clone(&notices),
                    letters.clone(),
                );
                sender.expect(&plan.topic);
                let obituary = Obituary::new(name.clone(), events);
                spawn(name, move || {
                    sender.run(chunks, &stop);
                    obituary.withdraw();
                })
            }
        });
    }
    Ok((handle, senders))
}

/// Tells of a thread's death unless it is withdrawn, which a panic never does.
struct Obituary {
    name: Option<String>,
    events: Sender<Event>,
}

impl Obituary {
    fn new(name: String, events: Sender<Event>) -> Obituary {
        Obituary {
            name: Some(name),
            events,
        }
    }

    fn withdraw(mut self) {
        self.name = None;
    }
}

impl Drop for Obituary {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            let _ = self.events.send(Event::Died(name));
        }
    }
}

impl Supervisor<'_> {
    // ---- working -------------------------------------------------------------

    /// Starts the tailers and watches until there is a reason to stop.
    fn work(
        &mut self,
        read_from: ReadFrom,
        signals: &Receiver<Signal>,
        watch: &mut dyn FnMut(&Figures),
    ) -> Cause {
        let found = self.start_sources(read_from);
        let mut found = found.unwrap_or_else(never);
        let (ticks, stats) = (tick(TICK), tick(self.plan.stats_interval));
        let timeout = self.plan.timeout.map_or_else(never, after);
        loop {
            select! {
                recv(signals) -> signal => match signal {
                    Ok(Signal::Stop) => return Cause::Signal,
                    Ok(Signal::Reload) => log::info!("nothing to reload: tail is told all it knows by its arguments"),
                    Err(_) => return Cause::Failed,
                },
                recv(self.events.1) -> event => {
                    if let Some(cause) = event.ok().and_then(|event| self.hear(event)) {
                        return cause;
                    }
                },
                recv(found) -> new => match new {
                    Ok(new) => self.start_found(new, read_from),
                    Err(_) => {
                        log::error!("a thread failed, new files are not found any more thread=discover");
                        found = never();
                    }
                },
                recv(stats) -> _ => log::info!("{}", self.summary("shipping")),
                recv(timeout) -> _ => return Cause::TimedOut,
                recv(ticks) -> _ => watch(&self.context.ledger.figures()),
            }
            if self.is_finished() {
                return Cause::Finished;
            }
        }
    }

    /// Nobody is left who could bring a line.
    fn is_finished(&self) -> bool {
        let patterns = |source: &Source| matches!(source, Source::Pattern(_));
        let waiting = !self.plan.tail.once && self.plan.sources.iter().any(patterns);
        self.tailers.is_empty() && !waiting
    }

    fn hear(&mut self, event: Event) -> Option<Cause> {
        match event {
            Event::TailerEnded(number, end) => {
                self.tailers.retain(|(known, _)| *known != number);
                self.unreadable |= end == End::Unreadable;
                (end == End::QueueClosed).then_some(Cause::Failed)
            }
            Event::StdoutEnded(StdoutEnd::Done) => None,
            Event::StdoutEnded(StdoutEnd::ReaderGone) => Some(Cause::ReaderGone),
            Event::StdoutEnded(StdoutEnd::Failed(error)) => {
                log::error!("cannot write to standard output error={error}");
                Some(Cause::Failed)
            }
            Event::Died(name) => {
                log::error!("a thread failed, stopping: please report this thread={name}");
                Some(Cause::Failed)
            }
        }
    }

    // ---- sources ---------------------------------------------------------------

    /// Starts a tailer for everything that is there. Some when patterns are
    /// watched for more.
    fn start_sources(&mut self, read_from: ReadFrom) -> Option<Receiver<Found>> {
        let mut patterns: Vec<Pattern> = Vec::new();
        let plan = self.plan;
        for source in &plan.sources {
            match source {
                Source::Stdin => self.start_stdin(),
                Source::Path(path) => match check_path(path) {
                    Ok(()) => self.start_tailer(path.clone(), read_from, true),
                    Err(problem) => {
                        self.refused = true;
                        log::error!("cannot tail {}: {problem}", shown(path));
                    }
                },
                Source::Pattern(pattern) => patterns.push(pattern.clone()),
            }
        }
        if patterns.is_empty() {
            return None;
        }
        self.tell_of_empty(&patterns);
        let registry = self.context.registry.clone();
        let mut discovery = Discovery::new(patterns, registry, Arc::clone(&plan.topic));
        for found in discovery.scan() {
            self.start_found(found, read_from);
        }
        if plan.tail.once {
            return None;
        }
        let (sender, found) = bounded(1_024);
        let (stop, every) = (self.tailers_stop.1.clone(), plan.discover_interval);
        let task = spawn("discover", move || discovery.run(every, &sender, &stop));
        task.detach(); // it ends with the tailers, and nobody waits for a directory
        Some(found)
    }

    fn tell_of_empty(&mut self, patterns: &[Pattern]) {
        for pattern in patterns {
            if !pattern.matches(&mut |_, _| {}).is_empty() {
                continue;
            }
            if self.plan.tail.once {
                self.unreadable = true;
                log::warn!("no file matches '{}'", shown(pattern.text()));
            } else {
                log::info!("no file matches '{}' yet", shown(pattern.text()));
            }
        }
    }

    fn start_found(&mut self, found: Found, read_from: ReadFrom) {
        let from = if found.first {
            read_from
        } else {
            ReadFrom::Beginning
        };
        self.start_tailer(found.path, from, false);
    }

    fn start_tailer(&mut self, path: PathBuf, read_from: ReadFrom, named: bool) {
        let Some(claim) = self.context.registry.claim_path(&path) else {
            return;
        };
        let target = self.target(path, read_from, named);
        let tailer = Tailer::new(self.context.clone(), target, claim);
        self.run_tailer(tailer);
    }

    fn start_stdin(&mut self) {
        let path = PathBuf::from(STDIN_PATH);
        let Some(claim) = self.context.registry.claim_path(&path) else {
            return;
        };
        let retained = Arc::new(Retained::default());
        let (filled, stop) = (Arc::clone(&retained), self.tailers_stop.1.clone());
        spawn("stdin", move || filled.fill(&stop)).detach();
        let target = self.target(path, ReadFrom::Beginning, true);
        match Tailer::of_stdin(self.context.clone(), target, claim, retained) {
            Ok(tailer) => self.run_tailer(tailer),
            Err(error) => log::error!("cannot read standard input error={error}"),
        }
    }

    fn target(&self, path: PathBuf, read_from: ReadFrom, named: bool) -> Target {
        Target {
            path,
            topic: Arc::clone(&self.plan.topic),
            read_from,
            named,
        }
    }

    fn run_tailer(&mut self, tailer: Tailer) {
        let number = self.tailers_made;
        self.tailers_made += 1;
        let name = format!("tail:{number}");
        let (events, stop) = (self.events.0.clone(), self.tailers_stop.1.clone());
        let task = try_spawn(name.clone(), move || {
            let obituary = Obituary::new(name, events.clone());
            let end = tailer.run(&stop);
            obituary.withdraw();
            let _ = events.send(Event::TailerEnded(number, end));
        });
        match task {
            Ok(task) => self.tailers.push((number, task)),
            // A file that a pattern matches is found again by the next look.
            Err(error) => {
                self.unreadable = true;
                if !std::mem::replace(&mut self.out_of_threads, true) {
                    log::error!("cannot tail all files: no thread left for the next one: {error}");
                }
            }
        }
    }

    // ---- stopping ----------------------------------------------------------------

    /// Stops from source to sink: tailers, then producers once their queue is
    /// empty, all within one deadline.
    fn stop(
        mut self,
        cause: Cause,
        senders: Vec<Task>,
        send_stop: StopHandle,
        signals: &Receiver<Signal>,
        watch: &mut dyn FnMut(&Figures),
    ) -> Exit {
        let deadline = match cause {
            Cause::Finished | Cause::Signal => Instant::now() + self.plan.shutdown_timeout,
            Cause::TimedOut | Cause::ReaderGone | Cause::Failed => Instant::now(),
        };
        self.tailers_stop.0 = None;
        let tailers = std::mem::take(&mut self.tailers);
        let tailers = tailers.into_iter().map(|(_, task)| task).collect();
        join_all(tailers, Instant::now() + JOIN_PATIENCE);

        let (ledger, started) = (Arc::clone(&self.context.ledger), self.started);
        let plan = self.plan;
        // While following, one bad path among good ones is no failure of the run.
        let refused = self.refused && (plan.tail.once || self.tailers_made == 0);
        let unreadable = self.unreadable || refused;
        drop(self); // closes the queue
        let waiting = ledger.figures().under_way_bytes > 0;
        if cause == Cause::Signal && waiting && !all_finished(&senders) {
            log::info!(
                "stopping: waiting up to {} for what was read to be acknowledged (a second signal stops at once)",
                humantime::format_duration(plan.shutdown_timeout)
            );
        }
        while Instant::now() < deadline && !all_finished(&senders) {
            if signals.recv_timeout(TICK / 10) == Ok(Signal::Stop) {
                log::warn!("stopping at once");
                break;
            }
            watch(&ledger.figures());
        }
        drop(send_stop);
        join_all(senders, Instant::now() + JOIN_PATIENCE);

        let figures = ledger.figures();
        watch(&figures);
        log::info!("{}", Summary::new("done", figures, started.elapsed()));
        let waits = figures.under_way_bytes > 0 || (plan.tail.once && figures.waiting_bytes() > 0);
        match cause {
            Cause::ReaderGone => Exit::Settled,
            Cause::Failed if !waits => Exit::CouldNotRun,
            _ if waits => {
                tell_unsettled(&figures, plan);
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

    fn summary(&self, what: &'static str) -> Summary {
        Summary::new(what, self.context.ledger.figures(), self.started.elapsed())
    }
}

fn tell_unsettled(figures: &Figures, plan: &Plan) {
    let stdin = |source: &Source| matches!(source, Source::Stdin);
    let next = match plan.state_dir {
        _ if plan.sources.iter().any(stdin) => {
            "the next run sends those of files; what standard input brought is lost"
        }
        Some(_) => "the next run sends them",
        None => "no state is kept, so the next run cannot tell them from the others",
    };
    log::warn!(
        "{} bytes are not acknowledged yet: {next}",
        figures.waiting_bytes()
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
            StartError::State(StateError::Unusable { .. }) => {
                Some("give a directory you can write to with --state-dir, or --no-state")
            }
            StartError::State(StateError::InUse { .. }) => {
                Some("stop the other logship, or give this one a --name or --state-dir of its own")
            }
            StartError::Stdout(_) => None,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::State(error) => write!(f, "{error}"),
            StartError::Stdout(error) => write!(f, "cannot use standard output: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
