//! logship tails log files and ships every line to Kafka.
//!
//! The library is the binary's; ARCHITECTURE.md describes the house. In reading
//! order: the control plane, the data plane, and what both stand on.

pub mod cli;
pub mod config;
pub mod supervisor;

pub mod tail;

pub mod queue;
pub mod record;

pub mod send;

pub mod kafka;

pub mod ledger;

pub mod checkpoint;

pub mod admin;

pub mod verify;

pub mod disk;
pub mod exit;
pub mod small;
pub mod text;
pub mod thread;
