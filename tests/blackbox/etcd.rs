//! A real etcd for a test: one node or a cluster on loopback ports, with its
//! data in a temporary directory, all gone when the test is over.
//!
//! What is written goes through etcdctl, so that it does not depend on what is
//! tested. `tests/run` installs both programs.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use tempfile::TempDir;

/// How long anything may take that must happen. Only a failing test waits for it.
pub const DEADLINE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often other ports are tried when somebody took the first ones.
const STARTS_MAX: usize = 5;
/// Below the range from which the system takes ports for outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A running etcd.
pub struct Etcd {
    dir: TempDir,
    nodes: Vec<Node>,
    tls: Option<Certificates>,
    /// `USER:PASSWORD` of etcdctl, once authentication is on.
    root: Mutex<Option<String>>,
}

struct Node {
    name: String,
    client_port: u16,
    peer_port: u16,
    child: Mutex<Option<Child>>,
}

impl Etcd {
    /// One node.
    pub fn start() -> Etcd {
        Etcd::begin(1, None)
    }

    /// A cluster of so many nodes.
    pub fn cluster(nodes: usize) -> Etcd {
        Etcd::begin(nodes, None)
    }

    /// One node that speaks TLS, and wants client certificates if the
    /// certificates say so.
    pub fn with_tls(certificates: Certificates) -> Etcd {
        Etcd::begin(1, Some(certificates))
    }

    fn begin(count: usize, tls: Option<Certificates>) -> Etcd {
        for _ in 0..STARTS_MAX {
            let dir = tempfile::Builder::new()
                .prefix("logship-etcd-")
                .tempdir()
                .unwrap();
            let nodes = (0..count).map(|n| Node {
                name: format!("n{n}"),
                client_port: free_port(),
                peer_port: free_port(),
                child: Mutex::new(None),
            });
            let etcd = Etcd {
                dir,
                nodes: nodes.collect(),
                tls: tls.clone(),
                root: Mutex::new(None),
            };
            for n in 0..count {
                etcd.launch(n);
            }
            if etcd.is_ready_in_time() {
                return etcd;
            }
            if !etcd.logs().contains("address already in use") {
                panic!("etcd did not come up:\n{}", etcd.logs());
            }
        }
        panic!("somebody else took every port that was tried");
    }

    /// The address of the first node, like `http://127.0.0.1:20000`.
    pub fn endpoint(&self) -> String {
        self.endpoint_of(0)
    }

    /// The address of a node.
    pub fn endpoint_of(&self, node: usize) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port_of(node))
    }

    /// The addresses of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.nodes.len()).map(|n| self.endpoint_of(n)).collect()
    }

    /// The client port of a node.
    pub fn port_of(&self, node: usize) -> u16 {
        self.nodes[node].client_port
    }

    /// Writes a value.
    #[track_caller]
    pub fn put(&self, key: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        let args: &[&str] = match value {
            // What comes on standard input is taken for missing when it is empty.
            b"" => &["put", "--", key, ""],
            // An argument cannot be as long, nor hold NUL.
            _ => &["put", "--", key],
        };
        let deadline = Instant::now() + DEADLINE;
        loop {
            let out = self.run_ctl(&self.endpoints().join(","), args, value);
            let problem = String::from_utf8_lossy(&out.stderr);
            // While the nodes elect a leader. What timed out may have been written.
            let may_pass = ["timed out", "leader changed", "no leader"]
                .iter()
                .any(|part| problem.contains(part));
            if out.status.success() {
                return;
            }
            assert!(
                may_pass && Instant::now() < deadline,
                "etcdctl {args:?}: {problem}\n{}",
                self.logs()
            );
        }
    }

    /// Deletes a key.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.ctl(&["del", "--", key]);
    }

    /// Writes and deletes in one revision, as etcdctl's `txn` reads it.
    #[track_caller]
    pub fn transaction(&self, changes: &str) {
        self.ctl_with_input(&["txn"], format!("\n{changes}\n\n\n").as_bytes());
    }

    /// The revision of now.
    #[track_caller]
    pub fn revision(&self) -> i64 {
        let status = self.ctl(&["endpoint", "status", "-w", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status[0]["Status"]["header"]["revision"].as_i64().unwrap()
    }

    /// Forgets all revisions before that of now.
    #[track_caller]
    pub fn compact(&self) {
        self.ctl(&["compact", &self.revision().to_string()]);
    }

    /// Turns authentication on, with a user root.
    #[track_caller]
    pub fn enable_auth(&self) {
        self.ctl(&["user", "add", "root:root"]);
        self.ctl(&["user", "grant-role", "root", "root"]);
        self.ctl(&["auth", "enable"]);
        *self.root.lock().unwrap() = Some("root:root".to_owned());
    }

    /// Adds a user who may read what is below a prefix.
    #[track_caller]
    pub fn add_reader(&self, user: &str, password: &str, prefix: &str) {
        self.ctl(&["user", "add", &format!("{user}:{password}")]);
        self.ctl(&["role", "add", user]);
        self.grant(user, prefix);
        self.ctl(&["user", "grant-role", user, user]);
    }

    /// Lets a user of [`Etcd::add_reader`] read one more prefix.
    #[track_caller]
    pub fn grant(&self, user: &str, prefix: &str) {
        let args = ["role", "grant-permission", "--prefix=true", user, "read"];
        self.ctl(&[&args[..], &[prefix]].concat());
    }

    /// Kills the first node with SIGKILL.
    pub fn kill(&self) {
        self.kill_node(0);
    }

    /// Starts the first node again, with its data, and waits until it serves.
    pub fn restart(&self) {
        self.restart_node(0);
    }

    /// Stops the first node with SIGSTOP: connections stay open and silent.
    pub fn pause(&self) {
        self.signal(0, Signal::STOP);
    }

    /// Lets it run on.
    pub fn resume(&self) {
        self.signal(0, Signal::CONT);
    }

    /// Kills a node with SIGKILL.
    pub fn kill_node(&self, node: usize) {
        let child = self.nodes[node].child.lock().unwrap().take();
        let mut child = child.expect("a node that runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a killed node again, with its data, and waits until it serves.
    #[track_caller]
    pub fn restart_node(&self, node: usize) {
        self.launch(node);
        assert!(
            self.is_ready_in_time(),
            "etcd did not come up again:\n{}",
            self.logs()
        );
    }

    /// Starts a killed node again and waits for nothing.
    pub fn launch(&self, node: usize) {
        let this = &self.nodes[node];
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{}", this.client_port);
        let peer = format!("http://127.0.0.1:{}", this.peer_port);
        let all: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("{}=http://127.0.0.1:{}", node.name, node.peer_port))
            .collect();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_of(this))
            .unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &this.name, "--data-dir"])
            .arg(self.dir.path().join(&this.name))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &all.join(",")])
            .args(["--logger=zap", "--log-level=warn"])
            .arg("--experimental-watch-progress-notify-interval=1s")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(tls) = &self.tls {
            command.arg("--cert-file").arg(tls.server_cert());
            command.arg("--key-file").arg(tls.server_key());
            if tls.client_wanted {
                command.arg("--client-cert-auth");
                command.arg("--trusted-ca-file").arg(tls.ca());
            }
        }
        let child = command.spawn().expect("etcd is installed: run tests/run");
        *this.child.lock().unwrap() = Some(child);
    }

    fn signal(&self, node: usize, signal: Signal) {
        let child = self.nodes[node].child.lock().unwrap();
        let child = child.as_ref().expect("a node that runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Waits until every node that runs serves; false when one has ended.
    fn is_ready_in_time(&self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        (0..self.nodes.len()).all(|node| {
            let endpoint = self.endpoint_of(node);
            let health = || self.run_ctl(&endpoint, &["endpoint", "health"], b"");
            while self.is_started(node) && !health().status.success() {
                if self.has_ended(node) || Instant::now() > deadline {
                    return false;
                }
                thread::sleep(LOOK_EVERY);
            }
            // If it has, somebody else's etcd has answered.
            !self.has_ended(node)
        })
    }

    fn is_started(&self, node: usize) -> bool {
        self.nodes[node].child.lock().unwrap().is_some()
    }

    fn has_ended(&self, node: usize) -> bool {
        let mut child = self.nodes[node].child.lock().unwrap();
        let ended = child.as_mut().map(|child| child.try_wait().unwrap());
        ended.flatten().is_some()
    }

    fn ctl(&self, args: &[&str]) -> String {
        self.ctl_with_input(args, b"")
    }

    #[track_caller]
    fn ctl_with_input(&self, args: &[&str], input: &[u8]) -> String {
        let out = self.run_ctl(&self.endpoints().join(","), args, input);
        assert!(
            out.status.success(),
            "etcdctl {args:?}: {}\n{}",
            String::from_utf8_lossy(&out.stderr),
            self.logs()
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn run_ctl(&self, endpoints: &str, args: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", endpoints, "--command-timeout=10s"]);
        if let Some(root) = &*self.root.lock().unwrap() {
            command.args(["--user", root]);
        }
        if let Some(tls) = &self.tls {
            command.arg("--cacert").arg(tls.ca());
            command.arg("--cert").arg(tls.client_cert());
            command.arg("--key").arg(tls.client_key());
        }
        let mut child = command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcdctl is installed: run tests/run");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // Who reads nothing has hung up.
        let _ = stdin.write_all(input);
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    fn log_of(&self, node: &Node) -> PathBuf {
        self.dir.path().join(format!("{}.log", node.name))
    }

    /// What the nodes said, the end of it.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for node in &self.nodes {
            let text = fs::read_to_string(self.log_of(node)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(6)..].join("\n");
            all += &format!("--- {}\n{end}\n", node.name);
        }
        all
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for node in &self.nodes {
            let child = node.child.lock().ok().and_then(|mut child| child.take());
            if let Some(mut child) = child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// A loopback port nobody listens on, and that no other test of this process gets.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Other test processes begin elsewhere.
    let first = (std::process::id() as u16).wrapping_mul(97) % count;
    for _ in 0..count {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % count;
        let port = PORTS.start + (first + offset) % count;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no loopback port is free");
}

/// A certificate authority, a server's and a client's certificate, as PEM files.
#[derive(Clone)]
pub struct Certificates {
    dir: Arc<TempDir>,
    client_wanted: bool,
}

impl Certificates {
    /// For a server that takes any client.
    pub fn new() -> Certificates {
        Certificates::make(false)
    }

    /// For a server that wants a client's certificate.
    pub fn for_clients_too() -> Certificates {
        Certificates::make(true)
    }

    fn make(client_wanted: bool) -> Certificates {
        let dir = tempfile::Builder::new()
            .prefix("logship-tls-")
            .tempdir()
            .unwrap();
        // A client tells authorities apart by name first.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("test CA {number}"));
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        // The gateway calls its own server with the server's certificate.
        let both = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        for (name, uses) in [("server", &both[..]), ("client", &both[1..])] {
            let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params
                .distinguished_name
                .push(DnType::OrganizationName, name);
            params.extended_key_usages = uses.to_vec();
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &ca).unwrap();
            let path = |end: &str| dir.path().join(format!("{name}{end}"));
            fs::write(path(".pem"), certificate.pem()).unwrap();
            fs::write(path("-key.pem"), key.serialize_pem()).unwrap();
        }
        Certificates {
            dir: Arc::new(dir),
            client_wanted,
        }
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// The client's certificate, without a common name.
    pub fn client_cert(&self) -> PathBuf {
        self.file("client.pem")
    }

    /// Its key.
    pub fn client_key(&self) -> PathBuf {
        self.file("client-key.pem")
    }

    fn server_cert(&self) -> PathBuf {
        self.file("server.pem")
    }

    fn server_key(&self) -> PathBuf {
        self.file("server-key.pem")
    }

    fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// What a [`Proxy`] does with the bytes that come back from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Passes them on.
    Passes,
    /// Passes on what is an answer, and holds back what is a stream, as nginx does.
    HoldsStreams,
    /// Swallows everything, both ways, and keeps the connections open.
    Silent,
}

/// Stands between a client and a server. Its manner can change at any time; an
/// open connection follows.
pub struct Proxy {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    /// The loopback port it leads to, and who was led there.
    led: Arc<Mutex<(u16, Vec<TcpStream>)>>,
}

impl Proxy {
    /// In front of a loopback port.
    pub fn to(port: u16, manner: Manner) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let manner = Arc::new(Mutex::new(manner));
        let shared = Arc::clone(&manner);
        let led = Arc::new(Mutex::new((port, Vec::new())));
        let leads = Arc::clone(&led);
        // It ends with the process; its connections with their ends.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut led = leads.lock().unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", led.0)) else {
                    continue;
                };
                led.1.push(client.try_clone().unwrap());
                drop(led);
                let streams = Arc::new(Mutex::new(false));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (manner, watching) = (Arc::clone(&shared), Arc::clone(&streams));
                thread::spawn(move || {
                    carry(from, to, |bytes| {
                        if bytes.windows(6).any(|part| part == b"/watch") {
                            *watching.lock().unwrap() = true;
                        }
                        *manner.lock().unwrap() != Manner::Silent
                    });
                });
                let manner = Arc::clone(&shared);
                thread::spawn(move || {
                    carry(server, client, |_| match *manner.lock().unwrap() {
                        Manner::Passes => true,
                        Manner::HoldsStreams => !*streams.lock().unwrap(),
                        Manner::Silent => false,
                    });
                });
            }
        });
        Proxy {
            address,
            manner,
            led,
        }
    }

    /// Its own address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it leads elsewhere. Open connections are closed.
    pub fn lead_to(&self, port: u16) {
        let mut led = self.led.lock().unwrap();
        led.0 = port;
        for client in led.1.drain(..) {
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
    }

    /// From now on.
    pub fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, mut passes: impl FnMut(&[u8]) -> bool) {
    let mut block = [0; 16 << 10];
    while let Ok(count) = from.read(&mut block) {
        if count == 0 || passes(&block[..count]) && to.write_all(&block[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// An HTTP server that says what a test wants: status and body by path and body
/// of the request.
pub struct FakeGateway {
    address: SocketAddr,
}

impl FakeGateway {
    /// Answers every request so.
    pub fn answering(
        answer: impl Fn(&str, &str) -> (u16, String) + Send + Sync + 'static,
    ) -> FakeGateway {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = Arc::clone(&answer);
                thread::spawn(move || serve(stream, &*answer));
            }
        });
        FakeGateway { address }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str, &str) -> (u16, String)) {
    let mut got = Vec::new();
    let mut block = [0; 4 << 10];
    let request = loop {
        match stream.read(&mut block) {
            Ok(count) if count > 0 => got.extend_from_slice(&block[..count]),
            _ => return,
        }
        let text = String::from_utf8_lossy(&got).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse().unwrap())
        });
        if body.len() >= length.unwrap_or(0) {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            break (path, body.to_owned());
        }
    };
    let (status, body) = answer(&request.0, &request.1);
    let (length, close) = (body.len(), "Connection: close");
    let _ = write!(
        stream,
        "HTTP/1.1 {status} Whatever\r\nContent-Length: {length}\r\n{close}\r\n\r\n{body}"
    );
}
