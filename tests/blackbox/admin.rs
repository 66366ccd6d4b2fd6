//! Metrics, status and health: a server of the library in this process, made-up
//! reports, raw sockets, and the real `logship status`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use logship::admin::{
    self, ConfigReport, FileReport, Health, Histogram, KafkaReport, Options, QueueReport, Report,
    SourceReport, TaskReport, TopicReport,
};
use logship::thread::{StopHandle, Task, spawn, stop_pair};

use crate::world::{DEADLINE, Ended, World};

/// A server that is told what to report.
struct Admin {
    socket: PathBuf,
    address: SocketAddr,
    report: Arc<Mutex<Report>>,
    stop: Option<StopHandle>,
    task: Option<Task>,
}

impl Admin {
    /// Serves on the socket in the world's state directory and on a port of its own.
    fn start(world: &World, report: Report) -> Admin {
        let socket = world.dir("state").join(admin::SOCKET);
        let options = Options {
            socket: Some(socket.clone()),
            listen: Some("127.0.0.1:0".parse().unwrap()),
        };
        let server = admin::bind(&options).unwrap();
        let address = server.address().unwrap();
        let (handle, stop) = stop_pair();
        let report = Arc::new(Mutex::new(report));
        let told = Arc::clone(&report);
        let task = spawn("admin", move || {
            server.run(&|| told.lock().unwrap().clone(), &stop);
        });
        Admin {
            socket,
            address,
            report,
            stop: Some(handle),
            task: Some(task),
        }
    }

    /// What is reported from now on.
    fn reports(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap());
    }

    fn connect(&self) -> UnixStream {
        patient(UnixStream::connect(&self.socket).unwrap())
    }

    fn connect_tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends bytes and returns everything that comes back.
    #[track_caller]
    fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_ref()).unwrap();
        Answer::read(stream)
    }

    #[track_caller]
    fn get(&self, path: &str) -> Answer {
        self.ask(get(path))
    }

    /// Asks it to stop, and returns how long that took.
    fn stop(&mut self) -> Duration {
        let begun = Instant::now();
        self.stop = None;
        self.task.take().unwrap().join().unwrap();
        begun.elapsed()
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop = None; // before the task, which waits for its end
    }
}

fn patient(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A response, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// Reads to the end, which the server must bring about.
    #[track_caller]
    fn read(mut stream: impl Read) -> Answer {
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset && !bytes.is_empty() => {}
            result => {
                result.unwrap();
            }
        }
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("not a response: {text:?}"));
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = fields.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }
}

/// A report with something in every place.
fn full() -> Report {
    let counts = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
        let owned = |(name, count): &(&str, u64)| ((*name).to_owned(), *count);
        pairs.iter().map(owned).collect()
    };
    let topic = TopicReport {
        read_lines: 1_200,
        read_bytes: 120_000,
        acked_lines: 1_000,
        acked_bytes: 100_000,
        dropped_lines: counts(&[("queue_full", 7), ("odd \"reason\\\n", 1)]),
        dropped_bytes: counts(&[("queue_full", 700)]),
        lost_bytes: counts(&[("truncated", 4_812)]),
        truncated_lines: 2,
        dead_letter_lines: counts(&[("MESSAGE_TOO_LARGE", 3)]),
        dead_letter_bytes: 300,
        known_bytes: 125_812,
        lag_bytes: 20_000,
    };
    Report {
        version: "9.9.9".to_owned(),
        pid: 4_711,
        host: "web1".to_owned(),
        started_at: "2026-11-20T08:00:00Z".to_owned(),
        uptime_seconds: 90.0,
        health: Health::default(),
        config: ConfigReport {
            file: Some("/etc/logship.json".to_owned()),
            revision: 4,
            hash: "00c0ffee".to_owned(),
            reloads: counts(&[("applied", 3), ("refused", 1)]),
            ..ConfigReport::default()
        },
        kafka: Some(KafkaReport {
            waiting_seconds: [("a".to_owned(), 1.5)].into(),
            brokers: vec!["kafka1:9092".to_owned()],
            up: true,
            unreachable_seconds: None,
            requests: 321,
            errors: counts(&[("NOT_LEADER_OR_FOLLOWER", 2)]),
            request_seconds: Histogram {
                bounds: vec![0.005, 0.1, 1.0],
                counts: vec![300, 20, 1],
                sum: 2.5,
                count: 321,
            },
        }),
        queue: QueueReport {
            bytes: 4_096,
            bytes_max: 4 << 20,
        },
        checkpoint_age_seconds: Some(0.25),
        open_files: 3,
        open_files_max: 960,
        held_deleted_bytes: 512,
        topics: [
            ("web".to_owned(), topic.clone()),
            ("we\"ird\\".to_owned(), topic),
        ]
        .into(),
        sources: Vec::new(),
        files: vec![file("/var/log/a.log", "web"), file("/var/log/b.log", "web")],
        tasks: [("tail".to_owned(), TaskReport::default())].into(),
    }
}

fn file(path: &str, topic: &str) -> FileReport {
    FileReport {
        path: path.to_owned(),
        topic: topic.to_owned(),
        state: "idle".to_owned(),
        position: 1_000,
        size: 1_000,
        ..FileReport::default()
    }
}

// ---- what is served --------------------------------------------------------------

#[test]
fn metrics_have_the_exact_content_type_of_their_format() {
    let world = World::new();
    let admin = Admin::start(&world, full());

    let text = admin.get("/metrics");
    assert_eq!(text.status, 200);
    let expected = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(text.field("content-type"), Some(expected));
    assert!(
        text.body.contains("logship_files{state=\"idle\"} 2\n"),
        "{text:?}"
    );
    assert!(!text.body.contains("# EOF"), "{text:?}");

    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let open = admin.ask(get("/metrics").replace("Host", &format!("{accept}Host")));
    let expected = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.field("content-type"), Some(expected));
    assert!(open.body.ends_with("# EOF\n"), "{open:?}");
}

#[test]
#[ignore = "needs promtool: run tests/run"]
fn promtool_finds_nothing_to_say_about_the_metrics() {
    let world = World::new();
    let admin = Admin::start(&world, Report::default());
    for report in [Report::default(), full()] {
        admin.reports(|told| *told = report);
        let metrics = admin.get("/metrics").body;
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is installed: run tests/run");
        let mut stdin = promtool.stdin.take().unwrap();
        stdin.write_all(metrics.as_bytes()).unwrap();
        drop(stdin);
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(
            output.status.success() && said.is_empty(),
            "{said}\n{metrics}"
        );
    }
}

#[test]
fn the_status_document_reads_back_as_the_report() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    let answer = admin.get("/status?pretty");
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let read: Report = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(read, full());
}

#[test]
fn health_is_ok_or_says_what_is_wrong_a_line_each() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    let well = admin.get("/healthz");
    assert_eq!((well.status, well.body.as_str()), (200, "ok\n"));

    admin.reports(|report| {
        report.health.healthy = false;
        report.health.reasons = vec!["Kafka is away".to_owned(), "one\nline".to_owned()];
    });
    let ill = admin.get("/healthz");
    assert_eq!(ill.status, 503);
    assert_eq!(ill.body, "Kafka is away\none\\nline\n");
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    for path in ["/metrics", "/status", "/healthz", "/nowhere"] {
        let got = admin.get(path);
        let head = admin.ask(get(path).replace("GET", "HEAD"));
        assert_eq!(
            (head.status, head.body.as_str()),
            (got.status, ""),
            "{path}"
        );
        let length = got.body.len().to_string();
        assert_eq!(head.field("content-length"), Some(&*length), "{path}");
    }
}

#[test]
fn what_is_not_there_and_what_is_not_done_is_said() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    let nowhere = admin.get("/");
    assert_eq!(nowhere.status, 404);
    for path in ["/metrics", "/status", "/healthz"] {
        assert!(nowhere.body.contains(path), "{nowhere:?}");
    }
    let post = "POST /status HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n";
    let refused = admin.ask(format!("{post}{}", "x".repeat(10_000)));
    assert_eq!(refused.status, 405);
    assert_eq!(refused.field("allow"), Some("GET, HEAD"));
    assert_eq!(admin.ask("GET /status HTTP/1.1\r\n\r\n").status, 400);
    assert_eq!(
        admin.ask("\x16\x03\x01\x02 is not HTTP\r\n\r\n").status,
        400
    );
    assert_eq!(admin.ask("GET /status HTTP/1.0\r\n\r\n").status, 200);
}

// ---- bounds ----------------------------------------------------------------------

#[test]
fn a_head_that_has_no_end_is_refused() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    let long = format!(
        "GET /status HTTP/1.1\r\nHost: test\r\nX: {}",
        "x".repeat(60_000)
    );
    let mut stream = admin.connect_tcp();
    let _ = stream.write_all(long.as_bytes()); // it may hang up before the end
    assert_eq!(Answer::read(stream).status, 431);
    let many = get("/status").replace("Host", &format!("{}Host", "X: y\r\n".repeat(500)));
    assert_eq!(admin.ask(many).status, 431);
}

/// Each of the slow ones has sent something and never sends the rest.
#[test]
fn slow_clients_are_cut_and_hold_up_nobody() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    let mut slow: Vec<_> = (0..7).map(|_| admin.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /status HTTP/1.1\r\nHost:").unwrap();
    }
    let begun = Instant::now();
    assert_eq!(admin.get("/status").status, 200);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    for mut stream in slow {
        // A byte now and then does not buy time.
        let mut answered = Vec::new();
        let begun = Instant::now();
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        loop {
            let _ = stream.write_all(b"x");
            match stream.read_to_end(&mut answered) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(begun.elapsed() < DEADLINE, "it is not cut");
                }
                _ => break,
            }
        }
        assert_eq!(answered, b"");
    }
}

/// They take up every place of the TCP port; the socket has its own.
#[test]
fn too_many_clients_are_turned_away_at_once() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    let idle: Vec<_> = (0..8).map(|_| admin.connect_tcp()).collect();
    let begun = Instant::now();
    let mut one_more = admin.connect_tcp();
    one_more.write_all(get("/status").as_bytes()).unwrap();
    assert_eq!(Answer::read(one_more).status, 503);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(admin.get("/status").status, 200);

    drop(idle);
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut stream = admin.connect_tcp();
        let _ = stream.write_all(get("/status").as_bytes());
        if Answer::read(stream).status == 200 {
            break;
        }
        assert!(Instant::now() < deadline, "there is never room again");
    }
}

#[test]
fn a_large_document_arrives_whole_and_waits_for_no_slow_reader() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    let many = (0..10_000).map(|n| file(&format!("/var/log/app/{n:05}.log"), "web"));
    admin.reports(|report| report.files = many.collect());

    let mut slow = admin.connect();
    slow.write_all(get("/status").as_bytes()).unwrap();
    slow.read_exact(&mut [0; 10]).unwrap(); // it is being answered, and reads no more

    let mut stream = admin.connect_tcp();
    stream.write_all(get("/status").as_bytes()).unwrap();
    let answer = Answer::read(stream);
    assert!(answer.body.len() > 2_000_000, "{} bytes", answer.body.len());
    let read: Report = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(read.files.len(), 10_000);
}

#[test]
fn a_stop_ends_it_at_once_with_clients_inside() {
    let world = World::new();
    let mut admin = Admin::start(&world, full());
    let mut inside = admin.connect();
    inside.write_all(b"GET /sta").unwrap();
    // So the other one is in as well; this one stays, and wakes nobody by leaving.
    let mut answered = admin.connect();
    answered.write_all(get("/healthz").as_bytes()).unwrap();
    assert_eq!(Answer::read(&answered).status, 200);
    let took = admin.stop();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    assert!(!admin.socket.exists(), "the socket is left behind");
}

// ---- the socket ------------------------------------------------------------------

#[test]
fn the_socket_is_for_its_owner() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    let meta = fs::metadata(&admin.socket).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
}

#[test]
fn the_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not() {
    let world = World::new();
    let socket = world.dir("state").join(admin::SOCKET);
    drop(UnixListener::bind(&socket).unwrap()); // leaves the file behind
    let admin = Admin::start(&world, full());
    assert_eq!(admin.get("/healthz").status, 200);

    let options = |socket: &Path| Options {
        socket: Some(socket.to_owned()),
        listen: None,
    };
    let error = admin::bind(&options(&socket)).unwrap_err().to_string();
    assert!(error.contains(&*socket.to_string_lossy()), "{error}");
    assert!(error.contains("another process"), "{error}");
    assert_eq!(admin.get("/healthz").status, 200);

    let precious = world.path("precious");
    fs::write(&precious, "not a socket").unwrap();
    let error = admin::bind(&options(&precious)).unwrap_err().to_string();
    assert!(error.contains("precious"), "{error}");
    assert_eq!(fs::read(&precious).unwrap(), b"not a socket");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    let options = Options {
        socket: None,
        listen: Some(admin.address),
    };
    let error = admin::bind(&options).unwrap_err().to_string();
    assert!(error.contains(&admin.address.to_string()), "{error}");
}

// ---- logship status --------------------------------------------------------------

fn status(world: &World) -> crate::world::Logship {
    world.logship(["status"]).with_state()
}

/// What was printed, as text.
fn printed(ended: &Ended) -> String {
    String::from_utf8(ended.stdout.clone()).unwrap()
}

#[test]
fn the_table_shows_what_lags_most_first_with_aligned_columns() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    admin.reports(|report| {
        report.files[1].lag_bytes = 5 << 20;
        report.files[1].last_error = Some("cannot\nread".to_owned());
        report.files[1].state = "failed".to_owned();
        report.health.healthy = false;
        report.health.reasons = vec!["a task keeps failing".to_owned()];
        report.topics.remove("we\"ird\\");
    });
    let ended = status(&world).run().exits(0);
    let text = printed(&ended);
    let lines: Vec<_> = text.lines().collect();
    for part in [
        "logship 9.9.9",
        "pid 4711",
        "up 1m 30s",
        "unhealthy",
        "kafka up",
        "config revision 4",
        "lag 19.53 KiB",
    ] {
        assert!(lines[0].contains(part), "{part}: {text}");
    }
    assert_eq!(
        &lines[1..],
        [
            "problem: a task keeps failing",
            "problem: topic web: 4812 bytes lost (truncated)",
            "problem: topic web: 3 lines went to the dead letters (MESSAGE_TOO_LARGE)",
            "",
            "FILE            TOPIC  POSITION       LAG  LINES/S  STATE   LAST ERROR",
            "/var/log/b.log  web      1000 B  5.00 MiB        -  failed  cannot\\nread",
            "/var/log/a.log  web      1000 B       0 B        -  idle",
        ]
    );
}

/// The report grows with the clock: 100 lines for every tenth of a second.
#[test]
fn lines_a_second_come_from_two_looks() {
    let world = World::new();
    let socket = world.dir("state").join(admin::SOCKET);
    let options = Options {
        socket: Some(socket),
        listen: None,
    };
    let server = admin::bind(&options).unwrap();
    let (handle, stop) = stop_pair();
    let begun = Instant::now();
    let task = spawn("admin", move || {
        let growing = || {
            let mut report = full();
            report.uptime_seconds = begun.elapsed().as_secs_f64();
            report.files[0].acked_lines = (report.uptime_seconds * 1_000.0) as u64;
            report
        };
        server.run(&growing, &stop);
    });
    let text = printed(&status(&world).run().exits(0));
    drop(handle);
    task.join().unwrap();
    let row = text.lines().find(|line| line.contains("/a.log")).unwrap();
    let rate: f64 = row.split_whitespace().nth(6).unwrap().parse().unwrap();
    assert!((980.0..=1_020.0).contains(&rate), "{text}");
}

#[test]
fn the_document_is_printed_as_it_came_also_over_tcp() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    let served = admin.get("/status").body;
    let address = admin.address.to_string();
    for command in [
        status(&world).arg("--json"),
        world.logship(["status", "--json", "--addr", &address]),
    ] {
        assert_eq!(printed(&command.run().exits(0)), served);
    }
}

#[test]
fn the_watch_ends_when_its_reader_hangs_up() {
    let world = World::new();
    let admin = Admin::start(&world, full());
    let watch = status(&world).args(["--watch", "100ms"]).start();
    let first = watch.next_lines(1).remove(0);
    assert!(
        first.starts_with(b"logship 9.9.9"),
        "{}",
        first.escape_ascii()
    );
    watch.hang_up();
    watch.ends().exits(0);
    drop(admin);
}

#[test]
fn the_watch_goes_on_over_a_restart_and_ends_with_a_signal() {
    let world = World::new();
    let mut admin = Admin::start(&world, full());
    let watch = status(&world).args(["--watch", "100ms"]).start();
    let sees = |text: &str| {
        let deadline = Instant::now() + DEADLINE;
        while !String::from_utf8_lossy(&watch.next_lines(1)[0]).contains(text) {
            assert!(Instant::now() < deadline, "it never shows {text}");
        }
    };
    sees("pid 4711");
    admin.stop();
    sees("nobody answers on socket");
    let mut other = full();
    other.pid = 4_712;
    let _admin = Admin::start(&world, other);
    sees("pid 4712");
    watch.signal(rustix::process::Signal::INT);
    watch.ends().exits(0).never_said("error");
}

#[test]
fn nobody_there_is_said_with_the_socket_or_the_address() {
    let world = World::new();
    let socket = world.state_dir().join(admin::SOCKET);
    status(&world)
        .run()
        .exits(1)
        .printed::<&str>([])
        .said(&format!("nobody answers on socket '{}'", socket.display()))
        .said("hint: is 'logship run' running with this state directory?");

    world.dir("state");
    drop(UnixListener::bind(&socket).unwrap());
    status(&world)
        .arg("--watch")
        .run()
        .exits(1)
        .said("nobody answers on socket");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    drop(taken);
    world
        .logship(["status", "--addr", &address])
        .run()
        .exits(1)
        .said(&format!("nobody answers on {address}"))
        .said("admin.listen");
    world
        .logship(["status", "--addr", "nowhere"])
        .run()
        .exits(2)
        .said("the port is missing");
}

#[test]
fn somebody_else_who_answers_is_no_logship() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = world.logship(["status", "--addr", &address]).start();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"SSH-2.0-OpenSSH_9\r\n").unwrap();
    drop(stream);
    asked
        .ends()
        .exits(1)
        .said(&address)
        .said("does something else answer there?");
}

#[test]
fn who_may_not_ask_is_told_so() {
    let world = World::new();
    let _admin = Admin::start(&world, full());
    if !rustix::process::geteuid().is_root() {
        return; // there is nobody else to be
    }
    status(&world)
        .unprivileged()
        .run()
        .exits(1)
        .said("permission denied to ask on socket")
        .said("hint: ask as the user that runs logship");
}

// ---- logship status PATH ---------------------------------------------------------

/// Asks about a path; the facts, and the verdict.
#[track_caller]
fn why(world: &World, path: &Path) -> (String, String) {
    let text = printed(&status(world).arg(path).run().exits(0));
    let (facts, verdict) = text.rsplit_once("verdict: ").unwrap();
    (facts.to_owned(), verdict.trim_end().to_owned())
}

/// A report on a world's files, with one source.
fn looking_for(pattern: &Path, exclude: &[&str]) -> Report {
    Report {
        sources: vec![SourceReport {
            path: pattern.to_str().unwrap().to_owned(),
            exclude: exclude.iter().map(|text| (*text).to_owned()).collect(),
            topic: "web".to_owned(),
            origin: "/etc/logship.json".to_owned(),
            files: 1,
        }],
        ..full()
    }
}

#[test]
fn a_file_that_is_read_is_told_with_all_that_is_known() {
    let world = World::new();
    let mut log = world.log("a.log");
    log.write(["one"]);
    let admin = Admin::start(&world, looking_for(&world.path("*.log"), &[]));
    let device = fs::metadata(log.path()).unwrap().dev();
    let entry = FileReport {
        device,
        inode: log.inode(),
        generation: 2,
        position: 4,
        size: 4,
        thread: Some("tail:3".to_owned()),
        ..file(log.path().to_str().unwrap(), "web")
    };
    admin.reports(|report| report.files = vec![entry]);

    let (facts, verdict) = why(&world, log.path());
    assert_eq!(verdict, "it is read, and everything in it is acknowledged.");
    for fact in [
        "regular, 4 bytes",
        "to topic web (/etc/logship.json): matches",
        &format!("device {device}, inode {}, generation 2", log.inode()),
        "to topic web: idle, thread tail:3",
        "4 of 4, lag 0 B",
    ] {
        assert!(facts.contains(fact), "{fact}: {facts}");
    }

    admin.reports(|report| report.files[0].lag_bytes = 2_048);
    assert!(
        why(&world, log.path())
            .1
            .contains("2.00 KiB wait to be acknowledged")
    );
    admin.reports(|report| {
        report.files[0].state = "failed".to_owned();
        report.files[0].last_error = Some("disk on fire".to_owned());
    });
    assert!(why(&world, log.path()).1.contains("disk on fire"));

    admin.reports(|report| report.files[0].state = "idle".to_owned());
    let link = world.path("linked.log");
    log.link_to(&link);
    let (_, verdict) = why(&world, &link);
    assert!(verdict.contains("under another path"), "{verdict}");
    assert!(verdict.contains(log.path().to_str().unwrap()), "{verdict}");
}

#[test]
fn a_file_that_is_not_read_is_told_why() {
    let world = World::new();
    world.dir("logs/old");
    for name in [
        "logs/a.log",
        "logs/a.log.gz",
        "logs/.dot.log",
        "logs/old/b.log",
        "other",
    ] {
        world.log(name).write(["one"]);
    }
    world.dir("logs/dir.log");
    symlink(world.path("logs/old"), world.path("logs/linked")).unwrap();
    let pattern = world.path("logs/**/*.{log,gz}");
    let _admin = Admin::start(&world, looking_for(&pattern, &["*.gz", "**/old/*"]));
    for (name, fact, verdict) in [
        ("logs/a.log", ": matches", "not read yet"),
        ("logs/a.log.gz", "excluded by '*.gz'", "'*.gz' of source"),
        (
            "logs/old/b.log",
            "excluded by '**/old/*'",
            "'**/old/*' of source",
        ),
        (
            "logs/.dot.log",
            "not found by the search",
            "begin with a dot",
        ),
        (
            "logs/linked/b.log",
            "not found by the search",
            "linked directories",
        ),
        (
            "logs/dir.log",
            "not a regular file",
            "because it is a directory",
        ),
        (
            "logs/later.log",
            "does not exist",
            "will be when it appears",
        ),
        ("other", "none of 1 matches", "no source matches it"),
    ] {
        let (facts, said) = why(&world, &world.path(name));
        assert!(facts.contains(fact), "{name}: {facts}");
        assert!(said.contains(verdict), "{name}: {said}");
    }
}

#[test]
fn a_file_that_this_user_may_not_read_is_told_so() {
    let world = World::new();
    let mut log = world.log("a.log");
    log.write(["one"]);
    log.chmod(0o000);
    let admin = Admin::start(&world, looking_for(&world.path("*.log"), &[]));
    let mut report = admin.report.lock().unwrap();
    report.host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    drop(report);
    let ended = world
        .logship(["status", "--addr", &admin.address.to_string()])
        .arg(log.path())
        .unprivileged()
        .run()
        .exits(0);
    let text = printed(&ended);
    assert!(
        text.contains("readable    not by this user: Permission denied"),
        "{text}"
    );
    assert!(
        text.contains("verdict: it is not read, perhaps because it cannot be"),
        "{text}"
    );
}
