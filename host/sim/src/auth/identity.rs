//! What `tctl auth sign` writes: an identity file, and the same as three PEM files.

use std::time::SystemTime;

use rcgen::DnType;
use rustls::crypto::ring;
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::public::{EcdsaPublicKey, KeyData};
use ssh_key::{PrivateKey, PublicKey};

use crate::SimError;
use crate::certificate::{Authority, Pair, since_epoch};
use crate::folder::Folder;

/// Who the identity stands for.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub roles: Vec<String>,
}

impl Default for User {
    fn default() -> User {
        User {
            name: "event-handler".to_owned(),
            roles: vec!["event-handler".to_owned()],
        }
    }
}

/// Writes `identity`, `client.crt`, `client.key` and `client.cas`.
///
/// The order of the identity file is that of Teleport's writers: key, SSH certificate, TLS
/// certificate, SSH host CA, TLS host CA.
pub(super) fn write(
    folder: &Folder,
    cluster: &str,
    user: &User,
    users: &Authority,
    host_ca: &str,
    expires: SystemTime,
) -> Result<(), SimError> {
    let mut subject: Vec<_> = user
        .roles
        .iter()
        .map(|role| (DnType::OrganizationName, role.as_str()))
        .collect();
    subject.push((DnType::CommonName, &user.name));
    let Pair { certificate, key } = users.sign(&subject, &[], expires)?;
    let (key_pem, certificate_pem) = (
        unix_lines(&key.serialize_pem()),
        unix_lines(&certificate.pem()),
    );
    let host_ca = unix_lines(host_ca);

    let ssh_user = ssh_certificate(cluster, user, key.public_key_raw(), expires)?;
    let ssh_host =
        PublicKey::from(ssh_authority()?.public_key().key_data().clone()).to_openssh()?;
    let known = format!("@cert-authority {cluster},*.{cluster} {ssh_host} type=host\n");

    folder.write("client.crt", &certificate_pem)?;
    folder.write("client.key", &key_pem)?;
    folder.write("client.cas", &host_ca)?;
    // Last: whoever waits for this file finds the others complete.
    folder.write(
        "identity",
        &[
            &*key_pem,
            &ssh_user,
            "\n",
            &certificate_pem,
            &known,
            &host_ca,
        ]
        .concat(),
    )
}

/// An OpenSSH user certificate with Teleport's extensions, in the form of authorized_keys.
#[allow(
    clippy::disallowed_methods,
    reason = "certificates are valid from now on"
)]
fn ssh_certificate(
    cluster: &str,
    user: &User,
    public_key: &[u8],
    expires: SystemTime,
) -> Result<String, SimError> {
    let key = KeyData::Ecdsa(EcdsaPublicKey::from_sec1_bytes(public_key)?);
    let until = since_epoch(expires).as_secs();
    let from = since_epoch(SystemTime::now())
        .as_secs()
        .saturating_sub(60)
        .min(until.saturating_sub(86_400));
    let mut builder = Builder::new(random()?.to_vec(), key, from, until)?;
    builder
        .serial(0)?
        .cert_type(CertType::User)?
        .key_id(&*user.name)?;
    builder
        .valid_principal(format!("-teleport-nologin-{}", user.name))?
        .valid_principal("-teleport-internal-join")?;
    let roles = serde_json::json!({ "version": "v1", "roles": user.roles }).to_string();
    builder
        .extension("permit-pty", "")?
        .extension("teleport-roles", roles)?
        .extension("teleport-route-to-cluster", cluster)?;
    Ok(builder.sign(&ssh_authority()?)?.to_openssh()?)
}

/// A new SSH certificate authority. Nothing here speaks SSH, so nobody has to recognise it later.
fn ssh_authority() -> Result<PrivateKey, SimError> {
    Ok(PrivateKey::new(
        KeypairData::Ed25519(Ed25519Keypair::from_seed(&random()?)),
        "",
    )?)
}

fn random() -> Result<[u8; 32], SimError> {
    let mut bytes = [0; 32];
    let filled = ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| SimError::Certificate("no random numbers".to_owned()))?;
    Ok(bytes)
}

fn unix_lines(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}
