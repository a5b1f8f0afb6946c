//! The connections in use, and whether something still comes on each of them.
//!
//! Long calls stay on their connection after a newer one has been made.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tonic::Status;

use super::Clients;
use super::wire::Wire;
use crate::proto::authservice::PingRequest;

/// A connection that is in use, or the newest one.
pub(super) struct Live {
    pub(super) id: u64,
    pub(super) clients: Clients,
    pub(super) wire: Arc<Wire>,
}

impl Live {
    /// A short call that shows whether Teleport answers on this connection.
    pub(super) async fn ping(&self) -> Result<(), Status> {
        let mut auth = self.clients.auth.clone();
        auth.ping(PingRequest {}).await.map(drop)
    }

    /// Whether it is not answered within `patience`, and nothing else comes either.
    async fn is_silent(&self, patience: Duration) -> bool {
        let received = self.wire.received();
        let answer = tokio::time::timeout(patience, self.ping()).await;
        // A connection that fails is noticed by all who use it.
        answer.is_err() && self.wire.received() == received
    }
}

/// The connections that somebody uses. None is kept open by being here.
#[derive(Default)]
pub(super) struct LiveConnections(Mutex<Vec<Weak<Live>>>);

impl LiveConnections {
    pub(super) fn add(&self, id: u64, clients: Clients, wire: Arc<Wire>) -> Arc<Live> {
        let live = Arc::new(Live { id, clients, wire });
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other| other.strong_count() > 0);
        known.push(Arc::downgrade(&live));
        live
    }

    /// Begins to check all but the newest connection.
    pub(super) fn check_older(&self, newest: u64, patience: Duration) -> Checks {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut checks = JoinSet::new();
        let in_use = known.iter().filter_map(Weak::upgrade);
        for live in in_use.filter(|live| live.id != newest) {
            checks.spawn(async move { live.is_silent(patience).await.then_some(live) });
        }
        Checks(checks)
    }
}

/// Checks that run. Dropping them ends them.
pub(super) struct Checks(JoinSet<Option<Arc<Live>>>);

impl Checks {
    /// The connections on which nothing has come.
    pub(super) async fn silent(self) -> impl Iterator<Item = Arc<Live>> {
        self.0.join_all().await.into_iter().flatten()
    }
}
