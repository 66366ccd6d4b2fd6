//! To a broker that misbehaves on demand: every line once and in order, and a
//! message that says what is wrong.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::broker::{ApiKey, Broker, Fault, Misdeed, Record, as_kcat, check_sequence};
use crate::daemon::{config, source, to_broker};
use crate::world::{Log, Logship, Rotate, World, numbered};

/// Generous: it is only waited for in full when something is wrong.
const DEADLINE: Duration = Duration::from_secs(30);
const TOPIC: &str = "demo";

/// `logship tail` to a broker, with state, from the beginning.
fn tail(world: &World, logs: &[&Log], broker: &Broker) -> Logship {
    let tail = world.tail(logs.iter().copied()).with_state();
    tail.since_beginning()
        .args(["--brokers", &broker.addresses()])
}

fn records(broker: &Broker, count: usize) -> Vec<Record> {
    broker.wait_for(TOPIC, count, DEADLINE)
}

/// Lines that are hard to compress, so that batches stay large.
fn noise(count: usize, bytes: usize) -> Vec<String> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    (0..count)
        .map(|n| {
            let mut line = format!("seq={n:09} ");
            while line.len() < bytes {
                line.push_str(&next());
            }
            line.truncate(bytes);
            line
        })
        .collect()
}

/// The records of the file whose lines begin with its number.
fn of_file(records: &[Record], n: usize) -> Vec<Record> {
    let start = format!("{n} ");
    let ours = |record: &&Record| record.value.starts_with(start.as_bytes());
    records.iter().filter(ours).cloned().collect()
}

#[test]
fn lines_arrive_once_and_in_order_with_every_codec() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let broker = Broker::builder().partitions(4).start();
        let world = World::new();
        let mut log = world.log("app.log");
        let lines = [numbered(0..20_000), noise(300, 10_000)].concat();
        log.write(&lines);

        let run = || {
            tail(&world, &[&log], &broker)
                .once()
                .args(["--compression", codec])
                .run()
        };
        run().exits(0);

        check_sequence(&lines, &broker.records(TOPIC)).assert_exact();
        run().exits(0);
        assert_eq!(
            broker.records(TOPIC).len(),
            lines.len(),
            "{codec}: sent again"
        );
    }
}

#[test]
fn every_version_of_produce_that_brokers_speak_will_do() {
    for version in [3, 4, 5, 6, 7, 8, 9] {
        let broker = Broker::builder().produce_version_max(version).start();
        let world = World::new();
        let mut log = world.log("app.log");
        log.write(numbered(0..100));
        tail(&world, &[&log], &broker).once().run().exits(0);
        check_sequence(numbered(0..100), &broker.records(TOPIC)).assert_exact();
    }
}

/// Zstd was sent to brokers that do not know it: some refuse each batch, some keep what
/// their consumers cannot read.
#[test]
fn zstd_is_not_sent_to_a_broker_before_2_1_which_is_named() {
    let broker = Broker::builder().produce_version_max(6).start();
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one"]);
    let problem = "the broker does not know zstd, which needs Kafka 2.1";
    let remedy = "use lz4 or another codec: kafka.compression, --compression";

    let zstd = ["--compression", "zstd", "--timeout", "3s"];
    let ended = tail(&world, &[&log], &broker).once().args(zstd).run();
    let ended = ended.exits(3).said(problem).said(remedy);
    let about = ended.stderr.lines().filter(|line| line.contains(problem));
    assert_eq!(about.count(), 1, "one message:\n{}", ended.stderr);
    assert_eq!(broker.requests(ApiKey::Produce), 0);

    let mut config = to_broker(&broker, json!([source("app.log", TOPIC)]));
    config["kafka"]["compression"] = json!("zstd");
    world.configure(&config);
    let check = world.logship(["check-config", "--connect"]);
    let check = check.arg(world.config()).run().exits(1);
    let told = format!("{}{}", String::from_utf8_lossy(&check.stdout), check.stderr);
    assert!(told.contains(problem) && told.contains(remedy), "{told}");

    tail(&world, &[&log], &broker).once().run().exits(0);
    assert_eq!(records(&broker, 1)[0].value, "one");
}

#[test]
fn a_broker_that_knows_an_old_handshake_only_is_asked_again() {
    for hang_up in [false, true] {
        let broker = Broker::builder().api_versions_max(0);
        let broker = broker.api_versions_hang_up(hang_up).start();
        let world = World::new();
        let mut log = world.log("app.log");
        log.write(["one"]);
        let ended = tail(&world, &[&log], &broker).args(["--timeout", "10s"]);
        ended.once().run().exits(0).never_said("cannot reach");
        assert_eq!(records(&broker, 1)[0].value, "one");
    }
}

#[test]
fn values_are_the_bytes_of_the_lines_and_keys_what_was_asked_for() {
    let broker = Broker::start();
    let world = World::new();
    let mut log = world.log("app.log");
    log.write_raw(b"\n\xff\x00\r\r\nlast");
    let key = ["--key", "{path}!"];
    tail(&world, &[&log], &broker)
        .once()
        .args(key)
        .run()
        .exits(0);

    let records = broker.records(TOPIC);
    let values: Vec<&[u8]> = records.iter().map(|record| &record.value[..]).collect();
    assert_eq!(values, [&b""[..], b"\xff\x00\r", b"last"]);
    let key = format!("{}!", log.path().display());
    assert!(
        records
            .iter()
            .all(|r| r.key.as_deref() == Some(key.as_bytes()))
    );
    assert!(records.iter().all(|r| r.headers.is_empty()));
}

/// Two lines, a truncation, one more: what identifies a line is in every record, as
/// bytes and as decimal numbers, in raw records and in JSON.
#[test]
fn headers_say_where_in_which_life_of_which_file_each_line_stands() {
    for format in ["raw", "json"] {
        let broker = Broker::start();
        let world = World::new();
        let mut log = world.log(OsStr::from_bytes(b"odd\xff\n.log"));
        log.write(["one", "two"]);
        let shipper = tail(&world, &[&log], &broker)
            .args(["--headers", "--format", format])
            .start();
        records(&broker, 2);
        log.truncate();
        log.write(["x"]);

        let found = records(&broker, 3);

        let meta = fs::metadata(log.path()).unwrap();
        let host = rustix::system::uname();
        let host = host.nodename().to_bytes().to_vec();
        let path = log.path().as_os_str().as_bytes().to_vec();
        for (record, (generation, offset)) in found.iter().zip([(0, 0), (0, 4), (1, 0)]) {
            let numbers = [meta.dev(), meta.ino(), generation, offset];
            let numbers = numbers.map(|number| number.to_string().into_bytes());
            let values = [vec![path.clone(), host.clone()], numbers.to_vec()].concat();
            let names = ["path", "host", "device", "inode", "generation", "offset"];
            let expected = names.iter().zip(values);
            let expected: Vec<(String, Option<Bytes>)> = expected
                .map(|(name, value)| ((*name).to_owned(), Some(Bytes::from(value))))
                .collect();
            assert_eq!(record.headers, expected, "{format}");
        }
        shipper.stop().exits(0);
    }
}

/// Nothing is said in vain: standard output has no room for headers.
#[test]
fn headers_on_standard_output_are_a_warning() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one"]);
    let ended = world.tail([&log]).once().arg("--headers").run();
    ended
        .exits(0)
        .printed(["one"])
        .said("[WARN] --headers is for Kafka: records on standard output have none");
}

/// The order of a file survives only in one partition.
#[test]
fn a_file_stays_in_one_partition_and_spread_uses_all() {
    for how in ["file", "spread"] {
        let broker = Broker::builder().partitions(4).start();
        let world = World::new();
        let mut log = world.log("app.log");
        let lines = noise(600, 10_000);
        log.write(&lines);
        let tail = tail(&world, &[&log], &broker).once();
        tail.args(["--compression", "none", "--partition", how])
            .run()
            .exits(0);

        let records = broker.records(TOPIC);
        check_sequence(&lines, &records).assert_exact();
        let used = (0..4)
            .filter(|&p| !broker.partition(TOPIC, p).is_empty())
            .count();
        assert_eq!(used, if how == "file" { 1 } else { 4 });
    }
}

/// Everything that can go wrong with a request, one in three, while lines keep
/// coming. KIP-98's rules must hold through all of it.
#[test]
fn faults_of_the_wire_neither_lose_nor_repeat_nor_reorder() {
    let misdeeds = [
        vec![Misdeed::CutBefore],
        vec![Misdeed::CutAfter],
        vec![Misdeed::CutMidAnswer],
        vec![
            Misdeed::Garbage,
            Misdeed::WrongCorrelation,
            Misdeed::Nonsense,
        ],
        vec![Misdeed::Error(6), Misdeed::Error(19), Misdeed::Error(-1)],
        vec![Misdeed::ErrorAfterAppend(20), Misdeed::ErrorAfterAppend(7)],
        vec![
            Misdeed::CutAfter,
            Misdeed::Error(7),
            Misdeed::ErrorAfterAppend(13),
            Misdeed::Delay(Duration::from_millis(30)),
        ],
    ];
    for (seed, misdeeds) in misdeeds.into_iter().enumerate() {
        let broker = Broker::builder().partitions(3).start();
        let world = World::new();
        let mut logs: Vec<Log> = (0..3).map(|n| world.log(format!("{n}.log"))).collect();
        let shipper = tail(&world, &logs.iter().collect::<Vec<_>>(), &broker).start();
        broker.fault(Fault::mix(seed as u64 + 1, 3, misdeeds).on(ApiKey::Produce));

        let mut lines = vec![Vec::new(); logs.len()];
        for round in 0..25 {
            let seen = broker.requests(ApiKey::Produce);
            for (n, log) in logs.iter_mut().enumerate() {
                let more: Vec<String> = (0..20).map(|l| format!("{n} {round} {l}")).collect();
                log.write(&more);
                lines[n].extend(more);
            }
            broker.wait_for_requests(ApiKey::Produce, seen + 1, DEADLINE);
        }
        let records = records(&broker, 3 * 25 * 20);
        shipper.stop().exits(0);
        assert!(broker.faults_fired() > 3, "{}", broker.summary());
        for (n, lines) in lines.iter().enumerate() {
            check_sequence(lines, &of_file(&records, n)).assert_exact();
        }
    }
}

/// Chunks wait until the partitions are known; those that come at that very
/// moment must not get in before them.
#[test]
fn lines_that_came_before_the_partitions_were_known_stay_first() {
    for round in 0..16 {
        let broker = Broker::start();
        broker.create_topic(TOPIC, 4);
        let pause = Duration::from_micros(500 * round);
        broker.fault(Fault::of(Misdeed::Delay(pause)).on(ApiKey::Metadata));
        let world = World::new();
        let mut log = world.log("app.log");
        let lines = noise(3_000, 2_000);
        log.write(&lines);
        tail(&world, &[&log], &broker).once().run().exits(0);
        check_sequence(&lines, &broker.records(TOPIC)).assert_exact();
    }
}

/// What sits in the queue at a truncation is not lost (DESIGN, section 9): it
/// is the only copy, so it keeps its room while Kafka is away.
#[test]
fn what_was_queued_at_a_truncation_is_shipped_when_kafka_is_back() {
    let broker = Broker::start();
    let world = World::new();
    let mut log = world.log("app.log");
    let mut shipper = tail(&world, &[&log], &broker).start();
    log.write(["first"]);
    records(&broker, 1);
    broker.pause();
    let (before, size) = (shipper.bytes_read(), log.size());
    log.write(numbered(0..100));
    shipper.has_read(before + log.size() - size);

    log.truncate();
    log.write(["a new beginning"]);
    shipper.says("truncated or rewritten");
    // Long enough for the lane to give up what is still in the file.
    let told = shipper.says("cannot reach broker");
    assert!(told.contains(&broker.address(1)));
    shipper.quiet_for(Duration::from_secs(2));
    broker.resume();

    let lines = [
        vec!["first".into()],
        numbered(0..100),
        vec!["a new beginning".into()],
    ]
    .concat();
    check_sequence(&lines, &records(&broker, 102)).assert_exact();
    let ended = shipper.stop().exits(0);
    assert!(!ended.stderr.contains("lost"), "{}", ended.stderr);
}

/// The window of five batches is what catches a client that pipelines and
/// retries in the wrong order: large batches, many in flight.
#[test]
fn many_batches_in_flight_keep_their_order_through_lost_connections() {
    for misdeed in [
        Misdeed::CutAfter,
        Misdeed::Error(6),
        Misdeed::ErrorAfterAppend(20),
    ] {
        let broker = Broker::start();
        let world = World::new();
        let mut log = world.log("app.log");
        let lines = noise(3_000, 10_000);
        log.write(&lines);
        broker.fault(Fault::mix(7, 4, [misdeed]).on(ApiKey::Produce));
        let tail = tail(&world, &[&log], &broker).once();
        tail.args(["--compression", "none"]).run().exits(0);

        assert!(broker.faults_fired() > 0, "{}", broker.summary());
        check_sequence(&lines, &broker.records(TOPIC)).assert_exact();
    }
}

/// Files enough for every partition of [`two_nodes`] to get some.
const FILES: usize = 16;

/// Two nodes and a partition on each.
fn two_nodes() -> Broker {
    let broker = Broker::builder().nodes(2).partitions(2).start();
    broker.create_topic(TOPIC, 2);
    broker
}

/// A line into each of many files, so that both partitions get some.
fn write_one_each(world: &World, round: usize) {
    for n in 0..FILES {
        world
            .log(format!("{n}.log"))
            .write([format!("{n} {round}")]);
    }
}

/// What it said of Produce that fails, and of the end of that.
fn told_of_produce(stderr: &str) -> Vec<&str> {
    let about = |line: &&str| {
        line.contains("produce failed, trying again") || line.contains("produce works again")
    };
    stderr.lines().filter(about).collect()
}

/// While two partitions failed with different errors, or one failed and another did
/// not, every attempt was taken for news: a warning a second for as long as it lasted.
#[test]
fn that_produce_fails_is_told_once_an_error_and_so_is_its_end() {
    for errors in [&[19, 7][..], &[19]] {
        let (broker, world) = (two_nodes(), World::new());
        for (&error, node) in errors.iter().zip(1..) {
            let fault = Fault::of(Misdeed::Error(error)).node(node);
            broker.fault(fault.on(ApiKey::Produce));
        }
        write_one_each(&world, 0);
        let logs: Vec<Log> = (0..FILES).map(|n| world.log(format!("{n}.log"))).collect();
        let shipper = tail(&world, &logs.iter().collect::<Vec<_>>(), &broker).start();
        let mut rounds = 1;
        while broker.faults_fired() < 6 {
            // What goes to the other node is acknowledged meanwhile.
            write_one_each(&world, rounds);
            rounds += 1;
            thread::sleep(Duration::from_millis(100));
        }
        let said = shipper.stderr();
        let told = told_of_produce(&said);
        assert_eq!(told.len(), errors.len(), "{said}");
        for (error, node) in errors.iter().zip(1..) {
            let place = format!("partition={} broker={}", node - 1, broker.address(node));
            let names = |line: &&str| line.contains(&place) && line.contains(&format!("({error})"));
            assert!(told.iter().any(names), "{said}");
        }

        broker.clear_faults();
        records(&broker, FILES * rounds);
        shipper.says("produce works again");
        let ended = shipper.stop().exits(0);
        assert_eq!(
            told_of_produce(&ended.stderr).len(),
            errors.len() + 1,
            "{}",
            ended.stderr
        );
    }
}

/// When broker and client disagree about sequences beyond repair, the lines are
/// still in the file: they are read again under a new producer id.
#[test]
fn a_broken_sequence_costs_a_new_producer_id_and_no_line() {
    for code in [45, 47, 59] {
        let broker = Broker::start();
        let world = World::new();
        let mut log = world.log("app.log");
        let shipper = tail(&world, &[&log], &broker).start();
        log.write(["before"]);
        records(&broker, 1);
        let ids = broker.requests(ApiKey::InitProducerId);

        broker.fault(Fault::of(Misdeed::Error(code)).on(ApiKey::Produce).times(2));
        log.write(numbered(0..50));

        records(&broker, 51);
        shipper.stop().exits(0);
        let lines = [vec!["before".to_owned()], numbered(0..50)].concat();
        check_sequence(&lines, &broker.records(TOPIC)).assert_exact();
        assert_eq!(
            broker.requests(ApiKey::InitProducerId),
            ids + 1,
            "code {code}"
        );
    }
}

/// A broker takes any sequence from a producer id it has not seen (KIP-360): a
/// second batch in flight got in before the first, which had been refused; the
/// first then heard of a broken sequence, and everything was sent again. So one
/// batch travels alone until the producer id is known.
#[test]
fn a_first_batch_that_is_refused_is_not_overtaken() {
    for code in [6, 7, 19] {
        for partitioning in ["file", "spread"] {
            let broker = Broker::builder().partitions(2).start();
            let world = World::new();
            let mut log = world.log("app.log");
            let lines = noise(1_000, 10_000);
            log.write(&lines);
            broker.fault(Fault::of(Misdeed::Error(code)).on(ApiKey::Produce).times(1));
            let tail = tail(&world, &[&log], &broker).once();
            let how = ["--partition", partitioning, "--compression", "none"];
            tail.args(how).run().exits(0);

            check_sequence(&lines, &broker.records(TOPIC)).assert_exact();
        }
    }
}

/// Answers that are no Kafka are an error of that connection and nothing more.
#[test]
fn answers_that_mean_nothing_are_survived() {
    for misdeed in [Misdeed::Nonsense, Misdeed::AbsurdCounts, Misdeed::Garbage] {
        for api in [
            ApiKey::ApiVersions,
            ApiKey::Metadata,
            ApiKey::InitProducerId,
            ApiKey::Produce,
        ] {
            let broker = Broker::start();
            broker.fault(Fault::of(misdeed).on(api).times(2));
            let world = World::new();
            let mut log = world.log("app.log");
            log.write(numbered(0..100));
            tail(&world, &[&log], &broker).once().run().exits(0);
            check_sequence(numbered(0..100), &broker.records(TOPIC)).assert_exact();
        }
    }
}

/// Nothing is written, and still the user hears that the address is wrong.
#[test]
fn a_follower_with_nothing_to_send_says_that_the_broker_is_away() {
    let broker = Broker::start();
    broker.pause();
    let world = World::new();
    let log = world.log("app.log");
    let shipper = tail(&world, &[&log], &broker).start();
    shipper.says(&format!("cannot reach broker {}", broker.address(1)));
    broker.resume();
    shipper.says("connected again");
    shipper.stop().exits(0);
}

#[test]
fn a_broker_that_is_away_at_the_start_loses_nothing() {
    let broker = Broker::start();
    broker.pause();
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(numbered(0..1_000));
    let mut shipper = tail(&world, &[&log], &broker).start();
    shipper.says(&format!(
        "cannot reach broker {}: TCP connect",
        broker.address(1)
    ));
    shipper.has_open(true, |path| path.ends_with("app.log"));
    log.write(numbered(1_000..2_000));
    log.rotate(Rotate::Rename);
    log.write(numbered(2_000..3_000));

    broker.resume();

    check_sequence(numbered(0..3_000), &records(&broker, 3_000)).assert_exact();
    shipper.stop().exits(0);
}

#[test]
fn a_broker_restarted_in_mid_stream_loses_and_repeats_nothing() {
    let broker = Broker::start();
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = tail(&world, &[&log], &broker).start();
    for round in 0..6 {
        log.write(numbered(round * 100..round * 100 + 100));
        if round % 2 == 0 {
            records(&broker, round * 100 + 1);
        }
        broker.pause();
        log.write(numbered([600 + round]));
        broker.resume();
    }
    let records = records(&broker, 606);
    shipper.stop().exits(0);
    let mut values: Vec<_> = records.iter().map(|record| record.value.clone()).collect();
    values.sort();
    values.dedup();
    assert_eq!((records.len(), values.len()), (606, 606));
}

#[test]
fn a_leader_that_moves_is_followed() {
    let broker = Broker::builder().nodes(3).partitions(1).start();
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = tail(&world, &[&log], &broker).start();
    for round in 0..6 {
        log.write(numbered(round * 100..round * 100 + 100));
        records(&broker, round * 100 + 1);
        broker.move_leader(TOPIC, 0, round as i32 % 3 + 1);
    }
    check_sequence(numbered(0..600), &records(&broker, 600)).assert_exact();
    shipper.stop().exits(0);
}

/// One broker is away: only the partitions it leads wait.
#[test]
fn a_partition_without_its_leader_does_not_hold_up_the_others() {
    let broker = Broker::builder().nodes(2).partitions(2).start();
    let world = World::new();
    // Two partitions have all of so many once in thirty thousand runs.
    let mut logs: Vec<Log> = (0..16).map(|n| world.log(format!("{n}.log"))).collect();
    let shipper = tail(&world, &logs.iter().collect::<Vec<_>>(), &broker).start();
    for (n, log) in logs.iter_mut().enumerate() {
        log.write([format!("{n} before")]);
    }
    let homes = records(&broker, 16);
    broker.move_leader(TOPIC, 0, 1);
    broker.move_leader(TOPIC, 1, 2);
    broker.pause_node(2);

    let home = |n: usize| {
        let start = format!("{n} ");
        let mut records = homes.iter();
        let record = records.find(|record| record.value.starts_with(start.as_bytes()));
        record.expect("its first line has arrived").partition
    };
    // Three of each partition, or as many as there are.
    let of = |partition| (0..16).filter(move |&n| home(n) == partition).take(3);
    let (free, stuck): (Vec<usize>, Vec<usize>) = (of(0).collect(), of(1).collect());
    assert!(!free.is_empty() && !stuck.is_empty(), "{free:?} {stuck:?}");
    let busy: Vec<usize> = free.iter().chain(&stuck).copied().collect();
    let mut lines: Vec<Vec<String>> = vec![Vec::new(); 16];
    for &n in &busy {
        // Each file alone is as much as the queue holds.
        lines[n] = (0..10_000)
            .map(|l| format!("{n} during {l:0400}"))
            .collect();
        logs[n].write(&lines[n]);
    }
    records(&broker, 16 + free.len() * 10_000);

    broker.resume_node(2);
    let records = records(&broker, 16 + busy.len() * 10_000);
    shipper.stop().exits(0);
    for (n, lines) in lines.iter_mut().enumerate() {
        lines.insert(0, format!("{n} before"));
        check_sequence(lines, &of_file(&records, n)).assert_exact();
    }
}

#[test]
fn an_unknown_topic_is_named_and_waited_for() {
    let broker = Broker::builder().auto_create(false).start();
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(numbered(0..10));
    let shipper = tail(&world, &[&log], &broker).start();
    shipper.says("topic 'demo' does not take lines: UNKNOWN_TOPIC_OR_PARTITION");

    broker.create_topic(TOPIC, 2);

    check_sequence(numbered(0..10), &records(&broker, 10)).assert_exact();
    shipper.stop().exits(0);
}

#[test]
fn a_denied_topic_waits_and_says_so_once() {
    let broker = Broker::start();
    let world = World::new();
    let mut log = world.log("app.log");
    broker.fault(Fault::of(Misdeed::Error(29)).on(ApiKey::Produce));
    log.write(numbered(0..10));
    let shipper = tail(&world, &[&log], &broker).start();
    shipper.says("TOPIC_AUTHORIZATION_FAILED");
    let asked = broker.requests(ApiKey::Produce);
    broker.wait_for_requests(ApiKey::Produce, asked + 2, DEADLINE);

    broker.clear_faults();

    check_sequence(numbered(0..10), &records(&broker, 10)).assert_exact();
    let ended = shipper.stop().exits(0);
    assert_eq!(
        ended.stderr.matches("does not take lines").count(),
        1,
        "{}",
        ended.stderr
    );
}

/// Scenario 23: a poison record must not stop its neighbours, and is kept.
#[test]
fn a_record_too_large_for_the_topic_goes_to_the_dead_letters_and_its_neighbours_arrive() {
    let broker = Broker::builder().max_message_bytes(20_000).start();
    let world = World::new();
    let mut log = world.log("app.log");
    let big = noise(1, 50_000).remove(0);
    let (before, after) = (numbered(0..2_000), numbered(2_000..4_000));
    log.write(&before);
    log.write([&big]);
    log.write(&after);

    let run = || {
        tail(&world, &[&log], &broker)
            .once()
            .args(["--compression", "none"])
            .run()
    };
    let ended = run().exits(4);

    check_sequence([before.clone(), after].concat(), &broker.records(TOPIC)).assert_exact();
    assert!(
        ended.stderr.contains("MESSAGE_TOO_LARGE"),
        "{}",
        ended.stderr
    );
    let letters = crate::world::walk(&world.state_dir())
        .into_iter()
        .find(|path| path.ends_with("dead-letters.jsonl"))
        .expect("there are dead letters");
    let text = fs::read_to_string(&letters).unwrap();
    let letter: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(letter["value"], big);
    assert_eq!(letter["topic"], TOPIC);
    assert_eq!(letter["file"], log.path().to_str().unwrap());
    assert_eq!(letter["error"], "MESSAGE_TOO_LARGE");
    assert_eq!(letter["error_code"], 10);
    let from: usize = before.iter().map(|line| line.len() + 1).sum();
    assert_eq!(
        (letter["from"].as_u64(), letter["to"].as_u64()),
        (Some(from as u64), Some((from + big.len() + 1) as u64))
    );

    run().exits(0);
    assert_eq!(fs::read_to_string(&letters).unwrap(), text, "written again");
}

#[test]
fn a_line_over_the_limit_is_cut_so_that_a_default_broker_takes_it() {
    // Headers take their part of what a broker takes, most of it for the path.
    let deep = format!("{}app.log", format!("{}/", "d".repeat(250)).repeat(15));
    for (path, headers) in [("app.log", None), (&deep, Some("--headers"))] {
        let broker = Broker::start();
        let world = World::new();
        fs::create_dir_all(world.path(path).parent().unwrap()).unwrap();
        let mut log = world.log(path);
        let long = noise(1, 1_200_000).remove(0);
        log.write([&long[..], "next"]);
        tail(&world, &[&log], &broker)
            .once()
            .args(["--compression", "none"])
            .args(headers)
            .run()
            .exits(0);

        let records = broker.records(TOPIC);
        assert_eq!(records.len(), 2);
        assert!(records[0].value.len() > 1_000_000);
        assert!(long.as_bytes().starts_with(&records[0].value));
        assert_eq!(records[1].value, "next");
    }
}

#[test]
fn a_clean_stop_half_way_and_a_start_deliver_every_line_once() {
    let broker = Broker::builder().partitions(3).start();
    let world = World::new();
    let mut log = world.log("app.log");
    let lines = noise(3_000, 2_000);
    broker.fault(Fault::of(Misdeed::Delay(Duration::from_millis(50))).on(ApiKey::Produce));
    log.write(&lines);
    let mut stops = 0;
    while broker.records(TOPIC).len() < lines.len() {
        let shipper = tail(&world, &[&log], &broker).start();
        let asked = broker.requests(ApiKey::Produce);
        broker.wait_for_requests(ApiKey::Produce, asked + 1, DEADLINE);
        shipper.stop().exits(0);
        stops += 1;
        assert!(stops < 100, "{}", broker.summary());
    }
    check_sequence(&lines, &broker.records(TOPIC)).assert_exact();
}

/// After a kill a batch may be sent again, but never a line be missing. Once,
/// chunks that came while the partitions were just becoming known overtook
/// those that had waited for them: hence the order is looked at too.
#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let broker = Broker::builder().partitions(3).start();
    let world = World::new();
    let mut log = world.log("app.log");
    let lines = noise(3_000, 2_000);
    broker.fault(Fault::of(Misdeed::Delay(Duration::from_millis(30))).on(ApiKey::Produce));
    for (round, part) in lines.chunks(500).enumerate() {
        log.write(part);
        let shipper = tail(&world, &[&log], &broker).arg("--headers").start();
        let asked = broker.requests(ApiKey::Produce);
        broker.wait_for_requests(ApiKey::Produce, asked + 1 + round % 2, DEADLINE);
        shipper.kill();
    }
    broker.clear_faults();
    let tail = tail(&world, &[&log], &broker).arg("--headers");
    tail.once().run().exits(0);
    let records = broker.records(TOPIC);
    check_sequence(&lines, &records).assert_lossless();
    let verify = world.verify([&log], as_kcat(TOPIC, &records));
    verify.arg("--allow-repeats").run().exits(0);
}

/// A port that accepts and is no Kafka must not look like a network problem.
#[test]
fn a_port_that_is_no_kafka_is_told_from_one_that_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one"]);
    let tail = world.tail([&log]).once().with_state();
    let tail = tail.args(["--brokers", &address, "--timeout", "2s"]);
    let ended = tail.run().exits(3);
    let wanted = format!(
        "cannot reach broker {address}: Kafka handshake: what answers there speaks HTTP (trying again; check that this port is a Kafka listener)"
    );
    ended.said(&wanted);
}

#[test]
fn a_broker_that_says_nothing_is_told_within_ten_seconds() {
    let broker = Broker::start();
    broker.fault(Fault::of(Misdeed::Silence).on(ApiKey::ApiVersions));
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["one"]);
    let tail = tail(&world, &[&log], &broker).once();
    let ended = tail.args(["--timeout", "8s"]).run().exits(3);
    ended.said("Kafka handshake: no answer within 5s");

    // ... or sooner, by the config.
    let mut config = config(json!([source("app.log", "t")]));
    config["kafka"] = json!({ "brokers": [broker.addresses()], "handshake_timeout": "100ms" });
    let daemon = world.run(&config).start();
    daemon.says("Kafka handshake: no answer within 100ms");
}

/// Any answer counted as success: it was lost and there again six times a second, and the
/// hint was at a login.
#[test]
fn a_broker_that_hangs_up_on_one_kind_of_request_is_told_once() {
    for (api, name) in [
        (ApiKey::InitProducerId, "InitProducerId"),
        (ApiKey::Produce, "Produce"),
    ] {
        let broker = Broker::start();
        broker.fault(Fault::of(Misdeed::CutBefore).on(api));
        let world = World::new();
        let mut log = world.log("app.log");
        log.write(["one"]);
        let mut config = to_broker(&broker, json!([source("app.log", TOPIC)]));
        config["sources"][0]["read_from"] = json!("beginning");
        config["kafka"]["producers"] = json!(1);
        let shipper = world.run(&config).start();
        shipper.says(&format!("the broker closed the connection on {name} ("));
        broker.wait_for_requests(api, 5, DEADLINE);
        broker.clear_faults();
        shipper.says("connected again");
        assert_eq!(records(&broker, 1).len(), 1);
        let said = shipper.stop().exits(0).stderr;
        for what in ["cannot reach broker", "connected again"] {
            assert_eq!(said.matches(what).count(), 1, "{name} {what}: {said}");
        }
    }
}

/// Each time the batches get a new producer id, and that is told once.
#[test]
fn a_broker_that_breaks_every_sequence_for_a_while_is_told_once_and_loses_nothing() {
    let broker = Broker::start();
    broker.fault(Fault::of(Misdeed::Error(45)).on(ApiKey::Produce)); // OUT_OF_ORDER_SEQUENCE_NUMBER
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(numbered(0..100));
    let shipper = tail(&world, &[&log], &broker).start();
    broker.wait_for_requests(ApiKey::Produce, 8, DEADLINE);
    broker.clear_faults();
    shipper.says("produce works again");
    records(&broker, 100);
    let said = shipper.stop().exits(0).stderr;
    check_sequence(numbered(0..100), &broker.records(TOPIC)).assert_exact();
    for what in ["produce failed, trying again", "produce works again"] {
        assert_eq!(said.matches(what).count(), 1, "{what}: {said}");
    }
}

/// A well-formed answer that says nothing was taken for a passing trouble, and nothing was
/// told; and what could be read between those that could not was told as an end of it.
#[test]
fn a_broker_whose_answers_say_nothing_is_told_once() {
    for api in [ApiKey::Metadata, ApiKey::Produce] {
        let broker = Broker::start();
        broker.fault(Fault::of(Misdeed::Nonsense).on(api));
        let world = World::new();
        let mut log = world.log("app.log");
        log.write(["one"]);
        let shipper = tail(&world, &[&log], &broker).start();
        shipper.says("cannot reach broker");
        broker.wait_for_requests(api, 5, DEADLINE);
        broker.clear_faults();
        shipper.says("connected again");
        assert_eq!(records(&broker, 1).len(), 1);
        let said = shipper.stop().exits(0).stderr;
        for what in ["cannot reach broker", "connected again"] {
            assert_eq!(said.matches(what).count(), 1, "{api:?} {what}: {said}");
        }
    }
}

/// The search for a record that is refused made the batches of its topic small, and they
/// stayed so until the next start: a request for each line.
#[test]
fn batches_are_large_again_after_a_record_that_was_refused() {
    const INVALID_RECORD: i16 = 87;
    let broker = Broker::start();
    let refused = Fault::of(Misdeed::Error(INVALID_RECORD)).on(ApiKey::Produce);
    broker.fault(refused.times(9));
    let world = World::new();
    let mut log = world.log("app.log");
    let lines = numbered(0..5_000);
    log.write(&lines);
    let ended = tail(&world, &[&log], &broker).once().run();
    ended.exits(0);
    assert_eq!(records(&broker, lines.len()).len(), lines.len());
    let requests = broker.requests(ApiKey::Produce);
    assert!(requests < 300, "{requests} requests");
}
