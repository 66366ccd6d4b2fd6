//! Threads of which there is one each, started again when they fail.

use std::io;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::thread::{StopHandle, Task, stop_pair, try_spawn};

use super::backoff::Backoff;
use super::{Event, Obituary, Who, join_all};
use crate::thread::Stop;

/// What a service does between its start and its stop.
pub type Body = Box<dyn FnOnce(&Stop) + Send>;

/// A thread that runs as long as logship does.
pub struct Service {
    name: &'static str,
    /// Makes the body for the first start and for each one after a failure.
    make: Box<dyn FnMut() -> io::Result<Body>>,
    events: Sender<Event>,
    running: Option<(StopHandle, Task)>,
    backoff: Backoff,
}

impl Service {
    /// Starts a service; when that fails, it is tried again like after a panic.
    pub fn start(
        name: &'static str,
        events: &Sender<Event>,
        make: impl FnMut() -> io::Result<Body> + 'static,
    ) -> Service {
        let mut service = Service {
            name,
            make: Box::new(make),
            events: events.clone(),
            running: None,
            backoff: Backoff::new(),
        };
        service.launch();
        service
    }

    fn launch(&mut self) -> bool {
        let (handle, stop) = stop_pair();
        let body = match (self.make)() {
            Ok(body) => body,
            Err(error) => {
                let pause = self.backoff.failed();
                log::error!(
                    "cannot start thread={} error={error} again_in={pause:?}",
                    self.name
                );
                return false;
            }
        };
        // When there is no thread for it, the obituary tells of that too.
        let obituary = Obituary::new(Who::Service(self.name), self.events.clone());
        let task = try_spawn(self.name, move || {
            body(&stop);
            obituary.withdraw();
        });
        self.running = task.ok().map(|task| (handle, task));
        self.running.is_some()
    }

    /// Its thread's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// It panicked. Returns the pause before the next start.
    pub fn died(&mut self) -> Duration {
        self.running = None;
        self.backoff.failed()
    }

    /// Starts it again when the time has come.
    pub fn tend(&mut self) {
        if self.backoff.take_due() && self.launch() {
            log::info!("started again thread={}", self.name);
        }
    }

    /// True when it keeps failing.
    pub fn is_failing(&self) -> bool {
        self.backoff.is_failing()
    }

    /// Stops it and waits for its end, however long it takes. Its end is work, too:
    /// one that failed is started once more for that.
    pub fn finish(mut self) {
        let end = |(handle, task): (StopHandle, Task)| {
            drop(handle);
            task.join().is_ok()
        };
        if !self.running.take().is_some_and(end) && self.launch() {
            self.running.take().map(end);
        }
    }

    /// Stops it and waits a while for its end.
    pub fn stop(self, patience: Duration) {
        if let Some((handle, task)) = self.running {
            drop(handle);
            join_all(vec![task], std::time::Instant::now() + patience);
        }
    }
}
