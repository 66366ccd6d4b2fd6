//! What can be typed after `logship etcd`.
//!
//! The options that say how etcd is reached have etcdctl's names.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::args::indented;

/// The section EXIT STATUS of `logship etcd` and its commands.
const ETCD_EXIT: &str = "\
0  done, or the value is good; there may be warnings
1  etcd did not do it, there is no such key, or somebody else has written meanwhile
2  refused: usage, a config with a mistake, or a value that a logship would refuse";

/// The options of `logship etcd`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_long_help = format!("EXIT STATUS:\n{}", indented(ETCD_EXIT))
)]
pub struct EtcdArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: EtcdCommands,
}

/// The commands of `logship etcd`.
#[derive(Debug, Subcommand)]
pub enum EtcdCommands {
    /// Print what is in etcd.
    #[command(
        about = "Print the value of a key",
        long_about = "Prints the value of a key as it is; of a KEY that ends with a slash all values below it, \
            each after a line with its key and its revision.",
        after_long_help = format!(
            "EXIT STATUS:\n{}\n\n\
             EXAMPLES:\n\
             \x20 What is this host told?\n\
             \x20     logship etcd get '/logship/{{host}}/sources' --config /etc/logship.json\n\
             \x20 All keys, for a script:\n\
             \x20     logship etcd get /logship/ --endpoints http://etcd1:2379 --json | jq -r '.[].key'",
            indented(ETCD_EXIT)
        )
    )]
    Get(GetArgs),
    /// Write what a logship would take.
    #[command(
        about = "Check a value, and write it",
        long_about = "Checks a value as a logship would, shows what it changes, and writes it.\n\n\
            A value with a mistake is refused, and so is the empty list, which stops everything. It \
            is written only if nobody else has written the key since it was read for comparison.",
        after_long_help = format!(
            "EXIT STATUS:\n{}\n\n\
             EXAMPLES:\n\
             \x20 See what would change, then change it:\n\
             \x20     logship etcd put /logship/web1/sources web1.json --config /etc/logship.json --dry-run\n\
             \x20     logship etcd put /logship/web1/sources web1.json --config /etc/logship.json\n\
             \x20 The least there is:\n\
             \x20     echo '[{{\"path\":\"/var/log/a.log\",\"topic\":\"a\"}}]' | \
             logship etcd put /logship/web1/sources --endpoints http://127.0.0.1:2379",
            indented(ETCD_EXIT)
        )
    )]
    Put(PutArgs),
    /// Say what a logship would do with a value.
    #[command(
        about = "Say what is wrong with a value, or what it would do",
        long_about = "Says everything that is wrong with a value, as FILE:LINE:COLUMN: key: problem; or, when it is \
            good, which files of this host would go to which topics.\n\n\
            Without FILE it checks standard input; on a terminal, where nothing comes from, what is \
            in etcd now. Only then is etcd asked.",
        after_long_help = format!(
            "EXIT STATUS:\n{}\n\n\
             EXAMPLES:\n\
             \x20 Before a review:\n\
             \x20     logship etcd check /logship/web1/sources web1.json --config /etc/logship.json\n\
             \x20 What is in etcd now, also from a script:\n\
             \x20     logship etcd get /logship/web1/sources | logship etcd check /logship/web1/sources",
            indented(ETCD_EXIT)
        )
    )]
    Check(CheckValueArgs),
}

/// How etcd is reached.
#[derive(Debug, Args)]
pub struct Reach {
    /// Reach etcd as this config says
    ///
    /// The config of the logship that is to follow the key: its section etcd says how etcd is
    /// reached, and which paths a value may name (allowed_paths, denied_paths).
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Reach etcd there [env: LOGSHIP_ETCD_ENDPOINTS]
    ///
    /// The members of etcd, separated by commas, like http://127.0.0.1:2379. By default those
    /// of LOGSHIP_ETCD_ENDPOINTS. Without a config paths are not tried against allowed_paths.
    #[arg(
        long,
        value_name = "URL,...",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    pub endpoints: Vec<String>,

    /// Log in as this user
    #[arg(
        long,
        value_name = "NAME",
        requires = "password_file",
        conflicts_with = "config"
    )]
    pub user: Option<String>,

    /// Read that user's password from this file
    #[arg(
        long,
        value_name = "FILE",
        requires = "user",
        conflicts_with = "config"
    )]
    pub password_file: Option<PathBuf>,

    /// Trust the CA in this file (https)
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub cacert: Option<PathBuf>,

    /// Show this certificate (https)
    #[arg(
        long,
        value_name = "FILE",
        requires = "key_file",
        conflicts_with = "config"
    )]
    pub cert: Option<PathBuf>,

    /// The key of that certificate
    #[arg(
        id = "key_file",
        long = "key",
        value_name = "FILE",
        requires = "cert",
        conflicts_with = "config"
    )]
    pub key_file: Option<PathBuf>,
}

/// The options of `logship etcd get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// This key, or all below one that ends with a slash
    ///
    /// The key; {host} and {ip} in it are filled in as in etcd.keys. One that ends with a slash
    /// stands for all keys below it.
    #[arg(value_name = "KEY", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub key: String,

    /// Print JSON: key, mod_revision, and value
    ///
    /// Prints an object with key, mod_revision and value, or value_base64 where the value is not
    /// UTF-8; for a KEY that ends with a slash an array of them.
    #[arg(long)]
    pub json: bool,

    /// How etcd is reached.
    #[command(flatten)]
    pub reach: Reach,
}

/// The options of `logship etcd put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// Write this key
    ///
    /// The key; {host} and {ip} in it are filled in as in etcd.keys.
    #[arg(value_name = "KEY", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub key: String,

    /// Write what this file holds [default: standard input]
    ///
    /// The value: the JSON array that would stand under sources. '-' is standard input.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Show what would change, and write nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Write also over another's change, and the empty list
    ///
    /// Writes whatever somebody else has written meanwhile, and also the empty list. A value
    /// that a logship would refuse is refused all the same.
    #[arg(long)]
    pub force: bool,

    /// How etcd is reached.
    #[command(flatten)]
    pub reach: Reach,
}

/// The options of `logship etcd check`.
#[derive(Debug, Args)]
pub struct CheckValueArgs {
    /// For this key
    ///
    /// The key that the value is for; {host} and {ip} in it are filled in as in etcd.keys.
    #[arg(value_name = "KEY", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub key: String,

    /// Check what this file holds [default: standard input]
    ///
    /// The value: the JSON array that would stand under sources. '-' is standard input, which is
    /// also the default; but on a terminal it is what is in etcd now.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// How etcd is reached.
    #[command(flatten)]
    pub reach: Reach,
}
