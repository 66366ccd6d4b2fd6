//! Threads and how they are told to stop.
//!
//! A stop signal is a channel nobody sends on: dropping the [`StopHandle`]
//! disconnects it, which wakes every sleeper at once. There is no flag to poll
//! and no message to miss. What a thread does is not decided here.

use std::convert::Infallible;
use std::io;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

/// Whoever drops it asks all holders of the [`Stop`] to end.
#[derive(Debug)]
pub struct StopHandle {
    _keeps_open: Sender<Infallible>,
}

/// The end of a thread, as seen from inside it.
#[derive(Debug, Clone)]
pub struct Stop(Receiver<Infallible>);

/// A stop signal and its handle.
pub fn stop_pair() -> (StopHandle, Stop) {
    let (sender, receiver) = bounded(0);
    let handle = StopHandle {
        _keeps_open: sender,
    };
    (handle, Stop(receiver))
}

impl Stop {
    /// True from the moment the handle is gone.
    pub fn requested(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Sleeps for `pause`, or until a stop is requested if that comes first.
    pub fn sleep(&self, pause: Duration) {
        let _ = self.0.recv_timeout(pause);
    }

    /// For `select!`: becomes ready when a stop is requested.
    pub fn signal(&self) -> &Receiver<Infallible> {
        &self.0
    }
}

/// A running thread; dropping it waits for its end.
#[derive(Debug)]
pub struct Task {
    name: String,
    handle: Option<thread::JoinHandle<()>>,
}

/// Starts a named thread. Together with its twin in `kafka/connection`, which
/// imports nothing from here, the only place where threads are made.
///
/// # Panics
/// When the operating system has no thread left. For the few threads without
/// which nothing works; for others there is [`try_spawn`].
pub fn spawn(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Task {
    try_spawn(name, body).expect("the operating system has threads left")
}

/// Starts a named thread, if the operating system has one left.
///
/// # Errors
/// What the operating system says.
pub fn try_spawn(
    name: impl Into<String>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<Task> {
    let name = name.into();
    let handle = thread::Builder::new().name(name.clone()).spawn(body)?;
    Ok(Task {
        name,
        handle: Some(handle),
    })
}

/// A place where a test makes a thread panic: one with the file of this name in
/// the directory that `LOGSHIP_TEST_FAULTS` names, which is removed. Not in
/// release builds.
#[inline]
pub fn fault_point(name: &str) {
    #[cfg(debug_assertions)]
    {
        use std::path::PathBuf;
        use std::sync::OnceLock;
        static FAULTS: OnceLock<Option<PathBuf>> = OnceLock::new();
        let faults = FAULTS.get_or_init(|| std::env::var_os("LOGSHIP_TEST_FAULTS").map(Into::into));
        if let Some(faults) = faults
            && std::fs::remove_file(faults.join(name)).is_ok()
        {
            panic!("a test wants this thread to fail: {name}");
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}

impl Task {
    /// True once the body has returned or panicked.
    pub fn is_finished(&self) -> bool {
        self.handle
            .as_ref()
            .is_none_or(|handle| handle.is_finished())
    }

    /// Waits for the end; the thread's name if it panicked.
    pub fn join(mut self) -> Result<(), String> {
        match self.handle.take().map(thread::JoinHandle::join) {
            Some(Err(_)) => Err(std::mem::take(&mut self.name)),
            _ => Ok(()),
        }
    }

    /// Lets the thread run on unwatched: for one that sits in a system call
    /// that cannot be interrupted while the process is about to end.
    pub fn detach(mut self) {
        self.handle.take();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}
