//! The exit codes, which are a promise.

/// What logship exits with. Documented under EXIT STATUS in logship(1), and for
/// `verify` in logship-verify(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything that was read is acknowledged, or was dropped by choice.
    Settled = 0,
    /// It could not run, or a PATH could not be read with `--once`.
    CouldNotRun = 1,
    /// Refused before anything was started.
    Usage = 2,
    /// Some lines are not acknowledged yet; they are sent next time.
    Unsettled = 3,
    /// Everything is settled, but records went to the dead letters.
    DeadLetters = 4,
    /// `verify`: lines did not arrive.
    Missing = 5,
    /// `verify`: all arrived, but some more than once or out of order.
    Irregular = 6,
}

/// The section EXIT STATUS of the manual.
pub const MANUAL: &str = "\
0  everything that was read is acknowledged or was dropped by choice; also when the reader of standard output hangs up
1  could not run: a missing or unreadable PATH with --once (the others are still shipped), a state directory that cannot be used or is held
2  usage or config: refused before anything was started
3  stopped, but some lines are not acknowledged yet; they are sent next time
4  everything is settled, but records went to the dead letters";

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}
