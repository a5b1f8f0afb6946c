//! Opens connections to the Auth Service by a route, and finds the route where none is configured.

use std::borrow::Cow;
use std::sync::Arc;

use lockgate_model::OutboundProxy;

use super::alpn::routing_entry;
use super::outbound::{Unopened, open};
use super::proxy::{DETECT, FIND, Found};
use super::route::Pipe;
use super::tls::{Refused, Secured, Server, secure, shake_hands};
use super::tunnel::{Inside, Tunnel, TunnelFailure, TunnelReason, is_possible, pass};
use super::web::{Web, exchange};
use super::{Failure, ProxyFailure, Route, SERVER_NAME, Side};
use crate::identity::Identity;
use crate::{Clock, SourceSettings};

use super::Address;

/// Opens connections to one address.
pub(super) struct Dialer {
    web: Web,
    /// The configured route; `None`: it is found by what answers.
    route: Option<Route>,
    /// Whether the proxy needs a connection upgrade; `None`: a test connection tells.
    upgrade: Option<bool>,
    /// Where the proxy's SSH tunnel is; `None`: as the proxy says.
    tunnel: Option<Address>,
    clock: Arc<dyn Clock>,
}

/// A route with what it takes to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub route: Route,
    /// The cluster that the proxy is to lead to; empty for [`Route::Auth`].
    cluster: String,
    /// For [`Route::SshTunnel`].
    tunnel: Option<Tunnel>,
    /// Why this route was taken, as a clause.
    pub why: Cow<'static, str>,
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
            // The configuration has checked it.
            tunnel: settings.tunnel.as_deref().and_then(Address::of_tunnel),
            clock: Arc::clone(&settings.clock),
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

    /// The outbound proxy through which the target is reached.
    pub fn outbound(&self, target: &Target) -> Option<&OutboundProxy> {
        let address = match &target.tunnel {
            Some(tunnel) => self.end_of(tunnel),
            None => &self.web.address,
        };
        let outbound = self.web.outbound.as_ref();
        outbound.filter(|outbound| outbound.serves(&address.to_string()))
    }

    /// The `Date` of an answer of the Auth Service, which speaks HTTP/1.1 too.
    pub async fn auth_date(
        &self,
        identity: &Identity,
        tunnel: Option<&Tunnel>,
    ) -> Result<Option<String>, Failure> {
        let address = self.web.address.to_string();
        let stream = match tunnel {
            Some(tunnel) => self.through(tunnel, identity).await?,
            None => self.stream().await?,
        };
        let stream = shake_hands(stream, identity, &[b"http/1.1"], &address).await;
        let stream = stream.map_err(|refused| match tunnel {
            Some(tunnel) => refused.inside_the_tunnel(self.end_of(tunnel), "").failure,
            None => refused.failure,
        })?;
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

    /// The address that is dialled for the tunnel.
    fn end_of<'a>(&'a self, tunnel: &'a Tunnel) -> &'a Address {
        match tunnel {
            Tunnel::Port(address) => address,
            Tunnel::Routed => &self.web.address,
        }
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

    /// A byte stream to the Auth Service, through the proxy.
    async fn through(
        &self,
        tunnel: &Tunnel,
        identity: &Identity,
    ) -> Result<Box<dyn Pipe>, Failure> {
        match tunnel {
            Tunnel::Port(address) => {
                let stream = async {
                    let opened = open(address, self.web.outbound.as_ref()).await;
                    opened.map_err(|unopened| match unopened {
                        Unopened::Outbound(failure) => failure.into(),
                        Unopened::Direct(error) => {
                            let reason = TunnelReason::Unreachable(error.to_string());
                            TunnelFailure::new(address, reason).into()
                        }
                    })
                };
                pass(stream, address, identity, &self.clock).await
            }
            Tunnel::Routed => {
                let stream = async {
                    let stream = self.web.tls(&[DETECT]).await;
                    let stream = stream.map_err(|error| Failure::Proxy(self.web.failure(error)))?;
                    if stream.get_ref().1.alpn_protocol() != Some(DETECT) {
                        let address = self.web.address.to_string();
                        let reason = "it does not know the protocols of the proxy".to_owned();
                        return Err(ProxyFailure::Intercepted { address, reason }.into());
                    }
                    Ok(Box::new(stream) as Box<dyn Pipe>)
                };
                pass(stream, &self.web.address, identity, &self.clock).await
            }
        }
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
                cluster: self.routed().await?,
                tunnel: None,
                why: why.into(),
            },
            Route::SshTunnel => match self.find_tunnel().await {
                Ok((cluster, Tunnel::Routed)) => {
                    let target = Target::tunnel(cluster, Tunnel::Routed, why);
                    let opened = self.by(identity, target).await;
                    return match opened {
                        // The port of a tunnel serves the website, but does not know the protocol.
                        Err(Refused {
                            failure: Failure::Proxy(failure),
                            ..
                        }) if failure.is_of_protocol() => {
                            self.at_addr(identity, failure.into(), why).await
                        }
                        opened => opened,
                    };
                }
                Ok((cluster, tunnel)) => Target::tunnel(cluster, tunnel, why),
                Err(unfound) => return self.by_forced_tunnel_at_addr(identity, unfound, why).await,
            },
        };
        self.by(identity, target).await
    }

    /// Where the proxy's SSH tunnel is, and the cluster that it leads to, if the proxy says so.
    async fn find_tunnel(&self) -> Result<(String, Tunnel), Failure> {
        if let Some(tunnel) = &self.tunnel {
            return Ok((String::new(), Tunnel::Port(tunnel.clone())));
        }
        let found = self.web.find().await?;
        let tunnel = match found.routes_tls {
            true => Tunnel::Routed,
            false => Tunnel::Port(self.tunnel_of(&found)?),
        };
        Ok((found.cluster, tunnel))
    }

    fn tunnel_of(&self, found: &Found) -> Result<Address, Failure> {
        if let Some(tunnel) = &self.tunnel {
            return Ok(tunnel.clone());
        }
        let address = found.tunnel.address(&self.web.address);
        address.map_err(|found| {
            let address = self.web.address.to_string();
            ProxyFailure::NoTunnel { address, found }.into()
        })
    }

    /// Where the proxy's website cannot be asked, the tunnel itself may listen. `unfound`: why it
    /// cannot.
    async fn by_forced_tunnel_at_addr(
        &self,
        identity: &Identity,
        unfound: Failure,
        why: &'static str,
    ) -> Result<(Secured, Target), Refused> {
        if matches!(unfound, Failure::Proxy(ProxyFailure::Outbound(_))) {
            return Err(unfound.into());
        }
        let opened = self.at_addr(identity, unfound.clone(), why).await;
        let is_unfound = |refused: &Refused| refused.failure == unfound;
        let shows_certificate = matches!(
            unfound,
            Failure::Proxy(ProxyFailure::Certificate { .. } | ProxyFailure::NoAuthorities)
        );
        if !shows_certificate || !opened.as_ref().is_err_and(is_unfound) {
            return opened;
        }
        // The certificate may be that of the Auth Service, which speaks no SSH.
        let server = match self.by(identity, Target::auth(why)).await {
            Ok(_) => Server::OurAuth,
            Err(refused) => refused.server,
        };
        match server {
            Server::OurAuth | Server::OtherAuth => {
                let address = self.web.address.to_string();
                Err(Failure::from(ProxyFailure::IsAuth { address }).into())
            }
            Server::Web | Server::Unknown => opened,
        }
    }

    /// Where TLS does not lead to the Auth Service, the tunnel itself may listen: Teleport's
    /// serves a website at its port, too. `otherwise`: what is wrong if not.
    async fn by_tunnel_at_addr(
        &self,
        identity: &Identity,
        otherwise: Refused,
    ) -> Result<(Secured, Target), Failure> {
        let may_be = match &otherwise.failure {
            _ if matches!(otherwise.server, Server::OurAuth | Server::OtherAuth) => false,
            Failure::OtherService { speaks_tls, .. } => !speaks_tls,
            Failure::Unreachable { .. } | Failure::Tls { .. } => otherwise.is_closed,
            Failure::Proxy(failure) => matches!(
                failure,
                ProxyFailure::Certificate { .. }
                    | ProxyFailure::NoAuthorities
                    | ProxyFailure::AuthUnreachable { .. }
                    | ProxyFailure::UpgradeRefused { .. }
                    | ProxyFailure::Intercepted { .. }
            ),
            _ => false,
        };
        if !may_be || !is_possible(identity) {
            return Err(otherwise.failure);
        }
        let opened = self.at_addr(identity, otherwise.failure, "it answers at `addr`");
        opened.await.map_err(|refused| refused.failure)
    }

    /// By an SSH tunnel at the address. `otherwise`: what is wrong if something else listens.
    async fn at_addr(
        &self,
        identity: &Identity,
        otherwise: Failure,
        why: &'static str,
    ) -> Result<(Secured, Target), Refused> {
        let tunnel = Tunnel::Port(self.web.address.clone());
        let target = Target::tunnel(String::new(), tunnel, why);
        match self.by(identity, target).await {
            Err(Refused {
                failure: Failure::Tunnel(failure),
                ..
            }) if failure.is_of_another_service() => Err(otherwise.into()),
            opened => opened,
        }
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
            return self.by_tunnel_at_addr(identity, refused).await;
        }
        let found = match self.web.find().await {
            Ok(found) => found,
            // Neither of the two. The first failure tells more of something that speaks no HTTPS.
            Err(ProxyFailure::NoAnswer { .. }) if refused.is_closed => {
                return self.by_tunnel_at_addr(identity, refused).await;
            }
            Err(ProxyFailure::NoAnswer { .. }) => return Err(refused.failure),
            Err(failure) => {
                let otherwise = Failure::from(failure).into();
                return self.by_tunnel_at_addr(identity, otherwise).await;
            }
        };
        if !found.routes_tls {
            let address = self.tunnel_of(&found)?;
            let why = match &self.tunnel {
                Some(_) => format!(
                    "a proxy answers at `addr`, its TLS routing is switched off, and \
                     `TELEPORT_TUNNEL_PUBLIC_ADDR` says that the tunnel is at `{address}`"
                ),
                None => format!(
                    "a proxy answers at `addr`, its TLS routing is switched off, and it says that \
                     the tunnel is at `{address}`"
                ),
            };
            let target = Target::tunnel(found.cluster, Tunnel::Port(address), why);
            let opened = self.by(identity, target).await;
            return opened.map_err(|refused| refused.failure);
        }
        let cluster = found.cluster;
        let target = |route, why: &'static str| Target {
            route,
            cluster: cluster.clone(),
            tunnel: None,
            why: why.into(),
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
            return self.by_tunnel_at_addr(identity, refused).await;
        }
        let upgraded = target(
            Route::ProxyUpgrade,
            "a proxy answers at `addr`, and something in front of it terminates TLS",
        );
        match self.by(identity, upgraded).await {
            Ok(opened) => Ok(opened),
            Err(refused) => self.by_tunnel_at_addr(identity, refused).await,
        }
    }

    /// The cluster that the proxy at the address leads to by TLS routing.
    async fn routed(&self) -> Result<String, Failure> {
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
            Route::SshTunnel => {
                let tunnel = target.tunnel.as_ref().unwrap_or(&Tunnel::Routed);
                self.through(tunnel, identity).await?
            }
        };
        let entry = match target.route {
            Route::Auth | Route::SshTunnel => None,
            Route::Proxy | Route::ProxyUpgrade => Some(routing_entry(&target.cluster)),
        };
        match secure(pipe, identity, entry, &address).await {
            Ok(stream) => Ok((stream, target)),
            Err(refused) if target.route == Route::SshTunnel => {
                let tunnel = target.tunnel.as_ref().unwrap_or(&Tunnel::Routed);
                Err(refused.inside_the_tunnel(self.end_of(tunnel), &target.cluster))
            }
            // There is no proxy, or it has not said whose it is.
            Err(refused) if target.cluster.is_empty() => Err(refused),
            Err(refused) => Err(refused.through_the_proxy(address, target.cluster)),
        }
    }
}

impl Target {
    fn auth(why: &'static str) -> Target {
        Target {
            route: Route::Auth,
            cluster: String::new(),
            tunnel: None,
            why: why.into(),
        }
    }

    fn tunnel(cluster: String, tunnel: Tunnel, why: impl Into<Cow<'static, str>>) -> Target {
        Target {
            route: Route::SshTunnel,
            cluster,
            tunnel: Some(tunnel),
            why: why.into(),
        }
    }

    /// Where the SSH tunnel is, if it is the route.
    pub fn by_tunnel(&self) -> Option<&Tunnel> {
        self.tunnel.as_ref()
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

    /// What the failure means inside the SSH tunnel at this address.
    fn inside_the_tunnel(self, address: &Address, cluster: &str) -> Refused {
        let (at, cluster) = (address.to_string(), cluster.to_owned());
        let failure = match (self.failure, self.server) {
            (Failure::Tls { reason, .. }, Server::OtherAuth) if !cluster.is_empty() => {
                let address = at;
                Failure::from(ProxyFailure::OtherCluster {
                    address,
                    cluster,
                    reason,
                })
            }
            (failure, _) => {
                let inside = Inside::of(failure, self.is_closed);
                TunnelFailure::new(address, TunnelReason::Inside(inside)).into()
            }
        };
        Refused { failure, ..self }
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
