//! The output of `tctl auth sign`: an identity file, and the same credentials as three PEM files.

use std::time::SystemTime;

use rcgen::DnType;

use super::ssh;
use crate::SimError;
use crate::certificate::{Authority, CertifiedKey};
use crate::output_dir::OutputDir;

/// The user whom the identity belongs to.
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
    dir: &OutputDir,
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
    let CertifiedKey { certificate, key } = users.sign(&subject, &[], expires)?;
    let (key_pem, certificate_pem) = (
        unix_lines(&key.serialize_pem()),
        unix_lines(&certificate.pem()),
    );
    let host_ca = unix_lines(host_ca);

    let ssh_user = ssh::Authority::new()?.sign(cluster, user, key.public_key_raw(), expires)?;
    let ssh_host = ssh::Authority::new()?.public_key();
    let known = format!("@cert-authority {cluster},*.{cluster} {ssh_host} type=host\n");

    dir.write("client.crt", &certificate_pem)?;
    dir.write("client.key", &key_pem)?;
    dir.write("client.cas", &host_ca)?;
    // Written last: a process that waits for this file finds the others complete.
    dir.write(
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

fn unix_lines(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}
