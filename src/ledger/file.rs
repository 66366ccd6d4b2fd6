//! The account of one file's life: every byte is somewhere.
//!
//! A byte of the file is settled (acknowledged, dropped, or lost), claimed
//! (read, and on its way), or waiting in the file. It knows offsets only; what
//! stands there is the tailer's business.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Entry;
use super::flow::Flow;
use super::ranges::Ranges;
use crate::text::as_value;

/// How long a stretch that is given up grows before it is told.
const TELL_DROPPED_EVERY: Duration = Duration::from_secs(10);

/// Which file, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The path it was found under.
    pub path: PathBuf,
    /// Where that led, if it was a symbolic link.
    pub real: Option<PathBuf>,
    /// Where its lines go.
    pub topic: Arc<str>,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Which life of the inode: one more with every truncation.
    pub generation: u64,
    /// When the inode was created, in nanoseconds since 1970, where the file system
    /// knows: with the same number another inode is told from it by this.
    pub created_ns: Option<u64>,
}

impl Origin {
    /// False when another file had, or has, the same inode number.
    pub fn may_be(&self, other: &Origin) -> bool {
        may_be_one(self.created_ns, other.created_ns)
    }
}

/// False when two times of creation, where they are known, tell one inode from another with
/// the same number.
pub fn may_be_one(then: Option<u64>, now: Option<u64>) -> bool {
    then.is_none() || now.is_none() || then == now
}

/// A fingerprint of `len` bytes that end at `end`; XXH3, 64 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Byte after the last one hashed.
    pub end: u64,
    /// Bytes hashed.
    pub len: u32,
    /// Their hash; of no meaning when `len` is 0.
    pub hash: u64,
}

/// Sums of one file or of many. Bytes are bytes of files, line ends included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes known to exist: from where reading began to the last size seen.
    pub known_bytes: u64,
    /// Offered to a producer at least once.
    pub read_bytes: u64,
    /// Records in them.
    pub read_lines: u64,
    /// Acknowledged by Kafka.
    pub acked_bytes: u64,
    /// Records in them.
    pub acked_lines: u64,
    /// Given up by choice, by [`DropReason`].
    pub dropped_bytes: [u64; DropReason::ALL.len()],
    /// Records in them.
    pub dropped_lines: [u64; DropReason::ALL.len()],
    /// In the dead-letter file.
    pub dead_bytes: u64,
    /// Records in it.
    pub dead_lines: u64,
    /// Could not be read any more, by [`LossReason`].
    pub lost_bytes: [u64; LossReason::ALL.len()],
    /// Not settled: neither acknowledged nor dropped, dead or lost.
    pub waiting_bytes: u64,
    /// Of those, what was read.
    pub under_way_bytes: u64,
    /// Records cut at `line_bytes_max`.
    pub cut_lines: u64,
}

/// Why a range was given up by choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The queue was full and `when_full` is `drop`.
    QueueFull,
    /// A run of NUL bytes left by a writer after a truncation.
    NulHole,
    /// An empty line of a source that skips them. Its bytes count with those of
    /// the lines around it.
    Empty,
}

/// Why a range cannot be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReason {
    /// The file became shorter or was rewritten.
    Truncated,
    /// The file was deleted or replaced while nobody held it.
    Gone,
    /// The file was deleted, and deleted files took more than they may.
    HeldDeleted,
    /// It was on its way when the file was truncated, and logship was killed before it
    /// heard of it: it may have arrived.
    Unconfirmed,
}

/// A stretch of a file that nobody has claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Its first byte.
    pub from: u64,
    /// Where it ends, if something claimed or settled follows.
    pub to: Option<u64>,
}

/// A claim of a range that nobody else has seen yet. Dropping it takes the claim
/// back as if it had never been made.
#[derive(Debug)]
pub struct Ticket {
    file: Arc<FileLedger>,
    from: u64,
    to: u64,
    read: (u64, u64, u64),
    used: bool,
}

/// Somebody looks after a file. An account that nobody looks after is closed
/// once nothing of it is on its way, or goes on with whoever finds the file.
#[derive(Debug)]
pub struct Attendance(Arc<FileLedger>);

/// Lines on their way in a batch. Dropping it gives them back, so that whatever
/// happens to a batch, its lines are sent or read again.
#[derive(Debug)]
pub struct Claim {
    file: Arc<FileLedger>,
    from: u64,
    to: u64,
    records: u64,
    skipped: u64,
    settled: bool,
}

/// The account of one file between two truncations.
#[derive(Debug)]
pub struct FileLedger {
    /// In the order in which accounts were opened.
    number: u64,
    origin: Origin,
    flow: Arc<Flow>,
    // A lock and not messages: a tailer must see at once what came back, and
    // both sides touch it once a chunk. Never held across I/O.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    start: u64,
    position: u64,
    /// Settled ranges after `position`.
    beyond: Ranges,
    claims: Ranges,
    /// In this run. What an earlier one had settled after a gap is beyond it.
    read_to: u64,
    size: u64,
    /// From here on the file was seen to have room only; `u64::MAX` where that is not known.
    room_from: u64,
    seen: u64,
    head: Mark,
    /// The newest mark at or before `position`, then those after it.
    window: Mark,
    windows: VecDeque<Mark>,
    /// The bytes are no longer there: nothing can be read again, for this reason.
    gone: Option<LossReason>,
    /// Another account has taken over; this one is not written down.
    superseded: bool,
    /// How many look after the file.
    attended: usize,
    /// The account whose topic was changed, until everything that was read for
    /// it is settled: this one begins where that one ends.
    before: Option<Arc<FileLedger>>,
    /// What was given up last and is not told yet: more may follow it.
    dropped: Option<Dropped>,
    figures: Figures,
}

/// A stretch that was given up by choice.
#[derive(Debug, Clone, Copy)]
struct Dropped {
    from: u64,
    to: u64,
    lines: u64,
    reason: DropReason,
    since: Instant,
}

impl FileLedger {
    /// The account of a file that was never seen, read from `start` on.
    pub fn new(
        origin: Origin,
        flow: Arc<Flow>,
        start: u64,
        head: Mark,
        window: Mark,
    ) -> FileLedger {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        FileLedger {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            origin,
            flow,
            state: Mutex::new(State {
                start,
                position: start,
                beyond: Ranges::default(),
                claims: Ranges::default(),
                read_to: start,
                size: start,
                room_from: u64::MAX,
                seen: now_seconds(),
                head,
                window,
                windows: VecDeque::new(),
                gone: None,
                superseded: false,
                attended: 0,
                before: None,
                dropped: None,
                figures: Figures::default(),
            }),
        }
    }

    /// The account of a file that is known from the checkpoint: what was known of it is
    /// from the first moment on, so that it is told if it is there no more.
    pub fn resumed(entry: &Entry, origin: Origin, flow: Arc<Flow>) -> FileLedger {
        let file = FileLedger::new(origin, flow, entry.position, entry.head, entry.window);
        let mut state = file.state();
        state.size = state.size.max(entry.size);
        for &(from, to) in &entry.beyond {
            state.start += to - from;
            state.size = state.size.max(to);
            state.beyond.insert(from, to);
        }
        drop(state);
        file
    }

    /// The account that goes on where `before` was read to, for another topic, with all that
    /// is known of the file. Until `before` is settled, what is written down begins with its
    /// gaps: a crash sends them to the new topic rather than to none.
    pub(super) fn following(
        before: &Arc<FileLedger>,
        origin: Origin,
        flow: Arc<Flow>,
        window: Mark,
    ) -> FileLedger {
        let start = before.read_to();
        let file = FileLedger::new(origin, flow, start, before.head(), window);
        let (size, room_from) = before.retire();
        let mut state = file.state();
        (state.size, state.room_from) = (state.size.max(size), room_from);
        state.before = Some(Arc::clone(before));
        drop(state);
        file
    }

    /// Larger than that of every account that was opened before.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Which file, and for what.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The flow its chunks belong to.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the tailer's side -------------------------------------------------

    /// The first stretch at or after `from` that nobody has claimed or settled.
    pub fn gap(&self, from: u64) -> Gap {
        let state = self.state();
        let mut at = from.max(state.position);
        while let Some((_, to)) = state
            .beyond
            .holding(at)
            .or_else(|| state.claims.holding(at))
        {
            at = to;
        }
        let ends = [state.beyond.next_start(at), state.claims.next_start(at)];
        Gap {
            from: at,
            to: ends.into_iter().flatten().min(),
        }
    }

    /// Everything before it is settled.
    pub fn position(&self) -> u64 {
        self.state().position
    }

    /// Notes the file's size, and that the file was seen.
    pub fn saw(&self, size: u64) {
        let mut state = self.state();
        if size > state.size {
            (state.size, state.room_from) = (size, u64::MAX);
            self.flow.changed();
        }
        state.seen = now_seconds();
    }

    /// From here to its end the file has NUL bytes only: room that its writer has made, and
    /// may take back. It is not known to be anything before something is written there;
    /// `None` when something was.
    pub fn set_room(&self, from: Option<u64>) {
        let mut state = self.state();
        let from = from.map_or(u64::MAX, |from| from.max(state.ever_read_to()));
        let known = state.known_to();
        state.room_from = from;
        if state.known_to() != known {
            drop(state);
            self.flow.changed();
        }
    }

    /// The file became shorter by what was never a line: it is not known any more.
    pub fn shrink_to(&self, size: u64) {
        let mut state = self.state();
        state.size = size.max(state.ever_read_to());
        drop(state);
        self.flow.changed();
    }

    /// The file is shorter than it was known to be. The range that was cut off behind what
    /// was read, which is not known any more.
    pub fn cut_to(&self, size: u64) -> Option<(u64, u64)> {
        let mut state = self.state();
        let from = size.max(state.ever_read_to());
        let to = state.known_to();
        state.size = state.size.min(from);
        if from >= to {
            return None;
        }
        drop(state);
        self.flow.changed();
        Some((from, to))
    }

    /// Somebody begins to look after the file.
    pub fn attend(self: &Arc<FileLedger>) -> Attendance {
        self.state().attended += 1;
        Attendance(Arc::clone(self))
    }

    /// True while somebody looks after the file.
    pub fn is_attended(&self) -> bool {
        self.state().attended > 0
    }

    /// True when nobody looks after the file, and whoever finds it may go on.
    pub(super) fn is_left_open(&self) -> bool {
        let state = self.state();
        state.attended == 0 && !state.superseded && state.gone.is_none()
    }

    /// True when no other account's unsettled end is before this one.
    pub(super) fn is_whole(&self) -> bool {
        let mut state = self.state();
        state.drop_settled_before();
        state.before.is_none()
    }

    /// True when nothing of the file is on its way.
    pub fn is_quiet(&self) -> bool {
        self.state().claims.is_empty()
    }

    /// The fingerprint of the file's first bytes has grown.
    pub fn set_head(&self, head: Mark) {
        self.state().head = head;
        self.flow.changed();
    }

    /// The fingerprint of the file's first bytes.
    pub fn head(&self) -> Mark {
        self.state().head
    }

    /// The newest fingerprint of bytes before the position.
    pub fn window(&self) -> Mark {
        self.state().window
    }

    /// The newest fingerprint of bytes that were read, also of what is on its way.
    pub fn newest_window(&self) -> Mark {
        let state = self.state();
        state.windows.back().copied().unwrap_or(state.window)
    }

    /// Claims a range that is about to be offered; `fresh` are the lines in the
    /// part of it that was never read before.
    pub fn claim(self: &Arc<FileLedger>, from: u64, to: u64, fresh: u64, window: Mark) -> Ticket {
        let mut state = self.state();
        let figures = &state.figures;
        let read = (state.read_to, figures.read_bytes, figures.read_lines);
        state.claims.insert(from, to);
        state.size = state.size.max(to);
        if to > state.room_from {
            state.room_from = u64::MAX;
        }
        if to > state.read_to {
            state.figures.read_bytes += to - state.read_to.max(from);
            state.figures.read_lines += fresh;
            state.read_to = to;
        }
        state.windows.push_back(window);
        drop(state);
        Ticket {
            file: Arc::clone(self),
            from,
            to,
            read,
            used: false,
        }
    }

    /// Says what was given up, now that nothing more is given up next to it.
    pub fn tell_dropped(&self) {
        let dropped = self.state().dropped.take();
        if let Some(dropped) = dropped {
            self.tell(dropped);
        }
    }

    /// The one message for a stretch that was given up by choice.
    fn tell(&self, dropped: Dropped) {
        let Dropped {
            from,
            to,
            lines,
            reason,
            ..
        } = dropped;
        log::warn!(
            "dropped path={} inode={} from={from} to={to} bytes={} lines={lines} reason={reason}",
            as_value(&self.origin.path),
            self.origin.inode,
            to - from
        );
    }

    /// How far the file was ever read, in this run or an earlier one.
    pub fn read_to(&self) -> u64 {
        self.state().ever_read_to()
    }

    /// How far it was read in this run: what is read after it is new.
    pub fn fresh_from(&self) -> u64 {
        self.state().read_to
    }

    /// A record was cut at `line_bytes_max`.
    pub fn count_cut(&self) {
        self.state().figures.cut_lines += 1;
    }

    /// The bytes are gone: what is neither claimed nor settled is lost, up to
    /// the size last seen, and so is what comes back later.
    pub fn lose_the_rest(&self, reason: LossReason) {
        // First of all, so that what comes back from now on is lost by itself.
        let mut state = self.state();
        state.gone = Some(reason);
        let before = state.before.take();
        drop(state);
        if let Some(before) = before {
            before.lose_the_rest(reason); // its gaps were this one's
        }
        let mut at = 0;
        loop {
            let gap = self.gap(at);
            let state = self.state();
            let to = gap.to.unwrap_or(state.known_to());
            if gap.from >= to {
                if gap.to.is_none() {
                    return;
                }
            } else {
                drop(state);
                // First of all: what is written down and not told is told by nobody.
                tell_loss(&self.origin, gap.from, to, reason);
                self.state().lose(gap.from, to, reason);
            }
            at = to;
        }
    }

    /// True when the bytes are gone: what comes back is lost.
    pub fn is_gone(&self) -> bool {
        self.state().gone.is_some()
    }

    /// Another account has taken over: this one is not written down.
    pub fn supersede(&self) {
        self.state().superseded = true;
        self.flow.changed();
    }

    /// Another account goes on where this one was read to: with all that is known of the
    /// file, which is the answer: its size, and from where on it has room only.
    fn retire(&self) -> (u64, u64) {
        let mut state = self.state();
        let read_to = state.ever_read_to();
        let size = mem::replace(&mut state.size, read_to);
        let room_from = mem::replace(&mut state.room_from, u64::MAX);
        state.superseded = true;
        drop(state);
        self.flow.changed();
        (size, room_from)
    }

    /// True when nothing of the file is claimed or, up to `size`, waiting.
    pub fn is_settled(&self, size: u64) -> bool {
        let state = self.state();
        state.claims.is_empty() && (state.gone.is_some() || state.position >= size)
    }

    // ---- the producer's side -----------------------------------------------

    /// A claimed range comes back, to be read again.
    pub fn give_back(&self, from: u64, to: u64) {
        let mut state = self.state();
        let found = state.claims.carve(from, to);
        debug_assert!(found, "{from}..{to} was not claimed");
        state.windows.retain(|window| window.end <= from);
        let gone = state.gone;
        if let Some(reason) = gone {
            state.lose(from, to, reason);
        }
        drop(state);
        self.flow.next_epoch();
        self.flow.changed();
        if let Some(reason) = gone {
            tell_loss(&self.origin, from, to, reason);
        }
    }

    fn ack(&self, claim: &Claim) {
        let mut state = self.state();
        state.settle_claim(claim.from, claim.to);
        state.figures.acked_bytes += claim.to - claim.from;
        state.figures.acked_lines += claim.records;
        state.figures.dropped_lines[DropReason::Empty as usize] += claim.skipped;
        self.flow.changed();
    }

    fn bury(&self, claim: &Claim) {
        let mut state = self.state();
        state.settle_claim(claim.from, claim.to);
        state.figures.dead_bytes += claim.to - claim.from;
        state.figures.dead_lines += claim.records;
        state.figures.dropped_lines[DropReason::Empty as usize] += claim.skipped;
        self.flow.changed();
    }

    // ---- for everybody -----------------------------------------------------

    /// The file's sums.
    pub fn figures(&self) -> Figures {
        let state = self.state();
        state.check();
        Figures {
            known_bytes: state.known_bytes(),
            waiting_bytes: state.waiting_bytes(),
            under_way_bytes: state.under_way_bytes(),
            ..state.figures
        }
    }

    /// What the checkpoint keeps of it.
    pub fn entry(&self) -> Entry {
        self.state().entry(&self.origin)
    }

    /// Its newest size.
    pub fn size(&self) -> u64 {
        self.state().size
    }

    /// True while the checkpoint keeps it: no other account has taken over.
    pub fn is_durable(&self) -> bool {
        !self.state().superseded
    }

    /// What the checkpoint keeps of a life that is over, as long as something of it is
    /// on its way, or not told yet.
    pub fn ended_entry(&self) -> Option<Entry> {
        let state = self.state();
        let over = state.gone.is_some() || !state.superseded;
        (over && state.waiting_bytes() > 0).then(|| Entry {
            ended: true,
            ..state.own_entry(&self.origin)
        })
    }

    /// What the checkpoint keeps, unless a newer life has taken over.
    pub fn durable_entry(&self) -> Option<Entry> {
        let mut state = self.state();
        state.drop_settled_before();
        (!state.superseded).then(|| state.entry(&self.origin))
    }
}

impl State {
    fn settle_claim(&mut self, from: u64, to: u64) {
        let found = self.claims.carve(from, to);
        debug_assert!(found, "{from}..{to} was not claimed");
        self.settle(from, to);
    }

    fn lose(&mut self, from: u64, to: u64, reason: LossReason) {
        self.settle(from, to);
        self.figures.lost_bytes[reason as usize] += to - from;
    }

    /// Adds to what was given up just before it. Returns what is to be told: what
    /// does not continue in it, or goes on for long.
    fn note_dropped(
        &mut self,
        from: u64,
        to: u64,
        lines: u64,
        reason: DropReason,
    ) -> Option<Dropped> {
        let fresh = Dropped {
            from,
            to,
            lines,
            reason,
            since: Instant::now(),
        };
        let Some(last) = &mut self.dropped else {
            self.dropped = Some(fresh);
            return None;
        };
        if (last.to, last.reason) != (from, reason) {
            return self.dropped.replace(fresh);
        }
        (last.to, last.lines) = (to, last.lines + lines);
        if last.since.elapsed() < TELL_DROPPED_EVERY {
            return None;
        }
        self.dropped.take()
    }

    fn settle(&mut self, from: u64, to: u64) {
        self.beyond.insert(from, to);
        while let Some(to) = self.beyond.take_at(self.position) {
            self.position = to;
        }
        while let Some(window) = self.windows.front()
            && window.end <= self.position
        {
            self.window = *window;
            self.windows.pop_front();
        }
    }

    fn ever_read_to(&self) -> u64 {
        let beyond = self.beyond.iter().last().map_or(0, |(_, to)| to);
        self.read_to.max(self.position).max(beyond)
    }

    /// The file's size without what is only room.
    fn known_to(&self) -> u64 {
        self.size.min(self.room_from)
    }

    fn known_bytes(&self) -> u64 {
        self.known_to().max(self.start) - self.start
    }

    fn waiting_bytes(&self) -> u64 {
        let settled = self.position + self.beyond.bytes();
        self.known_to().max(self.start).saturating_sub(settled)
    }

    fn under_way_bytes(&self) -> u64 {
        let read = |at: u64| at.min(self.read_to);
        let settled: u64 = self.beyond.iter().map(|(a, b)| read(b) - read(a)).sum();
        self.read_to.saturating_sub(self.position) - settled
    }

    /// DESIGN: known = acked + waiting + dropped + lost, at every moment.
    fn check(&self) {
        let figures = &self.figures;
        let settled = figures.settled_bytes();
        debug_assert_eq!(
            self.position + self.beyond.bytes(),
            self.start + settled,
            "{self:?}"
        );
        debug_assert!(
            settled + self.claims.bytes() <= self.known_bytes(),
            "{self:?}"
        );
    }

    fn entry(&self, origin: &Origin) -> Entry {
        let entry = self.own_entry(origin);
        match &self.before {
            Some(before) => entry.preceded_by(before.entry(), self.start),
            None => entry,
        }
    }

    /// Without what an account before this one still has to do.
    fn own_entry(&self, origin: &Origin) -> Entry {
        Entry {
            origin: origin.clone(),
            head: self.head,
            position: self.position,
            beyond: self.beyond.iter().collect(),
            window: self.window,
            size: self.known_to(),
            seen: self.seen,
            complete: false,
            found_at: None,
            ended: false,
        }
    }

    fn drop_settled_before(&mut self) {
        let start = self.start; // where the other one ends
        let settled = |before: &Arc<FileLedger>| before.entry().position >= start;
        if self.before.as_ref().is_some_and(settled) {
            self.before = None;
        }
    }
}

impl Ticket {
    /// The claim is the producer's now.
    pub fn hand_on(mut self) {
        self.used = true;
        self.file.tell_dropped();
    }

    /// Gives the range up by choice.
    pub fn give_up(mut self, lines: u64, reason: DropReason) {
        self.used = true;
        let (from, to) = (self.from, self.to);
        let mut state = self.file.state();
        state.settle_claim(from, to);
        state.figures.dropped_bytes[reason as usize] += to - from;
        state.figures.dropped_lines[reason as usize] += lines;
        let told = state.note_dropped(from, to, lines, reason);
        drop(state);
        self.file.flow.changed();
        if let Some(dropped) = told {
            self.file.tell(dropped);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.used {
            return;
        }
        let mut state = self.file.state();
        let found = state.claims.carve(self.from, self.to);
        debug_assert!(found);
        state.windows.pop_back();
        (
            state.read_to,
            state.figures.read_bytes,
            state.figures.read_lines,
        ) = self.read;
    }
}

impl std::ops::Deref for Attendance {
    type Target = Arc<FileLedger>;

    fn deref(&self) -> &Arc<FileLedger> {
        &self.0
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.0.state().attended -= 1;
        self.0.flow.changed();
        self.0.tell_dropped();
    }
}

impl Claim {
    pub(crate) fn new(
        file: Arc<FileLedger>,
        (from, to): (u64, u64),
        records: u64,
        skipped: u64,
    ) -> Claim {
        Claim {
            file,
            from,
            to,
            records,
            skipped,
            settled: false,
        }
    }

    /// Kafka has the lines.
    pub fn ack(mut self) {
        self.settled = true;
        self.file.ack(&self);
    }

    /// The lines are in the dead-letter file.
    pub fn bury(mut self) {
        self.settled = true;
        self.file.bury(&self);
    }

    /// The lines' file.
    pub fn file(&self) -> &Arc<FileLedger> {
        &self.file
    }

    /// The lines' byte range.
    pub fn range(&self) -> (u64, u64) {
        (self.from, self.to)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.settled {
            self.file.give_back(self.from, self.to);
        }
    }
}

/// The one message for bytes that cannot be shipped any more.
pub(crate) fn tell_loss(origin: &Origin, from: u64, to: u64, reason: LossReason) {
    log::error!(
        "lost path={} inode={} from={from} to={to} bytes={} reason={reason}",
        as_value(&origin.path),
        origin.inode,
        to - from
    );
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl DropReason {
    /// All of them, in the order of the figures.
    pub const ALL: [DropReason; 3] = [
        DropReason::QueueFull,
        DropReason::NulHole,
        DropReason::Empty,
    ];

    /// Its name in messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::NulHole => "nul_hole",
            DropReason::Empty => "empty",
        }
    }
}

impl LossReason {
    /// All of them, in the order of the figures.
    pub const ALL: [LossReason; 4] = [
        LossReason::Truncated,
        LossReason::Gone,
        LossReason::HeldDeleted,
        LossReason::Unconfirmed,
    ];

    /// Its name in messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            LossReason::Truncated => "truncated",
            LossReason::Gone => "gone",
            LossReason::HeldDeleted => "held_deleted_bytes_max",
            LossReason::Unconfirmed => "unconfirmed",
        }
    }
}

impl Figures {
    /// What waits is where positions and sizes are, and what is settled was counted as
    /// it happened: neither is made of the other, and together they are all.
    pub(super) fn check(&self) {
        debug_assert_eq!(
            self.known_bytes,
            self.settled_bytes() + self.waiting_bytes,
            "{self:?}"
        );
    }

    /// Bytes that will not be read again, whatever became of them.
    fn settled_bytes(&self) -> u64 {
        let dropped: u64 = self.dropped_bytes.iter().sum();
        let lost: u64 = self.lost_bytes.iter().sum();
        self.acked_bytes + dropped + self.dead_bytes + lost
    }
}

impl std::ops::Add for Figures {
    type Output = Figures;

    fn add(self, other: Figures) -> Figures {
        Figures {
            known_bytes: self.known_bytes + other.known_bytes,
            read_bytes: self.read_bytes + other.read_bytes,
            read_lines: self.read_lines + other.read_lines,
            acked_bytes: self.acked_bytes + other.acked_bytes,
            acked_lines: self.acked_lines + other.acked_lines,
            dropped_bytes: sums(self.dropped_bytes, other.dropped_bytes),
            dropped_lines: sums(self.dropped_lines, other.dropped_lines),
            dead_bytes: self.dead_bytes + other.dead_bytes,
            dead_lines: self.dead_lines + other.dead_lines,
            lost_bytes: sums(self.lost_bytes, other.lost_bytes),
            waiting_bytes: self.waiting_bytes + other.waiting_bytes,
            under_way_bytes: self.under_way_bytes + other.under_way_bytes,
            cut_lines: self.cut_lines + other.cut_lines,
        }
    }
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Figures) {
        *self = *self + other;
    }
}

fn sums<const N: usize>(a: [u64; N], b: [u64; N]) -> [u64; N] {
    std::array::from_fn(|at| a[at] + b[at])
}

pub(super) fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
