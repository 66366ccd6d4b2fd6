//! What was written, what has arrived, and what may be missing.
//!
//! A file is a row of *lives*: each begins with an empty file and ends when its
//! bytes are truncated, overwritten or out of reach. Every line knows its life
//! and its number, so that a record says by itself which line it is. Nothing
//! here touches a file or a process; it is told what happened and judges.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use crate::broker::Record;
use crate::dice::Dice;
use crate::world::Loss;

/// Topics of the source that gives lines up.
const DROPS: [&str; 2] = ["drop", "drop-too"];

/// Longest line shipped in full; the config of a soak says so.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// What logship writes down once a second, and a busy disk takes later: how old a
/// checkpoint may be at most. What may come twice is what came after it was written.
const WRITTEN_DOWN_AFTER: Duration = Duration::from_secs(8);
/// How long it takes from the ledger to the checkpoint's file.
const WRITING: Duration = Duration::from_millis(300);
/// How soon logship knows that a record has arrived, when nothing is in the way.
const ACKED_AFTER: Duration = Duration::from_millis(500);
/// How long a line that has arrived is remembered, to know it when it comes twice.
const REMEMBERED: Duration = Duration::from_secs(10);
/// How soon logship notices whatever is done to a file, on a loaded machine.
const NOTICED_AFTER: Duration = Duration::from_secs(3);
/// Judgements after which nothing is said of a life any more.
const ROUNDS_KEPT: usize = 4;
/// A beginning that many files share, longer than the fingerprint of a head.
const EQUAL_HEAD: &[u8] = &[b'='; 1_200];

/// How a line may end.
const ENDS: [&[u8]; 2] = [b"\n", b"\r\n"];

pub type LifeId = usize;

/// What must become of lines that have not arrived yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They arrive: the file can be read.
    Arrives,
    /// They arrive or are reported as lost, as far as logship knew of them.
    ArrivesOrIsReported,
    /// Nothing can be asked: why.
    Free(&'static str),
}

#[derive(Debug)]
struct Line {
    from: u64,
    to: u64,
    /// Of the record that it becomes; none for an empty one, which all look alike.
    hash: Option<u64>,
    /// ... and of its text, where bytes that are none are replaced.
    text_hash: Option<u64>,
    arrived: Option<Arrival>,
    /// When `/status` first said that it is acknowledged.
    told: Option<Instant>,
    /// Logship said that it gave it up by choice.
    dropped: bool,
    /// It was counted as one that need not arrive.
    excused: bool,
    /// Written where nobody needs to look any more.
    free: bool,
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: Instant,
    /// Who sent it: a logship that starts later has higher numbers.
    producer: i64,
}

/// What one file held between two truncations.
#[derive(Debug)]
pub struct Life {
    pub topic: &'static str,
    pub inode: u64,
    /// Its name, for people.
    pub name: String,
    /// Bytes written.
    pub len: u64,
    lines: VecDeque<Line>,
    /// Lines before `lines`, which have arrived and are forgotten.
    forgotten: usize,
    /// The highest number that has arrived under each name of its topic.
    latest: [Option<usize>; 2],
    /// Where an unfinished line begins.
    partial: Option<u64>,
    pub fate: Fate,
    /// The bytes that logship has known of, at least.
    pub seen: u64,
    /// Why there may be more than that, when it is over.
    unseen: &'static str,
    /// Bytes at its beginning that it has in common with what took its place.
    kept: u64,
    /// The number of the first line that is not told to be acknowledged.
    untold: usize,
    /// What `seen` was when, as far back as a kill may reach.
    seen_at: VecDeque<(Instant, u64)>,
    /// Since when logship must know that this life exists.
    pub known: Option<Instant>,
    /// Its account of this inode is of this life when its generation is higher.
    pub after_generation: Option<u64>,
    /// Other names that it has.
    pub links: usize,
    /// How long it was when, as far back as logship has time to notice.
    lens: VecDeque<(Instant, u64)>,
    begun: Instant,
    ended: Option<Instant>,
    /// NUL bytes that it begins with.
    hole: u64,
    /// ... which logship may take for the beginning of its first line: it was killed
    /// before it had written down that the file was there.
    hole_unknown: bool,
    /// Some of it was given up by choice.
    drops: bool,
    equal_head: bool,
    /// Only a handle that logship holds leads to it.
    by_handle: bool,
    /// A copy of it was made and it was truncated, when.
    copied: Option<Instant>,
    /// ... and logship may not know that the copy is one: nobody saw the truncation, or
    /// it was not written down.
    copy_unknown: bool,
    /// Nothing more is done to it.
    closed: bool,
    /// Logship crashed since: what it says of this life it may say twice, and of
    /// lines that it does not know to have arrived.
    crashed: bool,
    /// It is over, and was judged; kept for reports that come late.
    judged: bool,
    /// In so many judgements since.
    rounds: usize,
}

/// An end of logship that was not clean.
#[derive(Debug)]
struct Crash {
    at: Instant,
    /// What was acknowledged by then is in the checkpoint.
    saved: Instant,
    /// The newest producer then.
    producer: i64,
    /// The broker was disturbed before, so that acknowledgements may have been late.
    disturbed: bool,
    repeated: usize,
    /// Lines that may come again.
    repeated_max: usize,
}

/// What all came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub lines: usize,
    pub bytes: u64,
    pub delivered: usize,
    pub repeated: usize,
    /// Lines that came again from a copy that copytruncate made while nobody looked.
    pub copied: usize,
    /// Lines that came again after one crash: the most, and what there might have been.
    pub repeated_max: (usize, usize),
    /// How long before a crash they had arrived, at most; only without broker faults.
    pub repeated_span: Duration,
    pub crashes: usize,
    pub lost_bytes: u64,
    pub lost_reports: usize,
    /// Lines without bytes, which arrive unknown from each other.
    pub empty: usize,
    /// Lines that were reported as lost.
    pub lost: usize,
    /// Lines that were reported as given up by choice.
    pub dropped: usize,
    /// Lines that neither arrived nor were reported, and their bytes, by the reason
    /// why they need not.
    pub excused: BTreeMap<&'static str, (usize, u64)>,
    /// Lines that arrived although they needed not any more.
    pub excused_in_vain: usize,
    pub lives: usize,
}

/// Why a line has not arrived.
enum Absence {
    Dropped,
    Reported,
    Excused(&'static str),
    /// It must still arrive.
    Missing,
}

impl Tally {
    /// Lines of which nothing accounts for, when nothing is waited for.
    pub fn missing(&self) -> usize {
        let excused: usize = self.excused.values().map(|(lines, _)| lines).sum();
        let accounted = self.delivered + self.empty + self.dropped + self.lost + excused;
        (self.lines + self.excused_in_vain).wrapping_sub(accounted)
    }

    fn excuse(&mut self, reason: &'static str, lines: usize, bytes: u64) {
        let excused = self.excused.entry(reason).or_default();
        *excused = (excused.0 + lines, excused.1 + bytes);
    }
}

#[derive(Default)]
pub struct Model {
    lives: BTreeMap<LifeId, Life>,
    next: LifeId,
    crashes: Vec<Crash>,
    /// Losses by inode since they were last judged.
    losses: HashMap<u64, Vec<(Instant, Loss)>>,
    /// Inodes of forgotten lives of which something may still be said.
    haunted: HashSet<u64>,
    /// Inodes that copies have had since a life had them.
    copies: HashSet<u64>,
    /// Empty records of a topic that have arrived, since the last judgement.
    empty: BTreeMap<&'static str, usize>,
    /// Empty lines that nobody waits for, and that may come late.
    empty_free: BTreeMap<&'static str, usize>,
    /// A crash since the last judgement.
    crashed: bool,
    /// Topics that were changed for another since then.
    turned: HashSet<&'static str>,
    /// Bytes of all holes.
    pub holes: u64,
    pub wrong: Vec<String>,
    pub tally: Tally,
}

impl Crash {
    /// True when logship may not know any more that a line had arrived.
    fn forgets(&self, arrival: Arrival, told: Option<Instant>) -> bool {
        let surely = (!self.disturbed).then(|| arrival.at + ACKED_AFTER);
        let acked = told.into_iter().chain(surely).min();
        arrival.producer <= self.producer && acked.is_none_or(|acked| acked + WRITING > self.saved)
    }
}

impl Line {
    /// It has not arrived, and nobody said that it was given up.
    fn is_awaited(&self) -> bool {
        self.arrived.is_none() && !self.dropped && self.hash.is_some()
    }
}

impl Life {
    fn grew(&mut self) {
        self.lens.push_back((Instant::now(), self.len));
        while self
            .lens
            .get(1)
            .is_some_and(|(at, _)| at.elapsed() > NOTICED_AFTER)
        {
            self.lens.pop_front();
        }
    }

    /// What a logship that is up since then must have noticed: its bytes, if it
    /// must know of the file at all.
    fn noticed(&self, up_since: Instant) -> Option<u64> {
        let old = self
            .lens
            .iter()
            .rev()
            .find(|(at, _)| at.elapsed() > NOTICED_AFTER);
        let up = up_since.elapsed() > NOTICED_AFTER;
        old.filter(|_| up).map(|(_, len)| *len)
    }

    /// A logship that starts again knows of no more bytes than the one before had
    /// seen at a moment.
    fn forget_seen_since(&mut self, saved: Instant) {
        self.seen_at.retain(|(at, _)| *at <= saved);
        let seen = self.seen_at.back().map_or(0, |(_, seen)| *seen);
        if seen < self.seen {
            (self.seen, self.unseen) = (seen, "not written down when it was killed");
        }
    }

    /// Whole lines are given up, and nothing else.
    fn may_drop(&self, drop: &Loss) -> bool {
        let mut lines = self.lines.iter();
        lines.any(|line| line.from == drop.from) && lines.any(|line| line.to == drop.to)
            || self
                .lines
                .iter()
                .any(|line| (line.from, line.to) == (drop.from, drop.to))
    }

    /// A loss begins where a line does, and ends where the file did at the latest.
    fn may_lose(&self, loss: &Loss) -> bool {
        let mut begins = self.lines.iter().map(|line| line.from);
        let begins_so = begins.any(|from| from == loss.from)
            || self.partial == Some(loss.from)
            || loss.from == 0;
        begins_so && loss.to <= self.len
    }

    /// What logship has seen and can miss: when other content begins with all of it, it
    /// looks as if the file had grown.
    fn seen_of_its_own(&self) -> u64 {
        if self.seen > self.kept { self.seen } else { 0 }
    }

    pub fn is_over(&self) -> bool {
        self.closed || self.fate != Fate::Arrives
    }

    /// What has not arrived, as ranges of bytes.
    fn missing(&self) -> Vec<(u64, u64)> {
        let late = self.lines.iter().filter(|line| line.is_awaited());
        let mut ranges: Vec<_> = late.map(|line| (line.from, line.to)).collect();
        ranges.extend(self.partial.map(|from| (from, self.len)));
        ranges
    }
}

impl Model {
    pub fn life(&self, id: LifeId) -> &Life {
        &self.lives[&id]
    }

    pub fn life_mut(&mut self, id: LifeId) -> &mut Life {
        self.lives
            .get_mut(&id)
            .expect("a life that is not forgotten")
    }

    pub fn alive(&mut self) -> impl Iterator<Item = &mut Life> {
        self.lives.values_mut().filter(|life| !life.is_over())
    }

    /// The other names of all files of a topic go; those that had some.
    pub fn unlink_all(&mut self, topic: &str) -> Vec<LifeId> {
        let lives = self.lives.iter_mut();
        let mut linked = lives.filter(|(_, life)| !life.is_over() && life.topic == topic);
        let linked = linked.by_ref().filter(|(_, life)| life.links > 0);
        linked
            .map(|(id, life)| {
                life.links = 0;
                *id
            })
            .collect()
    }

    /// Logship ended, and let go of all handles.
    pub fn stopped(&mut self) {
        for life in self
            .lives
            .values_mut()
            .filter(|life| life.by_handle && !life.judged)
        {
            if life.fate == Fate::Arrives {
                life.fate = Fate::ArrivesOrIsReported;
            }
        }
    }

    /// A copy of a life was made, and it is about to be truncated. A logship that is up
    /// since then may not have looked at the file before.
    pub fn is_copied(&mut self, id: LifeId, up_since: Option<Instant>) {
        let looked = up_since.is_some_and(|since| since.elapsed() > NOTICED_AFTER);
        let life = self.life_mut(id);
        life.copied = Some(Instant::now());
        // Nothing is known of what the file holds that tells the copy from another file.
        life.copy_unknown = !looked || life.known.is_none() || life.seen == 0;
    }

    /// A copy of a life has this inode: what is said of it is said of no life.
    pub fn is_copy(&mut self, inode: u64) {
        self.haunted.insert(inode);
        self.copies.insert(inode);
    }

    /// A life is over before logship is known to have seen it: nor has it seen that the
    /// life before was truncated, of which there may be a copy.
    fn forget_copies_before(&mut self, id: LifeId) {
        let life = self.life(id);
        let (inode, known) = (life.inode, life.known.is_some());
        let mut lives = self.lives.values_mut().filter(|_| !known);
        lives
            .by_ref()
            .filter(|life| life.inode == inode && life.copied.is_some())
            .for_each(|life| life.copy_unknown = true);
    }

    /// Logship was killed after a crash was noted: it knows what its checkpoint says.
    /// `elsewhere` are lives that have left the name that is looked for, and are found
    /// only if they are known.
    pub fn killed(&mut self, elsewhere: impl Fn(&LifeId, &Life) -> bool) {
        let saved = self.crashes.last().expect("it was just noted").saved - WRITING;
        for (id, life) in self.lives.iter_mut().filter(|(_, life)| !life.judged) {
            let unknown = life.known.is_none_or(|since| since > saved);
            if unknown && !life.is_over() {
                life.known = None;
            }
            life.hole_unknown |= unknown;
            life.forget_seen_since(saved);
            life.copy_unknown |= life.copied.is_some_and(|copied| copied > saved);
            life.fate = match life.fate {
                Fate::Arrives if life.by_handle => Fate::ArrivesOrIsReported,
                Fate::Arrives if unknown && !life.is_over() && elsewhere(id, life) => {
                    Fate::Free("rotated, and not written down")
                }
                fate => fate,
            };
        }
    }

    /// Logship is seen to know so many bytes of a life.
    pub fn sees(life: &mut Life, bytes: u64) {
        let now = Instant::now();
        life.known.get_or_insert(now);
        life.seen = life.seen.max(bytes.min(life.len));
        life.seen_at.push_back((now, life.seen));
        while life
            .seen_at
            .get(1)
            .is_some_and(|(at, _)| at.elapsed() > WRITTEN_DOWN_AFTER + WRITING)
        {
            life.seen_at.pop_front();
        }
    }

    /// The newest life of an inode, if it is the newest that had it.
    pub fn newest_of(&mut self, inode: u64) -> Option<&mut Life> {
        let mut lives = self.lives.values_mut().rev();
        let newest = lives.find(|life| life.inode == inode);
        newest.filter(|_| !self.copies.contains(&inode))
    }

    /// A file begins to be filled.
    pub fn begin(
        &mut self,
        topic: &'static str,
        inode: u64,
        name: &str,
        equal_head: bool,
    ) -> LifeId {
        self.next += 1;
        self.tally.lives += 1;
        self.copies.remove(&inode);
        let life = Life {
            topic,
            inode,
            name: name.to_owned(),
            len: 0,
            lines: VecDeque::new(),
            forgotten: 0,
            latest: [None; 2],
            partial: None,
            fate: Fate::Arrives,
            seen: 0,
            unseen: "",
            kept: 0,
            untold: 0,
            seen_at: VecDeque::new(),
            known: None,
            after_generation: None,
            links: 0,
            lens: VecDeque::from([(Instant::now(), 0)]),
            begun: Instant::now(),
            ended: None,
            hole: 0,
            hole_unknown: false,
            drops: false,
            equal_head,
            by_handle: false,
            copied: None,
            copy_unknown: false,
            closed: false,
            crashed: false,
            judged: false,
            rounds: 0,
        };
        self.lives.insert(self.next, life);
        self.next
    }

    /// A writer went on where it was in a file that was emptied: it begins with NULs.
    pub fn has_hole(&mut self, id: LifeId, bytes: u64) {
        self.holes += bytes;
        let life = self.life_mut(id);
        (life.hole, life.len) = (bytes, bytes);
        life.grew();
    }

    /// The bytes of lines that are about to be written.
    pub fn lines(&mut self, id: LifeId, count: usize, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = Vec::new();
        for left in (0..count).rev() {
            let may_be_empty = left > 0; // something behind it must tell that it was read
            bytes.extend_from_slice(&self.line(id, may_be_empty, dice));
        }
        bytes
    }

    /// The bytes of one line, its end included.
    pub fn line(&mut self, id: LifeId, may_be_empty: bool, dice: &mut Dice) -> Vec<u8> {
        let life = self.lives.get_mut(&id).expect("a life that goes on");
        let number = life.forgotten + life.lines.len();
        let (mut bytes, end) = match may_be_empty && dice.one_in(40) {
            true => (Vec::new(), *dice.pick(&ENDS)),
            false => content(id, number, life.equal_head, dice),
        };
        let value = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
        let hash = (!value.is_empty()).then(|| hash(value));
        let text_hash = hash.map(|_| text_hash(value));
        bytes.extend_from_slice(end);
        let from = life.len;
        life.len += bytes.len() as u64;
        life.lines.push_back(Line {
            from,
            to: life.len,
            hash,
            text_hash,
            arrived: None,
            told: None,
            dropped: false,
            excused: false,
            free: false,
        });
        life.grew();
        self.tally.lines += 1;
        self.tally.empty += usize::from(hash.is_none());
        self.tally.bytes += bytes.len() as u64;
        bytes
    }

    /// The last line is written up to here only.
    pub fn is_partial(&mut self, id: LifeId, written: usize) {
        let life = self.life_mut(id);
        let line = life.lines.pop_back().expect("a line that was just made");
        life.partial = Some(line.from);
        life.len = line.from + written as u64;
        life.lens.pop_back();
        life.grew();
        let unwritten = line.to - life.len;
        self.tally.lines -= 1;
        self.tally.bytes -= unwritten;
    }

    /// The rest of the last line is written.
    pub fn is_whole(&mut self, id: LifeId, value: &[u8], rest: usize) {
        let life = self.life_mut(id);
        let from = life.partial.take().expect("a line that is not finished");
        life.len += rest as u64;
        let shipped = &value[..value.len().min(LINE_BYTES_MAX)];
        life.lines.push_back(Line {
            from,
            to: life.len,
            hash: Some(hash(shipped)),
            text_hash: Some(text_hash(shipped)),
            arrived: None,
            told: None,
            dropped: false,
            excused: false,
            free: false,
        });
        life.grew();
        self.tally.lines += 1;
        self.tally.bytes += rest as u64;
    }

    /// `/status` said that everything before a position is settled.
    pub fn acked(life: &mut Life, position: u64) {
        let now = Instant::now();
        let from = life.untold.saturating_sub(life.forgotten);
        let told = life.lines.range_mut(from.min(life.lines.len())..);
        for line in told.take_while(|line| line.to <= position) {
            line.told = Some(now);
            life.untold += 1;
        }
    }

    /// What is written from `from` on is where nobody needs to look.
    pub fn is_free_from(&mut self, id: LifeId, from: u64) {
        let lines = self.life_mut(id).lines.iter_mut();
        lines
            .filter(|line| line.from >= from)
            .for_each(|line| line.free = true);
    }

    /// Logship is up since then: it knows what is there for a while.
    pub fn notices(&mut self, id: LifeId, up_since: Instant) {
        let life = self.life_mut(id);
        if let Some(bytes) = life.noticed(up_since) {
            Model::sees(life, bytes);
        }
    }

    /// The bytes of a life are gone, or out of reach; `unseen` is why there may be
    /// some that logship had not seen.
    pub fn ends(&mut self, id: LifeId, fate: Fate, unseen: &'static str) {
        self.forget_copies_before(id);
        let life = self.life_mut(id);
        life.closed = true;
        life.ended = Some(Instant::now());
        life.unseen = unseen;
        if life.fate == Fate::Arrives {
            life.fate = fate;
        }
    }

    /// Other content takes the place of a life.
    pub fn is_rewritten(&mut self, old: LifeId, new: LifeId) {
        let begins = [old, new].map(|id| beginning(id, 0, self.life(id).equal_head));
        let equal = begins[0].iter().zip(&begins[1]).take_while(|(a, b)| a == b);
        self.life_mut(old).kept = equal.count() as u64;
    }

    /// The last name of a file is gone, but logship has it open.
    pub fn is_held(&mut self, id: LifeId, unseen: &'static str) {
        self.forget_copies_before(id);
        let life = self.life_mut(id);
        (life.by_handle, life.closed, life.unseen) = (true, true, unseen);
        life.ended = Some(Instant::now());
    }

    /// Logship ended in a way that may repeat lines; it wrote its checkpoint last at
    /// `written`, and `producer` was its newest.
    pub fn crashed(&mut self, written: Option<Instant>, producer: i64, disturbed: bool) {
        let at = Instant::now();
        let due = at - WRITTEN_DOWN_AFTER;
        let mut crash = Crash {
            at,
            saved: written.map_or(due, |written| written.max(due)),
            producer,
            disturbed,
            repeated: 0,
            repeated_max: 0,
        };
        let lines = self.lives.values().flat_map(|life| &life.lines);
        let forgotten = |line: &&Line| {
            line.arrived
                .is_some_and(|arrival| crash.forgets(arrival, line.told))
        };
        crash.repeated_max = lines.filter(forgotten).count();
        self.crashed = true;
        for life in self.lives.values_mut() {
            life.crashed = true;
            // What was dropped, or came back for a topic of before, is read once more.
            if life.drops || self.turned.contains(life.topic) {
                life.latest = [None; 2];
            }
        }
        self.crashes.push(crash);
        self.tally.crashes += 1;
    }

    /// A source of this topic has got another one.
    pub fn turns(&mut self, topic: &'static str) {
        self.turned.insert(topic);
    }

    /// Lives that are neither over nor among these.
    pub fn not_among(&self, kept: &HashSet<LifeId>) -> Vec<LifeId> {
        let lives = self.lives.iter().filter(|(_, life)| !life.is_over());
        lives
            .map(|(id, _)| *id)
            .filter(|id| !kept.contains(id))
            .collect()
    }

    /// A record has arrived, under one of the names of a topic.
    pub fn arrived(&mut self, topic: &'static str, name: usize, record: &Record) {
        let message = message(&record.value);
        if message.is_empty() {
            *self.empty.entry(topic).or_default() += 1;
            return;
        }
        if let Err(problem) = self.try_arrived(topic, name, &message, record) {
            if self.is_end_of_copy(topic, message.bytes()) {
                return;
            }
            let value = &record.value[..record.value.len().min(100)];
            self.wrong.push(format!(
                "{problem}: \"{}\" ({} bytes) in '{topic}' at {}:{}",
                value.escape_ascii(),
                record.value.len(),
                record.partition,
                record.offset
            ));
        }
    }

    /// True for the unfinished line at the end of a copy that nobody knows as one: by its
    /// name, or as long as it, since it may be torn in the middle of its name.
    fn is_end_of_copy(&self, topic: &str, message: &[u8]) -> bool {
        let name = name_of(message);
        let mut copied = self
            .lives
            .iter()
            .filter(|(_, life)| life.copy_unknown && life.topic == topic);
        copied.any(|(id, life)| {
            let is_it = name == Some((*id, life.forgotten + life.lines.len()));
            let is_as_long = |from| life.len - from == message.len() as u64;
            life.partial.is_some_and(|from| is_it || is_as_long(from))
        })
    }

    fn try_arrived(
        &mut self,
        topic: &str,
        name: usize,
        message: &Message,
        record: &Record,
    ) -> Result<(), String> {
        let hole = message.hole();
        let shipped = &message.bytes()[hole..];
        let (id, number) = name_of(shipped).ok_or("no line that was written")?;
        let life = self
            .lives
            .get_mut(&id)
            .ok_or("a line of a life long forgotten came again");
        let life = match life {
            // It was given up, and is read again after a kill in the same second.
            Err(_) if DROPS.contains(&topic) => return Ok(()),
            life => life?,
        };
        if life.topic != topic {
            return Err(format!("a line for '{}'", life.topic));
        }
        let at = number.checked_sub(life.forgotten);
        if at.is_none() && (life.drops || life.copy_unknown) {
            return Ok(()); // the same, or shipped from the copy
        }
        let at = at.ok_or("a line long forgotten came again")?;
        let line = life
            .lines
            .get_mut(at)
            .ok_or("a line that is not written yet")?;
        let expected = match message {
            Message::Raw(_) => line.hash,
            Message::Json(_) => line.text_hash,
        };
        let with_hole = hole > 0;
        if with_hole && (hole as u64 != life.hole || number > 0 || !life.hole_unknown) {
            return Err("NUL bytes that no kill explains".into());
        }
        // What is cut behind a hole is cut earlier than it would be without.
        let is_cut = with_hole && hole + shipped.len() >= LINE_BYTES_MAX;
        if expected != Some(hash(shipped)) && !is_cut {
            return Err("a line that was written otherwise".into());
        }
        let arrival = Arrival {
            at: record.arrived,
            producer: record.producer_id,
        };
        let told = line.told;
        let Some(before) = line.arrived.replace(arrival) else {
            self.tally.delivered += 1;
            self.tally.excused_in_vain += usize::from(line.excused);
            if line.dropped && !life.crashed {
                return Err(format!("line {number} was dropped, they say"));
            }
            let latest = life.latest[name].replace(number);
            if latest.is_some_and(|latest| number < latest) {
                return Err(format!(
                    "line {number} came after line {latest:?} of its file"
                ));
            }
            let mut forgetful = self.crashes.iter_mut();
            match forgetful.find(|crash| crash.forgets(arrival, None)) {
                Some(crash) => crash.repeated_max += 1,
                None => _ = life.known.get_or_insert(arrival.at),
            }
            return Ok(());
        };
        if life.copy_unknown {
            self.tally.copied += 1;
            return Ok(());
        }
        self.tally.repeated += 1;
        let mut crashes = self.crashes.iter_mut().rev();
        let excuse =
            crashes.find(|crash| crash.forgets(before, told) && arrival.producer > crash.producer);
        let Some(crash) = excuse else {
            let ago = arrival.at - before.at;
            let told = told.map(|at| at.elapsed());
            return Err(format!(
                "a line came twice, {ago:?} apart, told to be acknowledged {told:?} ago, and no crash explains it: {:#?}",
                self.crashes
            ));
        };
        line.told = None;
        crash.repeated += 1;
        let count = (crash.repeated, crash.repeated_max);
        self.tally.repeated_max = self.tally.repeated_max.max(count);
        if !crash.disturbed {
            let span = crash.at.saturating_duration_since(before.at);
            self.tally.repeated_span = self.tally.repeated_span.max(span);
        }
        Ok(())
    }

    /// Logship said that something is lost.
    pub fn reported(&mut self, loss: Loss) {
        self.tally.lost_bytes += loss.bytes;
        self.tally.lost_reports += 1;
        if loss.to - loss.from != loss.bytes || loss.bytes == 0 {
            self.wrong
                .push(format!("a loss that does not add up: {}", loss.line));
        }
        let losses = self.losses.entry(loss.inode).or_default();
        losses.push((Instant::now(), loss));
    }

    /// Logship said that it gave something up by choice.
    pub fn dropped(&mut self, drop: &Loss) {
        if drop.line.contains("reason=nul_hole") {
            return; // no lines; the bytes are compared with the holes that were made
        }
        let mut lives = self.lives.values_mut().rev();
        let Some(life) = lives.find(|life| life.inode == drop.inode && life.may_drop(drop)) else {
            let what = format!("something was dropped that fits no lines: {}", drop.line);
            return self.wrong.push(what);
        };
        life.drops = true;
        for line in &mut life.lines {
            line.dropped |= drop.from <= line.from && line.to <= drop.to;
        }
    }

    /// True when every line of a life that can arrive has arrived.
    pub fn has_arrived(&self, id: LifeId) -> bool {
        let mut lines = self.life(id).lines.iter();
        lines.all(|line| !line.is_awaited() || line.free)
    }

    /// What is still to come before anything can be judged; none when nothing is.
    pub fn waits_for(&self) -> Option<String> {
        self.lives.iter().find_map(|(id, life)| {
            let range = match life.fate {
                Fate::Arrives if !life.judged => {
                    let mut lines = life.lines.iter();
                    let late = lines.find(|line| line.is_awaited() && !line.free)?;
                    (late.from, late.to)
                }
                Fate::ArrivesOrIsReported if !life.judged => self.unreported(life)?,
                _ => return None,
            };
            Some(format!("bytes {range:?} of life {id}: {}", life.shown()))
        })
    }

    /// A range that logship knew of, and that neither arrived nor was reported.
    fn unreported(&self, life: &Life) -> Option<(u64, u64)> {
        life.missing().into_iter().find_map(|(from, to)| {
            let to = to.min(life.seen_of_its_own());
            let at = self.reported_to(life, from, to);
            (at < to).then_some((at, to))
        })
    }

    /// How far a range of a life was reported as lost, from its beginning on.
    fn reported_to(&self, life: &Life, from: u64, to: u64) -> u64 {
        let losses = self.losses.get(&life.inode);
        let mut at = from;
        let mut again = true;
        while again && at < to {
            again = false;
            for (_, loss) in losses.into_iter().flatten() {
                if loss.from <= at && at < loss.to {
                    (at, again) = (loss.to, true);
                }
            }
        }
        at
    }

    /// Why a line has not arrived.
    fn absence(&self, life: &Life, line: &Line) -> Absence {
        let seen = life.seen_of_its_own();
        let reported = |to| line.from < to && self.reported_to(life, line.from, to) >= to;
        match life.fate {
            _ if line.dropped => Absence::Dropped,
            _ if reported(line.to) => Absence::Reported,
            _ if line.free => Absence::Excused("written where nobody looks"),
            Fate::Free(reason) => Absence::Excused(reason),
            Fate::ArrivesOrIsReported if line.from >= seen => Absence::Excused(life.unseen),
            Fate::ArrivesOrIsReported if reported(seen) => Absence::Reported,
            _ => Absence::Missing,
        }
    }

    /// Counts what has not arrived and need not any more.
    fn judge_absent(&mut self) {
        let mut absent = Vec::new();
        for (id, life) in self.lives.iter().filter(|(_, life)| !life.judged) {
            for (at, line) in life.lines.iter().enumerate() {
                let due = life.is_over() || line.free || line.dropped;
                let absent_now = line.arrived.is_none() && line.hash.is_some();
                if due && absent_now && !line.excused {
                    absent.push((*id, at, self.absence(life, line)));
                }
            }
        }
        for (id, at, absence) in absent {
            if let Absence::Missing = absence {
                let life = self.life(id);
                let what = format!("{:?} of life {id}: {}", life.lines[at], life.shown());
                self.wrong
                    .push(format!("a line that nothing accounts for: {what}"));
            }
            let line = &mut self.life_mut(id).lines[at];
            line.excused = true;
            let bytes = line.to - line.from;
            match absence {
                Absence::Dropped => self.tally.dropped += 1,
                Absence::Reported => self.tally.lost += 1,
                Absence::Excused(reason) => self.tally.excuse(reason, 1, bytes),
                Absence::Missing => {}
            }
        }
    }

    /// Judges what is over, when there is nothing to wait for any more, and
    /// forgets what was judged before, unless it is kept.
    pub fn judge(&mut self, kept: &HashSet<LifeId>) {
        self.judge_losses();
        self.judge_empty();
        self.judge_absent();
        let now = Instant::now();
        let old = |line: &Line| {
            line.arrived
                .is_none_or(|before| before.at + REMEMBERED < now)
        };
        for life in self.lives.values_mut() {
            if life.is_over() {
                continue;
            }
            while life.lines.front().is_some_and(old) {
                life.lines.pop_front();
                life.forgotten += 1;
            }
        }
        for crash in &self.crashes {
            if crash.repeated > crash.repeated_max {
                let what = format!("more lines came twice than may: {crash:?}");
                self.wrong.push(what);
            }
        }
        self.crashes.retain(|crash| crash.at + 3 * REMEMBERED > now);
        self.crashed = false;
        self.turned.clear();
        self.lives.retain(|id, life| {
            if !life.is_over() {
                return true;
            }
            life.judged = true;
            life.rounds += 1;
            let stays = life.rounds < ROUNDS_KEPT || kept.contains(id);
            if !stays && (life.crashed || !life.missing().is_empty()) {
                self.haunted.insert(life.inode);
            }
            stays
        });
    }

    /// No loss is said of what arrived, and none of more than is missing.
    fn judge_losses(&mut self) {
        self.judge_ends_of_losses();
        let inodes: BTreeSet<u64> = self.losses.keys().copied().collect();
        for inode in inodes {
            let over: Vec<&Life> = self
                .lives
                .values()
                .filter(|life| life.inode == inode && life.is_over())
                .collect();
            let losses = &self.losses[&inode];
            let lost: u64 = losses.iter().map(|(_, loss)| loss.bytes).sum();
            let missing: u64 = over
                .iter()
                .flat_map(|life| life.missing())
                .map(|(from, to)| to - from)
                .sum();
            let empty: u64 = over
                .iter()
                .flat_map(|life| &life.lines)
                .filter(|line| line.hash.is_none())
                .map(|line| line.to - line.from)
                .sum();
            let holes: u64 = over.iter().map(|life| life.hole).sum();
            let unsure = |life: &&Life| life.crashed || life.drops || life.copy_unknown;
            let crashed = over.iter().any(unsure) || self.haunted.contains(&inode);
            if lost > missing + empty + holes && !crashed && !over.is_empty() {
                let over: Vec<String> = over.iter().map(|life| life.shown()).collect();
                let lines: Vec<&str> = losses.iter().map(|(_, loss)| loss.line.as_str()).collect();
                self.wrong.push(format!(
                    "{lost} bytes of inode {inode} were reported as lost, but only {missing} are missing: {lines:#?} {over:#?}"
                ));
            }
        }
        // A loss belongs to a life that had begun, as long as that is remembered.
        let mut begun = HashMap::<u64, Instant>::new();
        for life in self.lives.values().filter(|life| life.is_over()) {
            begun.entry(life.inode).or_insert(life.begun);
        }
        for (inode, losses) in &mut self.losses {
            losses.retain(|(heard, _)| begun.get(inode).is_some_and(|begun| begun < heard));
        }
        self.losses.retain(|_, losses| !losses.is_empty());
    }

    /// No loss is said of bytes that never were, nor of a part of a line.
    fn judge_ends_of_losses(&mut self) {
        for (inode, losses) in &self.losses {
            for (heard, loss) in losses {
                let ended = |life: &&Life| {
                    life.inode == *inode && life.ended.is_some_and(|ended| ended < *heard)
                };
                let mut over = self.lives.values().filter(ended).peekable();
                let known = over.peek().is_some() && !self.haunted.contains(inode);
                if known && !over.any(|life| life.may_lose(loss)) {
                    let what = format!("a loss that fits no life of its file: {}", loss.line);
                    self.wrong.push(what);
                }
            }
        }
    }

    /// Empty lines look alike, so they are counted: as many as must, no more than may.
    fn judge_empty(&mut self) {
        let topics: BTreeSet<&'static str> = self.lives.values().map(|life| life.topic).collect();
        for topic in topics {
            let came = self.empty.remove(topic).unwrap_or(0);
            let late = self.empty_free.remove(topic).unwrap_or(0);
            let (mut must, mut may, mut free) = (0, late, late);
            let mut copied = false;
            for life in self
                .lives
                .values_mut()
                .filter(|life| life.topic == topic && !life.judged)
            {
                let over = life.is_over();
                copied |= life.copy_unknown;
                for line in life
                    .lines
                    .iter_mut()
                    .filter(|line| line.hash.is_none() && line.arrived.is_none())
                {
                    may += 1;
                    free += usize::from(matches!(life.fate, Fate::Free(_)) || line.free);
                    must += usize::from(!over && !line.free && !line.dropped);
                    line.arrived = Some(Arrival {
                        at: Instant::now(),
                        producer: 0,
                    });
                }
            }
            self.empty_free
                .insert(topic, free.min(may.saturating_sub(came)));
            if came < must || (came > may && !self.crashed && !copied) {
                self.wrong.push(format!(
                    "{came} empty lines came in '{topic}', but {must} to {may} were to"
                ));
            }
        }
    }
}

impl Life {
    /// What there is to know, for people.
    pub fn shown(&self) -> String {
        format!(
            "{} inode {} of {} bytes, {:?}, known {:?} ago, seen {}, partial from {:?}, missing {:?}",
            self.name,
            self.inode,
            self.len,
            self.fate,
            self.known.map(|at| at.elapsed()),
            self.seen,
            self.partial,
            self.missing().into_iter().take(4).collect::<Vec<_>>(),
        )
    }
}

/// What tells a line from all others.
fn beginning(id: LifeId, number: usize, equal_head: bool) -> Vec<u8> {
    let head = (equal_head && number == 0).then_some(EQUAL_HEAD);
    let mut value = head.unwrap_or_default().to_vec();
    value.extend_from_slice(format!("L{id}.{number} ").as_bytes());
    value
}

/// A line without its end, and its end.
fn content(
    id: LifeId,
    number: usize,
    equal_head: bool,
    dice: &mut Dice,
) -> (Vec<u8>, &'static [u8]) {
    let mut value = beginning(id, number, equal_head);
    let padding = match dice.below(60) {
        0 => dice.between(1_000, 9_000),
        1 => LINE_BYTES_MAX - value.len() - 2 + dice.below(5),
        2 if dice.one_in(4) => dice.between(LINE_BYTES_MAX, 5 * LINE_BYTES_MAX),
        _ => dice.below(120),
    };
    let binary = dice.one_in(10);
    for _ in 0..padding {
        let byte = dice.throw() as u8;
        value.push(match (binary, byte) {
            (true, b'\n' | b'\r') => 0,
            (true, byte) => byte,
            (false, byte) => b'a' + byte % 26,
        });
    }
    let end: &[u8] = if dice.one_in(12) && value.len() < LINE_BYTES_MAX {
        b"\r\n"
    } else {
        b"\n"
    };
    (value, end)
}

/// What a record says of a line.
enum Message {
    Raw(Bytes),
    Json(String),
}

impl Message {
    fn bytes(&self) -> &[u8] {
        match self {
            Message::Raw(bytes) => bytes,
            Message::Json(text) => text.as_bytes(),
        }
    }

    fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// NUL bytes that it begins with.
    fn hole(&self) -> usize {
        self.bytes().iter().take_while(|byte| **byte == 0).count()
    }
}

/// The line in a record of either format.
fn message(value: &Bytes) -> Message {
    let object: Option<Value> = value
        .starts_with(b"{\"@timestamp\"")
        .then(|| serde_json::from_slice(value).ok())
        .flatten();
    match object
        .as_ref()
        .and_then(|object| object["message"].as_str())
    {
        Some(text) => Message::Json(text.to_owned()),
        None => Message::Raw(value.clone()),
    }
}

/// Life and number of the line that a record is.
fn name_of(value: &[u8]) -> Option<(LifeId, usize)> {
    let value = value
        .strip_prefix(EQUAL_HEAD)
        .unwrap_or(value)
        .strip_prefix(b"L")?;
    let name = value.split(|byte| *byte == b' ').next()?;
    let (life, number) = std::str::from_utf8(name).ok()?.split_once('.')?;
    Some((life.parse().ok()?, number.parse().ok()?))
}

fn text_hash(bytes: &[u8]) -> u64 {
    hash(String::from_utf8_lossy(bytes).as_bytes())
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
