//! The files that a path leads to: found, recognised, followed and let go.
//!
//! Here is decided which file is the next generation of a path, and what becomes
//! of those before it. Nothing is read of their lines.

use std::fs::{self, Metadata};
use std::io;
use std::mem;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::ledger::{Attendance, Entry, FileLedger, Keep, Known, Ledger, LossReason, Mark, Origin};
use crate::text::{as_value, shown};

use super::super::generation::Generation;
use super::super::handles::{Handle, Handles};
use super::super::identity::{self, Recognition};
use super::super::input::{Input, created_ns};
use super::super::registry::InodeClaim;
use super::super::rotated::{FORMER_MAX, Former};
use super::super::{Context, Fence, ReadFrom, Target, cut, rotated};
use super::obstacle::{Obstacle, check_kind, is_out_of_handles, is_reachable, stands_at};
use super::recover::GONE_AFTER;
use super::{End, TURN, Tailer};

/// How often the path is looked at while the file is busy; bounds how late a
/// rotation is noticed.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Truncated lives that are remembered, to know a copy of one.
const TRUNCATED_MAX: usize = 8;
/// How old what the checkpoint says of a file may be when logship is killed, in whole
/// seconds.
const WRITTEN_DOWN_WITHIN: Duration = Duration::from_secs(3);
/// Opening a FIFO for reading blocks until it has a writer; see fcntl(2).
const O_NONBLOCK: i32 = 0o4000;

impl Tailer {
    /// Looks whether another file stands at the path. Some when that is a
    /// reason to end.
    pub(super) fn look_around(&mut self) -> Option<End> {
        let once = self.context.options.once;
        let due = self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if !due || self.is_stdin() || (once && self.looked.is_some()) {
            return None;
        }
        let first = self.looked.replace(Instant::now()).is_none();
        if self.former.is_none() {
            self.former = Some(self.former_of_before());
        }
        self.look_at_generations();
        self.let_go();
        self.bound_deleted();
        let now = SystemTime::now();
        self.look_at_former(); // first: one handle may be all there is
        let looked = self.look_at_path(first);
        // What had the path since then and was rotated away is looked for until a
        // look succeeds.
        if looked.is_ok() || self.seen.is_none() {
            self.seen_before = self.seen.replace(now);
        }
        self.crowded_out = matches!(looked, Err(Obstacle::NoHandle));
        let obstacle = looked.err()?;
        let gone =
            self.generations.is_empty() && self.missing.is_empty() && self.retired.is_empty();
        let missed = once && self.target.named; // somebody asked for what stands there now
        match &obstacle {
            Obstacle::NoHandle => {
                if first {
                    self.looked = None; // it is still the first one
                }
                None
            }
            // It stands elsewhere, or is being looked for.
            Obstacle::Missing if !gone && !missed => None,
            _ if once => {
                self.tell(&obstacle);
                gone.then_some(End::Unreadable)
            }
            // It may be between a rename and the next file.
            Obstacle::Missing if gone && !self.target.named => {
                let over = self.turn.elapsed() >= GONE_AFTER && !self.has_former();
                over.then_some(End::Finished)
            }
            _ => {
                self.tell(&obstacle);
                None
            }
        }
    }

    /// Looks at all files, also at those whose turn to be read has not come: none may
    /// be truncated and grow again unseen while Kafka is away.
    fn look_at_generations(&mut self) {
        let mut at = 0;
        while let Some(generation) = self.generations.get_mut(at) {
            let open = match generation.was_rewritten() {
                Ok(true) => self.begin_next_life(at),
                Ok(false) => true,
                Err(error) => {
                    self.tell_unreadable(&error);
                    true
                }
            };
            at += usize::from(open);
        }
        for retired in &mut self.retired {
            if !matches!(retired.was_rewritten(), Ok(false)) {
                retired.give_up(LossReason::Truncated); // no topic of before gets it any more
            }
        }
    }

    /// Keeps what deleted files take of the disk within its bound: the oldest one is
    /// closed, and what was not read of it is lost.
    fn bound_deleted(&mut self) {
        let held: Vec<u64> = self
            .generations
            .iter()
            .map(|file| file.input().deleted_bytes())
            .collect();
        self.deleted_bytes.set(held.iter().sum());
        let max = self.context.options.held_deleted_bytes_max;
        if self.context.handles.deleted_bytes() <= max {
            return;
        }
        let oldest = held.iter().position(|bytes| *bytes > 0);
        if let Some(oldest) = oldest.and_then(|at| self.generations.remove(at)) {
            oldest.give_up(LossReason::HeldDeleted);
            // What came back for a topic of before goes with it, and so does its handle.
            let origin = oldest.ledger().origin();
            let twins = self
                .retired
                .extract_if(.., |old| old.has(origin.device, origin.inode));
            for twin in twins {
                twin.give_up(LossReason::HeldDeleted);
                self.closing.push(twin.close().0);
            }
            self.closing.push(oldest.close().0);
        }
    }

    /// True while a file that had the path is looked at that its writer may go on with.
    pub(super) fn has_former(&self) -> bool {
        self.former
            .as_ref()
            .is_some_and(|former| !former.is_empty())
    }

    pub(super) fn has_all_generations(&self) -> bool {
        self.generations.len() >= self.context.options.open_generations_max
    }

    pub(super) fn is_stdin(&self) -> bool {
        self.generations.back().is_some_and(Generation::is_stdin)
    }

    fn look_at_path(&mut self, first: bool) -> Result<(), Obstacle> {
        let path = self.target.path.clone();
        let meta = fs::metadata(&path);
        let moving = self.is_moving(meta.as_ref().ok());
        let mut slept_here = false;
        if let Some(was) = self.was.take() {
            let there =
                |meta: &Metadata| (meta.dev(), meta.ino()) == (was.origin.device, was.origin.inode);
            slept_here = meta.as_ref().is_ok_and(there);
            if !slept_here {
                self.recover_slept(was)?;
            }
        }
        let mut files = self.generations.iter();
        let is_new = |meta: &Metadata| !files.any(|file| file.has(meta.dev(), meta.ino()));
        let is_new = meta.as_ref().is_ok_and(is_new);
        self.replaced = is_new && !self.generations.is_empty();
        if moving && !slept_here && !is_new {
            self.recover_unseen()?;
        }
        if first && meta.is_err() && is_reachable(&path, None) {
            self.recover_renamed(None)?;
        }
        let meta = meta?;
        if !is_new {
            return Ok(());
        }
        check_kind(&meta).map_err(Obstacle::Other)?;
        self.check_generations()?;
        if self.is_to_change_topic() {
            return Ok(()); // its position is to be the new topic's
        }
        let Some(claim) = self.claim(&meta, &path) else {
            if first {
                self.recover_renamed(Some(&meta))?; // those before it were nobody else's
            }
            return Ok(());
        };
        self.renumber(&meta);
        self.recover_renamed(Some(&meta))?;
        if !slept_here {
            self.recover_unseen()?; // what looks like it may be a copy else
        }
        // Last of all: one handle may be all there is, and those before it come first.
        self.check_generations()?;
        let (input, opened) = self.open(&path)?;
        if inode_of(&opened) != inode_of(&meta) {
            return Ok(()); // it was rotated meanwhile, as the next look will find
        }
        let from = if first {
            self.target.read_from
        } else {
            ReadFrom::Beginning
        };
        let generation = self.begin(input, claim, &opened, from)?;
        self.generations.push_back(generation);
        self.replaced = false;
        self.claim.tailed().tell(None);
        Ok(())
    }

    /// There is room for one more file of the path.
    pub(super) fn check_generations(&self) -> Result<(), Obstacle> {
        if !self.has_all_generations() {
            return Ok(());
        }
        Err(Obstacle::NoRoom(self.generations.len()))
    }

    /// Opens a regular file to read it, and asks what it really is.
    pub(super) fn open(&self, path: &Path) -> Result<(Input, Metadata), Obstacle> {
        let handle = self.context.handles.take().ok_or(Obstacle::NoHandle)?;
        self.open_with(handle, path)
    }

    /// Opens a regular file to compare it with what is known.
    pub(super) fn glance_at(&self, path: &Path) -> Result<(Input, Metadata), Obstacle> {
        self.open_with(Handles::for_a_glance(), path)
    }

    fn open_with(&self, handle: Handle, path: &Path) -> Result<(Input, Metadata), Obstacle> {
        let opened = fs::OpenOptions::new()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open(path);
        let opened = opened.inspect_err(|error| {
            if is_out_of_handles(error) {
                self.context.handles.ask(1);
            }
        });
        let file = opened?;
        let meta = file.metadata()?;
        check_kind(&meta).map_err(Obstacle::Other)?;
        let permitted = |fence: &Arc<Fence>| fence.permits_open(&file);
        if !self.target.job.fence.as_ref().is_none_or(permitted) {
            let outside = "it is outside of what etcd may name";
            return Err(Obstacle::Other(outside.to_owned()));
        }
        Ok((Input::file(file, handle), meta))
    }

    /// True when another file, or none, stands at the path than at the last look or
    /// the one before that: while names move on, a directory may be read without
    /// one of them, and the path may be missing between two files.
    fn is_moving(&mut self, there: Option<&Metadata>) -> bool {
        let stands = there.map(|meta| (meta.dev(), meta.ino()));
        let moved = mem::replace(&mut self.stood, stands) != stands;
        mem::replace(&mut self.moved, moved) || moved
    }

    /// Claims an inode; `None` when another tailer has it.
    pub(super) fn claim(&mut self, meta: &Metadata, path: &Path) -> Option<Arc<InodeClaim>> {
        let attended = self.context.ledger.attended((meta.dev(), meta.ino()));
        if self.context.wanted.changes_hands(&attended) {
            return None;
        }
        let key = (meta.dev(), meta.ino(), Arc::clone(&self.target.job.topic));
        match self.context.registry.claim_inode(key, path) {
            Ok(claim) => Some(Arc::new(claim)),
            Err(holder) => {
                // A renamed file that its first tailer still holds is no news.
                if stands_at(meta, &holder) && holder != path {
                    self.warn(&format!(
                        "is the same file as {}, and is tailed once",
                        shown(&holder)
                    ));
                }
                None
            }
        }
    }

    /// Opens the account of a file, at its saved position if it has one.
    pub(super) fn begin(
        &mut self,
        input: Input,
        claim: Arc<InodeClaim>,
        meta: &Metadata,
        from: ReadFrom,
    ) -> io::Result<Generation> {
        self.inherit(inode_of(meta));
        let (ledger, topic) = (&self.context.ledger, &self.target.job.topic);
        let known = ledger.recall(meta.dev(), meta.ino(), topic, &self.target.path);
        let account = match known {
            Some(known) => self.resume(known, &input, meta)?,
            None => {
                let start = match from {
                    ReadFrom::Beginning => 0,
                    ReadFrom::End => cut::last_line_start(&input, meta.len())?,
                };
                self.context
                    .ledger
                    .open(self.fresh_account(&input, meta, 0, start)?)
            }
        };
        log::debug!(
            "opened path={} inode={} position={} size={}",
            as_value(&self.target.path),
            meta.ino(),
            account.position(),
            meta.len()
        );
        let once = self.context.options.once;
        let job = Arc::clone(&self.target.job);
        let mut generation = Generation::new(input, Some(claim), account, job, once)?;
        let account = generation.ledger();
        if account.origin().generation > 0 && account.read_to() == 0 {
            generation.skip_nuls(); // it was truncated, and nothing of it is read yet
        }
        Ok(generation)
    }

    /// True when the path is shipped to other topics by now: that order is on its way.
    fn is_to_change_topic(&self) -> bool {
        let topics = self.context.wanted.topics(&self.target.path);
        let drains = self.drain_until.is_some(); // there is no other order
        !drains && !topics.is_empty() && !topics.contains(&self.target.job.topic)
    }

    /// What an inode was shipped to while that was wanted of it is for the topic of now.
    pub(super) fn inherit(&self, inode: (u64, u64, Option<u64>)) {
        let (path, topic) = (&self.target.path, &self.target.job.topic);
        let topics = self.context.wanted.topics(path);
        if topics.contains(topic) {
            let ledger = &self.context.ledger;
            let wanted = &self.context.wanted;
            ledger.inherit(path, Some(inode), topic, &topics, &|path, topic| {
                wanted.wants(path, topic)
            });
        }
    }

    /// Goes on with a file that is known, unless it is another one by now.
    fn resume(&mut self, known: Known, input: &Input, meta: &Metadata) -> io::Result<Attendance> {
        let entry = known.entry();
        let same = identity::recognise(input, meta.len(), &entry)? == Recognition::Same;
        match known {
            // What is on its way must be there as well.
            Known::Open(account)
                if same
                    && meta.len() >= account.read_to()
                    && identity::fits(input, account.newest_window())? =>
            {
                self.context.ledger.cut(&account, meta.len());
                self.settling |= !account.is_quiet();
                Ok(account)
            }
            Known::Saved(entry) if same => {
                let mut origin = self.origin(inode_of(meta), entry.origin.generation);
                if !stands_at(meta, &self.target.path) {
                    origin.real = entry.origin.real.clone(); // the link leads elsewhere by now
                }
                let flow = Arc::clone(&self.flow);
                let ledger = &self.context.ledger;
                let account = ledger.open(FileLedger::resumed(&entry, origin, flow));
                ledger.cut(&account, meta.len());
                Ok(account)
            }
            known => {
                log::info!(
                    "truncated, rewritten or replaced, reading from its start path={} inode={}",
                    as_value(&self.target.path),
                    meta.ino()
                );
                // What may fail comes first: a loss is told once.
                let life = entry.origin.generation + 1;
                let account = self.fresh_account(input, meta, life, 0)?;
                self.remember_truncated(entry);
                let ledger = &self.context.ledger;
                ledger.lose_known(&known, LossReason::Truncated);
                Ok(ledger.open(account))
            }
        }
    }

    fn fresh_account(
        &self,
        input: &Input,
        meta: &Metadata,
        generation: u64,
        start: u64,
    ) -> io::Result<FileLedger> {
        let head = identity::head(input, meta.len())?;
        let window = identity::window(input, start)?;
        let origin = self.origin(inode_of(meta), generation);
        Ok(FileLedger::new(
            origin,
            Arc::clone(&self.flow),
            start,
            head,
            window,
        ))
    }

    /// What is known of an inode at the path: device, number, and when it was created.
    pub(super) fn origin(
        &self,
        (device, inode, created_ns): (u64, u64, Option<u64>),
        generation: u64,
    ) -> Origin {
        let path = &self.target.path;
        Origin {
            real: path
                .is_symlink()
                .then(|| fs::canonicalize(path).ok())
                .flatten(),
            path: path.clone(),
            topic: Arc::clone(&self.target.job.topic),
            device,
            inode,
            generation,
            created_ns,
        }
    }

    /// Goes on with a truncated file as a new one. False when it is not open any more.
    pub(super) fn begin_next_life(&mut self, at: usize) -> bool {
        let Some(generation) = self.generations.remove(at) else {
            return false;
        };
        let old = generation.ledger().attend();
        self.remember_truncated(old.entry());
        let origin = old.origin();
        // What came back for a topic of before can be read as little as the rest.
        let of_it = |file: &&Generation| file.has(origin.device, origin.inode);
        for retired in self.retired.iter().filter(of_it) {
            retired.give_up(LossReason::Truncated);
        }
        log::info!(
            "truncated or rewritten, reading from its start path={} inode={}",
            as_value(&origin.path),
            origin.inode
        );
        let next = Origin {
            generation: origin.generation + 1,
            ..origin.clone()
        };
        let begun = match generation.fresh_head() {
            Ok(head) => {
                let flow = Arc::clone(&self.flow);
                let account = FileLedger::new(next, flow, 0, head, Mark::default());
                generation.next_life(self.context.ledger.open(account))
            }
            Err(error) => {
                generation.give_up(LossReason::Truncated);
                Err(error)
            }
        };
        let open = begun.is_ok();
        match begun {
            Ok((generation, old)) => {
                self.generations.insert(at, generation);
                self.closing.push(old);
            }
            // Without its handle the file is found again through its path.
            Err(error) => {
                self.tell_unreadable(&error);
                self.closing.push(old);
            }
        }
        open
    }

    /// True when others wait for a handle, this one has had its turn, and nothing stands
    /// at the path any more: its file has another name, and is let go like those before it.
    fn gives_way_for_good(&self) -> bool {
        let handles = &self.context.handles;
        let stands_elsewhere = self.stood.is_none() && !self.moved;
        let has_had_its_turn = self.turn.elapsed() >= TURN;
        let settled = self.generations.back().is_some_and(Generation::is_settled);
        stands_elsewhere && has_had_its_turn && settled && handles.gives_way()
    }

    fn remember_truncated(&mut self, life: Entry) {
        self.note_copies(&life);
        if self.truncated.len() >= TRUNCATED_MAX {
            self.truncated.pop_front();
        }
        self.truncated.push_back(life);
    }

    /// Lets go of files that are over: renamed or deleted, read to the end,
    /// settled, and quiet for a while; at once where there is no room for others.
    pub(super) fn let_go(&mut self) {
        let live = self.live();
        let mut at = 0;
        let context = &self.context;
        let hurry = self.has_all_generations() || context.handles.is_asked();
        let gives_way = self.gives_way_for_good();
        let former = self.former.get_or_insert_default();
        let retired = &self.retired;
        self.generations.retain(|generation| {
            let deleted = generation.last_look().links == 0;
            let over = at < live || deleted || gives_way;
            at += 1;
            // What the topic of before has not settled is written down with this one.
            let origin = generation.ledger().origin();
            let leads = retired
                .iter()
                .any(|old| old.has(origin.device, origin.inode));
            if context.options.once || !over || leads || !generation.is_settled() {
                return true;
            }
            let keep = !(hurry || context.has_waited(generation));
            if !keep {
                let ledger = generation.ledger();
                log::debug!(
                    "let go path={} inode={} deleted={deleted}",
                    as_value(&ledger.origin().path),
                    ledger.origin().inode
                );
                if deleted {
                    context.ledger.close(ledger, Keep::Nothing);
                } else {
                    former.extend(close_renamed(context, generation));
                }
            }
            keep
        });
        let too_many = former.len().saturating_sub(FORMER_MAX);
        former.drain(..too_many);
        self.retired.retain(|generation| {
            let settled = generation.is_retired();
            if settled {
                // Nobody goes on with it where another tailer ships the file to the new topic.
                let keep = match generation.ledger().is_durable() {
                    true => Keep::Position,
                    false => Keep::Nothing,
                };
                context.ledger.close(generation.ledger(), keep);
            }
            !settled
        });
        self.closing.retain(|ledger| {
            let settled = ledger.is_settled(0);
            if settled {
                context.ledger.close(ledger, Keep::Nothing);
            }
            !settled
        });
    }
}

/// When an earlier run last had the files of a path in its hands, with the time it
/// takes to write that down. What had the path since then was seen by nobody.
pub(super) fn seen_before_this_run(ledger: &Ledger, target: &Target) -> Option<SystemTime> {
    let seen = ledger.last_seen_at(&target.path, &target.job.topic)?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seen) - WRITTEN_DOWN_WITHIN)
}

pub(super) fn inode_of(meta: &Metadata) -> (u64, u64, Option<u64>) {
    (meta.dev(), meta.ino(), created_ns(meta))
}

/// Closes the account of a renamed file, which is looked at for a while if it has a
/// name.
fn close_renamed(context: &Context, generation: &Generation) -> Option<Former> {
    let file = generation.ledger();
    let found = rotated::whereabouts(&context.listings, file.origin()).map(|(path, _)| path);
    context.ledger.close(file, Keep::Complete(found.clone()));
    Some(Former::new(file.entry(), found?).left_at(generation.last_look()))
}
