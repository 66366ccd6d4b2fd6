//! etcd over its v3 HTTP gateway: values are followed, read and written.
//!
//! Nothing here knows what a value means: keys go in, bytes come out. The
//! gateway is described in etcd's documentation under "gRPC gateway"; versions
//! 3.2 to 3.7 are understood.

mod client;
mod content;
mod endpoint;
mod failure;
mod follow;
mod gateway;
mod options;
mod probe;
mod tls;
mod watch;
mod wire;

pub use client::Client;
pub use content::{TooLarge, Value, Values};
pub use endpoint::{Endpoint, EndpointError};
pub use failure::{EtcdError, Failure, Kind, Step};
pub use follow::{Event, follow};
pub use options::{Options, Tls};
pub use probe::{Check, probe};
