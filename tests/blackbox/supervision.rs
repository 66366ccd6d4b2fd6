//! Threads that fail while lines flow, and files that are no files: whoever is
//! hit goes on soon, and nobody else notices.
//!
//! Threads are made to panic by files in the directory that LOGSHIP_TEST_FAULTS
//! names, which debug builds look at.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, check_sequence};
use crate::daemon::{config, records, source, to_broker};
use crate::world::{Shipper, World, numbered};

/// First pause before a new start, and what a loaded machine adds.
const AGAIN_WITHIN: Duration = Duration::from_secs(3);

struct Faults(PathBuf);

impl Faults {
    /// Starts with a directory for faults.
    fn start(world: &World, config: &Value) -> (Shipper, Faults) {
        let faults = world.dir("faults");
        let shipper = world.run(config).env("LOGSHIP_TEST_FAULTS", &faults);
        (shipper.start(), Faults(faults))
    }

    /// The next thread of this kind that comes by panics.
    fn hit(&self, task: &str) {
        fs::write(self.0.join(task), "").unwrap();
    }
}

/// A thread of this kind runs again.
fn goes_on(world: &World, shipper: &Shipper, task: &str) -> bool {
    match task {
        "tail" => world
            .file("app.log", "t")
            .is_some_and(|file| file.thread.is_some()),
        _ => shipper
            .stderr()
            .contains(&format!("started again thread={task}")),
    }
}

fn restarts(world: &World, task: &str) -> u64 {
    world.status().tasks[task].restarts
}

/// Each in turn, while a file grows by a few lines at a time.
#[test]
fn a_thread_that_panics_is_started_again_and_nothing_is_missing() {
    for task in ["tail", "send", "discover", "checkpoint", "config", "admin"] {
        let (broker, world) = (Broker::start(), World::new());
        let mut log = world.log("app.log");
        let mut lines = numbered(0..100);
        log.write(&lines);
        let config = to_broker(&broker, json!([source("*.log", "t")]));
        let (shipper, faults) = Faults::start(&world, &config);
        records(&broker, "t", 100);
        world.status_until("an acknowledgement", |report| {
            report.topics["t"].lag_bytes == 0
        });

        faults.hit(task);
        let begun = Instant::now();
        let told = shipper.says("a thread failed, please report this");
        assert!(
            told.contains(&format!("thread={task}")) && told.contains("again in 1s"),
            "{told}"
        );
        while !goes_on(&world, &shipper, task) {
            assert!(begun.elapsed() < AGAIN_WITHIN, "{}", shipper.stderr());
            let more = numbered(lines.len()..lines.len() + 10);
            log.write(&more);
            lines.extend(more);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(restarts(&world, task), 1, "{task}");
        let metric = format!("logship_task_restarts_total{{task=\"{task}\"}}");
        assert!((world.metric(&metric) - 1.0).abs() < f64::EPSILON);

        // What the thread is for goes on.
        let more = numbered(lines.len()..lines.len() + 10);
        log.write(&more);
        lines.extend(more);
        world.log("new.log").write(["of the new file"]);
        lines.push("of the new file".to_owned());
        records(&broker, "t", lines.len());
        world.status_until("everything to be acknowledged", |report| {
            report.topics["t"].lag_bytes == 0
        });
        world.health(200, AGAIN_WITHIN);
        shipper.stop().exits(0);
        let mut got = broker.records("t");
        got.retain(|record| record.value != "of the new file");
        lines.retain(|line| line != "of the new file");
        let report = check_sequence(&lines, &got);
        if task == "send" {
            report.assert_lossless(); // what was in flight may come twice
        } else {
            report.assert_exact();
        }
        let (shipper, _) = Faults::start(&world, &config);
        log.write(["the end"]);
        let count = got.len() + 2;
        assert_eq!(records(&broker, "t", count).len(), count, "{task}");
        shipper.stop().exits(0);
    }
}

/// What it has to write down at the end does not wait for the next start.
#[test]
fn a_stop_while_the_checkpoint_thread_is_away_forgets_nothing() {
    let world = World::new();
    let mut log = world.log("app.log");
    let config = config(json!([source("app.log", "t")]));
    let (shipper, faults) = Faults::start(&world, &config);
    world.status();
    faults.hit("checkpoint");
    shipper.says("thread=checkpoint");
    log.write(["one"]);
    shipper.delivers(["one"]);
    shipper.stop().exits(0);
    let (shipper, _) = Faults::start(&world, &config);
    log.write(["two"]);
    shipper.delivers(["two"]);
    shipper.stop().exits(0).never_said("started again");
}

/// While Kafka was away its tailers were told to hold still, by a thread that
/// is no more.
#[test]
fn a_producer_that_panics_while_kafka_is_away_leaves_nobody_waiting() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let mut config = to_broker(&broker, json!([source("*.log", "t")]));
    config["kafka"]["producers"] = json!(1);
    let (shipper, faults) = Faults::start(&world, &config);
    log.write(["one"]);
    world.acked("t", 1);
    broker.pause();
    log.write(numbered(0..10));
    world.status_until("the topic to stall", |report| {
        report.files.iter().any(|file| file.state == "full")
    });
    faults.hit("send");
    shipper.says("started again");
    broker.resume();
    let lines = [vec!["one".into()], numbered(0..10)].concat();
    check_sequence(&lines, &records(&broker, "t", 11)).assert_exact();
    shipper.stop().exits(0);
}

/// Sleeping files are known to the discovery thread alone.
#[test]
fn sleeping_files_outlive_the_thread_that_looks_at_them() {
    let world = World::new();
    let mut logs: Vec<_> = (0..3).map(|n| world.log(format!("{n}.log"))).collect();
    let mut config = config(json!([source("*.log", "t")]));
    config["idle_after"] = json!("50ms");
    let (shipper, faults) = Faults::start(&world, &config);
    for log in &mut logs {
        log.write(["one"]);
    }
    shipper.delivers(["one"; 3]);
    world.all_asleep(3);
    faults.hit("discover");
    shipper.says("a thread failed");
    logs[0].write(["while nobody looked"]);
    shipper.delivers(["while nobody looked"]);
    world.all_asleep(3);
    for log in &mut logs {
        log.write(["two"]);
    }
    shipper.delivers(["two"; 3]);
    shipper.stop().exits(0).printed([""; 0]);
}

/// `tail` waits for its paths, also where no pattern would find them again.
#[test]
fn sleeping_paths_of_tail_outlive_the_thread_that_looks_at_them() {
    let world = World::new();
    let mut log = world.log("app.log");
    let faults = world.dir("faults");
    let mut shipper = world
        .tail([&log])
        .since_beginning()
        .env("LOGSHIP_TEST_FAULTS", &faults)
        .start();
    log.write(["one"]);
    shipper.delivers(["one"]);
    shipper.has_open(false, |path| path.ends_with("app.log"));
    fs::write(faults.join("discover"), "").unwrap();
    shipper.says("started again");
    log.write(["two"]);
    shipper.delivers(["two"]);
}

/// It is changed while nobody follows it.
#[test]
fn a_config_that_changes_while_its_thread_is_away_is_put_into_force() {
    let world = World::new();
    let mut other = world.log("other.log");
    let before = config(json!([source("app.log", "t")]));
    let (shipper, faults) = Faults::start(&world, &before);
    world.status();
    faults.hit("config");
    shipper.says("a thread failed");
    world.configure(&config(json!([source("other.log", "t")])));
    other.write(["one"]);
    shipper.delivers(["one"]);
    shipper.stop().exits(0);
}

#[test]
fn a_task_that_fails_again_and_again_is_no_good_health() {
    let world = World::new();
    world.log("app.log");
    let config = config(json!([source("app.log", "t")]));
    let (shipper, faults) = Faults::start(&world, &config);
    world.health(200, AGAIN_WITHIN);
    for n in 1..=3 {
        faults.hit("checkpoint");
        world.status_until("a restart", |report| {
            report.tasks["checkpoint"].restarts == n
        });
    }
    let told = world.health(503, AGAIN_WITHIN);
    assert!(told.contains("checkpoint keeps failing"), "{told}");
    assert!(world.status().tasks["checkpoint"].failing);
    shipper.stop().exits(0);
}

#[test]
fn a_path_that_is_no_file_disturbs_no_other() {
    let world = World::new();
    let mut good = world.log("good.log");
    let mut bad = world.log("bad.log");
    let mut closed = world.log("closed.log");
    let shipper = world
        .run(&config(json!([
            source("good.log", "t"),
            source("bad.log", "t"),
            source("closed.log", "t")
        ])))
        .unprivileged();
    // Its state is that user's, too.
    let state = world.dir("state");
    fs::set_permissions(state, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    closed.write(["secret"]);
    closed.chmod(0o000);
    let shipper = shipper.start();
    shipper.says("permission denied");
    bad.write(["one"]);
    shipper.delivers(["one"]);

    bad.delete();
    fs::create_dir(bad.path()).unwrap();
    good.write(["beside a directory"]);
    shipper.delivers(["beside a directory"]);
    fs::remove_dir(bad.path()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bad.path(),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    good.write(["beside a FIFO"]);
    shipper.delivers(["beside a FIFO"]);
    fs::remove_file(bad.path()).unwrap();
    bad.reopen();
    bad.write(["a file again"]);
    shipper.delivers(["a file again"]);
    closed.chmod(0o644);
    shipper.delivers(["secret"]);
    shipper.stop().exits(0);
}
