//! The Auth server's certificates, kept in the output directory: a server that is restarted on the
//! same directory serves the same clients.

use std::sync::Arc;

use rcgen::{DnType, KeyPair};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::{AuthOptions, identity, ssh};
use crate::SimError;
use crate::certificate::{Authority, in_ten_years};
use crate::output_dir::OutputDir;

const NODE: &str = "auth-simulator";
const NEEDED: [&str; 6] = [
    "ca.crt",
    "server.crt",
    "server.key",
    "user-ca.crt",
    "user-ca.key",
    "identity",
];

/// Creates missing files and returns the server's TLS configuration.
pub(super) fn prepare(options: &AuthOptions) -> Result<ServerConfig, SimError> {
    let dir = OutputDir::create(&options.out)?;
    if !dir.holds(&NEEDED) {
        if dir.holds(&["server.crt"]) && !dir.holds(&["user-ca.crt"]) {
            return Err(SimError::Shared(options.out.clone()));
        }
        make(&dir, options)?;
    } else if options.identity_expires.is_some() || !ssh::Authority::are_kept(&dir) {
        issue(options)?;
    }
    tls(&dir)
}

/// Writes a new `identity` and new `client.*` files to a server's directory, signed by the same
/// authority.
pub(super) fn issue(options: &AuthOptions) -> Result<(), SimError> {
    let dir = OutputDir::create(&options.out)?;
    let key = KeyPair::from_pem(&dir.read("user-ca.key")?)
        .map_err(|error| dir.damaged("user-ca.key", error))?;
    let cluster = &options.events.cluster;
    let users = Authority::with_key(cluster, cluster, key)?;
    let expires = options.identity_expires.unwrap_or_else(in_ten_years);
    identity::write(
        &dir,
        cluster,
        (&options.user, options.identity_key),
        &users,
        &dir.read("ca.crt")?,
        expires,
    )
}

/// Teleport has an authority for hosts and one for users; both are called `CN=<cluster>,
/// O=<cluster>`.
fn make(dir: &OutputDir, options: &AuthOptions) -> Result<(), SimError> {
    let cluster = &options.events.cluster;
    let (hosts, users) = (
        Authority::new(cluster, cluster)?,
        Authority::new(cluster, cluster)?,
    );
    let names = [NODE, "*.teleport.cluster.local", "teleport.cluster.local"];
    let server = hosts.sign(
        &[
            (DnType::CommonName, NODE),
            (DnType::OrganizationName, "Admin"),
        ],
        &names,
        in_ten_years(),
    )?;
    dir.write("ca.crt", &hosts.certificate)?;
    dir.write("server.crt", &server.certificate.pem())?;
    dir.write("server.key", &server.key.serialize_pem())?;
    dir.write("user-ca.crt", &users.certificate)?;
    dir.write("user-ca.key", &users.key().serialize_pem())?;
    issue(options)
}

/// As observed with Teleport 13.3.8: TLS 1.2 and 1.3; both authorities may sign a client
/// certificate; a client without a certificate may connect, but only ping; ALPN lists with neither
/// `h2` nor `http/1.1` are refused.
fn tls(dir: &OutputDir) -> Result<ServerConfig, SimError> {
    let mut roots = RootCertStore::empty();
    for name in ["ca.crt", "user-ca.crt"] {
        roots
            .add(dir.certificate(name)?)
            .map_err(|error| dir.damaged(name, error))?;
    }
    let provider = Arc::new(ring::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .map_err(|error| SimError::Certificate(error.to_string()))?
        .with_client_cert_verifier(clients.map_err(|error| dir.damaged("user-ca.crt", error))?)
        .with_single_cert(vec![dir.certificate("server.crt")?], dir.key("server.key")?)
        .map_err(|error| dir.damaged("server.crt", error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
