//! What a server is told: its properties, most of them from the file that
//! `tests/run` starts its own Kafka with.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use super::service_file;

/// After kill -9 a node is missed for this long, and waited for when it is back.
/// Kafka's default is 9 s, which is a long time for a test.
const SESSION_MS: &str = "3000";
const HEARTBEAT_MS: &str = "500";

/// Keys and values, in the format of Java.
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// A node that is broker and controller, one of those with these ports.
    pub fn of_node(id: i32, ports: &[(u16, u16)]) -> Properties {
        let (port, controller_port) = ports[usize::try_from(id).unwrap() - 1];
        let mut properties = Properties::of_template(port, controller_port);
        let voters = ports
            .iter()
            .enumerate()
            .map(|(at, (_, port))| format!("{}@127.0.0.1:{port}", at + 1));
        properties
            .set("node.id", id)
            .set(
                "controller.quorum.voters",
                voters.collect::<Vec<_>>().join(","),
            )
            .set("broker.session.timeout.ms", SESSION_MS)
            .set("broker.heartbeat.interval.ms", HEARTBEAT_MS);
        properties
    }

    /// A node that keeps its metadata in ZooKeeper.
    pub fn of_old_node(port: u16, zookeeper_port: u16) -> Properties {
        let mut properties = Properties::of_template(port, 0);
        for key in [
            "process.roles",
            "node.id",
            "controller.quorum.voters",
            "controller.listener.names",
            "listener.security.protocol.map",
        ] {
            properties.0.remove(key);
        }
        properties
            .set("broker.id", 1)
            .set("listeners", format!("PLAINTEXT://127.0.0.1:{port}"))
            .set("zookeeper.connect", format!("127.0.0.1:{zookeeper_port}"))
            .set("zookeeper.session.timeout.ms", SESSION_MS);
        properties
    }

    /// ZooKeeper itself.
    pub fn of_zookeeper(port: u16) -> Properties {
        let mut properties = Properties(BTreeMap::new());
        properties
            .set("clientPort", port)
            .set("clientPortAddress", "127.0.0.1")
            .set("dataDir", "data")
            .set("tickTime", 500)
            .set("admin.enableServer", "false");
        properties
    }

    fn of_template(port: u16, controller_port: u16) -> Properties {
        let text = fs::read_to_string(service_file("server.properties")).unwrap();
        let text = text
            .replace("@BROKER_PORT@", &port.to_string())
            .replace("@CONTROLLER_PORT@", &controller_port.to_string());
        let pairs = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        Properties(pairs.collect())
    }

    /// The value of a key.
    #[track_caller]
    pub fn get(&self, key: &str) -> &str {
        &self.0[key]
    }

    /// Sets a key.
    pub fn set(&mut self, key: &str, value: impl ToString) -> &mut Properties {
        self.0.insert(key.to_owned(), value.to_string());
        self
    }

    /// Adds to a list with commas.
    pub fn add(&mut self, key: &str, value: &str) -> &mut Properties {
        let list = format!("{},{value}", self.get(key));
        self.set(key, list)
    }
}

impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.0 {
            writeln!(f, "{key}={value}")?;
        }
        Ok(())
    }
}
