//! A disk in memory whose power can be cut, for tests.
//!
//! What was not synced may be there after the cut, in part, as zeros, or not at
//! all; names that were changed and not synced may be the old or the new ones,
//! each by itself and in any order. It knows one directory.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile};

/// Names that may have survived, or not, at most: more combinations are not tried.
const NAMES_TRIED: usize = 6;

/// The disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct PowerDisk(Arc<Mutex<State>>);

#[derive(Debug, Default, Clone)]
struct State {
    files: Vec<Content>,
    /// As they are, and as they are for good.
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    /// Changes of names since the last sync.
    unsynced: Vec<Rename>,
    steps: usize,
    /// From this step on everything fails.
    cut_at: Option<usize>,
    /// This step fails, by itself.
    fails: Option<(usize, i32)>,
    /// Bytes that can still be written.
    room: Option<usize>,
}

#[derive(Debug, Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

/// A file got a name and, unless it is new, lost another.
#[derive(Debug, Clone)]
struct Rename {
    file: usize,
    from: Option<PathBuf>,
    to: PathBuf,
}

/// What became of bytes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    /// As before they were written.
    Gone,
    /// As many, and all zero.
    Zeros,
    /// The first half.
    Half,
    /// All of them.
    There,
}

/// What survives a power cut.
#[derive(Debug, Clone)]
pub struct Survivors {
    /// Of bytes that were not synced.
    pub bytes: Bytes,
    /// The changes of names that did, a bit each.
    pub names: usize,
    /// Later changes came before earlier ones.
    pub backwards: bool,
}

/// An open file.
#[derive(Debug)]
pub struct PowerFile {
    disk: PowerDisk,
    file: usize,
}

impl Survivors {
    /// All there can be, for so many unsynced names as can be tried.
    pub fn all(disk: &PowerDisk) -> Vec<Survivors> {
        let names = disk.state().unsynced.len().min(NAMES_TRIED);
        let mut all = Vec::new();
        for bytes in [Bytes::Gone, Bytes::Zeros, Bytes::Half, Bytes::There] {
            for mask in 0..1 << names {
                for backwards in [false, true] {
                    all.push(Survivors {
                        bytes,
                        names: mask,
                        backwards,
                    });
                }
            }
        }
        all
    }
}

impl PowerDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Operations so far.
    pub fn steps(&self) -> usize {
        self.state().steps
    }

    /// The operation of this number is the first that does not happen.
    pub fn cut_power_at(&self, step: usize) {
        self.state().cut_at = Some(step);
    }

    /// The operation of this number fails with this error of the system.
    pub fn fail_at(&self, step: usize, errno: i32) {
        self.state().fails = Some((step, errno));
    }

    /// So many bytes more, and the disk is full.
    pub fn fill_up_after(&self, bytes: usize) {
        self.state().room = Some(bytes);
    }

    /// It is not full any more.
    pub fn make_room(&self) {
        self.state().room = None;
    }

    /// Changes a file for good, without anybody's doing: damage.
    pub fn damage(&self, path: &Path, bytes: &[u8]) -> bool {
        let mut state = self.state();
        let Some(&file) = state.names.get(path) else {
            return false;
        };
        state.files[file] = Content::of(bytes.to_vec());
        true
    }

    /// The disk that the next start finds.
    pub fn after_power_cut(&self, survivors: Survivors) -> PowerDisk {
        let state = self.state();
        let mut names = state.synced_names.clone();
        let mut renames: Vec<(usize, &Rename)> = state.unsynced.iter().enumerate().collect();
        if survivors.backwards {
            renames.reverse();
        }
        for (at, rename) in renames {
            if at >= NAMES_TRIED || survivors.names & (1 << at) != 0 {
                rename.happen(&mut names);
            }
        }
        let survive = |content: &Content| Content::of(content.surviving(survivors.bytes));
        PowerDisk(Arc::new(Mutex::new(State {
            files: state.files.iter().map(survive).collect(),
            synced_names: names.clone(),
            names,
            ..State::default()
        })))
    }

    fn open(&self, path: &Path, known: Option<usize>, mut state: MutexGuard<State>) -> PowerFile {
        let file = known.unwrap_or(state.files.len());
        if file == state.files.len() {
            state.files.push(Content::default());
            let (from, to) = (None, path.to_owned());
            state.rename(Rename { file, from, to });
        }
        drop(state);
        let disk = self.clone();
        PowerFile { disk, file }
    }

    /// Every operation begins here.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let step = state.steps;
        if state.cut_at.is_some_and(|at| step >= at) {
            return Err(io::Error::other("the power is off"));
        }
        state.steps += 1;
        match state.fails {
            Some((at, errno)) if at == step => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(state),
        }
    }
}

impl State {
    fn rename(&mut self, rename: Rename) {
        rename.happen(&mut self.names);
        self.unsynced.push(rename);
    }
}

impl Rename {
    fn happen(&self, names: &mut BTreeMap<PathBuf, usize>) {
        if let Some(from) = &self.from
            && names.get(from) == Some(&self.file)
        {
            names.remove(from);
        }
        names.insert(self.to.clone(), self.file);
    }
}

impl Content {
    fn of(bytes: Vec<u8>) -> Content {
        Content {
            synced: bytes.clone(),
            bytes,
        }
    }

    /// What is left of it; what was synced and not written since always is.
    fn surviving(&self, unsynced: Bytes) -> Vec<u8> {
        let same = self.bytes.iter().zip(&self.synced);
        let same = same.take_while(|(now, then)| now == then).count();
        let fresh = self.bytes.len() - same;
        let (kept, fresh) = (&self.bytes[..same], &self.bytes[same..][..fresh]);
        match unsynced {
            Bytes::Gone => self.synced.clone(),
            Bytes::Zeros => [kept, &vec![0; fresh.len()]].concat(),
            Bytes::Half => [kept, &fresh[..fresh.len() / 2]].concat(),
            Bytes::There => self.bytes.clone(),
        }
    }
}

impl Disk for PowerDisk {
    type File = PowerFile;

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.step()?;
        let file = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.files[*file].bytes.clone())
    }

    fn create(&self, path: &Path) -> io::Result<PowerFile> {
        Ok(self.open(path, None, self.step()?))
    }

    fn append(&self, path: &Path) -> io::Result<PowerFile> {
        let state = self.step()?;
        let known = state.names.get(path).copied();
        Ok(self.open(path, known, state))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let file = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        let (from, to) = (Some(from.to_owned()), to.to_owned());
        state.rename(Rename { file, from, to });
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.synced_names = state.names.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.state().names.contains_key(path)
    }
}

impl Write for PowerFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.step()?;
        let len = state.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if len == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.room = state.room.map(|room| room - len);
        state.files[self.file]
            .bytes
            .extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for PowerFile {
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.step()?;
        let content = &mut state.files[self.file];
        content.synced.clone_from(&content.bytes);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.step()?.files[self.file].bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.step()?;
        let bytes = &state.files[self.file].bytes[offset as usize..];
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn cut(&mut self, size: u64) -> io::Result<()> {
        let mut state = self.disk.step()?;
        state.files[self.file].bytes.truncate(size as usize);
        Ok(())
    }
}
