//! The manual pages and completions are what the clap definition and the table
//! of config keys say.
//!
//! After a change of options or keys: `LOGSHIP_WRITE_GENERATED=1 cargo test --test generated`

use std::fs;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use logship::config::keys::KEYS;

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
    for (path, page) in manuals("logship", &command) {
        check(&path, &page);
    }
}

/// The page of a command and those of the commands below it.
fn manuals(name: &str, command: &clap::Command) -> Vec<(PathBuf, Vec<u8>)> {
    let static_name: &'static str = name.to_owned().leak();
    let mut pages = vec![manual(name, command.clone().name(static_name))];
    for sub in command.get_subcommands() {
        pages.extend(manuals(&format!("{name}-{}", sub.get_name()), sub));
    }
    pages
}

#[test]
fn the_manual_of_the_config_says_what_the_table_of_keys_says() {
    check(Path::new("man/logship.conf.5"), config_manual().as_bytes());
}

/// What stands before the keys in logship.conf(5).
const CONFIG_INTRODUCTION: &str = "\
.SH DESCRIPTION
The config of 'logship run' and 'logship check-config'. It is JSON, or YAML 1.2 where the name of the file ends with .yaml or .yml, with the same keys.
.PP
A config says which files go to which topics. Everything else has a default. A key that is not known, or stands twice, is a mistake, and a config with a mistake is refused as a whole: 'logship check-config FILE' says all of them at once.
.SS Values
A \\fIduration\\fR is a string with its unit: \"250ms\", \"10s\", \"1h 30m\". A \\fIsize\\fR is a number of bytes, or a string with its unit: \"900KiB\", \"8MiB\". In any string \\fB${NAME}\\fR is an environment variable, which must be set, and \\fB$$\\fR a dollar sign; a number or a truth value may be given by such a string. A relative path is taken from the directory of the config.
.SS Sources from etcd
A value in etcd is the JSON array that would stand under \\fBsources\\fR. There paths must be absolute and inside of etcd.allowed_paths, variables are not filled in, and a key that is not known is a warning. A value with one bad entry is refused as a whole; what held before holds on.
";

/// What stands after them.
const CONFIG_END: &str = "\
.SH EXAMPLE
.nf
{
  \"kafka\": { \"brokers\": [\"kafka1:9092\", \"kafka2:9092\"] },
  \"sources\": [ { \"path\": \"/var/log/nginx/*.log\", \"topic\": \"nginx\" } ]
}
.fi
.SH SEE ALSO
logship(1), logship-run(1), logship-check-config(1)
";

fn config_manual() -> String {
    let source = concat!("logship ", env!("CARGO_PKG_VERSION"));
    let mut page = format!(
        ".TH LOGSHIP.CONF 5 \"\" \"{source}\" \"logship manual\"\n\
         .SH NAME\nlogship.conf \\- which files logship ships where, and how\n"
    );
    page.push_str(&roff(CONFIG_INTRODUCTION));
    page.push_str(".SH KEYS\n");
    for key in KEYS {
        let (path, kind) = (roff(key.path), roff(key.kind));
        let default = match key
            .default
            .strip_prefix('(')
            .and_then(|text| text.strip_suffix(')'))
        {
            Some(words) if words.starts_with("required") => format!("It is {words}."),
            Some(words) => format!("By default: {words}."),
            None => format!("By default {}.", key.default),
        };
        page.push_str(&format!(
            ".TP\n\\fB{path}\\fR: {kind}\n{}\n.br\n{} Example: {}\n",
            roff(key.about),
            roff(&default),
            roff(key.example)
        ));
    }
    page.push_str(&roff(CONFIG_END));
    page
}

/// Text as roff has it: a hyphen is one, and no line begins a request by chance.
/// Requests and fonts of our own pass.
fn roff(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let request = [".SH", ".SS", ".PP", ".nf", ".fi"]
            .iter()
            .any(|request| line.starts_with(request));
        if line.starts_with(['.', '\'']) && !request {
            out.push_str("\\&");
        }
        out.push_str(&line.replace('-', "\\-"));
    }
    out
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
