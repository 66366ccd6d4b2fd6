//! Where messages go, and how many of them.

use std::fs::OpenOptions;
use std::io::{self, LineWriter, Write};
use std::path::PathBuf;

use log::LevelFilter;
use simplelog::{ColorChoice, Config, ConfigBuilder, TermLogger, TerminalMode, WriteLogger};

use super::args::LoggingArgs;
use super::progress::Progress;

/// Starts the log: to standard error, in colours on a terminal, or to a file.
///
/// # Errors
/// The log file that cannot be opened, and why.
pub fn init(args: &LoggingArgs, progress: &Progress) -> Result<(), (PathBuf, io::Error)> {
    let level = match (args.quiet, args.verbose) {
        (true, _) => LevelFilter::Warn,
        (false, 0) => LevelFilter::Info,
        (false, 1) => LevelFilter::Debug,
        (false, _) => LevelFilter::Trace,
    };
    let config = config();
    // Written line by line: a message is one write, also beside other processes'.
    // Setting a logger fails only when there is one, and this is the only place.
    let _ = match &args.log_file {
        Some(path) => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map_err(|error| (path.clone(), error))?;
            WriteLogger::init(level, config, LineWriter::new(file))
        }
        None if progress.is_shown() => {
            let above = AboveProgress(progress.clone());
            WriteLogger::init(level, config, LineWriter::new(above))
        }
        None if super::colours() => {
            TermLogger::init(level, config, TerminalMode::Stderr, ColorChoice::Always)
        }
        None => WriteLogger::init(level, config, LineWriter::new(io::stderr())),
    };
    Ok(())
}

fn config() -> Config {
    ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_target_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Trace)
        .set_location_level(LevelFilter::Off)
        .build()
}

/// Writes messages without leaving pieces of the progress bar between them.
struct AboveProgress(Progress);

impl Write for AboveProgress {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.aside(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
