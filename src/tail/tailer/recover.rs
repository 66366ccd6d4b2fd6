//! Files that had a path before: renamed while nobody looked, slept meanwhile, or
//! rotated away between two looks.
//!
//! They are found by inode and content, by name and age, and come before what
//! stands at the path now. What is nowhere to be found is given up and told.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::ledger::{Entry, Origin};
use crate::text::as_value;

use super::super::generation::Generation;
use super::super::identity::{self, Recognition};
use super::super::input::{Input, created_ns};
use super::super::rotated::{FORMER_FOR, FORMER_MAX, Fate, Former};
use super::super::{ReadFrom, rotated};
use super::Tailer;
use super::files::inode_of;
use super::obstacle::{Obstacle, check_kind};

/// How long a remembered file may be missing before it is given up: time for
/// another tailer to find it under another name.
pub(super) const GONE_AFTER: Duration = Duration::from_millis(500);
/// How long before a truncation its copy was begun, at most.
const COPIED_WITHIN: Duration = Duration::from_secs(600);
/// How often the names of a rotation are read again while they move on.
const UNSEEN_ROUNDS_MAX: usize = 5;

/// A remembered file that was found under another name, and is open.
struct Renamed {
    path: PathBuf,
    input: Input,
    meta: Metadata,
}

impl Tailer {
    /// Looks whether somebody goes on with files that were renamed and let go.
    pub(super) fn look_at_former(&mut self) {
        let mut former = self.former.take().unwrap_or_default();
        former.retain_mut(|file| match file.look(&self.context.listings) {
            Fate::Quiet => true,
            Fate::Over => false,
            Fate::Grown if self.has_all_generations() => true,
            Fate::Grown => match self.go_on_with(file.entry()) {
                Ok(()) => false,
                Err(Obstacle::NoHandle) => true,
                Err(obstacle) => {
                    self.tell(&obstacle);
                    true
                }
            },
        });
        self.former = Some(former);
    }

    /// Opens a file again that had the path before those that are open.
    fn go_on_with(&mut self, former: &Entry) -> Result<(), Obstacle> {
        if let Some(found) = self.find_renamed(former)?
            && let Some(generation) = self.take_up(found)?
        {
            self.generations.push_front(generation);
        }
        Ok(())
    }

    /// Files that were let go in an earlier run, lately.
    pub(super) fn former_of_before(&self) -> Vec<Former> {
        let since = SystemTime::now() - FORMER_FOR;
        let since = since
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let topic = &self.target.job.topic;
        let known = self
            .context
            .ledger
            .former_at(&self.target.path, topic, since);
        let former = known.into_iter().take(FORMER_MAX).rev();
        former
            .filter_map(|entry| {
                let path = entry.found_at.clone()?;
                Some(Former::new(entry, path))
            })
            .collect()
    }

    /// File systems do not keep their device numbers over a restart of the machine: a
    /// remembered file with another one is the same if everything else fits.
    pub(super) fn renumber(&self, now_there: &Metadata) {
        let (ledger, path) = (&self.context.ledger, &self.target.path);
        let known = ledger.known_at(path, &self.target.job.topic);
        let device = now_there.dev();
        for entry in known.iter().filter(|known| known.origin.device != device) {
            let origin = Origin {
                device,
                ..entry.origin.clone()
            };
            let same = |path: &Path, meta: &Metadata| {
                let input = self.glance_at(path).ok()?.0;
                let same = identity::recognise(&input, meta.len(), entry).ok()?;
                (same == Recognition::Same && entry.head.len > 0).then_some(())
            };
            let found = rotated::whereabouts(&self.context.listings, &origin);
            if found.is_some_and(|(path, meta)| same(&path, &meta).is_some()) {
                log::info!(
                    "the device number of a file has changed, it goes on where it was path={} inode={} device={device}",
                    as_value(path),
                    origin.inode
                );
                ledger.renumber(entry, device);
            }
        }
    }

    /// Files that stood at this path when it was last looked at, in an earlier
    /// run or under a name since forgotten, and were renamed with unread lines:
    /// if they are still in the same directory, their rest comes first.
    pub(super) fn recover_renamed(&mut self, now_there: Option<&Metadata>) -> Result<(), Obstacle> {
        let (ledger, topic) = (&self.context.ledger, &self.target.job.topic);
        let mut entries = ledger.known_at(&self.target.path, topic);
        let now_there = now_there.map(|meta| (meta.dev(), meta.ino()));
        entries.retain(|entry| now_there != Some((entry.origin.device, entry.origin.inode)));
        entries.sort_by_key(|entry| entry.seen);
        for entry in entries {
            self.check_generations()?;
            match self.recover_one(&entry, false) {
                Ok(found) => self.generations.extend(found),
                Err(Obstacle::NoHandle) => return Err(Obstacle::NoHandle),
                Err(obstacle) => self.tell(&obstacle),
            }
        }
        Ok(())
    }

    /// What stands at the path before it is first looked at, which is to be read: it
    /// and what follows it may be rotated away by then.
    pub(super) fn note_first_file(&mut self) {
        let ReadFrom::Beginning = self.target.read_from else {
            return; // where its lines of before end is not known without opening it
        };
        self.seen.get_or_insert_with(SystemTime::now);
        if let Ok(meta) = fs::metadata(&self.target.path)
            && check_kind(&meta).is_ok()
        {
            let origin = self.origin(inode_of(&meta), 0);
            self.context.ledger.remember_unread(origin, meta.len());
        }
    }

    /// Files that had the path between two of the last three looks, and were rotated
    /// away before the second: they come before the one that is there now.
    pub(super) fn recover_unseen(&mut self) -> Result<(), Obstacle> {
        let Some(since) = self.seen_before.or(self.seen) else {
            return Ok(());
        };
        // Names may move on while they are read: until there is nothing new.
        for _ in 0..UNSEEN_ROUNDS_MAX {
            if !self.take_all_unseen(since)? {
                break;
            }
        }
        Ok(())
    }

    /// True when there was something.
    fn take_all_unseen(&mut self, since: SystemTime) -> Result<bool, Obstacle> {
        let mut any = false;
        for (path, meta) in rotated::created_since(&self.context.listings, &self.target.path, since)
        {
            if self.is_known(&meta) {
                continue;
            }
            let taken = self
                .check_generations()
                .and_then(|()| self.take_unseen(&path));
            match taken {
                Ok(taken) => any |= taken,
                Err(obstacle @ (Obstacle::NoHandle | Obstacle::NoRoom(_))) => {
                    // Those before it are not looked for again.
                    (self.seen, self.seen_before) = (meta.created().ok(), None);
                    return Err(obstacle);
                }
                Err(obstacle) => {
                    any = true;
                    self.tell(&obstacle);
                }
            }
        }
        Ok(any)
    }

    /// True for a file that is remembered, or in the hands of a tailer. Another inode with
    /// its number is not the file that is known.
    fn is_known(&self, meta: &Metadata) -> bool {
        let topic = &self.target.job.topic;
        let key = (meta.dev(), meta.ino(), Arc::clone(topic));
        self.inherit(inode_of(meta));
        let ledger = &self.context.ledger;
        let created = ledger.knows_inode(meta.dev(), meta.ino(), topic);
        created.is_some_and(|then| then.is_none() || then == created_ns(meta))
            || self.context.registry.holder(&key).is_some()
    }

    /// False for one that is no file of its own.
    fn take_unseen(&mut self, path: &Path) -> Result<bool, Obstacle> {
        let (input, meta) = self.open(path)?;
        // What copytruncate left looks just like it, also of a file whose truncation
        // was not noticed yet. That one still stands at the path.
        let is_copy = |life: &Entry| identity::is_copy(&input, meta.len(), life).unwrap_or(false);
        let (ledger, topic) = (&self.context.ledger, &self.target.job.topic);
        let stands = fs::metadata(&self.target.path).ok();
        let stands = stands.map(|meta| (meta.dev(), meta.ino()));
        let open = self.generations.iter().map(|file| file.ledger().entry());
        let mut here = open.chain(ledger.known_at(&self.target.path, topic));
        let is_copy_of_here = here
            .any(|life| stands == Some((life.origin.device, life.origin.inode)) && is_copy(&life));
        if is_copy_of_here || self.truncated.iter().any(is_copy) {
            return Ok(false);
        }
        let Some(claim) = self.claim(&meta, path) else {
            return Ok(true);
        };
        log::info!(
            "found a file that was rotated between two looks path={} now={}",
            as_value(&self.target.path),
            as_value(path)
        );
        let mut generation = self.begin(input, claim, &meta, ReadFrom::Beginning)?;
        if generation.ledger().read_to() == 0 {
            generation.skip_nuls(); // nobody knows whether it was truncated
        }
        self.insert_by_age(generation);
        Ok(true)
    }

    /// The copies that copytruncate has just made of a life: they are remembered as
    /// read, so that nobody takes them for files of their own, also after a restart.
    pub(super) fn note_copies(&self, life: &Entry) {
        let since = SystemTime::now() - COPIED_WITHIN;
        for (path, meta) in rotated::created_since(&self.context.listings, &self.target.path, since)
        {
            let noted = self.note_copy(&path, &meta, life);
            log::debug!(
                "a copy of what was truncated path={} noted={noted:?}",
                as_value(&path)
            );
        }
    }

    /// `None` for a file that is known, is no copy, or cannot be read.
    fn note_copy(&self, path: &Path, meta: &Metadata, life: &Entry) -> Option<()> {
        if self.is_known(meta) {
            return None;
        }
        let (input, meta) = self.glance_at(path).ok()?;
        let size = meta.len();
        if !identity::is_copy(&input, size, life).ok()? {
            return None;
        }
        self.context.ledger.remember_complete(Entry {
            origin: self.origin(inode_of(&meta), 0),
            head: identity::head(&input, size).ok()?,
            position: size,
            beyond: Vec::new(),
            window: identity::window(&input, size).ok()?,
            size,
            ..life.clone()
        });
        Some(())
    }

    /// Names may have moved on between two files, so that the older one is found last.
    fn insert_by_age(&mut self, generation: Generation) {
        let born = generation.input().created_ns();
        let younger = |file: &Generation| file.input().created_ns() > born;
        let at = self.generations.iter().position(younger);
        let at = at.unwrap_or(self.generations.len());
        self.generations.insert(at, generation);
    }

    /// The file that slept here comes before all others. One that may not be read now
    /// is looked for again.
    pub(super) fn recover_slept(&mut self, was: Entry) -> Result<(), Obstacle> {
        match self.recover_one(&was, true) {
            Ok(Some(found)) => {
                self.generations.push_front(found);
                self.claim.tailed().tell(None);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(obstacle) => {
                self.was = Some(was);
                if let Obstacle::NoHandle = obstacle {
                    return Err(obstacle);
                }
                self.tell(&obstacle);
                Ok(())
            }
        }
    }

    /// Finds a renamed file again. One that has nothing left is left alone unless
    /// it was `just_here`: its writer may not have noticed the rename yet.
    fn recover_one(
        &mut self,
        entry: &Entry,
        just_here: bool,
    ) -> Result<Option<Generation>, Obstacle> {
        let Some(found) = self.find_renamed(entry)? else {
            let known = |(_, missing): &(Instant, Entry)| missing.origin == entry.origin;
            if !self.missing.iter().any(known) {
                self.missing.push((Instant::now(), entry.clone()));
            }
            return Ok(None);
        };
        if !just_here && found.meta.len() <= entry.position {
            // Nothing is left in it, unless its writer goes on with it.
            self.context.ledger.complete(entry, found.path.clone());
            let former = self.former.get_or_insert_default();
            former.push(Former::just_seen(entry.clone(), found.path));
            return Ok(None);
        }
        self.take_up(found)
    }

    /// Opens a remembered file wherever it is now. One that only has its inode is
    /// another file, which nobody has asked for.
    fn find_renamed(&self, entry: &Entry) -> Result<Option<Renamed>, Obstacle> {
        let origin = &entry.origin;
        let Some((path, _)) = rotated::whereabouts(&self.context.listings, origin) else {
            return Ok(None);
        };
        let (input, meta) = self.open(&path)?;
        // Of an empty file only its name, or when it was created, tells that it is it.
        let evidence = entry.head.len > 0
            || origin.created_ns.is_some()
            || rotated::is_rotation_of(&origin.path, &path);
        let same = evidence
            && (meta.dev(), meta.ino()) == (origin.device, origin.inode)
            && identity::recognise(&input, meta.len(), entry)? == Recognition::Same;
        Ok(same.then_some(Renamed { path, input, meta }))
    }

    /// Goes on with a renamed file at its position. `None` when another tailer has it.
    fn take_up(&mut self, found: Renamed) -> Result<Option<Generation>, Obstacle> {
        let Some(claim) = self.claim(&found.meta, &self.target.path.clone()) else {
            return Ok(None);
        };
        log::info!(
            "found the rest of a renamed file path={} now={}",
            as_value(&self.target.path),
            as_value(&found.path)
        );
        let generation = self.begin(found.input, claim, &found.meta, ReadFrom::Beginning)?;
        Ok(Some(generation))
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
                as_value(&entry.origin.path),
                entry.origin.inode,
                entry.size
            );
            context.ledger.give_up(entry);
            false
        });
    }
}
