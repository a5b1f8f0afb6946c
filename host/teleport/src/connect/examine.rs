//! A source examined: each way to Teleport, and each kind of call, tried once.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use http::header;
use lockgate_model::{Day, Millis, Validity};
use tokio::time::timeout;

use super::channel::{Version, channel};
use super::dial::{Dialer, Target};
use super::failure::chain;
use super::tls::Secured;
use super::{
    Address, AddressError, AuditLog, AuthServiceClient, Clients, Failure, LockService, Route,
    outbound,
};
use crate::identity::Identity;
use crate::locks::{ask_for_permission, may_read};
use crate::proto::auditlog::{
    GetEventExportChunksRequest, GetUnstructuredEventsRequest,
    StreamUnstructuredSessionEventsRequest,
};
use crate::proto::authservice::{PingRequest, PingResponse};
use crate::time::{time, to_proto};
use crate::{ReaderKind, SourceSettings};

/// Time limit of each way, and of each call.
const LIMIT: Duration = Duration::from_secs(15);
/// The same through an outbound proxy, whose own failures come later.
const OUTBOUND_LIMIT: Duration = Duration::from_secs(outbound::LIMIT.as_secs() + 5);
/// The audit log of so long before now is asked for one event.
const ASKED: Millis = 60_000;
/// A recording that no cluster has.
const NO_SESSION: &str = "00000000-0000-4000-8000-000000000000";

/// What was found.
#[derive(Debug)]
pub struct Examination {
    pub credentials: Result<FoundCredentials, String>,
    /// By the way that reading takes. `None`: not tried without credentials.
    pub connected: Option<Result<FoundTeleport, Failure>>,
    /// By each other way.
    pub other_routes: Vec<(Route, Result<(), Failure>)>,
    /// `None`: not tried without a connection, as with the rest.
    pub audit_log: Option<Result<ReaderKind, Failure>>,
    /// Whether recordings may be read.
    pub recordings: Option<Result<(), Failure>>,
    /// Whether users may be locked, and locks be read. `None`: nobody is to be locked, too.
    pub locks: Option<Result<FoundLocks, Failure>>,
    /// By how many milliseconds Teleport's clock is ahead, as HTTP shows it: to a second. The error
    /// says why it is not known.
    pub clock_ahead: Option<Result<Millis, String>>,
}

/// Credentials that can be loaded.
#[derive(Clone, Debug)]
pub struct FoundCredentials {
    pub user: Option<String>,
    pub validity: Validity,
}

/// A cluster that answers.
#[derive(Clone, Debug)]
pub struct FoundTeleport {
    pub route: Route,
    /// Why this route was taken, as a clause.
    pub why: Cow<'static, str>,
    pub cluster: String,
    pub version: String,
}

/// Users may be locked.
#[derive(Clone, Copy, Debug)]
pub struct FoundLocks {
    /// Locks may be read, so that none is replaced that somebody has changed.
    pub may_read: bool,
}

/// Examines a source. Changes nothing, at Teleport or here. `recordings`: also ask for a recording,
/// for which Teleport writes an event.
///
/// # Errors
/// The address cannot be used.
pub async fn examine(
    settings: &SourceSettings,
    recordings: bool,
) -> Result<Examination, AddressError> {
    let address: Address = settings.address.parse()?;
    let mut found = Examination {
        credentials: Err(String::new()),
        connected: None,
        other_routes: Vec::new(),
        audit_log: None,
        recordings: None,
        locks: None,
        clock_ahead: None,
    };
    let identity = match settings.credentials.load() {
        Ok(identity) => identity,
        Err(error) => {
            found.credentials = Err(error.to_string());
            return Ok(found);
        }
    };
    let validity = identity.validity;
    found.credentials = Ok(FoundCredentials {
        user: identity.user.clone(),
        validity,
    });
    if validity.not_after <= settings.clock.now() {
        let path = settings.credentials.certificate_path();
        found.connected = Some(Err(Failure::Expired {
            path: path.display().to_string(),
            until: time(validity.not_after),
        }));
        return Ok(found);
    }
    let examiner = Examiner {
        dialer: Dialer::new(address.clone(), settings),
        address,
        identity,
        settings,
    };
    let taken = examiner.taken().await;
    let route = match &taken {
        Ok((teleport, ..)) => Some(teleport.route),
        Err(_) => None,
    };
    let [auth, proxy, upgrade, tunnel] = Route::ALL.map(|other| examiner.by_other(other, route));
    let (auth, proxy, upgrade, tunnel) = tokio::join!(auth, proxy, upgrade, tunnel);
    let others = [auth, proxy, upgrade, tunnel];
    found.other_routes = others.into_iter().flatten().collect();
    match taken {
        Ok((teleport, target, Clients { audit, locks, .. })) => {
            found.clock_ahead = Some(examiner.clock_ahead(&target).await);
            found.connected = Some(Ok(teleport));
            found.audit_log = Some(examiner.audit_log(audit.clone()).await);
            if settings.locks.is_some() {
                found.locks = Some(examiner.locks(locks).await);
            }
            if recordings {
                found.recordings = Some(examiner.recording(audit).await);
            }
        }
        Err(failure) => {
            let failure = match settings.clock.now() < validity.not_before {
                true => {
                    let path = settings.credentials.certificate_path();
                    let from = time(validity.not_before);
                    failure.before_validity(path.display().to_string(), from)
                }
                false => failure,
            };
            found.connected = Some(Err(failure));
        }
    }
    Ok(found)
}

struct Examiner<'a> {
    dialer: Dialer,
    address: Address,
    identity: Identity,
    settings: &'a SourceSettings,
}

impl Examiner<'_> {
    /// As a source connects.
    async fn taken(&self) -> Result<(FoundTeleport, Target, Clients), Failure> {
        let opening = self.dialer.open(&self.identity, None);
        let (stream, target) = self.opened(opening).await?;
        let (answer, clients) = self.greet(stream).await?;
        let teleport = FoundTeleport {
            route: target.route,
            why: target.why.clone(),
            cluster: answer.cluster_name,
            version: answer.server_version,
        };
        Ok((teleport, target, clients))
    }

    /// `None`: it is the route that was taken.
    async fn by_other(
        &self,
        route: Route,
        taken: Option<Route>,
    ) -> Option<(Route, Result<(), Failure>)> {
        match Some(route) == taken {
            true => None,
            false => Some((route, self.by(route).await)),
        }
    }

    async fn by(&self, route: Route) -> Result<(), Failure> {
        let opening = self.dialer.by_route(&self.identity, route);
        let stream = self.opened(opening).await?;
        self.greet(stream).await.map(drop)
    }

    /// The first call shows whether a server accepts the client certificate.
    async fn greet(&self, stream: Secured) -> Result<(PingResponse, Clients), Failure> {
        let limits = &self.settings.limits;
        let channel = async {
            let channel = channel(stream, limits).await;
            channel.map_err(|error| Failure::Lost {
                reason: chain(&error),
            })
        };
        let channel = self.in_time(channel).await?;
        let mut auth = AuthServiceClient::new(channel.clone());
        let answer = self.call(auth.ping(PingRequest {})).await?.into_inner();
        let version = Version::of(&answer.server_version);
        let clients = Clients::new(channel, version, limits);
        Ok((answer, clients))
    }

    async fn locks(&self, mut locks: LockService) -> Result<FoundLocks, Failure> {
        let address = self.address.to_string();
        self.in_time(ask_for_permission(&mut locks, &address))
            .await?;
        let may_read = self.in_time(may_read(&mut locks, &address)).await?;
        Ok(FoundLocks { may_read })
    }

    async fn audit_log(&self, mut audit: AuditLog) -> Result<ReaderKind, Failure> {
        let now = self.settings.clock.now();
        let request = GetUnstructuredEventsRequest {
            namespace: "default".to_owned(),
            start_date: Some(to_proto(now - ASKED)),
            end_date: Some(to_proto(now)),
            limit: 1,
            ..GetUnstructuredEventsRequest::default()
        };
        self.call(audit.get_unstructured_events(request)).await?;
        let date = Some(to_proto(now + 2 * Day::MILLIS));
        let chunks = async move {
            let request = GetEventExportChunksRequest { date };
            let mut chunks = audit.get_event_export_chunks(request).await?.into_inner();
            while chunks.message().await?.is_some() {}
            Ok(())
        };
        match self.call(chunks).await {
            Ok(()) => Ok(ReaderKind::Export),
            Err(Failure::Unimplemented { .. }) => Ok(ReaderKind::Poll),
            Err(failure) => Err(failure),
        }
    }

    async fn recording(&self, mut audit: AuditLog) -> Result<(), Failure> {
        let events = async move {
            let request = StreamUnstructuredSessionEventsRequest {
                session_id: NO_SESSION.to_owned(),
                start_index: 0,
            };
            let stream = audit.stream_unstructured_session_events(request).await?;
            stream.into_inner().message().await
        };
        match self.call(events).await {
            Ok(_) | Err(Failure::NotFound { .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Over HTTP, whose answers are dated: of the proxy, or of the Auth Service itself.
    async fn clock_ahead(&self, target: &Target) -> Result<Millis, String> {
        let before = self.settings.clock.now();
        let asking = async {
            let date = match target.route {
                Route::Auth | Route::SshTunnel => {
                    let tunnel = target.by_tunnel();
                    self.dialer.auth_date(&self.identity, tunnel).await
                }
                Route::Proxy | Route::ProxyUpgrade => self.dialer.proxy_date().await,
            };
            date.map_err(|failure| failure.to_string())
        };
        let date = timeout(LIMIT, asking).await;
        let date = date.unwrap_or_else(|_| Err(self.silent(LIMIT).to_string()))?;
        let date = date.ok_or_else(|| format!("its answer has no `{}`", header::DATE))?;
        let date = httpdate::parse_http_date(&date).map_err(|error| error.to_string())?;
        let date = date.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = (before + self.settings.clock.now()) / 2;
        // Seconds are cut off.
        Ok(date.as_millis() as Millis + 500 - now)
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, Failure> {
        let address = self.address.to_string();
        let call = async { call.await.map_err(|status| Failure::of(&address, &status)) };
        self.in_time(call).await
    }

    async fn opened<T>(
        &self,
        opening: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let limit = match self.settings.outbound {
            Some(_) => OUTBOUND_LIMIT,
            None => LIMIT,
        };
        let opened = timeout(limit, opening).await;
        opened.unwrap_or_else(|_| Err(self.silent(limit)))
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        timeout(LIMIT, work)
            .await
            .unwrap_or_else(|_| Err(self.silent(LIMIT)))
    }

    fn silent(&self, limit: Duration) -> Failure {
        Failure::Unreachable {
            address: self.address.to_string(),
            reason: format!("no answer within {} s", limit.as_secs()),
        }
    }
}
