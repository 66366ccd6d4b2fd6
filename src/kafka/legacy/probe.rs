//! Tries whether the legacy client can write to a cluster, and sends no record.
//!
//! It reaches the brokers that are named. No topic is made: all are asked for.

use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::super::address::Address;
use super::super::connection::{Connection, Event, spawn};
use super::super::error::{Cause, ConnectionError, ErrorCode, Stage};
use super::super::probe::Check;
use super::super::producer::Options;
use super::answers::Known;
use super::worker::{Command, Said, Worker};

/// Everything about one broker.
const BROKER_MAX: Duration = Duration::from_secs(10);

/// Tries the brokers one after the other, ten seconds each at most, then the topics.
pub fn probe(options: &Options, topics: &[String]) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut known = None;
    for broker in &options.bootstrap {
        let deadline = Instant::now() + BROKER_MAX;
        let reached = reach(broker, options, deadline);
        match reached.and_then(|()| ask(broker, options, topics, deadline)) {
            Ok(found) => {
                passes(&mut checks, broker, &["DNS lookup", "TCP connect"]);
                let detail = "with the legacy client".to_owned();
                checks.push(check(format!("{broker}: metadata"), Ok(detail)));
                known.get_or_insert(found);
            }
            Err(error) => fails(&mut checks, broker, &error),
        }
    }
    if let Some(known) = known {
        let outcome = |topic: &Known| check(format!("topic {}", topic.name), leaders(topic));
        checks.extend(known.iter().map(outcome));
    }
    checks
}

/// Tries whether a broker is there, and takes what this client writes.
fn reach(broker: &Address, options: &Options, deadline: Instant) -> Result<(), ConnectionError> {
    let (events, said) = bounded(2);
    let connection = Connection::open(0, broker.clone(), options.dial(), events);
    let failed = |stage, cause| {
        Err(ConnectionError {
            address: broker.clone(),
            stage,
            cause,
        })
    };
    let is_plain = |error: &ConnectionError| {
        matches!(error.stage, Stage::Dns | Stage::Tcp) || matches!(error.cause, Cause::SpeaksTls)
    };
    match said.recv_deadline(deadline) {
        Ok(Event::Up(_, versions)) if versions.batches_only => {
            let problem = "the broker is Kafka 4 or newer, which takes nothing of this client";
            failed(Stage::Legacy, Cause::Version(problem.to_owned()))
        }
        Ok(Event::Down(_, error)) if is_plain(&error) => Err(error),
        // Who does not know the question is old.
        Ok(_) => Ok(()),
        Err(_) => match connection.stage() {
            stage @ (Stage::Dns | Stage::Tcp) => failed(stage, Cause::Silence(BROKER_MAX)),
            _ => Ok(()),
        },
    }
}

/// What a broker knows of the topics.
fn ask(
    broker: &Address,
    options: &Options,
    topics: &[String],
    deadline: Instant,
) -> Result<Vec<Known>, ConnectionError> {
    let (commands, queue) = bounded(1);
    let (events, said) = bounded(2);
    let worker = Worker {
        id: 0,
        options: Options {
            bootstrap: vec![broker.clone()],
            ..options.clone()
        },
        commands: queue,
        events,
    };
    let failed = |stage, cause| ConnectionError {
        address: broker.clone(),
        stage,
        cause,
    };
    spawn("kafka:probe:legacy".to_owned(), move || worker.run())
        .map_err(|error| failed(Stage::Tcp, Cause::Io(error)))?;
    let _ = commands.try_send((Command::Look(topics.to_vec()), deadline));
    match said.recv_deadline(deadline).map(|event| event.said) {
        Ok(Said::Leaders(_, topics)) => Ok(topics),
        Ok(Said::Down(error)) => Err(error),
        _ => Err(failed(Stage::Legacy, Cause::Silence(BROKER_MAX))),
    }
}

fn check(name: String, outcome: Result<String, String>) -> Check {
    Check { name, outcome }
}

fn passes(checks: &mut Vec<Check>, broker: &Address, steps: &[&str]) {
    let step = |step: &&str| check(format!("{broker}: {step}"), Ok(String::new()));
    checks.extend(steps.iter().map(step));
}

fn fails(checks: &mut Vec<Check>, broker: &Address, error: &ConnectionError) {
    let (before, step): (&[&str], _) = match (error.stage, &error.cause) {
        (Stage::Dns, _) => (&[], "DNS lookup"),
        (Stage::Tcp, _) => (&["DNS lookup"], "TCP connect"),
        (_, Cause::Version(_) | Cause::SpeaksTls) => {
            (&["DNS lookup", "TCP connect"], "Kafka handshake")
        }
        _ => (&["DNS lookup", "TCP connect"], "metadata"),
    };
    passes(checks, broker, before);
    let problem = format!("{} ({})", error.cause, error.hint());
    checks.push(check(format!("{broker}: {step}"), Err(problem)));
}

fn leaders(topic: &Known) -> Result<String, String> {
    let leaders = &topic.leaders;
    let headless = leaders.iter().filter(|leader| leader.is_none()).count();
    match (leaders.len(), headless) {
        (0, _) if topic.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Ok(
            "it does not exist yet, and is made on first use if auto.create.topics.enable is on"
                .to_owned(),
        ),
        (0, _) => Err(topic.code.to_string()),
        (1, 0) => Ok("1 partition".to_owned()),
        (count, 0) => Ok(format!("{count} partitions")),
        (count, headless) => Err(format!(
            "{headless} of {count} partitions have no leader (start the brokers that hold them)"
        )),
    }
}
