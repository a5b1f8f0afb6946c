//! The proxy's SSH tunnel: a channel whose bytes are passed on to Auth.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use lockgate_ssh::{Certificate, Error, HostKey, Limits, Server};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, copy, copy_bidirectional, split};
use tokio::net::TcpStream;

use super::Shared;
use crate::SimError;
use crate::auth::ssh::Authority;
use crate::auth::{AuthOptions, KeyKind};
use crate::certificate::{in_ten_years, since_epoch};
use crate::listener::HANDSHAKE;
use crate::output_dir::OutputDir;

const CHANNEL: &str = "teleport-transport";
const REQUEST: &str = "teleport-transport-dial";

/// What is wrong with the SSH tunnel, until it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelFault {
    /// Its certificate is of an authority that no identity names.
    OtherAuthority,
    /// Its certificate has expired.
    Expired,
    /// Its certificate is that of another host.
    OtherName,
    /// It lets nobody in.
    RefusesUsers,
    /// It opens no channel, as Teleport's other SSH ports do not.
    RefusesChannels,
    /// It cuts each connection after so many bytes from Auth.
    DropsAfter(u64),
    /// It passes connections on to this address instead of Auth.
    LeadsTo(SocketAddr),
    /// Its port resets TLS, and takes SSH.
    ResetsTls,
}

/// What it takes to be an SSH host of the cluster.
pub(super) struct Host {
    hosts: Authority,
    /// The public key of who signs users.
    users: Vec<u8>,
    /// Of its own key.
    kind: KeyKind,
    names: Vec<String>,
}

impl Host {
    pub(super) fn new(options: &AuthOptions, public_names: &[String]) -> Result<Host, SimError> {
        let dir = OutputDir::create(&options.out)?;
        let kind = options.identity_key;
        let cluster = &options.events.cluster;
        let id = "3f3c4b1e-0d0f-4c9a-8c57-6f0a4be0a0b1";
        // In the order in which Teleport has them.
        let mut names = vec![format!("{id}.{cluster}"), id.to_owned()];
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        names.extend(public_names.iter().cloned());
        names.push("remote.kube.proxy.teleport.cluster.local".to_owned());
        Ok(Host {
            hosts: Authority::of_hosts(&dir, kind)?,
            users: Authority::of_users(&dir, kind)?.blob(),
            kind,
            names,
        })
    }

    fn key(&self, fault: Option<TunnelFault>) -> Result<HostKey, SimError> {
        let names: Vec<&str> = match fault {
            Some(TunnelFault::OtherName) => vec!["other.example.com"],
            _ => self.names.iter().map(String::as_str).collect(),
        };
        let expires = match fault {
            Some(TunnelFault::Expired) => {
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
            }
            _ => in_ten_years(),
        };
        match fault {
            Some(TunnelFault::OtherAuthority) => {
                Authority::new(self.kind)?.sign_host(self.kind, &names, expires)
            }
            _ => self.hosts.sign_host(self.kind, &names, expires),
        }
    }

    /// A user that is named by a certificate of the cluster.
    #[allow(
        clippy::disallowed_methods,
        reason = "certificates are valid by the real clock"
    )]
    fn accepts(&self, user: &str, certificate: &Certificate) -> bool {
        let now = since_epoch(SystemTime::now()).as_secs();
        certificate.authority == self.users
            && certificate.check_time(now).is_ok()
            && certificate.principals.iter().any(|name| name == user)
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve<S>(shared: &Shared, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if let Err(error) = pass_on(shared, stream).await {
        tracing::debug!("the client of the SSH tunnel {error}");
    }
}

async fn pass_on<S>(shared: &Shared, stream: S) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let fault = shared.faults().tunnel;
    let host = shared.ssh.key(fault);
    let host = host.map_err(|error| Error::Io(error.to_string()))?;
    let accepts = |user: &str, certificate: &Certificate| {
        fault != Some(TunnelFault::RefusesUsers) && shared.ssh.accepts(user, certificate)
    };
    let accepting = Server::accept(stream, host, accepts, Limits::default());
    let Ok(server) = tokio::time::timeout(HANDSHAKE, accepting).await else {
        return Err(Error::Closed);
    };
    let asked = server?.channel().await?;
    if asked.kind != CHANNEL || fault == Some(TunnelFault::RefusesChannels) {
        return asked.refuse("unknown channel type").await;
    }
    let dial = asked.accept().await?;
    if dial.request != REQUEST || !leads_to_auth(&dial.payload) {
        return dial.refuse(" invalid dial request").await;
    }
    let auth = match shared.faults().is_without_auth {
        true => None,
        false => {
            let to = match fault {
                Some(TunnelFault::LeadsTo(address)) => address,
                _ => shared.auth,
            };
            TcpStream::connect(to).await.ok()
        }
    };
    let Some(mut auth) = auth else {
        return dial.refuse(" failed to dial auth server").await;
    };
    shared.count();
    let _ = auth.set_nodelay(true);
    let mut stream = dial.accept()?;
    match fault {
        Some(TunnelFault::DropsAfter(bytes)) => {
            let (mut from_client, mut to_client) = split(stream);
            let (from_auth, mut to_auth) = auth.split();
            let mut from_auth = from_auth.take(bytes);
            tokio::select! {
                _ = copy(&mut from_client, &mut to_auth) => {}
                _ = copy(&mut from_auth, &mut to_client) => {}
            }
        }
        _ => {
            let _ = copy_bidirectional(&mut stream, &mut auth).await;
        }
    }
    Ok(())
}

/// The destination as JSON, or as older clients write it.
fn leads_to_auth(payload: &[u8]) -> bool {
    const AUTH: &str = "@remote-auth-server";
    payload == AUTH.as_bytes()
        || serde_json::from_slice::<serde_json::Value>(payload)
            .is_ok_and(|dial| dial["address"] == AUTH)
}
