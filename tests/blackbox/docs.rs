//! What the documents show must work: every command line in README.md is taken
//! by the parser. Nothing is run but `--help`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::etcd::Certificates;
use crate::world::World;

/// The languages of fenced blocks that hold command lines.
const SHELLS: [&str; 4] = ["sh", "bash", "shell", "console"];

#[test]
fn every_command_line_of_the_readme_is_accepted() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(readme).unwrap();
    let commands: Vec<_> = command_lines(&text)
        .iter()
        .flat_map(|line| pipeline(line))
        .filter_map(|words| Invocation::of(&words))
        .collect();
    assert!(
        commands
            .iter()
            .any(|invocation| invocation.program == Program::Logship),
        "the README shows no logship command"
    );
    for invocation in commands {
        invocation.check();
    }
}

/// What stands in the crontab and in the unit: commands that are understood.
#[test]
fn every_command_of_the_examples_is_accepted() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for (name, count) in [("logship.cron", 4), ("logship.service", 2)] {
        let text = fs::read_to_string(examples.join(name)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.map(|line| match line.split_once('=') {
            Some((key, command)) if key.starts_with("Exec") => command,
            _ => line,
        });
        let commands: Vec<_> = lines
            .flat_map(pipeline)
            .filter_map(|words| Invocation::of(&words))
            .collect();
        assert_eq!(commands.len(), count, "{name}: {commands:?}");
        for command in commands {
            command.check();
        }
    }
}

/// `pgrep logship` was content with a `logship tail` that another line had started,
/// and the dead daemon stayed dead.
#[test]
fn the_daemon_is_started_by_cron_unless_a_lock_says_that_it_runs() {
    let crontab = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/logship.cron");
    let text = fs::read_to_string(crontab).unwrap();
    let daemons = text.lines().filter(|line| line.contains("logship run "));
    let locked = " root flock -n /run/lock/logship.lock /usr/local/bin/logship run ";
    assert!(daemons.clone().all(|line| line.contains(locked)), "{text}");
    assert_eq!(daemons.count(), 2);
}

/// A config is what has sources, or what they come from.
#[test]
fn every_config_of_the_readme_is_good() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(readme).unwrap();
    let configs: Vec<(String, String)> = blocks(&text, &["json", "yaml"])
        .into_iter()
        .filter(|(_, block)| block.contains("sources") || block.contains("etcd:"))
        .collect();
    assert!(!configs.is_empty(), "the README shows no config");
    for (language, config) in configs {
        let world = World::new();
        let name = format!("config.{language}");
        fs::write(world.path(&name), &config).unwrap();
        // What a config names must be there.
        fs::copy(Certificates::new().ca(), world.path("kafka-ca.pem")).unwrap();
        fs::write(world.path("kafka.password"), "secret\n").unwrap();
        world.logship(["check-config", &name]).run().exits(0);
    }
}

/// The sample can be made again, or made longer, by whoever wants to.
#[test]
fn the_sample_log_is_what_the_log_writer_writes() {
    let writer = example("write_log");
    if !writer.exists() {
        return; // built by `cargo test`, but not by `cargo test --test blackbox`
    }
    let world = World::new();
    let made = world.path("sample.log");
    let args = "--lines 200 --odd-every 33 --line-bytes 160 --seed 4 --quiet";
    let mut command = Command::new(&writer);
    command.arg(&made).args(args.split(' '));
    assert!(command.status().unwrap().success());

    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sample.log");

    assert!(
        fs::read(&made).unwrap() == fs::read(&sample).unwrap(),
        "make it again: cargo run --example write_log -- {} --overwrite {args}",
        sample.display()
    );
}

/// What a command line runs of this package.
#[derive(Debug, PartialEq, Eq)]
enum Program {
    Logship,
    Example(String),
}

/// One of our programs and what it is given.
#[derive(Debug, PartialEq, Eq)]
struct Invocation {
    program: Program,
    args: Vec<String>,
}

impl Invocation {
    /// Finds our program in the words of one command, behind whatever may stand
    /// before it: variables, `nohup`, `flock` with its arguments, the five fields of a
    /// crontab.
    fn of(words: &[String]) -> Option<Invocation> {
        let prefix = |word: &&String| {
            let variable = word
                .split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
            let field = word
                .chars()
                .all(|c| c.is_ascii_digit() || "*/,-".contains(c));
            variable
                || field
                || [
                    "nohup",
                    "sudo",
                    "exec",
                    "time",
                    "env",
                    "$",
                    "#",
                    "root",
                    "@reboot",
                    "flock",
                    "-n",
                    "/run/lock/logship.lock",
                ]
                .contains(&&***word)
        };
        let rest = &words[words.iter().take_while(prefix).count()..];
        let (first, args) = rest.split_first()?;
        if Path::new(first).file_name()? == "logship" {
            return Some(Invocation {
                program: Program::Logship,
                args: args.to_vec(),
            });
        }
        if first != "cargo" || args.first()? != "run" {
            return None;
        }
        let ours = args
            .iter()
            .position(|arg| arg == "--")
            .unwrap_or(args.len());
        let example = args[..ours].iter().position(|arg| arg == "--example");
        Some(Invocation {
            program: example.map_or(Program::Logship, |at| {
                Program::Example(args[at + 1].clone())
            }),
            args: args.iter().skip(ours + 1).cloned().collect(),
        })
    }

    /// A parser reads from left to right, so it gets to `--help` only when all
    /// before it is right, and then does nothing else.
    #[track_caller]
    fn check(&self) {
        let world = World::new();
        let before = self
            .args
            .iter()
            .position(|arg| arg == "--")
            .unwrap_or(self.args.len());
        let mut args = self.args[..before].to_vec();
        args.push("--help".to_owned());
        match &self.program {
            Program::Logship => {
                world.logship(args).run().exits(0);
            }
            Program::Example(name) => {
                // Built by `cargo test`, but not by `cargo test --test blackbox`.
                let program = example(name);
                if program.exists() {
                    let output = Command::new(&program).args(&args).output().unwrap();
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{self:?}\n{stderr}");
                }
            }
        }
    }
}

fn example(name: &str) -> PathBuf {
    let logship = Path::new(env!("CARGO_BIN_EXE_logship"));
    logship.with_file_name("examples").join(name)
}

/// The lines of all fenced blocks in a shell language, joined where a backslash
/// continues them. Of a `console` block, only what follows a prompt.
fn command_lines(markdown: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut language = None;
    let mut unfinished = String::new();
    for line in markdown.lines() {
        if let Some(tag) = line.trim_start().strip_prefix("```") {
            language = match language {
                Some(_) => None,
                None => Some(tag.split_whitespace().next().unwrap_or_default()),
            };
            continue;
        }
        let Some(language) = language.filter(|language| SHELLS.contains(language)) else {
            continue;
        };
        let line = match (language, line.trim_start().strip_prefix("$ ")) {
            (_, Some(command)) => command,
            ("console", None) if unfinished.is_empty() => continue,
            (_, None) => line,
        };
        unfinished.push_str(line.trim_end_matches('\\'));
        if !line.ends_with('\\') {
            lines.push(std::mem::take(&mut unfinished));
        }
    }
    lines
}

/// The fenced blocks in one of these languages, each with its language.
fn blocks(markdown: &str, languages: &[&str]) -> Vec<(String, String)> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    let mut open = None;
    for line in markdown.lines() {
        match (line.strip_prefix("```"), open) {
            (Some(_), Some(_)) => open = None,
            (Some(language), None) => {
                open = Some(language);
                blocks.push((language.to_owned(), String::new()));
            }
            (None, Some(_)) => {
                let (_, text) = blocks.last_mut().expect("a block is open");
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks.retain(|(language, _)| languages.contains(&language.as_str()));
    blocks
}

/// Splits a command line into the words of each of its commands: at `|`, `&`,
/// `;`, without redirections and comments, quotes removed.
fn pipeline(line: &str) -> Vec<Vec<String>> {
    let mut words = Words::default();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => words.put(
                &chars
                    .by_ref()
                    .take_while(|next| *next != c)
                    .collect::<String>(),
            ),
            '\\' => words.put(&chars.next().map(String::from).unwrap_or_default()),
            '#' if words.word.is_none() => break,
            '<' | '>' => {
                // A number right before is a descriptor, as in `2>&1`.
                words.word.take_if(|word| word.parse::<u8>().is_ok());
                words.end();
                while chars.next_if(|next| "<>&".contains(*next)).is_some() {}
                words.redirected = true;
            }
            '|' | '&' | ';' => {
                words.end();
                words.commands.push(Vec::new());
            }
            c if c.is_whitespace() => words.end(),
            c => words.put(c.encode_utf8(&mut [0; 4])),
        }
    }
    words.end();
    words.commands.retain(|command| !command.is_empty());
    words.commands
}

/// The words of a command line so far.
#[derive(Default)]
struct Words {
    commands: Vec<Vec<String>>,
    word: Option<String>,
    /// The next word is where a redirection goes.
    redirected: bool,
}

impl Words {
    fn put(&mut self, text: &str) {
        self.word.get_or_insert_default().push_str(text);
    }

    fn end(&mut self) {
        let Some(word) = self.word.take() else { return };
        if std::mem::take(&mut self.redirected) {
            return;
        }
        match self.commands.last_mut() {
            Some(command) => command.push(word),
            None => self.commands.push(vec![word]),
        }
    }
}

#[test]
fn command_lines_are_found_in_shell_blocks_only() {
    let text = "logship no\n```sh\nlogship a \\\n  b\n```\n```json\nlogship no\n```\n\
                ```console\n$ logship c\noutput\n```\n";
    assert_eq!(command_lines(text), ["logship a   b", "logship c"]);
}

#[test]
fn a_pipeline_is_taken_apart() {
    let line = "FOO=1 nohup logship tail 'a b' \"c\" > out 2>&1 < in | head -1 & # why";
    let expected: [&[&str]; 2] = [
        &["FOO=1", "nohup", "logship", "tail", "a b", "c"],
        &["head", "-1"],
    ];
    assert_eq!(pipeline(line), expected);
}

#[test]
fn our_programs_are_found_behind_what_stands_before_them() {
    let words = |line: &str| pipeline(line).remove(0);
    let of = |line: &str| Invocation::of(&words(line));
    let logship = |args: &[&str]| {
        Some(Invocation {
            program: Program::Logship,
            args: args.iter().map(|arg| arg.to_string()).collect(),
        })
    };
    assert_eq!(of("logship tail x"), logship(&["tail", "x"]));
    assert_eq!(
        of("*/5 * * * * /usr/bin/logship tail x"),
        logship(&["tail", "x"])
    );
    assert_eq!(of("cargo run --release -- tail x"), logship(&["tail", "x"]));
    assert_eq!(of("cargo build"), None);
    assert_eq!(of("man logship"), None);
    assert_eq!(
        of("cargo run --example write_log -- x").map(|found| found.program),
        Some(Program::Example("write_log".to_owned()))
    );
}
