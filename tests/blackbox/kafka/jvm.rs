//! Java programs from Kafka's jars, each in a directory of its own, where it can be
//! killed and started again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, Properties, service_file, text_of};

/// The file with a program's properties, in its directory.
pub const CONFIG: &str = "server.properties";
/// What a server says goes there, by the log4j properties that it is given.
const LOG: &str = "server.log";
const OUTPUT: &str = "output.log";
/// As much of a log as a person wants to read in a failed test.
const LOG_LINES: usize = 12;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The Kafkas that people run, and one that few still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The newest.
    V4_3,
    /// The last that takes the oldest requests.
    V3_9,
    /// One of the many that still have a ZooKeeper.
    V2_8,
    /// The last that knows no record batches.
    V0_10,
}

impl Version {
    /// Whether its metadata is in ZooKeeper.
    pub fn needs_zookeeper(self) -> bool {
        matches!(self, Version::V2_8 | Version::V0_10)
    }

    /// The version in which Metadata is asked: one that tells of brokers alone.
    pub fn metadata(self) -> i16 {
        match self {
            Version::V0_10 => 1,
            _ => 8,
        }
    }

    fn class_path(self) -> String {
        let name = match self {
            Version::V4_3 => "LOGSHIP_TEST_KAFKA_LIBS",
            Version::V3_9 => "LOGSHIP_TEST_KAFKA_39_LIBS",
            Version::V2_8 => "LOGSHIP_TEST_KAFKA_28_LIBS",
            Version::V0_10 => "LOGSHIP_TEST_KAFKA_010_LIBS",
        };
        format!("{}/*", variable(name))
    }

    /// Kafka 4 has moved on to another logging library.
    fn logging(self) -> String {
        let (property, file) = match self {
            Version::V4_3 => ("log4j2.configurationFile=", "log4j2.properties"),
            Version::V3_9 | Version::V2_8 | Version::V0_10 => {
                ("log4j.configuration=file:", "log4j.properties")
            }
        };
        format!("-D{property}{}", service_file(file).display())
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set: run tests/run"))
}

/// What runs.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    Kafka,
    ZooKeeper,
}

impl Program {
    fn class(self) -> &'static str {
        match self {
            Program::Kafka => "kafka.Kafka",
            Program::ZooKeeper => "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        }
    }
}

/// A program and its directory. It is killed when this is dropped.
pub struct Jvm {
    version: Version,
    program: Program,
    dir: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Jvm {
    /// Not started yet.
    pub fn new(version: Version, program: Program, dir: PathBuf) -> Jvm {
        fs::create_dir(&dir).unwrap();
        Jvm {
            version,
            program,
            dir,
            child: Mutex::new(None),
        }
    }

    /// Writes its properties.
    pub fn configure(&self, properties: &Properties) {
        fs::write(self.dir.join(CONFIG), properties.to_string()).unwrap();
    }

    /// Starts it and waits for nothing.
    pub fn launch(&self) {
        // The last start's words would be taken for this one's.
        let _ = fs::write(self.dir.join(LOG), "");
        let child = self.start_tool(self.program.class(), &[CONFIG.to_owned()]);
        *self.child.lock().unwrap() = Some(child);
    }

    /// Starts another program in its directory.
    pub fn start_tool(&self, class: &str, args: &[String]) -> Child {
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join(OUTPUT))
            .unwrap();
        let mut command = self.command(class, args);
        command.stdout(output.try_clone().unwrap()).stderr(output);
        spawn(command)
    }

    /// Runs another program in its directory to its end: what it said if it failed.
    pub fn run_tool(&self, class: &str, args: &[String]) -> Result<(), String> {
        let out = self.command(class, args).output();
        let out = out.expect("setpriv is there: run tests/run");
        let said = [out.stdout, out.stderr].concat();
        match out.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&said).into_owned()),
        }
    }

    fn command(&self, class: &str, args: &[String]) -> Command {
        // The kernel kills it when the tests die without having been able to end it.
        // It has a low priority: other tests may be in a hurry, and a start takes a
        // core for seconds.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "nice", "-n", "5"])
            .arg(variable("LOGSHIP_TEST_JAVA"))
            // A small heap, the smallest collector, and only the quick compiler.
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Xshare:auto", "-XX:-UsePerfData"])
            .arg(format!("-Djava.io.tmpdir={}", self.dir.display()))
            .arg(self.version.logging())
            .args(["-cp", &self.version.class_path(), class])
            .args(args)
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        command
    }

    /// SIGKILL.
    pub fn kill(&self) {
        let mut child = self.take();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&self) {
        self.signal(Signal::TERM);
        let mut child = self.take();
        let deadline = Instant::now() + DEADLINE;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("it does not stop:\n{}", self.log_end());
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn take(&self) -> Child {
        let child = self.child.lock().unwrap().take();
        child.expect("a program that runs")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.lock().unwrap();
        let child = child.as_ref().expect("a program that runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap();
        let ended = child.as_mut().map(|child| child.try_wait().unwrap());
        ended.flatten().is_some()
    }

    /// What it has said since its last start.
    pub fn log(&self) -> String {
        text_of(self.dir.join(LOG))
    }

    /// The end of what it said, for a person.
    pub fn log_end(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default().display();
        let end = |path: &Path| {
            let text = text_of(path);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
        };
        let (output, log) = (end(&self.dir.join(OUTPUT)), end(&self.dir.join(LOG)));
        format!("--- {name}, output:\n{output}\n--- {name}, log:\n{log}\n")
    }
}

impl Drop for Jvm {
    fn drop(&mut self) {
        let child = self.child.lock().ok().and_then(|mut child| child.take());
        if let Some(mut child) = child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a program that goes on when the thread ends that wanted it: to the kernel
/// the *thread* is its parent, so this one ends with the process only.
fn spawn(mut command: Command) -> Child {
    let (sender, started) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(command.spawn());
        loop {
            thread::park();
        }
    });
    let child = started.recv().expect("the thread lives");
    child.expect("setpriv is there: run tests/run")
}
