//! The control socket: `control.sock` in the store's directory. One JSON line asks, one JSON line
//! answers, then the connection ends.
//!
//! Whoever may write into the store's directory may give commands; the socket has mode 0600.

mod client;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use lockgate_model::Seq;
use serde::{Deserialize, Serialize};

pub use client::{ControlError, call};
pub use server::Socket;

/// The socket's name in the store's directory.
pub const SOCKET: &str = "control.sock";

/// A request of an operator to a running host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Answered with `Done` by every host.
    Ping,
    /// How the host is.
    Status,
    /// Send dead letters back to their pipeline. `seqs`: ascending, of one stream.
    Retry {
        pipeline: String,
        stream: String,
        seqs: Vec<Seq>,
    },
    /// Remove dead letters for good. `seqs`: ascending, of one stream.
    Drop {
        pipeline: String,
        stream: String,
        seqs: Vec<Seq>,
    },
    /// Let a pipeline dead-letter everything read so far, without the brake and without evidence.
    Release { pipeline: String },
    /// Read the configuration file again. Answered once it is in force or refused.
    Reload,
}

/// The host's answer. Messages are whole sentences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case")]
pub enum Response {
    Done {
        message: String,
    },
    /// Nothing was changed.
    Refused {
        message: String,
    },
    /// The configuration file has problems, and nothing was changed. `report`: as `lockgate check`
    /// prints it.
    Problems {
        report: String,
    },
    /// The service's report.
    Status {
        status: serde_json::Value,
    },
}

/// Carries out requests.
///
/// [`handle`](Self::handle) is called once for each request, for several at the same time. It runs
/// to its end even if the client has gone, unless the socket is dropped.
pub trait Control: Send + Sync + 'static {
    fn handle(&self, request: Request) -> impl Future<Output = Response> + Send;
}

/// The path of the socket. An error if it is too long: the system allows about 100 bytes.
fn path_in(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join(SOCKET);
    match SocketAddr::from_pathname(&path) {
        Ok(_) => Ok(path),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::InvalidFilename,
            format!(
                "the path has {} bytes, more than the system allows for a socket (about 100): \
                 give the store a shorter `path`",
                path.as_os_str().len()
            ),
        )),
    }
}
