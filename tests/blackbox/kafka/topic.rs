//! A topic of a real Kafka and what is in it, as kcat reads it.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::DEADLINE;
use crate::world::{Log, Logship, World};

/// A topic and the brokers it is on.
pub struct Topic {
    /// Its name.
    pub name: String,
    brokers: String,
}

impl Topic {
    /// One that no other test and no earlier run has. It is made when it is written to.
    pub fn at(brokers: &str) -> Topic {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Topic {
            name: format!("test-{}-{number}", std::process::id()),
            brokers: brokers.to_owned(),
        }
    }

    /// `logship tail` to it, with state, from the beginning.
    pub fn tail(&self, world: &World, logs: &[&Log]) -> Logship {
        let paths = logs
            .iter()
            .map(|log| log.path().to_owned().into_os_string());
        world
            .logship(["tail".into()].into_iter().chain(paths))
            .args(["--topic", &self.name, "--brokers", &self.brokers])
            .args(["--from", "beginning"])
            .with_state()
    }

    /// All values by partition, in order of offsets.
    #[track_caller]
    pub fn partitions(&self) -> BTreeMap<i32, Vec<Vec<u8>>> {
        self.read()
            .unwrap_or_else(|problem| panic!("kcat: {problem}"))
    }

    /// All records as kcat prints them when it is given these options.
    pub fn kcat(&self, options: &[&str]) -> Result<Vec<u8>, String> {
        let out = kcat()
            .args(["-b", &self.brokers, "-C", "-t", &self.name])
            .args(["-o", "beginning", "-e", "-q", "-X", "check.crcs=true"])
            .args(options)
            .output()
            .expect("kcat is installed: run tests/run");
        match out.status.success() {
            true => Ok(out.stdout),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }

    fn read(&self) -> Result<BTreeMap<i32, Vec<Vec<u8>>>, String> {
        // %R is the value's length as four bytes: values may hold anything.
        let printed = self.kcat(&["-f", "%p %R%s"])?;
        let mut found: BTreeMap<i32, Vec<Vec<u8>>> = BTreeMap::new();
        let mut rest = &printed[..];
        while let Some(space) = rest.iter().position(|&byte| byte == b' ') {
            let partition = std::str::from_utf8(&rest[..space])
                .unwrap()
                .parse()
                .unwrap();
            let (length, tail) = rest[space + 1..].split_first_chunk().unwrap();
            let (value, tail) = tail.split_at(i32::from_be_bytes(*length) as usize);
            found.entry(partition).or_default().push(value.to_vec());
            rest = tail;
        }
        Ok(found)
    }

    /// `logship verify` of what kcat shows.
    pub fn verify(&self, world: &World, pattern: &str) -> Logship {
        let captured = self.kcat(&["-J"]).unwrap();
        world.verify([world.path(pattern)], captured)
    }

    /// All values, partition after partition.
    #[track_caller]
    pub fn values(&self) -> Vec<Vec<u8>> {
        self.partitions().into_values().flatten().collect()
    }

    /// Waits until it holds so many records.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            // Before the first line the topic does not exist.
            let found = self.read().unwrap_or_default();
            let values: Vec<Vec<u8>> = found.into_values().flatten().collect();
            if values.len() >= count {
                return values;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count} records in topic {}",
                values.len(),
                self.name
            );
        }
    }
}

/// The system's kcat with the system's librdkafka: Cargo leads programs that tests start
/// to the one that was built for the mock cluster, which knows no TLS.
pub fn kcat() -> Command {
    let mut command = Command::new("kcat");
    command.env_remove("LD_LIBRARY_PATH");
    command
}
