//! The checkpoint on a disk that loses power and fills up: tests.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::disk::power::{Bytes, PowerDisk, Survivors};

/// Positions by file.
type Positions = BTreeMap<u64, u64>;

const FILES: u64 = 3;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EIO: i32 = 5;

fn checkpoint(disk: &PowerDisk) -> Checkpoint<PowerDisk> {
    Checkpoint {
        disk: disk.clone(),
        dir: PathBuf::from("/state"),
        host: "here".to_owned(),
        used_before: false,
    }
}

fn entries(positions: &Positions) -> Vec<Entry> {
    let entry = |(&inode, &position): (&u64, &u64)| Entry {
        origin: Origin {
            path: PathBuf::from(format!("/log/{inode}")),
            real: None,
            topic: "t".into(),
            device: 1,
            inode,
            generation: 0,
            created_ns: None,
        },
        head: Mark::default(),
        position,
        beyond: vec![(position + 10, position + 20)],
        window: Mark::default(),
        size: position + 20,
        seen: 1_700_000_000,
        complete: false,
        found_at: None,
        ended: false,
    };
    positions.iter().map(entry).collect()
}

fn positions(memory: &Memory) -> Positions {
    let position = |entry: &Entry| (entry.origin.inode, entry.position);
    memory.entries.iter().map(position).collect()
}

/// Every file at or after where `least` has it, and none after `most`.
fn lies_between(least: &Positions, loaded: &Positions, most: &Positions) -> bool {
    let at = |positions: &Positions, file| positions.get(file).copied().unwrap_or(0);
    let behind = least.keys().any(|file| at(loaded, file) < at(least, file));
    let ahead = loaded.keys().any(|file| at(loaded, file) > at(most, file));
    let forgotten = least.keys().any(|file| !loaded.contains_key(file));
    !behind && !ahead && !forgotten
}

/// The renames of the two generations leave moments in which one name is missing;
/// what is found then must be what was last promised, or what was being written.
#[test]
fn after_a_power_cut_at_any_step_the_last_promised_checkpoint_or_a_newer_one_is_found() {
    let states: Vec<Positions> = (1..=4).map(|n| [(1, n * 100)].into()).collect();
    let (mut steps, mut cuts) = (0, 0);
    for at in 0.. {
        let disk = PowerDisk::default();
        disk.cut_power_at(at);
        let saved = |state: &&Positions| checkpoint(&disk).save(&entries(state)).is_ok();
        let promised = states.iter().take_while(saved).count();
        for survivors in Survivors::all(&disk) {
            let what = format!("cut at {at}, {survivors:?}, {promised} promised");
            let memory = checkpoint(&disk.after_power_cut(survivors)).load();
            let found = states.iter().position(|s| entries(s) == memory.entries);
            match found {
                Some(n) => assert!(n + 1 >= promised, "{what}: found {n}"),
                None => assert!(promised == 0 && memory == Memory::default(), "{what}"),
            }
            assert!(!memory.damaged, "{what}");
            cuts += 1;
        }
        steps = at;
        if promised == states.len() {
            break;
        }
    }
    assert!(steps >= 4 * 6 && cuts > 500, "{cuts} cuts at {steps} steps");
}

/// One run of logship on a disk, and how it ends.
#[derive(Debug, Clone)]
struct Run {
    /// By how much which file gets on before each save.
    saves: Vec<(u64, u64)>,
    /// How many steps after its start the power goes.
    power: usize,
    /// A step that fails by itself, and how.
    fails: Option<(usize, i32)>,
    /// The disk fills up so many bytes after the start, until the save after next.
    fills_up: Option<usize>,
    survivors: Survivors,
    /// What becomes of the newest generation while the machine is off.
    damage: Option<Damage>,
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Emptied,
    Zeroed,
    CutShort,
    Garbled,
}

impl Damage {
    fn happen(self, disk: &PowerDisk) {
        let path = Path::new("/state").join(NEWEST);
        let Ok(bytes) = disk.read(&path) else { return };
        disk.damage(
            &path,
            &match self {
                Damage::Emptied => Vec::new(),
                Damage::Zeroed => vec![0; bytes.len()],
                Damage::CutShort => bytes[..bytes.len() / 2].to_vec(),
                Damage::Garbled => b"garbage".to_vec(),
            },
        );
    }
}

fn survivors() -> impl Strategy<Value = Survivors> {
    let bytes = [Bytes::Gone, Bytes::Zeros, Bytes::Half, Bytes::There];
    let bytes = proptest::sample::select(bytes.to_vec());
    (bytes, 0..64_usize, any::<bool>()).prop_map(|(bytes, names, backwards)| Survivors {
        bytes,
        names,
        backwards,
    })
}

fn run(damage: impl Strategy<Value = Option<Damage>>) -> impl Strategy<Value = Run> {
    let error = proptest::sample::select(vec![ENOSPC, EROFS, EIO]);
    let saves = vec((0..FILES, 1..50_u64), 0..6);
    let fails = proptest::option::of((3..40_usize, error));
    let fills_up = proptest::option::of(0..3_000_usize);
    (saves, 0..45_usize, fails, fills_up, survivors(), damage).prop_map(
        |(saves, power, fails, fills_up, survivors, damage)| Run {
            saves,
            power,
            fails,
            fills_up,
            survivors,
            damage,
        },
    )
}

fn damage() -> impl Strategy<Value = Option<Damage>> {
    let damages = [
        Damage::Emptied,
        Damage::Zeroed,
        Damage::CutShort,
        Damage::Garbled,
    ];
    proptest::option::of(proptest::sample::select(damages.to_vec()))
}

/// What is known from outside of a logship that starts again and again.
#[derive(Default)]
struct Model {
    acked: Positions,
    promised: Positions,
}

impl Model {
    /// Runs it until the power goes. `None` when it went before all was read.
    fn run(&mut self, disk: &PowerDisk, run: &Run) -> Option<Memory> {
        disk.cut_power_at(run.power);
        let memory = checkpoint(disk).load();
        let off = disk.steps() >= run.power;
        if off {
            return None;
        }
        if let Some((step, errno)) = run.fails {
            disk.fail_at(disk.steps() + step, errno);
        }
        if let Some(bytes) = run.fills_up {
            disk.fill_up_after(bytes);
        }
        let mut now = positions(&memory);
        if memory.damaged {
            self.promised.clone_from(&now); // it is all there is to go on from
        }
        for (n, (file, further)) in run.saves.iter().enumerate() {
            if n == 2 {
                disk.make_room();
            }
            *now.entry(*file).or_default() += further;
            for (file, position) in &now {
                let acked = self.acked.entry(*file).or_default();
                *acked = (*acked).max(*position);
            }
            if checkpoint(disk).save(&entries(&now)).is_ok() {
                self.promised.clone_from(&now);
            }
        }
        Some(memory)
    }
}

/// Starts logship again and again, and checks what each start finds with what was
/// promised and what was acknowledged before.
fn live(
    runs: Vec<Run>,
    check: impl Fn(&Memory, &Positions, &Positions) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut disk = PowerDisk::default();
    for run in runs {
        let (promised, acked) = (model.promised.clone(), model.acked.clone());
        if let Some(memory) = model.run(&disk, &run) {
            check(&memory, &promised, &acked)?;
        }
        disk = disk.after_power_cut(run.survivors);
        if let Some(damage) = run.damage {
            damage.happen(&disk);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// However often the power goes, also while the last cut is being recovered
    /// from: not beyond what was acknowledged, not behind what was promised.
    #[test]
    fn positions_lie_between_the_promised_and_the_acknowledged_after_any_power_cuts(
        runs in vec(run(Just(None)), 1..6)
    ) {
        live(runs, |memory, promised, acked| {
            let loaded = positions(memory);
            prop_assert!(
                lies_between(promised, &loaded, acked),
                "{:?} <= {:?} <= {:?}", promised, loaded, acked
            );
            prop_assert!(!memory.damaged);
            prop_assert_eq!(memory.continued, !loaded.is_empty());
            Ok(())
        })?;
    }

    /// The newest generation is damaged as well, now and then. Lines may come again
    /// then, but nothing is beyond what was acknowledged, and a logship that forgot
    /// something knows that it did: it must not begin at a file's end.
    #[test]
    fn a_start_that_has_forgotten_something_knows_it(runs in vec(run(damage()), 1..6)) {
        live(runs, |memory, promised, acked| {
            let loaded = positions(memory);
            let least = if memory.damaged { &Positions::new() } else { promised };
            prop_assert!(
                lies_between(least, &loaded, acked),
                "{:?} <= {:?} <= {:?}", least, loaded, acked
            );
            prop_assert!(memory.continued || promised.is_empty());
            Ok(())
        })?;
    }
}
