//! At home on a host: without a service manager, and beside logrotate.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::daemon::{config, source};
use crate::world::World;

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name)
}

/// Waits until a file holds a text.
#[track_caller]
fn holds(path: &Path, text: &str) {
    let deadline = std::time::Instant::now() + crate::world::DEADLINE;
    loop {
        let now = fs::read_to_string(path).unwrap_or_default();
        if now.contains(text) {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "'{text}' is not in {}:\n{now}",
            path.display()
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// examples/nohup.sh, through all it can do.
#[test]
fn the_nohup_example_starts_reloads_shows_and_stops() {
    let world = World::new();
    let mut log = world.log("a.log");
    log.write(["one"]);
    world.configure(&config(json!([source("a.log", "demo")])));
    let logship = Path::new(env!("CARGO_BIN_EXE_logship"));
    let path = format!(
        "{}:{}",
        logship.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let script = |what: &str| {
        Command::new("sh")
            .arg(example("nohup.sh"))
            .arg(what)
            .arg(world.config())
            .current_dir(world.path(""))
            .env("PATH", &path)
            .env("LOGSHIP_STATE_DIR", world.state_dir())
            .output()
            .unwrap()
    };
    let said = world.path("logship.log");

    assert!(script("start").status.success());
    holds(&said, "running");
    let again = script("start");
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("it runs already"));

    assert!(script("reload").status.success());
    holds(&said, "asked to reload");

    let status = script("status");
    let table = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(table.contains("demo"), "{table}");

    assert!(script("stop").status.success());
    holds(&said, "done read=1 acked=1");
    assert!(!script("status").status.success());
}

/// examples/logship.logrotate, by the real logrotate: no signal, and every message
/// is in one of the two files.
#[test]
#[ignore = "needs logrotate: run tests/run"]
fn the_logrotate_example_rotates_our_own_log() {
    let world = World::new();
    let said = world.path("logship.log");
    let text = fs::read_to_string(example("logship.logrotate")).unwrap();
    let text = text.replace("/var/log/logship.log", &said.display().to_string());
    // Its user may not exist here.
    let text = text.replace("create 0640 root adm", "create 0640");
    fs::write(world.path("rotate.conf"), text).unwrap();
    let mut config = config(json!([source("a.log", "demo")]));
    config["stats_interval"] = json!("100ms");
    world.configure(&config);
    let shipper = world.run(&config).arg("--log-file").arg(&said).start();
    holds(&said, "shipping read=0");

    let done = Command::new("logrotate")
        .arg("--force")
        .arg("--state")
        .args([&world.path("rotate.state"), &world.path("rotate.conf")])
        .output()
        .expect("logrotate is installed: run tests/run");
    assert!(done.status.success(), "{done:?}");

    holds(&said, "shipping read=0");
    shipper.stop().exits(0);
    holds(&said, "done read=0");
    let rotated = fs::read_to_string(world.path("logship.log.1")).unwrap();
    assert!(rotated.contains("running") && !rotated.contains("done read"));
}
