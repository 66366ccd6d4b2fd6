//! The producers: the queue, the threads that empty it, and their successors.
//!
//! A producer that panicked gave back what it held while its stack unwound. Its
//! end of the queue stays open, so that tailers notice nothing but a pause.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::config::{self, Sink};
use crate::kafka::{self, Stats};
use crate::ledger::Flow;
use crate::queue::{Chunk, Queue, queue};
use crate::send::{DeadLetters, KafkaSender, Notices, StdoutSender};
use crate::thread::{Stop, StopHandle, Task, stop_pair, try_spawn};

use super::backoff::Backoff;
use super::{Event, Obituary, Who, all_finished, join_all};

/// Producers that share a queue.
pub struct Pool {
    /// Tells the producers of one pool from those of the next.
    number: u64,
    plan: config::Pool,
    topics: Vec<Arc<str>>,
    queue: Queue,
    members: Vec<Member>,
    stop: (StopHandle, Stop),
    shared: Shared,
    stats: Arc<Stats>,
}

/// What pools have in common.
#[derive(Clone)]
pub struct Shared {
    /// What the user was told already.
    pub notices: Arc<Notices>,
    /// Where records go that no broker takes.
    pub dead_letters: Option<Arc<DeadLetters>>,
    /// Where ends are told.
    pub events: Sender<Event>,
}

struct Member {
    chunks: Receiver<Chunk>,
    task: Option<Task>,
    backoff: Backoff,
    /// Flows that were told to hold still while there is no producer.
    held: Vec<Arc<Flow>>,
}

/// Producers of a pool that was replaced, until they are done.
pub struct Retiring {
    tasks: Vec<Task>,
    _stop: StopHandle,
    /// When what is not acknowledged goes back to the files; never, if `None`.
    deadline: Option<Instant>,
}

impl Pool {
    /// Starts the producers, which count in `stats`; they end when the queue is closed and
    /// empty.
    pub fn start(
        number: u64,
        plan: config::Pool,
        topics: Vec<Arc<str>>,
        shared: Shared,
        stats: Arc<Stats>,
    ) -> io::Result<Pool> {
        let (queue, receivers) = queue(plan.producers, plan.queue_bytes_max);
        let members = receivers.into_iter().map(|chunks| Member {
            chunks,
            task: None,
            backoff: Backoff::new(),
            held: Vec::new(),
        });
        let mut pool = Pool {
            number,
            plan,
            topics,
            queue,
            members: members.collect(),
            stop: stop_pair(),
            shared,
            stats,
        };
        for at in 0..pool.members.len() {
            pool.members[at].task = Some(pool.start_member(at)?);
        }
        Ok(pool)
    }

    /// True when what it has sent can be acknowledged to a pool of this plan as well.
    pub fn sends_where(&self, plan: &config::Pool) -> bool {
        self.plan.sink == plan.sink
    }

    /// The tailers' end.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What the producers count.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    fn start_member(&self, at: usize) -> io::Result<Task> {
        let name = format!("send:{at}");
        let chunks = self.members[at].chunks.clone();
        let stop = self.stop.1.clone();
        let events = self.shared.events.clone();
        let who = Who::Sender(self.number, at);
        let obituary = Obituary::new(who, events.clone());
        match &self.plan.sink {
            Sink::Stdout => {
                let sender = StdoutSender::new(Arc::clone(&self.plan.send.host))?;
                try_spawn(name, move || {
                    let end = sender.run(&chunks, &stop);
                    obituary.withdraw();
                    let _ = events.send(Event::StdoutEnded(end));
                })
            }
            Sink::Kafka(kafka) => {
                let mut sender = KafkaSender::new(
                    self.plan.send.clone(),
                    kafka::Options::clone(kafka),
                    Arc::clone(&self.stats),
                    Arc::clone(&self.shared.notices),
                    self.shared.dead_letters.clone(),
                );
                for topic in &self.topics {
                    sender.expect(topic);
                }
                try_spawn(name, move || {
                    sender.run(&chunks, &stop);
                    obituary.withdraw();
                })
            }
        }
    }

    /// A producer panicked. Returns the pause before its successor starts, or
    /// `None` when it was another pool's.
    pub fn died(&mut self, pool: u64, at: usize) -> Option<Duration> {
        let member = (pool == self.number).then(|| &mut self.members[at])?;
        member.task = None;
        Some(member.backoff.failed())
    }

    /// Starts successors whose time has come. Until then what is offered to them
    /// goes back, so that it takes no room from the others.
    pub fn tend(&mut self) {
        for at in 0..self.members.len() {
            if !self.members[at].backoff.is_waiting() {
                continue;
            }
            self.members[at].give_back();
            if !self.members[at].backoff.take_due() {
                continue;
            }
            match self.start_member(at) {
                Ok(task) => {
                    let member = &mut self.members[at];
                    member.task = Some(task);
                    for flow in member.held.drain(..) {
                        flow.hold(false);
                    }
                    log::info!("started again thread=send:{at}");
                }
                // Its obituary tells of it, and it is tried again.
                Err(error) => log::error!("cannot start thread=send:{at} error={error}"),
            }
        }
    }

    /// True when a producer keeps failing.
    pub fn is_failing(&self) -> bool {
        self.members
            .iter()
            .any(|member| member.backoff.is_failing())
    }

    /// Closes the queue's end that is ours; the producers go on until the tailers
    /// have let go of theirs and it is empty, or until a deadline.
    pub fn retire(self, deadline: Option<Instant>) -> Retiring {
        Retiring {
            tasks: self
                .members
                .into_iter()
                .filter_map(|mut member| member.task.take())
                .collect(),
            _stop: self.stop.0,
            deadline,
        }
    }
}

impl Member {
    fn give_back(&mut self) {
        while let Ok(chunk) = self.chunks.try_recv() {
            let flow = chunk.file.flow();
            flow.hold(true);
            if !self.held.iter().any(|held| Arc::ptr_eq(held, flow)) {
                self.held.push(Arc::clone(flow));
            }
        }
    }
}

/// Whoever takes its place must not find tailers that wait for it.
impl Drop for Member {
    fn drop(&mut self) {
        for flow in self.held.drain(..) {
            flow.hold(false);
        }
    }
}

impl Retiring {
    /// True when nothing is left to wait for.
    pub fn is_over(&self) -> bool {
        let late = |deadline| Instant::now() >= deadline;
        all_finished(&self.tasks) || self.deadline.is_some_and(late)
    }

    /// It has until then at the latest.
    pub fn hurry(&mut self, deadline: Instant) {
        self.deadline.get_or_insert(deadline);
    }

    /// True when all producers have ended.
    pub fn is_finished(&self) -> bool {
        all_finished(&self.tasks)
    }

    /// Stops what is left and waits for it; what it holds goes back to the files.
    pub fn end(self, patience: Duration) {
        drop(self._stop);
        join_all(self.tasks, Instant::now() + patience);
    }
}
