//! The faults: what is done to the cluster, and how it is made whole again.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use super::scene::Scene;

/// How long a node is stopped with SIGSTOP.
const SILENCE: Duration = Duration::from_secs(12);
/// How long lines cannot be written at all.
const OUTAGE: Duration = Duration::from_secs(6);

/// What befalls the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing, to compare with.
    Nothing,
    /// kill -9 of a node that leads; it is back when lines flow again.
    KillLeader,
    /// One node after the other is stopped properly and started again.
    Roll,
    /// Two of three nodes are killed: no quorum, nobody can take a line.
    TwoAway,
    /// A node is killed and the topic asks for all three.
    TooFewReplicas,
    /// Every partition gets another leader, three times.
    MoveLeaders,
    /// The topic gets twice as many partitions.
    AddPartitions,
    /// The topic is deleted and made again after a while.
    RecreateTopic,
    /// A node that leads is silent for a while, its connections open.
    PauseLeader,
}

/// What a fault did.
pub struct Struck {
    /// How soon everything was acknowledged that had been written when it was over.
    pub recovery: Duration,
    /// For each file, how many of its first lines were acknowledged and then deleted
    /// with their topic.
    pub deleted: Vec<usize>,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 9] = [
        Fault::Nothing,
        Fault::KillLeader,
        Fault::Roll,
        Fault::TwoAway,
        Fault::TooFewReplicas,
        Fault::MoveLeaders,
        Fault::AddPartitions,
        Fault::RecreateTopic,
        Fault::PauseLeader,
    ];
    /// Those of an ordinary run.
    pub const QUICK: [Fault; 3] = [Fault::KillLeader, Fault::MoveLeaders, Fault::RecreateTopic];

    /// Lets it happen to a running scene, which has recovered when this returns.
    pub fn strike(self, scene: &Scene) -> Struck {
        match self {
            Fault::Nothing => scene.recovers(Instant::now()),
            Fault::KillLeader => kill_leader(scene),
            Fault::Roll => roll(scene),
            Fault::TwoAway => two_away(scene),
            Fault::TooFewReplicas => too_few_replicas(scene),
            Fault::MoveLeaders => move_leaders(scene),
            Fault::AddPartitions => add_partitions(scene),
            Fault::RecreateTopic => recreate_topic(scene),
            Fault::PauseLeader => pause_leader(scene),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Fault::Nothing => "nothing",
            Fault::KillLeader => "kill -9 a leader",
            Fault::Roll => "stop and start each",
            Fault::TwoAway => "two of three away",
            Fault::TooFewReplicas => "too few replicas",
            Fault::MoveLeaders => "move all leaders",
            Fault::AddPartitions => "add partitions",
            Fault::RecreateTopic => "delete and re-create",
            Fault::PauseLeader => "SIGSTOP a leader",
        })
    }
}

/// The others take over, so it counts from the kill.
fn kill_leader(scene: &Scene) -> Struck {
    let kafka = scene.kafka;
    let leader = scene.leader();
    kafka.kill(leader);
    let struck = scene.recovers(Instant::now());
    kafka.restart(leader);
    kafka.is_in_sync(scene.topic());
    struck
}

fn roll(scene: &Scene) -> Struck {
    let kafka = scene.kafka;
    for id in kafka.ids() {
        kafka.stop(id);
        kafka.restart(id);
        kafka.is_in_sync(scene.topic());
    }
    scene.recovers(Instant::now())
}

fn two_away(scene: &Scene) -> Struck {
    let kafka = scene.kafka;
    let ids = kafka.ids();
    let away = &ids[..2];
    for &id in away {
        kafka.kill(id);
    }
    thread::sleep(OUTAGE);
    for &id in away {
        kafka.launch(id);
    }
    // One of them is a quorum and a second replica; which comes first is not said.
    for &id in away {
        kafka.serves(id);
    }
    let struck = scene.recovers(Instant::now());
    kafka.is_in_sync(scene.topic());
    struck
}

fn too_few_replicas(scene: &Scene) -> Struck {
    let kafka = scene.kafka;
    kafka.alter_topic(scene.topic(), "min.insync.replicas", "3");
    let leader = scene.leader();
    kafka.kill(leader);
    scene.says("NOT_ENOUGH_REPLICAS");
    thread::sleep(OUTAGE);
    kafka.restart(leader);
    kafka.is_in_sync(scene.topic());
    scene.recovers(Instant::now())
}

fn move_leaders(scene: &Scene) -> Struck {
    for _ in 0..3 {
        scene.kafka.move_leaders(scene.topic());
    }
    scene.recovers(Instant::now())
}

fn add_partitions(scene: &Scene) -> Struck {
    let kafka = scene.kafka;
    let count = kafka.partitions(scene.topic()).len();
    kafka.add_partitions(scene.topic(), i32::try_from(2 * count).unwrap());
    scene.recovers(Instant::now())
}

fn recreate_topic(scene: &Scene) -> Struck {
    let kafka = scene.kafka;
    kafka.delete_topic(scene.topic());
    scene.says(&format!("topic '{}' does not take lines", scene.topic()));
    thread::sleep(OUTAGE);
    let deleted = scene.acked();
    scene.create_topic();
    Struck {
        deleted,
        ..scene.recovers(Instant::now())
    }
}

fn pause_leader(scene: &Scene) -> Struck {
    let kafka = scene.kafka;
    let leader = scene.leader();
    kafka.pause(leader);
    thread::sleep(SILENCE);
    kafka.resume(leader);
    let struck = scene.recovers(Instant::now());
    kafka.is_in_sync(scene.topic());
    struck
}
