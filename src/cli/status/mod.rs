//! `logship status`: asks the running logship and shows what it says.
//!
//! It reads the document of `/status` and asks for nothing else; what it shows
//! of a file itself, it looks up as whoever runs it.

mod table;
mod why;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crossbeam_channel::Receiver;
use rustix::termios::tcgetwinsize;

use crate::admin::{self, ClientError, Report, Target, fetch};
use crate::exit::Exit;
use crate::supervisor::Signal;

use super::args::StatusArgs;
use super::{colours, complain, signals, state_base};

use table::{Look, Rates, overview};

/// Between the two samples that lines per second are made of.
const SAMPLE_PAUSE: Duration = Duration::from_millis(300);
/// Moves to the corner and clears what is there; then the rest of the screen.
const REDRAW: &str = "\x1b[H\x1b[2J";

/// Why nothing more is shown.
enum Trouble {
    /// There is no report.
    Client(ClientError),
    /// It cannot be printed.
    Output(io::Error),
}

/// Runs `logship status`.
pub(super) fn run(args: &StatusArgs) -> Exit {
    let Some(target) = target(args) else {
        complain(
            "nobody knows where the state directory is: neither XDG_STATE_HOME nor HOME is set",
            Some("give it with --state-dir, or an address with --addr"),
        );
        return Exit::CouldNotRun;
    };
    let shown = match (&args.path, args.watch) {
        (Some(path), _) => explain(&target, path),
        (None, _) if args.json => document(&target),
        (None, Some(interval)) => watch(&target, interval),
        (None, None) => once(&target),
    };
    match shown {
        Ok(()) => Exit::Settled,
        // Whoever hangs up has seen enough.
        Err(Trouble::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Exit::Settled,
        Err(Trouble::Output(error)) => {
            complain(&format!("cannot write to standard output: {error}"), None);
            Exit::CouldNotRun
        }
        Err(Trouble::Client(error)) => {
            complain(&error.to_string(), error.hint());
            Exit::CouldNotRun
        }
    }
}

fn target(args: &StatusArgs) -> Option<Target> {
    if let Some(address) = &args.addr {
        return Some(Target::Address(address.to_string()));
    }
    let directory = args.state_dir.clone().or_else(state_base)?;
    Some(Target::Socket(directory.join(admin::SOCKET)))
}

fn document(target: &Target) -> Result<(), Trouble> {
    let (_, document) = fetch(target)?;
    Ok(print(&document)?)
}

fn once(target: &Target) -> Result<(), Trouble> {
    let (first, _) = fetch(target)?;
    sleep(SAMPLE_PAUSE);
    let (second, _) = fetch(target)?;
    let rates = Rates::between(&first, &second);
    Ok(print(overview(&second, &rates, &look()).as_bytes())?)
}

fn explain(target: &Target, path: &Path) -> Result<(), Trouble> {
    let (report, _) = fetch(target)?;
    let text = why::explain(
        &report,
        &std::path::absolute(path)?,
        is_here(target, &report),
    );
    Ok(print(text.as_bytes())?)
}

/// True when logship sees the files that this process sees.
fn is_here(target: &Target, report: &Report) -> bool {
    let host = rustix::system::uname();
    matches!(target, Target::Socket(_)) || host.nodename().to_bytes() == report.host.as_bytes()
}

/// Shows it again and again, until a signal says to stop. Once it was there, a
/// logship that goes away is waited for.
fn watch(target: &Target, interval: Duration) -> Result<(), Trouble> {
    let signals = signals::listen(false)?;
    let mut last = fetch(target)?.0;
    let mut pause = SAMPLE_PAUSE.min(interval);
    while !is_stopped(&signals, pause) {
        pause = interval;
        let look = look();
        let text = match fetch(target) {
            Ok((report, _)) => {
                let rates = Rates::between(&last, &report);
                let text = overview(&report, &rates, &look.on_one_screen());
                last = report;
                text
            }
            Err(error) => format!("{error}\n"),
        };
        let before = if look.is_terminal() { REDRAW } else { "" };
        let after = if look.is_terminal() { "" } else { "\n" };
        print(format!("{before}{text}{after}").as_bytes())?;
    }
    Ok(())
}

/// Waits for the pause; true when a signal ended it.
fn is_stopped(signals: &Receiver<Signal>, pause: Duration) -> bool {
    signals.recv_timeout(pause) == Ok(Signal::Stop)
}

/// How standard output wants it, which may change with every look.
fn look() -> Look {
    let stdout = io::stdout();
    let size = stdout
        .is_terminal()
        .then(|| tcgetwinsize(&stdout).ok())
        .flatten()
        .filter(|size| size.ws_col > 0 && size.ws_row > 0)
        .map(|size| (size.ws_col.into(), size.ws_row.into()));
    Look::new(size, colours(&stdout))
}

/// Prints all at once, so that it does not flicker.
fn print(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Trouble {
        Trouble::Client(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Output(error)
    }
}
