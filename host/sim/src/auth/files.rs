//! The Auth server's certificates, kept in the output folder: a server started again on the folder
//! serves the same clients.

use std::sync::Arc;

use rcgen::{DnType, KeyPair};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::{Options, identity};
use crate::SimError;
use crate::certificate::{Authority, in_ten_years};
use crate::folder::Folder;

const NODE: &str = "auth-simulator";
const NEEDED: [&str; 6] = [
    "ca.crt",
    "server.crt",
    "server.key",
    "user-ca.crt",
    "user-ca.key",
    "identity",
];

/// Writes what is missing, and the server's TLS from what is there.
pub(super) fn prepare(options: &Options) -> Result<ServerConfig, SimError> {
    let folder = Folder::create(&options.out)?;
    if !folder.holds(&NEEDED) {
        if folder.holds(&["server.crt"]) && !folder.holds(&["user-ca.crt"]) {
            return Err(SimError::Shared(options.out.clone()));
        }
        make(&folder, options)?;
    } else if options.identity_expires.is_some() {
        issue(options)?;
    }
    tls(&folder)
}

/// Writes a new `identity` and `client.*` into the folder of a server, signed by the same
/// authority.
pub(super) fn issue(options: &Options) -> Result<(), SimError> {
    let folder = Folder::create(&options.out)?;
    let key = KeyPair::from_pem(&folder.read("user-ca.key")?)
        .map_err(|error| folder.damaged("user-ca.key", error))?;
    let cluster = &options.events.cluster;
    let users = Authority::with_key(cluster, cluster, key)?;
    let expires = options.identity_expires.unwrap_or_else(in_ten_years);
    identity::write(
        &folder,
        cluster,
        &options.user,
        &users,
        &folder.read("ca.crt")?,
        expires,
    )
}

/// Teleport has an authority for hosts and one for users; both are called `CN=<cluster>,
/// O=<cluster>`.
fn make(folder: &Folder, options: &Options) -> Result<(), SimError> {
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
    folder.write("ca.crt", &hosts.certificate)?;
    folder.write("server.crt", &server.certificate.pem())?;
    folder.write("server.key", &server.key.serialize_pem())?;
    folder.write("user-ca.crt", &users.certificate)?;
    folder.write("user-ca.key", &users.key().serialize_pem())?;
    issue(options)
}

/// As observed of Teleport 13.3.8: TLS 1.2 and 1.3; both authorities may sign a client's
/// certificate; a client without one is let in (and may only ping); a list of protocols with
/// neither `h2` nor `http/1.1` is refused.
fn tls(folder: &Folder) -> Result<ServerConfig, SimError> {
    let mut roots = RootCertStore::empty();
    for name in ["ca.crt", "user-ca.crt"] {
        roots
            .add(folder.certificate(name)?)
            .map_err(|error| folder.damaged(name, error))?;
    }
    let provider = Arc::new(ring::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .map_err(|error| SimError::Certificate(error.to_string()))?
        .with_client_cert_verifier(clients.map_err(|error| folder.damaged("user-ca.crt", error))?)
        .with_single_cert(
            vec![folder.certificate("server.crt")?],
            folder.key("server.key")?,
        )
        .map_err(|error| folder.damaged("server.crt", error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
