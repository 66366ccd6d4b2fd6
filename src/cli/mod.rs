//! The command line: options in, messages and an exit code out.
//!
//! Only this layer prints messages of its own and decides on exit codes; the
//! work is the supervisor's.

mod args;
mod logging;
mod progress;
mod signals;

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{self, Plan, Sink, Surroundings};
use crate::exit::Exit;
use crate::supervisor;

pub use args::{Cli, Commands, TailArgs, command};

/// Runs the command line and returns what to exit with.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no error; if their
            // reader hangs up, that is its choice.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Settled
            };
        }
    };
    match cli.command {
        Commands::Tail(args) => tail(&args),
    }
}

fn tail(args: &TailArgs) -> Exit {
    let around = match surroundings() {
        Ok(around) => around,
        Err(error) => {
            complain(&format!("cannot find out where it is: {error}"), None);
            return Exit::CouldNotRun;
        }
    };
    let plan = match config::lower_tail(&args.request(), &around) {
        Ok(plan) => plan,
        Err(mistakes) => {
            for mistake in mistakes {
                complain(&mistake.to_string(), None);
            }
            hint("'logship tail --help' explains every option");
            return Exit::Usage;
        }
    };
    let progress = progress::Progress::new(plan.tail.once && !args.logging.quiet);
    if let Err((path, error)) = logging::init(&args.logging, &progress) {
        let path = crate::text::shown(path);
        complain(&format!("cannot open log file '{path}': {error}"), None);
        return Exit::CouldNotRun;
    }
    let exit = start(&plan, &progress);
    log::logger().flush();
    exit
}

fn start(plan: &Plan, progress: &progress::Progress) -> Exit {
    let signals = match signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("cannot handle signals: {error}"), None);
            return Exit::CouldNotRun;
        }
    };
    raise_file_limit();
    if let Sink::Stdout = plan.sink {
        log::info!("no --brokers given: records go to standard output");
    }
    let outcome = supervisor::run(plan, &signals, &mut |figures| progress.show(figures));
    progress.finish();
    outcome.unwrap_or_else(|error| {
        complain(&error.to_string(), error.hint());
        Exit::CouldNotRun
    })
}

/// Every tailed file is open: as many as the hard limit allows.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::debug!("cannot raise the limit of open files error={error}");
    }
}

/// What the process finds around itself.
fn surroundings() -> io::Result<Surroundings> {
    let name = rustix::system::uname();
    Ok(Surroundings {
        directory: env::current_dir()?,
        state_base: state_base(),
        host: Arc::from(name.nodename().to_string_lossy()),
    })
}

/// Where state is kept by default.
fn state_base() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/logship"));
    }
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("logship"))
}

/// Prints an error for people. Standard error may be closed; that is no reason
/// to fail.
fn complain(problem: &str, advice: Option<&str>) {
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "logship: {problem}");
    if let Some(advice) = advice {
        hint(advice);
    }
}

fn hint(advice: &str) {
    let _ = writeln!(io::stderr(), "hint: {advice}");
}

/// True when messages may have colours: on a terminal, unless NO_COLOR says no
/// (<https://no-color.org>).
fn colours() -> bool {
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}
