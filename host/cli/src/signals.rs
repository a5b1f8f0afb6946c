//! The signals that a host handles.

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
