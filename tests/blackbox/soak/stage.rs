//! The files, the broker and the daemon, and what chance does to them.
//!
//! Whether a life must still arrive after an action is decided here, from what
//! can be seen at that moment: the handles that logship has open and what
//! `/status` says it knows. What is done never depends on it: a seed gives the
//! same actions whatever logship makes of them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use logship::admin::Report;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::model::{Fate, LINE_BYTES_MAX, Life, LifeId, Model};
use crate::broker::{ApiKey, Broker, Fault, Misdeed};
use crate::daemon::{Replace, source, text, to_broker};
use crate::dice::Dice;
use crate::world::{Loss, Shipper, World, figure, listing};

/// How long anything may take that must happen, on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Actions that are shown when something is wrong.
const REMEMBERED_ACTIONS: usize = 60;
/// What it says once signals are heard.
const RUNNING: &str = "running version";
/// Lines of standard error, and wrong things, that are shown then.
const SAID_MAX: usize = 80;
const SHOWN_MAX: usize = 10;
/// Rotated files a name keeps, like logrotate's `rotate`.
const ROTATED_KEPT: usize = 3;
/// The longest hole of NULs, so that a line behind it is never cut.
const HOLE_MAX: u64 = 32 << 10;
/// Two changes within one tick of a file system's clock may look like one.
const CLOCK_TICK: Duration = Duration::from_millis(25);
/// By then a logship that can breathe has seen what was written.
const SEEN_AFTER: Duration = Duration::from_millis(700);
/// By then a producer gives back what it cannot send.
const STALLED_AFTER: Duration = Duration::from_millis(1_300);
/// By then what was acknowledged is written down.
const RESTED_AFTER: Duration = Duration::from_millis(2_400);
/// How far apart rotations are of which logship must see each.
const GENERATION: Duration = Duration::from_millis(250);
/// How long acknowledgements may be late after the broker was mended.
const DISTURBED_FOR: Duration = Duration::from_secs(5);
/// Why there may be bytes that were not seen, after all were.
const AFTERWARDS: &str = "written after the last look";
const PARTITIONS: i32 = 3;
/// What a broker does wrong, see [`Misdeed`].
const CUTS: &[Misdeed] = &[
    Misdeed::CutBefore,
    Misdeed::CutAfter,
    Misdeed::CutMidAnswer,
    Misdeed::Delay(Duration::from_millis(300)),
];
const NOT_KAFKA: &[Misdeed] = &[
    Misdeed::Garbage,
    Misdeed::Nonsense,
    Misdeed::AbsurdCounts,
    Misdeed::WrongCorrelation,
];
const OUT_OF_ORDER: &[Misdeed] = &[Misdeed::Error(45)];
const REFUSALS: &[Misdeed] = &[
    Misdeed::Error(6),
    Misdeed::Error(7),
    Misdeed::ErrorAfterAppend(7),
];
/// What it may use when it is built for debugging.
const MEMORY_MAX: u64 = 96 << 20;
const HANDLES_MAX: usize = 600;
const THREADS_MAX: usize = 120;

/// How a file's names are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A pattern that holds the names of rotated files too.
    Wide,
    /// A pattern of the names that are written to.
    Narrow,
    /// One path.
    Named,
    /// A pattern of symbolic links to files elsewhere.
    Linked,
    /// Like wide, with a topic whose lines are dropped when the queue is full.
    Drop,
}

impl Kind {
    const ALL: [Kind; 5] = [
        Kind::Wide,
        Kind::Narrow,
        Kind::Named,
        Kind::Linked,
        Kind::Drop,
    ];

    /// Whether rotated files are looked for by name.
    fn is_wide(self) -> bool {
        matches!(self, Kind::Wide | Kind::Drop)
    }

    /// The topic it has at first, and another one.
    fn topics(self) -> [&'static str; 2] {
        match self {
            Kind::Wide => ["wide", "wide-too"],
            Kind::Narrow => ["narrow", "narrow-too"],
            Kind::Named => ["named", "named-too"],
            Kind::Linked => ["linked", "linked-too"],
            Kind::Drop => ["drop", "drop-too"],
        }
    }

    fn dir(self) -> &'static str {
        match self {
            Kind::Wide => "wide",
            Kind::Narrow => "narrow",
            Kind::Named => "named",
            Kind::Linked => "linked",
            Kind::Drop => "drop",
        }
    }
}

/// What happens in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    Write,
    WriteMuch,
    WriteAll,
    Part,
    Rotate,
    RotateOften,
    Replace,
    Recreate,
    Delete,
    RemoveDir,
    Away,
    Truncate,
    TruncateBehind,
    CopyTruncate,
    Hole,
    Rewrite,
    WriteOld,
    LinkAndGo,
    Sleep,
    Stop,
    Kill,
    KillRested,
    Start,
    Reload,
    ReloadBehind,
    Stall,
    Break,
    Mend,
    Settle,
}

const WEIGHTS: &[(usize, Act)] = &[
    (40, Act::Write),
    (4, Act::WriteMuch),
    (5, Act::WriteAll),
    (8, Act::Part),
    (10, Act::Rotate),
    (2, Act::RotateOften),
    (4, Act::Replace),
    (4, Act::Recreate),
    (3, Act::Delete),
    (2, Act::RemoveDir),
    (3, Act::Away),
    (5, Act::Truncate),
    (4, Act::TruncateBehind),
    (4, Act::CopyTruncate),
    (3, Act::Hole),
    (5, Act::Rewrite),
    (12, Act::WriteOld),
    (2, Act::LinkAndGo),
    (4, Act::Sleep),
    (3, Act::Stop),
    (3, Act::Kill),
    (2, Act::KillRested),
    (8, Act::Start),
    (2, Act::Reload),
    (3, Act::ReloadBehind),
    (2, Act::Stall),
    (5, Act::Break),
    (6, Act::Mend),
    (3, Act::Settle),
];

/// A name that is written to.
struct Slot {
    kind: Kind,
    path: PathBuf,
    /// The program that writes it, if it is there.
    writer: Option<Writer>,
    /// One that has not noticed a rotation, and goes on with the old file.
    old: Option<(File, LifeId)>,
    /// `.1`, `.2` and so on.
    rotated: VecDeque<LifeId>,
    /// Names made on the way.
    made: usize,
}

struct Writer {
    file: File,
    /// What is written to, which a symbolic link may lead to.
    path: PathBuf,
    life: LifeId,
    /// The unfinished line: its value, its end, and how much of both is written.
    part: Option<(Vec<u8>, usize)>,
}

/// Figures of the process: the most there was of each.
#[derive(Debug, Default, Clone, Copy)]
pub struct Usage {
    pub memory: u64,
    pub handles: usize,
    pub threads: usize,
}

pub struct Stage {
    seed: u64,
    /// Steps begun.
    pub steps: usize,
    world: Option<World>,
    broker: Broker,
    nodes: usize,
    /// More files than handles: it takes its time to look at all.
    few_handles: bool,
    /// Kinds whose topic was changed: several accounts tell of one position.
    retopicked: HashSet<&'static str>,
    daemon: Option<Shipper>,
    up_since: Instant,
    /// How much of its standard error is read.
    heard: usize,
    /// The end of what daemons of before said.
    said: String,
    slots: Vec<Slot>,
    pub model: Model,
    pub dice: Dice,
    config: Value,
    /// What copytruncate has left.
    copies: Vec<PathBuf>,
    broken: bool,
    /// When the broker was last not at its best.
    disturbed: Option<Instant>,
    /// Inodes that logship has ever been seen to know, and the generation.
    accounts: HashMap<u64, u64>,
    history: VecDeque<String>,
    pub acts: BTreeMap<Act, usize>,
    /// How often the broker was broken.
    pub faults: usize,
    /// Lives that ended when all of their bytes were seen, and others that might not.
    pub seen: (usize, usize),
    pub usage: Usage,
    pub usage_first: Option<Usage>,
}

impl Stage {
    pub fn new(seed: u64) -> Stage {
        let world = World::new();
        let mut dice = Dice::new(seed);
        let nodes = dice.between(1, 4);
        let broker = Broker::builder()
            .nodes(nodes)
            .partitions(PARTITIONS as usize)
            .start();
        for dir in ["away", "targets"] {
            world.dir(dir);
        }
        let mut sources = Vec::new();
        let mut slots = Vec::new();
        for kind in Kind::ALL {
            world.dir(kind.dir());
            for topic in kind.topics() {
                broker.create_topic(topic, PARTITIONS as usize);
            }
            let count = dice.between(1, 4);
            let pattern = match kind {
                Kind::Wide | Kind::Drop => vec!["*.log*".to_owned()],
                Kind::Narrow | Kind::Linked => vec!["*.log".to_owned()],
                Kind::Named => (0..count).map(|n| format!("{n}.log")).collect(),
            };
            for pattern in pattern {
                let mut source = source(&format!("{}/{pattern}", kind.dir()), kind.dir());
                source["line_bytes_max"] = json!(LINE_BYTES_MAX);
                if kind == Kind::Drop {
                    source["when_full"] = json!("drop");
                }
                sources.push(source);
            }
            slots.extend((0..count).map(|n| Slot {
                kind,
                path: world.path(format!("{}/{n}.log", kind.dir())),
                writer: None,
                old: None,
                rotated: VecDeque::new(),
                made: 0,
            }));
        }
        let mut config = to_broker(&broker, Value::Array(sources));
        config["idle_after"] = json!(*dice.pick(&["150ms", "400ms", "5s"]));
        config["queue"] = json!({ "bytes": "1MiB" });
        let few_handles = dice.one_in(4);
        if few_handles {
            config["open_files_max"] = json!(dice.between(2, 4));
        }
        config["kafka"]["compression"] = json!(*dice.pick(&["none", "lz4", "snappy"]));
        config["kafka"]["batch_bytes"] = json!(*dice.pick(&["100KiB", "900KiB"]));
        config["shutdown_timeout"] = json!("2s");
        Stage {
            seed,
            steps: 0,
            world: Some(world),
            broker,
            nodes,
            few_handles,
            retopicked: HashSet::new(),
            daemon: None,
            up_since: Instant::now(),
            heard: 0,
            said: String::new(),
            slots,
            model: Model::default(),
            dice,
            config,
            copies: Vec::new(),
            broken: false,
            disturbed: None,
            accounts: HashMap::new(),
            history: VecDeque::new(),
            acts: BTreeMap::new(),
            faults: 0,
            seen: (0, 0),
            usage: Usage::default(),
            usage_first: None,
        }
    }

    fn world(&self) -> &World {
        self.world
            .as_ref()
            .expect("it is kept or dropped at the end only")
    }

    /// One action, and a pause.
    pub fn step(&mut self) {
        let act = self.dice.weighted(WEIGHTS);
        self.steps += 1;
        *self.acts.entry(act).or_default() += 1;
        let slot = self.dice.below(self.slots.len());
        self.act(act, slot);
        self.listen();
        let pause = match self.dice.below(20) {
            0 => self.dice.between(200, 700),
            1..=4 => self.dice.between(20, 200),
            5..=9 => self.dice.between(0, 20),
            _ => 0,
        };
        sleep(Duration::from_millis(pause as u64));
    }

    fn act(&mut self, act: Act, slot: usize) {
        match act {
            Act::Write => {
                let count = self.dice.between(1, 12);
                self.write(slot, count);
            }
            Act::WriteMuch => {
                let count = self.dice.between(1_000, 12_000);
                self.write(slot, count);
            }
            Act::WriteAll => (0..self.slots.len()).for_each(|slot| self.write(slot, 1)),
            Act::Part => self.write_part(slot),
            Act::Rotate => self.rotate(slot),
            Act::RotateOften => {
                for _ in 0..self.dice.between(2, ROTATED_KEPT + 1) {
                    self.rotate(slot);
                    self.write(slot, 3);
                    sleep(GENERATION);
                }
            }
            Act::Replace => self.replace(slot),
            Act::Recreate => {
                self.delete(slot);
                self.create(slot);
            }
            Act::Delete => self.delete(slot),
            Act::RemoveDir => self.remove_dir(slot),
            Act::Away => self.move_away(slot),
            Act::Truncate => self.truncate(slot, false),
            Act::TruncateBehind => self.truncate_behind(slot),
            Act::CopyTruncate => self.truncate(slot, true),
            Act::Hole => self.leave_hole(slot),
            Act::WriteOld => self.write_old(slot),
            Act::Rewrite => self.rewrite(slot),
            Act::LinkAndGo => self.link(slot),
            Act::Sleep => {
                self.note("sleep".into());
                sleep(Duration::from_millis(900));
            }
            Act::Stop => self.stop(),
            Act::Kill => self.kill(),
            Act::KillRested => self.kill_rested(slot),
            Act::Start => self.start(),
            Act::Reload => self.reload(),
            Act::ReloadBehind => {
                let away = self.dice.one_in(2);
                if away {
                    self.break_broker_by(0);
                } else {
                    self.fall_silent(); // with batches on their way
                }
                self.write(slot, 50);
                sleep(SEEN_AFTER);
                self.reload(); // what the old producers hold comes back
                self.write(slot, 3);
            }
            Act::Stall => self.stall(slot),
            Act::Break => self.break_broker(),
            Act::Mend => self.mend_broker(),
            Act::Settle => self.settle(),
        }
    }

    fn note(&mut self, what: String) {
        if self.history.len() == REMEMBERED_ACTIONS {
            self.history.pop_front();
        }
        self.history.push_back(what);
    }

    fn name(&self, path: &Path) -> String {
        let name = path.strip_prefix(self.world().path("")).unwrap_or(path);
        name.display().to_string()
    }

    // ---- writing -------------------------------------------------------------

    /// The writer of a slot, which opens its file first when it is not there.
    fn create(&mut self, slot: usize) {
        if self.slots[slot].writer.is_some() {
            return;
        }
        let before = self.look();
        self.world().dir(self.slots[slot].kind.dir());
        let path = match self.slots[slot].kind {
            Kind::Linked => self.fresh_target(slot),
            _ => self.slots[slot].path.clone(),
        };
        let file = open_for_append(&path);
        if self.slots[slot].kind == Kind::Linked {
            let _ = fs::remove_file(&self.slots[slot].path);
            symlink(&path, &self.slots[slot].path).unwrap();
        }
        self.begin(slot, file, path, before);
    }

    fn fresh_target(&mut self, slot: usize) -> PathBuf {
        let (made, name) = (self.slots[slot].made, self.slots[slot].path.file_stem());
        let name = format!("{}-{made}.txt", name.unwrap_or_default().display());
        self.slots[slot].made += 1;
        self.world().path("targets").join(name)
    }

    /// A new file is there and begins to be written.
    fn begin(&mut self, slot: usize, file: File, path: PathBuf, before: Option<HashSet<u64>>) {
        let inode = file.metadata().unwrap().ino();
        let name = self.name(&path);
        let equal_head = self.dice.one_in(3);
        let topic = self.slots[slot].kind.dir();
        let life = self.model.begin(topic, inode, &name, equal_head);
        let fresh = before.is_some_and(|known| !known.contains(&inode));
        self.model.life_mut(life).after_generation = fresh.then_some(0);
        if fresh {
            self.accounts.remove(&inode);
        }
        self.note(format!("create {name} inode={inode} life={life}"));
        self.slots[slot].writer = Some(Writer {
            file,
            path,
            life,
            part: None,
        });
    }

    fn writer(&mut self, slot: usize) -> &mut Writer {
        self.create(slot);
        self.slots[slot].writer.as_mut().expect("it was just made")
    }

    fn write(&mut self, slot: usize, count: usize) {
        self.finish_part(slot);
        let life = self.writer(slot).life;
        let bytes = self.model.lines(life, count, &mut self.dice);
        self.writer(slot).file.write_all(&bytes).unwrap();
        let len = self.model.life(life).len;
        self.note(format!("write life={life} lines={count} to={len}"));
    }

    /// Some of a line; the next who writes finishes it.
    fn write_part(&mut self, slot: usize) {
        self.finish_part(slot);
        let life = self.writer(slot).life;
        let line = self.model.line(life, false, &mut self.dice);
        let cut = self.dice.between(1, line.len());
        // NUL bytes at its end would look like room that a writer has made, and are not known.
        let cut = (1..=cut).rev().find(|at| line[at - 1] != 0).unwrap_or(1);
        self.model.is_partial(life, cut);
        let writer = self.writer(slot);
        writer.file.write_all(&line[..cut]).unwrap();
        writer.part = Some((line, cut));
        let len = self.model.life(life).len;
        self.note(format!("part life={life} to={len}"));
    }

    fn finish_part(&mut self, slot: usize) {
        let Some(writer) = &mut self.slots[slot].writer else {
            return;
        };
        let Some((line, cut)) = writer.part.take() else {
            return;
        };
        writer.file.write_all(&line[cut..]).unwrap();
        let life = writer.life;
        let value = line.strip_suffix(b"\n").expect("every line has its end");
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        self.model.is_whole(life, value, line.len() - cut);
        let len = self.model.life(life).len;
        self.note(format!("rest life={life} to={len}"));
    }

    // ---- rotation ------------------------------------------------------------

    /// `.1` becomes `.2`, the file becomes `.1`; its writer may go on for a moment.
    fn rotate(&mut self, slot: usize) {
        self.create(slot);
        self.note(format!(
            "rotate {}",
            self.name(&self.slots[slot].path.clone())
        ));
        if self.slots[slot].kind == Kind::Linked {
            return self.switch(slot);
        }
        let path = self.slots[slot].path.clone();
        let old = |n: usize| PathBuf::from(format!("{}.{n}", path.display()));
        if self.slots[slot].rotated.len() == ROTATED_KEPT {
            let life = *self.slots[slot].rotated.back().expect("it holds some");
            let unseen = self.lets_see(life);
            self.slots[slot].rotated.pop_back();
            fs::remove_file(old(ROTATED_KEPT)).unwrap();
            self.lost_its_name(life, unseen);
        }
        for n in (1..=self.slots[slot].rotated.len()).rev() {
            fs::rename(old(n), old(n + 1)).unwrap();
        }
        self.look();
        fs::rename(&path, old(1)).unwrap();
        let life = self.writer(slot).life;
        self.slots[slot].rotated.push_front(life);
        self.was_renamed(slot, life);
        self.go_on(slot, life);
    }

    /// The link leads to a new file; the old one stays where it is.
    fn switch(&mut self, slot: usize) {
        let life = self.writer(slot).life;
        let before = self.look();
        let target = self.fresh_target(slot);
        let file = open_for_append(&target);
        let fresh = self.world().path("targets/link");
        symlink(&target, &fresh).unwrap();
        fs::rename(fresh, &self.slots[slot].path).unwrap();
        self.was_renamed(slot, life);
        self.go_on(slot, life);
        self.begin(slot, file, target, before);
    }

    /// The writer of a file that is rotated finishes its line, and may write more
    /// before it opens the new one.
    fn go_on(&mut self, slot: usize, life: LifeId) {
        let from = self.model.life(life).len;
        self.finish_part(slot);
        if self.dice.one_in(3) {
            let count = self.dice.between(1, 5);
            self.write(slot, count);
        }
        let wide = self.slots[slot].kind.is_wide();
        let inode = self.model.life(life).inode;
        if !wide && !self.holds(inode) && self.model.life(life).known.is_none() {
            self.model.is_free_from(life, from);
        }
        let writer = self.slots[slot].writer.take().expect("it went on");
        if !self.model.life(life).is_over() {
            self.slots[slot].old = Some((writer.file, life));
        }
    }

    /// A writer that has not noticed a rotation long ago.
    fn write_old(&mut self, slot: usize) {
        let count = self.dice.between(1, 8);
        let Some((mut file, life)) = self.slots[slot].old.take() else {
            return self.write(slot, 1);
        };
        let wide = self.slots[slot].kind.is_wide();
        if self.model.life(life).is_over() || (!wide && self.daemon.is_none()) {
            return;
        }
        let bytes = self.model.lines(life, count, &mut self.dice);
        file.write_all(&bytes).unwrap();
        let len = self.model.life(life).len;
        self.note(format!("write on life={life} lines={count} to={len}"));
        self.slots[slot].old = Some((file, life));
    }

    /// What was read to its end is not looked for by another logship, unless its
    /// name fits the pattern.
    fn old_writers_end(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| !slot.kind.is_wide()) {
            slot.old = None;
        }
    }

    /// A file has another name in its directory: it must be found there, unless
    /// nobody has seen it under its first one.
    fn was_renamed(&mut self, slot: usize, life: LifeId) {
        let wide = self.slots[slot].kind.is_wide();
        let known = self.model.life(life).known.is_some();
        let inode = self.model.life(life).inode;
        if !wide && !known && !self.holds(inode) {
            let unseen = "rotated before it was seen";
            self.model.ends(life, Fate::Free(unseen), unseen);
        }
    }

    /// A new file is moved over it.
    fn replace(&mut self, slot: usize) {
        self.create(slot);
        self.finish_part(slot);
        if self.slots[slot].kind == Kind::Linked {
            return self.rotate(slot);
        }
        let life = self.writer(slot).life;
        let unseen = self.lets_see(life);
        let before = self.look();
        let path = self.slots[slot].path.clone();
        let fresh = self.world().path("away/new");
        let file = open_for_append(&fresh);
        self.note(format!("replace {} life={life}", self.name(&path)));
        fs::rename(&fresh, &path).unwrap();
        self.lost_its_name(life, unseen);
        self.begin(slot, file, path, before);
    }

    fn delete(&mut self, slot: usize) {
        self.create(slot);
        let late = self.dice.one_in(2);
        if !late {
            self.finish_part(slot);
        }
        let Writer { life, path, .. } = self.writer(slot);
        let (life, path) = (*life, path.clone());
        let unseen = self.lets_see(life);
        self.note(format!(
            "delete {} life={life} late={late}",
            self.name(&path)
        ));
        fs::remove_file(&path).unwrap();
        let held = self.lost_its_name(life, unseen);
        let from = self.model.life(life).len;
        self.finish_part(slot);
        if !held {
            self.model.is_free_from(life, from);
        }
        if self.slots[slot].kind == Kind::Linked {
            fs::remove_file(&self.slots[slot].path).unwrap();
        }
        self.slots[slot].writer = None;
    }

    /// A directory goes with all that is in it; whoever writes there next makes it anew.
    fn remove_dir(&mut self, slot: usize) {
        let kind = self.slots[slot].kind;
        let named = self.lives_with_a_name();
        let mut linked = self.model.unlink_all(kind.dir()); // they go with it
        linked.retain(|life| !named.contains(life));
        let linked: Vec<(LifeId, &str)> = linked
            .into_iter()
            .map(|life| (life, self.lets_see(life)))
            .collect();
        let slots = 0..self.slots.len();
        for slot in slots
            .filter(|slot| self.slots[*slot].kind == kind)
            .collect::<Vec<_>>()
        {
            let path = self.slots[slot].path.clone();
            while let Some(life) = self.slots[slot].rotated.back().copied() {
                let n = self.slots[slot].rotated.len();
                let unseen = self.lets_see(life);
                self.slots[slot].rotated.pop_back();
                fs::remove_file(format!("{}.{n}", path.display())).unwrap();
                self.lost_its_name(life, unseen);
            }
            self.slots[slot].old = None;
            self.delete(slot);
        }
        self.note(format!("remove {}", kind.dir()));
        fs::remove_dir_all(self.world().path(kind.dir())).unwrap();
        for (life, unseen) in linked {
            self.lost_its_name(life, unseen);
        }
    }

    /// Out of the directory, and out of what anything looks for.
    fn move_away(&mut self, slot: usize) {
        self.create(slot);
        self.finish_part(slot);
        let Writer { life, path, .. } = self.writer(slot);
        let (life, path) = (*life, path.clone());
        let unseen = self.lets_see(life);
        let whereto = self.world().path(format!("away/{life}"));
        self.note(format!("move {} away life={life}", self.name(&path)));
        fs::rename(&path, whereto).unwrap();
        self.lost_its_name(life, unseen);
        if self.slots[slot].kind == Kind::Linked {
            fs::remove_file(&self.slots[slot].path).unwrap();
        }
        self.slots[slot].writer = None;
    }

    /// Nothing leads to a file any more but a handle, if there is one. True if so.
    fn lost_its_name(&mut self, id: LifeId, unseen: &'static str) -> bool {
        let life = self.model.life(id);
        if life.links > 0 {
            return true;
        }
        // With few handles it may be about to let go of it.
        let held = self.holds(life.inode);
        if held && !self.few_handles {
            self.model.is_held(id, unseen);
        } else {
            self.model.ends(id, Fate::ArrivesOrIsReported, unseen);
        }
        self.note(format!("  held={held} {}", self.model.life(id).shown()));
        held
    }

    fn link(&mut self, slot: usize) {
        self.create(slot);
        if !self.slots[slot].kind.is_wide() {
            return self.write(slot, 1);
        }
        let Writer { life, path, .. } = self.writer(slot);
        let (life, path) = (*life, path.clone());
        let name = path.with_extension(format!("log-link{life}"));
        if fs::hard_link(&path, &name).is_ok() {
            self.note(format!("link {} life={life}", self.name(&name)));
            self.model.life_mut(life).links += 1;
        }
    }

    // ---- truncation ------------------------------------------------------------

    /// Empties the file in place, with or without a copy first.
    fn truncate(&mut self, slot: usize, copy: bool) {
        let clean = self.before_overwriting(slot);
        let Writer { life, path, .. } = self.writer(slot);
        let (life, path) = (*life, path.clone());
        if copy && !self.slots[slot].kind.is_wide() {
            // Where rotated files stand, but not under a name that one of them needs.
            let copy = PathBuf::from(format!("{}-{life}", path.display()));
            fs::copy(&path, &copy).unwrap();
            // Of a copy that was taken for a file, losses are told like of any.
            self.model.is_copy(fs::metadata(&copy).unwrap().ino());
            self.copies.push(copy);
            let up_since = self.daemon.as_ref().map(|_| self.up_since);
            self.model.is_copied(life, up_since);
        }
        let unseen = self.lets_see(life);
        self.note(format!(
            "truncate {} life={life} clean={clean}",
            self.name(&path)
        ));
        self.writer(slot).file.set_len(0).unwrap();
        self.next_life(slot, clean, unseen);
        if self.dice.one_in(2) {
            let count = self.dice.between(1, 40);
            self.write(slot, count);
        }
    }

    /// A writer that does not append goes on at its place in an emptied file.
    fn leave_hole(&mut self, slot: usize) {
        self.write(slot, 1);
        let life = self.writer(slot).life;
        let size = self.model.life(life).len;
        let count = self.dice.between(1, 9);
        if size > HOLE_MAX || self.daemon.is_none() || self.broken {
            return;
        }
        self.waits_for(&format!("life {life} to arrive"), |stage| {
            stage.model.has_arrived(life)
        });
        self.note(format!(
            "truncate life={life}, its writer goes on at {size}"
        ));
        self.writer(slot).file.set_len(0).unwrap();
        self.next_life(slot, true, "");
        let life = self.writer(slot).life;
        self.model.has_hole(life, size);
        let bytes = self.model.lines(life, count, &mut self.dice);
        let path = self.writer(slot).path.clone();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&bytes, size).unwrap();
    }

    /// Lines that are seen and cannot be shipped are truncated: all of them are lost,
    /// or none of those that had left.
    fn truncate_behind(&mut self, slot: usize) {
        self.write(slot, 3);
        self.break_broker_by(0);
        let count = self.dice.between(1, 200);
        self.write(slot, count);
        sleep(SEEN_AFTER);
        self.truncate(slot, false);
    }

    /// Other content in place: shorter, as long, or longer.
    fn rewrite(&mut self, slot: usize) {
        let clean = self.before_overwriting(slot);
        let life = self.writer(slot).life;
        let size = self.model.life(life).len;
        sleep(CLOCK_TICK);
        let unseen = self.lets_see(life);
        let whole = self.dice.one_in(2);
        if whole {
            self.writer(slot).file.set_len(0).unwrap();
        }
        let life = self.writer(slot).life;
        self.note(format!(
            "rewrite life={life} clean={clean} truncated first={whole}"
        ));
        self.next_life(slot, clean, unseen);
        let life = self.writer(slot).life;
        let count = self.dice.between(1, 30);
        let bytes = self.model.lines(life, count, &mut self.dice);
        let path = self.writer(slot).path.clone();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        if !whole && (bytes.len() as u64) < size {
            file.set_len(bytes.len() as u64).unwrap();
        }
        self.note(format!("  {size} bytes became {}", bytes.len()));
    }

    /// Half of the time everything is shipped before, so that nothing is lost.
    fn before_overwriting(&mut self, slot: usize) -> bool {
        let clean = self.dice.one_in(2);
        self.create(slot);
        if !clean || self.daemon.is_none() || self.broken {
            return false;
        }
        self.finish_part(slot);
        let life = self.writer(slot).life;
        self.waits_for(&format!("life {life} to arrive"), |stage| {
            stage.model.has_arrived(life)
        });
        true
    }

    /// Before the bytes of a life go: mostly waits until logship knows all of them,
    /// so that what is lost must be told to the byte. Otherwise, why it may not.
    fn lets_see(&mut self, id: LifeId) -> &'static str {
        let patient = !self.dice.one_in(6);
        self.look();
        if self.daemon.is_none() {
            return "gone while logship was down";
        }
        let seen = |stage: &Stage| {
            let life = stage.model.life(id);
            life.seen >= life.len || stage.model.has_arrived(id)
        };
        if seen(self) {
            self.seen.0 += 1;
            return AFTERWARDS;
        }
        if !patient || self.few_handles {
            self.seen.1 += 1;
            return "gone before a look";
        }
        self.waits_for(&format!("life {id} to be seen"), |stage| {
            stage.look();
            seen(stage)
        });
        self.seen.0 += 1;
        AFTERWARDS
    }

    fn next_life(&mut self, slot: usize, clean: bool, unseen: &'static str) {
        let writer = self.slots[slot]
            .writer
            .as_mut()
            .expect("a file that is truncated");
        writer.part = None;
        let (old, path) = (writer.life, writer.path.clone());
        let inode = self.model.life(old).inode;
        let known = self.model.life(old).known.is_some();
        self.model.ends(old, Fate::ArrivesOrIsReported, unseen);
        let (links, name) = (self.model.life(old).links, self.name(&path));
        let equal_head = clean && self.dice.one_in(3);
        let life = self
            .model
            .begin(self.slots[slot].kind.dir(), inode, &name, equal_head);
        self.model.is_rewritten(old, life);
        let next = self.model.life_mut(life);
        next.links = links;
        next.after_generation = self
            .accounts
            .get(&inode)
            .filter(|_| known)
            .map(|account| account + 1);
        self.slots[slot].writer.as_mut().expect("as before").life = life;
    }

    // ---- logship -----------------------------------------------------------------

    pub fn start(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        self.note("start".into());
        (self.heard, self.up_since) = (0, Instant::now());
        self.daemon = Some(self.world().run(&self.config).start());
    }

    fn stop(&mut self) {
        self.look();
        let Some(daemon) = self.daemon.take() else {
            return;
        };
        self.note("stop".into());
        self.old_writers_end();
        daemon.says(RUNNING);
        self.daemon = Some(daemon);
        self.listen();
        let daemon = self.daemon.take().expect("as before");
        let (disturbed, heard) = (self.is_disturbed(), self.heard);
        let ended = daemon.stop();
        self.hear(&ended.stderr[heard..]);
        let code = ended.status.code();
        self.note(format!("  stopped with {code:?}"));
        match code {
            Some(0) => {}
            Some(3) if disturbed => self.crashed(true),
            _ => self.wrong(format!("a stop ended with {code:?}")),
        }
        self.check_summary(&ended.stderr);
        self.keep_said(&ended.stderr);
        self.model.stopped();
    }

    fn kill(&mut self) {
        let Some(daemon) = self.daemon.take() else {
            return;
        };
        self.note("kill".into());
        self.old_writers_end();
        let (disturbed, heard) = (self.is_disturbed(), self.heard);
        daemon.signal(Signal::KILL);
        let ended = daemon.ends();
        self.hear(&ended.stderr[heard..]);
        self.keep_said(&ended.stderr);
        self.crashed(disturbed);
        let slots = &self.slots;
        let named = |id: &LifeId| {
            let mut written = slots.iter().filter_map(|slot| slot.writer.as_ref());
            written.any(|writer| writer.life == *id)
        };
        let wide = |life: &Life| [Kind::Wide.dir(), Kind::Drop.dir()].contains(&life.topic);
        self.model.killed(|id, life| !wide(life) && !named(id));
    }

    /// A kill after everything was acknowledged, and had the time to be written down:
    /// nothing may come twice.
    fn kill_rested(&mut self, slot: usize) {
        self.write(slot, 20);
        let life = self.writer(slot).life;
        if self.daemon.is_some() && !self.broken {
            self.waits_for(&format!("life {life} to arrive"), |stage| {
                stage.model.has_arrived(life)
            });
            self.look();
            sleep(RESTED_AFTER);
        }
        self.kill();
    }

    /// Logship ended, and may not have written down what has arrived.
    fn crashed(&mut self, disturbed: bool) {
        self.listen();
        let checkpoint = self.world().state_dir().join("checkpoint.json");
        let age = fs::metadata(checkpoint).and_then(|meta| meta.modified());
        let written = age
            .ok()
            .and_then(|at| Instant::now().checked_sub(at.elapsed().unwrap_or_default()));
        let producer = self.broker.producer_id();
        self.model.crashed(written, producer, disturbed);
    }

    fn reload(&mut self) {
        let linger = self.dice.between(1, 30);
        self.config["kafka"]["linger"] = json!(format!("{linger}ms"));
        self.change_a_source();
        self.world()
            .replace_config(&text(&self.config), Replace::Rename);
        if let Some(daemon) = &self.daemon {
            daemon.says(RUNNING);
            daemon.signal(Signal::HUP);
            self.note(format!("reload linger={linger}ms"));
            // New producers start, and what the old ones return may be there already.
            self.disturbed = Some(Instant::now());
        }
    }

    /// Another topic, format or label for one of the sources.
    fn change_a_source(&mut self) {
        let sources = self.config["sources"].as_array_mut().expect("made so");
        let at = self.dice.below(sources.len());
        let source = &mut sources[at];
        let what = match self.dice.below(4) {
            0 => {
                let topic = source["topic"].as_str().expect("every source has one");
                let mut topics = Kind::ALL.into_iter().map(Kind::topics);
                let both = topics.find(|both| both.contains(&topic)).expect("as above");
                let other = usize::from(both[0] == topic);
                source["topic"] = json!(both[other]);
                self.retopicked.insert(both[0]);
                self.model.turns(both[0]);
                "topic"
            }
            1 => {
                let json = source["format"] == json!("json");
                source["format"] = json!(if json { "raw" } else { "json" });
                "format"
            }
            2 => {
                source["labels"] = json!({ "n": self.dice.below(1_000).to_string() });
                "labels"
            }
            _ => return,
        };
        self.note(format!(
            "source {at}: another {what}: {}",
            self.config["sources"][at]
        ));
    }

    fn check_summary(&mut self, stderr: &str) {
        let Some(line) = stderr
            .lines()
            .rev()
            .find(|line| line.contains("known_bytes="))
        else {
            return self.wrong("there is no summary".into());
        };
        let sum: u64 = [
            "acked_bytes",
            "lag",
            "dropped_bytes",
            "dead_letter_bytes",
            "lost_bytes",
        ]
        .iter()
        .filter_map(|key| figure(line, key))
        .sum();
        if figure(line, "known_bytes") != Some(sum) {
            self.wrong(format!("the summary does not add up to {sum}: {line}"));
        }
    }

    /// Reads what has arrived and what was said.
    fn listen(&mut self) {
        for kind in Kind::ALL {
            for (name, topic) in kind.topics().into_iter().enumerate() {
                for record in self.broker.take_records(topic) {
                    self.model.arrived(kind.dir(), name, &record);
                }
            }
        }
        for violation in self.broker.violations() {
            self.wrong(format!("the broker saw: {violation}"));
        }
        if let Some(daemon) = &mut self.daemon {
            if daemon.has_ended() {
                self.wrong("logship ended by itself".into());
            }
            let said = self
                .daemon
                .as_ref()
                .expect("as before")
                .stderr_since(self.heard);
            self.heard += said.len();
            self.hear(&said);
        }
        self.verdict();
    }

    fn hear(&mut self, said: &str) {
        for line in said.lines() {
            if line.contains(" lost path=") {
                match Loss::in_line(line) {
                    Some(loss) => self.model.reported(loss),
                    None => self.wrong(format!("a loss that cannot be read: {line}")),
                }
            } else if let Some(drop) = Loss::by_choice_in_line(line) {
                self.model.dropped(&drop);
            } else if line.contains("panicked") || line.contains("failed and is started again") {
                self.wrong(format!("it said: {line}"));
            }
        }
    }

    fn keep_said(&mut self, stderr: &str) {
        let from = self.said.len().saturating_sub(20_000);
        let from = (from..)
            .find(|at| self.said.is_char_boundary(*at))
            .unwrap_or(0);
        self.said = format!("{}{stderr}--- it ended\n", &self.said[from..]);
    }

    /// What logship knows of each file, where it can be asked; the inodes.
    fn look(&mut self) -> Option<HashSet<u64>> {
        self.daemon.as_ref()?;
        let report = self.world().status();
        self.learn(&report);
        for life in self.lives_with_a_name() {
            if !self.few_handles {
                self.model.notices(life, self.up_since);
            }
        }
        Some(report.files.iter().map(|file| file.inode).collect())
    }

    fn learn(&mut self, report: &Report) {
        for file in &report.files {
            let account = self.accounts.entry(file.inode).or_default();
            *account = (*account).max(file.generation);
        }
        for file in &report.files {
            let newest = self.accounts[&file.inode];
            let Some(life) = self.model.newest_of(file.inode) else {
                continue;
            };
            let is_of_it = life
                .after_generation
                .is_some_and(|least| file.generation >= least);
            if file.generation == newest && (life.known.is_some() || is_of_it) {
                Model::sees(life, file.size);
                if !self.retopicked.contains(life.topic) {
                    Model::acked(life, file.position);
                }
            }
        }
    }

    /// Whether logship has a file open.
    fn holds(&self, inode: u64) -> bool {
        let Some(daemon) = &self.daemon else {
            return false;
        };
        let handles = fs::read_dir(format!("/proc/{}/fd", daemon.pid()));
        let is_it = |path: PathBuf| {
            fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.ino() == inode)
        };
        handles
            .into_iter()
            .flatten()
            .flatten()
            .any(|handle| is_it(handle.path()))
    }

    // ---- the broker ----------------------------------------------------------------

    fn is_disturbed(&self) -> bool {
        let lately = |at: Instant| at.elapsed() < DISTURBED_FOR;
        self.broken || self.disturbed.is_some_and(lately)
    }

    fn break_broker(&mut self) {
        let how = self.dice.below(10);
        self.break_broker_by(how);
    }

    fn break_broker_by(&mut self, how: usize) {
        let seed = self.dice.throw();
        let node = self.dice.below(self.nodes) as i32 + 1;
        self.broker.clear_faults();
        let fault = |one_in, misdeeds: &[Misdeed]| Fault::mix(seed, one_in, misdeeds);
        match how {
            0 => self.broker.pause(),
            1 => self.broker.read_slowly(Some(200_000)),
            2 => {
                self.broker.pause();
                self.broker.resume();
            }
            3 => self.broker.fault(fault(4, CUTS)),
            4 => self.broker.fault(fault(6, NOT_KAFKA)),
            5 => self.broker.fault(fault(8, &[Misdeed::Silence])),
            6 => self.broker.pause_node(node),
            7 => self.move_leaders(node),
            // A broker that takes a batch and says that it is out of order would make it
            // come twice: that is for one that takes none.
            8 if !self.is_disturbed() => self
                .broker
                .fault(fault(2, OUT_OF_ORDER).on(ApiKey::Produce)),
            _ => self.broker.fault(fault(3, REFUSALS).on(ApiKey::Produce)),
        }
        self.faults += 1;
        self.note(format!("break the broker, way {how}"));
        self.broken = true;
    }

    /// No batch is processed or answered from now on.
    fn fall_silent(&mut self) {
        self.faults += 1;
        self.note("the broker falls silent".into());
        self.broker.clear_faults();
        let silence = Fault::of(Misdeed::Silence).on(ApiKey::Produce);
        self.broker.fault(silence);
        self.broken = true;
    }

    /// More than the queue holds waits for a broker that takes nothing, so that it
    /// comes back; and then for one that takes all.
    fn stall(&mut self, slot: usize) {
        let way = *self.dice.pick(&[0, 8]);
        self.break_broker_by(way);
        for slot in [slot, (slot + 1) % self.slots.len(), slot] {
            self.write(slot, 2_000);
        }
        sleep(STALLED_AFTER);
        self.mend_broker();
        self.write(slot, 100);
    }

    fn move_leaders(&mut self, node: i32) {
        for topic in Kind::ALL.into_iter().flat_map(Kind::topics) {
            for partition in 0..PARTITIONS {
                self.broker.move_leader(topic, partition, node);
            }
        }
    }

    fn mend_broker(&mut self) {
        if self.broken {
            self.note("mend the broker".into());
            self.disturbed = Some(Instant::now());
        }
        self.broken = false;
        self.broker.clear_faults();
        self.broker.read_slowly(None);
        self.broker.pause(); // connections that fell silent would be waited for
        self.broker.resume();
    }

    // ---- judgement -------------------------------------------------------------------

    /// Everything is mended, written to its end and waited for; then nothing may
    /// be missing that has no excuse.
    pub fn settle(&mut self) {
        self.note("settle".into());
        self.mend_broker();
        self.start();
        for slot in 0..self.slots.len() {
            self.finish_part(slot);
            self.write(slot, 1);
        }
        self.waits_for("everything to arrive or to be reported", |stage| {
            stage.model.waits_for().is_none()
        });
        let mut last = None;
        self.waits_for("no lag", |stage| {
            let report = stage.world().status();
            let lag: u64 = report.topics.values().map(|topic| topic.lag_bytes).sum();
            last = Some(report);
            lag == 0
        });
        let report = last.expect("it was asked");
        self.learn(&report);
        self.check_report(&report);
        self.listen();
        let kept = self.lives_with_a_name();
        for life in self.model.not_among(&kept) {
            self.model.ends(life, Fate::Arrives, "");
        }
        self.model.judge(&kept);
        self.check_usage();
        self.tidy();
        self.verdict();
    }

    fn check_report(&mut self, report: &Report) {
        for (name, topic) in &report.topics {
            let lost: u64 = topic.lost_bytes.values().sum();
            let dropped: u64 = topic.dropped_bytes.values().sum();
            let sum = topic.acked_bytes + topic.lag_bytes + dropped + lost;
            let holes = topic.dropped_bytes.get("nul_hole").copied().unwrap_or(0);
            let by_choice = name.starts_with(Kind::Drop.dir());
            let wrongly = dropped > holes && !by_choice || holes > self.model.holes;
            if sum != topic.known_bytes || wrongly {
                self.wrong(format!("topic {name} does not add up: {topic:?}"));
            }
            if !topic.dead_letter_lines.is_empty() {
                self.wrong(format!("topic {name} has dead letters: {topic:?}"));
            }
        }
        for (name, task) in report.tasks.iter().filter(|(_, task)| task.restarts > 0) {
            self.wrong(format!("task {name} failed: {task:?}"));
        }
    }

    fn check_usage(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let now = Usage {
            memory: daemon.peak_memory(),
            handles: daemon.open_files().len(),
            threads: daemon.threads(""),
        };
        self.usage_first.get_or_insert(now);
        self.usage = Usage {
            memory: self.usage.memory.max(now.memory),
            handles: self.usage.handles.max(now.handles),
            threads: self.usage.threads.max(now.threads),
        };
        if now.memory > MEMORY_MAX || now.handles > HANDLES_MAX || now.threads > THREADS_MAX {
            self.wrong(format!("it uses too much: {now:?}"));
        }
    }

    /// Those that are written to or were rotated.
    fn lives_with_a_name(&self) -> HashSet<LifeId> {
        let rotated = self
            .slots
            .iter()
            .flat_map(|slot| slot.rotated.iter().copied());
        let written = self
            .slots
            .iter()
            .filter_map(|slot| Some(slot.writer.as_ref()?.life));
        rotated.chain(written).collect()
    }

    /// What is settled and out of sight is removed.
    fn tidy(&mut self) {
        let used: HashSet<PathBuf> = self
            .slots
            .iter()
            .filter_map(|slot| Some(slot.writer.as_ref()?.path.clone()))
            .collect();
        let world = self.world();
        for dir in ["away", "targets", "wide"] {
            for entry in fs::read_dir(world.dir(dir)).unwrap().flatten() {
                let linked = entry.file_name().to_string_lossy().contains("log-link");
                if (linked || dir != "wide") && !used.contains(&entry.path()) {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        for copy in self.copies.drain(..) {
            let _ = fs::remove_file(copy); // it may be among the targets
        }
        for life in self.model.alive() {
            life.links = 0;
        }
    }

    fn waits_for(&mut self, what: &str, mut done: impl FnMut(&mut Stage) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.listen();
            if done(self) {
                return;
            }
            if Instant::now() > deadline {
                let late = self
                    .model
                    .waits_for()
                    .unwrap_or_else(|| format!("{:#?}", self.world().status()));
                self.wrong(format!("waited in vain for {what}: {late}"));
                self.verdict();
            }
            sleep(LOOK_EVERY);
        }
    }

    fn wrong(&mut self, what: String) {
        self.model.wrong.push(what);
    }

    /// Ends the run when something is wrong.
    fn verdict(&mut self) {
        let wrong = std::mem::take(&mut self.model.wrong);
        let shown = &wrong[..wrong.len().min(SHOWN_MAX)];
        assert!(
            wrong.is_empty(),
            "{} things are wrong:\n{}",
            wrong.len(),
            shown.join("\n")
        );
    }

    /// All that is known of a run.
    fn tell(&self) {
        let said = self
            .daemon
            .as_ref()
            .map(Shipper::stderr)
            .unwrap_or_default();
        let said = format!("{}{said}", self.said);
        let said: Vec<&str> = said.lines().collect();
        eprintln!(
            "--- the same again: LOGSHIP_SOAK_SEED={} LOGSHIP_SOAK_STEPS={} cargo test --test blackbox -- --exact soak::random_actions_lose_nothing\n--- last actions:\n    {}\n--- standard error:\n{}\n--- files:\n{}",
            self.seed,
            self.steps,
            Vec::from(self.history.clone()).join("\n    "),
            said[said.len().saturating_sub(SAID_MAX)..].join("\n"),
            listing(&self.world().path("")),
        );
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        if std::env::var_os("LOGSHIP_SOAK_KEEP").is_some() {
            let world = self.world.take().expect("it is taken here only");
            eprintln!("kept: {}", world.keep().display());
        }
    }
}

fn open_for_append(path: &Path) -> File {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap()
}
