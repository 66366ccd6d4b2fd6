//! The files that a path leads to: found, recognised, followed and let go.
//!
//! Here is decided which file is the next generation of a path, and what becomes
//! of those before it. Nothing is read of their lines.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::ledger::{Entry, FileLedger, Keep, Known, LossReason, Mark, Origin};
use crate::text::shown;

use super::super::generation::Generation;
use super::super::identity::{self, Recognition};
use super::super::input::Input;
use super::super::registry::InodeClaim;
use super::super::{Fence, Job, ReadFrom, cut, rotated};
use super::{End, Tailer};

/// How often the path is looked at while the file is busy; bounds how late a
/// rotation is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a remembered file may be missing before it is given up: time for
/// another tailer to find it under another name.
const GONE_AFTER: Duration = Duration::from_millis(500);
/// Truncated lives that are remembered, to know a copy of one.
const TRUNCATED_MAX: usize = 8;
/// How often the names of a rotation are read again while they move on.
const UNSEEN_ROUNDS_MAX: usize = 5;
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
        self.watch_waiting();
        self.show_deleted();
        let now = SystemTime::now();
        let looked = self.look_at_path(first);
        self.seen = Some(now);
        let problem = looked.err()?;
        let gone = self.generations.is_empty() && self.missing.is_empty();
        if once {
            self.tell(&problem);
            return gone.then_some(End::Unreadable);
        }
        if gone && !self.target.named && problem.starts_with(MISSING) {
            return Some(End::Finished);
        }
        if gone || !problem.starts_with(MISSING) {
            self.tell(&problem);
        }
        None
    }

    /// Looks at the files behind the first one. They are not read while that one
    /// waits, but what is written to them, a truncation and a removal must not go
    /// unseen meanwhile.
    fn watch_waiting(&mut self) {
        for at in 1..self.generations.len() {
            let file = self.generations.get_mut(at);
            if file.is_some_and(|file| file.was_rewritten().unwrap_or(false)) {
                self.begin_next_life(at);
            }
        }
    }

    fn show_deleted(&self) {
        let deleted = self
            .generations
            .iter()
            .filter(|file| file.last_look().links == 0);
        let waiting = deleted.map(|file| {
            let ledger = file.ledger();
            ledger.size().saturating_sub(ledger.position())
        });
        self.claim.tailed().holds_deleted_bytes(waiting.sum());
    }

    pub(super) fn is_stdin(&self) -> bool {
        self.generations.back().is_some_and(Generation::is_stdin)
    }

    fn look_at_path(&mut self, first: bool) -> Result<(), String> {
        let path = self.target.path.clone();
        let meta = fs::metadata(&path);
        let mut slept_here = false;
        if let Some(was) = self.was.take() {
            let there =
                |meta: &Metadata| (meta.dev(), meta.ino()) == (was.origin.device, was.origin.inode);
            slept_here = meta.as_ref().is_ok_and(there);
            if !slept_here {
                self.recover_one(&was, true)?;
            }
        }
        let meta = meta.map_err(explain)?;
        let known = self
            .generations
            .iter()
            .any(|g| g.has(meta.dev(), meta.ino()));
        if known {
            return Ok(());
        }
        check_kind(&meta)?;
        if self.generations.len() >= self.context.options.open_generations_max {
            return Err(format!(
                "{} rotated files are still open: waiting before the next one is opened",
                self.generations.len()
            ));
        }
        let (input, meta) = open(&path, &self.target.job).map_err(explain)?;
        let Some(claim) = self.claim(&meta, &path) else {
            return Ok(());
        };
        self.recover_renamed(&meta);
        if !slept_here {
            self.recover_unseen(); // what looks like it may be a copy else
        }
        let from = if first {
            self.target.read_from
        } else {
            ReadFrom::Beginning
        };
        let generation = self.begin(input, claim, &meta, from).map_err(explain)?;
        self.generations.push_back(generation);
        self.claim.tailed().tell(None);
        Ok(())
    }

    /// Claims an inode; `None` when another tailer has it.
    fn claim(&mut self, meta: &Metadata, path: &Path) -> Option<Arc<InodeClaim>> {
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
    fn begin(
        &mut self,
        input: Input,
        claim: Arc<InodeClaim>,
        meta: &Metadata,
        from: ReadFrom,
    ) -> io::Result<Generation> {
        let (ledger, topic) = (&self.context.ledger, &self.target.job.topic);
        let known = ledger.recall(meta.dev(), meta.ino(), topic, &self.target.path);
        let slept = matches!(known, Some(Known::Open(_)));
        let account = match known {
            Some(known) => self.resume(known, &input, meta)?,
            None => {
                let start = match from {
                    ReadFrom::Beginning => 0,
                    ReadFrom::End => cut::last_line_start(&input, meta.len())?,
                };
                self.opened(self.fresh_account(&input, meta, 0, start)?)
            }
        };
        log::debug!(
            "opened path={} inode={} position={} size={}",
            shown(&self.target.path),
            meta.ino(),
            account.position(),
            meta.len()
        );
        let once = self.context.options.once;
        let job = Arc::clone(&self.target.job);
        let mut generation = Generation::new(input, Some(claim), &account, job, once)?;
        if slept && account.read_to() == 0 {
            generation.skip_nuls(); // it was truncated behind our back
        }
        Ok(generation)
    }

    /// Goes on with a file that is known, unless it is another one by now.
    fn resume(
        &mut self,
        known: Known,
        input: &Input,
        meta: &Metadata,
    ) -> io::Result<Arc<FileLedger>> {
        let entry = known.entry();
        let same = identity::recognise(input, meta.len(), &entry)? == Recognition::Same;
        match known {
            Known::Open(account) if same => {
                self.settling |= !account.is_quiet();
                Ok(account)
            }
            Known::Saved(entry) if same => {
                let origin = self.origin(meta.dev(), meta.ino(), entry.origin.generation);
                let flow = Arc::clone(&self.flow);
                Ok(self.opened(FileLedger::resumed(&entry, origin, flow)))
            }
            known => {
                log::info!(
                    "truncated, rewritten or replaced, reading from its start path={} inode={}",
                    shown(&self.target.path),
                    meta.ino()
                );
                self.remember_truncated(entry.clone());
                self.context
                    .ledger
                    .lose_known(&known, LossReason::Truncated);
                let life = entry.origin.generation + 1;
                Ok(self.opened(self.fresh_account(input, meta, life, 0)?))
            }
        }
    }

    fn opened(&self, account: FileLedger) -> Arc<FileLedger> {
        let account = Arc::new(account);
        self.context.ledger.open(Arc::clone(&account));
        account
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
        let origin = self.origin(meta.dev(), meta.ino(), generation);
        Ok(FileLedger::new(
            origin,
            Arc::clone(&self.flow),
            start,
            head,
            window,
        ))
    }

    pub(super) fn origin(&self, device: u64, inode: u64, generation: u64) -> Origin {
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
        }
    }

    /// Files that stood at this path when it was last looked at, in an earlier
    /// run or under a name since forgotten, and were renamed with unread lines:
    /// if they are still in the same directory, their rest comes first.
    fn recover_renamed(&mut self, now_there: &Metadata) {
        let (ledger, topic) = (&self.context.ledger, &self.target.job.topic);
        let mut entries = ledger.known_at(&self.target.path, topic);
        entries.retain(|entry| {
            let origin = &entry.origin;
            (origin.device, origin.inode) != (now_there.dev(), now_there.ino())
        });
        entries.sort_by_key(|entry| entry.seen);
        for entry in entries {
            if let Err(problem) = self.recover_one(&entry, false) {
                self.tell(&problem);
            }
        }
    }

    /// Files that had the path between two looks, and were rotated away before the
    /// second: they come before the one that is there now.
    fn recover_unseen(&mut self) {
        let Some(since) = self.seen else { return };
        // Names may move on while they are read: until there is nothing new.
        for _ in 0..UNSEEN_ROUNDS_MAX {
            if !self.take_all_unseen(since) {
                return;
            }
        }
    }

    /// True when there was something.
    fn take_all_unseen(&mut self, since: SystemTime) -> bool {
        let mut any = false;
        for (path, meta) in rotated::created_since(&self.target.path, since) {
            let topic = &self.target.job.topic;
            let key = (meta.dev(), meta.ino(), Arc::clone(topic));
            let ledger = &self.context.ledger;
            let known = ledger.recall(meta.dev(), meta.ino(), topic, &self.target.path);
            if known.is_some() || self.context.registry.holder(&key).is_some() {
                continue;
            }
            match self.take_unseen(&path) {
                Ok(taken) => any |= taken,
                Err(problem) => {
                    any = true;
                    self.tell(&problem);
                }
            }
        }
        any
    }

    /// False for one that is no file of its own.
    fn take_unseen(&mut self, path: &Path) -> Result<bool, String> {
        let (input, meta) = open(path, &self.target.job).map_err(explain)?;
        // What copytruncate left looks just like it, also of a file whose truncation
        // was not noticed yet.
        let is_copy = |life: &Entry| {
            life.head.len > 0
                && identity::recognise(&input, meta.len(), life)
                    .is_ok_and(|same| same == Recognition::Same)
        };
        let open = self.generations.iter().map(|file| file.ledger().entry());
        if self.truncated.iter().any(is_copy) || open.into_iter().any(|life| is_copy(&life)) {
            return Ok(false);
        }
        let Some(claim) = self.claim(&meta, path) else {
            return Ok(true);
        };
        log::info!(
            "found a file that was rotated between two looks path={} now={}",
            shown(&self.target.path),
            shown(path)
        );
        let generation = self
            .begin(input, claim, &meta, ReadFrom::Beginning)
            .map_err(explain)?;
        self.generations.push_back(generation);
        Ok(true)
    }

    /// Finds a renamed file again. One that has nothing left is left alone unless
    /// it was `just_here`: its writer may not have noticed the rename yet.
    fn recover_one(&mut self, entry: &Entry, just_here: bool) -> Result<(), String> {
        let Some((path, input, meta)) = self.find_renamed(entry).map_err(explain)? else {
            let known = |(_, missing): &(Instant, Entry)| missing.origin == entry.origin;
            if !self.missing.iter().any(known) {
                self.missing.push((Instant::now(), entry.clone()));
            }
            return Ok(());
        };
        if meta.len() <= entry.position && !just_here {
            self.context.ledger.complete(entry);
            return Ok(()); // nothing left in it
        }
        let Some(claim) = self.claim(&meta, &self.target.path.clone()) else {
            return Ok(());
        };
        log::info!(
            "found the rest of a renamed file path={} now={}",
            shown(&self.target.path),
            shown(&path)
        );
        let generation = self
            .begin(input, claim, &meta, ReadFrom::Beginning)
            .map_err(explain)?;
        self.generations.push_back(generation);
        Ok(())
    }

    /// Where a remembered file is now. One that only has its inode is another file,
    /// which nobody has asked for.
    fn find_renamed(&self, entry: &Entry) -> io::Result<Option<(PathBuf, Input, Metadata)>> {
        let origin = &entry.origin;
        let find = |path: &Path| rotated::find(path, origin.device, origin.inode);
        let real = || find(origin.real.as_deref()?);
        let Some((path, _)) = find(&origin.path).or_else(real) else {
            return Ok(None);
        };
        let (input, meta) = open(&path, &self.target.job)?;
        let same = (meta.dev(), meta.ino()) == (origin.device, origin.inode)
            && identity::recognise(&input, meta.len(), entry)? == Recognition::Same;
        Ok(same.then_some((path, input, meta)))
    }

    /// Gives up remembered files that nobody has found for a while.
    pub(super) fn declare_gone(&mut self) {
        let context = &self.context;
        self.missing.retain(|(since, entry)| {
            if since.elapsed() < GONE_AFTER {
                return true;
            }
            log::info!(
                "a file is gone, and what was written to it after it was last looked at is not known path={} inode={} size={}",
                shown(&entry.origin.path),
                entry.origin.inode,
                entry.size
            );
            context.ledger.give_up(entry);
            false
        });
    }

    /// Goes on with a truncated file as a new one.
    pub(super) fn begin_next_life(&mut self, at: usize) {
        let Some(generation) = self.generations.remove(at) else {
            return;
        };
        let old = generation.ledger().attend();
        self.remember_truncated(old.entry());
        let origin = old.origin();
        log::info!(
            "truncated or rewritten, reading from its start path={} inode={}",
            shown(&origin.path),
            origin.inode
        );
        let next = Origin {
            generation: origin.generation + 1,
            ..origin.clone()
        };
        let begun = generation.fresh_head().and_then(|head| {
            let flow = Arc::clone(&self.flow);
            let account = Arc::new(FileLedger::new(next, flow, 0, head, Mark::default()));
            let begun = generation.next_life(&account)?;
            self.context.ledger.open(account);
            Ok(begun)
        });
        match begun {
            Ok((generation, old)) => {
                self.generations.insert(at, generation);
                self.closing.push(old);
            }
            // Without its handle the file is found again through its path.
            Err(error) => {
                self.tell(&format!("cannot read: {error}"));
                self.closing.push(old);
            }
        }
    }

    fn remember_truncated(&mut self, life: Entry) {
        if self.truncated.len() >= TRUNCATED_MAX {
            self.truncated.pop_front();
        }
        self.truncated.push_back(life);
    }

    /// Lets go of files that are over: renamed or deleted, read to the end,
    /// settled, and quiet for a while.
    pub(super) fn let_go(&mut self) {
        let newest = self.generations.len().saturating_sub(1);
        let mut at = 0;
        let context = &self.context;
        self.generations.retain(|generation| {
            let deleted = generation.last_look().links == 0;
            let over = at < newest || deleted;
            at += 1;
            if context.options.once || !over || !generation.is_settled() {
                return true;
            }
            let keep = !context.has_waited(generation);
            if !keep {
                log::debug!(
                    "let go path={} inode={} deleted={deleted}",
                    shown(&generation.ledger().origin().path),
                    generation.ledger().origin().inode
                );
                let keep = if deleted {
                    Keep::Nothing
                } else {
                    Keep::Complete
                };
                context.ledger.close(generation.ledger(), keep);
            }
            keep
        });
        self.retired.retain(|generation| {
            let settled = generation.is_retired();
            if settled {
                context.ledger.close(generation.ledger(), Keep::Nothing);
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

/// How the message about a missing file begins.
const MISSING: &str = "it does not exist";

#[allow(clippy::needless_pass_by_value)] // it is what `map_err` wants
fn explain(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => MISSING.to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied: grant logship's user read access".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Says why what stands at a path cannot be tailed, if it never can be: a
/// directory, a device. A path that is missing or not readable may change.
///
/// # Errors
/// What it is, and what to do instead.
pub fn check_path(path: &Path) -> Result<(), String> {
    fs::metadata(path).map_or(Ok(()), |meta| check_kind(&meta))
}

/// Says why what stands at a path cannot be tailed now.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn check_file(path: &Path) -> Result<(), String> {
    let meta = fs::metadata(path).map_err(explain)?;
    check_kind(&meta)
}

fn check_kind(meta: &Metadata) -> Result<(), String> {
    let kind = meta.file_type();
    if kind.is_file() {
        Ok(())
    } else if kind.is_dir() {
        Err("it is a directory; name the files in it, for example with '/*.log' added".to_owned())
    } else if kind.is_fifo() {
        Err("it is a FIFO; read it into a pipe: logship tail - < FIFO".to_owned())
    } else if kind.is_socket() {
        Err(
            "it is a socket; let its writer write to a file, or to a pipe: logship tail -"
                .to_owned(),
        )
    } else {
        Err("it is a device; read it into a pipe: logship tail - < DEVICE".to_owned())
    }
}

/// True when this file stands at a path now.
pub fn stands_at(meta: &Metadata, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino()))
}

/// Opens a regular file and asks what it really is.
fn open(path: &Path, job: &Job) -> io::Result<(Input, Metadata)> {
    let file: File = fs::OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let permitted = |fence: &Arc<Fence>| fence.permits_open(&file);
    if !job.fence.as_ref().is_none_or(permitted) {
        return Err(io::Error::other("it is outside of what etcd may name"));
    }
    Ok((Input::File(Arc::new(file)), meta))
}
