//! The ledger on disk: one JSON document, replaced atomically.
//!
//! It writes what the ledger says and reads it back, the previous generation
//! if the newest is damaged. It does not look at log files and decides nothing
//! about them.

mod state_dir;

#[cfg(test)]
mod power_cuts;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use twox_hash::XxHash3_64;

use crate::disk::{self, Disk, RealDisk};
use crate::ledger::{Entry, Ledger, Mark, Origin};
use crate::text::{as_value, from_text, to_text};
use crate::thread::{Stop, fault_point};

pub use state_dir::{Hold, StateDir, StateError};

/// The newest generation, and the one before.
const NEWEST: &str = "checkpoint.json";
const PREVIOUS: &str = "checkpoint.previous.json";
/// Added to the name of one that cannot be used.
const DAMAGED: &str = ".damaged";
/// Version of the format; see ARCHITECTURE.md, "Stored formats".
const VERSION: u32 = 1;
/// How often a changed ledger is written.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The first one comes sooner, and the pause doubles from there: whoever is killed
/// again and again repeats half of each life, not all of it for ever.
const FIRST_SAVE_AFTER: Duration = Duration::from_millis(50);
/// Files that nobody has seen for so long are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// ... sooner if nothing was left of them,
const FORGET_COMPLETE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// ... but not before this run has had the time to find them.
const FORGET_NOT_BEFORE: Duration = Duration::from_secs(600);

/// A document of a version that is known; [`encode`] writes it.
#[derive(Deserialize)]
struct Document<'a> {
    /// XXH3 (64 bits) of the bytes of `files`, in hex.
    checksum: String,
    /// Where it was written, to be told; what counts is the content of the files.
    #[serde(default)]
    host: Option<String>,
    #[serde(borrow)]
    files: &'a RawValue,
}

/// What a document says.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    host: Option<String>,
    entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct FileRecord {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    real_path: Option<String>,
    topic: String,
    device: u64,
    inode: u64,
    generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_ns: Option<u64>,
    position: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    acked_beyond: Vec<(u64, u64)>,
    size: u64,
    seen: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    complete: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    found_at: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    ended: bool,
    head: MarkRecord,
    window: MarkRecord,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // it is what serde wants
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize, Deserialize)]
struct MarkRecord {
    end: u64,
    len: u32,
    hash: String,
}

/// Why a checkpoint cannot be used.
#[derive(Debug)]
pub enum CheckpointError {
    /// It cannot be read.
    Read(io::Error),
    /// It is not a checkpoint, or only part of one.
    Damaged(String),
    /// A newer logship wrote it.
    Future(u32),
}

/// What a state directory remembers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The files it knows.
    pub entries: Vec<Entry>,
    /// There was a checkpoint, usable or not: this is not the first run.
    pub continued: bool,
    /// Something was lost, so that an unknown file may be one that was known.
    pub damaged: bool,
}

/// The checkpoint of a state directory.
#[derive(Debug)]
pub struct Checkpoint<D = RealDisk> {
    disk: D,
    dir: PathBuf,
    host: String,
    used_before: bool,
}

impl Checkpoint {
    /// That of a directory, written on `host`.
    pub fn in_directory(dir: &StateDir, host: &str) -> Checkpoint {
        Checkpoint {
            disk: RealDisk,
            dir: dir.path().to_owned(),
            host: host.to_owned(),
            used_before: dir.was_used_before(),
        }
    }
}

impl<D: Disk> Checkpoint<D> {
    /// Reads it; what had to be worked around is said in the log. A directory
    /// without one begins with nothing.
    pub fn load(&self) -> Memory {
        let mut memory = Memory::default();
        for name in [NEWEST, PREVIOUS] {
            let path = self.dir.join(name);
            match self.read(&path) {
                Ok(contents) => {
                    memory.continued = true;
                    if name == PREVIOUS && !memory.damaged {
                        log::warn!(
                            "the newest checkpoint is missing, using the one before: lines acknowledged after it are sent again path={}",
                            as_value(&path)
                        );
                    }
                    if memory.damaged {
                        log::warn!(
                            "using the previous checkpoint: lines acknowledged after it are sent again path={}",
                            as_value(&path)
                        );
                    }
                    self.tell_of_host(contents.host.as_deref(), &path);
                    memory.entries = contents.entries;
                    return memory;
                }
                Err(CheckpointError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {
                    // Set aside in a run that ended before it could write a new one.
                    if self.disk.exists(&aside(&path)) {
                        (memory.continued, memory.damaged) = (true, true);
                    }
                }
                Err(error) => {
                    (memory.continued, memory.damaged) = (true, true);
                    log::error!(
                        "unusable checkpoint path={} problem={error}",
                        as_value(&path)
                    );
                    self.set_aside(&path);
                }
            }
        }
        if self.used_before && !memory.continued {
            log::warn!(
                "no checkpoint in a state directory that was used before: files begin where they are told to, as at the first start state_dir={}",
                as_value(&self.dir)
            );
        }
        if memory.damaged {
            log::error!(
                "no usable checkpoint: files are read from their beginning, lines are sent again state_dir={}",
                as_value(&self.dir)
            );
        }
        memory
    }

    fn read(&self, path: &Path) -> Result<Contents, CheckpointError> {
        decode(&self.disk.read(path).map_err(CheckpointError::Read)?)
    }

    /// Keeps a damaged file for whoever wants to look, out of the way.
    fn set_aside(&self, path: &Path) {
        if let Err(error) = self.disk.rename(path, &aside(path)) {
            log::warn!("cannot set aside path={} error={error}", as_value(path));
        }
    }

    /// Device and inode numbers of another host mean nothing here, but nobody has
    /// to be kept from moving a volume: content tells which files are the same.
    fn tell_of_host(&self, host: Option<&str>, path: &Path) {
        if let Some(other) = host.filter(|host| *host != self.host) {
            log::info!(
                "the checkpoint was written on another host: a file goes on at its position where device, inode and content are the same, others are read from their beginning path={} host={} this_host={}",
                as_value(path),
                as_value(other),
                as_value(&self.host)
            );
        }
    }

    /// Writes it: after a power cut there is this one or the one before.
    ///
    /// # Errors
    /// What the disk says.
    pub fn save(&self, entries: &[Entry]) -> io::Result<()> {
        let path = |name| self.dir.join(name);
        let text = encode(&self.host, entries);
        disk::replace_keeping(&self.disk, &path(NEWEST), &path(PREVIOUS), &text)
    }
}

/// The name of one that cannot be used.
fn aside(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(DAMAGED);
    aside.into()
}

/// How up to date the checkpoint is, for whoever wants to show it.
#[derive(Debug, Default)]
pub struct Progress {
    // Locks and not messages: whoever wants to know asks at any moment.
    current: Mutex<Option<Instant>>,
    failure: Mutex<Option<String>>,
}

impl Progress {
    /// How long ago everything was written down.
    pub fn age(&self) -> Option<Duration> {
        let current = *self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.map(|at| at.elapsed())
    }

    /// Why nothing can be written, if so.
    pub fn failure(&self) -> Option<String> {
        let failure = self.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, failure: Option<String>) {
        if failure.is_none() {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            *current = Some(Instant::now());
        }
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

/// The body of the checkpoint thread: saves when something has changed, and
/// once more at the end.
pub fn run(dir: &StateDir, host: &str, ledger: &Ledger, progress: &Progress, stop: &Stop) {
    let mut saver = Saver {
        dir,
        checkpoint: Checkpoint::in_directory(dir, host),
        ledger,
        progress,
        started: Instant::now(),
        saved: None,
    };
    // The first one soon: it says where a follower began, before it has shipped
    // anything.
    let mut pause = FIRST_SAVE_AFTER;
    while !stop.requested() {
        stop.sleep(pause);
        fault_point("checkpoint");
        saver.save();
        pause = SAVE_EVERY.min(pause * 2);
    }
    saver.save();
}

struct Saver<'a> {
    dir: &'a StateDir,
    checkpoint: Checkpoint,
    ledger: &'a Ledger,
    progress: &'a Progress,
    started: Instant,
    /// The ledger's count of changes when it was last saved.
    saved: Option<u64>,
}

impl Saver<'_> {
    fn save(&mut self) {
        if self.started.elapsed() >= FORGET_NOT_BEFORE {
            self.ledger.forget(
                seconds_ago(FORGET_AFTER),
                seconds_ago(FORGET_COMPLETE_AFTER),
            );
        }
        let failure = self.write_what_changed().err();
        let dir = as_value(self.dir.path());
        match (&failure, self.progress.failure()) {
            (None, Some(_)) => log::info!("checkpoints are written again dir={dir}"),
            (Some(error), before) if before.as_ref() != Some(error) => log::error!(
                "cannot write the checkpoint: shipping goes on, lines may be sent again after a restart dir={dir} error={error}"
            ),
            _ => {}
        }
        self.progress.note(failure);
    }

    fn write_what_changed(&mut self) -> Result<(), String> {
        match self.dir.hold_on() {
            Ok(Hold::Kept) => {}
            Ok(Hold::Anew) => {
                log::warn!(
                    "the state directory was taken away while logship runs: it is made again dir={}",
                    as_value(self.dir.path())
                );
                self.saved = None;
            }
            Err(error) => return Err(error.to_string()),
        }
        let changes = self.ledger.changes(); // first: what comes after is saved next time
        if self.saved != Some(changes) {
            self.ledger.tell_dropped();
            let saved = self.checkpoint.save(&self.ledger.entries());
            saved.map_err(|error| error.to_string())?;
            self.saved = Some(changes);
        }
        Ok(())
    }
}

fn seconds_ago(ago: Duration) -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |now| now.saturating_sub(ago).as_secs())
}

/// The document, written once: it may be large, and nothing of it is copied.
fn encode(host: &str, entries: &[Entry]) -> Vec<u8> {
    const EXPECTED: &str = "numbers and strings serialise";
    let mut text = format!(r#"{{"version":{VERSION},"checksum":""#).into_bytes();
    let checksum_at = text.len();
    text.extend(checksum(b"").bytes()); // its place, until it is known
    text.extend(br#"","host":"#);
    serde_json::to_writer(&mut text, host).expect(EXPECTED);
    text.extend(br#","files":"#);
    let files_at = text.len();
    let records = entries.iter().map(FileRecord::from);
    serde_json::Serializer::pretty(&mut text)
        .collect_seq(records)
        .expect(EXPECTED);
    let checksum = checksum(&text[files_at..]);
    text[checksum_at..][..checksum.len()].copy_from_slice(checksum.as_bytes());
    text.extend(b"}\n");
    text
}

fn decode(text: &[u8]) -> Result<Contents, CheckpointError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let damaged = |problem: String| CheckpointError::Damaged(problem);
    let Versioned { version } =
        serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
    if version > VERSION {
        return Err(CheckpointError::Future(version));
    }
    let document: Document =
        serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
    if checksum(document.files.get().as_bytes()) != document.checksum {
        return Err(damaged("the checksum does not fit".to_owned()));
    }
    let records: Vec<FileRecord> =
        serde_json::from_str(document.files.get()).map_err(|error| damaged(error.to_string()))?;
    let entries = records.into_iter().map(Entry::try_from);
    Ok(Contents {
        host: document.host,
        entries: entries.collect::<Result<_, _>>().map_err(damaged)?,
    })
}

fn checksum(text: &[u8]) -> String {
    format!("{:016x}", XxHash3_64::oneshot(text))
}

impl From<&Entry> for FileRecord {
    fn from(entry: &Entry) -> FileRecord {
        FileRecord {
            path: to_text(&entry.origin.path),
            real_path: entry.origin.real.as_deref().map(to_text),
            topic: entry.origin.topic.to_string(),
            device: entry.origin.device,
            inode: entry.origin.inode,
            generation: entry.origin.generation,
            created_ns: entry.origin.created_ns,
            position: entry.position,
            acked_beyond: entry.beyond.clone(),
            size: entry.size,
            seen: entry.seen,
            complete: entry.complete,
            found_at: entry.found_at.as_deref().map(to_text),
            ended: entry.ended,
            head: entry.head.into(),
            window: entry.window.into(),
        }
    }
}

impl TryFrom<FileRecord> for Entry {
    type Error = String;

    fn try_from(record: FileRecord) -> Result<Entry, String> {
        let origin = Origin {
            path: from_text(&record.path),
            real: record.real_path.as_deref().map(from_text),
            topic: Arc::from(record.topic),
            device: record.device,
            inode: record.inode,
            generation: record.generation,
            created_ns: record.created_ns,
        };
        let mut least = record.position.saturating_add(1); // else it would be before the position
        for &(from, to) in &record.acked_beyond {
            if from < least || to <= from {
                return Err(format!("ranges of {} overlap", record.path));
            }
            least = to; // neighbours are no harm: older ones wrote them
        }
        Ok(Entry {
            origin,
            head: record.head.try_into()?,
            position: record.position,
            beyond: record.acked_beyond,
            window: record.window.try_into()?,
            size: record.size,
            seen: record.seen,
            complete: record.complete,
            found_at: record.found_at.as_deref().map(from_text),
            ended: record.ended,
        })
    }
}

impl From<Mark> for MarkRecord {
    fn from(mark: Mark) -> MarkRecord {
        MarkRecord {
            end: mark.end,
            len: mark.len,
            hash: format!("{:016x}", mark.hash),
        }
    }
}

impl TryFrom<MarkRecord> for Mark {
    type Error = String;

    fn try_from(record: MarkRecord) -> Result<Mark, String> {
        let hash = u64::from_str_radix(&record.hash, 16)
            .map_err(|_| format!("'{}' is not a hash", record.hash.escape_default()))?;
        if u64::from(record.len) > record.end {
            return Err("a mark begins before its file".to_owned());
        }
        Ok(Mark {
            end: record.end,
            len: record.len,
            hash,
        })
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::Read(error) => write!(f, "cannot be read: {error}"),
            CheckpointError::Damaged(problem) => write!(f, "damaged: {problem}"),
            CheckpointError::Future(version) => write!(
                f,
                "written by a newer logship (format {version}, this one knows {VERSION})"
            ),
        }
    }
}

impl std::error::Error for CheckpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CheckpointError::Read(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    const HOST: &str = "here";

    fn entry(path: &str) -> Entry {
        Entry {
            origin: Origin {
                path: PathBuf::from(path),
                real: Some(PathBuf::from("/real")),
                topic: "t".into(),
                device: u64::MAX,
                inode: 7,
                generation: 2,
                created_ns: Some(u64::MAX),
            },
            head: Mark {
                end: 10,
                len: 10,
                hash: u64::MAX,
            },
            position: 100,
            beyond: vec![(120, 130)],
            window: Mark {
                end: 90,
                len: 90,
                hash: 1,
            },
            size: 200,
            seen: 1_700_000_000,
            complete: true,
            found_at: Some(PathBuf::from("/a.1")),
            ended: true,
        }
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let entries = vec![entry("/a"), entry("/b c\n")];
        let contents = Contents {
            host: Some(HOST.to_owned()),
            entries,
        };
        assert_eq!(decode(&encode(HOST, &contents.entries)).unwrap(), contents);
    }

    fn any_mark() -> impl Strategy<Value = Mark> {
        (any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(end, len, hash)| Mark {
            end,
            len: len.min(u32::try_from(end).unwrap_or(u32::MAX)),
            hash,
        })
    }

    fn any_path() -> impl Strategy<Value = PathBuf> {
        let byte =
            prop_oneof![3 => 1..=u8::MAX, 1 => proptest::sample::select(b"%/ 4f\n".to_vec())];
        let bytes = proptest::collection::vec(byte, 1..40);
        bytes.prop_map(|bytes| OsString::from_vec(bytes).into())
    }

    /// Ranges after a position, neighbours among them: they once made a checkpoint
    /// unusable that was none the worse.
    fn any_ranges() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
        let pieces = proptest::collection::vec((0..3_u64, 1..u64::MAX >> 8), 0..9);
        (0..u64::MAX >> 2, pieces).prop_map(|(position, pieces)| {
            let mut end = position + 1;
            let range = |(gap, len)| {
                let from = end + gap;
                end = from + len;
                (from, end)
            };
            (position, pieces.into_iter().map(range).collect())
        })
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let names = (
            any_path(),
            proptest::option::of(any_path()),
            any::<String>(),
        );
        let numbers = any::<(u64, u64, u64, u64, u64, bool)>();
        let marks = (any_mark(), any_mark());
        let parts = (names, numbers, any_ranges(), marks);
        parts.prop_map(
            |((path, real, topic), numbers, ranges, (head, window))| Entry {
                origin: Origin {
                    path,
                    real,
                    topic: topic.into(),
                    device: numbers.0,
                    inode: numbers.1,
                    generation: numbers.2,
                    created_ns: numbers.5.then_some(numbers.3),
                },
                head,
                position: ranges.0,
                beyond: ranges.1,
                window,
                size: numbers.3,
                seen: numbers.4,
                complete: numbers.5,
                found_at: numbers.5.then(|| PathBuf::from("/a.1")),
                ended: numbers.5,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_ledger_holds_reads_back(
            host in any::<String>(),
            entries in proptest::collection::vec(any_entry(), 0..6)
        ) {
            let contents = decode(&encode(&host, &entries)).unwrap();
            prop_assert_eq!(contents, Contents { host: Some(host), entries });
        }

        #[test]
        fn bytes_of_any_kind_are_no_checkpoint_and_no_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            prop_assert!(decode(&bytes).is_err());
        }
    }

    #[test]
    fn every_flipped_byte_and_every_missing_end_is_noticed() {
        let good = encode(HOST, &[entry("/a")]);
        for at in 0..good.len() - 1 {
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            if let Ok(Contents { entries, .. }) = decode(&flipped) {
                // Only the host and white space between the members may differ.
                assert_eq!(entries, [entry("/a")], "flipped at {at}");
            }
        }
        assert!(decode(&vec![0; good.len()]).is_err());
        assert!(decode(b"").is_err());
    }

    #[test]
    fn a_checkpoint_from_the_future_is_told_from_a_damaged_one() {
        let text = br#"{"version":2,"something":"else"}"#;
        assert!(matches!(decode(text), Err(CheckpointError::Future(2))));
    }

    #[test]
    fn a_damaged_checkpoint_falls_back_to_the_one_before() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::open(temp.path()).unwrap();
        let checkpoint = Checkpoint::in_directory(&dir, HOST);
        checkpoint.save(&[entry("/old")]).unwrap();
        checkpoint.save(&[entry("/new")]).unwrap();
        assert_eq!(checkpoint.load().entries, [entry("/new")]);

        fs::write(temp.path().join(NEWEST), [0; 300]).unwrap();
        let memory = checkpoint.load();
        assert_eq!(memory.entries, [entry("/old")]);
        assert!(memory.continued && memory.damaged);
        assert!(temp.path().join("checkpoint.json.damaged").exists());
    }
}
