//! The stop of a host, in two steps.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How much of the work is still to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    No,
    /// Nothing new is begun; what is in flight may finish.
    Drain,
    /// Everything is left as it is.
    Abandon,
}

/// Tells every task of a host that it is to end. Two steps: first nothing new is begun, later
/// nothing is waited for.
#[derive(Clone, Debug)]
pub struct Shutdown {
    stop: watch::Receiver<Stop>,
    /// Of the host, if `stop` is of one of its parts.
    host: Option<watch::Receiver<Stop>>,
}

/// The end that [`Shutdown`]s listen to.
#[derive(Debug)]
pub struct ShutdownTrigger {
    stop: watch::Sender<Stop>,
}

impl ShutdownTrigger {
    pub fn new() -> (ShutdownTrigger, Shutdown) {
        let (sender, receiver) = watch::channel(Stop::No);
        (
            ShutdownTrigger { stop: sender },
            Shutdown {
                stop: receiver,
                host: None,
            },
        )
    }

    /// Begin nothing new; what is in flight may finish.
    pub fn drain(&self) {
        self.raise(Stop::Drain);
    }

    /// Leave everything as it is.
    pub fn abandon(&self) {
        self.raise(Stop::Abandon);
    }

    /// Everything that was to be shut down has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.stop.is_closed()
    }

    fn raise(&self, to: Stop) {
        self.stop.send_if_modified(|stop| {
            let is_higher = to > *stop;
            *stop = to.max(*stop);
            is_higher
        });
    }
}

impl Shutdown {
    /// For a part of the host, which stops with the host or by its own trigger.
    pub(crate) fn part(&self) -> (ShutdownTrigger, Shutdown) {
        let (trigger, mut part) = ShutdownTrigger::new();
        part.host = Some(self.stop.clone());
        (trigger, part)
    }

    /// The stop of the host as a whole.
    pub(crate) fn of_host(&self) -> Shutdown {
        Shutdown {
            stop: self.host.as_ref().unwrap_or(&self.stop).clone(),
            host: None,
        }
    }

    pub fn is_draining(&self) -> bool {
        let draining = |stop: &watch::Receiver<Stop>| *stop.borrow() >= Stop::Drain;
        draining(&self.stop) || self.host.as_ref().is_some_and(draining)
    }

    /// Returns once nothing new may be begun.
    pub async fn draining(&mut self) {
        self.reached(Stop::Drain).await;
    }

    /// Returns once nothing may be waited for.
    pub async fn abandoned(&mut self) {
        self.reached(Stop::Abandon).await;
    }

    /// A host whose trigger is gone stops. A part of it goes on until the host stops.
    async fn reached(&mut self, wanted: Stop) {
        let Shutdown { stop, host } = self;
        match host {
            None => {
                let _ = stop.wait_for(|stop| *stop >= wanted).await;
            }
            Some(host) => {
                let by_itself = async {
                    if stop.wait_for(|stop| *stop >= wanted).await.is_err() {
                        std::future::pending().await
                    }
                };
                tokio::select! {
                    () = by_itself => {}
                    _ = host.wait_for(|stop| *stop >= wanted) => {}
                }
            }
        }
    }

    /// Sleeps. Returns false if a drain begins first.
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
