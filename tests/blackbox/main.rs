//! Drives the real `logship` from outside: files, pipes, signals, exit codes,
//! and a broker of our own at the wire. What is tested here is what users rely on.

#[allow(dead_code, reason = "a kit has more tools than one day's tests use")]
mod broker;
#[allow(dead_code, reason = "a kit has more tools than one day's tests use")]
mod world;

mod cli;
mod docs;
mod json;
mod lines;
mod real;
mod restart;
mod rotation;
mod shipping;
