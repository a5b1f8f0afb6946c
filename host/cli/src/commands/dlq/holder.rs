//! Whoever holds the store changes it: the running host if there is one, else this process.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use lockgate_admin::control::{self, ControlError, Request, Response};
use lockgate_model::Seq;
use lockgate_store::{DeadLetters, Ledger, OpenError, Options, Retention, Store};
use tokio::runtime::Runtime;

use crate::failure::Failure;
use crate::place::not_opened;
use crate::{print, setup};

/// The time between two looks at a store that another process has, and how often it is looked at.
const HELD_INTERVAL: Duration = Duration::from_millis(100);
const HELD_ATTEMPTS: u32 = 50;

/// An operation on dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Retry,
    Drop,
}

pub(crate) enum Holder {
    Host(PathBuf),
    Own { store: Store, runtime: Runtime },
}

impl Holder {
    /// The running host, or the store opened for as long as this lives. Waits for a host that has
    /// taken the store and does not answer yet, and for another command that has it.
    pub(crate) fn find(directory: &Path) -> Result<Holder, Failure> {
        let mut attempts = 0;
        loop {
            if call(directory, &Request::Ping)?.is_some() {
                return Ok(Holder::Host(directory.to_owned()));
            }
            match open(directory) {
                Err(OpenError::Held { holder, .. }) if attempts < HELD_ATTEMPTS => {
                    if attempts == 0 {
                        let seconds = (HELD_INTERVAL * HELD_ATTEMPTS).as_secs();
                        print::problem(&format!(
                            "the store is in use by {holder}: waiting up to {seconds} s for it"
                        ));
                    }
                    attempts += 1;
                    sleep(HELD_INTERVAL);
                }
                Err(error @ OpenError::Held { .. }) => {
                    return Err(Failure::failed(error).hint(
                        "if that process is a Lockgate that is starting, try again in a moment; \
                         its log says if it cannot make its control socket",
                    ));
                }
                Err(error) => return Err(not_opened(error)),
                Ok(store) => {
                    let runtime = crate::commands::tokio_runtime()?;
                    return Ok(Holder::Own { store, runtime });
                }
            }
        }
    }

    pub(crate) fn is_host(&self) -> bool {
        matches!(self, Holder::Host(_))
    }

    /// All of `seqs` or none of them. Ascending, at most `LETTERS_PER_OPERATION`. The inner error:
    /// why the holder refused it.
    pub(crate) fn change(
        &self,
        action: Action,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
    ) -> Result<Result<(), String>, Failure> {
        match self {
            Holder::Host(directory) => {
                let (pipeline, stream) = (pipeline.to_owned(), stream.to_owned());
                let seqs = seqs.to_vec();
                let request = match action {
                    Action::Retry => Request::Retry {
                        pipeline,
                        stream,
                        seqs,
                    },
                    Action::Drop => Request::Drop {
                        pipeline,
                        stream,
                        seqs,
                    },
                };
                match answer(directory, &request)? {
                    Some(done) => Ok(done.map(drop)),
                    None => Err(Failure::failed("The host has stopped.")
                        .hint("run the command again: it does not need a running host")),
                }
            }
            Holder::Own { store, runtime } => {
                let now = setup::now();
                let done = runtime.block_on(async {
                    match action {
                        Action::Retry => store.retry(pipeline, stream, seqs, now).await,
                        Action::Drop => store.drop_letters(pipeline, stream, seqs, now).await,
                    }
                });
                Ok(done.map_err(|refusal| format!("{refusal}.")))
            }
        }
    }

    pub(crate) fn close(self) -> Result<(), Failure> {
        match self {
            Holder::Host(_) => Ok(()),
            Holder::Own { store, runtime } => {
                runtime.block_on(store.close()).map_err(Failure::failed)
            }
        }
    }
}

fn open(directory: &Path) -> Result<Store, OpenError> {
    // Only what the configuration says may remove events, and it is not read here.
    let forever = Retention {
        age: None,
        bytes: None,
    };
    Store::open(Options {
        retention: forever,
        ..Options::new(directory)
    })
}

/// The host's message. `None`: no host is running.
pub(crate) fn call(directory: &Path, request: &Request) -> Result<Option<String>, Failure> {
    answer(directory, request)?
        .transpose()
        .map_err(Failure::failed)
}

/// The same, if a refusal is not the end of the command.
fn answer(directory: &Path, request: &Request) -> Result<Option<Result<String, String>>, Failure> {
    match control::call(directory, request) {
        Ok(None) => Ok(None),
        Ok(Some(Response::Done { message })) => Ok(Some(Ok(message))),
        Ok(Some(Response::Refused { message })) => Ok(Some(Err(message))),
        Ok(Some(Response::Status { .. } | Response::Problems { .. })) => {
            Err(Failure::failed("The host answered another request."))
        }
        Err(ControlError::Connect { source, .. })
            if source.kind() == io::ErrorKind::InvalidFilename =>
        {
            // A host cannot have made a socket there either.
            Ok(None)
        }
        Err(error) => {
            let hint = match &error {
                ControlError::Connect { source, .. }
                    if source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    "run this command as the user that the host runs as"
                }
                ControlError::Connect { .. } => {
                    "`lockgate status` shows whether the host is running"
                }
                ControlError::Lost { .. } | ControlError::Answer { .. } => {
                    "the host may have done it all the same: `lockgate dlq list` shows what is left"
                }
            };
            Err(Failure::failed(format!("{error}.")).hint(hint))
        }
    }
}
