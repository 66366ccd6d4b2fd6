//! The accounts, seen from outside: whatever became of a byte, metrics, status and
//! summary each tell it, and what they tell adds up at every moment.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{TryRecvError, channel};
use std::thread;

use logship::admin::{FileReport, Report, TopicReport};
use serde_json::json;

use crate::broker::Broker;
use crate::daemon::{source, to_broker};
use crate::world::{World, figure, numbered};

/// Bytes that are known, and what became of them: acknowledged, waiting, dropped,
/// dead letters, lost.
type Account = [u64; 6];

const METRICS: [&str; 6] = [
    "logship_known_bytes",
    "logship_acked_bytes_total",
    "logship_lag_bytes",
    "logship_dropped_bytes_total",
    "logship_dead_letter_bytes_total",
    "logship_lost_bytes_total",
];

/// In the lines of the log that have figures.
const SUMMARY: [&str; 6] = [
    "known_bytes",
    "acked_bytes",
    "lag",
    "dropped_bytes",
    "dead_letter_bytes",
    "lost_bytes",
];

/// The accounts of all topics in a page of metrics.
fn in_metrics(page: &str) -> BTreeMap<String, Account> {
    let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
    for line in page.lines() {
        let Some((name, labels)) = line.split_once("{topic=\"") else {
            continue;
        };
        let Some(at) = METRICS.iter().position(|metric| *metric == name) else {
            continue;
        };
        let (topic, _) = labels.split_once('"').unwrap();
        let (_, value) = labels.rsplit_once(' ').unwrap();
        accounts.entry(topic.to_owned()).or_default()[at] += value.parse::<u64>().unwrap();
    }
    accounts
}

fn of_topic(topic: &TopicReport) -> Account {
    [
        topic.known_bytes,
        topic.acked_bytes,
        topic.lag_bytes,
        topic.dropped_bytes.values().sum(),
        topic.dead_letter_bytes,
        topic.lost_bytes.values().sum(),
    ]
}

fn of_file(file: &FileReport) -> Account {
    [
        file.known_bytes,
        file.acked_bytes,
        file.lag_bytes,
        file.dropped_bytes,
        file.dead_letter_bytes,
        0, // with a loss a life is over, and not reported any more
    ]
}

fn in_status(report: &Report) -> BTreeMap<String, Account> {
    let topics = report.topics.iter();
    topics
        .map(|(name, topic)| (name.clone(), of_topic(topic)))
        .collect()
}

#[track_caller]
fn adds_up(account: Account, whose: &str) {
    let [known, rest @ ..] = account;
    assert_eq!(known, rest.iter().sum::<u64>(), "{whose}: {account:?}");
}

/// Asks for both documents, each by itself.
fn check(world: &World) {
    for (topic, account) in in_metrics(&world.get("/metrics").1) {
        adds_up(account, &format!("metrics, topic {topic}"));
    }
    let report = world.status();
    for (topic, account) in in_status(&report) {
        adds_up(account, &format!("status, topic {topic}"));
    }
    for file in &report.files {
        adds_up(of_file(file), &format!("status, file {}", file.path));
    }
}

/// A hole of NUL bytes has no lines, and dead letters had no bytes: nobody could tell
/// from metrics alone that nothing was missing.
#[test]
fn what_became_of_every_byte_can_be_told_from_metrics_status_and_summary_alone() {
    let broker = Broker::builder().max_message_bytes(20_000).start();
    let world = World::new();
    let (mut keeps, mut drops) = (world.log("keeps.log"), world.log("drops.log"));
    let holes = world.log("holes.log");
    let mut config = to_broker(
        &broker,
        json!([
            source("keeps.log", "keeps"),
            source("holes.log", "holes"),
            { "path": "drops.log", "topic": "drops", "when_full": "drop" },
        ]),
    );
    config["queue"] = json!({ "bytes": "1MiB" });
    config["kafka"]["compression"] = json!("none");
    config["kafka"]["batch_bytes"] = json!("16KiB");
    config["stats_interval"] = json!("100ms");
    let shipper = world.run(&config).start();

    let ended = thread::scope(|scope| {
        let (running, over) = channel::<()>();
        let checks = scope.spawn({
            let world = &world;
            move || {
                while over.try_recv() == Err(TryRecvError::Empty) {
                    check(world);
                }
            }
        });

        // A dead letter between lines.
        let poison = "p".repeat(30_000);
        keeps.write(numbered(0..100));
        keeps.write([&poison]);
        keeps.write(numbered(100..200));
        world.status_until("a dead letter", |report| {
            let topic = &report.topics["keeps"];
            (topic.acked_lines, topic.dead_letter_bytes) == (200, poison.len() as u64 + 1)
        });

        // A hole: its writer goes on where it was before the truncation.
        let writer = File::options().write(true).open(holes.path()).unwrap();
        let text = numbered(0..1_000).join("\n") + "\n";
        writer.write_all_at(text.as_bytes(), 0).unwrap();
        world.acked("holes", 1_000);
        writer.set_len(0).unwrap();
        let hole = text.len() as u64;
        writer.write_all_at(text.as_bytes(), hole).unwrap();
        world.status_until("the hole", |report| {
            report.topics["holes"].dropped_bytes["nul_hole"] == hole
        });

        // Kafka away: one source drops, the other one's file is truncated.
        broker.pause();
        for log in [&mut drops, &mut keeps] {
            log.write(numbered(200..60_000));
        }
        let kept = keeps.size();
        world.status_until("drops, and all to be known", |report| {
            let topic = &report.topics["drops"];
            topic.dropped_lines.get("queue_full") > Some(&0)
                && topic.known_bytes == drops.size()
                && report.topics["keeps"].known_bytes == kept
        });
        keeps.truncate();
        keeps.write(numbered(0..100));
        world.status_until("a loss", |report| {
            report.topics["keeps"].lost_bytes["truncated"] > 0
        });
        broker.resume();

        let report = world.status_until("everything to be settled", |report| {
            let known = kept + keeps.size();
            report.topics["keeps"].known_bytes == known
                && report.topics.values().all(|topic| topic.lag_bytes == 0)
        });
        // What is known is what was written, whoever asks.
        let known = [
            ("drops", drops.size()),
            ("holes", 3 * hole),
            ("keeps", kept + keeps.size()),
        ];
        let accounts = in_status(&report);
        assert_eq!(accounts, in_metrics(&world.get("/metrics").1));
        let told = accounts.iter().map(|(name, account)| (&**name, account[0]));
        assert!(told.eq(known), "{accounts:?}, not {known:?}");
        drop(running);
        checks.join().unwrap();
        shipper.stop().exits(4)
    });

    let lines = ended.stderr.lines();
    let accounts = lines.filter_map(|line| {
        figure(line, SUMMARY[0])?;
        Some(SUMMARY.map(|key| figure(line, key).unwrap_or(0)))
    });
    let mut last = Account::default();
    for account in accounts {
        adds_up(account, "the log");
        last = account;
    }
    let waiting = 2;
    for (at, bytes) in last.iter().enumerate() {
        assert_eq!(*bytes == 0, at == waiting, "{}: {last:?}", SUMMARY[at]);
    }
}
