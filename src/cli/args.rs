//! What can be typed: the commands, options and their help.
//!
//! The manual pages and completions are generated from this definition.
//! Nothing is checked here that needs more than one option.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Command, CommandFactory, Parser, Subcommand, ValueEnum};

use super::security::SecurityArgs;
use crate::config::{Mistake, TailRequest, parse_duration, parse_size};
use crate::exit;
use crate::kafka::{Address, Compression, Kind};
use crate::record::{Format, Partitioning};
use crate::tail::{ReadFrom, WhenFull};

pub use super::etcd::args::{EtcdArgs, EtcdCommands};

/// Tails log files and ships every line to Kafka.
#[derive(Debug, Parser)]
#[command(
    name = "logship",
    version,
    about = "Tails log files and ships every line to Kafka",
    long_about = "Tails log files and ships every line to Kafka.\n\n\
        A line is finished when Kafka has acknowledged it; until then it is still in its file. \
        So memory is bounded, a slow or absent Kafka loses nothing, and every byte is accounted \
        for: known = acknowledged + waiting + dropped + lost.",
    after_long_help = format!("EXIT STATUS:\n{}", indented(exit::MANUAL)),
    propagate_version = true,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Commands,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Commands {
    /// Follow files and ship their lines.
    #[command(
        about = "Follow files and ship their lines to a Kafka topic",
        long_about = "Follows files like 'tail -F' and ships their lines to a Kafka topic.\n\n\
            Without --brokers the records go to standard output, one a line: the way to try it with \
            nothing installed, and to pipe. Rotation by rename, copytruncate, replaced files and \
            re-pointed symlinks are followed. Positions are saved, so the next run goes on where \
            this one stopped.",
        after_long_help = format!(
            "EXIT STATUS:\n{}\n\n\
             EXAMPLES:\n\
             \x20 Show what would be shipped, without Kafka:\n\
             \x20     logship tail /var/log/syslog --topic demo --once\n\
             \x20 Follow all nginx logs, also ones that appear later:\n\
             \x20     logship tail '/var/log/nginx/*.log' --topic nginx --brokers kafka1:9092,kafka2:9092\n\
             \x20 From cron, what is new since the last time, for at most five minutes:\n\
             \x20     logship tail /var/log/app.log --topic app --brokers kafka1:9092 --once --timeout 5m -q\n\
             \x20 From a pipe:\n\
             \x20     journalctl -f | logship tail - --topic journal --brokers kafka1:9092",
            indented(exit::MANUAL)
        )
    )]
    Tail(Box<TailArgs>),
    /// Do what a config says.
    #[command(
        about = "Ship what a config says, until stopped",
        long_about = "Ships what a config says, until it is stopped: the daemon.\n\n\
            The config says which files go to which topics, and may have more of it in etcd. After \
            SIGHUP, or when it changes, it is read again; one with a mistake is refused as a whole \
            and changes nothing. SIGTERM and SIGINT stop it cleanly, a second one at once.",
        after_long_help = format!(
            "EXIT STATUS:\n{}\n\n\
             EXAMPLES:\n\
             \x20 Check a config, then run with it:\n\
             \x20     logship check-config /etc/logship.json && logship run --config /etc/logship.json\n\
             \x20 Take up a change at once:\n\
             \x20     pkill -HUP -x logship\n\
             \x20 See what it does:\n\
             \x20     logship status",
            indented(exit::MANUAL)
        )
    )]
    Run(RunArgs),
    /// Check a config.
    #[command(
        about = "Say what is wrong with a config, or what it would do",
        long_about = "Says everything that is wrong with a config, as FILE:LINE:COLUMN: key: problem; or, \
            when it is good, which files would go to which topics, and what had better be looked \
            at.\n\n\
            The checks are those of 'run'. The plan goes to standard output, mistakes and warnings \
            to standard error. No network is touched, unless --connect is given.",
        after_long_help = format!(
            "EXIT STATUS:\n{}\n\n\
             EXAMPLES:\n\
             \x20 What would be shipped where?\n\
             \x20     logship check-config /etc/logship.yaml\n\
             \x20 Can it get there from here?\n\
             \x20     logship check-config /etc/logship.yaml --connect",
            indented(CHECK_EXIT)
        )
    )]
    CheckConfig(CheckArgs),
    /// Ask the running logship.
    #[command(
        about = "Show what the running logship does",
        long_about = "Asks the running logship, and shows a line about all of it, what is wrong, and a table of \
            its files: position, lag, acknowledged lines a second, state and last error, those that lag \
            most first. With PATH it says why this file is read, or why it is not.\n\n\
            It asks on the Unix socket in the state directory, or over TCP where the config has \
            admin.listen. A file that PATH names is looked at by the user who asks.",
        after_long_help = format!(
            "EXIT STATUS:\n{}\n\n\
             EXAMPLES:\n\
             \x20 The table, again every two seconds:\n\
             \x20     logship status --watch\n\
             \x20 Why is this file not shipped?\n\
             \x20     logship status /var/log/app.log\n\
             \x20 For a script, over TCP:\n\
             \x20     logship status --json --addr 127.0.0.1:9598",
            indented(STATUS_EXIT)
        )
    )]
    Status(StatusArgs),
    /// Compare files with what arrived.
    #[command(
        about = "Prove that every line of files arrived",
        long_about = "Compares files with what arrived of them, and prints what is missing, repeated or out of order: \
            file, inode, byte range, bytes and lines. It only reads.\n\n\
            What arrived is a capture: what 'logship tail' prints without --brokers, or what a consumer \
            prints of the topic. A record that says where it is from, because it was shipped with \
            --headers or --format json, is compared with the bytes that stand there: that is exact, on a \
            topic that others share too, and costs next to no memory. 'kcat -J' shows the headers. A bare \
            line is found by what it holds: equal lines are counted then, but cannot tell the order, and \
            it takes 20 bytes of memory a line of the files.\n\n\
            Name rotated files too, unpacked. A file that was truncated holds its last life only: \
            records of earlier ones are compared with the copies that are named, and counted as \
            'earlier' where there is none. Only headers tell the lives apart: in the format json a line \
            that stands at the same place in two of them may count as repeated. Compare when logship has caught up: what is written \
            meanwhile is not looked at.",
        after_long_help = format!(
            "EXIT STATUS:\n{}\n\n\
             EXAMPLES:\n\
             \x20 Exactly, from a topic whose records have headers:\n\
             \x20     kcat -b kafka1:9092 -C -t app -e -q -J | logship verify '/var/log/app.log*'\n\
             \x20 From bare lines, after a crash that may have repeated some:\n\
             \x20     kcat -b kafka1:9092 -C -t app -e -q -u | logship verify /var/log/app.log --allow-repeats\n\
             \x20 From files that a consumer wrote:\n\
             \x20     logship verify /var/log/app.log --arrived captures/",
            indented(VERIFY_EXIT)
        )
    )]
    Verify(Box<VerifyArgs>),
    /// Read, check and write the remote config.
    #[command(
        about = "Read, check and write the config in etcd",
        long_about = "Reads, checks and writes the config in etcd: the JSON arrays of sources that a logship \
            follows under the keys etcd.keys of its config.\n\n\
            What a logship would refuse is not written. etcd is reached as --config says, or as the \
            options say, which are etcdctl's."
    )]
    Etcd(EtcdArgs),
}

/// The section EXIT STATUS of `logship check-config`.
const CHECK_EXIT: &str = "\
0  the config is good; there may be warnings
1  it is good, but with --connect a step failed
2  it is refused, or it cannot be read";

/// The options of `logship run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Do what this config says
    ///
    /// The config: JSON, or YAML when its name ends with .yaml or .yml. All keys are explained in
    /// logship.conf(5). It is read again after SIGHUP and when it changes.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// How much to tell, and where.
    #[command(flatten)]
    pub logging: LoggingArgs,
}

/// The options of `logship check-config`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Check this config
    ///
    /// The config: JSON, or YAML when its name ends with .yaml or .yml. All keys are explained in
    /// logship.conf(5).
    #[arg(value_name = "FILE", required_unless_present = "config")]
    pub file: Option<PathBuf>,

    /// Check this config, as 'run' is told it
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    pub config: Option<PathBuf>,

    /// Try etcd, the brokers and the topics too
    ///
    /// Tries etcd, then the brokers and the topics, step by step, and says of each step whether it
    /// went well, or why not and what to change. It sends no line, makes no topic, and takes
    /// about ten seconds at most for what does not answer.
    #[arg(long)]
    pub connect: bool,
}

/// The section EXIT STATUS of `logship status`.
const STATUS_EXIT: &str = "\
0  it was shown; also when the reader of standard output hangs up
1  nobody answers there, or this user may not ask
2  usage: refused before anybody was asked";

/// The options of `logship status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Say why this file is read, or why it is not
    ///
    /// Says why this file is read, or why it is not: which sources match it, which 'exclude'
    /// leaves it out, what is there, how far it is read, and one sentence that sums it up.
    #[arg(value_name = "PATH", conflicts_with_all = ["watch", "json"])]
    pub path: Option<PathBuf>,

    /// Ask the logship with this state directory
    ///
    /// The state directory of the logship to ask; its socket there is 'admin.sock'. By default
    /// /var/lib/logship for root and $XDG_STATE_HOME/logship (~/.local/state/logship) for
    /// others.
    #[arg(
        long,
        value_name = "DIR",
        env = "LOGSHIP_STATE_DIR",
        hide_env_values = true
    )]
    pub state_dir: Option<PathBuf>,

    /// Ask over TCP, where admin.listen is
    ///
    /// Ask over TCP instead of the socket, at the address that the config has as admin.listen.
    /// Wins over --state-dir. Example: 127.0.0.1:9598.
    #[arg(long, value_name = "HOST:PORT")]
    pub addr: Option<Address>,

    /// Show it again and again [default: every 2s]
    ///
    /// Shows it again after every INTERVAL, by default 2s and at least 100ms, until it is
    /// interrupted. On a terminal what does not fit on the screen is left out.
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        default_missing_value = "2s",
        value_parser = parse_watch
    )]
    pub watch: Option<Duration>,

    /// Print the raw document
    ///
    /// Prints the document as it came: one JSON object with everything there is to tell.
    #[arg(long, conflicts_with = "watch")]
    pub json: bool,
}

/// The section EXIT STATUS of `logship verify`.
const VERIFY_EXIT: &str = "\
0  every line arrived, once and in order; also when records of other files came
1  nothing can be said: a file or a capture cannot be read, or is not what it should be
2  usage: refused before anything was read
5  lines are missing
6  no line is missing, but some are repeated or out of order";

/// The options of `logship verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Files or quoted patterns that should have arrived
    ///
    /// Files or patterns that should have arrived, as 'logship tail' takes them, also rotated ones.
    /// They must be the files themselves: a copy has another inode, which is all right for
    /// records without a place, and for copies that copytruncate made beside the file.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,

    /// Read what arrived from here [default: standard input]
    ///
    /// What arrived: a file, or a directory, whose files are read in the order of their names;
    /// '-' is standard input. Several are read one after the other, as if they were one.
    #[arg(short, long, value_name = "CAPTURE")]
    pub arrived: Vec<PathBuf>,

    /// Say how it was captured [default: by the first line]
    ///
    /// What a capture holds: 'raw' lines; 'json' objects of --format json, one a line; 'kcat' objects
    /// of kcat -J, one a line, with either of them as payload. By default what the first line of
    /// each capture looks like. Other consumers that escape what is not UTF-8 lose it: then
    /// such lines are missing here. kcat copies it.
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    pub input: Option<InputArg>,

    /// Count the last line also without a line end
    ///
    /// The files were shipped with --once, where the last line counts also without a line end.
    /// Without this it is said to be unfinished, and never missing.
    #[arg(long)]
    pub once: bool,

    /// Where to begin in each file
    ///
    /// Where lines begin to count: at the 'beginning' of each file, or at the 'first' that arrived of
    /// it, for files that were followed from their end.
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = VerifyFrom::Beginning)]
    pub from: VerifyFrom,

    /// Do not expect empty lines
    ///
    /// The source had skip_empty, so empty lines need not arrive.
    #[arg(long)]
    pub skip_empty: bool,

    /// Expect longer lines to be cut here [default: all defaults]
    ///
    /// The line_bytes_max that the source had. By default a longer line may be cut wherever
    /// logship does by itself: at 1 MiB, or 512 bytes or 5 KiB before it. Example: 256KiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_line_bytes)]
    pub line_bytes_max: Option<usize>,

    /// Look at records of this host [default: this one]
    ///
    /// Records that say that they are of another host count as unknown. Records say so with
    /// --headers and --format json.
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,

    /// Take repeated lines for all right
    ///
    /// Repeated lines are shown, but do not change the exit status: at least once is what is
    /// promised after a crash.
    #[arg(long)]
    pub allow_repeats: bool,

    /// Show everything, not ten of each kind
    #[arg(long)]
    pub all: bool,

    /// Print JSON, one object a line
    ///
    /// Prints an object a line: 'finding' is missing, repeated, misordered, unfinished, unknown,
    /// or done for the sum at the end. Paths are UTF-8, with %XX for other bytes and for '%'.
    #[arg(long)]
    pub json: bool,
}

/// `--input`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum InputArg {
    /// Each line is a line of a file
    Raw,
    /// Each line is an object of --format json
    Json,
    /// Each line is an object of kcat -J
    Kcat,
}

/// `--from`, of `logship verify`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerifyFrom {
    /// At the first byte
    Beginning,
    /// At the first line that arrived
    First,
}

/// The options of `logship tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Files or quoted patterns to follow, '-' for standard input
    ///
    /// Files or patterns to follow. A path that exists is taken literally, whatever characters
    /// it holds; else '*', '?', '[...]', '{a,b}' and '**' make it a pattern, which is watched
    /// for new files as long as it is quoted from the shell. '-' is standard input. A file
    /// that does not exist is waited for; with --once it makes the exit status 1.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,

    /// Ship to this topic
    ///
    /// The Kafka topic for all lines. It is made on first use where the brokers allow it
    /// (auto.create.topics.enable); else lines wait until it exists.
    #[arg(short, long, value_name = "TOPIC")]
    pub topic: String,

    /// Ask these brokers for the cluster [default: standard output]
    ///
    /// Where to find the cluster: one or more brokers, separated by commas. The others are
    /// found through them. Without it the records go to standard output.
    #[arg(
        short,
        long,
        value_name = "HOST:PORT,...",
        env = "LOGSHIP_BROKERS",
        hide_env_values = true
    )]
    pub brokers: Option<String>,

    /// How brokers are trusted, and who we are.
    #[command(flatten)]
    pub security: SecurityArgs,

    /// Read to the end, wait for every ack, and exit
    ///
    /// Reads to the end of every file, waits until everything is acknowledged, and exits. The
    /// last line counts also without a line end. On a terminal a progress bar is shown.
    #[arg(long)]
    pub once: bool,

    /// Give up after this long [default: never]
    ///
    /// With --once: give up after this long and exit with status 3; what is not acknowledged
    /// is sent by the next run. Example: 5m.
    #[arg(long, value_name = "DURATION", requires = "once", value_parser = parse_duration)]
    pub timeout: Option<Duration>,

    /// Where to begin in a file without a saved position
    ///
    /// Where to begin in a file that has no saved position: at its beginning, or at its end so
    /// that only new lines are shipped. By default 'end' when following and 'beginning' with
    /// --once. A saved position always wins (see --no-state). A file that appears later, or has
    /// appeared since the last run with the same state, is read from its beginning.
    #[arg(long, value_name = "WHERE", value_enum)]
    pub from: Option<From>,

    /// Ship lines as they are, or as JSON objects
    ///
    /// The form of a record's value: 'raw' is the line's bytes; 'json' an object with the
    /// names of the Elastic Common Schema: @timestamp (when it was read), message, log.file,
    /// log.offset, host.name, agent.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = FormatArg::Raw)]
    pub format: FormatArg,

    /// Give every record this key [default: none]
    ///
    /// The key of every record; '{path}' and '{host}' in it are filled in. The partition does
    /// not depend on it (see --partition).
    #[arg(short, long, value_name = "TEMPLATE")]
    pub key: Option<String>,

    /// Say in headers where each line stands
    ///
    /// Gives every record headers that say where its line stands: path (bytes), host, device,
    /// inode, generation (one more with every truncation) and offset (of the line's first
    /// byte), numbers in decimal. So 'logship verify' can tell exactly what is missing or
    /// repeated, also on a topic that several hosts share. They take about 100 bytes a record
    /// before compression, and lower the longest line by 4.5 KiB. Standard output has none.
    #[arg(long)]
    pub headers: bool,

    /// Keep a file in one partition, or spread batches
    ///
    /// 'file': all lines of a path go to one partition, chosen by a hash of host and path, so
    /// that they keep their order. 'spread': batches go to the partitions in turn, for a
    /// single file that is too much for one partition.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = PartitionArg::File)]
    pub partition: PartitionArg,

    /// Choose the client that writes to the brokers
    ///
    /// Which client writes to the brokers. 'modern' is logship's own, for Kafka 0.11 and newer:
    /// no line comes twice. 'legacy' is for brokers from 0.8.2 to 3.9: lines keep their order, but
    /// some may come twice after a lost connection, and there are no headers, no lz4, no zstd,
    /// neither TLS nor a login. 'auto' is modern, and changes to legacy where a broker says that
    /// it is older than 0.11. One before 0.10 cannot say so: give 'legacy' for it.
    #[arg(long, value_name = "CLIENT", value_enum, default_value_t = ClientArg::Auto)]
    pub client: ClientArg,

    /// Compress batches with this codec [default: lz4]
    ///
    /// The codec of batches. With --client legacy the default is 'snappy', and there is neither lz4
    /// nor zstd.
    #[arg(long, value_name = "CODEC", value_enum)]
    pub compression: Option<CompressionArg>,

    /// How hard to compress [default: gzip 6, zstd 3]
    ///
    /// The level of the codec: gzip from 1 to 9, zstd from 1 to 22. More is smaller and takes more
    /// CPU. The other codecs have no levels.
    #[arg(long, value_name = "LEVEL")]
    pub compression_level: Option<i32>,

    /// What to do while the queue is full
    ///
    /// What to do with lines while Kafka is slower than the file: 'wait' leaves them in the
    /// file, so nothing is lost while the file exists; 'drop' gives them up, counts them, and
    /// stays at the live end.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = WhenFullArg::Wait)]
    pub when_full: WhenFullArg,

    /// Keep positions below this directory
    ///
    /// The directory below which positions, a lock and dead letters are kept, in a directory
    /// of this tail's own named after topic and paths (or --name), one logship at a time. By
    /// default /var/lib/logship for root and $XDG_STATE_HOME/logship (~/.local/state/logship)
    /// for others. Standard output keeps no state unless this is given.
    #[arg(
        long,
        value_name = "DIR",
        env = "LOGSHIP_STATE_DIR",
        hide_env_values = true
    )]
    pub state_dir: Option<PathBuf>,

    /// Name the state directory of this tail
    ///
    /// The name of this tail's own state directory, in place of one made of topic and paths.
    /// Use it when the paths may change.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Keep no positions and use none
    #[arg(long, conflicts_with_all = ["name"])]
    pub no_state: bool,

    /// Wait this long for acknowledgements when stopped
    ///
    /// How long the first SIGINT or SIGTERM waits for what was read to be acknowledged. A
    /// second one ends at once. Lines not acknowledged are sent by the next run.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub shutdown_timeout: Duration,

    /// Tell the figures this often
    ///
    /// How often a line with the lines read, acknowledged and dropped, and the lag, is logged.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_interval)]
    pub stats_interval: Duration,

    /// How much to tell, and where.
    #[command(flatten)]
    pub logging: LoggingArgs,
}

/// How much is told, and where.
#[derive(Debug, Args)]
pub struct LoggingArgs {
    /// Tell warnings and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Tell more: -v about files, -vv about everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Log to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
}

/// `--from`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum From {
    /// At the first byte
    Beginning,
    /// Only what is written from now on
    End,
}

/// `--format`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FormatArg {
    /// The line's bytes
    Raw,
    /// A JSON object with ECS names
    Json,
}

/// `--partition`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PartitionArg {
    /// All lines of a path to one partition
    File,
    /// Batches to the partitions in turn
    Spread,
}

/// `--client`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ClientArg {
    /// What the brokers can do
    Auto,
    /// For Kafka 0.11 and newer
    Modern,
    /// For brokers from 0.8.2 to 3.9
    Legacy,
}

impl ClientArg {
    /// What the config calls it.
    pub fn kind(self) -> Kind {
        match self {
            ClientArg::Auto => Kind::Auto,
            ClientArg::Modern => Kind::Modern,
            ClientArg::Legacy => Kind::Legacy,
        }
    }
}

/// `--compression`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum CompressionArg {
    /// No compression, least CPU
    None,
    /// Understood by everything, slow
    Gzip,
    /// Fast
    Snappy,
    /// Fast, the default
    Lz4,
    /// Smallest, more CPU; needs Kafka 2.1
    Zstd,
}

/// `--when-full`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum WhenFullArg {
    /// Leave lines in the file until there is room
    Wait,
    /// Give lines up and count them
    Drop,
}

impl TailArgs {
    /// What was asked for, without how to tell of it. Adds what had better be looked at.
    ///
    /// # Errors
    /// A password that cannot be read.
    pub fn request(&self, warnings: &mut Vec<Mistake>) -> Result<TailRequest, Mistake> {
        Ok(TailRequest {
            paths: self.paths.clone(),
            topic: self.topic.clone(),
            brokers: self.brokers.clone(),
            security: self.security.request(warnings)?,
            once: self.once,
            read_from: self.from.map(|from| match from {
                From::Beginning => ReadFrom::Beginning,
                From::End => ReadFrom::End,
            }),
            format: match self.format {
                FormatArg::Raw => Format::Raw,
                FormatArg::Json => Format::Json,
            },
            key: self.key.clone(),
            headers: self.headers,
            partitioning: match self.partition {
                PartitionArg::File => Partitioning::File,
                PartitionArg::Spread => Partitioning::Spread,
            },
            client: self.client.kind(),
            compression: self.compression.map(|codec| match codec {
                CompressionArg::None => Compression::None,
                CompressionArg::Gzip => Compression::Gzip,
                CompressionArg::Snappy => Compression::Snappy,
                CompressionArg::Lz4 => Compression::Lz4,
                CompressionArg::Zstd => Compression::Zstd,
            }),
            compression_level: self.compression_level,
            when_full: match self.when_full {
                WhenFullArg::Wait => WhenFull::Wait,
                WhenFullArg::Drop => WhenFull::Drop,
            },
            state_dir: self.state_dir.clone(),
            name: self.name.clone(),
            no_state: self.no_state,
            shutdown_timeout: self.shutdown_timeout,
            stats_interval: self.stats_interval,
            timeout: self.timeout,
        })
    }
}

/// The definition that manual pages and completions are generated from.
pub fn command() -> Command {
    Cli::command()
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be more than zero".to_owned()),
        duration => Ok(duration),
    }
}

fn parse_line_bytes(text: &str) -> Result<usize, String> {
    match parse_size(text)? {
        bytes @ 1..=LINE_BYTES_MAX => Ok(bytes as usize),
        _ => Err("must be from 1 to 64MiB".to_owned()),
    }
}

/// The longest line that a source may have.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Asking costs the one who is asked.
const WATCH_MIN: Duration = Duration::from_millis(100);

fn parse_watch(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        duration if duration < WATCH_MIN => Err("must be at least 100ms".to_owned()),
        duration => Ok(duration),
    }
}

pub(super) fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("  {line}\n"))
        .collect::<String>()
        .trim_end()
        .to_owned()
}
