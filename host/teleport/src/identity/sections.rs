//! The PEM sections of an identity file.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Identity, IdentityError, LINE_MAX, key};

/// One line, or one PEM block, of a credentials file.
enum Section<'a> {
    Pem { label: &'a str, text: String },
    SshCertificate(&'a str),
    SshAuthority(&'a str),
}

/// Reads an identity file (Teleport api/identityfile): a private key, an SSH certificate, a TLS
/// certificate, SSH authorities, TLS authorities. The SSH parts may be absent; other lines are
/// ignored. The last SSH certificate wins.
pub fn parse(text: &str) -> Result<Identity, IdentityError> {
    let (mut private_key, mut certificates) = (None, Vec::new());
    let (mut ssh_certificate, mut ssh_authorities) = (None, Vec::new());
    for section in sections(text) {
        match section? {
            Section::Pem { label, text }
                if label.ends_with("PRIVATE KEY") && private_key.is_none() =>
            {
                private_key = Some(key::decode(label, &text)?);
            }
            Section::Pem { label, text } => certificates.push(certificate(label, &text)?),
            Section::SshCertificate(line) => ssh_certificate = Some(line.to_owned()),
            Section::SshAuthority(line) => ssh_authorities.push(line.to_owned()),
        }
    }
    let private_key = private_key.ok_or(IdentityError::NoKey)?;
    if certificates.is_empty() {
        return Err(IdentityError::NoCertificate);
    }
    let authorities = certificates.split_off(1);
    if authorities.is_empty() {
        return Err(IdentityError::NoAuthority);
    }
    let identity = Identity::new(private_key, certificates, authorities)?;
    Ok(Identity {
        ssh_certificate,
        ssh_authorities,
        ..identity
    })
}

/// The first private key of a PEM file.
pub(super) fn key_in(text: &str) -> Result<PrivateKeyDer<'static>, IdentityError> {
    for section in sections(text) {
        if let Section::Pem { label, text } = section?
            && label.ends_with("PRIVATE KEY")
        {
            return key::decode(label, &text);
        }
    }
    Err(IdentityError::NoKey)
}

/// Every certificate of a PEM file.
pub(super) fn certificates_in(text: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let mut certificates = Vec::new();
    for section in sections(text) {
        if let Section::Pem { label, text } = section?
            && label == "CERTIFICATE"
        {
            certificates.push(certificate(label, &text)?);
        }
    }
    Ok(certificates)
}

fn certificate(label: &str, text: &str) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|_| IdentityError::Block(label.to_owned()))
}

fn sections(text: &str) -> impl Iterator<Item = Result<Section<'_>, IdentityError>> {
    let mut lines = text.lines().enumerate();
    std::iter::from_fn(move || {
        loop {
            let (number, line) = lines.next()?;
            if line.len() >= LINE_MAX {
                return Some(Err(IdentityError::LineTooLong(number + 1)));
            }
            let line = line.trim();
            if let Some(label) = line.strip_prefix("-----BEGIN ") {
                let label = label.trim_end_matches('-');
                return Some(block(label, line, &mut lines));
            }
            if is_ssh_certificate(line) {
                return Some(Ok(Section::SshCertificate(line)));
            }
            if line.starts_with("@cert-authority") {
                return Some(Ok(Section::SshAuthority(line)));
            }
        }
    })
}

fn block<'a>(
    label: &'a str,
    begin: &str,
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
) -> Result<Section<'a>, IdentityError> {
    let mut text = format!("{begin}\n");
    for (number, line) in lines {
        if line.len() >= LINE_MAX {
            return Err(IdentityError::LineTooLong(number + 1));
        }
        let line = line.trim();
        text.push_str(line);
        text.push('\n');
        if line.starts_with("-----END") {
            return Ok(Section::Pem { label, text });
        }
    }
    Err(IdentityError::Unterminated(label.to_owned()))
}

/// `^[a-z0-9-]+-cert-v[0-9]{2}@openssh.com$`, on the first word.
fn is_ssh_certificate(line: &str) -> bool {
    let word = line.split(' ').next().unwrap_or_default();
    word.strip_suffix("@openssh.com").is_some_and(|name| {
        name.rsplit_once("-cert-v").is_some_and(|(kind, version)| {
            !kind.is_empty()
                && kind
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && version.len() == 2
                && version.bytes().all(|byte| byte.is_ascii_digit())
        })
    })
}
