//! What `tctl auth sign` writes: an identity file, and the same as three PEM files.

use std::time::SystemTime;

use rcgen::DnType;

use super::ssh;
use crate::SimError;
use crate::certificate::{Authority, Pair};
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

    let ssh_user = ssh::Authority::new()?.sign(cluster, user, key.public_key_raw(), expires)?;
    let ssh_host = ssh::Authority::new()?.public_key();
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

fn unix_lines(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}
