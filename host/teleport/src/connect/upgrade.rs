//! The connection upgrade: a byte stream to the proxy through a load balancer that terminates TLS.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderName, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;

use super::proxy::ProxyFailure;
use super::route::Pipe;
use super::web::{Answer, Web};
use super::websocket::{Role, WebSocket, accept};

const PATH: &str = "/webapi/connectionupgrade";
/// The stream is that of ALPN routing, and the proxy sends pings so that the load balancer does not
/// take it for idle.
const PROTOCOL: &str = "alpn-ping";
/// The upgrade of proxies that know no WebSocket: raw bytes follow.
const OLD: &str = "alpn";
/// Load balancers may remove `Upgrade` headers that they do not know.
const TELEPORT_UPGRADE: &str = "x-teleport-upgrade";
/// Time limit of each request.
const LIMIT: Duration = Duration::from_secs(10);

impl Web {
    /// Opens the byte stream.
    pub(super) async fn upgrade(&self) -> Result<Box<dyn Pipe>, ProxyFailure> {
        let key = nonce()?;
        let headers = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", &key),
            ("sec-websocket-protocol", PROTOCOL),
        ];
        let answer = self.ask(&headers).await?;
        if answer.response.status() == StatusCode::NOT_FOUND {
            return self.old_upgrade().await;
        }
        for (name, expected) in [
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL),
            (header::SEC_WEBSOCKET_ACCEPT, &accept(&key)),
        ] {
            self.check(&answer, name, expected)?;
        }
        let stream = self.upgraded(answer).await?;
        Ok(Box::new(WebSocket::new(stream, Role::Client)))
    }

    async fn old_upgrade(&self) -> Result<Box<dyn Pipe>, ProxyFailure> {
        let headers = [
            ("connection", "Upgrade"),
            ("upgrade", OLD),
            (TELEPORT_UPGRADE, OLD),
        ];
        let answer = self.ask(&headers).await?;
        if answer.response.status() == StatusCode::NOT_FOUND {
            return Err(self.refused("has no `/webapi/connectionupgrade` (404)".to_owned()));
        }
        // One of the two may have been removed on the way.
        self.check(&answer, header::UPGRADE, OLD)
            .or_else(|refused| {
                let other = HeaderName::from_static(TELEPORT_UPGRADE);
                self.check(&answer, other, OLD).map_err(|_| refused)
            })?;
        Ok(Box::new(self.upgraded(answer).await?))
    }

    async fn ask(&self, headers: &[(&str, &str)]) -> Result<Answer, ProxyFailure> {
        match tokio::time::timeout(LIMIT, self.get(&[], PATH, headers)).await {
            Ok(answer) => answer.map_err(|error| self.no_upgrade(error)),
            Err(_) => Err(self.refused(format!("does not answer within {} s", LIMIT.as_secs()))),
        }
    }

    /// Whether the answer agrees to the upgrade, as this header has to say.
    fn check(&self, answer: &Answer, name: HeaderName, expected: &str) -> Result<(), ProxyFailure> {
        let status = answer.response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refused(format!("answers with {status}")));
        }
        let value = answer.response.headers().get(&name);
        let value = value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let agrees = value.as_ref().is_some_and(|value| match name {
            header::UPGRADE => value.eq_ignore_ascii_case(expected),
            _ => value == expected,
        });
        if agrees {
            return Ok(());
        }
        let found = value.map_or("nothing".to_owned(), |value| {
            format!("`{}`", value.chars().take(100).collect::<String>())
        });
        Err(self.refused(format!(
            "answers with {status}, but with {found} as `{name}`"
        )))
    }

    async fn upgraded(&self, mut answer: Answer) -> Result<impl Pipe + use<>, ProxyFailure> {
        let upgraded = hyper::upgrade::on(&mut answer.response).await;
        let stream = upgraded.map_err(|error| self.refused(format!("breaks off: {error}")))?;
        Ok(TokioIo::new(stream))
    }

    fn refused(&self, found: String) -> ProxyFailure {
        ProxyFailure::UpgradeRefused {
            address: self.address.to_string(),
            found,
        }
    }
}

/// The key of a handshake.
fn nonce() -> Result<String, ProxyFailure> {
    let mut bytes = [0; 16];
    ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| ProxyFailure::NoRandom)?;
    Ok(BASE64_STANDARD.encode(bytes))
}
