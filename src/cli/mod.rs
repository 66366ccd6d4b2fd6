//! The command line: options in, messages and an exit code out.
//!
//! Only this layer prints messages of its own and decides on exit codes; the
//! work is the supervisor's.

mod args;
mod check;
mod etcd;
mod logging;
mod progress;
mod security;
mod signals;
mod status;
mod variables;
mod verify;

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::Receiver;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{self, FileConfig, Follower, Mistake, Plan, Renewal, Sink, Surroundings};
use crate::exit::Exit;
use crate::ledger::Figures;
use crate::supervisor::{self, Changes, Signal, Watch};
use crate::text::{as_value, shown};

use args::LoggingArgs;
use variables::Given;

pub use args::{
    CheckArgs, Cli, Commands, EtcdArgs, EtcdCommands, RunArgs, StatusArgs, TailArgs, VerifyArgs,
    command,
};
pub use etcd::args::{CheckValueArgs, GetArgs, PutArgs, Reach};

/// Runs the command line and returns what to exit with.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let args: Vec<OsString> = args.into_iter().collect();
    let (cli, given) = match variables::parse(&args) {
        Ok(parsed) => parsed,
        Err((error, variable)) => {
            // Help and version go to standard output and are no error; if their
            // reader hangs up, that is its choice.
            let _ = error.print();
            if let Some(name) = variable {
                hint(&format!(
                    "the value is that of the variable {}",
                    shown(name)
                ));
            }
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Settled
            };
        }
    };
    match cli.command {
        Commands::Tail(args) => either(tail(*args, given)),
        Commands::Run(args) => either(daemon(&args)),
        Commands::CheckConfig(args) => check::run(&args),
        Commands::Status(args) => status::run(&args),
        Commands::Verify(args) => verify::run(&args),
        Commands::Etcd(args) => etcd::run(&args),
    }
}

/// The exit code, whether it got to run or not.
fn either(outcome: Result<Exit, Exit>) -> Exit {
    outcome.unwrap_or_else(|refused| refused)
}

/// What a config file says; what is wrong with it is told, and is the exit code.
fn load(file: &Path, around: &Surroundings) -> Result<FileConfig, Exit> {
    config::load(file, around).map_err(|mistakes| refuse(&mistakes, &shown(file)))
}

/// Tells all mistakes in a config, or in a value of etcd.
fn refuse(mistakes: &[Mistake], name: &str) -> Exit {
    let mut stderr = io::stderr();
    for mistake in mistakes {
        let _ = writeln!(stderr, "{mistake}");
    }
    let count = match mistakes.len() {
        1 => "1 mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    complain(&format!("{count} in {name}"), None);
    hint("'man logship.conf' explains every key");
    Exit::Usage
}

fn daemon(args: &RunArgs) -> Result<Exit, Exit> {
    let signals = listen(true)?;
    let around = surroundings()?;
    let config = load(&args.config, &around)?;
    let progress = progress::Progress::new(false);
    start_log(&args.logging, &progress)?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    log::info!(
        "running version={} config={}",
        env!("CARGO_PKG_VERSION"),
        as_value(&args.config)
    );
    let follower = Follower::new(args.config.clone(), config, around);
    let plan = follower.plan().clone();
    Ok(start(
        plan,
        Changes::Config(Box::new(follower)),
        &signals,
        &progress,
    ))
}

fn tail(args: TailArgs, given: Given) -> Result<Exit, Exit> {
    let renews = args.brokers.is_some() && args.security.is_given();
    let signals = listen(renews)?;
    let around = surroundings()?;
    let mut warnings = Vec::new();
    let request = args.request(&mut warnings);
    let lowered = request
        .map_err(|mistake| vec![mistake])
        .and_then(|request| config::lower_tail(&request, &around));
    let (plan, more) = lowered.map_err(|mistakes| {
        for mistake in mistakes {
            complain(&given.named(mistake).to_string(), None);
        }
        hint("'logship tail --help' explains every option");
        Exit::Usage
    })?;
    let progress = progress::Progress::new(plan.tail.once && !args.logging.quiet);
    start_log(&args.logging, &progress)?;
    for warning in warnings.into_iter().chain(more) {
        log::warn!("{}", given.named(warning));
    }
    if args.headers && plan.pool.sink == Sink::Stdout {
        log::warn!("--headers is for Kafka: records on standard output have none");
    }
    let changes = match renews {
        true => Changes::Files(Box::new(renewal(plan.clone(), args, given))),
        false => Changes::Never,
    };
    Ok(start(plan, changes, &signals, &progress))
}

/// Reads what the options of security name once more, whenever that is asked for.
fn renewal(plan: Plan, args: TailArgs, given: Given) -> Renewal {
    Renewal::new(plan, move || {
        let named = |mistakes: Vec<Mistake>| -> Vec<Mistake> {
            let mistakes = mistakes.into_iter();
            mistakes.map(|mistake| given.named(mistake)).collect()
        };
        let mut warnings = Vec::new();
        let security = args.security.request(&mut warnings);
        let (sink, more) = security
            .map_err(|mistake| vec![mistake])
            .and_then(|security| {
                config::lower_sink(args.brokers.as_deref(), args.client.kind(), &security)
            })
            .map_err(named)?;
        warnings.extend(more);
        Ok((sink, named(warnings)))
    })
}

fn start_log(args: &LoggingArgs, progress: &progress::Progress) -> Result<(), Exit> {
    logging::init(args, progress).map_err(|(path, error)| {
        let path = shown(path);
        complain(&format!("cannot open log file '{path}': {error}"), None);
        Exit::CouldNotRun
    })
}

/// The first thing that is done: a signal that comes before it kills the process.
fn listen(to_reload: bool) -> Result<Receiver<Signal>, Exit> {
    signals::listen(to_reload).map_err(|error| {
        complain(&format!("cannot handle signals: {error}"), None);
        Exit::CouldNotRun
    })
}

fn start(
    plan: Plan,
    changes: Changes,
    signals: &Receiver<Signal>,
    progress: &progress::Progress,
) -> Exit {
    raise_file_limit();
    if let Sink::Stdout = plan.pool.sink {
        let missing = match changes {
            Changes::Config(_) => "no kafka in the config",
            _ => "no --brokers given",
        };
        log::info!("{missing}: records go to standard output");
    }
    let outcome = {
        let mut show = |figures: &Figures| progress.show(figures);
        let watch: Watch = if progress.is_shown() {
            Some(&mut show)
        } else {
            None
        };
        supervisor::run(plan, changes, signals, watch)
    };
    progress.finish();
    let exit = outcome.unwrap_or_else(|error| {
        complain(&error.to_string(), error.hint());
        Exit::CouldNotRun
    });
    log::logger().flush();
    exit
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

/// What the process finds around itself; that it cannot is told, and is the exit
/// code.
fn surroundings() -> Result<Surroundings, Exit> {
    let name = rustix::system::uname();
    let directory = env::current_dir().map_err(|error| {
        complain(&format!("cannot find out where it is: {error}"), None);
        Exit::CouldNotRun
    })?;
    Ok(Surroundings {
        directory,
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

/// True when what is written there may have colours: on a terminal, unless
/// NO_COLOR says no (<https://no-color.org>).
fn colours(stream: &impl IsTerminal) -> bool {
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !refused
}
