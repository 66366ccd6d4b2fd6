//! Where messages go, and how many of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, LineWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;
use time::format_description::FormatItem;
use time::macros::format_description;

use simplelog::{ColorChoice, Config, ConfigBuilder, TermLogger, TerminalMode, WriteLogger};

use super::args::LoggingArgs;
use super::progress::Progress;

/// How often a log file's path is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// RFC 3339 in UTC, with milliseconds, as wide as every other.
const TIME: &[FormatItem] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

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
            let file = LogFile::open(path).map_err(|error| (path.clone(), error))?;
            WriteLogger::init(level, config, LineWriter::new(file))
        }
        None if progress.is_shown() => {
            let above = AboveProgress(progress.clone());
            WriteLogger::init(level, config, LineWriter::new(above))
        }
        None if super::colours(&io::stderr()) => {
            TermLogger::init(level, config, TerminalMode::Stderr, ColorChoice::Always)
        }
        None => WriteLogger::init(level, config, LineWriter::new(io::stderr())),
    };
    panic::set_hook(Box::new(tell_panic));
    Ok(())
}

/// A panic is a message like others, and in the same place.
fn tell_panic(info: &PanicHookInfo) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    log::error!(
        "panicked: {} thread={} at={place}",
        text.unwrap_or("without a word"),
        thread.name().unwrap_or("unnamed")
    );
}

/// Only what logship says itself is logged: what crates say is for those who write them.
fn config() -> Config {
    ConfigBuilder::new()
        .add_filter_allow_str(concat!(env!("CARGO_PKG_NAME"), "::"))
        .set_time_format_custom(TIME)
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

/// A log file that is opened again when it is rotated away: whoever rotates it
/// needs no signal for us.
struct LogFile {
    path: PathBuf,
    file: File,
    identity: Option<(u64, u64)>,
    looked: Instant,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<LogFile> {
        // Also where the working directory will not be found again.
        let path = std::path::absolute(path)?;
        let file = append(&path)?;
        Ok(LogFile {
            identity: identity(&file.metadata()?),
            path,
            file,
            looked: Instant::now(),
        })
    }

    /// Goes on in the file that stands at the path now. When that cannot be
    /// opened, the old one is better than none.
    fn follow_path(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        let there = fs::metadata(&self.path)
            .ok()
            .and_then(|meta| identity(&meta));
        if there.is_some() && there == self.identity {
            return;
        }
        if let Ok(file) = append(&self.path) {
            self.identity = file.metadata().ok().and_then(|meta| identity(&meta));
            self.file = file;
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.follow_path();
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn identity(meta: &fs::Metadata) -> Option<(u64, u64)> {
    Some((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use log::{Level, Log, Record};

    struct Told(mpsc::Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// rustls tells its handshakes, as if logship had said it.
    #[test]
    fn what_crates_say_is_not_logged_however_much_is_asked_for() {
        let (sender, told) = mpsc::channel();
        let logger = WriteLogger::new(LevelFilter::Trace, config(), Told(sender));
        for target in [
            "rustls::client::hs",
            "kafka::client",
            "logshipper",
            module_path!(),
        ] {
            let said = format_args!("said by {target}");
            for level in Level::iter() {
                let record = Record::builder()
                    .target(target)
                    .level(level)
                    .args(said)
                    .build();
                logger.log(&record);
            }
        }
        drop(logger);
        let told: Vec<u8> = told.iter().flatten().collect();
        let told = String::from_utf8(told).unwrap();
        assert_eq!(told.lines().count(), Level::iter().count(), "{told}");
        assert!(
            told.lines().all(|line| line.contains(module_path!())),
            "{told}"
        );
    }
}
