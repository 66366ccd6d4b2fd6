//! A writer of several files, `logship run` that ships them to a topic, and somebody
//! who watches the acknowledgements.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use super::fault::Struck;
use super::outcome::Outcome;
use crate::daemon::{config, source};
use crate::kafka::{DEADLINE, Kafka, Topic};
use crate::world::{Log, Shipper, World};

/// Files, each with a partition of its own most of the time.
pub const FILES: usize = 4;
const PARTITIONS: i32 = 6;
/// A thousand lines a second in all.
const LINES: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);
/// How often the acknowledgements are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines flow for as long before a fault and after it.
const CALM: Duration = Duration::from_millis(1500);

/// All of it, running.
pub struct Scene<'a> {
    pub kafka: &'a Kafka,
    topic: Topic,
    world: Arc<World>,
    shipper: Shipper,
    writer: Writer,
    watch: Watch,
    /// Bytes that logship had said before the fault.
    said: usize,
}

impl<'a> Scene<'a> {
    /// Lines flow, nothing has happened yet.
    pub fn begin(kafka: &'a Kafka) -> Scene<'a> {
        let world = Arc::new(World::new());
        let topic = Topic::at(&kafka.addresses());
        kafka.create_topic(&topic.name, PARTITIONS, &[]);
        let mut config = config(json!([source("*.log", &topic.name)]));
        config["kafka"] = json!({ "brokers": [kafka.addresses()] });
        let logs = (0..FILES).map(|file| world.log(format!("{file}.log")));
        let writer = Writer::begin(logs.collect());
        let shipper = world.run(&config).start();
        let mut scene = Scene {
            kafka,
            topic,
            shipper,
            writer,
            watch: Watch::begin(&world),
            world,
            said: 0,
        };
        scene.acknowledges(&[LINES; FILES]);
        thread::sleep(CALM);
        scene.watch.forget();
        scene.said = scene.shipper.stderr().len();
        scene
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic.name
    }

    /// Makes the topic again.
    pub fn create_topic(&self) {
        self.kafka.create_topic(self.topic(), PARTITIONS, &[]);
    }

    /// A node that leads a partition which lines go to.
    pub fn leader(&self) -> i32 {
        // Asked for all of them, kcat would not end while lines come.
        let written = self.topic.kcat(&["-c", "1", "-f", "%p"]).unwrap();
        let written: i32 = String::from_utf8(written).unwrap().parse().unwrap();
        let all = self.kafka.partitions(self.topic());
        let part = all.into_iter().find(|part| part.index == written);
        part.unwrap().leader
    }

    /// For each file, how many of its lines are acknowledged.
    pub fn acked(&self) -> Vec<usize> {
        self.watch.acked()
    }

    /// Waits until logship has said this since the fault began.
    #[track_caller]
    pub fn says(&self, text: &str) {
        self.shipper.says(text);
    }

    /// Waits until everything is acknowledged that was written by now, when the fault
    /// is over.
    #[track_caller]
    pub fn recovers(&self, over: Instant) -> Struck {
        self.acknowledges(&self.writer.written());
        Struck {
            recovery: over.elapsed(),
            deleted: vec![0; FILES],
        }
    }

    /// Waits until so many lines of each file are acknowledged.
    #[track_caller]
    fn acknowledges(&self, lines: &[usize]) {
        let deadline = Instant::now() + DEADLINE;
        let short = |acked: &[usize]| acked.iter().zip(lines).any(|(acked, all)| acked < all);
        while short(&self.acked()) {
            assert!(
                Instant::now() < deadline,
                "{:?} of {lines:?} lines are acknowledged\n{}\n{}",
                self.acked(),
                self.shipper.stderr(),
                self.kafka.logs()
            );
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Lets lines flow a while longer, ends everything, and compares.
    #[track_caller]
    pub fn end(mut self, struck: Struck) -> Outcome {
        thread::sleep(CALM);
        self.writer.end();
        self.acknowledges(&self.writer.written());
        let longest_stall = self.watch.end();
        let ended = self.shipper.stop().exits(0);
        let mut outcome = Outcome {
            longest_stall,
            recovery: struck.recovery,
            messages: messages(&ended.stderr[self.said..]),
            ..Outcome::of(&self.topic, &self.writer.written(), &struck.deleted)
        };
        outcome.mask(&self.kafka.addresses(), &self.topic.name);
        drop(self.world);
        outcome
    }
}

/// The warnings and errors.
fn messages(said: &str) -> Vec<String> {
    let grave = |line: &&str| line.contains("[WARN]") || line.contains("[ERROR]");
    let without_time = |line: &str| {
        line.split_once(' ')
            .map_or(line, |(_, rest)| rest)
            .to_owned()
    };
    said.lines().filter(grave).map(without_time).collect()
}

/// Appends numbered lines to all files in turn, steadily.
struct Writer {
    written: Arc<[AtomicUsize; FILES]>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn begin(mut logs: Vec<Log>) -> Writer {
        let written = Arc::new([const { AtomicUsize::new(0) }; FILES]);
        let counts = Arc::clone(&written);
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                for (file, log) in logs.iter_mut().enumerate() {
                    let first = counts[file].load(Ordering::SeqCst);
                    log.write((first..first + LINES).map(|number| line(file, number)));
                    counts[file].store(first + LINES, Ordering::SeqCst);
                }
            }
        });
        Writer {
            written,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// For each file, how many lines it has.
    fn written(&self) -> Vec<usize> {
        let counts = self.written.iter();
        counts.map(|count| count.load(Ordering::SeqCst)).collect()
    }

    fn end(&mut self) {
        drop(self.stop.take());
        self.thread.take().expect("it runs").join().unwrap();
    }
}

fn line(file: usize, number: usize) -> String {
    format!(
        "file={file} seq={number:09} a line of a length that is ordinary for a log, with a few words in it"
    )
}

/// File and number of a line.
pub fn parse(line: &[u8]) -> (usize, usize) {
    let text = str::from_utf8(line).expect("a line of ours");
    let mut values = text.split(' ').map(|word| word.split_once('='));
    let mut next = || values.next().flatten().unwrap().1.parse().unwrap();
    (next(), next())
}

/// Asks logship again and again what is acknowledged.
struct Watch {
    acks: Arc<Mutex<Acks>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// For each path what is acknowledged, and since when it has been.
#[derive(Default)]
struct Acks {
    of_file: BTreeMap<String, (u64, Instant)>,
    longest: Duration,
}

impl Watch {
    fn begin(world: &Arc<World>) -> Watch {
        let acks = Arc::new(Mutex::new(Acks::default()));
        let (stop, stopped) = mpsc::channel::<()>();
        let (world, told) = (Arc::clone(world), Arc::clone(&acks));
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                for file in world.status().files {
                    told.lock().unwrap().are(file.path, file.acked_lines);
                }
            }
        });
        Watch {
            acks,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// For each file, in the order of their names.
    fn acked(&self) -> Vec<usize> {
        let acks = self.acks.lock().unwrap();
        let counts = acks.of_file.values().map(|&(lines, _)| lines as usize);
        let mut counts: Vec<usize> = counts.collect();
        counts.resize(FILES, 0);
        counts
    }

    /// Begins anew with the longest stall.
    fn forget(&self) {
        self.acks.lock().unwrap().longest = Duration::ZERO;
    }

    /// The longest time in which no line of a file was acknowledged.
    fn end(&mut self) -> Duration {
        drop(self.stop.take());
        self.thread.take().expect("it runs").join().unwrap();
        self.acks.lock().unwrap().longest
    }
}

impl Acks {
    fn are(&mut self, path: String, lines: u64) {
        let now = Instant::now();
        let (last, since) = self.of_file.entry(path).or_insert((0, now));
        if *last != lines {
            self.longest = self.longest.max(now - *since);
            (*last, *since) = (lines, now);
        }
    }
}
