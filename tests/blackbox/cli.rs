//! The command line: what is refused and how, what is said and where, and how
//! a run ends. The exit codes are a promise (DESIGN.md, section 7).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::etcd::Certificates;
use crate::world::{Ended, Figures, Logship, World, bytes_name, figure, numbered};

/// Nothing may come out of a run that was refused.
pub const NOTHING: [&str; 0] = [];

fn log_path(world: &World) -> OsString {
    let mut log = world.log("app.log");
    log.write(["one", "two"]);
    log.path().into()
}

/// `logship tail app.log --once` and these arguments; the log has two lines.
fn tail_with<A: Into<OsString>>(world: &World, args: impl IntoIterator<Item = A>) -> Logship {
    world.tail([log_path(world)]).once().args(args)
}

// Refused before anything starts: exit code 2.

#[test]
fn an_impossible_topic_name_is_refused_and_quoted() {
    let too_long = "t".repeat(250);
    for topic in ["two words", "a/b", "naïve", "a:b", "", ".", "..", &too_long] {
        let world = World::new();
        let path = log_path(&world);
        let args = ["tail".into(), path, "--topic".into(), topic.into()];
        let ended = world.logship(args).arg("--once").run();
        ended.exits(2).printed(NOTHING).said("topic").said(topic);
    }
}

#[test]
fn a_topic_name_of_every_allowed_kind_is_taken() {
    let longest = "t".repeat(249);
    for topic in ["a", "A-z_0.9", "...", "-", &longest] {
        let world = World::new();
        let args = ["tail".into(), log_path(&world)];
        let topic = format!("--topic={topic}");
        let ended = world.logship(args).args([&topic, "--once"]).run();
        ended.exits(0).printed(["one", "two"]);
    }
}

#[test]
fn a_malformed_broker_address_is_refused_and_quoted() {
    let bad = [
        "kafka1:",
        "kafka1:port",
        ":9092",
        "kafka1:99999",
        "kafka1:0",
        "http://kafka1:9092",
        "two words:9092",
        "[::1:9092",
        "::1:9092",
        "good:9092,bad:port",
    ];
    for brokers in bad {
        let world = World::new();
        let last = brokers.rsplit(',').next().unwrap();
        let ended = tail_with(&world, ["--brokers", brokers]).run();
        ended.exits(2).printed(NOTHING).said(last);
        let ended = tail_with(&world, NOTHING).env("LOGSHIP_BROKERS", brokers);
        ended.run().exits(2).printed(NOTHING).said(last);
        assert_eq!(fs::read_dir(world.home()).unwrap().count(), 0);
    }
}

#[test]
fn an_empty_list_of_brokers_is_refused() {
    let world = World::new();
    tail_with(&world, ["--brokers", ""])
        .run()
        .exits(2)
        .printed(NOTHING)
        .said("broker");
}

#[test]
fn a_value_outside_a_closed_set_is_refused_and_quoted_with_the_set() {
    let sets = [
        ("--from", "middle", vec!["beginning", "end"]),
        ("--format", "xml", vec!["raw", "json"]),
        (
            "--compression",
            "rar",
            vec!["none", "gzip", "snappy", "lz4", "zstd"],
        ),
        ("--client", "old", vec!["auto", "modern", "legacy"]),
        ("--when-full", "panic", vec!["wait", "drop"]),
        ("--partition", "sideways", vec!["spread"]),
    ];
    for (option, value, set) in sets {
        let world = World::new();
        let ended = tail_with(&world, [option, value]).run();
        let ended = ended.exits(2).printed(NOTHING).said(option).said(value);
        set.into_iter()
            .fold(ended, |ended, known| ended.said(known));
    }
}

#[test]
fn a_duration_that_is_none_is_refused_and_quoted() {
    for option in ["--timeout", "--shutdown-timeout"] {
        let world = World::new();
        let ended = tail_with(&world, [option, "soon"]).run();
        ended.exits(2).printed(NOTHING).said(option).said("soon");
    }
}

#[test]
fn a_wrong_usage_is_refused_with_what_is_missing_or_unknown() {
    let world = World::new();
    let path = log_path(&world).into_string().unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["tail", "--topic", "demo"], "PATH"),
        (&["tail", &path], "--topic"),
        (&["tail", &path, "--topic"], "--topic"),
        (
            &["tail", &path, "--topic", "demo", "--tpoic", "x"],
            "--tpoic",
        ),
        (&["tial", &path, "--topic", "demo"], "tial"),
        (&[], "Usage"),
    ];
    for (args, said) in cases {
        world
            .logship(args.iter().copied())
            .run()
            .exits(2)
            .printed(NOTHING)
            .said(said);
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let world = World::new();
    for args in [
        &["--help"][..],
        &["-h"],
        &["tail", "--help"],
        &["tail", "-h"],
    ] {
        let ended = world.logship(args.iter().copied()).run().exits(0);
        let help = String::from_utf8(ended.stdout.clone()).unwrap();
        assert!(help.contains("Usage"), "{help}");
        assert_eq!(ended.stderr, "");
    }
    let ended = world.logship(["--version"]).run().exits(0);
    let version = concat!("logship ", env!("CARGO_PKG_VERSION"));
    assert!(ended.stdout.starts_with(version.as_bytes()));
}

#[test]
fn the_help_of_tail_names_every_option_of_the_contract() {
    let world = World::new();
    let ended = world.logship(["tail", "--help"]).run().exits(0);
    let help = String::from_utf8(ended.stdout.clone()).unwrap();
    let options = "--topic --brokers LOGSHIP_BROKERS --from --once --format --key --partition \
                   --client --compression --when-full --state-dir --name --no-state --shutdown-timeout \
                   --timeout --log-file --quiet --verbose";
    for option in options.split_whitespace() {
        assert!(help.contains(option), "{option} is not in\n{help}");
    }
}

// Variables stand for options.

/// Every variable that logship reads, but for those that a config names.
const VARIABLES: [&str; 11] = [
    "LOGSHIP_BROKERS",
    "LOGSHIP_ETCD_ENDPOINTS",
    "LOGSHIP_SASL_MECHANISM",
    "LOGSHIP_SASL_PASSWORD",
    "LOGSHIP_SASL_TOKEN_FILE",
    "LOGSHIP_SASL_USERNAME",
    "LOGSHIP_SECURITY_PROTOCOL",
    "LOGSHIP_STATE_DIR",
    "LOGSHIP_TLS_CA_FILE",
    "LOGSHIP_TLS_CERT_FILE",
    "LOGSHIP_TLS_KEY_FILE",
];

/// A unit or a compose file that fills in nothing kept logship from starting, and did
/// not say with which variable.
#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    let world = World::new();
    let with_nothing = |logship: Logship| {
        let set = |logship: Logship, name: &&str| logship.env(name, "");
        VARIABLES.iter().fold(logship, set).run()
    };
    with_nothing(tail_with(&world, NOTHING))
        .exits(0)
        .printed(["one", "two"]);
    let status = with_nothing(world.logship(["status"])).exits(1);
    status.said("logship/admin.sock");
    with_nothing(world.logship(["etcd", "get", "/k"]))
        .exits(2)
        .said("nothing says where etcd is");
    let login = [
        "--brokers",
        "k:1",
        "--sasl-mechanism",
        "PLAIN",
        "--sasl-username",
        "me",
    ];
    with_nothing(tail_with(&world, login))
        .exits(2)
        .said("--sasl-password-file: is missing");
}

/// A shell that exports what is refused: the name to look for is the variable's.
#[test]
fn what_is_wrong_with_a_variable_is_told_under_its_name() {
    let world = World::new();
    let not_utf8 = || OsString::from_vec(b"hunter2\xff".to_vec());
    let tail = || {
        let login = ["--sasl-mechanism", "PLAIN", "--sasl-username", "me"];
        tail_with(&world, ["--brokers", "k:1"]).args(login)
    };
    for (name, value, said) in [
        ("LOGSHIP_SECURITY_PROTOCOL", "foo".into(), "'foo'"),
        (
            "LOGSHIP_SECURITY_PROTOCOL",
            "SSL".into(),
            "LOGSHIP_SECURITY_PROTOCOL: is SSL",
        ),
        (
            "LOGSHIP_TLS_CA_FILE",
            "/no/such".into(),
            "LOGSHIP_TLS_CA_FILE: cannot read",
        ),
        (
            "LOGSHIP_SASL_PASSWORD",
            not_utf8(),
            "LOGSHIP_SASL_PASSWORD: is not UTF-8",
        ),
    ] {
        let ended = tail().env(name, &value).run().exits(2).printed(NOTHING);
        ended.said(name).said(said).never_said("hunter2");
    }
    for (name, value, said) in [
        ("LOGSHIP_SASL_MECHANISM", "GSSAPI".into(), "'GSSAPI'"),
        (
            "LOGSHIP_BROKERS",
            "k:port".into(),
            "LOGSHIP_BROKERS: 'k:port'",
        ),
        ("LOGSHIP_BROKERS", not_utf8(), "UTF-8"),
        ("LOGSHIP_SASL_USERNAME", not_utf8(), "UTF-8"),
    ] {
        // One that is in order is not the one.
        let tail = tail_with(&world, NOTHING).env("LOGSHIP_SECURITY_PROTOCOL", "SSL");
        let ended = tail.env(name, &value).run().exits(2).printed(NOTHING);
        ended
            .said(name)
            .said(said)
            .never_said("LOGSHIP_SECURITY_PROTOCOL");
    }
    world
        .logship(["etcd", "get", "/k"])
        .env("LOGSHIP_ETCD_ENDPOINTS", not_utf8())
        .run()
        .exits(2)
        .said("LOGSHIP_ETCD_ENDPOINTS: is not UTF-8");
}

#[test]
fn what_is_wrong_with_an_option_is_told_under_its_name_whatever_the_variables_are() {
    let world = World::new();
    for (option, value, variable) in [
        ("--security-protocol", "foo", "LOGSHIP_SECURITY_PROTOCOL"),
        ("--tls-ca-file", "/no/such", "LOGSHIP_TLS_CA_FILE"),
        ("--brokers", "k:port", "LOGSHIP_BROKERS"),
    ] {
        let tail = tail_with(&world, [option, value]);
        let tail = match option {
            "--brokers" => tail,
            _ => tail.args(["--brokers", "k:1"]),
        };
        let ended = tail.env(variable, "SSL").run().exits(2);
        ended.said(option).said(value).never_said("LOGSHIP_");
    }
}

// What is said of TLS and the login, without any broker.

/// `tail_with` a login to a broker that is not there.
fn login(world: &World, args: &[&str]) -> Logship {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    tail_with(world, ["--no-state", "--timeout", "100ms"])
        .args(["--brokers", &format!("127.0.0.1:{port}")])
        .args(args.iter().copied())
}

#[test]
fn a_missing_password_is_told_with_both_ways_to_give_it() {
    let world = World::new();
    login(
        &world,
        &["--sasl-mechanism", "plain", "--sasl-username", "me"],
    )
    .run()
    .exits(2)
    .said("--sasl-password-file: is missing")
    .said("LOGSHIP_SASL_PASSWORD");
}

/// As everywhere: what was typed wins over what a variable says.
#[test]
fn a_password_file_wins_over_the_variable() {
    let world = World::new();
    fs::write(world.path("secret"), "hunter2\n").unwrap();
    let tail = |file: &str| {
        let user = ["--sasl-mechanism", "PLAIN", "--sasl-username", "me"];
        login(&world, &user).args(["--sasl-password-file", file])
    };
    let not_utf8 = OsString::from_vec(b"\xff".to_vec());
    tail("secret")
        .env("LOGSHIP_SASL_PASSWORD", not_utf8)
        .run()
        .exits(3);
    tail("none")
        .env("LOGSHIP_SASL_PASSWORD", "hunter2")
        .run()
        .exits(2)
        .said("--sasl-password-file: cannot read 'none'");
}

/// `run` took renewed secrets up with SIGHUP, and `tail` said that there was nothing to
/// reload: whoever renewed a certificate had to restart every tail.
#[test]
fn renewed_files_of_a_login_are_taken_up_with_sighup() {
    let (world, certificates) = (World::new(), Certificates::new());
    fs::write(world.path("secret"), "hunter1\n").unwrap();
    fs::copy(certificates.ca(), world.path("ca.pem")).unwrap();
    let log = world.log("app.log");
    let mut shipper = world
        .tail([&log])
        .args(["--no-state", "--brokers", "127.0.0.1:1"])
        .args(["--sasl-mechanism", "PLAIN", "--sasl-username", "me"])
        .args(["--sasl-password-file", "secret", "--tls-ca-file", "ca.pem"])
        .start();
    shipper.says("cannot reach broker");

    let mut reload = |told: &str| {
        let at = shipper.stderr().len();
        shipper.signal(Signal::HUP);
        shipper.waits_for(told, |shipper| {
            shipper.stderr_since(at).contains(told).then_some(())
        });
    };
    reload("the files of TLS and the login say nothing new");
    fs::write(world.path("secret"), "hunter2\n").unwrap();
    reload("lines go through new producers from now on");
    fs::copy(Certificates::new().ca(), world.path("ca.pem")).unwrap();
    reload("lines go through new producers from now on");
    fs::remove_file(world.path("secret")).unwrap();
    reload("--sasl-password-file: cannot read 'secret'");
    fs::write(world.path("secret"), "hunter2\n").unwrap();
    reload("the files of TLS and the login say nothing new");

    shipper.stop().exits(0).never_said("hunter");
}

/// Whoever gives a CA wants it to be asked.
#[test]
fn a_ca_beside_the_will_to_take_any_certificate_is_refused() {
    let world = World::new();
    let ca = Certificates::new().ca();
    let tail = || login(&world, &["--tls-insecure-skip-verify"]);
    let problem = ": is not asked where any certificate is taken";
    let ended = tail().arg("--tls-ca-file").arg(&ca).run().exits(2);
    ended.said(&format!("--tls-ca-file{problem}"));
    let ended = tail().env("LOGSHIP_TLS_CA_FILE", &ca).run().exits(2);
    ended.said(&format!("LOGSHIP_TLS_CA_FILE{problem}"));
}

#[test]
fn security_without_brokers_is_said_to_have_no_effect() {
    let said = "--brokers: is not given, so that what is said of TLS and the login has no effect";
    for args in [
        &["--security-protocol", "SSL"][..],
        &["--tls-insecure-skip-verify"],
        &["--sasl-username", "me"],
        &[],
    ] {
        let world = World::new();
        let ended = tail_with(&world, args.iter().copied()).run();
        let ended = ended.exits(0).printed(["one", "two"]);
        assert_eq!(ended.stderr.contains(said), !args.is_empty(), "{args:?}");
    }
}

/// The config said so of its files, and the command line did not.
#[test]
fn a_file_of_secrets_that_everybody_can_read_is_told_here_too() {
    let world = World::new();
    let certificates = Certificates::new();
    fs::copy(certificates.client_cert(), world.path("cert")).unwrap();
    fs::copy(certificates.client_key(), world.path("key")).unwrap();
    fs::write(world.path("secret"), "hunter2\n").unwrap();
    fs::write(world.path("value"), r#"[{"path": "/a", "topic": "a"}]"#).unwrap();
    let tls = [
        "--tls-insecure-skip-verify",
        "--tls-cert-file",
        "cert",
        "--tls-key-file",
        "key",
    ];
    let password = [
        "--sasl-mechanism",
        "SCRAM-SHA-256",
        "--sasl-username",
        "me",
        "--sasl-password-file",
        "secret",
    ];
    let token = [
        "--sasl-mechanism",
        "OAUTHBEARER",
        "--sasl-token-file",
        "secret",
    ];
    let etcd = |options: [&str; 4]| {
        let check = [
            "etcd",
            "check",
            "/k",
            "value",
            "--endpoints",
            "https://127.0.0.1:1",
        ];
        world.logship(check).args(options)
    };
    for mode in [0o600, 0o604] {
        world.log("secret").chmod(mode);
        world.log("key").chmod(mode);
        let user = ["--user", "me", "--password-file", "secret"];
        for (option, file, logship, exit) in [
            ("--tls-key-file", "key", login(&world, &tls), 3),
            (
                "--sasl-password-file",
                "secret",
                login(&world, &password),
                3,
            ),
            ("--sasl-token-file", "secret", login(&world, &token), 3),
            ("--password-file", "secret", etcd(user), 0),
            ("--key", "key", etcd(["--cert", "cert", "--key", "key"]), 0),
        ] {
            let ended = logship.run().exits(exit);
            let said =
                format!("{option}: everybody on this host can read '{file}': chmod 600 '{file}'");
            assert_eq!(
                ended.stderr.contains(&said),
                mode == 0o604,
                "{mode:o}\n{}",
                ended.stderr
            );
        }
    }
}

#[test]
fn a_password_file_that_ends_with_white_space_is_told_here_too() {
    let world = World::new();
    fs::write(world.path("secret"), "hunter2 \n").unwrap();
    let user = ["--sasl-mechanism", "PLAIN", "--sasl-username", "me"];
    login(&world, &user)
        .args(["--sasl-password-file", "secret"])
        .run()
        .exits(3)
        .said("--sasl-password-file: the password in 'secret' ends with white space")
        .never_said("hunter2");
}

// Could not run, or not for every PATH: exit code 1.

#[test]
fn a_missing_file_is_named_and_the_others_are_shipped() {
    let world = World::new();
    let missing = world.path("missing.log");
    let path = log_path(&world);

    let ended = world.tail([missing.as_os_str(), &path]).once().run();

    let ended = ended.exits(1).printed(["one", "two"]);
    ended.said(missing.to_str().unwrap());
}

#[test]
fn a_directory_as_path_is_named_and_the_others_are_shipped() {
    let world = World::new();
    let dir = world.dir("logs");
    let path = log_path(&world);

    let ended = world.tail([dir.as_os_str(), &path]).once().run();

    let ended = ended.exits(1).printed(["one", "two"]);
    ended.said(dir.to_str().unwrap()).said("directory");
}

#[test]
fn a_file_without_read_permission_is_named_and_the_others_are_shipped() {
    let world = World::new();
    let mut secret = world.log("secret.log");
    secret.write(["secret"]);
    secret.chmod(0o000);
    let path = log_path(&world);

    let ended = world
        .tail([secret.path().as_os_str(), &path])
        .once()
        .unprivileged()
        .run();

    let ended = ended.exits(1).printed(["one", "two"]);
    ended
        .said(secret.path().to_str().unwrap())
        .said("ermission denied");
}

#[test]
fn a_file_without_read_permission_is_followed_once_it_may_be_read() {
    let world = World::new();
    let mut secret = world.log("secret.log");
    secret.write(["secret"]);
    secret.chmod(0o000);
    let tail = world.tail([&secret]).since_beginning().unprivileged();
    let shipper = tail.start();
    shipper.says("secret.log");

    secret.chmod(0o644);

    shipper.delivers(["secret"]);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let world = World::new();
    let file = log_path(&world);
    let below_a_file = world.path("app.log/state");

    for state_dir in [OsStr::new(&file), below_a_file.as_os_str()] {
        let tail = world.tail([&file]).once().arg("--state-dir").arg(state_dir);
        let ended = tail.run().exits(1).printed(NOTHING);
        ended.said(state_dir.to_str().unwrap());
    }
}

#[test]
fn a_state_directory_without_write_permission_is_named() {
    let world = World::new();
    let file = log_path(&world);
    let state_dir = world.dir("closed");

    let tail = world
        .tail([&file])
        .once()
        .arg("--state-dir")
        .arg(&state_dir);
    let ended = if rustix::process::geteuid().is_root() {
        tail.unprivileged().run() // it belongs to root
    } else {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&state_dir, fs::Permissions::from_mode(0o555)).unwrap();
        tail.run()
    };

    let ended = ended.exits(1).printed(NOTHING);
    ended
        .said(state_dir.to_str().unwrap())
        .said("ermission denied");
}

#[test]
fn a_log_file_that_cannot_be_written_is_named() {
    let world = World::new();
    let log_file = world.path("missing/logship.log");
    let tail = world.tail([log_path(&world)]).once();
    let ended = tail.arg("--log-file").arg(&log_file).run();
    let ended = ended.printed(NOTHING).said(log_file.to_str().unwrap());
    assert!(matches!(ended.status.code(), Some(1 | 2)));
}

#[test]
fn a_pattern_that_matches_nothing_is_named_with_once() {
    let world = World::new();
    let pattern = world.path("nothing-*.log");
    let ended = world.tail([&pattern]).once().run();
    ended.exits(1).printed(NOTHING).said("nothing-*.log");
}

// Stopped with lines that are not acknowledged: exit code 3.

#[test]
fn an_unreachable_broker_is_named_and_once_does_not_succeed() {
    let world = World::new();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let broker = free.to_string();
    let tail = || tail_with(&world, ["--brokers", &broker]).with_state();

    let ended = tail().args(["--timeout", "1500ms"]).run();

    let ended = ended.exits(3).printed(NOTHING).said(&broker);
    let figures = ended.summary();
    assert_eq!((figures.acked, figures.dropped), (0, 0));
    assert!(figures.lag > 0);
}

#[test]
fn an_unreachable_broker_is_named_within_seconds_and_a_signal_ends_the_wait() {
    let world = World::new();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let broker = free.to_string();
    let limit = ["--shutdown-timeout", "200ms"];
    let tail = tail_with(&world, ["--brokers", &broker]).args(limit);

    let started = Instant::now();
    let shipper = tail.with_state().start();
    shipper.says(&broker);
    assert!(started.elapsed() < Duration::from_secs(10));

    shipper.stop().exits(3).printed(NOTHING);
}

#[test]
fn once_gives_up_after_its_timeout() {
    let world = World::new();
    let tail = world.tail(["-"]).once().args(["--timeout", "700ms"]);
    let mut shipper = tail.piped_stdin().start();
    shipper.feed("one\n");
    shipper.delivers(["one"]);

    // Its standard input never ends.
    shipper.ends().exits(3).printed(NOTHING);
}

#[test]
fn a_full_disk_behind_standard_output_is_not_a_success() {
    let world = World::new();
    let path = log_path(&world).into_string().unwrap();
    let script = format!(
        "exec '{}' tail '{path}' --topic demo --once --timeout 3s >/dev/full",
        env!("CARGO_BIN_EXE_logship")
    );
    let shell = world.logship(["-c", &script]).instead("/bin/sh");
    let ended = shell.run();
    assert!(matches!(ended.status.code(), Some(1 | 3)), "{ended:?}");
    ended.said("No space left");
}

// Standard output.

#[test]
fn a_reader_that_hangs_up_is_a_normal_end() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(numbered(0..200_000));
    for once in [true, false] {
        let tail = world.tail([&log]).since_beginning();
        let shipper = if once { tail.once() } else { tail }.start();
        shipper.delivers(numbered(0..1));

        shipper.hang_up();

        let ended = shipper.ends().exits(0);
        assert!(!ended.stderr.contains("panic"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("roken pipe"), "{}", ended.stderr);
    }
}

#[test]
fn a_reader_that_hung_up_is_noticed_by_the_next_line() {
    let world = World::new();
    let mut log = world.log("app.log");
    let mut shipper = world.tail([&log]).since_beginning().start();
    log.write(["one"]);
    shipper.delivers(["one"]);

    shipper.hang_up();

    shipper.waits_for("it to end", |shipper| {
        log.write(["another"]);
        std::thread::sleep(Duration::from_millis(50));
        shipper.has_ended().then_some(())
    });
    shipper.ends().exits(0);
}

#[test]
fn a_shell_pipe_into_head_succeeds() {
    let world = World::new();
    world.log("app.log").write(numbered(0..200_000));
    let script = format!(
        "'{}' tail app.log --topic demo --once | head -1; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_logship")
    );
    let shell = world.logship(["-c", &script]).instead("/bin/bash");
    let first = numbered(0..1).remove(0);
    shell.run().exits(0).printed([&first[..], "0"]);
}

#[test]
fn standard_output_gets_one_notice_on_standard_error() {
    let world = World::new();
    let ended = tail_with(&world, NOTHING).run().exits(0);
    let notices = |stderr: &str| {
        let lines = stderr.lines().map(str::to_ascii_lowercase);
        let about =
            lines.filter(|line| line.contains("standard output") || line.contains("stdout"));
        about.count()
    };
    assert_eq!(notices(&ended.stderr), 1, "{}", ended.stderr);
}

#[test]
fn the_summary_tells_read_acked_dropped_and_lag() {
    let world = World::new();
    let ended = tail_with(&world, NOTHING).run().exits(0);
    let expected = Figures {
        read: 2,
        acked: 2,
        dropped: 0,
        lag: 0,
    };
    assert_eq!(ended.summary(), expected);
    let summaries = ended.stderr.lines().filter_map(Figures::in_line);
    assert_eq!(summaries.count(), 1, "{}", ended.stderr);
}

#[test]
fn every_ten_seconds_a_line_tells_the_figures_of_a_running_tail() {
    let world = World::new();
    let mut log = world.log("app.log");
    let shipper = world.tail([&log]).since_beginning().start();
    log.write(["one", "two", "three"]);
    shipper.delivers(["one", "two", "three"]);

    let line = shipper.says_line("the figures", |line| Figures::in_line(line).is_some());

    let figures = Figures::in_line(&line).unwrap();
    assert_eq!((figures.read, figures.acked), (3, 3), "{line}");
    assert_eq!((figures.dropped, figures.lag), (0, 0), "{line}");
}

/// Dropping is a choice, so it is a success; but every line is accounted for.
#[test]
fn lines_dropped_by_choice_are_counted_and_a_success() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(numbered(0..400_000));
    let tail = world.tail([&log]).once().args(["--when-full", "drop"]);
    let mut shipper = tail.start();
    shipper.pause_reading();
    shipper.has_read(log.size());
    shipper.resume_reading();

    let ended = shipper.ends().exits(0);

    let figures = ended.summary();
    let delivered = ended.lines();
    assert_eq!(figures.read, 400_000);
    assert_eq!(figures.acked, delivered.len() as u64);
    assert_eq!(figures.acked + figures.dropped, 400_000);
    assert_eq!(figures.lag, 0);
    assert!(figures.dropped > 0);
    assert!(delivered.is_sorted_by(|a, b| a < b));
    // Every stretch is told once, neighbours as one, and nothing else is.
    let drops = ended.drops();
    let sum = |name: &str| -> u64 {
        let told = drops.iter();
        told.map(|drop| figure(&drop.line, name).unwrap()).sum()
    };
    assert_eq!(sum("lines"), figures.dropped);
    assert_eq!(sum("bytes"), log.size() - ended.stdout.len() as u64);
    for pair in drops.windows(2) {
        assert!(pair[0].to < pair[1].from, "{pair:?}");
    }
}

// Standard input.

#[test]
fn standard_input_is_shipped_to_its_end() {
    for once in [true, false] {
        let world = World::new();
        let tail = world.tail(["-"]).stdin("one\n\ntwo\r\nwithout end");
        let ended = if once { tail.once() } else { tail }.run();
        ended.exits(0).printed(["one", "", "two", "without end"]);
    }
}

#[test]
fn a_line_on_standard_input_does_not_wait_for_the_next() {
    let world = World::new();
    let mut shipper = world.tail(["-"]).piped_stdin().start();
    for n in 0..3 {
        shipper.feed(format!("line {n}\n"));
        shipper.delivers([format!("line {n}")]);
    }
    shipper.feed("par");
    shipper.feed("tial\n");
    shipper.delivers(["partial"]);
    shipper.close_stdin();
    shipper.ends().exits(0).printed(NOTHING);
}

#[test]
fn a_lot_on_standard_input_arrives_once_and_in_order() {
    let world = World::new();
    let lines = numbered(0..200_000);
    let tail = world.tail(["-"]).stdin(lines.join("\n") + "\n");
    tail.run().exits(0).printed(lines);
}

#[test]
fn an_endless_line_on_standard_input_costs_bounded_memory() {
    let world = World::new();
    let mut shipper = world.tail(["-"]).piped_stdin().start();
    let mebibyte = vec![b'x'; 1 << 20];
    for _ in 0..48 {
        shipper.feed(&mebibyte);
    }
    shipper.feed("\nafter\n");

    shipper.delivers([&mebibyte[..], b"after"]);
    let peak = shipper.peak_memory();
    assert!(peak < 40 << 20, "{peak} bytes of memory were used");
}

#[test]
fn standard_input_and_files_may_be_mixed() {
    let world = World::new();
    let path = log_path(&world);
    let tail = world.tail([OsString::from("-"), path]).once();
    let shipper = tail.stdin("three\n").start();
    shipper.delivers_in_any_order(["one", "two", "three"]);
    shipper.ends().exits(0).printed(NOTHING);
}

#[test]
fn a_signal_ends_a_tail_of_standard_input() {
    let world = World::new();
    let mut shipper = world.tail(["-"]).piped_stdin().start();
    shipper.feed("one\n");
    shipper.delivers(["one"]);
    shipper.stop().exits(0).printed(NOTHING);
}

// Paths.

#[test]
fn several_paths_are_followed() {
    let world = World::new();
    let (mut a, mut b) = (world.log("a.log"), world.log("b.txt"));
    let shipper = world.tail([&a, &b]).since_beginning().start();
    a.write(["one"]);
    shipper.delivers(["one"]);
    b.write(["two"]);
    shipper.delivers(["two"]);
}

#[test]
fn a_pattern_is_expanded_and_watched_for_new_files() {
    let world = World::new();
    world.dir("sub");
    let mut first = world.log("sub/a.log");
    let mut not_this = world.log("sub/a.txt");
    first.write(["one"]);
    not_this.write(["not this"]);
    let shipper = world.tail(["sub/*.log"]).since_beginning().start();
    shipper.delivers(["one"]);

    let mut second = world.later("sub/b.log");
    second.write(["two"]);
    shipper.delivers(["two"]);
    not_this.write(["nor this"]);
    first.write(["three"]);
    shipper.delivers(["three"]);
}

#[test]
fn patterns_know_question_marks_classes_and_any_depth() {
    let world = World::new();
    world.dir("x/y/z");
    for name in [
        "x/a1.log",
        "x/a2.log",
        "x/b1.log",
        "x/y/z/deep.txt",
        "x/.hidden.txt",
    ] {
        world.log(name).write([name]);
    }
    let once = |pattern: &str| {
        let mut lines = world.tail([pattern]).once().run().exits(0).lines();
        lines.sort();
        lines
            .into_iter()
            .map(|line| String::from_utf8(line).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(once("x/?1.log"), ["x/a1.log", "x/b1.log"]);
    assert_eq!(once("x/[a]*.log"), ["x/a1.log", "x/a2.log"]);
    assert_eq!(once("x/{a2,b1}.log"), ["x/a2.log", "x/b1.log"]);
    assert!(once("x/**/*.txt").contains(&"x/y/z/deep.txt".to_owned()));
    // A star does not reach into directories.
    assert_eq!(once("*/a?.log"), ["x/a1.log", "x/a2.log"]);
}

#[test]
fn an_existing_path_is_taken_literally_whatever_it_holds() {
    let world = World::new();
    for name in ["a[1].log", "a1.log", "b*.log", "b2.log", "c?.log", "c3.log"] {
        world.log(name).write([name]);
    }
    for name in ["a[1].log", "b*.log", "c?.log"] {
        world.tail([name]).once().run().exits(0).printed([name]);
    }
}

#[test]
fn file_names_may_be_anything() {
    let names: [&[u8]; 7] = [
        b"with space.log",
        b"with\nnewline.log",
        b"with\x1b[31mescape.log",
        b"not utf-8 \xff\xfe.log",
        "žluťoučký 🐎.log".as_bytes(),
        b"it's \"quoted\" $HOME.log",
        b"-dash.log",
    ];
    let world = World::new();
    for name in names {
        let mut log = world.log(bytes_name(name));
        log.write(["one"]);
        let path = log.path().to_owned();
        let tail = || world.tail([&path]).with_state().once();
        tail().run().exits(0).printed(["one"]);
        log.write(["two"]);
        tail().run().exits(0).printed(["two"]);
    }
    let all = world.tail(["*.log"]).once().run().exits(0);
    assert_eq!(all.lines().len(), 2 * names.len());
}

#[test]
fn a_path_that_is_no_file_and_no_pattern_is_named() {
    let world = World::new();
    let ended = world.tail(["app[.log"]).once().run().printed(NOTHING);
    assert!(matches!(ended.status.code(), Some(1 | 2)), "{ended:?}");
    ended.said("app[.log").never_said("panic");
}

/// What is in a file's name is not for the terminal to obey.
#[test]
fn a_strange_file_name_is_escaped_in_messages() {
    let world = World::new();
    let missing = world.path(bytes_name(b"missing\x1b(B\x07\nred.log"));

    let ended = world.tail([missing]).once().run().exits(1);

    assert!(
        !ended.stderr.contains(['\x1b', '\x07']),
        "{:?}",
        ended.stderr
    );
    let named = ended
        .stderr
        .lines()
        .any(|line| line.contains("missing") && line.contains("red.log"));
    assert!(named, "{}", ended.stderr);
}

#[test]
fn a_path_may_be_relative_and_after_a_double_dash() {
    let world = World::new();
    world.log("app.log").write(["one"]);
    world.log("--once").write(["two"]);
    let args = [
        "tail", "--topic", "demo", "--once", "--", "app.log", "--once",
    ];
    let shipper = world.logship(args).start();
    shipper.delivers_in_any_order(["one", "two"]);
    shipper.ends().exits(0).printed(NOTHING);
}

// Signals.

#[test]
fn a_signal_is_a_clean_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let world = World::new();
        let mut log = world.log("app.log");
        let shipper = world.tail([&log]).start();
        shipper.awake(&mut log);
        log.write(["one"]);
        shipper.delivers(["one"]);

        shipper.signal(signal);

        shipper.ends().exits(0).printed(NOTHING).summary();
    }
}

/// A stop in the first moment is a stop too, and not a death by signal.
#[test]
fn a_signal_soon_after_the_start_is_a_clean_end() {
    for _ in 0..5 {
        let world = World::new();
        let tail = world.tail([log_path(&world)]).since_beginning();
        let shipper = tail.start();
        shipper.next_lines(1);
        shipper.stop().exits(0);
    }
}

/// The handlers were installed after the config was read: a hangup or a stop in the
/// first milliseconds killed the daemon.
#[test]
fn a_signal_while_the_config_is_read_is_no_death() {
    for signal in [Signal::HUP, Signal::TERM] {
        let world = World::new();
        let config = world.path("c.json");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &config, kind, mode, 0).unwrap();
        let shipper = world.logship(["run", "--config", "c.json"]).start();
        // It is opened when it is being read, and not before.
        let mut writer = fs::File::options().write(true).open(&config).unwrap();
        shipper.signal(signal);
        writer.write_all(b"{ no config").unwrap();
        drop(writer);
        shipper.ends().exits(2).said("c.json:1:");
    }
}

#[test]
fn under_nohup_a_hangup_changes_nothing() {
    let world = World::new();
    let mut log = world.log("app.log");
    let tail = world.tail([&log]).since_beginning().through("nohup");
    let shipper = tail.start();
    log.write(["one"]);
    shipper.delivers(["one"]);

    shipper.signal(Signal::HUP);
    shipper.quiet_for(Duration::from_millis(300));
    log.write(["two"]);

    shipper.delivers(["two"]);
    shipper.stop().exits(0);
}

// What is said, and where.

#[test]
fn quiet_says_nothing_when_all_is_well() {
    let world = World::new();
    for quiet in ["-q", "--quiet"] {
        let ended = tail_with(&world, [quiet]).run().exits(0);
        assert_eq!(ended.stderr, "");
    }
}

#[test]
fn quiet_still_says_what_went_wrong() {
    let world = World::new();
    let ended = world.tail(["missing.log"]).once().arg("-q").run();
    ended.exits(1).said("missing.log");
}

#[test]
fn verbose_says_more_and_more_still() {
    let world = World::new();
    let lines = |args: &[&str]| {
        let ended = tail_with(&world, args.iter().copied()).run().exits(0);
        ended.stderr.lines().count()
    };
    let (normal, more, most) = (lines(&[]), lines(&["-v"]), lines(&["-vv"]));
    assert!(normal < more, "{normal} lines, {more} with -v");
    assert!(more <= most, "{more} lines with -v, {most} with -vv");
}

#[test]
fn verbose_names_the_file() {
    let world = World::new();
    tail_with(&world, ["-v"]).run().exits(0).said("app.log");
}

#[test]
fn a_log_file_takes_what_would_go_to_standard_error() {
    let world = World::new();
    let log_file = world.path("logship.log");
    let tail = || tail_with(&world, NOTHING).arg("--log-file").arg(&log_file);

    let ended = tail().run().exits(0).printed(["one", "two"]);

    assert_eq!(Figures::last_in(&ended.stderr), None, "{}", ended.stderr);
    let first = fs::read_to_string(&log_file).unwrap();
    assert!(Figures::last_in(&first).is_some(), "{first}");
    tail().run().exits(0);
    let both = fs::read_to_string(&log_file).unwrap();
    assert!(
        both.len() > first.len() && both.starts_with(&first),
        "{both}"
    );
}

#[test]
fn no_escape_codes_where_nobody_can_see_colours() {
    let world = World::new();
    let has_escape = |ended: &Ended| ended.stderr.contains('\x1b');
    for no_color in [false, true] {
        let tail = tail_with(&world, ["-vv"]).arg(world.path("missing.log"));
        let tail = if no_color {
            tail.env("NO_COLOR", "1")
        } else {
            tail
        };
        let ended = tail.run().exits(1);
        assert!(!has_escape(&ended), "{:?}", ended.stderr);
    }
    let ended = tail_with(&world, ["--format", "xml"]).run().exits(2);
    assert!(!has_escape(&ended), "{:?}", ended.stderr);
    let ended = world.logship(["tail", "--help"]).run().exits(0);
    assert!(!ended.stdout.contains(&0x1b));
}

#[test]
fn no_progress_bar_where_nobody_can_see_it() {
    let world = World::new();
    world.log("large.log").write(numbered(0..100_000));
    let ended = world.tail(["large.log"]).once().run().exits(0);
    assert!(!ended.stderr.contains(['\r', '\x1b']), "{:?}", ended.stderr);
}

/// Every message stands on its own line, with a level that can be looked for.
#[test]
fn every_message_has_a_level() {
    let world = World::new();
    let tail = tail_with(&world, ["-vv"]).arg(world.path("missing.log"));
    let ended = tail.run().exits(1);
    let told = |level: &str| ended.stderr.lines().any(|line| line.contains(level));
    assert!(told("INFO") && told("DEBUG"), "{}", ended.stderr);
    assert!(told("WARN") || told("ERROR"), "{}", ended.stderr);
}

/// The bar is for eyes: on a terminal, with `--once`, and messages stay whole
/// beside it.
#[test]
fn on_a_terminal_once_shows_a_progress_bar() {
    let world = World::new();
    let path = log_path(&world);
    let logship = env!("CARGO_BIN_EXE_logship");
    let line = format!(
        "{logship} tail {} --topic demo --once --brokers 127.0.0.1:1 --no-state --timeout 1s",
        path.to_str().unwrap()
    );
    // script(1) gives it a terminal and passes its exit status on.
    let script = world
        .logship(["-qec", &line, "/dev/null"])
        .instead("script");
    let ended = script.run().exits(3);
    let screen = String::from_utf8_lossy(&ended.stdout);
    assert!(screen.contains("lines/s"), "{screen}");
    assert!(
        screen.contains("cannot reach broker 127.0.0.1:1: TCP connect"),
        "{screen}"
    );
}

/// The first long line left a hole in what is kept of standard input, and the
/// second found no room for its own: it waited for ever.
#[test]
fn two_long_lines_on_standard_input_do_not_block_each_other() {
    let world = World::new();
    let (a, b) = ("a".repeat(1_500_000), "b".repeat(20_000_000));
    let tail = world.tail(["-"]).stdin(format!("{a}\n{b}\nend\n"));
    let max = 1 << 20;
    tail.run().exits(0).printed([&a[..max], &b[..max], "end"]);
}

#[test]
fn standard_input_that_cannot_be_read_is_no_success() {
    let world = World::new();
    let line = format!("{} tail - --topic demo < .", env!("CARGO_BIN_EXE_logship"));
    let shell = world.logship(["-c", &line]).instead("sh");
    shell.run().exits(1).said("cannot read standard input");
}

/// Kafka takes nothing: what does not fit is dropped, and the tailer is idle at
/// the live end instead of reading the same lines again and again.
#[test]
fn drop_gives_lines_up_while_kafka_is_away() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(numbered(0..200_000));
    let tail = world.tail([&log]).since_beginning();
    let args = [
        "--brokers",
        "127.0.0.1:1",
        "--no-state",
        "--when-full",
        "drop",
    ];
    let shipper = tail.args(args).args(["--stats-interval", "100ms"]).start();
    shipper.says_line("that it reached the live end", |line| {
        let dropped = figure(line, "dropped").unwrap_or(0);
        line.contains("shipping") && dropped > 100_000 && figure(line, "lag") == Some(0)
    });
    shipper.stop().exits(0);
}

/// The cron example must end although the program goes on logging.
#[test]
fn once_ends_on_a_file_that_is_still_written_to() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(numbered(0..1_000));
    let mut shipper = world.tail([&log]).once().start();
    let mut more = 0;
    while !shipper.has_ended() {
        log.write([format!("more {more}")]);
        more += 1;
        assert!(more < 1_000_000, "it goes on for ever");
    }
    let ended = shipper.ends().exits(0);
    let lines = ended.lines();
    let old: Vec<Vec<u8>> = numbered(0..1_000).into_iter().map(Into::into).collect();
    assert!(lines.starts_with(&old), "{} lines", lines.len());
}

#[test]
fn an_unreadable_file_under_a_pattern_is_named_once() {
    let world = World::new();
    let mut log = world.log("app.log");
    log.write(["secret"]);
    log.chmod(0o000);
    let tail = world.tail(["*.log"]).since_beginning().unprivileged();
    let shipper = tail.start();
    shipper.says("permission denied");
    shipper.quiet_for(Duration::from_secs(1));
    log.chmod(0o644);
    shipper.delivers(["secret"]);
    let ended = shipper.stop().exits(0);
    assert_eq!(
        ended.stderr.matches("permission denied").count(),
        1,
        "{}",
        ended.stderr
    );
}

#[test]
fn a_file_under_two_names_is_told_once() {
    let world = World::new();
    let mut log = world.log("a.log");
    log.link_to(world.path("b.log"));
    let shipper = world.tail(["a.log", "b.log"]).since_beginning().start();
    log.write(["one"]);
    shipper.delivers(["one"]);
    shipper.says("is the same file as");
    shipper.quiet_for(Duration::from_secs(1));
    let ended = shipper.stop().exits(0);
    assert_eq!(
        ended.stderr.matches("is the same file").count(),
        1,
        "{}",
        ended.stderr
    );
}

#[test]
fn doubled_slashes_and_dots_in_a_pattern_match_like_single_ones() {
    let world = World::new();
    world.dir("g");
    world.log("g/a.log").write(["one"]);
    for pattern in ["g//*.log", "g/./*.log", ".//g/*.log"] {
        world.tail([pattern]).once().run().exits(0).printed(["one"]);
    }
}
