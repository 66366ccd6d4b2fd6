//! Variables of the environment that stand for options.
//!
//! clap reads them. Which of them count is said here: one that is set to nothing is not
//! set. What is wrong with one is told under its own name.

use std::env;
use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, Error, FromArgMatches};

use super::args::Cli;
use crate::config::Mistake;

/// The options that variables have given, each with its variable.
#[derive(Debug, Default)]
pub struct Given(Vec<(String, String)>);

/// The command line, with variables for options that were not typed.
///
/// # Errors
/// What clap says, and the variable that it says it of, if it is one.
pub fn parse(args: &[OsString]) -> Result<(Cli, Given), (Error, Option<OsString>)> {
    let mut command = reading(Cli::command(), &is_set);
    let parsed = command.try_get_matches_from_mut(args).and_then(|matches| {
        let given = Given::of(&command, &matches);
        Ok((Cli::from_arg_matches(&matches)?, given))
    });
    parsed.map_err(|error| {
        let variable = error.use_stderr().then(|| culprit(args)).flatten();
        (error, variable)
    })
}

/// What a variable holds.
///
/// # Errors
/// It is not UTF-8.
pub fn variable(name: &str) -> Result<Option<String>, String> {
    let text = value(OsStr::new(name)).map(OsString::into_string);
    text.transpose().map_err(|_| "is not UTF-8".to_owned())
}

impl Given {
    fn of(command: &Command, matches: &ArgMatches) -> Given {
        let Some((name, matches)) = matches.subcommand() else {
            return Given::default();
        };
        let args = command.find_subcommand(name).into_iter();
        let given = args.flat_map(Command::get_arguments).filter_map(|arg| {
            let source = matches.value_source(arg.get_id().as_str());
            let variable = arg.get_env()?.to_str()?.to_owned();
            let option = format!("--{}", arg.get_long()?);
            (source == Some(ValueSource::EnvVariable)).then_some((option, variable))
        });
        Given(given.collect())
    }

    /// A mistake in an option, under the name of the variable that gave it.
    pub fn named(&self, mistake: Mistake) -> Mistake {
        let given = self.0.iter().find(|(option, _)| *option == mistake.key);
        match given {
            Some((_, variable)) => Mistake {
                key: variable.clone(),
                ..mistake
            },
            None => mistake,
        }
    }
}

/// The one place that says that nothing is not set.
fn value(name: &OsStr) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn is_set(name: &OsStr) -> bool {
    value(name).is_some()
}

/// The definition, reading only those variables that are wanted. Those that are not there
/// at all stay, for the help.
fn reading(command: Command, wanted: &dyn Fn(&OsStr) -> bool) -> Command {
    let command = command.mut_args(|arg| match arg.get_env() {
        Some(name) if env::var_os(name).is_some() && !wanted(name) => arg.env(None),
        _ => arg,
    });
    command.mut_subcommands(|command| reading(command, wanted))
}

/// The variable without which all would be well.
fn culprit(args: &[OsString]) -> Option<OsString> {
    let is_good = |wanted: &dyn Fn(&OsStr) -> bool| {
        let command = reading(Cli::command(), wanted);
        command.try_get_matches_from(args).is_ok()
    };
    if !is_good(&|_| false) {
        return None; // it is what was typed
    }
    let mut names = names(&Cli::command()).into_iter();
    names.find(|name| !is_good(&|other| other == name && is_set(other)))
}

fn names(command: &Command) -> Vec<OsString> {
    let of_this = command.get_arguments().filter_map(|arg| arg.get_env());
    let below = command.get_subcommands().flat_map(names);
    of_this.map(OsStr::to_owned).chain(below).collect()
}
