//! The SSH tunnel: a channel through which a proxy passes bytes on to the Auth Service (Teleport
//! `api/client` and `api/utils/sshutils`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockgate_model::Millis;
use lockgate_ssh::{
    Certificate, Client, Error as SshError, HostCheck, HostRefused, Limits, Login, SecretKey,
    authority_of_line,
};
use serde::Deserialize;
use thiserror::Error;

use super::route::Pipe;
use super::{Address, Side};
use crate::Clock;
use crate::identity::Identity;
use crate::time::time;

const CHANNEL: &str = "teleport-transport";
const REQUEST: &str = "teleport-transport-dial";
/// Raw, without the length of an SSH string.
const DESTINATION: &str = r#"{"address":"@remote-auth-server","conn_type":"node"}"#;
/// Of a tunnel that names no port.
const PORT: u16 = 3024;
/// From the first byte to the open channel.
const LIMIT: Duration = Duration::from_secs(10);
/// Its first second since the Unix epoch. Later times are not shown as such.
const YEAR_9999: u64 = 253_370_764_800;

/// What `/webapi/find` says of where SSH is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct TunnelSettings {
    pub ssh_tunnel_public_addr: String,
    pub ssh_public_addr: String,
    pub public_addr: String,
    pub tunnel_listen_addr: String,
    pub web_listen_addr: String,
}

/// Where the SSH tunnel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tunnel {
    /// A port of its own.
    Port(Address),
    /// The proxy's own port, in TLS: where the proxy has TLS routing.
    Routed,
}

/// Why the SSH tunnel does not lead to the Auth Service, and what to do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct TunnelFailure {
    /// Of the tunnel.
    pub address: String,
    pub reason: TunnelReason,
}

/// What is wrong with the SSH tunnel, or with the credentials for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunnelReason {
    /// The credentials have nothing for SSH, or nothing that can be used: what that is.
    Credentials(&'static str),
    /// Nobody answers.
    Unreachable(String),
    /// It takes connections, and then no answer comes in time.
    Silent,
    Ssh(SshError),
    /// It opens, and then TLS in it fails.
    Inside(Inside),
}

/// What is wrong with TLS inside the tunnel. The texts are how the other end of it fails.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Inside {
    #[error("closes the connection")]
    Closed,
    #[error("{0}")]
    OtherService(String),
    #[error("shows a certificate that is not trusted: {0}")]
    Certificate(String),
    #[error("shows a certificate that is not valid now by the clock of this machine: {0}")]
    Clock(String),
    #[error("refuses the handshake: {0}")]
    Refuses(String),
    #[error("breaks off: {0}")]
    Other(String),
}

impl Inside {
    /// The failure of a handshake. `is_closed`: the other end closed the connection.
    pub(super) fn of(failure: super::Failure, is_closed: bool) -> Inside {
        match failure {
            _ if is_closed => Inside::Closed,
            super::Failure::OtherService { found, .. } => Inside::OtherService(found),
            super::Failure::NoHttp2 { .. } => {
                Inside::OtherService("does not support HTTP/2".to_owned())
            }
            super::Failure::Tls { side, reason, .. } => match side {
                Side::Ours => Inside::Certificate(reason),
                Side::OurClock => Inside::Clock(reason),
                Side::Theirs => Inside::Refuses(reason),
            },
            super::Failure::Unreachable { reason, .. } => Inside::Other(reason),
            failure => Inside::Other(failure.to_string()),
        }
    }
}

impl TunnelSettings {
    /// The address of the tunnel, in the order in which Teleport's own clients look for it. `addr`
    /// is where the proxy was asked. The error is what was found.
    pub fn address(&self, addr: &Address) -> Result<Address, String> {
        let listen = parsed(&self.tunnel_listen_addr);
        let port = listen.as_ref().and_then(|(_, port)| *port).unwrap_or(PORT);
        for (text, is_fixed) in [
            (&self.ssh_tunnel_public_addr, false),
            (&self.ssh_public_addr, true),
            (&self.public_addr, true),
            (&self.tunnel_listen_addr, false),
            (&self.web_listen_addr, false),
        ] {
            if text.is_empty() {
                continue;
            }
            let (host, named) = parsed(text).ok_or_else(|| text.clone())?;
            // Every address of its machine, one of which is known.
            let host = match host {
                "" | "0.0.0.0" | "::" => &addr.host,
                host => host,
            };
            return Ok(Address {
                host: host.to_owned(),
                port: named.filter(|_| !is_fixed).unwrap_or(port),
            });
        }
        Err("nothing".to_owned())
    }
}

/// Host and port, either of which may be missing. IPv6 addresses lose their brackets.
fn parsed(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, Some(port.parse().ok().filter(|&port| port != 0)?))
        }
        _ => (text, None),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_host = |host: &str| !host.contains(['/', '@', ' ', '[', ']']);
    match bare {
        Some(host) => is_host(host).then_some((host, port)),
        None => (is_host(host) && !host.contains(':')).then_some((host, port)),
    }
}

impl Address {
    /// Of a tunnel, whose port may be left out.
    pub(super) fn of_tunnel(text: &str) -> Option<Address> {
        let (host, port) = parsed(text).filter(|(host, _)| !host.is_empty())?;
        Some(Address {
            host: host.to_owned(),
            port: port.unwrap_or(PORT),
        })
    }
}

/// What the credentials have for SSH.
struct SshIdentity {
    certificate: Certificate,
    key: SecretKey,
    authorities: Vec<Vec<u8>>,
}

impl SshIdentity {
    /// The error is the end of a sentence about the credentials.
    fn of(identity: &Identity) -> Result<SshIdentity, &'static str> {
        let line = identity.ssh_certificate.as_ref();
        let line = line.ok_or("have no SSH certificate")?;
        let certificate =
            Certificate::of_line(line).ok_or("have an SSH certificate that cannot be read")?;
        let key = SecretKey::new(&identity.key).filter(|key| key.belongs_to(&certificate.key));
        let key = key.ok_or("have an SSH certificate that does not belong to their key")?;
        let lines = identity.ssh_authorities.iter();
        let authorities: Vec<_> = lines.filter_map(|line| authority_of_line(line)).collect();
        if authorities.is_empty() {
            return Err("name no authority that may sign the certificates of SSH hosts");
        }
        Ok(SshIdentity {
            certificate,
            key,
            authorities,
        })
    }

    /// The first principal, as Teleport's own clients have it.
    fn user(&self) -> &str {
        let principals = &self.certificate.principals;
        principals.first().unwrap_or(&self.certificate.key_id)
    }
}

impl TunnelFailure {
    pub(super) fn new(address: &Address, reason: TunnelReason) -> TunnelFailure {
        let address = address.to_string();
        TunnelFailure { address, reason }
    }

    /// Whether something else than SSH answers, or nothing at all.
    pub(super) fn is_of_another_service(&self) -> bool {
        matches!(
            self.reason,
            TunnelReason::Unreachable(_)
                | TunnelReason::Silent
                | TunnelReason::Ssh(SshError::NotSsh(_) | SshError::Closed)
        )
    }
}

/// Whether the credentials have what SSH takes.
pub(super) fn is_possible(identity: &Identity) -> bool {
    SshIdentity::of(identity).is_ok()
}

/// Makes `stream`, which leads to the host at `address`, a stream to the Auth Service.
pub(super) async fn pass(
    stream: impl Future<Output = Result<Box<dyn Pipe>, super::Failure>>,
    address: &Address,
    identity: &Identity,
    clock: &Arc<dyn Clock>,
) -> Result<Box<dyn Pipe>, super::Failure> {
    let failed = |reason| TunnelFailure::new(address, reason);
    let ssh = SshIdentity::of(identity).map_err(|what| failed(TunnelReason::Credentials(what)))?;
    let (host, clock) = (address.host.clone(), Arc::clone(clock));
    let authorities = ssh.authorities.clone();
    let (at, was_accepted) = (address.clone(), AtomicBool::new(false));
    let check: HostCheck = Arc::new(move |certificate: &Certificate| {
        let checked = certificate.check_host(&host, &authorities, seconds(clock.now()));
        match &checked {
            Ok(()) => was_accepted.store(true, Ordering::Relaxed),
            // At a new exchange of keys. It ends a connection that may be idle, so that no call
            // fails with this reason.
            Err(refused) if was_accepted.load(Ordering::Relaxed) => {
                let reason = TunnelReason::Ssh(refused.clone().into());
                let failure = TunnelFailure::new(&at, reason);
                tracing::warn!("the connection to Teleport ends: {failure}");
            }
            Err(_) => {}
        }
        checked
    });
    let login = Login {
        user: ssh.user(),
        certificate: &ssh.certificate,
        key: &ssh.key,
    };
    let stream = stream.await?;
    let opened = async {
        let client = Client::connect(stream, check, login, Limits::default()).await?;
        client.open(CHANNEL, REQUEST, DESTINATION.as_bytes()).await
    };
    let opened = tokio::time::timeout(LIMIT, opened).await;
    let opened = opened.map_err(|_| failed(TunnelReason::Silent))?;
    let stream = opened.map_err(|error| failed(TunnelReason::Ssh(error)))?;
    Ok(Box::new(stream))
}

fn seconds(now: Millis) -> u64 {
    u64::try_from(now / 1000).unwrap_or_default()
}

impl fmt::Display for TunnelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AUTH: &str = "set `addr` to the address of the Auth Service, usually port 3025";
        let TunnelFailure { address, reason } = self;
        let error = match reason {
            TunnelReason::Credentials(what) => {
                return write!(
                    f,
                    "the proxy's SSH tunnel at `{address}` needs credentials for SSH, and these \
                     {what}. Use an identity file (`identity`), as `tctl auth sign` and `tbot` \
                     write it, or {AUTH}"
                );
            }
            TunnelReason::Unreachable(reason) => {
                return write!(
                    f,
                    "the proxy's SSH tunnel at `{address}` cannot be reached: {reason}. Check that \
                     this machine may connect to that port, usually 3024. If the address is wrong, \
                     correct `addr` if that is the tunnel's; or else set `tunnel_public_addr` in \
                     the `proxy_service` of the proxy, or the environment variable \
                     TELEPORT_TUNNEL_PUBLIC_ADDR here"
                );
            }
            TunnelReason::Silent => {
                return write!(
                    f,
                    "the host at `{address}`, the proxy's SSH tunnel, has not answered within {} \
                     s. Check the address, the proxy and its log, and what lies between this \
                     machine and that port, such as a firewall or a load balancer",
                    LIMIT.as_secs()
                );
            }
            TunnelReason::Inside(inside) => {
                let remedy = match inside {
                    Inside::Certificate(_) => {
                        "Use credentials of the cluster whose proxy it is, or the address of the \
                         proxy of the cluster that issued them"
                    }
                    Inside::Clock(_) => {
                        "Set the clock if it is wrong, or else renew that certificate"
                    }
                    Inside::Refuses(_) => {
                        "The credentials may have expired, or may be from another cluster"
                    }
                    Inside::Closed | Inside::OtherService(_) | Inside::Other(_) => {
                        "Check the Auth Service, and the proxy and its log"
                    }
                };
                return write!(
                    f,
                    "inside the proxy's SSH tunnel at `{address}`, where the Auth Service should \
                     answer, the other end {inside}. {remedy}"
                );
            }
            TunnelReason::Ssh(error) => error,
        };
        write!(
            f,
            "the host at `{address}`, the proxy's SSH tunnel, {error}"
        )?;
        let at = |seconds: &u64| {
            time(Millis::try_from(seconds.saturating_mul(1000)).unwrap_or(Millis::MAX))
        };
        match error {
            SshError::Host(HostRefused::Authority) => write!(
                f,
                ". Use credentials of the cluster whose proxy listens there, or the address of the \
                 proxy of the cluster that issued them. If the cluster has rotated its \
                 authorities, renew the credentials with `tctl auth sign --user=NAME` or with \
                 `tbot`"
            ),
            SshError::Host(HostRefused::Expired { at: until }) => write!(
                f,
                " at {} by the clock of this machine. Set the clock if it is wrong, or else \
                 restart the proxy, so that it gets a new certificate",
                at(until)
            ),
            SshError::Host(HostRefused::NotYetValid { from }) => write!(
                f,
                " by the clock of this machine: it is valid from {}. Set the clock if it is wrong, \
                 or else that of the proxy",
                match *from {
                    YEAR_9999.. => "a time after the year 9998".to_owned(),
                    _ => at(from),
                }
            ),
            SshError::Host(HostRefused::Name { .. }) => write!(
                f,
                ". Name the proxy by one of these, or set `tunnel_public_addr` in its \
                 `proxy_service` to the address that is used here"
            ),
            SshError::Host(_) | SshError::NoHostCertificate(_) => write!(
                f,
                ". Teleport's proxies show a host certificate of their cluster: check the address"
            ),
            SshError::NotSsh(_) => write!(
                f,
                ". Check the address; the port of a proxy's SSH tunnel is usually 3024"
            ),
            SshError::NothingInCommon { .. } => write!(
                f,
                ". Allow `curve25519-sha256` and `aes128-gcm@openssh.com` in the `teleport.yaml` of \
                 the proxy (`kex_algos`, `ciphers`), or {AUTH}"
            ),
            SshError::UserRefused { .. } => write!(
                f,
                ". The user must exist and must not be locked, and the credentials must be of this \
                 cluster; renew them with `tctl auth sign --user=NAME` or with `tbot`"
            ),
            SshError::ChannelRefused(_) => write!(
                f,
                ". Another service of Teleport may listen there: the port of a proxy's SSH tunnel \
                 is usually 3024"
            ),
            SshError::DialRefused(_) => write!(
                f,
                ". The proxy cannot reach the Auth Service: check that, and the proxy's log"
            ),
            _ => write!(f, ". Check the proxy and its log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tunnel_is_found_as_by_teleports_own_clients() {
        let addr: Address = "proxy.example.com:443".parse().expect("an address");
        let of = |settings: TunnelSettings| {
            let found = settings.address(&addr);
            found.map(|address| address.to_string())
        };
        let text = |text: &str| text.to_owned();
        let all = TunnelSettings {
            ssh_tunnel_public_addr: text("tunnel.example.com:4024"),
            ssh_public_addr: text("ssh.example.com:3023"),
            public_addr: text("web.example.com:3080"),
            tunnel_listen_addr: text("0.0.0.0:5024"),
            web_listen_addr: text("0.0.0.0:3080"),
        };
        let mut settings = all.clone();
        assert_eq!(of(settings.clone()), Ok(text("tunnel.example.com:4024")));
        settings.ssh_tunnel_public_addr = text("tunnel.example.com");
        assert_eq!(of(settings.clone()), Ok(text("tunnel.example.com:5024")));
        settings.ssh_tunnel_public_addr.clear();
        assert_eq!(of(settings.clone()), Ok(text("ssh.example.com:5024")));
        settings.ssh_public_addr.clear();
        assert_eq!(of(settings.clone()), Ok(text("web.example.com:5024")));
        settings.public_addr.clear();
        assert_eq!(of(settings.clone()), Ok(text("proxy.example.com:5024")));
        settings.tunnel_listen_addr = text("[::]:6024");
        assert_eq!(of(settings.clone()), Ok(text("proxy.example.com:6024")));
        settings.tunnel_listen_addr = text("[2001:db8::1]:6024");
        assert_eq!(of(settings.clone()), Ok(text("[2001:db8::1]:6024")));
        settings.tunnel_listen_addr.clear();
        assert_eq!(of(settings.clone()), Ok(text("proxy.example.com:3080")));
        settings.web_listen_addr = text("https://web:1");
        assert_eq!(of(settings), Err(text("https://web:1")));
        assert_eq!(of(TunnelSettings::default()), Err(text("nothing")));
        let no_listener = TunnelSettings {
            tunnel_listen_addr: String::new(),
            ssh_tunnel_public_addr: text("[2001:db8::2]"),
            ..all
        };
        assert_eq!(of(no_listener), Ok(text("[2001:db8::2]:3024")));
    }

    #[test]
    fn messages_name_the_place_and_the_remedy() {
        let message = |error: SshError| {
            let reason = TunnelReason::Ssh(error);
            let address = "proxy:3024".to_owned();
            TunnelFailure { address, reason }.to_string()
        };
        let name = HostRefused::Name {
            host: "proxy".to_owned(),
            principals: vec!["proxy.example.com".to_owned()],
        };
        for (error, words) in [
            (HostRefused::Authority.into(), ["rotated", "`tbot`"]),
            (
                HostRefused::Expired { at: 1_700_000_000 }.into(),
                ["has expired at 2023-11-14T22:13:20Z", "Set the clock"],
            ),
            (
                HostRefused::NotYetValid { from: u64::MAX }.into(),
                ["valid from a time after the year 9998", "Set the clock"],
            ),
            (
                HostRefused::NotYetValid {
                    from: 1_700_000_000,
                }
                .into(),
                ["not valid yet by the clock", "2023-11-14T22:13:20Z"],
            ),
            (name.into(), ["`proxy.example.com`", "`tunnel_public_addr`"]),
            (
                SshError::DialRefused("no auth".to_owned()),
                ["`no auth`", "the proxy's log"],
            ),
            (SshError::Closed, ["closed the connection", "its log"]),
        ] {
            let message = message(error);
            for word in words.into_iter().chain(["`proxy:3024`"]) {
                assert!(message.contains(word), "`{word}` is not in: {message}");
            }
        }
    }
}
