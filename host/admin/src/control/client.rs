//! The client of the control socket: one request, one response.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Request, Response, path_in};
use crate::limits;

/// Why a host could not be asked, or its answer is not known.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No host was asked.
    #[error("cannot connect to the control socket `{}`: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    /// The host may or may not have done what it was asked.
    #[error("the host at `{}` did not answer: {source}", path.display())]
    Lost { path: PathBuf, source: io::Error },
    /// The host may or may not have done what it was asked.
    #[error("the host at `{}` gave an answer that this version does not understand: {source}", path.display())]
    Answer {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// Asks the host that runs on the store in `directory`, and waits for its answer. `None`: no host
/// listens there.
pub fn call(directory: &Path, request: &Request) -> Result<Option<Response>, ControlError> {
    let connect = |source| ControlError::Connect {
        path: directory.join(super::SOCKET),
        source,
    };
    let path = path_in(directory).map_err(connect)?;
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(connect(error)),
            };
        }
    };
    let line = exchange(stream, request).map_err(|source| ControlError::Lost {
        path: path.clone(),
        source,
    })?;
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|source| ControlError::Answer { path, source })
}

fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(limits::CONTROL_IO))?;
    let answer = match request {
        Request::Ping => limits::CONTROL_IO,
        Request::Status => limits::CONTROL_STATUS,
        Request::Reload => limits::CONTROL_RELOAD,
        _ => limits::CONTROL_ANSWER,
    };
    stream.set_read_timeout(Some(answer))?;
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    match stream.write_all(&text) {
        // The host has answered before it read everything, and says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    let mut line = Vec::new();
    let mut limited = BufReader::new(stream).take(limits::ANSWER_BYTES as u64);
    limited.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it closed the connection",
        ));
    }
    Ok(line)
}
