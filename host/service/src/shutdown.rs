//! The stop of a host, in two steps.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Tells every task of a host that it is to end. Two steps: first nothing new is begun, later
/// nothing is waited for.
#[derive(Clone, Debug)]
pub struct Shutdown {
    level: watch::Receiver<u8>,
}

/// The end that [`Shutdown`]s listen to.
#[derive(Debug)]
pub struct ShutdownTrigger {
    level: watch::Sender<u8>,
}

impl ShutdownTrigger {
    pub fn new() -> (ShutdownTrigger, Shutdown) {
        let (sender, receiver) = watch::channel(0);
        (
            ShutdownTrigger { level: sender },
            Shutdown { level: receiver },
        )
    }

    /// Begin nothing new; what is in flight may finish.
    pub fn drain(&self) {
        self.raise(1);
    }

    /// Leave everything as it is.
    pub fn abandon(&self) {
        self.raise(2);
    }

    fn raise(&self, to: u8) {
        self.level.send_if_modified(|level| {
            let higher = to > *level;
            *level = to.max(*level);
            higher
        });
    }
}

impl Shutdown {
    pub fn is_draining(&self) -> bool {
        *self.level.borrow() >= 1
    }

    /// Returns once nothing new may be begun.
    pub async fn draining(&mut self) {
        // A trigger that is gone stops everything.
        let _ = self.level.wait_for(|level| *level >= 1).await;
    }

    /// Returns once nothing may be waited for.
    pub async fn abandoned(&mut self) {
        let _ = self.level.wait_for(|level| *level >= 2).await;
    }

    /// Waits; false when a drain began meanwhile: a held request is then left waiting.
    pub(crate) async fn sleep(&mut self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => true,
            () = self.draining() => false,
        }
    }
}
