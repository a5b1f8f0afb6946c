//! Opens the admin listener, and tries again as long as another program has its port.

use std::net::SocketAddr;

use lockgate_admin::http::{HealthSource, Listener};
use lockgate_model::Millis;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::clock::now;
use crate::limits::LISTENER_INTERVAL;
use crate::status::{Board, ListenerStatus};

/// Returns once the first attempt has been made. Without its listener the host runs all the same:
/// whoever asks at that address may hear of another host, so the board says it.
pub(crate) async fn open(
    address: SocketAddr,
    health: impl HealthSource,
    board: Board,
    tasks: &mut JoinSet<()>,
) {
    match Listener::bind(address).await {
        Ok(listener) => {
            tracing::info!(address = %listener.address(), "admin listener started");
            tasks.spawn(listener.serve(health));
        }
        Err(error) => {
            let since = now();
            let message = missing(address, &error);
            tracing::warn!("{message}; it is tried again every few seconds");
            board.admin_listener(Some(awaited(message, since)));
            tasks.spawn(async move {
                let listener = retry(address, since, &board).await;
                board.admin_listener(None);
                let for_s = (now() - since) / 1000;
                tracing::info!(address = %listener.address(), for_s, "admin listener started");
                listener.serve(health).await;
            });
        }
    }
}

async fn retry(address: SocketAddr, since: Millis, board: &Board) -> Listener {
    loop {
        sleep(LISTENER_INTERVAL).await;
        match Listener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                let message = missing(address, &error);
                board.admin_listener(Some(awaited(message, since)));
            }
        }
    }
}

fn missing(address: SocketAddr, error: &std::io::Error) -> String {
    format!(
        "the admin listener cannot use {address}, so the host runs without it: {error}; choose \
         another port with `listen` in `[admin]`"
    )
}

fn awaited(message: String, since: Millis) -> ListenerStatus {
    ListenerStatus {
        message,
        since,
        next_attempt: Some(now() + LISTENER_INTERVAL.as_millis() as Millis),
    }
}

#[cfg(test)]
mod tests {
    use lockgate_admin::http::Readiness;

    use super::*;

    struct Nothing;

    impl HealthSource for Nothing {
        fn readiness(&self) -> Readiness {
            Readiness::default()
        }

        async fn metrics(&self) -> String {
            String::new()
        }
    }

    /// It stayed closed for good, and nothing but the log said so.
    #[tokio::test]
    async fn a_port_that_is_taken_is_shown_and_tried_again() {
        let other = Listener::bind(([127, 0, 0, 1], 0).into()).await;
        let other = other.expect("a port");
        let address = other.address();
        let board = Board::new(0);
        let mut tasks = JoinSet::new();
        open(address, Nothing, board.clone(), &mut tasks).await;
        let shown = board.snapshot(now()).admin_listener.expect("it is shown");
        assert!(shown.message.contains(&address.to_string()), "{shown:?}");
        tokio::time::pause();
        tokio::time::advance(LISTENER_INTERVAL).await;
        assert!(board.snapshot(now()).admin_listener.is_some());
        drop(other);
        while board.snapshot(now()).admin_listener.is_some() {
            tokio::time::advance(LISTENER_INTERVAL).await;
            tokio::task::yield_now().await;
        }
        let bound = std::net::TcpListener::bind(address);
        assert!(bound.is_err(), "it listens there again");
    }
}
