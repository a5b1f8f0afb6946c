//! The signals that a host handles.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// SIGTERM and SIGINT, which both ask for a graceful stop.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Never waited for. Received, a write past the limit on file sizes is an error like any other;
    /// it would end the process otherwise, without a word.
    _file_size: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Signals, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::failed(format!("Signals cannot be received: {error}.")))
        };
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            _file_size: listen(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Waits for the next signal and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The hangups of `lockgate start` from its first moments on, before its arguments are read, and
/// the threads that receive them.
pub(crate) struct EarlyHangups {
    pub(crate) runtime: Runtime,
    pub(crate) hangups: Hangups,
}

impl EarlyHangups {
    /// `None` for all other commands, and if it is not possible: `start` says why.
    pub(crate) fn of_start() -> Option<EarlyHangups> {
        if !std::env::args_os().any(|argument| argument == "start") {
            return None;
        }
        EarlyHangups::new().ok()
    }

    pub(crate) fn new() -> Result<EarlyHangups, Failure> {
        let runtime = crate::commands::tokio_runtime()?;
        let hangups = runtime.block_on(async { Hangups::new() })?;
        Ok(EarlyHangups { runtime, hangups })
    }
}

/// SIGHUP, which asks for a reload. Without this it ends the process.
pub(crate) struct Hangups(Signal);

impl Hangups {
    pub(crate) fn new() -> Result<Hangups, Failure> {
        let listening = signal(SignalKind::hangup());
        listening
            .map(Hangups)
            .map_err(|error| Failure::failed(format!("Signals cannot be received: {error}.")))
    }

    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}
