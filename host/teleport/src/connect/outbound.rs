//! Byte streams through the outbound proxy: `CONNECT` of HTTP/1.1, and SOCKS 5.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use lockgate_model::{OutboundProxy, OutboundScheme};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio_rustls::TlsConnector;

use super::Address;
use super::failure::chain;
use super::route::{Pipe, tcp};
use super::socks;
use super::web::{http1, platform_roots};
use crate::blocking::blocking;

/// Time limit for the proxy's answer, which comes once it has reached the address.
pub(super) const LIMIT: Duration = Duration::from_secs(20);
/// Time limit for TLS with the proxy itself.
const HANDSHAKE: Duration = Duration::from_secs(8);

/// Why an address cannot be reached through the outbound proxy, and what to do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct OutboundFailure {
    pub address: String,
    /// Without its password.
    pub proxy: String,
    pub variable: &'static str,
    pub reason: OutboundReason,
}

/// What is wrong with the outbound proxy, or what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundReason {
    Unreachable(String),
    /// The certificate of a proxy that is reached by HTTPS, mostly.
    Tls(String),
    /// Something else listens there.
    OtherService(String),
    /// It asks who this is.
    LoginMissing(String),
    LoginRefused(String),
    /// It does not connect to the address: its answer.
    Refused(String),
}

impl fmt::Display for OutboundFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutboundFailure {
            address,
            proxy,
            variable,
            reason,
        } = self;
        let scheme = proxy.split("://").next().unwrap_or_default();
        write!(
            f,
            "`{address}` cannot be reached through the outbound proxy `{proxy}`: "
        )?;
        match reason {
            OutboundReason::Unreachable(reason) => write!(
                f,
                "that does not answer: {reason}. Check its address in `{variable}`, and that this \
                 machine may connect to it"
            ),
            OutboundReason::Tls(reason) => write!(
                f,
                "TLS with it fails: {reason}. This machine has to trust its certificate. If it \
                 does not speak TLS itself, as most do not, write `http://` in `{variable}`"
            ),
            OutboundReason::OtherService(found) => write!(
                f,
                "it {found}. Check the scheme and the port of the proxy in `{variable}`"
            ),
            OutboundReason::LoginMissing(answer) => write!(
                f,
                "it asks for a user name and a password ({answer}). Write them as \
                 `{scheme}://USER:PASSWORD@HOST:PORT` in `{variable}`"
            ),
            OutboundReason::LoginRefused(answer) => write!(
                f,
                "it does not accept the user name and the password ({answer}). Check them in \
                 `{variable}`; characters such as `@`, `:` and `/` are percent-encoded there"
            ),
            OutboundReason::Refused(answer) => write!(
                f,
                "it answers {answer}. Check the address, and have the proxy allow it; or name the \
                 host in `NO_PROXY` if this machine can reach it by itself"
            ),
        }
    }
}

/// Why there is no byte stream to an address.
#[derive(Debug)]
pub(super) enum Unopened {
    Direct(std::io::Error),
    Outbound(OutboundFailure),
}

/// Opens a byte stream to the address, through the proxy if there is one that serves it.
pub(super) async fn open(
    address: &Address,
    proxy: Option<&OutboundProxy>,
) -> Result<Box<dyn Pipe>, Unopened> {
    let Some(proxy) = proxy.filter(|proxy| proxy.serves(&address.to_string())) else {
        let stream = tcp(address).await.map_err(Unopened::Direct)?;
        return Ok(Box::new(stream));
    };
    let failure = |reason| {
        Unopened::Outbound(OutboundFailure {
            address: address.to_string(),
            proxy: proxy.to_string(),
            variable: proxy.variable,
            reason,
        })
    };
    match tokio::time::timeout(LIMIT, through(address, proxy)).await {
        Ok(opened) => opened.map_err(failure),
        Err(_) => {
            let reason = format!("no answer within {} s", LIMIT.as_secs());
            Err(failure(OutboundReason::Unreachable(reason)))
        }
    }
}

async fn through(
    address: &Address,
    proxy: &OutboundProxy,
) -> Result<Box<dyn Pipe>, OutboundReason> {
    let at = Address {
        host: proxy.host.clone(),
        port: proxy.port,
    };
    let stream = tcp(&at)
        .await
        .map_err(|error| OutboundReason::Unreachable(error.to_string()))?;
    match proxy.scheme {
        OutboundScheme::Http => connect(Box::new(stream), address, proxy).await,
        OutboundScheme::Https => {
            let failed = |reason: String| OutboundReason::Tls(reason);
            let roots = blocking(platform_roots).await;
            let roots = roots.map_err(|failure| failed(failure.to_string()))?;
            let mut config = ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::ring::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
            config.resumption = Resumption::disabled();
            let name = ServerName::try_from(proxy.host.clone())
                .map_err(|error| failed(error.to_string()))?;
            let shaking = TlsConnector::from(Arc::new(config)).connect(name, stream);
            // A proxy that does not speak TLS may wait for the rest of a request.
            let stream = match tokio::time::timeout(HANDSHAKE, shaking).await {
                Ok(stream) => stream.map_err(|error| failed(error.to_string()))?,
                Err(_) => return Err(failed("it does not answer".to_owned())),
            };
            connect(Box::new(stream), address, proxy).await
        }
        OutboundScheme::Socks5 => {
            let mut stream = stream;
            socks::connect(&mut stream, address, proxy.login.as_ref()).await?;
            Ok(Box::new(stream))
        }
    }
}

/// RFC 9110 9.3.6.
async fn connect(
    stream: Box<dyn Pipe>,
    address: &Address,
    proxy: &OutboundProxy,
) -> Result<Box<dyn Pipe>, OutboundReason> {
    let broken = |error: hyper::Error| {
        OutboundReason::OtherService(format!(
            "does not answer as an HTTP proxy: {}",
            chain(&error)
        ))
    };
    let (mut sender, _connection) = http1(stream).await.map_err(broken)?;
    let target = address.to_string();
    let mut request = Request::connect(&target).header(header::HOST, &target);
    if let Some(login) = &proxy.login {
        let text = format!("{}:{}", login.user, login.password.expose());
        let value = format!("Basic {}", BASE64_STANDARD.encode(text));
        request = request.header(header::PROXY_AUTHORIZATION, value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| OutboundReason::Refused(error.to_string()))?;
    let mut response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(match &proxy.login {
            None => OutboundReason::LoginMissing(status.to_string()),
            Some(_) => OutboundReason::LoginRefused(status.to_string()),
        }),
        status if status.is_success() => {
            let upgraded = hyper::upgrade::on(&mut response).await;
            Ok(Box::new(TokioIo::new(upgraded.map_err(broken)?)))
        }
        // What a web server says of a method that it does not know.
        StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            Err(OutboundReason::OtherService(format!(
                "answers {status} to `CONNECT`: it is not a proxy, or does not allow that"
            )))
        }
        status => Err(OutboundReason::Refused(status.to_string())),
    }
}
