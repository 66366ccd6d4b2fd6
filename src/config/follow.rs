//! Follows the config file and etcd, and makes a new plan when they change.
//!
//! A change is read as a whole, validated as a whole, and put into force or
//! refused as a whole. Nothing here starts or stops what ships lines.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, never, select, tick};
use twox_hash::XxHash3_64;

use crate::tail::Source;
use crate::text::{as_value, shown};
use crate::thread::{Stop, StopHandle, Task, fault_point, stop_pair, try_spawn};

use super::etcd;
use super::keep::{self, Kept};
use super::{FileConfig, Mistake, Plan, Surroundings, read_config, read_value};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a file may be missing or unreadable before that is told: some
/// editors remove it for a moment.
const MISSING_AFTER: Duration = Duration::from_secs(1);
/// How long etcd gets at the start before what was kept of it is used.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
/// News of etcd that may wait.
const EVENTS_MAX: usize = 64;
/// A thread that follows a key and failed is started again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// News of what is followed.
#[derive(Debug)]
pub struct Update {
    /// What is to be put into force; `None` when only the standing has changed.
    pub plan: Option<Box<Plan>>,
    /// Where the config stands.
    pub standing: Standing,
}

/// Where the config stands.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// The config file.
    pub file: String,
    /// How many plans were put into force, the first one included.
    pub revision: u64,
    /// Of what is in force, but for passwords: XXH3, 64 bits.
    pub hash: u64,
    /// Reloads that changed something.
    pub applied: u64,
    /// Reloads that changed nothing.
    pub unchanged: u64,
    /// Reloads that were refused.
    pub refused: u64,
    /// When the last one was.
    pub last: Option<SystemTime>,
    /// What is wrong with the newest file or value, until it is mended.
    pub problem: Option<String>,
    /// The keys in etcd.
    pub keys: Vec<KeyStanding>,
}

/// Where a key in etcd stands.
#[derive(Debug, Clone)]
pub struct KeyStanding {
    /// The key.
    pub key: String,
    /// The revision that was last read.
    pub revision: i64,
    /// One word: `waiting` for the first answer, `kept` from the last run,
    /// `followed`, or `trouble`.
    pub state: &'static str,
    /// Why it cannot be followed, or what is wrong with its value.
    pub problem: Option<String>,
}

/// Follows a config file, and the keys in etcd that it names.
#[derive(Debug)]
pub struct Follower {
    file: PathBuf,
    around: Surroundings,
    config: FileConfig,
    /// What was last read of the file, good or bad; `None` when it could not be.
    read: Option<u64>,
    /// The file's mistakes, if what was last read has any.
    file_problem: Option<String>,
    keys: BTreeMap<String, Key>,
    /// What is in force.
    plan: Plan,
    standing: Standing,
    /// Where the last good remote config is kept.
    keep_in: Option<PathBuf>,
    /// Why it could not be, the last time.
    keep_failure: Option<String>,
}

/// A key in etcd.
#[derive(Debug, Default)]
struct Key {
    revision: i64,
    /// By the name of the value's own key: one, or all below a prefix.
    values: BTreeMap<String, Value>,
    /// etcd has answered at least once.
    answered: bool,
    /// It is what the last run has kept.
    kept: bool,
    trouble: Option<String>,
}

/// What stands under one key of etcd.
#[derive(Debug, Default)]
struct Value {
    /// In force: the newest that was good.
    good: Option<Good>,
    /// The newest, when it is not: the config file may yet make it good.
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Good {
    mod_revision: i64,
    bytes: Vec<u8>,
    sources: Vec<Arc<Source>>,
}

#[derive(Debug)]
struct Refused {
    mod_revision: i64,
    /// `None` for a value over the limit.
    bytes: Option<Vec<u8>>,
    /// The first mistake.
    problem: String,
}

/// The thread that follows a key.
struct Following {
    key: String,
    options: etcd::Options,
    _stop: StopHandle,
    task: Option<Task>,
    started: Instant,
}

/// What the file looked like.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl Follower {
    /// Follows a file that was just read.
    pub fn new(file: PathBuf, config: FileConfig, around: Surroundings) -> Follower {
        let keep_in = config.plan.state_dir.clone();
        let keys = config.etcd.iter().flat_map(|etcd| &etcd.keys);
        let standing = Standing {
            file: shown(&file),
            revision: 1,
            ..Standing::default()
        };
        let mut follower = Follower {
            file,
            around,
            read: Some(config.text_hash),
            file_problem: None,
            keys: keys.map(|key| (key.clone(), Key::default())).collect(),
            plan: config.plan.clone(),
            config,
            standing,
            keep_in,
            keep_failure: None,
        };
        follower.standing.hash = follower.hash();
        follower
    }

    /// What is in force.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where the config stands.
    pub fn standing(&self) -> Standing {
        let mut standing = self.standing.clone();
        standing.problem = self.problem();
        standing.keys = self
            .keys
            .iter()
            .map(|(name, key)| key.standing(name))
            .collect();
        standing
    }

    /// The body of the config thread.
    pub fn run(&mut self, updates: &Sender<Update>, reloads: &Receiver<()>, stop: &Stop) {
        let (sender, events) = bounded(EVENTS_MAX);
        let looks = tick(LOOK_EVERY);
        let mut reloads = reloads.clone();
        let started = Instant::now();
        let mut followings = self.follow_keys(Vec::new(), &sender);
        let mut watch = FileWatch::new(&self.file);
        self.recall_kept();
        loop {
            fault_point("config");
            select! {
                recv(stop.signal()) -> _ => return end_all(followings),
                recv(reloads) -> asked => match asked {
                    Ok(()) => {
                        log::info!("asked to reload file={}", as_value(&self.file));
                        self.read_file(true, updates);
                    }
                    Err(_) => reloads = never(), // logship is stopping
                },
                recv(events) -> event => {
                    if let Ok(event) = event {
                        self.hear(event, updates);
                    }
                }
                recv(looks) -> _ => {
                    if watch.has_changed(&self.file) {
                        self.read_file(false, updates);
                    }
                    if started.elapsed() >= FIRST_ANSWER {
                        self.use_kept(updates);
                    }
                    self.keep_what_vanished();
                }
            }
            followings = self.follow_keys(followings, &sender);
        }
    }

    // ---- the file ----------------------------------------------------------------

    /// Reads the file, and puts it into force if it says something new, or if
    /// that was `asked` for: a secret or a variable may have changed.
    fn read_file(&mut self, asked: bool, updates: &Sender<Update>) {
        let text = match fs::read(&self.file) {
            Ok(text) => text,
            Err(error) => {
                self.read = None;
                let problem = format!(
                    "{}: cannot read the config file: {error}",
                    shown(&self.file)
                );
                return self.refuse_file(vec![problem], updates);
            }
        };
        let hash = Some(XxHash3_64::oneshot(&text));
        if std::mem::replace(&mut self.read, hash) == hash && !asked {
            return;
        }
        match read_config(&text, &self.file, &self.around) {
            Ok(config) => {
                for warning in &config.warnings {
                    log::warn!("{warning}");
                }
                self.file_problem = None;
                self.take_config(config);
                self.put_into_force("file", updates);
            }
            Err(mistakes) => {
                let lines = mistakes.iter().map(ToString::to_string).collect();
                self.refuse_file(lines, updates);
            }
        }
    }

    fn refuse_file(&mut self, lines: Vec<String>, updates: &Sender<Update>) {
        for line in &lines {
            log::error!("{line}");
        }
        log::error!(
            "the new config is refused, the one before it stays in force mistakes={} file={}",
            lines.len(),
            as_value(&self.file)
        );
        self.file_problem = lines.into_iter().next();
        self.refuse(updates);
    }

    /// The file is good. Values of etcd are tried again with what it says.
    fn take_config(&mut self, config: FileConfig) {
        let wanted: Vec<String> = config
            .etcd
            .iter()
            .flat_map(|etcd| etcd.keys.clone())
            .collect();
        self.keys.retain(|name, _| wanted.contains(name));
        for name in wanted {
            self.keys.entry(name).or_default();
        }
        self.config = config;
        for key in self.keys.values_mut() {
            for (name, value) in &mut key.values {
                value.judge_again(name, &self.config);
            }
        }
        if self.keys.values().any(|key| key.answered) {
            self.keep();
        }
    }

    // ---- etcd --------------------------------------------------------------------

    /// Has a thread for each key; those of keys that are gone, or that reach etcd
    /// differently now, end.
    fn follow_keys(
        &self,
        mut followings: Vec<Following>,
        events: &Sender<etcd::Event>,
    ) -> Vec<Following> {
        let Some(remote) = &self.config.etcd else {
            end_all(followings);
            return Vec::new();
        };
        let is_wanted = |following: &Following| {
            self.keys.contains_key(&following.key) && following.options == remote.options
        };
        end_all(followings.extract_if(.., |following| !is_wanted(following)));
        for name in self.keys.keys() {
            let running = followings
                .iter_mut()
                .find(|following| following.key == *name);
            if let Some(running) = running {
                let ended = running.task.as_ref().is_none_or(Task::is_finished);
                if !ended || running.started.elapsed() < AGAIN_AFTER {
                    continue;
                }
                log::error!(
                    "the thread that follows a key failed and is started again key={}",
                    as_value(name)
                );
                followings.retain(|following| following.key != *name);
            }
            let (handle, stop) = stop_pair();
            let (options, key, events) = (remote.options.clone(), name.clone(), events.clone());
            let number = followings.len();
            let task = try_spawn(format!("etcd:{number}"), move || {
                etcd::follow(&options, &key, &events, &stop);
            });
            followings.push(Following {
                key: name.clone(),
                options: remote.options.clone(),
                _stop: handle,
                task: task.ok(),
                started: Instant::now(),
            });
        }
        followings
    }

    fn hear(&mut self, event: etcd::Event, updates: &Sender<Update>) {
        match event {
            etcd::Event::Values {
                key,
                revision,
                values,
            } => self.take_values(&key, revision, values, updates),
            etcd::Event::Trouble { key, problem } => {
                if let Some(known) = self.keys.get_mut(&key) {
                    log::warn!(
                        "cannot follow etcd, what it said last stays in force key={}: {problem}",
                        as_value(&key)
                    );
                    known.trouble = Some(problem);
                    self.use_kept(updates);
                    self.tell(updates);
                }
            }
            etcd::Event::Recovered { key } => {
                if let Some(known) = self.keys.get_mut(&key) {
                    log::info!("follows etcd again key={}", as_value(&key));
                    known.trouble = None;
                    self.tell(updates);
                }
            }
        }
    }

    /// The content of a key. A bad value is refused by itself: the one before it
    /// stays in force, and so do its neighbours.
    fn take_values(
        &mut self,
        name: &str,
        revision: i64,
        values: etcd::Values,
        updates: &Sender<Update>,
    ) {
        let Some(mut key) = self.keys.remove(name) else {
            return; // not followed any more
        };
        if key.trouble.take().is_some() {
            log::info!("follows etcd again key={}", as_value(name));
        }
        key.revision = revision;
        (key.answered, key.kept) = (true, false);
        let mut before = std::mem::take(&mut key.values);
        let mut refused = false;
        let loaded = values.loaded.into_iter().map(Ok);
        for newest in loaded.chain(values.too_large.into_iter().map(Err)) {
            let name = match &newest {
                Ok(value) => value.key.clone(),
                Err(value) => value.key.clone(),
            };
            let old = before.remove(&name).unwrap_or_default();
            let was_refused = old.is_refused(&newest);
            let new = match newest {
                Ok(value) => old.followed_by(value, &self.config, was_refused),
                Err(value) => old.followed_by_too_large(value, was_refused),
            };
            refused |= new.refused.is_some() && !was_refused;
            key.values.insert(name, new);
        }
        self.keys.insert(name.to_owned(), key);
        self.keep();
        self.put_into_force("etcd", updates);
        if refused {
            self.refuse(updates);
        }
    }

    // ---- what is kept --------------------------------------------------------------

    fn recall_kept(&mut self) {
        let Some(dir) = self.keep_in.as_ref().filter(|_| !self.keys.is_empty()) else {
            return;
        };
        let kept = match keep::load(dir) {
            Ok(kept) => kept,
            Err(error) => return log::warn!("cannot use the remote config that was kept: {error}"),
        };
        for Kept {
            key,
            revision,
            values,
        } in kept
        {
            let Some(known) = self.keys.get_mut(&key).filter(|known| !known.answered) else {
                continue;
            };
            known.revision = revision;
            for (name, mod_revision, bytes) in values {
                if let Ok((sources, _)) = read_value(&name, &bytes, &self.config) {
                    let good = Some(Good {
                        mod_revision,
                        bytes,
                        sources,
                    });
                    let refused = None;
                    known.values.insert(name, Value { good, refused });
                }
            }
        }
    }

    /// etcd does not answer: what it said to the last run is put into force.
    fn use_kept(&mut self, updates: &Sender<Update>) {
        let mut used = false;
        for (name, key) in &mut self.keys {
            if !key.answered && !key.kept && !key.values.is_empty() {
                log::warn!(
                    "etcd does not answer: its last good value is used key={} revision={}",
                    as_value(name),
                    key.revision
                );
                key.kept = true;
                used = true;
            }
        }
        if used {
            self.put_into_force("kept", updates);
        }
    }

    /// With the state directory what was kept may be taken away, and etcd does not
    /// tell it a second time.
    fn keep_what_vanished(&mut self) {
        let in_force = self.keys.values().any(|key| key.answered || key.kept);
        if in_force && self.keep_in.as_deref().is_some_and(keep::is_missing) {
            self.keep();
        }
    }

    /// Keeps what is in force for a start without etcd.
    fn keep(&mut self) {
        let Some(dir) = &self.keep_in else { return };
        let kept = self.keys.iter().map(|(name, key)| Kept {
            key: name.clone(),
            revision: key.revision,
            values: key
                .good()
                .map(|(name, good)| (name.clone(), good.mod_revision, good.bytes.clone()))
                .collect(),
        });
        let failure = keep::save(dir, kept.collect()).err();
        let failure = failure.map(|error| error.to_string());
        if let Some(error) = &failure
            && self.keep_failure != failure
        {
            log::warn!("cannot keep the remote config for a start without etcd error={error}");
        }
        self.keep_failure = failure;
    }

    // ---- into force ------------------------------------------------------------------

    /// The file's plan with the sources of etcd. Of those with the same path and
    /// topic the first one holds, the file's before all others.
    fn united(&self) -> Plan {
        let mut plan = self.config.plan.clone();
        let in_force = self.keys.values().filter(|key| key.answered || key.kept);
        let mut known: std::collections::HashSet<(String, Arc<str>)> =
            plan.sources.iter().map(identity).collect();
        for source in in_force
            .flat_map(Key::good)
            .flat_map(|(_, good)| &good.sources)
        {
            if known.insert(identity(source)) {
                plan.sources.push(Arc::clone(source));
            } else {
                log::warn!(
                    "'{}' under topic {} is configured twice, the first one holds second={}",
                    shown(source.pattern.text()),
                    source.job.topic,
                    source.origin
                );
            }
        }
        plan
    }

    fn put_into_force(&mut self, by: &str, updates: &Sender<Update>) {
        let plan = self.united();
        self.standing.last = Some(SystemTime::now());
        if plan == self.plan {
            self.standing.unchanged += 1;
            log::info!("the config says nothing new by={by}");
            return self.tell(updates);
        }
        self.plan = plan;
        self.standing.revision += 1;
        self.standing.applied += 1;
        self.standing.hash = self.hash();
        log::info!(
            "a new config is in force by={by} revision={} sources={}",
            self.standing.revision,
            self.plan.sources.len()
        );
        self.send(Some(Box::new(self.plan.clone())), updates);
    }

    fn refuse(&mut self, updates: &Sender<Update>) {
        self.standing.refused += 1;
        self.standing.last = Some(SystemTime::now());
        self.tell(updates);
    }

    fn tell(&self, updates: &Sender<Update>) {
        self.send(None, updates);
    }

    fn send(&self, plan: Option<Box<Plan>>, updates: &Sender<Update>) {
        let standing = self.standing();
        let _ = updates.send(Update { plan, standing });
    }

    /// What is wrong with the newest file or value.
    fn problem(&self) -> Option<String> {
        let of_keys = || self.keys.values().find_map(Key::problem);
        self.file_problem.clone().or_else(of_keys)
    }

    fn hash(&self) -> u64 {
        let mut bytes = self.config.shown_hash.to_le_bytes().to_vec();
        for source in &self.plan.sources {
            bytes.extend_from_slice(source.pattern.absolute().as_bytes());
            bytes.extend_from_slice(&source.job.hash64().to_le_bytes());
        }
        XxHash3_64::oneshot(&bytes)
    }
}

impl Key {
    /// What is in force, by the names of its values.
    fn good(&self) -> impl Iterator<Item = (&String, &Good)> {
        let values = self.values.iter();
        values.filter_map(|(name, value)| Some((name, value.good.as_ref()?)))
    }

    /// What is wrong with the newest of a value.
    fn problem(&self) -> Option<String> {
        let mut refused = self
            .values
            .values()
            .filter_map(|value| value.refused.as_ref());
        refused.next().map(|refused| refused.problem.clone())
    }

    fn standing(&self, name: &str) -> KeyStanding {
        KeyStanding {
            key: name.to_owned(),
            revision: self.revision,
            state: match (&self.trouble, self.kept, self.answered) {
                (_, true, _) => "kept",
                (Some(_), ..) => "trouble",
                (None, _, true) => "followed",
                (None, _, false) => "waiting",
            },
            problem: self.trouble.clone().or_else(|| self.problem()),
        }
    }
}

impl Value {
    /// True for what was refused before; told again only when it has changed.
    fn is_refused(&self, newest: &Result<etcd::Value, etcd::TooLarge>) -> bool {
        let (mod_revision, bytes) = match newest {
            Ok(value) => (value.mod_revision, Some(&value.bytes)),
            Err(value) => (value.mod_revision, None),
        };
        self.refused.as_ref().is_some_and(|refused| {
            refused.mod_revision == mod_revision && refused.bytes.as_ref() == bytes
        })
    }

    /// What holds after a new one: it, or what held before if it is refused.
    fn followed_by(self, newest: etcd::Value, config: &FileConfig, was_refused: bool) -> Value {
        let etcd::Value {
            key: name,
            mod_revision,
            bytes,
        } = newest;
        match read_value(&name, &bytes, config) {
            Ok((sources, warnings)) => {
                let is_same = |old: &Good| old.mod_revision == mod_revision;
                let known = self.good.as_ref().is_some_and(is_same);
                for warning in warnings.iter().filter(|_| !known) {
                    log::warn!("{warning}");
                }
                let good = Some(Good {
                    mod_revision,
                    bytes,
                    sources,
                });
                let refused = None;
                Value { good, refused }
            }
            Err(mistakes) => {
                if !was_refused {
                    tell_refused(&name, &mistakes, self.good.is_some());
                }
                let refused = Some(Refused {
                    mod_revision,
                    bytes: Some(bytes),
                    problem: first_of(&mistakes),
                });
                Value { refused, ..self }
            }
        }
    }

    /// What holds after one over the limit: what held before.
    fn followed_by_too_large(self, newest: etcd::TooLarge, was_refused: bool) -> Value {
        if !was_refused {
            tell_refused(&newest.key, &[&newest.problem], self.good.is_some());
        }
        let refused = Some(Refused {
            mod_revision: newest.mod_revision,
            bytes: None,
            problem: newest.problem,
        });
        Value { refused, ..self }
    }

    /// Another config may allow what was refused, and refuse what was allowed.
    /// What is not allowed any more is not in force any more.
    fn judge_again(&mut self, name: &str, config: &FileConfig) {
        // With another limit, a value over it is read again by whoever follows the key.
        let refused = self.refused.take_if(|refused| refused.bytes.is_some());
        if let Some(Refused {
            mod_revision,
            bytes: Some(bytes),
            ..
        }) = refused
        {
            match read_value(name, &bytes, config) {
                Ok((sources, _)) => {
                    self.good = Some(Good {
                        mod_revision,
                        bytes,
                        sources,
                    });
                    return;
                }
                Err(mistakes) => {
                    self.refused = Some(Refused {
                        mod_revision,
                        bytes: Some(bytes),
                        problem: first_of(&mistakes),
                    });
                }
            }
        }
        let Some(good) = self.good.take() else { return };
        match read_value(name, &good.bytes, config) {
            Ok((sources, _)) => self.good = Some(Good { sources, ..good }),
            Err(mistakes) => {
                tell_refused(name, &mistakes, false);
                self.refused.get_or_insert_with(|| Refused {
                    mod_revision: good.mod_revision,
                    bytes: Some(good.bytes),
                    problem: first_of(&mistakes),
                });
            }
        }
    }
}

/// Asks all of them to end before it waits for one.
fn end_all(followings: impl IntoIterator<Item = Following>) {
    let stopped = followings.into_iter().map(|following| following.task);
    drop(stopped.collect::<Vec<Option<Task>>>());
}

/// Tells when a file may say something new.
struct FileWatch {
    /// As it was when it was last read; `None` before that.
    read: Option<Option<Stamp>>,
    /// As it was at the last look, since then.
    seen: Option<Stamp>,
    since: Instant,
}

impl FileWatch {
    fn new(file: &Path) -> FileWatch {
        let stamp = stamp(file).ok();
        FileWatch {
            // It may have changed since the config was loaded, or while nobody looked.
            read: None,
            seen: stamp,
            since: Instant::now(),
        }
    }

    /// True once after each change. What is still being written, or missing
    /// between two steps of an editor, is waited for.
    fn has_changed(&mut self, file: &Path) -> bool {
        let now = stamp(file).ok();
        if now != self.seen {
            (self.seen, self.since) = (now, Instant::now());
            return false;
        }
        let settled = now.is_some() || self.since.elapsed() >= MISSING_AFTER;
        let changed = self.read != Some(now) && settled;
        if changed {
            self.read = Some(now);
        }
        changed
    }
}

fn stamp(file: &Path) -> io::Result<Stamp> {
    let meta = fs::metadata(file)?;
    Ok((
        meta.dev(),
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ))
}

fn identity(source: &Arc<Source>) -> (String, Arc<str>) {
    (
        source.pattern.absolute().to_owned(),
        Arc::clone(&source.job.topic),
    )
}

/// Tells the mistakes in a value, and whether an older one `holds`.
fn tell_refused(name: &str, mistakes: &[impl Display], holds: bool) {
    for mistake in mistakes {
        log::error!("{mistake}");
    }
    let instead = match holds {
        true => "the one before it stays in force",
        false => "and nothing is in force in its place",
    };
    log::error!(
        "a value in etcd is refused, {instead} mistakes={} key={}",
        mistakes.len(),
        as_value(name)
    );
}

fn first_of(mistakes: &[Mistake]) -> String {
    let first = mistakes.first().map(ToString::to_string);
    first.unwrap_or_default()
}
