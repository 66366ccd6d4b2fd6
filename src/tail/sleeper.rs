//! A quiet file that has given its thread and its handle back.
//!
//! It keeps what a tailer had to itself, so that nobody else takes the file up
//! meanwhile, and what the file looked like. It opens nothing: whoever looks at
//! it only asks for metadata.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::ledger::{Attendance, Entry};

use super::listing::Listings;
use super::registry::{InodeClaim, PathClaim, State};
use super::rotated::{Fate, Former};
use super::{ReadFrom, Target};

/// What a quiet file is known by. Any change of it wakes the file: growth, a
/// rewrite, a rename, another file at its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A path whose tailer sleeps.
#[derive(Debug)]
pub struct Sleeper {
    target: Target,
    /// `None` when nothing stood at the path.
    stat: Option<Stat>,
    /// When it was last found undisturbed.
    seen: SystemTime,
    /// Files that had the path before.
    former: Vec<Former>,
    account: Option<Attendance>,
    _inode: Option<Arc<InodeClaim>>,
    claim: Arc<PathClaim>,
}

/// What is left of a sleeper when it wakes.
#[derive(Debug)]
pub struct Woken {
    /// The path, and what is done with its lines.
    pub target: Target,
    /// The file that slept.
    pub was: Option<Entry>,
    /// When it was last found undisturbed.
    pub seen: SystemTime,
    /// Files that had the path before it.
    pub former: Vec<Former>,
    /// The path is still claimed.
    pub claim: Arc<PathClaim>,
}

impl Stat {
    /// What metadata say.
    pub fn of(meta: &Metadata) -> Stat {
        Stat {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Sleeper {
    /// Puts a path to sleep.
    pub fn new(
        target: Target,
        (stat, seen): (Option<Stat>, SystemTime),
        file: Option<(Attendance, Option<Arc<InodeClaim>>)>,
        former: Vec<Former>,
        claim: Arc<PathClaim>,
    ) -> Sleeper {
        claim.tailed().show(State::Asleep);
        claim.tailed().runs_in(None);
        let (account, inode) = file.map_or((None, None), |(account, inode)| (Some(account), inode));
        Sleeper {
            target,
            stat,
            seen,
            former,
            account,
            _inode: inode,
            claim,
        }
    }

    /// It waits for its turn to be read on.
    pub fn queue(&self) {
        self.claim.tailed().show(State::Queued);
    }

    /// The path, and what is done with its lines.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.target.path
    }

    /// True when the path is not what it was, a file that had it before has grown, or there
    /// is nothing left to wait for.
    pub fn is_disturbed(&mut self, listings: &Listings) -> bool {
        let at = SystemTime::now();
        let now = fs::metadata(self.path()).ok().map(|meta| Stat::of(&meta));
        if now != self.stat {
            return true;
        }
        if now.is_some() {
            self.seen = at; // of nothing nobody knows what had its place meanwhile
        }
        let mut grown = false;
        self.former
            .retain_mut(|former| match former.look(listings) {
                Fate::Over => false,
                fate => {
                    grown |= fate == Fate::Grown;
                    true
                }
            });
        let is_over = now.is_none() && !self.target.named && self.former.is_empty();
        grown || is_over
    }

    /// What a tailer needs to go on: the file that slept, if there was one, is
    /// looked for first, wherever it is now.
    pub fn wake(self) -> Woken {
        let was = self.account.as_ref().map(|account| account.entry());
        let target = Target {
            // Whatever is there now has appeared, or was read, since.
            read_from: ReadFrom::Beginning,
            ..self.target
        };
        Woken {
            target,
            was,
            seen: self.seen,
            former: self.former,
            claim: self.claim,
        }
    }
}
