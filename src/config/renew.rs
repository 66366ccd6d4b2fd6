//! Reads the files of TLS and the login of `logship tail` again when that is asked for.
//!
//! What was typed is not looked at a second time: paths, topic and state stay as they
//! are. A config file has [`Follower`](super::Follower) for that, and more.

use std::fmt;

use crossbeam_channel::{Receiver, Sender, select};

use crate::thread::{Stop, fault_point};

use super::follow::{Standing, Update};
use super::{Mistake, Plan, Sink};

/// Where lines go as of now, with what had better be looked at, or all that is wrong.
pub type SinkRead = Result<(Sink, Vec<Mistake>), Vec<Mistake>>;

/// Renews what a plan holds of files.
pub struct Renewal {
    /// What is in force.
    plan: Plan,
    read: Box<dyn Fn() -> SinkRead + Send>,
}

impl Renewal {
    /// Puts what `read` says into the plan, whenever that is asked for.
    pub fn new(plan: Plan, read: impl Fn() -> SinkRead + Send + 'static) -> Renewal {
        let read = Box::new(read);
        Renewal { plan, read }
    }

    /// The body of the config thread.
    pub fn run(&mut self, updates: &Sender<Update>, reloads: &Receiver<()>, stop: &Stop) {
        loop {
            fault_point("config");
            select! {
                recv(stop.signal()) -> _ => return,
                recv(reloads) -> asked => match asked {
                    Ok(()) => self.renew(updates),
                    Err(_) => return, // logship is stopping
                },
            }
        }
    }

    fn renew(&mut self, updates: &Sender<Update>) {
        log::info!("asked to read the files of TLS and the login again");
        let sink = match (self.read)() {
            Ok((sink, warnings)) => {
                warnings.iter().for_each(|warning| log::warn!("{warning}"));
                sink
            }
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| log::error!("{mistake}"));
                return log::error!(
                    "what the files of TLS and the login say is refused, what they said before stays in force mistakes={}",
                    mistakes.len()
                );
            }
        };
        if sink == self.plan.pool.sink {
            return log::info!("the files of TLS and the login say nothing new");
        }
        self.plan.pool.sink = sink;
        log::info!("what the files of TLS and the login say is in force");
        let _ = updates.send(Update {
            plan: Some(Box::new(self.plan.clone())),
            standing: Standing::default(), // there is no config file
        });
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").finish_non_exhaustive()
    }
}
