//! The thread that follows one path, whatever file stands there.
//!
//! It keeps the files that had the path open until their lines are settled,
//! reads them in their order, and finds a new one as soon as it is there. It
//! does not cut lines and does not look for other paths.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ledger::{Entry, FileLedger, Flow, LossReason, Mark, Origin};
use crate::text::shown;
use crate::thread::Stop;

use super::generation::{Generation, Step};
use super::identity::{self, Recognition};
use super::input::{Input, Retained};
use super::registry::{InodeClaim, PathClaim};
use super::{Context, ReadFrom, Target, cut};

/// How often the path is looked at while the file is busy; bounds how late a
/// rotation is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// First and longest pause while the queue is full.
const FULL_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// How long a remembered file may be missing before it is given up: time for
/// another tailer to find it under another name.
const GONE_AFTER: Duration = Duration::from_millis(500);
/// Opening a FIFO for reading blocks until it has a writer; see fcntl(2).
const O_NONBLOCK: i32 = 0o4000;

/// Why a tailer ended. The supervisor decides what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A stop was requested.
    Stopped,
    /// Everything is read and settled, and nothing will follow.
    Finished,
    /// The path cannot be read; only said when it is not waited for.
    Unreadable,
    /// The producers are gone.
    QueueClosed,
}

/// Follows one path.
#[derive(Debug)]
pub struct Tailer {
    context: Context,
    target: Target,
    flow: Arc<Flow>,
    /// Files that had the path, oldest first; the last one is the newest.
    generations: VecDeque<Generation>,
    /// Accounts of truncated lives whose lines are still on their way.
    closing: Vec<Arc<FileLedger>>,
    looked: Option<Instant>,
    /// The last message about the path, so that it is not repeated.
    trouble: Option<String>,
    /// A read failed.
    unreadable: bool,
    /// Remembered files of this path that were not found, and since when.
    /// Another tailer may still turn out to have them.
    missing: Vec<(Instant, Entry)>,
    _claim: PathClaim,
}

impl Tailer {
    /// A tailer for a path that it has to itself.
    pub fn new(context: Context, target: Target, claim: PathClaim) -> Tailer {
        Tailer {
            flow: Arc::new(Flow::new(&context.host, &target.path)),
            context,
            target,
            generations: VecDeque::new(),
            closing: Vec::new(),
            looked: None,
            trouble: None,
            unreadable: false,
            missing: Vec::new(),
            _claim: claim,
        }
    }

    /// A tailer of standard input, which `retained` is filled from.
    pub fn of_stdin(
        context: Context,
        target: Target,
        claim: PathClaim,
        retained: Arc<Retained>,
    ) -> io::Result<Tailer> {
        let mut tailer = Tailer::new(context, target, claim);
        let origin = tailer.origin(0, 0, 0);
        let (flow, none) = (Arc::clone(&tailer.flow), Mark::default());
        let ledger = Arc::new(FileLedger::new(origin, flow, 0, none, none));
        ledger.supersede(); // a pipe has no position to come back to
        tailer.context.ledger.open(Arc::clone(&ledger));
        let input = Input::Stdin(retained);
        let generation = Generation::new(input, None, ledger, false)?;
        tailer.generations.push_back(generation);
        Ok(tailer)
    }

    /// Runs until a stop is requested, the queue goes away, or there is nothing
    /// left to do.
    ///
    /// A chunk the queue has no room for is let go and read again, so a slow
    /// Kafka shows as an unread file. Only reading pauses, though: the path is
    /// looked at all the same, because a file that is rotated away unseen is
    /// lost.
    pub fn run(mut self, stop: &Stop) -> End {
        let (quiet_min, quiet_max) = (
            self.context.options.poll_interval_min,
            self.context.options.poll_interval_max,
        );
        let once = self.context.options.once;
        let (mut quiet, mut full) = (quiet_min, FULL_PAUSE.0);
        while !stop.requested() {
            if let Some(end) = self.look_around() {
                return end;
            }
            match self.step() {
                Step::Busy => (quiet, full) = (quiet_min, FULL_PAUSE.0),
                Step::Full => {
                    stop.sleep(full);
                    full = (full * 2).min(FULL_PAUSE.1);
                }
                Step::Idle => {
                    self.let_go();
                    self.declare_gone();
                    if self.is_finished() {
                        let failed = self.generations.iter().any(Generation::has_failed);
                        self.close_all();
                        return if failed {
                            End::Unreadable
                        } else {
                            End::Finished
                        };
                    }
                    if once && self.unreadable {
                        return End::Unreadable;
                    }
                    stop.sleep(quiet);
                    quiet = (quiet * 2).min(quiet_max);
                }
                Step::Truncated => {} // dealt with; go on with the next life
                Step::Closed => return End::QueueClosed,
            }
        }
        End::Stopped
    }

    /// Reads from the oldest file that has something to read.
    fn step(&mut self) -> Step {
        let once = self.context.options.once;
        let newest = self.generations.len().saturating_sub(1);
        for at in 0..self.generations.len() {
            let generation = &mut self.generations[at];
            // The last line of a file that is over counts without a line end,
            // once its writer has had the time to finish it.
            let over = at < newest || generation.last_look().links == 0;
            let complete =
                (once && !generation.is_stdin()) || (over && self.context.has_waited(generation));
            match generation.step(complete, &self.context.queue, &self.context.options) {
                Ok(Step::Idle) => {}
                Ok(Step::Truncated) => {
                    self.begin_next_life(at);
                    return Step::Truncated;
                }
                Ok(step) => return step,
                Err(error) => {
                    self.unreadable = true;
                    self.tell(&format!("cannot read: {error}"));
                }
            }
        }
        Step::Idle
    }

    /// True when nothing will come any more.
    fn is_finished(&self) -> bool {
        let once = self.context.options.once;
        let over = |generation: &Generation| {
            generation.last_look().ended || (once && !generation.is_stdin())
        };
        let any = once || !self.generations.is_empty();
        any && self.missing.is_empty()
            && self.generations.iter().all(over)
            && self.generations.iter().all(Generation::is_settled)
            && self.closing.iter().all(|ledger| ledger.is_settled(0))
    }

    fn close_all(&mut self) {
        for generation in self.generations.drain(..) {
            let remember = generation.ledger().durable_entry().is_some();
            self.context.ledger.close(generation.ledger(), remember);
        }
        for ledger in self.closing.drain(..) {
            self.context.ledger.close(&ledger, false);
        }
    }

    // ---- files come and go -------------------------------------------------

    /// Looks whether another file stands at the path. Some when that is a
    /// reason to end.
    fn look_around(&mut self) -> Option<End> {
        let once = self.context.options.once;
        let due = self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if !due || self.is_stdin() || (once && self.looked.is_some()) {
            return None;
        }
        let first = self.looked.replace(Instant::now()).is_none();
        let problem = self.look_at_path(first).err()?;
        let gone = self.generations.is_empty();
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

    fn is_stdin(&self) -> bool {
        self.generations.back().is_some_and(Generation::is_stdin)
    }

    fn look_at_path(&mut self, first: bool) -> Result<(), String> {
        let path = self.target.path.clone();
        let meta = fs::metadata(&path).map_err(explain)?;
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
        let (input, meta) = open(&path).map_err(explain)?;
        let Some(claim) = self.claim(&meta, &path) else {
            return Ok(());
        };
        self.recover_renamed(&meta);
        let from = if first {
            self.target.read_from
        } else {
            ReadFrom::Beginning
        };
        let generation = self.begin(input, claim, &meta, from).map_err(explain)?;
        self.generations.push_back(generation);
        self.trouble = None;
        Ok(())
    }

    /// Claims an inode; `None` when another tailer has it.
    fn claim(&mut self, meta: &Metadata, path: &Path) -> Option<Arc<InodeClaim>> {
        let key = (meta.dev(), meta.ino(), Arc::clone(&self.target.topic));
        match self.context.registry.claim_inode(key, path) {
            Ok(claim) => Some(Arc::new(claim)),
            Err(holder) => {
                // A renamed file that its first tailer still holds is no news.
                let twice = fs::metadata(&holder)
                    .is_ok_and(|held| (held.dev(), held.ino()) == (meta.dev(), meta.ino()));
                if twice && holder != path {
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
        let ledger = &self.context.ledger;
        let saved = ledger.recall(meta.dev(), meta.ino(), &self.target.topic);
        let account = match saved {
            Some(entry) => match identity::recognise(&input, meta.len(), &entry)? {
                Recognition::Same => {
                    let origin = self.origin(meta.dev(), meta.ino(), entry.origin.generation);
                    FileLedger::resumed(&entry, origin, Arc::clone(&self.flow))
                }
                Recognition::Changed => {
                    ledger.lose(&entry, LossReason::Gone);
                    let life = entry.origin.generation + 1;
                    self.fresh_account(&input, meta, life, 0)?
                }
            },
            None => {
                let start = match from {
                    ReadFrom::Beginning => 0,
                    ReadFrom::End => cut::last_line_start(&input, meta.len())?,
                };
                self.fresh_account(&input, meta, 0, start)?
            }
        };
        let account = Arc::new(account);
        log::debug!(
            "opened path={} inode={} position={} size={}",
            shown(&self.target.path),
            meta.ino(),
            account.position(),
            meta.len()
        );
        let once = self.context.options.once;
        let generation = Generation::new(input, Some(claim), Arc::clone(&account), once)?;
        self.context.ledger.open(account);
        Ok(generation)
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

    fn origin(&self, device: u64, inode: u64, generation: u64) -> Origin {
        Origin {
            path: self.target.path.clone(),
            topic: Arc::clone(&self.target.topic),
            device,
            inode,
            generation,
        }
    }

    /// Files that stood at this path when it was last looked at, in an earlier
    /// run or under a name since forgotten, and were renamed with unread lines:
    /// if they are still in the same directory, their rest comes first.
    fn recover_renamed(&mut self, now_there: &Metadata) {
        let (ledger, topic) = (&self.context.ledger, &self.target.topic);
        let mut entries = ledger.remembered_at(&self.target.path, topic);
        entries.retain(|entry| {
            let origin = &entry.origin;
            (origin.device, origin.inode) != (now_there.dev(), now_there.ino())
        });
        entries.sort_by_key(|entry| entry.seen);
        for entry in entries {
            if let Err(problem) = self.recover_one(&entry) {
                self.tell(&problem);
            }
        }
    }

    fn recover_one(&mut self, entry: &Entry) -> Result<(), String> {
        let origin = &entry.origin;
        let Some((path, meta)) = find_inode(&self.target.path, origin.device, origin.inode) else {
            let known = |(_, missing): &(Instant, Entry)| missing.origin == *origin;
            if !self.missing.iter().any(known) {
                self.missing.push((Instant::now(), entry.clone()));
            }
            return Ok(());
        };
        let (input, _) = open(&path).map_err(explain)?;
        let same = identity::recognise(&input, meta.len(), entry).map_err(explain)?;
        if same == Recognition::Same && meta.len() <= entry.position {
            return Ok(()); // nothing left in it; it stays remembered
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

    /// Gives up remembered files that nobody has found for a while.
    fn declare_gone(&mut self) {
        let context = &self.context;
        self.missing.retain(|(since, entry)| {
            if since.elapsed() < GONE_AFTER {
                return true;
            }
            let origin = &entry.origin;
            let ours = context
                .ledger
                .forget_file(origin.device, origin.inode, &origin.topic);
            if ours {
                context.ledger.lose(entry, LossReason::Gone);
            }
            false
        });
    }

    /// Goes on with a truncated file as a new one.
    fn begin_next_life(&mut self, at: usize) {
        let Some(generation) = self.generations.remove(at) else {
            return;
        };
        let old = Arc::clone(generation.ledger());
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
            let begun = generation.next_life(Arc::clone(&account))?;
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

    /// Lets go of files that are over: renamed or deleted, read to the end,
    /// settled, and quiet for a while.
    fn let_go(&mut self) {
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
                context.ledger.close(generation.ledger(), !deleted);
            }
            keep
        });
        self.closing.retain(|ledger| {
            let settled = ledger.is_settled(0);
            if settled {
                context.ledger.close(ledger, false);
            }
            !settled
        });
    }

    // ---- messages ----------------------------------------------------------

    /// Says a problem with the path once, until it changes.
    fn tell(&mut self, problem: &str) {
        if self.trouble.as_deref() != Some(problem) {
            self.trouble = Some(problem.to_owned());
            let next = if self.context.options.once {
                "not shipped"
            } else {
                "trying again"
            };
            log::warn!(
                "cannot tail {}: {problem} ({next})",
                shown(&self.target.path)
            );
        }
    }

    fn warn(&mut self, problem: &str) {
        if self.trouble.as_deref() != Some(problem) {
            self.trouble = Some(problem.to_owned());
            log::warn!("{} {problem}", shown(&self.target.path));
        }
    }
}

impl Context {
    /// True when a file that is over has been quiet for long enough.
    fn has_waited(&self, generation: &Generation) -> bool {
        generation
            .at_end_since()
            .is_some_and(|since| since.elapsed() >= self.options.rotated_grace)
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

fn check_kind(meta: &Metadata) -> Result<(), String> {
    let kind = meta.file_type();
    if kind.is_file() {
        Ok(())
    } else if kind.is_dir() {
        Err("it is a directory; name the files in it, for example with '/*.log' added".to_owned())
    } else if kind.is_fifo() {
        Err("it is a FIFO; read it into a pipe: logship tail - < FIFO".to_owned())
    } else {
        Err("it is not a regular file".to_owned())
    }
}

/// Opens a regular file and asks what it really is.
fn open(path: &Path) -> io::Result<(Input, Metadata)> {
    let file: File = fs::OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok((Input::File(Arc::new(file)), meta))
}

/// Where in the directory of `path` an inode is now.
fn find_inode(path: &Path, device: u64, inode: u64) -> Option<(PathBuf, Metadata)> {
    for entry in fs::read_dir(path.parent()?).ok()?.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_file() && (meta.dev(), meta.ino()) == (device, inode) {
            return Some((entry.path(), meta));
        }
    }
    None
}
