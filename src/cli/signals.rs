//! Signals as messages for the supervisor.

use std::fs::{self, File};
use std::io;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::supervisor::Signal;
use crate::thread::spawn;

/// Starts to listen. SIGINT and SIGTERM stop. SIGHUP asks for a reload, but when
/// the terminal is gone it means that, and stops too. Under nohup it stays ignored,
/// unless there is something `to_reload`: then it always asks for that.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn listen(to_reload: bool) -> io::Result<Receiver<Signal>> {
    let mut wanted = vec![SIGINT, SIGTERM];
    let ignored = is_ignored(SIGHUP);
    if to_reload || !ignored {
        wanted.push(SIGHUP);
    }
    let had_terminal = !ignored && has_terminal();
    let mut signals = Signals::new(wanted)?;
    let (sender, receiver) = bounded(16);
    let task = spawn("signals", move || {
        for signal in signals.forever() {
            let hung_up = signal == SIGHUP && had_terminal && !has_terminal();
            let meaning = if signal != SIGHUP || hung_up {
                Signal::Stop
            } else {
                Signal::Reload
            };
            if sender
                .try_send(meaning)
                .is_err_and(|error| error.is_disconnected())
            {
                return;
            }
        }
    });
    task.detach(); // it waits for signals as long as the process lives
    Ok(receiver)
}

/// True when the process was started with a signal ignored, as nohup does.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}
