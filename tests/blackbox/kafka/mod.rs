//! A real Kafka for a test: of every version that people run, one node or a
//! cluster, with its data in a temporary directory, all gone when the test is over.
//!
//! What is done to topics goes through requests of its own ([`admin`]), what is in
//! them is read by kcat ([`topic`]), so that neither depends on what is tested.
//! `tests/run` fetches the jars.

mod admin;
mod jvm;
mod properties;
mod topic;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

pub use admin::exchange;
pub use jvm::Version;
use jvm::{Jvm, Program};
pub use properties::Properties;
pub use topic::{Topic, kcat};

use crate::etcd::free_port;

/// How long anything may take that must happen. Only a failing test waits for it.
pub const DEADLINE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often other ports are tried when somebody took the first ones.
const STARTS_MAX: usize = 3;
/// Any 16 bytes in base64; a fresh log makes it a new cluster all the same.
const CLUSTER_ID: &str = "bG9nc2hpcC10ZXN0cy0tLQ";

/// A running Kafka.
pub struct Kafka {
    version: Version,
    nodes: Vec<Node>,
    /// Kafka 2.8 keeps its metadata there. Ends after the nodes.
    zookeeper: Option<Jvm>,
    dir: TempDir,
}

struct Node {
    id: i32,
    address: String,
    properties: Properties,
    jvm: Jvm,
}

impl Kafka {
    /// One node, that makes unknown topics with four partitions.
    pub fn start(version: Version) -> Kafka {
        Kafka::begin(version, 1, &|_| (), &[])
    }

    /// Three nodes of the newest version; see [`Kafka::cluster_of`].
    pub fn cluster() -> Kafka {
        Kafka::cluster_of(Version::V4_3)
    }

    /// Three nodes. A topic is on all of them and takes lines as long as two are there,
    /// and is only made when somebody asks for it.
    pub fn cluster_of(version: Version) -> Kafka {
        let replicated = |properties: &mut Properties| {
            properties
                .set("auto.create.topics.enable", "false")
                .set("default.replication.factor", "3")
                .set("min.insync.replicas", "2");
        };
        Kafka::begin(version, 3, &replicated, &[])
    }

    /// One node of the newest version with properties of its own and arguments for
    /// the tool that formats its log.
    pub fn with(adapt: &dyn Fn(&mut Properties), format: &[String]) -> Kafka {
        Kafka::begin(Version::V4_3, 1, adapt, format)
    }

    fn begin(
        version: Version,
        count: usize,
        adapt: &dyn Fn(&mut Properties),
        format: &[String],
    ) -> Kafka {
        for _ in 0..STARTS_MAX {
            let kafka = Kafka::make(version, count, adapt);
            kafka.launch_all(format);
            if (0..count).all(|node| kafka.is_ready_in_time(node)) {
                return kafka;
            }
            let ports_taken = kafka
                .jvms()
                .any(|jvm| jvm.log().contains("Address already in use"));
            assert!(ports_taken, "Kafka did not come up:\n{}", kafka.logs());
        }
        panic!("somebody else took every port that was tried");
    }

    fn make(version: Version, count: usize, adapt: &dyn Fn(&mut Properties)) -> Kafka {
        let dir = tempfile::Builder::new()
            .prefix("logship-kafka-")
            .tempdir()
            .unwrap();
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let zookeeper = version.needs_zookeeper().then(|| {
            let port = free_port();
            let jvm = Jvm::new(version, Program::ZooKeeper, dir.path().join("zookeeper"));
            jvm.configure(&Properties::of_zookeeper(port));
            (jvm, port)
        });
        let node = |at: usize| {
            let id = i32::try_from(at + 1).unwrap();
            let mut properties = match &zookeeper {
                Some((_, port)) => Properties::of_old_node(ports[at].0, *port),
                None => Properties::of_node(id, &ports),
            };
            adapt(&mut properties);
            let name = format!("node-{id}");
            let jvm = Jvm::new(version, Program::Kafka, dir.path().join(name));
            jvm.configure(&properties);
            Node {
                id,
                address: format!("127.0.0.1:{}", ports[at].0),
                properties,
                jvm,
            }
        };
        Kafka {
            version,
            nodes: (0..count).map(node).collect(),
            zookeeper: zookeeper.map(|(jvm, _)| jvm),
            dir,
        }
    }

    fn launch_all(&self, format: &[String]) {
        match &self.zookeeper {
            Some(zookeeper) => zookeeper.launch(),
            None => self.format(format),
        }
        for node in &self.nodes {
            node.jvm.launch();
        }
    }

    fn format(&self, more: &[String]) {
        let args = ["format", "--cluster-id", CLUSTER_ID, "--config"];
        let args = args.map(str::to_owned).into_iter();
        let args: Vec<String> = args
            .chain([jvm::CONFIG.to_owned()])
            .chain(more.iter().cloned())
            .collect();
        let tool = |node: &Node| node.jvm.start_tool("kafka.tools.StorageTool", &args);
        let running: Vec<_> = self.nodes.iter().map(tool).collect();
        for mut child in running {
            // Its failure shows in the server's.
            let _ = child.wait();
        }
    }

    /// Where it is found: all nodes' addresses, as `HOST:PORT,...`.
    pub fn addresses(&self) -> String {
        let addresses = self.nodes.iter().map(|node| node.address.as_str());
        addresses.collect::<Vec<_>>().join(",")
    }

    /// The address of a listener of the first node, by its name.
    pub fn listener(&self, name: &str) -> String {
        let listeners = self.nodes[0].properties.get("advertised.listeners");
        let start = format!("{name}://");
        let mut found = listeners.split(',').filter_map(|l| l.strip_prefix(&start));
        found.next().expect("a listener of that name").to_owned()
    }

    /// The nodes' numbers.
    pub fn ids(&self) -> Vec<i32> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// The address of a node.
    pub fn address_of(&self, id: i32) -> &str {
        &self.node(id).address
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&self, id: i32) {
        self.node(id).jvm.kill();
    }

    /// Asks a node to end, which hands its partitions over first, and waits for it.
    pub fn stop(&self, id: i32) {
        self.node(id).jvm.stop();
    }

    /// Stops a node with SIGSTOP: connections stay open and silent.
    pub fn pause(&self, id: i32) {
        self.node(id).jvm.signal(Signal::STOP);
    }

    /// Lets it run on.
    pub fn resume(&self, id: i32) {
        self.node(id).jvm.signal(Signal::CONT);
    }

    /// Starts a node again, with its data, and waits for nothing.
    pub fn launch(&self, id: i32) {
        self.node(id).jvm.launch();
    }

    /// Starts a node again, with its data, and waits until it serves.
    #[track_caller]
    pub fn restart(&self, id: i32) {
        self.launch(id);
        self.serves(id);
    }

    /// Waits until a node serves.
    #[track_caller]
    pub fn serves(&self, id: i32) {
        let at = self.nodes.iter().position(|node| node.id == id).unwrap();
        assert!(
            self.is_ready_in_time(at),
            "node {id} did not come up again:\n{}",
            self.logs()
        );
    }

    fn node(&self, id: i32) -> &Node {
        let mut nodes = self.nodes.iter();
        nodes.find(|node| node.id == id).expect("a node's number")
    }

    /// Waits until a node answers and counts itself in; false when it ends.
    fn is_ready_in_time(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if node.jvm.has_ended() && !self.may_try_again(node) {
                return false;
            }
            if admin::brokers(&node.address, self.version).is_ok_and(|ids| ids.contains(&node.id)) {
                return true;
            }
            thread::sleep(LOOK_EVERY);
        }
        false
    }

    /// A killed node that starts again ends while ZooKeeper still believes in its
    /// former self.
    fn may_try_again(&self, node: &Node) -> bool {
        let log = node.jvm.log();
        let refused = ["NodeExistsException", "already registered on the path"]
            .iter()
            .any(|said| log.contains(said));
        if refused && self.zookeeper.is_some() {
            node.jvm.launch();
        }
        refused
    }

    /// What the servers said, the end of it.
    pub fn logs(&self) -> String {
        self.jvms().map(Jvm::log_end).collect()
    }

    fn jvms(&self) -> impl Iterator<Item = &Jvm> {
        let nodes = self.nodes.iter().map(|node| &node.jvm);
        self.zookeeper.iter().chain(nodes)
    }

    /// Whether Kafka's own client gets in at an address with these properties, and
    /// what it said if not. It takes seconds.
    pub fn admits(&self, address: &str, client: &str) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
        fs::write(&file, client).unwrap();
        let path = file.path().display().to_string();
        let args = [
            "--list",
            "--bootstrap-server",
            address,
            "--command-config",
            &path,
        ];
        let args = args.map(str::to_owned);
        let tool = "org.apache.kafka.tools.TopicCommand";
        self.nodes[0].jvm.run_tool(tool, &args)
    }
}

/// A file below `tests/services/kafka`.
fn service_file(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/kafka");
    dir.join(name)
}

fn text_of(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
