//! The receiver's certificates, kept in the output directory: a receiver that is started again on
//! the same directory serves the same clients.

use std::path::Path;
use std::sync::Arc;

use rcgen::DnType;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::SimError;
use crate::certificate::{Authority, in_ten_years};
use crate::output_dir::OutputDir;

const NEEDED: [&str; 5] = [
    "ca.crt",
    "server.crt",
    "server.key",
    "client.crt",
    "client.key",
];
/// SANs, so that clients may use any of a local machine's names.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Creates missing files and returns the server's TLS configuration, which requires a client
/// certificate signed by the receiver's own authority.
pub(super) fn prepare(out: &Path) -> Result<ServerConfig, SimError> {
    let dir = OutputDir::create(out)?;
    if dir.holds(&["identity"]) {
        return Err(SimError::Shared(dir.path().to_owned()));
    }
    if !dir.holds(&NEEDED) {
        make(&dir)?;
    }
    let mut roots = RootCertStore::empty();
    roots
        .add(dir.certificate("ca.crt")?)
        .map_err(|error| dir.damaged("ca.crt", error))?;
    let provider = Arc::new(ring::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .map_err(|error| SimError::Certificate(error.to_string()))?
        .with_client_cert_verifier(clients.map_err(|error| dir.damaged("ca.crt", error))?)
        .with_single_cert(vec![dir.certificate("server.crt")?], dir.key("server.key")?)
        .map_err(|error| dir.damaged("server.crt", error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn make(dir: &OutputDir) -> Result<(), SimError> {
    let authority = Authority::new("Lockgate receiver simulator CA", "")?;
    let server = authority.sign(&[(DnType::CommonName, "localhost")], &NAMES, in_ten_years())?;
    let client = authority.sign(
        &[(DnType::CommonName, "Lockgate receiver simulator client")],
        &[],
        in_ten_years(),
    )?;
    dir.write("ca.crt", &authority.certificate)?;
    dir.write("server.crt", &server.certificate.pem())?;
    dir.write("server.key", &server.key.serialize_pem())?;
    dir.write("client.crt", &client.certificate.pem())?;
    dir.write("client.key", &client.key.serialize_pem())
}
