//! The way to a file from the host's tasks: a thread that writes what it is given.

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use lockgate_model::{FileTarget, Millis};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use crate::appender::Appender;
use crate::archive::Archive;
use crate::output::StandardOutput;
use crate::{Compression, FileError, Rotation};

/// How often a file is looked at that nobody writes to: it may be time to close it.
const IDLE: Duration = Duration::from_secs(20);

/// Bodies that the thread has: the one that it writes, and the next. While a disk hangs, requests
/// give up waiting, and the thread keeps no more of them than this.
const WITH_THREAD: usize = 2;

/// What the operator wrote of a file.
#[derive(Clone, Debug)]
pub struct FileSettings {
    pub target: FileTarget,
    pub rotation: Rotation,
    /// Of closed files.
    pub compression: Option<Compression>,
    /// The longest that a request waits for the disk.
    pub timeout: Duration,
    pub clock: fn() -> Millis,
}

/// Writes to one file, or to standard output. Opens nothing before the first request.
#[derive(Debug)]
pub struct FileWriter {
    settings: FileSettings,
    /// `None`: there is no thread yet.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    /// [`WITH_THREAD`] permits; the other requests wait for one.
    permits: Arc<Semaphore>,
}

/// Where the body of a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    StandardOutput,
    /// `offset`: the bytes of the file before it.
    File {
        path: PathBuf,
        offset: u64,
    },
}

/// A body that is to be written.
struct Job {
    body: Bytes,
    answer: oneshot::Sender<Result<Appended, FileError>>,
    _permit: OwnedSemaphorePermit,
}

/// What the thread writes to.
enum Output {
    File(Appender),
    StandardOutput(Option<StandardOutput>),
}

impl fmt::Display for Appended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Appended::StandardOutput => f.write_str("in standard output"),
            Appended::File { path, offset } => {
                write!(f, "in `{}` at byte {offset}", path.display())
            }
        }
    }
}

impl FileWriter {
    pub fn new(settings: FileSettings) -> FileWriter {
        FileWriter {
            settings,
            jobs: Mutex::default(),
            permits: Arc::new(Semaphore::new(WITH_THREAD)),
        }
    }

    pub fn target(&self) -> &FileTarget {
        &self.settings.target
    }

    pub fn rotation(&self) -> Rotation {
        self.settings.rotation
    }

    /// Appends the body of a request, which ends with a line break then. It is on disk once this
    /// returns.
    ///
    /// If the disk is too slow, it may be written later nevertheless: a file may get a request
    /// twice, as with every retry.
    pub async fn append(&self, body: Bytes) -> Result<Appended, FileError> {
        let written = timeout(self.settings.timeout, self.write(body)).await;
        written.unwrap_or_else(|_| {
            Err(FileError::Slow {
                what: self.settings.target.to_string(),
                timeout: self.settings.timeout,
            })
        })
    }

    async fn write(&self, body: Bytes) -> Result<Appended, FileError> {
        let ended = || self.no_thread("it has ended");
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let (answer, answered) = oneshot::channel();
        self.begin(Job {
            body,
            answer,
            _permit: permit.map_err(|_| ended())?,
        })?;
        answered.await.map_err(|_| ended())?
    }

    /// Gives the job to the thread, which it starts if there is none.
    fn begin(&self, job: Job) -> Result<(), FileError> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match &*jobs {
            Some(sender) => match sender.send(job) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(job)) => job,
            },
            None => job,
        };
        let (sender, receiver) = mpsc::channel();
        let settings = self.settings.clone();
        let thread = thread::Builder::new().name("file".to_owned());
        let thread = thread.spawn(move || run(settings, &receiver));
        thread.map_err(|error| self.no_thread(&error.to_string()))?;
        // The receiver cannot be gone yet without having taken what it was sent.
        let _ = sender.send(job);
        *jobs = Some(sender);
        Ok(())
    }

    fn no_thread(&self, reason: &str) -> FileError {
        FileError::Thread {
            what: self.settings.target.to_string(),
            reason: reason.to_owned(),
        }
    }
}

/// Writes what comes until nobody can send more.
fn run(settings: FileSettings, jobs: &mpsc::Receiver<Job>) {
    let closed = start_archive(&settings);
    let tell_archive = || {
        if let Some(closed) = &closed {
            // If its thread is gone, the next start compresses what is left.
            let _ = closed.send(());
        }
    };
    let mut output = match settings.target {
        FileTarget::StandardOutput => Output::StandardOutput(None),
        FileTarget::Path(template) => {
            // An earlier process may have left closed files.
            tell_archive();
            Output::File(Appender::new(template, settings.rotation))
        }
    };
    loop {
        match jobs.recv_timeout(IDLE) {
            // Nobody waits for it any more: it will come again.
            Ok(job) if job.answer.is_closed() => {}
            Ok(job) => {
                let now = (settings.clock)();
                let result = output.append(&job.body, now);
                if let Ok(appended) = &result {
                    tracing::debug!(bytes = job.body.len(), "appended {appended}");
                }
                let _ = job.answer.send(result);
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Output::File(appender) = &mut output {
                    let now = (settings.clock)();
                    // An error shows at the next request.
                    let _ = appender.close_if_due(0, now);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Output::File(appender) = &mut output
            && appender.take_closed()
        {
            tell_archive();
        }
    }
}

impl Output {
    fn append(&mut self, body: &[u8], now: Millis) -> Result<Appended, FileError> {
        match self {
            Output::File(appender) => {
                let (path, offset) = appender.append(body, now)?;
                Ok(Appended::File { path, offset })
            }
            Output::StandardOutput(output) => {
                let output = match output {
                    Some(output) => output,
                    None => output.insert(StandardOutput::open()?),
                };
                output.write(body)?;
                Ok(Appended::StandardOutput)
            }
        }
    }
}

/// The thread that compresses closed files ends when the sender is dropped.
fn start_archive(settings: &FileSettings) -> Option<mpsc::Sender<()>> {
    let (FileTarget::Path(template), Some(compression)) = (&settings.target, settings.compression)
    else {
        return None;
    };
    let archive = Archive {
        template: template.clone(),
        compression,
        clock: settings.clock,
    };
    let (sender, receiver) = mpsc::channel();
    let thread = thread::Builder::new().name("archive".to_owned());
    if let Err(error) = thread.spawn(move || archive.run(&receiver)) {
        tracing::warn!("closed files are not compressed: no thread can be started: {error}");
        return None;
    }
    Some(sender)
}
