//! Opens connections to the Auth Service by a route, and finds the route where none is configured.

use super::alpn::routing_entry;
use super::outbound::{Unopened, open};
use super::proxy::FIND;
use super::route::Pipe;
use super::tls::{Refused, Secured, Server, secure, shake_hands};
use super::web::{Web, exchange};
use super::{Failure, ProxyFailure, Route, SERVER_NAME, Side};
use crate::SourceSettings;
use crate::identity::Identity;

use super::Address;

/// Opens connections to one address.
pub(super) struct Dialer {
    web: Web,
    /// The configured route; `None`: it is found by what answers.
    route: Option<Route>,
    /// Whether the proxy needs a connection upgrade; `None`: a test connection tells.
    upgrade: Option<bool>,
}

/// A route with what it takes to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub route: Route,
    /// The cluster that the proxy is to lead to; empty for [`Route::Auth`].
    cluster: String,
    /// Why this route was taken, as a clause.
    pub why: &'static str,
}

impl Dialer {
    pub fn new(address: Address, settings: &SourceSettings) -> Dialer {
        Dialer {
            web: Web {
                address,
                outbound: settings.outbound.clone(),
                proxy_ca: settings.proxy_ca.clone(),
            },
            route: settings.route,
            upgrade: settings.upgrade,
        }
    }

    /// Connects by `last`, the route of the connection before. Without one the route is found.
    pub async fn open(
        &self,
        identity: &Identity,
        last: Option<&Target>,
    ) -> Result<(Secured, Target), Failure> {
        let opened = match (last, self.route) {
            (Some(last), _) => self.by(identity, last.clone()).await,
            (None, None) => return self.choose(identity).await,
            (None, Some(route)) => self.by_configured(identity, route).await,
        };
        opened.map_err(|refused| match self.route {
            Some(route) => refused.failure.by_configured(route),
            None => refused.failure,
        })
    }

    /// Connects by this route, whatever the configured one is.
    pub async fn by_route(&self, identity: &Identity, route: Route) -> Result<Secured, Failure> {
        let opened = self.by_configured(identity, route).await;
        opened
            .map(|(stream, _)| stream)
            .map_err(|refused| refused.failure)
    }

    /// The `Date` of an answer of the Auth Service, which speaks HTTP/1.1 too.
    pub async fn auth_date(&self, identity: &Identity) -> Result<Option<String>, Failure> {
        let address = self.web.address.to_string();
        let stream = self.stream().await?;
        let stream = shake_hands(stream, identity, &[b"http/1.1"], &address).await;
        let stream = stream.map_err(|refused| refused.failure)?;
        let answer = exchange(stream, SERVER_NAME, FIND, &[]).await;
        let answer = answer.map_err(|error| self.web.failure(error))?;
        Ok(answer.date())
    }

    /// The `Date` of an answer of the proxy.
    pub async fn proxy_date(&self) -> Result<Option<String>, Failure> {
        let answer = self.web.get(&[b"http/1.1"], FIND, &[]).await;
        let answer = answer.map_err(|error| self.web.failure(error))?;
        Ok(answer.date())
    }

    async fn stream(&self) -> Result<Box<dyn Pipe>, Failure> {
        let opened = open(&self.web.address, self.web.outbound.as_ref()).await;
        opened.map_err(|unopened| match unopened {
            Unopened::Outbound(failure) => failure.into(),
            Unopened::Direct(error) => Failure::Unreachable {
                address: self.web.address.to_string(),
                reason: error.to_string(),
            },
        })
    }

    async fn by_configured(
        &self,
        identity: &Identity,
        route: Route,
    ) -> Result<(Secured, Target), Refused> {
        let why = "`connect` says so";
        let target = match route {
            Route::Auth => Target::auth(why),
            Route::Proxy | Route::ProxyUpgrade => Target {
                route,
                cluster: self.find().await?,
                why,
            },
        };
        self.by(identity, target).await
    }

    /// Tries the Auth Service first: its certificate is that of the credentials' cluster, and a
    /// proxy shows another.
    async fn choose(&self, identity: &Identity) -> Result<(Secured, Target), Failure> {
        let auth = Target::auth("it answers at `addr`");
        let refused = match self.by(identity, auth).await {
            Ok(opened) => return Ok(opened),
            Err(refused) => refused,
        };
        if !refused.may_come_from_a_proxy() {
            return Err(refused.failure);
        }
        let cluster = match self.find().await {
            Ok(cluster) => cluster,
            // Neither of the two. The first failure tells more of something that speaks no HTTPS.
            Err(Failure::Proxy(ProxyFailure::NoAnswer { .. })) => return Err(refused.failure),
            Err(failure) => return Err(failure),
        };
        let target = |route, why| Target {
            route,
            cluster: cluster.clone(),
            why,
        };
        const VARIABLE: &str = "`TELEPORT_TLS_ROUTING_CONN_UPGRADE` says so";
        let proxy = match self.upgrade {
            Some(true) => target(Route::ProxyUpgrade, VARIABLE),
            Some(false) => target(Route::Proxy, VARIABLE),
            None if self.web.needs_upgrade().await => target(
                Route::ProxyUpgrade,
                "a proxy answers at `addr`, and a load balancer in front of it terminates TLS",
            ),
            None => target(Route::Proxy, "a proxy answers at `addr`"),
        };
        let refused = match self.by(identity, proxy).await {
            Ok(opened) => return Ok(opened),
            Err(refused) => refused,
        };
        // The test connection does not find every load balancer.
        let is_intercepted = matches!(
            refused.failure,
            Failure::Proxy(ProxyFailure::Intercepted { .. })
        );
        if !is_intercepted || self.upgrade.is_some() {
            return Err(refused.failure);
        }
        let upgraded = target(
            Route::ProxyUpgrade,
            "a proxy answers at `addr`, and something in front of it terminates TLS",
        );
        self.by(identity, upgraded)
            .await
            .map_err(|refused| refused.failure)
    }

    /// The cluster that the proxy at the address leads to.
    async fn find(&self) -> Result<String, Failure> {
        let found = self.web.find().await?;
        let cluster = found.cluster;
        if !found.routes_tls {
            let address = self.web.address.to_string();
            return Err(ProxyFailure::RoutingOff { address, cluster }.into());
        }
        Ok(cluster)
    }

    async fn by(&self, identity: &Identity, target: Target) -> Result<(Secured, Target), Refused> {
        let address = self.web.address.to_string();
        let pipe: Box<dyn Pipe> = match target.route {
            Route::Auth | Route::Proxy => self.stream().await?,
            Route::ProxyUpgrade => self.web.upgrade().await.map_err(Failure::Proxy)?,
        };
        let entry = (target.route != Route::Auth).then(|| routing_entry(&target.cluster));
        match secure(pipe, identity, entry, &address).await {
            Ok(stream) => Ok((stream, target)),
            Err(refused) if target.route == Route::Auth => Err(refused),
            Err(refused) => Err(refused.through_the_proxy(address, target.cluster)),
        }
    }
}

impl Target {
    fn auth(why: &'static str) -> Target {
        Target {
            route: Route::Auth,
            cluster: String::new(),
            why,
        }
    }
}

impl Refused {
    /// Whether the other side of a connection without a routing entry may be a proxy, or a load
    /// balancer in front of one.
    fn may_come_from_a_proxy(&self) -> bool {
        match self.server {
            Server::OurAuth | Server::OtherAuth => false,
            Server::Web => true,
            Server::Unknown => {
                self.is_closed
                    || match &self.failure {
                        // An alert before its certificate.
                        Failure::Tls { side, .. } => *side == Side::Theirs,
                        Failure::OtherService { speaks_tls, .. } => *speaks_tls,
                        _ => false,
                    }
            }
        }
    }

    /// What the failure means where a proxy was to pass the connection on.
    fn through_the_proxy(self, address: String, cluster: String) -> Refused {
        let failure = match (&self.failure, self.server) {
            (Failure::Tls { reason, .. }, Server::OtherAuth) => ProxyFailure::OtherCluster {
                address,
                cluster,
                reason: reason.clone(),
            },
            (Failure::Tls { reason, .. }, Server::Web) => ProxyFailure::Intercepted {
                address,
                reason: reason.clone(),
            },
            (_, Server::Unknown) if self.is_closed => {
                ProxyFailure::AuthUnreachable { address, cluster }
            }
            _ => return self,
        };
        Refused {
            failure: failure.into(),
            ..self
        }
    }
}

/// A failure before the handshake.
impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused {
            failure,
            server: Server::Unknown,
            is_closed: false,
        }
    }
}
