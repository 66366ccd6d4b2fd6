//! TLS and SASL against a real Kafka: who gets in ships every line once, and who
//! does not is told the step, the reason and what to change.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::daemon::{config, source};
use crate::kafka::Topic;
use crate::secured::{FORBIDDEN, LOGIN, Listener, MECHANISMS, PASSWORD, Secured, USER};
use crate::world::{Logship, World, numbered};

/// How soon a problem must be told that a person waits for.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// The options of a way in: file names are relative to the world.
fn options(secured: &Secured, world: &World, listener: Listener, mechanism: &str) -> Vec<String> {
    let mut options = vec!["--brokers".to_owned(), secured.address(listener)];
    let mut add = |name: &str, value: &Path| {
        options.extend([name.to_owned(), value.display().to_string()]);
    };
    if listener.protocol().ends_with("SSL") {
        add("--tls-ca-file", &secured.ca());
    }
    if listener == Listener::MutualTls {
        let (certificate, key) = secured.client();
        add("--tls-cert-file", &certificate);
        add("--tls-key-file", &key);
    }
    if listener.protocol().starts_with("SASL") {
        let file = world.path("password");
        fs::write(&file, format!("{PASSWORD}\n")).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        add("--sasl-mechanism", Path::new(mechanism));
        add("--sasl-username", Path::new(USER));
        add("--sasl-password-file", &file);
    }
    options
}

/// Ships a file to a topic that nobody else uses, without state.
fn tail(world: &World, topic: &str, options: &[String]) -> Logship {
    world
        .logship(["tail", "app.log", "--topic", topic, "--once", "--no-state"])
        .args(options.iter().map(String::as_str))
}

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn every_way_in_ships_every_line_once() {
    let secured = Secured::shared();
    let with_sasl = [Listener::SaslTls, Listener::Sasl];
    let sasl = with_sasl.map(|listener| MECHANISMS.map(|mechanism| (listener, mechanism)));
    let plain = [(Listener::Tls, ""), (Listener::MutualTls, "")];
    for (listener, mechanism) in plain.into_iter().chain(sasl.into_iter().flatten()) {
        let (world, topic) = (World::new(), Topic::at(&secured.kafka().addresses()));
        let lines = numbered(0..20_000);
        world.log("app.log").write(&lines);
        let options = options(&secured, &world, listener, mechanism);
        let ended = tail(&world, &topic.name, &options)
            .arg("-vv")
            .run()
            .exits(0);
        let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        assert!(topic.values() == lines, "{listener:?} {mechanism}");
        assert!(!ended.stderr.contains(PASSWORD), "{}", ended.stderr);
    }
}

/// What is wrong, and what must be said of it.
struct Wrong {
    listener: Listener,
    /// Options instead of those that let in.
    options: Vec<String>,
    /// The step that fails.
    step: &'static str,
    /// Part of the reason and of what to change.
    because: [&'static str; 2],
}

/// Everything that keeps somebody out.
fn everything_wrong(secured: &Secured, world: &World) -> Vec<Wrong> {
    let wrong = |listener, options: &[&str], step, because| Wrong {
        listener,
        options: options.iter().map(|&option| option.to_owned()).collect(),
        step,
        because,
    };
    fs::write(world.path("guess"), "a guess\n").unwrap();
    fs::write(world.path("token"), "a.token\n").unwrap();
    let text = |path: &Path| path.display().to_string();
    let (ca, other) = (text(&secured.ca()), text(&secured.other_ca()));
    let showing = |(certificate, key): (PathBuf, PathBuf)| {
        let files = [("ca", secured.ca()), ("cert", certificate), ("key", key)];
        files.map(|(name, file)| format!("--tls-{name}-file={}", file.display()))
    };
    let (stranger, late) = (showing(secured.stranger()), showing(secured.late_client()));
    let user = ["--sasl-username", USER, "--sasl-password-file"];
    let login = |mechanism, file| {
        let mut options = vec!["--sasl-mechanism", mechanism];
        options.extend(user);
        options.push(file);
        options
    };
    let tls_and = |mut options: Vec<&'static str>| {
        options.insert(0, "--security-protocol=SASL_SSL");
        options
    };
    let trusted = ["--tls-ca-file", &ca];
    let with_ca = |options: &[&'static str]| -> Vec<String> {
        let all = trusted.iter().copied().chain(options.iter().copied());
        all.map(str::to_owned).collect()
    };
    let mut all = vec![
        wrong(
            Listener::Tls,
            &["--tls-ca-file", &other],
            "TLS handshake",
            ["UnknownIssuer", "give the CA"],
        ),
        wrong(
            Listener::Tls,
            &["--security-protocol", "SSL"],
            "TLS handshake",
            ["UnknownIssuer", "give the CA"],
        ),
        wrong(
            Listener::ExpiredTls,
            &trusted,
            "TLS handshake",
            ["expired", "renew the broker's certificate"],
        ),
        wrong(
            Listener::ElsewhereTls,
            &trusted,
            "TLS handshake",
            ["not valid for", "use a name of the broker"],
        ),
        wrong(
            Listener::Tls,
            &[],
            "Kafka handshake",
            ["the broker speaks TLS", "wants TLS"],
        ),
        wrong(
            Listener::Sasl,
            &trusted,
            "TLS handshake",
            ["closed the connection", "without TLS"],
        ),
        wrong(
            Listener::CaTls,
            &trusted,
            "TLS handshake",
            ["certificate is one of a CA", "without CA:TRUE"],
        ),
        wrong(
            Listener::MutualTls,
            &trusted,
            "TLS handshake",
            ["alert", "certificate of ours"],
        ),
        wrong(
            Listener::MutualTls,
            &stranger.each_ref().map(String::as_str),
            "TLS handshake",
            ["alert", "does not trust our certificate"],
        ),
        wrong(
            Listener::MutualTls,
            &late.each_ref().map(String::as_str),
            "TLS handshake",
            ["alert", "or it has expired"],
        ),
        wrong(
            Listener::Sasl,
            &[],
            "metadata",
            ["closed the connection", "does not log in"],
        ),
        wrong(
            Listener::Sasl,
            &[
                "--sasl-mechanism",
                "OAUTHBEARER",
                "--sasl-token-file",
                "token",
            ],
            "SASL login",
            ["does not know OAUTHBEARER, but PLAIN", "mechanism"],
        ),
    ];
    for mechanism in MECHANISMS {
        all.push(wrong(
            Listener::Sasl,
            &login(mechanism, "guess"),
            "SASL login",
            ["SASL_AUTHENTICATION_FAILED", "user and password"],
        ));
    }
    all.push(Wrong {
        listener: Listener::SaslTls,
        options: with_ca(&tls_and(login("SCRAM-SHA-512", "guess"))),
        step: "SASL login",
        because: ["SASL_AUTHENTICATION_FAILED", "user and password"],
    });
    all
}

/// While it ships: one message, however often it is tried again.
#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn who_does_not_get_in_is_told_why_once() {
    let (secured, world) = (Secured::shared(), World::new());
    world.log("app.log").write(["a line"]);
    for wrong in everything_wrong(&secured, &world) {
        let address = secured.address(wrong.listener);
        let ended = tail(&world, "t", &wrong.options)
            .args(["--brokers", &address, "--timeout", "2s"])
            .run()
            .exits(3);
        let told: Vec<&str> = ended
            .stderr
            .lines()
            .filter(|line| line.contains("cannot reach broker"))
            .collect();
        let [told] = told[..] else {
            panic!("{:?} {:?}: {told:#?}", wrong.listener, wrong.options);
        };
        let step = wrong.step.replace("metadata", "request");
        let all = [&address, step.as_str(), wrong.because[0], wrong.because[1]];
        assert!(
            all.iter().all(|part| told.contains(part)),
            "{told}\nnot {all:?}"
        );
    }
}

/// Before it ships, and in time for somebody who waits.
#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn check_config_names_the_step_that_keeps_out() {
    let (secured, world) = (Secured::shared(), World::new());
    for wrong in everything_wrong(&secured, &world) {
        let config = as_config(&secured.address(wrong.listener), &wrong.options);
        world.configure(&config);
        let begun = Instant::now();
        let ended = world
            .logship(["check-config", "--connect"])
            .arg(world.config())
            .run()
            .exits(1);
        assert!(begun.elapsed() < TOLD_WITHIN, "{:?}", begun.elapsed());
        let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), ended.stderr);
        let told = said
            .lines()
            .find(|line| line.contains(wrong.step) && line.contains(wrong.because[0]));
        let told = told.unwrap_or_else(|| panic!("{}: {:?}\n{said}", wrong.step, wrong.because));
        assert!(told.contains(wrong.because[1]), "{told}");
        let late = wrong.because[1].contains("expired");
        let warned = said.contains("cert_file: has expired, at 2021-01-01T00:00:00Z");
        assert_eq!(late, warned, "{said}");
    }
}

/// What options say, as a config says it.
fn as_config(broker: &str, options: &[String]) -> Value {
    let mut config = config(json!([source("app.log", "t")]));
    config["kafka"] = json!({ "brokers": [broker] });
    let mut words = options.iter().flat_map(|option| option.split('='));
    while let Some(option) = words.next() {
        let value = words.next().expect("every option has a value");
        let name = option.trim_start_matches('-').replace('-', "_");
        match name.split_once('_') {
            Some((object @ ("tls" | "sasl"), key)) => config["kafka"][object][key] = json!(value),
            _ => config["kafka"][&name] = json!(value),
        }
    }
    config
}

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn a_login_is_renewed_while_lines_flow_and_none_comes_twice() {
    let secured = Secured::shared();
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let (world, topic) = (World::new(), Topic::at(&secured.kafka().addresses()));
        let mut log = world.log("app.log");
        let options = options(&secured, &world, Listener::SaslReauth, mechanism);
        let shipper = world
            .logship(["tail", "app.log", "--topic", &topic.name, "--no-state"])
            .args(["--from", "beginning", "-v"])
            .args(options.iter().map(String::as_str))
            .start();
        let lines = numbered(0..60_000);
        let pause = 3 * LOGIN / 600;
        for part in lines.chunks(100) {
            log.write(part);
            thread::sleep(pause);
        }
        topic.wait_for(lines.len());
        let ended = shipper.stop().exits(0);
        let renewed = ended.stderr.matches("logged in again").count();
        assert!(renewed >= 3, "{renewed} times\n{}", ended.stderr);
        assert!(!ended.stderr.contains("[WARN]"), "{}", ended.stderr);
        let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        assert!(topic.values() == lines, "not the lines, in their order");
    }
}

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn another_password_in_the_file_is_taken_up_with_sighup_and_shown_nowhere() {
    let (secured, world) = (Secured::shared(), World::new());
    let topic = Topic::at(&secured.kafka().addresses());
    let guess = "a-guess-that-must-not-be-shown";
    world.log("app.log").write(["a line"]);
    fs::write(world.path("password"), guess).unwrap();
    let mut config = config(json!([source("app.log", &topic.name)]));
    config["kafka"] = json!({
        "brokers": [secured.address(Listener::Sasl)],
        "sasl": { "mechanism": "PLAIN", "username": USER, "password_file": "password" },
    });
    let shipper = world.run(&config).arg("-vv").start();
    shipper.says("SASL_AUTHENTICATION_FAILED");
    fs::write(world.path("password"), PASSWORD).unwrap();
    shipper.signal(Signal::HUP);
    topic.wait_for(1);
    let shown = world.logship(["status", "--json"]).with_state().run();
    let said = format!(
        "{}{}{}",
        shipper.stderr(),
        String::from_utf8_lossy(&shown.stdout),
        shown.stderr
    );
    for secret in [guess, PASSWORD] {
        assert!(!said.contains(secret), "{said}");
    }
    shipper.stop().exits(0);
}

/// Metadata of a topic that one may see but not write to says that all is well.
#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn check_config_tells_a_topic_that_may_be_seen_and_not_written_to() {
    let (secured, world) = (Secured::shared(), World::new());
    secured.kafka().create_topic("seen-only", 1, &[]);
    secured.kafka().let_describe_only(USER, "seen-only");
    secured.kafka().create_topic("writable", 1, &[]);
    fs::write(world.path("password"), PASSWORD).unwrap();
    let mut config = config(json!([
        source("a.log", "seen-only"),
        source("b.log", "writable")
    ]));
    config["kafka"] = json!({
        "brokers": [secured.address(Listener::Sasl)],
        "sasl": { "mechanism": "PLAIN", "username": USER, "password_file": "password" },
    });
    world.configure(&config);
    let ended = world
        .logship(["check-config", "--connect"])
        .arg(world.config())
        .run()
        .exits(1);
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), ended.stderr);
    let of = |topic: &str| {
        said.lines()
            .find(|line| line.contains(topic) && line.contains("topic "))
    };
    let (seen, writable) = (of("seen-only").unwrap(), of("writable").unwrap());
    assert!(
        seen.contains("not write to it (allow this client Write"),
        "{said}"
    );
    assert!(writable.contains("1 partition"), "{said}");
}

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn a_topic_that_is_denied_waits_alone_and_is_told_once() {
    let (secured, world) = (Secured::shared(), World::new());
    secured.kafka().create_topic(FORBIDDEN, 1, &[]);
    let topic = Topic::at(&secured.kafka().addresses());
    world.log("denied.log").write(["no"]);
    let mut log = world.log("app.log");
    fs::write(world.path("password"), PASSWORD).unwrap();
    let mut config = config(json!([
        source("denied.log", FORBIDDEN),
        source("app.log", &topic.name)
    ]));
    config["kafka"] = json!({
        "brokers": [secured.address(Listener::Sasl)],
        "sasl": { "mechanism": "SCRAM-SHA-256", "username": USER, "password_file": "password" },
    });
    let shipper = world.run(&config).start();
    let lines = numbered(0..1_000);
    for part in lines.chunks(100) {
        log.write(part);
        thread::sleep(Duration::from_millis(300));
    }
    topic.wait_for(lines.len());
    let ended = shipper.stop();
    let told = ended.stderr.matches("TOPIC_AUTHORIZATION_FAILED").count();
    assert_eq!(told, 1, "{}", ended.stderr);
    assert_eq!(ended.status.code(), Some(3), "the denied line waits");
}

#[test]
#[ignore = "needs the jars of Kafka: run tests/run"]
fn another_password_of_a_tail_is_taken_up_with_sighup() {
    let (secured, world) = (Secured::shared(), World::new());
    let topic = Topic::at(&secured.kafka().addresses());
    world.log("app.log").write(["a line"]);
    let options = options(&secured, &world, Listener::Sasl, "SCRAM-SHA-256");
    fs::write(world.path("password"), "a guess").unwrap();
    let shipper = world
        .logship(["tail", "app.log", "--topic", &topic.name, "--no-state"])
        .args(["--from", "beginning"])
        .args(options.iter().map(String::as_str))
        .start();
    shipper.says("SASL_AUTHENTICATION_FAILED");
    fs::write(world.path("password"), PASSWORD).unwrap();
    shipper.signal(Signal::HUP);
    topic.wait_for(1);
    shipper.stop().exits(0);
}
