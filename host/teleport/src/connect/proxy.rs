//! Teleport's proxy: what it says of its cluster, and whether a load balancer is in front of it.

use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use rustls::{AlertDescription, PeerMisbehaved};
use serde::Deserialize;
use thiserror::Error;

use super::alpn::CLUSTER_MAX;
use super::outbound::OutboundFailure;
use super::tunnel::TunnelSettings;
use super::web::{Web, WebError};

pub(super) const FIND: &str = "/webapi/find";
/// Time limit of the request.
const FIND_LIMIT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes. A real one has about 1 kB.
const FIND_MAX: usize = 1 << 20;
/// Time limit of the test connection.
const DETECT_LIMIT: Duration = Duration::from_secs(5);
/// The protocol of the test connection. Every proxy knows it, and no load balancer does.
pub(super) const DETECT: &[u8] = b"teleport-reversetunnel";

/// What a proxy says of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub cluster: String,
    pub routes_tls: bool,
    /// Where its SSH tunnel is.
    pub tunnel: TunnelSettings,
}

/// Why the Auth Service cannot be reached through a proxy, and what to do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProxyFailure {
    #[error("`proxy-ca`: the file `{path}` cannot be used: {reason}")]
    Authorities { path: String, reason: String },
    #[error(
        "this machine has no certificate authorities, so the proxy's certificate cannot be verified. Install them (package `ca-certificates`), \
         or name a file with `proxy-ca`"
    )]
    NoAuthorities,
    #[error(
        "the web certificate of `{address}` is not trusted: {reason}. The authorities that may sign it are {authorities}. If Teleport's proxy \
         listens there, name the file of the authority that signed its certificate in `proxy-ca`. Its SSH tunnel needs none: set \
         `connect = \"ssh-tunnel\"`, and the environment variable TELEPORT_TUNNEL_PUBLIC_ADDR to `HOST:PORT` of the tunnel, usually port 3024. \
         Else check `addr`"
    )]
    Certificate {
        address: String,
        reason: String,
        authorities: String,
    },
    #[error(
        "the Auth Service itself answers at `{address}`, which has no SSH tunnel. Set `addr` to the address of the proxy, usually port 443 or 3080, \
         or to that of its tunnel, usually port 3024"
    )]
    IsAuth { address: String },
    #[error("this machine provides no random numbers")]
    NoRandom,
    /// Nobody there speaks HTTPS.
    #[error(
        "`{address}` does not answer as Teleport's proxy: {reason}. Check the host and the port in `addr`; the port of a proxy is usually 443 \
         or 3080, and that of its SSH tunnel 3024"
    )]
    NoAnswer { address: String, reason: String },
    #[error(
        "`{address}` {found}: it is not Teleport's proxy, or something in front of it answers in its place. Check the host and the port in \
         `addr`; the port of a proxy is usually 443 or 3080, and that of the Auth Service 3025"
    )]
    NotAProxy { address: String, found: String },
    #[error(
        "the proxy at `{address}` has TLS routing switched off. Set `connect = \"ssh-tunnel\"`, or leave `connect` out, and its SSH tunnel is \
         used; or set `proxy_listener_mode: multiplex` in the `auth_service` of the cluster `{cluster}`"
    )]
    RoutingOff { address: String, cluster: String },
    #[error(
        "the proxy at `{address}` has an SSH tunnel, but does not say where: `{found}`. Set the environment variable \
         TELEPORT_TUNNEL_PUBLIC_ADDR to `HOST:PORT` of the tunnel, usually port 3024, or `tunnel_public_addr` in the `proxy_service` of the proxy"
    )]
    NoTunnel { address: String, found: String },
    #[error(
        "`{address}` refuses the connection upgrade: it {found}. Let the load balancer in front of the proxy pass WebSocket upgrades of \
         `/webapi/connectionupgrade`, or use the address of the Auth Service, usually port 3025"
    )]
    UpgradeRefused { address: String, found: String },
    #[error(
        "the proxy at `{address}` answers, but closes connections to the Auth Service of `{cluster}`: the proxy cannot reach that, or does not \
         know the cluster. Check the Auth Service, and the proxy's log"
    )]
    AuthUnreachable { address: String, cluster: String },
    #[error(
        "the credentials are not of the cluster `{cluster}`, to which the proxy at `{address}` leads: {reason}. Use credentials of that \
         cluster, or the address of the proxy of the cluster that issued them"
    )]
    OtherCluster {
        address: String,
        cluster: String,
        reason: String,
    },
    #[error(
        "something in front of the proxy at `{address}` terminates TLS, such as a load balancer: {reason}. Set `connect = \"proxy-upgrade\"`, or \
         leave `connect` out"
    )]
    Intercepted { address: String, reason: String },
    #[error(transparent)]
    Outbound(#[from] OutboundFailure),
}

impl ProxyFailure {
    /// Whether what answers may be without the proxy's own protocols.
    pub(super) fn is_of_protocol(&self) -> bool {
        matches!(
            self,
            ProxyFailure::Intercepted { .. } | ProxyFailure::NoAnswer { .. }
        )
    }
}

impl Web {
    /// Asks the proxy for its cluster.
    pub async fn find(&self) -> Result<Found, ProxyFailure> {
        match tokio::time::timeout(FIND_LIMIT, self.find_without_limit()).await {
            Ok(result) => result,
            Err(_) => Err(ProxyFailure::NoAnswer {
                address: self.address.to_string(),
                reason: format!("no answer to `{FIND}` within {} s", FIND_LIMIT.as_secs()),
            }),
        }
    }

    async fn find_without_limit(&self) -> Result<Found, ProxyFailure> {
        let not_a_proxy = |found: String| ProxyFailure::NotAProxy {
            address: self.address.to_string(),
            found,
        };
        let mut answer = self
            .get(&[b"http/1.1"], FIND, &[("accept", "application/json")])
            .await
            .map_err(|error| self.failure(error))?;
        let response = &mut answer.response;
        let status = response.status();
        let header = |name: http::HeaderName| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.chars().take(200).collect::<String>())
        };
        if status.is_redirection() {
            let to = header(http::header::LOCATION).unwrap_or_default();
            return Err(not_a_proxy(format!("redirects `{FIND}` to `{to}`")));
        }
        if status != StatusCode::OK {
            return Err(not_a_proxy(format!("answers `{FIND}` with {status}")));
        }
        let kind = header(http::header::CONTENT_TYPE).unwrap_or_default();
        let body = Limited::new(response.body_mut(), FIND_MAX).collect().await;
        let body = body
            .map_err(|error| not_a_proxy(format!("breaks off its answer to `{FIND}`: {error}")))?;
        parse(&body.to_bytes())
            .map_err(|reason| not_a_proxy(format!("answers `{FIND}` with {reason} (`{kind}`)")))
    }

    /// Whether a load balancer in front of the proxy terminates TLS: then ALPN does not reach the
    /// proxy. A test connection that fails in another way says nothing, and counts as no.
    pub async fn needs_upgrade(&self) -> bool {
        let tested = tokio::time::timeout(DETECT_LIMIT, self.tls(&[DETECT])).await;
        let Ok(tested) = tested else {
            return false;
        };
        match tested {
            Ok(stream) => stream.get_ref().1.alpn_protocol() != Some(DETECT),
            Err(WebError::Tls(
                rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
                | rustls::Error::NoApplicationProtocol
                | rustls::Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol),
            )) => true,
            Err(_) => false,
        }
    }

    /// A request for the upgrade that failed before its answer.
    pub(super) fn no_upgrade(&self, error: WebError) -> ProxyFailure {
        match self.failure(error) {
            ProxyFailure::NoAnswer { address, reason } => ProxyFailure::UpgradeRefused {
                address,
                found: format!("does not answer: {reason}"),
            },
            failure => failure,
        }
    }
}

/// The part of the answer that matters. Further members come and go with versions.
#[derive(Deserialize)]
struct Answer {
    cluster_name: String,
    proxy: Proxy,
}

#[derive(Deserialize)]
struct Proxy {
    #[serde(default)]
    tls_routing_enabled: bool,
    #[serde(default)]
    ssh: TunnelSettings,
}

/// The error is what was found instead.
fn parse(body: &[u8]) -> Result<Found, String> {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return Err("something else than a description of a cluster".to_owned());
    };
    match answer.cluster_name.len() {
        0 => Err("a cluster that has no name".to_owned()),
        1..=CLUSTER_MAX => Ok(Found {
            cluster: answer.cluster_name,
            routes_tls: answer.proxy.tls_routing_enabled,
            tunnel: answer.proxy.ssh,
        }),
        length => Err(format!(
            "a cluster whose name has {length} bytes; TLS routing allows {CLUSTER_MAX}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_real_proxies_are_read() {
        // 13.3.8, shortened.
        let observed = br#"{"auth":{"type":"","second_factor":"otp"},"proxy":{"kube":{"enabled":false},
            "ssh":{"listen_addr":"0.0.0.0:3023","tunnel_listen_addr":"0.0.0.0:3024","web_listen_addr":
            "0.0.0.0:3080","public_addr":"localhost:3080"},"db":{},"tls_routing_enabled":true},
            "server_version":"13.3.8","min_client_version":"12.0.0","cluster_name":"ex.com",
            "automatic_upgrades":false}"#;
        let found = |routes_tls| {
            Ok(Found {
                cluster: "ex.com".to_owned(),
                routes_tls,
                tunnel: TunnelSettings::default(),
            })
        };
        let tunnel = TunnelSettings {
            tunnel_listen_addr: "0.0.0.0:3024".to_owned(),
            web_listen_addr: "0.0.0.0:3080".to_owned(),
            public_addr: "localhost:3080".to_owned(),
            ..TunnelSettings::default()
        };
        let expected = found(true).map(|found| Found { tunnel, ..found });
        assert_eq!(parse(observed), expected);
        assert_eq!(
            parse(br#"{"cluster_name":"ex.com","proxy":{}}"#),
            found(false),
            "separate listeners"
        );
        for other in [
            "<!doctype html><title>Welcome to nginx!</title>".to_owned(),
            "{}".to_owned(),
            r#"{"error":{"message":"not found"}}"#.to_owned(),
            r#"{"cluster_name":"","proxy":{}}"#.to_owned(),
            format!(
                r#"{{"cluster_name":"{}","proxy":{{}}}}"#,
                "x".repeat(CLUSTER_MAX + 1)
            ),
        ] {
            assert!(parse(other.as_bytes()).is_err(), "{other}");
        }
    }
}
