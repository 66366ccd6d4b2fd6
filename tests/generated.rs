//! The manual pages and completions are what the clap definition says.
//!
//! After a change of options: `LOGSHIP_WRITE_GENERATED=1 cargo test --test generated`

use std::fs;
use std::path::{Path, PathBuf};

use clap_complete::Shell;

const FIX: &str = "LOGSHIP_WRITE_GENERATED=1 cargo test --test generated";

/// Compares a generated file with the committed one, or writes it.
fn check(path: &Path, generated: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("LOGSHIP_WRITE_GENERATED").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, generated).unwrap();
        return;
    }
    let committed = fs::read(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} is not what the options say; run: {FIX}",
        path.display()
    );
}

fn manual(name: &str, command: clap::Command) -> (PathBuf, Vec<u8>) {
    let manual = clap_mangen::Man::new(command)
        .title(name.to_uppercase())
        .section("1")
        .date("")
        .source(concat!("logship ", env!("CARGO_PKG_VERSION")))
        .manual("logship manual");
    let mut page = Vec::new();
    manual.render(&mut page).unwrap();
    (Path::new("man").join(format!("{name}.1")), page)
}

#[test]
fn the_manual_pages_say_what_the_options_say() {
    let mut command = logship::cli::command();
    command.build();
    let pages = command.get_subcommands().map(|sub| {
        let name = format!("logship-{}", sub.get_name());
        let static_name: &'static str = name.clone().leak();
        manual(&name, sub.clone().name(static_name))
    });
    for (path, page) in pages.chain([manual("logship", command.clone())]) {
        check(&path, &page);
    }
}

#[test]
fn the_completions_know_the_options() {
    for (shell, file) in [
        (Shell::Bash, "logship.bash"),
        (Shell::Zsh, "_logship"),
        (Shell::Fish, "logship.fish"),
    ] {
        let mut out = Vec::new();
        clap_complete::generate(shell, &mut logship::cli::command(), "logship", &mut out);
        check(&Path::new("completions").join(file), &out);
    }
}
