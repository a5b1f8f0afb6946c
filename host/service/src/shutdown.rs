//! The stop of a host, in two steps.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Tells every task of a host that it is to end. Two steps: first nothing new is begun, later
/// nothing is waited for.
#[derive(Clone, Debug)]
pub struct Shutdown {
    level: watch::Receiver<u8>,
    /// Of the host, if `level` is of one of its parts.
    host: Option<watch::Receiver<u8>>,
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
            Shutdown {
                level: receiver,
                host: None,
            },
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

    /// Everything that was to be shut down has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.level.is_closed()
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
    /// For a part of the host, which stops with the host or by its own trigger.
    pub(crate) fn part(&self) -> (ShutdownTrigger, Shutdown) {
        let (trigger, mut part) = ShutdownTrigger::new();
        part.host = Some(self.level.clone());
        (trigger, part)
    }

    /// The stop of the host as a whole.
    pub(crate) fn of_host(&self) -> Shutdown {
        Shutdown {
            level: self.host.as_ref().unwrap_or(&self.level).clone(),
            host: None,
        }
    }

    pub fn is_draining(&self) -> bool {
        let draining = |level: &watch::Receiver<u8>| *level.borrow() >= 1;
        draining(&self.level) || self.host.as_ref().is_some_and(draining)
    }

    /// Returns once nothing new may be begun.
    pub async fn draining(&mut self) {
        self.reached(1).await;
    }

    /// Returns once nothing may be waited for.
    pub async fn abandoned(&mut self) {
        self.reached(2).await;
    }

    /// A host whose trigger is gone stops. A part of it goes on until the host stops.
    async fn reached(&mut self, wanted: u8) {
        let Shutdown { level, host } = self;
        match host {
            None => {
                let _ = level.wait_for(|level| *level >= wanted).await;
            }
            Some(host) => {
                let by_itself = async {
                    if level.wait_for(|level| *level >= wanted).await.is_err() {
                        std::future::pending().await
                    }
                };
                tokio::select! {
                    () = by_itself => {}
                    _ = host.wait_for(|level| *level >= wanted) => {}
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// When the host stops, whoever starts and replaces its parts is gone first.
    #[tokio::test]
    async fn a_part_whose_trigger_is_gone_drains_with_the_host() {
        let (host, stop) = ShutdownTrigger::new();
        let (part, mut of_part) = stop.part();
        drop(part);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(
            pin!(of_part.draining()).poll(&mut context),
            Poll::Pending,
            "it goes on"
        );
        host.drain();
        of_part.draining().await;
        assert_eq!(
            pin!(of_part.abandoned()).poll(&mut context),
            Poll::Pending,
            "what is in flight may finish"
        );
        host.abandon();
        of_part.abandoned().await;
    }

    #[tokio::test]
    async fn a_part_stops_with_the_host_and_by_itself() {
        let (host, stop) = ShutdownTrigger::new();
        let (first, mut of_first) = stop.part();
        let (_second, mut of_second) = stop.part();
        first.drain();
        of_first.draining().await;
        assert!(!first.is_over());
        assert!(of_first.is_draining() && !of_second.is_draining() && !stop.is_draining());
        assert!(!of_first.of_host().is_draining());
        host.abandon();
        of_second.abandoned().await;
        assert!(of_second.is_draining() && of_first.of_host().is_draining());
        drop(of_first);
        assert!(first.is_over());
    }
}
