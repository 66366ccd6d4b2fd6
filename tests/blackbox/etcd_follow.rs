//! Following, reading and writing keys of a real etcd, through the library.
//!
//! The events are what counts: exactly those that are expected, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use logship::config::etcd::{Client, Event, Options, Tls, follow, probe};
use logship::kafka::Secret;
use logship::thread::{StopHandle, Task, spawn, stop_pair};

use crate::etcd::{Certificates, DEADLINE, Etcd, FakeGateway, Manner, Proxy, free_port};

fn options<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Options {
    let endpoints = endpoints
        .into_iter()
        .map(|text| text.as_ref().parse().unwrap());
    Options::new(endpoints.collect())
}

/// A key that is followed, and what was told of it.
struct Following {
    events: Receiver<Event>,
    stop: Option<StopHandle>,
    task: Option<Task>,
}

impl Following {
    fn start(options: &Options, key: &str) -> Following {
        let (sender, events) = unbounded();
        let (stop, stopped) = stop_pair();
        let (options, key) = (options.clone(), key.to_owned());
        let task = spawn("follow", move || follow(&options, &key, &sender, &stopped));
        Following {
            events,
            stop: Some(stop),
            task: Some(task),
        }
    }

    #[track_caller]
    fn next(&self) -> Event {
        let event = self.events.recv_timeout(DEADLINE);
        event.expect("an event within the deadline")
    }

    /// The next event is this content.
    #[track_caller]
    fn delivers<const N: usize>(&self, expected: [(&str, &str); N]) {
        match self.next() {
            Event::Values { values, .. } => {
                assert_eq!(values.too_large, []);
                let got: Vec<(String, String)> = values
                    .loaded
                    .into_iter()
                    .map(|value| (value.key, String::from_utf8(value.bytes).unwrap()))
                    .collect();
                let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
                assert_eq!(got, expected);
            }
            other => panic!("expected {expected:?}, got {other:?}"),
        }
    }

    /// This content comes at last, whatever comes before.
    #[track_caller]
    fn settles_at<const N: usize>(&self, expected: [(&str, &str); N]) {
        loop {
            if let Event::Values { values, .. } = self.next() {
                let got: Vec<(&str, &[u8])> = values
                    .loaded
                    .iter()
                    .map(|value| (value.key.as_str(), value.bytes.as_slice()))
                    .collect();
                if got == expected.map(|(key, value)| (key, value.as_bytes())) {
                    return;
                }
            }
        }
    }

    /// The next event is trouble with all of these words.
    #[track_caller]
    fn troubles(&self, words: &[&str]) -> String {
        match self.next() {
            Event::Trouble { problem, .. } => {
                for word in words {
                    assert!(problem.contains(word), "no {word:?} in: {problem}");
                }
                problem
            }
            other => panic!("expected trouble with {words:?}, got {other:?}"),
        }
    }

    /// Trouble with all of these words comes at last; other trouble may come before.
    #[track_caller]
    fn troubles_at_last(&self, words: &[&str]) {
        loop {
            match self.next() {
                Event::Trouble { problem, .. } if words.iter().all(|w| problem.contains(w)) => {
                    return;
                }
                Event::Trouble { .. } => {}
                other => panic!("expected trouble with {words:?}, got {other:?}"),
            }
        }
    }

    /// The next event is the end of trouble; other trouble may come before.
    #[track_caller]
    fn recovers(&self) {
        loop {
            match self.next() {
                Event::Recovered { .. } => return,
                Event::Trouble { .. } => {}
                other @ Event::Values { .. } => panic!("expected recovery, got {other:?}"),
            }
        }
    }

    /// Nothing more was told so far.
    #[track_caller]
    fn told_nothing_more(&self) {
        if let Ok(event) = self.events.try_recv() {
            panic!("expected nothing more, got {event:?}");
        }
    }

    /// Stops it; how long that took.
    fn stop(mut self) -> Duration {
        let begun = Instant::now();
        self.stop.take();
        self.task.take().unwrap().join().unwrap();
        begun.elapsed()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.take(); // Before the task, which is waited for.
    }
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn what_is_put_changed_and_deleted_is_told_within_a_second() {
    let etcd = Etcd::start();
    let following = Following::start(&options([etcd.endpoint()]), "/a");
    following.delivers([]);
    etcd.put("/a", "one");
    let put = Instant::now();
    following.delivers([("/a", "one")]);
    assert!(
        put.elapsed() < Duration::from_millis(500),
        "{:?}",
        put.elapsed()
    );
    etcd.put("/b", "another");
    etcd.put("/a", "");
    following.delivers([("/a", "")]);
    etcd.delete("/a");
    following.delivers([]);
    etcd.put("/a", "three\n\u{1f600}");
    following.delivers([("/a", "three\n\u{1f600}")]);
    following.told_nothing_more();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn all_keys_below_a_prefix_are_one_content_of_one_revision() {
    let etcd = Etcd::start();
    etcd.put("/a/1", "one");
    etcd.put("/a", "outside");
    etcd.put("/a0", "outside");
    let following = Following::start(&options([etcd.endpoint()]), "/a/");
    following.delivers([("/a/1", "one")]);
    etcd.put("/a/2", "two");
    following.delivers([("/a/1", "one"), ("/a/2", "two")]);
    etcd.transaction("put /a/3 three\ndel /a/1");
    following.delivers([("/a/2", "two"), ("/a/3", "three")]);
    etcd.put("/a/2", "TWO");
    following.delivers([("/a/2", "TWO"), ("/a/3", "three")]);
    following.told_nothing_more();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn the_last_of_many_quick_changes_is_told() {
    let etcd = Etcd::start();
    let following = Following::start(&options([etcd.endpoint()]), "/a");
    let mut client = Client::new(options([etcd.endpoint()]));
    for n in 0..200 {
        client.put("/a", n.to_string().as_bytes()).unwrap();
        if n % 3 == 0 {
            client.delete("/a").unwrap();
        }
    }
    client.put("/a", b"last").unwrap();
    following.settles_at([("/a", "last")]);
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn the_client_reads_what_it_wrote() {
    let etcd = Etcd::start();
    let dead = format!("http://127.0.0.1:{}", free_port());
    let mut client = Client::new(options([dead, etcd.endpoint()]));
    assert_eq!(client.get("/a").unwrap(), None);
    let bytes: Vec<u8> = (0..=255).collect();
    let revision = client.put("/a", &bytes).unwrap();
    let value = client.get("/a").unwrap().unwrap();
    assert_eq!((value.mod_revision, value.bytes), (revision, bytes));
    client.put("/ab", b"x").unwrap();
    let keys = |client: &mut Client, prefix| {
        let values = client.list(prefix).unwrap().into_iter();
        values.map(|value| value.key).collect::<Vec<_>>()
    };
    assert_eq!(keys(&mut client, "/a"), ["/a", "/ab"]);
    assert_eq!(keys(&mut client, ""), ["/a", "/ab"]);
    assert!(client.delete("/a").unwrap() > revision);
    assert_eq!(keys(&mut client, "/"), ["/ab"]);
}

/// Whatever happens while the node is down or the connection is dead, the
/// content after it is told.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_node_that_is_killed_and_comes_back_is_followed_again() {
    let etcd = Etcd::start();
    etcd.put("/a", "one");
    let following = Following::start(&options([etcd.endpoint()]), "/a");
    following.delivers([("/a", "one")]);
    etcd.kill();
    let endpoint = etcd.endpoint();
    following.troubles_at_last(&[&endpoint, ": connect: ", "is etcd running there"]);
    etcd.restart();
    following.recovers();
    etcd.kill();
    following.troubles_at_last(&[": connect: "]);
    etcd.restart();
    etcd.put("/a", "two");
    following.settles_at([("/a", "two")]);
    following.told_nothing_more();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_key_is_followed_while_one_of_three_nodes_is_dead() {
    let etcd = Etcd::cluster(3);
    let following = Following::start(&options(etcd.endpoints()), "/a");
    following.delivers([]);
    for node in 0..3 {
        etcd.kill_node(node);
        etcd.put("/a", node.to_string());
        following.settles_at([("/a", &node.to_string())]);
        etcd.restart_node(node);
    }
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_lost_quorum_is_trouble_until_it_is_regained() {
    let etcd = Etcd::cluster(3);
    etcd.put("/a", "one");
    let following = Following::start(&options(etcd.endpoints()), "/a");
    following.delivers([("/a", "one")]);
    etcd.kill_node(1);
    etcd.kill_node(2);
    following.troubles_at_last(&[": connect: ", "most of etcd's members must be up"]);
    etcd.launch(1);
    etcd.restart_node(2);
    following.recovers();
    etcd.put("/a", "two");
    following.delivers([("/a", "two")]);
}

/// As after a restored backup: other values may stand under the same revisions.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn another_etcd_in_the_same_place_is_read_anew() {
    let (etcd, other) = (Etcd::start(), Etcd::start());
    etcd.put("/a", "one");
    other.put("/a", "ONE");
    other.put("/a", "TWO");
    let proxy = Proxy::to(etcd.port_of(0), Manner::Passes);
    let following = Following::start(&options([proxy.endpoint()]), "/a");
    following.delivers([("/a", "one")]);
    etcd.put("/a", "two");
    following.delivers([("/a", "two")]); // So the watch stands.
    proxy.lead_to(other.port_of(0));
    following.settles_at([("/a", "TWO")]);
}

/// The revision to go on from is gone: the list says what holds, and the watch
/// goes on from there.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_compaction_while_cut_off_loses_nothing() {
    let etcd = Etcd::start();
    etcd.put("/a", "one");
    let proxy = Proxy::to(etcd.port_of(0), Manner::Passes);
    let quick = Options {
        look_interval: Duration::from_millis(300),
        request_timeout: Duration::from_secs(1),
        watch_timeout: Duration::from_secs(1),
        ..options([proxy.endpoint()])
    };
    let following = Following::start(&quick, "/a");
    following.delivers([("/a", "one")]);
    proxy.set(Manner::Silent);
    following.troubles(&[&proxy.endpoint(), "no answer within the time limit"]);
    for n in 0..10 {
        etcd.put("/a", n.to_string());
    }
    etcd.compact();
    proxy.set(Manner::Passes);
    following.settles_at([("/a", "9")]);
    etcd.put("/a", "two");
    following.delivers([("/a", "two")]);
}

/// A dead connection is as silent as one on which nothing happens.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_watch_that_has_gone_deaf_is_noticed() {
    let etcd = Etcd::start();
    let proxy = Proxy::to(etcd.port_of(0), Manner::Passes);
    let quick = Options {
        look_interval: Duration::from_secs(1),
        ..options([proxy.endpoint()])
    };
    let following = Following::start(&quick, "/a");
    following.delivers([]);
    etcd.put("/a", "one");
    following.delivers([("/a", "one")]);
    proxy.set(Manner::HoldsStreams);
    etcd.put("/a", "two");
    following.delivers([("/a", "two")]);
    proxy.set(Manner::Passes);
    following.told_nothing_more();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_node_that_is_stopped_is_trouble_and_recovers() {
    let etcd = Etcd::start();
    let quick = Options {
        look_interval: Duration::from_millis(500),
        request_timeout: Duration::from_secs(1),
        ..options([etcd.endpoint()])
    };
    let following = Following::start(&quick, "/a");
    following.delivers([]);
    etcd.pause();
    following.troubles(&["range", "no answer within the time limit"]);
    etcd.resume();
    following.recovers();
}

/// Behind a proxy that buffers answers a watch never begins; keys are polled.
/// When the proxy is gone, they are watched again.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn behind_a_proxy_that_buffers_keys_are_polled() {
    let etcd = Etcd::start();
    let proxy = Proxy::to(etcd.port_of(0), Manner::HoldsStreams);
    let polling = Options {
        watch_timeout: Duration::from_millis(500),
        poll_interval: Duration::from_millis(100),
        rewatch_interval: Duration::from_secs(2),
        ..options([proxy.endpoint()])
    };
    let following = Following::start(&polling, "/a");
    following.delivers([]);
    for value in ["one", "two", "three"] {
        etcd.put("/a", value);
        following.delivers([("/a", value)]);
    }
    following.told_nothing_more();

    // So long an interval that only a watch can tell in time.
    proxy.set(Manner::Passes);
    let patient = Options {
        poll_interval: Duration::from_secs(3_600),
        ..polling
    };
    let watching = Following::start(&patient, "/a");
    watching.delivers([("/a", "three")]);
    etcd.put("/a", "four");
    watching.delivers([("/a", "four")]);
    following.delivers([("/a", "four")]);
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_token_that_the_server_forgot_is_renewed() {
    let etcd = Etcd::start();
    etcd.add_reader("reader", "secret", "/a");
    etcd.enable_auth();
    etcd.put("/a", "one");
    let login = Options {
        username: Some("reader".to_owned()),
        password: Some(Secret::new("secret")),
        ..options([etcd.endpoint()])
    };
    let following = Following::start(&login, "/a");
    following.delivers([("/a", "one")]);
    let mut client = Client::new(login);
    assert!(client.get("/a").unwrap().is_some());
    etcd.kill();
    etcd.restart();
    assert!(client.get("/a").unwrap().is_some());
    etcd.put("/a", "two");
    following.settles_at([("/a", "two")]);
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_refused_login_says_what_to_change() {
    let etcd = Etcd::start();
    etcd.put("/b/1", "one");
    etcd.add_reader("reader", "secret", "/a/");
    etcd.enable_auth();

    let nobody = options([etcd.endpoint()]);
    let following = Following::start(&nobody, "/a/");
    following.troubles(&["range: ", "user name is empty", "etcd.username"]);

    let login = |password: &str| Options {
        username: Some("reader".to_owned()),
        password: Some(Secret::new(password)),
        ..nobody.clone()
    };
    let following = Following::start(&login("wrong"), "/a/");
    let problem = following.troubles(&["authenticate: ", "invalid user ID or password"]);
    assert!(!problem.contains("wrong"), "{problem}");

    let following = Following::start(&login("secret"), "/b/");
    following.troubles(&["range: ", "permission denied", "grant-permission"]);
    etcd.grant("reader", "/b/");
    following.delivers([("/b/1", "one")]);
    following.told_nothing_more();
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn over_tls_both_sides_show_certificates_the_other_trusts() {
    let certificates = Certificates::for_clients_too();
    let etcd = Etcd::with_tls(certificates.clone());
    etcd.put("/a", "one");
    let with = |tls: Tls| Options {
        tls: Some(tls),
        ..options([etcd.endpoint()])
    };
    let ours = Tls {
        ca_file: Some(certificates.ca()),
        cert_file: Some(certificates.client_cert()),
        key_file: Some(certificates.client_key()),
    };
    let following = Following::start(&with(ours.clone()), "/a");
    following.delivers([("/a", "one")]);
    etcd.put("/a", "two");
    following.delivers([("/a", "two")]);

    let other = Certificates::new();
    let fails = |tls: Tls, words: &str| {
        let error = Client::new(with(tls)).get("/a").unwrap_err().to_string();
        // etcd's word about a missing certificate may be lost with the connection.
        let step = error.contains(": TLS: ") || error.contains("closed without an answer");
        assert!(step && error.contains(words), "{words}: {error}");
    };
    let wrong_ca = Tls {
        ca_file: Some(other.ca()),
        ..ours.clone()
    };
    fails(wrong_ca, "must hold the CA");
    let without = Tls {
        cert_file: None,
        key_file: None,
        ..ours.clone()
    };
    fails(without, "set etcd.tls.cert_file");
    let wrong_key = Tls {
        key_file: Some(other.client_key()),
        ..ours.clone()
    };
    fails(wrong_key, "is not the key of");
    let missing = Tls {
        ca_file: Some("/no/such/file".into()),
        ..ours
    };
    fails(missing, "/no/such/file");

    let plain = options([etcd.endpoint().replace("https", "http")]);
    let error = Client::new(plain).get("/a").unwrap_err().to_string();
    assert!(error.contains("must begin with https://"), "{error}");
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_value_over_the_limit_is_told_without_its_bytes_beside_its_neighbours() {
    let etcd = Etcd::start();
    etcd.put("/a/1", "one");
    etcd.put("/a/2", "two");
    let small = Options {
        value_bytes_max: 1_000,
        ..options([etcd.endpoint()])
    };
    let following = Following::start(&small, "/a/");
    following.delivers([("/a/1", "one"), ("/a/2", "two")]);
    for size in [1_001, 1_400_000] {
        etcd.put("/a/2", "x".repeat(size));
        let Event::Values { values, .. } = following.next() else {
            panic!("expected values");
        };
        let loaded: Vec<&str> = values.loaded.iter().map(|value| &*value.key).collect();
        let problems: Vec<&str> = values.too_large.iter().map(|it| &*it.problem).collect();
        let problem = format!("the value of /a/2 has {size} bytes, of which 1000 are allowed");
        assert_eq!((loaded, problems), (vec!["/a/1"], vec![&*problem]));
    }
    let just = "y".repeat(1_000);
    etcd.put("/a/2", &just);
    following.delivers([("/a/1", "one"), ("/a/2", &just)]);
    following.told_nothing_more();

    let smaller = Options {
        value_bytes_max: 10,
        ..small
    };
    let error = Client::new(smaller).list("/a/").unwrap_err().to_string();
    assert!(
        error.contains("1000 bytes, of which 10 are allowed"),
        "{error}"
    );
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_stop_is_fast_whatever_is_waited_for() {
    let etcd = Etcd::start();
    // Below what a stop waits for a thread that does not end by itself.
    let fast = Duration::from_millis(500);

    let watching = Following::start(&options([etcd.endpoint()]), "/a");
    watching.delivers([]);
    assert!(watching.stop() < fast);

    let proxy = Proxy::to(etcd.port_of(0), Manner::HoldsStreams);
    let unconfirmed = Following::start(&options([proxy.endpoint()]), "/a");
    unconfirmed.delivers([]);
    assert!(unconfirmed.stop() < fast);

    let nobody = Following::start(
        &options([format!("http://127.0.0.1:{}", free_port())]),
        "/a",
    );
    nobody.troubles(&["connect"]);
    assert!(nobody.stop() < fast);

    proxy.set(Manner::Silent);
    let silent = Following::start(&options([proxy.endpoint()]), "/a");
    assert!(silent.stop() < fast);

    // An address of the network that is reserved for documentation (RFC 5737).
    let nowhere = Following::start(&options(["http://192.0.2.1:2379"]), "/a");
    assert!(nowhere.stop() < Duration::from_secs(1));
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_probe_tells_every_step_and_what_to_change() {
    let etcd = Etcd::start();
    etcd.put("/a", "one");
    let dead = format!("http://127.0.0.1:{}", free_port());
    let proxy = Proxy::to(etcd.port_of(0), Manner::Silent);
    let begun = Instant::now();
    let checks = probe(
        &options([etcd.endpoint(), dead.clone(), proxy.endpoint()]),
        &["/a".to_owned(), "/b/".to_owned()],
    );
    assert!(begun.elapsed() < Duration::from_secs(11));
    let told: Vec<String> = checks
        .iter()
        .map(|check| format!("{} {:?}", check.name, check.outcome))
        .collect();
    let etcd = etcd.endpoint();
    for (at, words) in [
        format!("{etcd}: resolve Ok(\"127.0.0.1\")"),
        format!("{etcd}: connect Ok("),
        format!("{etcd}: version Ok(\"etcd 3."),
        format!("{etcd}: authenticate Ok(\"without a user\")"),
        format!("{etcd}: range /a Ok(\"1 key\")"),
        format!("{etcd}: range /b/ Ok(\"there is no such key yet\")"),
        format!("{dead}: resolve Ok("),
        format!("{dead}: connect Err(\"Connection refused"),
        format!("{}: resolve Ok(", proxy.endpoint()),
        format!("{}: connect Ok(", proxy.endpoint()),
        format!("{}: version Err(\"no answer within", proxy.endpoint()),
    ]
    .iter()
    .enumerate()
    {
        assert!(told[at].starts_with(words), "{words}\n{told:#?}");
    }
    assert_eq!(told.len(), 11, "{told:#?}");
}

/// etcd 3.6 writes errors in another shape and a space after each colon; 3.3
/// serves the gateway elsewhere.
#[test]
fn other_versions_of_the_gateway_are_understood() {
    let newest = FakeGateway::answering(|path, _| {
        let refused = r#"{"code": 7, "message": "etcdserver: permission denied", "details": []}"#;
        match path {
            "/v3/kv/range" => (403, refused.to_owned()),
            _ => (404, r#"{"code": 5, "message": "Not Found"}"#.to_owned()),
        }
    });
    let error = Client::new(options([newest.endpoint()])).get("/a");
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("range: etcdserver: permission denied"),
        "{error}"
    );
    assert!(error.contains("grant-permission"), "{error}");

    for api in ["/v3beta", "/v3alpha"] {
        let older = FakeGateway::answering(move |path, body| {
            match path.strip_prefix(api) {
            Some("/kv/range") if body.contains(r#""keys_only":true"#) => (
                200,
                r#"{"header":{"revision":"3"},"kvs":[{"key":"L2E=","mod_revision":"2"}],"count":"1"}"#
                    .to_owned(),
            ),
            // The value as of the list, not of now.
            Some("/kv/range") if body.contains(r#""revision":"3""#) => (
                200,
                r#"{"header":{"revision":3},"kvs":[{"key":"L2E=","mod_revision":2,"value":"aGk="}]}"#
                    .to_owned(),
            ),
            _ => (404, "Not Found".to_owned()),
        }
        });
        let value = Client::new(options([older.endpoint()])).get("/a");
        assert_eq!(value.unwrap().unwrap().bytes, b"hi");
    }

    let none = FakeGateway::answering(|_, _| (404, String::new()));
    let error = Client::new(options([none.endpoint()])).get("/a");
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("none of /v3, /v3beta, /v3alpha is served"),
        "{error}"
    );
}

/// However often it is tried again; and that is not too often.
#[test]
fn trouble_that_lasts_is_told_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let leaderless = FakeGateway::answering(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        let refused = r#"{"code": 14, "message": "etcdserver: no leader"}"#;
        (503, refused.to_owned())
    });
    let begun = Instant::now();
    let following = Following::start(&options([leaderless.endpoint()]), "/a");
    following.troubles(&["range: etcdserver: no leader", "members must be up"]);
    wait_for(&asked, 4);
    // Three pauses of 250, 500 and 1,000 ms, less a fifth.
    assert!(begun.elapsed() > Duration::from_millis(1_400));
    following.told_nothing_more();
}

/// A server that ends every watch at once is no reason to ask it for ever.
#[test]
fn a_watch_that_always_ends_is_not_begun_again_at_once() {
    let watched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&watched);
    let fickle = FakeGateway::answering(move |path, _| match path {
        "/v3/watch" => {
            count.fetch_add(1, Ordering::Relaxed);
            (200, "{\"result\":{\"created\":true}}\n".to_owned())
        }
        _ => (200, r#"{"header":{"revision":"1"}}"#.to_owned()),
    });
    let begun = Instant::now();
    let following = Following::start(&options([fickle.endpoint()]), "/a");
    following.delivers([]);
    wait_for(&watched, 4);
    assert!(begun.elapsed() > Duration::from_millis(1_400));
    following.told_nothing_more();
}

#[track_caller]
fn wait_for(counter: &AtomicUsize, count: usize) {
    let deadline = Instant::now() + DEADLINE;
    while counter.load(Ordering::Relaxed) < count {
        assert!(Instant::now() < deadline, "not {count} times");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn more_keys_than_are_loaded_are_refused() {
    let many = FakeGateway::answering(|_, _| {
        let keys = vec![r#"{"key":"L2E=","mod_revision":"1"}"#; 1_001].join(",");
        (
            200,
            format!(r#"{{"header":{{"revision":"1"}},"kvs":[{keys}]}}"#),
        )
    });
    let error = Client::new(options([many.endpoint()])).list("/a/");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("more than 1000 keys below /a/"), "{error}");
}

#[test]
fn whatever_answers_that_is_not_etcd_is_named() {
    let page = FakeGateway::answering(|_, _| (200, "<html>hello</html>".to_owned()));
    let error = Client::new(options([page.endpoint()])).get("/a");
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("does something else listen there"),
        "{error}"
    );

    let error = Client::new(options(["http://no-such-host.invalid:2379"])).get("/a");
    let error = error.unwrap_err().to_string();
    assert!(error.contains(": resolve: "), "{error}");
    assert!(
        error.contains("check the host in etcd.endpoints"),
        "{error}"
    );

    let error = Client::new(Options::new(Vec::new())).get("/a").unwrap_err();
    assert!(error.to_string().contains("set etcd.endpoints"), "{error}");
}
