//! What Kafka has acknowledged, per file, as byte ranges.
//!
//! The ledger is the one piece of state that matters: a position advances on
//! acknowledgement and never on read. It does no input or output; the
//! checkpoint writes it to disk, tailers claim ranges in it, producers settle
//! them.

mod file;
mod flow;
mod ranges;

#[cfg(test)]
mod model;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::ops::Add;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use file::now_seconds;
pub use file::{
    Attendance, Claim, DropReason, Figures, FileLedger, Gap, LossReason, Mark, Origin, Ticket,
    may_be_one,
};
pub use flow::Flow;

/// What the checkpoint keeps of a file: enough to find it again and go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file as it was found.
    pub origin: Origin,
    /// Fingerprint of the first bytes.
    pub head: Mark,
    /// Everything before it is settled.
    pub position: u64,
    /// Settled ranges after `position`.
    pub beyond: Vec<(u64, u64)>,
    /// Fingerprint of bytes that end at or before `position`.
    pub window: Mark,
    /// The file's size when it was last looked at.
    pub size: u64,
    /// When it was last looked at, in seconds since 1970 UTC.
    pub seen: u64,
    /// It is over, and nothing of it is left to be found at its path: what is
    /// remembered is only that it was shipped, for the day it turns up elsewhere.
    pub complete: bool,
    /// The name that a complete file was last seen under: its writer may not have
    /// noticed that it was renamed.
    pub found_at: Option<PathBuf>,
    /// The life is over: the file was truncated. What is not settled of it was on its
    /// way, and can never be read again.
    pub ended: bool,
}

/// What is remembered of an account that is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: the file is no more.
    Nothing,
    /// Its position; what is unread of it is looked for.
    Position,
    /// That it is complete, and the name it has now, if that is known.
    Complete(Option<PathBuf>),
}

/// Complete files of a path that are remembered: so many in any case,
const COMPLETE_KEPT: usize = 16;
/// so many if they were seen lately,
const COMPLETE_KEPT_MAX: usize = 100;
/// and this is lately, in seconds: time to be found under another name.
const LATELY_SECONDS: u64 = 120;

/// The identity under which a position is kept: device, inode, topic.
type Key = (u64, u64, Arc<str>);

/// All files' ledgers, and what is remembered of files that are not open.
#[derive(Debug, Default)]
pub struct Ledger {
    // A lock and not messages: positions are read by whoever opens a file,
    // at the moment it is opened. Held for a map's time only.
    inner: Mutex<Inner>,
    /// Moves on whenever there is something new to write down.
    changes: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By identity; several lives of one file, the newest last.
    open: HashMap<Key, Vec<Arc<FileLedger>>>,
    /// In boxes, because a map has more room than files, and keeps it.
    remembered: HashMap<Key, Box<Entry>>,
    /// What is known of files that have, or had, a path.
    by_path: HashMap<PathBuf, Vec<Key>>,
    /// All topics of those keys, and of such as are forgotten.
    topics: HashSet<Arc<str>>,
    flows: HashMap<(PathBuf, Arc<str>), Weak<Flow>>,
    /// What closed accounts have added up to, by topic.
    closed: BTreeMap<Arc<str>, Figures>,
}

/// What is known of a file that was just found.
#[derive(Debug)]
pub enum Known {
    /// Its account is open, and nobody looked after it so far.
    Open(Attendance),
    /// Its position was saved.
    Saved(Box<Entry>),
}

impl Origin {
    fn key(&self) -> Key {
        (self.device, self.inode, Arc::clone(&self.topic))
    }
}

impl Known {
    /// Its position and fingerprints.
    pub fn entry(&self) -> Entry {
        match self {
            Known::Open(account) => account.entry(),
            Known::Saved(entry) => Entry::clone(entry),
        }
    }
}

impl Entry {
    fn key(&self) -> Key {
        self.origin.key()
    }

    /// True when it is known to have something that was not settled.
    pub fn has_unread(&self) -> bool {
        self.unread_bytes() > 0
    }

    /// Nothing behind it is settled.
    pub fn settled_to(&self) -> u64 {
        self.beyond.last().map_or(self.position, |range| range.1)
    }

    /// What it has that was not settled, in bytes.
    fn unread_bytes(&self) -> u64 {
        let settled = self.beyond.iter().map(|(from, to)| to - from).sum::<u64>();
        self.size.saturating_sub(self.position + settled)
    }

    /// This entry seen from where the account before it stands, which was read up
    /// to `begun`: with that one's gaps.
    fn preceded_by(self, before: Entry, begun: u64) -> Entry {
        if before.position >= begun {
            return self;
        }
        let mut beyond = before.beyond;
        if begun < self.position {
            beyond.push((begun, self.position));
        }
        beyond.extend(self.beyond);
        Entry {
            position: before.position,
            window: before.window,
            beyond,
            ..self
        }
    }
}

impl Inner {
    fn remember(&mut self, entry: Entry) {
        let key = entry.key();
        self.forget(&key);
        self.index(&entry.origin.path, &key);
        let (path, complete) = (entry.origin.path.clone(), entry.complete);
        self.remembered.insert(key, Box::new(entry));
        if complete {
            self.forget_oldest_complete(&path);
        }
    }

    /// A path that is rotated for ever does not fill the memory.
    fn forget_oldest_complete(&mut self, path: &Path) {
        let keys = self.by_path.get(path).into_iter().flatten();
        let seen = |key: &Key| {
            self.remembered
                .get(key)
                .filter(|e| e.complete)
                .map(|e| e.seen)
        };
        let mut complete: Vec<(u64, Key)> = keys
            .filter_map(|key| Some((seen(key)?, key.clone())))
            .collect();
        if complete.len() <= COMPLETE_KEPT {
            return;
        }
        complete.sort_by_key(|(seen, _)| std::cmp::Reverse(*seen));
        let lately = now_seconds().saturating_sub(LATELY_SECONDS);
        for (at, (seen, key)) in complete.iter().enumerate().skip(COMPLETE_KEPT) {
            if at >= COMPLETE_KEPT_MAX || *seen < lately {
                self.forget(key);
            }
        }
    }

    fn forget(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.remembered.remove(key)?;
        self.unindex(&entry.origin.path, key);
        Some(*entry)
    }

    /// Forgets the file that had the inode's number before this one, and is gone.
    fn lose_other(&mut self, now: &Entry) {
        let known = self.remembered.get(&now.key());
        if known.is_some_and(|known| !known.origin.may_be(&now.origin)) {
            self.lose_remembered(&now.key());
        }
    }

    /// Forgets a file that is gone: what was unread of it is lost, unless that is told.
    fn lose_remembered(&mut self, key: &Key) {
        if let Some(entry) = self.forget(key)
            && !entry.complete
        {
            self.lose(&entry, LossReason::Gone);
        }
    }

    /// Counts and tells what was unread of a remembered file that is no more.
    // Told while the ledger is locked: what is written down as lost is told by nobody else.
    fn lose(&mut self, entry: &Entry, reason: LossReason) {
        let mut at = entry.position;
        for &(from, to) in entry.beyond.iter().chain([&(entry.size, entry.size)]) {
            if at < from {
                file::tell_loss(&entry.origin, at, from, reason);
            }
            at = at.max(to);
        }
        let bytes = entry.unread_bytes();
        let topic = Arc::clone(&entry.origin.topic);
        let closed = self.closed.entry(topic).or_default();
        closed.known_bytes += bytes;
        closed.lost_bytes[reason as usize] += bytes;
    }

    fn open(&mut self, file: Arc<FileLedger>) {
        let key = file.origin().key();
        self.forget(&key);
        self.index(&file.origin().path, &key);
        self.open.entry(key).or_default().push(file);
    }

    fn index(&mut self, path: &Path, key: &Key) {
        let keys = self.by_path.entry(path.to_owned());
        keys.or_insert_with(|| Vec::with_capacity(1)) // few paths have more
            .push(key.clone());
        if !self.topics.contains(&key.2) {
            self.topics.insert(Arc::clone(&key.2));
        }
    }

    /// Every account and every remembered file is in the index once.
    fn unindex(&mut self, path: &Path, key: &Key) {
        let Some(keys) = self.by_path.get_mut(path) else {
            return;
        };
        if let Some(at) = keys.iter().position(|known| known == key) {
            keys.swap_remove(at);
        }
        if keys.is_empty() {
            self.by_path.remove(path);
        }
    }

    /// True when a file has a position to go on from.
    fn knows(&self, key: &Key) -> bool {
        self.remembered.contains_key(key) || self.is_open(key)
    }

    /// True when an inode is remembered for another topic too: its topic was changed, and what
    /// is known under the one of before would be taken for all that is.
    fn has_another_topic(&self, (device, inode, topic): &Key) -> bool {
        let mut others = self.topics.iter().filter(|other| *other != topic);
        others.any(|other| {
            let key = (*device, *inode, Arc::clone(other));
            self.remembered.contains_key(&key)
        })
    }

    /// True when an account that is open has the position of a file.
    fn is_open(&self, key: &Key) -> bool {
        let mut lives = self.open.get(key).into_iter().flatten();
        lives.any(|file| file.is_durable())
    }

    /// When the inode of a file that is known was created, if that is known.
    fn created_ns(&self, key: &Key) -> Option<Option<u64>> {
        let open = self.open.get(key).and_then(|lives| lives.last());
        let open = open.map(|file| file.origin().created_ns);
        open.or_else(|| Some(self.remembered.get(key)?.origin.created_ns))
    }

    fn saved(&self, key: &Key) -> Option<Known> {
        self.remembered.get(key).cloned().map(Known::Saved)
    }

    /// The newest open account of a file that nobody looks after.
    fn unattended(&self, key: &Key) -> Option<&Arc<FileLedger>> {
        let lives = self.open.get(key)?;
        lives.iter().rev().find(|file| file.is_left_open())
    }

    fn close(&mut self, file: &Arc<FileLedger>, keep: Keep) {
        let mut entry = file.entry();
        let key = entry.key();
        let Some(lives) = self.open.get_mut(&key) else {
            return;
        };
        let Some(at) = lives.iter().position(|open| Arc::ptr_eq(open, file)) else {
            return; // it was closed by somebody else, and is counted
        };
        lives.remove(at);
        if lives.is_empty() {
            self.open.remove(&key);
        }
        self.unindex(&entry.origin.path, &key);
        let figures = file.figures();
        // What was not read waits in the file, and is known again when it is.
        *self.closed.entry(key.2).or_default() += Figures {
            known_bytes: figures.known_bytes - figures.waiting_bytes,
            waiting_bytes: 0,
            under_way_bytes: 0,
            ..figures
        };
        entry.seen = now_seconds(); // it was in our hands
        match keep {
            Keep::Nothing => {}
            Keep::Position => self.remember(entry),
            Keep::Complete(found_at) => {
                (entry.complete, entry.found_at) = (true, found_at);
                self.remember(entry);
            }
        }
    }
}

impl Ledger {
    /// A ledger that knows these files from an earlier run. Of lives that were over
    /// by then it says what was on its way: whether it arrived, nobody knows.
    pub fn remembering(entries: Vec<Entry>) -> Ledger {
        let ledger = Ledger::default();
        for entry in entries {
            if entry.ended {
                ledger.inner().lose(&entry, LossReason::Unconfirmed);
            } else {
                ledger.inner().remember(entry);
            }
        }
        ledger
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Another number than before means: there is something new to write down.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The flow of a path's lines to a topic: one, as long as anything of it is
    /// on its way, whoever reads the path.
    pub fn flow(&self, host: &str, path: &Path, topic: &Arc<str>) -> Arc<Flow> {
        let key = (path.to_owned(), Arc::clone(topic));
        let mut inner = self.inner();
        if let Some(flow) = inner.flows.get(&key).and_then(Weak::upgrade) {
            return flow;
        }
        let flow = Arc::new(Flow::new(host, path, Arc::clone(&self.changes)));
        inner.flows.insert(key, Arc::downgrade(&flow));
        flow
    }

    /// What is known of an inode, to whoever has only found it: when it was created, if
    /// that is known.
    pub fn knows_inode(&self, device: u64, inode: u64, topic: &Arc<str>) -> Option<Option<u64>> {
        let key = (device, inode, Arc::clone(topic));
        self.inner().created_ns(&key)
    }

    /// What is known of an inode that was found at `path`, for whoever has claimed it and goes on with
    /// it. A saved position stays remembered until its account is opened: a checkpoint in between must
    /// not miss it.
    pub fn recall(&self, device: u64, inode: u64, topic: &Arc<str>, path: &Path) -> Option<Known> {
        let key = (device, inode, Arc::clone(topic));
        let mut inner = self.inner();
        let Some(open) = inner.unattended(&key).cloned() else {
            return inner.saved(&key);
        };
        if open.origin().path != path && open.is_quiet() {
            inner.close(&open, Keep::Position); // it goes on under its new name
            return inner.saved(&key);
        }
        if open.is_whole() {
            return Some(Known::Open(open.attend()));
        }
        // It leans on an account that nobody reads for any more: what both have
        // settled goes on as one, and what is on its way may be sent twice.
        let entry = open.durable_entry()?;
        open.supersede();
        inner.remember(entry.clone());
        Some(Known::Saved(Box::new(entry)))
    }

    /// A known file was rewritten, or another one has its inode, or it is nowhere:
    /// what was unread of it is lost, of one that was open for this `reason`.
    pub fn lose_known(&self, known: &Known, reason: LossReason) {
        match known {
            Known::Open(account) => {
                account.lose_the_rest(reason);
                account.supersede();
            }
            Known::Saved(entry) if entry.complete => {} // what was unread was told then
            Known::Saved(entry) => self.inner().lose(entry, LossReason::Gone),
        }
    }

    /// A file was not found: what was unread of it is lost, and it is looked for no
    /// more. Should it turn up again, it goes on at its position. Nothing happens
    /// when somebody has found it meanwhile, under whatever name.
    pub fn give_up(&self, entry: &Entry) {
        let key = entry.key();
        let mut inner = self.inner();
        // Another file may have its number by now.
        let is_it = |known: &Origin| {
            known.generation == entry.origin.generation && known.may_be(&entry.origin)
        };
        let open = inner.unattended(&key).cloned();
        let mut entry = if let Some(open) = open.filter(|open| is_it(open.origin())) {
            let entry = open.entry();
            open.lose_the_rest(LossReason::Gone);
            open.supersede();
            entry
        } else {
            let saved = inner.remembered.get(&key);
            let saved = saved.filter(|saved| is_it(&saved.origin) && !saved.complete);
            let Some(saved) = saved.cloned() else {
                return;
            };
            inner.lose(&saved, LossReason::Gone);
            *saved
        };
        (entry.complete, entry.size) = (true, entry.settled_to());
        inner.remember(entry);
        drop(inner);
        self.changed();
    }

    /// Nothing is left of a remembered file, which was found under this name: it is
    /// looked for no more. What it had once, and has no more, was cut off.
    pub fn complete(&self, entry: &Entry, found_at: PathBuf) {
        let mut inner = self.inner();
        if let Some(known) = inner.remembered.get(&entry.key()).cloned() {
            if !known.complete {
                inner.lose(&known, LossReason::Truncated);
            }
            inner.remember(Entry {
                complete: true,
                size: known.settled_to(),
                found_at: Some(found_at),
                seen: now_seconds(),
                ..*known
            });
        }
        drop(inner);
        self.changed();
    }

    /// What is known of files that stood at a path, that nobody looks after, and
    /// that may have something left, whichever inode they were.
    pub fn known_at(&self, path: &Path, topic: &str) -> Vec<Entry> {
        let inner = self.inner();
        let keys = inner.by_path.get(path).into_iter().flatten();
        // Once each, however many lives of a file are open.
        let of_topic: HashSet<&Key> = keys.filter(|key| *key.2 == *topic).collect();
        let known = of_topic.into_iter().filter_map(|key| {
            let open = inner.unattended(key).map(|file| file.entry());
            let saved = || inner.remembered.get(key).filter(|saved| !saved.complete);
            open.or_else(|| saved().map(|saved| Entry::clone(saved)))
        });
        known.collect()
    }

    /// Complete files that stood at a path, by the newest, as far as it is known what
    /// they are named now and they were seen since `since` (seconds since 1970).
    pub fn former_at(&self, path: &Path, topic: &str, since: u64) -> Vec<Entry> {
        let inner = self.inner();
        let keys = inner.by_path.get(path).into_iter().flatten();
        let of_topic = keys.filter(|key| *key.2 == *topic);
        let known = of_topic.filter_map(|key| inner.remembered.get(key));
        let former = known.filter(|entry| entry.found_at.is_some() && entry.seen >= since);
        let mut former: Vec<Entry> = former.map(|entry| Entry::clone(entry)).collect();
        former.sort_by_key(|entry| std::cmp::Reverse(entry.seen));
        former
    }

    /// When files that stood at a path were last in somebody's hands, in seconds since
    /// 1970.
    pub fn last_seen_at(&self, path: &Path, topic: &str) -> Option<u64> {
        let inner = self.inner();
        let keys = inner.by_path.get(path).into_iter().flatten();
        let of_topic = keys.filter(|key| *key.2 == *topic);
        let remembered = of_topic.filter_map(|key| inner.remembered.get(key));
        remembered.map(|entry| entry.seen).max()
    }

    /// Remembers a file of `size` bytes of which nothing was read yet, unless it is
    /// known.
    pub fn remember_unread(&self, origin: Origin, size: u64) {
        let unread = Entry {
            origin,
            head: Mark::default(),
            position: 0,
            beyond: Vec::new(),
            window: Mark::default(),
            size,
            seen: now_seconds(),
            complete: false,
            found_at: None,
            ended: false,
        };
        let mut inner = self.inner();
        inner.lose_other(&unread);
        if !inner.knows(&unread.key()) {
            inner.remember(unread);
            self.changed();
        }
    }

    /// Remembers a file of which nothing is to be read.
    pub fn remember_complete(&self, entry: Entry) {
        let complete = Entry {
            complete: true,
            found_at: None,
            ended: false,
            seen: now_seconds(),
            ..entry
        };
        let mut inner = self.inner();
        inner.lose_other(&complete);
        inner.remember(complete);
        drop(inner);
        self.changed();
    }

    /// A remembered file has another device number than it had: file systems do not
    /// keep theirs over a restart of the machine.
    pub fn renumber(&self, entry: &Entry, device: u64) {
        let mut inner = self.inner();
        if let Some(mut entry) = inner.forget(&entry.key()) {
            let then = mem::replace(&mut entry.origin.device, device);
            // Two volumes may have changed their numbers: the other's is this one's.
            if let Some(mut other) = inner.forget(&entry.key()) {
                other.origin.device = then;
                inner.remember(other);
            }
            inner.remember(entry);
        }
        drop(inner);
        self.changed();
    }

    /// Files that may have something left to be read, that nobody looks after, and that
    /// are `wanted`: asked while the ledger is locked.
    pub fn left(&self, wanted: &dyn Fn(&Entry) -> bool) -> Vec<Entry> {
        let inner = self.inner();
        let known = inner.remembered.values();
        let left = known.filter(|entry| !entry.complete && wanted(entry));
        left.map(|entry| Entry::clone(entry)).collect()
    }

    /// True when a file of this topic is known whose path is `wanted`.
    pub fn knows(&self, topic: &str, wanted: &dyn Fn(&Path) -> bool) -> bool {
        let inner = self.inner();
        let of_topic = |key: &Key| *key.2 == *topic;
        let mut paths = inner.by_path.iter();
        paths.any(|(path, keys)| keys.iter().any(of_topic) && wanted(path))
    }

    /// Gives `topic` the positions of a path's files, and of the `inode` that stands there
    /// (device, number, creation in nanoseconds since 1970), under topics that the path is
    /// not shipped to any more: a changed topic goes on where the old one stopped. `topics`
    /// are all that it is shipped to. What is `wanted` under another path still is left to
    /// that one.
    pub fn inherit(
        &self,
        path: &Path,
        inode: Option<(u64, u64, Option<u64>)>,
        topic: &Arc<str>,
        topics: &[Arc<str>],
        wanted: &dyn Fn(&Path, &str) -> bool,
    ) {
        let mut inner = self.inner();
        let mut keys = inner.by_path.get(path).cloned().unwrap_or_default();
        if let Some((device, inode, created_ns)) = inode {
            // It may be known by the name that it had before it was rotated; a file that had
            // its number before is another one, whose rest is not this one's.
            let all = inner
                .topics
                .iter()
                .map(|of| (device, inode, Arc::clone(of)));
            let same = |then: Option<u64>| may_be_one(then, created_ns);
            let is_free = |key: &Key| {
                let known = inner.remembered.get(key).map(|entry| &entry.origin.path);
                known.is_none_or(|known| known == path || !wanted(known, &key.2))
            };
            let same = all.filter(|key| inner.created_ns(key).is_some_and(same));
            keys.extend(same.filter(is_free));
        }
        for key in keys {
            let heir = (key.0, key.1, Arc::clone(topic));
            if topics.contains(&key.2) {
                continue;
            }
            // A file that had the number before is gone: it is neither in the way of the
            // newer one nor takes its place.
            let created = |key: &Key| inner.created_ns(key).flatten();
            if matches!((created(&heir), created(&key)), (Some(heir), Some(own)) if heir < own) {
                inner.lose_remembered(&heir);
            }
            if inner.knows(&heir) {
                continue;
            }
            let entry = match inner.unattended(&key).cloned() {
                // Nobody reads for it any more; what is on its way may be sent twice.
                Some(left) => {
                    let entry = left.durable_entry();
                    left.supersede();
                    entry
                }
                None => inner.forget(&key),
            };
            if let Some(mut entry) = entry {
                entry.origin.topic = Arc::clone(topic);
                inner.remember(entry);
                self.changed();
            }
        }
    }

    /// A file goes on that is shorter than it was known to be, by nobody who saw it shrink:
    /// what was cut off is lost.
    pub fn cut(&self, file: &FileLedger, size: u64) {
        let mut inner = self.inner(); // first: what is written down and not told is told by nobody
        if let Some((position, size)) = file.cut_to(size) {
            let cut = Entry {
                position,
                size,
                beyond: Vec::new(),
                ..file.entry()
            };
            inner.lose(&cut, LossReason::Truncated);
        }
    }

    /// Paths and topics for which somebody looks after an inode.
    pub fn attended(&self, (device, inode): (u64, u64)) -> Vec<(PathBuf, Arc<str>)> {
        let inner = self.inner();
        let keys = inner.topics.iter();
        let keys = keys.map(|topic| (device, inode, Arc::clone(topic)));
        let open = keys.filter_map(|key| inner.open.get(&key)).flatten();
        // One of a topic of before is nobody's but its tailer's, which goes on with the file.
        let attended = open.filter(|file| file.is_attended() && file.is_durable());
        attended
            .map(|file| (file.origin().path.clone(), Arc::clone(&file.origin().topic)))
            .collect()
    }

    /// Opens the account of a file, which takes the place of what is remembered. It is
    /// looked after from the first moment on: else it would be closed before.
    pub fn open(&self, file: FileLedger) -> Attendance {
        let attendance = Arc::new(file).attend();
        self.inner().open(Arc::clone(&attendance));
        self.changed();
        attendance
    }

    /// Opens the account that goes on where `before` was read to, for another topic: with
    /// all that is known of the file, and at one moment for the checkpoint.
    pub fn open_after(
        &self,
        before: &Arc<FileLedger>,
        origin: Origin,
        flow: Arc<Flow>,
        window: Mark,
    ) -> Attendance {
        let mut inner = self.inner();
        let file = FileLedger::following(before, origin, flow, window);
        let attendance = Arc::new(file).attend();
        inner.open(Arc::clone(&attendance));
        drop(inner);
        self.changed();
        attendance
    }

    /// Closes an account in which nothing is on its way.
    pub fn close(&self, file: &Arc<FileLedger>, keep: Keep) {
        self.inner().close(file, keep);
        self.changed();
    }

    /// Closes the accounts that nobody looks after and of which nothing is on
    /// its way any more. Their positions stay remembered.
    pub fn sweep(&self) {
        let mut inner = self.inner();
        let over = |file: &&Arc<FileLedger>| !file.is_attended() && file.is_quiet();
        let open = inner.open.values().flatten();
        let over: Vec<Arc<FileLedger>> = open.filter(over).cloned().collect();
        for file in over {
            let remember = file.is_durable() && !file.is_gone();
            let keep = if remember {
                Keep::Position
            } else {
                Keep::Nothing
            };
            inner.close(&file, keep);
            self.changed();
        }
        inner.flows.retain(|_, flow| flow.strong_count() > 0);
    }

    /// The sum over all files, open and closed.
    pub fn figures(&self) -> Figures {
        let inner = self.inner();
        let open = inner.open.values().flatten().map(|file| file.figures());
        let closed = inner.closed.values().copied();
        let sum = open.chain(closed).fold(Figures::default(), Figures::add);
        sum.check();
        sum
    }

    /// The same, by topic.
    pub fn figures_by_topic(&self) -> BTreeMap<Arc<str>, Figures> {
        let inner = self.inner();
        let mut sums = inner.closed.clone();
        for file in inner.open.values().flatten() {
            *sums.entry(Arc::clone(&file.origin().topic)).or_default() += file.figures();
        }
        sums.values().for_each(Figures::check);
        sums
    }

    /// Says what was given up so far: before it is written down, or a kill leaves it
    /// untold.
    pub fn tell_dropped(&self) {
        for account in self.accounts() {
            account.tell_dropped();
        }
    }

    /// All open accounts.
    pub fn accounts(&self) -> Vec<Arc<FileLedger>> {
        self.inner().open.values().flatten().cloned().collect()
    }

    /// Everything to be written down. Where an inode has several lives, the
    /// newest counts: the bytes of the others are gone.
    pub fn entries(&self) -> Vec<Entry> {
        let inner = self.inner();
        let mut entries = Vec::with_capacity(inner.remembered.len() + inner.open.len());
        // An account that is open says more than what is remembered, and the one that was
        // opened last more than the others: also when its number is another file's.
        for lives in inner.open.values() {
            let mut newest_first = lives.iter().rev();
            for file in newest_first.by_ref() {
                if let Some(entry) = file.durable_entry() {
                    entries.push(Entry {
                        seen: now_seconds(), // it is in our hands
                        ..entry
                    });
                    break;
                }
                entries.extend(file.ended_entry());
            }
            entries.extend(newest_first.filter_map(|file| file.ended_entry()));
        }
        let closed = inner.remembered.iter();
        let closed = closed.filter(|(key, _)| !inner.is_open(key));
        entries.extend(closed.map(|(_, entry)| Entry::clone(entry)));
        drop(inner);
        entries.sort_by(|a, b| {
            let order = |e: &Entry| (e.origin.device, e.origin.inode);
            (&a.origin.path, order(a)).cmp(&(&b.origin.path, order(b)))
        });
        entries
    }

    /// Forgets files that have not been seen since `before`, and complete ones that
    /// have not been since `complete_before` (seconds since 1970). What was unread of
    /// them is lost.
    pub fn forget(&self, before: u64, complete_before: u64) {
        let mut inner = self.inner();
        let is_old = |key: &Key, entry: &Entry| {
            entry.seen < before
                || (entry.complete && entry.seen < complete_before && !inner.has_another_topic(key))
        };
        let remembered = inner.remembered.iter();
        let old = remembered.filter(|(key, entry)| is_old(key, entry));
        let keys: Vec<Key> = old.map(|(key, _)| key.clone()).collect();
        for key in keys {
            inner.lose_remembered(&key);
            self.changed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known of inode 2, of 100 bytes.
    fn known(path: &str, topic: &str, created: u64, position: u64) -> Entry {
        Entry {
            origin: Origin {
                path: PathBuf::from(path),
                real: None,
                topic: topic.into(),
                device: 1,
                inode: 2,
                generation: 0,
                created_ns: Some(created),
            },
            head: Mark::default(),
            position,
            beyond: Vec::new(),
            window: Mark::default(),
            size: 100,
            seen: 0,
            complete: position == 100,
            found_at: None,
            ended: false,
        }
    }

    fn of(topic: &str) -> Arc<str> {
        topic.into()
    }

    /// A rotated file is known by the name that it had, under the topic that its path
    /// had, and is found under another name for another topic.
    #[test]
    fn a_changed_topic_goes_on_with_a_renamed_file_by_its_inode() {
        let known = known("/app.log.1", "one", 7, 100);
        let now = Path::new("/app.log.2");
        for (inode, shipped_to, position) in [
            (Some((1, 2, None)), vec![of("two")], Some(100)),
            (Some((1, 2, Some(7))), vec![of("two")], Some(100)),
            (Some((1, 2, Some(8))), vec![of("two")], None), // another file
            (Some((1, 3, None)), vec![of("two")], None),
            (Some((1, 2, None)), vec![of("one"), of("two")], None),
        ] {
            let ledger = Ledger::remembering(vec![known.clone()]);
            ledger.inherit(now, inode, &of("two"), &shipped_to, &|_, _| false);
            let recalled = ledger.recall(1, 2, &of("two"), now);
            let found = recalled.map(|known| known.entry().position);
            assert_eq!(found, position, "{inode:?} {shipped_to:?}");
        }
    }

    /// A path's topic is `new` alone, and the file there was created at 8.
    fn inherit_all(ledger: &Ledger, path: &Path, new: &Arc<str>) {
        let there = Some((1, 2, Some(8)));
        ledger.inherit(path, there, new, &[Arc::clone(new)], &|_, _| false);
    }

    /// The number of a rotated file was given away again, under the topic that a path has
    /// now: that one stood in the way of the file that has the number, and what was
    /// unread of it was never told.
    #[test]
    fn a_file_that_had_the_inode_before_keeps_no_position_from_its_heir() {
        let new = Arc::<str>::from("new");
        let before = known("/a.log", "new", 7, 60);
        let now = known("/b.log", "old", 8, 100);
        let ledger = Ledger::remembering(vec![before, now]);
        let path = Path::new("/b.log");
        inherit_all(&ledger, path, &new);
        let heir = ledger.recall(1, 2, &new, path).unwrap().entry();
        assert_eq!((heir.origin.created_ns, heir.position), (Some(8), 100));
        assert_eq!(ledger.figures().lost_bytes[LossReason::Gone as usize], 40);
    }

    /// ... and what is left under the topic of before took the place of the file that has
    /// the number now: all of it came twice after a start.
    #[test]
    fn a_file_that_had_the_inode_before_does_not_come_back_by_a_changed_topic() {
        let new = Arc::<str>::from("new");
        let before = known("/a.log", "old", 7, 100);
        let now = known("/a.log", "new", 8, 60);
        let ledger = Ledger::remembering(vec![before, now]);
        let path = Path::new("/a.log");
        inherit_all(&ledger, path, &new);
        let kept = ledger.recall(1, 2, &new, path).unwrap().entry();
        assert_eq!((kept.origin.created_ns, kept.position), (Some(8), 60));
        assert_eq!(ledger.figures().lost_bytes[LossReason::Gone as usize], 0);
    }

    /// Between its opening and its first line, an account of which nothing was on its way
    /// was closed by whoever asked for its inode, or swept: what its tailer shipped from
    /// then on was written down nowhere, and came twice after the next start.
    #[test]
    fn an_account_is_written_down_from_its_opening_on() {
        let ledger = Ledger::default();
        let topic = Arc::<str>::from("t");
        let origin = Origin {
            path: PathBuf::from("/app.log.1"),
            real: None,
            topic: Arc::clone(&topic),
            device: 1,
            inode: 2,
            generation: 0,
            created_ns: Some(3),
        };
        let flow = ledger.flow("host", &origin.path, &topic);
        let account = FileLedger::new(origin, flow, 0, Mark::default(), Mark::default());
        let account = ledger.open(account);

        ledger.sweep();
        assert_eq!(ledger.knows_inode(1, 2, &topic), Some(Some(3)));
        assert!(ledger.recall(1, 2, &topic, Path::new("/app.log")).is_none());
        drop(account.attend()); // a second one who looks after it, for a moment
        ledger.sweep();

        account.saw(10);
        account.claim(0, 10, 1, Mark::default()).hand_on();
        Claim::new(Arc::clone(&account), (0, 10), 1, 0).ack();
        assert_eq!(ledger.entries()[0].position, 10);
    }

    /// What came back waits in the file; nothing is on its way. A stop said that nothing
    /// was left, and that something was.
    #[test]
    fn a_closed_account_has_nothing_on_its_way() {
        let ledger = Ledger::default();
        let topic = Arc::<str>::from("t");
        let origin = Origin {
            path: PathBuf::from("/app.log"),
            real: None,
            topic: Arc::clone(&topic),
            device: 1,
            inode: 2,
            generation: 0,
            created_ns: None,
        };
        let flow = ledger.flow("host", &origin.path, &topic);
        let account = FileLedger::new(origin, flow, 0, Mark::default(), Mark::default());
        let account = ledger.open(account);
        account.saw(10);
        account.claim(0, 10, 1, Mark::default()).hand_on();
        drop(Claim::new(Arc::clone(&account), (0, 10), 1, 0)); // given back
        assert_eq!(ledger.figures().under_way_bytes, 10);
        let file = Arc::clone(&account);
        drop(account);
        ledger.close(&file, Keep::Position);
        let figures = ledger.figures();
        assert_eq!((figures.waiting_bytes, figures.under_way_bytes), (0, 0));
    }

    /// Two volumes have changed their device numbers, and have files with equal inodes.
    #[test]
    fn device_numbers_that_are_swapped_forget_no_file() {
        let at = |path: &str, device: u64, position: u64| {
            let mut entry = known(path, "t", device, position);
            entry.origin.device = device;
            entry
        };
        let (one, two) = (at("/1/a.log", 1, 60), at("/2/b.log", 2, 70));
        let ledger = Ledger::remembering(vec![one.clone(), two.clone()]);
        ledger.renumber(&one, 2);
        let left = ledger.known_at(Path::new("/2/b.log"), "t");
        assert_eq!(
            left.len(),
            1,
            "its position is forgotten, and 30 bytes are told nowhere"
        );
    }

    /// An inode's number is given away again while the next file waits for its turn.
    #[test]
    fn a_file_that_waits_is_remembered_also_with_the_number_of_one_before() {
        let before = known("/a.log", "t", 7, 100);
        let ledger = Ledger::remembering(vec![before]);
        let mut origin = known("/b.log", "t", 8, 0).origin;
        origin.path = PathBuf::from("/b.log");
        ledger.remember_unread(origin, 1000);
        assert_eq!(ledger.known_at(Path::new("/b.log"), "t").len(), 1);
    }

    /// A copy that has the inode of a file that is gone, and of which something was unread.
    #[test]
    fn a_copy_with_the_number_of_a_file_before_tells_what_was_unread_of_that() {
        let ledger = Ledger::remembering(vec![known("/a.log", "t", 7, 60)]);
        ledger.remember_complete(known("/b.log", "t", 8, 100));
        assert_eq!(ledger.figures().lost_bytes[LossReason::Gone as usize], 40);
    }

    /// Another name of a file, for another topic, is found first after a start.
    #[test]
    fn another_name_of_a_file_takes_no_position_from_one_that_is_wanted_still() {
        let ledger = Ledger::remembering(vec![known("/z.log", "two", 7, 60)]);
        let inode = Some((1, 2, Some(7)));
        let (link, one) = (Path::new("/current"), of("one"));
        ledger.inherit(link, inode, &one, &[of("one")], &|path, topic| {
            path == Path::new("/z.log") && topic == "two"
        });
        assert!(ledger.recall(1, 2, &one, link).is_none());
        let kept = ledger.recall(1, 2, &of("two"), Path::new("/z.log"));
        assert_eq!(kept.unwrap().entry().position, 60);
    }

    fn opened(ledger: &Ledger, topic: &str) -> Attendance {
        let origin = known("/a.log", topic, 7, 0).origin;
        let flow = ledger.flow("h", &origin.path, &origin.topic);
        let account = ledger.open(FileLedger::new(
            origin,
            flow,
            0,
            Mark::default(),
            Mark::default(),
        ));
        account.saw(100);
        account
    }

    fn next(ledger: &Ledger, before: &Arc<FileLedger>, topic: &str) -> Attendance {
        let origin = known("/a.log", topic, 7, 0).origin;
        let flow = ledger.flow("h", &origin.path, &origin.topic);
        ledger.open_after(before, origin, flow, Mark::default())
    }

    /// What came back is news for the checkpoint.
    #[test]
    fn what_comes_back_and_what_is_buried_is_written_down() {
        let ledger = Ledger::default();
        let account = opened(&ledger, "t");
        account.claim(0, 10, 1, Mark::default()).hand_on();
        account.claim(10, 20, 1, Mark::default()).hand_on();
        let before = ledger.changes();
        Claim::new(Arc::clone(&account), (0, 10), 1, 0).bury();
        let buried = ledger.changes();
        account.lose_the_rest(LossReason::Truncated);
        account.supersede();
        let gone = ledger.changes();
        assert_eq!(ledger.entries().len(), 1); // an ended one
        drop(Claim::new(Arc::clone(&account), (10, 20), 1, 0));
        assert_eq!(ledger.entries().len(), 0);
        assert_ne!((before, gone), (buried, ledger.changes()));
        assert_ne!(before, buried, "buried");
        assert_ne!(gone, ledger.changes(), "came back");
    }

    /// A file whose lines for the topic of before are still on their way is nobody's who
    /// has not heard of the change.
    #[test]
    fn an_account_of_a_topic_of_before_does_not_say_that_a_file_changes_hands() {
        let ledger = Ledger::default();
        let account = opened(&ledger, "one");
        account.claim(0, 10, 1, Mark::default()).hand_on();
        let next = next(&ledger, &account, "two");
        drop(next); // let go
        assert_eq!(ledger.attended((1, 2)), []);
    }

    /// Given up under a number that another file has by now.
    #[test]
    fn giving_a_file_up_does_not_give_up_the_one_that_has_its_number_now() {
        let before = known("/a.log", "t", 7, 60);
        let ledger = Ledger::remembering(vec![known("/b.log", "t", 8, 70)]);
        ledger.give_up(&before);
        assert_eq!(ledger.known_at(Path::new("/b.log"), "t").len(), 1);
    }

    /// What nobody has found for a week was forgotten without a word.
    #[test]
    fn what_is_forgotten_unread_is_told() {
        let ledger = Ledger::remembering(vec![known("/a.log", "t", 7, 60)]);
        ledger.forget(1, 1);
        assert_eq!(ledger.entries(), []);
        assert_eq!(ledger.figures().lost_bytes[LossReason::Gone as usize], 40);
    }

    /// A file was shipped to two topics, and then to the second one only: when that had it
    /// all and had forgotten it, it was shipped again from where the first one had stopped.
    #[test]
    fn a_position_for_a_topic_of_before_does_not_outlive_that_for_the_topic_of_now() {
        let two = of("two");
        let (first, second) = (
            known("/a.log", "one", 7, 60),
            known("/a.log", "two", 7, 100),
        );
        let ledger = Ledger::remembering(vec![first, second]);
        ledger.forget(0, 1);
        let (path, inode) = (Path::new("/a.log"), Some((1, 2, Some(7))));
        ledger.inherit(path, inode, &two, &[Arc::clone(&two)], &|_, _| false);
        let known = ledger.recall(1, 2, &two, path).unwrap().entry();
        assert_eq!(known.position, 100);
        ledger.forget(1, 1);
        assert_eq!(ledger.entries(), [], "both are old");
    }

    /// A kill between the beginning of the next life and the end of the one before.
    #[test]
    fn a_life_that_has_not_ended_yet_is_written_down_with_the_next_one() {
        let ledger = Ledger::default();
        let old = opened(&ledger, "t");
        let _next = opened(&ledger, "t");
        let entries = ledger.entries();
        let ended: Vec<bool> = entries.iter().map(|entry| entry.ended).collect();
        assert_eq!(ended, [false, true]);
        old.lose_the_rest(LossReason::Truncated);
        old.supersede();
        assert_eq!(ledger.entries().len(), 1);
    }

    /// It was said that the file was truncated, whatever had become of it.
    #[test]
    fn what_comes_back_of_a_life_that_is_over_is_lost_as_its_rest_was() {
        let ledger = Ledger::default();
        let account = opened(&ledger, "t");
        account.claim(0, 10, 1, Mark::default()).hand_on();
        account.lose_the_rest(LossReason::HeldDeleted);
        drop(Claim::new(Arc::clone(&account), (0, 10), 1, 0));
        let lost = account.figures().lost_bytes;
        assert_eq!(lost[LossReason::HeldDeleted as usize], 100);
    }

    /// What is only room is not known, and is not looked for where it is no more.
    #[test]
    fn room_is_not_known_before_something_is_written_there() {
        let ledger = Ledger::default();
        let account = opened(&ledger, "t");
        account.set_room(Some(40));
        let known = |account: &FileLedger| (account.figures().known_bytes, account.entry().size);
        assert_eq!((known(&account), account.size()), ((40, 40), 100));
        assert_eq!(account.cut_to(70), None);
        assert_eq!(account.cut_to(30), Some((30, 40)));
        account.saw(100);
        account.set_room(Some(40));
        account.claim(0, 50, 1, Mark::default()).hand_on();
        assert_eq!(known(&account), (100, 100));
    }

    /// What was told to be lost of a file that is found again is not known of it any more.
    #[test]
    fn what_was_told_of_a_complete_file_is_not_told_again() {
        let entry = known("/a.log", "t", 7, 60);
        for complete in [
            |ledger: &Ledger, entry: &Entry| ledger.complete(entry, PathBuf::from("/a.log.1")),
            |ledger: &Ledger, entry: &Entry| ledger.give_up(entry),
        ] {
            let ledger = Ledger::remembering(vec![entry.clone()]);
            complete(&ledger, &entry);
            let found = ledger.recall(1, 2, &of("t"), Path::new("/a.log")).unwrap();
            let flow = ledger.flow("h", Path::new("/a.log"), &of("t"));
            let account = FileLedger::resumed(&found.entry(), entry.origin.clone(), flow);
            let account = ledger.open(account);
            ledger.cut(&account, 70);
            let lost: u64 = ledger.figures().lost_bytes.iter().sum();
            assert_eq!((account.position(), lost), (60, 40));
        }
    }
}
