//! What is known of a file at every change of hands: another topic, another source, a
//! start, sleep. Nothing is forgotten, told twice or shipped twice.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::broker::{ApiKey, Broker, Fault, Misdeed};
use crate::daemon::{config as to_stdout, records, source, to_broker, values};
use crate::world::{DEADLINE, Log, Loss, Shipper, World, numbered};

/// Longer than a renamed or deleted file is kept after its last line.
const LET_GO_AFTER: Duration = Duration::from_secs(8);

fn reload(world: &World, shipper: &Shipper, config: &Value) {
    let before = world.status().config.revision;
    world.configure(config);
    shipper.signal(Signal::HUP);
    world.status_until("a new config", |report| report.config.revision > before);
}

fn ranges(losses: &[Loss]) -> Vec<(u64, u64)> {
    losses.iter().map(|loss| (loss.from, loss.to)).collect()
}

/// A source whose daemon does not wait long when it is stopped.
fn stops_within(broker: &Broker, pattern: &str, topic: &str, timeout: &str) -> Value {
    let mut config = to_broker(broker, json!([source(pattern, topic)]));
    config["shutdown_timeout"] = json!(timeout);
    config
}

/// A topic is denied: some lines of ten are on their way, the others come back.
fn deny(broker: &Broker, world: &World, log: &mut Log, topic: &str) {
    broker.fault(Fault::of(Misdeed::Error(29)).topic(topic));
    log.write(numbered(0..5));
    sleep(Duration::from_secs(1));
    log.write(numbered(5..10));
    world.status_until("the topic to stall", |report| {
        report.files.iter().any(|file| file.state == "full")
    });
}

/// A line arrives for topic one, which is denied then, and the topic becomes two, which takes
/// a line; and what the file held for topic one.
fn changes_topic_while_denied(
    broker: &Broker,
    world: &World,
    log: &mut Log,
    to: &dyn Fn(&str) -> Value,
) -> (Shipper, u64) {
    let shipper = world.run(&to("one")).start();
    log.write(["first"]);
    world.acked("one", 1);
    deny(broker, world, log, "one");
    let known = log.size();
    reload(world, &shipper, &to("two"));
    log.write(["for two"]);
    records(broker, "two", 1);
    (shipper, known)
}

/// What is shipped is `one`, two lines more are known, and logship is stopped while Kafka
/// takes nothing.
fn stops_with_unread(broker: &Broker, world: &World, log: &mut Log, config: &Value, one: &str) {
    let shipper = world.run(config).start();
    log.write([one]);
    world.acked("one", 1);
    broker.fault(Fault::of(Misdeed::Error(29)).on(ApiKey::Produce));
    log.write(["two", "three"]);
    let size = log.size();
    world.status_until("all known", |report| {
        report.topics["one"].known_bytes >= size
    });
    shipper.stop().exits(3);
}

/// What comes back of a truncated life at a stop is told, and told again by the next run.
#[test]
fn what_came_back_of_a_truncated_life_at_a_stop_is_told_once() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let mut config = to_broker(&broker, json!([source("*.log", "t")]));
    config["shutdown_timeout"] = json!("3s");
    let shipper = world.run(&config).start();
    log.write(["first"]);
    records(&broker, "t", 1);
    broker.fault(Fault::of(Misdeed::Silence).on(ApiKey::Produce));
    log.write(numbered(0..10));
    broker.wait_for_requests(ApiKey::Produce, 2, DEADLINE);
    let lost = (6, log.size());
    log.truncate();
    log.write(["next life"]);
    world.status_until("the next life", |report| {
        report.files.iter().any(|file| file.generation == 1)
    });
    sleep(Duration::from_millis(1500));
    let ended = shipper.stop();
    assert_eq!(ranges(&ended.losses()), [lost]);
    broker.clear_faults();
    let shipper = world.run(&config).start();
    sleep(Duration::from_millis(1500));
    let ended = shipper.stop();
    assert_eq!(ranges(&ended.losses()), [], "told twice");
}

/// Lines that came back for the topic of before, of a file that is deleted.
#[test]
fn lines_of_the_topic_of_before_of_a_deleted_file_are_sent_or_told() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |topic: &str| stops_within(&broker, "*.log", topic, "300ms");
    let (shipper, known) = changes_topic_while_denied(&broker, &world, &mut log, &to);
    log.delete();
    sleep(LET_GO_AFTER);
    broker.clear_faults();
    sleep(LET_GO_AFTER);
    let ended = shipper.stop();
    let arrived = values(&broker, "one").len();
    let shipper = world.run(&to("two")).start();
    sleep(Duration::from_millis(1500));
    let again = shipper.stop();
    let told: u64 = ended
        .losses()
        .iter()
        .chain(&again.losses())
        .map(|l| l.bytes)
        .sum();
    assert!(
        arrived == 11 || told == known - 6,
        "arrived {arrived} told {told} of {}",
        known - 6
    );
}

/// The topic changed while stopped, and the file is gone: nobody tells.
#[test]
fn what_is_unread_of_a_file_that_is_gone_is_told_after_a_change_of_topic() {
    let (broker, world) = (Broker::start(), World::new());
    world.dir("logs");
    let mut log = world.log("logs/app.log");
    let to = |topic: &str| stops_within(&broker, "logs/*.log", topic, "100ms");
    stops_with_unread(&broker, &world, &mut log, &to("one"), "one");
    let size = log.size();
    log.delete();
    broker.clear_faults();
    let shipper = world.run(&to("two")).start();
    sleep(Duration::from_secs(13));
    let ended = shipper.stop();
    assert_eq!(ranges(&ended.losses()), [(4, size)]);
}

/// ... or has another name.
#[test]
fn what_is_unread_of_a_renamed_file_is_shipped_after_a_change_of_topic() {
    let (broker, world) = (Broker::start(), World::new());
    world.dir("logs");
    let mut log = world.log("logs/app.log");
    let to = |topic: &str| stops_within(&broker, "logs/*.log", topic, "100ms");
    stops_with_unread(&broker, &world, &mut log, &to("one"), "one");
    log.rename_to(world.path("logs/app.log.1"));
    broker.clear_faults();
    let shipper = world.run(&to("two")).start();
    sleep(Duration::from_secs(13));
    shipper.stop();
    assert_eq!(values(&broker, "two"), ["two", "three"]);
}

/// Two names of one file, whose topics meet and part again.
#[test]
fn two_names_of_a_file_whose_topics_meet_and_part_repeat_nothing() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("a.log");
    log.write(numbered(0..10));
    log.link_to(world.path("b.log"));
    let to = |a: &str| to_broker(&broker, json!([source("a.log", a), source("b.log", "two")]));
    let shipper = world.run(&to("one")).start();
    records(&broker, "one", 10);
    records(&broker, "two", 10);
    world.acked("one", 10);
    world.acked("two", 10);
    reload(&world, &shipper, &to("two"));
    sleep(Duration::from_secs(1));
    reload(&world, &shipper, &to("one"));
    sleep(Duration::from_secs(3));
    shipper.stop();
    let got = (values(&broker, "one").len(), values(&broker, "two").len());
    assert_eq!(got, (10, 10));
}

/// Room that is given back while the file sleeps.
#[test]
fn room_that_is_given_back_while_its_file_sleeps_waits_for_nobody() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mut config = to_stdout(json!([source("app.log", "t")]));
    config["idle_after"] = json!("100ms");
    let shipper = world.run(&config).start();
    log.write(["one", "two"]);
    shipper.delivers(["one", "two"]);
    let at = log.size();
    let writer = log.writer();
    writer.set_len(at + 4096).unwrap();
    world.status_until("the room", |report| {
        report.files.iter().any(|file| file.size == at + 4096)
    });
    world.all_asleep(1);
    writer.set_len(at).unwrap();
    sleep(Duration::from_secs(2));
    let lag = world.status().topics["t"].lag_bytes;
    log.truncate(); // all that was there is shipped
    sleep(Duration::from_secs(2));
    let ended = shipper.stop();
    assert_eq!((lag, ranges(&ended.losses())), (0, vec![]));
}

/// What was read and is on its way is cut off the file while nobody looks after it.
#[test]
fn what_is_written_over_bytes_on_their_way_is_shipped() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |sources: Value| to_broker(&broker, sources);
    let here = || json!([source("*.log", "t")]);
    let shipper = world.run(&to(here())).start();
    log.write([[b'x'; 5000]]);
    world.acked("t", 1);
    broker.pause();
    log.write(numbered(0..10));
    let end = log.size();
    world.status_until("the lines to be read", |report| {
        report.topics["t"].read_lines == 11
    });
    reload(&world, &shipper, &to(json!([source("none.log", "t")])));
    let gone = Instant::now();
    while world
        .file("app.log", "t")
        .is_some_and(|f| f.thread.is_some())
    {
        assert!(gone.elapsed() < DEADLINE);
        sleep(Duration::from_millis(5));
    }
    log.writer().set_len(5001).unwrap();
    let fresh: Vec<String> = (0..200).map(|n| format!("NEW {n:04}")).collect();
    log.write(&fresh);
    assert!(log.size() > end);
    reload(&world, &shipper, &to(here()));
    sleep(Duration::from_millis(300));
    broker.resume();
    sleep(Duration::from_secs(4));
    let ended = shipper.stop();
    let got = values(&broker, "t");
    let missing: Vec<_> = fresh.iter().filter(|line| !got.contains(line)).collect();
    assert!(
        missing.is_empty(),
        "missing {missing:?}, told {:?}",
        ended.losses()
    );
}

/// The same, and it stays short: what is known stays known for ever.
#[test]
fn lag_ends_when_a_file_is_cut_while_nobody_looks_after_it() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |sources: Value| to_broker(&broker, sources);
    let here = || json!([source("*.log", "t")]);
    let shipper = world.run(&to(here())).start();
    log.write([[b'x'; 5000]]);
    world.acked("t", 1);
    deny(&broker, &world, &mut log, "t");
    reload(&world, &shipper, &to(json!([source("none.log", "t")])));
    log.writer().set_len(5001).unwrap();
    reload(&world, &shipper, &to(here()));
    sleep(Duration::from_millis(500));
    broker.clear_faults();
    sleep(LET_GO_AFTER);
    let report = world.status();
    let ended = shipper.stop();
    let told: u64 = ended.losses().iter().map(|loss| loss.bytes).sum();
    assert_eq!((report.topics["t"].lag_bytes, told > 0), (0, true));
}

/// A link to a file of another topic is shipped too, from a restart on.
#[test]
fn a_second_name_for_another_topic_takes_no_position_from_the_first() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("z.log");
    log.write(numbered(0..10));
    let shipper = world
        .run(&to_broker(&broker, json!([source("z.log", "two")])))
        .start();
    records(&broker, "two", 10);
    world.acked("two", 10);
    shipper.stop().exits(0);
    std::os::unix::fs::symlink(log.path(), world.path("current")).unwrap();
    let both = json!([source("current", "one"), source("z.log", "two")]);
    let shipper = world.run(&to_broker(&broker, both)).start();
    sleep(Duration::from_secs(3));
    shipper.stop();
    let got = (values(&broker, "one").len(), values(&broker, "two").len());
    assert_eq!(got, (10, 10));
}

/// A source is taken away while Kafka is away: when its lines are back nothing waits.
#[test]
fn a_source_that_is_taken_away_has_no_lag_once_its_lines_are_back() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |sources: Value| to_broker(&broker, sources);
    let shipper = world.run(&to(json!([source("*.log", "t")]))).start();
    log.write(["first"]);
    world.acked("t", 1);
    broker.pause();
    sleep(Duration::from_millis(200));
    log.write(numbered(0..10));
    world.status_until("the lines to be read", |report| {
        report.topics["t"].read_lines == 11
    });
    reload(&world, &shipper, &to(json!([source("none.log", "t")])));
    sleep(LET_GO_AFTER);
    let report = world.status();
    shipper.stop();
    assert_eq!(report.topics.get("t").map_or(0, |t| t.lag_bytes), 0);
}

/// A renamed file is let go while lines of the topic of before wait in it, and its source
/// is taken away, and logship is stopped.
#[test]
fn lines_of_the_topic_of_before_of_a_file_that_was_let_go_are_sent_once() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |topic: &str| stops_within(&broker, "*.log", topic, "300ms");
    let (shipper, _) = changes_topic_while_denied(&broker, &world, &mut log, &to);
    let mut writer = log.writer();
    log.rename_to(world.path("app.log.1"));
    log.reopen();
    sleep(LET_GO_AFTER);
    // Its writer has not noticed.
    writer.write_all(b"late\n").unwrap();
    sleep(Duration::from_secs(4));
    let late = values(&broker, "two").contains(&"late".to_owned());
    broker.clear_faults();
    sleep(Duration::from_secs(4));
    shipper.stop();
    let (one, two) = (values(&broker, "one"), values(&broker, "two"));
    assert!(
        late && one.len() == 11 && two.len() == 2,
        "late {late} one {} two {}",
        one.len(),
        two.len()
    );
}

/// ... and the file is deleted while logship is stopped.
#[test]
fn lines_of_the_topic_of_before_of_a_file_that_was_let_go_are_told_after_a_stop() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let to = |topic: &str| stops_within(&broker, "*.log", topic, "300ms");
    let (shipper, known) = changes_topic_while_denied(&broker, &world, &mut log, &to);
    log.rename_to(world.path("app.log.1"));
    log.reopen();
    sleep(LET_GO_AFTER);
    shipper.stop();
    std::fs::remove_file(world.path("app.log.1")).unwrap();
    let shipper = world.run(&to("two")).start();
    sleep(Duration::from_secs(3));
    let ended = shipper.stop();
    assert_eq!(ranges(&ended.losses()), [(6, known)]);
}

/// What is known and not read is cut off while logship is stopped: it went without a word.
#[test]
fn what_is_cut_off_the_end_of_a_file_while_logship_is_stopped_is_told() {
    let one = "x".repeat(4999); // it is the file that it was by more than its head
    // All that is unread, or a line of it; of a file that has its name still, or another.
    for (left, name) in [(5000, "app.log"), (5004, "app.log"), (5000, "app.log.1")] {
        let (broker, world) = (Broker::start(), World::new());
        let mut log = world.log("app.log");
        let config = stops_within(&broker, "*.log", "one", "100ms");
        stops_with_unread(&broker, &world, &mut log, &config, &one);
        let size = log.size();
        let writer = log.writer();
        if name != "app.log" {
            log.rename_to(world.path(name));
        }
        writer.set_len(left).unwrap();
        broker.clear_faults();
        let shipper = world.run(&config).start();
        shipper.says("lost path=");
        let lines = 1 + usize::from(left == 5004);
        records(&broker, "one", lines);
        world.status_until("no lag", |report| report.topics["one"].lag_bytes == 0);
        let ended = shipper.stop().exits(0);
        assert_eq!(ranges(&ended.losses()), [(left, size)], "{name}");
        assert_eq!(values(&broker, "one").len(), lines, "{name}");
    }
}

/// ... and where nothing was shipped, another file may have taken its place, with an equal
/// head: what was known of the one before was its own.
#[test]
fn a_shorter_file_with_an_equal_head_is_another_one_where_nothing_was_shipped() {
    let (broker, world) = (Broker::start(), World::new());
    let mut log = world.log("app.log");
    let config = stops_within(&broker, "*.log", "one", "100ms");
    broker.fault(Fault::of(Misdeed::Error(29)).on(ApiKey::Produce));
    let shipper = world.run(&config).start();
    let head = "x".repeat(4999);
    log.write([&head, "two", "three"]);
    let size = log.size();
    world.status_until("all known", |report| {
        report
            .topics
            .get("one")
            .is_some_and(|t| t.known_bytes >= size)
    });
    shipper.stop().exits(3);
    std::fs::write(log.path(), format!("{head}\nnew\n")).unwrap();
    broker.clear_faults();
    let shipper = world.run(&config).start();
    records(&broker, "one", 2);
    let ended = shipper.stop().exits(0);
    assert_eq!(ranges(&ended.losses()), [(0, size)]);
    assert_eq!(values(&broker, "one"), [&head, "new"]);
}

/// ... and what was room only is no loss, and waits for nobody.
#[test]
fn room_that_is_given_back_while_logship_is_stopped_is_no_loss() {
    let world = World::new();
    let mut log = world.log("app.log");
    let config = to_stdout(json!([source("app.log", "t")]));
    log.write(["one", "two"]);
    let at = log.size();
    let writer = log.writer();
    writer.set_len(at + 4096).unwrap();
    let shipper = world.run(&config).start();
    shipper.delivers(["one", "two"]);
    world.status_until("no lag", |report| report.topics["t"].lag_bytes == 0);
    shipper.stop().exits(0);
    writer.set_len(at).unwrap();
    let shipper = world.run(&config).start();
    log.write(["three"]);
    shipper.delivers(["three"]);
    let ended = shipper.stop().exits(0);
    assert_eq!(ranges(&ended.losses()), []);
}
