//! `logship etcd get|put|check`: values of a real etcd, and what is refused
//! before anybody is asked.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::etcd::{Certificates, Etcd, FakeGateway, free_port};
use crate::world::{Ended, Logship, World};

/// A value with an entry for each path and topic.
fn value(entries: &[(&str, &str)]) -> String {
    let entry = |(path, topic): &(&str, &str)| format!(r#"{{"path":"{path}","topic":"{topic}"}}"#);
    let entries: Vec<String> = entries.iter().map(entry).collect();
    format!("[{}]\n", entries.join(",\n "))
}

/// `logship etcd COMMAND...` that asks this etcd.
fn command(world: &World, etcd: &Etcd, line: &str) -> Logship {
    let words = line.split(' ').filter(|word| !word.is_empty());
    world
        .logship(["etcd"].into_iter().chain(words))
        .env("LOGSHIP_ETCD_ENDPOINTS", etcd.endpoint())
}

/// The same where nobody is to be asked.
fn alone(world: &World, line: &str) -> Logship {
    let words = line.split(' ').filter(|word| !word.is_empty());
    world.logship(["etcd"].into_iter().chain(words))
}

fn text(ended: &Ended) -> String {
    String::from_utf8(ended.stdout.clone()).unwrap()
}

/// Writes a config whose section `etcd` has these members beside `keys`.
fn config(world: &World, etcd: &str) {
    let text = format!(r#"{{"etcd": {{"keys": ["/k"], {etcd}}}}}"#);
    fs::write(world.path("logship.json"), text).unwrap();
}

#[test]
fn what_is_typed_wrong_is_refused_before_anybody_is_asked() {
    let world = World::new();
    fs::write(world.path("secret"), "secret\n").unwrap();
    fs::write(world.path("good.json"), value(&[("/l/a", "a")])).unwrap();
    fs::write(world.path("none.json"), r#"{"sources": []}"#).unwrap();
    fs::write(world.path("large.json"), " ".repeat((1 << 20) + 1)).unwrap();
    let at = "--endpoints http://127.0.0.1:1";
    for (line, said) in [
        ("get /k", "nothing says where etcd is"),
        ("put /k good.json", "LOGSHIP_ETCD_ENDPOINTS"),
        ("get", "KEY"),
        (
            "get /k --endpoints 127.0.0.1:1",
            "'127.0.0.1:1' is not http://HOST:PORT",
        ),
        ("get /k --config none.json", "no section etcd"),
        (
            "get /k --config missing.json",
            "cannot read the config file",
        ),
        (
            &format!("get /k {at} --config none.json"),
            "cannot be used with",
        ),
        (&format!("get /k {at} --user me"), "--password-file"),
        (
            &format!("get /k {at} --user me --password-file missing"),
            "cannot read 'missing'",
        ),
        (
            &format!("get /k {at} --user me:pw --password-file secret"),
            "takes a name only",
        ),
        (
            &format!("get /k {at} --cacert secret"),
            "all endpoints begin with http:",
        ),
        (
            &format!("get /{{hostname}}/k {at}"),
            "'{hostname}' is not known",
        ),
        (
            &format!("put /k/ good.json {at}"),
            "stands for all keys below it",
        ),
        (
            &format!("put /k missing.json {at}"),
            "cannot read 'missing.json'",
        ),
        (&format!("put /k large.json {at}"), "has over 1048576 bytes"),
        (
            &format!("put /k none.json {at}"),
            "none.json:1:1: must be the JSON array",
        ),
        ("check /k none.json", "1 mistake in none.json"),
    ] {
        let ended = alone(&world, line).start().ends().exits(2).said(said);
        assert!(ended.stdout.is_empty(), "{line}: {}", text(&ended));
        ended.never_said("me:pw");
    }
}

#[test]
fn every_mistake_of_a_value_has_its_place() {
    let world = World::new();
    let bad = "[{\"path\": \"a.log\", \"topic\": \"a\"},\n {\"path\": \"/l/b\", \"topic\": \"b c\"},\n {}]";
    for (line, name) in [
        ("check /k -", "-"),
        ("check /k", "-"),
        ("check /k bad.json", "bad.json"),
    ] {
        fs::write(world.path("bad.json"), bad).unwrap();
        let mut ended = alone(&world, line).stdin(bad).start().ends().exits(2);
        for said in [
            "1:11: [0].path: 'a.log' must be absolute",
            "2:28: [1].topic: ",
            "3:2: [2].path: is missing",
            "3:2: [2].topic: is missing",
        ] {
            ended = ended.said(&format!("{name}:{said}"));
        }
        ended
            .said(&format!("4 mistakes in {name}"))
            .said("logship.conf");
    }
    alone(&world, "check /k")
        .stdin("")
        .start()
        .ends()
        .exits(2)
        .said("is empty: the least is []");
}

#[test]
fn a_good_value_is_shown_as_what_this_host_would_tail() {
    let world = World::new();
    world.log("a.log").write(["one", "two"]);
    let path = world.path("*.log").display().to_string();
    let good = format!(
        r#"[{{"path":"{path}","topic":"a","format":"json","fromat":1}},{{"path":"/l/none","topic":"b"}}]"#
    );
    let ended = alone(&world, "check /k")
        .stdin(good)
        .start()
        .ends()
        .exits(0);
    let shown = text(&ended);
    for said in [
        "- is good",
        "sources  2, with 1 file now",
        &format!("{path} -> a"),
        "format json",
        "a.log  8 bytes",
        "/l/none -> b",
    ] {
        assert!(shown.contains(said), "no {said:?} in\n{shown}");
    }
    ended
        .said("-:1:")
        .said("warning: ")
        .said("fromat")
        .said("'/l/none' does not exist yet");
}

/// The paths are those that the host's own config allows.
#[test]
fn with_a_config_a_path_outside_of_what_it_allows_is_refused() {
    let world = World::new();
    let dir = world.dir("log");
    config(
        &world,
        &format!(
            r#""endpoints": ["http://127.0.0.1:1"], "allowed_paths": ["{}/**"]"#,
            dir.display()
        ),
    );
    let inside = value(&[(&format!("{}/a.log", dir.display()), "a")]);
    let outside = value(&[("/etc/passwd", "a")]);
    let check = "check /k --config logship.json";
    alone(&world, check).stdin(inside).start().ends().exits(0);
    let ended = alone(&world, check).stdin(outside.clone()).start().ends();
    ended
        .exits(2)
        .said("-:1:10: [0].path: ")
        .said("outside of etcd.allowed_paths");
    alone(&world, "check /k")
        .stdin(outside)
        .start()
        .ends()
        .exits(0);
}

#[test]
fn a_failure_names_endpoint_and_step() {
    let world = World::new();
    let (dead, fake) = (
        free_port(),
        FakeGateway::answering(|_, _| (200, "<html>".to_owned())),
    );
    let dead = format!("http://127.0.0.1:{dead}");
    let both = format!("{dead},{}", fake.endpoint());
    let ended = alone(&world, &format!("get /k --endpoints {both}"))
        .start()
        .ends();
    ended
        .exits(1)
        .said(&format!("{dead}: connect: "))
        .said(&format!(
            "{}: range: the answer is not etcd's",
            fake.endpoint()
        ));
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn what_is_put_is_shown_as_changes_and_read_back() {
    let (world, etcd) = (World::new(), Etcd::start());
    let put = |line: &str, value: String| {
        let ended = command(&world, &etcd, &format!("put /k {line}"))
            .stdin(value)
            .start()
            .ends()
            .exits(0);
        text(&ended)
    };
    let one = value(&[("/l/a", "a"), ("/l/b", "b"), ("/l/c", "c")]);
    let two = value(&[("/l/a", "a"), ("/l/b", "bb"), ("/l/d", "d")]);
    let shown = put("", one.clone());
    assert!(
        shown.contains("there is nothing yet") && shown.contains("3 added"),
        "{shown}"
    );
    assert!(shown.contains("/k: written at revision 2\n"), "{shown}");

    let changes = "/k: 1 added, 1 removed, 1 changed\n  - /l/c -> c\n  + /l/d -> d\n  ~ /l/b -> bb\n      was /l/b -> b\n";
    let shown = put("--dry-run", two.clone());
    assert_eq!(shown, format!("{changes}/k: not written (--dry-run)\n"));
    command(&world, &etcd, "get /k")
        .start()
        .ends()
        .exits(0)
        .printed(one.lines());
    assert_eq!(
        put("-", two.clone()),
        format!("{changes}/k: written at revision 3\n")
    );

    let ended = command(&world, &etcd, "get /k").start().ends().exits(0);
    assert_eq!(text(&ended), two, "byte for byte");
    assert!(put("", two.clone()).contains("since revision 3"));
    assert_eq!(etcd.revision(), 3);
    assert!(
        put("", two.replace('\n', " ")).contains("no entry changes\n/k: written at revision 4")
    );
    etcd.put("/k", "broken");
    assert!(put("", two).contains("is refused by logship: /k:1:1"));
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn what_a_logship_would_refuse_is_not_written() {
    let (world, etcd) = (World::new(), Etcd::start());
    etcd.put("/k", "[]\n");
    let before = etcd.revision();
    config(
        &world,
        &format!(
            r#""endpoints": ["{}"], "allowed_paths": ["/var/log/**"]"#,
            etcd.endpoint()
        ),
    );
    let put = |line: &str, value: &str| {
        command(&world, &etcd, &format!("put /k {line}"))
            .stdin(value)
            .start()
            .ends()
    };
    for force in ["", "--force"] {
        put(force, "{").exits(2).said("-:1:1: ");
        put(force, r#"[{"path":"/l/a","topic":"a b"}]"#)
            .exits(2)
            .said("[0].topic");
        put(
            &format!("{force} --config logship.json"),
            r#"[{"path":"/l/a","topic":"a"}]"#,
        )
        .exits(2)
        .said("outside of etcd.allowed_paths");
    }
    put("", "[]")
        .exits(2)
        .said("the list is empty")
        .said("--force");
    assert_eq!(etcd.revision(), before);
    etcd.put("/k", value(&[("/l/a", "a")]));
    put("--force", "[]\n").exits(0);
    command(&world, &etcd, "get /k")
        .start()
        .ends()
        .printed(["[]"]);
}

/// Between the comparison and the write somebody else writes: as if a second
/// person had looked at the same value.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_change_by_somebody_else_meanwhile_is_not_written_over() {
    let (world, etcd) = (World::new(), Arc::new(Etcd::start()));
    etcd.put("/k", value(&[("/l/a", "a")]));
    let (inner, theirs) = (Arc::downgrade(&etcd), value(&[("/l/theirs", "t")]));
    let between = FakeGateway::answering(move |path, body| {
        // The gateway outlives the test; etcd must not.
        let etcd = inner.upgrade().unwrap();
        if path == "/v3/kv/txn" {
            etcd.put("/k", &theirs);
        }
        ask(&etcd, path, body)
    });
    let mine = value(&[("/l/mine", "m")]);
    let put = |line: &str| {
        let at = between.endpoint();
        alone(&world, &format!("put /k {line} --endpoints {at}"))
            .stdin(mine.clone())
            .start()
            .ends()
    };
    put("")
        .exits(1)
        .said("'/k' was changed by somebody else meanwhile")
        .said("revision 3 now");
    command(&world, &etcd, "get /k")
        .start()
        .ends()
        .printed(value(&[("/l/theirs", "t")]).lines());
    put("--force").exits(0);
    command(&world, &etcd, "get /k")
        .start()
        .ends()
        .printed(mine.lines());
}

/// The first endpoint writes and its answer is lost; the second is asked again,
/// and finds what was written: that is no change by somebody else.
#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_write_whose_answer_was_lost_is_no_change_by_somebody_else() {
    let (world, etcd) = (World::new(), Arc::new(Etcd::start()));
    let inner = Arc::downgrade(&etcd);
    let loses = FakeGateway::answering(move |path, body| {
        let answer = ask(&inner.upgrade().unwrap(), path, body);
        if path == "/v3/kv/txn" {
            (504, "lost".to_owned())
        } else {
            answer
        }
    });
    let mine = value(&[("/l/mine", "m")]);
    let both = format!("{},{}", loses.endpoint(), etcd.endpoint());
    let put = alone(&world, &format!("put /k --endpoints {both}")).stdin(mine.clone());
    let shown = text(&put.start().ends().exits(0));
    assert!(shown.contains("/k: written at revision 2"), "{shown}");
    assert_eq!(etcd.revision(), 2);
}

/// Posts to a real etcd.
fn ask(etcd: &Etcd, path: &str, body: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", etcd.port_of(0))).unwrap();
    let length = body.len();
    // HTTP/1.0: the answer is not cut into chunks, and ends with the connection.
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn a_key_that_ends_with_a_slash_is_all_below_it() {
    let (world, etcd) = (World::new(), Etcd::start());
    command(&world, &etcd, "get /k/")
        .start()
        .ends()
        .exits(1)
        .said("nothing in etcd below '/k/'");
    command(&world, &etcd, "get /k/a")
        .start()
        .ends()
        .exits(1)
        .said("nothing in etcd under '/k/a'");
    etcd.put("/k/a", "one\n");
    etcd.put("/k/b", b"\xff\x1b");
    let ended = command(&world, &etcd, "get /k/").start().ends().exits(0);
    let shown: &[u8] = b"/k/a (revision 2)\none\n/k/b (revision 3)\n\xff\x1b\n";
    assert_eq!(ended.stdout, shown);
    command(&world, &etcd, "get /k/ --json").start().ends().exits(0).printed([
        r#"[{"key":"/k/a","mod_revision":2,"value":"one\n"},{"key":"/k/b","mod_revision":3,"value_base64":"/xs="}]"#,
    ]);
    let one = r#"{"key":"/k/a","mod_revision":2,"value":"one\n"}"#;
    command(&world, &etcd, "get /k/a --json")
        .start()
        .ends()
        .exits(0)
        .printed([one]);
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn host_and_address_in_a_key_are_filled_in_as_in_the_config() {
    let (world, etcd) = (World::new(), Etcd::start());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    etcd.put(&format!("/{}/10.1.2.3", host.trim()), "mine");
    let text = format!(
        r#"{{"etcd": {{"keys": ["/k"], "endpoints": ["{}"]}}, "agent": {{"ip": "10.1.2.3"}}}}"#,
        etcd.endpoint()
    );
    fs::write(world.path("logship.json"), text).unwrap();
    let ended = alone(&world, "get /{host}/{ip} --config logship.json")
        .start()
        .ends();
    assert_eq!(ended.exits(0).stdout, b"mine");
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn on_a_terminal_without_a_file_what_is_in_etcd_is_checked() {
    let (world, etcd) = (World::new(), Etcd::start());
    etcd.put("/k", value(&[("/l/a", "a")]));
    etcd.put("/bad", "[\n\x1b");
    let run = |key: &str| {
        let line = format!("{} etcd check {key}", env!("CARGO_BIN_EXE_logship"));
        world
            .logship(["-qec", &line, "/dev/null"])
            .instead("script")
            .env("LOGSHIP_ETCD_ENDPOINTS", etcd.endpoint())
            .start()
            .ends()
    };
    let shown = text(&run("/k").exits(0));
    assert!(
        shown.contains("/k is good") && shown.contains("/l/a -> a"),
        "{shown}"
    );
    let shown = text(&run("/bad").exits(2));
    assert!(shown.contains("/bad:2:1: "), "{shown}");
}

#[test]
#[ignore = "needs a real etcd: run tests/run"]
fn user_password_and_certificates_are_those_of_the_options() {
    let (world, etcd) = (World::new(), Etcd::start());
    etcd.put("/k", "[]\n");
    etcd.add_reader("reader", "secret", "/k");
    etcd.enable_auth();
    for (name, password) in [("password", "secret\n"), ("wrong", "wrong\n")] {
        fs::write(world.path(name), password).unwrap();
        fs::set_permissions(world.path(name), Permissions::from_mode(0o600)).unwrap();
    }
    let login = |file: &str| format!("--user reader --password-file {file}");
    let get = |line: &str| command(&world, &etcd, line).start().ends();
    get(&format!("get /k {}", login("password")))
        .exits(0)
        .printed(["[]"]);
    get("get /k").exits(1).said("user name is empty");
    get(&format!("get /k {}", login("wrong")))
        .exits(1)
        .said("authenticate: ")
        .never_said("'wrong'");
    let put = command(&world, &etcd, &format!("put /k {}", login("password")));
    put.stdin(value(&[("/l/a", "a")]))
        .start()
        .ends()
        .exits(1)
        .said(": put: ")
        .said("permission denied");

    let certificates = Certificates::for_clients_too();
    let etcd = Etcd::with_tls(certificates.clone());
    etcd.put("/k", "[]\n");
    let show = |path: &Path| path.display().to_string();
    let (ca, cert, key) = (
        certificates.ca(),
        certificates.client_cert(),
        certificates.client_key(),
    );
    let line = format!(
        "get /k --cacert {} --cert {} --key {}",
        show(&ca),
        show(&cert),
        show(&key)
    );
    command(&world, &etcd, &line)
        .start()
        .ends()
        .exits(0)
        .printed(["[]"]);
    command(&world, &etcd, "get /k")
        .start()
        .ends()
        .exits(1)
        .said("TLS: ");
}
