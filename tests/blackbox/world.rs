//! The world a test lives in: a directory of its own, logs that are written
//! and rotated like real ones, and the real `logship` reading them.
//!
//! Nothing here knows how logship works inside: it sees files, standard output,
//! standard error, exit codes, and what /proc says of any process. Nothing
//! sleeps for luck either: every wait is for a fact that can be seen, and has a
//! deadline that fails the test with what was expected, what came, standard
//! error and the files.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

/// The topic every tail of a test ships to, unless it says otherwise.
pub const TOPIC: &str = "demo";
/// How long anything may take that must happen. Long, for the sake of a loaded
/// machine: only a failing test ever waits for it.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How often a fact is looked at for which nothing can wake us.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The user "nobody", for tests of permissions that root would not meet.
const NOBODY: u32 = 65_534;

/// A directory with logs in it, gone when the test is over.
pub struct World {
    dir: TempDir,
}

impl World {
    /// An empty world. Other users may read it, so that one of them can be logship.
    pub fn new() -> World {
        let dir = tempfile::Builder::new()
            .prefix("logship-test-")
            .tempdir()
            .unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let world = World { dir };
        fs::create_dir(world.home()).unwrap();
        world
    }

    /// Leaves the directory behind, for a person to look at.
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    /// Where `name` is, or would be, in this world.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The home directory of logship, empty at first.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// The directory that [`Logship::with_state`] names.
    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// Makes a directory.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// An empty log, open for writing.
    pub fn log(&self, name: impl AsRef<Path>) -> Log {
        let mut log = self.later(name);
        log.reopen();
        log
    }

    /// A log that does not exist before it is first written to.
    pub fn later(&self, name: impl AsRef<Path>) -> Log {
        Log {
            path: self.path(name),
            file: None,
        }
    }

    /// A `logship` command line. It runs in this world's directory, with a home
    /// in it, and without any variable that could change what it does.
    pub fn logship<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Logship {
        Logship {
            program: env!("CARGO_BIN_EXE_logship").into(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            stdin: Input::Nothing,
            nobody: false,
            dir: self.dir.path().to_owned(),
        }
    }

    /// `logship tail PATH... --topic demo`.
    pub fn tail<P: Into<OsString>>(&self, paths: impl IntoIterator<Item = P>) -> Logship {
        let paths = paths.into_iter().map(Into::into);
        self.logship([OsString::from("tail")].into_iter().chain(paths))
            .args(["--topic", TOPIC])
    }

    /// Gives every file in the checkpoints another device number, as a restart of
    /// the machine may.
    pub fn renumber_devices(&self) {
        for path in self.checkpoints() {
            let text = fs::read_to_string(&path).unwrap();
            let at = text.find("\"files\":").unwrap() + "\"files\":".len();
            let files = text[at..].trim_end().strip_suffix('}').unwrap();
            let renumbered = files.replace("\"device\": ", "\"device\": 1");
            assert_ne!(files, renumbered);
            let checksum = |files: &str| {
                let hash = twox_hash::XxHash3_64::oneshot(files.as_bytes());
                format!("{hash:016x}")
            };
            let (old, new) = (checksum(files), checksum(&renumbered));
            let text = text.replace(files, &renumbered).replace(&old, &new);
            fs::write(&path, text).unwrap();
        }
    }

    /// `logship verify PATH...` of what was captured: the second opinion on whether
    /// every line arrived. Exit 0 says once and in order.
    pub fn verify<P: Into<OsString>>(
        &self,
        paths: impl IntoIterator<Item = P>,
        captured: impl Into<Vec<u8>>,
    ) -> Logship {
        let paths = paths.into_iter().map(Into::into);
        self.logship([OsString::from("verify")].into_iter().chain(paths))
            .stdin(captured)
    }

    /// The files below the state directory whose name says that they are a
    /// checkpoint, the newest first.
    pub fn checkpoints(&self) -> Vec<PathBuf> {
        let mut found = walk(&self.state_dir());
        found.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.is_file() && name.contains("checkpoint")
        });
        // Two of the same moment: the one before is named like the current one and more.
        found.sort_by_key(|path| path.as_os_str().len());
        found.sort_by_key(|path| Reverse(fs::metadata(path).unwrap().modified().unwrap()));
        found
    }
}

/// Every path below `dir`, with and without content, in order.
pub fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Lines that can be counted: `seq=000000123` and a few words.
pub fn numbered(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let line = |n| format!("seq={n:09} the quick brown fox jumps over the lazy dog and comes back");
    numbers.into_iter().map(line).collect()
}

/// How a log gives way to the next generation of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotate {
    /// `app.log` becomes `app.log.1`, a new `app.log` is created.
    Rename,
    /// A new file is moved over `app.log`; the old one has no name any more.
    Replace,
    /// `app.log` is deleted, then created.
    Recreate,
    /// `app.log` is copied to `app.log.1` and emptied in place.
    CopyTruncate,
}

impl Rotate {
    /// The ways that leave the old content to whoever has it open.
    pub const LOSSLESS: [Rotate; 3] = [Rotate::Rename, Rotate::Replace, Rotate::Recreate];
    /// All of them.
    pub const ALL: [Rotate; 4] = [
        Rotate::Rename,
        Rotate::Replace,
        Rotate::Recreate,
        Rotate::CopyTruncate,
    ];
}

/// A log and the program that writes it, with its handle open for appending.
pub struct Log {
    path: PathBuf,
    file: Option<File>,
}

impl Log {
    /// The path it is written under.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends lines, all in one write, creating the file when there is none.
    pub fn write<L: AsRef<[u8]>>(&mut self, lines: impl IntoIterator<Item = L>) {
        self.write_raw(with_ends(lines, b"\n"));
    }

    /// Appends bytes as they are, in one write.
    pub fn write_raw(&mut self, bytes: impl AsRef<[u8]>) {
        if self.file.is_none() {
            self.reopen();
        }
        let file = self.file.as_mut().expect("just opened");
        file.write_all(bytes.as_ref()).unwrap();
    }

    /// The writer of the file that is open: it goes on there whatever becomes of
    /// the name.
    pub fn writer(&self) -> File {
        let file = self.file.as_ref().expect("a log that was written");
        file.try_clone().unwrap()
    }

    /// Ends this generation; the next write goes to the new one, which exists.
    pub fn rotate(&mut self, how: Rotate) {
        match how {
            Rotate::Rename => {
                self.shift_old();
                self.rename_to(with_suffix(&self.path, ".1"));
                self.reopen();
            }
            Rotate::Replace => {
                let fresh = with_suffix(&self.path, ".new");
                self.file = Some(open_for_append(&fresh));
                fs::rename(fresh, &self.path).unwrap();
            }
            Rotate::Recreate => {
                self.delete();
                self.reopen();
            }
            Rotate::CopyTruncate => {
                self.shift_old();
                fs::copy(&self.path, with_suffix(&self.path, ".1")).unwrap();
                self.truncate();
            }
        }
    }

    /// Renames the file. The writer keeps its handle, so that what it writes
    /// goes to the renamed file until [`Log::reopen`].
    pub fn rename_to(&self, path: impl AsRef<Path>) {
        fs::rename(&self.path, path).unwrap();
    }

    /// Opens the file under its path, as a writer does after SIGHUP.
    pub fn reopen(&mut self) {
        self.file = Some(open_for_append(&self.path));
    }

    /// Empties the file in place.
    pub fn truncate(&mut self) {
        let file = self.file.as_ref().expect("a log that was written");
        file.set_len(0).unwrap();
    }

    /// Removes the name. The writer keeps its handle until [`Log::reopen`].
    pub fn delete(&mut self) {
        fs::remove_file(&self.path).unwrap();
    }

    /// Points the path, which is or becomes a symbolic link, at `target`.
    pub fn point_at(&mut self, target: &Log) {
        let fresh = with_suffix(&self.path, ".link");
        symlink(&target.path, &fresh).unwrap();
        fs::rename(fresh, &self.path).unwrap();
    }

    /// Gives the file another name, without taking the old one.
    pub fn link_to(&self, path: impl AsRef<Path>) {
        fs::hard_link(&self.path, path).unwrap();
    }

    /// Sets the permission bits of the file.
    pub fn chmod(&self, mode: u32) {
        fs::set_permissions(&self.path, Permissions::from_mode(mode)).unwrap();
    }

    /// Bytes of the file that is open, whatever its name is by now.
    pub fn size(&self) -> u64 {
        self.metadata().len()
    }

    /// Inode of the file that is open.
    pub fn inode(&self) -> u64 {
        self.metadata().ino()
    }

    fn metadata(&self) -> fs::Metadata {
        let file = self.file.as_ref().expect("a log that was written");
        file.metadata().unwrap()
    }

    /// `.2` becomes `.3`, `.1` becomes `.2`.
    fn shift_old(&self) {
        let old = |n: usize| with_suffix(&self.path, &format!(".{n}"));
        let count = (1..).take_while(|n| old(*n).exists()).count();
        for n in (1..=count).rev() {
            fs::rename(old(n), old(n + 1)).unwrap();
        }
    }
}

fn open_for_append(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.append(true).create(true).open(path).unwrap()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn with_ends<L: AsRef<[u8]>>(lines: impl IntoIterator<Item = L>, end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend_from_slice(line.as_ref());
        bytes.extend_from_slice(end);
    }
    bytes
}

impl From<&Log> for OsString {
    fn from(log: &Log) -> OsString {
        log.path.clone().into()
    }
}

impl From<&mut Log> for OsString {
    fn from(log: &mut Log) -> OsString {
        log.path.clone().into()
    }
}

/// What a command gets on standard input.
enum Input {
    /// /dev/null.
    Nothing,
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// A pipe that the test writes to.
    Pipe,
}

/// A command line that has not been started.
pub struct Logship {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Input,
    nobody: bool,
    dir: PathBuf,
}

impl Logship {
    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Logship {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Logship {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// `--once`.
    pub fn once(self) -> Logship {
        self.arg("--once")
    }

    /// `--from beginning`.
    pub fn since_beginning(self) -> Logship {
        self.args(["--from", "beginning"])
    }

    /// `--state-dir` with the world's [`World::state_dir`].
    pub fn with_state(self) -> Logship {
        let state_dir = self.dir.join("state");
        self.arg("--state-dir").arg(state_dir)
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Logship {
        self.env.push((name.into(), value.into()));
        self
    }

    /// These bytes on standard input, then its end.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Logship {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    /// A pipe on standard input, see [`Shipper::feed`].
    pub fn piped_stdin(mut self) -> Logship {
        self.stdin = Input::Pipe;
        self
    }

    /// Another program in front, such as `nohup`, that becomes logship.
    pub fn through(mut self, program: &str) -> Logship {
        let inner = std::mem::replace(&mut self.program, program.into());
        self.args.insert(0, inner);
        self
    }

    /// Arguments before all others.
    pub fn prefixed<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Logship {
        self.args.splice(0..0, args.into_iter().map(Into::into));
        self
    }

    /// Another program instead, such as a shell with logship in its script.
    pub fn instead(mut self, program: &str) -> Logship {
        self.program = program.into();
        self
    }

    /// Runs as the user nobody when the test runs as root, who may do anything.
    pub fn unprivileged(mut self) -> Logship {
        if rustix::process::geteuid().is_root() {
            // The build directory may be closed to others; the world is not.
            let ours = self.dir.join("logship");
            if !ours.exists() && fs::hard_link(&self.program, &ours).is_err() {
                fs::copy(&self.program, &ours).unwrap();
            }
            self.program = ours.into();
            self.nobody = true;
            let home = self.dir.join("home");
            fs::set_permissions(home, Permissions::from_mode(0o777)).unwrap();
        }
        self
    }

    /// Has a disk that fills up when the test says so, see [`Shipper::fill_disk`].
    pub fn can_fill_disk(mut self) -> Logship {
        // Without this, the signal that comes with the error would end it.
        let script = r#"trap "" XFSZ; exec "$0" "$@""#;
        let program = std::mem::replace(&mut self.program, "sh".into());
        self.args
            .splice(0..0, ["-c".into(), script.into(), program]);
        self
    }

    /// Starts it and lets it run.
    #[track_caller]
    pub fn start(self) -> Shipper {
        let line = self.to_string();
        let mut child =
            spawn(self.command()).unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        let seen = Arc::new(Seen::default());
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (out, err) = (Arc::clone(&seen), Arc::clone(&seen));
        thread::spawn(move || out.collect_stdout(stdout));
        thread::spawn(move || err.collect_stderr(stderr));
        let mut shipper = Shipper {
            child,
            line,
            dir: self.dir,
            seen,
        };
        if let Input::Bytes(bytes) = self.stdin {
            let mut stdin = shipper.child.stdin.take().expect("stdin is piped");
            // Whoever hangs up early does not want the rest.
            thread::spawn(move || stdin.write_all(&bytes));
        }
        shipper
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn run(self) -> Ended {
        self.start().ends()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.dir);
        for (name, _) in std::env::vars_os() {
            let name_bytes = name.as_encoded_bytes();
            if name_bytes.starts_with(b"LOGSHIP_") || name_bytes.starts_with(b"RUST_") {
                command.env_remove(name);
            }
        }
        for name in ["NO_COLOR", "CLICOLOR_FORCE", "FORCE_COLOR"] {
            command.env_remove(name);
        }
        command.env("HOME", self.dir.join("home"));
        command.env("XDG_STATE_HOME", self.dir.join("home/state"));
        command.env("XDG_CONFIG_HOME", self.dir.join("home/config"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if self.nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.stdin(match self.stdin {
            Input::Nothing => Stdio::null(),
            Input::Bytes(_) | Input::Pipe => Stdio::piped(),
        });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl std::fmt::Display for Logship {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let program = Path::new(&self.program).file_name().unwrap_or_default();
        write!(f, "{}", program.display())?;
        for arg in &self.args {
            match arg.as_encoded_bytes().iter().all(u8::is_ascii_graphic) && !arg.is_empty() {
                true => write!(f, " {}", arg.display())?,
                false => write!(f, " {arg:?}")?,
            }
        }
        Ok(())
    }
}

/// Starts a program. One that was just copied is busy for as long as a process
/// that another test forks at this moment has not let go of our writing handle.
fn spawn(mut command: Command) -> io::Result<Child> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && Instant::now() < deadline =>
            {
                thread::sleep(LOOK_EVERY);
            }
            done => return done,
        }
    }
}

/// What a running command has said so far.
#[derive(Default)]
struct Seen {
    state: Mutex<Said>,
    changed: Condvar,
}

#[derive(Default)]
struct Said {
    /// Complete lines nobody has asked for yet, and how many were asked for.
    lines: VecDeque<Vec<u8>>,
    taken: usize,
    /// The end of standard output that is not a line yet.
    rest: Vec<u8>,
    stderr: Vec<u8>,
    reading: Reading,
    stdout_ended: bool,
    stderr_ended: bool,
}

/// What the reader of standard output does.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Reading {
    #[default]
    On,
    Paused,
    HungUp,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect_stdout(&self, mut pipe: ChildStdout) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let mut said = self.lock();
            while said.reading == Reading::Paused {
                said = self.wait(said, DEADLINE);
            }
            if said.reading == Reading::HungUp {
                break;
            }
            drop(said);
            if !is_readable(&pipe) {
                continue;
            }
            match pipe.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => self.take_stdout(&buffer[..count]),
            }
        }
        drop(pipe);
        self.lock().stdout_ended = true;
        self.changed.notify_all();
    }

    fn take_stdout(&self, bytes: &[u8]) {
        let mut said = self.lock();
        said.rest.extend_from_slice(bytes);
        if bytes.contains(&b'\n') {
            let rest = std::mem::take(&mut said.rest);
            let mut pieces: Vec<&[u8]> = rest.split(|byte| *byte == b'\n').collect();
            said.rest = pieces.pop().unwrap_or_default().to_vec();
            said.lines.extend(pieces.into_iter().map(<[u8]>::to_vec));
        }
        self.changed.notify_all();
    }

    fn collect_stderr(&self, mut pipe: ChildStderr) {
        let mut buffer = vec![0; 4 << 10];
        while let Ok(count) = pipe.read(&mut buffer) {
            if count == 0 {
                break;
            }
            self.lock().stderr.extend_from_slice(&buffer[..count]);
            self.changed.notify_all();
        }
        self.lock().stderr_ended = true;
        self.changed.notify_all();
    }

    fn wait<'a>(&self, said: MutexGuard<'a, Said>, limit: Duration) -> MutexGuard<'a, Said> {
        let (said, _) = self
            .changed
            .wait_timeout(said, limit)
            .unwrap_or_else(PoisonError::into_inner);
        said
    }

    /// Waits until `enough`, for `limit` at most; true when it came to that.
    fn wait_until(&self, limit: Duration, mut enough: impl FnMut(&mut Said) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut said = self.lock();
        loop {
            if enough(&mut said) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            said = self.wait(said, left);
        }
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.lock().stderr).into_owned()
    }
}

/// Whether there is something to read, or the end, within a moment.
fn is_readable(pipe: &ChildStdout) -> bool {
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    let mut fds = [PollFd::new(pipe, PollFlags::IN)];
    poll(&mut fds, Some(&moment)).is_ok_and(|count| count > 0)
}

/// A running logship. It is killed when it is dropped.
pub struct Shipper {
    child: Child,
    line: String,
    dir: PathBuf,
    seen: Arc<Seen>,
}

impl Shipper {
    /// Waits for exactly these lines to come next on standard output.
    #[track_caller]
    pub fn delivers<L: AsRef<[u8]>>(&self, lines: impl IntoIterator<Item = L>) {
        let expected = owned(lines);
        let mut right = 0;
        let arrived = self.seen.wait_until(DEADLINE, |said| {
            let more = said.lines.iter().zip(&expected).skip(right);
            right += more.take_while(|(got, expected)| got == expected).count();
            right == expected.len() || said.lines.len() > right || said.stdout_ended
        });
        let mut said = self.seen.lock();
        if right == expected.len() {
            said.lines.drain(..right);
            said.taken += right;
            return;
        }
        let got: Vec<Vec<u8>> = said.lines.iter().cloned().collect();
        let taken = said.taken;
        drop(said);
        let why = if arrived { "" } else { ", and waited in vain" };
        self.fail(&format!(
            "line {} of {} (line {} of the run) is not as expected{why}\n{}",
            right + 1,
            expected.len(),
            taken + right + 1,
            difference(&expected, &got, right),
        ));
    }

    /// Waits for exactly these lines to come next, in whatever order.
    #[track_caller]
    pub fn delivers_in_any_order<L: AsRef<[u8]>>(&self, lines: impl IntoIterator<Item = L>) {
        let expected = owned(lines);
        let got = self.next_lines(expected.len());
        self.check_same(expected, got);
    }

    /// Waits for all of these lines, and takes what else comes meanwhile:
    /// whatever came twice or came before. Returns how much that was.
    #[track_caller]
    pub fn delivers_at_least<L: AsRef<[u8]>>(&self, lines: impl IntoIterator<Item = L>) -> usize {
        let mut missing = counted(owned(lines));
        let mut surplus = 0;
        self.seen.wait_until(DEADLINE, |said| {
            for line in std::mem::take(&mut said.lines) {
                said.taken += 1;
                surplus += usize::from(missing.remove(&line).is_none());
            }
            missing.is_empty() || said.stdout_ended
        });
        if !missing.is_empty() {
            let first = shown(missing.keys());
            self.fail(&format!("{} lines are missing:\n{first}", missing.len()));
        }
        surplus
    }

    /// Waits for this many lines, whatever they are.
    #[track_caller]
    pub fn next_lines(&self, count: usize) -> Vec<Vec<u8>> {
        self.seen.wait_until(DEADLINE, |said| {
            said.lines.len() >= count || said.stdout_ended
        });
        let mut said = self.seen.lock();
        if said.lines.len() < count {
            let got: Vec<Vec<u8>> = said.lines.iter().cloned().collect();
            drop(said);
            let lines = shown(&got);
            self.fail(&format!(
                "expected {count} lines, got {}:\n{lines}",
                got.len()
            ));
        }
        said.taken += count;
        said.lines.drain(..count).collect()
    }

    #[track_caller]
    fn check_same(&self, expected: Vec<Vec<u8>>, got: Vec<Vec<u8>>) {
        let (mut expected, mut got) = (counted(expected), counted(got));
        for (line, count) in &mut expected {
            let both = got.get(line).copied().unwrap_or(0).min(*count);
            *count -= both;
            got.entry(line.clone()).and_modify(|count| *count -= both);
        }
        expected.retain(|_, count| *count > 0);
        got.retain(|_, count| *count > 0);
        if !expected.is_empty() || !got.is_empty() {
            let (missing, extra) = (shown(expected.keys()), shown(got.keys()));
            self.fail(&format!("missing:\n{missing}too many:\n{extra}"));
        }
    }

    /// Nothing comes for this long. Prefer to deliver something else next: that
    /// proves the same and does not take its time.
    #[track_caller]
    pub fn quiet_for(&self, pause: Duration) {
        if self.seen.wait_until(pause, |said| !said.lines.is_empty()) {
            let got: Vec<Vec<u8>> = self.seen.lock().lines.iter().cloned().collect();
            self.fail(&format!("expected no line, got:\n{}", shown(&got)));
        }
    }

    /// Writes probes until one comes out, so that from now on every line written
    /// must come out too: also with `--from end`, which begins nobody knows when.
    #[track_caller]
    pub fn awake(&self, log: &mut Log) {
        let mut last = Vec::new();
        let deadline = Instant::now() + DEADLINE;
        for n in 0.. {
            last = format!("probe {n}").into_bytes();
            log.write([&last]);
            let moment = Duration::from_millis(50);
            if self.seen.wait_until(moment, |said| !said.lines.is_empty()) {
                break;
            }
            if Instant::now() > deadline || self.seen.lock().stdout_ended {
                self.fail(&format!("{n} probes were written and none came out"));
            }
        }
        loop {
            let line = self.next_lines(1).remove(0);
            if line == last {
                return;
            }
            if !line.starts_with(b"probe ") {
                self.fail(&format!("expected a probe, got:\n{}", shown([&line])));
            }
        }
    }

    /// Waits until standard error holds `text`, and returns the line with it.
    #[track_caller]
    pub fn says(&self, text: &str) -> String {
        self.says_line(&format!("'{text}'"), |line| line.contains(text))
    }

    /// Waits for a line on standard error for which `fits`; `what` describes it.
    #[track_caller]
    pub fn says_line(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let mut found = None;
        self.seen.wait_until(DEADLINE, |said| {
            let text = String::from_utf8_lossy(&said.stderr);
            let whole = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            found = whole
                .map(str::trim_end)
                .find(|line| fits(line))
                .map(str::to_owned);
            found.is_some() || said.stderr_ended
        });
        match found {
            Some(line) => line,
            None => self.fail(&format!("standard error never said {what}")),
        }
    }

    /// What standard error holds by now.
    pub fn stderr(&self) -> String {
        self.seen.stderr()
    }

    /// What has come on standard error after its first `at` bytes, in whole lines.
    pub fn stderr_since(&self, at: usize) -> String {
        let said = self.seen.lock();
        let new = &said.stderr[at..];
        let end = new.iter().rposition(|byte| *byte == b'\n');
        String::from_utf8_lossy(&new[..end.map_or(0, |end| end + 1)]).into_owned()
    }

    /// Stops reading standard output: its pipe fills, and logship has to wait.
    pub fn pause_reading(&self) {
        self.read_on(Reading::Paused);
    }

    /// Reads on after [`Shipper::pause_reading`].
    pub fn resume_reading(&self) {
        self.read_on(Reading::On);
    }

    /// Closes the reading end of standard output, like `head -1` does.
    #[track_caller]
    pub fn hang_up(&self) {
        self.read_on(Reading::HungUp);
        if !self.seen.wait_until(DEADLINE, |said| said.stdout_ended) {
            self.fail("standard output was not closed");
        }
    }

    fn read_on(&self, reading: Reading) {
        self.seen.lock().reading = reading;
        self.seen.changed.notify_all();
    }

    /// Writes to its standard input, see [`Logship::piped_stdin`].
    pub fn feed(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.child.stdin.as_mut().expect("started with a pipe");
        stdin.write_all(bytes.as_ref()).unwrap();
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// From now on it cannot write a byte to any file, as if every disk were full.
    /// It is the limit of a file's size that is met (EFBIG): that takes neither a
    /// file system of one's own nor the right to mount it.
    pub fn fill_disk(&self) {
        self.limit_files(Some(0));
    }

    /// There is room again.
    pub fn empty_disk(&self) {
        self.limit_files(None);
    }

    fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, limit).unwrap();
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.ends()
    }

    /// SIGKILL, and waits for the end.
    #[track_caller]
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.ends()
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn ends(mut self) -> Ended {
        let status = self.waits_for("it to end", |shipper| shipper.child.try_wait().unwrap());
        if self.seen.lock().reading == Reading::Paused {
            self.resume_reading();
        }
        // Nobody else has the other ends of the pipes, so they end as well.
        let ended = self
            .seen
            .wait_until(DEADLINE, |said| said.stdout_ended && said.stderr_ended);
        if !ended {
            self.fail("it ended, but its standard output or error did not");
        }
        let mut said = self.seen.lock();
        let mut stdout = with_ends(std::mem::take(&mut said.lines), b"\n");
        stdout.append(&mut said.rest);
        Ended {
            status,
            stdout,
            stderr: String::from_utf8_lossy(&said.stderr).into_owned(),
            line: self.line.clone(),
        }
    }

    /// Looks until `look` finds something, and fails when it never does.
    #[track_caller]
    pub fn waits_for<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            if Instant::now() > deadline {
                self.fail(&format!("waited for {what} in vain"));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether it has ended, see [`Shipper::ends`].
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes it has read so far from whatever it reads.
    pub fn bytes_read(&self) -> u64 {
        self.proc_figure("io", "rchar:")
    }

    /// Waits until it has read this many bytes from whatever it reads.
    #[track_caller]
    pub fn has_read(&mut self, bytes: u64) {
        self.waits_for(&format!("{bytes} bytes to be read"), |shipper| {
            (shipper.proc_figure("io", "rchar:") >= bytes).then_some(())
        });
    }

    /// The most memory it ever used at once, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.proc_figure("status", "VmHWM:") * 1024
    }

    fn proc_figure(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.pid())).unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What its open handles point at, as /proc says it: a deleted file's path
    /// is followed by " (deleted)".
    pub fn open_files(&self) -> Vec<PathBuf> {
        let handles = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let target = |entry: io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
        handles.filter_map(target).collect()
    }

    /// Waits until it has a handle open whose path, as [`Shipper::open_files`]
    /// gives it, fits; or none.
    #[track_caller]
    pub fn has_open(&mut self, yes: bool, fits: impl Fn(&Path) -> bool) {
        self.waits_for("its open files to fit", |shipper| {
            (shipper.open_files().iter().any(|path| fits(path)) == yes).then_some(())
        });
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        panic!(
            "{what}\n--- command: {}\n--- running: {}\n--- open files:\n{}--- standard error:\n{}\n--- files:\n{}",
            self.line,
            Path::new(&format!("/proc/{}/exe", self.pid())).exists(),
            fs::read_dir(format!("/proc/{}/fd", self.pid()))
                .map(|_| shown_paths(&self.open_files()))
                .unwrap_or_default(),
            self.seen.stderr(),
            listing(&self.dir),
        );
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        self.read_on(Reading::HungUp);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A run that is over.
#[derive(Debug)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// What came on standard output and was not taken before.
    pub stdout: Vec<u8>,
    /// Everything that came on standard error.
    pub stderr: String,
    line: String,
}

impl Ended {
    /// It exited with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Ended {
        if self.status.code() != Some(code) {
            self.fail(&format!("expected exit code {code}, got {}", self.how()));
        }
        self
    }

    /// Standard output is exactly these lines.
    #[track_caller]
    pub fn printed<L: AsRef<[u8]>>(self, lines: impl IntoIterator<Item = L>) -> Ended {
        let expected = owned(lines);
        let got = self.lines();
        if let Some(at) = first_difference(&expected, &got) {
            self.fail(&format!(
                "line {} is not as expected\n{}",
                at + 1,
                difference(&expected, &got, at)
            ));
        }
        if self.stdout.last().is_some_and(|last| *last != b'\n') {
            self.fail("standard output does not end with a line end");
        }
        self
    }

    /// Standard error holds this text.
    #[track_caller]
    pub fn said(self, text: &str) -> Ended {
        if !self.stderr.contains(text) {
            self.fail(&format!("standard error does not say '{text}'"));
        }
        self
    }

    /// Standard error does not hold this text.
    #[track_caller]
    pub fn never_said(self, text: &str) -> Ended {
        if self.stderr.contains(text) {
            self.fail(&format!("standard error says '{text}'"));
        }
        self
    }

    /// The lines of standard output, also a last one without an end.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = self.stdout.split(|b| *b == b'\n').map(Vec::from).collect();
        if lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        lines
    }

    /// The lines of standard output that have an end: all that a killed run delivered.
    pub fn whole_lines(&self) -> Vec<Vec<u8>> {
        let end = self
            .stdout
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let whole = self.stdout[..end].split_inclusive(|b| *b == b'\n');
        whole.map(|line| line[..line.len() - 1].to_vec()).collect()
    }

    /// The figures of the summary line: the last one on standard error that has them all.
    #[track_caller]
    pub fn summary(&self) -> Figures {
        match Figures::last_in(&self.stderr) {
            Some(figures) => figures,
            None => self.fail("there is no line with read=, acked=, dropped= and lag="),
        }
    }

    /// The losses that were reported.
    pub fn losses(&self) -> Vec<Loss> {
        self.stderr.lines().filter_map(Loss::in_line).collect()
    }

    /// The ranges that were given up by choice, as they were told.
    pub fn drops(&self) -> Vec<Loss> {
        let told = self.stderr.lines();
        told.filter_map(Loss::by_choice_in_line).collect()
    }

    /// Fails with everything that is known of the run.
    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        panic!(
            "{what}\n--- command: {}\n--- ended: {}\n--- standard output, {} bytes:\n{}--- standard error:\n{}",
            self.line,
            self.how(),
            self.stdout.len(),
            shown(&self.lines()),
            self.stderr
        );
    }

    fn how(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (_, Some(signal)) => format!("signal {signal}"),
            _ => self.status.to_string(),
        }
    }
}

/// The figures of the ten-second line and of the summary line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub read: u64,
    pub acked: u64,
    pub dropped: u64,
    pub lag: u64,
}

impl Figures {
    /// The figures in a line that has all of them.
    pub fn in_line(line: &str) -> Option<Figures> {
        Some(Figures {
            read: figure(line, "read")?,
            acked: figure(line, "acked")?,
            dropped: figure(line, "dropped")?,
            lag: figure(line, "lag_bytes").or_else(|| figure(line, "lag"))?,
        })
    }

    /// Those of the last line that has them.
    pub fn last_in(text: &str) -> Option<Figures> {
        text.lines().rev().find_map(Figures::in_line)
    }
}

/// A message that something was lost: one line with path, inode, from, to, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    pub inode: u64,
    pub from: u64,
    pub to: u64,
    pub bytes: u64,
    pub line: String,
}

impl Loss {
    /// What a line tells of a loss, if it tells of one.
    pub fn in_line(line: &str) -> Option<Loss> {
        Loss::told_as("lost path=", line)
    }

    /// What a line tells of bytes that were given up by choice, if it tells of some.
    pub fn by_choice_in_line(line: &str) -> Option<Loss> {
        Loss::told_as("dropped path=", line)
    }

    fn told_as(words: &str, line: &str) -> Option<Loss> {
        without_quoted(line).contains(words).then_some(())?;
        Some(Loss {
            inode: figure(line, "inode")?,
            from: figure(line, "from")?,
            to: figure(line, "to")?,
            bytes: figure(line, "bytes")?,
            line: line.to_owned(),
        })
    }
}

/// A line without what is in quotes after a `key=`: anything may stand there.
fn without_quoted(line: &str) -> String {
    let (mut plain, mut rest) = (String::new(), line);
    while let Some((before, quoted)) = rest.split_once("=\"") {
        plain.push_str(before);
        plain.push('=');
        let mut escaped = false;
        let end = quoted.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        rest = end.map_or("", |end| &quoted[end + 1..]);
    }
    plain + rest
}

/// The number after `key=`, where `key` is a whole word.
pub fn figure(line: &str, key: &str) -> Option<u64> {
    let line = &*without_quoted(line);
    let mut from = 0;
    while let Some(at) = line[from..].find(key) {
        let (before, after) = (&line[..from + at], &line[from + at + key.len()..]);
        from += at + key.len();
        let whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if let Some(value) = after.strip_prefix('=').filter(|_| whole) {
            let digits = value
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(value.len());
            return value[..digits].parse().ok();
        }
    }
    None
}

fn owned<L: AsRef<[u8]>>(lines: impl IntoIterator<Item = L>) -> Vec<Vec<u8>> {
    lines
        .into_iter()
        .map(|line| line.as_ref().to_vec())
        .collect()
}

fn counted(lines: Vec<Vec<u8>>) -> BTreeMap<Vec<u8>, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line).or_default() += 1;
    }
    counts
}

fn first_difference(expected: &[Vec<u8>], got: &[Vec<u8>]) -> Option<usize> {
    let same = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
    (same < expected.len() || same < got.len()).then_some(same)
}

fn difference(expected: &[Vec<u8>], got: &[Vec<u8>], at: usize) -> String {
    let from = at.saturating_sub(2);
    format!(
        "expected, from line {}:\n{}got, {} lines, from line {}:\n{}",
        from + 1,
        shown(expected.iter().skip(from)),
        got.len(),
        from + 1,
        shown(got.iter().skip(from)),
    )
}

/// The first lines, escaped and cut so that they can be read.
fn shown<'a>(lines: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    let mut text = String::new();
    for (n, line) in lines.into_iter().enumerate() {
        if n == 8 {
            text.push_str("    ...\n");
            break;
        }
        let cut = line.len().min(120);
        let more = if cut < line.len() { "..." } else { "" };
        let (bytes, length) = (line[..cut].escape_ascii(), line.len());
        let _ = writeln!(text, "    \"{bytes}\"{more} ({length} bytes)");
    }
    if text.is_empty() {
        text.push_str("    (none)\n");
    }
    text
}

fn shown_paths(paths: &[PathBuf]) -> String {
    let lines = paths.iter().map(|path| format!("    {path:?}\n"));
    lines.collect()
}

/// Every file below `dir` with its size and inode, for a person whose test failed.
pub fn listing(dir: &Path) -> String {
    let mut text = String::new();
    for path in walk(dir) {
        let name = path.strip_prefix(dir).unwrap_or(&path);
        let _ = match fs::symlink_metadata(&path) {
            Ok(meta) => writeln!(
                text,
                "    {:o} {:>9} bytes, inode {}: {name:?}",
                meta.mode(),
                meta.len(),
                meta.ino()
            ),
            Err(error) => writeln!(text, "    {name:?}: {error}"),
        };
    }
    text
}

/// A name that is not UTF-8.
pub fn bytes_name(bytes: &[u8]) -> OsString {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(bytes).to_owned()
}
