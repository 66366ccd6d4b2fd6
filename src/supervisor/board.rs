//! What the supervisor knows, for whoever asks: status, metrics, health.
//!
//! A report is put together when somebody asks, by the thread that serves it;
//! nobody who ships lines is kept waiting for it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::admin::{
    ConfigReport, EtcdReport, FileReport, Health, Histogram, KafkaReport, QueueReport, Report,
    SourceReport, TaskReport, TopicReport,
};
use crate::checkpoint::Progress;
use crate::config::{Plan, Sink, Standing};
use crate::kafka::{SECONDS, Stats};
use crate::ledger::{DropReason, Figures, FileLedger, Ledger, LossReason};
use crate::queue::Queue;
use crate::send::DeadLetters;
use crate::tail::{Handles, Registry, State, Tailed};
use crate::text::to_text;

/// Where the facts of a report are.
pub struct Board {
    pub registry: Registry,
    pub ledger: Arc<Ledger>,
    pub checkpoint: Option<Arc<Progress>>,
    pub dead_letters: Option<Arc<DeadLetters>>,
    pub handles: Handles,
    pub started: (Instant, SystemTime),
    // A lock and not messages: whoever wants to know asks at any moment.
    facts: Mutex<Facts>,
}

/// What changes while logship runs.
#[derive(Default)]
pub struct Facts {
    pub plan: Option<Arc<Plan>>,
    pub queue: Option<Queue>,
    pub stats: Option<Arc<Stats>>,
    pub config: Standing,
    pub tasks: BTreeMap<String, TaskReport>,
}

impl Board {
    /// A board on which nothing is written yet.
    pub fn new(
        registry: Registry,
        ledger: Arc<Ledger>,
        checkpoint: Option<Arc<Progress>>,
        dead_letters: Option<Arc<DeadLetters>>,
        handles: Handles,
    ) -> Board {
        // All tasks are told of from the start, also those that never fail.
        let names = ["tail", "send", "discover", "checkpoint", "config", "admin"];
        let tasks = names.map(|name| (name.to_owned(), TaskReport::default()));
        Board {
            registry,
            ledger,
            checkpoint,
            dead_letters,
            handles,
            started: (Instant::now(), SystemTime::now()),
            facts: Mutex::new(Facts {
                tasks: tasks.into(),
                ..Facts::default()
            }),
        }
    }

    /// To be read and changed; held for that only.
    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task of this kind failed.
    pub fn note_failure(&self, kind: &str, problem: &str) {
        let mut facts = self.facts();
        let task = facts.tasks.entry(kind.to_owned()).or_default();
        task.restarts += 1;
        task.last_error = Some(problem.to_owned());
    }

    /// Everything there is to tell.
    pub fn report(&self) -> Report {
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: humantime::format_rfc3339_seconds(self.started.1).to_string(),
            uptime_seconds: self.started.0.elapsed().as_secs_f64(),
            checkpoint_age_seconds: self
                .checkpoint
                .as_ref()
                .and_then(|c| c.age())
                .map(|age| age.as_secs_f64()),
            open_files: self.handles.open() as u64,
            open_files_max: self.handles.max() as u64,
            held_deleted_bytes: self.handles.deleted_bytes(),
            topics: self.topics(),
            ..Report::default()
        };
        let mut unhealthy_after = Duration::MAX;
        let facts = self.facts();
        report.config = config_report(&facts.config);
        report.tasks.clone_from(&facts.tasks);
        if let Some(plan) = &facts.plan {
            report.host = plan.pool.send.host.to_string();
            report.kafka = kafka_report(plan, facts.stats.as_deref());
            report.sources = source_reports(plan);
            unhealthy_after = plan.unhealthy_after;
            for topic in plan.topics() {
                report.topics.entry(topic.to_string()).or_default();
            }
            report.queue.bytes_max = plan.pool.queue_bytes_max as u64;
        }
        report.queue = QueueReport {
            bytes: facts.queue.as_ref().map_or(0, |queue| queue.bytes() as u64),
            ..report.queue
        };
        drop(facts);
        self.files(&mut report);
        report.health = self.health(&report, unhealthy_after);
        report
    }

    fn topics(&self) -> BTreeMap<String, TopicReport> {
        let figures = self.ledger.figures_by_topic();
        let mut topics: BTreeMap<String, TopicReport> = figures
            .into_iter()
            .map(|(topic, figures)| (topic.to_string(), topic_report(&figures)))
            .collect();
        let letters = self
            .dead_letters
            .iter()
            .flat_map(|letters| letters.counts());
        for ((topic, reason), lines) in letters {
            let report = topics.entry(topic).or_default();
            report.dead_letter_lines.insert(reason, lines);
        }
        topics
    }

    /// The accounts that are open, and the paths that have none.
    fn files(&self, report: &mut Report) {
        let tailed: HashMap<(PathBuf, Arc<str>), Arc<Tailed>> =
            self.registry.tailed().into_iter().collect();
        let mut newest: HashMap<(PathBuf, Arc<str>), (u64, usize)> = HashMap::new();
        for account in self.ledger.accounts() {
            let figures = account.figures();
            let has_lost = figures.lost_bytes.iter().any(|bytes| *bytes > 0);
            if has_lost || !account.is_durable() {
                continue; // a life that is over, and not read any more
            }
            let origin = account.origin();
            let key = (origin.path.clone(), Arc::clone(&origin.topic));
            let at = report.files.len();
            report.files.push(file_report(
                &account,
                &figures,
                tailed.get(&key).map(Arc::as_ref),
            ));
            // The file that stands at the path is the one opened last.
            let opened = account.number();
            let older = newest.get(&key).filter(|(other, _)| *other > opened);
            let rotated = match older {
                Some(_) => Some(at),
                None => newest.insert(key, (opened, at)).map(|(_, older)| older),
            };
            if let Some(rotated) = rotated {
                "rotated".clone_into(&mut report.files[rotated].state);
            }
        }
        for (key, tailed) in &tailed {
            if !newest.contains_key(key) {
                report.files.push(FileReport {
                    path: to_text(&key.0),
                    topic: key.1.to_string(),
                    state: tailed.state().name().to_owned(),
                    last_error: tailed.trouble(),
                    thread: tailed.thread(),
                    ..FileReport::default()
                });
            }
        }
        report
            .files
            .sort_by(|a, b| (&a.path, &a.topic).cmp(&(&b.path, &b.topic)));
    }

    fn health(&self, report: &Report, unhealthy_after: Duration) -> Health {
        let mut reasons = Vec::new();
        let unreachable = report
            .kafka
            .as_ref()
            .and_then(|kafka| kafka.unreachable_seconds);
        if let Some(seconds) =
            unreachable.filter(|seconds| *seconds >= unhealthy_after.as_secs_f64())
        {
            reasons.push(format!("Kafka has been unreachable for {seconds:.0} s"));
        } else {
            reasons.extend(unacknowledged(report, unhealthy_after));
        }
        if let Some(refused) = &report.config.last_problem {
            reasons.push(format!("the last reload was refused: {refused}"));
        }
        for (kind, task) in &report.tasks {
            if task.failing {
                let error = task.last_error.as_deref().unwrap_or("it panicked");
                reasons.push(format!("the task {kind} keeps failing: {error}"));
            }
        }
        if let Some(problem) = self
            .checkpoint
            .as_ref()
            .and_then(|checkpoint| checkpoint.failure())
        {
            reasons.push(format!("positions cannot be written down: {problem}"));
        }
        Health {
            healthy: reasons.is_empty(),
            reasons,
        }
    }
}

/// A sentence for each topic whose lines wait, and of which nothing was acknowledged for long.
fn unacknowledged(report: &Report, unhealthy_after: Duration) -> impl Iterator<Item = String> {
    let waiting = report.kafka.iter().flat_map(|kafka| &kafka.waiting_seconds);
    waiting.filter_map(move |(topic, seconds)| {
        let lag = report.topics.get(topic).map_or(0, |topic| topic.lag_bytes);
        (lag > 0 && *seconds >= unhealthy_after.as_secs_f64()).then(|| {
            format!(
                "nothing of topic '{topic}' has been acknowledged for {seconds:.0} s, and {lag} bytes wait: see the log"
            )
        })
    })
}

fn config_report(standing: &Standing) -> ConfigReport {
    let reloads = [
        ("applied", standing.applied),
        ("unchanged", standing.unchanged),
        ("refused", standing.refused),
    ];
    let etcd = standing.keys.iter().map(|key| EtcdReport {
        key: key.key.clone(),
        revision: u64::try_from(key.revision).unwrap_or(0),
        state: key.state.to_owned(),
        problem: key.problem.clone(),
    });
    let time = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
    ConfigReport {
        file: Some(standing.file.clone()).filter(|file| !file.is_empty()),
        revision: standing.revision,
        hash: format!("{:016x}", standing.hash),
        reloads: reloads.map(|(name, count)| (name.to_owned(), count)).into(),
        last_reload_at: standing.last.map(time),
        last_problem: standing.problem.clone(),
        etcd: etcd.collect(),
    }
}

fn topic_report(figures: &Figures) -> TopicReport {
    let named = |reason: &str, count: u64| (reason.to_owned(), count);
    let dropped = |counts: &[u64]| {
        DropReason::ALL
            .map(|reason| named(reason.name(), counts[reason as usize]))
            .into()
    };
    let lost =
        LossReason::ALL.map(|reason| named(reason.name(), figures.lost_bytes[reason as usize]));
    TopicReport {
        read_lines: figures.read_lines,
        read_bytes: figures.read_bytes,
        acked_lines: figures.acked_lines,
        acked_bytes: figures.acked_bytes,
        dropped_lines: dropped(&figures.dropped_lines),
        dropped_bytes: dropped(&figures.dropped_bytes),
        lost_bytes: lost.into(),
        truncated_lines: figures.cut_lines,
        dead_letter_lines: BTreeMap::new(),
        dead_letter_bytes: figures.dead_bytes,
        known_bytes: figures.known_bytes,
        lag_bytes: figures.waiting_bytes,
    }
}

fn file_report(account: &FileLedger, figures: &Figures, tailed: Option<&Tailed>) -> FileReport {
    let origin = account.origin();
    FileReport {
        path: to_text(&origin.path),
        topic: origin.topic.to_string(),
        // Nobody looks after it: its source is gone, and its last lines are on their way.
        state: tailed
            .map_or(State::Draining, Tailed::state)
            .name()
            .to_owned(),
        device: origin.device,
        inode: origin.inode,
        generation: origin.generation,
        position: account.position(),
        size: account.size(),
        known_bytes: figures.known_bytes,
        acked_bytes: figures.acked_bytes,
        lag_bytes: figures.waiting_bytes,
        dropped_bytes: figures.dropped_bytes.iter().sum(),
        dead_letter_bytes: figures.dead_bytes,
        read_lines: figures.read_lines,
        acked_lines: figures.acked_lines,
        last_error: tailed.and_then(Tailed::trouble),
        thread: tailed.and_then(Tailed::thread),
    }
}

fn kafka_report(plan: &Plan, stats: Option<&Stats>) -> Option<KafkaReport> {
    let Sink::Kafka(options) = &plan.pool.sink else {
        return None;
    };
    let stats = stats?;
    let latency = stats.latency();
    Some(KafkaReport {
        brokers: options.bootstrap.iter().map(ToString::to_string).collect(),
        up: stats.is_up(),
        unreachable_seconds: stats.unreachable_for().map(|time| time.as_secs_f64()),
        waiting_seconds: stats
            .waiting_for()
            .into_iter()
            .map(|(topic, time)| (topic, time.as_secs_f64()))
            .collect(),
        requests: stats.requests(),
        errors: stats.errors(),
        request_seconds: Histogram {
            bounds: SECONDS.to_vec(),
            counts: latency.counts.to_vec(),
            sum: latency.sum_seconds,
            count: latency.counts.iter().sum(),
        },
    })
}

fn source_reports(plan: &Plan) -> Vec<SourceReport> {
    let report = |source: &Arc<crate::tail::Source>| SourceReport {
        path: source.pattern.absolute().to_owned(),
        exclude: source
            .exclude
            .iter()
            .map(|exclude| exclude.text().to_owned())
            .collect(),
        topic: source.job.topic.to_string(),
        origin: source.origin.to_string(),
        files: source.matched.load(std::sync::atomic::Ordering::Relaxed),
    };
    plan.sources.iter().map(report).collect()
}
