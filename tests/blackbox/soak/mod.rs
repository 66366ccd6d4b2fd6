//! Random actions on the real `logship`, against a model that knows what must
//! arrive: nothing is missing, nothing is twice, and what is lost is said.
//!
//! `LOGSHIP_SOAK_SEED` runs that seed alone, `LOGSHIP_SOAK_STEPS` or
//! `LOGSHIP_SOAK_MINUTES` says for how long; `tests/run soak` sets them.

mod model;
mod stage;

use std::str::FromStr;
use std::time::{Duration, Instant};

use stage::{Act, Stage};

/// Steps of an ordinary test run.
const STEPS: usize = 100;

/// The one that is asked for other seeds.
#[test]
fn random_actions_lose_nothing() {
    let minutes: Option<f64> = variable("LOGSHIP_SOAK_MINUTES");
    let until = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes));
    let seed = variable("LOGSHIP_SOAK_SEED").unwrap_or(1);
    run(seed, until, variable("LOGSHIP_SOAK_STEPS").unwrap_or(STEPS));
}

#[test]
fn random_actions_lose_nothing_with_seed_2() {
    run(2, None, STEPS);
}

#[test]
fn random_actions_lose_nothing_with_seed_3() {
    run(3, None, STEPS);
}

fn run(seed: u64, until: Option<Instant>, steps: usize) {
    let begun = Instant::now();
    let mut stage = Stage::new(seed);
    let goes_on = |stage: &Stage| match until {
        Some(until) => Instant::now() < until,
        None => stage.steps < steps,
    };
    while goes_on(&stage) {
        stage.step();
    }
    stage.settle();
    println!("{}", result(seed, begun.elapsed(), &stage));
    assert_eq!(stage.model.tally.missing(), 0, "lines nothing accounts for");
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let Ok(value) = text.parse() else {
        panic!("{name}: '{text}' is no number");
    };
    Some(value)
}

/// One line that says what was done and what came of it. Whoever adds several up
/// takes the highest of a figure whose name ends in `_max`.
fn result(seed: u64, time: Duration, stage: &Stage) -> String {
    let tally = &stage.model.tally;
    let count = |act: Act| stage.acts.get(&act).copied().unwrap_or(0);
    let excused: usize = tally.excused.values().map(|(lines, _)| lines).sum();
    let (first, usage) = (stage.usage_first.unwrap_or_default(), stage.usage);
    let mut line = format!(
        "soak seed={seed} minutes={:.1} steps={} kills={} stops={} broker_faults={} lives={} lines={} bytes={} \
         delivered={} empty={} dropped={} lost={} excused={excused} missing={} repeated={} copied={} \
         crashes={} \
         repeated_after_one_crash_max={} of_possible_max={} repeated_span_ms_max={} lost_reports={} \
         lost_bytes={} ends_seen={} ends_unseen={} memory_first_max={} memory_max={} handles_max={} \
         threads_max={}",
        time.as_secs_f64() / 60.0,
        stage.steps,
        count(Act::Kill) + count(Act::KillRested),
        count(Act::Stop),
        stage.faults,
        tally.lives,
        tally.lines,
        tally.bytes,
        tally.delivered,
        tally.empty,
        tally.dropped,
        tally.lost,
        tally.missing(),
        tally.repeated,
        tally.copied,
        tally.crashes,
        tally.repeated_max.0,
        tally.repeated_max.1,
        tally.repeated_span.as_millis(),
        tally.lost_reports,
        tally.lost_bytes,
        stage.seen.0,
        stage.seen.1,
        first.memory,
        usage.memory,
        usage.handles,
        usage.threads,
    );
    for (reason, (lines, bytes)) in &tally.excused {
        let reason = reason.replace(' ', "-");
        line += &format!(" excused-{reason}={lines} excused-bytes-{reason}={bytes}");
    }
    for (act, times) in &stage.acts {
        line += &format!(" act-{act:?}={times}");
    }
    line
}
