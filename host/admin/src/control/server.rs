//! The server of the control socket, for processes of the same user.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Control, Request, Response, path_in};
use crate::limits;

/// The socket's name until it has its mode. Shorter than [`SOCKET`](super::SOCKET), so it fits
/// wherever that fits.
const NEW: &str = ".control";

/// The control socket, listening. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: a file that has taken its place is not removed.
    identity: (u64, u64),
}

impl Socket {
    /// Makes the socket, with mode 0600. Replaces one that a host left behind; the caller holds the
    /// store's lock, so a socket that still answers belongs to another program and is refused.
    ///
    /// Must be called within a tokio runtime.
    pub fn bind(directory: &Path) -> io::Result<Socket> {
        let path = path_in(directory)?;
        refuse_unless_stale(&path)?;
        // Nobody can connect before the mode is set: the socket gets its name last.
        let new = directory.join(NEW);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        fs::rename(&new, &path)?;
        let identity = identity(&path)?;
        Ok(Socket {
            listener,
            path,
            identity,
        })
    }

    /// Answers requests until it is dropped. Binds the socket again if its file was removed or
    /// replaced.
    pub async fn serve(mut self, control: Arc<impl Control>) {
        let room = Arc::new(Semaphore::new(limits::CONTROL_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut checks = tokio::time::interval(limits::CONTROL_CHECK);
        let mut is_lost = false;
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = checks.tick() => {
                    is_lost = self.check(is_lost);
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => {
                    let control = control.clone();
                    connections.spawn(async move {
                        if let Err(error) = answer(stream, &*control).await {
                            tracing::debug!(%error, "a connection to the control socket failed");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept a connection");
                    sleep(limits::ACCEPT_WAIT).await;
                }
            }
        }
    }

    /// Binds the socket again if its file is gone. Returns true while no command can reach it;
    /// `was_lost` is the last result, so the warning is logged once.
    fn check(&mut self, was_lost: bool) -> bool {
        let path = self.path.display();
        match self.place() {
            Place::Kept => {
                if was_lost {
                    tracing::info!("`{path}` can be reached again");
                }
                return false;
            }
            Place::Unreachable(error) => {
                if !was_lost {
                    tracing::warn!(
                        "`{path}` cannot be reached any more, so no command reaches this host \
                         until it can: {error}"
                    );
                }
                return true;
            }
            Place::Lost => {}
        }
        let directory = self.path.parent().unwrap_or(Path::new(""));
        match Socket::bind(directory) {
            Ok(socket) => {
                tracing::warn!("`{path}` was removed or replaced; the host has made it again");
                *self = socket;
                false
            }
            Err(error) => {
                if !was_lost {
                    tracing::warn!(
                        "`{path}` was removed or replaced and cannot be made again, so no command \
                         reaches this host until it can: {error}"
                    );
                }
                true
            }
        }
    }

    pub(super) fn place(&self) -> Place {
        match identity(&self.path) {
            Ok(found) if found == self.identity => Place::Kept,
            Ok(_) => Place::Lost,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Place::Lost,
                _ => Place::Unreachable(error),
            },
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if matches!(self.place(), Place::Kept) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What became of the socket's file.
#[derive(Debug)]
pub(super) enum Place {
    Kept,
    /// It was removed or replaced.
    Lost,
    /// It cannot be looked at, such as for a lack of permissions.
    Unreachable(io::Error),
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn refuse_unless_stale(path: &Path) -> io::Result<()> {
    let exists = |what: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, what.to_owned()));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            exists("there is a file of this name that is not a socket: move it away")
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => exists("another process listens on it: stop that process"),
            Err(_) => Ok(()),
        },
    }
}

async fn answer(mut stream: UnixStream, control: &impl Control) -> io::Result<()> {
    let line = timeout(limits::CONTROL_IO, read_line(&mut stream)).await??;
    let response = match line {
        Line::Empty => return Ok(()),
        Line::TooLong => refused(format!(
            "The request is larger than {} bytes. Ask for fewer entries at a time.",
            limits::MESSAGE_BYTES
        )),
        Line::Whole(line) => match serde_json::from_slice::<Request>(&line) {
            Ok(request) => control.handle(request).await,
            Err(error) => refused(format!(
                "This host, version {}, does not understand the request ({error}). \
                 Use the `lockgate` command of the same version.",
                env!("CARGO_PKG_VERSION")
            )),
        },
    };
    let mut text = serde_json::to_vec(&response)?;
    text.push(b'\n');
    timeout(limits::CONTROL_IO, async {
        stream.write_all(&text).await?;
        stream.shutdown().await
    })
    .await?
}

fn refused(message: String) -> Response {
    Response::Refused { message }
}

enum Line {
    /// The client closed without asking anything.
    Empty,
    Whole(Vec<u8>),
    TooLong,
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Line> {
    let mut line = Vec::new();
    let mut limited = stream.take(limits::MESSAGE_BYTES as u64 + 1);
    loop {
        let start = line.len();
        let ended = limited.read_buf(&mut line).await? == 0;
        if let Some(end) = line[start..].iter().position(|&byte| byte == b'\n') {
            line.truncate(start + end);
            return Ok(Line::Whole(line));
        }
        if line.len() > limits::MESSAGE_BYTES {
            return Ok(Line::TooLong);
        }
        if ended {
            return Ok(if line.is_empty() {
                Line::Empty
            } else {
                Line::Whole(line)
            });
        }
    }
}
