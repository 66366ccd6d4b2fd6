//! What befalls a cluster of three nodes while a steady writer's lines are shipped
//! to it, and what came of each line.
//!
//! An ordinary run has a few faults once; `LOGSHIP_FAILOVER_ROUNDS` has all of them
//! so many times, and `tests/run failover` sets it.

mod fault;
mod outcome;
mod scene;

use crate::kafka::Kafka;

use fault::Fault;
use outcome::Table;
use scene::Scene;

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn no_fault_of_a_cluster_loses_repeats_or_misorders_a_line() {
    let rounds = std::env::var("LOGSHIP_FAILOVER_ROUNDS").ok();
    let (faults, rounds) = match rounds {
        Some(rounds) => (&Fault::ALL[..], rounds.parse().expect("a number of rounds")),
        None => (&Fault::QUICK[..], 1),
    };
    let kafka = Kafka::cluster();
    let mut table = Table::begin();
    for round in 1..=rounds {
        for &fault in faults {
            let scene = Scene::begin(&kafka);
            let struck = fault.strike(&scene);
            table.add(fault, round, scene.end(struck));
        }
    }
    table.end();
}
