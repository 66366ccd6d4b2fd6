//! Drives the real `logship` from outside: files, pipes, signals, exit codes,
//! and a broker of our own at the wire. What is tested here is what users rely on.

#[allow(dead_code, reason = "a kit has more tools than one day's tests use")]
mod broker;
#[allow(dead_code, reason = "a kit has more tools than one day's tests use")]
mod daemon;
mod dice;
#[allow(dead_code, reason = "a kit has more tools than one day's tests use")]
mod etcd;
#[allow(dead_code, reason = "a kit has more tools than one day's tests use")]
mod kafka;
mod old_broker;
#[allow(dead_code, reason = "a kit has more tools than one day's tests use")]
mod secured;
#[allow(dead_code, reason = "a kit has more tools than one day's tests use")]
mod world;

mod accounts;
mod admin;
mod cli;
mod config;
mod crash;
mod docs;
mod etcd_command;
mod etcd_follow;
mod etcd_run;
mod failover;
mod files;
mod handles;
mod host;
mod json;
mod left;
mod legacy;
mod lines;
#[cfg(feature = "mock-kafka")]
mod mock;
mod peers;
mod pressure;
mod real;
mod reload;
mod restart;
mod rotation;
mod run;
mod security;
mod shipping;
mod sleep;
mod soak;
mod supervision;
mod transitions;
mod unseen;
mod verify;
mod versions;
