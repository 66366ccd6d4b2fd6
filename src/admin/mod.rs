//! Tells what there is to tell: metrics, status and health over HTTP.
//!
//! The only place that serves HTTP. It is given a [`Report`] of plain data and
//! knows nothing of tailing or Kafka; and it is read-only: nobody can change
//! anything through it.

mod client;
mod connection;
mod http;
mod metrics;
mod report;
mod server;
mod stream;

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::text::shown;

pub use client::{ClientError, Target, fetch};
pub use report::{
    ConfigReport, EtcdReport, FILE_STATES, FileReport, Health, Histogram, KafkaReport, QueueReport,
    Report, SourceReport, TaskReport, TopicReport,
};
pub use server::Server;

use server::{Listener, SocketFile};

/// The name of the Unix socket in the state directory.
pub const SOCKET: &str = "admin.sock";
/// The socket is for its owner.
const SOCKET_MODE: u32 = 0o600;

/// Where to serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// A Unix socket, see [`SOCKET`].
    pub socket: Option<PathBuf>,
    /// A TCP address.
    pub listen: Option<SocketAddr>,
}

/// Why it cannot be served there.
#[derive(Debug)]
pub enum AdminError {
    /// The socket cannot be made.
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers on the socket.
    SocketInUse {
        /// Its path.
        path: PathBuf,
    },
    /// The address cannot be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Opens what is to be served. The socket file of a process that is dead is
/// replaced; the new one has mode 0600 and is removed with the server.
///
/// # Errors
/// What cannot be opened, by its path or address.
pub fn bind(options: &Options) -> Result<Server, AdminError> {
    let mut listeners = Vec::new();
    if let Some(path) = &options.socket {
        listeners.push(bind_socket(path)?);
    }
    if let Some(address) = options.listen {
        let failed = |source| AdminError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        listeners.push(Listener::Tcp(listener));
    }
    Ok(Server::new(listeners))
}

fn bind_socket(path: &Path) -> Result<Listener, AdminError> {
    let failed = |source| AdminError::Socket {
        path: path.to_owned(),
        source,
    };
    if is_stale(path)? {
        fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile::at(path).map_err(failed)?; // which removes it
    // Until here the directory's mode protects it: 0700.
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(Listener::Unix(listener, file))
}

/// True when there is a socket on which nobody listens. Anything that is not a
/// socket is left alone.
fn is_stale(path: &Path) -> Result<bool, AdminError> {
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        return Ok(false);
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
        Err(source) => Err(AdminError::Socket {
            path: path.to_owned(),
            source,
        }),
        Ok(_) => Err(AdminError::SocketInUse {
            path: path.to_owned(),
        }),
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminError::Socket { path, source } => {
                write!(f, "cannot serve on socket '{}': {source}", shown(path))
            }
            AdminError::SocketInUse { path } => {
                write!(f, "another process serves on socket '{}'", shown(path))
            }
            AdminError::Listen { address, source } => {
                write!(f, "cannot listen on {address}: {source}")
            }
        }
    }
}

impl std::error::Error for AdminError {}
